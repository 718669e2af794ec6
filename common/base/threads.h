/* threads.h - the thread library's settings, which it reads once when it is loaded; and pieces of work for several threads. */
#ifndef LWM_BASE_THREADS_H
#define LWM_BASE_THREADS_H

#include <stdint.h>

#include "common/base/err.h"

/* Waiting threads of libgomp spin for milliseconds before they sleep. Where ranks, array tasks or neighbours share the cores that
 * costs more than it saves: a step of a small model took four times the processor time. Unless the environment says
 * something else (OMP_WAIT_POLICY, GOMP_SPINCOUNT) this sets a short spin and starts the program anew, once, before it
 * has done anything. Call it first in main. */
void lwm_threads_settle(char **argv);

/* fn(ctx, i) for i = 0 .. n-1, begun in that order, on at most `threads` threads with the caller's among them (0: as many as this
 * process has processors). After a failure nothing new is begun. Returns what the lowest i that failed returned: the same as if
 * they had been done one by one. Where a thread cannot be had, fewer do the work. */
typedef int lwm_work_fn(void *ctx, int64_t i, struct lwm_err *e);
int lwm_work(int64_t n, int64_t threads, lwm_work_fn *fn, void *ctx, struct lwm_err *e);

#endif
