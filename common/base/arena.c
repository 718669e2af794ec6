/* arena.c - a chain of zeroed blocks of 8 KiB or more; an allocation takes the next bytes of the newest block. What no longer fits
 * opens a new block, and what the old one had left is lost.
 */
#include "common/base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct lwm_arena {
	struct lwm_arena *next;
	size_t used, cap;
	_Alignas(16) char data[];
};

void *lwm_arena_alloc(struct lwm_arena **a, size_t bytes)
{
	size_t need = (bytes + 15) & ~(size_t)15;
	if (need < bytes)
		return NULL;
	if (!*a || (*a)->cap - (*a)->used < need) {
		size_t cap = need > 8192 ? need : 8192, all;
		struct lwm_arena *block;
		if (__builtin_add_overflow(cap, sizeof *block, &all) || !(block = calloc(1, all)))
			return NULL;
		block->cap = cap;
		block->next = *a;
		*a = block;
	}
	void *p = (*a)->data + (*a)->used;
	(*a)->used += need;
	return p;
}

char *lwm_arena_strdup(struct lwm_arena **a, const char *s)
{
	size_t n = strlen(s) + 1;
	char *p = lwm_arena_alloc(a, n);
	if (p)
		memcpy(p, s, n);
	return p;
}

char *lwm_arena_printf(struct lwm_arena **a, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return NULL;
	char *p = lwm_arena_alloc(a, (size_t)n + 1);
	if (!p)
		return NULL;
	va_start(ap, fmt);
	vsnprintf(p, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return p;
}

void lwm_arena_free(struct lwm_arena **a)
{
	while (*a) {
		struct lwm_arena *next = (*a)->next;
		free(*a);
		*a = next;
	}
}

int lwm_memory_room(size_t bytes, const char *what, struct lwm_err *e)
{
	/* not malloc: what that gives and takes back changes where it puts everything later */
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return lwm_fail_memory(e, what);
	munmap(p, bytes);
	return 0;
}
