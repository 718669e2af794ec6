/* llama_bwd.c - gradients, layer by layer from the last to the first.
 *
 * LWM_BUF_DX holds the gradient of the residual stream and is updated in place: each branch adds its part through its
 * norm. What was not kept is computed again from the layer's input, attention output and log-sum-exp. Of ranks that share the model
 * each has its own rows of it; before a product they are gathered, behind it partial sums are added up (llama_tp.c).
 */
#include "common/model/llama_int.h"

/* One piece of tokens. dx, of own rows, += gradient of the branch. */
void lwm_bwd_mlp_piece(struct lwm_llama *m, const struct lwm_layer *w, const struct lwm_norm_grads *shared,
		       const struct lk_view *mid, const struct lk_view *gu, const struct lwm_piece *p, int kept)
{
	int64_t f = m->cut.ffn;
	struct lk_view dx = lwm_own_rows(m, LWM_BUF_DX, 0, p), dn = lwm_rows(m, LWM_BUF_H, 0, m->cfg.dim, 0, p->own); // after h
	struct lk_view h = lwm_rows(m, LWM_BUF_H, 0, f, 0, p->rows), dh = lwm_rows(m, LWM_BUF_DH, 0, f, 0, p->rows);
	struct lk_view g = lwm_cols(gu, 0, f), u = lwm_cols(gu, f, f), n = lwm_tp_normed(m, mid, &w->norm2, p);
	struct lk_view dy = lwm_tp_gather(m, &dx, p);

	if (!kept)
		LWM_K(m, lk_matmul(m->dev, gu, &n, &w->gate_up.w, LK_TB, 1.0f));
	LWM_K(m, lk_swiglu_fwd(m->dev, &h, &g, &u));
	LWM_K(m, lk_matmul(m->dev, &dh, &dy, &w->down.w, 0, 1.0f));
	lwm_add_weight_grad(m, &w->down.g, &dy, &h);
	LWM_K(m, lk_swiglu_bwd(m->dev, &g, &u, &dh, &g, &u));
	lwm_add_weight_grad(m, &w->gate_up.g, gu, &n);
	lwm_tp_put(m, &dn, gu, &w->gate_up.w);
	LWM_K(m, lk_rmsnorm_bwd(m->dev, &dx, lwm_shared_norm(m, shared, 1), &dn, mid, &w->norm2.w, lwm_buf(m, LWM_BUF_RSTD, 0)));
}

static void mlp_backward(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, const struct lwm_norm_grads *shared)
{
	int64_t step = m->plan.mlp_chunk;
	int kept = !m->run.recompute;

	for (int64_t at = 0; at < m->n; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);
		struct lk_view mid = lwm_own_rows(m, LWM_BUF_MID, l, &p);
		struct lk_view gu = lwm_rows(m, LWM_BUF_GU, l, 2 * m->cut.ffn, kept ? at : 0, p.rows);

		lwm_bwd_mlp_piece(m, w, shared, &mid, &gu, &p, kept);
	}
}

struct lk_view lwm_bwd_attention(struct lwm_llama *m, int64_t l, const struct lwm_llama_cut *c, const struct lk_view *o,
				 const struct lk_view *dout, const float *lse, float *delta)
{
	int64_t e = c->head_dim, row = lwm_llama_cut_qkv(c);
	struct lwm_attn_qkv x = lwm_qkv_views(c, lwm_buf(m, LWM_BUF_QKV, l), m->dtype, m->n);
	struct lwm_attn_qkv dx = lwm_qkv_views(c, lwm_buf(m, LWM_BUF_DQKV, 0), LK_F32, m->n);
	struct lk_view dqk = lk_view3(dx.q.data, LK_F32, m->n, c->heads + c->kv_heads, e);
	struct lk_view d32 = lk_view2(dx.q.data, LK_F32, m->n, row), d = lwm_rows(m, LWM_BUF_QKV, l, row, 0, m->n);

	dqk.stride[0] = row;
	LWM_K(m, lk_zero(m->dev, d32.data, (size_t)(m->n * row) * sizeof(float)));
	m->rc = lwm_attn_backward(m->attention, l, &x, o, dout, lse, delta, &dx, m->rc, &m->err);
	LWM_K(m, lk_rope(m->dev, &dqk, lwm_rotates_by(m), m->cfg.rope_theta, 1));
	if (m->dtype == LK_F32)
		return d32;
	LWM_K(m, lk_cast(m->dev, &d, &d32)); // q, k, v of this layer are not needed any more
	return d;
}

static struct lk_view attention_backward(struct lwm_llama *m, int64_t l)
{
	const struct lwm_llama_cut *c = &m->cut;
	struct lk_view o = lk_view3(lwm_buf(m, LWM_BUF_O, l), m->dtype, m->n, c->heads, c->head_dim);
	struct lk_view dout = lk_view3(lwm_buf(m, LWM_BUF_DN, 0), m->dtype, m->n, c->heads, c->head_dim);

	return lwm_bwd_attention(m, l, c, &o, &dout, lwm_buf(m, LWM_BUF_LSE, l), lwm_buf(m, LWM_BUF_DELTA, 0));
}

/* The gradient of the attention's output, all rows, in LWM_BUF_DN; and of Wo. */
static void output_backward(struct lwm_llama *m, int64_t l, const struct lwm_layer *w)
{
	int64_t width = lwm_llama_cut_width(&m->cut), step = lwm_piece_tokens(m);

	for (int64_t at = 0; at < m->n; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);
		struct lk_view dx = lwm_own_rows(m, LWM_BUF_DX, 0, &p), dy = lwm_tp_gather(m, &dx, &p);
		struct lk_view o = lwm_rows(m, LWM_BUF_O, l, width, at, p.rows);
		struct lk_view d_o = lwm_rows(m, LWM_BUF_DN, 0, width, at, p.rows);

		lwm_add_weight_grad(m, &w->o.g, &dy, &o);
		LWM_K(m, lk_matmul(m->dev, &d_o, &dy, &w->o.w, 0, 1.0f));
	}
}

/* The normed rows of a piece of layer l's input again. Alone they lie, all of them, where q, k, v or their gradients lay: `dqkv`
 * is the other one. */
static struct lk_view input_normed(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, const struct lwm_piece *p,
				   const struct lk_view *x, const struct lk_view *dqkv)
{
	void *grads = lwm_buf(m, LWM_BUF_DQKV, 0), *room = dqkv->data == grads ? lwm_buf(m, LWM_BUF_QKV, l) : grads;
	struct lk_view n = lk_view2(room, m->dtype, p->rows, m->cfg.dim);

	if (m->cut.n > 1)
		return lwm_tp_normed(m, x, &w->norm1, p);
	LWM_K(m, lk_rmsnorm_fwd(m->dev, &n, lwm_buf(m, LWM_BUF_RSTD, 0), x, NULL, &w->norm1.w, (float)m->cfg.rms_eps));
	return n;
}

/* From the gradient of q, k, v to those of their weights and of the layer's input. */
static void input_backward(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, const struct lwm_norm_grads *shared,
			   const struct lk_view *dqkv)
{
	int64_t d = m->cfg.dim, row = dqkv->n[1], step = lwm_piece_tokens(m), size = (int64_t)lk_dtype_size(dqkv->dtype);

	for (int64_t at = 0; at < m->n; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);
		struct lk_view x = lwm_own_rows(m, LWM_BUF_X, l, &p), dx = lwm_own_rows(m, LWM_BUF_DX, 0, &p);
		struct lk_view dn = lwm_rows(m, LWM_BUF_DN, 0, d, 0, p.own), n = input_normed(m, l, w, &p, &x, dqkv);
		struct lk_view dr = lk_view2((char *)dqkv->data + at * row * size, dqkv->dtype, p.rows, row);

		lwm_shared_qkv(m, shared, &dr, &n);
		lwm_tp_put(m, &dn, &dr, &w->qkv.w);
		LWM_K(m, lk_rmsnorm_bwd(m->dev, &dx, lwm_shared_norm(m, shared, 0), &dn, &x, &w->norm1.w,
					lwm_buf(m, LWM_BUF_RSTD, 0)));
	}
}

void lwm_bwd_layer(struct lwm_llama *m, int64_t l, const struct lwm_layer *w)
{
	struct lwm_norm_grads shared = { { &w->norm1, &w->norm2 }, &w->qkv };
	struct lk_view dqkv;

	lwm_shared_begin(m, &shared);
	if (m->run.recompute)
		lwm_fwd_mid(m, l, w, LWM_BUF_MID, l);
	mlp_backward(m, l, w, &shared);
	output_backward(m, l, w);
	if (m->run.recompute)
		lwm_fwd_qkv(m, l, w);
	dqkv = attention_backward(m, l);
	input_backward(m, l, w, &shared, &dqkv);
	lwm_shared_end(m, &shared);
}

/* What the gradient of the first residual stream is to the rows that were looked up. */
void lwm_bwd_embed(struct lwm_llama *m)
{
	struct lwm_embed t = lwm_embed_acquire(m, LWM_GRADS);
	const int32_t *ids = lwm_buf(m, LWM_BUF_IDS, 0);
	int64_t step = lwm_piece_tokens(m);

	for (int64_t at = 0; at < m->n; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);
		struct lk_view dx = lwm_own_rows(m, LWM_BUF_DX, 0, &p), dy = lwm_tp_gather(m, &dx, &p);

		for (int v = LWM_TEXT; v < LWM_MODALITIES && m->cut.rows[v]; v++)
			if (t.table[v].g.data)
				LWM_K(m, lk_embed_bwd(m->dev, &t.table[v].g, ids + at, &dy, (int32_t)m->cut.first[v]));
	}
	lwm_embed_release(m, true);
}
