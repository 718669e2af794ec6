/* gen.c - generation: the forward pass of evaluation (llama_fwd.c) with attention over caches in the ring's place. */
#include <stdlib.h>
#include <string.h>

#include "common/infer/cache_int.h"

int64_t lwm_gen_most(const struct lwm_engine *g)
{
	return g->max_chunk > g->max_streams ? g->max_chunk : g->max_streams;
}

static int allocate(struct lwm_engine *g, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, struct lwm_err *e)
{
	int64_t v = cfg->vocab_text > cfg->vision_rows ? cfg->vocab_text : cfg->vision_rows, n = lwm_gen_most(g);
	struct lwm_llama_run run = { .tokens = n, .loss_bytes = g->max_streams * v * 4, .attention = &g->attn };
	void *iota;

	LWM_TRY(lwm_llama_new(&g->m, dev, cfg, &run, e));
	g->host = malloc((size_t)n * 3 * sizeof *g->host);
	g->query = calloc((size_t)g->max_streams, sizeof *g->query);
	if (!g->host || !g->query)
		return lwm_fail(e, LWM_EMEMORY, "no memory to generate %lld streams", (long long)g->max_streams);
	LWM_TRY(lwm_dev_check(dev, lk_mem_alloc(dev, (size_t)n * sizeof *g->iota, &iota), e));
	g->iota = iota;
	for (int64_t i = 0; i < n; i++)
		g->host[i] = (int32_t)i;
	return lwm_dev_check(dev, lk_upload(dev, g->iota, g->host, (size_t)n * sizeof *g->iota), e);
}

int lwm_gen_take_rows(struct lwm_attn *a, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e)
{
	struct lwm_engine *g = (struct lwm_engine *)a;

	lk_seq_free(g->rows);
	g->rows = NULL;
	return lwm_dev_check(g->m->dev, lk_seq_new(g->m->dev, &g->rows, n, pos, seg), e);
}

const int32_t *lwm_gen_row_positions(const struct lwm_attn *a)
{
	return lk_seq_pos(((const struct lwm_engine *)a)->rows);
}

void lwm_gen_keep(struct lwm_attn *a)
{
	(void)a;
}

/* The new tokens of each stream see all of its cache, themselves included. */
static int attend(struct lwm_attn *a, int64_t l, const struct lwm_attn_qkv *x, const struct lk_view *o, float *lse, int failed,
		  struct lwm_err *err)
{
	struct lwm_engine *g = (struct lwm_engine *)a;
	struct lwm_llama *m = g->m;
	int64_t e = lwm_llama_head_dim(&m->cfg), n = g->per_stream;

	(void)x;
	(void)failed; // m->rc, where err is m->err
	(void)err;
	for (int64_t s = 0; s < g->streams && !m->rc; s++) {
		struct lk_view rows = lwm_rows(m, LWM_BUF_O, 0, m->cfg.dim, s * n, n);
		struct lk_view y = lk_view3(rows.data, o->dtype, n, m->cfg.heads, e);

		lwm_cache_put(g, g->caches[s], l, s * n, n);
		lwm_cache_attend(g, g->caches[s], g->query[s], l, s * n, n, &y, lse + s * n * m->cfg.heads);
	}
	return m->rc;
}

static const struct lwm_attn_ops cache_ops = { lwm_gen_take_rows, lwm_gen_row_positions, attend, NULL, lwm_gen_keep };

int lwm_engine_new(struct lwm_engine **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, const void *compute_weights,
		int64_t max_chunk, int64_t max_streams, struct lwm_err *e)
{
	struct lwm_engine *g;
	int rc = 0;

	*out = NULL;
	if (max_chunk < 1 || max_streams < 1)
		return lwm_fail(e, LWM_ECONFIG, "generation in pieces of %lld tokens for %lld streams",
				(long long)max_chunk, (long long)max_streams);
	g = calloc(1, sizeof *g);
	if (!g)
		return lwm_fail(e, LWM_EMEMORY, "no memory to generate");
	g->max_chunk = max_chunk;
	g->max_streams = max_streams;
	g->w.compute = compute_weights;
	g->attn.ops = &cache_ops;
	LWM_GO(allocate(g, dev, cfg, e));
	g->cache_dtype = g->m->dtype;
	*out = g;
out:
	if (rc < 0)
		lwm_engine_free(g);
	return rc;
}

void lwm_engine_free(struct lwm_engine *g)
{
	if (!g)
		return;
	lwm_split_free(g);
	for (int64_t i = 0; g->query && i < g->max_streams; i++)
		lk_seq_free(g->query[i]);
	lk_seq_free(g->rows);
	if (g->m) {
		lk_mem_free(g->m->dev, g->iota);
		lk_mem_free(g->m->dev, g->wide);
	}
	free(g->logits);
	lwm_llama_free(g->m);
	free(g->host);
	free(g->query);
	free(g);
}

const struct lwm_llama_cfg *lwm_engine_config(const struct lwm_engine *g)
{
	return &g->m->cfg;
}

static int check_ids(const struct lwm_engine *g, const int32_t *ids, int64_t n, struct lwm_err *e)
{
	int64_t limit = lwm_llama_ids(&g->m->cfg);

	for (int64_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= limit)
			return lwm_fail(e, LWM_EDATA, "token %lld has id %d, the model knows 0 to %lld", (long long)i,
					(int)ids[i], (long long)limit - 1);
	return 0;
}

static int check_room(const struct lwm_cache *c, int64_t n, struct lwm_err *e)
{
	if (n > c->max_len - c->length)
		return lwm_fail(e, LWM_ECONFIG, "%lld more tokens do not fit: the context holds %lld, %lld are used",
				(long long)n, (long long)c->max_len, (long long)c->length);
	return 0;
}

int lwm_gen_begin(struct lwm_engine *g, struct lwm_cache *const *caches, int64_t streams, int64_t per_stream,
		  struct lwm_err *e)
{
	int32_t *pos = g->host, *seg = g->host + lwm_gen_most(g);
	struct lk_dev *dev = g->m->dev;

	g->caches = caches;
	g->streams = streams;
	g->per_stream = per_stream;
	for (int64_t s = 0; s < streams; s++) {
		struct lwm_cache *c = caches[s];
		int64_t more = c->ranks == 1 ? per_stream : lwm_cache_mine(c, c->length);

		LWM_TRY(lwm_cache_reach(c, c->filled + more, e));
		if (c->dtype != g->m->dtype && per_stream > LK_ATTN_FEW)
			LWM_TRY(lwm_cache_cut(c, e));
		for (int64_t i = 0; i < per_stream; i++) {
			pos[s * per_stream + i] = (int32_t)(c->length + i);
			seg[s * per_stream + i] = (int32_t)s;
		}
		lk_seq_free(g->query[s]);
		g->query[s] = NULL;
		LWM_TRY(lwm_dev_check(dev, lk_seq_new(dev, &g->query[s], per_stream, pos + s * per_stream, NULL), e));
	}
	return lwm_attn_begin(&g->attn, streams * per_stream, pos, seg, e);
}

/* per_stream tokens for each of the streams; caches grow only when all went well. */
static int forward(struct lwm_engine *g, struct lwm_cache *const *caches, const int32_t *ids, int64_t streams,
		   int64_t per_stream, struct lwm_err *e)
{
	struct lwm_llama *m = g->m;
	struct lwm_llama_batch b = { .n = streams * per_stream, .tokens = ids };
	int rc = lwm_gen_begin(g, caches, streams, per_stream, e);

	if (g->comm)
		rc = lwm_agree(g->comm, rc, e);
	if (rc)
		return rc;
	m->n = b.n;
	m->rc = 0;
	memset(&m->err, 0, sizeof m->err);
	lwm_fwd(m, &b, &g->w);
	if (g->comm)
		lwm_split_settle(g);
	rc = m->rc;
	if (rc && e && !e->code)
		*e = m->err;
	if (g->comm)
		rc = lwm_agree(g->comm, rc, e);
	for (int64_t s = 0; s < streams && !rc; s++) {
		caches[s]->filled += caches[s]->ranks == 1 ? per_stream : lwm_cache_mine(caches[s], caches[s]->length);
		caches[s]->length += per_stream;
	}
	return rc;
}

int lwm_decode_step(struct lwm_engine *g, struct lwm_cache *const *caches, const int32_t *ids, int64_t streams,
		 struct lwm_err *e)
{
	if (streams < 1 || streams > g->max_streams)
		return lwm_fail(e, LWM_EINTERNAL, "%lld streams where there is room for %lld", (long long)streams,
				(long long)g->max_streams);
	LWM_TRY(check_ids(g, ids, streams, e));
	for (int64_t s = 0; s < streams; s++)
		LWM_TRY(check_room(caches[s], 1, e));
	LWM_TRY(forward(g, caches, ids, streams, 1, e));
	g->have = streams;
	g->first_row = 0;
	g->holder = 0;
	return 0;
}

int lwm_prefill(struct lwm_engine *g, struct lwm_cache *c, const int32_t *ids, int64_t n, struct lwm_err *e)
{
	int64_t most = g->comm ? 1 : g->max_chunk;

	LWM_TRY(check_ids(g, ids, n, e));
	LWM_TRY(check_room(c, n, e));
	if (g->comm && !c->length && n > 1)
		return lwm_split_feed(g, c, ids, n, e);
	for (int64_t at = 0; at < n; at += most) {
		int64_t k = n - at < most ? n - at : most;

		LWM_TRY(forward(g, &c, ids + at, 1, k, e));
		g->have = 1;
		g->first_row = k - 1;
		g->holder = 0;
	}
	return 0;
}

int lwm_engine_pick_rows(struct lwm_engine *g, int64_t first, int64_t count, struct lwm_err *e)
{
	if (g->comm || first < 0 || count < 1 || count > g->max_streams || first + count > g->m->n)
		return lwm_fail(e, LWM_EINTERNAL, "logits of %lld tokens from %lld wanted", (long long)count, (long long)first);
	g->have = count;
	g->first_row = first;
	return 0;
}

int lwm_gen_rows(struct lwm_engine *g, enum lwm_modality head, struct lwm_err *e)
{
	struct lwm_llama *m = g->m;
	int32_t *rows = g->host;

	if (!g->have)
		return lwm_fail(e, LWM_EINTERNAL, "logits wanted before any token was fed");
	if (head == LWM_VISION && !m->cfg.vision_rows)
		return lwm_fail(e, LWM_ECONFIG, "this model has no vision part");
	if (g->comm && lwm_comm_rank(g->comm) != g->holder)
		return 0;
	for (int64_t i = 0; i < g->have; i++)
		rows[i] = (int32_t)(g->first_row + i);
	LWM_K(m, lk_upload(m->dev, lwm_buf(m, LWM_BUF_IDX, 0), rows, (size_t)g->have * sizeof *rows));
	return 0;
}

int lwm_engine_read_logits(struct lwm_engine *g, enum lwm_modality head, float *out, struct lwm_err *e)
{
	struct lwm_llama *m = g->m;
	int64_t vocab = head == LWM_VISION ? m->cfg.vision_rows : m->cfg.vocab_text;
	int rc;

	LWM_TRY(lwm_gen_rows(g, head, e));
	if (!g->comm || lwm_comm_rank(g->comm) == g->holder)
		lwm_logit_rows(m, &g->w, head, g->have, out);
	rc = m->rc;
	if (rc && e && !e->code)
		*e = m->err;
	if (!g->comm)
		return rc;
	LWM_TRY(lwm_agree(g->comm, rc, e));
	return lwm_comm_bcast(g->comm, out, (size_t)(g->have * vocab) * sizeof *out, g->holder, e);
}
