/* kv.c - which attention body an engine gets. */
#include "common/infer/attn_cache.h"
#include "common/infer/attn_split.h"

int lwm_kv_new(struct lwm_kv **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, struct lwm_comm *comm, int64_t max_chunk,
	       int64_t max_streams, struct lwm_err *e)
{
	if (comm)
		return lwm_attn_split_new(out, dev, cfg, comm, max_chunk, max_streams, e);
	return lwm_attn_cache_new(out, dev, cfg, max_chunk, max_streams, e);
}
