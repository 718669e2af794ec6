/* large.h - what the files of `large` share. */
#ifndef TESTS_GPU_LARGE_H
#define TESTS_GPU_LARGE_H

#include "tests/bench/cuda/bench_gpu.h"

/* Prints and counts a case. bad: 0 passed, above failed, below skipped. */
void verdict(const char *name, int bad, const char *why);
double host_norm(const float *x, const float *y, int64_t n); /* |x - y| / |y| */
/* Device values of any float dtype as fp32 on the host, malloc'ed; NULL: failed. */
float *fetch(struct gpu_bench *b, const void *p, int dtype, int64_t n);

void run_long_row(struct gpu_bench *b);
void run_paths(struct gpu_bench *b, const char *device, int64_t d); /* opens a device for each path */

#endif
