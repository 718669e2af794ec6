/* attn_ring.h - exact attention over a sequence that is split over ranks (Liu, Zaharia & Abbeel 2023).
 *
 * The one place where "who sends what" meets block attention. Key/value blocks go round from rank to rank while the
 * current one is computed; their gradients follow one step later and are sent home from the last rank that needed the
 * block. Block pairs without a visible token pair are not computed, and a block stops travelling where nobody further
 * on needs it. Everything is decided from positions and segments, so any distribution of tokens over ranks is right.
 *
 * An attention body (attention.h). Over ranks begin, forward and backward are COLLECTIVE; a different n on any rank is
 * -LWM_ECONFIG from begin on all.
 */
#ifndef LWM_MODEL_ATTN_RING_H
#define LWM_MODEL_ATTN_RING_H

#include <stdbool.h>

#include "common/comm/devcomm.h"
#include "common/model/attention.h"

struct lwm_attn_ring_shape {
	int64_t tokens; /* most local tokens, the same on every rank */
	int64_t heads, kv_heads, head_dim;
	bool train;     /* memory for gradients that travel */
	bool causal;    /* no token sees a later one of its segment */
};

/* Device bytes that lwm_attn_ring_new takes for `ranks` ranks; 0 for one rank. Pure. */
int64_t lwm_attn_ring_bytes(const struct lwm_attn_ring_shape *s, int dtype, int ranks);
/* Local. dev and around are borrowed; around NULL = alone. */
int lwm_attn_ring_new(struct lwm_attn **out, struct lk_dev *dev, struct lwm_devcomm *around, const struct lwm_attn_ring_shape *s,
		      struct lwm_err *e);

#endif
