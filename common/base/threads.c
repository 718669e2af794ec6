/* threads.c - libgomp's waiting made short, and pieces of work handed to threads by a shared counter. */
#include "common/base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

void lwm_threads_settle(char **argv)
{
	char self[4096];
	ssize_t n;
	if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
		return;
	/* by its own path: as /proc/self/exe the process would be called "exe" in ps and top */
	n = readlink("/proc/self/exe", self, sizeof self - 1);
	if (n <= 0 || setenv("GOMP_SPINCOUNT", "1000", 1))
		return;
	self[n] = 0;
	execv(self, argv); /* where that cannot be done the program only runs slower */
}

/* ---- pieces of work ---- */

enum { MOST = 64 };

struct work {
	lwm_work_fn *fn;
	void *ctx;
	int64_t n;
	atomic_int_fast64_t next;
	atomic_bool failed;
	pthread_mutex_t lock;
	int64_t worst; /* the lowest that failed */
	int rc;
	struct lwm_err e;
};

static void *work_on(void *arg)
{
	struct work *w = arg;
	while (!w->failed) {
		struct lwm_err e = { 0 };
		int64_t i = w->next++;
		int rc = i < w->n ? w->fn(w->ctx, i, &e) : 0;
		if (i >= w->n)
			break;
		if (rc >= 0)
			continue;
		pthread_mutex_lock(&w->lock);
		if (!w->failed || i < w->worst) {
			w->worst = i;
			w->rc = rc;
			w->e = e;
		}
		w->failed = true;
		pthread_mutex_unlock(&w->lock);
	}
	return NULL;
}

static int64_t count_processors(void)
{
	cpu_set_t set;
	return sched_getaffinity(0, sizeof set, &set) ? sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
}

int lwm_work(int64_t n, int64_t threads, lwm_work_fn *fn, void *ctx, struct lwm_err *e)
{
	struct work w = { .fn = fn, .ctx = ctx, .n = n, .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_t t[MOST];
	int64_t most = threads > 0 ? threads : count_processors();
	int began = 0;

	most = most > n ? n : most;
	most = most > MOST ? MOST : most;
	while (began + 1 < most && pthread_create(&t[began], NULL, work_on, &w) == 0)
		began++;
	work_on(&w);
	while (began > 0)
		pthread_join(t[--began], NULL);
	if (w.failed && e && !e->code)
		*e = w.e;
	return w.rc;
}
