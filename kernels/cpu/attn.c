/* attn.c - attention on the CPU: who works on what. The arithmetic is in attn_*.hot.c, the tiling in attn_plan.c. */
#include <math.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels/cpu/attn_int.h"

/* What does not fit a group of queries and one set of accumulators is bounded by this much of a core's cache. */
enum { FWD_TILE_BYTES = 192 << 10, BWD_TILE_BYTES = 256 << 10, TASKS_PER_THREAD = 8 };

static const struct lk_attn_fwd_hot *fwd_hot(struct lk_dev *dev)
{
#ifdef __x86_64__
	switch (lk_cpu(dev)->isa) {
	case LK_ISA_AVX512: return &lk_attn_fwd_hot_avx512;
	case LK_ISA_AVX2: return &lk_attn_fwd_hot_avx2;
	default: break;
	}
#else
	(void)dev;
#endif
	return &lk_attn_fwd_hot_base;
}

static const struct lk_attn_bwd_hot *bwd_hot(struct lk_dev *dev)
{
#ifdef __x86_64__
	switch (lk_cpu(dev)->isa) {
	case LK_ISA_AVX512: return &lk_attn_bwd_hot_avx512;
	case LK_ISA_AVX2: return &lk_attn_bwd_hot_avx2;
	default: break;
	}
#else
	(void)dev;
#endif
	return &lk_attn_bwd_hot_base;
}

static int thread_id(void)
{
#ifdef _OPENMP
	return omp_get_thread_num();
#else
	return 0;
#endif
}

/* Groups of a query tile: as many as `bytes` of cache hold, but enough tiles for all threads to share `heads` rows of
 * them evenly. */
static int tile_groups(const struct lk_attn *a, int gw, int64_t group_bytes, int64_t bytes, int64_t heads, int threads)
{
	int64_t most = bytes / group_bytes, fair;

	fair = a->qs->n * heads / ((int64_t)gw * TASKS_PER_THREAD * threads);
	most = most < fair ? most : fair;
	return most > 1 ? (int)most : 1;
}

/* Scratch: the plan, then one room per thread. */
static float *rooms(struct lk_dev *dev, size_t plan_bytes, size_t room_bytes, void **plan)
{
	char *p = lk_cpu_scratch(dev, plan_bytes + (size_t)dev->threads * room_bytes);

	*plan = p;
	if (!p)
		lk_fail(dev, LK_ENOMEM, "attention: no memory for %zu bytes of scratch",
			plan_bytes + (size_t)dev->threads * room_bytes);
	return p ? (float *)(void *)(p + plan_bytes) : NULL;
}

static size_t round64(size_t n)
{
	return (n + 63) / 64 * 64;
}

/* Query tiles are independent of each other: whoever is free takes the next, all of one head before the next head so
 * that the threads share its keys and values in cache. */
static int forward(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_out *out)
{
	const struct lk_attn_fwd_hot *hot = fwd_hot(dev);
	int64_t nh = a->q.n[1], group = (int64_t)sizeof(float) * 2 * hot->gw * (a->q.n[2] + 1);
	struct lk_attn_plan p = { .a = a, .bk = hot->bk, .gw = hot->gw };
	size_t plan = round64(lk_attn_plan_bytes(a, hot->vec, hot->bk)), each;
	float *room;
	void *mem;

	p.tile_groups = tile_groups(a, hot->gw, group, FWD_TILE_BYTES, nh, dev->threads);
	each = round64(hot->room(&p));
	room = rooms(dev, plan, each, &mem);
	if (!room)
		return LK_ENOMEM;
	lk_attn_plan_make(&p, hot->vec, mem);
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic, 1)
	for (int64_t i = 0; i < nh * p.nqtiles; i++)
		hot->run(&p, p.order[i % p.nqtiles], i / p.nqtiles, out, room + each / 4 * (size_t)thread_id());
	return 0;
}

static int attn_fwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st)
{
	struct lk_attn_out out = { .st = st };

	return forward(dev, a, &out);
}

static int attn_once(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse)
{
	struct lk_attn_out out = { .o = o, .lse = lse };

	return forward(dev, a, &out);
}

/* ---- backward ---- */

static int64_t gcd(int64_t a, int64_t b)
{
	return b ? gcd(b, a % b) : a;
}

/* The c-th of n shares of `count` tiles, as two runs cut from both ends (zigzag): under a causal mask all pairs of a
 * query share and a key share cost nearly the same. */
struct share {
	int64_t from[2], to[2];
};

static struct share zigzag(int64_t count, int64_t c, int64_t n)
{
	int64_t m = 2 * n - 1 - c;

	return (struct share){ { count * c / (2 * n), count * m / (2 * n) },
			       { count * (c + 1) / (2 * n), count * (m + 1) / (2 * n) } };
}

/* Query share x key share of all heads that use key head hk. */
static void block(const struct lk_attn_bwd_hot *hot, const struct lk_attn_plan *p, int64_t hk, const struct share *q,
		  const struct share *k, const struct lk_attn_grad *g, float *room)
{
	int64_t group = p->a->q.n[1] / p->a->k.n[1];

	for (int64_t h = hk * group; h < (hk + 1) * group; h++)
		for (int i = 0; i < 2; i++)
			for (int64_t t = q->from[i]; t < q->to[i]; t++)
				for (int j = 0; j < 2; j++)
					hot->run(p, &p->qtiles[t], h, k->from[j], k->to[j], g, room);
}

/* Each team takes key heads of its own. Inside a team of n, thread i keeps key share i and meets query share (i + s) % n
 * in step s: in no step do two threads add to the same dq, dk or dv, and the order of the sums depends on n alone. */
static int attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
		    const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv)
{
	const struct lk_attn_bwd_hot *hot = bwd_hot(dev);
	struct lk_attn_grad g = { dout, dq, dk, dv, lse, delta };
	int64_t nk = a->k.n[1], teams = gcd(nk, dev->threads), n = dev->threads / teams;
	int64_t group = (int64_t)sizeof(float) * 5 * hot->gw * (a->q.n[2] + 1);
	struct lk_attn_plan p = { .a = a, .bk = hot->bk, .gw = hot->gw };
	size_t plan = round64(lk_attn_plan_bytes(a, hot->vec, hot->bk)), each;
	float *room;
	void *mem;

	p.tile_groups = tile_groups(a, hot->gw, group, BWD_TILE_BYTES, 1, (int)n);
	each = round64(hot->room(&p));
	room = rooms(dev, plan, each, &mem);
	if (!room)
		return LK_ENOMEM;
	lk_attn_plan_make(&p, hot->vec, mem);
#pragma omp parallel num_threads(dev->threads)
	{
		int64_t team = thread_id() / n, i = thread_id() % n;
		float *mine = room + each / 4 * (size_t)thread_id();

		for (int64_t hk = team; hk < nk; hk += teams)
			for (int64_t s = 0; s < n; s++) {
				struct share qs = zigzag(p.nqtiles, (i + s) % n, n), ks = zigzag(p.nktiles, i, n);

				block(hot, &p, hk, &qs, &ks, &g, mine);
				if (n > 1) {
#pragma omp barrier
				}
			}
	}
	return 0;
}

/* ---- what needs no tiles ---- */

static float *row3(const struct lk_view *v, int64_t t, int64_t h)
{
	return (float *)v->data + t * v->stride[0] + h * v->stride[1];
}

static int attn_begin(struct lk_dev *dev, const struct lk_attn_state *st, int64_t tq, int64_t h, int64_t d)
{
#pragma omp parallel for num_threads(dev->threads)
	for (int64_t r = 0; r < tq * h; r++) {
		st->m[r] = -INFINITY;
		st->l[r] = 0;
		for (int64_t i = 0; i < d; i++)
			st->acc[r * d + i] = 0;
	}
	return 0;
}

static int attn_end(struct lk_dev *dev, const struct lk_view *o, float *lse, const struct lk_attn_state *st)
{
	int64_t nh = o->n[1], d = o->n[2];

#pragma omp parallel for num_threads(dev->threads)
	for (int64_t r = 0; r < o->n[0] * nh; r++) {
		float inv = st->l[r] > 0 ? 1.0f / st->l[r] : 0.0f, *to = row3(o, r / nh, r % nh);

		for (int64_t i = 0; i < d; i++)
			to[i] = st->acc[r * d + i] * inv;
		lse[r] = st->l[r] > 0 ? st->m[r] + logf(st->l[r]) : -INFINITY;
	}
	return 0;
}

static int attn_delta(struct lk_dev *dev, float *delta, const struct lk_view *o, const struct lk_view *dout)
{
	int64_t nh = o->n[1];

#pragma omp parallel for num_threads(dev->threads)
	for (int64_t r = 0; r < o->n[0] * nh; r++) {
		const float *x = row3(o, r / nh, r % nh), *y = row3(dout, r / nh, r % nh);
		float sum[16] = { 0 };

		for (int64_t i = 0; i < o->n[2]; i++)
			sum[i % 16] += x[i] * y[i];
		for (int i = 1; i < 16; i++)
			sum[0] += sum[i];
		delta[r] = sum[0];
	}
	return 0;
}

static int attn_merge(struct lk_dev *dev, float *o, float *lse, const float *o2, const float *lse2, int64_t tq,
		      int64_t h, int64_t d)
{
#pragma omp parallel for num_threads(dev->threads)
	for (int64_t r = 0; r < tq * h; r++) {
		float m = fmaxf(lse[r], lse2[r]), w1, w2, inv;

		if (m == -INFINITY)
			continue; // neither part saw anything
		w1 = expf(lse[r] - m);
		w2 = expf(lse2[r] - m);
		inv = 1.0f / (w1 + w2);
		for (int64_t i = 0; i < d; i++)
			o[r * d + i] = (w1 * o[r * d + i] + w2 * o2[r * d + i]) * inv;
		lse[r] = m + logf(w1 + w2);
	}
	return 0;
}

void lk_cpu_fill_attn(struct lk_dev *dev)
{
	dev->ops.attn_begin = attn_begin;
	dev->ops.attn_fwd = attn_fwd;
	dev->ops.attn_end = attn_end;
	dev->ops.attn_once = attn_once;
	dev->ops.attn_delta = attn_delta;
	dev->ops.attn_bwd = attn_bwd;
	dev->ops.attn_merge = attn_merge;
}
