/* nccl.cu - groups of GPUs by NCCL, which is opened when the first group is asked for: everything else works without it.
 *
 * A group has a stream of the highest priority, so that its kernels get their few multiprocessors although the device's own
 * stream has work for all of them. An exchange is four steps: the device's stream records `ready`, the group's waits for it,
 * NCCL's kernel, the group's stream records done[i] (a collective mark[i]); finishing, or joining, lets the device's stream wait
 * for that.
 *
 * NCCL sums in an order that follows from its choice of rings and trees, which follows from the machine and the number of
 * bytes: the same on every run of the same allocation. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/cuda/cuda_int.h"

#if __has_include(<nccl.h>)
#include <nccl.h>
#define LK_NCCL 1
#else
#define LK_NCCL 0
#endif

#if LK_NCCL

/* Of NCCL what is used here. Send and receive need 2.7. */
#define NCCL_CALLS(X)                                                                                            \
	X(GetVersion) X(GetErrorString) X(GetUniqueId) X(CommInitRank) X(CommDestroy) X(CommAbort)               \
	X(CommGetAsyncError) X(AllReduce) X(ReduceScatter) X(AllGather) X(Send) X(Recv) X(GroupStart) X(GroupEnd)

enum { OLDEST_NCCL = 2700, EVENTS = LK_GROUP_INFLIGHT, MARKS = LK_GROUP_BEGUN + 1 };

struct nccl_api {
	char why[224]; /* "": it can be used */
#define MEMBER(name) decltype(&nccl##name) name;
	NCCL_CALLS(MEMBER)
#undef MEMBER
};

struct cuda_group {
	ncclComm_t comm;
	cudaStream_t stream;
	cudaEvent_t ready, joined, done[EVENTS], mark[MARKS];
	unsigned first, last; /* exchanges in flight */
	bool failed;
};

static struct nccl_api nccl;
static pthread_once_t nccl_once = PTHREAD_ONCE_INIT;

#ifndef LK_EMU
static void *find(void *lib, const char *name)
{
	void *fn = dlsym(lib, name);

	if (!fn)
		snprintf(nccl.why, sizeof nccl.why, "this NCCL has no %s", name);
	return fn;
}

#define TAKE(name) nccl.name = reinterpret_cast<decltype(&nccl##name)>(find(lib, "nccl" #name));
static void *load_nccl(void)
{
	const char *set = getenv("LWM_NCCL_LIB");

	return dlopen(set && *set ? set : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
}
#else
#define TAKE(name) nccl.name = nccl##name; /* they are linked to */
static void *load_nccl(void)
{
	return dlopen(nullptr, RTLD_NOW);
}
#endif

static void open_nccl(void)
{
	void *lib = load_nccl(); // stays
	int version = 0;

	if (!lib) {
		snprintf(nccl.why, sizeof nccl.why, "NCCL cannot be loaded: %s", dlerror());
		return;
	}
	NCCL_CALLS(TAKE)
	if (!*nccl.why && (nccl.GetVersion(&version) != ncclSuccess || version < OLDEST_NCCL))
		snprintf(nccl.why, sizeof nccl.why, "NCCL of version code %d is too old, %d is needed", version, OLDEST_NCCL);
}

static struct cuda_group *group_of(struct lk_group *g)
{
	return static_cast<struct cuda_group *>(g->impl);
}

static int check_nccl(struct lk_dev *dev)
{
	pthread_once(&nccl_once, open_nccl);
	return *nccl.why ? lk_cuda_fail(dev, LK_EUNSUP, "%s", nccl.why) : 0;
}

/* ---- failures ---- */

/* Ends what is under way on this rank, so that nothing waits for the group's stream for ever. */
static void give_up(struct cuda_group *n)
{
	n->failed = true;
	if (n->comm)
		nccl.CommAbort(n->comm);
	n->comm = nullptr;
}

static int check_nccl(struct lk_group *g, const char *op, ncclResult_t rc)
{
	if (rc == ncclSuccess)
		return 0;
	give_up(group_of(g));
	return lk_cuda_fail(g->dev, LK_EDEVICE, "%s: rank %d of %d: NCCL: %s (NCCL_DEBUG=WARN tells more)", op, g->rank,
			    g->size, nccl.GetErrorString(rc));
}

static int check_cuda(struct lk_group *g, const char *op, cudaError_t rc)
{
	if (rc != cudaSuccess)
		give_up(group_of(g));
	return lk_cuda_check(g->dev, op, rc);
}

/* ---- waiting ---- */

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/* Some 30 ms of looking again at once, then every 0.2 ms. */
static void pause_a_little(int polls)
{
	const struct timespec t = { 0, 200000 };

	if (polls > 10000)
		nanosleep(&t, nullptr);
}

/* Waits until `ev` has passed: 0, or what NCCL says of another rank, or the end of patience. */
static int await(struct lk_group *g, const char *op, cudaEvent_t ev, double seconds)
{
	struct cuda_group *n = group_of(g);
	double end = seconds_now() + seconds;

	for (int polls = 0;; polls += polls < 1 << 20) {
		cudaError_t rc = cudaEventQuery(ev);
		ncclResult_t heard = ncclSuccess;

		nccl.CommGetAsyncError(n->comm, &heard);
		if (heard != ncclSuccess && heard != ncclInProgress)
			return check_nccl(g, op, heard);
		if (rc != cudaErrorNotReady)
			return check_cuda(g, op, rc);
		if (seconds_now() > end) {
			give_up(n);
			return lk_cuda_fail(g->dev, LK_EDEVICE,
					    "%s: rank %d of %d heard nothing of the others for %.0f s: a rank is lost or stuck",
					    op, g->rank, g->size, seconds);
		}
		pause_a_little(polls);
	}
}

static int settle_within(struct lk_group *g, const char *op, double seconds)
{
	struct cuda_group *n = group_of(g);
	int rc;

	lk_stream(g->dev);
	rc = check_cuda(g, op, cudaEventRecord(n->joined, n->stream));
	return rc ? rc : await(g, op, n->joined, seconds);
}

/* ---- beginning and end ---- */

static int gpu_place(struct lk_dev *dev, unsigned char *out)
{
	cudaDeviceProp prop;
	int rc = check_nccl(dev);

	if (rc)
		return rc;
	lk_stream(dev);
	rc = lk_cuda_check(dev, "group_place", cudaGetDeviceProperties(&prop, lk_cu(dev)->index));
	if (!rc)
		memcpy(out, &prop.uuid, LK_GROUP_PLACE);
	return rc;
}

static int make_id(struct lk_dev *dev, unsigned char *out)
{
	ncclUniqueId id;
	ncclResult_t got;
	int rc = check_nccl(dev);

	static_assert(sizeof id == LK_GROUP_ID, "an id of NCCL has another size");
	if (rc)
		return rc;
	lk_stream(dev);
	got = nccl.GetUniqueId(&id);
	if (got != ncclSuccess)
		return lk_cuda_fail(dev, LK_EDEVICE, "group_id: NCCL: %s (NCCL_DEBUG=WARN tells more)", nccl.GetErrorString(got));
	memcpy(out, &id, sizeof id);
	return 0;
}

/* NCCL's way of meeting the other ranks waits without an end when one does not come. It waits in a thread of its own, which
 * is abandoned when patience ends. */
struct meeting {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool over, left;
	int gpu, rank, size;
	ncclUniqueId id;
	ncclComm_t comm;
	ncclResult_t rc;
};

static void meeting_free(struct meeting *m)
{
	pthread_cond_destroy(&m->wake);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static void *attend_meeting(void *arg)
{
	struct meeting *m = static_cast<struct meeting *>(arg);
	ncclResult_t rc = ncclUnhandledCudaError;
	bool left;

	if (cudaSetDevice(m->gpu) == cudaSuccess)
		rc = nccl.CommInitRank(&m->comm, m->size, m->id, m->rank);
	pthread_mutex_lock(&m->lock);
	m->rc = rc;
	m->over = true;
	left = m->left;
	pthread_cond_signal(&m->wake);
	pthread_mutex_unlock(&m->lock);
	if (left) {
		if (rc == ncclSuccess)
			nccl.CommAbort(m->comm);
		meeting_free(m);
	}
	return nullptr;
}

static struct meeting *meeting_new(const struct lk_group *g, const unsigned char *id)
{
	struct meeting *m = static_cast<struct meeting *>(calloc(1, sizeof *m));
	pthread_condattr_t clock;

	if (!m)
		return nullptr;
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&m->wake, &clock);
	pthread_condattr_destroy(&clock);
	pthread_mutex_init(&m->lock, nullptr);
	m->gpu = lk_cu(g->dev)->index;
	m->rank = g->rank;
	m->size = g->size;
	memcpy(&m->id, id, sizeof m->id);
	return m;
}

/* Waits for the thread: true when it is done, false when it was abandoned. */
static bool wait_for_meeting(struct meeting *m, double seconds)
{
	struct timespec end;
	bool over;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += static_cast<time_t>(seconds) + 1;
	pthread_mutex_lock(&m->lock);
	while (!m->over && pthread_cond_timedwait(&m->wake, &m->lock, &end) != ETIMEDOUT)
		;
	over = m->over;
	m->left = !over;
	pthread_mutex_unlock(&m->lock);
	return over;
}

static int meet_ranks(struct lk_group *g, const unsigned char *id)
{
	struct meeting *m = meeting_new(g, id);
	pthread_t thread;
	ncclResult_t rc;

	if (!m || pthread_create(&thread, nullptr, attend_meeting, m)) {
		if (m)
			meeting_free(m);
		return lk_cuda_fail(g->dev, LK_ENOMEM, "group_new: no memory or thread for a group");
	}
	pthread_detach(thread);
	if (!wait_for_meeting(m, g->seconds))
		return lk_cuda_fail(g->dev, LK_EDEVICE, "group_new: rank %d did not meet all %d ranks within %.0f s", g->rank,
				    g->size, g->seconds);
	rc = m->rc;
	group_of(g)->comm = rc == ncclSuccess ? m->comm : nullptr;
	meeting_free(m);
	return check_nccl(g, "group_new", rc);
}

static int make_queue(struct lk_group *g)
{
	const unsigned quiet = cudaEventDisableTiming;
	struct cuda_group *n = group_of(g);
	int least = 0, greatest = 0;
	cudaError_t rc;

	lk_stream(g->dev);
	rc = cudaDeviceGetStreamPriorityRange(&least, &greatest);
	if (rc == cudaSuccess)
		rc = cudaStreamCreateWithPriority(&n->stream, cudaStreamNonBlocking, greatest);
	if (rc == cudaSuccess)
		rc = cudaEventCreateWithFlags(&n->ready, quiet);
	if (rc == cudaSuccess)
		rc = cudaEventCreateWithFlags(&n->joined, quiet);
	for (int i = 0; i < EVENTS && rc == cudaSuccess; i++)
		rc = cudaEventCreateWithFlags(&n->done[i], quiet);
	for (int i = 0; i < MARKS && rc == cudaSuccess; i++)
		rc = cudaEventCreateWithFlags(&n->mark[i], quiet);
	return check_cuda(g, "group_new", rc);
}

static int group_new(struct lk_dev *dev, struct lk_group *g, const unsigned char *id)
{
	int rc = check_nccl(dev);

	if (rc)
		return rc;
	g->impl = calloc(1, sizeof(struct cuda_group));
	if (!g->impl)
		return lk_cuda_fail(dev, LK_ENOMEM, "group_new: out of memory");
	rc = make_queue(g);
	return rc ? rc : meet_ranks(g, id);
}

static void group_free(struct lk_group *g)
{
	const double patience = 5;
	struct cuda_group *n = group_of(g);
	char said[sizeof g->dev->err];

	lk_stream(g->dev);
	memcpy(said, g->dev->err, sizeof said); // an earlier failure is what the caller wants to read
	if (n->comm && settle_within(g, "group_free", patience) == 0)
		nccl.CommDestroy(n->comm);
	memcpy(g->dev->err, said, sizeof said);
	for (int i = 0; i < EVENTS; i++)
		if (n->done[i])
			cudaEventDestroy(n->done[i]);
	for (int i = 0; i < MARKS; i++)
		if (n->mark[i])
			cudaEventDestroy(n->mark[i]);
	if (n->joined)
		cudaEventDestroy(n->joined);
	if (n->ready)
		cudaEventDestroy(n->ready);
	if (n->stream)
		cudaStreamDestroy(n->stream);
	free(n);
	g->impl = nullptr;
}

/* ---- exchanges ---- */

/* What the group's stream is given from here on waits for what the device was given until here. */
static int begin(struct lk_group *g, const char *op)
{
	struct cuda_group *n = group_of(g);
	cudaStream_t stream = lk_stream(g->dev);
	cudaError_t rc;

	if (n->failed)
		return lk_cuda_fail(g->dev, LK_EDEVICE, "%s: the group failed before", op);
	rc = cudaEventRecord(n->ready, stream);
	if (rc == cudaSuccess)
		rc = cudaStreamWaitEvent(n->stream, n->ready, 0);
	return check_cuda(g, op, rc);
}

static int group_sum(struct lk_group *g, float *p, int64_t count)
{
	struct cuda_group *n = group_of(g);
	int rc = begin(g, "group_sum");

	return rc ? rc : check_nccl(g, "group_sum", nccl.AllReduce(p, p, static_cast<size_t>(count), ncclFloat32, ncclSum, n->comm,
								    n->stream));
}

static int group_reduce_scatter(struct lk_group *g, const float *in, float *mine, int64_t count)
{
	struct cuda_group *n = group_of(g);
	const char *op = "group_reduce_scatter";
	int rc = begin(g, op);

	return rc ? rc : check_nccl(g, op, nccl.ReduceScatter(in, mine, static_cast<size_t>(count), ncclFloat32, ncclSum, n->comm,
							       n->stream));
}

static int group_allgather(struct lk_group *g, const void *mine, size_t bytes, void *all)
{
	struct cuda_group *n = group_of(g);
	int rc = begin(g, "group_allgather");

	return rc ? rc : check_nccl(g, "group_allgather", nccl.AllGather(mine, all, bytes, ncclInt8, n->comm, n->stream));
}

static int group_mark(struct lk_group *g, int i)
{
	struct cuda_group *n = group_of(g);

	return check_cuda(g, "group_mark", cudaEventRecord(n->mark[i], n->stream));
}

static int group_join(struct lk_group *g, int i)
{
	struct cuda_group *n = group_of(g);
	cudaStream_t stream = lk_stream(g->dev);

	if (n->failed)
		return lk_cuda_fail(g->dev, LK_EDEVICE, "group_join: the group failed before");
	return check_cuda(g, "group_join", cudaStreamWaitEvent(stream, n->mark[i], 0));
}

static ncclResult_t send_and_receive(struct cuda_group *n, int to, const void *send, size_t send_bytes, int from, void *recv,
				     size_t recv_bytes)
{
	ncclResult_t rc = nccl.GroupStart(), end;

	if (rc != ncclSuccess)
		return rc;
	if (send_bytes)
		rc = nccl.Send(send, send_bytes, ncclInt8, to, n->comm, n->stream);
	if (recv_bytes && rc == ncclSuccess)
		rc = nccl.Recv(recv, recv_bytes, ncclInt8, from, n->comm, n->stream);
	end = nccl.GroupEnd();
	return rc == ncclSuccess ? end : rc;
}

static int group_start(struct lk_group *g, int to, const void *send, size_t send_bytes, int from, void *recv, size_t recv_bytes)
{
	struct cuda_group *n = group_of(g);
	int rc = begin(g, "group_start");

	if (!rc)
		rc = check_nccl(g, "group_start", send_and_receive(n, to, send, send_bytes, from, recv, recv_bytes));
	if (!rc)
		rc = check_cuda(g, "group_start", cudaEventRecord(n->done[n->last % EVENTS], n->stream));
	n->last += !rc;
	return rc;
}

static int group_finish(struct lk_group *g)
{
	struct cuda_group *n = group_of(g);
	cudaStream_t stream = lk_stream(g->dev);

	if (n->failed)
		return lk_cuda_fail(g->dev, LK_EDEVICE, "group_finish: the group failed before");
	return check_cuda(g, "group_finish", cudaStreamWaitEvent(stream, n->done[n->first++ % EVENTS], 0));
}

static int group_settle(struct lk_group *g)
{
	if (group_of(g)->failed)
		return lk_cuda_fail(g->dev, LK_EDEVICE, "group_settle: the group failed before");
	return settle_within(g, "group_settle", g->seconds);
}

void lk_cuda_fill_group(struct lk_ops *o)
{
	o->group.group_place = gpu_place;
	o->group.group_id = make_id;
	o->group.group_new = group_new;
	o->group.group_free = group_free;
	o->group.group_sum = group_sum;
	o->group.group_reduce_scatter = group_reduce_scatter;
	o->group.group_allgather = group_allgather;
	o->group.group_mark = group_mark;
	o->group.group_join = group_join;
	o->group.group_start = group_start;
	o->group.group_finish = group_finish;
	o->group.group_settle = group_settle;
}

#else

static int no_nccl(struct lk_dev *dev, unsigned char *)
{
	return lk_cuda_fail(dev, LK_EUNSUP, "liblwm_cuda.so was built where nccl.h was missing");
}

void lk_cuda_fill_group(struct lk_ops *o)
{
	o->group.group_place = no_nccl;
	o->group.group_id = no_nccl;
}

#endif
