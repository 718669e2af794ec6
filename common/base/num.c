/* num.c - numbers from text, strictly: the whole text or an error that names the option; and numbers as text for people. */
#include "common/base/num.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int parse_suffix(const char *s, int64_t *mult)
{
	static const char letters[] = "kmgt";
	*mult = 1;
	if (!*s)
		return 0;
	for (int i = 0; letters[i]; i++) {
		*mult *= 1024;
		if ((s[0] | 32) == letters[i])
			return (s[1] == 0 || (s[1] == 'i' && s[2] == 0)) ? 0 : -1;
	}
	return -1;
}

static int parse_whole(const char *text, int64_t *out)
{
	char *end;
	int64_t mult;
	if (!*text || *text == ' ')
		return -1;
	errno = 0;
	long long v = strtoll(text, &end, 10);
	if (end == text || errno)
		return -1;
	if (*end == '.' || *end == 'e' || *end == 'E') {
		double d = strtod(text, &end);
		if (parse_suffix(end, &mult))
			return -1;
		d *= (double)mult;
		if (!(fabs(d) < 9e15) || d != floor(d))
			return -1;
		*out = (int64_t)d;
		return 0;
	}
	if (parse_suffix(end, &mult))
		return -1;
	return __builtin_mul_overflow((int64_t)v, mult, out) ? -1 : 0;
}

int lwm_parse_int(const char *text, int64_t min, int64_t max, int64_t *out, const char *what, struct lwm_err *e)
{
	int64_t v;
	if (parse_whole(text, &v))
		return lwm_fail(e, LWM_EUSAGE, "%s: '%s' is not a whole number (like 1200, 32K or 1M)", what, text);
	if (v < min || v > max)
		return lwm_fail(e, LWM_EUSAGE, "%s: %s is not in %" PRId64 "..%" PRId64, what, text, min, max);
	*out = v;
	return 0;
}

int lwm_parse_size(const char *text, int64_t max, int64_t *w, int64_t *h, const char *what, struct lwm_err *e)
{
	const char *x = text ? strchr(text, 'x') : NULL;
	char wide[32];
	int64_t width, height;

	if (!text)
		return 0;
	snprintf(wide, sizeof wide, "%.*s", (int)(x ? x - text : (ptrdiff_t)strnlen(text, sizeof wide)), text);
	LWM_TRY(lwm_parse_int(wide, 1, max, &width, what, e));
	LWM_TRY(lwm_parse_int(x ? x + 1 : wide, 1, max, &height, what, e));
	*w = width;
	*h = height;
	return 0;
}

int lwm_parse_double(const char *text, double min, double max, double *out, const char *what, struct lwm_err *e)
{
	char *end;
	double v;
	errno = 0;
	v = strtod(text, &end);
	if (end == text || *end || *text == ' ' || !isfinite(v))
		return lwm_fail(e, LWM_EUSAGE, "%s: '%s' is not a number", what, text);
	if (v < min || v > max)
		return lwm_fail(e, LWM_EUSAGE, "%s: %s is not in %g..%g", what, text, min, max);
	*out = v;
	return 0;
}

int lwm_parse_bool(const char *text, bool *out, const char *what, struct lwm_err *e)
{
	static const char *const yes[] = { "true", "yes", "on", "1" }, *const no[] = { "false", "no", "off", "0" };
	for (int i = 0; i < 4; i++) {
		if (!strcasecmp(text, yes[i]) || !strcasecmp(text, no[i])) {
			*out = !strcasecmp(text, yes[i]);
			return 0;
		}
	}
	return lwm_fail(e, LWM_EUSAGE, "%s: '%s' is neither true nor false", what, text);
}

static int not_a_time(const char *text, const char *what, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EUSAGE, "%s: '%s' is not a time (like 90s, 15m, 2h, 3d, 1:30:00)", what, text);
}

int lwm_parse_seconds(const char *text, double *out, const char *what, struct lwm_err *e)
{
	double total = 0, v;
	const char *p = text;
	char *end;
	for (;;) {
		v = strtod(p, &end);
		if (end == p || v < 0 || !isfinite(v) || *p == ' ')
			return not_a_time(text, what, e);
		total = total * 60 + v;
		if (*end != ':')
			break;
		p = end + 1;
	}
	if (*end) {
		static const char unit[] = "smhd";
		static const double sec[] = { 1, 60, 3600, 86400 };
		const char *u = strchr(unit, *end);
		if (!u || end[1])
			return not_a_time(text, what, e);
		total *= sec[u - unit];
	}
	if (!(total <= LWM_SECONDS_MOST)) /* so that sums and whole numbers made of it are in range */
		return lwm_fail(e, LWM_EUSAGE, "%s: '%s' is more than %.0f seconds", what, text, LWM_SECONDS_MOST);
	*out = total;
	return 0;
}

int lwm_mul(int64_t a, int64_t b, int64_t *out)
{
	return a < 0 || b < 0 || __builtin_mul_overflow(a, b, out) ? -1 : 0;
}

int lwm_mul3(int64_t a, int64_t b, int64_t c, int64_t *out)
{
	int64_t ab;
	return lwm_mul(a, b, &ab) ? -1 : lwm_mul(ab, c, out);
}

const char *lwm_rate_text(double v, char *buf, size_t size)
{
	static const char *const unit[] = { "", "k", "M", "B", "T" };
	int u = 0;
	for (; u < 4 && fabs(v) >= 999.5; u++)
		v /= 1000;
	snprintf(buf, size, "%.3g%s", v, unit[u]);
	return buf;
}

const char *lwm_count_text(int64_t n, char *buf, size_t size)
{
	static const char *const unit[] = { "", "K", "M", "G", "T" };
	int u = 0;
	int64_t v = n;
	while (u < 4 && v >= 1024 && v % 1024 == 0) {
		v /= 1024;
		u++;
	}
	if (v < 10000) {
		snprintf(buf, size, "%" PRId64 "%s", v, unit[u]);
		return buf;
	}
	return lwm_rate_text((double)n, buf, size);
}

const char *lwm_bytes_text(double bytes, char *buf, size_t size)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	int u = 0;
	while (u < 5 && fabs(bytes) >= 1024) {
		bytes /= 1024;
		u++;
	}
	snprintf(buf, size, u ? "%.1f %s" : "%.0f %s", bytes, unit[u]);
	return buf;
}

double lwm_entropy(const int64_t *count, int64_t n)
{
	double all = 0, h = 0;
	for (int64_t i = 0; i < n; i++)
		all += (double)count[i];
	for (int64_t i = 0; i < n; i++)
		if (count[i])
			h -= (double)count[i] / all * log((double)count[i] / all);
	return h;
}
