/* generate.h - text from a model: one prompt in, one answer out. Shared by the needle sweep and question generation. */
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

#endif
