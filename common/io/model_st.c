/* Weights in safetensors files: one, or several and an index that says which tensor lies in which. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/model_int.h"

#define INDEX_LIMIT (256LL << 20)

static const char suffix[] = ".safetensors";

struct weights {
	struct lwm_model_place from;
	struct lwm_st **file;
	int nfiles;
	struct place {
		struct lwm_st *file;
		int64_t index;
	} *at; /* [n] tensors of all files, one after the other */
	int64_t n;
};

static void close_weights(void *p)
{
	struct weights *w = p;
	for (int i = 0; i < w->nfiles; i++)
		lwm_st_close(w->file[i]);
	free(w->file);
	free(w->at);
	free(w);
}

static int open_file(struct weights *w, const char *name, struct lwm_err *e)
{
	char *path = lwm_path_join(w->from.dir, name);
	struct lwm_st **grown = realloc(w->file, (size_t)(w->nfiles + 1) * sizeof *grown);
	if (grown)
		w->file = grown;
	int rc = grown && path ? lwm_st_open(&w->file[w->nfiles], path, e)
			       : lwm_fail_memory(e, w->from.dir);
	if (rc == 0)
		w->nfiles++;
	free(path);
	return rc;
}

static int open_listed(struct weights *w, const json_t *map, const char *path, struct lwm_err *e)
{
	json_t *seen = json_object(), *v;
	const char *tensor;
	int rc = seen ? 0 : lwm_fail_memory(e, path);
	json_object_foreach((json_t *)(uintptr_t)map, tensor, v) {
		const char *name = json_string_value(v);
		if (!name || !lwm_name_is_plain(name))
			rc = lwm_fail(e, LWM_EDATA, "%s: '%.80s' is not in a file of the same folder", path, tensor);
		else if (!json_object_get(seen, name))
			rc = json_object_set_new(seen, name, json_true())
				     ? lwm_fail_memory(e, path)
				     : open_file(w, name, e);
		if (rc < 0)
			break;
	}
	json_decref(seen);
	return rc;
}

/* Files of the index must hold what the index says. */
static int check_index(const struct weights *w, const json_t *map, const char *path, struct lwm_err *e)
{
	int64_t n = 0;
	for (int i = 0; i < w->nfiles; i++)
		n += lwm_st_count(w->file[i]);
	if (n != (int64_t)json_object_size(map))
		return lwm_fail(e, LWM_EDATA, "%s: lists %zu tensors, the files hold %" PRId64, path,
				json_object_size(map), n);
	for (int i = 0; i < w->nfiles; i++)
		for (int64_t k = 0; k < lwm_st_count(w->file[i]); k++)
			if (!json_object_get(map, lwm_st_get_tensor(w->file[i], k)->name))
				return lwm_fail(e, LWM_EDATA, "%s: does not list '%.80s'", path,
						lwm_st_get_tensor(w->file[i], k)->name);
	return 0;
}

static int open_index(struct weights *w, const char *name, const char *path, struct lwm_err *e)
{
	json_t *index = NULL, *map;
	int rc;
	LWM_GO(lwm_record_json(w->from.record, w->from.dir, name, INDEX_LIMIT, &index, e));
	LWM_GO(lwm_json_get(index, "weight_map", JSON_OBJECT, &map, path, e));
	LWM_GO(open_listed(w, map, path, e));
	rc = check_index(w, map, path, e);
out:
	json_decref(index);
	return rc;
}

/* One file, or an index and its files, under the stem of any kind. */
static int open_files(struct weights *w, struct lwm_err *e)
{
	const struct lwm_model_kind *kind;
	for (int k = 0; (kind = lwm_model_kind_at(k)); k++) {
		char name[64];
		snprintf(name, sizeof name, "%s.safetensors.index.json", kind->stem);
		char *path = lwm_path_join(w->from.dir, name);
		if (!path)
			return lwm_fail_memory(e, w->from.dir);
		int index = lwm_path_there(path, e);
		int rc = index > 0 ? open_index(w, name, path, e) : index;
		name[strlen(name) - strlen(".index.json")] = 0;
		path[strlen(path) - strlen(".index.json")] = 0;
		int single = index ? 0 : lwm_path_there(path, e);
		free(path);
		if (single)
			rc = single > 0 ? open_file(w, name, e) : single;
		if (index || single)
			return rc;
	}
	return lwm_fail(e, LWM_EDATA, "%s: has no model.safetensors", w->from.dir);
}

/* The weights that were opened are the named ones: all of them, but for a single file. */
static int check_weights(const struct weights *w, struct lwm_err *e)
{
	const struct lwm_model_record *r = w->from.record;
	if (!r->record)
		return 0;
	if (!w->from.file && lwm_record_count(r, suffix) != w->nfiles)
		return lwm_fail(e, LWM_EDATA, "%s: names %" PRId64 " files of weights, the model has %d", r->path,
				lwm_record_count(r, suffix), w->nfiles);
	for (int i = 0; i < w->nfiles; i++) {
		const char *name = lwm_path_base(lwm_st_path(w->file[i])), *want = lwm_record_hash(r, name);
		if (!want || strcmp(want, lwm_st_identity(w->file[i]).hex))
			return lwm_fail(e, LWM_EDATA, "%s: %s is not the file it speaks of (damaged, stale or swapped)", r->path,
					name);
	}
	return 0;
}

static int list_tensors(struct weights *w, struct lwm_err *e)
{
	int64_t n = 0;
	for (int i = 0; i < w->nfiles; i++)
		n += lwm_st_count(w->file[i]);
	w->at = calloc((size_t)n + 1, sizeof *w->at);
	if (!w->at)
		return lwm_fail_memory(e, w->from.dir);
	for (int i = 0; i < w->nfiles; i++)
		for (int64_t k = 0; k < lwm_st_count(w->file[i]); k++)
			w->at[w->n++] = (struct place){ w->file[i], k };
	return 0;
}

static int open_weights(void **out, const struct lwm_model_place *from, struct lwm_err *e)
{
	struct weights *w = calloc(1, sizeof *w);
	int rc;
	if (!w)
		return lwm_fail_memory(e, from->dir);
	w->from = *from;
	LWM_GO(from->file ? open_file(w, from->file, e) : open_files(w, e));
	LWM_GO(check_weights(w, e));
	LWM_GO(list_tensors(w, e));
	*out = w;
	return 0;
out:
	close_weights(w);
	return rc;
}

static int64_t count_tensors(const void *p)
{
	return ((const struct weights *)p)->n;
}

static const struct lwm_st_tensor *stored_tensor(const void *p, int64_t i)
{
	const struct place *x = &((const struct weights *)p)->at[i];
	return lwm_st_get_tensor(x->file, x->index);
}

static int read_values(void *p, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	const struct place *x = &((const struct weights *)p)->at[i];
	return lwm_st_read(x->file, x->index, offset, n, out, e);
}

static int check_data(void *p, struct lwm_err *e)
{
	const struct weights *w = p;
	for (int i = 0; i < w->nfiles; i++)
		LWM_TRY(lwm_st_check(w->file[i], e));
	return 0;
}

static bool lies_in(const char *dir)
{
	static const char *const names[] = { "model.safetensors", "model.safetensors.index.json",
					     "diffusion_pytorch_model.safetensors",
					     "diffusion_pytorch_model.safetensors.index.json" };
	if (!lwm_folder_has(dir, LWM_MODEL_CONFIG))
		return false;
	for (int i = 0; i < 4; i++)
		if (lwm_folder_has(dir, names[i]))
			return true;
	return false;
}

/* ---- writing ---- */

static int create_file(void **out, const char *path, const struct lwm_st_tensor *t, int64_t n, struct lwm_err *e)
{
	struct lwm_st_writer *w = NULL;
	int rc = lwm_st_create(&w, path, t, n, NULL, false, e);
	*out = w;
	return rc;
}

static int write_values(void *file, const float *v, int64_t n, struct lwm_err *e)
{
	return lwm_st_write(file, v, n, e);
}

static int commit_file(void *file, struct lwm_hash *identity, struct lwm_err *e)
{
	return lwm_st_commit(file, identity, e);
}

static void discard_file(void *file)
{
	lwm_st_discard(file);
}

const struct lwm_model_format lwm_model_safetensors = {
	.name = "safetensors",
	.suffix = suffix,
	.lies_in = lies_in,
	.open = open_weights,
	.close = close_weights,
	.count = count_tensors,
	.tensor = stored_tensor,
	.read = read_values,
	.check = check_data,
	.create = create_file,
	.write = write_values,
	.commit = commit_file,
	.discard = discard_file,
};
