/* Text files to shards: lines of every kind of file, reasons of refusal, the same bytes for any number of threads. */
#include "tests/unit/data_fixture.h"

#include <zlib.h>
#include <zstd.h>

#include "common/base/outfile.h"
#include "common/data/ingest/ingest.h"
#include "common/text/lines.h"

static void put(const char *name, const char *text, size_t n)
{
	OK(lwm_write_file(in_scratch(name), text, n, true, &err));
}

/* ---- lines ---- */

static void expect_lines(const char *name, size_t limit, const char *const *want)
{
	struct lwm_lines *l;
	const char *s;
	size_t n;
	bool too_long;
	int rc;
	OK(lwm_lines_open(&l, in_scratch(name), limit, &err));
	while ((rc = lwm_lines_next(l, &s, &n, &too_long, &err)) > 0) {
		assert_non_null(*want);
		if (too_long) {
			assert_string_equal(*want, "(too long)");
		} else {
			assert_int_equal(n, strlen(*want));
			assert_memory_equal(s, *want, n);
		}
		want++;
	}
	assert_int_equal(rc, 0);
	assert_null(*want);
	lwm_lines_close(l);
}

static void test_lines(void **state)
{
	(void)state;
	static const char text[] = "\xef\xbb\xbfone\r\n\ntwo words\nthis is far too long\nx\r\nlast";
	static const char *const want[] = { "one", "", "two words", "(too long)", "x", "last", NULL };
	static const char *const none[] = { NULL }, *const blank[] = { "", NULL };
	put("l.txt", text, sizeof text - 1);
	expect_lines("l.txt", 10, want);
	static const char *const just[] = { "0123456789", "(too long)", "0123456789", NULL };
	static const char ends[] = "0123456789\n0123456789a\n0123456789\r\n";
	put("l.txt", ends, sizeof ends - 1);
	expect_lines("l.txt", 10, just);
	put("l.txt", ends, sizeof ends - 2); /* a CR without LF is a character like others */
	expect_lines("l.txt", 11, (const char *const[]){ "0123456789", "0123456789a", "0123456789\r", NULL });
	put("l.txt", "", 0);
	expect_lines("l.txt", 10, none);
	put("l.txt", "\n", 1);
	expect_lines("l.txt", 10, blank);
	put("l.txt", "\xef\xbb\xbf", 3);
	expect_lines("l.txt", 10, none);
}

static void write_gz(const char *name, const char *text, size_t n)
{
	gzFile f = gzopen(in_scratch(name), "wb");
	assert_non_null(f);
	assert_int_equal(gzwrite(f, text, (unsigned)n), n);
	assert_int_equal(gzclose(f), Z_OK);
}

static void write_zst(const char *name, const char *text, size_t n)
{
	size_t cap = ZSTD_compressBound(n);
	char *out = malloc(cap);
	assert_non_null(out);
	size_t k = ZSTD_compress(out, cap, text, n, 3);
	assert_false(ZSTD_isError(k));
	put(name, out, k);
	free(out);
}

/* A file of many lines, some of them long: compressed, in two members, cut short. */
static void test_compressed(void **state)
{
	(void)state;
	struct lwm_str text = { 0 };
	const char *names[] = { "c.gz", "c.zst" };
	for (int i = 0; i < 3000; i++) {
		struct lwm_rng r = lwm_rng_at(1, LWM_RNG_TEST, 9, (uint64_t)i);
		for (int64_t k = lwm_rng_below(&r, i % 500 ? 80 : 300000); k > 0; k--)
			lwm_str_putc(&text, (char)('a' + lwm_rng_below(&r, 26)));
		lwm_str_putc(&text, '\n');
	}
	write_gz("c.gz", text.s, text.len);
	write_zst("c.zst", text.s, text.len);
	for (int f = 0; f < 2; f++) {
		char *packed, *twice;
		size_t n, len;
		bool too_long;
		OK(lwm_read_file(in_scratch(names[f]), 1 << 30, &packed, &n, &err));
		twice = malloc(2 * n);
		assert_non_null(twice);
		memcpy(twice, packed, n);
		memcpy(twice + n, packed, n);
		put("twice", twice, 2 * n);
		struct lwm_lines *l;
		struct lwm_str got = { 0 };
		const char *s;
		OK(lwm_lines_open(&l, in_scratch("twice"), 1 << 20, &err));
		while (lwm_lines_next(l, &s, &len, &too_long, &err) > 0) {
			assert_false(too_long);
			lwm_str_add(&got, s, len);
			lwm_str_putc(&got, '\n');
		}
		lwm_lines_close(l);
		assert_int_equal(got.len, 2 * text.len);
		assert_memory_equal(got.s, text.s, text.len);
		assert_memory_equal(got.s + text.len, text.s, text.len);
		lwm_str_release(&got);
		for (size_t cut = 4; cut < n; cut += n / 50 + 1) { /* never a quiet end */
			int rc;
			put("cut", packed, cut);
			lwm_err_clear(&err);
			rc = lwm_lines_open(&l, in_scratch("cut"), 1 << 20, &err);
			if (rc == 0) {
				while ((rc = lwm_lines_next(l, &s, &len, &too_long, &err)) > 0)
					;
				lwm_lines_close(l);
			}
			assert_int_equal(rc, -LWM_EDATA);
		}
		free(packed);
		free(twice);
	}
	lwm_str_release(&text);
}

/* ---- shards ---- */

struct run {
	struct lwm_ingest_cfg cfg;
	struct lwm_fields *f;
	struct lwm_ingest_stats st;
	struct lwm_paths in, out;
};

static void start(struct run *r, const char *fields, const char *input, const char *output)
{
	struct lwm_tokenizer *t;
	struct lwm_fields_cfg fc = { .fields = &fields, .nfields = 1, .index = -1 };
	memset(r, 0, sizeof *r);
	OK(lwm_tokenizer_open(&t, "bytes", &err));
	OK(lwm_fields_open(&r->f, &fc, t, &err));
	r->cfg = (struct lwm_ingest_cfg){ .tokenizer = t, .fields = r->f, .max_bad = -1, .threads = 1, .tool = "test",
					  .config = fields, .policy = "bos,eos", .force = true };
	OK(lwm_paths_add(&r->in, in_scratch(input), &err));
	OK(lwm_paths_add(&r->out, in_scratch(output), &err));
}

static void stop(struct run *r)
{
	lwm_fields_free(r->f);
	lwm_tokenizer_free(r->cfg.tokenizer);
	lwm_paths_release(&r->in);
	lwm_paths_release(&r->out);
}

static int64_t rejected(const char *shard, const char *reason)
{
	struct lwm_manifest m = { 0 };
	int64_t n = 0;
	OK(lwm_manifest_read(&m, in_scratch(shard), &err));
	assert_int_equal(m.in, m.out + m.rejected);
	for (int64_t i = 0; i < m.nreject; i++)
		if (!strcmp(m.reject[i].reason, reason))
			n = m.reject[i].count;
	lwm_manifest_release(&m);
	return n;
}

static void test_reasons(void **state)
{
	(void)state;
	static const char text[] = "{\"text\": \"fine\"}\n\n{\"text\": \"also fine\"}\r\n"
				   "{\"text\": \n{\"other\": \"x\"}\n{\"text\": 5}\n[1]\n{\"text\": \"\xff\"}\n"
				   "{\"text\": \"\"}\n{\"text\": \"x\"}\n"
				   "{\"text\": \"a text of many many characters\"}\n";
	struct run r;
	put("r.jsonl", text, sizeof text - 1);
	start(&r, "text", "r.jsonl", "r.h5");
	r.cfg.min_tokens = 5;
	r.cfg.max_tokens = 20;
	OK(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err));
	assert_int_equal(r.st.in, 10);
	assert_int_equal(r.st.out, 2);
	assert_int_equal(r.st.malformed, 5);
	assert_int_equal(r.st.filtered, 3);
	assert_int_equal(r.st.tokens, 6 + 11); /* bytes, and one mark at each end */
	assert_int_equal(r.st.loss_tokens, 5 + 10);
	assert_int_equal(rejected("r.h5", "bad json"), 1);
	assert_int_equal(rejected("r.h5", "missing key"), 1);
	assert_int_equal(rejected("r.h5", "wrong type"), 1);
	assert_int_equal(rejected("r.h5", "not an object"), 1);
	assert_int_equal(rejected("r.h5", "bad utf-8"), 1);
	assert_int_equal(rejected("r.h5", "empty"), 1);
	assert_int_equal(rejected("r.h5", "too short"), 1);
	assert_int_equal(rejected("r.h5", "too long"), 1);
	/* a shard that is there is held to the limit of today */
	r.cfg.force = false;
	for (r.cfg.max_bad = 4; r.cfg.max_bad <= 5; r.cfg.max_bad++) {
		lwm_err_clear(&err);
		assert_int_equal(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err), r.cfg.max_bad < 5 ? -LWM_EDATA : 0);
	}
	assert_int_equal(r.st.skipped, 1);
	r.cfg.force = true;
	r.cfg.max_bad = 4;
	lwm_err_clear(&err);
	assert_int_equal(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err), -LWM_EDATA);
	r.cfg.replace_bad_utf8 = true;
	OK(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err));
	assert_int_equal(r.st.out, 3);
	stop(&r);
}

static void expect_docs(const char *shard, const char *const *want)
{
	struct lwm_docs *h;
	int64_t n = 0;
	OK(lwm_docs_open(&h, in_scratch(shard), &err));
	for (; want[n]; n++) {
		struct lwm_doc d;
		int32_t tok[256];
		char text[256];
		OK(lwm_docs_get(h, n, &d, &err));
		assert_true(d.n >= 2 && d.n < 256);
		OK(lwm_docs_read(h, n, 0, d.n, tok, &err));
		assert_int_equal(tok[0], 1);
		assert_int_equal(tok[d.n - 1], 2);
		for (int64_t i = 1; i + 1 < d.n; i++)
			text[i - 1] = (char)(tok[i] - 3);
		text[d.n - 2] = 0;
		assert_string_equal(text, want[n]);
	}
	assert_int_equal(lwm_docs_count(h), n);
	lwm_docs_close(h);
}

static void test_text_documents(void **state)
{
	(void)state;
	static const char text[] = "one\r\ntwo\n\nthree\n---\nfour\n---\n";
	static const char *const whole[] = { "one\ntwo\n\nthree\n---\nfour\n---", NULL };
	static const char *const twos[] = { "one\ntwo", "\nthree", "---\nfour", "---", NULL };
	static const char *const split[] = { "one\ntwo\n\nthree", "four", NULL };
	struct run r;
	put("t.txt", text, sizeof text - 1);
	start(&r, "text", "t.txt", "t.h5");
	OK(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err));
	expect_docs("t.h5", whole);
	r.cfg.split_lines = 2;
	OK(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err));
	expect_docs("t.h5", twos);
	r.cfg.split_lines = 0;
	r.cfg.separator = "---";
	OK(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err));
	expect_docs("t.h5", split);
	put("t.txt", "", 0);
	OK(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err));
	assert_int_equal(r.st.in, 1);
	assert_int_equal(rejected("t.h5", "empty"), 1);
	r.cfg.separator = NULL;
	r.cfg.max_bytes = 4;
	put("t.txt", text, sizeof text - 1);
	/* nothing of the only record is left: that is no shard */
	assert_int_equal(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err), -LWM_EDATA);
	assert_int_equal(r.st.failed, 1);
	lwm_err_clear(&err);
	r.cfg.split_lines = 1;
	OK(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err));
	assert_int_equal(rejected("t.h5", "line too long"), 1);
	stop(&r);
}

/* Several inputs, several shards, several threads. */
static void test_threads_and_names(void **state)
{
	(void)state;
	char name[64];
	struct run r;
	struct lwm_hash want[5], got;
	start(&r, "text", "m-0.txt", "unused");
	lwm_paths_release(&r.in);
	lwm_paths_release(&r.out);
	for (int i = 0; i < 5; i++) {
		struct lwm_str s = { 0 };
		for (int k = 0; k < 900; k++)
			lwm_str_printf(&s, "line %d of file %d\n", k, i);
		snprintf(name, sizeof name, "m-%d.txt%s", i, i == 2 ? ".gz" : "");
		if (i == 2)
			write_gz(name, s.s, s.len);
		else
			put(name, s.s, s.len);
		OK(lwm_paths_add(&r.in, in_scratch(name), &err));
		lwm_str_release(&s);
	}
	OK(lwm_ingest_names(&r.in, scratch, &r.out, &err));
	assert_string_equal(lwm_path_base(r.out.v[2]), "m-2.docs.h5");
	r.cfg.split_lines = 1;
	for (int threads = 1; threads <= 4; threads += 3) {
		r.cfg.threads = threads;
		OK(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err));
		assert_int_equal(r.st.out, 4500);
		assert_int_equal(r.st.shards, 5);
		for (int i = 0; i < 5; i++) {
			OK(lwm_hash_file(r.out.v[i], threads == 1 ? &want[i] : &got, NULL, &err));
			if (threads > 1)
				assert_string_equal(want[i].hex, got.hex);
		}
	}
	r.cfg.force = false; /* complete shards are left alone */
	OK(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err));
	assert_int_equal(r.st.skipped, 5);
	assert_int_equal(r.st.in, 0);
	r.cfg.config = "other";
	lwm_err_clear(&err);
	assert_int_equal(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err), -LWM_ECANTCREATE);
	OK(lwm_paths_add(&r.in, in_scratch("m-0.txt"), &err));
	lwm_paths_release(&r.out);
	lwm_err_clear(&err);
	assert_int_equal(lwm_ingest_names(&r.in, scratch, &r.out, &err), -LWM_EUSAGE);
	stop(&r);
}

/* A later input that cannot be read does not take an earlier one with it. */
static void test_unread_input(void **state)
{
	(void)state;
	struct run r;
	put("u-0.txt", "one\ntwo\n", 8);
	start(&r, "text", "u-0.txt", "unused");
	lwm_paths_release(&r.out);
	OK(lwm_paths_add(&r.in, in_scratch("u-gone.txt"), &err));
	OK(lwm_ingest_names(&r.in, scratch, &r.out, &err));
	r.cfg.split_lines = 1;
	r.cfg.threads = 2;
	assert_int_equal(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err), -LWM_ENOINPUT);
	assert_int_equal(r.st.shards, 1);
	assert_int_equal(r.st.out, 2);
	struct lwm_manifest m;
	bool replace;
	assert_int_equal(lwm_manifest_done(r.out.v[0], "docs", &m, &replace, &err), 1);
	lwm_manifest_release(&m);
	assert_false(lwm_path_exists(r.out.v[1]));
	stop(&r);
}

/* A list of objects, however its lines fall: what is broken is named by its line, what follows is read. */
static void test_json_list(void **state)
{
	(void)state;
	static const char list[] = "[\n  {\"text\": \"a {brace] \\\"\", \"x\": {\"y\": [1]}},\n"
				   "{\"text\": \"b\"}, {\"text\": \"c\"},{\"text\": 5},\n"
				   "  \"rubbish\", 7,\n\n {\"text\":\n\"d\"}, {\"text\" 1}, {\"text\": \"e\"}\n]\n";
	static const char *const ids[] = { "r.json:2", "r.json:3", "r.json:3+1", "r.json:6", "r.json:7+1" };
	struct lwm_docs *d;
	struct lwm_doc doc;
	struct run r;
	put("r.json", list, sizeof list - 1);
	start(&r, "text", "r.json", "r.h5");
	OK(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err));
	assert_int_equal(r.st.in, 8);
	assert_int_equal(r.st.out, 5);
	assert_int_equal(rejected("r.h5", "wrong type"), 1);
	assert_int_equal(rejected("r.h5", "bad json"), 2);
	OK(lwm_docs_open(&d, in_scratch("r.h5"), &err));
	for (int i = 0; i < 5; i++) {
		OK(lwm_docs_get(d, i, &doc, &err));
		assert_string_equal(doc.id, ids[i]);
	}
	OK(lwm_docs_get(d, 0, &doc, &err));
	assert_int_equal(doc.n, 2 + 11); /* a {brace] " */
	lwm_docs_close(d);
	stop(&r);
	/* cut anywhere: the records before are all there, and the one that was cut is counted */
	for (size_t n = 2; n < sizeof list - 1; n++) {
		put("r.json", list, n);
		start(&r, "text", "r.json", "r.h5");
		int rc = lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err);
		assert_true(rc == 0 || rc == -LWM_EDATA); /* of none of its records */
		stop(&r);
		lwm_err_clear(&err);
	}
	/* longer than is read: alone refused */
	put("r.json", list, sizeof list - 1);
	start(&r, "text", "r.json", "r.h5");
	r.cfg.max_bytes = 20;
	OK(lwm_ingest_run(&r.cfg, &r.in, &r.out, &r.st, &err));
	assert_int_equal(rejected("r.h5", "line too long"), 1);
	assert_int_equal(r.st.out, 4);
	stop(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),          cmocka_unit_test(test_compressed),
		cmocka_unit_test(test_reasons),        cmocka_unit_test(test_text_documents),
		cmocka_unit_test(test_threads_and_names), cmocka_unit_test(test_unread_input),
		cmocka_unit_test(test_json_list),
	};
	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
