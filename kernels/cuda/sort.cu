/* sort.cu - ids sorted with their places, stably: least significant digit first, 8 bits a pass.
 *
 * Keys are cut into tiles, a tile's keys into one run for each warp. A pass counts each digit in each tile, turns the
 * counts into the places where a tile's keys of a digit begin, and moves the keys there. All counts are integers, so the
 * result does not depend on which thread adds first. */
#include "kernels/cuda/embed_int.h"

enum { THREADS = 256, WARPS = THREADS / 32, ROUNDS = 8, TILE = THREADS * ROUNDS, DIGITS = 256 };

struct sort_source {
	const int32_t *ids;         /* first pass: keys are made from these */
	const int32_t *keys, *perm; /* later ones */
	int64_t n, first, rows;
};

/* Of element i, which is inside. */
__device__ static inline int32_t key_at(const struct sort_source *s, int64_t i)
{
	int64_t key;

	if (!s->ids)
		return s->keys[i];
	key = s->ids[i] - s->first;
	return static_cast<int32_t>(key >= 0 && key < s->rows ? key : s->rows);
}

/* Element of this lane in round r of its warp's run. */
__device__ static inline int64_t element(int r)
{
	return static_cast<int64_t>(blockIdx.x) * TILE + (threadIdx.x / 32) * (32 * ROUNDS) + r * 32 + threadIdx.x % 32;
}

/* Lanes with the same digit; lanes beyond the end are of none. */
__device__ static inline unsigned peers_of(bool inside, int digit)
{
	return __match_any_sync(0xffffffffu, static_cast<unsigned>(inside ? digit : 0 + DIGITS));
}

__device__ static inline int rank_in(unsigned peers)
{
	return __popc(peers & ((1u << threadIdx.x % 32) - 1));
}

/* counts[digit][tile] */
static __global__ void __launch_bounds__(THREADS) count_kernel(int32_t *counts, struct sort_source s, int shift)
{
	__shared__ int32_t sum[DIGITS];

	sum[threadIdx.x] = 0;
	__syncthreads();
	for (int r = 0; r < ROUNDS; r++) {
		int64_t i = element(r);
		bool inside = i < s.n;
		int digit = inside ? key_at(&s, i) >> shift & (DIGITS - 1) : 0;
		unsigned peers = peers_of(inside, digit);

		if (inside && rank_in(peers) == 0)
			atomicAdd(&sum[digit], __popc(peers));
	}
	__syncthreads();
	counts[static_cast<int64_t>(threadIdx.x) * gridDim.x + blockIdx.x] = sum[threadIdx.x];
}

/* Sum of x over the threads before this one; *total: over all. */
__device__ static inline int32_t scan(int32_t x, int32_t *total)
{
	__shared__ int32_t part[WARPS];
	int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
	int32_t sum = x, before = 0;

	for (int d = 1; d < 32; d *= 2) {
		int32_t left = __shfl_up_sync(0xffffffffu, sum, static_cast<unsigned>(d));

		sum += lane >= d ? left : 0;
	}
	if (lane == 31)
		part[warp] = sum;
	__syncthreads();
	*total = 0;
	for (int w = 0; w < WARPS; w++) {
		before += w < warp ? part[w] : 0;
		*total += part[w];
	}
	__syncthreads();
	return before + sum - x;
}

/* Block d: counts[d][.] become sums over the tiles before; totals[d]. */
static __global__ void __launch_bounds__(THREADS) scan_kernel(int32_t *counts, int32_t *totals, int64_t tiles)
{
	int32_t *c = counts + blockIdx.x * tiles, sum = 0;

	for (int64_t t0 = 0; t0 < tiles; t0 += THREADS) {
		int64_t t = t0 + threadIdx.x;
		int32_t total, before = scan(t < tiles ? c[t] : 0, &total);

		if (t < tiles)
			c[t] = sum + before;
		sum += total;
	}
	if (threadIdx.x == 0)
		totals[blockIdx.x] = sum;
}

/* place[warp][digit]: how many keys of each digit a warp has, then where its first one goes. */
__device__ static inline void find_places(int32_t (*place)[DIGITS], const int32_t *counts, const int32_t *totals)
{
	int digit = static_cast<int>(threadIdx.x);
	int32_t all, at = scan(totals[digit], &all) + counts[static_cast<int64_t>(digit) * gridDim.x + blockIdx.x];

	for (int w = 0; w < WARPS; w++) {
		int32_t n = place[w][digit];

		place[w][digit] = at;
		at += n;
	}
}

static __global__ void __launch_bounds__(THREADS)
	move_kernel(int32_t *keys, int32_t *perm, struct sort_source s, const int32_t *counts, const int32_t *totals, int shift)
{
	__shared__ int32_t place[WARPS][DIGITS];
	int warp = static_cast<int>(threadIdx.x) / 32;

	for (int w = 0; w < WARPS; w++)
		place[w][threadIdx.x] = 0;
	__syncthreads();
	for (int pass = 0; pass < 2; pass++) { // count, then move
		for (int r = 0; r < ROUNDS; r++) {
			int64_t i = element(r);
			bool inside = i < s.n;
			int32_t key = inside ? key_at(&s, i) : 0;
			int digit = key >> shift & (DIGITS - 1);
			unsigned peers = peers_of(inside, digit);
			int32_t to = place[warp][digit] + rank_in(peers);

			__syncwarp();
			if (inside && rank_in(peers) == 0)
				place[warp][digit] += __popc(peers);
			__syncwarp();
			if (pass && inside) {
				keys[to] = key;
				perm[to] = s.ids ? static_cast<int32_t>(i) : s.perm[i];
			}
		}
		__syncthreads();
		if (pass == 0)
			find_places(place, counts, totals);
		__syncthreads();
	}
}

static size_t rounded_bytes(int64_t words)
{
	return static_cast<size_t>(lk_ceil_div(words * 4, 256) * 256);
}

size_t lk_sort_bytes(int64_t n)
{
	return 4 * rounded_bytes(n) + rounded_bytes(DIGITS * lk_ceil_div(n, TILE)) + rounded_bytes(DIGITS);
}

void lk_sort_ids(struct lk_dev *dev, void *work, const int32_t *ids, int64_t n, int32_t first, int64_t rows,
		 const int32_t **keys, const int32_t **perm)
{
	int64_t tiles = lk_ceil_div(n, TILE);
	int32_t *buf[4], *counts, *totals; // keys and places, twice
	struct sort_source s = { ids, NULL, NULL, n, first, rows };
	char *at = static_cast<char *>(work);

	for (int i = 0; i < 4; i++, at += rounded_bytes(n))
		buf[i] = reinterpret_cast<int32_t *>(at);
	counts = reinterpret_cast<int32_t *>(at);
	totals = reinterpret_cast<int32_t *>(at + rounded_bytes(DIGITS * tiles));
	for (int shift = 0, side = 0; shift == 0 || rows >> shift; shift += 8, side ^= 2) {
		unsigned blocks = static_cast<unsigned>(tiles);

		LK_LAUNCH(count_kernel, blocks, THREADS, 0, lk_stream(dev), counts, s, shift);
		LK_LAUNCH(scan_kernel, DIGITS, THREADS, 0, lk_stream(dev), counts, totals, tiles);
		LK_LAUNCH(move_kernel, blocks, THREADS, 0, lk_stream(dev), buf[side], buf[side + 1], s, counts, totals, shift);
		s.ids = NULL;
		s.keys = buf[side];
		s.perm = buf[side + 1];
	}
	*keys = s.keys;
	*perm = s.perm;
}
