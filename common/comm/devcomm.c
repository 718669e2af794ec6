/* Collectives on device memory: first all ranks agree which body carries them, then each call goes to that body. Staged copies go
 * in pieces, so that pinned memory stays small; sums of pieces are the same as sums of the whole, since every element is summed
 * in rank order. */
#include "common/comm/devcomm.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/comm/device.h"
#include "common/comm/watchdog.h"

enum { FLIGHTS = 8, PIECE = 16 << 20 };
enum kind { HOST, STAGED, NCCL };
static const char *const kinds[] = { "host", "staged", "nccl" };

/* How long ranks wait for each other at a group's beginning and when it settles: longer than any of them may be busy with a
 * checkpoint or an evaluation of its own. */
static const double patience = 1800;

struct pinned {
	void *p;
	size_t bytes;
};

/* An exchange under way in the staged body. */
struct flight {
	struct pinned out, in;
	void *recv;
	size_t recv_bytes;
	int rc; /* what went wrong at the start, of this rank alone */
	bool busy;
};

/* A collective begun and not waited for. */
struct lwm_devcomm_op {
	bool busy;
	struct lwm_comm_op *op;  /* of host and staged */
	int ticket;              /* of nccl */
	struct pinned down, up;  /* of staged: what is sent, what arrives */
	void *result;            /* device memory, so many bytes from where */
	const void *from;
	size_t bytes;
	int rc; /* what went wrong at the beginning, of this rank alone */
	struct lwm_err e;
};

struct lwm_devcomm {
	struct lk_dev *dev;
	struct lwm_comm *comm;
	enum kind kind;
	struct lk_group *group;
	struct pinned down, up;
	struct flight flight[FLIGHTS];
	int queue[FLIGHTS]; /* flights in the order of their start */
	unsigned first, last;
	struct lwm_devcomm_op op[LWM_COMM_BEGUN];
};

/* The same of a group's calls: after a failure nobody can use the group any more. */
static int group_failed(struct lwm_devcomm *d, int status, struct lwm_err *e)
{
	if (status == LK_EINVAL || status == LK_ENOMEM)
		return lwm_dev_check(d->dev, status, e);
	return status ? lwm_fail(e, LWM_ERANK, "%s: %s", lk_dev_name(d->dev), lk_dev_error(d->dev)) : 0;
}

/* What NCCL sends the communicator does not see: so many bytes to each of the others (comm.h, lwm_comm_sent). */
static void count_each(struct lwm_devcomm *d, uint64_t bytes)
{
	lwm_comm_add_sent(d->comm, (uint64_t)(lwm_comm_size(d->comm) - 1) * bytes);
}

static uint64_t sum_bytes(const struct lwm_devcomm *d, int64_t n)
{
	int size = lwm_comm_size(d->comm);

	return 2 * sizeof(float) * (uint64_t)((n + size - 1) / size);
}

/* ---- which body ---- */

struct offer {
	int32_t dtype, host, groups;
	unsigned char place[LK_GROUP_PLACE];
};

static bool shares_gpu(const struct offer *all, int n)
{
	for (int a = 0; a < n; a++)
		for (int b = a + 1; b < n; b++)
			if (!memcmp(all[a].place, all[b].place, LK_GROUP_PLACE))
				return true;
	return false;
}

/* Why it cannot be nccl, as this rank sees it. */
static const char *name_obstacle(const struct lwm_devcomm *d, const struct offer *all, bool everyone_could)
{
	if (everyone_could)
		return "ranks share a GPU";
	return all[lwm_comm_rank(d->comm)].groups ? "another rank cannot use NCCL" : lk_dev_error(d->dev);
}

/* The same on every rank: it follows from all offers, and from rank 0's wish. */
static int choose_body(struct lwm_devcomm *d, const struct offer *all, int wish, struct lwm_err *e)
{
	int n = lwm_comm_size(d->comm), host = 0, groups = 0;

	for (int r = 0; r < n; r++) {
		host += all[r].host;
		groups += all[r].groups;
		if (all[r].dtype != all[0].dtype)
			return lwm_fail(e, LWM_ECONFIG, "rank %d computes on another kind of device than rank 0; name one with "
					"--device", r);
	}
	d->kind = host == n ? HOST : STAGED;
	if (d->kind == HOST || wish == 0)
		return 0;
	if (groups == n && !shares_gpu(all, n)) {
		d->kind = NCCL;
		return 0;
	}
	if (wish == 1)
		return lwm_fail(e, LWM_EUNAVAIL, "LWM_NCCL=1, but %s", name_obstacle(d, all, groups == n));
	if (lwm_comm_rank(d->comm) == 0)
		lwm_log(LWM_WARN, "ranks exchange through host memory, which is slow: %s", name_obstacle(d, all, groups == n));
	return 0;
}

/* LWM_NCCL: 0, 1, or -1 for whatever is there. */
static int32_t nccl_wish(void)
{
	const char *s = getenv("LWM_NCCL");

	return s && !strcmp(s, "0") ? 0 : s && !strcmp(s, "1") ? 1 : -1;
}

static int choose_together(struct lwm_devcomm *d, struct lwm_err *e)
{
	struct offer mine = { .dtype = lk_dev_dtype(d->dev), .host = lk_dev_is_host(d->dev) }, *all;
	int32_t wish = nccl_wish();
	int rc = 0;

	mine.groups = !mine.host && lk_group_place(d->dev, mine.place) == 0;
	all = malloc((size_t)lwm_comm_size(d->comm) * sizeof *all);
	if (!all)
		rc = lwm_fail(e, LWM_EMEMORY, "out of memory for a group of ranks");
	rc = lwm_agree(d->comm, rc, e);
	if (rc == 0)
		rc = lwm_comm_allgather(d->comm, &mine, sizeof mine, all, e);
	if (rc == 0)
		rc = lwm_comm_bcast(d->comm, &wish, sizeof wish, 0, e);
	if (rc == 0)
		rc = lwm_agree(d->comm, choose_body(d, all, wish, e), e);
	free(all);
	return rc;
}

static int begin_group(struct lwm_devcomm *d, struct lwm_err *e)
{
	unsigned char id[LK_GROUP_ID] = { 0 };
	int rank = lwm_comm_rank(d->comm), rc = 0;

	if (rank == 0)
		rc = lwm_dev_check(d->dev, lk_group_id(d->dev, id), e);
	LWM_TRY(lwm_agree(d->comm, rc, e));
	LWM_TRY(lwm_comm_bcast(d->comm, id, sizeof id, 0, e));
	rc = lwm_dev_check(d->dev, lk_group_new(d->dev, &d->group, id, rank, lwm_comm_size(d->comm), patience), e);
	return lwm_agree(d->comm, rc, e);
}

int lwm_devcomm_new(struct lwm_devcomm **out, struct lk_dev *dev, struct lwm_comm *comm, struct lwm_err *e)
{
	struct lwm_devcomm *d = calloc(1, sizeof *d);
	int rc = d ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for a group of ranks");

	*out = NULL;
	LWM_GO(lwm_agree(comm, rc, e));
	d->dev = dev;
	d->comm = comm;
	d->kind = lk_dev_is_host(dev) ? HOST : STAGED;
	if (lwm_comm_size(comm) > 1)
		LWM_GO(choose_together(d, e));
	if (d->kind == NCCL)
		LWM_GO(begin_group(d, e));
	*out = d;
out:
	if (rc < 0)
		lwm_devcomm_free(d);
	return rc;
}

void lwm_devcomm_free(struct lwm_devcomm *d)
{
	if (!d)
		return;
	lk_group_free(d->group);
	if (d->dev) {
		lk_host_free(d->dev, d->down.p);
		lk_host_free(d->dev, d->up.p);
	}
	for (int i = 0; i < FLIGHTS && d->dev; i++) {
		lk_host_free(d->dev, d->flight[i].out.p);
		lk_host_free(d->dev, d->flight[i].in.p);
	}
	for (int i = 0; i < LWM_COMM_BEGUN && d->dev; i++) {
		lk_host_free(d->dev, d->op[i].down.p);
		lk_host_free(d->dev, d->op[i].up.p);
	}
	free(d);
}

struct lwm_comm *lwm_devcomm_comm(const struct lwm_devcomm *d)
{
	return d->comm;
}

const char *lwm_devcomm_kind(const struct lwm_devcomm *d)
{
	return kinds[d->kind];
}

/* ---- staged ---- */

static int reserve_pinned(struct lwm_devcomm *d, struct pinned *b, size_t bytes, struct lwm_err *e)
{
	if (bytes <= b->bytes)
		return 0;
	lk_host_free(d->dev, b->p);
	b->p = NULL;
	b->bytes = 0;
	LWM_TRY(lwm_dev_check(d->dev, lk_host_alloc(d->dev, bytes, &b->p), e));
	b->bytes = bytes;
	return 0;
}

static int staged_sum(struct lwm_devcomm *d, float *p, int64_t n, struct lwm_err *e)
{
	const int64_t most = PIECE / 4;

	LWM_TRY(reserve_pinned(d, &d->down, (size_t)(n < most ? n : most) * 4, e));
	for (int64_t i = 0; i < n; i += most) {
		int64_t k = n - i < most ? n - i : most;

		LWM_TRY(lwm_dev_check(d->dev, lk_download(d->dev, d->down.p, p + i, (size_t)k * 4), e));
		LWM_TRY(lwm_comm_sum_f32(d->comm, d->down.p, k, e));
		LWM_TRY(lwm_dev_check(d->dev, lk_upload(d->dev, p + i, d->down.p, (size_t)k * 4), e));
	}
	return 0;
}

/* The same part of every rank's slice at a time. */
static int staged_scatter(struct lwm_devcomm *d, const float *in, float *mine, int64_t n, struct lwm_err *e)
{
	int size = lwm_comm_size(d->comm);
	int64_t slice = n / size, most = PIECE / 4 / size > 0 ? PIECE / 4 / size : 1;

	most = slice < most ? slice : most;
	LWM_TRY(reserve_pinned(d, &d->down, (size_t)(most * size) * 4, e));
	LWM_TRY(reserve_pinned(d, &d->up, (size_t)most * 4, e));
	for (int64_t i = 0; i < slice; i += most) {
		int64_t k = slice - i < most ? slice - i : most;
		float *part = d->down.p;

		for (int r = 0; r < size; r++)
			LWM_TRY(lwm_dev_check(d->dev, lk_download(d->dev, part + r * k, in + r * slice + i, (size_t)k * 4), e));
		LWM_TRY(lwm_comm_reduce_scatter_f32(d->comm, part, d->up.p, k * size, e));
		LWM_TRY(lwm_dev_check(d->dev, lk_upload(d->dev, mine + i, d->up.p, (size_t)k * 4), e));
	}
	return 0;
}

static int staged_gather(struct lwm_devcomm *d, const char *mine, size_t bytes, char *all, struct lwm_err *e)
{
	size_t size = (size_t)lwm_comm_size(d->comm), most = PIECE / size > 0 ? PIECE / size : 1;

	most = bytes < most ? bytes : most;
	LWM_TRY(reserve_pinned(d, &d->down, most, e));
	LWM_TRY(reserve_pinned(d, &d->up, most * size, e));
	for (size_t i = 0; i < bytes; i += most) {
		size_t k = bytes - i < most ? bytes - i : most;
		char *part = d->up.p;

		LWM_TRY(lwm_dev_check(d->dev, lk_download(d->dev, d->down.p, mine + i, k), e));
		LWM_TRY(lwm_comm_allgather(d->comm, d->down.p, k, part, e));
		for (size_t r = 0; r < size; r++)
			LWM_TRY(lwm_dev_check(d->dev, lk_upload(d->dev, all + r * bytes + i, part + r * k, k), e));
	}
	return 0;
}

/* A place with enough pinned memory, if there is one. */
static struct lwm_devcomm_op *take_op(struct lwm_devcomm *d, size_t down, size_t up)
{
	struct lwm_devcomm_op *found = NULL;

	for (int i = LWM_COMM_BEGUN - 1; i >= 0; i--)
		if (!d->op[i].busy && (!found || found->down.bytes < down || found->up.bytes < up))
			found = &d->op[i];
	if (found)
		*found = (struct lwm_devcomm_op){ .busy = true, .ticket = -1, .down = found->down, .up = found->up };
	return found;
}

/* As of an exchange: without memory this rank is lost to the others; one that cannot copy takes part all the same. */
static int stage_op(struct lwm_devcomm *d, struct lwm_devcomm_op *o, const void *src, size_t down, size_t up, struct lwm_err *e)
{
	int rc = reserve_pinned(d, &o->down, down, e);

	if (rc == 0)
		rc = reserve_pinned(d, &o->up, up, e);
	if (rc < 0) {
		if (e)
			e->who = LWM_ERR_ALONE;
		return -LWM_ERANK;
	}
	o->rc = lwm_dev_check(d->dev, lk_download(d->dev, o->down.p, src, down), &o->e);
	return 0;
}

static struct flight *take_flight(struct lwm_devcomm *d)
{
	for (int i = 0; i < FLIGHTS; i++) {
		if (d->flight[i].busy)
			continue;
		d->queue[d->last++ % FLIGHTS] = i;
		d->flight[i].busy = true;
		return &d->flight[i];
	}
	return NULL;
}

/* A rank that cannot copy takes part all the same: nobody is left waiting. Memory is another matter: without it nothing can
 * be received. */
static int staged_start(struct lwm_devcomm *d, int to, const void *send, size_t send_bytes, int from, void *recv,
			size_t recv_bytes, struct lwm_err *e)
{
	struct flight *f = take_flight(d);

	if (!f)
		return lwm_fail(e, LWM_EINTERNAL, "more than %d exchanges in flight", FLIGHTS);
	f->recv = recv;
	f->recv_bytes = recv_bytes;
	f->rc = reserve_pinned(d, &f->out, send_bytes, e);
	if (f->rc == 0)
		f->rc = reserve_pinned(d, &f->in, recv_bytes, e);
	if (f->rc < 0) {
		if (e)
			e->who = LWM_ERR_ALONE;
		return -LWM_ERANK;
	}
	if (send_bytes)
		f->rc = lwm_dev_check(d->dev, lk_download(d->dev, f->out.p, send, send_bytes), e);
	LWM_TRY(lwm_comm_start(d->comm, to, f->out.p, send_bytes, from, f->in.p, recv_bytes, e));
	return f->rc;
}

static int staged_finish(struct lwm_devcomm *d, struct lwm_err *e)
{
	struct flight *f;

	if (d->first == d->last)
		return lwm_fail(e, LWM_EINTERNAL, "no exchange in flight");
	f = &d->flight[d->queue[d->first++ % FLIGHTS]];
	f->busy = false;
	LWM_TRY(lwm_comm_finish(d->comm, e));
	if (f->recv_bytes && f->rc == 0)
		return lwm_dev_check(d->dev, lk_upload(d->dev, f->recv, f->in.p, f->recv_bytes), e);
	return f->rc;
}

/* ---- all bodies ---- */

static int alone_copy(struct lwm_devcomm *d, void *dst, const void *src, size_t bytes, struct lwm_err *e)
{
	return dst == src ? 0 : lwm_dev_check(d->dev, lk_copy(d->dev, dst, src, bytes), e);
}

int lwm_devcomm_sum_f32(struct lwm_devcomm *d, float *p, int64_t n, struct lwm_err *e)
{
	if (lwm_comm_size(d->comm) == 1)
		return 0;
	switch (d->kind) {
	case NCCL:
		count_each(d, sum_bytes(d, n));
		return group_failed(d, lk_group_sum(d->group, p, n), e);
	case STAGED: return staged_sum(d, p, n, e);
	default: return lwm_comm_sum_f32(d->comm, p, n, e);
	}
}

int lwm_devcomm_reduce_scatter_f32(struct lwm_devcomm *d, const float *in, float *mine, int64_t n, struct lwm_err *e)
{
	int size = lwm_comm_size(d->comm);

	if (n % size)
		return lwm_fail(e, LWM_EINTERNAL, "reduce-scatter of %" PRId64 " values over %d ranks", n, size);
	if (size == 1)
		return alone_copy(d, mine, in, (size_t)n * sizeof *in, e);
	switch (d->kind) {
	case NCCL:
		count_each(d, (uint64_t)(n / size) * sizeof *in);
		return group_failed(d, lk_group_reduce_scatter(d->group, in, mine, n), e);
	case STAGED: return staged_scatter(d, in, mine, n, e);
	default: return lwm_comm_reduce_scatter_f32(d->comm, in, mine, n, e);
	}
}

int lwm_devcomm_allgather(struct lwm_devcomm *d, const void *mine, size_t bytes, void *all, struct lwm_err *e)
{
	if (lwm_comm_size(d->comm) == 1)
		return alone_copy(d, all, mine, bytes, e);
	switch (d->kind) {
	case NCCL:
		count_each(d, bytes);
		return group_failed(d, lk_group_allgather(d->group, mine, bytes, all), e);
	case STAGED: return staged_gather(d, mine, bytes, all, e);
	default: return lwm_comm_allgather(d->comm, mine, bytes, all, e);
	}
}

/* ---- behind what the device computes ---- */

static int need_op(struct lwm_devcomm *d, size_t down, size_t up, struct lwm_devcomm_op **op, struct lwm_err *e)
{
	*op = take_op(d, down, up);
	return *op ? 0 : lwm_fail(e, LWM_EINTERNAL, "more than %d collectives begun and not waited for", LWM_COMM_BEGUN);
}

/* After the attempt to begin: what failed is not waited for. */
static int end_begin(struct lwm_devcomm_op **op, int rc)
{
	if (rc < 0) {
		(*op)->busy = false;
		*op = NULL;
	}
	return rc;
}

int lwm_devcomm_begin_allgather(struct lwm_devcomm *d, const void *mine, size_t bytes, void *all, struct lwm_devcomm_op **op,
				struct lwm_err *e)
{
	size_t every = (size_t)lwm_comm_size(d->comm) * bytes;
	struct lwm_devcomm_op *o;
	int rc;

	*op = NULL;
	if (lwm_comm_size(d->comm) == 1)
		return alone_copy(d, all, mine, bytes, e);
	LWM_TRY(need_op(d, bytes, every, op, e));
	o = *op;
	switch (d->kind) {
	case NCCL:
		count_each(d, bytes);
		rc = group_failed(d, lk_group_begin_allgather(d->group, mine, bytes, all, &o->ticket), e);
		break;
	case STAGED:
		o->result = all;
		o->bytes = every;
		LWM_GO(stage_op(d, o, mine, bytes, every, e));
		o->from = o->up.p;
		rc = lwm_comm_begin_allgather(d->comm, o->down.p, bytes, o->up.p, &o->op, e);
		break;
	default:
		rc = lwm_comm_begin_allgather(d->comm, mine, bytes, all, &o->op, e);
	}
out:
	return end_begin(op, rc);
}

int lwm_devcomm_begin_sum_f32(struct lwm_devcomm *d, float *p, int64_t n, struct lwm_devcomm_op **op, struct lwm_err *e)
{
	struct lwm_devcomm_op *o;
	int rc;

	*op = NULL;
	if (lwm_comm_size(d->comm) == 1)
		return 0;
	LWM_TRY(need_op(d, (size_t)n * 4, 0, op, e));
	o = *op;
	switch (d->kind) {
	case NCCL:
		count_each(d, sum_bytes(d, n));
		rc = group_failed(d, lk_group_begin_sum(d->group, p, n, &o->ticket), e);
		break;
	case STAGED:
		o->result = p;
		o->bytes = (size_t)n * 4;
		LWM_GO(stage_op(d, o, p, o->bytes, 0, e));
		o->from = o->down.p;
		rc = lwm_comm_begin_sum_f32(d->comm, o->down.p, n, &o->op, e);
		break;
	default:
		rc = lwm_comm_begin_sum_f32(d->comm, p, n, &o->op, e);
	}
out:
	return end_begin(op, rc);
}

int lwm_devcomm_begin_reduce_scatter_f32(struct lwm_devcomm *d, const float *in, float *mine, int64_t n,
					 struct lwm_devcomm_op **op, struct lwm_err *e)
{
	int size = lwm_comm_size(d->comm);
	struct lwm_devcomm_op *o;
	int rc;

	*op = NULL;
	if (size == 1 || n % size)
		return lwm_devcomm_reduce_scatter_f32(d, in, mine, n, e);
	LWM_TRY(need_op(d, (size_t)n * 4, (size_t)(n / size) * 4, op, e));
	o = *op;
	switch (d->kind) {
	case NCCL:
		count_each(d, (uint64_t)(n / size) * sizeof *in);
		rc = group_failed(d, lk_group_begin_reduce_scatter(d->group, in, mine, n, &o->ticket), e);
		break;
	case STAGED:
		o->result = mine;
		o->bytes = (size_t)(n / size) * 4;
		LWM_GO(stage_op(d, o, in, (size_t)n * 4, o->bytes, e));
		o->from = o->up.p;
		rc = lwm_comm_begin_reduce_scatter_f32(d->comm, o->down.p, o->up.p, n, &o->op, e);
		break;
	default:
		rc = lwm_comm_begin_reduce_scatter_f32(d->comm, in, mine, n, &o->op, e);
	}
out:
	return end_begin(op, rc);
}

int lwm_devcomm_begin_chain_f32(struct lwm_devcomm *d, const float *in, int64_t slice, int shards, float *mine,
				struct lwm_devcomm_op **op, struct lwm_err *e)
{
	*op = NULL;
	if (d->kind != HOST)
		return lwm_fail(e, LWM_EUNAVAIL, "%s: chained sums need host memory", lk_dev_name(d->dev));
	LWM_TRY(need_op(d, 0, 0, op, e));
	return end_begin(op, lwm_comm_begin_chain_f32(d->comm, in, slice, shards, mine, &(*op)->op, e));
}

int lwm_devcomm_wait(struct lwm_devcomm *d, struct lwm_devcomm_op *op, struct lwm_err *e)
{
	if (!op)
		return 0;
	op->busy = false;
	if (d->kind == NCCL)
		return group_failed(d, lk_group_join(d->group, op->ticket), e);
	LWM_TRY(lwm_comm_wait(d->comm, op->op, e));
	if (op->rc < 0)
		return lwm_fail(e, -op->rc, "%s", op->e.msg);
	if (d->kind == STAGED && op->bytes)
		return lwm_dev_check(d->dev, lk_upload(d->dev, op->result, op->from, op->bytes), e);
	return 0;
}

int lwm_devcomm_start(struct lwm_devcomm *d, int to, const void *send, size_t send_bytes, int from, void *recv,
		      size_t recv_bytes, struct lwm_err *e)
{
	switch (d->kind) {
	case NCCL:
		if (to != lwm_comm_rank(d->comm))
			lwm_comm_add_sent(d->comm, send_bytes);
		return group_failed(d, lk_group_start(d->group, to, send, send_bytes, from, recv, recv_bytes), e);
	case STAGED:
		return staged_start(d, to, send, send_bytes, from, recv, recv_bytes, e);
	default:
		return lwm_comm_start(d->comm, to, send, send_bytes, from, recv, recv_bytes, e);
	}
}

int lwm_devcomm_finish(struct lwm_devcomm *d, struct lwm_err *e)
{
	switch (d->kind) {
	case NCCL: return group_failed(d, lk_group_finish(d->group), e);
	case STAGED: return staged_finish(d, e);
	default: return lwm_comm_finish(d->comm, e);
	}
}

int lwm_devcomm_settle(struct lwm_devcomm *d, struct lwm_err *e)
{
	if (d->kind != NCCL)
		return 0;
	lwm_watchdog_wait(true);
	int rc = group_failed(d, lk_group_settle(d->group), e);
	lwm_watchdog_wait(false);
	return rc;
}
