/* llama_fwd.c - from ids to the last residual stream.
 *
 *	h = h + Wo attention(rope(Wq n), rope(Wk n), Wv n), n = rmsnorm(h)
 *	h = h + Wdown (silu(Wgate n) * Wup n),             n = rmsnorm(h)
 */
#include "common/model/llama_int.h"

void lwm_fwd_norm(struct lwm_llama *m, const struct lk_view *y, const struct lk_view *x, const struct lwm_matrix *w)
{
	LWM_K(m, lk_rmsnorm_fwd(m->dev, y, lwm_buf(m, LWM_BUF_RSTD, 0), x, NULL, &w->w, (float)m->cfg.rms_eps));
}

static void embed_tokens(struct lwm_llama *m)
{
	struct lwm_embed t = lwm_embed_acquire(m, LWM_WEIGHTS);
	struct lk_view x = lwm_rows(m, LWM_BUF_X, 0, m->cfg.dim, 0, m->n);
	int32_t *ids = lwm_buf(m, LWM_BUF_IDS, 0);

	LWM_K(m, lk_upload(m->dev, ids, m->batch->tokens, (size_t)m->n * sizeof *ids));
	LWM_K(m, lk_embed_fwd(m->dev, &x, ids, &t.table[LWM_TEXT].w, 0));
	if (m->cfg.vision_rows)
		LWM_K(m, lk_embed_fwd(m->dev, &x, ids, &t.table[LWM_VISION].w, (int32_t)m->cfg.vocab_text));
	lwm_embed_release(m, false);
}

/* Leaves the normed input of layer l in LWM_BUF_NORM, its rstd in LWM_BUF_RSTD and rotated q, k, v in LWM_BUF_QKV. */
void lwm_fwd_qkv(struct lwm_llama *m, int64_t l, const struct lwm_layer *w)
{
	const struct lwm_llama_cfg *c = &m->cfg;
	int64_t e = lwm_llama_head_dim(c), row = (c->heads + 2 * c->kv_heads) * e;
	struct lk_view n = lwm_rows(m, LWM_BUF_NORM, 0, c->dim, 0, m->n);
	struct lk_view x = lwm_rows(m, LWM_BUF_X, l, c->dim, 0, m->n);
	struct lk_view y = lwm_rows(m, LWM_BUF_QKV, l, row, 0, m->n);
	struct lk_view qk = lk_view3(y.data, m->dtype, m->n, c->heads + c->kv_heads, e);

	qk.stride[0] = row;
	lwm_fwd_norm(m, &n, &x, &w->norm1);
	LWM_K(m, lk_matmul(m->dev, &y, &n, &w->qkv.w, LK_TB, 1.0f));
	LWM_K(m, lk_rope(m->dev, &qk, lwm_attn_positions(m->attention), c->rope_theta, 0));
}

/* mid = x + Wo o */
void lwm_fwd_mid(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, const struct lk_view *mid)
{
	struct lk_view x = lwm_rows(m, LWM_BUF_X, l, m->cfg.dim, 0, m->n);
	struct lk_view o = lwm_rows(m, LWM_BUF_O, l, m->cfg.dim, 0, m->n);

	if (mid->data != x.data)
		LWM_K(m, lk_copy(m->dev, mid->data, x.data, (size_t)(m->n * m->cfg.dim) * lk_dtype_size(m->dtype)));
	LWM_K(m, lk_matmul(m->dev, mid, &o, &w->o.w, LK_TB | LK_ACC, 1.0f));
}

static void attention_forward(struct lwm_llama *m, int64_t l)
{
	struct lwm_attn_qkv v = lwm_qkv_views(&m->cfg, lwm_buf(m, LWM_BUF_QKV, l), m->dtype, m->n);
	int64_t e = lwm_llama_head_dim(&m->cfg);
	struct lk_view o = lk_view3(lwm_buf(m, LWM_BUF_O, l), m->dtype, m->n, m->cfg.heads, e);

	m->rc = lwm_attn_forward(m->attention, l, &v, &o, lwm_buf(m, LWM_BUF_LSE, l), m->rc, &m->err);
}

/* x = mid + MLP(mid), piece by piece. x may be mid. */
static void mlp_forward(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, const struct lk_view *mid, struct lk_view x)
{
	int64_t d = m->cfg.dim, f = m->cfg.ffn, chunk = m->plan.mlp_chunk;
	bool whole = m->run.train && !m->run.recompute; // gate and up are kept

	if (x.data != mid->data)
		LWM_K(m, lk_copy(m->dev, x.data, mid->data, (size_t)(m->n * d) * lk_dtype_size(m->dtype)));
	for (int64_t t = 0; t < m->n; t += chunk) {
		int64_t k = m->n - t < chunk ? m->n - t : chunk;
		size_t at = (size_t)(t * d) * lk_dtype_size(m->dtype);
		struct lk_view xr = lk_view2((char *)x.data + at, m->dtype, k, d);
		struct lk_view mr = lk_view2((char *)mid->data + at, m->dtype, k, d);
		struct lk_view n = lwm_rows(m, LWM_BUF_NORM, 0, d, 0, k), h = lwm_rows(m, LWM_BUF_H, 0, f, 0, k);
		struct lk_view gu = lwm_rows(m, LWM_BUF_GU, l, 2 * f, whole ? t : 0, k);
		struct lk_view g = lwm_cols(&gu, 0, f), u = lwm_cols(&gu, f, f);

		lwm_fwd_norm(m, &n, &mr, &w->norm2);
		LWM_K(m, lk_matmul(m->dev, &gu, &n, &w->gate_up.w, LK_TB, 1.0f));
		LWM_K(m, lk_swiglu_fwd(m->dev, &h, &g, &u));
		LWM_K(m, lk_matmul(m->dev, &xr, &h, &w->down.w, LK_TB | LK_ACC, 1.0f));
	}
}

void lwm_llama_forward(struct lwm_llama *m)
{
	bool kept = m->run.train && !m->run.recompute;

	embed_tokens(m);
	for (int64_t l = 0; l < m->cfg.layers; l++) {
		struct lwm_layer y = lwm_layer_acquire(m, l, LWM_WEIGHTS);
		struct lk_view x = lwm_rows(m, LWM_BUF_X, l + 1, m->cfg.dim, 0, m->n);
		struct lk_view mid = kept ? lwm_rows(m, LWM_BUF_MID, l, m->cfg.dim, 0, m->n) : x;

		lwm_offload_fwd_begin(m, l);
		lwm_fwd_qkv(m, l, &y);
		attention_forward(m, l);
		lwm_fwd_mid(m, l, &y, &mid);
		mlp_forward(m, l, &y, &mid, x);
		lwm_layer_release(m, l, false);
		lwm_offload_fwd_end(m, l);
	}
}
