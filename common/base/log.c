/* log.c - lines on standard error, and one that is drawn again and again. */
#include "common/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "common/base/show.h"

static struct {
	char program[64], host[64];
	int level, rank, nranks;
	atomic_bool drawn; /* a line without an end stands on the terminal */
} g = { "lwm", "", LWM_INFO, 0, 1, false };

void lwm_log_init(const char *program, int level)
{
	snprintf(g.program, sizeof g.program, "%s", program);
	g.level = level;
}

void lwm_log_rank(int rank, int nranks)
{
	g.rank = rank;
	g.nranks = nranks;
	if (gethostname(g.host, sizeof g.host - 1))
		g.host[0] = 0;
	g.host[strcspn(g.host, ".")] = 0;
}

int lwm_log_get_level(void)
{
	return g.level;
}

const char *lwm_log_program(void)
{
	return g.program;
}

/* What is told in the line comes from anywhere: file names, the output of other programs. It stays within its line. */
void lwm_log(int level, const char *fmt, ...)
{
	static const char *const names[] = { "error: ", "warning: ", "", "debug: " };
	char text[2048], line[4096], when[16];
	time_t now = time(NULL);
	struct tm tm;
	va_list ap;
	size_t n;
	if (level > g.level || (g.rank && level > LWM_WARN))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	strftime(when, sizeof when, "%H:%M:%S", localtime_r(&now, &tm));
	n = (size_t)snprintf(line, sizeof line, "%s %s: ", when, g.program);
	if (g.nranks > 1 && (g.rank || level <= LWM_WARN))
		n += (size_t)snprintf(line + n, sizeof line - n, "[r%d %s] ", g.rank, g.host);
	n += (size_t)snprintf(line + n, sizeof line - n, "%s", names[level]);
	n += lwm_show(line + n, sizeof line - n - 1, text);
	line[n] = '\n';
	lwm_log_clear();
	fwrite(line, 1, n + 1, stderr);
}

void lwm_log_redraw(const char *fmt, ...)
{
	char text[768], line[1024];
	struct winsize w;
	va_list ap;
	int n = snprintf(line, sizeof line, "%s: ", g.program);
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	lwm_show(line + n, sizeof line - (size_t)n, text);
	/* a line that wraps could not be taken away again */
	if (ioctl(2, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 && w.ws_col <= sizeof line)
		line[w.ws_col - 1] = 0;
	fprintf(stderr, "\r\033[K%s", line);
	g.drawn = true;
}

void lwm_log_clear(void)
{
	if (g.drawn)
		fputs("\r\033[K", stderr);
	g.drawn = false;
}
