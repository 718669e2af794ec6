/* attn_bwd.hot.c - gradients of one query tile against a run of key tiles, five products in one pass.
 *
 *	P = exp(K Q^T - lse), dS = P * (V dO^T - delta), dQ^T += K^T dS, dV += P dO, dK += dS Q
 *
 * (Dao et al. 2022, algorithm 4.) P and dS lie as (key, query) like the forward's scores. A unit of up to two groups
 * shares them, so that the sums over queries of dV and dK run long enough to pay for loading the accumulators.
 */
#include <math.h>

#include "kernels/cpu/attn_mk.h"

static const float LOG2E = 1.44269504088896341f;

enum {
	LDP = 2 * GW,                      /* row of P and dS */
	WIDE = LK_VEC == 16 ? 4 : 3,       /* register block of dK, dV: MROW keys x WIDE vectors of D */
	MROW = LK_VEC == 16 ? 6 : 4,
	ROWS = BK + MR,                    /* rows of a key tile's buffers: the last register block may hang over */
};

struct group {
	float *qt, *dot;  /* (D, GW): scaled queries, output gradients */
	float *dqt;       /* (D, GW) */
	float *q, *dout;  /* (GW, dp): the same by rows */
	float lse[GW];    /* times log2 e, +inf where nothing was seen */
	float delta[GW];
};

struct tile {
	const struct lk_attn *a;
	int64_t d, dp;
	float *k, *v, *dk, *dv; /* (ROWS, dp) */
	float *p, *ds;          /* (ROWS, LDP) */
	float *panels;
	struct group *group;
};

static size_t group_floats(int64_t dp)
{
	return (size_t)(5 * dp * GW);
}

static size_t bwd_room(const struct lk_attn_plan *p)
{
	int64_t dp = lk_round_up(p->a->q.n[2], LK_VEC);

	return sizeof(float) * ((size_t)(ROWS * (4 * dp + 2 * LDP)) + (size_t)p->tile_groups * group_floats(dp)) +
	       (size_t)p->tile_groups * sizeof(struct group) + 64;
}

static void carve(struct tile *w, const struct lk_attn_plan *p, float *room)
{
	w->a = p->a;
	w->d = p->a->q.n[2];
	w->dp = lk_round_up(w->d, LK_VEC);
	w->k = room;
	w->v = w->k + ROWS * w->dp;
	w->dk = w->v + ROWS * w->dp;
	w->dv = w->dk + ROWS * w->dp;
	w->p = w->dv + ROWS * w->dp;
	w->ds = w->p + ROWS * LDP;
	w->panels = w->ds + ROWS * LDP;
	w->group = (struct group *)(w->panels + (size_t)p->tile_groups * group_floats(w->dp));
	// q and dout of all groups lie end to end, so that the rows of a unit do
	for (int i = 0; i < p->tile_groups; i++) {
		float *rows = w->panels + p->tile_groups * 3 * w->dp * GW;

		w->group[i].qt = w->panels + i * 3 * w->dp * GW;
		w->group[i].dot = w->group[i].qt + w->dp * GW;
		w->group[i].dqt = w->group[i].dot + w->dp * GW;
		w->group[i].q = rows + i * w->dp * GW;
		w->group[i].dout = rows + (p->tile_groups + i) * w->dp * GW;
	}
}

static const float *row3(const struct lk_view *v, int64_t t, int64_t h)
{
	return (const float *)v->data + t * v->stride[0] + h * v->stride[1];
}

static void pack_group(const struct tile *w, const struct lk_attn_group *g, int64_t h, const struct lk_attn_grad *gr,
		       struct group *u)
{
	const struct lk_attn *a = w->a;
	int64_t nh = a->q.n[1];
	size_t rest = sizeof(float) * (size_t)((GW - g->n) * w->dp);

	lk_pack_columns(u->qt, row3(&a->q, g->q0, h), a->q.stride[0], g->n, w->d, a->scale);
	lk_pack_columns(u->dot, row3(gr->dout, g->q0, h), gr->dout->stride[0], g->n, w->d, 1.0f);
	lk_pack_rows(u->q, w->dp, row3(&a->q, g->q0, h), a->q.stride[0], g->n, w->d, a->scale);
	lk_pack_rows(u->dout, w->dp, row3(gr->dout, g->q0, h), gr->dout->stride[0], g->n, w->d, 1.0f);
	memset(u->q + g->n * w->dp, 0, rest);
	memset(u->dout + g->n * w->dp, 0, rest);
	memset(u->dqt, 0, sizeof(float) * (size_t)(w->dp * GW));
	for (int i = 0; i < GW; i++) {
		float lse = i < g->n ? gr->lse[(g->q0 + i) * nh + h] : -INFINITY;

		u->lse[i] = lse == -INFINITY ? INFINITY : lse * LOG2E;
		u->delta[i] = i < g->n ? gr->delta[(g->q0 + i) * nh + h] : 0.0f;
	}
}

/* p (n, GW of LDP) = exp(k qt - lse) */
LK_INLINE void weights(const int nr, float *p, const float *k, const struct tile *w, const struct group *u, int64_t n)
{
	vf lse[NR];

#pragma GCC unroll 4
	for (int j = 0; j < nr; j++)
		lse[j] = lk_vload(u->lse + j * LK_VEC);
	for (int64_t i = 0; i < n; i += MR) {
		vf acc[MR * NR];

#pragma GCC unroll 32
		for (int e = 0; e < MR * nr; e++)
			acc[e] = (vf){ 0 };
		lk_mk(MR, nr, acc, k + i * w->dp, w->dp, 1, u->qt, GW, w->d);
#pragma GCC unroll 32
		for (int e = 0; e < MR * nr; e++)
			lk_vstore(p + (i + e / nr) * LDP + e % nr * LK_VEC, acc[e]);
	}
	for (int64_t i = 0; i < n; i++) {
#pragma GCC unroll 4
		for (int j = 0; j < nr; j++) {
			float *x = p + i * LDP + j * LK_VEC;

			lk_vstore(x, lk_exp2(lk_vload(x) * LOG2E - lse[j]));
		}
	}
}

/* ds = p * (v dot - delta) */
LK_INLINE void slopes(const int nr, float *ds, const float *p, const float *v, const struct tile *w,
		      const struct group *u, int64_t n)
{
	for (int64_t i = 0; i < n; i += MR) {
		vf acc[MR * NR];

#pragma GCC unroll 32
		for (int e = 0; e < MR * nr; e++)
			acc[e] = -lk_vload(u->delta + e % nr * LK_VEC);
		lk_mk(MR, nr, acc, v + i * w->dp, w->dp, 1, u->dot, GW, w->d);
#pragma GCC unroll 32
		for (int e = 0; e < MR * nr; e++) {
			int64_t at = (i + e / nr) * LDP + e % nr * LK_VEC;

			lk_vstore(ds + at, acc[e] * lk_vload(p + at));
		}
	}
}

/* dqt (d rounded up to MR, GW) += k^T ds */
LK_INLINE void gather(const int nr, float *dqt, const float *k, const struct tile *w, const float *ds, int64_t n)
{
	for (int64_t c = 0; c < w->d; c += MR) {
		vf acc[MR * NR];

#pragma GCC unroll 32
		for (int e = 0; e < MR * nr; e++)
			acc[e] = lk_vload(dqt + (c + e / nr) * GW + e % nr * LK_VEC);
		lk_mk(MR, nr, acc, k + c, 1, w->dp, ds, LDP, n);
#pragma GCC unroll 32
		for (int e = 0; e < MR * nr; e++)
			lk_vstore(dqt + (c + e / nr) * GW + e % nr * LK_VEC, acc[e]);
	}
}

/* Hides from p what is not to be seen. */
LK_INLINE void hide(const int nr, float *p, const struct lk_attn *a, const struct lk_attn_group *g, int64_t k0, int64_t n)
{
	struct lk_lanes lanes;

	lk_lanes_load(&lanes, a->qs, g);
	for (int64_t i = 0; i < n; i++) {
		for (int j = 0; j < nr; j++) {
			float *x = p + i * LDP + j * LK_VEC;

			lk_vstore(x, lk_vselect(lk_lanes_see(&lanes, j, a->ks, k0 + i, a->causal), lk_vload(x),
						(vf){ 0 }));
		}
	}
}

/* Columns `col` of p and ds, and dq: one group, n keys from key k0, which is row `at` of the packed tile. */
LK_INLINE void by_query(const int nr, const struct tile *w, const struct lk_attn_group *g, const struct group *u,
			int64_t col, int64_t k0, int64_t at, int64_t n, int all)
{
	weights(nr, w->p + col, w->k + at * w->dp, w, u, n);
	if (!all)
		hide(nr, w->p + col, w->a, g, k0, n);
	slopes(nr, w->ds + col, w->p + col, w->v + at * w->dp, w, u, n);
	gather(nr, u->dqt, w->k + at * w->dp, w, w->ds + col, n);
}

static int vectors(const struct lk_attn_group *g)
{
	return (g->n + LK_VEC - 1) / LK_VEC;
}

static void by_query_any(const struct tile *w, const struct lk_attn_group *g, const struct group *u, int64_t col,
			 int64_t k0, int64_t at, int64_t n, int all)
{
	switch (vectors(g)) {
	case 1: by_query(1, w, g, u, col, k0, at, n, all); break;
	case 2: by_query(2, w, g, u, col, k0, at, n, all); break;
	default: by_query(3, w, g, u, col, k0, at, n, all); break;
	}
}

/* y (n rounded up to MROW, nr vectors of dp) += x (key, depth queries) * rows (depth, dp) */
LK_INLINE void by_key(const int nr, float *y, const float *x, const float *rows, int64_t dp, int64_t n, int64_t depth)
{
	for (int64_t i = 0; i < n; i += MROW) {
		vf acc[MROW * WIDE];

#pragma GCC unroll 32
		for (int e = 0; e < MROW * nr; e++)
			acc[e] = lk_vload(y + (i + e / nr) * dp + e % nr * LK_VEC);
		lk_mk(MROW, nr, acc, x + i * LDP, LDP, 1, rows, dp, depth);
#pragma GCC unroll 32
		for (int e = 0; e < MROW * nr; e++)
			lk_vstore(y + (i + e / nr) * dp + e % nr * LK_VEC, acc[e]);
	}
}

static void by_key_any(float *y, const float *x, const float *rows, int64_t dp, int64_t n, int64_t depth)
{
	for (int64_t c = 0; c < dp; c += WIDE * LK_VEC) {
		switch ((dp - c) / LK_VEC) {
		case 1: by_key(1, y + c, x, rows + c, dp, n, depth); break;
		case 2: by_key(2, y + c, x, rows + c, dp, n, depth); break;
		case 3: by_key(3, y + c, x, rows + c, dp, n, depth); break;
		default: by_key(WIDE, y + c, x, rows + c, dp, n, depth); break;
		}
	}
}

/* The unit of groups [g0, g1), one or two, against keys [k0, k1) of the tile that starts at `first`. */
static void unit(const struct tile *w, const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int32_t g0,
		 int32_t g1, int64_t first, int64_t k0, int64_t k1, int all)
{
	int64_t n = k1 - k0, at = k0 - first, depth = 0;
	const struct group *u = &w->group[g0 - t->g0];
	size_t hang = sizeof(float) * MR * LDP;

	for (int32_t g = g0; g < g1; g++) {
		by_query_any(w, &p->groups[g], &w->group[g - t->g0], depth, k0, at, n, all);
		depth += vectors(&p->groups[g]) * LK_VEC;
	}
	// the last register block of dK, dV hangs over: those rows must add nothing
	memset(w->p + n * LDP, 0, hang);
	memset(w->ds + n * LDP, 0, hang);
	by_key_any(w->dv + at * w->dp, w->p, u->dout, w->dp, n, depth);
	by_key_any(w->dk + at * w->dp, w->ds, u->q, w->dp, n, depth);
}

static void open_keys(const struct tile *w, int64_t first, int64_t n, int64_t hk)
{
	const struct lk_attn *a = w->a;

	lk_pack_rows(w->k, w->dp, row3(&a->k, first, hk), a->k.stride[0], n, w->d, 1.0f);
	lk_pack_rows(w->v, w->dp, row3(&a->v, first, hk), a->v.stride[0], n, w->d, 1.0f);
	memset(w->dk, 0, sizeof(float) * (size_t)(2 * ROWS * w->dp)); // dv lies behind dk
}

static void add_rows(const struct lk_view *y, int64_t first, int64_t hk, const float *x, int64_t dp, int64_t n, int64_t d)
{
	for (int64_t i = 0; i < n; i++, x += dp) {
		float *to = (float *)y->data + (first + i) * y->stride[0] + hk * y->stride[1];
		int64_t c = 0;

		for (; c + LK_VEC <= d; c += LK_VEC)
			lk_vstore(to + c, lk_vload(to + c) + lk_vload(x + c));
		if (c < d)
			lk_vstore_n(to + c, lk_vload_n(to + c, d - c, 0.0f) + lk_vload(x + c), d - c);
	}
}

static void key_tile(const struct tile *w, const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t kt,
		     int64_t hk, const struct lk_attn_grad *gr)
{
	const struct lk_attn *a = p->a;
	int64_t first = kt * BK, end = first + BK < a->ks->n ? first + BK : a->ks->n;
	int open = 0;

	for (int32_t g = t->g0, next; g < t->g1; g = next) {
		int all = end - first == BK;
		int64_t k0 = end, k1 = first;

		next = g + 1 < t->g1 && vectors(&p->groups[g]) == NR ? g + 2 : g + 1;
		for (int32_t i = g; i < next; i++) {
			enum lk_attn_sight sight = lk_attn_sight(&p->groups[i].sum, &p->ktiles[kt], a->causal);
			int64_t b = first, e = end;

			all = all && sight == LK_SEES_ALL;
			if (sight == LK_SEES_NONE)
				continue;
			if (sight == LK_SEES_SOME)
				lk_attn_trim(a, &p->groups[i].sum, &b, &e);
			if (b == e)
				continue;
			k0 = b < k0 ? b : k0;
			k1 = e > k1 ? e : k1;
		}
		if (k0 >= k1)
			continue;
		if (!open)
			open_keys(w, first, end - first, hk);
		open = 1;
		unit(w, p, t, g, next, first, k0, k1, all);
	}
	if (!open)
		return;
	add_rows(gr->dk, first, hk, w->dk, w->dp, end - first, w->d);
	add_rows(gr->dv, first, hk, w->dv, w->dp, end - first, w->d);
}

static void bwd(const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t h, int64_t lo, int64_t hi,
		const struct lk_attn_grad *gr, float *room)
{
	int64_t hk = h / (p->a->q.n[1] / p->a->k.n[1]);
	float scale[GW];
	struct tile w;

	lo = lo > t->lo ? lo : t->lo;
	hi = hi < t->hi ? hi : t->hi;
	if (lo >= hi)
		return;
	for (int i = 0; i < GW; i++)
		scale[i] = p->a->scale;
	carve(&w, p, room);
	for (int32_t g = t->g0; g < t->g1; g++)
		pack_group(&w, &p->groups[g], h, gr, &w.group[g - t->g0]);
	for (int64_t kt = lo; kt < hi; kt++)
		key_tile(&w, p, t, kt, hk, gr);
	for (int32_t g = t->g0; g < t->g1; g++) {
		const struct lk_attn_group *pg = &p->groups[g];

		lk_unpack_columns((float *)row3(gr->dq, pg->q0, h), gr->dq->stride[0], w.group[g - t->g0].dqt, pg->n, w.d,
				  scale, 1);
	}
}

const struct lk_attn_bwd_hot LK_ISA_NAME(lk_attn_bwd_hot) = { GW, LK_VEC, BK, bwd_room, bwd };
