/* cache.h - the keys and values of one stream, whole or one rank's share of them.
 *
 * Made by lwm_engine_new_cache and filled by lwm_prefill and lwm_decode_step (engine.h). Keys are rotated before they are kept.
 * Local calls, all of them.
 */
#ifndef LWM_INFER_CACHE_H
#define LWM_INFER_CACHE_H

#include "common/model/llama.h"

struct lwm_cache;

/* How keys and values are kept: as the device computes, or in fewer bits. 8 bits have a scale for each token and head. */
enum lwm_cache_kind { LWM_CACHE_AUTO, LWM_CACHE_F32, LWM_CACHE_BF16, LWM_CACHE_INT8 };
extern const char *const lwm_cache_kinds[]; /* auto f32 bf16 int8, for option tables */

/* Device bytes of a cache that holds a whole context of max_len tokens. dtype: LK_F32, LK_BF16 or LK_I8. -1: more than a number
 * counts. Pure. */
int64_t lwm_cache_bytes(const struct lwm_llama_cfg *cfg, int64_t max_len, int dtype);
int64_t lwm_cache_length(const struct lwm_cache *c); /* tokens fed so far */
int64_t lwm_cache_room(const struct lwm_cache *c);   /* tokens it can still take */
void lwm_cache_rewind(struct lwm_cache *c, int64_t length); /* forgets the tokens from position `length` on */
void lwm_cache_free(struct lwm_cache *c); /* NULL is fine */

#endif
