/* dispatch_attention.c - attention.h: positions and segments of a block with their tile summaries, by which whole pairs of tiles
 * are skipped; and the ops, each of which checks its arguments and calls the backend. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"

static const unsigned F32 = 1u << LK_F32;

/* ---- sequences ---- */

static void summarize_tiles(struct lk_seq *s)
{
	for (int64_t i = 0; i < s->ntiles; i++) {
		struct lk_seq_tile t = { INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN };
		int64_t end = (i + 1) * LK_SEQ_TILE < s->n ? (i + 1) * LK_SEQ_TILE : s->n;

		for (int64_t j = i * LK_SEQ_TILE; j < end; j++) {
			if (s->seg[j] < 0)
				continue;
			t.pos_min = s->pos[j] < t.pos_min ? s->pos[j] : t.pos_min;
			t.pos_max = s->pos[j] > t.pos_max ? s->pos[j] : t.pos_max;
			t.seg_min = s->seg[j] < t.seg_min ? s->seg[j] : t.seg_min;
			t.seg_max = s->seg[j] > t.seg_max ? s->seg[j] : t.seg_max;
		}
		s->tiles[i] = t;
	}
}

static int copy_sequence(struct lk_seq *s, const int32_t *pos, const int32_t *seg)
{
	size_t n = s->n > 0 ? (size_t)s->n : 1, tiles = s->ntiles > 0 ? (size_t)s->ntiles : 1;

	s->pos = malloc(n * sizeof *s->pos);
	s->seg = calloc(n, sizeof *s->seg);
	s->tiles = malloc(tiles * sizeof *s->tiles);
	if (!s->pos || !s->seg || !s->tiles)
		return LK_ENOMEM;
	if (s->n > 0) {
		memcpy(s->pos, pos, (size_t)s->n * sizeof *pos);
		if (seg)
			memcpy(s->seg, seg, (size_t)s->n * sizeof *seg);
	}
	summarize_tiles(s);
	if (s->dev->is_host) {
		s->dev_pos = s->pos;
		s->dev_seg = s->seg;
	}
	return 0;
}

static void drop_sequence(struct lk_seq *s)
{
	free(s->pos);
	free(s->seg);
	free(s->tiles);
	free(s);
}

int lk_seq_new(struct lk_dev *dev, struct lk_seq **out, int64_t n, const int32_t *host_pos, const int32_t *host_seg)
{
	struct lk_check c = { dev, "seq_new", 0 };
	struct lk_seq *s;

	*out = NULL;
	LK_WANT(&c, n >= 0 && n <= INT64_MAX / 64, "the length %" PRId64 " is out of range", n);
	lk_check_ptr(&c, "host_pos", host_pos, n);
	if (!c.rc && !dev->is_host && !dev->ops.attention.seq_new)
		return lk_missing(dev, "seq_new");
	if (c.rc)
		return c.rc;
	s = calloc(1, sizeof *s);
	if (!s)
		return lk_fail(dev, LK_ENOMEM, "seq_new: out of memory");
	s->dev = dev;
	s->n = n;
	s->ntiles = (n + LK_SEQ_TILE - 1) / LK_SEQ_TILE;
	c.rc = copy_sequence(s, host_pos, host_seg);
	if (c.rc)
		lk_fail(dev, c.rc, "seq_new: no memory for %" PRId64 " positions", n);
	else if (dev->ops.attention.seq_new)
		c.rc = dev->ops.attention.seq_new(dev, s);
	if (c.rc) {
		drop_sequence(s);
		return c.rc;
	}
	*out = s;
	return 0;
}

void lk_seq_free(struct lk_seq *s)
{
	if (!s)
		return;
	if (s->dev->ops.attention.seq_free)
		s->dev->ops.attention.seq_free(s);
	drop_sequence(s);
}

const int32_t *lk_seq_pos(const struct lk_seq *s)
{
	return s->dev_pos;
}

static int tile_sees(const struct lk_seq_tile *q, const struct lk_seq_tile *k, int causal)
{
	return q->seg_min <= k->seg_max && k->seg_min <= q->seg_max && (!causal || k->pos_min <= q->pos_max);
}

static struct lk_seq_tile whole_range(const struct lk_seq *s)
{
	struct lk_seq_tile w = { INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN };

	for (int64_t i = 0; i < s->ntiles; i++) {
		const struct lk_seq_tile *t = &s->tiles[i];

		w.pos_min = t->pos_min < w.pos_min ? t->pos_min : w.pos_min;
		w.pos_max = t->pos_max > w.pos_max ? t->pos_max : w.pos_max;
		w.seg_min = t->seg_min < w.seg_min ? t->seg_min : w.seg_min;
		w.seg_max = t->seg_max > w.seg_max ? t->seg_max : w.seg_max;
	}
	return w;
}

int lk_seq_sees(const struct lk_seq *q, const struct lk_seq *k, int causal)
{
	struct lk_seq_tile kw = whole_range(k);

	for (int64_t i = 0; i < q->ntiles; i++) {
		if (!tile_sees(&q->tiles[i], &kw, causal))
			continue;
		for (int64_t j = 0; j < k->ntiles; j++)
			if (tile_sees(&q->tiles[i], &k->tiles[j], causal))
				return 1;
	}
	return 0;
}

/* ---- attention ---- */

static void check_state(struct lk_check *k, const struct lk_attn_state *st, int64_t tq)
{
	LK_WANT(k, st, "the state is NULL");
	if (k->rc)
		return;
	lk_check_ptr(k, "state.m", st->m, tq);
	lk_check_ptr(k, "state.l", st->l, tq);
	lk_check_ptr(k, "state.acc", st->acc, tq);
}

/* few: k and v may be a cache's */
static void check_attn(struct lk_check *k, const struct lk_attn *a, int few)
{
	const struct lk_view *q = &a->q, *key = &a->k;
	unsigned kv = lk_act(k->dev) | (few ? 1u << LK_BF16 | 1u << LK_I8 : 0);

	lk_check_view(k, "q", q, 3, lk_act(k->dev), 0);
	lk_check_view(k, "k", key, 3, kv, 0);
	lk_check_view(k, "v", &a->v, 3, kv, 0);
	LK_WANT(k, lk_same(key, &a->v), "k and v differ in shape");
	LK_WANT(k, key->dtype == a->v.dtype && (q->dtype == key->dtype || (few && key->dtype != LK_F32)),
		"q, k, v differ in element type");
	LK_WANT(k, q->dtype == key->dtype || q->n[0] <= LK_ATTN_FEW,
		"keys in fewer bits than queries are for at most %d queries, not %" PRId64, LK_ATTN_FEW, q->n[0]);
	LK_WANT(k, key->dtype != LK_I8 || (a->k_scale && a->v_scale && a->scale_stride >= key->n[1]),
		"8-bit keys and values need their scales");
	LK_WANT(k, q->n[1] > 0 && q->n[2] > 0 && key->n[1] > 0,
		"q (%" PRId64 ",%" PRId64 ",%" PRId64 ") has no heads or no elements", q->n[0], q->n[1], q->n[2]);
	LK_WANT(k, key->n[2] == q->n[2], "heads of q have %" PRId64 " elements, of k %" PRId64, q->n[2], key->n[2]);
	LK_WANT(k, q->n[1] % key->n[1] == 0, "%" PRId64 " query heads cannot share %" PRId64 " key heads", q->n[1],
		key->n[1]);
	LK_WANT(k, a->qs && a->ks, "a sequence is NULL");
	LK_WANT(k, a->qs->n == q->n[0] && a->ks->n == key->n[0],
		"the sequences have %" PRId64 " and %" PRId64 " tokens, q and k %" PRId64 " and %" PRId64, a->qs->n, a->ks->n,
		q->n[0], key->n[0]);
	LK_WANT(k, isfinite(a->scale), "the scale is not finite");
}

int lk_attn_begin(struct lk_dev *dev, const struct lk_attn_state *st, int64_t tq, int64_t h, int64_t d)
{
	struct lk_check k = { dev, "attn_begin", 0 };

	LK_WANT(&k, tq >= 0 && h > 0 && d > 0, "shape (%" PRId64 ",%" PRId64 ",%" PRId64 ")", tq, h, d);
	check_state(&k, st, tq);
	if (k.rc || !tq)
		return k.rc;
	return LK_CALL(dev, attention, attn_begin, dev, st, tq, h, d);
}

int lk_attn_fwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st)
{
	struct lk_check k = { dev, "attn_fwd", 0 };

	check_attn(&k, a, 1);
	check_state(&k, st, k.rc ? 0 : a->q.n[0]);
	if (k.rc || !a->q.n[0] || !a->k.n[0])
		return k.rc;
	return LK_CALL(dev, attention, attn_fwd, dev, a, st);
}

int lk_attn_end(struct lk_dev *dev, const struct lk_view *o, float *lse, const struct lk_attn_state *st)
{
	struct lk_check k = { dev, "attn_end", 0 };

	lk_check_view(&k, "o", o, 3, lk_act(dev), 0);
	check_state(&k, st, k.rc ? 0 : o->n[0]);
	if (!k.rc)
		lk_check_ptr(&k, "lse", lse, o->n[0]);
	if (k.rc || !lk_count(o))
		return k.rc;
	return LK_CALL(dev, attention, attn_end, dev, o, lse, st);
}

int lk_attn_once(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse)
{
	struct lk_check k = { dev, "attn_once", 0 };

	check_attn(&k, a, 1);
	lk_check_view(&k, "o", o, 3, lk_act(dev), 0);
	LK_WANT(&k, lk_same(o, &a->q), "o and q differ in shape");
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "lse", lse, o->n[0]);
	lk_check_apart(&k, "o", o, "q", &a->q);
	lk_check_apart(&k, "o", o, "k", &a->k);
	lk_check_apart(&k, "o", o, "v", &a->v);
	if (k.rc || !lk_count(o))
		return k.rc;
	return LK_CALL(dev, attention, attn_once, dev, a, o, lse);
}

int lk_attn_delta(struct lk_dev *dev, float *delta, const struct lk_view *o, const struct lk_view *dout)
{
	struct lk_check k = { dev, "attn_delta", 0 };

	lk_check_view(&k, "o", o, 3, lk_act(dev), 0);
	lk_check_view(&k, "dout", dout, 3, lk_act(dev), 0);
	LK_WANT(&k, lk_same(o, dout), "o and dout differ in shape");
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "delta", delta, o->n[0]);
	if (k.rc || !lk_count(o))
		return k.rc;
	return LK_CALL(dev, attention, attn_delta, dev, delta, o, dout);
}

int lk_attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
		const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv)
{
	struct lk_check k = { dev, "attn_bwd", 0 };

	check_attn(&k, a, 0);
	lk_check_view(&k, "dout", dout, 3, lk_act(dev), 0);
	lk_check_view(&k, "dq", dq, 3, F32, 0);
	lk_check_view(&k, "dk", dk, 3, F32, 0);
	lk_check_view(&k, "dv", dv, 3, F32, 0);
	LK_WANT(&k, lk_same(dout, &a->q) && lk_same(dq, &a->q), "dout and dq must have the shape of q");
	LK_WANT(&k, lk_same(dk, &a->k) && lk_same(dv, &a->k), "dk and dv must have the shape of k");
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "lse", lse, dq->n[0]);
	lk_check_ptr(&k, "delta", delta, dq->n[0]);
	lk_check_apart(&k, "dq", dq, "dk", dk);
	lk_check_apart(&k, "dq", dq, "dv", dv);
	lk_check_apart(&k, "dk", dk, "dv", dv);
	if (k.rc || !lk_count(dq) || !lk_count(dk))
		return k.rc;
	return LK_CALL(dev, attention, attn_bwd, dev, a, dout, lse, delta, dq, dk, dv);
}

int lk_attn_merge(struct lk_dev *dev, float *o, float *lse, const float *o2, const float *lse2, int64_t tq, int64_t h,
		  int64_t d)
{
	struct lk_check k = { dev, "attn_merge", 0 };

	LK_WANT(&k, tq >= 0 && h > 0 && d > 0, "shape (%" PRId64 ",%" PRId64 ",%" PRId64 ")", tq, h, d);
	lk_check_ptr(&k, "o", o, tq);
	lk_check_ptr(&k, "lse", lse, tq);
	lk_check_ptr(&k, "o2", o2, tq);
	lk_check_ptr(&k, "lse2", lse2, tq);
	LK_WANT(&k, !tq || (o != o2 && lse != lse2), "the two partial results are the same memory");
	if (k.rc || !tq)
		return k.rc;
	return LK_CALL(dev, attention, attn_merge, dev, o, lse, o2, lse2, tq, h, d);
}

int lk_attn_own(struct lk_dev *dev, int64_t n, int64_t heads, int64_t kv_heads, int64_t head_dim, int back, struct lk_own *own)
{
	struct lk_check k = { dev, "attn_own", 0 };

	*own = (struct lk_own){ 0, 0 };
	LK_WANT(&k, n > 0 && n <= INT32_MAX && kv_heads > 0 && heads > 0 && heads % kv_heads == 0 && head_dim > 0,
		"%" PRId64 " tokens of %" PRId64 " heads, %" PRId64 " key heads of %" PRId64, n, heads, kv_heads, head_dim);
	if (k.rc)
		return k.rc;
	return LK_CALL(dev, attention, attn_own, dev, n, heads, kv_heads, head_dim, back, own);
}
