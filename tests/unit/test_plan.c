/* What a plan says that ranks send is what their communicators count in a step, on meshes of every axis; its kinds of memory add
 * up; its time follows from rates as plan_time.c says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/log.h"
#include "common/comm/device.h"
#include "common/train/plan_int.h"
#include "common/train/save.h"
#include "common/train/supply.h"
#include "tests/unit/train_probe.h"

enum { ROWS = 8, WAYS = 4 };
static const char *const ways[WAYS] = { "tp", "ring", "shards", "replicas" };
static char root[128], rows[160];

/* Full rows of one document and all its targets, as plans take them. */
static int write_rows(struct lwm_err *e)
{
	struct lwm_rows_meta m = { .seq = FX_SEQ + 1, .vocab_text = FX_VOCAB, .tokenizer = "", .tool = "test", .config = "",
				   .weighting = "per_token" };
	struct lwm_rows_writer *w;

	LWM_TRY(lwm_rows_create(&w, rows, &m, true, e));
	for (int32_t r = 0; r < ROWS; r++) {
		struct lwm_segment seg = { .len = FX_SEQ + 1, .doc = -1 };
		int32_t tok[FX_SEQ + 1];
		int rc;

		for (int32_t t = 0; t <= FX_SEQ; t++)
			tok[t] = (5 * r + t) % FX_VOCAB;
		rc = lwm_rows_append(w, tok, &seg, 1, NULL, 0, e);
		if (rc < 0) {
			lwm_rows_discard(w);
			return rc;
		}
	}
	return lwm_rows_commit(w, e);
}

static int set_up(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	lwm_log_init("test_plan", LWM_ERROR);
	snprintf(root, sizeof root, "/tmp/lwm-test-plan-%ld", (long)getpid());
	snprintf(rows, sizeof rows, "%s/rows.h5", root);
	return lwm_mkdirs(root, &e) < 0 || write_rows(&e) < 0;
}

static int tear_down(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	return lwm_remove_tree(root, &e);
}

/* ---- bytes ---- */

struct mesh_case {
	const char *mesh;
	int ranks;
	bool shards, no_recompute;
	int64_t micro_rows, layers, ahead;
	int scatter, layout;
	bool canonical;
	const char *lora, *only;
};

static void stage_of(struct lwm_stage *s, const struct mesh_case *m)
{
	struct lwm_err e = { 0 };
	struct lwm_next_token *n;

	must(fx_stage(s, rows, root, &e), &e);
	n = lwm_next_token_of(s);
	s->model = "7b"; /* its head is a table of its own */
	s->mesh_dim = m->mesh;
	s->shard_weights = m->shards ? LWM_SHARD_TRUE : LWM_SHARD_FALSE;
	s->scatter = m->scatter;
	s->gather_ahead = m->ahead;
	s->lora = m->lora;
	s->train_only = m->only;
	s->lora_rank = 4;
	s->sum_order = m->canonical ? LWM_SUM_CANONICAL : LWM_SUM_MESH;
	n->layers = m->layers;
	n->micro_rows = m->micro_rows;
	n->no_recompute = m->no_recompute;
	n->ring_layout = m->layout;
}

/* The plan of a stage, as JSON; to be released. */
static json_t *plan_of(const struct lwm_stage *s, int ranks)
{
	struct lwm_str out = { 0 };
	struct lwm_err e = { 0 };
	json_t *y;

	must(lwm_stage_plan(s, ranks, true, &out, &e), &e);
	y = json_loads(lwm_str_get(&out), 0, NULL);
	if (!y)
		fail_msg("no JSON: %s", lwm_str_get(&out));
	lwm_str_release(&out);
	return y;
}

static double number(const json_t *o, const char *group, const char *key)
{
	const json_t *in = group ? json_object_get(o, group) : o, *v = json_object_get(in, key);

	if (!json_is_number(v))
		fail_msg("the plan has no %s", key);
	return json_number_value(v);
}

/* All ranks together, of the groups' communicators, those of the ways first; a group that has those of another is counted with that
 * one. Canonical sums go over all ranks that have gradients: where weights are cut a plan counts them to the shards. */
enum { GROUPS = WAYS + 1, SHARDS = 2, REPLICAS = 3, ALL = 4 };
struct counted {
	const struct lwm_stage *s;
	double sent[GROUPS];
	int same[GROUPS];
};

static int step_once(struct lwm_objective *o, struct lwm_stage_supply *w, struct lwm_mesh *m, int64_t step, struct lwm_err *e)
{
	double sums[LWM_SUMS] = { 0 }, norm;

	LWM_TRY(lwm_agree(m->world, lwm_supply_begin(w, e), e));
	LWM_TRY(lwm_agree(m->world, o->type->step(o, step, w->supply, sums, e), e));
	LWM_TRY(lwm_weights_reduce(&w->w, &o->local, 1, &norm, e));
	LWM_TRY(lwm_weights_gather_moved(&w->w, e));
	lwm_supply_changed(w);
	return 0;
}

static int count_step(struct lwm_comm *world, void *arg, struct lwm_err *e)
{
	struct counted *c = arg;
	struct lwm_objective *o = NULL;
	struct lwm_stage_supply w = { .supply = NULL };
	struct lk_dev *dev = NULL;
	struct lwm_mesh m;
	double sent[GROUPS];
	int rc;

	LWM_TRY(lwm_mesh_new(&m, c->s->mesh_dim, world, e));
	int group[GROUPS] = { LWM_TP, LWM_SP, LWM_SHARD, LWM_DP, LWM_GRAD };

	LWM_GO(lwm_agree(world, lwm_device_open(&dev, "cpu", 1, e), e));
	LWM_GO(lwm_mesh_attach(&m, dev, e));
	LWM_GO(lwm_agree(world, lwm_objective_open(&o, lwm_objectives[c->s->objective], c->s, &m, dev, e), e));
	LWM_GO(lwm_supply_open(&w, o, &m, e));
	LWM_GO(lwm_stage_start(o, &w.w, e));
	LWM_GO(lwm_agree(world, o->type->attach(o, w.supply, e), e));
	if (w.cut.shards == 1) {
		group[SHARDS] = LWM_TP; /* nothing is sent to shards */
		group[REPLICAS] = LWM_GRAD;
	}
	LWM_GO(step_once(o, &w, &m, 0, e));
	for (int i = 0; i < GROUPS; i++)
		sent[i] = -(double)lwm_comm_sent(m.comm[group[i]]);
	LWM_GO(step_once(o, &w, &m, 1, e));
	for (int i = 0; i < GROUPS; i++)
		sent[i] += (double)lwm_comm_sent(m.comm[group[i]]);
	LWM_GO(lwm_comm_sum_f64(world, sent, GROUPS, e));
	if (lwm_comm_rank(world) == 0)
		for (int i = 0; i < GROUPS; i++) {
			c->sent[i] = sent[i];
			for (c->same[i] = 0; m.comm[group[c->same[i]]] != m.comm[group[i]];)
				c->same[i]++;
		}
out:
	lwm_mesh_detach(&m);
	lwm_objective_free(o);
	lwm_supply_close(&w);
	lk_dev_close(dev);
	lwm_mesh_release(&m);
	return rc;
}

static void sent_as_planned(void **state)
{
	static const struct mesh_case cases[] = {
		{ "2,1,1,1", 2, false, false, 2, 2, 1, 0, LWM_RING_BALANCED, false, NULL, NULL },
		{ "1,2,1,1", 2, true, false, 2, 3, 1, 0, LWM_RING_BALANCED, false, NULL, NULL },
		{ "1,4,1,1", 4, true, true, 1, 4, 2, 1, LWM_RING_BALANCED, false, NULL, NULL },
		{ "2,2,1,1", 4, true, false, 1, 3, 0, 0, LWM_RING_BALANCED, false, NULL, NULL },
		{ "1,1,2,1", 2, false, false, 2, 2, 1, 0, LWM_RING_BALANCED, false, NULL, NULL },
		{ "1,1,4,1", 4, false, true, 2, 2, 1, 0, LWM_RING_BALANCED, false, NULL, NULL },
		{ "1,1,1,2", 2, false, false, 2, 2, 1, 0, LWM_RING_BALANCED, false, NULL, NULL },
		{ "1,1,1,8", 8, false, false, 2, 2, 1, 0, LWM_RING_ZIGZAG, false, NULL, NULL },
		{ "1,1,1,4", 4, false, true, 4, 2, 1, 0, LWM_RING_STRIPED, false, NULL, NULL },
		{ "1,1,1,4", 4, true, false, 2, 3, 1, 0, LWM_RING_BALANCED, false, NULL, NULL },
		{ "2,1,1,2", 4, false, false, 2, 2, 1, 0, LWM_RING_BALANCED, false, NULL, NULL },
		{ "1,2,2,1", 4, true, false, 2, 2, 1, 1, LWM_RING_BALANCED, false, NULL, NULL },
		{ "2,2,2,1", 8, true, true, 1, 3, 1, 0, LWM_RING_BALANCED, false, NULL, NULL },
		{ "1,2,2,2", 8, true, false, 2, 3, 1, 0, LWM_RING_BALANCED, false, NULL, NULL },
		{ "2,1,2,2", 8, false, false, 1, 2, 1, 0, LWM_RING_CONTIGUOUS, false, NULL, NULL },
		{ "2,1,1,1", 2, false, false, 1, 2, 1, 0, LWM_RING_BALANCED, true, NULL, NULL },
		{ "1,4,1,1", 4, true, false, 1, 3, 1, 0, LWM_RING_BALANCED, true, NULL, NULL },
		{ "2,2,1,1", 4, true, true, 2, 3, 0, 0, LWM_RING_BALANCED, true, NULL, NULL },
		{ "4,2,1,1", 8, false, false, 1, 2, 1, 0, LWM_RING_BALANCED, true, NULL, NULL },
		{ "2,1,1,1", 2, false, false, 1, 2, 1, 0, LWM_RING_BALANCED, false, "*q_proj*", NULL },
		{ "1,2,1,1", 2, true, false, 1, 3, 1, 0, LWM_RING_BALANCED, false, "*q_proj*,*down*", NULL },
		{ "2,2,1,1", 4, true, false, 2, 3, 1, 0, LWM_RING_BALANCED, false, "*_proj*", NULL },
		{ "4,1,1,1", 4, false, false, 1, 2, 1, 0, LWM_RING_BALANCED, false, NULL, "*self_attn*" },
		{ "4,1,1,1", 4, false, false, 2, 2, 1, 0, LWM_RING_BALANCED, true, NULL, "*self_attn*,*norm*" },
		{ "1,2,1,1", 2, true, false, 2, 3, 1, 0, LWM_RING_BALANCED, false, NULL, "*layers.1.*" },
		{ "1,2,1,1", 2, true, false, 2, 3, 1, 0, LWM_RING_BALANCED, true, NULL, "*layers.1.*" },
		{ "2,2,1,1", 4, true, false, 1, 3, 1, 0, LWM_RING_BALANCED, false, NULL, "*mlp*" },
		{ "2,2,1,1", 4, true, false, 1, 3, 1, 0, LWM_RING_BALANCED, false, "*q_proj*", "*lora*" },
		{ "4,1,1,1", 4, false, false, 1, 2, 1, 0, LWM_RING_BALANCED, false, "*down*,*k_proj*", "*lora*" },
		{ "1,1,2,1", 2, false, false, 1, 2, 1, 0, LWM_RING_BALANCED, false, "*down*,*k_proj*", "*lora*" },
		{ "1,2,2,1", 4, true, false, 1, 2, 1, 0, LWM_RING_BALANCED, false, "*_proj*", "*lora*" },
		{ "2,1,1,1", 2, false, false, 1, 2, 1, 0, LWM_RING_BALANCED, true, "*_proj*", "*lora*" },
		{ "1,2,1,1", 2, true, false, 1, 3, 1, 0, LWM_RING_BALANCED, true, "*_proj*", NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct mesh_case *m = &cases[i];
		struct lwm_err e = { 0 };
		struct lwm_stage s;
		struct counted c = { .s = &s };
		double want[WAYS] = { 0 };
		json_t *plan;

		stage_of(&s, m);
		plan = plan_of(&s, m->ranks);
		if (lwm_comm_threads(m->ranks, count_step, &c, &e))
			fail_msg("%s: %s", m->mesh, e.msg);
		for (int w = 0; w < WAYS; w++)
			want[c.same[w]] += m->ranks * number(plan, "sent_per_step", ways[w]);
		if (c.same[ALL] == ALL)
			c.sent[c.same[SHARDS]] += c.sent[ALL];
		for (int w = 0; w < WAYS; w++)
			if (c.same[w] == w && fabs(want[w] - c.sent[w]) > 0.5)
				fail_msg("%s, shards %d: %s: %.1f bytes by plan, %.1f sent", m->mesh, m->shards, ways[w], want[w],
					 c.sent[w]);
		json_decref(plan);
		lwm_stage_release(&s);
	}
}

/* ---- memory, time ---- */

static void kinds_add_up(void **state)
{
	static const char *const mesh[] = { "1,1,1,1", "2,2,2,1", "1,2,2,2", "4,1,1,2" };

	(void)state;
	for (int i = 0; i < 8; i++) {
		struct mesh_case m = { mesh[i % 4], i % 4 ? 8 : 1, i % 4 != 3, false, 1, 2, 1, 0, LWM_RING_BALANCED, false, NULL,
				       NULL };
		double sum = 0, weights = 0;
		struct lwm_stage s;
		const char *key;
		json_t *plan, *v;

		if (i % 4 == 0)
			m.shards = false;
		stage_of(&s, &m);
		s.plan_gib = i < 4 ? 0 : 8;
		s.ema = i % 3 ? 0 : 0.9;
		plan = plan_of(&s, m.ranks);
		json_object_foreach(json_object_get(plan, "memory"), key, v) {
			sum += json_number_value(v);
			if (!strcmp(key, "weights") || !strcmp(key, "gathered") || !strcmp(key, "gradients") ||
			    !strcmp(key, "moments") || !strcmp(key, "average"))
				weights += json_number_value(v);
		}
		assert_true(sum == number(plan, NULL, "bytes_per_rank"));
		assert_true(weights == number(plan, NULL, "bytes_weights"));
		assert_true((s.ema > 0) == (number(plan, "memory", "average") > 0));
		assert_true(m.shards == (number(plan, "memory", "gathered") > 0));
		assert_true((m.mesh[6] == '2') == (number(plan, "memory", "ring") > 0));
		json_decref(plan);
		lwm_stage_release(&s);
	}
}

static double step_with(struct lwm_stage *s, double *rate, double value)
{
	double before = *rate, y;
	json_t *plan;

	*rate = value;
	plan = plan_of(s, 8);
	y = number(plan, NULL, "step_seconds");
	json_decref(plan);
	*rate = before;
	return y;
}

/* On a host nothing runs beside the arithmetic: each rate halved costs what it takes once more. */
static void time_by_rates(void **state)
{
	struct mesh_case m = { "1,2,2,2", 8, true, false, 2, 2, 1, 0, LWM_RING_BALANCED, false, NULL, NULL };
	struct lwm_stage s;
	json_t *plan;
	double step, sent = 0;

	(void)state;
	stage_of(&s, &m);
	plan = plan_of(&s, 8);
	assert_null(json_object_get(plan, "step_seconds")); /* nothing is known of this machine */
	json_decref(plan);
	s.rates = (struct lwm_rates){ .products = 0.001, .attention = 0.002, .memory = 0.3, .node = 0.04, .net = 0.04 };
	plan = plan_of(&s, 8);
	step = number(plan, NULL, "step_seconds");
	for (int w = 0; w < WAYS; w++)
		sent += number(plan, "sent_per_step", ways[w]);
	assert_float_equal(step_with(&s, &s.rates.products, 0.0005) - step, number(plan, "seconds", "products"), 1e-9);
	assert_float_equal(step_with(&s, &s.rates.attention, 0.001) - step, number(plan, "seconds", "attention"), 1e-9);
	assert_float_equal(step_with(&s, &s.rates.memory, 0.15) - step, number(plan, "seconds", "memory"), 1e-9);
	assert_float_equal(step_with(&s, &s.rates.node, 0.02) - step, sent / 0.04e9, 1e-9);
	assert_float_equal(number(plan, NULL, "rank_hours"), step * 12 * 8 / 3600, 1e-9);
	json_decref(plan);
	lwm_stage_release(&s);
}

/* Short documents are less to compute, to send, and to keep of what others sent. */
static void shorter_documents(void **state)
{
	struct mesh_case m = { "1,1,1,4", 4, false, false, 2, 2, 1, 0, LWM_RING_BALANCED, false, NULL, NULL };
	struct lwm_stage s;
	json_t *one, *many;

	(void)state;
	stage_of(&s, &m);
	s.rates = (struct lwm_rates){ .products = 0.001, .attention = 0.002, .memory = 0.3, .node = 0.04, .net = 0.04 };
	one = plan_of(&s, 4);
	s.plan_document = FX_SEQ / 4;
	many = plan_of(&s, 4);
	assert_true(number(many, "memory", "ring") < number(one, "memory", "ring"));
	assert_true(number(many, "sent_per_step", "ring") < number(one, "sent_per_step", "ring"));
	/* n (n + 1) / 2 pairs of each document */
	assert_float_equal(number(many, "seconds", "attention") / number(one, "seconds", "attention"),
			   (FX_SEQ / 4 + 1.0) / (FX_SEQ + 1.0), 1e-9);
	s.plan_gib = 8; /* a GPU's buffers are there for any rows */
	json_decref(one);
	one = plan_of(&s, 4);
	assert_true(number(one, "memory", "ring") > number(many, "memory", "ring"));
	json_decref(one);
	json_decref(many);
	lwm_stage_release(&s);
}

/* What leaves less than the margin fits barely. */
static void verdicts(void **state)
{
	static const struct {
		int64_t gib;
		const char *words;
		bool safe;
	} cases[] = { { 76, "fits, with 4.0 GiB to spare", true }, { 77, "fits barely, with 3.0 GiB to spare", false },
		      { 80, "fits barely, with 0 B to spare", false }, { 81, "does not fit: a rank needs more memory", false } };
	struct lwm_stage s = { .keep = 2 };

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct lwm_plan p = { .per_rank = cases[i].gib << 30, .device_free = (int64_t)80 << 30, .space = -1 };

		lwm_plan_judge(&p, &s, true);
		if (strncmp(p.verdict, cases[i].words, strlen(cases[i].words)))
			fail_msg("%d GiB of 80: %s", (int)cases[i].gib, p.verdict);
		assert_int_equal(p.code, cases[i].gib > 80 ? LWM_ECONFIG : 0);
		assert_true(lwm_plan_is_safe(&p) == cases[i].safe);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sent_as_planned),
		cmocka_unit_test(kinds_add_up),
		cmocka_unit_test(time_by_rates),
		cmocka_unit_test(shorter_documents),
		cmocka_unit_test(verdicts),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
