/* clock.h - seconds. */
#ifndef LWM_BASE_CLOCK_H
#define LWM_BASE_CLOCK_H

double lwm_now(void);        /* monotonic */
double lwm_peak_rss(void);   /* bytes, of this process so far */
double lwm_rss(void);        /* bytes, of this process now; 0 where the system does not tell */

#endif
