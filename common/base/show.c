/* show.c - control characters of names and texts, spelt out or refused. */
#include "common/base/show.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/utf8.h"

enum { MOST = 8 }; /* bytes of one character's spelling, with its 0 */

static bool is_control(unsigned char c)
{
	return c < 0x20 || c == 0x7f;
}

/* How the character at s (n > 0 bytes follow) is written; returns how many bytes of s that was. */
static size_t spell_character(const char *s, size_t n, char out[MOST])
{
	size_t k = lwm_utf8_len(s, n);
	unsigned char c = (unsigned char)s[0];
	if (c == '\n' || c == '\t' || c == '\r')
		snprintf(out, MOST, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : 'r');
	else if (k == 0 || (k == 1 && is_control(c)))
		snprintf(out, MOST, "\\x%02x", c);
	else if (k == 2 && c == 0xc2 && (unsigned char)s[1] < 0xa0) /* U+0080..U+009F steer terminals too */
		snprintf(out, MOST, "\\u%04x", (unsigned char)s[1]);
	else
		snprintf(out, MOST, "%.*s", (int)k, s);
	return k ? k : 1;
}

size_t lwm_show(char *out, size_t size, const char *text)
{
	char one[MOST];
	size_t n = strlen(text), at = 0;
	for (size_t i = 0; i < n;) {
		i += spell_character(text + i, n - i, one);
		size_t k = strlen(one);
		if (k >= size - at)
			break;
		memcpy(out + at, one, k);
		at += k;
	}
	out[at] = 0;
	return at;
}

void lwm_show_add(struct lwm_str *out, const char *text)
{
	char one[MOST];
	size_t n = strlen(text);
	for (size_t i = 0; i < n;) {
		i += spell_character(text + i, n - i, one);
		lwm_str_puts(out, one);
	}
}

int lwm_show_check(const char *name, const char *what, struct lwm_err *e)
{
	char shown[600], one[MOST];
	for (const char *s = name; *s; s++) {
		if (!is_control((unsigned char)*s))
			continue;
		lwm_show(shown, sizeof shown, name);
		spell_character(s, 1, one);
		return lwm_fail(e, LWM_EUSAGE, "%s: '%s' holds the control character %s", what, shown, one);
	}
	return 0;
}
