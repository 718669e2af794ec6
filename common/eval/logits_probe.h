/* logits_probe.h - do two models say the same? The logits of one after each of some made-up tokens, to be compared with another's.
 *
 *	lwm_logits_probe(&a, &n, &before, tokens, e)      and of the other: host memory, fp32, the caller's to free
 *	lwm_logits_compare(a, b, n, &d)
 *
 * Local calls. What a merge proves itself by: one model is read from the checkpoint, as training resumes from it, the other from
 * the folder that was written, as any program opens it. */
#ifndef LWM_EVAL_LOGITS_PROBE_H
#define LWM_EVAL_LOGITS_PROBE_H

#include "common/infer/load.h"

/* Of `tokens` tokens, at most the length that the model was made for: ids spread over all that it has, the same for each model of
 * so many. *out: those of each head, one after the other, each (tokens, rows); *n of them in all. Takes the memory of a cache of so
 * many tokens and of the logits. */
int lwm_logits_probe(const struct lwm_lm *m, int64_t tokens, float **out, int64_t *n, struct lwm_err *e);

struct lwm_logits_apart {
	double largest; /* difference of two logits; infinity where one of them is NaN */
	double scale;   /* the largest logit, without its sign */
};
struct lwm_logits_apart lwm_logits_compare(const float *a, const float *b, int64_t n); /* pure */

#endif
