/* safetensors.h - one .safetensors file, strictly read and written.
 *
 *	reading           lwm_st_open(&s, path, e)
 *	                  lwm_st_get_tensor(s, i)                      name, type, shape
 *	                  lwm_st_read(s, i, offset, n, out, e)         values as fp32
 *	                  lwm_st_check(s, e), lwm_st_close(s)
 *
 *	writing           lwm_st_create(&w, path, tensors, n, meta, force, e)
 *	                  lwm_st_write(w, values, n, e)                all values of all tensors, in their order
 *	                  lwm_st_commit(w, &identity, e)               or lwm_st_discard(w)
 *
 * 8 bytes little-endian header length N, N bytes JSON padded with spaces to 8, data without holes or overlap,
 * row-major.
 * The writer puts tensors in the order given; __metadata__ holds format "pt", the caller's strings, and as hexadecimal
 * "xxh3_header", the XXH3-64 of the header while this value is all zeros, and "xxh3_256k", the XXH3-64 of each 256
 * KiB of data.
 * In a file that has them, opening and reading check them. Local calls; one thread per handle; what is returned is borrowed.
 */
#ifndef LWM_IO_SAFETENSORS_H
#define LWM_IO_SAFETENSORS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/hash.h"

enum lwm_st_dtype {
	LWM_ST_F32,
	LWM_ST_BF16,
	LWM_ST_F16,
	LWM_ST_F64,
	LWM_ST_I64,
	LWM_ST_I32,
	LWM_ST_U8,
	LWM_ST_OTHER
};
const char *lwm_st_dtype_name(enum lwm_st_dtype t);
int lwm_st_dtype_bytes(enum lwm_st_dtype t);

#define LWM_ST_DIMS 8
struct lwm_st_tensor {
	const char *name;
	enum lwm_st_dtype dtype;
	int ndim;
	int64_t shape[LWM_ST_DIMS];
	int64_t size;       /* values */
	int64_t begin, end; /* bytes from the start of the data; filled by the reader and writer */
};

struct lwm_st;
/* Reads the header alone. -LWM_EDATA: not such a file, or damaged. */
int lwm_st_open(struct lwm_st **out, const char *path, struct lwm_err *e);
void lwm_st_close(struct lwm_st *s);
int64_t lwm_st_count(const struct lwm_st *s); /* tensors */
const struct lwm_st_tensor *lwm_st_get_tensor(const struct lwm_st *s, int64_t i);
const char *lwm_st_meta(const struct lwm_st *s, const char *key); /* of __metadata__; NULL absent */
/* XXH3-128 of the header. With the sums in it, it stands for every byte of the file. */
struct lwm_hash lwm_st_identity(const struct lwm_st *s);
const char *lwm_st_path(const struct lwm_st *s);
int64_t lwm_st_bytes(const struct lwm_st *s); /* of the file */
/* Values offset .. offset+n-1 of tensor i as fp32; F32, BF16, F16, F64 only. */
int lwm_st_read(struct lwm_st *s, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e);
/* All data against "xxh3_256k"; without that -LWM_ENO (nothing to compare with). */
int lwm_st_check(struct lwm_st *s, struct lwm_err *e);

struct lwm_st_writer;
/* name, dtype (F32 or BF16), ndim and shape of t are read; meta: string members or NULL. */
int lwm_st_create(struct lwm_st_writer **out, const char *path, const struct lwm_st_tensor *t, int64_t n,
		  const json_t *meta, bool force, struct lwm_err *e);
/* Next values in order, converted from fp32 (to bf16 round to nearest even); tensors follow each other. */
int lwm_st_write(struct lwm_st_writer *w, const float *v, int64_t n, struct lwm_err *e);
/* All values must have been written; w is gone. identity (may be NULL): see lwm_st_identity. */
int lwm_st_commit(struct lwm_st_writer *w, struct lwm_hash *identity, struct lwm_err *e);
void lwm_st_discard(struct lwm_st_writer *w);
/* Rounds n values as the writer does; F32 leaves them. In place. */
void lwm_st_round(enum lwm_st_dtype t, float *v, int64_t n);

#endif
