/* bench_ring.c - attention over ranks (threads) against one rank: how evenly a layout spreads the work.
 *
 *	bench_ring [TOKENS [RANKS [packed]]]     8192 tokens in all, 2 and RANKS = 4 ranks, 8 heads of 64
 *
 * row=one is one causal document; row=packed, alone if asked for, has documents of a 256th to a quarter of the row.
 * Each rank computes with one thread. Time is the processor time of the busiest rank, which is what a machine with a
 * core for each rank would take: efficiency = time of one rank / (ranks * time of the busiest).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/num.h"
#include "common/comm/ring_deal.h"
#include "common/model/attn_ring.h"
#include "common/comm/device.h"

enum { HEADS = 8, HEAD = 64, ROW = 3 * HEADS * HEAD, RUNS = 3 };

struct job {
	int64_t tokens;
	bool packed;
	enum lwm_ring_layout layout;
	int32_t *seg, *pos; /* (tokens), rank after rank in local order */
	double pairs;       /* that see each other */
	double fwd, bwd;    /* seconds of the busiest rank */
};

static double cpu_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct lwm_attn_qkv views(float *p, int64_t n)
{
	const int64_t one = HEADS * HEAD;
	struct lwm_attn_qkv x = { lk_view3(p, LK_F32, n, HEADS, HEAD), lk_view3(p + one, LK_F32, n, HEADS, HEAD),
				  lk_view3(p + 2 * one, LK_F32, n, HEADS, HEAD) };

	x.q.stride[0] = x.k.stride[0] = x.v.stride[0] = ROW;
	return x;
}

/* Documents of the row, end to end: lengths as (row / 256) 2^k, k up to 6, in an order of no kind. */
static void lay_out(struct job *j)
{
	static const int powers[] = { 6, 2, 5, 0, 4, 6, 1, 3, 5, 2, 0, 6, 4 };
	int64_t at = 0, end = 0;

	j->pairs = 0;
	for (int doc = 0; at < j->tokens; doc++) {
		int64_t length = j->packed ? (j->tokens / 256) << powers[doc % 13] : j->tokens;

		for (end = at + length; at < end && at < j->tokens; at++) {
			j->seg[at] = doc;
			j->pos[at] = (int32_t)(at - end + length);
			j->pairs += j->pos[at] + 1;
		}
	}
}

/* The row as its ranks hold it. */
static int deal(struct job *j, int ranks, struct lwm_err *e)
{
	size_t bytes = (size_t)j->tokens * sizeof(int32_t);
	int32_t *seg = malloc(bytes), *pos = malloc(bytes);
	struct lwm_ring_deal d = { 0 };
	int64_t at = 0;
	int rc = seg && pos ? 0 : lwm_fail(e, LWM_EMEMORY, "no memory for %lld positions", (long long)j->tokens);

	if (!rc) {
		lay_out(j);
		memcpy(seg, j->seg, bytes);
		memcpy(pos, j->pos, bytes);
		rc = lwm_ring_deal_make(&d, j->layout, 1, j->tokens, seg, ranks, e);
	}
	for (int64_t k = 0; !rc && k < d.first[ranks]; k++)
		for (int64_t i = 0; i < d.run[k].count; i++, at++) {
			j->seg[at] = seg[d.run[k].from + i * d.run[k].step];
			j->pos[at] = pos[d.run[k].from + i * d.run[k].step];
		}
	lwm_ring_deal_release(&d);
	free(seg);
	free(pos);
	return rc;
}

/* This rank's share, and numbers to compute with. */
static int prepare(struct lwm_comm *c, const struct job *j, struct lwm_attn *g, float *qkv, int64_t n, struct lwm_err *e)
{
	int64_t own = n * lwm_comm_rank(c);

	for (int64_t i = 0; i < n * ROW; i++)
		qkv[i] = (float)((uint64_t)i * 2654435761u % 1000u) * 1e-3f - 0.5f;
	lwm_attn_ring_tell(g, j->pos, j->seg);
	return lwm_attn_begin(g, n, j->pos + own, j->seg + own, e);
}

static int measure(struct lwm_comm *c, struct job *j, struct lwm_attn *g, float *m, int64_t n, struct lwm_err *e)
{
	float *dx = m + n * ROW, *o = dx + n * ROW, *dout = o + n * HEADS * HEAD, *lse = dout + n * HEADS * HEAD;
	struct lwm_attn_qkv x = views(m, n), d = views(dx, n);
	struct lk_view ov = lk_view3(o, LK_F32, n, HEADS, HEAD), dv = lk_view3(dout, LK_F32, n, HEADS, HEAD);

	LWM_TRY(prepare(c, j, g, m, n, e));
	memcpy(dout, m, (size_t)(n * HEADS * HEAD) * sizeof *m);
	for (int r = 0; r <= RUNS; r++) {
		double t[3] = { cpu_now(), 0, 0 };
		int64_t ns[2];

		LWM_TRY(lwm_attn_forward(g, 0, &x, &ov, lse, 0, e));
		t[1] = cpu_now();
		LWM_TRY(lwm_attn_backward(g, 0, &x, &ov, &dv, lse, lse + n * HEADS, &d, 0, e));
		t[2] = cpu_now();
		ns[0] = (int64_t)(1e9 * (t[1] - t[0]));
		ns[1] = (int64_t)(1e9 * (t[2] - t[1]));
		LWM_TRY(lwm_comm_max_i64(c, ns, 2, e));
		if (!lwm_comm_rank(c) && r && (r == 1 || 1e-9 * (double)ns[0] < j->fwd))
			j->fwd = 1e-9 * (double)ns[0];
		if (!lwm_comm_rank(c) && r && (r == 1 || 1e-9 * (double)ns[1] < j->bwd))
			j->bwd = 1e-9 * (double)ns[1];
	}
	return 0;
}

static int one_rank(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct job *j = arg;
	int64_t n = j->tokens / lwm_comm_size(c);
	struct lwm_attn_ring_shape s = { n, HEADS, HEADS, HEAD, true, true };
	float *mem = malloc((size_t)(n * (2 * ROW + 2 * HEADS * HEAD + 2 * HEADS)) * sizeof *mem);
	struct lwm_devcomm *around = NULL;
	struct lwm_attn *g = NULL;
	struct lk_dev *dev = NULL;
	char why[256];
	int rc = 0;

	if (!mem || lk_dev_open(&dev, "cpu", 1, why, sizeof why))
		LWM_GO(lwm_fail(e, LWM_EUNAVAIL, "no memory or no device"));
	LWM_GO(lwm_devcomm_new(&around, dev, c, e));
	LWM_GO(lwm_attn_ring_new(&g, dev, around, &s, e));
	LWM_GO(measure(c, j, g, mem, n, e));
out:
	lwm_devcomm_free(around);
	lwm_attn_free(g);
	lk_dev_close(dev);
	free(mem);
	return rc;
}

static void run(struct job *j, int ranks)
{
	struct lwm_err e = { 0 };

	j->seg = malloc((size_t)j->tokens * sizeof *j->seg);
	j->pos = malloc((size_t)j->tokens * sizeof *j->pos);
	if (!j->seg || !j->pos || deal(j, ranks, &e) || lwm_comm_threads(ranks, one_rank, j, &e)) {
		fprintf(stderr, "bench_ring: %s\n", e.msg);
		exit(1);
	}
	free(j->seg);
	free(j->pos);
}

static void report(const struct job *j, const struct job *one, int ranks)
{
	double flop = 4 * j->pairs * HEADS * HEAD; // forward

	printf("op=ring_%s row=%s ranks=%d tokens=%lld fwd_ms=%.1f bwd_ms=%.1f GFLOPs_rank=%.1f fwd_efficiency=%.3f "
	       "efficiency=%.3f\n",
	       lwm_ring_layouts[j->layout], j->packed ? "packed" : "one", ranks, (long long)j->tokens, 1e3 * j->fwd, 1e3 * j->bwd,
	       3.5e-9 * flop / ranks / (j->fwd + j->bwd), one->fwd / (ranks * j->fwd),
	       (one->fwd + one->bwd) / (ranks * (j->fwd + j->bwd)));
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int64_t tokens = 8192, most = 4;
	struct lwm_err e = { 0 };
	struct job one;

	if ((argc > 1 && lwm_parse_int(argv[1], 64, 1 << 20, &tokens, "TOKENS", &e)) ||
	    (argc > 2 && lwm_parse_int(argv[2], 2, 64, &most, "RANKS", &e))) {
		fprintf(stderr, "bench_ring: %s\n", e.msg);
		return 64;
	}
	for (int packed = argc > 3 && !strcmp(argv[3], "packed"); packed < 2; packed++) {
		one = (struct job){ .tokens = tokens, .packed = packed, .layout = LWM_RING_CONTIGUOUS };
		run(&one, 1);
		report(&one, &one, 1);
		for (int n = 2; n <= (int)most; n *= 2)
			for (int l = LWM_RING_CONTIGUOUS; l <= LWM_RING_BALANCED; l++) {
				struct job j = { .tokens = tokens, .packed = packed, .layout = (enum lwm_ring_layout)l };

				run(&j, n);
				report(&j, &one, n);
			}
	}
	return 0;
}
