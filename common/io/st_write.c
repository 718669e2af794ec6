/* Writes a .safetensors file. The header comes first in the file but holds sums of the data, so its size is fixed at the start
 * and it is written last: each block leaves its sum in the header on its way out; the header's own sum is taken with zeros in
 * its place. */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/io/pio.h"
#include "common/io/seal.h"
#include "common/io/st_int.h"

enum { BLOCK = LWM_ST_BLOCK };

struct lwm_st_writer {
	struct lwm_outfile *o;
	enum lwm_st_dtype *type;        /* of each tensor */
	int64_t *size;                  /* values of each tensor */
	int64_t ntensor, tensor, value; /* next tensor and next value of it */
	char *header;                   /* with room for the sums */
	int64_t header_bytes, self, sums;
	int64_t bytes, done, have; /* of data: all, written, waiting in block */
	char *block;
};

static json_t *meta_json(const json_t *meta, int64_t blocks, bool *failed)
{
	static const char zeros[] = "0000000000000000";
	json_t *m = json_object();
	char *sums = malloc((size_t)blocks * 16 + 1);
	if (sums)
		memset(sums, '0', (size_t)blocks * 16);
	lwm_put(m, "format", json_string("pt"), failed);
	lwm_put(m, "xxh3_header", json_string(zeros), failed);
	lwm_put(m, "xxh3_256k", sums ? json_stringn(sums, (size_t)blocks * 16) : NULL, failed);
	if (meta && json_object_update_missing(m, (json_t *)(uintptr_t)meta))
		*failed = true;
	free(sums);
	return m;
}

static json_t *entry_json(const struct lwm_st_tensor *t, int64_t begin, int64_t end, bool *failed)
{
	json_t *o = json_object(), *shape = json_array(), *at = json_array();
	for (int d = 0; d < t->ndim; d++)
		if (json_array_append_new(shape, json_integer(t->shape[d])))
			*failed = true;
	if (json_array_append_new(at, json_integer(begin)) || json_array_append_new(at, json_integer(end)))
		*failed = true;
	lwm_put(o, "dtype", json_string(lwm_st_dtype_name(t->dtype)), failed);
	lwm_put(o, "shape", shape, failed);
	lwm_put(o, "data_offsets", at, failed);
	return o;
}

static int tensor_size(const struct lwm_st_tensor *t, int64_t *size, const char *path, struct lwm_err *e)
{
	int64_t bytes;
	*size = 1;
	for (int d = 0; d < t->ndim; d++)
		if (lwm_mul(*size, t->shape[d], size))
			return lwm_fail(e, LWM_EDATA, "%s: '%s' is too large", path, t->name);
	if ((t->dtype != LWM_ST_F32 && t->dtype != LWM_ST_BF16) || t->ndim > LWM_ST_DIMS || lwm_mul(*size, 8, &bytes))
		return lwm_fail(e, LWM_EINTERNAL, "%s: '%s' cannot be written", path, t->name);
	return 0;
}

/* The JSON text, padded with spaces so that the data begin at a multiple of 8. */
static int build_header(struct lwm_st_writer *w, const json_t *header, struct lwm_err *e)
{
	char *text;
	LWM_TRY(lwm_json_dump(header, JSON_COMPACT, w->o->path, &text, e));
	int64_t n = (int64_t)strlen(text);
	w->header_bytes = (n + 7) / 8 * 8;
	w->header = realloc(text, (size_t)w->header_bytes + 1);
	if (!w->header) {
		free(text);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", w->o->path);
	}
	memset(w->header + n, ' ', (size_t)(w->header_bytes - n));
	w->self = lwm_st_place(w->header, w->header_bytes, LWM_ST_SELF, 16);
	w->sums = lwm_st_place(w->header, w->header_bytes, LWM_ST_SUMS, (w->bytes + BLOCK - 1) / BLOCK * 16);
	if (w->self < 0 || w->sums < 0 || w->header_bytes > LWM_ST_HEADER_MAX)
		return lwm_fail(e, LWM_EINTERNAL, "%s: its header would have %" PRId64 " bytes", w->o->path,
				w->header_bytes);
	return 0;
}

static int plan(struct lwm_st_writer *w, const struct lwm_st_tensor *t, int64_t n, const json_t *meta,
		struct lwm_err *e)
{
	bool failed = false;
	json_t *header = json_object(), *list = json_object();
	int rc = 0;
	w->ntensor = n;
	w->type = calloc((size_t)n + 1, sizeof *w->type);
	w->size = calloc((size_t)n + 1, sizeof *w->size);
	if (!w->type || !w->size || !header || !list) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory", w->o->path);
		goto out;
	}
	for (int64_t i = 0; i < n; i++) {
		LWM_GO(tensor_size(&t[i], &w->size[i], w->o->path, e));
		int64_t end = w->bytes + w->size[i] * lwm_st_dtype_bytes(t[i].dtype);
		w->type[i] = t[i].dtype;
		lwm_put(list, t[i].name, entry_json(&t[i], w->bytes, end, &failed), &failed);
		w->bytes = end;
	}
	if ((int64_t)json_object_size(list) != n) {
		rc = lwm_fail(e, LWM_EINTERNAL, "%s: two tensors have one name", w->o->path);
		goto out;
	}
	/* first, so that the marks of the sums are found before any tensor's name */
	lwm_put(header, "__metadata__", meta_json(meta, (w->bytes + BLOCK - 1) / BLOCK, &failed), &failed);
	if (json_object_update(header, list) || failed)
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory, or a name that is not UTF-8", w->o->path);
	else
		rc = build_header(w, header, e);
out:
	json_decref(header);
	json_decref(list);
	return rc;
}

static int check_room(struct lwm_st_writer *w, struct lwm_err *e)
{
	char a[32], b[32];
	int64_t need = 8 + w->header_bytes + w->bytes, room = lwm_space_free(w->o->path);
	if (room >= 0 && room < need)
		return lwm_fail(e, LWM_EIO, "%s: the file needs %s, the file system has %s left", w->o->path,
				lwm_bytes_text((double)need, a, sizeof a), lwm_bytes_text((double)room, b, sizeof b));
	return 0;
}

int lwm_st_create(struct lwm_st_writer **out, const char *path, const struct lwm_st_tensor *t, int64_t n,
		  const json_t *meta, bool force, struct lwm_err *e)
{
	int rc;
	struct lwm_st_writer *w = calloc(1, sizeof *w);
	*out = NULL;
	if (!w || !(w->block = malloc(BLOCK))) {
		free(w);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	}
	LWM_GO(lwm_outfile_open(&w->o, path, force, e));
	LWM_GO(plan(w, t, n, meta, e));
	LWM_GO(check_room(w, e));
	*out = w;
	return 0;
out:
	lwm_st_discard(w);
	return rc;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint32_t bf16_bits(float f)
{
	uint32_t u;
	memcpy(&u, &f, 4);
	uint32_t r = (u + 0x7fff + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
	return (u & 0x7fffffffu) > 0x7f800000u ? nan : r;
}

static void to_bf16(const float *in, int64_t n, char *out)
{
#pragma omp simd
	for (int64_t i = 0; i < n; i++) {
		uint16_t h = (uint16_t)bf16_bits(in[i]);
		memcpy(out + 2 * i, &h, 2);
	}
}

void lwm_st_round(enum lwm_st_dtype t, float *v, int64_t n)
{
	if (t != LWM_ST_BF16)
		return;
#pragma omp simd
	for (int64_t i = 0; i < n; i++) {
		uint32_t u = bf16_bits(v[i]) << 16;
		memcpy(&v[i], &u, 4);
	}
}

static int flush(struct lwm_st_writer *w, struct lwm_err *e)
{
	lwm_st_hex(w->header + w->sums + w->done / BLOCK * 16, lwm_hash64(w->block, (size_t)w->have, 0));
	LWM_TRY(lwm_pwrite_all(w->o->fd, w->block, w->have, 8 + w->header_bytes + w->done, w->o->path, e));
	w->done += w->have;
	w->have = 0;
	return 0;
}

/* Values of one type; they may straddle a block. */
static int put(struct lwm_st_writer *w, const float *v, int64_t n, enum lwm_st_dtype type, struct lwm_err *e)
{
	char odd[4];
	int64_t size = lwm_st_dtype_bytes(type);
	while (n) {
		int64_t k = (BLOCK - w->have) / size;
		k = k < n ? k : n;
		if (k == 0) { /* fewer bytes left than one value has */
			int64_t head = BLOCK - w->have;
			if (type == LWM_ST_BF16)
				to_bf16(v, 1, odd);
			else
				memcpy(odd, v, 4);
			memcpy(w->block + w->have, odd, (size_t)head);
			w->have = BLOCK;
			LWM_TRY(flush(w, e));
			memcpy(w->block, odd + head, (size_t)(size - head));
			w->have = size - head;
			k = 1;
		} else {
			if (type == LWM_ST_BF16)
				to_bf16(v, k, w->block + w->have);
			else
				memcpy(w->block + w->have, v, (size_t)k * 4);
			w->have += k * size;
		}
		if (w->have == BLOCK)
			LWM_TRY(flush(w, e));
		v += k;
		n -= k;
	}
	return 0;
}

int lwm_st_write(struct lwm_st_writer *w, const float *v, int64_t n, struct lwm_err *e)
{
	while (n) {
		while (w->tensor < w->ntensor && w->value == w->size[w->tensor]) {
			w->tensor++;
			w->value = 0;
		}
		if (w->tensor == w->ntensor)
			return lwm_fail(e, LWM_EINTERNAL, "%s: more values than announced", w->o->path);
		int64_t left = w->size[w->tensor] - w->value, k = left < n ? left : n;
		LWM_TRY(put(w, v, k, w->type[w->tensor], e));
		w->value += k;
		v += k;
		n -= k;
	}
	return 0;
}

int lwm_st_commit(struct lwm_st_writer *w, struct lwm_hash *identity, struct lwm_err *e)
{
	int rc = 0;
	uint64_t n = htole64((uint64_t)w->header_bytes);
	if (w->have)
		rc = flush(w, e);
	if (rc == 0 && w->done != w->bytes)
		rc = lwm_fail(e, LWM_EINTERNAL, "%s: values are missing", w->o->path);
	if (rc == 0) {
		lwm_st_hex(w->header + w->self, lwm_st_header_sum(w->header, w->header_bytes, w->self));
		rc = lwm_pwrite_all(w->o->fd, &n, 8, 0, w->o->path, e);
	}
	if (rc == 0)
		rc = lwm_pwrite_all(w->o->fd, w->header, w->header_bytes, 8, w->o->path, e);
	if (rc == 0 && identity)
		*identity = lwm_hash_bytes(w->header, (size_t)w->header_bytes);
	if (rc == 0 && fsync(w->o->fd))
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: fsync failed", w->o->path);
	if (rc == 0) {
		lwm_drop_cache(w->o->fd); /* who compares it with its source compares what the disk has */
		rc = lwm_outfile_commit(w->o, e);
		w->o = NULL;
	}
	lwm_st_discard(w);
	return rc;
}

void lwm_st_discard(struct lwm_st_writer *w)
{
	if (!w)
		return;
	lwm_outfile_discard(w->o);
	free(w->type);
	free(w->size);
	free(w->header);
	free(w->block);
	free(w);
}
