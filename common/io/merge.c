/* merge.c - what is made of a whole checkpoint: a model folder, or the same checkpoint for another number of ranks; and comparing
 * either with where it came from. */
#include "common/io/merge.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/base/stop.h"
#include "common/base/str.h"
#include "common/io/fold.h"
#include "common/io/model_int.h"
#include "common/tensor/adapter.h"

enum { PIECE = 1 << 18 }; /* values compared at a time */

struct source {
	struct lwm_fold fold;
	enum lwm_ckpt_group group;
	int64_t tensor, bytes; /* bytes so far, over all tensors */
	struct lwm_progress *p;
};

/* Asked to stop: a merge takes minutes and is not resumed, so nothing of it is kept. */
static int check_stop(struct lwm_err *e)
{
	if (lwm_stop_wanted() < LWM_STOP_END)
		return 0;
	return lwm_fail(e, LWM_ESAVED, "stopped (%s), nothing is kept: run me again", lwm_stop_reason());
}

static int give_values(void *ctx, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	struct source *s = ctx;
	LWM_TRY(check_stop(e));
	LWM_TRY(lwm_fold_read(&s->fold, s->group, s->tensor, offset, n, out, e));
	s->bytes += n * 4;
	if (s->p)
		lwm_progress_at(s->p, s->bytes);
	return 0;
}

/* Adapters are part of a model only when they are folded into its weights. */
static int open_fold(struct lwm_fold *f, struct lwm_ckpt *c, bool fold, struct lwm_err *e)
{
	LWM_TRY(lwm_fold_open(f, c, e));
	if (f->any == fold)
		return 0;
	return lwm_fail(e, LWM_ECONFIG, fold ? "%s: holds no adapters to fold" :
					       "%s: holds adapters: they become part of the weights with --fold-lora", lwm_ckpt_path(c));
}

/* Is a tensor of the checkpoint one of the model? */
static bool in_model(const struct lwm_tensor *t)
{
	return !lwm_adapter_is_name(t->name) && !lwm_tensor_is_beside(t->name);
}

static int list_tensors(struct lwm_tensors *out, const struct lwm_ckpt *c, struct lwm_err *e)
{
	*out = (struct lwm_tensors){ .align = 0 };
	for (int64_t i = 0; i < lwm_ckpt_count(c); i++)
		if (in_model(lwm_ckpt_tensor(c, i)))
			LWM_TRY(lwm_tensors_add(out, lwm_ckpt_tensor(c, i), e));
	return 0;
}

int lwm_merge_size(const struct lwm_ckpt *c, int64_t *tensors, int64_t *values, struct lwm_err *e)
{
	struct lwm_tensors t;
	int rc = list_tensors(&t, c, e);

	*tensors = t.n;
	*values = t.total;
	lwm_tensors_release(&t);
	return rc;
}

/* The configuration, speaking of the type that is written. */
static int config_of(json_t **out, const json_t *config, enum lwm_st_dtype dtype, struct lwm_err *e)
{
	if (!json_is_object(config))
		return lwm_fail(e, LWM_EDATA, "the record of the checkpoint has no 'model' in its configuration");
	*out = lwm_json_copy(config);
	json_t *type = json_string(dtype == LWM_ST_BF16 ? "bfloat16" : "float32");
	if (!*out || !type || (json_object_get(*out, "torch_dtype") && json_object_set(*out, "torch_dtype", type))) {
		json_decref(type);
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the configuration");
	}
	json_decref(type);
	return 0;
}

/* What a model is made of, as its manifest says it: the record of the checkpoint, which names every byte of it, and the rest. */
static int source_of(const struct lwm_ckpt *c, enum lwm_ckpt_group group, bool fold, const struct lwm_model_spec *s,
		     struct lwm_str *out, struct lwm_err *e)
{
	struct lwm_hash h;
	char *record = lwm_path_join(lwm_ckpt_path(c), "COMMIT.json");
	int rc = record ? lwm_hash_file(record, &h, NULL, e) : lwm_fail_memory(e, NULL);

	free(record);
	LWM_TRY(rc);
	lwm_str_printf(out, "checkpoint %s, %s, files of %" PRId64 " bytes, %s tokenizer %s", h.hex, lwm_st_dtype_name(s->dtype),
		       s->max_file_bytes, s->extra ? "with" : "without", s->tokenizer);
	if (group != LWM_CKPT_PARAMS)
		lwm_str_printf(out, ", %s", lwm_ckpt_group_names[group]);
	if (fold)
		lwm_str_puts(out, ", adapters folded");
	return lwm_str_ok(out, e);
}

/* 1: the folder is this model, every byte of it verified; 0: it is to be made (*replace: in the place of a damaged one). Anything
 * else of that name is left to lwm_model_create, which refuses it. */
static int find_done(const char *dir, const char *source, bool *replace, struct lwm_err *e)
{
	struct lwm_model_record r = { 0 };
	struct lwm_model *m = NULL;
	struct lwm_err why = { 0 };
	const char *of = NULL;
	int rc = lwm_path_there(dir, e);

	if (rc <= 0)
		return rc;
	rc = lwm_record_read(&r, dir, &why);
	if (rc == 0 && r.record)
		of = json_string_value(json_object_get(r.record, "source"));
	bool same = of && !strcmp(of, source);
	bool damaged = rc == -LWM_EDATA && lwm_record_is_ours(dir);
	lwm_record_release(&r);
	if (rc == 0 && same) {
		rc = lwm_model_open(&m, dir, &why);
		if (rc == 0)
			rc = lwm_model_check(m, &why);
		lwm_model_close(m);
		if (rc == 0)
			return 1;
		damaged = rc == -LWM_EDATA || rc == -LWM_ENOINPUT;
	}
	if (damaged) {
		lwm_log(LWM_WARN, "%s; it is made again", why.msg);
		*replace = true;
		return 0;
	}
	if (rc >= 0 || rc == -LWM_EDATA)
		return 0;
	if (e && !e->code)
		*e = why;
	return rc;
}

int lwm_merge_model(struct lwm_ckpt *c, enum lwm_ckpt_group group, bool fold, const char *dir, const struct lwm_model_spec *spec,
		    bool force, struct lwm_progress *p, struct lwm_err *e)
{
	const struct lwm_ckpt_meta *meta = lwm_ckpt_get_meta(c);
	struct lwm_model_spec s = *spec;
	struct lwm_str source = { 0 };
	json_t *config = NULL;
	struct lwm_model_writer *w = NULL;
	struct source from = { .group = group, .p = p };
	struct lwm_tensors t = { 0 };
	int rc = 0;
	s.kind = s.kind ? s.kind : meta->kind;
	s.config = s.config ? s.config : json_object_get(meta->config, "model");
	s.tokenizer = s.tokenizer ? s.tokenizer : meta->tokenizer;
	LWM_GO(lwm_ckpt_holds(c, group, e));
	LWM_GO(open_fold(&from.fold, c, fold, e));
	LWM_GO(source_of(c, group, fold, &s, &source, e));
	s.source = source.s;
	if (!force)
		LWM_GO(find_done(dir, s.source, &force, e));
	if (rc == 1)
		goto out;
	LWM_GO(config_of(&config, s.config, s.dtype, e));
	s.config = config;
	LWM_GO(lwm_ckpt_covers(c, e));
	LWM_GO(list_tensors(&t, c, e));
	LWM_GO(lwm_model_create(&w, dir, &s, &t, force, e));
	for (from.tensor = 0; from.tensor < lwm_ckpt_count(c); from.tensor++)
		if (in_model(lwm_ckpt_tensor(c, from.tensor)))
			LWM_GO(lwm_model_add_from(w, give_values, &from, e));
	rc = lwm_model_commit(w, e);
	w = NULL;
out:
	lwm_model_discard(w);
	lwm_fold_close(&from.fold);
	lwm_tensors_release(&t);
	json_decref(config);
	lwm_str_release(&source);
	return rc;
}

/* ---- comparing ---- */

struct pair {
	float *a, *b;
};

static int pair_new(struct pair *v, struct lwm_err *e)
{
	v->a = malloc(PIECE * sizeof *v->a);
	v->b = malloc(PIECE * sizeof *v->b);
	return v->a && v->b ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for comparing");
}

static void pair_free(struct pair *v)
{
	free(v->a);
	free(v->b);
}

/* Bits, so that NaN equals itself and -0 is not 0. */
static int compare_values(const struct pair *v, int64_t n, int64_t first, const char *name, struct lwm_err *e)
{
	if (!memcmp(v->a, v->b, (size_t)n * sizeof *v->a))
		return 0;
	int64_t i = 0;
	while (!memcmp(&v->a[i], &v->b[i], sizeof *v->a))
		i++;
	return lwm_fail(e, LWM_ENO, "'%s' differs at value %" PRId64 ": %.9g, expected %.9g", name, first + i,
			(double)v->b[i], (double)v->a[i]);
}

static int compare_model(struct lwm_fold *f, enum lwm_ckpt_group group, struct lwm_model *m, enum lwm_st_dtype dtype,
			 struct pair *v, struct lwm_progress *p, struct lwm_err *e)
{
	struct lwm_ckpt *c = f->c;
	int64_t bytes = 0, tensors = 0;
	for (int64_t i = 0; i < lwm_ckpt_count(c); i++)
		tensors += in_model(lwm_ckpt_tensor(c, i));
	if (lwm_model_count(m) != tensors)
		return lwm_fail(e, LWM_ENO, "the model has %" PRId64 " tensors, the checkpoint %" PRId64, lwm_model_count(m), tensors);
	for (int64_t i = 0; i < lwm_ckpt_count(c); i++) {
		const struct lwm_tensor *t = lwm_ckpt_tensor(c, i);
		if (!in_model(t))
			continue;
		int64_t k = lwm_model_find(m, t->name), size = lwm_ckpt_size(c, i);
		if (k < 0 || !lwm_tensor_same_shape(t, lwm_model_tensor(m, k)))
			return lwm_fail(e, LWM_ENO, "'%s' is not in the model, or of another shape", t->name);
		for (int64_t at = 0; at < size; at += PIECE) {
			int64_t n = size - at < PIECE ? size - at : PIECE;
			LWM_TRY(check_stop(e));
			LWM_TRY(lwm_fold_read(f, group, i, at, n, v->a, e));
			LWM_TRY(lwm_model_read(m, k, at, n, v->b, e));
			lwm_st_round(dtype, v->a, n);
			LWM_TRY(compare_values(v, n, at, t->name, e));
			bytes += n * 4;
			if (p)
				lwm_progress_at(p, bytes);
		}
	}
	return 0;
}

int lwm_merge_verify_model(struct lwm_ckpt *c, enum lwm_ckpt_group group, bool fold, const char *dir, enum lwm_st_dtype dtype,
			   struct lwm_progress *p, struct lwm_err *e)
{
	struct lwm_model *m = NULL;
	struct pair v = { 0 };
	struct lwm_fold f = { .c = NULL };
	int rc;
	LWM_GO(open_fold(&f, c, fold, e));
	LWM_GO(pair_new(&v, e));
	LWM_GO(lwm_model_open(&m, dir, e));
	rc = compare_model(&f, group, m, dtype, &v, p, e);
out:
	lwm_fold_close(&f);
	lwm_model_close(m);
	pair_free(&v);
	return rc < 0 ? lwm_context(e, "%s", dir) : 0;
}

int lwm_merge_verify_ckpt(struct lwm_ckpt *a, struct lwm_ckpt *b, struct lwm_progress *p, struct lwm_err *e)
{
	struct pair v = { 0 };
	int64_t bytes = 0;
	int rc = pair_new(&v, e);
	for (int g = 0; rc == 0 && g < LWM_CKPT_GROUPS; g++) {
		for (int64_t i = 0; rc == 0 && (lwm_ckpt_get_meta(a)->groups >> g & 1) && i < lwm_ckpt_count(a); i++) {
			const char *name = lwm_ckpt_tensor(a, i)->name;
			int64_t k = lwm_ckpt_find(b, name), size = lwm_ckpt_size(a, i);
			if (k < 0 || !lwm_tensor_same_shape(lwm_ckpt_tensor(a, i), lwm_ckpt_tensor(b, k)))
				rc = lwm_fail(e, LWM_ENO, "'%s' is not in the other checkpoint, or of another shape",
					      name);
			for (int64_t at = 0; rc == 0 && at < size; at += PIECE) {
				int64_t n = size - at < PIECE ? size - at : PIECE;
				LWM_GO(lwm_ckpt_read(a, (enum lwm_ckpt_group)g, i, at, n, v.a, e));
				LWM_GO(lwm_ckpt_read(b, (enum lwm_ckpt_group)g, k, at, n, v.b, e));
				LWM_GO(compare_values(&v, n, at, name, e));
				bytes += n * 4;
				if (p)
					lwm_progress_at(p, bytes);
			}
		}
	}
out:
	pair_free(&v);
	return rc;
}

/* ---- another number of ranks ---- */

struct recut {
	struct lwm_ckpt *c;
	struct lwm_ckpt_slice *all, *slice; /* of all parts; those of the part that is being written */
	struct lwm_progress *p;
	int64_t bytes;
};

static int fill_slice(void *ctx, int group, int64_t slice, int64_t first, int64_t n, float *out, struct lwm_err *e)
{
	struct recut *x = ctx;
	LWM_TRY(check_stop(e));
	const struct lwm_ckpt_slice *s = &x->slice[slice];
	LWM_TRY(lwm_ckpt_read(x->c, (enum lwm_ckpt_group)group, s->tensor, s->offset + first, n, out, e));
	x->bytes += n * 4;
	if (x->p)
		lwm_progress_at(x->p, x->bytes);
	return 0;
}

/* Values first .. last-1 of all tensors end to end. */
static int64_t cut_values(const struct lwm_ckpt *c, int64_t first, int64_t last, struct lwm_ckpt_slice *out)
{
	int64_t n = 0, start = 0;
	for (int64_t i = 0; i < lwm_ckpt_count(c); i++) {
		int64_t end = start + lwm_ckpt_size(c, i);
		int64_t a = start > first ? start : first, b = end < last ? end : last;
		if (a < b)
			out[n++] = (struct lwm_ckpt_slice){ i, a - start, b - a, 1, b - a, { 0 } };
		start = end;
	}
	return n;
}

static int no_states(struct lwm_ckpt *c, struct lwm_err *e)
{
	for (int r = 0; r < lwm_ckpt_get_meta(c)->ranks; r++) {
		char *text;
		LWM_TRY(lwm_ckpt_state(c, r, &text, e));
		bool any = text != NULL;
		free(text);
		if (any)
			return lwm_fail(e, LWM_ECONFIG,
					"rank %d stored state of its own, which cannot be cut for other ranks", r);
	}
	return 0;
}

static int write_parts(struct recut *x, const char *dir, int ranks, struct lwm_ckpt_part *part, struct lwm_err *e)
{
	int64_t total = 0;
	for (int64_t i = 0; i < lwm_ckpt_count(x->c); i++)
		total += lwm_ckpt_size(x->c, i);
	int64_t share = (total + ranks - 1) / ranks;
	for (int r = 0; r < ranks; r++) {
		int64_t first = r * share, last = first + share < total ? first + share : total;
		struct lwm_ckpt_out o = { .dir = dir,
					  .rank = r,
					  .tensors = lwm_ckpt_tensors(x->c),
					  .slice = x->slice,
					  .nslice = cut_values(x->c, first, last, x->slice),
					  .groups = lwm_ckpt_get_meta(x->c)->groups,
					  .fill = fill_slice,
					  .ctx = x };
		LWM_TRY(lwm_ckpt_write_part(&o, &part[r], e));
		x->slice += o.nslice;
	}
	return 0;
}

/* 1: the same checkpoint in the same number of parts, for the same mesh. */
static int same_cut(struct lwm_ckpt *c, const char *dir, int ranks, const char *mesh, struct lwm_err *e)
{
	struct lwm_ckpt *there = NULL;
	struct lwm_err why = { 0 };
	int rc = lwm_ckpt_open(&there, dir, &why);

	if (rc == 0)
		rc = lwm_ckpt_get_meta(there)->ranks == ranks && !strcmp(lwm_ckpt_get_meta(there)->mesh, mesh) &&
				     lwm_ckpt_get_meta(there)->groups == lwm_ckpt_get_meta(c)->groups ?
			     lwm_merge_verify_ckpt(c, there, NULL, &why) :
			     lwm_fail(&why, LWM_ENO, "%s: for other ranks", dir);
	lwm_ckpt_close(there);
	if (rc == 0)
		return 1;
	return lwm_fail(e, rc == -LWM_EMEMORY ? LWM_EMEMORY : LWM_ECANTCREATE, "%s: exists (use --force to replace it): %s", dir, why.msg);
}

/* 1: it is there. A folder without a record was never finished and may go; the one that is being read may not. */
static int check_target(struct lwm_ckpt *c, const char *dir, int ranks, const char *mesh, bool force, struct lwm_err *e)
{
	if (!lwm_path_exists(dir))
		return 0;
	char *from = realpath(lwm_ckpt_path(c), NULL), *to = realpath(dir, NULL),
	     *record = lwm_path_join(dir, "COMMIT.json");
	int rc = 0;
	if (!from || !to || !record)
		rc = lwm_fail(e, LWM_EMEMORY, "%s: cannot be compared with the input", dir);
	else if (!strcmp(from, to))
		rc = lwm_fail(e, LWM_ECANTCREATE, "%s: is the checkpoint that is being read", dir);
	else if (!force && lwm_path_exists(record))
		rc = same_cut(c, dir, ranks, mesh, e);
	free(from);
	free(to);
	free(record);
	return rc ? rc : lwm_remove_tree(dir, e);
}

int lwm_merge_recut(struct lwm_ckpt *c, const char *root, int ranks, const char *mesh, bool force,
		    struct lwm_progress *p, struct lwm_err *e)
{
	struct lwm_ckpt_meta meta = *lwm_ckpt_get_meta(c);
	struct lwm_ckpt_part *part = calloc((size_t)ranks, sizeof *part);
	char *dir = lwm_ckpt_dir(root, meta.step);
	/* each border between two parts adds a slice at the most */
	struct recut x = { .c = c, .all = calloc((size_t)(lwm_ckpt_count(c) + ranks), sizeof *x.all), .p = p };
	int rc = part && dir && x.all ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for the table of tensors");
	if (rc < 0)
		goto out;
	x.slice = x.all;
	LWM_GO(lwm_ckpt_covers(c, e));
	LWM_GO(no_states(c, e));
	LWM_GO(check_target(c, dir, ranks, mesh, force, e));
	if (rc == 1)
		goto out;
	LWM_GO(write_parts(&x, dir, ranks, part, e));
	meta.ranks = ranks;
	meta.mesh = mesh;
	rc = lwm_ckpt_commit(dir, &meta, lwm_ckpt_tensors(c), part, ranks, x.all, e);
out:
	free(part);
	free(dir);
	free(x.all);
	return rc;
}
