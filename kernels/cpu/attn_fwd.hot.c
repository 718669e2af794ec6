/* attn_fwd.hot.c - forward attention of one query tile: online softmax over the key tiles in sight.
 *
 * Per group of queries and key tile: scores S = K Q^T (key, query), maximum, P = exp(S - max), O^T = O^T * alpha + V^T P.
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
	int64_t d, dp;      /* dp: rounded up to whole vectors */
	float *k, *v;       /* (BK + MR, dp) packed key tile */
	float *s;           /* (BK + MR, GW) scores, then weights */
	struct state *st;
	float *panels;
};

static size_t fwd_room(const struct lk_attn_plan *p)
{
	int64_t dp = lk_round_up(p->a->q.n[2], LK_VEC), tile = (BK + MR) * (2 * dp + GW);

	return sizeof(float) * (size_t)(tile + p->tile_groups * 2 * dp * GW) +
	       (size_t)lk_round_up(p->tile_groups * (int64_t)sizeof(struct state), 64) + 64;
}

static void carve(struct tile *w, const struct lk_attn_plan *p, float *room)
{
	w->d = p->a->q.n[2];
	w->dp = lk_round_up(w->d, LK_VEC);
	w->k = room;
	w->v = w->k + (BK + MR) * w->dp;
	w->s = w->v + (BK + MR) * w->dp;
	w->panels = w->s + (BK + MR) * GW;
	w->st = (struct state *)(w->panels + p->tile_groups * 2 * w->dp * GW);
	for (int i = 0; i < p->tile_groups; i++) {
		w->st[i].qt = w->panels + 2 * i * w->dp * GW;
		w->st[i].ot = w->st[i].qt + w->dp * GW;
	}
}

/* s (n rounded up to MR, GW) = K Q^T; top = the larger of it and the scores. */
LK_INLINE void scores(const int nr, float *s, const float *k, int64_t ldk, const float *qt, int64_t n, int64_t d, vf *top)
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
	}
}

/* Hides from s what is not to be seen and finds the maximum again. */
LK_INLINE void hide(const int nr, float *s, const struct lk_attn *a, const struct lk_lanes *lanes, int64_t k0, int64_t n,
		    vf *top)
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

/* Keys [k0, k1) of the packed tile that starts at key `first`. */
LK_INLINE void fold(const int nr, const struct tile *w, const struct lk_attn_plan *p, const struct lk_attn_group *g,
		    struct state *st, int64_t first, int64_t k0, int64_t k1, int all)
{
	vf top[NR], alpha[NR];
	const float *k = w->k + (k0 - first) * w->dp, *v = w->v + (k0 - first) * w->dp;

	for (int j = 0; j < nr; j++)
		top[j] = lk_vset(-INFINITY);
	scores(nr, w->s, k, w->dp, st->qt, k1 - k0, w->d, top);
	if (!all) {
		struct lk_lanes lanes;

		lk_lanes_load(&lanes, p->a->qs, g);
		hide(nr, w->s, p->a, &lanes, k0, k1 - k0, top);
	}
	weights(nr, w->s, st, k1 - k0, top, alpha);
	gather(nr, st->ot, v, w->dp, w->s, k1 - k0, w->d, alpha);
}

static void fold_any(const struct tile *w, const struct lk_attn_plan *p, const struct lk_attn_group *g, struct state *st,
		     int64_t first, int64_t k0, int64_t k1, int all)
{
	switch ((g->n + LK_VEC - 1) / LK_VEC) {
	case 1: fold(1, w, p, g, st, first, k0, k1, all); break;
	case 2: fold(2, w, p, g, st, first, k0, k1, all); break;
	default: fold(3, w, p, g, st, first, k0, k1, all); break;
	}
}

static void fold_tile(const struct tile *w, const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t kt,
		      int64_t hk)
{
	const struct lk_attn *a = p->a;
	int64_t first = kt * BK, end = first + BK < a->ks->n ? first + BK : a->ks->n;
	int packed = 0;

	for (int32_t g = t->g0; g < t->g1; g++) {
		const struct lk_attn_group *gr = &p->groups[g];
		enum lk_attn_sight sight = lk_attn_sight(&gr->sum, &p->ktiles[kt], a->causal);
		int64_t k0 = first, k1 = end;

		if (sight == LK_SEES_SOME || end - first < BK) {
			sight = LK_SEES_SOME; // a short tile's last register block holds rows that are no keys
			lk_attn_trim(a, &gr->sum, &k0, &k1);
		}
		if (sight == LK_SEES_NONE || k0 == k1)
			continue;
		if (!packed) {
			const float *k = (const float *)a->k.data + first * a->k.stride[0] + hk * a->k.stride[1];
			const float *v = (const float *)a->v.data + first * a->v.stride[0] + hk * a->v.stride[1];

			lk_pack_rows(w->k, w->dp, k, a->k.stride[0], end - first, w->d, 1.0f);
			lk_pack_rows(w->v, w->dp, v, a->v.stride[0], end - first, w->d, 1.0f);
			packed = 1;
		}
		fold_any(w, p, gr, &w->st[g - t->g0], first, k0, k1, sight == LK_SEES_ALL);
	}
}

static void open_group(const struct tile *w, const struct lk_attn *a, const struct lk_attn_group *g, int64_t h,
		       const struct lk_attn_out *out, struct state *st)
{
	const float *q = (const float *)a->q.data + g->q0 * a->q.stride[0] + h * a->q.stride[1];
	int64_t nh = a->q.n[1], r = g->q0 * nh + h;

	lk_pack_columns(st->qt, q, a->q.stride[0], g->n, w->d, a->scale);
	for (int i = 0; i < GW; i++) {
		int carried = out->st && i < g->n;

		st->m[i] = carried ? out->st->m[r + i * nh] * LOG2E : -INFINITY;
		st->l[i] = carried ? out->st->l[r + i * nh] : 0.0f;
	}
	if (out->st)
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
		lk_unpack_columns((float *)out->o->data + g->q0 * out->o->stride[0] + h * out->o->stride[1],
				  out->o->stride[0], st->ot, g->n, w->d, scale, 0);
}

static void fwd(const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t h, const struct lk_attn_out *out,
		float *room)
{
	const struct lk_attn *a = p->a;
	struct tile w;

	if (out->st && t->lo == t->hi)
		return; // nothing to fold in
	carve(&w, p, room);
	for (int32_t g = t->g0; g < t->g1; g++)
		open_group(&w, a, &p->groups[g], h, out, &w.st[g - t->g0]);
	for (int64_t kt = t->lo; kt < t->hi; kt++)
		fold_tile(&w, p, t, kt, h / (a->q.n[1] / a->k.n[1]));
	for (int32_t g = t->g0; g < t->g1; g++)
		close_group(&w, a, &p->groups[g], h, out, &w.st[g - t->g0]);
}

const struct lk_attn_fwd_hot LK_ISA_NAME(lk_attn_fwd_hot) = { GW, LK_VEC, BK, fwd_room, fwd };
