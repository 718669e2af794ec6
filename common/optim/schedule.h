/* schedule.h - the learning rate of each update, as a pure function of its number.
 *
 *	struct lwm_schedule s = { .shape = LWM_COSINE, .lr = 3e-4, .warmup_steps = 20 };
 *	lwm_schedule_check(&s, e)                      once
 *	lwm_schedule_rate(&s, steps, n)                update n of a stage of `steps` updates, from 0
 *
 * Over the first W = warmup_steps updates the rate is linear from init_lr to lr: update n has gone (n+1)/W of the way, or n/W
 * (LWM_FROM_ZERO). After them it is constant, or falls to min_lr at update `decay_steps` along half a cosine or a line, and stays
 * there. LWM_COSINE with LWM_FROM_ZERO is optax's warmup_cosine_decay_schedule(init_lr, lr, W, decay_steps, min_lr).
 */
#ifndef LWM_OPTIM_SCHEDULE_H
#define LWM_OPTIM_SCHEDULE_H

#include <stdint.h>

#include "common/base/err.h"

enum lwm_schedule_shape { LWM_CONSTANT, LWM_COSINE, LWM_LINEAR };
extern const char *const lwm_schedule_names[]; /* of the shapes, NULL-terminated, for option tables */
enum lwm_warmup_from { LWM_FROM_ONE, LWM_FROM_ZERO };
extern const char *const lwm_warmup_names[];

struct lwm_schedule {
	int shape;            /* enum lwm_schedule_shape: after the warm-up */
	double lr;            /* the highest rate */
	double min_lr;        /* the rate at the end; unused by LWM_CONSTANT */
	double init_lr;       /* the rate that the warm-up starts from */
	int64_t warmup_steps; /* updates of the warm-up; 0: none */
	int64_t decay_steps;  /* updates until min_lr, the warm-up among them; 0: all of the stage */
	int warmup_from;      /* enum lwm_warmup_from: what the first of W warm-up updates uses, 1/W of the way or nothing */
};

/* The rate of update n of `steps`. Pure. */
double lwm_schedule_rate(const struct lwm_schedule *s, int64_t steps, int64_t n);
/* -LWM_EUSAGE: the decay would end before the warm-up does. Pure. */
int lwm_schedule_check(const struct lwm_schedule *s, struct lwm_err *e);

#endif
