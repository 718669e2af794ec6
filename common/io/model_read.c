/* Opens a model folder and reads its tensors in memory layout. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/model_int.h"
#include "common/io/seal.h"

#define CONFIG_LIMIT (16LL << 20)
#define INDEX_LIMIT (256LL << 20)
#define SMALL (64LL << 20) /* files up to here are checked as a whole when opened */

struct entry {
	struct lwm_st *file;
	int64_t index, size, head;
	enum lwm_change how;
};

struct lwm_model {
	char *dir, *tokenizer;
	struct lwm_model_record record;
	json_t *config;
	bool vqgan;
	struct lwm_st **file;
	int nfiles;
	struct lwm_ckpt_tensor *tensor; /* memory layout */
	struct entry *entry;
	int64_t ntensor;
	/* the last head of q/k rows or the last convolution, in memory layout */
	float *held;
	int64_t held_cap, held_tensor, held_first;
};

void lwm_model_close(struct lwm_model *m)
{
	if (!m)
		return;
	for (int i = 0; i < m->nfiles; i++)
		lwm_st_close(m->file[i]);
	free(m->file);
	json_decref(m->config);
	free(m->tensor);
	free(m->entry);
	free(m->held);
	free(m->tokenizer);
	lwm_record_release(&m->record);
	free(m->dir);
	free(m);
}

/* ---- opening ---- */

/* A JSON file of the folder; what is parsed is what was compared with the manifest. */
static int read_json(struct lwm_model *m, const char *name, int64_t limit, json_t **out, struct lwm_err *e)
{
	char *text = NULL, *path = lwm_path_join(m->dir, name);
	size_t n;
	int rc = path ? lwm_read_file(path, limit, &text, &n, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", m->dir);
	if (rc == 0)
		rc = lwm_record_check(&m->record, name, text, n, e);
	if (rc == 0)
		rc = lwm_json_parse(out, text, n, path, e);
	free(text);
	free(path);
	return rc;
}

static int open_file(struct lwm_model *m, const char *name, struct lwm_err *e)
{
	char *path = lwm_path_join(m->dir, name);
	struct lwm_st **grown = realloc(m->file, (size_t)(m->nfiles + 1) * sizeof *grown);
	if (grown)
		m->file = grown;
	int rc = grown && path ? lwm_st_open(&m->file[m->nfiles], path, e)
			       : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", m->dir);
	if (rc == 0)
		m->nfiles++;
	free(path);
	return rc;
}

static int open_listed(struct lwm_model *m, const json_t *map, const char *path, struct lwm_err *e)
{
	json_t *seen = json_object(), *v;
	const char *tensor;
	int rc = seen ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	json_object_foreach((json_t *)(uintptr_t)map, tensor, v) {
		const char *name = json_string_value(v);
		if (!name || !lwm_name_is_plain(name))
			rc = lwm_fail(e, LWM_EDATA, "%s: '%.80s' is not in a file of the same folder", path, tensor);
		else if (!json_object_get(seen, name))
			rc = json_object_set_new(seen, name, json_true())
				     ? lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path)
				     : open_file(m, name, e);
		if (rc < 0)
			break;
	}
	json_decref(seen);
	return rc;
}

/* Files of the index must hold what the index says. */
static int check_index(const struct lwm_model *m, const json_t *map, const char *path, struct lwm_err *e)
{
	int64_t n = 0;
	for (int i = 0; i < m->nfiles; i++)
		n += lwm_st_count(m->file[i]);
	if (n != (int64_t)json_object_size(map))
		return lwm_fail(e, LWM_EDATA, "%s: lists %zu tensors, the files hold %" PRId64, path,
				json_object_size(map), n);
	for (int i = 0; i < m->nfiles; i++)
		for (int64_t k = 0; k < lwm_st_count(m->file[i]); k++)
			if (!json_object_get(map, lwm_st_tensor(m->file[i], k)->name))
				return lwm_fail(e, LWM_EDATA, "%s: does not list '%.80s'", path,
						lwm_st_tensor(m->file[i], k)->name);
	return 0;
}

static int open_index(struct lwm_model *m, const char *name, const char *path, struct lwm_err *e)
{
	json_t *index = NULL, *map;
	int rc;
	LWM_GO(read_json(m, name, INDEX_LIMIT, &index, e));
	LWM_GO(lwm_json_get(index, "weight_map", JSON_OBJECT, &map, path, e));
	LWM_GO(open_listed(m, map, path, e));
	rc = check_index(m, map, path, e);
out:
	json_decref(index);
	return rc;
}

/* One file, or an index and its files, under either stem. */
static int open_files(struct lwm_model *m, struct lwm_err *e)
{
	for (int k = 0; k < 2; k++) {
		char name[64];
		snprintf(name, sizeof name, "%s.safetensors.index.json", lwm_model_stem(k == 1));
		char *path = lwm_path_join(m->dir, name);
		if (!path)
			return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", m->dir);
		int index = lwm_path_there(path, e);
		int rc = index > 0 ? open_index(m, name, path, e) : index;
		name[strlen(name) - strlen(".index.json")] = 0;
		path[strlen(path) - strlen(".index.json")] = 0;
		int single = index ? 0 : lwm_path_there(path, e);
		free(path);
		if (single)
			rc = single > 0 ? open_file(m, name, e) : single;
		if (index || single)
			return rc;
	}
	return lwm_fail(e, LWM_EDATA, "%s: has no model.safetensors", m->dir);
}

static int add_tensor(struct lwm_model *m, struct lwm_st *file, int64_t k, struct lwm_err *e)
{
	const struct lwm_st_tensor *t = lwm_st_tensor(file, k);
	struct lwm_ckpt_tensor *c = &m->tensor[m->ntensor];
	struct entry *x = &m->entry[m->ntensor];
	/* old files carry it; it follows from the configuration */
	if (lwm_path_has_suffix(t->name, "rotary_emb.inv_freq"))
		return 0;
	if (t->ndim > 4 || t->size < 1)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' is of no shape that is used here", m->dir, t->name);
	*x = (struct entry){ file, k, t->size, 0, LWM_SAME };
	LWM_TRY(lwm_change_of(t->name, t->ndim, t->shape, m->vqgan, m->config, &x->how, &x->head, m->dir, e));
	c->name = t->name;
	c->ndim = t->ndim;
	for (int d = 0; d < t->ndim; d++)
		c->shape[d] = t->shape[x->how == LWM_CONV ? (d + 2) % 4 : d];
	if (x->how == LWM_CONV) { /* O I H W -> H W I O */
		c->shape[2] = t->shape[1];
		c->shape[3] = t->shape[0];
	}
	m->ntensor++;
	return 0;
}

static int list_tensors(struct lwm_model *m, struct lwm_err *e)
{
	int64_t n = 0;
	for (int i = 0; i < m->nfiles; i++)
		n += lwm_st_count(m->file[i]);
	m->tensor = calloc((size_t)n + 1, sizeof *m->tensor);
	m->entry = calloc((size_t)n + 1, sizeof *m->entry);
	if (!m->tensor || !m->entry)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", m->dir);
	for (int i = 0; i < m->nfiles; i++)
		for (int64_t k = 0; k < lwm_st_count(m->file[i]); k++)
			LWM_TRY(add_tensor(m, m->file[i], k, e));
	return 0;
}

/* A file of the tokenizer that the manifest names must be that file. */
static int check_beside(const struct lwm_model *m, const char *name, struct lwm_err *e)
{
	bool named = m->record.record && !m->record.weights_only && lwm_record_hash(&m->record, name);
	return named ? lwm_record_check_file(&m->record, m->dir, name, e) : 0;
}

static int find_tokenizer(struct lwm_model *m, struct lwm_err *e)
{
	char *model = lwm_path_join(m->dir, "tokenizer.model"), *text = lwm_path_join(m->dir, "tokenizer.txt");
	int there = 0, plain = 0, rc = model && text ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", m->dir);
	if (rc == 0)
		rc = there = lwm_path_there(model, e);
	if (rc >= 0)
		rc = plain = lwm_path_there(text, e);
	if (rc >= 0 && there)
		rc = check_beside(m, "tokenizer.model", e);
	if (rc >= 0 && plain)
		rc = check_beside(m, "tokenizer.txt", e);
	if (rc >= 0 && there) {
		m->tokenizer = model;
		model = NULL;
	} else if (rc >= 0 && plain && !(m->tokenizer = strdup(m->dir))) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory", m->dir);
	}
	free(model);
	free(text);
	return rc < 0 ? rc : 0;
}

static int read_config(struct lwm_model *m, struct lwm_err *e)
{
	LWM_TRY(read_json(m, LWM_MODEL_CONFIG, CONFIG_LIMIT, &m->config, e));
	if (!json_is_object(m->config))
		return lwm_fail(e, LWM_EDATA, "%s/%s: must be an object", m->dir, LWM_MODEL_CONFIG);
	m->vqgan = lwm_model_is_vqgan(m->config);
	return find_tokenizer(m, e);
}

/* The weights that were opened are the named ones: all of them, but for a single file. */
static int check_weights(const struct lwm_model *m, bool single, struct lwm_err *e)
{
	const struct lwm_model_record *r = &m->record;
	if (!r->record)
		return 0;
	if (!single && lwm_record_weights(r) != m->nfiles)
		return lwm_fail(e, LWM_EDATA, "%s: names %" PRId64 " files of weights, the model has %d", r->path,
				lwm_record_weights(r), m->nfiles);
	for (int i = 0; i < m->nfiles; i++) {
		const char *name = lwm_path_base(lwm_st_path(m->file[i])), *want = lwm_record_hash(r, name);
		if (!want || strcmp(want, lwm_st_identity(m->file[i]).hex))
			return lwm_fail(e, LWM_EDATA, "%s: %s is not the file it speaks of (damaged, stale or swapped)", r->path,
					name);
	}
	return 0;
}

static int check_data(struct lwm_model *m, struct lwm_err *e)
{
	for (int i = 0; i < m->nfiles; i++)
		LWM_TRY(lwm_st_check(m->file[i], e));
	return 0;
}

static int check_small(struct lwm_model *m, struct lwm_err *e)
{
	int64_t bytes = 0;
	for (int i = 0; i < m->nfiles; i++)
		for (int64_t k = 0; k < lwm_st_count(m->file[i]); k++)
			bytes += lwm_st_tensor(m->file[i], k)->end - lwm_st_tensor(m->file[i], k)->begin;
	int rc = bytes <= SMALL ? check_data(m, e) : 0;
	if (rc != -LWM_ENO)
		return rc;
	lwm_err_clear(e);
	return 0;
}

int lwm_model_open(struct lwm_model **out, const char *dir, struct lwm_err *e)
{
	bool single = lwm_path_has_suffix(dir, ".safetensors");
	int rc;
	struct lwm_model *m = calloc(1, sizeof *m);
	*out = NULL;
	if (!m)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", dir);
	m->held_tensor = -1;
	m->dir = single ? lwm_path_dir(dir) : strdup(dir);
	if (!m->dir) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory", dir);
		goto out;
	}
	if (!lwm_path_exists(dir)) {
		rc = lwm_fail(e, LWM_ENOINPUT, "%s: there is no such model", dir);
		goto out;
	}
	LWM_GO(lwm_record_read(&m->record, m->dir, e));
	LWM_GO(read_config(m, e));
	LWM_GO(single ? open_file(m, lwm_path_base(dir), e) : open_files(m, e));
	LWM_GO(check_weights(m, single, e));
	LWM_GO(list_tensors(m, e));
	LWM_GO(check_small(m, e));
	*out = m;
	return 0;
out:
	lwm_model_close(m);
	return rc;
}

const json_t *lwm_model_config(const struct lwm_model *m)
{
	return m->config;
}

const char *lwm_model_kind(const struct lwm_model *m)
{
	return m->vqgan ? "vqgan" : "lwm";
}

const char *lwm_model_tokenizer(const struct lwm_model *m)
{
	return m->tokenizer;
}

const char *lwm_model_tokenizer_hash(const struct lwm_model *m)
{
	return m->record.tokenizer ? m->record.tokenizer : "";
}

const char *lwm_model_manifest(const struct lwm_model *m)
{
	return m->record.record ? m->record.path : NULL;
}

int64_t lwm_model_count(const struct lwm_model *m)
{
	return m->ntensor;
}

const struct lwm_ckpt_tensor *lwm_model_tensor(const struct lwm_model *m, int64_t i)
{
	return &m->tensor[i];
}

int64_t lwm_model_find(const struct lwm_model *m, const char *name)
{
	for (int64_t i = 0; i < m->ntensor; i++)
		if (!strcmp(m->tensor[i].name, name))
			return i;
	return -1;
}

/* ---- values ---- */

/* Room for n values in `held` and as many from the disk behind them. */
static int reserve(struct lwm_model *m, int64_t n, struct lwm_err *e)
{
	m->held_tensor = -1;
	if (n <= m->held_cap)
		return 0;
	free(m->held);
	m->held_cap = 0;
	m->held = malloc((size_t)n * 2 * sizeof *m->held);
	if (!m->held)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", m->dir);
	m->held_cap = n;
	return 0;
}

/* Puts `n` values of tensor i from `first` into held, in memory layout: a convolution, or one head. */
static int hold(struct lwm_model *m, int64_t i, int64_t first, int64_t n, struct lwm_err *e)
{
	const struct entry *x = &m->entry[i];
	if (m->held_tensor == i && m->held_first == first)
		return 0;
	LWM_TRY(reserve(m, n, e));
	float *disk = m->held + m->held_cap;
	LWM_TRY(lwm_st_read(x->file, x->index, first, n, disk, e));
	if (x->how == LWM_CONV) {
		lwm_conv_to_memory(disk, m->tensor[i].shape, m->held);
	} else {
		int64_t cols = m->tensor[i].shape[1];
		for (int64_t r = 0; r < x->head; r++)
			memcpy(m->held + r * cols, disk + lwm_model_qk_row(r, x->head) * cols,
			       (size_t)cols * sizeof *disk);
	}
	m->held_tensor = i;
	m->held_first = first;
	return 0;
}

int lwm_model_read(struct lwm_model *m, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	const struct entry *x = &m->entry[i];
	if (x->how == LWM_SAME)
		return lwm_st_read(x->file, x->index, offset, n, out, e);
	if (offset < 0 || n < 0 || offset > x->size - n)
		return lwm_fail(e, LWM_EDATA, "%s: values %" PRId64 " to %" PRId64 " of '%s', which has %" PRId64,
				m->dir, offset, offset + n, m->tensor[i].name, x->size);
	int64_t unit = x->how == LWM_CONV ? x->size : x->head * m->tensor[i].shape[1];
	while (n) {
		int64_t in = offset % unit, k = unit - in < n ? unit - in : n;
		LWM_TRY(hold(m, i, offset - in, unit, e));
		memcpy(out, m->held + in, (size_t)k * sizeof *out);
		offset += k;
		out += k;
		n -= k;
	}
	return 0;
}

static void shape_text(const struct lwm_ckpt_tensor *t, char *out, size_t size)
{
	size_t at = 0;
	out[0] = 0;
	for (int d = 0; d < t->ndim && at < size; d++)
		at += (size_t)snprintf(out + at, size - at, "%s%" PRId64, d ? " x " : "", t->shape[d]);
}

int lwm_model_read_named(struct lwm_model *m, const struct lwm_ckpt_tensor *want, int64_t offset, int64_t n,
			 float *out, struct lwm_err *e)
{
	char a[100], b[100];
	int64_t i = lwm_model_find(m, want->name);
	if (i < 0)
		return lwm_fail(e, LWM_ECONFIG, "%s: has no tensor '%s'", m->dir, want->name);
	const struct lwm_ckpt_tensor *have = &m->tensor[i];
	bool same = have->ndim == want->ndim;
	for (int d = 0; same && d < want->ndim; d++)
		same = have->shape[d] == want->shape[d];
	if (!same) {
		shape_text(have, a, sizeof a);
		shape_text(want, b, sizeof b);
		return lwm_fail(e, LWM_ECONFIG, "%s: '%s' is %s, the configuration needs %s", m->dir, want->name, a,
				b);
	}
	return lwm_model_read(m, i, offset, n, out, e);
}

int lwm_model_check(struct lwm_model *m, struct lwm_err *e)
{
	const char *name;
	json_t *v;
	LWM_TRY(check_data(m, e));
	json_object_foreach(m->record.files, name, v)
		if (!lwm_is_safetensors(name))
			LWM_TRY(lwm_record_check_file(&m->record, m->dir, name, e));
	return 0;
}
