/* cache_int.h - how attention bodies fill and read caches. Nobody else in infer looks into one. */
#ifndef LWM_INFER_CACHE_INT_H
#define LWM_INFER_CACHE_INT_H

#include "common/infer/cache.h"
#include "common/model/attention.h"

/* Slots are filled in the order of positions. Alone, slot i holds position i; over ranks each holds some of them. */
struct lwm_cache {
	struct lk_dev *dev;
	struct lwm_llama_cfg cfg;
	int dtype, ranks, rank;
	int64_t length, max_len; /* of the whole context */
	int64_t filled, slots;   /* of this rank */
	int64_t row, layer_bytes; /* row: elements, keys of all heads then values */
	int64_t scale_at;        /* bytes from the start of a layer to its scales */
	char *data;              /* each layer: (slots, row) of dtype; with 8 bits then (slots, 2 K) fp32 scales */
	int32_t *pos;            /* position of each slot, also of those to come: they are masked by causality */
	struct lk_seq *keys;     /* of the first nkeys slots */
	int64_t nkeys;
	struct lk_seq **piece;   /* the same keys in pieces of LWM_CACHE_PIECE, made when they are wanted */
	int64_t pieces;
};
/* Keys in fewer bits that many queries look at become floats again so many at a time. */
enum { LWM_CACHE_PIECE = 4096 };

/* dtype: LK_F32, LK_BF16 or LK_I8. shared: the ranks that have a part of the context each, NULL = this one has all; with ranks the
 * call is COLLECTIVE. */
int lwm_cache_new(struct lwm_cache **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, int64_t max_len, int dtype,
		  struct lwm_comm *shared, struct lwm_err *e);
/* Before a step of n tokens: the keys reach as far as that step will look (with ranks n is 1). -LWM_ECONFIG: this rank's share is
 * full. */
int lwm_cache_reach(struct lwm_cache *c, int64_t n, struct lwm_err *e);
/* After a step: its n tokens count (with ranks n is 1). */
void lwm_cache_grow(struct lwm_cache *c, int64_t n);
/* After a prompt of n tokens into an empty cache, of which this rank kept those at pos[0..kept). */
void lwm_cache_grow_prompt(struct lwm_cache *c, int64_t n, const int32_t *pos, int64_t kept);
/* Does this rank keep the token at this position that follows the prompt? */
static inline bool lwm_cache_keeps(const struct lwm_cache *c, int64_t pos)
{
	return pos % c->ranks == c->rank;
}

/* Work memory that the caches of one engine share. */
struct lwm_cache_work {
	struct lk_dev *dev;
	int64_t tokens; /* of the largest step */
	int32_t *iota;  /* device, that many */
	char *wide;     /* device: a piece of keys and values as floats, then a carried state; made when first wanted */
};
int lwm_cache_work_init(struct lwm_cache_work *w, struct lk_dev *dev, int64_t tokens, struct lwm_err *e);
void lwm_cache_work_release(struct lwm_cache_work *w);

/* Keys and values of x (its queries are not looked at) into the next slots of layer l. */
int lwm_cache_store(struct lwm_cache *c, struct lwm_cache_work *w, int64_t l, const struct lwm_attn_qkv *x, struct lwm_err *e);
/* Queries q (n,H,E) at qs against what lwm_cache_reach reached of layer l: o (n,H,E), lse (n,H). */
int lwm_cache_attend(struct lwm_cache *c, struct lwm_cache_work *w, const struct lk_seq *qs, int64_t l, const struct lk_view *q,
		     const struct lk_view *o, float *lse, struct lwm_err *e);

/* Rows [from, from + n) of a view. */
static inline struct lk_view lwm_view_rows(const struct lk_view *v, int64_t from, int64_t n)
{
	struct lk_view y = *v;

	y.data = (char *)v->data + from * v->stride[0] * (int64_t)lk_dtype_size(v->dtype);
	y.n[0] = n;
	return y;
}

#endif
