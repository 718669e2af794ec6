/* The commit record of a checkpoint: writing it, and whether a folder is what its record says. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/base/threads.h"
#include "common/io/ckpt_int.h"
#include "common/io/seal.h"

const char *const lwm_ckpt_schemas[] = { "lwm-checkpoint-2", "lwm-checkpoint-1", NULL };

char *lwm_ckpt_dir(const char *root, int64_t step)
{
	char name[40];
	snprintf(name, sizeof name, "step_%08" PRId64, step);
	return lwm_path_join(root, name);
}

/* ---- the record ---- */

static json_t *tensors_json(const struct lwm_tensors *table, bool *failed)
{
	json_t *list = json_array();
	for (int64_t i = 0; i < table->n; i++) {
		const struct lwm_tensor *t = &table->list[i];
		json_t *o = json_object(), *shape = json_array();
		for (int d = 0; d < t->ndim; d++)
			if (json_array_append_new(shape, json_integer(t->shape[d])))
				*failed = true;
		lwm_put(o, "name", json_string(t->name), failed);
		lwm_put(o, "shape", shape, failed);
		if (json_array_append_new(list, o))
			*failed = true;
	}
	return list;
}

static json_t *slices_json(const struct lwm_ckpt_slice *s, int64_t n)
{
	struct lwm_str text = { 0 };
	lwm_ckpt_slices_text(s, n, &text);
	json_t *v = lwm_str_ok(&text, NULL) == 0 ? json_string(lwm_str_get(&text)) : NULL;
	lwm_str_release(&text);
	return v;
}

static json_t *files_json(const struct lwm_ckpt_part *p, int n, const struct lwm_ckpt_slice *s, bool *failed)
{
	json_t *list = json_array();
	for (int i = 0; i < n; s += p[i++].nslice) {
		if (!p[i].name[0])
			continue;
		json_t *o = json_object();
		lwm_put(o, "name", json_string(p[i].name), failed);
		lwm_put(o, "bytes", json_integer(p[i].bytes), failed);
		lwm_put(o, "xxh3", json_string(p[i].hash), failed);
		lwm_put(o, "slices", slices_json(s, p[i].nslice), failed);
		if (json_array_append_new(list, o))
			*failed = true;
	}
	return list;
}

static int check_sizes(const char *dir, const json_t *files, struct lwm_err *e);

static bool is_part(const char *name, const struct lwm_ckpt_part *part, int n)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(name, part[i].name))
			return true;
	return false;
}

/* What a killed save of other ranks left, and a record that stood for it. */
static int remove_others(const char *dir, const struct lwm_ckpt_part *part, int n, struct lwm_err *e)
{
	struct dirent *d;
	int rc = 0;
	DIR *list = opendir(dir);
	if (!list)
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot list the folder", dir);
	while (rc == 0 && (d = readdir(list))) {
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") || is_part(d->d_name, part, n))
			continue;
		char *path = lwm_path_join(dir, d->d_name);
		rc = path ? lwm_remove_tree(path, e) : lwm_fail_memory(e, dir);
		free(path);
	}
	closedir(list);
	return rc;
}

void lwm_ckpt_take_back(const char *dir, const char *part)
{
	char *path = *part ? lwm_path_join(dir, part) : NULL;

	if (path)
		unlink(path);
	free(path);
	rmdir(dir); /* by the last of the ranks */
}

int lwm_ckpt_commit(const char *dir, const struct lwm_ckpt_meta *m, const struct lwm_tensors *tensors,
		    const struct lwm_ckpt_part *part, int nparts, const struct lwm_ckpt_slice *slice, struct lwm_err *e)
{
	bool failed = false;
	json_t *o = json_object();
	char *path = lwm_path_join(dir, LWM_CKPT_RECORD), *root = lwm_path_dir(dir);
	lwm_put(o, "schema", json_string(lwm_ckpt_schemas[0]), &failed);
	lwm_put(o, "kind", json_string(m->kind), &failed);
	lwm_put(o, "step", json_integer(m->step), &failed);
	lwm_put(o, "mesh", json_string(m->mesh), &failed);
	lwm_put(o, "ranks", json_integer(m->ranks), &failed);
	lwm_put(o, "config", lwm_json_copy(m->config), &failed);
	lwm_put(o, "state", m->state ? lwm_json_copy(m->state) : json_object(), &failed);
	lwm_put(o, "tokenizer", json_string(m->tokenizer ? m->tokenizer : ""), &failed);
	lwm_put(o, "tokenizer_path", json_string(m->tokenizer_path ? m->tokenizer_path : ""), &failed);
	lwm_put(o, "groups", lwm_ckpt_groups_json(m->groups, &failed), &failed);
	lwm_put(o, "tensors", tensors_json(tensors, &failed), &failed);
	lwm_put(o, "files", files_json(part, nparts, slice, &failed), &failed);
	int rc = failed || !path || !root ? lwm_fail(e, LWM_EMEMORY, "%s: out of memory for the commit record", dir)
					  : check_sizes(dir, json_object_get(o, "files"), e);
	if (rc == 0)
		rc = remove_others(dir, part, nparts, e);
	if (rc == 0)
		rc = lwm_seal_write(o, path, e);
	if (rc == 0)
		rc = lwm_fsync_dir(root, e);
	json_decref(o);
	free(path);
	free(root);
	return rc;
}

/* ---- verifying ---- */

int lwm_ckpt_file_entry(const json_t *o, const char *dir, const char **name, int64_t *bytes, const char **hash, struct lwm_err *e)
{
	LWM_TRY(lwm_json_str(o, "name", name, dir, e));
	LWM_TRY(lwm_json_int(o, "bytes", bytes, dir, e));
	LWM_TRY(lwm_json_str(o, "xxh3", hash, dir, e));
	if (!lwm_name_is_plain(*name))
		return lwm_fail(e, LWM_EDATA, "%s: names a file outside of its folder", dir);
	return 0;
}

static int check_size(const char *path, int64_t bytes, struct lwm_err *e)
{
	struct stat st;
	if (stat(path, &st))
		return lwm_fail(e, errno == ENOENT ? LWM_EDATA : LWM_EIO, "%s: %s, but the commit record names it", path,
				strerror(errno));
	if ((int64_t)st.st_size != bytes)
		return lwm_fail(e, LWM_EDATA, "%s: has %" PRId64 " bytes, the commit record says %" PRId64, path,
				(int64_t)st.st_size, bytes);
	return 0;
}

static int check_hash(const char *path, const char *want, struct lwm_err *e)
{
	struct lwm_hash h;
	LWM_TRY(lwm_hash_file(path, &h, NULL, e));
	if (strcmp(h.hex, want))
		return lwm_fail(e, LWM_EDATA, "%s: damaged: its hash is %s, the commit record says %s", path, h.hex,
				want);
	return 0;
}

int lwm_ckpt_check_file(const char *path, int64_t bytes, const char *hash, enum lwm_ckpt_check how, struct lwm_err *e)
{
	LWM_TRY(check_size(path, bytes, e));
	return how == LWM_CKPT_FULL ? check_hash(path, hash, e) : 0;
}

struct check {
	const char *dir;
	const json_t *files;
	enum lwm_ckpt_check how;
};

static int check_one(void *ctx, int64_t i, struct lwm_err *e)
{
	const struct check *c = ctx;
	const char *name, *hash;
	int64_t bytes;
	LWM_TRY(lwm_ckpt_file_entry(json_array_get(c->files, (size_t)i), c->dir, &name, &bytes, &hash, e));
	char *path = lwm_path_join(c->dir, name);
	int rc = path ? lwm_ckpt_check_file(path, bytes, hash, c->how, e) : lwm_fail_memory(e, c->dir);
	free(path);
	return rc;
}

static int check_files(const char *dir, const json_t *files, enum lwm_ckpt_check how, struct lwm_err *e)
{
	struct check c = { dir, files, how };
	return lwm_work((int64_t)json_array_size(files), how == LWM_CKPT_FULL ? 0 : 1, check_one, &c, e);
}

static int check_sizes(const char *dir, const json_t *files, struct lwm_err *e)
{
	return check_files(dir, files, LWM_CKPT_QUICK, e);
}

bool lwm_ckpt_unfinished(const char *dir)
{
	char *path = lwm_path_join(dir, LWM_CKPT_RECORD);
	bool no_record = path && access(path, F_OK) && errno == ENOENT;

	free(path);
	return no_record && lwm_path_is_dir(dir);
}

/* Only names that lwm_ckpt_dir would give. */
bool lwm_ckpt_step_of(const char *name, int64_t *step)
{
	char again[40];
	if (strncmp(name, "step_", 5) || lwm_parse_int(name + 5, 0, INT64_MAX, step, name, NULL) < 0)
		return false;
	snprintf(again, sizeof again, "step_%08" PRId64, *step);
	return !strcmp(again, name);
}

/* A folder that was copied to, or renamed to, another step's name would pass for what it is not. */
static int check_name(const char *dir, const json_t *record, struct lwm_err *e)
{
	char name[64];
	size_t n = strlen(dir);
	int64_t step, named;

	while (n > 1 && dir[n - 1] == '/')
		n--;
	size_t from = n;
	while (from > 0 && dir[from - 1] != '/')
		from--;
	snprintf(name, sizeof name, "%.*s", (int)(n - from < sizeof name ? n - from : sizeof name - 1), dir + from);
	LWM_TRY(lwm_json_int(record, "step", &step, dir, e));
	if (lwm_ckpt_step_of(name, &named) && named != step)
		return lwm_fail(e, LWM_EDATA, "%s: its record is that of step %" PRId64 ": a folder copied or renamed", dir, step);
	return 0;
}

int lwm_ckpt_record_read(json_t **out, const char *dir, struct lwm_err *e)
{
	char *path = lwm_path_join(dir, LWM_CKPT_RECORD);
	json_t *o = NULL;
	int rc;
	*out = NULL;
	if (!path)
		return lwm_fail_memory(e, dir);
	if (!lwm_path_exists(dir))
		rc = lwm_fail(e, LWM_ENOINPUT, "%s: there is no such folder", dir);
	else if (lwm_ckpt_unfinished(dir))
		rc = lwm_fail(e, LWM_EDATA, "%s: has no %s: saving it was not finished", dir, LWM_CKPT_RECORD);
	else
		rc = lwm_seal_read_any(&o, path, lwm_ckpt_schemas, e);
	if (rc == 0)
		rc = check_name(dir, o, e);
	if (rc < 0)
		json_decref(o);
	else
		*out = o;
	free(path);
	return rc;
}

int lwm_ckpt_verify(const char *dir, enum lwm_ckpt_check how, struct lwm_err *e)
{
	json_t *o, *files;
	LWM_TRY(lwm_ckpt_record_read(&o, dir, e));
	int rc = lwm_json_get(o, "files", JSON_ARRAY, &files, dir, e);
	if (rc == 0 && how > LWM_CKPT_SEAL)
		rc = check_files(dir, files, how, e);
	json_decref(o);
	return rc;
}
