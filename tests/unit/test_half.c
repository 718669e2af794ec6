/* Numbers of fp16 on the device cpu-fp16: each of the 65536, rounding at every border between two of them, what is too large; the
 * same bits for each instruction set and number of threads. The ops are held against ref in tests/kernels. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

enum { ALL = 65536, LARGEST = 0x7bff };

static const char *const isas[] = { "base", "avx2", "avx512" };

/* NULL: this processor has it not. */
static struct lk_dev *open_isa(const char *isa, int threads)
{
	struct lk_dev *dev;
	char why[256];

	setenv("LWM_ISA", isa, 1);
	if (lk_dev_open(&dev, "cpu-fp16", threads, why, sizeof why)) {
		assert_string_not_equal(isa, "base");
		return NULL;
	}
	unsetenv("LWM_ISA");
	assert_int_equal(lk_dev_dtype(dev), LK_F16);
	assert_true(lk_dev_is_host(dev));
	return dev;
}

/* By the definition of binary16. */
static double value_of(unsigned b)
{
	int exponent = b >> 10 & 31, fraction = b & 1023;
	double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);

	return b & 0x8000 ? -size : size;
}

static void cast(struct lk_dev *dev, void *y, int to, const void *x, int from, int64_t n)
{
	struct lk_view a = lk_view1(y, to, n), b = lk_view1((void *)(uintptr_t)x, from, n);

	assert_int_equal(lk_cast(dev, &a, &b), 0);
}

static void every_number_there_and_back(void **state)
{
	static uint16_t h[ALL], back[ALL];
	static float f[ALL];
	int devices = 0;

	(void)state;
	for (unsigned i = 0; i < ALL; i++)
		h[i] = (uint16_t)i;
	for (size_t k = 0; k < sizeof isas / sizeof *isas; k++) {
		struct lk_dev *dev = open_isa(isas[k], 1 + (int)k);

		if (!dev)
			continue;
		cast(dev, f, LK_F32, h, LK_F16, ALL);
		cast(dev, back, LK_F16, f, LK_F32, ALL);
		for (unsigned i = 0; i < ALL; i++) {
			unsigned size = i & 0x7fff;

			if (size > 0x7c00) {
				assert_true(isnan(f[i]));
				assert_true((back[i] & 0x7fff) > 0x7c00);
				continue;
			}
			if (size == 0x7c00)
				assert_true(isinf(f[i]) && (f[i] < 0) == (i > size));
			else
				assert_true((double)f[i] == value_of(i) && (signbit(f[i]) != 0) == (i > size));
			assert_int_equal(back[i], i);
		}
		devices++;
		lk_dev_close(dev);
	}
	assert_true(devices > 0);
}

/* Half way between two neighbours the even one, a little less and more the nearer one. */
static void borders_between_numbers(void **state)
{
	static float f[3 * (LARGEST + 1)];
	static uint16_t h[3 * (LARGEST + 1)];

	(void)state;
	for (unsigned i = 0; i <= LARGEST; i++) {
		double next = i < LARGEST ? value_of(i + 1) : 65536;
		float half = (float)((value_of(i) + next) / 2);

		f[3 * i] = nextafterf(half, 0);
		f[3 * i + 1] = half;
		f[3 * i + 2] = nextafterf(half, INFINITY);
	}
	for (size_t k = 0; k < sizeof isas / sizeof *isas; k++) {
		struct lk_dev *dev = open_isa(isas[k], 2);

		if (!dev)
			continue;
		cast(dev, h, LK_F16, f, LK_F32, 3 * (LARGEST + 1));
		for (unsigned i = 0; i <= LARGEST; i++) { /* after the largest comes infinity, whose bits are the next */
			assert_int_equal(h[3 * i], i);
			assert_int_equal(h[3 * i + 1], i % 2 ? i + 1 : i);
			assert_int_equal(h[3 * i + 2], i + 1);
		}
		lk_dev_close(dev);
	}
}

/* A product that fits in fp32 and not in fp16 is infinite in fp16, and finite where the result is fp32. */
static void what_is_too_large(void **state)
{
	struct lk_dev *dev = open_isa("base", 1);
	uint16_t a[4], c[1];
	float x[4] = { 200, 200, 100, 100 }, sum[1], wide[1];

	(void)state;
	cast(dev, a, LK_F16, x, LK_F32, 4);
	struct lk_view va = lk_view2(a, LK_F16, 1, 4), vc = lk_view2(c, LK_F16, 1, 1), vs = lk_view2(sum, LK_F32, 1, 1);
	assert_int_equal(lk_matmul(dev, &vs, &va, &va, LK_TB, 1.0f), 0);
	assert_true(sum[0] == 100000.0f);
	assert_int_equal(lk_matmul(dev, &vc, &va, &va, LK_TB, 1.0f), 0);
	cast(dev, wide, LK_F32, c, LK_F16, 1);
	assert_true(isinf(wide[0]));
	assert_int_equal(lk_matmul(dev, &vc, &va, &va, LK_TB, 0.5f), 0);
	cast(dev, wide, LK_F32, c, LK_F16, 1);
	assert_true(wide[0] == 49984 || wide[0] == 50016); /* 50000 lies half way: the even one of the two */
	assert_int_equal(c[0] % 2, 0);
	/* of another device they are no floats */
	struct lk_dev *cpu;
	char why[256];
	assert_int_equal(lk_dev_open(&cpu, "cpu", 1, why, sizeof why), 0);
	assert_int_equal(lk_matmul(cpu, &vs, &va, &va, LK_TB, 1.0f), LK_EINVAL);
	lk_dev_close(cpu);
	lk_dev_close(dev);
}

/* A fork has scratch of its own; threads change no bit. */
static void threads_and_forks(void **state)
{
	enum { M = 96, N = 112, K = 130 };
	static float x[(M + N) * K];
	static uint16_t in[(M + N) * K], out[3][M * N];
	struct lk_dev *dev[3];

	(void)state;
	for (int i = 0; i < (M + N) * K; i++)
		x[i] = sinf((float)i * 0.37f);
	dev[0] = open_isa("base", 1);
	dev[1] = open_isa("base", 3);
	assert_int_equal(lk_dev_fork(&dev[2], dev[1]), 0);
	cast(dev[0], in, LK_F16, x, LK_F32, (M + N) * K);
	for (int i = 0; i < 3; i++) {
		struct lk_view a = lk_view2(in, LK_F16, M, K), b = lk_view2(in + M * K, LK_F16, N, K);
		struct lk_view c = lk_view2(out[i], LK_F16, M, N);

		assert_int_equal(lk_matmul(dev[i], &c, &a, &b, LK_TB, 1.0f), 0);
		assert_memory_equal(out[i], out[0], sizeof out[0]);
	}
	for (int i = 2; i >= 0; i--)
		lk_dev_close(dev[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_number_there_and_back),
		cmocka_unit_test(borders_between_numbers),
		cmocka_unit_test(what_is_too_large),
		cmocka_unit_test(threads_and_forks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
