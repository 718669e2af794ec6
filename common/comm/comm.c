/* Collectives on top of what a body moves: blocking ones, which wait their turn behind what was begun, and those that begin. Float
 * sums are in comm_sum.c. Sums of doubles and maxima are few values: everyone gathers all and works them out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/comm_int.h"
#include "common/comm/watchdog.h"

struct lwm_comm *lwm_comm_new_handle(const struct lwm_comm_ops *ops, int rank, int size, void *impl)
{
	struct lwm_comm *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->ops = ops;
	c->rank = rank;
	c->size = size;
	c->impl = impl;
	if (size > 1) {
		c->work = malloc(2 * sizeof(float) * LWM_COMM_CHUNK);
		c->queue = lwm_comm_queue_new(c);
	}
	if (size > 1 && !(c->work && c->queue)) {
		lwm_comm_free_handle(c);
		return NULL;
	}
	return c;
}

void lwm_comm_free_handle(struct lwm_comm *c)
{
	lwm_comm_queue_free(c->queue);
	free(c->work);
	free(c);
}

/* Every call that waits for other ranks stands between these: the watchdog is more patient then. */
static void begin_wait(struct lwm_comm *c)
{
	lwm_watchdog_wait(true);
	atomic_fetch_add(&c->waiting, 1);
}

static int end_wait(struct lwm_comm *c, int rc)
{
	atomic_fetch_sub(&c->waiting, 1);
	lwm_watchdog_wait(false);
	return rc;
}
#define WAIT(c, call) (begin_wait(c), end_wait(c, call))

/* The same for collectives: what was begun comes first. */
static void begin_turn(struct lwm_comm *c)
{
	begin_wait(c);
	if (c->queue)
		lwm_comm_queue_drain(c->queue);
}
#define TURN(c, call) (begin_turn(c), end_wait(c, call))

void lwm_comm_free(struct lwm_comm *c)
{
	if (!c)
		return;
	lwm_comm_queue_free(c->queue); /* its thread uses the body */
	c->queue = NULL;
	c->ops->free(c);
}

int lwm_comm_rank(const struct lwm_comm *c)
{
	return c->rank;
}

int lwm_comm_size(const struct lwm_comm *c)
{
	return c->size;
}

uint64_t lwm_comm_sent(const struct lwm_comm *c)
{
	return atomic_load(&c->sent);
}

void lwm_comm_add_sent(struct lwm_comm *c, uint64_t bytes)
{
	atomic_fetch_add(&c->sent, bytes);
}

/* So many bytes to each of the others. */
static void send_each(struct lwm_comm *c, uint64_t bytes)
{
	lwm_comm_add_sent(c, (uint64_t)(c->size - 1) * bytes);
}

int lwm_comm_split(struct lwm_comm *c, int color, int key, struct lwm_comm **out, struct lwm_err *e)
{
	*out = NULL;
	return TURN(c, c->ops->split(c, color, key, out, e));
}

int lwm_comm_barrier(struct lwm_comm *c, struct lwm_err *e)
{
	return c->size == 1 ? 0 : TURN(c, c->ops->barrier(c, e));
}

int lwm_comm_bcast(struct lwm_comm *c, void *p, size_t bytes, int root, struct lwm_err *e)
{
	if (c->size == 1 || !bytes)
		return 0;
	if (c->rank == root)
		send_each(c, bytes);
	return TURN(c, c->ops->bcast(c, p, bytes, root, e));
}

/* ---- all-gather, float sums ---- */

int64_t lwm_comm_work(int size, int64_t n)
{
	return size < 2 ? 0 : 2 * (int64_t)sizeof(float) * (n < LWM_COMM_CHUNK ? n : LWM_COMM_CHUNK);
}

/* In a group of one, where mine may be its own place. */
static int keep_alone(void *out, const void *in, size_t bytes)
{
	if (out != in && bytes)
		memmove(out, in, bytes);
	return 0;
}

static int check_slices(const struct lwm_comm *c, int64_t n, struct lwm_err *e)
{
	return n % c->size == 0 ? 0 : lwm_fail(e, LWM_EINTERNAL, "reduce-scatter of %" PRId64 " values over %d ranks", n, c->size);
}

int lwm_comm_allgather(struct lwm_comm *c, const void *mine, size_t bytes, void *all, struct lwm_err *e)
{
	if (c->size == 1 || !bytes)
		return keep_alone(all, mine, bytes);
	send_each(c, bytes);
	return TURN(c, c->ops->now.allgather(c, mine, bytes, all, e));
}

int lwm_comm_sum_f32(struct lwm_comm *c, float *p, int64_t n, struct lwm_err *e)
{
	if (c->size == 1 || !n)
		return 0;
	send_each(c, 2 * sizeof *p * (uint64_t)((n + c->size - 1) / c->size));
	return TURN(c, lwm_comm_move_sum(c, &c->ops->now, p, n, e));
}

int lwm_comm_reduce_scatter_f32(struct lwm_comm *c, const float *in, float *mine, int64_t n, struct lwm_err *e)
{
	LWM_TRY(check_slices(c, n, e));
	if (c->size == 1 || !n)
		return keep_alone(mine, in, (size_t)n * sizeof *in);
	send_each(c, sizeof *in * (uint64_t)(n / c->size));
	return TURN(c, lwm_comm_move_scatter(c, &c->ops->now, in, mine, n, e));
}

/* ---- the same behind computation ---- */

static int carry_gather(struct lwm_comm *c, const struct lwm_comm_task *t, struct lwm_err *e)
{
	return c->ops->beside.allgather(c, t->in, (size_t)t->n, t->out, e);
}

static int carry_sum(struct lwm_comm *c, const struct lwm_comm_task *t, struct lwm_err *e)
{
	return lwm_comm_move_sum(c, &c->ops->beside, t->out, t->n, e);
}

static int carry_scatter(struct lwm_comm *c, const struct lwm_comm_task *t, struct lwm_err *e)
{
	return lwm_comm_move_scatter(c, &c->ops->beside, t->in, t->out, t->n, e);
}

static int begin_task(struct lwm_comm *c, struct lwm_comm_task t, uint64_t each, struct lwm_comm_op **op, struct lwm_err *e)
{
	LWM_TRY(lwm_comm_queue_begin(c->queue, &t, op, e));
	send_each(c, each);
	return 0;
}

int lwm_comm_begin_allgather(struct lwm_comm *c, const void *mine, size_t bytes, void *all, struct lwm_comm_op **op,
			     struct lwm_err *e)
{
	*op = NULL;
	if (c->size == 1 || !bytes)
		return keep_alone(all, mine, bytes);
	return begin_task(c, (struct lwm_comm_task){ carry_gather, mine, all, (int64_t)bytes, 0 }, bytes, op, e);
}

int lwm_comm_begin_sum_f32(struct lwm_comm *c, float *p, int64_t n, struct lwm_comm_op **op, struct lwm_err *e)
{
	*op = NULL;
	if (c->size == 1 || !n)
		return 0;
	return begin_task(c, (struct lwm_comm_task){ carry_sum, NULL, p, n, 0 },
			  2 * sizeof *p * (uint64_t)((n + c->size - 1) / c->size), op, e);
}

int lwm_comm_begin_reduce_scatter_f32(struct lwm_comm *c, const float *in, float *mine, int64_t n, struct lwm_comm_op **op,
				      struct lwm_err *e)
{
	*op = NULL;
	LWM_TRY(check_slices(c, n, e));
	if (c->size == 1 || !n)
		return keep_alone(mine, in, (size_t)n * sizeof *in);
	return begin_task(c, (struct lwm_comm_task){ carry_scatter, in, mine, n, 0 }, sizeof *in * (uint64_t)(n / c->size), op, e);
}

static int carry_chain(struct lwm_comm *c, const struct lwm_comm_task *t, struct lwm_err *e)
{
	return lwm_comm_move_chain(c, &c->ops->beside, t->in, t->n, t->shards, t->out, e);
}

int lwm_comm_begin_chain_f32(struct lwm_comm *c, const float *in, int64_t slice, int shards, float *mine, struct lwm_comm_op **op,
			     struct lwm_err *e)
{
	int64_t part = (slice * shards + c->size - 1) / c->size;
	*op = NULL;
	if (shards < 1 || c->size % shards)
		return lwm_fail(e, LWM_EINTERNAL, "chained sum of %d slices over %d ranks", shards, c->size);
	if (c->size > 1 && slice)
		return begin_task(c, (struct lwm_comm_task){ carry_chain, in, mine, slice, shards }, sizeof *in * (uint64_t)part,
				  op, e);
	for (int64_t i = 0; i < slice; i++)
		mine[i] += in[i];
	return 0;
}

int lwm_comm_wait(struct lwm_comm *c, struct lwm_comm_op *op, struct lwm_err *e)
{
	return op ? WAIT(c, lwm_comm_queue_wait(c->queue, op, e)) : 0;
}

/* ---- few values: all are gathered ---- */

/* Everyone's values of 8 bytes (size * n), in rank order; the caller frees them. NULL: *rc says why. what: for the sentence. */
static void *gather_values(struct lwm_comm *c, const void *p, int64_t n, const char *what, int *rc, struct lwm_err *e)
{
	const size_t bytes = (size_t)n * 8;
	void *all = malloc(bytes * (size_t)c->size);
	*rc = all ? lwm_comm_allgather(c, p, bytes, all, e) :
		    lwm_fail(e, LWM_EMEMORY, "out of memory for %s of %" PRId64 " values", what, n);
	if (*rc == 0)
		return all;
	free(all);
	return NULL;
}

int lwm_comm_sum_f64(struct lwm_comm *c, double *p, int64_t n, struct lwm_err *e)
{
	int rc;
	if (c->size == 1 || n == 0)
		return 0;
	double *all = gather_values(c, p, n, "a sum", &rc, e);
	if (!all)
		return rc;
	for (int64_t i = 0; i < n; i++) {
		p[i] = 0;
		for (int r = 0; r < c->size; r++)
			p[i] += all[r * n + i];
	}
	free(all);
	return 0;
}

int lwm_comm_max_i64(struct lwm_comm *c, int64_t *p, int64_t n, struct lwm_err *e)
{
	int rc;
	if (c->size == 1 || n == 0)
		return 0;
	int64_t *all = gather_values(c, p, n, "a maximum", &rc, e);
	if (!all)
		return rc;
	for (int64_t i = 0; i < n; i++)
		for (int r = 0; r < c->size; r++)
			if (all[r * n + i] > p[i])
				p[i] = all[r * n + i];
	free(all);
	return 0;
}

/* ---- exchanges ---- */

int lwm_comm_start(struct lwm_comm *c, int to, const void *send, size_t send_bytes, int from, void *recv,
		   size_t recv_bytes, struct lwm_err *e)
{
	LWM_TRY(c->ops->start(c, to, send, send_bytes, from, recv, recv_bytes, e));
	if (to != c->rank)
		lwm_comm_add_sent(c, send_bytes);
	return c->ops->advance && c->queue ? lwm_comm_queue_advance(c->queue, e) : 0;
}

int lwm_comm_finish(struct lwm_comm *c, struct lwm_err *e)
{
	return WAIT(c, c->ops->finish(c, e));
}

/* ---- agreement ---- */

/* From worst to none: a failure of one's own, one that was heard of, a stop that was asked for, nothing. */
static int severity_of(int rc, const struct lwm_err *e)
{
	if (rc >= 0)
		return 0;
	return rc == -LWM_ESAVED ? 1 : e->who == LWM_ERR_HEARD ? 2 : 3;
}

/* The lowest of the ranks with the most severe failure, and its code. */
static int find_worst(struct lwm_comm *c, int rc, int *worst, int *code, struct lwm_err *e)
{
	int mine[2] = { rc, severity_of(rc, e) }, some[64][2], (*all)[2] = some, r = 0;
	if (c->size > 64 && !(all = malloc((size_t)c->size * sizeof *all)))
		return lwm_fail(e, LWM_EMEMORY, "out of memory while %d ranks agree", c->size);
	r = TURN(c, c->ops->now.allgather(c, mine, sizeof mine, all, e));
	*worst = 0;
	for (int i = 1; r == 0 && i < c->size; i++)
		if (all[i][1] > all[*worst][1])
			*worst = i;
	*code = r == 0 ? all[*worst][0] : r;
	if (all != some)
		free(all);
	return r;
}

int lwm_agree(struct lwm_comm *c, int rc, struct lwm_err *e)
{
	char msg[sizeof e->msg];
	int worst = 0, code = 0;
	if (c->size == 1 || rc == -LWM_ERANK || (rc < 0 && e->who == LWM_ERR_ALONE))
		return rc;
	LWM_TRY(find_worst(c, rc, &worst, &code, e));
	if (code >= 0)
		return 0;
	memcpy(msg, e->msg, sizeof msg);
	LWM_TRY(TURN(c, c->ops->bcast(c, msg, sizeof msg, worst, e)));
	if (c->rank != worst) {
		lwm_err_clear(e);
		lwm_fail(e, -code, "rank %d: %s", worst, msg);
	}
	e->who = c->rank == worst ? LWM_ERR_SHARED : LWM_ERR_HEARD;
	return code;
}

int lwm_comm_end(struct lwm_comm *world, int rc, const struct lwm_err *e)
{
	bool shared = e->who == LWM_ERR_SHARED || e->who == LWM_ERR_HEARD;
	if (world->size > 1 && rc < 0 && !shared)
		world->ops->abort(world, -rc);
	lwm_watchdog_start(world->rank, world->size, 60);
	lwm_watchdog_pet("the end");
	lwm_comm_free(world);
	lwm_watchdog_stop();
	return rc;
}
