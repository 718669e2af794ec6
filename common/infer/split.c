/* split.c - generation over ranks that share one context.
 *
 * The prompt goes round a ring, in zigzag shares; each rank keeps the keys and values of its share. Behind the prompt
 * all ranks have every token, the one whose turn it is keeps it, and attention is the merge of what each rank finds in
 * its own share: only (output, log-sum-exp) travels, never the cache. Merged in rank order: the same bits everywhere.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/mesh.h"
#include "common/infer/cache_int.h"

static int allocate(struct lwm_engine *g, struct lwm_err *e)
{
	const struct lwm_llama_cfg *c = &g->m->cfg;
	struct lwm_attn_ring_shape s = { g->max_chunk, c->heads, c->kv_heads, lwm_llama_head_dim(c), false, true };
	int64_t ranks = lwm_comm_size(g->comm), both;
	void *parts;

	g->part = g->max_streams * (c->dim + c->heads);
	both = g->part * (ranks + 1); // the merge overwrites; one more for this rank's own
	LWM_TRY(lwm_dev_check(g->m->dev, lk_mem_alloc(g->m->dev, (size_t)both * sizeof *g->parts, &parts), e));
	g->parts = parts;
	return lwm_attn_ring_new(&g->around, g->m->dev, g->between, &s, e);
}

int lwm_engine_new_shared(struct lwm_engine **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
		      const void *compute_weights, struct lwm_comm *comm, int64_t max_prompt, int64_t max_streams,
		      struct lwm_err *e)
{
	int64_t ranks = lwm_comm_size(comm);
	int64_t chunk = ranks == 1 ? max_prompt : max_prompt / ranks + 2;
	struct lwm_devcomm *between = NULL;
	int rc;

	*out = NULL;
	if (ranks > 1)
		LWM_TRY(lwm_devcomm_new(&between, dev, comm, e));
	rc = lwm_engine_new(out, dev, cfg, compute_weights, chunk, max_streams, e);
	if (ranks == 1)
		return rc;
	if (rc < 0)
		lwm_devcomm_free(between);
	if (rc == 0) {
		(*out)->comm = comm;
		(*out)->between = between;
		(*out)->attn.ops = &lwm_split_ops;
		rc = allocate(*out, e);
	}
	rc = lwm_agree(comm, rc, e);
	if (rc < 0) {
		lwm_engine_free(*out);
		*out = NULL;
	}
	return rc;
}

void lwm_split_free(struct lwm_engine *g)
{
	lwm_devcomm_free(g->between);
	lwm_attn_free(g->around);
	if (g->m)
		lk_mem_free(g->m->dev, g->parts);
}

void lwm_split_settle(struct lwm_engine *g)
{
	int rc = lwm_devcomm_settle(g->between, &g->m->err);

	if (!g->m->rc || rc == -LWM_ERANK)
		g->m->rc = rc ? rc : g->m->rc;
}

/* ---- the prompt ---- */

static int begin_around(struct lwm_attn *a, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e)
{
	return lwm_attn_begin(((struct lwm_engine *)a)->around, n, pos, seg, e);
}

static const int32_t *positions_around(const struct lwm_attn *a)
{
	return lwm_attn_positions(((const struct lwm_engine *)a)->around);
}

static int attend_around(struct lwm_attn *a, int64_t l, const struct lwm_attn_qkv *x, const struct lk_view *o, float *lse,
			 int failed, struct lwm_err *e)
{
	struct lwm_engine *g = (struct lwm_engine *)a;

	g->m->rc = lwm_attn_forward(g->around, l, x, o, lse, failed, e);
	if (g->per_stream)
		lwm_cache_put(g, g->caches[0], l, 0, g->per_stream);
	return g->m->rc;
}

static const struct lwm_attn_ops prompt_ops = { begin_around, positions_around, attend_around, NULL, lwm_gen_keep };

/* This rank's share of n tokens: ids, positions, segments (-1 behind the end). The real ones come first. Returns their
 * number. */
static int64_t take_share(struct lwm_engine *g, const int32_t *ids, int64_t n, int64_t local)
{
	int32_t *pos = g->host, *seg = pos + lwm_gen_most(g), *id = seg + lwm_gen_most(g);
	int ranks = lwm_comm_size(g->comm), rank = lwm_comm_rank(g->comm);
	int64_t real = 0;

	for (int64_t i = 0; i < local; i++) {
		int64_t p = lwm_ring_global(LWM_RING_ZIGZAG, local * ranks, ranks, rank, i);

		pos[i] = (int32_t)p;
		seg[i] = p < n ? 0 : -1;
		id[i] = p < n ? ids[p] : 0;
		real += p < n;
	}
	return real;
}

/* Where the last token of the prompt went. */
static void find_last(struct lwm_engine *g, int64_t n, int64_t local)
{
	int ranks = lwm_comm_size(g->comm);
	int64_t chunk = local / 2, q = (n - 1) / chunk;

	g->holder = (int)(q < ranks ? q : 2 * ranks - 1 - q);
	g->first_row = (q < ranks ? 0 : chunk) + (n - 1) % chunk;
	g->have = 1;
}

int lwm_split_feed(struct lwm_engine *g, struct lwm_cache *c, const int32_t *ids, int64_t n, struct lwm_err *e)
{
	int64_t ranks = lwm_comm_size(g->comm), local = (n + 2 * ranks - 1) / (2 * ranks) * 2, real;
	struct lwm_llama *m = g->m;
	struct lwm_llama_batch b = { .n = local, .tokens = g->host + 2 * lwm_gen_most(g) };
	int rc;

	if (local > g->max_chunk)
		return lwm_fail(e, LWM_ECONFIG, "a prompt of %lld tokens is %lld a rank, where there is room for %lld",
				(long long)n, (long long)local, (long long)g->max_chunk);
	real = take_share(g, ids, n, local);
	LWM_TRY(lwm_attn_begin(g->around, local, g->host, g->host + lwm_gen_most(g), e));
	g->caches = (struct lwm_cache *const *)&c;
	g->streams = 1;
	g->per_stream = real;
	m->n = local;
	m->rc = 0;
	memset(&m->err, 0, sizeof m->err);
	g->attn.ops = &prompt_ops;
	lwm_fwd(m, &b, &g->w);
	lwm_split_settle(g);
	g->attn.ops = &lwm_split_ops;
	rc = m->rc;
	if (rc && e && !e->code)
		*e = m->err;
	LWM_TRY(lwm_agree(g->comm, rc, e));
	memcpy(c->pos, g->host, (size_t)real * sizeof *c->pos);
	c->filled = real;
	c->length = n;
	lwm_cache_plan(c);
	find_last(g, n, local);
	return 0;
}

/* ---- behind the prompt ---- */

/* What this rank's share says about the new token of stream s. */
static void partial(struct lwm_engine *g, int64_t s, int64_t l, float *o, float *lse)
{
	struct lwm_llama *m = g->m;
	struct lwm_cache *c = g->caches[s];
	int64_t h = m->cfg.heads, e = lwm_llama_head_dim(&m->cfg);
	bool mine = lwm_cache_mine(c, c->length);
	struct lk_view ov = lk_view3(o, LK_F32, 1, h, e);

	if (mine)
		lwm_cache_put(g, c, l, s, 1);
	if (!c->filled && !mine) {
		LWM_K(m, lk_zero(m->dev, o, (size_t)(h * e) * sizeof *o));
		LWM_K(m, lk_fill(m->dev, lse, h, -INFINITY));
		return;
	}
	lwm_cache_attend(g, c, g->query[s], l, s, 1, &ov, lse);
}

static int attend(struct lwm_attn *a, int64_t l, const struct lwm_attn_qkv *x, const struct lk_view *y, float *lse, int failed,
		  struct lwm_err *err)
{
	struct lwm_engine *g = (struct lwm_engine *)a;
	struct lwm_llama *m = g->m;
	int64_t n = g->streams, h = m->cfg.heads, e = lwm_llama_head_dim(&m->cfg), ranks = lwm_comm_size(g->comm);
	int64_t part = n * h * (e + 1);
	float *own = g->parts + g->part * ranks;
	struct lk_view o = lk_view1(y->data, y->dtype, n * h * e);
	struct lk_view sum = lk_view1(g->parts, LK_F32, n * h * e);
	int rc;

	(void)x;
	(void)lse;
	(void)failed; // m->rc, where err is m->err
	for (int64_t s = 0; s < n; s++)
		partial(g, s, l, own + s * h * e, own + n * h * e + s * h);
	rc = lwm_devcomm_allgather(g->between, own, (size_t)part * sizeof *own, g->parts, err);
	if (!m->rc)
		m->rc = rc;
	for (int64_t r = 1; r < ranks; r++) {
		float *other = g->parts + r * part;

		LWM_K(m, lk_attn_merge(m->dev, g->parts, g->parts + n * h * e, other, other + n * h * e, n, h, e));
	}
	LWM_K(m, lk_cast(m->dev, &o, &sum));
	return m->rc;
}

const struct lwm_attn_ops lwm_split_ops = { lwm_gen_take_rows, lwm_gen_row_positions, attend, NULL, lwm_gen_keep };
