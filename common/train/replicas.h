/* replicas.h - do ranks that hold the same weights hold the same bits, and does memory keep them?
 *
 * A bit that flips in one rank's memory raises no alarm by itself: that rank's gradients are wrong, and what it owns of the weights
 * is handed to all others after the next update. So weights are hashed (XXH3-64, each tensor by itself) and compared:
 *
 *	lwm_replicas_open(&r, o, &supply.w, e)
 *	a step that is looked at: lwm_replicas_note(&r, e)       at its begin: the hashes of what it will read
 *	                          lwm_replicas_check(&r, step, e) before its update: they are the same still, and those of others
 *	before a save:            lwm_replicas_check(&r, step, e)
 *	lwm_replicas_close(&r)
 *
 * Who holds the same: the replicas of a slice (all ranks that differ in dp, and without sharding in fsdp and sp too) all of their
 * compute weights; ranks of tensor parallelism what they have in common (lwm_part_copies: norms, shared key heads). The latter not
 * where NCCL sums gradients over several such groups, each in an order of its own: there they may differ in the last bits.
 *
 * Where a rank's hash changed from the note to the check the fault is its own, certainly, and needs no second copy. Else the fault
 * is with those whose hash fewer ranks have; of as many it cannot be told, and both are named. What this cannot see: a flip in a
 * step that is not looked at, in weights that the gather after the update writes anew; its gradient was wrong, once.
 */
#ifndef LWM_TRAIN_REPLICAS_H
#define LWM_TRAIN_REPLICAS_H

#include "common/optim/weights.h"
#include "common/train/objective.h"

enum { LWM_REPLICAS_HOST = 64 };

struct lwm_replicas {
	const struct lwm_objective *o; /* borrowed, as is the next one */
	const struct lwm_weights *w;
	struct lwm_cut held;           /* the local vector of this rank, all of it; its groups are borrowed */
	uint64_t *now, *then;          /* of each tensor: hashed last, and noted; 0: nothing of it lies here */
	char *buffer;                  /* where the device's memory is not the host's */
	bool noted, shares;            /* shares: what tensor-parallel ranks have in common is compared too */
	int rank;                      /* of the world: whom the last check named, -1 nobody */
	char host[LWM_REPLICAS_HOST];  /* its node */
};

/* Local. w: of an open run, its weights may still be undefined. -LWM_EMEMORY. One rank alone takes no memory, and all of the
 * following does nothing. */
int lwm_replicas_open(struct lwm_replicas *r, const struct lwm_objective *o, const struct lwm_weights *w, struct lwm_err *e);
void lwm_replicas_close(struct lwm_replicas *r); /* of zeros is fine */
/* Local. Reads all compute weights of this rank. Nothing is noted for an objective that writes weights itself (type->by_group
 * false). */
int lwm_replicas_note(struct lwm_replicas *r, struct lwm_err *e);
/* COLLECTIVE over the world; all return the same. Reads all compute weights of this rank and sends 24 bytes to each other rank, 8
 * for each tensor to those of tensor parallelism; where something differs 16 for each tensor to all. What was noted is forgotten.
 * -LWM_ENUMERIC: rank, host and tensor are named by the sentence, the first two by r as well. step: for the sentence. */
int lwm_replicas_check(struct lwm_replicas *r, int64_t step, struct lwm_err *e);

#endif
