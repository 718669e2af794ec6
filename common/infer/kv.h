/* kv.h - attention of generation: attention bodies (model/attention.h) whose keys and values stay in caches.
 *
 * The engine runs every step alike, whatever the body:
 *
 *	kv->ops->take_prompt(kv, &c, ids, n, e)    how much of a prompt goes through the model next, and which part on this rank; or
 *	lwm_kv_take(kv, caches, streams, ids, 1, e)    one token for each of several streams
 *	lwm_attn_begin(&kv->base, ...)             and the forward pass over kv->step, which calls lwm_attn_forward
 *	kv->ops->settle(kv, rc, e)                 no message is still under way
 *	kv->ops->grow(kv)                          the step went well on all ranks: the caches hold its tokens
 *
 * attn_cache.c is one rank with the whole context, attn_split.c a context that ranks share. lwm_kv_new (kv.c) picks.
 */
#ifndef LWM_INFER_KV_H
#define LWM_INFER_KV_H

#include "common/comm/comm.h"
#include "common/infer/cache_int.h"

struct lwm_kv;

/* What goes through the model in one step. */
struct lwm_kv_step {
	struct lwm_cache *const *caches;
	int64_t streams;          /* caches of this step */
	int64_t per_stream;       /* tokens of each of them that this rank keeps; over ranks only one rank keeps a decoded token */
	int64_t n;                /* tokens that this rank runs through the model: the streams', end to end */
	const int32_t *ids, *pos, *seg; /* of those n */
	int64_t taken;            /* how many of the tokens offered the step takes */
	int64_t row;              /* where the last of them is among the n ... */
	int holder;               /* ... and on which rank */
};

struct lwm_kv_ops {
	/* Fills kv->step with what of the n tokens goes next into *c. */
	int (*take_prompt)(struct lwm_kv *kv, struct lwm_cache *const *c, const int32_t *ids, int64_t n, struct lwm_err *e);
	/* rc: of the forward pass. What the step amounts to: rc, or that a rank is gone. NULL: there are no messages. */
	int (*settle)(struct lwm_kv *kv, int rc, struct lwm_err *e);
	void (*grow)(struct lwm_kv *kv);
};

/* First member of every body. */
struct lwm_kv {
	struct lwm_attn base;
	const struct lwm_kv_ops *ops;
	struct lwm_llama_cfg cfg;
	int64_t max_chunk, max_streams; /* tokens of a prompt in one step, streams of one */
	struct lwm_kv_step step;        /* the one under way */
	struct lwm_cache_work work;     /* work.tokens: of the largest step */
	int32_t *host;                  /* positions, segments and ids: 3 rows of work.tokens */
	struct lk_seq *rows;            /* all tokens of the step */
	struct lk_seq **query;          /* those of each stream */
};

/* comm (borrowed): the ranks that share each context, COLLECTIVE over them; NULL: alone. Freed by lwm_attn_free(&kv->base). */
int lwm_kv_new(struct lwm_kv **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, struct lwm_comm *comm, int64_t max_chunk,
	       int64_t max_streams, struct lwm_err *e);

/* The next per_stream tokens of each stream, ids end to end: they follow what its cache holds. */
void lwm_kv_take(struct lwm_kv *kv, struct lwm_cache *const *caches, int64_t streams, const int32_t *ids, int64_t per_stream);

/* ---- what bodies share (attn_cache.c) ---- */

/* A body of `size` bytes, of which the struct lwm_kv that it begins with is filled and the rest is zero. */
int lwm_kv_create(struct lwm_kv **out, size_t size, const struct lwm_attn_ops *attn, const struct lwm_kv_ops *ops,
		  struct lk_dev *dev, const struct lwm_llama_cfg *cfg, int64_t max_chunk, int64_t max_streams, struct lwm_err *e);
/* free of lwm_attn_ops; a body with more to free calls it last. */
void lwm_kv_free(struct lwm_attn *a);
/* grow of lwm_kv_ops where a stream's tokens are all kept here. */
void lwm_kv_grow(struct lwm_kv *kv);
/* begin and positions of lwm_attn_ops, of a step whose streams stand in kv->step: the caches reach its tokens, each stream has its
 * queries. */
int lwm_kv_begin(struct lwm_attn *a, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e);
const int32_t *lwm_kv_positions(const struct lwm_attn *a);

#endif
