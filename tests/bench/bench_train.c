/* bench_train.c - one training step (forward, loss, backward, AdamW) of the 124m model against sgemm of the same run.
 *
 *	bench_train [ROWS [SEQ [STEPS [PRESET [VOCAB]]]]]     rows of SEQ tokens; 4 1024 2 124m; 0: the preset's vocabulary
 *
 * GFLOP of a step: 6 * matmul weights * tokens + 6 * layers * rows * seq^2 * dim (causal half of attention); what is
 * computed a second time is not counted. One row with 1 thread, one with all, one with recomputation.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/num.h"
#include "common/comm/device.h"
#include "common/model/llama.h"

struct job {
	struct lwm_llama_cfg cfg;
	int64_t rows, seq, steps;
	float *w, *g, *mom, *var; /* flat, of the device */
	int64_t total;
};

static void must(int rc, const struct lwm_err *e)
{
	if (rc < 0) {
		fprintf(stderr, "bench_train: %s\n", e->msg);
		exit(1);
	}
}

static float *flat(struct lk_dev *dev, int64_t n)
{
	struct lwm_err e = { 0 };
	void *p;

	must(lwm_dev_check(dev, lk_mem_alloc(dev, (size_t)n * sizeof(float), &p), &e), &e);
	must(lwm_dev_check(dev, lk_zero(dev, p, (size_t)n * sizeof(float)), &e), &e);
	return p;
}

/* Best of three products of 4096 x 4096, GFLOP/s. */
static double sgemm_rate(struct lk_dev *dev)
{
	enum { N = 4096 };
	float *p = flat(dev, 3 * (int64_t)N * N);
	struct lk_view a = lk_view2(p, LK_F32, N, N), b = lk_view2(p + N * N, LK_F32, N, N);
	struct lk_view c = lk_view2(p + 2 * N * N, LK_F32, N, N);
	struct lwm_err e = { 0 };
	double best = 1e30;

	must(lwm_dev_check(dev, lk_fill(dev, p, 2 * (int64_t)N * N, 0.5f), &e), &e);
	for (int i = 0; i < 3; i++) {
		double t = lwm_now();

		must(lwm_dev_check(dev, lk_matmul(dev, &c, &a, &b, LK_TB, 1.0f), &e), &e);
		must(lwm_dev_check(dev, lk_sync(dev), &e), &e);
		t = lwm_now() - t;
		best = t < best ? t : best;
	}
	lk_mem_free(dev, p);
	return 2e-9 * N * (double)N * N / best;
}

static void fill_batch(const struct job *j, int32_t *ids, float *weight)
{
	int64_t n = j->rows * j->seq;

	for (int64_t i = 0; i < n; i++) {
		ids[i] = (int32_t)((uint64_t)i * 7919u % (uint64_t)j->cfg.vocab_text); // tokens
		ids[n + i] = (int32_t)((uint64_t)(i + 1) * 7919u % (uint64_t)j->cfg.vocab_text);
		ids[2 * n + i] = (int32_t)(i / j->seq);
		ids[3 * n + i] = (int32_t)(i % j->seq);
		weight[i] = 1.0f / (float)n;
	}
}

/* Median is the best of few steps here: the first one allocates and is left out. */
static void run(struct job *j, struct lk_dev *dev, bool recompute, double peak)
{
	int64_t n = j->rows * j->seq;
	struct lwm_llama_run how = { .tokens = n, .train = true, .recompute = recompute };
	int32_t *ids = malloc((size_t)n * 4 * sizeof *ids);
	float *weight = malloc((size_t)n * sizeof *weight);
	struct lwm_llama_batch b = {
		.n = n, .tokens = ids, .targets = ids + n, .weights = weight, .seg = ids + 2 * n, .pos = ids + 3 * n,
	};
	struct lwm_flat_weights w = lwm_flat_weights_of(j->w, lk_dev_dtype(dev), j->g);
	struct lk_adamw_cfg opt = { 1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 0.1, 0.05 };
	double best = 1e30, update = 0, flop, loss = 0;
	struct lwm_llama_stats st;
	struct lwm_err e = { 0 };
	struct lwm_llama *m;
	char text[32];

	fill_batch(j, ids, weight);
	must(lwm_llama_new(&m, dev, &j->cfg, &how, &e), &e);
	for (int64_t s = 0; s <= j->steps; s++) {
		double t = lwm_now(), u;

		must(lwm_dev_check(dev, lk_zero(dev, j->g, (size_t)j->total * sizeof(float)), &e), &e);
		must(lwm_llama_step(m, &b, &w.base, &st, &e), &e);
		u = lwm_now();
		must(lwm_dev_check(dev, lk_adamw(dev, j->w, j->mom, j->var, j->g, NULL, j->total, &opt), &e), &e);
		must(lwm_dev_check(dev, lk_sync(dev), &e), &e);
		if (s && lwm_now() - t < best) {
			best = lwm_now() - t;
			update = lwm_now() - u;
		}
		loss = st.loss[LWM_TEXT];
	}
	flop = (double)n * lwm_llama_flops(&j->cfg, 0.5 * (double)j->seq);
	printf("op=train%s threads=%d rows=%lld seq=%lld tok_s=%.1f GFLOPs=%.1f of_sgemm=%.3f sgemm=%.1f step_s=%.3f adamw_s=%.3f "
	       "loss=%.4f activations=\"%s\"\n", recompute ? "_recompute" : "", lk_dev_threads(dev), (long long)j->rows,
	       (long long)j->seq, (double)n / best, flop / best * 1e-9, flop / best * 1e-9 / peak, peak, best, update, loss,
	       lwm_bytes_text((double)lwm_llama_memory(&j->cfg, &how, lk_dev_dtype(dev), 1, 1).total, text, sizeof text));
	fflush(stdout);
	lwm_llama_free(m);
	free(ids);
	free(weight);
}

static void with_threads(struct job *j, int threads, bool recompute)
{
	struct lwm_tensors p;
	struct lwm_err e = { 0 };
	struct lk_dev *dev;
	float *host;

	must(lwm_device_open(&dev, "cpu", threads, &e), &e);
	must(lwm_llama_tensors(&p, &j->cfg, &e), &e);
	j->total = p.total;
	j->w = flat(dev, 4 * p.total);
	j->g = j->w + p.total;
	j->mom = j->g + p.total;
	j->var = j->mom + p.total;
	host = malloc((size_t)p.total * sizeof *host);
	lwm_tensors_init(&p, 1, 0, p.total, host);
	must(lwm_dev_check(dev, lk_upload(dev, j->w, host, (size_t)p.total * sizeof *host), &e), &e);
	free(host);
	run(j, dev, recompute, sgemm_rate(dev));
	lk_mem_free(dev, j->w);
	lwm_tensors_release(&p);
	lk_dev_close(dev);
}

int main(int argc, char **argv)
{
	struct job j = { .rows = 4, .seq = 1024, .steps = 2 };
	struct lwm_err e = { 0 };
	int64_t vocab = 0;

	if (argc > 1)
		must(lwm_parse_int(argv[1], 1, 1 << 20, &j.rows, "ROWS", &e), &e);
	if (argc > 2)
		must(lwm_parse_int(argv[2], 1, 1 << 24, &j.seq, "SEQ", &e), &e);
	if (argc > 3)
		must(lwm_parse_int(argv[3], 1, 1000, &j.steps, "STEPS", &e), &e);
	must(lwm_llama_preset(&j.cfg, argc > 4 ? argv[4] : "124m", &e), &e);
	if (argc > 5)
		must(lwm_parse_int(argv[5], 0, 1 << 24, &vocab, "VOCAB", &e), &e);
	j.cfg.vocab_text = vocab ? vocab : j.cfg.vocab_text;
	printf("# %lld rows of %lld tokens, %.1f M weights in products\n", (long long)j.rows, (long long)j.seq,
	       1e-6 * (double)lwm_llama_matmul(&j.cfg));
	with_threads(&j, 0, false);
	with_threads(&j, 0, true);
	with_threads(&j, 1, false);
	return 0;
}
