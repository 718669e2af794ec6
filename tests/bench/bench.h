/* bench.h - what the benchmark programs share: a clock, the best of several runs, one key=value line per row.
 *
 *	static int step(void *arg) { return lk_swiglu_fwd(...); }
 *	struct bench_time t = bench_run(step, &arg, 5);
 *	bench_row("swiglu_fwd", threads, t, "GBs", bytes / t.best * 1e-9);
 *
 * A row: op=swiglu_fwd threads=2 ms=1.234 median_ms=1.301 cpu_ms=2.455 GBs=41.2. The best of the runs is what the code can
 * do; the median beside it tells how quiet the machine was. cpu_ms is the least processor time of all threads together
 * (with GOMP_SPINCOUNT=0 without the waiting): held against one thread's it tells what sharing the work out costs, also
 * on a machine that others use. */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct bench_time {
	double best, median, cpu; /* seconds; negative: the call failed */
};

static inline double bench_clock(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static inline int bench_cmp(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Calls step once to warm up, then `runs` (1..64) times. */
static inline struct bench_time bench_run(int (*step)(void *), void *arg, int runs)
{
	struct bench_time t = { -1, -1, -1 };
	double sec[64], cpu = 1e30;

	if (runs < 1 || runs > 64 || step(arg))
		return t;
	for (int i = 0; i < runs; i++) {
		double start = bench_clock(CLOCK_MONOTONIC), cpu0 = bench_clock(CLOCK_PROCESS_CPUTIME_ID), used;

		if (step(arg))
			return t;
		sec[i] = bench_clock(CLOCK_MONOTONIC) - start;
		used = bench_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu0;
		cpu = used < cpu ? used : cpu;
	}
	qsort(sec, (size_t)runs, sizeof *sec, bench_cmp);
	t.best = sec[0];
	t.median = sec[runs / 2];
	t.cpu = cpu;
	return t;
}

/* unit NULL: no rate. Returns 0, or 1 when the measured call failed. */
static inline int bench_row(const char *op, int threads, struct bench_time t, const char *unit, double rate)
{
	if (t.best < 0) {
		printf("op=%s threads=%d failed=1\n", op, threads);
		return 1;
	}
	printf("op=%s threads=%d ms=%.3f median_ms=%.3f cpu_ms=%.3f", op, threads, 1e3 * t.best, 1e3 * t.median,
	       1e3 * t.cpu);
	if (unit)
		printf(" %s=%.1f", unit, rate);
	printf("\n");
	fflush(stdout);
	return 0;
}

#endif
