/* xent.c - softmax cross-entropy over rows of logits x: with lse = max + log sum e^(x - max),
 * nll = lse - x[target] and the gradient weight (e^(x - lse) - [j == target]). */
#include <math.h>

#include "kernels/ref/ref_int.h"

/* index of the largest, the lowest on ties */
static int64_t argmax(const float *x, int64_t n)
{
	int64_t best = 0;

	for (int64_t j = 1; j < n; j++)
		if (x[j] > x[best])
			best = j;
	return best;
}

static int xent(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight, float *nll,
		float *hit, int grad)
{
	int64_t vocab = logits->n[1];

	(void)dev;
	for (int64_t i = 0; i < logits->n[0]; i++) {
		float *x = lk_row(logits, i);
		int64_t top = argmax(x, vocab);
		double max = x[top], sum = 0, lse;

		for (int64_t j = 0; j < vocab; j++)
			sum += exp(x[j] - max);
		lse = max + log(sum);
		nll[i] = (float)(lse - x[target[i]]);
		if (hit)
			hit[i] = top == target[i];
		for (int64_t j = 0; grad && j < vocab; j++)
			x[j] = (float)(weight[i] * (exp(x[j] - lse) - (j == target[i])));
	}
	return 0;
}

void lk_ref_fill_xent(struct lk_ops *o)
{
	o->dense.xent = xent;
}
