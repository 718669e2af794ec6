/* squares.h - a sum of squares of floats without rounding: the same for any order of them, and for any cut over ranks.
 *
 *	struct lwm_squares s = { .high = { 0 } };
 *	lwm_squares_add(&s, x, n);                  each rank its own values, in as many calls as it likes
 *	lwm_squares_gather(&s, comm, e);            on all ranks: now it is of the values of all
 *	lwm_squares_total(&s)                       rounded once
 *
 * A float is m 2^(x - 150) with m < 2^24 and x its exponent field, its square m^2 2^(2x - 300): of each x the integers m^2 are
 * added up, in two halves of 24 bits, so that 2^40 values fit.
 */
#ifndef LWM_OPTIM_SQUARES_H
#define LWM_OPTIM_SQUARES_H

#include <stdint.h>

#include "common/comm/comm.h"

struct lwm_squares {
	uint64_t high[256], low[256]; /* by exponent field; of 255 the counts of infinities and of NaNs */
};

void lwm_squares_add(struct lwm_squares *s, const float *x, int64_t n); /* local; x in host memory */
/* COLLECTIVE. Sums those of all ranks. -LWM_ERANK, -LWM_EMEMORY. */
int lwm_squares_gather(struct lwm_squares *s, struct lwm_comm *c, struct lwm_err *e);
/* Local. NaN where one was among the values, else infinity where one was. */
double lwm_squares_total(const struct lwm_squares *s);

#endif
