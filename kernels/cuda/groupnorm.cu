/* groupnorm.cu - group norm with silu, forward and backward.
 *
 * An image is cut into parts of some 16384 elements, a block each. Threads lie along the channels, V of them each (8 where
 * channels and pointers allow, else 1), and walk down the pixels, FWD or BWD of them under way at once, so that every access is a
 * whole row of the image. Three kernels: sums per part and channel, one block per group to join them, and the pass that
 * writes. That one takes the images backwards, so that it begins with what the L2 cache still has.
 * Variance: sums of a part are formed around its first pixel; parts and channels are joined around the true mean in fp64.
 */
#include "kernels/cuda/image_int.h"
#include "kernels/cuda/ptx.h"

enum { THREADS = 256, WARPS = THREADS / 32, PART = 16384, FWD = 4, BWD = 2, MOST_IMAGES = 65535 };

struct norm {
	const lk_bf16 *x, *dy; /* dy, m: backward */
	lk_bf16 *y;            /* y, or dx */
	float *mean, *rstd;    /* (n,groups) */
	const float *scale, *bias;
	float2 *part;          /* (n,parts,c): forward mean and sum of squares around it, backward sums of d and d xhat */
	float2 *image;         /* (n,c): part summed up */
	float2 *group;         /* (n,groups): means of d scale and d scale xhat */
	float *dscale, *dbias;
	int64_t pixels, n, first; /* images [first, first + n) */
	int32_t c, cg, groups, parts, per; /* per: pixels of a part */
	float eps;
	int silu, reverse; /* reverse: block y = 0 has the last image */
};

/* What a thread of the walking kernels does: pixels row, row + rows, ... of [begin, end), channels from c on. */
struct lane {
	int64_t image, begin, end;
	int32_t across, c, row, rows; /* across: threads along the channels */
	bool on;
};

template <int V> __host__ __device__ static inline int threads_across(const struct norm *p)
{
	return p->c / V < THREADS ? p->c / V : static_cast<int>(THREADS);
}

template <int V> __device__ static inline struct lane lane_of(const struct norm *p)
{
	struct lane l;

	l.across = threads_across<V>(p);
	l.image = p->first + (p->reverse ? p->n - 1 - blockIdx.y : blockIdx.y);
	l.row = threadIdx.x / l.across;
	l.rows = THREADS / l.across;
	l.c = (blockIdx.z * l.across + threadIdx.x % l.across) * V;
	l.on = l.row < l.rows && l.c < p->c;
	l.begin = static_cast<int64_t>(blockIdx.x) * p->per;
	l.end = l.begin + p->per < p->pixels ? l.begin + p->per : p->pixels;
	return l;
}

template <int V> __device__ static inline int64_t at(const struct norm *p, const struct lane *l, int64_t pixel)
{
	return (l->image * p->pixels + pixel) * p->c + l->c;
}

template <int V> __device__ static inline void load(float *v, const lk_bf16 *p)
{
	if constexpr (V == 8)
		lk_load8(v, p);
	else
		v[0] = __bfloat162float(p[0]);
}

template <int V> __device__ static inline void store(lk_bf16 *p, const float *v)
{
	if constexpr (V == 8)
		lk_store8(p, v);
	else
		p[0] = __float2bfloat16(v[0]);
}

/* B pixels from k on; those after the part stay as they are. */
template <int V, int B>
__device__ static inline void load_batch(float (&v)[B][V], const lk_bf16 *from, const struct norm *p, const struct lane *l,
					 int64_t k)
{
#pragma unroll
	for (int b = 0; b < B; b++)
		if (k + b * l->rows < l->end)
			load<V>(v[b], from + at<V>(p, l, k + b * l->rows));
}

template <int V, int B>
__device__ static inline void store_batch(float (&v)[B][V], const struct norm *p, const struct lane *l, int64_t k)
{
#pragma unroll
	for (int b = 0; b < B; b++)
		if (k + b * l->rows < l->end)
			store<V>(p->y + at<V>(p, l, k + b * l->rows), v[b]);
}

__device__ static inline float sigmoid(float v)
{
	return __fdividef(1.0f, 1.0f + lk_exp2(-1.442695041f * v));
}

/* What the threads of a block bring to be summed over its rows: column i of row r lies at r across V + i. */
template <int V> struct columns {
	float a[THREADS * V], b[THREADS * V];
};

template <int V> __device__ static inline void put_row(struct columns<V> *s, const float *a, const float *b)
{
	for (int i = 0; i < V; i++) {
		s->a[threadIdx.x * V + i] = a[i];
		s->b[threadIdx.x * V + i] = b[i];
	}
}

template <int V> __device__ static inline float2 column_sum(const struct columns<V> *s, const struct lane *l, int col)
{
	float2 sum = make_float2(0.0f, 0.0f);

	for (int r = 0; r < l->rows; r++) {
		sum.x += s->a[r * l->across * V + col];
		sum.y += s->b[r * l->across * V + col];
	}
	return sum;
}

/* ---- forward ---- */

template <int V> static __global__ void __launch_bounds__(THREADS) fwd_parts(const struct norm p)
{
	__shared__ struct columns<V> cols;
	struct lane l = lane_of<V>(&p);
	float sum[V], sq[V], base[V], v[FWD][V];
	int64_t c0 = static_cast<int64_t>(blockIdx.z) * l.across * V;

	for (int i = 0; i < V; i++)
		sum[i] = sq[i] = base[i] = 0.0f;
	if (l.on)
		load<V>(base, p.x + at<V>(&p, &l, l.begin));
	for (int64_t k = l.begin + l.row; k < l.end && l.on; k += FWD * l.rows) {
		load_batch(v, p.x, &p, &l, k);
#pragma unroll
		for (int b = 0; b < FWD; b++)
			for (int i = 0; i < V && k + b * l.rows < l.end; i++) {
				float d = v[b][i] - base[i];

				sum[i] += d;
				sq[i] += d * d;
			}
	}
	put_row<V>(&cols, sum, sq);
	__syncthreads();
	for (int i = threadIdx.x; i < l.across * V && c0 + i < p.c; i += THREADS) {
		float2 s = column_sum<V>(&cols, &l, i);
		float n = static_cast<float>(l.end - l.begin), mean = s.x / n;
		float from = __bfloat162float(p.x[(l.image * p.pixels + l.begin) * p.c + c0 + i]);

		p.part[(l.image * p.parts + blockIdx.x) * p.c + c0 + i] = make_float2(from + mean, fmaxf(s.y - mean * s.x, 0.0f));
	}
}

__device__ static inline double warp_sum(double x)
{
	for (int d = 16; d; d >>= 1)
		x += __shfl_xor_sync(0xffffffffu, x, d);
	return x;
}

__device__ static inline double part_pixels(const struct norm *p, int64_t part)
{
	return static_cast<double>(part + 1 < p->parts ? p->per : p->pixels - part * p->per);
}

/* The sum of all threads' x, to all of them. */
__device__ static double block_sum(double x)
{
	__shared__ double of_warps[WARPS];
	double sum = 0.0;

	x = warp_sum(x);
	__syncthreads(); // the last sum has been read
	if (threadIdx.x % 32 == 0)
		of_warps[threadIdx.x / 32] = x;
	__syncthreads();
	for (int w = 0; w < WARPS; w++)
		sum += of_warps[w];
	return sum;
}

/* Mean and rstd of one group by one block: all (part, channel) of the group, twice. */
static __global__ void __launch_bounds__(THREADS) fwd_groups(const struct norm p)
{
	int64_t image = p.first + blockIdx.x / p.groups, group = blockIdx.x % p.groups;
	int64_t items = static_cast<int64_t>(p.parts) * p.cg;
	const float2 *part = p.part + image * p.parts * p.c + group * p.cg;
	double n = static_cast<double>(p.pixels) * p.cg, sum = 0.0, sq = 0.0, mean;

	for (int64_t k = threadIdx.x; k < items; k += THREADS)
		sum += part_pixels(&p, k / p.cg) * static_cast<double>(part[k / p.cg * p.c + k % p.cg].x);
	mean = block_sum(sum) / n;
	for (int64_t k = threadIdx.x; k < items; k += THREADS) {
		float2 v = part[k / p.cg * p.c + k % p.cg];
		double d = static_cast<double>(v.x) - mean;

		sq += static_cast<double>(v.y) + part_pixels(&p, k / p.cg) * d * d;
	}
	sq = block_sum(sq);
	if (threadIdx.x == 0) {
		p.mean[image * p.groups + group] = static_cast<float>(mean);
		p.rstd[image * p.groups + group] = static_cast<float>(1.0 / sqrt(sq / n + static_cast<double>(p.eps)));
	}
}

/* What a thread needs of its V channels. */
template <int V> struct affine {
	float mean[V], rstd[V], scale[V], bias[V];
};

template <int V> __device__ static inline void load_affine(struct affine<V> *f, const struct norm *p, const struct lane *l)
{
	for (int i = 0; i < V; i++) {
		int64_t c = l->on ? l->c + i : 0, g = l->image * p->groups + c / p->cg;

		f->mean[i] = p->mean[g];
		f->rstd[i] = p->rstd[g];
		f->scale[i] = p->scale[c];
		f->bias[i] = p->bias[c];
	}
}

template <int V> static __global__ void __launch_bounds__(THREADS) fwd_apply(const struct norm p)
{
	struct lane l = lane_of<V>(&p);
	struct affine<V> f;
	float v[FWD][V] = {};

	load_affine<V>(&f, &p, &l);
	for (int i = 0; i < V; i++)
		f.scale[i] *= f.rstd[i];
	for (int64_t k = l.begin + l.row; k < l.end && l.on; k += FWD * l.rows) {
		load_batch(v, p.x, &p, &l, k);
#pragma unroll
		for (int b = 0; b < FWD; b++)
			for (int i = 0; i < V; i++) {
				v[b][i] = (v[b][i] - f.mean[i]) * f.scale[i] + f.bias[i];
				if (p.silu)
					v[b][i] *= sigmoid(v[b][i]);
			}
		store_batch(v, &p, &l, k);
	}
}

/* ---- backward ---- */

/* h: normalised x in, d: dy in; d becomes the gradient after the affine map. */
template <int V>
__device__ static inline void back_silu(float *d, float *h, const struct affine<V> *f, int silu)
{
	for (int i = 0; i < V; i++) {
		h[i] = (h[i] - f->mean[i]) * f->rstd[i];
		if (silu) {
			float v = h[i] * f->scale[i] + f->bias[i], s = sigmoid(v);

			d[i] *= s * (1.0f + v * (1.0f - s));
		}
	}
}

template <int V> static __global__ void __launch_bounds__(THREADS, 2) bwd_parts(const struct norm p)
{
	__shared__ struct columns<V> cols;
	struct lane l = lane_of<V>(&p);
	struct affine<V> f;
	float sd[V], sh[V], d[BWD][V], h[BWD][V];
	int64_t c0 = static_cast<int64_t>(blockIdx.z) * l.across * V;

	load_affine<V>(&f, &p, &l);
	for (int i = 0; i < V; i++)
		sd[i] = sh[i] = 0.0f;
	for (int64_t k = l.begin + l.row; k < l.end && l.on; k += BWD * l.rows) {
		load_batch(h, p.x, &p, &l, k);
		load_batch(d, p.dy, &p, &l, k);
#pragma unroll
		for (int b = 0; b < BWD; b++) {
			if (k + b * l.rows >= l.end)
				break;
			back_silu<V>(d[b], h[b], &f, p.silu);
			for (int i = 0; i < V; i++) {
				sd[i] += d[b][i];
				sh[i] += d[b][i] * h[b][i];
			}
		}
	}
	put_row<V>(&cols, sd, sh);
	__syncthreads();
	for (int i = threadIdx.x; i < l.across * V && c0 + i < p.c; i += THREADS)
		p.part[(l.image * p.parts + blockIdx.x) * p.c + c0 + i] = column_sum<V>(&cols, &l, i);
}

/* Channel by channel the sum over parts, a warp each, then the two means of the group; a block per group. */
static __global__ void __launch_bounds__(THREADS) bwd_groups(const struct norm p)
{
	int64_t image = p.first + blockIdx.x / p.groups, group = blockIdx.x % p.groups;
	double n = static_cast<double>(p.pixels) * p.cg, s1 = 0.0, s2 = 0.0;
	int lane = threadIdx.x % 32;

	for (int64_t c = group * p.cg + threadIdx.x / 32; c < (group + 1) * p.cg; c += WARPS) {
		double d = 0.0, h = 0.0;

		for (int64_t k = lane; k < p.parts; k += 32) {
			float2 v = p.part[(image * p.parts + k) * p.c + c];

			d += static_cast<double>(v.x);
			h += static_cast<double>(v.y);
		}
		d = warp_sum(d);
		h = warp_sum(h);
		if (lane == 0) {
			p.image[image * p.c + c] = make_float2(static_cast<float>(d), static_cast<float>(h));
			s1 += d * static_cast<double>(p.scale[c]);
			s2 += h * static_cast<double>(p.scale[c]);
		}
	}
	s1 = block_sum(s1);
	s2 = block_sum(s2);
	if (threadIdx.x == 0)
		p.group[image * p.groups + group] = make_float2(static_cast<float>(s1 / n), static_cast<float>(s2 / n));
}

template <int V> static __global__ void __launch_bounds__(THREADS, 2) bwd_apply(const struct norm p)
{
	struct lane l = lane_of<V>(&p);
	struct affine<V> f;
	float d[BWD][V] = {}, h[BWD][V] = {}, m1[V], m2[V];

	load_affine<V>(&f, &p, &l);
	for (int i = 0; i < V; i++) {
		float2 m = p.group[l.image * p.groups + (l.on ? l.c + i : 0) / p.cg];

		m1[i] = m.x;
		m2[i] = m.y;
	}
	for (int64_t k = l.begin + l.row; k < l.end && l.on; k += BWD * l.rows) {
		load_batch(h, p.x, &p, &l, k);
		load_batch(d, p.dy, &p, &l, k);
#pragma unroll
		for (int b = 0; b < BWD; b++) {
			back_silu<V>(d[b], h[b], &f, p.silu);
			for (int i = 0; i < V; i++)
				d[b][i] = f.rstd[i] * (d[b][i] * f.scale[i] - m1[i] - h[b][i] * m2[i]);
		}
		store_batch(d, &p, &l, k);
	}
}

static __global__ void __launch_bounds__(THREADS) bwd_params(const struct norm p)
{
	int64_t c = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
	float d = 0.0f, h = 0.0f;

	if (c >= p.c)
		return;
	for (int64_t i = 0; i < p.n; i++) {
		float2 v = p.image[i * p.c + c];

		d += v.x;
		h += v.y;
	}
	p.dscale[c] += h;
	p.dbias[c] += d;
}

/* ---- launches ---- */

static void plan_norm(struct norm *p, const struct lk_view *x, int groups)
{
	p->x = static_cast<const lk_bf16 *>(x->data);
	p->n = x->n[0];
	p->pixels = x->n[1] * x->n[2];
	p->c = static_cast<int32_t>(x->n[3]);
	p->groups = groups;
	p->cg = p->c / groups;
	p->per = PART / p->c < 8 ? 8 : PART / p->c;
	p->parts = static_cast<int32_t>(lk_ceil_div(p->pixels, p->per));
}

/* The three kernels; a grid has room for MOST_IMAGES. */
template <int V> static int run_norm(struct lk_dev *dev, const char *op, struct norm p)
{
	auto parts = p.dy ? bwd_parts<V> : fwd_parts<V>, apply = p.dy ? bwd_apply<V> : fwd_apply<V>;
	auto groups = p.dy ? bwd_groups : fwd_groups;
	unsigned z = static_cast<unsigned>(lk_ceil_div(p.c / V, threads_across<V>(&p)));
	int64_t all = p.n;
	int rc = 0;

	for (p.first = 0; p.first < all && !rc; p.first += MOST_IMAGES) {
		p.n = all - p.first < MOST_IMAGES ? all - p.first : static_cast<int64_t>(MOST_IMAGES);
		p.reverse = 0;
		dim3 grid(static_cast<unsigned>(p.parts), static_cast<unsigned>(p.n), z);

		LK_LAUNCH(parts, grid, THREADS, 0, lk_stream(dev), p);
		LK_LAUNCH(groups, static_cast<unsigned>(p.n * p.groups), THREADS, 0, lk_stream(dev), p);
		p.reverse = 1;
		LK_LAUNCH(apply, grid, THREADS, 0, lk_stream(dev), p);
		rc = lk_launched(dev, op);
	}
	return rc;
}

static int groupnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *mean, float *rstd, const struct lk_view *x,
			 const float *scale, const float *bias, int groups, float eps, int silu)
{
	struct norm p = {};

	if (x->dtype != LK_BF16 || y->dtype != LK_BF16)
		return lk_cuda_fail(dev, LK_EUNSUP, "groupnorm_fwd: images are bf16 on this device");
	plan_norm(&p, x, groups);
	p.y = static_cast<lk_bf16 *>(y->data);
	p.mean = mean;
	p.rstd = rstd;
	p.scale = scale;
	p.bias = bias;
	p.eps = eps;
	p.silu = silu;
	p.part = static_cast<float2 *>(lk_scratch(dev, "groupnorm_fwd", sizeof(float2) * static_cast<size_t>(p.n * p.parts * p.c)));
	if (!p.part)
		return LK_ENOMEM;
	return p.c % 8 == 0 && lk_aligned16(p.x) && lk_aligned16(p.y) ? run_norm<8>(dev, "groupnorm_fwd", p) :
									  run_norm<1>(dev, "groupnorm_fwd", p);
}

/* part, image and group, one after the other */
static int bwd_scratch(struct lk_dev *dev, struct norm *p)
{
	int64_t parts = p->n * p->parts * p->c, images = p->n * p->c, groups = p->n * p->groups;
	size_t bytes = sizeof(float2) * static_cast<size_t>(parts + images + groups);

	p->part = static_cast<float2 *>(lk_scratch(dev, "groupnorm_bwd", bytes));
	p->image = p->part + parts;
	p->group = p->image + images;
	return p->part ? 0 : LK_ENOMEM;
}

static int groupnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dscale, float *dbias, const struct lk_view *dy,
			 const struct lk_view *x, const float *mean, const float *rstd, const float *scale,
			 const float *bias, int groups, float eps, int silu)
{
	struct norm p = {};
	int rc;

	(void)eps; /* it is in rstd */
	if (x->dtype != LK_BF16 || dx->dtype != LK_BF16 || dy->dtype != LK_BF16)
		return lk_cuda_fail(dev, LK_EUNSUP, "groupnorm_bwd: images are bf16 on this device");
	plan_norm(&p, x, groups);
	p.dy = static_cast<const lk_bf16 *>(dy->data);
	p.y = static_cast<lk_bf16 *>(dx->data);
	p.mean = const_cast<float *>(mean);
	p.rstd = const_cast<float *>(rstd);
	p.scale = scale;
	p.bias = bias;
	p.dscale = dscale;
	p.dbias = dbias;
	p.silu = silu;
	rc = bwd_scratch(dev, &p);
	if (!rc)
		rc = p.c % 8 == 0 && lk_aligned16(p.x) && lk_aligned16(p.dy) && lk_aligned16(p.y) ?
			     run_norm<8>(dev, "groupnorm_bwd", p) :
			     run_norm<1>(dev, "groupnorm_bwd", p);
	if (rc)
		return rc;
	LK_LAUNCH(bwd_params, static_cast<unsigned>(lk_ceil_div(p.c, THREADS)), THREADS, 0, lk_stream(dev), p);
	return lk_launched(dev, "groupnorm_bwd");
}

void lk_cuda_fill_groupnorm(struct lk_ops *o)
{
	o->image.groupnorm_fwd = groupnorm_fwd;
	o->image.groupnorm_bwd = groupnorm_bwd;
}
