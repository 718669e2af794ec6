/* roll.h - a clip goes on under actions, in rounds: what a world model does.
 *
 *	lwm_roll_check(&how, given, e)
 *	struct lwm_roll_clip clip = { codes, given, actions, sample };      codes: room for lwm_roll_frames(&how) frames
 *	lwm_roll_forward(g, &how, &clip, progress, arg, e)
 *
 * A context holds, as rows of training do,
 *
 *	head  frame_0  EOF  action_1  frame_1  EOF  action_2  frame_2  EOF  ...
 *
 * action_t being the tokens that lead to frame t (text/action.h). A round's context has `frames` frames; the last `overlap` of
 * them are the first ones of the next round, with the actions that led to all but the first. So rounds make
 * rounds (frames - overlap) + overlap frames in all, those that are given among them (Vista, Gao et al. 2024, section 3.3: 25
 * frames a round, 3 of them shared). How far a clip reaches does not change what a frame costs.
 *
 * Guidance is classifier-free: logits are u + s (c - u), c of the context above, u of one in which each action is `free`, as in
 * documents whose actions were dropped. Over several rounds the scale may rise and fall within each round (LWM_GUIDE_TRIANGLE), so
 * that frames which the next round begins with are less driven than those in the middle: frame t of a round of F gets
 *
 *	1 + (s - 1) (1 - |2 t / (F - 1) - 1|)
 *
 * Local, or COLLECTIVE where the engine is. A draw is a function of (seed, sample, round, place in the context) and the logits: the
 * first round of a long clip is the clip of one round.
 */
#ifndef LWM_INFER_ROLL_H
#define LWM_INFER_ROLL_H

#include "common/infer/compose.h"
#include "common/text/tokenizer.h"

enum lwm_guide_over { LWM_GUIDE_CONSTANT, LWM_GUIDE_TRIANGLE };
extern const char *const lwm_guide_overs[]; /* constant triangle, for option tables */

struct lwm_roll {
	struct lwm_sampler sampler;
	double guide;                /* 1: none, and one stream is enough */
	enum lwm_guide_over over;
	int64_t frame_codes, codes;  /* of a frame; of the frame tokenizer's codebook, 0 = all the model knows */
	int64_t rounds, frames, overlap; /* frames of a round, those it shares with the one before; 1 <= overlap < frames */
	struct lwm_ids head, free;   /* what stands before the first frame of a context; an action that says nothing; borrowed */
};
/* -LWM_EUSAGE: rounds, frames, or `given` frames to begin with are impossible together. Pure. */
int lwm_roll_check(const struct lwm_roll *how, int64_t given, struct lwm_err *e);
int64_t lwm_roll_frames(const struct lwm_roll *how); /* of the whole clip. Pure */
double lwm_roll_guide(const struct lwm_roll *how, int64_t t); /* the scale of frame t of a round. Pure */

struct lwm_roll_clip {
	int32_t *codes;                /* (lwm_roll_frames, frame_codes), host; the first `given` are there, others get filled */
	int64_t given;                 /* 1 to overlap, at most */
	const struct lwm_ids *actions; /* [lwm_roll_frames]: actions[t] leads to frame t; [0] is not looked at */
	uint64_t sample;               /* which of several clips; below 2^40 */
};
/* Tokens of a context at most, when no action has more than `longest`. Pure. */
int64_t lwm_roll_context(const struct lwm_roll *how, int64_t longest);
/* The engine has room for two streams where how->guide is not 1. -LWM_ECONFIG: as lwm_compose_frames; -LWM_EUSAGE: as
 * lwm_roll_check. progress (may be NULL) hears how many codes have been drawn. */
int lwm_roll_forward(struct lwm_engine *g, const struct lwm_roll *how, const struct lwm_roll_clip *clip, lwm_code_fn *progress,
		     void *arg, struct lwm_err *e);

#endif
