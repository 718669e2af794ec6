/* h5.h - inside common/io: the calls to HDF5, so that vecfile.c sees none of its types. Any thread; they take turns. */
#ifndef LWM_IO_H5_H
#define LWM_IO_H5_H

#include "common/base/err.h"
#include "common/io/vectype.h"

/* Gives the empty file `fd` a root attribute `schema` and one contiguous, unfilled dataset per vector; at[i] gets its
 * place in the file (-1 when empty or absent), *bytes the size of the file. HDF5 itself writes to memory: after a failed write
 * it could neither close the file nor end the program. `path` is for messages. */
int lwm_h5_create(int fd, const char *path, const char *schema, const struct lwm_vec *v, int nv, int64_t *at,
		  int64_t *bytes, struct lwm_err *e);
/* Opens, checks schema, types, layout and places; fills v[].n, at[] and an own descriptor; HDF5 has let go of the
 * file. */
int lwm_h5_open(const char *path, const char *schema, struct lwm_vec *v, int nv, int64_t *at, int *fd,
		struct lwm_err *e);
int lwm_h5_schema(const char *path, char **schema, struct lwm_err *e);

#endif
