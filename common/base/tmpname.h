/* tmpname.h - temporary names that no two writers share, and the end of those whose writer is dead.
 *
 * A temporary lies beside what it will become: NAME.tmp.HOST-RANDOM, made exclusively and without following links, so that two
 * writers of one name (on other nodes, in containers with equal process numbers) never meet. Its writer holds a lock of flock on
 * it as long as it lives; where a sweep gets that lock, nobody is writing any more. Local calls.
 */
#ifndef LWM_BASE_TMPNAME_H
#define LWM_BASE_TMPNAME_H

#include <stdbool.h>

#include "common/base/err.h"

/* Creates the temporary of `path` as an empty file open for reading and writing. *name is malloc'ed. -LWM_ECANTCREATE. */
int lwm_tmp_file(const char *path, char **name, int *fd, struct lwm_err *e);
/* Creates the temporary of `path` as a folder. *fd holds its lock, on the file LWM_TMP_LOCK in it. */
int lwm_tmp_dir(const char *path, char **name, int *fd, struct lwm_err *e);
#define LWM_TMP_LOCK ".writer"
/* Removes what dead writers left in `dir`: temporaries whose lock can be had, on a network file system (where locks may be local to
 * a node) only those of this host and those that nobody has touched for an hour. Looks at a folder once in a process's life. What
 * cannot be removed stays: never an error. */
void lwm_tmp_sweep(const char *dir);
/* Keeps a folder whose lock file is about to go from being swept until the descriptor is closed. -1: the file system cannot; then
 * its age does for an hour. */
int lwm_tmp_hold(const char *dir);
/* Is it the name of a temporary? The last component of a path. */
bool lwm_tmp_is(const char *name);

#endif
