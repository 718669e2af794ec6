/* backend.h - what backends.c must know of a backend to open its devices. For backends.c, library.c and the open calls themselves.
 *
 * A backend is either part of the program (open, and count where there may be several of its kind), or a shared object found
 * at run time (library). backends.c has one line for each. */
#ifndef LK_BACKEND_H
#define LK_BACKEND_H

#include "kernels/kernels_int.h"

/* Fills dev: ops, dtype, threads, is_host, name, impl, and warning where there is something to say. dev is zeroed.
 * index: which of its kind, from 0. threads: how many the caller asks for, 0 = all the process may use; dev->threads becomes what
 * the device took. Returns 0, or a status with one sentence in why (n bytes) and nothing left to free. */
typedef int lk_open_fn(struct lk_dev *dev, int index, int threads, char *why, size_t n);
/* How many devices of the kind there are: 1 or more, or a status < 0 with the reason in why. */
typedef int lk_count_fn(char *why, size_t n);

/* A shared object and what it exports. */
struct lk_library {
	const char *file;        /* "liblwm_cuda.so" */
	const char *variable;    /* environment variable that names its path */
	const char *open, *count; /* names of an lk_library_open_fn and an lk_count_fn */
};
/* As lk_open_fn; refuses a layout other than its own LK_LAYOUT. */
typedef int lk_library_open_fn(struct lk_dev *dev, int layout, int index, char *why, size_t n);

struct lk_backend {
	const char *kind;          /* "cpu": what callers ask for */
	lk_open_fn *open;          /* NULL: in the library */
	lk_count_fn *count;        /* NULL: in the library; or built in, and there is one, not "kind:N" */
	struct lk_library library; /* file NULL: built in */
};

/* The backends of this program. */
lk_open_fn lk_ref_open; /* ref/ref.c */
lk_open_fn lk_cpu_open; /* cpu/cpu.c */
lk_open_fn lk_half_open; /* cpu/half.c */

/* library.c: the function `name` of a library as *fn (fn_bytes: ISO C has no cast from object to function pointer). 0, or LK_EUNSUP
 * with a sentence about the backend `kind`. The library stays loaded. */
int lk_library_function(const struct lk_library *of, const char *kind, const char *name, void *fn, size_t fn_bytes, char *why,
			size_t n);

#endif
