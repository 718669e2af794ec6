/* generate.h - text from a model: one prompt in, one answer out. Shared by evaluation and question generation. */
#ifndef LWM_EVAL_GENERATE_H
#define LWM_EVAL_GENERATE_H

#include "common/infer/engine.h"
#include "common/infer/sample.h"
#include "common/text/tokenizer.h"

struct lwm_generate {
	struct lwm_engine *g;
	struct lwm_tokenizer *tok;
	struct lwm_sampler sampler;
	int64_t most; /* tokens of an answer at most; </s> ends it sooner */
};
/* Feeds prompt[0..n) and draws text tokens; *said gets them without </s>. sample: number of this answer, for the
 * draws. *finished: it ended with </s>. Local. */
int lwm_generate_text(const struct lwm_generate *w, const int32_t *prompt, int64_t n, uint64_t sample, struct lwm_ids *said,
		      bool *finished, struct lwm_err *e);

#endif
