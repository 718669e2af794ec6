/* Model folders as Hugging Face's transformers leaves them, against what that program says of them: tests/golden/hf-1/make.py.
 * Losses, the norms of all gradients, and greedy continuations; cli/lwm-inspect compares the logits. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/infer/engine.h"
#include "common/infer/sample.h"
#include "common/infer/load.h"

enum { N = 16, MORE = 12, TENSORS = 21 };

static const char *const folders[] = { "llama-v5", "grouped-v4", "grouped-v5", "tied-v5", "mistral-v4", "mistral-v5" };

struct golden {
	int32_t ids[N], greedy[MORE];
	double loss, nll[N - 1];
	int64_t grads;
	struct {
		char name[80];
		double norm;
	} grad[TENSORS];
};

static void must(int rc, const struct lwm_err *e)
{
	if (rc < 0)
		fail_msg("%s", e->msg);
}

static void read_ids(char *p, int32_t *to, int n)
{
	for (int i = 0; i < n; i++)
		to[i] = (int32_t)strtol(p, &p, 10);
}

static void read_golden(struct golden *g, const char *dir)
{
	char path[256], line[4096];
	int nll = 0;
	snprintf(path, sizeof path, "%s/golden.txt", dir);
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	memset(g, 0, sizeof *g);
	while (fgets(line, sizeof line, f)) {
		if (!strncmp(line, "ids ", 4))
			read_ids(line + 4, g->ids, N);
		else if (!strncmp(line, "greedy ", 7))
			read_ids(line + 7, g->greedy, MORE);
		else if (!strncmp(line, "loss ", 5))
			g->loss = strtod(line + 5, NULL);
		else if (!strncmp(line, "nll ", 4))
			g->nll[nll++] = strtod(strchr(line + 4, ' '), NULL);
		else if (!strncmp(line, "grad ", 5) && g->grads < TENSORS) {
			char *end = strchr(line + 5, ' ');
			snprintf(g->grad[g->grads].name, sizeof g->grad->name, "%.*s", (int)(end - line - 5), line + 5);
			g->grad[g->grads++].norm = strtod(end, NULL);
		}
	}
	fclose(f);
	assert_int_equal(nll, N - 1);
}

static void near(const char *dir, const char *what, double got, double want, double slack)
{
	if (!(fabs(got - want) <= slack * fabs(want)))
		fail_msg("%s: %s is %.9g, there %.9g", dir, what, got, want);
}

/* All tensors' gradients of the mean loss, by name. Theirs of a tied table is one, as ours is. */
static void check_gradients(const char *dir, struct lk_dev *dev, const struct lwm_lm *m, const struct golden *g)
{
	struct lwm_llama_run how = { .tokens = N, .train = true };
	struct lwm_llama_stats st;
	struct lwm_tensors table;
	struct lwm_llama *net;
	struct lwm_err e = { 0 };
	int32_t target[N], seg[N] = { 0 }, pos[N];
	float weight[N];
	assert_int_equal(lwm_llama_tensors(&table, &m->cfg, NULL), 0);
	assert_int_equal(table.n, g->grads);
	float *grad = calloc((size_t)table.total, sizeof *grad);
	for (int i = 0; i < N; i++) {
		pos[i] = i;
		target[i] = i + 1 < N ? g->ids[i + 1] : -1;
		weight[i] = i + 1 < N ? 1.0f / (N - 1) : 0;
	}
	struct lwm_llama_batch b = { .n = N, .tokens = g->ids, .targets = target, .weights = weight, .seg = seg, .pos = pos };
	struct lwm_flat_weights w = lwm_flat_weights_of(m->weights, LK_F32, grad);
	must(lwm_llama_new(&net, dev, &m->cfg, &how, &e), &e);
	must(lwm_llama_step(net, &b, &w.base, &st, &e), &e);
	near(dir, "loss", st.loss[LWM_TEXT], g->loss, 1e-6);
	for (int64_t i = 0; i < g->grads; i++) {
		const struct lwm_tensor *p = lwm_tensors_find(&table, g->grad[i].name);
		double sum = 0;
		assert_non_null(p);
		for (int64_t k = 0; k < p->count; k++)
			sum += (double)grad[p->offset + k] * (double)grad[p->offset + k];
		near(dir, p->name, sqrt(sum), g->grad[i].norm, 2e-5);
	}
	lwm_llama_free(net);
	lwm_tensors_release(&table);
	free(grad);
}

static void check_greedy(const char *dir, struct lk_dev *dev, const struct lwm_lm *m, const struct golden *g)
{
	const struct lwm_sampler greedy = { .temperature = 0, .top_p = 1 };
	float *logits = malloc((size_t)m->cfg.vocab_text * sizeof *logits);
	struct lwm_err e = { 0 };
	struct lwm_cache *c;
	struct lwm_engine *gen;
	must(lwm_engine_new(&gen, dev, &m->cfg, m->weights, 7, 1, &e), &e);
	must(lwm_engine_new_cache(&c, gen, N + MORE, &e), &e);
	must(lwm_prefill(gen, c, g->ids, N, &e), &e);
	for (int i = 0; i < MORE; i++) {
		int64_t id;
		must(lwm_engine_read_logits(gen, LWM_TEXT, logits, &e), &e);
		must(lwm_sampler_draw(&greedy, logits, 0, m->cfg.vocab_text, (uint64_t)i, 0, &id, NULL, &e), &e);
		if (id != g->greedy[i])
			fail_msg("%s: token %d is %d, there %d", dir, i, (int)id, (int)g->greedy[i]);
		must(lwm_prefill(gen, c, &(int32_t){ (int32_t)id }, 1, &e), &e);
	}
	lwm_cache_free(c);
	lwm_engine_free(gen);
	free(logits);
}

static void folders_of_transformers(void **state)
{
	static const char *const devices[] = { "ref", "cpu" };
	(void)state;
	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
		for (int d = 0; d < 2; d++) {
			struct golden g;
			struct lwm_lm m;
			struct lwm_err e = { 0 };
			struct lk_dev *dev;
			char dir[200], why[256];
			snprintf(dir, sizeof dir, "tests/golden/hf-1/%s", folders[i]);
			read_golden(&g, dir);
			assert_int_equal(lk_dev_open(&dev, devices[d], 1, why, sizeof why), 0);
			must(lwm_lm_open(&m, dir, false, dev, &e), &e);
			check_gradients(dir, dev, &m, &g);
			check_greedy(dir, dev, &m, &g);
			lwm_lm_close(&m);
			lk_dev_close(dev);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(folders_of_transformers) };
	lwm_log_init("test_hf_golden", LWM_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
