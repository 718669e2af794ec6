/* What the cpu device says it will take for itself (lk_attn_own, lk_conv_own), against what it has taken behind the calls; and
 * what the machine has left. */
#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/image_int.h"

static struct lk_dev *open_cpu(int threads)
{
	struct lk_dev *dev;
	char why[256];
	if (lk_dev_open(&dev, "cpu", threads, why, sizeof why))
		fail_msg("%s", why);
	return dev;
}

static void must(struct lk_dev *dev, int rc)
{
	if (rc)
		fail_msg("%s", lk_dev_error(dev));
}

/* Small values; the same each time. */
static float *numbers(int64_t n)
{
	float *x = malloc((size_t)n * sizeof *x);
	assert_non_null(x);
	for (int64_t i = 0; i < n; i++)
		x[i] = (float)(i * 2654435761u % 1000) * 1e-3f - 0.5f;
	return x;
}

/* Forward and backward of one document of n tokens, then the angles. Returns the scratch that is there behind it. */
static int64_t attend(struct lk_dev *dev, int64_t n, int64_t h, int64_t hk, int64_t d, int back)
{
	int32_t *pos = malloc((size_t)n * sizeof *pos);
	float *q = numbers(n * h * d), *k = numbers(n * hk * d), *v = numbers(n * hk * d), *o = numbers(n * h * d);
	float *dq = numbers(n * h * d), *dk = numbers(n * hk * d), *dv = numbers(n * hk * d), *l = numbers(2 * n * h);
	struct lk_view y = lk_view3(o, LK_F32, n, h, d), gq = lk_view3(dq, LK_F32, n, h, d), gk = lk_view3(dk, LK_F32, n, hk, d),
		       gv = lk_view3(dv, LK_F32, n, hk, d);
	struct lk_attn a = { .q = lk_view3(q, LK_F32, n, h, d), .k = lk_view3(k, LK_F32, n, hk, d),
			     .v = lk_view3(v, LK_F32, n, hk, d), .scale = 0.125f, .causal = 1 };
	struct lk_seq *seq;
	assert_non_null(pos);
	for (int64_t i = 0; i < n; i++)
		pos[i] = (int32_t)i;
	must(dev, lk_seq_new(dev, &seq, n, pos, NULL));
	a.qs = a.ks = seq;
	must(dev, lk_attn_once(dev, &a, &y, l));
	if (back)
		must(dev, lk_attn_bwd(dev, &a, &y, l, l + n * h, &gq, &gk, &gv));
	must(dev, lk_rope(dev, &a.q, pos, 10000, 0));
	lk_seq_free(seq);
	float *all[] = { q, k, v, o, dq, dk, dv, l };
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
	free(pos);
	return (int64_t)lk_cpu_of(dev)->scratch_bytes;
}

static void of_attention(void **state)
{
	static const struct {
		int64_t n, h, hk, d;
		int threads, back;
	} t[] = { { 700, 4, 4, 64, 1, 1 }, { 700, 4, 4, 64, 1, 0 }, { 512, 8, 2, 32, 2, 1 }, { 300, 6, 3, 20, 4, 1 },
		  { 2000, 2, 1, 128, 2, 1 }, { 64, 12, 12, 64, 2, 1 } };
	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct lk_dev *dev = open_cpu(t[i].threads);
		struct lk_own own;
		must(dev, lk_attn_own(dev, t[i].n, t[i].h, t[i].hk, t[i].d, t[i].back, &own));
		assert_int_equal(lk_cpu_of(dev)->scratch_bytes, 0); /* it was only asked */
		assert_string_equal(lk_dev_error(dev), "");
		assert_int_equal(attend(dev, t[i].n, t[i].h, t[i].hk, t[i].d, t[i].back), own.scratch);
		assert_int_equal(own.kept, t[i].n * (4 + 2 * 4 * t[i].d)); /* positions, cosines, sines */
		lk_dev_close(dev);
	}
}

/* Bytes that a convolution holds, as the allocator knows them. */
static int64_t held(struct lk_conv *c)
{
	struct lk_conv_cpu *m = lk_conv_cpu_of(c);
	size_t sum = malloc_usable_size(m->fwd.packed);
	sum += m->wino_fwd ? malloc_usable_size(m->wino_fwd->u) : 0;
	sum += m->wino_bwd ? malloc_usable_size(m->wino_bwd->u) : 0;
	for (int i = 0; i < m->nbwd; i++)
		sum += malloc_usable_size(m->bwd[i].packed);
	return (int64_t)sum;
}

static void convolve(struct lk_dev *dev, const struct lk_conv_geom *g, int64_t n, int64_t side, int back, int64_t got[2])
{
	int64_t out = (side * g->upsample + g->pad_top + g->pad_bottom - g->kh) / g->stride + 1;
	int64_t weights = (int64_t)g->kh * g->kw * g->cin * g->cout;
	float *w = numbers(weights), *b = numbers(g->cout), *y = numbers(n * out * out * g->cout);
	float *x = numbers(n * side * side * g->cin);
	float *dx = numbers(n * side * side * g->cin), *dw = numbers(weights), *db = numbers(g->cout);
	struct lk_view vx = lk_view4(x, LK_F32, n, side, side, g->cin), vy = lk_view4(y, LK_F32, n, out, out, g->cout), vd = vx;
	struct lk_conv *c;
	vd.data = dx;
	must(dev, lk_conv_new(dev, &c, g, w, b));
	must(dev, lk_conv_fwd(dev, c, &vy, &vx, NULL));
	if (back)
		must(dev, lk_conv_bwd(dev, c, &vd, dw, db, &vy, &vx));
	got[0] = held(c);
	got[1] = (int64_t)lk_cpu_of(dev)->scratch_bytes;
	lk_conv_free(c);
	float *all[] = { w, b, x, y, dx, dw, db };
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
}

static void of_convolutions(void **state)
{
	static const struct lk_conv_geom g[] = {
		{ 32, 32, 3, 3, 1, 1, 1, 1, 1, 1 }, { 64, 32, 3, 3, 1, 1, 1, 1, 1, 2 }, { 32, 48, 3, 3, 2, 0, 0, 1, 1, 1 },
		{ 48, 32, 1, 1, 1, 0, 0, 0, 0, 1 }, { 3, 32, 3, 3, 1, 1, 1, 1, 1, 1 },  { 32, 3, 3, 3, 1, 1, 1, 1, 1, 1 },
	};
	(void)state;
	for (size_t i = 0; i < 4 * sizeof g / sizeof *g; i++) {
		const struct lk_conv_geom *one = &g[i / 4];
		struct lk_dev *dev = open_cpu(1 + i % 2);
		struct lk_own own;
		int64_t got[2];
		int back = i / 2 % 2;
		must(dev, lk_conv_own(dev, one, 3, 16, 16, back, &own));
		assert_int_equal(lk_cpu_of(dev)->scratch_bytes, 0);
		convolve(dev, one, 3, 16, back, got);
		assert_int_equal(got[1], own.scratch);
		if (labs((long)(got[0] - own.kept)) > 1024)
			fail_msg("geometry %d: holds %ld bytes, %ld were said", (int)(i / 4), (long)got[0], (long)own.kept);
		lk_dev_close(dev);
	}
}

static void of_products(void **state)
{
	static const int64_t t[][3] = { { 96, 96, 9000 }, { 1024, 1024, 64 }, { 700, 300, 4096 }, { 256, 512, 2100 } };
	int deep = 0;
	(void)state;
	for (size_t i = 0; i < 4; i++) {
		int64_t m = t[i][0], n = t[i][1], k = t[i][2];
		struct lk_dev *dev = open_cpu(1 + i % 2);
		float *a = numbers(m * k), *b = numbers(k * n), *c = numbers(m * n);
		struct lk_view va = lk_view2(a, LK_F32, m, k), vb = lk_view2(b, LK_F32, k, n), vc = lk_view2(c, LK_F32, m, n);
		struct lk_own own;
		must(dev, lk_matmul_own(dev, m, n, k, &own));
		assert_int_equal(lk_cpu_of(dev)->scratch_bytes, 0);
		assert_string_equal(lk_dev_error(dev), "");
		must(dev, lk_matmul(dev, &vc, &va, &vb, 0, 1));
		assert_int_equal(lk_cpu_of(dev)->scratch_bytes, own.scratch);
		assert_int_equal(own.kept, 0);
		deep += own.scratch > 0;
		free(a);
		free(b);
		free(c);
		lk_dev_close(dev);
	}
	assert_in_range(deep, 1, 3); /* both kinds are among them */
}

/* Small blocks are what they are; of large ones the last page is whole. */
static void of_memory(void **state)
{
	struct lk_dev *dev = open_cpu(1);
	(void)state;
	assert_int_equal(lk_mem_own(dev, 64), 64);
	assert_int_equal(lk_mem_own(dev, (4 << 20) - 64), (4 << 20) - 64);
	assert_int_equal(lk_mem_own(dev, (4 << 20) + 1), 6 << 20);
	lk_dev_close(dev);
}

static void not_said_by_others(void **state)
{
	struct lk_own own = { 1, 1 };
	struct lk_dev *dev;
	char why[256];
	(void)state;
	assert_int_equal(lk_dev_open(&dev, "ref", 1, why, sizeof why), 0);
	assert_int_equal(lk_attn_own(dev, 64, 4, 4, 16, 1, &own), LK_EUNSUP);
	assert_true(own.kept == 0 && own.scratch == 0);
	assert_int_equal(lk_attn_own(dev, 64, 4, 3, 16, 1, &own), LK_EINVAL);
	lk_dev_close(dev);
}

static size_t said(const char *key)
{
	char line[256], name[64];
	unsigned long long kib = 0, n;
	FILE *f = fopen("/proc/meminfo", "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "%63[^:]: %llu kB", name, &n) == 2 && !strcmp(name, key))
			kib = n;
	fclose(f);
	return (size_t)kib << 10;
}

/* What caches hold can be had: a plan that leaves it out says of a machine that has room that it has none. */
static void free_memory_is_what_can_be_had(void **state)
{
	struct lk_dev *dev = open_cpu(1);
	const size_t slack = (size_t)64 << 20; /* others take and give back memory meanwhile */
	size_t most, all, before, after;
	(void)state;
	for (int tries = 0; tries < 50; tries++) {
		before = said("MemAvailable");
		must(dev, lk_dev_memory(dev, &most, &all));
		after = said("MemAvailable");
		if ((before > after ? before - after : after - before) < slack)
			break; /* a quiet moment */
	}
	assert_true(most + slack >= (before < after ? before : after) && most <= (before > after ? before : after) + slack);
	assert_true(all <= said("MemTotal") + slack && all + slack >= said("MemTotal"));
	lk_dev_close(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(of_attention), cmocka_unit_test(of_convolutions),
					    cmocka_unit_test(of_products), cmocka_unit_test(of_memory),
					    cmocka_unit_test(not_said_by_others),
					    cmocka_unit_test(free_memory_is_what_can_be_had) };
	return cmocka_run_group_tests_name("own", tests, NULL, NULL);
}
