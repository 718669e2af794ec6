/* Collectives on top of what a body moves. A float sum is an all-to-all of slices, a local sum in rank order, and an all-gather:
 * the volume of a ring all-reduce, with a result that depends neither on timing nor on the body. Sums of doubles and maxima are
 * few values: everyone gathers all and works them out. */
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
	*c = (struct lwm_comm){ .ops = ops, .rank = rank, .size = size, .impl = impl };
	if (size > 1 && !(c->work = malloc(2 * sizeof(float) * LWM_COMM_CHUNK))) {
		free(c);
		return NULL;
	}
	return c;
}

void lwm_comm_free_handle(struct lwm_comm *c)
{
	free(c->work);
	free(c);
}

/* Every call that waits for other ranks goes through here: the watchdog is more patient then. */
static int end_wait(int rc)
{
	lwm_watchdog_wait(false);
	return rc;
}
#define WAIT(call) (lwm_watchdog_wait(true), end_wait(call))

void lwm_comm_free(struct lwm_comm *c)
{
	if (c)
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

int lwm_comm_split(struct lwm_comm *c, int color, int key, struct lwm_comm **out, struct lwm_err *e)
{
	*out = NULL;
	return WAIT(c->ops->split(c, color, key, out, e));
}

int lwm_comm_barrier(struct lwm_comm *c, struct lwm_err *e)
{
	return c->size == 1 ? 0 : WAIT(c->ops->barrier(c, e));
}

int lwm_comm_bcast(struct lwm_comm *c, void *p, size_t bytes, int root, struct lwm_err *e)
{
	return c->size == 1 || !bytes ? 0 : WAIT(c->ops->bcast(c, p, bytes, root, e));
}

int lwm_comm_allgather(struct lwm_comm *c, const void *mine, size_t bytes, void *all, struct lwm_err *e)
{
	if (c->size == 1) {
		memmove(all, mine, bytes);
		return 0;
	}
	return bytes ? WAIT(c->ops->allgather(c, mine, bytes, all, e)) : 0;
}

int64_t lwm_comm_work(int size, int64_t n)
{
	return size < 2 ? 0 : 2 * (int64_t)sizeof(float) * (n < LWM_COMM_CHUNK ? n : LWM_COMM_CHUNK);
}

/* Sums `size` slices of n floats, in rank order. */
static void sum_slices(float *out, const float *slices, int size, int64_t n)
{
	memcpy(out, slices, (size_t)n * sizeof *out);
	for (int r = 1; r < size; r++)
		for (int64_t i = 0; i < n; i++)
			out[i] += slices[r * n + i];
}

/* One chunk of at most LWM_COMM_CHUNK floats: every rank sums one slice, then all slices are gathered. */
static int sum_chunk(struct lwm_comm *c, float *p, int64_t n, struct lwm_err *e)
{
	int64_t slice = (n + c->size - 1) / c->size;
	float *in = c->work, *got = c->work + LWM_COMM_CHUNK;
	size_t bytes = (size_t)slice * sizeof *p;
	memcpy(in, p, (size_t)n * sizeof *p);
	memset(in + n, 0, (size_t)(slice * c->size - n) * sizeof *p);
	LWM_TRY(WAIT(c->ops->alltoall(c, in, got, bytes, e)));
	sum_slices(in, got, c->size, slice);
	LWM_TRY(WAIT(c->ops->allgather(c, in, bytes, got, e)));
	memcpy(p, got, (size_t)n * sizeof *p);
	return 0;
}

int lwm_comm_sum_f32(struct lwm_comm *c, float *p, int64_t n, struct lwm_err *e)
{
	if (c->size == 1)
		return 0;
	int64_t most = LWM_COMM_CHUNK - c->size; /* room for rounding the slices up */
	for (int64_t i = 0; i < n; i += most)
		LWM_TRY(sum_chunk(c, p + i, n - i < most ? n - i : most, e));
	return 0;
}

int lwm_comm_reduce_scatter_f32(struct lwm_comm *c, const float *in, float *mine, int64_t n, struct lwm_err *e)
{
	int64_t slice = n / c->size, most = LWM_COMM_CHUNK / c->size;
	if (n % c->size)
		return lwm_fail(e, LWM_EINTERNAL, "reduce-scatter of %" PRId64 " values over %d ranks", n, c->size);
	if (c->size == 1) {
		memmove(mine, in, (size_t)n * sizeof *in);
		return 0;
	}
	for (int64_t i = 0; i < slice; i += most) {
		int64_t k = slice - i < most ? slice - i : most;
		float *send = c->work, *got = c->work + LWM_COMM_CHUNK;
		for (int r = 0; r < c->size; r++)
			memcpy(send + r * k, in + r * slice + i, (size_t)k * sizeof *in);
		LWM_TRY(WAIT(c->ops->alltoall(c, send, got, (size_t)k * sizeof *in, e)));
		sum_slices(mine + i, got, c->size, k);
	}
	return 0;
}

int lwm_comm_sum_f64(struct lwm_comm *c, double *p, int64_t n, struct lwm_err *e)
{
	if (c->size == 1 || n == 0)
		return 0;
	double *all = malloc((size_t)n * (size_t)c->size * sizeof *all);
	if (!all)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a sum of %" PRId64 " values", n);
	int rc = WAIT(c->ops->allgather(c, p, (size_t)n * sizeof *p, all, e));
	for (int64_t i = 0; rc == 0 && i < n; i++) {
		p[i] = 0;
		for (int r = 0; r < c->size; r++)
			p[i] += all[r * n + i];
	}
	free(all);
	return rc;
}

int lwm_comm_max_i64(struct lwm_comm *c, int64_t *p, int64_t n, struct lwm_err *e)
{
	if (c->size == 1 || n == 0)
		return 0;
	int64_t *all = malloc((size_t)n * (size_t)c->size * sizeof *all);
	if (!all)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a maximum of %" PRId64 " values", n);
	int rc = WAIT(c->ops->allgather(c, p, (size_t)n * sizeof *p, all, e));
	for (int64_t i = 0; rc == 0 && i < n; i++)
		for (int r = 0; r < c->size; r++)
			if (all[r * n + i] > p[i])
				p[i] = all[r * n + i];
	free(all);
	return rc;
}

int lwm_comm_start(struct lwm_comm *c, int to, const void *send, size_t send_bytes, int from, void *recv,
		   size_t recv_bytes, struct lwm_err *e)
{
	return c->ops->start(c, to, send, send_bytes, from, recv, recv_bytes, e);
}

int lwm_comm_finish(struct lwm_comm *c, struct lwm_err *e)
{
	return WAIT(c->ops->finish(c, e));
}

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
	r = WAIT(c->ops->allgather(c, mine, sizeof mine, all, e));
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
	LWM_TRY(WAIT(c->ops->bcast(c, msg, sizeof msg, worst, e)));
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
