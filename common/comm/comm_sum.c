/* Sums on top of what a body moves: an all-to-all of slices, a local sum in rank order, and for an all-reduce an all-gather: the
 * volume of a ring all-reduce, with a result that depends neither on timing nor on the body, nor on how a sum is cut into
 * chunks, since every element is summed in rank order. Slices go straight from the caller's memory, and come back to it. */
#include <string.h>

#include "common/comm/comm_int.h"
#include "common/comm/watchdog.h"

/* A chunk is over: a sign of life, if anybody waits for it. A thread beside one that computes has nothing to say about that one. */
static void end_chunk(struct lwm_comm *c)
{
	if (atomic_load(&c->waiting) > 0)
		lwm_watchdog_tick();
}

/* Sums `size` slices of n floats, in rank order. */
static void sum_slices(float *out, const float *slices, int size, int64_t n)
{
	memcpy(out, slices, (size_t)n * sizeof *out);
	for (int r = 1; r < size; r++)
		for (int64_t i = 0; i < n; i++)
			out[i] += slices[r * n + i];
}

/* At most LWM_COMM_CHUNK floats, a multiple of the ranks: every rank sums one slice, then all slices are gathered. */
static int sum_chunk(struct lwm_comm *c, const struct lwm_comm_moves *by, float *p, int64_t n, struct lwm_err *e)
{
	int64_t slice = n / c->size;
	float *sum = c->work, *got = c->work + LWM_COMM_CHUNK;
	size_t bytes = (size_t)slice * sizeof *p;
	LWM_TRY(by->alltoall(c, p, bytes, got, bytes, e));
	sum_slices(sum, got, c->size, slice);
	LWM_TRY(by->allgather(c, sum, bytes, p, e));
	end_chunk(c);
	return 0;
}

int lwm_comm_move_sum(struct lwm_comm *c, const struct lwm_comm_moves *by, float *p, int64_t n, struct lwm_err *e)
{
	int64_t rest = n % c->size, even = n - rest, most = LWM_COMM_CHUNK / c->size * c->size;
	float *last = c->work + LWM_COMM_CHUNK / 2; /* a slice of one float leaves room before it */
	for (int64_t i = 0; i < even; i += most)
		LWM_TRY(sum_chunk(c, by, p + i, even - i < most ? even - i : most, e));
	if (!rest)
		return 0;
	memcpy(last, p + even, (size_t)rest * sizeof *p);
	memset(last + rest, 0, (size_t)(c->size - rest) * sizeof *p);
	LWM_TRY(sum_chunk(c, by, last, c->size, e));
	memcpy(p + even, last, (size_t)rest * sizeof *p);
	return 0;
}

int lwm_comm_move_scatter(struct lwm_comm *c, const struct lwm_comm_moves *by, const float *in, float *mine, int64_t n,
			  struct lwm_err *e)
{
	int64_t slice = n / c->size, most = LWM_COMM_CHUNK / c->size;
	for (int64_t i = 0; i < slice; i += most) {
		int64_t k = slice - i < most ? slice - i : most;
		float *got = c->work + LWM_COMM_CHUNK;
		LWM_TRY(by->alltoall(c, in + i, (size_t)slice * sizeof *in, got, (size_t)k * sizeof *in, e));
		sum_slices(mine + i, got, c->size, k);
		end_chunk(c);
	}
	return 0;
}
