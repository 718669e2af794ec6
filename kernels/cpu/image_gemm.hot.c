/* image_gemm.hot.c - the matrix product under every convolution: rows times weights that were packed once.
 *
 * B (K,N) lies in panels of NR = 2 vectors: panel j holds columns [j NR, j NR + NR) as (K,NR), zeros after column N.
 * A is read where it lies, one broadcast for two FMAs, so its owner never packs it. MR x 2 accumulators stay in
 * registers: 12 x 2 of 32 with AVX-512, 6 x 2 of 16 otherwise.
 */
#include "kernels/cpu/image_int.h"
#include "kernels/cpu/vmath.h"

#if LK_VEC == 16
#define MR 12
#else
#define MR 6
#endif
#define NR (2 * LK_VEC)
enum { KC = 384 }; /* rows of a panel that stay in the nearest caches while MR-row blocks pass by */

/* The accumulators' way back: whole panels straight to c, the ragged last one through a copy. */
static inline __attribute__((always_inline)) void put_row(float *c, vf lo, vf hi, int64_t n, int acc)
{
	float t[NR];

	if (n >= NR) {
		if (acc) {
			lo += lk_vload(c);
			hi += lk_vload(c + LK_VEC);
		}
		lk_vstore(c, lo);
		lk_vstore(c + LK_VEC, hi);
		return;
	}
	lk_vstore(t, lo);
	lk_vstore(t + LK_VEC, hi);
	for (int64_t j = 0; j < n; j++)
		c[j] = acc ? c[j] + t[j] : t[j];
}

/* c (M,n) = a b or += a b. Element (i,k) of a is a[i rs + k ks]; rs or ks is 1 and known where this is inlined. */
static inline __attribute__((always_inline)) void micro(const int m, int64_t k, const float *restrict a, int64_t rs,
							int64_t ks, const float *restrict b, float *restrict c,
							int64_t ldc, int64_t n, int acc)
{
	const float *a3 = a + 3 * rs, *a6 = a + 6 * rs, *a9 = a + 9 * rs;
	vf s[MR][2];

#pragma GCC unroll 16
	for (int i = 0; i < m; i++)
		s[i][0] = s[i][1] = (vf){ 0 };
	for (int64_t p = 0; p < k; p++) {
		vf lo = lk_vload(b), hi = lk_vload(b + LK_VEC);
#pragma GCC unroll 16
		for (int i = 0; i < m; i++) {
			const float *row = i < 3 ? a : i < 6 ? a3 : i < 9 ? a6 : a9;
			float v = row[i % 3 * rs];
			s[i][0] += lo * v;
			s[i][1] += hi * v;
		}
		b += NR;
		a += ks;
		a3 += ks;
		a6 += ks;
		a9 += ks;
	}
#pragma GCC unroll 16
	for (int i = 0; i < m; i++)
		put_row(c + i * ldc, s[i][0], s[i][1], n, acc);
}

/* Rows of a lie lda apart. */
static void micro_n(int m, int64_t k, const float *a, int64_t lda, const float *b, float *c, int64_t ldc, int64_t n,
		    int acc)
{
	switch (m) {
	case 1: micro(1, k, a, lda, 1, b, c, ldc, n, acc); break;
	case 2: micro(2, k, a, lda, 1, b, c, ldc, n, acc); break;
	case 3: micro(3, k, a, lda, 1, b, c, ldc, n, acc); break;
	case 4: micro(4, k, a, lda, 1, b, c, ldc, n, acc); break;
	case 5: micro(5, k, a, lda, 1, b, c, ldc, n, acc); break;
	case 6: micro(6, k, a, lda, 1, b, c, ldc, n, acc); break;
#if MR > 6
	case 7: micro(7, k, a, lda, 1, b, c, ldc, n, acc); break;
	case 8: micro(8, k, a, lda, 1, b, c, ldc, n, acc); break;
	case 9: micro(9, k, a, lda, 1, b, c, ldc, n, acc); break;
	case 10: micro(10, k, a, lda, 1, b, c, ldc, n, acc); break;
	case 11: micro(11, k, a, lda, 1, b, c, ldc, n, acc); break;
	case 12: micro(12, k, a, lda, 1, b, c, ldc, n, acc); break;
#endif
	}
}

/* a is given transposed, (K,M): rows of it lie lda apart. */
static void micro_t(int m, int64_t k, const float *a, int64_t lda, const float *b, float *c, int64_t ldc, int64_t n,
		    int acc)
{
	switch (m) {
	case 1: micro(1, k, a, 1, lda, b, c, ldc, n, acc); break;
	case 2: micro(2, k, a, 1, lda, b, c, ldc, n, acc); break;
	case 3: micro(3, k, a, 1, lda, b, c, ldc, n, acc); break;
	case 4: micro(4, k, a, 1, lda, b, c, ldc, n, acc); break;
	case 5: micro(5, k, a, 1, lda, b, c, ldc, n, acc); break;
	case 6: micro(6, k, a, 1, lda, b, c, ldc, n, acc); break;
#if MR > 6
	case 7: micro(7, k, a, 1, lda, b, c, ldc, n, acc); break;
	case 8: micro(8, k, a, 1, lda, b, c, ldc, n, acc); break;
	case 9: micro(9, k, a, 1, lda, b, c, ldc, n, acc); break;
	case 10: micro(10, k, a, 1, lda, b, c, ldc, n, acc); break;
	case 11: micro(11, k, a, 1, lda, b, c, ldc, n, acc); break;
	case 12: micro(12, k, a, 1, lda, b, c, ldc, n, acc); break;
#endif
	}
}

static void gemm(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldp, float *c,
		 int64_t ldc, int acc)
{
	for (int64_t k0 = 0; k0 < k; k0 += KC) {
		int64_t kn = k - k0 < KC ? k - k0 : KC;
		for (int64_t j = 0; j < n; j += NR) {
			for (int64_t i = 0; i < m; i += MR)
				micro_n((int)(m - i < MR ? m - i : MR), kn, a + i * lda + k0, lda,
					b + j / NR * ldp + k0 * NR, c + i * ldc + j, ldc, n - j < NR ? n - j : NR,
					acc || k0);
		}
	}
}

static void gemm_t(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldp, float *c,
		   int64_t ldc, int acc)
{
	for (int64_t k0 = 0; k0 < k; k0 += KC) {
		int64_t kn = k - k0 < KC ? k - k0 : KC;
		for (int64_t j = 0; j < n; j += NR) {
			for (int64_t i = 0; i < m; i += MR)
				micro_t((int)(m - i < MR ? m - i : MR), kn, a + k0 * lda + i, lda,
					b + j / NR * ldp + k0 * NR, c + i * ldc + j, ldc, n - j < NR ? n - j : NR,
					acc || k0);
		}
	}
}

/* b (K,N), rows ldb apart, into panels ldp floats apart. */
static void pack(int64_t n, int64_t k, const float *b, int64_t ldb, float *out, int64_t ldp)
{
	for (int64_t j = 0; j < n; j += NR) {
		float *o = out + j / NR * ldp;
		int64_t w = n - j < NR ? n - j : NR;
		for (int64_t p = 0; p < k; p++, o += NR) {
			const float *row = b + p * ldb + j;
			if (w == NR) {
				lk_vstore(o, lk_vload(row));
				lk_vstore(o + LK_VEC, lk_vload(row + LK_VEC));
				continue;
			}
			for (int64_t i = 0; i < NR; i++)
				o[i] = i < w ? row[i] : 0.0f;
		}
	}
}

const struct lk_image_gemm LK_ISA_NAME(lk_image_gemm) = { MR, NR, gemm, gemm_t, pack };
