/* test_train_adapt.c - stages of which some tensors are frozen, some have a learning rate of their own, and which keep an average
 * of their weights (threads as ranks): on meshes of every axis, stopped and resumed, refused, planned. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include <fnmatch.h>

#include "common/base/log.h"
#include "common/base/path.h"
#include "common/comm/device.h"
#include "common/model/llama.h"
#include "tests/unit/train_folder.h"
#include "tests/unit/train_probe.h"

enum { STEPS = 6 };
static const double decay = 0.4; /* reached at the sixth update: (1 + 5) / (10 + 5) */

struct mesh_case {
	const char *mesh;
	int ranks;
	bool shards;
};

static void stage_of(struct lwm_stage *s, const char *name, const struct mesh_case *m, char *out, size_t size)
{
	struct lwm_err e = { 0 };
	snprintf(out, size, "%s/%s", root, name);
	must(fx_stage(s, rows, out, &e), &e);
	s->steps = STEPS;
	s->checkpoint_every = 1;
	s->keep = 100;
	s->mesh_dim = m->mesh;
	s->shard_weights = m->shards ? LWM_SHARD_TRUE : LWM_SHARD_AUTO;
	s->train_only = "*self_attn*,*norm*";
	s->freeze = "model.layers.0.*norm*";
	s->lr_factors = "*q_proj*=0.5,*layers.1.*norm*=4";
	s->ema = decay;
}

/* By hand. */
static bool trains(const char *name)
{
	return (strstr(name, "self_attn") || strstr(name, "norm")) &&
	       !(strstr(name, "layers.0.") && strstr(name, "norm"));
}

static int train_on(struct lwm_stage *s, int ranks, int64_t stop_after, struct lwm_err *e)
{
	s->stop_after = stop_after;
	return lwm_comm_threads(ranks, run_on, s, e);
}

/* A group of a checkpoint, tensors end to end. */
static float *group_of(const char *out, int64_t step, int g, int64_t *n)
{
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	char *dir = lwm_ckpt_dir(out, step);
	must(lwm_ckpt_open(&c, dir, &e), &e);
	*n = 0;
	for (int64_t i = 0; i < lwm_ckpt_count(c); i++)
		*n += lwm_ckpt_size(c, i);
	float *v = malloc((size_t)*n * sizeof *v);
	must(probe_group(c, g, v, &e), &e);
	lwm_ckpt_close(c);
	free(dir);
	return v;
}

static void make_model(struct lwm_tensors *t)
{
	struct lwm_llama_cfg c = { .vocab_text = FX_VOCAB, .dim = 32, .ffn = 48, .layers = 2, .heads = 4, .kv_heads = 2,
				   .max_seq = FX_SEQ, .rope_theta = 1e4, .rms_eps = 1e-6, .init_std = 0.02,
				   .tie_embeddings = true };
	assert_int_equal(lwm_llama_tensors(t, &c, NULL), 0);
}

/* ---- what trains, and what does not ---- */

/* average: by hand, from the one before. */
static void check_tensor(const char *name, int64_t step, const struct lwm_tensor *t, float *const v[LWM_CKPT_GROUPS],
			 const float *start, double *average)
{
	double rest = 1 - fmin(decay, (1 + (double)step) / (10 + (double)step));
	int64_t moved = 0, moments = 0;
	for (int64_t i = t->offset; i < t->offset + t->count; i++) {
		double w = (double)v[LWM_CKPT_PARAMS][i], got = (double)v[LWM_CKPT_EMA][i];
		moved += v[LWM_CKPT_PARAMS][i] != start[i];
		moments += v[LWM_CKPT_ADAM_M][i] != 0 || v[LWM_CKPT_ADAM_V][i] != 0;
		average[i] += rest * (w - average[i]);
		if (trains(t->name) ? !(fabs(got - average[i]) <= 1e-7 + 1e-6 * fabs(w)) : got != w)
			fail_msg("%s, step %d: the average of %s[%d] is %.9g, by hand %.9g", name, (int)step, t->name,
				 (int)(i - t->offset), got, average[i]);
	}
	if (trains(t->name) ? moved < t->count / 2 || moments < t->count / 2 : moved || moments)
		fail_msg("%s, step %d: %s: %d of %d values moved, %d have moments", name, (int)step, t->name, (int)moved,
			 (int)t->count, (int)moments);
}

/* Every step of a run. */
static void check_run(const char *name, const char *out)
{
	struct lwm_tensors t;
	make_model(&t);
	float *start = calloc((size_t)t.total, sizeof *start);
	double *average = calloc((size_t)t.total, sizeof *average);
	lwm_tensors_init(&t, 3, 0, t.total, start);
	for (int64_t i = 0; i < t.total; i++)
		average[i] = (double)start[i];
	for (int64_t step = 1; step <= STEPS; step++) {
		float *v[LWM_CKPT_GROUPS];
		int64_t n;
		for (int g = 0; g < LWM_CKPT_GROUPS; g++)
			v[g] = group_of(out, step, g, &n);
		assert_int_equal(n, t.total);
		for (int64_t i = 0; i < t.n; i++)
			check_tensor(name, step, &t.list[i], v, start, average);
		for (int g = 0; g < LWM_CKPT_GROUPS; g++)
			free(v[g]);
	}
	free(start);
	free(average);
	lwm_tensors_release(&t);
}

static double apart(const float *a, const float *b, int64_t n)
{
	double d = 0, s = 0;
	for (int64_t i = 0; i < n; i++) {
		d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
		s += (double)b[i] * (double)b[i];
	}
	return sqrt(d / s);
}

static const struct mesh_case meshes[] = { { "1,1,1,1", 1, false }, { "2,1,1,1", 2, false }, { "1,2,1,1", 2, true },
					   { "1,1,2,1", 2, false }, { "1,1,1,2", 2, false }, { "1,1,1,2", 2, true },
					   { "2,2,1,1", 4, true },  { "1,2,2,1", 4, true },  { "4,1,1,1", 4, false } };
enum { MESHES = sizeof meshes / sizeof *meshes };

static void what_is_frozen_stays_on_any_mesh(void **state)
{
	float *want[LWM_CKPT_GROUPS] = { NULL };
	(void)state;
	for (int i = 0; i < MESHES; i++) {
		char out[256], name[32];
		struct lwm_err e = { 0 };
		struct lwm_stage s;
		int64_t n;
		snprintf(name, sizeof name, "frozen%d", i);
		stage_of(&s, name, &meshes[i], out, sizeof out);
		if (train_on(&s, meshes[i].ranks, 0, &e) < 0)
			fail_msg("%s: %s", meshes[i].mesh, e.msg);
		lwm_stage_release(&s);
		check_run(meshes[i].mesh, out);
		for (int g = 0; g < LWM_CKPT_GROUPS; g++) {
			float *got = group_of(out, STEPS, g, &n);
			if (i && !(apart(got, want[g], n) < 2e-4))
				fail_msg("%s: %s differs by %g", meshes[i].mesh, lwm_ckpt_group_names[g], apart(got, want[g], n));
			if (i)
				free(got);
			else
				want[g] = got;
		}
	}
	for (int g = 0; g < LWM_CKPT_GROUPS; g++)
		free(want[g]);
}

/* Adam's steps are as long as the rate: of the first update, without weight decay, each value goes as far as it may. */
static void a_rate_of_its_own(void **state)
{
	char out[256];
	struct lwm_err e = { 0 };
	struct lwm_tensors t;
	struct lwm_stage s;
	int64_t n;
	(void)state;
	stage_of(&s, "rates", &meshes[0], out, sizeof out);
	s.steps = 1;
	s.adamw.weight_decay = 0;
	s.schedule.warmup_steps = 0;
	must(train_on(&s, 1, 0, &e), &e);
	make_model(&t);
	float *start = calloc((size_t)t.total, sizeof *start), *got = group_of(out, 1, LWM_CKPT_PARAMS, &n);
	lwm_tensors_init(&t, 3, 0, t.total, start);
	for (int64_t k = 0; k < t.n; k++) {
		const struct lwm_tensor *q = &t.list[k];
		double factor = strstr(q->name, "q_proj") ? 0.5 : fnmatch("*layers.1.*norm*", q->name, 0) == 0 ? 4 : 1, most = 0;
		for (int64_t i = q->offset; trains(q->name) && i < q->offset + q->count; i++)
			most = fmax(most, fabs((double)got[i] - (double)start[i]));
		if (trains(q->name) && !(fabs(most - factor * s.schedule.lr) <= 0.01 * factor * s.schedule.lr))
			fail_msg("%s went %g, not %g times %g", q->name, most, factor, s.schedule.lr);
	}
	lwm_stage_release(&s);
	lwm_tensors_release(&t);
	free(start);
	free(got);
}

/* ---- resumed ---- */

static void same_groups(const char *a, const char *b, const char *what)
{
	for (int g = 0; g < LWM_CKPT_GROUPS; g++) {
		int64_t n, m;
		float *x = group_of(a, STEPS, g, &n), *y = group_of(b, STEPS, g, &m);
		assert_int_equal(n, m);
		if (memcmp(x, y, (size_t)n * sizeof *x))
			fail_msg("%s: '%s' is not that of the run that was not stopped", what, lwm_ckpt_group_names[g]);
		free(x);
		free(y);
	}
}

/* Stopped twice; canonical: each part of the run on another mesh. behind: saves from a copy. */
static void stop_and_go(const struct mesh_case *m, const struct mesh_case *then, int order, int behind, const char *name)
{
	char out[2][256], names[2][64];
	struct lwm_err e = { 0 };
	for (int stopped = 0; stopped < 2; stopped++) {
		struct lwm_stage s;
		snprintf(names[stopped], sizeof names[stopped], "%s-%d", name, stopped);
		for (int part = 0; part < (stopped ? 3 : 1); part++) {
			const struct mesh_case *x = part % 2 ? then : m;
			stage_of(&s, names[stopped], x, out[stopped], sizeof out[stopped]);
			s.sum_order = order;
			s.save_behind = behind;
			lwm_next_token_of(&s)->micro_rows = 1;
			int rc = train_on(&s, x->ranks, stopped && part < 2 ? 2 : 0, &e);
			if (rc != (stopped && part < 2 ? -LWM_ESAVED : 0))
				fail_msg("%s, part %d: %d, %s", name, part, rc, e.msg);
			lwm_stage_release(&s);
		}
	}
	same_groups(out[1], out[0], name);
}

static void a_run_that_is_stopped_is_the_same(void **state)
{
	char name[32];
	(void)state;
	for (int i = 0; i < MESHES; i++) {
		snprintf(name, sizeof name, "stop%d", i);
		stop_and_go(&meshes[i], &meshes[i], LWM_SUM_MESH, i % 2 ? LWM_BEHIND_FALSE : LWM_BEHIND_TRUE, name);
	}
	stop_and_go(&meshes[0], &meshes[6], LWM_SUM_CANONICAL, LWM_BEHIND_TRUE, "moves0");
	stop_and_go(&meshes[6], &meshes[8], LWM_SUM_CANONICAL, LWM_BEHIND_FALSE, "moves1");
	stop_and_go(&meshes[2], &meshes[0], LWM_SUM_CANONICAL, LWM_BEHIND_TRUE, "moves2");
}

/* ---- refused ---- */

static void refused(struct lwm_stage *s, int code, const char *words)
{
	struct lwm_err e = { 0 };
	int rc = train_on(s, 1, 0, &e);
	if (rc != -code || !strstr(e.msg, words))
		fail_msg("%d, '%s', not '%s'", rc, e.msg, words);
}

static void contradictions_are_refused(void **state)
{
	char out[256];
	struct lwm_err e = { 0 };
	struct lwm_stage s;
	(void)state;
	stage_of(&s, "none", &meshes[0], out, sizeof out);
	s.freeze = "model.layers.7.*";
	refused(&s, LWM_ECONFIG, "--freeze: 'model.layers.7.*' matches no tensor");
	s.freeze = "*=,";
	refused(&s, LWM_EUSAGE, "--freeze");
	s.freeze = NULL;
	s.ema = 0;
	must(train_on(&s, 1, 2, &e) == -LWM_ESAVED ? 0 : -1, &e);
	s.freeze = "*o_proj*";
	refused(&s, LWM_ECONFIG, "--allow-change freeze");
	s.freeze = NULL;
	s.lr_factors = NULL;
	refused(&s, LWM_ECONFIG, "--allow-change lr-factors");
	s.lr_factors = "*q_proj*=0.5,*layers.1.*norm*=4";
	s.ema = decay;
	refused(&s, LWM_ECONFIG, "holds no average of the weights, which --ema 0.4 wants");
	lwm_stage_release(&s);
}

/* ---- planned ---- */

static double memory_of(const struct lwm_stage *s, int ranks, const char *kind)
{
	struct lwm_err e = { 0 };
	struct lwm_str text = { 0 };
	must(lwm_stage_plan(s, ranks, true, &text, &e), &e);
	json_t *plan = json_loads(lwm_str_get(&text), 0, NULL);
	const json_t *memory = json_object_get(plan, "memory"), *of = json_object_get(memory, kind) ? memory : plan;
	double n = json_number_value(json_object_get(of, kind));
	json_decref(plan);
	lwm_str_release(&text);
	return n;
}

/* Each group in two halves, the first a multiple of 16: what trains of the half that has most, likewise. */
static int64_t most_of_halves(const struct lwm_tensors *t)
{
	int64_t has[2] = { 0, 0 };
	for (int64_t g = 0; g <= t->list[t->n - 1].group; g++) {
		struct lwm_group all = lwm_tensors_group(t, g);
		int64_t half = ((all.count + 1) / 2 + 15) / 16 * 16;
		for (int64_t i = 0; i < all.count; i++)
			has[i >= half] += trains(lwm_tensors_at(t, all.offset + i)->name);
	}
	return ((has[0] > has[1] ? has[0] : has[1]) + 15) / 16 * 16;
}

static void moments_of_what_trains_are_planned(void **state)
{
	struct lwm_err e = { 0 };
	struct lwm_tensors t;
	struct lk_dev *dev;
	struct lwm_stage s;
	char out[256];
	int64_t n = 0;
	(void)state;
	make_model(&t);
	for (int64_t i = 0; i < t.n; i++)
		n += trains(t.list[i].name) ? t.list[i].count : 0;
	stage_of(&s, "plan", &meshes[0], out, sizeof out);
	s.planning = true;
	must(lwm_device_open(&dev, "cpu", 1, &e), &e);
	assert_true(n > 0 && n < t.params);
	assert_true(memory_of(&s, 1, "trained_parameters") == (double)n);
	int64_t one = lk_mem_own(dev, (n + 15) / 16 * 16 * 4);
	assert_true(memory_of(&s, 1, "moments") == (double)(2 * one));
	assert_true(memory_of(&s, 1, "average") == (double)one);
	assert_true(memory_of(&s, 1, "checkpoint_bytes") == (double)(16 * t.params));
	assert_true(memory_of(&s, 1, "copy") >= (double)(t.total * 4 + 3 * n * 4));
	assert_true(memory_of(&s, 1, "copy") < (double)(t.total * 4 + 3 * n * 4 + 1024 + 4 * t.n * 64));
	lwm_stage_release(&s);
	stage_of(&s, "plan", &meshes[8], out, sizeof out); /* four replicas: a quarter of each stretch of neighbours */
	s.planning = true;
	double most = memory_of(&s, 4, "moments");
	if (!(most >= 8 * (double)n / 4 && most <= 2 * (double)lk_mem_own(dev, (n / 4 + 16 * t.n) * 4)))
		fail_msg("%g bytes of moments on each of four ranks, %d values train", most, (int)n);
	lwm_stage_release(&s);
	stage_of(&s, "plan", &meshes[2], out, sizeof out);
	s.planning = true;
	assert_true(memory_of(&s, 2, "moments") == (double)(2 * lk_mem_own(dev, most_of_halves(&t) * 4)));
	lwm_stage_release(&s);
	lk_dev_close(dev);
	lwm_tensors_release(&t);
}

static int set_up(void **state)
{
	(void)state;
	return folder_of("test_train_adapt", FX_VOCAB);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(what_is_frozen_stays_on_any_mesh), cmocka_unit_test(a_rate_of_its_own),
					    cmocka_unit_test(a_run_that_is_stopped_is_the_same),
					    cmocka_unit_test(contradictions_are_refused),
					    cmocka_unit_test(moments_of_what_trains_are_planned) };
	return cmocka_run_group_tests(tests, set_up, folder_gone);
}
