/* rope.cu - rotary position embedding, interleaved pairs, in place.
 *
 * The angle pos * theta^(-2i/D) reaches thousands of turns with far positions, so it is formed in fp64, in turns: pos times
 * the pair's frequency in turns, less the nearest whole number. What is left lies within half a turn, where fp32 sine and
 * cosine are right to a few 1e-7. The frequencies come from the host as an argument of the kernel. */
#include <inttypes.h>
#include <math.h>

#include "kernels/cuda/dense_int.h"

enum { PAIRS = 128, THREADS = 256, UNROLL = 4, TOKENS = 8 };

struct rope_freqs {
	double turns[PAIRS]; /* a position's step */
};

struct rope_args {
	int64_t t, token, head;  /* tokens; strides */
	int heads, pairs;        /* pairs of this call, at most PAIRS */
	int tokens;              /* of a block, at most TOKENS */
	int inverse;
};

/* cosine and sine of all pairs of the block's tokens */
__device__ static inline void make_table(float2 *table, const int32_t *pos, int count, const struct rope_freqs *f,
					 const struct rope_args *a)
{
	for (int i = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x); i < count * a->pairs; i += THREADS) {
		double turn = pos[i / a->pairs] * f->turns[i % a->pairs];
		float s, c;

		sincospif(2.0f * static_cast<float>(turn - rint(turn)), &s, &c);
		table[i] = make_float2(c, a->inverse ? -s : s);
	}
}

/* A head of one of the block's tokens; rows of the block are counted over heads, then tokens. */
struct cursor {
	int token, head;
};

__device__ static inline void advance(struct cursor *c, int rows, int heads)
{
	c->head += rows;
	while (c->head >= heads) {
		c->head -= heads;
		c->token++;
	}
}

/* Pairs i, i + 1 of a group by table[i], table[i + 1]. */
__device__ static inline void rotate2(float *x, float4 w)
{
	float a = x[0], b = x[1], c = x[2], d = x[3];

	x[0] = a * w.x - b * w.y;
	x[1] = a * w.y + b * w.x;
	x[2] = c * w.z - d * w.w;
	x[3] = c * w.w + d * w.z;
}

/* VEC: the whole group belongs to the head, and the table is 16-byte aligned. */
template <bool VEC, int G> __device__ static inline void rotate(float *x, const float2 *table, int left)
{
#pragma unroll
	for (int i = 0; i < G / 2; i += 2) {
		float2 first = make_float2(1, 0), second = first;

		if (VEC) {
			rotate2(x + 2 * i, *reinterpret_cast<const float4 *>(table + i));
			continue;
		}
		if (2 * i < left)
			first = table[i];
		if (2 * i + 2 < left)
			second = table[i + 1];
		rotate2(x + 2 * i, make_float4(first.x, first.y, second.x, second.y));
	}
}

/* The block is as wide as a head has groups (a power of two, so some threads may idle) and takes blockDim.y heads at once. */
template <bool VEC, typename T>
static __global__ void __launch_bounds__(THREADS)
	rope_kernel(T *x, const int32_t *pos, struct rope_freqs f, struct rope_args a)
{
	enum { G = lk_width<T>::SIZE };
	__shared__ __align__(16) float2 table[TOKENS * PAIRS];
	int64_t first = static_cast<int64_t>(blockIdx.x) * a.tokens;
	int count = static_cast<int>(a.t - first < a.tokens ? a.t - first : a.tokens);
	int at = G * static_cast<int>(threadIdx.x), left = 2 * a.pairs - at;
	struct cursor c = { 0, 0 };

	x += first * a.token + at;
	make_table(table, pos + first, count, &f, &a);
	__syncthreads();
	advance(&c, static_cast<int>(threadIdx.y), a.heads);
	while (c.token < count && left > 0) {
		struct lk_held<T, G> h[UNROLL];
		struct cursor from = c;

#pragma unroll
		for (int u = 0; u < UNROLL; u++, advance(&c, static_cast<int>(blockDim.y), a.heads))
			if (c.token < count)
				lk_hold<VEC>(&h[u], x + c.token * a.token + c.head * a.head, left);
		c = from;
#pragma unroll
		for (int u = 0; u < UNROLL; u++, advance(&c, static_cast<int>(blockDim.y), a.heads)) {
			float v[G];

			if (c.token >= count)
				continue;
			lk_held_get<G>(v, &h[u]);
			rotate<VEC, G>(v, table + c.token * a.pairs + at / 2, left);
			lk_give<VEC, G>(x + c.token * a.token + c.head * a.head, v, left);
		}
	}
}

/* Frequencies of the pairs [first, first + n) of heads of size d, remembered from the last call: decoding asks for the
 * same ones for every layer and token. */
static const struct rope_freqs *freqs_of(int64_t d, double theta, int64_t first, int n)
{
	static thread_local struct rope_freqs f;
	static thread_local int64_t for_d, for_first;
	static thread_local double for_theta;

	if (for_d == d && for_first == first && for_theta == theta)
		return &f;
	for (int i = 0; i < n; i++)
		f.turns[i] = pow(theta, -2.0 * static_cast<double>(first + i) / static_cast<double>(d)) / (2 * M_PI);
	for_d = d;
	for_first = first;
	for_theta = theta;
	return &f;
}

/* Few tokens a block when they have many heads. */
static int tokens_for(int64_t elements)
{
	int64_t n = THREADS * UNROLL * 8 / elements;

	return static_cast<int>(n < 1 ? 1 : n > TOKENS ? 0 + TOKENS : n);
}

template <typename T>
static int rope_typed(struct lk_dev *dev, const struct lk_view *x, const int32_t *pos, double theta, int inverse)
{
	const int g = lk_width<T>::SIZE;
	int64_t d = x->n[2], heads = x->n[1];
	struct rope_args a = { x->n[0], x->stride[0], x->stride[1], static_cast<int>(heads), 0, tokens_for(heads * d), inverse };
	bool vec = lk_vec_rows(x) && (heads == 1 || x->stride[1] % g == 0);
	auto k = vec ? rope_kernel<true, T> : rope_kernel<false, T>;

	for (int64_t first = 0; first < d / 2; first += PAIRS) {
		a.pairs = static_cast<int>(d / 2 - first < PAIRS ? d / 2 - first : PAIRS + 0);
		LK_LAUNCH(k, static_cast<unsigned>(lk_ceil_div(a.t, a.tokens)),
			  lk_tile_rows(1, lk_ceil_div(2 * a.pairs, g)).threads, 0, lk_stream(dev),
			  static_cast<T *>(x->data) + 2 * first, pos, *freqs_of(d, theta, first, a.pairs), a);
	}
	return lk_launched(dev, "rope");
}

static int rope(struct lk_dev *dev, const struct lk_view *x, const int32_t *pos, double theta, int inverse)
{
	if (x->n[1] * x->n[2] > INT32_MAX / TOKENS)
		return lk_cuda_fail(dev, LK_EUNSUP,
				    "rope: a token of %" PRId64 " heads of %" PRId64 " elements is beyond what cuda takes", x->n[1],
				    x->n[2]);
	return x->dtype == LK_BF16 ? rope_typed<lk_bf16>(dev, x, pos, theta, inverse)
				   : rope_typed<float>(dev, x, pos, theta, inverse);
}

void lk_cuda_fill_rope(struct lk_ops *o)
{
	o->dense.rope = rope;
}
