/* A stuck job costs its whole allocation: a thread looks once a second how long there was no sign of life. */
#include "common/comm/watchdog.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "kernels/kernels.h"

enum { PATIENCE = 10 /* steps, or times the limit, that others are waited for */ };

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	bool running;
	double seconds, longest; /* longest step; 0: there was none */
	_Atomic double last;     /* sign of life */
	atomic_int waiting;      /* of the ranks in this process, those that wait for others */
	int rank;
	char where[64];
} w = { .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };

/* How long silence is borne now. */
static double silence_limit(bool waiting)
{
	double l = PATIENCE * (w.longest > 0 ? w.longest : w.seconds);

	return waiting && l > w.seconds ? l : w.seconds;
}

static void check_silence(void)
{
	bool waiting = atomic_load(&w.waiting) > 0;
	double silent = lwm_now() - atomic_load(&w.last);

	if (silent <= silence_limit(waiting))
		return;
	dprintf(2, "lwm: rank %d: %s for %.0f s in '%s': a rank is lost or stuck\n", w.rank,
		waiting ? "waited for other ranks" : "no progress", silent, w.where);
	_exit(LWM_ERANK);
}

static void *watch_silence(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&w.lock);
	while (w.running) {
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_sec += 1;
		pthread_cond_timedwait(&w.wake, &w.lock, &t);
		if (w.running)
			check_silence();
	}
	pthread_mutex_unlock(&w.lock);
	return NULL;
}

void lwm_watchdog_start(int rank, int ranks, double seconds)
{
	if (ranks == 1)
		return;
	pthread_mutex_lock(&w.lock);
	if (seconds > 0 && !w.running) {
		w.seconds = seconds;
		w.longest = 0;
		w.rank = rank;
		lwm_watchdog_tick();
		w.running = pthread_create(&w.thread, NULL, watch_silence, NULL) == 0;
		if (w.running)
			lk_on_progress(lwm_watchdog_tick);
		else
			lwm_log(LWM_WARN, "the watchdog could not be started");
	}
	pthread_mutex_unlock(&w.lock);
}

void lwm_watchdog_pet(const char *where)
{
	pthread_mutex_lock(&w.lock);
	snprintf(w.where, sizeof w.where, "%s", where);
	pthread_mutex_unlock(&w.lock);
	lwm_watchdog_tick();
}

void lwm_watchdog_tick(void)
{
	atomic_store_explicit(&w.last, lwm_now(), memory_order_relaxed);
}

void lwm_watchdog_wait(bool waiting)
{
	lwm_watchdog_tick();
	atomic_fetch_add(&w.waiting, waiting ? 1 : -1);
}

void lwm_watchdog_step(double seconds)
{
	pthread_mutex_lock(&w.lock);
	w.longest = seconds > w.longest ? seconds : w.longest;
	pthread_mutex_unlock(&w.lock);
}

void lwm_watchdog_stop(void)
{
	pthread_mutex_lock(&w.lock);
	bool was = w.running;
	w.running = false;
	pthread_cond_broadcast(&w.wake);
	pthread_mutex_unlock(&w.lock);
	if (!was)
		return;
	pthread_join(w.thread, NULL);
	lk_on_progress(NULL);
}
