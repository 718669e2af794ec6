/* cuda_int.h - what the files of this folder share. Nobody else includes it.
 *
 * The .cu files are CUDA C++ written in the manner of C: templates only for tile shapes and element types, no classes with
 * behaviour, no exceptions, no standard library in device code. They compile twice: by nvcc into liblwm_cuda.so, and by
 * g++ against tests/emu, which runs the same kernels thread by thread on the CPU (LK_EMU is defined there). Therefore:
 *   - kernels are launched by LK_LAUNCH, dynamic shared memory is named by LK_SMEM, static shared memory is __shared__;
 *   - machine instructions stand in ptx.h and ptx90.h alone, one function each;
 *   - what a warp does in step is written with __syncwarp or a *_sync intrinsic between a write and the read of another lane;
 *   - every thread of a block reaches every __syncthreads; all named lanes reach every *_sync.
 */
#ifndef LK_CUDA_INT_H
#define LK_CUDA_INT_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/kernels_int.h"

#ifndef LK_LAUNCH
/* A kernel with template arguments is given as a pointer: auto k = kernel<64, true>; LK_LAUNCH(k, grid, block, 0, s, a, b); */
#define LK_LAUNCH(kernel, grid, block, smem, stream, ...) kernel<<<grid, block, smem, stream>>>(__VA_ARGS__)
#define LK_SMEM(type, name)                                          \
	extern __shared__ __align__(1024) unsigned char lk_smem_bytes[]; \
	type *name = reinterpret_cast<type *>(lk_smem_bytes)
#endif

typedef __nv_bfloat16 lk_bf16;

enum { LK_PINNED_BYTES = 4096 };

/* What dev->impl points to. A fork has its own, with its own stream and scratch. */
struct lk_cuda {
	int index;       /* of the GPU */
	int cc;          /* compute capability, 90 for Hopper */
	int sms;         /* multiprocessors */
	int smem_max;    /* dynamic shared memory a block may ask for, bytes */
	int fast;        /* LWM_CUDA_FAST=1: sums may be formed in any order where that is faster */
	int wait_each;   /* LWM_CUDA_SYNC=1: lk_launched waits, so that a fault is reported by the op that made it */
	const char *fault; /* op at which an error was seen that leaves the GPU unusable; NULL: none */
	cudaStream_t stream;
	void *scratch;   /* see lk_scratch */
	size_t scratch_bytes;
	void *pinned;    /* LK_PINNED_BYTES of pinned host memory for results that are waited for */
	struct lk_cuda_mem *mem; /* of mem.cu: staging buffers of uploads, blocks of freed sequences */
	void *blas;      /* of matmul.cu: handle, workspace, plans; made at the first product */
	void *attn;      /* of attn_sched.cu: blocks of schedules to be used again; made at the first schedule */
};

static inline struct lk_cuda *lk_cu(struct lk_dev *dev)
{
	return static_cast<struct lk_cuda *>(dev->impl);
}

/* The device's queue. Makes its GPU the current one of this host thread: call it before anything else of CUDA. */
static inline cudaStream_t lk_stream(struct lk_dev *dev)
{
	cudaSetDevice(lk_cu(dev)->index);
	return lk_cu(dev)->stream;
}

/* What lk_seq.impl points to: the device side of a sequence, made by seq_new. lk_seq.dev_pos and dev_seg point into it.
 * The attention files may hang a plan on it (of this sequence as queries; what it was made for is theirs to remember);
 * plan_free is called with it before the sequence goes. */
struct lk_cuda_seq {
	uint64_t id;               /* no other sequence of this process has or had it */
	void *block;               /* device memory that holds the three arrays */
	size_t block_bytes;
	struct lk_seq_tile *tiles; /* device, lk_seq.ntiles */
	void *plan;
	void (*plan_free)(struct lk_dev *dev, void *plan);
};

static inline struct lk_cuda_seq *lk_seq_cuda(const struct lk_seq *s)
{
	return static_cast<struct lk_cuda_seq *>(s->impl);
}

/* Sets dev->err and returns code (this object cannot call lk_fail of the program that loaded it). */
int lk_cuda_fail(struct lk_dev *dev, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* 0, or LK_ENOMEM / LK_EDEVICE with a sentence "op: what CUDA says". */
int lk_cuda_check(struct lk_dev *dev, const char *op, cudaError_t rc);
/* The same for the launch just made. */
int lk_launched(struct lk_dev *dev, const char *op);
/* Device memory of at least `bytes` for one op, 256-byte aligned, contents undefined: the next call that asks for scratch on
 * this device may be handed the same. Grows (which waits); NULL: out of memory, dev->err is set. One call per op: an op
 * that needs several pieces asks once and cuts. */
void *lk_scratch(struct lk_dev *dev, const char *op, size_t bytes);
/* Waits for the queue and copies `bytes` (at most LK_PINNED_BYTES) from device memory to host_out through pinned memory. */
int lk_result(struct lk_dev *dev, const char *op, void *host_out, const void *src, size_t bytes);

/* Each file fills in its entries; open.cu calls them all. */
void lk_cuda_fill_mem(struct lk_ops *o);
void lk_cuda_fill_matmul(struct lk_ops *o);
void lk_cuda_fill_vector(struct lk_ops *o); /* element-wise ops, sums, AdamW */
void lk_cuda_fill_norm(struct lk_ops *o);
void lk_cuda_fill_rope(struct lk_ops *o);
void lk_cuda_fill_swiglu(struct lk_ops *o);
void lk_cuda_fill_embed(struct lk_ops *o);  /* and rows by index */
void lk_cuda_fill_loss(struct lk_ops *o);
void lk_cuda_fill_attn(struct lk_ops *o);
void lk_cuda_fill_attn_state(struct lk_ops *o);
void lk_cuda_fill_kv(struct lk_ops *o);
void lk_cuda_fill_draw(struct lk_ops *o);
void lk_cuda_fill_conv(struct lk_ops *o);
void lk_cuda_fill_groupnorm(struct lk_ops *o);
void lk_cuda_fill_code(struct lk_ops *o);
void lk_cuda_fill_pixels(struct lk_ops *o); /* and the reconstruction loss */
void lk_cuda_fill_feature(struct lk_ops *o);
void lk_cuda_fill_group(struct lk_ops *o);
/* Free what a file keeps at a device; NULL is fine. */
void lk_cuda_close_mem(struct lk_dev *dev);
void lk_cuda_close_matmul(struct lk_dev *dev);
void lk_cuda_close_attn(struct lk_dev *dev);

static inline int64_t lk_ceil_div(int64_t a, int64_t b)
{
	return (a + b - 1) / b;
}

/* ---- device helpers ---- */

__device__ static inline float lk_warp_sum(float x)
{
	for (int d = 16; d; d >>= 1)
		x += __shfl_xor_sync(0xffffffffu, x, d);
	return x;
}

__device__ static inline float lk_warp_max(float x)
{
	for (int d = 16; d; d >>= 1)
		x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
	return x;
}

/* 16 bytes of bf16 or fp32 as floats, and back (round to nearest even). p is 16-byte aligned. */
__device__ static inline void lk_load8(float *x, const lk_bf16 *p)
{
	uint4 raw = *reinterpret_cast<const uint4 *>(p);
	const uint32_t w[4] = { raw.x, raw.y, raw.z, raw.w };

	for (int i = 0; i < 4; i++) {
		x[2 * i] = __uint_as_float(w[i] << 16);
		x[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
	}
}

__device__ static inline uint32_t lk_pack2(float lo, float hi)
{
	__nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
	uint32_t bits;

	memcpy(&bits, &v, sizeof bits);
	return bits;
}

__device__ static inline void lk_store8(lk_bf16 *p, const float *x)
{
	uint4 raw = make_uint4(lk_pack2(x[0], x[1]), lk_pack2(x[2], x[3]), lk_pack2(x[4], x[5]), lk_pack2(x[6], x[7]));

	*reinterpret_cast<uint4 *>(p) = raw;
}

#endif
