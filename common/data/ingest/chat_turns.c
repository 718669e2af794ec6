/* Turn lists as data sets have them: a table of layouts, and a record read by one of them. To add a layout: its constant and line
 * in chat.h, its line in the table. */
#include "common/data/ingest/chat_int.h"

#include <string.h>

struct layout {
	const char *name;
	const char *turns;       /* key of the list; NULL: one question and one answer under the next two */
	const char *from, *text; /* keys of a turn; from NULL: a turn is a text, the first a question */
	const char *clips;       /* key of the clips, NULL: there are none */
};
static const struct layout layouts[] = {
	[LWM_CHAT_AUTO] = { .name = "auto" },
	[LWM_CHAT_SHAREGPT] = { "sharegpt", "conversations", "from", "value", NULL },
	[LWM_CHAT_ULTRACHAT] = { "ultrachat", "data", NULL, NULL, NULL },
	[LWM_CHAT_MESSAGES] = { "messages", "messages", "role", "content", NULL },
	[LWM_CHAT_LLAVA] = { "llava", "conversations", "from", "value", "image" },
	[LWM_CHAT_VALLEY] = { "valley", "conversations", "from", "value", "video" },
	[LWM_CHAT_VIDEOCHAT] = { "videochat", NULL, "q", "a", "video_id" },
};
const char *const lwm_chat_layout_names[] = { "auto", "sharegpt", "ultrachat", "messages", "llava", "valley", "videochat", NULL };

/* Who is meant, in the words of the data sets. */
static const struct {
	const char *word;
	enum lwm_turn_role role;
} roles[] = {
	{ "human", LWM_TURN_USER },          { "user", LWM_TURN_USER },         { "gpt", LWM_TURN_ASSISTANT },
	{ "chatgpt", LWM_TURN_ASSISTANT },   { "assistant", LWM_TURN_ASSISTANT }, { "bing", LWM_TURN_ASSISTANT },
	{ "bard", LWM_TURN_ASSISTANT },      { "system", LWM_TURN_SYSTEM },
};

bool lwm_chat_layout_has_clips(enum lwm_chat_layout layout)
{
	return layout == LWM_CHAT_AUTO || layouts[layout].clips;
}

static int set_fault(struct lwm_turns *t, const char *fault, int rc)
{
	t->fault = fault;
	return rc;
}

/* The most special layout that fits the keys; auto: none does. */
static enum lwm_chat_layout layout_of(const json_t *o)
{
	if (json_object_get(o, "conversations"))
		return json_object_get(o, "image") ? LWM_CHAT_LLAVA :
		       json_object_get(o, "video") ? LWM_CHAT_VALLEY : LWM_CHAT_SHAREGPT;
	if (json_object_get(o, "messages"))
		return LWM_CHAT_MESSAGES;
	if (json_object_get(o, "data"))
		return LWM_CHAT_ULTRACHAT;
	return json_object_get(o, "q") && json_object_get(o, "a") ? LWM_CHAT_VIDEOCHAT : LWM_CHAT_AUTO;
}

const char *lwm_turns_text_trim(const char *text, size_t *n)
{
	while (*n && strchr(" \t\r\n", *text) && *text)
		text++, --*n;
	while (*n && strchr(" \t\r\n", text[*n - 1]) && text[*n - 1])
		--*n;
	return text;
}

static enum lwm_turn_role role_of(const char *word)
{
	for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
		if (word && !strcmp(word, roles[i].word))
			return roles[i].role;
	return LWM_TURN_NONE;
}

int lwm_turns_get(const struct lwm_turns *t, size_t i, struct lwm_turn *out, struct lwm_err *e)
{
	const struct layout *l = &layouts[t->layout];
	const json_t *turn = l->turns ? json_array_get(t->list, i) : NULL, *text = turn;
	if (!l->turns) {
		text = json_object_get(t->record, i ? l->text : l->from);
		out->role = i ? LWM_TURN_ASSISTANT : LWM_TURN_USER;
	} else if (l->from) {
		text = json_object_get(turn, l->text);
		out->role = role_of(json_string_value(json_object_get(turn, l->from)));
	} else {
		out->role = i % 2 ? LWM_TURN_ASSISTANT : LWM_TURN_USER;
	}
	if (!json_is_string(text))
		return lwm_fail(e, LWM_EDATA, "turn %zu has no text", i + 1);
	if (out->role == LWM_TURN_NONE)
		return lwm_fail(e, LWM_EDATA, "turn %zu is neither a question nor an answer: '%.40s'", i + 1,
				json_is_string(json_object_get(turn, l->from)) ? json_string_value(json_object_get(turn, l->from)) : "");
	out->n = json_string_length(text);
	out->text = lwm_turns_text_trim(json_string_value(text), &out->n);
	return 0;
}

/* One of the record's own system prompts; a blank one is none. */
static int take_system(struct lwm_turns *t, const char *text, size_t n, struct lwm_err *e)
{
	text = lwm_turns_text_trim(text, &n);
	if (!n)
		return 0;
	if (t->system && (t->nsystem != n || memcmp(t->system, text, n)))
		return lwm_fail(e, LWM_EDATA, "it has two system prompts");
	t->system = text;
	t->nsystem = n;
	return 0;
}

static int find_system(struct lwm_turns *t, struct lwm_err *e)
{
	static const char *const keys[] = { "system", "system_prompt" };
	for (int i = 0; i < 2; i++) {
		const json_t *v = json_object_get(t->record, keys[i]);
		if (!v || json_is_null(v))
			continue;
		if (!json_is_string(v))
			return set_fault(t, "wrong type", lwm_fail(e, LWM_EDATA, "field '%s' is not a text", keys[i]));
		if (take_system(t, json_string_value(v), json_string_length(v), e) < 0)
			return set_fault(t, "bad turns", -LWM_EDATA);
	}
	return 0;
}

/* Which turns count: from the first question to the last answer, in turn. */
static int find_ends(struct lwm_turns *t, struct lwm_err *e)
{
	struct lwm_turn turn;
	bool any = false;
	enum lwm_turn_role want = LWM_TURN_USER;
	t->fault = "bad turns";
	for (size_t i = 0; i < t->count; i++) {
		LWM_TRY(lwm_turns_get(t, i, &turn, e));
		if (turn.role == LWM_TURN_SYSTEM && i == 0) {
			LWM_TRY(take_system(t, turn.text, turn.n, e));
			continue;
		}
		if (!any && turn.role == LWM_TURN_ASSISTANT && want == LWM_TURN_USER)
			continue; /* before the first question */
		if (turn.role != want)
			return lwm_fail(e, LWM_EDATA, "turn %zu is not %s", i + 1, want == LWM_TURN_USER ? "a question" : "an answer");
		if (!turn.n)
			return lwm_fail(e, LWM_EDATA, "turn %zu is empty", i + 1);
		if (want == LWM_TURN_USER && !any)
			t->first = i;
		any = true;
		if (want == LWM_TURN_ASSISTANT)
			t->last = i;
		want = want == LWM_TURN_USER ? LWM_TURN_ASSISTANT : LWM_TURN_USER;
	}
	if (t->last <= t->first)
		return lwm_fail(e, LWM_EDATA, "there is no question with an answer");
	t->fault = NULL;
	return 0;
}

size_t lwm_turns_clips(const struct lwm_turns *t)
{
	return !t->clips ? 0 : json_is_array(t->clips) ? json_array_size(t->clips) : 1;
}

const char *lwm_turns_clip(const struct lwm_turns *t, size_t i)
{
	return json_string_value(json_is_array(t->clips) ? json_array_get(t->clips, i) : t->clips);
}

int lwm_turns_read(struct lwm_turns *t, enum lwm_chat_layout layout, const json_t *record, struct lwm_err *e)
{
	*t = (struct lwm_turns){ .record = record, .layout = layout == LWM_CHAT_AUTO ? layout_of(record) : layout };
	const struct layout *l = &layouts[t->layout];
	t->count = 2;
	if (t->layout == LWM_CHAT_AUTO)
		return set_fault(t, "missing key",
				 lwm_fail(e, LWM_EDATA, "no turns: none of the keys conversations, messages, data, and q with a"));
	if (l->turns) {
		t->list = json_object_get(record, l->turns);
		if (!t->list)
			return set_fault(t, "missing key", lwm_fail(e, LWM_EDATA, "no field '%s'", l->turns));
		if (!json_is_array(t->list))
			return set_fault(t, "wrong type", lwm_fail(e, LWM_EDATA, "field '%s' is not a list of turns", l->turns));
		t->count = json_array_size(t->list);
	}
	t->clips = l->clips ? json_object_get(record, l->clips) : NULL;
	if (json_is_null(t->clips))
		t->clips = NULL;
	for (size_t i = 0; i < lwm_turns_clips(t); i++)
		if (!lwm_turns_clip(t, i))
			return set_fault(t, "wrong type",
					 lwm_fail(e, LWM_EDATA, "field '%s' is neither a name nor a list of names", l->clips));
	LWM_TRY(find_system(t, e));
	return find_ends(t, e);
}
