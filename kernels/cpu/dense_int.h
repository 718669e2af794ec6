/* dense_int.h - between the dense files of cpu/ and the hot loops they call. */
#ifndef LK_CPU_DENSE_INT_H
#define LK_CPU_DENSE_INT_H

#include "kernels/cpu/cpu_int.h"

enum { LK_SUM_CHUNK = 1 << 16 }; /* sumsq adds up chunks of this many numbers, whatever the threads */

/* One row or one stretch of n numbers each; all threads' work is cut into calls of these. */
struct lk_dense_hot {
	/* vector.hot.c */
	void (*axpy)(float *y, float a, const float *x, int64_t n);
	void (*scale)(float *y, float a, int64_t n);
	void (*to_bf16)(uint16_t *y, const float *x, int64_t n);
	void (*from_bf16)(float *y, const uint16_t *x, int64_t n);
	void (*to_f16)(uint16_t *y, const float *x, int64_t n);
	void (*from_f16)(float *y, const uint16_t *x, int64_t n);
	double (*sumsq)(const float *x, int64_t n); /* n <= LK_SUM_CHUNK */
	void (*adamw)(float *p, float *m, float *v, const float *g, int64_t n, const struct lk_adamw_cfg *cfg);

	/* norm.hot.c */
	void (*rms_fwd)(float *y, float *rstd, float *x, const float *delta, const float *w, int64_t d, float eps);
	/* dw += this row's share; dx += */
	void (*rms_bwd)(float *dx, float *dw, const float *dy, const float *x, const float *w, float rstd, int64_t d);
	void (*swiglu_fwd)(float *y, const float *g, const float *u, int64_t n);
	void (*swiglu_bwd)(float *dg, float *du, const float *dy, const float *g, const float *u, int64_t n);
	/* cs: d cosines, each twice; sn: d sines, each as -s, s. sign -1 rotates back. */
	void (*rotate)(float *x, const float *cs, const float *sn, int64_t d, float sign);

	/* loss.hot.c: the largest of n numbers; x -> e^(x - max), returns their sum (store 0: x is kept) */
	float (*row_max)(const float *x, int64_t n);
	float (*row_exp)(float *x, float max, int64_t n, int store);

	/* gemv.hot.c: rows [0,m), m <= LK_THIN, of c = alpha op(a) op(b) + beta c, columns [n0,n1) */
	void (*thin_tb)(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m,
			int64_t n0, int64_t n1, int64_t k, float alpha, float beta);
	void (*thin_nb)(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m,
			int64_t n0, int64_t n1, int64_t k, float alpha, float beta);
};

enum { LK_THIN = 16 }; /* products with at most so many rows are limited by reading b; the BLAS packs it first */

/* dense_hot.c: the table of the device's instruction set. _fill comes first, once for each instruction set that is used, and only
 * for one that this processor has. */
const struct lk_dense_hot *lk_dense_hot_of(const struct lk_dev *dev);
void lk_dense_hot_fill(enum lk_isa isa);

#define LK_DENSE_FILL(isa) \
	void lk_vector_hot_##isa(struct lk_dense_hot *h); \
	void lk_norm_hot_##isa(struct lk_dense_hot *h); \
	void lk_loss_hot_##isa(struct lk_dense_hot *h); \
	void lk_gemv_hot_##isa(struct lk_dense_hot *h);
LK_DENSE_FILL(base)
LK_DENSE_FILL(avx2)
LK_DENSE_FILL(avx512)

/* Threads worth starting for this much work (in numbers touched). */
static inline int lk_threads_for(const struct lk_dev *dev, int64_t work)
{
	return work < 16384 ? 1 : dev->threads;
}

#endif
