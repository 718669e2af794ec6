/* merge.h - checkpoints into models, or cut for another number of ranks.
 *
 *	lwm_ckpt_open(&c, dir, e)
 *	lwm_merge_model(c, group, fold, out, &spec, force, &p, e)  and lwm_merge_verify_model: is the folder that checkpoint?
 *	lwm_merge_recut(c, root, ranks, mesh, force, &p, e)      and lwm_merge_verify_ckpt: are the two the same?
 *	lwm_ckpt_close(c)
 *
 * Everything streams: little memory for any size. All but lwm_merge_verify_ckpt look now and then whether the program was asked to
 * stop (common/base/stop.h): then -LWM_ESAVED, and what was begun counts for nothing. Local calls.
 */
#ifndef LWM_IO_MERGE_H
#define LWM_IO_MERGE_H

#include "common/base/progress.h"
#include "common/io/ckpt.h"
#include "common/io/model.h"

/* All values of one group of an open checkpoint, its params or their average, into the model folder `dir`. spec: kind, config and
 * tokenizer may be NULL: those of the checkpoint (config is "model" of its configuration). p counts bytes of fp32 values; may be
 * NULL. 1: the folder is there, made from the same and every byte of it verified; nothing was written. A damaged one of
 * the same origin is made again; another is -LWM_ECANTCREATE without force. fold: adapters are added to their matrices (fold.h).
 * -LWM_ECONFIG: the checkpoint does not hold the group; or it has adapters, and fold is false, or the other way round. */
int lwm_merge_model(struct lwm_ckpt *c, enum lwm_ckpt_group group, bool fold, const char *dir, const struct lwm_model_spec *spec,
		    bool force, struct lwm_progress *p, struct lwm_err *e);
/* Tensors and values of a model that a checkpoint becomes: adapters are none of it. -LWM_EMEMORY. */
int lwm_merge_size(const struct lwm_ckpt *c, int64_t *tensors, int64_t *values, struct lwm_err *e);
/* Reads a model back and compares every value with the checkpoint's, rounded to the model's type. -LWM_ENO: they
 * differ. */
int lwm_merge_verify_model(struct lwm_ckpt *c, enum lwm_ckpt_group group, bool fold, const char *dir, enum lwm_st_dtype dtype,
			   struct lwm_progress *p, struct lwm_err *e);
/* The same checkpoint in `ranks` parts of equal size under root/step_XXXXXXXX; `mesh` goes into its record. A
 * checkpoint whose ranks stored state of their own is -LWM_ECONFIG. 1: it is there with the same values, nothing was written. */
int lwm_merge_recut(struct lwm_ckpt *c, const char *root, int ranks, const char *mesh, bool force,
		    struct lwm_progress *p, struct lwm_err *e);
/* Every value of every group. -LWM_ENO: they differ. */
int lwm_merge_verify_ckpt(struct lwm_ckpt *a, struct lwm_ckpt *b, struct lwm_progress *p, struct lwm_err *e);

#endif
