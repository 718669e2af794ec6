/* large.c - shapes that only a GPU holds: more than 2^31 elements, rows of a million tokens, long attention.
 *
 *	large [cuda:0] [--dry] [--probe]
 *
 * ref would take hours for these, so they are held against the device itself: the last rows of a long tensor must come out as
 * they do alone, with the same bits; long attention must come out alike on both paths (LWM_CUDA_ATTN=mma and sm90), and the
 * last document of a long row as if it were alone. --dry: small sizes, on any device. --probe: only opens the device. Exit: 0
 * also where there is no GPU; 1 when a case failed.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/large.h"

enum { MOST = 6, TAIL = 5 };

static struct {
	int passed, failed, skipped;
} count;

void verdict(const char *name, int bad, const char *why)
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
	/* tensors as in bench memory.c: 'a' activations, 'f' fp32, '1' ones, 'i' index below 200, 'z' index 0, 'q' 8 bits;
	 * '*' rows x columns, 'h' rows x heads of 128, '|' rows, '-' one row that all share and that is not compared */
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
	struct lk_adamw_cfg c = { 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 0.1, 0.05 };

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
			snprintf(why, n, "tensor %d: the last rows of %" PRId64 " differ from the same rows alone", i, x->t);
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

double host_norm(const float *x, const float *y, int64_t n)
{
	double num = 0, den = 0;

	for (int64_t i = 0; i < n; i++) {
		num += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
		den += (double)y[i] * (double)y[i];
	}
	return num == 0 ? 0 : sqrt(num / (den + 1e-300));
}

float *fetch(struct gpu_bench *b, const void *p, int dtype, int64_t n)
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
