/* outfile.h - a file appears whole or not at all.
 *
 *	lwm_outfile_open(&o, "out/part.h5", force, e)      refuses an existing file without force
 *	... write o->tmp by any means (or lwm_outfile_write)
 *	lwm_outfile_commit(o, e)                           fsync, rename, fsync of the folder; o is gone either way
 *	lwm_outfile_discard(o)                             NULL is fine; removes the temporary file
 *
 * The temporary name lies in the same folder: NAME.tmp.<pid>. A killed process leaves only that behind. Local calls.
 */
#ifndef LWM_BASE_OUTFILE_H
#define LWM_BASE_OUTFILE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"

struct lwm_outfile {
	char *path, *tmp;
	int fd; /* -1 when a library writes tmp by name */
};

int lwm_outfile_open(struct lwm_outfile **out, const char *path, bool force, struct lwm_err *e);
/* As open, but leaves creating tmp to a library that wants a name (HDF5, FFmpeg, cairo). */
int lwm_outfile_name(struct lwm_outfile **out, const char *path, bool force, struct lwm_err *e);
int lwm_outfile_write(struct lwm_outfile *o, const void *p, size_t n, struct lwm_err *e); /* finishes short writes */
int lwm_outfile_commit(struct lwm_outfile *o, struct lwm_err *e);
void lwm_outfile_discard(struct lwm_outfile *o);

/* The same in one call. */
int lwm_write_file(const char *path, const void *p, size_t n, bool force, struct lwm_err *e);
int lwm_fsync_dir(const char *dir, struct lwm_err *e);
/* Thousands of small files: between begin and end, commit renames without waiting for the disk, and end waits once for
 * the file system that holds dir. Only for folders whose completeness is told by a file that is committed after end. For
 * the whole process; not nested. */
void lwm_outfile_batch_begin(void);
int lwm_outfile_batch_end(const char *dir, struct lwm_err *e);
/* write(2) until done, EINTR retried. */
int lwm_write_all(int fd, const void *p, size_t n, const char *path, struct lwm_err *e);

#endif
