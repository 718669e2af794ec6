/* attn_mma_bwd.cu - attention backward by mma.sync (Dao et al. 2022, algorithm 4): weights are formed again from the
 * log-sum-exp of the forward.
 *
 *   p = exp(scale q k^T - lse), ds = p (dout v^T - delta); dv += p^T dout, dk += scale ds^T q, dq += scale ds k
 *
 * Two passes of one kernel, so that every sum has one owner and one order: in the first a block owns 64 keys of a key head
 * and meets the queries that see them, of all heads that share it; in the second a block owns 64 queries of a head and meets
 * their keys. That forms p and ds twice, 7 products in place of 5, and needs neither atomic sums nor partial ones.
 *
 * Names: own and other side; x and y are the rows that the scores and the products with dout are made of:
 *   BY_KEY   own x = k, y = v       other x = q, y = dout
 *   else     own x = q, y = dout    other x = k, y = v
 * s = x_own x_other^T and ds have own rows and other columns. Each of four warps has 16 own rows; a thread holds rows g and
 * g + 8 (g = lane / 4), columns 2c, 2c + 1 (c = lane % 4) of every eight.
 * Shared memory: the own tiles; the other side's tiles of now and, while they are worked on, of next.
 */
#include <math.h>

#include "kernels/cuda/attn_mma.h"

enum { WARPS = 4, THREADS = 32 * WARPS, OWN = 16 * WARPS };

/* Rows of a tile of the other side: as many as leave registers for the gradients of long heads. */
template <int DP> constexpr int OTHER = DP > 64 ? 32 : 64;

template <int DP, int ROWS> struct side {
	lk_bf16 x[ROWS * DP], y[ROWS * DP];
	int pos[ROWS], seg[ROWS];     /* where the mask is needed */
	float lse[ROWS], delta[ROWS]; /* of queries; beyond the last one lse is +INF, which makes p 0 */
};

template <int DP> struct smem {
	struct side<DP, OWN> own;
	struct side<DP, OTHER<DP>> other[2];
};

struct where {
	int64_t row0;       /* first own token */
	int row, col;       /* this thread's first row within the block; its first column of eight */
	int head, heads;    /* of queries: first, and how many share what the block owns */
	int key_head;
};

/* Made anew where it is used: registers are short. */
template <bool BY_KEY> __device__ static inline struct where where_of(const struct lk_attn_job *j, int tile)
{
	int thread = lk_fresh(static_cast<int>(threadIdx.x)), y = static_cast<int>(blockIdx.y);
	struct where w = { static_cast<int64_t>(lk_fresh(tile)) * OWN, thread / 32 * 16 + thread % 32 / 4, thread % 4 * 2,
			   BY_KEY ? y * j->group : y, BY_KEY ? j->group : 1, BY_KEY ? y : y / j->group };

	return w;
}

/* ---- tiles ---- */

/* Starts the transfer of ROWS rows from row0 on. */
template <int DP, int ROWS, bool QUERIES, bool VEC>
__device__ static inline void fetch_side(struct side<DP, ROWS> *to, const struct lk_attn_job *j, int head, int64_t row0,
					 int masked)
{
	int thread = static_cast<int>(threadIdx.x);
	int64_t t = row0 + thread, n = QUERIES ? j->tq : j->tk;
	struct lk_head x = QUERIES ? lk_head_of(j->q, j->q_t, j->q_h, head, n, j) :
				     lk_head_of(j->k, j->k_t, j->k_h, head, n, j);
	struct lk_head y = QUERIES ? lk_head_of(j->dout, j->do_t, j->do_h, head, n, j) :
				     lk_head_of(j->v, j->v_t, j->v_h, head, n, j);

	lk_tile_load<DP, ROWS, THREADS, VEC>(to->x, &x, row0);
	lk_tile_load<DP, ROWS, THREADS, VEC>(to->y, &y, row0);
	if (thread >= ROWS)
		return;
	if (QUERIES && t < n) {
		lk_cp_async4(&to->lse[thread], j->lse_in + t * j->h + head);
		lk_cp_async4(&to->delta[thread], j->delta + t * j->h + head);
	} else if (QUERIES) {
		to->lse[thread] = INFINITY;
		to->delta[thread] = 0;
	}
	if (masked) {
		to->pos[thread] = QUERIES ? lk_q_pos(j, t) : lk_k_pos(j, t);
		to->seg[thread] = QUERIES ? lk_q_seg(j, t) : lk_k_seg(j, t);
	}
}

/* Walks the tiles of the other side, head after head. */
struct cursor {
	struct lk_walk walk;
	int head, last; /* heads of queries */
};

__device__ static inline void cursor_next(struct cursor *c, const struct lk_attn_sched *sched, int tile)
{
	lk_walk_next(&c->walk);
	if (c->walk.tile >= 0 || c->head == c->last)
		return;
	c->head++;
	lk_walk_begin(&c->walk, sched, tile);
}

template <int DP, bool BY_KEY, bool VEC>
__device__ static inline void fetch(struct side<DP, OTHER<DP>> *to, const struct lk_attn_job *j, const struct where *w,
				    const struct cursor *c)
{
	if (c->walk.tile >= 0)
		fetch_side<DP, OTHER<DP>, BY_KEY, VEC>(to, j, BY_KEY ? c->head : w->key_head,
						       static_cast<int64_t>(c->walk.tile) * OTHER<DP>, c->walk.mask);
	lk_cp_async_commit();
}

/* ---- one tile ---- */

/* s = a b^T, 16 own rows of this warp against all others. */
template <int DP>
__device__ static inline void product(float s[OTHER<DP> / 8][4], lk_bf16 *a_tile, lk_bf16 *b_tile, int warp_row)
{
#pragma unroll
	for (int n = 0; n < OTHER<DP> / 2; n++)
		s[n / 4][n % 4] = 0;
#pragma unroll
	for (int e = 0; e < DP / 16; e++) {
		uint32_t a[4], b[4];

		lk_frag_a<DP>(a, a_tile, warp_row, e);
#pragma unroll
		for (int n = 0; n < OTHER<DP> / 16; n++) {
			lk_frag_b<DP>(b, b_tile, 16 * n, e);
			lk_mma16816(s[2 * n], a, b);
			lk_mma16816(s[2 * n + 1], a, b + 2);
		}
	}
}

/* acc += s b, where s is what product() made: the rows of b are the columns of s. */
template <int DP>
__device__ static inline void add(float acc[DP / 8][4], const float s[OTHER<DP> / 8][4], lk_bf16 *b_tile)
{
#pragma unroll
	for (int k = 0; k < OTHER<DP> / 16; k++) {
		uint32_t a[4], b[4];

		lk_frag_result(a, &s[2 * k]);
#pragma unroll
		for (int n = 0; n < DP / 16; n++) {
			lk_frag_bt<DP>(b, b_tile, 16 * k, n);
			lk_mma16816(acc[2 * n], a, b);
			lk_mma16816(acc[2 * n + 1], a, b + 2);
		}
	}
}

/* A bit for each element of s that may not be seen, 2n + e for column 8n + e; a word for each row. The loop stays one, for
 * registers are short here. */
template <int DP, bool BY_KEY>
__device__ static inline void hidden(uint32_t bits[2], const struct smem<DP> *m, const struct side<DP, OTHER<DP>> *o,
				     const struct where *w)
{
#pragma unroll 1
	for (int n = 0; n < OTHER<DP> / 4; n++) {
		int col = n / 2 * 8 + w->col + n % 2, pos = o->pos[col], seg = o->seg[col];

#pragma unroll
		for (int i = 0; i < 2; i++) {
			int own = m->own.pos[w->row + 8 * i], later = BY_KEY ? own > pos : pos > own;

			bits[i] |= static_cast<uint32_t>(later | (seg != m->own.seg[w->row + 8 * i])) << n;
		}
	}
}

/* Scores become weights. */
template <int DP, bool BY_KEY>
__device__ static inline void weights(float s[OTHER<DP> / 8][4], const struct smem<DP> *m,
				      const struct side<DP, OTHER<DP>> *o, const struct where *w, float scale,
				      const uint32_t bits[2])
{
#pragma unroll
	for (int n = 0; n < OTHER<DP> / 8; n++)
#pragma unroll
		for (int e = 0; e < 4; e++) {
			float lse = BY_KEY ? o->lse[n * 8 + w->col + e % 2] : m->own.lse[w->row + e / 2 * 8];
			float p = lk_exp2(s[n][e] * scale - lse * LK_LOG2E);

			s[n][e] = bits[e / 2] >> (2 * n + e % 2) & 1 ? 0 : p;
		}
}

/* ds = p (dp - delta), in place of p */
template <int DP, bool BY_KEY>
__device__ static inline void score_gradients(float p[OTHER<DP> / 8][4], const float dp[OTHER<DP> / 8][4],
					      const struct smem<DP> *m, const struct side<DP, OTHER<DP>> *o,
					      const struct where *w)
{
#pragma unroll
	for (int n = 0; n < OTHER<DP> / 8; n++)
#pragma unroll
		for (int e = 0; e < 4; e++) {
			float delta = BY_KEY ? o->delta[n * 8 + w->col + e % 2] : m->own.delta[w->row + e / 2 * 8];

			p[n][e] *= dp[n][e] - delta;
		}
}

/* Adds a thread's part of a result to memory. */
template <int DP>
__device__ static inline void add_rows(float *to, int64_t stride_t, const float acc[DP / 8][4], const struct where *w,
				       int64_t n_rows, int d, int pairs, float scale)
{
#pragma unroll
	for (int i = 0; i < 2; i++) {
		int64_t t = w->row0 + w->row + 8 * i;

		if (t >= n_rows)
			continue;
#pragma unroll
		for (int n = 0; n < DP / 8; n++) {
			int col = n * 8 + w->col;
			float *at = to + t * stride_t + col, x = acc[n][2 * i] * scale, y = acc[n][2 * i + 1] * scale;

			if (col >= d)
				continue;
			if (pairs) {
				float2 sum = *reinterpret_cast<float2 *>(at);

				*reinterpret_cast<float2 *>(at) = make_float2(sum.x + x, sum.y + y);
				continue;
			}
			at[0] += x;
			if (col + 1 < d)
				at[1] += y;
		}
	}
}

/* ---- the kernel ---- */

template <int DP, bool BY_KEY>
__device__ static inline void work(float acc_x[DP / 8][4], float acc_y[DP / 8][4], struct smem<DP> *m,
				   struct side<DP, OTHER<DP>> *o, const struct where *w, float scale, int masked)
{
	float s[OTHER<DP> / 8][4], dp[OTHER<DP> / 8][4];
	uint32_t bits[2] = { 0, 0 };
	int warp_row = static_cast<int>(threadIdx.x) / 32 * 16;

	if (masked)
		hidden<DP, BY_KEY>(bits, m, o, w);
	product<DP>(s, m->own.x, o->x, warp_row);
	weights<DP, BY_KEY>(s, m, o, w, scale, bits);
	if (BY_KEY)
		add<DP>(acc_y, s, o->y);
	product<DP>(dp, m->own.y, o->y, warp_row);
	score_gradients<DP, BY_KEY>(s, dp, m, o, w);
	add<DP>(acc_x, s, o->x);
}

template <int DP, bool BY_KEY, bool VEC>
__global__ void __launch_bounds__(THREADS) bwd_kernel(const struct lk_attn_job j, const struct lk_attn_sched sched)
{
	LK_SMEM(struct smem<DP>, m);
	int tile = sched.order[blockIdx.x];
	struct where w = where_of<BY_KEY>(&j, tile);
	struct cursor c = { {}, w.head, w.head + w.heads - 1 };
	float acc_x[DP / 8][4] = {}, acc_y[DP / 8][4] = {};

	lk_walk_begin(&c.walk, &sched, tile);
	if (c.walk.tile < 0)
		return; // nobody sees or is seen: nothing to add
	fetch_side<DP, OWN, !BY_KEY, VEC>(&m->own, &j, BY_KEY ? w.key_head : w.head, w.row0, 1);
	fetch<DP, BY_KEY, VEC>(&m->other[0], &j, &w, &c);
	for (int turn = 0; c.walk.tile >= 0; turn ^= 1) {
		int masked = c.walk.mask;

		lk_cp_async_wait<0>();
		__syncthreads(); // this tile is there for all, and all are done with the one before
		cursor_next(&c, &sched, tile);
		fetch<DP, BY_KEY, VEC>(&m->other[turn ^ 1], &j, &w, &c);
		work<DP, BY_KEY>(acc_x, acc_y, m, &m->other[turn], &w, j.scale_log2, masked);
	}
	w = where_of<BY_KEY>(&j, tile);
	if (BY_KEY) {
		add_rows<DP>(j.dk + w.key_head * j.dk_h, j.dk_t, acc_x, &w, j.tk, j.d, j.vec_grad, j.scale);
		add_rows<DP>(j.dv + w.key_head * j.dv_h, j.dv_t, acc_y, &w, j.tk, j.d, j.vec_grad, 1);
	} else {
		add_rows<DP>(j.dq + w.head * j.dq_h, j.dq_t, acc_x, &w, j.tq, j.d, j.vec_grad, j.scale);
	}
}

template <int DP, bool BY_KEY> static int launch(struct lk_dev *dev, const struct lk_attn_job *j)
{
	struct lk_attn_sched sched;
	auto kernel = j->vec ? bwd_kernel<DP, BY_KEY, true> : bwd_kernel<DP, BY_KEY, false>;
	int rc = lk_attn_sched_get(dev, j, BY_KEY ? OTHER<DP> : OWN, BY_KEY ? OWN : OTHER<DP>, BY_KEY, &sched);

	if (!rc)
		rc = lk_attn_smem(dev, "attn_bwd", kernel, sizeof(struct smem<DP>));
	if (rc)
		return rc;
	LK_LAUNCH(kernel, dim3(static_cast<unsigned>(sched.tiles), static_cast<unsigned>(BY_KEY ? j->hkv : j->h)), THREADS,
		  sizeof(struct smem<DP>), lk_stream(dev), *j, sched);
	return lk_launched(dev, "attn_bwd");
}

template <int DP> static int both(struct lk_dev *dev, const struct lk_attn_job *j)
{
	int rc = launch<DP, true>(dev, j);

	return rc ? rc : launch<DP, false>(dev, j);
}

int lk_attn_mma_bwd(struct lk_dev *dev, const struct lk_attn_job *j)
{
	if (j->d <= 32)
		return both<32>(dev, j);
	if (j->d <= 64)
		return both<64>(dev, j);
	return j->d <= 96 ? both<96>(dev, j) : both<128>(dev, j);
}
