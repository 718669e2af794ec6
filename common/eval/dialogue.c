/* One conversation: the cache holds all that was said but the last token of the last answer, which the next question feeds. */
#include "common/eval/dialogue.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/data/chatframe.h"

struct lwm_dialogue {
	struct lwm_generate w;
	bool raw;
	int64_t context;
	struct lwm_cache *cache;
	const char *system;
	bool begun;          /* a question was asked */
	int32_t last;        /* drawn and not fed yet; -1: there is none */
	struct lwm_ids next; /* what the next prefill feeds */
};

int lwm_dialogue_new(struct lwm_dialogue **out, const struct lwm_generate *w, int64_t context, bool raw, struct lwm_err *e)
{
	struct lwm_dialogue *d = calloc(1, sizeof *d);
	*out = NULL;
	if (!d)
		return lwm_fail_memory(e, NULL);
	d->w = *w;
	d->raw = raw;
	d->context = context;
	int rc = lwm_engine_new_cache(&d->cache, w->g, context, e);
	lwm_dialogue_begin(d, NULL);
	if (rc < 0)
		lwm_dialogue_free(d);
	else
		*out = d;
	return rc;
}

void lwm_dialogue_free(struct lwm_dialogue *d)
{
	if (!d)
		return;
	lwm_cache_free(d->cache);
	lwm_ids_release(&d->next);
	free(d);
}

void lwm_dialogue_begin(struct lwm_dialogue *d, const char *system)
{
	d->system = system ? system : LWM_CHAT_SYSTEM;
	d->begun = false;
	d->last = -1;
	if (d->cache)
		lwm_cache_rewind(d->cache, 0);
}

int64_t lwm_dialogue_length(const struct lwm_dialogue *d)
{
	return lwm_cache_length(d->cache);
}

struct lwm_tokenizer *lwm_dialogue_tokenizer(const struct lwm_dialogue *d)
{
	return d->w.tok;
}

/* <s> SYSTEM USER: question ASSISTANT:, or what follows an answer: its last token </s> USER: question ASSISTANT: */
static int frame_question(struct lwm_dialogue *d, const char *question, struct lwm_err *e)
{
	struct lwm_tokenizer *t = d->w.tok;
	int32_t mark = d->begun ? lwm_tokenizer_eos(t) : lwm_tokenizer_bos(t);
	struct lwm_str s = { 0 };
	d->next.n = 0;
	if (d->last >= 0)
		LWM_TRY(lwm_ids_add(&d->next, &d->last, 1, e));
	LWM_TRY(lwm_ids_add(&d->next, &mark, 1, e));
	if (!d->raw && !d->begun && *d->system)
		lwm_str_printf(&s, "%s ", d->system);
	lwm_str_printf(&s, d->raw ? "%s" : LWM_CHAT_USER "%s" LWM_CHAT_ASSISTANT, question);
	int rc = lwm_str_ok(&s, e);
	if (rc == 0 && s.len)
		rc = lwm_tokenizer_encode(t, s.s, s.len, &d->next, e);
	lwm_str_release(&s);
	return rc;
}

struct listener {
	struct lwm_dialogue *d;
	lwm_token_fn *fn;
	void *arg;
};

static int hear(void *arg, int32_t id, double logprob, struct lwm_err *e)
{
	struct listener *l = arg;
	l->d->last = id;
	return l->fn(l->arg, id, logprob, e);
}

int lwm_dialogue_ask(struct lwm_dialogue *d, const char *question, uint64_t sample, lwm_token_fn *fn, void *arg, bool *finished,
		     struct lwm_err *e)
{
	struct lwm_text_run how = { .sampler = d->w.sampler, .sample = sample, .max_tokens = d->w.most,
				    .eos = lwm_tokenizer_eos(d->w.tok) };
	struct listener l = { d, fn, arg };
	int64_t made = 0;
	LWM_TRY(frame_question(d, question, e));
	if (d->next.n >= lwm_cache_room(d->cache))
		return lwm_fail(e, LWM_ECONFIG, "the conversation fills the context of %" PRId64 " tokens", d->context);
	LWM_TRY(lwm_prefill(d->w.g, d->cache, d->next.v, d->next.n, e));
	d->begun = true;
	d->last = -1;
	int64_t from = lwm_cache_length(d->cache);
	LWM_TRY(lwm_compose_text(d->w.g, d->cache, &how, hear, &l, &made, e));
	bool ended = made == lwm_cache_length(d->cache) - from; /* by </s>: else the last token was drawn and not fed */
	if (ended)
		d->last = -1;
	if (finished)
		*finished = ended;
	return 0;
}
