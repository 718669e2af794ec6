/* generation.h - what decoding needs beside a model: caches of keys and values in fewer bits, the choice of a token.
 *
 * A chapter of kernels.h, which outside code includes instead. Attention with at most LK_ATTN_FEW queries reads such caches as
 * they are (attention.h).
 */
#ifndef LK_GENERATION_H
#define LK_GENERATION_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Keys or values in fewer bits, for caches. x (n,H,D) of the device's dtype -> y (n,H,D) LK_BF16 (scale NULL), or LK_I8
 * with scale (n,H) fp32, rows scale_stride apart: scale = max|x| / 127 over D, y = x / scale rounded to even. A row of
 * zeros has scale 0, a row with NaN or Inf has scale NaN and y 0. */
int lk_kv_store(struct lk_dev *dev, const struct lk_view *y, float *scale, int64_t scale_stride,
		const struct lk_view *x);
/* And back: y = x * scale. */
int lk_kv_load(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const float *scale,
	       int64_t scale_stride);

/* How a token is chosen. */
struct lk_draw_cfg {
	int64_t first, last; /* only columns [first, last) have a chance */
	int64_t top_k;       /* 0: all; else so many of the largest, lower index first on ties */
	double temperature;  /* 0: the largest logit, the lowest index on ties */
	double top_p;        /* 1: all; else the largest that make up so much of the weight */
};
/* For each row of logits (n,V) fp32 one column, by inverse transform of host_u[i] in [0,1) over exp(logit / temperature)
 * of what the limits leave, in index order without limits, else from the largest down. What weighs less than 2^-41 of the
 * largest may count as nothing. host_logprob (may be NULL): natural log of its probability at temperature 1 over
 * [first, last). host_id -1: NaN or +Inf in the range, or nothing finite. Waits. */
int lk_draw(struct lk_dev *dev, const struct lk_view *logits, const struct lk_draw_cfg *how, const double *host_u,
	    int32_t *host_id, double *host_logprob);

#ifdef __cplusplus
}
#endif
#endif
