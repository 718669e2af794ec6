/* weights.h - where a model's weights come from: one interface, several bodies.
 *
 * A model never sees all of its weights at once. It asks for a group of them (struct lwm_tensor.group: a layer, the embeddings, the
 * last norm and the heads) when it is about to use it, and gives it back:
 *
 *	lwm_supply_acquire(w, &group, LWM_WEIGHTS, &at, failed, e)      forward: groups in rising order
 *	lwm_supply_release(w, &group)
 *	lwm_supply_acquire(w, &group, LWM_WEIGHTS | LWM_GRADS, &at, ...)  loss and backward: groups in falling order
 *	lwm_supply_release(w, &group)
 *	lwm_supply_grad_ready(w, &group, failed, e)                     this step adds nothing more to the group's gradient
 *	lwm_supply_agree(w, rc, e)                                      before the first acquire, and at the end
 *
 * Each acquire has its release; a group may be acquired again before that (tied embeddings are the head too) and then lies where it
 * lay. A gradient stays where it is from the first acquire with LWM_GRADS to grad_ready, releases or not. grad_ready comes once for
 * each group and step, after the last kernel that adds to it was queued, and before the group's next acquire.
 *
 * Where ranks share the model (llama.h, tensor parallelism) all of this is about what one of them holds: groups are those of the
 * local table, and with grad_ready its gradient is whole over those ranks. The norm of all gradients counts a tensor that several
 * ranks hold (lwm_part_copies) once.
 *
 * Bodies: lwm_flat_weights (below): everything lies on every rank in one flat vector, and all of this costs nothing.
 * lwm_shifted_weights (below): those of a second model, among all.
 * lwm_fsdp (weights_fsdp.h): weights that are cut over ranks gather a group in acquire and scatter its gradient in grad_ready.
 */
#ifndef LWM_MODEL_WEIGHTS_H
#define LWM_MODEL_WEIGHTS_H

#include <stdbool.h>

#include "common/tensor/cut.h"

enum { LWM_WEIGHTS = 1, LWM_GRADS = 2 }; /* what of a group is wanted */

/* Device memory of a group: element i of the flat vector is w[i - group.offset], likewise g. NULL: not asked for. */
struct lwm_supplied {
	const void *w; /* in the device's dtype */
	float *g;      /* fp32, added into */
};

struct lwm_supply;
struct lwm_supply_ops {
	/* The group in device memory until its release. failed != 0: an earlier failure of this rank. Where ranks take part
	 * together, all go through all exchanges even so; what lies in *at then is nobody's business. Returns the first failure of
	 * this rank, `failed` included. */
	int (*acquire)(struct lwm_supply *w, const struct lwm_group *g, unsigned what, struct lwm_supplied *at, int failed,
		       struct lwm_err *e);
	void (*release)(struct lwm_supply *w, const struct lwm_group *g);
	/* The gradient is whole, once what is queued has run. `failed` as above. */
	int (*grad_ready)(struct lwm_supply *w, const struct lwm_group *g, int failed, struct lwm_err *e);
	/* Ends the exchanges under way and agrees on rc with those that take part in them, as lwm_agree: all return the same. NULL:
	 * nobody takes part. */
	int (*agree)(struct lwm_supply *w, int rc, struct lwm_err *e);
};

/* First member of every body. */
struct lwm_supply {
	const struct lwm_supply_ops *ops;
	bool grads;  /* gradients are wanted */
	float scale; /* of the loss times this (optim/scale.h): an objective that says `scales` forms them so; 0: 1 */
	bool more;   /* another step follows, whose gradients are added to those of this one: microbatches */
	bool shared; /* other ranks take part: they go through as many steps */
	/* Of the flat vector, borrowed: gradients of what neither trains in it nor has adapters need not be formed. NULL: all are
	 * wanted. */
	const struct lwm_tensors *table;
};

static inline float lwm_supply_scale(const struct lwm_supply *w)
{
	return w->scale > 0 ? w->scale : 1;
}

static inline int lwm_supply_acquire(struct lwm_supply *w, const struct lwm_group *g, unsigned what, struct lwm_supplied *at,
				     int failed, struct lwm_err *e)
{
	return w->ops->acquire(w, g, what, at, failed, e);
}
static inline void lwm_supply_release(struct lwm_supply *w, const struct lwm_group *g)
{
	w->ops->release(w, g);
}
static inline int lwm_supply_grad_ready(struct lwm_supply *w, const struct lwm_group *g, int failed, struct lwm_err *e)
{
	return w->ops->grad_ready(w, g, failed, e);
}
static inline int lwm_supply_agree(struct lwm_supply *w, int rc, struct lwm_err *e)
{
	return w->ops->agree ? w->ops->agree(w, rc, e) : rc;
}

/* ---- a model whose weights lie behind those of another one ---- */

/* Counts its groups from 0, as every model does: they are groups `index` and on of `to`, elements `offset` and on. */
struct lwm_shifted_weights {
	struct lwm_supply base;
	struct lwm_supply *to; /* borrowed */
	int64_t index, offset;
};
/* index and offset are set. What is wanted of `to` is wanted of it; to be called again when that changes. Nothing to free.
 * Local. */
void lwm_shifted_weights_to(struct lwm_shifted_weights *s, struct lwm_supply *to);

/* ---- all weights in one flat vector, on every rank ---- */

struct lk_dev;
struct lwm_devcomm;
struct lwm_flat_weights {
	struct lwm_supply base;
	const char *compute;
	float *grad;
	size_t size; /* bytes of a weight */
	/* after lwm_flat_weights_chain */
	struct lk_dev *dev;
	struct lwm_devcomm *ranks;
	float *sum;
	const struct lwm_cut *cut;
};
/* Device memory of the caller, laid out by the model's table. compute: in `dtype` (LK_*), that of the device. grad: fp32, added
 * into; NULL: no gradients are wanted. Nothing to free. Local. */
struct lwm_flat_weights lwm_flat_weights_of(const void *compute, int dtype, float *grad);
/* Local. From now on the gradient of every step of the model (a microbatch) is added by a chained sum over `ranks` (comm.h) to
 * `sum`, what this rank owns by `cut` of one shard, and is 0 again after it: the sum of the steps does not depend on how many ranks
 * share them, as long as they are dealt in turn. grad has cut->local elements, 0 before the first. dev, ranks, sum and cut are
 * borrowed; all ranks go through as many steps, and what is COLLECTIVE over shared weights is over `ranks`. */
void lwm_flat_weights_chain(struct lwm_flat_weights *f, struct lk_dev *dev, struct lwm_devcomm *ranks, float *sum,
			    const struct lwm_cut *cut);

#endif
