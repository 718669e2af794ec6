/* ptx.h - machine instructions that every supported chip has (sm_80 and later), one function each.
 *
 * Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16". Lane l: g = l / 4, c = l % 4.
 *   A (16x16, row-major) a[0]: row g, columns 2c,2c+1; a[1]: row g+8; a[2]: row g, columns 2c+8,2c+9; a[3]: row g+8 of those
 *   B (16x8, column-major) b[0]: rows 2c,2c+1 of column g; b[1]: rows 2c+8,2c+9
 *   C, D (16x8) d[0],d[1]: row g, columns 2c,2c+1; d[2],d[3]: row g+8
 * Hopper's are in ptx90.h. Under the emulator the bodies are those of tests/emu/ptx_emu.h.
 */
#ifndef LK_CUDA_PTX_H
#define LK_CUDA_PTX_H

#include "kernels/cuda/cuda_int.h"

#ifdef LK_EMU
#include "ptx_emu.h"
#else

__device__ static inline uint32_t lk_smem_addr(const void *p)
{
	return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/* d += a b, bf16 in, fp32 out; the whole warp. */
__device__ static inline void lk_mma16816(float d[4], const uint32_t a[4], const uint32_t b[2])
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
		     "{%0,%1,%2,%3};\n"
		     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
		     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8x8 matrices of 2-byte elements: lanes 8i..8i+7 give the addresses (16-byte aligned, shared memory) of the rows of
 * matrix i; r[i] is element (l/4, 2(l%4)) and its right neighbour; _t: of the transposed matrix. */
__device__ static inline void lk_ldmatrix4(uint32_t r[4], const void *row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
		     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
		     : "r"(lk_smem_addr(row)) : "memory");
}

__device__ static inline void lk_ldmatrix4_t(uint32_t r[4], const void *row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
		     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
		     : "r"(lk_smem_addr(row)) : "memory");
}

/* Global memory by 16 and 8 bytes, p aligned, when `yes`; else nothing happens. As instructions of their own, since the
 * compiler cuts some of the stores into single words and moves loads past the work on earlier ones. */
__device__ static inline void lk_ld16(uint32_t w[4], const void *p, int yes)
{
	asm volatile("{\n.reg .pred q;\nsetp.ne.b32 q, %5, 0;\n@q ld.global.v4.b32 {%0,%1,%2,%3}, [%4];\n}\n"
		     : "+r"(w[0]), "+r"(w[1]), "+r"(w[2]), "+r"(w[3])
		     : "l"(p), "r"(yes) : "memory");
}

__device__ static inline void lk_ld8(uint32_t w[2], const void *p, int yes)
{
	asm volatile("{\n.reg .pred q;\nsetp.ne.b32 q, %3, 0;\n@q ld.global.v2.b32 {%0,%1}, [%2];\n}\n"
		     : "+r"(w[0]), "+r"(w[1]) : "l"(p), "r"(yes) : "memory");
}

__device__ static inline void lk_st16(void *p, const uint32_t w[4], int yes)
{
	asm volatile("{\n.reg .pred q;\nsetp.ne.b32 q, %5, 0;\n@q st.global.v4.b32 [%4], {%0,%1,%2,%3};\n}\n"
		     ::"r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "l"(p), "r"(yes) : "memory");
}

__device__ static inline void lk_st8(void *p, const uint32_t w[2], int yes)
{
	asm volatile("{\n.reg .pred q;\nsetp.ne.b32 q, %3, 0;\n@q st.global.v2.b32 [%2], {%0,%1};\n}\n"
		     ::"r"(w[0]), "r"(w[1]), "l"(p), "r"(yes) : "memory");
}

/* 16 bytes from global to shared memory, of which the first `valid` (0 or 16) are read and the rest is zero. */
__device__ static inline void lk_cp_async16(void *dst, const void *src, int valid)
{
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(lk_smem_addr(dst)), "l"(src), "r"(valid)
		     : "memory");
}

/* 4 bytes likewise, all of them. */
__device__ static inline void lk_cp_async4(void *dst, const void *src)
{
	asm volatile("cp.async.ca.shared.global [%0], [%1], 4;\n" ::"r"(lk_smem_addr(dst)), "l"(src) : "memory");
}

__device__ static inline void lk_cp_async_commit(void)
{
	asm volatile("cp.async.commit_group;\n" ::: "memory");
}

/* Waits until at most N of this thread's groups are under way. */
template <int N> __device__ static inline void lk_cp_async_wait(void)
{
	asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

/* x, of which the compiler does not know that: what is computed from it is computed here, not kept from long before in a
 * register that is needed otherwise. */
__device__ static inline int lk_fresh(int x)
{
	asm volatile("" : "+r"(x));
	return x;
}

/* 2^x; -INFINITY gives 0 */
__device__ static inline float lk_exp2(float x)
{
	float y;

	asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
	return y;
}

#endif
#endif
