/* comm_cases.h - what every communicator must do; run over threads by test_comm.c and over MPI by mpi_comm.c. */
#ifndef TESTS_COMM_CASES_H
#define TESTS_COMM_CASES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/dist/mesh.h"

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
		p[i] = (float)(i % 512 + me);
	LWM_TRY(lwm_comm_reduce_scatter_f32(c, p, mine, slice * n, e));
	for (int64_t i = 0; i < slice; i++)
		NEED(mine[i] == (float)((me * slice + i) % 512 * n + n * (n - 1) / 2));
	free(p);
	free(mine);
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
	rc = lwm_fail(&mine, LWM_EDATA, "mine");
	mine.who = LWM_ERR_ALONE;
	NEED(me || lwm_agree(c, rc, &mine) == -LWM_EDATA); /* comes back with nobody else there */
	NEED(lwm_comm_barrier(c, e) == 0);
	return 0;
}

static inline int case_mesh(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct lwm_mesh m;
	(void)arg;
	LWM_TRY(lwm_mesh_new(&m, "-1,1,1,2", c, e));
	NEED(lwm_comm_size(m.sp) == 2 && lwm_comm_rank(m.sp) == lwm_comm_rank(c) % 2);
	NEED(lwm_comm_size(m.data) == lwm_comm_size(c) / 2 && lwm_comm_rank(m.data) == lwm_comm_rank(c) / 2);
	NEED(lwm_comm_size(m.grad) == lwm_comm_size(c) && lwm_comm_rank(m.grad) == lwm_comm_rank(c));
	lwm_mesh_release(&m);
	return 0;
}

static const struct {
	const char *name;
	lwm_rank_fn *fn;
	int even, many; /* wants an even number of ranks, wants at least two */
} comm_cases[] = { { "sums", case_sums, 0, 0 },	  { "reduce-scatter", case_scatter, 0, 0 },
		   { "ring", case_ring, 0, 0 },	  { "split", case_split, 0, 1 },
		   { "agree", case_agree, 0, 1 }, { "mesh", case_mesh, 1, 1 } };
enum { N_COMM_CASES = sizeof comm_cases / sizeof *comm_cases };

#endif
