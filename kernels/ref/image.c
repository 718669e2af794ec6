/* image.c - group norm (Wu & He 2018), nearest code, pixels and the reconstruction loss, plain loops; sums in double precision.
 *
 * Group norm, over H, W and the channels of a group of one image: xhat = (x - mean) rstd, rstd = 1 / sqrt(variance + eps),
 * y = xhat scale + bias, then silu(y) = y / (1 + e^-y) where it is asked for. Gradients stand at the functions. */
#include "kernels/ref/ref_int.h"

#include <math.h>

static double sigmoid(double v)
{
	return 1.0 / (1.0 + exp(-v));
}

/* One group of one image: pixels p of stride c, channels [0, cg) at x. */
static void group_stats(const float *x, int64_t pixels, int64_t c, int64_t cg, double eps, float *mean, float *rstd)
{
	double sum = 0.0, sq = 0.0, n = (double)(pixels * cg);
	for (int64_t p = 0; p < pixels; p++)
		for (int64_t j = 0; j < cg; j++)
			sum += x[p * c + j];
	double m = sum / n;
	for (int64_t p = 0; p < pixels; p++)
		for (int64_t j = 0; j < cg; j++)
			sq += ((double)x[p * c + j] - m) * ((double)x[p * c + j] - m);
	*mean = (float)m;
	*rstd = (float)(1.0 / sqrt(sq / n + eps));
}

static int groupnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *mean, float *rstd, const struct lk_view *x,
			 const float *scale, const float *bias, int groups, float eps, int silu)
{
	int64_t pixels = x->n[1] * x->n[2], c = x->n[3], cg = c / groups;
	(void)dev;
	for (int64_t i = 0; i < x->n[0] * groups; i++) {
		int64_t at = i / groups * pixels * c + i % groups * cg;
		const float *xd = (const float *)x->data + at, *sc = scale + i % groups * cg, *bi = bias + i % groups * cg;
		float *yd = (float *)y->data + at;
		group_stats(xd, pixels, c, cg, eps, &mean[i], &rstd[i]);
		for (int64_t p = 0; p < pixels; p++) {
			for (int64_t j = 0; j < cg; j++) {
				double v = ((double)xd[p * c + j] - mean[i]) * rstd[i] * sc[j] + bi[j];
				yd[p * c + j] = (float)(silu ? v * sigmoid(v) : v);
			}
		}
	}
	return LK_OK;
}

struct gn_group {
	const float *x, *dy, *scale, *bias;
	float *dx, *dscale, *dbias;
	int64_t pixels, c, cg;
	double mean, rstd;
	int silu;
};

/* Gradient at the output of the affine map, and xhat, of element (p,j). */
static double affine_grad(const struct gn_group *g, int64_t p, int64_t j, double *xhat)
{
	double h = ((double)g->x[p * g->c + j] - g->mean) * g->rstd, d = g->dy[p * g->c + j];
	*xhat = h;
	if (g->silu) {
		double v = h * g->scale[j] + g->bias[j], s = sigmoid(v);
		d *= s * (1.0 + v * (1.0 - s));
	}
	return d;
}

/* dx = rstd * (d scale - mean(d scale) - xhat mean(d scale xhat)), d the gradient after the affine map. */
static void group_bwd(const struct gn_group *g)
{
	double s1 = 0.0, s2 = 0.0, n = (double)(g->pixels * g->cg), h;
	for (int64_t j = 0; j < g->cg; j++) {
		double ds = 0.0, db = 0.0;
		for (int64_t p = 0; p < g->pixels; p++) {
			double d = affine_grad(g, p, j, &h);
			ds += d * h;
			db += d;
		}
		s1 += db * g->scale[j];
		s2 += ds * g->scale[j];
		g->dscale[j] += (float)ds;
		g->dbias[j] += (float)db;
	}
	for (int64_t p = 0; p < g->pixels; p++) {
		for (int64_t j = 0; j < g->cg; j++) {
			double d = affine_grad(g, p, j, &h);
			g->dx[p * g->c + j] = (float)(g->rstd * (d * g->scale[j] - s1 / n - h * s2 / n));
		}
	}
}

static int groupnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dscale, float *dbias,
			 const struct lk_view *dy, const struct lk_view *x, const float *mean, const float *rstd,
			 const float *scale, const float *bias, int groups, float eps, int silu)
{
	int64_t pixels = x->n[1] * x->n[2], c = x->n[3], cg = c / groups;
	(void)dev;
	(void)eps; /* it is in rstd */
	for (int64_t i = 0; i < x->n[0] * groups; i++) {
		int64_t ch = i % groups * cg, at = i / groups * pixels * c + ch;
		struct gn_group g = { (const float *)x->data + at, (const float *)dy->data + at, scale + ch, bias + ch,
				      (float *)dx->data + at, dscale + ch, dbias + ch, pixels, c, cg,
				      mean[i], rstd[i], silu };
		group_bwd(&g);
	}
	return LK_OK;
}

static int nearest_code(struct lk_dev *dev, int32_t *idx, const struct lk_view *z, const struct lk_view *codebook)
{
	int64_t d = z->n[1];
	(void)dev;
	for (int64_t i = 0; i < z->n[0]; i++) {
		const float *zi = (const float *)z->data + i * z->stride[0];
		double best = INFINITY;
		idx[i] = 0;
		for (int64_t k = 0; k < codebook->n[0]; k++) {
			const float *e = (const float *)codebook->data + k * codebook->stride[0];
			double zz = 0.0, ee = 0.0, ze = 0.0;
			for (int64_t j = 0; j < d; j++) {
				zz += (double)zi[j] * zi[j];
				ee += (double)e[j] * e[j];
				ze += (double)zi[j] * e[j];
			}
			double dist = zz + ee - 2.0 * ze;
			if (dist < best) {
				best = dist;
				idx[i] = (int32_t)k;
			}
		}
	}
	return LK_OK;
}

static int64_t count(const struct lk_view *v)
{
	int64_t n = 1;
	for (int32_t i = 0; i < v->ndim; i++)
		n *= v->n[i];
	return n;
}

/* fp32 throughout: the conversion is part of the file format of images, so every backend gives the same bytes. */
static uint8_t to_u8(float v)
{
	float p = (v + 1.0f) * 127.5f;
	return p >= 255.0f ? 255 : p > 0.0f ? (uint8_t)p : 0; /* NaN gives 0 */
}

static int pixels(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	int64_t n = count(x);
	(void)dev;
	if (y->dtype == LK_U8) {
		for (int64_t i = 0; i < n; i++)
			((uint8_t *)y->data)[i] = to_u8(((const float *)x->data)[i]);
		return LK_OK;
	}
	for (int64_t i = 0; i < n; i++)
		((float *)y->data)[i] = (float)((const uint8_t *)x->data)[i] / 127.5f - 1.0f;
	return LK_OK;
}

static int recon_loss(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
		      float w1, float w2, double *host_out)
{
	int64_t n = count(x);
	double l1 = 0.0, l2 = 0.0, inv = 1.0 / (double)n;
	(void)dev;
	for (int64_t i = 0; i < n; i++) {
		double d = (double)((const float *)x->data)[i] - (double)((const float *)t->data)[i];
		double sign = d > 0.0 ? 1.0 : d < 0.0 ? -1.0 : 0.0;
		l1 += fabs(d);
		l2 += d * d;
		if (dx)
			((float *)dx->data)[i] = (float)((w1 * sign + w2 * 2.0 * d) * inv);
	}
	host_out[0] = l1 * inv;
	host_out[1] = l2 * inv;
	return LK_OK;
}

void lk_ref_fill_image(struct lk_ops *o)
{
	o->image.groupnorm_fwd = groupnorm_fwd;
	o->image.groupnorm_bwd = groupnorm_bwd;
	o->image.nearest_code = nearest_code;
	o->image.pixels = pixels;
	o->image.recon_loss = recon_loss;
}
