/* code.cu - nearest row of the codebook: a matrix product on tensor cores that finds the candidates, which are then measured.
 *
 * |z - e|^2 = |z|^2 + |e|^2 - 2 z e, where |z|^2 does not matter for the choice. e is split into two bf16 numbers, hi + lo, so
 * score = |e|^2 - 2 (z hi + z lo) is wrong by no more than a margin that follows from |z|, the largest |e| and the depth.
 * A block takes 64 rows of z past all codes twice: first for the least score of each row, then for the codes within two
 * margins of it. Those, one as a rule, are measured in fp64 in the reference's order; the lowest index wins a tie. What is
 * not a number fails no comparison here and is measured too.
 */
#include "kernels/cuda/conv_tile.h"
#include "kernels/cuda/image_int.h"

enum { THREADS = 128, BM = 64, BN = 128, BK = 64, STAGES = 3, STAGE = (BM + BN) * BK, WM = 32, WN = 64 };
enum { MI = WM / 16, NI = WN / 8, ACROSS = BN / WN, PACK_THREADS = 256 };

struct nearest {
	const lk_bf16 *z, *codes; /* z (n,dp) by rows of z_row; codes (k, 2 dp): hi, lo */
	const float *ee;          /* (k) |e|^2 */
	const unsigned *most;     /* bits of the largest of them */
	const float *book;        /* (k,d) by rows of book_row */
	int32_t *idx;
	int64_t n, k, z_row, book_row;
	int32_t d, dp;            /* dp: d rounded up to BK */
};

struct best {
	double dist;
	int32_t k;
};

/* One warp per code. */
static __global__ void __launch_bounds__(PACK_THREADS)
split_codes(lk_bf16 *codes, float *ee, unsigned *most, const float *book, int64_t row, int64_t k, int32_t d, int32_t dp)
{
	int64_t i = static_cast<int64_t>(blockIdx.x) * (PACK_THREADS / 32) + threadIdx.x / 32;
	double sum = 0.0;
	float sq;

	if (i >= k)
		return;
	for (int j = threadIdx.x % 32; j < dp; j += 32) {
		float e = j < d ? book[i * row + j] : 0.0f;
		lk_bf16 hi = __float2bfloat16(e);

		codes[i * 2 * dp + j] = hi;
		codes[i * 2 * dp + dp + j] = __float2bfloat16(e - __bfloat162float(hi));
		sum += static_cast<double>(e) * static_cast<double>(e);
	}
	for (int m = 16; m; m >>= 1)
		sum += __shfl_xor_sync(0xffffffffu, sum, m);
	sq = static_cast<float>(sum);
	if (threadIdx.x % 32 == 0) {
		ee[i] = sq;
		atomicMax(most, __float_as_uint(sq)); // of numbers >= 0 the bits are in order, and NaN is above all
	}
}

/* Rows of z that are not as the tensor cores want them: (n,dp), zeros after d. */
static __global__ void __launch_bounds__(PACK_THREADS)
pad_rows(lk_bf16 *to, const lk_bf16 *z, int64_t row, int64_t n, int32_t d, int32_t dp)
{
	int64_t i = static_cast<int64_t>(blockIdx.x) * PACK_THREADS + threadIdx.x, r = i / dp, c = i % dp;

	if (r < n)
		to[i] = c < d ? z[r * row + c] : __float2bfloat16(0.0f);
}

/* Step s of a walk past all codes: tile s / chunks of codes, chunk s % chunks of (hi, lo). */
__device__ static inline void load_step(const struct nearest *p, lk_bf16 *a, lk_bf16 *b, int64_t m0, int64_t s)
{
	int chunks = 2 * p->dp / BK, chunk = static_cast<int>(s % chunks), piece = threadIdx.x % 8;
	int64_t n0 = s / chunks * BN;

	for (int r = threadIdx.x / 8; r < BM; r += THREADS / 8) {
		bool in = m0 + r < p->n;
		int64_t at = in ? (m0 + r) * p->z_row + chunk % (p->dp / BK) * BK + piece * 8 : 0;

		lk_cp_async16(lk_tile_at<BK>(a, r, piece), p->z + at, in ? 16 : 0);
	}
	for (int r = threadIdx.x / 8; r < BN; r += THREADS / 8) {
		bool in = n0 + r < p->k;
		int64_t at = in ? (n0 + r) * 2 * p->dp + chunk * BK + piece * 8 : 0;

		lk_cp_async16(lk_tile_at<BK>(b, r, piece), p->codes + at, in ? 16 : 0);
	}
}

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

/* The reference's distance: products of bf16 and fp32 are exact in fp64, and the sums run in its order. */
__device__ static double measure(const struct nearest *p, int64_t row, int64_t k)
{
	const float *e = p->book + k * p->book_row;
	const lk_bf16 *z = p->z + row * p->z_row;
	double zz = 0.0, ee = 0.0, ze = 0.0;

	for (int j = 0; j < p->d; j++) {
		double zj = static_cast<double>(__bfloat162float(z[j])), ej = static_cast<double>(e[j]);

		zz += zj * zj;
		ee += ej * ej;
		ze += zj * ej;
	}
	return zz + ee - 2.0 * ze;
}

__device__ static inline bool nearer(struct best a, struct best b)
{
	return a.dist < b.dist || (a.dist == b.dist && a.k < b.k);
}

__device__ static inline float score(const struct nearest *p, const float *acc, int64_t k, int e)
{
	return k < p->k ? p->ee[k] - 2.0f * acc[e] : INFINITY;
}

/* Row of the block that sums 2 (i % 2), 2 (i % 2) + 1 of fragment i / 2 belong to. */
__device__ static inline int row_of(int m, int i)
{
	return m + 16 * (i / 2) + 8 * (i % 2) + threadIdx.x % 32 / 4;
}

__device__ static inline void keep_least(const struct nearest *p, float (&acc)[MI][NI][4], float *least, int64_t n)
{
#pragma unroll
	for (int i = 0; i < 2 * MI; i++)
#pragma unroll
		for (int j = 0; j < 2 * NI; j++) {
			int64_t k = n + 8 * (j / 2) + 2 * (threadIdx.x % 4) + j % 2;

			least[i] = fminf(least[i], score(p, acc[i / 2][j / 2], k, i % 2 * 2 + j % 2));
		}
}

/* Bit j of the result: the score of row i and this thread's code j is within the row's limit, or no number. */
__device__ static inline unsigned candidates(const struct nearest *p, float (&acc)[MI][NI][4], float limit, int i, int64_t n)
{
	unsigned found = 0;

#pragma unroll
	for (int j = 0; j < 2 * NI; j++) {
		int64_t k = n + 8 * (j / 2) + 2 * (threadIdx.x % 4) + j % 2;

		if (k < p->k && !(score(p, acc[i / 2][j / 2], k, i % 2 * 2 + j % 2) > limit))
			found |= 1u << j;
	}
	return found;
}

/* Measures the candidates of a tile. */
__device__ static inline void keep_best(const struct nearest *p, float (&acc)[MI][NI][4], struct best *best,
					const float *limit, int64_t m0, int m, int64_t n)
{
#pragma unroll
	for (int i = 0; i < 2 * MI; i++) {
		int64_t row = m0 + row_of(m, i);
		unsigned found = row < p->n ? candidates(p, acc, limit[row_of(m, i)], i, n) : 0;

		for (; found; found &= found - 1) {
			int j = __ffs(static_cast<int>(found)) - 1;
			int64_t k = n + 8 * (j / 2) + 2 * (threadIdx.x % 4) + j % 2;
			double d = measure(p, row, k);

			if (d < best[i].dist)
				best[i] = { d, static_cast<int32_t>(k) };
		}
	}
}

/* All codes once: the least score of each row (limit NULL), or the nearest of those within the row's limit. */
__device__ static inline void walk(const struct nearest *p, lk_bf16 *tiles, float *least, struct best *best,
				   const float *limit, int64_t m0)
{
	int warp = threadIdx.x / 32, m = warp / ACROSS * WM, n = warp % ACROSS * WN, chunks = 2 * p->dp / BK;
	int64_t steps = (p->k + BN - 1) / BN * chunks;
	float acc[MI][NI][4];

	for (int64_t t = 0; t < STAGES - 1 + steps; t++) {
		int64_t use = t - (STAGES - 1);
		lk_bf16 *into = tiles + t % STAGES * STAGE, *from = tiles + (t + 1) % STAGES * STAGE;

		if (use >= 0)
			lk_cp_async_wait<STAGES - 2>();
		__syncthreads();
		if (t < steps)
			load_step(p, into, into + BM * BK, m0, t);
		lk_cp_async_commit();
		if (use < 0)
			continue;
		if (use % chunks == 0)
			lk_acc_zero<MI, NI>(acc);
		multiply(acc, from, from + BM * BK, m, n);
		if (use % chunks == chunks - 1)
			limit ? keep_best(p, acc, best, limit, m0, m, use / chunks * BN + n) :
				keep_least(p, acc, least, use / chunks * BN + n);
	}
}

/* limit[r] = least score of row r + two margins. A score errs by the bits of e after lo (2^-17 of |z||e|), the sums of
 * fp32 over 2 dp products, and the rounding of |e|^2 and of the result. */
__device__ static inline void set_limits(const struct nearest *p, float *limit, float (*of_warps)[BM], const float *least,
					 int64_t m0)
{
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	float most = sqrtf(__uint_as_float(*p->most));

	for (int i = 0; i < 2 * MI; i++) {
		float v = least[i];

		for (int s = 1; s < 4; s *= 2)
			v = fminf(v, __shfl_xor_sync(0xffffffffu, v, s));
		if (lane % 4 == 0)
			of_warps[warp % ACROSS][row_of(warp / ACROSS * WM, i)] = v;
	}
	__syncthreads();
	for (int r = warp; r < BM; r += THREADS / 32) {
		float zz = 0.0f, err, low = INFINITY;

		for (int j = lane; j < p->d && m0 + r < p->n; j += 32) {
			float z = __bfloat162float(p->z[(m0 + r) * p->z_row + j]);

			zz += z * z;
		}
		zz = sqrtf(lk_warp_sum(zz));
		err = zz * most * (3.1e-5f + 1e-6f * static_cast<float>(p->dp)) + most * most * 5e-7f;
		for (int w = 0; w < ACROSS; w++)
			low = fminf(low, of_warps[w][r]);
		if (lane == 0)
			limit[r] = low + 2.0f * err;
	}
	__syncthreads();
}

/* The nearest of what the threads of a row found. */
__device__ static inline void put_best(const struct nearest *p, struct best (*of_warps)[BM], const struct best *best, int64_t m0)
{
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

	for (int i = 0; i < 2 * MI; i++) {
		struct best b = best[i];

		for (int s = 1; s < 4; s *= 2) {
			struct best o = { __shfl_xor_sync(0xffffffffu, b.dist, s), __shfl_xor_sync(0xffffffffu, b.k, s) };

			b = nearer(o, b) ? o : b;
		}
		if (lane % 4 == 0)
			of_warps[warp % ACROSS][row_of(warp / ACROSS * WM, i)] = b;
	}
	__syncthreads();
	for (int r = threadIdx.x; r < BM && m0 + r < p->n; r += THREADS) {
		struct best b = of_warps[0][r];

		for (int w = 1; w < ACROSS; w++)
			b = nearer(of_warps[w][r], b) ? of_warps[w][r] : b;
		p->idx[m0 + r] = b.k;
	}
}

static __global__ void __launch_bounds__(THREADS, 2) find_nearest(const struct nearest p)
{
	__shared__ float limit[BM], least_of[ACROSS][BM];
	__shared__ struct best best_of[ACROSS][BM];
	LK_SMEM(lk_bf16, tiles);
	int64_t m0 = static_cast<int64_t>(blockIdx.x) * BM;
	struct best best[2 * MI];
	float least[2 * MI];

	for (int i = 0; i < 2 * MI; i++) {
		least[i] = INFINITY;
		best[i] = { INFINITY, 0 };
	}
	walk(&p, tiles, least, best, nullptr, m0);
	__syncthreads();
	set_limits(&p, limit, least_of, least, m0);
	walk(&p, tiles, least, best, limit, m0);
	put_best(&p, best_of, best, m0);
}

static int launch(struct lk_dev *dev, const struct nearest *p)
{
	size_t bytes = sizeof(lk_bf16) * STAGES * STAGE;
	auto k = find_nearest;
	int rc = lk_cuda_check(dev, "nearest_code", cudaFuncSetAttribute(reinterpret_cast<const void *>(k),
									 cudaFuncAttributeMaxDynamicSharedMemorySize,
									 static_cast<int>(bytes)));

	if (rc)
		return rc;
	LK_LAUNCH(k, static_cast<unsigned>(lk_ceil_div(p->n, BM)), THREADS, bytes, lk_stream(dev), *p);
	return lk_launched(dev, "nearest_code");
}

/* Where everything stands: codes, their squares, and z where its rows are not as the tensor cores want them. */
static struct nearest plan_search(struct lk_cutter *cut, int32_t *idx, const struct lk_view *z, const struct lk_view *book)
{
	int64_t n = z->n[0], k = book->n[0], d = z->n[1], dp = lk_round_up(d, BK), size = sizeof(lk_bf16);
	struct nearest p = {};

	p.codes = static_cast<lk_bf16 *>(lk_cut(cut, 2 * k * dp * size));
	p.ee = static_cast<float *>(lk_cut(cut, k * static_cast<int64_t>(sizeof(float))));
	p.most = static_cast<unsigned *>(lk_cut(cut, sizeof(unsigned)));
	p.z = static_cast<const lk_bf16 *>(z->data);
	p.z_row = z->stride[0];
	if (d != dp || p.z_row % 8 || !lk_aligned16(p.z)) {
		p.z = static_cast<lk_bf16 *>(lk_cut(cut, n * dp * size));
		p.z_row = dp;
	}
	p.book = static_cast<const float *>(book->data);
	p.book_row = book->stride[0];
	p.idx = idx;
	p.n = n;
	p.k = k;
	p.d = static_cast<int32_t>(d);
	p.dp = static_cast<int32_t>(dp);
	return p;
}

static int prepare_search(struct lk_dev *dev, const struct nearest *p, const struct lk_view *z)
{
	const lk_bf16 *from = static_cast<const lk_bf16 *>(z->data);
	lk_bf16 *codes = const_cast<lk_bf16 *>(p->codes);
	unsigned *most = const_cast<unsigned *>(p->most);
	int rc = lk_cuda_check(dev, "nearest_code", cudaMemsetAsync(most, 0, sizeof *most, lk_stream(dev)));

	if (rc)
		return rc;
	LK_LAUNCH(split_codes, static_cast<unsigned>(lk_ceil_div(p->k, PACK_THREADS / 32)), PACK_THREADS, 0, lk_stream(dev),
		  codes, const_cast<float *>(p->ee), most, p->book, p->book_row, p->k, p->d, p->dp);
	if (p->z != from)
		LK_LAUNCH(pad_rows, static_cast<unsigned>(lk_ceil_div(p->n * p->dp, PACK_THREADS)), PACK_THREADS, 0,
			  lk_stream(dev), const_cast<lk_bf16 *>(p->z), from, z->stride[0], p->n, p->d, p->dp);
	return lk_launched(dev, "nearest_code");
}

static int nearest_code(struct lk_dev *dev, int32_t *idx, const struct lk_view *z, const struct lk_view *codebook)
{
	struct lk_cutter cut = { nullptr, 0 };
	struct nearest p;
	int rc;

	if (z->dtype != LK_BF16)
		return lk_cuda_fail(dev, LK_EUNSUP, "nearest_code: latents are bf16 on this device");
	plan_search(&cut, idx, z, codebook);
	cut.base = static_cast<char *>(lk_scratch(dev, "nearest_code", cut.used));
	if (!cut.base)
		return LK_ENOMEM;
	cut.used = 0;
	p = plan_search(&cut, idx, z, codebook);
	rc = prepare_search(dev, &p, z);
	return rc ? rc : launch(dev, &p);
}

void lk_cuda_fill_code(struct lk_ops *o)
{
	o->image.nearest_code = nearest_code;
}
