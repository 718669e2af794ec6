/* history.h - history.jsonl of a stage's folder: when runs began, saved and ended, and why. Nothing is ever cut off it, where
 * metrics.jsonl has each step once and forgets what was computed again. Rank 0 only but for lwm_history_hosts; all else local.
 *
 *	lwm_history_hosts(world, &hosts, e)     every rank
 *	lwm_history_open(&h, dir, e)
 *	lwm_history_begin(h, &begin, e)         once, when the state is loaded
 *	lwm_history_saved(h, step, seconds, e)  as it happens
 *	lwm_history_end(h, step, code, why, e)  once; a run without that line was killed, or its node was lost
 *	lwm_history_close(h)
 *
 * Lines; times are seconds since 1970 by the clock of rank 0's node:
 *	{"event":"begin","time":,"began":,"step":,"steps":,"ranks":,"hosts":[["node01",8],...],"lost_steps":,"lost_seconds":,
 *	 "ended":,"job":"123","cwd":"...","command":["lwm-train-stage",...]}
 *	{"event":"save","time":,"step":,"seconds":}
 *	{"event":"end","time":,"step":,"code":,"why":"time limit"}
 * step: that the run resumes from, 0 of one that starts. began: of the process, before anything was read; time: when its state was
 * loaded. hosts: with how many consecutive ranks each, in the order of ranks. lost_steps: that metrics.jsonl held beyond `step`, by
 * the run before; they are computed again. lost_seconds: what they took. ended: the last sign of life of the run before, 0 when
 * there was none. code: 0 or the exit status; why: what asked for the end, or the sentence of the failure.
 *
 * Lines that the disk does not take wait in memory (common/base/json.h).
 */
#ifndef LWM_TRAIN_HISTORY_H
#define LWM_TRAIN_HISTORY_H

#include <stdint.h>

#include "common/base/str.h"
#include "common/comm/comm.h"

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
int lwm_history_saved(struct lwm_history *h, int64_t step, double seconds, struct lwm_err *e);
/* code: 0 or what the run returns, of either sign. */
int lwm_history_end(struct lwm_history *h, int64_t step, int code, const char *why, struct lwm_err *e);
void lwm_history_close(struct lwm_history *h); /* NULL is fine */

#endif
