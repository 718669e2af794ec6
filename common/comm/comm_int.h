/* comm_int.h - between comm.c and its bodies; nobody else includes it.
 *
 * A body moves bytes; comm.c builds reductions, agreement and checks on that, so that sums are formed in rank order whichever body
 * carries them. comm.c calls barrier, bcast, allgather and alltoall only in groups of two and more, and never with 0 bytes, so a
 * body for a single rank leaves them out.
 */
#ifndef LWM_COMM_COMM_INT_H
#define LWM_COMM_COMM_INT_H

#include "common/comm/comm.h"

/* As the functions of the same name in comm.h, unless something is said. */
struct lwm_comm_ops {
	void (*free)(struct lwm_comm *c);
	/* local; the group is lost to the others. MPI: ends every rank of the job with the exit status, and does not return */
	void (*abort)(struct lwm_comm *c, int status);
	int (*split)(struct lwm_comm *c, int color, int key, struct lwm_comm **out, struct lwm_err *e);
	int (*barrier)(struct lwm_comm *c, struct lwm_err *e);
	int (*bcast)(struct lwm_comm *c, void *p, size_t bytes, int root, struct lwm_err *e);
	int (*allgather)(struct lwm_comm *c, const void *mine, size_t bytes, void *all, struct lwm_err *e);
	/* slice j of send goes to rank j, slice j of recv comes from rank j; each `bytes` long */
	int (*alltoall)(struct lwm_comm *c, const void *send, void *recv, size_t bytes, struct lwm_err *e);
	int (*start)(struct lwm_comm *c, int to, const void *send, size_t send_bytes, int from, void *recv,
		     size_t recv_bytes, struct lwm_err *e);
	int (*finish)(struct lwm_comm *c, struct lwm_err *e);
};

struct lwm_comm {
	const struct lwm_comm_ops *ops;
	int rank, size;
	void *impl;  /* of the body */
	float *work; /* of reductions: 2 * LWM_COMM_CHUNK floats; NULL in a group of one */
};

enum {
	LWM_COMM_CHUNK = 1 << 20, /* floats that are summed at a time */
	LWM_COMM_INFLIGHT = 8     /* exchanges started and not finished */
};

/* A handle with its work space; NULL: out of memory. */
struct lwm_comm *lwm_comm_new_handle(const struct lwm_comm_ops *ops, int rank, int size, void *impl);
void lwm_comm_free_handle(struct lwm_comm *c); /* of the body nothing is freed */

#endif
