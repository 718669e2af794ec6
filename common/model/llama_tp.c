/* llama_tp.c - what the ranks of tensor parallelism exchange (Shoeybi et al. 2019; with the sequence split between the blocks,
 * Korthikanti et al. 2022).
 *
 * Each rank computes with its own heads, its own columns of the MLP and its own rows of the tables, for all tokens; between the
 * blocks it has its own rows of the stream, 1 / tp of the tokens:
 *
 *	own rows (norm) own rows (gather) all rows (products) partial sums of all rows (scatter) own rows, added to the stream
 *
 * and the same backwards. It goes piece by piece, so that no buffer has all rows of the stream. The own rows of a piece are a
 * tp-th of that piece, not of the whole step: the gathered rows of a piece then are neighbours, and one product serves them.
 * Rows travel in the device's dtype, partial sums in fp32, and these are added up in rank order (devcomm.h).
 */
#include "common/model/llama_int.h"

struct lwm_piece lwm_piece_at(const struct lwm_llama *m, int64_t at, int64_t most)
{
	int64_t rows = m->n - at < most ? m->n - at : most;

	return (struct lwm_piece){ at, rows, at / m->cut.n, rows / m->cut.n };
}

int64_t lwm_piece_tokens(const struct lwm_llama *m)
{
	return m->cut.n > 1 ? m->plan.mlp_chunk : m->n;
}

/* An exchange takes place whatever this rank's state is, unless another one is gone; the first failure is kept. */
static bool can_exchange(const struct lwm_llama *m)
{
	return m->rc != -LWM_ERANK;
}

static void keep_failure(struct lwm_llama *m, int rc, const struct lwm_err *e)
{
	if (!rc || (m->rc && rc != -LWM_ERANK))
		return;
	m->rc = rc;
	m->err = *e;
}

void lwm_tp_allgather(struct lwm_llama *m, void *all, size_t bytes)
{
	const char *mine = (const char *)all + (size_t)m->cut.rank * bytes;
	struct lwm_err e = { 0 };

	if (can_exchange(m))
		keep_failure(m, lwm_devcomm_allgather(m->run.tp, mine, bytes, all, &e), &e);
}

static size_t row_bytes(const struct lwm_llama *m, int64_t rows)
{
	return (size_t)(rows * m->cfg.dim) * lk_dtype_size(m->dtype);
}

struct lk_view lwm_tp_normed(struct lwm_llama *m, const struct lk_view *x, const struct lwm_matrix *w, const struct lwm_piece *p)
{
	struct lk_view all = lwm_rows(m, LWM_BUF_NORM, 0, m->cfg.dim, 0, p->rows);
	struct lk_view mine = lwm_rows(m, LWM_BUF_NORM, 0, m->cfg.dim, m->cut.rank * p->own, p->own);

	LWM_K(m, lk_rmsnorm_fwd(m->dev, &mine, lwm_buf(m, LWM_BUF_RSTD, 0), x, NULL, &w->w, (float)m->cfg.rms_eps));
	if (m->cut.n > 1)
		lwm_tp_allgather(m, all.data, row_bytes(m, p->own));
	return all;
}

struct lk_view lwm_tp_gather(struct lwm_llama *m, const struct lk_view *own, const struct lwm_piece *p)
{
	struct lk_view all;
	struct lwm_err e = { 0 };

	if (m->cut.n == 1)
		return *own;
	all = lwm_rows(m, LWM_BUF_GRAD, 0, m->cfg.dim, 0, p->rows);
	if (can_exchange(m))
		keep_failure(m, lwm_devcomm_allgather(m->run.tp, own->data, row_bytes(m, p->own), all.data, &e), &e);
	return all;
}

/* Own rows of the sum of LWM_BUF_PART into fp32 memory. */
static void scatter_sum(struct lwm_llama *m, float *mine, int64_t rows)
{
	struct lwm_err e = { 0 };
	int64_t n = rows * m->cfg.dim;

	if (can_exchange(m))
		keep_failure(m, lwm_devcomm_reduce_scatter_f32(m->run.tp, lwm_buf(m, LWM_BUF_PART, 0), mine, n, &e), &e);
}

void lwm_tp_scatter(struct lwm_llama *m, const struct lk_view *y, const struct lwm_piece *p)
{
	struct lk_view sum = lk_view2(lwm_buf(m, LWM_BUF_SUM, 0), LK_F32, p->own, m->cfg.dim);

	if (y->dtype == LK_F32) {
		scatter_sum(m, y->data, p->rows);
		return;
	}
	scatter_sum(m, sum.data, p->rows);
	LWM_K(m, lk_cast(m->dev, y, &sum));
}

/* This rank's part of a product. */
static void make_part(struct lwm_llama *m, const struct lk_view *a, const struct lk_view *w, unsigned flags)
{
	struct lk_view part = lk_view2(lwm_buf(m, LWM_BUF_PART, 0), LK_F32, a->n[0], m->cfg.dim);

	LWM_K(m, lk_matmul(m->dev, &part, a, w, flags, 1.0f));
}

void lwm_tp_add(struct lwm_llama *m, const struct lk_view *y, const struct lk_view *a, const struct lk_view *w)
{
	struct lk_view sum = lk_view2(lwm_buf(m, LWM_BUF_SUM, 0), LK_F32, y->n[0], m->cfg.dim);

	if (m->cut.n == 1) {
		LWM_K(m, lk_matmul(m->dev, y, a, w, LK_TB | LK_ACC, 1.0f));
		return;
	}
	make_part(m, a, w, LK_TB);
	scatter_sum(m, sum.data, a->n[0]);
	LWM_K(m, lk_axpy(m->dev, y, 1.0f, &sum));
}

void lwm_tp_put(struct lwm_llama *m, const struct lk_view *y, const struct lk_view *a, const struct lk_view *w)
{
	struct lwm_piece p = { 0, a->n[0], 0, y->n[0] };

	if (m->cut.n == 1) {
		LWM_K(m, lk_matmul(m->dev, y, a, w, 0, 1.0f));
		return;
	}
	make_part(m, a, w, 0);
	lwm_tp_scatter(m, y, &p);
}

/* ---- gradients that every rank has a part of ---- */

static bool shares_heads(const struct lwm_llama *m)
{
	return m->cfg.kv_heads < m->cut.n;
}

/* Floats of LWM_BUF_SHARED in use: two norms or one, and after those k and v of all heads. */
static int64_t shared_count(const struct lwm_llama *m, const struct lwm_norm_grads *g)
{
	int64_t norms = g->norm[1] ? 2 : 1, heads = g->qkv && shares_heads(m) ? 2 * m->cfg.kv_heads : 0;

	return m->cfg.dim * (norms + heads * m->cut.head_dim);
}

/* Of this rank's key head: its k (which 0) or v (which 1) among those of all heads, (E,D). */
static struct lk_view shared_head(const struct lwm_llama *m, int64_t which)
{
	int64_t head = m->cut.rank / (m->cut.n / m->cfg.kv_heads), row = (which * m->cfg.kv_heads + head) * m->cut.head_dim;
	float *p = (float *)lwm_buf(m, LWM_BUF_SHARED, 0) + (2 + row) * m->cfg.dim;

	return lk_view2(p, LK_F32, m->cut.head_dim, m->cfg.dim);
}

void lwm_shared_begin(struct lwm_llama *m, const struct lwm_norm_grads *g)
{
	if (m->cut.n > 1)
		LWM_K(m, lk_zero(m->dev, lwm_buf(m, LWM_BUF_SHARED, 0), (size_t)shared_count(m, g) * sizeof(float)));
}

float *lwm_shared_norm(const struct lwm_llama *m, const struct lwm_norm_grads *g, int which)
{
	return m->cut.n > 1 ? (float *)lwm_buf(m, LWM_BUF_SHARED, 0) + which * m->cfg.dim : g->norm[which]->g.data;
}

void lwm_shared_qkv(struct lwm_llama *m, const struct lwm_norm_grads *g, const struct lk_view *dqkv, const struct lk_view *n)
{
	int64_t e = m->cut.head_dim, q = lwm_llama_cut_width(&m->cut);
	struct lk_view gq = g->qkv->g;

	if (!shares_heads(m)) {
		lwm_add_weight_grad(m, &g->qkv->g, dqkv, n);
		return;
	}
	for (int64_t i = 0; i < 2 && gq.data; i++) {
		struct lk_view d = lwm_cols(dqkv, q + i * e, e), y = shared_head(m, i);

		lwm_add_weight_grad(m, &y, &d, n);
	}
	gq.n[0] = q;
	struct lk_view dq = lwm_cols(dqkv, 0, q);
	lwm_add_weight_grad(m, &gq, &dq, n);
}

/* g += x, whatever their shapes */
static void add_shared(struct lwm_llama *m, float *g, const float *x, int64_t n)
{
	struct lk_view y = lk_view1(g, LK_F32, n), v = lk_view1((void *)(uintptr_t)x, LK_F32, n);

	LWM_K(m, lk_axpy(m->dev, &y, 1.0f, &v));
}

void lwm_shared_end(struct lwm_llama *m, const struct lwm_norm_grads *g)
{
	float *all = lwm_buf(m, LWM_BUF_SHARED, 0);
	int64_t d = m->cfg.dim, head = m->cut.head_dim * d;
	struct lwm_err e = { 0 };

	if (m->cut.n == 1)
		return;
	if (can_exchange(m))
		keep_failure(m, lwm_devcomm_sum_f32(m->run.tp, all, shared_count(m, g), &e), &e);
	for (int i = 0; i < 2 && g->norm[i]; i++)
		add_shared(m, g->norm[i]->g.data, all + i * d, d);
	for (int64_t i = 0; i < 2 && g->qkv && g->qkv->g.data && shares_heads(m); i++)
		add_shared(m, (float *)g->qkv->g.data + lwm_llama_cut_width(&m->cut) * d + i * head, shared_head(m, i).data, head);
}
