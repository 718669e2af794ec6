/* utf8.h - is it UTF-8, is it text. Nothing is converted: text is otherwise bytes. */
#ifndef LWM_BASE_UTF8_H
#define LWM_BASE_UTF8_H

#include <stddef.h>

/* Length 1..4 of the well-formed sequence at s (RFC 3629: no surrogates, no overlongs), 0 if there is none. */
size_t lwm_utf8_len(const char *s, size_t n);
/* Offset of the first malformed byte, or n. */
size_t lwm_utf8_check(const char *s, size_t n);
/* Offset of the first byte that no text has, or n: a control character other than BEL, BS, TAB, LF, VT, FF, CR and ESC (the table
 * of file(1)). Programs, archives and UTF-16 have them from their first bytes on. */
size_t lwm_text_check(const char *s, size_t n);

#endif
