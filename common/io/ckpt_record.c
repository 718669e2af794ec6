#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/io/ckpt_int.h"
#include "common/io/seal.h"

const char lwm_ckpt_schema[] = "lwm-checkpoint-1";

char *lwm_ckpt_dir(const char *root, int64_t step)
{
	char name[40];
	snprintf(name, sizeof name, "step_%08" PRId64, step);
	return lwm_path_join(root, name);
}

/* ---- the record ---- */

static json_t *tensors_json(const struct lwm_ckpt_tensor *t, int64_t n, bool *failed)
{
	json_t *list = json_array();
	for (int64_t i = 0; i < n; i++) {
		json_t *o = json_object(), *shape = json_array();
		for (int d = 0; d < t[i].ndim; d++)
			if (json_array_append_new(shape, json_integer(t[i].shape[d])))
				*failed = true;
		lwm_put(o, "name", json_string(t[i].name), failed);
		lwm_put(o, "shape", shape, failed);
		if (json_array_append_new(list, o))
			*failed = true;
	}
	return list;
}

static json_t *files_json(const struct lwm_ckpt_part *p, int n, bool *failed)
{
	json_t *list = json_array();
	for (int i = 0; i < n; i++) {
		if (!p[i].name[0])
			continue;
		json_t *o = json_object();
		lwm_put(o, "name", json_string(p[i].name), failed);
		lwm_put(o, "bytes", json_integer(p[i].bytes), failed);
		lwm_put(o, "xxh3", json_string(p[i].hash), failed);
		if (json_array_append_new(list, o))
			*failed = true;
	}
	return list;
}

static json_t *groups_json(unsigned groups, bool *failed)
{
	json_t *list = json_array();
	for (int g = 0; g < LWM_CKPT_GROUPS; g++)
		if ((groups >> g & 1) && json_array_append_new(list, json_string(lwm_ckpt_group_names[g])))
			*failed = true;
	return list;
}

static int check_sizes(const char *dir, const json_t *files, struct lwm_err *e);

int lwm_ckpt_commit(const char *dir, const struct lwm_ckpt_meta *m, const struct lwm_ckpt_tensor *tensor,
		    int64_t ntensor, const struct lwm_ckpt_part *part, int nparts, struct lwm_err *e)
{
	bool failed = false;
	json_t *o = json_object();
	char *path = lwm_path_join(dir, LWM_CKPT_RECORD), *root = lwm_path_dir(dir);
	lwm_put(o, "schema", json_string(lwm_ckpt_schema), &failed);
	lwm_put(o, "kind", json_string(m->kind), &failed);
	lwm_put(o, "step", json_integer(m->step), &failed);
	lwm_put(o, "mesh", json_string(m->mesh), &failed);
	lwm_put(o, "ranks", json_integer(m->ranks), &failed);
	lwm_put(o, "config", lwm_json_copy(m->config), &failed);
	lwm_put(o, "state", m->state ? lwm_json_copy(m->state) : json_object(), &failed);
	lwm_put(o, "tokenizer", json_string(m->tokenizer ? m->tokenizer : ""), &failed);
	lwm_put(o, "tokenizer_path", json_string(m->tokenizer_path ? m->tokenizer_path : ""), &failed);
	lwm_put(o, "groups", groups_json(m->groups, &failed), &failed);
	lwm_put(o, "tensors", tensors_json(tensor, ntensor, &failed), &failed);
	lwm_put(o, "files", files_json(part, nparts, &failed), &failed);
	int rc = failed || !path || !root ? lwm_fail(e, LWM_EMEMORY, "%s: out of memory for the commit record", dir)
					  : check_sizes(dir, json_object_get(o, "files"), e);
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

static int file_entry(const json_t *o, const char *dir, const char **name, int64_t *bytes, const char **hash,
		      struct lwm_err *e)
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
		return lwm_fail(e, LWM_EDATA, "%s: %s, but the commit record names it", path, strerror(errno));
	if ((int64_t)st.st_size != bytes)
		return lwm_fail(e, LWM_EDATA, "%s: has %lld bytes, the commit record says %" PRId64, path,
				(long long)st.st_size, bytes);
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

static int check_files(const char *dir, const json_t *files, enum lwm_ckpt_check how, struct lwm_err *e)
{
	json_t *o;
	size_t i;
	json_array_foreach(files, i, o) {
		const char *name, *hash;
		int64_t bytes;
		LWM_TRY(file_entry(o, dir, &name, &bytes, &hash, e));
		char *path = lwm_path_join(dir, name);
		int rc = path ? check_size(path, bytes, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", dir);
		if (rc == 0 && how == LWM_CKPT_FULL)
			rc = check_hash(path, hash, e);
		free(path);
		LWM_TRY(rc);
	}
	return 0;
}

static int check_sizes(const char *dir, const json_t *files, struct lwm_err *e)
{
	return check_files(dir, files, LWM_CKPT_QUICK, e);
}

int lwm_ckpt_verify(const char *dir, enum lwm_ckpt_check how, struct lwm_err *e)
{
	json_t *o = NULL, *files;
	char *path = lwm_path_join(dir, LWM_CKPT_RECORD);
	int rc;
	if (!path)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", dir);
	if (!lwm_path_exists(dir))
		rc = lwm_fail(e, LWM_ENOINPUT, "%s: there is no such folder", dir);
	else if (!lwm_path_exists(path))
		rc = lwm_fail(e, LWM_EDATA, "%s: has no %s: saving it was not finished", dir, LWM_CKPT_RECORD);
	else
		rc = lwm_seal_read(&o, path, lwm_ckpt_schema, e);
	if (rc == 0)
		rc = lwm_json_get(o, "files", JSON_ARRAY, &files, path, e);
	if (rc == 0)
		rc = check_files(dir, files, how, e);
	json_decref(o);
	free(path);
	return rc;
}

/* ---- folders of a root ---- */

struct steps {
	int64_t *v; /* descending */
	int64_t n;
};

static int by_step(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return x < y ? 1 : x > y ? -1 : 0;
}

/* Only names that lwm_ckpt_dir would give. */
static bool step_of(const char *name, int64_t *step)
{
	char again[40];
	if (strncmp(name, "step_", 5) || lwm_parse_int(name + 5, 0, INT64_MAX, step, name, NULL) < 0)
		return false;
	snprintf(again, sizeof again, "step_%08" PRId64, *step);
	return !strcmp(again, name);
}

static int list_steps(const char *root, struct steps *s, struct lwm_err *e)
{
	struct dirent *d;
	int rc = 0;
	memset(s, 0, sizeof *s);
	DIR *dir = opendir(root);
	if (!dir && errno == ENOENT)
		return 0;
	if (!dir)
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot list the folder", root);
	while (rc == 0 && (d = readdir(dir))) {
		int64_t step;
		if (!step_of(d->d_name, &step))
			continue;
		int64_t *v = realloc(s->v, (size_t)(s->n + 1) * sizeof *v);
		if (!v) {
			rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory", root);
			break;
		}
		s->v = v;
		s->v[s->n++] = step;
	}
	closedir(dir);
	if (s->n)
		qsort(s->v, (size_t)s->n, sizeof *s->v, by_step);
	return rc;
}

int lwm_ckpt_latest(char **dir, const char *root, int64_t below, enum lwm_ckpt_check how, lwm_ckpt_bad_fn *bad,
		    void *ctx, struct lwm_err *e)
{
	struct steps s;
	int rc = list_steps(root, &s, e);
	*dir = NULL;
	for (int64_t i = 0; rc == 0 && i < s.n && !*dir; i++) {
		struct lwm_err why = { 0 };
		if (s.v[i] >= below)
			continue;
		char *path = lwm_ckpt_dir(root, s.v[i]);
		if (!path) {
			rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory", root);
		} else if (lwm_ckpt_verify(path, how, &why) == 0) {
			*dir = path;
			break;
		} else if (bad) {
			bad(ctx, path, &why);
		}
		free(path);
	}
	free(s.v);
	return rc;
}

/* Out of sight in one step, then removed; a rest that a kill left is removed by the next call. */
static int drop(const char *root, int64_t step, struct lwm_err *e)
{
	char name[48];
	char *from = lwm_ckpt_dir(root, step), *to;
	int rc = 0;
	snprintf(name, sizeof name, ".trash-step_%08" PRId64, step);
	to = lwm_path_join(root, name);
	if (!from || !to)
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory", root);
	if (rc == 0)
		rc = lwm_remove_tree(to, e);
	if (rc == 0 && rename(from, to))
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot be moved away", from);
	if (rc == 0)
		rc = lwm_remove_tree(to, e);
	free(from);
	free(to);
	return rc;
}

static int empty_trash(const char *root, struct lwm_err *e)
{
	struct dirent *d;
	int rc = 0;
	DIR *dir = opendir(root);
	if (!dir)
		return errno == ENOENT ? 0 : lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot list the folder", root);
	while (rc == 0 && (d = readdir(dir))) {
		if (strncmp(d->d_name, ".trash-step_", 12))
			continue;
		char *path = lwm_path_join(root, d->d_name);
		rc = path ? lwm_remove_tree(path, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", root);
		free(path);
	}
	closedir(dir);
	return rc;
}

static bool verifies(const char *root, int64_t step, enum lwm_ckpt_check how)
{
	char *path = lwm_ckpt_dir(root, step);
	bool ok = path && lwm_ckpt_verify(path, how, NULL) == 0;
	free(path);
	return ok;
}

int lwm_ckpt_retain(const char *root, int64_t keep_last, int64_t keep_every, enum lwm_ckpt_check how,
		    struct lwm_err *e)
{
	struct steps s;
	int64_t kept = 0;
	keep_last = keep_last < 1 ? 1 : keep_last;
	int rc = list_steps(root, &s, e);
	for (int64_t i = 0; rc == 0 && i < s.n; i++) {
		if (kept < keep_last) {
			if (verifies(root, s.v[i], how)) {
				kept++;
				continue;
			}
			if (kept == 0) /* newer than every good one: it may still be being written */
				continue;
		} else if (keep_every > 0 && s.v[i] % keep_every == 0 && verifies(root, s.v[i], LWM_CKPT_QUICK)) {
			continue;
		}
		rc = drop(root, s.v[i], e);
	}
	free(s.v);
	if (rc == 0)
		rc = empty_trash(root, e);
	return rc;
}
