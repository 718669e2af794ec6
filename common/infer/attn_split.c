/* attn_split.c - attention over a context that ranks share.
 *
 * The prompt goes round a ring, in zigzag shares; each rank keeps the keys and values of its share. After the prompt all ranks
 * have every token, the one whose turn it is keeps it, and attention is the merge of what each rank finds in its own share: only
 * (output, log-sum-exp) travels, never the cache. Merged in rank order: the same bits everywhere.
 */
#include "common/infer/attn_split.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "common/comm/device.h"
#include "common/comm/mesh.h"
#include "common/comm/watchdog.h"
#include "common/model/attn_ring.h"

struct split {
	struct lwm_kv kv;
	int ranks, rank;
	struct lwm_devcomm *between; /* the same ranks on device memory */
	struct lwm_attn *ring;       /* of the prompt */
	float *parts;                /* device: partial results of all ranks, each (streams,H,E) and then (streams,H) */
	int64_t part;                /* floats of one rank's */
};

/* Is the step under way a prompt? After one all ranks have each token, and a step takes one of each stream. */
static bool is_prompt(const struct split *g)
{
	return g->kv.step.taken > 1;
}

/* ---- the prompt ---- */

/* This rank's share of n tokens: ids, positions, segments (-1 after the end). The real ones come first. Returns their number. */
static int64_t take_share(struct split *g, const int32_t *ids, int64_t n, int64_t local)
{
	int32_t *pos = g->kv.host, *seg = pos + g->kv.work.tokens, *id = seg + g->kv.work.tokens;
	int64_t real = 0;

	for (int64_t i = 0; i < local; i++) {
		int64_t p = lwm_ring_global(LWM_RING_ZIGZAG, local * g->ranks, g->ranks, g->rank, i);

		pos[i] = (int32_t)p;
		seg[i] = p < n ? 0 : -1;
		id[i] = p < n ? ids[p] : 0;
		real += p < n;
	}
	return real;
}

/* Where the last token of the prompt went. */
static void find_last(struct split *g, int64_t n, int64_t local)
{
	int64_t chunk = local / 2, q = (n - 1) / chunk;
	int ranks = g->ranks;

	g->kv.step.holder = (int)(q < ranks ? q : 2 * ranks - 1 - q);
	g->kv.step.row = (q < ranks ? 0 : chunk) + (n - 1) % chunk;
}

/* All of a prompt into an empty cache; into another one token by token. */
static int take_prompt(struct lwm_kv *kv, struct lwm_cache *const *c, const int32_t *ids, int64_t n, struct lwm_err *e)
{
	struct split *g = (struct split *)kv;
	int64_t local = (n + 2 * g->ranks - 1) / (2 * g->ranks) * 2, real;

	if ((*c)->length || n == 1) {
		lwm_kv_take(kv, c, 1, ids, 1);
		return 0;
	}
	if (local > kv->max_chunk)
		return lwm_fail(e, LWM_ECONFIG, "a prompt of %" PRId64 " tokens is %" PRId64 " a rank, where there is room for %"
				PRId64, n, local, kv->max_chunk);
	real = take_share(g, ids, n, local);
	kv->step = (struct lwm_kv_step){ .caches = c, .streams = 1, .per_stream = real, .n = local,
					 .ids = kv->host + 2 * kv->work.tokens, .pos = kv->host,
					 .seg = kv->host + kv->work.tokens, .taken = n };
	find_last(g, n, local);
	return 0;
}

static int attend_prompt(struct split *g, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o, float *lse,
			 int failed, struct lwm_err *e)
{
	int64_t n = g->kv.step.per_stream;
	struct lwm_attn_qkv own = { lwm_view_rows(&x->q, 0, n), lwm_view_rows(&x->k, 0, n), lwm_view_rows(&x->v, 0, n) };

	failed = lwm_attn_forward(g->ring, layer, x, o, lse, failed, e);
	return failed || !n ? failed : lwm_cache_store(g->kv.step.caches[0], &g->kv.work, layer, &own, e);
}

/* ---- after the prompt ---- */

/* What this rank's share says about the new token of stream s. */
static int attend_share(struct split *g, int64_t s, int64_t layer, const struct lwm_attn_qkv *x, float *o, float *lse,
			struct lwm_err *e)
{
	struct lwm_kv *kv = &g->kv;
	struct lwm_cache *c = kv->step.caches[s];
	int64_t h = kv->cfg.heads, e1 = lwm_llama_head_dim(&kv->cfg);
	bool mine = lwm_cache_keeps(c, c->length);
	struct lwm_attn_qkv own = { lwm_view_rows(&x->q, s, 1), lwm_view_rows(&x->k, s, 1), lwm_view_rows(&x->v, s, 1) };
	struct lk_view ov = lk_view3(o, LK_F32, 1, h, e1);

	if (mine)
		LWM_TRY(lwm_cache_store(c, &kv->work, layer, &own, e));
	if (!c->filled && !mine) {
		LWM_TRY(lwm_dev_check(c->dev, lk_zero(c->dev, o, (size_t)(h * e1) * sizeof *o), e));
		return lwm_dev_check(c->dev, lk_fill(c->dev, lse, h, -INFINITY), e);
	}
	return lwm_cache_attend(c, &kv->work, kv->query[s], layer, &own.q, &ov, lse, e);
}

/* All ranks' partial results in g->parts become one, in g->parts too, and then y. */
static int merge_shares(struct split *g, const struct lk_view *y, struct lwm_err *e)
{
	int64_t n = g->kv.step.streams, h = g->kv.cfg.heads, e1 = lwm_llama_head_dim(&g->kv.cfg), part = n * h * (e1 + 1);
	struct lk_view o = lk_view1(y->data, y->dtype, n * h * e1), sum = lk_view1(g->parts, LK_F32, n * h * e1);
	struct lk_dev *dev = g->kv.work.dev;

	for (int64_t r = 1; r < g->ranks; r++) {
		float *other = g->parts + r * part;

		lwm_watchdog_tick();
		LWM_TRY(lwm_dev_check(dev, lk_attn_merge(dev, g->parts, g->parts + n * h * e1, other, other + n * h * e1, n, h, e1),
				      e));
	}
	return lwm_dev_check(dev, lk_cast(dev, &o, &sum), e);
}

static int attend_shares(struct split *g, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *y, int failed,
			 struct lwm_err *e)
{
	int64_t n = g->kv.step.streams, h = g->kv.cfg.heads, e1 = lwm_llama_head_dim(&g->kv.cfg), part = n * h * (e1 + 1);
	float *own = g->parts + g->part * g->ranks;
	int rc;

	for (int64_t s = 0; s < n && !failed; s++)
		failed = attend_share(g, s, layer, x, own + s * h * e1, own + n * h * e1 + s * h, e);
	rc = lwm_devcomm_allgather(g->between, own, (size_t)part * sizeof *own, g->parts, e);
	if (failed || rc)
		return failed ? failed : rc;
	return merge_shares(g, y, e);
}

/* ---- the body ---- */

static int begin_step(struct lwm_attn *a, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e)
{
	struct split *g = (struct split *)a;

	return is_prompt(g) ? lwm_attn_begin(g->ring, n, pos, seg, e) : lwm_kv_begin(a, n, pos, seg, e);
}

static const int32_t *step_positions(const struct lwm_attn *a)
{
	const struct split *g = (const struct split *)a;

	return is_prompt(g) ? lwm_attn_positions(g->ring) : lwm_kv_positions(a);
}

static int attend_step(struct lwm_attn *a, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o, float *lse,
		       int failed, struct lwm_err *e)
{
	struct split *g = (struct split *)a;

	return is_prompt(g) ? attend_prompt(g, layer, x, o, lse, failed, e) : attend_shares(g, layer, x, o, failed, e);
}

static int settle_messages(struct lwm_kv *kv, int rc, struct lwm_err *e)
{
	int now = lwm_devcomm_settle(((struct split *)kv)->between, e);

	return now && (!rc || now == -LWM_ERANK) ? now : rc;
}

static void grow_shares(struct lwm_kv *kv)
{
	if (is_prompt((struct split *)kv))
		lwm_cache_grow_prompt(kv->step.caches[0], kv->step.taken, kv->step.pos, kv->step.per_stream);
	else
		for (int64_t s = 0; s < kv->step.streams; s++)
			lwm_cache_grow(kv->step.caches[s], 1);
}

static void free_body(struct lwm_attn *a)
{
	struct split *g = (struct split *)a;

	lwm_attn_free(g->ring);
	lwm_devcomm_free(g->between);
	lk_mem_free(g->kv.work.dev, g->parts);
	lwm_kv_free(a);
}

static const struct lwm_attn_ops attn_ops = { begin_step, step_positions, attend_step, NULL, free_body };
static const struct lwm_kv_ops kv_ops = { take_prompt, settle_messages, grow_shares };

static int allocate_parts(struct split *g, struct lk_dev *dev, struct lwm_err *e)
{
	const struct lwm_llama_cfg *c = &g->kv.cfg;
	struct lwm_attn_ring_shape s = { g->kv.max_chunk, c->heads, c->kv_heads, lwm_llama_head_dim(c), false, true };
	void *parts;

	g->part = g->kv.max_streams * (c->dim + c->heads);
	// the merge overwrites; one more for this rank's own
	LWM_TRY(lwm_dev_check(dev, lk_mem_alloc(dev, (size_t)(g->part * (g->ranks + 1)) * sizeof *g->parts, &parts), e));
	g->parts = parts;
	return lwm_attn_ring_new(&g->ring, dev, g->between, &s, e);
}

int lwm_attn_split_new(struct lwm_kv **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, struct lwm_comm *comm,
		       int64_t max_chunk, int64_t max_streams, struct lwm_err *e)
{
	struct lwm_devcomm *between = NULL;
	struct lwm_kv *kv;
	struct split *g;

	*out = NULL;
	LWM_TRY(lwm_devcomm_new(&between, dev, comm, e));
	int rc = lwm_kv_create(&kv, sizeof *g, &attn_ops, &kv_ops, dev, cfg, max_chunk, max_streams, e);
	if (rc < 0) {
		lwm_devcomm_free(between);
		return rc;
	}
	g = (struct split *)kv;
	g->ranks = lwm_comm_size(comm);
	g->rank = lwm_comm_rank(comm);
	g->between = between;
	rc = allocate_parts(g, dev, e);
	if (rc < 0)
		free_body(&kv->base);
	else
		*out = kv;
	return rc;
}
