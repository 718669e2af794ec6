/* image_norm.hot.c - the loops over pixels and channels of group norm, the search for the nearest code, pixels, loss.
 *
 * Pixels are rows of c channels; vectors run over channels. Sums are fp32 over the few hundred pixels of a part; the
 * caller adds the parts in fp64.
 */
#include "kernels/cpu/image_int.h"
#include "kernels/cpu/vmath.h"

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

/* sum[j] = sum of x - shift, sq[j] = sum of its square; sum, sq are padded to whole vectors */
static void stats(const float *x, int64_t pixels, int64_t c, const float *shift, float *sum, float *sq)
{
	int64_t p = 0;

	memset(sum, 0, (size_t)c * sizeof *sum);
	memset(sq, 0, (size_t)c * sizeof *sq);
	for (; p < pixels; p += 4) {
		int64_t more = pixels - p < 4 ? pixels - p : 4;
		for (int64_t j = 0; j < c; j += LK_VEC) {
			vf k = load(shift + j, c - j), s = load(sum + j, c - j), q = load(sq + j, c - j);
			for (int64_t r = 0; r < more; r++) {
				vf d = load(x + (p + r) * c + j, c - j) - k;
				s += d;
				q += d * d;
			}
			store(sum + j, s, c - j);
			store(sq + j, q, c - j);
		}
	}
}

static void apply(float *y, const float *x, int64_t pixels, int64_t c, const struct lk_gn_coef *k, int silu)
{
	for (int64_t p = 0; p < pixels; p++, x += c, y += c) {
		for (int64_t j = 0; j < c; j += LK_VEC) {
			vf v = load(x + j, c - j) - load(k->mean + j, c - j);
			v = v * load(k->gain + j, c - j) + load(k->bias + j, c - j);
			store(y + j, silu ? v * lk_vsigmoid(v) : v, c - j);
		}
	}
}

static inline vf xhat(const float *x, int64_t j, int64_t c, const struct lk_gn_coef *k)
{
	return (load(x + j, c - j) - load(k->mean + j, c - j)) * load(k->rstd + j, c - j);
}

/* d becomes the gradient after the affine map (it may be dy); its sums are those of the two parameters. */
static void grad_sums(float *d, const float *dy, const float *x, int64_t pixels, int64_t c, const struct lk_gn_coef *k,
		      int silu, float *dscale, float *dbias)
{
	memset(dscale, 0, (size_t)c * sizeof *dscale);
	memset(dbias, 0, (size_t)c * sizeof *dbias);
	for (int64_t p = 0; p < pixels; p++, x += c, dy += c, d += c) {
		for (int64_t j = 0; j < c; j += LK_VEC) {
			vf g = load(dy + j, c - j), h = xhat(x, j, c, k);
			if (silu) {
				vf v = h * load(k->scale + j, c - j) + load(k->bias + j, c - j), s = lk_vsigmoid(v);
				g *= s * (1.0f + v * (1.0f - s));
			}
			store(d + j, g, c - j);
			store(dscale + j, load(dscale + j, c - j) + g * h, c - j);
			store(dbias + j, load(dbias + j, c - j) + g, c - j);
		}
	}
}

/* In place: d gain - m1 - xhat m2, where gain = rstd scale, and m1, m2 are the means over the group times rstd. */
static void grad_apply(float *d, const float *x, int64_t pixels, int64_t c, const struct lk_gn_coef *k, const float *m1,
		       const float *m2)
{
	for (int64_t p = 0; p < pixels; p++, x += c, d += c) {
		for (int64_t j = 0; j < c; j += LK_VEC) {
			vf g = load(d + j, c - j) * load(k->gain + j, c - j) - load(m1 + j, c - j);
			store(d + j, g - xhat(x, j, c, k) * load(m2 + j, c - j), c - j);
		}
	}
}

/* Codes (rows) against the columns of one panel: dot becomes |e|^2 - 2 dot; least: smallest of each column. */
static void distances(int64_t rows, const float *norm, float *dot, float *least)
{
	vf lo = lk_vset(__builtin_inff()), hi = lo;

	for (int64_t r = 0; r < rows; r++, dot += 2 * LK_VEC) {
		vf a = norm[r] - 2.0f * lk_vload(dot), b = norm[r] - 2.0f * lk_vload(dot + LK_VEC);
		lk_vstore(dot, a);
		lk_vstore(dot + LK_VEC, b);
		lo = lk_vmin(a, lo); // keeps lo where a is NaN
		hi = lk_vmin(b, hi);
	}
	lk_vstore(least, lo);
	lk_vstore(least + LK_VEC, hi);
}

static float sum_squares(const float *x, int64_t n)
{
	vf s = { 0 };

	for (int64_t j = 0; j < n; j += LK_VEC) {
		vf v = load(x + j, n - j);
		s += v * v;
	}
	return lk_vsum(s);
}

static void to_bytes(uint8_t *restrict y, const float *restrict x, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		float p = (x[i] + 1.0f) * 127.5f;
		p = p > 0.0f ? p : 0.0f; // NaN gives 0
		y[i] = (uint8_t)(int32_t)(p < 255.0f ? p : 255.0f);
	}
}

static void from_bytes(float *restrict y, const uint8_t *restrict x, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = (float)x[i] / 127.5f - 1.0f;
}

/* l[0] = sum |x-t|, l[1] = sum (x-t)^2; dx = c1 sign(x-t) + c2 (x-t) unless NULL */
static void loss(float *dx, const float *x, const float *t, int64_t n, float c1, float c2, double *l)
{
	vf s1 = { 0 }, s2 = { 0 }, zero = { 0 };

	for (int64_t i = 0; i < n; i += LK_VEC) {
		vf d = load(x + i, n - i) - load(t + i, n - i);
		vf sign = lk_vselect(d > zero, zero + 1.0f, lk_vselect(d < zero, zero - 1.0f, d));
		s1 += sign * d;
		s2 += d * d;
		if (dx)
			store(dx + i, c1 * sign + c2 * d, n - i);
	}
	l[0] = lk_vsum(s1);
	l[1] = lk_vsum(s2);
}

const struct lk_image_norm LK_ISA_NAME(lk_image_norm) = {
	stats, apply, grad_sums, grad_apply, distances, sum_squares, to_bytes, from_bytes, loss,
};
