/* test_denoise.c - noise on latents, the loss of a denoised clip, the denoiser: against a second program, closed forms and finite
 * differences; the ideal denoiser of Gaussian clips has the loss that it should. */
#include "common/model/denoise.h"
#include "tests/unit/trunk_fixture.h"
#include "tests/golden/denoise-1/denoise.inc"

enum { CLIPS = 3, TIMES = 3, ROWS = 4, COLUMNS = 4, CHANNELS = 2, PATCH = 2, FLOATS = TIMES * ROWS * COLUMNS * CHANNELS };

static const char *const devices[] = { "ref", "cpu" };

/* ---- noise ---- */

static struct lwm_noise published(void)
{
	return (struct lwm_noise){ .mean = 1.0, .deviation = 1.6, .offset = 0.02, .kinds = 4, .odds = { 1, 2, 4, 8 } };
}

static void precondition_is_v(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		double s = (double[]){ 0.002, 0.5, 1, 700 }[i], v = s * s + 1;
		struct lwm_precondition c = lwm_precondition(s);

		assert_below(fabs(c.skip * v - 1), 1e-12);
		assert_below(fabs(c.out * sqrt(v) / s + 1), 1e-12);
		assert_below(fabs(c.in * sqrt(v) - 1), 1e-12);
		assert_below(fabs(exp(4 * c.noise) / s - 1), 1e-12);
		assert_below(fabs(c.weight * c.out * c.out - 1), 1e-12); /* an error of F weighs the same at every sigma */
		/* F of deviation 1: z and e of deviation 1 give a target (skip x - z) / -out of variance 1 */
		assert_below(fabs((pow(c.skip - 1, 2) + pow(c.skip * s, 2)) / (c.out * c.out) - 1), 1e-9);
	}
}

/* Many small clips: moments of what is drawn. */
static void noise_is_distributed(void **state)
{
	const struct lwm_latent_shape s = { .times = 5, .rows = 3, .columns = 4, .channels = 2 };
	enum { DRAWS = 4000, NUMBERS = 120, TIME = 24 };
	struct lwm_noise how = published();
	double mean = 0, square = 0, count[4] = { 0 }, e2 = 0, shift2 = 0, n = 0, shifts = 0;
	float z[NUMBERS], x[NUMBERS];

	(void)state;
	how.offset = 0.5; /* as published it would not be seen */
	numbers("", "latents", NUMBERS, z);
	for (int i = 0; i < DRAWS; i++) {
		double sigma;
		int64_t clean;

		lwm_noise_draw(&how, &s, 3, 1, (uint64_t)i, z, x, &sigma, &clean);
		mean += log(sigma) / DRAWS;
		square += pow(log(sigma) - how.mean, 2) / DRAWS;
		count[clean]++;
		assert_memory_equal(x, z, (size_t)(clean * TIME) * sizeof *x);
		for (int64_t t = clean; t < s.times; t++)
			for (int c = 0; c < 2; c++) {
				double sum = 0;

				for (int p = 0; p < 12; p++) {
					double e = (double)(x[t * TIME + p * 2 + c] - z[t * TIME + p * 2 + c]) / sigma;

					sum += e / 12;
					e2 += e * e;
					n++;
				}
				shift2 += sum * sum;
				shifts++;
			}
	}
	assert_below(fabs(mean - how.mean), 0.1);               /* 4 deviations of the estimate */
	assert_below(fabs(square - 1.6 * 1.6), 0.25);
	for (int k = 0; k < 4; k++)
		assert_below(fabs(count[k] / DRAWS - (double)how.odds[k] / 15), 0.032);
	assert_below(fabs(e2 / n - 1.25), 0.02);                /* 1 + 0.5^2 */
	assert_below(fabs(shift2 / shifts - (1 / 12.0 + 0.25)), 0.02);
}

static void noise_is_a_function_of_its_place(void **state)
{
	const struct lwm_latent_shape s = { .times = 4, .rows = 2, .columns = 2, .channels = 1 };
	struct lwm_noise how = published();
	float z[16] = { 0 }, a[16], b[16];
	double sigma, other;
	int64_t clean;

	(void)state;
	lwm_noise_draw(&how, &s, 1, 2, 3, z, a, &sigma, &clean);
	lwm_noise_draw(&how, &s, 1, 2, 3, z, b, &other, &clean);
	assert_true(sigma == other && !memcmp(a, b, sizeof a));
	lwm_noise_draw(&how, &s, 1, 2, 4, z, b, &other, &clean);
	assert_true(sigma != other);
	lwm_noise_draw(&how, &s, 1, 3, 3, z, b, &other, &clean);
	assert_true(sigma != other);
	how.kinds = 1; /* of what is noisy the noise does not depend on what is clean */
	lwm_noise_draw(&how, &s, 1, 2, 3, z, b, &other, &clean);
	assert_true(sigma == other && clean == 0 && b[0] != 0);
	assert_memory_equal(a + 12, b + 12, 4 * sizeof *a);
}

/* ---- the loss ---- */

static struct lwm_clip_loss *loss_of(struct lwm_latent_shape s, double structure, bool dynamics)
{
	struct lwm_clip_loss *l;

	assert_int_equal(lwm_clip_loss_new(&l, &s, structure, dynamics, NULL), 0);
	return l;
}

static void loss_as_a_second_program(void **state)
{
	static const struct lwm_latent_shape shape[] = { { 3, 4, 5, 2 }, { 4, 6, 4, 1 }, { 3, 3, 3, 2 } };
	static const int64_t clean[] = { 0, 2, 1 };
	static const double weight[] = { 1.7, 0.3, 2.5 };
	const double *slope = golden_gradient, *want = golden_parts;

	(void)state;
	for (int i = 0; i < 3; i++, want += 3) {
		struct lwm_clip_loss *l = loss_of(shape[i], 0.1, true);
		struct lwm_clip_parts p = { 0 };
		int64_t n = lwm_latent_count(&shape[i]);
		float z[120], y[120], g[120];
		char name[32];

		snprintf(name, sizeof name, "true %d", i);
		numbers("", name, n, z);
		snprintf(name, sizeof name, "denoised %d", i);
		numbers("", name, n, y);
		lwm_clip_loss(l, z, y, clean[i], weight[i], &p, g);
		assert_below(fabs(p.plain - want[0]), 1e-7);
		assert_below(fabs(p.dynamics - want[1]), 1e-7);
		assert_below(fabs(p.structure - want[2]), 1e-7);
		for (int64_t k = 0; k < n; k++)
			assert_below(fabs((double)g[k] - *slope++), 1e-7);
		lwm_clip_loss_free(l);
	}
}

/* A step of Euler's method would be exact: without A the loss is quadratic, so differences of any width are its slope. */
static void loss_gradient_is_its_slope(void **state)
{
	const struct lwm_latent_shape s = { .times = 2, .rows = 5, .columns = 4, .channels = 1 };
	struct lwm_clip_loss *l = loss_of(s, 0.7, false);
	float z[40], y[40], g[40];

	(void)state;
	numbers("", "a clip", 40, z);
	numbers("", "another", 40, y);
	lwm_clip_loss(l, z, y, 0, 3, &(struct lwm_clip_parts){ 0 }, g);
	for (int k = 0; k < 40; k++) {
		struct lwm_clip_parts up = { 0 }, down = { 0 };
		float was = y[k];

		y[k] = was + 0.5f;
		lwm_clip_loss(l, z, y, 0, 3, &up, NULL);
		y[k] = was - 0.5f;
		lwm_clip_loss(l, z, y, 0, 3, &down, NULL);
		y[k] = was;
		assert_below(fabs(up.plain + up.structure - down.plain - down.structure - (double)g[k]), 1e-6);
	}
	lwm_clip_loss_free(l);
}

/* An even shift has no edges; of a checkerboard all is edges. An error that stands still has no motion; of one place at one time
 * the weight of that place, there and when it goes, is 1 / sqrt(2). */
static void loss_in_closed_form(void **state)
{
	const struct lwm_latent_shape s = { .times = 3, .rows = 4, .columns = 4, .channels = 1 };
	struct lwm_clip_loss *l = loss_of(s, 0.1, true);
	struct lwm_clip_parts p = { 0 };
	float z[48] = { 0 }, y[48] = { 0 };

	(void)state;
	for (int i = 0; i < 48; i++)
		y[i] = 0.5f;
	lwm_clip_loss(l, z, y, 0, 2, &p, NULL);
	assert_below(fabs(p.plain - 0.5), 1e-12);
	assert_below(fabs(p.dynamics), 1e-12);
	assert_below(fabs(p.structure), 1e-12);
	for (int i = 0; i < 48; i++)
		y[i] = (i + i / 4) % 2 ? 0.5f : -0.5f;
	p = (struct lwm_clip_parts){ 0 };
	lwm_clip_loss(l, z, y, 0, 2, &p, NULL);
	assert_below(fabs(p.plain - 0.5), 1e-12);
	assert_below(fabs(p.dynamics), 1e-12);
	assert_below(fabs(p.structure - 0.05), 1e-12);
	memset(y, 0, sizeof y);
	y[16 + 5] = 3;
	p = (struct lwm_clip_parts){ 0 };
	lwm_clip_loss(l, z, y, 0, 1, &p, NULL);
	assert_below(fabs(p.plain - 9 / 48.0), 1e-12);
	assert_below(fabs(p.dynamics - 9 / 48.0 / sqrt(2)), 1e-12);
	p = (struct lwm_clip_parts){ 0 };
	lwm_clip_loss(l, z, y, 2, 1, &p, NULL); /* that time was given */
	assert_true(p.plain == 0 && p.dynamics == 0 && p.structure == 0);
	lwm_clip_loss_free(l);
}

/* Clips of independent numbers of variance v: the ideal denoiser is v / (v + s^2) x, and of a number w v s^2 / (v + s^2) is left;
 * of variance 1 that is 1 at every sigma. Of edges it is the part of the frequencies that H lets through. What comes out is
 * compared with the integral over sigma. */
static void ideal_denoiser_has_its_loss(void **state)
{
	const struct lwm_latent_shape s = { .times = 4, .rows = 8, .columns = 8, .channels = 1 };
	struct lwm_noise how = { .mean = 1.0, .deviation = 1.6, .kinds = 1, .odds = { 1 } };
	struct lwm_clip_loss *l = loss_of(s, 0.1, false);
	enum { DRAWS = 600, NUMBERS = 256 };
	double edges = 0;

	(void)state;
	for (int h = 0; h < 8; h++)
		for (int w = 0; w < 8; w++)
			edges += pow(h / 4.0 - 1, 2) + pow(w / 4.0 - 1, 2) > 0.5 ? 1 / 64.0 : 0;
	for (int i = 0; i < 2; i++) {
		double v = i ? 0.25 : 1, want = 0, mass = 0;
		struct lwm_clip_parts p = { 0 };

		for (double u = -6; u <= 6; u += 0.01) {
			double sigma = exp(how.mean + how.deviation * u), s2 = sigma * sigma, g = exp(-u * u / 2);

			want += g * (s2 + 1) / s2 * v * s2 / (v + s2);
			mass += g;
		}
		for (int k = 0; k < DRAWS; k++) {
			struct lwm_rng r = lwm_rng_at(7, LWM_RNG_TEST, (uint64_t)i, (uint64_t)k);
			float z[NUMBERS], x[NUMBERS];
			double sigma;
			int64_t clean;

			for (int n = 0; n < NUMBERS; n++)
				z[n] = (float)(sqrt(v) * lwm_rng_normal(&r));
			lwm_noise_draw(&how, &s, 7, (uint64_t)i, (uint64_t)k, z, x, &sigma, &clean);
			for (int n = 0; n < NUMBERS; n++)
				x[n] *= (float)(v / (v + sigma * sigma));
			lwm_clip_loss(l, z, x, clean, lwm_precondition(sigma).weight, &p, NULL);
		}
		want /= mass;
		assert_below(fabs(p.plain / DRAWS / want - 1), 0.03);
		assert_below(fabs(p.structure / DRAWS / (0.1 * edges * want) - 1), 0.03);
		if (!i)
			assert_below(fabs(want - 1), 1e-9);
	}
	lwm_clip_loss_free(l);
}

/* ---- the denoiser ---- */

static struct lwm_denoise_cfg model(void)
{
	struct lwm_denoise_cfg c = { .trunk = small_trunk(), .shape = { TIMES, ROWS, COLUMNS, CHANNELS }, .patch = PATCH };

	c.trunk.input_dim = lwm_denoise_input_dim(&c);
	return c;
}

struct clips {
	float noisy[CLIPS * FLOATS], target[CLIPS * FLOATS];
	double sigma[CLIPS];
	int64_t clean[CLIPS];
};

static void golden_clips(struct clips *x)
{
	*x = (struct clips){ .sigma = { 0.05, 1.3, 40 }, .clean = { 0, 1, 2 } };
	numbers("", "latents", CLIPS * FLOATS, x->target);
	numbers("", "noise", CLIPS * FLOATS, x->noisy);
	for (int i = 0; i < CLIPS * FLOATS; i++) {
		bool clean = i % FLOATS / (FLOATS / TIMES) < x->clean[i / FLOATS];

		x->target[i] *= 2;
		x->noisy[i] = (float)((double)x->target[i] + (clean ? 0 : x->sigma[i / FLOATS] * 2 * (double)x->noisy[i]));
	}
}

struct outcome {
	struct lwm_denoise_stats st;
	float *grad, denoised[CLIPS * FLOATS];
};

static struct outcome step(const char *name, const struct lwm_denoise_cfg *c, struct lwm_denoise_run run, const struct clips *x,
			   const float *w, int64_t total, bool grads)
{
	struct lk_dev *dev = device(name, 1);
	struct lwm_denoise_batch b = { .clips = CLIPS, .noisy = x->noisy, .target = x->target, .sigma = x->sigma,
				       .clean = x->clean };
	struct outcome y = { .st.compare = true, .grad = grads ? calloc((size_t)total, sizeof(float)) : NULL };
	struct lwm_flat_weights lw = lwm_flat_weights_of(w, LK_F32, y.grad), still = lwm_flat_weights_of(w, LK_F32, NULL);
	float again[CLIPS * FLOATS];
	struct lwm_denoise *m;
	struct lwm_err e = { 0 };

	run.clips = CLIPS + 1;
	run.how.train = true;
	b.denoised = y.denoised;
	if (lwm_denoise_new(&m, dev, c, &run, &e) || lwm_denoise_step(m, &b, &lw.base, &y.st, &e))
		fail_msg("%s", e.msg);
	b.denoised = again;
	b.target = NULL;
	if (lwm_denoise_apply(m, &b, &still.base, &e))
		fail_msg("%s", e.msg);
	assert_memory_equal(again, y.denoised, sizeof again);
	lwm_denoise_free(m);
	lk_dev_close(dev);
	return y;
}

static void as_a_second_program(void **state)
{
	struct lwm_denoise_cfg c = model();
	struct lwm_tensors t;
	struct clips x;
	float *w;

	(void)state;
	golden_clips(&x);
	assert_int_equal(lwm_denoise_tensors(&t, &c, NULL), 0);
	w = weights_by_name(&t);
	for (int k = 0; k < 4; k++) {
		struct lwm_denoise_run run = { .how.recompute = k / 2, .structure = 0.1, .dynamics = true };
		struct outcome y = step(devices[k % 2], &c, run, &x, w, t.total, true);

		assert_true(y.st.clips == CLIPS);
		assert_below(fabs(y.st.parts.plain - golden_loss[0]), 2e-5 * golden_loss[0]);
		assert_below(fabs(y.st.parts.dynamics - golden_loss[1]), 2e-5 * golden_loss[1]);
		assert_below(fabs(y.st.parts.structure - golden_loss[2]), 2e-5 * golden_loss[2]);
		assert_below(fabs(y.st.nothing - golden_loss[3]), 2e-5 * golden_loss[3]);
		for (int i = 0; i < CLIPS * FLOATS; i++)
			assert_below(fabs((double)y.denoised[i] - golden_denoised[i]), 2e-5);
		check_slopes(devices[k % 2], &t, y.grad, golden_slope, sizeof golden_slope / sizeof *golden_slope);
		free(y.grad);
	}
	free(w);
	lwm_tensors_release(&t);
}

struct slopes {
	struct lwm_denoise_cfg c;
	struct clips x;
	int64_t total;
};

static const struct lwm_denoise_run without_motion = { .structure = 0.1 }; /* A is held, so differences would not see it */

static double loss_at(void *ctx, const float *w)
{
	const struct slopes *x = ctx;
	struct lwm_clip_parts p = step("ref", &x->c, without_motion, &x->x, w, x->total, false).st.parts;

	return p.plain + p.structure;
}

static void gradients_are_slopes(void **state)
{
	struct slopes x = { .c = model() };
	struct lwm_tensors t;
	struct outcome y;
	float *w;

	(void)state;
	golden_clips(&x.x);
	assert_int_equal(lwm_denoise_tensors(&t, &x.c, NULL), 0);
	w = random_weights(&t);
	x.total = t.total;
	y = step("ref", &x.c, without_motion, &x.x, w, t.total, true);
	check_differences(&t, w, y.grad, loss_at, &x);
	free(y.grad);
	free(w);
	lwm_tensors_release(&t);
}

/* Every place of a clip changes all that is noisy in that clip, and nothing else; what is clean comes out as it is. */
static void what_is_looked_at(void **state)
{
	struct lwm_denoise_cfg c = model();
	struct lwm_tensors t;
	struct outcome was, now;
	struct clips x;
	float *w;

	(void)state;
	golden_clips(&x);
	assert_int_equal(lwm_denoise_tensors(&t, &c, NULL), 0);
	w = random_weights(&t);
	was = step("cpu", &c, without_motion, &x, w, t.total, false);
	for (int i = 0; i < CLIPS * FLOATS; i += 5) {
		float before = x.noisy[i];

		x.noisy[i] += 1;
		now = step("cpu", &c, without_motion, &x, w, t.total, false);
		for (int k = 0; k < CLIPS * FLOATS; k++) {
			bool clean = k % FLOATS / (FLOATS / TIMES) < x.clean[k / FLOATS];

			if (clean)
				assert_true(now.denoised[k] == x.noisy[k]);
			else
				assert_true((now.denoised[k] != was.denoised[k]) == (k / FLOATS == i / FLOATS));
		}
		x.noisy[i] = before;
	}
	free(w);
	lwm_tensors_release(&t);
}

static void what_is_refused(void **state)
{
	struct lwm_denoise_cfg c = model();
	struct lwm_err e = { 0 };

	(void)state;
	assert_int_equal(lwm_denoise_check(&c, &e), 0);
	c.shape.rows = 5;
	assert_int_equal(lwm_denoise_check(&c, &e), -LWM_ECONFIG);
	c = model();
	c.trunk.input_dim++;
	assert_int_equal(lwm_denoise_check(&c, &e), -LWM_ECONFIG);
	c = model();
	c.shape.times = 0;
	assert_int_equal(lwm_denoise_check(&c, &e), -LWM_ECONFIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(precondition_is_v), cmocka_unit_test(noise_is_distributed),
		cmocka_unit_test(noise_is_a_function_of_its_place), cmocka_unit_test(loss_as_a_second_program),
		cmocka_unit_test(loss_gradient_is_its_slope), cmocka_unit_test(loss_in_closed_form),
		cmocka_unit_test(ideal_denoiser_has_its_loss), cmocka_unit_test(as_a_second_program),
		cmocka_unit_test(gradients_are_slopes), cmocka_unit_test(what_is_looked_at), cmocka_unit_test(what_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
