/* conv_tile.h - tiles in shared memory and the products of a warp, for conv_mma.cu and conv_grad.cu.
 *
 * A tile has rows of 32, 64 or 128 elements: 4, 8 or 16 pieces of 16 bytes. Piece i of row r lies at place i ^ (r & 7) of its
 * row (with 4 pieces, i ^ (r / 2 & 3)), so that eight rows of one column of pieces, which ldmatrix reads at once, fall into
 * different banks.
 */
#ifndef LK_CUDA_CONV_TILE_H
#define LK_CUDA_CONV_TILE_H

#include "kernels/cuda/ptx.h"

template <int ROW> __device__ static inline lk_bf16 *lk_tile_at(lk_bf16 *tile, int row, int piece)
{
	int turn = ROW == 32 ? row >> 1 & 3 : row & 7;

	return tile + row * ROW + ((piece ^ turn) << 3);
}

/* Fragments from tiles whose rows are m or n and whose columns are k (64 of them): element (row0 + i, 16 ks + k). */
__device__ static inline void lk_frag_a(uint32_t a[4], lk_bf16 *tile, int row0, int ks)
{
	int l = threadIdx.x % 32;

	lk_ldmatrix4(a, lk_tile_at<64>(tile, row0 + l % 16, 2 * ks + l / 16));
}

__device__ static inline void lk_frag_b2(uint32_t b[4], lk_bf16 *tile, int row0, int ks) /* two of 8 columns */
{
	int l = threadIdx.x % 32;

	lk_ldmatrix4(b, lk_tile_at<64>(tile, row0 + l / 16 * 8 + l % 8, 2 * ks + l / 8 % 2));
}

/* The same from tiles whose rows are k and whose ROW columns are m or n. */
template <int ROW> __device__ static inline void lk_frag_a_t(uint32_t a[4], lk_bf16 *tile, int m0, int ks)
{
	int l = threadIdx.x % 32;

	lk_ldmatrix4_t(a, lk_tile_at<ROW>(tile, 16 * ks + l / 16 * 8 + l % 8, m0 / 8 + l / 8 % 2));
}

template <int ROW> __device__ static inline void lk_frag_b2_t(uint32_t b[4], lk_bf16 *tile, int n0, int ks)
{
	int l = threadIdx.x % 32;

	lk_ldmatrix4_t(b, lk_tile_at<ROW>(tile, 16 * ks + l % 16, n0 / 8 + l / 16));
}

template <int MI, int NI>
__device__ static inline void lk_warp_mma(float (&acc)[MI][NI][4], uint32_t (&a)[MI][4], uint32_t (&b)[NI / 2][4])
{
	for (int i = 0; i < MI; i++)
		for (int j = 0; j < NI; j++)
			lk_mma16816(acc[i][j], a[i], &b[j / 2][j % 2 * 2]);
}

template <int MI, int NI> __device__ static inline void lk_acc_zero(float (&acc)[MI][NI][4])
{
	for (int i = 0; i < MI; i++)
		for (int j = 0; j < NI; j++)
			for (int e = 0; e < 4; e++)
				acc[i][j][e] = 0.0f;
}

#endif
