#include "common/base/stop.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/num.h"

static volatile sig_atomic_t asked_end, asked_save;
static double deadline; /* monotonic; 0 none */
static char stop_path[4096];
static const char *reason = "";

static void on_signal(int sig)
{
	if (sig == SIGUSR2) {
		asked_save = 1;
		return;
	}
	if (sig == SIGINT && asked_end == SIGINT) {
		signal(SIGINT, SIG_DFL);
		raise(SIGINT);
	}
	asked_end = sig;
}

static void read_deadline(double grace)
{
	const char *limit = getenv("LWM_TIME_LIMIT"), *end = getenv("SLURM_JOB_END_TIME");
	struct lwm_err ignored = { 0 };
	double s;
	int64_t t;
	if (limit && lwm_parse_seconds(limit, &s, "LWM_TIME_LIMIT", &ignored) == 0)
		deadline = lwm_now() + s;
	else if (end && lwm_parse_int(end, 1, INT64_MAX, &t, "SLURM_JOB_END_TIME", &ignored) == 0)
		deadline = lwm_now() + (double)(t - (int64_t)time(NULL)) - grace;
}

void lwm_stop_install(double grace_seconds, const char *stop_file)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* ranks that are threads install at once */
	static const int sigs[] = { SIGUSR1, SIGTERM, SIGINT, SIGUSR2 };
	struct sigaction sa;
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = on_signal;
	sa.sa_flags = SA_RESTART;
	pthread_mutex_lock(&lock);
	for (int i = 0; i < 4; i++)
		sigaction(sigs[i], &sa, NULL);
	read_deadline(grace_seconds);
	if (stop_file)
		snprintf(stop_path, sizeof stop_path, "%s", stop_file);
	pthread_mutex_unlock(&lock);
}

enum lwm_stop lwm_stop_wanted(void)
{
	if (asked_end)
		reason = asked_end == SIGUSR1 ? "SIGUSR1" : asked_end == SIGTERM ? "SIGTERM" : "SIGINT";
	else if (deadline > 0 && lwm_now() >= deadline)
		reason = "time limit";
	else if (stop_path[0] && access(stop_path, F_OK) == 0)
		reason = "stop file";
	else if (asked_save) {
		asked_save = 0;
		return LWM_STOP_SAVE;
	} else
		return LWM_STOP_NO;
	return LWM_STOP_END;
}

const char *lwm_stop_reason(void)
{
	return reason;
}
