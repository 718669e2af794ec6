/* attn_direct.c - rows of keys and values go from their owner to each rank that sees them, and their gradients straight home.
 *
 * At step s every rank computes with rows of the rank s before it, while those of the rank s + 1 before it come in: one shift of
 * all ranks at a time, in which each sends to one and receives from one at most, so nobody waits for a third. Where there is
 * nothing to send, nothing is.
 *
 *	step     0            1            2
 *	rank 0   own          of rank 3    of rank 2       (4 ranks)
 *	         to rank 1    to rank 2    to rank 3
 *
 * Backward, the gradient of the rows used at step s goes home during step s + 1 and is added there, after those of the steps
 * before it: sums have the same order in each run. Buffers: grad[0] and grad[1] take turns in collecting and sending, grad[2]
 * receives, packed is where rows are packed for sending; kv[] take turns as in attn_round.c. */
#include "common/comm/device.h"
#include "common/model/attn_ring_int.h"

enum { INCOMING = 2 };

int64_t lwm_ring_plan_direct(const struct lwm_ring *g)
{
	int64_t sum = 0;

	for (int q = 0; q < g->ranks; q++)
		for (int k = 0; k < g->ranks; k++)
			sum += q == k ? 0 : lwm_route_seen(&g->route, q, k);
	return sum;
}

/* An exchange of rows: to one rank those it sees, or their gradients to whom they belong; from another likewise. */
struct trade {
	int to, from;
	int64_t out, in; /* rows */
};

/* Rows for step s + 1. */
static struct trade kv_trade(const struct lwm_ring *g, int s)
{
	struct trade t = { lwm_ring_held(g, g->rank, -(s + 1)), lwm_ring_held(g, g->rank, s + 1), 0, 0 };

	if (s + 1 < g->ranks) {
		t.out = lwm_route_seen(&g->route, t.to, g->rank);
		t.in = lwm_route_seen(&g->route, g->rank, t.from);
	}
	return t;
}

/* Gradients of step s: the way back of kv_trade(s - 1). */
static struct trade grad_trade(const struct lwm_ring *g, int s)
{
	struct trade t = kv_trade(g, s - 1);

	return (struct trade){ t.from, t.to, t.in, t.out };
}

static int start_trade(struct lwm_ring *g, const struct trade *t, const void *out, void *in, size_t row_bytes, int *rc,
		       struct lwm_err *e)
{
	if (!t->out && !t->in)
		return 0;
	return lwm_ring_keep_first(rc, lwm_devcomm_start(g->around, t->to, t->out ? out : NULL, (size_t)t->out * row_bytes, t->from,
							 t->in ? in : NULL, (size_t)t->in * row_bytes, e));
}

static int finish_trade(struct lwm_ring *g, const struct trade *t, int *rc, struct lwm_err *e)
{
	return t->out || t->in ? lwm_ring_finish(g, rc, e) : 0;
}

/* What rank q sees of this rank's keys and values, end to end. */
static int pack_rows(struct lwm_ring *g, const struct lk_view *k, int q, void *to, struct lwm_err *e)
{
	int64_t row_bytes = lwm_ring_row(g) * (int64_t)lk_dtype_size(k->dtype);
	char *at = to;

	for (int64_t i = g->route.first[q]; i < g->route.first[q + 1]; i++) {
		const struct lwm_route_run *r = &g->route.run[i];
		struct lk_view x = lwm_ring_joined(g, k, r->from, r->count);
		struct lk_view y = lk_view2(at, k->dtype, r->count, lwm_ring_row(g));

		LWM_TRY(lwm_dev_check(g->dev, lk_gather_rows(g->dev, &y, &x, g->iota), e));
		at += r->count * row_bytes;
	}
	return 0;
}

/* The gradient of those rows, as it came from rank q, is added. */
static int add_rows(struct lwm_ring *g, const struct lk_view *dk, int q, void *from, struct lwm_err *e)
{
	float *at = from;

	for (int64_t i = g->route.first[q]; i < g->route.first[q + 1]; i++) {
		const struct lwm_route_run *r = &g->route.run[i];
		struct lk_view y = lwm_ring_joined(g, dk, r->from, r->count);
		struct lk_view x = lk_view2(at, LK_F32, r->count, lwm_ring_row(g));

		LWM_TRY(lwm_dev_check(g->dev, lk_scatter_add_rows(g->dev, &y, &x, g->iota), e));
		at += r->count * lwm_ring_row(g);
	}
	return 0;
}

/* Starts the exchange for step s + 1. */
static int start_rows(struct lwm_ring *g, const struct lk_view *k, int s, const struct trade *t, int *rc, struct lwm_err *e)
{
	if (t->out && !*rc)
		*rc = pack_rows(g, k, t->to, g->packed, e);
	return start_trade(g, t, g->packed, g->kv[(s + 1) % 2], (size_t)lwm_ring_row(g) * lk_dtype_size(k->dtype), rc, e);
}

int lwm_ring_direct_fwd(struct lwm_ring *g, const struct lwm_attn_qkv *x, int failed, struct lwm_err *e)
{
	int rc = failed;

	for (int s = 0; s < g->ranks; s++) {
		struct trade t = kv_trade(g, s);
		int b = lwm_ring_held(g, g->rank, s);

		LWM_TRY(start_rows(g, &x->k, s, &t, &rc, e));
		if (!rc && lwm_ring_sees(g, b)) {
			struct lk_attn a = lwm_ring_attn(g, x, b, g->kv[s % 2], lwm_route_seen(&g->route, g->rank, b));

			rc = lwm_dev_check(g->dev, lk_attn_fwd(g->dev, &a, &g->st), e);
		}
		LWM_TRY(finish_trade(g, &t, &rc, e));
	}
	return rc;
}

/* ---- backward ---- */

struct pass { /* one, under way */
	const struct lwm_attn_qkv *x, *dx;
	const struct lk_view *dout;
	const float *lse, *delta;
	int part;          /* of grad[]: where this step's gradient is collected */
	struct trade home; /* of the step before, still open */
};

static int back_step(struct lwm_ring *g, const struct pass *w, int s, struct lwm_err *e)
{
	int b = lwm_ring_held(g, g->rank, s);
	int64_t rows = lwm_route_seen(&g->route, g->rank, b);
	struct lk_attn a = lwm_ring_attn(g, w->x, b, g->kv[s % 2], rows);
	struct lk_view dk = w->dx->k, dv = w->dx->v;

	if (!rows)
		return 0;
	if (s) {
		void *part = g->grad[w->part];

		LWM_TRY(lwm_dev_check(g->dev, lk_zero(g->dev, part, (size_t)(rows * lwm_ring_row(g)) * sizeof(float)), e));
		dk = lwm_ring_half(g, part, LK_F32, rows, 0);
		dv = lwm_ring_half(g, part, LK_F32, rows, 1);
	}
	return lwm_dev_check(g->dev, lk_attn_bwd(g->dev, &a, w->dout, w->lse, w->delta, &w->dx->q, &dk, &dv), e);
}

/* Ends the gradients' exchange that the step before started. */
static int finish_home(struct lwm_ring *g, struct pass *w, int *rc, struct lwm_err *e)
{
	LWM_TRY(finish_trade(g, &w->home, rc, e));
	if (w->home.in && !*rc)
		*rc = add_rows(g, &w->dx->k, w->home.from, g->grad[INCOMING], e);
	w->home.in = w->home.out = 0;
	return 0;
}

static int start_home(struct lwm_ring *g, struct pass *w, int s, int *rc, struct lwm_err *e)
{
	void *part = g->grad[w->part];

	w->home = grad_trade(g, s);
	w->part = 1 - w->part;
	return start_trade(g, &w->home, part, g->grad[INCOMING], (size_t)lwm_ring_row(g) * sizeof(float), rc, e);
}

int lwm_ring_direct_bwd(struct lwm_ring *g, const struct lwm_attn_qkv *x, const struct lk_view *dout, const float *lse,
			const float *delta, const struct lwm_attn_qkv *dx, int failed, struct lwm_err *e)
{
	struct pass w = { .x = x, .dx = dx, .dout = dout, .lse = lse, .delta = delta };
	int rc = failed;

	for (int s = 0; s < g->ranks; s++) {
		struct trade t = kv_trade(g, s);

		LWM_TRY(start_rows(g, &x->k, s, &t, &rc, e));
		if (!rc)
			rc = back_step(g, &w, s, e);
		LWM_TRY(finish_home(g, &w, &rc, e));
		LWM_TRY(finish_trade(g, &t, &rc, e));
		if (s)
			LWM_TRY(start_home(g, &w, s, &rc, e));
	}
	LWM_TRY(finish_home(g, &w, &rc, e));
	return rc;
}
