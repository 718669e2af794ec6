/* cuda_bf16.h - bf16 as CUDA has it: round to nearest, ties to even. */
#ifndef EMU_CUDA_BF16_H
#define EMU_CUDA_BF16_H

#include <cstring>

#include "vector_types.h"

struct __nv_bfloat16 {
	uint16_t bits;

	__nv_bfloat16() = default; // shared memory is made of these
	__nv_bfloat16(float f);
	operator float() const;
};
struct alignas(4) __nv_bfloat162 {
	__nv_bfloat16 x, y;
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

static inline float __bfloat162float(__nv_bfloat16 b)
{
	uint32_t bits = static_cast<uint32_t>(b.bits) << 16;
	float f;

	memcpy(&f, &bits, sizeof f);
	return f;
}

static inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits)
{
	__nv_bfloat16 b;

	b.bits = bits;
	return b;
}

static inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 b)
{
	return b.bits;
}

static inline __nv_bfloat16 __float2bfloat16_rn(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	if ((bits & 0x7fffffffu) > 0x7f800000u)
		return __ushort_as_bfloat16(0x7fff);
	return __ushort_as_bfloat16(static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16));
}

static inline __nv_bfloat16 __float2bfloat16(float f)
{
	return __float2bfloat16_rn(f);
}

static inline __nv_bfloat16 __double2bfloat16(double d)
{
	return __float2bfloat16_rn(static_cast<float>(d));
}

inline __nv_bfloat16::__nv_bfloat16(float f)
{
	*this = __float2bfloat16_rn(f);
}

inline __nv_bfloat16::operator float() const
{
	return __bfloat162float(*this);
}

static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y)
{
	__nv_bfloat162 v;

	v.x = x;
	v.y = y;
	return v;
}

static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
	return __halves2bfloat162(__float2bfloat16_rn(x), __float2bfloat16_rn(y));
}

static inline __nv_bfloat162 __float22bfloat162_rn(float2 v)
{
	return __floats2bfloat162_rn(v.x, v.y);
}

static inline float2 __bfloat1622float2(__nv_bfloat162 v)
{
	return make_float2(__bfloat162float(v.x), __bfloat162float(v.y));
}

static inline float __low2float(__nv_bfloat162 v)
{
	return __bfloat162float(v.x);
}

static inline float __high2float(__nv_bfloat162 v)
{
	return __bfloat162float(v.y);
}

static inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b)
{
	return __floats2bfloat162_rn(__low2float(a) * __low2float(b), __high2float(a) * __high2float(b));
}

static inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b)
{
	return __floats2bfloat162_rn(__low2float(a) + __low2float(b), __high2float(a) + __high2float(b));
}

#endif
