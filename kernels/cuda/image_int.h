/* image_int.h - what the files of the image ops share: conv*.cu, groupnorm.cu, code.cu, pixels.cu. */
#ifndef LK_CUDA_IMAGE_INT_H
#define LK_CUDA_IMAGE_INT_H

#include "kernels/cuda/cuda_int.h"

static inline int64_t lk_elements(const struct lk_view *v)
{
	int64_t n = 1;

	for (int i = 0; i < v->ndim; i++)
		n *= v->n[i];
	return n;
}

static inline int64_t lk_round_up(int64_t a, int64_t b)
{
	return lk_ceil_div(a, b) * b;
}

static inline int lk_aligned16(const void *p)
{
	return (reinterpret_cast<uintptr_t>(p) & 15) == 0;
}

/* Cuts pieces of 256-byte alignment from one piece of scratch. Sizes first (base NULL), then again with the memory. */
struct lk_cutter {
	char *base;
	size_t used;
};

static inline void *lk_cut(struct lk_cutter *c, int64_t bytes)
{
	char *p = c->base ? c->base + c->used : nullptr;

	c->used += static_cast<size_t>(lk_round_up(bytes, 256));
	return p;
}

#endif
