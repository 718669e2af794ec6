/* inverse.h - an inverse-dynamics head: which command leads from one frame to the next. Trained on real clips, it says of drawn
 * ones whether they obey, without knowing how the world works (Vista, Gao et al. 2024, section 4.2, measures control so).
 *
 *	lwm_inverse_init(&h, features, e)
 *	lwm_inverse_add(&h, x, cmd) ...               for each step of the real clips
 *	lwm_inverse_fit(&h, 1e-3, e)
 *	lwm_inverse_name(&h, x)                       a command
 *	lwm_inverse_release(&h)
 *
 * The head is linear: scores are W x, and W minimises the squared distance to one-hot vectors of the commands plus ridge |W|^2, in
 * closed form (Cholesky), so that nothing is drawn and no order matters but for rounding. x of a step are the VQGAN's latents of
 * the first frame, before quantization, averaged to LWM_INVERSE_GRID x LWM_INVERSE_GRID places, what the second frame adds to them,
 * and 1 (lwm_inverse_step). Local calls.
 */
#ifndef LWM_EVAL_INVERSE_H
#define LWM_EVAL_INVERSE_H

#include "common/model/vqgan.h"
#include "common/text/action.h"

enum { LWM_INVERSE_GRID = 4 };

struct lwm_inverse {
	int64_t features, steps;     /* numbers of x; steps added */
	int64_t of[LWM_CMDS];        /* steps of each command */
	double *xx, *xy;             /* sums of x x^T (features, features), lower part; of x one-hot^T (features, LWM_CMDS) */
	double *w;                   /* (features, LWM_CMDS), after the fit */
};
int lwm_inverse_init(struct lwm_inverse *h, int64_t features, struct lwm_err *e);
void lwm_inverse_add(struct lwm_inverse *h, const float *x, enum lwm_action_cmd cmd);
/* ridge > 0, in units of the mean square of a feature. -LWM_EDATA: fewer than two commands were seen. May be called again. */
int lwm_inverse_fit(struct lwm_inverse *h, double ridge, struct lwm_err *e);
/* The command of the largest score among those that the head has seen. */
enum lwm_action_cmd lwm_inverse_name(const struct lwm_inverse *h, const float *x);
void lwm_inverse_release(struct lwm_inverse *h); /* zero-initialised: does nothing */

int64_t lwm_inverse_features(const struct lwm_vqgan_cfg *c); /* of a step */
/* Latents of n frames (host, (n, height, width, embed_dim) in codes) averaged: out (n, LWM_INVERSE_GRID^2, embed_dim). A grid of
 * fewer places than LWM_INVERSE_GRID a side repeats them. */
void lwm_inverse_pool(const float *z, int64_t n, int64_t height, int64_t width, int64_t embed, float *out);
/* x of the step between two pooled frames of `size` numbers each: 2 size + 1 numbers. */
void lwm_inverse_step(const float *from, const float *to, int64_t size, float *x);

#endif
