/* loss.cu - softmax cross-entropy, a block for each row of logits.
 *
 * The row is read once, into shared memory, and its gradient is written once, in its place. Thread i of B owns the groups
 * i, i + B, ... of the row and reads only what it put there, so no barrier is needed. What does not fit into shared memory,
 * beyond some 110,000 entries of bf16 on Hopper, is read again. Of a vocabulary in parts xent_part reads and xent_join, which
 * comes after an exchange, reads again and writes. */
#include <math.h>

#include "kernels/cuda/dense_int.h"

enum { MAX_THREADS = 1024, JOIN_THREADS = 512, GROUPS_EACH = 8, OWN_SMEM = 1024 };

template <typename T> struct xent_args {
	struct lk_rows<T> logits;
	const int32_t *target;
	const float *weight;
	float *nll, *hit;
	int64_t v; /* below 2^31, dispatch says */
	int stash; /* groups of a row that have a place in shared memory */
	int grad;
};

/* A row as its thread sees it. */
template <typename T, int G> struct share {
	struct lk_held<T, G> *stash; /* group g at stash[g] */
	T *row;
	int v, stashed;
};

/* Group g from memory; what lies beyond the row is -Inf and counts nothing. */
template <bool VEC, typename T, int G>
__device__ static inline void row_group(struct lk_held<T, G> *h, const struct share<T, G> *s, int g)
{
	int64_t left = s->v - static_cast<int64_t>(g) * G;
	float x[G];

	lk_hold<VEC>(h, s->row + static_cast<int64_t>(g) * G, left);
	if (VEC || left >= G)
		return;
	lk_held_get<G>(x, h);
#pragma unroll
	for (int i = 0; i < G; i++)
		x[i] = i < left ? x[i] : -INFINITY;
	lk_held_set<G>(h, x);
}

template <bool VEC, typename T, int G> __device__ static inline void share_read(const struct share<T, G> *s)
{
	for (int g = static_cast<int>(threadIdx.x); g < s->stashed; g += static_cast<int>(blockDim.x)) {
		struct lk_held<T, G> h;

		if (VEC) {
			lk_cp_async16(&s->stash[g], s->row + g * G, 16);
			continue;
		}
		row_group<VEC>(&h, s, g);
		s->stash[g] = h;
	}
	lk_cp_async_commit();
	lk_cp_async_wait<0>();
}

/* Calls f(x, at) for each of the thread's groups, x being its G floats from element `at` on. */
template <bool VEC, typename T, int G, typename F> __device__ static inline void share_each(const struct share<T, G> *s, F f)
{
	int groups = s->v / G + (s->v % G != 0);

	for (int g = static_cast<int>(threadIdx.x); g < groups; g += static_cast<int>(blockDim.x)) {
		struct lk_held<T, G> h;
		float x[G];

		if (g < s->stashed)
			h = s->stash[g];
		else
			row_group<VEC>(&h, s, g);
		lk_held_get<G>(x, &h);
		f(x, static_cast<int64_t>(g) * G);
	}
}

template <bool VEC, typename T, int G> __device__ static inline float share_max(const struct share<T, G> *s, float *part)
{
	float max = -INFINITY;

	share_each<VEC>(s, [&](const float *x, int64_t) {
#pragma unroll
		for (int i = 0; i < G; i++)
			max = fmaxf(max, x[i]);
	});
	return lk_block_max(max, part);
}

/* exp(x - max): the difference first, which is exact where it matters */
__device__ static inline float exp_from(float x, float max)
{
	return lk_exp2((x - max) * 1.44269504f);
}

template <bool VEC, typename T, int G>
__device__ static inline float share_sum(const struct share<T, G> *s, float max, float *part)
{
	float sum = 0;

	share_each<VEC>(s, [&](const float *x, int64_t) {
#pragma unroll
		for (int i = 0; i < G; i++)
			sum += exp_from(x[i], max);
	});
	return lk_block_sum(sum, part);
}

/* Does an entry before the target reach the maximum, too? */
template <bool VEC, typename T, int G>
__device__ static inline int share_earlier(const struct share<T, G> *s, float max, int32_t target)
{
	int found = 0;

	share_each<VEC>(s, [&](const float *x, int64_t at) {
#pragma unroll
		for (int i = 0; i < G; i++)
			found |= at + i < target && x[i] == max;
	});
	return __syncthreads_or(found);
}

/* weight (softmax - onehot), to where the logits were. scale = weight / sum */
template <bool VEC, typename T, int G>
__device__ static inline void share_grad(const struct share<T, G> *s, float max, float scale, float weight, int32_t target)
{
	share_each<VEC>(s, [&](const float *x, int64_t at) {
		float y[G];

#pragma unroll
		for (int i = 0; i < G; i++)
			y[i] = scale * exp_from(x[i], max);
		if (at <= target && target < at + G) {
#pragma unroll
			for (int i = 0; i < G; i++)
				y[i] -= at + i == target ? weight : 0.0f;
		}
		lk_give<VEC, G>(s->row + at, y, s->v - at);
	});
}

template <bool VEC, typename T> static __global__ void __launch_bounds__(MAX_THREADS) xent_kernel(struct xent_args<T> a)
{
	enum { G = lk_width<T>::SIZE };
	LK_SMEM(unsigned char, smem);
	__shared__ float part[2][33];
	struct share<T, G> s;
	int32_t target = a.target[blockIdx.x];
	float max, sum, at_target, hit;

	s.stash = reinterpret_cast<struct lk_held<T, G> *>(smem);
	s.row = a.logits.p + blockIdx.x * a.logits.step;
	s.v = static_cast<int>(a.v);
	s.stashed = a.stash;
	at_target = lk_to_float(s.row[target]);
	share_read<VEC>(&s);
	max = share_max<VEC>(&s, part[0]);
	sum = share_sum<VEC>(&s, max, part[1]);
	hit = at_target == max;
	if (a.hit && hit && share_earlier<VEC>(&s, max, target))
		hit = 0;
	if (threadIdx.x == 0) {
		a.nll[blockIdx.x] = max - at_target + logf(sum);
		if (a.hit)
			a.hit[blockIdx.x] = hit;
	}
	if (!a.grad)
		return;
	__syncthreads(); // everybody has read the logit of the target
	share_grad<VEC>(&s, max, a.weight[blockIdx.x] / sum, a.weight[blockIdx.x], target);
}

/* ---- a vocabulary in parts ---- */

template <bool VEC, typename T> static __global__ void __launch_bounds__(MAX_THREADS) part_kernel(struct xent_args<T> a)
{
	enum { G = lk_width<T>::SIZE };
	LK_SMEM(unsigned char, smem);
	__shared__ float part[2][33];
	struct share<T, G> s;
	int32_t target = a.target[blockIdx.x];
	int here = target >= 0 && target < a.v;
	float max, sum = 0, at_target, hit;

	s.stash = reinterpret_cast<struct lk_held<T, G> *>(smem);
	s.row = a.logits.p + blockIdx.x * a.logits.step;
	s.v = static_cast<int>(a.v);
	s.stashed = a.stash;
	at_target = here ? lk_to_float(s.row[target]) : 0.0f;
	share_read<VEC>(&s);
	max = share_max<VEC>(&s, part[0]);
	if (max != -INFINITY) // the same in all threads
		sum = share_sum<VEC>(&s, max, part[1]);
	hit = here && at_target == max;
	if (hit && share_earlier<VEC>(&s, max, target))
		hit = 0;
	if (threadIdx.x == 0) {
		float *y = a.nll + static_cast<int64_t>(blockIdx.x) * LK_XENT_PART;

		y[0] = max;
		y[1] = sum;
		y[2] = at_target;
		y[3] = hit;
	}
}

template <typename T> struct join_args {
	struct lk_rows<T> logits;
	const int32_t *target;
	const float *weight, *all;
	float *nll, *hit;
	int64_t v, step; /* step: floats from one part's numbers to the next's */
	int parts, grad;
};

/* Every thread works the few numbers of its row out for itself. */
template <bool VEC, typename T> static __global__ void __launch_bounds__(JOIN_THREADS) join_kernel(struct join_args<T> a)
{
	enum { G = lk_width<T>::SIZE };
	const float *p = a.all + static_cast<int64_t>(blockIdx.x) * LK_XENT_PART;
	struct share<T, G> s = { nullptr, a.logits.p + blockIdx.x * a.logits.step, static_cast<int>(a.v), 0 };
	float sum = 0, own = 0, max;
	int first = 0;

	for (int k = 1; k < a.parts; k++)
		first = p[k * a.step] > p[first * a.step] ? k : first;
	max = p[first * a.step];
	for (int k = 0; k < a.parts; k++) {
		sum += p[k * a.step + 1] * exp_from(p[k * a.step], max);
		own += p[k * a.step + 2];
	}
	if (threadIdx.x == 0) {
		a.nll[blockIdx.x] = max - own + logf(sum);
		if (a.hit)
			a.hit[blockIdx.x] = p[first * a.step + 3];
	}
	if (a.grad)
		share_grad<VEC>(&s, max, a.weight[blockIdx.x] / sum, a.weight[blockIdx.x], a.target[blockIdx.x]);
}

/* How a row is dealt to a block: groups that have a place in shared memory, and threads. */
struct row_launch {
	int stash, threads;
	int64_t room;
};

template <typename T> static struct row_launch launch_of(struct lk_dev *dev, const struct lk_view *logits)
{
	int64_t groups = lk_ceil_div(logits->n[1], lk_width<T>::SIZE), room = (lk_cu(dev)->smem_max - OWN_SMEM) / 16;
	int64_t want = lk_ceil_div(lk_ceil_div(groups, GROUPS_EACH), 32) * 32;
	struct row_launch l = { static_cast<int>(groups < room ? groups : room),
				want < MAX_THREADS ? static_cast<int>(want) : 0 + MAX_THREADS, room };

	return l;
}

template <typename T>
static int part_typed(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, float *part)
{
	struct row_launch l = launch_of<T>(dev, logits);
	struct xent_args<T> a = { lk_rows_of<T>(logits), target, nullptr, part, nullptr, logits->n[1], l.stash, 0 };
	auto k = lk_vec_rows(logits) ? part_kernel<true, T> : part_kernel<false, T>;
	cudaError_t rc = cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(l.room) * 16);

	if (rc != cudaSuccess)
		return lk_cuda_check(dev, "xent_part", rc);
	LK_LAUNCH(k, static_cast<unsigned>(logits->n[0]), l.threads, static_cast<size_t>(a.stash) * 16, lk_stream(dev), a);
	return lk_launched(dev, "xent_part");
}

static int xent_part(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, float *part, int grad)
{
	(void)grad; // bf16 logits keep more of the gradient's digits than e^(x - max) in bf16 would
	return logits->dtype == LK_BF16 ? part_typed<lk_bf16>(dev, logits, target, part)
					: part_typed<float>(dev, logits, target, part);
}

template <typename T>
static int join_typed(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight,
		      const float *all, int parts, float *nll, float *hit, int grad)
{
	struct join_args<T> a = { lk_rows_of<T>(logits), target, weight, all, nll, hit, logits->n[1],
				  logits->n[0] * LK_XENT_PART, parts, grad };
	auto k = lk_vec_rows(logits) ? join_kernel<true, T> : join_kernel<false, T>;
	int most = launch_of<T>(dev, logits).threads, threads = most < JOIN_THREADS ? most : 0 + JOIN_THREADS;

	LK_LAUNCH(k, static_cast<unsigned>(logits->n[0]), grad ? threads : 32, 0, lk_stream(dev), a);
	return lk_launched(dev, "xent_join");
}

static int xent_join(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight,
		     const float *all, int parts, int mine, float *nll, float *hit, int grad)
{
	(void)mine;
	return logits->dtype == LK_BF16 ? join_typed<lk_bf16>(dev, logits, target, weight, all, parts, nll, hit, grad)
					: join_typed<float>(dev, logits, target, weight, all, parts, nll, hit, grad);
}

/* ---- all of it ---- */

template <typename T>
static int xent_typed(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight,
		      float *nll, float *hit, int grad)
{
	struct row_launch l = launch_of<T>(dev, logits);
	struct xent_args<T> a = { lk_rows_of<T>(logits), target, weight, nll, hit, logits->n[1], l.stash, grad };
	auto k = lk_vec_rows(logits) ? xent_kernel<true, T> : xent_kernel<false, T>;
	size_t smem = static_cast<size_t>(a.stash) * 16;
	cudaError_t rc = cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize,
					      static_cast<int>(l.room) * 16);

	if (rc != cudaSuccess)
		return lk_cuda_check(dev, "xent", rc);
	LK_LAUNCH(k, static_cast<unsigned>(logits->n[0]), l.threads, smem, lk_stream(dev), a);
	return lk_launched(dev, "xent");
}

static int xent(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight, float *nll,
		float *hit, int grad)
{
	return logits->dtype == LK_BF16 ? xent_typed<lk_bf16>(dev, logits, target, weight, nll, hit, grad)
					: xent_typed<float>(dev, logits, target, weight, nll, hit, grad);
}

void lk_cuda_fill_loss(struct lk_ops *o)
{
	o->dense.xent = xent;
	o->dense.xent_part = xent_part;
	o->dense.xent_join = xent_join;
}
