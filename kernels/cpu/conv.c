/* conv.c - a convolution on the CPU: what is kept for it, and which way it is computed.
 *
 * 3x3 of stride 1 goes to conv_wino.c (Winograd), every other geometry to conv_direct.c (gather and multiply); the gradient of the
 * input is a convolution again, whose weights are packed at the first backward. Gradients of weights are in conv_grad.c. */
#include "kernels/cpu/image_int.h"

#include <stdlib.h>

static float *floats(int64_t n)
{
	return aligned_alloc(64, (size_t)lk_round_up((n + 16) * (int64_t)sizeof(float), 64));
}

static void conv_free(struct lk_conv *c)
{
	struct lk_conv_cpu *m = lk_conv_cpu_of(c);
	if (!m)
		return;
	for (int i = 0; i < m->nbwd; i++)
		free(m->bwd[i].packed);
	free(m->bwd);
	free(m->fwd.packed);
	lk_conv_wino_free(m->wino_fwd);
	lk_conv_wino_free(m->wino_bwd);
	free(m);
	c->impl = NULL;
}

static int conv_refresh(struct lk_dev *dev, struct lk_conv *c)
{
	struct lk_conv_cpu *m = lk_conv_cpu_of(c);
	m->bwd_fresh = 0;
	if (m->wino_fwd)
		return lk_conv_wino_pack(dev, m->wino_fwd, c->w, 0);
	return lk_conv_plan_pack(dev, &m->fwd, &c->g, c->w, 0);
}

static int conv_new(struct lk_dev *dev, struct lk_conv *c)
{
	struct lk_conv_cpu *m = calloc(1, sizeof *m);
	int rc;
	c->impl = m;
	if (!m)
		return lk_fail(dev, LK_ENOMEM, "no memory for a convolution");
	lk_conv_plan_fwd(&m->fwd, &c->g);
	if (lk_conv_wino_fits(&c->g))
		m->wino_fwd = lk_conv_wino_new(dev, &c->g, 0);
	else
		m->fwd.packed = floats(lk_conv_plan_floats(&m->fwd, lk_image_gemm_of(dev)->nr));
	rc = m->wino_fwd || m->fwd.packed ? conv_refresh(dev, c) : lk_fail(dev, LK_ENOMEM, "no memory for a convolution's weights");
	if (rc)
		conv_free(c);
	return rc;
}

static int prepare_wino(struct lk_dev *dev, struct lk_conv *c)
{
	struct lk_conv_cpu *m = lk_conv_cpu_of(c);
	if (!m->wino_bwd)
		m->wino_bwd = lk_conv_wino_new(dev, &c->g, 1);
	if (!m->wino_bwd)
		return lk_fail(dev, LK_ENOMEM, "no memory for a convolution's turned weights");
	int rc = m->bwd_fresh ? LK_OK : lk_conv_wino_pack(dev, m->wino_bwd, c->w, 1);
	m->bwd_fresh = !rc;
	return rc;
}

/* Plans of the backward: made at the first backward, their weights packed again after each refresh. */
static int prepare_plans(struct lk_dev *dev, struct lk_conv *c)
{
	struct lk_conv_cpu *m = lk_conv_cpu_of(c);
	int os = lk_conv_plan_steps(&c->g);
	if (!m->bwd) {
		m->bwd = calloc((size_t)(os * os), sizeof *m->bwd);
		if (!m->bwd)
			return lk_fail(dev, LK_ENOMEM, "no memory for a convolution's backward");
		m->nbwd = os * os;
	}
	for (int i = 0; i < m->nbwd && !m->bwd_fresh; i++) {
		struct lk_conv_plan *p = &m->bwd[i];
		if (!p->packed) {
			lk_conv_plan_bwd(p, &c->g, i / os, i % os);
			p->packed = floats(lk_conv_plan_floats(p, lk_image_gemm_of(dev)->nr));
			if (!p->packed)
				return lk_fail(dev, LK_ENOMEM, "no memory for a convolution's turned weights");
		}
		int rc = lk_conv_plan_pack(dev, p, &c->g, c->w, 1);
		if (rc)
			return rc;
	}
	m->bwd_fresh = 1;
	return LK_OK;
}

static int conv_fwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *y, const struct lk_view *x,
		    const struct lk_view *add)
{
	struct lk_conv_cpu *m = lk_conv_cpu_of(c);
	const float *more = add ? add->data : NULL;
	if (m->wino_fwd)
		return lk_conv_wino_run(dev, m->wino_fwd, y, x, c->bias, more);
	return lk_conv_direct(dev, &m->fwd, y, x, c->bias, more);
}

/* Is the gradient of the input one by Winograd too? */
static int turned_fits(const struct lk_conv_geom *g)
{
	struct lk_conv_geom turned = *g;
	turned.cin = g->cout;
	turned.cout = g->cin;
	return lk_conv_wino_fits(&turned) && g->upsample == 1;
}

static int input_grad(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *dx, const struct lk_view *dy)
{
	struct lk_conv_cpu *m = lk_conv_cpu_of(c);
	if (turned_fits(&c->g)) {
		int rc = prepare_wino(dev, c);
		return rc ? rc : lk_conv_wino_run(dev, m->wino_bwd, dx, dy, NULL, NULL);
	}
	int rc = prepare_plans(dev, c);
	for (int i = 0; !rc && i < m->nbwd; i++)
		rc = lk_conv_direct(dev, &m->bwd[i], dx, dy, NULL, NULL);
	return rc;
}

static int conv_bwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *dx, float *dw, float *db,
		    const struct lk_view *dy, const struct lk_view *x)
{
	int rc = dx ? input_grad(dev, c, dx, dy) : LK_OK;
	return rc ? rc : lk_conv_grad(dev, c, dw, db, dy, x);
}

/* ---- sizes: each step below asks for its scratch first, and gets none ---- */

static int64_t wino_bytes(const struct lk_conv_wino *k)
{
	return 36 * k->us * (int64_t)sizeof *k->u;
}

/* What the gradient of the input keeps. */
static int64_t size_input_grad(struct lk_dev *dev, const struct lk_conv_geom *g, const struct lk_view *x, const struct lk_view *y)
{
	int os = lk_conv_plan_steps(g);
	int64_t kept = 0;
	if (turned_fits(g)) {
		struct lk_conv_wino k = lk_conv_wino_shape(dev, g, 1);
		lk_conv_wino_pack(dev, &k, NULL, 1);
		lk_conv_wino_run(dev, &k, x, y, NULL, NULL);
		return wino_bytes(&k);
	}
	for (int i = 0; i < os * os; i++) {
		struct lk_conv_plan p;
		lk_conv_plan_bwd(&p, g, i / os, i % os);
		kept += lk_conv_plan_floats(&p, lk_image_gemm_of(dev)->nr) * (int64_t)sizeof(float);
		lk_conv_plan_pack(dev, &p, g, NULL, 1);
		lk_conv_direct(dev, &p, x, y, NULL, NULL);
	}
	return kept;
}

static int conv_own(struct lk_dev *dev, const struct lk_conv_geom *g, int64_t n, int64_t h, int64_t w, int back, struct lk_own *own)
{
	int64_t oh = (h * g->upsample + g->pad_top + g->pad_bottom - g->kh) / g->stride + 1;
	int64_t ow = (w * g->upsample + g->pad_left + g->pad_right - g->kw) / g->stride + 1;
	struct lk_view x = lk_view4(NULL, LK_F32, n, h, w, g->cin), y = lk_view4(NULL, LK_F32, n, oh, ow, g->cout);
	struct lk_conv_wino wino = lk_conv_wino_shape(dev, g, 0);
	struct lk_conv_cpu m = { .wino_fwd = lk_conv_wino_fits(g) ? &wino : NULL };
	struct lk_conv c = { .dev = dev, .g = *g, .impl = &m };
	float dw;
	size_t most;

	lk_conv_plan_fwd(&m.fwd, g);
	own->kept = m.wino_fwd ? wino_bytes(&wino)
			       : lk_conv_plan_floats(&m.fwd, lk_image_gemm_of(dev)->nr) * (int64_t)sizeof(float);
	lk_cpu_sizing(dev, &most);
	conv_fwd(dev, &c, &y, &x, NULL);
	if (back) {
		own->kept += size_input_grad(dev, g, &x, &y);
		lk_conv_grad(dev, &c, &dw, NULL, &y, &x);
	}
	lk_cpu_sized(dev);
	own->scratch = (int64_t)most;
	return LK_OK;
}

void lk_cpu_fill_conv(struct lk_ops *o)
{
	o->image.conv_own = conv_own;
	o->image.conv_new = conv_new;
	o->image.conv_refresh = conv_refresh;
	o->image.conv_free = conv_free;
	o->image.conv_fwd = conv_fwd;
	o->image.conv_bwd = conv_bwd;
}
