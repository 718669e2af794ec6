/* compose.h - whole answers and whole frames, token by token.
 *
 * Which head is asked follows from what is being written: text comes from the text head, codes from the vision head,
 * and the markers behind frames are put, not drawn. So a text is never interrupted by a code, and every frame decodes.
 * A draw's step number is its place in the context: the same (seed, sample) gives the same result in every batch.
 */
#ifndef LWM_INFER_COMPOSE_H
#define LWM_INFER_COMPOSE_H

#include "common/infer/engine.h"
#include "common/infer/sample.h"

struct lwm_draw {
	const struct lwm_sampler *sampler;
	int64_t limit;         /* ids of the head below this have a chance */
	double guide;          /* of two streams, the second without the prompt: classifier-free guidance; 1 = none */
	uint64_t step, sample;
};
/* One id of the head, for the stream of the last call. Where logits are not in host memory they stay there, and the same random
 * number meets the same token but for the rounding of sums. COLLECTIVE where the gen is. logprob may be NULL. */
int lwm_engine_draw(struct lwm_engine *g, enum lwm_modality head, const struct lwm_draw *d, int64_t *id, double *logprob,
		 struct lwm_err *e);

struct lwm_text_run {
	struct lwm_sampler sampler;
	uint64_t sample;    /* which of several answers */
	int64_t max_tokens; /* fewer when the context is full */
	int32_t eos;        /* ends the answer; -1: none does */
};
/* One drawn token (not eos). Negative: fails; positive: ends the answer behind it. */
typedef int lwm_token_fn(void *arg, int32_t id, double logprob, struct lwm_err *e);
/* Goes on behind the last lwm_prefill, which must have been to c. The last token drawn is not fed. *made (may be
 * NULL): tokens that fn saw. */
int lwm_compose_text(struct lwm_engine *g, struct lwm_cache *c, const struct lwm_text_run *how, lwm_token_fn *fn,
		      void *arg, int64_t *made, struct lwm_err *e);

struct lwm_frames_plan {
	struct lwm_sampler image, video; /* the first frame of a clip; the others */
	double guide_image, guide_video; /* classifier-free guidance; 1 = none */
	uint64_t sample;
	int64_t frame_codes; /* codes of one frame */
	int64_t codes;       /* drawn codes are below this: the frame tokenizer's codebook; 0 = all the model knows */
	int64_t frames;      /* to be made */
	int64_t before;      /* frames of the same clip that the context holds already */
};
/* What runs beside each other: the stream with the prompt and, where guidance is wanted, one without. pending is the
 * last token of each prompt, not fed yet; afterwards it is the marker behind the last frame, not fed either. */
struct lwm_frames_streams {
	struct lwm_cache *cache[2];
	int32_t pending[2];
	int count; /* 1 or 2 */
};
/* codes: (frames, frame_codes). "End of frame" stands behind every frame but the last, which "end
 * of vision" follows. progress (may be NULL) sees the number of codes made; negative stops. */
typedef int lwm_code_fn(void *arg, int64_t done, struct lwm_err *e);
int lwm_compose_frames(struct lwm_engine *g, struct lwm_frames_streams *s, const struct lwm_frames_plan *how,
			int32_t *codes, lwm_code_fn *progress, void *arg, struct lwm_err *e);

#endif
