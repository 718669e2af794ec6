/* attn_row.cu - few queries against many keys, as when text is generated: limited by how fast keys and values are read.
 *
 * The queries of all heads that share a key head are rows of one product, 16 at most; keys are split evenly, and a block of
 * four warps takes one key head and one part. Nothing passes through shared memory on its way in: every warp takes 16 keys
 * at a time straight into the registers that mma.sync wants, the next keys while weights meet the values and the next values
 * while scores are formed. What is left of a part (m, l, acc) goes to memory, and a second kernel joins the parts in order.
 *
 * Who holds what: lane = 4g + c. Scores are rows x keys, S = Q K^T: a lane has rows g (and g + 8) and keys 2c, 2c + 1, 2c + 8,
 * 2c + 9. That is just how the second product wants the weights as its right side, O^T = V^T P^T (elements x rows), whose left
 * side is the values of the same four keys. The order of elements within a product is free, so that it is chosen for wide
 * loads: of 32 elements of a key, lane takes 8c .. 8c + 7, and of a value 4g .. 4g + 3.
 *
 * The number of parts depends on the problem alone, never on the chip: same bits everywhere.
 */
#include <math.h>

#include "kernels/cuda/attn_mma.h"
#include "kernels/cuda/attn_row.h"

enum { WARPS = 4, THREADS = 32 * WARPS, KEYS = 16, ROWS = 16, PARTS_MOST = 2048, PART_LEAST = 128, JOIN_MOST = 1024 };

struct parts {
	int count, keys;  /* parts, and keys of one: a multiple of KEYS * WARPS */
	int groups;       /* of at most ROWS rows, where more than that share a key head */
	float *o, *m, *l; /* (tq * h, count, d) and (tq * h, count); m in units of log2 */
};

template <int DP, int NT> struct state {
	uint32_t q[DP / 16][2 * NT];   /* left side of S: rows g (and g + 8) */
	int pos[NT], seg[NT];          /* of those rows */
	float m[NT], l[NT];            /* l: of this lane's keys */
	float acc[NT][DP / 16][4];     /* rows 2c, 2c + 1 (+ 8); elements: see put_acc */
};

/* ---- one step of 16 keys ---- */

template <typename T, int DP, int NT>
__device__ static inline void scores(float s[2][4], const struct state<DP, NT> *st, const struct keys<T, DP> *k)
{
#pragma unroll
	for (int i = 0; i < 8; i++)
		s[i / 4][i % 4] = 0;
#pragma unroll
	for (int b = 0; b < DP / 32; b++)
#pragma unroll
		for (int n = 0; n < 2; n++) {
			uint32_t words[4];

			widen(words, k->x[n][b]);
#pragma unroll
			for (int half = 0; half < 2; half++) {
				const uint32_t *q = st->q[2 * b + half];
				uint32_t a[4] = { q[0], NT > 1 ? q[2 * NT - 2] : 0, q[1], NT > 1 ? q[2 * NT - 1] : 0 };

				lk_mma16816(s[n], a, words + 2 * half);
			}
		}
}

/* Scores of row i become the right side of the second product; what was summed before is brought to the new maximum. */
template <typename T, int DP, int NT>
__device__ static inline void weights(uint32_t p[2], const float s[2][4], struct state<DP, NT> *st, const struct marks *m,
				      const struct lk_attn_job *j, int i, int c)
{
	float x[4], top = st->m[i], base, keep, low, high;

#pragma unroll
	for (int e = 0; e < 4; e++) {
		x[e] = s[e / 2][2 * i + e % 2] * j->scale_log2;
		if (sizeof(T) == 1)
			x[e] *= m->k_scale[e];
		if (m->seg[e] != st->seg[i] || m->pos[e] > st->pos[i])
			x[e] = -INFINITY;
		top = fmaxf(top, x[e]);
	}
	top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
	top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
	base = top == -INFINITY ? 0 : top;
	keep = lk_exp2(st->m[i] - base);
	st->m[i] = top;
	st->l[i] *= keep;
#pragma unroll
	for (int e = 0; e < 4; e++) {
		x[e] = lk_exp2(x[e] - base);
		st->l[i] += x[e];
		if (sizeof(T) == 1)
			x[e] *= m->v_scale[e];
	}
	p[0] = lk_pack2(x[0], x[1]);
	p[1] = lk_pack2(x[2], x[3]);
	low = __shfl_sync(0xffffffffu, keep, 8 * c); // a lane's sums are of rows 2c and 2c + 1
	high = __shfl_sync(0xffffffffu, keep, 8 * c + 4);
#pragma unroll
	for (int n = 0; n < DP / 16; n++) {
		st->acc[i][n][0] *= low;
		st->acc[i][n][1] *= high;
		st->acc[i][n][2] *= low;
		st->acc[i][n][3] *= high;
	}
}

/* Left side of the second product: of elements 4g .. 4g + 3 of each 32, the first two make one product, the others another. */
template <typename T, int DP, int NT>
__device__ static inline void add_values(struct state<DP, NT> *st, const uint32_t p[NT][2], const struct values<T, DP> *v)
{
#pragma unroll
	for (int b = 0; b < DP / 32; b++) {
		uint32_t w[4][2];

#pragma unroll
		for (int i = 0; i < 4; i++)
			widen_value(w[i], v->x[i][b]);
#pragma unroll
		for (int half = 0; half < 2; half++) {
			uint32_t a[4];

			a[0] = __byte_perm(w[0][half], w[1][half], 0x5410);
			a[1] = __byte_perm(w[0][half], w[1][half], 0x7632);
			a[2] = __byte_perm(w[2][half], w[3][half], 0x5410);
			a[3] = __byte_perm(w[2][half], w[3][half], 0x7632);
#pragma unroll
			for (int i = 0; i < NT; i++)
				lk_mma16816(st->acc[i][2 * b + half], a, p[i]);
		}
	}
}

/* ---- before and after ---- */

template <int DP, int NT>
__device__ static inline void state_begin(struct state<DP, NT> *st, const struct lk_attn_job *j, const struct where *w)
{
#pragma unroll
	for (int i = 0; i < NT; i++) {
		int row = w->g + 8 * i, r = w->row0 + row;
		int64_t t = row < w->rows ? r / j->group : j->tq; // no such row: like padding
		const lk_bf16 *q = j->q + (t < j->tq ? t * j->q_t + (w->key_head * j->group + r % j->group) * j->q_h : 0);

		st->pos[i] = lk_q_pos(j, t);
		st->seg[i] = lk_q_seg(j, t);
		st->m[i] = -INFINITY;
		st->l[i] = 0;
#pragma unroll
		for (int b = 0; b < DP / 32; b++) {
			int d = 32 * b + 8 * w->c;
			uint4 x = lk_gather8(q + (d < j->d ? d : 0), t < j->tq ? j->d - d : 0);

			st->q[2 * b][2 * i] = x.x;
			st->q[2 * b][2 * i + 1] = x.y;
			st->q[2 * b + 1][2 * i] = x.z;
			st->q[2 * b + 1][2 * i + 1] = x.w;
		}
#pragma unroll
		for (int n = 0; n < DP / 4; n++)
			st->acc[i][n / 4][n % 4] = 0;
	}
}

template <int DP, int NT> struct smem {
	float m[WARPS][8 * NT], l[WARPS][8 * NT], acc[WARPS][8 * NT][DP];
};

template <int DP, int NT>
__device__ static inline void put_acc(struct smem<DP, NT> *sm, const struct state<DP, NT> *st, const struct where *w)
{
#pragma unroll
	for (int i = 0; i < NT; i++) {
		float l = st->l[i];

		l += __shfl_xor_sync(0xffffffffu, l, 1);
		l += __shfl_xor_sync(0xffffffffu, l, 2);
		if (w->c == 0) {
			sm->m[w->warp][w->g + 8 * i] = st->m[i];
			sm->l[w->warp][w->g + 8 * i] = l;
		}
#pragma unroll
		for (int n = 0; n < DP / 16; n++)
#pragma unroll
			for (int e = 0; e < 4; e++)
				sm->acc[w->warp][2 * w->c + e % 2 + 8 * i][n / 2 * 32 + 4 * w->g + n % 2 * 2 + e / 2] =
					st->acc[i][n][e];
	}
}

/* The four warps' sums become one, in order, and go to memory. */
template <int DP, int NT>
__device__ static inline void put_part(const struct smem<DP, NT> *sm, const struct lk_attn_job *j, const struct parts *p,
				       const struct where *w)
{
	for (int i = static_cast<int>(threadIdx.x); i < w->rows * DP; i += THREADS) {
		int row = i / DP, d = i % DP, r = w->row0 + row;
		int64_t head = w->key_head * j->group + r % j->group;
		int64_t at = (static_cast<int64_t>(r / j->group) * j->h + head) * p->count + w->part;
		float top = -INFINITY, l = 0, o = 0;

		for (int k = 0; k < WARPS; k++)
			top = fmaxf(top, sm->m[k][row]);
		for (int k = 0; k < WARPS; k++) {
			float weight = top == -INFINITY ? 0 : lk_exp2(sm->m[k][row] - top);

			l += weight * sm->l[k][row];
			o += weight * sm->acc[k][row][d];
		}
		if (d < j->d)
			p->o[at * j->d + d] = o;
		if (d == 0) {
			p->m[at] = top;
			p->l[at] = l;
		}
	}
}

template <typename T, int DP, int NT, bool VEC>
__global__ void __launch_bounds__(THREADS) row_kernel(const struct lk_attn_job j, const struct parts p)
{
	typedef struct smem<DP, NT> shared;
	LK_SMEM(shared, sm);
	int lane = static_cast<int>(threadIdx.x) % 32, x = static_cast<int>(blockIdx.x) / j.hkv;
	int row0 = x % p.groups * ROWS, most = static_cast<int>(j.tq) * j.group;
	struct where w = { static_cast<int>(blockIdx.x) % j.hkv, x / p.groups, row0, most - row0 < ROWS ? most - row0 : ROWS,
			   lane / 4, lane % 4, static_cast<int>(threadIdx.x) / 32 };
	int tk = static_cast<int>(j.tk), k0 = w.part * p.keys, end = tk - k0 < p.keys ? tk : k0 + p.keys;
	struct state<DP, NT> st;
	struct keys<T, DP> k;
	struct values<T, DP> v;
	struct marks m;

	k0 += KEYS * w.warp;
	take_marks<T>(&m, &j, &w, k0);
	take_keys<T, DP, VEC>(&k, &j, &w, k0);
	take_values<T, DP, VEC>(&v, &j, &w, k0);
	state_begin<DP, NT>(&st, &j, &w);
	for (; k0 < end; k0 += KEYS * WARPS) {
		float s[2][4];
		uint32_t weight[NT][2];
		int next = end - k0 > KEYS * WARPS ? k0 + KEYS * WARPS : tk; // nothing is read past the last key

		scores<T, DP, NT>(s, &st, &k);
		take_keys<T, DP, VEC>(&k, &j, &w, next);
#pragma unroll
		for (int i = 0; i < NT; i++)
			weights<T, DP, NT>(weight[i], s, &st, &m, &j, i, w.c);
		take_marks<T>(&m, &j, &w, next);
		add_values<T, DP, NT>(&st, weight, &v);
		take_values<T, DP, VEC>(&v, &j, &w, next);
	}
	put_acc<DP, NT>(sm, &st, &w);
	__syncthreads();
	put_part<DP, NT>(sm, &j, &p, &w);
}

/* ---- joining the parts ---- */

/* The same for all threads; every warp's in order. */
__device__ static float block_max(float x, float *room)
{
	x = lk_warp_max(x);
	if (threadIdx.x % 32 == 0)
		room[threadIdx.x / 32] = x;
	__syncthreads();
	for (unsigned i = 0; i < blockDim.x / 32; i++)
		x = fmaxf(x, room[i]);
	__syncthreads();
	return x;
}

__device__ static float block_sum(float x, float *room)
{
	x = lk_warp_sum(x);
	if (threadIdx.x % 32 == 0)
		room[threadIdx.x / 32] = x;
	__syncthreads();
	x = 0;
	for (unsigned i = 0; i < blockDim.x / 32; i++)
		x += room[i];
	__syncthreads();
	return x;
}

__device__ static void put_state(const struct lk_attn_job *j, int64_t row, int d, float before, float top, float l, float x)
{
	if (top == -INFINITY)
		return; // nothing seen so far
	j->acc[row * j->d + d] = j->acc[row * j->d + d] * lk_exp2(before - top) + x;
	if (d == 0) {
		j->m[row] = top * LK_LN2;
		j->l[row] = l;
	}
}

__device__ static void put_output(const struct lk_attn_job *j, int64_t row, int d, float top, float l, float x)
{
	int64_t at = row / j->h * j->o_t + row % j->h * j->o_h + d;
	float o = l > 0 ? x / l : 0;

	if (j->o_f32)
		static_cast<float *>(j->o)[at] = o;
	else
		static_cast<lk_bf16 *>(j->o)[at] = __float2bfloat16(o);
	if (d == 0)
		j->lse[row] = l > 0 ? top * LK_LN2 + logf(l) : -INFINITY;
}

/* Block: one query and head; `width` threads for each of blockDim / width runs of parts. Within a run one part after the other,
 * then run after run. */
static __global__ void join_kernel(const struct lk_attn_job j, const struct parts p, int width)
{
	__shared__ float weight[PARTS_MOST], room[JOIN_MOST];
	int64_t row = blockIdx.x;
	int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
	int d = thread % width, run = thread / width, runs = threads / width;
	const float *m = p.m + row * p.count, *l = p.l + row * p.count, *o = p.o + row * p.count * j.d;
	float before = j.m ? j.m[row] * LK_LOG2E : -INFINITY, l_before = j.m ? j.l[row] : 0, top = before, x = 0;

	for (int i = thread; i < p.count; i += threads)
		top = fmaxf(top, m[i]);
	top = block_max(top, room);
	for (int i = thread; i < p.count; i += threads) {
		weight[i] = top == -INFINITY ? 0 : lk_exp2(m[i] - top);
		x += weight[i] * l[i];
	}
	float total = block_sum(x, room) + (top == -INFINITY ? 0 : lk_exp2(before - top) * l_before);

	x = 0;
	if (d < j.d)
		for (int i = p.count * run / runs; i < p.count * (run + 1) / runs; i++)
			x += weight[i] * o[static_cast<int64_t>(i) * j.d + d];
	room[thread] = x;
	__syncthreads();
	if (run || d >= j.d)
		return;
	for (int i = 1; i < runs; i++)
		x += room[i * width + d];
	if (j.m)
		put_state(&j, row, d, before, top, total, x);
	else
		put_output(&j, row, d, top, total, x);
}

static int join_parts(struct lk_dev *dev, const struct lk_attn_job *j, const struct parts *p)
{
	int width = (j->d + 31) / 32 * 32, runs = (p->count + 15) / 16;

	if (runs > JOIN_MOST / width)
		runs = JOIN_MOST / width;
	LK_LAUNCH(join_kernel, static_cast<unsigned>(j->tq * j->h), static_cast<unsigned>(runs * width), 0, lk_stream(dev), *j,
		  *p, width);
	return lk_launched(dev, "attention of few queries");
}

/* ---- the op ---- */

/* Enough parts to fill any chip several times over, but none so small that joining them is the work. */
static int divide(struct lk_dev *dev, const struct lk_attn_job *j, struct parts *p)
{
	const int64_t step = KEYS * WARPS;
	int64_t rows = j->tq * j->h, keys;
	size_t n;

	p->groups = static_cast<int>(lk_ceil_div(j->tq * j->group, ROWS));
	keys = lk_ceil_div(j->tk * j->hkv * p->groups, PARTS_MOST);
	if (keys < PART_LEAST)
		keys = PART_LEAST;
	keys = lk_ceil_div(keys, step) * step;
	keys = keys < j->tk ? keys : lk_ceil_div(j->tk, step) * step;
	p->keys = static_cast<int>(keys);
	p->count = static_cast<int>(lk_ceil_div(j->tk, keys));
	n = static_cast<size_t>(rows * p->count);
	p->o = static_cast<float *>(lk_scratch(dev, "attention of few queries", n * static_cast<size_t>(j->d + 2) * sizeof(float)));
	p->m = p->o + n * static_cast<size_t>(j->d);
	p->l = p->m + n;
	return p->o ? 0 : LK_ENOMEM;
}

template <typename T, int DP, int NT, bool VEC>
static int launch(struct lk_dev *dev, const struct lk_attn_job *j, const struct parts *p)
{
	auto kernel = row_kernel<T, DP, NT, VEC>;
	int rc = lk_attn_smem(dev, "attention of few queries", kernel, sizeof(struct smem<DP, NT>));

	if (rc)
		return rc;
	LK_LAUNCH(kernel, static_cast<unsigned>(j->hkv * p->groups) * static_cast<unsigned>(p->count), THREADS,
		  sizeof(struct smem<DP, NT>), lk_stream(dev), *j, *p);
	return lk_launched(dev, "attention of few queries");
}

template <typename T, int DP> static int choose_kernel(struct lk_dev *dev, const struct lk_attn_job *j, const struct parts *p)
{
	if (!j->vec)
		return launch<T, DP, 2, false>(dev, j, p);
	return j->tq * j->group <= 8 ? launch<T, DP, 1, true>(dev, j, p) : launch<T, DP, 2, true>(dev, j, p);
}

int lk_attn_row_fwd(struct lk_dev *dev, const struct lk_attn_job *j)
{
	struct parts p;
	int rc = divide(dev, j, &p);

	if (rc)
		return rc;
	if (j->k_scale)
		rc = j->d <= 64 ? choose_kernel<int8_t, 64>(dev, j, &p) : choose_kernel<int8_t, 128>(dev, j, &p);
	else
		rc = j->d <= 64 ? choose_kernel<lk_bf16, 64>(dev, j, &p) : choose_kernel<lk_bf16, 128>(dev, j, &p);
	return rc ? rc : join_parts(dev, j, &p);
}
