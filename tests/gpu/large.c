/* large.c - shapes that only a GPU holds: more than 2^31 elements, rows of a million tokens, long attention.
 *
 *	large [cuda:0] [--dry] [--probe]
 *
 * ref would take hours for these, so they are held against the device itself: the last rows of a long tensor must come out as
 * they do alone, with the same bits; long attention must come out alike on both paths (LWM_CUDA_ATTN=mma and sm90), and the
 * last document of a long row as if it were alone. --dry: small sizes, on any device. --probe: only opens the device. Exit: 0
 * also where there is no GPU; 1 when a case failed.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/cuda/bench_gpu.h"

enum { MOST = 6, TAIL = 5 };

static struct {
	int passed, failed, skipped;
} count;

static void verdict(const char *name, int bad, const char *why)
{
	count.passed += bad == 0;
	count.failed += bad > 0;
	count.skipped += bad < 0;
	printf("%-44s %s%s%s\n", name, bad == 0 ? "ok" : bad > 0 ? "FAIL" : "skipped", *why ? ": " : "", why);
	fflush(stdout);
}

/* ---- the last rows of a long tensor ---- */

struct rows {
	struct gpu_bench *b;
	int64_t t, d;
	void *p[MOST];
	struct lk_conv *conv;
};

struct tail {
	const char *name;
	int (*run)(const struct rows *x);
	/* tensors as in bench memory.c: 'a' activations, 'f' fp32, '1' ones, 'i' index below 200, 'z' index 0, 'q' 8 bits; '*' rows x
	 * columns, 'h' rows x heads of 128, '|' rows, '-' one row that all share and that is not compared */
	const char *tensors;
	int64_t t, d;
};

static struct lk_view v2(const struct rows *x, int i, int dtype)
{
	return lk_view2(x->p[i], dtype, x->t, x->d);
}
static struct lk_view v3(const struct rows *x, int i, int dtype)
{
	return lk_view3(x->p[i], dtype, x->t, x->d / 128, 128);
}
#define ACT (x->b->act)
#define DEV (x->b->dev)
#define RUN(name) static int name(const struct rows *x)

RUN(run_cast)
{
	struct lk_view y = v2(x, 0, ACT), f = v2(x, 1, LK_F32);

	return lk_cast(DEV, &y, &f);
}
RUN(run_axpy)
{
	struct lk_view y = v2(x, 0, ACT), f = v2(x, 1, LK_F32);

	return lk_axpy(DEV, &y, 0.5f, &f);
}
RUN(run_scale)
{
	struct lk_view y = v2(x, 0, ACT);

	return lk_scale(DEV, &y, 0.3f);
}
RUN(run_norm)
{
	struct lk_view y = v2(x, 0, ACT), in = v2(x, 1, ACT), delta = v2(x, 2, ACT), w = lk_view1(x->p[4], ACT, x->d);

	return lk_rmsnorm_fwd(DEV, &y, x->p[3], &in, &delta, &w, 1e-6f);
}
RUN(run_norm_bwd)
{
	struct lk_view dx = v2(x, 0, ACT), in = v2(x, 1, ACT), dy = v2(x, 2, ACT), w = lk_view1(x->p[4], ACT, x->d);

	return lk_rmsnorm_bwd(DEV, &dx, x->p[5], &dy, &in, &w, x->p[3]);
}
RUN(run_rope)
{
	struct lk_view y = v3(x, 0, ACT);

	return lk_rope(DEV, &y, x->p[1], 1e4, 0);
}
RUN(run_swiglu)
{
	struct lk_view y = v2(x, 0, ACT), g = v2(x, 1, ACT), u = v2(x, 2, ACT);

	return lk_swiglu_fwd(DEV, &y, &g, &u);
}
RUN(run_swiglu_bwd)
{
	struct lk_view dg = v2(x, 0, ACT), du = v2(x, 1, ACT), dy = v2(x, 2, ACT), g = v2(x, 3, ACT), u = v2(x, 4, ACT);

	return lk_swiglu_bwd(DEV, &dg, &du, &dy, &g, &u);
}
RUN(run_embed)
{
	struct lk_view y = v2(x, 0, ACT), table = lk_view2(x->p[1], ACT, 1, x->d);

	return lk_embed_fwd(DEV, &y, x->p[2], &table, 0);
}
RUN(run_xent)
{
	struct lk_view logits = v2(x, 0, ACT);

	return lk_xent(DEV, &logits, x->p[1], x->p[2], x->p[3], x->p[4], 1);
}
RUN(run_adamw)
{
	struct lk_adamw c = { 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 0.1, 0.05 };

	return lk_adamw(DEV, x->p[0], x->p[1], x->p[2], x->p[3], ACT == LK_F32 ? NULL : x->p[4], x->t * x->d, &c);
}
RUN(run_attn_end)
{
	struct lk_view o = v3(x, 0, ACT);
	struct lk_attn_state st = { x->p[2], x->p[3], x->p[1] };

	return lk_attn_end(DEV, &o, x->p[4], &st);
}
RUN(run_attn_delta)
{
	struct lk_view o = v3(x, 0, ACT), dout = v3(x, 1, ACT);

	return lk_attn_delta(DEV, x->p[2], &o, &dout);
}
RUN(run_attn_merge)
{
	return lk_attn_merge(DEV, x->p[0], x->p[2], x->p[1], x->p[3], x->t, x->d / 128, 128);
}
RUN(run_store)
{
	struct lk_view y = v3(x, 0, LK_I8), in = v3(x, 1, ACT);

	return lk_kv_store(DEV, &y, x->p[2], x->d / 128, &in);
}
RUN(run_load)
{
	struct lk_view y = v3(x, 1, ACT), in = v3(x, 0, LK_I8);

	return lk_kv_load(DEV, &y, &in, x->p[2], x->d / 128);
}

/* images: a row is one of side x side pixels */
enum { CHANNELS = 32 };
static struct lk_view v4(const struct rows *x, int i)
{
	int64_t side = llround(sqrt((double)(x->d / CHANNELS)));

	return lk_view4(x->p[i], ACT, x->t, side, side, CHANNELS);
}
RUN(run_groupnorm)
{
	struct lk_view y = v4(x, 0), in = v4(x, 1);

	return lk_groupnorm_fwd(DEV, &y, x->p[2], x->p[3], &in, x->p[4], x->p[4], 1, 1e-6f, 1);
}
RUN(run_conv)
{
	struct lk_conv_geom g = { CHANNELS, CHANNELS, 3, 3, 1, 1, 1, 1, 1, 1 };
	struct lk_view y = v4(x, 0), in = v4(x, 1);
	struct lk_conv *c;
	int rc = lk_conv_new(DEV, &c, &g, x->p[2], x->p[2]);

	if (!rc)
		rc = lk_conv_fwd(DEV, c, &y, &in, NULL);
	if (!rc)
		rc = lk_sync(DEV);
	lk_conv_free(c);
	return rc;
}

static const struct tail tails[] = {
	{ "cast", run_cast, "a*f*", 1 << 20, 2304 },
	{ "axpy", run_axpy, "a*f*", 1 << 20, 2304 },
	{ "scale", run_scale, "a*", 1 << 20, 2304 },
	{ "residual and norm", run_norm, "a*a*a*f|a-", 1 << 20, 2304 },
	{ "norm backward", run_norm_bwd, "a*a*a*1|a-f-", 1 << 20, 2304 },
	{ "rotary embedding", run_rope, "a*i|", 1 << 20, 2304 },
	{ "SwiGLU", run_swiglu, "a*a*a*", 1 << 20, 2304 },
	{ "SwiGLU backward", run_swiglu_bwd, "a*a*a*a*a*", 1 << 20, 2304 },
	{ "embedding", run_embed, "a*a-z|", 1 << 20, 2304 },
	{ "cross-entropy", run_xent, "a*i|f|f|f|", 1 << 17, 32000 },
	{ "AdamW", run_adamw, "f*f*1*f*a*", 1 << 18, 9216 },
	{ "end of carried attention", run_attn_end, "a*f*fh1hfh", 1 << 20, 2304 },
	{ "delta of attention", run_attn_delta, "a*a*fh", 1 << 20, 2304 },
	{ "merge of attention", run_attn_merge, "f*f*fhfh", 1 << 20, 2304 },
	{ "cache store", run_store, "q*a*fh", 1 << 20, 2304 },
	{ "cache load", run_load, "q*a*fh", 1 << 20, 2304 },
	{ "group norm", run_groupnorm, "a*a*f|f|f-", 1100, 256 * 256 * CHANNELS },
	{ "convolution", run_conv, "a*a*f-", 1100, 256 * 256 * CHANNELS },
};
enum { TAILS = sizeof tails / sizeof *tails };

static int dtype_of(const struct gpu_bench *b, char type)
{
	return type == 'a' ? b->act : type == 'q' ? LK_I8 : type == 'i' || type == 'z' ? LK_I32 : LK_F32;
}

static int64_t elements(const struct rows *x, char size)
{
	return size == '*' ? x->t * x->d : size == 'h' ? x->t * (x->d / 128) : size == '|' ? x->t : x->d;
}

/* Shared rows hold enough for a convolution's weights. */
static void *tensor(struct gpu_bench *b, const struct rows *x, char type, char size)
{
	int64_t n = elements(x, size);
	float *p;

	if (size == '-' && n < 9 * CHANNELS * CHANNELS)
		n = 9 * CHANNELS * CHANNELS;
	if (type != '1')
		return gpu_random(b, dtype_of(b, type), n, type == 'i' ? 200 : type == 'z' ? 0.5 : type == 'q' ? 127 : 1);
	p = gpu_mem(b, (size_t)n * 4);
	return p && lk_fill(b->dev, p, n, 1) == 0 ? p : NULL;
}

/* The last TAIL rows of every tensor of x, as tensors of their own. */
static int copy_tail(const struct rows *x, const struct tail *k, struct rows *y)
{
	struct gpu_bench *b = x->b;

	*y = *x;
	y->t = TAIL;
	for (int i = 0; k->tensors[2 * i]; i++) {
		char size = k->tensors[2 * i + 1];
		size_t one = lk_dtype_size(dtype_of(b, k->tensors[2 * i])), all = (size_t)elements(x, size) * one;
		size_t part = (size_t)elements(y, size) * one;

		if (size == '-')
			continue;
		y->p[i] = gpu_mem(b, part);
		if (!y->p[i] || lk_copy(b->dev, y->p[i], (char *)x->p[i] + all - part, part))
			return -1;
	}
	return 0;
}

/* 0: the last rows of x are those of y, bit for bit. */
static int compare_tail(const struct rows *x, const struct tail *k, const struct rows *y, char *why, size_t n)
{
	for (int i = 0; k->tensors[2 * i]; i++) {
		char size = k->tensors[2 * i + 1];
		size_t one = lk_dtype_size(dtype_of(x->b, k->tensors[2 * i])), all = (size_t)elements(x, size) * one;
		size_t part = (size_t)elements(y, size) * one;
		char *host;
		int bad;

		if (size == '-')
			continue;
		host = malloc(2 * part);
		if (!host || lk_download(x->b->dev, host, (char *)x->p[i] + all - part, part) ||
		    lk_download(x->b->dev, host + part, y->p[i], part)) {
			snprintf(why, n, "%s", host ? lk_dev_error(x->b->dev) : "out of memory");
			free(host);
			return 1;
		}
		bad = memcmp(host, host + part, part) != 0;
		free(host);
		if (bad) {
			snprintf(why, n, "tensor %d: the last rows of %lld differ from the same rows alone", i, (long long)x->t);
			return 1;
		}
	}
	return 0;
}

static void run_tail(struct gpu_bench *b, const struct tail *k)
{
	struct rows x = { .b = b, .t = gpu_pick(b, k->t, 37), .d = gpu_pick(b, k->d, k->d > 1 << 20 ? 16 * CHANNELS : 256) }, y;
	char why[300] = "";
	int bad = 0;

	for (int i = 0; !bad && k->tensors[2 * i]; i++) {
		x.p[i] = tensor(b, &x, k->tensors[2 * i], k->tensors[2 * i + 1]);
		bad = x.p[i] ? 0 : -1; // not enough memory: no failure of the op
	}
	if (!bad && copy_tail(&x, k, &y))
		bad = -1;
	if (bad)
		snprintf(why, sizeof why, "%s", *b->why ? b->why : lk_dev_error(b->dev));
	if (!bad && (k->run(&x) || k->run(&y) || lk_sync(b->dev))) {
		snprintf(why, sizeof why, "%s", lk_dev_error(b->dev));
		bad = 1;
	}
	if (!bad)
		bad = compare_tail(&x, k, &y, why, sizeof why);
	verdict(k->name, bad, why);
	lk_sync(b->dev);
	gpu_release(b);
}

/* ---- sums over more than 2^31 elements ---- */

static double host_norm(const float *x, const float *y, int64_t n) /* |x - y| / |y| */
{
	double num = 0, den = 0;

	for (int64_t i = 0; i < n; i++) {
		num += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
		den += (double)y[i] * (double)y[i];
	}
	return num == 0 ? 0 : sqrt(num / (den + 1e-300));
}

/* Device values of any float dtype as fp32 on the host; NULL: failed. */
static float *fetch(struct gpu_bench *b, const void *p, int dtype, int64_t n)
{
	size_t size = lk_dtype_size(dtype);
	float *y = malloc((size_t)n * 4);
	uint16_t *raw = malloc((size_t)n * size);
	bool ok = y && raw && lk_download(b->dev, raw, p, (size_t)n * size) == 0;

	for (int64_t i = 0; ok && i < n; i++) {
		uint32_t bits = (uint32_t)raw[i] << 16;

		if (dtype == LK_BF16)
			memcpy(&y[i], &bits, 4);
	}
	if (ok && dtype == LK_F32)
		memcpy(y, raw, (size_t)n * 4);
	free(raw);
	if (ok)
		return y;
	free(y);
	return NULL;
}

static void run_sumsq(struct gpu_bench *b)
{
	int64_t n = gpu_pick(b, ((int64_t)1 << 31) + (1 << 20) + 3, 1003);
	float *p = gpu_mem(b, (size_t)n * 4);
	char why[300] = "";
	double sum = 0;
	int bad = p ? 0 : -1;

	if (bad)
		snprintf(why, sizeof why, "%s", b->why);
	else if (lk_fill(b->dev, p, n, 0.5f) || lk_sumsq(b->dev, p, n, &sum))
		bad = 1;
	else if (fabs(sum - 0.25 * (double)n) > 1e-6 * (double)n)
		bad = 1;
	if (bad > 0)
		snprintf(why, sizeof why, "sum %.9g of %.9g; %.100s", sum, 0.25 * (double)n, lk_dev_error(b->dev));
	verdict("sum of squares", bad, why);
	gpu_release(b);
}

/* c = a^T b over a million rows at once, and in four parts that are added. */
static void run_gradient(struct gpu_bench *b)
{
	int64_t t = gpu_pick(b, 1 << 20, 64), m = gpu_pick(b, 2304, 24), n = gpu_pick(b, 256, 16);
	void *a = gpu_random(b, b->act, t * m, 1), *x = gpu_random(b, b->act, t * n, 1);
	float *c = gpu_mem(b, (size_t)(m * n) * 8), *d = c + m * n, *hc, *hd;
	struct lk_view va = lk_view2(a, b->act, t, m), vx = lk_view2(x, b->act, t, n), vc = lk_view2(c, LK_F32, m, n);
	char why[300] = "";
	int bad = a && x && c ? 0 : -1, rc = 0;

	if (bad) {
		verdict("gradient of weights", bad, b->why);
		gpu_release(b);
		return;
	}
	rc = lk_matmul(b->dev, &vc, &va, &vx, LK_TA, 1.0f);
	vc.data = d;
	va.n[0] = vx.n[0] = t / 4;
	for (int i = 0; !rc && i < 4; i++) {
		va.data = (char *)a + (size_t)(i * (t / 4) * m) * lk_dtype_size(b->act);
		vx.data = (char *)x + (size_t)(i * (t / 4) * n) * lk_dtype_size(b->act);
		rc = lk_matmul(b->dev, &vc, &va, &vx, LK_TA | (i ? LK_ACC : 0), 1.0f);
	}
	hc = rc ? NULL : fetch(b, c, LK_F32, m * n);
	hd = rc ? NULL : fetch(b, d, LK_F32, m * n);
	if (!hc || !hd)
		snprintf(why, sizeof why, "%s", lk_dev_error(b->dev));
	else if (!(host_norm(hc, hd, m * n) < 1e-4))
		snprintf(why, sizeof why, "relative difference %.3g, allowed 1e-4", host_norm(hc, hd, m * n));
	verdict("gradient of weights", *why != 0, why);
	free(hc);
	free(hd);
	gpu_release(b);
}

/* ---- attention ---- */

struct attention {
	struct lk_attn a;
	struct lk_view o, dout, dq, dk, dv;
	float *lse, *delta;
};

static int attention_new(struct gpu_bench *b, struct attention *x, int64_t t, int64_t h, int64_t d)
{
	struct lk_view *v[] = { &x->a.q, &x->a.k, &x->a.v, &x->dout, &x->o, &x->dq, &x->dk, &x->dv };

	memset(x, 0, sizeof *x);
	for (int i = 0; i < 8; i++) {
		int dtype = i < 5 ? b->act : LK_F32;
		void *p = i < 5 ? gpu_random(b, dtype, t * h * d, 1) : gpu_mem(b, (size_t)(t * h * d) * 4);

		if (!p || (i >= 5 && lk_zero(b->dev, p, (size_t)(t * h * d) * 4)))
			return -1;
		*v[i] = lk_view3(p, dtype, t, h, d);
	}
	x->lse = gpu_mem(b, (size_t)(t * h) * 8);
	x->delta = x->lse + t * h;
	x->a.scale = (float)(2 / sqrt((double)d));
	x->a.causal = 1;
	return x->lse ? 0 : -1;
}

static int attention_run(struct gpu_bench *b, struct attention *x)
{
	int rc = lk_attn_once(b->dev, &x->a, &x->o, x->lse);

	if (!rc)
		rc = lk_attn_delta(b->dev, x->delta, &x->o, &x->dout);
	return rc ? rc : lk_attn_bwd(b->dev, &x->a, &x->dout, x->lse, x->delta, &x->dq, &x->dk, &x->dv);
}

/* Rows [from, from + n) of o, dq, dk, dv as fp32, end to end. */
static float *results(struct gpu_bench *b, const struct attention *x, int64_t from, int64_t n)
{
	const struct lk_view *v[] = { &x->o, &x->dq, &x->dk, &x->dv };
	int64_t row = x->o.stride[0];
	float *all = malloc((size_t)(4 * n * row) * 4);

	for (int i = 0; all && i < 4; i++) {
		char *at = (char *)v[i]->data + (size_t)(from * row) * lk_dtype_size(v[i]->dtype);
		float *part = fetch(b, at, v[i]->dtype, n * row);

		if (!part) {
			free(all);
			return NULL;
		}
		memcpy(all + i * n * row, part, (size_t)(n * row) * 4);
		free(part);
	}
	return all;
}

static struct lk_seq *sequence(struct gpu_bench *b, int64_t n, int64_t doc)
{
	int32_t *pos = malloc((size_t)n * 2 * sizeof *pos);
	struct lk_seq *s = NULL;

	for (int64_t i = 0; pos && i < n; i++) {
		pos[i] = (int32_t)(i % doc);
		pos[n + i] = (int32_t)(i / doc);
	}
	if (pos && lk_seq_new(b->dev, &s, n, pos, pos + n))
		snprintf(b->why, sizeof b->why, "%s", lk_dev_error(b->dev));
	free(pos);
	return s;
}

/* Everything of one path on a device of its own; NULL with *why. */
static float *on_path(const struct gpu_bench *b, const char *device, const char *path, int64_t t, int64_t h, int64_t d,
		      char *why, size_t n)
{
	struct gpu_bench *own = calloc(1, sizeof *own);
	struct lk_seq *s = NULL;
	struct attention x;
	float *y = NULL;

	if (!own)
		return NULL;
	own->dry = b->dry;
	setenv("LWM_CUDA_ATTN", path, 1);
	if (lk_dev_open(&own->dev, device, 0, why, n))
		goto out;
	own->act = lk_dev_dtype(own->dev);
	s = sequence(own, t, t);
	if (s && attention_new(own, &x, t, h, d) == 0) {
		x.a.qs = x.a.ks = s;
		if (attention_run(own, &x) == 0)
			y = results(own, &x, 0, t);
	}
	if (!y)
		snprintf(why, n, "%.200s", *own->why ? own->why : lk_dev_error(own->dev));
	lk_sync(own->dev);
	lk_seq_free(s);
	gpu_release(own);
	lk_dev_close(own->dev);
out:
	unsetenv("LWM_CUDA_ATTN");
	free(own);
	return y;
}

static void run_paths(struct gpu_bench *b, const char *device, int64_t d)
{
	int64_t t = gpu_pick(b, 16384, 90), h = gpu_pick(b, 4, 1), n = t * h * d;
	char why[300] = "", name[64];
	float *x = on_path(b, device, "mma", t, h, d, why, sizeof why);
	float *y = x ? on_path(b, device, "sm90", t, h, d, why, sizeof why) : NULL;
	static const char *const what[] = { "o", "dq", "dk", "dv" };

	snprintf(name, sizeof name, "attention of 16K on both paths, d %lld", (long long)d);
	for (int i = 0; x && y && i < 4; i++) {
		double err = host_norm(y + i * n, x + i * n, n);

		if (!(err < 1e-2) && !*why)
			snprintf(why, sizeof why, "%s: relative difference %.3g, allowed 1e-2", what[i], err);
	}
	verdict(name, strstr(why, "does not do this") ? -1 : *why != 0, why); // this chip has only one of the paths
	free(x);
	free(y);
}

/* A document of a long row, and the same by itself. */
static int same_alone(struct gpu_bench *b, struct attention *x, int64_t from, int64_t n, struct lk_seq *doc, char *why, size_t size)
{
	int64_t row = x->o.stride[0], h = x->o.n[1];
	float *was = results(b, x, from, n), *now = NULL;
	struct attention y = *x;
	struct lk_view *v[] = { &y.a.q, &y.a.k, &y.a.v, &y.dout, &y.o, &y.dq, &y.dk, &y.dv };
	int bad = 1;

	for (int i = 0; i < 8; i++) {
		v[i]->data = (char *)v[i]->data + (size_t)(from * row) * lk_dtype_size(v[i]->dtype);
		v[i]->n[0] = n;
	}
	y.lse += from * h;
	y.delta += from * h;
	y.a.qs = y.a.ks = doc;
	for (int i = 5; was && i < 8; i++)
		if (lk_zero(b->dev, v[i]->data, (size_t)(n * row) * 4))
			goto out;
	if (was && attention_run(b, &y) == 0)
		now = results(b, &y, 0, n);
out:
	if (was && now) {
		double err = host_norm(was, now, 4 * n * row);

		bad = !(err < 1e-2);
		snprintf(why, size, "relative difference %.3g, allowed 1e-2", err);
	} else {
		snprintf(why, size, "%s", lk_dev_error(b->dev));
	}
	free(was);
	free(now);
	return bad;
}

static void run_long_row(struct gpu_bench *b)
{
	int64_t t = gpu_pick(b, 1 << 20, 200), h = gpu_pick(b, 18, 2), d = gpu_pick(b, 128, 64);
	int64_t doc = gpu_pick(b, 6000, 33), last = t % doc ? t % doc : doc;
	struct lk_seq *s = sequence(b, t, doc), *alone = sequence(b, last, doc);
	char why[300] = "";
	struct attention x;
	int bad = s && alone && attention_new(b, &x, t, h, d) == 0 ? 0 : -1;

	if (bad) {
		snprintf(why, sizeof why, "%s", b->why);
	} else {
		x.a.qs = x.a.ks = s;
		bad = attention_run(b, &x) != 0;
		if (bad)
			snprintf(why, sizeof why, "%s", lk_dev_error(b->dev));
		else
			bad = same_alone(b, &x, t - last, last, alone, why, sizeof why);
	}
	verdict("last document of a row of 1M", bad, bad ? why : "");
	lk_sync(b->dev);
	lk_seq_free(s);
	lk_seq_free(alone);
	gpu_release(b);
}

int main(int argc, char **argv)
{
	struct gpu_bench *b = calloc(1, sizeof *b);
	const char *device = "cuda:0";
	char why[256];
	int rc, probe = 0;

	if (!b)
		return 71;
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--dry") == 0)
			b->dry = true;
		else if (strcmp(argv[i], "--probe") == 0)
			probe = 1;
		else
			device = argv[i];
	rc = lk_dev_open(&b->dev, device, b->dry, why, sizeof why);
	if (rc || probe) {
		printf("%s%s\n", rc ? "skipped: " : "", rc ? why : lk_dev_name(b->dev));
		return rc != 0 && rc != LK_EDEVICE;
	}
	b->act = lk_dev_dtype(b->dev);
	printf("large shapes on %s\n", lk_dev_name(b->dev));
	for (int i = 0; i < TAILS; i++)
		run_tail(b, &tails[i]);
	run_sumsq(b);
	run_gradient(b);
	run_long_row(b);
	lk_dev_close(b->dev); // the paths open devices of their own
	run_paths(b, device, 64);
	run_paths(b, device, 96);
	run_paths(b, device, 128);
	free(b);
	printf("%d passed, %d failed, %d skipped\n", count.passed, count.failed, count.skipped);
	return count.failed || !count.passed ? 1 : 0;
}
