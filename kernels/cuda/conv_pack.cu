/* conv_pack.cu - weights from fp32 (kh,kw,cin,cout) to bf16 as conv_mma.cu reads them; channels padded to multiples of 8. */
#include "kernels/cuda/conv_int.h"

enum { SIDE = 32, ROWS = 8, THREADS = 256 };

struct pack {
	const float *w;
	lk_bf16 *out; /* of this phase: (n, k) */
	struct lk_conv_dim rows, cols;
	struct lk_conv_phase p;
	int32_t cin, cout, c, n; /* c: channels of src, n: of dst */
};

/* The weight of tap (jy,jx) of the phase between channels ci and co: a sum over the taps of the window that fall there. */
__device__ static inline float weight(const struct pack *a, int jy, int jx, int64_t ci, int64_t co)
{
	int over = a->rows.backward ? a->rows.up : 1;
	float sum = 0.0f;

	for (int i = 0; i < a->rows.k * over; i++) {
		if (lk_conv_tap(&a->rows, &a->p.y, i / over, i % over) != jy)
			continue;
		for (int j = 0; j < a->cols.k * over; j++)
			if (lk_conv_tap(&a->cols, &a->p.x, j / over, j % over) == jx)
				sum += a->w[((static_cast<int64_t>(i / over) * a->cols.k + j / over) * a->cin + ci) * a->cout + co];
	}
	return sum;
}

/* A block turns SIDE x SIDE channels of one tap: read along cout, written along the channels of src. */
static __global__ void __launch_bounds__(THREADS) pack(const struct pack a)
{
	__shared__ float tile[SIDE][SIDE + 1]; /* [ci][co] */
	int64_t ct = (a.c + SIDE - 1) / SIDE, nt = (a.n + SIDE - 1) / SIDE, at = blockIdx.x;
	int64_t c0 = at % ct * SIDE, n0 = at / ct % nt * SIDE;
	int tap = static_cast<int>(at / ct / nt), jy = tap / a.p.x.taps, jx = tap % a.p.x.taps;
	int back = a.rows.backward, lane = threadIdx.x % SIDE;
	int64_t ci0 = back ? n0 : c0, co0 = back ? c0 : n0, c8 = (a.c + 7) / 8 * 8;

	for (int r = threadIdx.x / SIDE; r < SIDE; r += ROWS)
		if (ci0 + r < a.cin && co0 + lane < a.cout)
			tile[r][lane] = weight(&a, jy, jx, ci0 + r, co0 + lane);
	__syncthreads();
	for (int r = threadIdx.x / SIDE; r < SIDE; r += ROWS)
		if (n0 + r < a.n && c0 + lane < a.c)
			a.out[(n0 + r) * a.p.k + tap * c8 + c0 + lane] = __float2bfloat16(back ? tile[r][lane] : tile[lane][r]);
}

int lk_conv_pack(struct lk_dev *dev, lk_bf16 *packed, const struct lk_conv_geom *g, int backward, const float *w)
{
	struct lk_conv_dim rows = lk_conv_rows(g, backward), cols = lk_conv_cols(g, backward);
	int32_t steps = lk_conv_steps(&rows), c = backward ? g->cout : g->cin, n = backward ? g->cin : g->cout;
	cudaError_t err = cudaMemsetAsync(packed, 0, static_cast<size_t>(lk_conv_packed(g, backward)) * sizeof *packed,
					  lk_stream(dev));
	int rc = lk_cuda_check(dev, "conv_refresh", err);

	for (int32_t i = 0; i < steps * steps && !rc; i++) {
		struct lk_conv_phase p = lk_conv_phase_of(g, backward, i, 1, 1);
		struct pack a = { w, packed, rows, cols, p, g->cin, g->cout, c, n };
		int64_t blocks = static_cast<int64_t>(p.y.taps) * p.x.taps * lk_ceil_div(c, SIDE) * lk_ceil_div(n, SIDE);

		packed += n * p.k;
		if (!blocks)
			continue;
		LK_LAUNCH(pack, static_cast<unsigned>(blocks), THREADS, 0, lk_stream(dev), a);
		rc = lk_launched(dev, "conv_refresh");
	}
	return rc;
}

static __global__ void pad_channels(lk_bf16 *y, const lk_bf16 *x, int64_t pieces, int32_t c, int32_t c8)
{
	int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x, pixel = i / c8;
	int c0 = static_cast<int>(i - pixel * c8) * 8;
	float v[8];

	if (i >= pieces)
		return;
	for (int j = 0; j < 8; j++)
		v[j] = c0 + j < c ? __bfloat162float(x[pixel * c + c0 + j]) : 0.0f;
	lk_store8(y + i * 8, v);
}

int lk_conv_pad(struct lk_dev *dev, lk_bf16 *y, const lk_bf16 *x, int64_t pixels, int32_t c)
{
	int32_t c8 = (c + 7) / 8;

	LK_LAUNCH(pad_channels, static_cast<unsigned>(lk_ceil_div(pixels * c8, THREADS)), THREADS, 0, lk_stream(dev), y, x,
		  pixels * c8, c, c8);
	return lk_launched(dev, "conv");
}
