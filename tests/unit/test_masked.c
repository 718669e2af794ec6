/* test_masked.c - hidden patches, or their codes, predicted from those that are seen: against a second program, against finite
 * differences; what is hidden is not looked at; memory. */
#include "common/model/masked.h"
#include "tests/unit/trunk_fixture.h"

enum { TOKENS = 6, KEPT = 2, CLIPS = 2, FLOATS = CLIPS * TOKENS * INPUT, HIDDEN = CLIPS * (TOKENS - KEPT) };
#include "tests/golden/trunk-1/masked.inc"
#include "tests/golden/trunk-1/masked_codes.inc"

static const int32_t seen[CLIPS * KEPT] = { 0, 4, 2, 3 };
static const char *const devices[] = { "ref", "cpu" };

static struct lwm_masked_cfg model(void)
{
	struct lwm_masked_cfg c = { .trunk = small_trunk(), .decoder = small_trunk(), .tokens = TOKENS, .kept = KEPT };

	c.decoder.layers = 1;
	c.decoder.input_dim = c.trunk.dim;
	return c;
}

struct outcome {
	struct lwm_masked_stats st;
	float *grad, predicted[HIDDEN * INPUT];
};

static const struct lwm_tensors *told; /* what trains; NULL: all does */

static struct outcome step(const char *name, const struct lwm_masked_cfg *c, struct lwm_masked_run run, const float *patches,
			   const float *targets, const float *w, int64_t total, bool grads)
{
	struct lk_dev *dev = device(name, 1);
	struct lwm_masked_batch b = { .clips = CLIPS, .patches = patches, .targets = targets, .visible = seen };
	struct outcome y = { .grad = grads ? calloc((size_t)total, sizeof(float)) : NULL };
	struct lwm_flat_weights lw = lwm_flat_weights_of(w, LK_F32, y.grad);
	struct lwm_masked *m;
	struct lwm_err e = { 0 };

	lw.base.table = told;
	run.clips = CLIPS + 1;
	run.how.train = true;
	b.predicted = y.predicted;
	if (lwm_masked_new(&m, dev, c, &run, &e) || lwm_masked_step(m, &b, &lw.base, &y.st, &e))
		fail_msg("%s", e.msg);
	lwm_masked_free(m);
	lk_dev_close(dev);
	return y;
}

static void as_a_second_program(void **state)
{
	struct lwm_masked_cfg c = model();
	float patches[FLOATS], targets[FLOATS], *w;
	struct lwm_tensors t;

	(void)state;
	assert_int_equal(lwm_masked_tensors(&t, &c, NULL), 0);
	w = weights_by_name(&t);
	numbers("", "patches", FLOATS, patches);
	numbers("", "targets", FLOATS, targets);
	for (int k = 0; k < 4; k++) {
		struct lwm_masked_run run = { .how.recompute = k / 2 };
		struct outcome y = step(devices[k % 2], &c, run, patches, targets, w, t.total, true);

		assert_true(y.st.patches == HIDDEN);
		assert_below(fabs(y.st.loss - golden_loss[0]), 2e-5 * golden_loss[0]);
		for (int i = 0; i < HIDDEN * INPUT; i++)
			assert_below(fabs((double)y.predicted[i] - golden_predicted[i]), 2e-5);
		check_slopes(devices[k % 2], &t, y.grad, golden_slope, sizeof golden_slope / sizeof *golden_slope);
		free(y.grad);
	}
	free(w);
	lwm_tensors_release(&t);
}

struct slopes {
	struct lwm_masked_cfg c;
	float patches[FLOATS], targets[FLOATS];
	int64_t total;
};

static double loss_at(void *ctx, const float *w)
{
	const struct slopes *x = ctx;

	return step("ref", &x->c, (struct lwm_masked_run){ 0 }, x->patches, x->targets, w, x->total, false).st.loss;
}

static void gradients_are_slopes(void **state)
{
	struct slopes x = { .c = model() };
	struct lwm_tensors t;
	struct outcome y;
	float *w;

	(void)state;
	assert_int_equal(lwm_masked_tensors(&t, &x.c, NULL), 0);
	w = random_weights(&t);
	x.total = t.total;
	numbers("", "some patches", FLOATS, x.patches);
	numbers("", "some targets", FLOATS, x.targets);
	y = step("ref", &x.c, (struct lwm_masked_run){ .how.recompute = true }, x.patches, x.targets, w, t.total, true);
	check_differences(&t, w, y.grad, loss_at, &x);
	free(y.grad);
	free(w);
	lwm_tensors_release(&t);
}

/* A hidden patch changes nothing; a seen one changes the predictions of its clip alone; only targets of hidden ones count. */
static void what_is_looked_at(void **state)
{
	struct lwm_masked_cfg c = model();
	float patches[FLOATS], targets[FLOATS], *w;
	struct lwm_tensors t;
	struct outcome was, now;

	(void)state;
	assert_int_equal(lwm_masked_tensors(&t, &c, NULL), 0);
	w = random_weights(&t);
	numbers("", "patches", FLOATS, patches);
	numbers("", "targets", FLOATS, targets);
	was = step("cpu", &c, (struct lwm_masked_run){ 0 }, patches, targets, w, t.total, false);
	for (int i = 0; i < CLIPS * TOKENS; i++) {
		int clip = i / TOKENS, half = HIDDEN * INPUT / CLIPS;
		bool is_seen = i % TOKENS == seen[clip * KEPT] || i % TOKENS == seen[clip * KEPT + 1];

		patches[i * INPUT] += 1;
		now = step("cpu", &c, (struct lwm_masked_run){ 0 }, patches, targets, w, t.total, false);
		assert_true((memcmp(now.predicted + clip * half, was.predicted + clip * half, (size_t)half * 4) != 0) == is_seen);
		assert_memory_equal(now.predicted + (1 - clip) * half, was.predicted + (1 - clip) * half, (size_t)half * 4);
		patches[i * INPUT] -= 1;
		targets[i * INPUT] += 1;
		now = step("cpu", &c, (struct lwm_masked_run){ 0 }, patches, targets, w, t.total, false);
		assert_true((now.st.loss != was.st.loss) == !is_seen);
		targets[i * INPUT] -= 1;
	}
	free(w);
	lwm_tensors_release(&t);
}

/* A trunk that is frozen has no gradient; the decoder behind it has all of its own. */
static void a_frozen_trunk(void **state)
{
	struct lwm_masked_cfg c = model();
	float patches[FLOATS], targets[FLOATS], *w;
	struct outcome y[2];
	struct lwm_tensors t;
	int64_t frozen = 0;

	(void)state;
	assert_int_equal(lwm_masked_tensors(&t, &c, NULL), 0);
	w = weights_by_name(&t);
	numbers("", "patches", FLOATS, patches);
	numbers("", "targets", FLOATS, targets);
	for (int k = 0; k < 2; k++) {
		for (int64_t i = 0; k && i < t.n; i++)
			t.list[i].trainable = t.list[i].group > c.trunk.layers;
		told = k ? &t : NULL;
		y[k] = step("cpu", &c, (struct lwm_masked_run){ 0 }, patches, targets, w, t.total, true);
	}
	told = NULL;
	for (int64_t i = 0; i < t.n; i++) {
		const struct lwm_tensor *q = &t.list[i];

		for (int64_t k = q->offset; k < q->offset + q->count; k++)
			if (q->trainable ? y[1].grad[k] != y[0].grad[k] : q->ndim > 1 && y[1].grad[k] != 0)
				fail_msg("%s: %.9g, of a trunk that trains %.9g", q->name, (double)y[1].grad[k], (double)y[0].grad[k]);
		frozen += !q->trainable && q->ndim > 1;
	}
	assert_true(frozen > 3);
	for (int k = 0; k < 2; k++)
		free(y[k].grad);
	lwm_tensors_release(&t);
	free(w);
}

/* ---- codes ---- */

enum { CODES = 5, EACH = 3 };

static struct lwm_masked_cfg code_model(void)
{
	struct lwm_masked_cfg c = model();

	c.codes = CODES;
	c.each = EACH;
	return c;
}

static void some_codes(const char *name, int32_t codes[CLIPS * TOKENS * EACH])
{
	float x[CLIPS * TOKENS * EACH];

	numbers("", name, CLIPS * TOKENS * EACH, x);
	for (int i = 0; i < CLIPS * TOKENS * EACH; i++)
		codes[i] = (int32_t)((x[i] + 0.5f) * CODES);
}

/* bytes: of logits at a time. */
static struct outcome code_step(const char *name, int64_t bytes, const float *patches, const int32_t *codes, const float *w,
				int64_t total, bool grads)
{
	struct lwm_masked_run run = { .clips = CLIPS + 1, .logits = bytes, .how.train = true };
	struct lk_dev *dev = device(name, 1);
	struct lwm_masked_batch b = { .clips = CLIPS, .patches = patches, .codes = codes, .visible = seen };
	struct outcome y = { .grad = grads ? calloc((size_t)total, sizeof(float)) : NULL };
	struct lwm_flat_weights lw = lwm_flat_weights_of(w, LK_F32, y.grad);
	struct lwm_masked_cfg c = code_model();
	struct lwm_masked *m;
	struct lwm_err e = { 0 };

	if (lwm_masked_new(&m, dev, &c, &run, &e) || lwm_masked_step(m, &b, &lw.base, &y.st, &e))
		fail_msg("%s", e.msg);
	lwm_masked_free(m);
	lk_dev_close(dev);
	return y;
}

/* In one piece and in several: rows of 60 bytes of logits, 8 of them. */
static void codes_as_a_second_program(void **state)
{
	static const int64_t bytes[] = { 1 << 20, 3 * EACH * CODES * 4, 1 };
	struct lwm_masked_cfg c = code_model();
	int32_t codes[CLIPS * TOKENS * EACH];
	float patches[FLOATS], *w;
	struct lwm_tensors t;

	(void)state;
	assert_int_equal(lwm_masked_tensors(&t, &c, NULL), 0);
	assert_non_null(lwm_tensors_find(&t, "masked.codes.weight"));
	assert_null(lwm_tensors_find(&t, "masked.pixels.weight"));
	w = weights_by_name(&t);
	numbers("", "patches", FLOATS, patches);
	some_codes("codes", codes);
	for (int k = 0; k < 6; k++) {
		struct outcome y = code_step(devices[k % 2], bytes[k / 2], patches, codes, w, t.total, true);

		assert_true(y.st.patches == HIDDEN);
		assert_below(fabs(y.st.loss - codes_loss[0]), 2e-5 * codes_loss[0]);
		assert_below(fabs(y.st.hits - codes_loss[1]), 1e-6);
		check_slopes(devices[k % 2], &t, y.grad, codes_slope, sizeof codes_slope / sizeof *codes_slope);
		free(y.grad);
	}
	free(w);
	lwm_tensors_release(&t);
}

struct code_slopes {
	float patches[FLOATS];
	int32_t codes[CLIPS * TOKENS * EACH];
	int64_t total;
};

static double code_loss_at(void *ctx, const float *w)
{
	const struct code_slopes *x = ctx;

	return code_step("ref", 1 << 20, x->patches, x->codes, w, x->total, false).st.loss;
}

static void code_gradients_are_slopes(void **state)
{
	struct lwm_masked_cfg c = code_model();
	struct code_slopes x;
	struct lwm_tensors t;
	struct outcome y;
	float *w;

	(void)state;
	assert_int_equal(lwm_masked_tensors(&t, &c, NULL), 0);
	w = random_weights(&t);
	x.total = t.total;
	numbers("", "some patches", FLOATS, x.patches);
	some_codes("some codes", x.codes);
	y = code_step("ref", 3 * EACH * CODES * 4, x.patches, x.codes, w, t.total, true);
	check_differences(&t, w, y.grad, code_loss_at, &x);
	free(y.grad);
	free(w);
	lwm_tensors_release(&t);
}

/* Codes of seen places have no loss. Logits that are all alike cost ln K; memory is of a piece, not of all rows. */
static void what_codes_count(void **state)
{
	struct lwm_masked_cfg c = code_model();
	struct lwm_masked_run small = { .clips = 64, .logits = 1 << 12, .how.train = true }, large = small;
	int32_t codes[CLIPS * TOKENS * EACH];
	float patches[FLOATS], *w;
	struct lwm_tensors t;
	double was;

	(void)state;
	assert_int_equal(lwm_masked_tensors(&t, &c, NULL), 0);
	w = random_weights(&t);
	numbers("", "patches", FLOATS, patches);
	some_codes("codes", codes);
	was = code_step("cpu", 1 << 20, patches, codes, w, t.total, false).st.loss;
	for (int i = 0; i < CLIPS * TOKENS; i++) {
		int clip = i / TOKENS, is = codes[i * EACH + 1];
		bool is_seen = i % TOKENS == seen[clip * KEPT] || i % TOKENS == seen[clip * KEPT + 1];

		codes[i * EACH + 1] = (is + 1) % CODES;
		assert_true((code_step("cpu", 1 << 20, patches, codes, w, t.total, false).st.loss != was) == !is_seen);
		codes[i * EACH + 1] = is;
	}
	memset(w + lwm_tensors_find(&t, "masked.codes.weight")->offset, 0, EACH * CODES * 16 * sizeof *w);
	assert_below(fabs(code_step("cpu", 64, patches, codes, w, t.total, false).st.loss - HIDDEN * log(CODES)), 1e-5);
	large.logits = 1 << 20;
	assert_true(lwm_masked_memory(&c, &large, LK_F32) - lwm_masked_memory(&c, &small, LK_F32) >
		    64 * (TOKENS - KEPT) * EACH * CODES * 4 - (1 << 12));
	free(w);
	lwm_tensors_release(&t);
}

static void what_is_refused(void **state)
{
	struct lwm_masked_cfg c = model();
	struct lwm_err e = { 0 };

	(void)state;
	assert_int_equal(lwm_masked_check(&c, &e), 0);
	c.kept = TOKENS;
	assert_int_equal(lwm_masked_check(&c, &e), -LWM_ECONFIG);
	c.kept = 0;
	assert_int_equal(lwm_masked_check(&c, &e), -LWM_ECONFIG);
	c = model();
	c.decoder.input_dim = INPUT;
	assert_int_equal(lwm_masked_check(&c, &e), -LWM_ECONFIG);
	c = code_model();
	assert_int_equal(lwm_masked_check(&c, &e), 0);
	c.each = 0;
	assert_int_equal(lwm_masked_check(&c, &e), -LWM_ECONFIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_a_second_program), cmocka_unit_test(gradients_are_slopes), cmocka_unit_test(what_is_looked_at),
		cmocka_unit_test(what_is_refused), cmocka_unit_test(a_frozen_trunk),
		cmocka_unit_test(codes_as_a_second_program), cmocka_unit_test(code_gradients_are_slopes),
		cmocka_unit_test(what_codes_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
