/* The state of a stage back from checkpoints, and its first weights. Out: saver.c. */
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

static struct lwm_own own_here(const struct lwm_objective *o, const struct lwm_weights *w)
{
	return lwm_own_of(o, &w->cut, lwm_comm_rank(w->ranks));
}

/* Own piece of a group on the host: where it lies, or a copy of it in *own, the caller's to free. */
static int on_host(struct lwm_weights *w, enum lwm_ckpt_group g, float **at, float **own, struct lwm_err *e)
{
	*own = NULL;
	*at = lwm_weights_host(w, lwm_state_of_group(g));
	if (*at)
		return 0;
	int64_t n = lwm_weights_count(w, lwm_state_of_group(g));
	*at = *own = malloc((size_t)n * sizeof **own);
	if (!*own)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " values of weights and state", n);
	return 0;
}

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
	int64_t at = 0, next = 0;
	memset(host, 0, (size_t)lwm_weights_count(w, lwm_state_of_group(g)) * sizeof *host);
	for (int64_t i = 0; i < o->tensors.n; i++) {
		const struct lwm_tensor *t = &o->tensors.list[i];
		int64_t k = lwm_ckpt_find(c, t->name);
		if (k < 0 || lwm_ckpt_size(c, k) != t->count)
			return lwm_fail(e, LWM_ECONFIG, "tensor '%s' of %" PRId64 " values is not in the checkpoint so", t->name,
					t->count);
		struct stored from = { c, g, k };
		int runs = lwm_own_runs(&own, i, run, &at);
		int64_t trained = lwm_own_trained(&own, i, run, runs, at, &next);
		if (g != LWM_CKPT_PARAMS)
			at = trained;
		if (at >= 0)
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
		rc = lwm_weights_put(w, lwm_state_of_group(g), host, e);
	free(own);
	return rc;
}

/* A run in fp16 goes on with the scale it had; one that was begun in another type has none, and begins with the first. */
static int read_scaling(const json_t *j, struct lwm_scale_state *st, const char *dir, struct lwm_err *e)
{
	const json_t *s = json_object_get(j, "loss_scale");
	const char *scale = json_string_value(json_object_get(s, "scale_hex"));
	if (!s || st->scale <= 0)
		return 0;
	st->scale = scale ? strtod(scale, NULL) : 0;
	if (!(st->scale > 0 && isfinite(st->scale)))
		return lwm_fail(e, LWM_EDATA, "%s: its record holds no scale of the loss", dir);
	LWM_TRY(lwm_json_int(s, "good", &st->good, dir, e));
	return lwm_json_int(s, "overflows", &st->overflows, dir, e);
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
	LWM_TRY(read_scaling(j, &st->scaling, dir, e));
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
	unsigned groups = lwm_groups_saved(w->average);
	int rc = same_run(o, lwm_ckpt_get_meta(c), dir, e);
	if (rc == 0 && (groups & ~lwm_ckpt_get_meta(c)->groups))
		rc = lwm_fail(e, LWM_ECONFIG, "%s: holds no average of the weights, which --ema %g wants: one begins with a stage, not in it",
			      dir, o->stage->ema);
	for (int g = 0; rc == 0 && g < LWM_CKPT_GROUPS; g++)
		if (groups >> g & 1)
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
	*st = (struct lwm_train_state){ .scaling = st->scaling };
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
	if (rc == 0 && o->momentum > 0)
		rc = lwm_weights_follow(w, &o->local, 0, e);
	if (rc == 0 && w->average)
		rc = lwm_weights_begin_average(w, &o->local, e);
	free(own);
	LWM_TRY(lwm_agree(w->ranks, rc, e));
	return lwm_weights_gather(w, e);
}
