/* start.h - the weights that a stage starts from: those of a checkpoint or of a model folder. */
#ifndef LWM_TRAIN_START_H
#define LWM_TRAIN_START_H

#include "common/comm/comm.h"
#include "common/tensor/tensor.h"

/* source: "checkpoint:ROOT", "checkpoint:ROOT/step_N" or "model:DIR". Values of the tensors t that lie in flat
 * [first, first+count) go to host_out, host memory of `count` floats. Vision tensors that the source lacks stay as they are when
 * may_lack_vision. older_ok: as in lwm_ckpt_latest. tokenizer: hash of the one the data were made with, NULL or "": none; a
 * source that records another one is -LWM_ECONFIG naming both, as is one with a tensor that is not among t. COLLECTIVE while the
 * source is opened (share.h); a failure after that is known to this rank only. */
int lwm_start_read(struct lwm_comm *comm, const char *source, bool older_ok, const char *tokenizer, const struct lwm_tensors *t,
		   bool may_lack_vision, int64_t first, int64_t count, float *host_out, struct lwm_err *e);

/* What lwm_start_read finds out before it reads: does it exist, and is it of this kind? Its bytes are not read. Local. */
int lwm_start_look(const char *source, bool older_ok, const char *tokenizer, const struct lwm_tensors *t,
		   struct lwm_err *e);

#endif
