/* How convolutions become matrix products: phases, windows, merged taps, tiles, splits. Host arithmetic; needs no GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/conv_plan.c" /* not part of the library: it lies in the shared object */

enum { MOST = 24, TAPS = 6 }; /* extents and taps of the axes tried */

/* How often tap t of the window joins output o of the pass with pixel i of its source. */
struct joins {
	int n[MOST][MOST][TAPS];
};

static void by_definition(struct joins *j, const struct lk_conv_dim *m, int in, int out)
{
	memset(j, 0, sizeof *j);
	for (int y = 0; y < out; y++) {
		for (int t = 0; t < m->k; t++) {
			int v = y * m->stride + t - m->pad;

			if (v >= 0 && v < in * m->up)
				m->backward ? j->n[v / m->up][y][t]++ : j->n[y][v / m->up][t]++;
		}
	}
}

/* Adds output o of a phase, its number a, and checks that no tap falls behind the window. */
static void add_output(struct joins *j, const struct lk_conv_dim *m, const struct lk_conv_axis *x, int a, int o, int src)
{
	for (int t = 0; t < m->k; t++) {
		for (int d = 0; d < (m->backward ? m->up : 1); d++) {
			int tap = lk_conv_tap(m, x, t, d), i = a * x->stride + x->first + tap;

			assert_true(tap < x->taps);
			if (tap >= 0 && i >= 0 && i < src)
				j->n[o][i][t]++;
		}
	}
}

static void by_plan(struct joins *j, const struct lk_conv_dim *m, int dst, int src)
{
	int seen[MOST] = { 0 };

	memset(j, 0, sizeof *j);
	for (int p = 0; p < lk_conv_steps(m); p++) {
		struct lk_conv_axis x = lk_conv_axis_of(m, p, dst);

		assert_int_equal(x.phase, p);
		for (int a = 0; a < x.count; a++) {
			int o = p + x.step * a;

			assert_in_range(o, 0, dst - 1);
			seen[o]++;
			add_output(j, m, &x, a, o, src);
		}
	}
	for (int i = 0; i < dst; i++)
		assert_int_equal(seen[i], 1);
}

/* Every window, padding, stride and doubling: the plan joins what the definition joins. */
static void axis_plan(void **state)
{
	static struct joins want, got;
	int tried = 0;

	(void)state;
	for (int code = 0; code < 2 * 5 * 4 * 4 * 2 * 8 * 3; code++) {
		struct lk_conv_dim m = { code / 2 % 5 + 1, code / 10 % 4, code / 40 % 4 + 1, code / 160 % 2 + 1, code % 2 };
		int in = code / 320 % 8 + 1, span = in * m.up + m.pad + code / 2560 - m.k, out = span / m.stride + 1;

		if (span < 0)
			continue;
		by_definition(&want, &m, in, out);
		by_plan(&got, &m, m.backward ? in : out, m.backward ? out : in);
		assert_memory_equal(&want, &got, sizeof want);
		tried++;
	}
	assert_true(tried > 7000);
}

static const struct lk_conv_geom plain = { 128, 256, 3, 3, 1, 1, 1, 1, 1, 1 }, doubled = { 64, 32, 3, 3, 1, 1, 1, 1, 1, 2 },
				 down = { 64, 128, 3, 3, 2, 0, 0, 1, 1, 1 }, first = { 3, 16, 3, 3, 1, 1, 1, 1, 1, 1 },
				 point = { 8, 16, 1, 1, 2, 0, 0, 0, 0, 1 };

static void phases(void **state)
{
	struct lk_conv_phase p = lk_conv_phase_of(&plain, 0, 0, 16, 20);

	(void)state;
	assert_int_equal(p.k, 9 * 128);
	assert_int_equal(p.y.count, 16);
	assert_int_equal(p.x.count, 20);
	assert_int_equal(p.y.first, -1);
	p = lk_conv_phase_of(&doubled, 0, 3, 9, 9); /* 2x2 taps of the source do for a 3x3 window behind a doubling */
	assert_int_equal(p.y.taps, 2);
	assert_int_equal(p.x.taps, 2);
	assert_int_equal(p.y.count, 4);
	p = lk_conv_phase_of(&doubled, 1, 0, 5, 5);
	assert_int_equal(p.y.taps, 4);
	assert_int_equal(p.y.stride, 2);
	p = lk_conv_phase_of(&point, 1, 3, 8, 8); /* pixels that a 1x1 window of stride 2 never reads */
	assert_int_equal(p.k, 0);
	assert_int_equal(lk_conv_phase_of(&first, 0, 0, 4, 4).k, 128); /* 9 taps x 8 channels, rounded up */
}

static void packed(void **state)
{
	(void)state;
	assert_int_equal(lk_conv_packed(&plain, 0), 9 * 128 * 256);
	assert_int_equal(lk_conv_packed(&plain, 1), 9 * 128 * 256);
	assert_int_equal(lk_conv_packed(&doubled, 0), 4 * 4 * 64 * 32);
	assert_int_equal(lk_conv_packed(&doubled, 1), 16 * 32 * 64);
	assert_int_equal(lk_conv_packed(&down, 0), 9 * 64 * 128);
	assert_int_equal(lk_conv_packed(&down, 1), (1 + 2 + 2 + 4) * 128 * 64);
	assert_int_equal(lk_conv_packed(&first, 0), 128 * 16);
}

static void tiles(void **state)
{
	(void)state;
	assert_int_equal(lk_conv_tile(3), 32);
	assert_int_equal(lk_conv_tile(32), 32);
	assert_int_equal(lk_conv_tile(64), 64);
	assert_int_equal(lk_conv_tile(128), 128);
	assert_int_equal(lk_conv_tile(768), 128);
	assert_int_equal(lk_conv_tile(136), 64); /* 192 columns instead of 256 */
}

static void splits(void **state)
{
	(void)state;
	assert_int_equal(lk_conv_splits(9, 1 << 20, 9 * 128 * 128), 30);
	assert_int_equal(lk_conv_splits(9, 1024, 9 * 128 * 128), 2);
	assert_int_equal(lk_conv_splits(9, 100, 9 * 128 * 128), 1);
	assert_int_equal(lk_conv_splits(324, 1 << 20, 9 * 768 * 768), 1);
	assert_int_equal(lk_conv_splits(1, 1 << 30, 1 << 25), 2); /* partial sums take at most 256 MiB */
	assert_int_equal(lk_conv_splits(1, 1 << 30, 1ll << 40), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(axis_plan), cmocka_unit_test(phases), cmocka_unit_test(packed), cmocka_unit_test(tiles),
		cmocka_unit_test(splits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
