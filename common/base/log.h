/* log.h - talk on stderr, one line a call: "12:04:31 lwm-pack: text". Process-wide state: level, name, rank, which are set before
 * there are several threads; lwm_log may be called by any of them, and its lines stay whole. Control characters in the text are
 * spelt out (show.h): no name of a file begins a line of its own or steers the terminal. */
#ifndef LWM_BASE_LOG_H
#define LWM_BASE_LOG_H

enum lwm_log_level { LWM_ERROR, LWM_WARN, LWM_INFO, LWM_DEBUG };

void lwm_log_init(const char *program, int level);
void lwm_log_rank(int rank, int nranks); /* other ranks than 0 then only speak at WARN and above, as "[r3 host]" */
int lwm_log_get_level(void);
const char *lwm_log_program(void);
void lwm_log(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* For a terminal: one line without an end, cut at the width, that the next of these or of lwm_log replaces. */
void lwm_log_redraw(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void lwm_log_clear(void); /* takes that line away, where there is one */

#endif
