/* A stuck job costs its whole allocation: when no sign of life comes for a while, end the process; the launcher ends
 * the others. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/dist/comm.h"

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	bool running;
	double seconds, last;
	int rank;
	char where[64];
} w = { .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };

static void *watch(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&w.lock);
	while (w.running) {
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_sec += 1;
		pthread_cond_timedwait(&w.wake, &w.lock, &t);
		if (w.running && lwm_now() - w.last > w.seconds) {
			dprintf(2, "lwm: rank %d: no progress for %.0f s in '%s': a rank is lost or stuck\n", w.rank,
				w.seconds, w.where);
			_exit(LWM_ERANK);
		}
	}
	pthread_mutex_unlock(&w.lock);
	return NULL;
}

void lwm_watchdog_start(struct lwm_comm *c, double seconds)
{
	pthread_mutex_lock(&w.lock);
	if (seconds > 0 && !w.running) {
		w.seconds = seconds;
		w.last = lwm_now();
		w.rank = lwm_comm_rank(c);
		w.running = pthread_create(&w.thread, NULL, watch, NULL) == 0;
		if (!w.running)
			lwm_log(LWM_WARN, "the watchdog could not be started");
	}
	pthread_mutex_unlock(&w.lock);
}

void lwm_watchdog_pet(const char *where)
{
	pthread_mutex_lock(&w.lock);
	w.last = lwm_now();
	snprintf(w.where, sizeof w.where, "%s", where);
	pthread_mutex_unlock(&w.lock);
}

void lwm_watchdog_stop(void)
{
	pthread_mutex_lock(&w.lock);
	bool was = w.running;
	w.running = false;
	pthread_cond_broadcast(&w.wake);
	pthread_mutex_unlock(&w.lock);
	if (was)
		pthread_join(w.thread, NULL);
}
