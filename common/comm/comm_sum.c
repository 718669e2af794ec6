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

/* What rank r brings: this rank's own lies where it is from, the others' slices, of n floats, in `got`. */
static const float *slice_of(const struct lwm_comm *c, int r, const float *own, const float *got, int64_t n)
{
	return r == c->rank ? own : got + r * n;
}

/* Sums the slices of all ranks, of n floats each, in rank order; out may be own. As little at a time as the first cache holds, so
 * that each slice is read once and the sum is written once. */
static void sum_slices(const struct lwm_comm *c, float *out, const float *own, const float *got, int64_t n)
{
	enum { BLOCK = 2048 };
	for (int64_t at = 0; at < n; at += BLOCK) {
		const float *a = slice_of(c, 0, own, got, n) + at, *b = slice_of(c, 1, own, got, n) + at;
		int64_t k = n - at < BLOCK ? n - at : BLOCK;
		float *to = out + at;
#pragma omp simd
		for (int64_t i = 0; i < k; i++)
			to[i] = a[i] + b[i];
		for (int r = 2; r < c->size; r++) {
			const float *more = slice_of(c, r, own, got, n) + at;
#pragma omp simd
			for (int64_t i = 0; i < k; i++)
				to[i] += more[i];
		}
	}
}

/* At most LWM_COMM_CHUNK floats, a multiple of the ranks: every rank sums one slice, then all slices are gathered. */
static int sum_chunk(struct lwm_comm *c, const struct lwm_comm_moves *by, float *p, int64_t n, struct lwm_err *e)
{
	int64_t slice = n / c->size;
	float *sum = c->work, *got = c->work + LWM_COMM_CHUNK;
	size_t bytes = (size_t)slice * sizeof *p;
	LWM_TRY(by->alltoall(c, p, bytes, got, bytes, e));
	sum_slices(c, sum, p + c->rank * slice, got, slice);
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
		sum_slices(c, mine + i, in + c->rank * slice + i, got, k);
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

/* Adds n floats of one slice after the other; they lie `stride` apart. */
static void add_slices(const struct lwm_comm *c, float *sum, const float *own, const float *got, int64_t stride, int64_t n)
{
	for (int r = 0; r < c->size; r++) {
		const float *slice = slice_of(c, r, own, got, stride);
#pragma omp simd
		for (int64_t i = 0; i < n; i++)
			sum[i] += slice[i];
	}
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
		const float *from_all = even ? in + i : c->work;
		int64_t stride = even ? part : k;

		if (!even)
			pack_parts(c, c->work, in, slice, shards, i, k);
		LWM_TRY(by->alltoall(c, from_all, (size_t)stride * sizeof *in, got, (size_t)k * sizeof *in, e));
		if (n > 0)
			add_slices(c, mine + i, from_all + c->rank * stride, got, k, n);
		end_chunk(c);
	}
	return 0;
}
