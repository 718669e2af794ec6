/* ptx90_emu.h - the bodies of ptx90.h on the CPU, after the PTX ISA document; what they do stands in emu_sm90.cc.
 *
 * What the hardware does behind the threads' back happens, with LWM_EMU_ORDER=0, at once; with 1, at the last moment that is
 * allowed, when somebody waits for it, and until then the destination is full of NaN; with other numbers one or the other
 * is drawn for each instruction. */
#ifndef EMU_PTX90_EMU_H
#define EMU_PTX90_EMU_H

#include "cuda.h"

namespace emu
{

void mbar_init(uint64_t *bar, int count, place at);
void mbar_arrive(uint64_t *bar, uint32_t expect, place at);
void mbar_wait(uint64_t *bar, int parity, place at);

/* c: as many coordinates as the map has dimensions */
void tma_load(void *dst, const CUtensorMap *map, uint64_t *bar, const int *c, int rank, place at);
void bulk_load(void *dst, const void *src, uint32_t bytes, uint64_t *bar, place at);
/* add: sums of fp32, otherwise bytes */
void tma_store(const CUtensorMap *map, const void *src, const int *c, int rank, bool add, place at);
void bulk_commit();
void bulk_wait(bool only_read, place at);

/* One wgmma of m64nNk16, as one thread of the warpgroup issues it. a: registers, or NULL: a_desc. */
struct gmma_args {
	float *d;
	const uint32_t *a;
	uint64_t a_desc, b_desc;
	int n, ta, tb, keep;
};
void gmma_fence(place at);
void gmma_issue(const gmma_args &g, place at);
void gmma_commit(place at);
void gmma_wait(int may_stay, place at);
uint64_t gmma_desc(const void *p, uint32_t leading, uint32_t stride, int swizzle, place at);

struct stmatrix_args {
	uint16_t *row;
	const uint32_t *r;
};

static inline void stmatrix_all(void *const *args, unsigned)
{
	for (int l = 0; l < WARP; l++)
		for (int i = 0; i < 4; i++)
			memcpy(static_cast<stmatrix_args *>(args[8 * i + l / 4])->row + 2 * (l % 4),
			       &static_cast<stmatrix_args *>(args[l])->r[i], 4);
}

} // namespace emu

static inline void lk_mbar_init(uint64_t *bar, int count, EMU_HERE)
{
	emu::mbar_init(bar, count, { "mbarrier.init", file, line });
}

static inline void lk_mbar_init_fence(void)
{
}

static inline void lk_mbar_arrive(uint64_t *bar, EMU_HERE)
{
	emu::mbar_arrive(bar, 0, { "mbarrier.arrive", file, line });
}

static inline void lk_mbar_expect(uint64_t *bar, uint32_t bytes, EMU_HERE)
{
	emu::mbar_arrive(bar, bytes, { "mbarrier.arrive.expect_tx", file, line });
}

static inline void lk_mbar_wait(uint64_t *bar, int parity, EMU_HERE)
{
	emu::mbar_wait(bar, parity, { "mbarrier.try_wait", file, line });
}

static inline void lk_tma_load3(void *dst, const CUtensorMap *map, uint64_t *bar, int c0, int c1, int c2, EMU_HERE)
{
	const int c[] = { c0, c1, c2 };

	emu::tma_load(dst, map, bar, c, 3, { "cp.async.bulk.tensor.3d", file, line });
}

static inline void lk_tma_load4(void *dst, const CUtensorMap *map, uint64_t *bar, int c0, int c1, int c2, int c3, EMU_HERE)
{
	const int c[] = { c0, c1, c2, c3 };

	emu::tma_load(dst, map, bar, c, 4, { "cp.async.bulk.tensor.4d", file, line });
}

static inline void lk_tma_store4(const CUtensorMap *map, const void *src, int c0, int c1, int c2, int c3, EMU_HERE)
{
	const int c[] = { c0, c1, c2, c3 };

	emu::tma_store(map, src, c, 4, false, { "cp.async.bulk.tensor.4d", file, line });
}

static inline void lk_bulk_load(void *dst, const void *src, uint32_t bytes, uint64_t *bar, EMU_HERE)
{
	emu::bulk_load(dst, src, bytes, bar, { "cp.async.bulk", file, line });
}

static inline void lk_tma_add3(const CUtensorMap *map, const void *src, int c0, int c1, int c2, EMU_HERE)
{
	const int c[] = { c0, c1, c2 };

	emu::tma_store(map, src, c, 3, true, { "cp.reduce.async.bulk.tensor", file, line });
}

static inline void lk_tma_prefetch(const CUtensorMap *)
{
}

static inline void lk_bulk_commit(void)
{
	emu::bulk_commit();
}

static inline void lk_bulk_wait(EMU_HERE)
{
	emu::bulk_wait(false, { "cp.async.bulk.wait_group", file, line });
}

static inline void lk_bulk_wait_read(EMU_HERE)
{
	emu::bulk_wait(true, { "cp.async.bulk.wait_group.read", file, line });
}

static inline void lk_fence_async(void)
{
}

static inline void lk_fence_async_all(void)
{
}

static inline void lk_flag_wait(const int *flag, int value, EMU_HERE)
{
	while (*static_cast<const volatile int *>(flag) != value)
		emu::pause({ "waiting for a flag", file, line });
}

static inline void lk_flag_post(int *flag, int value)
{
	*flag = value;
	emu::self()->blk->idle = 0;
}

static inline void lk_bar_sync(int id, int threads, EMU_HERE)
{
	emu::meet_block(id, threads, 0, { "bar.sync", file, line });
}

static inline void lk_bar_arrive(int id, int threads, EMU_HERE)
{
	emu::arrive_block(id, threads, { "bar.arrive", file, line });
}

template <int N> static inline void lk_regs_inc(void)
{
	static_assert(N % 8 == 0 && N >= 24 && N <= 256, "what setmaxnreg takes");
}

template <int N> static inline void lk_regs_dec(void)
{
	static_assert(N % 8 == 0 && N >= 24 && N <= 256, "what setmaxnreg takes");
}

static inline void lk_stmatrix4(void *row, const uint32_t r[4], EMU_HERE)
{
	emu::stmatrix_args m = { static_cast<uint16_t *>(row), r };

	emu::want_shared(row, 16, 16, { "stmatrix", file, line });
	emu::warp_op(emu::stmatrix_all, &m, { "stmatrix", file, line });
}

static inline void lk_gmma_fence(EMU_HERE)
{
	emu::gmma_fence({ "wgmma.fence", file, line });
}

static inline void lk_gmma_commit(EMU_HERE)
{
	emu::gmma_commit({ "wgmma.commit_group", file, line });
}

template <int N> static inline void lk_gmma_wait(EMU_HERE)
{
	emu::gmma_wait(N, { "wgmma.wait_group", file, line });
}

template <class T, int N> static inline void lk_gmma_hold(T (&)[N])
{
}

static inline uint64_t lk_gmma_desc(const void *p, uint32_t leading, uint32_t stride, int swizzle, EMU_HERE)
{
	return emu::gmma_desc(p, leading, stride, swizzle, { "matrix descriptor", file, line });
}

template <int TA, int TB, int R>
static inline void lk_gmma_ss(float (&d)[R], uint64_t a_desc, uint64_t b_desc, int keep, EMU_HERE)
{
	emu::gmma_issue({ d, nullptr, a_desc, b_desc, 2 * R, TA, TB, keep }, { "wgmma.mma_async", file, line });
}

template <int TB, int R>
static inline void lk_gmma_rs(float (&d)[R], const uint32_t *a, uint64_t b_desc, int keep, EMU_HERE)
{
	emu::gmma_issue({ d, a, 0, b_desc, 2 * R, 0, TB, keep }, { "wgmma.mma_async", file, line });
}

#endif
