/* memory_fault.h - allocations that fail on demand, whoever asks: the library, the libraries under it, libc. For programs of
 * tests that are not built with the address or thread sanitizer, which has a malloc of its own. */
#ifndef LWM_TESTS_UNIT_MEMORY_FAULT_H
#define LWM_TESTS_UNIT_MEMORY_FAULT_H

#include "tests/unit/io_fault.h"

#include <errno.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static struct {
	int64_t countdown; /* allocations until one fails; negative: none fails */
	bool for_good;     /* from there on there is no more memory than was in use then */
	int64_t budget;    /* bytes that may be in use; 0: any */
	void (*watch)(int64_t k, int64_t in_use); /* called for the k-th allocation, with the bytes in use if it succeeds */
} how = { .countdown = -1 };

static int64_t in_use, asked;

static __attribute__((noinline)) bool no_memory(size_t n)
{
	static bool inside; /* the watcher itself may allocate */
	if (inside)
		return false;
	if (how.watch) {
		inside = true;
		how.watch(asked, in_use + (int64_t)n);
		inside = false;
	}
	asked++;
	if (how.budget && in_use + (int64_t)n > how.budget)
		return true;
	if (how.countdown < 0 || how.countdown-- > 0)
		return false;
	if (how.for_good)
		how.budget = in_use;
	return true;
}

static void *taken(void *p)
{
	if (p)
		in_use += (int64_t)malloc_usable_size(p);
	return p;
}

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
	*__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

void *malloc(size_t n)
{
	return no_memory(n) ? NULL : taken(__libc_malloc(n));
}

void *calloc(size_t n, size_t k)
{
	return no_memory(n * k) ? NULL : taken(__libc_calloc(n, k));
}

void *realloc(void *p, size_t n)
{
	int64_t before = p ? (int64_t)malloc_usable_size(p) : 0;
	if (no_memory(n > (size_t)before ? n - (size_t)before : 0))
		return NULL;
	in_use -= before;
	return taken(__libc_realloc(p, n));
}

void *aligned_alloc(size_t align, size_t n)
{
	return no_memory(n) ? NULL : taken(__libc_memalign(align, n));
}

int posix_memalign(void **out, size_t align, size_t n)
{
	void *p = no_memory(n) ? NULL : taken(__libc_memalign(align, n));
	if (p)
		*out = p;
	return p ? 0 : ENOMEM;
}

void free(void *p)
{
	if (p)
		in_use -= (int64_t)malloc_usable_size(p);
	__libc_free(p);
}

/* Rooms that are asked for before a library is called (lwm_memory_room); nothing that stays. */
void *mmap(void *to, size_t n, int prot, int flags, int fd, off_t offset)
{
	if ((flags & MAP_ANONYMOUS) && (flags & MAP_PRIVATE) && no_memory(n)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return (void *)syscall(SYS_mmap, to, n, prot, flags, fd, offset);
}

#endif
