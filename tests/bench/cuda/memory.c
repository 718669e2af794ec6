/* memory.c - operations that move bytes: each against the copy of the same run. Bytes are those that must be moved, each tensor
 * read once and written once. */
#include <stdio.h>

#include "tests/bench/cuda/bench_gpu.h"

enum { MOST = 8 };

/* One operation's tensors: p[i] as the operation likes them. */
struct op {
	struct gpu_bench *b;
	int64_t t, d; /* rows, columns */
	void *p[MOST];
	double result[2];
};

struct kind {
	const char *name;
	int (*run)(void *arg);
	/* dtype of each tensor: 'a' activations, 'f' fp32, '1' fp32 ones, 'i' int32, 'q' 8 bits; its size: '*' rows x columns, '|'
	 * rows, 'h' rows x heads of 128, '-' columns */
	const char *tensors;
	double act, fp32; /* elements of rows x columns moved in either type */
	int64_t d;        /* columns; rows follow from 1 GiB of activations */
};

static struct lk_view full(const struct op *x, int i, int dtype)
{
	return lk_view2(x->p[i], dtype, x->t, x->d);
}

#define OP(name) static int name(void *arg)
#define OPEN                                      \
	struct op *x = arg;                       \
	struct lk_dev *dev = x->b->dev;           \
	int act = x->b->act;                      \
	int64_t n = x->t * x->d;                  \
	(void)dev, (void)act, (void)n

OP(op_zero) { OPEN; return lk_zero(dev, x->p[0], (size_t)n * 4); }

OP(op_cast)
{
	OPEN;
	struct lk_view y = full(x, 0, act), f = full(x, 1, LK_F32);

	return lk_cast(dev, &y, &f);
}

OP(op_axpy)
{
	OPEN;
	struct lk_view y = full(x, 0, act), z = full(x, 1, act);

	return lk_axpy(dev, &y, 0.001f, &z);
}

OP(op_sumsq) { OPEN; return lk_sumsq(dev, x->p[0], n, x->result); }

OP(op_norm)
{
	OPEN;
	struct lk_view y = full(x, 0, act), in = full(x, 1, act), w = lk_view1(x->p[3], act, x->d);

	return lk_rmsnorm_fwd(dev, &y, x->p[2], &in, NULL, &w, 1e-6f);
}

OP(op_norm_residual)
{
	OPEN;
	struct lk_view y = full(x, 0, act), in = full(x, 1, act), w = lk_view1(x->p[3], act, x->d), delta = full(x, 4, act);

	return lk_rmsnorm_fwd(dev, &y, x->p[2], &in, &delta, &w, 1e-6f);
}

OP(op_norm_bwd)
{
	OPEN;
	struct lk_view dx = full(x, 0, act), in = full(x, 1, act), w = lk_view1(x->p[3], act, x->d), dy = full(x, 4, act);

	return lk_rmsnorm_bwd(dev, &dx, x->p[5], &dy, &in, &w, x->p[2]);
}

OP(op_rope)
{
	OPEN;
	struct lk_view v = lk_view3(x->p[0], act, x->t, x->d / 128, 128);

	return lk_rope(dev, &v, x->p[1], 1e4, 0);
}

/* gate and up lie side by side, as the model keeps them */
static struct lk_view half(const struct op *x, int i, int which)
{
	struct lk_view v = lk_view2((char *)x->p[i] + (size_t)(which * x->d / 2) * lk_dtype_size(x->b->act), x->b->act, x->t,
				    x->d / 2);

	v.stride[0] = x->d;
	return v;
}

OP(op_swiglu)
{
	OPEN;
	struct lk_view y = lk_view2(x->p[0], act, x->t, x->d / 2), g = half(x, 1, 0), u = half(x, 1, 1);

	return lk_swiglu_fwd(dev, &y, &g, &u);
}

OP(op_swiglu_bwd)
{
	OPEN;
	struct lk_view dy = lk_view2(x->p[0], act, x->t, x->d / 2), g = half(x, 1, 0), u = half(x, 1, 1);
	struct lk_view dg = half(x, 2, 0), du = half(x, 2, 1);

	return lk_swiglu_bwd(dev, &dg, &du, &dy, &g, &u);
}

OP(op_embed)
{
	OPEN;
	struct lk_view y = full(x, 0, act), table = lk_view2(x->p[1], act, x->t, x->d);

	return lk_embed_fwd(dev, &y, x->p[2], &table, 0);
}

OP(op_embed_bwd)
{
	OPEN;
	struct lk_view dy = full(x, 0, act), table = lk_view2(x->p[1], LK_F32, x->t, x->d);

	return lk_embed_bwd(dev, &table, x->p[2], &dy, 0);
}

OP(op_gather)
{
	OPEN;
	struct lk_view y = full(x, 0, act), from = full(x, 1, act);

	return lk_gather_rows(dev, &y, &from, x->p[2]);
}

OP(op_scatter)
{
	OPEN;
	struct lk_view y = full(x, 0, act), from = full(x, 1, act);

	return lk_scatter_add_rows(dev, &y, &from, x->p[2]);
}

OP(op_xent)
{
	OPEN;
	struct lk_view logits = full(x, 0, act);

	return lk_xent(dev, &logits, x->p[1], x->p[2], x->p[3], x->p[4], 1);
}

OP(op_adamw)
{
	OPEN;
	struct lk_adamw_cfg c = { 1e-6f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 0.1, 0.05 };

	return lk_adamw(dev, x->p[0], x->p[1], x->p[2], x->p[3], act == LK_F32 ? NULL : x->p[4], n, &c);
}

OP(op_attn_end)
{
	OPEN;
	struct lk_view o = lk_view3(x->p[0], act, x->t, x->d / 128, 128);
	struct lk_attn_state st = { x->p[2], x->p[3], x->p[1] };

	return lk_attn_end(dev, &o, x->p[4], &st);
}

OP(op_attn_delta)
{
	OPEN;
	struct lk_view o = lk_view3(x->p[0], act, x->t, x->d / 128, 128), dout = lk_view3(x->p[1], act, x->t, x->d / 128, 128);

	return lk_attn_delta(dev, x->p[2], &o, &dout);
}

OP(op_attn_merge)
{
	OPEN;
	return lk_attn_merge(dev, x->p[0], x->p[2], x->p[1], x->p[3], x->t, x->d / 128, 128);
}

OP(op_store)
{
	OPEN;
	struct lk_view y = lk_view3(x->p[0], LK_I8, x->t, x->d / 128, 128), in = lk_view3(x->p[1], act, x->t, x->d / 128, 128);

	return lk_kv_store(dev, &y, x->p[2], x->d / 128, &in);
}

OP(op_load)
{
	OPEN;
	struct lk_view y = lk_view3(x->p[1], act, x->t, x->d / 128, 128), in = lk_view3(x->p[0], LK_I8, x->t, x->d / 128, 128);

	return lk_kv_load(dev, &y, &in, x->p[2], x->d / 128);
}

/* images: rows are 256 x 256 pixels of d channels */
static struct lk_view image(const struct op *x, int i)
{
	int64_t side = x->b->dry ? 8 : 256;

	return lk_view4(x->p[i], x->b->act, x->t / (side * side), side, side, x->d);
}

OP(op_groupnorm)
{
	OPEN;
	struct lk_view y = image(x, 0), in = image(x, 1);

	return lk_groupnorm_fwd(dev, &y, x->p[2], x->p[3], &in, x->p[4], x->p[5], 32, 1e-6f, 1);
}

OP(op_groupnorm_bwd)
{
	OPEN;
	struct lk_view dx = image(x, 0), in = image(x, 1), dy = image(x, 6);

	return lk_groupnorm_bwd(dev, &dx, x->p[5], x->p[7], &dy, &in, x->p[2], x->p[3], x->p[4], x->p[4], 32, 1e-6f, 1);
}

OP(op_recon)
{
	OPEN;
	struct lk_view dx = full(x, 0, act), y = full(x, 1, act), t = full(x, 2, act);

	return lk_recon_loss(dev, &dx, &y, &t, 0.1f, 1.0f, x->result);
}

static const struct kind kinds[] = {
	{ "zero", op_zero, "f*", 0, 1, 4096 },
	{ "cast of fp32", op_cast, "a*f*", 1, 1, 4096 },
	{ "y += a x", op_axpy, "a*a*", 3, 0, 4096 },
	{ "sum of squares of fp32", op_sumsq, "f*", 0, 1, 4096 },
	{ "RMS norm", op_norm, "a*a*f|a-", 2, 0, 4096 },
	{ "RMS norm, d 2048", op_norm, "a*a*f|a-", 2, 0, 2048 },
	{ "residual sum and RMS norm", op_norm_residual, "a*a*f|a-a*", 4, 0, 4096 },
	{ "RMS norm backward", op_norm_bwd, "a*a*f|a-a*f-", 4, 0, 4096 },
	{ "rotary embedding", op_rope, "a*i|", 2, 0, 8192 },
	{ "SwiGLU", op_swiglu, "a*a*", 1.5, 0, 22016 },
	{ "SwiGLU backward", op_swiglu_bwd, "a*a*a*", 2.5, 0, 22016 },
	{ "embedding", op_embed, "a*a*i|", 2, 0, 4096 },
	{ "embedding backward", op_embed_bwd, "a*f*i|", 1, 2, 4096 },
	{ "gather of rows", op_gather, "a*a*i|", 2, 0, 4096 },
	{ "scatter of rows", op_scatter, "a*a*i|", 3, 0, 4096 },
	{ "cross-entropy with gradient, 32000", op_xent, "a*i|f|f|f|", 2, 0, 32000 },
	{ "cross-entropy with gradient, 8448", op_xent, "a*i|f|f|f|", 2, 0, 8448 },
	{ "AdamW", op_adamw, "f*f*1*f*a*", 1, 7, 4096 },
	{ "end of carried attention", op_attn_end, "a*f*fh1hfh", 1, 1, 2048 },
	{ "delta of attention", op_attn_delta, "a*a*fh", 2, 0, 2048 },
	{ "merge of partial attention", op_attn_merge, "f*f*fhfh", 0, 3, 2048 },
	{ "cache store, 8 bits", op_store, "q*a*fh", 1, 0.25, 2048 },
	{ "cache load, 8 bits", op_load, "q*a*fh", 1, 0.25, 2048 },
	{ "group norm and silu, 128 channels", op_groupnorm, "a*a*f|f|f-f-", 2, 0, 128 },
	{ "group norm and silu backward", op_groupnorm_bwd, "a*a*f|f|f-f-a*f-", 3, 0, 128 },
	{ "reconstruction loss", op_recon, "a*a*a*", 3, 0, 4096 },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* ids, positions, targets: a permutation of the rows, or columns */
static void *indices(struct gpu_bench *b, int64_t t, int64_t below)
{
	int32_t *p = gpu_mem(b, (size_t)t * 4);
	int32_t chunk[4096];

	for (int64_t at = 0; p && at < t; at += 4096) {
		int64_t n = t - at < 4096 ? t - at : 4096;

		for (int64_t i = 0; i < n; i++) // odd factor: a permutation where t is a power of two
			chunk[i] = (int32_t)((uint64_t)(at + i) * 40503u % (uint64_t)t % (uint64_t)below);
		if (lk_upload(b->dev, p + at, chunk, (size_t)n * 4))
			return NULL;
	}
	return p;
}

static void *tensor(struct gpu_bench *b, const struct op *x, char type, char size)
{
	int64_t n = size == '*' ? x->t * x->d : size == 'h' ? x->t * (x->d / 128) : size == '|' ? x->t : x->d;
	int dtype = type == 'a' ? b->act : type == 'q' ? LK_I8 : LK_F32;

	if (type == 'i')
		return indices(b, n, x->d > 8000 ? x->d : n);
	if (type == '1') {
		float *p = gpu_mem(b, (size_t)n * 4);

		return p && lk_fill(b->dev, p, n, 1) == 0 ? p : NULL;
	}
	return gpu_random(b, dtype, n, type == 'q' ? 127 : 1);
}

static void measure(struct gpu_bench *b, const struct kind *k)
{
	struct op x = { .b = b, .d = gpu_pick(b, k->d, k->d > 4096 ? 256 : 128) };
	double n, bytes;
	bool ready = true;

	x.t = b->dry ? 64 : ((int64_t)1 << 29) / x.d; // 1 GiB in bf16
	if (!b->dry)
		for (int64_t p = 1; p < 1 << 30; p *= 2) // a power of two: see indices()
			if (p <= ((int64_t)1 << 29) / x.d)
				x.t = p;
	n = (double)x.t * (double)x.d;
	for (int i = 0; ready && k->tensors[2 * i]; i++) {
		x.p[i] = tensor(b, &x, k->tensors[2 * i], k->tensors[2 * i + 1]);
		ready = x.p[i] != NULL;
	}
	bytes = n * (k->act * (double)lk_dtype_size(b->act) + k->fp32 * 4);
	if (ready)
		gpu_memory_row(b, k->name, gpu_measure(b, k->run, &x), bytes, 0.80, 0.92);
	else
		gpu_fail(b, k->name);
	lk_sync(b->dev);
	gpu_release(b);
}

void gpu_part_memory(struct gpu_bench *b)
{
	for (int i = 0; i < KINDS; i++)
		measure(b, &kinds[i]);
}
