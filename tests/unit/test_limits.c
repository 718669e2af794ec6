/* Sizes from outside: sums and products of them do not wrap, and memory stays in proportion to the file. */
#include "tests/unit/data_fixture.h"

#include <fcntl.h>

#include "common/base/arena.h"
#include "common/base/json.h"
#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/base/str.h"
#include "common/data/ingest/ingest_int.h"
#include "common/io/ckpt.h"
#include "common/io/merge.h"
#include "common/io/seal.h"
#include "common/io/vecfile.h"
#include "tests/unit/peak.h"
#include "tests/unit/tensor_table.h"

#define MIB (1LL << 20)

static void says(int rc, int code, const char *part)
{
	if (rc != -code || !strstr(err.msg, part))
		fail_msg("%d '%s', expected %d with '%s'", rc, err.msg, -code, part);
	lwm_err_clear(&err);
}

/* ---- base ---- */

static void test_strings(void **state)
{
	struct lwm_str s = { 0 };
	(void)state;
	for (int k = 0; k < 4; k++) {
		lwm_str_puts(&s, "abc");
		lwm_str_add(&s, NULL, SIZE_MAX - (size_t)k); /* one more for the end wraps to nothing */
		assert_true(s.failed);
		assert_int_equal(s.len, 3);
		says(lwm_str_ok(&s, &err), LWM_EMEMORY, "out of memory");
		lwm_str_release(&s);
	}
}

static void test_arena(void **state)
{
	struct lwm_arena *a = NULL;
	(void)state;
	for (size_t k = 0; k < 32; k++) /* the head of a block, 32 bytes, comes on top */
		assert_null(lwm_arena_alloc(&a, SIZE_MAX - k));
	assert_non_null(lwm_arena_alloc(&a, 16));
	lwm_arena_free(&a);
}

static void test_seconds(void **state)
{
	static const char *const bad[] = { "1e300", "1e308d", "1e308:1e308", "1e9:00", "40000d", "1e10" };
	double v;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		says(lwm_parse_seconds(bad[i], &v, "--grace", &err), LWM_EUSAGE, "--grace");
	OK(lwm_parse_seconds("11574d", &v, "--grace", &err));
	OK(lwm_parse_seconds("1e9", &v, "--grace", &err));
}

static void test_ids(void **state)
{
	struct lwm_ids ids = { 0 };
	(void)state;
	OK(lwm_ids_reserve(&ids, 10, &err));
	ids.n = 5;
	says(lwm_ids_reserve(&ids, INT64_MAX - 2, &err), LWM_EMEMORY, "out of memory");
	says(lwm_ids_reserve(&ids, INT64_MAX / 2, &err), LWM_EMEMORY, "out of memory");
	lwm_ids_release(&ids);
}

/* A hole of 256 MiB. */
static bool read_large(void *arg)
{
	char *text;
	size_t n;
	struct lwm_err e = { 0 };
	int64_t limit = *(int64_t *)arg;
	int rc = lwm_read_file(in_scratch("hole"), limit, &text, &n, &e);
	if (limit < 256 * MIB)
		return rc == -LWM_EDATA && strstr(e.msg, "larger than");
	return rc == 0 && n == (size_t)(256 * MIB) && text[n] == 0 && text[n - 1] == 0;
}

static void test_read_file(void **state)
{
	int64_t limits[] = { 255 * MIB, 256 * MIB, 1 << 30 }, most[] = { 4 * MIB, 260 * MIB, 260 * MIB };
	int fd = open(in_scratch("hole"), O_WRONLY | O_CREAT, 0666);
	(void)state;
	assert_true(fd >= 0 && ftruncate(fd, 256 * MIB) == 0);
	close(fd);
	for (int i = 0; i < 3; i++) {
		int64_t took = peak_bytes(read_large, &limits[i]);
		if (took < 0 || took > most[i])
			fail_msg("limit %lld: %lld bytes", (long long)limits[i], (long long)took);
	}
}

/* 25 million values in 50 MB: a gigabyte of memory. */
static bool parse_zeros(void *arg)
{
	size_t n = 50 << 20;
	char *text = malloc(n);
	struct lwm_err e = { 0 };
	json_t *o;
	(void)arg;
	for (size_t i = 0; i < n; i++)
		text[i] = i == 0 ? '[' : i == n - 1 ? ']' : i % 2 ? '0' : ',';
	return lwm_json_parse(&o, text, n, "zeros", &e) == -LWM_EDATA && strstr(e.msg, "zeros: has more values") && !o;
}

/* As many commas and brackets in a string are one value. */
static bool parse_commas(void *arg)
{
	size_t n = 50 << 20;
	char *text = malloc(n);
	struct lwm_err e = { 0 };
	json_t *o;
	(void)arg;
	memset(text, ',', n);
	memcpy(text, "[\"\\\"[{:,", 8);
	memcpy(text + n - 2, "\"]", 2);
	return lwm_json_parse(&o, text, n, "commas", &e) == 0 && json_string_length(json_array_get(o, 0)) == n - 5;
}

static void test_json(void **state)
{
	(void)state;
	int64_t took = peak_bytes(parse_zeros, NULL);
	if (took < 0 || took > 80 * MIB)
		fail_msg("zeros: %lld bytes", (long long)took);
	assert_true(peak_bytes(parse_commas, NULL) >= 0);
}

/* ---- data ---- */

static struct lwm_ingest_cfg settings(int64_t max_bytes)
{
	return (struct lwm_ingest_cfg){ .max_bytes = max_bytes, .max_bad = -1, .threads = 1, .format = LWM_FORMAT_TEXT };
}

/* Every text of lines under every small limit: exactly those that fit come out. */
static void test_text_limit(void **state)
{
	static const char *const t[] = { "abc\n\n\n\n\n\nabcdefghijklmnop\n", "\n\n\n\n", "a\n\nbc\n\n\nd", "abcdefgh", "abcd\nabc\n",
					 "abcd\r\n\r\n\r\nx", "" };
	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct lwm_str want = { 0 };
		for (const char *s = t[i]; *s; s++) /* lines joined by newlines; the last one ends nothing */
			if (*s != '\r' && !(*s == '\n' && !s[1]))
				lwm_str_putc(&want, *s);
		OK(lwm_write_file(in_scratch("t.txt"), t[i], strlen(t[i]), true, &err));
		for (int64_t limit = 1; limit < 30; limit++) {
			const struct lwm_ingest_cfg c = settings(limit);
			struct lwm_reader r;
			struct lwm_record rec = { 0 };
			OK(lwm_reader_open(&r, &c, in_scratch("t.txt"), &err));
			assert_int_equal(lwm_reader_next(&r, &rec, &err), 1);
			bool fits = want.len <= (size_t)limit;
			assert_int_equal(rec.fault != NULL, !fits);
			assert_int_equal(rec.text.len, fits ? want.len : 0);
			assert_memory_equal(lwm_str_get(&rec.text), lwm_str_get(&want), rec.text.len);
			assert_int_equal(lwm_reader_next(&r, &rec, &err), 0);
			lwm_reader_close(&r);
			lwm_str_release(&rec.text);
		}
		lwm_str_release(&want);
	}
}

static bool read_overlong(void *arg)
{
	const struct lwm_ingest_cfg c = settings(*(int64_t *)arg);
	struct lwm_reader r;
	struct lwm_record rec = { 0 };
	struct lwm_err e = { 0 };
	bool ok = lwm_reader_open(&r, &c, in_scratch("long.txt"), &e) == 0;
	while (ok && lwm_reader_next(&r, &rec, &e) == 1)
		ok = rec.text.len <= (size_t)c.max_bytes;
	return ok && e.code == 0;
}

/* A text that fills its limit to the byte, an empty line, and 80 MB: the newline must not open the rest. Then one line of 80 MB. */
static void test_text_memory(void **state)
{
	static char block[1 << 20];
	int64_t limits[] = { 1000, 5 * MIB };
	(void)state;
	for (int one_line = 0; one_line < 2; one_line++)
		for (int k = 0; k < 2; k++) {
			int fd = open(in_scratch("long.txt"), O_WRONLY | O_CREAT | O_TRUNC, 0666);
			memset(block, 'x', sizeof block);
			for (int64_t left = limits[k]; left > 0; left -= (int64_t)sizeof block)
				assert_true(write(fd, block, left < (int64_t)sizeof block ? (size_t)left : sizeof block) > 0);
			assert_int_equal(write(fd, "\n\n", 2), 2);
			for (size_t i = 99; i < sizeof block && !one_line; i += 100)
				block[i] = '\n';
			for (int i = 0; i < 80; i++)
				assert_int_equal(write(fd, block, sizeof block), sizeof block);
			close(fd);
			int64_t took = peak_bytes(read_overlong, &limits[k]);
			if (took < 0 || took > 4 * limits[k] + 4 * MIB)
				fail_msg("limit %lld: %lld bytes", (long long)limits[k], (long long)took);
		}
}

enum { PLACES = 300, ROUNDS = 30, LARGE = 256 << 10 };

/* As ingest does: a batch has places, and each is emptied when the next record is read into it. */
static bool read_many(void *arg)
{
	const struct lwm_ingest_cfg c = { .max_bad = -1, .threads = 1, .format = LWM_FORMAT_TEXT, .separator = "-" };
	struct lwm_reader r;
	struct lwm_record *rec = calloc(PLACES, sizeof *rec);
	struct lwm_err e = { 0 };
	int64_t n = 0;
	(void)arg;
	bool ok = lwm_reader_open(&r, &c, in_scratch("many.txt"), &e) == 0;
	while (ok && lwm_reader_next(&r, &rec[n % PLACES], &e) == 1) {
		struct lwm_record *x = &rec[n++ % PLACES];
		ok = lwm_ids_reserve(&x->doc.ids, (int64_t)x->text.len, &e) == 0;
		memset(x->doc.ids.v, 1, x->text.len * 4);
	}
	return ok && n == PLACES * ROUNDS;
}

/* Ten records of a round are large, in other places each time: a place does not keep what a large one took. */
static void test_batch_memory(void **state)
{
	static char block[LARGE];
	FILE *f = fopen(in_scratch("many.txt"), "w");
	(void)state;
	memset(block, 'x', sizeof block);
	for (int i = 0; i < PLACES * ROUNDS; i++) {
		bool large = i % PLACES % ROUNDS == i / PLACES;
		assert_int_equal(fwrite(block, 1, large ? LARGE : 1, f), large ? LARGE : 1);
		fputs(i < PLACES * ROUNDS - 1 ? "\n-\n" : "", f);
	}
	assert_int_equal(fclose(f), 0);
	int64_t took = peak_bytes(read_many, NULL);
	if (took < 0 || took > 120 * MIB)
		fail_msg("%lld bytes", (long long)took);
}

/* Fields that come with the record name its text again and again. */
static void test_fields(void **state)
{
	const struct lwm_fields_cfg cfg = { .from_example = "fields", .index = -1 };
	struct lwm_tokenizer *t;
	struct lwm_fields *f;
	struct lwm_docbuf d = { 0 };
	struct lwm_str fields = { 0 }, text = { 0 };
	json_t *o = json_object();
	(void)state;
	OK(lwm_tokenizer_open(&t, "bytes", &err));
	OK(lwm_fields_open(&f, &cfg, t, &err));
	for (int i = 0; i < 20000; i++)
		lwm_str_puts(&fields, i ? i % 2 ? "+t" : ",t" : "t");
	for (int i = 0; i < 1 << 20; i++)
		lwm_str_putc(&text, 'x');
	json_object_set_new(o, "fields", json_string(fields.s));
	json_object_set_new(o, "t", json_string(text.s));
	says(lwm_fields_build(f, o, 1, &d, &err), LWM_EDATA, "make a document of more than");
	assert_string_equal(d.fault, "bad fields");
	for (int i = 0; i < 20000; i++)
		lwm_str_puts(&fields, ",t");
	json_object_set_new(o, "fields", json_string(fields.s));
	says(lwm_fields_build(f, o, 1, &d, &err), LWM_EDATA, "longer than");
	assert_string_equal(d.fault, "bad fields");
	json_object_set_new(o, "fields", json_string("[t],t+t"));
	OK(lwm_fields_build(f, o, 1, &d, &err));
	assert_int_equal(d.ids.n, 2 + 3 * (1 << 20) + 1);
	json_decref(o);
	lwm_str_release(&fields);
	lwm_str_release(&text);
	lwm_docbuf_release(&d);
	lwm_fields_free(f);
	lwm_tokenizer_free(t);
}

/* ---- io ---- */

static const char hash0[] = "00000000000000000000000000000000";

/* A document shard of one token that says it has `documents` documents. */
static void forge_docs(const char *path, int64_t documents)
{
	static const int64_t two[] = { 0, 1 };
	static const uint16_t token = 5;
	char meta[400];
	struct lwm_vec v[] = { { "tokens", LWM_V_U16, 1 },     { "doc_offset", LWM_V_I64, 2 },	 { "doc_run_offset", LWM_V_I64, 2 },
			       { "run_start", LWM_V_I64, 1 },  { "run_loss", LWM_V_U8, 1 },	 { "id_bytes", LWM_V_U8, 1 },
			       { "id_offset", LWM_V_I64, 2 },  { "source_bytes", LWM_V_U8, 1 }, { "source_offset", LWM_V_I64, 2 },
			       { "meta", LWM_V_TEXT, 0 } };
	const void *values[] = { &token, two, two, &two[0], "\1", "a", two, "a", two, meta };
	struct lwm_vfw *w;
	struct lwm_hash h;
	struct lwm_manifest m = { .kind = (char[]){ "docs" }, .tool = (char[]){ "t" }, .in = 1, .out = 1, .tokens = 1 };
	v[9].n = snprintf(meta, sizeof meta, "{\"schema\":\"lwm-docs-1\",\"tool\":\"t\",\"config\":\"\",\"content\":\"%s\",\"tokenizer\":"
			  "\"\",\"policy\":\"\",\"vocab_text\":10,\"vocab_vision\":0,\"documents\":%lld}", hash0, (long long)documents);
	OK(lwm_vfw_open(&w, path, false, "lwm-docs-1", v, 10, false, &err));
	for (int i = 0; i < 10; i++)
		OK(lwm_vfw_put(w, i, values[i], v[i].n, &err));
	OK(lwm_vfw_finish(w, &h, &m.bytes, &err));
	OK(lwm_vfw_commit(w, &err));
	memcpy(m.config_hash, hash0, 33);
	memcpy(m.content, hash0, 33);
	memcpy(m.hash, h.hex, 33);
	OK(lwm_manifest_write(&m, path, &err));
}

static void test_documents(void **state)
{
	struct lwm_docs *d;
	(void)state;
	forge_docs(in_scratch("f.h5"), 1);
	OK(lwm_docs_open(&d, in_scratch("f.h5"), &err));
	lwm_docs_close(d);
	for (int64_t bad = 0; bad < 2; bad++) {
		forge_docs(in_scratch("f.h5"), bad ? INT64_MAX : 2);
		says(lwm_docs_open(&d, in_scratch("f.h5"), &err), LWM_EDATA, "do not fit each other");
	}
}

static void test_manifest(void **state)
{
	struct lwm_manifest m;
	json_t *reasons = json_object(), *o;
	char key[16];
	(void)state;
	OK(lwm_write_file(in_scratch("m.h5"), "x", 1, true, &err));
	for (int k = 0; k < 2; k++) {
		json_object_clear(reasons);
		for (int i = 0; i < (k ? 1001 : 3); i++) {
			snprintf(key, sizeof key, "r%d", i);
			json_object_set_new(reasons, key, json_integer(k ? 1 : INT64_MAX / 2));
		}
		o = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:{s:i,s:i,s:i,s:O},s:[]}", "schema", "lwm-manifest-1", "kind", "docs",
			      "tool", "t", "config_hash", hash0, "content", hash0, "xxh3", hash0, "bytes", 1, "tokens", 1, "documents",
			      "in", 1, "out", 1, "rejected", 1, "reasons", reasons, "inputs");
		OK(lwm_seal_write(o, in_scratch("m.h5.manifest.json"), &err));
		says(lwm_manifest_read(&m, in_scratch("m.h5"), &err), LWM_EDATA, "make no sense");
		json_decref(o);
	}
	json_decref(reasons);
}

/* Slices of a checkpoint without values may claim any number of runs. */
static void test_checkpoint(void **state)
{
	const struct lwm_tensor t = { .name = "w", .ndim = 1, .shape = { (int64_t)1 << 50 } };
	const struct lwm_ckpt_slice s = { 0, 0, 1, (int64_t)1 << 50, 1, { 0 } };
	struct lwm_ckpt_part part;
	const struct lwm_ckpt_out o = { .dir = in_scratch("step_00000001"), .tensors = TABLE(&t, 1), .slice = &s, .nslice = 1 };
	json_t *config = json_object();
	const struct lwm_ckpt_meta m = { "lwm", 1, "1,1,1,1", 1, config, NULL, "", "", 0 };
	struct lwm_ckpt *c;
	(void)state;
	OK(lwm_ckpt_write_part(&o, &part, &err));
	OK(lwm_ckpt_commit(o.dir, &m, TABLE(&t, 1), &part, 1, &s, &err));
	says(lwm_ckpt_open(&c, o.dir, &err), LWM_EDATA, "no group of values");
	json_decref(config);
}

/* What four ranks wrote, of a mesh that cuts by rows and by columns: of each tensor [1024 x 4096] every one has half of the columns
 * of half of the rows, in all groups. */
enum { SIDE = 1024, WIDE = 4096, MATRICES = 8, QUARTERS = 4 };

static int fill_quarter(void *ctx, int group, int64_t slice, int64_t first, int64_t n, float *out, struct lwm_err *e)
{
	(void)ctx, (void)e;
	for (int64_t i = 0; i < n; i++)
		out[i] = (float)((first + i) % 8191) + (float)(group * MATRICES + slice) / 64;
	return 0;
}

static void save_quarters(const char *dir)
{
	struct lwm_tensor t[MATRICES] = { { .ndim = 0 } };
	struct lwm_ckpt_slice s[QUARTERS * MATRICES] = { { 0 } };
	struct lwm_ckpt_part part[QUARTERS];
	json_t *config = json_pack("{s:{s:i}}", "model", "hidden_size", 1);
	const struct lwm_ckpt_meta m = { "lwm", 1, "1,2,2,1", QUARTERS, config, NULL, "", "", LWM_CKPT_TRAINED_ALL };

	for (int i = 0; i < MATRICES; i++)
		t[i] = (struct lwm_tensor){ .name = &"w0\0w1\0w2\0w3\0w4\0w5\0w6\0w7"[3 * i], .ndim = 2, .shape = { SIDE, WIDE } };
	for (int r = 0; r < QUARTERS; r++) {
		struct lwm_ckpt_out o = { .dir = dir, .rank = r, .tensors = TABLE(t, MATRICES), .slice = s + r * MATRICES,
					  .nslice = MATRICES, .groups = LWM_CKPT_TRAINED_ALL, .fill = fill_quarter };

		for (int i = 0; i < MATRICES; i++)
			s[r * MATRICES + i] = (struct lwm_ckpt_slice){
				.tensor = i, .offset = (r / 2) * (SIDE / 2) * WIDE + (r % 2) * (WIDE / 2), .run = WIDE / 2,
				.count = SIDE / 2, .stride = WIDE };
		OK(lwm_ckpt_write_part(&o, &part[r], &err));
	}
	OK(lwm_ckpt_commit(dir, &m, TABLE(t, MATRICES), part, QUARTERS, s, &err));
	json_decref(config);
}

static bool merge_quarters(void *arg)
{
	struct lwm_model_spec spec = { .dtype = LWM_ST_BF16 };
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c = NULL, *cut = NULL;
	bool model = *(bool *)arg;
	int rc = lwm_ckpt_open(&c, in_scratch("quarters/step_00000001"), &e);

	if (rc == 0 && model)
		rc = lwm_merge_model(c, LWM_CKPT_PARAMS, false, in_scratch("merged"), &spec, true, NULL, &e);
	if (rc == 0 && model)
		rc = lwm_merge_verify_model(c, LWM_CKPT_PARAMS, false, in_scratch("merged"), LWM_ST_BF16, NULL, &e);
	if (rc == 0 && !model)
		rc = lwm_merge_recut(c, in_scratch("thirds"), 3, "3,1,1,1", true, NULL, &e);
	if (rc == 0 && !model)
		rc = lwm_ckpt_open(&cut, in_scratch("thirds/step_00000001"), &e);
	if (rc == 0 && !model)
		rc = lwm_merge_verify_ckpt(c, cut, NULL, &e);
	if (rc < 0)
		fprintf(stderr, "%s\n", e.msg);
	lwm_ckpt_close(cut);
	lwm_ckpt_close(c);
	return rc == 0;
}

/* 384 MiB of weights and moments, 128 of weights: whatever is made of them takes less memory than one tensor has, 16 MiB. */
static void test_merge_memory(void **state)
{
	bool into_model[] = { true, false };
	int64_t model, recut;

	(void)state;
	save_quarters(in_scratch("quarters/step_00000001"));
	model = peak_bytes(merge_quarters, &into_model[0]);
	recut = peak_bytes(merge_quarters, &into_model[1]);
	if (model < 0 || model > 12 * MIB || recut < 0 || recut > 12 * MIB)
		fail_msg("into a model %lld bytes, for three ranks %lld", (long long)model, (long long)recut);
}

/* A vocabulary of pieces of two bytes each. */
static void test_pieces(void **state)
{
	struct lwm_tokenizer *t;
	size_t n = (size_t)5 << 20;
	char *model = malloc(2 * n);
	(void)state;
	for (size_t i = 0; i < n; i++)
		memcpy(model + 2 * i, "\x0a\x00", 2);
	OK(lwm_write_file(in_scratch("pieces.model"), model, 2 * n, true, &err));
	says(lwm_tokenizer_open(&t, in_scratch("pieces.model"), &err), LWM_EDATA, "more than 4194304 pieces");
	free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strings),	     cmocka_unit_test(test_arena),	 cmocka_unit_test(test_seconds),
		cmocka_unit_test(test_ids),	     cmocka_unit_test(test_read_file),	 cmocka_unit_test(test_json),
		cmocka_unit_test(test_text_limit),   cmocka_unit_test(test_text_memory), cmocka_unit_test(test_batch_memory),
		cmocka_unit_test(test_fields),	     cmocka_unit_test(test_documents),	 cmocka_unit_test(test_manifest),
		cmocka_unit_test(test_checkpoint),   cmocka_unit_test(test_merge_memory),	 cmocka_unit_test(test_pieces),
	};
	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
