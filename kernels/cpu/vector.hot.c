/* vector.hot.c - element-wise loops over long stretches; simple enough for the compiler to vectorise. */
#ifdef __F16C__
#include <immintrin.h>
#endif
#include <math.h>

#include "kernels/cpu/dense_int.h"

static void axpy(float *restrict y, float a, const float *restrict x, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] += a * x[i];
}

static void scale(float *y, float a, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] *= a;
}

static void to_bf16(uint16_t *restrict y, const float *restrict x, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = lk_bf16_put(x[i]);
}

static void from_bf16(float *restrict y, const uint16_t *restrict x, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = lk_bf16_get(x[i]);
}

/* By the instructions for it where there are any: the bits are those of number.h, but for what a NaN carries. */
static void to_f16(uint16_t *restrict y, const float *restrict x, int64_t n)
{
	int64_t i = 0;

#ifdef __F16C__
	for (; i + 8 <= n; i += 8)
		_mm_storeu_si128((__m128i *)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#endif
	for (; i < n; i++)
		y[i] = lk_f16_put(x[i]);
}

static void from_f16(float *restrict y, const uint16_t *restrict x, int64_t n)
{
	int64_t i = 0;

#ifdef __F16C__
	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
#endif
	for (; i < n; i++)
		y[i] = lk_f16_get(x[i]);
}

/* 16 running sums, so that the order does not depend on the instruction set and the additions do not wait. */
static double sumsq(const float *x, int64_t n)
{
	double part[16] = { 0 };
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		for (int j = 0; j < 16; j++)
			part[j] += (double)x[i + j] * x[i + j];
	for (int j = 0; i < n; i++, j++)
		part[j] += (double)x[i] * x[i];
	for (int half = 8; half; half /= 2)
		for (int j = 0; j < half; j++)
			part[j] += part[j + half];
	return part[0];
}

static void adamw(float *restrict p, float *restrict m, float *restrict v, const float *restrict g, int64_t n,
		  const struct lk_adamw_cfg *cfg)
{
	const float b1 = cfg->beta1, b2 = cfg->beta2, c1 = (float)(1.0 - cfg->beta1), c2 = (float)(1.0 - cfg->beta2);
	const float unbias1 = (float)(1.0 / cfg->bias1), unbias2 = (float)(1.0 / sqrt(cfg->bias2));
	const float lr = cfg->lr, eps = cfg->eps, decay = cfg->weight_decay, gs = cfg->grad_scale;

	for (int64_t i = 0; i < n; i++) {
		float gi = gs * g[i], mi = b1 * m[i] + c1 * gi, vi = b2 * v[i] + c2 * gi * gi;

		m[i] = mi;
		v[i] = vi;
		p[i] -= lr * (mi * unbias1 / (sqrtf(vi) * unbias2 + eps) + decay * p[i]);
	}
}

void LK_ISA_NAME(lk_vector_hot)(struct lk_dense_hot *h)
{
	h->axpy = axpy;
	h->scale = scale;
	h->to_bf16 = to_bf16;
	h->from_bf16 = from_bf16;
	h->to_f16 = to_f16;
	h->from_f16 = from_f16;
	h->sumsq = sumsq;
	h->adamw = adamw;
}
