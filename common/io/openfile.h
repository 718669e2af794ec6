/* openfile.h - inside common/io: files that are read again and again, of which only so many are open at once.
 *
 *	lwm_openfile_adopt(&f, fd, e)      once: it was opened by other means
 *	lwm_openfile_use(&f, e)            f.fd may be read from ...
 *	lwm_openfile_done(&f)              ... until here; after that it may be closed at any time
 *	lwm_openfile_close(&f)
 *
 * Whoever reads from thousands of shards keeps a struct lwm_openfile for each. The ones used last are open: at most LWM_OPEN_MOST,
 * and no more than a quarter of what the system allows the process (ulimit -n). One that is wanted again is opened again, and must
 * be the file that it was: the same number (inode) and size. Any thread; a file serves one thread at a time.
 */
#ifndef LWM_IO_OPENFILE_H
#define LWM_IO_OPENFILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/base/err.h"

enum { LWM_OPEN_MOST = 256 };

struct lwm_openfile {
	const char *path; /* the owner's */
	/* The file was closed to make room: what is kept of it in memory should go too. Not while it is in use; any thread. */
	void (*parked)(struct lwm_openfile *f);
	int fd;           /* -1: closed; valid between use and done */
	ino_t number;
	off_t size;
	bool busy, listed;
	struct lwm_openfile *newer, *older;
};

/* Takes over a descriptor; path and parked are set. On failure it is closed. */
int lwm_openfile_adopt(struct lwm_openfile *f, int fd, struct lwm_err *e);
/* Opens it if need be; until done it stays open. */
int lwm_openfile_use(struct lwm_openfile *f, struct lwm_err *e);
void lwm_openfile_done(struct lwm_openfile *f);
void lwm_openfile_close(struct lwm_openfile *f); /* one that never was adopted is fine when it is all zero */

/* For whoever opens a file by other means and failed: is it for want of descriptors? 1: one was freed, try again; 0: no, there
 * are some; -LWM_EMEMORY: yes, and there is none to be freed. */
int lwm_openfile_room(const char *path, struct lwm_err *e);

#endif
