/* What devices and links do in a second. The table is of makers' figures, lessened where what is reached has been published: cuBLAS
 * products of bf16 reach 0.78 of the peak on an H200 and a step's products less; attention of 128 numbers a head, forward and
 * backward, 0.55 (Shah et al. 2024, FlashAttention-3); NVLink and a 400 Gb/s card a GPU nine tenths of their figures. */
#include "common/train/rates.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/comm/device.h"
#include "common/train/peak.h"

const char *const lwm_gpu_names[] = { "none", "a100", "h100", "h200", NULL };

static const struct gpu {
	int64_t gib;
	struct lwm_rates rates;
} gpus[] = {
	{ 0, { 0 } },
	{ 79, { 200, 140, 1700, 250, 22, 22, 0, 20, 8 } },  /* 80 GB: 312 TFLOP/s, 2.0 TB/s, NVLink 300 GB/s, 200 Gb/s a GPU */
	{ 79, { 640, 450, 2900, 400, 45, 45, 0, 20, 8 } },  /* 80 GB: 989 TFLOP/s, 3.35 TB/s, NVLink 450 GB/s, 400 Gb/s a GPU */
	{ 139, { 640, 450, 4300, 400, 45, 45, 0, 20, 8 } }, /* 141 GB: 989 TFLOP/s, 4.8 TB/s */
};

int64_t lwm_gpu_gib(int gpu)
{
	return gpus[gpu].gib;
}

static void fill_zero(double *value, double with)
{
	if (!(*value > 0))
		*value = with;
}

struct lwm_rates lwm_rates_of(const struct lwm_rates *said, int gpu)
{
	const struct lwm_rates *g = &gpus[gpu].rates;
	struct lwm_rates y = *said;

	fill_zero(&y.products, g->products);
	fill_zero(&y.attention, g->attention);
	fill_zero(&y.memory, g->memory);
	fill_zero(&y.node, g->node);
	fill_zero(&y.net, g->net);
	fill_zero(&y.host, g->host);
	fill_zero(&y.latency, g->latency);
	if (!y.node_ranks)
		y.node_ranks = g->node_ranks;
	fill_zero(&y.attention, y.products);
	fill_zero(&y.net, y.node);
	return y;
}

bool lwm_rates_known(const struct lwm_rates *r)
{
	return r->products > 0 && r->attention > 0 && r->memory > 0 && r->node > 0 && r->net > 0;
}

/* ---- measuring ---- */

enum { TOKENS = 1024, HEADS = 4, HEAD_DIM = 64, VECTOR = 8 << 20 /* floats */, SENT = 2 << 20 /* floats of a rank */, TIMES = 3,
       SMALL = 50, SIDE = 512, MOST_THREADS = 32 };
static const double WINDOW = 0.25; /* seconds of each measurement */

/* Seconds of one call, the mean of all within the window: ranks that share cores run at the same time, and each has its share of
 * them over such a while, where a single call may have a core to itself. */
typedef int timed_fn(void *arg, struct lwm_err *e);

static int time_mean(struct lk_dev *dev, timed_fn *fn, void *arg, double *seconds, struct lwm_err *e)
{
	int n = 0;
	double t0;

	LWM_TRY(fn(arg, e)); /* sets things up */
	LWM_TRY(lwm_dev_check(dev, lk_sync(dev), e));
	for (t0 = lwm_now(); n == 0 || lwm_now() - t0 < WINDOW; n++) {
		LWM_TRY(fn(arg, e));
		LWM_TRY(lwm_dev_check(dev, lk_sync(dev), e));
	}
	*seconds = (lwm_now() - t0) / n;
	return 0;
}

struct product {
	struct lk_dev *dev;
	struct lk_view x, w, y;
};

static int multiply_once(void *arg, struct lwm_err *e)
{
	struct product *p = arg;

	return lwm_dev_check(p->dev, lk_matmul(p->dev, &p->y, &p->x, &p->w, LK_TB, 1.0f), e);
}

/* On a host. A GPU is its rank's own, and its clock depends on the numbers: lwm_peak_measure. */
static int measure_products(struct lk_dev *dev, double *tflops, struct lwm_err *e)
{
	struct product p = { .dev = dev };
	int threads = lk_dev_threads(dev) < MOST_THREADS ? lk_dev_threads(dev) : MOST_THREADS;
	int64_t rows = threads > 1 ? 3 * SIDE * threads : SIDE; /* a product of SIDE rows is too small to be shared */
	size_t n = (size_t)rows * SIDE, weights = (size_t)SIDE * SIDE, bytes = (2 * n + weights) * sizeof(float);
	void *block;
	double t = 0;
	int rc;

	if (!lk_dev_is_host(dev)) {
		LWM_TRY(lwm_peak_measure(dev, NULL, 0, tflops, e));
		*tflops /= 1e12;
		return 0;
	}
	LWM_TRY(lwm_dev_check(dev, lk_mem_alloc(dev, bytes, &block), e));
	p.x = lk_view2(block, LK_F32, rows, SIDE);
	p.y = lk_view2((float *)block + n, LK_F32, rows, SIDE);
	p.w = lk_view2((float *)block + 2 * n, LK_F32, SIDE, SIDE);
	rc = lwm_dev_check(dev, lk_zero(dev, block, bytes), e);
	if (rc == 0)
		rc = time_mean(dev, multiply_once, &p, &t, e);
	lk_mem_free(dev, block);
	*tflops = t > 0 ? 2.0 * (double)n * SIDE / t / 1e12 : 0;
	return rc;
}

struct attention {
	struct lk_dev *dev;
	struct lk_attn a;
	struct lk_view o, dout, dq, dk, dv;
	float *lse, *delta;
};

static int attend_once(void *arg, struct lwm_err *e)
{
	struct attention *x = arg;

	LWM_TRY(lwm_dev_check(x->dev, lk_attn_once(x->dev, &x->a, &x->o, x->lse), e));
	LWM_TRY(lwm_dev_check(x->dev, lk_attn_delta(x->dev, x->delta, &x->o, &x->dout), e));
	return lwm_dev_check(x->dev, lk_attn_bwd(x->dev, &x->a, &x->dout, x->lse, x->delta, &x->dq, &x->dk, &x->dv), e);
}

/* Of one document; q, k, v, o, dout in the device's dtype, gradients in fp32, from one block of zeros. */
static int measure_attention(struct lk_dev *dev, double *tflops, struct lwm_err *e)
{
	int64_t n = (int64_t)TOKENS * HEADS * HEAD_DIM, size = (int64_t)lk_dtype_size(lk_dev_dtype(dev)), th = TOKENS * HEADS;
	size_t bytes = (size_t)(n * (5 * size + 3 * 4) + 2 * th * 4);
	int32_t *ids = calloc((size_t)TOKENS * 2, sizeof *ids);
	struct attention x = { .dev = dev };
	struct lk_seq *seq = NULL;
	void *block = NULL;
	char *at;
	double t;
	int rc = 0;

	if (!ids)
		return lwm_fail_memory(e, NULL);
	for (int32_t i = 0; i < TOKENS; i++)
		ids[i] = i;
	LWM_GO(lwm_dev_check(dev, lk_seq_new(dev, &seq, TOKENS, ids, ids + TOKENS), e));
	LWM_GO(lwm_dev_check(dev, lk_mem_alloc(dev, bytes, &block), e));
	LWM_GO(lwm_dev_check(dev, lk_zero(dev, block, bytes), e));
	at = block;
	struct lk_view *kept[] = { &x.a.q, &x.a.k, &x.a.v, &x.o, &x.dout }, *grads[] = { &x.dq, &x.dk, &x.dv };
	for (int i = 0; i < 5; i++, at += n * size)
		*kept[i] = lk_view3(at, lk_dev_dtype(dev), TOKENS, HEADS, HEAD_DIM);
	for (int i = 0; i < 3; i++, at += n * 4)
		*grads[i] = lk_view3(at, LK_F32, TOKENS, HEADS, HEAD_DIM);
	x.lse = (float *)at;
	x.delta = x.lse + th;
	x.a.qs = x.a.ks = seq;
	x.a.scale = 0.125f;
	x.a.causal = 1;
	LWM_GO(time_mean(dev, attend_once, &x, &t, e));
	*tflops = 14.0 * HEADS * HEAD_DIM * TOKENS * (TOKENS + 1) / 2 / t / 1e12;
out:
	lk_mem_free(dev, block);
	lk_seq_free(seq);
	free(ids);
	return rc;
}

struct vectors {
	struct lk_dev *dev;
	struct lk_view y, x;
};

static int add_vectors(void *arg, struct lwm_err *e)
{
	struct vectors *v = arg;

	return lwm_dev_check(v->dev, lk_axpy(v->dev, &v->y, 1, &v->x), e);
}

static int measure_memory(struct lk_dev *dev, double *gbs, struct lwm_err *e)
{
	struct vectors v = { .dev = dev };
	void *block;
	double t = 0;
	int rc;

	LWM_TRY(lwm_dev_check(dev, lk_mem_alloc(dev, (size_t)VECTOR * 8, &block), e));
	v.y = lk_view1(block, LK_F32, VECTOR);
	v.x = lk_view1((float *)block + VECTOR, LK_F32, VECTOR);
	rc = lwm_dev_check(dev, lk_zero(dev, block, (size_t)VECTOR * 8), e);
	if (rc == 0)
		rc = time_mean(dev, add_vectors, &v, &t, e);
	lk_mem_free(dev, block);
	*gbs = t > 0 ? 12.0 * VECTOR / t / 1e9 : 0;
	return rc;
}

/* Seconds of an all-gather and a scattered sum of the same bytes, through host memory, and of the smallest all-gather. */
static int time_exchanges(struct lwm_comm *world, float *all, float *mine, double *both, double *least, struct lwm_err *e)
{
	int size = lwm_comm_size(world);
	double t0, t;

	for (int i = 0; i <= TIMES; i++) {
		LWM_TRY(lwm_comm_barrier(world, e));
		t0 = lwm_now();
		LWM_TRY(lwm_comm_allgather(world, mine, SENT / (size_t)size * sizeof *mine, all, e));
		LWM_TRY(lwm_comm_reduce_scatter_f32(world, all, mine, SENT / size * size, e));
		t = lwm_now() - t0;
		if (i == 1 || (i > 1 && t < *both))
			*both = t;
	}
	t0 = lwm_now();
	for (int i = 0; i < SMALL; i++)
		LWM_TRY(lwm_comm_allgather(world, mine, sizeof *mine, all, e));
	*least = (lwm_now() - t0) / SMALL;
	return 0;
}

static int measure_links(struct lwm_comm *world, double *gbs, double *latency, struct lwm_err *e)
{
	int size = lwm_comm_size(world);
	float *all = calloc(SENT, sizeof *all), *mine = calloc(SENT, sizeof *mine);
	double both = 0, least = 0;
	int rc = lwm_agree(world, all && mine ? 0 : lwm_fail_memory(e, NULL), e);

	if (rc == 0)
		rc = time_exchanges(world, all, mine, &both, &least, e);
	free(all);
	free(mine);
	both -= 2 * least;
	*gbs = both > 0 ? 2.0 * (size - 1) * (SENT / size) * 4 / both / 1e9 : 0;
	*latency = least * 1e6;
	return rc;
}

/* On this rank alone, each rate at the same time as on all others. */
static int measure_device(struct lwm_rates *m, struct lk_dev *dev, struct lwm_comm *world, struct lwm_err *e)
{
	LWM_TRY(lwm_comm_barrier(world, e));
	LWM_TRY(lwm_agree(world, measure_products(dev, &m->products, e), e));
	LWM_TRY(lwm_comm_barrier(world, e));
	LWM_TRY(lwm_agree(world, measure_attention(dev, &m->attention, e), e));
	LWM_TRY(lwm_comm_barrier(world, e));
	return lwm_agree(world, measure_memory(dev, &m->memory, e), e);
}

int lwm_rates_measure(struct lwm_rates *r, struct lk_dev *dev, struct lwm_comm *world, struct lwm_err *e)
{
	struct lwm_rates m = { 0 };
	double *value[] = { &m.products, &m.attention, &m.memory, &m.node, &m.latency };
	int64_t slowness[5];

	LWM_TRY(measure_device(&m, dev, world, e));
	m.node = 1000; /* alone: nothing is sent */
	if (lwm_comm_size(world) > 1)
		LWM_TRY(measure_links(world, &m.node, &m.latency, e));
	for (int i = 0; i < 5; i++) /* the slowest: the smallest rate, the longest latency; in millionths */
		slowness[i] = (int64_t)(*value[i] * 1e6) * (i < 4 ? -1 : 1);
	LWM_TRY(lwm_comm_max_i64(world, slowness, 5, e));
	for (int i = 0; i < 5; i++)
		*value[i] = (double)slowness[i] / 1e6 * (i < 4 ? -1 : 1);
	fill_zero(&r->products, m.products);
	fill_zero(&r->attention, m.attention);
	fill_zero(&r->memory, m.memory);
	fill_zero(&r->node, m.node);
	fill_zero(&r->latency, m.latency);
	return 0;
}
