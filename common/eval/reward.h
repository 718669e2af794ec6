/* reward.h - how sure a world model is of what an action leads to.
 *
 * Vista (Gao et al. 2024, section 3.4) rewards an action a under frames c by how well M drawings of what follows agree:
 *
 *	R(c, a) = exp(-mean over places of 1 / (M - 1) sum over m of (x_m - mean of x)^2)
 *
 * where their x are denoised latents. Here x are the pixels of the drawn frames, not of those that were given: three channels, on
 * [-1, 1]. 1: all drawings are the same; a model that never saw what an action leads to, or obeys it badly, draws this and that. No
 * outside judgement goes into it.
 */
#ifndef LWM_EVAL_REWARD_H
#define LWM_EVAL_REWARD_H

#include "common/eval/world.h"

/* Sums over drawings, place by place. */
struct lwm_reward {
	double *sum, *squares; /* [places], of values 0..255 */
	int64_t places, drawings;
};
int lwm_reward_init(struct lwm_reward *r, int64_t places, struct lwm_err *e); /* places: pixels x 3 of the drawn frames */
void lwm_reward_add(struct lwm_reward *r, const uint8_t *rgb);                /* a drawing: one value of 0..255 for each place */
/* The mean over places of the unbiased variance; 2 drawings or more. */
double lwm_reward_variance(const struct lwm_reward *r);
double lwm_reward_value(const struct lwm_reward *r); /* exp(-variance) */
void lwm_reward_release(struct lwm_reward *r);

/* Draws clips first .. first + samples - 1 (2 or more) that go on from a file, and adds them up in *r, which is made here and
 * released by the caller, after a failure too. Local. Errors: those of lwm_world_draw. */
int lwm_world_rate(const struct lwm_world *w, const char *path, uint64_t first, int64_t samples, struct lwm_reward *r,
		   struct lwm_err *e);

#endif
