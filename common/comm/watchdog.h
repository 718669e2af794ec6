/* watchdog.h - ends a process whose ranks wait for each other for ever.
 *
 * start, then signs of life: pet() where a section begins, tick() inside it (kernels and collectives give them by themselves),
 * step() after each step; at the end stop. Silence for too long ends the process with status LWM_ERANK and a sentence on standard
 * error, and the launcher ends the others.
 *
 * A process that computes has to give a sign every `seconds`. One that waits for other ranks cannot know whether those compute: it
 * is given ten times the longest step so far (before there was a step, ten times `seconds`), and at least `seconds`. A process that
 * died is not the watchdog's business: the launcher notices that at once (slurm/job.sh).
 *
 * There is one watchdog per process, also where several ranks are threads of it. Every function is local and may be called from any
 * thread; without a watchdog that runs they do nothing anybody could see.
 */
#ifndef LWM_COMM_WATCHDOG_H
#define LWM_COMM_WATCHDOG_H

#include <stdbool.h>

/* For rank `rank` of `ranks`. Off with 0 seconds, or for a rank alone, which waits for nobody. A second start changes nothing. */
void lwm_watchdog_start(int rank, int ranks, double seconds);
void lwm_watchdog_pet(const char *where); /* a section of this name begins; the name is for the report */
void lwm_watchdog_tick(void);             /* the same section continues; cheap */
void lwm_watchdog_wait(bool waiting);     /* before (true) and after (false) whatever waits for other ranks */
void lwm_watchdog_step(double seconds);   /* a step took this long */
void lwm_watchdog_stop(void);             /* waits for the watchdog's thread; fine when none runs */

#endif
