/* world.h - clips that begin with frames of a file and go on under actions: roll.h from pictures to codes. Local calls.
 *
 *	struct lwm_world w = { .g = g, .net = vq.net, .roll = ..., .frames = ... };
 *	lwm_world_set(&w, tok, &texts, e)                                 what is done
 *	lwm_world_draw(&w, "start.mp4", sample, codes, NULL, NULL, NULL, e)
 *	lwm_world_unset(&w)
 */
#ifndef LWM_EVAL_WORLD_H
#define LWM_EVAL_WORLD_H

#include "common/base/path.h"
#include "common/infer/roll.h"
#include "common/media/frames.h"
#include "common/model/vqgan.h"

/* Borrowed, but for what lwm_world_set makes: the ids of roll, and the actions. */
struct lwm_world {
	struct lwm_engine *g;
	struct lwm_vqgan *net;
	struct lwm_roll roll;
	struct lwm_frames_opts frames; /* how a file is read: width and height of a frame, frames a second, and max_frames: how many
					* of its first ones are given, 1 to roll.overlap */
	struct lwm_ids *action;
	int64_t actions;
};
/* What is done, as texts of text/action.h: one action for the whole clip, one for each round, or one for each step from a frame to
 * the next (frames of the clip - 1, those between given frames among them); none of them: roll.free. -LWM_EUSAGE: no such action,
 * or another number of them; rounds, frames or max_frames are impossible together. To be unset after a failure too. */
int lwm_world_set(struct lwm_world *w, struct lwm_tokenizer *tok, const struct lwm_paths *actions, struct lwm_err *e);
void lwm_world_unset(struct lwm_world *w);
int64_t lwm_world_context(const struct lwm_world *w); /* tokens that the context of a round takes at most */
/* codes: (lwm_roll_frames, frame_codes), host: those of the frames that were given, then the drawn ones. A file of fewer frames
 * than frames.max_frames gives what it has; *given (may be NULL) is how many. Errors: those of frames.h, vqgan.h and roll.h. */
int lwm_world_draw(const struct lwm_world *w, const char *path, uint64_t sample, int32_t *codes, int64_t *given,
		   lwm_code_fn *progress, void *arg, struct lwm_err *e);

#endif
