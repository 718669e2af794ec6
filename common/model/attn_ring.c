/* attn_ring.c - ring attention, forward and backward.
 *
 * Here: what a ring is made of, who holds what in a batch, and which way keys and values take in it. Round (attn_round.c) where all
 * that passes a rank is needed there, direct (attn_direct.c) where that would carry rows past ranks that do not see them.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/device.h"
#include "common/model/attn_ring_int.h"

/* Direct is taken where it saves one part in so many of what travels: between neighbours a row has less far to go. */
enum { SAVING = 16 };

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

static int grad_pieces(int ranks)
{
	return ranks == 2 ? LWM_RING_PAIR_BUFS : LWM_RING_GRAD_BUFS;
}

int64_t lwm_attn_ring_bytes(const struct lwm_attn_ring_shape *s, int dtype, int ranks)
{
	int64_t b[4];

	if (ranks < 2)
		return 0;
	part_bytes(s, dtype, b);
	return 2 * b[0] + b[1] + LWM_RING_KV_BUFS * b[2] + grad_pieces(ranks) * b[3] + lwm_round64(4 * s->tokens);
}

static int allocate_block(struct lwm_ring *g, struct lwm_err *e)
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
	for (int i = 0; i < LWM_RING_KV_BUFS; i++, at += b[2])
		g->kv[i] = at;
	for (int i = 0; i < LWM_RING_GRAD_BUFS; i++)
		g->grad[i] = at + (g->ranks == 2 ? i / 2 : i) * b[3];
	at += grad_pieces(g->ranks) * b[3];
	g->packed = g->ranks == 2 ? g->kv[0] : g->grad[3];
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
	struct lwm_ring *g = (struct lwm_ring *)a;

	for (int i = 0; g->seq && i < g->ranks; i++)
		lk_seq_free(g->seq[i]);
	lk_mem_free(g->dev, g->block);
	free(g->seq);
	lwm_route_release(&g->route);
	free(g->last);
	free(g);
}

static const struct lwm_attn_ops ring_ops;

int lwm_attn_ring_new(struct lwm_attn **out, struct lk_dev *dev, struct lwm_devcomm *around, const struct lwm_attn_ring_shape *s,
		      struct lwm_err *e)
{
	struct lwm_ring *g = calloc(1, sizeof *g);
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

void lwm_attn_ring_tell(struct lwm_attn *a, const int32_t *pos, const int32_t *seg)
{
	struct lwm_ring *g = (struct lwm_ring *)a;

	g->told_pos = pos;
	g->told_seg = seg;
}

/* Every rank has n tokens, and all were told the same of all of them, or nothing. */
static int check_alike(struct lwm_ring *g, int64_t n, int rc, struct lwm_err *e)
{
	bool tells = g->told_pos && !rc;
	uint64_t mark = tells ? lwm_comm_mark(LWM_COMM_MARK, g->told_pos, n * g->ranks) : 0;
	int64_t told = tells ? (int64_t)(lwm_comm_mark(mark, g->told_seg, n * g->ranks) >> 2) : -1;
	int64_t v[4] = { n, -n, told, -told };

	LWM_TRY(lwm_agree(g->comm, rc, e));
	LWM_TRY(lwm_comm_max_i64(g->comm, v, 4, e));
	if (v[0] != -v[1])
		return lwm_fail(e, LWM_ECONFIG, "ranks of one ring hold %" PRId64 " to %" PRId64 " tokens; they must hold the "
				"same number", -v[1], v[0]);
	if (v[2] != -v[3])
		return lwm_fail(e, LWM_EINTERNAL, "ranks of one ring were told different things of who holds which tokens");
	return 0;
}

static int check_batch(struct lwm_ring *g, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e)
{
	int64_t own = n * g->rank;
	int rc = 0;

	if (n < 1 || n > g->s.tokens)
		rc = lwm_fail(e, LWM_ECONFIG, "%" PRId64 " tokens in a step made for 1 to %" PRId64, n, g->s.tokens);
	else if (g->told_pos && (memcmp(g->told_pos + own, pos, (size_t)n * sizeof *pos) ||
				 memcmp(g->told_seg + own, seg, (size_t)n * sizeof *seg)))
		rc = lwm_fail(e, LWM_EINTERNAL, "a rank of a ring holds other tokens than all were told");
	return g->ranks > 1 ? check_alike(g, n, rc, e) : rc;
}

/* Where the n positions and segments of rank 0 lie, and how far from those of the next rank. */
struct held {
	const int32_t *pos, *seg;
	int64_t stride;
};

/* What is computed with: of another rank's block all that comes here. room: 2 n. */
static int make_seqs(struct lwm_ring *g, const struct held *h, int32_t *room, struct lwm_err *e)
{
	for (int b = 0; b < g->ranks; b++) {
		const int32_t *pos = h->pos + b * h->stride, *seg = h->seg + b * h->stride;
		int64_t rows = g->n;

		if (g->direct && b != g->rank) {
			rows = 0;
			for (int64_t i = g->route.first[g->ranks + b]; i < g->route.first[g->ranks + b + 1]; i++) {
				const struct lwm_route_run *r = &g->route.run[i];

				memcpy(room + rows, pos + r->from, (size_t)r->count * sizeof *pos);
				memcpy(room + g->n + rows, seg + r->from, (size_t)r->count * sizeof *seg);
				rows += r->count;
			}
			pos = room;
			seg = room + g->n;
		}
		LWM_TRY(lwm_dev_check(g->dev, lk_seq_new(g->dev, &g->seq[b], rows, pos, seg), e));
	}
	return 0;
}

/* The same on all ranks: it follows from what all hold. */
static void choose_way(struct lwm_ring *g)
{
	int64_t round = lwm_ring_plan_round(g), direct = lwm_ring_plan_direct(g);

	g->direct = g->s.train && direct * SAVING <= round * (SAVING - 1) && round > 0;
}

/* For what is said of a ring that is not made: the route of positions and segments [g->n] and the way. Release it in any case. */
static int plan_route(struct lwm_ring *g, const int32_t *pos, const int32_t *seg, struct lwm_err *e)
{
	g->last = calloc((size_t)g->ranks, sizeof *g->last);
	if (!g->last)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a ring of %d ranks", g->ranks);
	LWM_TRY(lwm_route_make(&g->route, g->ranks, 0, g->n, pos, seg, g->n, g->s.causal, e));
	choose_way(g);
	return 0;
}

static void release_plan(struct lwm_ring *g)
{
	lwm_route_release(&g->route);
	free(g->last);
}

int lwm_attn_ring_sends(const struct lwm_attn_ring_shape *s, int dtype, int ranks, int64_t n, const int32_t *pos,
			const int32_t *seg, int64_t sends[2], struct lwm_err *e)
{
	struct lwm_ring g = { .s = *s, .ranks = ranks, .n = n };
	int rc = plan_route(&g, pos, seg, e);

	sends[0] = sends[1] = 0;
	if (rc == 0) {
		int64_t rows = g.direct ? lwm_ring_plan_direct(&g) : lwm_ring_plan_round(&g);

		sends[0] = rows * pair_row(s) * (int64_t)lk_dtype_size(dtype);
		sends[1] = sends[0] + rows * pair_row(s) * 4;
	}
	release_plan(&g);
	return rc;
}

/* Bytes of travelling rows that come to lie in the buffers of rank r: the buffers fill from their beginning. */
static int64_t filled_direct(const struct lwm_ring *g, int r, int64_t kv_row, int64_t grad_row)
{
	int64_t kv[2] = { 0 }, part[2] = { 0 }, out = 0;

	for (int s = 1; s < g->ranks; s++) {
		int64_t in = lwm_route_seen(&g->route, r, lwm_ring_held(g, r, s));
		int64_t leaves = lwm_route_seen(&g->route, lwm_ring_held(g, r, -s), r);

		kv[s % 2] = in > kv[s % 2] ? in : kv[s % 2];
		part[(s - 1) % 2] = in > part[(s - 1) % 2] ? in : part[(s - 1) % 2];
		out = leaves > out ? leaves : out;
	}
	return (kv[0] + kv[1] + out) * kv_row + (part[0] + part[1] + out) * grad_row;
}

static int64_t filled_round(const struct lwm_ring *g, int64_t kv_row, int64_t grad_row)
{
	int grads = g->steps < 2 ? 0 : g->steps == 2 || g->ranks == 2 ? LWM_RING_PAIR_BUFS : LWM_RING_GRAD_BUFS;

	return g->n * ((g->steps < 2 ? 0 : LWM_RING_KV_BUFS) * kv_row + grads * grad_row);
}

int lwm_attn_ring_fills(const struct lwm_attn_ring_shape *s, int dtype, int ranks, int64_t n, const int32_t *pos,
			const int32_t *seg, int64_t *bytes, struct lwm_err *e)
{
	struct lwm_ring g = { .s = *s, .ranks = ranks, .n = n };
	int64_t b[4], kv_row = pair_row(s) * (int64_t)lk_dtype_size(dtype), grad_row = s->train ? pair_row(s) * 4 : 0;
	int rc = plan_route(&g, pos, seg, e);

	*bytes = 0;
	if (rc == 0) {
		for (int r = 0; r < ranks; r++) {
			int64_t x = g.direct ? filled_direct(&g, r, kv_row, grad_row) : filled_round(&g, kv_row, grad_row);

			*bytes = x > *bytes ? x : *bytes;
		}
		part_bytes(s, dtype, b);
		*bytes += (g.steps > 1 ? 2 * b[0] + b[1] : 0) + lwm_round64(4 * s->tokens);
	}
	release_plan(&g);
	return rc;
}

static void forget_batch(struct lwm_ring *g)
{
	for (int i = 0; i < g->ranks; i++) {
		lk_seq_free(g->seq[i]);
		g->seq[i] = NULL;
	}
}

static int begin_batch(struct lwm_attn *a, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e)
{
	struct lwm_ring *g = (struct lwm_ring *)a;
	struct held h = { pos, seg, n };
	bool ask = g->ranks > 1 && !g->told_pos;
	int32_t *room = NULL, *all = NULL;
	int rc = check_batch(g, n, pos, seg, e);

	if (rc == 0 && g->told_pos)
		h = (struct held){ g->told_pos, g->told_seg, n };
	g->told_pos = g->told_seg = NULL;
	LWM_TRY(rc);
	g->n = n;
	forget_batch(g);
	room = malloc((size_t)n * 2 * sizeof *room);
	all = ask ? malloc((size_t)n * 2 * sizeof *all * (size_t)g->ranks) : NULL;
	if (!room || (ask && !all))
		rc = lwm_fail(e, LWM_EMEMORY, "no memory for the positions of %" PRId64 " tokens", n);
	if (ask) {
		LWM_GO(lwm_agree(g->comm, rc, e));
		memcpy(room, pos, (size_t)n * sizeof *pos);
		memcpy(room + n, seg, (size_t)n * sizeof *seg);
		LWM_GO(lwm_comm_allgather(g->comm, room, (size_t)n * 2 * sizeof *room, all, e));
		h = (struct held){ all, all + n, 2 * n };
	}
	if (rc == 0)
		rc = lwm_route_make(&g->route, g->ranks, g->rank, n, h.pos, h.seg, h.stride, g->s.causal, e);
	if (rc == 0) {
		choose_way(g);
		rc = make_seqs(g, &h, room, e);
	}
	if (g->ranks > 1)
		LWM_GO(lwm_agree(g->comm, rc, e));
out:
	free(room);
	free(all);
	return rc;
}

static const int32_t *ring_positions(const struct lwm_attn *a)
{
	const struct lwm_ring *g = (const struct lwm_ring *)a;

	return lk_seq_pos(g->seq[g->rank]);
}

/* ---- forward and backward ---- */

static int ring_forward(struct lwm_attn *at, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o, float *lse,
			int failed, struct lwm_err *e)
{
	struct lwm_ring *g = (struct lwm_ring *)at;
	int rc = failed;

	(void)layer;
	if (g->steps == 1) {
		struct lk_attn a = lwm_ring_attn(g, x, g->rank, NULL, g->n);

		return rc ? rc : lwm_dev_check(g->dev, lk_attn_once(g->dev, &a, o, lse), e);
	}
	if (!rc)
		rc = lwm_dev_check(g->dev, lk_attn_begin(g->dev, &g->st, g->n, g->s.heads, g->s.head_dim), e);
	rc = g->direct ? lwm_ring_direct_fwd(g, x, rc, e) : lwm_ring_round_fwd(g, x, rc, e);
	return rc ? rc : lwm_dev_check(g->dev, lk_attn_end(g->dev, o, lse, &g->st), e);
}

static int ring_backward(struct lwm_attn *at, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o,
			 const struct lk_view *dout, const float *lse, float *delta, const struct lwm_attn_qkv *dx, int failed,
			 struct lwm_err *e)
{
	struct lwm_ring *g = (struct lwm_ring *)at;
	int rc = failed;

	(void)layer;
	if (!rc && o)
		rc = lwm_dev_check(g->dev, lk_attn_delta(g->dev, delta, o, dout), e);
	if (g->direct)
		return lwm_ring_direct_bwd(g, x, dout, lse, delta, dx, rc, e);
	return lwm_ring_round_bwd(g, x, dout, lse, delta, dx, rc, e);
}

static const struct lwm_attn_ops ring_ops = { begin_batch, ring_positions, ring_forward, ring_backward, free_ring };
