/* gemv.hot.c - products with a few rows, as in generating one token at a time: reading b once is all that counts. */
#include "kernels/cpu/dense_int.h"
#include "kernels/cpu/vmath.h"

/* Adds of one output: c = alpha sum + beta c, without reading c when beta is 0 (it may hold anything then). */
static inline void put_sum(float *c, float sum, float alpha, float beta)
{
	*c = beta == 0.0f ? alpha * sum : alpha * sum + beta * *c;
}

/* m rows of a against 4 rows of b from b0 on; m is a constant where this is inlined */
static inline __attribute__((always_inline)) void tb_block(float *c, int64_t ldc, const float *a, int64_t lda,
							   const float *b, int64_t ldb, int m, int64_t k,
							   float alpha, float beta)
{
	vf s[4][4] = { { { 0 } } };
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
			put_sum(c + i * ldc + q, lk_vsum(s[i][q]), alpha, beta);
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
		put_sum(c + i * ldc, lk_vsum(s), alpha, beta);
	}
}

static inline __attribute__((always_inline)) void tb_rows(float *c, int64_t ldc, const float *a, int64_t lda,
							  const float *w, int64_t ldb, int64_t m, int64_t k,
							  float alpha, float beta)
{
	switch (m) {
	case 1: tb_block(c, ldc, a, lda, w, ldb, 1, k, alpha, beta); break;
	case 2: tb_block(c, ldc, a, lda, w, ldb, 2, k, alpha, beta); break;
	case 3: tb_block(c, ldc, a, lda, w, ldb, 3, k, alpha, beta); break;
	default: tb_block(c, ldc, a, lda, w, ldb, 4, k, alpha, beta);
	}
}

/* c (m,n) = alpha a (m,k) b(n,k)^T + beta c, columns [n0,n1); the second four rows find b in cache */
static void thin_tb(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m,
		    int64_t n0, int64_t n1, int64_t k, float alpha, float beta)
{
	int64_t n = n0;

	for (; n + 4 <= n1; n += 4)
		for (int64_t i = 0; i < m; i += 4)
			tb_rows(c + i * ldc + n, ldc, a + i * lda, lda, b + n * ldb, ldb, m - i < 4 ? m - i : 4, k,
				alpha, beta);
	for (; n < n1; n++)
		tb_column(c + n, ldc, a, lda, b + n * ldb, m, k, alpha, beta);
}

/* c += x[0] b[0] + ... + x[3] b[3], rows of b ldb apart */
static void add_4_rows(float *c, const float *x, const float *b, int64_t ldb, int64_t n)
{
	const float *b1 = b + ldb, *b2 = b1 + ldb, *b3 = b2 + ldb;
	int64_t j = 0;

	for (; j + LK_VEC <= n; j += LK_VEC)
		lk_vstore(c + j, lk_vload(c + j) + x[0] * lk_vload(b + j) + x[1] * lk_vload(b1 + j) +
				 (x[2] * lk_vload(b2 + j) + x[3] * lk_vload(b3 + j)));
	for (; j < n; j++)
		c[j] += x[0] * b[j] + x[1] * b1[j] + (x[2] * b2[j] + x[3] * b3[j]);
}

static void add_row(float *c, float x, const float *b, int64_t n)
{
	for (int64_t j = 0; j < n; j++)
		c[j] += x * b[j];
}

/* c (m,n) = alpha a (m,k) b (k,n) + beta c, columns [n0,n1): four rows of b at a time run over c, which stays in cache */
static void thin_nb(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m,
		    int64_t n0, int64_t n1, int64_t k, float alpha, float beta)
{
	for (int64_t i = 0; i < m; i++)
		for (int64_t n = n0; n < n1; n++)
			c[i * ldc + n] = beta == 0.0f ? 0.0f : beta * c[i * ldc + n];
	for (int64_t j = 0; j + 4 <= k; j += 4) {
		for (int64_t i = 0; i < m; i++) {
			const float *from = a + i * lda + j;
			float x[4] = { alpha * from[0], alpha * from[1], alpha * from[2], alpha * from[3] };

			add_4_rows(c + i * ldc + n0, x, b + j * ldb + n0, ldb, n1 - n0);
		}
	}
	for (int64_t j = k / 4 * 4; j < k; j++)
		for (int64_t i = 0; i < m; i++)
			add_row(c + i * ldc + n0, alpha * a[i * lda + j], b + j * ldb + n0, n1 - n0);
}

void LK_ISA_NAME(lk_gemv_hot)(struct lk_dense_hot *h)
{
	h->thin_tb = thin_tb;
	h->thin_nb = thin_nb;
}
