/* devcomm.h - the collectives of comm.h on device memory.
 *
 * One way to do it for whoever exchanges what a device computes with. Three bodies, the same on all ranks of a group:
 *	host     device memory is host memory: comm.h does it
 *	staged   through pinned host memory: copied down, exchanged by comm.h, copied up
 *	nccl     from GPU to GPU (kernels.h, groups), begun by telling all ranks NCCL's id over comm.h
 * Sums of the first two are formed in rank order; those of nccl in an order of its own, the same on each run of the same
 * allocation (kernels.h). LWM_NCCL=0 never takes nccl, LWM_NCCL=1 refuses to go without; otherwise it is taken when NCCL can
 * be loaded and no two ranks share a GPU.
 *
 * COLLECTIVE unless it says local. A failure of -LWM_ERANK ends the group: the others will not come, or cannot. After any
 * other failure the exchange took place, but what this rank received is not to be used.
 */
#ifndef LWM_COMM_DEVCOMM_H
#define LWM_COMM_DEVCOMM_H

#include "common/comm/comm.h"
#include "kernels/kernels.h"

struct lwm_devcomm;

/* dev and comm are borrowed and outlive it; each call afterwards belongs to dev's thread. Ranks whose devices compute in
 * different types are refused (-LWM_ECONFIG). All ranks return the same. */
int lwm_devcomm_new(struct lwm_devcomm **out, struct lk_dev *dev, struct lwm_comm *comm, struct lwm_err *e);
void lwm_devcomm_free(struct lwm_devcomm *d); /* NULL is fine; before its device's memory goes */

struct lwm_comm *lwm_devcomm_comm(const struct lwm_devcomm *d);  /* local */
const char *lwm_devcomm_kind(const struct lwm_devcomm *d);       /* local: "host", "staged", "nccl" */

int lwm_devcomm_sum_f32(struct lwm_devcomm *d, float *p, int64_t n, struct lwm_err *e); /* in place */
/* mine (n / size): this rank's slice of the sum of in (n). Not in place. */
int lwm_devcomm_reduce_scatter_f32(struct lwm_devcomm *d, const float *in, float *mine, int64_t n, struct lwm_err *e);
/* all: size * bytes. mine may be its own place in all. */
int lwm_devcomm_allgather(struct lwm_devcomm *d, const void *mine, size_t bytes, void *all, struct lwm_err *e);
/* ---- behind what the device computes ----
 *
 *	lwm_devcomm_begin_allgather(d, mine, bytes, all, &op, e);
 *	lk_matmul(dev, ...);                                     does not touch mine nor all
 *	lwm_devcomm_wait(d, op, e);                              the device's later work sees all
 *
 * What the device was given before begin is what is sent. Order, limits and failures as in comm.h (lwm_comm_begin_allgather): the
 * same order of begins on all ranks, waited for in any order, each of them, after a failure too, and before its memory goes. Of
 * several devcomms of a device all ranks begin in the same order. Results are those of the blocking calls bit for bit.
 *	host     carried by the communicator's thread; wait blocks the host
 *	staged   begin waits for the device and copies down; wait blocks the host and copies up. Pinned memory is kept for what was
 *	         in flight at once: of an all-gather (size + 1) * bytes, of a scattered sum 4 n + 4 n / size, of a sum 4 n
 *	nccl     on the group's queue; neither begin nor wait blocks the host */
struct lwm_devcomm_op; /* owned by the devcomm; gone after wait */

/* *op: what to wait for, NULL when there is nothing left to do. */
int lwm_devcomm_begin_allgather(struct lwm_devcomm *d, const void *mine, size_t bytes, void *all, struct lwm_devcomm_op **op,
				struct lwm_err *e);
int lwm_devcomm_begin_sum_f32(struct lwm_devcomm *d, float *p, int64_t n, struct lwm_devcomm_op **op, struct lwm_err *e);
int lwm_devcomm_begin_reduce_scatter_f32(struct lwm_devcomm *d, const float *in, float *mine, int64_t n,
					 struct lwm_devcomm_op **op, struct lwm_err *e);
/* lwm_comm_begin_chain_f32, where device memory is host memory; elsewhere -LWM_EUNAVAIL. */
int lwm_devcomm_begin_chain_f32(struct lwm_devcomm *d, const float *in, int64_t slice, int shards, float *mine,
				struct lwm_devcomm_op **op, struct lwm_err *e);
int lwm_devcomm_wait(struct lwm_devcomm *d, struct lwm_devcomm_op *op, struct lwm_err *e); /* op NULL is fine */

/* One send and one receive that overlap with what the device is given in between; 0 bytes: nothing that way. send is not
 * written, recv not touched until finish, which the device's later work waits for. At most 8 in flight, finished in order. */
int lwm_devcomm_start(struct lwm_devcomm *d, int to, const void *send, size_t send_bytes, int from, void *recv,
		      size_t recv_bytes, struct lwm_err *e);
int lwm_devcomm_finish(struct lwm_devcomm *d, struct lwm_err *e);
/* Before something waits for the device without an end: until all exchanges are over, -LWM_ERANK when a rank does not come. */
int lwm_devcomm_settle(struct lwm_devcomm *d, struct lwm_err *e);

#endif
