/* scale.h - loss scaling, for gradients that are formed in fp16 (Micikevicius et al. 2018, "Mixed precision training").
 *
 * fp16 ends at 65504 and at 2^-24: gradients smaller than that are lost. So those of the loss times a scale S are formed, and
 * divided by S where they are added up in fp32, before norm, clipping and update. S is a power of two: nothing is rounded by it.
 * A dynamic S is as large as gradients allow: when one is not finite the step is left out and S goes down; after so many updates
 * it is doubled.
 *
 *	w->scale = lwm_scale_now(&st)            the objective forms gradients of S times its loss (model/weights.h)
 *	lwm_weights_reduce(..., 1 / (norm S), &gnorm, e)
 *	if (lwm_scale_overflowed(&cfg, &st, loss, gnorm))
 *		lwm_scale_back_off(&cfg, &st, step)     no update, and no business of the guards
 *	else if (the guards let it pass)
 *		update with the gradient / S, then lwm_scale_note(&cfg, &st)
 *
 * Every rank knows the same loss and norm, so every rank decides the same; the state is part of a checkpoint. All calls are
 * local; only lwm_scale_back_off writes to the log.
 */
#ifndef LWM_OPTIM_SCALE_H
#define LWM_OPTIM_SCALE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

struct lwm_scaling {
	double fixed;     /* S for good; 0: dynamic */
	double first;     /* of a dynamic S */
	int64_t interval; /* updates in a row after which it is doubled */
	double backoff;   /* what it is multiplied by after an overflow */
};
/* S, and what is divided out again, must be powers of two; -LWM_ECONFIG naming the option. */
int lwm_scale_check(const struct lwm_scaling *c, struct lwm_err *e);

struct lwm_scale_state {
	double scale;      /* S; 0: nothing is scaled */
	int64_t good;      /* updates in a row since it changed, or since an overflow */
	int64_t overflows; /* steps left out so far */
};
struct lwm_scale_state lwm_scale_begin(const struct lwm_scaling *c);
static inline double lwm_scale_now(const struct lwm_scale_state *st)
{
	return st->scale > 0 ? st->scale : 1;
}
/* Is this a gradient that S made too large? Not one of a loss that is not finite itself, nor where S cannot go down: those are for
 * the guards. */
bool lwm_scale_overflowed(const struct lwm_scaling *c, const struct lwm_scale_state *st, double loss, double norm);
void lwm_scale_back_off(const struct lwm_scaling *c, struct lwm_scale_state *st, int64_t step); /* step: done before this one */
void lwm_scale_note(const struct lwm_scaling *c, struct lwm_scale_state *st);                   /* an update was made */

#endif
