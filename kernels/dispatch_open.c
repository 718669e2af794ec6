/* dispatch_open.c - opens a device by its name: the built-in backends, and the cuda one from its shared object. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/kernels_int.h"

static void fill_ref(struct lk_dev *dev)
{
	lk_ref_fill_mem(&dev->ops);
	lk_ref_fill_dense(&dev->ops);
	lk_ref_fill_attn(&dev->ops);
	lk_ref_fill_gen(&dev->ops);
	lk_ref_fill_image(&dev->ops);
	dev->dtype = LK_F32;
	dev->threads = 1;
	dev->is_host = 1;
	snprintf(dev->name, sizeof dev->name, "ref (plain loops, 1 thread)");
}

static int open_cpu(struct lk_dev *dev, int threads, char *why, size_t n)
{
	int rc;

	fill_ref(dev);
	dev->threads = threads;
	rc = lk_cpu_open(dev, why, n);
	if (rc)
		return rc;
	lk_cpu_fill_dense(dev);
	lk_cpu_fill_attn(dev);
	lk_cpu_fill_image(dev);
	return 0;
}

/* ---- cuda: liblwm_cuda.so next to the program, in its ../lib, or where the loader looks ---- */

static void *try_library(const char *path, char *why, size_t n)
{
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!lib) {
		const char *reason = dlerror();

		snprintf(why, n, "%s", reason ? reason : "dlopen failed");
	}
	return lib;
}

static void *find_library(char *why, size_t n)
{
	static const char *const places[] = { "", "/../lib", "/..", "/../../lib" };
	const char *set = getenv("LWM_CUDA_LIB");
	char exe[3072], path[4096], *slash;
	ssize_t len;

	if (set && *set)
		return try_library(set, why, n);
	len = readlink("/proc/self/exe", exe, sizeof exe - 1);
	exe[len > 0 ? len : 0] = '\0';
	slash = strrchr(exe, '/');
	if (slash) {
		*slash = '\0';
		for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
			snprintf(path, sizeof path, "%s%s/liblwm_cuda.so", exe, places[i]);
			if (access(path, F_OK) == 0)
				return try_library(path, why, n);
		}
	}
	return try_library("liblwm_cuda.so", why, n);
}

/* A function of the library as *fn (fn_bytes: ISO C has no cast from object to function pointer). */
static int find_function(const char *name, void *fn, size_t fn_bytes, char *why, size_t n)
{
	char reason[160];
	void *lib = find_library(reason, sizeof reason), *sym; // stays loaded: its code runs until the process ends

	if (!lib) {
		snprintf(why, n, "the cuda backend cannot be loaded: %s", reason);
		return LK_EUNSUP;
	}
	sym = dlsym(lib, name);
	if (!sym) {
		snprintf(why, n, "liblwm_cuda.so has no %s: it is not ours, or of another version", name);
		return LK_EUNSUP;
	}
	memcpy(fn, &sym, fn_bytes);
	return 0;
}

static int open_cuda(struct lk_dev *dev, int index, char *why, size_t n)
{
	lk_cuda_open_fn *open_fn;
	int rc = find_function("lk_cuda_open", &open_fn, sizeof open_fn, why, n);

	return rc ? rc : open_fn(dev, LK_ABI, index, why, n);
}

void (*lk_progress_fn)(void);

void lk_on_progress(void (*fn)(void))
{
	lk_progress_fn = fn;
}

int lk_dev_count(const char *kind, char *why, size_t n)
{
	lk_cuda_count_fn *count_fn;
	int rc;

	if (strcmp(kind, "ref") == 0 || strcmp(kind, "cpu") == 0)
		return 1;
	if (strcmp(kind, "cuda") != 0) {
		snprintf(why, n, "no device is called \"%s\"; there are ref, cpu and cuda", kind);
		return LK_EUNSUP;
	}
	rc = find_function("lk_cuda_count", &count_fn, sizeof count_fn, why, n);
	return rc ? rc : count_fn(why, n);
}

/* "cuda" or "cuda:N" -> N, else -1 */
static int cuda_index(const char *spec)
{
	int index = 0;

	if (strncmp(spec, "cuda", 4) != 0)
		return -1;
	if (spec[4] == '\0')
		return 0;
	if (spec[4] != ':' || spec[5] == '\0')
		return -1;
	for (const char *s = spec + 5; *s; s++) {
		if (*s < '0' || *s > '9' || index > 999)
			return -1;
		index = index * 10 + (*s - '0');
	}
	return index;
}

int lk_dev_open(struct lk_dev **out, const char *spec, int threads, char *why, size_t n)
{
	struct lk_dev *dev = calloc(1, sizeof *dev);
	int rc;

	*out = NULL;
	if (n)
		why[0] = '\0';
	if (!dev) {
		snprintf(why, n, "out of memory");
		return LK_ENOMEM;
	}
	if (threads < 0 || threads > 4096) {
		snprintf(why, n, "%d is no number of threads", threads);
		rc = LK_EINVAL;
	} else if (strcmp(spec, "ref") == 0) {
		fill_ref(dev);
		rc = 0;
	} else if (strcmp(spec, "cpu") == 0) {
		rc = open_cpu(dev, threads, why, n);
	} else if (cuda_index(spec) >= 0) {
		rc = open_cuda(dev, cuda_index(spec), why, n);
	} else {
		snprintf(why, n, "no device is called \"%s\"; there are ref, cpu, cuda and cuda:N", spec);
		rc = LK_EUNSUP;
	}
	if (rc) {
		free(dev);
		return rc;
	}
	*out = dev;
	return 0;
}
