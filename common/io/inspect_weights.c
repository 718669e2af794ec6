/* What checkpoints, models and the files of both say of themselves, and whether they are intact. */
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/ckpt_int.h"
#include "common/io/inspect_int.h"
#include "common/io/model_int.h"
#include "common/io/seal.h"

enum { PIECE = 1 << 16 }; /* values read at a time */

static json_t *shape_json(int ndim, const int64_t *shape)
{
	json_t *s = json_array();
	for (int d = 0; d < ndim; d++)
		if (json_array_append_new(s, json_integer(shape[d]))) {
			json_decref(s);
			return NULL;
		}
	return s;
}

/* ---- checkpoints ---- */

/* Those that were never finished, too: they are what --check is asked about. */
static bool is_ckpt(const char *path)
{
	return lwm_folder_has(path, LWM_CKPT_RECORD) || !strncmp(lwm_path_base(path), "step_", 5);
}

static int describe_ckpt(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e)
{
	struct lwm_ckpt *c;
	json_t *list = json_object();
	int64_t values = 0;
	int rc = lwm_ckpt_open(&c, path, e);
	if (rc < 0) {
		json_decref(list);
		return rc;
	}
	const struct lwm_ckpt_meta *m = lwm_ckpt_get_meta(c);
	for (int64_t i = 0; i < lwm_ckpt_count(c); i++) {
		const struct lwm_tensor *t = lwm_ckpt_tensor(c, i);
		values += lwm_ckpt_size(c, i);
		lwm_put(list, t->name, shape_json(t->ndim, t->shape), failed);
	}
	lwm_put(o, "of", json_string(m->kind), failed);
	lwm_put(o, "step", json_integer(m->step), failed);
	lwm_put(o, "mesh", json_string(m->mesh), failed);
	lwm_put(o, "ranks", json_integer(m->ranks), failed);
	lwm_put(o, "groups", lwm_ckpt_groups_json(m->groups, failed), failed);
	lwm_put(o, "tensors", json_integer(lwm_ckpt_count(c)), failed);
	lwm_put(o, "values", json_integer(values), failed);
	lwm_put(o, "tokenizer", json_string(m->tokenizer), failed);
	lwm_put(o, "tokenizer_path", json_string(m->tokenizer_path), failed);
	lwm_put(o, "config", lwm_json_copy(m->config), failed);
	lwm_put(o, "state", lwm_json_copy(m->state), failed);
	if (tensors)
		lwm_put(o, "shapes", json_incref(list), failed);
	json_decref(list);
	lwm_ckpt_close(c);
	return 0;
}

static int check_ckpt(const char *path, struct lwm_err *e)
{
	struct lwm_ckpt *c;
	LWM_TRY(lwm_ckpt_verify(path, LWM_CKPT_FULL, e));
	LWM_TRY(lwm_ckpt_open(&c, path, e));
	int rc = lwm_ckpt_covers(c, e);
	lwm_ckpt_close(c);
	return rc;
}

const struct lwm_thing_ops lwm_thing_ckpt = {
	.name = "checkpoint",
	.is_folder = is_ckpt,
	.describe = describe_ckpt,
	.check = check_ckpt,
};

/* ---- parts of them ---- */

static int describe_part(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e)
{
	(void)tensors;
	struct lwm_vfr *r;
	LWM_TRY(lwm_vfr_open(&r, path, lwm_ckpt_part_schema, lwm_part_layout, LWM_PART_VECS, e));
	lwm_put(o, "slices", json_integer(lwm_vfr_vec(r, LWM_PART_SLICES)->n / LWM_SLICE_COLS), failed);
	for (int g = 0; g < LWM_CKPT_GROUPS; g++)
		if (LWM_PART_FIRST(g) || lwm_vfr_vec(r, LWM_PART_VEC(g))->n)
			lwm_put(o, lwm_ckpt_group_names[g], json_integer(lwm_vfr_vec(r, LWM_PART_VEC(g))->n), failed);
	lwm_vfr_close(r);
	return 0;
}

static int check_part(const char *path, struct lwm_err *e)
{
	struct lwm_vfr *r;
	LWM_TRY(lwm_vfr_open(&r, path, lwm_ckpt_part_schema, lwm_part_layout, LWM_PART_VECS, e));
	char *buf = malloc(PIECE * 8);
	int rc = buf ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	for (int v = 0; rc == 0 && v < LWM_PART_VECS; v++) {
		int64_t n = lwm_vfr_vec(r, v)->n;
		for (int64_t i = 0; rc == 0 && i < n; i += PIECE)
			rc = lwm_vfr_read(r, v, i, n - i < PIECE ? n - i : PIECE, buf, e);
	}
	free(buf);
	lwm_vfr_close(r);
	return rc;
}

static const char *const part_schemas[] = { lwm_ckpt_part_schema, NULL };
const struct lwm_thing_ops lwm_thing_part = {
	.name = "checkpoint part",
	.schemas = part_schemas,
	.describe = describe_part,
	.check = check_part,
};

/* ---- models ---- */

static int describe_model(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e)
{
	struct lwm_model *m;
	json_t *list = json_object();
	int64_t values = 0;
	int rc = lwm_model_open(&m, path, e);
	if (rc < 0) {
		json_decref(list);
		return rc;
	}
	const char *tok = lwm_model_tokenizer(m);
	for (int64_t i = 0; i < lwm_model_count(m); i++) {
		const struct lwm_tensor *t = lwm_model_tensor(m, i);
		values += t->count;
		lwm_put(list, t->name, shape_json(t->ndim, t->shape), failed);
	}
	lwm_put(o, "of", json_string(lwm_model_get_kind(m)->name), failed);
	lwm_put(o, "tensors", json_integer(lwm_model_count(m)), failed);
	lwm_put(o, "values", json_integer(values), failed);
	lwm_put(o, "tokenizer",
		json_string(!tok                   ? ""
			    : lwm_path_is_dir(tok) ? "tokenizer.txt"
						   : "tokenizer.model"),
		failed);
	lwm_put(o, "tokenizer_hash", json_string(lwm_model_tokenizer_hash(m)), failed);
	lwm_put(o, "manifest", json_boolean(lwm_model_manifest(m)), failed);
	lwm_put(o, "config", lwm_json_copy(lwm_model_config(m)), failed);
	if (tensors)
		lwm_put(o, "shapes", json_incref(list), failed);
	json_decref(list);
	lwm_model_close(m);
	return 0;
}

static int check_model(const char *path, struct lwm_err *e)
{
	struct lwm_model *m;
	LWM_TRY(lwm_model_open(&m, path, e));
	int rc = lwm_model_check(m, e);
	lwm_model_close(m);
	return rc;
}

static bool named_model(const char *path)
{
	return lwm_model_is_weights(path) || lwm_model_lies_in(path);
}

const struct lwm_thing_ops lwm_thing_model = {
	.name = "model",
	.is_folder = lwm_model_lies_in,
	.is_named = named_model, /* but what is a thing by itself: inspect.c's order */
	.describe = describe_model,
	.check = check_model,
};

/* ---- files of weights ---- */

static bool named_st(const char *path)
{
	return lwm_path_has_suffix(path, ".safetensors");
}

static int describe_st(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e)
{
	struct lwm_st *s;
	json_t *list = json_object();
	int64_t values = 0;
	int rc = lwm_st_open(&s, path, e);
	if (rc < 0) {
		json_decref(list);
		return rc;
	}
	for (int64_t i = 0; i < lwm_st_count(s); i++) {
		const struct lwm_st_tensor *t = lwm_st_get_tensor(s, i);
		json_t *x = shape_json(t->ndim, t->shape);
		values += t->size;
		if (json_array_insert_new(x, 0, json_string(lwm_st_dtype_name(t->dtype))))
			*failed = true;
		lwm_put(list, t->name, x, failed);
	}
	lwm_put(o, "tensors", json_integer(lwm_st_count(s)), failed);
	lwm_put(o, "values", json_integer(values), failed);
	lwm_put(o, "bytes", json_integer(lwm_st_bytes(s)), failed);
	lwm_put(o, "checksums", json_boolean(lwm_st_meta(s, "xxh3_256k")), failed);
	if (tensors)
		lwm_put(o, "shapes", json_incref(list), failed);
	json_decref(list);
	lwm_st_close(s);
	return 0;
}

static int check_st(const char *path, struct lwm_err *e)
{
	struct lwm_st *s;
	LWM_TRY(lwm_st_open(&s, path, e));
	int rc = lwm_st_check(s, e);
	lwm_st_close(s);
	return rc;
}

const struct lwm_thing_ops lwm_thing_st = {
	.name = "safetensors file",
	.is_named = named_st,
	.describe = describe_st,
	.check = check_st,
};
