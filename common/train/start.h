/* start.h - the weights that a stage starts from: those of a checkpoint or of a model folder. */
#ifndef LWM_TRAIN_START_H
#define LWM_TRAIN_START_H

#include "common/comm/comm.h"
#include "common/tensor/tensor.h"

/* Where weights come from: "checkpoint:ROOT" or "checkpoint:ROOT/step_N", "model:DIR". Values of the tensors t that lie in
 * flat [first, first+count) go to host_out. Vision tensors that are missing stay as they are when may_lack_vision.
 * older_ok: as in lwm_ckpt_latest. tokenizer: hash of the one the data were made with, NULL or "": none; a source that records
 * another one is -LWM_ECONFIG naming both, as is one with a tensor that is not among t. COLLECTIVE in opening the source (share.h);
 * what fails after that, only this rank knows. */
int lwm_start_read(struct lwm_comm *comm, const char *source, bool older_ok, const char *tokenizer, const struct lwm_tensors *t,
		   bool may_lack_vision, int64_t first, int64_t count, float *host_out, struct lwm_err *e);

/* What lwm_start_read finds out before it reads: is it there, and of this kind? Its bytes are not looked at. Local. */
int lwm_start_look(const char *source, bool older_ok, const char *tokenizer, const struct lwm_tensors *t,
		   struct lwm_err *e);

#endif
