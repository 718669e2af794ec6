/* comm_int.h - between comm.c and its bodies; nobody else includes it.
 *
 * A body moves bytes; comm.c builds reductions, agreement and checks on that, so that sums are formed in rank order whichever body
 * carries them. It calls barrier, bcast, allgather and alltoall only in groups of two and more, and never with 0 bytes, so a
 * body for a single rank leaves them out.
 */
#ifndef LWM_COMM_COMM_INT_H
#define LWM_COMM_COMM_INT_H

#include <stdatomic.h>

#include "common/comm/comm.h"

/* Ways of moving bytes that reductions are built on; lwm_comm_ops has two of them. */
struct lwm_comm_moves {
	int (*allgather)(struct lwm_comm *c, const void *mine, size_t bytes, void *all, struct lwm_err *e);
	/* slice j of send, which begins at j * stride, goes to rank j; slice j of recv, at j * bytes, comes from rank j; each is
	 * `bytes` long. A rank's own slice stays where it is: what its place in recv holds afterwards is not said */
	int (*alltoall)(struct lwm_comm *c, const void *send, size_t stride, void *recv, size_t bytes, struct lwm_err *e);
};

/* As the functions of the same name in comm.h, unless something is said. */
struct lwm_comm_ops {
	void (*free)(struct lwm_comm *c);
	/* local; the group is lost to the others. MPI: ends every rank of the job with the exit status, and does not return */
	void (*abort)(struct lwm_comm *c, int status);
	int (*split)(struct lwm_comm *c, int color, int key, struct lwm_comm **out, struct lwm_err *e);
	int (*barrier)(struct lwm_comm *c, struct lwm_err *e);
	int (*bcast)(struct lwm_comm *c, void *p, size_t bytes, int root, struct lwm_err *e);
	/* now: the caller has nothing else to do. beside: called by the communicator's thread, while the caller's computes and may
	 * start and finish exchanges; it waits asleep. Never both at the same time. */
	struct lwm_comm_moves now, beside;
	int (*start)(struct lwm_comm *c, int to, const void *send, size_t send_bytes, int from, void *recv,
		     size_t recv_bytes, struct lwm_err *e);
	int (*finish)(struct lwm_comm *c, struct lwm_err *e);
	/* NULL, or: lets exchanges advance that were started and not finished, and does not wait; true: some still have to. *moved:
	 * a part of one has arrived. Called by the communicator's thread, at any time between start and finish, and during them. */
	bool (*advance)(struct lwm_comm *c, bool *moved);
};

struct lwm_comm {
	const struct lwm_comm_ops *ops;
	int rank, size;
	void *impl;                   /* of the body */
	float *work;                  /* of reductions: 2 * LWM_COMM_CHUNK floats; NULL in a group of one */
	struct lwm_comm_queue *queue; /* what was begun; NULL in a group of one */
	_Atomic uint64_t sent;
	atomic_int waiting; /* calls that wait for other ranks now */
};

enum {
	LWM_COMM_CHUNK = 1 << 20, /* floats that are summed at a time */
	LWM_COMM_INFLIGHT = 8     /* exchanges started and not finished */
};

/* ---- comm.c ---- */

/* A handle with its work space; NULL: out of memory. */
struct lwm_comm *lwm_comm_new_handle(const struct lwm_comm_ops *ops, int rank, int size, void *impl);
void lwm_comm_free_handle(struct lwm_comm *c); /* of the body nothing is freed */

/* ---- comm_sum.c: sums on top of moves, in groups of two and more; each uses c->work ---- */

int lwm_comm_move_sum(struct lwm_comm *c, const struct lwm_comm_moves *by, float *p, int64_t n, struct lwm_err *e);
int lwm_comm_move_scatter(struct lwm_comm *c, const struct lwm_comm_moves *by, const float *in, float *mine, int64_t n,
			  struct lwm_err *e);

/* lwm_comm_begin_chain_f32, now. */
int lwm_comm_move_chain(struct lwm_comm *c, const struct lwm_comm_moves *by, const float *in, int64_t slice, int shards,
			float *mine, struct lwm_err *e);

/* ---- comm_queue.c: a thread that carries out what was begun, in order; it starts with the first of it ---- */

/* What is to be done, by the communicator's thread. n: floats, or bytes. */
struct lwm_comm_task {
	int (*carry)(struct lwm_comm *c, const struct lwm_comm_task *t, struct lwm_err *e);
	const void *in;
	void *out;
	int64_t n;
	int shards; /* of a chained sum */
};

struct lwm_comm_queue *lwm_comm_queue_new(struct lwm_comm *c); /* local, as all of these; NULL: out of memory */
void lwm_comm_queue_free(struct lwm_comm_queue *q);            /* waits for what was begun; NULL is fine */
int lwm_comm_queue_begin(struct lwm_comm_queue *q, const struct lwm_comm_task *t, struct lwm_comm_op **op, struct lwm_err *e);
int lwm_comm_queue_wait(struct lwm_comm_queue *q, struct lwm_comm_op *op, struct lwm_err *e);
void lwm_comm_queue_drain(struct lwm_comm_queue *q); /* until all that was begun is done */
/* An exchange was started: from now on ops->advance is called until it returns false. */
int lwm_comm_queue_advance(struct lwm_comm_queue *q, struct lwm_err *e);

/* A pause between two looks at something of which nothing has moved since `since` (lwm_now): short for as long as it may be under
 * way, then longer and longer, so that a thread that looks takes little from one that computes; none at first while the caller
 * waits as well. */
void lwm_comm_pause(struct lwm_comm *c, double since);

#endif
