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

int64_t lwm_comm_chain_part(int size, int rank, int shards, int64_t slice, int64_t *from)
{
	int replicas = size / shards;
	int64_t part = (slice + replicas - 1) / replicas, at = part * (rank / shards);

	*from = at < slice ? at : slice;
	return slice - *from < part ? slice - *from : part;
}

/* What goes to each rank of elements [i, i + k) of its part, end to end; where its part is shorter, zeros. */
static void pack_parts(const struct lwm_comm *c, float *out, const float *in, int64_t slice, int shards, int64_t i, int64_t k)
{
	for (int r = 0; r < c->size; r++, out += k) {
		int64_t from, n = lwm_comm_chain_part(c->size, r, shards, slice, &from) - i;

		n = n < 0 ? 0 : n < k ? n : k;
		if (n)
			memcpy(out, in + (r % shards) * slice + from + i, (size_t)n * sizeof *out);
		memset(out + n, 0, (size_t)(k - n) * sizeof *out);
	}
}

/* Adds one slice of n floats after the other; they lie `stride` apart. */
static void add_slices(float *sum, const float *slices, int size, int64_t stride, int64_t n)
{
	for (int r = 0; r < size; r++)
		for (int64_t i = 0; i < n; i++)
			sum[i] += slices[r * stride + i];
}

/* Parts that lie in equal distances go straight from the caller's memory. */
int lwm_comm_move_chain(struct lwm_comm *c, const struct lwm_comm_moves *by, const float *in, int64_t slice, int shards,
			float *mine, struct lwm_err *e)
{
	int replicas = c->size / shards;
	int64_t part = (slice + replicas - 1) / replicas, most = LWM_COMM_CHUNK / c->size, from;
	int64_t own = lwm_comm_chain_part(c->size, c->rank, shards, slice, &from);
	bool even = slice % replicas == 0 && (shards == 1 || replicas == 1);

	for (int64_t i = 0; i < part; i += most) {
		int64_t k = part - i < most ? part - i : most, n = own - i < k ? own - i : k;
		float *got = c->work + LWM_COMM_CHUNK;
		size_t bytes = (size_t)k * sizeof *in;

		if (!even)
			pack_parts(c, c->work, in, slice, shards, i, k);
		LWM_TRY(by->alltoall(c, even ? in + i : c->work, even ? (size_t)part * sizeof *in : bytes, got, bytes, e));
		if (n > 0)
			add_slices(mine + i, got, c->size, k, n);
		end_chunk(c);
	}
	return 0;
}
