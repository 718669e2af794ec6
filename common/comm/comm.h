/* comm.h - groups of ranks that exchange bytes of host memory. (Device memory: devcomm.h; the grid of a training run: mesh.h.)
 *
 *	lwm_comm_self | lwm_comm_threads | lwm_comm_mpi      one process; threads as ranks; MPI processes
 *	lwm_comm_split                                       parts of a group
 *	lwm_comm_bcast, _allgather, _sum_f32, ...            everyone, in the same order
 *	lwm_agree                                            after whatever may have failed on some ranks only
 *	lwm_comm_end                                         of a tool; lwm_comm_free otherwise
 *
 * Every function is COLLECTIVE over the communicator unless it says local: all ranks call it, in the same order. Failing
 * ranks do not leave alone: before a collective that depends on local success, callers use lwm_agree, after which every
 * rank returns the worst code and knows the sentence of the lowest failing rank.
 *
 * Floating-point sums are formed in rank order, so results do not depend on timing. -LWM_ERANK: another rank is lost, and the group
 * with it. A communicator belongs to one thread at a time.
 */
#ifndef LWM_COMM_COMM_H
#define LWM_COMM_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct lwm_comm;

/* ---- groups ---- */

/* Local. A group of one. */
int lwm_comm_self(struct lwm_comm **out, struct lwm_err *e);
/* Local. Runs fn on n threads, each with its rank's communicator (borrowed); returns the failure that caused the others, or 0. For
 * tests and for several ranks in one process. */
typedef int lwm_rank_fn(struct lwm_comm *c, void *arg, struct lwm_err *e);
int lwm_comm_threads(int n, lwm_rank_fn *fn, void *arg, struct lwm_err *e);
/* In libcommmpi.a only (comm_mpi.c), so that tools without ranks do not link MPI. *world is MPI_COMM_WORLD; when the program was
 * not started by a launcher it is a group of one. -LWM_EUNAVAIL: MPI cannot be started, or there are several tasks each of which
 * MPI sees alone (srun without a PMI that MPI speaks), unless LWM_ALONE=1. lwm_comm_free of the world finalizes MPI. */
int lwm_comm_mpi(struct lwm_comm **world, int *argc, char ***argv, struct lwm_err *e);
void lwm_comm_free(struct lwm_comm *c); /* NULL is fine; collective for MPI */

int lwm_comm_rank(const struct lwm_comm *c); /* local */
int lwm_comm_size(const struct lwm_comm *c); /* local */
/* Ranks of equal color form a group, ordered by key then rank. color < 0: *out is NULL for this rank. */
int lwm_comm_split(struct lwm_comm *c, int color, int key, struct lwm_comm **out, struct lwm_err *e);

/* Local, pure, for plans: bytes of work space that each rank of a group of `size` takes for sums and scattered sums of n floats. */
int64_t lwm_comm_work(int size, int64_t n);

/* ---- collectives ---- */

int lwm_comm_barrier(struct lwm_comm *c, struct lwm_err *e);
int lwm_comm_bcast(struct lwm_comm *c, void *p, size_t bytes, int root, struct lwm_err *e);
/* all: size*bytes, the parts in rank order. mine may be its own place in all. */
int lwm_comm_allgather(struct lwm_comm *c, const void *mine, size_t bytes, void *all, struct lwm_err *e);
/* All-reduce in place: everyone ends with the sums, the largest values. Of doubles and integers few: all are gathered. */
int lwm_comm_sum_f32(struct lwm_comm *c, float *p, int64_t n, struct lwm_err *e);
int lwm_comm_sum_f64(struct lwm_comm *c, double *p, int64_t n, struct lwm_err *e);
int lwm_comm_max_i64(struct lwm_comm *c, int64_t *p, int64_t n, struct lwm_err *e);
/* Rank r ends with slice r of the sum, a slice being n/size elements. -LWM_EINTERNAL: n is no multiple of size. */
int lwm_comm_reduce_scatter_f32(struct lwm_comm *c, const float *in, float *mine, int64_t n, struct lwm_err *e);

/* One send and one receive that overlap with computation: start, compute, finish. The buffers are the caller's again after finish.
 * At most 8 pairs in flight, finished in the order they were started. Peers may be the rank itself. 0 bytes: nothing that way.
 * Collective in that whoever is sent to receives as much. */
int lwm_comm_start(struct lwm_comm *c, int to, const void *send, size_t send_bytes, int from, void *recv, size_t recv_bytes,
		   struct lwm_err *e);
int lwm_comm_finish(struct lwm_comm *c, struct lwm_err *e);

/* ---- agreement ---- */

/* Everyone gets the most severe rc (the one with the lowest rank when equal) and its sentence, on other ranks as
 * "rank 3: sentence"; e->who tells the one from the others. -LWM_ERANK and a failure that is LWM_ERR_ALONE come back
 * at once: the others would not hear. */
int lwm_agree(struct lwm_comm *c, int rc, struct lwm_err *e);
/* For tools: the end of a job. Frees the world. A failure that the others do not know of ends all ranks with its code
 * (on MPI this does not return); nobody waits longer than a minute for a rank that does not come. Returns rc. */
int lwm_comm_end(struct lwm_comm *world, int rc, const struct lwm_err *e);

#endif
