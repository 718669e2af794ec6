/* Values of files as fp32. */
#include <string.h>

#include "common/io/st_int.h"

/* IEEE half to single. */
static float from_half(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 1023, u;
	float f;
	if (exp == 31) {
		u = sign | 0x7f800000u | man << 13;
	} else if (exp) {
		u = sign | (exp + 112) << 23 | man << 13;
	} else { /* zero or subnormal: man * 2^-24 */
		f = (float)man * 0x1p-24f;
		memcpy(&u, &f, 4);
		u |= sign;
	}
	memcpy(&f, &u, 4);
	return f;
}

void lwm_st_widen(const char *in, enum lwm_st_dtype t, int64_t n, float *out)
{
	if (t == LWM_ST_F32) {
		memcpy(out, in, (size_t)n * 4);
	} else if (t == LWM_ST_BF16) {
#pragma omp simd
		for (int64_t i = 0; i < n; i++) {
			uint16_t h;
			memcpy(&h, in + 2 * i, 2);
			uint32_t u = (uint32_t)h << 16;
			memcpy(&out[i], &u, 4);
		}
	} else if (t == LWM_ST_F16) {
		for (int64_t i = 0; i < n; i++) {
			uint16_t h;
			memcpy(&h, in + 2 * i, 2);
			out[i] = from_half(h);
		}
	} else {
		for (int64_t i = 0; i < n; i++) {
			double d;
			memcpy(&d, in + 8 * i, 8);
			out[i] = (float)d;
		}
	}
}
