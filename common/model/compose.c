#include "common/model/compose.h"

#include <stdlib.h>

int lwm_compose_text(struct lwm_gen *g, struct lwm_cache *c, const struct lwm_text_run *how, lwm_token_fn *fn,
		      void *arg, int64_t *made, struct lwm_err *e)
{
	int64_t vocab = lwm_gen_config(g)->vocab_text, n = 0, id;
	float *logits = malloc((size_t)vocab * sizeof *logits);
	int rc = 0;

	if (!logits)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %lld logits", (long long)vocab);
	while (n < how->max_tokens) {
		double logprob;
		int32_t token;

		LWM_GO(lwm_gen_logits(g, LWM_TEXT, logits, e));
		LWM_GO(lwm_sample(&how->sampler, logits, 0, vocab, (uint64_t)lwm_cache_length(c), how->sample, &id,
				  &logprob, e));
		if (id == how->eos)
			break;
		n++;
		token = (int32_t)id;
		LWM_GO(fn(arg, token, logprob, e));
		if (rc > 0 || n == how->max_tokens || !lwm_cache_room(c))
			break;
		LWM_GO(lwm_gen_step(g, &c, &token, 1, e));
	}
	rc = 0;
out:
	if (made)
		*made = n;
	free(logits);
	return rc;
}

/* Feeds what is pending and draws the next code from the vision head. */
static int next_code(struct lwm_gen *g, struct lwm_frames_streams *s, const struct lwm_frames_plan *how,
		     bool first_frame, float *logits, int64_t *code, struct lwm_err *e)
{
	const struct lwm_llama_cfg *cfg = lwm_gen_config(g);
	const struct lwm_sampler *sampler = first_frame ? &how->image : &how->video;
	double guide = first_frame ? how->guide_image : how->guide_video;
	int64_t codes = how->codes ? how->codes : cfg->vision_codes;
	uint64_t at = (uint64_t)lwm_cache_length(s->cache[0]) + 1;

	LWM_TRY(lwm_gen_step(g, s->cache, s->pending, s->count, e));
	LWM_TRY(lwm_gen_logits(g, LWM_VISION, logits, e));
	if (s->count == 2) { // the result takes the place of the stream without a prompt
		lwm_guide(logits + cfg->vision_rows, logits, codes, guide);
		logits += cfg->vision_rows;
	}
	LWM_TRY(lwm_sample(sampler, logits, 0, codes, at, how->sample, code, NULL, e));
	s->pending[0] = s->pending[1] = (int32_t)(cfg->vocab_text + *code);
	return 0;
}

static int check_plan(struct lwm_gen *g, const struct lwm_frames_streams *s, const struct lwm_frames_plan *how,
		      struct lwm_err *e)
{
	const struct lwm_llama_cfg *cfg = lwm_gen_config(g);
	int64_t need = how->frames * (how->frame_codes + 1);

	if (!cfg->vision_rows)
		return lwm_fail(e, LWM_ECONFIG, "this model knows no vision codes: it was trained on text alone");
	if (how->codes > cfg->vision_codes)
		return lwm_fail(e, LWM_ECONFIG, "the frame tokenizer has %lld codes, the model knows %lld",
				(long long)how->codes, (long long)cfg->vision_codes);
	if (s->count == 1 && (how->guide_image != 1 || how->guide_video != 1))
		return lwm_fail(e, LWM_EINTERNAL, "guidance needs a stream without the prompt");
	for (int i = 0; i < s->count; i++)
		if (lwm_cache_room(s->cache[i]) < need)
			return lwm_fail(e, LWM_ECONFIG, "%lld frames take %lld tokens, the context has room for %lld",
					(long long)how->frames, (long long)need,
					(long long)lwm_cache_room(s->cache[i]));
	return 0;
}

int lwm_compose_frames(struct lwm_gen *g, struct lwm_frames_streams *s, const struct lwm_frames_plan *how,
			int32_t *codes, lwm_code_fn *progress, void *arg, struct lwm_err *e)
{
	const struct lwm_llama_cfg *cfg = lwm_gen_config(g);
	int64_t total = how->frames * how->frame_codes, code;
	float *logits;
	int rc = 0;

	LWM_TRY(check_plan(g, s, how, e));
	logits = malloc((size_t)(cfg->vision_rows * s->count) * sizeof *logits);
	if (!logits)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %lld logits", (long long)cfg->vision_rows);
	for (int64_t i = 0; i < total; i++) {
		int64_t frame = i / how->frame_codes;

		LWM_GO(next_code(g, s, how, frame + how->before == 0, logits, &code, e));
		codes[i] = (int32_t)code;
		if (progress)
			LWM_GO(progress(arg, i + 1, e));
		if ((i + 1) % how->frame_codes)
			continue;
		LWM_GO(lwm_gen_step(g, s->cache, s->pending, s->count, e)); // the frame's last code
		s->pending[0] = (int32_t)(frame + 1 < how->frames ? lwm_llama_eof(cfg) : lwm_llama_eov(cfg));
		s->pending[1] = s->pending[0];
	}
	rc = 0;
out:
	free(logits);
	return rc;
}
