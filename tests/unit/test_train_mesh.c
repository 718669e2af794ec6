/* test_train_mesh.c - stages on every mesh (ranks are threads) are trained as on one rank: every gradient, losses, gradient norms,
 * weights and moments; the same mesh repeats bit for bit; and a checkpoint of any mesh continues on any other. */
#include <setjmp.h>
#include <stdarg.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/log.h"
#include "common/base/path.h"
#include "tests/unit/train_folder.h"
#include "tests/unit/train_probe.h"

enum { STEPS = 10, ROWS = 24, HEADS = 8, TEXT = 24 /* ids from there on are vision */ };

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
	lwm_next_token_of(s)->dim = 64;
	lwm_next_token_of(s)->heads = HEADS;
	lwm_next_token_of(s)->tokens_per_batch = ROWS * FX_SEQ;
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
	for (int g = 0; g < LWM_CKPT_TRAINED; g++)
		if (!(far(got->last.v[g], want->last.v[g], want->last.n) < 2e-4))
			fail_msg("%s: %s differ by %g", name, lwm_ckpt_group_names[g],
				 far(got->last.v[g], want->last.v[g], want->last.n));
}

/* Gradients of the first step, by tensor: its first moments, which are a tenth of them. */
static void compare_gradients(const char *name, const struct probe *got, const struct probe *want)
{
	int64_t at = 0;

	for (int64_t i = 0; i < want->tensors; i++) {
		double d = far(got->v[LWM_CKPT_ADAM_M] + at, want->v[LWM_CKPT_ADAM_M] + at, want->size[i]);

		if (!(d < 3e-5))
			fail_msg("%s, step 0: the gradient of tensor %" PRId64 " differs by %g", name, i, d);
		at += want->size[i];
	}
	assert_int_equal(at, want->n);
}

static bool same_bits(const struct trained *a, const struct trained *b)
{
	bool same = !memcmp(a->loss, b->loss, sizeof a->loss) && !memcmp(a->norm, b->norm, sizeof a->norm);

	for (int g = 0; g < LWM_CKPT_TRAINED; g++)
		same = same && !memcmp(a->last.v[g], b->last.v[g], (size_t)a->last.n * sizeof(float));
	return same;
}

/* Ten steps, stopped after the first. */
static struct trained train_mesh(const struct mesh_case *m, bool stopped, struct probe *first)
{
	struct lwm_err e = { 0 };
	struct trained y;
	struct lwm_stage s;
	char out[256];

	snprintf(out, sizeof out, "%s/%s-%d-%d-%d-%d", root, m->mesh, (int)m->kv_heads, m->shards, m->tie, stopped);
	stage_of(&s, out, m);
	if (stopped) {
		train_once(&s, m->ranks, 1);
		must(probe_step(first, out, 1, &e), &e);
	}
	train_once(&s, m->ranks, 0);
	lwm_stage_release(&s);
	y = read_run(out);
	must(lwm_remove_tree(out, &e), &e);
	return y;
}

/* What one rank makes of it. */
struct model {
	struct trained run;
	struct probe first;
};

static struct model train_alone(int64_t kv_heads, bool tie)
{
	struct mesh_case one = { "1,1,1,1", 1, kv_heads, false, tie };
	struct model y;

	y.run = train_mesh(&one, true, &y.first);
	return y;
}

static void free_model(struct model *y)
{
	probe_free(&y->run.last);
	probe_free(&y->first);
}

/* As on one rank; and on the same mesh again, undisturbed, the same bits. */
static void check_mesh(const struct mesh_case *m, const struct model *want)
{
	struct probe first;
	struct trained got = train_mesh(m, true, &first), again = train_mesh(m, false, NULL);

	compare_gradients(m->mesh, &first, &want->first);
	compare_runs(m->mesh, &got, &want->run);
	if (!same_bits(&got, &again))
		fail_msg("%s: other bits when it is repeated", m->mesh);
	probe_free(&first);
	probe_free(&got.last);
	probe_free(&again.last);
}

/* Each axis alone, each pair, three and all four: every mesh of up to eight ranks that these rows and heads can be dealt to, and
 * one of sixteen. */
static void every_mesh_trains_as_one_rank(void **state)
{
	struct model want = train_alone(2, false);
	int meshes = 0;

	(void)state;
	for (int code = 0; code < 4096; code++) {
		int dp = 1 + code / 512, fsdp = 1 + code / 64 % 8, tp = 1 + code / 8 % 8, sp = 1 + code % 8;
		int ranks = dp * fsdp * tp * sp;
		char mesh[32];

		if (ROWS % (dp * fsdp) || HEADS % tp || FX_SEQ % (2 * sp) || ranks == 1 || (ranks > 8 && code != 512 + 64 + 8 + 1))
			continue;
		snprintf(mesh, sizeof mesh, "%d,%d,%d,%d", dp, fsdp, tp, sp);
		check_mesh(&(struct mesh_case){ mesh, ranks, 2, fsdp > 1, false }, &want);
		meshes++;
	}
	assert_int_equal(meshes, 45);
	free_model(&want);
}

/* Weights that are cut over sp alone; key heads of which a rank has one, or shares one; a head that is the embedding. */
static void other_ways_to_share_train_as_one_rank(void **state)
{
	static const struct mesh_case cases[] = {
		{ "1,1,1,4", 4, 2, true, false }, { "2,1,1,2", 4, 2, true, false }, { "1,1,2,2", 4, 2, true, false },
		{ "1,1,4,2", 8, 4, false, true }, { "1,2,4,1", 8, 1, true, true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct model want = train_alone(cases[i].kv_heads, cases[i].tie);

		check_mesh(&cases[i], &want);
		free_model(&want);
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
	struct model want = train_alone(2, false);
	struct trained got;
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
	compare_runs("moved", &got, &want.run);
	printf("T9: %d moves of one run from mesh to mesh, compared with one that stayed\n", N - 1);
	probe_free(&got.last);
	free_model(&want);
}

static int set_up(void **state)
{
	(void)state;
	return folder_of("test_train_mesh", TEXT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_mesh_trains_as_one_rank),
		cmocka_unit_test(other_ways_to_share_train_as_one_rank),
		cmocka_unit_test(a_run_moves_between_meshes),
	};

	return cmocka_run_group_tests(tests, set_up, folder_gone);
}
