/* str.h - a growing byte string, always 0-terminated. Zero-initialised is empty: struct lwm_str s = {0};
 * Out of memory is remembered in .failed and later appends do nothing; check it once with lwm_str_ok. */
#ifndef LWM_BASE_STR_H
#define LWM_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>

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
void lwm_str_json(struct lwm_str *b, const char *text, size_t n); /* as a quoted JSON string; bad UTF-8 becomes U+FFFD */
void lwm_str_reset(struct lwm_str *b);   /* empty, memory kept */
void lwm_str_release(struct lwm_str *b); /* empty, memory freed */
int lwm_str_ok(const struct lwm_str *b, struct lwm_err *e); /* -LWM_EMEMORY when an append failed */
const char *lwm_str_get(const struct lwm_str *b);           /* never NULL */

#endif
