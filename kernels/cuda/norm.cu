/* norm.cu - RMS norm with the residual sum, forward and backward (formulas: ref/norm.c).
 *
 * A block takes a row at a time. Thread i of B holds the groups i, i + B, i + 2B, ... of the row in registers, HELD of
 * them forward and HELD_BWD backward; what lies beyond (a row of bf16 longer than 16384, 8192) is read twice. */
#include "kernels/cuda/dense_int.h"

enum { HELD = 4, HELD_BWD = 2, MAX_THREADS = 512 };

/* Threads so that `held` groups each cover the row. */
static int threads_for(int64_t groups, int held)
{
	int64_t t = lk_ceil_div(lk_ceil_div(groups, held), 32) * 32;

	return static_cast<int>(t < MAX_THREADS ? t : 0 + MAX_THREADS);
}

/* ---- forward ---- */

/* One group of x + delta, rounded as it will be read again, and written back: what of the row's sum it makes. */
template <bool VEC, typename T, int G>
__device__ static inline float add_group(struct lk_held<T, G> *hx, const struct lk_held<T, G> *hd, T *x, int64_t left)
{
	float a[G], b[G], sum = 0;

	lk_held_get<G>(a, hx);
	if (hd) {
		lk_held_get<G>(b, hd);
#pragma unroll
		for (int i = 0; i < G; i++)
			a[i] += b[i];
		lk_held_set<G>(hx, a);
		lk_held_get<G>(a, hx);
		lk_give<VEC, G>(x, a, left);
	}
#pragma unroll
	for (int i = 0; i < G; i++)
		sum += a[i] * a[i];
	return sum;
}

template <bool VEC, typename T, int G>
__device__ static inline void norm_group(T *y, const struct lk_held<T, G> *hx, const struct lk_held<T, G> *hw, float r,
					 int64_t left)
{
	float a[G], w[G];

	lk_held_get<G>(a, hx);
	lk_held_get<G>(w, hw);
#pragma unroll
	for (int i = 0; i < G; i++)
		a[i] = w[i] * (a[i] * r);
	lk_give<VEC, G>(y, a, left);
}

template <bool VEC, typename T, bool DELTA>
static __global__ void __launch_bounds__(MAX_THREADS)
	fwd_kernel(struct lk_rows<T> ys, float *rstd, struct lk_rows<T> xs, struct lk_rows<T> deltas, const T *w,
		   float eps, int64_t d)
{
	enum { G = lk_width<T>::SIZE };
	__shared__ float part[33];
	int64_t first = G * static_cast<int64_t>(threadIdx.x), step = G * static_cast<int64_t>(blockDim.x);
	T *x = xs.p + blockIdx.x * xs.step, *y = ys.p + blockIdx.x * ys.step;
	const T *delta = DELTA ? deltas.p + blockIdx.x * deltas.step : NULL;
	struct lk_held<T, G> hx[HELD], hd[HELD], hw[HELD];
	float sum = 0, r;

#pragma unroll
	for (int k = 0; k < HELD; k++) {
		int64_t at = first + k * step;

		lk_hold<VEC>(&hx[k], x + at, d - at);
		if (DELTA)
			lk_hold<VEC>(&hd[k], delta + at, d - at);
		lk_hold<VEC>(&hw[k], w + at, d - at);
	}
#pragma unroll
	for (int k = 0; k < HELD; k++)
		sum += add_group<VEC, T, G>(&hx[k], DELTA ? &hd[k] : NULL, x + first + k * step, d - first - k * step);
	for (int64_t at = first + HELD * step; at < d; at += step) {
		struct lk_held<T, G> a, b;

		lk_hold<VEC>(&a, x + at, d - at);
		if (DELTA)
			lk_hold<VEC>(&b, delta + at, d - at);
		sum += add_group<VEC, T, G>(&a, DELTA ? &b : NULL, x + at, d - at);
	}
	r = 1.0f / sqrtf(lk_block_sum(sum, part) / static_cast<float>(d) + eps);
	if (threadIdx.x == 0)
		rstd[blockIdx.x] = r;
#pragma unroll
	for (int k = 0; k < HELD; k++)
		norm_group<VEC, T, G>(y + first + k * step, &hx[k], &hw[k], r, d - first - k * step);
	for (int64_t at = first + HELD * step; at < d; at += step) {
		struct lk_held<T, G> a, b;

		lk_hold<VEC>(&a, x + at, d - at);
		lk_hold<VEC>(&b, w + at, d - at);
		norm_group<VEC, T, G>(y + at, &a, &b, r, d - at);
	}
}

template <typename T>
static int launch_fwd(struct lk_dev *dev, const struct lk_view *y, float *rstd, const struct lk_view *x,
		      const struct lk_view *delta, const struct lk_view *w, float eps)
{
	bool vec = lk_vec_rows(y) && lk_vec_rows(x) && (!delta || lk_vec_rows(delta)) && lk_vec_rows(w);
	auto plain = vec ? fwd_kernel<true, T, false> : fwd_kernel<false, T, false>;
	auto k = !delta ? plain : vec ? fwd_kernel<true, T, true> : fwd_kernel<false, T, true>;
	int64_t d = x->n[1];

	LK_LAUNCH(k, static_cast<unsigned>(x->n[0]), threads_for(lk_ceil_div(d, lk_width<T>::SIZE), HELD), 0, lk_stream(dev),
		  lk_rows_of<T>(y), rstd, lk_rows_of<T>(x), lk_rows_of<T>(delta ? delta : x),
		  static_cast<const T *>(w->data), eps, d);
	return lk_launched(dev, "rmsnorm_fwd");
}

static int rmsnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *rstd, const struct lk_view *x,
		       const struct lk_view *delta, const struct lk_view *w, float eps)
{
	if (y->dtype != x->dtype || w->dtype != x->dtype || (delta && delta->dtype != x->dtype))
		return lk_mixed(dev, "rmsnorm_fwd");
	return x->dtype == LK_BF16 ? launch_fwd<lk_bf16>(dev, y, rstd, x, delta, w, eps)
				   : launch_fwd<float>(dev, y, rstd, x, delta, w, eps);
}

/* ---- backward ----
 *
 * dx_j += rstd (w_j dy_j - x_j rstd^2 mean(w dy x)),  dw_j += sum over t of dy_j x_j rstd
 * Block b takes `rows` rows and leaves its part of dw in part[b]; a second kernel adds the parts in order. */

template <typename T> struct norm_bwd_args {
	struct lk_rows<T> dx, dy, x;
	const T *w;
	const float *rstd;
	float *part; /* (blocks, d) */
	int64_t t, d, rows;
};

/* x, dy, w of a group: adds to sum of w dy x. */
template <typename T, int G>
__device__ static inline float dot_group(const struct lk_held<T, G> *hx, const struct lk_held<T, G> *hy,
					 const struct lk_held<T, G> *hw)
{
	float x[G], y[G], w[G], sum = 0;

	lk_held_get<G>(x, hx);
	lk_held_get<G>(y, hy);
	lk_held_get<G>(w, hw);
#pragma unroll
	for (int i = 0; i < G; i++)
		sum += w[i] * y[i] * x[i];
	return sum;
}

/* dx of a group, and its part of dw into acc. c = mean(w dy x) rstd^2. */
template <bool VEC, typename T, int G>
__device__ static inline void grad_group(T *dx, const struct lk_held<T, G> *hd, const struct lk_held<T, G> *hx,
					 const struct lk_held<T, G> *hy, const struct lk_held<T, G> *hw, float r,
					 float c, float *acc, int64_t left)
{
	float x[G], y[G], w[G], d[G];

	lk_held_get<G>(x, hx);
	lk_held_get<G>(y, hy);
	lk_held_get<G>(w, hw);
	lk_held_get<G>(d, hd);
#pragma unroll
	for (int i = 0; i < G; i++) {
		d[i] += r * (w[i] * y[i] - x[i] * c);
		acc[i] += y[i] * x[i] * r;
	}
	lk_give<VEC, G>(dx, d, left);
}

/* The groups of row t beyond those held, dot product first. */
template <bool VEC, typename T, int G>
__device__ static float dot_rest(const struct norm_bwd_args<T> *a, int64_t t, int64_t first, int64_t step)
{
	float sum = 0;

	for (int64_t at = first; at < a->d; at += step) {
		struct lk_held<T, G> hx, hy, hw;

		lk_hold<VEC>(&hx, a->x.p + t * a->x.step + at, a->d - at);
		lk_hold<VEC>(&hy, a->dy.p + t * a->dy.step + at, a->d - at);
		lk_hold<VEC>(&hw, a->w + at, a->d - at);
		sum += dot_group<T, G>(&hx, &hy, &hw);
	}
	return sum;
}

/* Then the gradients; dw's part is added to in memory, as this thread left it. */
template <bool VEC, typename T, int G>
__device__ static void grad_rest(const struct norm_bwd_args<T> *a, int64_t t, int64_t first, int64_t step, float r, float c,
				 float *part, bool begin)
{
	for (int64_t at = first; at < a->d; at += step) {
		struct lk_held<T, G> hx, hy, hw, hd;
		T *dx = a->dx.p + t * a->dx.step + at;
		float acc[G];

		lk_hold<VEC>(&hx, a->x.p + t * a->x.step + at, a->d - at);
		lk_hold<VEC>(&hy, a->dy.p + t * a->dy.step + at, a->d - at);
		lk_hold<VEC>(&hw, a->w + at, a->d - at);
		lk_hold<VEC>(&hd, dx, a->d - at);
#pragma unroll
		for (int i = 0; i < G; i++)
			acc[i] = begin || at + i >= a->d ? 0.0f : part[at + i];
		grad_group<VEC, T, G>(dx, &hd, &hx, &hy, &hw, r, c, acc, a->d - at);
		lk_give<VEC, G>(part + at, acc, a->d - at);
	}
}

template <bool VEC, typename T> static __global__ void __launch_bounds__(MAX_THREADS) bwd_kernel(struct norm_bwd_args<T> a)
{
	enum { G = lk_width<T>::SIZE };
	__shared__ float sums[2][33];
	int64_t first = G * static_cast<int64_t>(threadIdx.x), step = G * static_cast<int64_t>(blockDim.x), rest;
	int64_t t0 = blockIdx.x * a.rows, t1 = t0 + a.rows < a.t ? t0 + a.rows : a.t;
	float *part = a.part + blockIdx.x * a.d, acc[HELD_BWD][G] = {};
	struct lk_held<T, G> hx[HELD_BWD], hy[HELD_BWD], hd[HELD_BWD], hw[HELD_BWD];

	rest = first + HELD_BWD * step;
#pragma unroll
	for (int k = 0; k < HELD_BWD; k++)
		lk_hold<VEC>(&hw[k], a.w + first + k * step, a.d - first - k * step);
	for (int64_t t = t0; t < t1; t++) {
		T *dx = a.dx.p + t * a.dx.step;
		const T *x = a.x.p + t * a.x.step, *dy = a.dy.p + t * a.dy.step;
		float r = a.rstd[t], dot = 0, c;

#pragma unroll
		for (int k = 0; k < HELD_BWD; k++) {
			int64_t at = first + k * step;

			lk_hold<VEC>(&hx[k], x + at, a.d - at);
			lk_hold<VEC>(&hy[k], dy + at, a.d - at);
			lk_hold<VEC>(&hd[k], dx + at, a.d - at);
		}
#pragma unroll
		for (int k = 0; k < HELD_BWD; k++)
			dot += dot_group<T, G>(&hx[k], &hy[k], &hw[k]);
		dot = lk_block_sum(dot + dot_rest<VEC, T, G>(&a, t, rest, step), sums[t & 1]);
		c = dot * r * r / static_cast<float>(a.d);
#pragma unroll
		for (int k = 0; k < HELD_BWD; k++)
			grad_group<VEC, T, G>(dx + first + k * step, &hd[k], &hx[k], &hy[k], &hw[k], r, c, acc[k],
					 a.d - first - k * step);
		grad_rest<VEC, T, G>(&a, t, rest, step, r, c, part, t == t0);
	}
#pragma unroll
	for (int k = 0; k < HELD_BWD; k++)
		lk_give<VEC, G>(part + first + k * step, acc[k], a.d - first - k * step);
}

enum { COLS = 8, SLICES = 64 };

/* dw[j] += sum over b of part[b][j]: slice s of the block adds the parts s, s + SLICES, ...; then a tree over the slices. */
static __global__ void __launch_bounds__(COLS *SLICES) dw_kernel(float *dw, const float *part, int64_t blocks, int64_t d)
{
	__shared__ float sum[SLICES][COLS + 1];
	int col = static_cast<int>(threadIdx.x) % COLS, slice = static_cast<int>(threadIdx.x) / COLS;
	int64_t j = static_cast<int64_t>(blockIdx.x) * COLS + col;
	float x = 0;

	if (j < d) {
#pragma unroll 8
		for (int64_t b = slice; b < blocks; b += SLICES)
			x += part[b * d + j];
	}
	sum[slice][col] = x;
	for (int half = SLICES / 2; half; half /= 2) {
		__syncthreads();
		if (slice < half)
			sum[slice][col] += sum[slice + half][col];
	}
	if (slice == 0 && j < d)
		dw[j] += sum[0][col];
}

/* Rows of a block: few enough parts that adding them costs little beside reading the rows, enough blocks for any chip.
 * A matter of the shape alone, since it decides the order of dw's sum. */
static int64_t rows_for(int64_t t)
{
	int64_t rows = lk_ceil_div(t, 1024);

	return rows < 8 ? 8 : rows;
}

template <typename T>
static int launch_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dw, const struct lk_view *dy, const struct lk_view *x,
		      const struct lk_view *w, const float *rstd)
{
	struct norm_bwd_args<T> a = { lk_rows_of<T>(dx), lk_rows_of<T>(dy), lk_rows_of<T>(x), static_cast<const T *>(w->data),
				 rstd, NULL, x->n[0], x->n[1], 0 };
	int threads = threads_for(lk_ceil_div(a.d, lk_width<T>::SIZE), HELD_BWD);
	bool vec = lk_vec_rows(dx) && lk_vec_rows(dy) && lk_vec_rows(x) && lk_vec_rows(w);
	auto k = vec ? bwd_kernel<true, T> : bwd_kernel<false, T>;
	int64_t blocks;

	a.rows = rows_for(a.t);
	blocks = lk_ceil_div(a.t, a.rows);
	a.part = static_cast<float *>(lk_scratch(dev, "rmsnorm_bwd", static_cast<size_t>(blocks * a.d) * sizeof(float)));
	if (!a.part)
		return LK_ENOMEM;
	LK_LAUNCH(k, static_cast<unsigned>(blocks), threads, 0, lk_stream(dev), a);
	LK_LAUNCH(dw_kernel, static_cast<unsigned>(lk_ceil_div(a.d, COLS)), COLS * SLICES, 0, lk_stream(dev), dw, a.part,
		  blocks, a.d);
	return lk_launched(dev, "rmsnorm_bwd");
}

static int rmsnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dw, const struct lk_view *dy,
		       const struct lk_view *x, const struct lk_view *w, const float *rstd)
{
	if (dx->dtype != x->dtype || dy->dtype != x->dtype || w->dtype != x->dtype)
		return lk_mixed(dev, "rmsnorm_bwd");
	return x->dtype == LK_BF16 ? launch_bwd<lk_bf16>(dev, dx, dw, dy, x, w, rstd)
				   : launch_bwd<float>(dev, dx, dw, dy, x, w, rstd);
}

void lk_cuda_fill_norm(struct lk_ops *o)
{
	o->dense.rmsnorm_fwd = rmsnorm_fwd;
	o->dense.rmsnorm_bwd = rmsnorm_bwd;
}
