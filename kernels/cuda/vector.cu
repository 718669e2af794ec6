/* vector.cu - element-wise ops and reductions over dense arrays, AdamW. Each array is read once and written once. */
#include "kernels/cuda/dense_int.h"

enum { THREADS = 256, UNROLL = 2 }; // UNROLL groups a thread, all loads before the first use

/* First element of the u-th group of this thread. */
template <int G> __device__ static inline int64_t group_at(const struct lk_span *s, int u)
{
	return G * ((static_cast<int64_t>(blockIdx.x) * UNROLL + u) * THREADS + threadIdx.x) - s->lead;
}

/* Do all groups of this block lie inside, where they can be moved whole? */
template <int G> __device__ static inline bool whole_block(const struct lk_span *s)
{
	int64_t first = static_cast<int64_t>(G * UNROLL * THREADS) * blockIdx.x - s->lead;

	return s->vec && first >= 0 && first + G * UNROLL * THREADS <= s->n;
}

static unsigned blocks_for(const struct lk_span *s)
{
	return static_cast<unsigned>(lk_ceil_div(lk_span_groups(s), THREADS * UNROLL));
}

/* ---- y = a x [+ y] ---- */

template <bool VEC, bool ADD, int G, typename Y, typename X>
__device__ static inline void linear_block(Y *y, const X *x, float a, const struct lk_span *s)
{
	struct lk_held<X, G> hx[UNROLL];
	struct lk_held<Y, G> hy[UNROLL];

#pragma unroll
	for (int u = 0; u < UNROLL; u++) {
		lk_span_hold<VEC>(&hx[u], x, s, group_at<G>(s, u));
		if (ADD)
			lk_span_hold<VEC>(&hy[u], y, s, group_at<G>(s, u));
	}
#pragma unroll
	for (int u = 0; u < UNROLL; u++) {
		float p[G], q[G];

		lk_held_get<G>(p, &hx[u]);
		if (ADD)
			lk_held_get<G>(q, &hy[u]);
#pragma unroll
		for (int i = 0; i < G; i++)
			p[i] = ADD ? q[i] + a * p[i] : a * p[i];
		lk_span_give<VEC, G>(y, p, s, group_at<G>(s, u));
	}
}

template <typename Y, typename X, int G, bool ADD>
static __global__ void __launch_bounds__(THREADS) linear_kernel(Y *y, const X *x, float a, struct lk_span s)
{
	if (whole_block<G>(&s))
		linear_block<true, ADD, G>(y, x, a, &s);
	else
		linear_block<false, ADD, G>(y, x, a, &s);
}

template <typename Y, typename X>
static int launch_linear(struct lk_dev *dev, const char *op, const struct lk_view *y, const struct lk_view *x, float a, bool add)
{
	const int g = sizeof(X) + sizeof(Y) == 4 ? 8 : 4;
	auto k = add ? linear_kernel<Y, X, g, true> : linear_kernel<Y, X, g, false>;
	const struct lk_view *small = sizeof(X) < sizeof(Y) ? x : y;
	int64_t n = 1;
	struct lk_span s;

	for (int i = 0; i < y->ndim; i++)
		n *= y->n[i];
	s = lk_span_of(n, g, small->data, lk_dtype_size(small->dtype));
	lk_span_meet(&s, y->data, sizeof(Y));
	lk_span_meet(&s, x->data, sizeof(X));
	LK_LAUNCH(k, blocks_for(&s), THREADS, 0, lk_stream(dev), static_cast<Y *>(y->data),
		  static_cast<const X *>(x->data), a, s);
	return lk_launched(dev, op);
}

static int linear_any(struct lk_dev *dev, const char *op, const struct lk_view *y, const struct lk_view *x, float a,
		      bool add)
{
	if (y->dtype == LK_BF16)
		return x->dtype == LK_BF16 ? launch_linear<lk_bf16, lk_bf16>(dev, op, y, x, a, add)
					   : launch_linear<lk_bf16, float>(dev, op, y, x, a, add);
	return x->dtype == LK_BF16 ? launch_linear<float, lk_bf16>(dev, op, y, x, a, add)
				   : launch_linear<float, float>(dev, op, y, x, a, add);
}

static int cast(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	return linear_any(dev, "cast", y, x, 1.0f, false);
}

static int axpy(struct lk_dev *dev, const struct lk_view *y, float a, const struct lk_view *x)
{
	return linear_any(dev, "axpy", y, x, a, true);
}

static int scale(struct lk_dev *dev, const struct lk_view *y, float a)
{
	return linear_any(dev, "scale", y, y, a, false);
}

/* ---- constants ---- */

static int zero(struct lk_dev *dev, void *p, size_t bytes)
{
	return lk_cuda_check(dev, "zero", cudaMemsetAsync(p, 0, bytes, lk_stream(dev)));
}

static __global__ void __launch_bounds__(THREADS) fill_kernel(float *p, float value, struct lk_span s)
{
	const float x[4] = { value, value, value, value };

#pragma unroll
	for (int u = 0; u < UNROLL; u++) {
		if (whole_block<4>(&s))
			lk_span_give<true, 4>(p, x, &s, group_at<4>(&s, u));
		else
			lk_span_give<false, 4>(p, x, &s, group_at<4>(&s, u));
	}
}

static int fill(struct lk_dev *dev, float *p, int64_t n, float value)
{
	struct lk_span s = lk_span_of(n, 4, p, sizeof *p);

	LK_LAUNCH(fill_kernel, blocks_for(&s), THREADS, 0, lk_stream(dev), p, value, s);
	return lk_launched(dev, "fill");
}

/* ---- sum of squares ---- */

enum { SUM_BLOCKS = 1024 }; // at most; part of the result's definition: it fixes the order of the sum

/* Sum over the block's threads, valid in thread 0. */
__device__ static inline double block_sum_f64(double x)
{
	__shared__ double part[THREADS / 32];
	int lane = static_cast<int>(threadIdx.x) % 32;

	x = lk_warp_sum_f64(x);
	if (lane == 0)
		part[threadIdx.x / 32] = x;
	__syncthreads();
	return lk_warp_sum_f64(lane < THREADS / 32 ? part[lane] : 0.0);
}

__device__ static inline double square_sum(const struct lk_held<float, 4> *h)
{
	float v[4];
	double sum = 0;

	lk_held_get<4>(v, h);
#pragma unroll
	for (int i = 0; i < 4; i++)
		sum += static_cast<double>(v[i]) * v[i];
	return sum;
}

enum { DEEP = 8 }; // groups in flight a thread

/* out[b]: of the groups that are 0, 1, ... THREADS - 1 mod THREADS gridDim.x from b THREADS on, DEEP of them at once */
static __global__ void __launch_bounds__(THREADS)
	sumsq_kernel(double *out, const float *x, struct lk_span s, int64_t groups)
{
	int64_t step = static_cast<int64_t>(gridDim.x) * THREADS, g = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
	double sum = 0;

	for (; g < groups; g += DEEP * step) {
		struct lk_held<float, 4> h[DEEP];

		if (s.vec && g > 0 && g + (DEEP - 1) * step < groups - 1) {
#pragma unroll
			for (int u = 0; u < DEEP; u++)
				lk_span_hold<true>(&h[u], x, &s, 4 * (g + u * step) - s.lead);
		} else {
#pragma unroll
			for (int u = 0; u < DEEP; u++)
				lk_span_hold<false>(&h[u], x, &s, 4 * (g + u * step) - s.lead);
		}
#pragma unroll
		for (int u = 0; u < DEEP; u++)
			sum += square_sum(&h[u]);
	}
	sum = block_sum_f64(sum);
	if (threadIdx.x == 0)
		out[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(THREADS) sum_kernel(double *out, const double *part, int n)
{
	double sum = 0;

	for (int i = static_cast<int>(threadIdx.x); i < n; i += THREADS)
		sum += part[i];
	sum = block_sum_f64(sum);
	if (threadIdx.x == 0)
		*out = sum;
}

static int sumsq(struct lk_dev *dev, const float *x, int64_t n, double *host_out)
{
	struct lk_span s = lk_span_of(n, 4, x, sizeof *x);
	int64_t groups = lk_span_groups(&s), want = lk_ceil_div(groups, THREADS);
	unsigned blocks = want < SUM_BLOCKS ? static_cast<unsigned>(want) : SUM_BLOCKS + 0u;
	double *part = static_cast<double *>(lk_scratch(dev, "sumsq", (SUM_BLOCKS + 1) * sizeof(double)));
	int rc;

	if (!part)
		return LK_ENOMEM;
	LK_LAUNCH(sumsq_kernel, blocks, THREADS, 0, lk_stream(dev), part, x, s, groups);
	LK_LAUNCH(sum_kernel, 1, THREADS, 0, lk_stream(dev), part + SUM_BLOCKS, part, static_cast<int>(blocks));
	rc = lk_launched(dev, "sumsq");
	return rc ? rc : lk_result(dev, "sumsq", host_out, part + SUM_BLOCKS, sizeof *host_out);
}

/* ---- AdamW ---- */

struct adam_args {
	float lr, b1, b2, c1, c2; /* c1 = 1 - b1, c2 = 1 - b2 */
	float eps, decay, grad_scale;
	float m_scale, v_scale;   /* 1 / bias */
};

__device__ static inline void adam_step(float *p, float *m, float *v, float g, const struct adam_args *a)
{
	g *= a->grad_scale;
	*m = a->b1 * *m + a->c1 * g;
	*v = a->b2 * *v + a->c2 * g * g;
	*p -= a->lr * (*m * a->m_scale / (sqrtf(*v * a->v_scale) + a->eps) + a->decay * *p);
}

/* 16 bytes read and 14 written an element. pc may be NULL. */
template <bool VEC>
__device__ static inline void adamw_block(float *p, float *m, float *v, const float *g, lk_bf16 *pc, const struct adam_args *a,
					  const struct lk_span *s)
{
	struct lk_held<float, 4> hp[UNROLL], hm[UNROLL], hv[UNROLL], hg[UNROLL];

#pragma unroll
	for (int u = 0; u < UNROLL; u++) {
		int64_t at = group_at<4>(s, u);

		lk_span_hold<VEC>(&hg[u], g, s, at);
		lk_span_hold<VEC>(&hm[u], m, s, at);
		lk_span_hold<VEC>(&hv[u], v, s, at);
		lk_span_hold<VEC>(&hp[u], p, s, at);
	}
#pragma unroll
	for (int u = 0; u < UNROLL; u++) {
		int64_t at = group_at<4>(s, u);
		float pr[4], mr[4], vr[4], gr[4];

		lk_held_get<4>(gr, &hg[u]);
		lk_held_get<4>(mr, &hm[u]);
		lk_held_get<4>(vr, &hv[u]);
		lk_held_get<4>(pr, &hp[u]);
#pragma unroll
		for (int i = 0; i < 4; i++)
			adam_step(&pr[i], &mr[i], &vr[i], gr[i], a);
		lk_span_give<VEC, 4>(m, mr, s, at);
		lk_span_give<VEC, 4>(v, vr, s, at);
		lk_span_give<VEC, 4>(p, pr, s, at);
		if (pc)
			lk_span_give<VEC, 4>(pc, pr, s, at);
	}
}

static __global__ void __launch_bounds__(THREADS)
	adamw_kernel(float *p, float *m, float *v, const float *g, lk_bf16 *pc, struct adam_args a, struct lk_span s)
{
	if (whole_block<4>(&s))
		adamw_block<true>(p, m, v, g, pc, &a, &s);
	else
		adamw_block<false>(p, m, v, g, pc, &a, &s);
}

static struct adam_args adam_of(const struct lk_adamw_cfg *c)
{
	struct adam_args a;

	a.lr = c->lr;
	a.b1 = c->beta1;
	a.b2 = c->beta2;
	a.c1 = static_cast<float>(1.0 - static_cast<double>(c->beta1));
	a.c2 = static_cast<float>(1.0 - static_cast<double>(c->beta2));
	a.eps = c->eps;
	a.decay = c->weight_decay;
	a.grad_scale = c->grad_scale;
	a.m_scale = static_cast<float>(1.0 / c->bias1);
	a.v_scale = static_cast<float>(1.0 / c->bias2);
	return a;
}

static int adamw(struct lk_dev *dev, float *p, float *m, float *v, const float *g, void *p_compute, int64_t n,
		 const struct lk_adamw_cfg *cfg)
{
	struct lk_span s = p_compute ? lk_span_of(n, 4, p_compute, sizeof(lk_bf16)) : lk_span_of(n, 4, p, sizeof *p);

	lk_span_meet(&s, p, sizeof *p);
	lk_span_meet(&s, m, sizeof *m);
	lk_span_meet(&s, v, sizeof *v);
	lk_span_meet(&s, g, sizeof *g);
	LK_LAUNCH(adamw_kernel, blocks_for(&s), THREADS, 0, lk_stream(dev), p, m, v, g, static_cast<lk_bf16 *>(p_compute),
		  adam_of(cfg), s);
	return lk_launched(dev, "adamw");
}

void lk_cuda_fill_vector(struct lk_ops *o)
{
	o->dense.zero = zero;
	o->dense.fill = fill;
	o->dense.cast = cast;
	o->dense.axpy = axpy;
	o->dense.scale = scale;
	o->dense.sumsq = sumsq;
	o->dense.adamw = adamw;
}
