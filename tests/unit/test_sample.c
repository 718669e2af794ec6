/* test_sample.c - caches against the whole forward pass, and what a draw may give. */
#include "common/infer/engine.h"
#include "common/infer/sample.h"
#include "tests/unit/llama_fixture.h"

/* ---- caches ---- */

struct engine {
	struct lwm_llama_cfg cfg;
	struct lk_dev *dev;
	struct lwm_engine *g;
	float *w;
};

static struct engine engine_new(const char *dev, int64_t chunk, int64_t streams)
{
	struct engine x = { .cfg = tiny_cfg(), .dev = device(dev, 1) };
	struct lwm_err e = { 0 };
	int64_t total;

	x.w = weights_new(&x.cfg, &total);
	if (lwm_engine_new(&x.g, x.dev, &x.cfg, x.w, chunk, streams, &e))
		fail_msg("%s", e.msg);
	return x;
}

static void engine_free(struct engine *x)
{
	lwm_engine_free(x->g);
	lk_dev_close(x->dev);
	free(x->w);
}

static struct lwm_cache *cache_new(struct engine *x, int64_t n)
{
	struct lwm_err e = { 0 };
	struct lwm_cache *c;

	if (lwm_engine_new_cache(&c, x->g, n, &e))
		fail_msg("%s", e.msg);
	return c;
}

/* Logits of every position of one document by the training code's forward. */
static void whole(const struct engine *x, struct batch *b, enum lwm_modality head, float *out)
{
	struct lwm_llama_run run = { .tokens = b->b.n };
	struct lwm_flat_weights lw = lwm_flat_weights_of(x->w, LK_F32, NULL);
	int32_t rows[64];
	struct lwm_err e = { 0 };
	struct lwm_llama *m;

	for (int i = 0; i < b->b.n; i++)
		rows[i] = i;
	if (lwm_llama_new(&m, x->dev, &x->cfg, &run, &e) ||
	    lwm_llama_logits(m, &b->b, &lw.base, head, rows, b->b.n, out, &e))
		fail_msg("%s", e.msg);
	lwm_llama_free(m);
}

enum { LEN = 40, TEXT = 37, CODES = 10 };

static void decoding_equals_the_whole_forward(void **state)
{
	static const char *const devices[] = { "ref", "cpu" };
	const int length = LEN;

	(void)state;
	for (int d = 0; d < 2; d++)
		for (int chunk = 1; chunk <= 16; chunk += 5) {
			struct engine x = engine_new(devices[d], chunk, 1);
			struct batch b = batch_docs(&x.cfg, LEN, &length, 1, 0);
			struct lwm_cache *c = cache_new(&x, LEN);
			float text[LEN * TEXT], vision[LEN * CODES], got[TEXT];

			whole(&x, &b, LWM_TEXT, text);
			whole(&x, &b, LWM_VISION, vision);
			assert_int_equal(lwm_prefill(x.g, c, b.tokens, 23, NULL), 0);
			for (int i = 23; i < LEN; i++) {
				assert_int_equal(lwm_engine_read_logits(x.g, LWM_TEXT, got, NULL), 0);
				assert_below(worst(got, text + (i - 1) * TEXT, TEXT), 2e-5);
				assert_int_equal(lwm_engine_read_logits(x.g, LWM_VISION, got, NULL), 0);
				assert_below(worst(got, vision + (i - 1) * CODES, CODES), 2e-5);
				assert_int_equal(lwm_decode_step(x.g, &c, &b.tokens[i], 1, NULL), 0);
			}
			assert_int_equal(lwm_cache_length(c), LEN);
			assert_int_equal(lwm_decode_step(x.g, &c, b.tokens, 1, NULL), -LWM_ECONFIG);
			lwm_cache_free(c);
			batch_free(&b);
			engine_free(&x);
		}
}

/* Logits behind n tokens and behind four more, one by one, with a cache of this kind; out (5, TEXT). */
static void logits_with(const char *dev, enum lwm_cache_kind kind, int64_t chunk, int64_t n, float *out)
{
	struct engine x = engine_new(dev, chunk, 1);
	int32_t *ids = malloc((size_t)(n + 4) * sizeof *ids);
	struct lwm_cache *c;

	for (int64_t i = 0; i < n + 4; i++)
		ids[i] = (int32_t)(i * 7 % 31);
	assert_int_equal(lwm_engine_set_cache(x.g, kind, NULL), 0);
	c = cache_new(&x, n + 4);
	assert_int_equal(lwm_prefill(x.g, c, ids, n, NULL), 0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(lwm_engine_read_logits(x.g, LWM_TEXT, out + i * TEXT, NULL), 0);
		if (i < 4)
			assert_int_equal(lwm_decode_step(x.g, &c, ids + n + i, 1, NULL), 0);
	}
	lwm_cache_free(c);
	free(ids);
	engine_free(&x);
}

/* Rounding to 8 bits of a mantissa errs by 2^-9, to 127 steps of the largest by 2^-8 of it, on keys and values of two layers. */
static void caches_in_fewer_bits_are_near(void **state)
{
	static const struct {
		const char *dev;
		int64_t chunk, tokens;
	} how[] = { { "ref", 16, 40 }, { "cpu", 1, 40 }, { "cpu", 7, 40 }, { "cpu", 1000, 2 * 4096 + 500 } };
	float exact[5 * TEXT], got[5 * TEXT];
	struct engine x = engine_new("cpu", 4, 1);

	(void)state;
	assert_true(lwm_cache_bytes(&x.cfg, 64, LK_I8) < lwm_cache_bytes(&x.cfg, 64, LK_F32));
	engine_free(&x);
	for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
		logits_with(how[i].dev, LWM_CACHE_F32, how[i].chunk, how[i].tokens, exact);
		logits_with(how[i].dev, LWM_CACHE_BF16, how[i].chunk, how[i].tokens, got);
		assert_below(worst(got, exact, 5 * TEXT), 1e-2);
		assert_true(worst(got, exact, 5 * TEXT) > 0);
		logits_with(how[i].dev, LWM_CACHE_INT8, how[i].chunk, how[i].tokens, got);
		assert_below(worst(got, exact, 5 * TEXT), 2e-2);
	}
}

/* Three streams of different length step together as each does alone. */
static void streams_do_not_see_each_other(void **state)
{
	const int lengths[3] = { 5, 17, 9 };
	struct engine x = engine_new("cpu", 8, 3);
	struct lwm_cache *c[3], *alone[3];
	float got[3 * TEXT], want[TEXT];
	struct batch b[3];

	(void)state;
	for (int i = 0; i < 3; i++) {
		b[i] = batch_docs(&x.cfg, LEN, &(const int){ LEN }, 1, i);
		c[i] = cache_new(&x, LEN + i);
		alone[i] = cache_new(&x, LEN);
		assert_int_equal(lwm_prefill(x.g, c[i], b[i].tokens, lengths[i], NULL), 0);
		assert_int_equal(lwm_prefill(x.g, alone[i], b[i].tokens, lengths[i], NULL), 0);
	}
	for (int step = 0; step < 4; step++) {
		int32_t ids[3];

		for (int i = 0; i < 3; i++)
			ids[i] = b[i].tokens[lengths[i] + step];
		assert_int_equal(lwm_decode_step(x.g, c, ids, 3, NULL), 0);
		assert_int_equal(lwm_engine_read_logits(x.g, LWM_TEXT, got, NULL), 0);
		for (int i = 0; i < 3; i++) {
			assert_int_equal(lwm_decode_step(x.g, &alone[i], &ids[i], 1, NULL), 0);
			assert_int_equal(lwm_engine_read_logits(x.g, LWM_TEXT, want, NULL), 0);
			assert_below(worst(got + i * TEXT, want, TEXT), 2e-5);
		}
	}
	assert_int_equal(lwm_decode_step(x.g, c, (int32_t[]){ 1, 2, 47 }, 3, NULL), -LWM_EDATA);
	assert_int_equal(lwm_cache_length(c[0]), 9);
	for (int i = 0; i < 3; i++) {
		lwm_cache_free(c[i]);
		lwm_cache_free(alone[i]);
		batch_free(&b[i]);
	}
	engine_free(&x);
}

/* ---- one context over ranks ---- */

struct split_case {
	const char *dev;
	int prompt[2]; /* lengths of two streams */
};

static int logits_agree(struct engine *alone, struct lwm_engine *split, int streams, const char *when, struct lwm_err *e)
{
	float a[2 * TEXT], b[2 * TEXT];

	LWM_TRY(lwm_engine_read_logits(alone->g, LWM_TEXT, a, e));
	LWM_TRY(lwm_engine_read_logits(split, LWM_TEXT, b, e));
	if (!(worst(b, a, streams * TEXT) < 3e-5))
		return lwm_fail(e, LWM_ENUMERIC, "%s: logits differ by %g", when, worst(b, a, streams * TEXT));
	return 0;
}

static int split_streams(struct engine *x, struct lwm_engine *g, const struct split_case *k, struct lwm_err *e)
{
	struct lwm_cache *c[2] = { NULL, NULL }, *d[2] = { NULL, NULL };
	int32_t ids[2][64];
	int rc = 0;

	for (int i = 0; i < 64; i++) {
		ids[0][i] = i * 7 % 37;
		ids[1][i] = 37 + i % 8;
	}
	for (int s = 0; s < 2; s++) {
		LWM_GO(lwm_engine_new_cache(&c[s], x->g, 60, e));
		LWM_GO(lwm_engine_new_cache(&d[s], g, 60, e));
		LWM_GO(lwm_prefill(x->g, c[s], ids[s], k->prompt[s], e));
		LWM_GO(lwm_prefill(g, d[s], ids[s], k->prompt[s], e));
		LWM_GO(logits_agree(x, g, 1, "behind the prompt", e));
	}
	for (int i = 0; i < 15; i++) {
		int32_t next[2] = { ids[0][k->prompt[0] + i], ids[1][k->prompt[1] + i] };

		if (i == 9) // the last three again
			for (int s = 0; s < 2; s++) {
				lwm_cache_rewind(c[s], k->prompt[s] + 6);
				lwm_cache_rewind(d[s], k->prompt[s] + 6);
			}
		LWM_GO(lwm_decode_step(x->g, c, next, 2, e));
		LWM_GO(lwm_decode_step(g, d, next, 2, e));
		LWM_GO(logits_agree(x, g, 2, "behind a step", e));
	}
	LWM_GO(lwm_prefill(x->g, c[1], ids[0], 5, e)); // a second turn
	LWM_GO(lwm_prefill(g, d[1], ids[0], 5, e));
	LWM_GO(logits_agree(x, g, 1, "behind a second turn", e));
out:
	for (int s = 0; s < 2; s++) {
		lwm_cache_free(c[s]);
		lwm_cache_free(d[s]);
	}
	return rc;
}

static int split_rank(struct lwm_comm *comm, void *arg, struct lwm_err *e)
{
	const struct split_case *k = arg;
	struct engine x = engine_new(k->dev, 16, 2);
	struct lwm_engine *g = NULL;
	int rc = lwm_engine_new_shared(&g, x.dev, &x.cfg, x.w, comm, 40, 2, e);

	if (rc == 0)
		rc = split_streams(&x, g, k, e);
	lwm_engine_free(g);
	engine_free(&x);
	return rc;
}

static void ranks_share_a_context(void **state)
{
	const struct split_case cases[] = { { "ref", { 23, 40 } }, { "cpu", { 3, 17 } }, { "cpu", { 1, 32 } } };

	(void)state;
	for (int n = 1; n <= 4; n++)
		for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
			struct split_case k = cases[i];
			struct lwm_err e = { 0 };

			if (lwm_comm_threads(n, split_rank, &k, &e))
				fail_msg("%d ranks, case %zu: %s", n, i, e.msg);
		}
}

static void rewinding_forgets(void **state)
{
	struct engine x = engine_new("cpu", 64, 1);
	struct lwm_cache *c = cache_new(&x, 600);
	int32_t ids[600];
	float a[TEXT], b[TEXT];

	(void)state;
	for (int i = 0; i < 600; i++)
		ids[i] = i * 7 % 37;
	assert_int_equal(lwm_prefill(x.g, c, ids, 500, NULL), 0); // reaches over several growths of the key table
	assert_int_equal(lwm_engine_read_logits(x.g, LWM_TEXT, a, NULL), 0);
	assert_int_equal(lwm_prefill(x.g, c, ids, 100, NULL), 0);
	lwm_cache_rewind(c, 490);
	assert_int_equal(lwm_prefill(x.g, c, ids + 490, 10, NULL), 0);
	assert_int_equal(lwm_engine_read_logits(x.g, LWM_TEXT, b, NULL), 0);
	assert_below(worst(b, a, TEXT), 2e-5);
	lwm_cache_free(c);
	engine_free(&x);
}

/* What does not fit is refused before a part of it has been fed. */
static void too_much_changes_nothing(void **state)
{
	struct engine x = engine_new("cpu", 8, 1);
	struct lwm_cache *c = cache_new(&x, 40);
	int32_t ids[40];
	struct lwm_err e = { 0 };

	(void)state;
	for (int i = 0; i < 40; i++)
		ids[i] = i % 37;
	assert_int_equal(lwm_prefill(x.g, c, ids, 20, NULL), 0);
	assert_int_equal(lwm_prefill(x.g, c, ids, 21, &e), -LWM_ECONFIG);
	assert_non_null(strstr(e.msg, "21 more tokens do not fit: the context holds 40, 20 are used"));
	assert_int_equal(lwm_cache_length(c), 20);
	assert_int_equal(lwm_prefill(x.g, c, ids, 20, NULL), 0);
	lwm_cache_free(c);
	engine_free(&x);
}

/* ---- draws ---- */

static int64_t pick(const struct lwm_sampler *s, const float *l, int64_t first, int64_t last, uint64_t step)
{
	int64_t id = -1;
	struct lwm_err e = { 0 };

	if (lwm_sampler_draw(s, l, first, last, step, 0, &id, NULL, &e))
		fail_msg("%s", e.msg);
	return id;
}

static void greedy_takes_the_first_largest(void **state)
{
	const float l[] = { 9, 1, 5, 5, -2 };
	struct lwm_sampler s = { .temperature = 0, .top_p = 1 }, k1 = { .temperature = 3, .top_k = 1, .top_p = 1 };
	double lp;
	int64_t id;

	(void)state;
	assert_int_equal(pick(&s, l, 0, 5, 0), 0);
	assert_int_equal(pick(&s, l, 1, 5, 0), 2);
	assert_int_equal(pick(&k1, l, 1, 5, 0), 2);
	assert_int_equal(lwm_sampler_draw(&s, l, 1, 4, 0, 0, &id, &lp, NULL), 0);
	assert_below(fabs(lp + log(2 + exp(-4.0))), 1e-9);
}

static void frequencies_follow_the_softmax(void **state)
{
	const float l[] = { 100, 0, 1, -1, 2, 100 };
	struct lwm_sampler s = { .temperature = 1, .top_p = 1, .seed = 3 };
	enum { N = 20000 };

	(void)state;
	for (int t = 0; t < 3; t++) {
		double z = 0, p[6], count[6] = { 0 };

		s.temperature = t == 1 ? 0.5 : t == 2 ? 2 : 1;
		s.top_k = t == 2 ? 4 : 0;
		for (int i = 1; i < 5; i++)
			z += p[i] = exp((double)l[i] / s.temperature);
		for (int n = 0; n < N; n++)
			count[pick(&s, l, 1, 5, (uint64_t)n)] += 1.0 / N;
		assert_true(count[0] == 0 && count[5] == 0);
		for (int i = 1; i < 5; i++)
			assert_below(fabs(count[i] - p[i] / z), 0.02);
	}
}

static void limits_leave_only_the_best(void **state)
{
	enum { V = 5000, N = 3000 };
	static float l[V];
	struct lwm_rng r = lwm_rng_at(1, LWM_RNG_TEST, 0, 0);
	struct lwm_sampler s = { .temperature = 1, .top_k = 7, .top_p = 1 };
	int64_t order[V];

	(void)state;
	for (int i = 0; i < V; i++)
		l[i] = (float)(int)(lwm_rng_double(&r) * 300); // many ties
	for (int i = 0; i < V; i++)
		order[i] = 0;
	for (int i = 0; i < V; i++)
		for (int j = 0; j < V; j++)
			order[i] += l[j] > l[i] || (l[j] == l[i] && j < i); // rank of i
	for (int n = 0; n < N; n++)
		assert_true(order[pick(&s, l, 0, V, (uint64_t)n)] < 7);
	for (int i = 0; i < V; i++)
		l[i] = i < 4 ? logf(0.2f) : logf(0.2f / (V - 4));
	s.top_k = 0;
	s.top_p = 0.75; // three of probability 0.2 are too few, four are enough
	for (int n = 0; n < N; n++)
		assert_true(pick(&s, l, 0, V, (uint64_t)n) < 4);
}

static void draws_depend_on_seed_and_step_only(void **state)
{
	float l[100];
	struct lwm_sampler a = { .temperature = 1, .top_p = 1, .seed = 1 }, b = a;
	int differ = 0;

	(void)state;
	b.seed = 2;
	for (int i = 0; i < 100; i++)
		l[i] = (float)(i % 3);
	for (uint64_t n = 0; n < 50; n++) {
		assert_int_equal(pick(&a, l, 0, 100, n), pick(&a, l, 0, 100, n));
		differ += pick(&a, l, 0, 100, n) != pick(&b, l, 0, 100, n);
	}
	assert_true(differ > 30);
}

static void broken_logits_are_refused(void **state)
{
	float l[] = { 1, NAN, -INFINITY, -INFINITY, 2 };
	struct lwm_sampler s = { .temperature = 1, .top_p = 1 };
	struct lwm_err e = { 0 };
	int64_t id;

	(void)state;
	assert_int_equal(lwm_sampler_draw(&s, l, 0, 5, 0, 0, &id, NULL, &e), -LWM_ENUMERIC);
	assert_int_equal(lwm_sampler_draw(&s, l, 2, 4, 0, 0, &id, NULL, NULL), -LWM_ENUMERIC);
	assert_int_equal(lwm_sampler_draw(&s, l, 3, 3, 0, 0, &id, NULL, NULL), -LWM_ENUMERIC);
	assert_int_equal(pick(&s, l, 2, 5, 0), 4);
}

static void guidance_extrapolates(void **state)
{
	float u[] = { 1, 2 }, c[] = { 2, 0 };

	(void)state;
	lwm_guide_logits(u, c, 2, 1);
	assert_true(u[0] == 2 && u[1] == 0);
	u[0] = 1;
	u[1] = 2;
	lwm_guide_logits(u, c, 2, 3);
	assert_true(u[0] == 4 && u[1] == -4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decoding_equals_the_whole_forward),
		cmocka_unit_test(caches_in_fewer_bits_are_near),
		cmocka_unit_test(streams_do_not_see_each_other),
		cmocka_unit_test(ranks_share_a_context),
		cmocka_unit_test(rewinding_forgets),
		cmocka_unit_test(too_much_changes_nothing),
		cmocka_unit_test(greedy_takes_the_first_largest),
		cmocka_unit_test(frequencies_follow_the_softmax),
		cmocka_unit_test(limits_leave_only_the_best),
		cmocka_unit_test(draws_depend_on_seed_and_step_only),
		cmocka_unit_test(broken_logits_are_refused),
		cmocka_unit_test(guidance_extrapolates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
