/* bench_decode.c - prefill and decoding, tokens per second, with the weight and cache bytes a token streams.
 *
 *	bench_decode [DEPTH [DIM [LAYERS [FFN]]]]     4096 512 8 1408: heads of 64, vocabulary 32000, random weights
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/num.h"
#include "common/infer/engine.h"
#include "common/comm/device.h"

static void must(int rc, const struct lwm_err *e)
{
	if (rc < 0) {
		fprintf(stderr, "bench_decode: %s\n", e->msg);
		exit(1);
	}
}

static float *weights(struct lk_dev *dev, const struct lwm_llama_cfg *c)
{
	struct lwm_err e = { 0 };
	struct lwm_tensors p;
	float *host;
	void *w;

	must(lwm_llama_tensors(&p, c, &e), &e);
	host = malloc((size_t)p.total * sizeof *host);
	if (!host)
		exit(1);
	lwm_tensors_init(&p, 1, 0, p.total, host);
	must(lwm_dev_check(dev, lk_mem_alloc(dev, (size_t)p.total * sizeof *host, &w), &e), &e);
	must(lwm_dev_check(dev, lk_upload(dev, w, host, (size_t)p.total * sizeof *host), &e), &e);
	free(host);
	lwm_tensors_release(&p);
	return w;
}

static double feed_rate(struct lwm_engine *g, struct lwm_cache *c, int64_t n, const int32_t *ids)
{
	struct lwm_err e = { 0 };
	double t = lwm_now();

	lwm_cache_rewind(c, 0);
	must(lwm_prefill(g, c, ids, n, &e), &e);
	return (double)n / (lwm_now() - t);
}

/* Greedy tokens behind the last one fed. */
static double step_rate(struct lwm_engine *g, struct lwm_cache *c, int tokens, float *logits)
{
	int64_t vocab = lwm_engine_config(g)->vocab_text;
	struct lwm_err e = { 0 };
	double t = lwm_now();
	int32_t id = 1;

	for (int i = 0; i < tokens; i++) {
		must(lwm_decode_step(g, &c, &id, 1, &e), &e);
		must(lwm_engine_read_logits(g, LWM_TEXT, logits, &e), &e);
		id = 0;
		for (int64_t k = 1; k < vocab; k++)
			id = logits[k] > logits[id] ? (int32_t)k : id;
	}
	return tokens / (lwm_now() - t);
}

static void run(const struct lwm_llama_cfg *c, int threads, int64_t depth)
{
	enum { STEPS = 32, SHORT = 512 };
	int32_t *ids = malloc((size_t)depth * sizeof *ids);
	float *logits = malloc((size_t)c->vocab_text * sizeof *logits), *w;
	struct lwm_err e = { 0 };
	struct lwm_cache *cache;
	struct lwm_engine *g;
	struct lk_dev *dev;
	double rate, bytes;

	must(lwm_device_open(&dev, "cpu", threads, &e), &e);
	w = weights(dev, c);
	must(lwm_engine_new(&g, dev, c, w, 1024, 1, &e), &e);
	must(lwm_engine_new_cache(&cache, g, depth + STEPS + 1, &e), &e);
	for (int64_t i = 0; i < depth; i++)
		ids[i] = (int32_t)(i * 7919 % c->vocab_text);
	feed_rate(g, cache, SHORT, ids); // the first call allocates
	for (int k = 0; k < 2; k++) {
		int64_t n = k ? depth : SHORT;

		rate = feed_rate(g, cache, n, ids);
		printf("op=prefill threads=%d tokens=%lld tok_s=%.1f GFLOPs=%.1f\n", lk_dev_threads(dev), (long long)n, rate,
		       rate * lwm_llama_flops(c, 0.5 * (double)n) / 3 * 1e-9);
		rate = step_rate(g, cache, STEPS, logits);
		bytes = 4.0 * (double)lwm_llama_matmul(c) + (double)lwm_cache_bytes(c, n, LK_F32);
		printf("op=decode threads=%d depth=%lld tok_s=%.1f GBs=%.1f\n", lk_dev_threads(dev), (long long)n, rate,
		       rate * bytes * 1e-9);
		fflush(stdout);
	}
	lwm_cache_free(cache);
	lwm_engine_free(g);
	lk_mem_free(dev, w);
	lk_dev_close(dev);
	free(ids);
	free(logits);
}

int main(int argc, char **argv)
{
	struct lwm_llama_cfg c = { .vocab_text = 32000, .dim = 512, .ffn = 1408, .layers = 8, .max_seq = 1 << 20,
				   .rope_theta = 1e4, .rms_eps = 1e-6, .init_std = 0.02 };
	struct lwm_err e = { 0 };
	int64_t depth = 4096;

	if (argc > 1)
		must(lwm_parse_int(argv[1], 512, 1 << 20, &depth, "DEPTH", &e), &e);
	if (argc > 2)
		must(lwm_parse_int(argv[2], 64, 1 << 14, &c.dim, "DIM", &e), &e);
	if (argc > 3)
		must(lwm_parse_int(argv[3], 1, 1000, &c.layers, "LAYERS", &e), &e);
	if (argc > 4)
		must(lwm_parse_int(argv[4], 1, 1 << 20, &c.ffn, "FFN", &e), &e);
	c.heads = c.kv_heads = c.dim / 64;
	must(lwm_llama_check(&c, &e), &e);
	run(&c, 0, depth);
	run(&c, 1, depth);
	return 0;
}
