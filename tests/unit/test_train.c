/* A stage: it learns, resumes bit for bit, gives the same on any mesh, and says clearly what it refuses. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/comm/mesh.h"
#include "tests/unit/train_folder.h"

static int set_up(void **state)
{
	(void)state;
	return folder_of("test_train", FX_VOCAB);
}

static int run_on(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	return lwm_stage_run(arg, c, e);
}

/* Runs a stage on n thread ranks. */
static int run(struct lwm_stage *s, int n, struct lwm_err *e)
{
	return lwm_comm_threads(n, run_on, s, e);
}

static void stage(struct lwm_stage *s, const char *name, char *out, size_t size)
{
	struct lwm_err e = { 0 };
	snprintf(out, size, "%s/%s", root, name);
	assert_int_equal(fx_stage(s, rows, out, &e), 0);
}

static void must(int rc, const struct lwm_err *e)
{
	if (rc < 0)
		fail_msg("%s", e->msg);
}

static void test_learns(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256];
	double loss[64];
	(void)state;
	stage(&s, "learns", out, sizeof out);
	s.steps = 40;
	must(run(&s, 1, &e), &e);
	assert_int_equal(fx_losses(out, loss, 64), 40);
	assert_true(fabs(loss[0] - log(FX_VOCAB)) < 0.2);
	assert_true(loss[39] < 0.6 * loss[0]);
	lwm_stage_release(&s);
}

/* Stopped after every possible number of steps and gone on with: the same losses and the same final state. */
static void test_resume(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	struct lwm_hash whole, parts;
	double a[64], b[64];
	char out[256];
	(void)state;
	stage(&s, "whole", out, sizeof out);
	must(run(&s, 1, &e), &e);
	assert_int_equal(fx_losses(out, a, 64), 12);
	must(fx_state(out, &whole, &e), &e);
	lwm_stage_release(&s);
	for (int k = 1; k <= 5; k += 2) {
		char name[32];
		int rc, runs = 0;
		snprintf(name, sizeof name, "parts%d", k);
		stage(&s, name, out, sizeof out);
		s.stop_after = k;
		do {
			lwm_err_clear(&e);
			rc = run(&s, 1, &e);
			runs++;
		} while (rc == -LWM_ESAVED && runs < 20);
		must(rc, &e);
		assert_int_equal(runs, (12 + k - 1) / k);
		assert_int_equal(fx_losses(out, b, 64), 12);
		assert_memory_equal(a, b, 12 * sizeof *a);
		must(fx_state(out, &parts, &e), &e);
		assert_string_equal(whole.hex, parts.hex);
		lwm_stage_release(&s);
	}
}

/* dp, sp and both give the losses of one rank; a checkpoint of one mesh goes on on another. */
static void test_meshes(void **state)
{
	static const struct {
		const char *mesh;
		int ranks, layout;
	} m[] = { { "1,1,1,1", 1, 1 }, { "2,1,1,1", 2, 1 }, { "1,1,1,2", 2, 1 }, { "1,2,1,2", 4, 1 }, { "1,1,1,4", 4, 0 },
		  { "1,1,1,4", 4, 2 }, { "1,1,1,2", 2, 3 }, { "1,1,1,4", 4, 3 }, { "1,2,1,4", 8, 3 } };
	enum { N = sizeof m / sizeof *m };
	struct lwm_err e = { 0 };
	double a[64], b[64];
	(void)state;
	for (int i = 0; i < N; i++) {
		struct lwm_stage s;
		char name[32], out[256];
		snprintf(name, sizeof name, "mesh%d", i);
		stage(&s, name, out, sizeof out);
		s.mesh_dim = m[i].mesh;
		lwm_next_token_of(&s)->ring_layout = m[i].layout;
		s.stop_after = 6;
		assert_int_equal(run(&s, m[i].ranks, &e), -LWM_ESAVED);
		lwm_err_clear(&e);
		/* the second half on the mesh before it in the list */
		s.stop_after = 0;
		s.mesh_dim = m[(i + N - 1) % N].mesh;
		lwm_next_token_of(&s)->ring_layout = m[(i + N - 1) % N].layout;
		must(run(&s, m[(i + N - 1) % N].ranks, &e), &e);
		assert_int_equal(fx_losses(out, i ? b : a, 64), 12);
		for (int k = 0; i && k < 12; k++)
			if (fabs(a[k] - b[k]) > 2e-4 * fabs(a[k])) /* fp32 sums in another order, through 12 AdamW steps */
				fail_msg("mesh %s, step %d: loss %.9g, on one rank %.9g", m[i].mesh, k, b[k], a[k]);
		lwm_stage_release(&s);
	}
}

static void test_micro_rows(void **state)
{
	struct lwm_err e = { 0 };
	double a[64], b[64];
	(void)state;
	for (int micro = 1; micro <= 8; micro *= 2) {
		struct lwm_stage s;
		char name[32], out[256];
		snprintf(name, sizeof name, "micro%d", micro);
		stage(&s, name, out, sizeof out);
		lwm_next_token_of(&s)->micro_rows = micro;
		lwm_next_token_of(&s)->mlp_chunk = 16 * micro;
		lwm_next_token_of(&s)->no_recompute = micro == 4;
		must(run(&s, 1, &e), &e);
		assert_int_equal(fx_losses(out, micro > 1 ? b : a, 64), 12);
		for (int k = 0; micro > 1 && k < 12; k++)
			assert_true(fabs(a[k] - b[k]) <= 2e-4 * fabs(a[k]));
		lwm_stage_release(&s);
	}
}

/* The next stage takes the weights and begins at step 0, with another sequence length of course. */
static void test_start_from(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256], first[256], from[300];
	double a[64], b[64];
	(void)state;
	stage(&s, "first", first, sizeof first);
	s.steps = 30;
	must(run(&s, 1, &e), &e);
	assert_int_equal(fx_losses(first, a, 64), 30);
	lwm_stage_release(&s);
	stage(&s, "second", out, sizeof out);
	snprintf(from, sizeof from, "checkpoint:%s", first);
	s.start_from = from;
	lwm_next_token_of(&s)->theta = 1e6;
	must(run(&s, 1, &e), &e);
	assert_int_equal(fx_losses(out, b, 64), 12);
	assert_true(b[0] < 0.8 * a[0]);
	lwm_stage_release(&s);
}

static void refused(struct lwm_stage *s, int ranks, int code, const char *part)
{
	struct lwm_err e = { 0 };
	int rc = run(s, ranks, &e);
	if (rc != -code || !strstr(e.msg, part))
		fail_msg("expected %d with '%s', got %d: %s", code, part, -rc, e.msg);
}

static void test_refusals(void **state)
{
	struct lwm_stage s;
	char out[256];
	(void)state;
	stage(&s, "refused", out, sizeof out);
	lwm_next_token_of(&s)->tokens_per_batch = 100;
	refused(&s, 1, LWM_ECONFIG, "not a multiple");
	lwm_next_token_of(&s)->tokens_per_batch = FX_SEQ * 8;
	lwm_next_token_of(&s)->seq_length = 128;
	refused(&s, 1, LWM_ECONFIG, "64");
	lwm_next_token_of(&s)->seq_length = FX_SEQ;
	s.mesh_dim = "1,1,1,3";
	refused(&s, 3, LWM_ECONFIG, "multiple of 3 for a balanced ring");
	lwm_next_token_of(&s)->ring_layout = LWM_RING_ZIGZAG;
	refused(&s, 3, LWM_ECONFIG, "multiple of 6 for a zigzag ring");
	s.mesh_dim = "1,1,3,1";
	refused(&s, 3, LWM_ECONFIG, "heads, 4, cannot be divided over 3 tensor-parallel ranks");
	lwm_next_token_of(&s)->heads = lwm_next_token_of(&s)->kv_heads = 3;
	lwm_next_token_of(&s)->dim = 36;
	refused(&s, 3, LWM_ECONFIG, "128 tokens of a sequence rank cannot be divided over 3 tensor-parallel ranks");
	lwm_next_token_of(&s)->heads = 4;
	lwm_next_token_of(&s)->kv_heads = 2;
	lwm_next_token_of(&s)->dim = 32;
	s.mesh_dim = "1,1,1,1";
	lwm_next_token_of(&s)->vocab = 100;
	refused(&s, 1, LWM_ECONFIG, "vocabulary of 40");
	lwm_next_token_of(&s)->vocab = 0;
	s.device = "gpu";
	refused(&s, 1, LWM_EUNAVAIL, "gpu");
	s.device = "cpu";
	s.start_from = "nowhere";
	refused(&s, 1, LWM_EUSAGE, "nowhere");
	s.start_from = "checkpoint:/nonexistent";
	refused(&s, 1, LWM_ENOINPUT, "/nonexistent");
	lwm_stage_release(&s);
}

/* A stage that is run again with another model or seed is refused with both values. */
static void test_other_model(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256];
	(void)state;
	stage(&s, "other", out, sizeof out);
	s.steps = 2;
	must(run(&s, 1, &e), &e);
	s.steps = 4;
	lwm_next_token_of(&s)->layers = 3;
	refused(&s, 1, LWM_ECONFIG, "num_hidden_layers = 2, this stage says 3");
	lwm_next_token_of(&s)->layers = 2;
	s.seed = 9;
	refused(&s, 1, LWM_ECONFIG, "seed 3, not 9");
	lwm_stage_release(&s);
}

static void test_schedules(void **state)
{
	struct lwm_schedule s = { .lr = 1, .min_lr = 0.1, .warmup_steps = 10 };
	(void)state;
	assert_true(lwm_schedule_rate(&s, 110, 0) == 0.1 && lwm_schedule_rate(&s, 110, 9) == 1);
	assert_true(lwm_schedule_rate(&s, 110, 109) == 1);
	s.shape = LWM_COSINE;
	assert_true(fabs(lwm_schedule_rate(&s, 110, 60) - 0.55) < 1e-12 && fabs(lwm_schedule_rate(&s, 110, 110) - 0.1) < 1e-12);
	s.shape = LWM_LINEAR;
	assert_true(fabs(lwm_schedule_rate(&s, 110, 35) - 0.775) < 1e-12 && fabs(lwm_schedule_rate(&s, 110, 500) - 0.1) < 1e-12);
	s.warmup_steps = 0;
	assert_true(lwm_schedule_rate(&s, 110, 0) == 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_schedules),  cmocka_unit_test(test_learns),
					    cmocka_unit_test(test_resume),     cmocka_unit_test(test_meshes),
					    cmocka_unit_test(test_micro_rows), cmocka_unit_test(test_start_from),
					    cmocka_unit_test(test_refusals),   cmocka_unit_test(test_other_model) };
	return cmocka_run_group_tests(tests, set_up, folder_gone);
}
