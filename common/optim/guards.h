/* guards.h - which updates are made, and how large: clipping, and updates that are skipped.
 *
 *	each step, on every rank, with the loss and gradient norm of all ranks:
 *		if (lwm_guards_refuse(&g, &st, loss, norm))
 *			rc = lwm_guards_skip(&st, step, loss, norm, e);
 *		else
 *			update with the gradient times lwm_guards_clip(&g, norm), then lwm_guards_note(&st, step, norm);
 *
 * A step is refused when its loss or norm is not finite or, with a spike factor, when its norm is far above the median of the last
 * LWM_GUARD_WINDOW updates. Every rank knows the same numbers, so every rank decides the same; the state is part of a checkpoint,
 * so a resumed run decides the same, too. All functions are local; only lwm_guards_skip writes to the log.
 */
#ifndef LWM_OPTIM_GUARDS_H
#define LWM_OPTIM_GUARDS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

enum { LWM_GUARD_WINDOW = 64 };

struct lwm_guards {
	double clip;         /* largest gradient norm; larger gradients are scaled down to it; 0: no clipping */
	double spike_factor; /* updates with a norm above this many medians are skipped; 0: none are */
};

struct lwm_guard_state {
	int64_t skipped;      /* updates skipped so far */
	int64_t skips_in_row; /* since the last update that was made */
	int64_t nrecent;      /* values in recent */
	double recent[LWM_GUARD_WINDOW]; /* gradient norms of the last updates made: that of step n at (n - skipped) mod window */
};

/* Must this step be skipped? */
bool lwm_guards_refuse(const struct lwm_guards *g, const struct lwm_guard_state *st, double loss, double norm);
/* Counts a skipped step and says so on the log. -LWM_ENUMERIC when ten in a row were skipped, or of more than 20 more than one in
 * fifty: the run has diverged. step: steps done before this one. */
int lwm_guards_skip(struct lwm_guard_state *st, int64_t step, double loss, double norm, struct lwm_err *e);
/* The update of this step was made: its norm enters the window. */
void lwm_guards_note(struct lwm_guard_state *st, int64_t step, double norm);
/* What a gradient of this norm is multiplied by: at most 1. */
double lwm_guards_clip(const struct lwm_guards *g, double norm);

#endif
