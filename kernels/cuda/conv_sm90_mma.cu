/* conv_sm90_mma.cu - convolution as an implicit matrix product on Hopper: TMA and wgmma.
 *
 * A block owns an SM and makes tiles of 16 x 16 pixels x 128 channels of dst. Of src it holds, for 64 channels at a time, the
 * square that all taps of the tile see (18 x 18 pixels for a 3x3 window): loaded once, read once for each tap by ldmatrix with
 * the tap's shift, so that the L2 cache gives 2.3 times less than a gather for each tap would take. What lies outside of the
 * image TMA fills with zeros. A window that moves by two pixels sees the even and the odd pixels as images of their own, a part of
 * the taps each. Weights come in tiles of 128 channels of dst x 64 of src, one for each tap, as K-major wgmma operands.
 *
 * Warpgroup 0 loads. Warpgroups 1 and 2 hold 8 rows of 16 pixels each, as two products of m64: a warp has one row of the
 * image in each. The fragments of the next tap are read while wgmma works on those of this one. The sums leave through shared
 * memory, where the residual was put beforehand, and by TMA, while the next tile begins.
 *
 * Shared memory: squares of src | tiles of weights | results, for either warpgroup two blocks of 64 channels | barriers.
 */
#include "kernels/cuda/conv_int.h"
#include "kernels/cuda/sm90.h"

namespace {

enum { SIDE = 16, BN = 128, BK = 64, WGS = 2, THREADS = 128 * (WGS + 1), WARPS = 4 * WGS, LOAD_REGS = 24, MATH_REGS = 240 };
enum { MOST_TAPS = 3, MOST_UNITS = 4, HALO = SIDE + MOST_TAPS - 1, PIXEL = 2 * BK };
enum { ROWS = SIDE / WGS }; /* of the image, a warpgroup's */
enum { A_STAGES = 2, B_STAGES = 5, A_BYTES = (HALO * HALO * PIXEL + 1023) / 1024 * 1024, B_BYTES = BN * PIXEL };
enum { OUT_BLOCK = ROWS * SIDE * PIXEL, OUT_WG = BN / BK * OUT_BLOCK };
enum { B_AT = A_STAGES * A_BYTES, OUT_AT = B_AT + B_STAGES * B_BYTES, BARS_AT = OUT_AT + WGS * OUT_WG };
enum { BARS = 2 * A_STAGES + 2 * B_STAGES + WGS, SMEM = BARS_AT + 8 * BARS };
enum { BAR_WG = 1 }; /* named barrier of warpgroup w: BAR_WG + w */

struct maps {
	CUtensorMap src[MOST_UNITS], w, dst, add; /* (channel, column, row, image); w (k, channel of dst, 1) */
};

/* The taps that read one part of src: all of it, or with a stride of 2 the pixels of one parity. */
struct unit {
	int taps_y, taps_x, first_y, first_x; /* of a window that moves by one pixel of the part */
	int tap, step_y, step_x;              /* its tap (i,j) is number tap + i step_y + j step_x of the packed weights */
};

struct job {
	const float *bias; /* or NULL */
	int n, across, tiles_x, tiles_y, total; /* across: tiles of channels */
	int chunks, units, steps, has_add;      /* steps: taps x chunks */
	struct unit unit[MOST_UNITS];
};

struct tile {
	int n, x, y, image;
};

__device__ static inline struct tile tile_of(const struct job &j, int i)
{
	struct tile t;

	t.n = i % j.across * BN;
	i /= j.across;
	t.x = i % j.tiles_x * SIDE;
	i /= j.tiles_x;
	t.y = i % j.tiles_y * SIDE;
	t.image = i / j.tiles_y;
	return t;
}

struct smem {
	unsigned char *a, *b, *out;
	uint64_t *a_full, *a_empty, *b_full, *b_empty, *add_full;

	__device__ explicit smem(unsigned char *p) : a(p), b(p + B_AT), out(p + OUT_AT)
	{
		a_full = reinterpret_cast<uint64_t *>(p + BARS_AT);
		a_empty = a_full + A_STAGES;
		b_full = a_empty + A_STAGES;
		b_empty = b_full + B_STAGES;
		add_full = b_empty + B_STAGES;
	}
};

/* ---- the loading thread ---- */

__device__ static inline void load_unit(const smem &m, const struct maps &map, const struct job &j, const struct tile &t, int u,
					int chunk, struct lk_ring90 &a, struct lk_ring90 &b)
{
	const struct unit &unit = j.unit[u];
	uint32_t bytes = static_cast<uint32_t>((SIDE + unit.taps_x - 1) * (SIDE + unit.taps_y - 1) * PIXEL);

	lk_mbar_wait(m.a_empty + a.stage, a.parity ^ 1);
	lk_mbar_expect(m.a_full + a.stage, bytes);
	lk_tma_load4(m.a + a.stage * A_BYTES, &map.src[u], m.a_full + a.stage, chunk * BK, t.x + unit.first_x,
		     t.y + unit.first_y, t.image);
	lk_ring_next<A_STAGES>(&a);
	for (int i = 0; i < unit.taps_y; i++) {
		for (int k = 0; k < unit.taps_x; k++, lk_ring_next<B_STAGES>(&b)) {
			int tap = unit.tap + i * unit.step_y + k * unit.step_x;

			lk_mbar_wait(m.b_empty + b.stage, b.parity ^ 1);
			lk_mbar_expect(m.b_full + b.stage, B_BYTES);
			lk_tma_load3(m.b + b.stage * B_BYTES, &map.w, m.b_full + b.stage, (tap * j.chunks + chunk) * BK, t.n, 0);
		}
	}
}

__device__ static void load_tiles(const smem &m, const struct maps &map, const struct job &j)
{
	struct lk_ring90 a = { 0, 0 }, b = { 0, 0 };

	for (int i = blockIdx.x; i < j.total; i += gridDim.x)
		for (int chunk = 0; chunk < j.chunks; chunk++)
			for (int u = 0; u < j.units; u++)
				load_unit(m, map, j, tile_of(j, i), u, chunk, a, b);
}

/* ---- a warpgroup ---- */

typedef uint32_t frags[2][BK / 16][4]; /* A operands of both products, of one tap and 64 channels */

/* Where the depth of the product stands: tap (i,j) of a unit, whose square is in `ring`. */
struct depth {
	struct lk_ring90 ring;
	int unit, i, j;
};

__device__ static __forceinline__ void read_frags(frags f, const smem &m, const struct job &j, const struct depth &d, int wg)
{
	int lane = threadIdx.x % 32, row = wg * ROWS + threadIdx.x % 128 / 32 + d.i;
	int width = SIDE + j.unit[d.unit].taps_x - 1;

#pragma unroll
	for (int p = 0; p < 2; p++) {
		int pixel = (row + 4 * p) * width + lane % 16 + d.j;
		const unsigned char *from = m.a + d.ring.stage * A_BYTES + pixel * PIXEL;

#pragma unroll
		for (int k = 0; k < BK / 16; k++)
			lk_ldmatrix4(f[p][k], from + (((2 * k + lane / 16) ^ (pixel & 7)) << 4));
	}
}

/* Reads the next fragments, waiting for the square where it is a new one and giving it back after its last tap. */
__device__ static __forceinline__ void next_frags(frags f, const smem &m, const struct job &j, struct depth &d, int wg)
{
	if (d.i == 0 && d.j == 0)
		lk_mbar_wait(m.a_full + d.ring.stage, d.ring.parity);
	read_frags(f, m, j, d, wg);
	if (++d.j == j.unit[d.unit].taps_x) {
		d.j = 0;
		d.i++;
	}
	if (d.i == j.unit[d.unit].taps_y) {
		d.i = 0;
		d.unit = d.unit + 1 == j.units ? 0 : d.unit + 1;
		lk_warp_arrive(m.a_empty + d.ring.stage);
		lk_ring_next<A_STAGES>(&d.ring);
	}
}

typedef float sums[2][BN / 2]; /* accumulators of both products */

__device__ static __forceinline__ void multiply(sums s, frags f, const unsigned char *b, int keep)
{
	uint64_t desc = lk_gmma_desc(b, 16, 8 * PIXEL, 1);

	lk_gmma_fence();
#pragma unroll
	for (int k = 0; k < BK / 16; k++)
#pragma unroll
		for (int p = 0; p < 2; p++)
			lk_gmma_rs<0>(s[p], f[p][k], desc + static_cast<uint64_t>(2 * k), keep || k > 0);
	lk_gmma_commit();
}

/* Step t: products with `now`, meanwhile fragments for the step after it into `then`. b: ring of weights; the tile
 * of the step before is given back when its products are done. */
__device__ static __forceinline__ void step(sums s, frags now, frags then, const smem &m, const struct job &j, struct depth &d,
					    struct lk_ring90 &b, int &last, int t, int wg)
{
	lk_mbar_wait(m.b_full + b.stage, b.parity);
	multiply(s, now, m.b + b.stage * B_BYTES, t > 0);
	lk_gmma_wait<1>();
	if (t > 0)
		lk_warp_arrive(m.b_empty + last);
	last = b.stage;
	lk_ring_next<B_STAGES>(&b);
	if (t + 1 < j.steps)
		next_frags(then, m, j, d, wg);
}

/* Sums of row g + 8 h of the warp's 16 pixels, product p: bias and residual added, to shared memory. */
__device__ static __forceinline__ void put_row(const float (&s)[BN / 2], const struct job &j, unsigned char *out, int p, int h,
					       int n0)
{
	int lane = threadIdx.x % 32, g = lane / 4, c = lane % 4, row = (4 * p + threadIdx.x % 128 / 32) * SIDE + g + 8 * h;

#pragma unroll
	for (int i = 0; i < BN / 8; i++) {
		uint32_t *at = reinterpret_cast<uint32_t *>(out + i / 8 * OUT_BLOCK + row * PIXEL + ((i % 8 ^ g) << 4) + 4 * c);
		int n = n0 + 8 * i + 2 * c;
		float x = s[4 * i + 2 * h], y = s[4 * i + 2 * h + 1];

		if (j.bias && n < j.n) {
			x += j.bias[n];
			y += j.bias[n + 1];
		}
		if (j.has_add) {
			uint32_t old = *at;

			x += __uint_as_float(old << 16);
			y += __uint_as_float(old & 0xffff0000u);
		}
		*at = lk_pack2(x, y);
	}
}

/* The results of a warpgroup into its part of shared memory and on their way to dst. parity: of the residual's arrival. */
__device__ static __forceinline__ void put_tile(sums s, const smem &m, const struct maps &map, const struct job &j,
						const struct tile &t, int parity, int wg)
{
	unsigned char *out = m.out + wg * OUT_WG;

	lk_bar_sync(BAR_WG + wg, 128); // its first thread has seen that the last results were read
	if (j.has_add)
		lk_mbar_wait(m.add_full + wg, parity);
#pragma unroll
	for (int p = 0; p < 2; p++)
#pragma unroll
		for (int h = 0; h < 2; h++)
			put_row(s[p], j, out, p, h, t.n);
	lk_fence_async();
	lk_bar_sync(BAR_WG + wg, 128);
	if (threadIdx.x % 128 == 0) {
		for (int b = 0; b < BN / BK; b++)
			lk_tma_store4(&map.dst, out + b * OUT_BLOCK, t.n + b * BK, t.x, t.y + wg * ROWS, t.image);
		lk_bulk_commit();
	}
}

/* Room for results; the residual comes there. The first thread of the warpgroup. */
__device__ static inline void begin_tile(const smem &m, const struct maps &map, const struct job &j, const struct tile &t, int wg)
{
	lk_bulk_wait_read();
	if (!j.has_add)
		return;
	lk_mbar_expect(m.add_full + wg, OUT_WG);
	for (int b = 0; b < BN / BK; b++)
		lk_tma_load4(m.out + wg * OUT_WG + b * OUT_BLOCK, &map.add, m.add_full + wg, t.n + b * BK, t.x, t.y + wg * ROWS,
			     t.image);
}

__device__ static void math_tiles(const smem &m, const struct maps &map, const struct job &j, int wg)
{
	int parity = 0, last = 0;
	struct depth d = { { 0, 0 }, 0, 0, 0 };
	struct lk_ring90 b = { 0, 0 };

	for (int i = blockIdx.x; i < j.total; i += gridDim.x, parity ^= 1) {
		struct tile t = tile_of(j, i);
		frags even, odd;
		sums s;

		if (threadIdx.x % 128 == 0)
			begin_tile(m, map, j, t, wg);
		__syncwarp();
		next_frags(even, m, j, d, wg);
		for (int k = 0; k < j.steps; k += 2) {
			step(s, even, odd, m, j, d, b, last, k, wg);
			if (k + 1 < j.steps)
				step(s, odd, even, m, j, d, b, last, k + 1, wg);
		}
		lk_gmma_wait<0>();
		lk_gmma_hold(s[0]);
		lk_gmma_hold(s[1]);
		lk_warp_arrive(m.b_empty + last);
		put_tile(s, m, map, j, t, parity, wg);
	}
	if (threadIdx.x % 128 == 0)
		lk_bulk_wait();
}

__global__ void __launch_bounds__(THREADS, 1)
conv_sm90(const __grid_constant__ struct maps map, const __grid_constant__ struct job j)
{
	LK_SMEM(unsigned char, base);
	smem m(base);
	int wg = lk_uniform(static_cast<int>(threadIdx.x) / 128);

	if (threadIdx.x == 0) {
		for (int i = 0; i < A_STAGES; i++) {
			lk_mbar_init(m.a_full + i, 1);
			lk_mbar_init(m.a_empty + i, WARPS);
		}
		for (int i = 0; i < B_STAGES; i++) {
			lk_mbar_init(m.b_full + i, 1);
			lk_mbar_init(m.b_empty + i, WARPS);
		}
		for (int i = 0; i < WGS; i++)
			lk_mbar_init(m.add_full + i, 1);
		lk_mbar_init_fence();
	}
	__syncthreads();
	if (wg == 0) {
		lk_regs_dec<LOAD_REGS>();
		if (threadIdx.x == 0)
			load_tiles(m, map, j);
	} else {
		lk_regs_inc<MATH_REGS>();
		math_tiles(m, map, j, wg - 1);
	}
}

/* ---- host ---- */

/* Pixels (y + step i, x + step j) of images of rows x columns, as (channel, j, i, image). */
struct lattice {
	const lk_bf16 *p;
	int64_t channels, images, rows, columns;
	int y, x, step;
	int64_t count_y, count_x;
	int box_y, box_x;
};

int make_map(struct lk_dev *dev, CUtensorMap *map, const struct lattice *l)
{
	const uint64_t dims[4] = { static_cast<uint64_t>(l->channels), static_cast<uint64_t>(l->count_x),
				   static_cast<uint64_t>(l->count_y), static_cast<uint64_t>(l->images) };
	const uint64_t size = 2 * dims[0], columns = static_cast<uint64_t>(l->columns);
	const uint64_t strides[3] = { size * static_cast<uint64_t>(l->step), size * columns * static_cast<uint64_t>(l->step),
				      size * columns * static_cast<uint64_t>(l->rows) };
	const uint32_t box[4] = { BK, static_cast<uint32_t>(l->box_x), static_cast<uint32_t>(l->box_y), 1 };

	return lk_map90(dev, "conv", map, l->p + (l->y * l->columns + l->x) * l->channels, 4, dims, strides, box);
}

/* The taps of an axis that read pixels of one parity (of stride 1: all pixels): the first of them, how many, and where
 * their window over those pixels begins. */
void part_of(const struct lk_conv_axis *a, int parity, int *tap, int *taps, int *first)
{
	*tap = (parity - a->first) & (a->stride - 1);
	*taps = *tap < a->taps ? (a->taps - *tap - 1) / a->stride + 1 : 0;
	*first = lk_floor_div(a->first + *tap, a->stride);
}

/* The parts of src that some tap reads, with their maps. */
int make_units(struct lk_dev *dev, struct maps *m, struct job *j, const struct lk_conv_gemm *p, int64_t images)
{
	int stride = p->y.stride, rc = 0;

	j->units = j->steps = 0;
	for (int i = 0; i < stride * stride && !rc; i++) {
		struct unit *u = &j->unit[j->units];
		int ty, tx, y = i / stride, x = i % stride;

		part_of(&p->y, y, &ty, &u->taps_y, &u->first_y);
		part_of(&p->x, x, &tx, &u->taps_x, &u->first_x);
		u->tap = ty * p->x.taps + tx;
		u->step_y = stride * p->x.taps;
		u->step_x = stride;
		if (!u->taps_y || !u->taps_x)
			continue;
		const struct lattice l = { p->src, 8 * p->c8, images, p->h, p->w_src, y, x, stride,
					   lk_ceil_div(p->h - y, stride), lk_ceil_div(p->w_src - x, stride),
					   SIDE + u->taps_y - 1, SIDE + u->taps_x - 1 };

		rc = make_map(dev, &m->src[j->units++], &l);
		j->steps += j->chunks * u->taps_y * u->taps_x;
	}
	return rc;
}

int make_maps(struct lk_dev *dev, struct maps *m, const struct lk_conv_gemm *p, int64_t images)
{
	const uint64_t dims[3] = { static_cast<uint64_t>(p->k), static_cast<uint64_t>(p->n), 1 };
	const uint64_t strides[2] = { 2 * dims[0], 2 * dims[0] * dims[1] };
	const uint32_t box[3] = { BK, BN, 1 };
	struct lattice l = { p->dst, p->n, images, p->oh, p->ow, p->y.phase, p->x.phase, p->y.step, p->y.count, p->x.count,
			     ROWS, SIDE };
	int rc = lk_map90(dev, "conv", &m->w, p->w, 3, dims, strides, box);

	if (!rc)
		rc = make_map(dev, &m->dst, &l);
	l.p = p->add;
	return rc || !p->add ? rc : make_map(dev, &m->add, &l);
}

/* Windows of at most 3x3 that move by one pixel or at most 4x4 that move by two, whole chunks of channels, and images that
 * fill the tiles to three fifths. */
int fits(const struct lk_conv_gemm *p)
{
	int64_t area = static_cast<int64_t>(p->y.count) * p->x.count;
	int64_t tiled = lk_round_up(p->y.count, SIDE) * lk_round_up(p->x.count, SIDE);
	int stride = p->y.stride, most = stride == 1 ? MOST_TAPS : 4;

	return (stride == 1 || (stride == 2 && p->h > 1 && p->w_src > 1)) && p->x.stride == stride && p->y.taps > 0 &&
	       p->x.taps > 0 && p->y.taps <= most && p->x.taps <= most && p->c8 % 8 == 0 && p->n % 8 == 0 &&
	       lk_conv_tile(p->n) == BN && p->wide && 5 * area >= 3 * tiled &&
	       tiled / (SIDE * SIDE) * (p->m / area) * lk_ceil_div(p->n, BN) < INT32_MAX;
}

} // namespace

int lk_conv_product_sm90(struct lk_dev *dev, const struct lk_conv_gemm *p)
{
	int64_t images = p->m / (static_cast<int64_t>(p->y.count) * p->x.count);
	struct maps m;
	struct job j;
	int rc;

	if (lk_cu(dev)->cc != 90 || !fits(p) || !lk_encode90())
		return LK_EUNSUP;
	j.bias = p->bias;
	j.n = p->n;
	j.across = static_cast<int>(lk_ceil_div(p->n, BN));
	j.tiles_x = static_cast<int>(lk_ceil_div(p->x.count, SIDE));
	j.tiles_y = static_cast<int>(lk_ceil_div(p->y.count, SIDE));
	j.total = static_cast<int>(images * j.across * j.tiles_x * j.tiles_y);
	j.chunks = p->c8 / 8;
	j.has_add = p->add != nullptr;
	rc = make_units(dev, &m, &j, p, images);
	if (!rc)
		rc = make_maps(dev, &m, p, images);
	if (!rc)
		rc = lk_cuda_check(dev, "conv", cudaFuncSetAttribute(conv_sm90, cudaFuncAttributeMaxDynamicSharedMemorySize,
								     SMEM));
	if (rc)
		return rc;
	LK_LAUNCH(conv_sm90, j.total < lk_cu(dev)->sms ? j.total : lk_cu(dev)->sms, THREADS, SMEM, lk_stream(dev), m, j);
	return lk_launched(dev, "conv");
}
