/* conv_int.h - what conv.cu (the ops), conv_pack.cu, conv_mma.cu and conv_grad.cu share.
 *
 * Everything that conv.cu calls sees images whose channels are a multiple of 8 and aligned to 16 bytes: other ones are
 * copied into scratch first, with zeros as the missing channels. `c8` is the number of such groups of 8 channels.
 */
#ifndef LK_CUDA_CONV_INT_H
#define LK_CUDA_CONV_INT_H

#include "kernels/cuda/conv_plan.h"
#include "kernels/cuda/image_int.h"

/* Behind lk_conv.impl: bf16 weights for either direction, laid out (phase, dst channel, tap of the phase, src channel) with
 * the last two padded as lk_conv_phase says. */
struct lk_conv_packs {
	lk_bf16 *w[2]; /* forward, backward; backward is NULL until the first backward */
};

/* One phase of one pass: dst (n,oh,ow,cout) at the pixels of the phase = window over src (n,h,w,8 c8) times w + bias + add.
 * Output row m of the product is pixel (a_y, a_x) of the phase of image m / (y.count x.count), row by row. */
struct lk_conv_gemm {
	const lk_bf16 *src, *w, *add; /* add: like dst, or NULL */
	const float *bias;            /* or NULL */
	lk_bf16 *dst;
	int64_t m;
	int32_t n, c8, k;             /* n: channels of dst; k: depth, a multiple of LK_CONV_BK */
	int32_t h, w_src, oh, ow;     /* rows and columns of src, of dst */
	struct lk_conv_axis y, x;
	int32_t wide;                 /* dst and add take 16-byte accesses */
};
int lk_conv_product_mma(struct lk_dev *dev, const struct lk_conv_gemm *p);
/* LK_EUNSUP, without a sentence, for what it does not do; then the other one does. */
int lk_conv_product_sm90(struct lk_dev *dev, const struct lk_conv_gemm *p);

/* dw (kh,kw,cin,cout) += sum over pixels of x under the tap times dy; part: (splits, like dw) when splits > 1. */
struct lk_conv_dw {
	const lk_bf16 *x, *dy; /* x (n,h,w,8 cx8), dy (pixels,8 cy8) */
	float *dw, *part;
	int64_t pixels, per;   /* of dy; per: those of one split, a multiple of LK_CONV_BK */
	int32_t cx8, cy8, h, w, oh, ow, splits;
	struct lk_conv_geom g;
};
int lk_conv_weight_grad(struct lk_dev *dev, const struct lk_conv_dw *p);
int64_t lk_conv_dw_tiles(const struct lk_conv_geom *g);
/* db += sums of the columns of dy (pixels,c); part: lk_conv_db_parts(pixels) x c floats of scratch */
int64_t lk_conv_db_parts(int64_t pixels);
int lk_conv_bias_grad(struct lk_dev *dev, float *db, float *part, const lk_bf16 *dy, int64_t pixels, int32_t c);

/* y (pixels, round up of c to 8) = x (pixels,c), then zeros. */
int lk_conv_pad(struct lk_dev *dev, lk_bf16 *y, const lk_bf16 *x, int64_t pixels, int32_t c);
/* Writes the packed weights of all phases of a direction. */
int lk_conv_pack(struct lk_dev *dev, lk_bf16 *packed, const struct lk_conv_geom *g, int backward, const float *w);

#endif
