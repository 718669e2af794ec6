/* watch.c - how far the running tasks of a pipeline are: time, and the last line of their logs. */
#include "common/pipeline/watch.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

enum { TAIL_BYTES = 2048 };

void lwm_run_watch_begin(struct lwm_run_watch *w, double every)
{
	const char *mode = getenv("LWM_PROGRESS");
	w->tty = isatty(2) && !(mode && !strcmp(mode, "line"));
	w->on = lwm_log_get_level() >= LWM_INFO && !(mode && !strcmp(mode, "none")) && (w->tty || every > 0);
	w->every = w->tty ? 1 : every;
	w->next = lwm_now() + w->every;
}

bool lwm_run_watch_due(struct lwm_run_watch *w)
{
	double now = lwm_now();
	if (!w->on || now < w->next)
		return false;
	w->next = now + w->every;
	return true;
}

/* What the file has gained at its end since it had `from` bytes; *n is 0 when there is nothing, or no file. */
static void read_tail(const char *path, int64_t from, char *buf, size_t *n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t got = 0;
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > from) {
		int64_t at = st.st_size - from > TAIL_BYTES ? st.st_size - TAIL_BYTES : from;
		got = pread(fd, buf, TAIL_BYTES, at);
	}
	if (fd >= 0)
		close(fd);
	*n = got > 0 ? (size_t)got : 0;
}

static bool ends_line(char c)
{
	return c == '\n' || c == '\r';
}

/* The last finished line: "12:04:31 lwm-pack: text" without its time and name. Bytes that move a cursor become blanks. */
static const char *last_line(char *buf, size_t n)
{
	size_t end = n, at;
	char *s;
	while (end > 0 && !ends_line(buf[end - 1]))
		end--; /* still being written */
	while (end > 0 && ends_line(buf[end - 1]))
		end--;
	for (at = end; at > 0 && !ends_line(buf[at - 1]); at--)
		if ((unsigned char)buf[at - 1] < ' ' || buf[at - 1] == 127)
			buf[at - 1] = ' ';
	buf[end] = 0;
	s = buf + at;
	if (strlen(s) > 9 && s[2] == ':' && s[5] == ':' && s[8] == ' ' && strstr(s + 9, ": "))
		s = strstr(s + 9, ": ") + 2;
	return s;
}

static void span_text(double seconds, char *buf, size_t n)
{
	long s = (long)seconds;
	if (s >= 3600)
		snprintf(buf, n, "%ldh%02ldm", s / 3600, s / 60 % 60);
	else
		snprintf(buf, n, "%ldm%02lds", s / 60, s % 60);
}

void lwm_run_watch_say(const struct lwm_run_watch *w, const struct lwm_run_watched *t, int64_t running)
{
	char buf[TAIL_BYTES + 1], span[32], others[48] = "";
	const char *line;
	size_t n;
	read_tail(t->log, t->from, buf, &n);
	line = last_line(buf, n);
	span_text(lwm_now() - t->start, span, sizeof span);
	if (w->tty && running > 1)
		snprintf(others, sizeof others, " (and %" PRId64 " more)", running - 1);
	if (w->tty)
		lwm_log_redraw("%s%s: running for %s%s%s", t->label, others, span, *line ? ", " : "", line);
	else
		lwm_log(LWM_INFO, "%s: running for %s%s%s", t->label, span, *line ? ", " : "", line);
}
