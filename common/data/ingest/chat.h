/* chat.h - turn lists become documents: the element <|chat|> of the field language (fields.h).
 *
 *	struct lwm_fields_cfg cfg = { .fields = "<|chat|>", .nfields = 1, .chat = { .layout = LWM_CHAT_LLAVA, ... }, ... };
 *	lwm_fields_open(&f, &cfg, tokenizer, e)              and lwm_fields_build for each record
 *
 * Layouts, as the data sets are published:
 *
 *	sharegpt   {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}, ...]}
 *	ultrachat  {"data": ["question", "answer", "question", ...]}
 *	messages   {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}   (UltraChat 200k)
 *	llava      sharegpt, and "image": a name or a list of them; <image> in the turns says where each goes
 *	valley     sharegpt, and "video"; <video> in the turns
 *	videochat  {"q": "...", "a": "...", "video_id": "..."}                                       (Video-ChatGPT-100K)
 *	auto       what the keys of a record say: the most special layout that fits
 *
 * A document is (words of the frame: common/data/chatframe.h; * has loss, all else has none)
 *
 *	<s> SYSTEM USER: question ASSISTANT: *answer* *</s>* USER: question ASSISTANT: *answer* *</s>* ...
 *
 * so every answer has loss, and several questions about one image or clip share its codes. A question with a clip is followed by a
 * newline and the clip, <vision> codes </vision>, wherever its place stood among the words; a clip in an answer stands where its
 * place is and has loss. The system prompt is the record's own (a first turn of "system", or the key "system" or "system_prompt"), else
 * cfg.system; a blank one is none. White space around a turn is no part of it.
 *
 * Left out: answers before the first question, and a last question without an answer. Refused, as "bad turns": no answer at all, two
 * turns of one side in a row, roles that are neither side, empty turns, places that are not as many as clips, two system prompts.
 *
 * Words that mean something to the model must not come from a text: <s>, </s>, <unk>, <vision>, </vision>, the marks of the field
 * language, <image> and <video> where there is no clip for them, USER: and ASSISTANT:. A record with one in any of its texts is
 * refused ("special token"), or with cfg.escape a space is put into it, "< s>", "USER :", so that it no longer is one.
 *
 * Who asks a model instead of training it takes the turns as texts:
 *
 *	lwm_chat_read(&t, record, e)                         questions, the answers that are known, the system prompt
 *	lwm_chat_release(&t)
 *
 * Pure but for cfg.codes; any thread.
 */
#ifndef LWM_DATA_INGEST_CHAT_H
#define LWM_DATA_INGEST_CHAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/text/tokenizer.h"

enum lwm_chat_layout {
	LWM_CHAT_AUTO,
	LWM_CHAT_SHAREGPT,
	LWM_CHAT_ULTRACHAT,
	LWM_CHAT_MESSAGES,
	LWM_CHAT_LLAVA,
	LWM_CHAT_VALLEY,
	LWM_CHAT_VIDEOCHAT
};
extern const char *const lwm_chat_layout_names[]; /* in the same order, then NULL */
bool lwm_chat_layout_has_clips(enum lwm_chat_layout layout); /* may its records name clips? auto: yes */

struct lwm_chat_cfg {
	enum lwm_chat_layout layout;
	const char *system; /* where a record has none; NULL: LWM_CHAT_SYSTEM; "": nothing stands before the first turn */
	bool escape;        /* words of the model in texts get a space; else their record is refused */
	bool vision;        /* documents may hold codes; else a record that names a clip is refused */
	/* Appends the codes of the clip that a record calls `name`. -LWM_EDATA: there is none. NULL: the record brings them itself,
	 * as the field "vision", and names one clip. Any number of threads at once. */
	int (*codes)(void *user, const char *name, struct lwm_ids *out, struct lwm_err *e);
	void *user;
};

struct lwm_chat_turn {
	char *question, *answer; /* answer NULL: not known */
};
struct lwm_chat_turns {
	char *system; /* NULL: the record says none */
	struct lwm_chat_turn *turn;
	int64_t n;
};
/* A record of any layout, and a last question without an answer counts; or a list of texts, which are questions. -LWM_EDATA: what
 * makes a record no document, and one that names clips; *out is empty then. */
int lwm_chat_read(struct lwm_chat_turns *out, const json_t *record, struct lwm_err *e);
void lwm_chat_release(struct lwm_chat_turns *t);

#endif
