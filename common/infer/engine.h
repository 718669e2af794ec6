/* engine.h - generation: tokens in, logits out, over caches of keys and values.
 *
 *	lwm_lm_open_with_tokenizer(&lm, &tok, dir, ...)                          load.h: configuration, weights, tokenizer
 *	lwm_engine_new(&g, dev, &lm.cfg, lm.weights, max_chunk, max_streams, e)  work memory
 *	lwm_engine_new_cache(&c, g, max_len, e)                                  the context of one stream
 *	lwm_prefill(g, c, ids, n, e)                                             the prompt, in chunks
 *	for (;;) {
 *		lwm_engine_draw(g, LWM_TEXT, &draw, &id, NULL, e)                compose.h: the next token
 *		lwm_decode_step(g, &c, &id, 1, e)                                one token for each of several streams
 *	}
 *	lwm_cache_free(c), lwm_engine_free(g), lwm_lm_close(&lm)                 in this order
 *
 * compose.h has this loop for whole answers and whole frames. Everything is local, but for an engine that ranks share: with
 * lwm_engine_new_shared every call that takes the engine is COLLECTIVE over its ranks. Ids, positions and logits lie in host
 * memory, weights and caches on the device.
 */
#ifndef LWM_INFER_ENGINE_H
#define LWM_INFER_ENGINE_H

#include "common/infer/cache.h"
#include "common/model/llama.h"

struct lwm_engine;

/* On the CPU a step of at most so many streams gives each of them the bits that it has alone: no product of so few rows adds up in
 * another order (kernels/cpu/matmul.c). Elsewhere, and of more streams, sums are rounded otherwise. */
enum { LWM_STREAMS_ALIKE = 16 };

/* dev and the weights (flat, in the device's dtype, in the order of lwm_llama_tensors) are borrowed. max_chunk: most tokens of one
 * pass through the model while a prompt is fed. max_streams: most streams of a step. */
int lwm_engine_new(struct lwm_engine **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
		   const void *compute_weights, int64_t max_chunk, int64_t max_streams, struct lwm_err *e);
/* COLLECTIVE. The ranks of comm (borrowed) share each context: every rank holds its part of the keys and values. All pass the same
 * tokens and get the same logits. The first prefill of a cache, of at most max_prompt tokens, goes round a ring; later tokens go
 * one by one. */
int lwm_engine_new_shared(struct lwm_engine **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
			  const void *compute_weights, struct lwm_comm *comm, int64_t max_prompt, int64_t max_streams,
			  struct lwm_err *e);
void lwm_engine_free(struct lwm_engine *g); /* NULL is fine; free its caches first */
const struct lwm_llama_cfg *lwm_engine_config(const struct lwm_engine *g);
/* Streams of a step, of so many that are wanted, for which the promise of LWM_STREAMS_ALIKE holds; all of them on other devices. */
int64_t lwm_engine_alike(const struct lwm_engine *g, int64_t streams);

/* How caches made from now on keep keys and values. -LWM_ECONFIG: fp32 on a device that computes in bf16. */
int lwm_engine_set_cache(struct lwm_engine *g, enum lwm_cache_kind kind, struct lwm_err *e);
int lwm_engine_cache_dtype(const struct lwm_engine *g); /* LK_F32, LK_BF16 or LK_I8 */
/* A cache for a context of at most max_len tokens (-LWM_ECONFIG: not a possible length); freed by lwm_cache_free. */
int lwm_engine_new_cache(struct lwm_cache **out, struct lwm_engine *g, int64_t max_len, struct lwm_err *e);

/* Feeds n tokens to the end of c. More than the cache holds is -LWM_ECONFIG, an id out of range -LWM_EDATA, and then c is as it
 * was. */
int lwm_prefill(struct lwm_engine *g, struct lwm_cache *c, const int32_t *ids, int64_t n, struct lwm_err *e);
/* Feeds ids[s] to the end of caches[s], for all s below `streams`. Errors as above. */
int lwm_decode_step(struct lwm_engine *g, struct lwm_cache *const *caches, const int32_t *ids, int64_t streams,
		    struct lwm_err *e);

/* Logits are those following the last token of each stream of the last call. This asks for other tokens of a prefill: `count` of
 * them (at most max_streams) from `first` of the last chunk of max_chunk. Not for an engine that ranks share. */
int lwm_engine_pick_rows(struct lwm_engine *g, int64_t first, int64_t count, struct lwm_err *e);
/* out: (streams, rows of that head's vocabulary) floats. -LWM_ECONFIG: the model has no such head. */
int lwm_engine_read_logits(struct lwm_engine *g, enum lwm_modality head, float *out, struct lwm_err *e);

#endif
