/* save.h - a stage's state in checkpoints: out and back in, on the same mesh or another. */
#ifndef LWM_TRAIN_SAVE_H
#define LWM_TRAIN_SAVE_H

#include "common/io/ckpt.h"
#include "common/optim/guards.h"
#include "common/optim/weights.h"
#include "common/train/objective.h"

/* What a run must remember beside weights and moments. Everything else is a function of seed and step. */
struct lwm_progress_state {
	int64_t step;         /* steps done, with those that were skipped */
	double units;         /* tokens or frames trained on */
	struct lwm_guard_state guard;
	double loss;          /* of the last step, for the summary of a run that was stopped behind it */
	char more[1024];      /* what else the objective said of it: ,"key":value... */
};

/* COLLECTIVE over the world. Writes, agrees, commits; old ones go by rank 0's keeper (NULL on the other ranks). What fails is this
 * save alone: its own parts are removed again, and what stood before stands. */
int lwm_save(const struct lwm_objective *o, struct lwm_weights *w, const struct lwm_progress_state *st,
	     struct lwm_ckpt_keeper *keeper, struct lwm_err *e);

struct lwm_resumed {
	char dir[4096];    /* "": there was nothing to resume from */
	json_t *settings;  /* as the checkpoint recorded them; the caller's to decref */
};
/* COLLECTIVE. Resumes from the newest whole checkpoint in stage->out. Damaged ones are reported on the log and passed over; when
 * none of them is whole it is -LWM_EDATA, unless stage->start_over. A model that differs is -LWM_ECONFIG naming both values. */
int lwm_resume(const struct lwm_objective *o, struct lwm_weights *w, struct lwm_progress_state *st, struct lwm_ckpt_keeper *keeper,
	       struct lwm_resumed *found, struct lwm_err *e);
/* Local, rank 0: once the run is known to go on, what is damaged and newer is moved to OUT/damaged; with stage->start_over and
 * nothing to resume from, metrics.jsonl too. */
int lwm_resume_settle(const struct lwm_stage *s, const struct lwm_resumed *found, int64_t step, struct lwm_err *e);
/* COLLECTIVE. First weights by stage->start_from. */
int lwm_start(struct lwm_objective *o, struct lwm_weights *w, struct lwm_err *e);

#endif
