/* euler.c - what euler.h says. */
#include "common/model/euler.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"

double lwm_rollout_sigma(const struct lwm_rollout *r, int64_t i)
{
	double most = pow(r->sigma_max, 1 / r->rho), least = pow(r->sigma_min, 1 / r->rho);

	if (i >= r->steps)
		return 0;
	return r->steps > 1 ? pow(most + (double)i / (double)(r->steps - 1) * (least - most), r->rho) : r->sigma_max;
}

double lwm_rollout_guide(const struct lwm_rollout *r, int64_t t, int64_t times)
{
	double v = times > 1 ? (double)t / (double)(times - 1) : 0;

	return r->rounds > 1 ? 1 + (r->guide - 1) * 2 * fabs(v - floor(v + 0.5)) : r->guide;
}

int64_t lwm_rollout_times(const struct lwm_rollout *r, int64_t times)
{
	return r->rounds * (times - r->overlap) + r->overlap;
}

/* A round on its way. */
struct round {
	const struct lwm_rollout *r;
	const struct lwm_latent_shape *s;
	lwm_denoise_fn *denoise;
	void *ctx;
	const float *known;        /* of the first `given` times */
	int64_t given, time;       /* numbers of a time */
	float *noise, *d, *free_d; /* (T, ...) each: e of the first times; D; U */
};

/* D with no clean time: known ones are given the noise of sigma for this, and then are clean again. */
static int guide(struct round *q, float *x, double sigma, struct lwm_err *e)
{
	int64_t first = q->given * q->time, n = q->s->times * q->time;

	for (int64_t i = 0; i < first; i++)
		x[i] = (float)((double)q->known[i] + sigma * (double)q->noise[i]);
	LWM_TRY(q->denoise(q->ctx, x, sigma, 0, q->free_d, e));
	for (int64_t i = 0; i < n; i++) {
		double g = lwm_rollout_guide(q->r, i / q->time, q->s->times), u = (double)q->free_d[i];

		q->d[i] = (float)(u + g * ((double)q->d[i] - u));
	}
	return 0;
}

/* x: noise, which becomes a clip. */
static int draw_round(struct round *q, float *x, struct lwm_err *e)
{
	int64_t first = q->given * q->time, n = q->s->times * q->time;
	double most = lwm_rollout_sigma(q->r, 0);

	memcpy(q->noise, x, (size_t)first * sizeof *x);
	for (int64_t i = 0; i < n; i++)
		x[i] = (float)((double)x[i] * sqrt(1 + most * most));
	for (int64_t k = 0; k < q->r->steps; k++) {
		double sigma = lwm_rollout_sigma(q->r, k), next = lwm_rollout_sigma(q->r, k + 1);

		memcpy(x, q->known, (size_t)first * sizeof *x);
		LWM_TRY(q->denoise(q->ctx, x, sigma, q->given, q->d, e));
		if (q->r->guide != 1 && q->given)
			LWM_TRY(guide(q, x, sigma, e));
		for (int64_t i = first; i < n; i++)
			x[i] = (float)((double)x[i] + (next - sigma) * ((double)x[i] - (double)q->d[i]) / sigma);
	}
	memcpy(x, q->known, (size_t)first * sizeof *x);
	return 0;
}

static int check(const struct lwm_rollout *r, int64_t times, int64_t given, struct lwm_err *e)
{
	if (r->steps < 1 || r->rounds < 1 || !(r->sigma_min > 0) || !(r->sigma_max >= r->sigma_min) || !(r->rho > 0))
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " rounds of %" PRId64 " steps from sigma %g to %g are no way to draw", r->rounds,
				r->steps, r->sigma_max, r->sigma_min);
	if (given < 0 || given >= times || (r->rounds > 1 && (r->overlap < 0 || r->overlap >= times)))
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " frames given, rounds overlapping by %" PRId64 ": of %" PRId64 " frames of a round that "
				"leaves nothing to draw", given, r->overlap, times);
	return 0;
}

int lwm_rollout_draw(const struct lwm_rollout *r, const struct lwm_latent_shape *s, lwm_denoise_fn *denoise, void *ctx,
		     uint64_t seed, uint64_t sample, const float *known, int64_t given, float *out, struct lwm_err *e)
{
	int64_t n = lwm_latent_count(s), time = n / s->times;
	struct round q = { .r = r, .s = s, .denoise = denoise, .ctx = ctx, .known = known, .given = given, .time = time };
	float *x;
	int rc = check(r, s->times, given, e);

	LWM_TRY(rc);
	x = malloc(4 * (size_t)n * sizeof *x);
	if (!x)
		return lwm_fail_memory(e, "a round");
	q.noise = x + n;
	q.d = q.noise + n;
	q.free_d = q.d + n;
	for (int64_t k = 0; k < r->rounds && rc == 0; k++) {
		struct lwm_rng g = lwm_rng_at(seed, LWM_RNG_DENOISE, (uint64_t)k, sample);
		float *at = out + k * (s->times - r->overlap) * time;

		for (int64_t i = 0; i < n; i++)
			x[i] = (float)lwm_rng_normal(&g);
		if (k > 0) {
			q.known = at;
			q.given = r->overlap;
		}
		rc = draw_round(&q, x, e);
		if (rc == 0)
			memcpy(at, x, (size_t)n * sizeof *x);
	}
	free(x);
	return rc;
}
