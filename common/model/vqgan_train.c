/* vqgan_train.c - forward that keeps what the backward needs, the losses, and the backward. */
#include <string.h>

#include "common/comm/device.h"
#include "common/model/vqgan_int.h"

#define EPS 1e-6f
#define OP(call) LWM_TRY(lwm_dev_check(m->dev, call, e))

/* w: the node's weights. */
static int keep_norm(struct lwm_vqgan *m, const struct lk_view *y, float *mean, float *rstd, const struct lk_view *x,
		     const float *w, int64_t scale, int64_t bias, struct lwm_err *e)
{
	return lwm_dev_check(m->dev, lk_groupnorm_fwd(m->dev, y, mean, rstd, x, w + scale, w + bias, m->layout.cfg.groups, EPS,
						      1), e);
}

static int forward_node(struct lwm_vqgan *m, int64_t i, struct lwm_err *e)
{
	const struct lwm_vq_node *nd = &m->layout.node[i];
	const struct lwm_vq_convs *c = &m->convs[i];
	const struct lwm_vq_saved *s = &m->saved[i];
	const struct lk_view *add = &s->in;
	const float *w = m->at[i];
	struct lk_view shortcut = s->out;
	if (nd->op == LWM_VQ_OP_CONV)
		return lwm_dev_check(m->dev, lk_conv_fwd(m->dev, c->c[0], &s->out, &s->in, NULL), e);
	if (nd->op == LWM_VQ_OP_NORM)
		return keep_norm(m, &s->out, s->mean1, s->rstd1, &s->in, w, nd->norm1, nd->norm1_bias, e);
	LWM_TRY(keep_norm(m, &s->n1, s->mean1, s->rstd1, &s->in, w, nd->norm1, nd->norm1_bias, e));
	OP(lk_conv_fwd(m->dev, c->c[0], &s->h1, &s->n1, NULL));
	LWM_TRY(keep_norm(m, &s->n2, s->mean2, s->rstd2, &s->h1, w, nd->norm2, nd->norm2_bias, e));
	if (c->c[2]) {
		shortcut.data = m->mem.buf[0];
		OP(lk_conv_fwd(m->dev, c->c[2], &shortcut, &s->in, NULL));
		add = &shortcut;
	}
	return lwm_dev_check(m->dev, lk_conv_fwd(m->dev, c->c[1], &s->out, &s->n2, add), e);
}

/* w, grads: those of the node. */
static int back_norm(struct lwm_vqgan *m, const struct lk_view *d, const struct lk_view *x, const float *mean, const float *rstd,
		     const float *w, int64_t scale, int64_t bias, float *grads, struct lwm_err *e)
{
	return lwm_dev_check(m->dev, lk_groupnorm_bwd(m->dev, d, grads + scale, grads + bias, d, x, mean, rstd, w + scale, w + bias,
						      m->layout.cfg.groups, EPS, 1), e);
}

static struct lk_view view_like(const struct lk_view *v, void *data)
{
	struct lk_view r = *v;
	r.data = data;
	return r;
}

/* *d is the gradient at the output of a residual block and becomes the one at its input; b are three free buffers. */
static int back_res(struct lwm_vqgan *m, int64_t i, struct lk_view *d, void *const b[3], float *grads,
		    struct lwm_err *e)
{
	const struct lwm_vq_node *nd = &m->layout.node[i];
	const struct lwm_vq_convs *c = &m->convs[i];
	const struct lwm_vq_saved *s = &m->saved[i];
	const float *w = m->at[i];
	struct lk_view dh = view_like(&s->h1, b[0]), dx = view_like(&s->in, b[1]), ds = view_like(&s->in, b[0]);
	OP(lk_conv_bwd(m->dev, c->c[1], &dh, grads + nd->conv[1], grads + nd->bias[1], d, &s->n2));
	LWM_TRY(back_norm(m, &dh, &s->h1, s->mean2, s->rstd2, w, nd->norm2, nd->norm2_bias, grads, e));
	OP(lk_conv_bwd(m->dev, c->c[0], &dx, grads + nd->conv[0], grads + nd->bias[0], &dh, &s->n1));
	LWM_TRY(back_norm(m, &dx, &s->in, s->mean1, s->rstd1, w, nd->norm1, nd->norm1_bias, grads, e));
	if (c->c[2]) {
		OP(lk_conv_bwd(m->dev, c->c[2], &ds, grads + nd->conv[2], grads + nd->bias[2], d, &s->in));
		OP(lk_axpy(m->dev, &dx, 1, &ds));
	} else {
		OP(lk_axpy(m->dev, &dx, 1, d));
	}
	*d = dx;
	return 0;
}

/* Node i; *d as below, grads of the node. */
static int back_node(struct lwm_vqgan *m, int64_t i, struct lk_view *d, float *grads, struct lwm_err *e)
{
	const struct lwm_vq_node *nd = &m->layout.node[i];
	const struct lwm_vq_saved *s = &m->saved[i];
	void *b[3];
	for (int j = 0, k = 0; j < 4 && k < 3; j++)
		if (m->mem.buf[j] != d->data)
			b[k++] = m->mem.buf[j];
	if (nd->op == LWM_VQ_OP_RES)
		return back_res(m, i, d, b, grads, e);
	if (nd->op == LWM_VQ_OP_NORM)
		return back_norm(m, d, &s->in, s->mean1, s->rstd1, m->at[i], nd->norm1, nd->norm1_bias, grads, e);
	struct lk_view dx = view_like(&s->in, b[0]);
	OP(lk_conv_bwd(m->dev, m->convs[i].c[0], i ? &dx : NULL, grads + nd->conv[0], grads + nd->bias[0], d, &s->in));
	*d = dx;
	return 0;
}

/* Nodes last-1 down to first; *d comes in as the gradient at the output and leaves as the one at the input. */
static int backward_nodes(struct lwm_vqgan *m, int64_t first, int64_t last, struct lk_view *d, struct lwm_supply *w,
			  struct lwm_err *e)
{
	for (int64_t i = last - 1; i >= first; i--) {
		const struct lwm_group *g = &m->layout.node[i].group;
		struct lwm_supplied at;
		int rc = lwm_supply_acquire(w, g, LWM_GRADS, &at, 0, e);
		if (rc == 0)
			rc = back_node(m, i, d, at.g, e);
		lwm_supply_release(w, g);
		LWM_TRY(lwm_supply_grad_ready(w, g, rc, e));
	}
	return 0;
}

/* Loss terms of the quantizer: *vq = mean (e - z)^2. mem.diff becomes q - z. */
static int quantizer_loss(struct lwm_vqgan *m, double *vq, struct lwm_err *e)
{
	int64_t n = m->mem.codes * m->layout.cfg.embed_dim;
	struct lk_view diff = lk_view1(m->mem.diff, LK_F32, n), q = lk_view1(m->mem.q, m->mem.act, n);
	struct lk_view z = lk_view1(m->mem.z, m->mem.act, n);
	OP(lk_cast(m->dev, &diff, &q));
	OP(lk_axpy(m->dev, &diff, -1, &z));
	OP(lk_sumsq(m->dev, m->mem.diff, n, vq));
	*vq /= (double)n;
	return 0;
}

static int back_codebook(struct lwm_vqgan *m, const struct lk_view *dq, struct lwm_supply *w, struct lwm_err *e)
{
	const struct lwm_vqgan_cfg *c = &m->layout.cfg;
	const struct lwm_group *g = &m->layout.codebook;
	struct lwm_supplied at;
	int rc = lwm_supply_acquire(w, g, LWM_GRADS, &at, 0, e);
	if (rc == 0) {
		struct lk_view book = lk_view2(at.g, LK_F32, c->num_embeddings, c->embed_dim);
		rc = lwm_dev_check(m->dev, lk_embed_bwd(m->dev, &book, m->mem.idx, dq, 0), e);
	}
	lwm_supply_release(w, g);
	return lwm_supply_grad_ready(w, g, rc, e);
}

/* Straight through: the gradient at q is the one at z; the two loss terms pull z and the codebook rows together.
 * scale: weight of one frame's loss times the frames of the pass. */
static int back_quantizer(struct lwm_vqgan *m, struct lk_view *d, const struct lwm_vqgan_loss *loss, float scale,
			  struct lwm_supply *w, struct lwm_err *e)
{
	const struct lwm_vqgan_cfg *c = &m->layout.cfg;
	int64_t rows = m->mem.codes, n = rows * c->embed_dim;
	float two_n = 2 * scale / (float)n;
	struct lk_view diff = lk_view4(m->mem.diff, LK_F32, d->n[0], d->n[1], d->n[2], d->n[3]);
	struct lk_view dq = lk_view2(m->mem.diff_act, m->mem.act, rows, c->embed_dim);
	OP(lk_axpy(m->dev, d, -loss->commit * two_n, &diff));
	OP(lk_scale(m->dev, &diff, loss->codebook * two_n));
	if (m->mem.act != LK_F32) {
		struct lk_view from = lk_view2(m->mem.diff, LK_F32, rows, c->embed_dim);
		OP(lk_cast(m->dev, &dq, &from));
	}
	return back_codebook(m, &dq, w, e);
}

/* Pixels differ by half as much on [0,1]: losses are those of [-1,1] for either net. */
static int pixel_loss(struct lwm_vqgan *m, const struct lk_view *dx, const struct lwm_vqgan_loss *loss, float scale,
		      double out[2], struct lwm_err *e)
{
	float k = m->layout.cfg.unit_pixels ? 2 : 1;
	const struct lk_view *x = &m->saved[m->layout.n - 1].out;
	struct lk_view t = view_like(x, m->mem.target);
	OP(lk_recon_loss(m->dev, dx, x, &t, loss->l1 * scale * k, loss->l2 * scale * k * k, out));
	out[0] *= (double)k;
	out[1] *= (double)k * (double)k;
	return 0;
}

/* The decoder's input from the encoder's output. */
static int bridge_latents(struct lwm_vqgan *m, bool continuous, struct lwm_err *e)
{
	int64_t n = m->mem.codes * m->layout.cfg.embed_dim;
	LWM_TRY(lwm_vq_quantize(m, &m->saved[m->layout.encoder - 1].out, e));
	if (!continuous)
		return 0;
	return lwm_dev_check(m->dev, lk_copy(m->dev, m->mem.q, m->mem.z, (size_t)n * lk_dtype_size(m->mem.act)), e);
}

int lwm_vq_forward(struct lwm_vqgan *m, const uint8_t *rgb, bool continuous, double *vq, struct lwm_err *e)
{
	int64_t enc = m->layout.encoder, last = m->layout.n;
	struct lk_view target = view_like(&m->saved[0].in, m->mem.target);
	LWM_TRY(lwm_vq_load(m, rgb, &m->saved[0].in, e));
	OP(lk_cast(m->dev, &target, &m->saved[0].in));
	for (int64_t i = 0; i < enc; i++)
		LWM_TRY(forward_node(m, i, e));
	LWM_TRY(bridge_latents(m, continuous, e));
	for (int64_t i = enc; i < last; i++)
		LWM_TRY(forward_node(m, i, e));
	return quantizer_loss(m, vq, e);
}

int lwm_vq_losses(struct lwm_vqgan *m, const struct lwm_vqgan_loss *loss, float scale, double vq, const struct lk_view *d,
		  struct lwm_vqgan_stats *st, struct lwm_err *e)
{
	const struct lk_view *x = &m->saved[m->layout.n - 1].out;
	struct lk_view target = view_like(x, m->mem.target);
	double pix[2], seen = 0, n = (double)m->mem.n;
	LWM_TRY(pixel_loss(m, d, loss, scale, pix, e));
	if (loss->features)
		LWM_TRY(lwm_perceptual_loss(loss->features, x, &target, d, loss->perceptual * scale, &seen, e));
	st->frames += n;
	st->l1 += n * pix[0];
	st->l2 += n * pix[1];
	st->vq += n * vq;
	st->perceptual += n * seen;
	st->loss += n * ((double)loss->l1 * pix[0] + (double)loss->l2 * pix[1] + (double)loss->perceptual * seen +
			 (double)(loss->codebook + loss->commit) * vq);
	return 0;
}

int lwm_vq_backward(struct lwm_vqgan *m, const struct lwm_vqgan_loss *loss, float scale, struct lk_view *d, struct lwm_supply *w,
		    struct lwm_err *e)
{
	LWM_TRY(backward_nodes(m, m->layout.encoder, m->layout.n, d, w, e));
	if (!loss->continuous)
		LWM_TRY(back_quantizer(m, d, loss, scale, w, e));
	return backward_nodes(m, 0, m->layout.encoder, d, w, e);
}
