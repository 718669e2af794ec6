/* trunk.h - the layers of a LLaMA over vectors instead of ids: what objectives over patches of video share with next-token.
 *
 * A configuration with input_dim is a trunk: model.input_proj.weight (dim, input_dim) makes the first residual stream of vectors,
 * what comes out is that of the last layer through model.norm.weight. Layers and that norm are those of a language model, with the
 * same names and shapes. What follows them, a head with its loss, is the caller's, whose weights may follow the norm in the same
 * group. A pass:
 *
 *	lwm_trunk_begin(m, &b, w, e)        checks; all ranks that share w
 *	lwm_trunk_forward(m)
 *	h = lwm_trunk_hidden(m)             (n,D): the hidden states
 *	dh = lwm_trunk_hidden_grad(m)       (n,D), which the caller fills with the gradient of its loss
 *	lwm_trunk_backward(m)               to the gradients of all weights of the trunk
 *	lwm_trunk_end(m, e)                 what came of it
 *
 * Shapes: n vectors (one for each token), D dim. h and dh are device memory in the device's dtype, from lwm_trunk_forward until the
 * next begin. Backward may be left out; it needs run.train and w->grads. Gradients are added. Neither tensor parallelism nor a ring
 * of ranks: refused by lwm_llama_new. A failure is kept until the end, and nothing is computed after it.
 *
 * Who sees whom: run.no_causal, every token all of its segment; else those whose `see` is no larger than its own, so that tokens
 * with the same one, of a frame say, see each other both ways. What rotates queries and keys is `pos`.
 */
#ifndef LWM_MODEL_TRUNK_H
#define LWM_MODEL_TRUNK_H

#include "common/model/llama.h"

/* Host arrays, borrowed from begin to end. */
struct lwm_trunk_batch {
	int64_t n;
	const float *vectors; /* (n, input_dim); with run.device_vectors NULL, and then */
	const void *on_device; /* the same in memory and dtype of the device, not written */
	void *gradient;        /* likewise: overwritten by backward with the gradient of the vectors; NULL: not wanted */
	const int32_t *seg;   /* segment; < 0 padding */
	const int32_t *pos;   /* for rotary angles */
	const int32_t *see;   /* for causality; NULL: pos */
};

/* COLLECTIVE over those that share w, as are backward's releases and end (weights.h). -LWM_ECONFIG, -LWM_EINTERNAL. */
int lwm_trunk_begin(struct lwm_llama *m, const struct lwm_trunk_batch *b, struct lwm_supply *w, struct lwm_err *e);
void lwm_trunk_forward(struct lwm_llama *m);
struct lk_view lwm_trunk_hidden(const struct lwm_llama *m);
struct lk_view lwm_trunk_hidden_grad(const struct lwm_llama *m);
void lwm_trunk_backward(struct lwm_llama *m);
int lwm_trunk_end(struct lwm_llama *m, struct lwm_err *e);
/* 0 or the first failure so far; with rc, of the caller's own part, that is it where there is none yet. */
int lwm_trunk_fail(struct lwm_llama *m, int rc, const struct lwm_err *why);

#endif
