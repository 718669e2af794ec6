/* progress.h - how far long work is: one redrawn line on a terminal, one plain line a minute elsewhere, on standard error.
 *
 *	lwm_progress_begin(&p, "packing", "rows", total), lwm_progress_at(&p, done) ..., lwm_progress_end(&p)
 */
#ifndef LWM_BASE_PROGRESS_H
#define LWM_BASE_PROGRESS_H

#include <stdint.h>

struct lwm_progress {
	char what[64], unit[24]; /* "packing", "rows" */
	int64_t total, done;     /* in units; total <= 0: unknown */
	double start, last;      /* of lwm_now: when it began, when a line was last printed */
	int tty, on;
};

/* Off when quiet or when LWM_PROGRESS=none; LWM_PROGRESS=line forces plain lines. */
void lwm_progress_begin(struct lwm_progress *p, const char *what, const char *unit, int64_t total);
void lwm_progress_at(struct lwm_progress *p, int64_t done); /* cheap: may be called for every unit; by one thread */
void lwm_progress_end(struct lwm_progress *p);              /* clears the terminal line */

#endif
