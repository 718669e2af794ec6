/* Sentences of eight forms with words drawn from short lists; books, chats and dialogues are made of them. The words are part of
 * what a seed gives: a changed list changes every data set made with it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/data/needle.h"
#include "common/synth/synth.h"

enum { KIND_BOOK = 1, KIND_CHAT = 2, KIND_DIALOGUE = 6, MAX_FACTS = 64 };

static const char *const names[] = { "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack",
				     "Kate", "Leo", "Mary", "Noah", "Olga", "Paul" };
static const char *const people[] = { "sailor", "farmer", "baker", "teacher", "doctor", "painter", "hunter", "king",
				      "queen", "child", "friend", "stranger" };
static const char *const animals[] = { "dog", "cat", "horse", "bird", "fox", "bear", "fish", "wolf", "sheep", "mouse" };
static const char *const places[] = { "harbour", "forest", "village", "river", "mountain", "garden", "market", "bridge",
				      "castle", "island", "field", "house", "lake", "road", "tower", "school" };
static const char *const things[] = { "boat", "lamp", "book", "coat", "ring", "bell", "chair", "clock", "basket",
				      "door", "hat", "key", "letter", "mirror", "rope", "stone" };
static const char *const colours[] = { "red", "green", "blue", "yellow", "white", "black", "brown", "gray" };
static const char *const traits[] = { "old", "young", "quiet", "happy", "tired", "small", "tall", "brave", "kind",
				      "strange", "slow", "clever" };
static const char *const moved[] = { "walked", "ran", "came", "went", "looked", "returned" };
static const char *const did[] = { "found", "lost", "carried", "bought", "sold", "kept", "saw", "hid" };
static const char *const said[] = { "sang", "waited", "slept", "laughed", "worked", "rested" };
static const char *const times[] = { "in the morning", "at night", "in the summer", "in the winter", "after the rain",
				     "before the storm", "every day", "once again" };
static const char *const where[] = { "near", "behind", "under", "beside" };

#define PICK(r, list) pick_word(r, list, sizeof(list) / sizeof *(list))

static const char *pick_word(struct lwm_rng *r, const char *const *list, size_t n)
{
	return list[lwm_rng_below(r, (int64_t)n)];
}

void lwm_synth_add_sentence(struct lwm_rng *r, struct lwm_str *out)
{
	const char *a = PICK(r, traits), *b = PICK(r, places), *c = PICK(r, things), *p = PICK(r, people);
	const char *n = PICK(r, names), *x = PICK(r, animals), *t = PICK(r, times), *w = PICK(r, where);
	switch (lwm_rng_below(r, 8)) {
	case 0:
		lwm_str_printf(out, "The %s %s %s to the %s %s.", a, p, PICK(r, moved), b, t);
		break;
	case 1:
		lwm_str_printf(out, "%s %s a %s %s %s the %s.", n, PICK(r, did), PICK(r, colours), c, w, b);
		break;
	case 2:
		lwm_str_printf(out, "The %s %s %s the %s.", x, PICK(r, said), w, b);
		break;
	case 3:
		lwm_str_printf(out, "%s and the %s %s %s %s.", n, a, p, PICK(r, said), t);
		break;
	case 4:
		lwm_str_printf(out, "There was a %s %s in the %s.", a, x, b);
		break;
	case 5:
		lwm_str_printf(out, "The %s of the %s %s was very %s.", c, a, p, PICK(r, traits));
		break;
	case 6:
		lwm_str_printf(out, "%s %s to the %s with a %s and a %s.", n, PICK(r, moved), b, c, PICK(r, things));
		break;
	default:
		lwm_str_printf(out, "The %s %s the %s of the %s %s.", p, PICK(r, did), c, x, t);
		break;
	}
}

/* {"key": "value", ...} from n pairs. */
static void json_line(struct lwm_str *out, const char *const *kv, int n)
{
	for (int i = 0; i < n; i++) {
		lwm_str_puts(out, i ? ", " : "{");
		lwm_str_json(out, kv[2 * i], strlen(kv[2 * i]));
		lwm_str_puts(out, ": ");
		lwm_str_json(out, kv[2 * i + 1], strlen(kv[2 * i + 1]));
	}
	lwm_str_puts(out, "}\n");
}

struct fact {
	const char *name, *thing, *colour;
	int64_t at; /* sentence it follows */
};

/* Different (name, thing) pairs: each question has one answer. */
static int64_t draw_facts(struct lwm_rng *r, struct fact *f, int64_t n, int64_t sentences)
{
	const int64_t nn = sizeof names / sizeof *names, nt = sizeof things / sizeof *things;
	n = n > MAX_FACTS ? MAX_FACTS : n;
	int64_t start = lwm_rng_below(r, nn * nt);
	for (int64_t i = 0; i < n; i++) {
		int64_t p = (start + i * 7) % (nn * nt); /* 7 and 256 have no common factor */
		f[i] = (struct fact){ names[p % nn], things[p / nn], PICK(r, colours), lwm_rng_below(r, sentences) };
	}
	return n;
}

static void ask_fact(const struct fact *f, const char *book, struct lwm_str *out)
{
	struct lwm_str q = { 0 }, prompt = { 0 };
	lwm_str_printf(&q, "What colour is the %s of %s?", f->thing, f->name);
	lwm_str_printf(&prompt, "%s%s ASSISTANT:", lwm_needle_prompt_head(), lwm_str_get(&q));
	const char *const kv[] = { "book", book, "question", lwm_str_get(&q), "answer", f->colour, "prompt",
				   lwm_str_get(&prompt) };
	json_line(out, kv, 4);
	out->failed = out->failed || q.failed || prompt.failed;
	lwm_str_release(&q);
	lwm_str_release(&prompt);
}

void lwm_synth_write_book(uint64_t seed, int64_t i, int64_t sentences, int64_t facts, struct lwm_str *text,
			  struct lwm_str *questions)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_SYNTH, KIND_BOOK, (uint64_t)i);
	struct fact f[MAX_FACTS];
	char name[32];
	int64_t n = draw_facts(&r, f, facts, sentences), chapter = 0;
	snprintf(name, sizeof name, "book-%05" PRId64 ".txt", i);
	for (int64_t s = 0; s < sentences; s++) {
		if (s % 60 == 0)
			lwm_str_printf(text, "%sChapter %" PRId64 "\n\n", s ? "\n\n" : "", ++chapter);
		else
			lwm_str_puts(text, s % 6 ? " " : "\n");
		lwm_synth_add_sentence(&r, text);
		for (int64_t k = 0; k < n; k++)
			if (f[k].at == s)
				lwm_str_printf(text, " The %s of %s is %s.", f[k].thing, f[k].name, f[k].colour);
	}
	lwm_str_putc(text, '\n');
	for (int64_t k = 0; k < n; k++)
		ask_fact(&f[k], name, questions);
}

void lwm_synth_write_chat(uint64_t seed, int64_t i, struct lwm_str *line)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_SYNTH, KIND_CHAT, (uint64_t)i);
	struct lwm_str q = { 0 }, a = { 0 };
	const char *n = PICK(&r, names), *t = PICK(&r, things), *c = PICK(&r, colours), *b = PICK(&r, places);
	lwm_str_puts(&q, lwm_needle_prompt_head());
	switch (lwm_rng_below(&r, 4)) {
	case 0:
		lwm_str_printf(&q, "%s has a %s %s. What colour is the %s of %s?", n, c, t, t, n);
		lwm_str_printf(&a, "The %s of %s is %s.", t, n, c);
		break;
	case 1:
		lwm_str_printf(&q, "%s went to the %s. Where is %s?", n, b, n);
		lwm_str_printf(&a, "%s is at the %s.", n, b);
		break;
	case 2:
		lwm_str_printf(&q, "Who lost the %s? %s lost the %s.", t, n, t);
		lwm_str_printf(&a, "%s lost it.", n);
		break;
	default:
		lwm_str_printf(&q, "Say one thing about the %s.", b);
		lwm_str_printf(&a, "The %s is %s.", b, PICK(&r, traits));
		break;
	}
	lwm_str_puts(&q, " ASSISTANT:");
	const char *const kv[] = { "prompt", lwm_str_get(&q), "answer", lwm_str_get(&a) };
	json_line(line, kv, 2);
	line->failed = line->failed || q.failed || a.failed;
	lwm_str_release(&q);
	lwm_str_release(&a);
}

/* What the first turn tells, and what can be asked about it: then with names, afterwards without, so that only the first turn
 * says what is meant. */
struct tale {
	const char *name, *place, *colour, *thing;
};

enum { ASKS = 4 }; /* where, what, of which colour, who */

static void ask_tale(const struct tale *t, int what, struct lwm_str *q, struct lwm_str *a)
{
	switch (what) {
	case 0:
		lwm_str_printf(q, "Where is %s?", t->name);
		lwm_str_printf(a, "%s is at the %s.", t->name, t->place);
		break;
	case 1:
		lwm_str_printf(q, "What has %s?", t->name);
		lwm_str_printf(a, "%s has a %s.", t->name, t->thing);
		break;
	case 2:
		lwm_str_printf(q, "What colour is the %s?", t->thing);
		lwm_str_printf(a, "The %s is %s.", t->thing, t->colour);
		break;
	default:
		lwm_str_printf(q, "Who has the %s?", t->thing);
		lwm_str_printf(a, "%s has the %s.", t->name, t->thing);
		break;
	}
}

static void ask_again(const struct tale *t, int what, struct lwm_str *q, struct lwm_str *a)
{
	static const char *const question[ASKS] = { "And where was that?", "And what was there?", "And what colour was it?",
						    "And who was that?" };
	static const char *const before[ASKS] = { "At the", "There was a", "It was", "It was" };
	const char *const part[ASKS] = { t->place, t->thing, t->colour, t->name };
	lwm_str_puts(q, question[what]);
	lwm_str_printf(a, "%s %s.", before[what], part[what]);
}

void lwm_synth_write_dialogue(uint64_t seed, int64_t i, struct lwm_str *line)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_SYNTH, KIND_DIALOGUE, (uint64_t)i);
	const char *name = PICK(&r, names), *place = PICK(&r, places), *colour = PICK(&r, colours), *thing = PICK(&r, things);
	const struct tale t = { name, place, colour, thing };
	int first = (int)lwm_rng_below(&r, ASKS), second = (first + 1 + (int)lwm_rng_below(&r, ASKS - 1)) % ASKS;
	lwm_str_puts(line, "{\"messages\": [");
	for (int k = 0; k < 2; k++) {
		struct lwm_str q = { 0 }, a = { 0 };
		if (k == 0)
			lwm_str_printf(&q, "%s came to the %s with a %s %s. ", t.name, t.place, t.colour, t.thing);
		(k ? ask_again : ask_tale)(&t, k ? second : first, &q, &a);
		lwm_str_puts(line, k ? ", {\"role\": \"user\", \"content\": " : "{\"role\": \"user\", \"content\": ");
		lwm_str_json(line, lwm_str_get(&q), q.len);
		lwm_str_puts(line, "}, {\"role\": \"assistant\", \"content\": ");
		lwm_str_json(line, lwm_str_get(&a), a.len);
		lwm_str_puts(line, "}");
		line->failed = line->failed || q.failed || a.failed;
		lwm_str_release(&q);
		lwm_str_release(&a);
	}
	lwm_str_puts(line, "]}\n");
}
