/* Weights that ranks hold in common: a bit that flips in one rank's memory is found, with rank, host and tensor, and nothing is
 * saved.
 *
 * objectives.c is replaced at link time, as in test_train_guards: the step of the real objective is wrapped, and flips a bit where
 * the script says so. Ranks are threads. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/comm/device.h"
#include "common/train/own.h"
#include "common/train/replicas.h"
#include "common/train/save.h"
#include "common/train/supply.h"
#include "tests/unit/train_folder.h"
#include "tests/unit/train_probe.h"

enum { FLIPS = 60 /* of each mesh */ };

static char here[LWM_REPLICAS_HOST];

/* ---- an objective whose step flips a bit ---- */

static struct {
	int64_t step; /* from 0; -1 never */
	int rank, bit;
	const char *tensor; /* the first whose name has this in it */
	char name[128];     /* that one */
} script;

static struct lwm_objective_type wrapped; /* lwm_objective_next_token, with another step */
const char *const lwm_objective_names[] = { "next-token", NULL };
const struct lwm_objective_type *const lwm_objectives[] = { &wrapped, NULL };

static void flip(void *weights, int64_t i, int bit)
{
	unsigned char *p = (unsigned char *)weights + i * 4 + bit / 8;

	*p = (unsigned char)(*p ^ 1u << bit % 8);
}

static int step(struct lwm_objective *o, int64_t at, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	struct lwm_group first = lwm_tensors_group(&o->local, 0);
	struct lwm_supplied all;

	LWM_TRY(lwm_objective_next_token.step(o, at, w, sums, e));
	if (at != script.step || lwm_comm_rank(o->mesh->world) != script.rank)
		return 0;
	LWM_TRY(lwm_supply_acquire(w, &first, LWM_WEIGHTS, &all, 0, e)); /* flat: all weights */
	lwm_supply_release(w, &first);
	for (int64_t i = 0; i < o->local.n; i++)
		if (strstr(o->local.list[i].name, script.tensor)) {
			snprintf(script.name, sizeof script.name, "%s", o->local.list[i].name);
			flip((void *)(uintptr_t)all.w, o->local.list[i].offset + 3, script.bit);
			return 0;
		}
	return lwm_fail(e, LWM_EINTERNAL, "no tensor '%s'", script.tensor);
}

/* ---- any bit of any rank, on any mesh ---- */

struct trial {
	const char *mesh;
	int ranks;
	int64_t kv_heads;
	bool shards;
	int named, both, alone; /* flips: rank named; named together with the only other one; held by that rank only */
};

/* How many ranks hold what this one holds of a tensor, worked out from the mesh by hand. */
static int holders(const struct trial *t, const struct lwm_mesh *m, const char *name)
{
	int tp = m->dim[LWM_TP], n = m->dim[LWM_DP] * (t->shards ? 1 : m->dim[LWM_FSDP] * m->dim[LWM_SP]);

	if (strstr(name, "norm"))
		return n * tp;
	if ((strstr(name, "k_proj") || strstr(name, "v_proj")) && tp > t->kv_heads)
		return n * tp / (int)t->kv_heads;
	return n;
}

/* What the check must say of a flip in `victim`. */
static int judge_flip(struct trial *t, const struct lwm_replicas *r, const char *name, int victim, bool noted, int held, int rc,
		      const struct lwm_err *said, struct lwm_err *e)
{
	char quoted[160], rank[96];
	bool first = lwm_comm_rank(r->w->ranks) == 0;

	snprintf(quoted, sizeof quoted, "'%s'", name);
	snprintf(rank, sizeof rank, "rank %d on %s", victim, here);
	if (held == 1 && !noted) {
		t->alone += first;
		return rc == 0 ? 0 : lwm_fail(e, LWM_ENO, "%s: nobody else has %s: '%s'", t->mesh, name, said->msg);
	}
	if (rc != -LWM_ENUMERIC || !strstr(said->msg, quoted) || !strstr(said->msg, rank) || !strstr(said->msg, "step 7:"))
		return lwm_fail(e, LWM_ENO, "%s: %s of rank %d: %d, '%s'", t->mesh, name, victim, rc, said->msg);
	if (held == 2 && !noted) {
		t->both += first;
		return strstr(said->msg, "cannot be told") ? 0 : lwm_fail(e, LWM_ENO, "%s: of two: '%s'", t->mesh, said->msg);
	}
	t->named += first;
	return r->rank == victim && !strcmp(r->host, here) && !strstr(said->msg, "cannot be told") ? 0 :
		       lwm_fail(e, LWM_ENO, "%s: rank %d named instead of %d: '%s'", t->mesh, r->rank, victim, said->msg);
}

/* One flip, found or not, and taken back. */
static int try_flip(struct trial *t, struct lwm_replicas *r, const struct lwm_mesh *m, int64_t k, struct lwm_err *e)
{
	struct lwm_rng g = lwm_rng_at(11, LWM_RNG_TEST, 0, (uint64_t)k);
	int victim = (int)lwm_rng_below(&g, t->ranks), bit = (int)lwm_rng_below(&g, 32);
	bool noted = lwm_rng_below(&g, 3) == 0, mine = lwm_comm_rank(m->world) == victim;
	struct lwm_own own = lwm_own_of(r->o, &r->w->cut, victim);
	int64_t place = lwm_rng_below(&g, r->w->cut.local), from, n, at;
	struct lwm_err said = { 0 };
	const char *name = NULL;

	own.cut = lwm_cut_alone(&own.cut);
	for (int64_t i = 0; i < r->o->local.n; i++)
		if (lwm_cut_own(&own.cut, &r->o->local.list[i], &from, &n, &at) && place >= at && place < at + n)
			name = r->o->local.list[i].name;
	if (noted)
		LWM_TRY(lwm_agree(m->world, lwm_replicas_note(r, e), e));
	if (mine)
		flip(r->w->compute, place, bit);
	int rc = lwm_replicas_check(r, 7, &said);
	if (mine)
		flip(r->w->compute, place, bit);
	if (!name) /* padding, which nobody reads */
		rc = rc == 0 ? 0 : lwm_fail(e, LWM_ENO, "%s: padding: '%s'", t->mesh, said.msg);
	else
		rc = judge_flip(t, r, name, victim, noted, holders(t, m, name), rc, &said, e);
	return lwm_agree(m->world, rc, e);
}

static int flip_many(struct trial *t, const struct lwm_stage *s, struct lwm_comm *c, struct lwm_err *e)
{
	struct lwm_mesh m = { .world = c };
	struct lk_dev *dev = NULL;
	struct lwm_objective *o = NULL;
	struct lwm_stage_supply w = { .supply = NULL };
	struct lwm_replicas r = { .rank = -1 };
	int rc;

	LWM_GO(lwm_agree(c, lwm_device_open(&dev, "cpu", 1, e), e));
	LWM_GO(lwm_mesh_new(&m, t->mesh, c, e));
	LWM_GO(lwm_mesh_attach(&m, dev, e));
	LWM_GO(lwm_agree(c, lwm_objective_open(&o, lwm_objectives[0], s, &m, dev, e), e));
	LWM_GO(lwm_supply_open(&w, o, &m, e));
	LWM_GO(lwm_stage_start(o, &w.w, e));
	LWM_GO(lwm_agree(c, lwm_replicas_open(&r, o, &w.w, e), e));
	LWM_GO(lwm_replicas_check(&r, 1, e)); /* in good health */
	LWM_GO(lwm_replicas_note(&r, e));
	LWM_GO(lwm_replicas_check(&r, 2, e));
	for (int64_t k = 0; k < FLIPS; k++)
		LWM_GO(try_flip(t, &r, &m, k, e));
	LWM_GO(lwm_replicas_check(&r, 3, e));
out:
	lwm_replicas_close(&r);
	lwm_mesh_detach(&m);
	lwm_objective_free(o);
	lwm_supply_close(&w);
	lk_dev_close(dev);
	lwm_mesh_release(&m);
	return rc;
}

struct flipping {
	struct trial *t;
	struct lwm_stage s;
};

static int flip_on_rank(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct flipping *f = arg;

	return flip_many(f->t, &f->s, c, e);
}

static void any_bit_of_any_rank(void **state)
{
	static struct trial trials[] = {
		{ "2,1,1,1", 2, 2, false, 0, 0, 0 }, { "4,1,1,1", 4, 2, false, 0, 0, 0 }, { "1,1,1,2", 2, 2, false, 0, 0, 0 },
		{ "1,3,1,1", 3, 2, false, 0, 0, 0 }, { "1,2,1,1", 2, 2, true, 0, 0, 0 },  { "2,2,1,1", 4, 2, true, 0, 0, 0 },
		{ "3,1,1,2", 6, 2, true, 0, 0, 0 },  { "1,1,2,1", 2, 2, false, 0, 0, 0 }, { "1,1,4,1", 4, 2, false, 0, 0, 0 },
		{ "2,1,2,1", 4, 2, false, 0, 0, 0 }, { "1,2,4,1", 8, 1, true, 0, 0, 0 },
	};
	int flips = 0, named = 0, both = 0, alone = 0;

	(void)state;
	script.step = -1;
	for (size_t i = 0; i < sizeof trials / sizeof *trials; i++) {
		struct flipping f = { .t = &trials[i] };
		struct lwm_err e = { 0 };
		char out[256];

		snprintf(out, sizeof out, "%s/flips%zu", root, i);
		must(fx_stage(&f.s, rows, out, &e), &e);
		f.s.mesh_dim = trials[i].mesh;
		f.s.shard_weights = trials[i].shards ? LWM_SHARD_TRUE : LWM_SHARD_FALSE;
		lwm_next_token_of(&f.s)->kv_heads = trials[i].kv_heads;
		lwm_next_token_of(&f.s)->micro_rows = 1;
		lwm_next_token_of(&f.s)->tokens_per_batch = FX_SEQ * 12;
		must(lwm_comm_threads(trials[i].ranks, flip_on_rank, &f, &e), &e);
		lwm_stage_release(&f.s);
		flips += FLIPS;
		named += trials[i].named;
		both += trials[i].both;
		alone += trials[i].alone;
	}
	printf("N3: %d flips: %d named, %d of two ranks named with the other, %d in what one rank alone holds\n", flips, named, both,
	       alone);
	assert_true(named > 150 && both > 50 && alone > 50);
}

/* ---- a whole run ---- */

static void stage_of(struct lwm_stage *s, const char *name, char *out, size_t size)
{
	struct lwm_err e = { 0 };

	snprintf(out, size, "%s/%s", root, name);
	must(fx_stage(s, rows, out, &e), &e);
	lwm_next_token_of(s)->micro_rows = 1;
	s->checkpoint_every = 4;
	s->keep = 10;
	script.step = -1;
	script.rank = 1;
	script.bit = 2;
	script.tensor = "down_proj";
}

/* The last line of its history. */
static json_t *last_line(const char *out)
{
	char path[512], *text, *p;
	struct lwm_err e = { 0 };
	size_t n;

	snprintf(path, sizeof path, "%s/history.jsonl", out);
	must(lwm_read_file(path, 1 << 24, &text, &n, &e), &e);
	assert_true(n > 1 && text[n - 1] == '\n');
	text[n - 1] = 0;
	p = strrchr(text, '\n');
	json_t *o = json_loads(p ? p + 1 : text, 0, NULL);
	free(text);
	assert_non_null(o);
	return o;
}

static bool has_step(const char *out, int64_t at)
{
	char *dir = lwm_ckpt_dir(out, at);
	bool is = lwm_path_exists(dir);

	free(dir);
	return is;
}

/* Ended with 79, rank and tensor named, and the newest checkpoint is that of `newest`. */
static void ends(struct lwm_stage *s, int ranks, const char *out, int64_t newest, bool sure)
{
	struct lwm_err e = { 0 };
	char rank[96];
	int rc = lwm_comm_threads(ranks, run_on, s, &e);

	snprintf(rank, sizeof rank, "rank %d on %s", script.rank, here);
	if (rc != -LWM_ENUMERIC || !strstr(e.msg, script.name) || !strstr(e.msg, rank))
		fail_msg("%s: %d, '%s', expected %s and %s", s->mesh_dim, rc, e.msg, script.name, rank);
	for (int64_t at = newest + 1; at <= s->steps; at++)
		assert_false(has_step(out, at));
	assert_true(newest == 0 || has_step(out, newest));
	json_t *end = last_line(out);
	assert_string_equal(json_string_value(json_object_get(end, "event")), "end");
	assert_int_equal(json_integer_value(json_object_get(end, "code")), LWM_ENUMERIC);
	assert_string_equal(json_string_value(json_object_get(end, "host")), here);
	if (sure)
		assert_int_equal(json_integer_value(json_object_get(end, "rank")), script.rank);
	assert_non_null(strstr(json_string_value(json_object_get(end, "why")), script.name));
	json_decref(end);
}

/* In a step that is looked at the rank itself sees that its memory changed, also of two. */
static void in_a_step_that_is_looked_at(void **state)
{
	static const struct {
		const char *mesh;
		int ranks;
	} m[] = { { "2,1,1,1", 2 }, { "1,1,1,2", 2 }, { "1,1,2,1", 2 }, { "2,1,2,1", 4 }, { "4,1,1,1", 4 } };
	struct lwm_stage s;
	char name[32], out[256];

	(void)state;
	for (size_t i = 0; i < sizeof m / sizeof *m; i++) {
		snprintf(name, sizeof name, "looked%zu", i);
		stage_of(&s, name, out, sizeof out);
		s.mesh_dim = m[i].mesh;
		s.check_replicas = 3;
		script.step = 5; /* the sixth */
		ends(&s, m[i].ranks, out, 4, true);
		lwm_stage_release(&s);
	}
}

/* What tensor-parallel ranks have in common stays different, and is found before the next save. */
static void before_a_save(void **state)
{
	struct lwm_stage s;
	char out[256];

	(void)state;
	stage_of(&s, "save", out, sizeof out);
	s.mesh_dim = "1,1,2,1";
	s.check_replicas = 1000;
	script.step = 5;
	script.tensor = "norm";
	ends(&s, 2, out, 4, false); /* not that of step 8 */
	lwm_stage_release(&s);
}

/* Without the check the same flip passes, and the run is another one than it would be: nothing else here finds it. */
static void off(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	struct probe p[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		char name[32], out[256];

		snprintf(name, sizeof name, "off%d", i);
		stage_of(&s, name, out, sizeof out);
		s.mesh_dim = "2,1,1,1";
		s.check_replicas = i ? 0 : 1;
		script.step = i ? 5 : -1;
		script.bit = 22;
		script.tensor = "layers.1.mlp.down_proj"; /* rank 1 owns it, and hands it on */
		must(lwm_comm_threads(2, run_on, &s, &e), &e);
		must(probe_step(&p[i], out, s.steps, &e), &e);
		lwm_stage_release(&s);
	}
	assert_int_equal(p[0].n, p[1].n);
	assert_true(memcmp(p[0].v[0], p[1].v[0], (size_t)p[0].n * sizeof(float)) != 0);
	probe_free(&p[0]);
	probe_free(&p[1]);
}

/* And where nothing flips the check finds nothing, and changes nothing: the run is bit for bit that without it. */
static void in_good_health(void **state)
{
	static const struct {
		const char *mesh;
		int ranks;
		bool shards;
	} m[] = { { "3,1,1,1", 3, false }, { "1,1,1,2", 2, false }, { "2,2,1,1", 4, true }, { "1,1,4,1", 4, false },
		  { "1,2,2,1", 4, true },  { "2,1,2,1", 4, false } };
	struct lwm_stage s;
	struct lwm_err e = { 0 };

	(void)state;
	for (size_t k = 0; k < sizeof m / sizeof *m; k++) {
		struct probe p[2];

		for (int i = 0; i < 2; i++) {
			char name[32], out[256];

			snprintf(name, sizeof name, "health%zu-%d", k, i);
			stage_of(&s, name, out, sizeof out);
			s.mesh_dim = m[k].mesh;
			s.shard_weights = m[k].shards ? LWM_SHARD_TRUE : LWM_SHARD_FALSE;
			s.check_replicas = i;
			lwm_next_token_of(&s)->tokens_per_batch = FX_SEQ * 12;
			must(lwm_comm_threads(m[k].ranks, run_on, &s, &e), &e);
			must(probe_step(&p[i], out, s.steps, &e), &e);
			lwm_stage_release(&s);
		}
		for (int g = 0; g < LWM_CKPT_TRAINED; g++)
			assert_memory_equal(p[0].v[g], p[1].v[g], (size_t)p[0].n * sizeof(float));
		probe_free(&p[0]);
		probe_free(&p[1]);
	}
}

static int set_up(void **state)
{
	(void)state;
	wrapped = lwm_objective_next_token;
	wrapped.step = step;
	gethostname(here, sizeof here - 1);
	return folder_of("test_replicas", FX_VOCAB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_bit_of_any_rank), cmocka_unit_test(in_a_step_that_is_looked_at),
		cmocka_unit_test(before_a_save),       cmocka_unit_test(off),
		cmocka_unit_test(in_good_health),
	};

	return cmocka_run_group_tests(tests, set_up, folder_gone);
}
