/* progress.h - how far long work is: one redrawn line on a terminal, one plain line a minute elsewhere. On stderr. */
#ifndef LWM_BASE_PROGRESS_H
#define LWM_BASE_PROGRESS_H

#include <stdint.h>

struct lwm_progress {
	char what[64], unit[24];
	int64_t total, done; /* total <= 0: unknown */
	double start, last;
	int tty, on;
};

/* Off when quiet or when LWM_PROGRESS=none; LWM_PROGRESS=line forces plain lines. */
void lwm_progress_begin(struct lwm_progress *p, const char *what, const char *unit, int64_t total);
void lwm_progress_at(struct lwm_progress *p, int64_t done); /* cheap; call as often as you like; thread: one */
void lwm_progress_end(struct lwm_progress *p);              /* clears the terminal line */

#endif
