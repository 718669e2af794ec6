/* image_feature.c - leaky relu, pooling and the distance of features on the CPU: stretches and rows of fixed size for the
 * threads. */
#include "kernels/cpu/image_int.h"

#include <inttypes.h>
#include <math.h>

enum { RUN = 1 << 13 }; /* elements, or channels of pixels, that a thread takes at a time */

static int64_t count(const struct lk_view *v)
{
	int64_t n = 1;
	for (int32_t i = 0; i < v->ndim; i++)
		n *= v->n[i];
	return n;
}

/* out = g where sign > 0, else slope g. All may be the same. */
static void leak(float *out, const float *g, const float *sign, int64_t n, float slope)
{
	for (int64_t i = 0; i < n; i++)
		out[i] = g[i] * (sign[i] > 0 ? 1.0f : slope);
}

static int leaky_bwd(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *y, float slope)
{
	int threads = lk_cpu_of(dev)->threads;
	int64_t n = count(y);
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t i = 0; i < n; i += RUN)
		leak((float *)dx->data + i, (const float *)dy->data + i, (const float *)y->data + i, n - i < RUN ? n - i : RUN,
		     slope);
	return LK_OK;
}

static int leaky_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, float slope)
{
	return leaky_bwd(dev, y, x, x, slope);
}

/* Rows of pooled pixels: row r is of the input rows from 2 oy of its image. */
static const float *rows_under(const struct lk_view *x, const struct lk_view *y, int64_t r)
{
	int64_t image = r / y->n[1], oy = r % y->n[1];
	return (const float *)x->data + (image * x->n[1] + 2 * oy) * x->n[2] * x->n[3];
}

static int maxpool_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	int threads = lk_cpu_of(dev)->threads;
	int64_t rows = y->n[0] * y->n[1], wide = y->n[2] * y->n[3], c = x->n[3], line = x->n[2] * c;
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t r = 0; r < rows; r++) {
		const float *a = rows_under(x, y, r), *b = a + line;
		float *out = (float *)y->data + r * wide;
		for (int64_t o = 0; o < wide; o += c, a += 2 * c, b += 2 * c)
			for (int64_t j = 0; j < c; j++) {
				float m = a[c + j] > a[j] ? a[c + j] : a[j];
				m = b[j] > m ? b[j] : m;
				out[o + j] = b[c + j] > m ? b[c + j] : m;
			}
	}
	return LK_OK;
}

/* Two rows of dx under a row of dy; what an odd width leaves over is 0. */
static void spread_row(float *a, float *b, const float *dy, const float *xa, const float *xb, int64_t w, int64_t c)
{
	for (int64_t i = 0; i < w * c; i++)
		a[i] = b[i] = 0;
	for (int64_t o = 0; o + 1 < w; o += 2, dy += c)
		for (int64_t j = 0, p = o * c; j < c; j++, p++) {
			float most = xa[p];
			float *to = a + p;
			if (xa[p + c] > most)
				to = a + p + c, most = xa[p + c];
			if (xb[p] > most)
				to = b + p, most = xb[p];
			if (xb[p + c] > most)
				to = b + p + c;
			*to = dy[j];
		}
}

static int maxpool_bwd(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *x)
{
	int threads = lk_cpu_of(dev)->threads;
	int64_t rows = dy->n[0] * dy->n[1], c = x->n[3], line = x->n[2] * c;
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t r = 0; r < rows; r++) {
		const float *from = rows_under(x, dy, r);
		float *to = (float *)dx->data + (from - (const float *)x->data);
		spread_row(to, to + line, (const float *)dy->data + r * dy->n[2] * c, from, from + line, x->n[2], c);
		if (x->n[1] % 2 && r % dy->n[1] == dy->n[1] - 1)
			for (int64_t i = 0; i < line; i++)
				to[2 * line + i] = 0;
	}
	return LK_OK;
}

/* As ref's, in fp32 but for the sums over pixels. */
static float pixel_loss(const float *x, const float *t, const float *w, int64_t c, float scale, float *dx)
{
	float xx = 0, tt = 0, sum = 0, xg = 0;
	for (int64_t j = 0; j < c; j++) {
		xx += x[j] * x[j];
		tt += t[j] * t[j];
	}
	float norm = sqrtf(xx), ix = 1 / (norm + 1e-10f), it = 1 / (sqrtf(tt) + 1e-10f);
	for (int64_t j = 0; j < c; j++) {
		float d = x[j] * ix - t[j] * it;
		sum += w[j] * d * d;
		xg += x[j] * ix * 2 * w[j] * d;
	}
	float k = norm > 0 ? scale * ix : 0, back = norm > 0 ? xg / norm : 0;
	for (int64_t j = 0; dx && j < c; j++)
		dx[j] = k * (2 * w[j] * (x[j] * ix - t[j] * it) - x[j] * back);
	return sum;
}

static int feature_loss(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
			const float *weight, float scale, double *host_out)
{
	int threads = lk_cpu_of(dev)->threads;
	int64_t c = x->n[3], pixels = x->n[0] * x->n[1] * x->n[2], run = RUN / c + 1, runs = (pixels + run - 1) / run;
	double inv = 1.0 / (double)pixels, sum = 0.0, *part = lk_cpu_scratch(dev, (size_t)runs * sizeof *part);
	float k = (float)(scale * inv);
	if (!part)
		return lk_fail(dev, LK_ENOMEM, "feature_loss: no memory for %" PRId64 " partial sums", runs);
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t r = 0; r < runs; r++) {
		part[r] = 0.0;
		for (int64_t p = r * run; p < pixels && p < (r + 1) * run; p++)
			part[r] += (double)pixel_loss((const float *)x->data + p * c, (const float *)t->data + p * c, weight, c, k,
						      dx ? (float *)dx->data + p * c : NULL);
	}
	for (int64_t r = 0; r < runs; r++)
		sum += part[r];
	*host_out = sum * inv;
	return LK_OK;
}

void lk_cpu_fill_feature(struct lk_ops *o)
{
	o->image.leaky_fwd = leaky_fwd;
	o->image.leaky_bwd = leaky_bwd;
	o->image.maxpool_fwd = maxpool_fwd;
	o->image.maxpool_bwd = maxpool_bwd;
	o->image.feature_loss = feature_loss;
}
