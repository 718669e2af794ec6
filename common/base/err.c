/* err.c - failures as a code and a sentence. The first one is kept: what fails later while cleaning up is not the cause. */
#include "common/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void set_sentence(struct lwm_err *e, int code, const char *fmt, va_list ap, const char *tail)
{
	if (!e || e->code)
		return;
	e->code = -code;
	int n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
	if (tail && n >= 0 && (size_t)n < sizeof e->msg)
		snprintf(e->msg + n, sizeof e->msg - (size_t)n, ": %s", tail);
}

int lwm_fail(struct lwm_err *e, int code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	set_sentence(e, code, fmt, ap, NULL);
	va_end(ap);
	return -code;
}

static int code_of_errno(int code, int errno_value)
{
	switch (errno_value) {
	case ENOENT:
		return code == LWM_ECANTCREATE ? code : LWM_ENOINPUT;
	case ENOSPC:
	case EDQUOT:
	case EIO:
		return LWM_EIO;
	case ENOMEM:
	case EMFILE:
	case ENFILE:
		return LWM_EMEMORY;
	default:
		return code;
	}
}

int lwm_fail_errno(struct lwm_err *e, int code, int errno_value, const char *fmt, ...)
{
	char buf[128];
	const char *text = strerror_r(errno_value, buf, sizeof buf);
	va_list ap;
	code = code_of_errno(code, errno_value);
	va_start(ap, fmt);
	set_sentence(e, code, fmt, ap, text);
	va_end(ap);
	return -code;
}

int lwm_fail_memory(struct lwm_err *e, const char *what)
{
	return what ? lwm_fail(e, LWM_EMEMORY, "%s: out of memory", what) : lwm_fail(e, LWM_EMEMORY, "out of memory");
}

int lwm_context(struct lwm_err *e, const char *fmt, ...)
{
	char place[512];
	size_t n, have;
	va_list ap;
	if (!e)
		return -LWM_EINTERNAL;
	va_start(ap, fmt);
	vsnprintf(place, sizeof place - 2, fmt, ap);
	va_end(ap);
	strncat(place, ": ", sizeof place - strlen(place) - 1);
	n = strlen(place);
	have = strlen(e->msg);
	if (n + have >= sizeof e->msg)
		have = sizeof e->msg - 1 - n;
	memmove(e->msg + n, e->msg, have);
	memcpy(e->msg, place, n);
	e->msg[n + have] = 0;
	return e->code;
}

void lwm_err_clear(struct lwm_err *e)
{
	e->code = 0;
	e->msg[0] = 0;
	e->who = LWM_ERR_MINE;
	e->said = 0;
}

const char *lwm_code_name(int code)
{
	switch (code < 0 ? -code : code) {
	case LWM_OK:
		return "ok";
	case LWM_ENO:
		return "no";
	case LWM_EUSAGE:
		return "usage";
	case LWM_EDATA:
		return "data";
	case LWM_ENOINPUT:
		return "noinput";
	case LWM_EUNAVAIL:
		return "unavailable";
	case LWM_EINTERNAL:
		return "internal";
	case LWM_EMEMORY:
		return "memory";
	case LWM_ECANTCREATE:
		return "cantcreate";
	case LWM_EIO:
		return "io";
	case LWM_ESAVED:
		return "saved";
	case LWM_ERANK:
		return "rank";
	case LWM_ECONFIG:
		return "config";
	case LWM_ENUMERIC:
		return "numeric";
	default:
		return "unknown";
	}
}

void lwm_bug(const char *file, int line, const char *what)
{
	fprintf(stderr, "lwm: internal error at %s:%d: %s\n", file, line, what);
	abort();
}
