/* group.h - devices of several ranks that exchange device memory by themselves.
 *
 * A chapter of kernels.h, which outside code includes instead. One device a rank, no two ranks on one GPU; on cuda by NCCL. ref
 * and cpu have none.
 *
 *	lk_group_place(dev, place);                              each rank; compare: no two may be equal
 *	if (rank == 0) lk_group_id(dev, id);                     and tell the others
 *	lk_group_new(dev, &g, id, rank, size, seconds);
 *	lk_group_start(g, right, mine, n, left, other, n);       runs beside what dev is given next
 *	lk_attn_fwd(dev, ...);
 *	lk_group_finish(g);                                      later work on dev may use what arrived
 *	lk_group_begin_allgather(g, mine, bytes, all, &ticket);  runs beside, too
 *	lk_group_join(g, ticket);                                later work on dev may use all
 *	lk_group_settle(g);  lk_group_free(g);
 *
 * Every call is made by all ranks in the same order, except those marked local. A group has a queue of its own: an exchange
 * begins there when all that was called on the device before is done, and runs beside what the device is given next, until
 * lk_group_finish or lk_group_join makes later work of the device wait for it. No call waits on the host but lk_group_new,
 * lk_group_settle and lk_group_free. Sums are fp32, in an order that follows from the number of ranks and the wiring between their
 * GPUs: the same bits on every run of the same allocation. A rank that is lost shows in lk_group_settle; after a failure
 * (LK_EDEVICE) the group is of no more use. The sentence is in lk_dev_error of the group's device.
 */
#ifndef LK_GROUP_H
#define LK_GROUP_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LK_GROUP_ID = 128, LK_GROUP_PLACE = 16 /* bytes */, LK_GROUP_INFLIGHT = 8, LK_GROUP_BEGUN = 32 /* exchanges */ };
struct lk_group;

/* Local. What no two ranks may share: a number of the GPU's own. LK_EUNSUP with the reason where this device cannot group. */
int lk_group_place(struct lk_dev *dev, unsigned char place[LK_GROUP_PLACE]);
/* Local. Made by one rank, which tells it to the others. */
int lk_group_id(struct lk_dev *dev, unsigned char id[LK_GROUP_ID]);
/* Tries the group before it returns: a sum, a gather and a block round the ring. seconds: how long this call and
 * lk_group_settle wait for other ranks. Free the group before the device. */
int lk_group_new(struct lk_dev *dev, struct lk_group **out, const unsigned char id[LK_GROUP_ID], int rank, int size,
		 double seconds);
void lk_group_free(struct lk_group *g); /* NULL is fine; what is still under way after a few seconds is given up */

/* p (n) fp32 = the sum of all ranks' p, in place. */
int lk_group_sum(struct lk_group *g, float *p, int64_t n);
/* mine (n / size) = this rank's slice of the sum of in (n); it may be its own place in `in`. n is a multiple of size. */
int lk_group_reduce_scatter(struct lk_group *g, const float *in, float *mine, int64_t n);
/* all (size * bytes) = every rank's mine, in order of ranks; mine may be its own place in all. */
int lk_group_allgather(struct lk_group *g, const void *mine, size_t bytes, void *all);
/* The same, which later work on the device does not wait for before lk_group_join; until then it leaves both buffers alone.
 * *ticket: which one, -1 when there was nothing to do. Joined in any order; at most LK_GROUP_BEGUN are begun and not joined. */
int lk_group_begin_sum(struct lk_group *g, float *p, int64_t n, int *ticket);
int lk_group_begin_reduce_scatter(struct lk_group *g, const float *in, float *mine, int64_t n, int *ticket);
int lk_group_begin_allgather(struct lk_group *g, const void *mine, size_t bytes, void *all, int *ticket);
int lk_group_join(struct lk_group *g, int ticket); /* local */
/* One send and one receive at once; 0 bytes: nothing that way. At most LK_GROUP_INFLIGHT are in flight. */
int lk_group_start(struct lk_group *g, int to, const void *send, size_t send_bytes, int from, void *recv, size_t recv_bytes);
int lk_group_finish(struct lk_group *g); /* the oldest one in flight: later work on the device begins after it */
int lk_group_settle(struct lk_group *g); /* the host waits until all exchanges are done */

#ifdef __cplusplus
}
#endif
#endif
