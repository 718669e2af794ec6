/* attn_int.h - what the attention files of this folder share.
 *
 *   attn.cu           the ops of kernels.h: makes a job, chooses the variant, keeps schedules
 *   attn_state.cu     begin, end, delta, merge
 *   attn_plan.c       schedules: which tiles of keys a tile of queries meets (host, plain C)
 *   attn_mma_*.cu     tiles by mma.sync, for every chip, head and stride
 *   attn_sm90_*.cu    Hopper: TMA and wgmma
 *   attn_row.cu       few queries against many keys: split over the keys, memory-bound
 *
 * A job is checked, has at least one query and one key, at most LK_ATTN_TOKENS of each, and D <= LK_ATTN_HEAD. Strides are in
 * elements. Token t of head h of q lies at q + t * q_t + h * q_h; query head h uses key head h / group.
 */
#ifndef LK_CUDA_ATTN_INT_H
#define LK_CUDA_ATTN_INT_H

#include "kernels/cuda/attn_plan.h"
#include "kernels/cuda/cuda_int.h"

/* A schedule in device memory; see struct lk_sched. Belongs to the device, stands at least until the op was queued. */
struct lk_attn_sched {
	const int32_t *start;           /* tiles + 1: runs[start[i] .. start[i + 1]) are those of tile i */
	const struct lk_sched_run *runs;
	const int32_t *order;           /* tiles, the longest first */
	int32_t tiles;
	int32_t joined;                 /* 0: lists by query and by key name the same pairs */
};

struct lk_attn_job {
	const lk_bf16 *q;
	const void *k, *v;              /* lk_bf16; int8_t only for the row kernel, with k_scale, v_scale */
	const float *k_scale, *v_scale; /* (Tk,Hkv), rows scale_t apart; NULL unless int8 */
	int64_t q_t, q_h, k_t, k_h, v_t, v_h, scale_t;
	int64_t tq, tk;
	int h, hkv, group, d;           /* group = h / hkv */
	int causal;
	int vec;                        /* D % 8 == 0; q, k, v (and dout) and their strides are multiples of 16 bytes */
	float scale, scale_log2;        /* scale_log2 = scale * log2(e): p = 2^(scale_log2 * q.k - log2(e) * max) */
	const int32_t *q_pos, *q_seg, *k_pos, *k_seg; /* device */
	const struct lk_seq *qs, *ks;   /* host only, for lk_attn_sched_get */

	/* forward, carried: m != NULL. m (natural log, as in kernels.h), l (Tq,H), acc (Tq,H,D) are read and written; rows of
	 * which nothing is seen in this block stay as they are. */
	float *m, *l, *acc;
	/* forward, once: m == NULL. o is bf16, or fp32 where o_f32; lse natural log; rows that see nothing: 0 and -INFINITY. */
	void *o;
	int o_f32;
	int64_t o_t, o_h;
	float *lse;                     /* (Tq,H) dense */

	/* backward: lse, delta (Tq,H) dense; dq, dk, dv fp32, added into */
	const lk_bf16 *dout;
	const float *lse_in, *delta;
	int64_t do_t, do_h;
	float *dq, *dk, *dv;
	int64_t dq_t, dq_h, dk_t, dk_h, dv_t, dv_h;
	int vec_grad;                   /* D % 4 == 0; dq, dk, dv and their strides are multiples of 16 bytes */
};

/* The schedule of this pair of sequences for tiles of bq queries and bk keys; by_key: for every tile of keys the tiles of
 * queries. Made once and kept for as long as both sequences live, uploaded on the device's stream. */
int lk_attn_sched_get(struct lk_dev *dev, const struct lk_attn_job *j, int bq, int bk, int by_key,
		      struct lk_attn_sched *out);

/* Each returns 0, LK_EUNSUP (not a job of theirs: nothing was done, dev->err is not set), or a failure with a sentence. */
int lk_attn_sm90_fwd(struct lk_dev *dev, const struct lk_attn_job *j); /* carried and once */
int lk_attn_sm90_bwd(struct lk_dev *dev, const struct lk_attn_job *j);
int lk_attn_mma_fwd(struct lk_dev *dev, const struct lk_attn_job *j);
int lk_attn_mma_bwd(struct lk_dev *dev, const struct lk_attn_job *j);
/* Forward for any number of queries, made for at most LK_ROW_QUERIES. Keys and values bf16 or int8. */
int lk_attn_row_fwd(struct lk_dev *dev, const struct lk_attn_job *j);
enum { LK_ROW_QUERIES = 16, LK_ATTN_HEAD = 128 /* elements of a head, at most */, LK_ATTN_TOKENS = 1 << 30 };
/* Once, without keys: o = 0, lse = -INFINITY. */
int lk_attn_nothing(struct lk_dev *dev, const struct lk_attn_job *j);

#define LK_LOG2E 1.4426950408889634f
#define LK_LN2 0.6931471805599453f

/* ---- device: masks and runs ---- */

/* In masks a query of padding has segment -1 and a key of padding or beyond the end -2: equal segments then suffice. */
__device__ static inline int lk_q_seg(const struct lk_attn_job *j, int64_t t)
{
	int s = t < j->tq ? j->q_seg[t] : -1;

	return s < 0 ? -1 : s;
}

__device__ static inline int lk_k_seg(const struct lk_attn_job *j, int64_t t)
{
	int s = t < j->tk ? j->k_seg[t] : -2;

	return s < 0 ? -2 : s;
}

/* Without causality every key lies before every query. */
__device__ static inline int lk_q_pos(const struct lk_attn_job *j, int64_t t)
{
	return t < j->tq && j->causal ? j->q_pos[t] : 0x7fffffff;
}

__device__ static inline int lk_k_pos(const struct lk_attn_job *j, int64_t t)
{
	return t < j->tk ? j->k_pos[t] : 0x7fffffff;
}

/* Walks the tiles that one tile meets: lk_walk_begin, then while (w.tile >= 0) { ... w.tile, w.mask ...; lk_walk_next }. */
struct lk_walk {
	const struct lk_sched_run *runs;
	int run, end;         /* of runs: the next, and where the list ends */
	int tile, last, mask; /* tile -1: none is left */
};

__device__ static inline void lk_walk_load(struct lk_walk *w)
{
	w->tile = -1;
	if (w->run == w->end)
		return;
	w->tile = w->runs[w->run].first;
	w->last = w->runs[w->run].end - 1;
	w->mask = w->runs[w->run].mask;
	w->run++;
}

__device__ static inline void lk_walk_begin(struct lk_walk *w, const struct lk_attn_sched *s, int tile)
{
	w->runs = s->runs;
	w->run = s->start[tile];
	w->end = s->start[tile + 1];
	lk_walk_load(w);
}

__device__ static inline void lk_walk_next(struct lk_walk *w)
{
	if (w->tile++ == w->last)
		lk_walk_load(w);
}

#endif
