/* test_forecast.c - frames predicted from those before: against a second program, against finite differences; what comes later is
 * not looked at. */
#include "common/model/forecast.h"
#include "tests/unit/trunk_fixture.h"

enum { CLIPS = 2, TIMES = 3, PLACES = 2, FLOATS = CLIPS * TIMES * PLACES * INPUT, ROWS = CLIPS * (TIMES - 1) * PLACES };
#include "tests/golden/trunk-1/forecast.inc"

static const char *const devices[] = { "ref", "cpu" };

static struct lwm_forecast_cfg model(void)
{
	return (struct lwm_forecast_cfg){ .trunk = small_trunk(), .times = TIMES, .places = PLACES };
}

struct outcome {
	struct lwm_forecast_stats st;
	float *grad, predicted[ROWS * INPUT];
};

static struct outcome step(const char *name, const struct lwm_forecast_cfg *c, struct lwm_forecast_run run, const float *patches,
			   const float *w, int64_t total, bool grads)
{
	struct lk_dev *dev = device(name, 1);
	struct lwm_forecast_batch b = { .clips = CLIPS, .patches = patches };
	struct outcome y = { .grad = grads ? calloc((size_t)total, sizeof(float)) : NULL };
	struct lwm_flat_weights lw = lwm_flat_weights_of(w, LK_F32, y.grad);
	struct lwm_forecast *m;
	struct lwm_err e = { 0 };

	run.clips = CLIPS + 1;
	run.how.train = true;
	b.predicted = y.predicted;
	if (lwm_forecast_new(&m, dev, c, &run, &e) || lwm_forecast_step(m, &b, &lw.base, &y.st, &e))
		fail_msg("%s", e.msg);
	lwm_forecast_free(m);
	lk_dev_close(dev);
	return y;
}

static void as_a_second_program(void **state)
{
	struct lwm_forecast_cfg c = model();
	float patches[FLOATS], *w;
	struct lwm_tensors t;

	(void)state;
	assert_int_equal(lwm_forecast_tensors(&t, &c, NULL), 0);
	w = weights_by_name(&t);
	numbers("", "clips", FLOATS, patches);
	for (int k = 0; k < 4; k++) {
		struct lwm_forecast_run run = { .how.recompute = k / 2 };
		struct outcome y = step(devices[k % 2], &c, run, patches, w, t.total, true);

		assert_true(y.st.patches == ROWS);
		assert_below(fabs(y.st.loss - golden_loss[0]), 2e-5 * golden_loss[0]);
		assert_below(fabs(y.st.still - golden_loss[1]), 1e-6 * golden_loss[1]);
		for (int i = 0; i < ROWS * INPUT; i++)
			assert_below(fabs((double)y.predicted[i] - golden_predicted[i]), 2e-5);
		check_slopes(devices[k % 2], &t, y.grad, golden_slope, sizeof golden_slope / sizeof *golden_slope);
		free(y.grad);
	}
	free(w);
	lwm_tensors_release(&t);
}

struct slopes {
	struct lwm_forecast_cfg c;
	float patches[FLOATS];
	int64_t total;
};

static double loss_at(void *ctx, const float *w)
{
	const struct slopes *x = ctx;

	return step("ref", &x->c, (struct lwm_forecast_run){ 0 }, x->patches, w, x->total, false).st.loss;
}

static void gradients_are_slopes(void **state)
{
	struct slopes x = { .c = model() };
	struct lwm_tensors t;
	struct outcome y;
	float *w;

	(void)state;
	assert_int_equal(lwm_forecast_tensors(&t, &x.c, NULL), 0);
	w = random_weights(&t);
	x.total = t.total;
	numbers("", "some clips", FLOATS, x.patches);
	y = step("ref", &x.c, (struct lwm_forecast_run){ .how.recompute = true }, x.patches, w, t.total, true);
	check_differences(&t, w, y.grad, loss_at, &x);
	free(y.grad);
	free(w);
	lwm_tensors_release(&t);
}

/* A patch changes what is predicted of all places from the next time on, of its clip, and nothing else. */
static void what_is_looked_at(void **state)
{
	struct lwm_forecast_cfg c = model();
	float patches[FLOATS], *w;
	struct lwm_tensors t;
	struct outcome was, now;

	(void)state;
	assert_int_equal(lwm_forecast_tensors(&t, &c, NULL), 0);
	w = random_weights(&t);
	numbers("", "clips", FLOATS, patches);
	was = step("cpu", &c, (struct lwm_forecast_run){ 0 }, patches, w, t.total, false);
	for (int i = 0; i < CLIPS * TIMES * PLACES; i++) {
		int clip = i / (TIMES * PLACES), time = i / PLACES % TIMES;

		patches[i * INPUT] += 1;
		now = step("cpu", &c, (struct lwm_forecast_run){ 0 }, patches, w, t.total, false);
		for (int r = 0; r < ROWS; r++) {
			bool sees = r / ((TIMES - 1) * PLACES) == clip && r / PLACES % (TIMES - 1) >= time;

			assert_true((memcmp(now.predicted + r * INPUT, was.predicted + r * INPUT, INPUT * 4) != 0) == sees);
		}
		patches[i * INPUT] -= 1;
	}
	free(w);
	lwm_tensors_release(&t);
}

static void what_is_refused(void **state)
{
	struct lwm_forecast_cfg c = model();
	struct lwm_err e = { 0 };

	(void)state;
	assert_int_equal(lwm_forecast_check(&c, &e), 0);
	c.times = 1;
	assert_int_equal(lwm_forecast_check(&c, &e), -LWM_ECONFIG);
	c = model();
	c.trunk.input_dim = 0;
	assert_int_equal(lwm_forecast_check(&c, &e), -LWM_ECONFIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_a_second_program), cmocka_unit_test(gradients_are_slopes), cmocka_unit_test(what_is_looked_at),
		cmocka_unit_test(what_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
