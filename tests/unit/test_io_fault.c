/* The disk full at any place, every call that can fail failing in turn, no memory: errors are clean, what stood
 * before stands. */
#include "tests/unit/io_fault.h"
#include "tests/unit/tensor_table.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "common/io/ckpt.h"
#include "common/io/docshard.h"
#include "common/io/model.h"

/* ---- the k-th call fails: these stand before the C library's ----
 *
 * Only calls from this program, which holds the library under test, fail: what HDF5 does without memory or with a
 * failed write to its file in memory is its own affair. */

extern char __executable_start, etext;

static bool ours(const void *caller)
{
	return (const char *)caller >= &__executable_start && (const char *)caller < &etext;
}

static int64_t countdown = -1; /* calls until one fails; negative: none */
static int fired, fail_errno;
static bool short_writes;

static bool due(const void *caller)
{
	if (countdown < 0 || !ours(caller) || countdown-- > 0)
		return false;
	fired = 1;
	errno = fail_errno;
	return true;
}

static void *next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	ssize_t (*real)(int, const void *, size_t, off_t);
	*(void **)&real = next("pwrite");
	if (due(__builtin_return_address(0)))
		return -1;
	return real(fd, p, short_writes && n > 7 ? n / 2 : n, at);
}

ssize_t write(int fd, const void *p, size_t n)
{
	ssize_t (*real)(int, const void *, size_t);
	*(void **)&real = next("write");
	if (fd > 2 && due(__builtin_return_address(0)))
		return -1;
	return real(fd, p, short_writes && fd > 2 && n > 7 ? n / 2 : n);
}

int fsync(int fd)
{
	int (*real)(int);
	*(void **)&real = next("fsync");
	return due(__builtin_return_address(0)) ? -1 : real(fd);
}

int rename(const char *a, const char *b)
{
	int (*real)(const char *, const char *);
	*(void **)&real = next("rename");
	return due(__builtin_return_address(0)) ? -1 : real(a, b);
}

/* ---- what is tried ---- */

static const struct lwm_docs_meta meta = { 1000, 0, "", "test 1", "", "none" };

static int write_docs(int64_t docs, struct lwm_err *e)
{
	struct lwm_docs_writer *w;
	static int32_t t[3000];
	LWM_TRY(lwm_docs_create(&w, at("a.h5"), &meta, true, e));
	for (int64_t i = 0; i < docs; i++) {
		int rc = lwm_docs_append(w, "d", NULL, t, 3000, NULL, 0, e);
		if (rc < 0) {
			lwm_docs_discard(w);
			return rc;
		}
	}
	return lwm_docs_commit(w, e);
}

static int64_t read_docs(void)
{
	struct lwm_docs *d;
	struct lwm_err e = { 0 };
	static int32_t t[3000];
	int rc = lwm_docs_open(&d, at("a.h5"), &e);
	if (rc < 0) {
		assert_int_equal(rc, -LWM_EDATA);
		return -1;
	}
	for (int64_t i = 0; i < lwm_docs_count(d); i++)
		must(lwm_docs_read(d, i, 0, 3000, t, &e), &e);
	int64_t n = lwm_docs_count(d);
	lwm_docs_close(d);
	return n;
}

static const struct lwm_tensor tensor = { .name = "model.norm.weight", .ndim = 1, .shape = { 50000 } };

static int save_step(int64_t step, struct lwm_err *e)
{
	static float v[50000];
	char *dir = lwm_ckpt_dir(at("ck"), step);
	struct lwm_ckpt_slice s = { 0, 0, 50000, 1, 0, { v, v, v } };
	struct lwm_ckpt_out o = { dir, 0, TABLE(&tensor, 1), &s, 1, LWM_CKPT_TRAINED_ALL, NULL, NULL, NULL };
	struct lwm_ckpt_part part;
	json_t *config = json_pack("{s:{s:i,s:i}}", "model", "hidden_size", 8, "num_attention_heads", 2);
	struct lwm_ckpt_meta m = { "lwm", step, "1,1,1,1", 1, config, NULL, "", "", LWM_CKPT_TRAINED_ALL };
	int rc = lwm_ckpt_write_part(&o, &part, e);
	if (rc == 0)
		rc = lwm_ckpt_commit(dir, &m, TABLE(&tensor, 1), &part, 1, &s, e);
	json_decref(config);
	free(dir);
	return rc;
}

static int64_t newest(void)
{
	struct lwm_err e = { 0 };
	char *dir;
	must(lwm_ckpt_latest(&dir, at("ck"), true, LWM_CKPT_FULL, NULL, NULL, &e), &e);
	int64_t step = dir ? strtoll(strrchr(dir, '_') + 1, NULL, 10) : -1;
	free(dir);
	return step;
}

static int write_model(struct lwm_err *e)
{
	struct lwm_model_writer *w;
	static float v[50000];
	json_t *config = json_pack("{s:i,s:i}", "hidden_size", 8, "num_attention_heads", 2);
	struct lwm_model_spec spec = { .kind = "lwm", .config = config };
	int rc = lwm_model_create(&w, at("m"), &spec, TABLE(&tensor, 1), true, e);
	json_decref(config);
	LWM_TRY(rc);
	rc = lwm_model_add(w, v, e);
	if (rc == 0)
		return lwm_model_commit(w, e);
	lwm_model_discard(w);
	return rc;
}

static bool model_reads(void)
{
	struct lwm_model *m;
	bool ok = lwm_model_open(&m, at("m"), NULL) == 0;
	lwm_model_close(m);
	return ok;
}

static void every_call_fails_once(void **state)
{
	(void)state;
	static const int errnos[] = { ENOSPC, EIO, EDQUOT };
	struct lwm_err e = { 0 };
	int64_t calls = 0;
	for (int n = 0; n < 3; n++) {
		int64_t k;
		fail_errno = errnos[n];
		must(write_docs(2, &e), &e);
		must(write_model(&e), &e);
		must(save_step(1 + n * 1000, &e), &e);
		for (k = 0; k < 1000; k++) {
			struct lwm_err why = { 0 };
			int64_t before = read_docs();
			fired = 0;
			countdown = k;
			int rc = write_docs(3 + k % 5, &why);
			countdown = -1;
			int64_t now = read_docs();
			assert_true(rc < 0 || now == 3 + k % 5);
			assert_true(rc == 0 || (why.msg[0] && (now == before || now < 0 || now == 3 + k % 5)));
			if (!fired)
				break;
			assert_true(rc < 0 || fail_errno == EIO || k > 0);
			must(write_docs(2, &e), &e);
		}
		calls += k;
		assert_in_range(k, 5, 900); /* the loop went over all calls */
		for (k = 0; k < 1000; k++) {
			struct lwm_err why = { 0 };
			int64_t before = newest(), step = 2 + n * 1000 + k;
			fired = 0;
			countdown = k;
			int rc = save_step(step, &why);
			countdown = -1;
			int64_t now = newest();
			assert_true(rc == 0 ? now == step : now == before || now == step);
			assert_true(rc == 0 || why.msg[0]);
			if (!fired)
				break;
		}
		calls += k;
		assert_in_range(k, 5, 900);
		for (k = 0; k < 1000; k++) {
			struct lwm_err why = { 0 };
			fired = 0;
			countdown = k;
			int rc = write_model(&why);
			countdown = -1;
			assert_true(rc == 0 || why.msg[0]);
			assert_true(model_reads()); /* old or new, never half of one */
			if (!fired)
				break;
		}
		calls += k;
		assert_in_range(k, 5, 900);
	}
	printf("T4: %d calls failed once each: disk full, I/O error, quota\n", (int)calls);
}

static void short_writes_are_finished(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	short_writes = true;
	int a = write_docs(4, &e), b = write_model(&e), c = save_step(9000, &e);
	short_writes = false;
	must(a, &e);
	must(b, &e);
	must(c, &e);
	assert_int_equal(read_docs(), 4);
	assert_true(model_reads());
	assert_int_equal(newest(), 9000);
}

/* ---- a real full disk ---- */

static void fill_up(const char *path, int64_t leave)
{
	static char zeros[4096];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	assert_true(fd >= 0);
	while (lwm_space_free(path) > leave && write(fd, zeros, sizeof zeros) > 0)
		;
	close(fd);
}

static char mounted[160]; /* taken down also when the test fails */

static void a_full_disk(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	char disk[160], kept[160];
	snprintf(disk, sizeof disk, "%s", at("disk"));
	assert_int_equal(mkdir(disk, 0777), 0);
	if (mount("tmpfs", disk, "tmpfs", 0, "size=1500k")) {
		print_message("[  SKIPPED ] a_full_disk: mounting a small file system is not permitted here\n");
		skip();
	}
	snprintf(mounted, sizeof mounted, "%s", disk);
	snprintf(kept, sizeof kept, "%s", scratch);
	snprintf(scratch, sizeof scratch, "%s", disk);
	must(write_docs(2, &e), &e);
	must(write_model(&e), &e);
	must(save_step(1, &e), &e);
	int failed = 0;
	for (int64_t leave = 0; leave < 700; leave += 4) {
		fill_up(at("ballast"), leave << 10);
		struct lwm_err why = { 0 };
		int rc = write_docs(50, &why);
		assert_true(rc == 0 || (rc == -LWM_EIO && why.msg[0]));
		if (rc < 0)
			assert_int_equal(read_docs(), 2);
		failed += rc < 0;
		memset(&why, 0, sizeof why);
		rc = save_step(2, &why);
		assert_true(rc == 0 ? newest() == 2 : newest() == 1 && why.msg[0]);
		failed += rc < 0;
		memset(&why, 0, sizeof why);
		rc = write_model(&why);
		assert_true(rc == 0 || why.msg[0]);
		assert_true(model_reads());
		unlink(at("ballast"));
		must(lwm_remove_tree(at("ck/step_00000002"), &e), &e);
		must(write_docs(2, &e), &e);
	}
	assert_true(failed > 100);
	snprintf(scratch, sizeof scratch, "%s", kept);
	mounted[0] = 0;
	assert_int_equal(umount(disk), 0);
}

/* ---- no memory ---- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static int64_t malloc_countdown = -1;

static bool no_memory(const void *caller)
{
	if (malloc_countdown < 0 || !ours(caller) || malloc_countdown-- > 0)
		return false;
	fired = 1;
	return true;
}

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);

void *malloc(size_t n)
{
	return no_memory(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t k)
{
	return no_memory(__builtin_return_address(0)) ? NULL : __libc_calloc(n, k);
}

void *realloc(void *p, size_t n)
{
	return no_memory(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}

static int everything(struct lwm_err *e)
{
	struct lwm_docs *d = NULL;
	struct lwm_ckpt *c = NULL;
	struct lwm_model *m = NULL;
	struct lwm_ckpt_keeper *k = NULL;
	static float v[100];
	struct lwm_doc doc;
	int rc;
	LWM_GO(write_docs(2, e));
	LWM_GO(write_model(e));
	LWM_GO(save_step(5, e));
	LWM_GO(lwm_docs_open(&d, at("a.h5"), e));
	LWM_GO(lwm_docs_get(d, 1, &doc, e));
	LWM_GO(lwm_model_open(&m, at("m"), e));
	LWM_GO(lwm_model_read(m, 0, 0, 100, v, e));
	LWM_GO(lwm_ckpt_open(&c, at("ck/step_00000005"), e));
	LWM_GO(lwm_ckpt_read(c, LWM_CKPT_PARAMS, 0, 5, 100, v, e));
	LWM_GO(lwm_ckpt_keeper_new(&k, at("ck"), 1, 0, e));
	rc = lwm_ckpt_keeper_saved(k, 5, e);
out:
	lwm_ckpt_keeper_free(k);
	lwm_docs_close(d);
	lwm_model_close(m);
	lwm_ckpt_close(c);
	return rc;
}

static void every_allocation_fails_once(void **state)
{
	(void)state;
	int64_t k;
	for (k = 0; k < 2000; k++) {
		struct lwm_err e = { 0 };
		fired = 0;
		malloc_countdown = k;
		int rc = everything(&e);
		malloc_countdown = -1;
		if (!fired) {
			must(rc, &e);
			break;
		}
		assert_true(rc == 0 || e.msg[0]);
	}
	assert_in_range(k, 30, 1900);
	printf("T5: %d allocations of saving, loading and retention failed once each\n", (int)k);
}
#else
static void every_allocation_fails_once(void **state)
{
	(void)state;
	print_message("[  SKIPPED ] every_allocation_fails_once: the sanitizer has its own malloc\n");
	skip();
}
#endif

static int tear_down(void **state)
{
	if (mounted[0]) {
		umount2(mounted, MNT_DETACH);
		*strrchr(mounted, '/') = 0;
		snprintf(scratch, sizeof scratch, "%s", mounted);
	}
	return scratch_remove(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_call_fails_once),
		cmocka_unit_test(short_writes_are_finished),
		cmocka_unit_test(a_full_disk),
		cmocka_unit_test(every_allocation_fails_once),
	};
	return cmocka_run_group_tests_name("io_fault", tests, scratch_make, tear_down);
}
