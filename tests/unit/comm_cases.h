/* comm_cases.h - what every communicator must do; run over threads by test_comm.c and over MPI by mpi_comm.c. */
#ifndef TESTS_COMM_CASES_H
#define TESTS_COMM_CASES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/comm/mesh.h"

#define NEED(cond)                                                                                                  \
	do {                                                                                                        \
		if (!(cond))                                                                                        \
			return lwm_fail(e, LWM_ENO, "%s:%d: not so: %s", __FILE__, __LINE__, #cond);               \
	} while (0)

static inline int case_sums(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	int n = lwm_comm_size(c), me = lwm_comm_rank(c);
	int64_t len = 3000017; /* several chunks and a ragged end */
	float *p = malloc((size_t)len * sizeof *p);
	double d[3] = { 1.0 + me, 0.5, me };
	int64_t m[2] = { me, -me };
	(void)arg;
	NEED(p);
	for (int64_t i = 0; i < len; i++)
		p[i] = (float)(i % 1000) + (float)me;
	LWM_TRY(lwm_comm_sum_f32(c, p, len, e));
	for (int64_t i = 0; i < len; i++)
		NEED(p[i] == (float)(i % 1000) * (float)n + (float)(n * (n - 1) / 2));
	free(p);
	LWM_TRY(lwm_comm_sum_f64(c, d, 3, e));
	NEED(d[0] == n + n * (n - 1) / 2.0 && d[1] == 0.5 * n);
	LWM_TRY(lwm_comm_max_i64(c, m, 2, e));
	NEED(m[0] == n - 1 && m[1] == 0);
	return 0;
}

static inline int case_scatter(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	int n = lwm_comm_size(c), me = lwm_comm_rank(c);
	int64_t slice = 300001;
	float *p = malloc((size_t)(slice * n) * sizeof *p), *mine = malloc((size_t)slice * sizeof *p);
	(void)arg;
	NEED(p && mine);
	for (int64_t i = 0; i < slice * n; i++)
		p[i] = (float)(i % 509 + me); /* no period that fits the pieces it is done in */
	LWM_TRY(lwm_comm_reduce_scatter_f32(c, p, mine, slice * n, e));
	for (int64_t i = 0; i < slice; i++)
		NEED(mine[i] == (float)((me * slice + i) % 509 * n + n * (n - 1) / 2));
	free(p);
	free(mine);
	return 0;
}

/* What rank r adds at place i: numbers of which any other order of adding gives another sum. */
static inline double awkward(int r, int64_t i, double large)
{
	static const double times[] = { 1, 3, -4 };
	int at = (int)((r + i) % 4);
	return at == 3 ? 1 : times[at] * large;
}

/* Sums are formed in rank order, to the bit: this is what makes a run repeatable. */
static inline int case_rank_order(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	enum { LEN = 1203 }; /* no multiple of any number of ranks but 3 */
	int n = lwm_comm_size(c), me = lwm_comm_rank(c), slice = LEN / n;
	float f[LEN], in[LEN], mine[LEN];
	double d[LEN];
	(void)arg;
	for (int i = 0; i < LEN; i++) {
		in[i] = f[i] = (float)awkward(me, i, 1e8);
		d[i] = awkward(me, i, 1e17);
	}
	LWM_TRY(lwm_comm_sum_f32(c, f, LEN, e));
	LWM_TRY(lwm_comm_sum_f64(c, d, LEN, e));
	LWM_TRY(lwm_comm_reduce_scatter_f32(c, in, mine, (int64_t)slice * n, e));
	for (int i = 0; i < LEN; i++) {
		volatile float wf = (float)awkward(0, i, 1e8), ws = (float)awkward(0, me * slice + i, 1e8);
		volatile double wd = awkward(0, i, 1e17);
		for (int r = 1; r < n; r++) {
			wf = wf + (float)awkward(r, i, 1e8);
			wd = wd + awkward(r, i, 1e17);
			ws = ws + (float)awkward(r, me * slice + i, 1e8);
		}
		NEED(f[i] == wf && d[i] == wd);
		NEED(i >= slice || mine[i] == ws);
	}
	return 0;
}

/* Chained sums: of terms that are dealt in turn every rank has its part as one that adds up all of them one by one, to the bit;
 * nothing else is touched. Two calls are in flight. Slices that are no multiple of the parts, and longer than a piece. */
static inline int chain_once(struct lwm_comm *c, int shards, int64_t slice, struct lwm_err *e)
{
	enum { TERMS = 2 };
	int n = lwm_comm_size(c), me = lwm_comm_rank(c);
	int64_t from, part = lwm_comm_chain_part(n, me, shards, slice, &from);
	float *in = malloc((size_t)(slice * shards * TERMS) * sizeof *in), *mine = malloc((size_t)(part + 1) * sizeof *mine);
	struct lwm_comm_op *op[TERMS];
	NEED(in && mine);
	for (int k = 0; k < TERMS; k++)
		for (int64_t i = 0; i < slice * shards; i++)
			in[k * slice * shards + i] = (float)awkward(k * n + me, i, 1e8);
	for (int64_t i = 0; i <= part; i++)
		mine[i] = 0.5f;
	for (int k = 0; k < TERMS; k++)
		LWM_TRY(lwm_comm_begin_chain_f32(c, in + k * slice * shards, slice, shards, mine, &op[k], e));
	for (int k = 0; k < TERMS; k++)
		LWM_TRY(lwm_comm_wait(c, op[k], e));
	for (int64_t i = 0; i < part; i++) {
		volatile float sum = 0.5f;
		for (int r = 0; r < TERMS * n; r++)
			sum = sum + (float)awkward(r, me % shards * slice + from + i, 1e8);
		NEED(mine[i] == sum);
	}
	NEED(mine[part] == 0.5f);
	free(in);
	free(mine);
	return 0;
}

enum { LWM_CHAIN_LONG = (1 << 20) + 1 }; /* of four ranks the last part ends before the piece that the others have left */

static inline int case_chain(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	static const int64_t slices[] = { 1, 5, 48, 1203, 1206, 700001, LWM_CHAIN_LONG };
	int n = lwm_comm_size(c);
	struct lwm_comm_op *op;
	float f = 0;
	(void)arg;
	for (int shards = 1; shards <= n; shards++) {
		int64_t all = 0, from;
		for (int r = 0; r < n; r += shards) /* parts of a slice follow each other */
			if (n % shards == 0) {
				all += lwm_comm_chain_part(n, r, shards, 1203, &from);
				NEED(from + lwm_comm_chain_part(n, r, shards, 1203, &from) == all);
			}
		NEED(n % shards || all == 1203);
		for (size_t i = 0; n % shards == 0 && i < sizeof slices / sizeof *slices; i++)
			if (slices[i] < 1 << 16 || shards <= (slices[i] < LWM_CHAIN_LONG ? 2 : 1))
				LWM_TRY(chain_once(c, shards, slices[i], e));
	}
	NEED(lwm_comm_begin_chain_f32(c, &f, 1, n + 1, &f, &op, NULL) == -LWM_EINTERNAL && !op);
	return 0;
}

/* Blocks travel once round the ring, several exchanges in flight. */
static inline int case_ring(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	int n = lwm_comm_size(c), me = lwm_comm_rank(c), next = (me + 1) % n, prev = (me + n - 1) % n;
	enum { LEN = 50000 };
	int *a = malloc(sizeof *a * LEN), *b = malloc(sizeof *b * LEN), tag, got;
	(void)arg;
	NEED(a && b);
	for (int i = 0; i < LEN; i++)
		a[i] = me * 7 + i;
	for (int hop = 1; hop <= n; hop++) {
		tag = me * 100 + hop;
		LWM_TRY(lwm_comm_start(c, next, a, sizeof *a * LEN, prev, b, sizeof *b * LEN, e));
		LWM_TRY(lwm_comm_start(c, next, &tag, sizeof tag, prev, &got, sizeof got, e));
		LWM_TRY(lwm_comm_finish(c, e));
		LWM_TRY(lwm_comm_finish(c, e));
		int from = (me - hop % n + n) % n;
		NEED(got == prev * 100 + hop);
		NEED(b[0] == from * 7 && b[LEN - 1] == from * 7 + LEN - 1);
		int *t = a;
		a = b;
		b = t;
	}
	free(a);
	free(b);
	return 0;
}

static inline int case_split(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	int n = lwm_comm_size(c), me = lwm_comm_rank(c), all[64];
	struct lwm_comm *half;
	(void)arg;
	LWM_TRY(lwm_comm_split(c, me % 2, -me, &half, e)); /* order reversed by key */
	int size = lwm_comm_size(half), last = (n - 1 - me) / 2;
	NEED(size == (n + 1 - me % 2) / 2 && lwm_comm_rank(half) == last);
	LWM_TRY(lwm_comm_allgather(half, &me, sizeof me, all, e));
	for (int i = 1; i < size; i++)
		NEED(all[i] == all[i - 1] - 2);
	lwm_comm_free(half);
	LWM_TRY(lwm_comm_split(c, me % 2, 0, &half, e)); /* equal keys: in the order they were */
	NEED(lwm_comm_rank(half) == me / 2);
	lwm_comm_free(half);
	LWM_TRY(lwm_comm_split(c, me == 0 ? -1 : 0, 0, &half, e));
	NEED((half == NULL) == (me == 0));
	lwm_comm_free(half);
	return 0;
}

static inline int case_agree(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	int n = lwm_comm_size(c), me = lwm_comm_rank(c), rc = 0;
	struct lwm_err mine = { 0 };
	(void)arg;
	NEED(lwm_agree(c, 0, &mine) == 0);
	if (me == n - 1)
		rc = lwm_fail(&mine, LWM_EDATA, "part %d is torn", 7);
	else if (me == 0)
		rc = lwm_fail(&mine, LWM_ESAVED, "asked to stop");
	rc = lwm_agree(c, rc, &mine);
	NEED(rc == -LWM_EDATA && mine.code == rc && strstr(mine.msg, "part 7 is torn"));
	NEED(me == n - 1 || strstr(mine.msg, "rank "));
	NEED(mine.who == (me == n - 1 ? LWM_ERR_SHARED : LWM_ERR_HEARD));
	rc = lwm_agree(c, rc, &mine); /* once more: it still happened where it happened, and no rank is named twice */
	NEED(rc == -LWM_EDATA && mine.who == (me == n - 1 ? LWM_ERR_SHARED : LWM_ERR_HEARD));
	NEED(!strstr(mine.msg, "rank ") || !strstr(strstr(mine.msg, "rank ") + 1, "rank "));
	lwm_err_clear(&mine);
	if (n > 2) { /* of equal failures the lowest rank's is told */
		rc = me == 1 || me == n - 1 ? lwm_fail(&mine, LWM_EDATA, "of %d", me) : 0;
		NEED(lwm_agree(c, rc, &mine) == -LWM_EDATA && strstr(mine.msg, "of 1"));
		NEED(mine.who == (me == 1 ? LWM_ERR_SHARED : LWM_ERR_HEARD));
		lwm_err_clear(&mine);
	}
	rc = lwm_fail(&mine, LWM_EDATA, "mine");
	mine.who = LWM_ERR_ALONE;
	NEED(me || lwm_agree(c, rc, &mine) == -LWM_EDATA); /* comes back with nobody else there */
	lwm_err_clear(&mine);
	rc = lwm_fail(&mine, LWM_ERANK, "nobody there");
	NEED(me || lwm_agree(c, rc, &mine) == -LWM_ERANK); /* and so does the loss of a rank */
	NEED(lwm_comm_barrier(c, e) == 0);
	return 0;
}

static inline int case_mesh(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct lwm_mesh m;
	(void)arg;
	LWM_TRY(lwm_mesh_new(&m, "-1,1,1,2", c, e));
	NEED(lwm_comm_size(m.comm[LWM_SP]) == 2 && lwm_comm_rank(m.comm[LWM_SP]) == lwm_comm_rank(c) % 2);
	NEED(lwm_comm_size(m.comm[LWM_DATA]) == lwm_comm_size(c) / 2 && lwm_comm_rank(m.comm[LWM_DATA]) == lwm_comm_rank(c) / 2);
	NEED(lwm_comm_size(m.comm[LWM_GRAD]) == lwm_comm_size(c) && lwm_comm_rank(m.comm[LWM_GRAD]) == lwm_comm_rank(c));
	lwm_mesh_release(&m);
	return 0;
}

/* ---- behind computation ---- */

/* Several chunks and a ragged end; numbers of which any other order of adding gives another sum. */
enum { BEGUN_SLICE = 700001, BEGUN_ODD = 3 };

struct begun {
	float *sum, *in, *mine, *all;
	int64_t n, odd; /* floats of in and all; of sum */
};

static inline int begun_make(struct begun *b, struct lwm_comm *c, struct lwm_err *e)
{
	int me = lwm_comm_rank(c);
	*b = (struct begun){ .n = (int64_t)BEGUN_SLICE * lwm_comm_size(c) };
	b->odd = b->n + BEGUN_ODD;
	b->sum = malloc((size_t)b->odd * sizeof(float));
	b->in = malloc((size_t)b->n * sizeof(float));
	b->mine = malloc(BEGUN_SLICE * sizeof(float));
	b->all = malloc((size_t)b->n * sizeof(float));
	NEED(b->sum && b->in && b->mine && b->all);
	for (int64_t i = 0; i < b->odd; i++)
		b->sum[i] = (float)awkward(me, i, 1e8);
	for (int64_t i = 0; i < b->n; i++)
		b->in[i] = (float)awkward(me, i + 1, 1e8);
	return 0;
}

static inline void begun_free(struct begun *b)
{
	free(b->sum);
	free(b->in);
	free(b->mine);
	free(b->all);
}

static inline bool begun_same(const struct begun *a, const struct begun *b)
{
	return !memcmp(a->sum, b->sum, (size_t)a->odd * sizeof(float)) && !memcmp(a->mine, b->mine, BEGUN_SLICE * sizeof(float)) &&
	       !memcmp(a->all, b->all, (size_t)a->n * sizeof(float));
}

/* What begins gives the bits of what blocks, waited for in an order that is not the same on all ranks; a blocking collective called
 * in between has its turn after it. */
static inline int case_begun_bits(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct begun now, then;
	struct lwm_comm_op *op[3];
	int me = lwm_comm_rank(c), seen[64];
	(void)arg;
	LWM_TRY(begun_make(&now, c, e));
	LWM_TRY(begun_make(&then, c, e));
	LWM_TRY(lwm_comm_sum_f32(c, now.sum, now.odd, e));
	LWM_TRY(lwm_comm_reduce_scatter_f32(c, now.in, now.mine, now.n, e));
	LWM_TRY(lwm_comm_allgather(c, now.mine, BEGUN_SLICE * sizeof(float), now.all, e));
	LWM_TRY(lwm_comm_begin_sum_f32(c, then.sum, then.odd, &op[0], e));
	LWM_TRY(lwm_comm_begin_reduce_scatter_f32(c, then.in, then.mine, then.n, &op[1], e));
	LWM_TRY(lwm_comm_begin_allgather(c, then.mine, BEGUN_SLICE * sizeof(float), then.all, &op[2], e)); /* after the scatter */
	LWM_TRY(lwm_comm_allgather(c, &me, sizeof me, seen, e));
	for (int i = 0; i < lwm_comm_size(c); i++)
		NEED(seen[i] == i);
	for (int i = 0; i < 3; i++)
		LWM_TRY(lwm_comm_wait(c, op[(i + me) % 3], e));
	NEED(begun_same(&now, &then));
	NEED(lwm_comm_begin_reduce_scatter_f32(c, then.in, then.mine, then.n + 1, &op[0], NULL) ==
	     (lwm_comm_size(c) > 1 ? -LWM_EINTERNAL : 0) && !op[0]);
	begun_free(&now);
	begun_free(&then);
	return 0;
}

/* Small ones, as many as may be in flight, twice over; one more is refused and changes nothing. */
static inline int case_begun_many(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	int n = lwm_comm_size(c), me = lwm_comm_rank(c), mine[LWM_COMM_BEGUN], all[LWM_COMM_BEGUN][64];
	struct lwm_comm_op *op[LWM_COMM_BEGUN + 1];
	(void)arg;
	for (int turn = 0; turn < 2; turn++) {
		for (int i = 0; i < LWM_COMM_BEGUN; i++) {
			mine[i] = 1000 * turn + 100 * me + i;
			LWM_TRY(lwm_comm_begin_allgather(c, &mine[i], sizeof mine[i], all[i], &op[i], e));
		}
		NEED(lwm_comm_begin_allgather(c, &me, sizeof me, all[0], &op[LWM_COMM_BEGUN], NULL) == -LWM_EINTERNAL);
		for (int i = LWM_COMM_BEGUN; i-- > 0;)
			LWM_TRY(lwm_comm_wait(c, op[i], e));
		for (int i = 0; i < LWM_COMM_BEGUN; i++)
			for (int r = 0; r < n; r++)
				NEED(all[i][r] == 1000 * turn + 100 * r + i);
	}
	/* one that is done and not waited for keeps its place */
	LWM_TRY(lwm_comm_begin_allgather(c, &mine[0], sizeof mine[0], all[0], &op[0], e));
	LWM_TRY(lwm_comm_barrier(c, e));
	LWM_TRY(lwm_comm_begin_allgather(c, &mine[1], sizeof mine[1], all[1], &op[1], e));
	NEED(op[0] != op[1]);
	LWM_TRY(lwm_comm_wait(c, op[0], e));
	LWM_TRY(lwm_comm_wait(c, op[1], e));
	return lwm_comm_wait(c, NULL, e);
}

/* Two communicators and an exchange in flight. Even ranks wait for one first, odd ranks for the other: nobody waits for ever. */
static inline int case_begun_crosswise(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	enum { LEN = 600000 };
	int n = lwm_comm_size(c), me = lwm_comm_rank(c), next = (me + 1) % n, prev = (me + n - 1) % n;
	float *a = malloc(LEN * sizeof *a), *b = malloc(LEN * sizeof *b);
	float *out = malloc(LEN * sizeof *out), *in = malloc(LEN * sizeof *in);
	struct lwm_comm *other;
	struct lwm_comm_op *oa, *ob;
	(void)arg;
	NEED(a && b && out && in);
	LWM_TRY(lwm_comm_split(c, 0, -me, &other, e));
	for (int turn = 0; turn < 4; turn++) {
		for (int i = 0; i < LEN; i++) {
			a[i] = (float)(i % 7 + me);
			b[i] = (float)(i % 5 + me);
			out[i] = (float)(i % 3 + me);
		}
		LWM_TRY(lwm_comm_begin_sum_f32(c, a, LEN, &oa, e));
		LWM_TRY(lwm_comm_start(c, next, out, LEN * sizeof *out, prev, in, LEN * sizeof *in, e));
		LWM_TRY(lwm_comm_begin_sum_f32(other, b, LEN, &ob, e));
		if (me % 2)
			LWM_TRY(lwm_comm_finish(c, e));
		LWM_TRY(me % 2 ? lwm_comm_wait(c, oa, e) : lwm_comm_wait(other, ob, e));
		LWM_TRY(me % 2 ? lwm_comm_wait(other, ob, e) : lwm_comm_wait(c, oa, e));
		if (me % 2 == 0)
			LWM_TRY(lwm_comm_finish(c, e));
		for (int i = 0; i < LEN; i++)
			NEED(a[i] == (float)(i % 7 * n + n * (n - 1) / 2) && b[i] == (float)(i % 5 * n + n * (n - 1) / 2) &&
			     in[i] == (float)(i % 3 + prev));
	}
	lwm_comm_free(other);
	free(a);
	free(b);
	free(out);
	free(in);
	return 0;
}

/* Waits for a file without calling the communicator: a rank that computes. */
static inline bool file_appears(const char *path)
{
	const struct timespec t = { 0, 5000000 };
	for (int i = 0; i < 12000; i++) { /* a minute */
		if (access(path, F_OK) == 0)
			return true;
		nanosleep(&t, NULL);
	}
	return false;
}

/* What the last rank is sent by the others, which call nothing until it says by a file that it has all of it: first by what was
 * begun, then by an exchange. */
static inline int case_begun_alone(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	enum { LEN = 3000017 };
	int n = lwm_comm_size(c), me = lwm_comm_rank(c);
	bool last = me == n - 1, came = true;
	char path[2][64];
	int64_t pid = getpid();
	float *p = calloc(LEN, sizeof *p);
	struct lwm_comm_op *op;
	FILE *f;
	(void)arg;
	NEED(p);
	LWM_TRY(lwm_comm_bcast(c, &pid, sizeof pid, 0, e));
	for (int k = 0; k < 2; k++) {
		snprintf(path[k], sizeof path[k], "/tmp/lwm-test-comm-%d-%ld-%d", n, (long)pid, k);
		if (k == 0)
			LWM_TRY(lwm_comm_begin_sum_f32(c, p, LEN, &op, e));
		else if (last || me == 0)
			LWM_TRY(lwm_comm_start(c, last ? 0 : n - 1, p, last ? 0 : LEN * sizeof *p, last ? 0 : n - 1, p,
					       last ? LEN * sizeof *p : 0, e));
		if (!last)
			came = came && file_appears(path[k]);
		if (k == 0)
			LWM_TRY(lwm_comm_wait(c, op, e));
		else if (last || me == 0)
			LWM_TRY(lwm_comm_finish(c, e));
		if (last)
			NEED((f = fopen(path[k], "w")) && fclose(f) == 0);
	}
	LWM_TRY(lwm_comm_barrier(c, e));
	for (int k = 0; k < 2 && last; k++)
		unlink(path[k]);
	free(p);
	NEED(came);
	return 0;
}

/* As comm.h says them, whichever way they were carried. */
static inline int case_sent(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	int n = lwm_comm_size(c), me = lwm_comm_rank(c);
	uint64_t others = (uint64_t)n - 1, at = lwm_comm_sent(c), want;
	float *p = calloc(64 * 100, sizeof *p), *q = calloc(64 * 100, sizeof *q);
	double d[3] = { 0 };
	struct lwm_comm_op *op[3];
	(void)arg;
	NEED(p && q);
	LWM_TRY(lwm_comm_barrier(c, e));
	LWM_TRY(lwm_agree(c, 0, e));
	NEED(lwm_comm_sent(c) == at);
	LWM_TRY(lwm_comm_sum_f32(c, p, 5 * n - 1, e));                  /* 5 floats a rank, twice */
	LWM_TRY(lwm_comm_reduce_scatter_f32(c, p, q, (int64_t)7 * n, e)); /* 7 */
	LWM_TRY(lwm_comm_allgather(c, p, 11, q, e));
	LWM_TRY(lwm_comm_sum_f64(c, d, 3, e));
	LWM_TRY(lwm_comm_bcast(c, p, 13, n - 1, e));
	want = others * (40 + 28 + 11 + 24) + (me == n - 1 ? others * 13 : 0);
	NEED(lwm_comm_sent(c) - at == want);
	at = lwm_comm_sent(c);
	LWM_TRY(lwm_comm_begin_sum_f32(c, p, 5 * n - 1, &op[0], e));
	LWM_TRY(lwm_comm_begin_reduce_scatter_f32(c, p, q, (int64_t)7 * n, &op[1], e));
	LWM_TRY(lwm_comm_begin_allgather(c, p, 11, q + 1000, &op[2], e));
	for (int i = 0; i < 3; i++)
		LWM_TRY(lwm_comm_wait(c, op[i], e));
	NEED(lwm_comm_sent(c) - at == others * (40 + 28 + 11));
	at = lwm_comm_sent(c);
	LWM_TRY(lwm_comm_begin_chain_f32(c, p, (int64_t)7 * n - 1, 1, q, &op[0], e));
	LWM_TRY(lwm_comm_wait(c, op[0], e));
	LWM_TRY(lwm_comm_begin_chain_f32(c, p, 9, n, q, &op[0], e));
	LWM_TRY(lwm_comm_wait(c, op[0], e));
	NEED(lwm_comm_sent(c) - at == others * (28 + 36));
	at = lwm_comm_sent(c);
	LWM_TRY(lwm_comm_start(c, (me + 1) % n, p, 17, (me + n - 1) % n, q, 17, e));
	LWM_TRY(lwm_comm_finish(c, e));
	NEED(lwm_comm_sent(c) - at == (n > 1 ? 17 : 0));
	free(p);
	free(q);
	return 0;
}

static const struct {
	const char *name;
	lwm_rank_fn *fn;
	int even, many; /* wants an even number of ranks, wants at least two */
} comm_cases[] = { { "sums", case_sums, 0, 0 },	  { "reduce-scatter", case_scatter, 0, 0 },
		   { "rank order", case_rank_order, 0, 0 },
		   { "chain", case_chain, 0, 0 },
		   { "ring", case_ring, 0, 0 },	  { "split", case_split, 0, 1 },
		   { "agree", case_agree, 0, 1 }, { "mesh", case_mesh, 1, 1 },
		   { "begun: bits", case_begun_bits, 0, 0 },
		   { "begun: many", case_begun_many, 0, 1 },
		   { "begun: crosswise", case_begun_crosswise, 0, 0 },
		   { "begun: alone", case_begun_alone, 0, 1 },
		   { "sent", case_sent, 0, 0 } };
enum { N_COMM_CASES = sizeof comm_cases / sizeof *comm_cases };

#endif
