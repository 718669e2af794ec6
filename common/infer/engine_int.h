/* engine_int.h - what engine.c and draw.c share. Nobody else includes it. */
#ifndef LWM_INFER_ENGINE_INT_H
#define LWM_INFER_ENGINE_INT_H

#include "common/infer/engine.h"
#include "common/infer/kv.h"
#include "common/model/llama_pass.h"

struct lwm_engine {
	struct lk_dev *dev;     /* borrowed */
	struct lwm_llama *m;
	struct lwm_flat_weights w;
	struct lwm_kv *kv;      /* the attention that m calls */
	struct lwm_comm *comm;  /* ranks that share each context; NULL: alone */
	int64_t max_streams;
	int cache_dtype;        /* of the caches to come */
	float *logits;          /* host, of all streams; made when first wanted */
	int64_t fed;            /* tokens of the last step */
	/* logits can be had of `have` rows of the last step, from first_row on, on rank `holder` */
	int64_t have, first_row;
	int holder;
};

/* Picks those rows for the logits that follow. -LWM_ECONFIG: the model has no such head. */
int lwm_engine_place_rows(struct lwm_engine *g, enum lwm_modality head, struct lwm_err *e);

#endif
