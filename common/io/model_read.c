/* Opens a model and reads its tensors in memory layout: what all formats have in common, the configuration, the tokenizer, the
 * manifest, the order of rows and axes. How weights lie on disk is the format's (struct lwm_model_format). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/model_int.h"

#define CONFIG_LIMIT (16LL << 20)
#define SMALL (64LL << 20) /* files up to here are checked as a whole when opened */

struct entry {
	int64_t index, head; /* index: among the tensors of the format */
	enum lwm_change how;
};

struct lwm_model {
	char *dir, *tokenizer;
	struct lwm_model_record record;
	json_t *config;
	const struct lwm_model_kind *kind;
	const struct lwm_model_format *format;
	void *weights; /* the format's */
	struct lwm_tensors tensors; /* memory layout */
	struct entry *entry;        /* of each: where it lies */
	/* the last head of q/k rows or the last convolution, in memory layout */
	float *held;
	int64_t held_cap, held_tensor, held_first;
};

void lwm_model_close(struct lwm_model *m)
{
	if (!m)
		return;
	if (m->weights)
		m->format->close(m->weights);
	json_decref(m->config);
	lwm_tensors_release(&m->tensors);
	free(m->entry);
	free(m->held);
	free(m->tokenizer);
	lwm_record_release(&m->record);
	free(m->dir);
	free(m);
}

/* ---- opening ---- */

static int add_tensor(struct lwm_model *m, int64_t k, struct lwm_err *e)
{
	const struct lwm_st_tensor *t = m->format->tensor(m->weights, k);
	struct entry *x = &m->entry[m->tensors.n];
	/* old files carry it; it follows from the configuration */
	if (lwm_path_has_suffix(t->name, "rotary_emb.inv_freq"))
		return 0;
	if (t->ndim > LWM_TENSOR_DIMS || t->size < 1)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' is of no shape that is used here", m->dir, t->name);
	*x = (struct entry){ k, 0, LWM_SAME };
	if (!m->format->as_in_memory)
		LWM_TRY(lwm_change_of(t->name, t->ndim, t->shape, m->kind, m->config, &x->how, &x->head, m->dir, e));
	struct lwm_tensor c = { .name = t->name, .ndim = t->ndim };
	for (int d = 0; d < t->ndim; d++)
		c.shape[d] = t->shape[x->how == LWM_CONV ? (d + 2) % 4 : d];
	if (x->how == LWM_CONV) { /* O I H W -> H W I O */
		c.shape[2] = t->shape[1];
		c.shape[3] = t->shape[0];
	}
	int rc = lwm_tensors_add(&m->tensors, &c, NULL);
	if (rc == -LWM_EMEMORY)
		return lwm_fail_memory(e, m->dir);
	return rc < 0 ? lwm_fail(e, LWM_EDATA, "%s: '%.80s' is of no shape that is used here", m->dir, t->name) : 0;
}

static int list_tensors(struct lwm_model *m, struct lwm_err *e)
{
	int64_t n = m->format->count(m->weights);
	m->entry = calloc((size_t)n + 1, sizeof *m->entry);
	if (!m->entry)
		return lwm_fail_memory(e, m->dir);
	for (int64_t k = 0; k < n; k++)
		LWM_TRY(add_tensor(m, k, e));
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
	int there = 0, plain = 0, rc = model && text ? 0 : lwm_fail_memory(e, m->dir);
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
		rc = lwm_fail_memory(e, m->dir);
	}
	free(model);
	free(text);
	return rc < 0 ? rc : 0;
}

static int read_config(struct lwm_model *m, const struct lwm_model_place *from, struct lwm_err *e)
{
	LWM_TRY(m->format->config ? m->format->config(from, &m->config, e)
				  : lwm_record_json(&m->record, m->dir, LWM_MODEL_CONFIG, CONFIG_LIMIT, &m->config, e));
	if (!json_is_object(m->config))
		return lwm_fail(e, LWM_EDATA, "%s/%s: must be an object", m->dir, LWM_MODEL_CONFIG);
	m->kind = lwm_model_kind_of(m->config);
	return find_tokenizer(m, e);
}

static int check_small(struct lwm_model *m, struct lwm_err *e)
{
	int64_t bytes = 0;
	for (int64_t k = 0; k < m->format->count(m->weights); k++)
		bytes += m->format->tensor(m->weights, k)->end - m->format->tensor(m->weights, k)->begin;
	int rc = bytes <= SMALL ? m->format->check(m->weights, e) : 0;
	if (rc != -LWM_ENO)
		return rc;
	lwm_err_clear(e);
	return 0;
}

int lwm_model_open(struct lwm_model **out, const char *dir, struct lwm_err *e)
{
	const struct lwm_model_format *format = lwm_model_format_of(dir);
	bool single = lwm_model_is_file(format, dir);
	struct lwm_model_place from;
	int rc;
	struct lwm_model *m = calloc(1, sizeof *m);
	*out = NULL;
	if (!m)
		return lwm_fail_memory(e, dir);
	m->held_tensor = -1;
	m->format = format;
	m->dir = single ? lwm_path_dir(dir) : strdup(dir);
	if (!m->dir) {
		rc = lwm_fail_memory(e, dir);
		goto out;
	}
	if (!lwm_path_exists(dir)) {
		rc = lwm_fail(e, LWM_ENOINPUT, "%s: there is no such model", dir);
		goto out;
	}
	LWM_GO(lwm_record_read(&m->record, m->dir, e));
	from = (struct lwm_model_place){ m->dir, single ? lwm_path_base(dir) : NULL, &m->record };
	LWM_GO(read_config(m, &from, e));
	LWM_GO(format->open(&m->weights, &from, e));
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

const struct lwm_model_kind *lwm_model_get_kind(const struct lwm_model *m)
{
	return m->kind;
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
	return m->tensors.n;
}

enum lwm_st_dtype lwm_model_dtype(const struct lwm_model *m)
{
	enum lwm_st_dtype t = LWM_ST_OTHER;
	for (int64_t i = 0; i < m->tensors.n; i++) {
		enum lwm_st_dtype have = m->format->tensor(m->weights, m->entry[i].index)->dtype;
		if (i && have != t)
			return LWM_ST_OTHER;
		t = have;
	}
	return t;
}

const struct lwm_tensor *lwm_model_tensor(const struct lwm_model *m, int64_t i)
{
	return &m->tensors.list[i];
}

int64_t lwm_model_find(const struct lwm_model *m, const char *name)
{
	const struct lwm_tensor *t = lwm_tensors_find(&m->tensors, name);
	return t ? t - m->tensors.list : -1;
}

/* ---- values ---- */

/* Room for n values in `held` and for as many from the disk after them. */
static int reserve_held(struct lwm_model *m, int64_t n, struct lwm_err *e)
{
	m->held_tensor = -1;
	if (n <= m->held_cap)
		return 0;
	free(m->held);
	m->held_cap = 0;
	m->held = malloc((size_t)n * 2 * sizeof *m->held);
	if (!m->held)
		return lwm_fail_memory(e, m->dir);
	m->held_cap = n;
	return 0;
}

/* Puts `n` values of tensor i from `first` into held, in memory layout: a convolution, or one head. */
static int hold_piece(struct lwm_model *m, int64_t i, int64_t first, int64_t n, struct lwm_err *e)
{
	const struct entry *x = &m->entry[i];
	if (m->held_tensor == i && m->held_first == first)
		return 0;
	LWM_TRY(reserve_held(m, n, e));
	float *disk = m->held + m->held_cap;
	LWM_TRY(m->format->read(m->weights, x->index, first, n, disk, e));
	if (x->how == LWM_CONV) {
		lwm_conv_to_memory(disk, m->tensors.list[i].shape, m->held);
	} else {
		int64_t cols = m->tensors.list[i].shape[1];
		for (int64_t r = 0; r < x->head; r++)
			memcpy(m->held + r * cols, disk + lwm_rope_row(r, x->head) * cols,
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
		return m->format->read(m->weights, x->index, offset, n, out, e);
	if (offset < 0 || n < 0 || offset > m->tensors.list[i].count - n)
		return lwm_fail(e, LWM_EDATA, "%s: values %" PRId64 " to %" PRId64 " of '%s', which has %" PRId64,
				m->dir, offset, offset + n, m->tensors.list[i].name, m->tensors.list[i].count);
	int64_t unit = x->how == LWM_CONV ? m->tensors.list[i].count : x->head * m->tensors.list[i].shape[1];
	while (n) {
		int64_t in = offset % unit, k = unit - in < n ? unit - in : n;
		LWM_TRY(hold_piece(m, i, offset - in, unit, e));
		memcpy(out, m->held + in, (size_t)k * sizeof *out);
		offset += k;
		out += k;
		n -= k;
	}
	return 0;
}

static void shape_text(const struct lwm_tensor *t, char *out, size_t size)
{
	size_t at = 0;
	out[0] = 0;
	for (int d = 0; d < t->ndim && at < size; d++)
		at += (size_t)snprintf(out + at, size - at, "%s%" PRId64, d ? " x " : "", t->shape[d]);
}

int lwm_model_read_named(struct lwm_model *m, const struct lwm_tensor *want, int64_t offset, int64_t n,
			 float *out, struct lwm_err *e)
{
	char a[100], b[100];
	int64_t i = lwm_model_find(m, want->name);
	if (i < 0)
		return lwm_fail(e, LWM_ECONFIG, "%s: has no tensor '%s'", m->dir, want->name);
	const struct lwm_tensor *have = &m->tensors.list[i];
	if (!lwm_tensor_same_shape(have, want)) {
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
	LWM_TRY(m->format->check(m->weights, e));
	json_object_foreach(m->record.files, name, v)
		if (!lwm_model_is_weights(name))
			LWM_TRY(lwm_record_check_file(&m->record, m->dir, name, e));
	return 0;
}
