/* Turns of a record as texts, for conversations with a model: what may be said is what may be said in a document (chat.h). */
#include <stdlib.h>
#include <string.h>

#include "common/data/ingest/chat_int.h"

/* A copy of a turn's text, which ends where it says; refused with a word of the model, or a 0, in it. */
static int copy_text(char **out, const char *text, size_t n, struct lwm_err *e)
{
	struct lwm_str s = { 0 };
	const char *word = lwm_turn_put(&s, text, n, false);
	int rc = word ? lwm_fail(e, LWM_EDATA, "'%s' in the text of a turn", word) :
		 memchr(text, 0, n) ? lwm_fail(e, LWM_EDATA, "a character 0 in the text of a turn") : lwm_str_ok(&s, e);
	if (rc == 0 && !(*out = strndup(text, n)))
		rc = lwm_fail_memory(e, NULL);
	lwm_str_release(&s);
	return rc;
}

static int add_question(struct lwm_chat_turns *t, const char *text, size_t n, struct lwm_err *e)
{
	struct lwm_chat_turn *p = realloc(t->turn, (size_t)(t->n + 1) * sizeof *p);
	if (!p)
		return lwm_fail_memory(e, NULL);
	t->turn = p;
	p[t->n++] = (struct lwm_chat_turn){ 0 };
	return copy_text(&p[t->n - 1].question, text, n, e);
}

static int read_questions(struct lwm_chat_turns *out, const json_t *list, struct lwm_err *e)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *v = json_array_get(list, i);
		size_t n = json_string_length(v);
		const char *text = json_is_string(v) ? lwm_turns_text_trim(json_string_value(v), &n) : NULL;
		if (!text || !n)
			return lwm_fail(e, LWM_EDATA, "question %zu is %s", i + 1, text ? "empty" : "not a text");
		LWM_TRY(add_question(out, text, n, e));
	}
	return out->n ? 0 : lwm_fail(e, LWM_EDATA, "there is no question");
}

static int read_turns(struct lwm_chat_turns *out, const json_t *record, struct lwm_err *e)
{
	struct lwm_turns t;
	struct lwm_turn turn;
	LWM_TRY(lwm_turns_read(&t, LWM_CHAT_AUTO, record, e));
	if (lwm_turns_clips(&t))
		return lwm_fail(e, LWM_EDATA, "it names a clip, '%.200s', and this is about texts", lwm_turns_clip(&t, 0));
	if (t.system)
		LWM_TRY(copy_text(&out->system, t.system, t.nsystem, e));
	for (size_t i = t.first; i < t.count; i++) {
		LWM_TRY(lwm_turns_get(&t, i, &turn, e));
		if (turn.role == LWM_TURN_USER)
			LWM_TRY(add_question(out, turn.text, turn.n, e));
		else
			LWM_TRY(copy_text(&out->turn[out->n - 1].answer, turn.text, turn.n, e));
	}
	return 0;
}

int lwm_chat_read(struct lwm_chat_turns *out, const json_t *record, struct lwm_err *e)
{
	*out = (struct lwm_chat_turns){ 0 };
	int rc = json_is_array(record) ? read_questions(out, record, e) : read_turns(out, record, e);
	if (rc < 0)
		lwm_chat_release(out);
	return rc;
}

void lwm_chat_release(struct lwm_chat_turns *t)
{
	for (int64_t i = 0; i < t->n; i++) {
		free(t->turn[i].question);
		free(t->turn[i].answer);
	}
	free(t->turn);
	free(t->system);
	*t = (struct lwm_chat_turns){ 0 };
}
