/* attn_mk.h - the register block of every product in attention, and the packing around it. Only for attn_*.hot.c.
 *
 * mr x nr accumulators (nr vectors wide) stay in registers over the whole depth; mr and nr are constants where this is
 * inlined. Per step nr vector loads and mr broadcasts feed mr * nr FMAs: with 8 x 3 the two load ports of a current
 * core are used less than half while both FMA ports are full.
 */
#ifndef LK_CPU_ATTN_MK_H
#define LK_CPU_ATTN_MK_H

#include "kernels/cpu/attn_int.h"
#include "kernels/cpu/vmath.h"

#define LK_INLINE static inline __attribute__((always_inline))

enum {
	NR = 3,               /* vectors across a group */
	GW = NR * LK_VEC,     /* queries of a group */
	MR = LK_VEC == 16 ? 8 : 4, /* 24 of 32 registers, 12 of 16 */
	BK = 96,              /* most keys of a tile, a multiple of LK_ATTN_STEP */
};

/* acc[i][j] += sum over k < n of a[i ai + k ak] * b[k ldb + vector j], n >= 1. */
LK_INLINE void lk_mk(const int mr, const int nr, vf *acc, const float *restrict a, int64_t ai, int64_t ak,
		     const float *restrict b, int64_t ldb, int64_t n)
{
	int64_t k = 0;

	// a loop that may run no turn makes gcc keep a second copy of the accumulators in memory; a loop of few turns
	// ends where branch predictors expect it
#pragma GCC unroll 4
	do {
		vf row[4];

#pragma GCC unroll 4
		for (int j = 0; j < nr; j++)
			row[j] = lk_vload(b + k * ldb + j * LK_VEC);
#pragma GCC unroll 8
		for (int i = 0; i < mr; i++) {
			float x = a[i * ai + k * ak];

#pragma GCC unroll 4
			for (int j = 0; j < nr; j++)
				acc[i * nr + j] += x * row[j];
		}
	} while (++k < n);
}

static inline int64_t lk_round_up(int64_t n, int64_t to)
{
	return (n + to - 1) / to * to;
}

/* y (n, ldy) = scale * x, rows sx apart, zeros after column d up to ldy (a multiple of LK_VEC). */
static inline void lk_pack_rows(float *y, int64_t ldy, const float *x, int64_t sx, int64_t n, int64_t d, float scale)
{
	for (int64_t i = 0; i < n; i++, y += ldy, x += sx) {
		int64_t c = 0;

		for (; c + LK_VEC <= d; c += LK_VEC)
			lk_vstore(y + c, scale * lk_vload(x + c));
		if (c < d)
			lk_vstore(y + c, scale * lk_vload_n(x + c, d - c, 0.0f));
	}
}

/* Packed rows that are wanted next, in up to four arrays: their lines are asked for a few at a time, between register
 * blocks. All at once they would be waited for. */
struct lk_ahead {
	const float *at[4];
	int n;
	int64_t left, step; /* floats to go, and at a time */
};

static inline void lk_ahead_step(struct lk_ahead *x)
{
	int64_t now = x->step < x->left ? x->step : x->left;

	for (int i = 0; i < x->n; i++) {
		for (int64_t c = 0; c < now; c += 16)
			__builtin_prefetch(x->at[i] + c, 0, 2);
		x->at[i] += now;
	}
	x->left -= now;
}

static inline const float *lk_row3(const struct lk_view *v, int64_t t, int64_t h)
{
	return (const float *)v->data + t * v->stride[0] + h * v->stride[1];
}

/* y = the keys of tile t in head h, zeros up to a multiple of LK_ATTN_STEP. */
static inline void lk_pack_tile(float *y, int64_t dp, const struct lk_view *x, const struct lk_attn_ktile *t, int64_t h)
{
	int64_t rest = lk_round_up(t->n, LK_ATTN_STEP) - t->n;

	lk_pack_rows(y, dp, lk_row3(x, t->k0, h), x->stride[0], t->n, x->n[2], 1.0f);
	memset(y + t->n * dp, 0, sizeof(float) * (size_t)(rest * dp));
}

/* Transposes the LK_VEC x LK_VEC block in r by swapping ever larger corners. */
LK_INLINE void lk_transpose(vf *r)
{
#pragma GCC unroll 4
	for (int w = 1; w < LK_VEC; w *= 2) {
		vi lo = { 0 }, hi = { 0 };

#pragma GCC unroll 16
		for (int l = 0; l < LK_VEC; l++) {
			lo[l] = l & w ? LK_VEC + l - w : l;
			hi[l] = l & w ? LK_VEC + l : l + w;
		}
#pragma GCC unroll 16
		for (int i = 0; i < LK_VEC; i++) {
			if (i & w)
				continue;
			vf x = r[i], y = r[i + w];

			r[i] = __builtin_shuffle(x, y, lo);
			r[i + w] = __builtin_shuffle(x, y, hi);
		}
	}
}

/* y (d, GW) = scale * transpose of n <= GW rows of x; lanes n .. GW are zero. */
static inline void lk_pack_columns(float *restrict y, const float *x, int64_t sx, int64_t n, int64_t d, float scale)
{
	for (int64_t q = 0; q < GW; q += LK_VEC) {
		for (int64_t c = 0; c < d; c += LK_VEC) {
			int64_t w = d - c < LK_VEC ? d - c : LK_VEC;
			vf r[LK_VEC];

			for (int i = 0; i < LK_VEC; i++) {
				r[i] = (vf){ 0 };
				if (q + i < n)
					r[i] = w == LK_VEC ? lk_vload(x + (q + i) * sx + c)
							   : lk_vload_n(x + (q + i) * sx + c, w, 0.0f);
			}
			lk_transpose(r);
			for (int i = 0; i < w; i++)
				lk_vstore(y + (c + i) * GW + q, scale * r[i]);
		}
	}
}

/* n rows of x (+)= transpose of scale[lane] * y (d, GW). */
static inline void lk_unpack_columns(float *x, int64_t sx, const float *y, int64_t n, int64_t d, const float *scale,
				     int add)
{
	for (int64_t q = 0; q < n; q += LK_VEC) {
		for (int64_t c = 0; c < d; c += LK_VEC) {
			int64_t w = d - c < LK_VEC ? d - c : LK_VEC, rows = n - q < LK_VEC ? n - q : LK_VEC;
			vf r[LK_VEC], s = lk_vload(scale + q);

			for (int i = 0; i < LK_VEC; i++)
				r[i] = i < w ? s * lk_vload(y + (c + i) * GW + q) : (vf){ 0 };
			lk_transpose(r);
			for (int i = 0; i < rows; i++) {
				float *to = x + (q + i) * sx + c;

				if (w == LK_VEC)
					lk_vstore(to, add ? lk_vload(to) + r[i] : r[i]);
				else
					lk_vstore_n(to, add ? lk_vload_n(to, w, 0.0f) + r[i] : r[i], w);
			}
		}
	}
}

/* 2^x. Polynomial of degree 5, relative error 7.5e-8 before rounding; -inf gives 0. */
LK_INLINE vf lk_exp2(vf x)
{
#if LK_VEC == 16
	vf r = (vf)_mm512_reduce_ps((__m512)x, 0x09); // x - floor(x), 0 for -inf
	vf p = 0.00187757669f * r + 0.00898933969f;
#else
	const vf magic = lk_vset(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer kept in the low bits
	vf c = lk_vmax(lk_vset(-126.0f), x), t = c + magic, r = c - (t - magic);
	vf p = 0.00132764725f * r + 0.00967554096f;
#endif

#if LK_VEC == 16
	p = p * r + 0.0558263175f;
	p = p * r + 0.240153611f;
	p = p * r + 0.693153083f;
	p = p * r + 0.99999994f;
	return (vf)_mm512_scalef_ps((__m512)p, (__m512)x);
#else
	p = p * r + 0.0555071309f;
	p = p * r + 0.240221202f;
	p = p * r + 0.693146944f;
	p = p * r + 1.00000012f;
	return (vf)(((vi)p + ((vi)t << 23)) & ~(x < -126.0f));
#endif
}

/* The queries' side of the mask, one lane per query. */
struct lk_lanes {
	vi pos[NR], seg[NR];
};

static inline void lk_lanes_load(struct lk_lanes *m, const struct lk_seq *qs, const struct lk_attn_group *g)
{
	int32_t pos[GW], seg[GW];

	for (int i = 0; i < GW; i++) {
		pos[i] = i < g->n ? qs->pos[g->q0 + i] : 0;
		seg[i] = i < g->n && qs->seg[g->q0 + i] >= 0 ? qs->seg[g->q0 + i] : -1;
	}
	memcpy(m->pos, pos, sizeof pos);
	memcpy(m->seg, seg, sizeof seg);
}

/* -1 where the query of vector j sees key s */
LK_INLINE vi lk_lanes_see(const struct lk_lanes *m, int j, const struct lk_seq *ks, int64_t s, int causal)
{
	int32_t seg = ks->seg[s] < 0 ? -2 : ks->seg[s]; // never equal to a query's
	vi yes = m->seg[j] == seg;

	return causal ? yes & (m->pos[j] >= ks->pos[s]) : yes;
}

#endif
