/* spool.h - inside common/io: values of a vector whose length is not known yet.
 *
 *	struct lwm_spool s = { 0 };
 *	lwm_spool_add(&s, values, bytes, path, e)         again and again; lwm_spool_cut goes back
 *	v.n = lwm_spool_bytes(&s) / size                  then the file can be laid out
 *	lwm_spool_copy(&s, w, vec, size, path, e)
 *	lwm_spool_release(&s)
 *
 * Up to SPOOL_MEMORY bytes stay in memory, more go to a nameless file beside the output, which vanishes with the process.
 */
#ifndef LWM_IO_SPOOL_H
#define LWM_IO_SPOOL_H

#include <stdint.h>

#include "common/io/vecfile.h"

struct lwm_spool {
	char *buf;
	int64_t have, filed; /* bytes in buf, bytes in the file */
	int fd;              /* valid when filed > 0 */
};

/* `path` is the output: it says where the file goes and names it in messages. */
int lwm_spool_add(struct lwm_spool *s, const void *p, int64_t bytes, const char *path, struct lwm_err *e);
int64_t lwm_spool_bytes(const struct lwm_spool *s);
/* Forgets what was added after the first `bytes`. */
int lwm_spool_cut(struct lwm_spool *s, int64_t bytes, const char *path, struct lwm_err *e);
/* Writes all of it into a vector; more may be added afterwards. */
int lwm_spool_copy(struct lwm_spool *s, struct lwm_vfw *w, int vec, int size, const char *path, struct lwm_err *e);
void lwm_spool_release(struct lwm_spool *s);

#endif
