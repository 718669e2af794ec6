/* dispatch_nn.c - attention and image ops: each checks its arguments and calls the backend. */
#include <math.h>
#include <stdlib.h>

#include "kernels/check.h"

#define LL(x) ((long long)(x))

static const unsigned F32 = 1u << LK_F32;

/* ---- attention ---- */

static void check_state(struct lk_check *k, const struct lk_attn_state *st, int64_t tq)
{
	LK_WANT(k, st, "the state is NULL");
	if (k->rc)
		return;
	lk_check_ptr(k, "state.m", st->m, tq);
	lk_check_ptr(k, "state.l", st->l, tq);
	lk_check_ptr(k, "state.acc", st->acc, tq);
}

/* few: k and v may be a cache's */
static void check_attn(struct lk_check *k, const struct lk_attn *a, int few)
{
	const struct lk_view *q = &a->q, *key = &a->k;
	unsigned kv = lk_act(k->dev) | (few ? 1u << LK_BF16 | 1u << LK_I8 : 0);

	lk_check_view(k, "q", q, 3, lk_act(k->dev), 0);
	lk_check_view(k, "k", key, 3, kv, 0);
	lk_check_view(k, "v", &a->v, 3, kv, 0);
	LK_WANT(k, lk_same(key, &a->v), "k and v differ in shape");
	LK_WANT(k, key->dtype == a->v.dtype && (q->dtype == key->dtype || (few && key->dtype != LK_F32)),
		"q, k, v differ in element type");
	LK_WANT(k, q->dtype == key->dtype || q->n[0] <= LK_ATTN_FEW,
		"keys in fewer bits than queries are for at most %d queries, not %lld", LK_ATTN_FEW, LL(q->n[0]));
	LK_WANT(k, key->dtype != LK_I8 || (a->k_scale && a->v_scale && a->scale_stride >= key->n[1]),
		"8-bit keys and values need their scales");
	LK_WANT(k, q->n[1] > 0 && q->n[2] > 0 && key->n[1] > 0, "q (%lld,%lld,%lld) has no heads or no elements",
		LL(q->n[0]), LL(q->n[1]), LL(q->n[2]));
	LK_WANT(k, key->n[2] == q->n[2], "heads of q have %lld elements, of k %lld", LL(q->n[2]), LL(key->n[2]));
	LK_WANT(k, q->n[1] % key->n[1] == 0, "%lld query heads cannot share %lld key heads", LL(q->n[1]),
		LL(key->n[1]));
	LK_WANT(k, a->qs && a->ks, "a sequence is NULL");
	LK_WANT(k, a->qs->n == q->n[0] && a->ks->n == key->n[0],
		"the sequences have %lld and %lld tokens, q and k %lld and %lld", LL(a->qs->n), LL(a->ks->n),
		LL(q->n[0]), LL(key->n[0]));
	LK_WANT(k, isfinite(a->scale), "the scale is not finite");
}

int lk_attn_begin(struct lk_dev *dev, const struct lk_attn_state *st, int64_t tq, int64_t h, int64_t d)
{
	struct lk_check k = { dev, "attn_begin", 0 };

	LK_WANT(&k, tq >= 0 && h > 0 && d > 0, "shape (%lld,%lld,%lld)", LL(tq), LL(h), LL(d));
	check_state(&k, st, tq);
	if (k.rc || !tq)
		return k.rc;
	return LK_CALL(dev, attn_begin, dev, st, tq, h, d);
}

int lk_attn_fwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st)
{
	struct lk_check k = { dev, "attn_fwd", 0 };

	check_attn(&k, a, 1);
	check_state(&k, st, k.rc ? 0 : a->q.n[0]);
	if (k.rc || !a->q.n[0] || !a->k.n[0])
		return k.rc;
	return LK_CALL(dev, attn_fwd, dev, a, st);
}

int lk_attn_end(struct lk_dev *dev, const struct lk_view *o, float *lse, const struct lk_attn_state *st)
{
	struct lk_check k = { dev, "attn_end", 0 };

	lk_check_view(&k, "o", o, 3, lk_act(dev), 0);
	check_state(&k, st, k.rc ? 0 : o->n[0]);
	if (!k.rc)
		lk_check_ptr(&k, "lse", lse, o->n[0]);
	if (k.rc || !lk_count(o))
		return k.rc;
	return LK_CALL(dev, attn_end, dev, o, lse, st);
}

int lk_attn_once(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse)
{
	struct lk_check k = { dev, "attn_once", 0 };

	check_attn(&k, a, 1);
	lk_check_view(&k, "o", o, 3, lk_act(dev), 0);
	LK_WANT(&k, lk_same(o, &a->q), "o and q differ in shape");
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "lse", lse, o->n[0]);
	lk_check_apart(&k, "o", o, "q", &a->q);
	lk_check_apart(&k, "o", o, "k", &a->k);
	lk_check_apart(&k, "o", o, "v", &a->v);
	if (k.rc || !lk_count(o))
		return k.rc;
	return LK_CALL(dev, attn_once, dev, a, o, lse);
}

int lk_attn_delta(struct lk_dev *dev, float *delta, const struct lk_view *o, const struct lk_view *dout)
{
	struct lk_check k = { dev, "attn_delta", 0 };

	lk_check_view(&k, "o", o, 3, lk_act(dev), 0);
	lk_check_view(&k, "dout", dout, 3, lk_act(dev), 0);
	LK_WANT(&k, lk_same(o, dout), "o and dout differ in shape");
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "delta", delta, o->n[0]);
	if (k.rc || !lk_count(o))
		return k.rc;
	return LK_CALL(dev, attn_delta, dev, delta, o, dout);
}

int lk_attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
		const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv)
{
	struct lk_check k = { dev, "attn_bwd", 0 };

	check_attn(&k, a, 0);
	lk_check_view(&k, "dout", dout, 3, lk_act(dev), 0);
	lk_check_view(&k, "dq", dq, 3, F32, 0);
	lk_check_view(&k, "dk", dk, 3, F32, 0);
	lk_check_view(&k, "dv", dv, 3, F32, 0);
	LK_WANT(&k, lk_same(dout, &a->q) && lk_same(dq, &a->q), "dout and dq must have the shape of q");
	LK_WANT(&k, lk_same(dk, &a->k) && lk_same(dv, &a->k), "dk and dv must have the shape of k");
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "lse", lse, dq->n[0]);
	lk_check_ptr(&k, "delta", delta, dq->n[0]);
	lk_check_apart(&k, "dq", dq, "dk", dk);
	lk_check_apart(&k, "dq", dq, "dv", dv);
	lk_check_apart(&k, "dk", dk, "dv", dv);
	if (k.rc || !lk_count(dq) || !lk_count(dk))
		return k.rc;
	return LK_CALL(dev, attn_bwd, dev, a, dout, lse, delta, dq, dk, dv);
}

int lk_attn_merge(struct lk_dev *dev, float *o, float *lse, const float *o2, const float *lse2, int64_t tq, int64_t h,
		  int64_t d)
{
	struct lk_check k = { dev, "attn_merge", 0 };

	LK_WANT(&k, tq >= 0 && h > 0 && d > 0, "shape (%lld,%lld,%lld)", LL(tq), LL(h), LL(d));
	lk_check_ptr(&k, "o", o, tq);
	lk_check_ptr(&k, "lse", lse, tq);
	lk_check_ptr(&k, "o2", o2, tq);
	lk_check_ptr(&k, "lse2", lse2, tq);
	LK_WANT(&k, !tq || (o != o2 && lse != lse2), "the two partial results are the same memory");
	if (k.rc || !tq)
		return k.rc;
	return LK_CALL(dev, attn_merge, dev, o, lse, o2, lse2, tq, h, d);
}

int lk_attn_own(struct lk_dev *dev, int64_t n, int64_t heads, int64_t kv_heads, int64_t head_dim, int back, struct lk_own *own)
{
	struct lk_check k = { dev, "attn_own", 0 };

	*own = (struct lk_own){ 0, 0 };
	LK_WANT(&k, n > 0 && n <= INT32_MAX && kv_heads > 0 && heads > 0 && heads % kv_heads == 0 && head_dim > 0,
		"%lld tokens of %lld heads, %lld key heads of %lld", LL(n), LL(heads), LL(kv_heads), LL(head_dim));
	if (k.rc)
		return k.rc;
	return LK_CALL(dev, attn_own, dev, n, heads, kv_heads, head_dim, back, own);
}

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
	k.rc = LK_CALL(dev, conv_new, dev, c);
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
	LK_WANT(&k, n > 0 && h > 0 && w > 0, "%lld images of %lld x %lld", LL(n), LL(w), LL(h));
	if (k.rc)
		return k.rc;
	return LK_CALL(dev, conv_own, dev, g, n, h, w, back, own);
}

int lk_conv_refresh(struct lk_dev *dev, struct lk_conv *c)
{
	return LK_CALL(dev, conv_refresh, dev, c);
}

void lk_conv_free(struct lk_conv *c)
{
	if (!c)
		return;
	if (c->dev->ops.conv_free)
		c->dev->ops.conv_free(c);
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
	LK_WANT(k, h >= 0 && w >= 0, "the window is larger than the padded %lld x %lld image", LL(x->n[1]), LL(x->n[2]));
	LK_WANT(k, x->n[3] == g->cin && y->n[3] == g->cout, "%s has %lld channels and %s %lld, not %d and %d", xname,
		LL(x->n[3]), yname, LL(y->n[3]), g->cin, g->cout);
	LK_WANT(k, y->n[0] == x->n[0] && y->n[1] == h / g->stride + 1 && y->n[2] == w / g->stride + 1,
		"%s must be (%lld,%lld,%lld,%d) for this %s", yname, LL(x->n[0]), LL(h / g->stride + 1),
		LL(w / g->stride + 1), g->cout, xname);
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
	return LK_CALL(dev, conv_fwd, dev, c, y, x, add);
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
	return LK_CALL(dev, conv_bwd, dev, c, dx, dw, db, dy, x);
}

/* ---- other image ops ---- */

static void check_groups(struct lk_check *k, const struct lk_view *x, const float *mean, const float *rstd,
			 const float *scale, const float *bias, int groups)
{
	lk_check_view(k, "x", x, 4, lk_act(k->dev), LK_DENSE);
	LK_WANT(k, groups > 0 && x->n[3] % groups == 0, "%lld channels do not divide into %d groups", LL(x->n[3]),
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
	return LK_CALL(dev, groupnorm_fwd, dev, y, mean, rstd, x, scale, bias, groups, eps, silu);
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
	return LK_CALL(dev, groupnorm_bwd, dev, dx, dscale, dbias, dy, x, mean, rstd, scale, bias, groups, eps, silu);
}

int lk_nearest_code(struct lk_dev *dev, int32_t *idx, const struct lk_view *z, const struct lk_view *codebook)
{
	struct lk_check k = { dev, "nearest_code", 0 };

	lk_check_view(&k, "z", z, 2, lk_act(dev), 0);
	lk_check_view(&k, "codebook", codebook, 2, F32, 0);
	LK_WANT(&k, codebook->n[0] > 0 && codebook->n[0] <= INT32_MAX && z->n[1] == codebook->n[1],
		"z is (%lld,%lld), the codebook (%lld,%lld)", LL(z->n[0]), LL(z->n[1]), LL(codebook->n[0]),
		LL(codebook->n[1]));
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "idx", idx, z->n[0]);
	if (k.rc || !z->n[0])
		return k.rc;
	return LK_CALL(dev, nearest_code, dev, idx, z, codebook);
}

int lk_pixels(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	struct lk_check k = { dev, "pixels", 0 };
	unsigned any = lk_act(dev) | 1u << LK_U8;

	lk_check_view(&k, "y", y, LK_ANY, any, LK_DENSE);
	lk_check_view(&k, "x", x, LK_ANY, any, LK_DENSE);
	LK_WANT(&k, (y->dtype == LK_U8) != (x->dtype == LK_U8), "exactly one of x, y must be 8-bit");
	LK_WANT(&k, lk_count(y) == lk_count(x), "y has %lld elements, x %lld", LL(lk_count(y)), LL(lk_count(x)));
	if (!k.rc)
		lk_check_apart(&k, "y", y, "x", x);
	if (k.rc || !lk_count(y))
		return k.rc;
	return LK_CALL(dev, pixels, dev, y, x);
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
	return LK_CALL(dev, recon_loss, dev, dx, x, t, w1, w2, host_out);
}
