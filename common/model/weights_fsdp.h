/* weights_fsdp.h - weights that are cut by group over ranks: gathered when they are used, their gradients scattered.
 *
 * A body of weights.h. A rank has its slices of all groups (tensor/cut.h) and, for as long as a group is in use, all of it, in one
 * of a few slots of the size of the largest group:
 *
 *	lwm_fsdp_new(&s, dev, dtype, &table, &cut, own, grad, ranks, &how, e)
 *	lwm_fsdp_begin(s, e)                     before the microbatches of a step: gradients begin at 0
 *	w = lwm_fsdp_supply(s)                   for lwm_llama_step: as many microbatches as there are; w->more before the last
 *	... grad now holds the sum over the ranks; the weights in `own` are updated ...
 *	lwm_fsdp_renew(s)                        what lies in slots is old now
 *	lwm_fsdp_free(s)
 *
 * While a group computes, the next `ahead` groups of the pass are gathered: rising in the forward, falling in the backward. A group
 * whose gradient is ready is summed and scattered while the next ones compute. Groups that still lie in a slot are not gathered
 * again, so that with n layers a microbatch gathers n + 2 groups and, again for the backward, n - ahead (FSDP, Zhao et al. 2023).
 *
 * Gradients of several microbatches: either each of them is scattered, and what arrives is added up (`whole` false: only groups in
 * use are held), or all are added on each rank and scattered in the last (`whole`: 4 bytes for each weight of the model,
 * communicated once). Sums over ranks are those of lwm_devcomm_reduce_scatter_f32. Or each of them is added by a chained sum over
 * all ranks, replicas too (`chain`), so that the sum does not depend on how many ranks share the microbatches.
 */
#ifndef LWM_MODEL_WEIGHTS_FSDP_H
#define LWM_MODEL_WEIGHTS_FSDP_H

#include "common/comm/devcomm.h"
#include "common/model/weights.h"
#include "common/tensor/cut.h"

struct lwm_fsdp_how {
	int ahead;   /* groups that are gathered before they are asked for, 0 and more */
	bool whole;  /* gradients are added up whole and scattered in the last microbatch */
	bool chain;  /* chained sums, `whole` false: lwm_fsdp_chain follows lwm_fsdp_new */
	bool poison; /* for tests, on devices whose memory is the host's: what is given back is overwritten with NaNs, and gathered
		      * again when it is asked for again */
};

struct lwm_fsdp;
/* Local. Bytes of device memory that lwm_fsdp_new allocates: slots of weights; slots of gradients and what arrives of them, or all
 * gradients. t: the table of the flat vector; of one that has embeddings and no heads the first
 * group is used with the last. */
int64_t lwm_fsdp_bytes(const struct lwm_tensors *t, const struct lwm_cut *cut, int dtype, const struct lwm_fsdp_how *how);
/* Local. Those of them that are slots of weights; the rest is of gradients. */
int64_t lwm_fsdp_gathered(const struct lwm_tensors *t, const struct lwm_cut *cut, int dtype, const struct lwm_fsdp_how *how);
/* Pure. Of all of them those that no step writes to, and that on a host lie in no memory: the gradient of embeddings that are the
 * head too has a slot of the largest group. */
int64_t lwm_fsdp_unfilled(const struct lwm_tensors *t, const struct lwm_cut *c, const struct lwm_fsdp_how *how);
/* Local. own: the compute weights of the cut's local vector, in dtype; grad: fp32, likewise, summed gradients are added to it. Both
 * and the group list of the cut are borrowed, as is `ranks`: the shards, in the order of the cut. */
int lwm_fsdp_new(struct lwm_fsdp **out, struct lk_dev *dev, int dtype, const struct lwm_tensors *t, const struct lwm_cut *cut,
		  const void *own, float *grad, struct lwm_devcomm *ranks, const struct lwm_fsdp_how *how, struct lwm_err *e);
/* Local. all (borrowed): shards and replicas, in the order of the cut. Of a group's slice in `grad` each replica then sums up its
 * part (lwm_comm_chain_part) and leaves the rest as it is: to be summed over the replicas once a step. What is COLLECTIVE over
 * `ranks` is over `all`. */
void lwm_fsdp_chain(struct lwm_fsdp *s, struct lwm_devcomm *all);
void lwm_fsdp_free(struct lwm_fsdp *s); /* NULL is fine. Local; nothing may be under way: lwm_supply_agree */

/* Its acquire, grad_ready and agree are COLLECTIVE over `ranks`: all do the same steps, whatever has failed on some of them. */
struct lwm_supply *lwm_fsdp_supply(struct lwm_fsdp *s);
int lwm_fsdp_begin(struct lwm_fsdp *s, struct lwm_err *e); /* local */
void lwm_fsdp_renew(struct lwm_fsdp *s);                   /* local */

#endif
