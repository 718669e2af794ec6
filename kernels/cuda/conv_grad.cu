/* conv_grad.cu - gradients of a convolution's weights and biases: sums over all pixels of dy.
 *
 * dw as a product: rows are (tap, channel of x), columns channels of dy, the depth is the pixels. Both tiles come with
 * pixels as rows (64 of them, 128 or BN channels each) and are turned on the way into the fragments. The pixels are cut into
 * a number of ranges that the problem alone decides; their sums are added in order.
 */
#include "kernels/cuda/conv_int.h"
#include "kernels/cuda/conv_tile.h"

enum { THREADS = 128, BM = 128, BK = LK_CONV_BK, STAGES = 3 };
enum { DB_THREADS = 256, DB_LANES = 32, DB_ROWS = DB_THREADS / DB_LANES, DB_MOST = 512, DB_LEAST = 128 };

/* Where the window of a pixel of dy begins in the doubled x; n: the image's first pixel of x; n -1: no pixel. */
struct spot {
	int64_t n;
	int32_t y, x;
};

/* A thread's own pixel of every tile: image, row, column of dy. */
struct walk {
	int64_t at, img;
	int32_t y, x;
};

__device__ static inline struct spot spot_of(const struct lk_conv_dw *p, const struct walk *w, int64_t end)
{
	struct spot s = { -1, 0, 0 };

	if (w->at >= end)
		return s;
	s.n = w->img * p->h * p->w;
	s.y = w->y * p->g.stride - p->g.pad_top;
	s.x = w->x * p->g.stride - p->g.pad_left;
	return s;
}

__device__ static inline void walk_on(const struct lk_conv_dw *p, struct walk *w, int32_t pixels)
{
	w->at += pixels;
	w->x += pixels;
	while (w->x >= p->ow) {
		w->x -= p->ow;
		if (++w->y == p->oh) {
			w->y = 0;
			w->img++;
		}
	}
}

__device__ static inline struct walk walk_from(const struct lk_conv_dw *p, int64_t at)
{
	int64_t per = static_cast<int64_t>(p->oh) * p->ow, img = at / per;
	int32_t in = static_cast<int32_t>(at - img * per);
	struct walk w = { at, img, in / p->ow, in % p->ow };

	return w;
}

/* A thread's column of pieces of the left tile: one tap, 8 channels of x. */
struct column {
	int32_t i, j, c; /* c -1: past the last one */
};

__device__ static inline struct column column_of(const struct lk_conv_dw *p, int64_t piece)
{
	int64_t tap = piece / p->cx8;
	struct column c = { static_cast<int32_t>(tap / p->g.kw), static_cast<int32_t>(tap % p->g.kw),
			    static_cast<int32_t>(piece - tap * p->cx8) };

	if (c.i >= p->g.kh)
		c.c = -1;
	return c;
}

template <int BN>
__device__ static inline void load_tile(const struct lk_conv_dw *p, const struct spot *spots, lk_bf16 *a, lk_bf16 *b,
					const struct column *col, int64_t n0, int64_t pixel, int64_t end)
{
	constexpr int PA = BM / 8, PB = BN / 8;
	int shift = p->g.upsample - 1, piece = threadIdx.x % PA;

	for (int r = threadIdx.x / PA; r < BK; r += THREADS / PA) {
		int y = spots[r].y + col->i, x = spots[r].x + col->j;
		bool in = col->c >= 0 && spots[r].n >= 0 && y >= 0 && x >= 0 && y >> shift < p->h && x >> shift < p->w;
		int64_t at = in ? ((spots[r].n + static_cast<int64_t>(y >> shift) * p->w + (x >> shift)) * p->cx8 + col->c) * 8 : 0;

		lk_cp_async16(lk_tile_at<BM>(a, r, piece), p->x + at, in ? 16 : 0);
	}
	piece = threadIdx.x % PB;
	for (int r = threadIdx.x / PB; r < BK; r += THREADS / PB) {
		bool in = pixel + r < end && n0 / 8 + piece < p->cy8;
		int64_t at = in ? ((pixel + r) * p->cy8 + n0 / 8 + piece) * 8 : 0;

		lk_cp_async16(lk_tile_at<BN>(b, r, piece), p->dy + at, in ? 16 : 0);
	}
}

template <int BN, int MI, int NI>
__device__ static inline void multiply(float (&acc)[MI][NI][4], lk_bf16 *a, lk_bf16 *b, int m0, int n0)
{
#pragma unroll
	for (int ks = 0; ks < BK / 16; ks++) {
		uint32_t fa[MI][4], fb[NI / 2][4];

		for (int i = 0; i < MI; i++)
			lk_frag_a_t<BM>(fa[i], a, m0 + 16 * i, ks);
		for (int j = 0; j < NI / 2; j++)
			lk_frag_b2_t<BN>(fb[j], b, n0 + 16 * j, ks);
		lk_warp_mma<MI, NI>(acc, fa, fb);
	}
}

/* One row of a fragment: (tap, channel) m, channels co and co + 1. */
__device__ static inline void put_pair(const struct lk_conv_dw *p, int64_t m, int64_t co, float a, float b)
{
	struct column c = column_of(p, m / 8);
	int64_t ci = c.c * 8 + m % 8, at;
	float *to;

	if (c.c < 0 || ci >= p->g.cin)
		return;
	at = ((static_cast<int64_t>(c.i) * p->g.kw + c.j) * p->g.cin + ci) * p->g.cout + co;
	if (p->splits > 1) {
		to = p->part + static_cast<int64_t>(blockIdx.y) * p->g.kh * p->g.kw * p->g.cin * p->g.cout + at;
		if (co < p->g.cout)
			to[0] = a;
		if (co + 1 < p->g.cout)
			to[1] = b;
		return;
	}
	to = p->dw + at;
	if (co < p->g.cout)
		to[0] += a;
	if (co + 1 < p->g.cout)
		to[1] += b;
}

template <int MI, int NI>
__device__ static inline void put_sums(const struct lk_conv_dw *p, float (&acc)[MI][NI][4], int64_t m0, int64_t n0)
{
	int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;

#pragma unroll
	for (int i = 0; i < MI; i++)
#pragma unroll
		for (int j = 0; j < NI; j++)
			for (int half = 0; half < 2; half++)
				put_pair(p, m0 + 16 * i + g + 8 * half, n0 + 8 * j + 2 * c, acc[i][j][2 * half],
					 acc[i][j][2 * half + 1]);
}

template <int BN, int WM, int WN> static __global__ void __launch_bounds__(THREADS, 2) product(const struct lk_conv_dw p)
{
	constexpr int MI = WM / 16, NI = WN / 8, ACROSS = BN / WN, STAGE = BK * (BM + BN);
	__shared__ struct spot spots[2][BK]; /* of the tile that is loaded next, and of the one after it */
	LK_SMEM(lk_bf16, tiles);
	int warp = threadIdx.x / 32, across = (p.g.cout + BN - 1) / BN;
	int64_t nb = static_cast<int64_t>(blockIdx.x % across) * BN, mb = static_cast<int64_t>(blockIdx.x / across) * BM;
	int64_t begin = p.per * blockIdx.y, end = begin + p.per < p.pixels ? begin + p.per : p.pixels;
	int depth = static_cast<int>((end - begin + BK - 1) / BK);
	struct column col = column_of(&p, mb / 8 + threadIdx.x % (BM / 8));
	struct walk w = walk_from(&p, begin + threadIdx.x % BK);
	float acc[MI][NI][4];

	lk_acc_zero<MI, NI>(acc);
	if (threadIdx.x < BK)
		spots[0][threadIdx.x] = spot_of(&p, &w, end);
	for (int t = 0; t < STAGES - 1 + depth; t++) {
		int use = t - (STAGES - 1);
		lk_bf16 *into = tiles + t % STAGES * STAGE, *from = tiles + (t + 1) % STAGES * STAGE;

		if (use >= 0)
			lk_cp_async_wait<STAGES - 2>();
		__syncthreads(); // spots of t and tile `use` are there, and nobody reads the ones overwritten now
		walk_on(&p, &w, BK);
		if (threadIdx.x < BK)
			spots[(t + 1) % 2][threadIdx.x] = spot_of(&p, &w, end);
		if (t < depth)
			load_tile<BN>(&p, spots[t % 2], into, into + BK * BM, &col, nb, begin + static_cast<int64_t>(t) * BK, end);
		lk_cp_async_commit();
		if (use >= 0)
			multiply<BN, MI, NI>(acc, from, from + BK * BM, warp / ACROSS * WM, warp % ACROSS * WN);
	}
	put_sums<MI, NI>(&p, acc, mb + warp / ACROSS * WM, nb + warp % ACROSS * WN);
}

static __global__ void add_parts(float *dw, const float *part, int64_t n, int32_t splits)
{
	int64_t i = static_cast<int64_t>(blockIdx.x) * DB_THREADS + threadIdx.x;
	float sum = 0.0f;

	if (i >= n)
		return;
	for (int32_t s = 0; s < splits; s++)
		sum += part[s * n + i];
	dw[i] += sum;
}

static int add_all(struct lk_dev *dev, float *to, const float *part, int64_t n, int64_t splits)
{
	LK_LAUNCH(add_parts, static_cast<unsigned>(lk_ceil_div(n, DB_THREADS)), DB_THREADS, 0, lk_stream(dev), to, part, n,
		  static_cast<int32_t>(splits));
	return lk_launched(dev, "conv_bwd");
}

static int64_t rows_of(const struct lk_conv_geom *g)
{
	return static_cast<int64_t>(g->kh) * g->kw * lk_round_up(g->cin, 8);
}

int64_t lk_conv_dw_tiles(const struct lk_conv_geom *g)
{
	return lk_ceil_div(rows_of(g), BM) * lk_ceil_div(g->cout, lk_conv_tile(g->cout));
}

template <int BN, int WM, int WN> static int launch(struct lk_dev *dev, const struct lk_conv_dw *p)
{
	constexpr size_t bytes = sizeof(lk_bf16) * STAGES * BK * (BM + BN);
	auto k = product<BN, WM, WN>;
	dim3 grid(static_cast<unsigned>(lk_conv_dw_tiles(&p->g)), static_cast<unsigned>(p->splits));
	int rc = lk_cuda_check(dev, "conv_bwd", cudaFuncSetAttribute(reinterpret_cast<const void *>(k),
								     cudaFuncAttributeMaxDynamicSharedMemorySize,
								     static_cast<int>(bytes)));

	if (rc)
		return rc;
	LK_LAUNCH(k, grid, THREADS, bytes, lk_stream(dev), *p);
	return lk_launched(dev, "conv_bwd");
}

int lk_conv_weight_grad(struct lk_dev *dev, const struct lk_conv_dw *p)
{
	int tile = lk_conv_tile(p->g.cout), rc;
	int64_t n = static_cast<int64_t>(p->g.kh) * p->g.kw * p->g.cin * p->g.cout;

	if (tile == 128)
		rc = launch<128, 64, 64>(dev, p);
	else
		rc = tile == 64 ? launch<64, 64, 32>(dev, p) : launch<32, 32, 32>(dev, p);
	return rc || p->splits == 1 ? rc : add_all(dev, p->dw, p->part, n, p->splits);
}

/* ---- bias ---- */

int64_t lk_conv_db_parts(int64_t pixels)
{
	int64_t parts = lk_ceil_div(pixels, DB_LEAST);

	return parts < DB_MOST ? parts : static_cast<int64_t>(DB_MOST);
}

/* V channels a thread, DB_LANES threads along the channels, DB_ROWS pixels at once; block (x: channels, y: part). */
template <int V>
static __global__ void __launch_bounds__(DB_THREADS) column_sums(float *part, const lk_bf16 *dy, int64_t pixels, int32_t c)
{
	__shared__ float sums[DB_ROWS][DB_LANES * V];
	int lane = threadIdx.x % DB_LANES, row = threadIdx.x / DB_LANES;
	int64_t per = (pixels + gridDim.y - 1) / gridDim.y, begin = per * blockIdx.y;
	int64_t end = begin + per < pixels ? begin + per : pixels;
	int64_t c0 = (static_cast<int64_t>(blockIdx.x) * DB_LANES + lane) * V;
	float s[V], v[V];

	for (int i = 0; i < V; i++)
		s[i] = 0.0f;
	for (int64_t p = begin + row; p < end && c0 < c; p += DB_ROWS) {
		if constexpr (V == 8)
			lk_load8(v, dy + p * c + c0);
		else
			v[0] = __bfloat162float(dy[p * c + c0]);
		for (int i = 0; i < V; i++)
			s[i] += v[i];
	}
	for (int i = 0; i < V; i++)
		sums[row][lane * V + i] = s[i];
	__syncthreads();
	for (int i = threadIdx.x; i < DB_LANES * V; i += DB_THREADS) {
		int64_t at = static_cast<int64_t>(blockIdx.x) * DB_LANES * V + i;
		float sum = 0.0f;

		for (int r = 0; r < DB_ROWS; r++)
			sum += sums[r][i];
		if (at < c)
			part[static_cast<int64_t>(blockIdx.y) * c + at] = sum;
	}
}

int lk_conv_bias_grad(struct lk_dev *dev, float *db, float *part, const lk_bf16 *dy, int64_t pixels, int32_t c)
{
	int wide = c % 8 == 0 && lk_aligned16(dy);
	int64_t parts = lk_conv_db_parts(pixels);
	auto k = wide ? column_sums<8> : column_sums<1>;
	dim3 grid(static_cast<unsigned>(lk_ceil_div(c, DB_LANES * (wide ? 8 : 1))), static_cast<unsigned>(parts));
	int rc;

	LK_LAUNCH(k, grid, DB_THREADS, 0, lk_stream(dev), part, dy, pixels, c);
	rc = lk_launched(dev, "conv_bwd");
	return rc ? rc : add_all(dev, db, part, c, parts);
}
