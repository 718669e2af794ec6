/* The patch discriminator on a device. */
#include "common/model/patchgan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/device.h"

enum { MOST = 6 + 2 /* convolutions */, ALIGN = 16 /* floats */ };

static const float slope = 0.2f, eps = 1e-5f;

struct stage {
	struct lk_conv *conv;
	int64_t weight, bias, scale, shift; /* places among the weights; scale, shift: of the norm, -1: none */
	struct lk_view in, out, seen;       /* out of the convolution; behind norm and leaky relu */
	float *mean, *rstd;
};

struct lwm_patchgan {
	struct lk_dev *dev;
	struct lwm_patchgan_cfg c;
	const float *weights;
	struct stage stage[MOST];
	void *work[2];         /* each holds the largest of all */
	float *on_device;      /* logits or slopes in fp32 */
	float *unwanted[2];    /* gradients of a norm that nobody wants */
	float *logits;         /* host */
	int64_t n, h, w, room; /* images that the block is laid out for; logits that there is room for */
	char *block;
	int64_t block_bytes;
};

static int convs_of(const struct lwm_patchgan_cfg *c)
{
	return c->layers + 2;
}

/* Channels behind convolution i. */
static int32_t channels_of(const struct lwm_patchgan_cfg *c, int i)
{
	return i < 0 ? 3 : i == c->layers + 1 ? 1 : c->channels * (1 << (i < 3 ? i : 3));
}

static struct lk_conv_geom geom_of(const struct lwm_patchgan_cfg *c, int i)
{
	return (struct lk_conv_geom){ channels_of(c, i - 1), channels_of(c, i), 4, 4, i < c->layers ? 2 : 1, 1, 1, 1, 1, 1 };
}

static bool has_norm(const struct lwm_patchgan_cfg *c, int i)
{
	return i > 0 && i <= c->layers;
}

/* 4 channels each, 32 at most, and they divide. */
static int groups_of(const struct lwm_patchgan_cfg *c, int i)
{
	int32_t n = channels_of(c, i) / 4, groups = 1;
	while (groups < 32 && n % (groups * 2) == 0)
		groups *= 2;
	return (int)groups;
}

/* Rows or columns behind convolution i. */
static int64_t smaller(const struct lwm_patchgan_cfg *c, int i, int64_t size)
{
	return i < c->layers ? (size - 2) / 2 + 1 : size - 1;
}

int lwm_patchgan_check(const struct lwm_patchgan_cfg *c, int64_t height, int64_t width, struct lwm_err *e)
{
	int64_t h = height, w = width;
	if (c->layers < 1 || c->layers > 6 || c->channels < 4 || c->channels % 4 || c->channels > 1024)
		return lwm_fail(e, LWM_ECONFIG, "a discriminator of %d layers and %d channels: 1 to 6, and a multiple of 4 up to 1024, are possible",
				c->layers, c->channels);
	for (int i = 0; i < convs_of(c); i++) {
		h = h < 2 ? 0 : smaller(c, i, h);
		w = w < 2 ? 0 : smaller(c, i, w);
	}
	if (h > 0 && w > 0)
		return 0;
	return lwm_fail(e, LWM_ECONFIG, "frames of %" PRId64 " x %" PRId64 " have no patch for a discriminator of %d layers (--disc-layers)",
			width, height, c->layers);
}

/* ---- weights ---- */

static int add(struct lwm_tensors *t, int group, const char *kind, int i, const char *part, struct lwm_tensor w, struct lwm_err *e)
{
	char name[64];
	snprintf(name, sizeof name, "discriminator.%s%d.%s", kind, i, part);
	w.name = name;
	w.modality = LWM_MODALITIES;
	w.split = LWM_SPLIT_NONE;
	w.trainable = true;
	w.group = group;
	return lwm_tensors_add(t, &w, e);
}

int lwm_patchgan_tensors(struct lwm_tensors *t, const struct lwm_patchgan_cfg *c, struct lwm_err *e)
{
	int group = t->n ? t->list[t->n - 1].group + 1 : 0;
	for (int i = 0; i < convs_of(c); i++) {
		struct lk_conv_geom g = geom_of(c, i);
		struct lwm_tensor w = { .ndim = 4, .shape = { 4, 4, g.cin, g.cout }, .role = LWM_ROLE_CONV, .init = LWM_INIT_NORMAL,
					.value = 0.02 };
		struct lwm_tensor b = { .ndim = 1, .shape = { g.cout }, .role = LWM_ROLE_BIAS, .init = LWM_INIT_CONST };
		struct lwm_tensor s = { .ndim = 1, .shape = { g.cout }, .role = LWM_ROLE_SCALE, .init = LWM_INIT_CONST,
					.value = 1 };
		LWM_TRY(add(t, group, "conv", i, "weight", w, e));
		LWM_TRY(add(t, group, "conv", i, "bias", b, e));
		if (has_norm(c, i)) {
			LWM_TRY(add(t, group, "norm", i, "weight", s, e));
			LWM_TRY(add(t, group, "norm", i, "bias", b, e));
		}
	}
	return 0;
}

/* ---- memory ---- */

struct carver {
	char *base; /* NULL: sizes only */
	int64_t used;
};

static void *carve(struct carver *k, int64_t bytes)
{
	char *p = k->base ? k->base + k->used : NULL;
	k->used += lwm_round64(bytes);
	return p;
}

static struct lk_view carve4(struct carver *k, int dtype, int64_t n, int64_t h, int64_t w, int64_t c)
{
	return lk_view4(carve(k, n * h * w * c * (int64_t)lk_dtype_size(dtype)), dtype, n, h, w, c);
}

/* g NULL: sizes only. Returns bytes. */
static int64_t lay_out(const struct lwm_patchgan_cfg *c, struct lwm_patchgan *g, char *base, int64_t n, int64_t h, int64_t w,
		       int dtype)
{
	struct carver k = { base, 0 };
	struct lk_view in = lk_view4(NULL, dtype, n, h, w, 3);
	int64_t most = n * h * w * 3;
	for (int i = 0; i < convs_of(c); i++) {
		int64_t ch = channels_of(c, i);
		struct stage s = { .in = in };
		h = smaller(c, i, h);
		w = smaller(c, i, w);
		most = n * h * w * ch > most ? n * h * w * ch : most;
		s.seen = s.out = carve4(&k, dtype, n, h, w, ch);
		if (has_norm(c, i)) {
			s.seen = carve4(&k, dtype, n, h, w, ch);
			s.mean = carve(&k, n * groups_of(c, i) * (int64_t)sizeof(float));
			s.rstd = carve(&k, n * groups_of(c, i) * (int64_t)sizeof(float));
		}
		in = s.seen;
		if (!g)
			continue;
		g->stage[i].in = s.in;
		g->stage[i].out = s.out;
		g->stage[i].seen = s.seen;
		g->stage[i].mean = s.mean;
		g->stage[i].rstd = s.rstd;
	}
	float *logits = carve(&k, n * h * w * (int64_t)sizeof(float));
	for (int i = 0; i < 2; i++) {
		void *p = carve(&k, most * (int64_t)lk_dtype_size(dtype));
		float *unwanted = carve(&k, c->channels * 8 * (int64_t)sizeof(float));
		if (g) {
			g->work[i] = p;
			g->unwanted[i] = unwanted;
		}
	}
	if (g)
		g->on_device = logits;
	return k.used;
}

int64_t lwm_patchgan_memory(const struct lwm_patchgan_cfg *c, int64_t n, int64_t height, int64_t width, int dtype)
{
	return lay_out(c, NULL, NULL, n, height, width, dtype);
}

int64_t lwm_patchgan_own(struct lk_dev *dev, const struct lwm_patchgan_cfg *c, int64_t n, int64_t height, int64_t width)
{
	struct lk_own own;
	int64_t scratch = 0, kept = 0;
	for (int i = 0; i < convs_of(c); i++) {
		struct lk_conv_geom g = geom_of(c, i);
		if (lk_conv_own(dev, &g, n, height, width, 1, &own))
			return 0;
		height = smaller(c, i, height);
		width = smaller(c, i, width);
		kept += own.kept;
		scratch = own.scratch > scratch ? own.scratch : scratch;
	}
	return kept + scratch;
}

static int prepare(struct lwm_patchgan *g, const struct lk_view *x, struct lwm_err *e)
{
	int64_t n = x->n[0], h = x->n[1], w = x->n[2], need = lay_out(&g->c, NULL, NULL, n, h, w, x->dtype), logits;
	void *block;
	float *host;
	if (g->n == n && g->h == h && g->w == w)
		return 0;
	LWM_TRY(lwm_patchgan_check(&g->c, h, w, e));
	g->n = 0;
	if (need > g->block_bytes) {
		lk_mem_free(g->dev, g->block);
		g->block = NULL;
		g->block_bytes = 0;
		LWM_TRY(lwm_dev_check(g->dev, lk_mem_alloc(g->dev, (size_t)need, &block), e));
		g->block = block;
		g->block_bytes = need;
	}
	lay_out(&g->c, g, g->block, n, h, w, x->dtype);
	const struct lk_view *last = &g->stage[convs_of(&g->c) - 1].out;
	logits = last->n[0] * last->n[1] * last->n[2];
	if (logits > g->room) {
		host = realloc(g->logits, (size_t)logits * sizeof *host);
		if (!host)
			return lwm_fail_memory(e, NULL);
		g->logits = host;
		g->room = logits;
	}
	g->n = n;
	g->h = h;
	g->w = w;
	return 0;
}

/* ---- life ---- */

#define OP(call) LWM_TRY(lwm_dev_check(g->dev, call, e))

static int make_convs(struct lwm_patchgan *g, const struct lwm_tensors *t, struct lwm_err *e)
{
	int64_t at = 0;
	for (int i = 0; i < convs_of(&g->c); i++) {
		struct lk_conv_geom geom = geom_of(&g->c, i);
		struct stage *s = &g->stage[i];
		s->weight = t->list[at++].offset;
		s->bias = t->list[at++].offset;
		s->scale = has_norm(&g->c, i) ? t->list[at++].offset : -1;
		s->shift = has_norm(&g->c, i) ? t->list[at++].offset : -1;
		OP(lk_conv_new(g->dev, &s->conv, &geom, g->weights + s->weight, g->weights + s->bias));
	}
	return 0;
}

int lwm_patchgan_new(struct lwm_patchgan **out, struct lk_dev *dev, const struct lwm_patchgan_cfg *c, const float *weights,
		     struct lwm_err *e)
{
	struct lwm_patchgan *g = calloc(1, sizeof *g);
	struct lwm_tensors t = { .align = ALIGN };
	*out = NULL;
	if (!g)
		return lwm_fail_memory(e, NULL);
	g->dev = dev;
	g->c = *c;
	g->weights = weights;
	int rc = lwm_patchgan_tensors(&t, c, e);
	if (rc == 0)
		rc = make_convs(g, &t, e);
	lwm_tensors_release(&t);
	if (rc < 0)
		lwm_patchgan_free(g);
	else
		*out = g;
	return rc;
}

void lwm_patchgan_free(struct lwm_patchgan *g)
{
	if (!g)
		return;
	for (int i = 0; i < convs_of(&g->c); i++)
		lk_conv_free(g->stage[i].conv);
	lk_mem_free(g->dev, g->block);
	free(g->logits);
	free(g);
}

int lwm_patchgan_refresh(struct lwm_patchgan *g, struct lwm_err *e)
{
	for (int i = 0; i < convs_of(&g->c); i++)
		OP(lk_conv_refresh(g->dev, g->stage[i].conv));
	return 0;
}

/* ---- passes ---- */

int lwm_patchgan_judge(struct lwm_patchgan *g, const struct lk_view *x, int64_t *patches, struct lwm_err *e)
{
	int last = convs_of(&g->c) - 1;
	LWM_TRY(prepare(g, x, e));
	g->stage[0].in = *x;
	for (int i = 0; i <= last; i++) {
		struct stage *s = &g->stage[i];
		OP(lk_conv_fwd(g->dev, s->conv, &s->out, &s->in, NULL));
		if (has_norm(&g->c, i))
			OP(lk_groupnorm_fwd(g->dev, &s->seen, s->mean, s->rstd, &s->out, g->weights + s->scale,
					    g->weights + s->shift, groups_of(&g->c, i), eps, 0));
		if (i < last)
			OP(lk_leaky_fwd(g->dev, &s->seen, &s->seen, slope));
	}
	const struct lk_view *out = &g->stage[last].out;
	*patches = out->n[0] * out->n[1] * out->n[2];
	struct lk_view from = lk_view1(out->data, out->dtype, *patches), to = lk_view1(g->on_device, LK_F32, *patches);
	OP(lk_cast(g->dev, &to, &from));
	return lwm_dev_check(g->dev, lk_download(g->dev, g->logits, g->on_device, (size_t)*patches * sizeof *g->logits), e);
}

const float *lwm_patchgan_logits(const struct lwm_patchgan *g)
{
	return g->logits;
}

int lwm_patchgan_back(struct lwm_patchgan *g, const float *slopes, const struct lk_view *dx, float *grads, struct lwm_err *e)
{
	int last = convs_of(&g->c) - 1;
	struct lk_view d = g->stage[last].out;
	int64_t n = d.n[0] * d.n[1] * d.n[2];
	struct lk_view from = lk_view1(g->on_device, LK_F32, n), to = lk_view1(g->work[0], d.dtype, n);
	d.data = g->work[0];
	OP(lk_upload(g->dev, g->on_device, slopes, (size_t)n * sizeof *slopes));
	OP(lk_cast(g->dev, &to, &from));
	for (int i = last; i >= 0; i--) {
		struct stage *s = &g->stage[i];
		struct lk_view in = s->in;
		float *dscale = grads ? grads + s->scale : g->unwanted[0], *dshift = grads ? grads + s->shift : g->unwanted[1];
		float *dw = grads ? grads + s->weight : NULL, *db = grads ? grads + s->bias : NULL;
		in.data = d.data == g->work[0] ? g->work[1] : g->work[0];
		if (i < last)
			OP(lk_leaky_bwd(g->dev, &d, &d, &s->seen, slope));
		if (has_norm(&g->c, i))
			OP(lk_groupnorm_bwd(g->dev, &d, dscale, dshift, &d, &s->out, s->mean, s->rstd, g->weights + s->scale,
					    g->weights + s->shift, groups_of(&g->c, i), eps, 0));
		if (i == 0 && dx)
			in = *dx;
		OP(lk_conv_bwd(g->dev, s->conv, i || dx ? &in : NULL, dw, db, &d, &s->in));
		d = in;
	}
	return 0;
}
