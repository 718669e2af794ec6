/* mpi_overlap.c - how much of communication is left when a rank computes beside it. Ranks are MPI processes, one core each:
 *
 *	mpirun -n 2 --bind-to core mpi_overlap [MIB [RUNS]]     256 MiB from each rank to the next; best of 5
 *
 * Of each way of exchanging: alone_ms, the exchange with nothing beside it; compute_ms, four times that computed with nothing
 * beside it; both_ms, both at once. left_ms is what both take longer than the computation, wait_ms what of it the rank waits for in
 * the end; the rest is arithmetic that ran slower, because the same core copies. left and waited: the same as shares of alone_ms.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/num.h"
#include "common/comm/comm.h"

struct buffers {
	char *in, *out; /* `bytes` each */
	size_t bytes;
	struct lwm_comm_op *op;
};

/* begin may be NULL: then end does all of it. */
struct way {
	const char *name;
	int (*begin)(struct lwm_comm *c, struct buffers *b, struct lwm_err *e);
	int (*end)(struct lwm_comm *c, struct buffers *b, struct lwm_err *e);
};

static int begin_exchange(struct lwm_comm *c, struct buffers *b, struct lwm_err *e)
{
	int n = lwm_comm_size(c), me = lwm_comm_rank(c);

	return lwm_comm_start(c, (me + 1) % n, b->in, b->bytes, (me + n - 1) % n, b->out, b->bytes, e);
}

static int end_exchange(struct lwm_comm *c, struct buffers *b, struct lwm_err *e)
{
	(void)b;
	return lwm_comm_finish(c, e);
}

static int begin_gather(struct lwm_comm *c, struct buffers *b, struct lwm_err *e)
{
	return lwm_comm_begin_allgather(c, b->in, b->bytes / (size_t)lwm_comm_size(c), b->out, &b->op, e);
}

static int begin_scatter(struct lwm_comm *c, struct buffers *b, struct lwm_err *e)
{
	return lwm_comm_begin_reduce_scatter_f32(c, (float *)b->in, (float *)b->out, (int64_t)(b->bytes / sizeof(float)), &b->op,
						 e);
}

static int begin_sum(struct lwm_comm *c, struct buffers *b, struct lwm_err *e)
{
	return lwm_comm_begin_sum_f32(c, (float *)b->in, (int64_t)(b->bytes / sizeof(float)), &b->op, e);
}

static int wait_begun(struct lwm_comm *c, struct buffers *b, struct lwm_err *e)
{
	return lwm_comm_wait(c, b->op, e);
}

static int block_gather(struct lwm_comm *c, struct buffers *b, struct lwm_err *e)
{
	return lwm_comm_allgather(c, b->in, b->bytes / (size_t)lwm_comm_size(c), b->out, e);
}

static int block_scatter(struct lwm_comm *c, struct buffers *b, struct lwm_err *e)
{
	return lwm_comm_reduce_scatter_f32(c, (float *)b->in, (float *)b->out, (int64_t)(b->bytes / sizeof(float)), e);
}

static int block_sum(struct lwm_comm *c, struct buffers *b, struct lwm_err *e)
{
	return lwm_comm_sum_f32(c, (float *)b->in, (int64_t)(b->bytes / sizeof(float)), e);
}

static const struct way ways[] = { { "exchange", begin_exchange, end_exchange },
				   { "allgather", begin_gather, wait_begun },
				   { "allgather_blocking", NULL, block_gather },
				   { "reduce_scatter", begin_scatter, wait_begun },
				   { "reduce_scatter_blocking", NULL, block_scatter },
				   { "sum", begin_sum, wait_begun },
				   { "sum_blocking", NULL, block_sum } };

/* Arithmetic within the first cache. */
static float x[2048], y[2048];

static void compute(int64_t rounds)
{
	for (int64_t r = 0; r < rounds; r++)
		for (int i = 0; i < 2048; i++)
			y[i] = y[i] * 0.999f + x[i];
}

/* times: of all, and of the end of it. On the slowest rank. */
static int once(struct lwm_comm *c, const struct way *w, struct buffers *b, int64_t rounds, double times[2], struct lwm_err *e)
{
	int64_t ns[2];
	double t0, t1;

	LWM_TRY(lwm_comm_barrier(c, e));
	t0 = lwm_now();
	if (w && w->begin)
		LWM_TRY(w->begin(c, b, e));
	compute(rounds);
	t1 = lwm_now();
	if (w)
		LWM_TRY(w->end(c, b, e));
	ns[0] = (int64_t)(1e9 * (lwm_now() - t0));
	ns[1] = (int64_t)(1e9 * (lwm_now() - t1));
	LWM_TRY(lwm_comm_max_i64(c, ns, 2, e));
	times[0] = 1e-9 * (double)ns[0];
	times[1] = 1e-9 * (double)ns[1];
	return 0;
}

static int best(struct lwm_comm *c, const struct way *w, struct buffers *b, int64_t rounds, int64_t runs, double times[2],
		struct lwm_err *e)
{
	for (int64_t r = 0; r < runs; r++) {
		double t[2];

		LWM_TRY(once(c, w, b, rounds, t, e));
		if (r == 0 || t[0] < times[0])
			memcpy(times, t, sizeof t);
	}
	return 0;
}

static int measure(struct lwm_comm *c, const struct way *w, struct buffers *b, int64_t runs, struct lwm_err *e)
{
	double alone[2], computed[2], both[2], some[2];
	int64_t rounds;

	LWM_TRY(best(c, NULL, b, 20000, runs, some, e));
	LWM_TRY(best(c, w, b, 0, runs, alone, e));
	rounds = (int64_t)(4 * alone[0] / some[0] * 20000);
	LWM_TRY(lwm_comm_max_i64(c, &rounds, 1, e));
	LWM_TRY(best(c, NULL, b, rounds, runs, computed, e));
	LWM_TRY(best(c, w, b, rounds, runs, both, e));
	if (lwm_comm_rank(c) == 0)
		printf("op=overlap_%s ranks=%d MiB=%zu alone_ms=%.1f compute_ms=%.1f both_ms=%.1f left_ms=%.1f wait_ms=%.1f "
		       "left=%.3f waited=%.3f\n", w->name, lwm_comm_size(c), b->bytes >> 20, 1e3 * alone[0], 1e3 * computed[0],
		       1e3 * both[0], 1e3 * (both[0] - computed[0]), 1e3 * both[1],
		       (both[0] - computed[0]) / alone[0], both[1] / alone[0]);
	fflush(stdout);
	return 0;
}

static int measure_all(struct lwm_comm *c, int64_t mib, int64_t runs, struct lwm_err *e)
{
	struct buffers b = { .bytes = (size_t)mib << 20 };
	int rc;

	b.in = malloc(b.bytes);
	b.out = malloc(b.bytes);
	rc = b.in && b.out ? 0 : lwm_fail_memory(e, NULL);
	LWM_GO(lwm_agree(c, rc, e));
	memset(b.in, 0, b.bytes);
	memset(b.out, 0, b.bytes);
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
		LWM_GO(measure(c, &ways[i], &b, runs, e));
out:
	free(b.in);
	free(b.out);
	return rc;
}

int main(int argc, char **argv)
{
	int64_t mib = 256, runs = 5;
	struct lwm_err e = { 0 };
	struct lwm_comm *world = NULL;
	int rc = lwm_comm_mpi(&world, &argc, &argv, &e);

	if (rc == 0 && argc > 1)
		rc = lwm_parse_int(argv[1], 8, 1 << 14, &mib, "MIB", &e);
	if (rc == 0 && argc > 2)
		rc = lwm_parse_int(argv[2], 1, 1000, &runs, "RUNS", &e);
	if (rc == 0)
		rc = measure_all(world, mib, runs, &e);
	if (rc < 0)
		fprintf(stderr, "mpi_overlap: %s\n", e.msg);
	return world ? -lwm_comm_end(world, rc, &e) : -rc;
}
