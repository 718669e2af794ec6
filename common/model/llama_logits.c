/* llama_logits.c - logits of chosen rows, as fp32: for generation, tools and tests. */
#include "common/model/llama_int.h"

int64_t lwm_logit_room(const struct lwm_llama *m)
{
	int64_t rows = m->plan.loss_rows * (int64_t)lk_dtype_size(m->dtype) / 4; // logits here are fp32

	return rows < 1 ? 1 : rows;
}

void lwm_logit_pick(struct lwm_llama *m, const int32_t *rows, int64_t n)
{
	LWM_K(m, lk_upload(m->dev, lwm_buf(m, LWM_BUF_IDX, 0), rows, (size_t)n * sizeof *rows));
}

/* Rows [from, from + nrows) of LWM_BUF_IDX through the norm and the head h. */
static struct lk_view make_logits(struct lwm_llama *m, const struct lwm_head *h, enum lwm_modality head, int64_t from,
				  int64_t nrows)
{
	int64_t d = m->cfg.dim;
	const int32_t *idx = (int32_t *)lwm_buf(m, LWM_BUF_IDX, 0) + from;
	struct lk_view x = lwm_rows(m, LWM_BUF_X, m->cfg.layers, d, 0, m->n);
	struct lk_view rx = lwm_rows(m, LWM_BUF_RX, 0, d, 0, nrows), rn = lwm_rows(m, LWM_BUF_RN, 0, d, 0, nrows);
	struct lk_view y = lk_view2(lwm_buf(m, LWM_BUF_LOGITS, 0), LK_F32, nrows, m->map.head[head].rows);

	LWM_K(m, lk_gather_rows(m->dev, &rx, &x, idx));
	LWM_K(m, lk_rmsnorm_fwd(m->dev, &rn, lwm_buf(m, LWM_BUF_RRSTD, 0), &rx, NULL, &h->norm.w, (float)m->cfg.rms_eps));
	LWM_K(m, lk_matmul(m->dev, &y, &rn, &h->table[head].w, LK_TB, 1.0f));
	return y;
}

struct lk_view lwm_logit_piece(struct lwm_llama *m, enum lwm_modality head, int64_t from, int64_t nrows)
{
	struct lwm_head h = lwm_head_acquire(m, LWM_WEIGHTS);
	struct lk_view y = make_logits(m, &h, head, from, nrows);

	lwm_head_release(m, false);
	return y;
}

void lwm_logit_rows(struct lwm_llama *m, enum lwm_modality head, int64_t nrows, float *host_out)
{
	struct lwm_head h = lwm_head_acquire(m, LWM_WEIGHTS);
	int64_t step = lwm_logit_room(m);

	for (int64_t r = 0; r < nrows; r += step) {
		int64_t k = nrows - r < step ? nrows - r : step;
		struct lk_view y = make_logits(m, &h, head, r, k);

		LWM_K(m, lk_download(m->dev, host_out + r * y.n[1], y.data, (size_t)(k * y.n[1]) * sizeof(float)));
	}
	lwm_head_release(m, false);
}
