/* generate.h - text from a model: one prompt in, one answer out; or many side by side. Shared by the needle sweep, question
 * generation and conversations. */
#ifndef LWM_EVAL_GENERATE_H
#define LWM_EVAL_GENERATE_H

#include "common/infer/engine.h"
#include "common/infer/sample.h"
#include "common/text/tokenizer.h"

/* Who answers, and how; everything is borrowed. */
struct lwm_generate {
	struct lwm_engine *g;
	struct lwm_tokenizer *tok;
	struct lwm_sampler sampler;
	int64_t most; /* tokens of an answer at most; </s> ends it sooner */
};
/* As local as the engine: collective where several ranks share its context. Prefills prompt[0..n) into a cache of its own and
 * decodes text tokens; *said gets them without </s>. sample: number of this answer, for the draws. *finished: it ended with
 * </s>. */
int lwm_generate_text(const struct lwm_generate *w, const int32_t *prompt, int64_t n, uint64_t sample, struct lwm_ids *said,
		      bool *finished, struct lwm_err *e);

/* ---- many prompts ---- */

struct lwm_prompts {
	/* Prompt i into the empty *ids, and the number of its answer, for the draws. */
	int (*prompt)(void *user, int64_t i, struct lwm_ids *ids, uint64_t *sample, struct lwm_err *e);
	/* Its answer, without </s>. In the order in which answers end, each once. */
	int (*answer)(void *user, int64_t i, const struct lwm_ids *said, bool finished, struct lwm_err *e);
	void *user;
	int64_t n, longest; /* how many; tokens of one at most */
};
/* Local, with an engine of lwm_engine_new. Up to `streams` prompts (what the engine was made for) are answered side by side: each
 * is prefilled by itself, then one step of the model makes a token for all of them. Their lengths differ, and where one ends the
 * next begins. On the CPU every answer is to the token that of lwm_generate_text, whatever streams is: a step takes
 * LWM_STREAMS_ALIKE of them at most. On other devices sums are rounded otherwise, and where two tokens are as likely as each other
 * either may come. */
int lwm_generate_texts(const struct lwm_generate *w, const struct lwm_prompts *p, int64_t streams, struct lwm_err *e);

#endif
