/* ckpt_read.c - an open checkpoint: the record, which slices lie where, and values from whatever parts hold them.
 *
 * The record tells the slices of every part, so a part is opened when it is first read from. Slices are sorted by tensor and
 * offset; a range of a tensor is gathered from those that meet it.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/ckpt_int.h"
#include "common/io/seal.h"

enum { OPEN_MAX = 64, STATE_LIMIT = 64 << 20 };

struct part {
	char *path;
	const char *hash;  /* the record's */
	int64_t bytes, values;
	uint64_t table;    /* XXH3-64 of its rows of `slices`, once these are known */
	bool has_table, known; /* known: it was open, and is what the record says */
	struct lwm_vfr *r; /* NULL: not open now */
};

struct slice {
	struct lwm_ckpt_slice s;
	int64_t first; /* index of its first value in the group's vector */
	int part;
};

struct lwm_ckpt {
	char *dir;
	json_t *record;
	struct lwm_ckpt_meta meta;
	bool told; /* the record says which slices lie in which part */
	struct lwm_tensors tensors;
	int64_t *first_slice; /* per tensor, and one more */
	struct part *part;
	int nparts, nopen, victim;
	struct slice *slice; /* by tensor, then offset */
	int64_t nslice;
};

void lwm_ckpt_close(struct lwm_ckpt *c)
{
	if (!c)
		return;
	for (int i = 0; i < c->nparts; i++) {
		lwm_vfr_close(c->part[i].r);
		free(c->part[i].path);
	}
	json_decref(c->record);
	free(c->part);
	lwm_tensors_release(&c->tensors);
	free(c->first_slice);
	free(c->slice);
	free(c->dir);
	free(c);
}

/* ---- the record ---- */

static int read_groups(struct lwm_ckpt *c, struct lwm_err *e)
{
	json_t *list, *v;
	size_t i;
	LWM_TRY(lwm_json_get(c->record, "groups", JSON_ARRAY, &list, c->dir, e));
	json_array_foreach(list, i, v)
		for (int g = 0; g < LWM_CKPT_GROUPS; g++)
			if (json_is_string(v) && !strcmp(json_string_value(v), lwm_ckpt_group_names[g]))
				c->meta.groups |= 1u << g;
	/* without values nothing in the files holds the sizes of tensors in check */
	if (!c->meta.groups)
		return lwm_fail(e, LWM_EDATA, "%s: its record names no group of values that is known here", c->dir);
	return 0;
}

static int read_meta(struct lwm_ckpt *c, struct lwm_err *e)
{
	json_t *v;
	int64_t ranks;
	LWM_TRY(lwm_json_str(c->record, "kind", &c->meta.kind, c->dir, e));
	LWM_TRY(lwm_json_int(c->record, "step", &c->meta.step, c->dir, e));
	LWM_TRY(lwm_json_str(c->record, "mesh", &c->meta.mesh, c->dir, e));
	LWM_TRY(lwm_json_int(c->record, "ranks", &ranks, c->dir, e));
	LWM_TRY(lwm_json_str(c->record, "tokenizer", &c->meta.tokenizer, c->dir, e));
	LWM_TRY(lwm_json_str(c->record, "tokenizer_path", &c->meta.tokenizer_path, c->dir, e));
	LWM_TRY(lwm_json_get(c->record, "config", JSON_OBJECT, &v, c->dir, e));
	c->meta.config = v;
	LWM_TRY(lwm_json_get(c->record, "state", JSON_OBJECT, &v, c->dir, e));
	c->meta.state = v;
	if (ranks < 1 || ranks > 1 << 24 || c->meta.step < 0)
		return lwm_fail(e, LWM_EDATA, "%s: step or number of ranks make no sense", c->dir);
	c->meta.ranks = (int)ranks;
	return read_groups(c, e);
}

static int read_tensor(struct lwm_ckpt *c, const json_t *o, struct lwm_err *e)
{
	struct lwm_tensor t = { 0 };
	json_t *shape;
	LWM_TRY(lwm_json_str(o, "name", &t.name, c->dir, e));
	LWM_TRY(lwm_json_get(o, "shape", JSON_ARRAY, &shape, c->dir, e));
	if (json_array_size(shape) > LWM_TENSOR_DIMS)
		return lwm_fail(e, LWM_EDATA, "%s: tensor '%s' has more than 4 dimensions", c->dir, t.name);
	t.ndim = (int)json_array_size(shape);
	for (int d = 0; d < t.ndim; d++)
		t.shape[d] = json_integer_value(json_array_get(shape, (size_t)d));
	int rc = lwm_tensors_add(&c->tensors, &t, NULL);
	if (rc == -LWM_EMEMORY)
		return lwm_fail_memory(e, c->dir);
	return rc < 0 ? lwm_fail(e, LWM_EDATA, "%s: tensor '%s' has no usable shape", c->dir, t.name) : 0;
}

static int read_tensors(struct lwm_ckpt *c, struct lwm_err *e)
{
	json_t *list, *o;
	size_t i, n;
	LWM_TRY(lwm_json_get(c->record, "tensors", JSON_ARRAY, &list, c->dir, e));
	n = json_array_size(list);
	c->first_slice = calloc(n + 2, sizeof *c->first_slice);
	if (!c->first_slice)
		return lwm_fail_memory(e, c->dir);
	json_array_foreach(list, i, o)
		LWM_TRY(read_tensor(c, o, e));
	return 0;
}

/* One slice of part k. */
static int add_slice(struct lwm_ckpt *c, int k, const int64_t *row, struct lwm_err *e)
{
	struct slice *x = &c->slice[c->nslice];
	struct part *p = &c->part[k];
	int64_t n;
	if (row[LWM_SLICE_TENSOR] < 0 || row[LWM_SLICE_TENSOR] >= c->tensors.n)
		return lwm_fail(e, LWM_EDATA, "%s: a slice of tensor %" PRId64 ", there are %" PRId64, p->path,
				row[LWM_SLICE_TENSOR], c->tensors.n);
	x->s = (struct lwm_ckpt_slice){ row[LWM_SLICE_TENSOR], row[LWM_SLICE_OFFSET], row[LWM_SLICE_RUN],
					row[LWM_SLICE_COUNT],  row[LWM_SLICE_STRIDE], { 0 } };
	LWM_TRY(lwm_ckpt_slice_check(&x->s, c->tensors.list[x->s.tensor].count, &n, p->path, e));
	if (n > INT64_MAX / 64 - p->values)
		return lwm_fail(e, LWM_EDATA, "%s: its slices are too large", p->path);
	x->part = k;
	x->first = p->values;
	p->values += n;
	c->nslice++;
	c->first_slice[x->s.tensor + 1]++;
	return 0;
}

static int add_slices(struct lwm_ckpt *c, int k, const int64_t *row, int64_t n, struct lwm_err *e)
{
	struct slice *grown = realloc(c->slice, (size_t)(c->nslice + n + 1) * sizeof *grown);
	if (!grown)
		return lwm_fail_memory(e, c->dir);
	c->slice = grown;
	c->part[k].table = lwm_hash64(row, (size_t)n * LWM_SLICE_COLS * sizeof *row, 0);
	c->part[k].has_table = true;
	for (int64_t i = 0; i < n; i++)
		LWM_TRY(add_slice(c, k, row + i * LWM_SLICE_COLS, e));
	return 0;
}

/* The slices of part k as the record tells them. */
static int told_slices(struct lwm_ckpt *c, int k, const char *text, struct lwm_err *e)
{
	int64_t n = 0, most = (int64_t)strlen(text) / 6 + 2; /* "0:0+1 " */
	int64_t *row = malloc((size_t)most * LWM_SLICE_COLS * sizeof *row);
	int rc = 1;
	if (!row)
		return lwm_fail_memory(e, c->dir);
	for (; rc == 1 && n < most; n += rc == 1)
		rc = lwm_ckpt_slice_next(&text, row + n * LWM_SLICE_COLS);
	rc = rc || *text ? lwm_fail(e, LWM_EDATA, "%s: its record tells the slices of %s in no way that is known here", c->dir,
				    lwm_path_base(c->part[k].path)) :
			   add_slices(c, k, row, n, e);
	free(row);
	return rc;
}

static int read_file(struct lwm_ckpt *c, const json_t *o, struct lwm_err *e)
{
	struct part *p = &c->part[c->nparts];
	const char *name, *slices;
	LWM_TRY(lwm_ckpt_file_entry(o, c->dir, &name, &p->bytes, &p->hash, e));
	p->path = lwm_path_join(c->dir, name);
	if (!p->path)
		return lwm_fail_memory(e, c->dir);
	c->nparts++;
	if (!c->told)
		return 0;
	LWM_TRY(lwm_json_str(o, "slices", &slices, c->dir, e));
	LWM_TRY(told_slices(c, c->nparts - 1, slices, e));
	/* what a record claims sizes memory; the file's size is compared with `bytes` */
	if (p->values > p->bytes / 4 / __builtin_popcount(c->meta.groups))
		return lwm_fail(e, LWM_EDATA, "%s: %" PRId64 " bytes do not hold the values of its slices", p->path, p->bytes);
	return 0;
}

static int read_files(struct lwm_ckpt *c, struct lwm_err *e)
{
	json_t *list, *o;
	size_t i;
	LWM_TRY(lwm_json_get(c->record, "files", JSON_ARRAY, &list, c->dir, e));
	c->part = calloc(json_array_size(list) + 1, sizeof *c->part);
	if (!c->part)
		return lwm_fail_memory(e, c->dir);
	json_array_foreach(list, i, o)
		LWM_TRY(read_file(c, o, e));
	return 0;
}

/* ---- parts ---- */

static int check_names(struct lwm_ckpt *c, const struct part *p, struct lwm_vfr *r, struct lwm_err *e)
{
	int64_t n, have = lwm_vfr_vec(r, LWM_PART_NAMES)->n;
	char *want = lwm_ckpt_names(&c->tensors, &n), *got = malloc((size_t)have + 1);
	int rc = 0;
	if (!want || !got)
		rc = lwm_fail_memory(e, c->dir);
	else
		rc = lwm_vfr_read(r, LWM_PART_NAMES, 0, have, got, e);
	if (rc == 0 && (n != have || memcmp(want, got, (size_t)n)))
		rc = lwm_fail(e, LWM_EDATA, "%s: has other tensors than the commit record", p->path);
	free(want);
	free(got);
	return rc;
}

/* The slices that part k tells itself; where the record tells them too they are the same. */
static int own_slices(struct lwm_ckpt *c, int k, struct lwm_vfr *r, struct lwm_err *e)
{
	struct part *p = &c->part[k];
	int64_t n = lwm_vfr_vec(r, LWM_PART_SLICES)->n / LWM_SLICE_COLS;
	size_t bytes = (size_t)n * LWM_SLICE_COLS * sizeof(int64_t);
	int64_t *row = malloc(bytes + 1);
	int rc = row ? lwm_vfr_read(r, LWM_PART_SLICES, 0, n * LWM_SLICE_COLS, row, e) :
		       lwm_fail_memory(e, c->dir);
	if (rc == 0 && !p->has_table)
		rc = add_slices(c, k, row, n, e);
	else if (rc == 0 && lwm_hash64(row, bytes, 0) != p->table)
		rc = lwm_fail(e, LWM_EDATA, "%s: holds other slices than the commit record says", p->path);
	free(row);
	LWM_TRY(rc);
	for (int g = 0; g < LWM_CKPT_GROUPS; g++)
		if (lwm_vfr_vec(r, LWM_PART_VEC(g))->n != (c->meta.groups >> g & 1 ? p->values : 0))
			return lwm_fail(e, LWM_EDATA, "%s: '%s' does not hold the values of its slices", p->path,
					lwm_ckpt_group_names[g]);
	return 0;
}

/* Opens part k; when many are open another one is closed, so that the number of ranks does not meet the limit of
 * files. */
static int use_part(struct lwm_ckpt *c, int k, struct lwm_err *e)
{
	struct lwm_vfr *r = NULL;
	if (c->part[k].r)
		return 0;
	while (c->nopen >= OPEN_MAX) {
		struct part *v = &c->part[c->victim];
		c->victim = (c->victim + 1) % c->nparts;
		if (v->r)
			c->nopen--;
		lwm_vfr_close(v->r);
		v->r = NULL;
	}
	LWM_TRY(lwm_vfr_open(&r, c->part[k].path, lwm_ckpt_part_schema, lwm_part_layout, LWM_PART_VECS, e));
	int rc = c->part[k].known ? 0 : check_names(c, &c->part[k], r, e);
	if (rc == 0 && !c->part[k].known)
		rc = own_slices(c, k, r, e);
	if (rc < 0) {
		lwm_vfr_close(r);
		return rc;
	}
	c->part[k].known = true;
	c->part[k].r = r;
	c->nopen++;
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct slice *x = a, *y = b;
	if (x->s.tensor != y->s.tensor)
		return x->s.tensor < y->s.tensor ? -1 : 1;
	return x->s.offset < y->s.offset ? -1 : x->s.offset > y->s.offset;
}

/* Sorts the slices by tensor and compares totals. */
static int index_slices(struct lwm_ckpt *c, struct lwm_err *e)
{
	if (c->nslice)
		qsort(c->slice, (size_t)c->nslice, sizeof *c->slice, by_place);
	for (int64_t i = 0; i < c->tensors.n; i++) {
		int64_t total = 0;
		c->first_slice[i + 1] += c->first_slice[i];
		/* each is no more than the tensor, which is far below the range */
		for (int64_t k = c->first_slice[i]; k < c->first_slice[i + 1] && total <= c->tensors.list[i].count; k++)
			total += c->slice[k].s.run * c->slice[k].s.count;
		if (total != c->tensors.list[i].count)
			return lwm_fail(e, LWM_EDATA,
					"%s: its parts hold %" PRId64 " of the %" PRId64 " values of '%s'", c->dir,
					total, c->tensors.list[i].count, c->tensors.list[i].name);
	}
	return 0;
}

/* Takes the record over, whatever comes of it. old: what is to be seen of the parts before they are asked. */
static int open_with(struct lwm_ckpt **out, const char *dir, json_t *record, enum lwm_ckpt_check old, struct lwm_err *e)
{
	int rc;
	const char *schema;
	struct lwm_ckpt *c = calloc(1, sizeof *c);
	*out = NULL;
	if (!c || !(c->dir = strdup(dir))) {
		json_decref(record);
		free(c);
		return lwm_fail_memory(e, dir);
	}
	c->record = record;
	LWM_GO(lwm_json_str(record, "schema", &schema, dir, e));
	c->told = !strcmp(schema, lwm_ckpt_schemas[0]);
	LWM_GO(read_meta(c, e));
	LWM_GO(read_tensors(c, e));
	LWM_GO(read_files(c, e));
	for (int k = 0; !c->told && k < c->nparts; k++)
		LWM_GO(lwm_ckpt_check_part(c, k, old, e));
	for (int k = 0; !c->told && k < c->nparts; k++) /* it is left to them to tell their slices */
		LWM_GO(use_part(c, k, e));
	LWM_GO(index_slices(c, e));
	*out = c;
	return 0;
out:
	lwm_ckpt_close(c);
	return rc;
}

int lwm_ckpt_open_record(struct lwm_ckpt **out, const char *dir, enum lwm_ckpt_check old, struct lwm_err *e)
{
	json_t *record;
	*out = NULL;
	LWM_TRY(lwm_ckpt_record_read(&record, dir, e));
	return open_with(out, dir, record, old, e);
}

int lwm_ckpt_open(struct lwm_ckpt **out, const char *dir, struct lwm_err *e)
{
	json_t *record;
	*out = NULL;
	LWM_TRY(lwm_ckpt_record_read(&record, dir, e));
	LWM_TRY(open_with(out, dir, record, LWM_CKPT_QUICK, e));
	int rc = 0;
	for (int k = 0; rc == 0 && k < (*out)->nparts; k++)
		rc = lwm_ckpt_check_part(*out, k, LWM_CKPT_QUICK, e);
	if (rc < 0) {
		lwm_ckpt_close(*out);
		*out = NULL;
	}
	return rc;
}

/* ---- for other ranks ---- */

static int by_part(const void *a, const void *b)
{
	const struct slice *x = a, *y = b;
	if (x->part != y->part)
		return x->part < y->part ? -1 : 1;
	return x->first < y->first ? -1 : x->first > y->first;
}

/* An old record gets what its parts told: their slices in the order of their values. */
static int tell_slices(const struct lwm_ckpt *c, json_t *files, struct lwm_err *e)
{
	struct slice *all = malloc((size_t)(c->nslice + 1) * sizeof *all);
	struct lwm_str text = { 0 };
	bool failed = !all;
	int64_t i = 0;
	for (; all && i < c->nslice; i++)
		all[i] = c->slice[i];
	if (i)
		qsort(all, (size_t)i, sizeof *all, by_part);
	i = 0;
	for (int k = 0; !failed && k < c->nparts; k++) {
		lwm_str_reset(&text);
		for (bool more = false; i < c->nslice && all[i].part == k; i++, more = true) {
			lwm_str_puts(&text, more ? " " : "");
			lwm_ckpt_slices_text(&all[i].s, 1, &text);
		}
		lwm_put(json_array_get(files, (size_t)k), "slices", text.failed ? NULL : json_string(lwm_str_get(&text)), &failed);
	}
	lwm_str_release(&text);
	free(all);
	return failed ? lwm_fail_memory(e, c->dir) : 0;
}

int lwm_ckpt_pack(const struct lwm_ckpt *c, char **text, struct lwm_err *e)
{
	json_t *copy = lwm_json_copy(c->record);
	*text = NULL;
	int rc = copy ? 0 : lwm_fail_memory(e, c->dir);
	if (rc == 0 && !c->told)
		rc = tell_slices(c, json_object_get(copy, "files"), e);
	if (rc == 0 && json_object_set_new(copy, "schema", json_string(lwm_ckpt_schemas[0])))
		rc = lwm_fail_memory(e, c->dir);
	if (rc == 0)
		rc = lwm_json_dump(copy, JSON_COMPACT | JSON_REAL_PRECISION(17), c->dir, text, e);
	json_decref(copy);
	return rc;
}

int lwm_ckpt_unpack(struct lwm_ckpt **out, const char *dir, const char *text, size_t n, struct lwm_err *e)
{
	json_t *record;
	*out = NULL;
	LWM_TRY(lwm_json_parse(&record, text, n, dir, e));
	return open_with(out, dir, record, LWM_CKPT_SEAL, e);
}

int lwm_ckpt_parts(const struct lwm_ckpt *c)
{
	return c->nparts;
}

int lwm_ckpt_check_part(const struct lwm_ckpt *c, int k, enum lwm_ckpt_check how, struct lwm_err *e)
{
	return lwm_ckpt_check_file(c->part[k].path, c->part[k].bytes, c->part[k].hash, how, e);
}

/* ---- what it holds ---- */

const char *lwm_ckpt_path(const struct lwm_ckpt *c)
{
	return c->dir;
}

const struct lwm_ckpt_meta *lwm_ckpt_get_meta(const struct lwm_ckpt *c)
{
	return &c->meta;
}

const struct lwm_tensors *lwm_ckpt_tensors(const struct lwm_ckpt *c)
{
	return &c->tensors;
}

int64_t lwm_ckpt_count(const struct lwm_ckpt *c)
{
	return c->tensors.n;
}

const struct lwm_tensor *lwm_ckpt_tensor(const struct lwm_ckpt *c, int64_t i)
{
	return &c->tensors.list[i];
}

int64_t lwm_ckpt_size(const struct lwm_ckpt *c, int64_t i)
{
	return c->tensors.list[i].count;
}

int64_t lwm_ckpt_find(const struct lwm_ckpt *c, const char *name)
{
	const struct lwm_tensor *t = lwm_tensors_find(&c->tensors, name);
	return t ? t - c->tensors.list : -1;
}

/* The runs of one slice that meet [a, b) of the tensor; returns how many values were read, or an error. */
static int64_t read_slice(struct lwm_ckpt *c, enum lwm_ckpt_group g, const struct slice *x, int64_t a, int64_t b,
			  float *out, struct lwm_err *e)
{
	const struct lwm_ckpt_slice *s = &x->s;
	int64_t step = s->count > 1 ? s->stride : s->run, done = 0;
	int64_t k = a > s->offset ? (a - s->offset) / step : 0;
	if (s->offset >= b || s->offset + (s->count - 1) * step + s->run <= a)
		return 0;
	LWM_TRY(use_part(c, x->part, e));
	for (; k < s->count && s->offset + k * step < b; k++) {
		int64_t start = s->offset + k * step;
		int64_t from = start > a ? start : a, to = start + s->run < b ? start + s->run : b;
		if (to <= from)
			continue;
		LWM_TRY(lwm_vfr_read(c->part[x->part].r, LWM_PART_VEC(g), x->first + k * s->run + (from - start), to - from,
				     out + (from - a), e));
		done += to - from;
	}
	return done;
}

int lwm_ckpt_holds(const struct lwm_ckpt *c, enum lwm_ckpt_group g, struct lwm_err *e)
{
	if (c->meta.groups >> g & 1)
		return 0;
	return lwm_fail(e, LWM_ECONFIG, "%s: holds no '%s'%s", c->dir, lwm_ckpt_group_names[g],
			g == LWM_CKPT_EMA ? ", the average that training with --ema keeps" : "");
}

int lwm_ckpt_read(struct lwm_ckpt *c, enum lwm_ckpt_group g, int64_t i, int64_t offset, int64_t n, float *out,
		  struct lwm_err *e)
{
	int64_t done = 0;
	if (i < 0 || i >= c->tensors.n || offset < 0 || n < 0 || offset > c->tensors.list[i].count - n)
		return lwm_fail(e, LWM_EINTERNAL, "%s: values %" PRId64 " to %" PRId64 " of tensor %" PRId64, c->dir,
				offset, offset + n, i);
	LWM_TRY(lwm_ckpt_holds(c, g, e));
	for (int64_t k = c->first_slice[i]; k < c->first_slice[i + 1]; k++) {
		int64_t got = read_slice(c, g, &c->slice[k], offset, offset + n, out, e);
		if (got < 0)
			return (int)got;
		done += got;
	}
	if (done != n)
		return lwm_fail(e, LWM_EDATA, "%s: the slices of '%s' leave holes or overlap", c->dir,
				c->tensors.list[i].name);
	return 0;
}

int lwm_ckpt_state(struct lwm_ckpt *c, int rank, char **text, struct lwm_err *e)
{
	char name[32];
	*text = NULL;
	lwm_ckpt_part_name(name, rank);
	for (int k = 0; k < c->nparts; k++) {
		if (strcmp(lwm_path_base(c->part[k].path), name))
			continue;
		LWM_TRY(use_part(c, k, e));
		if (lwm_vfr_vec(c->part[k].r, LWM_PART_STATE)->n == 0)
			return 0;
		return lwm_vfr_text(c->part[k].r, LWM_PART_STATE, STATE_LIMIT, text, e);
	}
	return 0;
}

/* ---- exact cover ---- */

struct run {
	int64_t start, end;
};

static int by_start(const void *a, const void *b)
{
	const struct run *x = a, *y = b;
	return x->start < y->start ? -1 : x->start > y->start;
}

static int cover_tensor(const struct lwm_ckpt *c, int64_t i, struct lwm_err *e)
{
	int64_t n = 0, at = 0;
	for (int64_t k = c->first_slice[i]; k < c->first_slice[i + 1]; k++)
		n += c->slice[k].s.count;
	struct run *runs = malloc((size_t)(n + 1) * sizeof *runs);
	if (!runs)
		return lwm_fail_memory(e, c->dir);
	n = 0;
	for (int64_t k = c->first_slice[i]; k < c->first_slice[i + 1]; k++) {
		const struct lwm_ckpt_slice *s = &c->slice[k].s;
		for (int64_t j = 0; j < s->count; j++) {
			int64_t start = s->offset + j * (s->count > 1 ? s->stride : 0);
			runs[n++] = (struct run){ start, start + s->run };
		}
	}
	qsort(runs, (size_t)n, sizeof *runs, by_start);
	for (int64_t k = 0; k < n && runs[k].start == at; k++)
		at = runs[k].end;
	free(runs);
	if (at != c->tensors.list[i].count)
		return lwm_fail(e, LWM_EDATA, "%s: the slices of '%s' leave holes or overlap at value %" PRId64,
				c->dir, c->tensors.list[i].name, at);
	return 0;
}

int lwm_ckpt_covers(struct lwm_ckpt *c, struct lwm_err *e)
{
	for (int k = 0; k < c->nparts; k++)
		LWM_TRY(use_part(c, k, e));
	for (int64_t i = 0; i < c->tensors.n; i++)
		LWM_TRY(cover_tensor(c, i, e));
	return 0;
}
