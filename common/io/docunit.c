/* Units of a document shard that is not finished: kept beside it by one run, taken up by the next.
 *
 * They lie in a shard of their own under one of two names, whose description lists them; a save writes the other name and then
 * removes the old one, so that a kill at any moment leaves one of them whole.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/io/docshard_int.h"
#include "common/io/seal.h"

static const char units_key[] = "units";

static char *aside_path(const char *path, int which)
{
	char *out;
	return asprintf(&out, "%s.aside.%d", path, which) < 0 ? NULL : out;
}

/* ---- units in memory ---- */

static void unit_release(struct lwm_doc_unit *u)
{
	free(u->key);
	lwm_manifest_release(&u->said);
	memset(u, 0, sizeof *u);
}

void lwm_doc_units_release(struct lwm_doc_units *u)
{
	for (int64_t i = 0; i < u->n; i++)
		unit_release(&u->v[i]);
	free(u->v);
	memset(u, 0, sizeof *u);
}

/* A new one at the end, empty but for its key. */
static int add_unit(struct lwm_doc_units *u, const char *key, struct lwm_doc_unit **out, struct lwm_err *e)
{
	if (u->n == u->cap) {
		int64_t cap = u->cap ? 2 * u->cap : 64;
		struct lwm_doc_unit *v = realloc(u->v, (size_t)cap * sizeof *v);
		if (!v)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " inputs", cap);
		u->v = v;
		u->cap = cap;
	}
	*out = &u->v[u->n];
	memset(*out, 0, sizeof **out);
	(*out)->key = strdup(key);
	if (!(*out)->key)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a name");
	u->n++;
	return 0;
}

/* What a unit said goes into the shard's own book. */
static int merge_book(struct lwm_manifest *to, const struct lwm_manifest *from, struct lwm_err *e)
{
	for (int64_t i = 0; i < from->ninput; i++) {
		const struct lwm_manifest_input *x = &from->input[i];
		LWM_TRY(lwm_manifest_add_input(to, x->path, x->bytes, x->hash, e));
		to->input[to->ninput - 1].malformed = x->malformed;
	}
	for (int64_t i = 0; i < from->nreject; i++)
		LWM_TRY(lwm_manifest_add_reject(to, from->reject[i].reason, from->reject[i].count, e));
	return 0;
}

/* ---- units as JSON ---- */

static json_t *unit_json(const struct lwm_doc_unit *u, bool *failed)
{
	json_t *o = json_object(), *stats = json_array(), *inputs = json_array(), *why = json_object();
	for (int i = 0; i < LWM_UNIT_STATS; i++)
		if (json_array_append_new(stats, json_integer(u->stats[i])))
			*failed = true;
	for (int64_t i = 0; i < u->said.ninput; i++) {
		const struct lwm_manifest_input *x = &u->said.input[i];
		json_t *one = json_pack("[s, I, s, I]", x->path, (json_int_t)x->bytes, x->hash, (json_int_t)x->malformed);
		if (!one || json_array_append_new(inputs, one))
			*failed = true;
	}
	for (int64_t i = 0; i < u->said.nreject; i++)
		lwm_put(why, u->said.reject[i].reason, json_integer(u->said.reject[i].count), failed);
	lwm_put(o, "key", json_string(u->key), failed);
	lwm_put(o, "documents", json_integer(u->docs), failed);
	lwm_put(o, "stats", stats, failed);
	lwm_put(o, "inputs", inputs, failed);
	lwm_put(o, "rejected", why, failed);
	return o;
}

static json_t *units_json(const struct lwm_doc_units *u, bool *failed)
{
	json_t *list = json_array();
	for (int64_t i = 0; i < u->n; i++)
		if (json_array_append_new(list, unit_json(&u->v[i], failed)))
			*failed = true;
	return list;
}

static int read_book(struct lwm_manifest *m, const json_t *o, const char *where, struct lwm_err *e)
{
	json_t *inputs, *why, *v;
	const char *reason, *name, *hash;
	json_int_t bytes, malformed;
	size_t i;
	LWM_TRY(lwm_json_get(o, "inputs", JSON_ARRAY, &inputs, where, e));
	LWM_TRY(lwm_json_get(o, "rejected", JSON_OBJECT, &why, where, e));
	json_array_foreach(inputs, i, v) {
		if (json_unpack(v, "[s, I, s, I]", &name, &bytes, &hash, &malformed))
			return lwm_fail(e, LWM_EDATA, "%s: an input of a unit is not described", where);
		LWM_TRY(lwm_manifest_add_input(m, name, bytes, hash, e));
		m->input[m->ninput - 1].malformed = malformed;
	}
	json_object_foreach(why, reason, v)
		LWM_TRY(lwm_manifest_add_reject(m, reason, json_integer_value(v), e));
	return 0;
}

static int read_unit(struct lwm_docs_aside *a, const json_t *o, int64_t *first, const char *where, struct lwm_err *e)
{
	struct lwm_doc_unit *u;
	const char *key;
	json_t *stats;
	LWM_TRY(lwm_json_str(o, "key", &key, where, e));
	LWM_TRY(add_unit(&a->units, key, &u, e));
	LWM_TRY(lwm_json_int(o, "documents", &u->docs, where, e));
	LWM_TRY(lwm_json_get(o, "stats", JSON_ARRAY, &stats, where, e));
	for (int i = 0; i < LWM_UNIT_STATS; i++)
		u->stats[i] = json_integer_value(json_array_get(stats, (size_t)i));
	u->first = *first;
	*first += u->docs;
	if (u->docs < 0 || *first > lwm_docs_count(a->d))
		return lwm_fail(e, LWM_EDATA, "%s: its units have more documents than it holds", where);
	return read_book(&u->said, o, where, e);
}

/* ---- opening ---- */

static bool same_text(const char *a, const char *b)
{
	return !strcmp(a ? a : "", b ? b : "");
}

static bool same_settings(const struct lwm_docs_meta *a, const struct lwm_docs_meta *b)
{
	return a->vocab_text == b->vocab_text && a->vocab_vision == b->vocab_vision && same_text(a->tokenizer, b->tokenizer) &&
	       same_text(a->tool, b->tool) && same_text(a->config, b->config) && same_text(a->policy, b->policy);
}

static void aside_release(struct lwm_docs_aside *a)
{
	lwm_docs_close(a->d);
	lwm_doc_units_release(&a->units);
	a->d = NULL;
}

static int read_units(struct lwm_docs_aside *a, const char *path, struct lwm_err *e)
{
	json_t *list, *o;
	int64_t first = 0;
	size_t i;
	LWM_TRY(lwm_json_get(lwm_docs_described(a->d), units_key, JSON_ARRAY, &list, path, e));
	json_array_foreach(list, i, o)
		LWM_TRY(read_unit(a, o, &first, path, e));
	return 0;
}

static int open_one(struct lwm_docs_aside *a, const char *shard, const struct lwm_docs_meta *m, int which, struct lwm_err *e)
{
	char *path = aside_path(shard, which);
	int rc = path ? lwm_docs_open(&a->d, path, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", shard);
	a->which = which;
	if (rc == 0 && same_settings(m, lwm_docs_get_meta(a->d)))
		rc = read_units(a, path, e);
	free(path);
	if (rc < 0)
		aside_release(a);
	return rc;
}

/* A kill may leave both names: the one that holds more. What is damaged, or of other settings, is as good as not there. */
static int open_best(struct lwm_docs_aside *best, const char *shard, const struct lwm_docs_meta *m, struct lwm_err *e)
{
	memset(best, 0, sizeof *best);
	best->which = -1;
	for (int which = 0; which < 2; which++) {
		struct lwm_docs_aside a = { 0 };
		struct lwm_err why = { 0 };
		int rc = open_one(&a, shard, m, which, &why);
		if (rc < 0 && rc != -LWM_EDATA && rc != -LWM_ENOINPUT) {
			aside_release(best);
			if (e)
				*e = why;
			return rc;
		}
		if (rc == 0 && a.units.n > best->units.n) {
			aside_release(best);
			*best = a;
		} else {
			aside_release(&a);
		}
	}
	return 0;
}

int lwm_docs_aside_keys(const char *path, const struct lwm_docs_meta *m, struct lwm_paths *keys, struct lwm_err *e)
{
	struct lwm_docs_aside a;
	int rc = open_best(&a, path, m, e);
	for (int64_t i = 0; rc == 0 && i < a.units.n; i++)
		rc = lwm_paths_add(keys, a.units.v[i].key, e);
	aside_release(&a);
	return rc;
}

static void remove_one(const char *path, int which)
{
	char *name = aside_path(path, which), *manifest = name ? lwm_manifest_path(name) : NULL;
	if (manifest) {
		unlink(manifest);
		unlink(name);
	}
	free(name);
	free(manifest);
}

void lwm_docs_aside_remove(const char *path)
{
	remove_one(path, 0);
	remove_one(path, 1);
}

int lwm_docs_aside_open(struct lwm_docs_writer *w, const struct lwm_docs_meta *m, bool force, struct lwm_err *e)
{
	w->which = -1;
	if (force) {
		lwm_docs_aside_remove(w->s.path);
		return 0;
	}
	LWM_TRY(open_best(&w->aside, w->s.path, m, e));
	w->which = w->aside.which;
	if (w->aside.units.n)
		lwm_log(LWM_INFO, "%s: an earlier run had finished %" PRId64 " of its inputs", w->s.path, w->aside.units.n);
	return 0;
}

void lwm_docs_aside_close(struct lwm_docs_writer *w)
{
	aside_release(&w->aside);
}

/* ---- units ---- */

void lwm_docs_unit_begin(struct lwm_docs_writer *w)
{
	LWM_BUG_ON(w->open);
	lwm_docs_set_mark(w, &w->mark);
	w->open = true;
}

int lwm_docs_unit_drop(struct lwm_docs_writer *w, struct lwm_err *e)
{
	if (!w->open)
		return 0;
	w->open = false;
	lwm_manifest_release(&w->said);
	return lwm_docs_go_back(w, &w->mark, e);
}

int lwm_docs_unit_end(struct lwm_docs_writer *w, const char *key, const int64_t stats[LWM_UNIT_STATS], struct lwm_err *e)
{
	struct lwm_doc_unit *u;
	LWM_BUG_ON(!w->open);
	LWM_TRY(add_unit(&w->done, key, &u, e));
	u->first = w->mark.docs;
	u->docs = w->at.docs - w->mark.docs;
	memcpy(u->stats, stats, sizeof u->stats);
	u->said = w->said;
	memset(&w->said, 0, sizeof w->said);
	w->open = false;
	return merge_book(&w->s.manifest, &u->said, e);
}

/* The documents of a unit that was put aside, at the end of the shard. */
static int copy_documents(struct lwm_docs_writer *w, const struct lwm_doc_unit *u, struct lwm_err *e)
{
	int32_t *tokens = NULL;
	int64_t cap = 0;
	int rc = 0;
	for (int64_t i = u->first; rc == 0 && i < u->first + u->docs; i++) {
		struct lwm_doc doc;
		rc = lwm_docs_get(w->aside.d, i, &doc, e);
		if (rc == 0 && doc.n > cap) {
			free(tokens);
			cap = doc.n;
			tokens = malloc((size_t)cap * sizeof *tokens);
			if (!tokens)
				rc = lwm_fail(e, LWM_EMEMORY, "out of memory for a document of %" PRId64 " tokens", cap);
		}
		if (rc == 0)
			rc = lwm_docs_read(w->aside.d, i, 0, doc.n, tokens, e);
		if (rc == 0)
			rc = lwm_docs_append(w, doc.id, doc.source, tokens, doc.n, doc.runs, doc.nruns, e);
	}
	free(tokens);
	return rc;
}

/* A unit that was put aside becomes one of the shard; its place in the list is empty then. */
static int adopt_unit(struct lwm_docs_writer *w, struct lwm_doc_unit *from, struct lwm_err *e)
{
	struct lwm_doc_unit *u;
	LWM_TRY(copy_documents(w, from, e));
	LWM_TRY(add_unit(&w->done, from->key, &u, e));
	u->first = w->mark.docs;
	u->docs = from->docs;
	memcpy(u->stats, from->stats, sizeof u->stats);
	return merge_book(&u->said, &from->said, e);
}

int lwm_docs_take(struct lwm_docs_writer *w, const char *key, int64_t stats[LWM_UNIT_STATS], struct lwm_err *e)
{
	struct lwm_doc_unit *u = NULL;
	struct lwm_err why = { 0 };
	for (int64_t i = 0; i < w->aside.units.n && !u; i++)
		if (w->aside.units.v[i].key && !strcmp(w->aside.units.v[i].key, key))
			u = &w->aside.units.v[i];
	if (!u)
		return 0;
	lwm_docs_set_mark(w, &w->mark);
	int rc = adopt_unit(w, u, &why);
	memcpy(stats, u->stats, sizeof u->stats);
	unit_release(u);
	if (rc == 0)
		return merge_book(&w->s.manifest, &w->done.v[w->done.n - 1].said, e) < 0 ? -LWM_EMEMORY : 1;
	LWM_TRY(lwm_docs_go_back(w, &w->mark, e));
	if (rc == -LWM_EDATA) {
		lwm_log(LWM_WARN, "what an earlier run put aside is damaged and made anew: %s", why.msg);
		return 0;
	}
	if (e)
		*e = why;
	return rc;
}

/* ---- putting aside ---- */

static int write_aside(struct lwm_docs_writer *w, const char *path, struct lwm_err *e)
{
	static const char *const keys[] = { "tokenizer", "policy", "vocab_text", "vocab_vision" };
	struct lwm_vec v[LWM_DOC_VECS];
	struct lwm_shard_out s;
	LWM_TRY(lwm_shard_begin(&s, path, lwm_docs_kind, lwm_docs_schema, json_string_value(json_object_get(w->s.meta, "tool")),
				json_string_value(json_object_get(w->s.meta, "config")), true, e));
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		lwm_put(s.meta, keys[i], json_incref(json_object_get(w->s.meta, keys[i])), &s.failed);
	lwm_put(s.meta, units_key, units_json(&w->done, &s.failed), &s.failed);
	lwm_docs_describe(w, &s, v);
	int rc = lwm_shard_commit(&s, lwm_docs_schema, v, w->spool, LWM_DOC_VECS, e);
	lwm_shard_release(&s);
	return rc;
}

/* Units that were put aside and not come to yet are kept, too: at the end, for this write alone. */
static int add_rest(struct lwm_docs_writer *w, struct lwm_err *e)
{
	for (int64_t i = 0; i < w->aside.units.n; i++) {
		struct lwm_doc_unit *u = &w->aside.units.v[i];
		struct lwm_docs_mark before;
		struct lwm_err why = { 0 };
		if (!u->key)
			continue;
		lwm_docs_set_mark(w, &before);
		w->mark = before;
		int rc = adopt_unit(w, u, &why);
		if (rc == -LWM_EDATA) {
			unit_release(u);
			LWM_TRY(lwm_docs_go_back(w, &before, e));
		} else if (rc < 0) {
			if (e)
				*e = why;
			return rc;
		}
	}
	return 0;
}

int lwm_docs_save(struct lwm_docs_writer *w, struct lwm_err *e)
{
	struct lwm_docs_mark before;
	int which = w->which == 0 ? 1 : 0;
	char *path = aside_path(w->s.path, which);
	int64_t units = w->done.n;
	LWM_BUG_ON(w->open);
	lwm_docs_set_mark(w, &before);
	int rc = path ? add_rest(w, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", w->s.path);
	if (rc == 0 && w->done.n)
		rc = write_aside(w, path, e);
	if (rc == 0 && w->done.n) {
		if (w->which >= 0)
			remove_one(w->s.path, w->which);
		w->which = which;
	}
	free(path);
	while (w->done.n > units)
		unit_release(&w->done.v[--w->done.n]);
	if (lwm_docs_go_back(w, &before, rc < 0 ? NULL : e) < 0 && rc == 0)
		rc = e ? e->code : -LWM_EIO;
	return rc;
}
