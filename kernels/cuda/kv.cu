/* kv.cu - keys and values in fewer bits: what lk_kv_store and lk_kv_load do. A warp takes one head of one token; four
 * neighbouring elements a lane where addresses allow it. */
#include "kernels/cuda/cuda_int.h"

enum { WARPS = 8 };

/* One head of every token: element i of head h of token t lies at p + t * t_step + h * h_step + i. */
struct wide {
	void *p;
	int64_t t_step, h_step;
};

struct kv_args {
	struct wide x, y; /* wide floats; stored */
	float *scale;
	int64_t scale_step, rows, d; /* rows: tokens x heads */
	int heads, vec;
};

__device__ static inline float kv_get(const float *p)
{
	return *p;
}

__device__ static inline float kv_get(const lk_bf16 *p)
{
	return __bfloat162float(*p);
}

__device__ static inline float kv_get(const int8_t *p)
{
	return static_cast<float>(*p);
}

__device__ static inline void kv_put(float *p, float x)
{
	*p = x;
}

__device__ static inline void kv_put(lk_bf16 *p, float x)
{
	*p = __float2bfloat16_rn(x);
}

__device__ static inline void kv_put(int8_t *p, float x)
{
	*p = static_cast<int8_t>(x);
}

template <int PER, typename T> struct alignas(PER * sizeof(T)) few {
	T v[PER];
};

/* PER elements of a row, 4 or 1, by one instruction. */
template <int PER, typename T> __device__ static inline void kv_read(float x[PER], const T *p)
{
	struct few<PER, T> raw = *reinterpret_cast<const struct few<PER, T> *>(p);

#pragma unroll
	for (int k = 0; k < PER; k++)
		x[k] = kv_get(&raw.v[k]);
}

template <int PER, typename T> __device__ static inline void kv_write(T *p, const float x[PER])
{
	struct few<PER, T> raw;

#pragma unroll
	for (int k = 0; k < PER; k++)
		kv_put(&raw.v[k], x[k]);
	*reinterpret_cast<struct few<PER, T> *>(p) = raw;
}

/* The row of this warp; -1: there is none. */
__device__ static inline int64_t kv_row(const struct kv_args *a)
{
	int64_t row = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;

	return row < a->rows ? row : -1;
}

template <typename T> __device__ static inline T *kv_at(const struct wide *w, int64_t row, int heads)
{
	return static_cast<T *>(w->p) + row / heads * w->t_step + row % heads * w->h_step;
}

/* max|x| / 127 of the row; NaN where something is not finite. */
template <int PER, typename T> __device__ static inline float row_scale(const T *x, int64_t d)
{
	int lane = threadIdx.x % 32, bad = 0;
	float most = 0, v[PER];

	for (int64_t i = lane * PER; i < d; i += 32 * PER) {
		kv_read<PER>(v, x + i);
#pragma unroll
		for (int k = 0; k < PER; k++) {
			most = fmaxf(most, fabsf(v[k]));
			bad |= !(fabsf(v[k]) <= 3.4028234664e38f);
		}
	}
	most = lk_warp_max(most);
	return __any_sync(0xffffffffu, bad) ? __uint_as_float(0x7fc00000u) : most / 127.0f;
}

template <int PER, typename T> static __global__ void __launch_bounds__(32 * WARPS) store8_kernel(struct kv_args a)
{
	int64_t row = kv_row(&a);
	int lane = threadIdx.x % 32;
	float scale, v[PER];
	const T *x;
	int8_t *y;

	if (row < 0)
		return;
	x = kv_at<T>(&a.x, row, a.heads);
	y = kv_at<int8_t>(&a.y, row, a.heads);
	scale = row_scale<PER>(x, a.d);
	for (int64_t i = lane * PER; i < a.d; i += 32 * PER) {
		kv_read<PER>(v, x + i);
#pragma unroll
		for (int k = 0; k < PER; k++)
			v[k] = scale > 0 ? fmaxf(-127.0f, fminf(127.0f, rintf(v[k] / scale))) : 0.0f;
		kv_write<PER>(y + i, v);
	}
	if (lane == 0)
		a.scale[row / a.heads * a.scale_step + row % a.heads] = scale;
}

/* y = x, or x * scale */
template <int PER, typename X, typename Y>
static __global__ void __launch_bounds__(32 * WARPS) convert_kernel(struct kv_args a)
{
	int64_t row = kv_row(&a);
	int lane = threadIdx.x % 32;
	float scale, v[PER];
	const X *x;
	Y *y;

	if (row < 0)
		return;
	x = kv_at<X>(&a.x, row, a.heads);
	y = kv_at<Y>(&a.y, row, a.heads);
	scale = a.scale ? a.scale[row / a.heads * a.scale_step + row % a.heads] : 1.0f;
	for (int64_t i = lane * PER; i < a.d; i += 32 * PER) {
		kv_read<PER>(v, x + i);
#pragma unroll
		for (int k = 0; k < PER; k++)
			v[k] *= scale;
		kv_write<PER>(y + i, v);
	}
}

static int fours(const struct lk_view *v)
{
	uintptr_t steps = static_cast<uintptr_t>(v->stride[0] | v->stride[1] | v->n[2]);

	return (steps & 3) == 0 && reinterpret_cast<uintptr_t>(v->data) % (4 * lk_dtype_size(v->dtype)) == 0;
}

static struct kv_args kv_args_of(const struct lk_view *x, const struct lk_view *y, float *scale, int64_t scale_step)
{
	struct kv_args a;

	a.x = { x->data, x->stride[0], x->stride[1] };
	a.y = { y->data, y->stride[0], y->stride[1] };
	a.scale = scale;
	a.scale_step = scale_step;
	a.rows = x->n[0] * x->n[1];
	a.d = x->n[2];
	a.heads = static_cast<int>(x->n[1]);
	a.vec = fours(x) && fours(y);
	return a;
}

typedef void kv_kernel(struct kv_args);

static int kv_launch(struct lk_dev *dev, const char *op, kv_kernel *four, kv_kernel *one, struct kv_args a)
{
	kv_kernel *kernel = a.vec ? four : one;

	LK_LAUNCH(kernel, static_cast<unsigned>(lk_ceil_div(a.rows, WARPS)), 32 * WARPS, 0, lk_stream(dev), a);
	return lk_launched(dev, op);
}

template <typename X> static int store(struct lk_dev *dev, int dtype, struct kv_args a)
{
	if (dtype == LK_I8)
		return kv_launch(dev, "kv_store", store8_kernel<4, X>, store8_kernel<1, X>, a);
	return kv_launch(dev, "kv_store", convert_kernel<4, X, lk_bf16>, convert_kernel<1, X, lk_bf16>, a);
}

template <typename Y> static int load(struct lk_dev *dev, int dtype, struct kv_args a)
{
	if (dtype == LK_I8)
		return kv_launch(dev, "kv_load", convert_kernel<4, int8_t, Y>, convert_kernel<1, int8_t, Y>, a);
	return kv_launch(dev, "kv_load", convert_kernel<4, lk_bf16, Y>, convert_kernel<1, lk_bf16, Y>, a);
}

static int kv_store(struct lk_dev *dev, const struct lk_view *y, float *scale, int64_t scale_stride, const struct lk_view *x)
{
	struct kv_args a = kv_args_of(x, y, scale, scale_stride);

	return x->dtype == LK_BF16 ? store<lk_bf16>(dev, y->dtype, a) : store<float>(dev, y->dtype, a);
}

static int kv_load(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const float *scale,
		   int64_t scale_stride)
{
	struct kv_args a = kv_args_of(x, y, const_cast<float *>(scale), scale_stride);

	return y->dtype == LK_BF16 ? load<lk_bf16>(dev, x->dtype, a) : load<float>(dev, x->dtype, a);
}

void lk_cuda_fill_kv(struct lk_ops *o)
{
	o->generation.kv_store = kv_store;
	o->generation.kv_load = kv_load;
}
