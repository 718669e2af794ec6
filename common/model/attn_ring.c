/* attn_ring.c - ring attention, forward and backward.
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
#include "common/model/attn_ring.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/device.h"

enum { KV_BUFS = 2, GRAD_BUFS = 4 };

struct ring {
	struct lwm_attn base;
	struct lk_dev *dev;
	struct lwm_devcomm *around; /* borrowed; NULL: alone */
	struct lwm_comm *comm;      /* its ranks */
	struct lwm_attn_ring_shape s;
	int ranks, rank;
	int64_t n;           /* tokens of this batch on each rank */
	struct lk_seq **seq; /* positions and segments of every rank's block */
	int *last;           /* of each block: the greatest distance at which it is needed */
	int steps;           /* 1 + the greatest of them */
	void *block;         /* device memory of all that follows */
	struct lk_attn_state st;
	void *kv[KV_BUFS], *grad[GRAD_BUFS]; /* what travels */
	int32_t *iota;                       /* 0, 1, ... s.tokens - 1 */
};

static int64_t pair_row(const struct lwm_attn_ring_shape *s)
{
	return 2 * s->kv_heads * s->head_dim;
}

/* Bytes of each part of the block, in order: state m, l, acc; kv buffers; gradient buffers; iota. */
static void part_bytes(const struct lwm_attn_ring_shape *s, int dtype, int64_t out[4])
{
	int64_t th = s->tokens * s->heads;

	out[0] = lwm_round64(4 * th);
	out[1] = lwm_round64(4 * th * s->head_dim);
	out[2] = lwm_round64(s->tokens * pair_row(s) * (int64_t)lk_dtype_size(dtype));
	out[3] = s->train ? lwm_round64(4 * s->tokens * pair_row(s)) : 0;
}

int64_t lwm_attn_ring_bytes(const struct lwm_attn_ring_shape *s, int dtype, int ranks)
{
	int64_t b[4];

	if (ranks < 2)
		return 0;
	part_bytes(s, dtype, b);
	return 2 * b[0] + b[1] + KV_BUFS * b[2] + GRAD_BUFS * b[3] + lwm_round64(4 * s->tokens);
}

static int allocate_block(struct ring *g, struct lwm_err *e)
{
	int64_t b[4], t = g->s.tokens, total;
	int32_t *host;
	int rc = 0;
	char *at;

	part_bytes(&g->s, lk_dev_dtype(g->dev), b);
	total = lwm_attn_ring_bytes(&g->s, lk_dev_dtype(g->dev), g->ranks);
	LWM_TRY(lwm_dev_check(g->dev, lk_mem_alloc(g->dev, (size_t)total, &g->block), e));
	at = g->block;
	g->st.m = (float *)at;
	g->st.l = (float *)(at + b[0]);
	g->st.acc = (float *)(at + 2 * b[0]);
	at += 2 * b[0] + b[1];
	for (int i = 0; i < KV_BUFS; i++, at += b[2])
		g->kv[i] = at;
	for (int i = 0; i < GRAD_BUFS; i++, at += b[3])
		g->grad[i] = at;
	g->iota = (int32_t *)at;
	host = malloc((size_t)t * sizeof *host);
	if (!host)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " token numbers", t);
	for (int64_t i = 0; i < t; i++)
		host[i] = (int32_t)i;
	rc = lwm_dev_check(g->dev, lk_upload(g->dev, g->iota, host, (size_t)t * sizeof *host), e);
	free(host);
	return rc;
}

static void free_ring(struct lwm_attn *a)
{
	struct ring *g = (struct ring *)a;

	for (int i = 0; g->seq && i < g->ranks; i++)
		lk_seq_free(g->seq[i]);
	lk_mem_free(g->dev, g->block);
	free(g->seq);
	free(g->last);
	free(g);
}

static const struct lwm_attn_ops ring_ops;

int lwm_attn_ring_new(struct lwm_attn **out, struct lk_dev *dev, struct lwm_devcomm *around, const struct lwm_attn_ring_shape *s,
		      struct lwm_err *e)
{
	struct ring *g = calloc(1, sizeof *g);
	int rc = 0;

	*out = NULL;
	if (!g)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a ring");
	g->base.ops = &ring_ops;
	g->dev = dev;
	g->around = around;
	g->comm = around ? lwm_devcomm_comm(around) : NULL;
	g->s = *s;
	g->ranks = around ? lwm_comm_size(g->comm) : 1;
	g->rank = around ? lwm_comm_rank(g->comm) : 0;
	g->seq = calloc((size_t)g->ranks, sizeof *g->seq);
	g->last = calloc((size_t)g->ranks, sizeof *g->last);
	if (!g->seq || !g->last)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "no memory for a ring of %d ranks", g->ranks));
	if (g->ranks > 1)
		LWM_GO(allocate_block(g, e));
	*out = &g->base;
out:
	if (rc < 0)
		free_ring(&g->base);
	return rc;
}

/* ---- what is where ---- */

/* The block that rank r holds at step s. */
static int held_block(const struct ring *g, int r, int s)
{
	return ((r - s) % g->ranks + g->ranks) % g->ranks;
}

static bool sees_block(const struct ring *g, int q, int k)
{
	return lk_seq_sees(g->seq[q], g->seq[k], g->s.causal);
}

static void plan_steps(struct ring *g)
{
	g->steps = 1;
	for (int b = 0; b < g->ranks; b++) {
		g->last[b] = 0;
		for (int s = g->ranks - 1; s > 0 && !g->last[b]; s--)
			if (sees_block(g, (b + s) % g->ranks, b))
				g->last[b] = s;
		if (g->last[b] + 1 > g->steps)
			g->steps = g->last[b] + 1;
	}
}

static int check_count(struct ring *g, int64_t n, struct lwm_err *e)
{
	int64_t v[2] = { n, -n };
	int rc = 0;

	if (n < 1 || n > g->s.tokens)
		rc = lwm_fail(e, LWM_ECONFIG, "%" PRId64 " tokens in a step made for 1 to %" PRId64, n, g->s.tokens);
	if (g->ranks == 1)
		return rc;
	LWM_TRY(lwm_agree(g->comm, rc, e));
	LWM_TRY(lwm_comm_max_i64(g->comm, v, 2, e));
	if (v[0] != -v[1])
		return lwm_fail(e, LWM_ECONFIG, "ranks of one ring hold %" PRId64 " to %" PRId64 " tokens; they must hold the "
				"same number", -v[1], v[0]);
	return 0;
}

static int begin_batch(struct lwm_attn *a, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e)
{
	struct ring *g = (struct ring *)a;
	int32_t *all = NULL, *mine;
	int rc = 0;

	LWM_TRY(check_count(g, n, e));
	g->n = n;
	for (int i = 0; i < g->ranks; i++) {
		lk_seq_free(g->seq[i]);
		g->seq[i] = NULL;
	}
	all = malloc((size_t)n * 2 * sizeof *all * (size_t)g->ranks + (size_t)n * 2 * sizeof *all);
	if (!all)
		rc = lwm_fail(e, LWM_EMEMORY, "no memory for the positions of %" PRId64 " tokens", n);
	if (g->ranks > 1)
		LWM_GO(lwm_agree(g->comm, rc, e));
	else if (rc)
		goto out;
	mine = all + 2 * n * g->ranks;
	memcpy(mine, pos, (size_t)n * sizeof *pos);
	memcpy(mine + n, seg, (size_t)n * sizeof *seg);
	if (g->ranks > 1)
		LWM_GO(lwm_comm_allgather(g->comm, mine, (size_t)n * 2 * sizeof *all, all, e));
	else
		memcpy(all, mine, (size_t)n * 2 * sizeof *all);
	for (int i = 0; i < g->ranks && !rc; i++) {
		const int32_t *p = all + 2 * n * i;

		rc = lwm_dev_check(g->dev, lk_seq_new(g->dev, &g->seq[i], n, p, p + n), e);
	}
	if (g->ranks > 1)
		LWM_GO(lwm_agree(g->comm, rc, e));
	if (!rc)
		plan_steps(g);
out:
	free(all);
	return rc;
}

static const int32_t *ring_positions(const struct lwm_attn *a)
{
	const struct ring *g = (const struct ring *)a;

	return lk_seq_pos(g->seq[g->rank]);
}

/* ---- messages ---- */

/* The first failure of this rank stays in *rc, and the exchanges go on; one that ends them is returned. */
static int keep_first(int *rc, int now)
{
	if (now == -LWM_ERANK)
		return now;
	if (!*rc)
		*rc = now;
	return 0;
}

/* Starts one pair; NULL: nothing that way. */
static int start_pair(struct ring *g, int to, const void *out, int from, void *in, size_t bytes, int *rc, struct lwm_err *e)
{
	return keep_first(rc, lwm_devcomm_start(g->around, to, out, out ? bytes : 0, from, in, in ? bytes : 0, e));
}

static int finish_pair(struct ring *g, int *rc, struct lwm_err *e)
{
	return keep_first(rc, lwm_devcomm_finish(g->around, e));
}

/* (n,K,E) half of a travelling (n, 2 K E) buffer. */
static struct lk_view half_view(const struct ring *g, void *data, int dtype, int which)
{
	int64_t row = pair_row(&g->s);
	struct lk_view v = lk_view3((char *)data + which * (row / 2) * (int64_t)lk_dtype_size(dtype), dtype, g->n,
				    g->s.kv_heads, g->s.head_dim);

	v.stride[0] = row;
	return v;
}

/* k and the v that follows it as one 2-d view (n, 2 K E). */
static struct lk_view joined_view(const struct ring *g, const struct lk_view *k)
{
	struct lk_view v = lk_view2(k->data, k->dtype, g->n, pair_row(&g->s));

	v.stride[0] = k->stride[0];
	return v;
}

static int pack_pairs(struct ring *g, const struct lk_view *k, void *to, struct lwm_err *e)
{
	struct lk_view from = joined_view(g, k), y = lk_view2(to, k->dtype, g->n, pair_row(&g->s));

	return lwm_dev_check(g->dev, lk_gather_rows(g->dev, &y, &from, g->iota), e);
}

static struct lk_attn block_attn(const struct ring *g, const struct lwm_attn_qkv *x, int b, void *kv)
{
	struct lk_attn a = { .q = x->q, .k = x->k, .v = x->v, .qs = g->seq[g->rank], .ks = g->seq[b],
			     .scale = (float)(1 / sqrt((double)g->s.head_dim)), .causal = g->s.causal };

	if (b != g->rank) {
		a.k = half_view(g, kv, x->k.dtype, 0);
		a.v = half_view(g, kv, x->k.dtype, 1);
	}
	return a;
}

/* The exchange of keys and values that belongs to step s. */
struct hop {
	void *out, *in;
};

/* What leaves is needed further on; what arrives is needed here or further on. */
static struct hop kv_hop(struct ring *g, int s)
{
	struct hop h = { NULL, NULL };

	if (g->last[held_block(g, g->rank, s)] > s)
		h.out = g->kv[s % 2];
	if (g->last[held_block(g, g->rank, s + 1)] > s)
		h.in = g->kv[(s + 1) % 2];
	return h;
}

static int start_kv(struct ring *g, const struct hop *h, size_t bytes, int *rc, struct lwm_err *e)
{
	int r = g->ranks;

	if (!h->out && !h->in)
		return 0;
	return start_pair(g, (g->rank + 1) % r, h->out, (g->rank + r - 1) % r, h->in, bytes, rc, e);
}

/* ---- forward ---- */

static int forward_alone(struct ring *g, const struct lwm_attn_qkv *x, const struct lk_view *o, float *lse,
		     struct lwm_err *e)
{
	struct lk_attn a = block_attn(g, x, g->rank, NULL);

	return lwm_dev_check(g->dev, lk_attn_once(g->dev, &a, o, lse), e);
}

static int ring_forward(struct lwm_attn *at, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o, float *lse,
			int failed, struct lwm_err *e)
{
	struct ring *g = (struct ring *)at;
	size_t bytes = (size_t)(g->n * pair_row(&g->s)) * lk_dtype_size(x->k.dtype);
	int rc = failed;

	(void)layer;
	if (g->steps == 1)
		return rc ? rc : forward_alone(g, x, o, lse, e);
	if (!rc && g->last[g->rank]) // somebody else needs this rank's block
		rc = pack_pairs(g, &x->k, g->kv[0], e);
	if (!rc)
		rc = lwm_dev_check(g->dev, lk_attn_begin(g->dev, &g->st, g->n, g->s.heads, g->s.head_dim), e);
	for (int s = 0; s < g->steps; s++) {
		struct hop h = kv_hop(g, s);
		int b = held_block(g, g->rank, s);

		LWM_TRY(start_kv(g, &h, bytes, &rc, e));
		if (!rc && sees_block(g, g->rank, b)) {
			struct lk_attn a = block_attn(g, x, b, g->kv[s % 2]);

			rc = lwm_dev_check(g->dev, lk_attn_fwd(g->dev, &a, &g->st), e);
		}
		if (h.out || h.in)
			LWM_TRY(finish_pair(g, &rc, e));
	}
	return rc ? rc : lwm_dev_check(g->dev, lk_attn_end(g->dev, o, lse, &g->st), e);
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

static int backward_block(struct ring *g, const struct backward_pass *w, int s, struct lwm_err *e)
{
	int b = held_block(g, g->rank, s);
	struct lk_attn a = block_attn(g, w->x, b, g->kv[s % 2]);
	struct lk_view dk = w->dx->k, dv = w->dx->v;

	if (s) {
		void *part = g->grad[w->part];
		int rc = lwm_dev_check(g->dev, lk_zero(g->dev, part, w->grad_bytes), e);

		if (rc)
			return rc;
		dk = half_view(g, part, LK_F32, 0);
		dv = half_view(g, part, LK_F32, 1);
	}
	if (!sees_block(g, g->rank, b))
		return 0;
	return lwm_dev_check(g->dev, lk_attn_bwd(g->dev, &a, w->dout, w->lse, w->delta, &w->dx->q, &dk, &dv), e);
}

/* Ends the gradient exchanges that the previous step started. */
static int finish_grad(struct ring *g, struct backward_pass *w, int *rc, struct lwm_err *e)
{
	if (w->sent)
		LWM_TRY(finish_pair(g, rc, e));
	if (w->homing)
		LWM_TRY(finish_pair(g, rc, e));
	if (w->homing && w->coming && !*rc) {
		struct lk_view y = joined_view(g, &w->dx->k), x = lk_view2(g->grad[3], LK_F32, g->n, pair_row(&g->s));

		*rc = lwm_dev_check(g->dev, lk_scatter_add_rows(g->dev, &y, &x, g->iota), e);
	}
	w->sent = w->homing = false;
	return 0;
}

/* After step s >= 1: adds this rank's part to what arrived and sends the sum on, or home from the last rank. */
static int start_grad(struct ring *g, struct backward_pass *w, int s, int *rc, struct lwm_err *e)
{
	int r = g->ranks, b = held_block(g, g->rank, s), sum = w->part, spare = w->out;
	bool on = g->last[b] > s, end = g->last[b] == s;
	void *out;

	if (g->last[b] >= s && s > 1) { // others were here before: part joins what came from them
		struct lk_view y = lk_view1(g->grad[w->in], LK_F32, g->n * pair_row(&g->s)), x = y;

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
	w->arriving = g->last[held_block(g, g->rank, s + 1)] > s;
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

static int ring_backward(struct lwm_attn *at, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o,
			 const struct lk_view *dout, const float *lse, float *delta, const struct lwm_attn_qkv *dx, int failed,
			 struct lwm_err *e)
{
	struct ring *g = (struct ring *)at;
	struct backward_pass w = { .x = x, .dx = dx, .dout = dout, .lse = lse, .delta = delta, .part = 0, .in = 1, .out = 2,
			 .kv_bytes = (size_t)(g->n * pair_row(&g->s)) * lk_dtype_size(x->k.dtype),
			 .grad_bytes = (size_t)(g->n * pair_row(&g->s)) * sizeof(float) };
	int rc = failed;

	(void)layer;
	if (!rc)
		rc = lwm_dev_check(g->dev, lk_attn_delta(g->dev, delta, o, dout), e);
	if (!rc && g->last[g->rank])
		rc = pack_pairs(g, &x->k, g->kv[0], e);
	for (int s = 0; s < g->steps; s++) {
		struct hop h = kv_hop(g, s);

		LWM_TRY(start_kv(g, &h, w.kv_bytes, &rc, e));
		if (!rc)
			rc = backward_block(g, &w, s, e);
		LWM_TRY(finish_grad(g, &w, &rc, e));
		if (h.out || h.in)
			LWM_TRY(finish_pair(g, &rc, e));
		if (s)
			LWM_TRY(start_grad(g, &w, s, &rc, e));
	}
	LWM_TRY(finish_grad(g, &w, &rc, e));
	return rc;
}

static const struct lwm_attn_ops ring_ops = { begin_batch, ring_positions, ring_forward, ring_backward, free_ring };
