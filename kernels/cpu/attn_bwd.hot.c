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
	STEP = 24,                         /* where a run of keys may start: a multiple of MR and MROW, like BK */
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
	float *p, *ds;       /* (BK, LDP) */
	struct group *group; /* one per group */
	const struct lk_attn_keys *keys;
	struct lk_ahead *ahead;
};

static size_t group_floats(int64_t dp)
{
	return (size_t)(5 * dp * GW);
}

static size_t bwd_room(const struct lk_attn_plan *p)
{
	return sizeof(float) * (BK * 2 * LDP + (size_t)p->tile_groups * group_floats(p->dp)) +
	       (size_t)p->tile_groups * sizeof(struct group) + 64;
}

static void carve(struct tile *w, const struct lk_attn_plan *p, float *room)
{
	float *panels;

	w->a = p->a;
	w->d = p->a->q.n[2];
	w->dp = p->dp;
	w->p = room;
	w->ds = w->p + BK * LDP;
	panels = w->ds + BK * LDP;
	w->group = (struct group *)(panels + (size_t)p->tile_groups * group_floats(w->dp));
	// q and dout of all groups lie end to end, so that the rows of a unit do
	for (int i = 0; i < p->tile_groups; i++) {
		float *rows = panels + p->tile_groups * 3 * w->dp * GW;

		w->group[i].qt = panels + i * 3 * w->dp * GW;
		w->group[i].dot = w->group[i].qt + w->dp * GW;
		w->group[i].dqt = w->group[i].dot + w->dp * GW;
		w->group[i].q = rows + i * w->dp * GW;
		w->group[i].dout = rows + (p->tile_groups + i) * w->dp * GW;
	}
}

static void pack_group(const struct tile *w, const struct lk_attn_group *g, int64_t h, const struct lk_attn_grad *gr,
		       struct group *u)
{
	const struct lk_attn *a = w->a;
	int64_t nh = a->q.n[1];
	size_t rest = sizeof(float) * (size_t)((GW - g->n) * w->dp);

	lk_pack_columns(u->qt, lk_row3(&a->q, g->q0, h), a->q.stride[0], g->n, w->d, a->scale);
	lk_pack_columns(u->dot, lk_row3(gr->dout, g->q0, h), gr->dout->stride[0], g->n, w->d, 1.0f);
	lk_pack_rows(u->q, w->dp, lk_row3(&a->q, g->q0, h), a->q.stride[0], g->n, w->d, a->scale);
	lk_pack_rows(u->dout, w->dp, lk_row3(gr->dout, g->q0, h), gr->dout->stride[0], g->n, w->d, 1.0f);
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
		lk_ahead_step(w->ahead);
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
		lk_ahead_step(w->ahead);
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

/* Columns `col` of p and ds, and dq: one group against n keys from key k0. */
LK_INLINE void by_query(const int nr, const struct tile *w, const struct lk_attn_group *g, const struct group *u,
			int64_t col, int64_t k0, int64_t n, int all)
{
	const float *k = w->keys->k + k0 * w->dp, *v = w->keys->v + k0 * w->dp;

	weights(nr, w->p + col, k, w, u, n);
	if (!all)
		hide(nr, w->p + col, w->a, g, k0, n);
	slopes(nr, w->ds + col, w->p + col, v, w, u, n);
	gather(nr, u->dqt, k, w, w->ds + col, n);
}

static int vectors(const struct lk_attn_group *g)
{
	return (g->n + LK_VEC - 1) / LK_VEC;
}

static void by_query_any(const struct tile *w, const struct lk_attn_group *g, const struct group *u, int64_t col,
			 int64_t k0, int64_t n, int all)
{
	switch (vectors(g)) {
	case 1: by_query(1, w, g, u, col, k0, n, all); break;
	case 2: by_query(2, w, g, u, col, k0, n, all); break;
	default: by_query(3, w, g, u, col, k0, n, all); break;
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

/* The unit of groups [g0, g1), one or two, against keys [k0, k1). */
static void unit(const struct tile *w, const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int32_t g0,
		 int32_t g1, int64_t k0, int64_t k1, int all)
{
	int64_t n = k1 - k0, hang = lk_round_up(n, STEP) - n, depth = 0;
	const struct group *u = &w->group[g0 - t->g0];

	for (int32_t g = g0; g < g1; g++) {
		by_query_any(w, &p->groups[g], &w->group[g - t->g0], depth, k0, n, all);
		depth += vectors(&p->groups[g]) * LK_VEC;
	}
	// the last register block of dK, dV hangs over: those rows must add nothing
	memset(w->p + n * LDP, 0, sizeof(float) * (size_t)(hang * LDP));
	memset(w->ds + n * LDP, 0, sizeof(float) * (size_t)(hang * LDP));
	by_key_any(w->keys->dv + k0 * w->dp, w->p, u->dout, w->dp, n, depth);
	by_key_any(w->keys->dk + k0 * w->dp, w->ds, u->q, w->dp, n, depth);
}

/* Narrows keys [*k0, *k1) of tile kt to what some group of the unit sees; 1 if all of them see all of it. */
static int in_sight(const struct lk_attn_plan *p, int32_t g0, int32_t g1, int64_t kt, int64_t *k0, int64_t *k1)
{
	int64_t first = kt * BK, end = first + BK < p->a->ks->n ? first + BK : p->a->ks->n;
	int all = 1;

	*k0 = end;
	*k1 = first;
	for (int32_t g = g0; g < g1; g++) {
		enum lk_attn_sight sight = lk_attn_sight(&p->groups[g].sum, &p->ktiles[kt], p->a->causal);
		int64_t b = first, e = end;

		all = all && sight == LK_SEES_ALL;
		if (sight == LK_SEES_NONE)
			continue;
		if (sight == LK_SEES_SOME)
			lk_attn_trim(p->a, &p->groups[g].sum, &b, &e);
		if (b == e)
			continue;
		*k0 = b < *k0 ? b : *k0;
		*k1 = e > *k1 ? e : *k1;
	}
	*k0 -= (*k0 - first) % STEP;
	return all;
}

static void look_ahead(const struct tile *w, const struct lk_attn_qtile *t, int64_t kt, int64_t hi)
{
	const struct lk_attn_keys *keys = w->keys;
	int64_t at = (kt + 1) * BK * w->dp, blocks = (t->g1 - t->g0) * (BK / MR) * 2;

	*w->ahead = (struct lk_ahead){ .n = 0 };
	if (kt + 1 < hi)
		*w->ahead = (struct lk_ahead){ { keys->k + at, keys->v + at, keys->dk + at, keys->dv + at }, 4,
					       BK * w->dp, lk_round_up(BK * w->dp / blocks, 16) };
}

static void key_tile(const struct tile *w, const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t kt)
{
	for (int32_t g = t->g0, next; g < t->g1; g = next) {
		int64_t k0, k1;
		int all;

		next = g + 1 < t->g1 && vectors(&p->groups[g]) == NR ? g + 2 : g + 1;
		all = in_sight(p, g, next, kt, &k0, &k1);
		if (k0 < k1)
			unit(w, p, t, g, next, k0, k1, all);
	}
}

static void open_keys(const struct lk_attn_plan *p, int64_t hk, int64_t lo, int64_t hi, const struct lk_attn_keys *keys)
{
	for (int64_t kt = lo; kt < hi; kt++) {
		int64_t at = kt * BK * p->dp;
		size_t bytes = sizeof(float) * (size_t)(BK * p->dp);

		lk_pack_tile(keys->k + at, p->dp, &p->a->k, kt * BK, hk);
		lk_pack_tile(keys->v + at, p->dp, &p->a->v, kt * BK, hk);
		memset(keys->dk + at, 0, bytes);
		memset(keys->dv + at, 0, bytes);
	}
}

static void add_rows(const struct lk_view *y, int64_t hk, int64_t from, int64_t to, const float *x, int64_t dp)
{
	for (int64_t t = from; t < to; t++) {
		float *row = (float *)lk_row3(y, t, hk);
		const float *sum = x + t * dp;
		int64_t c = 0, d = y->n[2];

		for (; c + LK_VEC <= d; c += LK_VEC)
			lk_vstore(row + c, lk_vload(row + c) + lk_vload(sum + c));
		if (c < d)
			lk_vstore_n(row + c, lk_vload_n(row + c, d - c, 0.0f) + lk_vload(sum + c), d - c);
	}
}

static void shut_keys(const struct lk_attn_plan *p, int64_t hk, int64_t lo, int64_t hi, const struct lk_attn_keys *keys,
		      const struct lk_attn_grad *g)
{
	int64_t end = hi * BK < p->a->ks->n ? hi * BK : p->a->ks->n;

	add_rows(g->dk, hk, lo * BK, end, keys->dk, p->dp);
	add_rows(g->dv, hk, lo * BK, end, keys->dv, p->dp);
}

static void bwd(const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t h, int64_t lo, int64_t hi,
		const struct lk_attn_keys *keys, const struct lk_attn_grad *gr, float *room)
{
	struct lk_ahead ahead;
	struct tile w = { .keys = keys, .ahead = &ahead };
	float scale[GW];

	lo = lo > t->lo ? lo : t->lo;
	hi = hi < t->hi ? hi : t->hi;
	if (lo >= hi)
		return;
	for (int i = 0; i < GW; i++)
		scale[i] = p->a->scale;
	carve(&w, p, room);
	for (int32_t g = t->g0; g < t->g1; g++)
		pack_group(&w, &p->groups[g], h, gr, &w.group[g - t->g0]);
	for (int64_t kt = lo; kt < hi; kt++) {
		look_ahead(&w, t, kt, hi);
		key_tile(&w, p, t, kt);
	}
	for (int32_t g = t->g0; g < t->g1; g++) {
		const struct lk_attn_group *pg = &p->groups[g];

		lk_unpack_columns((float *)lk_row3(gr->dq, pg->q0, h), gr->dq->stride[0], w.group[g - t->g0].dqt, pg->n,
				  w.d, scale, 1);
	}
}

const struct lk_attn_bwd_hot LK_ISA_NAME(lk_attn_bwd_hot) = { GW, LK_VEC, BK, bwd_room, open_keys, shut_keys, bwd };
