/* num.h - numbers from outside, products that may overflow, numbers for people.
 *
 * What cannot be parsed or is out of range is -LWM_EUSAGE with a sentence that begins with `what`, and *out stays as it was.
 */
#ifndef LWM_BASE_NUM_H
#define LWM_BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

/* The whole text must be the number. Counts take a suffix: k K M G T are powers of 1024 (tokens are counted so: 32K =
 * 32768), and "1e6" or "4M" are fine as long as the value is whole. `what` names it in the message ("--seq-length"). */
int lwm_parse_int(const char *text, int64_t min, int64_t max, int64_t *out, const char *what, struct lwm_err *e);
/* "WxH", or "N" for N x N: width and height, 1 to max each; they stay as they are where text is NULL, or wrong. */
int lwm_parse_size(const char *text, int64_t max, int64_t *w, int64_t *h, const char *what, struct lwm_err *e);
int lwm_parse_double(const char *text, double min, double max, double *out, const char *what, struct lwm_err *e);
int lwm_parse_bool(const char *text, bool *out, const char *what, struct lwm_err *e); /* true false yes no on off 1 0 */
/* Seconds: "90", "90s", "15m", "2h", "3d", "1:30:00"; at most LWM_SECONDS_MOST. */
#define LWM_SECONDS_MOST 1e9
int lwm_parse_seconds(const char *text, double *out, const char *what, struct lwm_err *e);

/* 0 and *out = a*b(*c), or -1 when it does not fit or a factor is negative. */
int lwm_mul(int64_t a, int64_t b, int64_t *out);
int lwm_mul3(int64_t a, int64_t b, int64_t c, int64_t *out);

/* For people; buf is returned. Counts: "32K", "1M", powers of 1024 where they are exact, else as rates: "734k", "6.74B", three digits
 * and powers of 1000. */
const char *lwm_count_text(int64_t n, char *buf, size_t size);
const char *lwm_rate_text(double v, char *buf, size_t size);
const char *lwm_bytes_text(double bytes, char *buf, size_t size); /* "3.4 GiB" */
/* Entropy of n kinds that were counted: -sum p log p, in nats; 0 where nothing was counted. */
double lwm_entropy(const int64_t *count, int64_t n);

#endif
