/* stop.h - requests to stop, seen at a safe place.
 *
 * lwm_stop_install catches SIGUSR1, SIGTERM and SIGINT (a second SIGINT kills) and SIGUSR2 (save and go on). The
 * deadline comes from LWM_TIME_LIMIT (a time) or, under Slurm, from SLURM_JOB_END_TIME minus the grace. A stop file asks
 * the same. Process-wide, local: with several ranks the caller agrees on the answer.
 */
#ifndef LWM_BASE_STOP_H
#define LWM_BASE_STOP_H

enum lwm_stop { LWM_STOP_NO = 0, LWM_STOP_SAVE = 1, LWM_STOP_END = 2 };

void lwm_stop_install(double grace_seconds, const char *stop_file); /* stop_file may be NULL */
/* LWM_STOP_SAVE is reported once per request; LWM_STOP_END stays. */
enum lwm_stop lwm_stop_wanted(void);
const char *lwm_stop_reason(void); /* "SIGUSR1", "time limit", "stop file", or "" */

#endif
