/* comm.h - groups of ranks that exchange bytes of host memory. (Device memory: devcomm.h; the grid of a training run: mesh.h.)
 *
 *	lwm_comm_self | lwm_comm_threads | lwm_comm_mpi      one process; threads as ranks; MPI processes
 *	lwm_comm_split                                       parts of a group
 *	lwm_comm_bcast, _allgather, _sum_f32, ...            everyone, in the same order
 *	lwm_comm_begin_allgather, ..., lwm_comm_wait         the same behind computation
 *	lwm_agree                                            after whatever may have failed on some ranks only
 *	lwm_comm_end                                         of a tool; lwm_comm_free otherwise
 *
 * Every function is COLLECTIVE over the communicator unless it says local: all ranks call it, in the same order. Failing
 * ranks do not leave alone: before a collective that depends on local success, callers use lwm_agree, after which every
 * rank returns the worst code and knows the sentence of the lowest failing rank.
 *
 * Floating-point sums are formed in rank order, so results do not depend on timing. -LWM_ERANK: another rank is lost, and the group
 * with it. A communicator belongs to one thread at a time; different ones may be used by different threads.
 */
#ifndef LWM_COMM_COMM_H
#define LWM_COMM_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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
 * not started by a launcher it is a group of one. -LWM_EUNAVAIL: MPI cannot be started or lets one thread alone call it, or there
 * are several tasks each of which MPI sees alone (srun without a PMI that MPI speaks), unless LWM_ALONE=1. lwm_comm_free of the
 * world finalizes MPI. */
int lwm_comm_mpi(struct lwm_comm **world, int *argc, char ***argv, struct lwm_err *e);
void lwm_comm_free(struct lwm_comm *c); /* NULL is fine; collective for MPI */

int lwm_comm_rank(const struct lwm_comm *c); /* local */
int lwm_comm_size(const struct lwm_comm *c); /* local */
/* Ranks of equal color form a group, ordered by key then rank. color < 0: *out is NULL for this rank. */
int lwm_comm_split(struct lwm_comm *c, int color, int key, struct lwm_comm **out, struct lwm_err *e);

/* Local, pure, for plans: bytes of work space that each rank of a group of `size` takes for sums and scattered sums of n floats,
 * begun ones too: however many are in flight, a communicator carries them out one after the other in the same space. */
int64_t lwm_comm_work(int size, int64_t n);

/* Local: bytes that this rank has handed to other ranks of this group since the communicator was made, those of collectives begun
 * and not done among them. By the volume of the operation, whichever way the body takes (n = size of the group):
 *	all-gather of b bytes a rank    (n - 1) b
 *	scattered sum of k floats       (n - 1) 4 k / n
 *	sum of k floats                 2 (n - 1) 4 ceil(k / n)
 *	chained sum of slices of k      (n - 1) 4 ceil(shards k / n)
 *	sum, maximum of k 8-byte values (n - 1) 8 k
 *	broadcast of b bytes            (n - 1) b on the root, 0 on others
 *	exchange                        send_bytes, unless it goes to the rank itself
 * Splits, barriers and agreement are not counted. */
uint64_t lwm_comm_sent(const struct lwm_comm *c);
void lwm_comm_add_sent(struct lwm_comm *c, uint64_t bytes); /* local; devcomm.h: what the group's devices sent by themselves */

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

/* ---- collectives behind computation ----
 *
 *	lwm_comm_begin_allgather(c, mine, bytes, all, &op, e);
 *	...                                                     neither buffer is touched
 *	lwm_comm_wait(c, op, e);                                now both are the caller's again
 *
 * What is begun is carried out beside the caller by a thread of the communicator, with the bits of the blocking call. Operations
 * of one communicator are carried out in the order begun, which is the same on all ranks; any other collective on the same
 * communicator is ordered after them; exchanges (lwm_comm_start) are not ordered with them. They may be waited for in any order,
 * which may differ between ranks, and several communicators may have some in flight, in whatever order their ranks wait.
 *
 * The caller waits for every operation it has begun, after a failure too, before buffers are freed. Begin: -LWM_EINTERNAL when
 * LWM_COMM_BEGUN are in flight; -LWM_ERANK and LWM_ERR_ALONE when this rank cannot take part (no thread). Otherwise a failure comes
 * from wait; -LWM_ERANK: a rank is lost. */
enum { LWM_COMM_BEGUN = 32 };
struct lwm_comm_op; /* owned by the communicator; gone after wait */

/* *op: what to wait for, NULL when there is nothing left to do. Arguments as of the blocking calls of the same names. */
int lwm_comm_begin_allgather(struct lwm_comm *c, const void *mine, size_t bytes, void *all, struct lwm_comm_op **op,
			     struct lwm_err *e);
int lwm_comm_begin_sum_f32(struct lwm_comm *c, float *p, int64_t n, struct lwm_comm_op **op, struct lwm_err *e);
int lwm_comm_begin_reduce_scatter_f32(struct lwm_comm *c, const float *in, float *mine, int64_t n, struct lwm_comm_op **op,
				      struct lwm_err *e);
int lwm_comm_wait(struct lwm_comm *c, struct lwm_comm_op *op, struct lwm_err *e); /* op NULL is fine */

/* ---- sums that do not depend on the number of ranks ----
 *
 * A chained sum adds what each rank brings to sums that stand already, one rank after the other. Several calls thus form one chain,
 * over the ranks of the first call, then those of the second, and so on: when n terms are dealt to the ranks in turn, term i of
 * call i / size to rank i % size, the bits are those of a single rank that adds up all n, for any size that divides n.
 *
 * in: `shards` slices of `slice` floats, shards dividing the size. Of slice r % shards rank r adds up part r / shards: elements
 * [*from, *from + the value returned) of the slice, which is all of it where shards is the size. */
int64_t lwm_comm_chain_part(int size, int rank, int shards, int64_t slice, int64_t *from); /* local, pure */
/* mine: that part, added to. Begun, as above; the sums of calls in flight follow each other. */
int lwm_comm_begin_chain_f32(struct lwm_comm *c, const float *in, int64_t slice, int shards, float *mine, struct lwm_comm_op **op,
			     struct lwm_err *e);

/* One send and one receive that overlap with computation: start, compute, finish. The buffers are the caller's again after finish.
 * At most 8 pairs in flight, finished in the order they were started. Peers may be the rank itself. 0 bytes: nothing that way.
 * Collective in that whoever is sent to receives as much. */
int lwm_comm_start(struct lwm_comm *c, int to, const void *send, size_t send_bytes, int from, void *recv, size_t recv_bytes,
		   struct lwm_err *e);
int lwm_comm_finish(struct lwm_comm *c, struct lwm_err *e);

/* ---- agreement ---- */

/* Local. A mark of n 32-bit words for ranks to compare, begun with LWM_COMM_MARK and continued with more words: FNV-1a, a word at a
 * time. It finds a mix-up, and stands in no file. */
#define LWM_COMM_MARK 14695981039346656037u
static inline uint64_t lwm_comm_mark(uint64_t mark, const void *words, int64_t n)
{
	const char *p = words;

	for (int64_t i = 0; i < n; i++, p += 4) {
		uint32_t word;

		memcpy(&word, p, 4);
		mark = (mark ^ word) * 1099511628211u;
	}
	return mark;
}

/* Everyone gets the most severe rc (the one with the lowest rank when equal) and its sentence, on other ranks as
 * "rank 3: sentence"; e->who tells the one from the others. -LWM_ERANK and a failure that is LWM_ERR_ALONE come back
 * at once: the others would not hear. */
int lwm_agree(struct lwm_comm *c, int rc, struct lwm_err *e);
/* For tools: the end of a job. Frees the world. A failure that the others do not know of ends all ranks with its code
 * (on MPI this does not return); nobody waits longer than a minute for a rank that does not come. Returns rc. */
int lwm_comm_end(struct lwm_comm *world, int rc, const struct lwm_err *e);

#endif
