/* Steps that must not be taken: a NaN, an infinity or a spike at a chosen step and rank leaves everything as it was.
 *
 * objectives.c is replaced at link time: this program defines the table of objectives itself. It holds the real objective of text
 * with its step wrapped, so that gradients and sums can be spoilt, or given a norm, exactly where a case says so.
 * Everything else is the stage as shipped. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/comm/device.h"
#include "common/train/objective.h"
#include "tests/unit/train_folder.h"
#include "tests/unit/train_probe.h"

/* ---- the wrapped objective ---- */

enum poison { NOTHING, NAN_GRADIENT, INF_GRADIENT, MINUS_INF_GRADIENT, NAN_LOSS, INF_LOSS };
enum { LONGEST = 1100 };

static int bad_numbers, decided; /* of N1 and N2 */

static struct {
	enum poison at[LONGEST];
	int64_t place;        /* of the first group's gradient */
	double norm[LONGEST]; /* of the gradient; 0: as it comes */
	int rank;             /* the one that is spoilt */
} script;

static struct lwm_objective_type wrapped; /* lwm_objective_next_token, with another step */
const char *const lwm_objective_names[] = { "next-token", NULL };
const struct lwm_objective_type *const lwm_objectives[] = { &wrapped, NULL };

static double length(const float *g, int64_t n)
{
	double sum = 0;
	for (int64_t i = 0; i < n; i++)
		sum += (double)g[i] * (double)g[i];
	return sqrt(sum);
}

/* Weights of a run, whose first gradient is spoiled on its way to the sum. */
struct spoiled {
	struct lwm_supply base, *inner;
	float *first;
	enum poison how;
};

static int spoiled_acquire(struct lwm_supply *w, const struct lwm_group *g, unsigned what, struct lwm_supplied *at, int failed,
			   struct lwm_err *e)
{
	struct spoiled *s = (struct spoiled *)w;
	int rc = lwm_supply_acquire(s->inner, g, what, at, failed, e);
	if (g->index == 0 && at->g)
		s->first = at->g;
	return rc;
}

static void spoiled_release(struct lwm_supply *w, const struct lwm_group *g)
{
	lwm_supply_release(((struct spoiled *)w)->inner, g);
}

static int spoiled_ready(struct lwm_supply *w, const struct lwm_group *g, int failed, struct lwm_err *e)
{
	struct spoiled *s = (struct spoiled *)w;
	s->inner->more = s->base.more;
	if (g->index == 0)
		switch (s->how) {
		case NAN_GRADIENT: s->first[script.place] = NAN; break;
		case INF_GRADIENT: s->first[script.place] = INFINITY; break;
		case MINUS_INF_GRADIENT: s->first[script.place] = -INFINITY; break;
		default: break;
		}
	return lwm_supply_grad_ready(s->inner, g, failed, e);
}

static int spoiled_agree(struct lwm_supply *w, int rc, struct lwm_err *e)
{
	return lwm_supply_agree(((struct spoiled *)w)->inner, rc, e);
}

/* On one rank alone, so that gradients lie flat: that of the step becomes sums' divisor times what is wanted. */
static void give_length(struct lwm_objective *o, struct lwm_supply *w, double want, const double *sums)
{
	struct lwm_group first = lwm_tensors_group(&o->tensors, 0);
	struct lwm_supplied all;
	assert_int_equal(lwm_supply_acquire(w, &first, LWM_GRADS, &all, 0, NULL), 0);
	lwm_supply_release(w, &first);
	float by = (float)(want * lwm_objective_next_token.norm(sums) / length(all.g, o->tensors.total));
	for (int64_t i = 0; i < o->tensors.total; i++)
		all.g[i] *= by;
}

static int step(struct lwm_objective *o, int64_t at, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	static const struct lwm_supply_ops ops = { spoiled_acquire, spoiled_release, spoiled_ready, spoiled_agree };
	struct spoiled s = { .base = *w, .inner = w };
	assert_true(at < LONGEST);
	s.base.ops = &ops;
	if (lwm_comm_rank(o->mesh->world) == script.rank)
		s.how = script.at[at];
	LWM_TRY(lwm_objective_next_token.step(o, at, &s.base, sums, e));
	if (script.norm[at] > 0)
		give_length(o, w, script.norm[at], sums);
	if (s.how == NAN_LOSS || s.how == INF_LOSS)
		sums[3] = s.how == NAN_LOSS ? NAN : INFINITY; /* the loss of text */
	return 0;
}

/* ---- runs ---- */

static void stage(struct lwm_stage *s, const char *name, char *out, size_t size)
{
	struct lwm_err e = { 0 };
	snprintf(out, size, "%s/%s", root, name);
	must(fx_stage(s, rows, out, &e), &e);
	lwm_next_token_of(s)->layers = 1;
	lwm_next_token_of(s)->tokens_per_batch = 4 * FX_SEQ;
	s->checkpoint_every = 1;
	s->keep = 1000;
	memset(&script, 0, sizeof script);
	script.place = 77;
}

static int set_up(void **state)
{
	(void)state;
	wrapped = lwm_objective_next_token;
	wrapped.step = step;
	return folder_of("test_train_guards", FX_VOCAB);
}

static int run(struct lwm_stage *s, int ranks, struct lwm_err *e)
{
	lwm_err_clear(e);
	return lwm_comm_threads(ranks, run_on, s, e);
}

/* "..s." for steps 1 to 4, where step 3 was skipped. */
static void decisions(const char *out, char *text, size_t size)
{
	json_t *list = probe_events(out, "step");
	size_t n = json_array_size(list);
	assert_true(n < size);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(json_integer_value(json_object_get(json_array_get(list, i), "step")), i + 1);
		text[i] = json_is_true(json_object_get(json_array_get(list, i), "skipped")) ? 's' : '.';
	}
	text[n] = 0;
	json_decref(list);
}

/* ---- what is not a number ---- */

/* Steps k and k + 1 are the same but for the numbers of steps done and skipped. */
static void nothing_moved(const char *name, const char *out, int64_t k)
{
	struct probe a, b;
	struct lwm_err e = { 0 };
	must(probe_step(&a, out, k, &e), &e);
	must(probe_step(&b, out, k + 1, &e), &e);
	for (int g = 0; g < LWM_CKPT_TRAINED; g++)
		if (memcmp(a.v[g], b.v[g], (size_t)a.n * sizeof **a.v))
			fail_msg("%s: %s changed in a step that was skipped", name, lwm_ckpt_group_names[g]);
	assert_int_equal(json_integer_value(json_object_get(a.state, "skipped")), 0);
	assert_int_equal(json_integer_value(json_object_get(b.state, "skipped")), 1);
	assert_int_equal(json_integer_value(json_object_get(b.state, "step")), k + 1);
	assert_true(json_equal(json_object_get(a.state, "recent"), json_object_get(b.state, "recent")));
	probe_free(&a);
	probe_free(&b);
	must(probe_step(&b, out, k + 2, &e), &e); /* and the run goes on in good health */
	for (int64_t i = 0; i < b.n; i++)
		assert_true(isfinite(b.v[0][i]) && isfinite(b.v[1][i]) && isfinite(b.v[2][i]));
	probe_free(&b);
}

static void test_not_finite(void **state)
{
	static const char *const kinds[] = { "", "NaN", "Inf", "-Inf", "NaN loss", "Inf loss" };
	static const struct {
		const char *mesh;
		int ranks, rank;
	} m[] = { { "1,1,1,1", 1, 0 }, { "2,1,1,1", 2, 1 }, { "1,2,1,1", 2, 0 }, { "1,1,1,2", 2, 1 }, { "2,1,1,2", 4, 2 }, { "1,1,2,1", 2, 1 } };
	static const int64_t place[] = { 77, 0 };
	enum { MESHES = sizeof m / sizeof *m };
	struct lwm_err e = { 0 };
	(void)state;
	for (int how = NAN_GRADIENT; how <= INF_LOSS; how++) {
		for (int i = 0; i < MESHES * 2; i++) {
			struct lwm_stage s;
			char name[64], out[256], seen[LONGEST], want[] = ".....";
			int at = 2 - i / MESHES, k = i % MESHES; /* the third step, the second one */
			snprintf(name, sizeof name, "%s at rank %d of %s, step %d", kinds[how], m[k].rank, m[k].mesh, at);
			stage(&s, name, out, sizeof out);
			s.mesh_dim = m[k].mesh;
			s.steps = 5;
			script.rank = m[k].rank;
			script.place = place[i / MESHES];
			script.at[at] = (enum poison)how;
			want[at] = 's';
			must(run(&s, m[k].ranks, &e), &e);
			decisions(out, seen, sizeof seen);
			assert_string_equal(seen, want);
			nothing_moved(name, out, at);
			lwm_stage_release(&s);
			bad_numbers++;
		}
	}
}

/* ---- gradients too large for fp16 ---- */

/* The scale of each step that was made, and '!' where it was too large: "8 8! 4". */
static void scales(const char *out, char *text, size_t size)
{
	json_t *list = probe_events(out, "step");
	size_t n = 0;
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *o = json_array_get(list, i);
		n += (size_t)snprintf(text + n, size - n, "%s%g%s", i ? " " : "", json_number_value(json_object_get(o, "loss_scale")),
				      json_is_true(json_object_get(o, "overflow")) ? "!" : "");
		assert_true(n < size);
	}
	json_decref(list);
}

/* What one rank finds too large is left out by all, halves the scale, and is none of the guards' business; a loss that is not
 * finite is. */
static void test_overflow_of_one_rank(void **state)
{
	static const struct {
		const char *mesh;
		int ranks, rank;
	} m[] = { { "1,1,1,1", 1, 0 }, { "2,1,1,1", 2, 1 }, { "1,2,1,1", 2, 0 }, { "1,1,1,2", 2, 1 }, { "1,1,2,1", 2, 1 } };
	struct lwm_err e = { 0 };
	(void)state;
	for (size_t k = 0; k < sizeof m / sizeof *m; k++) {
		struct lwm_stage s;
		struct probe a, b;
		char out[256], name[32], seen[LONGEST];
		snprintf(name, sizeof name, "half%zu", k);
		stage(&s, name, out, sizeof out);
		s.dtype = LWM_DTYPE_FP16;
		s.mesh_dim = m[k].mesh;
		s.steps = 9;
		s.scaling.first = 1024;
		s.scaling.interval = 3;
		s.scaling.backoff = 0.25;
		script.rank = m[k].rank;
		script.at[1] = k % 2 ? INF_GRADIENT : NAN_GRADIENT;
		script.at[5] = NAN_LOSS;
		must(run(&s, m[k].ranks, &e), &e);
		scales(out, seen, sizeof seen);
		assert_string_equal(seen, "1024 1024! 256 256 256 512 512 512 512");
		decisions(out, seen, sizeof seen);
		assert_string_equal(seen, ".....s...");
		must(probe_step(&a, out, 1, &e), &e);
		must(probe_step(&b, out, 2, &e), &e);
		for (int g = 0; g < LWM_CKPT_TRAINED; g++)
			assert_memory_equal(a.v[g], b.v[g], (size_t)a.n * sizeof **a.v);
		assert_int_equal(json_integer_value(json_object_get(b.state, "skipped")), 0);
		json_t *scale = json_object_get(b.state, "loss_scale");
		assert_int_equal(json_integer_value(json_object_get(scale, "overflows")), 1);
		assert_true(strtod(json_string_value(json_object_get(scale, "scale_hex")), NULL) == 256);
		probe_free(&a);
		must(probe_step(&a, out, 3, &e), &e); /* and then it moves */
		assert_true(memcmp(a.v[0], b.v[0], (size_t)a.n * sizeof **a.v) != 0);
		probe_free(&a);
		probe_free(&b);
		must(probe_step(&b, out, 9, &e), &e);
		scale = json_object_get(b.state, "loss_scale");
		assert_int_equal(json_integer_value(json_object_get(scale, "good")), 0);
		assert_true(strtod(json_string_value(json_object_get(scale, "scale_hex")), NULL) == 1024);
		probe_free(&b);
		lwm_stage_release(&s);
		bad_numbers++;
	}
}

static float *average_of(const char *out, int64_t step, int group)
{
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	char *dir = lwm_ckpt_dir(out, step);
	int64_t n = 0;
	must(lwm_ckpt_open(&c, dir, &e), &e);
	for (int64_t i = 0; i < lwm_ckpt_count(c); i++)
		n += lwm_ckpt_size(c, i);
	float *v = malloc((size_t)n * sizeof *v);
	must(probe_group(c, group, v, &e), &e);
	lwm_ckpt_close(c);
	free(dir);
	return v;
}

/* The average of the weights goes by updates that were made: the second step is none, so the third has the decay of the
 * second one, (1 + 2) / (10 + 2). */
static void test_average_goes_by_updates(void **state)
{
	struct lwm_err e = { 0 };
	struct lwm_stage s;
	struct probe p;
	char out[256];
	double worst = 0;
	(void)state;
	stage(&s, "average", out, sizeof out);
	s.steps = 3;
	s.ema = 0.9;
	script.at[1] = NAN_GRADIENT;
	must(run(&s, 1, &e), &e);
	must(probe_step(&p, out, 3, &e), &e);
	float *a = average_of(out, 1, LWM_CKPT_EMA), *b = average_of(out, 2, LWM_CKPT_EMA), *c = average_of(out, 3, LWM_CKPT_EMA);
	assert_memory_equal(a, b, (size_t)p.n * sizeof *a);
	for (int64_t i = 0; i < p.n; i++)
		worst = fmax(worst, fabs((double)c[i] - (double)b[i] - 0.75 * ((double)p.v[0][i] - (double)b[i])));
	assert_true(worst < 1e-7);
	free(a);
	free(b);
	free(c);
	probe_free(&p);
	lwm_stage_release(&s);
}

/* ---- how many may be skipped ---- */

static void bad_from(int64_t first, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		script.at[first + i] = NAN_GRADIENT;
}

static void test_ten_in_a_row(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256], seen[LONGEST];
	(void)state;
	stage(&s, "nine", out, sizeof out);
	s.steps = 24;
	bad_from(3, 9);
	bad_from(13, 9);
	must(run(&s, 1, &e), &e);
	decisions(out, seen, sizeof seen);
	assert_string_equal(seen, "...sssssssss.sssssssss..");
	lwm_stage_release(&s);
	for (int ranks = 1; ranks <= 2; ranks++) {
		stage(&s, ranks == 1 ? "ten" : "ten of two", out, sizeof out);
		s.steps = 24;
		bad_from(3, 10);
		assert_int_equal(run(&s, ranks, &e), -LWM_ENUMERIC);
		assert_non_null(strstr(e.msg, "step 12"));
		assert_non_null(strstr(e.msg, "10 updates were skipped"));
		lwm_stage_release(&s);
	}
}

/* Twenty are allowed early; the next must be fewer than one in fifty. */
static void test_one_in_fifty(void **state)
{
	static const struct {
		int skips, apart, steps;
		const char *ends; /* NULL: it does not */
	} t[] = { { 20, 4, 120, NULL }, { 21, 4, 120, "step 82" }, { 21, 8, 170, "step 162" }, { 21, 53, 1070, NULL } };
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256], name[16];
	(void)state;
	for (size_t k = 0; k < sizeof t / sizeof *t; k++) {
		snprintf(name, sizeof name, "fifty%d", (int)k);
		stage(&s, name, out, sizeof out);
		s.checkpoint_every = 0;
		lwm_next_token_of(&s)->layers = 1;
		s.steps = t[k].steps;
		for (int i = 0; i < t[k].skips; i++)
			script.at[2 + t[k].apart * i] = NAN_GRADIENT;
		lwm_err_clear(&e);
		int rc = run(&s, 1, &e);
		assert_int_equal(rc, t[k].ends ? -LWM_ENUMERIC : 0);
		if (t[k].ends)
			assert_non_null(strstr(e.msg, t[k].ends));
		lwm_stage_release(&s);
	}
}

/* ---- spikes ---- */

/* Norms 1, 3, 2 and so on: their median is 2, and 40 spikes of 2 * factor would move it. */
static void usual_norms(void)
{
	for (int i = 0; i < LONGEST; i++)
		script.norm[i] = i % 4 == 0 ? 1 : i % 4 == 1 ? 3 : 2;
}

static void spike_case(const char *name, double factor, int64_t at, double norm, int64_t steps, bool skipped)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256], seen[LONGEST], want[LONGEST];
	stage(&s, name, out, sizeof out);
	s.checkpoint_every = 0;
	s.steps = steps;
	s.guards.spike_factor = factor;
	usual_norms();
	script.norm[at] = norm;
	must(run(&s, 1, &e), &e);
	decisions(out, seen, sizeof seen);
	memset(want, '.', (size_t)steps);
	want[steps] = 0;
	want[at] = skipped ? 's' : '.';
	if (strcmp(seen, want))
		fail_msg("%s: %s, expected %s", name, seen, want);
	decided++;
	lwm_stage_release(&s);
}

static void test_spikes(void **state)
{
	(void)state;
	spike_case("above", 5, 66, 10.1, 70, true); /* the median of the window is 2 */
	spike_case("below", 5, 66, 9.9, 70, false);
	spike_case("first of a full window", 5, 64, 10.1, 70, true);
	spike_case("window not full", 5, 63, 10.1, 70, false);
	spike_case("off", 0, 66, 1000, 70, false);
	spike_case("late", 5, 150, 10.1, 160, true);
}

/* The window holds the last 64 and nothing older: after a change of level the median follows when half have been seen. */
static void test_window_moves(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256], seen[LONGEST];
	(void)state;
	stage(&s, "moves", out, sizeof out);
	s.checkpoint_every = 0;
	s.guards.spike_factor = 10;
	s.steps = 140;
	for (int i = 0; i < LONGEST; i++)
		script.norm[i] = i < 64 ? 1 : 8; /* 8 is no spike beside 1, 50 is one beside 1 and none beside 8 */
	script.norm[64 + 31] = 50; /* the window: 33 of 1, 31 of 8 */
	script.norm[64 + 33] = 50; /* the window: 32 of 1, 32 of 8, and the upper middle counts */
	must(run(&s, 1, &e), &e);
	decisions(out, seen, sizeof seen);
	assert_int_equal(seen[64 + 31], 's');
	assert_int_equal(seen[64 + 33], '.');
	assert_int_equal(strlen(seen), 140);
	assert_ptr_equal(strchr(seen, 's'), strrchr(seen, 's'));
	lwm_stage_release(&s);
}

/* ---- interrupted ---- */

static void hard_times(struct lwm_stage *s)
{
	s->guards.spike_factor = 5;
	s->steps = 84;
	s->checkpoint_every = 0;
	s->keep = 1;
	usual_norms();
	script.at[0] = script.at[5] = NAN_GRADIENT; /* steps that leave no norm behind */
	script.at[40] = INF_GRADIENT;
	for (int i = 60; i < 84; i += 2)
		script.norm[i] = 8.2; /* near the limit: whether these are spikes depends on what fills the window */
	script.norm[67] = script.norm[71] = script.norm[80] = 10.5;
	for (int i = 0; i < 64; i += 3)
		script.norm[i] = 1.7;
}

/* Stopped after every k-th step and gone on with: the same decisions, norms and final state as without a stop. */
static void test_resume_decides_the_same(void **state)
{
	static const int every[] = { 0, 1, 2, 5, 7, 11, 41, 62, 63, 64, 65, 66, 68 };
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	struct lwm_hash whole, parts;
	char out[256], want[LONGEST], seen[LONGEST], name[32];
	(void)state;
	for (size_t i = 0; i < sizeof every / sizeof *every; i++) {
		int rc, runs = 0;
		snprintf(name, sizeof name, "resume%d", every[i]);
		stage(&s, name, out, sizeof out);
		hard_times(&s);
		s.stop_after = every[i];
		while ((rc = run(&s, 1, &e)) == -LWM_ESAVED && runs++ < 100)
			;
		must(rc, &e);
		decisions(out, seen, sizeof seen);
		must(fx_state(out, &parts, &e), &e);
		if (i == 0) {
			memcpy(want, seen, sizeof want);
			whole = parts;
			assert_true(want[0] == 's' && want[5] == 's' && want[40] == 's' && strchr(want + 60, 's'));
		}
		if (strcmp(seen, want))
			fail_msg("stopped every %d steps: %s, without a stop %s", every[i], seen, want);
		assert_string_equal(parts.hex, whole.hex);
		decided++;
		lwm_stage_release(&s);
	}
}

/* Ten in a row are ten in a row, however often the run was stopped between them. */
static void test_row_of_skips_survives_a_stop(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256], name[32];
	(void)state;
	for (int every = 1; every <= 8; every += 3) {
		int rc, runs = 0;
		snprintf(name, sizeof name, "row%d", every);
		stage(&s, name, out, sizeof out);
		s.checkpoint_every = 0;
		s.steps = 40;
		bad_from(3, 30);
		s.stop_after = every;
		while ((rc = run(&s, 1, &e)) == -LWM_ESAVED && runs++ < 50)
			;
		assert_int_equal(rc, -LWM_ENUMERIC);
		if (!strstr(e.msg, "step 12"))
			fail_msg("stopped every %d steps: %s", every, e.msg);
		decided++;
		lwm_stage_release(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_not_finite),
					    cmocka_unit_test(test_overflow_of_one_rank),
					    cmocka_unit_test(test_ten_in_a_row),
					    cmocka_unit_test(test_one_in_fifty),
					    cmocka_unit_test(test_average_goes_by_updates),
					    cmocka_unit_test(test_spikes),
					    cmocka_unit_test(test_window_moves),
					    cmocka_unit_test(test_resume_decides_the_same),
					    cmocka_unit_test(test_row_of_skips_survives_a_stop) };
	int rc = cmocka_run_group_tests(tests, set_up, folder_gone);
	printf("N1: %d bad numbers never came to weights or moments\n", bad_numbers);
	printf("N2: %d runs with spikes, stopped and resumed or not, decided as they should\n", decided);
	return rc;
}
