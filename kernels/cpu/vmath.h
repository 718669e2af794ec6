/* vmath.h - the vector type of the hot files, and the few functions that plain operators do not give.
 *
 * Only for *.hot.c. LK_VEC floats make one `vf`; + - * / work on it and on a scalar mixed in, and comparisons give a
 * `vi` of 0 and -1 per lane. Everything here keeps NaN: an operand named x that is NaN gives NaN.
 */
#ifndef LK_CPU_VMATH_H
#define LK_CPU_VMATH_H

#include <string.h>

#include "kernels/cpu/cpu_int.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

typedef float vf __attribute__((vector_size(4 * LK_VEC)));
typedef int32_t vi __attribute__((vector_size(4 * LK_VEC)));

/* ---- memory; no alignment is needed ---- */

static inline vf lk_vload(const float *p)
{
	vf v;

	memcpy(&v, p, sizeof v);
	return v;
}

static inline void lk_vstore(float *p, vf v)
{
	memcpy(p, &v, sizeof v);
}

static inline vf lk_vset(float a)
{
	return (vf){ 0 } + a; // -0.0f becomes 0.0f
}

/* The first n < LK_VEC floats; the other lanes are `fill`. Never reads past p + n. */
static inline vf lk_vload_n(const float *p, int64_t n, float fill)
{
#if LK_VEC == 16
	return (vf)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), (__mmask16)((1u << n) - 1), p);
#else
	float t[LK_VEC];

	for (int i = 0; i < LK_VEC; i++)
		t[i] = i < n ? p[i] : fill;
	return lk_vload(t);
#endif
}

static inline void lk_vstore_n(float *p, vf v, int64_t n)
{
#if LK_VEC == 16
	_mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
	float t[LK_VEC];

	lk_vstore(t, v);
	for (int64_t i = 0; i < n; i++)
		p[i] = t[i];
#endif
}

/* ---- choice ---- */

/* mask lanes are 0 or -1, as comparisons make them */
static inline vf lk_vselect(vi mask, vf yes, vf no)
{
	return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* Larger of a bound and x. x NaN gives NaN; bound NaN gives x. */
static inline vf lk_vmax(vf bound, vf x)
{
#if LK_VEC == 16
	return (vf)_mm512_max_ps((__m512)bound, (__m512)x);
#elif LK_VEC == 8
	return (vf)_mm256_max_ps((__m256)bound, (__m256)x);
#elif defined(__SSE2__)
	return (vf)_mm_max_ps((__m128)bound, (__m128)x);
#else
	return lk_vselect(bound > x, bound, x);
#endif
}

/* Smaller of a bound and x, NaN as in lk_vmax. */
static inline vf lk_vmin(vf bound, vf x)
{
#if LK_VEC == 16
	return (vf)_mm512_min_ps((__m512)bound, (__m512)x);
#elif LK_VEC == 8
	return (vf)_mm256_min_ps((__m256)bound, (__m256)x);
#elif defined(__SSE2__)
	return (vf)_mm_min_ps((__m128)bound, (__m128)x);
#else
	return lk_vselect(bound < x, bound, x);
#endif
}

/* ---- over the lanes, always in the same order ---- */

static inline float lk_vsum(vf v)
{
#if LK_VEC == 16
	return _mm512_reduce_add_ps((__m512)v);
#else
	float t[LK_VEC];

	lk_vstore(t, v);
	for (int half = LK_VEC / 2; half; half /= 2)
		for (int i = 0; i < half; i++)
			t[i] += t[i + half];
	return t[0];
#endif
}

/* Largest lane; lanes that are NaN may or may not show. */
static inline float lk_vmaxlane(vf v)
{
#if LK_VEC == 16
	return _mm512_reduce_max_ps((__m512)v);
#else
	float t[LK_VEC];

	lk_vstore(t, v);
	for (int half = LK_VEC / 2; half; half /= 2)
		for (int i = 0; i < half; i++)
			t[i] = t[i] > t[i + half] ? t[i] : t[i + half];
	return t[0];
#endif
}

/* ---- exp ---- */

/* e^x, error below 2 ulp. -Inf and everything under -87.33 gives exactly 0 (no subnormals, they are slow), +Inf and
 * overflow give +Inf, NaN gives NaN. Argument reduction by ln 2 in two parts and the polynomial of Cephes' expf. */
static inline vf lk_vexp(vf x)
{
	const vf magic = lk_vset(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer kept in the low bits
	vf c = lk_vmin(lk_vset(88.8f), lk_vmax(lk_vset(-87.3365f), x));
	vf t = c * 1.44269504088896341f + magic, n = t - magic;
	vf r = c - n * 0.693359375f, p;

	r = r - n * -2.12194440e-4f;
	p = r * 1.9875691500e-4f + 1.3981999507e-3f;
	p = p * r + 8.3334519073e-3f;
	p = p * r + 4.1665795894e-2f;
	p = p * r + 1.6666665459e-1f;
	p = p * r + 5.0000001201e-1f;
	p = p * (r * r) + (r + 1.0f);
#if LK_VEC == 16
	__mmask16 normal = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.3365f), _CMP_NLT_UQ);

	return (vf)_mm512_maskz_scalef_ps(normal, (__m512)p, (__m512)n);
#else
	vi e = (vi)t - (vi)magic, half = e >> 1; // 2^e in two factors: e reaches 128
	vf big = (vf)((half + 127) << 23), rest = (vf)((e - half + 127) << 23);

	return (vf)((vi)(p * big * rest) & ~(x < -87.3365f));
#endif
}

/* 1 / (1 + e^-x) */
static inline vf lk_vsigmoid(vf x)
{
	return 1.0f / (1.0f + lk_vexp(-x));
}

#endif
