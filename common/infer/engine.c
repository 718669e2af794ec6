/* engine.c - generation is the forward pass of evaluation (llama_fwd.c) with attention over caches (kv.h) in the ring's place. */
#include "common/infer/engine.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/infer/engine_int.h"

/* ---- the life of an engine ---- */

static int allocate_parts(struct lwm_engine *g, const struct lwm_llama_cfg *cfg, int64_t max_chunk, struct lwm_err *e)
{
	int64_t v = cfg->vocab_text > cfg->vision_rows ? cfg->vocab_text : cfg->vision_rows;
	struct lwm_llama_run run = { .loss_bytes = g->max_streams * v * 4 };

	LWM_TRY(lwm_kv_new(&g->kv, g->dev, cfg, g->comm, max_chunk, g->max_streams, e));
	run.tokens = g->kv->work.tokens;
	run.attention = &g->kv->base;
	return lwm_llama_new(&g->m, g->dev, cfg, &run, e);
}

static int create_engine(struct lwm_engine **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, const void *weights,
			 struct lwm_comm *comm, int64_t max_chunk, int64_t max_streams, struct lwm_err *e)
{
	struct lwm_engine *g;
	int rc = 0;

	*out = NULL;
	if (max_chunk < 1 || max_streams < 1)
		return lwm_fail(e, LWM_ECONFIG, "generation in pieces of %" PRId64 " tokens for %" PRId64 " streams", max_chunk,
				max_streams);
	LWM_TRY(lwm_llama_check(cfg, e));
	g = calloc(1, sizeof *g);
	if (!g)
		return lwm_fail(e, LWM_EMEMORY, "no memory to generate");
	g->dev = dev;
	g->comm = comm;
	g->max_streams = max_streams;
	g->w = lwm_flat_weights_of(weights, lk_dev_dtype(dev), NULL);
	g->cache_dtype = lk_dev_dtype(dev);
	LWM_GO(allocate_parts(g, cfg, max_chunk, e));
	*out = g;
out:
	if (rc < 0)
		lwm_engine_free(g);
	return rc;
}

int lwm_engine_new(struct lwm_engine **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, const void *compute_weights,
		   int64_t max_chunk, int64_t max_streams, struct lwm_err *e)
{
	return create_engine(out, dev, cfg, compute_weights, NULL, max_chunk, max_streams, e);
}

int lwm_engine_new_shared(struct lwm_engine **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
			  const void *compute_weights, struct lwm_comm *comm, int64_t max_prompt, int64_t max_streams,
			  struct lwm_err *e)
{
	int ranks = lwm_comm_size(comm), rc;

	if (ranks == 1)
		return lwm_engine_new(out, dev, cfg, compute_weights, max_prompt, max_streams, e);
	rc = create_engine(out, dev, cfg, compute_weights, comm, max_prompt / ranks + 2, max_streams, e);
	rc = lwm_agree(comm, rc, e);
	if (rc < 0) {
		lwm_engine_free(*out);
		*out = NULL;
	}
	return rc;
}

void lwm_engine_free(struct lwm_engine *g)
{
	if (!g)
		return;
	lwm_llama_free(g->m);
	if (g->kv)
		lwm_attn_free(&g->kv->base);
	free(g->logits);
	free(g);
}

const struct lwm_llama_cfg *lwm_engine_config(const struct lwm_engine *g)
{
	return &g->kv->cfg;
}

int64_t lwm_engine_alike(const struct lwm_engine *g, int64_t streams)
{
	return lk_dev_is_host(g->dev) && streams > LWM_STREAMS_ALIKE ? LWM_STREAMS_ALIKE : streams;
}

/* ---- caches ---- */

int lwm_engine_set_cache(struct lwm_engine *g, enum lwm_cache_kind kind, struct lwm_err *e)
{
	static const int dtype[] = { 0, LK_F32, LK_BF16, LK_I8 };

	if (kind == LWM_CACHE_F32 && lk_dev_dtype(g->dev) != LK_F32)
		return lwm_fail(e, LWM_ECONFIG, "a cache in fp32: %s computes in bf16", lk_dev_name(g->dev));
	g->cache_dtype = kind == LWM_CACHE_AUTO ? lk_dev_dtype(g->dev) : dtype[kind];
	return 0;
}

int lwm_engine_cache_dtype(const struct lwm_engine *g)
{
	return g->cache_dtype;
}

int lwm_engine_new_cache(struct lwm_cache **out, struct lwm_engine *g, int64_t max_len, struct lwm_err *e)
{
	return lwm_cache_new(out, g->dev, &g->kv->cfg, max_len, g->cache_dtype, g->comm, e);
}

/* ---- steps ---- */

static int check_ids(const struct lwm_engine *g, const int32_t *ids, int64_t n, struct lwm_err *e)
{
	int64_t limit = lwm_llama_ids(&g->kv->cfg);

	for (int64_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= limit)
			return lwm_fail(e, LWM_EDATA, "token %" PRId64 " has id %d, the model knows 0 to %" PRId64, i, (int)ids[i],
					limit - 1);
	return 0;
}

static int check_room(const struct lwm_cache *c, int64_t n, struct lwm_err *e)
{
	int64_t room = lwm_cache_room(c), used = lwm_cache_length(c);

	if (n > room)
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " more tokens do not fit: the context holds %" PRId64 ", %" PRId64
				" are used", n, room + used, used);
	return 0;
}

/* The step that stands in kv->step; caches grow only when all went well, on all ranks. */
static int run_step(struct lwm_engine *g, struct lwm_err *e)
{
	const struct lwm_kv_step *s = &g->kv->step;
	struct lwm_llama_batch b = { .n = s->n, .tokens = s->ids };
	struct lwm_err why = { 0 };
	int rc = lwm_attn_begin(&g->kv->base, s->n, s->pos, s->seg, e);

	if (g->comm)
		rc = lwm_agree(g->comm, rc, e);
	if (rc)
		return rc;
	g->fed = s->n;
	lwm_pass_start(g->m, &b, &g->w.base);
	lwm_llama_forward(g->m);
	if (g->kv->ops->settle) {
		rc = g->kv->ops->settle(g->kv, lwm_pass_result(g->m, &why), &why);
		lwm_pass_set(g->m, rc, &why);
	}
	rc = lwm_pass_result(g->m, e);
	if (g->comm)
		rc = lwm_agree(g->comm, rc, e);
	if (rc)
		return rc;
	g->kv->ops->grow(g->kv);
	g->have = s->streams;
	g->first_row = s->row;
	g->holder = s->holder;
	return 0;
}

int lwm_prefill(struct lwm_engine *g, struct lwm_cache *c, const int32_t *ids, int64_t n, struct lwm_err *e)
{
	LWM_TRY(check_ids(g, ids, n, e));
	LWM_TRY(check_room(c, n, e));
	for (int64_t at = 0; at < n; at += g->kv->step.taken) {
		LWM_TRY(g->kv->ops->take_prompt(g->kv, &c, ids + at, n - at, e));
		LWM_TRY(run_step(g, e));
	}
	return 0;
}

int lwm_decode_step(struct lwm_engine *g, struct lwm_cache *const *caches, const int32_t *ids, int64_t streams,
		    struct lwm_err *e)
{
	if (streams < 1 || streams > g->max_streams)
		return lwm_fail(e, LWM_EINTERNAL, "%" PRId64 " streams where there is room for %" PRId64, streams, g->max_streams);
	LWM_TRY(check_ids(g, ids, streams, e));
	for (int64_t s = 0; s < streams; s++)
		LWM_TRY(check_room(caches[s], 1, e));
	lwm_kv_take(g->kv, caches, streams, ids, 1);
	return run_step(g, e);
}

/* ---- logits ---- */

int lwm_engine_pick_rows(struct lwm_engine *g, int64_t first, int64_t count, struct lwm_err *e)
{
	if (g->comm || first < 0 || count < 1 || count > g->max_streams || first + count > g->fed)
		return lwm_fail(e, LWM_EINTERNAL, "logits of %" PRId64 " tokens from %" PRId64 " wanted", count, first);
	g->have = count;
	g->first_row = first;
	return 0;
}

int lwm_engine_place_rows(struct lwm_engine *g, enum lwm_modality head, struct lwm_err *e)
{
	int32_t *rows = g->kv->host;

	if (!g->have)
		return lwm_fail(e, LWM_EINTERNAL, "logits wanted before any token was fed");
	if (head == LWM_VISION && !g->kv->cfg.vision_rows)
		return lwm_fail(e, LWM_ECONFIG, "this model has no vision part");
	if (g->comm && lwm_comm_rank(g->comm) != g->holder)
		return 0;
	for (int64_t i = 0; i < g->have; i++)
		rows[i] = (int32_t)(g->first_row + i);
	lwm_logit_pick(g->m, rows, g->have);
	return 0;
}

int lwm_engine_read_logits(struct lwm_engine *g, enum lwm_modality head, float *out, struct lwm_err *e)
{
	const struct lwm_llama_cfg *c = &g->kv->cfg;
	int64_t vocab = head == LWM_VISION ? c->vision_rows : c->vocab_text;
	int rc;

	LWM_TRY(lwm_engine_place_rows(g, head, e));
	if (!g->comm || lwm_comm_rank(g->comm) == g->holder)
		lwm_logit_rows(g->m, head, g->have, out);
	rc = lwm_pass_result(g->m, e);
	if (!g->comm)
		return rc;
	LWM_TRY(lwm_agree(g->comm, rc, e));
	return lwm_comm_bcast(g->comm, out, (size_t)(g->have * vocab) * sizeof *out, g->holder, e);
}
