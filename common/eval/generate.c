/* One prompt in, one answer out: prefill, then decode until </s> or until there are enough tokens. */
#include "common/eval/generate.h"

#include "common/infer/compose.h"

static int keep_token(void *arg, int32_t id, double logprob, struct lwm_err *e)
{
	(void)logprob;
	return lwm_ids_add(arg, &id, 1, e);
}

int lwm_generate_text(const struct lwm_generate *w, const int32_t *prompt, int64_t n, uint64_t sample, struct lwm_ids *said,
		      bool *finished, struct lwm_err *e)
{
	struct lwm_text_run how = { .sampler = w->sampler, .sample = sample, .max_tokens = w->most,
				    .eos = lwm_tokenizer_eos(w->tok) };
	struct lwm_cache *cache = NULL;
	int64_t made = 0;
	int rc = lwm_engine_new_cache(&cache, w->g, n + w->most, e);
	if (rc == 0)
		rc = lwm_prefill(w->g, cache, prompt, n, e);
	if (rc == 0)
		rc = lwm_compose_text(w->g, cache, &how, keep_token, said, &made, e);
	*finished = rc == 0 && made < w->most; /* the cache has room for all of them, so only </s> ends it sooner */
	lwm_cache_free(cache);
	return rc;
}
