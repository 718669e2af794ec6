/* attn_sm90_bwd.cu - attention backward on Hopper, in the manner of FlashAttention-3 (Shah et al. 2024).
 *
 * A block owns an SM and takes items, (tile of 128 keys, key head), one after the other from a counter. For its keys it goes
 * through the query heads of the group and the tiles of 64 queries that see them:
 *	S^T = K Q^T, dP^T = V dO^T           (64 keys of a warpgroup x 64 queries, accumulators)
 *	P^T = 2^(S^T - lse), dS^T = P^T (dP^T - delta)
 *	dV += P^T dO, dK += dS^T Q           (P^T, dS^T from registers)
 *	dQ = dS K                            (dS^T of both warpgroups through shared memory; each takes a part of the columns)
 * Warpgroup 0: warp 0 loads, warp 1 adds tiles of dQ to memory. dK and dV stay in registers until the item is done.
 *
 * dQ gets a sum from each tile of keys. They are added in the order of the tiles: a flag for each (tile of queries, head) counts
 * those that have added, and each waits for its rank. Items are handed out in the same order, so whoever is waited for runs
 * already. With the device's `fast` nobody waits, and dQ's last bits may differ from run to run.
 *
 * Shared memory: keys | values | STAGES x queries | STAGES x dO | 2 x dS^T (keys x queries, the columns of one block) | dQ in
 * blocks of 32 fp32 columns | STAGES x (lse | delta) | positions and segments of masked queries, one per warpgroup |
 * barriers | item.
 */
#include "kernels/cuda/attn_sm90.h"

namespace {

enum { WGS = 2, BQ = 64, BK = 64 * WGS, THREADS = 128 * (WGS + 1), WARPS = 4 * WGS, STAGES = 2 };
/* A block starts with 168 registers a thread, and setmaxnreg waits for ever when the two ask for more than that. */
enum { LOAD_REGS = 40, MATH_REGS = 232 };
static_assert(128 * LOAD_REGS + 128 * WGS * MATH_REGS <= 168 * THREADS, "registers");
enum { BAR_DS = 1, BAR_QUERIES = 2 }; /* dS^T is written (both warpgroups); inside warpgroup w: 2 + w */

template <int D> struct geo {
	static constexpr int W = D == 128 ? 64 : 32;
	/* columns of dQ: the first warpgroup's, the second's; whole blocks of W */
	static constexpr int COLS0 = D == 96 ? 64 : D / 2, COLS1 = D - COLS0;
	typedef lk_tile90<BQ, D, W> Q;
	typedef lk_tile90<BK, D, W> K;
	typedef lk_tile90<BK, BQ, 64> S;
	static constexpr int DQ_BLOCK = BQ * 128; /* 32 columns of fp32 */
	static constexpr int V_AT = K::BYTES, Q_AT = 2 * K::BYTES, DO_AT = Q_AT + STAGES * Q::BYTES;
	static constexpr int DS_AT = DO_AT + STAGES * Q::BYTES, DQ_AT = DS_AT + 2 * S::BYTES;
	static constexpr int STATS_AT = DQ_AT + D / 32 * DQ_BLOCK, QUERIES_AT = STATS_AT + STAGES * BQ * 8;
	static constexpr int BARS_AT = QUERIES_AT + WGS * BQ * 8;
	static constexpr int BARS = 6 + 4 * STAGES, BYTES = BARS_AT + BARS * 8 + 16;
};

/* Where things lie in shared memory. */
template <int D> struct smem {
	typedef geo<D> G;
	unsigned char *base;
	uint64_t *item_full, *item_empty, *kv_full, *kv_empty, *dq_full, *dq_empty, *q_full, *q_empty, *do_full, *do_empty;
	int *item;

	__device__ explicit smem(unsigned char *p) : base(p)
	{
		item_full = reinterpret_cast<uint64_t *>(p + G::BARS_AT);
		item_empty = item_full + 1;
		kv_full = item_full + 2;
		kv_empty = item_full + 3;
		dq_full = item_full + 4;
		dq_empty = item_full + 5;
		q_full = item_full + 6;
		q_empty = q_full + STAGES;
		do_full = q_empty + STAGES;
		do_empty = do_full + STAGES;
		item = reinterpret_cast<int *>(item_full + G::BARS);
	}
	__device__ unsigned char *q(int stage) const
	{
		return base + G::Q_AT + stage * G::Q::BYTES;
	}
	__device__ unsigned char *dout(int stage) const
	{
		return base + G::DO_AT + stage * G::Q::BYTES;
	}
};

struct maps {
	CUtensorMap q, k, v, dout, dq;
};

/* The launch: schedules of both kinds, and scratch. */
struct work {
	struct lk_attn_sched by_key, by_query;
	int items, fast;
	float *stats;       /* (heads, tiles of queries, 2, BQ): lse log2(e), +inf where nothing is seen or no query is; delta */
	int *flags;         /* (heads, tiles of queries) */
	int *counter;
};

/* ---- before: lse and delta as the blocks want them ---- */

__global__ void attn_bwd_prepare(const __grid_constant__ struct lk_attn_job j, const __grid_constant__ struct work w)
{
	int64_t tiles = w.by_query.tiles, i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
	int64_t t = i % (tiles * BQ), h = i / (tiles * BQ);
	float lse = INFINITY, delta = 0;

	if (h >= j.h)
		return;
	if (t < j.tq) {
		lse = j.lse_in[t * j.h + h];
		lse = lse == -INFINITY ? INFINITY : lse * LK_LOG2E;
		delta = j.delta[t * j.h + h];
	}
	w.stats[i / BQ * (2 * BQ) + i % BQ] = lse;
	w.stats[i / BQ * (2 * BQ) + BQ + i % BQ] = delta;
	if (i % BQ == 0)
		w.flags[i / BQ] = 0;
	if (i == 0)
		*w.counter = 0;
}

/* ---- items ---- */

/* One thread hands the next item to the warps of the block. */
template <int D> __device__ static inline int item_give(const smem<D> &m, const struct work &w, int round)
{
	int i = atomicAdd(w.counter, 1);

	lk_mbar_wait(m.item_empty, (round & 1) ^ 1);
	*m.item = i;
	lk_mbar_arrive(m.item_full);
	return i;
}

/* A whole warp. */
template <int D> __device__ static inline int item_take(const smem<D> &m, int round)
{
	int i;

	lk_mbar_wait(m.item_full, round & 1);
	i = lk_uniform(*m.item);
	lk_warp_arrive(m.item_empty);
	return i;
}

/* ---- warp 0 of warpgroup 0: one thread loads ---- */

template <int D>
__device__ static inline void load_queries(const smem<D> &m, const struct maps &map, const struct work &w, int head, int tile,
					   struct lk_ring90 *ring)
{
	typedef geo<D> G;
	const float *stats = w.stats + (static_cast<int64_t>(head) * w.by_query.tiles + tile) * (2 * BQ);

	lk_mbar_wait(m.q_empty + ring->stage, ring->parity ^ 1);
	lk_tile_load<typename G::Q>(m.q(ring->stage), &map.q, m.q_full + ring->stage, head, tile * BQ, BQ * 8);
	lk_bulk_load(m.base + G::STATS_AT + ring->stage * BQ * 8, stats, BQ * 8, m.q_full + ring->stage);
	lk_mbar_wait(m.do_empty + ring->stage, ring->parity ^ 1);
	lk_tile_load<typename G::Q>(m.dout(ring->stage), &map.dout, m.do_full + ring->stage, head, tile * BQ, 0);
	lk_ring_next<STAGES>(ring);
}

template <int D>
__device__ static void load_items(const smem<D> &m, const struct maps &map, const struct lk_attn_job &j, const struct work &w)
{
	typedef geo<D> G;
	struct lk_ring90 ring = { 0, 0 };
	int kv_parity = 0;

	for (int round = 0;; round++) {
		int i = item_give(m, w, round), tile = i / j.hkv, kv_head = i % j.hkv;
		struct lk_walk walk;

		if (i >= w.items)
			return;
		lk_walk_begin(&walk, &w.by_key, tile);
		if (walk.tile < 0)
			continue;
		lk_mbar_wait(m.kv_empty, kv_parity ^ 1);
		kv_parity ^= 1;
		lk_tile_load<typename G::K>(m.base, &map.k, m.kv_full, kv_head, tile * BK, 0);
		lk_tile_load<typename G::K>(m.base + G::V_AT, &map.v, m.kv_full, kv_head, tile * BK, 0);
		for (int g = 0; g < j.group; g++)
			for (lk_walk_begin(&walk, &w.by_key, tile); walk.tile >= 0; lk_walk_next(&walk))
				load_queries(m, map, w, kv_head * j.group + g, walk.tile, &ring);
	}
}

/* ---- warp 1 of warpgroup 0: one lane adds dQ ---- */

/* How many tiles of keys before this one meet the tile of queries. */
__device__ static inline int rank_of(const struct lk_attn_sched &s, int query_tile, int key_tile)
{
	int rank = 0;

	for (int r = s.start[query_tile]; r < s.start[query_tile + 1] && s.runs[r].first < key_tile; r++)
		rank += (s.runs[r].end < key_tile ? s.runs[r].end : key_tile) - s.runs[r].first;
	return rank;
}

/* The tile of dQ in shared memory goes to memory; `before` others have been added when its turn comes. */
template <int D>
__device__ static inline void add_tile(const smem<D> &m, const struct maps &map, const struct work &w, int head, int tile,
				       int before, int parity)
{
	typedef geo<D> G;
	int *flag = w.flags + static_cast<int64_t>(head) * w.by_query.tiles + tile;

	lk_mbar_wait(m.dq_full, parity);
	if (!w.fast)
		lk_flag_wait(flag, before);
	lk_fence_async_all(); // what others added comes before what this thread starts now
	for (int b = 0; b < D / 32; b++)
		lk_tma_add3(&map.dq, m.base + G::DQ_AT + b * G::DQ_BLOCK, 32 * b, head, tile * BQ);
	lk_bulk_commit();
	lk_bulk_wait_read();
	lk_mbar_arrive(m.dq_empty);
	if (w.fast)
		return;
	lk_bulk_wait();
	lk_fence_async_all();
	lk_flag_post(flag, before + 1);
}

template <int D>
__device__ static void add_items(const smem<D> &m, const struct maps &map, const struct lk_attn_job &j, const struct work &w)
{
	int parity = 0;

	for (int round = 0;; round++) {
		int i = item_take(m, round), tile = i / j.hkv, kv_head = i % j.hkv;
		struct lk_walk walk;

		if (i >= w.items)
			break;
		for (int g = 0; g < j.group && threadIdx.x % 32 == 0; g++)
			for (lk_walk_begin(&walk, &w.by_key, tile); walk.tile >= 0; lk_walk_next(&walk)) {
				add_tile(m, map, w, kv_head * j.group + g, walk.tile, rank_of(w.by_query, walk.tile, tile),
					 parity);
				parity ^= 1;
			}
		__syncwarp();
	}
	lk_bulk_wait();
}

/* ---- warpgroups 1 and 2: 64 keys each ---- */

/* The two keys of this thread: rows g and g + 8 of its warp's 16. */
struct keys {
	int64_t t[2];
	int pos[2], seg[2];
};

__device__ static inline void keys_begin(struct keys &k, const struct lk_attn_job &j, int tile, int wg)
{
	for (int h = 0; h < 2; h++) {
		k.t[h] = static_cast<int64_t>(tile) * BK + 64 * wg + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + 8 * h;
		k.pos[h] = lk_k_pos(&j, k.t[h]);
		k.seg[h] = lk_k_seg(&j, k.t[h]);
	}
}

/* -inf where the query (column) does not see the key (row). room: for the tile's positions and segments, of this warpgroup. */
__device__ static __forceinline__ void mask(float (&s)[BQ / 2], const struct keys &k, const struct lk_attn_job &j, int64_t q0,
					    int2 *room, int wg)
{
	int t = threadIdx.x % 128, c = threadIdx.x % 4;

	lk_bar_sync(BAR_QUERIES + wg, 128); // the last tile's have been read
	if (t < BQ)
		room[t] = make_int2(lk_q_pos(&j, q0 + t), lk_q_seg(&j, q0 + t));
	lk_bar_sync(BAR_QUERIES + wg, 128);
#pragma unroll
	for (int i = 0; i < BQ / 8; i++) {
		const int4 two = *reinterpret_cast<const int4 *>(room + 8 * i + 2 * c);

#pragma unroll
		for (int h = 0; h < 2; h++) {
			if (k.pos[h] > two.x || k.seg[h] != two.y)
				s[4 * i + 2 * h] = -INFINITY;
			if (k.pos[h] > two.z || k.seg[h] != two.w)
				s[4 * i + 2 * h + 1] = -INFINITY;
		}
	}
}

/* Scores to weights; lse of the columns. */
__device__ static __forceinline__ void weigh(float (&s)[BQ / 2], const float *lse, float scale)
{
#pragma unroll
	for (int i = 0; i < BQ / 8; i++) {
		const float2 l = *reinterpret_cast<const float2 *>(lse + 8 * i + 2 * (threadIdx.x % 4));

#pragma unroll
		for (int h = 0; h < 2; h++) {
			s[4 * i + 2 * h] = lk_exp2(fmaf(s[4 * i + 2 * h], scale, -l.x));
			s[4 * i + 2 * h + 1] = lk_exp2(fmaf(s[4 * i + 2 * h + 1], scale, -l.y));
		}
	}
}

/* s = s (dp - delta) */
__device__ static __forceinline__ void differentiate(float (&s)[BQ / 2], const float (&dp)[BQ / 2], const float *delta)
{
#pragma unroll
	for (int i = 0; i < BQ / 8; i++) {
		const float2 d = *reinterpret_cast<const float2 *>(delta + 8 * i + 2 * (threadIdx.x % 4));

#pragma unroll
		for (int h = 0; h < 2; h++) {
			s[4 * i + 2 * h] *= dp[4 * i + 2 * h] - d.x;
			s[4 * i + 2 * h + 1] *= dp[4 * i + 2 * h + 1] - d.y;
		}
	}
}

/* This warpgroup's 64 keys of dS^T, as the accumulators lie, into the swizzled tile. */
__device__ static __forceinline__ void put_ds(unsigned char *ds, const uint32_t (&a)[BQ / 4], int wg)
{
	int l = threadIdx.x % 32, row = 64 * wg + threadIdx.x % 128 / 32 * 16 + l % 16;

#pragma unroll
	for (int kk = 0; kk < BQ / 16; kk++)
		lk_stmatrix4(ds + row * 128 + ((2 * kk + l / 16) ^ (row & 7)) * 16, a + 4 * kk);
}

/* dQ's columns from `first` on, of a warpgroup: COLS of them, all 64 queries, into the blocks that TMA adds. */
template <int COLS>
__device__ static __forceinline__ void put_dq(unsigned char *dq, const float (&x)[COLS / 2], int first, float scale)
{
	int l = threadIdx.x % 32, c = l % 4, row = threadIdx.x % 128 / 32 * 16 + l / 4;

#pragma unroll
	for (int i = 0; i < COLS / 8; i++)
#pragma unroll
		for (int h = 0; h < 2; h++) {
			int r = row + 8 * h, chunk = (2 * (i % 4) + c / 2) ^ (r & 7);
			unsigned char *p = dq + (first / 32 + i / 4) * (BQ * 128) + r * 128 + chunk * 16 + c % 2 * 8;

			*reinterpret_cast<float2 *>(p) =
				make_float2(x[4 * i + 2 * h] * scale, x[4 * i + 2 * h + 1] * scale);
		}
}

/* dQ (64 x COLS) = dS K, begun here; summed over all keys of the tile. */
template <int D, int COLS>
__device__ static __forceinline__ void begin_dq(float (&x)[COLS / 2], const unsigned char *ds, const unsigned char *k, int first)
{
	typedef geo<D> G;
	uint64_t a = lk_desc_mn<typename G::S>(ds), b = lk_desc_mn<typename G::K>(k + first / G::W * G::K::BLOCK);

#pragma unroll
	for (int kk = 0; kk < BK / 16; kk++)
		lk_gmma_ss<1, 1>(x, a + lk_step_mn<typename G::S>(kk), b + lk_step_mn<typename G::K>(kk), kk > 0);
}

/* What goes from one tile of queries to the next. */
template <int D> struct sums {
	float dk[D / 2], dv[D / 2];
	struct lk_ring90 ring;
	int round; /* tiles of queries so far */
};

/* dS^T is in shared memory: dQ and the rest of dK, then everything is handed back. COLS columns of dQ are this warpgroup's. */
template <int D, int COLS>
__device__ static __forceinline__ void finish_tile(const smem<D> &m, struct sums<D> &x, const uint32_t (&ds)[BQ / 4], int first,
						   float scale)
{
	typedef geo<D> G;
	int stage = x.ring.stage;
	float dq[COLS / 2];

	lk_gmma_fence();
	begin_dq<D, COLS>(dq, m.base + G::DS_AT + (x.round & 1) * G::S::BYTES, m.base, first);
	lk_gmma_commit();
	lk_mul_rn<typename G::Q>(x.dk, ds, m.q(stage));
	lk_gmma_commit();
	lk_gmma_wait<2>();
	lk_gmma_hold(x.dv);
	lk_warp_arrive(m.do_empty + stage);
	lk_mbar_wait(m.dq_empty, (x.round & 1) ^ 1);
	lk_gmma_wait<1>();
	lk_gmma_hold(dq);
	put_dq<COLS>(m.base + G::DQ_AT, dq, first, scale);
	lk_fence_async();
	lk_warp_arrive(m.dq_full);
	lk_gmma_wait<0>();
	lk_gmma_hold(x.dk);
	lk_warp_arrive(m.q_empty + stage);
}

template <int D>
__device__ static __forceinline__ void do_tile(const smem<D> &m, struct sums<D> &x, const struct keys &k,
					       const struct lk_attn_job &j, int tile, int masked, int wg)
{
	typedef geo<D> G;
	const unsigned char *own_k = m.base + 64 * wg * G::K::ROW_BYTES, *own_v = own_k + G::V_AT;
	int stage = x.ring.stage;
	const float *stats = reinterpret_cast<const float *>(m.base + G::STATS_AT) + stage * (2 * BQ);
	float s[BQ / 2], dp[BQ / 2];
	uint32_t p[BQ / 4], ds[BQ / 4];

	lk_mbar_wait(m.q_full + stage, x.ring.parity);
	lk_gmma_fence();
	lk_mul_nt<typename G::K, typename G::Q>(s, own_k, m.q(stage));
	lk_gmma_commit();
	lk_mbar_wait(m.do_full + stage, x.ring.parity);
	lk_gmma_fence();
	lk_mul_nt<typename G::K, typename G::Q>(dp, own_v, m.dout(stage));
	lk_gmma_commit();
	lk_gmma_wait<1>();
	lk_gmma_hold(s);
	if (masked)
		mask(s, k, j, static_cast<int64_t>(tile) * BQ, reinterpret_cast<int2 *>(m.base + G::QUERIES_AT) + wg * BQ, wg);
	weigh(s, stats, j.scale_log2);
	lk_pack_a(p, s);
	lk_gmma_hold(s);
	lk_mbar_wait(m.do_full + stage, x.ring.parity); // over long ago, see lk_gmma_hold
	lk_gmma_wait<0>();
	lk_gmma_hold(dp);
	differentiate(s, dp, stats + BQ);
	lk_pack_a(ds, s);
	lk_gmma_hold(p);
	lk_gmma_hold(ds);
	lk_gmma_fence();
	lk_mul_rn<typename G::Q>(x.dv, p, m.dout(stage));
	lk_gmma_commit();
	put_ds(m.base + G::DS_AT + (x.round & 1) * G::S::BYTES, ds, wg);
	lk_fence_async();
	lk_bar_sync(BAR_DS, 256);
	if (G::COLS0 == G::COLS1 || wg == 0)
		finish_tile<D, G::COLS0>(m, x, ds, wg * G::COLS0, j.scale);
	else
		finish_tile<D, G::COLS1>(m, x, ds, G::COLS0, j.scale);
	x.round++;
	lk_ring_next<STAGES>(&x.ring);
}

/* Adds a row of sums to memory. y: the key's row. */
template <int R> __device__ static __forceinline__ void add_row(float *y, const float (&x)[R], int h, float scale)
{
#pragma unroll
	for (int i = 0; i < R / 4; i++) {
		float2 *p = reinterpret_cast<float2 *>(y + 8 * i + 2 * (threadIdx.x % 4)), old = *p;

		*p = make_float2(fmaf(x[4 * i + 2 * h], scale, old.x), fmaf(x[4 * i + 2 * h + 1], scale, old.y));
	}
}

template <int D>
__device__ static __forceinline__ void math_items(const smem<D> &m, const struct lk_attn_job &j, const struct work &w, int wg)
{
	struct sums<D> x;
	int kv_parity = 0;

	x.ring.stage = x.ring.parity = x.round = 0;
	for (int round = 0;; round++) {
		int i = item_take(m, round), tile = i / j.hkv, kv_head = i % j.hkv;
		struct lk_walk walk;
		struct keys k;

		if (i >= w.items)
			break;
		lk_walk_begin(&walk, &w.by_key, tile);
		lk_walk_uniform(&walk);
		if (walk.tile < 0)
			continue;
		keys_begin(k, j, tile, wg);
#pragma unroll
		for (int e = 0; e < D / 2; e++)
			x.dk[e] = x.dv[e] = 0;
		lk_mbar_wait(m.kv_full, kv_parity);
		kv_parity ^= 1;
		for (int g = 0; g < j.group; g++) {
			lk_walk_begin(&walk, &w.by_key, tile);
			lk_walk_uniform(&walk);
			while (walk.tile >= 0) {
				do_tile<D>(m, x, k, j, walk.tile, walk.mask, wg);
				lk_walk_next(&walk);
				lk_walk_uniform(&walk);
			}
		}
		lk_warp_arrive(m.kv_empty);
		for (int h = 0; h < 2; h++) {
			if (k.t[h] >= j.tk)
				continue;
			add_row(j.dk + k.t[h] * j.dk_t + kv_head * j.dk_h, x.dk, h, j.scale);
			add_row(j.dv + k.t[h] * j.dv_t + kv_head * j.dv_h, x.dv, h, 1);
		}
	}
}

template <int D> __device__ static inline void init_barriers(const smem<D> &m)
{
	lk_mbar_init(m.item_full, 1);
	lk_mbar_init(m.item_empty, WARPS + 1);
	lk_mbar_init(m.kv_full, 2);
	lk_mbar_init(m.kv_empty, WARPS);
	lk_mbar_init(m.dq_full, WARPS);
	lk_mbar_init(m.dq_empty, 1);
	for (int i = 0; i < STAGES; i++) {
		lk_mbar_init(m.q_full + i, 1);
		lk_mbar_init(m.do_full + i, 1);
		lk_mbar_init(m.q_empty + i, WARPS);
		lk_mbar_init(m.do_empty + i, WARPS);
	}
	lk_mbar_init_fence();
}

template <int D>
__global__ void __launch_bounds__(THREADS, 1)
attn_bwd_sm90(const __grid_constant__ struct maps map, const __grid_constant__ struct lk_attn_job j,
	      const __grid_constant__ struct work w)
{
	LK_SMEM(unsigned char, base);
	smem<D> m(base);
	int warp = lk_uniform(static_cast<int>(threadIdx.x) / 32);

	if (threadIdx.x == 0)
		init_barriers(m);
	__syncthreads();
	if (warp < 4) {
		lk_regs_dec<LOAD_REGS>();
		if (threadIdx.x == 0)
			load_items<D>(m, map, j, w);
		else if (warp == 1)
			add_items<D>(m, map, j, w);
	} else {
		lk_regs_inc<MATH_REGS>();
		math_items<D>(m, j, w, warp / 4 - 1);
	}
}

/* ---- host ---- */

int make_maps(struct lk_dev *dev, struct maps *map, const struct lk_attn_job *j, int width, int swizzle)
{
	const struct lk_map_spec q = { j->q, 0, j->tq, j->q_t, j->q_h, j->h, j->d, width, BQ, swizzle };
	const struct lk_map_spec k = { j->k, 0, j->tk, j->k_t, j->k_h, j->hkv, j->d, width, BK, swizzle };
	const struct lk_map_spec v = { j->v, 0, j->tk, j->v_t, j->v_h, j->hkv, j->d, width, BK, swizzle };
	const struct lk_map_spec dout = { j->dout, 0, j->tq, j->do_t, j->do_h, j->h, j->d, width, BQ, swizzle };
	const struct lk_map_spec dq = { j->dq, 1, j->tq, j->dq_t, j->dq_h, j->h, j->d, 32, BQ, CU_TENSOR_MAP_SWIZZLE_128B };
	int rc = lk_map_make(dev, &map->q, &q);

	if (!rc)
		rc = lk_map_make(dev, &map->k, &k);
	if (!rc)
		rc = lk_map_make(dev, &map->v, &v);
	if (!rc)
		rc = lk_map_make(dev, &map->dout, &dout);
	return rc ? rc : lk_map_make(dev, &map->dq, &dq);
}

/* Schedules and scratch; queues the kernel that fills the latter. */
int prepare(struct lk_dev *dev, const struct lk_attn_job *j, struct work *w)
{
	int rc = lk_attn_sched_get(dev, j, BQ, BK, 1, &w->by_key);
	int64_t rows, tiles;

	if (!rc)
		rc = lk_attn_sched_get(dev, j, BQ, BK, 0, &w->by_query);
	if (rc)
		return rc;
	if (w->by_key.joined || w->by_query.joined)
		return LK_EUNSUP; // the two may not list the same pairs, and then ranks are wrong
	tiles = static_cast<int64_t>(w->by_query.tiles) * j->h;
	rows = tiles * BQ;
	w->stats = static_cast<float *>(lk_scratch(dev, "attention", static_cast<size_t>(2 * rows + tiles + 4) * 4));
	if (!w->stats)
		return LK_ENOMEM;
	w->flags = reinterpret_cast<int *>(w->stats + 2 * rows);
	w->counter = w->flags + tiles;
	w->items = w->by_key.tiles * j->hkv;
	w->fast = lk_cu(dev)->fast;
	LK_LAUNCH(attn_bwd_prepare, static_cast<unsigned>(lk_ceil_div(rows, 256)), 256, 0, lk_stream(dev), *j, *w);
	return lk_launched(dev, "attention");
}

template <int D> int run(struct lk_dev *dev, const struct lk_attn_job *j)
{
	typedef geo<D> G;
	struct maps map;
	struct work w;
	auto kernel = attn_bwd_sm90<D>;
	int rc = make_maps(dev, &map, j, G::W, G::Q::MAP_SWIZZLE);

	if (!rc)
		rc = prepare(dev, j, &w);
	if (!rc)
		rc = lk_cuda_check(dev, "attention", cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
									   G::BYTES));
	if (rc)
		return rc;
	LK_LAUNCH(kernel, w.items < lk_cu(dev)->sms ? w.items : lk_cu(dev)->sms, THREADS, G::BYTES, lk_stream(dev), map, *j, w);
	return lk_launched(dev, "attention");
}

} // namespace

int lk_attn_sm90_bwd(struct lk_dev *dev, const struct lk_attn_job *j)
{
	if (lk_cu(dev)->cc != 90 || !lk_sm90_fits(j) || !j->vec_grad || j->dq_t < 0 || j->dq_h < 0 || j->do_t < 0 || j->do_h < 0)
		return LK_EUNSUP;
	return j->d == 128 ? run<128>(dev, j) : j->d == 96 ? run<96>(dev, j) : run<64>(dev, j);
}
