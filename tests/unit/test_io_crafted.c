/* Files whose every checksum is right and whose contents are not: what a program with a mistake would write, or somebody who
 * wants trouble. Flipped bits (test_io_shard, test_io_ckpt) stop at the sums; these reach the checks behind them. */
#include "tests/unit/io_fault.h"
#include "tests/unit/tensor_table.h"

#include "common/base/outfile.h"
#include "common/io/ckpt_int.h"
#include "common/io/merge.h"
#include "common/io/rowshard.h"
#include "common/io/seal.h"
#include "common/io/shard.h"

/* ---- shards from vectors ---- */

enum { MOST = 16, VECS = 9 };

struct content { /* of one vector: values are cast to its type */
	const char *name;
	enum lwm_vtype type;
	int n;
	int64_t v[MOST];
};

static void put(struct lwm_spool *s, const struct content *c, struct lwm_err *e)
{
	for (int i = 0; i < c->n; i++) {
		uint16_t u16 = (uint16_t)c->v[i];
		uint8_t u8 = (uint8_t)c->v[i];
		const void *p = c->type == LWM_V_U16 ? (void *)&u16 : c->type == LWM_V_U8 ? (void *)&u8 : (void *)&c->v[i];
		must(lwm_spool_add(s, p, lwm_vtype_bytes(c->type), "spool", e), e);
	}
}

/* As the writers do it, but with any values; meta is stolen. */
static void craft(const char *path, const char *kind, const char *schema, json_t *meta, const struct content *c, int vecs)
{
	struct lwm_shard_out s;
	struct lwm_spool spool[VECS] = { { 0 } };
	struct lwm_vec v[VECS];
	struct lwm_err e = { 0 };
	must(lwm_shard_begin(&s, path, kind, schema, "test", "", true, &e), &e);
	json_object_update(s.meta, meta);
	json_decref(meta);
	for (int i = 0; i < vecs; i++) {
		v[i] = (struct lwm_vec){ c[i].name, c[i].type, 0 };
		put(&spool[i], &c[i], &e);
	}
	must(lwm_shard_commit(&s, schema, v, spool, vecs, &e), &e);
	for (int i = 0; i < vecs; i++)
		lwm_spool_release(&spool[i]);
	lwm_shard_release(&s);
}

/* ---- rows ---- */

enum { TOKENS, ROW_SEG, SEG_START, SEG_LEN, SEG_LOSS, SEG_DOC, ROW_RUN, RUN_START, RUN_LOSS };

/* Two rows of 6: documents of 3 and 2 tokens and a padding, one of 6. All but first tokens and the padding count. */
static const struct content good_rows[VECS] = {
	[TOKENS] = { "tokens", LWM_V_U16, 12, { 1, 2, 3, 4, 5, 0, 6, 7, 8, 9, 10, 99 } },
	[ROW_SEG] = { "row_seg", LWM_V_I64, 3, { 0, 2, 3 } },
	[SEG_START] = { "seg_start", LWM_V_I64, 3, { 0, 3, 0 } },
	[SEG_LEN] = { "seg_len", LWM_V_I64, 3, { 3, 2, 6 } },
	[SEG_LOSS] = { "seg_loss", LWM_V_I64, 3, { 2, 1, 5 } },
	[SEG_DOC] = { "seg_doc", LWM_V_I64, 3, { 0, 1, 2 } },
	[ROW_RUN] = { "row_run", LWM_V_I64, 3, { 0, 5, 7 } },
	[RUN_START] = { "run_start", LWM_V_I64, 7, { 0, 1, 3, 4, 5, 0, 1 } },
	[RUN_LOSS] = { "run_loss", LWM_V_U8, 7, { 0, 1, 0, 1, 0, 0, 1 } },
};

/* The same as they are written today: places where the mask changes, and a row's padding in its middle. */
enum { NEW_TOKENS, NEW_SEG, NEW_LEN, NEW_DOC, NEW_FLIP, NEW_FLIP_AT, NEW_VECS };
static const struct content new_rows[NEW_VECS] = {
	[NEW_TOKENS] = { "tokens", LWM_V_U16, 12, { 1, 2, 3, 0, 4, 5, 6, 7, 8, 9, 10, 99 } },
	[NEW_SEG] = { "row_seg", LWM_V_I64, 3, { 0, 3, 4 } },
	[NEW_LEN] = { "seg_len", LWM_V_U16, 4, { 3, 1, 2, 6 } },
	[NEW_DOC] = { "seg_doc", LWM_V_I64, 4, { 0, -2, 1, -1 } },
	[NEW_FLIP] = { "row_flip", LWM_V_I64, 3, { 0, 2, 3 } },
	[NEW_FLIP_AT] = { "flip_at", LWM_V_U16, 3, { 1, 2, 1 } },
};

static int read_rows(const struct content *c, int64_t rows)
{
	bool old = c[SEG_START].name == good_rows[SEG_START].name;
	struct lwm_rows_reader *r = NULL;
	struct lwm_row row = { 0 };
	struct lwm_err e = { 0 };
	json_t *meta = json_pack("{s:i s:i s:i s:s s:s s:I s:i s:i}", "seq_length", 6, "vocab_text", 90, "vocab_vision", 10, "tokenizer",
				 "", "weighting", "per_token", "rows", (json_int_t)rows, "segments", 3, "rejected", 0);
	craft(at("rows.h5"), "rows", old ? "lwm-rows-1" : "lwm-rows-2", meta, c, old ? VECS : NEW_VECS);
	int rc = lwm_rows_open(&r, at("rows.h5"), &e);
	for (int64_t i = 0; rc == 0 && i < rows; i++)
		rc = lwm_rows_read(r, i, &row, &e);
	assert_true(rc == 0 || e.msg[0]);
	lwm_row_release(&row);
	lwm_rows_close(r);
	return rc;
}

static void rows_that_do_not_add_up(void **state)
{
	static const struct {
		const char *what;
		int vec, i;
		int64_t v;
	} t[] = {
		{ "a label more than there are", SEG_LOSS, 0, 3 },      { "a label less", SEG_LOSS, 2, 4 },
		{ "padding with loss", RUN_LOSS, 4, 1 },                { "a first token with loss", RUN_LOSS, 5, 1 },
		{ "documents that overlap", SEG_START, 1, 2 },          { "a document behind the row", SEG_START, 2, 1 },
		{ "an empty document", SEG_LEN, 1, 0 },                 { "a negative start", SEG_START, 0, -1 },
		{ "runs that do not ascend", RUN_START, 2, 1 },         { "a run behind the row", RUN_START, 4, 6 },
		{ "a row that begins late", RUN_START, 5, 1 },          { "loss that is no yes or no", RUN_LOSS, 1, 2 },
		{ "segments that do not ascend", ROW_SEG, 1, 4 },       { "segments left over", ROW_SEG, 2, 2 },
		{ "runs left over", ROW_RUN, 2, 6 },                    { "runs that do not ascend from row to row", ROW_RUN, 1, 8 },
		{ "an id outside of the vocabulary", TOKENS, 11, 100 },
	};
	(void)state;
	assert_int_equal(read_rows(good_rows, 2), 0);
	for (size_t k = 0; k < sizeof t / sizeof *t; k++) {
		struct content c[VECS];
		memcpy(c, good_rows, sizeof c);
		c[t[k].vec].v[t[k].i] = t[k].v;
		int rc = read_rows(c, 2);
		if (rc != -LWM_EDATA)
			fail_msg("%s: %d", t[k].what, rc);
	}
	assert_int_equal(read_rows(good_rows, 3), -LWM_EDATA);
	assert_int_equal(read_rows(good_rows, 1), -LWM_EDATA);
	for (int vec = 0; vec < VECS; vec++) { /* a value too few */
		struct content c[VECS];
		memcpy(c, good_rows, sizeof c);
		c[vec].n--;
		assert_int_equal(read_rows(c, 2), -LWM_EDATA);
	}
}

static void new_rows_that_do_not_add_up(void **state)
{
	static const struct {
		const char *what;
		int vec, i;
		int64_t v;
	} t[] = {
		{ "an empty document", NEW_LEN, 0, 0 },                      { "a document behind the row", NEW_LEN, 2, 3 },
		{ "one that is longer than the row", NEW_LEN, 3, 7 },        { "a document of no number", NEW_DOC, 2, -3 },
		{ "a flip behind the row", NEW_FLIP_AT, 2, 7 },              { "flips that do not ascend", NEW_FLIP_AT, 1, 0 },
		{ "two flips at one place", NEW_FLIP_AT, 1, 1 },             { "segments that do not ascend", NEW_SEG, 1, 5 },
		{ "segments left over", NEW_SEG, 2, 3 },                     { "flips left over", NEW_FLIP, 2, 2 },
		{ "flips that do not ascend from row to row", NEW_FLIP, 1, 4 }, { "a row that begins before", NEW_SEG, 0, -1 },
		{ "an id outside of the vocabulary", NEW_TOKENS, 11, 100 },
	};
	(void)state;
	assert_int_equal(read_rows(new_rows, 2), 0);
	for (size_t k = 0; k < sizeof t / sizeof *t; k++) {
		struct content c[NEW_VECS];
		memcpy(c, new_rows, sizeof c);
		c[t[k].vec].v[t[k].i] = t[k].v;
		int rc = read_rows(c, 2);
		if (rc != -LWM_EDATA)
			fail_msg("%s: %d", t[k].what, rc);
	}
	assert_int_equal(read_rows(new_rows, 3), -LWM_EDATA);
	assert_int_equal(read_rows(new_rows, 1), -LWM_EDATA);
	for (int vec = 0; vec < NEW_VECS; vec++) { /* a value too few */
		struct content c[NEW_VECS];
		memcpy(c, new_rows, sizeof c);
		c[vec].n--;
		assert_int_equal(read_rows(c, 2), -LWM_EDATA);
	}
}

/* ---- documents ---- */

enum { DOC_TOKENS, DOC_OFFSET, DOC_RUN, DRUN_START, DRUN_LOSS, ID_BYTES, ID_OFFSET, SRC_BYTES, SRC_OFFSET };

static const struct content good_docs[VECS] = {
	[DOC_TOKENS] = { "tokens", LWM_V_U16, 5, { 1, 2, 3, 4, 99 } },
	[DOC_OFFSET] = { "doc_offset", LWM_V_I64, 3, { 0, 3, 5 } },
	[DOC_RUN] = { "doc_run_offset", LWM_V_I64, 3, { 0, 2, 3 } },
	[DRUN_START] = { "run_start", LWM_V_I64, 3, { 0, 1, 0 } },
	[DRUN_LOSS] = { "run_loss", LWM_V_U8, 3, { 0, 1, 1 } },
	[ID_BYTES] = { "id_bytes", LWM_V_U8, 3, { 'a', 'b', 'c' } },
	[ID_OFFSET] = { "id_offset", LWM_V_I64, 3, { 0, 1, 3 } },
	[SRC_BYTES] = { "source_bytes", LWM_V_U8, 1, { 's' } },
	[SRC_OFFSET] = { "source_offset", LWM_V_I64, 3, { 0, 1, 1 } },
};

static int read_docs(const struct content *c)
{
	struct lwm_docs *d = NULL;
	struct lwm_doc doc;
	struct lwm_err e = { 0 };
	int64_t len[2];
	int32_t t[MOST];
	json_t *meta = json_pack("{s:i s:i s:s s:s s:i s:i}", "vocab_text", 90, "vocab_vision", 10, "tokenizer", "", "policy", "none",
				 "documents", 2, "rejected", 0);
	craft(at("docs.h5"), "docs", "lwm-docs-1", meta, c, VECS);
	int rc = lwm_docs_open(&d, at("docs.h5"), &e);
	if (rc == 0)
		rc = lwm_docs_lengths(d, 0, 2, len, &e);
	for (int64_t i = 0; rc == 0 && i < 2; i++) {
		rc = lwm_docs_get(d, i, &doc, &e);
		if (rc == 0)
			rc = lwm_docs_read(d, i, 0, doc.n, t, &e);
		if (rc == 0) { /* one token more than it has */
			assert_int_equal(lwm_docs_read(d, i, 0, doc.n + 1, t, NULL), -LWM_EDATA);
			assert_int_equal(lwm_docs_read(d, i, 2, 1, t, NULL), -LWM_EDATA);
			assert_int_equal(lwm_docs_read(d, i, -1, 1, t, NULL), -LWM_EDATA);
		}
	}
	assert_true(rc == 0 || e.msg[0]);
	if (d) { /* all at once is judged as one by one, but for the strings */
		int64_t token[3], run[3];
		struct lwm_loss_run runs[MOST];
		int many = lwm_docs_extents(d, 0, 2, token, run, NULL);
		if (many == 0)
			many = lwm_docs_read_many(d, 2, token, run, t, runs, NULL);
		assert_true(many == rc || (many == 0 && c[ID_OFFSET].v[1] != good_docs[ID_OFFSET].v[1]));
	}
	lwm_docs_close(d);
	return rc;
}

static void documents_that_do_not_add_up(void **state)
{
	static const struct {
		const char *what;
		int vec, i;
		int64_t v;
	} t[] = {
		{ "an id outside of the vocabulary", DOC_TOKENS, 4, 100 }, { "documents that do not ascend", DOC_OFFSET, 1, 6 },
		{ "an empty document", DOC_OFFSET, 1, 0 },                 { "tokens left over", DOC_OFFSET, 2, 4 },
		{ "runs that do not ascend", DRUN_START, 1, 0 },           { "a run behind its document", DRUN_START, 1, 3 },
		{ "a document that begins late", DRUN_START, 2, 1 },       { "loss that is no yes or no", DRUN_LOSS, 2, 2 },
		{ "a document without runs", DOC_RUN, 1, 3 },              { "ids that do not ascend", ID_OFFSET, 1, 4 },
		{ "ids left over", ID_OFFSET, 2, 2 },                      { "sources left over", SRC_OFFSET, 2, 0 },
	};
	(void)state;
	assert_int_equal(read_docs(good_docs), 0);
	for (size_t k = 0; k < sizeof t / sizeof *t; k++) {
		struct content c[VECS];
		memcpy(c, good_docs, sizeof c);
		c[t[k].vec].v[t[k].i] = t[k].v;
		int rc = read_docs(c);
		if (rc != -LWM_EDATA)
			fail_msg("%s: %d", t[k].what, rc);
	}
}

/* ---- records that speak of something else ---- */

/* The manifest of another content of the same size: large files are not hashed when opened, so `content` must tell. */
static void a_manifest_of_another_content(void **state)
{
	json_t *o;
	struct lwm_err e = { 0 };
	struct lwm_docs *d;
	char name[600];
	(void)state;
	assert_int_equal(read_docs(good_docs), 0);
	snprintf(name, sizeof name, "%s.manifest.json", at("docs.h5"));
	must(lwm_seal_read(&o, name, "lwm-manifest-1", &e), &e);
	must(lwm_seal_write(o, name, &e), &e);
	must(lwm_docs_open(&d, at("docs.h5"), &e), &e); /* sealed again it is still good */
	lwm_docs_close(d);
	json_object_set_new(o, "content", json_string("0123456789abcdef0123456789abcdef"));
	must(lwm_seal_write(o, name, &e), &e);
	assert_int_equal(lwm_docs_open(&d, at("docs.h5"), &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "stale or swapped"));
	json_decref(o);
}

/* Documents that were rejected, but not for the reasons that are told. */
static void a_manifest_that_does_not_add_up(void **state)
{
	json_t *o;
	struct lwm_err e = { 0 };
	struct lwm_docs *d;
	char name[600];
	(void)state;
	assert_int_equal(read_docs(good_docs), 0);
	snprintf(name, sizeof name, "%s.manifest.json", at("docs.h5"));
	must(lwm_seal_read(&o, name, "lwm-manifest-1", &e), &e);
	json_object_set_new(json_object_get(o, "documents"), "rejected", json_integer(1));
	must(lwm_seal_write(o, name, &e), &e);
	assert_int_equal(lwm_docs_open(&d, at("docs.h5"), &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "add up"));
	json_decref(o);
}

static void a_record_of_another_kind(void **state)
{
	struct lwm_err e = { 0 };
	json_t *o = json_pack("{s:s}", "schema", "lwm-other-1"), *back;
	(void)state;
	must(lwm_seal_write(o, at("record.json"), &e), &e);
	json_decref(o);
	must(lwm_seal_read(&back, at("record.json"), "lwm-other-1", &e), &e);
	json_decref(back);
	assert_int_equal(lwm_seal_read(&back, at("record.json"), "lwm-checkpoint-1", &e), -LWM_EDATA);
	assert_null(back);
}

/* ---- vectors ---- */

static const struct lwm_vec one_vector = { "values", LWM_V_I64, 20000 };

static void write_vectors(int64_t *values)
{
	struct lwm_vfw *w;
	struct lwm_err e = { 0 };
	struct lwm_hash h;
	int64_t bytes;
	for (int64_t i = 0; i < 20000; i++)
		values[i] = i * i;
	must(lwm_vfw_open(&w, at("vec.h5"), false, "lwm-test-1", &one_vector, 1, false, &e), &e);
	must(lwm_vfw_put(w, 0, values, 20000, &e), &e);
	must(lwm_vfw_finish(w, &h, &bytes, &e), &e);
	must(lwm_vfw_commit(w, &e), &e);
}

/* The sum over the sums: found by its value, and changed. Nothing else would notice. */
static void a_table_of_sums_that_was_touched(void **state)
{
	static int64_t values[20000];
	uint64_t sum[4], all;
	struct lwm_vfr *r;
	struct lwm_err e = { 0 };
	size_t n;
	(void)state;
	write_vectors(values);
	for (int i = 0; i < 3; i++) {
		size_t len = i < 2 ? LWM_VF_BLOCK : sizeof values - (size_t)2 * LWM_VF_BLOCK;
		sum[i] = lwm_hash64((char *)values + (size_t)i * LWM_VF_BLOCK, len, 0);
	}
	all = lwm_hash64(sum, 24, 0);
	char *text = slurp(at("vec.h5"), &n), *place = memmem(text, n, &all, sizeof all);
	assert_non_null(place);
	flip(at("vec.h5"), (size_t)(place - text) + 3, 1);
	free(text);
	assert_int_equal(lwm_vfr_open(&r, at("vec.h5"), "lwm-test-1", &one_vector, 1, &e), -LWM_EDATA);
	assert_null(r);
}

static void values_outside_of_a_vector(void **state)
{
	static int64_t values[20000], got[20001];
	static const int64_t range[][2] = { { 0, 20001 }, { 20000, 1 }, { -1, 2 }, { 5, -1 }, { 30000, 0 } };
	struct lwm_vfr *r;
	struct lwm_err e = { 0 };
	(void)state;
	write_vectors(values);
	must(lwm_vfr_open(&r, at("vec.h5"), "lwm-test-1", &one_vector, 1, &e), &e);
	for (size_t i = 0; i < sizeof range / sizeof *range; i++)
		assert_int_equal(lwm_vfr_read(r, 0, range[i][0], range[i][1], got, NULL), -LWM_EDATA);
	must(lwm_vfr_read(r, 0, 0, 20000, got, &e), &e);
	assert_memory_equal(got, values, sizeof values);
	must(lwm_vfr_read(r, 0, 20000, 0, got, &e), &e);
	must(lwm_vfr_read(r, 0, 8191, 3, got, &e), &e); /* across two blocks */
	assert_memory_equal(got, values + 8191, 24);
	lwm_vfr_close(r);
}

/* ---- checkpoints ---- */

static const struct lwm_tensor table[] = { { .name = "model.norm.weight", .ndim = 1, .shape = { 30 } }, { .name = "model.other.weight", .ndim = 2, .shape = { 7, 5 } } };
static const struct lwm_tensor others[] = { { .name = "model.norm.weight", .ndim = 1, .shape = { 30 } }, { .name = "model.third.weight", .ndim = 2, .shape = { 7, 5 } } };

/* Two parts that cut both tensors; `claimed` goes into the record. */
static char *checkpoint(const char *root, const struct lwm_tensor *claimed)
{
	float v[3][35];
	char *dir = lwm_ckpt_dir(root, 3);
	struct lwm_ckpt_part part[2];
	struct lwm_err e = { 0 };
	json_t *config = json_pack("{s:{s:i,s:i}}", "model", "hidden_size", 8, "num_attention_heads", 2);
	struct lwm_ckpt_meta m = { "lwm", 3, "2,1,1,1", 2, config, NULL, "", "", LWM_CKPT_TRAINED_ALL };
	for (int g = 0; g < 3; g++)
		for (int i = 0; i < 35; i++)
			v[g][i] = (float)(100 * g + i);
	struct lwm_ckpt_slice s[4];
	for (int r = 0; r < 2; r++) {
		s[2 * r] = (struct lwm_ckpt_slice){ 0, r ? 11 : 0, r ? 19 : 11, 1, 0, { v[0] + r, v[1] + r, v[2] + r } };
		/* columns */
		s[2 * r + 1] = (struct lwm_ckpt_slice){ 1, r ? 3 : 0, r ? 2 : 3, 7, 5, { v[0] + 3, v[1] + 3, v[2] + 3 } };
		struct lwm_ckpt_out o = { dir, r, TABLE(table, 2), s + 2 * r, 2, LWM_CKPT_TRAINED_ALL, NULL, NULL, NULL };
		must(lwm_ckpt_write_part(&o, &part[r], &e), &e);
	}
	must(lwm_ckpt_commit(dir, &m, TABLE(claimed, 2), part, 2, s, &e), &e);
	json_decref(config);
	return dir;
}

static void a_checkpoint_of_other_tensors(void **state)
{
	char *dir = checkpoint(at("ck-other"), others);
	struct lwm_ckpt *c;
	struct lwm_err e = { 0 };
	float v[4];
	(void)state;
	must(lwm_ckpt_open(&c, dir, &e), &e); /* which opens no part */
	assert_int_equal(lwm_ckpt_read(c, LWM_CKPT_PARAMS, 0, 0, 4, v, &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "other tensors"));
	assert_int_equal(lwm_ckpt_covers(c, NULL), -LWM_EDATA);
	lwm_ckpt_close(c);
	free(dir);
}

/* Without reading it all: a part that grew or shrank is noticed by its size alone. */
static void a_part_of_another_size(void **state)
{
	char *dir = checkpoint(at("ck-size"), table), path[600];
	struct lwm_err e = { 0 };
	(void)state;
	must(lwm_ckpt_verify(dir, LWM_CKPT_QUICK, &e), &e);
	snprintf(path, sizeof path, "%s/part_00001.h5", dir);
	int fd = open(path, O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
	assert_int_equal(lwm_ckpt_verify(dir, LWM_CKPT_QUICK, &e), -LWM_EDATA);
	free(dir);
}

/* Slices whose totals are right, while one value is in two of them and one in none. */
static void slices_that_do_not_cover(void **state)
{
	static const struct lwm_tensor one = { .name = "model.norm.weight", .ndim = 1, .shape = { 30 } };
	float v[30] = { 0 };
	char *dir = lwm_ckpt_dir(at("ck-holes"), 1);
	struct lwm_ckpt_slice s[3] = { { 0, 0, 10, 1, 0, { v, v, v } },
				       { 0, 11, 19, 1, 0, { v, v, v } },
				       { 0, 20, 1, 1, 0, { v, v, v } } };
	struct lwm_ckpt_out o = { dir, 0, TABLE(&one, 1), s, 3, LWM_CKPT_TRAINED_ALL, NULL, NULL, NULL };
	json_t *config = json_pack("{s:{s:i,s:i}}", "model", "hidden_size", 8, "num_attention_heads", 2);
	struct lwm_ckpt_meta m = { "lwm", 1, "1,1,1,1", 1, config, NULL, "", "", LWM_CKPT_TRAINED_ALL };
	struct lwm_ckpt_part part;
	struct lwm_ckpt *c;
	struct lwm_err e = { 0 };
	(void)state;
	must(lwm_ckpt_write_part(&o, &part, &e), &e);
	must(lwm_ckpt_commit(dir, &m, TABLE(&one, 1), &part, 1, s, &e), &e);
	must(lwm_ckpt_open(&c, dir, &e), &e);
	assert_int_equal(lwm_ckpt_covers(c, &e), -LWM_EDATA);
	assert_int_equal(lwm_ckpt_read(c, LWM_CKPT_PARAMS, 0, 5, 8, v, NULL), -LWM_EDATA); /* across the hole */
	assert_int_equal(lwm_ckpt_read(c, LWM_CKPT_PARAMS, 0, 15, 8, v, NULL), -LWM_EDATA); /* across the double one */
	lwm_ckpt_close(c);
	/* ten of thirty values */
	char *lacking = lwm_ckpt_dir(at("ck-lacking"), 1);
	o.dir = lacking;
	lwm_err_clear(&e);
	o.nslice = 1;
	must(lwm_ckpt_write_part(&o, &part, &e), &e);
	must(lwm_ckpt_commit(lacking, &m, TABLE(&one, 1), &part, 1, s, &e), &e);
	assert_int_equal(lwm_ckpt_open(&c, lacking, &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "10 of the 30 values"));
	/* and those that are no slices at all are not written */
	static const struct lwm_ckpt_slice bad[] = { { 0, 0, 5, 2, 3, { 0 } }, { 0, 26, 5, 1, 0, { 0 } }, { 0, 0, 5, 3, 13, { 0 } },
						     { 0, 1, 5, 2, 25, { 0 } }, { 0, -1, 5, 1, 0, { 0 } }, { 0, 0, 0, 1, 0, { 0 } },
						     { 0, 0, 31, 1, 0, { 0 } }, { 1, 0, 1, 1, 0, { 0 } } };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct lwm_ckpt_slice x = bad[i];
		x.data[0] = x.data[1] = x.data[2] = v;
		o.slice = &x;
		if (lwm_ckpt_write_part(&o, &part, NULL) >= 0)
			fail_msg("slice %zu was written", i);
	}
	json_decref(config);
	free(lacking);
	free(dir);
}

/* A save that was killed is no checkpoint to keep, whatever its step. */
static void what_was_never_finished_goes(void **state)
{
	char *dir = checkpoint(at("ck-keep"), table);
	struct lwm_ckpt_keeper *k;
	struct lwm_err e = { 0 };
	(void)state;
	must(lwm_mkdirs(at("ck-keep/step_00000002"), &e), &e);
	must(lwm_write_file(at("ck-keep/step_00000002/part_00000.h5"), "x", 1, false, &e), &e);
	must(lwm_ckpt_keeper_new(&k, at("ck-keep"), 1, 2, &e), &e);
	must(lwm_ckpt_keeper_saved(k, 3, &e), &e);
	assert_false(lwm_path_exists(at("ck-keep/step_00000002")));
	assert_true(lwm_path_exists(dir));
	lwm_ckpt_keeper_free(k);
	free(dir);
}

static void two_bytes_hold_65536_ids(void **state)
{
	(void)state;
	assert_int_equal(lwm_token_type(65536), LWM_V_U16);
	assert_int_equal(lwm_token_type(65537), LWM_V_U32);
}

/* Cut for three ranks and for one: every value of every group is where it was. */
static void another_mesh_holds_the_same_values(void **state)
{
	char *dir = checkpoint(at("ck-recut"), table);
	struct lwm_ckpt *a, *b;
	struct lwm_err e = { 0 };
	float v[35];
	(void)state;
	must(lwm_ckpt_open(&a, dir, &e), &e);
	must(lwm_ckpt_read(a, LWM_CKPT_ADAM_V, 0, 9, 4, v, &e), &e); /* across the cut between the parts */
	assert_true(v[0] == 209 && v[1] == 210 && v[2] == 201 && v[3] == 202);
	must(lwm_ckpt_read(a, LWM_CKPT_PARAMS, 1, 0, 35, v, &e), &e); /* rows of 3 and 2 columns */
	assert_true(v[0] == 3 && v[2] == 5 && v[3] == 3 && v[4] == 4 && v[5] == 6 && v[8] == 5 && v[34] == 16);
	for (int ranks = 1; ranks <= 5; ranks += 2) {
		char root[600];
		snprintf(root, sizeof root, "%s/%d", at("recut"), ranks);
		must(lwm_mkdirs(root, &e), &e);
		must(lwm_merge_recut(a, root, ranks, "x", true, NULL, &e), &e);
		char *to = lwm_ckpt_dir(root, 3);
		must(lwm_ckpt_open(&b, to, &e), &e);
		must(lwm_merge_verify_ckpt(a, b, NULL, &e), &e);
		lwm_ckpt_close(b);
		free(to);
	}
	lwm_ckpt_close(a);
	free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_that_do_not_add_up),       cmocka_unit_test(new_rows_that_do_not_add_up),
		cmocka_unit_test(documents_that_do_not_add_up),
		cmocka_unit_test(a_manifest_of_another_content), cmocka_unit_test(a_record_of_another_kind),
		cmocka_unit_test(a_manifest_that_does_not_add_up),
		cmocka_unit_test(a_table_of_sums_that_was_touched), cmocka_unit_test(values_outside_of_a_vector),
		cmocka_unit_test(a_checkpoint_of_other_tensors), cmocka_unit_test(a_part_of_another_size),
		cmocka_unit_test(another_mesh_holds_the_same_values), cmocka_unit_test(slices_that_do_not_cover),
		cmocka_unit_test(two_bytes_hold_65536_ids),      cmocka_unit_test(what_was_never_finished_goes),
	};
	return cmocka_run_group_tests_name("io_crafted", tests, scratch_make, scratch_remove);
}
