/* bench_gpu.h - what the parts of the GPU benchmark share: memory, random numbers, the clock, the table.
 *
 *	static int run(void *arg) { return lk_swiglu_fwd(...); }
 *	gpu_memory_row(b, "swiglu forward", gpu_measure(b, run, &arg), bytes);
 *
 * A call is queued several times and waited for once; a time is that of one call, the best of a few such batches. Every rate stands
 * beside a ceiling of the same run: an 8192^3 product of random numbers, or a copy within the device. --dry shrinks all sizes so
 * that the program runs through on any device; its figures mean nothing then.
 */
#ifndef TESTS_BENCH_GPU_H
#define TESTS_BENCH_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

enum { GPU_MOST_BLOCKS = 64, GPU_MOST_ROWS = 160 };

struct gpu_row {
	char name[64], unit[16], of[24], why[160]; /* why: not measured, or failed, because ... */
	double ms, median_ms, rate, fraction;      /* 0: none */
	double must, goal;                         /* of the fraction, or of the rate where there is none; 0: none */
	bool failed, most;                         /* most: the value must not exceed must (a ratio of times) */
};

struct gpu_bench {
	struct lk_dev *dev;
	int act;             /* dtype of activations there */
	bool dry;
	double seconds;      /* a measurement aims at */
	double flops, bytes; /* ceilings, a second; 0 until measured */
	int64_t failures;
	void *block[GPU_MOST_BLOCKS]; /* device memory of the part under way */
	int blocks;
	struct gpu_row row[GPU_MOST_ROWS];
	int rows;
	char why[256];       /* of the last failure of the frame itself */
};

/* Full size, or the small one of --dry. */
static inline int64_t gpu_pick(const struct gpu_bench *b, int64_t full, int64_t dry)
{
	return b->dry ? dry : full;
}

/* Device memory until gpu_release; NULL: there is not enough, b->why says so. */
void *gpu_mem(struct gpu_bench *b, size_t bytes);
void gpu_release(struct gpu_bench *b);
/* The same, filled with uniform numbers in [-amplitude, amplitude) of a dtype (LK_I32: whole numbers in [0, amplitude)).
 * Beyond some million elements they repeat. */
void *gpu_random(struct gpu_bench *b, int dtype, int64_t n, double amplitude);
/* Uniform in [0,1): a counter's, the same in every run. */
double gpu_uniform(uint64_t *state);

struct gpu_time {
	double best, median; /* seconds; negative: the call failed, b->why says why */
};
struct gpu_time gpu_measure(struct gpu_bench *b, int (*fn)(void *), void *arg);
double gpu_clock(void); /* seconds */

/* Rows of the table. A failed time becomes a failed row. */
void gpu_compute_row(struct gpu_bench *b, const char *name, struct gpu_time t, double flop, double must, double goal);
void gpu_memory_row(struct gpu_bench *b, const char *name, struct gpu_time t, double bytes, double must, double goal);
/* value of unit; fraction of `of` when not 0; must and goal are of the fraction if there is one. */
struct gpu_row *gpu_add_row(struct gpu_bench *b, const char *name, struct gpu_time t, double value, const char *unit,
			    double fraction, const char *of, double must, double goal);
void gpu_skip(struct gpu_bench *b, const char *name, const char *why); /* not measured: not a failure */
void gpu_fail(struct gpu_bench *b, const char *name);                  /* b->why or the device's error */
void gpu_heading(void); /* rows are printed as they come */
int gpu_json(const struct gpu_bench *b, const char *path);             /* 0 or -1 with errno */

/* The parts, in the order they run. */
void gpu_part_ceilings(struct gpu_bench *b);
void gpu_part_attention(struct gpu_bench *b);
void gpu_part_packed(struct gpu_bench *b);
void gpu_part_memory(struct gpu_bench *b);
void gpu_part_images(struct gpu_bench *b);
void gpu_part_train(struct gpu_bench *b);
void gpu_part_decode(struct gpu_bench *b);

#endif
