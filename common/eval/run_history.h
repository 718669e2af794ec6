/* run_history.h - history.jsonl of a stage's folder (train/history.h): the runs it took, where the time went, which hosts stand
 * out. Local calls.
 *
 *	lwm_run_history_read(&h, dir, e), lwm_run_ledger_make(&l, &h, useful, until), lwm_run_history_release(&h)
 */
#ifndef LWM_EVAL_RUN_HISTORY_H
#define LWM_EVAL_RUN_HISTORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/str.h"

/* One run of the stage. Times are seconds since 1970. */
struct lwm_run_attempt {
	double began, loaded;   /* the process; its state was there and training began */
	double over;            /* its end, or the last sign of life; 0: none after `loaded` is known */
	double saving;          /* seconds in saves */
	int64_t from, reached;  /* steps: resumed from; at the last thing that history.jsonl says */
	int64_t steps;          /* that it was to reach */
	int64_t lost_steps;     /* of the run before, computed again by this one */
	double lost_seconds;    /* and what they had taken */
	int ranks;
	bool ended;             /* it said so; otherwise it runs, or was killed */
	int code;               /* 0 or exit status of one that ended */
	char why[200];          /* what asked for the end, or failed; "" all steps were made */
	int rank;               /* whose fault the end was; -1: nobody's that is known */
	char host[64];          /* its node; "" none is known */
	json_t *waited;         /* ranks whose watchdog said that they waited for others, owned; NULL: none */
	char job[32];           /* of Slurm, or "" */
	json_t *hosts;          /* [["node01",8],...], owned */
};
struct lwm_run_history {
	struct lwm_run_attempt *v;
	int64_t n, cap;
	double last;        /* time of the last line; 0 none */
	char *cwd;          /* of the last run, and its command; NULL: not said */
	json_t *command;    /* list of words */
	int64_t bad;        /* lines that are no JSON; what follows the last newline is not read */
};
/* A missing file has no runs. After a failure it is to be released, too. */
int lwm_run_history_read(struct lwm_run_history *h, const char *dir, struct lwm_err *e);
void lwm_run_history_release(struct lwm_run_history *h);

/* Where the time went since the first run began. */
enum lwm_ledger {
	LWM_LEDGER_USEFUL,   /* steps that count */
	LWM_LEDGER_LOST,     /* steps that were computed again */
	LWM_LEDGER_SAVING,   /* checkpoints */
	LWM_LEDGER_STARTING, /* from the start of a process to its first step: reading checkpoint and data */
	LWM_LEDGER_GAPS,     /* between the end of a run and the start of the next */
	LWM_LEDGER_OTHER,    /* evaluation, records, waiting that none of these is */
	LWM_LEDGER_PARTS
};
extern const char *const lwm_ledger_names[]; /* "useful", ...; NULL-terminated */
struct lwm_run_ledger {
	double seconds[LWM_LEDGER_PARTS], total; /* of them all; 0: nothing is known */
};
/* useful: seconds of the steps that metrics.jsonl holds. until: when the last run ended, or was last seen; now for one that runs.
 * The total is the time from the first `began` to that; where parts that were measured by themselves come to more (clocks of
 * several nodes differ), it is their sum, so that shares add up to 1 in any case. Pure. */
void lwm_run_ledger_make(struct lwm_run_ledger *l, const struct lwm_run_history *h, double useful, double until);

/* Was the end of attempt i one that a machine may be the cause of: none said, a lost rank, a device, the system, its disk? */
bool lwm_run_attempt_suspect(const struct lwm_run_history *h, int64_t i, bool running);
/* A host that the end of an attempt named, and one that was in at least two such attempts, and in a larger share of its attempts
 * than the others: JSON [{"host":,"named":,"attempts":},{"host":,"suspect":,"attempts":},...], new; where all ran on the same hosts
 * and none was named nothing can be told, and the list is empty. NULL: out of memory. running: the last attempt has not ended. */
json_t *lwm_run_suspicious_hosts(const struct lwm_run_history *h, bool running);

#endif
