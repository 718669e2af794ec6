/* sample.c - candidates, their weights, one draw. The scheme is in sample.h. */
#include "common/infer/sample.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/base/rng.h"

struct candidate {
	float logit;
	int32_t id;
};

void lwm_guide_logits(float *u, const float *c, int64_t n, double scale)
{
	for (int64_t i = 0; i < n; i++)
		u[i] = scale == 1 ? c[i] : (float)((double)u[i] + scale * ((double)c[i] - (double)u[i]));
}

/* Larger logits first, then lower ids. */
static int compare_candidates(const void *pa, const void *pb)
{
	const struct candidate *a = pa, *b = pb;

	if (a->logit != b->logit)
		return a->logit > b->logit ? -1 : 1;
	return (a->id > b->id) - (a->id < b->id);
}

static void swap_candidates(struct candidate *a, struct candidate *b)
{
	struct candidate t = *a;

	*a = *b;
	*b = t;
}

/* Brings the k first in the order of compare_candidates to the front, in any order (Hoare's selection). */
static void select_first(struct candidate *c, int64_t n, int64_t k)
{
	int64_t lo = 0, hi = n - 1;

	while (lo < hi) {
		struct candidate pivot = c[lo + (hi - lo) / 2];
		int64_t i = lo, j = hi;

		while (i <= j) {
			while (compare_candidates(&c[i], &pivot) < 0)
				i++;
			while (compare_candidates(&pivot, &c[j]) < 0)
				j--;
			if (i <= j)
				swap_candidates(&c[i++], &c[j--]);
		}
		if (k <= j)
			hi = j;
		else if (k >= i)
			lo = i;
		else
			return;
	}
}

/* Index of the largest logit (lowest on ties), or -1 where there is a NaN or nothing finite. */
static int64_t find_largest(const float *logits, int64_t first, int64_t last)
{
	int64_t best = -1;

	for (int64_t i = first; i < last; i++) {
		if (isnan(logits[i]) || logits[i] == INFINITY)
			return -1;
		if (isfinite(logits[i]) && (best < 0 || logits[i] > logits[best]))
			best = i;
	}
	return best;
}

/* log softmax over the range, relative to the largest logit so that nothing overflows. */
static double log_prob(const float *logits, int64_t first, int64_t last, int64_t top, int64_t chosen)
{
	double sum = 0;

	for (int64_t i = first; i < last; i++)
		sum += exp((double)logits[i] - (double)logits[top]);
	return (double)logits[chosen] - (double)logits[top] - log(sum);
}

/* How many of the n candidates the limits leave, brought to the front; p[i] gets their weights, *sum the sum. */
static int64_t keep_likely(const struct lwm_sampler *s, struct candidate *c, double *p, int64_t n, double top, double *sum)
{
	double all = 0, taken = 0;
	bool nucleus = s->top_p < 1;

	if (s->top_k > 0 && s->top_k < n) {
		select_first(c, n, s->top_k - 1);
		n = s->top_k;
	}
	if (nucleus || s->top_k > 0)
		qsort(c, (size_t)n, sizeof *c, compare_candidates);
	for (int64_t i = 0; i < n; i++) {
		p[i] = exp(((double)c[i].logit - top) / s->temperature);
		all += p[i];
	}
	for (int64_t i = 0; i < n && nucleus; i++) {
		taken += p[i];
		if (taken >= s->top_p * all) {
			n = i + 1;
			all = taken;
		}
	}
	*sum = all;
	return n;
}

/* c and p: scratch for last - first candidates and their weights. top: the largest logit. */
static int64_t draw_one(const struct lwm_sampler *s, const float *logits, int64_t first, int64_t last, double top,
			uint64_t step, uint64_t sample, struct candidate *c, double *p)
{
	struct lwm_rng r = lwm_rng_at(s->seed, LWM_RNG_SAMPLE, step, sample);
	int64_t n = 0, i;
	double sum, u;

	for (i = first; i < last; i++)
		if (isfinite(logits[i]))
			c[n++] = (struct candidate){ logits[i], (int32_t)i };
	n = keep_likely(s, c, p, n, top, &sum);
	u = lwm_rng_double(&r) * sum;
	for (i = 0; i < n - 1 && u >= p[i]; i++)
		u -= p[i];
	return c[i].id;
}

int lwm_sampler_draw(const struct lwm_sampler *s, const float *logits, int64_t first, int64_t last, uint64_t step,
	       uint64_t sample, int64_t *out, double *logprob, struct lwm_err *e)
{
	int64_t top = first < last ? find_largest(logits, first, last) : -1;
	struct candidate *c;
	double *p;

	if (top < 0)
		return lwm_fail(e, LWM_ENUMERIC, "logits %" PRId64 " to %" PRId64 " hold NaN or nothing finite to choose from",
				first, last - 1);
	*out = top;
	if (s->temperature > 0 && s->top_k != 1) {
		c = malloc((size_t)(last - first) * sizeof *c);
		p = malloc((size_t)(last - first) * sizeof *p);
		if (c && p)
			*out = draw_one(s, logits, first, last, (double)logits[top], step, sample, c, p);
		else
			top = -1;
		free(c);
		free(p);
		if (top < 0)
			return lwm_fail(e, LWM_EMEMORY, "no memory to choose among %" PRId64 " ids", last - first);
	}
	if (logprob)
		*logprob = log_prob(logits, first, last, top, *out);
	return 0;
}
