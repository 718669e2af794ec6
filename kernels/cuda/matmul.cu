/* matmul.cu - the matrix product: cuBLASLt's, but for two kinds of product that have kernels of their own here:
 *   - a few rows times a matrix of weights, the work of decoding: bound by reading the weights;
 *   - what cuBLASLt has no algorithm for (odd alignments): a plain tiled kernel, for completeness, not for speed. */
#include "kernels/cuda/dense_int.h"
#include "kernels/cuda/matmul_int.h"

struct out {
	void *p;
	int64_t step;
	int dtype, add;
	float alpha;
};

__device__ static inline void put_out(const struct out *c, int64_t i, int64_t j, float x)
{
	int64_t at = i * c->step + j;

	x *= c->alpha;
	if (c->dtype == LK_BF16) {
		lk_bf16 *p = static_cast<lk_bf16 *>(c->p) + at;

		lk_from_float(p, c->add ? x + lk_to_float(*p) : x);
	} else {
		float *p = static_cast<float *>(c->p) + at;

		*p = c->add ? x + *p : x;
	}
}

static struct out out_of(const struct lk_view *c, unsigned flags, float alpha)
{
	struct out o = { c->data, c->stride[0], c->dtype, (flags & LK_ACC) != 0, alpha };

	return o;
}

/* ---- a few rows: c[i][j] = sum over k of a[i][k] b[j][k] ----
 *
 * A warp takes COLS rows of b; its lanes lie side by side along k, DEEP groups of each row in flight. a is small and comes
 * from the cache. */
enum { COLS = 2, DEEP = 4, WARPS = 8 };

struct few_args {
	struct out c;
	struct lk_rows<const lk_bf16> a, b;
	int64_t n, k;
};

template <int ROWS>
__device__ static inline void few_step(float acc[ROWS][COLS], const struct lk_held<lk_bf16, 8> *hb, const struct few_args *f,
				       int64_t at)
{
	float b[COLS][8];

#pragma unroll
	for (int j = 0; j < COLS; j++)
		lk_held_get<8>(b[j], &hb[j]);
#pragma unroll
	for (int i = 0; i < ROWS; i++) {
		struct lk_held<lk_bf16, 8> ha;
		float a[8];

		lk_hold<true>(&ha, f->a.p + i * f->a.step + at, f->k - at);
		lk_held_get<8>(a, &ha);
#pragma unroll
		for (int j = 0; j < COLS; j++)
#pragma unroll
			for (int e = 0; e < 8; e++)
				acc[i][j] += a[e] * b[j][e];
	}
}

template <int ROWS> static __global__ void __launch_bounds__(32 * WARPS) few_kernel(struct few_args f)
{
	int64_t col = (static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32) * COLS;
	int lane = static_cast<int>(threadIdx.x) % 32;
	float acc[ROWS][COLS] = {};

	if (col >= f.n)
		return;
	for (int64_t k0 = 8 * lane; k0 < f.k; k0 += 8 * 32 * DEEP) {
		struct lk_held<lk_bf16, 8> hb[DEEP][COLS];

#pragma unroll
		for (int d = 0; d < DEEP; d++)
#pragma unroll
			for (int j = 0; j < COLS; j++) {
				int64_t at = k0 + 8 * 32 * d, row = col + j < f.n ? col + j : f.n - 1;

				lk_hold<true>(&hb[d][j], f.b.p + row * f.b.step + at, f.k - at);
			}
#pragma unroll
		for (int d = 0; d < DEEP; d++)
			if (k0 + 8 * 32 * d < f.k)
				few_step<ROWS>(acc, hb[d], &f, k0 + 8 * 32 * d);
	}
#pragma unroll
	for (int i = 0; i < ROWS; i++)
#pragma unroll
		for (int j = 0; j < COLS; j++) {
			float sum = lk_warp_sum(acc[i][j]);

			if (lane == 0 && col + j < f.n)
				put_out(&f.c, i, col + j, sum);
		}
}

static int few(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
	       unsigned flags, float alpha)
{
	static void (*const kernels[LK_MM_FEW])(struct few_args) = { few_kernel<1>, few_kernel<2>, few_kernel<3>,
								few_kernel<4> };
	struct few_args f = { out_of(c, flags, alpha), lk_rows_of<const lk_bf16>(a), lk_rows_of<const lk_bf16>(b), c->n[1],
			 a->n[1] };
	unsigned blocks = static_cast<unsigned>(lk_ceil_div(f.n, COLS * WARPS));
	auto k = kernels[c->n[0] - 1];

	LK_LAUNCH(k, blocks, 32 * WARPS, 0, lk_stream(dev), f);
	return lk_launched(dev, "matmul");
}

/* ---- any product ----
 *
 * A block of 16 x 16 threads makes 64 x 64 of c, thread (y, x) rows y + 16 i and columns x + 16 j, from tiles of 16 deep. */
enum { TILE = 64, DEPTH = 16, EACH = 4 };

template <typename T> struct plain_args {
	struct out c;
	const T *a, *b;
	int64_t am, ak, bn, bk; /* steps along M and K of op(a), N and K of op(b) */
	int64_t m, n, k;
	unsigned wide;          /* blocks along N */
};

/* (TILE, DEPTH) of op(x), whose element (i, k) lies at i * si + k * sk; zeros outside. Neighbouring threads go along the
 * dimension that is dense in memory. */
template <typename T>
__device__ static inline void load_tile(float (*to)[DEPTH + 1], const T *x, int64_t i0, int64_t k0, int64_t ni, int64_t nk,
					int64_t si, int64_t sk)
{
	for (int e = static_cast<int>(threadIdx.x); e < TILE * DEPTH; e += 256) {
		int i = sk == 1 ? e / DEPTH : e % TILE, k = sk == 1 ? e % DEPTH : e / TILE;

		to[i][k] = i0 + i < ni && k0 + k < nk ? lk_to_float(x[(i0 + i) * si + (k0 + k) * sk]) : 0.0f;
	}
}

template <typename T> static __global__ void __launch_bounds__(256) plain_kernel(struct plain_args<T> p)
{
	__shared__ float a[TILE][DEPTH + 1], b[TILE][DEPTH + 1];
	int x = static_cast<int>(threadIdx.x) % 16, y = static_cast<int>(threadIdx.x) / 16;
	int64_t i0 = static_cast<int64_t>(blockIdx.x / p.wide) * TILE, j0 = static_cast<int64_t>(blockIdx.x % p.wide) * TILE;
	float acc[EACH][EACH] = {};

	for (int64_t k0 = 0; k0 < p.k; k0 += DEPTH) {
		load_tile(a, p.a, i0, k0, p.m, p.k, p.am, p.ak);
		load_tile(b, p.b, j0, k0, p.n, p.k, p.bn, p.bk);
		__syncthreads();
#pragma unroll 4
		for (int k = 0; k < DEPTH; k++)
#pragma unroll
			for (int i = 0; i < EACH; i++)
#pragma unroll
				for (int j = 0; j < EACH; j++)
					acc[i][j] += a[y + 16 * i][k] * b[x + 16 * j][k];
		__syncthreads();
	}
	for (int i = 0; i < EACH; i++)
		for (int j = 0; j < EACH; j++)
			if (i0 + y + 16 * i < p.m && j0 + x + 16 * j < p.n)
				put_out(&p.c, i0 + y + 16 * i, j0 + x + 16 * j, acc[i][j]);
}

template <typename T>
static int plain(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
		 unsigned flags, float alpha)
{
	bool ta = flags & LK_TA, tb = flags & LK_TB;
	struct plain_args<T> p = { out_of(c, flags, alpha), static_cast<const T *>(a->data), static_cast<const T *>(b->data),
			      ta ? 1 : a->stride[0], ta ? a->stride[0] : 1, tb ? b->stride[0] : 1, tb ? 1 : b->stride[0],
			      c->n[0], c->n[1], a->n[!ta], static_cast<unsigned>(lk_ceil_div(c->n[1], TILE)) };

	LK_LAUNCH(plain_kernel<T>, static_cast<unsigned>(lk_ceil_div(p.m, TILE)) * p.wide, 256, 0, lk_stream(dev), p);
	return lk_launched(dev, "matmul");
}

static int matmul(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
		  unsigned flags, float alpha)
{
	bool done = false;
	int rc;

	if (lk_mm_few(c, a, b, flags))
		return few(dev, c, a, b, flags, alpha);
	rc = lk_lt_matmul(dev, c, a, b, flags, alpha, &done);
	if (rc || done)
		return rc;
	return a->dtype == LK_BF16 ? plain<lk_bf16>(dev, c, a, b, flags, alpha) : plain<float>(dev, c, a, b, flags, alpha);
}

void lk_cuda_fill_matmul(struct lk_ops *o)
{
	o->dense.matmul = matmul;
}

void lk_cuda_close_matmul(struct lk_dev *dev)
{
	lk_lt_close(dev);
}
