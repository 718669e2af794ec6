/* weights.h - the vectors of a stage on one rank: weights, gradient, optimizer state, and AdamW over them.
 *
 * How they are cut over ranks is a struct lwm_cut (tensor/cut.h). A rank has compute weights and summed gradients of its local
 * vector and, of an equal piece of that for each replica, master weights and moments. With one shard the local vector is all
 * weights, and every rank is a replica (ZeRO stage 1, Rajbhandari et al. 2020); with several it is a slice of each group of
 * tensors, which others gather when they use it (model/weights_fsdp.h). A step is: gradients summed and scattered over the
 * replicas, norm, AdamW on the own piece, pieces gathered by the replicas. Where activations are fp32 the compute weights are the
 * master weights.
 *
 * Tensors that are not trainable (tensor/choose.h) have weights, and a gradient that counts for nothing, but no moments and no
 * average: of these there are `cut.trained` elements (cut.h), as many on each replica but for rounding. Gradients of what neither
 * trains nor has adapters are not exchanged, nor are its weights after the first time.
 */
#ifndef LWM_OPTIM_WEIGHTS_H
#define LWM_OPTIM_WEIGHTS_H

#include "common/comm/devcomm.h"
#include "common/tensor/cut.h"

/* The vectors that a rank owns a piece of. */
enum lwm_state { LWM_STATE_WEIGHTS, LWM_STATE_M, LWM_STATE_V, LWM_STATE_AVERAGE, LWM_STATES };

/* Which tensors count in the norm of this rank's gradients: what several of tp tensor-parallel ranks hold counts once. */
struct lwm_norm_share {
	const struct lwm_tensors *whole, *local; /* of the model, and of the flat vector; borrowed */
	int tp, tp_rank;                         /* tp 0 or 1: all of it counts, and the tables may be NULL */
};

struct lwm_lora;
struct lwm_weights {
	struct lk_dev *dev;
	struct lwm_devcomm *replicas; /* ranks that have the same slices, in the order of the cut; NULL: there is one. Borrowed */
	struct lwm_comm *ranks;       /* all that the weights are cut over, those of tensor parallelism too. Borrowed */
	struct lwm_cut cut;           /* of this rank; its groups are borrowed */
	struct lwm_norm_share share;  /* zero after lwm_weights_new; to be set where tp > 1 */
	void *compute;         /* device, dtype, cut.local */
	float *grad;           /* device, cut.local */
	float *master;         /* device, cut.count; points into compute where that is fp32, unless parted; NULL: they lie there
				* stretch by stretch (cut.spread), and lwm_weights_put and _take know where */
	float *m, *v;          /* device, cut.trained */
	float *average;        /* the same; NULL: no average is kept */
	float *slice;          /* device, cut.count: the sum over the replicas; == grad when there is one, unless it is chained */
	int dtype;
	bool chained;
	bool parted;           /* master weights are apart from compute weights of fp32, too */
	struct lwm_lora *lora; /* of what compute weights are but masters (lora.h); NULL: of nothing. Borrowed */
};

/* Device bytes of one rank by kind: weights, those in fp32 beside them too; gradients; moments; an average, where one is kept. */
struct lwm_weights_room {
	int64_t weights, gradients, moments, average;
};
/* dev: as it takes them (lk_mem_own); NULL: as they are asked for. */
struct lwm_weights_room lwm_weights_room_of(const struct lwm_cut *cut, int dtype, bool chained, const struct lk_dev *dev);
/* Local. Zeroed moments, undefined weights and gradient. dtype: of the compute weights; cut: of this rank. chained: sums are the
 * same on any number of ranks, where device memory is host memory. What adds up gradients does that (lwm_flat_weights_chain, into
 * `slice`; lwm_fsdp_chain), the norm is of the exact sum of squares. */
int lwm_weights_new(struct lwm_weights *w, struct lk_dev *dev, int dtype, const struct lwm_cut *cut, struct lwm_devcomm *replicas,
		    struct lwm_comm *ranks, bool chained, struct lwm_err *e);
void lwm_weights_release(struct lwm_weights *w);
/* Local. From now on master weights have memory of their own, cut.count floats more where compute weights are fp32; undefined
 * still. */
int lwm_weights_part_master(struct lwm_weights *w, struct lwm_err *e);
/* Local. From now on there is an average, whose values are undefined still. */
int lwm_weights_keep_average(struct lwm_weights *w, struct lwm_err *e);

/* Elements of a vector: cut.count of the weights, else cut.trained. */
static inline int64_t lwm_weights_count(const struct lwm_weights *w, enum lwm_state g)
{
	return g == LWM_STATE_WEIGHTS ? w->cut.count : w->cut.trained;
}

/* Local. Own piece of a vector as host memory, to be read and written where it lies; NULL where the device's memory is not the
 * host's, or the piece lies in several. Writing is followed by lwm_weights_put of the same pointer. */
float *lwm_weights_host(struct lwm_weights *w, enum lwm_state g);
/* Own piece of a vector, lwm_weights_count values, between host memory and device. Local. */
int lwm_weights_put(struct lwm_weights *w, enum lwm_state g, const float *host, struct lwm_err *e);
int lwm_weights_take(struct lwm_weights *w, enum lwm_state g, float *host, struct lwm_err *e);
/* All replicas get each other's weights of the local vector; after an update those that it changed. COLLECTIVE. */
int lwm_weights_gather(struct lwm_weights *w, struct lwm_err *e);
int lwm_weights_gather_moved(struct lwm_weights *w, struct lwm_err *e);

/* Local. */
int lwm_weights_zero_grad(struct lwm_weights *w, struct lwm_err *e);
/* COLLECTIVE. Sums gradients over the replicas; *norm = 2-norm of scale * gradient over all ranks. t: the tensors of the flat
 * vector; those that are not trainable have no part in it, nor in the update. */
int lwm_weights_reduce(struct lwm_weights *w, const struct lwm_tensors *t, double scale, double *norm, struct lwm_err *e);
struct lwm_adamw { /* Loshchilov & Hutter 2019 */
	double beta1, beta2, eps, weight_decay;
	bool decay_all; /* tensors that say they do not decay do */
};
/* Local. AdamW of update n (from 0) on the own piece: gradients times scale; t as above, lr times the rate of each tensor. */
int lwm_weights_update(struct lwm_weights *w, const struct lwm_tensors *t, const struct lwm_adamw *how, int64_t n, double lr,
		       double scale, struct lwm_err *e);

/* What follows (tensor.h), after an update: copy = momentum copy + (1 - momentum) weights, in fp32, and the same as compute
 * weights. Momentum 0: they become equal, to the bit. Both local, on the own piece; the summed gradient is overwritten. */
int lwm_weights_follow(struct lwm_weights *w, const struct lwm_tensors *t, double momentum, struct lwm_err *e);
/* Local. Of what an objective has written among compute weights (tensor.h, `written`) the own master weights are the same again. */
int lwm_weights_adopt(struct lwm_weights *w, const struct lwm_tensors *t, struct lwm_err *e);

/* The average of the weights over updates. Both local, on the own piece, of what trains. Begins as a copy of the weights. */
int lwm_weights_begin_average(struct lwm_weights *w, const struct lwm_tensors *t, struct lwm_err *e);
/* average += (1 - decay) (weights - average), after an update; the summed gradient is overwritten. */
int lwm_weights_average(struct lwm_weights *w, const struct lwm_tensors *t, double decay, struct lwm_err *e);
/* The decay of update n, from 1 on: (1 + n) / (10 + n), at most `most`, so that what was first weighs nothing soon (LitEma of
 * latent diffusion, Rombach et al. 2022). Pure. */
double lwm_average_decay(double most, int64_t n);

#endif
