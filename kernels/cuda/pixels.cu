/* pixels.cu - 8-bit pixels to and from activations, and the reconstruction loss.
 *
 * Memory-bound: a thread takes 8 neighbouring elements (16 bytes of bf16) where pointers allow, one otherwise.
 */
#include "kernels/cuda/image_int.h"

enum { THREADS = 256, PARTS = 1024 }; /* PARTS: partial sums of the loss, fixed so that results are the same on every chip */

/* Elements [at, at + n) of V possible ones; n < V only at the end. */
template <int V, typename T> __device__ static inline void load(float *x, const T *p, int64_t at, int64_t total)
{
	if constexpr (V == 8 && sizeof(T) == 2) {
		if (at + V <= total) {
			lk_load8(x, reinterpret_cast<const lk_bf16 *>(p) + at);
			return;
		}
	}
	for (int i = 0; i < V; i++)
		x[i] = at + i < total ? static_cast<float>(p[at + i]) : 0.0f;
}

template <int V, typename T> __device__ static inline void store(T *p, const float *x, int64_t at, int64_t total)
{
	if constexpr (V == 8 && sizeof(T) == 2) {
		if (at + V <= total) {
			lk_store8(reinterpret_cast<lk_bf16 *>(p) + at, x);
			return;
		}
	}
	for (int i = 0; i < V; i++)
		if (at + i < total)
			p[at + i] = static_cast<T>(x[i]);
}

/* fp32 throughout, as every backend: the conversion is part of the file format of images. */
__device__ static inline uint8_t to_u8(float v)
{
	float p = (v + 1.0f) * 127.5f;

	return p >= 255.0f ? 255 : p > 0.0f ? static_cast<uint8_t>(p) : 0; /* NaN gives 0 */
}

template <int V, typename T> static __global__ void from_pixels(T *y, const uint8_t *u, int64_t n)
{
	int64_t at = (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * V;
	float v[V];

	if (at >= n)
		return;
	if (V == 8 && at + V <= n) {
		uint2 raw = *reinterpret_cast<const uint2 *>(u + at);

		for (int i = 0; i < V; i++)
			v[i] = static_cast<float>((i < 4 ? raw.x >> 8 * i : raw.y >> 8 * (i - 4)) & 255);
	} else {
		for (int i = 0; i < V; i++)
			v[i] = at + i < n ? static_cast<float>(u[at + i]) : 0.0f;
	}
	for (int i = 0; i < V; i++)
		v[i] = v[i] / 127.5f - 1.0f;
	store<V>(y, v, at, n);
}

template <int V, typename T> static __global__ void to_pixels(uint8_t *u, const T *x, int64_t n)
{
	int64_t at = (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * V;
	float v[V];
	uint32_t w[2] = { 0, 0 };

	if (at >= n)
		return;
	load<V>(v, x, at, n);
	if (V == 8 && at + V <= n) {
		for (int i = 0; i < V; i++)
			w[i / 4] |= static_cast<uint32_t>(to_u8(v[i])) << 8 * (i % 4);
		*reinterpret_cast<uint2 *>(u + at) = make_uint2(w[0], w[1]);
		return;
	}
	for (int i = 0; i < V; i++)
		if (at + i < n)
			u[at + i] = to_u8(v[i]);
}

template <int V, typename T> static int pixels_of(struct lk_dev *dev, void *y, const void *x, int64_t n, int to)
{
	unsigned grid = static_cast<unsigned>(lk_ceil_div(n, static_cast<int64_t>(THREADS) * V));

	if (to) {
		auto k = to_pixels<V, T>;
		LK_LAUNCH(k, grid, THREADS, 0, lk_stream(dev), static_cast<uint8_t *>(y), static_cast<const T *>(x), n);
	} else {
		auto k = from_pixels<V, T>;
		LK_LAUNCH(k, grid, THREADS, 0, lk_stream(dev), static_cast<T *>(y), static_cast<const uint8_t *>(x), n);
	}
	return lk_launched(dev, "pixels");
}

static int pixels(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	int to = y->dtype == LK_U8, f32 = (to ? x : y)->dtype == LK_F32;
	int wide = lk_aligned16(y->data) && lk_aligned16(x->data);
	int64_t n = lk_elements(x);

	if (f32)
		return pixels_of<1, float>(dev, y->data, x->data, n, to);
	return wide ? pixels_of<8, lk_bf16>(dev, y->data, x->data, n, to) :
		      pixels_of<1, lk_bf16>(dev, y->data, x->data, n, to);
}

/* ---- reconstruction loss ---- */

struct loss_args {
	const void *x, *t;
	void *dx;
	double *part; /* (PARTS,2) */
	int64_t n;
	double w1, w2, inv;
};

/* part[2i], part[2i+1]: sum of a and of b over the block, by halving: the same order on every run. */
__device__ static void block_sums(double *part, double a, double b)
{
	__shared__ double sa[THREADS], sb[THREADS];

	sa[threadIdx.x] = a;
	sb[threadIdx.x] = b;
	for (unsigned half = THREADS / 2; half; half /= 2) {
		__syncthreads();
		if (threadIdx.x < half) {
			sa[threadIdx.x] += sa[threadIdx.x + half];
			sb[threadIdx.x] += sb[threadIdx.x + half];
		}
	}
	if (threadIdx.x == 0) {
		part[0] = sa[0];
		part[1] = sb[0];
	}
}

template <int V, typename TX, typename TT, typename TD> static __global__ void loss_parts(struct loss_args a)
{
	double l1 = 0.0, l2 = 0.0;
	int64_t step = static_cast<int64_t>(PARTS) * THREADS * V;
	float x[V], t[V];

	for (int64_t at = (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * V; at < a.n; at += step) {
		load<V>(x, static_cast<const TX *>(a.x), at, a.n);
		load<V>(t, static_cast<const TT *>(a.t), at, a.n);
		for (int i = 0; i < V; i++) {
			double d = static_cast<double>(x[i]) - static_cast<double>(t[i]);
			double sign = d > 0.0 ? 1.0 : d < 0.0 ? -1.0 : 0.0;

			l1 += fabs(d);
			l2 += d * d;
			x[i] = static_cast<float>((a.w1 * sign + a.w2 * 2.0 * d) * a.inv);
		}
		if (a.dx)
			store<V>(static_cast<TD *>(a.dx), x, at, a.n);
	}
	block_sums(a.part + 2 * blockIdx.x, l1, l2);
}

static __global__ void loss_total(double *out, const double *part, double inv)
{
	double l1 = 0.0, l2 = 0.0;

	for (int i = threadIdx.x; i < PARTS; i += THREADS) {
		l1 += part[2 * i] * inv;
		l2 += part[2 * i + 1] * inv;
	}
	block_sums(out, l1, l2);
}

template <int V, typename TX, typename TT, typename TD> static void loss_launch(struct lk_dev *dev, const struct loss_args *a)
{
	auto k = loss_parts<V, TX, TT, TD>;

	LK_LAUNCH(k, PARTS, THREADS, 0, lk_stream(dev), *a);
}

template <typename TX, typename TT> static void loss_of(struct lk_dev *dev, const struct loss_args *a, int dx_f32)
{
	if (dx_f32)
		loss_launch<1, TX, TT, float>(dev, a);
	else
		loss_launch<1, TX, TT, lk_bf16>(dev, a);
}

static int recon_loss(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
		      float w1, float w2, double *host_out)
{
	int64_t n = lk_elements(x);
	double *part = static_cast<double *>(lk_scratch(dev, "recon_loss", (2 * PARTS + 2) * sizeof(double)));
	struct loss_args a = { x->data, t->data, dx ? dx->data : nullptr, part, n, w1, w2, 1.0 / static_cast<double>(n) };
	int dx_f32 = dx && dx->dtype == LK_F32, xf = x->dtype == LK_F32, tf = t->dtype == LK_F32;
	int rc;

	if (!part)
		return LK_ENOMEM;
	if (!dx_f32 && !xf && !tf && lk_aligned16(a.x) && lk_aligned16(a.t) && lk_aligned16(a.dx))
		loss_launch<8, lk_bf16, lk_bf16, lk_bf16>(dev, &a);
	else if (xf)
		tf ? loss_of<float, float>(dev, &a, dx_f32) : loss_of<float, lk_bf16>(dev, &a, dx_f32);
	else
		tf ? loss_of<lk_bf16, float>(dev, &a, dx_f32) : loss_of<lk_bf16, lk_bf16>(dev, &a, dx_f32);
	rc = lk_launched(dev, "recon_loss");
	if (rc)
		return rc;
	LK_LAUNCH(loss_total, 1, THREADS, 0, lk_stream(dev), part + 2 * PARTS, part, a.inv);
	rc = lk_launched(dev, "recon_loss");
	return rc ? rc : lk_result(dev, "recon_loss", host_out, part + 2 * PARTS, 2 * sizeof(double));
}

void lk_cuda_fill_pixels(struct lk_ops *o)
{
	o->image.pixels = pixels;
	o->image.recon_loss = recon_loss;
}
