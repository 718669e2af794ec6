/* clipdoc.c - what is beside a clip, and whether its shard is done. */
#include "common/data/ingest/clipdoc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/data/ingest/fields_int.h"
#include "common/media/frames.h"

enum { TEXT_LIMIT = 16 << 20 };

/* ---- folders ---- */

static int add_folder_of(struct lwm_paths *out, const char *image, struct lwm_err *e)
{
	char *dir = lwm_path_dir(image);
	if (!dir)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a name");
	bool known = out->n > 0 && strcmp(out->v[out->n - 1], dir) == 0;
	int rc = known ? 0 : lwm_paths_add(out, dir, e);
	free(dir);
	return rc;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int lwm_clip_folders(struct lwm_paths *out, const char *path, struct lwm_err *e)
{
	struct lwm_paths images = { 0 }, dirs = { 0 };
	int rc = lwm_paths_expand(&images, path, lwm_image_suffixes, e);
	for (int64_t i = 0; i < images.n && rc == 0; i++)
		rc = add_folder_of(&dirs, images.v[i], e);
	if (rc == 0 && dirs.n > 1)
		qsort(dirs.v, (size_t)dirs.n, sizeof *dirs.v, by_name);
	for (int64_t i = 0; i < dirs.n && rc == 0; i++)
		if (i == 0 || strcmp(dirs.v[i], dirs.v[i - 1]))
			rc = lwm_paths_add(out, dirs.v[i], e);
	lwm_paths_release(&images);
	lwm_paths_release(&dirs);
	return rc;
}

/* ---- text beside a clip ---- */

struct beside {
	const struct lwm_ids *codes;
	const char *path;
	char *text; /* STEM.txt, NULL: none */
	size_t n;
	json_t *object; /* STEM.json, NULL: none */
};

/* STEM + suffix, or NULL when there is no such file. A folder's stem is its name. */
static int find_beside(const char *path, const char *suffix, char **out, struct lwm_err *e)
{
	size_t n = strlen(path);
	const char *base = lwm_path_base(path), *dot = strrchr(base, '.');
	while (n > 1 && path[n - 1] == '/')
		n--;
	int folder = lwm_path_folder(path, e);
	LWM_TRY(folder);
	if (dot && dot > base && !folder)
		n = (size_t)(dot - path);
	char *p = malloc(n + strlen(suffix) + 1);
	*out = NULL;
	if (!p)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a name");
	memcpy(p, path, n);
	memcpy(p + n, suffix, strlen(suffix) + 1);
	int there = lwm_path_there(p, e);
	if (there > 0)
		*out = p;
	else
		free(p);
	return there < 0 ? there : 0;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static int read_beside(struct beside *b, struct lwm_err *e)
{
	char *name;
	int rc = 0;
	LWM_TRY(find_beside(b->path, ".txt", &name, e));
	if (name)
		rc = lwm_read_file(name, TEXT_LIMIT, &b->text, &b->n, e);
	free(name);
	LWM_TRY(rc);
	while (b->n && is_space(b->text[b->n - 1]))
		b->n--;
	size_t skip = 0;
	while (skip < b->n && is_space(b->text[skip]))
		skip++;
	if (skip)
		memmove(b->text, b->text + skip, b->n -= skip);
	LWM_TRY(find_beside(b->path, ".json", &name, e));
	if (name)
		rc = lwm_json_read(&b->object, name, TEXT_LIMIT, e);
	free(name);
	if (rc == 0 && b->object && !json_is_object(b->object))
		return lwm_fail(e, LWM_EDATA, "%s: the .json file beside it holds no object", b->path);
	return rc;
}

static int get_value(void *user, const char *key, struct lwm_field_value *out, struct lwm_err *e)
{
	const struct beside *b = user;
	*out = (struct lwm_field_value){ 0 };
	if (lwm_element_kind_of(key)->codes) {
		out->codes = b->codes->v;
		out->ncodes = b->codes->n;
		return 0;
	}
	if (lwm_element_kind_of(key)->record) {
		out->record = b->object;
		return b->object || lwm_element_kind_of(key)->world ? 0 : lwm_fail(e, LWM_EDATA, "%s: no turns beside it (a .json file)", b->path);
	}
	if (strcmp(key, "caption") == 0 && b->text) {
		out->text = b->text;
		out->n = b->n;
		return 0;
	}
	const json_t *v = json_object_get(b->object, key);
	if (!json_is_string(v))
		return lwm_fail(e, LWM_EDATA, "%s: no text '%s' beside it (%s)", b->path, key,
				strcmp(key, "caption") ? "a string of that name in the .json file" :
							 "a .txt file, or a string in the .json file");
	out->text = json_string_value(v);
	out->n = json_string_length(v);
	return 0;
}

int lwm_clip_document(const struct lwm_fields *f, const char *path, const struct lwm_ids *codes, int64_t number,
		      struct lwm_docbuf *d, struct lwm_err *e)
{
	struct beside b = { .codes = codes, .path = path };
	lwm_docbuf_reset(d);
	int rc = read_beside(&b, e);
	if (rc == 0)
		rc = lwm_fields_build_from(f, get_value, &b, number, d, e);
	free(b.text);
	json_decref(b.object);
	return rc;
}

int lwm_clip_codes(const int32_t *tokens, int64_t n, int64_t vocab_text, int64_t vision_codes, int64_t per,
		   struct lwm_ids *codes, struct lwm_err *e)
{
	int64_t have = 0; /* codes since the last end of a frame */
	for (int64_t i = 0; i < n; i++) {
		int64_t code = tokens[i] - vocab_text;
		bool end = code == vision_codes || code == vision_codes + 1;
		if (code < 0 && have == 0)
			continue;
		if (code < 0 || code > vision_codes + 1 || (end ? have != per : have == per))
			return lwm_fail(e, LWM_EDATA, "token %" PRId64 ": id %d after %" PRId64 " of the %" PRId64
					" codes of a frame", i, tokens[i], have, per);
		have = end ? 0 : have + 1;
		if (!end) {
			int32_t c = (int32_t)code;
			LWM_TRY(lwm_ids_add(codes, &c, 1, e));
		}
	}
	if (have)
		return lwm_fail(e, LWM_EDATA, "the document ends after %" PRId64 " of the %" PRId64 " codes of a frame", have,
				per);
	return 0;
}

/* ---- shards ---- */

/* The files a document is made of: the clip, or the images of its folder, and the text beside it. */
static int files_of(const char *path, struct lwm_paths *out, struct lwm_err *e)
{
	static const char *const beside[] = { ".txt", ".json" };
	int folder = lwm_path_folder(path, e);
	LWM_TRY(folder);
	LWM_TRY(folder ? lwm_paths_expand(out, path, lwm_image_suffixes, e) : lwm_paths_add(out, path, e));
	for (int i = 0; i < 2; i++) {
		char *name;
		LWM_TRY(find_beside(path, beside[i], &name, e));
		int rc = name ? lwm_paths_add(out, name, e) : 0;
		free(name);
		LWM_TRY(rc);
	}
	return 0;
}

/* A file that does not exist is part of the record too: it was rejected. */
static int add_file(struct lwm_manifest *book, const char *path, struct lwm_err *e)
{
	int there = lwm_path_there(path, e);
	LWM_TRY(there);
	if (!there)
		return lwm_manifest_add_input(book, path, 0, "00000000000000000000000000000000", e);
	return lwm_manifest_add_input(book, path, -1, NULL, e);
}

/* Name, size and content of each file that clip i is made of: into a book, and as a text that names the clip. */
static int list_files(const char *path, struct lwm_manifest *book, struct lwm_str *key, struct lwm_err *e)
{
	struct lwm_paths files = { 0 };
	int64_t first = book->ninput;
	int rc = files_of(path, &files, e);
	for (int64_t i = 0; i < files.n && rc == 0; i++)
		rc = add_file(book, files.v[i], e);
	lwm_paths_release(&files);
	LWM_TRY(rc);
	for (int64_t i = first; key && i < book->ninput; i++)
		lwm_str_printf(key, "%s%s %" PRId64 " %s", i > first ? "; " : "", book->input[i].path, book->input[i].bytes,
			       book->input[i].hash);
	return key ? lwm_str_ok(key, e) : 0;
}

int lwm_clip_key(const char *path, int64_t number, struct lwm_str *key, struct lwm_err *e)
{
	struct lwm_manifest book = { 0 };
	lwm_str_reset(key);
	lwm_str_printf(key, "%" PRId64 ": ", number);
	int rc = list_files(path, &book, key, e);
	lwm_manifest_release(&book);
	return rc;
}

int lwm_clip_inputs(struct lwm_docs_writer *w, const char *path, int64_t number, struct lwm_str *key, struct lwm_err *e)
{
	struct lwm_manifest book = { 0 };
	lwm_str_reset(key);
	lwm_str_printf(key, "%" PRId64 ": ", number);
	int rc = list_files(path, &book, key, e);
	for (int64_t i = 0; i < book.ninput && rc == 0; i++)
		rc = lwm_docs_input(w, book.input[i].path, book.input[i].bytes, book.input[i].hash, 0, e);
	lwm_manifest_release(&book);
	return rc;
}

static int compare_inputs(const struct lwm_manifest *m, const struct lwm_paths *in, bool *same, struct lwm_err *e)
{
	struct lwm_manifest now = { 0 };
	int rc = 0;
	for (int64_t i = 0; i < in->n && rc == 0; i++)
		rc = list_files(in->v[i], &now, NULL, e);
	*same = rc == 0 && now.ninput == m->ninput;
	for (int64_t i = 0; *same && i < m->ninput; i++)
		*same = !strcmp(m->input[i].path, now.input[i].path) && m->input[i].bytes == now.input[i].bytes &&
			!strcmp(m->input[i].hash, now.input[i].hash);
	lwm_manifest_release(&now);
	return rc;
}

int lwm_clip_shard_done(const char *shard, const char *config, const struct lwm_paths *in, int64_t max_bad, bool *replace,
			struct lwm_err *e)
{
	struct lwm_manifest m;
	bool same = false;
	int rc = lwm_manifest_done(shard, "docs", &m, replace, e);
	if (rc != 1)
		return rc;
	rc = 0;
	if (!strcmp(m.config_hash, lwm_hash_bytes(config, strlen(config)).hex))
		rc = compare_inputs(&m, in, &same, e);
	if (rc == 0 && !same)
		rc = lwm_fail(e, LWM_ECANTCREATE, "%s: exists, made from other inputs or settings (use --force to replace it)",
			      shard);
	if (rc == 0 && max_bad >= 0 && m.rejected > max_bad)
		rc = lwm_fail(e, LWM_EDATA, "%s: was made without %" PRId64 " inputs that cannot be used, and no more than %" PRId64
			      " are allowed now", shard, m.rejected, max_bad);
	lwm_manifest_release(&m);
	return rc < 0 ? rc : 1;
}
