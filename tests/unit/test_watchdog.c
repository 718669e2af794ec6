/* Who is ended by the watchdog and who is not: each case a process of its own, all at once, so that the waiting is done once. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/comm/comm.h"
#include "common/comm/watchdog.h"
#include "kernels/kernels.h"

static void nap(double s)
{
	struct timespec t = { (time_t)s, (long)((s - (double)(time_t)s) * 1e9) };
	while (nanosleep(&t, &t))
		;
}

static void silent(void)
{
	nap(11);
}

static void tick_for(double seconds)
{
	for (int i = 0; i < seconds * 5; i++) {
		lwm_watchdog_tick();
		nap(0.2);
	}
}

static void ticking(void)
{
	tick_for(11);
}

/* A kernel that gives signs of life from inside, as attention over a long row does. */
static void attention(void)
{
	enum { T = 4096, D = 32 };
	struct lk_dev *dev;
	char why[200];
	void *q;
	float *lse;
	struct lk_seq *s;
	int32_t pos[T];
	struct timespec from, now;

	for (int i = 0; i < T; i++)
		pos[i] = i;
	if (lk_dev_open(&dev, "cpu", 1, why, sizeof why) || lk_mem_alloc(dev, T * D * 4 * 4, &q) ||
	    lk_mem_alloc(dev, T * 4, (void **)&lse))
		_exit(99);
	lk_zero(dev, q, T * D * 4 * 4);
	struct lk_view v[4];
	for (int i = 0; i < 4; i++)
		v[i] = lk_view3((float *)q + i * T * D, LK_F32, T, 1, D);
	struct lk_attn a = { .q = v[0], .k = v[1], .v = v[2], .scale = 1, .causal = 1 };
	if (lk_seq_new(dev, &s, T, pos, NULL))
		_exit(98);
	a.qs = a.ks = s;
	clock_gettime(CLOCK_MONOTONIC, &from);
	do { /* nothing but the kernel itself gives a sign */
		if (lk_attn_once(dev, &a, &v[3], lse))
			_exit(98);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - from.tv_sec < 11);
}

static void wait_for(double seconds)
{
	lwm_watchdog_wait(true);
	nap(seconds);
	lwm_watchdog_wait(false);
}

static void waiting(void)
{
	wait_for(11);
}

static void waiting_too_long(void)
{
	lwm_watchdog_step(0.35); /* ten times that is borne, and no more */
	waiting();
}

static void waiting_with_long_steps(void)
{
	lwm_watchdog_step(5);
	lwm_watchdog_step(0.1); /* the longest counts */
	waiting();
}

static void stopped(void)
{
	lwm_watchdog_stop();
	nap(11);
}

/* ---- what is told before the end ---- */

static int told; /* a pipe */

static void tell(void *ctx, const struct lwm_watchdog_end *end)
{
	char text[96];
	int n = snprintf(text, sizeof text, "%s %s %s", (const char *)ctx, end->where, end->waited ? "waited" : "computed");

	if (end->silent < 1 || write(told, text, (size_t)n) != n)
		_exit(95);
}

static void silent_and_told(void)
{
	lwm_watchdog_tell(tell, (void *)(uintptr_t)"it");
	lwm_watchdog_tell(tell, (void *)(uintptr_t)"a second");
	silent();
}

static void waiting_and_told(void)
{
	lwm_watchdog_tell(tell, (void *)(uintptr_t)"it");
	waiting_too_long();
}

/* As on a disk that hangs, with the lock of malloc held. */
static void hang(void *ctx, const struct lwm_watchdog_end *end)
{
	tell(ctx, end);
	for (;;)
		pause();
}

static void telling_hangs(void)
{
	lwm_watchdog_tell(hang, (void *)(uintptr_t)"it");
	nap(30);
}

static void forgotten(void)
{
	lwm_watchdog_tell(tell, (void *)(uintptr_t)"it");
	lwm_watchdog_stop();
	lwm_watchdog_start(0, 2, 1.5);
	silent();
}

/* Suspended as a whole. The watchdog saw it run at most a second before. */
static void suspend(double seconds)
{
	pid_t self = getpid(), other = fork();

	if (other == 0) {
		nap(seconds);
		kill(self, SIGCONT);
		_exit(0);
	}
	raise(SIGSTOP);
	nap(0.9);
	waitpid(other, NULL, 0);
}

/* For longer than silence is borne. */
static void suspended(void)
{
	suspend(4);
}

/* It is the one that others waited for: that it waits now, for them, must not make it look like one of them. */
static void suspended_then_waiting(void)
{
	lwm_watchdog_tell(tell, (void *)(uintptr_t)"it");
	lwm_watchdog_step(0.1);
	tick_for(2); /* the watchdog's thread looks before that, and after it */
	suspended();
	tick_for(2);
	waiting();
}

/* Others bear twice as much of it. */
static void suspended_briefly(void)
{
	lwm_watchdog_tell(tell, (void *)(uintptr_t)"it");
	lwm_watchdog_step(0.95);
	tick_for(2);
	suspend(3);
	tick_for(2);
	wait_for(17); /* 9.5 seconds are borne, 5 are left for others to tell */
}

static void suspended_then_at_work(void)
{
	lwm_watchdog_tell(tell, (void *)(uintptr_t)"it");
	lwm_watchdog_step(0.1);
	tick_for(2);
	suspended();
	tick_for(2);
	lwm_watchdog_step(0.1);
	waiting();
}

static const struct {
	const char *name;
	void (*work)(void);
	int ranks;
	double seconds;
	int status;
	const char *told;
} cases[] = {
	{ "a rank that computes and is silent", silent, 2, 3, LWM_ERANK, "" },
	{ "signs of life", ticking, 2, 3, 0, "" },
	{ "signs of life from a kernel", attention, 2, 3, 0, "" },
	{ "waiting for others, before there was a step", waiting, 2, 1.5, 0, "" },
	{ "waiting for others much longer than a step", waiting_too_long, 2, 1.5, LWM_ERANK, "" },
	{ "waiting for others whose steps are long", waiting_with_long_steps, 2, 1.5, 0, "" },
	{ "a rank alone waits for nobody", silent, 1, 1.5, 0, "" },
	{ "off", silent, 2, 0, 0, "" },
	{ "ended", stopped, 2, 3, 0, "" },
	{ "a process that was suspended", suspended, 2, 2, 0, "" },
	{ "what it was at is told", silent_and_told, 2, 1.5, LWM_ERANK, "it a test computed" },
	{ "that it waited is told", waiting_and_told, 2, 1.5, LWM_ERANK, "it a test waited" },
	{ "telling that does not come back", telling_hangs, 2, 1.5, LWM_ERANK, "it a test computed" },
	{ "that it waited is not told where it was suspended", suspended_then_waiting, 2, 2, LWM_ERANK, "" },
	{ "unless that was short beside what others bear", suspended_briefly, 2, 2, LWM_ERANK, "it a test waited" },
	{ "or it has made a step since", suspended_then_at_work, 2, 2, LWM_ERANK, "it a test waited" },
	{ "of another start nothing is told", forgotten, 2, 1.5, LWM_ERANK, "" },
};
enum { CASES = sizeof cases / sizeof *cases };

static int on_rank(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	int i = *(const int *)arg;

	(void)e;
	if (lwm_comm_rank(c))
		return 0;
	lwm_watchdog_start(0, lwm_comm_size(c), cases[i].seconds);
	lwm_watchdog_pet("a test");
	cases[i].work();
	_exit(0);
}

static void who_is_ended(void **state)
{
	pid_t pid[CASES];
	int from[CASES][2];
	char text[96];
	int ended = 0;

	(void)state;
	for (int i = 0; i < CASES; i++) {
		assert_int_equal(pipe(from[i]), 0);
		told = from[i][1];
		pid[i] = fork();
		if (pid[i] == 0) {
			struct lwm_err e = { 0 };
			if (!freopen("/dev/null", "w", stderr))
				_exit(97);
			lwm_comm_threads(cases[i].ranks, on_rank, &i, &e);
			_exit(96);
		}
	}
	for (int i = 0; i < CASES; i++) {
		int ws;
		waitpid(pid[i], &ws, 0);
		if (!WIFEXITED(ws) || WEXITSTATUS(ws) != cases[i].status)
			fail_msg("%s: status %d (signal %d), expected %d", cases[i].name, WEXITSTATUS(ws), WTERMSIG(ws),
				 cases[i].status);
		ended += cases[i].status == LWM_ERANK;
		close(from[i][1]);
		ssize_t n = read(from[i][0], text, sizeof text - 1);
		text[n > 0 ? n : 0] = 0;
		close(from[i][0]);
		if (strcmp(text, cases[i].told))
			fail_msg("%s: told '%s'", cases[i].name, text);
	}
	printf("T13: %d ways of being stuck are ended, %d of being slow are not\n", ended, CASES - ended);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(who_is_ended) };
	return cmocka_run_group_tests_name("watchdog", tests, NULL, NULL);
}
