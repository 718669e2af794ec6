/* attn_state.cu - what surrounds block attention: the carried state begins and ends, delta for the backward, two partial
 * results become one. All are limited by memory. A row is one query and head: `lanes` neighbouring threads (a power of two,
 * at most 32) share it, each with pieces of V elements; 256 threads a block.
 */
#include <math.h>

#include "kernels/cuda/attn_int.h"

enum { THREADS = 256 };

/* Which row and which piece of it a thread has. */
struct place {
	int64_t row;
	int lane;
	bool valid;
};

__device__ static struct place place_of(int lanes, int64_t rows)
{
	struct place p;

	p.row = static_cast<int64_t>(blockIdx.x) * (THREADS / lanes) + threadIdx.x / lanes;
	p.lane = static_cast<int>(threadIdx.x) % lanes;
	p.valid = p.row < rows;
	return p;
}

/* Threads for a row of `pieces` pieces. */
static int lanes_for(int64_t pieces)
{
	int lanes = 1;

	while (lanes < 32 && lanes < pieces)
		lanes *= 2;
	return lanes;
}

static unsigned blocks_for(int64_t rows, int lanes)
{
	return static_cast<unsigned>(lk_ceil_div(rows, THREADS / lanes));
}

static bool is_16(const void *p)
{
	return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

/* Rows of v begin at multiples of 16 bytes and are whole pieces of 8 elements. */
static bool is_vec(const struct lk_view *v)
{
	int64_t size = static_cast<int64_t>(lk_dtype_size(v->dtype));

	return v->n[2] % 8 == 0 && is_16(v->data) && v->stride[0] * size % 16 == 0 && v->stride[1] * size % 16 == 0;
}

template <int V> __device__ static inline void load_f32(float *x, const float *p)
{
	if constexpr (V == 1) {
		x[0] = *p;
	} else {
		for (int i = 0; i < V; i += 4) {
			float4 f = *reinterpret_cast<const float4 *>(p + i);

			x[i] = f.x;
			x[i + 1] = f.y;
			x[i + 2] = f.z;
			x[i + 3] = f.w;
		}
	}
}

template <int V> __device__ static inline void store_f32(float *p, const float *x)
{
	if constexpr (V == 1) {
		*p = x[0];
	} else {
		for (int i = 0; i < V; i += 4)
			*reinterpret_cast<float4 *>(p + i) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
	}
}

template <int V> __device__ static inline void load_bf16(float *x, const lk_bf16 *p)
{
	if constexpr (V == 1)
		x[0] = __bfloat162float(*p);
	else
		lk_load8(x, p);
}

template <int V> __device__ static inline void store_bf16(lk_bf16 *p, const float *x)
{
	if constexpr (V == 1)
		*p = __float2bfloat16(x[0]);
	else
		lk_store8(p, x);
}

/* ---- begin, and attention to no keys at all ---- */

static __global__ void fill_kernel(float *x, int64_t n, float value)
{
	int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;

	if (i < n)
		x[i] = value;
}

static int fill(struct lk_dev *dev, const char *op, float *x, int64_t n, float value)
{
	LK_LAUNCH(fill_kernel, static_cast<unsigned>(lk_ceil_div(n, THREADS)), THREADS, 0, lk_stream(dev), x, n, value);
	return lk_launched(dev, op);
}

static int attn_begin(struct lk_dev *dev, const struct lk_attn_state *st, int64_t tq, int64_t h, int64_t d)
{
	size_t rows = static_cast<size_t>(tq * h);
	int rc = fill(dev, "attn_begin", st->m, tq * h, -INFINITY);

	if (!rc)
		rc = lk_cuda_check(dev, "attn_begin", cudaMemsetAsync(st->l, 0, rows * sizeof(float), lk_stream(dev)));
	if (!rc)
		rc = lk_cuda_check(dev, "attn_begin",
				   cudaMemsetAsync(st->acc, 0, rows * static_cast<size_t>(d) * sizeof(float),
						   lk_stream(dev)));
	return rc;
}

static __global__ void clear_rows(void *o, int f32, int64_t o_t, int64_t o_h, int64_t tq, int h, int d)
{
	int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x, row = i / d;
	int64_t at = row / h * o_t + row % h * o_h + i % d;

	if (row >= tq * h)
		return;
	if (f32)
		static_cast<float *>(o)[at] = 0;
	else
		static_cast<lk_bf16 *>(o)[at] = __float2bfloat16(0);
}

int lk_attn_nothing(struct lk_dev *dev, const struct lk_attn_job *j)
{
	int64_t n = j->tq * j->h * j->d;

	LK_LAUNCH(clear_rows, static_cast<unsigned>(lk_ceil_div(n, THREADS)), THREADS, 0, lk_stream(dev), j->o, j->o_f32,
		  j->o_t, j->o_h, j->tq, j->h, j->d);
	if (int rc = lk_launched(dev, "attn_once"))
		return rc;
	return fill(dev, "attn_once", j->lse, j->tq * j->h, -INFINITY);
}

/* ---- end ---- */

template <int V>
static __global__ void end_kernel(lk_bf16 *o, int64_t o_t, int64_t o_h, float *lse, const float *m, const float *l,
				  const float *acc, int64_t rows, int h, int d, int lanes)
{
	struct place p = place_of(lanes, rows);

	if (!p.valid)
		return;
	float sum = l[p.row], inv = sum > 0 ? 1 / sum : 0;
	lk_bf16 *out = o + p.row / h * o_t + p.row % h * o_h;

	for (int i = p.lane * V; i < d; i += lanes * V) {
		float x[V];

		load_f32<V>(x, acc + p.row * d + i);
		for (int e = 0; e < V; e++)
			x[e] *= inv;
		store_bf16<V>(out + i, x);
	}
	if (p.lane == 0)
		lse[p.row] = sum > 0 ? m[p.row] + logf(sum) : -INFINITY;
}

static int attn_end(struct lk_dev *dev, const struct lk_view *o, float *lse, const struct lk_attn_state *st)
{
	bool vec = is_vec(o) && is_16(st->acc);
	int h = static_cast<int>(o->n[1]), d = static_cast<int>(o->n[2]), lanes = lanes_for(vec ? d / 8 : d);
	int64_t rows = o->n[0] * h;
	auto kernel = vec ? end_kernel<8> : end_kernel<1>;

	LK_LAUNCH(kernel, blocks_for(rows, lanes), THREADS, 0, lk_stream(dev), static_cast<lk_bf16 *>(o->data),
		  o->stride[0], o->stride[1], lse, st->m, st->l, st->acc, rows, h, d, lanes);
	return lk_launched(dev, "attn_end");
}

/* ---- delta ---- */

template <int V>
static __global__ void delta_kernel(float *delta, const lk_bf16 *o, int64_t o_t, int64_t o_h, const lk_bf16 *g,
				    int64_t g_t, int64_t g_h, int64_t rows, int h, int d, int lanes)
{
	struct place p = place_of(lanes, rows);
	float sum = 0;

	if (p.valid) {
		const lk_bf16 *a = o + p.row / h * o_t + p.row % h * o_h, *b = g + p.row / h * g_t + p.row % h * g_h;

		for (int i = p.lane * V; i < d; i += lanes * V) {
			float x[V], y[V];

			load_bf16<V>(x, a + i);
			load_bf16<V>(y, b + i);
			for (int e = 0; e < V; e++)
				sum += x[e] * y[e];
		}
	}
	for (int k = lanes / 2; k; k /= 2)
		sum += __shfl_xor_sync(0xffffffffu, sum, k);
	if (p.valid && p.lane == 0)
		delta[p.row] = sum;
}

static int attn_delta(struct lk_dev *dev, float *delta, const struct lk_view *o, const struct lk_view *dout)
{
	bool vec = is_vec(o) && is_vec(dout);
	int h = static_cast<int>(o->n[1]), d = static_cast<int>(o->n[2]), lanes = lanes_for(vec ? d / 8 : d);
	int64_t rows = o->n[0] * h;
	auto kernel = vec ? delta_kernel<8> : delta_kernel<1>;

	LK_LAUNCH(kernel, blocks_for(rows, lanes), THREADS, 0, lk_stream(dev), delta,
		  static_cast<const lk_bf16 *>(o->data), o->stride[0], o->stride[1],
		  static_cast<const lk_bf16 *>(dout->data), dout->stride[0], dout->stride[1], rows, h, d, lanes);
	return lk_launched(dev, "attn_delta");
}

/* ---- merge ---- */

template <int V>
static __global__ void merge_kernel(float *o, float *lse, const float *o2, const float *lse2, int64_t rows, int d,
				    int lanes)
{
	struct place p = place_of(lanes, rows);
	float a = p.valid ? lse[p.row] : -INFINITY, b = p.valid ? lse2[p.row] : -INFINITY, m = fmaxf(a, b);

	__syncwarp(); // all lanes of a row have read its lse before one writes it
	if (m == -INFINITY)
		return; // neither part saw anything: o is zeros and lse -inf already
	float w1 = expf(a - m), w2 = expf(b - m), inv = 1 / (w1 + w2);

	for (int i = p.lane * V; i < d; i += lanes * V) {
		float x[V], y[V];

		load_f32<V>(x, o + p.row * d + i);
		load_f32<V>(y, o2 + p.row * d + i);
		for (int e = 0; e < V; e++)
			x[e] = (w1 * x[e] + w2 * y[e]) * inv;
		store_f32<V>(o + p.row * d + i, x);
	}
	if (p.lane == 0)
		lse[p.row] = m + logf(w1 + w2);
}

static int attn_merge(struct lk_dev *dev, float *o, float *lse, const float *o2, const float *lse2, int64_t tq,
		      int64_t h, int64_t d)
{
	bool vec = d % 8 == 0 && is_16(o) && is_16(o2);
	int lanes = lanes_for(vec ? d / 8 : d);
	auto kernel = vec ? merge_kernel<8> : merge_kernel<1>;

	LK_LAUNCH(kernel, blocks_for(tq * h, lanes), THREADS, 0, lk_stream(dev), o, lse, o2, lse2, tq * h,
		  static_cast<int>(d), lanes);
	return lk_launched(dev, "attn_merge");
}

void lk_cuda_fill_attn_state(struct lk_ops *o)
{
	o->attention.attn_begin = attn_begin;
	o->attention.attn_end = attn_end;
	o->attention.attn_delta = attn_delta;
	o->attention.attn_merge = attn_merge;
}
