/* llama_lean.c - a layer of training in little memory: the same arithmetic, cut into groups of heads and pieces of tokens.
 *
 * Two numbers of D a token are in work. Forward: the residual stream (LWM_BUF_X) and all heads' output (LWM_BUF_O). Backward:
 * the gradient of the stream (LWM_BUF_DX), which lies where the output lay, and that of the output, where the stream lay. q, k, v
 * and their gradients are those of one group of heads at a time. Everything else is of one piece: the layer's input and output
 * come back from what was kept of them piece by piece, as often as they are needed, and are normed again.
 *
 * Kept in bf16, they are read with that rounding in the backward alone: the loss is the same, gradients differ.
 */
#include "common/model/llama_int.h"

/* Places of group g: lse and delta are kept group by group, each (tokens, its heads). */
static float *group_rows(const struct lwm_llama *m, enum lwm_buf_id b, int64_t l, int64_t g)
{
	return (float *)lwm_buf(m, b, l) + g * m->run.tokens * m->group.heads;
}

/* Columns of group g's heads in rows [at, at + rows) of (rows, HE) in memory of a buffer. */
static struct lk_view group_heads(const struct lwm_llama *m, enum lwm_buf_id b, int64_t g, int64_t at, int64_t rows)
{
	int64_t width = lwm_llama_cut_width(&m->cut), e = m->cut.head_dim, first = g * m->group.heads * e;
	char *p = (char *)lwm_buf(m, b, 0) + (at * width + first) * (int64_t)lk_dtype_size(m->dtype);
	struct lk_view y = lk_view3(p, m->dtype, rows, m->group.heads, e);

	y.stride[0] = width;
	return y;
}

/* What is kept of rows [at, at + rows), `cols` wide. */
static struct lk_view kept_rows(const struct lwm_llama *m, enum lwm_buf_id b, int64_t l, int64_t cols, int64_t at, int64_t rows)
{
	int dtype = m->run.keep_bf16 ? LK_BF16 : m->dtype;

	return lk_view2((char *)lwm_buf(m, b, l) + at * cols * (int64_t)lk_dtype_size(dtype), dtype, rows, cols);
}

static void keep_rows(struct lwm_llama *m, enum lwm_buf_id to, int64_t l, enum lwm_buf_id from, int64_t cols)
{
	struct lk_view y = kept_rows(m, to, l, cols, 0, m->n), x = lwm_rows(m, from, 0, cols, 0, m->n);

	LWM_K(m, lk_cast(m->dev, &y, &x));
}

/* A piece of what was kept, as it is computed with: in LWM_BUF_PIECE_X or PIECE_O. */
static struct lk_view fetch_rows(struct lwm_llama *m, enum lwm_buf_id to, enum lwm_buf_id from, int64_t l, int64_t cols,
				 const struct lwm_piece *p)
{
	struct lk_view y = lwm_rows(m, to, 0, cols, 0, p->rows), x = kept_rows(m, from, l, cols, p->at, p->rows);

	LWM_K(m, lk_cast(m->dev, &y, &x));
	return y;
}

/* q, k and v of a group: which rows of the matrix, and which columns of (n, Q). One part where there is one group. */
struct parts {
	int n;
	struct lwm_matrix w[3];
	int64_t col[3];
};

static struct parts parts_of(const struct lwm_llama *m, const struct lwm_matrix *qkv, int64_t g)
{
	int64_t e = m->cut.head_dim, q = m->cut.heads, k = m->cut.kv_heads, gq = m->group.heads, gk = m->group.kv_heads;
	const int64_t first[3] = { g * gq, q + g * gk, q + k + g * gk }, heads[3] = { gq, gk, gk };
	struct parts y = { .n = 1, .w = { *qkv } };

	if (q == gq)
		return y;
	y.n = 3;
	for (int64_t i = 0, col = 0; i < 3; col += heads[i++] * e) {
		int64_t at = first[i] * e * m->cfg.dim;

		y.w[i] = *qkv;
		y.w[i].w.data = (char *)qkv->w.data + at * (int64_t)lk_dtype_size(m->dtype);
		y.w[i].g.data = qkv->g.data ? (float *)qkv->g.data + at : NULL;
		y.w[i].w.n[0] = y.w[i].g.n[0] = heads[i] * e;
		y.col[i] = col;
	}
	return y;
}

/* Rotated q, k, v of group g in LWM_BUF_QKV. The layer's input is the stream, or in the backward what was kept of it. */
static void group_qkv(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, int64_t g, bool again)
{
	struct parts part = parts_of(m, &w->qkv, g);
	int64_t step = m->plan.mlp_chunk, d = m->cfg.dim, row = lwm_llama_cut_qkv(&m->group);

	for (int64_t at = 0; at < m->n; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);
		struct lk_view x = again ? fetch_rows(m, LWM_BUF_PIECE_X, LWM_BUF_KEPT_X, l, d, &p) :
					   lwm_rows(m, LWM_BUF_X, 0, d, at, p.rows);
		struct lk_view n = lwm_tp_normed(m, &x, &w->norm1, &p), y = lwm_rows(m, LWM_BUF_QKV, 0, row, at, p.rows);

		for (int i = 0; i < part.n; i++) {
			struct lk_view yi = lwm_cols(&y, part.col[i], part.w[i].w.n[0]);

			LWM_K(m, lk_matmul(m->dev, &yi, &n, &part.w[i].w, LK_TB, 1.0f));
		}
	}
	lwm_fwd_rotate(m, 0, &m->group);
}

void lwm_lean_forward(struct lwm_llama *m, int64_t l, const struct lwm_layer *w)
{
	keep_rows(m, LWM_BUF_KEPT_X, l, LWM_BUF_X, m->cfg.dim);
	for (int64_t g = 0; g < lwm_head_groups(&m->run); g++) {
		struct lk_view o = group_heads(m, LWM_BUF_O, g, 0, m->n);

		group_qkv(m, l, w, g, false);
		lwm_fwd_attention(m, 0, &m->group, &o, group_rows(m, LWM_BUF_LSE, l, g));
	}
	keep_rows(m, LWM_BUF_KEPT_O, l, LWM_BUF_O, lwm_llama_cut_width(&m->cut));
	lwm_fwd_mid(m, 0, w, LWM_BUF_X, 0);
	lwm_fwd_mlp(m, 0, w, LWM_BUF_X, 0);
}

/* Of a piece: through the MLP, to the gradient of the attention's output and to delta. */
static void piece_backward(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, const struct lwm_norm_grads *shared,
			   const struct lwm_piece *p)
{
	int64_t d = m->cfg.dim, width = lwm_llama_cut_width(&m->cut);
	struct lk_view mid = fetch_rows(m, LWM_BUF_PIECE_X, LWM_BUF_KEPT_X, l, d, p);
	struct lk_view o = fetch_rows(m, LWM_BUF_PIECE_O, LWM_BUF_KEPT_O, l, width, p);
	struct lk_view gu = lwm_rows(m, LWM_BUF_GU, 0, 2 * m->cut.ffn, 0, p->rows);
	struct lk_view dx = lwm_rows(m, LWM_BUF_DX, 0, d, p->at, p->rows), dout = lwm_rows(m, LWM_BUF_X, 0, width, p->at, p->rows);

	LWM_K(m, lk_matmul(m->dev, &mid, &o, &w->o.w, LK_TB | LK_ACC, 1.0f));
	lwm_bwd_mlp_piece(m, w, shared, &mid, &gu, p, 0);
	lwm_add_weight_grad(m, &w->o.g, &dx, &o);
	LWM_K(m, lk_matmul(m->dev, &dout, &dx, &w->o.w, 0, 1.0f));
	for (int64_t g = 0; g < lwm_head_groups(&m->run); g++) {
		struct lk_view og = group_heads(m, LWM_BUF_PIECE_O, g, 0, p->rows);
		struct lk_view dg = group_heads(m, LWM_BUF_X, g, p->at, p->rows);

		LWM_K(m, lk_attn_delta(m->dev, group_rows(m, LWM_BUF_DELTA, 0, g) + p->at * m->group.heads, &og, &dg));
	}
}

/* From the gradient of a group's q, k, v to those of their weights and of the layer's input. */
static void group_input(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, int64_t g, const struct lk_view *dqkv)
{
	struct parts part = parts_of(m, &w->qkv, g);
	int64_t step = m->plan.mlp_chunk, d = m->cfg.dim, row = dqkv->n[1], size = (int64_t)lk_dtype_size(dqkv->dtype);

	for (int64_t at = 0; at < m->n; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);
		struct lk_view x = fetch_rows(m, LWM_BUF_PIECE_X, LWM_BUF_KEPT_X, l, d, &p);
		struct lk_view n = lwm_tp_normed(m, &x, &w->norm1, &p);
		struct lk_view dr = lk_view2((char *)dqkv->data + at * row * size, dqkv->dtype, p.rows, row);
		struct lk_view dn = lwm_rows(m, LWM_BUF_DN, 0, d, 0, p.rows), dx = lwm_rows(m, LWM_BUF_DX, 0, d, at, p.rows);

		for (int i = 0; i < part.n; i++) {
			struct lk_view di = lwm_cols(&dr, part.col[i], part.w[i].w.n[0]);

			lwm_add_weight_grad(m, &part.w[i].g, &di, &n);
			LWM_K(m, lk_matmul(m->dev, &dn, &di, &part.w[i].w, i ? LK_ACC : 0, 1.0f));
		}
		LWM_K(m, lk_rmsnorm_bwd(m->dev, &dx, w->norm1.g.data, &dn, &x, &w->norm1.w, lwm_buf(m, LWM_BUF_RSTD, 0)));
	}
}

void lwm_lean_backward(struct lwm_llama *m, int64_t l, const struct lwm_layer *w)
{
	struct lwm_norm_grads shared = { { &w->norm1, &w->norm2 }, &w->qkv };
	int64_t step = m->plan.mlp_chunk;

	for (int64_t at = 0; at < m->n; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);

		piece_backward(m, l, w, &shared, &p);
	}
	for (int64_t g = 0; g < lwm_head_groups(&m->run); g++) {
		struct lk_view dout = group_heads(m, LWM_BUF_X, g, 0, m->n), dqkv;

		group_qkv(m, l, w, g, true);
		dqkv = lwm_bwd_attention(m, 0, &m->group, NULL, &dout, group_rows(m, LWM_BUF_LSE, l, g),
					 group_rows(m, LWM_BUF_DELTA, 0, g));
		group_input(m, l, w, g, &dqkv);
	}
}
