/* backends.c - the table of backends; counts and opens devices by name: "cpu", "cuda", "cuda:1". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"

/* To add one: a line. */
static const struct lk_backend backends[] = {
	{ .kind = "ref", .open = lk_ref_open },
	{ .kind = "cpu", .open = lk_cpu_open },
	{ .kind = "cpu-fp16", .open = lk_half_open },
	{ .kind = "cuda", .library = { "liblwm_cuda.so", "LWM_CUDA_LIB", "lk_cuda_open", "lk_cuda_count" } },
};
enum { BACKENDS = sizeof backends / sizeof *backends };

/* Several devices of the kind can be told apart as "kind:N". */
static int is_numbered(const struct lk_backend *b)
{
	return b->count || b->library.file;
}

static const struct lk_backend *find_backend(const char *kind, size_t len)
{
	for (int i = 0; i < BACKENDS; i++)
		if (strlen(backends[i].kind) == len && strncmp(backends[i].kind, kind, len) == 0)
			return &backends[i];
	return NULL;
}

/* "no device is called "x"; there are ref, cpu and cuda"; numbers: "... cuda and cuda:N". */
static int refuse_name(const char *name, int numbers, char *why, size_t n)
{
	char list[160] = "";
	size_t at = 0;
	int left = BACKENDS;

	for (int i = 0; numbers && i < BACKENDS; i++)
		left += is_numbered(&backends[i]);
	for (int i = 0; i < BACKENDS; i++) {
		int names = numbers && is_numbered(&backends[i]) ? 2 : 1;

		for (int k = 0; k < names && at < sizeof list; k++) {
			left--;
			at += (size_t)snprintf(list + at, sizeof list - at, "%s%s%s", backends[i].kind, k ? ":N" : "",
					       left > 1 ? ", " : left ? " and " : "");
		}
	}
	snprintf(why, n, "no device is called \"%s\"; there are %s", name, list);
	return LK_EUNSUP;
}

int lk_dev_count(const char *kind, char *why, size_t n)
{
	const struct lk_backend *b = find_backend(kind, strlen(kind));
	lk_count_fn *count_fn;
	int rc;

	if (!b)
		return refuse_name(kind, 0, why, n);
	if (!b->library.file)
		return b->count ? b->count(why, n) : 1;
	rc = lk_library_function(&b->library, b->kind, b->library.count, &count_fn, sizeof count_fn, why, n);
	return rc ? rc : count_fn(why, n);
}

/* N of ":N", 0 of "", -1 of anything else */
static int parse_index(const char *s)
{
	int index = 0;

	if (*s == '\0')
		return 0;
	if (*s != ':' || s[1] == '\0')
		return -1;
	for (s++; *s; s++) {
		if (*s < '0' || *s > '9' || index > 999)
			return -1;
		index = index * 10 + (*s - '0');
	}
	return index;
}

static int open_device(struct lk_dev *dev, const char *spec, int threads, char *why, size_t n)
{
	size_t len = strcspn(spec, ":");
	const struct lk_backend *b = find_backend(spec, len);
	int index = parse_index(spec + len), rc;
	lk_library_open_fn *open_fn;

	if (threads < 0 || threads > 4096) {
		snprintf(why, n, "%d is no number of threads", threads);
		return LK_EINVAL;
	}
	if (!b || index < 0 || (spec[len] && !is_numbered(b)))
		return refuse_name(spec, 1, why, n);
	if (!b->library.file)
		return b->open(dev, index, threads, why, n);
	rc = lk_library_function(&b->library, b->kind, b->library.open, &open_fn, sizeof open_fn, why, n);
	return rc ? rc : open_fn(dev, LK_LAYOUT, index, why, n);
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
	rc = open_device(dev, spec, threads, why, n);
	if (rc) {
		free(dev);
		return rc;
	}
	*out = dev;
	return 0;
}
