/* A needle document: facts at random depths among filler sentences, then the question. Its length is drawn first; sentences are
 * added by their own token counts and taken off again while the whole is too long, since pieces merge where sentences meet. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/data/needle.h"
#include "common/synth/synth.h"

enum { MAX_FACTS = 69 };

/* A document being put together: filler sentences with needles before some of them. */
struct draft {
	struct lwm_str fill;   /* all sentences, end to end */
	size_t *end;           /* [n] end of sentence k in fill */
	int64_t n, cap;
	int64_t next;          /* of real text: the sentence that follows */
	int64_t city[MAX_FACTS], number[MAX_FACTS];
	double depth[MAX_FACTS]; /* [0,1): where the needle goes, ascending */
	struct lwm_ids ids;
};

static void one_sentence(const struct lwm_synth_needle *how, struct draft *d, struct lwm_rng *r)
{
	if (!how->text) {
		lwm_synth_add_sentence(r, &d->fill);
		/* as in a book: the blank belongs to the sentence before it, and now and then a line ends */
		lwm_str_putc(&d->fill, lwm_rng_below(r, 8) ? ' ' : '\n');
		return;
	}
	if (d->n == 0)
		d->next = lwm_rng_below(r, how->text_sentences);
	lwm_str_add(&d->fill, how->text + how->start[d->next], (size_t)(how->start[d->next + 1] - how->start[d->next]));
	d->next = (d->next + 1) % how->text_sentences;
}

static int add_sentence(const struct lwm_synth_needle *how, struct draft *d, struct lwm_rng *r, struct lwm_err *e)
{
	if (d->n == d->cap) {
		int64_t cap = d->cap ? 2 * d->cap : 64;
		size_t *v = realloc(d->end, (size_t)cap * sizeof *v);
		if (!v)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for a needle document");
		d->end = v;
		d->cap = cap;
	}
	one_sentence(how, d, r);
	d->end[d->n++] = d->fill.len;
	return lwm_str_ok(&d->fill, e);
}

static void add_context(const struct draft *d, int64_t sentences, int64_t facts, struct lwm_str *out)
{
	size_t from = 0;
	for (int64_t k = 0, f = 0; k <= sentences; k++) {
		for (; f < facts && (k == sentences || d->depth[f] * (double)(sentences + 1) < (double)(k + 1)); f++)
			lwm_needle_text(out, lwm_needle_city(d->city[f]), d->number[f]);
		if (k < sentences) {
			lwm_str_add(out, lwm_str_get(&d->fill) + from, d->end[k] - from);
			from = d->end[k];
		}
	}
}

static void add_question(const struct lwm_synth_needle *how, const struct draft *d, const int64_t *asked,
			 struct lwm_str *prompt)
{
	const char *cities[MAX_FACTS];
	struct lwm_str q = { 0 };
	for (int64_t i = 0; i < how->ask; i++)
		cities[i] = lwm_needle_city(d->city[asked[i]]);
	if (how->ask == 1) {
		lwm_needle_question_single(&q, cities[0]);
		lwm_needle_prompt_tail_single(prompt, lwm_str_get(&q));
	} else {
		lwm_needle_question_multi(&q, cities, how->ask);
		lwm_needle_prompt_tail_multi(prompt, lwm_str_get(&q));
	}
	prompt->failed = prompt->failed || q.failed;
	lwm_str_release(&q);
}

static void write_answers(const struct lwm_synth_needle *how, const struct draft *d, const int64_t *asked,
			  struct lwm_str *out)
{
	for (int64_t i = 0; i < how->ask; i++) {
		lwm_str_puts(out, i ? ", " : "");
		if (how->sentences)
			lwm_str_printf(out, "The special magic %s number is: ", lwm_needle_city(d->city[asked[i]]));
		lwm_str_printf(out, "%" PRId64, d->number[asked[i]]);
	}
}

/* Tokens of a text field. */
static int count_tokens(struct draft *d, struct lwm_tokenizer *t, const struct lwm_str *s, int64_t *out, struct lwm_err *e)
{
	d->ids.n = 0;
	LWM_TRY(lwm_tokenizer_encode(t, lwm_str_get(s), s->len, &d->ids, e));
	*out = d->ids.n;
	return 0;
}

static void draw_needles(struct lwm_rng *r, const struct lwm_synth_needle *how, struct draft *d, int64_t *asked)
{
	int64_t order[MAX_FACTS];
	lwm_needle_draw_cities(r, how->facts, d->city);
	for (int64_t i = 0; i < how->facts; i++) {
		double x = lwm_rng_double(r);
		int64_t k = i;
		d->number[i] = lwm_needle_draw_number(r);
		for (; k > 0 && d->depth[k - 1] > x; k--)
			d->depth[k] = d->depth[k - 1];
		d->depth[k] = x;
		order[i] = i;
	}
	for (int64_t i = 0; i < how->ask; i++) {
		int64_t j = i + lwm_rng_below(r, how->facts - i), t = order[j];
		order[j] = order[i];
		asked[i] = t;
	}
}

/* The prompt with the first `sentences` sentences, and its length in tokens. */
static int write_prompt(const struct lwm_synth_needle *how, struct draft *d, const int64_t *asked, int64_t sentences,
			struct lwm_str *prompt, int64_t *tokens, struct lwm_err *e)
{
	lwm_str_reset(prompt);
	lwm_str_puts(prompt, lwm_needle_prompt_head());
	add_context(d, sentences, how->facts, prompt);
	add_question(how, d, asked, prompt);
	LWM_TRY(lwm_str_ok(prompt, e));
	return count_tokens(d, how->tokenizer, prompt, tokens, e);
}

/* Half of it to all of it: a model that only ever saw one length learns where things stand instead of what they are. */
static int64_t some_room(int64_t room, struct lwm_rng *r)
{
	return room > 1 ? room - lwm_rng_below(r, room / 2 + 1) : room;
}

/* Sentences are added by their own length, then taken off again while the whole is too long. */
static int fill_room(const struct lwm_synth_needle *how, struct lwm_rng *r, struct draft *d, const int64_t *asked,
		     int64_t room, struct lwm_str *prompt, struct lwm_err *e)
{
	int64_t tokens, wanted = some_room(room, r);
	LWM_TRY(write_prompt(how, d, asked, 0, prompt, &tokens, e));
	if (tokens > room)
		return lwm_fail(e, LWM_ECONFIG, "a document of %" PRId64 " facts needs %" PRId64 " tokens, not "
				"%" PRId64, how->facts, tokens + how->tokens - room, how->tokens);
	if (wanted < tokens)
		wanted = tokens;
	while (tokens < wanted) {
		size_t from = d->fill.len;
		LWM_TRY(add_sentence(how, d, r, e));
		d->ids.n = 0;
		LWM_TRY(lwm_tokenizer_encode_rest(how->tokenizer, d->fill.s + from, d->fill.len - from, &d->ids, e));
		tokens += d->ids.n;
	}
	for (int64_t n = d->n; n >= 0; n--) {
		LWM_TRY(write_prompt(how, d, asked, n, prompt, &tokens, e));
		if (tokens <= wanted)
			return 0;
	}
	return lwm_fail(e, LWM_EINTERNAL, "a needle document does not shrink");
}

int lwm_synth_write_needle(const struct lwm_synth_needle *want, int64_t i, struct lwm_str *prompt, struct lwm_str *answer,
			   struct lwm_err *e)
{
	struct lwm_rng r = lwm_rng_at(want->seed, LWM_RNG_NEEDLE, 1, (uint64_t)i);
	struct lwm_synth_needle drawn = *want;
	const struct lwm_synth_needle *how = &drawn;
	int64_t asked[MAX_FACTS], tokens;
	int rc;
	if (how->facts < 1 || how->facts > MAX_FACTS || how->ask < 0 || how->ask > how->facts)
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " facts of which %" PRId64 " are asked for: possible are 1 "
				"to %d", how->facts, how->ask, MAX_FACTS);
	if (drawn.ask == 0)
		drawn.ask = 1 + lwm_rng_below(&r, drawn.facts);
	struct draft *d = calloc(1, sizeof *d);
	if (!d)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a needle document");
	draw_needles(&r, how, d, asked);
	lwm_str_reset(answer);
	write_answers(how, d, asked, answer);
	LWM_GO(lwm_str_ok(answer, e));
	LWM_GO(count_tokens(d, how->tokenizer, answer, &tokens, e));
	LWM_GO(fill_room(how, &r, d, asked, how->tokens - tokens - 2, prompt, e));
out:
	lwm_str_release(&d->fill);
	lwm_ids_release(&d->ids);
	free(d->end);
	free(d);
	return rc;
}

int64_t lwm_synth_list_symbols(const char *const **out)
{
	static const char *const parts[] = {
		" You are a helpful assistant.", " USER:", " ASSISTANT:", "The special magic", " number is:",
		" What is the special magic", " number?", " What are the special magic numbers for",
		" Don't give information outside the document", " or repeat your findings.",
		" Keep your response short and direct.", " Generate a video of", " Generate an image of", "<vision>",
		"</vision>",
	};
	enum { PARTS = sizeof parts / sizeof *parts };
	static const char *all[PARTS + MAX_FACTS];
	static char spaced[MAX_FACTS][24];
	int64_t n = lwm_needle_cities();
	for (int64_t i = 0; i < PARTS; i++)
		all[i] = parts[i];
	for (int64_t i = 0; i < n && i < MAX_FACTS; i++) {
		snprintf(spaced[i], sizeof spaced[i], " %s", lwm_needle_city(i));
		all[PARTS + i] = spaced[i];
	}
	*out = all;
	return PARTS + n;
}
