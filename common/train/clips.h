/* clips.h - what objectives over clips of patches share: their clips, which of them a step sees, and the trunk over them.
 *
 *	lwm_clips_check(s, &mesh, e)           settings alone
 *	lwm_clips_find(&c, o, e)               open: which media there are
 *	lwm_clips_trunk(&cfg, s, e)            the trunk: sizes of --model, as a language model of the same settings has them
 *	lwm_clips_load(&c, o, e)               attach: decoded, cut into clips
 *	lwm_clips_at(&c, s, step, i)           clip i of the step's batch
 *	lwm_clips_release(&c)
 *
 * A clip is --clip-frames neighbouring frames of a medium, which is cut into as many as it has room for. A step's batch are
 * --batch-clips different clips, a pure function of (seed, step) that does not depend on the ranks: each epoch goes through a
 * permutation of them and leaves out the rest that fills no batch. Everything is local; every rank decodes all media.
 */
#ifndef LWM_TRAIN_CLIPS_H
#define LWM_TRAIN_CLIPS_H

#include "common/media/augment.h"
#include "common/model/llama_cfg.h"
#include "common/train/frame_cache.h"
#include "common/train/objective.h"

struct lwm_clips {
	struct lwm_paths media, held_media;
	struct lwm_frame_cache cache;
	int64_t *first;            /* frame in the cache that each clip begins with; those held out come last */
	int64_t n, held;           /* clips to train on; held out */
	struct lwm_patch_grid grid;
};

struct lwm_patch_grid lwm_clips_grid(const struct lwm_stage *s);
/* -LWM_ECONFIG: sizes that do not divide, a batch that does not divide among the data ranks, or a mesh of other ranks (tp, sp). */
int lwm_clips_check(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e);
/* Of this rank: clips of a step. */
int64_t lwm_clips_share(const struct lwm_objective *o);
int lwm_clips_trunk(struct lwm_llama_cfg *c, const struct lwm_stage *s, struct lwm_err *e);
/* How the layers are run, as the settings of a language model say: recomputation, host memory, groups of heads. */
struct lwm_llama_run lwm_clips_run(const struct lwm_stage *s);
int lwm_clips_find(struct lwm_clips *c, struct lwm_objective *o, struct lwm_err *e);
/* Planning: bytes of the cache and of the list of clips. */
int lwm_clips_bytes(const struct lwm_clips *c, const struct lwm_objective *o, int64_t *bytes, struct lwm_err *e);
/* -LWM_ECONFIG: a medium of fewer frames than a clip; fewer clips than a batch. Fills o->data. */
int lwm_clips_load(struct lwm_clips *c, struct lwm_objective *o, struct lwm_err *e);
/* Frames of clip i of the batch of a step; of held-out clip i, of training clips where none is held out. Borrowed. */
const uint8_t *lwm_clips_at(const struct lwm_clips *c, const struct lwm_stage *s, int64_t step, int64_t i);
const uint8_t *lwm_clips_held(const struct lwm_clips *c, int64_t i);
/* Clips that an evaluation can choose from. */
int64_t lwm_clips_to_judge(const struct lwm_clips *c);
/* --eval-rows of them, or as many as there are, dealt out to the data ranks in stretches: this rank's are [*first, *end). */
void lwm_clips_deal(const struct lwm_clips *c, const struct lwm_objective *o, int64_t *first, int64_t *end);
/* Passes of at most `most` clips that such an evaluation takes of the rank that has most clips: ranks that share weights go through
 * as many, those without a clip left with any. */
int64_t lwm_clips_passes(const struct lwm_clips *c, const struct lwm_objective *o, int64_t most);
/* Clips that a sample shows (--samples): the first ones of those, on every rank the same. */
int64_t lwm_clips_to_show(const struct lwm_clips *c, const struct lwm_objective *o);
void lwm_clips_release(struct lwm_clips *c);
/* The model's configuration for checkpoints and model folders: the trunk's, the objective's name, and the grid. */
int lwm_clips_config(json_t **out, const char *objective, const struct lwm_llama_cfg *c, const struct lwm_stage *s,
		     struct lwm_err *e);

#endif
