/* Reads a .safetensors file, strictly: 8 bytes length, JSON header, data without holes or overlap. Each block of data is compared
 * with its sum, where the header has sums, before a value of it is given. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/num.h"
#include "common/io/pio.h"
#include "common/io/st_int.h"

enum { BLOCK = LWM_ST_BLOCK };

struct lwm_st {
	char *path;
	int fd;
	json_t *header;
	const json_t *meta; /* NULL: none */
	struct lwm_st_tensor *tensor;
	int64_t ntensor, data, bytes; /* where the data starts in the file, its size */
	const char *sums;             /* 16 digits for each block, NULL: unknown */
	char *block, *piece;          /* BLOCK bytes each: the last block read; values on their way */
	int64_t block_no;
	struct lwm_hash identity;
};

/* ---- types ---- */

static const struct {
	const char *name;
	int bytes;
	enum lwm_st_dtype type;
} dtypes[] = {
	{ "F32", 4, LWM_ST_F32 },   { "BF16", 2, LWM_ST_BF16 },     { "F16", 2, LWM_ST_F16 },
	{ "F64", 8, LWM_ST_F64 },   { "I64", 8, LWM_ST_I64 },       { "I32", 4, LWM_ST_I32 },
	{ "U8", 1, LWM_ST_U8 },     { "BOOL", 1, LWM_ST_OTHER },    { "I8", 1, LWM_ST_OTHER },
	{ "I16", 2, LWM_ST_OTHER }, { "U16", 2, LWM_ST_OTHER },     { "U32", 4, LWM_ST_OTHER },
	{ "U64", 8, LWM_ST_OTHER }, { "F8_E4M3", 1, LWM_ST_OTHER }, { "F8_E5M2", 1, LWM_ST_OTHER },
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

const char *lwm_st_dtype_name(enum lwm_st_dtype t)
{
	return t < LWM_ST_OTHER ? dtypes[t].name : "other";
}

int lwm_st_dtype_bytes(enum lwm_st_dtype t)
{
	return t < LWM_ST_OTHER ? dtypes[t].bytes : 0;
}

int64_t lwm_st_place(const char *header, int64_t n, const char *mark, int64_t digits)
{
	size_t k = strlen(mark);
	const char *p = memmem(header, (size_t)n, mark, k);
	if (!p || p + k + digits > header + n)
		return -1;
	return p + k - header;
}

void lwm_st_hex(char *out, uint64_t v)
{
	for (int i = 15; i >= 0; i--, v >>= 4)
		out[i] = "0123456789abcdef"[v & 15];
}

uint64_t lwm_st_header_sum(char *header, int64_t n, int64_t self)
{
	char kept[16];
	memcpy(kept, header + self, 16);
	memset(header + self, '0', 16);
	uint64_t v = lwm_hash64(header, (size_t)n, 0);
	memcpy(header + self, kept, 16);
	return v;
}

/* ---- header ---- */

void lwm_st_close(struct lwm_st *s)
{
	if (!s)
		return;
	if (s->fd >= 0)
		close(s->fd);
	json_decref(s->header);
	free(s->tensor);
	free(s->block);
	free(s->piece);
	free(s->path);
	free(s);
}

static int read_shape(struct lwm_st *s, struct lwm_st_tensor *t, const json_t *o, struct lwm_err *e)
{
	json_t *shape;
	LWM_TRY(lwm_json_get(o, "shape", JSON_ARRAY, &shape, s->path, e));
	if (json_array_size(shape) > LWM_ST_DIMS)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' has more than %d dimensions", s->path, t->name,
				LWM_ST_DIMS);
	t->ndim = (int)json_array_size(shape);
	t->size = 1;
	for (int d = 0; d < t->ndim; d++) {
		json_t *v = json_array_get(shape, (size_t)d);
		t->shape[d] = json_is_integer(v) ? json_integer_value(v) : -1;
		if (t->shape[d] < 0 || lwm_mul(t->size, t->shape[d], &t->size))
			return lwm_fail(e, LWM_EDATA, "%s: '%.80s' has no usable shape", s->path, t->name);
	}
	return 0;
}

static int read_place(struct lwm_st *s, struct lwm_st_tensor *t, const json_t *o, int bytes, struct lwm_err *e)
{
	json_t *at;
	int64_t want;
	LWM_TRY(lwm_json_get(o, "data_offsets", JSON_ARRAY, &at, s->path, e));
	json_t *a = json_array_get(at, 0), *b = json_array_get(at, 1);
	if (json_array_size(at) != 2 || !json_is_integer(a) || !json_is_integer(b))
		return lwm_fail(e, LWM_EDATA, "%s: 'data_offsets' of '%.80s' must be two whole numbers", s->path,
				t->name);
	t->begin = json_integer_value(a);
	t->end = json_integer_value(b);
	if (t->begin < 0 || t->end < t->begin || t->end > s->bytes || lwm_mul(t->size, bytes, &want) ||
	    want != t->end - t->begin)
		return lwm_fail(e, LWM_EDATA, "%s: the place of '%.80s' does not fit its shape or the file", s->path,
				t->name);
	return 0;
}

static int read_tensor(struct lwm_st *s, const char *name, const json_t *o, struct lwm_err *e)
{
	struct lwm_st_tensor *t = &s->tensor[s->ntensor];
	const char *type;
	int k = 0;
	t->name = name;
	if (!json_is_object(o) || json_object_size(o) != 3)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' must have dtype, shape and data_offsets", s->path, name);
	LWM_TRY(lwm_json_str(o, "dtype", &type, s->path, e));
	while (k < DTYPES && strcmp(dtypes[k].name, type))
		k++;
	if (k == DTYPES)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' is of the unknown type '%.40s'", s->path, name, type);
	t->dtype = dtypes[k].type;
	LWM_TRY(read_shape(s, t, o, e));
	LWM_TRY(read_place(s, t, o, dtypes[k].bytes, e));
	s->ntensor++;
	return 0;
}

static int by_begin(const void *a, const void *b)
{
	const struct lwm_st_tensor *x = a, *y = b;
	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

static int read_tensors(struct lwm_st *s, struct lwm_err *e)
{
	const char *name;
	json_t *o;
	int64_t at = 0;
	s->tensor = calloc(json_object_size(s->header) + 1, sizeof *s->tensor);
	if (!s->tensor)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", s->path);
	json_object_foreach(s->header, name, o)
		if (strcmp(name, "__metadata__"))
			LWM_TRY(read_tensor(s, name, o, e));
	qsort(s->tensor, (size_t)s->ntensor, sizeof *s->tensor, by_begin);
	for (int64_t i = 0; i < s->ntensor; i++) {
		if (s->tensor[i].begin != at)
			return lwm_fail(e, LWM_EDATA, "%s: '%.80s' leaves a hole or overlaps its neighbour", s->path,
					s->tensor[i].name);
		at = s->tensor[i].end;
	}
	if (at != s->bytes)
		return lwm_fail(e, LWM_EDATA, "%s: %" PRId64 " bytes of data, the header describes %" PRId64, s->path,
				s->bytes, at);
	return 0;
}

/* Metadata is strings only; of ours, the sums must have the right length. */
static int read_meta(struct lwm_st *s, struct lwm_err *e)
{
	const char *key;
	json_t *v;
	s->meta = json_object_get(s->header, "__metadata__");
	if (!s->meta)
		return 0;
	if (!json_is_object(s->meta))
		return lwm_fail(e, LWM_EDATA, "%s: '__metadata__' must be an object", s->path);
	json_object_foreach((json_t *)(uintptr_t)s->meta, key, v)
		if (!json_is_string(v))
			return lwm_fail(e, LWM_EDATA, "%s: '__metadata__' must hold strings only", s->path);
	s->sums = lwm_st_meta(s, "xxh3_256k");
	if (s->sums && (int64_t)strlen(s->sums) != (s->bytes + BLOCK - 1) / BLOCK * 16)
		return lwm_fail(e, LWM_EDATA, "%s: its checksums do not fit its size", s->path);
	return 0;
}

static int check_header(struct lwm_st *s, char *header, int64_t n, struct lwm_err *e)
{
	char want[16];
	int64_t at = lwm_st_place(header, n, LWM_ST_SELF, 16);
	if (at < 0)
		return 0; /* made by another program */
	lwm_st_hex(want, lwm_st_header_sum(header, n, at));
	if (memcmp(want, header + at, 16))
		return lwm_fail(e, LWM_EDATA, "%s: its header is damaged", s->path);
	return 0;
}

static int read_header(struct lwm_st *s, struct lwm_err *e)
{
	struct stat st;
	uint64_t n;
	if (fstat(s->fd, &st))
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot read", s->path);
	if (!S_ISREG(st.st_mode) || st.st_size < 8)
		return lwm_fail(e, LWM_EDATA, "%s: too short for a safetensors file", s->path);
	LWM_TRY(lwm_pread_all(s->fd, &n, 8, 0, s->path, e));
	n = le64toh(n);
	if (n < 2 || n > (uint64_t)LWM_ST_HEADER_MAX || n > (uint64_t)st.st_size - 8)
		return lwm_fail(e, LWM_EDATA,
				"%s: a header of %" PRIu64 " bytes cannot be: not a safetensors file, or cut short",
				s->path, n);
	s->data = 8 + (int64_t)n;
	s->bytes = (int64_t)st.st_size - s->data;
	char *text = malloc(n + 1);
	if (!text)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", s->path);
	int rc = lwm_pread_all(s->fd, text, (int64_t)n, 8, s->path, e);
	if (rc == 0 && text[0] != '{')
		rc = lwm_fail(e, LWM_EDATA, "%s: its header does not begin with '{'", s->path);
	if (rc == 0)
		rc = check_header(s, text, (int64_t)n, e);
	if (rc == 0)
		s->identity = lwm_hash_bytes(text, n);
	if (rc == 0)
		rc = lwm_json_parse(&s->header, text, n, s->path, e);
	free(text);
	return rc;
}

int lwm_st_open(struct lwm_st **out, const char *path, struct lwm_err *e)
{
	int rc;
	struct lwm_st *s = calloc(1, sizeof *s);
	*out = NULL;
	if (!s || !(s->path = strdup(path))) {
		free(s);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	}
	s->block_no = -1;
	s->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (s->fd < 0) {
		rc = lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot open", path);
		goto out;
	}
	LWM_GO(read_header(s, e));
	LWM_GO(read_tensors(s, e));
	LWM_GO(read_meta(s, e));
	s->block = malloc(BLOCK);
	s->piece = malloc(BLOCK);
	if (!s->block || !s->piece) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
		goto out;
	}
	*out = s;
	return 0;
out:
	lwm_st_close(s);
	return rc;
}

int64_t lwm_st_count(const struct lwm_st *s)
{
	return s->ntensor;
}

const struct lwm_st_tensor *lwm_st_get_tensor(const struct lwm_st *s, int64_t i)
{
	return &s->tensor[i];
}

const char *lwm_st_meta(const struct lwm_st *s, const char *key)
{
	return json_string_value(json_object_get(s->meta, key));
}

struct lwm_hash lwm_st_identity(const struct lwm_st *s)
{
	return s->identity;
}

const char *lwm_st_path(const struct lwm_st *s)
{
	return s->path;
}

int64_t lwm_st_bytes(const struct lwm_st *s)
{
	return s->data + s->bytes;
}

/* ---- values ---- */

static int load_block(struct lwm_st *s, int64_t k, struct lwm_err *e)
{
	char have[16];
	int64_t from = k * BLOCK, n = s->bytes - from < BLOCK ? s->bytes - from : BLOCK;
	if (s->block_no == k)
		return 0;
	s->block_no = -1;
	LWM_TRY(lwm_pread_all(s->fd, s->block, n, s->data + from, s->path, e));
	if (s->sums) {
		lwm_st_hex(have, lwm_hash64(s->block, (size_t)n, 0));
		if (memcmp(have, s->sums + k * 16, 16))
			return lwm_fail(e, LWM_EDATA,
					"%s: damaged in its %" PRId64 " bytes of data from byte %" PRId64, s->path, n,
					from);
	}
	s->block_no = k;
	return 0;
}

static int get_bytes(struct lwm_st *s, int64_t from, int64_t n, char *out, struct lwm_err *e)
{
	while (n) {
		int64_t in = from % BLOCK, k = BLOCK - in < n ? BLOCK - in : n;
		LWM_TRY(load_block(s, from / BLOCK, e));
		memcpy(out, s->block + in, (size_t)k);
		from += k;
		out += k;
		n -= k;
	}
	return 0;
}

int lwm_st_read(struct lwm_st *s, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	const struct lwm_st_tensor *t = &s->tensor[i];
	int64_t size = lwm_st_dtype_bytes(t->dtype), step = size ? BLOCK / size : 0;
	if (t->dtype > LWM_ST_F64)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' does not hold floating-point numbers", s->path, t->name);
	if (offset < 0 || n < 0 || offset > t->size - n)
		return lwm_fail(e, LWM_EDATA, "%s: values %" PRId64 " to %" PRId64 " of '%.80s', which has %" PRId64,
				s->path, offset, offset + n, t->name, t->size);
	for (int64_t done = 0; done < n; done += step) {
		int64_t k = n - done < step ? n - done : step;
		LWM_TRY(get_bytes(s, t->begin + (offset + done) * size, k * size, s->piece, e));
		lwm_st_widen(s->piece, t->dtype, k, out + done);
	}
	return 0;
}

int lwm_st_check(struct lwm_st *s, struct lwm_err *e)
{
	if (!s->sums)
		return lwm_fail(e, LWM_ENO, "%s: carries no checksums (made by another program)", s->path);
	for (int64_t k = 0; k * BLOCK < s->bytes; k++)
		LWM_TRY(load_block(s, k, e));
	return 0;
}
