/* inverse.c - least squares on one-hot vectors, by the normal equations. */
#include "common/eval/inverse.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int lwm_inverse_init(struct lwm_inverse *h, int64_t features, struct lwm_err *e)
{
	*h = (struct lwm_inverse){ .features = features, .xx = calloc((size_t)(features * features), sizeof(double)),
				   .xy = calloc((size_t)(features * LWM_CMDS), sizeof(double)),
				   .w = calloc((size_t)(features * LWM_CMDS), sizeof(double)) };
	if (h->xx && h->xy && h->w)
		return 0;
	lwm_inverse_release(h);
	return lwm_fail(e, LWM_EMEMORY, "no memory for a head of %" PRId64 " features", features);
}

void lwm_inverse_release(struct lwm_inverse *h)
{
	free(h->xx);
	free(h->xy);
	free(h->w);
	memset(h, 0, sizeof *h);
}

void lwm_inverse_add(struct lwm_inverse *h, const float *x, enum lwm_action_cmd cmd)
{
	for (int64_t i = 0; i < h->features; i++) {
		double xi = x[i], *row = h->xx + i * h->features;

		for (int64_t k = 0; k <= i; k++)
			row[k] += xi * x[k];
		h->xy[i * LWM_CMDS + cmd] += xi;
	}
	h->of[cmd]++;
	h->steps++;
}

/* a, lower part, becomes L with L L^T = a (Cholesky-Banachiewicz). false: a is not positive definite. */
static bool factor(double *a, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		for (int64_t k = 0; k <= i; k++) {
			double sum = a[i * n + k];

			for (int64_t j = 0; j < k; j++)
				sum -= a[i * n + j] * a[k * n + j];
			if (i == k && !(sum > 0))
				return false;
			a[i * n + k] = i == k ? sqrt(sum) : sum / a[k * n + k];
		}
	return true;
}

/* Solves L L^T w = w, a column of w for each command. */
static void solve(const double *l, int64_t n, double *w)
{
	for (int c = 0; c < LWM_CMDS; c++) {
		for (int64_t i = 0; i < n; i++) {
			for (int64_t j = 0; j < i; j++)
				w[i * LWM_CMDS + c] -= l[i * n + j] * w[j * LWM_CMDS + c];
			w[i * LWM_CMDS + c] /= l[i * n + i];
		}
		for (int64_t i = n - 1; i >= 0; i--) {
			for (int64_t j = i + 1; j < n; j++)
				w[i * LWM_CMDS + c] -= l[j * n + i] * w[j * LWM_CMDS + c];
			w[i * LWM_CMDS + c] /= l[i * n + i];
		}
	}
}

int lwm_inverse_fit(struct lwm_inverse *h, double ridge, struct lwm_err *e)
{
	int64_t n = h->features;
	double *a, trace = 0;
	int seen = 0;

	for (int c = 0; c < LWM_CMDS; c++)
		seen += h->of[c] > 0;
	if (seen < 2)
		return lwm_fail(e, LWM_EDATA, "%" PRId64 " steps show %d command%s: two are needed to tell them apart", h->steps, seen,
				seen == 1 ? "" : "s");
	a = malloc((size_t)(n * n) * sizeof *a);
	if (!a)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " x %" PRId64 " sums", n, n);
	memcpy(a, h->xx, (size_t)(n * n) * sizeof *a);
	memcpy(h->w, h->xy, (size_t)(n * LWM_CMDS) * sizeof *h->w);
	for (int64_t i = 0; i < n; i++)
		trace += a[i * n + i];
	for (int64_t i = 0; i < n; i++)
		a[i * n + i] += ridge * trace / (double)n;
	bool good = factor(a, n);
	if (good)
		solve(a, n, h->w);
	free(a);
	return good ? 0 : lwm_fail(e, LWM_ENUMERIC, "the features of %" PRId64 " steps cannot be told apart", h->steps);
}

enum lwm_action_cmd lwm_inverse_name(const struct lwm_inverse *h, const float *x)
{
	double score[LWM_CMDS] = { 0 };
	int best = -1;

	for (int64_t i = 0; i < h->features; i++)
		for (int c = 0; c < LWM_CMDS; c++)
			score[c] += h->w[i * LWM_CMDS + c] * x[i];
	for (int c = 0; c < LWM_CMDS; c++)
		if (h->of[c] && (best < 0 || score[c] > score[best]))
			best = c;
	return (enum lwm_action_cmd)best;
}

/* ---- what is seen of a step ---- */

int64_t lwm_inverse_features(const struct lwm_vqgan_cfg *c)
{
	return 2 * (int64_t)LWM_INVERSE_GRID * LWM_INVERSE_GRID * c->embed_dim + 1;
}

void lwm_inverse_pool(const float *z, int64_t n, int64_t height, int64_t width, int64_t embed, float *out)
{
	const int64_t g = LWM_INVERSE_GRID;

	for (int64_t i = 0; i < n * g * g; i++, out += embed) {
		int64_t gy = i / g % g, gx = i % g, y0 = gy * height / g, x0 = gx * width / g;
		int64_t y1 = (gy + 1) * height / g, x1 = (gx + 1) * width / g;

		y1 = y1 > y0 ? y1 : y0 + 1;
		x1 = x1 > x0 ? x1 : x0 + 1;
		for (int64_t k = 0; k < embed; k++) {
			double sum = 0;

			for (int64_t y = y0; y < y1; y++)
				for (int64_t x = x0; x < x1; x++)
					sum += z[((i / (g * g) * height + y) * width + x) * embed + k];
			out[k] = (float)(sum / (double)((y1 - y0) * (x1 - x0)));
		}
	}
}

void lwm_inverse_step(const float *from, const float *to, int64_t size, float *x)
{
	for (int64_t i = 0; i < size; i++) {
		x[i] = from[i];
		x[size + i] = to[i] - from[i];
	}
	x[2 * size] = 1;
}
