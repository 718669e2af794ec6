/* attention.h - block attention with a carried state, so that a ring can fold in one key/value block after the other (Rabe & Staats
 * 2021; Dao et al. 2022; Liu et al. 2023).
 *
 * A chapter of kernels.h, which outside code includes instead. Token t of a query block sees token s of a key block iff
 *	seg[t] == seg[s], seg[t] >= 0, and (not causal or pos[s] <= pos[t]).
 * Rows of a batch are laid end to end as different segments: there is no batch dimension. Forward and backward of one query block
 * against several key blocks:
 *
 *	lk_seq_new(dev, &qs, n, pos, seg);                   positions and segments, of keys likewise
 *	lk_attn_begin(dev, &st, tq, h, d);
 *	for each block: if (lk_seq_sees(qs, ks, causal)) lk_attn_fwd(dev, &a, &st);
 *	lk_attn_end(dev, &o, lse, &st);                      output and log-sum-exp; lk_attn_once is all three for one block
 *
 *	lk_attn_delta(dev, delta, &o, &dout);
 *	for each block: lk_attn_bwd(dev, &a, &dout, lse, delta, &dq, &dk, &dv);      dq, dk, dv are added into
 *
 * The state holds, over the keys s seen so far with scores x_s = scale q k_s,
 *	m = max x_s,  l = sum e^(x_s - m),  acc = sum e^(x_s - m) v_s;   o = acc / l,  lse = m + log l.
 */
#ifndef LK_ATTENTION_H
#define LK_ATTENTION_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- positions and segments ---- */

struct lk_seq; /* positions and segments of one block of tokens, with what a backend needs to skip masked tiles */
/* host_pos, host_seg: n int32 each; host_seg NULL = all one segment. Copied. Segment id < 0 = padding.
 * Any order is right; runs of ascending positions and equal segments are fast. */
int lk_seq_new(struct lk_dev *dev, struct lk_seq **out, int64_t n, const int32_t *host_pos, const int32_t *host_seg);
void lk_seq_free(struct lk_seq *s); /* NULL is fine */
const int32_t *lk_seq_pos(const struct lk_seq *s); /* device memory, for lk_rope */
/* 1 if some query token sees some key token, 0 if the whole block pair is masked out. Exact up to tile summaries:
 * may say 1 for a block without a visible pair, never 0 for one with. Host work, cheap. */
int lk_seq_sees(const struct lk_seq *q, const struct lk_seq *k, int causal);

/* ---- one block of queries against one block of keys and values ---- */

struct lk_attn {
	struct lk_view q;    /* (Tq,H,D) */
	struct lk_view k, v; /* (Tk,Hkv,D), H a multiple of Hkv; head h uses key head h / (H/Hkv) */
	const struct lk_seq *qs, *ks;
	float scale; /* 1/sqrt(D) as a rule */
	int causal;
	/* Only when k, v are LK_I8 (see lk_kv_store): scales of k and v, (Tk,Hkv) with rows scale_stride apart. */
	const float *k_scale, *v_scale;
	int64_t scale_stride;
};
/* Forward only, and only for so few queries, k and v may also be what lk_kv_store writes: LK_BF16 or LK_I8. */
enum { LK_ATTN_FEW = 4 };
/* Carried per query and head: running max m and sum l (Tq,H), unnormalised output acc (Tq,H,D), all fp32 and dense. */
struct lk_attn_state {
	float *m, *l, *acc;
};
/* The empty state: m = -INFINITY, l = 0, acc = 0. */
int lk_attn_begin(struct lk_dev *dev, const struct lk_attn_state *st, int64_t tq, int64_t h, int64_t d);
/* Folds a block of keys and values in. */
int lk_attn_fwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st);
/* o (Tq,H,D) = acc / l, zeros where nothing was seen; lse (Tq,H) = m + log l, -INFINITY where nothing was seen. */
int lk_attn_end(struct lk_dev *dev, const struct lk_view *o, float *lse, const struct lk_attn_state *st);
/* begin + fwd + end for a single key/value block, without the carried state in memory. */
int lk_attn_once(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse);

/* ---- backward ---- */

/* delta (Tq,H) fp32 = sum over D of o * dout. */
int lk_attn_delta(struct lk_dev *dev, float *delta, const struct lk_view *o, const struct lk_view *dout);
/* dq (Tq,H,D), dk, dv (Tk,Hkv,D): fp32 views, ADDED into. dout like q; lse, delta (Tq,H) of the whole row. */
int lk_attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
		const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv);

/* ---- partial results; memory ---- */

/* Merge two partial results over the same queries: (o,lse) becomes the result over both key sets (fp32 o). Used when a
 * cache is split over ranks and only partials travel. o, o2 (Tq,H,D) dense fp32. */
int lk_attn_merge(struct lk_dev *dev, float *o, float *lse, const float *o2, const float *lse2, int64_t tq, int64_t h,
		  int64_t d);

/* What the device takes for itself for attention of n queries and n keys, forward and with `back` backward, and for the angles of
 * lk_rope at as many positions. Only sizes: nothing is computed. LK_EUNSUP where the backend does not say (all but cpu). */
int lk_attn_own(struct lk_dev *dev, int64_t n, int64_t heads, int64_t kv_heads, int64_t head_dim, int back, struct lk_own *own);

#ifdef __cplusplus
}
#endif
#endif
