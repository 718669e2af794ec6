/* Dialogues of a file, one after the other, and how many answers were right. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/outfile.h"
#include "common/data/chatframe.h"
#include "common/data/ingest/chat.h"
#include "common/data/ingest/ingest.h"
#include "common/eval/dialogue.h"
#include "common/text/lines.h"

enum { MOST_BYTES = 1 << 28 }; /* of a line, or of a .json file */

struct holder {
	struct lwm_dialogue *d;
	lwm_dialogue_fn *fn;
	void *arg;
	struct lwm_dialogue_scores *scores;
	int64_t number; /* of the dialogue in the file */
};

static int keep_token(void *arg, int32_t id, double logprob, struct lwm_err *e)
{
	(void)logprob;
	return lwm_ids_add(arg, &id, 1, e);
}

static bool same_words(const char *a, const char *b)
{
	static const char white[] = " \t\r\n";
	size_t n = strlen(a += strspn(a, white)), k = strlen(b += strspn(b, white));
	while (n && strchr(white, a[n - 1]))
		n--;
	while (k && strchr(white, b[k - 1]))
		k--;
	return n == k && !memcmp(a, b, n);
}

static int ask_one(const struct holder *h, const struct lwm_chat_turn *turn, int64_t i,
		   struct lwm_err *e)
{
	struct lwm_ids ids = { 0 };
	struct lwm_str said = { 0 };
	bool finished = false;
	int rc = lwm_dialogue_ask(h->d, turn->question, (uint64_t)h->number, keep_token, &ids, &finished, e);
	if (rc == 0) {
		lwm_tokenizer_decode(lwm_dialogue_tokenizer(h->d), ids.v, ids.n, &said);
		rc = lwm_str_ok(&said, e);
	}
	if (rc == 0) {
		struct lwm_dialogue_turn t = { h->number, i, turn->question, lwm_str_get(&said), turn->answer, false };
		t.right = finished && t.expected && same_words(t.said, t.expected);
		h->scores->asked[i] += t.expected != NULL;
		h->scores->right[i] += t.right;
		rc = h->fn(h->arg, &t, e);
	}
	lwm_ids_release(&ids);
	lwm_str_release(&said);
	return rc;
}

static int hold_record(struct holder *h, const json_t *record, struct lwm_err *e)
{
	struct lwm_chat_turns t;
	int rc = lwm_chat_read(&t, record, e);
	if (rc == 0 && t.n > LWM_DIALOGUE_TURNS)
		rc = lwm_fail(e, LWM_EDATA, "%" PRId64 " questions, %d are possible", t.n, LWM_DIALOGUE_TURNS);
	if (rc == 0)
		lwm_dialogue_begin(h->d, t.system);
	for (int64_t i = 0; rc == 0 && i < t.n; i++)
		rc = ask_one(h, &t.turn[i], i, e);
	lwm_chat_release(&t);
	h->number++;
	h->scores->dialogues += rc == 0;
	return rc;
}

static int hold_list(struct holder *h, const char *path, struct lwm_err *e)
{
	json_t *all;
	int rc = lwm_json_read(&all, path, MOST_BYTES, e);
	if (rc == 0 && !json_is_array(all))
		rc = lwm_fail(e, LWM_EDATA, "%s: is not a list of dialogues", path);
	for (size_t i = 0; rc == 0 && i < json_array_size(all); i++)
		if ((rc = hold_record(h, json_array_get(all, i), e)) < 0)
			lwm_context(e, "%s, record %zu", path, i + 1);
	json_decref(all);
	return rc;
}

static int hold_lines(struct holder *h, const char *path, struct lwm_err *e)
{
	struct lwm_lines *l;
	const char *line;
	size_t n;
	bool too_long;
	int rc;
	LWM_TRY(lwm_lines_open(&l, path, MOST_BYTES, e));
	for (int64_t number = 1; (rc = lwm_lines_next(l, &line, &n, &too_long, e)) > 0; number++) {
		json_t *record = NULL;
		if (n == 0 && !too_long)
			continue;
		rc = too_long ? lwm_fail(e, LWM_EDATA, "more than %d bytes", MOST_BYTES) :
				lwm_json_parse(&record, line, n, "the record", e);
		if (rc == 0)
			rc = hold_record(h, record, e);
		json_decref(record);
		if (rc < 0) {
			lwm_context(e, "%s, line %" PRId64, path, number);
			break;
		}
	}
	lwm_lines_close(l);
	return rc;
}

int lwm_dialogue_hold(struct lwm_dialogue *d, const char *path, lwm_dialogue_fn *fn, void *arg,
		      struct lwm_dialogue_scores *scores, struct lwm_err *e)
{
	struct holder h = { d, fn, arg, scores, scores->dialogues };
	int64_t before = scores->dialogues;
	bool list = lwm_ingest_format(path, false) == LWM_FORMAT_JSON;
	LWM_TRY((list ? hold_list : hold_lines)(&h, path, e));
	return scores->dialogues > before ? 0 : lwm_fail(e, LWM_EDATA, "%s: holds no dialogue", path);
}

static void turn_json(const struct lwm_dialogue_turn *t, struct lwm_str *out)
{
	lwm_str_printf(out, "{\"dialogue\":%" PRId64 ",\"turn\":%" PRId64 ",\"prompt\":", t->dialogue, t->turn);
	lwm_str_json(out, t->question, strlen(t->question));
	lwm_str_puts(out, ",\"text\":");
	lwm_str_json(out, t->said, strlen(t->said));
	if (t->expected) {
		lwm_str_puts(out, ",\"expected\":");
		lwm_str_json(out, t->expected, strlen(t->expected));
		lwm_str_printf(out, ",\"right\":%s", t->right ? "true" : "false");
	}
	lwm_str_puts(out, "}\n");
}

void lwm_dialogue_turn_text(const struct lwm_dialogue_turn *t, bool json, struct lwm_str *out)
{
	if (json) {
		turn_json(t, out);
		return;
	}
	lwm_str_printf(out, "%s" LWM_CHAT_USER "%s\n%s %s\n", t->dialogue && !t->turn ? "\n" : "", t->question,
		       &LWM_CHAT_ASSISTANT[1], t->said);
	if (t->expected && !t->right)
		lwm_str_printf(out, "(expected: %s)\n", t->expected);
}

int lwm_dialogue_scores_write(const struct lwm_dialogue_scores *s, const char *path, bool force, struct lwm_err *e)
{
	struct lwm_str b = { 0 };
	lwm_str_printf(&b, "{\"dialogues\":%" PRId64 ",\"turns\":{", s->dialogues);
	for (int i = 0, n = 0; i < LWM_DIALOGUE_TURNS; i++)
		if (s->asked[i])
			lwm_str_printf(&b, "%s\"%d\":{\"asked\":%" PRId64 ",\"right\":%" PRId64 ",\"share_right\":%.6g}",
				       n++ ? "," : "", i + 1, s->asked[i], s->right[i], (double)s->right[i] / (double)s->asked[i]);
	lwm_str_puts(&b, "}}\n");
	int rc = lwm_str_ok(&b, e);
	if (rc == 0)
		rc = lwm_write_file(path, b.s, b.len, force, e);
	lwm_str_release(&b);
	return rc;
}
