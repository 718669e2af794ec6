/* cache.c - generation: the forward pass of evaluation (llama_fwd.c) with attention over caches in the ring's place. */
#include "common/model/cache.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/model/llama_int.h"

enum { SEQ_STEP = 256 }; /* the table of key positions grows by so much; keys behind the end are masked by causality */

struct lwm_cache {
	struct lk_dev *dev;
	struct lwm_llama_cfg cfg;
	int dtype;
	int64_t length, max_len;
	int64_t row, layer_bytes; /* row: elements, keys of all heads then values */
	char *data;               /* (layers, max_len, row) */
	struct lk_seq *keys;      /* positions 0 .. nkeys-1 */
	int64_t nkeys;
};

struct lwm_gen {
	struct lwm_llama *m;
	struct lwm_llama_weights w;
	int64_t max_chunk, max_streams;
	int32_t *iota;  /* device, as many as a step has tokens */
	int32_t *host;  /* positions, segments and row numbers: 3 rows of max tokens */
	struct lk_seq **query; /* one token each, of the streams of a step */
	/* of the call under way */
	struct lwm_cache *const *caches;
	int64_t streams, per_stream;
	int64_t last[2]; /* streams whose logits are there, and the row of the first */
};

static int64_t most(const struct lwm_gen *g)
{
	return g->max_chunk > g->max_streams ? g->max_chunk : g->max_streams;
}

static int gen_alloc(struct lwm_gen *g, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, struct lwm_err *e)
{
	int64_t v = cfg->vocab_text > cfg->vision_rows ? cfg->vocab_text : cfg->vision_rows, n = most(g);
	struct lwm_llama_run run = { .tokens = n, .loss_bytes = g->max_streams * v * 4 };
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

static void attend(struct lwm_llama *m, int64_t l);

int lwm_gen_new(struct lwm_gen **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, const void *compute_weights,
		int64_t max_chunk, int64_t max_streams, struct lwm_err *e)
{
	struct lwm_gen *g;
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
	LWM_GO(gen_alloc(g, dev, cfg, e));
	g->m->attend = attend;
	g->m->attend_arg = g;
	*out = g;
out:
	if (rc < 0)
		lwm_gen_free(g);
	return rc;
}

void lwm_gen_free(struct lwm_gen *g)
{
	if (!g)
		return;
	for (int64_t i = 0; g->query && i < g->max_streams; i++)
		lk_seq_free(g->query[i]);
	if (g->m)
		lk_mem_free(g->m->dev, g->iota);
	lwm_llama_free(g->m);
	free(g->host);
	free(g->query);
	free(g);
}

const struct lwm_llama_cfg *lwm_gen_config(const struct lwm_gen *g)
{
	return &g->m->cfg;
}

/* ---- caches ---- */

int64_t lwm_cache_bytes(const struct lwm_llama_cfg *c, int64_t max_len, int dtype)
{
	int64_t row = 2 * c->kv_heads * lwm_llama_head_dim(c) * (int64_t)lk_dtype_size(dtype), bytes;

	return lwm_mul3(c->layers, max_len, row, &bytes) ? -1 : bytes;
}

int lwm_cache_new(struct lwm_cache **out, struct lwm_gen *g, int64_t max_len, struct lwm_err *e)
{
	const struct lwm_llama_cfg *cfg = &g->m->cfg;
	int64_t bytes = max_len < 1 ? -1 : lwm_cache_bytes(cfg, max_len, g->m->dtype);
	struct lwm_cache *c;
	int rc = 0;
	void *data;

	*out = NULL;
	if (bytes < 0 || max_len > INT32_MAX)
		return lwm_fail(e, LWM_ECONFIG, "a cache for %lld tokens is not possible", (long long)max_len);
	c = calloc(1, sizeof *c);
	if (!c)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a cache of %lld tokens", (long long)max_len);
	c->dev = g->m->dev;
	c->cfg = *cfg;
	c->dtype = g->m->dtype;
	c->max_len = max_len;
	c->row = 2 * cfg->kv_heads * lwm_llama_head_dim(cfg);
	c->layer_bytes = bytes / cfg->layers;
	LWM_GO(lwm_dev_check(c->dev, lk_mem_alloc(c->dev, (size_t)bytes, &data), e));
	c->data = data;
	// what is behind the end is masked, but 0 times NaN would show
	LWM_GO(lwm_dev_check(c->dev, lk_zero(c->dev, data, (size_t)bytes), e));
	*out = c;
out:
	if (rc < 0)
		lwm_cache_free(c);
	return rc;
}

void lwm_cache_free(struct lwm_cache *c)
{
	if (!c)
		return;
	lk_seq_free(c->keys);
	lk_mem_free(c->dev, c->data);
	free(c);
}

int64_t lwm_cache_length(const struct lwm_cache *c)
{
	return c->length;
}

int64_t lwm_cache_room(const struct lwm_cache *c)
{
	return c->max_len - c->length;
}

void lwm_cache_rewind(struct lwm_cache *c, int64_t length)
{
	if (length >= 0 && length < c->length)
		c->length = length;
}

int lwm_cache_copy(struct lwm_cache *to, const struct lwm_cache *from, struct lwm_err *e)
{
	size_t bytes = (size_t)(from->length * from->row) * lk_dtype_size(from->dtype);

	if (to->row != from->row || to->cfg.layers != from->cfg.layers || to->max_len < from->length)
		return lwm_fail(e, LWM_EINTERNAL, "a cache of %lld tokens does not take %lld", (long long)to->max_len,
				(long long)from->length);
	for (int64_t l = 0; bytes && l < from->cfg.layers; l++)
		LWM_TRY(lwm_dev_check(to->dev, lk_copy(to->dev, to->data + l * to->layer_bytes,
						       from->data + l * from->layer_bytes, bytes), e));
	to->length = from->length;
	return 0;
}

/* Makes the table of key positions reach to `need`. */
static int keys_reach(struct lwm_cache *c, int64_t need, struct lwm_err *e)
{
	int64_t n = (need + SEQ_STEP - 1) / SEQ_STEP * SEQ_STEP;
	int32_t *pos;
	int rc;

	n = n < c->max_len ? n : c->max_len;
	if (c->keys && c->nkeys >= need && c->nkeys < n + SEQ_STEP)
		return 0;
	lk_seq_free(c->keys);
	c->keys = NULL;
	pos = malloc((size_t)n * sizeof *pos);
	if (!pos)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %lld positions", (long long)n);
	for (int64_t i = 0; i < n; i++)
		pos[i] = (int32_t)i;
	rc = lwm_dev_check(c->dev, lk_seq_new(c->dev, &c->keys, n, pos, NULL), e);
	free(pos);
	c->nkeys = n;
	return rc;
}

/* ---- forward ---- */

/* Keys and values of `n` new tokens, rows from `row` of LWM_BUF_QKV, go into the cache; their queries see all of it. */
static void attend_one(struct lwm_gen *g, struct lwm_cache *c, const struct lk_seq *qs, int64_t l, int64_t row,
		       int64_t n)
{
	struct lwm_llama *m = g->m;
	int64_t e = lwm_llama_head_dim(&m->cfg), d = m->cfg.dim, kv = c->row / 2;
	int64_t size = (int64_t)lk_dtype_size(m->dtype);
	char *base = c->data + l * c->layer_bytes;
	struct lk_view qkv = lwm_rows(m, LWM_BUF_QKV, 0, d + c->row, row, n), fresh = lwm_cols(&qkv, d, c->row);
	struct lk_view slot = lk_view2(base + c->length * c->row * size, m->dtype, n, c->row);
	struct lk_view o = lk_view3((char *)lwm_buf(m, LWM_BUF_O, 0) + row * d * size, m->dtype, n, m->cfg.heads, e);
	struct lk_attn a = { .q = lk_view3(qkv.data, m->dtype, n, m->cfg.heads, e),
			     .k = lk_view3(base, m->dtype, c->nkeys, m->cfg.kv_heads, e),
			     .v = lk_view3(base + kv * size, m->dtype, c->nkeys, m->cfg.kv_heads, e),
			     .qs = qs, .ks = c->keys, .scale = (float)(1 / sqrt((double)e)), .causal = 1 };

	a.q.stride[0] = d + c->row;
	a.k.stride[0] = a.v.stride[0] = c->row;
	LWM_K(m, lk_gather_rows(m->dev, &slot, &fresh, g->iota));
	LWM_K(m, lk_attn_once(m->dev, &a, &o, (float *)lwm_buf(m, LWM_BUF_LSE, 0) + row * m->cfg.heads));
}

static void attend(struct lwm_llama *m, int64_t l)
{
	struct lwm_gen *g = m->attend_arg;

	for (int64_t s = 0; s < g->streams && !m->rc; s++)
		attend_one(g, g->caches[s], g->query[s], l, s * g->per_stream, g->per_stream);
}

static int check_ids(const struct lwm_gen *g, const int32_t *ids, int64_t n, struct lwm_err *e)
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

/* Positions of this call's tokens, for rotation and for the queries of each stream. */
static int begin(struct lwm_gen *g, int64_t n, struct lwm_err *e)
{
	int32_t *pos = g->host, *seg = g->host + most(g);
	struct lk_dev *dev = g->m->dev;
	int64_t k = g->per_stream;

	for (int64_t s = 0; s < g->streams; s++) {
		struct lwm_cache *c = g->caches[s];

		LWM_TRY(keys_reach(c, c->length + k, e));
		for (int64_t i = 0; i < k; i++) {
			pos[s * k + i] = (int32_t)(c->length + i);
			seg[s * k + i] = (int32_t)s;
		}
		lk_seq_free(g->query[s]);
		g->query[s] = NULL;
		LWM_TRY(lwm_dev_check(dev, lk_seq_new(dev, &g->query[s], k, pos + s * k, NULL), e));
	}
	return lwm_ring_batch(g->m->ring, n, pos, seg, e);
}

/* per_stream tokens for each of the streams; caches grow only when all went well. */
static int forward(struct lwm_gen *g, struct lwm_cache *const *caches, const int32_t *ids, int64_t streams,
		   int64_t per_stream, struct lwm_err *e)
{
	struct lwm_llama *m = g->m;
	struct lwm_llama_batch b = { .n = streams * per_stream, .tokens = ids };

	g->caches = caches;
	g->streams = streams;
	g->per_stream = per_stream;
	m->n = b.n;
	m->rc = 0;
	memset(&m->err, 0, sizeof m->err);
	LWM_TRY(begin(g, b.n, e));
	lwm_fwd(m, &b, &g->w);
	if (m->rc) {
		if (e && !e->code)
			*e = m->err;
		return m->rc;
	}
	for (int64_t s = 0; s < streams; s++)
		caches[s]->length += per_stream;
	return 0;
}

int lwm_gen_feed(struct lwm_gen *g, struct lwm_cache *c, const int32_t *ids, int64_t n, struct lwm_err *e)
{
	LWM_TRY(check_ids(g, ids, n, e));
	LWM_TRY(check_room(c, n, e));
	for (int64_t at = 0; at < n; at += g->max_chunk) {
		int64_t k = n - at < g->max_chunk ? n - at : g->max_chunk;

		LWM_TRY(forward(g, &c, ids + at, 1, k, e));
		g->last[0] = 1;
		g->last[1] = k - 1;
	}
	return 0;
}

int lwm_gen_step(struct lwm_gen *g, struct lwm_cache *const *caches, const int32_t *ids, int64_t streams,
		 struct lwm_err *e)
{
	if (streams < 1 || streams > g->max_streams)
		return lwm_fail(e, LWM_EINTERNAL, "%lld streams where there is room for %lld", (long long)streams,
				(long long)g->max_streams);
	LWM_TRY(check_ids(g, ids, streams, e));
	for (int64_t s = 0; s < streams; s++)
		LWM_TRY(check_room(caches[s], 1, e));
	LWM_TRY(forward(g, caches, ids, streams, 1, e));
	g->last[0] = streams;
	g->last[1] = 0;
	return 0;
}

int lwm_gen_logits(struct lwm_gen *g, enum lwm_modality head, float *out, struct lwm_err *e)
{
	struct lwm_llama *m = g->m;
	int32_t *rows = g->host;

	if (!g->last[0])
		return lwm_fail(e, LWM_EINTERNAL, "logits wanted before any token was fed");
	if (head == LWM_VISION && !m->cfg.vision_rows)
		return lwm_fail(e, LWM_ECONFIG, "this model has no vision part");
	for (int64_t i = 0; i < g->last[0]; i++)
		rows[i] = (int32_t)(g->last[1] + i);
	LWM_K(m, lk_upload(m->dev, lwm_buf(m, LWM_BUF_IDX, 0), rows, (size_t)g->last[0] * sizeof *rows));
	lwm_logit_rows(m, &g->w, head, g->last[0], out);
	if (m->rc && e && !e->code)
		*e = m->err;
	return m->rc;
}
