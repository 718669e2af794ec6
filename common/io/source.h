/* source.h - where a model's weights come from: a checkpoint of a run, or a model folder, read as one thing.
 *
 *	lwm_source_open(&s, "checkpoint:RUN", ...)   or "checkpoint:RUN/step_N", "ema:" of the same, or "model:DIR"
 *	lwm_source_all_placed(&s, &tensors, e)       nothing of it would be left out in silence
 *	lwm_source_read(&s, &tensors.list[i], ...)   values of one tensor, as they lie in memory
 *	lwm_source_close(&s)
 *
 * A checkpoint with adapters (fold.h) is read as the model that it trains: they are added to their matrices, and are not among its
 * tensors.
 *
 * Local calls. After a failed open there is still lwm_source_close to call. */
#ifndef LWM_IO_SOURCE_H
#define LWM_IO_SOURCE_H

#include "common/io/ckpt.h"
#include "common/io/fold.h"
#include "common/io/model.h"
#include "common/tensor/tensor.h"

struct lwm_source { /* one of ckpt and model; owned */
	struct lwm_ckpt *ckpt;
	struct lwm_model *model;
	enum lwm_ckpt_group group; /* of the checkpoint: params, or the average of them */
	struct lwm_fold fold;
	char *dir; /* the folder that is read: of a run its step */
};

enum lwm_source_kind { LWM_SOURCE_CHECKPOINT, LWM_SOURCE_AVERAGE, LWM_SOURCE_MODEL };
/* Which of them a text names, and *path, the folder in it (part of text). Looks at no file. -LWM_EUSAGE: none of them. */
int lwm_source_parse(const char *text, enum lwm_source_kind *kind, const char **path, struct lwm_err *e);
/* text: "checkpoint:ROOT", "checkpoint:ROOT/step_N" or "model:DIR"; "ema:..." is the average that a checkpoint keeps of its weights.
 * older_ok: as in lwm_ckpt_latest. how: how closely a checkpoint is looked at. -LWM_ENOINPUT: nothing is there; -LWM_ECONFIG: it
 * keeps no average; -LWM_EUSAGE: none of these. */
int lwm_source_open(struct lwm_source *s, const char *text, bool older_ok, enum lwm_ckpt_check how, struct lwm_err *e);
/* dir: a model folder, a checkpoint's ROOT or step folder, or "ema:" before one of the latter. *config: of the model, borrowed; none
 * recorded is -LWM_EDATA. */
int lwm_source_open_folder(struct lwm_source *s, const char *dir, bool older_ok, enum lwm_ckpt_check how, const json_t **config,
			   struct lwm_err *e);
/* s->ckpt was opened by the caller, of a text of this kind: what lwm_source_open does then. */
int lwm_source_settle(struct lwm_source *s, enum lwm_source_kind kind, struct lwm_err *e);
void lwm_source_close(struct lwm_source *s);

/* n values of t from `offset` on, in memory layout, fp32. A tensor that does not exist: left as it is when may_lack, else
 * -LWM_ECONFIG, as is one of another shape. */
int lwm_source_read(struct lwm_source *s, const struct lwm_tensor *t, bool may_lack, int64_t offset, int64_t n, float *out,
		    struct lwm_err *e);
/* Every tensor of the source has a place in the table: what is left out would be lost in silence. -LWM_ECONFIG. */
int lwm_source_all_placed(const struct lwm_source *s, const struct lwm_tensors *t, struct lwm_err *e);
/* Hash of the tokenizer that the source records; "" when it does not say. Borrowed. */
const char *lwm_source_tokenizer(const struct lwm_source *s);
/* The model's configuration, borrowed; NULL: a checkpoint that records none. */
const json_t *lwm_source_config(const struct lwm_source *s);
/* lwm_ckpt_bad_fn: says on the log which checkpoint is passed over, and why. */
void lwm_source_passed_over(void *ctx, const char *dir, const struct lwm_err *why);

#endif
