/* comm_cases.h - what every communicator must do; run over threads by test_comm.c and over MPI by mpi_comm.c. */
#ifndef TESTS_COMM_CASES_H
#define TESTS_COMM_CASES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static const struct {
	const char *name;
	lwm_rank_fn *fn;
	int even, many; /* wants an even number of ranks, wants at least two */
} comm_cases[] = { { "sums", case_sums, 0, 0 },	  { "reduce-scatter", case_scatter, 0, 0 },
		   { "rank order", case_rank_order, 0, 0 },
		   { "ring", case_ring, 0, 0 },	  { "split", case_split, 0, 1 },
		   { "agree", case_agree, 0, 1 }, { "mesh", case_mesh, 1, 1 } };
enum { N_COMM_CASES = sizeof comm_cases / sizeof *comm_cases };

#endif
