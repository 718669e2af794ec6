/* What reaches the disk, and in which order: nothing has the name that says "finished" before all of it is there.
 *
 * The calls below stand before the C library's and note, by path, what is written, synced, read back and renamed. A file that
 * is written is dirty until it is synced, a folder in which a name appeared until it is. Then the rules:
 *	no file is read back, and none renamed, while dirty
 *	no finishing name (a manifest, COMMIT.json, a model's folder, summary.json) while a file or folder that it speaks of is
 *	nothing is removed while the name that replaces it is not durable
 *	at the end nothing is dirty
 * And each kind of save makes at least so many syncs as its steps need. */
#include "tests/unit/io_fault.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>

#include "common/base/log.h"
#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/base/tmpname.h"
#include "common/io/ckpt.h"
#include "common/io/docshard.h"
#include "common/io/merge.h"
#include "common/io/model.h"
#include "common/io/rowshard.h"
#include "common/train/stage.h"
#include "tests/unit/train_fixture.h"
#include "tests/unit/tensor_table.h"

/* ---- what is noted ---- */

enum { MOST = 200, LONGEST = 400 };
static struct {
	char path[LONGEST];
	bool dirty, folder;
} file[MOST];
static int files, syncs, finished;
static bool watching, no_exchange; /* no_exchange: as on a file system that cannot */
static const char *full;           /* no room for files with this in their path */
static const char *unsteady;       /* this cannot be synced */
static char fault[2 * LONGEST + 100];

static void complain(const char *what, const char *a, const char *b)
{
	if (!fault[0])
		snprintf(fault, sizeof fault, "%s: %.399s%s%.399s", what, a, b ? ", " : "", b ? b : "");
}

static int find(const char *path, bool make)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* a stage writes its checkpoints by a thread */
	int i = 0;
	pthread_mutex_lock(&lock);
	while (i < files && strcmp(file[i].path, path))
		i++;
	if (i == files && make && files == MOST)
		complain("too many files", path, NULL);
	else if (i == files && make)
		snprintf(file[files++].path, LONGEST, "%s", path);
	pthread_mutex_unlock(&lock);
	return i < files ? i : -1;
}

static void mark(const char *path, bool dirty, bool folder)
{
	int i = find(path, dirty);
	if (i < 0)
		return;
	file[i].dirty = dirty;
	file[i].folder = folder;
}

static bool is_dirty(const char *path)
{
	int i = find(path, false);
	return i >= 0 && file[i].dirty;
}

/* Locks and the logs of a run are not what a reader trusts; they are synced when the run ends, or never. */
static bool counts(const char *path)
{
	const char *base = strrchr(path, '/');
	return !strncmp(path, scratch, strlen(scratch)) && base && strcmp(base, "/.lock") && strcmp(base, "/metrics.jsonl") &&
	       strcmp(base, "/history.jsonl") && !strstr(base, " (deleted)");
}

static bool path_of(int fd, char out[LONGEST])
{
	char name[40];
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(name, out, LONGEST - 1);
	out[n > 0 ? n : 0] = 0;
	return n > 0 && counts(out);
}

static void folder_of(const char *path, char out[LONGEST])
{
	snprintf(out, LONGEST, "%s", path);
	*strrchr(out, '/') = 0;
}

static bool ends(const char *s, const char *with)
{
	size_t n = strlen(s), k = strlen(with);
	return n >= k && !strcmp(s + n - k, with);
}

static bool finishes(const char *path, bool folder)
{
	if (folder)
		return !strstr(path, "/.trash") && !strstr(path, ".tmp.");
	return ends(path, "/COMMIT.json") || ends(path, ".manifest.json") || ends(path, "/summary.json");
}

/* A name that says "finished" appears: nothing below its folder (or in it) may be dirty. */
static void check_finish(const char *from, const char *to, bool folder)
{
	char dir[LONGEST];
	folder_of(to, dir);
	finished++;
	for (int i = 0; i < files; i++) {
		const char *p = file[i].path, *in = folder ? from : dir;
		size_t n = strlen(in);
		bool below = !strncmp(p, in, n) && (p[n] == '/' || !p[n]);
		if (file[i].dirty && below && strcmp(p, to))
			complain("finished before this was synced", to, p);
	}
}

static void note_rename(const char *from, const char *to)
{
	struct stat st;
	char dir[LONGEST];
	if (!watching || !counts(to))
		return;
	bool folder = lstat(to, &st) == 0 && S_ISDIR(st.st_mode);
	if (strstr(to, "/.trash")) {
		folder_of(to, dir);
		if (is_dirty(dir))
			complain("taken away while its folder was not synced", to, NULL);
		return;
	}
	if (!folder && is_dirty(from))
		complain("renamed before it was synced", from, to);
	if (finishes(to, folder))
		check_finish(from, to, folder);
	mark(from, false, folder);
	folder_of(to, dir);
	mark(dir, true, true);
}

/* ---- the calls ---- */

static void *next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

static void note_write(int fd)
{
	char path[LONGEST];
	if (watching && path_of(fd, path))
		mark(path, true, false);
}

static bool no_room(int fd)
{
	char path[LONGEST];
	if (!full || !path_of(fd, path) || !strstr(path, full))
		return false;
	errno = ENOSPC;
	return true;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	ssize_t (*real)(int, const void *, size_t, off_t);
	*(void **)&real = next("pwrite");
	note_write(fd);
	return no_room(fd) ? -1 : real(fd, p, n, at);
}

ssize_t write(int fd, const void *p, size_t n)
{
	ssize_t (*real)(int, const void *, size_t);
	*(void **)&real = next("write");
	note_write(fd);
	return no_room(fd) ? -1 : real(fd, p, n);
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
	ssize_t (*real)(int, void *, size_t, off_t);
	char path[LONGEST];
	*(void **)&real = next("pread");
	if (watching && path_of(fd, path) && is_dirty(path))
		complain("read back before it was synced", path, NULL);
	return real(fd, p, n, at);
}

int fsync(int fd)
{
	int (*real)(int);
	char path[LONGEST];
	*(void **)&real = next("fsync");
	if (unsteady && path_of(fd, path) && !strcmp(path, unsteady)) {
		errno = EIO;
		return -1;
	}
	if (watching && path_of(fd, path)) {
		struct stat st;
		syncs++;
		mark(path, false, fstat(fd, &st) == 0 && S_ISDIR(st.st_mode));
	}
	return real(fd);
}

int syncfs(int fd)
{
	int (*real)(int);
	*(void **)&real = next("syncfs");
	if (watching) {
		syncs++;
		for (int i = 0; i < files; i++)
			file[i].dirty = false;
	}
	return real(fd);
}

int rename(const char *a, const char *b)
{
	int (*real)(const char *, const char *), rc;
	*(void **)&real = next("rename");
	rc = real(a, b);
	if (rc == 0)
		note_rename(a, b);
	return rc;
}

int renameat2(int da, const char *a, int db, const char *b, unsigned flags)
{
	int (*real)(int, const char *, int, const char *, unsigned), rc;
	*(void **)&real = next("renameat2");
	errno = EINVAL;
	rc = no_exchange ? -1 : real(da, a, db, b, flags);
	if (rc == 0)
		note_rename(a, b);
	return rc;
}

int mkdir(const char *path, mode_t mode)
{
	int (*real)(const char *, mode_t), rc;
	char dir[LONGEST];
	*(void **)&real = next("mkdir");
	rc = real(path, mode);
	if (rc == 0 && watching && counts(path) && strstr(path, "/step_")) {
		folder_of(path, dir);
		mark(dir, true, true);
	}
	return rc;
}

/* Files of the folder that was exchanged for a new one: the exchange must be durable first. */
static void note_removal(const char *path)
{
	char above[LONGEST], *tmp;
	if (!watching || !counts(path))
		return;
	mark(path, false, false);
	if (ends(path, "/" LWM_TMP_LOCK)) { /* it would stand in the finished folder */
		folder_of(path, above);
		mark(above, true, true);
	}
	snprintf(above, sizeof above, "%s", path);
	tmp = strstr(above, ".tmp.");
	if (!tmp || !strchr(tmp, '/')) /* not below it */
		return;
	*tmp = 0;
	*strrchr(above, '/') = 0;
	if (is_dirty(above))
		complain("removed before what replaces it was durable", path, above);
}

int unlink(const char *path)
{
	int (*real)(const char *);
	*(void **)&real = next("unlink");
	note_removal(path);
	return real(path);
}

int unlinkat(int dir, const char *name, int flags)
{
	int (*real)(int, const char *, int);
	char path[LONGEST];
	*(void **)&real = next("unlinkat");
	if (name[0] == '/') {
		note_removal(name);
	} else if (path_of(dir, path) && snprintf(path + strlen(path), LONGEST - strlen(path), "/%s", name) > 0) {
		note_removal(path);
	}
	return real(dir, name, flags);
}

int remove(const char *path)
{
	int (*real)(const char *);
	*(void **)&real = next("remove");
	note_removal(path);
	return real(path);
}

/* ---- cases ---- */

static int all_finished, all_syncs;
static void watch(void)
{
	files = syncs = finished = 0;
	fault[0] = 0;
	watching = true;
}

/* names: finishing ones that must have appeared. least: syncs, of files and folders. */
static void check(const char *what, int names, int least)
{
	watching = false;
	for (int i = 0; i < files; i++)
		if (file[i].dirty)
			complain("not synced at the end", file[i].path, NULL);
	if (fault[0])
		fail_msg("%s: %s", what, fault);
	all_finished += finished, all_syncs += syncs;
	if (finished != names || syncs < least)
		fail_msg("%s: %d finishing names, expected %d; %d syncs, at least %d", what, finished, names, syncs, least);
}

static void write_docs(void)
{
	static const struct lwm_docs_meta meta = { 1000, 0, "", "test 1", "", "none" };
	static int32_t t[40000];
	struct lwm_docs_writer *w;
	struct lwm_err e = { 0 };
	must(lwm_docs_create(&w, at("a.docs.h5"), &meta, true, &e), &e);
	for (int i = 0; i < 20; i++) /* more than is held in memory */
		must(lwm_docs_append(w, "d", NULL, t, 40000, NULL, 0, &e), &e);
	must(lwm_docs_commit(w, &e), &e);
}

/* The shard: synced, read back, renamed, folder; the manifest: the same. */
static void shards(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	for (int again = 0; again < 2; again++) { /* the second time over a finished one */
		watch();
		write_docs();
		check("documents", 1, 4);
		watch();
		if (again == 0) {
			must(fx_rows(at("rows.h5"), &e), &e);
			check("rows", 1, 4);
		}
		watching = false;
	}
}

static const struct lwm_tensor tensors[] = { { .name = "model.norm.weight", .ndim = 1, .shape = { 50000 } }, { .name = "model.other.weight", .ndim = 1, .shape = { 30000 } } };

static void save_step(int64_t step)
{
	static float v[50000];
	char *dir = lwm_ckpt_dir(at("ck"), step);
	struct lwm_ckpt_part part[2];
	struct lwm_ckpt_slice s[2];
	struct lwm_err e = { 0 };
	json_t *config = json_pack("{s:{s:i,s:i}}", "model", "hidden_size", 8, "num_attention_heads", 2);
	struct lwm_ckpt_meta m = { "lwm", step, "2,1,1,1", 2, config, NULL, "", "", LWM_CKPT_TRAINED_ALL };
	for (int r = 0; r < 2; r++) {
		s[r] = (struct lwm_ckpt_slice){ r, 0, tensors[r].shape[0], 1, 0, { v, v, v } };
		struct lwm_ckpt_out o = { dir, r, TABLE(tensors, 2), &s[r], 1, LWM_CKPT_TRAINED_ALL, NULL, NULL, NULL };
		must(lwm_ckpt_write_part(&o, &part[r], &e), &e);
	}
	must(lwm_ckpt_commit(dir, &m, TABLE(tensors, 2), part, 2, s, &e), &e);
	json_decref(config);
	free(dir);
}

/* Two parts (file and folder each), the record (file and folder), and the root, where the folder's own name is. */
static void checkpoints(void **state)
{
	struct lwm_ckpt_keeper *k;
	struct lwm_err e = { 0 };
	(void)state;
	must(lwm_mkdirs(at("ck"), &e), &e);
	for (int64_t step = 1; step <= 2; step++) {
		watch();
		save_step(step);
		check("checkpoint", 1, 7);
	}
	watch();
	must(lwm_ckpt_keeper_new(&k, at("ck"), 1, 0, &e), &e);
	must(lwm_ckpt_keeper_saved(k, 2, &e), &e);
	assert_false(lwm_path_exists(at("ck/step_00000001")));
	lwm_ckpt_keeper_free(k);
	check("retiring", 0, 0);
}

static int put_tokenizer(void *ctx, const char *dir, struct lwm_err *e)
{
	char path[LONGEST];
	(void)ctx;
	snprintf(path, sizeof path, "%s/tokenizer.txt", dir);
	return lwm_write_file(path, "bytes\n", 6, false, e);
}

static int try_model(int64_t most, struct lwm_err *e)
{
	static float v[50000];
	struct lwm_model_writer *w;
	json_t *config = json_pack("{s:i,s:i}", "hidden_size", 8, "num_attention_heads", 2);
	struct lwm_model_spec spec = { .kind = "lwm", .config = config, .dtype = LWM_ST_F32, .max_file_bytes = most,
				       .extra = put_tokenizer };
	must(lwm_model_create(&w, at("m"), &spec, TABLE(tensors, 2), true, e), e);
	must(lwm_model_add(w, v, e), e);
	must(lwm_model_add(w, v, e), e);
	int rc = lwm_model_commit(w, e);
	json_decref(config);
	return rc;
}

static void write_model(int64_t most)
{
	struct lwm_err e = { 0 };
	must(try_model(most, &e), &e);
}

/* Each file and its folder, then the folder's own: of one file of weights; of two with their index, in place of the first. */
static void models(void **state)
{
	(void)state;
	watch();
	write_model(0);
	check("model", 1, 9);
	watch();
	write_model(210000);
	check("model over another", 1, 13);
	no_exchange = true;
	watch();
	write_model(0);
	check("model over that, without exchanging", 1, 9);
	no_exchange = false;
}

static int temporaries(void)
{
	int n = 0;
	DIR *d = opendir(scratch);
	assert_non_null(d);
	for (struct dirent *x; (x = readdir(d));)
		n += strstr(x->d_name, ".tmp.") != NULL;
	closedir(d);
	return n;
}

/* When it cannot be made sure that the new one lasts, the old one stands and nothing else. */
static void a_model_that_may_not_last(void **state)
{
	struct lwm_hash before, after;
	struct lwm_err e = { 0 };
	(void)state;
	write_model(0);
	must(lwm_hash_file(at("m/manifest.json"), &before, NULL, &e), &e);
	for (int i = 0; i < 2; i++) {
		struct lwm_model *m;
		no_exchange = i;
		unsteady = scratch;
		assert_int_equal(try_model(210000, &e), -LWM_EIO);
		unsteady = NULL;
		lwm_err_clear(&e);
		must(lwm_hash_file(at("m/manifest.json"), &after, NULL, &e), &e);
		assert_string_equal(before.hex, after.hex);
		must(lwm_model_open(&m, at("m"), &e), &e);
		must(lwm_model_check(m, &e), &e);
		lwm_model_close(m);
		assert_int_equal(temporaries(), 0);
	}
	no_exchange = false;
}

static void merges(void **state)
{
	struct lwm_model_spec spec = { .dtype = LWM_ST_BF16 };
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	char *dir = lwm_ckpt_dir(at("ck"), 2);
	(void)state;
	must(lwm_ckpt_open(&c, dir, &e), &e);
	watch();
	must(lwm_merge_model(c, LWM_CKPT_PARAMS, false, at("merged"), &spec, true, NULL, &e), &e);
	check("merge", 1, 7);
	must(lwm_mkdirs(at("recut"), &e), &e);
	watch();
	must(lwm_merge_recut(c, at("recut"), 3, "3,1,1,1", true, NULL, &e), &e);
	check("another mesh", 1, 9);
	lwm_ckpt_close(c);
	free(dir);
}

static int run_on(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	return lwm_stage_run(arg, c, e);
}

/* A whole stage: two checkpoints, the older retired only when the newer stands, and the summary behind both. */
static void a_stage(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[LONGEST];
	(void)state;
	snprintf(out, sizeof out, "%s", at("out"));
	must(fx_stage(&s, at("rows.h5"), out, &e), &e);
	s.steps = 4;
	s.checkpoint_every = 2;
	s.keep = 1;
	watch();
	must(lwm_comm_threads(1, run_on, &s, &e), &e);
	check("stage", 3, 2 * 5 + 2);
	lwm_stage_release(&s);
}

static bool committed(const char *out, int64_t step)
{
	char path[LONGEST + 40];
	snprintf(path, sizeof path, "%s/step_%08d/COMMIT.json", out, (int)step);
	return lwm_path_exists(path);
}

/* No room for a checkpoint: in the middle of a run it goes on with what stands, at the end that is an error. */
static void a_full_disk(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[LONGEST];
	(void)state;
	snprintf(out, sizeof out, "%s", at("full"));
	must(fx_stage(&s, at("rows.h5"), out, &e), &e);
	s.steps = 4;
	s.checkpoint_every = 1;
	s.keep = 2;
	full = "/step_00000002";
	must(lwm_comm_threads(1, run_on, &s, &e), &e);
	assert_false(committed(out, 2));
	assert_true(committed(out, 3) && committed(out, 4));
	s.steps = 5;
	full = "/step_00000005";
	assert_int_equal(lwm_comm_threads(1, run_on, &s, &e), -LWM_EIO);
	assert_false(committed(out, 5));
	assert_true(committed(out, 3) && committed(out, 4));
	full = NULL;
	lwm_err_clear(&e);
	must(lwm_comm_threads(1, run_on, &s, &e), &e);
	assert_true(committed(out, 5));
	lwm_stage_release(&s);
}

/* Many small files at once: one sync of the file system at the end, and none before. */
static void a_batch(void **state)
{
	struct lwm_err e = { 0 };
	char name[32];
	(void)state;
	watch();
	lwm_outfile_batch_begin();
	for (int i = 0; i < 5; i++) {
		snprintf(name, sizeof name, "small%d", i);
		must(lwm_write_file(at(name), "x", 1, true, &e), &e);
	}
	assert_int_equal(syncs, 0);
	must(lwm_outfile_batch_end(scratch, &e), &e);
	assert_int_equal(syncs, 1);
	fault[0] = 0; /* they had their names before: that is what a batch is for */
	check("batch", 0, 1);
	watch();
	must(lwm_write_file(at("after"), "x", 1, true, &e), &e);
	check("after a batch", 0, 2);
}

int main(void)
{
	lwm_log_init("test_io_order", LWM_ERROR);
	const struct CMUnitTest tests[] = { cmocka_unit_test(shards), cmocka_unit_test(checkpoints), cmocka_unit_test(models),
					    cmocka_unit_test(a_model_that_may_not_last), cmocka_unit_test(merges),
					    cmocka_unit_test(a_stage), cmocka_unit_test(a_batch), cmocka_unit_test(a_full_disk) };
	int rc = cmocka_run_group_tests_name("io_order", tests, scratch_make, scratch_remove);
	printf("T3: %d finishing names, all before them on the disk, by %d syncs\n", all_finished, all_syncs);
	return rc;
}
