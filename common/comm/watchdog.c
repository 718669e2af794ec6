/* A stuck job costs its whole allocation: a thread looks once a second how long there was no sign of life. */
#include "common/comm/watchdog.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "kernels/kernels.h"

enum {
	PATIENCE = 10, /* steps, or times the limit, that others are waited for */
	STANDSTILL = 2, /* seconds between two looks, one apart, after which the process itself stood still */
	TELLING = 10,  /* seconds that telling may take: the disk may be what hangs */
	STAYING = 5    /* seconds after that, in which other ranks tell: each looks once a second, when its node lets it */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	bool running;
	double seconds, longest; /* longest step; 0: there was none */
	_Atomic double last;     /* sign of life */
	atomic_int waiting;      /* of the ranks in this process, those that wait for others */
	int rank;
	bool stood;              /* the process was suspended for long and has made no step since: others may have waited for it */
	char where[64];
	lwm_watchdog_fn *tell;
	void *ctx;
} w = { .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };

/* How long silence is borne now. */
static double silence_limit(bool waiting)
{
	double l = PATIENCE * (w.longest > 0 ? w.longest : w.seconds);

	return waiting && l > w.seconds ? l : w.seconds;
}

static void end_now(int sig)
{
	(void)sig;
	_exit(LWM_ERANK);
}

/* An alarm ends the process where telling does not come back. */
static void tell_end(const struct lwm_watchdog_end *end)
{
	struct sigaction quit = { .sa_handler = end_now };
	sigset_t set;

	if (!w.tell)
		return;
	sigaction(SIGALRM, &quit, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	alarm(TELLING);
	w.tell(w.ctx, end);
	alarm(TELLING);
	sleep(STAYING);
}

static void check_silence(void)
{
	bool waiting = atomic_load(&w.waiting) > 0;
	double silent = lwm_now() - atomic_load(&w.last);

	if (silent <= silence_limit(waiting))
		return;
	dprintf(2, "lwm: rank %d: %s for %.0f s in '%s': a rank is lost or stuck\n", w.rank,
		waiting ? "waited for other ranks" : "no progress", silent, w.where);
	if (!waiting || !w.stood)
		tell_end(&(struct lwm_watchdog_end){ silent, waiting, w.where });
	_exit(LWM_ERANK);
}

/* A process that was suspended, this thread with it, was not silent then: it could not speak. *seen: when it ran last. Others have
 * waited for it if that was long; half of what they bear leaves room for when they began. */
static void credit_standstill(double *seen)
{
	double now = lwm_now(), gone = now - *seen;

	if (gone > STANDSTILL) {
		lwm_watchdog_tick();
		w.stood = w.stood || gone > silence_limit(true) / 2;
	}
	*seen = now;
}

static void *watch_silence(void *unused)
{
	double seen = lwm_now();

	(void)unused;
	pthread_mutex_lock(&w.lock);
	while (w.running) {
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_sec += 1;
		pthread_cond_timedwait(&w.wake, &w.lock, &t);
		credit_standstill(&seen);
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
		w.stood = false;
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

void lwm_watchdog_tell(lwm_watchdog_fn *fn, void *ctx)
{
	pthread_mutex_lock(&w.lock);
	if (w.running && !w.tell) {
		w.tell = fn;
		w.ctx = ctx;
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
	w.stood = false;
	pthread_mutex_unlock(&w.lock);
}

void lwm_watchdog_stop(void)
{
	pthread_mutex_lock(&w.lock);
	bool was = w.running;
	w.running = false;
	w.tell = NULL;
	pthread_cond_broadcast(&w.wake);
	pthread_mutex_unlock(&w.lock);
	if (!was)
		return;
	pthread_join(w.thread, NULL);
	lk_on_progress(NULL);
}
