/* watch.h - inside common/pipeline: what lwm-run says about tasks while they run.
 *
 * On a terminal one line at the bottom, drawn again every second; elsewhere a plain line for each task every `every` seconds (0:
 * never). LWM_PROGRESS=line asks for plain lines on a terminal too, LWM_PROGRESS=none and --quiet for none.
 */
#ifndef LWM_PIPELINE_WATCH_H
#define LWM_PIPELINE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

struct lwm_run_watch {
	double every, next; /* seconds; when the next lines are due */
	bool on, tty;
};

struct lwm_run_watched {
	const char *label, *log; /* log: the file that takes what the task says */
	int64_t from;            /* bytes the log had when this task started */
	double start;            /* of lwm_now */
};

void lwm_run_watch_begin(struct lwm_run_watch *w, double every);
bool lwm_run_watch_due(struct lwm_run_watch *w); /* cheap; sets the next time */
/* One of the `running` tasks. A terminal has room for one, so there call it for that alone that runs longest. */
void lwm_run_watch_say(const struct lwm_run_watch *w, const struct lwm_run_watched *t, int64_t running);

#endif
