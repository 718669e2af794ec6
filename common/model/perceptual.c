/* Distance of images in the features of a frozen network. */
#include "common/model/perceptual.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/device.h"

enum { COLOURS = 3, ALIGN = 16 /* floats */ };

/* Of the network as published: what its colours were trained with, on [-1,1]. */
static const float shift[COLOURS] = { -0.030f, -0.088f, -0.188f }, spread[COLOURS] = { 0.458f, 0.448f, 0.450f };

/* What one convolution reads and makes. */
struct stage {
	struct lk_conv *conv;
	const float *head;        /* device; of the last one of a block, else NULL */
	struct lk_view pooled;    /* its input, where pooling made it */
	struct lk_view in, out;   /* of x; out behind the relu */
	struct lk_view seen;      /* out of t, of the last one of a block */
};

struct lwm_perceptual {
	struct lk_dev *dev;
	struct lwm_perceptual_cfg c;
	float *weights;           /* device: 3x3 and 3 of the colours, then as the table says */
	struct lk_conv *colours;
	struct stage stage[LWM_PERCEPTUAL_CONVS];
	struct lk_view x;         /* the images as the network wants them */
	void *work[2];            /* each holds the largest of all */
	int64_t n, h, w;          /* the images that the block is laid out for */
	char *block;
	int64_t block_bytes;
};

static bool ends_block(const struct lwm_perceptual_cfg *c, int i)
{
	return i + 1 == c->convs || c->conv[i + 1].pooled;
}

int lwm_perceptual_tensors(struct lwm_tensors *t, const struct lwm_perceptual_cfg *c, struct lwm_err *e)
{
	char name[64];
	int block = 0;
	*t = (struct lwm_tensors){ .align = ALIGN };
	for (int i = 0; i < c->convs; i++) {
		const struct lwm_perceptual_conv *v = &c->conv[i];
		struct lwm_tensor w = { .name = name, .ndim = 4, .shape = { 3, 3, v->cin, v->cout }, .role = LWM_ROLE_CONV };
		struct lwm_tensor b = { .name = name, .ndim = 1, .shape = { v->cout }, .role = LWM_ROLE_BIAS };
		snprintf(name, sizeof name, "features.%d.weight", v->index);
		LWM_TRY(lwm_tensors_add(t, &w, e));
		snprintf(name, sizeof name, "features.%d.bias", v->index);
		LWM_TRY(lwm_tensors_add(t, &b, e));
	}
	for (int i = 0; i < c->convs; i++) {
		struct lwm_tensor w = { .name = name, .ndim = 1, .shape = { c->conv[i].cout }, .role = LWM_ROLE_SCALE };
		if (!ends_block(c, i))
			continue;
		snprintf(name, sizeof name, "lin%d.model.1.weight", block++);
		LWM_TRY(lwm_tensors_add(t, &w, e));
	}
	return 0;
}

static struct lk_conv_geom geom_of(const struct lwm_perceptual_conv *v)
{
	return (struct lk_conv_geom){ v->cin, v->cout, 3, 3, 1, 1, 1, 1, 1, 1 };
}

static const struct lk_conv_geom colour_geom = { COLOURS, COLOURS, 1, 1, 1, 0, 0, 0, 0, 1 };

int lwm_perceptual_fits(const struct lwm_perceptual_cfg *c, int64_t height, int64_t width, struct lwm_err *e)
{
	int64_t halved = 1;
	for (int i = 0; i < c->convs; i++)
		halved *= c->conv[i].pooled ? 2 : 1;
	if (height >= halved && width >= halved)
		return 0;
	return lwm_fail(e, LWM_ECONFIG, "frames of %" PRId64 " x %" PRId64 " are too small for --perceptual-net, which takes %" PRId64
			" x %" PRId64 " pixels together", width, height, halved, halved);
}

/* ---- memory ---- */

struct carver {
	char *base; /* NULL: sizes only */
	int64_t used, most;
	int dtype;
};

static struct lk_view carve(struct carver *k, int64_t n, int64_t h, int64_t w, int64_t c)
{
	int64_t bytes = lwm_round64(n * h * w * c * (int64_t)lk_dtype_size(k->dtype));
	char *p = k->base ? k->base + k->used : NULL;
	k->used += bytes;
	k->most = bytes > k->most ? bytes : k->most;
	return lk_view4(p, k->dtype, n, h, w, c);
}

/* stage and work may be NULL. Returns the bytes of n images. */
static int64_t lay_out(const struct lwm_perceptual_cfg *c, struct carver *k, int64_t n, int64_t h, int64_t w, struct lk_view *x,
		       struct stage *stage, void **work)
{
	struct lk_view in = carve(k, n, h, w, COLOURS);
	if (x)
		*x = in;
	for (int i = 0; i < c->convs; i++) {
		const struct lwm_perceptual_conv *v = &c->conv[i];
		struct stage s = { 0 };
		if (v->pooled) {
			h /= 2;
			w /= 2;
			in = s.pooled = carve(k, n, h, w, v->cin);
		}
		s.in = in;
		s.out = in = carve(k, n, h, w, v->cout);
		if (ends_block(c, i))
			s.seen = carve(k, n, h, w, v->cout);
		if (stage) {
			stage[i].pooled = s.pooled;
			stage[i].in = s.in;
			stage[i].out = s.out;
			stage[i].seen = s.seen;
		}
	}
	for (int i = 0; i < 2; i++) {
		if (work)
			work[i] = k->base + k->used;
		k->used += k->most;
	}
	return k->used;
}

static int64_t weight_floats(const struct lwm_perceptual_cfg *c)
{
	struct lwm_tensors t;
	int64_t n = lwm_perceptual_tensors(&t, c, NULL) < 0 ? 0 : t.total;
	lwm_tensors_release(&t);
	return n + ALIGN;
}

int64_t lwm_perceptual_memory(const struct lwm_perceptual_cfg *c, int64_t n, int64_t height, int64_t width, int dtype)
{
	struct carver k = { .dtype = dtype };
	return lay_out(c, &k, n, height, width, NULL, NULL, NULL) + weight_floats(c) * (int64_t)sizeof(float);
}

int64_t lwm_perceptual_own(struct lk_dev *dev, const struct lwm_perceptual_cfg *c, int64_t n, int64_t height, int64_t width)
{
	struct lk_own own;
	int64_t scratch = 0, kept = 0;
	for (int i = 0; i < c->convs; i++) {
		struct lk_conv_geom g = geom_of(&c->conv[i]);
		height = c->conv[i].pooled ? height / 2 : height;
		width = c->conv[i].pooled ? width / 2 : width;
		if (lk_conv_own(dev, &g, n, height, width, 1, &own))
			return 0;
		kept += own.kept;
		scratch = own.scratch > scratch ? own.scratch : scratch;
	}
	return kept + scratch;
}

static int prepare(struct lwm_perceptual *p, const struct lk_view *x, struct lwm_err *e)
{
	struct carver sizes = { .dtype = x->dtype };
	int64_t need;
	void *block;
	if (p->n == x->n[0] && p->h == x->n[1] && p->w == x->n[2])
		return 0;
	LWM_TRY(lwm_perceptual_fits(&p->c, x->n[1], x->n[2], e));
	need = lay_out(&p->c, &sizes, x->n[0], x->n[1], x->n[2], NULL, NULL, NULL);
	p->n = 0;
	if (need > p->block_bytes) {
		lk_mem_free(p->dev, p->block);
		p->block = NULL;
		p->block_bytes = 0;
		LWM_TRY(lwm_dev_check(p->dev, lk_mem_alloc(p->dev, (size_t)need, &block), e));
		p->block = block;
		p->block_bytes = need;
	}
	struct carver k = { .base = p->block, .dtype = x->dtype };
	lay_out(&p->c, &k, x->n[0], x->n[1], x->n[2], &p->x, p->stage, p->work);
	p->n = x->n[0];
	p->h = x->n[1];
	p->w = x->n[2];
	return 0;
}

/* ---- life ---- */

#define OP(call) LWM_TRY(lwm_dev_check(p->dev, call, e))

/* (x - shift) / spread of pixels on [-1,1]; of those on [0,1], 2 x - 1 in place of x. */
static int make_colours(struct lwm_perceptual *p, bool unit, struct lwm_err *e)
{
	float host[ALIGN] = { 0 }, *bias = host + COLOURS * COLOURS;
	for (int i = 0; i < COLOURS; i++) {
		host[i * COLOURS + i] = (unit ? 2 : 1) / spread[i];
		bias[i] = ((unit ? -1 : 0) - shift[i]) / spread[i];
	}
	OP(lk_upload(p->dev, p->weights, host, sizeof host));
	return lwm_dev_check(p->dev, lk_conv_new(p->dev, &p->colours, &colour_geom, p->weights, p->weights + COLOURS * COLOURS), e);
}

static int make_convs(struct lwm_perceptual *p, const struct lwm_tensors *t, struct lwm_err *e)
{
	const float *at = p->weights + ALIGN;
	int64_t head = 2 * p->c.convs;
	for (int i = 0; i < p->c.convs; i++) {
		struct lk_conv_geom g = geom_of(&p->c.conv[i]);
		OP(lk_conv_new(p->dev, &p->stage[i].conv, &g, at + t->list[2 * i].offset, at + t->list[2 * i + 1].offset));
		p->stage[i].head = ends_block(&p->c, i) ? at + t->list[head++].offset : NULL;
	}
	return 0;
}

int lwm_perceptual_new(struct lwm_perceptual **out, struct lk_dev *dev, const struct lwm_perceptual_cfg *c, const float *values,
		       bool unit, struct lwm_err *e)
{
	struct lwm_perceptual *p = calloc(1, sizeof *p);
	struct lwm_tensors t = { 0 };
	void *weights = NULL;
	int rc;
	*out = NULL;
	if (!p)
		return lwm_fail_memory(e, NULL);
	p->dev = dev;
	p->c = *c;
	LWM_GO(lwm_perceptual_tensors(&t, c, e));
	LWM_GO(lwm_dev_check(dev, lk_mem_alloc(dev, (size_t)(t.total + ALIGN) * sizeof(float), &weights), e));
	p->weights = weights;
	LWM_GO(lwm_dev_check(dev, lk_upload(dev, p->weights + ALIGN, values, (size_t)t.total * sizeof(float)), e));
	LWM_GO(make_colours(p, unit, e));
	LWM_GO(make_convs(p, &t, e));
	*out = p;
	p = NULL;
out:
	lwm_tensors_release(&t);
	lwm_perceptual_free(p);
	return rc;
}

void lwm_perceptual_free(struct lwm_perceptual *p)
{
	if (!p)
		return;
	for (int i = 0; i < p->c.convs; i++)
		lk_conv_free(p->stage[i].conv);
	lk_conv_free(p->colours);
	lk_mem_free(p->dev, p->weights);
	lk_mem_free(p->dev, p->block);
	free(p);
}

/* ---- passes ---- */

/* The features of x, kept; or of t, of which those that are compared are kept and the others go through the same memory. */
static int forward(struct lwm_perceptual *p, const struct lk_view *images, bool of_t, struct lwm_err *e)
{
	OP(lk_conv_fwd(p->dev, p->colours, &p->x, images, NULL));
	for (int i = 0; i < p->c.convs; i++) {
		struct stage *s = &p->stage[i];
		const struct stage *before = i ? &p->stage[i - 1] : NULL;
		const struct lk_view *from = before && of_t && before->head ? &before->seen : before ? &before->out : &p->x;
		const struct lk_view *out = of_t && s->head ? &s->seen : &s->out;
		if (p->c.conv[i].pooled)
			OP(lk_maxpool_fwd(p->dev, &s->pooled, from));
		OP(lk_conv_fwd(p->dev, s->conv, out, &s->in, NULL));
		OP(lk_leaky_fwd(p->dev, out, out, 0));
	}
	return 0;
}

static struct lk_view view_like(const struct lk_view *v, void *data)
{
	struct lk_view r = *v;
	r.data = data;
	return r;
}

/* *d, the gradient at the output of convolution i, or data NULL: none yet, becomes the one at its input. */
static int back_conv(struct lwm_perceptual *p, int i, struct lk_view *d, float scale, double *loss, struct lwm_err *e)
{
	struct stage *s = &p->stage[i];
	void *other = d->data == p->work[0] ? p->work[1] : p->work[0];
	struct lk_view own = view_like(&s->out, other), dx = view_like(&s->in, other), at;
	double block;
	if (s->head) {
		OP(lk_feature_loss(p->dev, &own, &s->out, &s->seen, s->head, scale, &block));
		*loss += block;
		if (d->data)
			OP(lk_axpy(p->dev, d, 1, &own));
		else
			*d = own;
	}
	OP(lk_leaky_bwd(p->dev, d, d, &s->out, 0));
	dx.data = d->data == p->work[0] ? p->work[1] : p->work[0];
	OP(lk_conv_bwd(p->dev, s->conv, &dx, NULL, NULL, d, &s->in));
	*d = dx;
	if (!p->c.conv[i].pooled)
		return 0;
	at = view_like(&p->stage[i - 1].out, d->data == p->work[0] ? p->work[1] : p->work[0]);
	OP(lk_maxpool_bwd(p->dev, &at, d, &p->stage[i - 1].out));
	*d = at;
	return 0;
}

int lwm_perceptual_loss(struct lwm_perceptual *p, const struct lk_view *x, const struct lk_view *t, const struct lk_view *dx,
			float scale, double *loss, struct lwm_err *e)
{
	struct lk_view d = { .data = NULL }, at;
	double block;
	*loss = 0;
	LWM_TRY(prepare(p, x, e));
	LWM_TRY(forward(p, t, true, e));
	LWM_TRY(forward(p, x, false, e));
	for (int i = 0; !dx && i < p->c.convs; i++) {
		if (!p->stage[i].head)
			continue;
		OP(lk_feature_loss(p->dev, NULL, &p->stage[i].out, &p->stage[i].seen, p->stage[i].head, 1, &block));
		*loss += block;
	}
	if (!dx)
		return 0;
	for (int i = p->c.convs - 1; i >= 0; i--)
		LWM_TRY(back_conv(p, i, &d, scale, loss, e));
	at = view_like(x, d.data == p->work[0] ? p->work[1] : p->work[0]);
	OP(lk_conv_bwd(p->dev, p->colours, &at, NULL, NULL, &d, x));
	return lwm_dev_check(p->dev, lk_axpy(p->dev, dx, 1, &at), e);
}
