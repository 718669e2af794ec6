/* ref_int.h - what the dense files of ref/ share. Plain loops, sums in fp64: these define what the ops mean. */
#ifndef LK_REF_INT_H
#define LK_REF_INT_H

#include <string.h>

#include "kernels/kernels_int.h"

static inline float *lk_row(const struct lk_view *v, int64_t i)
{
	return (float *)v->data + i * v->stride[0];
}

static inline float lk_bf16_get(uint16_t b)
{
	uint32_t bits = (uint32_t)b << 16;
	float f;

	memcpy(&f, &bits, sizeof f);
	return f;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t lk_bf16_put(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	if ((bits & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static inline float lk_get(const void *p, int dtype, int64_t i)
{
	return dtype == LK_BF16 ? lk_bf16_get(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

static inline void lk_put(void *p, int dtype, int64_t i, float x)
{
	if (dtype == LK_BF16)
		((uint16_t *)p)[i] = lk_bf16_put(x);
	else
		((float *)p)[i] = x;
}

/* lk_ref_fill_dense calls these, one per file */
void lk_ref_fill_matmul(struct lk_ops *o);
void lk_ref_fill_norm(struct lk_ops *o);
void lk_ref_fill_rope(struct lk_ops *o);
void lk_ref_fill_embed(struct lk_ops *o);
void lk_ref_fill_xent(struct lk_ops *o);
void lk_ref_fill_optim(struct lk_ops *o);

#endif
