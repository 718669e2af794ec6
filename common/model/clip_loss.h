/* clip_loss.h - how far a denoised clip is from the true one: weighted squared error, heavier where the motion is wrong, and once
 * more for edges (Gao et al. 2024, Vista: dynamics enhancement, structure preservation).
 *
 * Of a clip z (T, rows, columns, channels) of n numbers, denoised p, w the weight of its sigma (noise.h), d = p - z:
 *
 *	loss = 1/n sum (1 + A) w d^2 + structure 1/n sum w (H d)^2
 *	A_t = a_t / |a|,  a_t = (d_t - d_{t-1})^2,  A_0 = 0;  |a| of each channel: the root of the sum of a^2 over times and places
 *	H d = d without its low frequencies: of the transform of R rows and C columns those are 0 with
 *	      (2h/R - 1)^2 + (2w/C - 1)^2 <= 1/2, h and w counted so that frequency 0 lies at R/2 and C/2, rounded down
 *
 * The first `clean` times were given: there p counts as z. A is a weight: the gradient does not go through it.
 *
 *	lwm_clip_loss_new(&l, &shape, structure, dynamics, e)
 *	lwm_clip_loss(l, z, p, clean, w, &parts, gradient)       adds to parts; local, host memory, sums in double precision
 *	lwm_clip_loss_free(l)
 */
#ifndef LWM_MODEL_CLIP_LOSS_H
#define LWM_MODEL_CLIP_LOSS_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/model/noise.h"

struct lwm_clip_loss;
/* structure: its weight, 0.1 as published; 0: that part is not computed. dynamics false: A is 0. -LWM_EMEMORY. */
int lwm_clip_loss_new(struct lwm_clip_loss **out, const struct lwm_latent_shape *s, double structure, bool dynamics,
		      struct lwm_err *e);
void lwm_clip_loss_free(struct lwm_clip_loss *l); /* NULL is fine */
int64_t lwm_clip_loss_bytes(const struct lwm_latent_shape *s); /* host memory that one takes */

struct lwm_clip_parts {
	double plain, dynamics, structure; /* 1/n sum w d^2; what A adds; the third part, its weight in it */
};
/* The loss is the sum of the parts. gradient: of p, overwritten; NULL: not wanted. It may not be p or z. */
void lwm_clip_loss(struct lwm_clip_loss *l, const float *z, const float *p, int64_t clean, double w, struct lwm_clip_parts *parts,
		   float *gradient);

#endif
