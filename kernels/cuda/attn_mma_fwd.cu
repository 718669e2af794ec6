/* attn_mma_fwd.cu - attention forward by mma.sync, in tiles (Dao 2023, FlashAttention-2).
 *
 * A block of four warps owns 128 queries of one head and meets its tiles of keys one after the other, as the schedule says.
 * A warp has 32 queries: two strips of 16. A thread holds, of each strip, queries g and g + 8 (g = lane / 4) and columns
 * 2c, 2c + 1 (c = lane % 4) of every eight: scores s, output acc, and per query the running maximum m in units of log2, and
 * its own columns' part of the sum l.
 *
 * Shared memory: the queries; keys and values of this tile and, while it is worked on, of the next one.
 */
#include <math.h>

#include "kernels/cuda/attn_mma.h"

enum { WARPS = 4, THREADS = 32 * WARPS, STRIPS = 2, BQ = 16 * STRIPS * WARPS };

/* Keys of a tile: as many as leave registers for the output of long heads. */
template <int DP> constexpr int BK = DP > 64 ? 32 : 64;

template <int DP> struct stage {
	lk_bf16 k[BK<DP> * DP], v[BK<DP> * DP];
	int pos[BK<DP>], seg[BK<DP>]; /* of the keys, where the mask is needed */
};

template <int DP> struct smem {
	lk_bf16 q[BQ * DP];
	struct stage<DP> stage[2];
	int pos[BQ], seg[BQ]; /* of the queries */
};

/* What a thread carries. */
template <int DP> struct state {
	float m[STRIPS][2], l[STRIPS][2], acc[STRIPS][DP / 8][4];
};

struct where {
	int64_t q0; /* first query of the block */
	int head, row, col; /* this thread's first row within the block; its first column of eight */
};

/* Made anew where it is used: registers are short. */
__device__ static inline struct where where_of(int tile)
{
	int thread = lk_fresh(static_cast<int>(threadIdx.x));
	struct where w = { static_cast<int64_t>(lk_fresh(tile)) * BQ, static_cast<int>(blockIdx.y),
			   thread / 32 * 16 * STRIPS + thread % 32 / 4, thread % 4 * 2 };

	return w;
}

/* Token of row i (0, 1) of a strip. */
__device__ static inline int64_t token(const struct where *w, int strip, int i)
{
	return w->q0 + w->row + strip * 16 + i * 8;
}

/* ---- the carried state in memory ---- */

template <int DP>
__device__ static void state_begin(struct state<DP> *st, const struct lk_attn_job *j, const struct where *w)
{
#pragma unroll
	for (int s = 0; s < STRIPS; s++)
#pragma unroll
		for (int i = 0; i < 2; i++) {
			int64_t t = token(w, s, i), r = t * j->h + w->head;
			bool there = j->m && t < j->tq;

			st->m[s][i] = there ? j->m[r] * LK_LOG2E : -INFINITY;
			st->l[s][i] = there && w->col == 0 ? j->l[r] : 0;
#pragma unroll
			for (int n = 0; n < DP / 8; n++)
#pragma unroll
				for (int e = 0; e < 2; e++) {
					int d = n * 8 + w->col + e;

					st->acc[s][n][2 * i + e] = there && d < j->d ? j->acc[r * j->d + d] : 0;
				}
		}
}

template <int DP>
__device__ static void put_state(const struct state<DP> *st, const struct lk_attn_job *j, int64_t r, int s, int i, int col)
{
	if (col == 0) {
		j->m[r] = st->m[s][i] * LK_LN2;
		j->l[r] = st->l[s][i];
	}
#pragma unroll
	for (int n = 0; n < DP / 8; n++)
#pragma unroll
		for (int e = 0; e < 2; e++)
			if (n * 8 + col + e < j->d)
				j->acc[r * j->d + n * 8 + col + e] = st->acc[s][n][2 * i + e];
}

/* Two neighbours in one store where that is allowed. */
__device__ static inline void put_pair(const struct lk_attn_job *j, int64_t at, float x, float y, bool pairs, bool second)
{
	lk_bf16 *o = static_cast<lk_bf16 *>(j->o) + at;

	if (pairs) {
		*reinterpret_cast<uint32_t *>(o) = lk_pack2(x, y);
		return;
	}
	o[0] = __float2bfloat16(x);
	if (second)
		o[1] = __float2bfloat16(y);
}

template <int DP>
__device__ static void put_output(const struct state<DP> *st, const struct lk_attn_job *j, int64_t t,
				  const struct where *w, int s, int i)
{
	float l = st->l[s][i], inv = l > 0 ? 1 / l : 0;
	int64_t at = t * j->o_t + w->head * j->o_h;
	bool pairs = (reinterpret_cast<uintptr_t>(j->o) / 2 % 2 | j->o_t % 2 | j->o_h % 2 | j->d % 2) == 0;

	if (w->col == 0)
		j->lse[t * j->h + w->head] = l > 0 ? st->m[s][i] * LK_LN2 + logf(l) : -INFINITY;
#pragma unroll
	for (int n = 0; n < DP / 8; n++) {
		int d = n * 8 + w->col;
		float x = st->acc[s][n][2 * i] * inv, y = st->acc[s][n][2 * i + 1] * inv;

		if (d >= j->d)
			continue;
		if (!j->o_f32) {
			put_pair(j, at + d, x, y, pairs, d + 1 < j->d);
			continue;
		}
		static_cast<float *>(j->o)[at + d] = x;
		if (d + 1 < j->d)
			static_cast<float *>(j->o)[at + d + 1] = y;
	}
}

template <int DP>
__device__ static void state_end(struct state<DP> *st, const struct lk_attn_job *j, const struct where *w)
{
#pragma unroll
	for (int s = 0; s < STRIPS; s++)
#pragma unroll
		for (int i = 0; i < 2; i++) {
			float l = st->l[s][i];
			int64_t t = token(w, s, i);

			l += __shfl_xor_sync(0xffffffffu, l, 1);
			l += __shfl_xor_sync(0xffffffffu, l, 2);
			st->l[s][i] = l;
			if (t >= j->tq)
				continue;
			if (j->m)
				put_state<DP>(st, j, t * j->h + w->head, s, i, w->col);
			else
				put_output<DP>(st, j, t, w, s, i);
		}
}

/* ---- one tile of keys ---- */

/* s = q k^T, 16 STRIPS rows of this warp, BK columns. */
template <int DP>
__device__ static inline void scores(float s[STRIPS][BK<DP> / 8][4], lk_bf16 *q, lk_bf16 *k, int row)
{
#pragma unroll
	for (int i = 0; i < STRIPS; i++)
#pragma unroll
		for (int n = 0; n < BK<DP> / 2; n++)
			s[i][n / 4][n % 4] = 0;
#pragma unroll
	for (int e = 0; e < DP / 16; e++) {
		uint32_t a[STRIPS][4], b[4];

#pragma unroll
		for (int i = 0; i < STRIPS; i++)
			lk_frag_a<DP>(a[i], q, row + 16 * i, e);
#pragma unroll
		for (int n = 0; n < BK<DP> / 16; n++) {
			lk_frag_b<DP>(b, k, 16 * n, e);
#pragma unroll
			for (int i = 0; i < STRIPS; i++) {
				lk_mma16816(s[i][2 * n], a[i], b);
				lk_mma16816(s[i][2 * n + 1], a[i], b + 2);
			}
		}
	}
}

/* Scores that may not be seen become -inf. First a bit for each, in a loop that stays one, for the scores are in registers
 * meanwhile: bit 2n + e of word i is column 8n + e of row i. */
template <int DP>
__device__ static inline void hide(float s[STRIPS][BK<DP> / 8][4], const struct smem<DP> *m, const struct stage<DP> *k,
				   int tile)
{
	struct where w = where_of(tile);
	uint32_t bits[2 * STRIPS] = {};

#pragma unroll 1
	for (int n = 0; n < BK<DP> / 4; n++) {
		int col = n / 2 * 8 + w.col + n % 2, pos = k->pos[col], seg = k->seg[col];

#pragma unroll
		for (int i = 0; i < 2 * STRIPS; i++) {
			int row = w.row + i * 8;

			bits[i] |= static_cast<uint32_t>(seg != m->seg[row] || pos > m->pos[row]) << n;
		}
	}
#pragma unroll
	for (int i = 0; i < 2 * STRIPS; i++)
#pragma unroll
		for (int n = 0; n < BK<DP> / 4; n++)
			if (bits[i] >> n & 1)
				s[i / 2][n / 2][i % 2 * 2 + n % 2] = -INFINITY;
}

/* Scores of one row (i: which of the two) become weights; what was summed before is brought to the new maximum. */
template <int DP>
__device__ static inline void weights(float s[BK<DP> / 8][4], float *m, float *l, float acc[DP / 8][4], int i, float scale)
{
	float top = *m, base, keep, sum = 0;

#pragma unroll
	for (int n = 0; n < BK<DP> / 8; n++)
#pragma unroll
		for (int e = 2 * i; e < 2 * i + 2; e++) {
			s[n][e] *= scale;
			top = fmaxf(top, s[n][e]);
		}
	top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
	top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
	base = top == -INFINITY ? 0 : top; // nothing seen so far: all weights are 2^-inf
	keep = lk_exp2(*m - base);
	*m = top;
#pragma unroll
	for (int n = 0; n < BK<DP> / 8; n++)
#pragma unroll
		for (int e = 2 * i; e < 2 * i + 2; e++) {
			s[n][e] = lk_exp2(s[n][e] - base);
			sum += s[n][e];
		}
	*l = *l * keep + sum;
#pragma unroll
	for (int n = 0; n < DP / 8; n++) {
		acc[n][2 * i] *= keep;
		acc[n][2 * i + 1] *= keep;
	}
}

/* acc += p v */
template <int DP>
__device__ static inline void add_values(struct state<DP> *st, const float p[STRIPS][BK<DP> / 8][4], lk_bf16 *v)
{
#pragma unroll
	for (int k = 0; k < BK<DP> / 16; k++) {
		uint32_t a[STRIPS][4], b[4];

#pragma unroll
		for (int i = 0; i < STRIPS; i++)
			lk_frag_result(a[i], &p[i][2 * k]);
#pragma unroll
		for (int n = 0; n < DP / 16; n++) {
			lk_frag_bt<DP>(b, v, 16 * k, n);
#pragma unroll
			for (int i = 0; i < STRIPS; i++) {
				lk_mma16816(st->acc[i][2 * n], a[i], b);
				lk_mma16816(st->acc[i][2 * n + 1], a[i], b + 2);
			}
		}
	}
}

/* ---- the kernel ---- */

/* Starts the transfer of the tile that the walk is at, if there is one. */
template <int DP, bool VEC>
__device__ static inline void fetch(struct stage<DP> *to, const struct lk_attn_job *j, int key_head,
				    const struct lk_walk *walk)
{
	int64_t k0 = static_cast<int64_t>(walk->tile) * BK<DP>;
	int thread = static_cast<int>(threadIdx.x);

	if (walk->tile >= 0) {
		struct lk_head k = lk_head_of(j->k, j->k_t, j->k_h, key_head, j->tk, j);
		struct lk_head v = lk_head_of(j->v, j->v_t, j->v_h, key_head, j->tk, j);

		lk_tile_load<DP, BK<DP>, THREADS, VEC>(to->k, &k, k0);
		lk_tile_load<DP, BK<DP>, THREADS, VEC>(to->v, &v, k0);
		if (walk->mask && thread < BK<DP>) {
			to->pos[thread] = lk_k_pos(j, k0 + thread);
			to->seg[thread] = lk_k_seg(j, k0 + thread);
		}
	}
	lk_cp_async_commit();
}

template <int DP, bool VEC>
__global__ void __launch_bounds__(THREADS) fwd_kernel(const struct lk_attn_job j, const struct lk_attn_sched sched)
{
	LK_SMEM(struct smem<DP>, m);
	int thread = static_cast<int>(threadIdx.x), head = static_cast<int>(blockIdx.y), tile = sched.order[blockIdx.x];
	struct where w = where_of(tile);
	struct lk_head q = lk_head_of(j.q, j.q_t, j.q_h, head, j.tq, &j);
	struct state<DP> st;
	struct lk_walk walk;

	lk_walk_begin(&walk, &sched, tile);
	if (walk.tile < 0 && j.m)
		return; // nothing of this block of keys is seen: the state stays
	lk_tile_load<DP, BQ, THREADS, VEC>(m->q, &q, w.q0);
	m->pos[thread] = lk_q_pos(&j, w.q0 + thread);
	m->seg[thread] = lk_q_seg(&j, w.q0 + thread);
	fetch<DP, VEC>(&m->stage[0], &j, head / j.group, &walk);
	state_begin<DP>(&st, &j, &w);
	for (int turn = 0; walk.tile >= 0; turn ^= 1) {
		struct stage<DP> *now = &m->stage[turn];
		float s[STRIPS][BK<DP> / 8][4];
		int masked = walk.mask;

		lk_cp_async_wait<0>();
		__syncthreads(); // this tile is there for all, and all are done with the one before
		lk_walk_next(&walk);
		fetch<DP, VEC>(&m->stage[turn ^ 1], &j, head / j.group, &walk);
		scores<DP>(s, m->q, now->k, thread / 32 * 16 * STRIPS);
		if (masked)
			hide<DP>(s, m, now, tile);
#pragma unroll
		for (int i = 0; i < 2 * STRIPS; i++)
			weights<DP>(s[i / 2], &st.m[i / 2][i % 2], &st.l[i / 2][i % 2], st.acc[i / 2], i % 2, j.scale_log2);
		add_values<DP>(&st, s, now->v);
	}
	lk_cp_async_wait<0>();
	w = where_of(tile);
	state_end<DP>(&st, &j, &w);
}

template <int DP>
static int launch(struct lk_dev *dev, const struct lk_attn_job *j)
{
	struct lk_attn_sched sched;
	auto kernel = j->vec ? fwd_kernel<DP, true> : fwd_kernel<DP, false>;
	int rc = lk_attn_sched_get(dev, j, BQ, BK<DP>, 0, &sched);

	if (!rc)
		rc = lk_attn_smem(dev, "attention", kernel, sizeof(struct smem<DP>));
	if (rc)
		return rc;
	LK_LAUNCH(kernel, dim3(static_cast<unsigned>(sched.tiles), static_cast<unsigned>(j->h)), THREADS,
		  sizeof(struct smem<DP>), lk_stream(dev), *j, sched);
	return lk_launched(dev, "attention");
}

int lk_attn_mma_fwd(struct lk_dev *dev, const struct lk_attn_job *j)
{
	if (j->d <= 32)
		return launch<32>(dev, j);
	if (j->d <= 64)
		return launch<64>(dev, j);
	return j->d <= 96 ? launch<96>(dev, j) : launch<128>(dev, j);
}
