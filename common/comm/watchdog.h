/* watchdog.h - ends a process whose ranks wait for each other for ever.
 *
 * start and tell, then signs of life:
 * pet() where a section begins, tick() inside it (kernels and collectives give them by themselves),
 * step() after each step; at the end stop. Silence for too long ends the process with status LWM_ERANK and a sentence on standard
 * error, and the launcher ends the others.
 *
 * A process that computes has to give a sign every `seconds`. One that waits for other ranks cannot know whether those compute: it
 * is given ten times the longest step so far (before there was a step, ten times `seconds`), and at least `seconds`. A process that
 * died is not the watchdog's business: the launcher notices that at once (slurm/job.sh).
 *
 * Who is stuck? One that computes says so itself. Of ranks that wait each says that it does, and nobody can say it of the one they
 * wait for: what they write down (lwm_watchdog_tell) shows who wrote nothing. So a process that has told waits some seconds more
 * before it ends, for its end is that of all others. A process that was suspended (SIGSTOP) has not been silent for that time when
 * it continues: others, which it kept waiting, have judged it by then. If that was half of what they bear or more, it tells nothing
 * of waiting for them before it has made a step again: a launcher lets suspended processes continue when it ends them.
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
void lwm_watchdog_step(double seconds);   /* a step took this long, on the slowest rank: all should say the same */
void lwm_watchdog_stop(void);             /* waits for the watchdog's thread; fine when none runs */

struct lwm_watchdog_end {
	double silent;     /* seconds */
	bool waited;       /* for other ranks; otherwise it computed */
	const char *where; /* the section */
};
/* What is called before the process is ended, from the watchdog's thread, once: other threads may hold any lock. It has ten
 * seconds, then the process ends all the same. Of the watchdog that runs; a second call changes nothing;
 * lwm_watchdog_stop forgets it. */
typedef void lwm_watchdog_fn(void *ctx, const struct lwm_watchdog_end *end);
void lwm_watchdog_tell(lwm_watchdog_fn *fn, void *ctx);

#endif
