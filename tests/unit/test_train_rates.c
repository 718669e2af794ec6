/* What a run says of its work: FLOPs of rows of several documents, worked out here pair by pair; the peak that MFU is of. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/train/metrics.h"
#include "common/train/objective.h"
#include "common/train/peak.h"
#include "tests/unit/train_probe.h"

enum { ROWS = 4, SEQ = FX_SEQ, TEXT = FX_VOCAB, VISION = 8, VISION_ROWS = 256 };

/* Documents by their length; what is left of a row is padding. */
static const int64_t docs[ROWS][4] = { { 64 }, { 10, 20 }, { 1, 63 }, { 16, 16, 16, 16 } };

static char root[128], rows[160];
static double tokens, pairs, heads[2]; /* of the four rows */

static int32_t token_of(int64_t r, int64_t i)
{
	return (int32_t)(r == 1 && i >= 12 ? TEXT + i % VISION : i % TEXT); /* a document that goes over to vision */
}

/* Labels are the tokens of row 3 from 40 on, and all of the others; the first one of a document never. */
static bool label(int64_t r, int64_t i)
{
	return r != 3 || i >= 40;
}

/* One row, and what belongs to it into the sums: for each token those of its document that are not behind it. */
static int add_row(struct lwm_rows_writer *w, int64_t r, struct lwm_err *e)
{
	static const struct lwm_loss_run late[] = { { 0, 0 }, { 40, 1 } };
	struct lwm_segment seg[4];
	int32_t tok[SEQ] = { 0 };
	int64_t n = 0, at = 0;
	for (int d = 0; d < 4 && docs[r][d]; at += docs[r][d++]) {
		seg[n++] = (struct lwm_segment){ .start = at, .len = docs[r][d], .doc = r * 10 + d };
		for (int64_t i = at; i < at + docs[r][d]; i++) {
			tok[i] = token_of(r, i);
			tokens++;
			for (int64_t j = at; j <= i; j++)
				pairs++;
			if (i > at && label(r, i))
				heads[tok[i] >= TEXT]++;
		}
	}
	return lwm_rows_append(w, tok, seg, n, r == 3 ? late : NULL, r == 3 ? 2 : 0, e);
}

static int set_up(void **state)
{
	struct lwm_rows_meta m = { .seq = SEQ, .vocab_text = TEXT, .vocab_vision = VISION, .tokenizer = "", .tool = "test",
				   .config = "", .weighting = "per_example" };
	struct lwm_rows_writer *w;
	struct lwm_err e = { 0 };
	(void)state;
	lwm_log_init("test_train_rates", LWM_ERROR);
	snprintf(root, sizeof root, "/tmp/lwm-test-rates-%ld", (long)getpid());
	snprintf(rows, sizeof rows, "%s/rows.h5", root);
	if (lwm_mkdirs(root, &e) < 0 || lwm_rows_create(&w, rows, &m, true, &e) < 0)
		return 1;
	for (int64_t r = 0; r < ROWS; r++)
		if (add_row(w, r, &e) < 0)
			return 1;
	return lwm_rows_commit(w, &e) < 0;
}

static int tear_down(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	return lwm_remove_tree(root, &e);
}

/* A run over all four rows in every step. */
static void stage(struct lwm_stage *s, char *out, const char *name)
{
	struct lwm_err e = { 0 };
	snprintf(out, 256, "%s/%s", root, name);
	must(fx_stage(s, rows, out, &e), &e);
	lwm_next_token_of(s)->tokens_per_batch = ROWS * SEQ;
	s->steps = 3;
}

static double layers_flops(double n, double p)
{
	const double weights = 2 * (32 * 32 + 16 * 32 + 16 * 32 + 32 * 32 + 3 * 48 * 32); /* q k v o, gate up down; 2 layers */
	return 6 * weights * n + 2 * 12 * 32 * p;
}

static void flops_of_packed_rows(void **state)
{
	static const struct {
		const char *mesh;
		int ranks;
		int64_t micro;
	} t[] = { { "1,1,1,1", 1, 4 }, { "1,1,1,1", 1, 1 }, { "2,1,1,1", 2, 2 }, { "1,1,1,2", 2, 2 }, { "1,2,1,2", 4, 1 } };
	double want = layers_flops(tokens, pairs) + 6 * 32 * (heads[0] * TEXT + heads[1] * VISION_ROWS);
	(void)state;
	assert_true(tokens == 64 + 30 + 64 + 64 && pairs == 2080 + 55 + 210 + 1 + 2016 + 4 * 136);
	assert_true(heads[1] == 18 && heads[0] == 63 + 9 + 2 - 1 + 62 + 24 - 1);
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct lwm_stage s;
		struct lwm_err e = { 0 };
		char out[256], name[16];
		snprintf(name, sizeof name, "mesh%d", (int)i);
		stage(&s, out, name);
		s.mesh_dim = t[i].mesh;
		lwm_next_token_of(&s)->micro_rows = t[i].micro;
		must(lwm_comm_threads(t[i].ranks, run_on, &s, &e), &e);
		json_t *list = probe_events(out, "step");
		assert_int_equal(json_array_size(list), 3);
		for (size_t k = 0; k < 3; k++)
			if (probe_number(list, k, "flops") != want)
				fail_msg("%s: %.17g FLOPs, expected %.17g", t[i].mesh, probe_number(list, k, "flops"), want);
		json_decref(list);
		lwm_stage_release(&s);
	}
}

/* A plan does not read the rows: it says what they take at most. */
static void plan_says_at_most(void **state)
{
	struct lwm_stage s;
	struct lwm_str text = { 0 };
	struct lwm_err e = { 0 };
	char out[256];
	double n = ROWS * SEQ;
	(void)state;
	stage(&s, out, "plan");
	must(lwm_stage_plan(&s, 1, true, &text, &e), &e);
	json_t *j = json_loads(lwm_str_get(&text), 0, NULL);
	double got = json_number_value(json_object_get(j, "most_flops_per_step"));
	assert_true(got == layers_flops(n, n * (SEQ + 1) / 2) + 6 * 32 * n * VISION_ROWS);
	json_decref(j);
	lwm_str_release(&text);
	lwm_stage_release(&s);
}

static double sum_of(json_t *list, const char *key)
{
	double sum = 0;
	for (size_t i = 0; i < json_array_size(list); i++)
		sum += probe_number(list, i, key);
	return sum;
}

/* One run with a peak: what it says at its end is its steps over that peak. source NULL: none. */
static void with_peak(struct lwm_stage *s, const char *out, int ranks, const char *source, double peak)
{
	struct lwm_err e = { 0 };
	must(lwm_comm_threads(ranks, run_on, s, &e), &e);
	json_t *steps = probe_events(out, "step"), *at = probe_events(out, "peak"), *end = probe_events(out, "end");
	json_t *last = json_array_get(end, 0), *said = json_object_get(last, "peak_source");
	assert_int_equal(json_array_size(at), source ? 1 : 0);
	assert_int_equal(json_array_size(end), 1);
	assert_true((said != NULL) == (source != NULL) && (json_object_get(last, "mfu") != NULL) == (source != NULL));
	if (source) {
		double have = probe_number(end, 0, "peak_tflops");
		double mfu = sum_of(steps, "flops") / sum_of(steps, "seconds") / have * 1e-12;
		assert_string_equal(json_string_value(said), source);
		assert_true(probe_number(at, 0, "peak_tflops") <= have && have > 0 && (peak == 0 || have == peak));
		assert_true(fabs(probe_number(end, 0, "mfu") / mfu - 1) < 1e-4);
	}
	json_decref(steps);
	json_decref(at);
	json_decref(end);
	lwm_stage_release(s);
}

/* The measuring uses the gradient's memory, and trains nothing else for it. */
static void peaks(void **state)
{
	struct lwm_stage s;
	char none[256], measured[256], given[256];
	double a[8], b[8];
	(void)state;
	stage(&s, none, "none");
	with_peak(&s, none, 1, NULL, 0);
	stage(&s, measured, "measured");
	s.peak_after = 0;
	with_peak(&s, measured, 1, "measured", 0);
	assert_int_equal(fx_losses(none, a, 8), 3);
	assert_int_equal(fx_losses(measured, b, 8), 3);
	assert_memory_equal(a, b, 3 * sizeof *a);
	stage(&s, given, "given");
	s.mesh_dim = "2,1,1,1";
	s.peak_after = 0;
	s.peak_tflops = 0.25; /* of each of two */
	with_peak(&s, given, 2, "given", 0.5);
}

/* Two steps of 3 GFLOP in a second each, over a peak of 1 GFLOP/s. */
static int beyond_its_peak(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct lwm_stage *s = arg;
	struct lwm_mesh m;
	struct lk_dev *dev;
	char why[256];
	assert_int_equal(lk_dev_open(&dev, "cpu", 1, why, sizeof why), 0);
	must(lwm_mesh_new(&m, "1,1,1,1", c, e), e);
	const struct lwm_objective_type type = { .kind = "test", .unit = "tok" };
	struct lwm_objective o = { .type = &type, .dev = dev, .mesh = &m, .stage = s, .units_per_step = 1 };
	struct lwm_train_state st = { .loss = 1, .more = "" };
	const struct lwm_step_figures f = { .grad_norm = 1, .lr = 1, .seconds = 1, .flops = 3e9 };
	struct lwm_metrics *x;
	must(lwm_metrics_open(&x, s, &o, 0, 0, "[]", e), e);
	must(lwm_metrics_peak(x, 0, 1e9, s->peak_tflops > 0 ? "given" : "measured", e), e);
	for (st.step = 1; st.step <= 2; st.step++)
		must(lwm_metrics_step(x, &st, &f, e), e);
	must(lwm_metrics_done(x, &st, 2, 1, e), e);
	lwm_metrics_close(x);
	lwm_mesh_release(&m);
	lk_dev_close(dev);
	return 0;
}

/* What others leave of the processors for a moment is no peak; one that was given stands. */
static void a_peak_that_steps_exceed(void **state)
{
	struct lwm_err e = { 0 };
	struct lwm_stage s;
	char out[256];
	(void)state;
	for (int given = 0; given < 2; given++) {
		stage(&s, out, given ? "exceeds given" : "exceeds measured");
		s.peak_tflops = given ? 1e-3 : 0;
		must(lwm_mkdirs(out, &e), &e);
		must(lwm_comm_threads(1, beyond_its_peak, &s, &e), &e);
		json_t *end = probe_events(out, "end");
		assert_true(fabs(probe_number(end, 0, "mfu") - (given ? 3 : 1)) < 1e-6);
		assert_true(fabs(probe_number(end, 0, "peak_tflops") - (given ? 1e-3 : 3e-3)) < 1e-9);
		json_decref(end);
		lwm_stage_release(&s);
	}
}

/* In room of the caller's, and in its own where that is too small: then it is left alone. */
static void room_of_a_measurement(void **state)
{
	enum { SMALL = 1 << 16 };
	size_t large = (size_t)3 * 1024 * 1024 * sizeof(float);
	char why[256], *room = malloc(large);
	struct lwm_err e = { 0 };
	double rate = 0;
	struct lk_dev *dev;
	(void)state;
	assert_non_null(room);
	assert_int_equal(lk_dev_open(&dev, "cpu", 1, why, sizeof why), 0);
	memset(room, 7, large);
	must(lwm_peak_measure(dev, room, SMALL, &rate, &e), &e);
	assert_true(rate > 0 && isfinite(rate));
	for (size_t i = 0; i < large; i++)
		assert_int_equal(room[i], 7);
	must(lwm_peak_measure(dev, room, large, &rate, &e), &e);
	assert_true(rate > 0 && isfinite(rate));
	assert_true(room[0] != 7);
	lk_dev_close(dev);
	free(room);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(flops_of_packed_rows), cmocka_unit_test(plan_says_at_most),
					    cmocka_unit_test(peaks),
					    cmocka_unit_test(a_peak_that_steps_exceed), cmocka_unit_test(room_of_a_measurement) };
	return cmocka_run_group_tests_name("train_rates", tests, set_up, tear_down);
}
