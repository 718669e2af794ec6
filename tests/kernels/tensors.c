/* tensors.c - the tensors of a case: generated, uploaded between guard words, read back. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/ops_int.h"

/* SplitMix64 (Steele et al. 2014) of a counter: any number of a stream without the ones before it. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint64_t draw(uint64_t seed, uint64_t stream, uint64_t i)
{
	return mix(mix(seed * 0x2545f4914f6cdd1du + stream) + i);
}

static double unit(uint64_t x)
{
	return (double)(x >> 11) * 0x1p-53;
}

uint32_t ops_u32(struct ops_run *r)
{
	return (uint32_t)(draw(r->seed, r->draws++, 0) >> 32);
}

double ops_uniform(struct ops_run *r)
{
	return unit(draw(r->seed, r->draws++, 0));
}

void ops_pad(struct ops_run *r, int elements)
{
	r->pad = elements;
}

void ops_scale(struct ops_run *r, double scale)
{
	r->scale = scale;
}

/* ---- bf16 ---- */

float ops_bf16_get(uint16_t b)
{
	uint32_t bits = (uint32_t)b << 16;
	float f;

	memcpy(&f, &bits, sizeof f);
	return f;
}

uint16_t ops_bf16_put(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	if ((bits & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* ---- fp16, by its definition ---- */

double ops_f16_get(uint16_t b)
{
	int exponent = b >> 10 & 31, fraction = b & 1023;
	double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);

	if (exponent == 31)
		size = fraction ? NAN : INFINITY;
	return b & 0x8000 ? -size : size;
}

uint16_t ops_f16_put(double x)
{
	uint16_t sign = signbit(x) ? 0x8000 : 0;
	int e;

	if (isnan(x))
		return sign | 0x7e00;
	if (fabs(x) >= 65520)
		return sign | 0x7c00;
	frexp(x, &e); /* x below 2^e */
	e = x == 0 || e < -13 ? -13 : e;
	double ulps = nearbyint(ldexp(fabs(x), 11 - e)); /* ties to even; 2^11 of them are the next power of two */
	return (uint16_t)(sign + (e + 13) * 1024 + (int)ulps);
}

/* ---- making ---- */

static void trouble(struct ops_run *r, const char *what)
{
	if (!r->why[0])
		snprintf(r->why, sizeof r->why, "%s", what);
}

/* Offset in elements of the i-th element, counted densely. */
int64_t ops_offset(const struct lk_view *v, int64_t i)
{
	int64_t off = 0;

	for (int d = v->ndim - 1; d >= 0; d--) {
		off += i % v->n[d] * v->stride[d];
		i /= v->n[d];
	}
	return off;
}

int64_t ops_count(const struct lk_view *v)
{
	int64_t n = 1;

	for (int d = 0; d < v->ndim; d++)
		n *= v->n[d];
	return n;
}

static struct lk_view shape(struct ops_run *r, int dtype, int ndim, va_list ap)
{
	struct lk_view v = { .ndim = ndim, .dtype = dtype == OPS_ACT ? lk_dev_dtype(r->dev) : dtype };
	int64_t step = 1;

	for (int d = 0; d < ndim; d++)
		v.n[d] = va_arg(ap, int);
	for (int d = ndim - 1; d >= 0; d--) {
		v.stride[d] = step;
		step *= v.n[d];
		if (d == ndim - 1 && ndim > 1)
			step += r->pad;
	}
	return v;
}

double ops_element(const void *data, int dtype, int64_t off)
{
	switch (dtype) {
	case LK_BF16: return ops_bf16_get(((const uint16_t *)data)[off]);
	case LK_F16: return ops_f16_get(((const uint16_t *)data)[off]);
	case LK_I32: return ((const int32_t *)data)[off];
	case LK_U8: return ((const uint8_t *)data)[off];
	case LK_I8: return ((const int8_t *)data)[off];
	default: return ((const float *)data)[off];
	}
}

static void set_element(void *data, int dtype, int64_t off, double x)
{
	switch (dtype) {
	case LK_BF16: ((uint16_t *)data)[off] = ops_bf16_put((float)x); break;
	case LK_F16: ((uint16_t *)data)[off] = ops_f16_put(x); break;
	case LK_I32: ((int32_t *)data)[off] = (int32_t)x; break;
	case LK_U8: ((uint8_t *)data)[off] = (uint8_t)x; break;
	case LK_I8: ((int8_t *)data)[off] = (int8_t)x; break;
	default: ((float *)data)[off] = (float)x;
	}
}

/* Adds a tensor of this shape; its host copy is filled with `fill` bytes, not uploaded yet. NULL when there is no room. */
static struct ops_tensor *add(struct ops_run *r, const char *name, enum ops_role role, struct lk_view v, int fill)
{
	struct ops_tensor *t = &r->t[r->nt];
	int64_t extent = 1;

	if (r->nt == OPS_MAX_TENSORS) {
		trouble(r, "the case uses more tensors than OPS_MAX_TENSORS");
		return NULL;
	}
	for (int d = 0; d < v.ndim; d++)
		extent = v.n[d] == 0 ? 0 : extent + (extent ? (v.n[d] - 1) * v.stride[d] : 0);
	if (v.ndim > 1 && extent)
		extent += r->pad; // the gap after the last row is watched too
	memset(t, 0, sizeof *t);
	snprintf(t->name, sizeof t->name, "%s", name);
	t->role = role;
	t->bytes = (size_t)extent * lk_dtype_size(v.dtype);
	t->host = malloc(t->bytes + 2 * OPS_GUARD);
	if (!t->host || lk_mem_alloc(r->dev, t->bytes + 2 * OPS_GUARD, &t->base)) {
		trouble(r, "out of memory");
		free(t->host);
		return NULL;
	}
	memset(t->host, OPS_GUARD_BYTE, t->bytes + 2 * OPS_GUARD);
	for (int64_t i = 0; i < ops_count(&v); i++)
		memset(ops_host(t) + (size_t)ops_offset(&v, i) * lk_dtype_size(v.dtype), fill, lk_dtype_size(v.dtype));
	v.data = (char *)t->base + OPS_GUARD;
	t->v = v;
	r->nt++;
	return t;
}

static struct lk_view upload(struct ops_run *r, struct ops_tensor *t)
{
	struct lk_view none = { .ndim = 1 };

	if (!t)
		return none;
	if (lk_upload(r->dev, t->base, t->host, t->bytes + 2 * OPS_GUARD))
		trouble(r, lk_dev_error(r->dev));
	return t->v;
}

static void fill_uniform(struct ops_run *r, struct ops_tensor *t)
{
	uint64_t stream = r->draws++;

	for (int64_t i = 0; t && i < ops_count(&t->v); i++) {
		float x = (float)(r->scale * (2 * unit(draw(r->seed, stream, (uint64_t)i)) - 1));

		if (r->bf16)
			x = ops_bf16_get(ops_bf16_put(x));
		set_element(ops_host(t), t->v.dtype, ops_offset(&t->v, i), x);
	}
}

struct lk_view ops_in(struct ops_run *r, int dtype, int ndim, ...)
{
	struct ops_tensor *t;
	va_list ap;

	va_start(ap, ndim);
	t = add(r, "input", OPS_INPUT, shape(r, dtype, ndim, ap), 0);
	va_end(ap);
	fill_uniform(r, t);
	return upload(r, t);
}

struct lk_view ops_ints(struct ops_run *r, int dtype, int64_t lo, int64_t hi, int ndim, ...)
{
	uint64_t stream = r->draws++;
	struct ops_tensor *t;
	va_list ap;

	va_start(ap, ndim);
	t = add(r, "input", OPS_INPUT, shape(r, dtype, ndim, ap), 0);
	va_end(ap);
	for (int64_t i = 0; t && i < ops_count(&t->v); i++)
		set_element(ops_host(t), dtype, ops_offset(&t->v, i),
			    (double)(lo + (int64_t)(draw(r->seed, stream, (uint64_t)i) % (uint64_t)(hi - lo))));
	return upload(r, t);
}

struct lk_view ops_given_i32(struct ops_run *r, const int32_t *x, int64_t n)
{
	struct ops_tensor *t = add(r, "input", OPS_INPUT, lk_view1(NULL, LK_I32, n), 0);

	if (t && n > 0)
		memcpy(ops_host(t), x, (size_t)n * sizeof *x);
	return upload(r, t);
}

struct lk_view ops_given_f32(struct ops_run *r, int dtype, const float *x, int ndim, ...)
{
	struct ops_tensor *t;
	va_list ap;

	va_start(ap, ndim);
	t = add(r, "input", OPS_INPUT, shape(r, dtype, ndim, ap), 0);
	va_end(ap);
	for (int64_t i = 0; t && i < ops_count(&t->v); i++)
		set_element(ops_host(t), t->v.dtype, ops_offset(&t->v, i),
			    r->bf16 ? ops_bf16_get(ops_bf16_put(x[i])) : x[i]);
	return upload(r, t);
}

/* 0xFF bytes are a NaN as fp32, bf16 and fp16; integers get 0xA5. */
struct lk_view ops_out(struct ops_run *r, const char *name, int dtype, int ndim, ...)
{
	struct lk_view v;
	va_list ap;

	va_start(ap, ndim);
	v = shape(r, dtype, ndim, ap);
	va_end(ap);
	return upload(r, add(r, name, OPS_OUTPUT, v, v.dtype == LK_F32 || v.dtype == LK_BF16 || v.dtype == LK_F16 ? 0xFF : 0xA5));
}

struct lk_view ops_inout(struct ops_run *r, const char *name, int dtype, int ndim, ...)
{
	struct ops_tensor *t;
	va_list ap;

	va_start(ap, ndim);
	t = add(r, name, OPS_OUTPUT, shape(r, dtype, ndim, ap), 0);
	va_end(ap);
	fill_uniform(r, t);
	return upload(r, t);
}

struct lk_view ops_zeros(struct ops_run *r, const char *name, int dtype, int ndim, ...)
{
	struct lk_view v;
	va_list ap;

	va_start(ap, ndim);
	v = shape(r, dtype, ndim, ap);
	va_end(ap);
	return upload(r, add(r, name, OPS_OUTPUT, v, 0));
}

void ops_value(struct ops_run *r, const char *name, double value)
{
	struct ops_tensor *t = &r->t[r->nt];

	if (r->nt == OPS_MAX_TENSORS) {
		trouble(r, "the case uses more tensors than OPS_MAX_TENSORS");
		return;
	}
	memset(t, 0, sizeof *t);
	snprintf(t->name, sizeof t->name, "%s", name);
	t->role = OPS_VALUE;
	t->value = value;
	r->nt++;
}

struct lk_view ops_var(struct ops_run *r, const char *name, int ndim, ...)
{
	struct ops_tensor *t;
	va_list ap;

	va_start(ap, ndim);
	t = add(r, name, OPS_VAR, shape(r, LK_F32, ndim, ap), 0);
	va_end(ap);
	fill_uniform(r, t);
	for (int64_t i = 0; t && t - r->t == r->bump_var && i < ops_count(&t->v); i++) {
		int64_t off = ops_offset(&t->v, i);
		double x = ops_element(ops_host(t), LK_F32, off);

		set_element(ops_host(t), LK_F32, off, x + r->bump_step * r->bump_dir[i]);
	}
	return upload(r, t);
}

/* ---- reading back ---- */

int ops_fetch(struct ops_run *r, struct ops_tensor *t)
{
	if (t->role == OPS_VALUE)
		return 0;
	return lk_download(r->dev, t->host, t->base, t->bytes + 2 * OPS_GUARD);
}

/* The tensor that a view came from, with its host copy made fresh. */
struct ops_tensor *ops_find(struct ops_run *r, const struct lk_view *v)
{
	for (int i = 0; i < r->nt; i++) {
		if (r->t[i].role != OPS_VALUE && r->t[i].v.data == v->data) {
			if (ops_fetch(r, &r->t[i]))
				trouble(r, lk_dev_error(r->dev));
			return &r->t[i];
		}
	}
	trouble(r, "a view that did not come from the harness");
	return NULL;
}

void ops_loss(struct ops_run *r, const struct lk_view *y, const struct lk_view *dy)
{
	const struct ops_tensor *a = ops_find(r, y), *b = ops_find(r, dy);

	for (int64_t i = 0; a && b && i < ops_count(y); i++)
		r->loss += ops_element(ops_host(a), y->dtype, ops_offset(y, i)) *
			   ops_element(ops_host(b), dy->dtype, ops_offset(dy, i));
}

void ops_grad(struct ops_run *r, const char *var, const struct lk_view *grad)
{
	struct ops_tensor *g = ops_find(r, grad);

	for (int i = 0; g && i < r->nt; i++) {
		if (r->t[i].role == OPS_VAR && strcmp(r->t[i].name, var) == 0) {
			r->t[i].grad = g;
			return;
		}
	}
	trouble(r, "ops_grad names no ops_var");
}

void ops_release(struct ops_run *r)
{
	for (int i = 0; i < r->nt; i++) {
		lk_mem_free(r->dev, r->t[i].base);
		free(r->t[i].host);
	}
	r->nt = 0;
}
