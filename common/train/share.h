/* share.h - one checkpoint before many ranks: rank 0 finds it and reads its record, each rank hashes a share of its parts, and
 * later opens those it reads from.
 *
 * Part k of m is looked at by rank k * n / m of n: on the mesh that it was written on, by the rank that owns what is in it.
 * What one rank found holds for all. A part that cannot be read now is worth more than a damaged one: then nothing is said of
 * the folder.
 */
#ifndef LWM_TRAIN_SHARE_H
#define LWM_TRAIN_SHARE_H

#include "common/comm/comm.h"
#include "common/io/ckpt.h"

/* COLLECTIVE. The newest whole checkpoint of a root, as lwm_ckpt_latest with LWM_CKPT_FULL says, open on each rank; what is passed
 * over is said on rank 0's log. 0 with *out NULL: none was ever finished. root is looked at by rank 0 alone. */
int lwm_share_newest(struct lwm_ckpt **out, struct lwm_comm *c, const char *root, bool older_ok, struct lwm_err *e);
/* COLLECTIVE. The step folder `path` (its hashes are not compared: every block read is checked), or the newest whole checkpoint of
 * the root `path`; -LWM_ENOINPUT: there is none. */
int lwm_share_open(struct lwm_ckpt **out, struct lwm_comm *c, const char *path, bool older_ok, struct lwm_err *e);
/* COLLECTIVE. Checkpoints that are too many go, now that the one of `step` is whole; keeper: rank 0's. What stays because it cannot
 * be removed is said on the log: a failure is one of the ranks. */
int lwm_share_retire(struct lwm_comm *c, struct lwm_ckpt_keeper *keeper, int64_t step, struct lwm_err *e);

#endif
