/* conv.c - a convolution on the CPU: what is kept for it, and which way it is computed. */
#include "kernels/cpu/image_int.h"

#include <stdlib.h>

static float *floats(int64_t n)
{
	return aligned_alloc(64, (size_t)lk_round_up((n + 16) * (int64_t)sizeof(float), 64));
}

static void conv_free(struct lk_conv *c)
{
	struct lk_conv_cpu *m = lk_conv_cpu(c);
	if (!m)
		return;
	for (int i = 0; i < m->nbwd; i++)
		free(m->bwd[i].packed);
	free(m->bwd);
	free(m->fwd.packed);
	free(m);
	c->impl = NULL;
}

static int conv_refresh(struct lk_dev *dev, struct lk_conv *c)
{
	struct lk_conv_cpu *m = lk_conv_cpu(c);
	m->bwd_fresh = 0;
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
	m->fwd.packed = floats(lk_conv_plan_floats(&m->fwd, lk_image_gemm(dev)->nr));
	rc = m->fwd.packed ? conv_refresh(dev, c) : lk_fail(dev, LK_ENOMEM, "no memory for a convolution's weights");
	if (rc)
		conv_free(c);
	return rc;
}

/* Plans of the backward: made at the first backward, their weights packed again after each refresh. */
static int prepare_bwd(struct lk_dev *dev, struct lk_conv *c)
{
	struct lk_conv_cpu *m = lk_conv_cpu(c);
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
			p->packed = floats(lk_conv_plan_floats(p, lk_image_gemm(dev)->nr));
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
	return lk_conv_direct(dev, &lk_conv_cpu(c)->fwd, y, x, c->bias, add ? add->data : NULL);
}

static int conv_bwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *dx, float *dw, float *db,
		    const struct lk_view *dy, const struct lk_view *x)
{
	struct lk_conv_cpu *m = lk_conv_cpu(c);
	int rc = dx ? prepare_bwd(dev, c) : LK_OK;
	for (int i = 0; dx && !rc && i < m->nbwd; i++)
		rc = lk_conv_direct(dev, &m->bwd[i], dx, dy, NULL, NULL);
	return rc ? rc : lk_conv_grad(dev, c, dw, db, dy, x);
}

void lk_cpu_fill_conv(struct lk_dev *dev)
{
	dev->ops.conv_new = conv_new;
	dev->ops.conv_refresh = conv_refresh;
	dev->ops.conv_free = conv_free;
	dev->ops.conv_fwd = conv_fwd;
	dev->ops.conv_bwd = conv_bwd;
}
