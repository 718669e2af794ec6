/* What opening and reading cost, counted per rank: the calls below stand before the C library's. Ranks are threads.
 *
 * The law that common/data/README.md extrapolates from: the first rank opens one index a folder and looks once at each shard, the
 * others open and look at nothing; a shard costs its opening when its first row is wanted, and nothing but descriptors after that.
 *
 *	build/rel/tests/unit/test_loader_count SHARDS RANKS STEPS      prints the table for one row a rank and step
 */
#include "tests/unit/data_fixture.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/data/loader/loader.h"
#include "common/data/pack/pack.h"
#include "common/io/rowindex.h"

struct counts {
	long opens, looks, bytes;
};
static _Thread_local struct counts mine;
static bool counting;

static bool ours(const char *path)
{
	return counting && !strncmp(path, scratch, strlen(scratch));
}

static void *next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

int open(const char *path, int flags, ...)
{
	int (*real)(const char *, int, ...);
	va_list ap;
	va_start(ap, flags);
	unsigned mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, unsigned) : 0;
	va_end(ap);
	*(void **)&real = next("open");
	mine.opens += ours(path);
	return real(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	int (*real)(const char *, int, ...);
	va_list ap;
	va_start(ap, flags);
	unsigned mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, unsigned) : 0;
	va_end(ap);
	*(void **)&real = next("open64");
	mine.opens += ours(path);
	return real(path, flags, mode);
}

int stat(const char *restrict path, struct stat *restrict st)
{
	int (*real)(const char *, struct stat *);
	*(void **)&real = next("stat");
	mine.looks += ours(path);
	return real(path, st);
}

int access(const char *path, int how)
{
	int (*real)(const char *, int);
	*(void **)&real = next("access");
	mine.looks += ours(path);
	return real(path, how);
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
	ssize_t (*real)(int, void *, size_t, off_t);
	*(void **)&real = next("pread");
	mine.bytes += counting ? (long)n : 0;
	return real(fd, p, n, at);
}

ssize_t pread64(int fd, void *p, size_t n, off64_t at)
{
	ssize_t (*real)(int, void *, size_t, off64_t);
	*(void **)&real = next("pread64");
	mine.bytes += counting ? (long)n : 0;
	return real(fd, p, n, at);
}

ssize_t read(int fd, void *p, size_t n)
{
	ssize_t (*real)(int, void *, size_t), k;
	*(void **)&real = next("read");
	k = real(fd, p, n);
	mine.bytes += counting && k > 0 ? (long)k : 0;
	return k;
}

/* ---- a folder of shards ---- */

enum { SEQ = 1024, PER = 8 /* rows of a shard */, MOST_RANKS = 8 };

static void make_folder(const char *name, int64_t shards, bool index)
{
	struct lwm_pack_source from = { .name = "x" };
	struct lwm_pack_stats st;
	int64_t n = shards * PER, *len = malloc((size_t)n * sizeof *len);
	char path[100];
	assert_non_null(len);
	for (int64_t i = 0; i < n; i++)
		len[i] = SEQ;
	snprintf(path, sizeof path, "%s.docs.h5", name);
	fix_shard(in_scratch(path), len, n, 0);
	OK(lwm_paths_add(&from.shards, in_scratch(path), &err));
	struct lwm_pack_cfg cfg = { .source = &from, .nsources = 1, .seq_length = SEQ, .shuffle = true, .tool = "test",
				    .output = in_scratch(name), .rows_per_shard = PER };
	OK(lwm_pack_run(&cfg, &st, NULL, &err));
	assert_int_equal(st.shards, shards);
	if (!index) {
		snprintf(path, sizeof path, "%s/" LWM_ROWINDEX_NAME, name);
		assert_int_equal(unlink(in_scratch(path)), 0);
	}
	lwm_paths_release(&from.shards);
	free(len);
}

struct job {
	const char *dir;
	int64_t rows;  /* a rank and step */
	int64_t from, steps;
	struct counts start[MOST_RANKS], steady[MOST_RANKS];
	int64_t first[MOST_RANKS]; /* token of the last batch */
	struct lwm_hash content[MOST_RANKS];
};

static struct counts taken(void)
{
	struct counts c = mine;
	mine = (struct counts){ 0 };
	return c;
}

static int rank(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct job *j = arg;
	struct lwm_loader_source src = { .name = "x" };
	int r = lwm_comm_rank(c), n = lwm_comm_size(c);
	struct lwm_loader *l;
	struct lwm_batch *b;
	LWM_TRY(lwm_paths_add(&src.shards, j->dir, e));
	struct lwm_loader_cfg cfg = { .source = &src, .nsources = 1, .seed = 3, .rows_per_step = j->rows * n, .rank = r, .ranks = n,
				      .micro_rows = j->rows, .comm = c };
	taken();
	int rc = lwm_loader_open(&l, &cfg, e);
	j->start[r] = taken();
	lwm_paths_release(&src.shards);
	LWM_TRY(rc);
	j->content[r] = lwm_loader_info_of(l)->content;
	for (int64_t s = 0; s < j->steps && rc == 0; s++) {
		if (s == j->from)
			taken();
		rc = lwm_loader_get(l, s, 0, &b, e);
		j->first[r] = rc == 0 ? b->tokens[0] : 0;
	}
	j->steady[r] = taken();
	lwm_loader_close(l);
	return rc;
}

static void run(struct job *j, int ranks)
{
	lwm_err_clear(&err);
	counting = true;
	int rc = lwm_comm_threads(ranks, rank, j, &err);
	counting = false;
	if (rc < 0)
		fail_msg("%s", err.msg);
	for (int r = 1; r < ranks; r++)
		assert_string_equal(j->content[r].hex, j->content[0].hex);
}

enum { SHARDS = 300, RANKS = 4 };

static void start_costs_one_rank_one_open(void **state)
{
	(void)state;
	struct job j = { .dir = in_scratch("a"), .rows = 1, .steps = 1 };
	run(&j, RANKS);
	assert_int_equal(j.start[0].opens, 1);           /* the index */
	assert_int_equal(j.start[0].looks, SHARDS + 2);  /* each shard; the folder and the index themselves */
	for (int r = 1; r < RANKS; r++) {
		assert_int_equal(j.start[r].opens, 0);
		assert_int_equal(j.start[r].looks, 0);
		assert_int_equal(j.start[r].bytes, 0);
	}
	for (int r = 0; r < RANKS; r++) { /* the first row opens one shard */
		assert_int_equal(j.steady[r].opens, 1);
		assert_true(j.steady[r].bytes < 40000); /* of 2 KiB; it was 364 KiB and the whole shard besides */
	}
}

/* Without an index, the manifests: by the first rank alone, and to the same end. */
static void without_an_index_the_manifests_are_read(void **state)
{
	(void)state;
	struct job a = { .dir = in_scratch("a"), .rows = 2, .steps = 3 }, b = { .dir = in_scratch("b"), .rows = 2, .steps = 3 };
	run(&a, RANKS);
	run(&b, RANKS);
	assert_int_equal(b.start[0].opens, SHARDS);
	for (int r = 0; r < RANKS; r++) {
		assert_true(r == 0 || b.start[r].opens + b.start[r].looks == 0);
		assert_string_equal(a.content[r].hex, b.content[r].hex);
		assert_int_equal(a.first[r], b.first[r]);
	}
}

/* One rank with few descriptors goes through all rows twice: a shard is opened as one once, after that as a mere descriptor. */
static void what_was_open_once_is_not_read_again(void **state)
{
	(void)state;
	struct rlimit was, few;
	struct job all = { .dir = in_scratch("a"), .rows = PER, .steps = 2 * SHARDS, .from = SHARDS };
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	few = was;
	few.rlim_cur = 64;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	run(&all, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_true(all.steady[0].opens <= SHARDS * PER && all.steady[0].opens > SHARDS * PER * 9 / 10);
	assert_int_equal(all.steady[0].looks, 0); /* of a shard opened by HDF5 there is one */
	assert_true(all.steady[0].bytes < 30000L * SHARDS * PER);
	struct job many = { .dir = in_scratch("c"), .rows = PER, .steps = 400, .from = 200 };
	run(&many, 1); /* as many shards as stay open */
	assert_int_equal(many.steady[0].opens, 0);
}

/* ---- an index that does not fit ---- */

static void facts(const char *shard, struct lwm_rows_facts *f, bool *indexed)
{
	struct lwm_rowindex x;
	char path[100];
	snprintf(path, sizeof path, "d/%s", shard);
	lwm_err_clear(&err);
	int there = lwm_rowindex_read(&x, in_scratch("d"), &err);
	assert_true(there >= 0);
	OK(lwm_rowindex_facts(&x, in_scratch(path), f, indexed, &err));
	lwm_rowindex_release(&x);
}

static void copy(const char *from, const char *to)
{
	char *s;
	size_t n;
	OK(lwm_read_file(from, 1 << 30, &s, &n, &err));
	OK(lwm_write_file(to, s, n, true, &err));
	free(s);
}

static void a_stale_entry_does_not_count(void **state)
{
	(void)state;
	struct lwm_rows_facts f, other;
	bool indexed;
	make_folder("d", 4, true);
	facts("rows-00001.rows.h5", &f, &indexed);
	assert_true(indexed);
	facts("rows-00002.rows.h5", &other, &indexed);
	assert_string_not_equal(f.content, other.content);
	lwm_err_clear(&err);
	OK(lwm_rowindex_check(in_scratch("d/" LWM_ROWINDEX_NAME), &err));
	usleep(20000); /* times of files are no finer than a tick of the kernel */
	copy(in_scratch("d/rows-00001.rows.h5"), in_scratch("d/rows-00001.rows.h5")); /* the same, but that is not known */
	facts("rows-00001.rows.h5", &f, &indexed);
	assert_false(indexed);
	const struct timespec old[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	const struct timespec late[2] = { { .tv_sec = 1LL << 33 }, { .tv_sec = 1LL << 33 } };
	assert_int_equal(utimensat(AT_FDCWD, in_scratch("d/rows-00001.rows.h5"), old, 0), 0); /* as of one that was moved there */
	facts("rows-00001.rows.h5", &f, &indexed);
	assert_false(indexed);
	OK(lwm_rowindex_update(in_scratch("d"), &err));
	facts("rows-00001.rows.h5", &f, &indexed);
	assert_true(indexed);
	assert_int_equal(utimensat(AT_FDCWD, in_scratch("d/rows-00001.rows.h5"), late, 0), 0);
	OK(lwm_rowindex_update(in_scratch("d"), &err)); /* of a clock that is ahead nothing is known */
	facts("rows-00001.rows.h5", &f, &indexed);
	assert_false(indexed);
	usleep(20000);
	copy(in_scratch("d/rows-00002.rows.h5"), in_scratch("d/rows-00001.rows.h5"));
	copy(in_scratch("d/rows-00002.rows.h5.manifest.json"), in_scratch("d/rows-00001.rows.h5.manifest.json"));
	facts("rows-00001.rows.h5", &f, &indexed);
	assert_false(indexed);
	assert_string_equal(f.content, other.content);
	assert_int_equal(lwm_rowindex_check(in_scratch("d/" LWM_ROWINDEX_NAME), &err), -LWM_EDATA);
	assert_non_null(strstr(err.msg, "rows-00001.rows.h5"));
	OK(lwm_rowindex_update(in_scratch("d"), &err)); /* made again */
	OK(lwm_rowindex_check(in_scratch("d/" LWM_ROWINDEX_NAME), &err));
	facts("rows-00001.rows.h5", &f, &indexed);
	assert_true(indexed);
	assert_string_equal(f.content, other.content);
}

/* Facts of another content than the file's: whoever opens it as that is refused. */
static void content_is_compared_when_a_shard_is_opened(void **state)
{
	(void)state;
	struct lwm_rows_facts f, g;
	struct lwm_rows_reader *r;
	facts("rows-00003.rows.h5", &f, NULL);
	OK(lwm_rows_open_as(&r, in_scratch("d/rows-00003.rows.h5"), &f, &err));
	lwm_rows_close(r);
	lwm_err_clear(&err);
	g = f;
	g.content[0] ^= 1;
	assert_int_equal(lwm_rows_open_as(&r, in_scratch("d/rows-00003.rows.h5"), &g, &err), -LWM_EDATA);
	g = f;
	g.shape.rows++;
	lwm_err_clear(&err);
	assert_int_equal(lwm_rows_open_as(&r, in_scratch("d/rows-00003.rows.h5"), &g, &err), -LWM_EDATA);
	g = f;
	g.bytes++;
	lwm_err_clear(&err);
	assert_int_equal(lwm_rows_open_as(&r, in_scratch("d/rows-00003.rows.h5"), &g, &err), -LWM_EDATA);
}

/* A shard that is gone, or shorter than the index says, is told at the start, by every rank. */
static int expects_failure(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	atomic_int *failed = arg;
	struct job j = { .dir = in_scratch("d"), .rows = 1 };
	if (rank(c, &j, e) == -LWM_EDATA)
		atomic_fetch_add(failed, 1);
	lwm_err_clear(e);
	return 0;
}

static void damage_is_told_at_the_start(void **state)
{
	(void)state;
	atomic_int failed = 0;
	assert_int_equal(truncate(in_scratch("d/rows-00000.rows.h5"), 5000), 0);
	OK(lwm_comm_threads(3, expects_failure, &failed, &err));
	assert_int_equal(failed, 3);
}

static int make_folders(void **state)
{
	if (scratch_make(state))
		return -1;
	make_folder("a", SHARDS, true);
	make_folder("b", SHARDS, false);
	make_folder("c", 20, true);
	return 0;
}

static int print_table(int64_t shards, int ranks, int64_t steps)
{
	void *state = NULL;
	if (scratch_make(&state))
		return 1;
	make_folder("t", shards, true);
	for (int index = 1; index >= 0; index--) {
		struct job j = { .dir = in_scratch("t"), .rows = 1, .steps = steps };
		run(&j, ranks);
		for (int r = 0; r < ranks; r += ranks > 1 ? ranks - 1 : 1)
			printf("shards=%" PRId64 " ranks=%d rank=%d index=%d start_opens=%ld start_looks=%ld start_bytes=%ld "
			       "step_opens=%.3f step_looks=%.3f step_bytes=%.0f\n", shards, ranks, r, index, j.start[r].opens,
			       j.start[r].looks, j.start[r].bytes, (double)j.steady[r].opens / (double)steps,
			       (double)j.steady[r].looks / (double)steps, (double)j.steady[r].bytes / (double)steps);
		unlink(in_scratch("t/" LWM_ROWINDEX_NAME));
	}
	return scratch_remove(&state);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(start_costs_one_rank_one_open),
		cmocka_unit_test(without_an_index_the_manifests_are_read),
		cmocka_unit_test(what_was_open_once_is_not_read_again),
		cmocka_unit_test(a_stale_entry_does_not_count),
		cmocka_unit_test(content_is_compared_when_a_shard_is_opened),
		cmocka_unit_test(damage_is_told_at_the_start),
	};
	int64_t n[3];
	if (argc == 4 && lwm_parse_int(argv[1], 1, 1 << 20, &n[0], "shards", &err) == 0 &&
	    lwm_parse_int(argv[2], 1, MOST_RANKS, &n[1], "ranks", &err) == 0 &&
	    lwm_parse_int(argv[3], 1, 1 << 20, &n[2], "steps", &err) == 0)
		return print_table(n[0], (int)n[1], n[2]);
	return cmocka_run_group_tests_name("loader_count", tests, make_folders, scratch_remove);
}
