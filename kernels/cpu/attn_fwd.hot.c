/* attn_fwd.hot.c - forward attention of one query tile: online softmax over the key tiles in sight.
 *
 * Per group of queries and key tile: scores S = K Q^T (key, query), maximum, P = exp(S - max),
 * O^T = O^T * alpha + V^T P.
 * The running maximum is kept times log2(e), so that exp is one FMA and a power of two.
 */
#include <math.h>

#include "kernels/cpu/attn_mk.h"

static const float LOG2E = 1.44269504088896341f, LN2 = 0.693147180559945309f;

/* What belongs to one group while its tile is worked on. */
struct state {
	float *qt; /* (D, GW), scaled */
	float *ot; /* (DP, GW) unnormalised output */
	float m[GW], l[GW]; /* m in units of log 2 */
};

struct tile {
	int64_t d, dp;
	float *k, *v;       /* (BK + MR, dp) packed key tile, where nobody packed them all */
	float *s;           /* (BK + MR, GW) scores, then weights */
	struct state *st;   /* one per group */
	struct lk_ahead *ahead;
};

static size_t fwd_room(const struct lk_attn_plan *p)
{
	int64_t dp = p->dp, tile = (BK + MR) * (2 * dp + GW);

	return sizeof(float) * (size_t)(tile + p->tile_groups * 2 * dp * GW) +
	       (size_t)lk_round_up(p->tile_groups * (int64_t)sizeof(struct state), 64) + 64;
}

static void carve(struct tile *w, const struct lk_attn_plan *p, float *room)
{
	float *panels;

	w->d = p->a->q.n[2];
	w->dp = p->dp;
	w->k = room;
	w->v = w->k + (BK + MR) * w->dp;
	w->s = w->v + (BK + MR) * w->dp;
	panels = w->s + (BK + MR) * GW;
	w->st = (struct state *)(panels + p->tile_groups * 2 * w->dp * GW);
	for (int i = 0; i < p->tile_groups; i++) {
		w->st[i].qt = panels + 2 * i * w->dp * GW;
		w->st[i].ot = w->st[i].qt + w->dp * GW;
	}
}

/* s (n rounded up to MR, GW) = K Q^T; top = the larger of it and the scores. */
LK_INLINE void scores(const int nr, float *s, const float *k, int64_t ldk, const float *qt, int64_t n, int64_t d,
		      vf *top, struct lk_ahead *ahead)
{
	for (int64_t i = 0; i < n; i += MR) {
		vf acc[MR * NR];

#pragma GCC unroll 32
		for (int e = 0; e < MR * nr; e++)
			acc[e] = (vf){ 0 };
		lk_mk(MR, nr, acc, k + i * ldk, ldk, 1, qt, GW, d);
#pragma GCC unroll 32
		for (int e = 0; e < MR * nr; e++)
			lk_vstore(s + (i + e / nr) * GW + e % nr * LK_VEC, acc[e]);
#pragma GCC unroll 32
		for (int e = 0; e < MR * nr; e++)
			top[e % nr] = lk_vmax(top[e % nr], acc[e]);
		lk_ahead_step(ahead);
	}
}

/* Hides from s what is not to be seen and finds the maximum again. */
LK_INLINE void hide(const int nr, float *s, const struct lk_attn *a, const struct lk_lanes *lanes, int64_t k0,
		    int64_t n, vf *top)
{
	for (int j = 0; j < nr; j++)
		top[j] = lk_vset(-INFINITY);
	for (int64_t i = 0; i < n; i++) {
		for (int j = 0; j < nr; j++) {
			float *x = s + i * GW + j * LK_VEC;
			vf v = lk_vselect(lk_lanes_see(lanes, j, a->ks, k0 + i, a->causal), lk_vload(x),
					  lk_vset(-INFINITY));

			lk_vstore(x, v);
			top[j] = lk_vmax(top[j], v);
		}
	}
}

/* s = exp(s - m) with the new maximum; alpha = what the old sums shrink by. */
LK_INLINE void weights(const int nr, float *s, struct state *st, int64_t n, const vf *top, vf *alpha)
{
	vf base[NR], sum[NR];

#pragma GCC unroll 4
	for (int j = 0; j < nr; j++) {
		vf old = lk_vload(st->m + j * LK_VEC), now = lk_vmax(old, top[j] * LOG2E);

		base[j] = lk_vselect(now == -INFINITY, (vf){ 0 }, now);
		alpha[j] = lk_exp2(old - base[j]);
		sum[j] = (vf){ 0 };
		lk_vstore(st->m + j * LK_VEC, now);
	}
	for (int64_t i = 0; i < n; i++) {
#pragma GCC unroll 4
		for (int j = 0; j < nr; j++) {
			float *x = s + i * GW + j * LK_VEC;
			vf e = lk_exp2(lk_vload(x) * LOG2E - base[j]);

			sum[j] += e;
			lk_vstore(x, e);
		}
	}
#pragma GCC unroll 4
	for (int j = 0; j < nr; j++)
		lk_vstore(st->l + j * LK_VEC, lk_vload(st->l + j * LK_VEC) * alpha[j] + sum[j]);
}

/* ot (d rounded up to MR, GW) = ot * alpha + V^T s */
LK_INLINE void gather(const int nr, float *ot, const float *v, int64_t ldv, const float *s, int64_t n, int64_t d,
		      const vf *alpha)
{
	for (int64_t c = 0; c < d; c += MR) {
		vf acc[MR * NR];

#pragma GCC unroll 32
		for (int e = 0; e < MR * nr; e++)
			acc[e] = lk_vload(ot + (c + e / nr) * GW + e % nr * LK_VEC) * alpha[e % nr];
		lk_mk(MR, nr, acc, v + c, 1, ldv, s, GW, n);
#pragma GCC unroll 32
		for (int e = 0; e < MR * nr; e++)
			lk_vstore(ot + (c + e / nr) * GW + e % nr * LK_VEC, acc[e]);
	}
}

/* One group against n keys from key k0; k and v are their packed rows. */
LK_INLINE void fold(const int nr, const struct tile *w, const struct lk_attn *a, const struct lk_attn_group *g,
		    struct state *st, const float *k, const float *v, int64_t k0, int64_t n, int all)
{
	vf top[NR], alpha[NR];

	for (int j = 0; j < nr; j++)
		top[j] = lk_vset(-INFINITY);
	scores(nr, w->s, k, w->dp, st->qt, n, w->d, top, w->ahead);
	if (!all) {
		struct lk_lanes lanes;

		lk_lanes_load(&lanes, a->qs, g);
		hide(nr, w->s, a, &lanes, k0, n, top);
	}
	weights(nr, w->s, st, n, top, alpha);
	gather(nr, st->ot, v, w->dp, w->s, n, w->d, alpha);
}

static void fold_any(const struct tile *w, const struct lk_attn *a, const struct lk_attn_group *g, struct state *st,
		     const float *k, const float *v, int64_t k0, int64_t n, int all)
{
	switch ((g->n + LK_VEC - 1) / LK_VEC) {
	case 1: fold(1, w, a, g, st, k, v, k0, n, all); break;
	case 2: fold(2, w, a, g, st, k, v, k0, n, all); break;
	default: fold(3, w, a, g, st, k, v, k0, n, all); break;
	}
}

static void look_ahead(const struct tile *w, const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t kt,
		       const struct lk_attn_keys *keys)
{
	const struct lk_attn_ktile *next = &p->ktiles[kt + 1];
	int64_t blocks = (t->g1 - t->g0) * (BK / MR);

	*w->ahead = (struct lk_ahead){ .n = 0 };
	if (keys && kt + 1 < t->hi)
		*w->ahead = (struct lk_ahead){ { keys->k + next->at * w->dp, keys->v + next->at * w->dp }, 2,
					       next->n * w->dp, lk_round_up(BK * w->dp / blocks, 16) };
}

static void fold_tile(const struct tile *w, const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t kt,
		      int64_t hk, const struct lk_attn_keys *keys)
{
	const struct lk_attn *a = p->a;
	const struct lk_attn_ktile *tile = &p->ktiles[kt];
	const float *k = NULL, *v = NULL;

	for (int32_t g = t->g0; g < t->g1; g++) {
		const struct lk_attn_group *gr = &p->groups[g];
		enum lk_attn_sight sight = lk_attn_sight_of(&gr->sum, &tile->sum, a->causal);
		int64_t k0 = tile->k0, k1 = k0 + tile->n, off;

		if (sight == LK_SEES_NONE)
			continue;
		if (tile->n % MR)
			sight = LK_SEES_SOME; // the last register block holds rows that are no keys
		if (sight == LK_SEES_SOME)
			lk_attn_trim(a, &gr->sum, &k0, &k1);
		if (k0 == k1)
			continue;
		if (!k && keys) {
			k = keys->k + tile->at * w->dp;
			v = keys->v + tile->at * w->dp;
		} else if (!k) {
			lk_pack_tile(w->k, w->dp, &a->k, tile, hk);
			lk_pack_tile(w->v, w->dp, &a->v, tile, hk);
			k = w->k;
			v = w->v;
		}
		off = (k0 - tile->k0) * w->dp;
		fold_any(w, a, gr, &w->st[g - t->g0], k + off, v + off, k0, k1 - k0, sight == LK_SEES_ALL);
	}
}

static void open_group(const struct tile *w, const struct lk_attn *a, const struct lk_attn_group *g, int64_t h,
		       const struct lk_attn_out *out, struct state *st)
{
	int64_t nh = a->q.n[1], r = g->q0 * nh + h;
	int seen = 0;

	lk_pack_columns(st->qt, lk_row3(&a->q, g->q0, h), a->q.stride[0], g->n, w->d, a->scale);
	for (int i = 0; i < GW; i++) {
		int carried = out->st && i < g->n;

		st->m[i] = carried ? out->st->m[r + i * nh] * LOG2E : -INFINITY;
		st->l[i] = carried ? out->st->l[r + i * nh] : 0.0f;
		seen += st->m[i] > -INFINITY;
	}
	for (int i = 0; seen && seen < g->n && i < g->n; i++)
		if (st->m[i] == -INFINITY) // the row's sums were never written
			memset(out->st->acc + (r + i * nh) * w->d, 0, sizeof(float) * (size_t)w->d);
	if (seen)
		lk_pack_columns(st->ot, out->st->acc + r * w->d, nh * w->d, g->n, w->d, 1.0f);
	else
		memset(st->ot, 0, sizeof(float) * (size_t)(w->dp * GW));
}

static void close_group(const struct tile *w, const struct lk_attn *a, const struct lk_attn_group *g, int64_t h,
			const struct lk_attn_out *out, const struct state *st)
{
	int64_t nh = a->q.n[1], r = g->q0 * nh + h;
	float scale[GW];

	for (int i = 0; i < GW; i++)
		scale[i] = out->st ? 1.0f : st->l[i] > 0 ? 1.0f / st->l[i] : 0.0f;
	for (int i = 0; i < g->n; i++) {
		float m = st->m[i] * LN2;

		if (!out->st) {
			out->lse[r + i * nh] = st->l[i] > 0 ? m + logf(st->l[i]) : -INFINITY;
			continue;
		}
		if (m > -INFINITY) // what rounding takes from m goes into the sums
			scale[i] = exp2f(st->m[i] - m * LOG2E);
		out->st->m[r + i * nh] = m;
		out->st->l[r + i * nh] = st->l[i] * scale[i];
	}
	if (out->st)
		lk_unpack_columns(out->st->acc + r * w->d, nh * w->d, st->ot, g->n, w->d, scale, 0);
	else
		lk_unpack_columns((float *)lk_row3(out->o, g->q0, h), out->o->stride[0], st->ot, g->n, w->d, scale, 0);
}

static void pack(const struct lk_attn_plan *p, int64_t hk, int64_t kt, const struct lk_attn_keys *keys)
{
	const struct lk_attn_ktile *t = &p->ktiles[kt];

	lk_pack_tile(keys->k + t->at * p->dp, p->dp, &p->a->k, t, hk);
	lk_pack_tile(keys->v + t->at * p->dp, p->dp, &p->a->v, t, hk);
}

static void fwd(const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t h, const struct lk_attn_keys *keys,
		const struct lk_attn_out *out, float *room)
{
	const struct lk_attn *a = p->a;
	struct lk_ahead ahead;
	struct tile w = { .ahead = &ahead };

	if (out->st && t->lo == t->hi)
		return; // nothing to fold in
	carve(&w, p, room);
	for (int32_t g = t->g0; g < t->g1; g++)
		open_group(&w, a, &p->groups[g], h, out, &w.st[g - t->g0]);
	for (int64_t kt = t->lo; kt < t->hi; kt++) {
		look_ahead(&w, p, t, kt, keys);
		fold_tile(&w, p, t, kt, h / (a->q.n[1] / a->k.n[1]), keys);
	}
	for (int32_t g = t->g0; g < t->g1; g++)
		close_group(&w, a, &p->groups[g], h, out, &w.st[g - t->g0]);
}

const struct lk_attn_fwd_hot LK_ISA_NAME(lk_attn_fwd_hot) = { GW, LK_VEC, BK, fwd_room, pack, fwd };
