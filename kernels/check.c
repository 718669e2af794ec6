/* check.c - the checks that dispatch_*.c put in front of every backend: views that hold together, memory that does not overlap. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "kernels/check.h"

int lk_complain(const struct lk_check *c, const char *fmt, ...)
{
	char what[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	return lk_fail(c->dev, LK_EINVAL, "%s: %s", c->op, what);
}

int64_t lk_count(const struct lk_view *v)
{
	int64_t n = 1;

	for (int i = 0; i < v->ndim; i++)
		n *= v->n[i];
	return n;
}

int lk_same(const struct lk_view *a, const struct lk_view *b)
{
	if (a->ndim != b->ndim)
		return 0;
	for (int i = 0; i < a->ndim; i++)
		if (a->n[i] != b->n[i])
			return 0;
	return 1;
}

int lk_is(const struct lk_view *v, int64_t a, int64_t b, int64_t c)
{
	return v->n[0] == a && (b < 0 || v->n[1] == b) && (c < 0 || v->n[2] == c);
}

/* Extents that multiply to something addressable, strides that do not let rows run into each other. */
static void check_extents(struct lk_check *c, const char *arg, const struct lk_view *v, int flags)
{
	int64_t span = 1; // elements from the first to the last of the inner dimensions, and one

	for (int i = v->ndim - 1; i >= 0; i--) {
		LK_WANT(c, v->n[i] >= 0, "extent %d of %s is %" PRId64, i, arg, v->n[i]);
		LK_WANT(c, i < v->ndim - 1 || v->stride[i] == 1, "the last stride of %s is %" PRId64 ", not 1", arg,
			v->stride[i]);
		LK_WANT(c, v->n[i] <= 1 || v->stride[i] >= span,
			"stride %d of %s is %" PRId64 ", but rows there are %" PRId64 " long", i, arg, v->stride[i], span);
		LK_WANT(c, !(flags & LK_DENSE) || v->n[i] <= 1 || v->stride[i] == span, "%s is not dense", arg);
		LK_WANT(c, v->n[i] <= 1 || v->stride[i] <= (INT64_MAX / 16 - span) / (v->n[i] - 1), "%s is too large",
			arg);
		if (c->rc)
			return;
		if (v->n[i] > 1)
			span += (v->n[i] - 1) * v->stride[i];
	}
}

void lk_check_view(struct lk_check *c, const char *arg, const struct lk_view *v, int ndim, unsigned dtypes, int flags)
{
	LK_WANT(c, v, "%s is NULL", arg);
	LK_WANT(c, v->ndim >= 1 && v->ndim <= 4 && (ndim == LK_ANY || v->ndim == ndim),
		"%s has %d dimensions, not %d", arg, v->ndim, ndim);
	LK_WANT(c, v->dtype >= 0 && v->dtype < LK_DTYPE_COUNT && (dtypes >> v->dtype & 1),
		"%s has element type %d, which is not taken here", arg, v->dtype);
	if (c->rc)
		return;
	check_extents(c, arg, v, flags);
	LK_WANT(c, v->data || lk_count(v) == 0, "%s has no memory", arg);
}

void lk_check_ptr(struct lk_check *c, const char *arg, const void *p, int64_t n)
{
	LK_WANT(c, n >= 0, "the count of %s is %" PRId64, arg, n);
	LK_WANT(c, p || n == 0, "%s is NULL", arg);
}

static int64_t span_from(const struct lk_view *v, int first)
{
	int64_t span = 1;

	for (int i = first; i < v->ndim; i++)
		span += (v->n[i] - 1) * v->stride[i];
	return span;
}

/* Rows of both views lie the same distance apart, and each row of one falls into the gaps of the other: column slices
 * of one matrix. */
static int interleaved(const struct lk_view *a, const struct lk_view *b)
{
	int64_t row = a->stride[0] * (int64_t)lk_dtype_size(a->dtype), wa, wb, off;

	if (a->ndim < 2 || b->ndim < 2 || row != b->stride[0] * (int64_t)lk_dtype_size(b->dtype) || row <= 0)
		return 0;
	wa = span_from(a, 1) * (int64_t)lk_dtype_size(a->dtype);
	wb = span_from(b, 1) * (int64_t)lk_dtype_size(b->dtype);
	off = ((char *)b->data - (char *)a->data) % row;
	off += off < 0 ? row : 0;
	return off >= wa && off + wb <= row;
}

void lk_check_apart(struct lk_check *c, const char *an, const struct lk_view *a, const char *bn,
		    const struct lk_view *b)
{
	uintptr_t a0, a1, b0, b1;

	if (c->rc || !lk_count(a) || !lk_count(b))
		return;
	a0 = (uintptr_t)a->data;
	b0 = (uintptr_t)b->data;
	a1 = a0 + (uintptr_t)span_from(a, 0) * lk_dtype_size(a->dtype);
	b1 = b0 + (uintptr_t)span_from(b, 0) * lk_dtype_size(b->dtype);
	LK_WANT(c, a1 <= b0 || b1 <= a0 || interleaved(a, b), "%s overlaps %s", an, bn);
}
