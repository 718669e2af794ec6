/* emu_nccl.cc - NCCL between the emulated GPUs of one process.
 *
 * A rank's work runs in its own stream and waits there for the others, as NCCL's kernels do; a send waits until it was
 * received. What a rank shows to the others is copied to host memory, so that each touches its own GPU alone. A rank that
 * waits for longer than LWM_EMU_NCCL_SECONDS (60) hears ncclRemoteError. */
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <vector>

#include "emu_int.h"
#include "nccl.h"

typedef std::vector<char> bytes;

/* All ranks of one id. `shown` holds what each rank brings to collective number k, until all have taken it. */
struct clique {
	std::mutex lock;
	std::condition_variable wake;
	int size = 0, arrived = 0;
	bool aborted = false;
	struct round {
		std::vector<bytes> of_rank;
		int shown = 0, taken = 0;
	};
	std::map<uint64_t, round> rounds;
	struct letters {
		std::map<uint64_t, bytes> box;
		uint64_t sent = 0, received = 0;
	};
	std::map<std::pair<int, int>, letters> mail; /* from, to */
};

struct ncclComm {
	std::shared_ptr<clique> all;
	int rank = 0, size = 0;
	uint64_t next = 0; /* collective */
	std::mutex lock;
	ncclResult_t error = ncclSuccess;
};

struct message {
	ncclComm_t comm;
	int peer;
	void *p;
	size_t n;
	cudaStream_t stream;
	bool sends;
};

static std::mutex list_lock;
static std::map<int64_t, std::shared_ptr<clique>> cliques;
static int64_t last_id;
/* Of each host thread between ncclGroupStart and ncclGroupEnd. No thread_local variables: blocks spoil them. */
struct open_group {
	int depth = 0;
	std::vector<message> all;
};
static std::map<std::thread::id, open_group> open_groups;

static open_group &group_here()
{
	std::lock_guard<std::mutex> hold(list_lock);

	return open_groups[std::this_thread::get_id()];
}

static std::chrono::steady_clock::time_point deadline()
{
	return std::chrono::steady_clock::now() + std::chrono::seconds(emu::setting("LWM_EMU_NCCL_SECONDS", 60));
}

static ncclResult_t note(ncclComm_t c, ncclResult_t rc)
{
	std::lock_guard<std::mutex> hold(c->lock);

	if (c->error == ncclSuccess)
		c->error = rc;
	return rc;
}

/* Waits until ready() or until this rank has to hear that others are gone. */
template <class F> static bool wait_for(ncclComm_t c, std::unique_lock<std::mutex> &hold, F ready)
{
	bool ok = c->all->wake.wait_until(hold, deadline(), [&] { return c->all->aborted || ready(); }) && !c->all->aborted;

	if (!ok)
		note(c, ncclRemoteError);
	return ok;
}

/* ---- life ---- */

ncclResult_t ncclGetVersion(int *version)
{
	*version = 22809;
	return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t rc)
{
	return rc == ncclSuccess ? "no error" : rc == ncclRemoteError ? "remote process exited or there was a network error" :
	       rc == ncclInvalidUsage ? "invalid usage" : "internal error";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
	std::lock_guard<std::mutex> hold(list_lock);
	int64_t name[2] = { getpid(), ++last_id };

	memset(id, 0, sizeof *id);
	memcpy(id, name, sizeof name);
	cliques[name[1]] = std::make_shared<clique>();
	return ncclSuccess;
}

static std::shared_ptr<clique> find_clique(const ncclUniqueId &id)
{
	std::lock_guard<std::mutex> hold(list_lock);
	int64_t name[2];

	memcpy(name, &id, sizeof name);
	return name[0] == getpid() && cliques.count(name[1]) ? cliques[name[1]] : nullptr;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n, ncclUniqueId id, int rank)
{
	std::shared_ptr<clique> all = find_clique(id);

	*comm = nullptr;
	if (!all || n < 1 || rank < 0 || rank >= n || (all->size && all->size != n))
		return ncclInvalidUsage;
	std::unique_lock<std::mutex> hold(all->lock);
	all->size = n;
	all->arrived++;
	all->wake.notify_all();
	all->wake.wait(hold, [&] { return all->arrived >= n; });
	*comm = new ncclComm;
	(*comm)->all = all;
	(*comm)->rank = rank;
	(*comm)->size = n;
	return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
	delete comm;
	return ncclSuccess;
}

/* Work in the queues may still point to it: it stays. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
	std::lock_guard<std::mutex> hold(comm->all->lock);

	comm->all->aborted = true;
	comm->all->wake.notify_all();
	return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
	std::lock_guard<std::mutex> hold(comm->lock);

	*error = comm->error;
	return ncclSuccess;
}

/* ---- collectives ---- */

/* Shows n bytes and returns what all ranks show in this round; empty when one does not come. */
static std::vector<bytes> meet(ncclComm_t c, uint64_t k, const void *p, size_t n)
{
	const char *mine = static_cast<const char *>(p);
	std::vector<bytes> got;
	std::unique_lock<std::mutex> hold(c->all->lock);
	clique::round &r = c->all->rounds[k];

	r.of_rank.resize(static_cast<size_t>(c->size));
	r.of_rank[static_cast<size_t>(c->rank)] = bytes(mine, mine + n);
	r.shown++;
	c->all->wake.notify_all();
	if (!wait_for(c, hold, [&] { return r.shown == c->size; }))
		return got;
	got = r.of_rank;
	for (const bytes &b : got)
		if (b.size() != n) {
			note(c, ncclInvalidUsage);
			return std::vector<bytes>();
		}
	if (++r.taken == c->size)
		c->all->rounds.erase(k);
	return got;
}

/* out[i] = sum over ranks of element first + i, in rank order. */
static void sum_into(float *out, const std::vector<bytes> &all, size_t first, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float s = 0;

		for (const bytes &b : all)
			s += reinterpret_cast<const float *>(b.data())[first + i];
		out[i] = s;
	}
}

ncclResult_t ncclAllReduce(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t, ncclComm_t c,
			   cudaStream_t stream)
{
	uint64_t k = c->next++;

	if (type != ncclFloat32)
		return ncclInvalidArgument;
	emu::queue_work(stream, "ncclAllReduce", [=] {
		std::vector<bytes> all = meet(c, k, in, n * sizeof(float));

		if (!all.empty())
			sum_into(static_cast<float *>(out), all, 0, n);
	});
	return ncclSuccess;
}

ncclResult_t ncclReduceScatter(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t, ncclComm_t c,
			       cudaStream_t stream)
{
	uint64_t k = c->next++;

	if (type != ncclFloat32)
		return ncclInvalidArgument;
	emu::queue_work(stream, "ncclReduceScatter", [=] {
		std::vector<bytes> all = meet(c, k, in, n * static_cast<size_t>(c->size) * sizeof(float));

		if (!all.empty())
			sum_into(static_cast<float *>(out), all, static_cast<size_t>(c->rank) * n, n);
	});
	return ncclSuccess;
}

ncclResult_t ncclAllGather(const void *in, void *out, size_t n, ncclDataType_t type, ncclComm_t c, cudaStream_t stream)
{
	uint64_t k = c->next++;

	if (type != ncclInt8)
		return ncclInvalidArgument;
	emu::queue_work(stream, "ncclAllGather", [=] {
		std::vector<bytes> all = meet(c, k, in, n);

		for (size_t r = 0; r < all.size(); r++)
			memcpy(static_cast<char *>(out) + r * n, all[r].data(), n);
	});
	return ncclSuccess;
}

/* ---- messages ---- */

static void post(const message &m, uint64_t *ticket)
{
	const char *p = static_cast<const char *>(m.p);
	std::lock_guard<std::mutex> hold(m.comm->all->lock);
	clique::letters &l = m.comm->all->mail[{ m.comm->rank, m.peer }];

	*ticket = ++l.sent;
	l.box[*ticket] = bytes(p, p + m.n);
	m.comm->all->wake.notify_all();
}

static void take(const message &m)
{
	std::unique_lock<std::mutex> hold(m.comm->all->lock);
	clique::letters &l = m.comm->all->mail[{ m.peer, m.comm->rank }];

	if (!wait_for(m.comm, hold, [&] { return l.sent > l.received; }))
		return;
	bytes b = std::move(l.box[++l.received]);
	l.box.erase(l.received);
	if (b.size() == m.n)
		memcpy(m.p, b.data(), m.n);
	else
		note(m.comm, ncclInvalidUsage);
	m.comm->all->wake.notify_all();
}

static void await_receipt(const message &m, uint64_t ticket)
{
	std::unique_lock<std::mutex> hold(m.comm->all->lock);
	clique::letters &l = m.comm->all->mail[{ m.comm->rank, m.peer }];

	wait_for(m.comm, hold, [&] { return l.received >= ticket; });
}

static void exchange(const std::vector<message> &group_of)
{
	std::vector<uint64_t> ticket(group_of.size());

	for (size_t i = 0; i < group_of.size(); i++)
		if (group_of[i].sends)
			post(group_of[i], &ticket[i]);
	for (const message &m : group_of)
		if (!m.sends)
			take(m);
	for (size_t i = 0; i < group_of.size(); i++)
		if (group_of[i].sends)
			await_receipt(group_of[i], ticket[i]);
}

ncclResult_t ncclGroupStart()
{
	group_here().depth++;
	return ncclSuccess;
}

ncclResult_t ncclGroupEnd()
{
	open_group &g = group_here();

	if (!g.depth)
		return ncclInvalidUsage;
	if (--g.depth)
		return ncclSuccess;
	std::vector<message> all = std::move(g.all);
	g.all.clear();
	if (!all.empty())
		emu::queue_work(all[0].stream, "ncclGroupEnd", [all] { exchange(all); });
	return ncclSuccess;
}

static ncclResult_t add(const message &m, ncclDataType_t type)
{
	if (type != ncclInt8 || m.peer < 0 || m.peer >= m.comm->size)
		return ncclInvalidArgument;
	ncclGroupStart();
	group_here().all.push_back(m);
	return ncclGroupEnd();
}

ncclResult_t ncclSend(const void *p, size_t n, ncclDataType_t type, int to, ncclComm_t comm, cudaStream_t stream)
{
	return add({ comm, to, const_cast<void *>(p), n, stream, true }, type);
}

ncclResult_t ncclRecv(void *p, size_t n, ncclDataType_t type, int from, ncclComm_t comm, cudaStream_t stream)
{
	return add({ comm, from, p, n, stream, false }, type);
}
