/* Checkpoints: any cut over ranks reads back as the same tensors; unfinished and damaged ones are never taken. */
#include "tests/unit/ckpt_fixture.h"
#include "tests/unit/tensor_table.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/base/path.h"
#include "common/base/rng.h"
#include "common/io/inspect.h"
#include "common/io/merge.h"

/* 1: every value is right, 0: refused cleanly. A wrong value fails the test. */
static int try_read(const char *dir, int64_t step)
{
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	static float got[LONG];
	int rc = lwm_ckpt_open(&c, dir, &e);
	for (int64_t t = 0; rc == 0 && t < TENSORS; t++) {
		for (int g = 0; rc == 0 && g < 3; g++) {
			rc = lwm_ckpt_read(c, (enum lwm_ckpt_group)g, t, 0, sizes[t], got, &e);
			for (int64_t i = 0; rc == 0 && i < sizes[t]; i++)
				if (got[i] != value(g, t, i, step))
					fail_msg("wrong value of tensor %d at %d", (int)t, (int)i);
		}
	}
	lwm_ckpt_close(c);
	assert_true(rc == 0 || (e.msg[0] && rc == -LWM_EDATA));
	return rc == 0;
}

static void any_cut_reads_the_same(void **state)
{
	(void)state;
	static const int ranks[] = { 1, 2, 4, 5 };
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	float got[300];
	for (int k = 0; k < 4; k++) {
		for (int tp = 0; tp < 2; tp++) {
			char root[32];
			snprintf(root, sizeof root, "cut%d%d", k, tp);
			save(at(root), 7, ranks[k], tp);
			char *dir = lwm_ckpt_dir(at(root), 7);
			assert_int_equal(try_read(dir, 7), 1);
			must(lwm_ckpt_open(&c, dir, &e), &e);
			must(lwm_ckpt_covers(c, &e), &e);
			for (uint64_t i = 0; i < 300; i++) { /* ranges */
				struct lwm_rng r = lwm_rng_at(3, LWM_RNG_TEST, 0, i);
				int64_t t = lwm_rng_below(&r, TENSORS), n = 1 + lwm_rng_below(&r, 40);
				int64_t a = lwm_rng_below(&r, sizes[t] - n + 1);
				must(lwm_ckpt_read(c, LWM_CKPT_ADAM_V, t, a, n, got, &e), &e);
				for (int64_t j = 0; j < n; j++)
					assert_true(got[j] == value(2, t, a + j, 7));
			}
			lwm_ckpt_close(c);
			free(dir);
		}
	}
}

static void what_it_says_about_itself(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	char *text;
	save(at("meta"), 12, 3, false);
	char *dir = lwm_ckpt_dir(at("meta"), 12);
	must(lwm_ckpt_open(&c, dir, &e), &e);
	const struct lwm_ckpt_meta *m = lwm_ckpt_get_meta(c);
	assert_int_equal(m->step, 12);
	assert_int_equal(m->ranks, 3);
	assert_int_equal(m->groups, LWM_CKPT_TRAINED_ALL);
	assert_string_equal(m->kind, "lwm");
	assert_string_equal(m->tokenizer_path, "/x/tokenizer.model");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(m->config, "model"), "hidden_size")),
			 COLS);
	assert_int_equal(lwm_ckpt_count(c), TENSORS);
	assert_int_equal(lwm_ckpt_find(c, "encoder.conv_in.weight"), 2);
	assert_int_equal(lwm_ckpt_find(c, "nobody"), -1);
	assert_int_equal(lwm_ckpt_tensor(c, 2)->shape[3], 16);
	must(lwm_ckpt_state(c, 1, &text, &e), &e);
	assert_string_equal(text, "{\"r\":1}");
	free(text);
	must(lwm_ckpt_state(c, 9, &text, &e), &e);
	assert_null(text);
	lwm_ckpt_close(c);
	free(dir);
}

/* Two parts with the groups of `held`, under a record that tells of `told`. */
static void save_groups(const char *dir, unsigned held, unsigned told)
{
	struct lwm_err e = { 0 };
	struct lwm_ckpt_part part[2];
	struct lwm_ckpt_slice s[2 * 16];
	int64_t n = 0;
	for (int r = 0; r < 2; r++) {
		struct lwm_ckpt_slice *own = s + n;
		struct lwm_ckpt_out o = { dir, r, TABLE(table, TENSORS), own, cut(own, r, 2, false), held, NULL, fill, own };
		must(lwm_ckpt_write_part(&o, &part[r], &e), &e);
		n += o.nslice;
	}
	json_t *config = json_object();
	struct lwm_ckpt_meta m = { "lwm", 7, "2,1,1,1", 2, config, NULL, "", "", told };
	must(lwm_ckpt_commit(dir, &m, TABLE(table, TENSORS), part, 2, s, &e), &e);
	json_decref(config);
}

/* Every value of the groups that are held; the others are refused. */
static void check_groups(struct lwm_ckpt *c, unsigned held)
{
	struct lwm_err e = { 0 };
	static float got[LONG];
	assert_int_equal(lwm_ckpt_get_meta(c)->groups, held);
	for (int g = 0; g < LWM_CKPT_GROUPS; g++) {
		for (int64_t t = 0; t < TENSORS; t++) {
			if (!(held >> g & 1)) {
				assert_int_equal(lwm_ckpt_read(c, (enum lwm_ckpt_group)g, t, 0, 1, got, NULL), -LWM_ECONFIG);
				continue;
			}
			must(lwm_ckpt_read(c, (enum lwm_ckpt_group)g, t, 0, sizes[t], got, &e), &e);
			for (int64_t i = 0; i < sizes[t]; i++)
				assert_true(got[i] == value(g, t, i, 7));
		}
	}
}

/* The table of groups may have become longer than the three that are saved today. */
static void any_groups_are_kept(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	const unsigned all = (1u << LWM_CKPT_GROUPS) - 1, last = 1u << (LWM_CKPT_GROUPS - 1);
	const unsigned masks[] = { 1, LWM_CKPT_TRAINED_ALL, 1 | last, last, all };
	for (size_t k = 0; k < sizeof masks / sizeof *masks; k++) {
		char root[32], recut[32];
		struct lwm_ckpt *c, *other;
		json_t *described;
		snprintf(root, sizeof root, "groups%zu", k);
		snprintf(recut, sizeof recut, "groups%zu.3", k);
		char *dir = lwm_ckpt_dir(at(root), 7), *dir3 = lwm_ckpt_dir(at(recut), 7);
		save_groups(dir, masks[k], masks[k]);
		must(lwm_check_thing(dir, LWM_THING_CKPT, &e), &e);
		must(lwm_ckpt_open(&c, dir, &e), &e);
		check_groups(c, masks[k]);
		must(lwm_merge_recut(c, at(recut), 3, "3,1,1,1", false, NULL, &e), &e);
		must(lwm_ckpt_open(&other, dir3, &e), &e);
		check_groups(other, masks[k]);
		must(lwm_merge_verify_ckpt(c, other, NULL, &e), &e);
		lwm_ckpt_close(other);
		lwm_ckpt_close(c);

		char *part = lwm_path_join(dir, "part_00001.h5");
		must(lwm_check_thing(part, LWM_THING_PART, &e), &e);
		must(lwm_describe(part, LWM_THING_PART, false, &described, &e), &e);
		for (int g = 0; g < LWM_CKPT_GROUPS; g++) {
			const json_t *n = json_object_get(described, lwm_ckpt_group_names[g]);
			assert_int_equal(json_integer_value(n) > 0, masks[k] >> g & 1);
			assert_true(n || g >= LWM_CKPT_TRAINED); /* what is not held is said of the first three */
		}
		json_decref(described);
		free(part);
		free(dir);
		free(dir3);
	}
}

/* A part with fewer groups, or more, than its record tells of. */
static void other_groups_than_told(void **state)
{
	(void)state;
	const unsigned last = 1u << (LWM_CKPT_GROUPS - 1);
	const unsigned held[] = { 1, 1 | last }, told[] = { 1 | last, 1 };
	for (int k = 0; k < 2; k++) {
		struct lwm_err e = { 0 };
		struct lwm_ckpt *c = NULL;
		char root[32];
		float v;
		snprintf(root, sizeof root, "told%d", k);
		char *dir = lwm_ckpt_dir(at(root), 7);
		save_groups(dir, held[k], told[k]);
		int rc = lwm_ckpt_open(&c, dir, &e);
		if (rc == 0)
			rc = lwm_ckpt_read(c, LWM_CKPT_PARAMS, 0, 0, 1, &v, &e);
		assert_int_equal(rc, -LWM_EDATA);
		lwm_ckpt_close(c);
		free(dir);
	}
}

static void holes_and_overlaps(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_ckpt_part part;
	struct lwm_ckpt *c;
	static const struct lwm_tensor t = { .name = "a", .ndim = 1, .shape = { 30 } };
	float v[30] = { 0 };
	struct lwm_ckpt_slice s[3] = { { 0, 0, 10, 1, 0, { v } },
				       { 0, 5, 10, 1, 0, { v } },
				       { 0, 20, 10, 1, 0, { v } } };
	struct lwm_ckpt_out o = { at("h/step_00000001"), 0, TABLE(&t, 1), s, 3, 1, NULL, NULL, NULL };
	json_t *config = json_object();
	struct lwm_ckpt_meta m = { "lwm", 1, "1,1,1,1", 1, config, NULL, "", "", 1 };
	must(lwm_ckpt_write_part(&o, &part, &e), &e);
	must(lwm_ckpt_commit(o.dir, &m, TABLE(&t, 1), &part, 1, s, &e), &e);
	must(lwm_ckpt_open(&c, o.dir, &e), &e); /* 30 values in all */
	assert_int_equal(lwm_ckpt_covers(c, NULL), -LWM_EDATA);
	assert_int_equal(lwm_ckpt_read(c, LWM_CKPT_PARAMS, 0, 14, 5, v, NULL), -LWM_EDATA);
	assert_int_equal(lwm_ckpt_read(c, LWM_CKPT_ADAM_M, 0, 0, 5, v, NULL), -LWM_ECONFIG);
	lwm_ckpt_close(c);
	o.nslice = 2;
	o.dir = at("h/step_00000002");
	must(lwm_ckpt_write_part(&o, &part, &e), &e);
	must(lwm_ckpt_commit(o.dir, &m, TABLE(&t, 1), &part, 1, s, &e), &e);
	assert_int_equal(lwm_ckpt_open(&c, o.dir, NULL), -LWM_EDATA);
	s[0].offset = 25; /* leaves the tensor */
	assert_int_equal(lwm_ckpt_write_part(&o, &part, NULL), -LWM_EDATA);
	json_decref(config);
}

struct skipped {
	int n;
	char text[2000];
};

static void note(void *ctx, const char *dir, const struct lwm_err *why)
{
	struct skipped *s = ctx;
	s->n++;
	snprintf(s->text + strlen(s->text), sizeof s->text - strlen(s->text), "%s: %s\n", dir, why->msg);
}

static void the_newest_good_one(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_ckpt_part part[2];
	struct skipped s = { 0 };
	char root[128], *dir;
	snprintf(root, sizeof root, "%s", at("new"));
	must(lwm_ckpt_latest(&dir, root, false, LWM_CKPT_FULL, NULL, NULL, &e), &e);
	assert_null(dir); /* no root at all is no error */
	write_parts(at("new/step_00000050"), 2, false, 50, part); /* never committed */
	must(lwm_ckpt_latest(&dir, root, false, LWM_CKPT_FULL, note, &s, &e), &e);
	assert_null(dir); /* nothing was ever finished: no error either */
	assert_non_null(strstr(s.text, "not finished"));
	memset(&s, 0, sizeof s);
	for (int64_t step = 10; step <= 40; step += 10)
		save(root, step, 2, false);
	assert_int_equal(mkdir(at("new/step_x"), 0777), 0);
	must(lwm_ckpt_latest(&dir, root, false, LWM_CKPT_FULL, NULL, NULL, &e), &e);
	assert_string_equal(dir, at("new/step_00000040")); /* an unfinished one above it is a save that goes on */
	free(dir);
	flip(at("new/step_00000040/part_00001.h5"), 5000, 1);
	must(lwm_ckpt_latest(&dir, root, false, LWM_CKPT_QUICK, note, &s, &e), &e);
	assert_string_equal(dir, at("new/step_00000040"));
	assert_int_equal(try_read(dir, 40), 0); /* reading sees what quick did not */
	free(dir);
	memset(&s, 0, sizeof s);
	must(lwm_ckpt_latest(&dir, root, true, LWM_CKPT_FULL, note, &s, &e), &e);
	assert_string_equal(dir, at("new/step_00000030"));
	assert_int_equal(s.n, 2);
	assert_non_null(strstr(s.text, "not finished"));
	assert_non_null(strstr(s.text, "damaged"));
	free(dir);
	/* an older one is not taken unless it is allowed; the message names both */
	assert_int_equal(lwm_ckpt_latest(&dir, root, false, LWM_CKPT_FULL, NULL, NULL, &e), -LWM_EDATA);
	assert_null(dir);
	assert_non_null(strstr(e.msg, "step_00000040/part_00001.h5"));
	assert_non_null(strstr(e.msg, "step_00000030"));
	assert_non_null(strstr(e.msg, "--older-ok"));
}

/* None is whole: an error that names each with its reason, whatever is allowed. */
static void when_none_is_whole(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	char *dir;
	save(at("none"), 1, 1, false);
	save(at("none"), 2, 1, false);
	flip(at("none/step_00000001/part_00000.h5"), 4000, 1);
	assert_int_equal(truncate(at("none/step_00000002/COMMIT.json"), 40), 0);
	for (int older_ok = 0; older_ok < 2; older_ok++) {
		lwm_err_clear(&e);
		assert_int_equal(lwm_ckpt_latest(&dir, at("none"), older_ok, LWM_CKPT_FULL, NULL, NULL, &e), -LWM_EDATA);
		assert_null(dir);
		assert_non_null(strstr(e.msg, "step_00000001/part_00000.h5: damaged"));
		assert_non_null(strstr(e.msg, "step_00000002/COMMIT.json"));
	}
}

static void the_record_is_that_of_its_folder(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	char *dir;
	save(at("copy"), 7, 1, false);
	assert_int_equal(rename(at("copy/step_00000007"), at("copy/step_00000009")), 0);
	assert_int_equal(lwm_ckpt_verify(at("copy/step_00000009"), LWM_CKPT_QUICK, &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "step 7"));
	lwm_err_clear(&e);
	assert_int_equal(lwm_ckpt_latest(&dir, at("copy"), false, LWM_CKPT_FULL, NULL, NULL, &e), -LWM_EDATA);
	/* a name that says no step says nothing wrong */
	assert_int_equal(rename(at("copy/step_00000009"), at("copy/best")), 0);
	lwm_err_clear(&e);
	must(lwm_ckpt_verify(at("copy/best"), LWM_CKPT_FULL, &e), &e);
}

/* What other ranks or a killed save left in the folder goes before the record stands. */
static void a_commit_sweeps_its_folder(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_ckpt_part part[4];
	const char *dir = at("sweep/step_00000001");
	char kept[160];
	snprintf(kept, sizeof kept, "%s", dir);
	write_parts(kept, 4, false, 1, part);
	spill(at("sweep/step_00000001/part_00000.h5.tmp.elsewhere-abcdefgh"), "x", 1);
	write_parts(kept, 2, false, 1, part);
	commit(kept, 2, false, 1, part);
	assert_false(lwm_path_exists(at("sweep/step_00000001/part_00003.h5")));
	assert_false(lwm_path_exists(at("sweep/step_00000001/part_00000.h5.tmp.elsewhere-abcdefgh")));
	assert_int_equal(try_read(kept, 1), 1);
	/* a save that failed leaves nothing */
	write_parts(at("sweep/step_00000002"), 2, false, 2, part);
	lwm_ckpt_take_back(at("sweep/step_00000002"), part[0].name);
	assert_true(lwm_path_exists(at("sweep/step_00000002")));
	lwm_ckpt_take_back(at("sweep/step_00000002"), part[1].name);
	assert_false(lwm_path_exists(at("sweep/step_00000002")));
	must(lwm_ckpt_verify(kept, LWM_CKPT_FULL, &e), &e);
}

static void damage_is_never_read(void **state)
{
	(void)state;
	static const char *const name[] = { "d/step_00000003/part_00000.h5", "d/step_00000003/COMMIT.json" };
	char dir[128];
	size_t n;
	save(at("d"), 3, 2, true);
	snprintf(dir, sizeof dir, "%s", at("d/step_00000003"));
	for (int f = 0; f < 2; f++) {
		char *s = slurp(at(name[f]), &n), path[128];
		snprintf(path, sizeof path, "%s", at(name[f]));
		int seen = 0, tried = 0;
		for (size_t i = 0; i < n; i += f ? 1 : (i < 4096 || i + 4096 > n) ? 3 : 4999) {
			flip(path, i, (unsigned char)(1u << i % 8));
			seen += !try_read(dir, 3); /* fails the test by itself when a value is wrong */
			seen += lwm_ckpt_verify(dir, LWM_CKPT_FULL, NULL) < 0;
			tried += 2;
			flip(path, i, (unsigned char)(1u << i % 8));
		}
		assert_true(seen > tried / 3);
		for (size_t k = 0; k + 1 < n; k += k < 4096 ? 17 : 9973) {
			spill(path, s, k);
			assert_int_equal(try_read(dir, 3), 0);
		}
		spill(path, s, n);
		free(s);
	}
	assert_int_equal(try_read(dir, 3), 1);
}

/* Killed at any moment of a save, the previous checkpoint is the newest good one or the new one is whole. */
static void killed_while_saving(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	char root[128], *dir;
	int fresh = 0;
	snprintf(root, sizeof root, "%s", at("kill"));
	save(root, 1, 2, false);
	for (int round = 0; round < 25; round++) {
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			save(root, 2, 2, true);
			_exit(0);
		}
		usleep(400u * (unsigned)round);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		must(lwm_ckpt_latest(&dir, root, true, LWM_CKPT_FULL, NULL, NULL, &e), &e);
		assert_non_null(dir);
		int64_t step = strstr(dir, "00000002") ? 2 : 1;
		fresh += step == 2;
		assert_int_equal(try_read(dir, step), 1);
		free(dir);
		must(lwm_remove_tree(at("kill/step_00000002"), &e), &e);
	}
	assert_true(fresh < 25);
}

/* ---- threads ---- */

static struct {
	struct lwm_ckpt_part part[4];
	char dir[128];
	int rc[4];
	atomic_int stop, seen, wrong;
} shared;

static void *write_one(void *arg)
{
	int r = (int)(intptr_t)arg;
	struct lwm_ckpt_slice s[16];
	struct lwm_ckpt_out o = { shared.dir, r, TABLE(table, TENSORS), s, cut(s, r, 4, true), LWM_CKPT_TRAINED_ALL,
				  NULL,       fill, s };
	shared.rc[r] = lwm_ckpt_write_part(&o, &shared.part[r], NULL);
	return NULL;
}

static void *read_one(void *arg)
{
	int r = (int)(intptr_t)arg;
	struct lwm_ckpt *c;
	float got[200];
	shared.rc[r] = lwm_ckpt_open(&c, shared.dir, NULL);
	for (int64_t i = 0; shared.rc[r] == 0 && i + 200 <= LONG; i += 200) {
		shared.rc[r] = lwm_ckpt_read(c, LWM_CKPT_PARAMS, 3, i, 200, got, NULL);
		for (int64_t k = 0; k < 200; k++)
			shared.rc[r] |= got[k] != value(0, 3, i + k, 7);
	}
	lwm_ckpt_close(c);
	return NULL;
}

static void run_four(void *(*f)(void *))
{
	pthread_t t[4];
	for (int r = 0; r < 4; r++)
		assert_int_equal(pthread_create(&t[r], NULL, f, (void *)(intptr_t)r), 0);
	for (int r = 0; r < 4; r++) {
		pthread_join(t[r], NULL);
		assert_int_equal(shared.rc[r], 0);
	}
}

static void ranks_may_be_threads(void **state)
{
	(void)state;
	snprintf(shared.dir, sizeof shared.dir, "%s", at("threads/step_00000007"));
	run_four(write_one);
	commit(shared.dir, 4, true, 7, shared.part);
	assert_int_equal(try_read(shared.dir, 7), 1);
	run_four(read_one);
}

static void *watch(void *arg)
{
	while (!shared.stop) {
		char *dir;
		if (lwm_ckpt_latest(&dir, arg, true, LWM_CKPT_QUICK, NULL, NULL, NULL) == 0 && dir) {
			shared.seen++;
			shared.wrong += lwm_ckpt_verify(dir, LWM_CKPT_FULL, NULL) < 0;
		}
		free(dir);
		usleep(500);
	}
	return NULL;
}

/* Whoever looks while checkpoints are saved finds only whole ones. */
static void watchers_see_whole_ones(void **state)
{
	(void)state;
	char root[128];
	pthread_t t;
	snprintf(root, sizeof root, "%s", at("watched"));
	shared.stop = 0;
	assert_int_equal(pthread_create(&t, NULL, watch, root), 0);
	for (int64_t step = 1; step <= 50; step++)
		save(root, step, 2, step % 2);
	shared.stop = 1;
	pthread_join(t, NULL);
	assert_true(shared.seen > 0);
	assert_int_equal(shared.wrong, 0);
	printf("T7: 50 saves, looked at %d times\n", (int)shared.seen);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_cut_reads_the_same),
		cmocka_unit_test(what_it_says_about_itself),
		cmocka_unit_test(any_groups_are_kept),
		cmocka_unit_test(other_groups_than_told),
		cmocka_unit_test(holes_and_overlaps),
		cmocka_unit_test(the_newest_good_one),
		cmocka_unit_test(when_none_is_whole),
		cmocka_unit_test(the_record_is_that_of_its_folder),
		cmocka_unit_test(a_commit_sweeps_its_folder),
		cmocka_unit_test(damage_is_never_read),
		cmocka_unit_test(killed_while_saving),
		cmocka_unit_test(ranks_may_be_threads),
		cmocka_unit_test(watchers_see_whole_ones),
	};
	lwm_log_init("test", LWM_ERROR);
	return cmocka_run_group_tests_name("io_ckpt", tests, scratch_make, scratch_remove);
}
