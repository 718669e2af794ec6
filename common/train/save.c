/* The state of a stage in checkpoints: out, and back in. */
#include "common/train/save.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/train/own.h"
#include "common/train/settings_record.h"
#include "common/train/share.h"
#include "common/train/start.h"

/* Those that a rank writes, at most LWM_RUNS of a tensor; host NULL: without their values. */
static int64_t slices_of(const struct lwm_own *own, float *const host[], struct lwm_ckpt_slice *out)
{
	struct lwm_run run[LWM_RUNS];
	int64_t n = 0, at;
	for (int64_t i = 0; i < own->whole->n; i++) {
		int runs = lwm_own_speaks(own, i) ? lwm_own_runs(own, i, run, &at) : 0;
		for (int k = 0; k < runs; k++) {
			out[n] = (struct lwm_ckpt_slice){ i, run[k].offset, run[k].run, run[k].count, run[k].stride, { NULL } };
			for (int g = 0; host && g < LWM_CKPT_TRAINED; g++)
				out[n].data[g] = host[g] + at;
			at += run[k].run * run[k].count;
			n++;
		}
	}
	return n;
}

static struct lwm_own own_here(const struct lwm_objective *o, const struct lwm_weights *w)
{
	return lwm_own_of(o, &w->cut, lwm_comm_rank(w->ranks));
}

/* What a checkpoint calls a vector of the optimizer's. */
static enum lwm_state state_of(int group)
{
	return group == LWM_CKPT_PARAMS ? LWM_STATE_WEIGHTS : group == LWM_CKPT_ADAM_M ? LWM_STATE_M : LWM_STATE_V;
}

/* Own piece of a group on the host: where it lies, or a copy of it in *own, the caller's to free. */
static int on_host(struct lwm_weights *w, enum lwm_ckpt_group g, float **at, float **own, struct lwm_err *e)
{
	*own = NULL;
	*at = lwm_weights_host(w, state_of(g));
	if (*at)
		return 0;
	*at = *own = malloc((size_t)w->cut.count * sizeof **own);
	if (!*own)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " values of weights and state", w->cut.count);
	return 0;
}

static int write_part(const struct lwm_objective *o, struct lwm_weights *w, const char *dir, struct lwm_ckpt_part *part,
		      struct lwm_err *e)
{
	float *host[LWM_CKPT_TRAINED] = { 0 }, *own[LWM_CKPT_TRAINED] = { 0 };
	struct lwm_ckpt_slice *slice = calloc((size_t)o->tensors.n * LWM_RUNS, sizeof *slice);
	struct lwm_own mine = own_here(o, w);
	int rc = slice ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for a checkpoint");
	for (int g = 0; rc == 0 && g < LWM_CKPT_TRAINED; g++) {
		rc = on_host(w, (enum lwm_ckpt_group)g, &host[g], &own[g], e);
		if (rc == 0 && own[g])
			rc = lwm_weights_take(w, state_of(g), own[g], e);
	}
	if (rc == 0) {
		struct lwm_ckpt_out out = { .dir = dir,
					    .rank = lwm_comm_rank(w->ranks),
					    .tensors = &o->tensors,
					    .slice = slice,
					    .nslice = slices_of(&mine, host, slice),
					    .groups = LWM_CKPT_TRAINED_ALL };
		rc = lwm_ckpt_write_part(&out, part, e);
	}
	for (int g = 0; g < LWM_CKPT_TRAINED; g++)
		free(own[g]);
	free(slice);
	return rc;
}

static json_t *state_json(const struct lwm_train_state *st, const struct lwm_stage *s)
{
	json_t *recent = json_array();
	char loss[40];
	for (int64_t i = 0; i < st->guard.nrecent; i++)
		if (json_array_append_new(recent, json_real(st->guard.recent[i]))) {
			json_decref(recent);
			return NULL;
		}
	snprintf(loss, sizeof loss, "%a", st->loss);
	return json_pack("{s:I s:I s:f s:I s:o s:I s:{s:s s:s}}", "step", (json_int_t)st->step, "skipped",
			 (json_int_t)st->guard.skipped, "units", st->units, "seed", (json_int_t)s->seed, "recent", recent,
			 "skips_in_row", (json_int_t)st->guard.skips_in_row, "last", "loss_hex", loss, "more", st->more);
}

static json_t *config_json(const struct lwm_objective *o, struct lwm_err *e)
{
	json_t *settings = lwm_settings_record(o->stage, o->data);
	json_t *j = settings ? json_pack("{s:O s:o}", "model", o->config, "stage", settings) : NULL;
	if (!j)
		lwm_fail(e, LWM_EMEMORY, "out of memory for a checkpoint record");
	return j;
}

/* The slices of all ranks end to end, as the ranks themselves cut them. */
static struct lwm_ckpt_slice *all_slices(const struct lwm_objective *o, const struct lwm_cut *cut,
					 const struct lwm_ckpt_part *parts, int n, struct lwm_err *e)
{
	int64_t k = 0, many = 0;
	for (int r = 0; r < n; r++)
		many += parts[r].nslice;
	struct lwm_ckpt_slice *all = calloc((size_t)many + 1, sizeof *all);
	if (!all)
		lwm_fail(e, LWM_EMEMORY, "out of memory for a checkpoint record");
	for (int r = 0; all && r < n; r++) {
		struct lwm_own theirs = lwm_own_of(o, cut, r);
		int64_t have = slices_of(&theirs, NULL, all + k);
		LWM_BUG_ON(have != parts[r].nslice);
		k += have;
	}
	return all;
}

static int commit_checkpoint(const struct lwm_objective *o, const struct lwm_cut *cut, const struct lwm_train_state *st,
			     const char *dir, const struct lwm_ckpt_part *parts, int n, struct lwm_err *e)
{
	struct lwm_ckpt_slice *slice = all_slices(o, cut, parts, n, e);
	char mesh[LWM_MESH_TEXT];
	json_t *config = config_json(o, e), *state = state_json(st, o->stage);
	int rc = slice && config && state ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for a checkpoint record");
	if (rc == 0) {
		struct lwm_ckpt_meta m = { .kind = o->type->kind,
					   .step = st->step,
					   .mesh = lwm_mesh_text(o->mesh->dim, mesh),
					   .ranks = n,
					   .config = config,
					   .state = state,
					   .tokenizer = o->tokenizer_hash,
					   .tokenizer_path = o->stage->tokenizer ? o->stage->tokenizer : "",
					   .groups = LWM_CKPT_TRAINED_ALL };
		rc = lwm_ckpt_commit(dir, &m, &o->tensors, parts, n, slice, e);
	}
	json_decref(config);
	json_decref(state);
	free(slice);
	return rc;
}

int lwm_stage_save(const struct lwm_objective *o, struct lwm_weights *w, const struct lwm_train_state *st,
	     struct lwm_ckpt_keeper *keeper, struct lwm_err *e)
{
	struct lwm_comm *c = w->ranks;
	int n = lwm_comm_size(c), rc;
	struct lwm_ckpt_part mine = { .name = "" }, *parts = calloc((size_t)n, sizeof *parts);
	char *dir = lwm_ckpt_dir(o->stage->out, st->step);
	rc = parts && dir ? write_part(o, w, dir, &mine, e) : lwm_fail(e, LWM_EMEMORY, "out of memory for a checkpoint");
	LWM_GO(lwm_agree(c, rc, e));
	LWM_GO(lwm_comm_allgather(c, &mine, sizeof mine, parts, e));
	if (lwm_comm_rank(c) == 0)
		rc = commit_checkpoint(o, &w->cut, st, dir, parts, n, e);
	if (lwm_comm_rank(c) == 0 && rc < 0)
		lwm_ckpt_take_back(dir, "COMMIT.json");
	LWM_GO(lwm_agree(c, rc, e)); /* nobody continues before the record is written */
	free(parts);
	free(dir);
	return lwm_share_retire(c, keeper, st->step, e);
out:
	if (rc < 0 && rc != -LWM_ERANK && dir)
		lwm_ckpt_take_back(dir, mine.name);
	free(parts);
	free(dir);
	return rc;
}

/* ---- back in ---- */

/* A tensor of a checkpoint. */
struct stored {
	struct lwm_ckpt *c;
	enum lwm_ckpt_group g;
	int64_t index;
};

static int read_stored(void *ctx, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	const struct stored *s = ctx;
	return lwm_ckpt_read(s->c, s->g, s->index, offset, n, out, e);
}

static int read_slice(const struct lwm_objective *o, const struct lwm_weights *w, struct lwm_ckpt *c, enum lwm_ckpt_group g,
		      float *host, struct lwm_err *e)
{
	struct lwm_own own = own_here(o, w);
	struct lwm_run run[LWM_RUNS];
	int64_t at = 0;
	memset(host, 0, (size_t)w->cut.count * sizeof *host);
	for (int64_t i = 0; i < o->tensors.n; i++) {
		const struct lwm_tensor *t = &o->tensors.list[i];
		int64_t k = lwm_ckpt_find(c, t->name);
		if (k < 0 || lwm_ckpt_size(c, k) != t->count)
			return lwm_fail(e, LWM_ECONFIG, "tensor '%s' of %" PRId64 " values is not in the checkpoint so", t->name,
					t->count);
		struct stored from = { c, g, k };
		int runs = lwm_own_runs(&own, i, run, &at);
		LWM_TRY(lwm_own_read(run, runs, read_stored, &from, host + at, e));
	}
	return 0;
}

static int read_group(const struct lwm_objective *o, struct lwm_weights *w, struct lwm_ckpt *c, enum lwm_ckpt_group g,
		      struct lwm_err *e)
{
	float *host, *own;
	int rc = on_host(w, g, &host, &own, e);
	if (rc == 0)
		rc = read_slice(o, w, c, g, host, e);
	if (rc == 0)
		rc = lwm_weights_put(w, state_of(g), host, e);
	free(own);
	return rc;
}

/* Records of older versions have neither: then the summary of a run that ended right after its last save lacks them. */
static int read_last(const json_t *j, struct lwm_train_state *st)
{
	const json_t *last = json_object_get(j, "last");
	const char *loss = json_string_value(json_object_get(last, "loss_hex")), *more = json_string_value(json_object_get(last, "more"));
	st->guard.skips_in_row = json_integer_value(json_object_get(j, "skips_in_row"));
	st->loss = loss ? strtod(loss, NULL) : NAN;
	snprintf(st->more, sizeof st->more, "%s", more ? more : "");
	return 0;
}

static int read_state(const json_t *j, struct lwm_train_state *st, const char *dir, struct lwm_err *e)
{
	json_t *recent;
	LWM_TRY(lwm_json_int(j, "step", &st->step, dir, e));
	LWM_TRY(lwm_json_int(j, "skipped", &st->guard.skipped, dir, e));
	LWM_TRY(lwm_json_double(j, "units", &st->units, dir, e));
	LWM_TRY(lwm_json_get(j, "recent", JSON_ARRAY, &recent, dir, e));
	st->guard.nrecent = (int64_t)json_array_size(recent);
	if (st->guard.nrecent > LWM_GUARD_WINDOW)
		return lwm_fail(e, LWM_EDATA, "%s: more than 64 recent gradient norms", dir);
	for (int64_t i = 0; i < st->guard.nrecent; i++)
		st->guard.recent[i] = json_number_value(json_array_get(recent, (size_t)i));
	return read_last(j, st);
}

/* A stage is resumed as what it was: model, seed and tokenizer must be the same. */
static int same_run(const struct lwm_objective *o, const struct lwm_ckpt_meta *m, const char *dir, struct lwm_err *e)
{
	const json_t *model = json_object_get(m->config, "model"), *seed = json_object_get(m->state, "seed");
	const char *key;
	json_t *mine;
	if (strcmp(m->kind, o->type->kind))
		return lwm_fail(e, LWM_ECONFIG, "%s: holds a %s, this stage trains a %s", dir, m->kind, o->type->kind);
	if (json_integer_value(seed) != o->stage->seed)
		return lwm_fail(e, LWM_ECONFIG, "%s: was trained with seed %" JSON_INTEGER_FORMAT ", not %" PRId64, dir,
				json_integer_value(seed), o->stage->seed);
	if (*m->tokenizer && *o->tokenizer_hash && strcmp(m->tokenizer, o->tokenizer_hash))
		return lwm_fail(e, LWM_ECONFIG, "%s: was trained on rows of the tokenizer of hash %s, these rows are of %s", dir,
				m->tokenizer, o->tokenizer_hash);
	json_object_foreach((json_t *)(uintptr_t)o->config, key, mine) {
		const json_t *theirs = json_object_get(model, key);
		if (json_equal(mine, theirs) ||
		    (json_is_number(mine) && json_is_number(theirs) && json_number_value(mine) == json_number_value(theirs)))
			continue;
		char *a = json_dumps(theirs, JSON_ENCODE_ANY), *b = json_dumps(mine, JSON_ENCODE_ANY);
		int rc = lwm_fail(e, LWM_ECONFIG, "%s: its model has %s = %s, this stage says %s", dir, key, a ? a : "nothing",
				  b ? b : "nothing");
		free(a);
		free(b);
		return rc;
	}
	return 0;
}

static int read_all(const struct lwm_objective *o, struct lwm_weights *w, struct lwm_train_state *st, struct lwm_ckpt *c,
		    struct lwm_resumed *found, struct lwm_err *e)
{
	const char *dir = found->dir;
	int rc = same_run(o, lwm_ckpt_get_meta(c), dir, e);
	for (int g = 0; rc == 0 && g < LWM_CKPT_TRAINED; g++)
		rc = read_group(o, w, c, (enum lwm_ckpt_group)g, e);
	if (rc == 0)
		rc = read_state(lwm_ckpt_get_meta(c)->state, st, dir, e);
	if (rc == 0)
		found->settings = json_incref(json_object_get(lwm_ckpt_get_meta(c)->config, "stage"));
	return rc;
}

/* *ckpt NULL: there is nothing to resume from. */
static int find_newest(struct lwm_comm *c, const struct lwm_stage *s, struct lwm_ckpt **ckpt, struct lwm_err *e)
{
	int64_t there = 0;
	int rc = 0;
	*ckpt = NULL;
	if (lwm_comm_rank(c) == 0)
		rc = lwm_path_folder(s->out, e);
	there = rc > 0;
	LWM_TRY(lwm_agree(c, rc < 0 ? rc : 0, e));
	LWM_TRY(lwm_comm_max_i64(c, &there, 1, e));
	if (!there)
		return 0;
	rc = lwm_share_newest(ckpt, c, s->out, true, e);
	if (rc == -LWM_EDATA && s->start_over) {
		if (lwm_comm_rank(c) == 0)
			lwm_log(LWM_WARN, "beginning at step 0, as --start-over says");
		lwm_err_clear(e);
		return 0;
	}
	return rc == -LWM_EDATA ? lwm_context(e, "nothing to resume from (--start-over sets these aside and begins at step 0)") : rc;
}

int lwm_stage_resume(const struct lwm_objective *o, struct lwm_weights *w, struct lwm_train_state *st,
		     struct lwm_ckpt_keeper *keeper, struct lwm_resumed *found, struct lwm_err *e)
{
	struct lwm_ckpt *c;
	int rc;
	memset(st, 0, sizeof *st);
	memset(found, 0, sizeof *found);
	LWM_TRY(find_newest(w->ranks, o->stage, &c, e));
	if (!c)
		return 0;
	snprintf(found->dir, sizeof found->dir, "%s", lwm_ckpt_path(c));
	rc = read_all(o, w, st, c, found, e);
	lwm_ckpt_close(c);
	LWM_TRY(lwm_agree(w->ranks, rc, e));
	LWM_TRY(lwm_weights_gather(w, e));
	lwm_log(LWM_INFO, "resuming from %s", found->dir);
	if (keeper) /* its hashes were compared just now */
		lwm_ckpt_keeper_seen(keeper, st->step, NULL);
	return 0;
}

int lwm_stage_settle(const struct lwm_stage *s, const struct lwm_resumed *found, int64_t step, struct lwm_err *e)
{
	int rc = 0;
	LWM_TRY(lwm_ckpt_set_aside_newer(s->out, found->dir[0] ? step : -1, e));
	if (found->dir[0] || !s->start_over)
		return 0;
	char *path = lwm_path_join(s->out, "metrics.jsonl");
	if (!path)
		return lwm_fail_memory(e, NULL);
	if (lwm_path_exists(path))
		rc = lwm_ckpt_set_aside(s->out, path, e);
	free(path);
	return rc;
}

/* The own piece of random weights; zeros where there are none. */
static void draw_weights(const struct lwm_own *own, uint64_t seed, float *host)
{
	struct lwm_run run[LWM_RUNS];
	int64_t at = 0;
	memset(host, 0, (size_t)own->cut.count * sizeof *host);
	for (int64_t i = 0; i < own->whole->n; i++) {
		int runs = lwm_own_runs(own, i, run, &at);
		for (int k = 0; k < runs; k++)
			for (int64_t j = 0; j < run[k].count; j++, at += run[k].run)
				lwm_tensors_init(own->whole, seed, own->whole->list[i].offset + run[k].offset + j * run[k].stride,
						 run[k].run, host + at);
	}
}

int lwm_stage_start(struct lwm_objective *o, struct lwm_weights *w, struct lwm_err *e)
{
	struct lwm_own mine = own_here(o, w);
	struct lwm_start from;
	float *host, *own;
	LWM_TRY(lwm_start_parse(&from, o->stage->start_from, e)); /* the same on every rank */
	int rc = on_host(w, LWM_CKPT_PARAMS, &host, &own, e);
	if (rc == 0)
		draw_weights(&mine, (uint64_t)o->stage->seed, host);
	rc = lwm_agree(w->ranks, rc, e);
	if (rc == 0 && from.source)
		rc = lwm_start_read(w->ranks, &from, o->stage->older_ok, o->tokenizer_hash, &mine, host, e);
	if (rc == 0)
		rc = lwm_weights_put(w, LWM_STATE_WEIGHTS, host, e);
	free(own);
	LWM_TRY(lwm_agree(w->ranks, rc, e));
	return lwm_weights_gather(w, e);
}
