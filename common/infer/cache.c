/* cache.c - keys and values of one stream, whole or this rank's share. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/infer/cache_int.h"

enum { SEQ_STEP = 256 }; /* the table of key positions grows by so much */

/* Slots of each rank for a context of max_len: an even share of prompt and of what follows, and what rounding takes. */
static int64_t slots_for(int64_t max_len, int ranks)
{
	return ranks == 1 ? max_len : max_len / ranks + 4;
}

const char *const lwm_cache_kinds[] = { "auto", "f32", "bf16", "int8", NULL };

int lwm_engine_set_cache(struct lwm_engine *g, enum lwm_cache_kind kind, struct lwm_err *e)
{
	static const int dtype[] = { 0, LK_F32, LK_BF16, LK_I8 };

	if (kind == LWM_CACHE_F32 && g->m->dtype != LK_F32)
		return lwm_fail(e, LWM_ECONFIG, "a cache in fp32: %s computes in bf16", lk_dev_name(g->m->dev));
	g->cache_dtype = kind == LWM_CACHE_AUTO ? g->m->dtype : dtype[kind];
	return 0;
}

int lwm_engine_cache_dtype(const struct lwm_engine *g)
{
	return g->cache_dtype;
}

/* One layer: keys and values of all slots, then their scales. */
static int64_t layer_data(const struct lwm_llama_cfg *c, int64_t slots, int dtype)
{
	return lwm_round64(slots * 2 * c->kv_heads * lwm_llama_head_dim(c) * (int64_t)lk_dtype_size(dtype));
}

int64_t lwm_cache_bytes(const struct lwm_llama_cfg *c, int64_t max_len, int dtype)
{
	int64_t row = 2 * c->kv_heads * (lwm_llama_head_dim(c) + 4) * 4, bytes;

	if (lwm_mul3(c->layers, max_len + 64, row, &bytes)) // generous, and a number
		return -1;
	return c->layers * (layer_data(c, max_len, dtype) + (dtype == LK_I8 ? max_len * 2 * c->kv_heads * 4 : 0));
}

static int allocate(struct lwm_cache *c, int64_t bytes, struct lwm_err *e)
{
	void *data;

	c->pos = malloc((size_t)c->slots * sizeof *c->pos);
	if (!c->pos)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a cache of %lld tokens", (long long)c->max_len);
	LWM_TRY(lwm_dev_check(c->dev, lk_mem_alloc(c->dev, (size_t)bytes, &data), e));
	c->data = data;
	lwm_cache_plan(c);
	// what is behind the end is masked, but 0 times NaN would show
	return lwm_dev_check(c->dev, lk_zero(c->dev, data, (size_t)bytes), e);
}

int lwm_engine_new_cache(struct lwm_cache **out, struct lwm_engine *g, int64_t max_len, struct lwm_err *e)
{
	const struct lwm_llama_cfg *cfg = &g->m->cfg;
	int ranks = g->comm ? lwm_comm_size(g->comm) : 1, rc;
	int64_t slots = slots_for(max_len, ranks), bytes = max_len < 1 ? -1 : lwm_cache_bytes(cfg, slots, g->cache_dtype);
	struct lwm_cache *c;

	*out = NULL;
	if (bytes < 0 || max_len > INT32_MAX)
		return lwm_fail(e, LWM_ECONFIG, "a cache for %lld tokens is not possible", (long long)max_len);
	c = calloc(1, sizeof *c);
	if (!c)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a cache of %lld tokens", (long long)max_len);
	c->dev = g->m->dev;
	c->cfg = *cfg;
	c->dtype = g->cache_dtype;
	c->ranks = ranks;
	c->rank = g->comm ? lwm_comm_rank(g->comm) : 0;
	c->max_len = max_len;
	c->slots = slots;
	c->row = 2 * cfg->kv_heads * lwm_llama_head_dim(cfg);
	c->layer_bytes = bytes / cfg->layers;
	c->scale_at = layer_data(cfg, slots, c->dtype);
	rc = allocate(c, bytes, e);
	if (g->comm)
		rc = lwm_agree(g->comm, rc, e);
	if (rc < 0)
		lwm_cache_free(c);
	else
		*out = c;
	return rc;
}

static void forget_keys(struct lwm_cache *c)
{
	lk_seq_free(c->keys);
	c->keys = NULL;
	c->nkeys = 0;
	while (c->pieces)
		lk_seq_free(c->piece[--c->pieces]);
}

void lwm_cache_free(struct lwm_cache *c)
{
	if (!c)
		return;
	forget_keys(c);
	free(c->piece);
	lk_mem_free(c->dev, c->data);
	free(c->pos);
	free(c);
}

int64_t lwm_cache_length(const struct lwm_cache *c)
{
	return c->length;
}

int64_t lwm_cache_room(const struct lwm_cache *c)
{
	return c->max_len - c->length;
}

void lwm_cache_plan(struct lwm_cache *c)
{
	int64_t p = c->length;

	for (int64_t i = c->filled; i < c->slots; i++, p++) {
		while (!lwm_cache_mine(c, p))
			p++;
		c->pos[i] = (int32_t)p;
	}
	forget_keys(c);
}

void lwm_cache_rewind(struct lwm_cache *c, int64_t length)
{
	if (length < 0 || length >= c->length)
		return;
	c->length = length;
	while (c->filled && c->pos[c->filled - 1] >= length)
		c->filled--;
	if (c->ranks > 1)
		lwm_cache_plan(c);
}

int lwm_cache_copy(struct lwm_cache *to, const struct lwm_cache *from, struct lwm_err *e)
{
	size_t bytes = (size_t)(from->filled * from->row) * lk_dtype_size(from->dtype);

	size_t scales = from->dtype == LK_I8 ? (size_t)(from->filled * 2 * from->cfg.kv_heads) * sizeof(float) : 0;

	if (to->row != from->row || to->dtype != from->dtype || to->cfg.layers != from->cfg.layers || to->max_len < from->length ||
	    to->slots < from->filled)
		return lwm_fail(e, LWM_EINTERNAL, "a cache of %lld tokens does not take %lld", (long long)to->max_len,
				(long long)from->length);
	for (int64_t l = 0; bytes && l < from->cfg.layers; l++) {
		char *y = to->data + l * to->layer_bytes, *x = from->data + l * from->layer_bytes;

		LWM_TRY(lwm_dev_check(to->dev, lk_copy(to->dev, y, x, bytes), e));
		LWM_TRY(lwm_dev_check(to->dev, lk_copy(to->dev, y + to->scale_at, x + from->scale_at, scales), e));
	}
	memcpy(to->pos, from->pos, (size_t)from->filled * sizeof *to->pos);
	to->filled = from->filled;
	to->length = from->length;
	lwm_cache_plan(to);
	return 0;
}

int lwm_cache_reach(struct lwm_cache *c, int64_t need, struct lwm_err *e)
{
	int64_t n = (need + SEQ_STEP - 1) / SEQ_STEP * SEQ_STEP;

	if (need > c->slots) // only after a rewind into a shared prompt, which leaves ranks with unequal shares
		return lwm_fail(e, LWM_ECONFIG, "this rank's share of the context, %lld tokens, is full",
				(long long)c->slots);
	n = n < c->slots ? n : c->slots;
	if (!need || (c->keys && c->nkeys >= need && c->nkeys < n + SEQ_STEP))
		return 0;
	forget_keys(c);
	c->nkeys = n;
	return lwm_dev_check(c->dev, lk_seq_new(c->dev, &c->keys, n, c->pos, NULL), e);
}

int lwm_cache_cut(struct lwm_cache *c, struct lwm_err *e)
{
	int64_t n = (c->nkeys + LWM_CACHE_PIECE - 1) / LWM_CACHE_PIECE;
	struct lk_seq **piece;

	if (c->pieces == n)
		return 0;
	piece = realloc(c->piece, (size_t)n * sizeof *piece);
	if (!piece)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %lld pieces of a cache", (long long)n);
	c->piece = piece;
	for (; c->pieces < n; c->pieces++) {
		int64_t from = c->pieces * LWM_CACHE_PIECE, left = c->nkeys - from;

		LWM_TRY(lwm_dev_check(c->dev, lk_seq_new(c->dev, &piece[c->pieces], left < LWM_CACHE_PIECE ? left : LWM_CACHE_PIECE,
							 c->pos + from, NULL), e));
	}
	return 0;
}

/* Keys (which 0) or values (1) of n slots from `slot` on, and their scales (NULL where there are none). */
static struct lk_view stored(const struct lwm_cache *c, int64_t l, int64_t slot, int64_t n, int which, float **scale)
{
	int64_t e = lwm_llama_head_dim(&c->cfg), k = c->cfg.kv_heads;
	char *layer = c->data + l * c->layer_bytes;
	struct lk_view v = lk_view3(layer + (slot * c->row + which * (c->row / 2)) * (int64_t)lk_dtype_size(c->dtype), c->dtype, n,
				    k, e);

	v.stride[0] = c->row;
	*scale = c->dtype == LK_I8 ? (float *)(void *)(layer + c->scale_at) + slot * 2 * k + which * k : NULL;
	return v;
}

void lwm_cache_put(struct lwm_engine *g, struct lwm_cache *c, int64_t l, int64_t row, int64_t n)
{
	struct lwm_llama *m = g->m;
	int64_t k = m->cfg.kv_heads, e = lwm_llama_head_dim(&m->cfg);
	struct lk_view qkv = lwm_rows(m, LWM_BUF_QKV, 0, m->cfg.dim + c->row, row, n);

	if (c->dtype == m->dtype) {
		char *at = c->data + l * c->layer_bytes + c->filled * c->row * (int64_t)lk_dtype_size(c->dtype);
		struct lk_view fresh = lwm_cols(&qkv, m->cfg.dim, c->row), slot = lk_view2(at, c->dtype, n, c->row);

		LWM_K(m, lk_gather_rows(m->dev, &slot, &fresh, g->iota));
		return;
	}
	for (int i = 0; i < 2; i++) {
		float *scale;
		struct lk_view y = stored(c, l, c->filled, n, i, &scale), x = lwm_cols(&qkv, m->cfg.dim + i * (c->row / 2), k * e);

		x = lk_view3(x.data, x.dtype, n, k, e);
		x.stride[0] = qkv.stride[0];
		LWM_K(m, lk_kv_store(m->dev, &y, scale, 2 * k, &x));
	}
}

/* ---- many queries, keys in fewer bits: piece by piece as floats, with a carried state ---- */

struct room {
	void *kv; /* (LWM_CACHE_PIECE, row) */
	struct lk_attn_state st;
};

static bool make_room(struct lwm_engine *g, const struct lwm_cache *c, struct room *r)
{
	struct lwm_llama *m = g->m;
	int64_t kv = lwm_round64(LWM_CACHE_PIECE * c->row * (int64_t)lk_dtype_size(m->dtype));
	int64_t most = lwm_gen_most(g) * m->cfg.heads;
	int64_t ml = lwm_round64(4 * most);
	void *p = NULL;

	if (!g->wide) {
		LWM_K(m, lk_mem_alloc(m->dev, (size_t)(kv + 2 * ml + 4 * most * lwm_llama_head_dim(&m->cfg)), &p));
		g->wide = p;
	}
	if (!g->wide)
		return false;
	r->kv = g->wide;
	r->st = (struct lk_attn_state){ (float *)(void *)(g->wide + kv), (float *)(void *)(g->wide + kv + ml),
					(float *)(void *)(g->wide + kv + 2 * ml) };
	return !m->rc;
}

static void attend_pieces(struct lwm_engine *g, struct lwm_cache *c, struct lk_attn *a, int64_t l, const struct lk_view *o,
			  float *lse)
{
	struct lwm_llama *m = g->m;
	int64_t k = m->cfg.kv_heads, e = lwm_llama_head_dim(&m->cfg);
	struct room r;

	if (!make_room(g, c, &r))
		return;
	LWM_K(m, lk_attn_begin(m->dev, &r.st, a->q.n[0], m->cfg.heads, e));
	for (int64_t i = 0; i < c->pieces && !m->rc; i++) {
		int64_t from = i * LWM_CACHE_PIECE, n = c->nkeys - from < LWM_CACHE_PIECE ? c->nkeys - from : LWM_CACHE_PIECE;
		struct lk_view *to[2] = { &a->k, &a->v };

		if (!lk_seq_sees(a->qs, c->piece[i], 1))
			continue;
		for (int which = 0; which < 2; which++) {
			float *scale;
			struct lk_view x = stored(c, l, from, n, which, &scale);

			*to[which] = lk_view3((char *)r.kv + which * (c->row / 2) * (int64_t)lk_dtype_size(m->dtype), m->dtype,
					      n, k, e);
			to[which]->stride[0] = c->row;
			LWM_K(m, lk_kv_load(m->dev, to[which], &x, scale, 2 * k));
		}
		a->ks = c->piece[i];
		LWM_K(m, lk_attn_fwd(m->dev, a, &r.st));
	}
	LWM_K(m, lk_attn_end(m->dev, o, lse, &r.st));
}

void lwm_cache_attend(struct lwm_engine *g, struct lwm_cache *c, const struct lk_seq *qs, int64_t l, int64_t row, int64_t n,
		      const struct lk_view *o, float *lse)
{
	struct lwm_llama *m = g->m;
	int64_t e = lwm_llama_head_dim(&m->cfg);
	struct lk_view q = lwm_rows(m, LWM_BUF_QKV, 0, m->cfg.dim + c->row, row, n);
	struct lk_attn a = { .q = lk_view3(q.data, m->dtype, n, m->cfg.heads, e), .qs = qs, .ks = c->keys,
			     .scale = (float)(1 / sqrt((double)e)), .causal = 1, .scale_stride = 2 * m->cfg.kv_heads };
	float *scale[2];

	a.q.stride[0] = m->cfg.dim + c->row;
	if (c->dtype != m->dtype && n > LK_ATTN_FEW) {
		attend_pieces(g, c, &a, l, o, lse);
		return;
	}
	a.k = stored(c, l, 0, c->nkeys, 0, &scale[0]);
	a.v = stored(c, l, 0, c->nkeys, 1, &scale[1]);
	a.k_scale = scale[0];
	a.v_scale = scale[1];
	LWM_K(m, lk_attn_once(m->dev, &a, o, lse));
}
