/* Retention: the step just saved stands, what is whole and wanted stays, what cannot be read is left alone. */
#include "tests/unit/ckpt_fixture.h"

#include <sys/stat.h>

#include "common/base/rng.h"

/* What cannot be read is not bad: neither passed over nor dropped. */
static void unreadable_is_not_damaged(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_ckpt_keeper *k;
	char part[160], *dir;
	for (int64_t step = 1; step <= 3; step++)
		save(at("eio"), step, 1, false);
	snprintf(part, sizeof part, "%s", at("eio/step_00000002/part_00000.h5"));
	/* a folder in the file's place of the same size cannot be read: EISDIR, for root as well */
	struct stat st;
	assert_int_equal(stat(part, &st), 0);
	assert_int_equal(rename(part, at("eio/kept")), 0);
	assert_int_equal(symlink("part_00000.h5", part), 0); /* ELOOP */
	assert_int_equal(lwm_ckpt_verify(at("eio/step_00000002"), LWM_CKPT_FULL, &e), -LWM_EIO);
	must(lwm_remove_tree(at("eio/step_00000003"), &e), &e);
	lwm_err_clear(&e);
	assert_int_equal(lwm_ckpt_latest(&dir, at("eio"), true, LWM_CKPT_FULL, NULL, NULL, &e), -LWM_EIO);
	lwm_err_clear(&e);
	must(lwm_ckpt_keeper_new(&k, at("eio"), 1, 0, &e), &e);
	save(at("eio"), 4, 1, false);
	must(lwm_ckpt_keeper_saved(k, 4, &e), &e);
	assert_false(lwm_path_exists(at("eio/step_00000001")));
	assert_false(lwm_path_exists(at("eio/step_00000002"))); /* one is kept, and that is the new one */
	lwm_ckpt_keeper_free(k);
	must(lwm_ckpt_keeper_new(&k, at("eio"), 2, 0, &e), &e);
	save(at("eio"), 5, 1, false);
	assert_int_equal(unlink(at("eio/step_00000004/part_00000.h5")), 0);
	assert_int_equal(symlink("part_00000.h5", at("eio/step_00000004/part_00000.h5")), 0);
	save(at("eio"), 3, 1, false);
	must(lwm_ckpt_keeper_saved(k, 5, &e), &e);
	assert_true(lwm_path_exists(at("eio/step_00000004"))); /* left, and not counted: */
	assert_true(lwm_path_exists(at("eio/step_00000003")));
	lwm_ckpt_keeper_free(k);
}

static bool whole(const char *root, int64_t step)
{
	char *dir = lwm_ckpt_dir(root, step);
	bool ok = lwm_ckpt_verify(dir, LWM_CKPT_FULL, NULL) == 0;
	free(dir);
	return ok;
}

/* Random saves, damage and retention by several runs: the step just saved always stands, whole; of the older ones just those whole
 * ones that are wanted. */
static void retention_keeps_a_good_one(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	char root[128], part[160];
	struct lwm_ckpt_keeper *k = NULL;
	int64_t step = 0, keep = 1, every = 0;
	static bool want[1200];
	snprintf(root, sizeof root, "%s", at("keep"));
	for (uint64_t round = 0; round < 200; round++) {
		struct lwm_rng r = lwm_rng_at(5, LWM_RNG_TEST, 1, round);
		int64_t kept = 1;
		if (lwm_rng_below(&r, 3) == 0 || !k) { /* another run */
			keep = lwm_rng_below(&r, 4);
			every = lwm_rng_below(&r, 2) * 20;
			lwm_ckpt_keeper_free(k);
			must(lwm_ckpt_keeper_new(&k, root, keep, every, &e), &e);
		}
		step += 1 + lwm_rng_below(&r, 5);
		save(root, step, 1, false);
		for (int64_t s = step - 1; s >= 0; s--) { /* some of the older ones are damaged behind its back */
			snprintf(part, sizeof part, "%s/step_%08d/part_00000.h5", root, (int)s);
			if (lwm_path_exists(part) && lwm_rng_below(&r, 4) == 0)
				flip(part, (size_t)lwm_rng_below(&r, 100000), 4);
			want[s] = whole(root, s) && (kept < keep || (every && s % every == 0));
			kept += want[s];
		}
		must(lwm_ckpt_keeper_saved(k, step, &e), &e);
		assert_true(whole(root, step));
		for (int64_t s = 0; s < step; s++)
			assert_int_equal(whole(root, s), want[s]);
	}
	printf("T8: 200 saves, each with damage and retention, by runs that keep 0 to 3\n");
	lwm_ckpt_keeper_free(k);
}

/* ---- the newest one is damaged ---- */

enum damage { FLIPPED, CUT, GONE, SWAPPED, OLDER, KINDS };

/* Of a file of step 2, or its record. Bytes that no reader of a value takes (padding of HDF5) are damage too: files are hashed. */
static void damage_one(enum damage how, struct lwm_rng *r)
{
	static const char *const file[] = { "part_00000.h5", "part_00001.h5", "COMMIT.json" };
	char path[160], other[160], *text;
	int which = (int)lwm_rng_below(r, 3);
	size_t n;
	snprintf(path, sizeof path, "%s/%s", at("newest/step_00000002"), file[which]);
	snprintf(other, sizeof other, "%s/%s", at(how == OLDER ? "newest/step_00000001" : "newest/step_00000002"),
		 file[how == OLDER ? which : (which + 1) % 3]);
	text = slurp(path, &n);
	switch (how) {
	case FLIPPED: flip(path, (size_t)lwm_rng_below(r, (int64_t)n), (unsigned char)(1u << lwm_rng_below(r, 8))); break;
	case CUT: spill(path, text, (size_t)lwm_rng_below(r, (int64_t)n)); break;
	case GONE: assert_int_equal(unlink(path), 0); break;
	default:
		free(text);
		text = slurp(other, &n);
		spill(path, text, n);
	}
	free(text);
}

static void note_passed_over(void *ctx, const char *dir, const struct lwm_err *why)
{
	assert_true(strstr(dir, "step_00000002") && why->msg[0]);
	++*(int *)ctx;
}

/* Whatever becomes of the newest one, it is not taken: the one before it is, where that is allowed, and it is said. A folder whose
 * record is gone was never finished: what is older may be taken. */
static void any_damage_of_the_newest(void **state)
{
	(void)state;
	enum { TRIES = 300 };
	struct lwm_err e = { 0 };
	save(at("newest"), 1, 2, false);
	for (int64_t i = 0; i < TRIES; i++) {
		struct lwm_rng r = lwm_rng_at(6, LWM_RNG_TEST, 1, (uint64_t)i);
		int said = 0;
		char *dir;
		save(at("newest"), 2, 2, false);
		damage_one((enum damage)(i % KINDS), &r);
		must(lwm_ckpt_latest(&dir, at("newest"), true, LWM_CKPT_FULL, note_passed_over, &said, &e), &e);
		if (!dir || !strstr(dir, "step_00000001") || said != 1)
			fail_msg("damage %d of try %d: %s is taken, %d folders are passed over", (int)(i % KINDS), (int)i, dir, said);
		free(dir);
		/* nor is the older one taken by those who did not allow it */
		int rc = lwm_ckpt_latest(&dir, at("newest"), false, LWM_CKPT_FULL, NULL, NULL, NULL);
		if (rc != (lwm_ckpt_unfinished(at("newest/step_00000002")) ? 0 : -LWM_EDATA))
			fail_msg("damage %d of try %d: %d where no older one is allowed", (int)(i % KINDS), (int)i, rc);
		if (rc == 0)
			free(dir);
		must(lwm_remove_tree(at("newest/step_00000002"), &e), &e);
	}
	printf("T6: %d damaged newest checkpoints were passed over\n", TRIES);
}

/* One byte of the newest checkpoint is damaged and one checkpoint is to be kept: what is saved after it stays. */
static void the_step_just_saved_is_never_dropped(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_ckpt_keeper *k;
	save(at("just"), 40, 1, false);
	flip(at("just/step_00000040/part_00000.h5"), 5000, 1);
	for (int64_t step = 10; step <= 30; step += 10) {
		must(lwm_ckpt_keeper_new(&k, at("just"), 1, 0, &e), &e);
		save(at("just"), step, 1, false);
		must(lwm_ckpt_keeper_saved(k, step, &e), &e);
		char *dir = lwm_ckpt_dir(at("just"), step);
		must(lwm_ckpt_verify(dir, LWM_CKPT_FULL, &e), &e);
		free(dir);
		lwm_ckpt_keeper_free(k);
	}
	/* and the damaged one is set aside, not deleted, when a run goes on below it */
	must(lwm_ckpt_set_aside_newer(at("just"), 30, &e), &e);
	assert_false(lwm_path_exists(at("just/step_00000040")));
	assert_true(lwm_path_exists(at("just/damaged/step_00000040/COMMIT.json")));
	save(at("just"), 40, 1, false);
	must(lwm_ckpt_set_aside_newer(at("just"), 30, &e), &e);
	assert_true(lwm_path_exists(at("just/damaged/step_00000040.1/COMMIT.json")));
}

/* Damage to one that was kept is seen even though it was whole before: what does not verify does not count as kept. */
static void a_damaged_one_does_not_count_as_kept(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_ckpt_keeper *k;
	must(lwm_ckpt_keeper_new(&k, at("count"), 2, 0, &e), &e);
	for (int64_t step = 1; step <= 3; step++) {
		save(at("count"), step, 1, false);
		if (step == 3)
			flip(at("count/step_00000002/part_00000.h5"), 3000, 2);
		must(lwm_ckpt_keeper_saved(k, step, &e), &e);
	}
	assert_true(lwm_path_exists(at("count/step_00000003")));
	assert_false(lwm_path_exists(at("count/step_00000002")));
	assert_true(lwm_path_exists(at("count/step_00000001")));
	lwm_ckpt_keeper_free(k);
}

static void retention_keeps_what_was_asked(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_ckpt_keeper *k;
	for (int64_t step = 5; step <= 40; step += 5)
		save(at("ask"), step, 1, false);
	unlink(at("ask/step_00000015/COMMIT.json"));
	assert_int_equal(mkdir(at("ask/step_00000099"), 0777), 0); /* a save that was killed, further on */
	assert_int_equal(mkdir(at("ask/.trash-step_00000001"), 0777), 0); /* left by a kill */
	must(lwm_ckpt_keeper_new(&k, at("ask"), 2, 20, &e), &e);
	must(lwm_ckpt_keeper_saved(k, 40, &e), &e);
	lwm_ckpt_keeper_free(k);
	static const int kept[] = { 0, 0, 0, 1, 0, 0, 1, 1 };
	for (int s = 0; s < 8; s++) {
		char *dir = lwm_ckpt_dir(at("ask"), 5 + 5 * s);
		assert_int_equal(lwm_path_exists(dir), kept[s]);
		free(dir);
	}
	assert_false(lwm_path_exists(at("ask/.trash-step_00000001")));
	assert_false(lwm_path_exists(at("ask/step_00000099")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unreadable_is_not_damaged),
		cmocka_unit_test(retention_keeps_a_good_one),
		cmocka_unit_test(any_damage_of_the_newest),
		cmocka_unit_test(the_step_just_saved_is_never_dropped),
		cmocka_unit_test(a_damaged_one_does_not_count_as_kept),
		cmocka_unit_test(retention_keeps_what_was_asked),
	};
	lwm_log_init("test", LWM_ERROR);
	return cmocka_run_group_tests_name("io_keep", tests, scratch_make, scratch_remove);
}
