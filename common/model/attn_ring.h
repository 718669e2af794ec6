/* attn_ring.h - exact attention over a sequence that is split over ranks (Liu, Zaharia & Abbeel 2023).
 *
 * The one place where "who sends what" meets block attention. What travels is decided from positions and segments, so any
 * distribution of tokens over ranks is right. Either key/value blocks go round from rank to rank while the current one is
 * computed, each as far as somebody needs it, and their gradients follow one step later and are sent home from the last rank; or,
 * where that would carry rows past ranks that do not see them (and the body is made for training), rows go straight to each rank
 * that sees one, and gradients straight home. Block pairs without a visible token pair are not computed. The same batch on the
 * same ranks gives the same bits.
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
/* Local, for plans. Bytes that `ranks` ranks with n tokens each send for a layer of such a batch, all together: sends[0] forward,
 * sends[1] backward. pos, seg (ranks, n) in rank order. By the route that begin makes and the way it chooses. -LWM_EMEMORY. */
int lwm_attn_ring_sends(const struct lwm_attn_ring_shape *s, int dtype, int ranks, int64_t n, const int32_t *pos,
			const int32_t *seg, int64_t sends[2], struct lwm_err *e);
/* Local, for plans, likewise. Of the bytes that lwm_attn_ring_new takes those that such a batch writes to, on the rank that
 * writes to most: on a host the rest of them is never touched and lies in no memory. */
int lwm_attn_ring_fills(const struct lwm_attn_ring_shape *s, int dtype, int ranks, int64_t n, const int32_t *pos,
			const int32_t *seg, int64_t *bytes, struct lwm_err *e);
/* Local. dev and around are borrowed; around NULL = alone. */
int lwm_attn_ring_new(struct lwm_attn **out, struct lk_dev *dev, struct lwm_devcomm *around, const struct lwm_attn_ring_shape *s,
		      struct lwm_err *e);
/* Local, before begin: what all ranks hold in the batch that it begins, pos and seg (ranks, n) in rank order, the same on all
 * ranks; borrowed until begin returns. begin then asks nobody for it; without this the ranks tell each other (8 n bytes each).
 * -LWM_EINTERNAL from begin on all when ranks were told different things, or a rank passes other tokens than were told. */
void lwm_attn_ring_tell(struct lwm_attn *a, const int32_t *pos, const int32_t *seg);

#endif
