/* chat_int.h - inside common/data/ingest: a record as turns (chat_turns.c), and their words (chat_words.c), for chat.c.
 *
 *	lwm_turns_read(&t, layout, record, e)         which of its turns count, who speaks, which clips it names
 *	for i = t.first .. t.last: lwm_turns_get(&t, i, &turn, e)
 *	lwm_turn_place(text, n, &skip)                a turn's text, cut at the places of clips
 *	lwm_turn_put(&out, text, n, escape)           what remains, looked through for words of the model
 *
 * Local calls; values are borrowed from the record.
 */
#ifndef LWM_DATA_INGEST_CHAT_INT_H
#define LWM_DATA_INGEST_CHAT_INT_H

#include <jansson.h>

#include "common/base/str.h"
#include "common/data/ingest/chat.h"

enum lwm_turn_role { LWM_TURN_NONE, LWM_TURN_SYSTEM, LWM_TURN_USER, LWM_TURN_ASSISTANT };
struct lwm_turn {
	enum lwm_turn_role role;
	const char *text; /* without white space around it */
	size_t n;
};
struct lwm_turns {
	const json_t *record, *list, *clips; /* clips: a text, a list of them, or NULL */
	enum lwm_chat_layout layout;         /* never auto */
	const char *system;                  /* the record's own; NULL: none */
	size_t nsystem;
	size_t count;                        /* of the list */
	size_t first, last;                  /* the turns that count: first is a question, last an answer */
	const char *fault;                   /* after a failure: the reason in two words */
};
/* -LWM_EDATA with t->fault. */
int lwm_turns_read(struct lwm_turns *t, enum lwm_chat_layout layout, const json_t *record, struct lwm_err *e);
int lwm_turns_get(const struct lwm_turns *t, size_t i, struct lwm_turn *out, struct lwm_err *e);
size_t lwm_turns_clips(const struct lwm_turns *t);
const char *lwm_turns_clip(const struct lwm_turns *t, size_t i); /* NULL: it is not a text */
const char *lwm_turns_text_trim(const char *text, size_t *n);    /* without white space around it */

/* Bytes up to the first place of a clip, n where there is none; *skip: bytes of the place itself, 0 where there is none. */
size_t lwm_turn_place(const char *text, size_t n, size_t *skip);
/* Appends a text. A word of the model in it: with escape it gets a space, else it is returned and nothing is said of *out. NULL:
 * all is well. */
const char *lwm_turn_put(struct lwm_str *out, const char *text, size_t n, bool escape);

#endif
