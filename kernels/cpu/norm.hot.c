/* norm.hot.c - RMS norm, SwiGLU and rotation of one row. */
#include <math.h>

#include "kernels/cpu/dense_int.h"
#include "kernels/cpu/vmath.h"

/* x += delta (NULL: nothing) and the sum of squares of x. Four sums run side by side. */
static float add_and_square(float *x, const float *delta, int64_t d)
{
	vf s[4] = { { 0 } }, v;
	int64_t j = 0;

	for (; j + 4 * LK_VEC <= d; j += 4 * LK_VEC) {
		for (int k = 0; k < 4; k++) {
			v = lk_vload(x + j + k * LK_VEC);
			if (delta) {
				v += lk_vload(delta + j + k * LK_VEC);
				lk_vstore(x + j + k * LK_VEC, v);
			}
			s[k] += v * v;
		}
	}
	for (; j < d; j += LK_VEC) {
		int64_t left = d - j < LK_VEC ? d - j : LK_VEC;

		v = lk_vload_n(x + j, left, 0.0f);
		if (delta) {
			v += lk_vload_n(delta + j, left, 0.0f);
			lk_vstore_n(x + j, v, left);
		}
		s[0] += v * v;
	}
	return lk_vsum((s[0] + s[1]) + (s[2] + s[3]));
}

static void rms_fwd(float *y, float *rstd, float *x, const float *delta, const float *w, int64_t d, float eps)
{
	float r = (float)(1.0 / sqrt((double)add_and_square(x, delta, d) / (double)d + eps));
	int64_t j = 0;

	*rstd = r;
	for (; j + LK_VEC <= d; j += LK_VEC)
		lk_vstore(y + j, lk_vload(w + j) * (lk_vload(x + j) * r));
	for (; j < d; j++)
		y[j] = w[j] * (x[j] * r);
}

/* sum of w dy x */
static float dot3(const float *w, const float *dy, const float *x, int64_t d)
{
	vf s[2] = { { 0 } };
	int64_t j = 0;

	for (; j + 2 * LK_VEC <= d; j += 2 * LK_VEC) {
		s[0] += lk_vload(w + j) * lk_vload(dy + j) * lk_vload(x + j);
		s[1] += lk_vload(w + j + LK_VEC) * lk_vload(dy + j + LK_VEC) * lk_vload(x + j + LK_VEC);
	}
	for (; j < d; j += LK_VEC) {
		int64_t left = d - j < LK_VEC ? d - j : LK_VEC;

		s[0] += lk_vload_n(w + j, left, 0) * lk_vload_n(dy + j, left, 0) * lk_vload_n(x + j, left, 0);
	}
	return lk_vsum(s[0] + s[1]);
}

static void rms_bwd(float *dx, float *dw, const float *dy, const float *x, const float *w, float rstd, int64_t d)
{
	float mean = dot3(w, dy, x, d) * rstd * rstd / (float)d;
	int64_t j = 0;

	for (; j + LK_VEC <= d; j += LK_VEC) {
		vf g = lk_vload(dy + j), v = lk_vload(x + j);

		lk_vstore(dw + j, lk_vload(dw + j) + g * v * rstd);
		lk_vstore(dx + j, lk_vload(dx + j) + rstd * (lk_vload(w + j) * g - v * mean));
	}
	for (; j < d; j++) {
		dw[j] += dy[j] * x[j] * rstd;
		dx[j] += rstd * (w[j] * dy[j] - x[j] * mean);
	}
}

static inline vf glu(vf g, vf u)
{
	return g * lk_vsigmoid(g) * u;
}

static void swiglu_fwd(float *y, const float *g, const float *u, int64_t n)
{
	int64_t j = 0;

	for (; j + LK_VEC <= n; j += LK_VEC)
		lk_vstore(y + j, glu(lk_vload(g + j), lk_vload(u + j)));
	if (j < n)
		lk_vstore_n(y + j, glu(lk_vload_n(g + j, n - j, 0), lk_vload_n(u + j, n - j, 0)), n - j);
}

static inline void glu_bwd(vf *dg, vf *du, vf dy, vf g, vf u)
{
	vf s = lk_vsigmoid(g), silu = g * s;

	*dg = dy * u * (s + silu * (1.0f - s));
	*du = dy * silu;
}

/* dg and du may lie over g and u: a block is read before it is written */
static void swiglu_bwd(float *dg, float *du, const float *dy, const float *g, const float *u, int64_t n)
{
	int64_t j = 0;
	vf a, b;

	for (; j + LK_VEC <= n; j += LK_VEC) {
		glu_bwd(&a, &b, lk_vload(dy + j), lk_vload(g + j), lk_vload(u + j));
		lk_vstore(dg + j, a);
		lk_vstore(du + j, b);
	}
	if (j < n) {
		glu_bwd(&a, &b, lk_vload_n(dy + j, n - j, 0), lk_vload_n(g + j, n - j, 0),
			lk_vload_n(u + j, n - j, 0));
		lk_vstore_n(dg + j, a, n - j);
		lk_vstore_n(du + j, b, n - j);
	}
}

static void rotate(float *x, const float *cs, const float *sn, int64_t d, float sign)
{
	vi swap;
	int64_t j = 0;

	for (int k = 0; k < LK_VEC; k++)
		swap[k] = k ^ 1;
	for (; j + LK_VEC <= d; j += LK_VEC) {
		vf v = lk_vload(x + j);

		lk_vstore(x + j, v * lk_vload(cs + j) + __builtin_shuffle(v, swap) * (lk_vload(sn + j) * sign));
	}
	for (; j < d; j += 2) {
		float a = x[j], b = x[j + 1];

		x[j] = a * cs[j] + b * sn[j] * sign;
		x[j + 1] = b * cs[j + 1] + a * sn[j + 1] * sign;
	}
}

void LK_ISA_NAME(lk_norm_hot)(struct lk_dense_hot *h)
{
	h->rms_fwd = rms_fwd;
	h->rms_bwd = rms_bwd;
	h->swiglu_fwd = swiglu_fwd;
	h->swiglu_bwd = swiglu_bwd;
	h->rotate = rotate;
}
