/* models.c - the models themselves on the GPU: a training step, the frame tokenizer, prefill and decoding. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/infer/engine.h"
#include "common/model/vqgan.h"
#include "tests/bench/cuda/bench_gpu.h"

/* Copies what a model says into the table's reason; keeps 0. */
static int told(struct gpu_bench *b, int rc, const struct lwm_err *e)
{
	if (rc)
		snprintf(b->why, sizeof b->why, "%.250s", e->msg);
	return rc;
}

/* ---- weights ---- */

struct weights {
	float *master;
	void *compute; /* the same in the device's dtype */
};

/* Random matrices, norms of one. 0 or -1. */
static int make_weights(struct gpu_bench *b, const struct lwm_llama_cfg *c, struct weights *w)
{
	struct lwm_tensors p = { 0 };
	struct lwm_err e = { 0 };
	int rc = told(b, lwm_llama_tensors(&p, c, &e), &e);

	w->master = rc ? NULL : gpu_random(b, LK_F32, p.total, c->init_std * sqrt(3.0));
	w->compute = w->master && b->act != LK_F32 ? gpu_mem(b, (size_t)p.total * lk_dtype_size(b->act)) : w->master;
	if (!w->master || !w->compute)
		rc = -1;
	for (int64_t i = 0; !rc && i < p.n; i++)
		if (p.list[i].init == LWM_INIT_CONST)
			rc = lk_fill(b->dev, w->master + p.list[i].offset, p.list[i].count, 1);
	if (!rc && b->act != LK_F32) {
		struct lk_view y = lk_view1(w->compute, b->act, p.total), x = lk_view1(w->master, LK_F32, p.total);

		rc = lk_cast(b->dev, &y, &x);
	}
	lwm_tensors_release(&p);
	return rc ? -1 : 0;
}

static int preset(struct gpu_bench *b, struct lwm_llama_cfg *c)
{
	struct lwm_err e = { 0 };
	int rc = told(b, lwm_llama_preset(c, b->dry ? "nano" : "1b", &e), &e);

	if (b->dry) {
		c->vocab_text = 300;
		c->layers = 2;
	}
	return rc;
}

/* ---- a training step ---- */

struct training {
	struct gpu_bench *b;
	struct lwm_llama *m;
	struct lwm_llama_batch batch;
	struct weights w;
	float *grad, *mom, *var;
	int64_t total;
};

/* Gradients to zero, forward, backward, gradient norm, AdamW. */
static int train_step(void *arg)
{
	struct training *x = arg;
	struct lwm_flat_weights w = lwm_flat_weights_of(x->w.compute, x->b->act, x->grad);
	struct lk_adamw_cfg opt = { 1e-5f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 0.1, 0.05 };
	struct lk_dev *dev = x->b->dev;
	struct lwm_llama_stats st;
	struct lwm_err e = { 0 };
	double sum;
	int rc = lk_zero(dev, x->grad, (size_t)x->total * 4);

	if (!rc && lwm_llama_step(x->m, &x->batch, &w.base, &st, &e))
		return told(x->b, LK_EDEVICE, &e);
	if (!rc)
		rc = lk_sumsq(dev, x->grad, x->total, &sum);
	if (!rc)
		rc = lk_adamw(dev, x->w.master, x->mom, x->var, x->grad, x->b->act == LK_F32 ? NULL : x->w.compute, x->total, &opt);
	return rc;
}

/* n tokens of one row, in a block of the caller's. */
static int32_t *make_batch(struct lwm_llama_batch *batch, int64_t n, int64_t vocab)
{
	int32_t *ids = malloc((size_t)n * 5 * sizeof *ids);
	uint64_t state = 3;

	if (!ids)
		return NULL;
	for (int64_t i = 0; i < n; i++) {
		const float weight = 1.0f / (float)n;

		ids[i] = (int32_t)(gpu_uniform(&state) * (double)vocab);
		ids[2 * n + i] = 0;
		ids[3 * n + i] = (int32_t)i;
		memcpy(ids + 4 * n + i, &weight, sizeof weight);
	}
	for (int64_t i = 0; i < n; i++)
		ids[n + i] = ids[(i + 1) % n];
	*batch = (struct lwm_llama_batch){ .n = n, .tokens = ids, .targets = ids + n, .weights = (float *)(ids + 4 * n),
					   .seg = ids + 2 * n, .pos = ids + 3 * n };
	return ids;
}

static void train(struct gpu_bench *b, const char *name, int64_t tokens, bool recompute, double must, double goal)
{
	struct lwm_llama_run run = { .tokens = tokens, .train = true, .recompute = recompute };
	struct training x = { .b = b };
	struct gpu_time t = { -1, -1 };
	struct lwm_llama_cfg c;
	struct lwm_err e = { 0 };
	int32_t *ids = NULL;
	double flop = 0;

	if (preset(b, &c) || make_weights(b, &c, &x.w))
		goto out;
	x.total = lwm_llama_count(&c);
	x.grad = gpu_mem(b, (size_t)x.total * 4);
	x.mom = gpu_mem(b, (size_t)x.total * 4);
	x.var = gpu_mem(b, (size_t)x.total * 4);
	ids = make_batch(&x.batch, tokens, c.vocab_text);
	if (!x.grad || !x.mom || !x.var || !ids || lk_zero(b->dev, x.mom, (size_t)x.total * 4) ||
	    lk_zero(b->dev, x.var, (size_t)x.total * 4) || told(b, lwm_llama_new(&x.m, b->dev, &c, &run, &e), &e))
		goto out;
	flop = (double)tokens * lwm_llama_flops(&c, 0.5 * (double)tokens);
	t = gpu_measure(b, train_step, &x);
out:
	gpu_compute_row(b, name, t, flop, must, goal);
	if (t.best > 0)
		gpu_add_row(b, "  the same in tokens", t, (double)tokens / t.best, "tok/s", 0, "", 0, 0);
	lk_sync(b->dev);
	lwm_llama_free(x.m);
	free(ids);
	gpu_release(b);
}

void gpu_part_train(struct gpu_bench *b)
{
	int64_t t = gpu_pick(b, 32768, 48);

	train(b, "training step, 1b, row of 32K", t, false, 0.45, 0.60);
	train(b, "training step, 1b, row of 32K, recomputing", t, true, 0, 0);
	train(b, "training step, 1b, row of 128K, recomputing", gpu_pick(b, 131072, 60), true, 0, 0);
}

/* ---- frames ---- */

struct frames {
	struct gpu_bench *b;
	struct lwm_vqgan *m;
	uint8_t *rgb;
	int32_t *codes;
	int64_t n, side;
};

static int encode(void *arg)
{
	struct frames *x = arg;
	struct lwm_err e = { 0 };

	return told(x->b, lwm_vqgan_encode(x->m, x->rgb, x->n, x->side, x->side, x->codes, &e), &e);
}

static int decode(void *arg)
{
	struct frames *x = arg;
	struct lwm_err e = { 0 };

	return told(x->b, lwm_vqgan_decode(x->m, x->codes, x->n, x->side, x->side, x->rgb, &e), &e);
}

/* Weights that keep activations near one, on the device. */
static float *frame_weights(struct gpu_bench *b, const struct lwm_vqgan_cfg *c)
{
	struct lwm_tensors p = { 0 };
	struct lwm_err e = { 0 };
	uint64_t state = 5;
	float *host = NULL, *dev = NULL;

	if (told(b, lwm_vqgan_tensors(&p, c, &e), &e) == 0)
		host = calloc((size_t)p.total, sizeof *host);
	for (int64_t i = 0; host && i < p.n; i++) {
		const struct lwm_tensor *q = &p.list[i];
		double fan = q->role == LWM_ROLE_CONV ? (double)(q->count / q->shape[3]) : 3;

		for (int64_t j = 0; j < q->count; j++)
			host[q->offset + j] = q->role == LWM_ROLE_SCALE ? 1 : q->role == LWM_ROLE_BIAS ? 0 :
					      (float)((2 * gpu_uniform(&state) - 1) * sqrt(3 / fan));
	}
	if (host)
		dev = gpu_mem(b, (size_t)p.total * sizeof *host);
	if (dev && lk_upload(b->dev, dev, host, (size_t)p.total * sizeof *host))
		dev = NULL;
	free(host);
	lwm_tensors_release(&p);
	return dev;
}

/* FLOPs of a frame through the encoder: convolutions alone, as 2 x products. */
static double frame_flop(const struct lwm_vqgan_cfg *c, double side)
{
	double f = 2 * 9 * 3 * side * side * c->hidden, ch = c->hidden * c->mult[0], out;

	for (int i = 0; i < c->levels; i++) {
		out = c->hidden * c->mult[i];
		for (int j = 0; j < c->res_blocks; j++, ch = out)
			f += 2 * side * side * (9 * ch * out + 9 * out * out + (ch != out ? ch * out : 0));
		if (i + 1 < c->levels) {
			side /= 2;
			f += 2 * 9 * side * side * ch * ch;
		}
	}
	return f + 2 * side * side * (4 * 9 * ch * ch + 9 * ch * c->z_channels + (double)c->z_channels * c->embed_dim);
}

void gpu_part_images(struct gpu_bench *b)
{
	struct frames x = { .b = b, .n = gpu_pick(b, 256, 2) };
	struct gpu_time t = { -1, -1 };
	struct lwm_vqgan_cfg c;
	struct lwm_err e = { 0 };
	double flop = 0;
	struct lwm_flat_weights w;
	float *flat;

	if (told(b, lwm_vqgan_preset(&c, b->dry ? "tiny" : "lwm", &e), &e) || !(flat = frame_weights(b, &c)))
		goto out;
	w = lwm_flat_weights_of(flat, LK_F32, NULL);
	if (told(b, lwm_vqgan_new(&x.m, b->dev, &c, &w.base, gpu_pick(b, 32, 2), &e), &e))
		goto out;
	x.side = c.resolution;
	flop = frame_flop(&c, (double)x.side);
	x.rgb = malloc((size_t)(x.n * x.side * x.side) * 3);
	x.codes = malloc((size_t)(x.n * lwm_vqgan_codes(&c, x.side, x.side)) * sizeof *x.codes);
	if (!x.rgb || !x.codes)
		goto out;
	for (int64_t i = 0; i < x.n * x.side * x.side * 3; i++)
		x.rgb[i] = (uint8_t)((uint64_t)i * 2654435761u >> 13);
	t = gpu_measure(b, encode, &x);
	gpu_compute_row(b, "VQGAN encode, 256x256, pixels to codes", t, flop * (double)x.n, 0.33, 0.65);
	gpu_add_row(b, "  the same in frames", t, (double)x.n / t.best, "frames/s", 0, "", 0, 0);
	t = gpu_measure(b, decode, &x);
	gpu_add_row(b, "VQGAN decode, 256x256, codes to pixels", t, (double)x.n / t.best, "frames/s", 0, "", 0, 0);
out:
	if (t.best < 0)
		gpu_fail(b, "VQGAN");
	lk_sync(b->dev);
	lwm_vqgan_free(x.m);
	free(x.rgb);
	free(x.codes);
}

/* ---- generation ---- */

struct stream {
	struct gpu_bench *b;
	struct lwm_engine *g;
	struct lwm_cache *c;
	int32_t *ids;
	float *logits;
	int64_t depth;
};

static int prefill(void *arg)
{
	struct stream *x = arg;
	struct lwm_err e = { 0 };

	lwm_cache_rewind(x->c, 0);
	return told(x->b, lwm_prefill(x->g, x->c, x->ids, x->depth, &e), &e);
}

/* One token at the full depth, down to its logits on the host. */
static int step(void *arg)
{
	struct stream *x = arg;
	struct lwm_err e = { 0 };

	lwm_cache_rewind(x->c, x->depth);
	if (lwm_decode_step(x->g, &x->c, x->ids, 1, &e))
		return told(x->b, LK_EDEVICE, &e);
	return told(x->b, lwm_engine_read_logits(x->g, LWM_TEXT, x->logits, &e), &e);
}

static void generate(struct gpu_bench *b, const struct lwm_llama_cfg *c, const void *weights, int64_t depth,
		     enum lwm_cache_kind kind, double must, double goal)
{
	const char *bits = kind == LWM_CACHE_INT8 ? " in 8 bits" : "";
	struct stream x = { .b = b, .depth = depth };
	struct gpu_time p = { -1, -1 }, t = p;
	struct lwm_err e = { 0 };
	double bytes = 0;
	char name[64];

	x.ids = calloc((size_t)depth, sizeof *x.ids);
	x.logits = malloc((size_t)c->vocab_text * sizeof *x.logits);
	for (int64_t i = 0; x.ids && i < depth; i++)
		x.ids[i] = (int32_t)((uint64_t)i * 7919u % (uint64_t)c->vocab_text);
	if (x.ids && x.logits && told(b, lwm_engine_new(&x.g, b->dev, c, weights, gpu_pick(b, 8192, 32), 1, &e), &e) == 0 &&
	    told(b, lwm_engine_set_cache(x.g, kind, &e), &e) == 0 &&
	    told(b, lwm_engine_new_cache(&x.c, x.g, depth + 1, &e), &e) == 0) {
		bytes = (double)lwm_llama_matmul(c) * (double)lk_dtype_size(b->act) +
			(double)lwm_cache_bytes(c, depth, lwm_engine_cache_dtype(x.g));
		p = gpu_measure(b, prefill, &x);
		t = p.best > 0 ? gpu_measure(b, step, &x) : p;
	}
	snprintf(name, sizeof name, "prefill, 1b, 128K tokens%s", bits);
	gpu_compute_row(b, name, p, (double)depth * lwm_llama_flops(c, 0.5 * (double)depth) / 3, 0, 0);
	snprintf(name, sizeof name, "decode, 1b, cache of 128K%s", bits);
	gpu_memory_row(b, name, t, bytes, must, goal);
	gpu_add_row(b, "  the same in tokens", t, 1 / t.best, "tok/s", 0, "", 0, 0);
	lk_sync(b->dev);
	lwm_cache_free(x.c);
	lwm_engine_free(x.g);
	free(x.ids);
	free(x.logits);
}

void gpu_part_decode(struct gpu_bench *b)
{
	struct lwm_llama_cfg c;
	struct weights w;

	if (preset(b, &c) || make_weights(b, &c, &w)) {
		gpu_fail(b, "decode, 1b");
		return;
	}
	c.max_seq = 1 << 20;
	generate(b, &c, w.compute, gpu_pick(b, 131072, 96), LWM_CACHE_AUTO, 0.70, 0.90);
	generate(b, &c, w.compute, gpu_pick(b, 131072, 96), LWM_CACHE_INT8, 0, 0);
}
