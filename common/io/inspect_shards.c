/* What document and row shards, and the lists beside them, say of themselves, and whether they are intact. */
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/docshard_int.h"
#include "common/io/inspect_int.h"
#include "common/io/rowindex.h"
#include "common/io/rowshard_int.h"
#include "common/io/seal.h"

enum { PIECE = 1 << 16 }; /* tokens read at a time */

/* Texts that are JSON are shown as such. */
static json_t *text_or_json(const char *text)
{
	json_t *v;
	return lwm_json_parse(&v, text, strlen(text), "text", NULL) < 0 ? json_string(text) : v;
}

static void put_manifest(json_t *o, const struct lwm_manifest *m, bool *failed)
{
	json_t *in = json_array(), *why = json_object();
	for (int64_t i = 0; i < m->nreject; i++)
		lwm_put(why, m->reject[i].reason, json_integer(m->reject[i].count), failed);
	for (int64_t i = 0; i < m->ninput; i++)
		if (json_array_append_new(in, json_pack("{s:s,s:I,s:s}", "name", m->input[i].path, "bytes",
							(json_int_t)m->input[i].bytes, "xxh3", m->input[i].hash)))
			*failed = true;
	lwm_put(o, "rejected", json_integer(m->rejected), failed);
	lwm_put(o, "reasons", why, failed);
	lwm_put(o, "inputs", in, failed);
	if (m->list.count)
		lwm_put(o, "inputs_list", json_pack("{s:I,s:s}", "count", (json_int_t)m->list.count, "xxh3", m->list.hash), failed);
	lwm_put(o, "bytes", json_integer(m->bytes), failed);
	lwm_put(o, "xxh3", json_string(m->hash), failed);
}

static int check_manifest(const char *path, struct lwm_err *e)
{
	struct lwm_manifest m;
	LWM_TRY(lwm_manifest_read(&m, path, e));
	int rc = lwm_manifest_check(&m, path, true, e);
	lwm_manifest_release(&m);
	return rc;
}

/* ---- document shards ---- */

static int describe_docs(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e)
{
	(void)tensors;
	struct lwm_docs *d;
	LWM_TRY(lwm_docs_open(&d, path, e));
	const struct lwm_docs_meta *m = lwm_docs_get_meta(d);
	lwm_put(o, "documents", json_integer(lwm_docs_count(d)), failed);
	lwm_put(o, "tokens", json_integer(lwm_docs_tokens(d)), failed);
	lwm_put(o, "vocab_text", json_integer(m->vocab_text), failed);
	lwm_put(o, "vocab_vision", json_integer(m->vocab_vision), failed);
	lwm_put(o, "tokenizer", json_string(m->tokenizer), failed);
	lwm_put(o, "policy", json_string(m->policy), failed);
	lwm_put(o, "tool", json_string(m->tool), failed);
	lwm_put(o, "config", text_or_json(m->config), failed);
	put_manifest(o, lwm_docs_manifest(d), failed);
	lwm_docs_close(d);
	return 0;
}

static int check_doc(struct lwm_docs *d, int64_t i, int32_t *buf, struct lwm_err *e)
{
	struct lwm_doc doc;
	LWM_TRY(lwm_docs_get(d, i, &doc, e));
	for (int64_t t = 0; t < doc.n; t += PIECE)
		LWM_TRY(lwm_docs_read(d, i, t, doc.n - t < PIECE ? doc.n : t + PIECE, buf, e));
	return 0;
}

static int check_docs(const char *path, struct lwm_err *e)
{
	struct lwm_docs *d;
	LWM_TRY(check_manifest(path, e));
	LWM_TRY(lwm_docs_open(&d, path, e));
	int32_t *buf = malloc(PIECE * sizeof *buf);
	int rc = buf ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	for (int64_t i = 0; rc == 0 && i < lwm_docs_count(d); i++)
		rc = check_doc(d, i, buf, e);
	free(buf);
	lwm_docs_close(d);
	return rc;
}

const struct lwm_thing_ops lwm_thing_docs = {
	.name = "document shard",
	.schemas = lwm_docs_schemas,
	.manifest = lwm_docs_kind,
	.describe = describe_docs,
	.check = check_docs,
};

/* ---- row shards ---- */

static int describe_rows(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e)
{
	(void)tensors;
	struct lwm_rows_reader *r;
	LWM_TRY(lwm_rows_open(&r, path, e));
	const struct lwm_rows_meta *m = lwm_rows_get_meta(r);
	const struct lwm_manifest *man = lwm_rows_manifest(r);
	double room = (double)lwm_rows_count(r) * (double)m->seq;
	lwm_put(o, "rows", json_integer(lwm_rows_count(r)), failed);
	lwm_put(o, "seq_length", json_integer(m->seq), failed);
	lwm_put(o, "segments", json_integer(man->out), failed);
	lwm_put(o, "tokens", json_integer(man->tokens), failed);
	lwm_put(o, "fill", json_real(room > 0 ? (double)man->tokens / room : 0), failed);
	lwm_put(o, "vocab_text", json_integer(m->vocab_text), failed);
	lwm_put(o, "vocab_vision", json_integer(m->vocab_vision), failed);
	lwm_put(o, "tokenizer", json_string(m->tokenizer), failed);
	lwm_put(o, "weighting", json_string(m->weighting), failed);
	lwm_put(o, "tool", json_string(m->tool), failed);
	lwm_put(o, "config", text_or_json(m->config), failed);
	put_manifest(o, man, failed);
	lwm_rows_close(r);
	return 0;
}

static int check_rows(const char *path, struct lwm_err *e)
{
	struct lwm_rows_reader *r;
	struct lwm_row row = { 0 };
	int rc = 0;
	LWM_TRY(check_manifest(path, e));
	LWM_TRY(lwm_rows_open(&r, path, e));
	for (int64_t i = 0; rc == 0 && i < lwm_rows_count(r); i++)
		rc = lwm_rows_read(r, i, &row, e);
	lwm_row_release(&row);
	lwm_rows_close(r);
	return rc;
}

const struct lwm_thing_ops lwm_thing_rows = {
	.name = "row shard",
	.schemas = lwm_rows_schemas,
	.manifest = lwm_rows_kind,
	.describe = describe_rows,
	.check = check_rows,
};

/* ---- the index of a folder of row shards ---- */

static bool named_index(const char *path)
{
	return !strcmp(lwm_path_base(path), LWM_ROWINDEX_NAME);
}

static int describe_index(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e)
{
	(void)tensors;
	struct lwm_rowindex x;
	int64_t rows = 0, bytes = 0;
	char *dir = lwm_path_dir(path);
	int rc = dir ? lwm_rowindex_read(&x, dir, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	free(dir);
	LWM_TRY(rc);
	for (int64_t i = 0; i < x.n; i++) {
		rows += x.v[i].facts.shape.rows;
		bytes += x.v[i].facts.bytes;
	}
	lwm_put(o, "shards", json_integer(x.n), failed);
	lwm_put(o, "rows", json_integer(rows), failed);
	lwm_put(o, "bytes", json_integer(bytes), failed);
	lwm_rowindex_release(&x);
	return 0;
}

const struct lwm_thing_ops lwm_thing_index = {
	.name = "index of row shards",
	.is_named = named_index,
	.describe = describe_index,
	.check = lwm_rowindex_check,
};

/* ---- the list of inputs that row shards share ---- */

static bool named_inputs(const char *path)
{
	return !strncmp(lwm_path_base(path), "inputs-", 7) && lwm_path_has_suffix(path, ".json");
}

static int describe_inputs(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e)
{
	(void)tensors;
	int64_t n;
	LWM_TRY(lwm_manifest_check_list(path, &n, e));
	lwm_put(o, "inputs", json_integer(n), failed);
	return 0;
}

static int check_inputs(const char *path, struct lwm_err *e)
{
	return lwm_manifest_check_list(path, NULL, e);
}

const struct lwm_thing_ops lwm_thing_inputs = {
	.name = "list of inputs",
	.is_named = named_inputs,
	.describe = describe_inputs,
	.check = check_inputs,
};
