/* attn_sm90_fwd.cu - attention forward on Hopper: TMA loads, wgmma products, warpgroups with different work, in the manner of
 * FlashAttention-3 (Shah et al. 2024).
 *
 * A block owns an SM and works through items, (tile of 128 queries, head) each. Warpgroup 0 loads: one thread of it walks the
 * schedule and keeps the rings of key and value tiles filled. Warpgroups 1 and 2 hold 64 queries each: scores by wgmma out
 * of shared memory, softmax in registers, the weights go into the second product as registers. While the tensor cores do the
 * scores of the next tile and the output of this one, the other warpgroup does its softmax: they take turns at the tensor
 * cores by two named barriers. Each output is made by one block in the order of the schedule: same bits at every run.
 *
 * Shared memory: queries | STAGES x keys | STAGES x values | positions and segments of a masked tile of keys, one per
 * warpgroup | barriers.
 */
#include "kernels/cuda/attn_sm90.h"

namespace {

enum { WGS = 2, BQ = 64 * WGS, BK = 128, THREADS = 128 * (WGS + 1), WARPS = 4 * WGS };
/* A block starts with 168 registers a thread, and setmaxnreg waits for ever when the two ask for more than that. */
enum { LOAD_REGS = 24, MATH_REGS = 240 };
static_assert(128 * LOAD_REGS + 128 * WGS * MATH_REGS <= 168 * THREADS, "registers");
/* named barriers: turn of warpgroup w (1, 2), inside warpgroup w (3, 4) */
enum { BAR_TURN = 1, BAR_KEYS = BAR_TURN + WGS };

template <int D> struct geo {
	static constexpr int W = D % 64 ? 32 : 64;
	static constexpr int STAGES = D == 64 ? 4 : D == 96 ? 3 : 2;
	typedef lk_tile90<BQ, D, W> Q;
	typedef lk_tile90<BK, D, W> K;
	static constexpr int K_AT = Q::BYTES, V_AT = K_AT + STAGES * K::BYTES, KEYS_AT = V_AT + STAGES * K::BYTES;
	static constexpr int BARS_AT = KEYS_AT + WGS * BK * 8, BYTES = BARS_AT + (2 + 4 * STAGES) * 8;
};

template <int D> struct smem {
	unsigned char *base;
	uint64_t *q_full, *q_empty, *k_full, *k_empty, *v_full, *v_empty;

	typedef geo<D> G;
	__device__ explicit smem(unsigned char *p) : base(p)
	{
		q_full = reinterpret_cast<uint64_t *>(p + G::BARS_AT);
		q_empty = q_full + 1;
		k_full = q_full + 2;
		k_empty = k_full + G::STAGES;
		v_full = k_empty + G::STAGES;
		v_empty = v_full + G::STAGES;
	}
};

/* Which items a block does, and in which order. Heads come in sections whose keys and values fit the L2 cache; within one
 * the longest tiles come first, and every other section backwards, so that neighbours in the list cost about the same and
 * dealing them out back and forth gives every block the same load. */
struct deal {
	int items, heads; /* heads of a section */
	int sections;
};

struct item {
	int tile, head;
};

/* Round r of this block; tile -1: nothing in this round. */
__device__ static inline struct item deal_item(const struct deal &d, const struct lk_attn_sched &s, int r)
{
	int g = static_cast<int>(gridDim.x), b = static_cast<int>(blockIdx.x);
	int i = r * g + (r & 1 ? g - 1 - b : b), per = s.tiles * d.heads, section = i / per;
	struct item it = { -1, 0 };

	if (i >= d.items)
		return it;
	int in = i - section * per, rank = in / d.heads;

	it.head = section * d.heads + in - rank * d.heads;
	it.tile = s.order[(d.sections - section) & 1 ? rank : s.tiles - 1 - rank];
	return it;
}

__device__ static inline int deal_rounds(const struct deal &d)
{
	int g = static_cast<int>(gridDim.x);

	return (d.items + g - 1) / g;
}

struct maps {
	CUtensorMap q, k, v;
};

/* ---- the loading thread ---- */

template <int D>
__device__ static void load_items(const smem<D> &m, const struct maps &map, const struct lk_attn_job &j,
				  const struct lk_attn_sched &s, const struct deal &d)
{
	typedef geo<D> G;
	struct lk_ring90 ring = { 0, 0 };
	int q_parity = 0;

	for (int r = 0; r < deal_rounds(d); r++) {
		struct item it = deal_item(d, s, r);
		int kv_head = it.head / j.group;
		struct lk_walk w;

		if (it.tile < 0)
			continue;
		lk_walk_begin(&w, &s, it.tile);
		if (w.tile < 0)
			continue;
		lk_mbar_wait(m.q_empty, q_parity ^ 1);
		lk_tile_load<typename G::Q>(m.base, &map.q, m.q_full, it.head, it.tile * BQ, 0);
		q_parity ^= 1;
		for (; w.tile >= 0; lk_walk_next(&w), lk_ring_next<G::STAGES>(&ring)) {
			lk_mbar_wait(m.k_empty + ring.stage, ring.parity ^ 1);
			lk_tile_load<typename G::K>(m.base + G::K_AT + ring.stage * G::K::BYTES, &map.k,
						    m.k_full + ring.stage, kv_head, w.tile * BK, 0);
			lk_mbar_wait(m.v_empty + ring.stage, ring.parity ^ 1);
			lk_tile_load<typename G::K>(m.base + G::V_AT + ring.stage * G::K::BYTES, &map.v,
						    m.v_full + ring.stage, kv_head, w.tile * BK, 0);
		}
	}
}

/* ---- a warpgroup of 64 queries ---- */

/* Of the two rows of this thread, g and g + 8 of its warp's 16: token, maximum (times log2 e), this thread's part of the sum. */
struct rows {
	int64_t t[2];
	int pos[2], seg[2];
	float m[2], l[2];
};

/* -inf where the query does not see the key. keys: room for the tile's positions and segments, of this warpgroup. */
__device__ static __forceinline__ void mask(float (&s)[BK / 2], const struct rows &r, const struct lk_attn_job &j,
					    int64_t k0, int2 *keys, int wg)
{
	int t = threadIdx.x % 128, c = threadIdx.x % 4;

	static_assert(BK == 128, "one key for each thread");
	lk_bar_sync(BAR_KEYS + wg, 128); // the last tile's have been read
	keys[t] = make_int2(lk_k_pos(&j, k0 + t), lk_k_seg(&j, k0 + t));
	lk_bar_sync(BAR_KEYS + wg, 128);
#pragma unroll
	for (int i = 0; i < BK / 8; i++) {
		const int4 two = *reinterpret_cast<const int4 *>(keys + 8 * i + 2 * c);

#pragma unroll
		for (int h = 0; h < 2; h++) {
			if (two.x > r.pos[h] || two.y != r.seg[h])
				s[4 * i + 2 * h] = -INFINITY;
			if (two.z > r.pos[h] || two.w != r.seg[h])
				s[4 * i + 2 * h + 1] = -INFINITY;
		}
	}
}

/* Scores to weights relative to the new maximum; keep[h]: what the row's sum and output are to be multiplied with. */
__device__ static __forceinline__ void fold(float (&s)[BK / 2], struct rows &r, float (&keep)[2], float scale)
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		float top = -INFINITY, sum = 0, base;

#pragma unroll
		for (int i = 0; i < BK / 8; i++)
			top = fmaxf(top, fmaxf(s[4 * i + 2 * h], s[4 * i + 2 * h + 1]));
		top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
		top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
		top = fmaxf(r.m[h], top * scale);
		base = top == -INFINITY ? 0 : top; // a row that saw nothing yet: all weights become 2^-inf
		keep[h] = lk_exp2(r.m[h] - base);
		r.m[h] = top;
#pragma unroll
		for (int i = 0; i < BK / 8; i++) {
			s[4 * i + 2 * h] = lk_exp2(fmaf(s[4 * i + 2 * h], scale, -base));
			s[4 * i + 2 * h + 1] = lk_exp2(fmaf(s[4 * i + 2 * h + 1], scale, -base));
			sum += s[4 * i + 2 * h] + s[4 * i + 2 * h + 1];
		}
		r.l[h] = fmaf(r.l[h], keep[h], sum);
	}
}

template <int R> __device__ static __forceinline__ void rescale(float (&o)[R], const float (&keep)[2])
{
#pragma unroll
	for (int i = 0; i < R / 4; i++) {
		o[4 * i] *= keep[0];
		o[4 * i + 1] *= keep[0];
		o[4 * i + 2] *= keep[1];
		o[4 * i + 3] *= keep[1];
	}
}

/* Fresh rows, or the carried ones. The carried sum goes to one of the four threads of a row. */
template <int R>
__device__ static __forceinline__ void rows_begin(struct rows &r, float (&o)[R], const struct lk_attn_job &j, struct item it,
						  int wg)
{
	int lane = threadIdx.x % 32, c = lane % 4;

#pragma unroll
	for (int h = 0; h < 2; h++) {
		int64_t t = static_cast<int64_t>(it.tile) * BQ + 64 * wg + threadIdx.x % 128 / 32 * 16 + lane / 4 + 8 * h;
		int64_t at = t * j.h + it.head;
		bool carried = j.m && t < j.tq;

		r.t[h] = t;
		r.pos[h] = lk_q_pos(&j, t);
		r.seg[h] = lk_q_seg(&j, t);
		r.m[h] = carried ? j.m[at] * LK_LOG2E : -INFINITY;
		r.l[h] = carried && c == 0 ? j.l[at] : 0;
#pragma unroll
		for (int i = 0; i < R / 4; i++) {
			float2 x = make_float2(0, 0);

			if (carried)
				x = *reinterpret_cast<const float2 *>(j.acc + at * (2 * R) + 8 * i + 2 * c);
			o[4 * i + 2 * h] = x.x;
			o[4 * i + 2 * h + 1] = x.y;
		}
	}
}

/* Row h back into the carried state, whose maximum was `old`. It is kept in natural logarithms: what rounding takes from it
 * goes into l and acc. */
template <int R>
__device__ static __forceinline__ void row_carry(const float (&o)[R], const struct lk_attn_job &j, int64_t at, int h, float old,
						 float m, float l)
{
	int c = threadIdx.x % 4;
	float now = old * LK_LOG2E == m ? old : m * LK_LN2, fix = m == -INFINITY ? 1 : lk_exp2(m - now * LK_LOG2E);

	if (c == 0) {
		j.m[at] = now;
		j.l[at] = l * fix;
	}
#pragma unroll
	for (int i = 0; i < R / 4; i++)
		*reinterpret_cast<float2 *>(j.acc + at * (2 * R) + 8 * i + 2 * c) =
			make_float2(o[4 * i + 2 * h] * fix, o[4 * i + 2 * h + 1] * fix);
}

template <int R>
__device__ static __forceinline__ void row_once(const float (&o)[R], const struct lk_attn_job &j, int64_t t, int head, int h,
						float m, float l)
{
	int c = threadIdx.x % 4;
	float by = l > 0 ? 1 / l : 0;
	int64_t at = t * j.o_t + head * j.o_h + 2 * c;

	if (c == 0)
		j.lse[t * j.h + head] = l > 0 ? (m + log2f(l)) * LK_LN2 : -INFINITY;
#pragma unroll
	for (int i = 0; i < R / 4; i++) {
		float x = o[4 * i + 2 * h] * by, y = o[4 * i + 2 * h + 1] * by;

		if (j.o_f32)
			*reinterpret_cast<float2 *>(static_cast<float *>(j.o) + at + 8 * i) = make_float2(x, y);
		else
			*reinterpret_cast<uint32_t *>(static_cast<lk_bf16 *>(j.o) + at + 8 * i) = lk_pack2(x, y);
	}
}

template <int R>
__device__ static __forceinline__ void rows_end(const struct rows &r, const float (&o)[R], const struct lk_attn_job &j,
						int head)
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		bool mine = r.t[h] < j.tq;
		int64_t at = r.t[h] * j.h + head;
		float l = r.l[h], old = j.m && mine ? j.m[at] : 0;

		l += __shfl_xor_sync(0xffffffffu, l, 1);
		l += __shfl_xor_sync(0xffffffffu, l, 2);
		if (mine && j.m)
			row_carry(o, j, at, h, old, r.m[h], l);
		else if (mine)
			row_once(o, j, r.t[h], head, h, r.m[h], l);
	}
}

/* All tiles of keys of one item. ring: the next stage, for keys and, one tile later, for values. */
template <int D>
__device__ static __forceinline__ void attend(const smem<D> &m, struct rows &r, float (&o)[D / 2],
					      const struct lk_attn_job &j, struct lk_walk &w, struct lk_ring90 &ring, int wg)
{
	typedef geo<D> G;
	const unsigned char *q = m.base + 64 * wg * G::Q::ROW_BYTES;
	int2 *keys = reinterpret_cast<int2 *>(m.base + G::KEYS_AT) + wg * BK;
	float s[BK / 2], keep[2];
	uint32_t p[BK / 4];
	struct lk_ring90 last = ring;

	lk_mbar_wait(m.k_full + ring.stage, ring.parity);
	lk_gmma_fence();
	lk_mul_nt<typename G::Q, typename G::K>(s, q, m.base + G::K_AT + ring.stage * G::K::BYTES);
	lk_gmma_commit();
	lk_gmma_wait<0>();
	lk_gmma_hold(s);
	lk_warp_arrive(m.k_empty + ring.stage);
	if (w.mask)
		mask(s, r, j, static_cast<int64_t>(w.tile) * BK, keys, wg);
	fold(s, r, keep, j.scale_log2);
	rescale(o, keep);
	lk_pack_a(p, s);
	lk_ring_next<G::STAGES>(&ring);
	for (;;) {
		lk_walk_next(&w);
		lk_walk_uniform(&w);
		if (w.tile < 0)
			break;
		lk_mbar_wait(m.k_full + ring.stage, ring.parity);
		lk_bar_sync(BAR_TURN + wg, 256);
		lk_gmma_fence();
		lk_mul_nt<typename G::Q, typename G::K>(s, q, m.base + G::K_AT + ring.stage * G::K::BYTES);
		lk_gmma_commit();
		lk_mbar_wait(m.v_full + last.stage, last.parity);
		lk_gmma_fence(); // again: without one in the same basic block ptxas serializes
		lk_mul_rn<typename G::K>(o, p, m.base + G::V_AT + last.stage * G::K::BYTES);
		lk_gmma_commit();
		lk_bar_arrive(BAR_TURN + 1 - wg, 256);
		lk_gmma_wait<1>();
		lk_gmma_hold(s);
		lk_warp_arrive(m.k_empty + ring.stage);
		if (w.mask)
			mask(s, r, j, static_cast<int64_t>(w.tile) * BK, keys, wg);
		fold(s, r, keep, j.scale_log2);
		lk_gmma_hold(s);
		lk_mbar_wait(m.v_full + last.stage, last.parity); // over long ago, see lk_gmma_hold
		lk_gmma_wait<0>();
		lk_gmma_hold(o);
		lk_warp_arrive(m.v_empty + last.stage);
		rescale(o, keep);
		lk_pack_a(p, s);
		last = ring;
		lk_ring_next<G::STAGES>(&ring);
	}
	lk_warp_arrive(m.q_empty);
	lk_mbar_wait(m.v_full + last.stage, last.parity);
	lk_gmma_fence();
	lk_mul_rn<typename G::K>(o, p, m.base + G::V_AT + last.stage * G::K::BYTES);
	lk_gmma_commit();
	lk_gmma_wait<0>();
	lk_gmma_hold(o);
	lk_warp_arrive(m.v_empty + last.stage);
}

template <int D>
__device__ static __forceinline__ void math_items(const smem<D> &m, const struct lk_attn_job &j,
						  const struct lk_attn_sched &s, const struct deal &d, int wg)
{
	struct lk_ring90 ring = { 0, 0 };
	int q_parity = 0;

	if (wg == WGS - 1)
		lk_bar_arrive(BAR_TURN, 256); // the first warpgroup begins
	for (int i = 0; i < deal_rounds(d); i++) {
		struct item it = deal_item(d, s, i);
		struct lk_walk w;
		struct rows r;
		float o[D / 2];

		it.tile = lk_uniform(it.tile);
		if (it.tile < 0)
			continue;
		lk_walk_begin(&w, &s, it.tile);
		lk_walk_uniform(&w);
		if (w.tile < 0 && j.m)
			continue; // the carried rows stay as they are
		rows_begin(r, o, j, it, wg);
		if (w.tile >= 0) {
			lk_mbar_wait(m.q_full, q_parity);
			q_parity ^= 1;
			attend<D>(m, r, o, j, w, ring, wg);
		}
		rows_end(r, o, j, it.head);
	}
	if (wg == 0)
		lk_bar_sync(BAR_TURN, 256); // takes the turn that is left over
}

template <int D>
__global__ void __launch_bounds__(THREADS, 1)
attn_fwd_sm90(const __grid_constant__ struct maps map, const __grid_constant__ struct lk_attn_job j,
	      const __grid_constant__ struct lk_attn_sched s, const __grid_constant__ struct deal d)
{
	LK_SMEM(unsigned char, base);
	smem<D> m(base);
	int wg = lk_uniform(static_cast<int>(threadIdx.x) / 128);

	if (threadIdx.x == 0) {
		lk_mbar_init(m.q_full, 1);
		lk_mbar_init(m.q_empty, WARPS);
		for (int i = 0; i < geo<D>::STAGES; i++) {
			lk_mbar_init(m.k_full + i, 1);
			lk_mbar_init(m.v_full + i, 1);
			lk_mbar_init(m.k_empty + i, WARPS);
			lk_mbar_init(m.v_empty + i, WARPS);
		}
		lk_mbar_init_fence();
	}
	__syncthreads();
	if (wg == 0) {
		lk_regs_dec<LOAD_REGS>();
		if (threadIdx.x == 0)
			load_items<D>(m, map, j, s, d);
	} else {
		lk_regs_inc<MATH_REGS>();
		math_items<D>(m, j, s, d, wg - 1);
	}
}

/* ---- host ---- */

template <int D> int run(struct lk_dev *dev, const struct lk_attn_job *j)
{
	typedef geo<D> G;
	const struct lk_map_spec q = { j->q, 0, j->tq, j->q_t, j->q_h, j->h, D, G::W, BQ, G::Q::MAP_SWIZZLE };
	const struct lk_map_spec k = { j->k, 0, j->tk, j->k_t, j->k_h, j->hkv, D, G::W, BK, G::K::MAP_SWIZZLE };
	const struct lk_map_spec v = { j->v, 0, j->tk, j->v_t, j->v_h, j->hkv, D, G::W, BK, G::K::MAP_SWIZZLE };
	const int64_t cache = 24 << 20; // what may be counted on of the L2 cache
	struct lk_attn_sched s;
	struct maps map;
	struct deal d;
	auto kernel = attn_fwd_sm90<D>;
	int rc, heads = j->hkv;

	if ((rc = lk_map_make(dev, &map.q, &q)) || (rc = lk_map_make(dev, &map.k, &k)) ||
	    (rc = lk_map_make(dev, &map.v, &v)) || (rc = lk_attn_sched_get(dev, j, BQ, BK, 0, &s)))
		return rc;
	while (heads > 1 && (j->hkv % heads || heads * j->tk * D * 4 > cache))
		heads--;
	d.heads = heads * j->group;
	d.sections = j->hkv / heads;
	d.items = s.tiles * j->h;
	rc = lk_cuda_check(dev, "attention", cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
								   G::BYTES));
	if (rc)
		return rc;
	LK_LAUNCH(kernel, d.items < lk_cu(dev)->sms ? d.items : lk_cu(dev)->sms, THREADS, G::BYTES, lk_stream(dev), map, *j,
		  s, d);
	return lk_launched(dev, "attention");
}

} // namespace

int lk_attn_sm90_fwd(struct lk_dev *dev, const struct lk_attn_job *j)
{
	int whole = j->o_t % 2 == 0 && j->o_h % 2 == 0 && reinterpret_cast<uintptr_t>(j->o) % (j->o_f32 ? 8 : 4) == 0;

	if (lk_cu(dev)->cc != 90 || !lk_sm90_fits(j) || !(j->m || whole))
		return LK_EUNSUP; // outputs are written in pairs
	return j->d == 128 ? run<128>(dev, j) : j->d == 96 ? run<96>(dev, j) : run<64>(dev, j);
}
