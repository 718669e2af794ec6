/* conv_plan.h - how a convolution becomes matrix products: pure arithmetic, shared by host, device and tests.
 *
 * Along one axis (rows or columns), with window k, padding p, stride s and doubling up (1 or 2), output o under tap t
 * reads virtual input v = o s + t - p, which is pixel floor(v / up) of the source, or nothing outside of it.
 *
 * A *pass* computes dst from src: forward (dst = y, src = x) or backward (dst = dx, src = dy). Its outputs fall into
 * `step` phases along each axis; outputs phase, phase + step, phase + 2 step, ... of a phase all see the source through the
 * same window: number a of them reads src[a stride + first + j] for j in [0,taps) with weights of its own. Those are the
 * sums of the taps t that fall on j, which saves more than half of the work of a 3x3 window after a doubling:
 *	forward:  j = floor((phase s + t - p) / up) - first
 *	backward: j = (up phase + d + p - t) / s - first, for every d in [0,up) that divides evenly
 * So every pass is a matrix product (dst pixels of a phase) x (window, channels) with a gather in front.
 */
#ifndef LK_CUDA_CONV_PLAN_H
#define LK_CUDA_CONV_PLAN_H

#include <stdint.h>

#include "kernels/kernels.h"

#ifdef __CUDACC__
#define LK_BOTH __host__ __device__
#else
#define LK_BOTH
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { LK_CONV_BK = 64 }; /* depth of a tile of the product: packed rows of weights are multiples of it */

struct lk_conv_dim { /* one axis of the convolution */
	int32_t k, pad, stride, up, backward;
};

struct lk_conv_axis { /* one axis of one phase */
	int32_t step, phase, count; /* outputs phase + step a, a in [0,count) */
	int32_t stride, first, taps; /* taps 0: nothing reaches these outputs, which are 0 */
};

struct lk_conv_phase {
	struct lk_conv_axis y, x;
	int64_t k;  /* taps x channels rounded up to 8, rounded up to LK_CONV_BK; 0: no taps */
	int64_t at; /* of its weights (channels of dst, k) in the packed ones, elements */
};

LK_BOTH static inline int32_t lk_floor_div(int32_t a, int32_t b) /* b > 0 */
{
	return a >= 0 ? a / b : -((b - 1 - a) / b);
}

/* The tap j of a phase that tap t of the window adds to (backward: by way of d), or -1. */
LK_BOTH static inline int32_t lk_conv_tap(const struct lk_conv_dim *m, const struct lk_conv_axis *a, int32_t t, int32_t d)
{
	int32_t v;

	if (!m->backward)
		return lk_floor_div(a->phase * m->stride + t - m->pad, m->up) - a->first;
	v = m->up * a->phase + d + m->pad - t;
	return v - lk_floor_div(v, m->stride) * m->stride ? -1 : lk_floor_div(v, m->stride) - a->first;
}

int32_t lk_conv_steps(const struct lk_conv_dim *m); /* phases along the axis */
/* dst: extent of the written image along the axis. */
struct lk_conv_axis lk_conv_axis_of(const struct lk_conv_dim *m, int32_t phase, int64_t dst);

struct lk_conv_dim lk_conv_rows(const struct lk_conv_geom *g, int backward);
struct lk_conv_dim lk_conv_cols(const struct lk_conv_geom *g, int backward);
/* Phase i of lk_conv_steps^2, with x fastest; counts are those of a dst of h x w pixels; `at` is left 0. */
struct lk_conv_phase lk_conv_phase_of(const struct lk_conv_geom *g, int backward, int32_t i, int64_t h, int64_t w);
/* Elements of the packed weights of all phases. */
int64_t lk_conv_packed(const struct lk_conv_geom *g, int backward);

/* Columns of a tile (128, 64 or 32) for n channels of dst. */
int lk_conv_tile(int64_t n);
/* Into how many ranges of pixels the sum of a weight gradient is cut. Depends on the problem alone, so that sums are formed in
 * the same order on every chip. tiles: of the product; pixels: its depth; size: elements of the gradient. */
int64_t lk_conv_splits(int64_t tiles, int64_t pixels, int64_t size);

#ifdef __cplusplus
}
#endif
#endif
