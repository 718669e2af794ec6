/* test_clips.c - objectives over clips of patches: which clips a step sees; stages of them on several ranks, resumed, and started
 * from each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/log.h"
#include "common/comm/device.h"
#include "common/media/augment.h"
#include "common/media/picture.h"
#include "common/train/clips.h"
#include "common/train/start.h"
#include "tests/unit/train_probe.h"

/* ---- stages ---- */

enum { CLIPS = 24, BATCH = 8, STEPS = 6, PIXELS = 16 };
static char root[128], media[160];

/* Clips of two frames: a square of its own place and colour. */
static int make_clips(struct lwm_err *e)
{
	static uint8_t rgb[2 * PIXELS * PIXELS * 3];

	for (int k = 0; k < CLIPS; k++) {
		char path[256];

		for (int i = 0; i < 2 * PIXELS * PIXELS; i++) {
			int t = i / (PIXELS * PIXELS), x = i % PIXELS, y = i / PIXELS % PIXELS;
			bool in = abs(x - 3 - k % 5 * 2 - t) < 3 && abs(y - 3 - k / 5 * 2) < 3;

			for (int c = 0; c < 3; c++)
				rgb[i * 3 + c] = (uint8_t)(in ? 40 + k * (31 + 20 * c) % 200 : 120);
		}
		snprintf(path, sizeof path, "%s/c%02d.mp4", media, k);
		LWM_TRY(lwm_video_write(path, rgb, 2, PIXELS, PIXELS, 4, false, e));
	}
	return 0;
}

static int set_up(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	lwm_log_init("test_clips", LWM_ERROR);
	snprintf(root, sizeof root, "/tmp/lwm-test-clips-%ld", (long)getpid());
	snprintf(media, sizeof media, "%s/media", root);
	LWM_TRY(lwm_mkdirs(media, &e));
	return make_clips(&e);
}

static int tear_down(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	return lwm_remove_tree(root, &e);
}

static int find_objective(const char *name)
{
	int i = 0;

	while (lwm_objective_names[i] && strcmp(lwm_objective_names[i], name))
		i++;
	assert_non_null(lwm_objective_names[i]);
	return i;
}

static void *value_of(struct lwm_stage *s, const char *option)
{
	struct lwm_setting_at all[LWM_SETTINGS_MAX];
	int n = lwm_settings_list(s, all), i = 0;

	while (i < n && (!all[i].set->opt.name || strcmp(all[i].set->opt.name, option)))
		i++;
	assert_true(i < n);
	return all[i].value;
}

static void set_text(struct lwm_stage *s, const char *option, const char *text)
{
	*(const char **)value_of(s, option) = text;
}

static void set_double(struct lwm_stage *s, const char *option, double value)
{
	*(double *)value_of(s, option) = value;
}

static void set_int(struct lwm_stage *s, const char *option, int64_t value)
{
	*(int64_t *)value_of(s, option) = value;
}

/* The objective contrastive whose keys are of a copy of the weights, with a queue of two steps. */
static const char with_queue[] = "contrastive with a queue";
enum { QUEUE = 2 * BATCH };
#define MOMENTUM 0.9

/* out: a folder of root. */
static void stage_of(struct lwm_stage *s, const char *objective, char out[160], const char *name)
{
	struct lwm_err e = { 0 };

	snprintf(out, 160, "%s/%s", root, name);
	must(fx_stage(s, media, out, &e), &e);
	if (!strcmp(objective, with_queue)) {
		objective = "contrastive";
		set_double(s, "momentum", MOMENTUM);
		set_int(s, "queue", QUEUE);
	}
	s->objective = find_objective(objective);
	s->frames.size = PIXELS;
	s->frames.patch = 8;
	s->frames.clip = 2;
	s->frames.patch_frames = strcmp(objective, "next-frame") && strcmp(objective, "diffusion") ? 2 : 1;
	set_text(s, "clean-odds", "1,2");
	s->frames.batch = BATCH;
	s->frames.holdout = 6;
	s->steps = STEPS;
	lwm_next_token_of(s)->init_std = 0.1;
}

static void train(struct lwm_stage *s, int ranks, int want)
{
	struct lwm_err e = { 0 };
	int rc = lwm_comm_threads(ranks, run_on, s, &e);

	if (rc != want)
		fail_msg("%d, expected %d: %s", rc, want, e.msg);
}

static void losses_of(const char *out, double loss[STEPS])
{
	assert_int_equal(fx_losses(out, loss, STEPS), STEPS);
}

static const char *const objectives[] = { "contrastive", "masked", "next-frame", "diffusion", with_queue };
enum { OBJECTIVES = sizeof objectives / sizeof *objectives };

/* Of the one evaluation of a run. */
static double eval_of(const char *out)
{
	json_t *x = probe_events(out, "eval");
	double loss = json_array_size(x) == 1 ? probe_number(x, 0, "loss") : NAN;

	json_decref(x);
	return loss;
}

/* Weights whole and cut, clips in parts: ranks that share weights judge as many, though clips do not divide among them. */
static void any_number_of_ranks(void **state)
{
	static const struct {
		int ranks;
		const char *mesh;
		int64_t at_once;
		int shards;
	} t[] = { { 2, "2,1,1,1", 0, LWM_SHARD_AUTO }, { 4, "1,4,1,1", 0, LWM_SHARD_TRUE },  { 4, "2,2,1,1", 1, LWM_SHARD_TRUE },
		  { 1, "1,1,1,1", 3, LWM_SHARD_AUTO }, { 2, "1,2,1,1", 0, LWM_SHARD_FALSE }, { 2, "1,2,1,1", 1, LWM_SHARD_TRUE } };

	(void)state;
	for (int k = 0; k < OBJECTIVES; k++) {
		char out[160];
		double one[STEPS], many[STEPS], judged;
		struct lwm_stage s;

		stage_of(&s, objectives[k], out, "one");
		s.eval_rows = 3;
		train(&s, 1, 0);
		losses_of(out, one);
		judged = eval_of(out);
		lwm_stage_release(&s);
		for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
			char name[32];

			snprintf(name, sizeof name, "many-%d-%zu", k, i);
			stage_of(&s, objectives[k], out, name);
			s.mesh_dim = t[i].mesh;
			s.frames.at_once = t[i].at_once;
			s.shard_weights = objectives[k] == with_queue ? LWM_SHARD_AUTO : t[i].shards;
			s.eval_rows = 3;
			train(&s, t[i].ranks, 0);
			losses_of(out, many);
			lwm_stage_release(&s);
			/* views are judged in batches that are not the same */
			if (k && !(fabs(eval_of(out) - judged) <= 1e-4 * fabs(judged)))
				fail_msg("%s on %s: judged %.9g, by one rank %.9g", objectives[k], t[i].mesh, eval_of(out), judged);
			for (int j = 0; j < STEPS; j++)
				if (!(fabs(many[j] - one[j]) <= 1e-4 * fabs(one[j])))
					fail_msg("%s on %s, step %d: %.9g, on one rank %.9g", objectives[k], t[i].mesh, j, many[j], one[j]);
		}
		assert_true(one[STEPS - 1] != one[0]);
		struct lwm_err e = { 0 };
		snprintf(out, sizeof out, "%s/one", root);
		must(lwm_remove_tree(out, &e), &e);
	}
}

/* Stopped after any step and started again: the same bits, and the same evaluation. */
static void resumed(void **state)
{
	(void)state;
	for (int k = 0; k < OBJECTIVES; k++) {
		char whole[160], parts[160], name[32];
		double a[STEPS], b[STEPS];
		struct lwm_hash ha, hb;
		struct lwm_err e = { 0 };
		struct lwm_stage s;

		snprintf(name, sizeof name, "whole-%d", k);
		stage_of(&s, objectives[k], whole, name);
		train(&s, 1, 0);
		lwm_stage_release(&s);
		for (int stop = 2; stop >= 0; stop -= 2) {
			snprintf(name, sizeof name, "parts-%d", k);
			stage_of(&s, objectives[k], parts, name);
			s.stop_after = stop;
			train(&s, 1, stop ? -LWM_ESAVED : 0);
			lwm_stage_release(&s);
		}
		losses_of(whole, a);
		losses_of(parts, b);
		assert_memory_equal(a, b, sizeof a);
		must(fx_state(whole, &ha, &e), &e);
		must(fx_state(parts, &hb, &e), &e);
		assert_string_equal(ha.hex, hb.hex);
		json_t *x = probe_events(whole, "eval"), *y = probe_events(parts, "eval");
		assert_true(json_array_size(x) == 1 && probe_number(x, 0, "loss") == probe_number(y, 0, "loss"));
		assert_true(json_is_true(json_object_get(json_array_get(x, 0), "held_out")));
		json_decref(x);
		json_decref(y);
	}
}

/* Untrained, what an evaluation says depends on the clips that are held out. And the two views of a clip are two. */
static void what_is_judged(void **state)
{
	(void)state;
	for (int k = 0; k < OBJECTIVES; k++) {
		double loss[2], found = 0;

		for (int j = 0; j < 2; j++) {
			char out[160], name[32], path[256];
			struct lwm_err e = { 0 };
			struct lwm_stage s;

			snprintf(name, sizeof name, "judged-%d-%d", k, j);
			stage_of(&s, objectives[k], out, name);
			for (int i = 0; i < 4; i++) {
				snprintf(path, sizeof path, "%s/c%02d.mp4", media, 10 * j + i);
				must(lwm_paths_add(&s.eval_data, path, &e), &e);
			}
			s.schedule.lr = 0;
			train(&s, 1, 0);
			lwm_stage_release(&s);
			json_t *eval = probe_events(out, "eval"), *steps = probe_events(out, "step");
			loss[j] = probe_number(eval, 0, "loss");
			for (size_t i = 0; i < STEPS; i++)
				found += probe_number(steps, i, "found") / STEPS / 2;
			json_decref(eval);
			json_decref(steps);
		}
		assert_true(loss[0] != loss[1]);
		assert_true((k > 0 && objectives[k] != with_queue) || found < 0.99);
	}
}

/* Each epoch has each clip once but for the rest; another order in the next. */
static void which_clips(void **state)
{
	struct lwm_clips c = { .n = 19, .cache = { .one = 3 } };
	struct lwm_stage s = { .seed = 4, .frames = { .batch = 4 } };
	uint8_t frames[3 * 19];
	int64_t first[19];
	int last[2][16], seen[2][19] = { { 0 } };

	(void)state;
	for (int i = 0; i < 19; i++)
		first[i] = i;
	c.first = first;
	c.cache.frames = frames;
	for (int64_t step = 0; step < 8; step++)
		for (int64_t i = 0; i < 4; i++) {
			int clip = (int)((lwm_clips_at(&c, &s, step, i) - frames) / 3);

			assert_true(clip >= 0 && clip < 19);
			assert_int_equal(seen[step / 4][clip]++, 0);
			last[step / 4][step % 4 * 4 + i] = clip;
		}
	assert_memory_not_equal(last[0], last[1], sizeof last[0]);
	assert_true(lwm_clips_to_judge(&c) == 19 && lwm_clips_held(&c, 2) == frames + 3 * 2); /* none is held out */
	c.n = 15;
	c.held = 4;
	assert_true(lwm_clips_to_judge(&c) == 4 && lwm_clips_held(&c, 2) == frames + 3 * 17);
}

/* ---- checkpoints ---- */

static const float *tensor_of(const struct probe *p, struct lwm_ckpt *c, const char *name, int64_t *n)
{
	int64_t i = lwm_ckpt_find(c, name), at = 0;

	assert_true(i >= 0);
	for (int64_t k = 0; k < i; k++)
		at += p->size[k];
	*n = p->size[i];
	return p->v[0] + at;
}

static struct lwm_ckpt *ckpt_of(const char *out, int64_t step)
{
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	char *dir = lwm_ckpt_dir(out, step);

	must(lwm_ckpt_open(&c, dir, &e), &e);
	free(dir);
	return c;
}

/* Of each tensor that has one, the copy after another step, of the copy before (NULL: it is the same). */
static void check_copy(const struct probe *now, const struct probe *before, struct lwm_ckpt *c)
{
	int copies = 0;

	for (int64_t i = 0; i < lwm_ckpt_count(c); i++) {
		char name[256];
		int64_t n, same;

		snprintf(name, sizeof name, "momentum.%s", lwm_ckpt_tensor(c, i)->name);
		if (lwm_ckpt_find(c, name) < 0)
			continue;
		const float *of = tensor_of(now, c, lwm_ckpt_tensor(c, i)->name, &n), *copy = tensor_of(now, c, name, &same);
		const float *was = before ? tensor_of(before, c, name, &same) : of;
		assert_int_equal(n, same);
		for (int64_t k = 0; k < n; k++) {
			double want = MOMENTUM * (double)was[k] + (1 - MOMENTUM) * (double)of[k];

			if (before ? fabs((double)copy[k] - want) > 1e-6 * (1 + fabs(want)) : copy[k] != of[k])
				fail_msg("%s [%d] is %.9g, expected %.9g", name, (int)k, (double)copy[k], want);
		}
		assert_true(!before || memcmp(was, copy, (size_t)n * sizeof *was)); /* it moves */
		copies++;
	}
	assert_int_equal(copies, 2 * 9 + 2 + 3);
}

/* Rows of the queue that the step to `now` has changed by more than the rounding of fp16, as bits; all are of length 1. */
static unsigned changed_rows(const struct probe *now, const struct probe *before, struct lwm_ckpt *c)
{
	int64_t n;
	const float *a = tensor_of(now, c, "momentum.queue", &n), *b = tensor_of(before, c, "momentum.queue", &n);
	unsigned bits = 0;

	for (int64_t row = 0, width = n / QUEUE; row < QUEUE; row++) {
		double sum = 0, change = 0;

		for (int64_t i = row * width; i < (row + 1) * width; i++) {
			sum += (double)a[i] * (double)a[i];
			change = fmax(change, fabs((double)(a[i] - b[i])));
		}
		assert_true(fabs(sum - 1) < 2e-3); /* in fp16 */
		if (change > 1e-3)
			bits |= 1u << row;
	}
	return bits;
}

/* Each update moves the copy, and brings a step's keys where the oldest ones are, on two ranks that share the state. What is
 * frozen is equal to its copy. Stages that start from such a checkpoint, with the same queue or another one or none, begin anew. */
static void a_copy_and_its_queue(void **state)
{
	char out[160], next[160], from[200];
	struct lwm_err e = { 0 };
	struct probe p[3], q;
	struct lwm_stage s;

	(void)state;
	stage_of(&s, with_queue, out, "queue");
	s.mesh_dim = "2,1,1,1";
	s.checkpoint_every = 1;
	s.steps = s.keep = 4;
	train(&s, 2, 0);
	lwm_stage_release(&s);
	must(probe_step(&p[0], out, 1, &e), &e);
	for (int step = 2; step <= 4; step++) {
		struct probe *now = &p[(step - 1) % 2], *before = &p[step % 2];
		struct lwm_ckpt *c = ckpt_of(out, step);

		must(probe_step(now, out, step, &e), &e);
		check_copy(now, before, c);
		assert_int_equal(changed_rows(now, before, c), step % 2 ? 0x00ff : 0xff00);
		lwm_ckpt_close(c);
		probe_free(before);
	}
	snprintf(from, sizeof from, "checkpoint:%s", out);
	for (int64_t queue = 0; queue <= 2 * QUEUE; queue += QUEUE) {
		stage_of(&s, with_queue, next, "begun");
		set_int(&s, "queue", queue);
		s.start_from = from;
		s.schedule.lr = 0;
		s.steps = 1;
		train(&s, 1, 0);
		lwm_stage_release(&s);
		struct lwm_ckpt *c = ckpt_of(next, 1);
		must(probe_step(&q, next, 1, &e), &e);
		check_copy(&q, NULL, c);
		assert_int_equal(lwm_ckpt_find(c, "momentum.queue") >= 0, queue > 0);
		if (queue == QUEUE) /* it is drawn anew, not taken over */
			assert_int_equal(changed_rows(&q, &p[1], c), 0xffff);
		lwm_ckpt_close(c);
		probe_free(&q);
		must(lwm_remove_tree(next, &e), &e);
	}
	probe_free(&p[1]);
}

/* With a scale of the loss that is too much at first: masters are apart from compute weights. */
static void stage_in_fp16(struct lwm_stage *s, char out[160], const char *name)
{
	stage_of(s, with_queue, out, name);
	s->checkpoint_every = 1;
	s->steps = s->keep = STEPS;
	s->dtype = LWM_DTYPE_FP16;
	s->scaling.first = 0x1p40;
	s->scaling.backoff = 0x1p-12;
}

/* A step that makes no update moves neither the copy nor the queue. In fp16. */
static void no_update_no_keys(void **state)
{
	char out[160], parts[160];
	struct lwm_err e = { 0 };
	struct lwm_hash ha, hb;
	struct probe a, b;
	struct lwm_stage s;

	(void)state;
	stage_in_fp16(&s, out, "skipped");
	train(&s, 1, 0);
	lwm_stage_release(&s);
	json_t *steps = probe_events(out, "step");
	int skipped = 0, made = 0;
	for (int i = 0; i < STEPS; i++) {
		bool skip = json_is_true(json_object_get(json_array_get(steps, (size_t)i), "overflow"));

		if (i > 0) {
			struct lwm_ckpt *c = ckpt_of(out, i + 1);

			must(probe_step(&a, out, i, &e), &e);
			must(probe_step(&b, out, i + 1, &e), &e);
			assert_int_equal(changed_rows(&b, &a, c), skip ? 0 : made % 2 ? 0xff00 : 0x00ff);
			assert_int_equal(!memcmp(a.v[0], b.v[0], (size_t)a.n * sizeof *a.v[0]), skip);
			probe_free(&a);
			probe_free(&b);
			lwm_ckpt_close(c);
		}
		skipped += skip;
		made += !skip;
	}
	json_decref(steps);
	assert_true(skipped > 0 && made > 2);
	for (int stop = 4; stop >= 0; stop -= 4) { /* and after two updates it goes on from what was saved */
		stage_in_fp16(&s, parts, "skipped-parts");
		s.stop_after = stop;
		train(&s, 1, stop ? -LWM_ESAVED : 0);
		lwm_stage_release(&s);
	}
	must(fx_state(out, &ha, &e), &e);
	must(fx_state(parts, &hb, &e), &e);
	assert_string_equal(ha.hex, hb.hex);
}

/* ---- one trunk ---- */

/* A language model that begins with what was learned on clips: all layers and the last norm are those, nothing else is. */
static void a_language_model_from_clips(void **state)
{
	char clips[160], out[160], rows[160], from[200];
	struct lwm_err e = { 0 };
	struct probe a, b;
	struct lwm_stage s;
	int taken = 0;

	(void)state;
	stage_of(&s, "contrastive", clips, "clips");
	train(&s, 1, 0);
	lwm_stage_release(&s);
	snprintf(rows, sizeof rows, "%s/rows.h5", root);
	snprintf(out, sizeof out, "%s/text", root);
	snprintf(from, sizeof from, "checkpoint:%s", clips);
	must(fx_rows(rows, &e), &e);
	must(fx_stage(&s, rows, out, &e), &e);
	s.steps = 1;
	s.schedule.lr = 0;
	s.start_from = from;
	assert_int_equal(lwm_comm_threads(1, run_on, &s, &e), -LWM_ECONFIG); /* it is no language model */
	assert_non_null(strstr(e.msg, "trunk-checkpoint:"));
	snprintf(from, sizeof from, "trunk-checkpoint:%s", clips);
	lwm_next_token_of(&s)->heads = lwm_next_token_of(&s)->kv_heads = 2; /* matrices of the same shape, but another model */
	lwm_err_clear(&e);
	assert_int_equal(lwm_comm_threads(1, run_on, &s, &e), -LWM_ECONFIG);
	if (!strstr(e.msg, "--heads 4"))
		fail_msg("%s", e.msg);
	lwm_next_token_of(&s)->heads = 4;
	lwm_next_token_of(&s)->kv_heads = 2;
	lwm_next_token_of(&s)->layers = 1;
	assert_int_equal(lwm_comm_threads(1, run_on, &s, &e), -LWM_ECONFIG);
	lwm_next_token_of(&s)->layers = 2;
	/* nor would its second layer be left out in silence where nobody compares sizes */
	struct lwm_start start = { .source = from + strlen("trunk-"), .trunk = true };
	struct lwm_llama_cfg less;
	struct lwm_tensors t;
	must(lwm_llama_preset(&less, "nano", &e), &e);
	less.layers = 1;
	must(lwm_llama_tensors(&t, &less, &e), &e);
	lwm_err_clear(&e);
	assert_int_equal(lwm_start_look(&start, false, NULL, &t, &e), -LWM_ECONFIG);
	lwm_tensors_release(&t);
	train(&s, 1, 0);
	must(probe_step(&a, clips, STEPS, &e), &e);
	must(probe_step(&b, out, 1, &e), &e);
	struct lwm_ckpt *ca = ckpt_of(clips, STEPS), *cb = ckpt_of(out, 1);
	for (int64_t i = 0; i < lwm_ckpt_count(cb); i++) {
		const char *name = lwm_ckpt_tensor(cb, i)->name;
		const float *x, *y = tensor_of(&b, cb, name, &(int64_t){ 0 });
		int64_t n;

		if (lwm_ckpt_find(ca, name) < 0)
			continue;
		x = tensor_of(&a, ca, name, &n);
		assert_memory_equal(x, y, (size_t)n * sizeof *x);
		taken++;
	}
	assert_int_equal(taken, 2 * 9 + 1);
	lwm_ckpt_close(ca);
	lwm_ckpt_close(cb);
	probe_free(&a);
	probe_free(&b);
	lwm_stage_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(which_clips), cmocka_unit_test(any_number_of_ranks), cmocka_unit_test(resumed),
		cmocka_unit_test(what_is_judged),
		cmocka_unit_test(a_copy_and_its_queue), cmocka_unit_test(no_update_no_keys),
		cmocka_unit_test(a_language_model_from_clips),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
