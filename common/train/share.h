/* share.h - one checkpoint before many ranks: rank 0 finds it and reads its record, each rank hashes a share of its parts, and
 * later opens those it reads from.
 *
 * Part k of m is looked at by rank k * n / m of n: on the mesh that wrote it, by the rank that owns what is in it. What one rank
 * finds holds for all. A part that cannot be read now outweighs a damaged one: then the folder is called neither whole nor damaged,
 * and the call fails.
 */
#ifndef LWM_TRAIN_SHARE_H
#define LWM_TRAIN_SHARE_H

#include "common/comm/comm.h"
#include "common/io/ckpt.h"

/* COLLECTIVE. The newest whole checkpoint of a root, as lwm_ckpt_latest finds it with LWM_CKPT_FULL, open on each rank; what is
 * passed over is reported on rank 0's log. 0 with *out NULL: none was ever finished. Only rank 0 looks at the root. */
int lwm_share_newest(struct lwm_ckpt **out, struct lwm_comm *c, const char *root, bool older_ok, struct lwm_err *e);
/* COLLECTIVE. The step folder `path` (its hashes are not compared: every block is checked as it is read), or the newest whole
 * checkpoint of the root `path`; -LWM_ENOINPUT: there is none. */
int lwm_share_open(struct lwm_ckpt **out, struct lwm_comm *c, const char *path, bool older_ok, struct lwm_err *e);
/* COLLECTIVE. Removes checkpoints that are too many, now that the one of `step` is whole; keeper: rank 0's. What cannot be removed
 * stays and is reported on the log: only ranks that are lost are a failure. */
int lwm_share_retire(struct lwm_comm *c, struct lwm_ckpt_keeper *keeper, int64_t step, struct lwm_err *e);

#endif
