/* half.c - the device cpu-fp16: numbers lie in memory as fp16, arithmetic is that of the cpu device in fp32.
 *
 * A call brings what it reads of fp16 into fp32, lets the cpu device compute, and rounds what was written: to nearest, ties to
 * even, beyond 65504 to infinity, below 2^-24 to 0. So a sum is rounded once, where it is stored, as by hardware that sums fp16 in
 * fp32. Memory of tensors is half; a call takes scratch of 4 bytes for each number of its fp16 arguments. It has the ops of a
 * transformer: no convolutions, no generation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cpu/dense_int.h"

enum { SLOTS = 8, STRETCH = 1 << 14 /* numbers per piece of work */ };
enum { READ = 1, WRITTEN = 2 };

struct half {
	struct lk_dev inner; /* the cpu device */
	float *slot[SLOTS];  /* arguments in fp32; they grow and stay */
	size_t room[SLOTS];  /* numbers */
};

/* The fp16 arguments of one call. */
struct call {
	struct lk_dev *dev;
	struct half *h;
	int n, rc;
	struct lk_view wide[SLOTS], given[SLOTS];
	int use[SLOTS];
};

static struct half *half_of(const struct lk_dev *dev)
{
	return dev->impl;
}

static struct call begin(struct lk_dev *dev)
{
	return (struct call){ .dev = dev, .h = half_of(dev) };
}

static int64_t count(const struct lk_view *v)
{
	int64_t n = 1;

	for (int i = 0; i < v->ndim; i++)
		n *= v->n[i];
	return n;
}

/* ---- conversion ---- */

/* The numbers of a view in pieces that lie without a gap: rows, or stretches where all of it does. */
struct pieces {
	int64_t n, each; /* how many; numbers of one, the last may have fewer */
	int64_t last;
};

static struct pieces cut(const struct lk_view *v)
{
	int64_t n = count(v), span = 1;
	int dense = 1;

	for (int i = v->ndim - 1; i >= 0; i--) {
		dense = dense && (v->n[i] <= 1 || v->stride[i] == span);
		span *= v->n[i];
	}
	if (!dense)
		return (struct pieces){ n / v->n[v->ndim - 1], v->n[v->ndim - 1], v->n[v->ndim - 1] };
	int64_t k = (n + STRETCH - 1) / STRETCH;
	return (struct pieces){ k, STRETCH, n - (k - 1) * STRETCH };
}

/* Of piece i the offset in the view, in numbers: its first number is number i * each. */
static int64_t offset(const struct lk_view *v, int64_t number)
{
	int64_t at = 0;

	for (int d = v->ndim - 1; d >= 0; d--) {
		at += number % v->n[d] * v->stride[d];
		number /= v->n[d];
	}
	return at;
}

/* wide is dense; back: from it to given. */
static void convert(const struct call *c, const struct lk_view *wide, const struct lk_view *given, int back)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(&c->h->inner);
	struct pieces p = cut(given);

#pragma omp parallel for num_threads(lk_threads_for(c->dev, count(given))) schedule(static)
	for (int64_t i = 0; i < p.n; i++) {
		float *f = (float *)wide->data + i * p.each;
		uint16_t *b = (uint16_t *)given->data + offset(given, i * p.each);
		int64_t n = i + 1 < p.n ? p.each : p.last;

		if (back)
			hot->to_f16(b, f, n);
		else
			hot->from_f16(f, b, n);
	}
}

static float *take_slot(struct call *c, size_t n)
{
	struct half *h = c->h;
	int i = c->n;

	if (n > h->room[i]) {
		free(h->slot[i]);
		h->slot[i] = aligned_alloc(64, (n * 4 + 63) / 64 * 64);
		h->room[i] = h->slot[i] ? n : 0;
	}
	if (!h->slot[i] && !c->rc)
		c->rc = lk_fail(c->dev, LK_ENOMEM, "no memory for %zu numbers in fp32", n);
	return h->slot[i];
}

/* The argument as the cpu device takes it: itself, or of fp16 a dense copy in fp32. */
static struct lk_view widen(struct call *c, const struct lk_view *v, int use)
{
	struct lk_view w = *v;
	int64_t step = 1;

	if (v->dtype != LK_F16 || c->rc)
		return w;
	w.dtype = LK_F32;
	for (int i = v->ndim - 1; i >= 0; i--) {
		w.stride[i] = step;
		step *= v->n[i];
	}
	w.data = take_slot(c, step > 0 ? (size_t)step : 1);
	if (c->rc)
		return w;
	if (use & READ && step > 0)
		convert(c, &w, v, 0);
	c->wide[c->n] = w;
	c->given[c->n] = *v;
	c->use[c->n++] = use;
	return w;
}

/* What was written is rounded into its place; rc: of the cpu device's op. */
static int end(struct call *c, int rc)
{
	if (rc && !c->rc)
		c->rc = lk_fail(c->dev, rc, "%s", c->h->inner.err);
	for (int i = 0; i < c->n && !c->rc; i++)
		if (c->use[i] & WRITTEN && count(&c->given[i]) > 0)
			convert(c, &c->wide[i], &c->given[i], 1);
	return c->rc;
}

/* part.op of the cpu device, unless an argument could not be brought there */
#define INNER(c, part, op, ...) ((c)->rc ? (c)->rc : (c)->h->inner.ops.part.op(&(c)->h->inner, __VA_ARGS__))

/* ---- dense ---- */

static int matmul(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b, unsigned flags,
		  float alpha)
{
	struct call k = begin(dev);
	struct lk_view wa = widen(&k, a, READ), wb = widen(&k, b, READ);
	struct lk_view wc = widen(&k, c, flags & LK_ACC ? READ | WRITTEN : WRITTEN);

	return end(&k, INNER(&k, dense, matmul, &wc, &wa, &wb, flags, alpha));
}

static int matmul_own(struct lk_dev *dev, int64_t m, int64_t n, int64_t k, struct lk_own *own)
{
	struct lk_dev *inner = &half_of(dev)->inner;
	int rc = inner->ops.dense.matmul_own(inner, m, n, k, own);

	own->scratch += 4 * (m * k + k * n + m * n);
	return rc ? lk_fail(dev, rc, "%s", inner->err) : 0;
}

static int zero(struct lk_dev *dev, void *p, size_t bytes)
{
	struct call k = begin(dev);

	return end(&k, INNER(&k, dense, zero, p, bytes));
}

static int fill(struct lk_dev *dev, float *p, int64_t n, float value)
{
	struct call k = begin(dev);

	return end(&k, INNER(&k, dense, fill, p, n, value));
}

static int cast(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	struct call k = begin(dev);

	if (y->data == x->data && y->dtype == x->dtype)
		return 0;
	struct lk_view wx = widen(&k, x, READ), wy = widen(&k, y, WRITTEN);

	return end(&k, INNER(&k, dense, cast, &wy, &wx));
}

static int axpy(struct lk_dev *dev, const struct lk_view *y, float a, const struct lk_view *x)
{
	struct call k = begin(dev);
	struct lk_view wx = widen(&k, x, READ), wy = widen(&k, y, READ | WRITTEN);

	return end(&k, INNER(&k, dense, axpy, &wy, a, &wx));
}

static int scale(struct lk_dev *dev, const struct lk_view *y, float a)
{
	struct call k = begin(dev);
	struct lk_view wy = widen(&k, y, READ | WRITTEN);

	return end(&k, INNER(&k, dense, scale, &wy, a));
}

static int sumsq(struct lk_dev *dev, const float *x, int64_t n, double *host_out)
{
	struct call k = begin(dev);

	return end(&k, INNER(&k, dense, sumsq, x, n, host_out));
}

/* x += y, rows of fp32. */
static void add_rows(const struct lk_dev *dev, const struct lk_view *x, const struct lk_view *y)
{
#pragma omp parallel for num_threads(lk_threads_for(dev, count(x))) schedule(static)
	for (int64_t i = 0; i < x->n[0]; i++) {
		float *to = lk_row(x, i);
		const float *from = lk_row(y, i);

		for (int64_t j = 0; j < x->n[1]; j++)
			to[j] += from[j];
	}
}

static int rmsnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *rstd, const struct lk_view *x,
		       const struct lk_view *delta, const struct lk_view *w, float eps)
{
	struct call k = begin(dev);
	struct lk_view wx = widen(&k, x, READ), ww = widen(&k, w, READ), wy = widen(&k, y, WRITTEN), wd;

	if (delta)
		wd = widen(&k, delta, READ);
	if (delta && x->dtype == LK_F16 && !k.rc) {
		add_rows(dev, &wx, &wd);
		convert(&k, &wx, x, 1); /* what is kept of the sum is what is normed: the backward will see that */
		convert(&k, &wx, x, 0);
	}
	return end(&k, INNER(&k, dense, rmsnorm_fwd, &wy, rstd, &wx, delta && x->dtype != LK_F16 ? &wd : NULL, &ww, eps));
}

static int rmsnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dw, const struct lk_view *dy,
		       const struct lk_view *x, const struct lk_view *w, const float *rstd)
{
	struct call k = begin(dev);
	struct lk_view wdy = widen(&k, dy, READ), wx = widen(&k, x, READ), ww = widen(&k, w, READ);
	struct lk_view wdx = widen(&k, dx, READ | WRITTEN);

	return end(&k, INNER(&k, dense, rmsnorm_bwd, &wdx, dw, &wdy, &wx, &ww, rstd));
}

static int rope(struct lk_dev *dev, const struct lk_view *x, const int32_t *pos, double theta, int inverse)
{
	struct call k = begin(dev);
	struct lk_view wx = widen(&k, x, READ | WRITTEN);

	return end(&k, INNER(&k, dense, rope, &wx, pos, theta, inverse));
}

static int swiglu_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *g, const struct lk_view *u)
{
	struct call k = begin(dev);
	struct lk_view wg = widen(&k, g, READ), wu = widen(&k, u, READ), wy = widen(&k, y, WRITTEN);

	return end(&k, INNER(&k, dense, swiglu_fwd, &wy, &wg, &wu));
}

static int swiglu_bwd(struct lk_dev *dev, const struct lk_view *dg, const struct lk_view *du, const struct lk_view *dy,
		      const struct lk_view *g, const struct lk_view *u)
{
	struct call k = begin(dev);
	struct lk_view wdy = widen(&k, dy, READ), wg = widen(&k, g, READ), wu = widen(&k, u, READ);
	struct lk_view wdg = widen(&k, dg, WRITTEN), wdu = widen(&k, du, WRITTEN);

	return end(&k, INNER(&k, dense, swiglu_bwd, &wdg, &wdu, &wdy, &wg, &wu));
}

/* Rows of a table: only those that are asked for are touched, and of fp16 they are copied. */
static int copies_rows(const struct lk_view *y, const struct lk_view *x)
{
	return y->dtype == LK_F16 && x->dtype == LK_F16;
}

static uint16_t *row_of(const struct lk_view *v, int64_t i)
{
	return (uint16_t *)v->data + i * v->stride[0];
}

static int embed_fwd(struct lk_dev *dev, const struct lk_view *y, const int32_t *ids, const struct lk_view *table, int32_t first)
{
	struct call k = begin(dev);

	if (!copies_rows(y, table))
		return end(&k, INNER(&k, dense, embed_fwd, y, ids, table, first));
#pragma omp parallel for num_threads(lk_threads_for(dev, count(y))) schedule(static)
	for (int64_t i = 0; i < y->n[0]; i++) {
		int64_t row = (int64_t)ids[i] - first;

		if (row >= 0 && row < table->n[0])
			memcpy(row_of(y, i), row_of(table, row), (size_t)y->n[1] * 2);
	}
	return 0;
}

static int embed_bwd(struct lk_dev *dev, const struct lk_view *dtable, const int32_t *ids, const struct lk_view *dy,
		     int32_t first)
{
	struct call k = begin(dev);
	struct lk_view wdy = widen(&k, dy, READ);

	return end(&k, INNER(&k, dense, embed_bwd, dtable, ids, &wdy, first));
}

static int gather_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx)
{
	struct call k = begin(dev);

	if (!copies_rows(y, x)) {
		struct lk_view wx = widen(&k, x, READ), wy = widen(&k, y, WRITTEN);

		return end(&k, INNER(&k, dense, gather_rows, &wy, &wx, idx));
	}
#pragma omp parallel for num_threads(lk_threads_for(dev, count(y))) schedule(static)
	for (int64_t i = 0; i < y->n[0]; i++)
		memcpy(row_of(y, i), row_of(x, idx[i]), (size_t)y->n[1] * 2);
	return 0;
}

static int scatter_add_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx)
{
	struct call k = begin(dev);

	if (!copies_rows(y, x)) {
		struct lk_view wx = widen(&k, x, READ), wy = widen(&k, y, READ | WRITTEN);

		return end(&k, INNER(&k, dense, scatter_add_rows, &wy, &wx, idx));
	}
#pragma omp parallel for num_threads(lk_threads_for(dev, count(x))) schedule(static)
	for (int64_t i = 0; i < x->n[0]; i++) {
		uint16_t *to = row_of(y, idx[i]);
		const uint16_t *from = row_of(x, i);

		for (int64_t j = 0; j < x->n[1]; j++)
			to[j] = lk_f16_put(lk_f16_get(to[j]) + lk_f16_get(from[j]));
	}
	return 0;
}

static int xent(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight, float *nll,
		float *hit, int grad)
{
	struct call k = begin(dev);
	struct lk_view w = widen(&k, logits, grad ? READ | WRITTEN : READ);

	return end(&k, INNER(&k, dense, xent, &w, target, weight, nll, hit, grad));
}

/* What the cpu device prepares in the logits, e^(x - max), is between 0 and 1 and would lose its small ones in fp16: they stay as
 * they are, and join finds them so. */
static int xent_part(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, float *part, int grad)
{
	struct call k = begin(dev);
	struct lk_view w = widen(&k, logits, READ);

	(void)grad;
	return end(&k, INNER(&k, dense, xent_part, &w, target, part, 0));
}

static int xent_join(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight,
		     const float *all, int parts, int mine, float *nll, float *hit, int grad)
{
	struct call k = begin(dev);
	struct lk_view w = widen(&k, logits, grad ? READ | WRITTEN : READ);
	float *own = malloc((size_t)logits->n[0] * LK_XENT_PART * sizeof *own);
	int rc = own ? 0 : lk_fail(&k.h->inner, LK_ENOMEM, "xent_join: out of memory");

	if (!rc && grad) /* the cpu device's own preparation, left out above */
		rc = INNER(&k, dense, xent_part, &w, target, own, 1);
	if (!rc)
		rc = INNER(&k, dense, xent_join, &w, target, weight, all, parts, mine, nll, hit, grad);
	free(own);
	return end(&k, rc);
}

static int adamw(struct lk_dev *dev, float *p, float *m, float *v, const float *g, void *p_compute, int64_t n,
		 const struct lk_adamw_cfg *cfg)
{
	struct call k = begin(dev);
	struct lk_view wide = lk_view1(p, LK_F32, n), given = lk_view1(p_compute, LK_F16, n);
	int rc = end(&k, INNER(&k, dense, adamw, p, m, v, g, NULL, n, cfg));

	if (!rc && p_compute)
		convert(&k, &wide, &given, 1);
	return rc;
}

/* ---- attention ---- */

static int attn_begin(struct lk_dev *dev, const struct lk_attn_state *st, int64_t tq, int64_t h, int64_t d)
{
	struct call k = begin(dev);

	return end(&k, INNER(&k, attention, attn_begin, st, tq, h, d));
}

static struct lk_attn widen_attn(struct call *k, const struct lk_attn *a)
{
	struct lk_attn w = *a;

	w.q = widen(k, &a->q, READ);
	w.k = widen(k, &a->k, READ);
	w.v = widen(k, &a->v, READ);
	return w;
}

static int attn_fwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st)
{
	struct call k = begin(dev);
	struct lk_attn w = widen_attn(&k, a);

	return end(&k, INNER(&k, attention, attn_fwd, &w, st));
}

static int attn_end(struct lk_dev *dev, const struct lk_view *o, float *lse, const struct lk_attn_state *st)
{
	struct call k = begin(dev);
	struct lk_view w = widen(&k, o, WRITTEN);

	return end(&k, INNER(&k, attention, attn_end, &w, lse, st));
}

static int attn_once(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse)
{
	struct call k = begin(dev);
	struct lk_attn w = widen_attn(&k, a);
	struct lk_view wo = widen(&k, o, WRITTEN);

	return end(&k, INNER(&k, attention, attn_once, &w, &wo, lse));
}

static int attn_delta(struct lk_dev *dev, float *delta, const struct lk_view *o, const struct lk_view *dout)
{
	struct call k = begin(dev);
	struct lk_view wo = widen(&k, o, READ), wd = widen(&k, dout, READ);

	return end(&k, INNER(&k, attention, attn_delta, delta, &wo, &wd));
}

static int attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
		    const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv)
{
	struct call k = begin(dev);
	struct lk_attn w = widen_attn(&k, a);
	struct lk_view wd = widen(&k, dout, READ);

	return end(&k, INNER(&k, attention, attn_bwd, &w, &wd, lse, delta, dq, dk, dv));
}

static int attn_merge(struct lk_dev *dev, float *o, float *lse, const float *o2, const float *lse2, int64_t tq, int64_t h,
		      int64_t d)
{
	struct call k = begin(dev);

	return end(&k, INNER(&k, attention, attn_merge, o, lse, o2, lse2, tq, h, d));
}

static int attn_own(struct lk_dev *dev, int64_t n, int64_t heads, int64_t kv_heads, int64_t head_dim, int back, struct lk_own *own)
{
	struct lk_dev *inner = &half_of(dev)->inner;
	int rc = inner->ops.attention.attn_own(inner, n, heads, kv_heads, head_dim, back, own);

	own->scratch += 4 * n * head_dim * (2 * heads + 2 * kv_heads); /* q and o or dout, k, v */
	return rc ? lk_fail(dev, rc, "%s", inner->err) : 0;
}

/* ---- life ---- */

static void half_close(struct lk_dev *dev)
{
	struct half *h = half_of(dev);

	h->inner.ops.device.close(&h->inner);
	for (int i = 0; i < SLOTS; i++)
		free(h->slot[i]);
	free(h);
}

static int half_fork(struct lk_dev *child, struct lk_dev *parent)
{
	struct half *from = half_of(parent), *h = calloc(1, sizeof *h);
	int rc;

	if (!h)
		return lk_fail(child, LK_ENOMEM, "fork: out of memory");
	h->inner = from->inner;
	h->inner.impl = NULL;
	rc = from->inner.ops.device.fork(&h->inner, &from->inner);
	if (rc) {
		lk_fail(child, rc, "%s", h->inner.err);
		free(h);
		return rc;
	}
	child->impl = h;
	return 0;
}

static void fill_ops(struct lk_ops *o)
{
	lk_ref_fill(o); /* memory and queue know no numbers */
	o->device.close = half_close;
	o->device.fork = half_fork;
	o->dense = (struct lk_dense_ops){ .matmul = matmul, .matmul_own = matmul_own, .zero = zero, .fill = fill, .cast = cast,
					  .axpy = axpy, .scale = scale, .sumsq = sumsq, .rmsnorm_fwd = rmsnorm_fwd,
					  .rmsnorm_bwd = rmsnorm_bwd, .rope = rope, .swiglu_fwd = swiglu_fwd,
					  .swiglu_bwd = swiglu_bwd, .embed_fwd = embed_fwd, .embed_bwd = embed_bwd,
					  .gather_rows = gather_rows, .scatter_add_rows = scatter_add_rows, .xent = xent,
					  .xent_part = xent_part, .xent_join = xent_join, .adamw = adamw };
	o->attention = (struct lk_attention_ops){ .attn_begin = attn_begin, .attn_fwd = attn_fwd, .attn_end = attn_end,
						  .attn_once = attn_once, .attn_delta = attn_delta, .attn_bwd = attn_bwd,
						  .attn_merge = attn_merge, .attn_own = attn_own };
	memset(&o->generation, 0, sizeof o->generation);
	memset(&o->image, 0, sizeof o->image);
}

int lk_half_open(struct lk_dev *dev, int index, int threads, char *why, size_t n)
{
	struct half *h = calloc(1, sizeof *h);
	int rc;

	if (!h) {
		snprintf(why, n, "out of memory");
		return LK_ENOMEM;
	}
	rc = lk_cpu_open(&h->inner, index, threads, why, n);
	if (rc) {
		free(h);
		return rc;
	}
	fill_ops(&dev->ops);
	dev->impl = h;
	dev->dtype = LK_F16;
	dev->threads = h->inner.threads;
	dev->is_host = 1;
	snprintf(dev->name, sizeof dev->name, "%.*s, fp16 in memory)", (int)strlen(h->inner.name) - 1, h->inner.name);
	memcpy(dev->warning, h->inner.warning, sizeof dev->warning);
	return 0;
}
