/* attn_round.c - blocks of keys and values go round the ring, each as far as somebody needs it.
 *
 * With R ranks, rank r holds at step s the keys and values of rank (r - s) mod R:
 *
 *	step     0    1    2    3
 *	rank 0   0    3    2    1      what rank r - 1 held one step earlier
 *	rank 1   1    0    3    2
 *	rank 2   2    1    0    3
 *	rank 3   3    2    1    0
 *
 * Two buffers for keys and values: while one is computed with, the other receives. last[b] is the greatest distance from its owner
 * at which block b is needed; every rank works out the same table, so that sender and receiver agree without asking.
 *
 * Backward, the gradient of a block follows it one step later, and each rank on the way adds its part. Three buffers take turns:
 * `part` collects what this rank adds, `in` is where the sum of the ranks before arrives, `out` is on its way to the next one. From
 * the rank at distance last[b] the sum goes home; the fourth buffer is where this rank's own arrives.
 */
#include "common/comm/device.h"
#include "common/model/attn_ring_int.h"

int64_t lwm_ring_plan_round(struct lwm_ring *g)
{
	int64_t hops = 0;

	g->steps = 1;
	for (int b = 0; b < g->ranks; b++) {
		g->last[b] = 0;
		for (int s = g->ranks - 1; s > 0 && !g->last[b]; s--)
			if (lwm_route_seen(&g->route, (b + s) % g->ranks, b))
				g->last[b] = s;
		if (g->last[b] + 1 > g->steps)
			g->steps = g->last[b] + 1;
		hops += g->last[b];
	}
	return hops * g->n;
}

/* ---- messages ---- */

/* Starts one pair; NULL: nothing that way. */
static int start_pair(struct lwm_ring *g, int to, const void *out, int from, void *in, size_t bytes, int *rc,
		      struct lwm_err *e)
{
	return lwm_ring_keep_first(rc, lwm_devcomm_start(g->around, to, out, out ? bytes : 0, from, in, in ? bytes : 0, e));
}

static int pack_pairs(struct lwm_ring *g, const struct lk_view *k, void *to, struct lwm_err *e)
{
	struct lk_view from = lwm_ring_joined(g, k, 0, g->n), y = lk_view2(to, k->dtype, g->n, lwm_ring_row(g));

	return lwm_dev_check(g->dev, lk_gather_rows(g->dev, &y, &from, g->iota), e);
}

/* The exchange of keys and values that belongs to step s. */
struct hop {
	void *out, *in;
};

/* What leaves is needed further on; what arrives is needed here or further on. */
static struct hop kv_hop(struct lwm_ring *g, int s)
{
	struct hop h = { NULL, NULL };

	if (g->last[lwm_ring_held(g, g->rank, s)] > s)
		h.out = g->kv[s % 2];
	if (g->last[lwm_ring_held(g, g->rank, s + 1)] > s)
		h.in = g->kv[(s + 1) % 2];
	return h;
}

static int start_kv(struct lwm_ring *g, const struct hop *h, size_t bytes, int *rc, struct lwm_err *e)
{
	int r = g->ranks;

	if (!h->out && !h->in)
		return 0;
	return start_pair(g, (g->rank + 1) % r, h->out, (g->rank + r - 1) % r, h->in, bytes, rc, e);
}

/* ---- forward ---- */

int lwm_ring_round_fwd(struct lwm_ring *g, const struct lwm_attn_qkv *x, int failed, struct lwm_err *e)
{
	size_t bytes = (size_t)(g->n * lwm_ring_row(g)) * lk_dtype_size(x->k.dtype);
	int rc = failed;

	if (!rc && g->last[g->rank]) // somebody else needs this rank's block
		rc = pack_pairs(g, &x->k, g->kv[0], e);
	for (int s = 0; s < g->steps; s++) {
		struct hop h = kv_hop(g, s);
		int b = lwm_ring_held(g, g->rank, s);

		LWM_TRY(start_kv(g, &h, bytes, &rc, e));
		if (!rc && lwm_ring_sees(g, b)) {
			struct lk_attn a = lwm_ring_attn(g, x, b, g->kv[s % 2], g->n);

			rc = lwm_dev_check(g->dev, lk_attn_fwd(g->dev, &a, &g->st), e);
		}
		if (h.out || h.in)
			LWM_TRY(lwm_ring_finish(g, &rc, e));
	}
	return rc;
}

/* ---- backward ---- */

struct backward_pass { /* one, under way */
	const struct lwm_attn_qkv *x, *dx;
	const struct lk_view *dout;
	const float *lse, *delta;
	size_t kv_bytes, grad_bytes;
	int part, in, out; /* roles of g->grad[0..2]; [3] is where this rank's own sum comes home */
	bool sent, homing; /* exchanges of the step before that are still open */
	bool arriving, coming;
};

static int backward_block(struct lwm_ring *g, const struct backward_pass *w, int s, struct lwm_err *e)
{
	int b = lwm_ring_held(g, g->rank, s);
	struct lk_attn a = lwm_ring_attn(g, w->x, b, g->kv[s % 2], g->n);
	struct lk_view dk = w->dx->k, dv = w->dx->v;

	if (s) {
		void *part = g->grad[w->part];
		int rc = lwm_dev_check(g->dev, lk_zero(g->dev, part, w->grad_bytes), e);

		if (rc)
			return rc;
		dk = lwm_ring_half(g, part, LK_F32, g->n, 0);
		dv = lwm_ring_half(g, part, LK_F32, g->n, 1);
	}
	if (!lwm_ring_sees(g, b))
		return 0;
	return lwm_dev_check(g->dev, lk_attn_bwd(g->dev, &a, w->dout, w->lse, w->delta, &w->dx->q, &dk, &dv), e);
}

/* Ends the gradient exchanges that the previous step started. */
static int finish_grad(struct lwm_ring *g, struct backward_pass *w, int *rc, struct lwm_err *e)
{
	if (w->sent)
		LWM_TRY(lwm_ring_finish(g, rc, e));
	if (w->homing)
		LWM_TRY(lwm_ring_finish(g, rc, e));
	if (w->homing && w->coming && !*rc) {
		struct lk_view y = lwm_ring_joined(g, &w->dx->k, 0, g->n), x = lk_view2(g->grad[3], LK_F32, g->n, lwm_ring_row(g));

		*rc = lwm_dev_check(g->dev, lk_scatter_add_rows(g->dev, &y, &x, g->iota), e);
	}
	w->sent = w->homing = false;
	return 0;
}

/* After step s >= 1: adds this rank's part to what arrived and sends the sum on, or home from the last rank. */
static int start_grad(struct lwm_ring *g, struct backward_pass *w, int s, int *rc, struct lwm_err *e)
{
	int r = g->ranks, b = lwm_ring_held(g, g->rank, s), sum = w->part, spare = w->out;
	bool on = g->last[b] > s, end = g->last[b] == s;
	void *out;

	if (g->last[b] >= s && s > 1) { // others were here before: part joins what came from them
		struct lk_view y = lk_view1(g->grad[w->in], LK_F32, g->n * lwm_ring_row(g)), x = y;

		x.data = g->grad[w->part];
		if (!*rc)
			*rc = lwm_dev_check(g->dev, lk_axpy(g->dev, &y, 1.0f, &x), e);
		sum = w->in;
		w->in = spare;
	} else {
		w->part = spare;
	}
	w->out = sum;
	out = g->grad[sum];
	w->arriving = g->last[lwm_ring_held(g, g->rank, s + 1)] > s;
	w->coming = g->last[g->rank] == s;
	w->sent = on || w->arriving;
	w->homing = end || w->coming;
	if (w->sent)
		LWM_TRY(start_pair(g, (g->rank + 1) % r, on ? out : NULL, (g->rank + r - 1) % r,
			      w->arriving ? g->grad[w->in] : NULL, w->grad_bytes, rc, e));
	if (w->homing)
		LWM_TRY(start_pair(g, b, end ? out : NULL, (g->rank + s) % r, w->coming ? g->grad[3] : NULL, w->grad_bytes,
			      rc, e));
	return 0;
}

int lwm_ring_round_bwd(struct lwm_ring *g, const struct lwm_attn_qkv *x, const struct lk_view *dout, const float *lse,
		       const float *delta, const struct lwm_attn_qkv *dx, int failed, struct lwm_err *e)
{
	struct backward_pass w = { .x = x, .dx = dx, .dout = dout, .lse = lse, .delta = delta, .part = 0, .in = 1, .out = 2,
			 .kv_bytes = (size_t)(g->n * lwm_ring_row(g)) * lk_dtype_size(x->k.dtype),
			 .grad_bytes = (size_t)(g->n * lwm_ring_row(g)) * sizeof(float) };
	int rc = failed;

	if (!rc && g->last[g->rank])
		rc = pack_pairs(g, &x->k, g->kv[0], e);
	for (int s = 0; s < g->steps; s++) {
		struct hop h = kv_hop(g, s);

		LWM_TRY(start_kv(g, &h, w.kv_bytes, &rc, e));
		if (!rc)
			rc = backward_block(g, &w, s, e);
		LWM_TRY(finish_grad(g, &w, &rc, e));
		if (h.out || h.in)
			LWM_TRY(lwm_ring_finish(g, &rc, e));
		if (s)
			LWM_TRY(start_grad(g, &w, s, &rc, e));
	}
	LWM_TRY(finish_grad(g, &w, &rc, e));
	return rc;
}
