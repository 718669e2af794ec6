/* session.c - opened in the order in which one needs the other, closed in the other order. */
#include "common/infer/session.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/num.h"
#include "common/comm/device.h"

static int open_vqgan(struct lwm_session *s, const struct lwm_session_how *how, struct lwm_err *e)
{
	if (!s->m.cfg.vision_rows)
		return lwm_fail(e, LWM_ECONFIG, "%s: knows no vision codes, it was trained on text alone", how->model);
	LWM_TRY(lwm_vq_open(&s->vq, how->vqgan, how->older_ok, how->frames_per_pass, s->dev, e));
	if (s->vq.cfg.num_embeddings > s->m.cfg.vision_codes)
		return lwm_fail(e, LWM_ECONFIG, "%s has %d codes, the model knows %" PRId64, how->vqgan,
				s->vq.cfg.num_embeddings, s->m.cfg.vision_codes);
	s->width = s->height = s->vq.cfg.resolution;
	LWM_TRY(lwm_parse_size(how->size, 1 << 14, &s->width, &s->height, "--size", e));
	if (s->width % lwm_vqgan_factor(&s->vq.cfg) || s->height % lwm_vqgan_factor(&s->vq.cfg))
		return lwm_fail(e, LWM_EUSAGE, "--size %" PRId64 "x%" PRId64 ": this VQGAN takes multiples of %d", s->width, s->height,
				lwm_vqgan_factor(&s->vq.cfg));
	s->frame_codes = lwm_vqgan_codes(&s->vq.cfg, s->height, s->width);
	return 0;
}

int lwm_session_open(struct lwm_session *s, const struct lwm_session_how *how, struct lwm_err *e)
{
	memset(s, 0, sizeof *s);
	LWM_TRY(lwm_device_open(&s->dev, how->device, how->threads, e));
	LWM_TRY(lwm_lm_open_with_tokenizer(&s->m, &s->tok, how->model, how->older_ok, how->tokenizer, s->dev, e));
	s->context_said = how->context > 0;
	s->context = how->context ? how->context : s->m.cfg.max_seq;
	if (how->vqgan)
		LWM_TRY(open_vqgan(s, how, e));
	LWM_TRY(lwm_engine_new(&s->g, s->dev, &s->m.cfg, s->m.weights, how->prefill_chunk, how->streams, e));
	return lwm_engine_set_cache(s->g, how->cache, e);
}

void lwm_session_close(struct lwm_session *s)
{
	lwm_engine_free(s->g);
	lwm_vq_close(&s->vq);
	lwm_tokenizer_free(s->tok);
	lwm_lm_close(&s->m);
	lk_dev_close(s->dev);
	memset(s, 0, sizeof *s);
}

int lwm_session_check(const struct lwm_session *s, int64_t tokens, struct lwm_err *e)
{
	if (tokens <= s->context) {
		lwm_lm_warn_length(&s->m, tokens, "--context");
		return 0;
	}
	return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " tokens are needed, %s %" PRId64 "%s", tokens,
			s->context_said ? "--context is" : "the model was trained for", s->context,
			s->context_said ? "" : "; --context goes beyond");
}
