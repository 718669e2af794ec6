/* Many prompts side by side: streams of different lengths, a token for each in every step; the place of one that ended is the next
 * prompt's. */
#include <stdlib.h>

#include "common/eval/generate.h"
#include "common/infer/compose.h"

/* A place where one prompt after the other is answered. */
struct stream {
	struct lwm_cache *cache; /* made when it is first wanted, for the longest prompt */
	struct lwm_ids said;
	int64_t prompt;          /* number of the one at work; -1: none */
	uint64_t sample;
	int32_t last;            /* drawn, and fed by the next step */
};

struct batch {
	const struct lwm_generate *w;
	const struct lwm_prompts *p;
	struct stream *s;
	int64_t streams, next; /* next: prompt to begin */
	/* of one step */
	struct stream **at;
	struct lwm_cache **cache;
	struct lwm_draw *draw;
	int32_t *ids;
	int64_t *drawn;
};

static struct lwm_draw draw_of(const struct batch *b, const struct stream *s)
{
	return (struct lwm_draw){ .sampler = &b->w->sampler, .limit = lwm_engine_config(b->w->g)->vocab_text, .guide = 1,
				  .step = (uint64_t)lwm_cache_length(s->cache), .sample = s->sample };
}

/* A drawn token: it ends the answer, or the next step feeds it. */
static int take_token(struct batch *b, struct stream *s, int64_t id, struct lwm_err *e)
{
	bool finished = id == lwm_tokenizer_eos(b->w->tok);
	s->last = (int32_t)id;
	if (!finished)
		LWM_TRY(lwm_ids_add(&s->said, &s->last, 1, e));
	if (!finished && s->said.n < b->w->most)
		return 0;
	int64_t i = s->prompt;
	s->prompt = -1;
	return b->p->answer(b->p->user, i, &s->said, finished, e);
}

/* Prefills the next prompt and draws its first token. */
static int begin_prompt(struct batch *b, struct stream *s, struct lwm_err *e)
{
	struct lwm_ids ids = { 0 };
	int64_t id;
	int rc = 0;
	if (!s->cache)
		LWM_TRY(lwm_engine_new_cache(&s->cache, b->w->g, b->p->longest + b->w->most, e));
	lwm_cache_rewind(s->cache, 0);
	s->said.n = 0;
	s->prompt = b->next++;
	LWM_GO(b->p->prompt(b->p->user, s->prompt, &ids, &s->sample, e));
	LWM_GO(lwm_prefill(b->w->g, s->cache, ids.v, ids.n, e));
	struct lwm_draw d = draw_of(b, s);
	LWM_GO(lwm_engine_draw(b->w->g, LWM_TEXT, &d, &id, NULL, e));
	LWM_GO(take_token(b, s, id, e));
out:
	lwm_ids_release(&ids);
	return rc;
}

/* A token for each of n streams. */
static int step_streams(struct batch *b, struct stream *const *s, int64_t n, struct lwm_err *e)
{
	for (int64_t i = 0; i < n; i++) {
		b->cache[i] = s[i]->cache;
		b->ids[i] = s[i]->last;
	}
	LWM_TRY(lwm_decode_step(b->w->g, b->cache, b->ids, n, e));
	for (int64_t i = 0; i < n; i++)
		b->draw[i] = draw_of(b, s[i]);
	LWM_TRY(lwm_engine_draw_each(b->w->g, LWM_TEXT, b->draw, b->drawn, e));
	for (int64_t i = 0; i < n; i++)
		LWM_TRY(take_token(b, s[i], b->drawn[i], e));
	return 0;
}

static int answer_all(struct batch *b, int64_t together, struct lwm_err *e)
{
	for (;;) {
		int64_t n = 0;
		for (int64_t i = 0; i < b->streams; i++) {
			while (b->s[i].prompt < 0 && b->next < b->p->n) /* an answer may be nothing but </s> */
				LWM_TRY(begin_prompt(b, &b->s[i], e));
			if (b->s[i].prompt >= 0)
				b->at[n++] = &b->s[i];
		}
		if (n == 0)
			return 0;
		for (int64_t i = 0; i < n; i += together)
			LWM_TRY(step_streams(b, b->at + i, n - i < together ? n - i : together, e));
	}
}

int lwm_generate_texts(const struct lwm_generate *w, const struct lwm_prompts *p, int64_t streams, struct lwm_err *e)
{
	struct batch b = { .w = w, .p = p, .streams = streams < p->n ? streams : p->n };
	size_t n = (size_t)(b.streams ? b.streams : 1);
	b.s = calloc(n, sizeof *b.s);
	b.at = calloc(n, sizeof *b.at);
	b.cache = calloc(n, sizeof *b.cache);
	b.draw = calloc(n, sizeof *b.draw);
	b.ids = calloc(n, sizeof *b.ids);
	b.drawn = calloc(n, sizeof *b.drawn);
	int rc = b.s && b.at && b.cache && b.draw && b.ids && b.drawn ? 0 : lwm_fail_memory(e, NULL);
	for (int64_t i = 0; rc == 0 && i < b.streams; i++)
		b.s[i].prompt = -1;
	if (rc == 0)
		rc = answer_all(&b, lwm_engine_alike(w->g, b.streams), e);
	for (int64_t i = 0; b.s && i < b.streams; i++) {
		lwm_cache_free(b.s[i].cache);
		lwm_ids_release(&b.s[i].said);
	}
	free(b.s);
	free(b.at);
	free(b.cache);
	free(b.draw);
	free(b.ids);
	free(b.drawn);
	return rc;
}
