/* history.h - history.jsonl of a stage's folder: when runs began, saved and ended, and why. Nothing is ever cut off it, where
 * metrics.jsonl has each step once and forgets what was computed again. Rank 0 only but for lwm_history_hosts and what a watchdog
 * says; all but the first is local.
 *
 *	lwm_history_hosts(world, &hosts, e)     every rank
 *	lwm_history_open(&h, dir, e)
 *	lwm_history_begin(h, &begin, e)         once, when the state is loaded
 *	lwm_history_saved(h, step, ...)         as it happens
 *	lwm_history_end(h, &end, e)             once; a run without that line was killed, or its node was lost
 *	lwm_history_close(h)
 *
 *	lwm_history_words(&words, dir, rank)    every rank, for its watchdog, which may have to end the process from outside:
 *	lwm_history_reached(&words, step)
 *	lwm_watchdog_tell(lwm_history_stuck, &words)
 *
 * Lines; times are seconds since 1970 by the clock of rank 0's node:
 *	{"event":"begin","time":,"began":,"step":,"steps":,"ranks":,"hosts":[["node01",8],...],"lost_steps":,"lost_seconds":,
 *	 "ended":,"job":"123","cwd":"...","command":["lwm-train-stage",...]}
 *	{"event":"save","time":,"step":,"seconds":,"blocking":}
 *	{"event":"end","time":,"step":,"code":,"why":"time limit"}
 *	{"event":"end","time":,"step":,"code":79,"why":"...","rank":2,"host":"node03"}
 *	{"event":"end","time":,"step":,"code":76,"why":"...","rank":1,"host":"node02","section":"step","waited":true}
 * step: that the run resumes from, 0 of one that starts. began: of the process, before anything was read; time: when its state was
 * loaded. hosts: with how many consecutive ranks each, in the order of ranks. lost_steps: that metrics.jsonl held beyond `step`, by
 * the run before; they are computed again. lost_seconds: what they took. ended: the last sign of life of the run before, 0 when
 * there was none. code: 0 or the exit status; why: what asked for the end, or the sentence of the failure. rank, host: whose fault
 * it was (replicas.h). With section, the line of a rank's watchdog: what the rank was at, and whether it waited for others there.
 * Several ranks may write such a line for the same end; of those that wrote none, or did not wait, one is the cause.
 *
 * Lines that the disk does not take wait in memory (common/base/json.h).
 */
#ifndef LWM_TRAIN_HISTORY_H
#define LWM_TRAIN_HISTORY_H

#include <stdint.h>

#include "common/base/str.h"
#include "common/comm/comm.h"
#include "common/comm/watchdog.h"

/* COLLECTIVE. On rank 0 `hosts` gets the JSON list of the line above. */
int lwm_history_hosts(struct lwm_comm *world, struct lwm_str *hosts, struct lwm_err *e);

/* What the run before left in metrics.jsonl. */
struct lwm_history_before {
	int64_t lost_steps;
	double lost_seconds, ended;
};
struct lwm_history_start {
	double began;
	int64_t step, steps;
	int ranks;
	const char *hosts; /* of lwm_history_hosts */
	struct lwm_history_before before;
};

double lwm_history_now(void); /* seconds since 1970 */

struct lwm_history;
/* -LWM_ECANTCREATE: a link or no regular file is there. */
int lwm_history_open(struct lwm_history **out, const char *dir, struct lwm_err *e);
int lwm_history_begin(struct lwm_history *h, const struct lwm_history_start *b, struct lwm_err *e);
/* As lwm_metrics_saved. */
int lwm_history_saved(struct lwm_history *h, int64_t step, double seconds, double blocking, struct lwm_err *e);
struct lwm_history_end {
	int64_t step;
	int code;         /* 0 or what the run returns, of either sign */
	const char *why;
	int rank;         /* whose fault it was; -1: nobody's that is known, and host is not looked at */
	const char *host;
};
int lwm_history_end(struct lwm_history *h, const struct lwm_history_end *end, struct lwm_err *e);
void lwm_history_close(struct lwm_history *h); /* NULL is fine */

/* All that a rank's last words need, so that they need no memory. */
struct lwm_history_words {
	char path[4096];       /* "" : too long, nothing is written */
	int rank;
	char host[64];
	_Atomic int64_t step;
};
void lwm_history_words(struct lwm_history_words *w, const char *dir, int rank);
void lwm_history_reached(struct lwm_history_words *w, int64_t step); /* any thread */
/* For lwm_watchdog_tell; ctx: the words. Adds the line in one write, where the file exists. */
void lwm_history_stuck(void *ctx, const struct lwm_watchdog_end *end);

#endif
