/* loss.c - softmax cross-entropy, one row of logits after the other while it is in cache: a pass for the largest, a pass for
 * e^(x - max) and its sum, and with a gradient a third that scales (formulas: ref/xent.c). */
#include <math.h>

#include "kernels/cpu/dense_int.h"

/* 1.0f if target is the first place where max stands */
static float is_first(const float *x, float max, int32_t target)
{
	if (x[target] != max)
		return 0.0f;
	for (int32_t j = 0; j < target; j++)
		if (x[j] == max)
			return 0.0f;
	return 1.0f;
}

static void xent_row(const struct lk_dense_hot *hot, float *x, int64_t vocab, int32_t target, float weight, float *nll,
		     float *hit, int grad)
{
	float max = hot->row_max(x, vocab), own = x[target], sum;

	if (hit)
		*hit = is_first(x, max, target);
	sum = hot->row_exp(x, max, vocab, grad);
	*nll = (float)((double)max + log((double)sum) - own);
	if (grad) {
		hot->scale(x, weight / sum, vocab);
		x[target] -= weight;
	}
}

static int xent(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight, float *nll,
		float *hit, int grad)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t n = logits->n[0], vocab = logits->n[1];

#pragma omp parallel for num_threads(lk_threads_for(dev, n * vocab)) schedule(static)
	for (int64_t i = 0; i < n; i++)
		xent_row(hot, lk_row(logits, i), vocab, target[i], grad ? weight[i] : 0.0f, nll + i,
			 hit ? hit + i : NULL, grad);
	return 0;
}

void lk_cpu_fill_loss(struct lk_ops *o)
{
	o->dense.xent = xent;
}
