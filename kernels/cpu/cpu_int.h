/* cpu_int.h - what the files of kernels/cpu share.
 *
 * Hot files (kernels/cpu/NAME.hot.c) are compiled once per instruction set with LK_ISA set to base, avx2 or avx512; what
 * they export goes through LK_ISA_NAME so that all bodies live in one program. The plain files pick at run time.
 * Vector code is written with GCC vector extensions of LK_VEC floats, so a new instruction set is a line in the Makefile.
 */
#ifndef LK_CPU_INT_H
#define LK_CPU_INT_H

#include "kernels/kernels_int.h"

enum lk_isa { LK_ISA_BASE, LK_ISA_AVX2, LK_ISA_AVX512, LK_ISA_COUNT };

#define LK_CAT2(a, b) a##_##b
#define LK_CAT(a, b) LK_CAT2(a, b)
#ifdef LK_ISA
#define LK_ISA_NAME(f) LK_CAT(f, LK_ISA)
#endif

/* The body of `f` for this isa: LK_PICK(NAME, cpu->isa), with NAME_base, NAME_avx2, NAME_avx512 declared. */
#if defined(__x86_64__)
#define LK_PICK(f, isa) ((isa) == LK_ISA_AVX512 ? f##_avx512 : (isa) == LK_ISA_AVX2 ? f##_avx2 : f##_base)
#else
#define LK_PICK(f, isa) ((void)(isa), f##_base)
#endif

#if defined(__AVX512F__)
#define LK_VEC 16
#elif defined(__AVX2__)
#define LK_VEC 8
#else
#define LK_VEC 4
#endif

/* CBLAS, found with dlopen after the core type was put into the environment: Debian's OpenBLAS 0.3.21 takes new CPUs for
 * a Prescott and runs at a fifth of its speed. */
typedef void lk_sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
			 const float *b, int ldb, float beta, float *c, int ldc);

struct lk_rope_table;

struct lk_cpu {
	enum lk_isa isa;
	int threads;
	lk_sgemm_fn *sgemm;       /* cblas_sgemm on the calling thread alone, inside or outside of a parallel region */
	float *scratch;           /* grows, never shrinks; see lk_cpu_scratch */
	size_t scratch_bytes;
	size_t *sizing;           /* not NULL: only sizes are wanted, see lk_cpu_sizing */
	struct lk_rope_table *rope; /* of rope.c: the cosines and sines of the last positions */
};

static inline struct lk_cpu *lk_cpu_of(struct lk_dev *dev)
{
	return (struct lk_cpu *)dev->impl;
}

/* Each file puts its entries over ref's; cpu.c calls them all. */
void lk_cpu_fill_matmul(struct lk_ops *o);
void lk_cpu_fill_vector(struct lk_ops *o);
void lk_cpu_fill_norm(struct lk_ops *o);
void lk_cpu_fill_rope(struct lk_ops *o);
void lk_cpu_fill_embed(struct lk_ops *o);
void lk_cpu_fill_loss(struct lk_ops *o);
void lk_cpu_fill_attn(struct lk_ops *o);
void lk_cpu_fill_conv(struct lk_ops *o);
void lk_cpu_fill_groupnorm(struct lk_ops *o);
void lk_cpu_fill_code(struct lk_ops *o);
void lk_cpu_fill_feature(struct lk_ops *o);

/* blas.c: finds the BLAS once per process. 0, or LK_EUNSUP with a sentence in why. core: its kernels' name ("" if it does
 * not tell). */
int lk_blas_open(lk_sgemm_fn **sgemm, const char **core, char *why, size_t n);

/* row-major c (m,n) = alpha op(a) op(b) + beta c with all threads of the device; not from inside a parallel region.
 * ta, tb: 0 or 1. Same bits for any number of threads. Uses the device's scratch. 0 or LK_ENOMEM. */
int lk_cpu_gemm(struct lk_dev *dev, int ta, int tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
		 int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

size_t lk_rope_bytes(int64_t n, int64_t d); /* of the table for n positions */
void lk_rope_free(struct lk_rope_table *t); /* NULL is fine */

/* At least `bytes` of 64-byte aligned memory, valid until the next call on this device; NULL when there is none. */
void *lk_cpu_scratch(struct lk_dev *dev, size_t bytes);
/* From here to lk_cpu_sized, lk_cpu_scratch gives nothing and *most becomes the most that was asked for. An op that asks before it
 * does anything can so be asked for its scratch, with views that have no data; it returns LK_ENOMEM. */
void lk_cpu_sizing(struct lk_dev *dev, size_t *most);
void lk_cpu_sized(struct lk_dev *dev);

#endif
