/* attn_mma.h - tiles of rows in shared memory for the mma kernels of attention.
 *
 * A tile is ROWS rows of DP bf16 (a head padded with zeros to DP = 32, 64, 96 or 128), in pieces of 16 bytes. Piece c of row
 * r lies at place c ^ swizzle(r) of its row, so that the eight rows that ldmatrix reads at one c lie in different banks, and
 * so do neighbouring pieces of one row, as cp.async writes them.
 */
#ifndef LK_CUDA_ATTN_MMA_H
#define LK_CUDA_ATTN_MMA_H

#include "kernels/cuda/attn_int.h"
#include "kernels/cuda/ptx.h"

/* Rows of one head in global memory. */
struct lk_head {
	const lk_bf16 *p; /* row 0 */
	int64_t stride, n;
	int d;
};

__device__ static inline struct lk_head lk_head_of(const void *p, int64_t t, int64_t h, int head, int64_t n,
						   const struct lk_attn_job *j)
{
	struct lk_head r = { static_cast<const lk_bf16 *>(p) + head * h, t, n, j->d };

	return r;
}

/* A row of 64 or 128 elements is whole turns of the banks, one of 32 or 96 half a turn more, so that there two rows take
 * one turn. The same for rows 16 apart. */
template <int DP> __device__ static inline int lk_swizzle(int r)
{
	return DP % 64 ? r >> 1 & 3 : r & 7;
}

/* Eight elements from p on of which d exist, one by one. */
__device__ static inline uint4 lk_gather8(const lk_bf16 *p, int d)
{
	uint16_t e[8];
	uint4 r;

	for (int i = 0; i < 8; i++) {
		e[i] = 0;
		if (i < d)
			memcpy(&e[i], p + i, 2);
	}
	memcpy(&r, e, 16);
	return r;
}

/* Rows [row0, row0 + ROWS) into a tile; what does not exist becomes zero. All threads of the block; asynchronous where the
 * rows are aligned (VEC): commit and wait. LANES threads share a row; each keeps its places within rows. */
template <int DP, int ROWS, int THREADS, bool VEC>
__device__ static inline void lk_tile_load(lk_bf16 *tile, const struct lk_head *h, int64_t row0)
{
	constexpr int LANES = DP % 64 ? 4 : 8, STEP = THREADS / LANES;
	int lane = static_cast<int>(threadIdx.x) % LANES, row = static_cast<int>(threadIdx.x) / LANES;
	int64_t left = h->n - row0;
	const lk_bf16 *src = h->p + (row0 + row) * h->stride + lane * 8;
	lk_bf16 *dst = tile + row * DP + (lane ^ lk_swizzle<DP>(row)) * 8;

	static_assert(ROWS % STEP == 0 && STEP % 8 == 0, "whole passes, in which the swizzle of a thread is the same");
#pragma unroll
	for (int i = 0; i < ROWS; i += STEP, src += STEP * h->stride)
#pragma unroll
		for (int c = 0; c < DP / 8; c += LANES) {
			bool there = row + i < left && (c + lane) * 8 < h->d;

			if constexpr (VEC)
				lk_cp_async16(dst + i * DP + c * 8, there ? src + c * 8 : h->p, there ? 16 : 0);
			else
				*reinterpret_cast<uint4 *>(dst + i * DP + c * 8) =
					lk_gather8(src + c * 8, there ? h->d - (c + lane) * 8 : 0);
		}
}

/* Where in a tile lane-th thread of a warp reads piece 2k + hi of row r + row: r is a multiple of 16. */
template <int DP> __device__ static inline lk_bf16 *lk_at(lk_bf16 *tile, int r, int row, int k, int hi)
{
	return tile + r * DP + row * DP + (16 * k ^ (hi ^ lk_swizzle<DP>(row)) * 8);
}

/* A of a product: rows [r, r + 16), elements [16k, 16k + 16). */
template <int DP> __device__ static inline void lk_frag_a(uint32_t a[4], lk_bf16 *tile, int r, int k)
{
	int lane = static_cast<int>(threadIdx.x) % 32;

	lk_ldmatrix4(a, lk_at<DP>(tile, r, lane % 16, k, lane / 16));
}

/* B where the columns are rows of the tile, [r, r + 16), and the product runs over elements [16k, 16k + 16): b[0], b[1] for
 * the first eight columns, b[2], b[3] for the others. */
template <int DP> __device__ static inline void lk_frag_b(uint32_t b[4], lk_bf16 *tile, int r, int k)
{
	int lane = static_cast<int>(threadIdx.x) % 32;

	lk_ldmatrix4(b, lk_at<DP>(tile, r, lane / 16 * 8 + lane % 8, k, lane / 8 % 2));
}

/* B where the product runs over rows [r, r + 16) of the tile and the columns are elements [16n, 16n + 16). */
template <int DP> __device__ static inline void lk_frag_bt(uint32_t b[4], lk_bf16 *tile, int r, int n)
{
	int lane = static_cast<int>(threadIdx.x) % 32;

	lk_ldmatrix4_t(b, lk_at<DP>(tile, r, lane % 16, n, lane / 16));
}

/* Two neighbouring 16x8 results, x[0] and x[1], as the A of a product over their 16 columns. */
__device__ static inline void lk_frag_result(uint32_t a[4], const float x[2][4])
{
	a[0] = lk_pack2(x[0][0], x[0][1]);
	a[1] = lk_pack2(x[0][2], x[0][3]);
	a[2] = lk_pack2(x[1][0], x[1][1]);
	a[3] = lk_pack2(x[1][2], x[1][3]);
}

/* A kernel that needs more shared memory than a block gets unasked. */
template <typename K> static inline int lk_attn_smem(struct lk_dev *dev, const char *op, K kernel, size_t bytes)
{
	if (bytes > static_cast<size_t>(lk_cu(dev)->smem_max))
		return lk_cuda_fail(dev, LK_EUNSUP, "%s: blocks of this GPU have %d bytes of shared memory, %zu are needed", op,
				    lk_cu(dev)->smem_max, bytes);
	return lk_cuda_check(dev, op, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
							   static_cast<int>(bytes)));
}

#endif
