/* stop.h - requests to stop, seen at a safe place.
 *
 *	lwm_stop_catch(false)             first of all in main, before MPI: from here on a signal is a request
 *	lwm_stop_install(grace, file)     and the time limit and a stop file are, too
 *	between two units of work:        lwm_stop_cost(seconds of a unit, seconds of a save); switch (lwm_stop_wanted()) ...
 *
 * SIGUSR1, SIGTERM and SIGINT ask for an end after a save, SIGUSR2 for a save alone. Ctrl-C is answered at once on standard
 * error, and a second one ends the process (or is reported, for a program that has others to end first). The limit comes from
 * LWM_TIME_LIMIT (a time from now) or, under Slurm, from SLURM_JOB_END_TIME. Process-wide, local: with several ranks the
 * caller agrees on the answer; a stop file needs to be looked for by one of them only.
 */
#ifndef LWM_BASE_STOP_H
#define LWM_BASE_STOP_H

#include <stdbool.h>

enum { LWM_STOP_GRACE = 60 /* seconds before a Slurm limit, for programs that have no option for it */ };
/* From weak to strong: several ranks agree on the largest. */
enum lwm_stop {
	LWM_STOP_NO = 0,
	LWM_STOP_SAVE, /* save and continue; reported once for each request */
	LWM_STOP_END,  /* save and end with LWM_ESAVED: to be run again */
	LWM_STOP_FILE, /* a stop file stands: save and end for good, with 0 */
	LWM_STOP_NOW   /* a second Ctrl-C, where the program asked to hear of it */
};

/* Holds the signals back until lwm_stop_catch: for a program that is about to start itself anew (execve keeps what is held). */
void lwm_stop_hold(void);
/* Signal handlers only; again is harmless. second_reported: a second SIGINT gives LWM_STOP_NOW instead of ending the process. */
void lwm_stop_catch(bool second_reported);
/* Catches, reads the limit, and remembers the stop file (NULL: none). Work ends `grace` seconds before a limit that Slurm set. */
void lwm_stop_install(double grace_seconds, const char *stop_file);
/* What the next unit of work and the save after it will take, as last measured: neither is begun when the limit would cut it. */
void lwm_stop_cost(double unit_seconds, double save_seconds);
enum lwm_stop lwm_stop_wanted(void);
const char *lwm_stop_reason(void); /* "SIGUSR1", "time limit", "stop file", or "" */

#endif
