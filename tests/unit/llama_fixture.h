/* llama_fixture.h - small models and batches that the transformer tests share. */
#ifndef LWM_TEST_LLAMA_FIXTURE_H
#define LWM_TEST_LLAMA_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/rng.h"
#include "common/model/llama.h"

/* 37 text ids, 6 codes and 2 markers; two query heads share a key head. */
static inline struct lwm_llama_cfg tiny_cfg(void)
{
	struct lwm_llama_cfg c = { .vocab_text = 37, .vision_rows = 10, .vision_codes = 6, .dim = 16, .ffn = 24,
				   .layers = 2, .heads = 4, .kv_heads = 2, .max_seq = 64, .rope_theta = 100,
				   .rms_eps = 1e-6, .init_std = 0.25 };

	return c;
}

struct batch {
	struct lwm_llama_batch b;
	int32_t *tokens, *targets, *seg, *pos;
	float *weights;
};

static inline struct batch batch_alloc(int n)
{
	struct batch x = { .b.n = n };

	x.b.tokens = x.tokens = calloc((size_t)n, 4);
	x.b.targets = x.targets = calloc((size_t)n, 4);
	x.b.seg = x.seg = calloc((size_t)n, 4);
	x.b.pos = x.pos = calloc((size_t)n, 4);
	x.b.weights = x.weights = calloc((size_t)n, sizeof(float));
	return x;
}

static inline void batch_free(struct batch *x)
{
	free(x->tokens);
	free(x->targets);
	free(x->seg);
	free(x->pos);
	free(x->weights);
}

/* Documents of the given lengths end to end, then padding up to n. Ids of both modalities; a document's contents depend
 * on its number only. Every fifth position does not count. */
static inline struct batch batch_docs(const struct lwm_llama_cfg *c, int n, const int *lengths, int docs, int first)
{
	struct batch x = batch_alloc(n);
	int at = 0;

	for (int d = 0; d < docs; d++) {
		struct lwm_rng r = lwm_rng_at(1, LWM_RNG_TEST, 7, (uint64_t)(first + d));
		int64_t ids = c->vision_rows ? lwm_llama_eov(c) + 1 : c->vocab_text;

		for (int i = 0; i < lengths[d]; i++, at++) {
			x.tokens[at] = (int32_t)lwm_rng_below(&r, ids);
			x.seg[at] = first + d;
			x.pos[at] = i;
			x.targets[at] = -1;
			x.weights[at] = i % 5 == 4 ? 0 : 0.05f + 0.01f * (float)(i % 3);
			if (i)
				x.targets[at - 1] = x.tokens[at];
		}
	}
	for (; at < n; at++) {
		x.seg[at] = -1;
		x.targets[at] = -1;
	}
	return x;
}

struct result {
	struct lwm_llama_stats stats;
	float *grad;
	double loss;
};

static inline struct lk_dev *device(const char *name, int threads)
{
	struct lk_dev *dev = NULL;
	char why[256];

	if (lk_dev_open(&dev, name, threads, why, sizeof why))
		fail_msg("%s: %s", name, why);
	return dev;
}

static inline float *weights_new(const struct lwm_llama_cfg *c, int64_t *total)
{
	struct lwm_tensors p;
	float *w;

	assert_int_equal(lwm_llama_tensors(&p, c, NULL), 0);
	w = malloc((size_t)p.total * sizeof *w);
	lwm_tensors_init(&p, 5, 0, p.total, w);
	for (int64_t i = 0; i < p.n; i++) // norms that are not all ones show mistakes
		for (int64_t k = 0; p.list[i].ndim == 1 && k < p.list[i].count; k++)
			w[p.list[i].offset + k] += 0.1f * (float)(k % 5);
	*total = p.total;
	lwm_tensors_release(&p);
	return w;
}

/* One step on host weights; r->grad is NULL without grad. Works on host devices, whose memory is the host's. */
static inline int step_on(struct lk_dev *dev, const struct lwm_llama_cfg *c, struct lwm_llama_run run,
			  const struct lwm_llama_batch *b, const float *w, bool grad, struct result *r, struct lwm_err *e)
{
	int64_t total = lwm_llama_count(c);
	struct lwm_llama *m;
	int rc;

	run.tokens = run.tokens ? run.tokens : b->n;
	run.train = run.train || grad;
	r->grad = grad ? calloc((size_t)total, sizeof(float)) : NULL;
	rc = lwm_llama_new(&m, dev, c, &run, e);
	if (!rc) {
		struct lwm_flat_weights lw = lwm_flat_weights_of(w, lk_dev_dtype(dev), r->grad);

		rc = lwm_llama_step(m, b, &lw.base, &r->stats, e);
		lwm_llama_free(m);
	}
	r->loss = r->stats.loss[LWM_TEXT] + r->stats.loss[LWM_VISION];
	return rc;
}

static inline struct result step_once(const char *name, const struct lwm_llama_cfg *c, struct lwm_llama_run run,
				      const struct lwm_llama_batch *b, const float *w, bool grad)
{
	struct lk_dev *dev = device(name, 1);
	struct lwm_err e = { 0 };
	struct result r = { 0 };

	if (step_on(dev, c, run, b, w, grad, &r, &e))
		fail_msg("%s", e.msg);
	lk_dev_close(dev);
	return r;
}

/* Largest difference relative to the largest magnitude. */
static inline double worst(const float *a, const float *b, int64_t n)
{
	double d = 0, scale = 1e-30;

	for (int64_t i = 0; i < n; i++) {
		double x = fabs((double)a[i] - (double)b[i]);

		if (!(x <= d))
			d = x; // NaN stays
		if (fabs((double)b[i]) > scale)
			scale = fabs((double)b[i]);
	}
	return d / scale;
}

#define assert_below(x, limit)                                                          \
	do {                                                                            \
		double x_ = (x);                                                        \
		if (!(x_ < (limit)))                                                    \
			fail_msg("%s is %g, expected below %g", #x, x_, (double)(limit)); \
	} while (0)

/* Weights of a model that says one piece and then </s>, whatever it is asked: no attention, no MLP, one-hot embeddings, so dim is
 * at least vocab_text. free() them. */
static inline float *parrot_new(const struct lwm_llama_cfg *c, int64_t piece, int64_t eos)
{
	struct lwm_tensors p;
	float *w, *embed, *head;

	assert_int_equal(lwm_llama_tensors(&p, c, NULL), 0);
	w = calloc((size_t)p.total, sizeof *w);
	embed = w + lwm_tensors_find(&p, "model.embed_tokens.weight")->offset;
	head = w + lwm_tensors_find(&p, "lm_head.weight")->offset;
	for (int64_t i = 0; i < p.n; i++)
		for (int64_t k = 0; p.list[i].ndim == 1 && k < p.list[i].count; k++)
			w[p.list[i].offset + k] = 1;
	for (int64_t i = 0; i < c->vocab_text; i++) {
		embed[i * c->dim + i] = 1;
		head[(i == piece ? eos : piece) * c->dim + i] = 1;
	}
	lwm_tensors_release(&p);
	return w;
}

#endif
