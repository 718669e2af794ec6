/* logits_probe.c - all logits of a few tokens at once. */
#include "common/eval/logits_probe.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "common/infer/engine.h"

/* Knuth's multiplier: neighbours are far apart, and any model of so many ids gets the same. */
static void make_ids(int32_t *ids, int64_t n, int64_t all)
{
	for (int64_t i = 0; i < n; i++)
		ids[i] = (int32_t)((uint64_t)(i + 1) * 2654435761u % (uint64_t)all);
}

static int run_probe(const struct lwm_lm *m, const int32_t *ids, int64_t n, float *out, struct lwm_err *e)
{
	const int64_t rows[LWM_MODALITIES] = { m->cfg.vocab_text, m->cfg.vision_rows };
	struct lwm_engine *g = NULL;
	struct lwm_cache *c = NULL;
	int rc = lwm_engine_new(&g, m->dev, &m->cfg, m->weights, n, n, e);

	if (rc == 0)
		rc = lwm_engine_new_cache(&c, g, n, e);
	if (rc == 0)
		rc = lwm_prefill(g, c, ids, n, e);
	if (rc == 0)
		rc = lwm_engine_pick_rows(g, 0, n, e);
	for (int h = 0; rc == 0 && h < LWM_MODALITIES; h++) {
		if (rows[h])
			rc = lwm_engine_read_logits(g, (enum lwm_modality)h, out, e);
		out += n * rows[h];
	}
	lwm_cache_free(c);
	lwm_engine_free(g);
	return rc;
}

int lwm_logits_probe(const struct lwm_lm *m, int64_t tokens, float **out, int64_t *n, struct lwm_err *e)
{
	int64_t all = lwm_llama_ids(&m->cfg), k = tokens < m->cfg.max_seq ? tokens : m->cfg.max_seq;
	int32_t *ids = malloc((size_t)k * sizeof *ids);
	int rc;

	*n = k * all;
	*out = malloc((size_t)*n * sizeof **out);
	if (!ids || !*out) {
		rc = lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " logits", *n);
	} else {
		make_ids(ids, k, all);
		rc = run_probe(m, ids, k, *out, e);
	}
	free(ids);
	if (rc < 0) {
		free(*out);
		*out = NULL;
	}
	return rc;
}

struct lwm_logits_apart lwm_logits_compare(const float *a, const float *b, int64_t n)
{
	struct lwm_logits_apart y = { 0, 0 };

	for (int64_t i = 0; i < n; i++) {
		double d = fabs((double)a[i] - (double)b[i]);

		y.largest = isnan(d) ? INFINITY : fmax(y.largest, d);
		y.scale = fmax(y.scale, fabs((double)a[i]));
	}
	return y;
}
