/* Held-out documents: which side a document is on follows from its tokens alone (pack.h). */
#include <stdlib.h>

#include "common/base/hash.h"
#include "common/data/pack/pack_int.h"

/* The hash as a fraction of its range, [0, 1): of 53 bits, exactly. */
static bool is_held_out(const int32_t *tokens, int64_t n, double share)
{
	return (double)(lwm_hash64(tokens, (size_t)n * sizeof *tokens, 0) >> 11) * 0x1p-53 < share;
}

int lwm_mix_part(const struct lwm_pack_cfg *cfg, struct lwm_docs *h, struct lwm_mix_chunk *c, int32_t **tokens, int64_t *cap,
		 struct lwm_err *e)
{
	int64_t at[LWM_MIX_CHUNK + 1], run[LWM_MIX_CHUNK + 1];
	LWM_TRY(lwm_docs_extents(h, c->first, c->n, at, run, e));
	int64_t n = at[c->n] - at[0], runs = run[c->n] - run[0];
	if (n > *cap) {
		int32_t *v = realloc(*tokens, (size_t)n * sizeof *v);
		if (!v)
			return lwm_fail_memory(e, NULL);
		*tokens = v;
		*cap = n;
	}
	struct lwm_loss_run *r = malloc((size_t)(runs + 1) * sizeof *r);
	int rc = r ? lwm_docs_read_many(h, c->n, at, run, *tokens, r, e) : lwm_fail_memory(e, NULL);
	free(r);
	LWM_TRY(rc);
	for (int64_t i = 0; i < c->n; i++)
		if (is_held_out(*tokens + at[i] - at[0], at[i + 1] - at[i], cfg->hold_out) != cfg->held_out)
			c->aside[i / 32] |= (uint32_t)1 << i % 32;
	return 0;
}
