/* norm.c - RMS norm (Zhang & Sennrich 2019) and SwiGLU (Shazeer 2020), one row after the other.
 *
 *	r = rstd = 1 / sqrt(mean(x^2) + eps),  y_j = w_j x_j r
 *	dw_j = sum over rows of dy_j x_j r,    dx_j = r (w_j dy_j - x_j r^2 mean(w dy x))
 *	y = silu(g) u,  silu(g) = g s,  s = 1 / (1 + e^-g)
 *	du = dy silu(g),  dg = dy u s (1 + g (1 - s)) */
#include <math.h>

#include "kernels/ref/ref_int.h"

static int rmsnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *rstd, const struct lk_view *x,
		       const struct lk_view *delta, const struct lk_view *w, float eps)
{
	int64_t d = x->n[1];
	const float *wp = w->data;

	(void)dev;
	for (int64_t t = 0; t < x->n[0]; t++) {
		float *xr = lk_row(x, t), *yr = lk_row(y, t);
		double sum = 0;

		for (int64_t j = 0; j < d; j++) {
			if (delta)
				xr[j] += lk_row(delta, t)[j];
			sum += (double)xr[j] * xr[j];
		}
		rstd[t] = (float)(1.0 / sqrt(sum / (double)d + eps));
		for (int64_t j = 0; j < d; j++)
			yr[j] = wp[j] * (xr[j] * rstd[t]);
	}
	return 0;
}

static int rmsnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dw, const struct lk_view *dy,
		       const struct lk_view *x, const struct lk_view *w, const float *rstd)
{
	int64_t d = x->n[1];
	const float *wp = w->data;

	(void)dev;
	for (int64_t t = 0; t < x->n[0]; t++) {
		const float *xr = lk_row(x, t), *dyr = lk_row(dy, t);
		double r = rstd[t], dot = 0;

		for (int64_t j = 0; j < d; j++)
			dot += (double)wp[j] * dyr[j] * xr[j];
		dot *= r * r / (double)d;
		for (int64_t j = 0; j < d; j++)
			lk_row(dx, t)[j] += (float)(r * ((double)wp[j] * dyr[j] - xr[j] * dot));
	}
	for (int64_t j = 0; j < d; j++) {
		double sum = 0;

		for (int64_t t = 0; t < x->n[0]; t++)
			sum += (double)lk_row(dy, t)[j] * lk_row(x, t)[j] * rstd[t];
		dw[j] += (float)sum;
	}
	return 0;
}

static int swiglu_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *g, const struct lk_view *u)
{
	(void)dev;
	for (int64_t t = 0; t < y->n[0]; t++) {
		for (int64_t j = 0; j < y->n[1]; j++) {
			double a = lk_row(g, t)[j];

			lk_row(y, t)[j] = (float)(a / (1.0 + exp(-a)) * lk_row(u, t)[j]);
		}
	}
	return 0;
}

static int swiglu_bwd(struct lk_dev *dev, const struct lk_view *dg, const struct lk_view *du, const struct lk_view *dy,
		      const struct lk_view *g, const struct lk_view *u)
{
	(void)dev;
	for (int64_t t = 0; t < g->n[0]; t++) {
		for (int64_t j = 0; j < g->n[1]; j++) {
			double a = lk_row(g, t)[j], b = lk_row(u, t)[j], up = lk_row(dy, t)[j];
			double s = 1.0 / (1.0 + exp(-a));

			lk_row(dg, t)[j] = (float)(up * b * s * (1.0 + a * (1.0 - s)));
			lk_row(du, t)[j] = (float)(up * a * s);
		}
	}
	return 0;
}

void lk_ref_fill_norm(struct lk_ops *o)
{
	o->dense.rmsnorm_fwd = rmsnorm_fwd;
	o->dense.rmsnorm_bwd = rmsnorm_bwd;
	o->dense.swiglu_fwd = swiglu_fwd;
	o->dense.swiglu_bwd = swiglu_bwd;
}
