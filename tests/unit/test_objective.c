/* A new objective is its own file and a line of the table: here is one, and options, defaults, checks, plans, records, metrics,
 * checkpoints and resume have it. objectives.c is replaced at link time by the table below. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/train/objective.h"
#include "common/train/settings_record.h"
#include "tests/unit/train_probe.h"

/* ---- the objective: weights are drawn to a target, the loss is half the squared distance ---- */

struct pull { /* settings */
	double target;
	int64_t weights;
};

#define SET(field, rule, preset, ...) LWM_SETTING(struct pull, field, rule, preset, __VA_ARGS__)
static const struct lwm_setting settings[] = {
	LWM_SECTION("Pulling"),
	SET(target, LWM_FIXED | LWM_SHOWN, 2, LWM_OPT_DOUBLE(0, "target", NULL, -10, 10, "X", "where all weights go", 0)),
	LWM_SECTION("Model"),
	SET(weights, LWM_MODEL, 5, LWM_OPT_INT(0, "weights", NULL, 1, 100, "N", "how many", 0)),
	LWM_SETTINGS_END
};

struct puller {
	struct lwm_objective base;
	const struct pull *set;
};

static int check_settings(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	const struct pull *set = lwm_settings_of(s, settings);
	if (m->dim[LWM_SP] > 1)
		return lwm_fail(e, LWM_ECONFIG, "nothing here has a sequence");
	return set->weights % 2 ? 0 : lwm_fail(e, LWM_ECONFIG, "--weights %d is even", (int)set->weights);
}

static int open_objective(struct lwm_objective *o, struct lwm_err *e)
{
	struct puller *p = (struct puller *)o;
	p->set = lwm_settings_of(o->stage, settings);
	o->dtype = LK_F32;
	o->config = json_pack("{s:i}", "weights", (int)p->set->weights);
	if (!o->config)
		return lwm_fail(e, LWM_EMEMORY, "out of memory");
	LWM_TRY(lwm_tensors_add(&o->tensors, &(struct lwm_tensor){ .name = "pulled", .ndim = 1, .shape = { p->set->weights },
		.modality = LWM_MODALITIES, .trainable = true, .decays = true, .split = LWM_SPLIT_NONE }, e));
	o->tokenizer_hash = "";
	o->units_per_step = 3;
	return 0;
}

static int attach(struct lwm_objective *o, struct lwm_supply *w, struct lwm_err *e)
{
	(void)o;
	(void)w;
	(void)e;
	return 0;
}

static int step(struct lwm_objective *o, int64_t at, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	const struct puller *p = (struct puller *)o;
	struct lwm_group all = lwm_tensors_group(&o->tensors, 0);
	struct lwm_supplied mine;
	(void)at;
	LWM_TRY(lwm_supply_acquire(w, &all, LWM_WEIGHTS | LWM_GRADS, &mine, 0, e));
	for (int64_t i = 0; i < p->set->weights; i++) {
		double d = (double)((const float *)mine.w)[i] - p->set->target;
		mine.g[i] += (float)d;
		sums[1] += d * d / 2;
	}
	sums[0] += 1;
	lwm_supply_release(w, &all);
	return lwm_supply_grad_ready(w, &all, 0, e);
}

static int eval(struct lwm_objective *o, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	(void)o;
	(void)w;
	(void)e;
	sums[0] += 1;
	return 0;
}

static double norm(const double sums[LWM_SUMS])
{
	return sums[0];
}

static double render(struct lwm_objective *o, const double sums[LWM_SUMS], bool of_eval, struct lwm_str *json)
{
	(void)o;
	lwm_str_printf(json, ",\"held_out\":%s", of_eval ? "true" : "false");
	return sums[1] / sums[0];
}

static void close_objective(struct lwm_objective *o)
{
	(void)o;
}

static const struct lwm_objective_type pulling = {
	.kind = "puller", .unit = "pull", .settings = settings, .settings_size = sizeof(struct pull), .size = sizeof(struct puller),
	.check = check_settings, .open = open_objective, .attach = attach, .step = step, .eval = eval,
	.norm = norm, .render = render, .close = close_objective,
};

/* ---- its line ---- */

const char *const lwm_objective_names[] = { "next-token", "pulling", NULL };
const struct lwm_objective_type *const lwm_objectives[] = { &lwm_objective_next_token, &pulling, NULL };

/* ---- what follows from it ---- */

static char root[128], out[160];

static int set_up(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	lwm_log_init("test_objective", LWM_ERROR);
	snprintf(root, sizeof root, "/tmp/lwm-test-objective-%ld", (long)getpid());
	snprintf(out, sizeof out, "%s/run", root);
	return lwm_mkdirs(root, &e);
}

static int tear_down(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	return lwm_remove_tree(root, &e);
}

static struct pull *pull_of(const struct lwm_stage *s)
{
	return lwm_settings_of(s, settings);
}

static void stage(struct lwm_stage *s)
{
	struct lwm_err e = { 0 };
	must(lwm_stage_init(s, &e), &e);
	must(lwm_paths_add(&s->data, "anything", &e), &e);
	s->objective = 1;
	s->device = "cpu";
	s->threads = 1;
	s->out = out;
	s->steps = 20;
	s->schedule.lr = 0.5;
	s->schedule.warmup_steps = 0;
	s->adamw.weight_decay = 0;
	s->log_every = 1000;
	s->watchdog = 0;
}

static int find_option(const struct lwm_opt *o, enum lwm_opt_type type, const char *text)
{
	for (int i = 0; o[i].type != LWM_T_END; i++)
		if ((type == LWM_T_HEAD) == (o[i].type == LWM_T_HEAD) && !strcmp(type == LWM_T_HEAD ? o[i].help : o[i].name, text))
			return i;
	fail_msg("no '%s'", text);
	return -1;
}

/* Its own section comes after all others; what it adds to a common one, at the end of that. Values are stored in the stage. */
static void options(void **state)
{
	struct lwm_opt o[LWM_SETTINGS_MAX];
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	(void)state;
	must(lwm_stage_init(&s, &e), &e);
	lwm_settings_options(&s, o);
	int own = find_option(o, LWM_T_HEAD, "Pulling");
	assert_int_equal(find_option(o, LWM_T_DOUBLE, "target"), own + 1);
	assert_int_equal(o[own + 2].type, LWM_T_END);
	assert_int_equal(find_option(o, LWM_T_INT, "weights"), find_option(o, LWM_T_HEAD, "Schedule") - 1);
	/* where the common section says so, in the middle */
	assert_int_equal(find_option(o, LWM_T_CHOICE, "scatter"), find_option(o, LWM_T_CHOICE, "ring-layout") - 1);
	assert_int_equal(find_option(o, LWM_T_INT, "loss-mib"), find_option(o, LWM_T_INT, "plan-ranks") - 1);
	assert_ptr_equal(o[own + 1].dst, &pull_of(&s)->target);
	assert_ptr_equal(o[find_option(o, LWM_T_INT, "steps")].dst, &s.steps);
	assert_true(pull_of(&s)->target == 2 && pull_of(&s)->weights == 5);
	lwm_stage_release(&s);
}

static void refused(const struct lwm_stage *s, int ranks, int code, const char *part)
{
	struct lwm_str text = { 0 };
	struct lwm_err e[3] = { { 0 } };
	int rc[3] = { lwm_stage_check(s, ranks, &e[0]), lwm_stage_plan(s, ranks, false, &text, &e[1]),
		      lwm_comm_threads(ranks, run_on, (void *)(uintptr_t)s, &e[2]) };
	for (int i = 0; i < 3; i++)
		if (rc[i] != -code || !strstr(e[i].msg, part))
			fail_msg("%d: expected %d with '%s', got %d: %s", i, code, part, -rc[i], e[i].msg);
	lwm_str_release(&text);
}

/* Check, plan and run have the same judge. */
static void checks(void **state)
{
	struct lwm_stage s;
	(void)state;
	stage(&s);
	pull_of(&s)->weights = 6;
	refused(&s, 1, LWM_ECONFIG, "--weights 6 is even");
	pull_of(&s)->weights = 7;
	s.mesh_dim = "1,1,1,2";
	refused(&s, 2, LWM_ECONFIG, "nothing here has a sequence");
	s.mesh_dim = "1,1,1,1";
	s.eval_every = 2;
	refused(&s, 1, LWM_EUSAGE, "--eval-data");
	s.eval_every = 0;
	s.schedule.decay_steps = 1;
	s.schedule.warmup_steps = 1;
	refused(&s, 1, LWM_EUSAGE, "--decay-steps");
	lwm_stage_release(&s);
}

static void plan(void **state)
{
	struct lwm_str text = { 0 };
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	(void)state;
	stage(&s);
	must(lwm_stage_plan(&s, 1, true, &text, &e), &e);
	json_t *j = json_loads(lwm_str_get(&text), 0, NULL);
	assert_string_equal(json_string_value(json_object_get(j, "kind")), "puller");
	assert_int_equal(json_integer_value(json_object_get(j, "parameters")), 5);
	assert_int_equal(json_integer_value(json_object_get(j, "units_per_step")), 3);
	json_decref(j);
	lwm_str_release(&text);
	lwm_stage_release(&s);
}

/* Stopped half way and resumed on two ranks: it arrives, and the records know what it is. Another target is refused. */
static void runs(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	char dir[256];
	float w[5];
	(void)state;
	stage(&s);
	must(lwm_paths_add(&s.eval_data, "anything else", &e), &e);
	s.steps = 60;
	s.stop_after = 30;
	s.schedule.shape = LWM_LINEAR;
	assert_int_equal(lwm_comm_threads(1, run_on, &s, &e), -LWM_ESAVED);
	lwm_err_clear(&e);
	pull_of(&s)->target = 3;
	assert_int_equal(lwm_comm_threads(1, run_on, &s, &e), -LWM_ECONFIG);
	assert_non_null(strstr(e.msg, "target 3.0, was 2.0 (to go on with these: --allow-change target)"));
	lwm_err_clear(&e);
	pull_of(&s)->target = 2;
	s.stop_after = 0;
	must(lwm_comm_threads(2, run_on, &s, &e), &e);
	json_t *start = probe_events(out, "start"), *steps = probe_events(out, "step"), *held = probe_events(out, "eval");
	assert_int_equal(json_array_size(start), 2);
	assert_true(probe_number(start, 1, "target") == 2);
	assert_int_equal(json_array_size(steps), 60);
	assert_true(probe_number(steps, 59, "seen") == 180);
	assert_int_equal(json_array_size(held), 1);
	json_decref(start);
	json_decref(steps);
	json_decref(held);
	snprintf(dir, sizeof dir, "%s/step_00000060", out);
	must(lwm_ckpt_open(&c, dir, &e), &e);
	assert_string_equal(lwm_ckpt_get_meta(c)->kind, "puller");
	const json_t *record = json_object_get(lwm_ckpt_get_meta(c)->config, "stage");
	assert_true(json_number_value(json_object_get(record, "target")) == 2);
	assert_true(json_number_value(json_object_get(record, "theta")) == 10000); /* another objective's default */
	must(lwm_ckpt_read(c, LWM_CKPT_PARAMS, 0, 0, 5, w, &e), &e);
	for (int i = 0; i < 5; i++)
		assert_true(fabs((double)w[i] - 2) < 0.1);
	lwm_ckpt_close(c);
	lwm_stage_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(options), cmocka_unit_test(checks), cmocka_unit_test(plan),
					    cmocka_unit_test(runs) };
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
