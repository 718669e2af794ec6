/* test_tp.c - ranks that share the model (threads) compute what one rank computes: loss, counts, logits and every gradient, on
 * tp 2, 4, 8 and together with a ring; memory is what the plan says; failures reach all ranks. */
#include "kernels/kernels_int.h"
#include "tests/unit/tp_fixture.h"

struct tp_case {
	const char *name;
	int64_t kv_heads, chunk, loss_bytes;
	bool tie, text_only, recompute, offload;
};
static const struct tp_case cases[] = {
	{ "all kept", 8, 0, 0, false, false, false, false },
	{ "pieces, recomputed", 8, 40, 700, false, false, true, false },
	{ "shared key heads", 2, 40, 0, true, false, true, false },
	{ "one key head, pieces", 1, 1, 1, true, true, false, false },
	{ "kept in host memory", 4, 24, 0, false, true, true, true },
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

/* 48 text ids, 11 codes and 2 markers in a table of 16 rows: all of it divides by 8. */
static struct lwm_llama_cfg model_of(const struct tp_case *k)
{
	struct lwm_llama_cfg c = { .vocab_text = 48, .vision_rows = 16, .vision_codes = 11, .dim = 64, .ffn = 48, .layers = 3,
				   .heads = 8, .kv_heads = k->kv_heads, .max_seq = 96, .rope_theta = 100, .rms_eps = 1e-6,
				   .init_std = 0.12, .tie_embeddings = k->tie };

	if (k->text_only)
		c.vision_rows = c.vision_codes = 0;
	return c;
}

/* ---- one case on one mesh ---- */

static struct lwm_llama_run run_of(const struct world *x, const struct tp_case *k, int64_t tokens)
{
	return (struct lwm_llama_run){ .tokens = tokens, .train = true, .recompute = k->recompute, .offload = k->offload,
				       .mlp_chunk = k->chunk, .loss_bytes = k->loss_bytes, .ring = x->mesh.dev[LWM_SP],
				       .tp = x->mesh.dev[LWM_TP] };
}

/* A step and the gradient of this rank's part, from nothing. */
static int step_part(struct world *x, const struct lwm_llama_cfg *c, const struct lwm_llama_run *run, const struct batch *b,
		     const float *w, float *grad, int64_t n, struct lwm_llama_stats *st, struct lwm_err *e)
{
	struct lwm_llama *m;
	struct lwm_flat_weights lw = lwm_flat_weights_of(w, lk_dev_dtype(x->dev), grad);
	int rc = lwm_llama_new(&m, x->dev, c, run, e);

	if (rc)
		return rc;
	memset(grad, 0, (size_t)n * sizeof *grad);
	rc = lwm_llama_step(m, &b->b, &lw.base, st, e);
	lwm_llama_free(m);
	return rc;
}

static bool same_stats(const struct lwm_llama_stats *a, const struct lwm_llama_stats *b)
{
	for (int v = 0; v < LWM_MODALITIES; v++)
		if (!(fabs(a->loss[v] - b->loss[v]) <= 1e-5 * fabs(b->loss[v])) ||
		    !(fabs(a->nll[v] - b->nll[v]) <= 1e-5 * fabs(b->nll[v])) ||
		    a->hits[v] != b->hits[v] || a->tokens[v] != b->tokens[v])
			return false;
	return true;
}

/* Sums of the ring; every tensor-parallel rank has the same to begin with. */
static int sum_stats(struct world *x, struct lwm_llama_stats *s, struct lwm_err *e)
{
	double v[4 * LWM_MODALITIES], first[4 * LWM_MODALITIES];

	for (int i = 0; i < LWM_MODALITIES; i++) {
		double *p = v + 4 * i;

		p[0] = s->loss[i];
		p[1] = s->nll[i];
		p[2] = s->hits[i];
		p[3] = (double)s->tokens[i];
	}
	memcpy(first, v, sizeof v);
	LWM_TRY(lwm_comm_bcast(x->mesh.comm[LWM_TP], first, sizeof first, 0, e));
	if (memcmp(first, v, sizeof v))
		return lwm_fail(e, LWM_ENO, "ranks that share the model have other sums");
	LWM_TRY(lwm_comm_sum_f64(x->mesh.comm[LWM_SP], v, 4 * LWM_MODALITIES, e));
	for (int i = 0; i < LWM_MODALITIES; i++) {
		s->loss[i] = v[4 * i];
		s->nll[i] = v[4 * i + 1];
		s->hits[i] = v[4 * i + 2];
		s->tokens[i] = (int64_t)v[4 * i + 3];
	}
	return 0;
}

/* The whole gradient from all parts; parts that several ranks hold must be the same bits on each of them. */
static int join_grads(struct world *x, const struct part *p, float *local, float *whole, struct lwm_err *e)
{
	float *again = malloc((size_t)p->local.total * sizeof *again);
	int rc = 0;

	memset(whole, 0, (size_t)p->all.total * sizeof *whole);
	move_part(p, whole, local, true);
	LWM_GO(lwm_comm_sum_f32(x->mesh.comm[LWM_TP], whole, p->all.total, e));
	move_part(p, whole, again, false);
	if (memcmp(again, local, (size_t)p->local.total * sizeof *again))
		rc = lwm_fail(e, LWM_ENO, "two ranks have other gradients of what both of them hold");
	LWM_GO(lwm_agree(x->world, rc, e));
	rc = lwm_comm_sum_f32(x->mesh.comm[LWM_SP], whole, p->all.total, e);
out:
	free(again);
	return rc;
}

static int compare_grads(const struct lwm_tensors *t, const float *got, const float *want, struct lwm_err *e)
{
	for (int64_t i = 0; i < t->n; i++) {
		double diff = worst(got + t->list[i].offset, want + t->list[i].offset, t->list[i].count);

		if (!(diff < 3e-5))
			return lwm_fail(e, LWM_ENO, "gradients of %s differ by %g", t->list[i].name, diff);
	}
	return 0;
}

static int check_case(struct world *x, const char *dev, const struct tp_case *k, struct lwm_err *e)
{
	struct lwm_llama_cfg c = model_of(k);
	struct batch all = ring_batch(&c, &ring_cases[1]), mine = ring_slice(&all, LWM_RING_ZIGZAG, x->sp, x->mesh.coord[LWM_SP]);
	struct part p = part_new(&c, x->tp, x->mesh.coord[LWM_TP]);
	struct lwm_llama_run run = run_of(x, k, mine.b.n);
	struct lwm_llama_stats st, again;
	struct result a = { 0 };
	int64_t total;
	float *w = weights_new(&c, &total), *lw = malloc((size_t)p.local.total * 4), *g = malloc((size_t)p.local.total * 4);
	float *g2 = malloc((size_t)p.local.total * 4), *whole = malloc((size_t)total * 4);
	int rc = 0;

	move_part(&p, w, lw, false);
	LWM_GO(step_on(x->dev, &c, (struct lwm_llama_run){ 0 }, &all.b, w, true, &a, e));
	LWM_GO(step_part(x, &c, &run, &mine, lw, g, p.local.total, &st, e));
	LWM_GO(step_part(x, &c, &run, &mine, lw, g2, p.local.total, &again, e));
	if (memcmp(g, g2, (size_t)p.local.total * 4) || memcmp(&st, &again, sizeof st))
		rc = lwm_fail(e, LWM_ENO, "the same step twice has other bits");
	LWM_GO(lwm_agree(x->world, rc, e));
	LWM_GO(sum_stats(x, &st, e));
	if (!same_stats(&st, &a.stats))
		rc = lwm_fail(e, LWM_ENO, "loss %.9g and %g hits, alone %.9g and %g", st.loss[0], st.hits[0], a.stats.loss[0],
			      a.stats.hits[0]);
	LWM_GO(lwm_agree(x->world, rc, e));
	LWM_GO(join_grads(x, &p, g, whole, e));
	rc = lwm_agree(x->world, compare_grads(&p.all, whole, a.grad, e), e);
out:
	if (rc < 0 && !strstr(e->msg, k->name)) {
		struct lwm_err why = *e;

		lwm_err_clear(e);
		lwm_fail(e, -rc, "%s, %s, tp %d, sp %d: %s", k->name, dev, x->tp, x->sp, why.msg);
	}
	free(a.grad);
	free(w);
	free(lw);
	free(g);
	free(g2);
	free(whole);
	part_release(&p);
	batch_free(&all);
	batch_free(&mine);
	return rc;
}

struct job {
	const char *dev;
	int tp;
};

static int run_cases(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	const struct job *j = arg;
	struct world x;
	int rc = world_new(&x, c, j->dev, j->tp, e);

	for (int i = 0; rc == 0 && i < N_CASES; i++)
		rc = check_case(&x, j->dev, &cases[i], e);
	world_free(&x);
	return rc;
}

static void check_mesh(int tp, int sp)
{
	static const char *const dev[] = { "ref", "cpu" };

	for (int i = 0; i < 2; i++) {
		struct job j = { dev[i], tp };
		struct lwm_err e = { 0 };

		if (lwm_comm_threads(tp * sp, run_cases, &j, &e))
			fail_msg("%s", e.msg);
	}
}

static void two_ranks_share_the_model(void **state)
{
	(void)state;
	check_mesh(2, 1);
}

static void four_ranks_share_the_model(void **state)
{
	(void)state;
	check_mesh(4, 1);
}

static void eight_ranks_share_the_model(void **state)
{
	(void)state;
	check_mesh(8, 1);
}

static void with_a_ring(void **state)
{
	(void)state;
	check_mesh(2, 2);
	check_mesh(4, 2);
}

/* ---- logits ---- */

static int run_logits(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	static const int32_t rows[] = { 191, 0, 7, 96, 95, 41, 0 };
	enum { N = sizeof rows / sizeof rows[0] };
	const struct job *j = arg;
	struct tp_case k = cases[1];
	struct lwm_llama_cfg cfg = model_of(&k);
	struct batch all = ring_batch(&cfg, &ring_cases[1]);
	struct world x;
	int64_t total;
	float *w = weights_new(&cfg, &total), *lw = malloc((size_t)total * 4), a[N * 48], b[N * 48];
	int rc = world_new(&x, c, j->dev, j->tp, e);

	for (int head = LWM_TEXT; rc == 0 && head < LWM_MODALITIES; head++) {
		struct lwm_llama_run alone = { .tokens = all.b.n }, run = run_of(&x, &k, all.b.n);
		struct part p = part_new(&cfg, x.tp, x.mesh.coord[LWM_TP]);
		struct lwm_flat_weights whole = lwm_flat_weights_of(w, LK_F32, NULL), part = lwm_flat_weights_of(lw, LK_F32, NULL);
		int64_t n = N * (head == LWM_TEXT ? cfg.vocab_text : cfg.vision_rows);
		struct lwm_llama *m1 = NULL, *m2 = NULL;

		run.train = run.recompute = false;
		move_part(&p, w, lw, false);
		LWM_TRY(lwm_llama_new(&m1, x.dev, &cfg, &alone, e));
		LWM_TRY(lwm_llama_new(&m2, x.dev, &cfg, &run, e));
		LWM_TRY(lwm_llama_logits(m1, &all.b, &whole.base, (enum lwm_modality)head, rows, N, a, e));
		LWM_TRY(lwm_llama_logits(m2, &all.b, &part.base, (enum lwm_modality)head, rows, N, b, e));
		if (!(worst(b, a, n) < 1e-5))
			rc = lwm_fail(e, LWM_ENO, "logits differ by %g", worst(b, a, n));
		rc = lwm_agree(c, rc, e);
		lwm_llama_free(m1);
		lwm_llama_free(m2);
		part_release(&p);
	}
	free(w);
	free(lw);
	batch_free(&all);
	world_free(&x);
	return rc;
}

static void logits_are_whole_on_every_rank(void **state)
{
	struct job j = { "cpu", 4 };
	struct lwm_err e = { 0 };

	(void)state;
	if (lwm_comm_threads(4, run_logits, &j, &e))
		fail_msg("%s", e.msg);
}

/* ---- bytes: what common/train/README.md says of them ---- */

static int64_t bytes_of(const struct lwm_llama_cfg *c, const struct tp_case *k, int64_t n, int64_t t, int64_t counted)
{
	int64_t d = c->dim, l = c->layers, r = k->recompute, shared = 2 * d * l + d;

	if (c->kv_heads < n)
		shared += 2 * c->kv_heads * lwm_llama_head_dim(c) * d * l;
	return (n - 1) * t / n * d * 4 * (l * (6 + r) + 2) + (n - 1) * t / n * d * 4 * (l * (4 + r) + 2) + (n - 1) * 16 * counted +
	       (n - 1) * 8 * shared / n + (n - 1) * 16;
}

static int run_bytes(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	const struct job *j = arg;
	struct world x;
	int rc;

	LWM_TRY(world_new(&x, c, j->dev, j->tp, e));
	for (int i = 0; i < 3; i++) {
		struct lwm_llama_cfg cfg = model_of(&cases[i]);
		struct batch b = ring_batch(&cfg, &ring_cases[1]);
		struct lwm_llama_run run = run_of(&x, &cases[i], b.b.n);
		struct lwm_llama_stats st;
		int64_t total, want;
		float *w = weights_new(&cfg, &total), *g = malloc((size_t)total * 4);
		uint64_t before = lwm_comm_sent(x.mesh.comm[LWM_TP]), sent;

		rc = step_part(&x, &cfg, &run, &b, w, g, total, &st, e);
		sent = lwm_comm_sent(x.mesh.comm[LWM_TP]) - before;
		want = bytes_of(&cfg, &cases[i], x.tp, b.b.n, st.tokens[LWM_TEXT] + st.tokens[LWM_VISION]);
		free(w);
		free(g);
		batch_free(&b);
		LWM_TRY(rc);
		if ((int64_t)sent != want)
			return lwm_fail(e, LWM_ENO, "%s, tp %d: %lld bytes, expected %lld", cases[i].name, x.tp, (long long)sent,
					(long long)want);
	}
	world_free(&x);
	return 0;
}

static void bytes_are_what_the_formula_says(void **state)
{
	(void)state;
	for (int tp = 2; tp <= 8; tp *= 2) {
		struct job j = { "cpu", tp };
		struct lwm_err e = { 0 };

		if (lwm_comm_threads(tp, run_bytes, &j, &e))
			fail_msg("%s", e.msg);
	}
}

/* ---- memory ---- */

static _Thread_local int64_t allocated;
static int (*plain_alloc)(struct lk_dev *dev, size_t bytes, void **out);

static int count_alloc(struct lk_dev *dev, size_t bytes, void **out)
{
	allocated += (int64_t)bytes;
	return plain_alloc(dev, bytes, out);
}

static int run_memory(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	const struct job *j = arg;
	struct world x;

	LWM_TRY(world_new(&x, c, j->dev, j->tp, e));
	x.dev->ops.memory.mem_alloc = count_alloc;
	for (int i = 0; i < N_CASES; i++) {
		struct lwm_llama_cfg cfg = model_of(&cases[i]);
		struct lwm_llama_run run = run_of(&x, &cases[i], 190);
		struct lwm_llama *m;

		allocated = 0;
		LWM_TRY(lwm_llama_new(&m, x.dev, &cfg, &run, e));
		lwm_llama_free(m);
		if (allocated != lwm_llama_memory(&cfg, &run, LK_F32, x.sp, x.tp).total)
			return lwm_fail(e, LWM_ENO, "%s: %lld bytes", cases[i].name, (long long)allocated);
	}
	world_free(&x);
	return 0;
}

static void memory_is_what_the_plan_says(void **state)
{
	struct job j = { "cpu", 2 };
	struct lk_dev *dev = device("cpu", 1);
	struct lwm_err e = { 0 };

	(void)state;
	plain_alloc = dev->ops.memory.mem_alloc;
	lk_dev_close(dev);
	for (j.tp = 2; j.tp <= 4; j.tp *= 2)
		if (lwm_comm_threads(4, run_memory, &j, &e))
			fail_msg("tp %d: %s", j.tp, e.msg);
}

/* Of the published 7B: what is kept of a row is divided by tp, and the working set nearly. */
static void memory_shrinks_with_tp(void **state)
{
	struct lwm_llama_run run = { .tokens = 1 << 17, .train = true, .recompute = true };
	struct lwm_llama_cfg c;
	struct lwm_llama_bytes one;
	int64_t stream;

	(void)state;
	assert_int_equal(lwm_llama_preset(&c, "7b", NULL), 0);
	lwm_llama_add_vision(&c, 8192);
	stream = run.tokens * c.dim * 2; // alone the gradient of the attention's output shares the last stream's place
	one = lwm_llama_memory(&c, &run, LK_BF16, 1, 1);
	for (int tp = 2; tp <= 32; tp *= 2) {
		struct lwm_llama_bytes y = lwm_llama_memory(&c, &run, LK_BF16, 1, tp);

		assert_int_equal(lwm_llama_check_tp(&c, tp, NULL), 0);
		assert_int_equal(y.saved * tp, one.saved);
		assert_int_equal(y.total, y.saved + y.work + y.loss + y.ring);
		assert_true(y.work < (one.work + stream) / tp + ((int64_t)200 << 20)); /* and pieces of 4096 tokens */
		assert_true(lwm_llama_memory(&c, &run, LK_BF16, 4, tp).ring <= lwm_llama_memory(&c, &run, LK_BF16, 4, 1).ring / tp +
										  (1 << 20));
	}
}

/* ---- what is refused, and failures ---- */

static void what_cannot_be_divided_is_refused(void **state)
{
	struct lwm_llama_cfg good = model_of(&cases[0]), c;
	struct lwm_err e = { 0 };

	(void)state;
	assert_int_equal(lwm_llama_check_tp(&good, 8, &e), 0);
	assert_int_equal(lwm_llama_check_tp(&good, 3, &e), -LWM_ECONFIG);
	assert_non_null(strstr(e.msg, "heads"));
	c = good;
	c.kv_heads = 2;
	assert_int_equal(lwm_llama_check_tp(&c, 8, NULL), 0);
	c.heads = 12;
	c.kv_heads = 6;
	assert_int_equal(lwm_llama_check_tp(&c, 4, NULL), -LWM_ECONFIG);
	c = good;
	c.ffn = 44;
	assert_int_equal(lwm_llama_check_tp(&c, 8, NULL), -LWM_ECONFIG);
	c = good;
	c.vocab_text = 50;
	lwm_err_clear(&e);
	assert_int_equal(lwm_llama_check_tp(&c, 4, &e), -LWM_ECONFIG);
	assert_string_equal(e.msg, "model: the text vocabulary, 50, cannot be divided over 4 tensor-parallel ranks");
	c = good;
	c.vision_rows = 18;
	assert_int_equal(lwm_llama_check_tp(&c, 4, NULL), -LWM_ECONFIG);
}

/* Weights that cannot be had: the `fatal`-th acquire of rank `who` fails. */
struct failing {
	struct lwm_supply base;
	struct lwm_flat_weights flat;
	int left;
};

static int acquire_or_fail(struct lwm_supply *w, const struct lwm_group *g, unsigned what, struct lwm_supplied *at, int failed,
			   struct lwm_err *e)
{
	struct failing *f = (struct failing *)w;
	int rc = lwm_supply_acquire(&f->flat.base, g, what, at, failed, e);

	return rc || f->left-- ? rc : lwm_fail(e, LWM_EIO, "no weights");
}

static void release_nothing(struct lwm_supply *w, const struct lwm_group *g)
{
	(void)w;
	(void)g;
}

static int never_ready(struct lwm_supply *w, const struct lwm_group *g, int failed, struct lwm_err *e)
{
	(void)w;
	(void)g;
	(void)e;
	return failed;
}

static int agree_on_nothing(struct lwm_supply *w, int rc, struct lwm_err *e)
{
	(void)w;
	(void)e;
	return rc;
}

enum trouble { BAD_ID, OTHER_TOKENS, UNEVEN, NO_WEIGHTS, TROUBLES = NO_WEIGHTS + 8 };
static const int code_of[] = { LWM_EDATA, LWM_EINTERNAL, LWM_ECONFIG, LWM_EIO };

/* Rank 1 alone, but for UNEVEN, has the trouble; all return its code, and nobody waits. */
static int run_trouble(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	static const struct lwm_supply_ops ops = { acquire_or_fail, release_nothing, never_ready, agree_on_nothing };
	int what = *(int *)arg, kind = what < NO_WEIGHTS ? what : NO_WEIGHTS, rc;
	struct tp_case k = cases[2];
	struct lwm_llama_cfg cfg = model_of(&k);
	struct batch all = ring_batch(&cfg, &ring_cases[1]);
	struct failing f = { .base = { .ops = &ops, .grads = true }, .left = 1 << 20 };
	struct world x;
	struct lwm_llama_run run;
	struct lwm_llama_stats st;
	struct lwm_llama *m = NULL;
	int64_t total;
	float *w = weights_new(&cfg, &total), *g = calloc((size_t)total, 4);

	LWM_TRY(world_new(&x, c, "cpu", 2, e));
	struct batch mine = ring_slice(&all, LWM_RING_ZIGZAG, x.sp, x.mesh.coord[LWM_SP]);
	f.flat = lwm_flat_weights_of(w, LK_F32, g);
	run = run_of(&x, &k, mine.b.n);
	LWM_TRY(lwm_llama_new(&m, x.dev, &cfg, &run, e));
	mine.b.n -= kind == UNEVEN;
	if (lwm_comm_rank(c) == 1 && kind == BAD_ID)
		mine.tokens[2] = 1000;
	if (lwm_comm_rank(c) == 1 && kind == OTHER_TOKENS)
		mine.tokens[2] ^= 1;
	if (lwm_comm_rank(c) == 1 && kind == NO_WEIGHTS)
		f.left = what - NO_WEIGHTS;
	rc = lwm_llama_step(m, &mine.b, &f.base, &st, e);
	lwm_llama_free(m);
	free(w);
	free(g);
	batch_free(&all);
	batch_free(&mine);
	world_free(&x);
	return rc == -code_of[kind] ? 0 : lwm_fail(e, LWM_ENO, "trouble %d: code %d", what, rc);
}

static void a_rank_that_fails_takes_all_along(void **state)
{
	(void)state;
	for (int what = 0; what < TROUBLES; what++) {
		struct lwm_err e = { 0 };

		if (lwm_comm_threads(4, run_trouble, &what, &e))
			fail_msg("%s", e.msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_ranks_share_the_model),      cmocka_unit_test(four_ranks_share_the_model),
		cmocka_unit_test(eight_ranks_share_the_model),    cmocka_unit_test(with_a_ring),
		cmocka_unit_test(logits_are_whole_on_every_rank), cmocka_unit_test(bytes_are_what_the_formula_says),
		cmocka_unit_test(memory_is_what_the_plan_says),
		cmocka_unit_test(memory_shrinks_with_tp),         cmocka_unit_test(what_cannot_be_divided_is_refused),
		cmocka_unit_test(a_rank_that_fails_takes_all_along),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
