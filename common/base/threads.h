/* threads.h - the thread library's settings, which it reads once when it is loaded. */
#ifndef LWM_BASE_THREADS_H
#define LWM_BASE_THREADS_H

/* Waiting threads of libgomp spin for milliseconds before they sleep. Where ranks, array tasks or neighbours share the cores that
 * costs more than it saves: a step of a small model took four times the processor time. Unless the environment says
 * something else (OMP_WAIT_POLICY, GOMP_SPINCOUNT) this sets a short spin and starts the program anew, once, before it
 * has done anything. Call it first in main. */
void lwm_threads_settle(char **argv);

#endif
