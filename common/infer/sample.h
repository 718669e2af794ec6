/* sample.h - from logits to a token: guidance, allowed ids, temperature, top-k, top-p, draw. Host memory, local.
 *
 *	lwm_guide_logits(without, with, n, scale)                    of two streams one
 *	lwm_sampler_draw(&how, logits, first, last, step, sample, &id, &logprob, e)
 *
 * A draw is a function of (seed, step, sample) and the logits; no state. Logits are fp32 in vocabulary order of one
 * head. How it goes: the candidates are the finite logits of the range; top-k keeps the k largest; each gets the weight
 * exp((logit - largest) / temperature); top-p keeps the fewest, largest first, whose weights reach that part of the sum; one
 * uniform number in [0, sum) chooses. Sums are in double.
 */
#ifndef LWM_INFER_SAMPLE_H
#define LWM_INFER_SAMPLE_H

#include <stdint.h>

#include "common/base/err.h"

struct lwm_sampler {
	double temperature; /* 0 = greedy: the largest logit, the lowest id on ties */
	int64_t top_k;      /* 0 = all */
	double top_p;       /* nucleus (Holtzman et al. 2020); 1 = all */
	uint64_t seed;
};

/* u = u + scale * (c - u): classifier-free guidance (Ho & Salimans 2022). u: without the prompt, c: with it. scale 1 gives c. */
void lwm_guide_logits(float *u, const float *c, int64_t n, double scale);
/* *out: an index drawn from logits[first .. last) (others have no chance). NaN in the range, +inf or nothing finite is
 * -LWM_ENUMERIC. *logprob (may be NULL): natural log of the drawn id's probability under temperature 1 over the range. Allocates
 * scratch for last - first candidates and frees it. */
int lwm_sampler_draw(const struct lwm_sampler *s, const float *logits, int64_t first, int64_t last, uint64_t step,
		     uint64_t sample, int64_t *out, double *logprob, struct lwm_err *e);

#endif
