/* conv_mma.cu - convolution as an implicit matrix product, on every chip with bf16 tensor cores.
 *
 * A block of 4 warps makes 128 pixels x BN channels of dst. The depth, taps x channels of src, comes in tiles of 64 through a
 * ring of STAGES in shared memory: 128 rows of gathered src (a row per pixel, 16-byte pieces, zeros outside of the image) and
 * BN rows of weights. A piece lies within one tap, so its address is that of a pixel plus a channel.
 * Afterwards the sums go through the same memory as fp32, so that bias, residual and stores are 16 bytes a thread.
 */
#include "kernels/cuda/conv_int.h"
#include "kernels/cuda/conv_tile.h"

enum { THREADS = 128, BM = 128, BK = LK_CONV_BK, STAGES = 3, PIECES = BK / 8, ROWS_A_PASS = THREADS / PIECES };

/* What a pixel of dst reads and writes. */
struct row {
	int64_t src, dst;      /* first pixel of the image of src; pixel of dst, -1 none */
	int32_t y, x;          /* of the pixel of src under the first tap; far outside where there is no pixel */
};

/* Where a thread's column of pieces stands in the depth: tap (i,j), group c of 8 channels. */
struct cursor {
	int32_t i, j, c;
};

__device__ static inline void advance(struct cursor *k, const struct lk_conv_gemm *p, int pieces)
{
	k->c += pieces;
	while (k->c >= p->c8) {
		k->c -= p->c8;
		if (++k->j == p->x.taps) {
			k->j = 0;
			k->i++;
		}
	}
}

__device__ static struct row row_of(const struct lk_conv_gemm *p, int64_t m)
{
	struct row r = { 0, -1, -(1 << 29), -(1 << 29) };
	int64_t per = static_cast<int64_t>(p->y.count) * p->x.count, img;
	int32_t at, ay, ax;

	if (m >= p->m)
		return r;
	img = m / per;
	at = static_cast<int32_t>(m - img * per);
	ay = at / p->x.count;
	ax = at - ay * p->x.count;
	r.src = img * p->h * p->w_src;
	r.dst = (img * p->oh + p->y.phase + static_cast<int64_t>(p->y.step) * ay) * p->ow + p->x.phase +
		static_cast<int64_t>(p->x.step) * ax;
	r.y = ay * p->y.stride + p->y.first;
	r.x = ax * p->x.stride + p->x.first;
	return r;
}

template <int BN>
__device__ static inline void load_tile(const struct lk_conv_gemm *p, const struct row *rows, lk_bf16 *a, lk_bf16 *b,
					const struct cursor *k, int64_t n0, int kt)
{
	int piece = threadIdx.x % PIECES, first = threadIdx.x / PIECES;

	for (int r = first; r < BM; r += ROWS_A_PASS) {
		int y = rows[r].y + k->i, x = rows[r].x + k->j;
		bool in = static_cast<unsigned>(y) < static_cast<unsigned>(p->h) &&
			  static_cast<unsigned>(x) < static_cast<unsigned>(p->w_src) && k->i < p->y.taps;
		int64_t at = in ? ((rows[r].src + static_cast<int64_t>(y) * p->w_src + x) * p->c8 + k->c) * 8 : 0;

		lk_cp_async16(lk_tile_at<BK>(a, r, piece), p->src + at, in ? 16 : 0);
	}
	for (int r = first; r < BN; r += ROWS_A_PASS) {
		bool in = n0 + r < p->n;
		int64_t at = in ? (n0 + r) * p->k + kt * BK + piece * 8 : 0;

		lk_cp_async16(lk_tile_at<BK>(b, r, piece), p->w + at, in ? 16 : 0);
	}
}

template <int MI, int NI>
__device__ static inline void multiply(float (&acc)[MI][NI][4], lk_bf16 *a, lk_bf16 *b, int m0, int n0)
{
#pragma unroll
	for (int ks = 0; ks < BK / 16; ks++) {
		uint32_t fa[MI][4], fb[NI / 2][4];

		for (int i = 0; i < MI; i++)
			lk_frag_a(fa[i], a, m0 + 16 * i, ks);
		for (int j = 0; j < NI / 2; j++)
			lk_frag_b2(fb[j], b, n0 + 16 * j, ks);
		lk_warp_mma<MI, NI>(acc, fa, fb);
	}
}

/* The sums of a warp into the block's fp32 tile, rows of BN + 8. */
template <int BN, int MI, int NI>
__device__ static inline void put_sums(float *out, float (&acc)[MI][NI][4], int m0, int n0)
{
	int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;

	for (int i = 0; i < MI; i++)
		for (int j = 0; j < NI; j++)
			for (int half = 0; half < 2; half++) {
				float *to = out + (m0 + 16 * i + g + 8 * half) * (BN + 8) + n0 + 8 * j + 2 * c;

				*reinterpret_cast<float2 *>(to) = make_float2(acc[i][j][2 * half], acc[i][j][2 * half + 1]);
			}
}

/* 8 channels of one pixel of dst, from channel n on. */
__device__ static inline void put_piece(const struct lk_conv_gemm *p, const float *sums, int64_t pixel, int64_t n)
{
	int64_t at = pixel * p->n + n;
	int count = p->n - n < 8 ? static_cast<int>(p->n - n) : 8;
	float v[8], more[8];

	for (int i = 0; i < 8; i++)
		v[i] = sums[i] + (p->bias && i < count ? p->bias[n + i] : 0.0f);
	if (p->wide) {
		if (p->add) {
			lk_load8(more, p->add + at);
			for (int i = 0; i < 8; i++)
				v[i] += more[i];
		}
		lk_store8(p->dst + at, v);
		return;
	}
#pragma unroll
	for (int i = 0; i < 8; i++)
		if (i < count)
			p->dst[at + i] = __float2bfloat16(v[i] + (p->add ? __bfloat162float(p->add[at + i]) : 0.0f));
}

template <int BN>
__device__ static inline void store_tile(const struct lk_conv_gemm *p, const struct row *rows, const float *out, int64_t n0)
{
	for (int i = threadIdx.x; i < BM * BN / 8; i += THREADS) {
		int r = i / (BN / 8), n = i % (BN / 8) * 8;

		if (rows[r].dst >= 0 && n0 + n < p->n)
			put_piece(p, out + r * (BN + 8) + n, rows[r].dst, n0 + n);
	}
}

template <int BN> constexpr int stage_elements = (BM + BN) * BK;
template <int BN>
constexpr size_t shared_bytes = STAGES * stage_elements<BN> * 2 > BM * (BN + 8) * 4 ? STAGES * stage_elements<BN> * 2 :
										      BM * (BN + 8) * 4;

/* WM x WN: what a warp makes of the tile. Blocks that share pixels are neighbours, so that src comes from the L2 cache. */
template <int BN, int WM, int WN> static __global__ void __launch_bounds__(THREADS, 2) product(const struct lk_conv_gemm p)
{
	constexpr int MI = WM / 16, NI = WN / 8, ACROSS = BN / WN;
	__shared__ struct row rows[BM];
	LK_SMEM(lk_bf16, tiles);
	int warp = threadIdx.x / 32, m0 = warp / ACROSS * WM, n0 = warp % ACROSS * WN, depth = p.k / BK;
	int across = (p.n + BN - 1) / BN;
	int64_t nb = static_cast<int64_t>(blockIdx.x % across) * BN;
	struct cursor k = { 0, 0, 0 };
	float acc[MI][NI][4];

	rows[threadIdx.x] = row_of(&p, static_cast<int64_t>(blockIdx.x / across) * BM + threadIdx.x);
	lk_acc_zero<MI, NI>(acc);
	__syncthreads();
	if (depth)
		advance(&k, &p, threadIdx.x % PIECES);
	for (int t = 0; t < STAGES - 1 + depth; t++) {
		int use = t - (STAGES - 1);
		lk_bf16 *into = tiles + t % STAGES * stage_elements<BN>;

		if (use >= 0) {
			lk_cp_async_wait<STAGES - 2>();
			__syncthreads(); // tile `use` is there for all, and all are done with the one that is overwritten now
		}
		if (t < depth) {
			load_tile<BN>(&p, rows, into, into + BM * BK, &k, nb, t);
			advance(&k, &p, PIECES);
		}
		lk_cp_async_commit();
		if (use >= 0) {
			lk_bf16 *from = tiles + use % STAGES * stage_elements<BN>;

			multiply<MI, NI>(acc, from, from + BM * BK, m0, n0);
		}
	}
	lk_cp_async_wait<0>();
	__syncthreads();
	put_sums<BN, MI, NI>(reinterpret_cast<float *>(tiles), acc, m0, n0);
	__syncthreads();
	store_tile<BN>(&p, rows, reinterpret_cast<float *>(tiles), nb);
}

template <int BN, int WM, int WN> static int launch(struct lk_dev *dev, const struct lk_conv_gemm *p)
{
	auto k = product<BN, WM, WN>;
	int64_t blocks = lk_ceil_div(p->m, BM) * lk_ceil_div(p->n, BN);
	int rc = lk_cuda_check(dev, "conv", cudaFuncSetAttribute(reinterpret_cast<const void *>(k),
								 cudaFuncAttributeMaxDynamicSharedMemorySize,
								 static_cast<int>(shared_bytes<BN>)));

	if (rc)
		return rc;
	LK_LAUNCH(k, static_cast<unsigned>(blocks), THREADS, shared_bytes<BN>, lk_stream(dev), *p);
	return lk_launched(dev, "conv");
}

int lk_conv_product_mma(struct lk_dev *dev, const struct lk_conv_gemm *p)
{
	switch (lk_conv_tile(p->n)) {
	case 128:
		return launch<128, 64, 64>(dev, p);
	case 64:
		return launch<64, 64, 32>(dev, p);
	default:
		return launch<32, 32, 32>(dev, p);
	}
}
