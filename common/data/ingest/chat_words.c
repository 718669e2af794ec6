/* The words of turns: where clips have their places, and what no text may say, because it means something to the model. */
#include <string.h>

#include "common/data/chatframe.h"
#include "common/data/ingest/chat_int.h"

static const char *const places[] = { "<image>", "<video>" };

/* Where a space makes of it what it is not: after `keep` bytes. */
static const struct {
	const char *word;
	size_t keep;
} words[] = {
	{ "<s>", 1 },       { "</s>", 1 },     { "<unk>", 1 },    { "<vision>", 1 }, { "</vision>", 1 },
	{ "<|bos|>", 1 },   { "<|eos|>", 1 },  { "<|chat|>", 1 }, { "<image>", 1 },  { "<video>", 1 },
	{ "USER:", 4 },     { "ASSISTANT:", 9 },
	/* of actions (common/text/action.h); their bins have numbers */
	{ "<|world|>", 1 }, { "<|free|>", 1 }, { "<|left|>", 1 }, { "<|right|>", 1 },  { "<|straight|>", 1 }, { "<|stop|>", 1 },
	{ "<|traj|>", 1 },  { "<|speed|>", 1 }, { "<|steer|>", 1 }, { "<|goal|>", 1 }, { "<|b0", 1 },         { "<|b1", 1 },
};
enum { PLACES = sizeof places / sizeof *places, WORDS = sizeof words / sizeof *words };

static bool begins_with(const char *text, size_t n, const char *word)
{
	size_t k = strlen(word);
	return k <= n && !memcmp(text, word, k);
}

size_t lwm_turn_place(const char *text, size_t n, size_t *skip)
{
	for (size_t i = 0; i < n; i++)
		for (int p = 0; p < PLACES && text[i] == '<'; p++)
			if (begins_with(text + i, n - i, places[p])) {
				*skip = strlen(places[p]);
				return i;
			}
	*skip = 0;
	return n;
}

const char *lwm_turn_put(struct lwm_str *out, const char *text, size_t n, bool escape)
{
	size_t from = 0;
	for (size_t i = 0; i < n; i++)
		for (int w = 0; w < WORDS; w++) {
			if (text[i] != words[w].word[0] || !begins_with(text + i, n - i, words[w].word))
				continue;
			if (!escape)
				return words[w].word;
			i += words[w].keep;
			lwm_str_add(out, text + from, i - from);
			lwm_str_putc(out, ' ');
			from = i;
			break;
		}
	lwm_str_add(out, text + from, n - from);
	return NULL;
}
