/* ckpt_part.c - one rank's part of a checkpoint: its slices as values, and as text for the record.
 *
 * A part is written, read back and compared before it gets its name: what the record will name exists and is right.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/base/path.h"
#include "common/io/ckpt_int.h"

const char lwm_ckpt_part_schema[] = "lwm-checkpoint-part-1";

#define GROUP_NAME(constant, name) name,
const char *const lwm_ckpt_group_names[] = { LWM_CKPT_GROUP_TABLE(GROUP_NAME) NULL };

#define GROUP_VECTOR(constant, name) \
	[LWM_PART_VEC(constant)] = { name, LWM_V_F32, LWM_PART_FIRST(constant) ? 0 : LWM_VEC_ABSENT },
const struct lwm_vec lwm_part_layout[LWM_PART_VECS] = {
	LWM_CKPT_GROUP_TABLE(GROUP_VECTOR)
	[LWM_PART_SLICES] = { "slices", LWM_V_I64, 0 },
	[LWM_PART_NAMES] = { "names", LWM_V_U8, 0 },
	[LWM_PART_STATE] = { "state", LWM_V_U8, 0 },
};
_Static_assert((int)LWM_PART_VECS <= LWM_VF_MAX, "more groups than a file may have vectors: raise LWM_VF_MAX in vectype.h");
_Static_assert(LWM_CKPT_GROUPS <= 32, "a mask of groups has 32 bits");
enum { PIECE = 1 << 18 }; /* values asked of the callback at a time */

json_t *lwm_ckpt_groups_json(unsigned groups, bool *failed)
{
	json_t *list = json_array();
	for (int g = 0; g < LWM_CKPT_GROUPS; g++)
		if ((groups >> g & 1) && json_array_append_new(list, json_string(lwm_ckpt_group_names[g])))
			*failed = true;
	return list;
}

int lwm_ckpt_slice_check(const struct lwm_ckpt_slice *s, int64_t size, int64_t *n, const char *where,
			 struct lwm_err *e)
{
	int64_t reach = 0;
	bool ok =
		s->offset >= 0 && s->run >= 1 && s->count >= 1 && lwm_mul(s->run, s->count, n) == 0 && s->run <= size;
	if (ok && s->count > 1)
		ok = s->stride >= s->run && lwm_mul(s->count - 1, s->stride, &reach) == 0;
	if (!ok || reach > size - s->run || s->offset > size - s->run - reach)
		return lwm_fail(e, LWM_EDATA,
				"%s: a slice of tensor %" PRId64 " (offset %" PRId64 ", %" PRId64 " runs of %" PRId64
				") leaves its %" PRId64 " values",
				where, s->tensor, s->offset, s->count, s->run, size);
	return 0;
}

char *lwm_ckpt_names(const struct lwm_tensors *t, int64_t *bytes)
{
	size_t total = 0;
	for (int64_t i = 0; i < t->n; i++)
		total += strlen(t->list[i].name) + 1;
	char *out = malloc(total + 1), *p = out;
	for (int64_t i = 0; out && i < t->n; i++) {
		size_t k = strlen(t->list[i].name) + 1;
		memcpy(p, t->list[i].name, k);
		p += k;
	}
	*bytes = (int64_t)total;
	return out;
}

void lwm_ckpt_part_name(char out[32], int rank)
{
	snprintf(out, 32, "part_%05d.h5", rank);
}

void lwm_ckpt_slices_text(const struct lwm_ckpt_slice *s, int64_t n, struct lwm_str *out)
{
	for (int64_t i = 0; i < n; i++) {
		lwm_str_printf(out, "%s%" PRId64 ":%" PRId64 "+%" PRId64, i ? " " : "", s[i].tensor, s[i].offset, s[i].run);
		if (s[i].count > 1)
			lwm_str_printf(out, "*%" PRId64 "/%" PRId64, s[i].count, s[i].stride);
	}
}

/* A number of digits alone, below 2^63, preceded by `before` (0: nothing). */
static bool read_number(const char **text, char before, int64_t *out)
{
	const char *p = *text + (before && **text == before);
	int64_t v = 0;
	if ((before && p == *text) || *p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
		if (lwm_mul(v, 10, &v) || v > INT64_MAX - (*p - '0'))
			return false;
		else
			v += *p - '0';
	*text = p;
	*out = v;
	return true;
}

int lwm_ckpt_slice_next(const char **text, int64_t row[LWM_SLICE_COLS])
{
	if (!**text)
		return 0;
	if (!read_number(text, 0, &row[LWM_SLICE_TENSOR]) || !read_number(text, ':', &row[LWM_SLICE_OFFSET]) ||
	    !read_number(text, '+', &row[LWM_SLICE_RUN]))
		return -1;
	row[LWM_SLICE_COUNT] = 1;
	row[LWM_SLICE_STRIDE] = row[LWM_SLICE_RUN];
	if (**text == '*' && (!read_number(text, '*', &row[LWM_SLICE_COUNT]) || !read_number(text, '/', &row[LWM_SLICE_STRIDE])))
		return -1;
	if (**text == ' ' && (*text)[1])
		++*text;
	else if (**text)
		return -1;
	return 1;
}

/* Values of all slices together. */
static int total_values(const struct lwm_ckpt_out *o, const char *path, int64_t *total, struct lwm_err *e)
{
	*total = 0;
	for (int64_t i = 0; i < o->nslice; i++) {
		const struct lwm_ckpt_slice *s = &o->slice[i];
		int64_t n, size = s->tensor >= 0 && s->tensor < o->tensors->n
					  ? lwm_tensor_size(&o->tensors->list[s->tensor])
					  : -1;
		if (size < 0)
			return lwm_fail(e, LWM_EINTERNAL, "%s: slice %" PRId64 " belongs to no tensor", path, i);
		LWM_TRY(lwm_ckpt_slice_check(s, size, &n, path, e));
		if (*total > INT64_MAX / 64 - n)
			return lwm_fail(e, LWM_EINTERNAL, "%s: too many values", path);
		*total += n;
	}
	return 0;
}

static int put_slice(struct lwm_vfw *w, const struct lwm_ckpt_out *o, int g, int64_t i, float *buf, struct lwm_err *e)
{
	const struct lwm_ckpt_slice *s = &o->slice[i];
	int64_t n = s->run * s->count;
	if (s->data[g])
		return lwm_vfw_put(w, LWM_PART_VEC(g), s->data[g], n, e);
	if (!o->fill)
		return lwm_fail(e, LWM_EINTERNAL, "%s: no values of '%s' for slice %" PRId64, o->dir,
				lwm_ckpt_group_names[g], i);
	for (int64_t at = 0; at < n; at += PIECE) {
		int64_t k = n - at < PIECE ? n - at : PIECE;
		LWM_TRY(o->fill(o->ctx, g, i, at, k, buf, e));
		LWM_TRY(lwm_vfw_put(w, LWM_PART_VEC(g), buf, k, e));
	}
	return 0;
}

static int put_values(struct lwm_vfw *w, const struct lwm_ckpt_out *o, float *buf, struct lwm_err *e)
{
	for (int g = 0; g < LWM_CKPT_GROUPS; g++)
		for (int64_t i = 0; (o->groups >> g & 1) && i < o->nslice; i++)
			LWM_TRY(put_slice(w, o, g, i, buf, e));
	return 0;
}

static int put_tables(struct lwm_vfw *w, const struct lwm_ckpt_out *o, const char *names, int64_t names_bytes,
		      struct lwm_err *e)
{
	for (int64_t i = 0; i < o->nslice; i++) {
		const struct lwm_ckpt_slice *s = &o->slice[i];
		int64_t row[LWM_SLICE_COLS] = { s->tensor, s->offset, s->run, s->count,
						s->count > 1 ? s->stride : s->run };
		LWM_TRY(lwm_vfw_put(w, LWM_PART_SLICES, row, LWM_SLICE_COLS, e));
	}
	LWM_TRY(lwm_vfw_put(w, LWM_PART_NAMES, names, names_bytes, e));
	return o->state ? lwm_vfw_put(w, LWM_PART_STATE, o->state, (int64_t)strlen(o->state), e) : 0;
}

static int write_file(const struct lwm_ckpt_out *o, const char *path, struct lwm_ckpt_part *part, struct lwm_err *e)
{
	struct lwm_vec v[LWM_PART_VECS];
	struct lwm_vfw *w = NULL;
	struct lwm_hash h;
	int64_t total, names_bytes;
	int rc;
	LWM_TRY(total_values(o, path, &total, e));
	char *names = lwm_ckpt_names(o->tensors, &names_bytes);
	float *buf = o->fill ? malloc(PIECE * sizeof *buf) : NULL;
	if (!names || (o->fill && !buf)) {
		rc = lwm_fail_memory(e, path);
		goto out;
	}
	memcpy(v, lwm_part_layout, sizeof v);
	for (int g = 0; g < LWM_CKPT_GROUPS; g++)
		if (o->groups >> g & 1)
			v[LWM_PART_VEC(g)].n = total;
	v[LWM_PART_SLICES].n = o->nslice * LWM_SLICE_COLS;
	v[LWM_PART_NAMES].n = names_bytes;
	v[LWM_PART_STATE].n = o->state ? (int64_t)strlen(o->state) : 0;
	LWM_GO(lwm_vfw_open(&w, path, true, lwm_ckpt_part_schema, v, LWM_PART_VECS, false, e));
	LWM_GO(put_values(w, o, buf, e));
	LWM_GO(put_tables(w, o, names, names_bytes, e));
	LWM_GO(lwm_vfw_finish(w, &h, &part->bytes, e));
	memcpy(part->hash, h.hex, sizeof h.hex);
	rc = lwm_vfw_commit(w, e);
	w = NULL;
out:
	lwm_vfw_discard(w);
	free(names);
	free(buf);
	return rc;
}

int lwm_ckpt_write_part(const struct lwm_ckpt_out *o, struct lwm_ckpt_part *part, struct lwm_err *e)
{
	memset(part, 0, sizeof *part);
	if (o->nslice == 0 && !o->state)
		return 0;
	LWM_TRY(lwm_mkdirs(o->dir, e));
	lwm_ckpt_part_name(part->name, o->rank);
	part->nslice = o->nslice;
	char *path = lwm_path_join(o->dir, part->name);
	int rc = path ? write_file(o, path, part, e) : lwm_fail_memory(e, o->dir);
	free(path);
	return rc;
}
