/* attn_int.h - what attn.c, attn_plan.c and attn_*.hot.c share.
 *
 * Queries are cut into groups, the columns of one register block: three vectors of queries side by side, one query per
 * lane. Inside, everything is transposed: scores lie as (key, query), outputs as (D, query), so that maximum, exp, sum
 * and rescaling are plain vector operations without sums over lanes, and K and V are read as broadcasts from where they
 * lie. Groups are collected into query tiles (what one thread works on at a time, sized for its L2), keys into key
 * tiles.
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

struct lk_attn_ktile {
	int64_t k0, at; /* first key; its row in packed arrays, a multiple of LK_ATTN_STEP */
	int32_t n;      /* keys, 1 .. bk */
	struct lk_attn_sum sum;
};
/* Runs of packed keys start and end at multiples of this: of every register block's height. */
enum { LK_ATTN_STEP = 24 };

struct lk_attn_qtile {
	int32_t g0, g1; /* groups [g0, g1) */
	int64_t lo, hi; /* key tiles that may be seen lie in [lo, hi) */
	int64_t later;  /* key tiles below this one are seen by no later query tile */
	int64_t pairs;  /* key tiles in sight */
};

struct lk_attn_plan {
	const struct lk_attn *a;
	int bk, gw;      /* most keys of a key tile, most queries of a group */
	int64_t dp;      /* D rounded up to whole vectors */
	int tile_groups; /* most groups of a query tile */
	int64_t ngroups, nqtiles, nktiles;
	struct lk_attn_group *groups;
	struct lk_attn_qtile *qtiles;
	struct lk_attn_ktile *ktiles;
	const struct lk_attn_qtile **order; /* costly ones first */
};

enum lk_attn_sight { LK_SEES_NONE, LK_SEES_SOME, LK_SEES_ALL };

static inline enum lk_attn_sight lk_attn_sight_of(const struct lk_attn_sum *q, const struct lk_attn_sum *k, int causal)
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

/* Keys and values of one key head, rows end to end and rounded up to whole vectors: (LK_ATTN_PACKED, dp).
 * As the caller lays them, all heads of a token together, they would fight for a few sets of the caches. */
struct lk_attn_keys {
	float *k, *v;
	float *dk, *dv; /* sums of the backward, same shape */
};
/* Rows of packed arrays for n keys: each tile rounded up, and what a register block may read past the last. */
#define LK_ATTN_PACKED(n) ((n) + LK_ATTN_STEP * ((n) / LK_ATTN_LEAST + 2))
enum { LK_ATTN_LEAST = 48 }; /* keys of a tile that ends with its document */

/* One of each per instruction set. room: of one thread, 64-byte aligned, of the size `room` says. */
struct lk_attn_fwd_hot {
	int gw, vec, bk; /* queries of a group, floats of a vector, keys of a tile */
	size_t (*room)(const struct lk_attn_plan *p);
	/* lays key tile kt of key head hk into keys */
	void (*pack)(const struct lk_attn_plan *p, int64_t hk, int64_t kt, const struct lk_attn_keys *keys);
	/* one query tile of head h over all its key tiles; keys NULL: reads and packs them itself as it goes */
	void (*run)(const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t h,
		    const struct lk_attn_keys *keys, const struct lk_attn_out *out, float *room);
};
struct lk_attn_bwd_hot {
	int gw, vec, bk;
	size_t (*room)(const struct lk_attn_plan *p);
	/* key tiles [lo, hi) of key head hk: packs keys and values, clears their sums; adds the sums to g->dk, g->dv */
	void (*open)(const struct lk_attn_plan *p, int64_t hk, int64_t lo, int64_t hi, const struct lk_attn_keys *keys);
	void (*shut)(const struct lk_attn_plan *p, int64_t hk, int64_t lo, int64_t hi, const struct lk_attn_keys *keys,
		     const struct lk_attn_grad *g);
	/* one query tile of head h against key tiles [lo, hi): adds to g->dq and to the sums in keys */
	void (*run)(const struct lk_attn_plan *p, const struct lk_attn_qtile *t, int64_t h, int64_t lo, int64_t hi,
		    const struct lk_attn_keys *keys, const struct lk_attn_grad *g, float *room);
};

/* What `rows` (query, head) saw of some keys: maximum, sum, output. acc (rows, dp) with dp as above. */
struct lk_attn_part {
	float *m, *l, *acc;
};
struct lk_attn_row_hot {
	int vec, chunk; /* floats of a vector; keys are taken this many at a time */
	size_t (*room)(const struct lk_attn *a);
	/* all queries and heads against keys [from, to) */
	void (*run)(const struct lk_attn *a, int64_t from, int64_t to, const struct lk_attn_part *part, float *room);
};

extern const struct lk_attn_fwd_hot lk_attn_fwd_hot_base, lk_attn_fwd_hot_avx2, lk_attn_fwd_hot_avx512;
extern const struct lk_attn_bwd_hot lk_attn_bwd_hot_base, lk_attn_bwd_hot_avx2, lk_attn_bwd_hot_avx512;
extern const struct lk_attn_row_hot lk_attn_row_hot_base, lk_attn_row_hot_avx2, lk_attn_row_hot_avx512;

/* attn_row.c: the forward for a few queries, at most LK_ATTN_ROWS, with any number of heads */
enum { LK_ATTN_ROWS = 4 };
int lk_attn_rows(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_out *out);

/* attn_plan.c */
size_t lk_attn_plan_bytes(const struct lk_attn *a, int vec);
/* p->a, bk, gw, tile_groups are set; room has lk_attn_plan_bytes. */
void lk_attn_plan_make(struct lk_attn_plan *p, int vec, void *room);

#endif
