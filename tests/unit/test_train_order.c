/* test_train_order.c - stages whose sums are formed in the order of rows (threads as ranks): any mesh of dp and fsdp, weights whole
 * or cut, and any number of threads give the bits of one rank; a run that moves between meshes is the undisturbed one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/log.h"
#include "common/base/path.h"
#include "tests/unit/train_folder.h"
#include "tests/unit/train_probe.h"

enum { STEPS = 10, ROWS = 24, HELD_OUT = 13 };

struct mesh_case {
	const char *mesh;
	int ranks, threads;
	bool shards;
};

static const struct mesh_case meshes[] = {
	{ "1,1,1,1", 1, 3, false }, { "2,1,1,1", 2, 1, false }, { "1,2,1,1", 2, 2, true },  { "1,2,1,1", 2, 1, false },
	{ "3,1,1,1", 3, 1, false }, { "4,1,1,1", 4, 1, false }, { "1,4,1,1", 4, 1, true },  { "2,2,1,1", 4, 1, true },
	{ "2,2,1,1", 4, 1, false }, { "2,3,1,1", 6, 1, true },  { "8,1,1,1", 8, 1, false }, { "1,8,1,1", 8, 1, true },
	{ "2,4,1,1", 8, 1, true },  { "4,2,1,1", 8, 2, true },
};
enum { MESHES = sizeof meshes / sizeof *meshes };

static void stage_of(struct lwm_stage *s, const char *out, const struct mesh_case *m, bool tie, int64_t micro_rows)
{
	struct lwm_err e = { 0 };
	struct lwm_next_token *n;

	must(fx_stage(s, rows, out, &e), &e);
	must(lwm_paths_add(&s->eval_data, rows, &e), &e);
	n = lwm_next_token_of(s);
	s->steps = STEPS;
	s->eval_rows = HELD_OUT;
	s->eval_every = 4;
#ifdef __SANITIZE_THREAD__
	s->threads = 1; /* libgomp's barriers are invisible to it */
#else
	s->threads = m->threads;
#endif
	s->mesh_dim = m->mesh;
	s->adamw.weight_decay = 0.1;
	s->guards.clip = 0.2; /* clipping makes the weights depend on the norm */
	s->shard_weights = m->shards ? LWM_SHARD_TRUE : LWM_SHARD_FALSE;
	s->gather_ahead = m->ranks % 3;
	s->sum_order = LWM_SUM_CANONICAL;
	n->tie = tie;
	n->micro_rows = micro_rows;
	n->tokens_per_batch = FX_SEQ * ROWS;
}

/* What a run leaves behind: losses, gradient norms, losses of held-out rows; weights, moments and state of its last checkpoint. */
struct trained {
	double loss[STEPS], norm[STEPS], held_out[3];
	struct probe last;
};

static struct trained read_run(const char *out)
{
	struct lwm_err e = { 0 };
	struct trained y;
	json_t *steps = probe_events(out, "step"), *evals = probe_events(out, "eval");

	assert_int_equal(fx_losses(out, y.loss, STEPS), STEPS);
	assert_int_equal(json_array_size(evals), 3);
	for (size_t k = 0; k < STEPS; k++)
		y.norm[k] = probe_number(steps, k, "grad_norm");
	for (size_t k = 0; k < 3; k++)
		y.held_out[k] = probe_number(evals, k, "loss");
	json_decref(steps);
	json_decref(evals);
	must(probe_step(&y.last, out, STEPS, &e), &e);
	return y;
}

static struct trained train_on(const struct mesh_case *m, const char *name, bool tie, int64_t micro_rows, int order)
{
	struct lwm_stage s;
	char out[256];

	snprintf(out, sizeof out, "%s/%s-%d-%d", root, name, tie, (int)micro_rows);
	stage_of(&s, out, m, tie, micro_rows);
	s.sum_order = order;
	train_once(&s, m->ranks, 0);
	lwm_stage_release(&s);
	return read_run(out);
}

static bool same_bits(const struct trained *a, const struct trained *b)
{
	bool same = !memcmp(a->loss, b->loss, sizeof a->loss) && !memcmp(a->norm, b->norm, sizeof a->norm) &&
		    !memcmp(a->held_out, b->held_out, sizeof a->held_out) && json_equal(a->last.state, b->last.state);

	for (int g = 0; g < LWM_CKPT_TRAINED; g++)
		same = same && !memcmp(a->last.v[g], b->last.v[g], (size_t)b->last.n * sizeof(float));
	return same;
}

static void any_mesh_gives_the_same_bits(void **state)
{
	static const struct mesh_case one = { "1,1,1,1", 1, 1, false };

	(void)state;
	for (int kind = 0; kind < 3; kind++) {
		bool tie = kind == 1;
		int64_t micro_rows = kind; /* 0: one */
		struct trained want = train_on(&one, "one", tie, micro_rows, LWM_SUM_CANONICAL);

		assert_true(want.loss[STEPS - 1] < want.loss[0]);
		for (int i = 0; i < MESHES; i++) {
			char name[32];
			struct trained got;

			if (micro_rows && ROWS % (meshes[i].ranks * micro_rows))
				continue;
			snprintf(name, sizeof name, "mesh%d", i);
			got = train_on(&meshes[i], name, tie, micro_rows, LWM_SUM_CANONICAL);
			if (!same_bits(&got, &want))
				fail_msg("mesh %s, %s weights: not the bits of one rank; last loss %a, %a; norm %a, %a",
					 meshes[i].mesh, meshes[i].shards ? "cut" : "whole", got.loss[STEPS - 1],
					 want.loss[STEPS - 1], got.norm[STEPS - 1], want.norm[STEPS - 1]);
			probe_free(&got.last);
		}
		probe_free(&want.last);
	}
}

/* The same sums as those of the mesh, but for rounding, and not the same rounding: else nothing was shown above. */
static void the_order_of_the_mesh_differs_in_rounding(void **state)
{
	static const struct mesh_case one = { "1,1,1,1", 1, 1, false }, four = { "4,1,1,1", 4, 1, false };
	struct trained want = train_on(&one, "canonical", false, 1, LWM_SUM_CANONICAL), a, b;

	(void)state;
	a = train_on(&one, "own1", false, 1, LWM_SUM_MESH);
	b = train_on(&four, "own4", false, 1, LWM_SUM_MESH);
	assert_false(same_bits(&a, &b));
	for (int k = 0; k < STEPS; k++) {
		assert_true(fabs(a.loss[k] - want.loss[k]) <= 2e-5 * want.loss[k]);
		assert_true(fabs(b.loss[k] - want.loss[k]) <= 2e-5 * want.loss[k]);
		assert_true(fabs(b.norm[k] - want.norm[k]) <= 1e-4 * want.norm[k]);
	}
	for (int k = 0; k < 3; k++)
		assert_true(fabs(b.held_out[k] - want.held_out[k]) <= 2e-5 * want.held_out[k]);
	probe_free(&a.last);
	probe_free(&b.last);
	probe_free(&want.last);
}

/* Four ranks, then eight, then one, then three: the bits of the run that nobody disturbed. */
static void a_run_that_moves_is_the_undisturbed_one(void **state)
{
	static const struct mesh_case one = { "1,1,1,1", 1, 1, false };
	static const struct mesh_case way[] = {
		{ "2,2,1,1", 4, 1, true }, { "1,8,1,1", 8, 1, true }, { "1,1,1,1", 1, 2, false }, { "3,1,1,1", 3, 1, false },
	};
	enum { N = sizeof way / sizeof *way };
	struct trained want = train_on(&one, "still", false, 1, LWM_SUM_CANONICAL), got;
	char out[256];

	(void)state;
	snprintf(out, sizeof out, "%s/moved", root);
	for (size_t i = 0; i < N; i++) {
		struct lwm_stage s;

		stage_of(&s, out, &way[i], false, 1);
		train_once(&s, way[i].ranks, i + 1 < N ? 3 : 0);
		lwm_stage_release(&s);
	}
	got = read_run(out);
	assert_true(same_bits(&got, &want));
	probe_free(&got.last);
	probe_free(&want.last);
}

static void expect_refusal(struct lwm_stage *s, int ranks, const char *sentence)
{
	struct lwm_err e = { 0 };

	assert_int_equal(lwm_stage_check(s, ranks, &e), -LWM_ECONFIG);
	if (!strstr(e.msg, sentence))
		fail_msg("'%s', expected '%s'", e.msg, sentence);
}

static void what_cannot_be_had_is_refused(void **state)
{
	static const struct mesh_case tp = { "1,1,2,1", 2, 1, false };
	struct lwm_stage s;

	(void)state;
	stage_of(&s, root, &tp, false, 0);
	expect_refusal(&s, 2, "ranks share a row");
	s.mesh_dim = "1,1,1,2";
	expect_refusal(&s, 2, "ranks share a row");
	s.mesh_dim = "5,1,1,1";
	expect_refusal(&s, 5, "24 rows a step do not divide among 5 data ranks");
	s.mesh_dim = "1,1,1,1";
	s.plan_gib = 80;
	expect_refusal(&s, 1, "is for CPUs");
	s.plan_gib = 0;
	s.objective = 1;
	expect_refusal(&s, 1, "this objective cannot sum by rows");
	lwm_stage_release(&s);
}

/* What decides the bits of canonical sums may not change on the way, nor may the order itself; else it may. */
static void a_resumed_run_keeps_what_decides_bits(void **state)
{
	static const struct mesh_case one = { "1,1,1,1", 1, 1, false };
	struct lwm_err e = { 0 };
	struct lwm_stage s;
	char out[256];

	(void)state;
	snprintf(out, sizeof out, "%s/kept", root);
	stage_of(&s, out, &one, false, 1);
	train_once(&s, 1, 2);
	lwm_next_token_of(&s)->micro_rows = 2;
	assert_int_equal(lwm_comm_threads(1, run_on, &s, &e), -LWM_ECONFIG);
	assert_non_null(strstr(e.msg, "micro-rows 2, was 1"));
	lwm_next_token_of(&s)->micro_rows = 1;
	s.sum_order = LWM_SUM_MESH;
	lwm_err_clear(&e);
	assert_int_equal(lwm_comm_threads(1, run_on, &s, &e), -LWM_ECONFIG);
	assert_non_null(strstr(e.msg, "sum-order \"mesh\", was \"canonical\""));
	must(lwm_paths_add(&s.allow_change, "sum-order", &e), &e);
	train_once(&s, 1, 2);
	lwm_next_token_of(&s)->micro_rows = 2; /* begun with the order of the mesh, as far as the last checkpoint knows */
	train_once(&s, 1, 2);
	lwm_stage_release(&s);
}

static int set_up(void **state)
{
	(void)state;
	alarm(600); /* a rank that waits for ever ends the test */
	return folder_of("test_train_order", 24);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_mesh_gives_the_same_bits),
		cmocka_unit_test(the_order_of_the_mesh_differs_in_rounding),
		cmocka_unit_test(a_run_that_moves_is_the_undisturbed_one),
		cmocka_unit_test(what_cannot_be_had_is_refused),
		cmocka_unit_test(a_resumed_run_keeps_what_decides_bits),
	};

	return cmocka_run_group_tests(tests, set_up, folder_gone);
}
