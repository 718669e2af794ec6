/* str.h - a growing byte string, always 0-terminated; and names that people misspell.
 *
 *	struct lwm_str s = { 0 };
 *	lwm_str_printf(&s, "%d of %d", k, n); lwm_str_putc(&s, '\n') ...
 *	rc = lwm_str_ok(&s, e);                 once, after the last append
 *	... lwm_str_get(&s), s.len
 *	lwm_str_release(&s);
 *
 * Out of memory is remembered in .failed, and later appends do nothing. Bytes may hold zeros.
 */
#ifndef LWM_BASE_STR_H
#define LWM_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct lwm_str {
	char *s; /* NULL only before the first append */
	size_t len, cap;
	bool failed;
};

void lwm_str_add(struct lwm_str *b, const void *bytes, size_t n);
void lwm_str_puts(struct lwm_str *b, const char *text);
void lwm_str_putc(struct lwm_str *b, char c);
void lwm_str_printf(struct lwm_str *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* As a quoted JSON string. Bytes that are no UTF-8 become U+FFFD, where jansson refuses the text: for lines that have to come out
 * whatever a file is called or a program has said. */
void lwm_str_json(struct lwm_str *b, const char *text, size_t n);
/* As a JSON number of so many digits; JSON has neither NaN nor infinity: null. */
void lwm_str_number(struct lwm_str *b, double v, int digits);
/* As a shell would read it back as one word: as it is when harmless, else in single quotes. */
void lwm_str_shell(struct lwm_str *b, const char *word);
void lwm_str_reset(struct lwm_str *b);   /* empty, memory kept */
void lwm_str_release(struct lwm_str *b); /* empty, memory freed */
int lwm_str_ok(const struct lwm_str *b, struct lwm_err *e); /* -LWM_EMEMORY when an append failed */
const char *lwm_str_get(const struct lwm_str *b);           /* never NULL */

/* Of n names the one that `name` was most likely meant to be: the first that is reached with the fewest changes (a letter
 * more, less or another, two neighbours swapped), when these are no more than a third of its letters, rounded up. NULL: none. */
const char *lwm_nearest(const char *name, const char *const *names, int64_t n);
/* The same for the end of a sentence: " (did you mean 'output'?)", or "". Written to `hint`, which is returned. */
enum { LWM_HINT = 96 };
const char *lwm_hint(char hint[LWM_HINT], const char *name, const char *const *names, int64_t n);

#endif
