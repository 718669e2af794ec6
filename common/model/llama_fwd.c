/* llama_fwd.c - from ids to the last residual stream.
 *
 *	h = h + Wo attention(rope(Wq n), rope(Wk n), Wv n), n = rmsnorm(h)
 *	h = h + Wdown (silu(Wgate n) * Wup n),             n = rmsnorm(h)
 *
 * Written for one rank and for several that share the model: what these exchange is behind lwm_tp_normed, which makes n, and
 * lwm_tp_add, which makes the product and adds it to h (llama_tp.c).
 */
#include "common/model/llama_int.h"

/* Rows of x whose ids this rank has. */
static void look_up(struct lwm_llama *m, const struct lwm_embed *t, const struct lk_view *x, const int32_t *ids)
{
	for (int v = LWM_TEXT; v < LWM_MODALITIES && m->cut.rows[v]; v++)
		LWM_K(m, lk_embed_fwd(m->dev, x, ids, &t->table[v].w, (int32_t)m->cut.first[v]));
}

/* Tensor parallelism: each row is one rank's, zeros on the others, and the sum brings it to its owner. */
static void embed_piece(struct lwm_llama *m, const struct lwm_embed *t, const int32_t *ids, const struct lwm_piece *p)
{
	struct lk_view part = lk_view2(lwm_buf(m, LWM_BUF_PART, 0), LK_F32, p->rows, m->cfg.dim), own;
	struct lk_view rows = m->dtype == LK_F32 ? part : lwm_rows(m, LWM_BUF_NORM, 0, m->cfg.dim, 0, p->rows);

	LWM_K(m, lk_zero(m->dev, rows.data, (size_t)(p->rows * m->cfg.dim) * lk_dtype_size(m->dtype)));
	look_up(m, t, &rows, ids + p->at);
	if (rows.data != part.data)
		LWM_K(m, lk_cast(m->dev, &part, &rows));
	own = lwm_own_rows(m, LWM_BUF_X, 0, p);
	lwm_tp_scatter(m, &own, p);
}

void lwm_fwd_embed(struct lwm_llama *m)
{
	struct lwm_embed t = lwm_embed_acquire(m, LWM_WEIGHTS);
	int64_t step = lwm_piece_tokens(m);
	struct lk_view x = lwm_rows(m, LWM_BUF_X, 0, m->cfg.dim, 0, m->n / m->cut.n);
	int32_t *ids = lwm_buf(m, LWM_BUF_IDS, 0);

	LWM_K(m, lk_upload(m->dev, ids, m->batch->tokens, (size_t)m->n * sizeof *ids));
	if (m->cut.n == 1)
		look_up(m, &t, &x, ids);
	for (int64_t at = 0; at < m->n && m->cut.n > 1; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);

		embed_piece(m, &t, ids, &p);
	}
	lwm_embed_release(m, false);
}

void lwm_fwd_rotate(struct lwm_llama *m, int64_t l, const struct lwm_llama_cut *c)
{
	struct lk_view qk = lk_view3(lwm_buf(m, LWM_BUF_QKV, l), m->dtype, m->n, c->heads + c->kv_heads, c->head_dim);

	qk.stride[0] = lwm_llama_cut_qkv(c);
	LWM_K(m, lk_rope(m->dev, &qk, lwm_rotates_by(m), m->cfg.rope_theta, 0));
}

/* Leaves rotated q, k, v of layer l in LWM_BUF_QKV. */
void lwm_fwd_qkv(struct lwm_llama *m, int64_t l, const struct lwm_layer *w)
{
	const struct lwm_llama_cut *c = &m->cut;
	int64_t row = lwm_llama_cut_qkv(c), step = lwm_piece_tokens(m);

	for (int64_t at = 0; at < m->n; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);
		struct lk_view x = lwm_own_rows(m, LWM_BUF_X, l, &p), n = lwm_tp_normed(m, &x, &w->norm1, &p);
		struct lk_view y = lwm_rows(m, LWM_BUF_QKV, l, row, at, p.rows);

		LWM_K(m, lk_matmul(m->dev, &y, &n, &w->qkv.w, LK_TB, 1.0f));
	}
	lwm_fwd_rotate(m, l, c);
}

/* mid = x + Wo o, own rows */
void lwm_fwd_mid(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, enum lwm_buf_id mid, int64_t copy)
{
	int64_t d = m->cfg.dim, own = m->n / m->cut.n, step = lwm_piece_tokens(m);
	struct lk_view x = lwm_rows(m, LWM_BUF_X, l, d, 0, own), y = lwm_rows(m, mid, copy, d, 0, own);

	if (y.data != x.data)
		LWM_K(m, lk_copy(m->dev, y.data, x.data, (size_t)(own * d) * lk_dtype_size(m->dtype)));
	for (int64_t at = 0; at < m->n; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);
		struct lk_view o = lwm_rows(m, LWM_BUF_O, l, lwm_llama_cut_width(&m->cut), at, p.rows);
		struct lk_view yr = lwm_own_rows(m, mid, copy, &p);

		lwm_tp_add(m, &yr, &o, &w->o.w);
	}
}

void lwm_fwd_attention(struct lwm_llama *m, int64_t l, const struct lwm_llama_cut *cut, const struct lk_view *o, float *lse)
{
	struct lwm_attn_qkv v = lwm_qkv_views(cut, lwm_buf(m, LWM_BUF_QKV, l), m->dtype, m->n);

	m->rc = lwm_attn_forward(m->attention, l, &v, o, lse, m->rc, &m->err);
}

/* x = mid + MLP(mid), piece by piece, own rows. x may be mid. */
void lwm_fwd_mlp(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, enum lwm_buf_id mid, int64_t copy)
{
	int64_t d = m->cfg.dim, f = m->cut.ffn, step = m->plan.mlp_chunk, own = m->n / m->cut.n;
	struct lk_view x = lwm_rows(m, LWM_BUF_X, l + 1, d, 0, own), from = lwm_rows(m, mid, copy, d, 0, own);
	bool whole = m->run.train && !m->run.recompute; // gate and up are kept

	if (x.data != from.data)
		LWM_K(m, lk_copy(m->dev, x.data, from.data, (size_t)(own * d) * lk_dtype_size(m->dtype)));
	for (int64_t at = 0; at < m->n; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);
		struct lk_view xr = lwm_own_rows(m, LWM_BUF_X, l + 1, &p), mr = lwm_own_rows(m, mid, copy, &p);
		struct lk_view n = lwm_tp_normed(m, &mr, &w->norm2, &p), h = lwm_rows(m, LWM_BUF_H, 0, f, 0, p.rows);
		struct lk_view gu = lwm_rows(m, LWM_BUF_GU, l, 2 * f, whole ? at : 0, p.rows);
		struct lk_view g = lwm_cols(&gu, 0, f), u = lwm_cols(&gu, f, f);

		LWM_K(m, lk_matmul(m->dev, &gu, &n, &w->gate_up.w, LK_TB, 1.0f));
		LWM_K(m, lk_swiglu_fwd(m->dev, &h, &g, &u));
		lwm_tp_add(m, &xr, &h, &w->down.w);
	}
}

void lwm_fwd_layer(struct lwm_llama *m, int64_t l, const struct lwm_layer *w)
{
	bool kept = m->run.train && !m->run.recompute;
	struct lk_view o = lk_view3(lwm_buf(m, LWM_BUF_O, l), m->dtype, m->n, m->cut.heads, m->cut.head_dim);
	enum lwm_buf_id mid = kept ? LWM_BUF_MID : LWM_BUF_X;
	int64_t copy = kept ? l : l + 1;

	lwm_fwd_qkv(m, l, w);
	lwm_fwd_attention(m, l, &m->cut, &o, lwm_buf(m, LWM_BUF_LSE, l));
	lwm_fwd_mid(m, l, w, mid, copy);
	lwm_fwd_mlp(m, l, w, mid, copy);
}
