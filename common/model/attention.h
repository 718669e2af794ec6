/* attention.h - how the tokens of a batch look at each other: one interface, several bodies.
 *
 * A model calls nothing else for attention. For each batch
 *
 *	lwm_attn_begin(a, n, pos, seg, e)                  who is where; before the first layer
 *	lwm_attn_positions(a)                              for the rotation of queries and keys
 *	lwm_attn_forward(a, layer, &x, &o, lse, rc, e)     layers in rising order
 *	lwm_attn_backward(a, layer, ...)                   layers in falling order; bodies made for training only
 *
 * Bodies: attn_ring.h (a sequence split over ranks, or one rank alone) here; caches of keys and values in common/infer. Each has
 * its constructor in its own header, and beside it a pure function that says how many bytes it will take.
 *
 * Shapes: n local tokens, H heads, K key heads, E head size.
 */
#ifndef LWM_MODEL_ATTENTION_H
#define LWM_MODEL_ATTENTION_H

#include "common/base/err.h"
#include "kernels/kernels.h"

/* What a layer hands over, or the gradient of it. */
struct lwm_attn_qkv {
	struct lk_view q;    /* (n,H,E) rotated */
	struct lk_view k, v; /* (n,K,E): v follows k in each row, so that both travel as one */
};

struct lwm_attn;
struct lwm_attn_ops {
	/* Takes the positions (n) and segments (n, < 0 padding) of this rank's tokens for the calls that follow; host memory,
	 * copied. */
	int (*begin)(struct lwm_attn *a, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e);
	/* The n positions in device memory, until the next begin. */
	const int32_t *(*positions)(const struct lwm_attn *a);
	/* o (n,H,E) in the device's dtype, lse (n,H) fp32. failed != 0: an earlier failure of this rank. Where ranks take part
	 * together, all go through all exchanges even so, without computing, and nobody is left waiting. Returns the first
	 * failure of this rank, `failed` included. */
	int (*forward)(struct lwm_attn *a, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o, float *lse,
		       int failed, struct lwm_err *e);
	/* dx: fp32 views shaped as x, ADDED into: complete gradients of this rank's q, k, v, v following k in each row.
	 * delta (n,H) is scratch; o NULL: the caller has made it (lk_attn_delta). NULL in a body for inference. */
	int (*backward)(struct lwm_attn *a, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o,
			const struct lk_view *dout, const float *lse, float *delta, const struct lwm_attn_qkv *dx, int failed,
			struct lwm_err *e);
	void (*free)(struct lwm_attn *a);
};

/* First member of every body. */
struct lwm_attn {
	const struct lwm_attn_ops *ops;
};

static inline int lwm_attn_begin(struct lwm_attn *a, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e)
{
	return a->ops->begin(a, n, pos, seg, e);
}
static inline const int32_t *lwm_attn_positions(const struct lwm_attn *a)
{
	return a->ops->positions(a);
}
static inline int lwm_attn_forward(struct lwm_attn *a, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o,
				   float *lse, int failed, struct lwm_err *e)
{
	return a->ops->forward(a, layer, x, o, lse, failed, e);
}
static inline int lwm_attn_backward(struct lwm_attn *a, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o,
				    const struct lk_view *dout, const float *lse, float *delta, const struct lwm_attn_qkv *dx,
				    int failed, struct lwm_err *e)
{
	return a->ops->backward(a, layer, x, o, dout, lse, delta, dx, failed, e);
}
static inline void lwm_attn_free(struct lwm_attn *a) /* NULL is fine */
{
	if (a)
		a->ops->free(a);
}

#endif
