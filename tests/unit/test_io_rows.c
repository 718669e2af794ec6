/* Row shards: any row comes back as it was, in few bytes; more shards are open than files may be. */
#include "tests/unit/io_fault.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "common/base/rng.h"
#include "common/io/inspect.h"
#include "common/io/rowshard.h"
#include "common/io/vecfile.h"

enum { MOST = 300 };

/* One row: what goes in, and what must come out. */
struct given {
	int64_t seq, nseg, nruns;
	int32_t tokens[MOST];
	struct lwm_segment seg[MOST];
	struct lwm_loss_run run[MOST];
	uint8_t mask[MOST];
};

static void draw_segments(struct given *g, struct lwm_rng *r, int64_t docs)
{
	int64_t most = 1 + lwm_rng_below(r, g->seq), at = 0;
	g->nseg = 0;
	while (at < g->seq) {
		int64_t gap = lwm_rng_below(r, 4) ? 0 : lwm_rng_below(r, 5), len = 1 + lwm_rng_below(r, most);
		if (at + gap + len > g->seq)
			break;
		int64_t doc = lwm_rng_below(r, 5) ? lwm_rng_below(r, docs) : lwm_rng_below(r, 2) ? -1 : docs - 1;
		g->seg[g->nseg++] = (struct lwm_segment){ .start = at + gap, .len = len, .doc = doc };
		at += gap + len;
	}
}

static struct given draw(uint64_t seed, int64_t seq, int64_t docs)
{
	struct given g = { .seq = seq };
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_TEST, 5, 0);
	int64_t often = 1 + lwm_rng_below(&r, 9);
	uint8_t raw[MOST], now = (uint8_t)lwm_rng_below(&r, 2);
	draw_segments(&g, &r, docs);
	for (int64_t t = 0; t < seq; t++) {
		g.tokens[t] = (int32_t)lwm_rng_below(&r, 1000);
		if (t && lwm_rng_below(&r, often) == 0)
			now = !now;
		raw[t] = now;
		if (!g.nruns || g.run[g.nruns - 1].loss != now || lwm_rng_below(&r, 20) == 0) /* sometimes cut for nothing */
			g.run[g.nruns++] = (struct lwm_loss_run){ t, now };
	}
	if (seed % 4 == 0) {
		g.nruns = 0;
		memset(raw, 1, sizeof raw);
	}
	for (int64_t i = 0; i < g.nseg; i++)
		for (int64_t t = g.seg[i].start + 1; t < g.seg[i].start + g.seg[i].len; t++)
			g.mask[t] = raw[t];
	return g;
}

static void compare(const struct given *g, const struct lwm_row *x)
{
	int64_t at = 0;
	assert_int_equal(x->seq, g->seq);
	assert_int_equal(x->nseg, g->nseg);
	for (int64_t i = 0; i <= g->nseg; i++) {
		int64_t start = i < g->nseg ? g->seg[i].start : g->seq, loss = 0;
		for (; at < start; at++)
			assert_true(x->segment[at] == -1 && !x->tokens[at] && !x->position[at] && !x->mask[at]);
		if (i == g->nseg)
			break;
		assert_true(x->seg[i].start == start && x->seg[i].len == g->seg[i].len && x->seg[i].doc == g->seg[i].doc);
		for (; at < start + g->seg[i].len; at++) {
			assert_true(x->segment[at] == i && x->position[at] == at - start && x->tokens[at] == g->tokens[at]);
			assert_int_equal(x->mask[at], g->mask[at]);
			loss += g->mask[at];
		}
		assert_int_equal(x->seg[i].n_loss, loss);
	}
}

static struct lwm_rows_writer *begin(const char *name, int64_t seq)
{
	struct lwm_rows_meta m = { .seq = seq, .vocab_text = 1000, .tokenizer = "", .tool = "test 1", .config = "",
				   .weighting = "per_token" };
	struct lwm_rows_writer *w;
	struct lwm_err e = { 0 };
	must(lwm_rows_create(&w, at(name), &m, true, &e), &e);
	return w;
}

static void write_rows(const char *name, int64_t rows, int64_t seq, int64_t docs)
{
	struct lwm_rows_writer *w = begin(name, seq);
	struct lwm_err e = { 0 };
	if (docs % 2) /* else it is not said */
		lwm_rows_documents(w, docs);
	for (int64_t i = 0; i < rows; i++) {
		struct given g = draw((uint64_t)(i + 7 * seq), seq, docs);
		must(lwm_rows_append(w, g.tokens, g.seg, g.nseg, g.run, g.nruns, &e), &e);
	}
	must(lwm_rows_commit(w, &e), &e);
}

static void any_row_comes_back(void **state)
{
	static const int64_t docs[] = { 10, 11, 4294967293, 4294967294, 4294967295, 1LL << 40 };
	(void)state;
	for (int64_t seq = 1; seq <= MOST; seq += 1 + seq / 3)
		for (size_t k = 0; k < sizeof docs / sizeof *docs; k++) {
			struct lwm_err e = { 0 };
			struct lwm_rows_reader *r;
			struct lwm_row row = { 0 };
			write_rows("any.h5", 40, seq, docs[k]);
			must(lwm_rows_open(&r, at("any.h5"), &e), &e);
			for (int64_t i = 39; i >= 0; i--) {
				struct given g = draw((uint64_t)(i + 7 * seq), seq, docs[k]);
				must(lwm_rows_read(r, i, &row, &e), &e);
				compare(&g, &row);
			}
			lwm_row_release(&row);
			lwm_rows_close(r);
		}
}

/* The same mask said in other words; a mask of what is never a target does not count. */
static void the_same_row_gives_the_same_bytes(void **state)
{
	(void)state;
	static const struct lwm_segment seg[] = { { 2, 5, 0, 1 }, { 7, 3, 0, 2 } };
	static const struct lwm_loss_run a[] = { { 0, 0 }, { 3, 1 }, { 8, 0 } };
	static const struct lwm_loss_run b[] = { { 0, 1 }, { 5, 1 }, { 7, 0 }, { 8, 0 }, { 11, 1 } };
	const int32_t tokens[12] = { 0, 9, 3, 3 };
	struct lwm_err e = { 0 };
	size_t n, k;
	for (int i = 0; i < 2; i++) {
		struct lwm_rows_writer *w = begin(i ? "b.h5" : "a.h5", 12);
		must(i ? lwm_rows_append(w, tokens, seg, 2, b, 5, &e) : lwm_rows_append(w, tokens, seg, 2, a, 3, &e), &e);
		must(lwm_rows_commit(w, &e), &e);
	}
	char *x = slurp(at("a.h5"), &n), *y = slurp(at("b.h5"), &k);
	assert_int_equal(n, k);
	assert_memory_equal(x, y, n);
	free(x);
	free(y);
}

/* Places up to 65535 take 2 bytes, documents 4: 14 tokens in less than 2.6 bytes each. Longer rows are read as well. */
static void rows_of_short_documents_are_small(void **state)
{
	(void)state;
	static const int64_t seqs[] = { 14 * 1000, 65535, 65536, 70000 };
	for (int k = 0; k < 4; k++) {
		int64_t seq = seqs[k], n = seq / 14, rows = k ? 1 : 40;
		struct lwm_segment *seg = malloc((size_t)n * sizeof *seg);
		int32_t *tokens = calloc((size_t)seq, sizeof *tokens);
		struct lwm_rows_writer *w = begin("short.h5", seq);
		struct lwm_err e = { 0 };
		struct lwm_rows_reader *r;
		struct lwm_row row = { 0 };
		struct stat st;
		for (int64_t i = 0; i < n; i++)
			seg[i] = (struct lwm_segment){ .start = seq - (n - i) * 14, .len = 14, .doc = i };
		lwm_rows_documents(w, n);
		for (int64_t i = 0; i < rows; i++)
			must(lwm_rows_append(w, tokens, seg, n, NULL, 0, &e), &e);
		must(lwm_rows_commit(w, &e), &e);
		assert_int_equal(stat(at("short.h5"), &st), 0);
		assert_true((double)st.st_size < (k ? 3.5 : 2.46) * (double)(seq * rows));
		must(lwm_rows_open(&r, at("short.h5"), &e), &e);
		must(lwm_rows_read(r, rows - 1, &row, &e), &e);
		assert_true(row.nseg == n && row.seg[n - 1].start == seq - 14 && row.seg[n - 1].n_loss == 13);
		lwm_row_release(&row);
		lwm_rows_close(r);
		free(seg);
		free(tokens);
	}
}

/* Any bit of the file: what is read is what was written, or an error; --check sees each. */
static void every_flip_is_seen(void **state)
{
	(void)state;
	size_t n;
	write_rows("f.h5", 6, 40, 11);
	free(slurp(at("f.h5"), &n));
	for (size_t i = 0; i < n; i++) {
		struct lwm_err e = { 0 };
		struct lwm_rows_reader *r = NULL;
		struct lwm_row row = { 0 };
		flip(at("f.h5"), i, (unsigned char)(1u << (i % 8)));
		int rc = lwm_rows_open(&r, at("f.h5"), &e);
		for (int64_t k = 0; rc == 0 && k < 6; k++) {
			struct given g = draw((uint64_t)(k + 7 * 40), 40, 11);
			rc = lwm_rows_read(r, k, &row, &e);
			if (rc == 0)
				compare(&g, &row);
		}
		assert_true(rc == 0 || (rc == -LWM_EDATA && e.msg[0]));
		lwm_row_release(&row);
		lwm_rows_close(r);
		assert_int_equal(lwm_check_thing(at("f.h5"), LWM_THING_ROWS, NULL), -LWM_EDATA);
		flip(at("f.h5"), i, (unsigned char)(1u << (i % 8)));
	}
}

/* ---- few files open at once ---- */

static int open_files(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/fd");
	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void more_shards_than_open_files(void **state)
{
	enum { SHARDS = 60, LIMIT = 48 };
	(void)state;
	struct rlimit was, few;
	struct lwm_err e = { 0 };
	struct lwm_rows_reader *r[SHARDS];
	struct lwm_row row = { 0 };
	char name[32];
	int before = open_files();
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	few = was;
	few.rlim_cur = LIMIT;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	for (int i = 0; i < SHARDS; i++) {
		snprintf(name, sizeof name, "many-%d.h5", i);
		write_rows(name, 3, 100 + i, 11);
		must(lwm_rows_open(&r[i], at(name), &e), &e);
	}
	for (int i = 0; i < 5 * SHARDS; i++) {
		int k = i * 37 % SHARDS;
		struct given g = draw((uint64_t)(i % 3 + 7 * (100 + k)), 100 + k, 11);
		must(lwm_rows_read(r[k], i % 3, &row, &e), &e);
		compare(&g, &row);
	}
	must(lwm_rows_read(r[0], 0, &row, &e), &e);
	write_rows("many-0.h5", 3, 100, 11);       /* another file of its name: opened again it would be refused */
	for (int k = 1; k < SHARDS; k++) { /* what is used all the time stays open */
		must(lwm_rows_read(r[k], 1, &row, &e), &e);
		must(lwm_rows_read(r[0], k % 3, &row, &e), &e);
	}
	assert_int_equal(open_files() - before, LIMIT / 4);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	/* closed meanwhile and replaced: it is not the file it was. Which ones are closed is not for the caller to know */
	int told = 0;
	for (int i = 0; i < SHARDS; i++) {
		snprintf(name, sizeof name, "many-%d.h5", i);
		write_rows(name, 3, 100 + i, 11);
		int rc = lwm_rows_read(r[i], 0, &row, &e);
		assert_true(rc == 0 || (rc == -LWM_EDATA && strstr(e.msg, "replaced while it was being read")));
		assert_true(i || rc == 0);
		told += rc < 0;
		lwm_err_clear(&e);
	}
	assert_int_equal(told, SHARDS - LIMIT / 4);
	for (int i = 0; i < SHARDS; i++)
		lwm_rows_close(r[i]);
	assert_int_equal(open_files(), before);
	lwm_row_release(&row);
}

/* Values of a closed file are checked against the table that was read when it was opened first. */
static void a_table_that_changes_meanwhile_is_seen(void **state)
{
	(void)state;
	struct lwm_vec v = { "values", LWM_V_I64, 30000 };
	struct lwm_err e = { 0 };
	struct lwm_vfw *w;
	struct lwm_vfr *r[2];
	struct lwm_hash h;
	struct rlimit was, few;
	int64_t *x = calloc(30000, 8), bytes, got;
	for (int i = 0; i < 2; i++) {
		x[0] = i;
		must(lwm_vfw_open(&w, at(i ? "t1.h5" : "t0.h5"), true, "lwm-test-1", &v, 1, true, &e), &e);
		must(lwm_vfw_put(w, 0, x, 30000, &e), &e);
		must(lwm_vfw_finish(w, &h, &bytes, &e), &e);
		must(lwm_vfw_commit(w, &e), &e);
	}
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	few = was;
	few.rlim_cur = 24;
	must(lwm_vfr_open(&r[0], at("t0.h5"), "lwm-test-1", &v, 1, &e), &e);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	struct lwm_vfr *more[8];
	for (int i = 0; i < 8; i++)
		must(lwm_vfr_open(&more[i], at("t1.h5"), "lwm-test-1", &v, 1, &e), &e);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	size_t n;
	char *s = slurp(at("t1.h5"), &n);
	spill(at("t0.h5"), s, n); /* in place, and whole */
	free(s);
	assert_int_equal(lwm_vfr_read(r[0], 0, 0, 1, &got, &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "changed while it was being read"));
	for (int i = 0; i < 8; i++)
		lwm_vfr_close(more[i]);
	lwm_vfr_close(r[0]);
	free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_row_comes_back),
		cmocka_unit_test(the_same_row_gives_the_same_bytes),
		cmocka_unit_test(rows_of_short_documents_are_small),
		cmocka_unit_test(every_flip_is_seen),
		cmocka_unit_test(more_shards_than_open_files),
		cmocka_unit_test(a_table_that_changes_meanwhile_is_seen),
	};
	return cmocka_run_group_tests_name("io_rows", tests, scratch_make, scratch_remove);
}
