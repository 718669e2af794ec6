/* rows.index.json: what the manifests of all row shards of a folder say, in one file. An entry counts while the shard has the
 * size of the entry and was neither written nor renamed after the index; for any other shard the manifest is read. */
#include "common/io/rowindex.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/seal.h"

static const char SCHEMA[] = "lwm-rows-index-1";

void lwm_rowindex_release(struct lwm_rowindex *x)
{
	for (int64_t i = 0; i < x->n; i++)
		free(x->v[i].name);
	free(x->v);
	memset(x, 0, sizeof *x);
}

static int by_name(const void *a, const void *b)
{
	const struct lwm_rowindex_entry *x = a, *y = b;
	return strcmp(x->name, y->name);
}

/* ---- reading ---- */

static int get_hex(const json_t *o, const char *key, bool empty, char out[33], const char *path, struct lwm_err *e)
{
	const char *s;
	LWM_TRY(lwm_json_str(o, key, &s, path, e));
	if (strlen(s) != 32 && !(empty && !*s))
		return lwm_fail(e, LWM_EDATA, "%s: '%s' is not a hash of 32 digits", path, key);
	snprintf(out, 33, "%s", s);
	return 0;
}

static int get_entry(struct lwm_rowindex_entry *x, const json_t *o, const char *path, struct lwm_err *e)
{
	struct lwm_rows_facts *f = &x->facts;
	const char *name;
	LWM_TRY(lwm_json_str(o, "name", &name, path, e));
	LWM_TRY(lwm_json_int(o, "bytes", &f->bytes, path, e));
	LWM_TRY(lwm_json_int(o, "rows", &f->shape.rows, path, e));
	LWM_TRY(lwm_json_int(o, "seq_length", &f->shape.seq, path, e));
	LWM_TRY(lwm_json_int(o, "vocab_text", &f->shape.vocab_text, path, e));
	LWM_TRY(lwm_json_int(o, "vocab_vision", &f->shape.vocab_vision, path, e));
	LWM_TRY(get_hex(o, "tokenizer", true, f->shape.tokenizer, path, e));
	LWM_TRY(get_hex(o, "content", false, f->content, path, e));
	LWM_TRY(get_hex(o, "xxh3", false, f->hash, path, e));
	if (!lwm_name_is_plain(name) || f->bytes < 0 || f->shape.rows < 0 || f->shape.seq < 1 || f->shape.vocab_text < 1 ||
	    f->shape.vocab_vision < 0)
		return lwm_fail(e, LWM_EDATA, "%s: the entry '%.100s' makes no sense", path, name);
	x->name = strdup(name);
	return x->name ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
}

static int get_entries(struct lwm_rowindex *x, const json_t *o, const char *path, struct lwm_err *e)
{
	json_t *list, *v;
	size_t i;
	LWM_TRY(lwm_json_get(o, "shards", JSON_ARRAY, &list, path, e));
	x->v = calloc(json_array_size(list) + 1, sizeof *x->v);
	if (!x->v)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	json_array_foreach(list, i, v) {
		LWM_TRY(get_entry(&x->v[i], v, path, e));
		x->n++;
		if (i && by_name(&x->v[i - 1], &x->v[i]) >= 0)
			return lwm_fail(e, LWM_EDATA, "%s: its names do not ascend", path);
	}
	return 0;
}

static int read_file(struct lwm_rowindex *x, const char *path, struct lwm_err *e)
{
	struct stat st;
	json_t *o;
	memset(x, 0, sizeof *x);
	if (stat(path, &st))
		return errno == ENOENT || errno == ENOTDIR ? 0 : lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot be looked at", path);
	LWM_TRY(lwm_seal_read(&o, path, SCHEMA, e));
	int rc = get_entries(x, o, path, e);
	json_decref(o);
	x->at = st.st_ctim;
	if (rc < 0)
		lwm_rowindex_release(x);
	return rc < 0 ? rc : 1;
}

int lwm_rowindex_read(struct lwm_rowindex *x, const char *dir, struct lwm_err *e)
{
	char *path = lwm_path_join(dir, LWM_ROWINDEX_NAME);
	memset(x, 0, sizeof *x);
	int rc = path ? read_file(x, path, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", dir);
	free(path);
	return rc;
}

static bool is_later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

static const struct lwm_rowindex_entry *find_entry(const struct lwm_rowindex *x, const char *name)
{
	struct lwm_rowindex_entry key = { .name = (char *)(uintptr_t)name };
	return x && x->n ? bsearch(&key, x->v, (size_t)x->n, sizeof *x->v, by_name) : NULL;
}

/* A shard from before manifests said so much is opened. */
static int from_shard(const char *path, struct lwm_rows_facts *out, struct lwm_err *e)
{
	struct lwm_rows_reader *r;
	LWM_TRY(lwm_rows_open(&r, path, e));
	const struct lwm_rows_meta *m = lwm_rows_get_meta(r);
	out->shape = (struct lwm_manifest_rows){ lwm_rows_count(r), m->seq, m->vocab_text, m->vocab_vision, "" };
	snprintf(out->shape.tokenizer, sizeof out->shape.tokenizer, "%s", m->tokenizer);
	lwm_rows_close(r);
	return 0;
}

static int from_manifest(const char *path, struct lwm_rows_facts *out, struct lwm_err *e)
{
	struct lwm_manifest m;
	LWM_TRY(lwm_manifest_read(&m, path, e));
	*out = (struct lwm_rows_facts){ .bytes = m.bytes, .shape = m.rows };
	memcpy(out->content, m.content, sizeof out->content);
	memcpy(out->hash, m.hash, sizeof out->hash);
	int rc = strcmp(m.kind, "rows") ? lwm_fail(e, LWM_EDATA, "%s: is a shard of %s, expected rows", path, m.kind)
					: lwm_manifest_check(&m, path, false, e);
	lwm_manifest_release(&m);
	return rc == 0 && !out->shape.seq ? from_shard(path, out, e) : rc;
}

int lwm_rowindex_facts(const struct lwm_rowindex *x, const char *path, struct lwm_rows_facts *out, bool *indexed, struct lwm_err *e)
{
	const struct lwm_rowindex_entry *entry = find_entry(x, lwm_path_base(path));
	struct stat st;
	bool counts = entry && stat(path, &st) == 0 && st.st_size == entry->facts.bytes && !is_later(&st.st_mtim, &x->at) &&
		      !is_later(&st.st_ctim, &x->at);
	if (indexed)
		*indexed = counts;
	if (!counts)
		return from_manifest(path, out, e);
	*out = entry->facts;
	return 0;
}

/* ---- making ---- */

static json_t *index_json(const struct lwm_rowindex *x, bool *failed)
{
	json_t *o = json_object(), *list = json_array();
	for (int64_t i = 0; i < x->n; i++) {
		const struct lwm_rows_facts *f = &x->v[i].facts;
		json_t *v = json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:s,s:s,s:s}", "name", x->v[i].name, "bytes", (json_int_t)f->bytes, "rows",
				      (json_int_t)f->shape.rows, "seq_length", (json_int_t)f->shape.seq, "vocab_text",
				      (json_int_t)f->shape.vocab_text, "vocab_vision", (json_int_t)f->shape.vocab_vision, "tokenizer",
				      f->shape.tokenizer, "content", f->content, "xxh3", f->hash);
		if (!v || json_array_append_new(list, v))
			*failed = true;
	}
	lwm_put(o, "schema", json_string(SCHEMA), failed);
	lwm_put(o, "shards", list, failed);
	return o;
}

static int is_shard(const struct dirent *d)
{
	return d->d_name[0] != '.' && !strstr(d->d_name, ".tmp.") && lwm_path_has_suffix(d->d_name, ".h5");
}

static int byte_order(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* One shard of the folder, if it is one of rows and finished. A damaged one is nobody's before it is made again. */
static int add_shard(struct lwm_rowindex *x, const char *dir, const char *name, const struct lwm_rowindex *old, bool *same,
		     struct lwm_err *e)
{
	struct lwm_rowindex_entry *v = &x->v[x->n];
	struct lwm_err why = { 0 };
	bool counts = false;
	char *path = lwm_path_join(dir, name);
	int rc = path ? from_manifest(path, &v->facts, &why) : lwm_fail(&why, LWM_EMEMORY, "%s: out of memory", dir);
	if (rc == 0 && *same) {
		struct lwm_rows_facts f = { 0 };
		rc = lwm_rowindex_facts(old, path, &f, &counts, &why);
		*same = counts && f.bytes == v->facts.bytes && !strcmp(f.hash, v->facts.hash);
	}
	free(path);
	if (rc == -LWM_EDATA || rc == -LWM_ENOINPUT)
		return 0;
	if (rc == 0 && !(v->name = strdup(name)))
		rc = lwm_fail(&why, LWM_EMEMORY, "%s: out of memory", dir);
	if (rc == 0)
		x->n++;
	else if (e)
		*e = why;
	return rc;
}

static int write_index(const struct lwm_rowindex *x, const char *dir, struct lwm_err *e)
{
	bool failed = false;
	json_t *o = index_json(x, &failed);
	char *path = lwm_path_join(dir, LWM_ROWINDEX_NAME);
	int rc = failed || !path ? lwm_fail(e, LWM_EMEMORY, "%s: out of memory for its index, or a name that is not UTF-8", dir)
				 : lwm_seal_write(o, path, e);
	free(path);
	json_decref(o);
	return rc;
}

int lwm_rowindex_update(const char *dir, struct lwm_err *e)
{
	struct lwm_rowindex now = { 0 }, old;
	struct dirent **list;
	int rc = lwm_rowindex_read(&old, dir, NULL), n = scandir(dir, &list, is_shard, byte_order);
	bool same = rc == 1;
	if (n < 0) {
		lwm_rowindex_release(&old);
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot list the folder", dir);
	}
	now.v = calloc((size_t)n + 1, sizeof *now.v);
	rc = now.v ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory for %d shards", dir, n);
	for (int i = 0; i < n; i++) {
		if (rc == 0)
			rc = add_shard(&now, dir, list[i]->d_name, &old, &same, e);
		free(list[i]);
	}
	free(list);
	if (rc == 0 && !(same && old.n == now.n))
		rc = write_index(&now, dir, e);
	lwm_rowindex_release(&old);
	lwm_rowindex_release(&now);
	return rc;
}

/* ---- is it intact ---- */

static int check_entry(const struct lwm_rowindex_entry *x, const char *dir, const char *index, struct lwm_err *e)
{
	struct lwm_rows_facts f;
	struct lwm_err why = { 0 };
	char *path = lwm_path_join(dir, x->name);
	int rc = path ? from_manifest(path, &f, &why) : lwm_fail(&why, LWM_EMEMORY, "%s: out of memory", dir);
	free(path);
	if (rc < 0 && rc != -LWM_EDATA && rc != -LWM_ENOINPUT)
		return lwm_fail(e, -rc, "%s", why.msg);
	if (rc < 0 || f.bytes != x->facts.bytes || strcmp(f.hash, x->facts.hash) || strcmp(f.content, x->facts.content) ||
	    f.shape.rows != x->facts.shape.rows || f.shape.seq != x->facts.shape.seq ||
	    f.shape.vocab_text != x->facts.shape.vocab_text || f.shape.vocab_vision != x->facts.shape.vocab_vision ||
	    strcmp(f.shape.tokenizer, x->facts.shape.tokenizer))
		return lwm_fail(e, LWM_EDATA, "%s: does not fit %s (remove it, or run lwm-pack again)%s%.600s", index, x->name, rc < 0 ? ": " : "",
				rc < 0 ? why.msg : "");
	return 0;
}

int lwm_rowindex_check(const char *path, struct lwm_err *e)
{
	struct lwm_rowindex x;
	int rc = read_file(&x, path, e);
	if (rc == 0)
		return lwm_fail(e, LWM_ENOINPUT, "%s: there is no such file", path);
	LWM_TRY(rc);
	char *dir = lwm_path_dir(path);
	rc = dir ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	for (int64_t i = 0; rc == 0 && i < x.n; i++)
		rc = check_entry(&x.v[i], dir, path, e);
	free(dir);
	lwm_rowindex_release(&x);
	return rc;
}
