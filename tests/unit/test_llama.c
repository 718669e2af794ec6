/* test_llama.c - the transformer's training step: gradients, and that nothing but rounding depends on how it is cut. */
#include "tests/unit/llama_fixture.h"

static const int docs3[] = { 11, 7, 9 };
static const char *const devices[] = { "ref", "cpu" };

static void presets_have_the_published_counts(void **state)
{
	static const struct {
		const char *name;
		int64_t text, vision;
	} t[] = {
		{ "debug", 17302784, 4325376 },        { "200m", 212366336, 17301504 },
		{ "1b", 1244227584, 34603008 },        { "3b", 3426473600, 54067200 },
		{ "7b", 6738415616, 69206016 },        { "13b", 13015864320, 86507520 },
		{ "30b", 32528943616, 112459776 },     { "65b", 65285660672, 138412032 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		struct lwm_llama_cfg c;
		struct lwm_tensors p;

		assert_int_equal(lwm_llama_preset(&c, t[i].name, NULL), 0);
		assert_int_equal(lwm_llama_count(&c), t[i].text);
		lwm_llama_add_vision(&c, 8192);
		assert_int_equal(c.vision_rows, 8448);
		assert_int_equal(lwm_llama_count(&c), t[i].text + t[i].vision);
		assert_int_equal(lwm_llama_tensors(&p, &c, NULL), 0);
		assert_int_equal(p.total, lwm_llama_count(&c));
		lwm_tensors_release(&p);
	}
}

static void every_preset_is_sound(void **state)
{
	struct lwm_llama_cfg c;
	struct lwm_err e = { 0 };

	(void)state;
	for (int i = 0; lwm_llama_presets[i]; i++) {
		assert_int_equal(lwm_llama_preset(&c, lwm_llama_presets[i], &e), 0);
		assert_int_equal(lwm_llama_check(&c, &e), 0);
	}
	assert_int_equal(lwm_llama_preset(&c, "70b", &e), -LWM_EUSAGE);
	assert_non_null(strstr(e.msg, "70b"));
	c.heads = 3;
	assert_int_equal(lwm_llama_check(&c, NULL), -LWM_ECONFIG);
}

static void table_is_found_by_name_and_place(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	const struct lwm_tensor *q, *k;
	struct lwm_tensors p;

	(void)state;
	assert_int_equal(lwm_llama_tensors(&p, &c, NULL), 0);
	q = lwm_tensors_find(&p, "model.layers.1.self_attn.q_proj.weight");
	k = lwm_tensors_find(&p, "model.layers.1.self_attn.k_proj.weight");
	assert_non_null(q);
	assert_non_null(k);
	assert_int_equal(k->offset, q->offset + q->count);
	assert_true(q->decays && q->modality == LWM_MODALITIES);
	assert_int_equal(k->rope_heads, 2);
	assert_null(lwm_tensors_find(&p, "model.layers.2.self_attn.q_proj.weight"));
	for (int64_t i = 0; i < p.n; i++) {
		assert_ptr_equal(lwm_tensors_at(&p, p.list[i].offset), &p.list[i]);
		assert_ptr_equal(lwm_tensors_at(&p, p.list[i].offset + p.list[i].count - 1), &p.list[i]);
	}
	assert_null(lwm_tensors_at(&p, p.total));
	lwm_tensors_release(&p);
}

static void norms_alone_do_not_decay(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	int64_t all = 0, left = 0;
	struct lwm_tensors p;

	(void)state;
	assert_int_equal(lwm_llama_tensors(&p, &c, NULL), 0);
	for (int64_t i = 0; i < p.n; i++) {
		assert_int_equal(p.list[i].offset, all);
		all += p.list[i].count;
		left += p.list[i].decays ? 0 : p.list[i].count;
	}
	assert_int_equal(all, p.total);
	assert_int_equal(left, (2 * c.layers + 1) * c.dim);
	lwm_tensors_release(&p);
}

static void initial_values_do_not_depend_on_the_cut(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct lwm_tensors p;
	float *a, *b;
	double var = 0;

	(void)state;
	assert_int_equal(lwm_llama_tensors(&p, &c, NULL), 0);
	a = malloc((size_t)p.total * sizeof *a);
	b = malloc((size_t)p.total * sizeof *b);
	lwm_tensors_init(&p, 9, 0, p.total, a);
	for (int64_t at = 0, n = 1; at < p.total; at += n, n = n * 3 % 997 + 1) {
		if (n > p.total - at)
			n = p.total - at;
		lwm_tensors_init(&p, 9, at, n, b + at);
	}
	assert_memory_equal(a, b, (size_t)p.total * sizeof *a);
	for (int64_t i = 0; i < p.list[0].count; i++)
		var += (double)a[i] * (double)a[i] / (double)p.list[0].count;
	assert_below(fabs(sqrt(var) - c.init_std), 0.03);
	lwm_tensors_init(&p, 10, 0, p.total, b);
	assert_memory_not_equal(a, b, 256);
	free(a);
	free(b);
	lwm_tensors_release(&p);
}

/* Along a random direction within each tensor: (L(w+hd) - L(w-hd)) / 2h against grad . d. */
static void check_gradient(const char *name, struct lwm_llama_cfg c, struct lwm_llama_run run)
{
	struct batch x = batch_docs(&c, 30, docs3, 3, 0);
	struct lwm_tensors p;
	struct result r;
	int64_t total;
	float *w = weights_new(&c, &total), *v = malloc((size_t)total * sizeof *v);

	assert_int_equal(lwm_llama_tensors(&p, &c, NULL), 0);
	r = step_once(name, &c, run, &x.b, w, true);
	for (int64_t i = 0; i < p.n; i++) {
		const struct lwm_tensor *q = &p.list[i];
		struct lwm_rng g = lwm_rng_at(3, LWM_RNG_TEST, 1, (uint64_t)i);
		double h = 0.02 / sqrt((double)q->count), dot = 0, fd = 0;

		for (int sign = -1; sign <= 1; sign += 2) {
			struct lwm_rng d = g;
			struct result s;

			memcpy(v, w, (size_t)total * sizeof *v);
			for (int64_t k = 0; k < q->count; k++)
				v[q->offset + k] += (float)(sign * h * lwm_rng_normal(&d));
			s = step_once(name, &c, run, &x.b, v, false);
			fd += sign * s.loss / (2 * h);
		}
		for (int64_t k = 0; k < q->count; k++)
			dot += lwm_rng_normal(&g) * (double)r.grad[q->offset + k];
		if (!(fabs(fd - dot) < 2e-3 + 0.01 * fabs(dot)))
			fail_msg("%s on %s: finite difference %g, gradient %g", q->name, name, fd, dot);
	}
	free(r.grad);
	free(v);
	free(w);
	batch_free(&x);
	lwm_tensors_release(&p);
}

static void gradient_is_the_derivative(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct lwm_llama_run run = { 0 };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		c = tiny_cfg();
		check_gradient(devices[i], c, run);
		run.recompute = true;
		c.tie_embeddings = true;
		check_gradient(devices[i], c, run);
		run.head_groups = 2;
		check_gradient(devices[i], c, run);
		run.head_groups = 0;
		run.recompute = false;
		run.no_causal = true;
		c.vision_rows = c.vision_codes = 0;
		c.kv_heads = 4;
		check_gradient(devices[i], c, run);
		run.no_causal = false;
	}
}

static void how_it_is_cut_does_not_matter(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct batch x = batch_docs(&c, 30, docs3, 3, 0);
	const struct lwm_llama_run runs[] = {
		{ .mlp_chunk = 7 }, { .loss_bytes = 5 * 37 * 4 }, { .recompute = true }, { .tokens = 64 },
		{ .recompute = true, .mlp_chunk = 8, .loss_bytes = 1 }, { .recompute = true, .head_groups = 2 },
		{ .recompute = true, .head_groups = 2, .mlp_chunk = 7, .tokens = 64 },
	};
	int64_t total;
	float *w = weights_new(&c, &total);

	(void)state;
	for (size_t d = 0; d < 2; d++) {
		struct result a = step_once(devices[d], &c, (struct lwm_llama_run){ 0 }, &x.b, w, true);

		for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
			struct result b = step_once(devices[d], &c, runs[i], &x.b, w, true);

			assert_below(fabs(a.loss - b.loss), 1e-6);
			assert_below(worst(b.grad, a.grad, total), 1e-5);
			free(b.grad);
		}
		free(a.grad);
	}
	free(w);
	batch_free(&x);
}

/* What is kept is rounded for the backward alone: the loss has the same bits, and gradients differ by that rounding. */
static void kept_in_bf16_the_loss_is_the_same(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct batch x = batch_docs(&c, 30, docs3, 3, 0);
	int64_t total;
	float *w = weights_new(&c, &total);

	(void)state;
	for (size_t d = 0; d < 2; d++)
		for (int groups = 1; groups <= 2; groups++) {
			struct lwm_llama_run run = { .recompute = true, .head_groups = groups };
			struct result a = step_once(devices[d], &c, run, &x.b, w, true), b;
			double off;

			run.keep_bf16 = true;
			b = step_once(devices[d], &c, run, &x.b, w, true);
			assert_memory_equal(&a.loss, &b.loss, sizeof a.loss);
			off = worst(b.grad, a.grad, total);
			assert_below(off, 5e-3);
			assert_below(-off, -1e-5); // it was rounded
			free(a.grad);
			free(b.grad);
		}
	free(w);
	batch_free(&x);
}

static void little_memory_is_refused_where_it_cannot_be(void **state)
{
	static const struct {
		struct lwm_llama_run run;
		int tp, rc;
		const char *says;
	} t[] = {
		{ { .recompute = true, .head_groups = 2, .keep_bf16 = true }, 1, 0, "" },
		{ { .recompute = true, .head_groups = 3 }, 1, -LWM_ECONFIG, "3 groups" },
		{ { .recompute = true, .head_groups = 4 }, 1, -LWM_ECONFIG, "2 key heads" },
		{ { .keep_bf16 = true }, 1, -LWM_ECONFIG, "recomputation" },
		{ { .recompute = true, .keep_bf16 = true, .offload = true }, 1, -LWM_ECONFIG, "host memory" },
		{ { .recompute = true, .head_groups = 2 }, 2, -LWM_ECONFIG, "tensor parallelism" },
	};
	struct lwm_llama_cfg c = tiny_cfg();

	(void)state;
	c.vocab_text = 38;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct lwm_llama_run run = t[i].run;
		struct lwm_err e = { 0 };

		run.tokens = 8;
		run.train = true;
		assert_int_equal(lwm_llama_check_run(&c, &run, t[i].tp, &e), t[i].rc);
		assert_non_null(strstr(e.msg, t[i].says));
	}
}

/* Two steps, so that slots are met that an earlier step has used. */
static void two_steps(struct lk_dev *dev, const struct lwm_llama_cfg *c, bool offload, const struct lwm_llama_batch *b,
		      const float *w, float *grad)
{
	struct lwm_llama_run run = { .tokens = b->n, .train = true, .recompute = true, .offload = offload };
	struct lwm_flat_weights weights = lwm_flat_weights_of(w, LK_F32, grad);
	struct lwm_llama_stats st;
	struct lwm_err e = { 0 };
	struct lwm_llama *m;

	memset(grad, 0, (size_t)lwm_llama_count(c) * sizeof *grad);
	assert_int_equal(lwm_llama_new(&m, dev, c, &run, &e), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(lwm_llama_step(m, b, &weights.base, &st, &e), 0);
	lwm_llama_free(m);
}

static void activations_in_host_memory_give_the_same_bits(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct batch x = batch_docs(&c, 20, (int[]){ 9, 8 }, 2, 0);
	struct lk_dev *dev = device("cpu", 1);
	struct lwm_llama_run run = { .tokens = 20, .train = true, .offload = true };
	struct lwm_err e = { 0 };
	struct lwm_llama *m;
	int64_t total;

	(void)state;
	for (c.layers = 1; c.layers <= 7; c.layers++) {
		float *w = weights_new(&c, &total), *a = malloc((size_t)total * 4), *b = malloc((size_t)total * 4);

		two_steps(dev, &c, false, &x.b, w, a);
		two_steps(dev, &c, true, &x.b, w, b);
		assert_memory_equal(a, b, (size_t)total * 4);
		free(w);
		free(a);
		free(b);
	}
	assert_int_equal(lwm_llama_new(&m, dev, &c, &run, &e), -LWM_ECONFIG); // without recomputation
	lk_dev_close(dev);
	batch_free(&x);
}

static void the_longest_row_just_fits(void **state)
{
	struct lwm_llama_run run = { .train = true, .recompute = true };
	int64_t bytes = (int64_t)100 << 30, host = (int64_t)1 << 40, n[2], each;
	struct lwm_llama_cfg c;

	(void)state;
	assert_int_equal(lwm_llama_preset(&c, "1b", NULL), 0);
	each = 18 * lwm_llama_count(&c);
	for (int i = 0; i < 2; i++) {
		run.offload = i;
		n[i] = lwm_llama_longest(NULL, &c, &run, LK_BF16, bytes, host);
		run.tokens = n[i];
		assert_true(lwm_llama_memory(&c, &run, LK_BF16, 1, 1).total + each <= bytes);
		run.tokens++;
		assert_true(lwm_llama_memory(&c, &run, LK_BF16, 1, 1).total + each > bytes);
	}
	assert_true(n[1] > 2 * n[0]);
	assert_int_equal(lwm_llama_longest(NULL, &c, &run, LK_BF16, each, host), 0);
	run.tokens = lwm_llama_longest(NULL, &c, &run, LK_BF16, bytes, (int64_t)8 << 30); // little host memory
	assert_true(run.tokens > 0 && run.tokens < n[1]);
	assert_true(lwm_llama_memory(&c, &run, LK_BF16, 1, 1).host <= (int64_t)8 << 30);
}

static void cpu_agrees_with_ref(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	const int lengths[] = { 70, 1, 130 };
	struct batch x;
	int64_t total;
	float *w;
	struct result a, b;

	(void)state;
	c.dim = 64;
	c.ffn = 96;
	x = batch_docs(&c, 210, lengths, 3, 0);
	w = weights_new(&c, &total);
	a = step_once("ref", &c, (struct lwm_llama_run){ 0 }, &x.b, w, true);
	b = step_once("cpu", &c, (struct lwm_llama_run){ 0 }, &x.b, w, true);
	assert_below(fabs(a.loss - b.loss) / a.loss, 1e-5);
	assert_below(worst(b.grad, a.grad, total), 1e-4);
	for (int v = 0; v < LWM_MODALITIES; v++) {
		assert_int_equal(a.stats.tokens[v], b.stats.tokens[v]);
		assert_true(a.stats.tokens[v] > 10);
	}
	free(a.grad);
	free(b.grad);
	free(w);
	batch_free(&x);
}

/* Gradients of a packed row are the sum of those of its documents; logits are the same numbers. */
static void packing_changes_nothing(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct batch x = batch_docs(&c, 30, docs3, 3, 0);
	int64_t total;
	float *w = weights_new(&c, &total);

	(void)state;
	for (size_t d = 0; d < 2; d++) {
		struct result all = step_once(devices[d], &c, (struct lwm_llama_run){ 0 }, &x.b, w, true);
		float *sum = calloc((size_t)total, sizeof *sum);
		double loss = 0;

		for (int i = 0; i < 3; i++) {
			struct batch y = batch_docs(&c, docs3[i], &docs3[i], 1, i);
			struct result r = step_once(devices[d], &c, (struct lwm_llama_run){ 0 }, &y.b, w, true);

			for (int64_t k = 0; k < total; k++)
				sum[k] += r.grad[k];
			loss += r.loss;
			free(r.grad);
			batch_free(&y);
		}
		assert_below(fabs(loss - all.loss), 1e-6);
		assert_below(worst(all.grad, sum, total), 1e-5);
		free(all.grad);
		free(sum);
	}
	free(w);
	batch_free(&x);
}

static void logits_of(const char *name, const struct lwm_llama_cfg *c, const float *w, const struct batch *x,
		      enum lwm_modality head, const int32_t *rows, int64_t n, float *out)
{
	struct lwm_llama_run run = { .tokens = x->b.n };
	struct lwm_flat_weights lw = lwm_flat_weights_of(w, LK_F32, NULL);
	struct lk_dev *dev = device(name, 1);
	struct lwm_err e = { 0 };
	struct lwm_llama *m;

	if (lwm_llama_new(&m, dev, c, &run, &e) || lwm_llama_logits(m, &x->b, &lw.base, head, rows, n, out, &e))
		fail_msg("%s", e.msg);
	lwm_llama_free(m);
	lk_dev_close(dev);
}

static void a_packed_document_has_the_logits_of_its_own(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct batch x = batch_docs(&c, 30, docs3, 3, 0), y = batch_docs(&c, 7, docs3 + 1, 1, 1);
	const int32_t in_row[] = { 11, 12, 13, 14, 15, 16, 17 }, alone[] = { 0, 1, 2, 3, 4, 5, 6 };
	float a[7 * 37], b[7 * 37];
	int64_t total;
	float *w = weights_new(&c, &total);

	(void)state;
	for (int h = 0; h < LWM_MODALITIES; h++) {
		logits_of("cpu", &c, w, &x, h, in_row, 7, a);
		logits_of("cpu", &c, w, &y, h, alone, 7, b);
		assert_below(worst(a, b, 7 * (h ? 10 : 37)), 1e-5);
	}
	free(w);
	batch_free(&x);
	batch_free(&y);
}

static void statistics_count_what_they_say(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct batch x = batch_docs(&c, 30, docs3, 3, 0);
	int64_t total, n[2] = { 0, 0 };
	float *w = weights_new(&c, &total);
	struct result r;
	double sum = 0, weight = 0;

	(void)state;
	for (int i = 0; i < 30; i++)
		if (x.targets[i] >= 0 && x.weights[i] > 0) {
			n[x.targets[i] >= 37]++;
			x.weights[i] = 0.5f;
			weight += 0.5;
		}
	r = step_once("ref", &c, (struct lwm_llama_run){ 0 }, &x.b, w, false);
	assert_null(r.grad);
	for (int v = 0; v < 2; v++) {
		assert_int_equal(r.stats.tokens[v], n[v]);
		assert_below(fabs(r.stats.loss[v] - 0.5 * r.stats.nll[v]), 1e-6);
		assert_true(r.stats.hits[v] >= 0 && r.stats.hits[v] <= (double)n[v]);
		sum += r.stats.nll[v];
	}
	assert_true(sum > 0 && weight > 0);
	free(w);
	batch_free(&x);
}

static void bad_input_is_refused(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct batch x = batch_docs(&c, 30, docs3, 3, 0);
	struct lk_dev *dev = device("ref", 1);
	int64_t total;
	float *w = weights_new(&c, &total);
	struct result r = { 0 };
	struct lwm_err e = { 0 };

	(void)state;
	x.tokens[3] = 47;
	assert_int_equal(step_on(dev, &c, (struct lwm_llama_run){ 0 }, &x.b, w, false, &r, &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "47"));
	x.tokens[3] = 0;
	x.targets[4] = 1000;
	lwm_err_clear(&e);
	assert_int_equal(step_on(dev, &c, (struct lwm_llama_run){ 0 }, &x.b, w, false, &r, &e), -LWM_EDATA);
	x.targets[4] = -1;
	lwm_err_clear(&e);
	assert_int_equal(step_on(dev, &c, (struct lwm_llama_run){ .tokens = 20 }, &x.b, w, false, &r, &e),
			 -LWM_ECONFIG);
	lk_dev_close(dev);
	free(w);
	batch_free(&x);
}

/* The working set of a million tokens grows with the tokens, not with tokens times vocabulary or ffn. */
static void memory_grows_with_tokens(void **state)
{
	struct lwm_llama_run a = { .tokens = 1 << 17, .train = true, .recompute = true }, b = a;
	struct lwm_llama_cfg c;
	struct lwm_llama_bytes x, y;

	(void)state;
	assert_int_equal(lwm_llama_preset(&c, "micro", NULL), 0);
	b.tokens *= 8;
	x = lwm_llama_memory(&c, &a, LK_F32, 1, 1);
	y = lwm_llama_memory(&c, &b, LK_F32, 1, 1);
	assert_true(x.total < (int64_t)4 << 30);
	assert_true(y.total < 8 * x.total);
	assert_int_equal(x.total, x.saved + x.work + x.loss + x.ring);
	assert_int_equal(x.ring, 0);
	assert_true(lwm_llama_memory(&c, &a, LK_F32, 4, 1).ring > 0);
	assert_true(lwm_llama_memory(&c, &a, LK_BF16, 1, 1).saved < x.saved);
}

/* A million tokens in one row of the model that is 4 layers of 8 heads of 64: what is said of each token, and that a device that
 * computes in bf16 keeps that anyway. */
static void a_million_tokens_take_little(void **state)
{
	struct lwm_llama_run run = { .tokens = 1 << 20, .train = true, .recompute = true };
	struct lwm_llama_cfg c = { .vocab_text = 512, .dim = 512, .ffn = 1376, .layers = 4, .heads = 8, .kv_heads = 8 };
	struct lk_dev *dev = device("cpu", 2);
	int64_t plain = lwm_llama_memory(&c, &run, LK_F32, 1, 1).total, lean, own;

	(void)state;
	assert_true(plain > (int64_t)31 << 30 && plain < (int64_t)33 << 30);
	run.head_groups = 8;
	run.keep_bf16 = true;
	lean = lwm_llama_memory(&c, &run, LK_F32, 1, 1).total;
	own = lwm_llama_own(dev, &c, &run, 1) + lwm_llama_arrays(&run, 1);
	assert_true(lean <= (int64_t)15 << 30);
	assert_true(lean + own <= run.tokens * 22 * 1000); // and what the device takes for itself
	run.head_groups = 1;
	plain = lwm_llama_memory(&c, &run, LK_BF16, 1, 1).total;
	run.keep_bf16 = false;
	assert_int_equal(lwm_llama_memory(&c, &run, LK_BF16, 1, 1).total, plain);
	lk_dev_close(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(presets_have_the_published_counts),
		cmocka_unit_test(every_preset_is_sound),
		cmocka_unit_test(table_is_found_by_name_and_place),
		cmocka_unit_test(norms_alone_do_not_decay),
		cmocka_unit_test(initial_values_do_not_depend_on_the_cut),
		cmocka_unit_test(gradient_is_the_derivative),
		cmocka_unit_test(how_it_is_cut_does_not_matter),
		cmocka_unit_test(kept_in_bf16_the_loss_is_the_same),
		cmocka_unit_test(little_memory_is_refused_where_it_cannot_be),
		cmocka_unit_test(activations_in_host_memory_give_the_same_bits),
		cmocka_unit_test(the_longest_row_just_fits),
		cmocka_unit_test(cpu_agrees_with_ref),
		cmocka_unit_test(packing_changes_nothing),
		cmocka_unit_test(a_packed_document_has_the_logits_of_its_own),
		cmocka_unit_test(statistics_count_what_they_say),
		cmocka_unit_test(bad_input_is_refused),
		cmocka_unit_test(memory_grows_with_tokens),
		cmocka_unit_test(a_million_tokens_take_little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
