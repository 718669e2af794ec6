/* attn_sm90.h - what the two Hopper attention files share: tensor maps, tile geometry, products, masks.
 *
 * A tile of rows x D bf16 lies in shared memory as D / W column blocks (see ptx90.h).
 */
#ifndef LK_CUDA_ATTN_SM90_H
#define LK_CUDA_ATTN_SM90_H

#include "kernels/cuda/attn_int.h"
#include "kernels/cuda/sm90.h"

/* ---- host ---- */

/* A tensor (T, heads, D) of bf16 or fp32, seen as (D, heads, T) with boxes of box_d x 1 x box_t. */
struct lk_map_spec {
	const void *base;
	int f32;
	int64_t t, stride_t, stride_h; /* strides in elements */
	int heads, d, box_d, box_t, swizzle;
};

static int lk_map_make(struct lk_dev *dev, CUtensorMap *map, const struct lk_map_spec *s)
{
	cuuint64_t size = s->f32 ? 4 : 2;
	/* the stride of a dimension of length 1 is never used, but has to be a valid one */
	int64_t stride_h = s->heads > 1 ? s->stride_h : s->d, stride_t = s->t > 1 ? s->stride_t : s->d * s->heads;
	const cuuint64_t dims[3] = { static_cast<cuuint64_t>(s->d), static_cast<cuuint64_t>(s->heads),
				     static_cast<cuuint64_t>(s->t) };
	const cuuint64_t strides[2] = { static_cast<cuuint64_t>(stride_h) * size,
					static_cast<cuuint64_t>(stride_t) * size };
	const cuuint32_t box[3] = { static_cast<cuuint32_t>(s->box_d), 1, static_cast<cuuint32_t>(s->box_t) };
	const cuuint32_t step[3] = { 1, 1, 1 };
	int rc = -1;

	if (lk_encode90())
		rc = lk_encode90()(map, s->f32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3,
				   const_cast<void *>(s->base), dims, strides, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
				   static_cast<CUtensorMapSwizzle>(s->swizzle), CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
				   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	if (rc)
		return lk_cuda_fail(dev, LK_EDEVICE, "attention: the driver made no tensor map (code %d)", rc);
	return 0;
}

/* TMA wants strides that are multiples of 16 bytes (vec) and positive, and coordinates are 32-bit. */
static inline bool lk_sm90_fits(const struct lk_attn_job *j)
{
	return (j->d == 64 || j->d == 96 || j->d == 128) && j->vec && !j->k_scale && j->scale > 0 && j->tq < INT32_MAX - 128 &&
	       j->tk < INT32_MAX - 128 && j->q_t >= 0 && j->q_h >= 0 && j->k_t >= 0 && j->k_h >= 0 && j->v_t >= 0 &&
	       j->v_h >= 0;
}

/* ---- geometry ---- */

/* A tile of bf16: ROWS x D in blocks of W columns. */
template <int ROWS_, int D_, int W_> struct lk_tile90 {
	static constexpr int ROWS = ROWS_, D = D_, W = W_;
	static constexpr int ROW_BYTES = 2 * W, BLOCK = ROWS * ROW_BYTES, BYTES = ROWS * D * 2;
	static constexpr int STRIDE = 8 * ROW_BYTES;            /* from 8 rows to the next */
	static constexpr int MODE = W == 64 ? 1 : 2;            /* of descriptors */
	static constexpr int MAP_SWIZZLE = W == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B;
	static_assert((W == 64 || W == 32) && D % W == 0 && BLOCK % 1024 == 0, "whole swizzle patterns");
};

/* Where step kk (16 elements of the sum) of an operand starts, in the unit of descriptors. */
template <class T> __device__ static inline uint64_t lk_step_k(int kk)
{
	return static_cast<uint64_t>((kk * 16 / T::W * T::BLOCK + kk * 16 % T::W * 2) >> 4);
}

template <class T> __device__ static inline uint64_t lk_step_mn(int kk)
{
	return static_cast<uint64_t>((kk * 16 * T::ROW_BYTES) >> 4);
}

template <class T> __device__ static inline uint64_t lk_desc_k(const unsigned char *p)
{
	return lk_gmma_desc(p, 16, T::STRIDE, T::MODE);
}

template <class T> __device__ static inline uint64_t lk_desc_mn(const unsigned char *p)
{
	return lk_gmma_desc(p, T::BLOCK, T::STRIDE, T::MODE);
}

/* d (64, rows of B) = A B^T, summed over the D of both; a points to the first of its 64 rows. */
template <class A, class B, int R>
__device__ static __forceinline__ void lk_mul_nt(float (&d)[R], const unsigned char *a, const unsigned char *b)
{
	uint64_t da = lk_desc_k<A>(a), db = lk_desc_k<B>(b);

	static_assert(R == B::ROWS / 2 && A::D == B::D, "shapes");
#pragma unroll
	for (int kk = 0; kk < A::D / 16; kk++)
		lk_gmma_ss<0, 0>(d, da + lk_step_k<A>(kk), db + lk_step_k<B>(kk), kk > 0);
}

/* d (64, D of B) += a B, summed over the rows of B; a in registers, 4 for each 16 rows. */
template <class B, int R>
__device__ static __forceinline__ void lk_mul_rn(float (&d)[R], const uint32_t *a, const unsigned char *b)
{
	uint64_t db = lk_desc_mn<B>(b);

	static_assert(R == B::D / 2, "shapes");
#pragma unroll
	for (int kk = 0; kk < B::ROWS / 16; kk++)
		lk_gmma_rs<1>(d, a + 4 * kk, db + lk_step_mn<B>(kk), 1);
}

/* The boxes of one tile: rows from t0 of one head. Its bytes and `more` are expected at bar. One thread. */
template <class T>
__device__ static inline void lk_tile_load(unsigned char *dst, const CUtensorMap *map, uint64_t *bar, int head, int t0,
					   uint32_t more)
{
	lk_mbar_expect(bar, T::BYTES + more);
#pragma unroll
	for (int b = 0; b < T::D / T::W; b++)
		lk_tma_load3(dst + b * T::BLOCK, map, bar, b * T::W, head, t0);
}

/* Accumulators to an A operand: element pairs side by side. */
template <int R> __device__ static __forceinline__ void lk_pack_a(uint32_t *a, const float (&s)[R])
{
#pragma unroll
	for (int i = 0; i < R / 2; i++)
		a[i] = lk_pack2(s[2 * i], s[2 * i + 1]);
}

/* lk_walk_begin and lk_walk_next for the warps of wgmma. */
__device__ static inline void lk_walk_uniform(struct lk_walk *w)
{
	w->tile = lk_uniform(w->tile);
	w->last = lk_uniform(w->last);
	w->mask = lk_uniform(w->mask);
}

#endif
