/* run_status.h - what became of a run of a stage, from the files of its folder alone. Local calls; nothing is written.
 *
 *	lwm_run_status_read(&st, dir, now, verify, e)
 *	lwm_run_status_show(&st, &text)  or  lwm_run_status_json(&st, &text)
 *	lwm_run_status_release(&st)
 *
 * The run may be writing: a line or a checkpoint that is not whole yet is not there yet. What is damaged is said and passed over.
 */
#ifndef LWM_EVAL_RUN_STATUS_H
#define LWM_EVAL_RUN_STATUS_H

#include <jansson.h>

#include "common/base/lock.h"
#include "common/base/path.h"
#include "common/base/str.h"
#include "common/eval/run_history.h"
#include "common/eval/run_series.h"

enum lwm_run_state {
	LWM_RUN_RUNNING,  /* its folder is locked, or a process of another node is named and gave a sign of life just now */
	LWM_RUN_SILENT,   /* the same, and no sign of life for longer than ten steps, two saves and two minutes */
	LWM_RUN_SAVED,    /* it was asked to end, saved, and wants to be run again */
	LWM_RUN_STOPPED,  /* a file STOP stands there */
	LWM_RUN_COMPLETE, /* all steps are made */
	LWM_RUN_DIVERGED, /* it ended because numbers went bad (79), and no rank was named for it */
	LWM_RUN_FAILED,   /* it ended with another code */
	LWM_RUN_DEAD      /* it ended without a word: killed, or its node was lost */
};
extern const char *const lwm_run_states[]; /* "running", ...; NULL-terminated */

/* What the state follows from. */
struct lwm_run_signs {
	enum lwm_lock_state lock;
	bool stop_file;   /* STOP stands there */
	bool complete;    /* summary.json exists, and the last run made all steps */
	bool ended;       /* the last run said that it ended */
	int code;         /* and with what */
	bool blames;      /* a rank, whose fault it was */
	double silent;    /* seconds since the last sign of life */
	double patience;  /* so long a run that works may be silent */
};
enum lwm_run_state lwm_run_judge(const struct lwm_run_signs *s); /* pure */

struct lwm_run_status {
	char *dir;
	double now;                 /* seconds since 1970 */
	enum lwm_run_state state;
	struct lwm_run_signs signs;
	char holder[192];           /* who has the lock, "" nobody said */
	struct lwm_run_series series;
	struct lwm_run_history history;
	double rate, mfu;           /* units a second, FLOPs over the peak: medians of the last steps; 0 unknown */
	char *checkpoint;           /* the newest whole one, NULL: none */
	int64_t checkpoint_step;    /* -1: none */
	double checkpoint_time;     /* when it was committed, seconds since 1970 */
	bool verified;              /* by all hashes; else by its seal and the sizes of its files */
	struct lwm_paths damaged;   /* newer checkpoints that are not whole: sentences */
	int64_t set_aside;          /* what lies in damaged/ */
	struct lwm_run_ledger ledger;
	json_t *suspicious;         /* of lwm_run_suspicious_hosts */
	struct lwm_str next;        /* one sentence, with the command */
};

/* Does a run of a stage lie in this folder: metrics.jsonl, history.jsonl, or a checkpoint? */
bool lwm_run_status_is(const char *dir);
/* verify: every byte of the newest checkpoint is read. now: seconds since 1970. -LWM_ENOINPUT: no run lies there. After a failure
 * it is to be released, too. */
int lwm_run_status_read(struct lwm_run_status *st, const char *dir, double now, bool verify, struct lwm_err *e);
void lwm_run_status_release(struct lwm_run_status *st);

/* The page of a run; the line of a run among several, its name padded to `width`; one line of JSON, {"schema":"lwm-status/1",...},
 * without its newline. Appended. */
void lwm_run_status_show(const struct lwm_run_status *st, struct lwm_str *out);
void lwm_run_status_line(const struct lwm_run_status *st, const char *name, int width, struct lwm_str *out);
void lwm_run_status_json(const struct lwm_run_status *st, struct lwm_str *out);

/* For people: "1.2 s", "12 s", "12 min", "3 h 05 min", "2 d 4 h". buf is returned. */
const char *lwm_age_text(double seconds, char *buf, size_t size);
/* n values as `width` bars, means of as many neighbours; those that are not finite are left out, a column of none is a blank.
 * Appends UTF-8 (U+2581 .. U+2588). */
void lwm_plot_bars(struct lwm_str *out, const double *v, int64_t n, int width);

#endif
