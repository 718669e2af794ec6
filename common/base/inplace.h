/* inplace.h - files that are written where they lie and not through a temporary one: locks, logs, lines that are added to.
 *
 * Whoever may write into the folder could have put something else under that name: a symbolic link to a file of the user's,
 * which would then be written over or cut off, or a FIFO or device that never answers.
 */
#ifndef LWM_BASE_INPLACE_H
#define LWM_BASE_INPLACE_H

#include "common/base/err.h"

/* open(2) of a regular file, close-on-exec; flags O_RDONLY, O_WRONLY or O_RDWR with O_CREAT, O_APPEND, O_TRUNC. A symbolic link
 * (the last component of path; folders above may be links), a FIFO, a device or a folder is -LWM_ECANTCREATE naming it, and is
 * neither read nor changed; O_TRUNC cuts only what was found to be a regular file. */
int lwm_inplace_open(int *fd, const char *path, int flags, struct lwm_err *e);
/* The test alone, for what is made under another name and renamed: nothing there, a regular file and a link are fine (a rename
 * replaces the link itself); a FIFO, a device or a folder is -LWM_ECANTCREATE. */
int lwm_inplace_free(const char *path, struct lwm_err *e);

#endif
