/* feature.cu - leaky relu, pooling and the distance of features. Memory-bound and a small part of a step beside the convolutions: a
 * thread takes one element, of pooling one pooled element, of the distance a warp takes a pixel. */
#include "kernels/cuda/image_int.h"

enum { THREADS = 256, WARPS = THREADS / 32, PARTS = 1024 }; /* PARTS: partial sums of the distance, the same on every chip */

static unsigned grid_of(int64_t n)
{
	return static_cast<unsigned>(lk_ceil_div(n, THREADS));
}

/* out = g where sign > 0, else slope g; all may be the same. */
template <typename T> static __global__ void leak(T *out, const T *g, const T *sign, int64_t n, float slope)
{
	int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;

	if (i < n)
		out[i] = static_cast<T>(static_cast<float>(g[i]) * (static_cast<float>(sign[i]) > 0 ? 1.0f : slope));
}

template <typename T>
static int leak_of(struct lk_dev *dev, const char *op, const struct lk_view *out, const struct lk_view *g,
		   const struct lk_view *sign, float slope)
{
	auto k = leak<T>;

	LK_LAUNCH(k, grid_of(lk_elements(g)), THREADS, 0, lk_stream(dev), static_cast<T *>(out->data),
		  static_cast<const T *>(g->data), static_cast<const T *>(sign->data), lk_elements(g), slope);
	return lk_launched(dev, op);
}

static int leaky_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, float slope)
{
	return x->dtype == LK_F32 ? leak_of<float>(dev, "leaky_fwd", y, x, x, slope) : leak_of<lk_bf16>(dev, "leaky_fwd", y, x, x, slope);
}

static int leaky_bwd(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *y, float slope)
{
	return y->dtype == LK_F32 ? leak_of<float>(dev, "leaky_bwd", dx, dy, y, slope) :
				    leak_of<lk_bf16>(dev, "leaky_bwd", dx, dy, y, slope);
}

/* ---- pooling ---- */

struct pool {
	int64_t n, h, w, c; /* of the larger image */
};

/* Elements of x under pooled element i: the first of four; *largest: that of the largest, of equal ones the first by rows. */
template <typename T> __device__ static inline int64_t under(const T *x, const struct pool *p, int64_t i, int64_t *largest)
{
	int64_t c = i % p->c, ox = i / p->c % (p->w / 2), row = i / p->c / (p->w / 2);
	int64_t at = ((row / (p->h / 2) * p->h + 2 * (row % (p->h / 2))) * p->w + 2 * ox) * p->c + c;

	*largest = at;
	for (int k = 1; k < 4; k++) {
		int64_t q = at + ((k >> 1) * p->w + (k & 1)) * p->c;

		if (static_cast<float>(x[q]) > static_cast<float>(x[*largest]))
			*largest = q;
	}
	return at;
}

template <typename T> static __global__ void pool_fwd(T *y, const T *x, struct pool p, int64_t n)
{
	int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x, most;

	if (i >= n)
		return;
	under(x, &p, i, &most);
	y[i] = x[most];
}

/* dx is 0. */
template <typename T> static __global__ void pool_bwd(T *dx, const T *dy, const T *x, struct pool p, int64_t n)
{
	int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x, most;

	if (i >= n)
		return;
	under(x, &p, i, &most);
	dx[most] = dy[i];
}

static struct pool pool_of(const struct lk_view *x)
{
	struct pool p = { x->n[0], x->n[1], x->n[2], x->n[3] };

	return p;
}

template <typename T> static int pool_fwd_of(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	auto k = pool_fwd<T>;

	LK_LAUNCH(k, grid_of(lk_elements(y)), THREADS, 0, lk_stream(dev), static_cast<T *>(y->data),
		  static_cast<const T *>(x->data), pool_of(x), lk_elements(y));
	return lk_launched(dev, "maxpool_fwd");
}

static int maxpool_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	return x->dtype == LK_F32 ? pool_fwd_of<float>(dev, y, x) : pool_fwd_of<lk_bf16>(dev, y, x);
}

template <typename T>
static int pool_bwd_of(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *x)
{
	auto k = pool_bwd<T>;
	size_t bytes = static_cast<size_t>(lk_elements(dx)) * sizeof(T);
	int rc = lk_cuda_check(dev, "maxpool_bwd", cudaMemsetAsync(dx->data, 0, bytes, lk_stream(dev)));

	if (rc)
		return rc;
	LK_LAUNCH(k, grid_of(lk_elements(dy)), THREADS, 0, lk_stream(dev), static_cast<T *>(dx->data),
		  static_cast<const T *>(dy->data), static_cast<const T *>(x->data), pool_of(x), lk_elements(dy));
	return lk_launched(dev, "maxpool_bwd");
}

static int maxpool_bwd(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *x)
{
	return x->dtype == LK_F32 ? pool_bwd_of<float>(dev, dx, dy, x) : pool_bwd_of<lk_bf16>(dev, dx, dy, x);
}

/* ---- distance of features ---- */

template <typename T> struct feature_args {
	const T *x, *t;
	T *dx;
	const float *weight;
	double *part; /* PARTS, then the sum */
	int64_t pixels, c;
	float scale;
	double inv;
};

/* A warp's pixel; the sum is in every lane. As ref's, in fp32. */
template <typename T> __device__ static inline float pixel_loss(const struct feature_args<T> *a, int64_t p)
{
	const T *x = a->x + p * a->c, *t = a->t + p * a->c;
	float xx = 0, tt = 0, sum = 0, xg = 0;

	for (int64_t j = threadIdx.x % 32; j < a->c; j += 32) {
		xx += static_cast<float>(x[j]) * static_cast<float>(x[j]);
		tt += static_cast<float>(t[j]) * static_cast<float>(t[j]);
	}
	xx = lk_warp_sum(xx);
	tt = lk_warp_sum(tt);
	float norm = sqrtf(xx), ix = 1 / (norm + 1e-10f), it = 1 / (sqrtf(tt) + 1e-10f);

	for (int64_t j = threadIdx.x % 32; j < a->c; j += 32) {
		float d = static_cast<float>(x[j]) * ix - static_cast<float>(t[j]) * it;

		sum += a->weight[j] * d * d;
		xg += static_cast<float>(x[j]) * ix * 2 * a->weight[j] * d;
	}
	sum = lk_warp_sum(sum);
	xg = lk_warp_sum(xg);
	float k = norm > 0 ? a->scale * ix : 0, back = norm > 0 ? xg / norm : 0;

	for (int64_t j = threadIdx.x % 32; a->dx && j < a->c; j += 32) {
		float v = static_cast<float>(x[j]), d = v * ix - static_cast<float>(t[j]) * it;

		a->dx[p * a->c + j] = static_cast<T>(k * (2 * a->weight[j] * d - v * back));
	}
	return sum;
}

template <typename T> static __global__ void feature_parts(struct feature_args<T> a)
{
	__shared__ double warp[WARPS];
	double sum = 0;

	for (int64_t p = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32; p < a.pixels;
	     p += static_cast<int64_t>(PARTS) * WARPS)
		sum += static_cast<double>(pixel_loss(&a, p));
	if (threadIdx.x % 32 == 0)
		warp[threadIdx.x / 32] = sum;
	__syncthreads();
	if (threadIdx.x == 0) {
		double all = 0;

		for (int i = 0; i < WARPS; i++)
			all += warp[i];
		a.part[blockIdx.x] = all;
	}
}

static __global__ void feature_total(double *part, double inv)
{
	double sum = 0;

	for (int i = 0; i < PARTS; i++)
		sum += part[i];
	part[PARTS] = sum * inv;
}

template <typename T>
static int feature_of(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
		      const float *weight, float scale, double *host_out)
{
	double *part = static_cast<double *>(lk_scratch(dev, "feature_loss", (PARTS + 1) * sizeof(double)));
	int64_t pixels = x->n[0] * x->n[1] * x->n[2];
	double inv = 1.0 / static_cast<double>(pixels);
	struct feature_args<T> a = { static_cast<const T *>(x->data), static_cast<const T *>(t->data),
				     dx ? static_cast<T *>(dx->data) : nullptr, weight, part, pixels, x->n[3],
				     static_cast<float>(scale * inv), inv };
	auto k = feature_parts<T>;
	int rc;

	if (!part)
		return LK_ENOMEM;
	LK_LAUNCH(k, PARTS, THREADS, 0, lk_stream(dev), a);
	rc = lk_launched(dev, "feature_loss");
	if (rc)
		return rc;
	LK_LAUNCH(feature_total, 1, 1, 0, lk_stream(dev), part, inv);
	rc = lk_launched(dev, "feature_loss");
	return rc ? rc : lk_result(dev, "feature_loss", host_out, part + PARTS, sizeof(double));
}

static int feature_loss(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
			const float *weight, float scale, double *host_out)
{
	return x->dtype == LK_F32 ? feature_of<float>(dev, dx, x, t, weight, scale, host_out) :
				    feature_of<lk_bf16>(dev, dx, x, t, weight, scale, host_out);
}

void lk_cuda_fill_feature(struct lk_ops *o)
{
	o->image.leaky_fwd = leaky_fwd;
	o->image.leaky_bwd = leaky_bwd;
	o->image.maxpool_fwd = maxpool_fwd;
	o->image.maxpool_bwd = maxpool_bwd;
	o->image.feature_loss = feature_loss;
}
