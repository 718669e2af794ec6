/* lock.h - one run at a time in a folder.
 *
 * A lock of fcntl on the file ".lock" in it, so that it works between nodes on NFS and ends with its process, however that
 * ends. The file stays; it is empty when nobody holds the lock, and says who does otherwise. */
#ifndef LWM_BASE_LOCK_H
#define LWM_BASE_LOCK_H

#include <stddef.h>

#include "common/base/err.h"

struct lwm_lock;
/* -LWM_ECANTCREATE with the holder's name when another process holds it: after 3 seconds when that one is seen to live on
 * this node, else after `seconds` (a server takes a while to notice that a node has died). Where the file system has no locks
 * there is a warning, and *out is of no effect. A ".lock" that is a link or no regular file is -LWM_ECANTCREATE, and
 * left as it is. Once in a process for a folder: locks of fcntl are the process's. */
int lwm_lock_take(struct lwm_lock **out, const char *dir, double seconds, struct lwm_err *e);
void lwm_lock_free(struct lwm_lock *l); /* NULL is fine */

enum lwm_lock_state {
	LWM_LOCK_FREE,   /* nobody holds it, or who did on this node is gone */
	LWM_LOCK_HELD,
	LWM_LOCK_UNSEEN  /* it cannot be told: no locks here, or a process of another node is named whose lock is not seen */
};
/* Looks and changes nothing. holder: what the file says of who has it ("node7 pid 123, job 45"), "" when it says nothing. Not for a
 * process that holds the lock itself, which it would lose. */
enum lwm_lock_state lwm_lock_look(const char *dir, char *holder, size_t size);

#endif
