/* start.h - the weights that a stage starts from: drawn at random, or those of a checkpoint or of a model folder.
 *
 *	lwm_start_parse(&from, stage->start_from, e)    the one reader of that text; lwm_stage_check has asked it
 *	lwm_start_look(&from, ...)                      a plan: would the next one succeed?
 *	lwm_start_read(comm, &from, ...)                a run without a checkpoint of its own
 */
#ifndef LWM_TRAIN_START_H
#define LWM_TRAIN_START_H

#include "common/comm/comm.h"
#include "common/train/own.h"

struct lwm_start {
	const char *source;   /* as lwm_source_open takes it; NULL: random weights */
	bool may_lack_vision; /* "text-" stood before it: vision tensors that the source lacks stay as they were drawn */
	/* "trunk-" stood before it: only what lwm_start_in_trunk says is taken, everything else stays as it was drawn. So objectives with
	 * different inputs and heads start from each other. */
	bool trunk;
};
/* Looks at no file. The text is borrowed. -LWM_EUSAGE. */
int lwm_start_parse(struct lwm_start *out, const char *text, struct lwm_err *e);

/* Layers and the last norm; and how vectors enter the layers, where the source has that in the same shape. Pure. */
bool lwm_start_in_trunk(const char *tensor);

/* from->source is not NULL. Values that this rank owns go to host_out, host memory of own->cut.count floats. older_ok: as in
 * lwm_ckpt_latest. tokenizer: hash of the one the data were made with, NULL or "": none; a source that records another one is
 * -LWM_ECONFIG naming both, as is one with a tensor that is not among own->whole. COLLECTIVE while the source is opened (share.h);
 * a failure after that is known to this rank only. */
int lwm_start_read(struct lwm_comm *comm, const struct lwm_start *from, bool older_ok, const char *tokenizer,
		   const struct lwm_own *own, float *host_out, struct lwm_err *e);

/* What lwm_start_read finds out before it reads: does it exist, and is it of this kind? Its bytes are not read. Local. */
int lwm_start_look(const struct lwm_start *from, bool older_ok, const char *tokenizer, const struct lwm_tensors *t,
		   struct lwm_err *e);

#endif
