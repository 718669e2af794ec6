/* attn_ring.h - exact attention over a sequence that is split over ranks (Liu, Zaharia & Abbeel 2023).
 *
 * The one place where "who sends what" meets block attention. Key/value blocks go round from rank to rank while the
 * current one is computed; their gradients follow one step behind and are sent home from the last rank that needed the
 * block. Block pairs without a visible token pair are not computed, and a block stops travelling where nobody further
 * on needs it. Everything is decided from positions and segments, so any distribution of tokens over ranks is right.
 *
 * Shapes: n local tokens (the same on every rank), H heads, K key heads, E head size.
 */
#ifndef LWM_MODEL_ATTN_RING_H
#define LWM_MODEL_ATTN_RING_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/comm/devcomm.h"
#include "kernels/kernels.h"

struct lwm_ring_shape {
	int64_t tokens; /* most local tokens */
	int64_t heads, kv_heads, head_dim;
	bool train, causal;
};

struct lwm_ring;
/* Device bytes that lwm_ring_new takes for `ranks` ranks; 0 for one rank. Pure. */
int64_t lwm_ring_bytes(const struct lwm_ring_shape *s, int dtype, int ranks);
/* Local. dev and around are borrowed; around NULL = alone. */
int lwm_ring_new(struct lwm_ring **out, struct lk_dev *dev, struct lwm_devcomm *around, const struct lwm_ring_shape *s,
		 struct lwm_err *e);
void lwm_ring_free(struct lwm_ring *g); /* NULL is fine */

/* COLLECTIVE. Positions and segments of this rank's n tokens for the calls that follow. A different n on any rank is
 * -LWM_ECONFIG on all. */
int lwm_ring_batch(struct lwm_ring *g, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e);
const int32_t *lwm_ring_pos(const struct lwm_ring *g); /* device memory, the n positions */

struct lwm_ring_qkv {
	struct lk_view q;    /* (n,H,E) rotated */
	struct lk_view k, v; /* (n,K,E): v follows k in each row, so that both travel as one */
};
/* COLLECTIVE. o (n,H,E) in the device's dtype, lse (n,H) fp32. Every rank goes through all exchanges even after a
 * failure of its own, which it returns: nobody is left waiting. failed != 0: take part without computing. */
int lwm_ring_fwd(struct lwm_ring *g, const struct lwm_ring_qkv *x, const struct lk_view *o, float *lse, int failed,
		 struct lwm_err *e);
/* COLLECTIVE. dx: fp32 views shaped as x, ADDED into: complete gradients of this rank's q, k, v, with v behind k in
 * each row. delta (n,H) is scratch. */
int lwm_ring_bwd(struct lwm_ring *g, const struct lwm_ring_qkv *x, const struct lk_view *o, const struct lk_view *dout,
		 const float *lse, float *delta, const struct lwm_ring_qkv *dx, int failed, struct lwm_err *e);

#endif
