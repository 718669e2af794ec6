/* number.h - bf16, fp16 and 8-bit numbers on the host, for the backends whose memory is host memory. */
#ifndef LK_NUMBER_H
#define LK_NUMBER_H

#include <string.h>

#include "kernels/device.h"

/* Row i of fp32 rows. */
static inline float *lk_row(const struct lk_view *v, int64_t i)
{
	return (float *)v->data + i * v->stride[0];
}

static inline float lk_bf16_get(uint16_t b)
{
	uint32_t bits = (uint32_t)b << 16;
	float f;

	memcpy(&f, &bits, sizeof f);
	return f;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t lk_bf16_put(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	if ((bits & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* IEEE 754 binary16: 5 bits of exponent, 10 of fraction. */
static inline float lk_f16_get(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ffu, bits;
	float small = (float)fraction * 0x1p-24f, f;

	memcpy(&bits, &small, sizeof bits);
	if (exponent == 31)
		bits = 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0);
	else if (exponent)
		bits = (exponent + 112) << 23 | fraction << 13;
	bits |= sign;
	memcpy(&f, &bits, sizeof f);
	return f;
}

/* Round to nearest, ties to even; from 65520 on infinity, below 2^-14 in steps of 2^-24; NaN stays NaN. */
static inline uint16_t lk_f16_put(float f)
{
	uint32_t bits, sign, size;
	float small;

	memcpy(&bits, &f, sizeof bits);
	sign = bits >> 16 & 0x8000u;
	size = bits & 0x7fffffffu;
	if (size > 0x7f800000u)
		return (uint16_t)(sign | 0x7e00u | (size >> 13 & 0x3ffu));
	if (size >= 0x477ff000u)
		return (uint16_t)(sign | 0x7c00u);
	if (size >= 0x38800000u)
		return (uint16_t)(sign | (size + 0xfffu + (size >> 13 & 1) - (112u << 23)) >> 13);
	memcpy(&small, &size, sizeof small);
	small += 0.5f; /* whose last bit is 2^-24 */
	memcpy(&size, &small, sizeof size);
	return (uint16_t)(sign | (size - 0x3f000000u));
}

/* Element i of fp32 or bf16 memory, as a float, and back. */
static inline float lk_get(const void *p, int dtype, int64_t i)
{
	return dtype == LK_BF16 ? lk_bf16_get(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

static inline void lk_put(void *p, int dtype, int64_t i, float x)
{
	if (dtype == LK_BF16)
		((uint16_t *)p)[i] = lk_bf16_put(x);
	else
		((float *)p)[i] = x;
}

/* n elements from element `at` of a cache's row, as floats. */
static inline void lk_kv_row(float *y, const void *data, int dtype, int64_t at, int64_t n, float scale)
{
	const int8_t *q = (const int8_t *)data + at;
	const uint16_t *b = (const uint16_t *)data + at;

	if (dtype == LK_I8)
		for (int64_t i = 0; i < n; i++)
			y[i] = scale * (float)q[i];
	else
		for (int64_t i = 0; i < n; i++)
			y[i] = lk_bf16_get(b[i]);
}

#endif
