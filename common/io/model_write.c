/* Writes a model folder: weights, configuration, what the caller puts beside them, and last the manifest. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/json.h"
#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/base/tmpname.h"
#include "common/io/ckpt_int.h"
#include "common/io/model_int.h"
#include "common/io/seal.h"

enum { PIECE = 1 << 15 }; /* values asked of a source at a time */

struct out_tensor {
	struct lwm_st_tensor disk; /* its name is that of the table */
	enum lwm_change how;
	int64_t head;
	int file;
};

struct lwm_model_writer {
	char *dir, *tmp;        /* tmp: the folder while it is being filled, NULL before it is made */
	char *tokenizer;        /* hash, "" unknown */
	char *source;           /* "" not told */
	int lock;               /* says that its writer lives; -1 */
	json_t *config, *files; /* files: name -> identity, or hash of its bytes */
	int (*extra)(void *ctx, const char *dir, struct lwm_err *e);
	void *ctx;
	const struct lwm_model_kind *kind;
	bool force;
	enum lwm_st_dtype dtype;
	struct lwm_tensors tensors; /* memory layout */
	struct out_tensor *out;     /* of each: what becomes of it */
	int64_t next, bytes;
	int nfiles, file; /* files in all, the one being written */
	const struct lwm_model_format *format;
	void *weights; /* the file being written, the format's */
	float *work; /* a head, or a convolution in both layouts */
	int64_t work_cap;
};

static void free_writer(struct lwm_model_writer *w)
{
	lwm_tensors_release(&w->tensors);
	free(w->out);
	free(w->work);
	free(w->dir);
	free(w->tmp);
	free(w->tokenizer);
	free(w->source);
	json_decref(w->config);
	json_decref(w->files);
	free(w);
}

void lwm_model_discard(struct lwm_model_writer *w)
{
	if (!w)
		return;
	if (w->format)
		w->format->discard(w->weights);
	if (w->tmp)
		lwm_remove_tree(w->tmp, NULL);
	if (w->lock >= 0)
		close(w->lock);
	free_writer(w);
}

static int plan_tensor(struct lwm_model_writer *w, const struct lwm_tensor *t, struct lwm_err *e)
{
	struct out_tensor *x = &w->out[w->tensors.n];
	int rc = lwm_tensors_add(&w->tensors, t, NULL);
	if (rc == -LWM_EMEMORY)
		return lwm_fail_memory(e, w->dir);
	if (rc < 0)
		return lwm_fail(e, LWM_EINTERNAL, "%s: '%s' has no usable shape", w->dir, t->name);
	t = &w->tensors.list[w->tensors.n - 1];
	LWM_TRY(lwm_change_of(t->name, t->ndim, t->shape, w->kind, w->config, &x->how, &x->head, w->dir, e));
	x->disk = (struct lwm_st_tensor){ .name = t->name, .dtype = w->dtype, .ndim = t->ndim };
	for (int d = 0; d < t->ndim; d++)
		x->disk.shape[d] = t->shape[d];
	if (x->how == LWM_CONV) { /* H W I O -> O I H W */
		x->disk.shape[0] = t->shape[3];
		x->disk.shape[1] = t->shape[2];
		x->disk.shape[2] = t->shape[0];
		x->disk.shape[3] = t->shape[1];
	}
	return 0;
}

/* Tensors in order into files of at most `limit` bytes; a larger tensor gets a file of its own. */
static void share_out(struct lwm_model_writer *w, int64_t limit)
{
	int64_t in_file = 0;
	w->nfiles = 1;
	for (int64_t i = 0; i < w->tensors.n; i++) {
		int64_t bytes = w->tensors.list[i].count * lwm_st_dtype_bytes(w->dtype);
		if (limit > 0 && in_file && in_file + bytes > limit) {
			w->nfiles++;
			in_file = 0;
		}
		w->out[i].file = w->nfiles - 1;
		in_file += bytes;
		w->bytes += bytes;
	}
}

static void file_name(const struct lwm_model_writer *w, int k, char *out, size_t size)
{
	const char *stem = w->kind->stem;
	if (w->nfiles == 1)
		snprintf(out, size, "%s%s", stem, w->format->suffix);
	else
		snprintf(out, size, "%s-%05d-of-%05d%s", stem, k + 1, w->nfiles, w->format->suffix);
}

/* Starts file w->file with its tensors. */
static int start_file(struct lwm_model_writer *w, struct lwm_err *e)
{
	char name[80];
	int64_t n = 0, first = 0;
	while (first < w->tensors.n && w->out[first].file != w->file)
		first++;
	while (first + n < w->tensors.n && w->out[first + n].file == w->file)
		n++;
	struct lwm_st_tensor *list = calloc((size_t)n + 1, sizeof *list);
	file_name(w, w->file, name, sizeof name);
	char *path = lwm_path_join(w->tmp, name);
	for (int64_t i = 0; list && i < n; i++)
		list[i] = w->out[first + i].disk;
	int rc = list && path ? w->format->create(&w->weights, path, list, n, e)
			      : lwm_fail_memory(e, w->dir);
	free(list);
	free(path);
	return rc;
}

static int prepare_folder(struct lwm_model_writer *w, struct lwm_err *e)
{
	char a[32], b[32];
	int64_t room = lwm_space_free(w->dir);
	if (room >= 0 && room < w->bytes)
		return lwm_fail(e, LWM_EIO, "%s: the model needs %s, the file system has %s left", w->dir,
				lwm_bytes_text((double)w->bytes, a, sizeof a),
				lwm_bytes_text((double)room, b, sizeof b));
	char *parent = lwm_path_dir(w->dir);
	int rc = parent ? lwm_mkdirs(parent, e) : lwm_fail_memory(e, w->dir);
	if (rc == 0)
		lwm_tmp_sweep(parent);
	free(parent);
	LWM_TRY(rc);
	LWM_TRY(lwm_tmp_dir(w->dir, &w->tmp, &w->lock, e));
	return start_file(w, e);
}

/* With force a folder is removed as a whole: only one that is a model. */
static int check_target(const char *dir, bool force, struct lwm_err *e)
{
	if (!lwm_path_exists(dir))
		return 0;
	if (!force)
		return lwm_fail(e, LWM_ECANTCREATE, "%s: exists (use --force to replace it)", dir);
	char *path = lwm_path_join(dir, LWM_MODEL_CONFIG);
	int model = path ? lwm_path_there(path, e) : lwm_fail_memory(e, dir);
	free(path);
	LWM_TRY(model);
	return model || lwm_record_is_ours(dir) ? 0
		     : lwm_fail(e, LWM_ECANTCREATE, "%s: exists and is not a model folder; it is not replaced", dir);
}

int lwm_model_create(struct lwm_model_writer **out, const char *dir, const struct lwm_model_spec *spec,
		     const struct lwm_tensors *tensors, bool force, struct lwm_err *e)
{
	int rc = 0;
	size_t len = strlen(dir);
	*out = NULL;
	while (len > 1 && dir[len - 1] == '/')
		len--;
	struct lwm_model_writer *w = calloc(1, sizeof *w);
	if (!w)
		return lwm_fail_memory(e, dir);
	w->dir = strndup(dir, len);
	w->tokenizer = strdup(spec->tokenizer ? spec->tokenizer : "");
	w->source = strdup(spec->source ? spec->source : "");
	w->config = lwm_json_copy(spec->config);
	w->files = json_object();
	w->extra = spec->extra;
	w->ctx = spec->ctx;
	w->out = calloc((size_t)tensors->n + 1, sizeof *w->out);
	w->lock = -1;
	if (!w->dir || !w->tokenizer || !w->source || !w->config || !w->files || !w->out) {
		rc = lwm_fail_memory(e, dir);
		goto out;
	}
	w->format = lwm_model_format_to_write(spec->format, e);
	if (!w->format) {
		rc = -LWM_ECONFIG;
		goto out;
	}
	LWM_GO(check_target(w->dir, force, e));
	w->force = force;
	w->kind = lwm_model_kind_named(spec->kind);
	w->dtype = spec->dtype;
	for (int64_t i = 0; i < tensors->n; i++)
		LWM_GO(plan_tensor(w, &tensors->list[i], e));
	share_out(w, spec->max_file_bytes);
	LWM_GO(prepare_folder(w, e));
	*out = w;
	return 0;
out:
	lwm_model_discard(w);
	return rc;
}

static int reserve_work(struct lwm_model_writer *w, int64_t n, struct lwm_err *e)
{
	if (n <= w->work_cap)
		return 0;
	free(w->work);
	w->work_cap = 0;
	w->work = malloc((size_t)n * sizeof *w->work);
	if (!w->work)
		return lwm_fail_memory(e, w->dir);
	w->work_cap = n;
	return 0;
}

static int note_hash(struct lwm_model_writer *w, const char *name, const struct lwm_hash *h, struct lwm_err *e)
{
	bool failed = false;
	lwm_put(w->files, name, json_string(h->hex), &failed);
	return failed ? lwm_fail(e, LWM_EMEMORY, "%s: out of memory, or a name that is not UTF-8", w->dir) : 0;
}

static int finish_file(struct lwm_model_writer *w, struct lwm_err *e)
{
	char name[80];
	struct lwm_hash identity;
	void *out = w->weights;
	w->weights = NULL;
	LWM_TRY(w->format->commit(out, &identity, e));
	file_name(w, w->file, name, sizeof name);
	return note_hash(w, name, &identity, e);
}

/* Row p on disk is the memory row that lwm_rope_row sends to p: 2i for the first half, 2i + 1 for the second. */
static int add_qk(struct lwm_model_writer *w, const struct lwm_tensor *t, int64_t head, lwm_model_source_fn *source, void *ctx,
		  struct lwm_err *e)
{
	int64_t cols = t->shape[1], half = head / 2, unit = head * cols;
	LWM_TRY(reserve_work(w, unit, e));
	for (int64_t at = 0; at < t->count; at += unit) {
		LWM_TRY(source(ctx, at, unit, w->work, e));
		for (int64_t p = 0; p < head; p++)
			LWM_TRY(w->format->write(w->weights, w->work + (2 * (p % half) + p / half) * cols, cols, e));
	}
	return 0;
}

static int add_conv(struct lwm_model_writer *w, const struct lwm_tensor *t, lwm_model_source_fn *source, void *ctx,
		    struct lwm_err *e)
{
	LWM_TRY(reserve_work(w, 2 * t->count, e));
	LWM_TRY(source(ctx, 0, t->count, w->work, e));
	lwm_conv_to_disk(w->work, t->shape, w->work + t->count);
	return w->format->write(w->weights, w->work + t->count, t->count, e);
}

static int add_same(struct lwm_model_writer *w, const struct lwm_tensor *t, lwm_model_source_fn *source, void *ctx,
		    struct lwm_err *e)
{
	LWM_TRY(reserve_work(w, PIECE, e));
	for (int64_t at = 0; at < t->count; at += PIECE) {
		int64_t n = t->count - at < PIECE ? t->count - at : PIECE;
		LWM_TRY(source(ctx, at, n, w->work, e));
		LWM_TRY(w->format->write(w->weights, w->work, n, e));
	}
	return 0;
}

int lwm_model_add_from(struct lwm_model_writer *w, lwm_model_source_fn *source, void *ctx, struct lwm_err *e)
{
	if (w->next == w->tensors.n)
		return lwm_fail(e, LWM_EINTERNAL, "%s: more tensors than announced", w->dir);
	const struct lwm_tensor *t = &w->tensors.list[w->next];
	const struct out_tensor *x = &w->out[w->next];
	if (x->file != w->file) {
		LWM_TRY(finish_file(w, e));
		w->file = x->file;
		LWM_TRY(start_file(w, e));
	}
	if (x->how == LWM_QK)
		LWM_TRY(add_qk(w, t, x->head, source, ctx, e));
	else if (x->how == LWM_CONV)
		LWM_TRY(add_conv(w, t, source, ctx, e));
	else
		LWM_TRY(add_same(w, t, source, ctx, e));
	w->next++;
	return 0;
}

static int from_memory(void *ctx, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	(void)e;
	memcpy(out, *(const float *const *)ctx + offset, (size_t)n * sizeof *out);
	return 0;
}

int lwm_model_add(struct lwm_model_writer *w, const float *data, struct lwm_err *e)
{
	return lwm_model_add_from(w, from_memory, &data, e);
}

/* ---- the small files, and the folder ---- */

static int write_json(struct lwm_model_writer *w, const json_t *v, const char *name, struct lwm_err *e)
{
	struct lwm_str text = { 0 };
	char *path = lwm_path_join(w->tmp, name);
	int rc = path ? lwm_json_text(v, &text, e) : lwm_fail_memory(e, w->dir);
	if (rc == 0)
		rc = lwm_write_file(path, text.s, text.len, false, e);
	if (rc == 0) {
		struct lwm_hash h = lwm_hash_bytes(text.s, text.len);
		rc = note_hash(w, name, &h, e);
	}
	lwm_str_release(&text);
	free(path);
	return rc;
}

/* A file that is no weights: new ones are noted, what was written from memory is read back and compared. */
static int note_file(struct lwm_model_writer *w, const char *name, struct lwm_err *e)
{
	struct lwm_hash h;
	const char *want = json_string_value(json_object_get(w->files, name));
	char *path = lwm_path_join(w->tmp, name);
	if (!want && !strcmp(name, "tokenizer.model") && *w->tokenizer)
		want = w->tokenizer;
	int rc = path ? lwm_hash_file(path, &h, NULL, e) : lwm_fail_memory(e, w->dir);
	if (rc == 0 && want && strcmp(want, h.hex))
		rc = lwm_fail(e, LWM_EIO, "%s: reads back as something else than was written", path);
	free(path);
	return rc < 0 ? rc : note_hash(w, name, &h, e);
}

/* Whatever lies in the folder by now. */
static int note_files(struct lwm_model_writer *w, struct lwm_err *e)
{
	int rc = 0;
	struct dirent *d;
	DIR *dir = opendir(w->tmp);
	if (!dir)
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot list it", w->tmp);
	while (rc == 0 && (errno = 0, d = readdir(dir)))
		if (d->d_name[0] != '.' && !lwm_model_is_weights(d->d_name))
			rc = note_file(w, d->d_name, e);
	if (rc == 0 && errno)
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot list it", w->tmp);
	closedir(dir);
	return rc;
}

static int write_index(struct lwm_model_writer *w, struct lwm_err *e)
{
	char name[80];
	bool failed = false;
	json_t *o = json_object(), *map = json_object(), *meta = json_object();
	for (int64_t i = 0; i < w->tensors.n; i++) {
		file_name(w, w->out[i].file, name, sizeof name);
		lwm_put(map, w->out[i].disk.name, json_string(name), &failed);
	}
	lwm_put(meta, "total_size", json_integer(w->bytes), &failed);
	lwm_put(o, "metadata", meta, &failed);
	lwm_put(o, "weight_map", map, &failed);
	snprintf(name, sizeof name, "%s%s.index.json", w->kind->stem, w->format->suffix);
	int rc = failed ? lwm_fail_memory(e, w->dir) : write_json(w, o, name, e);
	json_decref(o);
	return rc;
}

static int write_manifest(const struct lwm_model_writer *w, struct lwm_err *e)
{
	bool failed = false;
	json_t *o = json_object();
	char *path = lwm_path_join(w->tmp, LWM_MODEL_MANIFEST);
	lwm_put(o, "schema", json_string(LWM_MODEL_SCHEMA), &failed);
	lwm_put(o, "kind", json_string(w->kind->name), &failed);
	lwm_put(o, "dtype", json_string(lwm_st_dtype_name(w->dtype)), &failed);
	lwm_put(o, "bytes", json_integer(w->bytes), &failed);
	lwm_put(o, "tokenizer", json_string(w->tokenizer), &failed);
	if (*w->source)
		lwm_put(o, "source", json_string(w->source), &failed);
	lwm_put(o, "files", json_incref(w->files), &failed);
	int rc = failed || !path ? lwm_fail_memory(e, w->dir) : lwm_seal_write(o, path, e);
	json_decref(o);
	free(path);
	return rc;
}

/* Where the old folder can wait: *box, a temporary that *lock keeps, and *inside, the old folder in it. */
static int make_box(const struct lwm_model_writer *w, char **box, char **inside, int *lock, struct lwm_err *e)
{
	LWM_TRY(lwm_tmp_dir(w->dir, box, lock, e));
	*inside = lwm_path_join(*box, lwm_path_base(w->dir));
	return *inside ? 0 : lwm_fail_memory(e, w->dir);
}

/* Where a file system cannot exchange two folders there is a moment without either. */
static int replace_in_two(struct lwm_model_writer *w, const char *parent, struct lwm_err *e)
{
	char *box = NULL, *inside = NULL;
	int lock = -1, rc = make_box(w, &box, &inside, &lock, e);

	if (rc == 0 && rename(w->dir, inside)) {
		rc = lwm_fail_errno(e, LWM_ECANTCREATE, errno, "%s: cannot be moved away", w->dir);
	} else if (rc == 0) {
		if (rename(w->tmp, w->dir))
			rc = lwm_fail_errno(e, LWM_ECANTCREATE, errno, "%s: cannot rename the finished folder to it", w->dir);
		else if ((rc = lwm_fsync_dir(parent, e)) < 0)
			rename(w->dir, w->tmp);
		if (rc < 0 && rename(inside, w->dir)) /* then the box keeps it */
			box[0] = 0;
	}
	if (box && box[0])
		lwm_remove_tree(box, NULL);
	if (lock >= 0)
		close(lock);
	free(box);
	free(inside);
	return rc;
}

/* The new folder takes the name at once; an old one is exchanged for it, and removed when that is sure to last. */
static int take_name(struct lwm_model_writer *w, const char *parent, struct lwm_err *e)
{
	bool old = lwm_path_exists(w->dir);

	if (old && renameat2(AT_FDCWD, w->tmp, AT_FDCWD, w->dir, RENAME_EXCHANGE))
		return replace_in_two(w, parent, e);
	if (!old && rename(w->tmp, w->dir))
		return lwm_fail_errno(e, LWM_ECANTCREATE, errno, "%s: cannot rename the finished folder to it", w->dir);
	int rc = lwm_fsync_dir(parent, e);
	if (old && rc < 0) /* the old one stands again */
		renameat2(AT_FDCWD, w->tmp, AT_FDCWD, w->dir, RENAME_EXCHANGE);
	return rc == 0 && old ? lwm_remove_tree(w->tmp, e) : rc;
}

static int publish_folder(struct lwm_model_writer *w, struct lwm_err *e)
{
	char *lock = lwm_path_join(w->tmp, LWM_TMP_LOCK), *parent = lwm_path_dir(w->dir);
	int rc = lock && parent ? 0 : lwm_fail_memory(e, w->dir);
	int held = rc == 0 ? lwm_tmp_hold(w->tmp) : -1;

	if (rc == 0 && unlink(lock))
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot be removed", lock);
	if (rc == 0)
		rc = lwm_fsync_dir(w->tmp, e);
	if (rc == 0)
		rc = take_name(w, parent, e);
	if (held >= 0)
		close(held);
	free(lock);
	free(parent);
	return rc;
}

int lwm_model_commit(struct lwm_model_writer *w, struct lwm_err *e)
{
	int rc = 0;
	if (w->next != w->tensors.n) {
		rc = lwm_fail(e, LWM_EINTERNAL, "%s: tensors are missing", w->dir);
		goto out;
	}
	LWM_GO(finish_file(w, e));
	if (w->nfiles > 1)
		LWM_GO(write_index(w, e));
	LWM_GO(write_json(w, w->config, LWM_MODEL_CONFIG, e));
	if (w->extra)
		LWM_GO(w->extra(w->ctx, w->tmp, e));
	LWM_GO(note_files(w, e));
	LWM_GO(write_manifest(w, e));
	LWM_GO(publish_folder(w, e));
	close(w->lock);
	free_writer(w);
	return 0;
out:
	lwm_model_discard(w);
	return rc;
}
