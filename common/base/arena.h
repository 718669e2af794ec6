/* arena.h - memory by lifetime: many small allocations, one free.
 *
 *	struct lwm_arena *a = NULL;
 *	char *name = lwm_arena_strdup(&a, text);      NULL: out of memory; what was allocated before is untouched
 *	lwm_arena_free(&a);                           all of it
 *
 * An arena belongs to one thread at a time.
 */
#ifndef LWM_BASE_ARENA_H
#define LWM_BASE_ARENA_H

#include <stddef.h>

#include "common/base/err.h"

struct lwm_arena; /* NULL is an empty one */

/* Zeroed, 16-byte aligned, lives until lwm_arena_free. NULL when out of memory. */
void *lwm_arena_alloc(struct lwm_arena **a, size_t bytes);
char *lwm_arena_strdup(struct lwm_arena **a, const char *s);
char *lwm_arena_printf(struct lwm_arena **a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void lwm_arena_free(struct lwm_arena **a); /* and *a is empty again */

/* Asks the system for so many bytes and gives them back untouched: 0, or -LWM_EMEMORY. For calls into
 * libraries that, when an allocation of theirs fails, end the program, break, or continue without: the lack of memory is met here,
 * before them. `what` begins the sentence. */
int lwm_memory_room(size_t bytes, const char *what, struct lwm_err *e);

#endif
