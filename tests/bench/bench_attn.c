/* bench_attn.c - attention of the cpu device against the machine's own sgemm and memory rate.
 *
 *	bench_attn [threads [T]]       rows for 1 thread and for `threads` (default: all the process may use); T 16384
 *
 * FLOPs are those of the causal half: forward 2 H T^2 D, backward 2.5 times that. of_sgemm is the ratio to the product
 * of 4096^3 with as many threads in the same run; of_sgemm_cpu the same in CPU time, for machines that others use too
 * (GOMP_SPINCOUNT=0 keeps waiting threads out of it). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/bench/bench.h"

enum { H = 8, D = 64, SGEMM = 4096, CACHE = 131072, DOC = 512 };

struct bench {
	struct lk_dev *dev;
	int threads;
	int64_t t;
	float *mem;       /* everything below */
	struct lk_attn a; /* (T,H,D) causal */
	struct lk_view o, dout, dq, dk, dv;
	float *lse, *delta;
	struct lk_attn_state st;
	struct lk_seq *row, *docs, *half[2], *doc;
	double sgemm, sgemm_cpu; /* GFLOP/s, per second of wall and of CPU time */
};

/* ---- steps ---- */

static int product(void *arg)
{
	struct bench *s = arg;
	struct lk_view a = lk_view2(s->mem, LK_F32, SGEMM, SGEMM), b = a, c = a;

	b.data = s->mem + SGEMM * SGEMM;
	c.data = s->mem + 2 * SGEMM * SGEMM;
	return lk_matmul(s->dev, &c, &a, &b, 0, 1.0f);
}

static int fwd(void *arg)
{
	struct bench *s = arg;

	return lk_attn_once(s->dev, &s->a, &s->o, s->lse);
}

static int bwd(void *arg)
{
	struct bench *s = arg;

	return lk_attn_bwd(s->dev, &s->a, &s->dout, s->lse, s->delta, &s->dq, &s->dk, &s->dv);
}

/* What a ring of two ranks computes, with the state carried from block to block. */
static int carried(void *arg)
{
	struct bench *s = arg;
	int rc = lk_attn_begin(s->dev, &s->st, s->t, H, D);

	for (int i = 0; !rc && i < 2; i++) {
		struct lk_attn a = s->a;

		a.ks = s->half[i];
		a.k.n[0] = a.v.n[0] = s->t / 2;
		a.k.data = (float *)s->a.k.data + i * (s->t / 2) * H * D;
		a.v.data = (float *)s->a.v.data + i * (s->t / 2) * H * D;
		rc = lk_attn_fwd(s->dev, &a, &s->st);
	}
	return rc ? rc : lk_attn_end(s->dev, &s->o, s->lse, &s->st);
}

static int packed(void *arg)
{
	struct bench *s = arg;
	struct lk_attn a = s->a;
	int rc;

	a.qs = a.ks = s->docs;
	rc = lk_attn_once(s->dev, &a, &s->o, s->lse);
	return rc ? rc : lk_attn_bwd(s->dev, &a, &s->dout, s->lse, s->delta, &s->dq, &s->dk, &s->dv);
}

static struct lk_view slice(struct lk_view v, int64_t from, int64_t n)
{
	v.data = (float *)v.data + from * v.stride[0];
	v.n[0] = n;
	return v;
}

static int alone(void *arg)
{
	struct bench *s = arg;
	int rc = 0;

	for (int64_t i = 0; !rc && i + DOC <= s->t; i += DOC) {
		struct lk_attn a = { slice(s->a.q, i, DOC), slice(s->a.k, i, DOC), slice(s->a.v, i, DOC),
				     s->doc, s->doc, .scale = s->a.scale, .causal = 1 };
		struct lk_view o = slice(s->o, i, DOC), dout = slice(s->dout, i, DOC), dq = slice(s->dq, i, DOC);
		struct lk_view dk = slice(s->dk, i, DOC), dv = slice(s->dv, i, DOC);

		rc = lk_attn_once(s->dev, &a, &o, s->lse + i * H);
		if (!rc)
			rc = lk_attn_bwd(s->dev, &a, &dout, s->lse + i * H, s->delta + i * H, &dq, &dk, &dv);
	}
	return rc;
}

/* ---- rows ---- */

static int row(const struct bench *s, const char *op, struct bench_time t, double flops)
{
	double rate = 1e-9 * flops / t.best, cpu = 1e-9 * flops / t.cpu;

	if (t.best < 0)
		return bench_row(op, s->threads, t, NULL, 0);
	printf("op=%s threads=%d T=%lld ms=%.3f median_ms=%.3f cpu_ms=%.3f GFLOPs=%.1f of_sgemm=%.3f ", op, s->threads,
	       (long long)s->t, 1e3 * t.best, 1e3 * t.median, 1e3 * t.cpu, rate, rate / s->sgemm);
	printf("of_sgemm_cpu=%.3f\n", cpu / s->sgemm_cpu);
	fflush(stdout);
	return 0;
}

static int sequences(struct bench *s)
{
	int32_t *pos = malloc((size_t)s->t * sizeof *pos), *at = malloc((size_t)s->t * sizeof *at);
	int32_t *seg = malloc((size_t)s->t * sizeof *seg);
	int rc = !pos || !at || !seg;

	for (int64_t i = 0; !rc && i < s->t; i++) {
		pos[i] = (int32_t)i;
		at[i] = (int32_t)(i % DOC);
		seg[i] = (int32_t)(i / DOC);
	}
	rc = rc || lk_seq_new(s->dev, &s->row, s->t, pos, NULL) || lk_seq_new(s->dev, &s->docs, s->t, at, seg) ||
	     lk_seq_new(s->dev, &s->half[0], s->t / 2, pos, NULL) ||
	     lk_seq_new(s->dev, &s->half[1], s->t / 2, pos + s->t / 2, NULL) ||
	     lk_seq_new(s->dev, &s->doc, DOC, pos, NULL);
	free(pos);
	free(at);
	free(seg);
	return rc;
}

static int attention_rows(struct bench *s)
{
	double flops = 2.0 * H * (double)s->t * (double)s->t * D;
	struct bench_time f = bench_run(fwd, s, 3), b, both, c;
	int bad = row(s, "attn_fwd", f, flops);

	bad |= lk_attn_delta(s->dev, s->delta, &s->o, &s->dout) != 0;
	b = bench_run(bwd, s, 3);
	bad |= row(s, "attn_bwd", b, 2.5 * flops);
	both.best = f.best < 0 || b.best < 0 ? -1 : f.best + b.best;
	both.median = f.median + b.median;
	both.cpu = f.cpu + b.cpu;
	bad |= row(s, "attn_fwd_bwd", both, 3.5 * flops);
	c = bench_run(carried, s, 3);
	bad |= row(s, "attn_carried", c, flops);
	return bad;
}

/* 512-token documents in one row, and each as a call of its own. */
static int document_rows(struct bench *s)
{
	double flops = 3.5 * 2.0 * H * (double)s->t * DOC * D;
	int bad = row(s, "attn_documents_packed", bench_run(packed, s, 3), flops);

	return bad | row(s, "attn_documents_alone", bench_run(alone, s, 3), flops);
}

static int problem(struct bench *s, int64_t t)
{
	int64_t n = t * H * D, r = t * H;
	float *p = s->mem;
	struct lk_view v[8];
	int rc;

	s->t = t;
	for (int i = 0; i < 8; i++, p += n)
		v[i] = lk_view3(p, LK_F32, t, H, D);
	s->st = (struct lk_attn_state){ p + n, p + n + r, p };
	s->lse = p + n + 2 * r;
	s->delta = s->lse + r;
	s->o = v[3];
	s->dout = v[4];
	s->dq = v[5];
	s->dk = v[6];
	s->dv = v[7];
	for (int64_t i = 0; i < 8 * n; i++) // the device's memory is the host's
		s->mem[i] = (float)((i * 7919) % 2003) / 1001.5f - 1.0f;
	rc = sequences(s);
	s->a = (struct lk_attn){ v[0], v[1], v[2], s->row, s->row, .scale = 1 / sqrtf(D), .causal = 1 };
	return rc;
}

/* One new token against a cache of CACHE tokens, beside a plain copy of as many bytes read. */
static int decode(void *arg)
{
	struct bench *s = arg;
	struct lk_view k = lk_view3(s->mem, LK_F32, CACHE, H, D), v = k, q = slice(k, 0, 1), o;
	struct lk_attn a;

	v.data = s->mem + (int64_t)CACHE * H * D;
	o = slice(k, 0, 1);
	o.data = (float *)v.data + (int64_t)CACHE * H * D;
	a = (struct lk_attn){ q, k, v, s->half[1], s->row, .scale = 1 / sqrtf(D) };
	return lk_attn_once(s->dev, &a, &o, (float *)o.data + H * D);
}

static int read_all(void *arg)
{
	struct bench *s = arg;
	double sum;

	return lk_sumsq(s->dev, s->mem, 2 * (int64_t)CACHE * H * D, &sum);
}

static int decode_rows(struct bench *s)
{
	double gb = 1e-9 * 2 * sizeof(float) * CACHE * H * D;
	int32_t *pos = calloc(CACHE, sizeof *pos);
	struct bench_time t;
	int bad;

	if (!pos || lk_seq_new(s->dev, &s->row, CACHE, pos, NULL) || lk_seq_new(s->dev, &s->half[1], 1, pos, NULL)) {
		free(pos);
		return 1;
	}
	free(pos);
	t = bench_run(decode, s, 9);
	bad = bench_row("attn_decode_128k", s->threads, t, "GBs", gb / t.best);
	t = bench_run(read_all, s, 9);
	return bad | bench_row("read_same_bytes", s->threads, t, "GBs", gb / t.best);
}

static void drop_sequences(struct bench *s)
{
	lk_seq_free(s->row);
	lk_seq_free(s->docs);
	lk_seq_free(s->half[0]);
	lk_seq_free(s->half[1]);
	lk_seq_free(s->doc);
	s->row = s->docs = s->half[0] = s->half[1] = s->doc = NULL;
}

static int bench_device(int threads, int64_t t)
{
	int64_t most = 9 * t * H * D + 4 * t * H, cache = 2 * (int64_t)CACHE * H * D + 2 * H * D;
	struct bench s = { .threads = threads };
	struct bench_time time;
	char why[256];
	void *p = NULL;
	int bad;

	if (lk_dev_open(&s.dev, "cpu", threads, why, sizeof why)) {
		fprintf(stderr, "bench_attn: %s\n", why);
		return 1;
	}
	most = most > cache ? most : cache;
	most = most > 3 * SGEMM * SGEMM ? most : 3 * SGEMM * SGEMM;
	s.threads = lk_dev_threads(s.dev);
	printf("# %s\n", lk_dev_name(s.dev));
	bad = lk_mem_alloc(s.dev, (size_t)most * sizeof(float), &p) || lk_fill(s.dev, p, most, 0.001f);
	s.mem = p;
	if (!bad) {
		time = bench_run(product, &s, 3);
		s.sgemm = 2e-9 * SGEMM * SGEMM * (double)SGEMM / time.best;
		s.sgemm_cpu = s.sgemm * time.best / time.cpu;
		bad = bench_row("sgemm_4096", s.threads, time, "GFLOPs", s.sgemm);
	}
	for (int64_t n = t < 4096 ? t : 4096; !bad && n <= t; n *= 4) {
		bad = problem(&s, n) || attention_rows(&s) || document_rows(&s);
		drop_sequences(&s);
	}
	bad = bad || decode_rows(&s);
	drop_sequences(&s);
	lk_mem_free(s.dev, p);
	lk_dev_close(s.dev);
	return bad;
}

int main(int argc, char **argv)
{
	long threads = argc > 1 ? strtol(argv[1], NULL, 10) : 0, t = argc > 2 ? strtol(argv[2], NULL, 10) : 16384;
	int bad;

	if (argc > 3 || threads < 0 || threads > 4096 || t < 2 * DOC || t > 1 << 24) {
		fprintf(stderr, "usage: bench_attn [threads [T]]\n");
		return 64;
	}
	bad = bench_device(1, t);
	if (threads != 1)
		bad |= bench_device((int)threads, t);
	return bad;
}
