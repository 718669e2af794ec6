/* devcomm_cases.h - what ranks must be able to exchange of their devices' memory; run over threads by test_devcomm.c and over MPI
 * by mpi_comm.c. The argument of each case is a struct devcomm_setup. */
#ifndef TESTS_DEVCOMM_CASES_H
#define TESTS_DEVCOMM_CASES_H

#include <unistd.h>

#include "common/comm/devcomm.h"
#include "common/comm/device.h"
#include "tests/unit/comm_cases.h"

struct devcomm_setup {
	const char *device; /* "cpu", or "cuda": each rank its own GPU, or "cuda:0" */
	const char *kind;   /* what must come of it with several ranks */
};

struct devcomm_rank {
	struct lk_dev *dev;
	struct lwm_devcomm *d;
	int rank, size;
};

static inline int devcomm_open(struct devcomm_rank *r, struct lwm_comm *c, const struct devcomm_setup *s, struct lwm_err *e)
{
	char spec[32];

	memset(r, 0, sizeof *r);
	r->rank = lwm_comm_rank(c);
	r->size = lwm_comm_size(c);
	snprintf(spec, sizeof spec, strcmp(s->device, "cuda") ? "%s" : "%s:%d", s->device, r->rank);
	LWM_TRY(lwm_agree(c, lwm_device_open(&r->dev, spec, 1, e), e));
	return lwm_devcomm_new(&r->d, r->dev, c, e);
}

static inline void devcomm_close(struct devcomm_rank *r)
{
	lwm_devcomm_free(r->d);
	lk_dev_close(r->dev);
}

/* Device memory of n floats, f(i) each; host is scratch of as many. */
static inline float *devcomm_floats(struct devcomm_rank *r, int64_t n, float (*f)(int64_t i, int rank), float *host)
{
	void *p;

	for (int64_t i = 0; i < n; i++)
		host[i] = f(i, r->rank);
	if (lk_mem_alloc(r->dev, (size_t)n * 4, &p) || lk_upload(r->dev, p, host, (size_t)n * 4))
		return NULL;
	return p;
}

static inline float devcomm_value(int64_t i, int rank)
{
	return (float)(i % 1000 + rank);
}

/* More than one piece of the staged body, and a ragged end. */
enum { DEVCOMM_SLICE = 1500007 };

static inline int devcomm_sums(struct devcomm_rank *r, struct lwm_err *e)
{
	int n = r->size;
	int64_t len = (int64_t)DEVCOMM_SLICE * n;
	float *host = malloc((size_t)len * 4), *p, *mine;

	NEED(host && (p = devcomm_floats(r, len, devcomm_value, host)));
	NEED((mine = devcomm_floats(r, DEVCOMM_SLICE, devcomm_value, host)));
	LWM_TRY(lwm_devcomm_reduce_scatter_f32(r->d, p, mine, len, e));
	NEED(lk_download(r->dev, host, mine, (size_t)DEVCOMM_SLICE * 4) == 0);
	for (int64_t i = 0; i < DEVCOMM_SLICE; i++)
		NEED(host[i] == (float)((r->rank * (int64_t)DEVCOMM_SLICE + i) % 1000 * n + n * (n - 1) / 2));
	LWM_TRY(lwm_devcomm_sum_f32(r->d, p, len, e));
	LWM_TRY(lwm_devcomm_settle(r->d, e));
	NEED(lk_download(r->dev, host, p, (size_t)len * 4) == 0);
	for (int64_t i = 0; i < len; i++)
		NEED(host[i] == (float)(i % 1000 * n + n * (n - 1) / 2));
	lk_mem_free(r->dev, p);
	lk_mem_free(r->dev, mine);
	free(host);
	return 0;
}

/* In its place and from another one, a number of bytes that is nothing of anything. */
static inline int devcomm_gathers(struct devcomm_rank *r, struct lwm_err *e)
{
	const size_t bytes = 5000011;
	size_t len = bytes * (size_t)r->size;
	unsigned char *host = malloc(len);
	void *mine, *all;

	NEED(host && !lk_mem_alloc(r->dev, bytes, &mine) && !lk_mem_alloc(r->dev, len, &all));
	for (int in_place = 0; in_place < 2; in_place++) {
		char *from = in_place ? (char *)all + bytes * (size_t)r->rank : mine;

		for (size_t i = 0; i < bytes; i++)
			host[i] = (unsigned char)(i % 251 + (size_t)r->rank);
		NEED(!lk_zero(r->dev, all, len) && !lk_upload(r->dev, from, host, bytes));
		LWM_TRY(lwm_devcomm_allgather(r->d, from, bytes, all, e));
		LWM_TRY(lwm_devcomm_settle(r->d, e));
		NEED(!lk_download(r->dev, host, all, len));
		for (size_t i = 0; i < len; i++)
			NEED(host[i] == (unsigned char)(i % bytes % 251 + i / bytes));
	}
	lk_mem_free(r->dev, mine);
	lk_mem_free(r->dev, all);
	free(host);
	return 0;
}

/* What a collective works on: sums in place, slices of a scattered sum, everyone's slices. Thirds, so that every rounding shows. */
struct devcomm_set {
	float *sum, *in, *mine, *all;
};

enum { DEVCOMM_BEGUN = 40009 };

static inline float devcomm_third(int64_t i, int rank)
{
	return (float)(i % 1000 + rank) / 3;
}

static inline int devcomm_set_make(struct devcomm_set *s, struct devcomm_rank *r, float *host, struct lwm_err *e)
{
	int64_t n = (int64_t)DEVCOMM_BEGUN * r->size;

	NEED((s->sum = devcomm_floats(r, n + 1, devcomm_third, host)) && (s->in = devcomm_floats(r, n, devcomm_third, host)));
	NEED((s->mine = devcomm_floats(r, DEVCOMM_BEGUN, devcomm_value, host)) &&
	     (s->all = devcomm_floats(r, n, devcomm_value, host)));
	return 0;
}

/* Arithmetic before, which must be in what is sent, and after, which must find what arrived. */
static inline int devcomm_set_scale(struct devcomm_rank *r, float *p, int64_t n, struct lwm_err *e)
{
	struct lk_view x = lk_view1(p, LK_F32, n);

	NEED(!lk_scale(r->dev, &x, 0.7f));
	return 0;
}

static inline int devcomm_set_same(struct devcomm_rank *r, const float *a, const float *b, int64_t n, float *host,
				   struct lwm_err *e)
{
	NEED(!lk_download(r->dev, host, a, (size_t)n * 4) && !lk_download(r->dev, host + n, b, (size_t)n * 4));
	NEED(!memcmp(host, host + n, (size_t)n * 4));
	return 0;
}

/* Begun, and waited for in another order, gives the bits of the blocking calls. */
static inline int devcomm_begun(struct devcomm_rank *r, struct lwm_err *e)
{
	int64_t n = (int64_t)DEVCOMM_BEGUN * r->size;
	float *host = malloc((size_t)(n + 1) * 2 * 4);
	struct lwm_devcomm_op *op[3];
	struct devcomm_set s[2];
	uint64_t sent[3];

	NEED(host);
	for (int k = 0; k < 2; k++) {
		LWM_TRY(devcomm_set_make(&s[k], r, host, e));
		LWM_TRY(devcomm_set_scale(r, s[k].sum, n + 1, e));
		LWM_TRY(devcomm_set_scale(r, s[k].in, n, e));
	}
	sent[0] = lwm_comm_sent(lwm_devcomm_comm(r->d));
	LWM_TRY(lwm_devcomm_sum_f32(r->d, s[0].sum, n + 1, e));
	LWM_TRY(lwm_devcomm_reduce_scatter_f32(r->d, s[0].in, s[0].mine, n, e));
	LWM_TRY(lwm_devcomm_allgather(r->d, s[0].in, DEVCOMM_BEGUN * 4, s[0].all, e));
	sent[1] = lwm_comm_sent(lwm_devcomm_comm(r->d));
	LWM_TRY(lwm_devcomm_begin_sum_f32(r->d, s[1].sum, n + 1, &op[0], e));
	LWM_TRY(lwm_devcomm_begin_reduce_scatter_f32(r->d, s[1].in, s[1].mine, n, &op[1], e));
	LWM_TRY(lwm_devcomm_begin_allgather(r->d, s[1].in, DEVCOMM_BEGUN * 4, s[1].all, &op[2], e));
	sent[2] = lwm_comm_sent(lwm_devcomm_comm(r->d));
	for (int i = 0; i < 3; i++)
		LWM_TRY(lwm_devcomm_wait(r->d, op[(i + 1 + r->rank) % 3], e));
	for (int k = 0; k < 2; k++) {
		LWM_TRY(devcomm_set_scale(r, s[k].sum, n + 1, e));
		LWM_TRY(devcomm_set_scale(r, s[k].mine, DEVCOMM_BEGUN, e));
		LWM_TRY(devcomm_set_scale(r, s[k].all, n, e));
	}
	LWM_TRY(lwm_devcomm_settle(r->d, e));
	LWM_TRY(devcomm_set_same(r, s[0].sum, s[1].sum, n + 1, host, e));
	LWM_TRY(devcomm_set_same(r, s[0].mine, s[1].mine, DEVCOMM_BEGUN, host, e));
	LWM_TRY(devcomm_set_same(r, s[0].all, s[1].all, n, host, e));
	NEED(sent[1] - sent[0] == sent[2] - sent[1] &&
	     sent[1] - sent[0] == (uint64_t)(r->size - 1) * 4 * (2 * (DEVCOMM_BEGUN + 1) + 2 * DEVCOMM_BEGUN));
	for (int k = 0; k < 2; k++) {
		lk_mem_free(r->dev, s[k].sum);
		lk_mem_free(r->dev, s[k].in);
		lk_mem_free(r->dev, s[k].mine);
		lk_mem_free(r->dev, s[k].all);
	}
	free(host);
	return lwm_devcomm_wait(r->d, NULL, e);
}

/* A block goes once round, and with it, on its way a step later, one that every rank adds to: as attention's ring has it. */
static inline int devcomm_ring(struct devcomm_rank *r, struct lwm_err *e)
{
	enum { LEN = 30011 };
	int n = r->size, next = (r->rank + 1) % n, prev = (r->rank + n - 1) % n;
	float *host = malloc(sizeof(float) * LEN), *a[2], *b[2];

	NEED(host);
	for (int k = 0; k < 2; k++)
		NEED((a[k] = devcomm_floats(r, LEN, devcomm_value, host)) &&
		     (b[k] = devcomm_floats(r, LEN, devcomm_value, host)));
	for (int s = 0; s < n; s++) {
		struct lk_view y = lk_view1(b[s % 2], LK_F32, LEN), x = lk_view1(a[s % 2], LK_F32, LEN);

		LWM_TRY(lwm_devcomm_start(r->d, next, a[s % 2], sizeof(float) * LEN, prev, a[(s + 1) % 2], sizeof(float) * LEN, e));
		NEED(!lk_axpy(r->dev, &y, 1.0f, &x));
		LWM_TRY(lwm_devcomm_start(r->d, next, b[s % 2], sizeof(float) * LEN, prev, b[(s + 1) % 2], sizeof(float) * LEN, e));
		LWM_TRY(lwm_devcomm_finish(r->d, e));
		LWM_TRY(lwm_devcomm_finish(r->d, e));
		NEED(!lk_zero(r->dev, a[s % 2], sizeof(float) * LEN)); // free again
	}
	LWM_TRY(lwm_devcomm_settle(r->d, e));
	NEED(!lk_download(r->dev, host, b[n % 2], sizeof(float) * LEN));
	for (int i = 0; i < LEN; i++) /* back home: a at each step was what its owner began with, which travelled along */
		NEED(host[i] == (float)(n + 1) * devcomm_value(i, r->rank));
	for (int k = 0; k < 2; k++) {
		lk_mem_free(r->dev, a[k]);
		lk_mem_free(r->dev, b[k]);
	}
	free(host);
	return 0;
}

static inline int devcomm_all(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	const struct devcomm_setup *s = arg;
	struct devcomm_rank r;
	int rc = devcomm_open(&r, c, s, e);

	if (rc == 0 && r.size > 1 && strcmp(lwm_devcomm_kind(r.d), s->kind))
		rc = lwm_fail(e, LWM_ENO, "%s became %s", s->device, lwm_devcomm_kind(r.d));
	if (rc == 0)
		rc = devcomm_sums(&r, e);
	if (rc == 0)
		rc = devcomm_gathers(&r, e);
	if (rc == 0)
		rc = devcomm_ring(&r, e);
	if (rc == 0)
		rc = devcomm_begun(&r, e);
	if (rc == 0)
		rc = lwm_comm_barrier(c, e);
	devcomm_close(&r);
	return rc;
}

/* Where `make test` has built the emulated GPU; false: it is not there. */
static inline bool devcomm_emulator(void)
{
	const char *b = getenv("B"), *set = getenv("LWM_CUDA_LIB");
	char path[512];

	snprintf(path, sizeof path, "%s/emu/liblwm_cuda.so", b ? b : "build/rel");
	if (!set && access(path, R_OK) == 0)
		setenv("LWM_CUDA_LIB", path, 1);
	setenv("LWM_EMU_GPUS", "4", 1);
	return getenv("LWM_CUDA_LIB") != NULL;
}

#endif
