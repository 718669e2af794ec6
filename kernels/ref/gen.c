/* gen.c - generation in plain loops: keys and values in fewer bits, and the choice of a token.
 *
 * A token is drawn by inverse transform: the weights e^((x - max) / temperature) of what top-k and top-p leave are added up until
 * their share of the whole passes u. The order is that of the columns without limits, else from the largest down. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "kernels/ref/ref_int.h"

/* ---- caches ---- */

static int64_t at3(const struct lk_view *v, int64_t t, int64_t h)
{
	return t * v->stride[0] + h * v->stride[1];
}

/* One head of one token in 8 bits; returns its scale. */
static float store_row(int8_t *y, const float *x, int64_t d)
{
	float most = 0, scale;
	int finite = 1;

	for (int64_t i = 0; i < d; i++) {
		most = fmaxf(most, fabsf(x[i]));
		finite &= isfinite(x[i]) != 0;
	}
	scale = finite ? most / 127.0f : NAN;
	for (int64_t i = 0; i < d; i++)
		y[i] = scale > 0 ? (int8_t)fmaxf(-127, fminf(127, rintf(x[i] / scale))) : 0;
	return scale;
}

static int kv_store(struct lk_dev *dev, const struct lk_view *y, float *scale, int64_t scale_stride,
		    const struct lk_view *x)
{
	int64_t d = x->n[2];

	(void)dev;
	for (int64_t t = 0; t < x->n[0]; t++) {
		for (int64_t h = 0; h < x->n[1]; h++) {
			const float *from = (const float *)x->data + at3(x, t, h);

			if (y->dtype == LK_I8)
				scale[t * scale_stride + h] = store_row((int8_t *)y->data + at3(y, t, h), from, d);
			else
				for (int64_t i = 0; i < d; i++)
					((uint16_t *)y->data)[at3(y, t, h) + i] = lk_bf16_put(from[i]);
		}
	}
	return 0;
}

static int kv_load(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const float *scale,
		   int64_t scale_stride)
{
	(void)dev;
	for (int64_t t = 0; t < x->n[0]; t++)
		for (int64_t h = 0; h < x->n[1]; h++)
			lk_kv_row((float *)y->data + at3(y, t, h), x->data, x->dtype, at3(x, t, h), x->n[2],
				  scale ? scale[t * scale_stride + h] : 1.0f);
	return 0;
}

/* ---- the choice of a token ---- */

struct candidate {
	double weight;
	float logit;
	int32_t id;
};

/* Larger logits first, then lower ids. */
static int before(const void *pa, const void *pb)
{
	const struct candidate *a = pa, *b = pb;

	if (a->logit != b->logit)
		return a->logit > b->logit ? -1 : 1;
	return (a->id > b->id) - (a->id < b->id);
}

/* Column of the largest logit (lowest on ties), or -1 where there is a NaN or +Inf, or nothing finite. */
static int64_t largest(const float *x, const struct lk_draw_cfg *how)
{
	int64_t best = -1;

	for (int64_t i = how->first; i < how->last; i++) {
		if (isnan(x[i]) || x[i] == INFINITY)
			return -1;
		if (isfinite(x[i]) && (best < 0 || x[i] > x[best]))
			best = i;
	}
	return best;
}

static int32_t choose_token(const float *x, const struct lk_draw_cfg *how, double top, double u, struct candidate *c)
{
	int64_t n = 0, i, last = 0;
	double all = 0, taken = 0;

	for (i = how->first; i < how->last; i++) {
		double w = exp(((double)x[i] - top) / how->temperature);

		if (isfinite(x[i])) // nothing, rather than what a rounded sum would leave for it
			c[n++] = (struct candidate){ w < 0x1p-41 ? 0 : w, x[i], (int32_t)i };
	}
	if (how->top_k || how->top_p < 1)
		qsort(c, (size_t)n, sizeof *c, before);
	if (how->top_k && how->top_k < n)
		n = how->top_k;
	for (i = 0; i < n; i++)
		all += c[i].weight;
	for (i = 0; i < n && how->top_p < 1; i++) {
		taken += c[i].weight;
		if (taken >= how->top_p * all) {
			n = i + 1;
			all = taken;
		}
	}
	u *= all;
	for (i = 0; i < n && u >= c[i].weight; i++) {
		u -= c[i].weight;
		if (c[i].weight > 0)
			last = i;
	}
	return c[i < n ? i : last].id;
}

static double log_prob(const float *x, const struct lk_draw_cfg *how, double top, int64_t chosen)
{
	double sum = 0;

	for (int64_t i = how->first; i < how->last; i++)
		sum += exp((double)x[i] - top);
	return (double)x[chosen] - top - log(sum);
}

static int draw(struct lk_dev *dev, const struct lk_view *logits, const struct lk_draw_cfg *how, const double *host_u,
		int32_t *host_id, double *host_logprob)
{
	struct candidate *c = malloc((size_t)(how->last - how->first) * sizeof *c);

	if (!c)
		return lk_fail(dev, LK_ENOMEM, "draw: no memory for %" PRId64 " candidates", how->last - how->first);
	for (int64_t r = 0; r < logits->n[0]; r++) {
		const float *x = lk_row(logits, r);
		int64_t best = largest(x, how);

		host_id[r] = (int32_t)best;
		if (best >= 0 && how->temperature > 0 && how->top_k != 1)
			host_id[r] = choose_token(x, how, (double)x[best], host_u[r], c);
		if (host_logprob)
			host_logprob[r] = best < 0 ? NAN : log_prob(x, how, (double)x[best], host_id[r]);
	}
	free(c);
	return 0;
}

void lk_ref_fill_gen(struct lk_ops *o)
{
	o->generation.kv_store = kv_store;
	o->generation.kv_load = kv_load;
	o->generation.draw = draw;
}
