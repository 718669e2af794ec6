/* The element <|chat|>: turns in the words of the frame, answers with loss, clips where they belong (chat.h). */
#include "common/data/ingest/chat.h"

#include <inttypes.h>

#include "common/data/chatframe.h"
#include "common/data/ingest/chat_int.h"
#include "common/data/ingest/fields_int.h"

/* A record on its way. b->joined holds the words that are not tokenised yet. */
struct chat {
	struct lwm_build *b;
	const struct lwm_chat_cfg *c;
	struct lwm_turns t;
	size_t clips, placed; /* how many there are; that have their codes in the document */
	bool loss;            /* of answers */
};

/* A text of the record, as far as it may be said. */
static int put_words(struct chat *x, const char *text, size_t n, struct lwm_err *e)
{
	const char *word = lwm_turn_put(&x->b->joined, text, n, x->c->escape);
	if (!word)
		return 0;
	return lwm_build_fault(x->b->d, "special token", lwm_fail(e, LWM_EDATA, "'%s' in the text of a turn", word));
}

/* What was put becomes tokens. */
static int flush_words(struct chat *x, bool loss, struct lwm_err *e)
{
	struct lwm_str *s = &x->b->joined;
	LWM_TRY(lwm_str_ok(s, e));
	if (!s->len)
		return 0;
	LWM_TRY(lwm_build_spend(x->b, (int64_t)s->len, e));
	LWM_TRY(lwm_build_text(x->b, s->s, s->len, loss, e));
	lwm_str_reset(s);
	return 0;
}

/* The next clip of the record. */
static int add_clip(struct chat *x, bool loss, struct lwm_err *e)
{
	struct lwm_build *b = x->b;
	const char *name = lwm_turns_clip(&x->t, x->placed);
	struct lwm_field_value v = { 0 };
	struct lwm_ids ids = { 0 };
	int rc;
	if (x->placed == x->clips)
		return lwm_build_fault(b->d, "bad turns", lwm_fail(e, LWM_EDATA, "more places than clips (%zu)", x->clips));
	x->placed++;
	if (!x->c->vision)
		return lwm_build_fault(b->d, "no codes", lwm_fail(e, LWM_EDATA, "it names a clip, '%.200s', and there are no codes",
								  name ? name : ""));
	if (!x->c->codes) {
		LWM_TRY(lwm_build_fault(b->d, "missing key", b->get(b->user, "vision", &v, e)));
		return lwm_build_clip(b, "vision", v.codes, v.ncodes, loss, e);
	}
	rc = lwm_build_fault(b->d, "no codes", x->c->codes(x->c->user, name, &ids, e));
	if (rc == 0)
		rc = lwm_build_clip(b, name, ids.v, ids.n, loss, e);
	lwm_ids_release(&ids);
	return rc;
}

/* The next piece of a turn's text, trimmed; *place: a clip follows it. False: the text is through. */
static bool next_piece(const struct chat *x, struct lwm_turn *rest, const char **text, size_t *n, bool *place)
{
	size_t skip = 0;
	if (!rest->text)
		return false;
	*text = rest->text;
	*n = x->clips ? lwm_turn_place(rest->text, rest->n, &skip) : rest->n;
	*place = skip > 0;
	rest->text = skip ? rest->text + *n + skip : NULL;
	rest->n -= *n + skip;
	*text = lwm_turns_text_trim(*text, n);
	return true;
}

/* The words of a question as one text, then its clips. */
static int add_question(struct chat *x, struct lwm_turn turn, bool first, struct lwm_err *e)
{
	const char *text, *system = x->c->system ? x->c->system : LWM_CHAT_SYSTEM;
	size_t n, clips = first && x->t.layout == LWM_CHAT_VIDEOCHAT ? x->clips : 0, words = 0;
	bool place;
	if (first && x->t.system)
		LWM_TRY(put_words(x, x->t.system, x->t.nsystem, e));
	else if (first)
		lwm_str_puts(&x->b->joined, system);
	if (x->b->joined.len)
		lwm_str_putc(&x->b->joined, ' ');
	lwm_str_puts(&x->b->joined, LWM_CHAT_USER);
	while (next_piece(x, &turn, &text, &n, &place)) {
		if (n && words++)
			lwm_str_putc(&x->b->joined, ' ');
		LWM_TRY(put_words(x, text, n, e));
		clips += place;
	}
	if (clips) {
		lwm_str_putc(&x->b->joined, '\n');
		LWM_TRY(flush_words(x, false, e));
	}
	for (size_t i = 0; i < clips; i++)
		LWM_TRY(add_clip(x, false, e));
	lwm_str_puts(&x->b->joined, LWM_CHAT_ASSISTANT);
	return flush_words(x, false, e);
}

static int add_answer(struct chat *x, struct lwm_turn turn, struct lwm_err *e)
{
	const char *text;
	size_t n;
	bool place;
	while (next_piece(x, &turn, &text, &n, &place)) {
		LWM_TRY(put_words(x, text, n, e));
		LWM_TRY(flush_words(x, x->loss, e));
		if (place)
			LWM_TRY(add_clip(x, x->loss, e));
	}
	return 0;
}

/* How many clips the record has: those that it names, or the one whose codes come with it. */
static int count_clips(struct chat *x, struct lwm_err *e)
{
	struct lwm_field_value v = { 0 };
	struct lwm_err absent = { 0 };
	x->clips = lwm_turns_clips(&x->t);
	if (!x->c->vision || x->c->codes)
		return 0;
	if (x->clips > 1)
		return lwm_build_fault(x->b->d, "bad turns",
				       lwm_fail(e, LWM_EDATA, "it names %zu clips, and brings codes of one", x->clips));
	int rc = x->b->get(x->b->user, "vision", &v, &absent);
	if (rc == 0)
		x->clips = 1;
	else if (rc != -LWM_EDATA && e)
		*e = absent;
	return rc == -LWM_EDATA ? 0 : rc;
}

static int add_turns(struct chat *x, struct lwm_err *e)
{
	struct lwm_turn turn;
	for (size_t i = x->t.first; i <= x->t.last; i++) {
		LWM_TRY(lwm_turns_get(&x->t, i, &turn, e));
		if (turn.role == LWM_TURN_USER) {
			LWM_TRY(add_question(x, turn, i == x->t.first, e));
			continue;
		}
		LWM_TRY(add_answer(x, turn, e));
		if (i < x->t.last) /* the last one's </s> is that of the document */
			LWM_TRY(lwm_build_mark(x->b->d, lwm_tokenizer_eos(x->b->f->t), x->loss, e));
	}
	if (x->placed < x->clips)
		return lwm_build_fault(x->b->d, "bad turns",
				       lwm_fail(e, LWM_EDATA, "%zu clips, and places for %zu of them in the turns", x->clips, x->placed));
	return 0;
}

int lwm_chat_element(struct lwm_build *b, const struct lwm_element *el, bool first, struct lwm_err *e)
{
	struct chat x = { .b = b, .c = &b->f->cfg.chat, .loss = el->loss };
	struct lwm_field_value v = { 0 };
	(void)first;
	lwm_str_reset(&b->joined);
	LWM_TRY(lwm_build_fault(b->d, "missing key", b->get(b->user, el->key[0], &v, e)));
	if (!v.record)
		return lwm_build_fault(b->d, "wrong type", lwm_fail(e, LWM_EDATA, "turns are only in JSON records"));
	int rc = lwm_turns_read(&x.t, x.c->layout, v.record, e);
	if (rc < 0)
		return lwm_build_fault(b->d, x.t.fault, rc);
	LWM_TRY(count_clips(&x, e));
	return add_turns(&x, e);
}
