/* dispatch_dense.c - dense.h: each op checks its arguments and calls the backend. */
#include <inttypes.h>
#include <math.h>

#include "kernels/check.h"

static const unsigned F32 = 1u << LK_F32;

/* ---- dense algebra ---- */

/* K = 0: the sum over nothing. */
static int empty_product(struct lk_dev *dev, const struct lk_view *c)
{
	size_t row = (size_t)c->n[1] * lk_dtype_size(c->dtype), step = (size_t)c->stride[0] * lk_dtype_size(c->dtype);

	for (int64_t i = 0; i < c->n[0]; i++) {
		int rc = LK_CALL(dev, dense, zero, dev, (char *)c->data + (size_t)i * step, row);

		if (rc)
			return rc;
	}
	return 0;
}

int lk_matmul(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
	      unsigned flags, float alpha)
{
	struct lk_check k = { dev, "matmul", 0 };
	int ta = (flags & LK_TA) != 0, tb = (flags & LK_TB) != 0;

	lk_check_view(&k, "c", c, 2, lk_act(dev), 0);
	lk_check_view(&k, "a", a, 2, lk_act(dev), 0);
	lk_check_view(&k, "b", b, 2, lk_act(dev), 0);
	LK_WANT(&k, flags <= (LK_TA | LK_TB | LK_ACC), "unknown flags %#x", flags);
	LK_WANT(&k, a->dtype == b->dtype, "a and b differ in element type");
	LK_WANT(&k, c->dtype == a->dtype || c->dtype == LK_F32, "c must be fp32 or of the type of a and b");
	LK_WANT(&k, a->n[ta] == c->n[0] && b->n[!tb] == c->n[1] && a->n[!ta] == b->n[tb],
		"c is (%" PRId64 ",%" PRId64 "), op(a) (%" PRId64 ",%" PRId64 "), op(b) (%" PRId64 ",%" PRId64 ")",
		c->n[0], c->n[1], a->n[ta], a->n[!ta], b->n[tb], b->n[!tb]);
	LK_WANT(&k, c->n[0] <= INT32_MAX && c->n[1] <= INT32_MAX && a->n[!ta] <= INT32_MAX &&
		c->stride[0] <= INT32_MAX && a->stride[0] <= INT32_MAX && b->stride[0] <= INT32_MAX,
		"an extent or row stride is beyond 2^31");
	if (!k.rc) {
		lk_check_apart(&k, "c", c, "a", a);
		lk_check_apart(&k, "c", c, "b", b);
	}
	if (k.rc || !lk_count(c))
		return k.rc;
	if (a->n[!ta] == 0)
		return flags & LK_ACC ? 0 : empty_product(dev, c);
	return LK_CALL(dev, dense, matmul, dev, c, a, b, flags, alpha);
}

int lk_matmul_own(struct lk_dev *dev, int64_t m, int64_t n, int64_t k, struct lk_own *own)
{
	struct lk_check c = { dev, "matmul_own", 0 };

	*own = (struct lk_own){ 0, 0 };
	LK_WANT(&c, m > 0 && n > 0 && k > 0 && m <= INT32_MAX && n <= INT32_MAX && k <= INT32_MAX,
		"a product of %" PRId64 " x %" PRId64 " by %" PRId64, m, n, k);
	if (c.rc)
		return c.rc;
	return LK_CALL(dev, dense, matmul_own, dev, m, n, k, own);
}

/* ---- element-wise and reductions ---- */

int lk_zero(struct lk_dev *dev, void *p, size_t bytes)
{
	struct lk_check k = { dev, "zero", 0 };

	LK_WANT(&k, bytes <= INT64_MAX, "the size of %zu bytes is beyond any memory", bytes);
	lk_check_ptr(&k, "p", p, (int64_t)bytes);
	if (k.rc || !bytes)
		return k.rc;
	return LK_CALL(dev, dense, zero, dev, p, bytes);
}

int lk_fill(struct lk_dev *dev, float *p, int64_t n, float value)
{
	struct lk_check k = { dev, "fill", 0 };

	lk_check_ptr(&k, "p", p, n);
	if (k.rc || !n)
		return k.rc;
	return LK_CALL(dev, dense, fill, dev, p, n, value);
}

static int check_pair(struct lk_dev *dev, const char *op, const struct lk_view *y, const struct lk_view *x)
{
	struct lk_check k = { dev, op, 0 };

	lk_check_view(&k, "y", y, LK_ANY, lk_floats(dev), LK_DENSE);
	lk_check_view(&k, "x", x, LK_ANY, lk_floats(dev), LK_DENSE);
	LK_WANT(&k, lk_count(y) == lk_count(x), "y has %" PRId64 " elements, x %" PRId64, lk_count(y), lk_count(x));
	if (!k.rc && (y->data != x->data || y->dtype != x->dtype))
		lk_check_apart(&k, "y", y, "x", x);
	return k.rc;
}

int lk_cast(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	int rc = check_pair(dev, "cast", y, x);

	if (rc || !lk_count(y))
		return rc;
	return LK_CALL(dev, dense, cast, dev, y, x);
}

int lk_axpy(struct lk_dev *dev, const struct lk_view *y, float a, const struct lk_view *x)
{
	int rc = check_pair(dev, "axpy", y, x);

	if (rc || !lk_count(y))
		return rc;
	return LK_CALL(dev, dense, axpy, dev, y, a, x);
}

int lk_scale(struct lk_dev *dev, const struct lk_view *y, float a)
{
	struct lk_check k = { dev, "scale", 0 };

	lk_check_view(&k, "y", y, LK_ANY, lk_floats(dev), LK_DENSE);
	if (k.rc || !lk_count(y))
		return k.rc;
	return LK_CALL(dev, dense, scale, dev, y, a);
}

int lk_sumsq(struct lk_dev *dev, const float *x, int64_t n, double *host_out)
{
	struct lk_check k = { dev, "sumsq", 0 };

	lk_check_ptr(&k, "x", x, n);
	lk_check_ptr(&k, "host_out", host_out, 1);
	if (k.rc)
		return k.rc;
	*host_out = 0;
	if (!n)
		return 0;
	return LK_CALL(dev, dense, sumsq, dev, x, n, host_out);
}

/* ---- transformer ---- */

int lk_rmsnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *rstd, const struct lk_view *x,
		   const struct lk_view *delta, const struct lk_view *w, float eps)
{
	struct lk_check k = { dev, "rmsnorm_fwd", 0 };

	lk_check_view(&k, "y", y, 2, lk_act(dev), 0);
	lk_check_view(&k, "x", x, 2, lk_act(dev), 0);
	lk_check_view(&k, "w", w, 1, lk_act(dev), 0);
	if (delta)
		lk_check_view(&k, "delta", delta, 2, lk_act(dev), 0);
	LK_WANT(&k, lk_same(y, x) && (!delta || lk_same(delta, x)) && w->n[0] == x->n[1],
		"y, x, delta must be (T,D) and w (D), with x (%" PRId64 ",%" PRId64 ")", x->n[0], x->n[1]);
	LK_WANT(&k, x->n[1] > 0, "rows are empty");
	LK_WANT(&k, eps >= 0, "eps is %g", (double)eps);
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "rstd", rstd, x->n[0]);
	lk_check_apart(&k, "y", y, "x", x);
	if (k.rc || !lk_count(x))
		return k.rc;
	return LK_CALL(dev, dense, rmsnorm_fwd, dev, y, rstd, x, delta, w, eps);
}

int lk_rmsnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dw, const struct lk_view *dy,
		   const struct lk_view *x, const struct lk_view *w, const float *rstd)
{
	struct lk_check k = { dev, "rmsnorm_bwd", 0 };

	lk_check_view(&k, "dx", dx, 2, lk_act(dev), 0);
	lk_check_view(&k, "dy", dy, 2, lk_act(dev), 0);
	lk_check_view(&k, "x", x, 2, lk_act(dev), 0);
	lk_check_view(&k, "w", w, 1, lk_act(dev), 0);
	LK_WANT(&k, lk_same(dx, x) && lk_same(dy, x) && w->n[0] == x->n[1],
		"dx, dy, x must be (T,D) and w (D), with x (%" PRId64 ",%" PRId64 ")", x->n[0], x->n[1]);
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "rstd", rstd, x->n[0]);
	lk_check_ptr(&k, "dw", dw, x->n[1]);
	lk_check_apart(&k, "dx", dx, "dy", dy);
	lk_check_apart(&k, "dx", dx, "x", x);
	if (k.rc || !lk_count(x))
		return k.rc;
	return LK_CALL(dev, dense, rmsnorm_bwd, dev, dx, dw, dy, x, w, rstd);
}

int lk_rope(struct lk_dev *dev, const struct lk_view *x, const int32_t *pos, double theta, int inverse)
{
	struct lk_check k = { dev, "rope", 0 };

	lk_check_view(&k, "x", x, 3, lk_act(dev), 0);
	LK_WANT(&k, x->n[2] % 2 == 0, "the head dimension %" PRId64 " is odd", x->n[2]);
	LK_WANT(&k, theta > 0 && isfinite(theta), "theta is %g", theta);
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "pos", pos, x->n[0]);
	if (k.rc || !lk_count(x))
		return k.rc;
	return LK_CALL(dev, dense, rope, dev, x, pos, theta, inverse);
}

int lk_swiglu_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *g, const struct lk_view *u)
{
	struct lk_check k = { dev, "swiglu_fwd", 0 };

	lk_check_view(&k, "y", y, 2, lk_act(dev), 0);
	lk_check_view(&k, "g", g, 2, lk_act(dev), 0);
	lk_check_view(&k, "u", u, 2, lk_act(dev), 0);
	LK_WANT(&k, lk_same(y, g) && lk_same(u, g), "y, g, u differ in shape");
	if (k.rc || !lk_count(y))
		return k.rc;
	return LK_CALL(dev, dense, swiglu_fwd, dev, y, g, u);
}

int lk_swiglu_bwd(struct lk_dev *dev, const struct lk_view *dg, const struct lk_view *du, const struct lk_view *dy,
		  const struct lk_view *g, const struct lk_view *u)
{
	struct lk_check k = { dev, "swiglu_bwd", 0 };

	lk_check_view(&k, "dg", dg, 2, lk_act(dev), 0);
	lk_check_view(&k, "du", du, 2, lk_act(dev), 0);
	lk_check_view(&k, "dy", dy, 2, lk_act(dev), 0);
	lk_check_view(&k, "g", g, 2, lk_act(dev), 0);
	lk_check_view(&k, "u", u, 2, lk_act(dev), 0);
	LK_WANT(&k, lk_same(dg, g) && lk_same(du, g) && lk_same(dy, g) && lk_same(u, g),
		"dg, du, dy, g, u differ in shape");
	if (!k.rc)
		lk_check_apart(&k, "dg", dg, "du", du);
	if (k.rc || !lk_count(g))
		return k.rc;
	return LK_CALL(dev, dense, swiglu_bwd, dev, dg, du, dy, g, u);
}

int lk_embed_fwd(struct lk_dev *dev, const struct lk_view *y, const int32_t *ids, const struct lk_view *table,
		 int32_t first)
{
	struct lk_check k = { dev, "embed_fwd", 0 };

	lk_check_view(&k, "y", y, 2, lk_act(dev), 0);
	lk_check_view(&k, "table", table, 2, lk_act(dev), 0);
	LK_WANT(&k, y->n[1] == table->n[1], "rows of y have %" PRId64 " elements, of table %" PRId64, y->n[1],
		table->n[1]);
	LK_WANT(&k, y->dtype == table->dtype, "y and table differ in element type");
	LK_WANT(&k, table->n[0] <= INT32_MAX, "table has too many rows");
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "ids", ids, y->n[0]);
	lk_check_apart(&k, "y", y, "table", table);
	if (k.rc || !lk_count(y))
		return k.rc;
	return LK_CALL(dev, dense, embed_fwd, dev, y, ids, table, first);
}

int lk_embed_bwd(struct lk_dev *dev, const struct lk_view *dtable, const int32_t *ids, const struct lk_view *dy,
		 int32_t first)
{
	struct lk_check k = { dev, "embed_bwd", 0 };

	lk_check_view(&k, "dtable", dtable, 2, F32, 0);
	lk_check_view(&k, "dy", dy, 2, lk_act(dev), 0);
	LK_WANT(&k, dy->n[1] == dtable->n[1], "rows of dy have %" PRId64 " elements, of dtable %" PRId64, dy->n[1],
		dtable->n[1]);
	LK_WANT(&k, dtable->n[0] <= INT32_MAX, "dtable has too many rows");
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "ids", ids, dy->n[0]);
	lk_check_apart(&k, "dtable", dtable, "dy", dy);
	if (k.rc || !lk_count(dy))
		return k.rc;
	return LK_CALL(dev, dense, embed_bwd, dev, dtable, ids, dy, first);
}

/* idx has as many entries as `many` has rows */
static int check_rows(struct lk_dev *dev, const char *op, const struct lk_view *y, const struct lk_view *x,
		      const int32_t *idx, const struct lk_view *many)
{
	struct lk_check k = { dev, op, 0 };

	lk_check_view(&k, "y", y, 2, lk_act(dev), 0);
	lk_check_view(&k, "x", x, 2, lk_act(dev), 0);
	LK_WANT(&k, y->n[1] == x->n[1], "rows of y have %" PRId64 " elements, of x %" PRId64, y->n[1], x->n[1]);
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "idx", idx, many->n[0]);
	lk_check_apart(&k, "y", y, "x", x);
	return k.rc;
}

int lk_gather_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx)
{
	int rc = check_rows(dev, "gather_rows", y, x, idx, y);

	if (rc || !lk_count(y))
		return rc;
	return LK_CALL(dev, dense, gather_rows, dev, y, x, idx);
}

int lk_scatter_add_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx)
{
	int rc = check_rows(dev, "scatter_add_rows", y, x, idx, x);

	if (rc || !lk_count(x))
		return rc;
	return LK_CALL(dev, dense, scatter_add_rows, dev, y, x, idx);
}

/* Host memory can be looked at: an id outside of the vocabulary would be read from, and written to, foreign memory. */
static void check_targets(struct lk_check *k, const int32_t *target, int64_t n, int64_t vocab)
{
	for (int64_t i = 0; i < n; i++)
		LK_WANT(k, target[i] >= 0 && target[i] < vocab,
			"target %d of row %" PRId64 " is outside of the %" PRId64 " entries", target[i], i, vocab);
}

int lk_xent(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight, float *nll,
	    float *hit, int grad)
{
	struct lk_check k = { dev, "xent", 0 };

	lk_check_view(&k, "logits", logits, 2, lk_act(dev), 0);
	LK_WANT(&k, logits->n[1] > 0 && logits->n[1] <= INT32_MAX, "the vocabulary has %" PRId64 " entries",
		logits->n[1]);
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "target", target, logits->n[0]);
	lk_check_ptr(&k, "nll", nll, logits->n[0]);
	lk_check_ptr(&k, "weight", weight, grad ? logits->n[0] : 0);
	if (!k.rc && dev->is_host)
		check_targets(&k, target, logits->n[0], logits->n[1]);
	if (k.rc || !lk_count(logits))
		return k.rc;
	return LK_CALL(dev, dense, xent, dev, logits, target, weight, nll, hit, grad);
}

static void check_part(struct lk_check *k, const struct lk_view *logits, const int32_t *target)
{
	lk_check_view(k, "logits", logits, 2, lk_act(k->dev), 0);
	LK_WANT(k, logits->n[1] > 0 && logits->n[1] <= INT32_MAX, "this part of the vocabulary has %" PRId64 " entries",
		logits->n[1]);
	if (!k->rc)
		lk_check_ptr(k, "target", target, logits->n[0]);
}

int lk_xent_part(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, float *part, int grad)
{
	struct lk_check k = { dev, "xent_part", 0 };

	check_part(&k, logits, target);
	if (!k.rc)
		lk_check_ptr(&k, "part", part, logits->n[0] * LK_XENT_PART);
	if (k.rc || !lk_count(logits))
		return k.rc;
	return LK_CALL(dev, dense, xent_part, dev, logits, target, part, grad);
}

int lk_xent_join(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight, const float *all,
		 int parts, int mine, float *nll, float *hit, int grad)
{
	struct lk_check k = { dev, "xent_join", 0 };

	check_part(&k, logits, target);
	LK_WANT(&k, mine >= 0 && mine < parts, "part %d of %d", mine, parts);
	if (k.rc)
		return k.rc;
	lk_check_ptr(&k, "all", all, logits->n[0] * LK_XENT_PART * parts);
	lk_check_ptr(&k, "nll", nll, logits->n[0]);
	lk_check_ptr(&k, "weight", weight, grad ? logits->n[0] : 0);
	if (k.rc || !lk_count(logits))
		return k.rc;
	return LK_CALL(dev, dense, xent_join, dev, logits, target, weight, all, parts, mine, nll, hit, grad);
}

int lk_adamw(struct lk_dev *dev, float *p, float *m, float *v, const float *g, void *p_compute, int64_t n,
	     const struct lk_adamw_cfg *cfg)
{
	struct lk_check k = { dev, "adamw", 0 };

	lk_check_ptr(&k, "p", p, n);
	lk_check_ptr(&k, "m", m, n);
	lk_check_ptr(&k, "v", v, n);
	lk_check_ptr(&k, "g", g, n);
	lk_check_ptr(&k, "cfg", cfg, 1);
	LK_WANT(&k, cfg->bias1 > 0 && cfg->bias2 > 0, "the bias corrections are %g and %g: the step counts from 1",
		cfg->bias1, cfg->bias2);
	if (k.rc || !n)
		return k.rc;
	return LK_CALL(dev, dense, adamw, dev, p, m, v, g, p_compute, n, cfg);
}
