/* conv_wino.hot.c - the transforms of Winograd's F(4x4,3x3) (Lavin & Gray 2016), vectors over channels.
 *
 * Toom-Cook at the points 0, +-A, +-B, infinity. One dimension, d the 6 inputs, g the 3 taps, m the 6 products:
 *	in:      (A2B2 d0 - (A2+B2) d2 + d4,  e1 +- o1,  e2 +- o2,  A2B2 d1 - (A2+B2) d3 + d5)
 *	         with e1 = d4 - B2 d2, o1 = A (d3 - B2 d1), e2 = d4 - A2 d2, o2 = B (d3 - A2 d1)
 *	weights: (g0 / A2B2,  (g0 +- A g1 + A2 g2) / NA,  (g0 +- B g1 + B2 g2) / NB,  g2)
 *	out:     row i = sum of m_p p^i over the finite points, and m5 added to row 3
 * Two dimensions: columns, then rows. The gradient of the weights is the same sum read backwards: the inputs as above,
 * dy through the transposed `out`, their products through the transposed `weights`.
 */
#include "kernels/cpu/image_int.h"
#include "kernels/cpu/vmath.h"

/* Exact in fp32 with all that is made of them; half the error of the usual points 1 and 2. */
#define WA 0.75
#define WB 1.5
#define A1 ((float)(WA))
#define B1 ((float)(WB))
#define A2 ((float)(WA * WA))
#define B2 ((float)(WB * WB))
#define A3 ((float)(WA * WA * WA))
#define B3 ((float)(WB * WB * WB))
#define A2B2 ((float)(WA * WA * WB * WB))
#define SUM2 ((float)(WA * WA + WB * WB))
#define NA (2 * WA * WA * (WA * WA - WB * WB))
#define NB (2 * WB * WB * (WB * WB - WA * WA))

/* s, t: six vectors, ss and ts apart */
static inline __attribute__((always_inline)) void in6(const vf *s, int ss, vf *t, int ts)
{
	vf d1 = s[ss], d2 = s[2 * ss], d3 = s[3 * ss], d4 = s[4 * ss];
	vf e1 = d4 - d2 * B2, o1 = d3 - d1 * B2, e2 = d4 - d2 * A2, o2 = d3 - d1 * A2;

	t[0] = s[0] * A2B2 + (d4 - d2 * SUM2);
	t[ts] = e1 + o1 * A1;
	t[2 * ts] = e1 - o1 * A1;
	t[3 * ts] = e2 + o2 * B1;
	t[4 * ts] = e2 - o2 * B1;
	t[5 * ts] = d1 * A2B2 + (s[5 * ss] - d3 * SUM2);
}

static inline __attribute__((always_inline)) void out4(const vf *m, int ms, vf *t, int ts)
{
	vf s1 = m[ms] + m[2 * ms], d1 = m[ms] - m[2 * ms], s2 = m[3 * ms] + m[4 * ms], d2 = m[3 * ms] - m[4 * ms];

	t[0] = m[0] + s1 + s2;
	t[ts] = d1 * A1 + d2 * B1;
	t[2 * ts] = s1 * A2 + s2 * B2;
	t[3 * ts] = m[5 * ms] + (d1 * A3 + d2 * B3);
}

static inline __attribute__((always_inline)) void weight6(const vf *g, int gs, vf *t, int ts)
{
	vf ea = (g[0] + g[2 * gs] * A2) * (float)(1 / NA), oa = g[gs] * (float)(WA / NA);
	vf eb = (g[0] + g[2 * gs] * B2) * (float)(1 / NB), ob = g[gs] * (float)(WB / NB);

	t[0] = g[0] * (float)(1 / (WA * WA * WB * WB));
	t[ts] = ea + oa;
	t[2 * ts] = ea - oa;
	t[3 * ts] = eb + ob;
	t[4 * ts] = eb - ob;
	t[5 * ts] = g[2 * gs];
}

static inline vf load(const float *p, int64_t left)
{
	return left >= LK_VEC ? lk_vload(p) : lk_vload_n(p, left, 0.0f);
}

static inline void store(float *p, vf v, int64_t left)
{
	if (left >= LK_VEC)
		lk_vstore(p, v);
	else
		lk_vstore_n(p, v, left);
}

/* LK_VEC channels (the first `left` of them exist) of one tile. The tile to the right comes next: what it sees and this
 * one does not is fetched ahead. */
static inline __attribute__((always_inline)) void chunk_in(const float *const *px, int64_t c, int64_t i, int64_t left,
							   float *v, int64_t vs)
{
	vf t[36];

#pragma GCC unroll 6
	for (int q = 0; q < 6; q++) {
		vf d[6];
#pragma GCC unroll 6
		for (int r = 0; r < 6; r++) {
			d[r] = load(px[6 * r + q] + i, left);
			if (q >= 2)
				__builtin_prefetch(px[6 * r + q] + 4 * c + i);
		}
		in6(d, 1, t + q, 6);
	}
#pragma GCC unroll 6
	for (int q = 0; q < 6; q++, v += 6 * vs) {
		float *v3 = v + 3 * vs;
		vf d[6];
		in6(t + 6 * q, 1, d, 1);
		lk_vstore(v, d[0]);
		lk_vstore(v + vs, d[1]);
		lk_vstore(v + 2 * vs, d[2]);
		lk_vstore(v3, d[3]);
		lk_vstore(v3 + vs, d[4]);
		lk_vstore(v3 + 2 * vs, d[5]);
	}
}

/* One tile: px its 36 pixels, c channels each. Value q goes to v + q vs; rows of v are padded to whole vectors. */
static void tile_in(const float *const *px, int64_t c, float *v, int64_t vs)
{
	int64_t i = 0;

	for (; i + LK_VEC <= c; i += LK_VEC)
		chunk_in(px, c, i, LK_VEC, v + i, vs);
	if (i < c)
		chunk_in(px, c, i, c - i, v + i, vs);
}

/* LK_VEC channels of one tile back; s becomes its 16 pixels. */
static inline __attribute__((always_inline)) void chunk_out(const float *m, int64_t ms, vf *s)
{
	vf t[24];

#pragma GCC unroll 6
	for (int q = 0; q < 6; q++) {
		const float *p = m + q * ms;
		vf d[6];
#pragma GCC unroll 6
		for (int r = 0; r < 6; r++, p += 6 * ms)
			d[r] = lk_vload(p);
		out4(d, 1, t + q, 6);
	}
#pragma GCC unroll 4
	for (int q = 0; q < 4; q++)
		out4(t + 6 * q, 1, s + 4 * q, 1);
}

/* Where a tile goes: y (rows,cols <= 4), its pixels n apart and its lines ly apart, = bias + add + s. */
static inline __attribute__((always_inline)) void put(const vf *s, int64_t i, int64_t n, int64_t left, float *y,
						      int64_t ly, const int rows, const int cols, vf b,
						      const float *add)
{
#pragma GCC unroll 4
	for (int q = 0; q < rows; q++) {
#pragma GCC unroll 4
		for (int r = 0; r < cols; r++) {
			int64_t at = q * ly + r * n + i;
			vf o = s[4 * q + r] + b;
			if (add) {
				o += load(add + at, left);
				__builtin_prefetch(add + at + 4 * n);
			}
			store(y + at, o, left);
			__builtin_prefetch(y + at + 4 * n, 1);
		}
	}
}

static void tile_out(const float *m, int64_t ms, int64_t n, float *y, int64_t ly, int rows, int cols,
		     const float *bias, const float *add)
{
	int64_t i = 0;
	vf s[16];

	for (; rows == 4 && cols == 4 && i + LK_VEC <= n; i += LK_VEC) {
		vf b = bias ? lk_vload(bias + i) : (vf){ 0 };
		chunk_out(m + i, ms, s);
		if (add)
			put(s, i, n, LK_VEC, y, ly, 4, 4, b, add);
		else
			put(s, i, n, LK_VEC, y, ly, 4, 4, b, NULL);
	}
	for (; i < n; i += LK_VEC) {
		chunk_out(m + i, ms, s);
		put(s, i, n, n - i, y, ly, rows, cols, bias ? load(bias + i, n - i) : (vf){ 0 }, add);
	}
}

/* w (3,3,cin,cout), rows [r0, r1) of cin: into 36 packed matrices us floats apart, panels of cin rows. */
static void weights_in(const float *w, int64_t cin, int64_t cout, int64_t r0, int64_t r1, float *u, int64_t us)
{
	for (int64_t r = r0; r < r1; r++) {
		for (int64_t i = 0; i < lk_round_up(cout, 2 * LK_VEC); i += LK_VEC) {
			float *to = u + i / (2 * LK_VEC) * cin * 2 * LK_VEC + r * 2 * LK_VEC + i % (2 * LK_VEC);
			vf g[9], t[18], o[36];
			for (int q = 0; q < 9; q++)
				g[q] = i < cout ? load(w + (q * cin + r) * cout + i, cout - i) : (vf){ 0 };
			for (int q = 0; q < 3; q++)
				weight6(g + q, 3, t + q, 3);
			for (int q = 0; q < 6; q++)
				weight6(t + 3 * q, 1, o + 6 * q, 1);
			for (int q = 0; q < 36; q++)
				lk_vstore(to + q * us, o[q]);
		}
	}
}

/* transposed out4: four values of dy to six */
static inline __attribute__((always_inline)) void dy6(const vf *s, int ss, vf *t, int ts)
{
	vf ea = s[0] + s[2 * ss] * A2, oa = s[ss] * A1 + s[3 * ss] * A3;
	vf eb = s[0] + s[2 * ss] * B2, ob = s[ss] * B1 + s[3 * ss] * B3;

	t[0] = s[0];
	t[ts] = ea + oa;
	t[2 * ts] = ea - oa;
	t[3 * ts] = eb + ob;
	t[4 * ts] = eb - ob;
	t[5 * ts] = s[3 * ss];
}

/* transposed weight6: six sums to three taps */
static inline __attribute__((always_inline)) void weight3(const vf *m, int ms, vf *t, int ts)
{
	vf sa = (m[ms] + m[2 * ms]) * (float)(1 / NA), da = (m[ms] - m[2 * ms]) * (float)(WA / NA);
	vf sb = (m[3 * ms] + m[4 * ms]) * (float)(1 / NB), db = (m[3 * ms] - m[4 * ms]) * (float)(WB / NB);

	t[0] = m[0] * (float)(1 / (WA * WA * WB * WB)) + sa + sb;
	t[ts] = da + db;
	t[2 * ts] = sa * A2 + sb * B2 + m[5 * ms];
}

/* One tile of dy: px its 16 pixels, n channels each. Value q goes to y + q ys, in panels of NR channels that lie ldp
 * floats apart; a ragged last panel is filled with zeros. */
static void tile_dy(const float *const *px, int64_t n, float *y, int64_t ys, int64_t ldp)
{
	for (int64_t i = 0; i < lk_round_up(n, 2 * LK_VEC); i += LK_VEC) {
		float *to = y + i / (2 * LK_VEC) * ldp + i % (2 * LK_VEC);
		vf d[16], t[24], o[36];
		for (int q = 0; q < 16; q++) {
			d[q] = i < n ? load(px[q] + i, n - i) : (vf){ 0 };
			__builtin_prefetch(px[q] + 4 * n + i);
		}
#pragma GCC unroll 4
		for (int q = 0; q < 4; q++)
			dy6(d + q, 4, t + q, 4);
#pragma GCC unroll 6
		for (int q = 0; q < 6; q++)
			dy6(t + 4 * q, 1, o + 6 * q, 1);
		for (int q = 0; q < 36; q++)
			lk_vstore(to + q * ys, o[q]);
	}
}

/* dw (3,3,cin,cout), rows [r0, r1) of cin, += transformed du: 36 matrices (cin,ldu), us floats apart. */
static void weights_out(float *dw, const float *du, int64_t us, int64_t ldu, int64_t cin, int64_t cout, int64_t r0,
			int64_t r1)
{
	for (int64_t r = r0; r < r1; r++) {
		for (int64_t i = 0; i < cout; i += LK_VEC) {
			vf m[36], t[18], o[9];
			for (int q = 0; q < 36; q++)
				m[q] = load(du + q * us + r * ldu + i, cout - i);
			for (int q = 0; q < 6; q++)
				weight3(m + q, 6, t + q, 6);
			for (int q = 0; q < 3; q++)
				weight3(t + 6 * q, 1, o + 3 * q, 1);
			for (int q = 0; q < 9; q++) {
				float *to = dw + (q * cin + r) * cout + i;
				store(to, load(to, cout - i) + o[q], cout - i);
			}
		}
	}
}

const struct lk_image_wino LK_ISA_NAME(lk_image_wino) = { tile_in, tile_out, weights_in, tile_dy, weights_out };
