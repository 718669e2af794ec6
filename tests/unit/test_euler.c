/* test_euler.c - clips drawn with Euler steps: of Gaussian clips, whose ideal denoiser is known, comes the distribution that they
 * have, in one round, from given frames, and over rounds. */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"
#include "common/model/euler.h"

static struct lwm_rollout published(void)
{
	return (struct lwm_rollout){ .steps = 50, .sigma_max = 700, .sigma_min = 0.002, .rho = 7, .guide = 1, .rounds = 1,
				     .overlap = 3 };
}

static void below(double a, double most)
{
	if (!(a < most))
		fail_msg("%g is not below %g", a, most);
}

static void sigmas_and_scales(void **state)
{
	static const double triangle[] = { 1, 1.75, 2.5, 1.75, 1 };
	struct lwm_rollout r = published();

	(void)state;
	below(fabs(lwm_rollout_sigma(&r, 0) / 700 - 1), 1e-12);
	below(fabs(lwm_rollout_sigma(&r, 49) / 0.002 - 1), 1e-9);
	assert_true(lwm_rollout_sigma(&r, 50) == 0);
	/* a half of the way in sigma^(1/7) */
	r.steps = 3;
	below(fabs(lwm_rollout_sigma(&r, 1) / pow((pow(700, 1 / 7.0) + pow(0.002, 1 / 7.0)) / 2, 7) - 1), 1e-9);
	r.guide = 2.5;
	for (int t = 0; t < 5; t++)
		assert_true(lwm_rollout_guide(&r, t, 5) == 2.5);
	assert_int_equal(lwm_rollout_times(&r, 25), 25);
	r.rounds = 4;
	for (int t = 0; t < 5; t++)
		below(fabs(lwm_rollout_guide(&r, t, 5) - triangle[t]), 1e-12);
	assert_int_equal(lwm_rollout_times(&r, 25), 22 * 4 + 3);
}

/* ---- one round ---- */

enum { ROWS = 100, COLUMNS = 100, PLACES = ROWS * COLUMNS };

struct gauss { /* all numbers independent */
	double mean, deviation;
	int64_t n, calls;
};

static int ideal(void *ctx, const float *x, double sigma, int64_t clean, float *d, struct lwm_err *e)
{
	struct gauss *g = ctx;
	double v = g->deviation * g->deviation;

	(void)e;
	assert_int_equal(clean, 0);
	g->calls++;
	for (int64_t i = 0; i < g->n; i++)
		d[i] = (float)(g->mean + v / (v + sigma * sigma) * ((double)x[i] - g->mean));
	return 0;
}

/* Each step multiplies what is off the mean by 1 + (s' - s) s / (v + s^2): so the deviation that comes of the steps is known. */
static void gaussian_clips(void **state)
{
	static const int64_t steps[] = { 50, 400 };
	const struct lwm_latent_shape s = { .times = 2, .rows = ROWS, .columns = COLUMNS, .channels = 1 };
	float *x = malloc(2 * PLACES * sizeof *x);

	(void)state;
	for (int k = 0; k < 2; k++) {
		struct gauss g = { .mean = 0.7, .deviation = 0.5, .n = 2 * PLACES };
		struct lwm_rollout r = published();
		double mean = 0, square = 0, want = 1, drift;

		r.steps = steps[k];
		assert_int_equal(lwm_rollout_draw(&r, &s, ideal, &g, 5, 0, NULL, 0, x, NULL), 0);
		assert_int_equal(g.calls, steps[k]);
		for (int i = 0; i < 2 * PLACES; i++)
			mean += (double)x[i] / (2 * PLACES);
		for (int i = 0; i < 2 * PLACES; i++)
			square += pow((double)x[i] - mean, 2) / (2 * PLACES);
		for (int64_t i = 0; i < r.steps; i++) {
			double at = lwm_rollout_sigma(&r, i), next = lwm_rollout_sigma(&r, i + 1);

			want *= 1 + (next - at) * at / (0.25 + at * at);
		}
		drift = 0.7 * (1 - want); /* noise begins around 0 */
		below(fabs(mean - drift), 4 * 0.5 / sqrt(2 * PLACES));
		want *= sqrt(1 + 700.0 * 700);
		below(fabs(sqrt(square) / want - 1), 0.02); /* of 20,000 draws: 4 deviations */
		below(fabs(want / 0.5 - 1), k ? 0.012 : 0.09); /* Euler's error falls with the steps */
	}
	free(x);
}

/* ---- frames that follow each other ---- */

enum { TIMES = 5, WIDE = 60, WIDTH = WIDE * WIDE };
#define RHO 0.9

/* z_t = rho z_{t-1} + sqrt(1 - rho^2) e, of variance 1, each place by itself. What follows known times depends on the last one. */
struct chain {
	int64_t seen[8], calls; /* with so many clean times */
};

/* y = (C + sigma^2)^-1 b of m unknown times, C their covariance; b in y. */
static void solve(double c[TIMES][TIMES], double sigma, int m, double *y)
{
	double a[TIMES][TIMES];

	for (int i = 0; i < m; i++)
		for (int j = 0; j < m; j++)
			a[i][j] = c[i][j] + (i == j ? sigma * sigma : 0);
	for (int i = 0; i < m; i++)
		for (int j = i + 1; j < m; j++) {
			double f = a[j][i] / a[i][i];

			for (int k = i; k < m; k++)
				a[j][k] -= f * a[i][k];
			y[j] -= f * y[i];
		}
	for (int i = m - 1; i >= 0; i--) {
		for (int k = i + 1; k < m; k++)
			y[i] -= a[i][k] * y[k];
		y[i] /= a[i][i];
	}
}

static int ideal_chain(void *ctx, const float *x, double sigma, int64_t clean, float *d, struct lwm_err *e)
{
	struct chain *g = ctx;
	int m = TIMES - (int)clean;
	double c[TIMES][TIMES];

	(void)e;
	g->seen[clean]++;
	g->calls++;
	for (int i = 0; i < m; i++)
		for (int j = 0; j < m; j++) /* known: less what follows from the last known time */
			c[i][j] = pow(RHO, abs(i - j)) - (clean ? pow(RHO, i + j + 2) : 0);
	for (int p = 0; p < WIDTH; p++) {
		double y[TIMES], mean[TIMES];

		for (int64_t t = 0; t < clean; t++)
			d[t * WIDTH + p] = x[t * WIDTH + p];
		for (int i = 0; i < m; i++) {
			mean[i] = clean ? pow(RHO, i + 1) * (double)x[(clean - 1) * WIDTH + p] : 0;
			y[i] = (double)x[(clean + i) * WIDTH + p] - mean[i];
		}
		solve(c, sigma, m, y);
		for (int i = 0; i < m; i++) {
			double sum = mean[i];

			for (int j = 0; j < m; j++)
				sum += c[i][j] * y[j];
			d[(clean + i) * WIDTH + p] = (float)sum;
		}
	}
	return 0;
}

static double product(const float *a, const float *b)
{
	double sum = 0;

	for (int i = 0; i < WIDTH; i++)
		sum += (double)a[i] * (double)b[i] / WIDTH;
	return sum;
}

static const struct lwm_latent_shape wide = { .times = TIMES, .rows = WIDE, .columns = WIDE, .channels = 1 };

/* From a first frame, three rounds: all frames are of variance 1 and alike as they should be, across rounds, too. */
static void rounds_continue_each_other(void **state)
{
	struct lwm_rollout r = published();
	struct chain g = { { 0 }, 0 };
	int64_t times;
	float *x, *known = malloc(WIDTH * sizeof *known);
	struct lwm_rng rng = lwm_rng_at(9, LWM_RNG_TEST, 0, 0);

	(void)state;
	r.rounds = 3;
	r.steps = 240; /* of a narrow future Euler's error is larger */
	times = lwm_rollout_times(&r, TIMES);
	assert_int_equal(times, 9);
	x = malloc((size_t)(times * WIDTH) * sizeof *x);
	for (int i = 0; i < WIDTH; i++)
		known[i] = (float)lwm_rng_normal(&rng);
	assert_int_equal(lwm_rollout_draw(&r, &wide, ideal_chain, &g, 5, 1, known, 1, x, NULL), 0);
	assert_memory_equal(x, known, WIDTH * sizeof *x);
	assert_int_equal(g.seen[1], r.steps);
	assert_int_equal(g.seen[3], 2 * r.steps);
	assert_int_equal(g.calls, 3 * r.steps);
	for (int64_t t = 0; t < times; t++) {
		const float *a = x + t * WIDTH, *b = a + WIDTH, *c = b + 2 * WIDTH;

		below(fabs(product(a, a) - 1), 0.12);
		if (t + 1 < times)
			below(fabs(product(a, b) / sqrt(product(a, a) * product(b, b)) - RHO), 0.02);
		if (t + 3 < times)
			below(fabs(product(a, c) / sqrt(product(a, a) * product(c, c)) - pow(RHO, 3)), 0.05);
	}
	free(x);
	free(known);
}

/* The same (seed, sample) draws the same, another one something else, and noise of a round is its own. */
static void draws_repeat(void **state)
{
	const struct lwm_latent_shape s = { .times = 2, .rows = 2, .columns = 2, .channels = 2 };
	struct lwm_rollout r = published();
	struct gauss g = { .deviation = 1, .n = 16 };
	float a[32], b[32];

	(void)state;
	r.rounds = 2;
	r.overlap = 0;
	assert_int_equal(lwm_rollout_draw(&r, &s, ideal, &g, 1, 2, NULL, 0, a, NULL), 0);
	assert_int_equal(lwm_rollout_draw(&r, &s, ideal, &g, 1, 2, NULL, 0, b, NULL), 0);
	assert_memory_equal(a, b, sizeof a);
	assert_true(memcmp(a, a + 16, 16 * sizeof *a) != 0);
	assert_int_equal(lwm_rollout_draw(&r, &s, ideal, &g, 1, 3, NULL, 0, b, NULL), 0);
	assert_true(memcmp(a, b, sizeof a) != 0);
}

/* ---- guidance ---- */

enum { SMALL = 4 }; /* times of one number */
struct guided {
	double sigma;
	int64_t calls;
	float noisy[SMALL], clean[SMALL]; /* what was asked for at the first sigma, without and with clean times */
};

/* C is 3, U is 1. */
static int two_minds(void *ctx, const float *x, double sigma, int64_t clean, float *d, struct lwm_err *e)
{
	struct guided *g = ctx;

	(void)e;
	if (g->calls < 2)
		memcpy(clean ? g->clean : g->noisy, x, sizeof g->clean);
	g->sigma = sigma;
	g->calls++;
	for (int i = 0; i < SMALL; i++)
		d[i] = clean ? 3 : 1;
	return 0;
}

/* The last step, to sigma 0, is D itself: U + g (C - U). */
static void guidance(void **state)
{
	const struct lwm_latent_shape s = { .times = SMALL, .rows = 1, .columns = 1, .channels = 1 };
	struct lwm_rollout r = published();
	struct guided g = { .calls = 0 };
	struct lwm_rng noise = lwm_rng_at(4, LWM_RNG_DENOISE, 0, 0);
	double e0 = lwm_rng_normal(&noise);
	float x[2 * SMALL], known[] = { 0.25 };

	(void)state;
	r.guide = 2;
	assert_int_equal(lwm_rollout_draw(&r, &s, two_minds, &g, 4, 0, known, 1, x, NULL), 0);
	assert_int_equal(g.calls, 100);
	assert_true(x[0] == 0.25f);
	for (int t = 1; t < SMALL; t++)
		below(fabs((double)x[t] - 5), 1e-5);
	assert_true(g.clean[0] == 0.25f);
	below(fabs((double)g.noisy[0] - (0.25 + 700 * e0)), 1e-3);
	assert_memory_equal(g.clean + 1, g.noisy + 1, (SMALL - 1) * sizeof *x);
	g.calls = 0;
	r.guide = 1; /* nothing else is asked */
	assert_int_equal(lwm_rollout_draw(&r, &s, two_minds, &g, 4, 0, known, 1, x, NULL), 0);
	assert_int_equal(g.calls, 50);
	below(fabs((double)x[1] - 3), 1e-5);
	r.guide = 2;
	r.rounds = 2;
	assert_int_equal(lwm_rollout_draw(&r, &s, two_minds, &g, 4, 0, known, 1, x, NULL), 0);
	for (int t = 1; t < SMALL; t++)
		below(fabs((double)x[t] - (1 + 2 * lwm_rollout_guide(&r, t, SMALL))), 1e-5);
	below(fabs((double)x[SMALL] - 3), 1e-5); /* the last time of a round */
}

static int failing(void *ctx, const float *x, double sigma, int64_t clean, float *d, struct lwm_err *e)
{
	(void)x;
	(void)sigma;
	(void)clean;
	(void)d;
	return ++*(int *)ctx == 3 ? lwm_fail(e, LWM_EIO, "enough") : 0;
}

static void what_is_refused(void **state)
{
	const struct lwm_latent_shape s = { .times = 3, .rows = 1, .columns = 1, .channels = 1 };
	struct lwm_rollout r = published();
	struct lwm_err e = { 0 };
	float x[16], known[3] = { 0 };
	int calls = 0;

	(void)state;
	assert_int_equal(lwm_rollout_draw(&r, &s, failing, &calls, 0, 0, known, 3, x, &e), -LWM_ECONFIG);
	r.rounds = 2;
	assert_int_equal(lwm_rollout_draw(&r, &s, failing, &calls, 0, 0, known, 1, x, NULL), -LWM_ECONFIG);
	r = published();
	r.sigma_min = 0;
	assert_int_equal(lwm_rollout_draw(&r, &s, failing, &calls, 0, 0, known, 1, x, NULL), -LWM_ECONFIG);
	assert_int_equal(calls, 0);
	r = published();
	assert_int_equal(lwm_rollout_draw(&r, &s, failing, &calls, 0, 0, known, 1, x, NULL), -LWM_EIO);
	assert_int_equal(calls, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sigmas_and_scales), cmocka_unit_test(gaussian_clips), cmocka_unit_test(rounds_continue_each_other),
		cmocka_unit_test(draws_repeat), cmocka_unit_test(guidance), cmocka_unit_test(what_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
