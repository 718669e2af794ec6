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
LK_INLINE void hide(const int nr, float *p, const struct lk_attn *a, const struct lk_attn_group *g, int64_t k0,
		    int64_t n)
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

/* One group against n keys from key k0, row `at` of the packed arrays: p and ds from element `to` on, and dq. */
LK_INLINE void by_query(const int nr, const struct tile *w, const struct lk_attn_group *g, const struct group *u,
			int64_t to, int64_t k0, int64_t at, int64_t n, int all)
{
	const float *k = w->keys->k + at * w->dp, *v = w->keys->v + at * w->dp;

	weights(nr, w->p + to, k, w, u, n);
	if (!all)
		hide(nr, w->p + to, w->a, g, k0, n);
	slopes(nr, w->ds + to, w->p + to, v, w, u, n);
	gather(nr, u->dqt, k, w, w->ds + to, n);
}

static int group_vectors(const struct lk_attn_group *g)
{
	return (g->n + LK_VEC - 1) / LK_VEC;
}

static void by_query_any(const struct tile *w, const struct lk_attn_group *g, const struct group *u, int64_t to,
			 int64_t k0, int64_t at, int64_t n, int all)
{
	switch (group_vectors(g)) {
	case 1: by_query(1, w, g, u, to, k0, at, n, all); break;
	case 2: by_query(2, w, g, u, to, k0, at, n, all); break;
	default: by_query(3, w, g, u, to, k0, at, n, all); break;
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

/* Keys that a group sees of a tile, as rows of the tile: [from, to), none if equal. */
struct span {
	int64_t from, to;
	int all; /* no mask is needed */
};

static struct span in_sight(const struct lk_attn *a, const struct lk_attn_group *g, const struct lk_attn_ktile *t)
{
	enum lk_attn_sight sight = lk_attn_sight_of(&g->sum, &t->sum, a->causal);
	int64_t k0 = t->k0, k1 = k0 + t->n;

	if (sight == LK_SEES_NONE)
		return (struct span){ 0, 0, 0 };
	if (sight == LK_SEES_SOME)
		lk_attn_trim(a, &g->sum, &k0, &k1);
	if (k0 == k1)
		return (struct span){ 0, 0, 0 };
	return (struct span){ (k0 - t->k0) / LK_ATTN_STEP * LK_ATTN_STEP, k1 - t->k0, sight == LK_SEES_ALL };
}

static void clear(const struct tile *w, int64_t col, int64_t from, int64_t to)
{
	for (int64_t i = from; i < to; i++) {
		memset(w->p + i * LDP + col, 0, sizeof(float) * GW);
		memset(w->ds + i * LDP + col, 0, sizeof(float) * GW);
	}
}

/* The unit of n groups from g, one or two, against what they see of a tile: the rows in all.from .. all.to. */
static void backward_unit(const struct tile *w, const struct lk_attn_group *g, const struct group *u, int n,
			  const struct span *see, const struct lk_attn_ktile *t)
{
	int64_t from = see[0].from, to = see[0].to, end, depth = 0, at;

	for (int i = 1; i < n; i++) {
		from = see[i].from < from ? see[i].from : from;
		to = see[i].to > to ? see[i].to : to;
	}
	end = lk_round_up(to, LK_ATTN_STEP) - from; // the last register block of dK, dV hangs over: it must add nothing
	for (int i = 0; i < n; i++) {
		struct span s = see[i];

		by_query_any(w, &g[i], &u[i], (s.from - from) * LDP + depth, t->k0 + s.from, t->at + s.from,
			     s.to - s.from, s.all);
		clear(w, depth, 0, s.from - from);
		clear(w, depth, s.to - from, end);
		depth += group_vectors(&g[i]) * LK_VEC;
	}
	at = (t->at + from) * w->dp;
	by_key_any(w->keys->dv + at, w->p, u->dout, w->dp, to - from, depth);
	by_key_any(w->keys->dk + at, w->ds, u->q, w->dp, to - from, depth);
}

static void look_ahead(const struct tile *w, const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t kt,
		       int64_t hi)
{
	const struct lk_attn_keys *keys = w->keys;
	const struct lk_attn_ktile *next = &p->ktiles[kt + 1];
	int64_t at, blocks = (t->g1 - t->g0) * (BK / MR) * 2;

	*w->ahead = (struct lk_ahead){ .n = 0 };
	if (kt + 1 >= hi)
		return;
	at = next->at * w->dp;
	*w->ahead = (struct lk_ahead){ { keys->k + at, keys->v + at, keys->dk + at, keys->dv + at }, 4, next->n * w->dp,
				       lk_round_up(BK * w->dp / blocks, 16) };
}

static void key_tile(const struct tile *w, const struct lk_attn_plan *p, const struct lk_attn_qtile *t,
		     const struct lk_attn_ktile *kt)
{
	for (int32_t g = t->g0, n; g < t->g1; g += n) {
		const struct lk_attn_group *gr = &p->groups[g];
		struct span see[2] = { in_sight(w->a, gr, kt) };

		n = 1;
		if (see[0].from == see[0].to)
			continue;
		if (g + 1 < t->g1 && group_vectors(gr) == NR) {
			see[1] = in_sight(w->a, gr + 1, kt);
			n += see[1].from < see[1].to;
		}
		backward_unit(w, gr, &w->group[g - t->g0], n, see, kt);
	}
}

static void open_keys(const struct lk_attn_plan *p, int64_t hk, int64_t lo, int64_t hi, const struct lk_attn_keys *keys)
{
	for (int64_t kt = lo; kt < hi; kt++) {
		const struct lk_attn_ktile *t = &p->ktiles[kt];
		int64_t at = t->at * p->dp;
		size_t bytes = sizeof(float) * (size_t)(lk_round_up(t->n, LK_ATTN_STEP) * p->dp);

		lk_pack_tile(keys->k + at, p->dp, &p->a->k, t, hk);
		lk_pack_tile(keys->v + at, p->dp, &p->a->v, t, hk);
		memset(keys->dk + at, 0, bytes);
		memset(keys->dv + at, 0, bytes);
	}
}

static void add_rows(const struct lk_view *y, int64_t hk, const struct lk_attn_ktile *t, const float *sum, int64_t dp)
{
	for (int64_t i = 0; i < t->n; i++, sum += dp) {
		float *row = (float *)lk_row3(y, t->k0 + i, hk);
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
	for (int64_t kt = lo; kt < hi; kt++) {
		const struct lk_attn_ktile *t = &p->ktiles[kt];

		add_rows(g->dk, hk, t, keys->dk + t->at * p->dp, p->dp);
		add_rows(g->dv, hk, t, keys->dv + t->at * p->dp, p->dp);
	}
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
		look_ahead(&w, p, t, kt, hi);
		key_tile(&w, p, t, &p->ktiles[kt]);
	}
	for (int32_t g = t->g0; g < t->g1; g++) {
		const struct lk_attn_group *pg = &p->groups[g];

		lk_unpack_columns((float *)lk_row3(gr->dq, pg->q0, h), gr->dq->stride[0], w.group[g - t->g0].dqt, pg->n,
				  w.d, scale, 1);
	}
}

const struct lk_attn_bwd_hot LK_ISA_NAME(lk_attn_bwd_hot) = { GW, LK_VEC, BK, bwd_room, open_keys, shut_keys, bwd };
