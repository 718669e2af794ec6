/* cache.c - keys and values of one stream, whole or this rank's share. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/model/cache_int.h"

enum { SEQ_STEP = 256 }; /* the table of key positions grows by so much */

/* Slots of each rank for a context of max_len: an even share of prompt and of what follows, and what rounding takes. */
static int64_t slots_for(int64_t max_len, int ranks)
{
	return ranks == 1 ? max_len : max_len / ranks + 4;
}

int64_t lwm_cache_bytes(const struct lwm_llama_cfg *c, int64_t max_len, int dtype)
{
	int64_t row = 2 * c->kv_heads * lwm_llama_head_dim(c) * (int64_t)lk_dtype_size(dtype), bytes;

	return lwm_mul3(c->layers, max_len, row, &bytes) ? -1 : bytes;
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

int lwm_cache_new(struct lwm_cache **out, struct lwm_gen *g, int64_t max_len, struct lwm_err *e)
{
	const struct lwm_llama_cfg *cfg = &g->m->cfg;
	int ranks = g->comm ? lwm_comm_size(g->comm) : 1, rc;
	int64_t slots = slots_for(max_len, ranks), bytes = max_len < 1 ? -1 : lwm_cache_bytes(cfg, slots, g->m->dtype);
	struct lwm_cache *c;

	*out = NULL;
	if (bytes < 0 || max_len > INT32_MAX)
		return lwm_fail(e, LWM_ECONFIG, "a cache for %lld tokens is not possible", (long long)max_len);
	c = calloc(1, sizeof *c);
	if (!c)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a cache of %lld tokens", (long long)max_len);
	c->dev = g->m->dev;
	c->cfg = *cfg;
	c->dtype = g->m->dtype;
	c->ranks = ranks;
	c->rank = g->comm ? lwm_comm_rank(g->comm) : 0;
	c->max_len = max_len;
	c->slots = slots;
	c->row = 2 * cfg->kv_heads * lwm_llama_head_dim(cfg);
	c->layer_bytes = bytes / cfg->layers;
	rc = allocate(c, bytes, e);
	if (g->comm)
		rc = lwm_agree(g->comm, rc, e);
	if (rc < 0)
		lwm_cache_free(c);
	else
		*out = c;
	return rc;
}

void lwm_cache_free(struct lwm_cache *c)
{
	if (!c)
		return;
	lk_seq_free(c->keys);
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
	lk_seq_free(c->keys);
	c->keys = NULL;
	c->nkeys = 0;
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

	if (to->row != from->row || to->cfg.layers != from->cfg.layers || to->max_len < from->length ||
	    to->slots < from->filled)
		return lwm_fail(e, LWM_EINTERNAL, "a cache of %lld tokens does not take %lld", (long long)to->max_len,
				(long long)from->length);
	for (int64_t l = 0; bytes && l < from->cfg.layers; l++)
		LWM_TRY(lwm_dev_check(to->dev, lk_copy(to->dev, to->data + l * to->layer_bytes,
						       from->data + l * from->layer_bytes, bytes), e));
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
	lk_seq_free(c->keys);
	c->keys = NULL;
	c->nkeys = n;
	return lwm_dev_check(c->dev, lk_seq_new(c->dev, &c->keys, n, c->pos, NULL), e);
}

void lwm_cache_put(struct lwm_gen *g, struct lwm_cache *c, int64_t l, int64_t row, int64_t n)
{
	struct lwm_llama *m = g->m;
	char *at = c->data + l * c->layer_bytes + c->filled * c->row * (int64_t)lk_dtype_size(m->dtype);
	struct lk_view qkv = lwm_rows(m, LWM_BUF_QKV, 0, m->cfg.dim + c->row, row, n);
	struct lk_view fresh = lwm_cols(&qkv, m->cfg.dim, c->row), slot = lk_view2(at, m->dtype, n, c->row);

	LWM_K(m, lk_gather_rows(m->dev, &slot, &fresh, g->iota));
}

struct lk_attn lwm_cache_attn(struct lwm_gen *g, struct lwm_cache *c, const struct lk_seq *qs, int64_t l, int64_t row,
			      int64_t n)
{
	struct lwm_llama *m = g->m;
	int64_t e = lwm_llama_head_dim(&m->cfg), half = c->row / 2 * (int64_t)lk_dtype_size(m->dtype);
	struct lk_view q = lwm_rows(m, LWM_BUF_QKV, 0, m->cfg.dim + c->row, row, n);
	char *base = c->data + l * c->layer_bytes;
	struct lk_attn a = { .q = lk_view3(q.data, m->dtype, n, m->cfg.heads, e),
			     .k = lk_view3(base, m->dtype, c->nkeys, m->cfg.kv_heads, e),
			     .v = lk_view3(base + half, m->dtype, c->nkeys, m->cfg.kv_heads, e),
			     .qs = qs, .ks = c->keys, .scale = (float)(1 / sqrt((double)e)), .causal = 1 };

	a.q.stride[0] = m->cfg.dim + c->row;
	a.k.stride[0] = a.v.stride[0] = c->row;
	return a;
}
