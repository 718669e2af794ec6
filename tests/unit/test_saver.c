/* Saves behind the computation: what is saved is what was there when the save began, a save that fails or is given up leaves what
 * stands, and what a rank asks of the file system does not depend on how many there are. */
#include "tests/unit/io_fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

#include "common/base/log.h"
#include "common/train/saver.h"

/* ---- calls to parts of checkpoints, by the rank whose they are ---- */

enum { MOST = 512, COMMIT = MOST /* threads that write no part */ };
static struct {
	atomic_long opens, syncs, wrote, read; /* calls, calls, bytes, bytes */
} asked[MOST + 1];
static atomic_bool held; /* whoever writes a part waits */
static atomic_int full = -1, slow; /* the disk is full for this rank; milliseconds that a write takes */
static _Thread_local int who = COMMIT;
static _Thread_local bool waits; /* what this thread removes is counted */
static atomic_int removed;

static void *next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

int open(const char *path, int flags, ...)
{
	int (*real)(const char *, int, ...);
	const char *part = strstr(path, "/part_");
	va_list ap;
	*(void **)&real = next("open");
	va_start(ap, flags);
	int mode = flags & O_CREAT ? va_arg(ap, int) : 0;
	va_end(ap);
	if (part && flags & O_CREAT)
		who = (int)strtol(part + 6, NULL, 10);
	if (!strncmp(path, scratch, strlen(scratch)))
		atomic_fetch_add(&asked[who].opens, 1);
	return real(path, flags, mode);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	ssize_t (*real)(int, const void *, size_t, off_t);
	*(void **)&real = next("pwrite");
	while (who != COMMIT && held)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	if (who != COMMIT && slow)
		nanosleep(&(struct timespec){ .tv_nsec = slow * 1000000L }, NULL);
	if (who == full) {
		errno = ENOSPC;
		return -1;
	}
	atomic_fetch_add(&asked[who].wrote, (long)n);
	return real(fd, p, n, at);
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
	ssize_t (*real)(int, void *, size_t, off_t);
	*(void **)&real = next("pread");
	atomic_fetch_add(&asked[who].read, (long)n);
	return real(fd, p, n, at);
}

int fsync(int fd)
{
	int (*real)(int);
	*(void **)&real = next("fsync");
	atomic_fetch_add(&asked[who].syncs, 1);
	return real(fd);
}

int remove(const char *path)
{
	int (*real)(const char *);
	*(void **)&real = next("remove");
	removed += waits;
	return real(path);
}

/* ---- ranks with known weights and moments, of a model that nobody trains ---- */

static void close_nothing(struct lwm_objective *o)
{
	(void)o;
}

static const struct lwm_objective_type nothing = { .kind = "nothing", .close = close_nothing };

struct world { /* all ranks */
	struct lwm_stage stage;
	struct lwm_tensors tensors;
	int dim[LWM_AXES];
	int (*run)(const struct world *x, struct lwm_saver *v, struct lwm_weights *w, struct lwm_err *e);
};

static float value_of(int g, int64_t flat, int version)
{
	return (float)flat + 0.25f * (float)g + 1e6f * (float)version;
}

static void set_values(struct lwm_weights *w, const struct lwm_tensors *t, int version)
{
	int64_t from, n, at;
	for (int g = 0; g < LWM_CKPT_TRAINED; g++) {
		float *v = lwm_weights_host(w, lwm_state_of_group(g));
		for (int64_t i = 0; i < t->n; i++) {
			if (!lwm_cut_own(&w->cut, &t->list[i], &from, &n, &at))
				continue;
			for (int64_t k = 0; k < n; k++)
				v[at + k] = value_of(g, from + k, version);
		}
	}
}

static int rank_main(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	const struct world *x = arg;
	struct lwm_mesh mesh = { .world = c };
	struct lwm_objective o = { .type = &nothing, .stage = &x->stage, .mesh = &mesh, .dtype = LK_F32, .tensors = x->tensors,
				   .tokenizer_hash = "" };
	struct lwm_weights w = { .dev = NULL };
	struct lwm_saver *v = NULL;
	struct lwm_cut cut, mine;
	char why[256];
	memcpy(mesh.dim, x->dim, sizeof mesh.dim);
	lwm_mesh_place(&mesh, lwm_comm_rank(c));
	o.config = json_pack("{s:i}", "width", 1);
	LWM_TRY(lk_dev_open(&o.dev, "ref", 1, why, sizeof why) ? lwm_fail(e, LWM_EUNAVAIL, "%s", why) : 0);
	LWM_TRY(lwm_objective_localize(&o, e));
	LWM_TRY(lwm_cut_new(&cut, &o.local, lwm_mesh_ranks(&mesh, LWM_SHARD), mesh.dim[LWM_DP], e));
	mine = lwm_cut_of(&cut, lwm_mesh_rank(&mesh, LWM_GRAD));
	LWM_TRY(lwm_weights_new(&w, o.dev, LK_F32, &mine, NULL, c, false, e));
	set_values(&w, &o.local, 0); /* tp is 1: the same places as in x->tensors */
	LWM_TRY(lwm_saver_new(&v, &o, &w, e));
	int rc = x->run(x, v, &w, e);
	lwm_saver_free(v);
	lwm_weights_release(&w);
	lwm_cut_release(&cut);
	lwm_tensors_release(&o.local);
	json_decref(o.config);
	lk_dev_close(o.dev);
	return rc;
}

/* So many values for each rank: of four groups, one of them with a tensor more. */
static void make_world(struct world *x, const char *root, const int dim[LWM_AXES], int64_t each)
{
	struct lwm_err e = { 0 };
	int64_t n = each * dim[0] * dim[1] * dim[2] * dim[3] / 4;
	char name[32];
	memset(x, 0, sizeof *x);
	must(lwm_stage_init(&x->stage, &e), &e);
	x->stage.out = root;
	memcpy(x->dim, dim, sizeof x->dim);
	for (int i = 0; i < 5; i++) {
		snprintf(name, sizeof name, "t%d", i);
		struct lwm_tensor t = { .name = name, .ndim = 1, .shape = { i < 3 ? n : n / 2 }, .split = LWM_SPLIT_NONE,
					.modality = LWM_MODALITIES, .trainable = true, .group = i < 4 ? i : 3 };
		must(lwm_tensors_add(&x->tensors, &t, &e), &e);
	}
	must(lwm_mkdirs(root, &e), &e);
}

static void free_world(struct world *x)
{
	lwm_tensors_release(&x->tensors);
	lwm_stage_release(&x->stage);
}

/* The checkpoint of a step is whole and holds what the ranks had in that version: each value once, whoever wrote it. */
static void check_values(const char *root, const struct lwm_tensors *t, int64_t step, int version)
{
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	char *dir = lwm_ckpt_dir(root, step);
	must(lwm_ckpt_verify(dir, LWM_CKPT_FULL, &e), &e);
	must(lwm_ckpt_open(&c, dir, &e), &e);
	must(lwm_ckpt_covers(c, &e), &e);
	for (int64_t i = 0; i < t->n; i++) {
		float *v = malloc((size_t)t->list[i].count * sizeof *v);
		for (int g = 0; g < LWM_CKPT_TRAINED; g++) {
			must(lwm_ckpt_read(c, (enum lwm_ckpt_group)g, i, 0, t->list[i].count, v, &e), &e);
			for (int64_t k = 0; k < t->list[i].count; k++)
				assert_true(v[k] == value_of(g, t->list[i].offset + k, version));
		}
		free(v);
	}
	lwm_ckpt_close(c);
	free(dir);
}

static bool is_committed(const char *root, int64_t step)
{
	char *dir = lwm_ckpt_dir(root, step);
	bool there = lwm_path_exists(dir) && !lwm_ckpt_unfinished(dir);
	free(dir);
	return there;
}

/* ---- cases ---- */

static const int two[LWM_AXES] = { 1, 2, 1, 1 };

static int finish_save(const struct world *x, struct lwm_saver *v, struct lwm_comm *c, struct lwm_err *e)
{
	struct lwm_ckpt_keeper *k = NULL;
	if (lwm_comm_rank(c) == 0)
		LWM_TRY(lwm_ckpt_keeper_new(&k, x->stage.out, 100, 0, e));
	int rc = lwm_saver_finish(v, k, e);
	lwm_ckpt_keeper_free(k);
	return rc;
}

static void wait_a_little(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

/* Before the record: while it waits, training goes on. */
static atomic_bool record_held;
static atomic_int records;

static void hold_record(void *ctx)
{
	(void)ctx;
	atomic_fetch_add(&records, 1);
	for (int ms = 0; ms < 2000 && atomic_load(&record_held); ms++)
		wait_a_little();
}

static int save_then_change(const struct world *x, struct lwm_saver *v, struct lwm_weights *w, struct lwm_err *e)
{
	struct lwm_train_state st = { .step = 7 };
	const char *root = x->stage.out;
	LWM_TRY(lwm_saver_reserve(v, e));
	held = true;
	LWM_TRY(lwm_comm_barrier(w->ranks, e));
	lwm_saver_begin(v, &st, true);
	st.step = 8;
	set_values(w, &x->tensors, 1); /* steps are made meanwhile */
	bool good = lwm_saver_writing(v) && lwm_saver_step(v) == 7 && !is_committed(root, 7);
	LWM_TRY(lwm_comm_barrier(w->ranks, e));
	held = false;
	while (lwm_saver_writing(v))
		wait_a_little();
	good = good && lwm_saver_step(v) == 7 && !is_committed(root, 7);
	LWM_TRY(lwm_comm_barrier(w->ranks, e)); /* nobody commits before all have looked */
	atomic_store(&record_held, true);
	lwm_saver_before_commit(v, hold_record, NULL);
	lwm_saver_settle(v);
	good = good && lwm_saver_settled(v) && lwm_saver_writing(v) == (lwm_comm_rank(w->ranks) == 0) && !is_committed(root, 7);
	set_values(w, &x->tensors, 2);
	LWM_TRY(lwm_comm_barrier(w->ranks, e));
	atomic_store(&record_held, false);
	while (lwm_saver_writing(v))
		wait_a_little();
	LWM_TRY(lwm_comm_barrier(w->ranks, e));
	good = good && is_committed(root, 7) && lwm_saver_step(v) == 7 && atomic_load(&records) == 1;
	LWM_TRY(finish_save(x, v, w->ranks, e));
	good = good && lwm_saver_step(v) == -1 && !lwm_saver_writing(v) && is_committed(root, 7);
	return good ? 0 : lwm_fail(e, LWM_ENO, "a save under way is not what it says");
}

static void saves_what_was_there_when_it_began(void **state)
{
	struct lwm_err e = { 0 };
	struct world x;
	(void)state;
	make_world(&x, at("then"), two, 40000);
	x.run = save_then_change;
	must(lwm_comm_threads(2, rank_main, &x, &e), &e);
	check_values(x.stage.out, &x.tensors, 7, 0);
	free_world(&x);
}

/* At once, behind, one that fails behind, and one after that; each with values of its own. */
static int save_four_times(const struct world *x, struct lwm_saver *v, struct lwm_weights *w, struct lwm_err *e)
{
	LWM_TRY(lwm_saver_reserve(v, e));
	for (int step = 1; step <= 4; step++) {
		struct lwm_train_state st = { .step = step };
		struct lwm_err why = { 0 };
		LWM_TRY(lwm_comm_barrier(w->ranks, e));
		full = step == 3 ? 1 : -1;
		LWM_TRY(lwm_comm_barrier(w->ranks, e));
		set_values(w, &x->tensors, step);
		lwm_saver_begin(v, &st, step > 1);
		if (step == 1 && lwm_saver_writing(v))
			return lwm_fail(e, LWM_EINTERNAL, "a save that is to be on disk is not");
		int rc = finish_save(x, v, w->ranks, &why);
		if (rc != (step == 3 ? -LWM_EIO : 0))
			return lwm_fail(e, LWM_EINTERNAL, "step %d: %d, %s", step, rc, why.msg);
	}
	return 0;
}

static void one_that_fails_leaves_what_stands(void **state)
{
	struct lwm_err e = { 0 };
	struct world x;
	(void)state;
	make_world(&x, at("fails"), two, 40000);
	x.run = save_four_times;
	must(lwm_comm_threads(2, rank_main, &x, &e), &e);
	for (int step = 1; step <= 4; step++)
		if (step != 3)
			check_values(x.stage.out, &x.tensors, step, step);
	assert_false(lwm_path_exists(at("fails/step_00000003")));
	free_world(&x);
}

/* Nobody waits until all of it is written. */
static int save_and_leave(const struct world *x, struct lwm_saver *v, struct lwm_weights *w, struct lwm_err *e)
{
	struct lwm_train_state st = { .step = 1 };
	(void)x;
	(void)w;
	LWM_TRY(lwm_saver_reserve(v, e));
	lwm_saver_begin(v, &st, true);
	return 0;
}

static void one_that_is_given_up_ends_soon(void **state)
{
	static const int one[LWM_AXES] = { 1, 1, 1, 1 };
	enum { EACH = 2 << 20 };
	struct lwm_err e = { 0 };
	struct world x;
	(void)state;
	make_world(&x, at("left"), one, EACH);
	x.run = save_and_leave;
	slow = 20;
	long before = asked[0].wrote;
	must(lwm_comm_threads(1, rank_main, &x, &e), &e);
	slow = 0;
	assert_true(asked[0].wrote - before < 3L * 4 * EACH / 2);
	assert_false(is_committed(x.stage.out, 1));
	free_world(&x);
}

static bool trash_is_left(const char *root, int step)
{
	char path[300];
	snprintf(path, sizeof path, "%s/.trash-step_%08d", root, step);
	return lwm_path_exists(path);
}

/* Saves of which one is kept: an older one is out of sight when finish returns, and its files are removed by another thread, which
 * the next finish waits for, and retire. */
static int save_and_keep_one(const struct world *x, struct lwm_saver *v, struct lwm_weights *w, struct lwm_err *e)
{
	struct lwm_ckpt_keeper *k = NULL;
	int rc = 0;
	(void)w;
	LWM_TRY(lwm_saver_reserve(v, e));
	LWM_TRY(lwm_ckpt_keeper_new(&k, x->stage.out, 1, 0, e));
	for (int step = 1; step <= 3; step++) {
		struct lwm_train_state st = { .step = step };
		waits = true;
		lwm_saver_begin(v, &st, true);
		LWM_GO(lwm_saver_finish(v, k, e));
		waits = false;
	}
	if (removed || is_committed(x->stage.out, 2) || !is_committed(x->stage.out, 3))
		LWM_GO(lwm_fail(e, LWM_ENO, "training waited until %d files of an older checkpoint were removed", (int)removed));
	if (trash_is_left(x->stage.out, 1))
		LWM_GO(lwm_fail(e, LWM_ENO, "nobody removed the files of step 1"));
	LWM_GO(lwm_saver_retire(v, k, 3, e));
	if (trash_is_left(x->stage.out, 2))
		rc = lwm_fail(e, LWM_ENO, "files of an older checkpoint are still there");
out:
	lwm_ckpt_keeper_free(k);
	return rc;
}

static void older_ones_are_removed_behind(void **state)
{
	static const int one[LWM_AXES] = { 1, 1, 1, 1 };
	struct lwm_err e = { 0 };
	struct world x;
	(void)state;
	make_world(&x, at("older"), one, 40000);
	x.run = save_and_keep_one;
	must(lwm_comm_threads(1, rank_main, &x, &e), &e);
	check_values(x.stage.out, &x.tensors, 3, 0);
	free_world(&x);
}

static int save_once(const struct world *x, struct lwm_saver *v, struct lwm_weights *w, struct lwm_err *e)
{
	struct lwm_train_state st = { .step = 1 };
	LWM_TRY(lwm_saver_reserve(v, e));
	lwm_saver_begin(v, &st, true);
	return finish_save(x, v, w->ranks, e);
}

static int64_t count_files(const char *root)
{
	struct lwm_paths p = { 0 };
	struct lwm_err e = { 0 };
	must(lwm_paths_expand(&p, root, NULL, &e), &e);
	int64_t n = p.n;
	lwm_paths_release(&p);
	return n;
}

static long part_bytes(const char *root, int rank)
{
	char path[300];
	struct stat st;
	snprintf(path, sizeof path, "%s/step_00000001/part_%05d.h5", root, rank);
	assert_int_equal(stat(path, &st), 0);
	return (long)st.st_size;
}

/* One line of the table of common/train/README.md: what a rank asks is the same for each, and so is what it writes, but for the
 * text of its slices. */
static void save_by(const char *name, const int dim[LWM_AXES], int64_t each, const char *mesh)
{
	struct lwm_err e = { 0 };
	struct world x;
	int n = dim[0] * dim[1] * dim[2] * dim[3];
	long least = 0, most = 0;
	memset(asked, 0, sizeof asked);
	make_world(&x, at(name), dim, each);
	x.run = save_once;
	must(lwm_comm_threads(n, rank_main, &x, &e), &e);
	for (int r = 0; r < n; r++) {
		assert_int_equal(asked[r].opens, 2); /* its part, and the folder to sync it */
		assert_int_equal(asked[r].syncs, 3); /* the values, what follows them, the folder */
		long bytes = part_bytes(x.stage.out, r);
		assert_int_equal(asked[r].read, bytes); /* all of it is read back */
		assert_true(asked[r].wrote >= 12 * each && asked[r].wrote < bytes + 4096); /* its structure in pages */
		least = r == 0 || bytes < least ? bytes : least;
		most = bytes > most ? bytes : most;
	}
	assert_true(least > 12 * each && most < 12 * each + 8192 && most - least < 1024);
	assert_int_equal(count_files(x.stage.out), n + 1);
	long record = asked[COMMIT].opens;
	assert_int_equal(record, 3); /* the record, and two folders to sync them */
	check_values(x.stage.out, &x.tensors, 1, 0);
	print_message("| %d | %s | %d | 2 | %ld to %ld | %ld |\n", n, mesh, n + 1, least, most, record);
	free_world(&x);
}

static void of_many_ranks(void **state)
{
	enum { EACH = 1024 };
	(void)state;
	print_message("| ranks | mesh | files | opens of a rank | bytes of a part, %d weights each | opens for the record |\n", EACH);
	save_by("n1", (const int[]){ 1, 1, 1, 1 }, EACH, "1,1,1,1");
	save_by("n8", (const int[]){ 2, 4, 1, 1 }, EACH, "2,4,1,1");
	save_by("n64", (const int[]){ 4, 8, 1, 2 }, EACH, "4,8,1,2");
	save_by("n512", (const int[]){ 64, 8, 1, 1 }, EACH, "64,8,1,1");
	save_by("n512s", (const int[]){ 1, 128, 1, 4 }, EACH, "1,128,1,4");
	save_by("n512d", (const int[]){ 512, 1, 1, 1 }, EACH, "512,1,1,1");
}

int main(void)
{
	lwm_log_init("test_saver", LWM_ERROR);
	const struct CMUnitTest tests[] = { cmocka_unit_test(saves_what_was_there_when_it_began),
					    cmocka_unit_test(one_that_fails_leaves_what_stands),
					    cmocka_unit_test(one_that_is_given_up_ends_soon),
					    cmocka_unit_test(older_ones_are_removed_behind), cmocka_unit_test(of_many_ranks) };
	return cmocka_run_group_tests_name("saver", tests, scratch_make, scratch_remove);
}
