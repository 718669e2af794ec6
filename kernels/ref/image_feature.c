/* image_feature.c - what networks of features are made of beside convolutions: leaky relu, pooling, the distance of features. Plain
 * loops; sums in double precision. */
#include "kernels/ref/ref_int.h"

#include <math.h>

static int64_t count(const struct lk_view *v)
{
	int64_t n = 1;
	for (int32_t i = 0; i < v->ndim; i++)
		n *= v->n[i];
	return n;
}

static int leaky_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, float slope)
{
	const float *xd = x->data;
	float *yd = y->data;
	(void)dev;
	for (int64_t i = 0, n = count(x); i < n; i++)
		yd[i] = xd[i] > 0 ? xd[i] : slope * xd[i];
	return LK_OK;
}

static int leaky_bwd(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *y, float slope)
{
	const float *dyd = dy->data, *yd = y->data;
	float *dxd = dx->data;
	(void)dev;
	for (int64_t i = 0, n = count(y); i < n; i++)
		dxd[i] = yd[i] > 0 ? dyd[i] : slope * dyd[i];
	return LK_OK;
}

/* Where the largest of the four pixels under output pixel (oy,ox) of image i lies, channel c: the first one by rows. */
static int64_t largest(const struct lk_view *x, int64_t i, int64_t oy, int64_t ox, int64_t c)
{
	const float *xd = x->data;
	int64_t at = ((i * x->n[1] + 2 * oy) * x->n[2] + 2 * ox) * x->n[3] + c, best = at;
	for (int k = 1; k < 4; k++) {
		int64_t p = at + ((k >> 1) * x->n[2] + (k & 1)) * x->n[3];
		if (xd[p] > xd[best])
			best = p;
	}
	return best;
}

static int maxpool_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	const float *xd = x->data;
	float *yd = y->data;
	(void)dev;
	for (int64_t i = 0; i < y->n[0]; i++)
		for (int64_t oy = 0; oy < y->n[1]; oy++)
			for (int64_t ox = 0; ox < y->n[2]; ox++)
				for (int64_t c = 0; c < y->n[3]; c++)
					*yd++ = xd[largest(x, i, oy, ox, c)];
	return LK_OK;
}

static int maxpool_bwd(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *x)
{
	const float *dyd = dy->data;
	float *dxd = dx->data;
	(void)dev;
	for (int64_t i = 0, n = count(dx); i < n; i++)
		dxd[i] = 0;
	for (int64_t i = 0; i < dy->n[0]; i++)
		for (int64_t oy = 0; oy < dy->n[1]; oy++)
			for (int64_t ox = 0; ox < dy->n[2]; ox++)
				for (int64_t c = 0; c < dy->n[3]; c++)
					dxd[largest(x, i, oy, ox, c)] = *dyd++;
	return LK_OK;
}

/* One pixel: with a = x / (|x| + eps), b likewise of t, the sum of w (a - b)^2; its gradient in x is, of g = 2 w (a - b),
 * g / (|x| + eps) - x (x g) / (|x| (|x| + eps)^2). dx may be NULL. */
static double pixel_loss(const float *x, const float *t, const float *w, int64_t c, double scale, float *dx)
{
	double xx = 0.0, tt = 0.0, sum = 0.0, xg = 0.0;
	for (int64_t j = 0; j < c; j++) {
		xx += (double)x[j] * x[j];
		tt += (double)t[j] * t[j];
	}
	double norm = sqrt(xx), nx = norm + 1e-10, nt = sqrt(tt) + 1e-10;
	for (int64_t j = 0; j < c; j++) {
		double d = x[j] / nx - t[j] / nt;
		sum += w[j] * d * d;
		xg += x[j] * 2.0 * w[j] * d;
	}
	for (int64_t j = 0; dx && j < c; j++) {
		double g = 2.0 * w[j] * (x[j] / nx - t[j] / nt);
		dx[j] = norm > 0 ? (float)(scale * (g / nx - x[j] * xg / (norm * nx * nx))) : 0;
	}
	return sum;
}

static int feature_loss(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
			const float *weight, float scale, double *host_out)
{
	int64_t c = x->n[3], pixels = x->n[0] * x->n[1] * x->n[2];
	double sum = 0.0, inv = 1.0 / (double)pixels;
	(void)dev;
	for (int64_t p = 0; p < pixels; p++)
		sum += pixel_loss((const float *)x->data + p * c, (const float *)t->data + p * c, weight, c, scale * inv,
				  dx ? (float *)dx->data + p * c : NULL);
	*host_out = sum * inv;
	return LK_OK;
}

void lk_ref_fill_feature(struct lk_ops *o)
{
	o->image.leaky_fwd = leaky_fwd;
	o->image.leaky_bwd = leaky_bwd;
	o->image.maxpool_fwd = maxpool_fwd;
	o->image.maxpool_bwd = maxpool_bwd;
	o->image.feature_loss = feature_loss;
}
