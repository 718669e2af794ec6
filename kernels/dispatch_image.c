/* dispatch_image.c - image.h: each op checks its arguments and calls the backend. */
#include <inttypes.h>
#include <stdlib.h>

#include "kernels/check.h"

static const unsigned F32 = 1u << LK_F32;

/* ---- convolution ---- */

static void check_geometry(struct lk_check *k, const struct lk_conv_geom *g)
{
	const int32_t most = 1 << 20;

	LK_WANT(k, g, "the geometry is NULL");
	LK_WANT(k, g->cin > 0 && g->cin < most && g->cout > 0 && g->cout < most, "%d to %d channels", g->cin, g->cout);
	LK_WANT(k, g->kh > 0 && g->kh < 1024 && g->kw > 0 && g->kw < 1024 && g->stride > 0 && g->stride < 1024,
		"window %d x %d, stride %d", g->kh, g->kw, g->stride);
	LK_WANT(k, g->pad_top >= 0 && g->pad_left >= 0 && g->pad_bottom >= 0 && g->pad_right >= 0 &&
		g->pad_top < 1024 && g->pad_left < 1024 && g->pad_bottom < 1024 && g->pad_right < 1024,
		"padding %d, %d, %d, %d", g->pad_top, g->pad_left, g->pad_bottom, g->pad_right);
	LK_WANT(k, g->upsample == 1 || g->upsample == 2, "upsample is %d, not 1 or 2", g->upsample);
}

int lk_conv_new(struct lk_dev *dev, struct lk_conv **out, const struct lk_conv_geom *g, const float *w,
		const float *bias)
{
	struct lk_check k = { dev, "conv_new", 0 };
	struct lk_conv *c;

	*out = NULL;
	check_geometry(&k, g);
	lk_check_ptr(&k, "w", w, 1);
	lk_check_ptr(&k, "bias", bias, 1);
	if (k.rc)
		return k.rc;
	c = calloc(1, sizeof *c);
	if (!c)
		return lk_fail(dev, LK_ENOMEM, "conv_new: out of memory");
	c->dev = dev;
	c->g = *g;
	c->w = w;
	c->bias = bias;
	k.rc = LK_CALL(dev, image, conv_new, dev, c);
	if (k.rc) {
		free(c);
		return k.rc;
	}
	*out = c;
	return 0;
}

int lk_conv_own(struct lk_dev *dev, const struct lk_conv_geom *g, int64_t n, int64_t h, int64_t w, int back, struct lk_own *own)
{
	struct lk_check k = { dev, "conv_own", 0 };

	*own = (struct lk_own){ 0, 0 };
	check_geometry(&k, g);
	LK_WANT(&k, n > 0 && h > 0 && w > 0, "%" PRId64 " images of %" PRId64 " x %" PRId64, n, w, h);
	if (k.rc)
		return k.rc;
	return LK_CALL(dev, image, conv_own, dev, g, n, h, w, back, own);
}

int lk_conv_refresh(struct lk_dev *dev, struct lk_conv *c)
{
	return LK_CALL(dev, image, conv_refresh, dev, c);
}

void lk_conv_free(struct lk_conv *c)
{
	if (!c)
		return;
	if (c->dev->ops.image.conv_free)
		c->dev->ops.image.conv_free(c);
	free(c);
}

/* x (N,H,W,cin) and y (N,H',W',cout) fit the geometry */
static void check_images(struct lk_check *k, const struct lk_conv_geom *g, const struct lk_view *x, const char *xname,
			 const struct lk_view *y, const char *yname)
{
	int64_t h, w;

	lk_check_view(k, xname, x, 4, lk_act(k->dev), LK_DENSE);
	lk_check_view(k, yname, y, 4, lk_act(k->dev), LK_DENSE);
	if (k->rc)
		return;
	h = x->n[1] * g->upsample + g->pad_top + g->pad_bottom - g->kh;
	w = x->n[2] * g->upsample + g->pad_left + g->pad_right - g->kw;
	LK_WANT(k, h >= 0 && w >= 0, "the window is larger than the padded %" PRId64 " x %" PRId64 " image", x->n[1], x->n[2]);
	LK_WANT(k, x->n[3] == g->cin && y->n[3] == g->cout, "%s has %" PRId64 " channels and %s %" PRId64 ", not %d and %d", xname,
		x->n[3], yname, y->n[3], g->cin, g->cout);
	LK_WANT(k, y->n[0] == x->n[0] && y->n[1] == h / g->stride + 1 && y->n[2] == w / g->stride + 1,
		"%s must be (%" PRId64 ",%" PRId64 ",%" PRId64 ",%d) for this %s", yname, x->n[0], h / g->stride + 1,
		w / g->stride + 1, g->cout, xname);
}

int lk_conv_fwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *y, const struct lk_view *x,
		const struct lk_view *add)
{
	struct lk_check k = { dev, "conv_fwd", 0 };

	LK_WANT(&k, c, "the convolution is NULL");
	if (!k.rc)
		check_images(&k, &c->g, x, "x", y, "y");
	if (add) {
		lk_check_view(&k, "add", add, 4, lk_act(dev), LK_DENSE);
		LK_WANT(&k, lk_same(add, y), "add and y differ in shape");
	}
	if (!k.rc)
		lk_check_apart(&k, "y", y, "x", x);
	if (k.rc || !lk_count(y))
		return k.rc;
	return LK_CALL(dev, image, conv_fwd, dev, c, y, x, add);
}

int lk_conv_bwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *dx, float *dw, float *db,
		const struct lk_view *dy, const struct lk_view *x)
{
	struct lk_check k = { dev, "conv_bwd", 0 };

	LK_WANT(&k, c, "the convolution is NULL");
	if (!k.rc)
		check_images(&k, &c->g, x, "x", dy, "dy");
	if (dx) {
		lk_check_view(&k, "dx", dx, 4, lk_act(dev), LK_DENSE);
		LK_WANT(&k, lk_same(dx, x), "dx and x differ in shape");
		if (!k.rc)
			lk_check_apart(&k, "dx", dx, "dy", dy);
		if (!k.rc)
			lk_check_apart(&k, "dx", dx, "x", x);
	}
	if (k.rc || !lk_count(dy))
		return k.rc;
	return LK_CALL(dev, image, conv_bwd, dev, c, dx, dw, db, dy, x);
}

/* ---- other image ops ---- */

static void check_groups(struct lk_check *k, const struct lk_view *x, const float *mean, const float *rstd,
			 const float *scale, const float *bias, int groups)
{
	lk_check_view(k, "x", x, 4, lk_act(k->dev), LK_DENSE);
	LK_WANT(k, groups > 0 && x->n[3] % groups == 0, "%" PRId64 " channels do not divide into %d groups", x->n[3],
		groups);
	if (k->rc)
		return;
	lk_check_ptr(k, "mean", mean, x->n[0]);
	lk_check_ptr(k, "rstd", rstd, x->n[0]);
	lk_check_ptr(k, "scale", scale, x->n[3]);
	lk_check_ptr(k, "bias", bias, x->n[3]);
}

int lk_groupnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *mean, float *rstd, const struct lk_view *x,
		     const float *scale, const float *bias, int groups, float eps, int silu)
{
	struct lk_check k = { dev, "groupnorm_fwd", 0 };

	check_groups(&k, x, mean, rstd, scale, bias, groups);
	lk_check_view(&k, "y", y, 4, lk_act(dev), LK_DENSE);
	LK_WANT(&k, lk_same(y, x), "y and x differ in shape");
	LK_WANT(&k, eps >= 0, "eps is %g", (double)eps);
	if (k.rc || !lk_count(x))
		return k.rc;
	return LK_CALL(dev, image, groupnorm_fwd, dev, y, mean, rstd, x, scale, bias, groups, eps, silu);
}

int lk_groupnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dscale, float *dbias,
		     const struct lk_view *dy, const struct lk_view *x, const float *mean, const float *rstd,
		     const float *scale, const float *bias, int groups, float eps, int silu)
{
	struct lk_check k = { dev, "groupnorm_bwd", 0 };

	check_groups(&k, x, mean, rstd, scale, bias, groups);
	lk_check_view(&k, "dx", dx, 4, lk_act(dev), LK_DENSE);
	lk_check_view(&k, "dy", dy, 4, lk_act(dev), LK_DENSE);
	LK_WANT(&k, lk_same(dx, x) && lk_same(dy, x), "dx, dy, x differ in shape");
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "dscale", dscale, x->n[3]);
	lk_check_ptr(&k, "dbias", dbias, x->n[3]);
	lk_check_apart(&k, "dx", dx, "x", x);
	if (k.rc || !lk_count(x))
		return k.rc;
	return LK_CALL(dev, image, groupnorm_bwd, dev, dx, dscale, dbias, dy, x, mean, rstd, scale, bias, groups, eps, silu);
}

int lk_leaky_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, float slope)
{
	struct lk_check k = { dev, "leaky_fwd", 0 };

	lk_check_view(&k, "y", y, LK_ANY, lk_act(dev), LK_DENSE);
	lk_check_view(&k, "x", x, LK_ANY, lk_act(dev), LK_DENSE);
	LK_WANT(&k, lk_count(y) == lk_count(x), "y has %" PRId64 " elements, x %" PRId64, lk_count(y), lk_count(x));
	LK_WANT(&k, y->dtype == x->dtype, "y and x differ in type");
	LK_WANT(&k, slope >= 0 && slope <= 1, "a slope of %g is not from 0 to 1", (double)slope);
	if (k.rc || !lk_count(x))
		return k.rc;
	return LK_CALL(dev, image, leaky_fwd, dev, y, x, slope);
}

int lk_leaky_bwd(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *y, float slope)
{
	struct lk_check k = { dev, "leaky_bwd", 0 };

	lk_check_view(&k, "dx", dx, LK_ANY, lk_act(dev), LK_DENSE);
	lk_check_view(&k, "dy", dy, LK_ANY, lk_act(dev), LK_DENSE);
	lk_check_view(&k, "y", y, LK_ANY, lk_act(dev), LK_DENSE);
	LK_WANT(&k, lk_count(dx) == lk_count(y) && lk_count(dy) == lk_count(y), "dx, dy, y differ in size");
	LK_WANT(&k, dx->dtype == y->dtype && dy->dtype == y->dtype, "dx, dy, y differ in type");
	LK_WANT(&k, slope >= 0 && slope <= 1, "a slope of %g is not from 0 to 1", (double)slope);
	if (k.rc || !lk_count(y))
		return k.rc;
	return LK_CALL(dev, image, leaky_bwd, dev, dx, dy, y, slope);
}

/* y (N,H/2,W/2,C) of x (N,H,W,C) */
static void check_pooled(struct lk_check *k, const struct lk_view *x, const char *xname, const struct lk_view *y, const char *yname)
{
	lk_check_view(k, xname, x, 4, lk_act(k->dev), LK_DENSE);
	lk_check_view(k, yname, y, 4, lk_act(k->dev), LK_DENSE);
	LK_WANT(k, x->n[1] > 1 && x->n[2] > 1, "%s has %" PRId64 " x %" PRId64 " pixels, too few to pool", xname, x->n[1], x->n[2]);
	LK_WANT(k, y->n[0] == x->n[0] && y->n[1] == x->n[1] / 2 && y->n[2] == x->n[2] / 2 && y->n[3] == x->n[3],
		"%s must be (%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ") for this %s", yname, x->n[0], x->n[1] / 2, x->n[2] / 2,
		x->n[3], xname);
	LK_WANT(k, x->dtype == y->dtype, "%s and %s differ in type", xname, yname);
	if (!k->rc)
		lk_check_apart(k, yname, y, xname, x);
}

int lk_maxpool_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	struct lk_check k = { dev, "maxpool_fwd", 0 };

	check_pooled(&k, x, "x", y, "y");
	if (k.rc || !lk_count(y))
		return k.rc;
	return LK_CALL(dev, image, maxpool_fwd, dev, y, x);
}

int lk_maxpool_bwd(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *x)
{
	struct lk_check k = { dev, "maxpool_bwd", 0 };

	check_pooled(&k, x, "x", dy, "dy");
	lk_check_view(&k, "dx", dx, 4, lk_act(dev), LK_DENSE);
	LK_WANT(&k, lk_same(dx, x) && dx->dtype == x->dtype, "dx and x differ in shape or type");
	if (!k.rc)
		lk_check_apart(&k, "dx", dx, "dy", dy);
	if (!k.rc)
		lk_check_apart(&k, "dx", dx, "x", x);
	if (k.rc || !lk_count(dy))
		return k.rc;
	return LK_CALL(dev, image, maxpool_bwd, dev, dx, dy, x);
}

int lk_nearest_code(struct lk_dev *dev, int32_t *idx, const struct lk_view *z, const struct lk_view *codebook)
{
	struct lk_check k = { dev, "nearest_code", 0 };

	lk_check_view(&k, "z", z, 2, lk_act(dev), 0);
	lk_check_view(&k, "codebook", codebook, 2, F32, 0);
	LK_WANT(&k, codebook->n[0] > 0 && codebook->n[0] <= INT32_MAX && z->n[1] == codebook->n[1],
		"z is (%" PRId64 ",%" PRId64 "), the codebook (%" PRId64 ",%" PRId64 ")", z->n[0], z->n[1], codebook->n[0],
		codebook->n[1]);
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "idx", idx, z->n[0]);
	if (k.rc || !z->n[0])
		return k.rc;
	return LK_CALL(dev, image, nearest_code, dev, idx, z, codebook);
}

int lk_pixels(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	struct lk_check k = { dev, "pixels", 0 };
	unsigned any = lk_act(dev) | 1u << LK_U8;

	lk_check_view(&k, "y", y, LK_ANY, any, LK_DENSE);
	lk_check_view(&k, "x", x, LK_ANY, any, LK_DENSE);
	LK_WANT(&k, (y->dtype == LK_U8) != (x->dtype == LK_U8), "exactly one of x, y must be 8-bit");
	LK_WANT(&k, lk_count(y) == lk_count(x), "y has %" PRId64 " elements, x %" PRId64, lk_count(y), lk_count(x));
	if (!k.rc)
		lk_check_apart(&k, "y", y, "x", x);
	if (k.rc || !lk_count(y))
		return k.rc;
	return LK_CALL(dev, image, pixels, dev, y, x);
}

int lk_recon_loss(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
		  float w1, float w2, double *host_out)
{
	struct lk_check k = { dev, "recon_loss", 0 };

	lk_check_view(&k, "x", x, LK_ANY, lk_act(dev), LK_DENSE);
	lk_check_view(&k, "t", t, LK_ANY, lk_act(dev), LK_DENSE);
	if (dx)
		lk_check_view(&k, "dx", dx, LK_ANY, lk_act(dev), LK_DENSE);
	LK_WANT(&k, lk_count(x) > 0, "there is nothing to compare");
	LK_WANT(&k, lk_count(t) == lk_count(x) && (!dx || lk_count(dx) == lk_count(x)), "x, t, dx differ in size");
	lk_check_ptr(&k, "host_out", host_out, 2);
	if (k.rc)
		return k.rc;
	return LK_CALL(dev, image, recon_loss, dev, dx, x, t, w1, w2, host_out);
}

int lk_feature_loss(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
		    const float *weight, float scale, double *host_out)
{
	struct lk_check k = { dev, "feature_loss", 0 };

	lk_check_view(&k, "x", x, 4, lk_act(dev), LK_DENSE);
	lk_check_view(&k, "t", t, 4, lk_act(dev), LK_DENSE);
	if (dx)
		lk_check_view(&k, "dx", dx, 4, lk_act(dev), LK_DENSE);
	LK_WANT(&k, lk_count(x) > 0, "there is nothing to compare");
	LK_WANT(&k, lk_same(t, x) && (!dx || lk_same(dx, x)), "x, t, dx differ in shape");
	LK_WANT(&k, t->dtype == x->dtype && (!dx || dx->dtype == x->dtype), "x, t, dx differ in type");
	if (k.rc)
		return k.rc;
	if (dx)
		lk_check_apart(&k, "dx", dx, "t", t);
	lk_check_ptr(&k, "weight", weight, x->n[3]);
	lk_check_ptr(&k, "host_out", host_out, 1);
	if (k.rc)
		return k.rc;
	return LK_CALL(dev, image, feature_loss, dev, dx, x, t, weight, scale, host_out);
}
