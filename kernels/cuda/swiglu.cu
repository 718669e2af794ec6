/* swiglu.cu - the gate y = silu(g) u, silu(a) = a s, s = 1 / (1 + exp(-a)), and its gradients. Rows may be column slices
 * of one product (T,2F). Every element is read once and written once; the gradients may take the place of g and u. */
#include "kernels/cuda/dense_int.h"

/* Groups that a thread takes, a tile's width apart; all are loaded before the first is used. */
enum { UNROLL = 2 };

/* The row of this thread, and the first element of its u-th group. */
struct spot {
	int64_t row, at;
};

template <int G> __device__ static inline struct spot spot_of(int wide, int u)
{
	struct spot s;

	s.row = static_cast<int64_t>(blockIdx.x / wide) * blockDim.y + threadIdx.y;
	s.at = G * ((static_cast<int64_t>(blockIdx.x % wide) * UNROLL + u) * blockDim.x + threadIdx.x);
	return s;
}

__device__ static inline float sigmoid(float a)
{
	return __fdividef(1.0f, 1.0f + __expf(-a));
}

template <bool VEC, typename T>
static __global__ void __launch_bounds__(256)
	fwd_kernel(struct lk_rows<T> y, struct lk_rows<T> g, struct lk_rows<T> u, int64_t rows, int64_t f, int wide)
{
	enum { G = lk_width<T>::SIZE };
	struct lk_held<T, G> hg[UNROLL], hu[UNROLL];

	if (spot_of<G>(wide, 0).row >= rows)
		return;
#pragma unroll
	for (int k = 0; k < UNROLL; k++) {
		struct spot s = spot_of<G>(wide, k);

		lk_hold<VEC>(&hg[k], g.p + s.row * g.step + s.at, f - s.at);
		lk_hold<VEC>(&hu[k], u.p + s.row * u.step + s.at, f - s.at);
	}
#pragma unroll
	for (int k = 0; k < UNROLL; k++) {
		struct spot s = spot_of<G>(wide, k);
		float a[G], b[G];

		lk_held_get<G>(a, &hg[k]);
		lk_held_get<G>(b, &hu[k]);
#pragma unroll
		for (int i = 0; i < G; i++)
			a[i] = a[i] * sigmoid(a[i]) * b[i];
		lk_give<VEC, G>(y.p + s.row * y.step + s.at, a, f - s.at);
	}
}

template <typename T> struct gate_bwd_args {
	struct lk_rows<T> dg, du, dy, g, u;
	int64_t rows, f;
	int wide;
};

template <bool VEC, typename T> static __global__ void __launch_bounds__(256) bwd_kernel(struct gate_bwd_args<T> x)
{
	enum { G = lk_width<T>::SIZE };
	struct lk_held<T, G> hg[UNROLL], hu[UNROLL], hy[UNROLL];

	if (spot_of<G>(x.wide, 0).row >= x.rows)
		return;
#pragma unroll
	for (int k = 0; k < UNROLL; k++) {
		struct spot s = spot_of<G>(x.wide, k);

		lk_hold<VEC>(&hg[k], x.g.p + s.row * x.g.step + s.at, x.f - s.at);
		lk_hold<VEC>(&hu[k], x.u.p + s.row * x.u.step + s.at, x.f - s.at);
		lk_hold<VEC>(&hy[k], x.dy.p + s.row * x.dy.step + s.at, x.f - s.at);
	}
#pragma unroll
	for (int k = 0; k < UNROLL; k++) {
		struct spot s = spot_of<G>(x.wide, k);
		float a[G], b[G], d[G];

		lk_held_get<G>(a, &hg[k]);
		lk_held_get<G>(b, &hu[k]);
		lk_held_get<G>(d, &hy[k]);
#pragma unroll
		for (int i = 0; i < G; i++) {
			float sg = sigmoid(a[i]), up = d[i];

			d[i] = up * a[i] * sg;
			a[i] = up * b[i] * sg * (1.0f + a[i] * (1.0f - sg));
		}
		lk_give<VEC, G>(x.dg.p + s.row * x.dg.step + s.at, a, x.f - s.at);
		lk_give<VEC, G>(x.du.p + s.row * x.du.step + s.at, d, x.f - s.at);
	}
}

template <typename T>
static int launch_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *g, const struct lk_view *u)
{
	int64_t groups = lk_ceil_div(g->n[1], lk_width<T>::SIZE);
	struct lk_tiling t = lk_tile_rows(g->n[0], lk_ceil_div(groups, UNROLL));
	bool vec = lk_vec_rows(y) && lk_vec_rows(g) && lk_vec_rows(u);
	auto k = vec ? fwd_kernel<true, T> : fwd_kernel<false, T>;

	LK_LAUNCH(k, static_cast<unsigned>(t.blocks), t.threads, 0, lk_stream(dev), lk_rows_of<T>(y),
		  lk_rows_of<T>(g), lk_rows_of<T>(u), g->n[0], g->n[1], t.wide);
	return lk_launched(dev, "swiglu_fwd");
}

static int swiglu_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *g, const struct lk_view *u)
{
	if (y->dtype != g->dtype || u->dtype != g->dtype)
		return lk_mixed(dev, "swiglu_fwd");
	return g->dtype == LK_BF16 ? launch_fwd<lk_bf16>(dev, y, g, u) : launch_fwd<float>(dev, y, g, u);
}

template <typename T>
static int launch_bwd(struct lk_dev *dev, const struct lk_view *dg, const struct lk_view *du, const struct lk_view *dy,
		      const struct lk_view *g, const struct lk_view *u)
{
	int64_t groups = lk_ceil_div(g->n[1], lk_width<T>::SIZE);
	struct lk_tiling t = lk_tile_rows(g->n[0], lk_ceil_div(groups, UNROLL));
	struct gate_bwd_args<T> a = { lk_rows_of<T>(dg), lk_rows_of<T>(du), lk_rows_of<T>(dy), lk_rows_of<T>(g),
				 lk_rows_of<T>(u), g->n[0], g->n[1], t.wide };
	bool vec = lk_vec_rows(dg) && lk_vec_rows(du) && lk_vec_rows(dy) && lk_vec_rows(g) && lk_vec_rows(u);
	auto k = vec ? bwd_kernel<true, T> : bwd_kernel<false, T>;

	LK_LAUNCH(k, static_cast<unsigned>(t.blocks), t.threads, 0, lk_stream(dev), a);
	return lk_launched(dev, "swiglu_bwd");
}

static int swiglu_bwd(struct lk_dev *dev, const struct lk_view *dg, const struct lk_view *du, const struct lk_view *dy,
		      const struct lk_view *g, const struct lk_view *u)
{
	if (dg->dtype != g->dtype || du->dtype != g->dtype || dy->dtype != g->dtype || u->dtype != g->dtype)
		return lk_mixed(dev, "swiglu_bwd");
	return g->dtype == LK_BF16 ? launch_bwd<lk_bf16>(dev, dg, du, dy, g, u) : launch_bwd<float>(dev, dg, du, dy, g, u);
}

void lk_cuda_fill_swiglu(struct lk_ops *o)
{
	o->dense.swiglu_fwd = swiglu_fwd;
	o->dense.swiglu_bwd = swiglu_bwd;
}
