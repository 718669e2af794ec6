/* avlog.c - FFmpeg's log lines, kept per thread for the error sentence. */
#include "common/media/media_int.h"

#include <libavutil/log.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char reason[400];

static void keep_line(void *ctx, int level, const char *fmt, va_list ap)
{
	char line[300];
	size_t have = strlen(reason);
	(void)ctx;
	if (level > AV_LOG_ERROR)
		return;
	vsnprintf(line, sizeof line, fmt, ap);
	line[strcspn(line, "\r\n")] = 0;
	if (!line[0] || strstr(reason, line))
		return;
	snprintf(reason + have, sizeof reason - have, "%s%s", have ? "; " : "", line);
}

static void install_callback(void)
{
	av_log_set_callback(keep_line);
}

void lwm_av_quiet(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, install_callback);
}

void lwm_av_forget(void)
{
	reason[0] = 0;
}

const char *lwm_av_reason(void)
{
	return reason;
}

int lwm_av_fail(struct lwm_err *e, int code, int av, const char *fmt, ...)
{
	char what[600], why[128];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	if (av == AVERROR(ENOMEM))
		code = LWM_EMEMORY;
	if (av == AVERROR(ENOSPC))
		code = LWM_EIO;
	av_strerror(av, why, sizeof why);
	return lwm_fail(e, code, "%s: %s%s%s%s", what, why, reason[0] ? " (" : "", reason, reason[0] ? ")" : "");
}
