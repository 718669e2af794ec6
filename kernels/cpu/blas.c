/* blas.c - finds a BLAS at run time, and keeps each of its calls on one thread.
 *
 * Loaded with dlopen because OpenBLAS chooses its kernels when it is loaded, from the environment: linked in, it would
 * choose before any of our code runs. Debian 12's 0.3.21 takes every CPU it does not know for a Prescott.
 *
 * The threads of a product are ours (dense.c): OpenBLAS keeps its own number of threads per process, which devices of
 * different thread counts in different pthreads would set against each other. */
#include <dlfcn.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu_int.h"

static struct {
	pthread_once_t once;
	lk_sgemm_fn *sgemm;
	const char *core;
	char why[200];
} blas = { .once = PTHREAD_ONCE_INIT, .core = "" };

/* OpenMP's number of threads belongs to the calling thread, and OpenBLAS' OpenMP build follows it. */
static void sgemm_alone(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
			const float *b, int ldb, float beta, float *c, int ldc)
{
	int threads = omp_get_max_threads();

	if (threads != 1)
		omp_set_num_threads(1);
	blas.sgemm(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
	if (threads != 1)
		omp_set_num_threads(threads);
}

static void set_core_type(void)
{
#if defined(__x86_64__)
	const char *core = NULL;

	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
		core = "SkylakeX";
	else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		core = "Haswell";
	if (core)
		setenv("OPENBLAS_CORETYPE", core, 0);
#endif
}

static void *load_library(void)
{
	static const char *const names[] = { "libopenblas.so.0", "libopenblas.so", "libcblas.so.3", "libblas.so.3" };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		void *lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);

		if (lib && dlsym(lib, "cblas_sgemm"))
			return lib;
		if (lib)
			dlclose(lib);
	}
	return NULL;
}

/* OpenBLAS sets up its buffers at the first large product, and its OpenMP build does so without a lock. */
static void warm_up(void)
{
	enum { N = 160 };
	float *x = calloc(3 * N * N, sizeof *x);

	if (x)
		sgemm_alone(101, 111, 111, N, N, N, 1.0f, x, N, x + N * N, N, 0.0f, x + 2 * N * N, N);
	free(x);
}

static void find_blas(void)
{
	const char *(*corename)(void);
	void (*set_threads)(int);
	int threads = omp_get_max_threads();
	void *lib, *sym;

	set_core_type();
	lib = load_library();
	if (!lib) {
		snprintf(blas.why, sizeof blas.why,
			 "no BLAS with cblas_sgemm was found (libopenblas.so.0, libcblas.so.3, libblas.so.3)");
		return;
	}
	sym = dlsym(lib, "openblas_set_num_threads");
	memcpy(&set_threads, &sym, sizeof set_threads); // ISO C has no cast from object to function pointer
	if (sym) {
		set_threads(1); // for its pthread build; the OpenMP build sets OpenMP's own number with it
		omp_set_num_threads(threads);
	}
	sym = dlsym(lib, "openblas_get_corename");
	memcpy(&corename, &sym, sizeof corename);
	if (sym)
		blas.core = corename();
	sym = dlsym(lib, "cblas_sgemm");
	memcpy(&blas.sgemm, &sym, sizeof blas.sgemm);
	warm_up();
}

int lk_blas_open(lk_sgemm_fn **sgemm, const char **core, char *why, size_t n)
{
	pthread_once(&blas.once, find_blas);
	if (!blas.sgemm) {
		snprintf(why, n, "%s", blas.why);
		return LK_EUNSUP;
	}
	*sgemm = sgemm_alone;
	*core = blas.core;
	return 0;
}
