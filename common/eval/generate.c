#include "common/eval/generate.h"

#include <stdlib.h>

int lwm_generate_text(const struct lwm_generate *w, const int32_t *prompt, int64_t n, uint64_t sample, struct lwm_ids *said,
		      bool *finished, struct lwm_err *e)
{
	int64_t vocab = lwm_gen_config(w->g)->vocab_text, id;
	struct lwm_cache *cache = NULL;
	float *logits = malloc((size_t)vocab * sizeof *logits);
	int rc = logits ? lwm_cache_new(&cache, w->g, n + w->most, e) : lwm_fail(e, LWM_EMEMORY, "out of memory");
	*finished = false;
	if (rc == 0)
		rc = lwm_gen_feed(w->g, cache, prompt, n, e);
	for (int64_t i = 0; rc == 0 && i < w->most; i++) {
		LWM_GO(lwm_gen_logits(w->g, LWM_TEXT, logits, e));
		LWM_GO(lwm_sample(&w->sampler, logits, 0, vocab, (uint64_t)i, sample, &id, NULL, e));
		*finished = id == lwm_tokenizer_eos(w->tok);
		if (*finished)
			break;
		int32_t next = (int32_t)id;
		LWM_GO(lwm_ids_add(said, &next, 1, e));
		if (i + 1 < w->most)
			LWM_GO(lwm_gen_step(w->g, &cache, &next, 1, e));
	}
out:
	lwm_cache_free(cache);
	free(logits);
	return rc;
}
