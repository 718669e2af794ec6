/* save.h - a stage's state in checkpoints: out and back in, on the same mesh or another. */
#ifndef LWM_TRAIN_SAVE_H
#define LWM_TRAIN_SAVE_H

#include "common/train/weights.h"

/* What a run must remember beside weights and moments. Everything else is a function of seed and step. */
struct lwm_progress_state {
	int64_t step;         /* updates done */
	int64_t skipped;      /* updates left out by a guard */
	double units;         /* tokens or frames trained on */
	double recent[64];    /* gradient norms of the last good steps, for the spike guard: [step % 64] */
	int64_t nrecent;
};

/* COLLECTIVE over the world. Writes, agrees, commits, retires old ones. A full disk is an error of this save alone: -LWM_EIO. */
int lwm_save(const struct lwm_objective *o, struct lwm_weights *w, const struct lwm_progress_state *st, struct lwm_err *e);

/* COLLECTIVE. Resumes from the newest verified checkpoint in stage->out, if there is one: *found says so. Folders that do
 * not verify are reported on the log and passed over. A model that differs is -LWM_ECONFIG naming both values. */
int lwm_resume(const struct lwm_objective *o, struct lwm_weights *w, struct lwm_progress_state *st, bool *found,
	       struct lwm_err *e);
/* COLLECTIVE. First weights by stage->start_from. */
int lwm_start(struct lwm_objective *o, struct lwm_weights *w, struct lwm_err *e);

#endif
