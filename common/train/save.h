/* save.h - a stage's state in checkpoints: what it is, and how it comes back, on the same mesh or another. Out: saver.h.
 *
 *	lwm_stage_resume(o, &w, &st, keeper, &found, e)     at the start: weights, moments and progress of the newest checkpoint
 *	if (!found.dir[0]) lwm_stage_start(o, &w, e)        there is none: first weights
 *	... the objective is attached, found.settings compared (settings_record.h) ...
 *	lwm_stage_settle(s, &found, st.step, e)             rank 0: the run is known to go ahead
 *	lwm_saver_begin, lwm_saver_finish                   after any step
 *
 * A rank writes and reads what it owns the state of (optim/weights.h): one part of a checkpoint each.
 */
#ifndef LWM_TRAIN_SAVE_H
#define LWM_TRAIN_SAVE_H

#include "common/io/ckpt.h"
#include "common/optim/guards.h"
#include "common/optim/scale.h"
#include "common/optim/weights.h"
#include "common/train/objective.h"

/* What a run must remember beside weights and moments. Everything else is a function of seed and step. */
struct lwm_train_state {
	int64_t step;         /* steps done, with those that were skipped */
	double units;         /* tokens or frames trained on */
	struct lwm_guard_state guard;
	struct lwm_scale_state scaling; /* zero where the device does not compute in fp16 */
	double loss;          /* of the last step: for the summary of a run that was stopped right after it */
	char more[2048];      /* what else the objective reported of it: ,"key":value... */
};

/* Which of the optimizer's vectors a group of a checkpoint holds; pure. */
static inline enum lwm_state lwm_state_of_group(int group)
{
	return group == LWM_CKPT_PARAMS ? LWM_STATE_WEIGHTS :
	       group == LWM_CKPT_ADAM_M ? LWM_STATE_M :
	       group == LWM_CKPT_ADAM_V ? LWM_STATE_V :
					  LWM_STATE_AVERAGE;
}

/* Mask of the groups that checkpoints of a run hold; pure. Of what does not train they have no moments, which are 0 there, and as
 * its average the values that it has. */
static inline unsigned lwm_groups_saved(bool average)
{
	return LWM_CKPT_TRAINED_ALL | (average ? 1u << LWM_CKPT_EMA : 0);
}

struct lwm_resumed {
	char dir[4096];    /* the checkpoint; "": there was nothing to resume from */
	json_t *settings;  /* as the checkpoint recorded them; the caller's to decref */
};
/* COLLECTIVE. Of *st the scaling is that of a run that begins; all else is overwritten. Resumes from the newest whole checkpoint in
 * stage->out. Damaged ones are reported on the log and passed over; when
 * none of them is whole it is -LWM_EDATA, unless stage->start_over. A model that differs is -LWM_ECONFIG naming both values. */
int lwm_stage_resume(const struct lwm_objective *o, struct lwm_weights *w, struct lwm_train_state *st,
		     struct lwm_ckpt_keeper *keeper, struct lwm_resumed *found, struct lwm_err *e);
/* Local, rank 0, once nothing refuses the run: damaged checkpoints newer than `step` are moved to OUT/damaged; with
 * stage->start_over and nothing to resume from, metrics.jsonl too. */
int lwm_stage_settle(const struct lwm_stage *s, const struct lwm_resumed *found, int64_t step, struct lwm_err *e);
/* COLLECTIVE. First weights: those of stage->start_from; what it lacks and may lack (start.h) is drawn (tensor/init.c); what
 * follows others (tensor.h) is equal to them. */
int lwm_stage_start(struct lwm_objective *o, struct lwm_weights *w, struct lwm_err *e);

#endif
