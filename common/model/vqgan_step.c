/* vqgan_step.c - a step of training: passes over its frames, alone or against a discriminator. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/comm.h"
#include "common/comm/device.h"
#include "common/model/vqgan_int.h"

#define OP(call) LWM_TRY(lwm_dev_check(m->dev, call, e))

/* What a call is about. */
struct step {
	const uint8_t *rgb;
	int64_t n, h, w;
	const struct lwm_vqgan_loss *loss;
	float weight;
	struct lwm_supply *grads;
	int32_t *codes;
	struct lwm_vqgan_stats *st;
};

static struct lk_view view_like(const struct lk_view *v, void *data)
{
	struct lk_view r = *v;
	r.data = data;
	return r;
}

static int64_t pass_size(const struct lwm_vqgan *m, const struct step *s, int64_t i)
{
	return s->n - i < m->per_pass ? s->n - i : m->per_pass;
}

/* Frames [i, i + k): forward and losses; *d the gradient at the output, in a work buffer. */
static int first_half(struct lwm_vqgan *m, const struct step *s, int64_t i, struct lk_view *d, struct lwm_err *e)
{
	int64_t k = pass_size(m, s, i), per = lwm_vqgan_codes(&m->layout.cfg, s->h, s->w);
	double vq;
	LWM_TRY(lwm_vq_prepare(m, k, s->h, s->w, true, e));
	LWM_TRY(lwm_vq_forward(m, s->rgb + i * s->h * s->w * 3, s->loss->continuous, &vq, e));
	*d = view_like(&m->saved[m->layout.n - 1].out, m->mem.buf[0]);
	LWM_TRY(lwm_vq_losses(m, s->loss, s->weight * (float)k, vq, s->grads ? d : NULL, s->st, e));
	if (!s->codes)
		return 0;
	OP(lk_download(m->dev, s->codes + i * per, m->mem.idx, (size_t)m->mem.codes * sizeof *s->codes));
	return 0;
}

static int train_alone(struct lwm_vqgan *m, const struct step *s, struct lwm_err *e)
{
	struct lk_view d;
	for (int64_t i = 0; i < s->n; i += m->per_pass) {
		LWM_TRY(first_half(m, s, i, &d, e));
		if (s->grads)
			LWM_TRY(lwm_vq_backward(m, s->loss, s->weight * (float)pass_size(m, s, i), &d, s->grads, e));
	}
	return 0;
}

/* ---- against a discriminator ---- */

/* Of the first round: sums for the norms, [0] of the loss, [1] of g; and gradients of both at the output of all frames. */
struct judged {
	float *last[2];
	char *at_output[2];
	int64_t weights; /* of the last convolution */
	int64_t frame;   /* bytes of one at the output */
};

static struct judged lay_out(const struct lwm_vq_layout *l, char *base, int64_t n, int64_t h, int64_t w, int dtype, int64_t *bytes)
{
	const struct lwm_vq_node *nd = &l->node[l->n - 1];
	struct judged j = { .weights = (int64_t)nd->kernel * nd->kernel * nd->cin * nd->cout,
			    .frame = h * w * 3 * (int64_t)lk_dtype_size(dtype) };
	*bytes = 0;
	for (int i = 0; i < 2; i++) {
		j.last[i] = base ? (float *)(void *)(base + *bytes) : NULL;
		*bytes += lwm_round64(j.weights * (int64_t)sizeof(float));
		j.at_output[i] = base ? base + *bytes : NULL;
		*bytes += lwm_round64(n * j.frame);
	}
	return j;
}

int64_t lwm_vqgan_critic_memory(const struct lwm_vqgan_cfg *c, int64_t frames, int64_t height, int64_t width, int dtype)
{
	struct lwm_vq_layout l;
	int64_t bytes = 0;
	if (lwm_vq_layout_init(&l, c, NULL) < 0)
		return -1;
	lay_out(&l, NULL, frames, height, width, dtype, &bytes);
	lwm_vq_layout_release(&l);
	return bytes;
}

static int make_room(struct lwm_vqgan *m, const struct step *s, struct judged *j, struct lwm_err *e)
{
	int64_t bytes;
	void *p;
	lay_out(&m->layout, NULL, s->n, s->h, s->w, lk_dev_dtype(m->dev), &bytes);
	if (bytes > m->judged_bytes) {
		lk_mem_free(m->dev, m->judged);
		m->judged = NULL;
		m->judged_bytes = 0;
		OP(lk_mem_alloc(m->dev, (size_t)bytes, &p));
		m->judged = p;
		m->judged_bytes = bytes;
	}
	*j = lay_out(&m->layout, m->judged, s->n, s->h, s->w, lk_dev_dtype(m->dev), &bytes);
	for (int i = 0; i < 2; i++)
		OP(lk_zero(m->dev, j->last[i], (size_t)j->weights * sizeof(float)));
	return 0;
}

/* Hinge loss of the images just judged, of n frames; slopes: its gradient at the logits, times scale. */
static void add_hinge(const float *logits, int64_t patches, bool made, double n, float scale, float *slopes,
		      struct lwm_vqgan_stats *st)
{
	double share = n / (double)patches;
	for (int64_t i = 0; i < patches; i++) {
		double v = (double)logits[i], margin = made ? 1 + v : 1 - v;
		st->hinge += margin > 0 ? 0.5 * margin * share : 0;
		*(made ? &st->made : &st->real) += v * share;
		st->fooled -= made ? v * share : 0;
		st->judged += made ? share : 0;
		slopes[i] = margin > 0 ? (made ? 0.5f : -0.5f) * scale / (float)patches : 0;
	}
}

/* One kind of images: judged, and the discriminator's gradient. made: *dg (NULL: not wanted) gets that of g in the images. */
static int judge(const struct step *s, const struct lk_view *x, bool made, const struct lk_view *dg, struct lwm_err *e)
{
	const struct lwm_vqgan_critic *c = s->loss->critic;
	float scale = s->weight * (float)x->n[0], *slopes;
	int64_t n;
	int rc;
	LWM_TRY(lwm_patchgan_judge(c->net, x, &n, e));
	slopes = malloc((size_t)n * sizeof *slopes);
	if (!slopes)
		return lwm_fail_memory(e, NULL);
	for (int64_t i = 0; i < n; i++)
		slopes[i] = -scale / (float)n;
	rc = dg ? lwm_patchgan_back(c->net, slopes, dg, NULL, e) : 0;
	add_hinge(lwm_patchgan_logits(c->net), n, made, (double)x->n[0], scale, slopes, s->st);
	if (rc == 0 && s->grads)
		rc = lwm_patchgan_back(c->net, slopes, NULL, c->grads, e);
	free(slopes);
	return rc;
}

/* Adds the gradient d at the output as one of the last convolution's weights. */
static int add_last(struct lwm_vqgan *m, float *sum, const struct lk_view *d, struct lwm_err *e)
{
	int64_t i = m->layout.n - 1;
	return lwm_dev_check(m->dev, lk_conv_bwd(m->dev, m->convs[i].c[0], NULL, sum, NULL, d, &m->saved[i].in), e);
}

static int first_round(struct lwm_vqgan *m, const struct step *s, struct judged *j, struct lwm_err *e)
{
	struct lk_view d, dg, x;
	LWM_TRY(lwm_patchgan_refresh(s->loss->critic->net, e));
	if (s->grads)
		LWM_TRY(make_room(m, s, j, e));
	for (int64_t i = 0; i < s->n; i += m->per_pass) {
		LWM_TRY(first_half(m, s, i, &d, e));
		x = m->saved[m->layout.n - 1].out;
		if (s->grads) {
			dg = view_like(&x, j->at_output[1] + i * j->frame);
			OP(lk_copy(m->dev, j->at_output[0] + i * j->frame, d.data, (size_t)(m->mem.n * j->frame)));
			LWM_TRY(add_last(m, j->last[0], &d, e));
		}
		LWM_TRY(judge(s, &x, true, s->grads ? &dg : NULL, e));
		if (s->grads)
			LWM_TRY(add_last(m, j->last[1], &dg, e));
		x.data = m->mem.target;
		LWM_TRY(judge(s, &x, false, NULL, e));
	}
	return 0;
}

/* a, from the norms over all ranks. */
static int balance(struct lwm_vqgan *m, const struct lwm_vqgan_critic *c, const struct judged *j, float *host, double *a,
		   struct lwm_err *e)
{
	double sq[2] = { 0 };
	int64_t n = j->weights;
	int rc = host ? 0 : lwm_fail_memory(e, NULL);
	for (int i = 0; rc == 0 && i < 2; i++)
		rc = lwm_dev_check(m->dev, lk_download(m->dev, host + i * n, j->last[i], (size_t)n * sizeof *host), e);
	if (c->ranks) {
		LWM_TRY(lwm_agree(c->ranks, rc, e));
		rc = lwm_comm_sum_f32(c->ranks, host, 2 * n, e);
	}
	LWM_TRY(rc);
	for (int64_t i = 0; i < 2 * n; i++)
		sq[i / n] += (double)host[i] * (double)host[i];
	*a = (double)c->weight * fmin(sqrt(sq[0]) / (sqrt(sq[1]) + 1e-4), 1e4);
	return 0;
}

/* From the gradients of both back to the weights; the net goes forward again where another pass took the place of this one. */
static int second_round(struct lwm_vqgan *m, const struct step *s, const struct judged *j, double a, struct lwm_err *e)
{
	double vq;
	for (int64_t i = 0; i < s->n; i += m->per_pass) {
		int64_t k = pass_size(m, s, i);
		if (s->n > m->per_pass) {
			LWM_TRY(lwm_vq_prepare(m, k, s->h, s->w, true, e));
			LWM_TRY(lwm_vq_forward(m, s->rgb + i * s->h * s->w * 3, s->loss->continuous, &vq, e));
		}
		const struct lk_view *x = &m->saved[m->layout.n - 1].out;
		struct lk_view d = view_like(x, m->mem.buf[0]), dg = view_like(x, j->at_output[1] + i * j->frame);
		OP(lk_copy(m->dev, d.data, j->at_output[0] + i * j->frame, (size_t)(k * j->frame)));
		OP(lk_axpy(m->dev, &d, (float)a, &dg));
		LWM_TRY(lwm_vq_backward(m, s->loss, s->weight * (float)k, &d, s->grads, e));
	}
	return 0;
}

static int train_against(struct lwm_vqgan *m, const struct step *s, struct lwm_err *e)
{
	const struct lwm_vqgan_critic *c = s->loss->critic;
	struct lwm_vqgan_stats before = *s->st;
	struct judged j = { .weights = 0 };
	double a;
	float *host;
	int rc = first_round(m, s, &j, e);
	if (!s->grads)
		return rc;
	if (c->ranks)
		rc = lwm_agree(c->ranks, rc, e);
	LWM_TRY(rc);
	host = malloc((size_t)j.weights * 2 * sizeof *host);
	rc = balance(m, c, &j, host, &a, e);
	free(host);
	LWM_TRY(rc);
	s->st->balance += a * (s->st->frames - before.frames);
	s->st->loss += a * (s->st->fooled - before.fooled);
	return second_round(m, s, &j, a, e);
}

int lwm_vqgan_train(struct lwm_vqgan *m, const uint8_t *rgb, int64_t n, int64_t height, int64_t width,
		    const struct lwm_vqgan_loss *loss, float weight, struct lwm_supply *w, int32_t *codes,
		    struct lwm_vqgan_stats *stats, struct lwm_err *e)
{
	const struct step s = { rgb, n, height, width, loss, weight, w, codes, stats };
	LWM_TRY(lwm_vq_check_frames(m, n, height, width, e));
	return loss->critic ? train_against(m, &s, e) : train_alone(m, &s, e);
}

double lwm_psnr(double mse_pm1)
{
	return mse_pm1 > 0 ? 10 * log10(4 / mse_pm1) : INFINITY;
}
