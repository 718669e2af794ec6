/* llama_bwd.c - gradients, layer by layer from the last to the first.
 *
 * LWM_BUF_DX holds the gradient of the residual stream and is updated in place: each branch adds its part through its
 * norm. What was not kept is computed again from the layer's input, attention output and log-sum-exp.
 */
#include "common/model/llama_int.h"

/* g += a^T b over tokens. */
static void add_weight_grad(struct lwm_llama *m, const struct lk_view *g, const struct lk_view *a, const struct lk_view *b)
{
	LWM_K(m, lk_matmul(m->dev, g, a, b, LK_TA | LK_ACC, 1.0f));
}

/* One piece of tokens. dx += gradient of the branch. */
static void mlp_piece_backward(struct lwm_llama *m, const struct lwm_layer *w, const struct lk_view *dx,
		      const struct lk_view *mid, const struct lk_view *gu, int kept)
{
	int64_t d = m->cfg.dim, f = m->cfg.ffn, k = dx->n[0];
	struct lk_view n = lwm_rows(m, LWM_BUF_NORM, 0, d, 0, k), dn = lwm_rows(m, LWM_BUF_DN, 0, d, 0, k);
	struct lk_view h = lwm_rows(m, LWM_BUF_H, 0, f, 0, k), dh = lwm_rows(m, LWM_BUF_DH, 0, f, 0, k);
	struct lk_view g = lwm_cols(gu, 0, f), u = lwm_cols(gu, f, f);

	lwm_fwd_norm(m, &n, mid, &w->norm2);
	if (!kept)
		LWM_K(m, lk_matmul(m->dev, gu, &n, &w->gate_up.w, LK_TB, 1.0f));
	LWM_K(m, lk_swiglu_fwd(m->dev, &h, &g, &u));
	LWM_K(m, lk_matmul(m->dev, &dh, dx, &w->down.w, 0, 1.0f));
	add_weight_grad(m, &w->down.g, dx, &h);
	LWM_K(m, lk_swiglu_bwd(m->dev, &g, &u, &dh, &g, &u));
	add_weight_grad(m, &w->gate_up.g, gu, &n);
	LWM_K(m, lk_matmul(m->dev, &dn, gu, &w->gate_up.w, 0, 1.0f));
	LWM_K(m, lk_rmsnorm_bwd(m->dev, dx, w->norm2.g.data, &dn, mid, &w->norm2.w, lwm_buf(m, LWM_BUF_RSTD, 0)));
}

static void mlp_backward(struct lwm_llama *m, int64_t l, const struct lwm_layer *w)
{
	int64_t d = m->cfg.dim, chunk = m->plan.mlp_chunk;
	int kept = !m->run.recompute;

	for (int64_t t = 0; t < m->n; t += chunk) {
		int64_t k = m->n - t < chunk ? m->n - t : chunk;
		struct lk_view dx = lwm_rows(m, LWM_BUF_DX, 0, d, t, k), mid = lwm_rows(m, LWM_BUF_MID, l, d, t, k);
		struct lk_view gu = lwm_rows(m, LWM_BUF_GU, l, 2 * m->cfg.ffn, kept ? t : 0, k);

		mlp_piece_backward(m, w, &dx, &mid, &gu, kept);
	}
}

/* From dout to the gradient of rotated and then plain q, k, v, as a (n,Q) matrix in the device's dtype. */
static struct lk_view attention_backward(struct lwm_llama *m, int64_t l, const struct lk_view *dout2)
{
	const struct lwm_llama_cfg *c = &m->cfg;
	int64_t e = lwm_llama_head_dim(c), row = (c->heads + 2 * c->kv_heads) * e;
	struct lwm_attn_qkv x = lwm_qkv_views(c, lwm_buf(m, LWM_BUF_QKV, l), m->dtype, m->n);
	struct lwm_attn_qkv dx = lwm_qkv_views(c, lwm_buf(m, LWM_BUF_DQKV, 0), LK_F32, m->n);
	struct lk_view o = lk_view3(lwm_buf(m, LWM_BUF_O, l), m->dtype, m->n, c->heads, e);
	struct lk_view dout = lk_view3(dout2->data, m->dtype, m->n, c->heads, e);
	struct lk_view dqk = lk_view3(dx.q.data, LK_F32, m->n, c->heads + c->kv_heads, e);
	struct lk_view d32 = lk_view2(dx.q.data, LK_F32, m->n, row), d = lwm_rows(m, LWM_BUF_QKV, l, row, 0, m->n);

	dqk.stride[0] = row;
	LWM_K(m, lk_zero(m->dev, d32.data, (size_t)(m->n * row) * sizeof(float)));
	m->rc = lwm_attn_backward(m->attention, l, &x, &o, &dout, lwm_buf(m, LWM_BUF_LSE, l), lwm_buf(m, LWM_BUF_DELTA, 0), &dx,
				  m->rc, &m->err);
	LWM_K(m, lk_rope(m->dev, &dqk, lwm_attn_positions(m->attention), c->rope_theta, 1));
	if (m->dtype == LK_F32)
		return d32;
	LWM_K(m, lk_cast(m->dev, &d, &d32)); // q, k, v of this layer are not needed any more
	return d;
}

static void layer_backward(struct lwm_llama *m, int64_t l, const struct lwm_layer *w)
{
	int64_t d = m->cfg.dim;
	struct lk_view dx = lwm_rows(m, LWM_BUF_DX, 0, d, 0, m->n), dn = lwm_rows(m, LWM_BUF_DN, 0, d, 0, m->n);
	struct lk_view o = lwm_rows(m, LWM_BUF_O, l, d, 0, m->n), x = lwm_rows(m, LWM_BUF_X, l, d, 0, m->n);
	struct lk_view mid = lwm_rows(m, LWM_BUF_MID, l, d, 0, m->n), n = lwm_rows(m, LWM_BUF_NORM, 0, d, 0, m->n);
	struct lk_view dqkv;

	if (m->run.recompute)
		lwm_fwd_mid(m, l, w, &mid);
	mlp_backward(m, l, w);
	add_weight_grad(m, &w->o.g, &dx, &o);
	LWM_K(m, lk_matmul(m->dev, &dn, &dx, &w->o.w, 0, 1.0f));
	if (m->run.recompute)
		lwm_fwd_qkv(m, l, w);
	else
		lwm_fwd_norm(m, &n, &x, &w->norm1);
	dqkv = attention_backward(m, l, &dn);
	add_weight_grad(m, &w->qkv.g, &dqkv, &n);
	LWM_K(m, lk_matmul(m->dev, &dn, &dqkv, &w->qkv.w, 0, 1.0f));
	LWM_K(m, lk_rmsnorm_bwd(m->dev, &dx, w->norm1.g.data, &dn, &x, &w->norm1.w, lwm_buf(m, LWM_BUF_RSTD, 0)));
}

/* What the gradient of the first residual stream is to the rows that were looked up. */
static void embed_backward(struct lwm_llama *m)
{
	struct lwm_embed t = lwm_embed_acquire(m, LWM_GRADS);
	struct lk_view dx = lwm_rows(m, LWM_BUF_DX, 0, m->cfg.dim, 0, m->n);
	const int32_t *ids = lwm_buf(m, LWM_BUF_IDS, 0);

	LWM_K(m, lk_embed_bwd(m->dev, &t.table[LWM_TEXT].g, ids, &dx, 0));
	if (m->cfg.vision_rows)
		LWM_K(m, lk_embed_bwd(m->dev, &t.table[LWM_VISION].g, ids, &dx, (int32_t)m->cfg.vocab_text));
	lwm_embed_release(m, true);
}

void lwm_llama_backward(struct lwm_llama *m)
{
	for (int64_t l = m->cfg.layers - 1; l >= 0; l--) {
		struct lwm_layer y = lwm_layer_acquire(m, l, LWM_WEIGHTS | LWM_GRADS);

		lwm_offload_bwd_begin(m, l);
		layer_backward(m, l, &y);
		lwm_layer_release(m, l, true);
		lwm_offload_bwd_end(m, l);
	}
	embed_backward(m);
}
