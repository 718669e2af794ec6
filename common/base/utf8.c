/* utf8.c - which bytes are well-formed UTF-8 (Unicode table 3-7), and which are text at all. */
#include <string.h>
#include "common/base/utf8.h"

static int is_continuation(unsigned char c)
{
	return (c & 0xC0) == 0x80;
}

size_t lwm_utf8_len(const char *text, size_t n)
{
	const unsigned char *s = (const unsigned char *)text;
	if (n == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xC2 && s[0] <= 0xDF)
		return n >= 2 && is_continuation(s[1]) ? 2 : 0;
	if ((s[0] & 0xF0) == 0xE0) {
		if (n < 3 || !is_continuation(s[1]) || !is_continuation(s[2]) || (s[0] == 0xE0 && s[1] < 0xA0) ||
		    (s[0] == 0xED && s[1] >= 0xA0))
			return 0;
		return 3;
	}
	if (s[0] >= 0xF0 && s[0] <= 0xF4) {
		if (n < 4 || !is_continuation(s[1]) || !is_continuation(s[2]) || !is_continuation(s[3]) ||
		    (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] >= 0x90))
			return 0;
		return 4;
	}
	return 0;
}

size_t lwm_utf8_check(const char *s, size_t n)
{
	size_t i = 0;
	while (i < n) {
		size_t k = lwm_utf8_len(s + i, n - i);
		if (k == 0)
			return i;
		i += k;
	}
	return n;
}

size_t lwm_text_check(const char *s, size_t n)
{
	static const char fine[] = "\a\b\t\n\v\f\r\x1b";

	for (size_t i = 0; i < n; i++)
		if (((unsigned char)s[i] < ' ' && !memchr(fine, s[i], sizeof fine - 1)) || s[i] == 0x7f)
			return i;
	return n;
}
