#include "common/io/inspect.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/ckpt_int.h"
#include "common/io/docshard.h"
#include "common/io/model.h"
#include "common/io/rowindex.h"
#include "common/io/rowshard.h"
#include "common/io/seal.h"

const char *const lwm_thing_names[] = { "unknown",         "document shard", "row shard",        "checkpoint",
					"checkpoint part", "model",          "safetensors file",
					"index of row shards", "list of inputs", NULL };

/* ---- what is it ---- */

static bool has(const char *dir, const char *name)
{
	char *path = lwm_path_join(dir, name);
	bool yes = path && lwm_path_exists(path);
	free(path);
	return yes;
}

static enum lwm_thing of_folder(const char *dir)
{
	static const char *const weights[] = { "model.safetensors", "model.safetensors.index.json",
					       "diffusion_pytorch_model.safetensors",
					       "diffusion_pytorch_model.safetensors.index.json" };
	if (has(dir, LWM_CKPT_RECORD) || !strncmp(lwm_path_base(dir), "step_", 5))
		return LWM_THING_CKPT;
	for (int i = 0; i < 4 && has(dir, "config.json"); i++)
		if (has(dir, weights[i]))
			return LWM_THING_MODEL;
	return LWM_THING_OTHER;
}

/* A failure that says something of the file, as opposed to one to read it. */
static bool is_verdict(int rc)
{
	return rc == -LWM_EDATA || rc == -LWM_ENOINPUT;
}

/* A damaged shard may no longer say what it is; the manifest beside it still does. */
static int of_manifest(const char *path, enum lwm_thing *out, struct lwm_err *e)
{
	struct lwm_manifest m;
	struct lwm_err why = { 0 };
	int rc = lwm_manifest_read(&m, path, &why);
	if (rc < 0)
		return is_verdict(rc) ? 0 : lwm_fail(e, -rc, "%s", why.msg);
	if (!strcmp(m.kind, "docs"))
		*out = LWM_THING_DOCS;
	else if (!strcmp(m.kind, "rows"))
		*out = LWM_THING_ROWS;
	lwm_manifest_release(&m);
	return 0;
}

int lwm_thing_of(const char *path, enum lwm_thing *out, struct lwm_err *e)
{
	char *schema = NULL;
	*out = LWM_THING_OTHER;
	if (access(path, R_OK))
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot read", path);
	if (lwm_path_is_dir(path)) {
		*out = of_folder(path);
		return 0;
	}
	if (!strcmp(lwm_path_base(path), LWM_ROWINDEX_NAME)) {
		*out = LWM_THING_INDEX;
		return 0;
	}
	if (!strncmp(lwm_path_base(path), "inputs-", 7) && lwm_path_has_suffix(path, ".json")) {
		*out = LWM_THING_INPUTS;
		return 0;
	}
	if (lwm_path_has_suffix(path, ".safetensors")) {
		*out = LWM_THING_ST;
		return 0;
	}
	struct lwm_err why = { 0 };
	int rc = lwm_vf_schema(path, &schema, &why);
	if (rc < 0)
		return is_verdict(rc) ? of_manifest(path, out, e) : lwm_fail(e, -rc, "%s", why.msg);
	if (!strcmp(schema, "lwm-docs-2") || !strcmp(schema, "lwm-docs-1"))
		*out = LWM_THING_DOCS;
	else if (!strcmp(schema, "lwm-rows-2") || !strcmp(schema, "lwm-rows-1"))
		*out = LWM_THING_ROWS;
	else if (!strcmp(schema, lwm_ckpt_part_schema))
		*out = LWM_THING_PART;
	free(schema);
	return 0;
}

/* ---- what is in it ---- */

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

static int describe_docs(const char *path, json_t *o, bool *failed, struct lwm_err *e)
{
	struct lwm_docs *d;
	LWM_TRY(lwm_docs_open(&d, path, e));
	const struct lwm_docs_meta *m = lwm_docs_meta(d);
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

static int describe_rows(const char *path, json_t *o, bool *failed, struct lwm_err *e)
{
	struct lwm_rows *r;
	LWM_TRY(lwm_rows_open(&r, path, e));
	const struct lwm_rows_meta *m = lwm_rows_meta(r);
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

static json_t *shape_json(int ndim, const int64_t *shape)
{
	json_t *s = json_array();
	for (int d = 0; d < ndim; d++)
		if (json_array_append_new(s, json_integer(shape[d]))) {
			json_decref(s);
			return NULL;
		}
	return s;
}

static void put_groups(json_t *o, unsigned groups, bool *failed)
{
	json_t *list = json_array();
	for (int g = 0; g < LWM_CKPT_GROUPS; g++)
		if ((groups >> g & 1) && json_array_append_new(list, json_string(lwm_ckpt_group_names[g])))
			*failed = true;
	lwm_put(o, "groups", list, failed);
}

static int describe_ckpt(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e)
{
	struct lwm_ckpt *c;
	json_t *list = json_object();
	int64_t values = 0;
	int rc = lwm_ckpt_open(&c, path, e);
	if (rc < 0) {
		json_decref(list);
		return rc;
	}
	const struct lwm_ckpt_meta *m = lwm_ckpt_meta(c);
	for (int64_t i = 0; i < lwm_ckpt_count(c); i++) {
		const struct lwm_ckpt_tensor *t = lwm_ckpt_tensor(c, i);
		values += lwm_ckpt_size(c, i);
		lwm_put(list, t->name, shape_json(t->ndim, t->shape), failed);
	}
	lwm_put(o, "of", json_string(m->kind), failed);
	lwm_put(o, "step", json_integer(m->step), failed);
	lwm_put(o, "mesh", json_string(m->mesh), failed);
	lwm_put(o, "ranks", json_integer(m->ranks), failed);
	put_groups(o, m->groups, failed);
	lwm_put(o, "tensors", json_integer(lwm_ckpt_count(c)), failed);
	lwm_put(o, "values", json_integer(values), failed);
	lwm_put(o, "tokenizer", json_string(m->tokenizer), failed);
	lwm_put(o, "tokenizer_path", json_string(m->tokenizer_path), failed);
	lwm_put(o, "config", lwm_json_copy(m->config), failed);
	lwm_put(o, "state", lwm_json_copy(m->state), failed);
	if (tensors)
		lwm_put(o, "shapes", json_incref(list), failed);
	json_decref(list);
	lwm_ckpt_close(c);
	return 0;
}

static int describe_model(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e)
{
	struct lwm_model *m;
	json_t *list = json_object();
	int64_t values = 0;
	int rc = lwm_model_open(&m, path, e);
	if (rc < 0) {
		json_decref(list);
		return rc;
	}
	const char *tok = lwm_model_tokenizer(m);
	for (int64_t i = 0; i < lwm_model_count(m); i++) {
		const struct lwm_ckpt_tensor *t = lwm_model_tensor(m, i);
		values += lwm_ckpt_tensor_size(t);
		lwm_put(list, t->name, shape_json(t->ndim, t->shape), failed);
	}
	lwm_put(o, "of", json_string(lwm_model_kind(m)), failed);
	lwm_put(o, "tensors", json_integer(lwm_model_count(m)), failed);
	lwm_put(o, "values", json_integer(values), failed);
	lwm_put(o, "tokenizer",
		json_string(!tok                   ? ""
			    : lwm_path_is_dir(tok) ? "tokenizer.txt"
						   : "tokenizer.model"),
		failed);
	lwm_put(o, "tokenizer_hash", json_string(lwm_model_tokenizer_hash(m)), failed);
	lwm_put(o, "manifest", json_boolean(lwm_model_manifest(m)), failed);
	lwm_put(o, "config", lwm_json_copy(lwm_model_config(m)), failed);
	if (tensors)
		lwm_put(o, "shapes", json_incref(list), failed);
	json_decref(list);
	lwm_model_close(m);
	return 0;
}

static int describe_st(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e)
{
	struct lwm_st *s;
	json_t *list = json_object();
	int64_t values = 0;
	int rc = lwm_st_open(&s, path, e);
	if (rc < 0) {
		json_decref(list);
		return rc;
	}
	for (int64_t i = 0; i < lwm_st_count(s); i++) {
		const struct lwm_st_tensor *t = lwm_st_tensor(s, i);
		json_t *x = shape_json(t->ndim, t->shape);
		values += t->size;
		if (json_array_insert_new(x, 0, json_string(lwm_st_dtype_name(t->dtype))))
			*failed = true;
		lwm_put(list, t->name, x, failed);
	}
	lwm_put(o, "tensors", json_integer(lwm_st_count(s)), failed);
	lwm_put(o, "values", json_integer(values), failed);
	lwm_put(o, "bytes", json_integer(lwm_st_bytes(s)), failed);
	lwm_put(o, "checksums", json_boolean(lwm_st_meta(s, "xxh3_256k")), failed);
	if (tensors)
		lwm_put(o, "shapes", json_incref(list), failed);
	json_decref(list);
	lwm_st_close(s);
	return 0;
}

static int describe_part(const char *path, json_t *o, bool *failed, struct lwm_err *e)
{
	struct lwm_vfr *r;
	LWM_TRY(lwm_vfr_open(&r, path, lwm_ckpt_part_schema, lwm_part_layout, LWM_PART_VECS, e));
	lwm_put(o, "slices", json_integer(lwm_vfr_vec(r, LWM_PART_SLICES)->n / LWM_SLICE_COLS), failed);
	for (int g = 0; g < LWM_CKPT_GROUPS; g++)
		lwm_put(o, lwm_ckpt_group_names[g], json_integer(lwm_vfr_vec(r, g)->n), failed);
	lwm_vfr_close(r);
	return 0;
}

static int describe_index(const char *path, json_t *o, bool *failed, struct lwm_err *e)
{
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

static int describe_inputs(const char *path, json_t *o, bool *failed, struct lwm_err *e)
{
	int64_t n;
	LWM_TRY(lwm_manifest_check_list(path, &n, e));
	lwm_put(o, "inputs", json_integer(n), failed);
	return 0;
}

int lwm_describe(const char *path, enum lwm_thing what, bool tensors, json_t **out, struct lwm_err *e)
{
	bool failed = false;
	json_t *o = json_object();
	int rc;
	*out = NULL;
	lwm_put(o, "path", json_string(path), &failed);
	lwm_put(o, "kind", json_string(lwm_thing_names[what]), &failed);
	switch (what) {
	case LWM_THING_DOCS: rc = describe_docs(path, o, &failed, e); break;
	case LWM_THING_ROWS: rc = describe_rows(path, o, &failed, e); break;
	case LWM_THING_CKPT: rc = describe_ckpt(path, tensors, o, &failed, e); break;
	case LWM_THING_PART: rc = describe_part(path, o, &failed, e); break;
	case LWM_THING_MODEL: rc = describe_model(path, tensors, o, &failed, e); break;
	case LWM_THING_ST: rc = describe_st(path, tensors, o, &failed, e); break;
	case LWM_THING_INDEX: rc = describe_index(path, o, &failed, e); break;
	case LWM_THING_INPUTS: rc = describe_inputs(path, o, &failed, e); break;
	default: rc = lwm_fail(e, LWM_EDATA, "%s: not a file or folder of this system", path); break;
	}
	if (rc == 0 && failed)
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory, or a name that is not UTF-8", path);
	if (rc < 0)
		json_decref(o);
	else
		*out = o;
	return rc;
}

/* ---- is it intact ---- */

enum { PIECE = 1 << 16 };

static int check_doc(struct lwm_docs *d, int64_t i, int32_t *buf, struct lwm_err *e)
{
	struct lwm_doc doc;
	LWM_TRY(lwm_docs_get(d, i, &doc, e));
	for (int64_t t = 0; t < doc.n; t += PIECE)
		LWM_TRY(lwm_docs_read(d, i, t, doc.n - t < PIECE ? doc.n : t + PIECE, buf, e));
	return 0;
}

static int check_manifest(const char *path, struct lwm_err *e)
{
	struct lwm_manifest m;
	LWM_TRY(lwm_manifest_read(&m, path, e));
	int rc = lwm_manifest_check(&m, path, true, e);
	lwm_manifest_release(&m);
	return rc;
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

static int check_rows(const char *path, struct lwm_err *e)
{
	struct lwm_rows *r;
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

static int check_ckpt(const char *path, struct lwm_err *e)
{
	struct lwm_ckpt *c;
	LWM_TRY(lwm_ckpt_verify(path, LWM_CKPT_FULL, e));
	LWM_TRY(lwm_ckpt_open(&c, path, e));
	int rc = lwm_ckpt_covers(c, e);
	lwm_ckpt_close(c);
	return rc;
}

static int check_part(const char *path, struct lwm_err *e)
{
	struct lwm_vfr *r;
	LWM_TRY(lwm_vfr_open(&r, path, lwm_ckpt_part_schema, lwm_part_layout, LWM_PART_VECS, e));
	char *buf = malloc(PIECE * 8);
	int rc = buf ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	for (int v = 0; rc == 0 && v < LWM_PART_VECS; v++) {
		int64_t n = lwm_vfr_vec(r, v)->n;
		for (int64_t i = 0; rc == 0 && i < n; i += PIECE)
			rc = lwm_vfr_read(r, v, i, n - i < PIECE ? n - i : PIECE, buf, e);
	}
	free(buf);
	lwm_vfr_close(r);
	return rc;
}

static int check_model(const char *path, struct lwm_err *e)
{
	struct lwm_model *m;
	LWM_TRY(lwm_model_open(&m, path, e));
	int rc = lwm_model_check(m, e);
	lwm_model_close(m);
	return rc;
}

static int check_st(const char *path, struct lwm_err *e)
{
	struct lwm_st *s;
	LWM_TRY(lwm_st_open(&s, path, e));
	int rc = lwm_st_check(s, e);
	lwm_st_close(s);
	return rc;
}

int lwm_check_thing(const char *path, enum lwm_thing what, struct lwm_err *e)
{
	switch (what) {
	case LWM_THING_DOCS: return check_docs(path, e);
	case LWM_THING_ROWS: return check_rows(path, e);
	case LWM_THING_CKPT: return check_ckpt(path, e);
	case LWM_THING_PART: return check_part(path, e);
	case LWM_THING_MODEL: return check_model(path, e);
	case LWM_THING_ST: return check_st(path, e);
	case LWM_THING_INDEX: return lwm_rowindex_check(path, e);
	case LWM_THING_INPUTS: return lwm_manifest_check_list(path, NULL, e);
	default: return lwm_fail(e, LWM_EDATA, "%s: not a file or folder of this system", path);
	}
}
