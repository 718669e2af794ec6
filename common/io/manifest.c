/* X.manifest.json, written after the shard X: what it was made from and what it holds. A shard without one was never finished. Many
 * shards may share one list of inputs, inputs-HASH.json, and then name its hash instead of every input. */
#include "common/io/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/io/seal.h"

static const char first_schema[] = "lwm-manifest-1", rows_schema[] = "lwm-manifest-2";
enum { MOST_REASONS = 1000 }; /* they are looked for one by one; we know a dozen */

char *lwm_manifest_path(const char *path)
{
	char *out;
	return asprintf(&out, "%s.manifest.json", path) < 0 ? NULL : out;
}

void lwm_manifest_release(struct lwm_manifest *m)
{
	for (int64_t i = 0; i < m->ninput; i++)
		free(m->input[i].path);
	for (int64_t i = 0; i < m->nreject; i++)
		free(m->reject[i].reason);
	free(m->input);
	free(m->reject);
	free(m->kind);
	free(m->tool);
	memset(m, 0, sizeof *m);
}

int lwm_manifest_add_input(struct lwm_manifest *m, const char *path, int64_t bytes, const char *hash,
			   struct lwm_err *e)
{
	struct lwm_manifest_input in = { .bytes = bytes }, *list;
	struct lwm_hash h;
	if (!hash) {
		LWM_TRY(lwm_hash_file(path, &h, &in.bytes, e));
		hash = h.hex;
	}
	snprintf(in.hash, sizeof in.hash, "%s", hash);
	list = realloc(m->input, (size_t)(m->ninput + 1) * sizeof *list);
	if (list)
		m->input = list;
	if (!list || !(in.path = strdup(lwm_path_base(path))))
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	m->input[m->ninput++] = in;
	return 0;
}

int lwm_manifest_add_reject(struct lwm_manifest *m, const char *reason, int64_t count, struct lwm_err *e)
{
	m->rejected += count;
	for (int64_t i = 0; i < m->nreject; i++) {
		if (!strcmp(m->reject[i].reason, reason)) {
			m->reject[i].count += count;
			return 0;
		}
	}
	struct lwm_manifest_count c = { strdup(reason), count }, *list = NULL;
	if (c.reason)
		list = realloc(m->reject, (size_t)(m->nreject + 1) * sizeof *list);
	if (!list) {
		free(c.reason);
		return lwm_fail(e, LWM_EMEMORY, "out of memory");
	}
	m->reject = list;
	m->reject[m->nreject++] = c;
	return 0;
}

/* ---- as JSON ---- */

static json_t *inputs_json(const struct lwm_manifest *m, bool *failed)
{
	json_t *list = json_array();
	for (int64_t i = 0; i < m->ninput; i++) {
		json_t *o = json_object();
		lwm_put(o, "name", json_string(m->input[i].path), failed);
		lwm_put(o, "bytes", json_integer(m->input[i].bytes), failed);
		lwm_put(o, "xxh3", json_string(m->input[i].hash), failed);
		if (m->input[i].malformed)
			lwm_put(o, "malformed", json_integer(m->input[i].malformed), failed);
		if (json_array_append_new(list, o))
			*failed = true;
	}
	return list;
}

static json_t *documents_json(const struct lwm_manifest *m, bool *failed)
{
	json_t *d = json_object(), *why = json_object();
	for (int64_t i = 0; i < m->nreject; i++)
		lwm_put(why, m->reject[i].reason, json_integer(m->reject[i].count), failed);
	lwm_put(d, "in", json_integer(m->in), failed);
	lwm_put(d, "out", json_integer(m->out), failed);
	lwm_put(d, "rejected", json_integer(m->rejected), failed);
	lwm_put(d, "reasons", why, failed);
	return d;
}

static json_t *list_json(const struct lwm_manifest_list *l, bool *failed)
{
	json_t *o = json_object();
	lwm_put(o, "count", json_integer(l->count), failed);
	lwm_put(o, "xxh3", json_string(l->hash), failed);
	return o;
}

static json_t *rows_json(const struct lwm_manifest_rows *r, bool *failed)
{
	json_t *o = json_object();
	lwm_put(o, "rows", json_integer(r->rows), failed);
	lwm_put(o, "seq_length", json_integer(r->seq), failed);
	lwm_put(o, "vocab_text", json_integer(r->vocab_text), failed);
	lwm_put(o, "vocab_vision", json_integer(r->vocab_vision), failed);
	lwm_put(o, "tokenizer", json_string(r->tokenizer), failed);
	return o;
}

int lwm_manifest_write(const struct lwm_manifest *m, const char *path, struct lwm_err *e)
{
	bool failed = false;
	json_t *o = json_object();
	char *name = lwm_manifest_path(path);
	lwm_put(o, "schema", json_string(m->rows.seq ? rows_schema : first_schema), &failed);
	if (m->list.count)
		lwm_put(o, "inputs_list", list_json(&m->list, &failed), &failed);
	if (m->rows.seq)
		lwm_put(o, "rows", rows_json(&m->rows, &failed), &failed);
	lwm_put(o, "kind", json_string(m->kind), &failed);
	lwm_put(o, "tool", json_string(m->tool), &failed);
	lwm_put(o, "config_hash", json_string(m->config_hash), &failed);
	lwm_put(o, "content", json_string(m->content), &failed);
	lwm_put(o, "xxh3", json_string(m->hash), &failed);
	lwm_put(o, "bytes", json_integer(m->bytes), &failed);
	lwm_put(o, "tokens", json_integer(m->tokens), &failed);
	lwm_put(o, "documents", documents_json(m, &failed), &failed);
	lwm_put(o, "inputs", inputs_json(m, &failed), &failed);
	int rc = failed || !name ? lwm_fail(e, LWM_EMEMORY,
					    "%s: cannot build its manifest (memory, or a text that is not "
					    "UTF-8)",
					    path)
				 : lwm_seal_write(o, name, e);
	free(name);
	json_decref(o);
	return rc;
}

/* ---- reading ---- */

static int get_text(const json_t *o, const char *key, char **out, const char *name, struct lwm_err *e)
{
	const char *s;
	LWM_TRY(lwm_json_str(o, key, &s, name, e));
	*out = strdup(s);
	return *out ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", name);
}

static int get_hash(const json_t *o, const char *key, char out[33], const char *name, struct lwm_err *e)
{
	const char *s;
	LWM_TRY(lwm_json_str(o, key, &s, name, e));
	if (strlen(s) != 32)
		return lwm_fail(e, LWM_EDATA, "%s: '%s' is not a hash of 32 digits", name, key);
	memcpy(out, s, 33);
	return 0;
}

static int get_count(const json_t *o, const char *key, int64_t *out, const char *name, struct lwm_err *e)
{
	LWM_TRY(lwm_json_int(o, key, out, name, e));
	return *out >= 0 ? 0 : lwm_fail(e, LWM_EDATA, "%s: '%s' is negative", name, key);
}

static int get_documents(struct lwm_manifest *m, const json_t *o, const char *name, struct lwm_err *e)
{
	json_t *d, *why, *v;
	const char *key;
	int64_t rejected;
	LWM_TRY(lwm_json_get(o, "documents", JSON_OBJECT, &d, name, e));
	LWM_TRY(get_count(d, "in", &m->in, name, e));
	LWM_TRY(get_count(d, "out", &m->out, name, e));
	LWM_TRY(get_count(d, "rejected", &rejected, name, e));
	LWM_TRY(lwm_json_get(d, "reasons", JSON_OBJECT, &why, name, e));
	json_object_foreach(why, key, v) {
		(void)v;
		int64_t n;
		LWM_TRY(get_count(why, key, &n, name, e));
		if (n > INT64_MAX - m->rejected || m->nreject == MOST_REASONS)
			return lwm_fail(e, LWM_EDATA, "%s: the rejected documents make no sense", name);
		LWM_TRY(lwm_manifest_add_reject(m, key, n, e));
	}
	if (rejected != m->rejected)
		return lwm_fail(e, LWM_EDATA, "%s: the rejected documents do not add up", name);
	return 0;
}

static int get_inputs(struct lwm_manifest *m, const json_t *o, const char *name, struct lwm_err *e)
{
	json_t *list, *v;
	size_t i;
	LWM_TRY(lwm_json_get(o, "inputs", JSON_ARRAY, &list, name, e));
	json_array_foreach(list, i, v) {
		const char *file;
		char hash[33];
		int64_t bytes;
		LWM_TRY(lwm_json_str(v, "name", &file, name, e));
		LWM_TRY(get_count(v, "bytes", &bytes, name, e));
		LWM_TRY(get_hash(v, "xxh3", hash, name, e));
		LWM_TRY(lwm_manifest_add_input(m, file, bytes, hash, e));
		if (json_object_get(v, "malformed"))
			LWM_TRY(get_count(v, "malformed", &m->input[m->ninput - 1].malformed, name, e));
	}
	return 0;
}

static int get_list(struct lwm_manifest_list *l, const json_t *o, const char *name, struct lwm_err *e)
{
	json_t *x;
	if (!json_object_get(o, "inputs_list"))
		return 0;
	LWM_TRY(lwm_json_get(o, "inputs_list", JSON_OBJECT, &x, name, e));
	LWM_TRY(get_count(x, "count", &l->count, name, e));
	return get_hash(x, "xxh3", l->hash, name, e);
}

static int get_rows(struct lwm_manifest_rows *r, const json_t *o, const char *name, struct lwm_err *e)
{
	const char *tokenizer;
	json_t *x;
	if (!json_object_get(o, "rows"))
		return 0;
	LWM_TRY(lwm_json_get(o, "rows", JSON_OBJECT, &x, name, e));
	LWM_TRY(get_count(x, "rows", &r->rows, name, e));
	LWM_TRY(get_count(x, "seq_length", &r->seq, name, e));
	LWM_TRY(get_count(x, "vocab_text", &r->vocab_text, name, e));
	LWM_TRY(get_count(x, "vocab_vision", &r->vocab_vision, name, e));
	LWM_TRY(lwm_json_str(x, "tokenizer", &tokenizer, name, e));
	snprintf(r->tokenizer, sizeof r->tokenizer, "%s", tokenizer);
	return r->seq > 0 ? 0 : lwm_fail(e, LWM_EDATA, "%s: speaks of rows without tokens", name);
}

static int from_json(struct lwm_manifest *m, const json_t *o, const char *name, struct lwm_err *e)
{
	LWM_TRY(get_text(o, "kind", &m->kind, name, e));
	LWM_TRY(get_text(o, "tool", &m->tool, name, e));
	LWM_TRY(get_hash(o, "config_hash", m->config_hash, name, e));
	LWM_TRY(get_hash(o, "content", m->content, name, e));
	LWM_TRY(get_hash(o, "xxh3", m->hash, name, e));
	LWM_TRY(get_count(o, "bytes", &m->bytes, name, e));
	LWM_TRY(get_count(o, "tokens", &m->tokens, name, e));
	LWM_TRY(get_documents(m, o, name, e));
	LWM_TRY(get_rows(&m->rows, o, name, e));
	LWM_TRY(get_list(&m->list, o, name, e));
	return get_inputs(m, o, name, e);
}

int lwm_manifest_read(struct lwm_manifest *m, const char *path, struct lwm_err *e)
{
	static const char *const known[] = { first_schema, rows_schema, NULL };
	json_t *o = NULL;
	char *name = lwm_manifest_path(path);
	int rc;
	memset(m, 0, sizeof *m);
	if (!name)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	if (!lwm_path_exists(path)) {
		rc = lwm_fail(e, LWM_ENOINPUT, "%s: there is no such file", path);
	} else if (!lwm_path_exists(name)) {
		rc = lwm_fail(e, LWM_EDATA, "%s: has no manifest (%s): whoever wrote it did not finish", path,
			      lwm_path_base(name));
	} else {
		rc = lwm_seal_read_any(&o, name, known, e);
	}
	if (rc == 0)
		rc = from_json(m, o, name, e);
	if (rc < 0)
		lwm_manifest_release(m);
	json_decref(o);
	free(name);
	return rc;
}

/* ---- lists of inputs that shards share ---- */

static const char list_schema[] = "lwm-inputs-1";

int lwm_manifest_hash_inputs(const struct lwm_manifest *m, struct lwm_manifest_list *out, struct lwm_err *e)
{
	struct lwm_hasher *h = lwm_hasher_new();
	char bytes[32];
	if (!h)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a hash");
	for (int64_t i = 0; i < m->ninput; i++) {
		lwm_hasher_add(h, bytes, (size_t)snprintf(bytes, sizeof bytes, "%" PRId64 " ", m->input[i].bytes));
		lwm_hasher_add(h, m->input[i].hash, strlen(m->input[i].hash));
		lwm_hasher_add(h, "\n", 1);
	}
	struct lwm_hash all = lwm_hasher_end(h);
	memcpy(out->hash, all.hex, sizeof out->hash);
	out->count = m->ninput;
	return 0;
}

int lwm_manifest_check_list(const char *path, int64_t *inputs, struct lwm_err *e)
{
	struct lwm_manifest m = { 0 };
	struct lwm_manifest_list list;
	json_t *o;
	char name[40];
	LWM_TRY(lwm_seal_read(&o, path, list_schema, e));
	int rc = get_inputs(&m, o, path, e);
	json_decref(o);
	if (rc == 0)
		rc = lwm_manifest_hash_inputs(&m, &list, e);
	if (inputs)
		*inputs = m.ninput;
	lwm_manifest_release(&m);
	LWM_TRY(rc);
	snprintf(name, sizeof name, "inputs-%.16s.json", list.hash);
	return strcmp(name, lwm_path_base(path)) ? lwm_fail(e, LWM_EDATA, "%s: holds the list %s", path, name) : 0;
}

static int write_list(const struct lwm_manifest *m, const char *path, struct lwm_err *e)
{
	bool failed = false;
	json_t *o = json_object();
	lwm_put(o, "schema", json_string(list_schema), &failed);
	lwm_put(o, "inputs", inputs_json(m, &failed), &failed);
	int rc = failed ? lwm_fail(e, LWM_EMEMORY, "%s: cannot build it (memory, or a name that is not UTF-8)", path)
			: lwm_seal_write(o, path, e);
	json_decref(o);
	return rc;
}

int lwm_manifest_share(const struct lwm_manifest *m, const char *dir, struct lwm_err *e)
{
	struct lwm_manifest_list list;
	char name[40];
	LWM_TRY(lwm_manifest_hash_inputs(m, &list, e));
	snprintf(name, sizeof name, "inputs-%.16s.json", list.hash);
	char *path = lwm_path_join(dir, name);
	int rc = path ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", dir);
	if (rc == 0 && lwm_manifest_check_list(path, NULL, NULL) < 0)
		rc = write_list(m, path, e);
	free(path);
	return rc;
}

int lwm_manifest_check(const struct lwm_manifest *m, const char *path, bool full, struct lwm_err *e)
{
	struct stat st;
	struct lwm_hash h;
	if (stat(path, &st))
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot read", path);
	if ((int64_t)st.st_size != m->bytes)
		return lwm_fail(e, LWM_EDATA, "%s: has %" PRId64 " bytes, its manifest says %" PRId64, path,
				(int64_t)st.st_size, m->bytes);
	if (!full)
		return 0;
	LWM_TRY(lwm_hash_file(path, &h, NULL, e));
	if (strcmp(h.hex, m->hash))
		return lwm_fail(e, LWM_EDATA, "%s: damaged: its hash is %s, its manifest says %s", path, h.hex,
				m->hash);
	return 0;
}

int lwm_manifest_done(const char *path, const char *kind, struct lwm_manifest *m, bool *replace, struct lwm_err *e)
{
	struct lwm_err why = { 0 };
	char *name = lwm_manifest_path(path);
	int rc;
	memset(m, 0, sizeof *m);
	*replace = name && lwm_path_exists(name);
	free(name);
	if (!name)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	if (!*replace)
		return 0;
	rc = lwm_manifest_read(m, path, &why);
	if (rc == 0 && strcmp(m->kind, kind))
		rc = lwm_fail(&why, LWM_ECANTCREATE, "%s: is a shard of %s, not of %s", path, m->kind, kind);
	if (rc == 0)
		rc = lwm_manifest_check(m, path, true, &why);
	if (rc == 0)
		return 1;
	lwm_manifest_release(m);
	if (rc == -LWM_EDATA || (rc == -LWM_ENOINPUT && !lwm_path_exists(path))) {
		lwm_log(LWM_WARN, "%s; it is made again", why.msg);
		return 0;
	}
	if (e)
		*e = why;
	return rc;
}
