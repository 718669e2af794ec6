/* stop.c - requests to stop: signals become flags, the time limit and the stop file are looked at when somebody asks. */
#include "common/base/stop.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/launch.h"
#include "common/base/log.h"
#include "common/base/num.h"

static const int sigs[] = { SIGUSR1, SIGTERM, SIGINT, SIGUSR2 };
static volatile sig_atomic_t asked_end, asked_save, asked_twice, report_second;
static char answer[128]; /* to Ctrl-C: made before, a handler may not format */
static volatile sig_atomic_t answer_bytes;
/* Of what follows: ranks that are threads ask at once. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double limit, grace, unit_cost, save_cost; /* limit: monotonic; 0 none */
static char stop_path[4096];
static double next_look; /* at the stop file: a file system far away is not asked between any two units */
static bool stop_file_seen;
static const double LOOK_EVERY = 0.25;
static const char *reason = "";

static void on_interrupt(void)
{
	ssize_t ignored;

	if (asked_end == SIGINT && !report_second) {
		signal(SIGINT, SIG_DFL);
		raise(SIGINT);
	}
	asked_twice = asked_end == SIGINT;
	ignored = write(2, answer, (size_t)answer_bytes);
	(void)ignored;
}

static void on_signal(int sig)
{
	if (sig == SIGUSR2) {
		asked_save = 1;
		return;
	}
	if (sig == SIGINT)
		on_interrupt();
	asked_end = sig;
}

static void list_requests(sigset_t *set)
{
	sigemptyset(set);
	for (size_t i = 0; i < sizeof sigs / sizeof *sigs; i++)
		sigaddset(set, sigs[i]);
}

void lwm_stop_hold(void)
{
	sigset_t set;

	list_requests(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void lwm_stop_catch(bool second_reported)
{
	struct sigaction sa;
	sigset_t set;

	memset(&sa, 0, sizeof sa);
	sa.sa_handler = on_signal;
	sa.sa_flags = SA_RESTART;
	pthread_mutex_lock(&lock);
	if (lwm_launch_rank() == 0) {
		int n = snprintf(answer, sizeof answer, "\n%.40s: saving; press Ctrl-C again to leave at once\n",
				 lwm_log_program());
		answer_bytes = n;
	}
	if (second_reported)
		report_second = 1;
	for (size_t i = 0; i < sizeof sigs / sizeof *sigs; i++)
		sigaction(sigs[i], &sa, NULL);
	list_requests(&set);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	pthread_mutex_unlock(&lock);
}

static void read_limit(double grace_seconds)
{
	const char *own = getenv("LWM_TIME_LIMIT");
	struct lwm_err ignored = { 0 };
	double s;
	int64_t end;

	if (own && lwm_parse_seconds(own, &s, "LWM_TIME_LIMIT", &ignored) == 0) {
		limit = lwm_now() + s;
		grace = 0;
	} else if (lwm_launch_job_end(&end)) {
		limit = lwm_now() + (double)(end - (int64_t)time(NULL));
		grace = grace_seconds;
	}
}

void lwm_stop_install(double grace_seconds, const char *stop_file)
{
	lwm_stop_catch(false);
	pthread_mutex_lock(&lock);
	read_limit(grace_seconds);
	if (stop_file)
		snprintf(stop_path, sizeof stop_path, "%s", stop_file);
	next_look = 0;
	pthread_mutex_unlock(&lock);
}

void lwm_stop_cost(double unit_seconds, double save_seconds)
{
	pthread_mutex_lock(&lock);
	unit_cost = unit_seconds;
	save_cost = save_seconds;
	pthread_mutex_unlock(&lock);
}

static bool out_of_time(void)
{
	double after = save_cost > grace ? save_cost : grace;

	return limit > 0 && lwm_now() + unit_cost + after >= limit;
}

static const char *signal_text(int sig)
{
	return sig == SIGUSR1 ? "SIGUSR1" : sig == SIGTERM ? "SIGTERM" : "SIGINT";
}

static bool stop_file_stands(void)
{
	double now = lwm_now();

	if (now >= next_look) {
		stop_file_seen = access(stop_path, F_OK) == 0;
		next_look = now + LOOK_EVERY;
	}
	return stop_file_seen;
}

/* Locked. */
static enum lwm_stop find_wish(void)
{
	if (asked_twice) {
		reason = "SIGINT";
		return LWM_STOP_NOW;
	}
	if (stop_path[0] && stop_file_stands()) {
		reason = "stop file";
		return LWM_STOP_FILE;
	}
	if (asked_end) {
		reason = signal_text(asked_end);
		return LWM_STOP_END;
	}
	if (out_of_time()) {
		reason = "time limit";
		return LWM_STOP_END;
	}
	if (asked_save) {
		asked_save = 0;
		return LWM_STOP_SAVE;
	}
	return LWM_STOP_NO;
}

enum lwm_stop lwm_stop_wanted(void)
{
	enum lwm_stop wish;

	pthread_mutex_lock(&lock);
	wish = find_wish();
	pthread_mutex_unlock(&lock);
	return wish;
}

const char *lwm_stop_reason(void)
{
	const char *why;

	pthread_mutex_lock(&lock);
	why = reason;
	pthread_mutex_unlock(&lock);
	return why;
}
