/* embed.cu - rows picked by index from a table or a view, and rows added back to where they came from. The gradient of a
 * table, where rows repeat, is in embed_bwd.cu. */
#include "kernels/cuda/embed_int.h"

enum { UNROLL = 2 };

template <typename T> struct row_pick {
	struct lk_rows<T> y, x;
	const int32_t *idx;
	int64_t n, d;        /* indices; elements of a row */
	int64_t first, rows; /* only indices in [first, first + rows) count, from first on */
	int wide;
};

/* y[i] = x[idx[i] - first], or with ADD y[idx[i] - first] += x[i] */
template <bool VEC, bool ADD, typename T> static __global__ void __launch_bounds__(256) pick_kernel(struct row_pick<T> a)
{
	enum { G = lk_width<T>::SIZE };
	int64_t i = static_cast<int64_t>(blockIdx.x / a.wide) * blockDim.y + threadIdx.y;
	int64_t col = G * (static_cast<int64_t>(blockIdx.x % a.wide) * UNROLL * blockDim.x + threadIdx.x), row;
	struct lk_held<T, G> hx[UNROLL], hy[UNROLL];
	const T *x;
	T *y;

	if (i >= a.n)
		return;
	row = a.idx[i] - a.first;
	if (row < 0 || row >= a.rows)
		return;
	x = a.x.p + (ADD ? i : row) * a.x.step;
	y = a.y.p + (ADD ? row : i) * a.y.step;
#pragma unroll
	for (int k = 0; k < UNROLL; k++) {
		int64_t at = col + k * G * static_cast<int64_t>(blockDim.x);

		lk_hold<VEC>(&hx[k], x + at, a.d - at);
		if (ADD)
			lk_hold<VEC>(&hy[k], y + at, a.d - at);
	}
#pragma unroll
	for (int k = 0; k < UNROLL; k++) {
		int64_t at = col + k * G * static_cast<int64_t>(blockDim.x);

		if (ADD) {
			float p[G], q[G];

			lk_held_get<G>(p, &hx[k]);
			lk_held_get<G>(q, &hy[k]);
#pragma unroll
			for (int j = 0; j < G; j++)
				p[j] += q[j];
			lk_held_set<G>(&hx[k], p);
		}
		lk_release<VEC>(y + at, &hx[k], a.d - at);
	}
}

template <typename T>
static int pick_typed(struct lk_dev *dev, const char *op, const struct lk_view *y, const struct lk_view *x,
		      const int32_t *idx, int64_t first, bool add)
{
	int64_t n = add ? x->n[0] : y->n[0];
	struct lk_tiling t = lk_tile_rows(n, lk_ceil_div(y->n[1], lk_width<T>::SIZE * UNROLL));
	struct row_pick<T> a = { lk_rows_of<T>(y), lk_rows_of<T>(x), idx, n, y->n[1], first, add ? y->n[0] : x->n[0], t.wide };
	bool vec = lk_vec_rows(y) && lk_vec_rows(x);
	auto k = vec ? add ? pick_kernel<true, true, T> : pick_kernel<true, false, T>
		     : add ? pick_kernel<false, true, T> : pick_kernel<false, false, T>;

	LK_LAUNCH(k, static_cast<unsigned>(t.blocks), t.threads, 0, lk_stream(dev), a);
	return lk_launched(dev, op);
}

static int pick_any(struct lk_dev *dev, const char *op, const struct lk_view *y, const struct lk_view *x,
		    const int32_t *idx, int64_t first, bool add)
{
	if (y->dtype != x->dtype)
		return lk_mixed(dev, op);
	return x->dtype == LK_BF16 ? pick_typed<lk_bf16>(dev, op, y, x, idx, first, add)
				   : pick_typed<float>(dev, op, y, x, idx, first, add);
}

static int embed_fwd(struct lk_dev *dev, const struct lk_view *y, const int32_t *ids, const struct lk_view *table,
		     int32_t first)
{
	return pick_any(dev, "embed_fwd", y, table, ids, first, false);
}

static int gather_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx)
{
	return pick_any(dev, "gather_rows", y, x, idx, 0, false);
}

static int scatter_add_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx)
{
	return pick_any(dev, "scatter_add_rows", y, x, idx, 0, true);
}

void lk_cuda_fill_embed(struct lk_ops *o)
{
	o->dense.embed_fwd = embed_fwd;
	o->dense.embed_bwd = lk_cuda_embed_bwd;
	o->dense.gather_rows = gather_rows;
	o->dense.scatter_add_rows = scatter_add_rows;
}
