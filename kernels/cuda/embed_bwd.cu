/* embed_bwd.cu - gradient of an embedding table: rows of dy added up by their id, in the order of the tokens.
 *
 * Tokens are sorted by id, and the sorted list is cut into chunks of one length. A block adds up the rows of its chunk, a
 * run of equal ids at a time. A run that lies inside the chunk belongs to this block alone and is added to the table; one that
 * crosses the chunk's border leaves a part, at most two a chunk:
 *	part[2c]      of the run that came into chunk c from the left (it may leave it again on the right)
 *	part[2c + 1]  of the run that begins in chunk c and leaves it on the right
 * A second kernel adds such parts, from the chunk where the run begins. The order follows from the ids alone. */
#include <inttypes.h>

#include "kernels/cuda/embed_int.h"

enum { CHUNK = 512, THREADS = 256, UNROLL = 8 }; // CHUNK is a multiple of UNROLL

struct embed_sums {
	const int32_t *keys, *perm; /* sorted; key == rows: not of this table */
	struct lk_rows<float> table;
	float *part;                /* (2 chunks, d) */
	int64_t n, d, rows, chunk;  /* chunk: its length, at most CHUNK */
	int wide;
};

/* The run of `key` ends: to the table or to a part. */
template <bool VEC, int G>
__device__ static inline void flush(const struct embed_sums *a, int32_t key, const float *acc, int64_t col, int64_t c,
				    bool from_left, bool to_right)
{
	struct lk_held<float, G> h;
	float *to, old[G];

	if (key >= a->rows)
		return;
	if (from_left || to_right) {
		lk_give<VEC, G>(a->part + (2 * c + !from_left) * a->d + col, acc, a->d - col);
		return;
	}
	to = a->table.p + key * a->table.step + col;
	lk_hold<VEC>(&h, to, a->d - col);
	lk_held_get<G>(old, &h);
#pragma unroll
	for (int i = 0; i < G; i++)
		old[i] += acc[i];
	lk_give<VEC, G>(to, old, a->d - col);
}

/* What a block knows of its chunk; filled up to a multiple of UNROLL with keys of no table. */
struct chunk {
	int32_t key[CHUNK], row[CHUNK];
	int32_t left, right; /* keys beside it, -1 at the ends */
};

/* How many keys there are, those filled up counted. */
__device__ static inline int read_chunk(struct chunk *c, const struct embed_sums *a, int64_t lo)
{
	int64_t hi = lo + a->chunk < a->n ? lo + a->chunk : a->n;
	int count = (static_cast<int>(hi - lo) + UNROLL - 1) / UNROLL * UNROLL;

	for (int i = static_cast<int>(threadIdx.x); i < count; i += THREADS) {
		c->key[i] = lo + i < hi ? a->keys[lo + i] : INT32_MAX;
		c->row[i] = lo + i < hi ? a->perm[lo + i] : 0;
	}
	if (threadIdx.x == 0) {
		c->left = lo > 0 ? a->keys[lo - 1] : -1;
		c->right = hi < a->n ? a->keys[hi] : -1;
	}
	return count;
}

template <bool VEC, typename T>
static __global__ void __launch_bounds__(THREADS) sum_kernel(struct embed_sums a, struct lk_rows<const T> dy)
{
	enum { G = lk_width<T>::SIZE };
	__shared__ struct chunk c;
	int64_t number = blockIdx.x / a.wide; // of the chunk
	int64_t col = G * (static_cast<int64_t>(blockIdx.x % a.wide) * THREADS + threadIdx.x);
	float acc[G] = {};
	int count = read_chunk(&c, &a, number * a.chunk);
	int32_t run;
	bool from_left;

	__syncthreads();
	if (col >= a.d)
		return;
	run = c.key[0];
	from_left = run == c.left;
	for (int j = 0; j < count; j += UNROLL) {
		struct lk_held<T, G> h[UNROLL];
		int32_t key[UNROLL];

#pragma unroll
		for (int u = 0; u < UNROLL; u++) {
			key[u] = c.key[j + u];
			lk_hold<VEC>(&h[u], dy.p + c.row[j + u] * dy.step + col, key[u] < a.rows ? a.d - col : 0);
		}
#pragma unroll
		for (int u = 0; u < UNROLL; u++) {
			float x[G];

			if (key[u] >= a.rows)
				continue;
			if (key[u] != run) {
				flush<VEC, G>(&a, run, acc, col, number, from_left, false);
				run = key[u];
				from_left = false;
#pragma unroll
				for (int i = 0; i < G; i++)
					acc[i] = 0;
			}
			lk_held_get<G>(x, &h[u]);
#pragma unroll
			for (int i = 0; i < G; i++)
				acc[i] += x[i];
		}
	}
	flush<VEC, G>(&a, run, acc, col, number, from_left, run == c.right);
}

/* The last chunk that the run of `key`, which leaves chunk c, reaches. */
__device__ static inline int64_t last_chunk(const struct embed_sums *a, int64_t c, int32_t key)
{
	int64_t lo = c + 1, hi = (a->n - 1) / a->chunk; // lo holds some of it

	while (lo < hi) {
		int64_t mid = (lo + hi + 1) / 2;

		if (a->keys[mid * a->chunk] == key)
			lo = mid;
		else
			hi = mid - 1;
	}
	return lo;
}

static __global__ void __launch_bounds__(THREADS) join_kernel(struct embed_sums a, int wide)
{
	int64_t c = blockIdx.x / wide, lo = c * a.chunk, hi = lo + a.chunk, last;
	int64_t col = static_cast<int64_t>(blockIdx.x % wide) * THREADS + threadIdx.x;
	int32_t key;
	float sum;

	if (hi >= a.n || col >= a.d)
		return;
	key = a.keys[hi - 1];
	if (key >= a.rows || a.keys[hi] != key || (lo > 0 && a.keys[lo - 1] == key))
		return; // nothing leaves on the right, or it began further left
	last = last_chunk(&a, c, key);
	sum = a.part[(2 * c + 1) * a.d + col];
#pragma unroll 8
	for (int64_t i = c + 1; i <= last; i++)
		sum += a.part[2 * i * a.d + col];
	a.table.p[key * a.table.step + col] += sum;
}

/* Length of a chunk: a matter of n alone, since it decides the order of the sums. */
static int64_t chunk_for(int64_t n)
{
	int64_t c = lk_ceil_div(lk_ceil_div(n, 2048), 64) * 64;

	return c < CHUNK ? c : 0 + CHUNK;
}

template <typename T>
static int sum_rows_of(struct lk_dev *dev, struct embed_sums *a, const struct lk_view *dy, const int32_t *ids, int32_t first,
		       bool vec)
{
	int64_t chunks = lk_ceil_div(a->n, a->chunk);
	size_t sort = lk_sort_bytes(a->n), parts = static_cast<size_t>(2 * chunks * a->d) * sizeof(float);
	struct lk_rows<const T> rows = { static_cast<const T *>(dy->data), dy->stride[0] };
	char *work = static_cast<char *>(lk_scratch(dev, "embed_bwd", sort + parts));
	int wide = static_cast<int>(lk_ceil_div(a->d, THREADS));
	auto k = vec ? sum_kernel<true, T> : sum_kernel<false, T>;

	if (!work)
		return LK_ENOMEM;
	a->part = reinterpret_cast<float *>(work + sort);
	a->wide = static_cast<int>(lk_ceil_div(a->d, THREADS * lk_width<T>::SIZE));
	lk_sort_ids(dev, work, ids, a->n, first, a->rows, &a->keys, &a->perm);
	LK_LAUNCH(k, static_cast<unsigned>(chunks * a->wide), THREADS, 0, lk_stream(dev), *a, rows);
	LK_LAUNCH(join_kernel, static_cast<unsigned>(chunks * wide), THREADS, 0, lk_stream(dev), *a, wide);
	return lk_launched(dev, "embed_bwd");
}

int lk_cuda_embed_bwd(struct lk_dev *dev, const struct lk_view *dtable, const int32_t *ids, const struct lk_view *dy,
		      int32_t first)
{
	struct embed_sums a = {};
	bool vec;

	if (dy->n[0] >= INT32_MAX)
		return lk_cuda_fail(dev, LK_EUNSUP, "embed_bwd: %" PRId64 " tokens are beyond what cuda takes", dy->n[0]);
	if (!dtable->n[0])
		return 0;
	a.table = lk_rows_of<float>(dtable);
	a.n = dy->n[0];
	a.d = dy->n[1];
	a.rows = dtable->n[0];
	a.chunk = chunk_for(a.n);
	vec = lk_vec_rows(dy) && lk_vec_rows(dtable);
	return dy->dtype == LK_BF16 ? sum_rows_of<lk_bf16>(dev, &a, dy, ids, first, vec)
				    : sum_rows_of<float>(dev, &a, dy, ids, first, vec);
}
