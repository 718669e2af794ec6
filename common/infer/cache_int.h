/* cache_int.h - what the generation files share. Nobody else includes it. */
#ifndef LWM_INFER_CACHE_INT_H
#define LWM_INFER_CACHE_INT_H

#include "common/infer/engine.h"
#include "common/model/llama_int.h"

/* Slots are filled in the order of positions. Alone, slot i holds position i; over ranks each holds some of them. */
struct lwm_cache {
	struct lk_dev *dev;
	struct lwm_llama_cfg cfg;
	int dtype, ranks, rank;
	int64_t length, max_len; /* of the whole context */
	int64_t filled, slots;   /* of this rank */
	int64_t row, layer_bytes; /* row: elements, keys of all heads then values */
	int64_t scale_at;        /* bytes from the start of a layer to its scales */
	char *data;              /* each layer: (slots, row) of dtype; with 8 bits (slots, 2 K) fp32 scales behind it */
	int32_t *pos;            /* position of each slot, also of those to come: they are masked by causality */
	struct lk_seq *keys;     /* of the first nkeys slots */
	int64_t nkeys;
	struct lk_seq **piece;   /* the same keys in pieces of LWM_CACHE_PIECE, made when they are wanted */
	int64_t pieces;
};
/* Keys in fewer bits that many queries look at become floats again so many at a time. */
enum { LWM_CACHE_PIECE = 4096 };
int lwm_cache_cut(struct lwm_cache *c, struct lwm_err *e); /* c->piece for the present keys */
/* Makes the table of key positions reach to `need` slots. */
int lwm_cache_reach(struct lwm_cache *c, int64_t need, struct lwm_err *e);
/* Slots filled so far hold their positions; those behind follow from the rule of who takes new tokens. */
void lwm_cache_plan(struct lwm_cache *c);
/* Does this rank keep the token at this position that comes behind the prompt? */
static inline bool lwm_cache_mine(const struct lwm_cache *c, int64_t pos)
{
	return pos % c->ranks == c->rank;
}
/* Keys and values of n tokens, rows from `row` of LWM_BUF_QKV, into the next slots of layer l. */
void lwm_cache_put(struct lwm_engine *g, struct lwm_cache *c, int64_t l, int64_t row, int64_t n);
/* Queries of n tokens, rows from `row`, against the cache: o (n,H,E), lse (n,H). */
void lwm_cache_attend(struct lwm_engine *g, struct lwm_cache *c, const struct lk_seq *qs, int64_t l, int64_t row, int64_t n,
		      const struct lk_view *o, float *lse);

struct lwm_engine {
	struct lwm_attn attn; /* what m calls: over caches, or over the shares of several ranks */
	struct lk_seq *rows;  /* all tokens of a step */
	struct lwm_llama *m;
	struct lwm_llama_weights w;
	int64_t max_chunk, max_streams;
	int cache_dtype;       /* of the caches to come */
	char *wide;            /* device: a piece of keys and values as floats, then a carried state; made when first wanted */
	float *logits;         /* host, of all streams; made when first wanted */
	int32_t *iota;         /* device, as many as a step has tokens */
	int32_t *host;         /* positions, segments and ids: 3 rows of max tokens */
	struct lk_seq **query; /* one token each, of the streams of a step */
	/* of the call under way */
	struct lwm_cache *const *caches;
	int64_t streams, per_stream;
	int64_t have, first_row; /* streams whose logits are there, and the row of the first */
	/* over ranks (split.c) */
	struct lwm_comm *comm;   /* NULL: alone */
	struct lwm_devcomm *between; /* the same ranks on device memory; owned */
	struct lwm_attn *around; /* of the prompt */
	float *parts, *lse;      /* device: partial results of all ranks, each (streams,H,E) and then (streams,H) */
	int64_t part;            /* floats of one rank's */
	int holder;              /* rank that has the rows the logits are of */
};
int64_t lwm_gen_most(const struct lwm_engine *g); /* tokens of the largest call */
/* Positions of per_stream tokens behind each stream's end, and their queries. */
int lwm_gen_begin(struct lwm_engine *g, struct lwm_cache *const *caches, int64_t streams, int64_t per_stream,
		  struct lwm_err *e);
/* Positions and segments of a step in which all ranks have all tokens. */
int lwm_gen_take_rows(struct lwm_attn *a, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e);
const int32_t *lwm_gen_row_positions(const struct lwm_attn *a);
void lwm_gen_keep(struct lwm_attn *a); /* the engine is freed as a whole */
/* The rows that logits are wanted of, in LWM_BUF_IDX; -LWM_ECONFIG: the model has no such head. */
int lwm_gen_rows(struct lwm_engine *g, enum lwm_modality head, struct lwm_err *e);
/* split.c */
int lwm_split_feed(struct lwm_engine *g, struct lwm_cache *c, const int32_t *ids, int64_t n, struct lwm_err *e);
extern const struct lwm_attn_ops lwm_split_ops;
void lwm_split_settle(struct lwm_engine *g); /* m->rc: nothing waits for a rank that is gone */
void lwm_split_free(struct lwm_engine *g);

#endif
