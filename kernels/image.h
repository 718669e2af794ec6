/* image.h - images in NHWC, dense: convolution, group norm, leaky relu, pooling, nearest code, pixels, losses.
 *
 * A chapter of kernels.h, which outside code includes instead. A convolution is an object, because backends keep its weights in a
 * form of their own: lk_conv_new, lk_conv_fwd and lk_conv_bwd as often as wanted, lk_conv_refresh after each change of the weights,
 * lk_conv_free.
 */
#ifndef LK_IMAGE_H
#define LK_IMAGE_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- convolution ---- */

struct lk_conv; /* geometry, and the weights in the form the backend likes best */
struct lk_conv_geom {
	int32_t cin, cout, kh, kw, stride;
	int32_t pad_top, pad_left, pad_bottom, pad_right; /* zeros */
	int32_t upsample; /* 1, or 2: the input is first doubled by nearest neighbour */
};
/* The output has H' = (H * upsample + pad_top + pad_bottom - kh) / stride + 1 rows (rounded down), columns likewise.
 * w (kh,kw,cin,cout) fp32 and bias (cout) fp32 are borrowed: call lk_conv_refresh after they changed. */
int lk_conv_new(struct lk_dev *dev, struct lk_conv **out, const struct lk_conv_geom *g, const float *w,
		const float *bias);
int lk_conv_refresh(struct lk_dev *dev, struct lk_conv *c);
void lk_conv_free(struct lk_conv *c); /* NULL is fine */
/* x (N,H,W,cin) -> y (N,H',W',cout), plus add (like y) when not NULL: the residual branch. y must not alias x. */
int lk_conv_fwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *y, const struct lk_view *x,
		const struct lk_view *add);
/* dx OVERWRITTEN (NULL: not wanted); dw, db fp32 added into (NULL: not wanted). */
int lk_conv_bwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *dx, float *dw, float *db,
		const struct lk_view *dy, const struct lk_view *x);

/* What the device takes for itself for a convolution of images x (n,h,w,cin), forward and with `back` backward; see lk_attn_own. */
int lk_conv_own(struct lk_dev *dev, const struct lk_conv_geom *g, int64_t n, int64_t h, int64_t w, int back, struct lk_own *own);

/* ---- norm, codes, pixels, loss ---- */

/* Group norm (Wu & He 2018) over H, W and the channels of a group, then silu when silu != 0. x, y (N,H,W,C) dense;
 * scale, bias (C) fp32; mean, rstd (N,groups) fp32. y may alias x in inference. */
int lk_groupnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *mean, float *rstd, const struct lk_view *x,
		     const float *scale, const float *bias, int groups, float eps, int silu);
/* dx OVERWRITTEN, dscale, dbias fp32 added into. x is the input of the forward. dx may alias dy. */
int lk_groupnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dscale, float *dbias,
		     const struct lk_view *dy, const struct lk_view *x, const float *mean, const float *rstd,
		     const float *scale, const float *bias, int groups, float eps, int silu);

/* Leaky relu (Maas et al. 2013): y = x where x > 0, else slope x; slope from 0, which is relu, to 1. y may alias x. Any shape. */
int lk_leaky_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, float slope);
/* dx OVERWRITTEN: dy where the forward's y > 0, else slope dy. dx may alias dy. */
int lk_leaky_bwd(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *y, float slope);

/* y (N,H/2,W/2,C): the largest of each 2 x 2 pixels of x (N,H,W,C); what an odd H or W leaves over counts for nothing. */
int lk_maxpool_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x);
/* dx (like x) OVERWRITTEN: dy goes to the largest of its four pixels, of equal ones the first by rows; all others are 0. */
int lk_maxpool_bwd(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *x);

/* idx[i] = argmin_k |z_i - e_k|^2, lowest k on ties. z (n,D), codebook (K,D) fp32, idx int32. */
int lk_nearest_code(struct lk_dev *dev, int32_t *idx, const struct lk_view *z, const struct lk_view *codebook);

/* y = clip(x * scale + shift) to u8 or back: 8-bit pixels <-> [-1,1]. From u8: u/127.5 - 1. To u8:
 * trunc(clamp((x+1)*127.5, 0, 255)). One of x, y is LK_U8. */
int lk_pixels(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x);

/* Reconstruction loss: host_out[0] = mean |x-t|, host_out[1] = mean (x-t)^2; dx OVERWRITTEN (may be NULL) by
 * (w1 * sign(x-t) + w2 * 2(x-t)) / n, the gradient of w1*L1 + w2*L2. Waits. */
int lk_recon_loss(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
		  float w1, float w2, double *host_out);

/* Distance of features (Zhang et al. 2018, LPIPS): *host_out = mean over N, H, W of sum_c weight_c (x_c / |x| - t_c / |t|)^2, |.|
 * the 2-norm over the channels of a pixel plus 1e-10. x, t (N,H,W,C), weight (C) fp32. dx OVERWRITTEN (may be NULL) by scale
 * times its gradient in x, 0 where all of a pixel's x are. Waits. */
int lk_feature_loss(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
		    const float *weight, float scale, double *host_out);

#ifdef __cplusplus
}
#endif
#endif
