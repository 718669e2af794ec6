/* attn_ring_int.h - the ring body inside: attn_ring.c (life, and who holds what) calls attn_round.c and attn_direct.c, the two ways
 * that keys, values and their gradients take; both call attn_ring_part.c (views, packing, messages). */
#ifndef LWM_MODEL_ATTN_RING_INT_H
#define LWM_MODEL_ATTN_RING_INT_H

#include "common/model/attn_ring.h"
#include "common/model/attn_route.h"

/* Pieces of memory; between two ranks no gradient is passed on, so that two stand for four. */
enum { LWM_RING_KV_BUFS = 2, LWM_RING_GRAD_BUFS = 4, LWM_RING_PAIR_BUFS = 2 };

struct lwm_ring {
	struct lwm_attn base;
	struct lk_dev *dev;
	struct lwm_devcomm *around; /* borrowed; NULL: alone */
	struct lwm_comm *comm;      /* its ranks */
	struct lwm_attn_ring_shape s;
	int ranks, rank;
	const int32_t *told_pos, *told_seg; /* (ranks, n) borrowed until the next begin; NULL: not told */
	int64_t n;                          /* tokens of this batch on each rank */
	struct lwm_route route;
	bool direct;         /* of this batch: attn_direct.c, else attn_round.c */
	struct lk_seq **seq; /* of this rank, whole; of another, what of it comes here: its block, or the rows seen */
	int *last;           /* round: of each block the greatest distance from its owner at which it is needed */
	int steps;           /* 1 + the greatest of them; 1: nobody needs another's rows */
	void *block;         /* device memory of all that follows */
	struct lk_attn_state st;
	void *kv[LWM_RING_KV_BUFS], *grad[LWM_RING_GRAD_BUFS]; /* what travels; of two ranks grad[1] is [0], grad[2] is [3] */
	void *packed;                                          /* direct: rows that leave */
	int32_t *iota;                                         /* 0, 1, ... s.tokens - 1 */
};

/* ---- attn_ring_part.c ---- */

/* Floats of k and v of a token. */
static inline int64_t lwm_ring_row(const struct lwm_ring *g)
{
	return 2 * g->s.kv_heads * g->s.head_dim;
}

/* The rank whose rows rank r computes with at step s. */
static inline int lwm_ring_held(const struct lwm_ring *g, int r, int s)
{
	return ((r - s) % g->ranks + g->ranks) % g->ranks;
}

/* Does this rank see any of rank b's tokens? */
static inline bool lwm_ring_sees(const struct lwm_ring *g, int b)
{
	return lwm_route_seen(&g->route, g->rank, b) > 0;
}

/* The first failure of this rank stays in *rc, and the exchanges go on; one that ends them (-LWM_ERANK) is returned. */
int lwm_ring_keep_first(int *rc, int now);
int lwm_ring_finish(struct lwm_ring *g, int *rc, struct lwm_err *e);

/* (rows, 2 K E) of tokens from, from + 1, ... of k and the v that follows it. */
struct lk_view lwm_ring_joined(const struct lwm_ring *g, const struct lk_view *k, int64_t from, int64_t rows);
/* k (which 0) or v (1) of a travelling (rows, 2 K E) buffer, as (rows, K, E). */
struct lk_view lwm_ring_half(const struct lwm_ring *g, void *data, int dtype, int64_t rows, int which);
/* This rank's queries against what of rank b is in kv, or against its own keys. */
struct lk_attn lwm_ring_attn(const struct lwm_ring *g, const struct lwm_attn_qkv *x, int b, void *kv, int64_t rows);

/* ---- attn_round.c, attn_direct.c: forward and backward of attention.h over several ranks ---- */

/* Rows that would travel, all ranks together, on the way there; last and steps are filled. */
int64_t lwm_ring_plan_round(struct lwm_ring *g);
int lwm_ring_round_fwd(struct lwm_ring *g, const struct lwm_attn_qkv *x, int failed, struct lwm_err *e);
int lwm_ring_round_bwd(struct lwm_ring *g, const struct lwm_attn_qkv *x, const struct lk_view *dout, const float *lse,
		       const float *delta, const struct lwm_attn_qkv *dx, int failed, struct lwm_err *e);

int64_t lwm_ring_plan_direct(const struct lwm_ring *g);
int lwm_ring_direct_fwd(struct lwm_ring *g, const struct lwm_attn_qkv *x, int failed, struct lwm_err *e);
int lwm_ring_direct_bwd(struct lwm_ring *g, const struct lwm_attn_qkv *x, const struct lk_view *dout, const float *lse,
			const float *delta, const struct lwm_attn_qkv *dx, int failed, struct lwm_err *e);

#endif
