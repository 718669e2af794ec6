/* The transformer against numbers of a second program: tests/golden/llama-1/make.py says where they come from. Comparing
 * backends, cuts and finite differences cannot see a formula that is wrong everywhere; this does. */
#include "tests/unit/llama_fixture.h"

enum { DIM = 24, FFN = 20, LAYERS = 2, HEADS = 4, TEXT = 23, TOKENS = 20, ROWS = 3, LOGITS = 3, SLOPES = 14 };
static const int documents[] = { 9, 1, 7 };
static const int32_t rows[ROWS] = { 5, 12, 16 };

static const struct golden {
	const char *name;
	double theta, eps;
	int causal, tied, kv_heads, codes, rows; /* codes, rows: of vision */
	int32_t token[TOKENS];
	double loss[LWM_MODALITIES], nll[LWM_MODALITIES], hits[LWM_MODALITIES], tokens[LWM_MODALITIES];
	double logit[LWM_MODALITIES][ROWS][LOGITS + 1]; /* of the first ids, and the sum of squares of all */
	struct {
		const char *tensor;
		double slope; /* of the loss along numbers(seed "direction of TENSOR") */
	} slope[SLOPES];
} golden[] = {
#include "tests/golden/llama-1/values.inc"
};
enum { CASES = sizeof golden / sizeof *golden };

/* As numbers() of make.py. */
static void numbers(const char *about, const char *name, int64_t n, float *out)
{
	uint32_t x = 2166136261u;
	for (int part = 0; part < 2; part++)
		for (const char *p = part ? name : about; *p; p++)
			x = (x ^ (unsigned char)*p) * 16777619u;
	for (int64_t i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		out[i] = (float)(x >> 16) / 65536.0f - 0.5f;
	}
}

static struct lwm_llama_cfg model_of(const struct golden *g)
{
	return (struct lwm_llama_cfg){ .vocab_text = TEXT, .vision_rows = g->rows, .vision_codes = g->codes, .dim = DIM, .ffn = FFN,
				       .layers = LAYERS, .heads = HEADS, .kv_heads = g->kv_heads, .max_seq = 64,
				       .rope_theta = g->theta, .rms_eps = g->eps, .init_std = 0.02,
				       .tie_embeddings = g->tied };
}

/* Weights by name: where a tensor lies in the flat vector is the table's affair. */
static float *weights_of(const struct lwm_llama_cfg *c, struct lwm_tensors *table)
{
	float *w;
	assert_int_equal(lwm_llama_tensors(table, c, NULL), 0);
	w = malloc((size_t)table->total * sizeof *w);
	assert_non_null(w);
	for (int64_t i = 0; i < table->n; i++) {
		const struct lwm_tensor *p = &table->list[i];
		float *v = w + p->offset;
		numbers("", p->name, p->count, v);
		for (int64_t k = 0; p->ndim == 1 && k < p->count; k++)
			v[k] = 1 + v[k] / 2;
	}
	return w;
}

static struct batch batch_of(const struct golden *g)
{
	struct batch x = batch_alloc(TOKENS);
	int at = 0;
	memcpy(x.tokens, g->token, sizeof g->token);
	for (int d = 0; d < 3; d++)
		for (int i = 0; i < documents[d]; i++, at++) {
			x.seg[at] = d;
			x.pos[at] = i;
			x.targets[at] = i + 1 < documents[d] ? g->token[at + 1] : -1;
		}
	for (int t = 0; t < TOKENS; t++) {
		x.weights[t] = t % 5 == 4 ? 0 : (float)(1 + t % 3) / 64;
		if (t >= at)
			x.seg[t] = x.targets[t] = -1;
	}
	return x;
}

static void near(const struct golden *g, const char *dev, const char *what, double got, double want, double scale)
{
	if (!(fabs(got - want) <= 2e-5 * scale))
		fail_msg("%s on %s: %s is %.9g, expected %.9g", g->name, dev, what, got, want);
}

static void check_loss(const struct golden *g, const char *dev, const struct result *r)
{
	for (int v = 0; v < LWM_MODALITIES; v++) {
		near(g, dev, v ? "loss of vision" : "loss of text", r->stats.loss[v], g->loss[v], fabs(g->loss[v]));
		near(g, dev, v ? "nll of vision" : "nll of text", r->stats.nll[v], g->nll[v], fabs(g->nll[v]));
		assert_true(r->stats.hits[v] == g->hits[v]);
		assert_true((double)r->stats.tokens[v] == g->tokens[v]);
	}
}

static void check_slopes(const struct golden *g, const char *dev, const struct lwm_tensors *table, const float *grad)
{
	float d[FFN * DIM * 2];
	for (int i = 0; i < SLOPES && g->slope[i].tensor; i++) {
		const struct lwm_tensor *p = lwm_tensors_find(table, g->slope[i].tensor);
		double sum = 0, size = 0;
		assert_non_null(p);
		assert_true(p->count <= (int64_t)(sizeof d / sizeof *d));
		numbers("direction of ", p->name, p->count, d);
		for (int64_t k = 0; k < p->count; k++) {
			sum += (double)d[k] * (double)grad[p->offset + k];
			size += fabs((double)d[k] * (double)grad[p->offset + k]);
		}
		near(g, dev, p->name, sum, g->slope[i].slope, size);
	}
}

static void check_logits(const struct golden *g, const char *name, const struct lwm_llama_cfg *c, const struct batch *x,
			 const float *w)
{
	struct lwm_llama_run run = { .tokens = TOKENS, .no_causal = !g->causal };
	struct lwm_flat_weights lw = lwm_flat_weights_of(w, LK_F32, NULL);
	struct lk_dev *dev = device(name, 1);
	struct lwm_err e = { 0 };
	struct lwm_llama *m;
	assert_int_equal(lwm_llama_new(&m, dev, c, &run, &e), 0);
	for (int v = 0; v < (g->codes ? 2 : 1); v++) {
		int64_t n = v ? g->rows : TEXT;
		float y[ROWS * TEXT];
		if (lwm_llama_logits(m, &x->b, &lw.base, (enum lwm_modality)v, rows, ROWS, y, &e))
			fail_msg("%s", e.msg);
		for (int r = 0; r < ROWS; r++) {
			double sum = 0;
			for (int64_t k = 0; k < n; k++)
				sum += (double)y[r * n + k] * (double)y[r * n + k];
			for (int k = 0; k < LOGITS; k++)
				near(g, name, "a logit", (double)y[r * n + k], g->logit[v][r][k], sqrt(sum));
			near(g, name, "the sum of squares of logits", sum, g->logit[v][r][LOGITS], sum);
		}
	}
	lwm_llama_free(m);
	lk_dev_close(dev);
}

static void losses_logits_and_gradients(void **state)
{
	static const char *const devices[] = { "ref", "cpu" };
	(void)state;
	for (int i = 0; i < CASES; i++)
		for (int d = 0; d < 2; d++) {
			const struct golden *g = &golden[i];
			struct lwm_llama_cfg c = model_of(g);
			struct lwm_tensors table;
			float *w = weights_of(&c, &table);
			struct batch x = batch_of(g);
			struct lwm_llama_run run = { .no_causal = !g->causal, .recompute = i % 2 };
			struct result r = step_once(devices[d], &c, run, &x.b, w, true);
			check_loss(g, devices[d], &r);
			check_slopes(g, devices[d], &table, r.grad);
			check_logits(g, devices[d], &c, &x, w);
			free(r.grad);
			free(w);
			batch_free(&x);
			lwm_tensors_release(&table);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(losses_logits_and_gradients) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
