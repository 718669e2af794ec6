/* The table of a stage's settings: how each is written into a record, and whether it may change on the way. */
#include "common/train/settings.h"

#include <stddef.h>
#include <string.h>

#include "common/base/log.h"
#include "common/cli/yaml.h"
#include "common/comm/mesh.h"

enum kind { INT, DOUBLE, TEXT, FLAG, CHOICE };
enum rule {
	FREE,   /* speed, memory, records: never what is computed beyond rounding */
	FIXED,  /* decides what is computed */
	CURVED, /* decides it when the learning rate is not constant */
	LENGTH, /* the same, where no --decay-steps stand for it */
	MODEL   /* of the model: the configuration itself is compared (save.c) */
};

static const struct setting {
	const char *name;
	enum kind kind;
	enum rule rule;
	size_t at;
	const char *const *choices;
} table[] = {
#define S(name, kind, rule, field) { name, kind, rule, offsetof(struct lwm_stage, field), NULL }
#define C(name, rule, field, choices) { name, CHOICE, rule, offsetof(struct lwm_stage, field), choices }
	C("objective", FIXED, objective, lwm_objective_names),
	S("seed", INT, FIXED, seed),
	S("start-from", TEXT, FIXED, start_from),
	S("tokenizer", TEXT, FREE, tokenizer), /* the rows carry its hash */
	S("device", TEXT, FREE, device),
	S("model", TEXT, MODEL, model),
	S("dim", INT, MODEL, dim),
	S("ffn", INT, MODEL, ffn),
	S("layers", INT, MODEL, layers),
	S("heads", INT, MODEL, heads),
	S("kv-heads", INT, MODEL, kv_heads),
	S("vocab", INT, MODEL, vocab),
	S("vision-codes", INT, MODEL, vision_codes),
	S("tie", FLAG, MODEL, tie),
	S("theta", DOUBLE, FIXED, theta),
	S("init-std", DOUBLE, MODEL, init_std),
	S("norm-eps", DOUBLE, MODEL, norm_eps),
	S("seq-length", INT, FIXED, seq_length),
	S("tokens-per-batch", INT, FIXED, tokens_per_batch),
	S("micro-rows", INT, FREE, micro_rows),
	C("loss-weighting", FIXED, weighting, lwm_weighting_names),
	S("text-weight", DOUBLE, FIXED, text_weight),
	S("vision-weight", DOUBLE, FIXED, vision_weight),
	S("steps", INT, LENGTH, steps),
	C("schedule", FIXED, schedule, lwm_schedule_names),
	S("lr", DOUBLE, FIXED, lr),
	S("min-lr", DOUBLE, CURVED, min_lr),
	S("warmup-steps", INT, FIXED, warmup_steps),
	C("warmup-from", FIXED, warmup_from, lwm_warmup_names),
	S("init-lr", DOUBLE, FIXED, init_lr),
	S("decay-steps", INT, CURVED, decay_steps),
	S("weight-decay", DOUBLE, FIXED, weight_decay),
	S("decay-all", FLAG, FIXED, decay_all),
	S("beta1", DOUBLE, FIXED, beta1),
	S("beta2", DOUBLE, FIXED, beta2),
	S("eps", DOUBLE, FIXED, eps),
	S("clip", DOUBLE, FIXED, clip),
	S("spike-factor", DOUBLE, FIXED, spike_factor),
	S("mesh-dim", TEXT, FREE, mesh_dim),
	C("ring-layout", FREE, ring_layout, lwm_ring_layouts),
	S("no-recompute", FLAG, FREE, no_recompute),
	C("offload", FREE, offload, lwm_offload_names),
	S("scan-mlp-chunk-size", INT, FREE, mlp_chunk),
	S("loss-mib", INT, FREE, loss_mib),
	S("checkpoint-every", INT, FREE, checkpoint_every),
	S("keep", INT, FREE, keep),
	S("keep-every", INT, FREE, keep_every),
	S("log-every", INT, FREE, log_every),
	S("eval-every", INT, FREE, eval_every),
	S("eval-rows", INT, FREE, eval_rows),
	S("resolution", INT, MODEL, resolution),
	S("channel-mult", TEXT, MODEL, channel_mult),
	S("hidden", INT, MODEL, hidden),
	S("res-blocks", INT, MODEL, res_blocks),
	S("z-channels", INT, MODEL, z_channels),
	S("codes", INT, MODEL, codes),
	S("groups", INT, MODEL, groups),
	S("batch-frames", INT, FIXED, batch_frames),
	S("frames-per-pass", INT, FREE, frames_per_pass),
	S("holdout", INT, FIXED, holdout),
	S("cache-mib", INT, FREE, cache_mib),
	S("fps", DOUBLE, FIXED, fps),
	S("l1", DOUBLE, FIXED, l1),
	S("l2", DOUBLE, FIXED, l2),
	S("codebook-weight", DOUBLE, FIXED, codebook_weight),
	S("commit-weight", DOUBLE, FIXED, commit_weight),
	S("quantize-from", INT, FIXED, quantize_from),
	S("probe-frames", INT, FIXED, probe_frames),
	S("revive-every", INT, FIXED, revive_every),
	S("revive-until", INT, FIXED, revive_until),
#undef S
#undef C
};
enum { SETTINGS = sizeof table / sizeof *table };
static const char data_key[] = "data";

static json_t *value_of(const struct setting *x, const struct lwm_stage *s)
{
	const void *p = (const char *)s + x->at;
	const char *text;

	switch (x->kind) {
	case INT:
		return json_integer(*(const int64_t *)p);
	case DOUBLE:
		return json_real(*(const double *)p);
	case FLAG:
		return json_boolean(*(const bool *)p);
	case CHOICE:
		return json_string(x->choices[*(const int *)p]);
	default:
		text = *(const char *const *)p;
		return json_string(text ? text : "");
	}
}

json_t *lwm_settings_json(const struct lwm_stage *s, const char *data)
{
	json_t *o = json_object();
	bool failed = !o || json_object_set_new(o, data_key, json_string(data));

	for (int i = 0; i < SETTINGS && !failed; i++)
		failed = json_object_set_new(o, table[i].name, value_of(&table[i], s)) != 0;
	if (!failed)
		return o;
	json_decref(o);
	return NULL;
}

static bool equal(const json_t *a, const json_t *b)
{
	if (json_is_number(a) && json_is_number(b))
		return json_number_value(a) == json_number_value(b);
	return json_equal(a, b);
}

static bool allowed(const struct lwm_stage *s, const char *name)
{
	for (int64_t i = 0; i < s->allow_change.n; i++)
		if (!strcmp(s->allow_change.v[i], name))
			return true;
	return false;
}

static bool decides(const struct setting *x, const json_t *before, const json_t *now)
{
	static const char key[] = "schedule";

	if (x->rule != CURVED && x->rule != LENGTH)
		return x->rule == FIXED;
	if (x->rule == LENGTH && json_integer_value(json_object_get(now, "decay-steps")))
		return false;
	return strcmp(json_string_value(json_object_get(now, key)), "constant") || !equal(json_object_get(now, key),
											  json_object_get(before, key));
}

struct differences {
	struct lwm_str refused, taken, names;
};

static void add_difference(struct differences *d, bool ok, const char *name, const json_t *was, const json_t *is)
{
	struct lwm_str *out = ok ? &d->taken : &d->refused;
	char *a = json_dumps(was, JSON_ENCODE_ANY | JSON_REAL_PRECISION(12)),
	     *b = json_dumps(is, JSON_ENCODE_ANY | JSON_REAL_PRECISION(12));

	if (!strcmp(name, data_key))
		lwm_str_printf(out, "%sother data", out->len ? "; " : "");
	else
		lwm_str_printf(out, "%s%s %s, was %s", out->len ? "; " : "", name, b ? b : "?", a ? a : "?");
	if (!ok)
		lwm_str_printf(&d->names, " --allow-change %s", name);
	free(a);
	free(b);
}

static void compare(struct differences *d, const struct lwm_stage *s, const char *name, const json_t *before, const json_t *now)
{
	const json_t *was = json_object_get(before, name), *is = json_object_get(now, name);

	if (!equal(was, is))
		add_difference(d, allowed(s, name), name, was, is);
}

int lwm_settings_same(const struct lwm_stage *s, const json_t *before, const json_t *now, const char *where, struct lwm_err *e)
{
	struct differences d = { 0 };
	struct lwm_stage plain;
	const char *data = json_string_value(json_object_get(before, data_key));
	json_t *then;
	int rc;

	lwm_stage_defaults(&plain);
	then = lwm_settings_json(&plain, "");
	if (!then || json_object_update(then, (json_t *)before)) {
		json_decref(then);
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the settings");
	}
	for (int i = 0; i < SETTINGS; i++)
		if (decides(&table[i], then, now))
			compare(&d, s, table[i].name, then, now);
	if (data && *data)
		compare(&d, s, data_key, before, now);
	json_decref(then);
	rc = lwm_str_ok(&d.refused, e);
	if (rc == 0 && d.taken.len && !d.refused.len)
		lwm_log(LWM_WARN, "%s: going on with other settings, as allowed: %s", where, lwm_str_get(&d.taken));
	if (rc == 0 && d.refused.len)
		rc = lwm_fail(e, LWM_ECONFIG, "%s: this run was begun with other settings: %s (to go on with these:%s)", where,
			      lwm_str_get(&d.refused), lwm_str_get(&d.names));
	lwm_str_release(&d.refused);
	lwm_str_release(&d.taken);
	lwm_str_release(&d.names);
	return rc;
}

int lwm_settings_check(const struct lwm_stage *s, struct lwm_err *e)
{
	const char *names[SETTINGS + 1], *near;
	int n = 0;

	for (int i = 0; i < SETTINGS; i++)
		if (table[i].rule == FIXED || table[i].rule == CURVED || table[i].rule == LENGTH)
			names[n++] = table[i].name;
	names[n++] = data_key;
	for (int64_t i = 0; i < s->allow_change.n; i++) {
		const char *want = s->allow_change.v[i];
		int k = 0;

		while (k < n && strcmp(names[k], want))
			k++;
		near = k < n ? NULL : lwm_nearest(want, names, n);
		if (k == n)
			return lwm_fail(e, LWM_EUSAGE, "--allow-change %s: no setting that a resumed run must keep%s%s%s", want,
					near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
	}
	return 0;
}
