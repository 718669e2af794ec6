/* group.c - groups of GPUs: every exchange with 1, 2, 4 ... ranks as far as there are GPUs, each rank a thread with a device
 * of its own. With one GPU that is a group of one, and several of them in one process. */
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/ops_int.h"

enum { MOST = 8, FLOATS = 40003, LOST_SECONDS = 3 };

struct team {
	int size;
	pthread_barrier_t together;
	unsigned char id[2][LK_GROUP_ID];
	int (*work)(struct team *t, int rank, struct lk_dev *dev, char *why, size_t n);
	char why[MOST][320];
	int rc[MOST];
};

struct member {
	struct team *team;
	int rank;
	pthread_t thread;
};

static int wrong(char *why, size_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int wrong(char *why, size_t n, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, n, fmt, ap);
	va_end(ap);
	return 1;
}

/* 0, or 1 with the sentence of the device. */
static int ok(struct lk_dev *dev, int rc, char *why, size_t n)
{
	return rc ? wrong(why, n, "%s", lk_dev_error(dev)) : 0;
}

/* ---- what is tried ---- */

/* Whole numbers, so that every order of adding gives the same. */
static float value(int rank, int64_t i)
{
	return (float)(i % 251 + 3 * rank);
}

static float value_summed(int ranks, int64_t i)
{
	return (float)(ranks * (i % 251) + 3 * (ranks * (ranks - 1) / 2));
}

static int check_sums(struct lk_group *g, struct lk_dev *dev, int rank, int n, float *p, float *host, char *why, size_t len)
{
	int64_t slice = FLOATS / n, all = slice * n;
	float *mine = p + all;

	for (int64_t i = 0; i < all; i++)
		host[i] = value(rank, i);
	if (ok(dev, lk_upload(dev, p, host, (size_t)all * 4), why, len) ||
	    ok(dev, lk_group_reduce_scatter(g, p, mine, all), why, len) || ok(dev, lk_group_sum(g, p, all), why, len) ||
	    ok(dev, lk_download(dev, host, p, (size_t)(all + slice) * 4), why, len))
		return 1;
	for (int64_t i = 0; i < all; i++)
		if (host[i] != value_summed(n, i))
			return wrong(why, len, "sum: element %" PRId64 " is %g", i, (double)host[i]);
	for (int64_t i = 0; i < slice; i++)
		if (host[all + i] != value_summed(n, rank * slice + i))
			return wrong(why, len, "reduce-scatter: element %" PRId64 " is %g", i, (double)host[all + i]);
	return 0;
}

static int check_gather(struct lk_group *g, struct lk_dev *dev, int rank, int n, float *p, float *host, char *why, size_t len)
{
	int64_t slice = FLOATS / n;

	for (int64_t i = 0; i < slice * n; i++)
		host[i] = i / slice == rank ? value(rank, i) : -1.0f;
	if (ok(dev, lk_upload(dev, p, host, (size_t)(slice * n) * 4), why, len) ||
	    ok(dev, lk_group_allgather(g, p + rank * slice, (size_t)slice * 4, p), why, len) || // in its place
	    ok(dev, lk_download(dev, host, p, (size_t)(slice * n) * 4), why, len))
		return 1;
	for (int64_t i = 0; i < slice * n; i++)
		if (host[i] != value((int)(i / slice), i))
			return wrong(why, len, "gather: element %" PRId64 " is %g", i, (double)host[i]);
	return 0;
}

/* Three begun, each on what the one before leaves, joined in another order. What the device writes before each is in it, and what
 * it does after the join finds what arrived: the sum of rank + 1, scattered, gathered, and then doubled by the device. */
static int check_begun(struct lk_group *g, struct lk_dev *dev, int rank, int n, float *p, float *host, char *why, size_t len)
{
	int64_t slice = FLOATS / n, all = slice * n;
	float *mine = p + all;
	int t[3], none = 0;
	struct lk_view x = lk_view1(p, LK_F32, all);

	if (ok(dev, lk_fill(dev, p, all, (float)(rank + 1)), why, len) || ok(dev, lk_group_begin_sum(g, p, all, &t[0]), why, len) ||
	    ok(dev, lk_group_begin_reduce_scatter(g, p, mine, all, &t[1]), why, len) ||
	    ok(dev, lk_group_begin_allgather(g, mine, (size_t)slice * 4, p, &t[2]), why, len) ||
	    ok(dev, lk_group_begin_sum(g, NULL, 0, &none), why, len))
		return 1;
	if (none != -1 || t[0] == t[1] || t[1] == t[2] || t[0] == t[2])
		return wrong(why, len, "tickets %d, %d, %d, and %d for nothing", t[0], t[1], t[2], none);
	if (ok(dev, lk_group_join(g, t[2]), why, len) || ok(dev, lk_scale(dev, &x, 2.0f), why, len) ||
	    ok(dev, lk_group_join(g, t[0]), why, len) || ok(dev, lk_group_join(g, t[1]), why, len) ||
	    ok(dev, lk_group_join(g, none), why, len) || ok(dev, lk_download(dev, host, p, (size_t)all * 4), why, len))
		return 1;
	for (int64_t i = 0; i < all; i++)
		if (host[i] != (float)(n * n * (n + 1)))
			return wrong(why, len, "begun: element %" PRId64 " is %g", i, (double)host[i]);
	return lk_group_join(g, t[0]) == LK_EINVAL ? 0 : wrong(why, len, "a ticket was good twice");
}

/* As many as there are tickets, and one more; then they are all free again. */
static int check_tickets(struct lk_group *g, struct lk_dev *dev, float *p, char *why, size_t len)
{
	int t[LK_GROUP_BEGUN + 1];

	for (int k = 0; k < 2; k++) {
		for (int i = 0; i < LK_GROUP_BEGUN; i++)
			if (ok(dev, lk_group_begin_sum(g, p, 1, &t[i]), why, len))
				return 1;
		if (lk_group_begin_sum(g, p, 1, &t[LK_GROUP_BEGUN]) != LK_EINVAL)
			return wrong(why, len, "more exchanges were begun than there are tickets");
		for (int i = 0; i < LK_GROUP_BEGUN; i++)
			if (ok(dev, lk_group_join(g, t[i]), why, len))
				return 1;
	}
	return 0;
}

/* A block goes once round while the device works on it: after hop k rank r holds what r - k began with, each rank that had
 * it before having added 1 to what it sent on. Buffers are written again as soon as an exchange was finished. */
static int check_ring(struct lk_group *g, struct lk_dev *dev, int rank, int n, float *p, float *host, char *why, size_t len)
{
	enum { BLOCK = 10001 };
	float *buf[2] = { p, p + BLOCK }, *ones = p + 2 * BLOCK;
	struct lk_view one = lk_view1(ones, LK_F32, BLOCK);

	for (int i = 0; i < BLOCK; i++)
		host[i] = value(rank, i);
	if (ok(dev, lk_upload(dev, buf[0], host, sizeof(float) * BLOCK), why, len) ||
	    ok(dev, lk_fill(dev, ones, BLOCK, 1.0f), why, len))
		return 1;
	for (int hop = 1; hop <= 2 * n; hop++) {
		float *out = buf[(hop - 1) % 2], *in = buf[hop % 2];
		struct lk_view y = lk_view1(in, LK_F32, BLOCK);

		if (ok(dev, lk_group_start(g, (rank + 1) % n, out, sizeof(float) * BLOCK, (rank + n - 1) % n, in,
					   sizeof(float) * BLOCK), why, len) ||
		    ok(dev, lk_scale(dev, &one, 1.0f), why, len) || ok(dev, lk_group_finish(g), why, len) ||
		    ok(dev, lk_zero(dev, out, sizeof(float) * BLOCK), why, len) ||
		    ok(dev, lk_axpy(dev, &y, 1.0f, &one), why, len))
			return 1;
	}
	if (ok(dev, lk_group_settle(g), why, len) || ok(dev, lk_download(dev, host, buf[0], sizeof(float) * BLOCK), why, len))
		return 1;
	for (int i = 0; i < BLOCK; i++)
		if (host[i] != value(rank, i) + (float)(2 * n))
			return wrong(why, len, "ring: element %d is %g", i, (double)host[i]);
	return 0;
}

/* One way only, several in flight: rank 0 sends to the last. */
static int check_one_way(struct lk_group *g, struct lk_dev *dev, int rank, int n, float *p, float *host, char *why, size_t len)
{
	int begin = rank == 0 || rank == n - 1;

	for (int i = 0; i < 64; i++)
		host[i] = value(rank, i);
	if (ok(dev, lk_upload(dev, p, host, 256), why, len))
		return 1;
	for (int k = 0; k < 3 && begin; k++)
		if (ok(dev, lk_group_start(g, n - 1, p + 16 * k, rank == 0 ? 64 : 0, 0, p + 128 + 16 * k,
					   rank == n - 1 ? 64 : 0), why, len))
			return 1;
	for (int k = 0; k < 3 && begin; k++)
		if (ok(dev, lk_group_finish(g), why, len))
			return 1;
	if (ok(dev, lk_group_settle(g), why, len) || ok(dev, lk_download(dev, host, p + 128, 256), why, len))
		return 1;
	for (int i = 0; i < 48 && rank == n - 1; i++)
		if (host[i] != value(0, i))
			return wrong(why, len, "one way: element %d is %g", i, (double)host[i]);
	return 0;
}

static int check_refusals(struct lk_group *g, int n, char *why, size_t len)
{
	float x = 0;
	char byte = 0;

	if (lk_group_sum(g, NULL, 4) != LK_EINVAL || lk_group_sum(g, &x, -1) != LK_EINVAL ||
	    lk_group_finish(g) != LK_EINVAL || lk_group_start(g, n, &byte, 1, 0, NULL, 0) != LK_EINVAL ||
	    lk_group_start(g, 0, NULL, 0, -1, &byte, 1) != LK_EINVAL || lk_group_allgather(g, &byte, 1, NULL) != LK_EINVAL ||
	    (n > 1 && lk_group_reduce_scatter(g, &x, &x, n + 1) != LK_EINVAL))
		return wrong(why, len, "a wrong call was accepted");
	return 0;
}

/* Two groups of the same ranks on the same devices, one after the other and in turns. */
static int exchanges(struct team *t, int rank, struct lk_dev *dev, char *why, size_t len)
{
	struct lk_group *g[2] = { NULL, NULL };
	float *host = malloc(sizeof(float) * 2 * FLOATS);
	void *p = NULL;
	int n = t->size, bad = !host || ok(dev, lk_mem_alloc(dev, sizeof(float) * 2 * FLOATS, &p), why, len);

	for (int k = 0; k < 2 && !bad; k++)
		bad = ok(dev, lk_group_new(dev, &g[k], t->id[k], rank, n, 60), why, len);
	for (int k = 0; k < 4 && !bad; k++)
		bad = check_sums(g[k % 2], dev, rank, n, p, host, why, len) ||
		      check_gather(g[k % 2], dev, rank, n, p, host, why, len) ||
		      check_begun(g[k % 2], dev, rank, n, p, host, why, len) || check_tickets(g[k % 2], dev, p, why, len) ||
		      check_ring(g[k % 2], dev, rank, n, p, host, why, len) ||
		      check_one_way(g[k % 2], dev, rank, n, p, host, why, len) || check_refusals(g[k % 2], n, why, len);
	lk_group_free(g[0]);
	lk_group_free(g[1]);
	lk_mem_free(dev, p);
	free(host);
	return bad;
}

/* Sums of numbers that are no whole ones: twice the same bits. */
static int same_bits_twice(struct team *t, int rank, struct lk_dev *dev, char *why, size_t len)
{
	struct lk_group *g = NULL;
	float *host = malloc(sizeof(float) * 3 * FLOATS);
	void *p = NULL;
	int bad = !host || ok(dev, lk_mem_alloc(dev, sizeof(float) * FLOATS, &p), why, len) ||
		  ok(dev, lk_group_new(dev, &g, t->id[0], rank, t->size, 60), why, len);

	for (int i = 0; i < FLOATS && !bad; i++)
		host[i] = 1.0f / (float)(1 + (i * 7 + rank * 13) % 1009);
	for (int k = 1; k < 3 && !bad; k++)
		bad = ok(dev, lk_upload(dev, p, host, sizeof(float) * FLOATS), why, len) ||
		      ok(dev, lk_group_sum(g, p, FLOATS), why, len) ||
		      ok(dev, lk_download(dev, host + k * FLOATS, p, sizeof(float) * FLOATS), why, len);
	if (!bad && memcmp(host + FLOATS, host + 2 * FLOATS, sizeof(float) * FLOATS))
		bad = wrong(why, len, "a second sum gave other bits");
	lk_group_free(g);
	lk_mem_free(dev, p);
	free(host);
	return bad;
}

/* The last rank does not come to the sum: the others hear of it within their patience, and again afterwards. */
static int lost_rank(struct team *t, int rank, struct lk_dev *dev, char *why, size_t len)
{
	struct lk_group *g = NULL;
	void *p = NULL;
	int bad = ok(dev, lk_mem_alloc(dev, 4096, &p), why, len) ||
		  ok(dev, lk_group_new(dev, &g, t->id[0], rank, t->size, LOST_SECONDS), why, len);

	if (!bad && rank < t->size - 1) {
		if (lk_group_sum(g, p, 1024) || lk_group_settle(g) != LK_EDEVICE || strlen(lk_dev_error(dev)) < 20)
			bad = wrong(why, len, "a rank was lost, and the others did not hear of it: %s", lk_dev_error(dev));
		else if (lk_group_sum(g, p, 1024) != LK_EDEVICE)
			bad = wrong(why, len, "a group that failed was of use again");
	}
	pthread_barrier_wait(&t->together);
	lk_group_free(g);
	lk_mem_free(dev, p);
	return bad;
}

/* ---- ranks ---- */

static void *member_main(void *arg)
{
	struct member *m = arg;
	struct team *t = m->team;
	struct lk_dev *dev = NULL;
	char spec[24], *why = t->why[m->rank];
	size_t n = sizeof t->why[0];
	int ready = 1;

	snprintf(spec, sizeof spec, "cuda:%d", m->rank);
	t->rc[m->rank] = lk_dev_open(&dev, spec, 0, why, n) ? 1 : 0;
	for (int k = 0; k < 2 && m->rank == 0 && !t->rc[0]; k++)
		t->rc[0] = ok(dev, lk_group_id(dev, t->id[k]), why, n);
	pthread_barrier_wait(&t->together);
	for (int i = 0; i < t->size; i++) // one that cannot begin: none begins
		ready = ready && !t->rc[i];
	pthread_barrier_wait(&t->together);
	if (ready)
		t->rc[m->rank] = t->work(t, m->rank, dev, why, n);
	lk_dev_close(dev);
	return NULL;
}

/* 0, or 1 with the sentence of a rank. */
static int run_team(int size, int (*work)(struct team *, int, struct lk_dev *, char *, size_t), char *why, size_t n)
{
	struct team *t = calloc(1, sizeof *t);
	struct member m[MOST];
	int bad = 0;

	if (!t)
		return wrong(why, n, "out of memory");
	t->size = size;
	t->work = work;
	pthread_barrier_init(&t->together, NULL, (unsigned)size);
	for (int i = 0; i < size; i++) {
		m[i] = (struct member){ .team = t, .rank = i };
		if (pthread_create(&m[i].thread, NULL, member_main, &m[i])) {
			fprintf(stderr, "lwm-kernel-ops: cannot start a thread\n"); // those before it wait for it
			exit(71);
		}
	}
	for (int i = 0; i < size; i++)
		pthread_join(m[i].thread, NULL);
	for (int i = 0; i < size && !bad; i++)
		if (t->rc[i])
			bad = wrong(why, n, "rank %d of %d: %s", i, size, t->why[i]);
	pthread_barrier_destroy(&t->together);
	free(t);
	return bad;
}

void ops_groups(struct ops_tally *tally, int verbose)
{
	static const struct {
		const char *name;
		int (*work)(struct team *, int, struct lk_dev *, char *, size_t);
		int least;
	} cases[] = { { "exchanges", exchanges, 1 }, { "same bits twice", same_bits_twice, 1 }, { "a lost rank", lost_rank, 2 } };
	unsigned char place[LK_GROUP_PLACE];
	struct lk_dev *dev = NULL;
	char why[400] = "";
	int gpus = lk_dev_count("cuda", why, sizeof why);

	if (gpus < 1 || lk_dev_open(&dev, "cuda:0", 0, why, sizeof why) || ok(dev, lk_group_place(dev, place), why, sizeof why)) {
		printf("skip groups of GPUs: %s\n", why);
		tally->skipped++;
		lk_dev_close(dev);
		return;
	}
	lk_dev_close(dev);
	setenv("LWM_EMU_NCCL_SECONDS", "2", 0); // of the emulator alone
	for (int size = 1; size <= gpus && size <= MOST; size *= 2)
		for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
			if (size < cases[i].least)
				continue;
			if (run_team(size, cases[i].work, why, sizeof why)) {
				tally->failed++;
				printf("FAIL groups/%s, %d ranks: %s\n", cases[i].name, size, why);
			} else {
				tally->passed++;
				if (verbose)
					printf("ok   groups/%s, %d ranks\n", cases[i].name, size);
			}
		}
}
