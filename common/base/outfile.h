/* outfile.h - a file appears whole or not at all.
 *
 *	lwm_outfile_open(&o, "out/part.h5", force, e)      refuses an existing file without force
 *	... write o->tmp by any means (or lwm_outfile_write)
 *	lwm_outfile_commit(o, e)                           fsync, rename, fsync of the folder; o is gone either way
 *	lwm_outfile_discard(o)                             NULL is fine; removes the temporary file
 *
 * The temporary name lies in the same folder (tmpname.h). A killed process leaves only that behind, and the next writer in that
 * folder removes it. Local calls.
 */
#ifndef LWM_BASE_OUTFILE_H
#define LWM_BASE_OUTFILE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"

struct lwm_outfile {
	char *path, *tmp;
	int fd; /* of tmp, for reading and writing; its lock says that the writer lives */
};

/* A library that wants a name (FFmpeg) may write o->tmp; it must not make a new file of that name. */
int lwm_outfile_open(struct lwm_outfile **out, const char *path, bool force, struct lwm_err *e);
/* The same over what may stand there, in a folder that many writers fill at a time: each would open the temporaries of all others
 * to see whether they live. Who finishes the folder removes what dead ones left. */
int lwm_outfile_open_among(struct lwm_outfile **out, const char *path, struct lwm_err *e);
int lwm_outfile_write(struct lwm_outfile *o, const void *p, size_t n, struct lwm_err *e); /* finishes short writes */
int lwm_outfile_commit(struct lwm_outfile *o, struct lwm_err *e);
void lwm_outfile_discard(struct lwm_outfile *o);

/* The same in one call. */
int lwm_write_file(const char *path, const void *p, size_t n, bool force, struct lwm_err *e);
int lwm_fsync_dir(const char *dir, struct lwm_err *e);
/* For thousands of small files: between begin and end, commit renames without waiting for the disk, and end waits once for
 * the file system that holds dir. Only for folders whose completeness is told by a file that is committed after end. For
 * the whole process; not nested. */
void lwm_outfile_batch_begin(void);
int lwm_outfile_batch_end(const char *dir, struct lwm_err *e);
/* Forgets what the system keeps of a synced file in memory, so that the next read comes from the disk. Where that cannot be asked
 * for (tmpfs), nothing happens. */
void lwm_drop_cache(int fd);
/* write(2) until done, EINTR retried. */
int lwm_write_all(int fd, const void *p, size_t n, const char *path, struct lwm_err *e);

#endif
