/* The state of a stage out to checkpoints: a copy, a thread that writes this rank's part of it, and the record when all have.
 *
 *	begin    copy | thread: create, write, sync, read back and compare, rename, sync the folder | `written`
 *	settle   join | do all have theirs? | rank 0: what the record says | thread: record, sync | `written`
 *	finish   join | is it there? | rank 0: retire | thread: the files of what was retired
 *
 * From pthread_create until `written` the thread alone touches what struct lwm_saver says is its own. It reads the table of
 * tensors, which does not change, and the copy, which begin alone writes, or what settle has put together for the record. */
#include "common/train/saver.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/threads.h"
#include "common/train/own.h"
#include "common/train/settings_record.h"
#include "common/train/share.h"

/* What COMMIT.json is made of. */
struct record {
	struct lwm_ckpt_slice *slice;
	json_t *config, *state;
	char mesh[LWM_MESH_TEXT];
	struct lwm_ckpt_meta meta;
};

/* Where the values of a slice begin: in the weights, and in what only trained ones have; -1: it is frozen. */
struct place {
	int64_t weights, trained;
};

struct lwm_saver {
	const struct lwm_objective *o;
	struct lwm_weights *w;
	float *copy;                /* host memory, a vector for each group; NULL: saves are not behind the computation */
	/* the save that was begun */
	bool begun, behind;
	bool threaded;              /* there is a thread to join */
	pthread_t thread;
	struct lwm_train_state st;
	char *dir;
	float *lent;                /* as copy, for this save alone */
	const float *host[LWM_CKPT_GROUPS]; /* of the groups that are saved */
	struct lwm_ckpt_slice *slice;
	int64_t nslice;
	struct place *place;        /* of each slice */
	struct lwm_ckpt_part *parts; /* of all ranks, for settle */
	bool settled, failed;       /* the parts are gathered; the save failed on a rank: the same on all ranks */
	struct record record;       /* rank 0 */
	lwm_saver_before_fn *before;
	void *before_ctx;
	/* the thread's own */
	struct lwm_ckpt_part part;
	struct lwm_err err;
	int rc;
	double seconds;
	atomic_bool written, given_up;
	/* rank 0: a thread that removes the files of older checkpoints */
	bool sweeping;
	pthread_t sweeper;
};

int lwm_saver_new(struct lwm_saver **out, const struct lwm_objective *o, struct lwm_weights *w, struct lwm_err *e)
{
	struct lwm_saver *v = *out = calloc(1, sizeof *v);
	if (!v)
		return lwm_fail_memory(e, "checkpoints");
	v->o = o;
	v->w = w;
	return 0;
}

/* ---- the copy ---- */

int64_t lwm_saver_copy_bytes(const struct lwm_cut *cut, bool average)
{
	return (cut->count + (2 + average) * cut->trained) * (int64_t)sizeof(float);
}

static unsigned groups_of(const struct lwm_saver *v)
{
	return lwm_groups_saved(v->w->average);
}

static size_t copy_bytes(const struct lwm_saver *v)
{
	return (size_t)lwm_saver_copy_bytes(&v->w->cut, v->w->average);
}

/* Touched now: pages that come into being while the copy is made take longer than the copy. */
int lwm_saver_reserve(struct lwm_saver *v, struct lwm_err *e)
{
	size_t bytes = copy_bytes(v);
	void *p = NULL;
	if (lk_host_alloc(v->w->dev, bytes, &p))
		return lwm_fail(e, LWM_EMEMORY, "no host memory for a copy of %zu bytes that checkpoints are written from", bytes);
	memset(p, 0, bytes);
	v->copy = p;
	return 0;
}

void lwm_saver_unreserve(struct lwm_saver *v)
{
	lk_host_free(v->w->dev, v->copy);
	v->copy = NULL;
}

enum { PIECE = 1 << 20 }; /* values that a thread copies at a time */

/* Past the caches, where that can be said: what nobody reads soon need not be read before it is overwritten, which is a third of
 * the traffic. */
static void copy_past_cache(float *to, const float *from, int64_t n)
{
	int64_t i = 0;
#ifdef __SSE2__
	while (i < n && ((uintptr_t)(to + i) & 15)) {
		to[i] = from[i];
		i++;
	}
	for (; i + 16 <= n; i += 16) {
		__m128 a = _mm_loadu_ps(from + i), b = _mm_loadu_ps(from + i + 4);
		__m128 c = _mm_loadu_ps(from + i + 8), d = _mm_loadu_ps(from + i + 12);
		_mm_stream_ps(to + i, a);
		_mm_stream_ps(to + i + 4, b);
		_mm_stream_ps(to + i + 8, c);
		_mm_stream_ps(to + i + 12, d);
	}
	_mm_sfence();
#endif
	memcpy(to + i, from + i, (size_t)(n - i) * sizeof *to);
}

struct copy {
	const float *from;
	float *to;
	int64_t n;
};

static int copy_piece(void *ctx, int64_t i, struct lwm_err *e)
{
	const struct copy *c = ctx;
	int64_t n = c->n - i * PIECE < PIECE ? c->n - i * PIECE : PIECE;
	(void)e;
	copy_past_cache(c->to + i * PIECE, c->from + i * PIECE, n);
	return 0;
}

/* By as many threads as the device computes with, where it is a host: training waits for it. */
static int copy_values(struct lwm_saver *v, enum lwm_state s, float *to, struct lwm_err *e)
{
	struct copy c = { lwm_weights_host(v->w, s), to, lwm_weights_count(v->w, s) };
	if (!c.from)
		return lwm_weights_take(v->w, s, to, e);
	return lwm_work((c.n + PIECE - 1) / PIECE, lk_dev_threads(v->w->dev), copy_piece, &c, e);
}

/* Own pieces of all groups: where they lie, or copied. */
static int take_values(struct lwm_saver *v, struct lwm_err *e)
{
	int64_t at = 0; /* in the copy */
	for (int g = 0; g < LWM_CKPT_GROUPS; g++) {
		enum lwm_state s = lwm_state_of_group(g);
		if (!(groups_of(v) >> g & 1))
			continue;
		v->host[g] = v->behind ? NULL : lwm_weights_host(v->w, s);
		if (v->host[g])
			continue;
		if (!v->copy && !v->lent && !(v->lent = malloc(copy_bytes(v))))
			return lwm_fail(e, LWM_EMEMORY, "out of memory for %zu bytes of weights and state", copy_bytes(v));
		float *to = (v->copy ? v->copy : v->lent) + at;
		LWM_TRY(copy_values(v, s, to, e));
		v->host[g] = to;
		at += lwm_weights_count(v->w, s);
	}
	return 0;
}

/* ---- a part ---- */

/* Those that a rank writes, at most LWM_RUNS of a tensor, without their values; place (may be NULL): where these lie. */
static int64_t slices_of(const struct lwm_own *own, struct lwm_ckpt_slice *out, struct place *place)
{
	struct lwm_run run[LWM_RUNS];
	int64_t n = 0, at = 0, next = 0;
	for (int64_t i = 0; i < own->whole->n; i++) {
		int runs = lwm_own_runs(own, i, run, &at);
		int64_t trained = lwm_own_trained(own, i, run, runs, at, &next), done = 0;
		for (int k = 0; k < runs && lwm_own_speaks(own, i); k++) {
			out[n] = (struct lwm_ckpt_slice){ i, run[k].offset, run[k].run, run[k].count, run[k].stride, { NULL } };
			if (place)
				place[n] = (struct place){ at + done, trained < 0 ? -1 : trained + done };
			done += run[k].run * run[k].count;
			n++;
		}
	}
	return n;
}

/* NULL: zeros. What is frozen has no moments, and is its own average. */
static const float *values_of(const struct lwm_saver *v, int g, int64_t slice)
{
	const struct place *p = &v->place[slice];
	if (g == LWM_CKPT_PARAMS || (g == LWM_CKPT_EMA && p->trained < 0))
		return v->host[LWM_CKPT_PARAMS] + p->weights;
	return p->trained < 0 ? NULL : v->host[g] + p->trained;
}

/* A lwm_ckpt_fill_fn: piece by piece, so that a save nobody wants any more ends soon. */
static int fill_values(void *ctx, int group, int64_t slice, int64_t first, int64_t n, float *out, struct lwm_err *e)
{
	struct lwm_saver *v = ctx;
	if (atomic_load(&v->given_up))
		return lwm_fail(e, LWM_EIO, "%s: given up", v->dir);
	const float *values = values_of(v, group, slice);
	if (values)
		memcpy(out, values + first, (size_t)n * sizeof *out);
	else
		memset(out, 0, (size_t)n * sizeof *out);
	return 0;
}

static void *write_part(void *arg)
{
	struct lwm_saver *v = arg;
	struct lwm_ckpt_out out = { .dir = v->dir,
				    .rank = lwm_comm_rank(v->w->ranks),
				    .tensors = &v->o->tensors,
				    .slice = v->slice,
				    .nslice = v->nslice,
				    .groups = groups_of(v),
				    /* else the slices point to their values */
				    .fill = v->behind || v->w->cut.packed ? fill_values : NULL,
				    .ctx = v };
	double t0 = lwm_now();
	v->rc = lwm_ckpt_write_part(&out, &v->part, &v->err);
	v->seconds = lwm_now() - t0;
	atomic_store(&v->written, true);
	return NULL;
}

static int prepare_save(struct lwm_saver *v, struct lwm_err *e)
{
	struct lwm_own mine = lwm_own_of(v->o, &v->w->cut, lwm_comm_rank(v->w->ranks));
	size_t most = (size_t)v->o->tensors.n * LWM_RUNS;
	v->dir = lwm_ckpt_dir(v->o->stage->out, v->st.step);
	v->slice = calloc(most, sizeof *v->slice);
	v->place = calloc(most, sizeof *v->place);
	v->parts = calloc((size_t)lwm_comm_size(v->w->ranks), sizeof *v->parts);
	if (!v->dir || !v->slice || !v->place || !v->parts)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a checkpoint");
	v->nslice = slices_of(&mine, v->slice, v->place);
	LWM_TRY(take_values(v, e));
	for (int64_t i = 0; !v->behind && i < v->nslice; i++)
		for (int g = 0; g < LWM_CKPT_GROUPS; g++)
			v->slice[i].data[g] = groups_of(v) >> g & 1 ? values_of(v, g, i) : NULL;
	return 0;
}

void lwm_saver_begin(struct lwm_saver *v, const struct lwm_train_state *st, bool behind)
{
	LWM_BUG_ON(v->begun);
	v->begun = true;
	v->st = *st;
	memset(&v->part, 0, sizeof v->part);
	memset(&v->err, 0, sizeof v->err);
	atomic_store(&v->written, false);
	v->behind = behind && v->copy;
	v->settled = v->failed = false;
	v->rc = prepare_save(v, &v->err);
	v->threaded = v->rc == 0 && v->behind && pthread_create(&v->thread, NULL, write_part, v) == 0;
	if (v->threaded)
		return;
	if (v->rc == 0 && v->behind)
		lwm_log(LWM_WARN, "no thread can be had for the checkpoint of step %" PRId64 ": training waits for it", st->step);
	if (v->rc == 0)
		write_part(v);
	atomic_store(&v->written, true);
}

bool lwm_saver_writing(const struct lwm_saver *v)
{
	return v && v->begun && !atomic_load(&v->written);
}

int64_t lwm_saver_step(const struct lwm_saver *v)
{
	return v && v->begun ? v->st.step : -1;
}

double lwm_saver_seconds(const struct lwm_saver *v)
{
	return v->seconds;
}

/* ---- the record ---- */

static json_t *state_json(const struct lwm_train_state *st, const struct lwm_stage *s)
{
	json_t *recent = json_array();
	char loss[40], scale[40];
	for (int64_t i = 0; i < st->guard.nrecent; i++)
		if (json_array_append_new(recent, json_real(st->guard.recent[i]))) {
			json_decref(recent);
			return NULL;
		}
	snprintf(loss, sizeof loss, "%a", st->loss);
	snprintf(scale, sizeof scale, "%a", st->scaling.scale);
	json_t *j = json_pack("{s:I s:I s:f s:I s:o s:I s:{s:s s:s}}", "step", (json_int_t)st->step, "skipped",
			      (json_int_t)st->guard.skipped, "units", st->units, "seed", (json_int_t)s->seed, "recent", recent,
			      "skips_in_row", (json_int_t)st->guard.skips_in_row, "last", "loss_hex", loss, "more", st->more);
	if (!j || st->scaling.scale <= 0)
		return j;
	json_t *scaling = json_pack("{s:s s:I s:I}", "scale_hex", scale, "good", (json_int_t)st->scaling.good, "overflows",
				    (json_int_t)st->scaling.overflows);
	if (!scaling || json_object_set_new(j, "loss_scale", scaling)) {
		json_decref(j);
		return NULL;
	}
	return j;
}

static json_t *config_json(const struct lwm_objective *o, struct lwm_err *e)
{
	json_t *settings = lwm_settings_record(o->stage, o->data, o->network);
	json_t *j = settings ? json_pack("{s:o s:o}", "model", lwm_json_copy(o->config), "stage", settings) : NULL;
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
		int64_t have = slices_of(&theirs, all + k, NULL);
		LWM_BUG_ON(have != parts[r].nslice);
		k += have;
	}
	return all;
}

/* Of the save that was begun, nothing of it shared with what training goes on with. */
static int make_record(struct lwm_saver *v, struct lwm_err *e)
{
	const struct lwm_objective *o = v->o;
	struct record *r = &v->record;
	int n = lwm_comm_size(v->w->ranks);

	r->slice = all_slices(o, &v->w->cut, v->parts, n, e);
	r->config = config_json(o, e);
	r->state = state_json(&v->st, o->stage);
	if (!r->slice || !r->config || !r->state)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a checkpoint record");
	r->meta = (struct lwm_ckpt_meta){ .kind = o->type->kind,
					  .step = v->st.step,
					  .mesh = lwm_mesh_text(o->mesh->dim, r->mesh),
					  .ranks = n,
					  .config = r->config,
					  .state = r->state,
					  .tokenizer = o->tokenizer_hash,
					  .tokenizer_path = o->stage->tokenizer ? o->stage->tokenizer : "",
					  .groups = groups_of(v) };
	return 0;
}

static void release_record(struct record *r)
{
	json_decref(r->config);
	json_decref(r->state);
	free(r->slice);
	memset(r, 0, sizeof *r);
}

/* Rank 0, in a thread or not. What fails to become one leaves no record. */
static void *commit_checkpoint(void *arg)
{
	struct lwm_saver *v = arg;
	const struct record *r = &v->record;

	if (v->before)
		v->before(v->before_ctx);
	v->rc = lwm_ckpt_commit(v->dir, &r->meta, &v->o->tensors, v->parts, r->meta.ranks, r->slice, &v->err);
	if (v->rc < 0)
		lwm_ckpt_take_back(v->dir, "COMMIT.json");
	atomic_store(&v->written, true);
	return NULL;
}

static void join_thread(struct lwm_saver *v)
{
	if (v->threaded)
		pthread_join(v->thread, NULL);
	v->threaded = false;
}

static void release_save(struct lwm_saver *v)
{
	free(v->dir);
	free(v->lent);
	free(v->slice);
	free(v->place);
	free(v->parts);
	release_record(&v->record);
	v->dir = NULL;
	v->lent = NULL;
	v->slice = NULL;
	v->place = NULL;
	v->parts = NULL;
	v->begun = false;
}

static int gather_parts(struct lwm_saver *v)
{
	struct lwm_comm *c = v->w->ranks;

	LWM_TRY(lwm_agree(c, v->rc, &v->err));
	return lwm_comm_allgather(c, &v->part, sizeof v->part, v->parts, &v->err);
}

void lwm_saver_settle(struct lwm_saver *v)
{
	LWM_BUG_ON(!v->begun || v->settled);
	join_thread(v);
	v->settled = true;
	v->rc = gather_parts(v);
	v->failed = v->rc < 0;
	if (v->failed || lwm_comm_rank(v->w->ranks))
		return;
	v->rc = make_record(v, &v->err);
	if (v->rc < 0)
		return;
	atomic_store(&v->written, false);
	v->threaded = v->behind && pthread_create(&v->thread, NULL, commit_checkpoint, v) == 0;
	if (!v->threaded)
		commit_checkpoint(v);
}

bool lwm_saver_settled(const struct lwm_saver *v)
{
	return v->settled;
}

void lwm_saver_before_commit(struct lwm_saver *v, lwm_saver_before_fn *fn, void *ctx)
{
	v->before = fn;
	v->before_ctx = ctx;
}

/* ---- older checkpoints ---- */

static void *sweep_root(void *arg)
{
	struct lwm_saver *v = arg;
	struct lwm_err e = { 0 };
	if (lwm_ckpt_sweep(v->o->stage->out, &e) < 0)
		lwm_log(LWM_WARN, "old checkpoints stay: %s", e.msg);
	return NULL;
}

static void join_sweeper(struct lwm_saver *v)
{
	if (v->sweeping)
		pthread_join(v->sweeper, NULL);
	v->sweeping = false;
}

/* Freeing what the system keeps of a gigabyte takes it a tenth of a second, and a disk more. */
static void begin_sweep(struct lwm_saver *v)
{
	v->sweeping = pthread_create(&v->sweeper, NULL, sweep_root, v) == 0;
	if (!v->sweeping)
		sweep_root(v);
}

static int retire_old(struct lwm_saver *v, struct lwm_ckpt_keeper *keeper, int64_t step, bool behind, struct lwm_err *e)
{
	join_sweeper(v);
	if (keeper)
		lwm_ckpt_keeper_defer(keeper, behind);
	LWM_TRY(lwm_share_retire(v->w->ranks, keeper, step, e));
	if (keeper && behind)
		begin_sweep(v);
	return 0;
}

int lwm_saver_retire(struct lwm_saver *v, struct lwm_ckpt_keeper *keeper, int64_t step, struct lwm_err *e)
{
	return retire_old(v, keeper, step, false, e);
}

int lwm_saver_finish(struct lwm_saver *v, struct lwm_ckpt_keeper *keeper, struct lwm_err *e)
{
	int64_t step = v->st.step;
	int rc;

	LWM_BUG_ON(!v->begun);
	if (!v->settled)
		lwm_saver_settle(v);
	join_thread(v);
	rc = v->rc;
	if (rc < 0)
		*e = v->err;
	if (!v->failed) /* nobody continues before the record is written */
		rc = lwm_agree(v->w->ranks, rc, e);
	if (rc < 0 && rc != -LWM_ERANK && v->dir)
		lwm_ckpt_take_back(v->dir, v->part.name);
	release_save(v);
	return rc < 0 ? rc : retire_old(v, keeper, step, v->behind, e);
}

void lwm_saver_free(struct lwm_saver *v)
{
	if (!v)
		return;
	atomic_store(&v->given_up, true);
	join_thread(v);
	join_sweeper(v);
	release_save(v);
	lwm_saver_unreserve(v);
	free(v);
}
