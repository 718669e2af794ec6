/* matmul_plan.h - a row-major product as the column-major one that a BLAS computes. Host code, plain C, tested as such.
 *
 * A row-major (R,C) matrix with rows s apart is, byte for byte, a column-major (C,R) one with leading dimension s: its
 * transpose. So c = op(a) op(b), read as c' = op(b)' op(a)', is a column-major product of b and a in their places, with
 * the same flags: the first operand is b, the second is a. */
#ifndef LK_CUDA_MATMUL_PLAN_H
#define LK_CUDA_MATMUL_PLAN_H

#include "kernels/kernels_int.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A column-major matrix as it lies in memory. */
struct lk_mm_mat {
	int64_t rows, cols, ld; /* ld >= rows */
	int32_t dtype;
	int32_t align;          /* bytes, a power of two up to 256 that divides the address */
};

/* c (m,n) = alpha op(first) op(second) [+ c]; op(first) is (m,k), op(second) (k,n). Compared byte by byte as the key of
 * what is remembered about a product: lk_mm_make leaves no byte unset. */
struct lk_mm {
	int64_t m, n, k;
	struct lk_mm_mat first, second, c;
	int32_t trans_first, trans_second, add, unused;
};

void lk_mm_make(struct lk_mm *p, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
		unsigned flags);
uint64_t lk_mm_hash(const struct lk_mm *p);

/* May the kernel for a few rows take it: at most LK_MM_FEW rows of a times the rows of a bf16 b (LK_TB), rows that can be
 * read by 16 bytes. */
enum { LK_MM_FEW = 4 };
int lk_mm_few(const struct lk_view *c, const struct lk_view *a, const struct lk_view *b, unsigned flags);

#ifdef __cplusplus
}
#endif
#endif
