/* attn_ring_part.c - what both ways of a ring need: views of what travels, and exchanges that go on after a failure. */
#include <math.h>

#include "common/model/attn_ring_int.h"

int lwm_ring_keep_first(int *rc, int now)
{
	if (now == -LWM_ERANK)
		return now;
	if (!*rc)
		*rc = now;
	return 0;
}

int lwm_ring_finish(struct lwm_ring *g, int *rc, struct lwm_err *e)
{
	return lwm_ring_keep_first(rc, lwm_devcomm_finish(g->around, e));
}

struct lk_view lwm_ring_joined(const struct lwm_ring *g, const struct lk_view *k, int64_t from, int64_t rows)
{
	int64_t skip = from * k->stride[0] * (int64_t)lk_dtype_size(k->dtype);
	struct lk_view v = lk_view2((char *)k->data + skip, k->dtype, rows, lwm_ring_row(g));

	v.stride[0] = k->stride[0];
	return v;
}

struct lk_view lwm_ring_half(const struct lwm_ring *g, void *data, int dtype, int64_t rows, int which)
{
	int64_t row = lwm_ring_row(g);
	struct lk_view v = lk_view3((char *)data + which * (row / 2) * (int64_t)lk_dtype_size(dtype), dtype, rows,
				    g->s.kv_heads, g->s.head_dim);

	v.stride[0] = row;
	return v;
}

struct lk_attn lwm_ring_attn(const struct lwm_ring *g, const struct lwm_attn_qkv *x, int b, void *kv, int64_t rows)
{
	struct lk_attn a = { .q = x->q, .k = x->k, .v = x->v, .qs = g->seq[g->rank], .ks = g->seq[b],
			     .scale = (float)(1 / sqrt((double)g->s.head_dim)), .causal = g->s.causal };

	if (b != g->rank) {
		a.k = lwm_ring_half(g, kv, x->k.dtype, rows, 0);
		a.v = lwm_ring_half(g, kv, x->k.dtype, rows, 1);
	}
	return a;
}
