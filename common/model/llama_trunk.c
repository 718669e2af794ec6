/* llama_trunk.c - a pass over vectors: their projection, the layers, the last norm, and back. */
#include <inttypes.h>
#include <string.h>

#include "common/model/llama_int.h"

static int check_vectors(const struct lwm_llama *m, const struct lwm_trunk_batch *b, const struct lwm_supply *w, struct lwm_err *e)
{
	if (!m->cfg.input_dim)
		return lwm_fail(e, LWM_EINTERNAL, "vectors for a model that takes ids");
	if (w->grads && !m->run.train)
		return lwm_fail(e, LWM_EINTERNAL, "gradients wanted from a trunk made for evaluation");
	if (b->n < 1 || b->n > m->run.tokens)
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " vectors in a pass made for 1 to %" PRId64, b->n, m->run.tokens);
	return 0;
}

int lwm_trunk_begin(struct lwm_llama *m, const struct lwm_trunk_batch *b, struct lwm_supply *w, struct lwm_err *e)
{
	int rc = check_vectors(m, b, w, e);

	m->rc = 0;
	memset(&m->err, 0, sizeof m->err);
	m->vectors = b;
	m->n = b->n;
	m->w = w;
	if (!rc)
		rc = lwm_attn_begin(m->attention, b->n, b->see ? b->see : b->pos, b->seg, e);
	return lwm_supply_agree(w, rc, e);
}

static struct lk_view inputs_of(const struct lwm_llama *m, enum lwm_buf_id b, int dtype)
{
	return lk_view2(lwm_buf(m, b, 0), dtype, m->n, m->cfg.input_dim);
}

/* The vectors as products take them. */
static struct lk_view computed_inputs(const struct lwm_llama *m)
{
	if (m->run.device_vectors)
		return lk_view2((void *)(uintptr_t)m->vectors->on_device, m->dtype, m->n, m->cfg.input_dim);
	return inputs_of(m, m->dtype == LK_F32 ? LWM_BUF_IN : LWM_BUF_IN_CAST, m->dtype);
}

static void project_inputs(struct lwm_llama *m)
{
	struct lwm_embed t = lwm_embed_acquire(m, LWM_WEIGHTS);
	struct lk_view in = inputs_of(m, LWM_BUF_IN, LK_F32), as = computed_inputs(m);
	struct lk_view x = lwm_rows(m, LWM_BUF_X, 0, m->cfg.dim, 0, m->n);
	size_t count = (size_t)m->n;
	bool here = m->run.device_vectors;

	if (!here)
		LWM_K(m, lk_upload(m->dev, in.data, m->vectors->vectors, count * (size_t)m->cfg.input_dim * sizeof(float)));
	LWM_K(m, lk_upload(m->dev, lwm_buf(m, LWM_BUF_IDS, 0), m->vectors->pos, count * sizeof(int32_t)));
	if (!here && as.data != in.data)
		LWM_K(m, lk_cast(m->dev, &as, &in));
	LWM_K(m, lk_matmul(m->dev, &x, &as, &t.input.w, LK_TB, 1.0f));
	lwm_embed_release(m, false);
}

struct lk_view lwm_trunk_hidden(const struct lwm_llama *m)
{
	return lwm_rows(m, LWM_BUF_HIDDEN, 0, m->cfg.dim, 0, m->n);
}

struct lk_view lwm_trunk_hidden_grad(const struct lwm_llama *m)
{
	return lwm_rows(m, LWM_BUF_HIDDEN_GRAD, 0, m->cfg.dim, 0, m->n);
}

void lwm_trunk_forward(struct lwm_llama *m)
{
	struct lk_view x = lwm_rows(m, LWM_BUF_X, m->cfg.layers, m->cfg.dim, 0, m->n), h = lwm_trunk_hidden(m);

	project_inputs(m);
	lwm_fwd_layers(m);
	struct lwm_head last = lwm_head_acquire(m, LWM_WEIGHTS);
	LWM_K(m, lk_rmsnorm_fwd(m->dev, &h, lwm_buf(m, LWM_BUF_HIDDEN_RSTD, 0), &x, NULL, &last.norm.w, (float)m->cfg.rms_eps));
	lwm_head_release(m, false);
}

/* Through the last norm; the last stream is read before the layers' backward takes its place. */
static void norm_backward(struct lwm_llama *m)
{
	struct lwm_head last = lwm_head_acquire(m, LWM_WEIGHTS | LWM_GRADS);
	struct lk_view x = lwm_rows(m, LWM_BUF_X, m->cfg.layers, m->cfg.dim, 0, m->n), dh = lwm_trunk_hidden_grad(m);
	struct lk_view dx = lwm_rows(m, LWM_BUF_DX, 0, m->cfg.dim, 0, m->n);

	LWM_K(m, lk_zero(m->dev, dx.data, (size_t)(m->n * m->cfg.dim) * lk_dtype_size(m->dtype)));
	LWM_K(m, lk_rmsnorm_bwd(m->dev, &dx, last.norm.g.data, &dh, &x, &last.norm.w, lwm_buf(m, LWM_BUF_HIDDEN_RSTD, 0)));
	lwm_head_release(m, true);
}

static void inputs_backward(struct lwm_llama *m)
{
	bool back = m->vectors->gradient;
	struct lwm_embed t = lwm_embed_acquire(m, back ? LWM_WEIGHTS | LWM_GRADS : LWM_GRADS);
	struct lk_view dx = lwm_rows(m, LWM_BUF_DX, 0, m->cfg.dim, 0, m->n), in = computed_inputs(m);
	struct lk_view din = lk_view2(m->vectors->gradient, m->dtype, m->n, m->cfg.input_dim);

	lwm_add_weight_grad(m, &t.input.g, &dx, &in);
	if (back)
		LWM_K(m, lk_matmul(m->dev, &din, &dx, &t.input.w, 0, 1.0f));
	lwm_embed_release(m, true);
}

void lwm_trunk_backward(struct lwm_llama *m)
{
	norm_backward(m);
	lwm_bwd_layers(m);
	inputs_backward(m);
}

int lwm_trunk_fail(struct lwm_llama *m, int rc, const struct lwm_err *why)
{
	if (rc && !m->rc) {
		m->rc = rc;
		m->err = *why;
	}
	return m->rc;
}

int lwm_trunk_end(struct lwm_llama *m, struct lwm_err *e)
{
	return lwm_supply_agree(m->w, lwm_pass_result(m, e), e);
}
