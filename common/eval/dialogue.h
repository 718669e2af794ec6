/* dialogue.h - a model in conversation: turns that follow each other in one context, and files of them whose answers are known.
 *
 *	lwm_dialogue_new(&d, &writer, context, false, e)
 *	lwm_dialogue_begin(d, NULL)                                a conversation; again: the next one
 *	lwm_dialogue_ask(d, "question", i, fn, arg, &finished, e)  fn sees the answer's tokens; the context keeps both
 *	lwm_dialogue_free(d)
 *
 * The frame is the one that chats are made documents in (common/data/chatframe.h): what the model says is kept as it said it, </s>
 * ends it, and the next question follows. As local as the engine: collective where several ranks share its context.
 */
#ifndef LWM_EVAL_DIALOGUE_H
#define LWM_EVAL_DIALOGUE_H

#include "common/eval/generate.h"
#include "common/infer/compose.h"

struct lwm_dialogue;

/* w: borrowed, with what it points to. context: tokens of a whole conversation at most. raw: questions go in as they are, without
 * the words of the frame. */
int lwm_dialogue_new(struct lwm_dialogue **out, const struct lwm_generate *w, int64_t context, bool raw, struct lwm_err *e);
void lwm_dialogue_free(struct lwm_dialogue *d); /* NULL is fine */
/* Forgets what was said. system: before the first question, borrowed until that is asked; NULL: LWM_CHAT_SYSTEM; "": nothing. */
void lwm_dialogue_begin(struct lwm_dialogue *d, const char *system);
/* *finished (may be NULL): </s> ended the answer. -LWM_ECONFIG: the question does not fit into what is left of the context. */
int lwm_dialogue_ask(struct lwm_dialogue *d, const char *question, uint64_t sample, lwm_token_fn *fn, void *arg, bool *finished,
		     struct lwm_err *e);
int64_t lwm_dialogue_length(const struct lwm_dialogue *d); /* tokens of the conversation so far */
struct lwm_tokenizer *lwm_dialogue_tokenizer(const struct lwm_dialogue *d); /* the writer's */

/* ---- files of dialogues ---- */

enum { LWM_DIALOGUE_TURNS = 64 }; /* of a dialogue at most */
struct lwm_dialogue_scores {
	int64_t dialogues;
	int64_t asked[LWM_DIALOGUE_TURNS]; /* by turn, from 0: questions whose answer is known; */
	int64_t right[LWM_DIALOGUE_TURNS]; /* and answers that are that, word for word */
};
struct lwm_dialogue_turn {
	int64_t dialogue, turn; /* both from 0 */
	const char *question, *said;
	const char *expected;   /* NULL: not known */
	bool right;             /* said is expected, but for white space around them */
};
/* One answer; what it points to lives until it returns. */
typedef int lwm_dialogue_fn(void *arg, const struct lwm_dialogue_turn *t, struct lwm_err *e);
/* Holds every dialogue of a file: .json, a list of records, or lines of them, packed too. A record is what lwm_chat_read takes.
 * Each question follows what the model itself answered before it. *scores is added to. -LWM_EDATA names file and record: not of
 * that form, or more than LWM_DIALOGUE_TURNS questions. */
int lwm_dialogue_hold(struct lwm_dialogue *d, const char *path, lwm_dialogue_fn *fn, void *arg,
		      struct lwm_dialogue_scores *scores, struct lwm_err *e);
/* A turn as lines of text: as it would stand on paper, what was expected beside a wrong answer; or as a JSON object. */
void lwm_dialogue_turn_text(const struct lwm_dialogue_turn *t, bool json, struct lwm_str *out);
/* {"dialogues":N,"turns":{"1":{"asked":N,"right":N,"share_right":X},...}}: turns with a known answer. */
int lwm_dialogue_scores_write(const struct lwm_dialogue_scores *s, const char *path, bool force, struct lwm_err *e);

#endif
