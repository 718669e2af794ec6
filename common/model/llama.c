/* llama.c - the life of a model's work memory, and one step. */
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/model/llama_int.h"

static int check_run(const struct lwm_llama_cfg *c, const struct lwm_llama_run *r, struct lwm_err *e)
{
	int64_t bytes;

	LWM_TRY(lwm_llama_check(c, e));
	if (r->tokens < 1 || r->tokens > INT32_MAX || r->mlp_chunk < 0 || r->loss_bytes < 0)
		return lwm_fail(e, LWM_ECONFIG, "a step of %lld tokens is outside 1 to %d, or a chunk size is negative",
				(long long)r->tokens, INT32_MAX);
	if (r->offload && r->train && !r->recompute)
		return lwm_fail(e, LWM_ECONFIG, "activations in host memory need recomputation: only then a layer keeps little "
				"enough");
	if (lwm_mul3(r->tokens * 4, 32 * (c->dim + c->ffn) + c->heads, c->layers + 4, &bytes))
		return lwm_fail(e, LWM_EMEMORY, "activations of %lld tokens need more bytes than a 64-bit number "
				"counts", (long long)r->tokens);
	return 0;
}

static int allocate(struct lwm_llama *m, struct lwm_err *e)
{
	struct lwm_attn_ring_shape s = { m->run.tokens, m->cfg.heads, m->cfg.kv_heads, lwm_llama_head_dim(&m->cfg),
					 m->run.train, !m->run.no_causal };
	void *block;

	m->host_i = malloc((size_t)m->run.tokens * 2 * sizeof *m->host_i);
	m->host_f = malloc((size_t)m->run.tokens * 2 * sizeof *m->host_f);
	if (!m->host_i || !m->host_f)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a step of %lld tokens", (long long)m->run.tokens);
	LWM_TRY(lwm_dev_check(m->dev, lk_mem_alloc(m->dev, (size_t)m->plan.total, &block), e));
	m->block = block;
	if (m->run.offload && m->run.train)
		LWM_TRY(lwm_offload_new(m, e));
	m->attention = m->run.attention;
	if (m->attention)
		return 0;
	LWM_TRY(lwm_attn_ring_new(&m->own, m->dev, m->run.ring, &s, e));
	m->attention = m->own;
	return 0;
}

int lwm_llama_new(struct lwm_llama **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
		  const struct lwm_llama_run *run, struct lwm_err *e)
{
	struct lwm_llama *m;
	int rc = 0;

	*out = NULL;
	LWM_TRY(check_run(cfg, run, e));
	m = calloc(1, sizeof *m);
	if (!m)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a model");
	m->dev = dev;
	m->cfg = *cfg;
	m->run = *run;
	m->dtype = lk_dev_dtype(dev);
	lwm_map_fill(&m->map, cfg);
	lwm_buf_plan(&m->plan, cfg, run, m->dtype);
	LWM_GO(allocate(m, e));
	*out = m;
out:
	if (rc < 0)
		lwm_llama_free(m);
	return rc;
}

void lwm_llama_free(struct lwm_llama *m)
{
	if (!m)
		return;
	lwm_attn_free(m->own);
	lwm_offload_free(m->offload);
	lk_mem_free(m->dev, m->block);
	free(m->host_i);
	free(m->host_f);
	free(m);
}

const struct lwm_llama_cfg *lwm_llama_config(const struct lwm_llama *m)
{
	return &m->cfg;
}

void lwm_llama_set_theta(struct lwm_llama *m, double theta)
{
	m->cfg.rope_theta = theta;
}

struct lwm_attn_qkv lwm_qkv_views(const struct lwm_llama_cfg *c, void *data, int dtype, int64_t n)
{
	int64_t e = lwm_llama_head_dim(c), row = (c->heads + 2 * c->kv_heads) * e, a = (int64_t)lk_dtype_size(dtype);
	struct lwm_attn_qkv y;

	y.q = lk_view3(data, dtype, n, c->heads, e);
	y.k = lk_view3((char *)data + c->heads * e * a, dtype, n, c->kv_heads, e);
	y.v = lk_view3((char *)data + (c->heads + c->kv_heads) * e * a, dtype, n, c->kv_heads, e);
	y.q.stride[0] = y.k.stride[0] = y.v.stride[0] = row;
	return y;
}

struct lk_view lwm_cols(const struct lk_view *v, int64_t c0, int64_t cols)
{
	struct lk_view y = lk_view2((char *)v->data + c0 * (int64_t)lk_dtype_size(v->dtype), v->dtype, v->n[0], cols);

	y.stride[0] = v->stride[0];
	return y;
}

/* Checks the batch on every rank, then agrees. */
static int begin(struct lwm_llama *m, const struct lwm_llama_batch *b, const struct lwm_llama_weights *w,
		 struct lwm_err *e)
{
	struct lwm_comm *ring = m->run.ring ? lwm_devcomm_comm(m->run.ring) : NULL;
	int rc = 0;

	m->rc = 0;
	memset(&m->err, 0, sizeof m->err);
	if (w->grad && !m->run.train)
		rc = lwm_fail(e, LWM_EINTERNAL, "gradients wanted from a model made for evaluation");
	if (!rc && (b->n < 1 || b->n > m->run.tokens))
		rc = lwm_fail(e, LWM_ECONFIG, "%lld tokens in a step made for 1 to %lld", (long long)b->n,
			      (long long)m->run.tokens);
	for (int64_t i = 0; !rc && i < b->n; i++)
		if (b->tokens[i] < 0 || b->tokens[i] >= lwm_llama_ids(&m->cfg))
			rc = lwm_fail(e, LWM_EDATA, "token %lld has id %d, the model knows 0 to %lld", (long long)i,
				      (int)b->tokens[i], (long long)lwm_llama_ids(&m->cfg) - 1);
	if (!rc) {
		m->n = b->n;
		rc = lwm_loss_rows(m, b, e);
	}
	if (ring && lwm_comm_size(ring) > 1)
		rc = lwm_agree(ring, rc, e);
	return rc ? rc : lwm_attn_begin(m->attention, b->n, b->pos, b->seg, e);
}

/* What happened to this rank, or to another one of the ring. */
static int end(struct lwm_llama *m, struct lwm_err *e)
{
	struct lwm_comm *ring = m->run.ring ? lwm_devcomm_comm(m->run.ring) : NULL;
	int rc = m->rc;

	if (rc && e && !e->code)
		*e = m->err;
	if (ring && lwm_comm_size(ring) > 1)
		rc = lwm_agree(ring, rc, e);
	return rc;
}

/* What is waited for next must not wait for a rank that is gone. */
static void settle(struct lwm_llama *m)
{
	int rc = m->run.ring ? lwm_devcomm_settle(m->run.ring, &m->err) : 0;

	if (!m->rc || rc == -LWM_ERANK)
		m->rc = rc ? rc : m->rc;
}

int lwm_llama_step(struct lwm_llama *m, const struct lwm_llama_batch *b, const struct lwm_llama_weights *w,
		   struct lwm_llama_stats *out, struct lwm_err *e)
{
	LWM_TRY(begin(m, b, w, e));
	lwm_fwd(m, b, w);
	lwm_loss(m, w);
	if (w->grad)
		lwm_bwd(m, w);
	settle(m);
	lwm_loss_stats(m, b, out);
	return end(m, e);
}

int64_t lwm_logit_room(const struct lwm_llama *m)
{
	int64_t rows = m->plan.loss_rows * (int64_t)lk_dtype_size(m->dtype) / 4; // logits here are fp32

	return rows < 1 ? 1 : rows;
}

struct lk_view lwm_logit_piece(struct lwm_llama *m, const struct lwm_llama_weights *w, enum lwm_modality head, int64_t from,
			       int64_t nrows)
{
	struct lwm_tables t = lwm_tables_at(&m->cfg, &m->map, w, m->dtype);
	int64_t v = t.head[head].w.n[0], d = m->cfg.dim;
	const int32_t *idx = (int32_t *)lwm_buf(m, LWM_BUF_IDX, 0) + from;
	struct lk_view x = lwm_rows(m, LWM_BUF_X, m->cfg.layers, d, 0, m->n);
	struct lk_view rx = lwm_rows(m, LWM_BUF_RX, 0, d, 0, nrows), rn = lwm_rows(m, LWM_BUF_RN, 0, d, 0, nrows);
	struct lk_view y = lk_view2(lwm_buf(m, LWM_BUF_LOGITS, 0), LK_F32, nrows, v);

	LWM_K(m, lk_gather_rows(m->dev, &rx, &x, idx));
	LWM_K(m, lk_rmsnorm_fwd(m->dev, &rn, lwm_buf(m, LWM_BUF_RRSTD, 0), &rx, NULL, &t.norm.w, (float)m->cfg.rms_eps));
	LWM_K(m, lk_matmul(m->dev, &y, &rn, &t.head[head].w, LK_TB, 1.0f));
	return y;
}

void lwm_logit_rows(struct lwm_llama *m, const struct lwm_llama_weights *w, enum lwm_modality head, int64_t nrows,
		    float *host_out)
{
	int64_t step = lwm_logit_room(m);

	for (int64_t r = 0; r < nrows; r += step) {
		int64_t k = nrows - r < step ? nrows - r : step;
		struct lk_view y = lwm_logit_piece(m, w, head, r, k);

		LWM_K(m, lk_download(m->dev, host_out + r * y.n[1], y.data, (size_t)(k * y.n[1]) * sizeof(float)));
	}
}

int lwm_llama_logits(struct lwm_llama *m, const struct lwm_llama_batch *b, const struct lwm_llama_weights *w,
		     enum lwm_modality head, const int32_t *rows, int64_t nrows, float *host_out, struct lwm_err *e)
{
	int rc = 0;

	LWM_TRY(begin(m, b, w, e));
	for (int64_t i = 0; i < nrows && !rc; i++)
		if (rows[i] < 0 || rows[i] >= b->n || nrows > m->run.tokens)
			rc = lwm_fail(&m->err, LWM_EINTERNAL, "row %d of a step of %lld tokens", (int)rows[i],
				      (long long)b->n);
	if (!rc && (head == LWM_VISION && !m->cfg.vision_rows))
		rc = lwm_fail(&m->err, LWM_ECONFIG, "the model has no vision head");
	m->rc = rc;
	lwm_fwd(m, b, w);
	settle(m);
	if (!m->rc && nrows) {
		LWM_K(m, lk_upload(m->dev, lwm_buf(m, LWM_BUF_IDX, 0), rows, (size_t)nrows * sizeof *rows));
		lwm_logit_rows(m, w, head, nrows, host_out);
	}
	return end(m, e);
}
