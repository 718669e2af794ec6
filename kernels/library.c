/* library.c - finds the shared object of a backend that is loaded at run time: next to the program, in its ../lib, one and two
 * folders up, or where the loader looks; an environment variable names it outright. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/backend.h"

static void *try_library(const char *path, char *why, size_t n)
{
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!lib) {
		const char *reason = dlerror();

		snprintf(why, n, "%s", reason ? reason : "dlopen failed");
	}
	return lib;
}

static void *find_library(const struct lk_library *of, char *why, size_t n)
{
	static const char *const places[] = { "", "/../lib", "/..", "/../../lib" };
	const char *set = getenv(of->variable);
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
			snprintf(path, sizeof path, "%s%s/%s", exe, places[i], of->file);
			if (access(path, F_OK) == 0)
				return try_library(path, why, n);
		}
	}
	return try_library(of->file, why, n);
}

int lk_library_function(const struct lk_library *of, const char *kind, const char *name, void *fn, size_t fn_bytes, char *why,
			size_t n)
{
	char reason[160];
	void *lib = find_library(of, reason, sizeof reason), *sym; // stays loaded: its code runs until the process ends

	if (!lib) {
		snprintf(why, n, "the %s backend cannot be loaded: %s", kind, reason);
		return LK_EUNSUP;
	}
	sym = dlsym(lib, name);
	if (!sym) {
		snprintf(why, n, "%s has no %s: it is not ours, or of another version", of->file, name);
		return LK_EUNSUP;
	}
	memcpy(fn, &sym, fn_bytes);
	return 0;
}
