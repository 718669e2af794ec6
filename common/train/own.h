/* own.h - which values of the model's tensors a rank keeps: tensor parallelism and the cut over ranks (tensor/cut.h), one after the
 * other, and back to elements of the whole tensors, in which checkpoints, models and first values speak.
 *
 *	struct lwm_own own = lwm_own_of(o, &cut, world_rank);        any rank can ask for any other
 *	runs = lwm_own_runs(&own, i, run, &at);                      elements of whole tensor i: those of the state from `at` on
 *	lwm_own_read(run, runs, read, ctx, state + at, e);
 */
#ifndef LWM_TRAIN_OWN_H
#define LWM_TRAIN_OWN_H

#include "common/tensor/cut.h"
#include "common/tensor/range.h"
#include "common/train/objective.h"

struct lwm_own {
	const struct lwm_tensors *whole, *local; /* the objective's, borrowed */
	int tp, tp_rank;
	struct lwm_cut cut; /* of the local vector, as this rank has it; its groups are borrowed */
};
/* cut: that of any rank. Pure. */
struct lwm_own lwm_own_of(const struct lwm_objective *o, const struct lwm_cut *cut, int world_rank);

/* What the rank owns the state of, of tensor i: at most LWM_RUNS runs of the whole tensor, in order; they are the state's elements
 * from *at on. 0: nothing of it. */
int lwm_own_runs(const struct lwm_own *own, int64_t i, struct lwm_run run[LWM_RUNS], int64_t *at);
/* What lwm_own_runs has found, in the moments: lwm_cut_trained, and its *next. Tensors are asked for in the order of the table. */
int64_t lwm_own_trained(const struct lwm_own *own, int64_t i, const struct lwm_run *run, int runs, int64_t at, int64_t *next);
/* Of what several tensor-parallel ranks hold: is this the one that writes it down, and counts it? */
bool lwm_own_speaks(const struct lwm_own *own, int64_t i);

/* Elements [offset, offset + n) of a whole tensor to out; one that it does not have may be left as it is. */
typedef int lwm_own_read_fn(void *ctx, int64_t offset, int64_t n, float *out, struct lwm_err *e);
/* The runs, end to end, to out. Narrow ones (columns of a matrix) are picked out of stretches of at most 4 MiB, or one row, that
 * are read whole. Returns what read returned, or -LWM_EMEMORY. */
int lwm_own_read(const struct lwm_run *run, int runs, lwm_own_read_fn *read, void *ctx, float *out, struct lwm_err *e);

#endif
