/* arena.h - memory by lifetime: many small allocations, one free. Not thread-safe. */
#ifndef LWM_BASE_ARENA_H
#define LWM_BASE_ARENA_H

#include <stddef.h>

struct lwm_arena; /* NULL is an empty arena: struct lwm_arena *a = NULL; lwm_arena_alloc(&a, n) */

/* Zeroed, 16-byte aligned, lives until lwm_arena_free. NULL when out of memory. */
void *lwm_arena_alloc(struct lwm_arena **a, size_t bytes);
char *lwm_arena_strdup(struct lwm_arena **a, const char *s);
char *lwm_arena_printf(struct lwm_arena **a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void lwm_arena_free(struct lwm_arena **a);

#endif
