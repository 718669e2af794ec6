/* attention.c - attention, forward and backward: one long sequence, a carried block, documents packed into a long row. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/cuda/bench_gpu.h"

struct attention {
	struct gpu_bench *b;
	struct lk_attn a;
	struct lk_view o, dout, dq, dk, dv;
	float *lse, *delta;
	struct lk_attn_state st;
	/* documents of a packed row, each with its own sequence */
	struct lk_seq **doc;
	int64_t *from, docs;
};

static struct lk_view heads(void *p, int dtype, int64_t t, int64_t h, int64_t d)
{
	return lk_view3(p, dtype, t, h, d);
}

/* Everything for t queries and keys but the sequences; 0, or -1. */
static int make(struct attention *x, int64_t t, int64_t h, int64_t d)
{
	struct gpu_bench *b = x->b;
	int64_t n = t * h * d;
	void *p[9];

	for (int i = 0; i < 5; i++)
		p[i] = gpu_random(b, b->act, n, 1);
	for (int i = 5; i < 8; i++)
		p[i] = gpu_mem(b, (size_t)n * 4);
	p[8] = gpu_mem(b, (size_t)(t * h) * 8);
	for (int i = 0; i < 9; i++)
		if (!p[i])
			return -1;
	x->a.q = heads(p[0], b->act, t, h, d);
	x->a.k = heads(p[1], b->act, t, h, d);
	x->a.v = heads(p[2], b->act, t, h, d);
	x->dout = heads(p[3], b->act, t, h, d);
	x->o = heads(p[4], b->act, t, h, d);
	x->dq = heads(p[5], LK_F32, t, h, d);
	x->dk = heads(p[6], LK_F32, t, h, d);
	x->dv = heads(p[7], LK_F32, t, h, d);
	x->lse = p[8];
	x->delta = x->lse + t * h;
	x->a.scale = (float)(1 / sqrt((double)d));
	x->a.causal = 1;
	for (int i = 5; i < 8; i++)
		if (lk_zero(b->dev, p[i], (size_t)n * 4))
			return -1;
	return 0;
}

static int forward(void *arg)
{
	struct attention *x = arg;

	return lk_attn_once(x->b->dev, &x->a, &x->o, x->lse);
}

static int backward(void *arg)
{
	struct attention *x = arg;
	int rc = lk_attn_delta(x->b->dev, x->delta, &x->o, &x->dout);

	return rc ? rc : lk_attn_bwd(x->b->dev, &x->a, &x->dout, x->lse, x->delta, &x->dq, &x->dk, &x->dv);
}

static int carried(void *arg)
{
	struct attention *x = arg;

	return lk_attn_fwd(x->b->dev, &x->a, &x->st);
}

/* Positions from `first` on, one segment. */
static struct lk_seq *line(struct gpu_bench *b, int64_t n, int64_t first)
{
	int32_t *pos = malloc((size_t)n * sizeof *pos);
	struct lk_seq *s = NULL;

	for (int64_t i = 0; pos && i < n; i++)
		pos[i] = (int32_t)(first + i);
	if (pos && lk_seq_new(b->dev, &s, n, pos, NULL))
		snprintf(b->why, sizeof b->why, "%s", lk_dev_error(b->dev));
	free(pos);
	return s;
}

static void one_size(struct gpu_bench *b, int64_t t, int64_t h, int64_t d)
{
	double flop = 2 * (double)t * (double)t * (double)(h * d); // causal half
	struct attention x = { .b = b };
	struct lk_seq *s = line(b, t, 0), *later = line(b, t, t);
	struct gpu_time f = { -1, -1 }, w = f, c = f;
	char name[64];

	if (s && later && make(&x, t, h, d) == 0) {
		x.a.qs = x.a.ks = s;
		f = gpu_measure(b, forward, &x);
		if (f.best > 0)
			w = gpu_measure(b, backward, &x);
		x.a.qs = later;
		x.st = (struct lk_attn_state){ x.lse, x.delta, x.dq.data };
		if (w.best > 0 && lk_attn_begin(b->dev, &x.st, t, h, d) == 0)
			c = gpu_measure(b, carried, &x);
	}
	snprintf(name, sizeof name, "attention forward, causal %lldK, %lld x %lld", (long long)t / 1024, (long long)h, (long long)d);
	gpu_compute_row(b, name, f, flop, d == 128 ? 0.50 : 0, 0.80);
	snprintf(name, sizeof name, "attention backward, causal %lldK, %lld x %lld", (long long)t / 1024, (long long)h, (long long)d);
	gpu_compute_row(b, name, w, 2.5 * flop, d == 128 ? 0.35 : 0, 0.65);
	snprintf(name, sizeof name, "attention of a ring's step, %lldK, %lld x %lld", (long long)t / 1024, (long long)h, (long long)d);
	gpu_compute_row(b, name, c, 2 * flop, 0, 0);
	lk_sync(b->dev);
	lk_seq_free(s);
	lk_seq_free(later);
	gpu_release(b);
}

void gpu_part_attention(struct gpu_bench *b)
{
	int64_t t = gpu_pick(b, 16384, 80);

	one_size(b, t, gpu_pick(b, 32, 2), 64);
	one_size(b, t, gpu_pick(b, 24, 1), 96);
	one_size(b, t, gpu_pick(b, 16, 2), 128);
	one_size(b, gpu_pick(b, 131072, 150), gpu_pick(b, 16, 1), 128);
}

/* ---- packed rows ---- */

/* Lengths between least and most, even on a logarithmic scale, until the row of t is full. */
static int64_t cut(int64_t t, int64_t least, int64_t most, int64_t *from)
{
	uint64_t state = 7;
	int64_t n = 0, at = 0;

	while (at < t) {
		int64_t len = (int64_t)((double)least * pow((double)most / (double)least, gpu_uniform(&state)));

		from[n++] = at;
		at = t - at - len < least ? t : at + len;
	}
	from[n] = t;
	return n;
}

static struct lk_seq *packed_line(struct gpu_bench *b, int64_t t, const int64_t *from, int64_t docs)
{
	int32_t *pos = malloc((size_t)t * 2 * sizeof *pos), *seg = pos + t;
	struct lk_seq *s = NULL;

	for (int64_t i = 0; pos && i < docs; i++)
		for (int64_t k = from[i]; k < from[i + 1]; k++) {
			pos[k] = (int32_t)(k - from[i]);
			seg[k] = (int32_t)i;
		}
	if (pos && lk_seq_new(b->dev, &s, t, pos, seg))
		snprintf(b->why, sizeof b->why, "%s", lk_dev_error(b->dev));
	free(pos);
	return s;
}

static struct lk_view slice(const struct lk_view *v, int64_t from, int64_t to)
{
	struct lk_view y = *v;

	y.data = (char *)v->data + (size_t)(from * v->stride[0]) * lk_dtype_size(v->dtype);
	y.n[0] = to - from;
	return y;
}

/* Document i of x by itself. */
static struct attention alone(const struct attention *x, int64_t i)
{
	int64_t from = x->from[i], to = x->from[i + 1], h = x->a.q.n[1];
	struct attention y = *x;

	y.a.q = slice(&x->a.q, from, to);
	y.a.k = slice(&x->a.k, from, to);
	y.a.v = slice(&x->a.v, from, to);
	y.o = slice(&x->o, from, to);
	y.dout = slice(&x->dout, from, to);
	y.dq = slice(&x->dq, from, to);
	y.dk = slice(&x->dk, from, to);
	y.dv = slice(&x->dv, from, to);
	y.lse = x->lse + from * h;
	y.delta = x->delta + from * h;
	y.a.qs = y.a.ks = x->doc[i];
	return y;
}

static int forward_each(void *arg)
{
	struct attention *x = arg;
	int rc = 0;

	for (int64_t i = 0; !rc && i < x->docs; i++) {
		struct attention y = alone(x, i);

		rc = forward(&y);
	}
	return rc;
}

static int backward_each(void *arg)
{
	struct attention *x = arg;
	int rc = 0;

	for (int64_t i = 0; !rc && i < x->docs; i++) {
		struct attention y = alone(x, i);

		rc = backward(&y);
	}
	return rc;
}

/* One of the two did not run: a failed row. */
static struct gpu_time both(struct gpu_time a, struct gpu_time b)
{
	return a.best > 0 && b.best > 0 ? a : (struct gpu_time){ -1, -1 };
}

static void measure_packed(struct gpu_bench *b, struct attention *x, int64_t t, int64_t width)
{
	double flop = 0;
	struct gpu_time f, fe, w, we;

	for (int64_t i = 0; i < x->docs; i++)
		flop += 2 * pow((double)(x->from[i + 1] - x->from[i]), 2) * (double)width;
	f = gpu_measure(b, forward, x);
	fe = gpu_measure(b, forward_each, x);
	gpu_compute_row(b, "packed row of 1M, forward", f, flop, 0, 0);
	gpu_add_row(b, "packed row of 1M against its documents, forward", both(f, fe), (double)t / f.best * 1e-6, "Mtok/s",
		    f.best / fe.best, "documents", 1.15, 1.03);
	w = gpu_measure(b, backward, x);
	we = gpu_measure(b, backward_each, x);
	gpu_compute_row(b, "packed row of 1M, backward", w, 2.5 * flop, 0, 0);
	gpu_add_row(b, "packed row of 1M against its documents, backward", both(w, we), (double)t / w.best * 1e-6, "Mtok/s",
		    w.best / we.best, "documents", 1.15, 1.03);
}

void gpu_part_packed(struct gpu_bench *b)
{
	int64_t t = gpu_pick(b, 1 << 20, 400), h = gpu_pick(b, 16, 1), d = gpu_pick(b, 128, 64);
	int64_t least = gpu_pick(b, 4096, 20), most = gpu_pick(b, 65536, 120);
	struct attention x = { .b = b };
	struct lk_seq *whole = NULL;
	bool ready;

	x.from = malloc((size_t)(t / least + 2) * sizeof *x.from);
	x.docs = x.from ? cut(t, least, most, x.from) : 0;
	x.doc = calloc((size_t)x.docs + 1, sizeof *x.doc);
	ready = x.doc && x.docs && make(&x, t, h, d) == 0;
	for (int64_t i = 0; ready && i < x.docs; i++) {
		x.doc[i] = line(b, x.from[i + 1] - x.from[i], 0);
		ready = x.doc[i] != NULL;
	}
	if (ready)
		whole = packed_line(b, t, x.from, x.docs);
	x.a.qs = x.a.ks = whole;
	if (whole)
		measure_packed(b, &x, t, h * d);
	else
		gpu_fail(b, "packed row of 1M");
	lk_sync(b->dev);
	for (int64_t i = 0; x.doc && i < x.docs; i++)
		lk_seq_free(x.doc[i]);
	lk_seq_free(whole);
	free(x.doc);
	free(x.from);
}
