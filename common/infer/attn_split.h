/* attn_split.h - attention over caches of which each rank has a share. See kv.h. */
#ifndef LWM_INFER_ATTN_SPLIT_H
#define LWM_INFER_ATTN_SPLIT_H

#include "common/infer/kv.h"

/* COLLECTIVE over comm (borrowed), 2 ranks or more; it may fail on some of them alone, so the caller agrees. max_chunk: tokens of
 * a prompt on each rank. */
int lwm_attn_split_new(struct lwm_kv **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, struct lwm_comm *comm,
		       int64_t max_chunk, int64_t max_streams, struct lwm_err *e);

#endif
