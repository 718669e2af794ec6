/* weights.h - the flat vectors of a stage on one rank: weights, gradient, optimizer state, and AdamW over them.
 *
 * The vector is padded to `total` and cut into equal slices, one for each rank of the mesh's LWM_GRAD: a rank owns the master
 * weights and moments of [first, first + count) (ZeRO stage 1, Rajbhandari et al. 2020). A step is: gradients summed and scattered,
 * norm, AdamW on the slice, weights gathered. Where activations are fp32 the compute weights are the master weights.
 */
#ifndef LWM_OPTIM_WEIGHTS_H
#define LWM_OPTIM_WEIGHTS_H

#include "common/comm/devcomm.h"
#include "common/tensor/tensor.h"

/* The vectors that a rank owns a slice of. */
enum lwm_state { LWM_STATE_WEIGHTS, LWM_STATE_M, LWM_STATE_V, LWM_STATES };

struct lwm_weights {
	struct lk_dev *dev;
	struct lwm_devcomm *grad_dev; /* borrowed */
	struct lwm_comm *grad_comm;   /* its ranks */
	int64_t total, first, count;
	void *compute;       /* device, dtype, total */
	float *grad;         /* device, total */
	float *master, *m, *v; /* device, count; master points into compute where that is fp32 */
	float *slice;        /* device, count: summed gradient; == grad when there is one rank */
	int dtype;
};

int64_t lwm_weights_bytes(int64_t floats, int ranks, int dtype); /* device bytes of one rank, for the plan */
/* Local. Zeroed moments, undefined weights. floats: length of the flat vector; dtype: of the compute weights. */
int lwm_weights_new(struct lwm_weights *w, struct lk_dev *dev, int dtype, int64_t floats, struct lwm_devcomm *grad_dev,
		    struct lwm_err *e);
void lwm_weights_release(struct lwm_weights *w);

/* Local. Own slice of a group as host memory, to be read and written where it lies; NULL where the device's memory is not the
 * host's. Writing is followed by lwm_weights_put of the same pointer. */
float *lwm_weights_host(struct lwm_weights *w, enum lwm_state g);
/* Own slice of a group between host memory and device. Local. */
int lwm_weights_put(struct lwm_weights *w, enum lwm_state g, const float *host, struct lwm_err *e);
int lwm_weights_take(struct lwm_weights *w, enum lwm_state g, float *host, struct lwm_err *e);
/* Everyone gets everyone's weights. COLLECTIVE. */
int lwm_weights_gather(struct lwm_weights *w, struct lwm_err *e);

int lwm_weights_zero_grad(struct lwm_weights *w, struct lwm_err *e);
/* COLLECTIVE. Sums gradients into slices; *norm = 2-norm of scale * gradient over all ranks. t: the tensors of the flat vector;
 * those that are not trainable have no part in it, nor in the update. */
int lwm_weights_reduce(struct lwm_weights *w, const struct lwm_tensors *t, double scale, double *norm, struct lwm_err *e);
struct lwm_adamw { /* Loshchilov & Hutter 2019 */
	double beta1, beta2, eps, weight_decay;
	bool decay_all; /* tensors that say they do not decay do */
};
/* Local. AdamW of update n (from 0) on the slice: gradients times scale; t as above. */
int lwm_weights_update(struct lwm_weights *w, const struct lwm_tensors *t, const struct lwm_adamw *how, int64_t n, double lr,
		       double scale, struct lwm_err *e);

#endif
