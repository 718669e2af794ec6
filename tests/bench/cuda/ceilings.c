/* ceilings.c - what the device can do: a large product, a copy; and the products of the models against the first. */
#include <stdio.h>

#include "tests/bench/cuda/bench_gpu.h"

struct product {
	struct lk_dev *dev;
	struct lk_view c, a, b;
	unsigned flags;
};

static int multiply(void *arg)
{
	struct product *p = arg;

	return lk_matmul(p->dev, &p->c, &p->a, &p->b, p->flags, 1.0f);
}

/* op(a) (m,k) times op(b) (k,n) of random numbers; seconds in *t. */
static int product(struct gpu_bench *b, int64_t m, int64_t n, int64_t k, unsigned flags, int ctype, struct gpu_time *t)
{
	void *pa = gpu_random(b, b->act, m * k, 1), *pb = gpu_random(b, b->act, n * k, 1);
	void *pc = gpu_random(b, ctype, m * n, 1);
	struct product p = { b->dev, lk_view2(pc, ctype, m, n),
			     flags & LK_TA ? lk_view2(pa, b->act, k, m) : lk_view2(pa, b->act, m, k),
			     flags & LK_TB ? lk_view2(pb, b->act, n, k) : lk_view2(pb, b->act, k, n), flags };

	*t = (struct gpu_time){ -1, -1 };
	if (pa && pb && pc)
		*t = gpu_measure(b, multiply, &p);
	gpu_release(b);
	return t->best < 0 ? -1 : 0;
}

struct copy {
	struct lk_dev *dev;
	char *p;
	size_t bytes;
};

static int copy(void *arg)
{
	struct copy *c = arg;

	return lk_copy(c->dev, c->p + c->bytes, c->p, c->bytes);
}

static void model_products(struct gpu_bench *b)
{
	static const struct {
		const char *name;
		int64_t n, k;
		unsigned flags;
	} shapes[] = {
		{ "1b: q, k, v", 6144, 2048, LK_TB },
		{ "1b: gate and up", 11008, 2048, LK_TB },
		{ "1b: down, added to the stream", 2048, 5504, LK_TB | LK_ACC },
		{ "1b: gradient of down's input", 5504, 2048, 0 },
		{ "7b: gate and up", 22016, 4096, LK_TB },
		{ "7b: head", 32000, 4096, LK_TB },
	};
	int64_t tokens = gpu_pick(b, 16384, 48);
	struct gpu_time t;
	char name[64];

	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		int64_t n = gpu_pick(b, shapes[i].n, 40), k = gpu_pick(b, shapes[i].k, 24);

		snprintf(name, sizeof name, "product %s", shapes[i].name);
		product(b, tokens, n, k, shapes[i].flags, b->act, &t);
		gpu_compute_row(b, name, t, 2.0 * (double)tokens * (double)n * (double)k, 0.90, 0.97);
	}
	int64_t n = gpu_pick(b, 5504, 40), m = gpu_pick(b, 2048, 24);

	product(b, m, n, tokens, LK_TA | LK_ACC, LK_F32, &t);
	gpu_compute_row(b, "product 1b: gradient of down, fp32 sum", t, 2.0 * (double)tokens * (double)n * (double)m, 0.90, 0.97);
}

void gpu_part_ceilings(struct gpu_bench *b)
{
	int64_t n = gpu_pick(b, 8192, 96);
	size_t bytes = (size_t)gpu_pick(b, (int64_t)4 << 30, 1 << 16);
	struct copy c = { b->dev, gpu_random(b, LK_F32, (int64_t)(bytes / 2), 1), bytes };
	struct gpu_time t = c.p ? gpu_measure(b, copy, &c) : (struct gpu_time){ -1, -1 };

	b->bytes = t.best > 0 ? 2 * (double)bytes / t.best : 0;
	gpu_memory_row(b, "copy within the device, read + written", t, 2 * (double)bytes, 0, 0);
	gpu_release(b);
	product(b, n, n, n, LK_TB, b->act, &t);
	b->flops = t.best > 0 ? 2.0 * (double)n * (double)n * (double)n / t.best : 0;
	gpu_compute_row(b, "product of 8192 x 8192 x 8192", t, 2.0 * (double)n * (double)n * (double)n, 0, 0);
	model_products(b);
}
