/* loss.c - softmax cross-entropy, one row of logits after the other while it is in cache: a pass for the largest, a pass for
 * e^(x - max) and its sum, and with a gradient a third that scales (formulas: ref/xent.c). Of a vocabulary in parts the first two
 * are xent_part's, which leaves e^(x - max) in the row, and the third is xent_join's: as many passes, as fast. */
#include <math.h>
#include <string.h>

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

static void part_row(const struct lk_dense_hot *hot, float *x, int64_t vocab, int32_t target, float *part, int grad)
{
	int here = target >= 0 && target < vocab;

	part[0] = hot->row_max(x, vocab);
	part[2] = here ? x[target] : 0.0f;
	part[3] = here ? is_first(x, part[0], target) : 0.0f;
	if (part[0] != -INFINITY) {
		part[1] = hot->row_exp(x, part[0], vocab, grad);
		return;
	}
	part[1] = 0;
	if (grad)
		memset(x, 0, (size_t)vocab * sizeof *x);
}

static int xent_part(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, float *part, int grad)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t n = logits->n[0], vocab = logits->n[1];

#pragma omp parallel for num_threads(lk_threads_for(dev, n * vocab)) schedule(static)
	for (int64_t i = 0; i < n; i++)
		part_row(hot, lk_row(logits, i), vocab, target[i], part + i * LK_XENT_PART, grad);
	return 0;
}

/* The row holds e^(x - m) of its own part's m. */
static void join_row(const struct lk_dense_hot *hot, float *x, int64_t vocab, int32_t target, float weight, double scale)
{
	hot->scale(x, (float)((double)weight * scale), vocab);
	if (target >= 0 && target < vocab)
		x[target] -= weight;
}

static int xent_join(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight,
		     const float *all, int parts, int mine, float *nll, float *hit, int grad)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t n = logits->n[0], vocab = logits->n[1], step = n * LK_XENT_PART;

#pragma omp parallel for num_threads(lk_threads_for(dev, n * vocab)) schedule(static)
	for (int64_t i = 0; i < n; i++) {
		const float *p = all + i * LK_XENT_PART;
		double sum = 0, own = 0;
		int first = 0;

		for (int k = 1; k < parts; k++)
			first = p[k * step] > p[first * step] ? k : first;
		for (int k = 0; k < parts; k++) {
			sum += (double)p[k * step + 1] * exp((double)p[k * step] - (double)p[first * step]);
			own += (double)p[k * step + 2];
		}
		nll[i] = (float)((double)p[first * step] + log(sum) - own);
		if (hit)
			hit[i] = p[first * step + 3];
		if (grad)
			join_row(hot, lk_row(logits, i), vocab, target[i], weight[i],
				 exp((double)p[mine * step] - (double)p[first * step]) / sum);
	}
	return 0;
}

void lk_cpu_fill_loss(struct lk_ops *o)
{
	o->dense.xent = xent;
	o->dense.xent_part = xent_part;
	o->dense.xent_join = xent_join;
}
