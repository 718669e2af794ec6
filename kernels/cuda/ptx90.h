/* ptx90.h - machine instructions that only Hopper (sm_90a) has, one function each.
 *
 * Sections named below are those of the PTX ISA document. Shared memory is written by three parties: threads ("generic
 * proxy"), TMA and wgmma ("async proxy"); lk_fence_async stands between a thread's write and a read by the others.
 *
 * Tiles of bf16 lie in shared memory as column blocks of W elements, each block rows x W with nothing between, swizzled:
 * of a byte address, the bits that count 16-byte pieces (4 and up) are xored with the bits that count rows (7 and up); three
 * bits for W = 64 (128-byte rows), two for W = 32 (64-byte rows). TMA writes blocks like that when its box is W wide, wgmma
 * reads them when its descriptor says so. Blocks start at multiples of 1024 bytes.
 *
 * Descriptor of a wgmma operand ("Asynchronous Warpgroup Level Matrix Shared Memory Layout", "Matrix Descriptor Format"):
 * bits 0-13 address / 16, 16-29 leading offset / 16, 32-45 stride offset / 16, 62-63 swizzle (1: 128 bytes, 2: 64 bytes).
 *   K-major (the sum runs along the row of W): stride = bytes of 8 rows; leading: not used. 16 elements of the sum further:
 *     32 bytes further within the row, then the next block.
 *   MN-major (the sum runs down the rows): stride = bytes of 8 rows, leading = bytes from one column block to the next.
 *     16 elements of the sum further: 16 rows further.
 *
 * Accumulators of m64nN: thread t of the warpgroup, w = t / 32, g = t % 32 / 4, c = t % 4; d[4i], d[4i+1]: row 16w+g, columns
 * 8i+2c, 8i+2c+1; d[4i+2], d[4i+3]: row 16w+g+8. An A operand in registers is that of lk_mma16816 for the warp's 16 rows.
 * Between a wgmma and the lk_gmma_wait that covers it nobody touches its accumulators, nor its A registers.
 */
#ifndef LK_CUDA_PTX90_H
#define LK_CUDA_PTX90_H

#include <cuda.h> /* CUtensorMap; nothing of libcuda is linked */

#include "kernels/cuda/ptx.h"

#ifdef LK_EMU
#include "ptx90_emu.h"
#else

/* ---- mbarrier: "Parallel Synchronization and Communication Instructions: mbarrier" ---- */

/* A phase ends when `count` arrivals and all expected bytes have come. One thread; then lk_mbar_init_fence. */
__device__ static inline void lk_mbar_init(uint64_t *bar, int count)
{
	asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(lk_smem_addr(bar)), "r"(count) : "memory");
}

/* Makes initialised barriers known to the async proxy; before the __syncthreads that shows them to the others. */
__device__ static inline void lk_mbar_init_fence(void)
{
	asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}

__device__ static inline void lk_mbar_arrive(uint64_t *bar)
{
	asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(lk_smem_addr(bar)) : "memory");
}

/* Arrives once and adds to the bytes that this phase waits for. */
__device__ static inline void lk_mbar_expect(uint64_t *bar, uint32_t bytes)
{
	asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(lk_smem_addr(bar)), "r"(bytes)
		     : "memory");
}

/* Waits for the end of the phase of this parity: the first phase has parity 0. "The phase before the first" has ended. */
__device__ static inline void lk_mbar_wait(uint64_t *bar, int parity)
{
	uint32_t done;

	do {
		asm volatile("{\n.reg .pred p;\n"
			     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
			     "selp.b32 %0, 1, 0, p;\n}\n"
			     : "=r"(done)
			     : "r"(lk_smem_addr(bar)), "r"(parity)
			     : "memory");
	} while (!done);
}

/* ---- TMA: "Data Movement and Conversion Instructions: Tensor copy", "Bulk copy" ---- */

/* A box of the map from coordinates (c0, c1, c2), innermost first, into shared memory; elements outside the tensor are 0.
 * The whole box counts as expected bytes at bar. One thread. */
__device__ static inline void lk_tma_load3(void *dst, const CUtensorMap *map, uint64_t *bar, int c0, int c1, int c2)
{
	asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
		     " [%0], [%1, {%3, %4, %5}], [%2];\n" ::"r"(lk_smem_addr(dst)),
		     "l"(map), "r"(lk_smem_addr(bar)), "r"(c0), "r"(c1), "r"(c2)
		     : "memory");
}

__device__ static inline void lk_tma_load4(void *dst, const CUtensorMap *map, uint64_t *bar, int c0, int c1, int c2, int c3)
{
	asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
		     " [%0], [%1, {%3, %4, %5, %6}], [%2];\n" ::"r"(lk_smem_addr(dst)),
		     "l"(map), "r"(lk_smem_addr(bar)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
		     : "memory");
}

/* A box in shared memory into the tensor; what lies outside is dropped. One thread; see lk_bulk_commit. */
__device__ static inline void lk_tma_store4(const CUtensorMap *map, const void *src, int c0, int c1, int c2, int c3)
{
	asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];\n" ::"l"(map),
		     "r"(lk_smem_addr(src)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
		     : "memory");
}

/* bytes: multiple of 16, as are both addresses. */
__device__ static inline void lk_bulk_load(void *dst, const void *src, uint32_t bytes, uint64_t *bar)
{
	asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(
			     lk_smem_addr(dst)),
		     "l"(src), "r"(bytes), "r"(lk_smem_addr(bar))
		     : "memory");
}

/* Adds a box of fp32 in shared memory to the tensor; what lies outside is dropped. One thread; see lk_bulk_commit. */
__device__ static inline void lk_tma_add3(const CUtensorMap *map, const void *src, int c0, int c1, int c2)
{
	asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4}], [%1];\n" ::"l"(
			     map),
		     "r"(lk_smem_addr(src)), "r"(c0), "r"(c1), "r"(c2)
		     : "memory");
}

__device__ static inline void lk_tma_prefetch(const CUtensorMap *map)
{
	asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory");
}

/* Closes the group of this thread's stores and adds since the last one. */
__device__ static inline void lk_bulk_commit(void)
{
	asm volatile("cp.async.bulk.commit_group;\n" ::: "memory");
}

/* Waits until this thread's groups are written; _read: until their shared memory was read. */
__device__ static inline void lk_bulk_wait(void)
{
	asm volatile("cp.async.bulk.wait_group 0;\n" ::: "memory");
}

__device__ static inline void lk_bulk_wait_read(void)
{
	asm volatile("cp.async.bulk.wait_group.read 0;\n" ::: "memory");
}

/* "Membar / Fence": what this thread wrote to shared memory is seen by TMA and wgmma. */
__device__ static inline void lk_fence_async(void)
{
	asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

/* The same for all memory: between adds by TMA and the flag that tells another block of them. */
__device__ static inline void lk_fence_async_all(void)
{
	asm volatile("fence.proxy.async;\n" ::: "memory");
}

/* ---- between blocks: "Memory Consistency Model: Release and Acquire Patterns" ---- */

/* Waits until *flag == value, and sees what the block that posted it wrote before. */
__device__ static inline void lk_flag_wait(const int *flag, int value)
{
	int seen;

	do {
		asm volatile("ld.acquire.gpu.global.b32 %0, [%1];\n" : "=r"(seen) : "l"(flag) : "memory");
	} while (seen != value);
}

__device__ static inline void lk_flag_post(int *flag, int value)
{
	asm volatile("st.release.gpu.global.b32 [%0], %1;\n" ::"l"(flag), "r"(value) : "memory");
}

/* ---- named barriers: "bar, barrier" (0 is __syncthreads'), registers: "setmaxnreg" ---- */

/* All `threads` (multiple of 32) of barrier id either sync or arrive; sync waits for the others, arrive does not. */
__device__ static inline void lk_bar_sync(int id, int threads)
{
	asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

__device__ static inline void lk_bar_arrive(int id, int threads)
{
	asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

/* The whole warpgroup; N: multiple of 8. inc waits until others gave enough back. */
template <int N> __device__ static inline void lk_regs_inc(void)
{
	asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));
}

template <int N> __device__ static inline void lk_regs_dec(void)
{
	asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));
}

/* ---- stmatrix: "Warp-level matrix store instruction" ---- */

/* The reverse of lk_ldmatrix4: lanes 8i..8i+7 give the addresses of the rows of matrix i. */
__device__ static inline void lk_stmatrix4(void *row, const uint32_t r[4])
{
	asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};\n" ::"r"(lk_smem_addr(row)),
		     "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
		     : "memory");
}

/* ---- wgmma: "Asynchronous Warpgroup Level Matrix Instructions" ---- */

/* Before the first wgmma, and after registers of one were written by other instructions. */
__device__ static inline void lk_gmma_fence(void)
{
	asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

__device__ static inline void lk_gmma_commit(void)
{
	asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

/* Waits until at most N of the warpgroup's groups are under way. */
template <int N> __device__ static inline void lk_gmma_wait(void)
{
	asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
}

/* Keeps the compiler from moving reads of accumulators up over a wait, and writes of operands down over a fence. ptxas does
 * not see it, and moves arithmetic that should run beside a product past the wait for it, unless a basic block ends in
 * between: there a kernel waits for an mbarrier whose phase is over. */
template <int N> __device__ static inline void lk_gmma_hold(float (&d)[N])
{
#pragma unroll
	for (int i = 0; i < N; i++)
		asm volatile("" : "+f"(d[i])::"memory");
}

template <int N> __device__ static inline void lk_gmma_hold(uint32_t (&a)[N])
{
#pragma unroll
	for (int i = 0; i < N; i++)
		asm volatile("" : "+r"(a[i])::"memory");
}

__device__ static inline uint64_t lk_gmma_desc(const void *p, uint32_t leading, uint32_t stride, int swizzle)
{
	return static_cast<uint64_t>((lk_smem_addr(p) & 0x3ffff) >> 4) |
	       static_cast<uint64_t>((leading & 0x3ffff) >> 4) << 16 |
	       static_cast<uint64_t>((stride & 0x3ffff) >> 4) << 32 | static_cast<uint64_t>(swizzle) << 62;
}

#define LK_S16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define LK_S32 LK_S16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define LK_S48 LK_S32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define LK_S64 LK_S48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define LK_R4(d, o) "+f"(d[o]), "+f"(d[(o) + 1]), "+f"(d[(o) + 2]), "+f"(d[(o) + 3])
#define LK_R16(d, o) LK_R4(d, o), LK_R4(d, (o) + 4), LK_R4(d, (o) + 8), LK_R4(d, (o) + 12)
#define LK_R32(d, o) LK_R16(d, o), LK_R16(d, (o) + 16)
#define LK_R48(d, o) LK_R32(d, o), LK_R16(d, (o) + 32)
#define LK_R64(d, o) LK_R32(d, o), LK_R32(d, (o) + 32)
/* n: columns; r = n / 2 registers of the accumulator; the following operands have the numbers given */
#define LK_SS(n, r, a, b, p, ta, tb)                                                                          \
	asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p ", 0;\n"                                             \
		     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" LK_S##r "}, %" #a ", %" #b      \
		     ", p, 1, 1, %" #ta ", %" #tb ";\n}\n"                                                        \
		     : LK_R##r(d, 0)                                                                              \
		     : "l"(a_desc), "l"(b_desc), "r"(keep), "n"(TA), "n"(TB))
#define LK_RS(n, r, a0, a1, a2, a3, b, p, tb)                                                                 \
	asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p ", 0;\n"                                             \
		     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" LK_S##r "}, {%" #a0 ",%" #a1    \
		     ",%" #a2 ",%" #a3 "}, %" #b ", p, 1, 1, %" #tb ";\n}\n"                                      \
		     : LK_R##r(d, 0)                                                                              \
		     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_desc), "r"(keep), "n"(TB))

/* d (64,N) = a (64,16) b (16,N) [+ d where keep]; bf16 in, fp32 out; N = 2 R. TA, TB: 0 K-major, 1 MN-major. The whole
 * warpgroup; under way until lk_gmma_wait. */
template <int TA, int TB, int R>
__device__ static inline void lk_gmma_ss(float (&d)[R], uint64_t a_desc, uint64_t b_desc, int keep)
{
	static_assert(R == 16 || R == 32 || R == 48 || R == 64, "columns: 32, 64, 96 or 128");
	if constexpr (R == 16)
		LK_SS(32, 16, 16, 17, 18, 19, 20);
	else if constexpr (R == 32)
		LK_SS(64, 32, 32, 33, 34, 35, 36);
	else if constexpr (R == 48)
		LK_SS(96, 48, 48, 49, 50, 51, 52);
	else
		LK_SS(128, 64, 64, 65, 66, 67, 68);
}

/* The same with a in registers. */
template <int TB, int R>
__device__ static inline void lk_gmma_rs(float (&d)[R], const uint32_t *a, uint64_t b_desc, int keep)
{
	static_assert(R == 32 || R == 48 || R == 64, "columns: 64, 96 or 128");
	if constexpr (R == 32)
		LK_RS(64, 32, 32, 33, 34, 35, 36, 37, 38);
	else if constexpr (R == 48)
		LK_RS(96, 48, 48, 49, 50, 51, 52, 53, 54);
	else
		LK_RS(128, 64, 64, 65, 66, 67, 68, 69, 70);
}

#undef LK_SS
#undef LK_RS

#endif
#endif
