/* emu.cc - fibers, their order, and where they meet. See emu.h. */
#include "emu_int.h"

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include <pthread.h>
#include <mutex>
#include <link.h>
#include <new>
#include <utility>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emu
{

/* What a host thread keeps between kernels. */
struct host {
	char *stacks;    /* MAX_THREADS of them: [thread][page that traps][stack] */
	char *smem, *smem_end; /* dynamic shared memory ends at smem_end, after it comes a page that traps */
	block blk;
	stack_t signals; /* for the report when a fiber's stack is full */
	const launch *now;
	host_state state;
};

enum { SMEM_BYTES = 256 << 10, PAGE = 4096 };

static thread_local host *tls_host;

int setting(const char *name, int otherwise)
{
	const char *s = getenv(name);

	return s && *s ? static_cast<int>(strtol(s, nullptr, 10)) : otherwise;
}

int order()
{
	static const int n = setting("LWM_EMU_ORDER", 0);

	return n;
}

const launch *running()
{
	return tls_host ? tls_host->now : nullptr;
}

static void *map(size_t bytes)
{
	void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		fprintf(stderr, "emu: no memory for %zu bytes\n", bytes);
		abort();
	}
	return p;
}

/* Of threads that have ended: the next one takes it, because each is thousands of mappings. */
static std::mutex spare_lock;
static std::vector<host *> spare;
static pthread_key_t spare_key;
static pthread_once_t spare_once = PTHREAD_ONCE_INIT;

static void give_host(void *h)
{
	std::lock_guard<std::mutex> hold(spare_lock);

	spare.push_back(static_cast<host *>(h));
}

static host *take_host()
{
	std::lock_guard<std::mutex> hold(spare_lock);

	if (spare.empty())
		return nullptr;
	host *h = spare.back();
	spare.pop_back();
	h->state = host_state();
	return h;
}

static host *new_host()
{
	host *h = new host();
	char *p = static_cast<char *>(map((MAX_THREADS + 1) * static_cast<size_t>(STACK)));
	uintptr_t up = (reinterpret_cast<uintptr_t>(p) + STACK - 1) / STACK * STACK;

	h->stacks = reinterpret_cast<char *>(up);
	for (int i = 0; i < MAX_THREADS; i++) {
		mprotect(h->stacks + static_cast<size_t>(i) * STACK + PAGE, PAGE, PROT_NONE);
		new (h->stacks + static_cast<size_t>(i) * STACK) thread();
	}
	h->smem = static_cast<char *>(map(SMEM_BYTES + PAGE));
	h->smem_end = h->smem + SMEM_BYTES;
	mprotect(h->smem_end, PAGE, PROT_NONE);
	h->signals.ss_sp = map(STACK);
	h->signals.ss_size = STACK;
	return h;
}

static host *this_host()
{
	if (tls_host)
		return tls_host;
	pthread_once(&spare_once, [] { pthread_key_create(&spare_key, give_host); });
	tls_host = take_host();
	if (!tls_host)
		tls_host = new_host();
	pthread_setspecific(spare_key, tls_host);
	sigaltstack(&tls_host->signals, nullptr);
	return tls_host;
}

host_state &state_of_host()
{
	return this_host()->state;
}

/* ---- reports ---- */

void die(place at, const char *fmt, ...)
{
	thread *t = self();
	va_list ap;

	fprintf(stderr, "emu: %s:%d: %s in kernel %s, block (%u,%u,%u), thread (%u,%u,%u): ", at.file, at.line, at.what,
		t->blk->kernel, t->blk->bid.x, t->blk->bid.y, t->blk->bid.z, t->tid.x, t->tid.y, t->tid.z);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

/* Nobody can proceed: who waits where. */
[[noreturn]] static void report_deadlock(const block *b)
{
	fprintf(stderr, "emu: deadlock in kernel %s, block (%u,%u,%u):\n", b->kernel, b->bid.x, b->bid.y, b->bid.z);
	for (int i = 0, lines = 0; i < b->threads && lines < 20; i++) {
		const thread *t = b->thread_at[i], *before = i ? b->thread_at[i - 1] : nullptr;

		if (before && before->state == t->state && before->at.line == t->at.line && before->at.file == t->at.file)
			continue;
		if (t->state == ENDED)
			fprintf(stderr, "emu:   from thread (%u,%u,%u) on: ended\n", t->tid.x, t->tid.y, t->tid.z);
		else
			fprintf(stderr, "emu:   from thread (%u,%u,%u) on: %s at %s:%d\n", t->tid.x, t->tid.y, t->tid.z,
				t->at.what, t->at.file, t->at.line);
		lines++;
	}
	abort();
}

/* ---- order ---- */

static uint64_t draw(block *b)
{
	b->rng ^= b->rng << 13;
	b->rng ^= b->rng >> 7;
	b->rng ^= b->rng << 17;
	return b->rng;
}

static void permute(block *b, uint8_t *of_rank, uint8_t *rank_of, int n)
{
	for (int i = 0; i < n; i++)
		of_rank[i] = static_cast<uint8_t>(order() == 1 ? n - 1 - i : i);
	for (int i = n - 1; i > 0 && order() > 1; i--) {
		int j = static_cast<int>(draw(b) % static_cast<uint64_t>(i + 1));

		std::swap(of_rank[i], of_rank[j]);
	}
	for (int i = 0; i < n; i++)
		rank_of[of_rank[i]] = static_cast<uint8_t>(i);
}

static void new_order(block *b)
{
	permute(b, b->lane_of_rank, b->rank_of_lane, WARP);
	permute(b, b->warp_of_rank, b->rank_of_warp, MAX_WARPS);
}

static void make_ready(thread *t)
{
	block *b = t->blk;
	int w = b->rank_of_warp[t->warp];

	t->state = READY;
	b->ready_warps |= 1u << w;
	b->ready_lanes[w] |= 1u << b->rank_of_lane[t->lane];
}

static void wake_paused(block *b)
{
	for (int i = 0; i < b->threads; i++)
		if (b->thread_at[i]->state == PAUSED)
			make_ready(b->thread_at[i]);
	b->paused = 0;
	if (++b->idle > 100000)
		report_deadlock(b);
}

static thread *next_thread(block *b)
{
	if (!b->ready_warps && b->paused)
		wake_paused(b);
	if (!b->ready_warps)
		return nullptr;
	int w = __builtin_ctz(b->ready_warps), l = __builtin_ctz(b->ready_lanes[w]);

	b->ready_lanes[w] &= b->ready_lanes[w] - 1;
	if (!b->ready_lanes[w])
		b->ready_warps &= ~(1u << w);
	thread *t = b->thread_at[b->warp_of_rank[w] * WARP + b->lane_of_rank[l]];
	t->state = RUNNING;
	return t;
}

#if defined(__SANITIZE_ADDRESS__)
/* to NULL: the host's own stack */
static void switch_to(void **save, block *b, const thread *from, thread *to)
{
	void *fake = nullptr;
	bool ends = from && from->state == ENDED;

	__sanitizer_start_switch_fiber(ends ? nullptr : &fake,
				       to ? reinterpret_cast<char *>(to) + 2 * PAGE : b->main_stack,
				       to ? STACK - 2 * PAGE : b->main_stack_bytes);
	emu_switch(save, to ? to->sp : b->main_sp);
	__sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}

static void first_breath(block *b)
{
	const void *bottom;
	size_t bytes;

	__sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
	if (!b->main_stack) {
		b->main_stack = bottom;
		b->main_stack_bytes = bytes;
	}
}
#else
static void switch_to(void **save, block *b, const thread *, thread *to)
{
	emu_switch(save, to ? to->sp : b->main_sp);
}

static void first_breath(block *)
{
}
#endif

/* The running fiber gives way; it comes back when somebody made it ready and its turn comes. */
static void give_way(thread *t)
{
	thread *n = next_thread(t->blk);

	if (n == t)
		return;
	switch_to(&t->sp, t->blk, t, n);
}

/* ---- meeting ---- */

static void wake_lanes(block *b, int w, unsigned mask)
{
	for (unsigned m = mask; m; m &= m - 1)
		make_ready(b->thread_at[w * WARP + __builtin_ctz(m)]);
	b->idle = 0;
}

static group *find_group(warp *w, unsigned mask, warp_fn *fn, place at)
{
	group *empty = nullptr;

	for (group &g : w->groups) {
		if (g.arrived && g.mask == mask) {
			if (g.fn != fn)
				die(at, "lanes of one mask do different things: others do %s at %s:%d", g.at.what,
				    g.at.file, g.at.line);
			return &g;
		}
		if (!g.arrived && !empty)
			empty = &g;
	}
	if (!empty)
		die(at, "more than %d groups of lanes wait in one warp", GROUPS);
	*empty = { mask, 0, fn, at };
	return empty;
}

void meet_warp(unsigned mask, warp_fn *fn, void *arg, place at)
{
	thread *t = self();
	warp *w = &t->blk->warp_at[t->warp];
	unsigned me = 1u << t->lane;

	mask &= w->exists;
	t->at = at;
	if (!(mask & me))
		die(at, "the lane is not in its own mask 0x%08x", mask);
	if (mask & w->ended)
		die(at, "the mask 0x%08x names lanes that have ended (0x%08x)", mask, w->ended);
	group *g = find_group(w, mask, fn, at);
	g->arrived |= me;
	w->args[t->lane] = arg;
	t->state = IN_WARP;
	if (g->arrived == mask) {
		g->arrived = 0;
		if (fn)
			fn(w->args, mask);
		wake_lanes(t->blk, t->warp, mask);
	}
	give_way(t);
}

static barrier *arrive(int id, int expected, int64_t value, place at)
{
	thread *t = self();

	if (id < 0 || id >= BARRIERS || expected < 1 || expected > t->blk->threads)
		die(at, "barrier %d of %d threads in a block of %d", id, expected, t->blk->threads);
	barrier *r = &t->blk->barriers[id];

	if (r->arrived && r->expected != expected)
		die(at, "barrier %d is waited at by %d and by %d threads", id, r->expected, expected);
	if (r->arrived && id == 0 && (r->at.line != at.line || strcmp(r->at.file, at.file) != 0))
		die(at, "others of the block wait at another barrier, %s:%d", r->at.file, r->at.line);
	if (!r->arrived)
		*r = { expected, 0, 0, at };
	r->arrived++;
	r->sum += value;
	return r;
}

/* Everybody is there. When nobody else is awake, that is the moment for another order. */
static void release(block *b, int id, const thread *last)
{
	barrier *r = &b->barriers[id];

	b->result[id] = r->sum;
	r->arrived = 0;
	b->idle = 0;
	if (!b->ready_warps)
		new_order(b);
	for (int i = 0; i < b->threads; i++) {
		thread *t = b->thread_at[i];

		if (t != last && t->state == IN_BARRIER && t->barrier == id)
			make_ready(t);
	}
}

int64_t meet_block(int id, int expected, int64_t value, place at)
{
	thread *t = self();
	block *b = t->blk;
	barrier *r;

	t->at = at;
	r = arrive(id, expected, value, at);
	t->state = IN_BARRIER;
	t->barrier = id;
	if (r->arrived == r->expected) {
		release(b, id, t);
		make_ready(t);
	}
	give_way(t);
	return b->result[id];
}

void arrive_block(int id, int expected, place at)
{
	barrier *r = arrive(id, expected, 0, at);

	if (r->arrived == r->expected)
		release(self()->blk, id, self());
}

void pause(place at)
{
	thread *t = self();

	t->at = at;
	t->state = PAUSED;
	t->blk->paused++;
	give_way(t);
}

/* ---- shared memory ---- */

/* This thread's thread_local variables of this library: what kernels declared __shared__, and tls_host. */
struct tls_range {
	const void *code;
	char *from;
	size_t bytes;
};

static int find_tls(struct dl_phdr_info *info, size_t, void *arg)
{
	tls_range *r = static_cast<tls_range *>(arg);
	bool mine = false;
	size_t bytes = 0;

	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t from = info->dlpi_addr + p->p_vaddr, at = reinterpret_cast<uintptr_t>(r->code);

		if (p->p_type == PT_LOAD && at >= from && at < from + p->p_memsz)
			mine = true;
		if (p->p_type == PT_TLS)
			bytes = p->p_memsz;
	}
	if (!mine)
		return 0;
	r->from = static_cast<char *>(info->dlpi_tls_data);
	r->bytes = bytes;
	return 1;
}

static tls_range static_shared()
{
	tls_range r = { reinterpret_cast<const void *>(&find_tls), nullptr, 0 };

	dl_iterate_phdr(find_tls, &r);
	return r;
}

void want_shared(const void *p, size_t bytes, size_t align, place at)
{
	const block *b = self()->blk;
	const char *c = static_cast<const char *>(p);

	if (reinterpret_cast<uintptr_t>(p) % align)
		die(at, "%p is not aligned to %zu bytes", p, align);
	if (c >= b->smem && c + bytes <= b->smem + b->smem_bytes)
		return;
	tls_range r = static_shared();
	if (c < r.from || c + bytes > r.from + r.bytes)
		die(at, "%p is not in shared memory (%zu bytes of dynamic shared memory from %p)", p, b->smem_bytes,
		    static_cast<void *>(b->smem));
}

/* What an earlier block left must not be read: everything becomes NaN or -1. */
static void spoil_shared(host *h, const block *b, const tls_range &r)
{
	memset(b->smem, 0xff, static_cast<size_t>(h->smem_end - b->smem));
	if (r.from)
		memset(r.from, 0xff, r.bytes);
	tls_host = h;
}

/* Behind the dynamic shared memory is up to 1023 bytes of slack, then a page that traps. */
static void check_slack(const host *h, const block *b)
{
	for (const char *p = b->smem + b->smem_bytes; p < h->smem_end; p++) {
		if (static_cast<unsigned char>(*p) == 0xff)
			continue;
		fprintf(stderr, "emu: kernel %s, block (%u,%u,%u) wrote %td bytes behind its %zu bytes of shared memory\n",
			b->kernel, b->bid.x, b->bid.y, b->bid.z, p - (b->smem + b->smem_bytes), b->smem_bytes);
		abort();
	}
}

/* ---- blocks ---- */

static void end_thread(thread *t)
{
	warp *w = &t->blk->warp_at[t->warp];

	t->at = { "end", "", 0 };
	for (const group &g : w->groups)
		if (g.arrived && (g.mask & 1u << t->lane))
			die(g.at, "lane %d ends while others of the mask 0x%08x wait for it", t->lane, g.mask);
	w->ended |= 1u << t->lane;
	t->state = ENDED;
	t->blk->live--;
	t->blk->idle = 0;
	if (t->copies)
		t->copies->clear();
}

static void fiber_main()
{
	thread *t = self();

	first_breath(t->blk);
	(*t->blk->body)();
	end_thread(t);
	give_way(t);
	abort(); // nobody wakes a thread that has ended
}

static thread *make_thread(host *h, block *b, int i)
{
	char *base = h->stacks + static_cast<size_t>(i) * STACK;
	thread *t = reinterpret_cast<thread *>(base);
	unsigned u = static_cast<unsigned>(i);

	t->blk = b;
	t->tid = { u % b->dim.x, u / b->dim.x % b->dim.y, u / (b->dim.x * b->dim.y) };
	t->linear = i;
	t->lane = i % WARP;
	t->warp = i / WARP;
	t->group = 0;
	t->ext = nullptr;
	t->at = { "start", "", 0 };
	t->sp = emu_fresh_stack(base + STACK, fiber_main);
	b->warp_at[t->warp].exists |= 1u << t->lane;
	b->thread_at[i] = t;
	return t;
}

static void start_block(host *h, block *b, uint64_t linear)
{
	memset(b->warp_at, 0, sizeof b->warp_at);
	memset(b->barriers, 0, sizeof b->barriers);
	memset(b->ready_lanes, 0, sizeof b->ready_lanes);
	b->ready_warps = 0;
	b->live = b->threads;
	b->paused = b->idle = 0;
	b->ext = nullptr;
	b->main_stack = nullptr;
	b->rng = (linear + 1) * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(order()) * 0xbf58476d1ce4e5b9u;
	b->rng |= 1;
	b->bid = { static_cast<unsigned>(linear % b->grid.x), static_cast<unsigned>(linear / b->grid.x % b->grid.y),
		   static_cast<unsigned>(linear / b->grid.x / b->grid.y) };
	new_order(b);
	for (int i = 0; i < b->threads; i++)
		make_ready(make_thread(h, b, i));
}

static void run_block(host *h, block *b, const tls_range &shared, uint64_t linear)
{
	spoil_shared(h, b, shared);
	start_block(h, b, linear);
	switch_to(&b->main_sp, b, nullptr, next_thread(b));
	if (b->live)
		report_deadlock(b);
	check_slack(h, b);
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
	return b ? common_divisor(b, a % b) : a;
}

/* Block number i of n in the order chosen: forwards, backwards, or in steps that n does not share a divisor with. */
static uint64_t block_in_order(uint64_t i, uint64_t n, uint64_t step)
{
	if (order() == 0)
		return i;
	if (order() == 1)
		return n - 1 - i;
	return static_cast<uint64_t>((static_cast<unsigned __int128>(i) * step + step / 2) % n);
}

void run_kernel(const launch &l, const std::function<void()> &body)
{
	host *h = this_host();
	block *b = &h->blk;
	uint64_t n = static_cast<uint64_t>(l.grid.x) * l.grid.y * l.grid.z, step;
	tls_range shared = static_shared();

	b->grid = l.grid;
	b->dim = l.dim;
	b->threads = static_cast<int>(l.dim.x * l.dim.y * l.dim.z);
	b->warps = (b->threads + WARP - 1) / WARP;
	b->kernel = l.kernel;
	b->body = &body;
	b->smem_bytes = l.smem;
	b->smem = h->smem_end - (l.smem + 1023) / 1024 * 1024;
	h->now = &l;
	for (step = n * 5 / 8 + static_cast<uint64_t>(order()) % 97; common_divisor(step, n) != 1;)
		step++;
	for (uint64_t i = 0; i < n; i++)
		run_block(h, b, shared, block_in_order(i, n, step));
	h->now = nullptr;
}

} // namespace emu
