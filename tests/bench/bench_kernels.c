/* bench_kernels.c - the dense ops of the cpu device: products against the 4096^3 yardstick, the rest against memory.
 *
 *	bench_kernels [threads]        rows for 1 thread and for `threads` (default: all the process may use)
 *
 * Shapes are those of a 124M transformer at 4096 tokens: width 768, 12 heads, hidden 2048, vocabulary 32000. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/bench/bench.h"

enum { T = 4096, D = 768, H = 12, F = 2048, V = 32000, CHUNK = 512, PARAMS = 16 << 20 };

struct bench {
	struct lk_dev *dev;
	float *a, *b, *c, *e; /* PARAMS numbers each */
	int32_t *ids;
	int64_t m, n, k;
	unsigned flags;
};

/* ---- steps ---- */

static int matmul(void *arg)
{
	struct bench *s = arg;
	int ta = (s->flags & LK_TA) != 0, tb = (s->flags & LK_TB) != 0;
	struct lk_view a = ta ? lk_view2(s->a, LK_F32, s->k, s->m) : lk_view2(s->a, LK_F32, s->m, s->k);
	struct lk_view b = tb ? lk_view2(s->b, LK_F32, s->n, s->k) : lk_view2(s->b, LK_F32, s->k, s->n);
	struct lk_view c = lk_view2(s->c, LK_F32, s->m, s->n);

	return lk_matmul(s->dev, &c, &a, &b, s->flags, 1.0f);
}

static int rms_fwd(void *arg)
{
	struct bench *s = arg;
	struct lk_view x = lk_view2(s->a, LK_F32, T, D), delta = lk_view2(s->b, LK_F32, T, D);
	struct lk_view y = lk_view2(s->c, LK_F32, T, D), w = lk_view1(s->e, LK_F32, D);

	return lk_rmsnorm_fwd(s->dev, &y, s->e + D, &x, &delta, &w, 1e-6f);
}

static int rms_bwd(void *arg)
{
	struct bench *s = arg;
	struct lk_view x = lk_view2(s->a, LK_F32, T, D), dy = lk_view2(s->b, LK_F32, T, D);
	struct lk_view dx = lk_view2(s->c, LK_F32, T, D), w = lk_view1(s->e, LK_F32, D);

	return lk_rmsnorm_bwd(s->dev, &dx, s->e + 8192, &dy, &x, &w, s->e + 16384);
}

static int rope(void *arg)
{
	struct bench *s = arg;
	struct lk_view x = lk_view3(s->a, LK_F32, T, H, D / H);

	return lk_rope(s->dev, &x, s->ids, 1e6, 0);
}

static int swiglu_fwd(void *arg)
{
	struct bench *s = arg;
	struct lk_view g = lk_view2(s->a, LK_F32, T, F), u = lk_view2(s->b, LK_F32, T, F);
	struct lk_view y = lk_view2(s->c, LK_F32, T, F);

	return lk_swiglu_fwd(s->dev, &y, &g, &u);
}

static int swiglu_bwd(void *arg)
{
	struct bench *s = arg;
	struct lk_view g = lk_view2(s->a, LK_F32, T, F), u = lk_view2(s->b, LK_F32, T, F);
	struct lk_view dy = lk_view2(s->c, LK_F32, T, F);
	struct lk_view dg = lk_view2(s->a + T * F, LK_F32, T, F), du = lk_view2(s->b + T * F, LK_F32, T, F);

	return lk_swiglu_bwd(s->dev, &dg, &du, &dy, &g, &u);
}

static int xent(void *arg)
{
	struct bench *s = arg;
	struct lk_view x = lk_view2(s->a, LK_F32, CHUNK, V);

	return lk_xent(s->dev, &x, s->ids, s->e, s->c, s->c + CHUNK, 1);
}

/* As one of several holders of a larger vocabulary has it. */
static int xent_cut(void *arg)
{
	struct bench *s = arg;
	struct lk_view x = lk_view2(s->a, LK_F32, CHUNK, V);
	float *all = s->c + 2 * CHUNK;
	int rc = lk_xent_part(s->dev, &x, s->ids, all, 1);

	return rc ? rc : lk_xent_join(s->dev, &x, s->ids, s->e, all, 1, 0, s->c, s->c + CHUNK, 1);
}

static int embed_bwd(void *arg)
{
	struct bench *s = arg;
	struct lk_view table = lk_view2(s->a, LK_F32, 16384, D), dy = lk_view2(s->b, LK_F32, T, D);

	return lk_embed_bwd(s->dev, &table, s->ids, &dy, 0);
}

static int axpy(void *arg)
{
	struct bench *s = arg;
	struct lk_view y = lk_view1(s->a, LK_F32, PARAMS), x = lk_view1(s->b, LK_F32, PARAMS);

	return lk_axpy(s->dev, &y, 0.5f, &x);
}

static int copy(void *arg)
{
	struct bench *s = arg;

	return lk_copy(s->dev, s->a, s->b, PARAMS * sizeof(float));
}

static int sumsq(void *arg)
{
	struct bench *s = arg;
	double sum;

	return lk_sumsq(s->dev, s->a, PARAMS, &sum);
}

static int adamw(void *arg)
{
	struct bench *s = arg;
	struct lk_adamw_cfg cfg = { 1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 0.5, 0.5 };

	return lk_adamw(s->dev, s->a, s->b, s->c, s->e, NULL, PARAMS, &cfg);
}

/* ---- rows ---- */

struct product {
	const char *name;
	int64_t m, n, k;
	unsigned flags;
};

/* What one layer and the head do, forward, for dx and for dw; and one token at a time. */
static const struct product products[] = {
	{ "matmul_4096", 4096, 4096, 4096, 0 },
	{ "matmul_qkv", T, 3 * D, D, LK_TB },
	{ "matmul_qkv_dx", T, D, 3 * D, 0 },
	{ "matmul_qkv_dw", 3 * D, D, T, LK_TA | LK_ACC },
	{ "matmul_out", T, D, D, LK_TB },
	{ "matmul_down", T, D, F, LK_TB },
	{ "matmul_down_dw", D, F, T, LK_TA | LK_ACC },
	{ "matmul_head", CHUNK, V, D, LK_TB },
	{ "matmul_head_dx", CHUNK, D, V, 0 },
	{ "matmul_head_dw", V, D, CHUNK, LK_TA | LK_ACC },
	{ "matmul_thin", 1, 4096, 4096, LK_TB },
	{ "matmul_thin4", 4, 4096, 4096, LK_TB },
};

static int bench_products(struct bench *s, int threads)
{
	int bad = 0;

	for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
		const struct product *p = &products[i];
		struct bench_time t;

		s->m = p->m;
		s->n = p->n;
		s->k = p->k;
		s->flags = p->flags;
		t = bench_run(matmul, s, p->m < 16 ? 15 : 5);
		bad |= bench_row(p->name, threads, t, "GFLOPs",
				 2e-9 * (double)p->m * (double)p->n * (double)p->k / t.best);
	}
	return bad;
}

/* bytes: what the op must read and write at least */
static int bench_memory(struct bench *s, int threads)
{
	static const struct {
		const char *name;
		int (*step)(void *);
		double bytes;
	} rows[] = {
		{ "copy", copy, 8.0 * PARAMS },
		{ "axpy", axpy, 12.0 * PARAMS },
		{ "sumsq", sumsq, 4.0 * PARAMS },
		{ "adamw", adamw, 28.0 * PARAMS },
		{ "rmsnorm_fwd", rms_fwd, 16.0 * T * D },
		{ "rmsnorm_bwd", rms_bwd, 16.0 * T * D },
		{ "rope", rope, 8.0 * T * D },
		{ "swiglu_fwd", swiglu_fwd, 12.0 * T * F },
		{ "swiglu_bwd", swiglu_bwd, 20.0 * T * F },
		{ "xent", xent, 8.0 * CHUNK * V },
		{ "xent_cut", xent_cut, 8.0 * CHUNK * V },
		{ "embed_bwd", embed_bwd, 12.0 * T * D },
	};
	int bad = 0;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct bench_time t = bench_run(rows[i].step, s, 9);

		bad |= bench_row(rows[i].name, threads, t, "GBs", 1e-9 * rows[i].bytes / t.best);
	}
	return bad;
}

static int alloc_numbers(struct lk_dev *dev, float **out, size_t count, float value)
{
	void *p;
	int rc = lk_mem_alloc(dev, count * sizeof(float), &p);

	*out = p;
	return rc ? rc : lk_fill(dev, p, (int64_t)count, value);
}

static int bench_device(int threads)
{
	struct bench s = { 0 };
	int32_t host_ids[T];
	char why[256];
	void *p;
	int rc;

	if (lk_dev_open(&s.dev, "cpu", threads, why, sizeof why)) {
		fprintf(stderr, "bench_kernels: %s\n", why);
		return 1;
	}
	printf("device=\"%s\"\n", lk_dev_name(s.dev));
	if (*lk_dev_warning(s.dev))
		printf("warning=\"%s\"\n", lk_dev_warning(s.dev));
	for (int i = 0; i < T; i++)
		host_ids[i] = (int32_t)((unsigned)i * 2654435761u % 16384);
	rc = alloc_numbers(s.dev, &s.a, 24 << 20, 0.01f) || alloc_numbers(s.dev, &s.b, 24 << 20, 0.02f) ||
	     alloc_numbers(s.dev, &s.c, 24 << 20, 0.03f) || alloc_numbers(s.dev, &s.e, PARAMS, 0.04f) ||
	     lk_mem_alloc(s.dev, sizeof host_ids, &p);
	if (!rc) {
		s.ids = p;
		rc = lk_upload(s.dev, s.ids, host_ids, sizeof host_ids);
	}
	if (rc)
		fprintf(stderr, "bench_kernels: %s\n", lk_dev_error(s.dev));
	else
		rc = bench_products(&s, lk_dev_threads(s.dev)) | bench_memory(&s, lk_dev_threads(s.dev));
	lk_mem_free(s.dev, s.a);
	lk_mem_free(s.dev, s.b);
	lk_mem_free(s.dev, s.c);
	lk_mem_free(s.dev, s.e);
	lk_mem_free(s.dev, s.ids);
	lk_dev_close(s.dev);
	return rc != 0;
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0, bad;

	if (argc > 2 || threads < 0) {
		fprintf(stderr, "usage: bench_kernels [threads]\n");
		return 64;
	}
	bad = threads == 1 ? 0 : bench_device(1);
	return bad | bench_device(threads) ? 1 : 0;
}
