/* draw.cu - the choice of a token: one block a row of logits.
 *
 * Candidates are ordered by a 64-bit rank: without limits the column alone, else falling logits and then columns. Weights are
 * whole numbers, exp(..) 2^40 rounded, so that their sums do not depend on the order in which threads add. "The rank at which
 * the sum reaches a target" is found eight bits at a time, from a histogram of the ranks that share the bits found so far:
 * three such searches at most (top-k by count, top-p and the draw by weight), without a sort.
 */
#include <math.h>

#include "kernels/cuda/cuda_int.h"

enum { THREADS = 512, DIGIT = 8, BINS = 1 << DIGIT, ROWS = 32 /* of a launch */ };

typedef unsigned long long ull;
static_assert(sizeof(ull) == 8, "ranks and weights have 64 bits");

struct draw_result {
	double logprob;
	int64_t id;
};

struct draw_args {
	const float *logits;
	int64_t step;      /* elements from row to row */
	ull *weight;       /* (rows, last - first) */
	struct draw_result *out;
	struct lk_draw_cfg how;
	int id_bits;       /* of a column's place in the range */
	int want_logprob;
	double u[ROWS];
};

/* What the threads of a block share. */
struct room {
	ull bin[BINS];
	ull found, sum;          /* of a search */
	double part[THREADS / 32];
	float best[THREADS / 32];
	int at[THREADS / 32], bad;
};

/* One row: its logits, their weights, and the columns of the range. */
struct row {
	const float *x;
	ull *weight;
	int n, id_bits, ordered;
};

/* Falling logits as rising numbers; -0 is 0. */
__device__ static inline unsigned falling(float x)
{
	unsigned bits = __float_as_uint(x + 0.0f);

	return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

__device__ static inline ull rank_of(const struct row *r, int i)
{
	ull id = static_cast<ull>(i);

	return r->ordered ? static_cast<ull>(falling(r->x[i])) << r->id_bits | id : id;
}

__device__ static inline int finite(float x)
{
	return fabsf(x) <= 3.4028234664e38f;
}

/* Place of the largest finite logit, the lowest on ties; -1: there is a NaN or +Inf, or nothing finite. For all threads. */
__device__ static int largest(const struct row *r, struct room *m)
{
	float best = -INFINITY;
	int at = -1, bad = 0, lane = threadIdx.x % 32, warp = threadIdx.x / 32;

	for (int i = threadIdx.x; i < r->n; i += THREADS) {
		float x = r->x[i];

		bad |= !(x < INFINITY);
		if (finite(x) && (at < 0 || x > best)) {
			best = x;
			at = i;
		}
	}
	for (int d = 16; d; d >>= 1) {
		float x = __shfl_xor_sync(0xffffffffu, best, d);
		int i = __shfl_xor_sync(0xffffffffu, at, d);

		if (i >= 0 && (at < 0 || x > best || (x == best && i < at))) {
			best = x;
			at = i;
		}
	}
	if (lane == 0) {
		m->best[warp] = best;
		m->at[warp] = at;
	}
	bad = __syncthreads_or(bad);
	best = m->best[0];
	at = m->at[0];
	for (int w = 1; w < THREADS / 32; w++)
		if (m->at[w] >= 0 && (at < 0 || m->best[w] > best || (m->best[w] == best && m->at[w] < at))) {
			best = m->best[w];
			at = m->at[w];
		}
	return bad ? -1 : at;
}

/* Sum of exp(x - top) over the range, in a fixed order. For all threads. */
__device__ static double exp_sum(const struct row *r, double top, struct room *m)
{
	double sum = 0;

	for (int i = threadIdx.x; i < r->n; i += THREADS)
		sum += exp(static_cast<double>(r->x[i]) - top);
	for (int d = 16; d; d >>= 1)
		sum += __shfl_xor_sync(0xffffffffu, sum, d);
	if (threadIdx.x % 32 == 0)
		m->part[threadIdx.x / 32] = sum;
	__syncthreads();
	sum = 0;
	for (int w = 0; w < THREADS / 32; w++)
		sum += m->part[w];
	return sum;
}

/* One digit of a search: adds up, by the digit at `shift`, what lies at ranks that agree with `prefix` above it and are not
 * beyond `limit`. Neighbours of a thread mostly share their bin, so a run is added at once. */
__device__ static void histogram(const struct row *r, struct room *m, ull prefix, int shift, ull limit, int by_weight)
{
	int per = (r->n + THREADS - 1) / THREADS, from = threadIdx.x * per, to = min(from + per, r->n), bin = -1;
	ull run = 0;

	for (int b = threadIdx.x; b < BINS; b += THREADS)
		m->bin[b] = 0;
	__syncthreads();
	for (int i = from; i < to; i++) {
		ull rank = rank_of(r, i);
		int b = static_cast<int>(rank >> shift & (BINS - 1));

		if (!finite(r->x[i]) || rank > limit || rank >> shift >> DIGIT != prefix)
			continue;
		if (b != bin) {
			if (run)
				atomicAdd(&m->bin[bin], run);
			run = 0;
			bin = b;
		}
		run += by_weight ? r->weight[i] : 1;
	}
	if (run)
		atomicAdd(&m->bin[bin], run);
	__syncthreads();
}

/* The lowest rank up to which counts or weights sum to at least `target` (1 or more), and that sum in m->sum; the highest
 * that has anything where all together do not reach it. For all threads. */
__device__ static ull search(const struct row *r, struct room *m, ull limit, int by_weight, ull target)
{
	int bits = r->id_bits + (r->ordered ? 32 : 0), shift = (bits - 1) / DIGIT * DIGIT;
	ull prefix = 0, below = 0;

	for (; shift >= 0; shift -= DIGIT) {
		histogram(r, m, prefix, shift, limit, by_weight);
		if (threadIdx.x == 0) {
			ull sum = below;
			int b = 0, last = -1;

			for (; b < BINS; b++) {
				if (m->bin[b])
					last = b;
				if (sum + m->bin[b] >= target)
					break;
				sum += m->bin[b];
			}
			if (b == BINS) { // not reached: the end of what there is
				b = last;
				sum -= m->bin[b];
				target = ~static_cast<ull>(0);
			}
			m->found = static_cast<ull>(b);
			m->sum = sum;
			m->part[0] = target == ~static_cast<ull>(0);
		}
		__syncthreads();
		prefix = prefix << DIGIT | m->found;
		below = m->sum;
		if (m->part[0] != 0)
			target = ~static_cast<ull>(0);
		__syncthreads();
	}
	if (threadIdx.x == 0) // the last bin holds one candidate
		m->sum = below + m->bin[prefix & (BINS - 1)];
	__syncthreads();
	return prefix;
}

/* exp((x - top) / temperature) as whole numbers. */
__device__ static void weigh(const struct row *r, double top, double temperature)
{
	for (int i = threadIdx.x; i < r->n; i += THREADS) {
		double w = exp((static_cast<double>(r->x[i]) - top) / temperature);

		r->weight[i] = finite(r->x[i]) ? static_cast<ull>(w * 0x1p40 + 0.5) : 0;
	}
	__syncthreads();
}

/* Place of the column that u in [0,1) meets. For all threads. */
__device__ static int choose(const struct row *r, struct room *m, const struct lk_draw_cfg *how, double u)
{
	const ull end = ~static_cast<ull>(0);
	ull limit = end, all;

	if (how->top_k > 0)
		limit = search(r, m, end, 0, static_cast<ull>(how->top_k));
	search(r, m, limit, 1, end);
	all = m->sum;
	__syncthreads();
	if (how->top_p < 1) {
		limit = search(r, m, limit, 1,
			       max(static_cast<ull>(1), static_cast<ull>(ceil(how->top_p * static_cast<double>(all)))));
		all = m->sum;
		__syncthreads();
	}
	u *= static_cast<double>(all);
	all = search(r, m, limit, 1, static_cast<ull>(u) + 1);
	return static_cast<int>(all & ((static_cast<ull>(1) << r->id_bits) - 1));
}

static __global__ void __launch_bounds__(THREADS) draw_kernel(struct draw_args a)
{
	__shared__ struct room m;
	int64_t range = a.how.last - a.how.first;
	struct row r;
	double top, sum = 0;
	int best, at;

	r.x = a.logits + blockIdx.x * a.step + a.how.first;
	r.weight = a.weight + blockIdx.x * range;
	r.n = static_cast<int>(range);
	r.id_bits = a.id_bits;
	r.ordered = a.how.top_k > 0 || a.how.top_p < 1;
	best = at = largest(&r, &m);
	__syncthreads();
	if (best >= 0) {
		top = static_cast<double>(r.x[best]);
		if (a.want_logprob)
			sum = exp_sum(&r, top, &m);
		__syncthreads();
		if (a.how.temperature > 0 && a.how.top_k != 1) {
			weigh(&r, top, a.how.temperature);
			at = choose(&r, &m, &a.how, a.u[blockIdx.x]);
		}
	}
	if (threadIdx.x)
		return;
	a.out[blockIdx.x].id = best < 0 ? -1 : a.how.first + at;
	a.out[blockIdx.x].logprob = best < 0 ? NAN : static_cast<double>(r.x[at]) - top - log(sum);
}

static int draw_rows(struct lk_dev *dev, struct draw_args *a, int64_t rows, int32_t *host_id, double *host_logprob)
{
	struct draw_result got[ROWS];
	int rc;

	LK_LAUNCH(draw_kernel, static_cast<unsigned>(rows), THREADS, 0, lk_stream(dev), *a);
	rc = lk_launched(dev, "draw");
	if (!rc)
		rc = lk_result(dev, "draw", got, a->out, static_cast<size_t>(rows) * sizeof *got);
	for (int64_t i = 0; !rc && i < rows; i++) {
		host_id[i] = static_cast<int32_t>(got[i].id);
		if (host_logprob)
			host_logprob[i] = got[i].logprob;
	}
	return rc;
}

static int draw(struct lk_dev *dev, const struct lk_view *logits, const struct lk_draw_cfg *how, const double *host_u,
		int32_t *host_id, double *host_logprob)
{
	int64_t range = how->last - how->first, n = logits->n[0], at = 0;
	struct draw_args a;
	int rc = 0;

	memset(&a, 0, sizeof a);
	a.out = static_cast<struct draw_result *>(lk_scratch(dev, "draw", ROWS * (sizeof *a.out + static_cast<size_t>(range) * 8)));
	if (!a.out)
		return LK_ENOMEM;
	a.weight = reinterpret_cast<ull *>(a.out + ROWS);
	a.step = logits->stride[0];
	a.how = *how;
	a.want_logprob = host_logprob != NULL;
	while (static_cast<int64_t>(1) << a.id_bits < range)
		a.id_bits++;
	a.id_bits += a.id_bits == 0;
	for (; !rc && at < n; at += ROWS) {
		int64_t rows = n - at < ROWS ? n - at : static_cast<int64_t>(ROWS);

		a.logits = static_cast<const float *>(logits->data) + at * a.step;
		memcpy(a.u, host_u + at, static_cast<size_t>(rows) * sizeof *host_u);
		rc = draw_rows(dev, &a, rows, host_id + at, host_logprob ? host_logprob + at : NULL);
	}
	return rc;
}

void lk_cuda_fill_draw(struct lk_ops *o)
{
	o->generation.draw = draw;
}
