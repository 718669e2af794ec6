/* str.c - strings that grow, by half each time; and the name that somebody most likely meant. */
#include "common/base/str.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/utf8.h"

static bool make_room(struct lwm_str *b, size_t more)
{
	size_t need, cap;
	char *p;
	if (b->failed || __builtin_add_overflow(b->len, more, &need) || __builtin_add_overflow(need, 1, &need)) {
		b->failed = true;
		return false;
	}
	if (need <= b->cap)
		return true;
	cap = b->cap ? b->cap : 64;
	while (cap < need)
		cap = cap > SIZE_MAX / 2 ? need : cap + cap / 2 + 64;
	p = realloc(b->s, cap);
	if (!p) {
		b->failed = true;
		return false;
	}
	b->s = p;
	b->cap = cap;
	return true;
}

void lwm_str_add(struct lwm_str *b, const void *bytes, size_t n)
{
	if (!make_room(b, n))
		return;
	if (n)
		memcpy(b->s + b->len, bytes, n);
	b->len += n;
	b->s[b->len] = 0;
}

void lwm_str_puts(struct lwm_str *b, const char *text)
{
	lwm_str_add(b, text, strlen(text));
}

void lwm_str_putc(struct lwm_str *b, char c)
{
	lwm_str_add(b, &c, 1);
}

void lwm_str_printf(struct lwm_str *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		b->failed = true;
	if (n < 0 || !make_room(b, (size_t)n))
		return;
	va_start(ap, fmt);
	vsnprintf(b->s + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

void lwm_str_json(struct lwm_str *b, const char *text, size_t n)
{
	lwm_str_putc(b, '"');
	for (size_t i = 0; i < n;) {
		unsigned char c = (unsigned char)text[i];
		size_t k = lwm_utf8_len(text + i, n - i);
		if (k == 0) {
			lwm_str_puts(b, "\xEF\xBF\xBD");
			i++;
			continue;
		}
		if (c == '"' || c == '\\')
			lwm_str_printf(b, "\\%c", c);
		else if (c == '\n')
			lwm_str_puts(b, "\\n");
		else if (c < 0x20 || c == 0x7f)
			lwm_str_printf(b, "\\u%04x", c);
		else
			lwm_str_add(b, text + i, k);
		i += k;
	}
	lwm_str_putc(b, '"');
}

void lwm_str_number(struct lwm_str *b, double v, int digits)
{
	if (isfinite(v))
		lwm_str_printf(b, "%.*g", digits, v);
	else
		lwm_str_puts(b, "null");
}

void lwm_str_shell(struct lwm_str *b, const char *word)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%";
	if (*word && strspn(word, plain) == strlen(word)) {
		lwm_str_puts(b, word);
		return;
	}
	lwm_str_putc(b, '\'');
	for (; *word; word++) {
		if (*word == '\'')
			lwm_str_puts(b, "'\\''");
		else
			lwm_str_putc(b, *word);
	}
	lwm_str_putc(b, '\'');
}

void lwm_str_reset(struct lwm_str *b)
{
	b->len = 0;
	if (b->s)
		b->s[0] = 0;
}

void lwm_str_release(struct lwm_str *b)
{
	free(b->s);
	memset(b, 0, sizeof *b);
}

int lwm_str_ok(const struct lwm_str *b, struct lwm_err *e)
{
	return b->failed ? lwm_fail(e, LWM_EMEMORY, "out of memory at a string of %zu bytes", b->len) : 0;
}

const char *lwm_str_get(const struct lwm_str *b)
{
	return b->s ? b->s : "";
}

/* ---- names that people misspell ---- */

/* Damerau-Levenshtein distance (one swap of neighbours counts one) of names up to 63 bytes. */
static int edit_distance(const char *a, const char *b)
{
	int d[64][64], n = (int)strlen(a), m = (int)strlen(b);
	if (n > 63 || m > 63)
		return 64;
	for (int i = 0; i <= n; i++) {
		for (int j = 0; j <= m; j++) {
			if (i == 0 || j == 0) {
				d[i][j] = i + j;
				continue;
			}
			int c = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			c = d[i - 1][j] + 1 < c ? d[i - 1][j] + 1 : c;
			c = d[i][j - 1] + 1 < c ? d[i][j - 1] + 1 : c;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < c)
				c = d[i - 2][j - 2] + 1;
			d[i][j] = c;
		}
	}
	return d[n][m];
}

const char *lwm_nearest(const char *name, const char *const *names, int64_t n)
{
	const char *best = NULL;
	int best_d = ((int)strlen(name) + 2) / 3 + 1; /* within a third, rounded up */
	for (int64_t i = 0; i < n; i++) {
		int d = edit_distance(name, names[i]);
		if (d < best_d) {
			best_d = d;
			best = names[i];
		}
	}
	return best;
}

const char *lwm_hint(char hint[LWM_HINT], const char *name, const char *const *names, int64_t n)
{
	const char *near = lwm_nearest(name, names, n);
	hint[0] = 0;
	if (near)
		snprintf(hint, LWM_HINT, " (did you mean '%s'?)", near);
	return hint;
}
