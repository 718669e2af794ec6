/* progress.c - the line that says how far long work is, how fast, and how much is left at that pace. */
#include "common/base/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

void lwm_progress_begin(struct lwm_progress *p, const char *what, const char *unit, int64_t total)
{
	const char *mode = getenv("LWM_PROGRESS");
	memset(p, 0, sizeof *p);
	snprintf(p->what, sizeof p->what, "%s", what);
	snprintf(p->unit, sizeof p->unit, "%s", unit);
	p->total = total;
	p->start = p->last = lwm_now();
	p->on = lwm_log_get_level() >= LWM_INFO && !(mode && !strcmp(mode, "none"));
	p->tty = isatty(2) && !(mode && !strcmp(mode, "line"));
}

static void eta_text(const struct lwm_progress *p, double elapsed, char *buf, size_t n)
{
	if (p->total <= 0 || p->done <= 0) {
		buf[0] = 0;
		return;
	}
	long s = (long)(elapsed * (double)(p->total - p->done) / (double)p->done + 0.5);
	if (s >= 3600)
		snprintf(buf, n, ", %ldh%02ldm left", s / 3600, s / 60 % 60);
	else
		snprintf(buf, n, ", %ldm%02lds left", s / 60, s % 60);
}

static void show_line(struct lwm_progress *p, double now)
{
	char eta[48], line[256];
	double elapsed = now - p->start;
	int n;
	eta_text(p, elapsed, eta, sizeof eta);
	n = snprintf(line, sizeof line, "%s %" PRId64, p->what, p->done);
	if (p->total > 0)
		n += snprintf(line + n, sizeof line - (size_t)n, "/%" PRId64, p->total);
	snprintf(line + n, sizeof line - (size_t)n, " %s, %.3g/s%s", p->unit,
		 elapsed > 0 ? (double)p->done / elapsed : 0.0, eta);
	if (p->tty)
		lwm_log_redraw("%s", line);
	else
		lwm_log(LWM_INFO, "%s", line);
	p->last = now;
}

void lwm_progress_at(struct lwm_progress *p, int64_t done)
{
	double now;
	p->done = done;
	if (!p->on)
		return;
	now = lwm_now();
	if (now - p->last >= (p->tty ? 0.2 : 60.0))
		show_line(p, now);
}

void lwm_progress_end(struct lwm_progress *p)
{
	if (p->on && p->tty)
		lwm_log_clear();
}
