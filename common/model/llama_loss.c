/* llama_loss.c - final norm, heads and cross-entropy, only at the positions that count.
 *
 * A position is evaluated by the head of its target's modality. Counted rows of the residual stream are brought
 * together (text first, then vision) and go through norm and head in pieces: logits of a whole row never exist. Where
 * ranks share the model: llama_tp_loss.c.
 */
#include <inttypes.h>
#include "common/model/llama_int.h"

static bool target_counts(const struct lwm_llama_batch *b, int64_t i)
{
	return b->targets[i] >= 0 && b->weights[i] != 0;
}

static int check_targets(const struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_err *e)
{
	int64_t ids = lwm_llama_ids(&m->cfg);

	for (int64_t i = 0; i < b->n; i++)
		if (b->targets[i] < -1 || b->targets[i] >= ids)
			return lwm_fail(e, LWM_EDATA, "target %" PRId64 " has id %d, the model knows 0 to %" PRId64 ", -1 for none",
					i, (int)b->targets[i], ids - 1);
	return 0;
}

/* What is known of n counted targets to the device. With tensor parallelism a vocabulary and a step are cut: targets then count
 * from this rank's first row of their table, positions from the first token of their piece (those on the host stay as they are). */
static int upload_rows(struct lwm_llama *m, int64_t n, struct lwm_err *e)
{
	int32_t *target = m->host_i + m->run.tokens, *idx = m->host_i;
	int64_t piece = lwm_piece_tokens(m);
	size_t bytes = (size_t)n * sizeof *idx;

	for (int64_t i = 0; i < n; i++)
		target[i] -= (int32_t)(m->cut.rank * m->cut.rows[i >= m->counted[LWM_TEXT]]);
	LWM_TRY(lwm_dev_check(m->dev, lk_upload(m->dev, lwm_buf(m, LWM_BUF_TARGET, 0), target, bytes), e));
	for (int64_t i = 0; i < n; i++)
		target[i] = (int32_t)(idx[i] % piece);
	LWM_TRY(lwm_dev_check(m->dev, lk_upload(m->dev, lwm_buf(m, LWM_BUF_IDX, 0), target, bytes), e));
	return lwm_dev_check(m->dev, lk_upload(m->dev, lwm_buf(m, LWM_BUF_WEIGHT, 0), m->host_f, bytes), e);
}

/* Weights of the gradient are those of the loss times its scale, which statistics do not have. */
int lwm_loss_rows(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_err *e)
{
	int32_t *idx = m->host_i, *target = m->host_i + m->run.tokens;
	float *weight = m->host_f;
	int64_t n = 0;

	m->counted[LWM_TEXT] = m->counted[LWM_VISION] = 0;
	if (!b->targets || !b->weights)
		return 0;
	LWM_TRY(check_targets(m, b, e));
	for (int v = LWM_TEXT; v < LWM_MODALITIES; v++) {
		int64_t before = n;

		for (int64_t i = 0; i < b->n; i++) {
			if (!target_counts(b, i) || lwm_llama_is_vision(&m->cfg, b->targets[i]) != (v == LWM_VISION))
				continue;
			idx[n] = (int32_t)i;
			target[n] = b->targets[i] - (v == LWM_VISION ? (int32_t)m->cfg.vocab_text : 0);
			weight[n++] = b->weights[i] * lwm_supply_scale(m->w);
		}
		m->counted[v] = n - before;
	}
	if (!n)
		return 0;
	return upload_rows(m, n, e);
}
/* Gradients of one piece: logits already hold theirs. */
static void loss_piece_backward(struct lwm_llama *m, const struct lwm_head *t, int head, const struct lk_view *logits,
		      const int32_t *idx)
{
	int64_t d = m->cfg.dim, k = logits->n[0];
	struct lk_view rx = lwm_rows(m, LWM_BUF_RX, 0, d, 0, k), rn = lwm_rows(m, LWM_BUF_RN, 0, d, 0, k);
	struct lk_view rd = lwm_rows(m, LWM_BUF_RD, 0, d, 0, k), dx = lwm_rows(m, LWM_BUF_DX, 0, d, 0, m->n);

	lwm_add_weight_grad(m, &t->table[head].g, logits, &rn);
	LWM_K(m, lk_matmul(m->dev, &rd, logits, &t->table[head].w, 0, 1.0f));
	LWM_K(m, lk_zero(m->dev, rn.data, (size_t)(k * d) * lk_dtype_size(m->dtype)));
	LWM_K(m, lk_rmsnorm_bwd(m->dev, &rn, t->norm.g.data, &rd, &rx, &t->norm.w, lwm_buf(m, LWM_BUF_RRSTD, 0)));
	LWM_K(m, lk_scatter_add_rows(m->dev, &dx, &rn, idx));
}

/* Counted rows [r, r + k). */
static void loss_piece(struct lwm_llama *m, const struct lwm_head *t, int head, int64_t r, int64_t k, bool grad)
{
	int64_t d = m->cfg.dim;
	struct lk_view x = lwm_rows(m, LWM_BUF_X, m->cfg.layers, d, 0, m->n);
	struct lk_view rx = lwm_rows(m, LWM_BUF_RX, 0, d, 0, k), rn = lwm_rows(m, LWM_BUF_RN, 0, d, 0, k);
	struct lk_view y = lwm_rows(m, LWM_BUF_LOGITS, 0, t->table[head].w.n[0], 0, k);
	const int32_t *idx = (int32_t *)lwm_buf(m, LWM_BUF_IDX, 0) + r;
	const int32_t *target = (int32_t *)lwm_buf(m, LWM_BUF_TARGET, 0) + r;
	float *weight = (float *)lwm_buf(m, LWM_BUF_WEIGHT, 0) + r, *nll = (float *)lwm_buf(m, LWM_BUF_NLL, 0) + r;

	LWM_K(m, lk_gather_rows(m->dev, &rx, &x, idx));
	LWM_K(m, lk_rmsnorm_fwd(m->dev, &rn, lwm_buf(m, LWM_BUF_RRSTD, 0), &rx, NULL, &t->norm.w,
				(float)m->cfg.rms_eps));
	LWM_K(m, lk_matmul(m->dev, &y, &rn, &t->table[head].w, LK_TB, 1.0f));
	LWM_K(m, lk_xent(m->dev, &y, target, weight, nll, (float *)lwm_buf(m, LWM_BUF_HIT, 0) + r, grad));
	if (grad)
		loss_piece_backward(m, t, head, &y, idx);
}

static void loss_alone(struct lwm_llama *m)
{
	bool grads = m->w->grads;
	struct lwm_head t = lwm_head_acquire(m, grads ? LWM_WEIGHTS | LWM_GRADS : LWM_WEIGHTS);
	int64_t step = m->plan.loss_rows, r = 0;

	if (grads)
		LWM_K(m, lk_zero(m->dev, lwm_buf(m, LWM_BUF_DX, 0),
				 (size_t)(m->n * m->cfg.dim) * lk_dtype_size(m->dtype)));
	for (int v = LWM_TEXT; v < LWM_MODALITIES; v++)
		for (int64_t left = m->counted[v]; left > 0;) {
			int64_t k = left < step ? left : step;

			loss_piece(m, &t, v, r, k, grads);
			r += k;
			left -= k;
		}
	lwm_head_release(m, grads);
}

void lwm_llama_loss(struct lwm_llama *m)
{
	if (m->cut.n > 1)
		lwm_tp_loss(m);
	else
		loss_alone(m);
}

void lwm_loss_stats(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_llama_stats *out)
{
	int64_t n = m->counted[LWM_TEXT] + m->counted[LWM_VISION];
	float *nll = m->host_f, *hit = m->host_f + m->run.tokens;
	int32_t *idx = m->host_i;
	struct lwm_llama_stats s = { 0 };

	if (n) {
		LWM_K(m, lk_download(m->dev, nll, lwm_buf(m, LWM_BUF_NLL, 0), (size_t)n * sizeof *nll));
		LWM_K(m, lk_download(m->dev, hit, lwm_buf(m, LWM_BUF_HIT, 0), (size_t)n * sizeof *hit));
	}
	for (int64_t i = 0; i < n && !m->rc; i++) {
		int v = i >= m->counted[LWM_TEXT];

		s.loss[v] += (double)b->weights[idx[i]] * (double)nll[i];
		s.nll[v] += (double)nll[i];
		s.hits[v] += (double)hit[i];
		s.tokens[v]++;
		int32_t g = b->group ? b->group[idx[i]] : -1;
		if (g >= 0 && g < LWM_LOSS_GROUPS) {
			s.group_nll[g] += (double)nll[i];
			s.group_tokens[g]++;
		}
	}
	*out = s;
}
