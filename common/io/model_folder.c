/* The weights of a model that lie in one file, or in several and an index that says which tensor lies in which; whatever these
 * files are. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/model_int.h"

#define INDEX_LIMIT (256LL << 20)

struct weights {
	const struct lwm_weight_file *kind;
	struct lwm_model_place from;
	void **file;
	char **path; /* of each */
	int nfiles;
	struct place {
		void *file;
		int64_t index;
	} *at; /* [n] tensors of all files, one after the other */
	int64_t n;
};

void lwm_folder_close(void *p)
{
	struct weights *w = p;
	for (int i = 0; i < w->nfiles; i++) {
		w->kind->close(w->file[i]);
		free(w->path[i]);
	}
	free(w->file);
	free(w->path);
	free(w->at);
	free(w);
}

static int open_file(struct weights *w, const char *name, struct lwm_err *e)
{
	char *path = lwm_path_join(w->from.dir, name);
	void **files = realloc(w->file, (size_t)(w->nfiles + 1) * sizeof *files);
	if (files)
		w->file = files;
	char **paths = realloc(w->path, (size_t)(w->nfiles + 1) * sizeof *paths);
	if (paths)
		w->path = paths;
	int rc = files && paths && path ? w->kind->open(&w->file[w->nfiles], path, e) : lwm_fail_memory(e, w->from.dir);
	if (rc == 0)
		w->path[w->nfiles++] = path;
	else
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
		n += w->kind->count(w->file[i]);
	if (n != (int64_t)json_object_size(map))
		return lwm_fail(e, LWM_EDATA, "%s: lists %zu tensors, the files hold %" PRId64, path,
				json_object_size(map), n);
	for (int i = 0; i < w->nfiles; i++)
		for (int64_t k = 0; k < w->kind->count(w->file[i]); k++)
			if (!json_object_get(map, w->kind->tensor(w->file[i], k)->name))
				return lwm_fail(e, LWM_EDATA, "%s: does not list '%.80s'", path,
						w->kind->tensor(w->file[i], k)->name);
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

/* One file, or an index and its files, under any of the names. */
static int open_files(struct weights *w, struct lwm_err *e)
{
	for (int k = 0; w->kind->names[k]; k++) {
		char name[64];
		snprintf(name, sizeof name, "%s.index.json", w->kind->names[k]);
		char *path = lwm_path_join(w->from.dir, name);
		if (!path)
			return lwm_fail_memory(e, w->from.dir);
		int index = lwm_path_there(path, e);
		int rc = index > 0 ? open_index(w, name, path, e) : index;
		path[strlen(path) - strlen(".index.json")] = 0;
		int single = index ? 0 : lwm_path_there(path, e);
		free(path);
		if (single)
			rc = single > 0 ? open_file(w, w->kind->names[k], e) : single;
		if (index || single)
			return rc;
	}
	return lwm_fail(e, LWM_EDATA, "%s: has no %s", w->from.dir, w->kind->names[0]);
}

/* The weights that were opened are the named ones: all of them, but for a single file. */
static int check_weights(const struct weights *w, struct lwm_err *e)
{
	const struct lwm_model_record *r = w->from.record;
	if (!r->record)
		return 0;
	if (!w->from.file && lwm_record_count(r, w->kind->suffix) != w->nfiles)
		return lwm_fail(e, LWM_EDATA, "%s: names %" PRId64 " files of weights, the model has %d", r->path,
				lwm_record_count(r, w->kind->suffix), w->nfiles);
	for (int i = 0; i < w->nfiles; i++) {
		const char *name = lwm_path_base(w->path[i]), *want = lwm_record_hash(r, name);
		if (!want || !w->kind->identity || strcmp(want, w->kind->identity(w->file[i]).hex))
			return lwm_fail(e, LWM_EDATA, "%s: %s is not the file it speaks of (damaged, stale or swapped)", r->path,
					name);
	}
	return 0;
}

static int list_tensors(struct weights *w, struct lwm_err *e)
{
	int64_t n = 0;
	for (int i = 0; i < w->nfiles; i++)
		n += w->kind->count(w->file[i]);
	w->at = calloc((size_t)n + 1, sizeof *w->at);
	if (!w->at)
		return lwm_fail_memory(e, w->from.dir);
	for (int i = 0; i < w->nfiles; i++)
		for (int64_t k = 0; k < w->kind->count(w->file[i]); k++)
			w->at[w->n++] = (struct place){ w->file[i], k };
	return 0;
}

int lwm_folder_open(void **out, const struct lwm_weight_file *kind, const struct lwm_model_place *from, struct lwm_err *e)
{
	struct weights *w = calloc(1, sizeof *w);
	int rc;
	if (!w)
		return lwm_fail_memory(e, from->dir);
	w->kind = kind;
	w->from = *from;
	LWM_GO(from->file ? open_file(w, from->file, e) : open_files(w, e));
	LWM_GO(check_weights(w, e));
	LWM_GO(list_tensors(w, e));
	*out = w;
	return 0;
out:
	lwm_folder_close(w);
	return rc;
}

int64_t lwm_folder_count(const void *p)
{
	return ((const struct weights *)p)->n;
}

const struct lwm_st_tensor *lwm_folder_tensor(const void *p, int64_t i)
{
	const struct weights *w = p;
	return w->kind->tensor(w->at[i].file, w->at[i].index);
}

int lwm_folder_read(void *p, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	const struct weights *w = p;
	return w->kind->read(w->at[i].file, w->at[i].index, offset, n, out, e);
}

int lwm_folder_check(void *p, struct lwm_err *e)
{
	const struct weights *w = p;
	for (int i = 0; i < w->nfiles; i++)
		LWM_TRY(w->kind->check(w->file[i], e));
	return 0;
}

bool lwm_folder_lies_in(const char *dir, const struct lwm_weight_file *kind)
{
	if (!lwm_folder_has(dir, LWM_MODEL_CONFIG))
		return false;
	for (int i = 0; kind->names[i]; i++) {
		char index[64];
		snprintf(index, sizeof index, "%s.index.json", kind->names[i]);
		if (lwm_folder_has(dir, kind->names[i]) || lwm_folder_has(dir, index))
			return true;
	}
	return false;
}
