/* attn_cache.h - attention over caches on one rank. See kv.h. */
#ifndef LWM_INFER_ATTN_CACHE_H
#define LWM_INFER_ATTN_CACHE_H

#include "common/infer/kv.h"

/* Local. */
int lwm_attn_cache_new(struct lwm_kv **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, int64_t max_chunk,
		       int64_t max_streams, struct lwm_err *e);

#endif
