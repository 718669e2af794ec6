/* emu_mem.cc - memory of the emulated GPUs.
 *
 * Every allocation has pages of its own, ends where its last page ends (but for padding to 256 bytes) and is followed by a
 * page that traps; addresses are not used twice. The pages can be touched while a kernel or a copy of that GPU runs, at
 * other times a host access traps. New memory is full of 0xff, NaN or -1, up to 256 KiB from either end. */
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>

#include "cuda_runtime.h"
#include "emu_int.h"

namespace emu
{

enum { PAGE = 4096, ROUND = 256, CANARY = 0xa5, SPOILED = 256 << 10 };
static const size_t SPACE = static_cast<size_t>(1) << 40; /* of addresses, for all GPUs */

struct allocation {
	char *map, *user;
	size_t map_bytes, bytes;
	int gpu;
};

static std::mutex lock;
static std::map<char *, allocation> live; /* by the address after its last byte */
static std::map<char *, size_t> pinned;   /* likewise */
static char *space, *space_next;
static size_t used[MAX_GPUS];
static int opened[MAX_GPUS];

static size_t capacity()
{
	static const size_t mib = static_cast<size_t>(setting("LWM_EMU_MEMORY_MIB", 8192));

	return mib << 20;
}

/* ---- faults ---- */

static void say_where(const char *p)
{
	for (const auto &e : live) {
		const allocation &a = e.second;

		if (p >= a.map - PAGE && p < a.map + a.map_bytes + PAGE)
			fprintf(stderr, "emu: that is byte %td of an allocation of %zu bytes on GPU %d\n", p - a.user, a.bytes,
				a.gpu);
	}
}

static void on_fault(int sig, siginfo_t *info, void *)
{
	const char *p = static_cast<const char *>(info->si_addr);
	const launch *l = running();

	if (l)
		fprintf(stderr, "emu: kernel %s (launched at %s:%d) touches %p, which it may not\n", l->kernel, l->file, l->line,
			info->si_addr);
	else if (p >= space && p < space + SPACE)
		fprintf(stderr, "emu: the host touches device memory at %p\n", info->si_addr);
	if (p >= space && p < space + SPACE)
		say_where(p);
	signal(sig, SIG_DFL); // and the instruction traps again
}

static void start()
{
	struct sigaction sa = {};

	space = static_cast<char *>(mmap(nullptr, SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	if (space == MAP_FAILED) {
		fprintf(stderr, "emu: no address space\n");
		abort();
	}
	space_next = space + PAGE;
	sa.sa_sigaction = on_fault;
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigaction(SIGSEGV, &sa, nullptr);
	sigaction(SIGBUS, &sa, nullptr);
}

/* ---- device memory ---- */

/* Large allocations at both ends only: every page in use makes open_memory and close_memory slower. */
static void spoil(const allocation &a)
{
	size_t end = a.bytes < SPOILED ? a.bytes : SPOILED;

	memset(a.map, CANARY, static_cast<size_t>(a.user - a.map));
	memset(a.user, 0xff, end);
	memset(a.user + a.bytes - end, 0xff, end);
	memset(a.user + a.bytes, CANARY, static_cast<size_t>(a.map + a.map_bytes - (a.user + a.bytes)));
}

void *device_alloc(int gpu, size_t bytes)
{
	std::lock_guard<std::mutex> hold(lock);
	size_t padded = (bytes + ROUND - 1) / ROUND * ROUND, whole = (padded + PAGE - 1) / PAGE * PAGE;
	static bool started;

	if (!started)
		start();
	started = true;
	if (used[gpu] + whole > capacity() || space_next + whole + PAGE > space + SPACE)
		return nullptr;
	allocation a = { space_next, space_next + whole - padded, whole, bytes, gpu };
	mprotect(a.map, whole, PROT_READ | PROT_WRITE);
	spoil(a);
	if (!opened[gpu])
		mprotect(a.map, whole, PROT_NONE);
	space_next += whole + PAGE;
	used[gpu] += whole;
	live[a.user + (bytes ? bytes : 1)] = a;
	return a.user;
}

/* NULL: none. A pointer to the end is not inside. */
static const allocation *find(const void *p)
{
	auto it = live.upper_bound(const_cast<char *>(static_cast<const char *>(p)));

	return it != live.end() && static_cast<const char *>(p) >= it->second.user ? &it->second : nullptr;
}

static void check_canary(const allocation &a, const launch *l)
{
	for (const char *p = a.user + a.bytes; p < a.map + a.map_bytes; p++) {
		if (static_cast<unsigned char>(*p) == CANARY)
			continue;
		fprintf(stderr, "emu: %s wrote byte %td of an allocation of %zu bytes on GPU %d\n", l ? l->kernel : "somebody",
			p - a.user, a.bytes, a.gpu);
		abort();
	}
}

bool device_free(void *p)
{
	std::lock_guard<std::mutex> hold(lock);
	const allocation *found = find(p);

	if (!found || found->user != p)
		return false;
	allocation a = *found;
	mmap(a.map, a.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	used[a.gpu] -= a.map_bytes;
	live.erase(a.user + (a.bytes ? a.bytes : 1));
	return true;
}

void device_memory(int gpu, size_t *free_bytes, size_t *total)
{
	std::lock_guard<std::mutex> hold(lock);

	*total = capacity();
	*free_bytes = capacity() - used[gpu];
}

int device_of(const void *p)
{
	std::lock_guard<std::mutex> hold(lock);
	const allocation *a = find(p);

	return a ? a->gpu : -1;
}

bool device_holds(const void *p, size_t bytes)
{
	std::lock_guard<std::mutex> hold(lock);
	const allocation *a = find(p);

	if (a && static_cast<const char *>(p) + bytes <= a->user + a->bytes)
		return true;
	fprintf(stderr, "emu: %zu bytes at %p are not device memory", bytes, p);
	if (a)
		fprintf(stderr, ": byte %td of an allocation of %zu bytes", static_cast<const char *>(p) - a->user, a->bytes);
	fputc('\n', stderr);
	return false;
}

void open_memory(int gpu)
{
	std::lock_guard<std::mutex> hold(lock);

	if (opened[gpu]++)
		return;
	for (const auto &e : live)
		if (e.second.gpu == gpu)
			mprotect(e.second.map, e.second.map_bytes, PROT_READ | PROT_WRITE);
}

void close_memory(int gpu, const launch *l)
{
	std::lock_guard<std::mutex> hold(lock);

	if (--opened[gpu])
		return;
	for (const auto &e : live) {
		if (e.second.gpu != gpu)
			continue;
		check_canary(e.second, l);
		mprotect(e.second.map, e.second.map_bytes, PROT_NONE);
	}
}

/* ---- pinned host memory ---- */

void *host_alloc(size_t bytes)
{
	std::lock_guard<std::mutex> hold(lock);
	char *p = static_cast<char *>(aligned_alloc(PAGE, (bytes + PAGE) / PAGE * PAGE));

	if (p)
		pinned[p + (bytes ? bytes : 1)] = bytes ? bytes : 1;
	return p;
}

bool host_pinned(const void *p)
{
	std::lock_guard<std::mutex> hold(lock);
	auto it = pinned.upper_bound(const_cast<char *>(static_cast<const char *>(p)));

	return it != pinned.end() && static_cast<const char *>(p) >= it->first - it->second;
}

bool host_free(void *p)
{
	std::lock_guard<std::mutex> hold(lock);
	auto it = pinned.upper_bound(static_cast<char *>(p));

	if (it == pinned.end() || it->first - it->second != p)
		return false;
	pinned.erase(it);
	free(p);
	return true;
}

} // namespace emu
