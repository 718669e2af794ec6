/* emu.h - threads of a GPU as fibers of the host thread that launches a kernel.
 *
 * A block runs as up to 1024 fibers, one at a time, blocks one after the other. A fiber runs until it meets others: at a
 * block's barrier, at an operation of a warp, or when it says that it spins (pause). Which one goes on then follows from
 * LWM_EMU_ORDER: 0 the lowest warp and lane, 1 the highest, other numbers seed an order that is drawn anew for each block
 * and after each barrier. A warp runs as far as it can before the next one, so that a missing barrier gives a wrong
 * result in at least one of a few orders.
 */
#ifndef EMU_EMU_H
#define EMU_EMU_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "vector_types.h"

#define EMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

struct emu_stream;

namespace emu
{

enum { WARP = 32, MAX_THREADS = 1024, MAX_WARPS = 32, BARRIERS = 16, GROUPS = 8, STACK = 65536 };

/* A place in a kernel where a thread waits. */
struct place {
	const char *what, *file;
	int line;
};

/* One cp.async under way. */
struct async_copy {
	void *dst;
	const void *src;
	int bytes, valid;
	int64_t group;
};

enum state { READY, RUNNING, IN_WARP, IN_BARRIER, PAUSED, ENDED };

/* Lies at the bottom of the fiber's stack; see self(). */
struct thread {
	void *sp;
	struct block *blk;
	uint3 tid;
	int linear, lane, warp;
	enum state state;
	int barrier;        /* where it waits, while IN_BARRIER */
	place at;
	std::vector<async_copy> *copies;
	int64_t group;      /* of the copies that are issued now */
	void *ext;          /* of ptx90_emu.h; NULL at the start of a block */
};

/* What an operation of a warp does when all lanes of `mask` are there: args[lane] is what that lane handed over. */
typedef void warp_fn(void *const *args, unsigned mask);

/* Lanes that wait for the rest of their mask. */
struct group {
	unsigned mask, arrived;
	warp_fn *fn;
	place at;
};

struct warp {
	unsigned exists, ended;
	group groups[GROUPS];
	void *args[WARP];
};

struct barrier {
	int expected, arrived;
	int64_t sum; /* of what the threads bring: for __syncthreads_count, _or, _and */
	place at;
};

struct block {
	uint3 bid;
	dim3 grid, dim;
	const std::function<void()> *body;
	const char *kernel;
	char *smem;
	size_t smem_bytes;
	int threads, warps, live;
	thread *thread_at[MAX_THREADS];
	warp warp_at[MAX_WARPS];
	barrier barriers[BARRIERS];
	int64_t result[BARRIERS];
	/* by rank: lanes and warps in the order in which they are taken */
	uint32_t ready_warps, ready_lanes[MAX_WARPS];
	uint8_t rank_of_lane[WARP], lane_of_rank[WARP], rank_of_warp[MAX_WARPS], warp_of_rank[MAX_WARPS];
	int paused;
	int idle; /* rounds in which threads did nothing but pause */
	uint64_t rng;
	void *main_sp;
	const void *main_stack; /* for the address sanitizer */
	size_t main_stack_bytes;
	void *ext; /* of ptx90_emu.h; NULL at the start of a block */
};

/* Of the fiber that runs: its stack is aligned to its size. Only inside kernels. */
static inline thread *self()
{
	return reinterpret_cast<thread *>(reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) &
					  ~static_cast<uintptr_t>(STACK - 1));
}

/* All lanes of mask meet; the last one runs fn. args[] are pointers to what the lanes gave. */
void meet_warp(unsigned mask, warp_fn *fn, void *arg, place at);
/* The threads of the block meet at barrier id, `expected` of them (arrive: this one does not wait). Returns the sum of the
 * values brought. */
int64_t meet_block(int id, int expected, int64_t value, place at);
void arrive_block(int id, int expected, place at);
/* This thread waits for something that others change in memory: all others go first. */
void pause(place at);
/* Ends the program with a sentence that names kernel, block, thread. */
[[noreturn]] void die(place at, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Ends the program unless [p, p + bytes) is shared memory of this block. */
void want_shared(const void *p, size_t bytes, size_t align, place at);

/* For cp.async: notes the copy and spoils the destination; copies everything up to the groups that may stay under way. */
void copy_later(void *dst, const void *src, int bytes, int valid, place at);
void copies_commit();
void copies_wait(int64_t may_stay);

struct launch {
	const char *kernel, *file;
	int line;
	const void *fn;
	dim3 grid, dim;
	size_t smem;
	emu_stream *stream;
};
/* Checks the shape as CUDA does, then queues it. body runs one thread. */
void launch_kernel(const launch &l, std::function<void()> body);

/* An environment variable as a number. */
int setting(const char *name, int otherwise);

} // namespace emu
#endif
