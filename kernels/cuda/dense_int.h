/* dense_int.h - what the files of the dense ops share: memory is read and written in groups of G elements.
 *
 * A thread owns groups, 16 bytes of the wider element type (G = 8 for bf16, 4 for fp32), neighbouring threads neighbouring
 * groups. Where pointers, strides and lengths allow it (VEC) a group is moved by one instruction, else element by element;
 * kernels are compiled for both, so that the fast one has no other way in it. What is read is first held as it lies in
 * memory (lk_hold) and turned into floats (lk_held_get) when all loads of a thread are under way.
 */
#ifndef LK_CUDA_DENSE_INT_H
#define LK_CUDA_DENSE_INT_H

#include "kernels/cuda/ptx.h"

/* LK_EUNSUP: the ops take fp32 or bf16, but one of them for all tensors. */
static inline int lk_mixed(struct lk_dev *dev, const char *op)
{
	return lk_cuda_fail(dev, LK_EUNSUP, "%s: on cuda all tensors must be of one element type", op);
}

/* ---- rows of a 2-d view ---- */

template <typename T> struct lk_rows {
	T *p;
	int64_t step; /* elements from row to row */
};

template <typename T> static inline struct lk_rows<T> lk_rows_of(const struct lk_view *v)
{
	struct lk_rows<T> r = { static_cast<T *>(v->data), v->stride[0] };

	return r;
}

/* Do rows of v, or v of one dimension, consist of whole aligned groups? */
static inline int lk_vec_rows(const struct lk_view *v)
{
	size_t size = lk_dtype_size(v->dtype);
	uintptr_t step = v->ndim > 1 && v->n[0] > 1 ? static_cast<uintptr_t>(v->stride[0]) * size : 0;
	uintptr_t row = static_cast<uintptr_t>(v->n[v->ndim - 1]) * size;

	return ((reinterpret_cast<uintptr_t>(v->data) | step | row) & 15) == 0;
}

/* A block as threads.x groups wide and threads.y rows high, for rows of `groups` groups; `wide` blocks side by side cover
 * a row. Blocks are numbered row by row in blockIdx.x, which has no narrow limit. */
struct lk_tiling {
	dim3 threads;
	int wide;
	int64_t blocks;
};

static inline struct lk_tiling lk_tile_rows(int64_t rows, int64_t groups)
{
	struct lk_tiling t;
	unsigned w = 1;

	while (w < 256 && w < groups)
		w *= 2;
	t.threads = dim3(w, 256 / w);
	t.wide = static_cast<int>(lk_ceil_div(groups, w));
	t.blocks = lk_ceil_div(rows, 256 / w) * t.wide;
	return t;
}

/* ---- dense arrays ---- */

/* n elements cut into groups that begin at aligned addresses: group g holds elements [G g - lead, G g - lead + G). */
struct lk_span {
	int64_t n;
	int group, lead, vec;
};

/* group: G of the kernel. p: the array with the smallest elements; then lk_span_meet with every other one. */
static inline struct lk_span lk_span_of(int64_t n, int group, const void *p, size_t size)
{
	struct lk_span s = { n, group, 0, 1 };

	s.lead = static_cast<int>(reinterpret_cast<uintptr_t>(p) / size % static_cast<unsigned>(group));
	return s;
}

static inline void lk_span_meet(struct lk_span *s, const void *p, size_t size)
{
	uintptr_t move = static_cast<unsigned>(s->group) * size < 16 ? 8 : 16;

	if ((reinterpret_cast<uintptr_t>(p) - static_cast<uintptr_t>(s->lead) * size) % move)
		s->vec = 0;
}

static inline int64_t lk_span_groups(const struct lk_span *s)
{
	return lk_ceil_div(s->n + s->lead, s->group);
}

/* ---- groups on the device ---- */

template <typename T> struct lk_width {
	enum { SIZE = 16 / sizeof(T) };
};

__device__ static inline float lk_to_float(float x)
{
	return x;
}

__device__ static inline float lk_to_float(lk_bf16 x)
{
	return __bfloat162float(x);
}

__device__ static inline void lk_from_float(float *p, float x)
{
	*p = x;
}

__device__ static inline void lk_from_float(lk_bf16 *p, float x)
{
	*p = __float2bfloat16(x);
}

/* G elements as they lie in memory: 8, 16 or 32 bytes. */
template <typename T, int G> struct alignas(G * sizeof(T) % 16 ? 8 : 16) lk_held {
	uint32_t w[G * sizeof(T) / 4];
};

/* W words of global memory, when `yes`. */
template <int W> __device__ static inline void lk_words_load(uint32_t *w, const void *p, int yes)
{
	if (W == 2)
		lk_ld8(w, p, yes);
#pragma unroll
	for (int i = 0; i < W / 4; i++)
		lk_ld16(w + 4 * i, static_cast<const uint32_t *>(p) + 4 * i, yes);
}

template <int W> __device__ static inline void lk_words_store(void *p, const uint32_t *w, int yes)
{
	if (W == 2)
		lk_st8(p, w, yes);
#pragma unroll
	for (int i = 0; i < W / 4; i++)
		lk_st16(static_cast<uint32_t *>(p) + 4 * i, w + 4 * i, yes);
}

template <int G> __device__ static inline void lk_held_get(float *x, const struct lk_held<lk_bf16, G> *h)
{
#pragma unroll
	for (int i = 0; i < G / 2; i++) {
		x[2 * i] = __uint_as_float(h->w[i] << 16);
		x[2 * i + 1] = __uint_as_float(h->w[i] & 0xffff0000u);
	}
}

template <int G> __device__ static inline void lk_held_get(float *x, const struct lk_held<float, G> *h)
{
#pragma unroll
	for (int i = 0; i < G; i++)
		x[i] = __uint_as_float(h->w[i]);
}

template <int G> __device__ static inline void lk_held_set(struct lk_held<lk_bf16, G> *h, const float *x)
{
#pragma unroll
	for (int i = 0; i < G / 2; i++)
		h->w[i] = lk_pack2(x[2 * i], x[2 * i + 1]);
}

template <int G> __device__ static inline void lk_held_set(struct lk_held<float, G> *h, const float *x)
{
#pragma unroll
	for (int i = 0; i < G; i++)
		h->w[i] = __float_as_uint(x[i]);
}

/* The group at p, of which `left` elements belong to the row (more or less than G): zeros for the others. VEC: all or none
 * of the group belongs to it. */
template <bool VEC, typename T, int G>
__device__ static inline void lk_hold(struct lk_held<T, G> *h, const T *p, int64_t left)
{
	if (VEC) {
#pragma unroll
		for (int i = 0; i < static_cast<int>(G * sizeof(T) / 4); i++)
			h->w[i] = 0;
		lk_words_load<G * sizeof(T) / 4>(h->w, p, left > 0);
	} else {
		float x[G];

#pragma unroll
		for (int i = 0; i < G; i++)
			x[i] = i < left ? lk_to_float(p[i]) : 0.0f;
		lk_held_set<G>(h, x);
	}
}

/* And back to memory: as it is held, and from floats. */
template <bool VEC, typename T, int G>
__device__ static inline void lk_release(T *p, const struct lk_held<T, G> *h, int64_t left)
{
	if (VEC) {
		lk_words_store<G * sizeof(T) / 4>(p, h->w, left > 0);
	} else {
		float x[G];

		lk_held_get<G>(x, h);
#pragma unroll
		for (int i = 0; i < G; i++)
			if (i < left)
				lk_from_float(p + i, x[i]);
	}
}

template <bool VEC, int G, typename T> __device__ static inline void lk_give(T *p, const float *x, int64_t left)
{
	struct lk_held<T, G> h;

	lk_held_set<G>(&h, x);
	lk_release<VEC>(p, &h, left);
}

/* The group of span s that begins at element `at` (G g - lead) of p. VEC: the whole of it lies inside. */
template <bool VEC, typename T, int G>
__device__ static inline void lk_span_hold(struct lk_held<T, G> *h, const T *p, const struct lk_span *s, int64_t at)
{
	if (VEC) {
#pragma unroll
		for (int i = 0; i < static_cast<int>(G * sizeof(T) / 4); i++)
			h->w[i] = 0;
		lk_words_load<G * sizeof(T) / 4>(h->w, p + at, 1);
	} else {
		float x[G];

#pragma unroll
		for (int i = 0; i < G; i++)
			x[i] = at + i >= 0 && at + i < s->n ? lk_to_float(p[at + i]) : 0.0f;
		lk_held_set<G>(h, x);
	}
}

template <bool VEC, int G, typename T>
__device__ static inline void lk_span_give(T *p, const float *x, const struct lk_span *s, int64_t at)
{
	struct lk_held<T, G> h;
	float y[G];

	lk_held_set<G>(&h, x);
	if (VEC) {
		lk_words_store<G * sizeof(T) / 4>(p + at, h.w, 1);
		return;
	}
	lk_held_get<G>(y, &h);
#pragma unroll
	for (int i = 0; i < G; i++)
		if (at + i >= 0 && at + i < s->n)
			lk_from_float(p + at + i, y[i]);
}

/* ---- sums over a block, in an order that depends on its size alone ---- */

__device__ static inline double lk_warp_sum_f64(double x)
{
	for (int d = 16; d; d >>= 1)
		x += __shfl_xor_sync(0xffffffffu, x, d);
	return x;
}

/* Sum of x over all threads of a one-dimensional block of whole warps, in every thread. part: 33 floats of shared
 * memory that no other sum uses at the same time; two alternating ones need no barrier between sums. */
__device__ static inline float lk_block_sum(float x, float *part)
{
	int warps = static_cast<int>(blockDim.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;

	x = lk_warp_sum(x);
	if (warps == 1)
		return x;
	if (lane == 0)
		part[threadIdx.x / 32] = x;
	__syncthreads();
	return lk_warp_sum(lane < warps ? part[lane] : 0.0f);
}

__device__ static inline float lk_block_max(float x, float *part)
{
	int warps = static_cast<int>(blockDim.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;

	x = lk_warp_max(x);
	if (warps == 1)
		return x;
	if (lane == 0)
		part[threadIdx.x / 32] = x;
	__syncthreads();
	return lk_warp_max(lane < warps ? part[lane] : -INFINITY);
}

#endif
