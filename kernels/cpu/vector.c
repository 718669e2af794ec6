/* vector.c - element-wise ops, sums, copies and AdamW on the cpu device: stretches of fixed length for the threads, whose inner
 * loops are in vector.hot.c. A sum adds its stretches in their order. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/dense_int.h"

enum { STRETCH = 1 << 14 }; /* numbers per piece of work */

static int64_t count(const struct lk_view *v)
{
	int64_t n = 1;

	for (int i = 0; i < v->ndim; i++)
		n *= v->n[i];
	return n;
}

static int64_t piece_size(int64_t i, int64_t n)
{
	return n - i < STRETCH ? n - i : STRETCH;
}

/* ---- bytes ---- */

enum { PIECE_BYTES = 1 << 18 };

static int copy(struct lk_dev *dev, void *dst, const void *src, size_t bytes)
{
	int64_t n = (int64_t)bytes;

#pragma omp parallel for num_threads(lk_threads_for(dev, n / 64)) schedule(static)
	for (int64_t i = 0; i < n; i += PIECE_BYTES)
		memcpy((char *)dst + i, (const char *)src + i, (size_t)(n - i < PIECE_BYTES ? n - i : PIECE_BYTES));
	return 0;
}

static int zero(struct lk_dev *dev, void *p, size_t bytes)
{
	int64_t n = (int64_t)bytes;

#pragma omp parallel for num_threads(lk_threads_for(dev, n / 64)) schedule(static)
	for (int64_t i = 0; i < n; i += PIECE_BYTES)
		memset((char *)p + i, 0, (size_t)(n - i < PIECE_BYTES ? n - i : PIECE_BYTES));
	return 0;
}

/* ---- numbers ---- */

static int fill(struct lk_dev *dev, float *p, int64_t n, float value)
{
#pragma omp parallel for num_threads(lk_threads_for(dev, n)) schedule(static)
	for (int64_t i = 0; i < n; i++)
		p[i] = value;
	return 0;
}

static void cast_piece(const struct lk_dense_hot *hot, const struct lk_view *y, const struct lk_view *x, int64_t i,
		       int64_t n)
{
	float *yf = y->data;
	const float *xf = x->data;
	uint16_t *yh = y->data;
	const uint16_t *xh = x->data;

	if (y->dtype == LK_F32 && x->dtype == LK_F32)
		memmove(yf + i, xf + i, (size_t)n * sizeof *yf);
	else if (y->dtype == LK_F32)
		hot->from_bf16(yf + i, xh + i, n);
	else if (x->dtype == LK_F32)
		hot->to_bf16(yh + i, xf + i, n);
	else
		memmove(yh + i, xh + i, (size_t)n * sizeof *yh);
}

static int cast(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t n = count(y);

#pragma omp parallel for num_threads(lk_threads_for(dev, n)) schedule(static)
	for (int64_t i = 0; i < n; i += STRETCH)
		cast_piece(hot, y, x, i, piece_size(i, n));
	return 0;
}

static int axpy(struct lk_dev *dev, const struct lk_view *y, float a, const struct lk_view *x)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int plain = y->dtype == LK_F32 && x->dtype == LK_F32;
	int64_t n = count(y);

#pragma omp parallel for num_threads(lk_threads_for(dev, n)) schedule(static)
	for (int64_t i = 0; i < n; i += STRETCH) {
		if (plain) {
			hot->axpy((float *)y->data + i, a, (const float *)x->data + i, piece_size(i, n));
			continue;
		}
		for (int64_t j = i; j < i + piece_size(i, n); j++)
			lk_put(y->data, y->dtype, j, lk_get(y->data, y->dtype, j) + a * lk_get(x->data, x->dtype, j));
	}
	return 0;
}

static int scale(struct lk_dev *dev, const struct lk_view *y, float a)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t n = count(y);

#pragma omp parallel for num_threads(lk_threads_for(dev, n)) schedule(static)
	for (int64_t i = 0; i < n; i += STRETCH) {
		if (y->dtype == LK_F32) {
			hot->scale((float *)y->data + i, a, piece_size(i, n));
			continue;
		}
		for (int64_t j = i; j < i + piece_size(i, n); j++)
			lk_put(y->data, y->dtype, j, a * lk_get(y->data, y->dtype, j));
	}
	return 0;
}

static int sumsq(struct lk_dev *dev, const float *x, int64_t n, double *host_out)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t chunks = (n + LK_SUM_CHUNK - 1) / LK_SUM_CHUNK;
	double *part = lk_cpu_scratch(dev, (size_t)chunks * sizeof *part), sum = 0;

	if (!part)
		return lk_fail(dev, LK_ENOMEM, "sumsq: no memory for %" PRId64 " partial sums", chunks);
#pragma omp parallel for num_threads(lk_threads_for(dev, n)) schedule(static)
	for (int64_t i = 0; i < chunks; i++) {
		int64_t from = i * LK_SUM_CHUNK;

		part[i] = hot->sumsq(x + from, n - from < LK_SUM_CHUNK ? n - from : LK_SUM_CHUNK);
	}
	for (int64_t i = 0; i < chunks; i++)
		sum += part[i];
	*host_out = sum;
	return 0;
}

static int adamw(struct lk_dev *dev, float *p, float *m, float *v, const float *g, void *p_compute, int64_t n,
		 const struct lk_adamw_cfg *cfg)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);

#pragma omp parallel for num_threads(lk_threads_for(dev, n)) schedule(static)
	for (int64_t i = 0; i < n; i += STRETCH) {
		hot->adamw(p + i, m + i, v + i, g + i, piece_size(i, n), cfg);
		if (p_compute && p_compute != p)
			memcpy((float *)p_compute + i, p + i, (size_t)piece_size(i, n) * sizeof *p);
	}
	return 0;
}

void lk_cpu_fill_vector(struct lk_ops *o)
{
	o->memory.upload = copy;
	o->memory.download = copy;
	o->memory.copy = copy;
	o->dense.zero = zero;
	o->dense.fill = fill;
	o->dense.cast = cast;
	o->dense.axpy = axpy;
	o->dense.scale = scale;
	o->dense.sumsq = sumsq;
	o->dense.adamw = adamw;
}
