/* emu_sm90.cc - what Hopper adds: mbarriers, TMA, wgmma. After the PTX ISA document, not after the kernels. */
#include "cuda.h"
#include "emu_int.h"
#include "ptx_emu.h"
#include "ptx90_emu.h"

#include <cstdio>
#include <map>
#include <mutex>

namespace emu
{

enum { GROUP_THREADS = 128, MAX_WARPGROUPS = MAX_THREADS / GROUP_THREADS, SHARED_BASE = 1024, MAGIC = 0x5a,
       MAX_RANK = 5 };

/* A load under way that its barrier has not heard of. */
struct pending_load {
	uint64_t *bar;
	uint32_t bytes;
	std::function<void()> write;
};

/* A store, or an add of fp32. */
struct pending_store {
	CUtensorMap map;
	const char *src;
	std::vector<char> read; /* once the source was read */
	int c[MAX_RANK], group;
	bool add;
};

/* One wgmma of a warpgroup. */
struct gmma_op {
	gmma_args first; /* as the first thread gave it; d and a: see below */
	place at;
	int group, issued;
	bool done, late;
	float *d[GROUP_THREADS];
	const uint32_t *a[GROUP_THREADS];
	std::vector<float> old[GROUP_THREADS]; /* accumulators before, where they were spoiled */
};

struct warpgroup {
	std::vector<gmma_op> ops;
	int issued[GROUP_THREADS], group[GROUP_THREADS], fenced[GROUP_THREADS];
	int waiting, generation, wait_for;
};

/* Of one block. */
struct sm90 {
	std::vector<pending_load> loads;
	std::map<int, std::vector<pending_store>> stores; /* by thread */
	std::map<int, int> store_group;
	warpgroup wg[MAX_WARPGROUPS];
	uint64_t rng;
};

static sm90 *state_of_block()
{
	static std::mutex lock;
	static std::map<const block *, sm90> all;
	block *b = self()->blk;

	if (!b->ext) {
		std::lock_guard<std::mutex> hold(lock);

		all[b] = sm90();
		all[b].rng = b->rng;
		b->ext = &all[b];
	}
	return static_cast<sm90 *>(b->ext);
}

/* Whether the instruction issued now is finished only when somebody waits for it. */
static bool late(sm90 *s)
{
	s->rng = s->rng * 6364136223846793005u + 1442695040888963407u;
	return order() == 1 || (order() > 1 && (s->rng >> 40 & 1));
}

/* With orders that are drawn, a thread now and then comes late from where it waited: what it is about to touch must still be
 * there. */
static void dawdle(sm90 *s, int one_in, place at)
{
	late(s);
	if (order() < 2 || (s->rng >> 33) % static_cast<uint64_t>(one_in))
		return;
	for (uint64_t n = (s->rng >> 50) % 40; n; n--) {
		self()->blk->idle = 0;
		pause(at);
	}
}

static uint32_t shared_address(const void *p)
{
	return static_cast<uint32_t>(static_cast<const char *>(p) - self()->blk->smem) + SHARED_BASE;
}

static char *shared_pointer(uint32_t address)
{
	return self()->blk->smem + (address - SHARED_BASE);
}

/* Swizzle modes as TMA counts them: 0 none, 1: 32 bytes, 2: 64, 3: 128. Bits 4.. are xored with as many from 7 up. */
static uint32_t swizzle(uint32_t address, int mode)
{
	return address ^ (address >> 7 & ((1u << mode) - 1)) << 4;
}

/* ---- mbarrier ---- */

struct mbar {
	uint16_t pending, count;
	int32_t tx_phase; /* 2 * bytes that are still expected + parity of the phase */
};
static_assert(sizeof(mbar) == 8, "one 64-bit word");

static mbar *mbar_at(uint64_t *bar, place at)
{
	mbar *m = reinterpret_cast<mbar *>(bar);

	want_shared(bar, 8, 8, at);
	if (m->count == 0xffff || m->pending > m->count)
		die(at, "the barrier was not initialised");
	return m;
}

void mbar_init(uint64_t *bar, int count, place at)
{
	want_shared(bar, 8, 8, at);
	*reinterpret_cast<mbar *>(bar) = { static_cast<uint16_t>(count), static_cast<uint16_t>(count), 0 };
}

static void mbar_check(mbar *m)
{
	if (m->pending || m->tx_phase >> 1)
		return;
	m->pending = m->count;
	m->tx_phase ^= 1;
	self()->blk->idle = 0;
}

void mbar_arrive(uint64_t *bar, uint32_t expect, place at)
{
	mbar *m = mbar_at(bar, at);

	if (!m->pending)
		die(at, "more arrivals than the %d that the barrier was made for", m->count);
	m->tx_phase += static_cast<int32_t>(2 * expect);
	m->pending--;
	mbar_check(m);
}

static void mbar_complete(uint64_t *bar, uint32_t bytes)
{
	mbar *m = reinterpret_cast<mbar *>(bar);

	m->tx_phase -= static_cast<int32_t>(2 * bytes);
	mbar_check(m);
}

/* Of the loads that report to this barrier one is finished: not always the first. */
static bool finish_load(sm90 *s, const uint64_t *bar)
{
	std::vector<size_t> mine;

	for (size_t i = 0; i < s->loads.size(); i++)
		if (s->loads[i].bar == bar)
			mine.push_back(i);
	if (mine.empty())
		return false;
	size_t i = mine[order() > 1 ? (s->rng >> 33) % mine.size() : mine.size() - 1];
	pending_load l = s->loads[i];

	s->loads.erase(s->loads.begin() + static_cast<ptrdiff_t>(i));
	l.write();
	mbar_complete(l.bar, l.bytes);
	return true;
}

void mbar_wait(uint64_t *bar, int parity, place at)
{
	sm90 *s = state_of_block();

	while ((mbar_at(bar, at)->tx_phase & 1) == parity)
		if (!finish_load(s, bar))
			pause(at);
	dawdle(s, 24, at);
}

/* ---- TMA ---- */

CUresult cuTensorMapEncodeTiled_(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *base,
				 const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box,
				 const cuuint32_t *steps, CUtensorMapSwizzle mode)
{
	uint64_t size = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32 ? 4 : 2, inner = box[0] * size;
	bool bad = rank < 3 || rank > 5 || reinterpret_cast<uintptr_t>(base) % 16 || inner % 16 || (mode && inner > (16u << mode));

	for (uint32_t i = 0; i < rank && !bad; i++)
		bad = !dims[i] || dims[i] > 1ull << 32 || !box[i] || box[i] > 256 || steps[i] != 1;
	for (uint32_t i = 0; i < rank - 1 && !bad; i++)
		bad = strides[i] % 16 || strides[i] >= 1ull << 40;
	if (bad)
		return CUDA_ERROR_INVALID_VALUE;
	memset(map, 0, sizeof *map);
	map->base = static_cast<char *>(base);
	for (uint32_t i = 0; i < MAX_RANK; i++) {
		map->dims[i] = i < rank ? dims[i] : 1;
		map->box[i] = i < rank ? box[i] : 1;
		if (i > 0 && i < rank)
			map->strides[i - 1] = strides[i - 1];
	}
	map->magic = MAGIC;
	map->bytes = static_cast<uint8_t>(size);
	map->rank = static_cast<uint8_t>(rank);
	map->swizzle = static_cast<uint8_t>(mode);
	return CUDA_SUCCESS;
}

static uint32_t box_elements(const CUtensorMap *map)
{
	uint32_t n = 1;

	for (int i = 0; i < MAX_RANK; i++)
		n *= map->box[i];
	return n;
}

static uint32_t box_bytes(const CUtensorMap *map)
{
	return box_elements(map) * map->bytes;
}

/* fn(element of the tensor or NULL where it lies outside, byte of the box) for all elements of the box */
template <class F> static void each_element(const CUtensorMap &map, const int *c, F fn)
{
	uint32_t count = box_elements(&map);

	for (uint32_t n = 0; n < count; n++) {
		char *p = map.base;
		uint32_t rest = n;
		bool in = true;

		for (int d = 0; d < map.rank; d++) {
			int64_t x = c[d] + static_cast<int64_t>(rest % map.box[d]);

			rest /= map.box[d];
			in = in && x >= 0 && x < static_cast<int64_t>(map.dims[d]);
			p += x * (d ? static_cast<int64_t>(map.strides[d - 1]) : map.bytes);
		}
		fn(in ? p : nullptr, n * map.bytes);
	}
}

static void check_box(const CUtensorMap *map, const void *smem, int rank, place at)
{
	if (map->magic != MAGIC || reinterpret_cast<uintptr_t>(map) % 64)
		die(at, "that is no tensor map, or not aligned to 64 bytes");
	if (map->rank != rank)
		die(at, "%d coordinates for a tensor of %d dimensions", rank, map->rank);
	if (map->swizzle && map->box[0] * map->bytes != 16u << map->swizzle)
		die(at, "a box narrower than the swizzle is not emulated");
	want_shared(smem, box_bytes(map), 128, at);
}

static void load_later(uint64_t *bar, uint32_t bytes, void *dst, std::function<void()> write, place at)
{
	sm90 *s = state_of_block();

	mbar_at(bar, at);
	if (!late(s)) {
		write();
		mbar_complete(bar, bytes);
		return;
	}
	memset(dst, 0xff, bytes);
	s->loads.push_back({ bar, bytes, std::move(write) });
}

void tma_load(void *dst, const CUtensorMap *map, uint64_t *bar, const int *c, int rank, place at)
{
	check_box(map, dst, rank, at);
	CUtensorMap m = *map;
	std::vector<int> from(c, c + rank);
	uint32_t to = shared_address(dst);

	load_later(bar, box_bytes(map), dst, [=] {
		each_element(m, from.data(), [&](const char *p, uint32_t n) {
			char *q = shared_pointer(swizzle(to + n, m.swizzle));

			if (p)
				memcpy(q, p, m.bytes);
			else
				memset(q, 0, m.bytes);
		});
	}, at);
}

void bulk_load(void *dst, const void *src, uint32_t bytes, uint64_t *bar, place at)
{
	want_shared(dst, bytes, 16, at);
	if (bytes % 16 || reinterpret_cast<uintptr_t>(src) % 16)
		die(at, "%u bytes from %p: both must be multiples of 16", bytes, src);
	load_later(bar, bytes, dst, [=] { memcpy(dst, src, bytes); }, at);
}

static void read_source(pending_store *a)
{
	uint32_t from = shared_address(a->src), size = a->map.bytes;

	if (!a->read.empty())
		return;
	a->read.resize(box_bytes(&a->map));
	for (uint32_t i = 0; i < a->read.size(); i += size)
		memcpy(&a->read[i], shared_pointer(swizzle(from + i, a->map.swizzle)), size);
}

static void write_out(pending_store *a)
{
	read_source(a);
	each_element(a->map, a->c, [&](char *p, uint32_t n) {
		float sum;

		if (!p)
			return;
		if (!a->add) {
			memcpy(p, &a->read[n], a->map.bytes);
			return;
		}
		memcpy(&sum, &a->read[n], sizeof sum);
		*reinterpret_cast<float *>(p) += sum;
	});
}

void tma_store(const CUtensorMap *map, const void *src, const int *c, int rank, bool add, place at)
{
	sm90 *s = state_of_block();
	int me = self()->linear;
	pending_store a = { *map, static_cast<const char *>(src), {}, {}, s->store_group[me], add };

	check_box(map, src, rank, at);
	if (add && map->bytes != 4)
		die(at, "only sums of fp32 are emulated");
	memcpy(a.c, c, sizeof *c * static_cast<size_t>(rank));
	if (late(s))
		s->stores[me].push_back(a);
	else
		write_out(&a);
}

void bulk_commit()
{
	state_of_block()->store_group[self()->linear]++;
}

void bulk_wait(bool only_read, place at)
{
	sm90 *s = state_of_block();
	std::vector<pending_store> &mine = s->stores[self()->linear], stay;

	dawdle(s, 2, at);
	for (pending_store &a : mine) {
		if (a.group == s->store_group[self()->linear]) {
			stay.push_back(a); // not committed: nobody waits for it
			continue;
		}
		read_source(&a);
		if (only_read)
			stay.push_back(a);
		else
			write_out(&a);
	}
	mine = stay;
}

/* ---- wgmma ---- */

static warpgroup *my_group(int *me, place at)
{
	const thread *t = self();

	if (t->blk->threads < (t->linear / GROUP_THREADS + 1) * GROUP_THREADS)
		die(at, "the warpgroup has fewer than 128 threads");
	*me = t->linear % GROUP_THREADS;
	return &state_of_block()->wg[t->linear / GROUP_THREADS];
}

uint64_t gmma_desc(const void *p, uint32_t leading, uint32_t stride, int mode, place at)
{
	want_shared(p, 16, 16, at);
	return (shared_address(p) & 0x3ffff) >> 4 | static_cast<uint64_t>((leading & 0x3ffff) >> 4) << 16 |
	       static_cast<uint64_t>((stride & 0x3ffff) >> 4) << 32 | static_cast<uint64_t>(mode) << 62;
}

/* Element (i of M or N, k of the sum) of an operand in shared memory, canonical layouts of the document. */
struct operand {
	uint32_t start, leading, stride;
	int mode, mn_major; /* mode as TMA counts */
	place at;

	operand(uint64_t desc, int mn, place where) : mn_major(mn), at(where)
	{
		static const int tma_mode[4] = { 0, 3, 2, 1 };

		start = static_cast<uint32_t>(desc & 0x3fff) << 4;
		leading = static_cast<uint32_t>(desc >> 16 & 0x3fff) << 4;
		stride = static_cast<uint32_t>(desc >> 32 & 0x3fff) << 4;
		mode = tma_mode[desc >> 62];
		if (!mode || (desc >> 49 & 7))
			die(at, "descriptor %016llx: no swizzle, or a base offset, is not emulated",
			    static_cast<unsigned long long>(desc));
	}

	float get(int i, int k) const
	{
		int row = 16 << mode; /* bytes */
		uint32_t off = mn_major ? static_cast<uint32_t>(2 * i % row + k % 8 * row) +
						  static_cast<uint32_t>(2 * i / row) * leading +
						  static_cast<uint32_t>(k / 8) * stride
					: static_cast<uint32_t>(i % 8 * row + 2 * k) + static_cast<uint32_t>(i / 8) * stride;
		uint32_t address = swizzle(start + off, mode) - SHARED_BASE;
		uint16_t x;

		if (address + 2 > self()->blk->smem_bytes)
			die(at, "operand outside shared memory, at byte %u", address);
		memcpy(&x, self()->blk->smem + address, 2);
		return __uint_as_float(static_cast<uint32_t>(x) << 16);
	}
};

static void read_a(const gmma_op &op, float (*a)[16])
{
	if (!op.a[0]) {
		operand o(op.first.a_desc, op.first.ta, op.at);

		for (int i = 0; i < 64; i++)
			for (int k = 0; k < 16; k++)
				a[i][k] = o.get(i, k);
		return;
	}
	for (int t = 0; t < GROUP_THREADS; t++)
		for (int i = 0; i < 4; i++) {
			int row = t / 32 * 16 + t % 32 / 4 + 8 * (i & 1), k = 2 * (t % 4) + 8 * (i >> 1);

			a[row][k] = low_half(op.a[t][i]);
			a[row][k + 1] = high_half(op.a[t][i]);
		}
}

static void run_gmma(gmma_op *op)
{
	static float a[64][16], b[16][256], d[64][256];
	static std::mutex lock;
	std::lock_guard<std::mutex> hold(lock);
	operand ob(op->first.b_desc, op->first.tb, op->at);
	int n = op->first.n;

	read_a(*op, a);
	for (int k = 0; k < 16; k++)
		for (int j = 0; j < n; j++)
			b[k][j] = ob.get(j, k);
	memset(d, 0, sizeof d);
	for (int i = 0; i < 64; i++)
		for (int k = 0; k < 16; k++)
			for (int j = 0; j < n; j++)
				d[i][j] += a[i][k] * b[k][j];
	for (int t = 0; t < GROUP_THREADS; t++)
		for (int i = 0; i < n / 2; i++) {
			int row = t / 32 * 16 + t % 32 / 4 + 8 * (i >> 1 & 1), col = i / 4 * 8 + 2 * (t % 4) + (i & 1);
			float old = op->old[t].empty() ? op->d[t][i] : op->old[t][static_cast<size_t>(i)];

			op->d[t][i] = d[row][col] + (op->first.keep ? old : 0);
		}
	op->done = true;
}

void gmma_fence(place at)
{
	int me;
	warpgroup *w = my_group(&me, at);

	w->fenced[me] = 1;
}

/* The accumulators belong to the hardware now. Those of an earlier one under way are spoiled already. */
static void spoil(warpgroup *w, size_t upto, gmma_op *op, int me)
{
	for (size_t i = 0; i < upto; i++)
		if (!w->ops[i].done && w->ops[i].d[me] == op->d[me])
			return;
	op->old[me].assign(op->d[me], op->d[me] + op->first.n / 2);
	for (int i = 0; i < op->first.n / 2; i++)
		op->d[me][i] = __uint_as_float(0x7fffffff);
}

static void run_upto(warpgroup *w, int group)
{
	for (gmma_op &op : w->ops)
		if (!op.done && op.group < group) {
			if (op.issued != GROUP_THREADS)
				die(op.at, "only %d threads of the warpgroup have issued it", op.issued);
			run_gmma(&op);
		}
}

void gmma_issue(const gmma_args &g, place at)
{
	int me;
	warpgroup *w = my_group(&me, at);
	size_t i = static_cast<size_t>(w->issued[me]++);

	if (!w->fenced[me])
		die(at, "no wgmma.fence since registers were last handed back");
	if (i == w->ops.size()) {
		w->ops.emplace_back();
		w->ops[i].first = g;
		w->ops[i].at = at;
		w->ops[i].group = w->group[me];
		// one draw for a group: hardware works through them in order
		w->ops[i].late = i && w->ops[i - 1].group == w->group[me] ? w->ops[i - 1].late : late(state_of_block());
		w->ops[i].issued = 0;
		w->ops[i].done = false;
	}
	gmma_op *op = &w->ops[i];

	if (op->first.a_desc != g.a_desc || op->first.b_desc != g.b_desc || op->first.n != g.n || op->first.keep != g.keep ||
	    op->group != w->group[me] || !op->first.a != !g.a)
		die(at, "threads of the warpgroup issue different products (another began at line %d)", op->at.line);
	op->d[me] = g.d;
	op->a[me] = g.a;
	op->issued++;
	spoil(w, i, op, me);
	if (op->issued < GROUP_THREADS || op->late)
		return;
	for (size_t k = 0; k < i; k++) // in order: what they share is the accumulator
		if (!w->ops[k].done)
			run_gmma(&w->ops[k]);
	run_gmma(op);
}

void gmma_commit(place at)
{
	int me;
	warpgroup *w = my_group(&me, at);

	w->group[me]++;
}

void gmma_wait(int may_stay, place at)
{
	int me;
	warpgroup *w = my_group(&me, at);
	int mine = w->generation;

	if (w->waiting && w->wait_for != w->group[me] - may_stay)
		die(at, "threads of the warpgroup wait for different groups");
	w->wait_for = w->group[me] - may_stay;
	w->fenced[me] = 0;
	if (++w->waiting < GROUP_THREADS) {
		while (w->generation == mine)
			pause(at);
		return;
	}
	run_upto(w, w->wait_for);
	w->waiting = 0;
	w->generation++;
	self()->blk->idle = 0;
	bool all = true;
	for (const gmma_op &op : w->ops)
		all = all && op.done;
	if (!all)
		return;
	w->ops.clear();
	memset(w->issued, 0, sizeof w->issued);
}

} // namespace emu

CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *base,
				const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box,
				const cuuint32_t *steps, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
				CUtensorMapL2promotion, CUtensorMapFloatOOBfill)
{
	return emu::cuTensorMapEncodeTiled_(map, type, rank, base, dims, strides, box, steps, swizzle);
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **fn, unsigned, unsigned long long,
					     cudaDriverEntryPointQueryResult *found)
{
	*found = strcmp(name, "cuTensorMapEncodeTiled") == 0 ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
	*fn = *found ? nullptr : reinterpret_cast<void *>(cuTensorMapEncodeTiled);
	return cudaSuccess;
}
