/* compose.c - the loops of generation: draw, hand over, feed. A token is fed only when another one is wanted after it. */
#include "common/infer/compose.h"

#include <inttypes.h>

int lwm_compose_text(struct lwm_engine *g, struct lwm_cache *c, const struct lwm_text_run *how, lwm_token_fn *fn,
		     void *arg, int64_t *made, struct lwm_err *e)
{
	struct lwm_draw d = { .sampler = &how->sampler, .limit = lwm_engine_config(g)->vocab_text, .guide = 1,
			      .sample = how->sample };
	int64_t n = 0, id;
	int rc = 0;

	while (n < how->max_tokens) {
		double logprob;
		int32_t token;

		d.step = (uint64_t)lwm_cache_length(c);
		LWM_GO(lwm_engine_draw(g, LWM_TEXT, &d, &id, &logprob, e));
		if (id == how->eos)
			break;
		n++;
		token = (int32_t)id;
		LWM_GO(fn(arg, token, logprob, e));
		if (rc > 0 || n == how->max_tokens || !lwm_cache_room(c))
			break;
		LWM_GO(lwm_decode_step(g, &c, &token, 1, e));
	}
	rc = 0;
out:
	if (made)
		*made = n;
	return rc;
}

/* Feeds what is pending and draws the next code from the vision head. */
static int next_code(struct lwm_engine *g, struct lwm_frames_streams *s, const struct lwm_frames_plan *how,
		     bool first_frame, int64_t *code, struct lwm_err *e)
{
	const struct lwm_llama_cfg *cfg = lwm_engine_config(g);
	struct lwm_draw d = { .sampler = first_frame ? &how->image : &how->video,
			      .limit = how->codes ? how->codes : cfg->vision_codes,
			      .guide = first_frame ? how->guide_image : how->guide_video,
			      .step = (uint64_t)lwm_cache_length(s->cache[0]) + 1, .sample = how->sample };

	LWM_TRY(lwm_decode_step(g, s->cache, s->pending, s->count, e));
	LWM_TRY(lwm_engine_draw(g, LWM_VISION, &d, code, NULL, e));
	s->pending[0] = s->pending[1] = (int32_t)(cfg->vocab_text + *code);
	return 0;
}

static int check_plan(struct lwm_engine *g, const struct lwm_frames_streams *s, const struct lwm_frames_plan *how,
		      struct lwm_err *e)
{
	const struct lwm_llama_cfg *cfg = lwm_engine_config(g);
	int64_t need = how->frames * (how->frame_codes + 1);

	if (!cfg->vision_rows)
		return lwm_fail(e, LWM_ECONFIG, "this model knows no vision codes: it was trained on text alone");
	if (how->codes > cfg->vision_codes)
		return lwm_fail(e, LWM_ECONFIG, "the frame tokenizer has %" PRId64 " codes, the model knows %" PRId64,
				how->codes, cfg->vision_codes);
	if (s->count == 1 && (how->guide_image != 1 || how->guide_video != 1))
		return lwm_fail(e, LWM_EINTERNAL, "guidance needs a stream without the prompt");
	for (int i = 0; i < s->count; i++)
		if (lwm_cache_room(s->cache[i]) < need)
			return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " frames take %" PRId64 " tokens, the context has room for %"
					PRId64, how->frames, need, lwm_cache_room(s->cache[i]));
	return 0;
}

int lwm_compose_frames(struct lwm_engine *g, struct lwm_frames_streams *s, const struct lwm_frames_plan *how,
		       int32_t *codes, lwm_code_fn *progress, void *arg, struct lwm_err *e)
{
	const struct lwm_llama_cfg *cfg = lwm_engine_config(g);
	int64_t total = how->frames * how->frame_codes, code;
	int rc = 0;

	LWM_TRY(check_plan(g, s, how, e));
	for (int64_t i = 0; i < total; i++) {
		int64_t frame = i / how->frame_codes;

		LWM_GO(next_code(g, s, how, frame + how->before == 0, &code, e));
		codes[i] = (int32_t)code;
		if (progress)
			LWM_GO(progress(arg, i + 1, e));
		if ((i + 1) % how->frame_codes)
			continue;
		LWM_GO(lwm_decode_step(g, s->cache, s->pending, s->count, e)); // the frame's last code
		s->pending[0] = (int32_t)(frame + 1 < how->frames ? lwm_llama_eof(cfg) : lwm_llama_eov(cfg));
		s->pending[1] = s->pending[0];
	}
	rc = 0;
out:
	return rc;
}

int lwm_frames_ids(struct lwm_ids *ids, const struct lwm_llama_cfg *cfg, const int32_t *codes, int64_t frames, int64_t per,
		   bool more, struct lwm_err *e)
{
	LWM_TRY(lwm_ids_reserve(ids, frames * (per + 1), e));
	for (int64_t f = 0; f < frames; f++) {
		for (int64_t i = 0; i < per; i++)
			ids->v[ids->n++] = (int32_t)(cfg->vocab_text + codes[f * per + i]);
		ids->v[ids->n++] = (int32_t)(f + 1 < frames || more ? lwm_llama_eof(cfg) : lwm_llama_eov(cfg));
	}
	return 0;
}

int64_t lwm_frames_context(const struct lwm_ids *prompt, const struct lwm_frames_plan *how)
{
	return prompt->n + how->frames * (how->frame_codes + 1);
}

int lwm_draw_frames(struct lwm_engine *g, const struct lwm_ids *prompt, int count, const struct lwm_frames_plan *how,
		    int32_t *codes, lwm_code_fn *progress, void *arg, struct lwm_err *e)
{
	struct lwm_frames_streams st = { .count = count };
	int rc = 0;

	for (int i = 0; i < count; i++) {
		LWM_GO(lwm_engine_new_cache(&st.cache[i], g, lwm_frames_context(&prompt[i], how), e));
		LWM_GO(lwm_prefill(g, st.cache[i], prompt[i].v, prompt[i].n - 1, e));
		st.pending[i] = prompt[i].v[prompt[i].n - 1];
	}
	rc = lwm_compose_frames(g, &st, how, codes, progress, arg, e);
out:
	for (int i = 0; i < count; i++)
		lwm_cache_free(st.cache[i]);
	return rc;
}
