/* cache.h - generation: key/value caches and the forward pass that reads them.
 *
 *	lwm_gen_new(&g, dev, &cfg, w, max_chunk, max_streams, e)   work memory, weights borrowed
 *	lwm_cache_new(&c, g, max_len, e)                            one stream
 *	lwm_gen_feed(g, c, ids, n, e)                               prefill, any number of tokens, in chunks
 *	lwm_gen_step(g, caches, ids, streams, e)                    one token for each of several streams
 *	lwm_gen_logits(g, LWM_TEXT, out, e)                         logits behind each stream's last token
 *
 * Keys are rotated before they are kept. All local, but for what lwm_gen_new_split makes.
 */
#ifndef LWM_INFER_CACHE_H
#define LWM_INFER_CACHE_H

#include "common/model/llama.h"

struct lwm_gen;
struct lwm_cache;

int lwm_gen_new(struct lwm_gen **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
		const void *compute_weights, int64_t max_chunk, int64_t max_streams, struct lwm_err *e);
/* COLLECTIVE, as is then every call below that takes a gen: ranks share each context. All pass the same tokens and get
 * the same logits. The first feed of a cache (at most max_prompt tokens) goes round a ring; later tokens one by one. */
int lwm_gen_new_split(struct lwm_gen **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
		      const void *compute_weights, struct lwm_comm *comm, int64_t max_prompt, int64_t max_streams,
		      struct lwm_err *e);
void lwm_gen_free(struct lwm_gen *g); /* NULL is fine; free caches first */
const struct lwm_llama_cfg *lwm_gen_config(const struct lwm_gen *g);

/* How caches keep keys and values: as the device computes, or in fewer bits. 8 bits have a scale for each token and head. */
enum lwm_cache_kind { LWM_CACHE_AUTO, LWM_CACHE_F32, LWM_CACHE_BF16, LWM_CACHE_INT8 };
extern const char *const lwm_cache_kinds[]; /* auto f32 bf16 int8, for option tables */
/* Of caches made from now on. -LWM_ECONFIG: fp32 on a device that computes in bf16. */
int lwm_gen_set_cache(struct lwm_gen *g, enum lwm_cache_kind kind, struct lwm_err *e);
int lwm_gen_cache_dtype(const struct lwm_gen *g);

/* Of one rank that has the whole context. dtype: LK_F32, LK_BF16 or LK_I8. */
int64_t lwm_cache_bytes(const struct lwm_llama_cfg *cfg, int64_t max_len, int dtype);
int lwm_cache_new(struct lwm_cache **out, struct lwm_gen *g, int64_t max_len, struct lwm_err *e);
void lwm_cache_free(struct lwm_cache *c);
int64_t lwm_cache_length(const struct lwm_cache *c); /* tokens fed so far */
int64_t lwm_cache_room(const struct lwm_cache *c);   /* tokens it can still take */
void lwm_cache_rewind(struct lwm_cache *c, int64_t length); /* forgets what is behind */
/* What `from` holds, into `to`, which is at least as long. */
int lwm_cache_copy(struct lwm_cache *to, const struct lwm_cache *from, struct lwm_err *e);

/* More than the cache holds is -LWM_ECONFIG, an id out of range -LWM_EDATA. */
int lwm_gen_feed(struct lwm_gen *g, struct lwm_cache *c, const int32_t *ids, int64_t n, struct lwm_err *e);
int lwm_gen_step(struct lwm_gen *g, struct lwm_cache *const *caches, const int32_t *ids, int64_t streams,
		 struct lwm_err *e);
/* Behind which of the tokens fed last lwm_gen_logits looks, instead of the last one: `count` of them (at most max_streams) from
 * `first` of the last chunk of max_chunk. Not of a gen that ranks share. */
int lwm_gen_pick(struct lwm_gen *g, int64_t first, int64_t count, struct lwm_err *e);
/* out: (streams, rows of that head) floats on the host. */
int lwm_gen_logits(struct lwm_gen *g, enum lwm_modality head, float *out, struct lwm_err *e);

#endif
