/* Document and row shards: what goes in comes out, equal inputs give equal bytes, damage is seen. */
#include "tests/unit/io_fault.h"

#include <sys/wait.h>

#include "common/base/rng.h"
#include "common/io/docshard_int.h"
#include "common/io/inspect.h"
#include "common/io/rowshard.h"
#include "common/io/vecfile.h"

static const struct lwm_docs_meta meta16 = { 32000,    8448,         "0123456789abcdef0123456789abcdef",
					     "test 1", "{\"a\": 1}", "bos,eos" };

static int64_t doc_len(int64_t i)
{
	return 1 + (i * 37) % 301;
}

static int32_t doc_token(int64_t i, int64_t t)
{
	return (int32_t)((i * 7919 + t * 104729) % 40448);
}

static void write_docs(const char *path, int64_t docs, const struct lwm_docs_meta *m, bool force)
{
	struct lwm_err e = { 0 };
	struct lwm_docs_writer *w;
	int32_t tokens[301];
	char id[32];
	must(lwm_docs_create(&w, path, m, force, &e), &e);
	for (int64_t i = 0; i < docs; i++) {
		struct lwm_loss_run runs[] = { { 0, 0 }, { 5, 1 }, { 9, 1 }, { 20, 0 } };
		int64_t n = doc_len(i);
		for (int64_t t = 0; t < n; t++)
			tokens[t] = doc_token(i, t);
		snprintf(id, sizeof id, "doc-%d", (int)i);
		must(lwm_docs_append(w, id, i % 2 ? "a caption" : NULL, tokens, n, runs, n > 20 ? 4 : 0, &e), &e);
	}
	must(lwm_docs_reject(w, "too short", 3, &e), &e);
	must(lwm_docs_reject(w, "not UTF-8", 1, &e), &e);
	must(lwm_docs_reject(w, "too short", 2, &e), &e);
	must(lwm_docs_input(w, "/data/books.txt", 12, "00112233445566778899aabbccddeeff", 0, &e), &e);
	assert_int_equal(w->at.docs, docs);
	must(lwm_docs_commit(w, &e), &e);
}

static int read_doc(struct lwm_docs *d, int64_t i, struct lwm_err *e)
{
	struct lwm_doc doc;
	int32_t got[301];
	char id[32];
	snprintf(id, sizeof id, "doc-%d", (int)i);
	LWM_TRY(lwm_docs_get(d, i, &doc, e));
	assert_int_equal(doc.n, doc_len(i));
	assert_string_equal(doc.id, id);
	assert_string_equal(doc.source, i % 2 ? "a caption" : "");
	assert_int_equal(doc.nruns, doc.n > 20 ? 3 : 1);
	assert_int_equal(doc.runs[0].loss, doc.n > 20 ? 0 : 1);
	if (doc.nruns == 3)
		assert_true(doc.runs[1].start == 5 && doc.runs[1].loss && doc.runs[2].start == 20 &&
			    !doc.runs[2].loss);
	int64_t a = doc.n / 3, b = doc.n - doc.n / 4;
	LWM_TRY(lwm_docs_read(d, i, a, b, got, e));
	for (int64_t t = a; t < b; t++)
		assert_int_equal(got[t - a], doc_token(i, t));
	return 0;
}

static void check_doc(struct lwm_docs *d, int64_t i)
{
	struct lwm_err e = { 0 };
	must(read_doc(d, i, &e), &e);
}

static void docs_round_trip(void **state)
{
	(void)state;
	enum { DOCS = 2000 };
	struct lwm_err e = { 0 };
	struct lwm_docs *d;
	int64_t len[DOCS], total = 0;
	write_docs(at("a.h5"), DOCS, &meta16, false);
	must(lwm_docs_open(&d, at("a.h5"), &e), &e);
	assert_int_equal(lwm_docs_count(d), DOCS);
	assert_int_equal(lwm_docs_get_meta(d)->vocab_vision, 8448);
	assert_string_equal(lwm_docs_get_meta(d)->config, "{\"a\": 1}");
	assert_string_equal(lwm_docs_get_meta(d)->policy, "bos,eos");
	must(lwm_docs_lengths(d, 0, DOCS, len, &e), &e);
	for (int64_t i = 0; i < DOCS; i++) {
		assert_int_equal(len[i], doc_len(i));
		total += len[i];
	}
	assert_int_equal(lwm_docs_tokens(d), total);
	for (int64_t i = 0; i < DOCS; i++)
		check_doc(d, (i * 997) % DOCS); /* in another order */
	const struct lwm_manifest *m = lwm_docs_manifest(d);
	assert_true(m->in == DOCS + 6 && m->out == DOCS && m->rejected == 6 && m->nreject == 2);
	assert_true(m->ninput == 1 && !strcmp(m->input[0].path, "books.txt"));
	struct lwm_manifest now;
	bool replace;
	assert_int_equal(lwm_manifest_done(at("a.h5"), "docs", &now, &replace, &e), 1);
	lwm_manifest_release(&now);
	assert_int_equal(lwm_manifest_done(at("a.h5"), "rows", &now, &replace, NULL), -LWM_ECANTCREATE);
	assert_int_equal(lwm_docs_read(d, DOCS, 0, 1, (int32_t[1]){ 0 }, &e), -LWM_EDATA);
	lwm_docs_close(d);
}

static void same_bytes_again(void **state)
{
	(void)state;
	size_t n, k;
	write_docs(at("s1.h5"), 300, &meta16, false);
	write_docs(at("s2.h5"), 300, &meta16, false);
	char *a = slurp(at("s1.h5"), &n), *b = slurp(at("s2.h5"), &k);
	assert_int_equal(n, k);
	assert_memory_equal(a, b, n);
	free(a);
	free(b);
}

static void large_vocabulary_and_no_documents(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_docs_writer *w;
	struct lwm_docs *d;
	struct lwm_docs_meta m = meta16;
	int32_t t[3] = { 0, 69999, 65536 }, got[3];
	m.vocab_text = 70000;
	m.vocab_vision = 0;
	must(lwm_docs_create(&w, at("big.h5"), &m, false, &e), &e);
	must(lwm_docs_append(w, "x", NULL, t, 3, NULL, 0, &e), &e);
	must(lwm_docs_commit(w, &e), &e);
	must(lwm_docs_open(&d, at("big.h5"), &e), &e);
	must(lwm_docs_read(d, 0, 0, 3, got, &e), &e);
	assert_memory_equal(t, got, sizeof t);
	lwm_docs_close(d);
	must(lwm_docs_create(&w, at("none.h5"), &m, false, &e), &e);
	must(lwm_docs_commit(w, &e), &e);
	must(lwm_docs_open(&d, at("none.h5"), &e), &e);
	assert_int_equal(lwm_docs_count(d), 0);
	lwm_docs_close(d);
}

static void refusals(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_docs_writer *w;
	struct lwm_docs *d;
	int32_t t[2] = { 1, 40448 };
	struct lwm_loss_run late = { 1, 1 };
	write_docs(at("r.h5"), 3, &meta16, false);
	assert_int_equal(lwm_docs_create(&w, at("r.h5"), &meta16, false, &e), -LWM_ECANTCREATE);
	lwm_err_clear(&e);
	must(lwm_docs_create(&w, at("r.h5"), &meta16, true, &e), &e);
	assert_int_equal(lwm_docs_append(w, "bad id", NULL, t, 2, NULL, 0, &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "40448"));
	lwm_err_clear(&e);
	assert_int_equal(lwm_docs_append(w, "empty", NULL, t, 0, NULL, 0, &e), -LWM_EDATA);
	assert_int_equal(lwm_docs_append(w, "late", NULL, t, 1, &late, 1, NULL), -LWM_EDATA);
	lwm_docs_discard(w);
	lwm_err_clear(&e);
	must(lwm_docs_open(&d, at("r.h5"), &e), &e); /* the old one stands */
	assert_int_equal(lwm_docs_count(d), 3);
	lwm_docs_close(d);
	assert_int_equal(lwm_docs_open(&d, at("absent.h5"), &e), -LWM_ENOINPUT);
	/* unfinished: no manifest. Not readable, and replaced without force. */
	unlink(at("r.h5.manifest.json"));
	lwm_err_clear(&e);
	assert_int_equal(lwm_docs_open(&d, at("r.h5"), &e), -LWM_EDATA);
	write_docs(at("r.h5"), 4, &meta16, false);
}

/* ---- rows ---- */

enum { SEQ = 64 };

static void write_rows(const char *path, int64_t rows)
{
	struct lwm_rows_meta m = { SEQ, 256, 0, "", "test 1", "", "per_example" };
	struct lwm_err e = { 0 };
	struct lwm_rows_writer *w;
	int32_t tokens[SEQ];
	must(lwm_rows_create(&w, path, &m, false, &e), &e);
	for (int64_t i = 0; i < rows; i++) {
		struct lwm_segment seg[] = { { 0, 10, 0, 2 * i },
					     { 10, 5 + i % 40, 0, 2 * i + 1 },
					     { 60, 1, 0, -1 } };
		struct lwm_loss_run runs[] = { { 0, 0 }, { 4, 1 }, { 12, 0 }, { 13, 1 } };
		for (int t = 0; t < SEQ; t++)
			tokens[t] = (int32_t)((i * 31 + t * 7 + 1) % 256);
		must(lwm_rows_append(w, tokens, seg, i % 5 ? 3 : 0, runs, 4, &e), &e);
	}
	must(lwm_rows_commit(w, &e), &e);
}

static void check_row(const struct lwm_row *x, int64_t i)
{
	int64_t len = 5 + i % 40, labels[3] = { 6, len - 2 - 1 + 1, 0 };
	if (i % 5 == 0) {
		assert_int_equal(x->nseg, 0);
		for (int t = 0; t < SEQ; t++)
			assert_true(x->segment[t] == -1 && !x->tokens[t] && !x->mask[t]);
		return;
	}
	assert_int_equal(x->nseg, 3);
	labels[1] = len - 2; /* mask 11 and 13..: token 10 begins the segment, 12 is switched off */
	for (int k = 0; k < 3; k++)
		assert_int_equal(x->seg[k].n_loss, labels[k]);
	for (int t = 0; t < SEQ; t++) {
		int s = t < 10 ? 0 : t < 10 + len ? 1 : t == 60 ? 2 : -1;
		assert_int_equal(x->segment[t], s);
		assert_int_equal(x->tokens[t], s < 0 ? 0 : (i * 31 + t * 7 + 1) % 256);
		assert_int_equal(x->position[t], s == 0 ? t : s == 1 ? t - 10 : 0);
		assert_int_equal(x->mask[t], s >= 0 && t != 10 && t != 60 && t != 12 && t >= 4);
	}
	assert_int_equal(x->seg[1].doc, 2 * i + 1);
	assert_int_equal(x->seg[2].doc, -1);
}

static void rows_round_trip(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_rows_reader *r;
	struct lwm_row row = { 0 };
	write_rows(at("rows.h5"), 3000);
	must(lwm_rows_open(&r, at("rows.h5"), &e), &e);
	assert_int_equal(lwm_rows_count(r), 3000);
	assert_int_equal(lwm_rows_get_meta(r)->seq, SEQ);
	for (int64_t i = 0; i < 3000; i++) {
		int64_t k = lwm_rng_permute(1, LWM_RNG_TEST, 0, 3000, i);
		must(lwm_rows_read(r, k, &row, &e), &e);
		check_row(&row, k);
	}
	assert_int_equal(lwm_rows_read(r, 3000, &row, &e), -LWM_EDATA);
	lwm_row_release(&row);
	lwm_rows_close(r);
	struct lwm_docs *d;
	lwm_err_clear(&e);
	assert_int_equal(lwm_docs_open(&d, at("rows.h5"), &e), -LWM_EDATA); /* of the other kind */
	assert_non_null(strstr(e.msg, "rows"));
}

static void bad_rows(void **state)
{
	(void)state;
	struct lwm_rows_meta m = { SEQ, 256, 0, "", "test 1", "", "per_token" };
	struct lwm_err e = { 0 };
	struct lwm_rows_writer *w;
	struct lwm_rows_reader *r;
	int32_t tokens[SEQ] = { 0 };
	struct lwm_segment over[] = { { 0, 10, 0, 0 }, { 9, 3, 0, 1 } }, past = { 60, 5, 0, 0 }, ok = { 3, 5, 0, 0 };
	must(lwm_rows_create(&w, at("bad.h5"), &m, false, &e), &e);
	assert_int_equal(lwm_rows_append(w, tokens, over, 2, NULL, 0, NULL), -LWM_EDATA);
	assert_int_equal(lwm_rows_append(w, tokens, &past, 1, NULL, 0, NULL), -LWM_EDATA);
	tokens[4] = 256;
	assert_int_equal(lwm_rows_append(w, tokens, &ok, 1, NULL, 0, NULL), -LWM_EDATA);
	tokens[4] = 0;
	tokens[30] = 999; /* padding is not looked at */
	must(lwm_rows_append(w, tokens, &ok, 1, NULL, 0, &e), &e);
	must(lwm_rows_commit(w, &e), &e);
	must(lwm_rows_open(&r, at("bad.h5"), &e), &e);
	assert_int_equal(lwm_rows_count(r), 1); /* what was refused is not in it */
	lwm_rows_close(r);
}

/* ---- damage ---- */

/* Opening and reading everything either fails with a clean error or gives what was written. */
static int try_docs(const char *path, int64_t docs)
{
	struct lwm_err e = { 0 };
	struct lwm_docs *d;
	if (lwm_docs_open(&d, path, &e) < 0) {
		assert_true(e.msg[0] && (e.code == -LWM_EDATA || e.code == -LWM_ENOINPUT));
		return 0;
	}
	assert_int_equal(lwm_docs_count(d), docs);
	int rc = 0;
	for (int64_t i = 0; rc == 0 && i < docs; i++)
		rc = read_doc(d, i, &e);
	lwm_docs_close(d);
	assert_true(rc == 0 || (rc == -LWM_EDATA && e.msg[0]));
	return rc == 0;
}

static void every_flip_is_seen(void **state)
{
	(void)state;
	enum { DOCS = 5 };
	static const char *const name[] = { "f.h5", "f.h5.manifest.json" };
	size_t n;
	write_docs(at("f.h5"), DOCS, &meta16, false);
	for (int f = 0; f < 2; f++) {
		char *s = slurp(at(name[f]), &n);
		free(s);
		for (size_t i = 0; i < n; i++) {
			unsigned char mask = (unsigned char)(1u << (i % 8));
			flip(at(name[f]), i, mask);
			try_docs(at("f.h5"), DOCS); /* an error, or what was written */
			if (f == 0) /* what no reader needs is seen by whoever asks for all of it */
				assert_int_equal(lwm_check_thing(at("f.h5"), LWM_THING_DOCS, NULL), -LWM_EDATA);
			flip(at(name[f]), i, mask);
		}
	}
	assert_int_equal(try_docs(at("f.h5"), DOCS), 1);
}

static void every_cut_is_seen(void **state)
{
	(void)state;
	enum { DOCS = 5 };
	size_t n;
	write_docs(at("c.h5"), DOCS, &meta16, false);
	char *s = slurp(at("c.h5"), &n);
	for (size_t k = 0; k < n; k += k < 4096 ? 1 : 13) {
		spill(at("c.h5"), s, k);
		assert_int_equal(try_docs(at("c.h5"), DOCS), 0);
	}
	free(s);
	write_docs(at("c.h5"), DOCS, &meta16, true);
	s = slurp(at("c.h5.manifest.json"), &n);
	for (size_t k = 0; k + 1 < n; k++) {
		spill(at("c.h5.manifest.json"), s, k);
		assert_int_equal(try_docs(at("c.h5"), DOCS), 0);
	}
	free(s);
}

static void stale_neighbours_are_seen(void **state)
{
	(void)state;
	size_t n;
	struct lwm_docs_meta other = meta16;
	other.tokenizer = "1123456789abcdef0123456789abcdef";
	write_docs(at("n1.h5"), 5, &meta16, false);
	write_docs(at("n2.h5"), 5, &other, false); /* same size */
	char *s = slurp(at("n2.h5"), &n);
	spill(at("n1.h5"), s, n);
	assert_int_equal(try_docs(at("n1.h5"), 5), 0);
	free(s);
}

/* Files are not hashed when they are opened: what protects a vector is its table of sums. */
static void large_files_check_what_is_read(void **state)
{
	(void)state;
	struct lwm_vec v[] = { { "values", LWM_V_I64, 30000 }, { "meta", LWM_V_TEXT, 5 } };
	struct lwm_err e = { 0 };
	struct lwm_vfw *w;
	struct lwm_vfr *r;
	struct lwm_hash h;
	int64_t *x = malloc(30000 * 8), *y = malloc(30000 * 8), bytes;
	size_t n;
	int opened = 0, wrong = 0;
	for (int64_t i = 0; i < 30000; i++)
		x[i] = i % 3 ? 0 : -1;
	must(lwm_vfw_open(&w, at("v.h5"), false, "lwm-test-1", v, 2, false, &e), &e);
	must(lwm_vfw_put(w, 0, x, 11, &e), &e);
	must(lwm_vfw_put(w, 0, x + 11, 29989, &e), &e);
	must(lwm_vfw_put(w, 1, "hello", 5, &e), &e);
	assert_int_equal(lwm_vfw_put(w, 1, "x", 1, NULL), -LWM_EINTERNAL);
	must(lwm_vfw_finish(w, &h, &bytes, &e), &e);
	must(lwm_vfw_commit(w, &e), &e);
	char *s = slurp(at("v.h5"), &n);
	assert_int_equal(n, bytes);
	free(s);
	for (size_t i = 0; i < n; i += i < 2048 ? 1 : 101) {
		flip(at("v.h5"), i, 0xff); /* 0x0000 against 0xffff is where the checksum of HDF5 is blind */
		if (lwm_vfr_open(&r, at("v.h5"), "lwm-test-1", v, 2, NULL) == 0) {
			opened++;
			if (lwm_vfr_read(r, 0, 0, 30000, y, NULL) == 0)
				wrong += memcmp(x, y, 30000 * 8) != 0;
			lwm_vfr_close(r);
		}
		flip(at("v.h5"), i, 0xff);
	}
	assert_true(opened > 100); /* the test reaches the sums */
	assert_int_equal(wrong, 0);
	free(x);
	free(y);
}

/* A writer killed at any moment leaves the old shard, whole. */
static void killed_writer_leaves_the_old_shard(void **state)
{
	(void)state;
	write_docs(at("k.h5"), 7, &meta16, false);
	for (int round = 0; round < 12; round++) {
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			struct lwm_docs_writer *w;
			int32_t t[4096] = { 0 };
			if (lwm_docs_create(&w, at("k.h5"), &meta16, true, NULL) < 0)
				_exit(1);
			for (;;)
				if (lwm_docs_append(w, "x", NULL, t, 4096, NULL, 0, NULL) < 0)
					_exit(1);
		}
		usleep(1000u * (unsigned)(round * 2 + 1));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		assert_int_equal(try_docs(at("k.h5"), 7), 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(docs_round_trip),
		cmocka_unit_test(same_bytes_again),
		cmocka_unit_test(large_vocabulary_and_no_documents),
		cmocka_unit_test(refusals),
		cmocka_unit_test(rows_round_trip),
		cmocka_unit_test(bad_rows),
		cmocka_unit_test(every_flip_is_seen),
		cmocka_unit_test(every_cut_is_seen),
		cmocka_unit_test(stale_neighbours_are_seen),
		cmocka_unit_test(large_files_check_what_is_read),
		cmocka_unit_test(killed_writer_leaves_the_old_shard),
	};
	return cmocka_run_group_tests_name("io_shard", tests, scratch_make, scratch_remove);
}
