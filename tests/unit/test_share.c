/* One checkpoint before several ranks: what one of them finds in its share of the parts holds for all. */
#include "tests/unit/ckpt_fixture.h"

#include <stdatomic.h>

#include "common/base/json.h"
#include "common/io/seal.h"
#include "common/train/share.h"

enum { RANKS = 4 };

struct ask {
	const char *path;
	bool newest, older_ok;
	int64_t step[RANKS]; /* what each rank got, -1 nothing */
	int code[RANKS];
	char said[RANKS][1024];
};

/* Every value of one tensor cut by columns, and some of a long one: from whatever parts hold them. */
static int read_some(struct lwm_ckpt *c, int64_t step, struct lwm_err *e)
{
	float v[ROWS * COLS];
	for (int g = 0; g < LWM_CKPT_TRAINED; g++) {
		LWM_TRY(lwm_ckpt_read(c, (enum lwm_ckpt_group)g, 1, 0, ROWS * COLS, v, e));
		for (int64_t i = 0; i < ROWS * COLS; i++)
			if (v[i] != value(g, 1, i, step))
				return lwm_fail(e, LWM_ENO, "value %d of group %d", (int)i, g);
	}
	return 0;
}

static int rank_main(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct ask *a = arg;
	struct lwm_ckpt *ckpt = NULL;
	int r = lwm_comm_rank(c);
	int rc = a->newest ? lwm_share_newest(&ckpt, c, a->path, a->older_ok, e) :
			     lwm_share_open(&ckpt, c, a->path, a->older_ok, e);
	a->code[r] = rc;
	a->step[r] = ckpt ? lwm_ckpt_get_meta(ckpt)->step : -1;
	snprintf(a->said[r], sizeof a->said[r], "%s", rc ? e->msg : "");
	if (rc == 0 && ckpt)
		rc = read_some(ckpt, a->step[r], e);
	lwm_ckpt_close(ckpt);
	return rc;
}

/* All ranks are of one mind. Returns the step, -1 nothing, or the code. */
static int64_t asked(const char *path, bool newest, bool older_ok, struct ask *a)
{
	struct lwm_err e = { 0 };
	*a = (struct ask){ .path = path, .newest = newest, .older_ok = older_ok };
	int rc = lwm_comm_threads(RANKS, rank_main, a, &e);
	for (int r = 1; r < RANKS; r++) {
		assert_int_equal(a->code[r], a->code[0]);
		assert_int_equal(a->step[r], a->step[0]);
	}
	assert_int_equal(rc, a->code[0]);
	return rc < 0 ? rc : a->step[0];
}

static char *part_of(const char *root, int64_t step, int part)
{
	static char path[2][700];
	static int i;
	i = !i;
	snprintf(path[i], sizeof path[i], "%s/step_%08d/part_%05d.h5", root, (int)step, part);
	return path[i];
}

static void damage(const char *root, int64_t step, int part)
{
	flip(part_of(root, step, part), 3000, 4);
}

static void the_newest_whole_one(void **state)
{
	struct ask a;
	char root[300];
	(void)state;
	assert_int_equal(asked(at("none"), true, true, &a), -1);
	for (int n = 1; n <= 8; n *= 2) { /* parts: fewer than ranks, as many, more */
		snprintf(root, sizeof root, "%s", at(n == 1 ? "r1" : n == 2 ? "r2" : n == 4 ? "r4" : "r8"));
		for (int64_t step = 1; step <= 3; step++)
			save(root, step, n, n == 4);
		assert_int_equal(asked(root, true, true, &a), 3);
		damage(root, 3, n - 1); /* in the share of another rank than the first, where there are two parts */
		assert_int_equal(asked(root, true, true, &a), 2);
		assert_int_equal(asked(root, true, false, &a), -LWM_EDATA);
		assert_non_null(strstr(a.said[0], "step_00000002"));
		assert_non_null(strstr(a.said[0], lwm_path_base(part_of(root, 3, n - 1))));
		assert_int_equal(unlink(part_of(root, 2, n / 2)), 0);
		assert_int_equal(asked(root, true, true, &a), 1);
		damage(root, 1, 0);
		assert_int_equal(asked(root, true, true, &a), -LWM_EDATA);
		assert_non_null(strstr(a.said[RANKS - 1], "none of its checkpoints is whole"));
	}
}

/* That one part cannot be read says nothing of the folder, whatever is wrong with another. */
static void not_to_know_weighs_more_than_damage(void **state)
{
	struct ask a;
	char root[300];
	(void)state;
	for (int part = 0; part < 4; part += 3) {
		snprintf(root, sizeof root, "%s", at(part ? "eio3" : "eio0"));
		save(root, 1, 4, false);
		save(root, 2, 4, false);
		damage(root, 2, 3 - part);
		assert_int_equal(unlink(part_of(root, 2, part)), 0);
		assert_int_equal(symlink(lwm_path_base(part_of(root, 2, part)), part_of(root, 2, part)), 0); /* ELOOP */
		assert_int_equal(asked(root, true, true, &a), -LWM_EIO);
		assert_non_null(strstr(a.said[1], lwm_path_base(part_of(root, 2, part))));
	}
}

static void a_folder_or_a_root(void **state)
{
	struct ask a;
	char step[300];
	(void)state;
	save(at("either"), 5, 4, true);
	save(at("either"), 6, 4, true);
	snprintf(step, sizeof step, "%s", at("either/step_00000005"));
	assert_int_equal(asked(at("either"), false, false, &a), 6);
	assert_int_equal(asked(step, false, false, &a), 5);
	assert_int_equal(asked(at("nowhere"), false, false, &a), -LWM_ENOINPUT);
	assert_int_equal(unlink(at("either/step_00000005/part_00003.h5")), 0);
	assert_int_equal(asked(step, false, false, &a), -LWM_EDATA);
	assert_non_null(strstr(a.said[0], "part_00003.h5"));
}

/* ---- the record ---- */

/* Gives the record of ROOT/step_1 other slices for part `part` (NULL: takes all of them out, as they were in lwm-checkpoint-1). */
static void edit(const char *root, int part, const char *slices)
{
	char path[300];
	json_t *o;
	struct lwm_err e = { 0 };
	snprintf(path, sizeof path, "%s/step_00000001/COMMIT.json", root);
	must(lwm_seal_read(&o, path, "lwm-checkpoint-2", &e), &e);
	json_t *files = json_object_get(o, "files");
	if (slices)
		json_object_set_new(json_array_get(files, (size_t)part), "slices", json_string(slices));
	for (size_t i = 0; !slices && i < json_array_size(files); i++)
		json_object_del(json_array_get(files, i), "slices");
	if (!slices)
		json_object_set_new(o, "schema", json_string("lwm-checkpoint-1"));
	must(lwm_seal_write(o, path, &e), &e);
	json_decref(o);
}

static void a_record_without_slices(void **state)
{
	struct ask a;
	struct lwm_ckpt *c, *other;
	struct lwm_err e = { 0 };
	char *text;
	(void)state;
	save(at("old"), 1, 4, true);
	edit(at("old"), 0, NULL);
	assert_int_equal(asked(at("old"), true, true, &a), 1);
	assert_int_equal(asked(at("old/step_00000001"), false, true, &a), 1);
	must(lwm_ckpt_open(&c, at("old/step_00000001"), &e), &e);
	must(lwm_ckpt_covers(c, &e), &e);
	must(read_some(c, 1, &e), &e);
	must(lwm_ckpt_pack(c, &text, &e), &e);
	lwm_ckpt_close(c);
	must(lwm_ckpt_unpack(&other, at("old/step_00000001"), text, strlen(text), &e), &e);
	must(read_some(other, 1, &e), &e);
	lwm_ckpt_close(other);
	free(text);
	damage(at("old"), 1, 2);
	assert_int_equal(asked(at("old"), true, true, &a), -LWM_EDATA);
}

static void slices_that_are_none(void **state)
{
	/* as a text; of no tensor, outside of one, too many values for the file, not enough of the tensor */
	static const char *const bad[] = { "0", "0:0", "0:0+", "0:0+1 ", " 0:0+1", "0:0+1  0:1+1", "0:-1+1", "0:0+1*2", "0:0+1*2/", "a:0+1",
					   "0:0+99999999999999999999", "0:0+1;0:1+1", "4:0+1", "0:39+2", "0:0+0", "0:0+2*2/1",
					   "3:0+70000 3:0+70000", "0:0+1", "" };
	struct lwm_ckpt *c;
	(void)state;
	save(at("slices"), 1, 2, false);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct lwm_err e = { 0 };
		edit(at("slices"), 1, bad[i]);
		if (lwm_ckpt_open(&c, at("slices/step_00000001"), &e) != -LWM_EDATA)
			fail_msg("'%s' is taken: %s", bad[i], e.msg);
	}
}

/* What a record claims sizes memory: no more than its files can hold. */
static void a_tensor_larger_than_the_files(void **state)
{
	json_t *o;
	struct lwm_ckpt *c;
	struct lwm_err e = { 0 };
	const char *path = at("claim/step_00000001/COMMIT.json");
	(void)state;
	save(at("claim"), 1, 2, false);
	edit(at("claim"), 0, "0:0+1099511627776 1:0+480 2:0+216 3:0+35000");
	edit(at("claim"), 1, "1:480+480 2:216+216 3:35000+35000");
	must(lwm_seal_read(&o, path, "lwm-checkpoint-2", &e), &e);
	json_t *shape = json_object_get(json_array_get(json_object_get(o, "tensors"), 0), "shape");
	json_array_set_new(shape, 0, json_integer((json_int_t)1 << 40));
	must(lwm_seal_write(o, path, &e), &e);
	json_decref(o);
	assert_int_equal(lwm_ckpt_open(&c, at("claim/step_00000001"), &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "do not hold the values"));
}

/* As many values of each tensor, and not where the parts have them. */
static void slices_of_another_part(void **state)
{
	struct lwm_ckpt *c;
	struct lwm_err e = { 0 };
	float v[40];
	(void)state;
	save(at("other"), 1, 2, false);
	edit(at("other"), 0, "0:0+20 1:0+480 2:0+216 3:0+35000");
	must(lwm_ckpt_open(&c, at("other/step_00000001"), &e), &e);
	must(lwm_ckpt_read(c, LWM_CKPT_PARAMS, 0, 0, 40, v, &e), &e);
	lwm_ckpt_close(c);
	edit(at("other"), 0, "0:20+20 1:0+480 2:0+216 3:0+35000");
	must(lwm_ckpt_open(&c, at("other/step_00000001"), &e), &e);
	assert_int_equal(lwm_ckpt_read(c, LWM_CKPT_PARAMS, 0, 20, 20, v, &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "other slices"));
	assert_int_equal(lwm_ckpt_covers(c, NULL), -LWM_EDATA);
	lwm_ckpt_close(c);
}

/* ---- retention ---- */

static int retire(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct lwm_ckpt_keeper *k = NULL;
	int rc = lwm_comm_rank(c) ? 0 : lwm_ckpt_keeper_new(&k, arg, 2, 0, e);
	if (rc == 0)
		rc = lwm_share_retire(c, k, 5, e);
	lwm_ckpt_keeper_free(k);
	return lwm_agree(c, rc, e);
}

static void retention_hashes_with_all_ranks(void **state)
{
	struct lwm_err e = { 0 };
	char root[300];
	(void)state;
	snprintf(root, sizeof root, "%s", at("keep"));
	for (int64_t step = 1; step <= 5; step++)
		save(root, step, 4, false);
	damage(root, 4, 2); /* neither counted nor left */
	assert_int_equal(unlink(part_of(root, 3, 3)), 0);
	assert_int_equal(symlink("part_00003.h5", part_of(root, 3, 3)), 0); /* cannot be read: left, not counted */
	must(lwm_comm_threads(RANKS, retire, root, &e), &e);
	assert_true(lwm_path_exists(at("keep/step_00000005")));
	assert_false(lwm_path_exists(at("keep/step_00000004")));
	assert_true(lwm_path_exists(at("keep/step_00000003")));
	assert_true(lwm_path_exists(at("keep/step_00000002")));
	assert_false(lwm_path_exists(at("keep/step_00000001")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_newest_whole_one),    cmocka_unit_test(not_to_know_weighs_more_than_damage),
		cmocka_unit_test(a_folder_or_a_root),      cmocka_unit_test(a_record_without_slices),
		cmocka_unit_test(slices_that_are_none),    cmocka_unit_test(slices_of_another_part),
		cmocka_unit_test(a_tensor_larger_than_the_files), cmocka_unit_test(retention_hashes_with_all_ranks),
	};
	lwm_log_init("test_share", LWM_ERROR);
	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
