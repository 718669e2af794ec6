/* clock.h - seconds that pass, and the memory of this process. */
#ifndef LWM_BASE_CLOCK_H
#define LWM_BASE_CLOCK_H

double lwm_now(void);        /* seconds of the monotonic clock: for differences, not for dates */
double lwm_peak_rss(void);   /* bytes of memory, the most this process had so far */
double lwm_rss(void);        /* bytes it has now; 0 where the system does not tell */

#endif
