/* dispatch_group.c - group.h: checks the arguments and calls the backend; a new group is tried before it is handed out. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"

static int refuse_group(struct lk_dev *dev)
{
	return lk_fail(dev, LK_EUNSUP, "%.96s: devices of this kind form no groups", dev->name);
}

int lk_group_place(struct lk_dev *dev, unsigned char place[LK_GROUP_PLACE])
{
	memset(place, 0, LK_GROUP_PLACE);
	return dev->ops.group.group_place ? dev->ops.group.group_place(dev, place) : refuse_group(dev);
}

int lk_group_id(struct lk_dev *dev, unsigned char id[LK_GROUP_ID])
{
	memset(id, 0, LK_GROUP_ID);
	return dev->ops.group.group_id ? dev->ops.group.group_id(dev, id) : refuse_group(dev);
}

/* ---- does it work? ---- */

/* Each rank gives rank + 1 to every sum: the results are known. p: device memory of 3 * size + 3 floats. */
static int exchange_ranks(struct lk_group *g, float *p)
{
	int n = g->size, rc;
	float *in = p, *sum = p + n, *slice = sum + 1, *all = slice + 1, *from = all + n;

	rc = lk_group_reduce_scatter(g, in, slice, n);
	rc = rc ? rc : lk_group_sum(g, sum, 1);
	rc = rc ? rc : lk_group_allgather(g, in, sizeof *in, all);
	rc = rc ? rc : lk_group_start(g, (g->rank + 1) % n, in, sizeof *in, (g->rank + n - 1) % n, from, sizeof *from);
	rc = rc ? rc : lk_group_finish(g);
	return rc ? rc : lk_group_settle(g);
}

static int numbers_arrived(const struct lk_group *g, const float *p)
{
	int n = g->size, ok = 1;
	float sum = (float)n * (float)(n + 1) / 2;

	ok = p[n] == sum && p[n + 1] == sum && p[2 * n + 2] == (float)((g->rank + n - 1) % n + 1);
	for (int r = 0; r < n; r++)
		ok = ok && p[n + 2 + r] == (float)(r + 1);
	return ok;
}

static int try_group(struct lk_group *g)
{
	size_t bytes = (size_t)(2 * g->size + 3) * sizeof(float);
	float *host = calloc(1, bytes);
	void *p = NULL;
	int rc;

	if (!host)
		return lk_fail(g->dev, LK_ENOMEM, "group_new: out of memory");
	for (int i = 0; i <= g->size; i++)
		host[i] = (float)(g->rank + 1);
	rc = lk_mem_alloc(g->dev, bytes, &p);
	rc = rc ? rc : lk_upload(g->dev, p, host, bytes);
	rc = rc ? rc : exchange_ranks(g, p);
	rc = rc ? rc : lk_download(g->dev, host, p, bytes);
	if (!rc && !numbers_arrived(g, host))
		rc = lk_fail(g->dev, LK_EDEVICE, "group_new: %d ranks exchanged their numbers and rank %d got wrong ones",
			     g->size, g->rank);
	lk_mem_free(g->dev, p);
	free(host);
	return rc;
}

int lk_group_new(struct lk_dev *dev, struct lk_group **out, const unsigned char id[LK_GROUP_ID], int rank, int size,
		 double seconds)
{
	struct lk_check c = { dev, "group_new", 0 };
	struct lk_group *g;
	int rc;

	*out = NULL;
	if (!dev->ops.group.group_new)
		return refuse_group(dev);
	LK_WANT(&c, size > 0 && rank >= 0 && rank < size, "rank %d of %d", rank, size);
	LK_WANT(&c, seconds > 0, "no time to wait: %g s", seconds);
	if (c.rc)
		return c.rc;
	g = calloc(1, sizeof *g);
	if (!g)
		return lk_fail(dev, LK_ENOMEM, "group_new: out of memory");
	*g = (struct lk_group){ .dev = dev, .rank = rank, .size = size, .seconds = seconds };
	rc = dev->ops.group.group_new(dev, g, id);
	if (!rc)
		rc = try_group(g);
	if (rc)
		lk_group_free(g);
	else
		*out = g;
	return rc;
}

void lk_group_free(struct lk_group *g)
{
	if (g && g->impl)
		g->dev->ops.group.group_free(g);
	free(g);
}

/* ---- exchanges ---- */

/* Marks of the group's queue: one for each exchange begun, and one more for those that are joined at once. */
enum { AT_ONCE = LK_GROUP_BEGUN };

/* After an exchange was queued, or was not (rc): later work on the device waits for it. */
static int join_now(struct lk_group *g, int rc)
{
	rc = rc ? rc : g->dev->ops.group.group_mark(g, AT_ONCE);
	return rc ? rc : g->dev->ops.group.group_join(g, AT_ONCE);
}

/* The same; later work waits for it from lk_group_join on. The ticket is taken before the exchange is queued. */
static int take_ticket(struct lk_group *g, const char *op, int *ticket)
{
	for (int i = 0; i < LK_GROUP_BEGUN; i++)
		if (!(g->begun >> i & 1)) {
			g->begun |= (uint64_t)1 << i;
			*ticket = i;
			return 0;
		}
	return lk_fail(g->dev, LK_EINVAL, "%s: more than %d exchanges begun", op, LK_GROUP_BEGUN);
}

static int mark_ticket(struct lk_group *g, int rc, int *ticket)
{
	rc = rc ? rc : g->dev->ops.group.group_mark(g, *ticket);
	if (rc) {
		g->begun &= ~((uint64_t)1 << *ticket);
		*ticket = -1;
	}
	return rc;
}

static int check_sum(struct lk_group *g, const char *op, const float *p, int64_t n)
{
	struct lk_check c = { g->dev, op, 0 };

	LK_WANT(&c, n >= 0, "%" PRId64 " values", n);
	lk_check_ptr(&c, "p", p, n);
	return c.rc;
}

static int check_reduce_scatter(struct lk_group *g, const char *op, const float *in, const float *mine, int64_t n)
{
	struct lk_check c = { g->dev, op, 0 };

	LK_WANT(&c, n >= 0 && n % g->size == 0, "%" PRId64 " values do not divide among %d ranks", n, g->size);
	lk_check_ptr(&c, "in", in, n);
	lk_check_ptr(&c, "mine", mine, n);
	return c.rc;
}

static int check_allgather(struct lk_group *g, const char *op, const void *mine, size_t bytes, const void *all)
{
	struct lk_check c = { g->dev, op, 0 };

	lk_check_ptr(&c, "mine", mine, bytes > 0);
	lk_check_ptr(&c, "all", all, bytes > 0);
	return c.rc;
}

int lk_group_sum(struct lk_group *g, float *p, int64_t n)
{
	int rc = check_sum(g, "group_sum", p, n);

	return rc || !n ? rc : join_now(g, g->dev->ops.group.group_sum(g, p, n));
}

int lk_group_reduce_scatter(struct lk_group *g, const float *in, float *mine, int64_t n)
{
	int rc = check_reduce_scatter(g, "group_reduce_scatter", in, mine, n);

	return rc || !n ? rc : join_now(g, g->dev->ops.group.group_reduce_scatter(g, in, mine, n / g->size));
}

int lk_group_allgather(struct lk_group *g, const void *mine, size_t bytes, void *all)
{
	int rc = check_allgather(g, "group_allgather", mine, bytes, all);

	return rc || !bytes ? rc : join_now(g, g->dev->ops.group.group_allgather(g, mine, bytes, all));
}

int lk_group_begin_sum(struct lk_group *g, float *p, int64_t n, int *ticket)
{
	int rc = check_sum(g, "group_begin_sum", p, n);

	*ticket = -1;
	if (rc || !n)
		return rc;
	rc = take_ticket(g, "group_begin_sum", ticket);
	return rc ? rc : mark_ticket(g, g->dev->ops.group.group_sum(g, p, n), ticket);
}

int lk_group_begin_reduce_scatter(struct lk_group *g, const float *in, float *mine, int64_t n, int *ticket)
{
	int rc = check_reduce_scatter(g, "group_begin_reduce_scatter", in, mine, n);

	*ticket = -1;
	if (rc || !n)
		return rc;
	rc = take_ticket(g, "group_begin_reduce_scatter", ticket);
	return rc ? rc : mark_ticket(g, g->dev->ops.group.group_reduce_scatter(g, in, mine, n / g->size), ticket);
}

int lk_group_begin_allgather(struct lk_group *g, const void *mine, size_t bytes, void *all, int *ticket)
{
	int rc = check_allgather(g, "group_begin_allgather", mine, bytes, all);

	*ticket = -1;
	if (rc || !bytes)
		return rc;
	rc = take_ticket(g, "group_begin_allgather", ticket);
	return rc ? rc : mark_ticket(g, g->dev->ops.group.group_allgather(g, mine, bytes, all), ticket);
}

int lk_group_join(struct lk_group *g, int ticket)
{
	if (ticket == -1)
		return 0;
	if (ticket < 0 || ticket >= LK_GROUP_BEGUN || !(g->begun >> ticket & 1))
		return lk_fail(g->dev, LK_EINVAL, "group_join: %d is no exchange begun", ticket);
	g->begun &= ~((uint64_t)1 << ticket);
	return g->dev->ops.group.group_join(g, ticket);
}

int lk_group_start(struct lk_group *g, int to, const void *send, size_t send_bytes, int from, void *recv, size_t recv_bytes)
{
	struct lk_check c = { g->dev, "group_start", 0 };
	int rc;

	LK_WANT(&c, !send_bytes || (to >= 0 && to < g->size), "to rank %d of %d", to, g->size);
	LK_WANT(&c, !recv_bytes || (from >= 0 && from < g->size), "from rank %d of %d", from, g->size);
	LK_WANT(&c, g->inflight < LK_GROUP_INFLIGHT, "more than %d exchanges in flight", LK_GROUP_INFLIGHT);
	lk_check_ptr(&c, "send", send, send_bytes > 0);
	lk_check_ptr(&c, "recv", recv, recv_bytes > 0);
	if (c.rc)
		return c.rc;
	rc = g->dev->ops.group.group_start(g, to, send, send_bytes, from, recv, recv_bytes);
	g->inflight += !rc;
	return rc;
}

int lk_group_finish(struct lk_group *g)
{
	struct lk_check c = { g->dev, "group_finish", 0 };

	LK_WANT(&c, g->inflight > 0, "no exchange is in flight");
	if (c.rc)
		return c.rc;
	g->inflight--;
	return g->dev->ops.group.group_finish(g);
}

int lk_group_settle(struct lk_group *g)
{
	return g->dev->ops.group.group_settle(g);
}
