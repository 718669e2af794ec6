/* sm90.h - small things that the Hopper kernels share: tensor maps, rings of stages, arrivals of warps. */
#ifndef LK_CUDA_SM90_H
#define LK_CUDA_SM90_H

#include "kernels/cuda/ptx90.h"

/* ---- host ---- */

typedef CUresult lk_encode_fn(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
			      const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
			      CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

static inline lk_encode_fn *lk_find_encode(void)
{
	enum cudaDriverEntryPointQueryResult found;
	void *f = nullptr;

	if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found) ||
	    found != cudaDriverEntryPointSuccess)
		return nullptr;
	return reinterpret_cast<lk_encode_fn *>(f);
}

/* Makes tensor maps; NULL where the driver is too old. */
static inline lk_encode_fn *lk_encode90(void)
{
	static lk_encode_fn *encode = lk_find_encode();

	return encode;
}

/* A tensor of bf16 with boxes of `box`, swizzled as 128-byte rows. dims, box: innermost first; strides: bytes, of all
 * dimensions but the innermost. */
static inline int lk_map90(struct lk_dev *dev, const char *op, CUtensorMap *map, const void *base, int rank,
			   const uint64_t *dims, const uint64_t *strides, const uint32_t *box)
{
	const cuuint32_t step[5] = { 1, 1, 1, 1, 1 };
	cuuint64_t d[5], s[4];
	cuuint32_t b[5];
	int rc = -1;

	for (int i = 0; i < rank; i++) {
		d[i] = dims[i];
		b[i] = box[i];
		if (i)
			s[i - 1] = strides[i - 1];
	}
	if (lk_encode90())
		rc = lk_encode90()(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(rank),
				   const_cast<void *>(base), d, s, b, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
				   CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
				   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	if (rc)
		return lk_cuda_fail(dev, LK_EDEVICE, "%s: the driver made no tensor map (code %d)", op, rc);
	return 0;
}

/* ---- device ---- */

/* A ring of stages in shared memory, as one side of it counts them. */
struct lk_ring90 {
	int stage, parity;
};

template <int STAGES> __device__ static inline void lk_ring_next(struct lk_ring90 *r)
{
	if (++r->stage == STAGES) {
		r->stage = 0;
		r->parity ^= 1;
	}
}

/* Tells the compiler that x is the same in all threads of the warp: around wgmma it wants to know. */
__device__ static inline int lk_uniform(int x)
{
	return __shfl_sync(0xffffffffu, x, 0);
}

/* One arrival per warp: whoever waits counts warps. */
__device__ static inline void lk_warp_arrive(uint64_t *bar)
{
	__syncwarp();
	if (threadIdx.x % 32 == 0)
		lk_mbar_arrive(bar);
}

#endif
