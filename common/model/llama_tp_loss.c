/* llama_tp_loss.c - norm, heads and cross-entropy where each rank has some rows of the tables: whole logits exist nowhere.
 *
 * A piece's rows of the stream are normed where they are and gathered; of these the counted ones go, some at a time, through this
 * rank's rows of the head. What each rank's logits say of a row (four floats) is gathered, and makes loss and gradient on every
 * rank (kernels/dense.h, lk_xent_part). The gradient of the normed rows is a sum over ranks, dealt out to the owners of the rows.
 */
#include <stdlib.h>
#include <string.h>

#include "common/model/llama_int.h"

/* Where the counted targets are that have not been met yet: of each modality, in LWM_BUF_IDX and beside it. */
struct counted {
	int64_t next[LWM_MODALITIES], end[LWM_MODALITIES];
};

static struct lk_view part_rows(const struct lwm_llama *m, int64_t rows)
{
	return lk_view2(lwm_buf(m, LWM_BUF_PART, 0), LK_F32, rows, m->cfg.dim);
}

/* Logits (k, own rows of the table) of counted targets [r, r + k): in LWM_BUF_LOGITS their gradient, or what is left of them. */
static void split_xent(struct lwm_llama *m, const struct lk_view *logits, int64_t r, bool grad)
{
	int64_t k = logits->n[0], floats = k * LK_XENT_PART;
	float *all = lwm_buf(m, LWM_BUF_STATS, 0), *weight = (float *)lwm_buf(m, LWM_BUF_WEIGHT, 0) + r;
	const int32_t *target = (int32_t *)lwm_buf(m, LWM_BUF_TARGET, 0) + r;

	LWM_K(m, lk_xent_part(m->dev, logits, target, all + m->cut.rank * floats, grad));
	lwm_tp_allgather(m, all, (size_t)floats * sizeof *all);
	LWM_K(m, lk_xent_join(m->dev, logits, target, weight, all, m->cut.n, m->cut.rank, (float *)lwm_buf(m, LWM_BUF_NLL, 0) + r,
			      (float *)lwm_buf(m, LWM_BUF_HIT, 0) + r, grad));
}

/* Counted targets [r, r + k), all of piece p, whose normed rows are `normed`. */
static void loss_rows(struct lwm_llama *m, const struct lwm_head *t, int head, const struct lk_view *normed, int64_t r, int64_t k,
		      bool grad)
{
	int64_t d = m->cfg.dim;
	struct lk_view rn = lwm_rows(m, LWM_BUF_RN, 0, d, 0, k), y = lwm_rows(m, LWM_BUF_LOGITS, 0, m->cut.rows[head], 0, k);
	const int32_t *idx = (int32_t *)lwm_buf(m, LWM_BUF_IDX, 0) + r;

	LWM_K(m, lk_gather_rows(m->dev, &rn, normed, idx));
	LWM_K(m, lk_matmul(m->dev, &y, &rn, &t->table[head].w, LK_TB, 1.0f));
	split_xent(m, &y, r, grad);
	if (grad) {
		struct lk_view rd = lk_view2(lwm_buf(m, LWM_BUF_RD, 0), LK_F32, k, d), part = part_rows(m, normed->n[0]);

		lwm_add_weight_grad(m, &t->table[head].g, &y, &rn);
		LWM_K(m, lk_matmul(m->dev, &rd, &y, &t->table[head].w, 0, 1.0f));
		LWM_K(m, lk_scatter_add_rows(m->dev, &part, &rd, idx));
	}
}

static bool piece_counts(const struct lwm_llama *m, const struct counted *c, int v, const struct lwm_piece *p)
{
	return c->next[v] < c->end[v] && m->host_i[c->next[v]] < p->at + p->rows;
}

static void loss_piece(struct lwm_llama *m, const struct lwm_head *t, const struct lwm_norm_grads *g, const struct lwm_piece *p,
		       struct counted *c)
{
	struct lk_view x = lwm_own_rows(m, LWM_BUF_X, m->cfg.layers, p), n = lwm_tp_normed(m, &x, &t->norm, p);
	struct lk_view part = part_rows(m, p->rows);
	bool grad = m->w->grads;

	if (grad)
		LWM_K(m, lk_zero(m->dev, part.data, (size_t)(p->rows * m->cfg.dim) * sizeof(float)));
	for (int v = LWM_TEXT; v < LWM_MODALITIES; v++)
		while (piece_counts(m, c, v, p)) {
			int64_t k = 0;

			while (k < m->plan.loss_rows && c->next[v] + k < c->end[v] &&
			       m->host_i[c->next[v] + k] < p->at + p->rows)
				k++;
			loss_rows(m, t, v, &n, c->next[v], k, grad);
			c->next[v] += k;
		}
	if (grad) {
		struct lk_view dn = lwm_own_rows(m, LWM_BUF_DN, 0, p), dx = lwm_own_rows(m, LWM_BUF_DX, 0, p);

		lwm_tp_scatter(m, &dn, p);
		LWM_K(m, lk_rmsnorm_bwd(m->dev, &dx, lwm_shared_norm(m, g, 0), &dn, &x, &t->norm.w, lwm_buf(m, LWM_BUF_RSTD, 0)));
	}
}

void lwm_tp_loss(struct lwm_llama *m)
{
	bool grads = m->w->grads;
	struct lwm_head t = lwm_head_acquire(m, grads ? LWM_WEIGHTS | LWM_GRADS : LWM_WEIGHTS);
	struct lwm_norm_grads g = { .norm = { &t.norm, NULL } };
	int64_t step = lwm_piece_tokens(m), text = m->counted[LWM_TEXT];
	struct counted c = { { 0, text }, { text, text + m->counted[LWM_VISION] } };

	if (grads) {
		lwm_shared_begin(m, &g);
		LWM_K(m, lk_zero(m->dev, lwm_buf(m, LWM_BUF_DX, 0),
				 (size_t)(m->n / m->cut.n * m->cfg.dim) * lk_dtype_size(m->dtype)));
	}
	for (int64_t at = 0; at < m->n; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);

		if (piece_counts(m, &c, LWM_TEXT, &p) || piece_counts(m, &c, LWM_VISION, &p)) // the same on all ranks
			loss_piece(m, &t, &g, &p, &c);
	}
	if (grads)
		lwm_shared_end(m, &g);
	lwm_head_release(m, grads);
}

/* ---- logits, for tests and tools: every rank gets the whole rows, in host memory ---- */

/* The parts of k rows, gathered (tp, k, V / tp), to where the rows are wanted. */
static void place_logits(const struct lwm_llama *m, const float *parts, int64_t k, int64_t v, const int64_t *where, float *out)
{
	for (int64_t r = 0; r < m->cut.n; r++)
		for (int64_t i = 0; i < k; i++)
			memcpy(out + (where[i] * m->cut.n + r) * v, parts + (r * k + i) * v, (size_t)v * sizeof *out);
}

/* Rows idx[0..k) of the piece `normed`. */
static void piece_logits(struct lwm_llama *m, const struct lwm_head *t, enum lwm_modality head, const struct lk_view *normed,
			 const int32_t *idx, const int64_t *where, int64_t k, float *parts, float *out)
{
	int64_t v = m->cut.rows[head];
	struct lk_view rn = lwm_rows(m, LWM_BUF_RN, 0, m->cfg.dim, 0, k);
	struct lk_view y = lk_view2(lwm_buf(m, LWM_BUF_LOGITS, 0), LK_F32, k, v);
	float *mine = parts + m->cut.rank * k * v;
	struct lwm_err e = { 0 };

	LWM_K(m, lk_upload(m->dev, lwm_buf(m, LWM_BUF_IDX, 0), idx, (size_t)k * sizeof *idx));
	LWM_K(m, lk_gather_rows(m->dev, &rn, normed, lwm_buf(m, LWM_BUF_IDX, 0)));
	LWM_K(m, lk_matmul(m->dev, &y, &rn, &t->table[head].w, LK_TB, 1.0f));
	LWM_K(m, lk_download(m->dev, mine, y.data, (size_t)(k * v) * sizeof *mine));
	if (m->rc == -LWM_ERANK)
		return;
	int rc = lwm_comm_allgather(lwm_devcomm_comm(m->run.tp), mine, (size_t)(k * v) * sizeof *mine, parts, &e);
	if (rc && (!m->rc || rc == -LWM_ERANK)) {
		m->rc = rc;
		m->err = e;
	}
	place_logits(m, parts, k, v, where, out);
}

void lwm_tp_logit_rows(struct lwm_llama *m, enum lwm_modality head, const int32_t *rows, int64_t nrows, float *host_out)
{
	struct lwm_head t = lwm_head_acquire(m, LWM_WEIGHTS);
	int64_t step = lwm_piece_tokens(m), room = lwm_logit_room(m), v = m->cut.rows[head];
	float *parts = malloc((size_t)(room * v * m->cut.n) * sizeof *parts);
	int64_t *where = malloc((size_t)room * sizeof *where);
	bool go; // the same on all ranks: from here on all go through all exchanges

	if (!(parts && where) && !m->rc)
		m->rc = lwm_fail(&m->err, LWM_EMEMORY, "no memory for logits of %d ranks", m->cut.n);
	m->rc = lwm_agree(lwm_devcomm_comm(m->run.tp), m->rc, &m->err);
	go = m->rc == 0;
	for (int64_t at = 0; at < m->n && go; at += step) {
		struct lwm_piece p = lwm_piece_at(m, at, step);
		struct lk_view x = lwm_own_rows(m, LWM_BUF_X, m->cfg.layers, &p), n = lwm_tp_normed(m, &x, &t.norm, &p);

		for (int64_t i = 0, k = 0; i < nrows; i++) {
			if (rows[i] >= at && rows[i] < at + p.rows) {
				m->host_i[k] = rows[i] - (int32_t)at;
				where[k++] = i;
			}
			if (k && (k == room || i + 1 == nrows)) {
				piece_logits(m, &t, head, &n, m->host_i, where, k, parts, host_out);
				k = 0;
			}
		}
	}
	free(parts);
	free(where);
	lwm_head_release(m, false);
}
