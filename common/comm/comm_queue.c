/* A communicator's thread: it carries out collectives in the order they were begun, and when it has none it lets exchanges advance
 * that were started and not finished. It begins with the first of either and ends with the communicator.
 *
 * The caller's thread and this one never move the same communicator's collectives at once: a blocking call drains the queue first.
 * So work space and the order among ranks are those of one thread, and nothing but the queue itself needs a lock. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/comm/comm_int.h"
#include "common/comm/watchdog.h"

enum state { IDLE, QUEUED, DONE };

struct lwm_comm_op {
	enum state state;
	struct lwm_comm_task task;
	struct lwm_err e;
	int rc;
};

struct lwm_comm_queue {
	struct lwm_comm *c;
	pthread_mutex_t lock;
	pthread_cond_t more, done; /* for the thread; for whoever waits */
	pthread_t thread;
	bool running, stop, advancing, lost;
	struct lwm_comm_op op[LWM_COMM_BEGUN];
	struct lwm_comm_op *order[LWM_COMM_BEGUN];
	unsigned first, last; /* of order: begun and not done */
};

void lwm_comm_pause(struct lwm_comm *c, double since)
{
	const double lively = 2e-3, shortest = 20e-6, longest = 500e-6; /* seconds */
	double quiet = lwm_now() - since - lively, s = shortest + (quiet > 0 ? quiet / 8 : 0);
	const struct timespec t = { 0, (long)(1e9 * (s < longest ? s : longest)) };
	if (quiet < 0 && atomic_load(&c->waiting) > 0)
		sched_yield();
	else
		nanosleep(&t, NULL);
}

struct lwm_comm_queue *lwm_comm_queue_new(struct lwm_comm *c)
{
	struct lwm_comm_queue *q = calloc(1, sizeof *q);
	if (!q)
		return NULL;
	q->c = c;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->more, NULL);
	pthread_cond_init(&q->done, NULL);
	return q;
}

void lwm_comm_queue_free(struct lwm_comm_queue *q)
{
	if (!q)
		return;
	lwm_comm_queue_drain(q);
	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_signal(&q->more);
	pthread_mutex_unlock(&q->lock);
	if (q->running)
		pthread_join(q->thread, NULL);
	pthread_cond_destroy(&q->done);
	pthread_cond_destroy(&q->more);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

/* Locked before and after, not during. A group that was lost is not asked again. */
static void carry_oldest(struct lwm_comm_queue *q)
{
	struct lwm_comm_op *op = q->order[q->first % LWM_COMM_BEGUN];
	bool lost = q->lost;
	pthread_mutex_unlock(&q->lock);
	if (lost)
		op->rc = lwm_fail(&op->e, LWM_ERANK, "the group was lost in a collective begun before");
	else
		op->rc = op->task.carry(q->c, &op->task, &op->e);
	pthread_mutex_lock(&q->lock);
	q->lost = q->lost || op->rc == -LWM_ERANK;
	q->first++;
	op->state = DONE;
	pthread_cond_broadcast(&q->done);
}

/* The same. Until there is nothing left to advance, or something else to do. */
static void advance_exchanges(struct lwm_comm_queue *q)
{
	double since = lwm_now();
	while (q->advancing && !q->stop && q->first == q->last) {
		bool moved = false;
		q->advancing = false; /* an exchange that is started meanwhile sets it again */
		pthread_mutex_unlock(&q->lock);
		bool more = q->c->ops->advance(q->c, &moved);
		if (moved)
			since = lwm_now();
		if (more)
			lwm_comm_pause(q->c, since);
		pthread_mutex_lock(&q->lock);
		q->advancing = q->advancing || more;
	}
}

/* struct sched_attr of Linux, whose header cannot be included beside that of the C library everywhere. */
struct sched_request {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/* This thread runs for moments and shares its core with one that computes for seconds. A Linux of 6.12 or later lets it ask for
 * short turns, for which it is let in at once when it wakes; otherwise it waits for the end of the other's turn, some 3 ms. Others
 * take no notice of the number. */
static void ask_short_turns(void)
{
	struct sched_request r = { .size = sizeof r };
	if (syscall(SYS_sched_getattr, 0, &r, sizeof r, 0) || r.policy != 0 /* SCHED_OTHER */)
		return;
	r.runtime = 100000; /* ns */
	syscall(SYS_sched_setattr, 0, &r, 0);
}

static void *serve_queue(void *arg)
{
	struct lwm_comm_queue *q = arg;
	ask_short_turns();
	pthread_mutex_lock(&q->lock);
	while (!q->stop) {
		if (q->first != q->last)
			carry_oldest(q);
		else if (q->advancing)
			advance_exchanges(q);
		else
			pthread_cond_wait(&q->more, &q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

/* Locked. Signals are for the caller's threads, which know what to do with them. */
static int need_thread(struct lwm_comm_queue *q, struct lwm_err *e)
{
	sigset_t all, before;
	if (q->running)
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	q->running = pthread_create(&q->thread, NULL, serve_queue, q) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (q->running)
		return 0;
	lwm_fail(e, LWM_ERANK, "rank %d cannot start a thread for its collectives", q->c->rank);
	if (e)
		e->who = LWM_ERR_ALONE;
	return -LWM_ERANK;
}

static struct lwm_comm_op *take_idle(struct lwm_comm_queue *q)
{
	for (int i = 0; i < LWM_COMM_BEGUN; i++)
		if (q->op[i].state == IDLE)
			return &q->op[i];
	return NULL;
}

int lwm_comm_queue_begin(struct lwm_comm_queue *q, const struct lwm_comm_task *t, struct lwm_comm_op **op, struct lwm_err *e)
{
	int rc;
	pthread_mutex_lock(&q->lock);
	*op = NULL;
	LWM_GO(need_thread(q, e));
	*op = take_idle(q);
	if (!*op)
		LWM_GO(lwm_fail(e, LWM_EINTERNAL, "more than %d collectives begun and not waited for", LWM_COMM_BEGUN));
	**op = (struct lwm_comm_op){ .state = QUEUED, .task = *t };
	q->order[q->last++ % LWM_COMM_BEGUN] = *op;
	pthread_cond_signal(&q->more);
out:
	pthread_mutex_unlock(&q->lock);
	return rc;
}

int lwm_comm_queue_wait(struct lwm_comm_queue *q, struct lwm_comm_op *op, struct lwm_err *e)
{
	pthread_mutex_lock(&q->lock);
	while (op->state == QUEUED)
		pthread_cond_wait(&q->done, &q->lock);
	int rc = op->rc;
	if (rc < 0)
		lwm_fail(e, -rc, "%s", op->e.msg);
	op->state = IDLE;
	pthread_mutex_unlock(&q->lock);
	return rc;
}

void lwm_comm_queue_drain(struct lwm_comm_queue *q)
{
	pthread_mutex_lock(&q->lock);
	while (q->first != q->last)
		pthread_cond_wait(&q->done, &q->lock);
	pthread_mutex_unlock(&q->lock);
}

int lwm_comm_queue_advance(struct lwm_comm_queue *q, struct lwm_err *e)
{
	pthread_mutex_lock(&q->lock);
	int rc = need_thread(q, e);
	q->advancing = true;
	pthread_cond_signal(&q->more);
	pthread_mutex_unlock(&q->lock);
	return rc;
}
