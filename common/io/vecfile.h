/* vecfile.h - inside common/io: an HDF5 file of named vectors, each value of them checked.
 *
 *	writing           lwm_vfw_open(&w, path, among, schema, v, nv, fine, e)   v: the vectors with their sizes
 *	                  lwm_vfw_put(w, vec, values, n, e)                       in order within a vector, vectors in any order
 *	                  lwm_vfw_finish(w, &hash, &bytes, e)                     on the disk, read back, compared
 *	                  lwm_vfw_commit(w, e)                                    under its name; or lwm_vfw_discard(w)
 *
 *	reading           lwm_vfr_open(&r, path, schema, want, nv, e)
 *	                  lwm_vfr_vec(r, vec)->n                                  how long it is
 *	                  lwm_vfr_read(r, vec, first, n, out, e)                  checked; or lwm_vfr_text
 *	                  lwm_vfr_close(r)
 *
 * HDF5 only makes and reads the structure (newest format of 1.10: its metadata carries checksums). Vectors are
 * contiguous datasets without filters; their values are written and read with pwrite and pread at the place HDF5 gave
 * them, so that a full disk is reported by the call that met it. The dataset `sums` (uint64) holds the XXH3-64 of
 * each block of every vector in file order, and after them one over all of these. Values are little-endian.
 *
 * A block is LWM_VF_BLOCK bytes; in files that are written `fine`, for being read in small pieces, LWM_VF_FINE, doubled until they
 * are no more than LWM_VF_FINE_SUMS, up to LWM_VF_BLOCK. How many sums there are tells a reader which it is.
 *
 * Any number of files may be open for reading: those not used lately are closed behind the scenes (openfile.h), and nothing of
 * them is hashed again when they are wanted again but the table of sums. Local calls; one thread per handle.
 */
#ifndef LWM_IO_VECFILE_H
#define LWM_IO_VECFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/io/vectype.h"

#define LWM_VF_BLOCK 65536
#define LWM_VF_FINE 4096
#define LWM_VF_FINE_SUMS 16384

struct lwm_vfw; /* writer */
/* Writes a temporary beside PATH, over what may stand there in the end; all sizes are known. Fails when the file system says that
 * it has no room. among: many writers fill the folder at a time (lwm_outfile_open_among). */
int lwm_vfw_open(struct lwm_vfw **out, const char *path, bool among, const char *schema, const struct lwm_vec *v,
		 int nv, bool fine, struct lwm_err *e);
/* The next n values of a vector. */
int lwm_vfw_put(struct lwm_vfw *w, int vec, const void *p, int64_t n, struct lwm_err *e);
/* Hash over the values put so far into the vectors 0 .. nvec-1, which must be complete. */
int lwm_vfw_content(struct lwm_vfw *w, int nvec, struct lwm_hash *out, struct lwm_err *e);
/* Every vector must be complete. Syncs, reads the file back from the disk, compares it with what was put; *hash and *bytes are the
 * file's. The file still has its temporary name. */
int lwm_vfw_finish(struct lwm_vfw *w, struct lwm_hash *hash, int64_t *bytes, struct lwm_err *e);
int lwm_vfw_commit(struct lwm_vfw *w, struct lwm_err *e); /* after finish: renames; w is gone either way */
void lwm_vfw_discard(struct lwm_vfw *w);                  /* NULL is fine */

struct lwm_vfr; /* reader */
/* `want`: all vectors of the file and their types, in the order of writing; one whose n is LWM_VEC_ABSENT may be lacking. The
 * strings outlive the reader. */
int lwm_vfr_open(struct lwm_vfr **out, const char *path, const char *schema, const struct lwm_vec *want, int nv,
		 struct lwm_err *e);
void lwm_vfr_close(struct lwm_vfr *r);
const struct lwm_vec *lwm_vfr_vec(const struct lwm_vfr *r, int vec);
/* Values first .. first+n-1 of a vector, in its type. -LWM_EDATA: damaged, or not so many. */
int lwm_vfr_read(struct lwm_vfr *r, int vec, int64_t first, int64_t n, void *out, struct lwm_err *e);
/* A whole text vector, 0-terminated, malloc'ed; longer than limit is -LWM_EDATA. */
int lwm_vfr_text(struct lwm_vfr *r, int vec, int64_t limit, char **out, struct lwm_err *e);
/* Which of our formats is this file? malloc'ed schema, e.g. "lwm-docs-1"; -LWM_EDATA when it is not one of ours. */
int lwm_vf_schema(const char *path, char **schema, struct lwm_err *e);

#endif
