/* compose.h - whole answers and whole frames, token by token.
 *
 *	lwm_prefill(g, c, prompt, n, e)
 *	lwm_compose_text(g, c, &how, fn, arg, &made, e)              fn sees each token as it is drawn
 *
 *	lwm_prefill(g, s.cache[i], prompt, n - 1, e)                 for each of one or two streams; s.pending[i] is the last token
 *	lwm_compose_frames(g, &s, &how, codes, progress, arg, e)
 *
 *	lwm_draw_frames(g, ids, 2, &how, codes, progress, arg, e)    the same, with caches of its own, from prompts
 *
 * Which head is asked follows from what is being written: text comes from the text head, codes from the vision head,
 * and the markers after frames are put, not drawn. So a text is never interrupted by a code, and every frame decodes.
 * A draw's step number is its place in the context: the same (seed, sample) gives the same result in every batch.
 */
#ifndef LWM_INFER_COMPOSE_H
#define LWM_INFER_COMPOSE_H

#include "common/infer/engine.h"
#include "common/infer/sample.h"
#include "common/text/tokenizer.h"

struct lwm_draw {
	const struct lwm_sampler *sampler;
	int64_t limit;         /* ids of the head below this have a chance */
	double guide;          /* of two streams, the second without the prompt: classifier-free guidance; 1 = none */
	uint64_t step, sample; /* which random number: place in the context, number of the answer */
};
/* One id of the head, 0 to limit - 1, for the stream of the last call. Where logits are not in host memory they stay there, and the
 * same random number meets the same token but for the rounding of sums. COLLECTIVE where the engine is. *logprob (may be NULL) as
 * in lwm_sampler_draw. -LWM_ENUMERIC: NaN among the logits, or nothing finite. */
int lwm_engine_draw(struct lwm_engine *g, enum lwm_modality head, const struct lwm_draw *d, int64_t *id, double *logprob,
		    struct lwm_err *e);

/* One id for each of the streams of the last step, d[i] for stream i (guide is not looked at, limit is that of d[0], and the rules
 * are those of d[0]'s sampler). Local engines only. Errors as lwm_engine_draw. */
int lwm_engine_draw_each(struct lwm_engine *g, enum lwm_modality head, const struct lwm_draw *d, int64_t *id, struct lwm_err *e);

struct lwm_text_run {
	struct lwm_sampler sampler;
	uint64_t sample;    /* which of several answers */
	int64_t max_tokens; /* fewer when the context is full */
	int32_t eos;        /* ends the answer; -1: none does */
};
/* One drawn token (not eos). Negative: fails; positive: ends the answer after it. */
typedef int lwm_token_fn(void *arg, int32_t id, double logprob, struct lwm_err *e);
/* Continues after the last lwm_prefill, which must have been into c. The last token drawn is not fed. *made (may be NULL): tokens
 * that fn saw. */
int lwm_compose_text(struct lwm_engine *g, struct lwm_cache *c, const struct lwm_text_run *how, lwm_token_fn *fn,
		     void *arg, int64_t *made, struct lwm_err *e);

struct lwm_frames_plan {
	struct lwm_sampler image, video; /* the first frame of a clip; the others */
	double guide_image, guide_video; /* classifier-free guidance; 1 = none */
	uint64_t sample;     /* which of several clips */
	int64_t frame_codes; /* codes of one frame */
	int64_t codes;       /* drawn codes are below this: the frame tokenizer's codebook; 0 = all the model knows */
	int64_t frames;      /* to be made */
	int64_t before;      /* frames of the same clip that the context holds already */
};
/* What runs side by side: the stream with the prompt and, where guidance is wanted, one without. pending is the last token of each
 * prompt, not fed yet; afterwards it is the marker after the last frame, not fed either. */
struct lwm_frames_streams {
	struct lwm_cache *cache[2];
	int32_t pending[2];
	int count; /* 1 or 2 */
};
/* done: codes made so far. Negative: stops, and is what lwm_compose_frames returns. */
typedef int lwm_code_fn(void *arg, int64_t done, struct lwm_err *e);
/* codes: (frames, frame_codes), host. "End of frame" follows every frame but the last, which "end of vision" follows. progress may
 * be NULL. -LWM_ECONFIG: a model without a vision part, a codebook larger than it knows, or a context too short, before anything
 * is fed. */
int lwm_compose_frames(struct lwm_engine *g, struct lwm_frames_streams *s, const struct lwm_frames_plan *how,
		       int32_t *codes, lwm_code_fn *progress, void *arg, struct lwm_err *e);

/* ---- the same from prompts ---- */

/* Appends the ids of whole frames, `per` codes each, with their markers. After the last one stands "end of frame" where more are to
 * come, else "end of vision". */
int lwm_frames_ids(struct lwm_ids *ids, const struct lwm_llama_cfg *cfg, const int32_t *codes, int64_t frames, int64_t per,
		   bool more, struct lwm_err *e);
/* Tokens of the context that a prompt and the frames after it take. Pure. */
int64_t lwm_frames_context(const struct lwm_ids *prompt, const struct lwm_frames_plan *how);
/* Draws after prompt[0], with guidance (count 2) also after prompt[1], the one without. Errors as above. */
int lwm_draw_frames(struct lwm_engine *g, const struct lwm_ids *prompt, int count, const struct lwm_frames_plan *how,
		    int32_t *codes, lwm_code_fn *progress, void *arg, struct lwm_err *e);

#endif
