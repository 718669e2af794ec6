/* attn_int.h - what attn.c, attn_plan.c and attn_*.hot.c share.
 *
 * Queries are cut into groups, the columns of one register block: three vectors of queries side by side, one query per
 * lane. Inside, everything is transposed: scores lie as (key, query), outputs as (D, query), so that maximum, exp, sum
 * and rescaling are plain vector operations without sums over lanes, and K and V are read as broadcasts from where they
 * lie. Groups are collected into query tiles (what one thread works on at a time, sized for its L2), keys into key tiles.
 */
#ifndef LK_CPU_ATTN_INT_H
#define LK_CPU_ATTN_INT_H

#include "kernels/cpu/cpu_int.h"

/* What is known of a run of tokens. Padding counts in no range. */
struct lk_attn_sum {
	int32_t pos_min, pos_max, seg_min, seg_max;
	int32_t plain; /* no padding and one segment only */
};

struct lk_attn_group {
	int64_t q0; /* first query */
	int32_t n;  /* queries, 1 .. gw */
	struct lk_attn_sum sum;
};

struct lk_attn_qtile {
	int32_t g0, g1; /* groups [g0, g1) */
	int64_t lo, hi; /* key tiles that may be seen lie in [lo, hi) */
	int64_t cost;   /* pairs of group and key tile in sight */
};

struct lk_attn_plan {
	const struct lk_attn *a;
	int bk;         /* keys of a key tile */
	int gw;         /* most queries of a group */
	int tile_groups; /* most groups of a query tile */
	int64_t ngroups, nqtiles, nktiles;
	struct lk_attn_group *groups;
	struct lk_attn_qtile *qtiles;
	struct lk_attn_sum *ktiles;
	const struct lk_attn_qtile **order; /* costly ones first */
};

enum lk_attn_sight { LK_SEES_NONE, LK_SEES_SOME, LK_SEES_ALL };

static inline enum lk_attn_sight lk_attn_sight(const struct lk_attn_sum *q, const struct lk_attn_sum *k, int causal)
{
	if (q->seg_min > k->seg_max || k->seg_min > q->seg_max || (causal && k->pos_min > q->pos_max))
		return LK_SEES_NONE;
	if (q->plain && k->plain && q->seg_min == k->seg_min && (!causal || k->pos_max <= q->pos_min))
		return LK_SEES_ALL;
	return LK_SEES_SOME;
}

/* Narrows keys [*k0, *k1) by those at either end that no query of the group sees. */
static inline void lk_attn_trim(const struct lk_attn *a, const struct lk_attn_sum *q, int64_t *k0, int64_t *k1)
{
	const int32_t *pos = a->ks->pos, *seg = a->ks->seg;

#define LK_UNSEEN(s) (seg[s] < q->seg_min || seg[s] > q->seg_max || seg[s] < 0 || (a->causal && pos[s] > q->pos_max))
	while (*k0 < *k1 && LK_UNSEEN(*k0))
		++*k0;
	while (*k0 < *k1 && LK_UNSEEN(*k1 - 1))
		--*k1;
#undef LK_UNSEEN
}

/* Where the forward leaves its results: o and lse, or the carried state (then o is NULL). */
struct lk_attn_out {
	const struct lk_view *o;
	float *lse;
	const struct lk_attn_state *st;
};

struct lk_attn_grad {
	const struct lk_view *dout, *dq, *dk, *dv;
	const float *lse, *delta;
};

/* One of each per instruction set. room: of one thread, 64-byte aligned, of the size `room` says. */
struct lk_attn_fwd_hot {
	int gw, vec, bk; /* queries of a group, floats of a vector, keys of a tile */
	size_t (*room)(const struct lk_attn_plan *p);
	/* one query tile of head h over all its key tiles */
	void (*run)(const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t h,
		    const struct lk_attn_out *out, float *room);
};
struct lk_attn_bwd_hot {
	int gw, vec, bk;
	size_t (*room)(const struct lk_attn_plan *p);
	/* gradients of one query tile of head h over key tiles [lo, hi), added to dq, dk, dv */
	void (*run)(const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t h, int64_t lo, int64_t hi,
		    const struct lk_attn_grad *g, float *room);
};

extern const struct lk_attn_fwd_hot lk_attn_fwd_hot_base, lk_attn_fwd_hot_avx2, lk_attn_fwd_hot_avx512;
extern const struct lk_attn_bwd_hot lk_attn_bwd_hot_base, lk_attn_bwd_hot_avx2, lk_attn_bwd_hot_avx512;

/* attn_plan.c */
size_t lk_attn_plan_bytes(const struct lk_attn *a, int vec, int bk);
/* p->a, bk, gw, tile_groups are set; room has lk_attn_plan_bytes. */
void lk_attn_plan_make(struct lk_attn_plan *p, int vec, void *room);

#endif
