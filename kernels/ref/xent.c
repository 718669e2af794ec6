/* xent.c - softmax cross-entropy over rows of logits x: with lse = max + log sum e^(x - max),
 * nll = lse - x[target] and the gradient weight (e^(x - lse) - [j == target]). Of a vocabulary in parts lse is worked out from what
 * each part says of its rows. */
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

/* sum of e^(x - max); of a part that is -Inf throughout nothing */
static double sum_from(const float *x, double max, int64_t n)
{
	double sum = 0;

	for (int64_t j = 0; max != -INFINITY && j < n; j++)
		sum += exp(x[j] - max);
	return sum;
}

static int xent_part(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, float *part, int grad)
{
	int64_t vocab = logits->n[1];

	(void)dev;
	(void)grad;
	for (int64_t i = 0; i < logits->n[0]; i++, part += LK_XENT_PART) {
		const float *x = lk_row(logits, i);
		int64_t top = argmax(x, vocab);

		part[0] = x[top];
		part[1] = (float)sum_from(x, x[top], vocab);
		part[2] = target[i] >= 0 && target[i] < vocab ? x[target[i]] : 0;
		part[3] = top == target[i];
	}
	return 0;
}

/* What the parts of one row make: p, and so on every `step` floats. */
struct joined {
	double lse, own; /* own: the logit of the target */
	float hit;
};

static struct joined join_row(const float *p, int parts, int64_t step)
{
	struct joined y = { 0, 0, p[3] };
	double max = p[0], sum = 0;

	for (int k = 1; k < parts; k++)
		if (p[k * step] > max) { // the first of the largest: a later part with the same is none
			max = p[k * step];
			y.hit = p[k * step + 3];
		}
	for (int k = 0; k < parts; k++) {
		sum += p[k * step + 1] * exp(p[k * step] - max);
		y.own += p[k * step + 2];
	}
	y.lse = max + log(sum);
	return y;
}

static int xent_join(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight,
		     const float *all, int parts, int mine, float *nll, float *hit, int grad)
{
	int64_t n = logits->n[0], vocab = logits->n[1];

	(void)dev;
	(void)mine;
	for (int64_t i = 0; i < n; i++) {
		struct joined y = join_row(all + i * LK_XENT_PART, parts, n * LK_XENT_PART);
		float *x = lk_row(logits, i);

		nll[i] = (float)(y.lse - y.own);
		if (hit)
			hit[i] = y.hit;
		for (int64_t j = 0; grad && j < vocab; j++)
			x[j] = (float)(weight[i] * (exp(x[j] - y.lse) - (j == target[i])));
	}
	return 0;
}

void lk_ref_fill_xent(struct lk_ops *o)
{
	o->dense.xent = xent;
	o->dense.xent_part = xent_part;
	o->dense.xent_join = xent_join;
}
