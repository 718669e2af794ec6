/* gemv.hot.c - products with a few rows, as in generating one token at a time: reading b once is all that counts. */
#include "kernels/cpu/dense_int.h"
#include "kernels/cpu/vmath.h"

/* Adds of one output: c = alpha sum + beta c, without reading c when beta is 0 (it may hold anything then). */
static inline void put(float *c, float sum, float alpha, float beta)
{
	*c = beta == 0.0f ? alpha * sum : alpha * sum + beta * *c;
}

/* m rows of a against 4 rows of b from b0 on; m is a constant where this is inlined */
static inline __attribute__((always_inline)) void tb_block(float *c, int64_t ldc, const float *a, int64_t lda,
							   const float *b, int64_t ldb, int m, int64_t k,
							   float alpha, float beta)
{
	vf s[LK_THIN][4] = { { { 0 } } };
	int64_t j = 0;

	for (; j + LK_VEC <= k; j += LK_VEC) {
		for (int q = 0; q < 4; q++) {
			vf w = lk_vload(b + q * ldb + j);

			for (int i = 0; i < m; i++)
				s[i][q] += w * lk_vload(a + i * lda + j);
		}
	}
	for (int q = 0; q < 4 && j < k; q++) {
		vf w = lk_vload_n(b + q * ldb + j, k - j, 0.0f);

		for (int i = 0; i < m; i++)
			s[i][q] += w * lk_vload_n(a + i * lda + j, k - j, 0.0f);
	}
	for (int i = 0; i < m; i++)
		for (int q = 0; q < 4; q++)
			put(c + i * ldc + q, lk_vsum(s[i][q]), alpha, beta);
}

/* the last columns, one at a time */
static void tb_column(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t m, int64_t k,
		      float alpha, float beta)
{
	for (int64_t i = 0; i < m; i++) {
		vf s = { 0 };
		int64_t j = 0;

		for (; j + LK_VEC <= k; j += LK_VEC)
			s += lk_vload(b + j) * lk_vload(a + i * lda + j);
		if (j < k)
			s += lk_vload_n(b + j, k - j, 0.0f) * lk_vload_n(a + i * lda + j, k - j, 0.0f);
		put(c + i * ldc, lk_vsum(s), alpha, beta);
	}
}

/* c (m,n) = alpha a (m,k) b(n,k)^T + beta c, columns [n0,n1) */
static void thin_tb(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m,
		    int64_t n0, int64_t n1, int64_t k, float alpha, float beta)
{
	int64_t n = n0;

	for (; n + 4 <= n1; n += 4) {
		const float *w = b + n * ldb;

		switch (m) {
		case 1: tb_block(c + n, ldc, a, lda, w, ldb, 1, k, alpha, beta); break;
		case 2: tb_block(c + n, ldc, a, lda, w, ldb, 2, k, alpha, beta); break;
		case 3: tb_block(c + n, ldc, a, lda, w, ldb, 3, k, alpha, beta); break;
		default: tb_block(c + n, ldc, a, lda, w, ldb, 4, k, alpha, beta);
		}
	}
	for (; n < n1; n++)
		tb_column(c + n, ldc, a, lda, b + n * ldb, m, k, alpha, beta);
}

/* c (m,n) = alpha a (m,k) b (k,n) + beta c, columns [n0,n1): strips of columns that stay in registers */
static void thin_nb(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m,
		    int64_t n0, int64_t n1, int64_t k, float alpha, float beta)
{
	enum { STRIP = 4 };

	for (int64_t n = n0; n < n1; n += STRIP * LK_VEC) {
		int64_t left = n1 - n < STRIP * LK_VEC ? n1 - n : STRIP * LK_VEC;

		for (int64_t i = 0; i < m; i++) {
			vf s[STRIP] = { { 0 } };
			float t[STRIP * LK_VEC];

			for (int64_t j = 0; j < k; j++) {
				const float *w = b + j * ldb + n;

				for (int q = 0; q < STRIP; q++)
					if (q * LK_VEC + LK_VEC <= left)
						s[q] += a[i * lda + j] * lk_vload(w + q * LK_VEC);
					else if (q * LK_VEC < left)
						s[q] += a[i * lda + j] * lk_vload_n(w + q * LK_VEC, left - q * LK_VEC, 0);
			}
			for (int q = 0; q < STRIP; q++)
				lk_vstore(t + q * LK_VEC, s[q]);
			for (int64_t q = 0; q < left; q++)
				put(c + i * ldc + n + q, t[q], alpha, beta);
		}
	}
}

void LK_ISA_NAME(lk_gemv_hot)(struct lk_dense_hot *h)
{
	h->thin_tb = thin_tb;
	h->thin_nb = thin_nb;
}
