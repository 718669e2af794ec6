/* test_train_tp.c - stages whose ranks share the model (threads), alone and with every other axis, are trained as on one rank:
 * losses, gradient norms, weights and moments; and a checkpoint of any such mesh continues on any other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/log.h"
#include "common/base/path.h"
#include "tests/unit/train_probe.h"

enum { STEPS = 10, TEXT = 24 /* ids from there on are vision */ };

static char root[128], rows[160];

struct mesh_case {
	const char *mesh;
	int ranks;
	int64_t kv_heads;
	bool shards, tie;
};

static void stage_of(struct lwm_stage *s, const char *out, const struct mesh_case *m)
{
	struct lwm_err e = { 0 };

	must(fx_stage(s, rows, out, &e), &e);
	s->steps = STEPS;
	s->mesh_dim = m->mesh;
	s->checkpoint_every = STEPS / 2;
	s->adamw.weight_decay = 0.1;
	s->guards.clip = 0.2; /* clipping makes the weights depend on the norm */
	s->shard_weights = m->shards ? LWM_SHARD_TRUE : LWM_SHARD_FALSE;
	lwm_next_token_of(s)->kv_heads = m->kv_heads;
	lwm_next_token_of(s)->tie = m->tie;
	lwm_next_token_of(s)->micro_rows = 1;
}

static void train_once(struct lwm_stage *s, int ranks, int64_t stop_after)
{
	struct lwm_err e = { 0 };
	int rc;

	s->stop_after = stop_after;
	rc = lwm_comm_threads(ranks, run_on, s, &e);
	if (rc < 0 && rc != -LWM_ESAVED)
		fail_msg("mesh %s: %s", s->mesh_dim, e.msg);
	assert_int_equal(rc, stop_after ? -LWM_ESAVED : 0);
}

/* Of a folder: losses, gradient norms and tokens of its steps, and the weights and moments of its last checkpoint. */
struct trained {
	double loss[STEPS], norm[STEPS], tokens[STEPS];
	struct probe last;
};

static struct trained read_run(const char *out)
{
	struct lwm_err e = { 0 };
	struct trained y;

	json_t *steps = probe_events(out, "step");

	assert_int_equal(fx_losses(out, y.loss, STEPS), STEPS);
	for (size_t k = 0; k < STEPS; k++) {
		y.norm[k] = probe_number(steps, k, "grad_norm");
		y.tokens[k] = probe_number(steps, k, "tokens");
	}
	json_decref(steps);
	must(probe_step(&y.last, out, STEPS, &e), &e);
	return y;
}

static double far(const float *a, const float *b, int64_t n)
{
	double d = 0, s = 0;

	for (int64_t i = 0; i < n; i++) {
		d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
		s += (double)b[i] * (double)b[i];
	}
	return sqrt(d / s);
}

static void compare_runs(const char *name, const struct trained *got, const struct trained *want)
{
	for (int k = 0; k < STEPS; k++)
		if (!(fabs(got->loss[k] - want->loss[k]) <= 2e-5 * fabs(want->loss[k])))
			fail_msg("%s, step %d: loss %.9g, on one rank %.9g", name, k, got->loss[k], want->loss[k]);
	for (int k = 0; k < STEPS; k++)
		if (!(fabs(got->norm[k] - want->norm[k]) <= 1e-4 * want->norm[k]) || got->tokens[k] != want->tokens[k])
			fail_msg("%s, step %d: gradient norm %.9g of %g tokens, on one rank %.9g of %g", name, k, got->norm[k],
				 got->tokens[k], want->norm[k], want->tokens[k]);
	for (int g = 0; g < LWM_CKPT_GROUPS; g++)
		if (!(far(got->last.v[g], want->last.v[g], want->last.n) < 2e-4))
			fail_msg("%s: %s differ by %g", name, lwm_ckpt_group_names[g],
				 far(got->last.v[g], want->last.v[g], want->last.n));
}

static struct trained alone_run(int64_t kv_heads, bool tie)
{
	struct mesh_case one = { "1,1,1,1", 1, kv_heads, false, tie };
	struct lwm_stage s;
	char out[256];

	snprintf(out, sizeof out, "%s/one-%d-%d", root, (int)kv_heads, tie);
	stage_of(&s, out, &one);
	train_once(&s, 1, 0);
	lwm_stage_release(&s);
	return read_run(out);
}

static void any_mesh_trains_as_one_rank(void **state)
{
	static const struct mesh_case cases[] = {
		{ "1,1,2,1", 2, 2, false, false }, { "1,1,4,1", 4, 2, false, false }, { "1,1,2,2", 4, 2, false, false },
		{ "2,1,2,1", 4, 2, false, false }, { "1,2,2,1", 4, 2, true, false },  { "1,1,2,2", 4, 2, true, false },
		{ "1,2,2,2", 8, 2, true, false },  { "2,2,2,1", 8, 2, true, false },  { "1,1,4,2", 8, 4, false, true },
		{ "1,2,4,1", 8, 1, true, true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct trained want = alone_run(cases[i].kv_heads, cases[i].tie), got;
		struct lwm_stage s;
		char out[256];

		snprintf(out, sizeof out, "%s/mesh%zu", root, i);
		stage_of(&s, out, &cases[i]);
		train_once(&s, cases[i].ranks, 0);
		lwm_stage_release(&s);
		got = read_run(out);
		compare_runs(cases[i].mesh, &got, &want);
		probe_free(&got.last);
		probe_free(&want.last);
	}
}

/* One run, moved from mesh to mesh: each reads what another has written. */
static void a_run_moves_between_meshes(void **state)
{
	static const struct mesh_case way[] = {
		{ "1,1,2,1", 2, 2, false, false }, { "1,1,1,1", 1, 2, false, false }, { "1,1,4,1", 4, 2, false, false },
		{ "1,2,2,1", 4, 2, true, false },  { "2,1,2,1", 4, 2, false, false }, { "1,1,2,2", 4, 2, true, false },
	};
	enum { N = sizeof way / sizeof *way };
	struct trained want = alone_run(2, false), got;
	char out[256];

	(void)state;
	snprintf(out, sizeof out, "%s/moved", root);
	for (size_t i = 0; i < N; i++) {
		struct lwm_stage s;

		stage_of(&s, out, &way[i]);
		train_once(&s, way[i].ranks, i + 1 < N ? 1 : 0);
		lwm_stage_release(&s);
	}
	got = read_run(out);
	compare_runs("moved", &got, &want);
	probe_free(&got.last);
	probe_free(&want.last);
}

/* Stopped and run again on the same mesh: the same bits as undisturbed. */
static void the_same_mesh_continues_bit_for_bit(void **state)
{
	static const struct mesh_case m = { "1,2,2,1", 4, 1, true, false };
	struct trained run[2];

	(void)state;
	for (int stopped = 0; stopped < 2; stopped++) {
		struct lwm_stage s;
		char out[256];

		snprintf(out, sizeof out, "%s/bits%d", root, stopped);
		stage_of(&s, out, &m);
		if (stopped)
			train_once(&s, m.ranks, 3);
		train_once(&s, m.ranks, 0);
		lwm_stage_release(&s);
		run[stopped] = read_run(out);
	}
	assert_memory_equal(run[0].loss, run[1].loss, sizeof run[0].loss);
	for (int g = 0; g < LWM_CKPT_GROUPS; g++)
		assert_memory_equal(run[0].last.v[g], run[1].last.v[g], (size_t)run[0].last.n * sizeof(float));
	probe_free(&run[0].last);
	probe_free(&run[1].last);
}

static int set_up(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	lwm_log_init("test_train_tp", LWM_ERROR);
	snprintf(root, sizeof root, "/tmp/lwm-test-train-tp-%ld", (long)getpid());
	snprintf(rows, sizeof rows, "%s/rows.h5", root);
	return lwm_mkdirs(root, &e) < 0 || fx_rows_of(rows, TEXT, &e) < 0;
}

static int tear_down(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	return lwm_remove_tree(root, &e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_mesh_trains_as_one_rank),
		cmocka_unit_test(a_run_moves_between_meshes),
		cmocka_unit_test(the_same_mesh_continues_bit_for_bit),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
