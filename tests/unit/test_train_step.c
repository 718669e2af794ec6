/* What one step of a stage does to every weight, against AdamW worked out here in double precision; and that meshes agree. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/data/loader/loader.h"
#include "common/model/llama.h"
#include "tests/unit/train_folder.h"
#include "tests/unit/train_probe.h"

enum { STEPS = 3, MICRO = 2, PER_STEP = 8, LOCAL = MICRO * FX_SEQ, MIXED_TEXT = 24 };
static char mixed[160], stream[160];

/* Rows without end, of a token more than a step reads: they count upwards, so the last target is known from the last token. */
static int write_stream(struct lwm_err *e)
{
	struct lwm_rows_meta m = { .seq = FX_SEQ + 1, .vocab_text = FX_VOCAB, .tokenizer = "", .tool = "test", .config = "",
				   .weighting = "per_token" };
	struct lwm_rows_writer *w;
	LWM_TRY(lwm_rows_create(&w, stream, &m, true, e));
	for (int32_t r = 0; r < FX_ROWS; r++) {
		struct lwm_segment seg = { .len = FX_SEQ + 1, .doc = -1 };
		int32_t tok[FX_SEQ + 1];
		for (int32_t t = 0; t <= FX_SEQ; t++)
			tok[t] = (7 * r + t) % FX_VOCAB;
		int rc = lwm_rows_append(w, tok, &seg, 1, NULL, 0, e);
		if (rc < 0) {
			lwm_rows_discard(w);
			return rc;
		}
	}
	return lwm_rows_commit(w, e);
}

static int set_up(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	if (folder_of("test_train_step", FX_VOCAB))
		return -1;
	snprintf(mixed, sizeof mixed, "%s/mixed.h5", root);
	snprintf(stream, sizeof stream, "%s/stream.h5", root);
	return fx_rows_of(mixed, MIXED_TEXT, &e) < 0 || write_stream(&e) < 0 ? -1 : 0;
}

/* A stage of which no number is a default, so that one that is not handed on shows. */
static void stage(struct lwm_stage *s, const char *name, const char *data, char *out, size_t size)
{
	struct lwm_err e = { 0 };
	snprintf(out, size, "%s/%s", root, name);
	must(fx_stage(s, data, out, &e), &e);
	s->steps = STEPS;
	s->schedule.lr = 0.01;
	s->schedule.warmup_steps = 5;
	s->adamw.beta1 = 0.8;
	s->adamw.beta2 = 0.9;
	s->adamw.eps = 1e-3;
	s->adamw.weight_decay = 0.3;
	lwm_next_token_of(s)->theta = 500;
	lwm_next_token_of(s)->micro_rows = MICRO;
	lwm_next_token_of(s)->tokens_per_batch = PER_STEP * FX_SEQ;
	s->checkpoint_every = 1;
	s->keep = 100;
}

static void run(struct lwm_stage *s, int ranks)
{
	struct lwm_err e = { 0 };
	must(lwm_comm_threads(ranks, run_on, s, &e), &e);
}

/* ---- by hand ---- */

struct how { /* a run */
	const char *name, *mesh;
	int ranks, weighting;
	bool mixed, stream, released; /* which rows; released: its warm-up and weight decay */
	double clip, text, vision, tol;
};

struct hand { /* of one step: gradient of the summed loss, its divisor, the sum */
	float *grad;
	double norm, loss;
};

static void model_of(struct lwm_llama_cfg *c, const struct lwm_stage *s, bool vision)
{
	*c = (struct lwm_llama_cfg){ .vocab_text = vision ? MIXED_TEXT : FX_VOCAB, .dim = 32, .ffn = 48, .layers = 2,
				     .heads = 4, .kv_heads = 2, .max_seq = FX_SEQ, .rope_theta = lwm_next_token_of(s)->theta,
				     .rms_eps = 1e-6, .init_std = 0.02, .tie_embeddings = true };
	if (vision)
		lwm_llama_add_vision(c, FX_VOCAB - MIXED_TEXT - 2);
}

/* Targets from tokens and segments alone: every token but the first of its segment is predicted. The end of the segment. */
static int64_t hand_targets(const struct lwm_batch *b, const struct how *x, int64_t i, int32_t *target)
{
	int64_t end = i + 1;
	while (end % b->seq && b->segments[end] == b->segments[i])
		end++;
	for (int64_t t = i; t < end; t++)
		target[t] = b->segments[i] >= 0 && t + 1 < end ? b->tokens[t + 1] : -1;
	if (x->stream)
		target[end - 1] = (b->tokens[end - 1] + 1) % FX_VOCAB;
	return end;
}

/* Each of the targets [i, end) of one modality (-1: of any) weighs w; mean: all of them together. How many there are. */
static int64_t hand_weigh(const int32_t *target, int64_t i, int64_t end, int vision, double w, bool mean, float *weight)
{
	int64_t n = 0;
	for (int64_t t = i; t < end; t++)
		n += target[t] >= 0 && (vision < 0 || vision == (target[t] >= MIXED_TEXT));
	for (int64_t t = i; t < end; t++)
		if (target[t] >= 0 && (vision < 0 || vision == (target[t] >= MIXED_TEXT)))
			weight[t] = (float)(mean ? w / (double)n : w);
	return n;
}

/* Targets, weights and the divisor. */
static double label(const struct lwm_batch *b, const struct how *x, int32_t *target, float *weight)
{
	bool apart = x->text + x->vision > 0;
	double norm = 0;
	memset(weight, 0, (size_t)(b->rows * b->seq) * sizeof *weight);
	for (int64_t i = 0, end; i < b->rows * b->seq; i = end) {
		end = hand_targets(b, x, i, target);
		if (x->weighting == LWM_PER_TOKEN) {
			int64_t text = hand_weigh(target, i, end, 0, apart ? x->text : 1, false, weight);
			int64_t vision = hand_weigh(target, i, end, 1, apart ? x->vision : 1, false, weight);
			norm += apart ? x->text * (double)text + x->vision * (double)vision : (double)(text + vision);
		} else if (x->weighting == LWM_PER_EXAMPLE) {
			int64_t n = hand_weigh(target, i, end, -1, 1, true, weight);
			if (apart) {
				hand_weigh(target, i, end, 0, x->text, true, weight);
				hand_weigh(target, i, end, 1, x->vision, true, weight);
			}
			norm += n > 0;
		}
	}
	for (int64_t r = 0; x->weighting == LWM_PUBLISHED && r < b->rows; r++, norm++)
		for (int v = 0; v < 2; v++)
			hand_weigh(target, r * b->seq, (r + 1) * b->seq, x->stream ? -1 : v,
				   apart ? (v ? x->vision : x->text) : x->stream ? 1 : 0.5, true, weight);
	return norm;
}

static void hand_batch(struct lwm_llama *m, const struct lwm_batch *b, const struct how *x, const float *w, struct hand *h)
{
	int32_t target[LOCAL];
	float weight[LOCAL];
	struct lwm_err e = { 0 };
	struct lwm_llama_stats st;
	h->norm += label(b, x, target, weight);
	struct lwm_llama_batch in = { .n = LOCAL, .tokens = b->tokens, .targets = target, .weights = weight, .seg = b->segments,
				      .pos = b->positions };
	struct lwm_flat_weights lw = lwm_flat_weights_of(w, LK_F32, h->grad);
	must(lwm_llama_step(m, &in, &lw.base, &st, &e), &e);
	h->loss += st.loss[LWM_TEXT] + st.loss[LWM_VISION];
}

static const char *data_of(const struct how *x)
{
	return x->mixed ? mixed : x->stream ? stream : rows;
}

/* The gradient at weights w of the rows of a step. */
static struct hand hand_gradient(const struct lwm_stage *s, const struct how *x, int64_t step, const float *w, int64_t n)
{
	struct lwm_loader_source src = { .name = "x" };
	struct lwm_llama_run how = { .tokens = LOCAL, .train = true, .recompute = true };
	struct hand h = { .grad = calloc((size_t)n, sizeof *h.grad) };
	struct lwm_err e = { 0 };
	struct lwm_llama_cfg c;
	struct lwm_loader *l;
	struct lwm_llama *m;
	struct lk_dev *dev;
	char why[256];
	model_of(&c, s, x->mixed);
	assert_int_equal(lwm_llama_count(&c), n);
	assert_int_equal(lk_dev_open(&dev, "cpu", 1, why, sizeof why), 0);
	must(lwm_paths_add(&src.shards, data_of(x), &e), &e);
	struct lwm_loader_cfg lc = { .source = &src, .nsources = 1, .seed = (uint64_t)s->seed, .rows_per_step = PER_STEP,
				     .ranks = 1, .micro_rows = MICRO, .seq_length = FX_SEQ };
	must(lwm_loader_open(&l, &lc, &e), &e);
	must(lwm_llama_new(&m, dev, &c, &how, &e), &e);
	for (int64_t i = 0; i < PER_STEP / MICRO; i++) {
		struct lwm_batch *b;
		must(lwm_loader_get(l, step, i, &b, &e), &e);
		hand_batch(m, b, x, w, &h);
	}
	lwm_llama_free(m);
	lwm_loader_close(l);
	lwm_paths_release(&src.shards);
	lk_dev_close(dev);
	return h;
}

static void first_weights(struct probe *p, const struct lwm_stage *s, bool vision)
{
	struct lwm_llama_cfg c;
	struct lwm_tensors table;
	memset(p, 0, sizeof *p);
	model_of(&c, s, vision);
	assert_int_equal(lwm_llama_tensors(&table, &c, NULL), 0);
	p->n = table.total;
	for (int g = 0; g < LWM_CKPT_TRAINED; g++)
		p->v[g] = calloc((size_t)p->n, sizeof **p->v);
	lwm_tensors_init(&table, (uint64_t)s->seed, 0, p->n, p->v[LWM_CKPT_PARAMS]);
	lwm_tensors_release(&table);
}

static bool decays(const struct lwm_tensors *table, int64_t i)
{
	return !strstr(lwm_tensors_at(table, i)->name, "norm.weight");
}

struct adam {
	double p, m, v;
};

static struct adam hand_adamw(const struct lwm_stage *s, int64_t step, double p, double m, double v, double g, bool decay)
{
	const struct lwm_adamw *how = &s->adamw;
	double n = (double)(step + 1), warm = s->schedule.warmup_from == LWM_FROM_ZERO ? n - 1 : n;
	double lr = s->schedule.lr * warm / (double)s->schedule.warmup_steps;
	struct adam a = { 0, how->beta1 * m + (1 - how->beta1) * g, how->beta2 * v + (1 - how->beta2) * g * g };
	double mh = a.m / (1 - pow(how->beta1, n)), vh = a.v / (1 - pow(how->beta2, n));
	a.p = p - lr * (mh / (sqrt(vh) + how->eps) + (decay ? how->weight_decay * p : 0));
	return a;
}

static void near(const char *what, int64_t step, int64_t i, double got, double want, double slack)
{
	if (!(fabs(got - want) <= slack))
		fail_msg("step %d, %s of weight %d: %.9g, by hand %.9g", (int)step, what, (int)i, got, want);
}

/* Every weight and moment of a step from those before it; metrics too. tol: what fp32 may do to a gradient on this mesh. */
static void check_step(const struct lwm_stage *s, const struct how *x, int64_t step, const struct probe *before,
		       const struct probe *after, json_t *lines)
{
	struct hand h = hand_gradient(s, x, step, before->v[LWM_CKPT_PARAMS], before->n);
	struct lwm_llama_cfg c;
	struct lwm_tensors table;
	double sum = 0, scale = 1 / h.norm, gnorm, worst = 0, tol = x->tol;
	model_of(&c, s, x->mixed);
	assert_int_equal(lwm_llama_tensors(&table, &c, NULL), 0);
	for (int64_t i = 0; i < before->n; i++) {
		sum += scale * scale * (double)h.grad[i] * (double)h.grad[i];
		worst = fmax(worst, scale * fabs((double)h.grad[i]));
	}
	gnorm = sqrt(sum);
	near("loss", step, 0, probe_number(lines, (size_t)step, "loss"), h.loss / h.norm, tol * h.loss / h.norm);
	near("gradient norm", step, 0, probe_number(lines, (size_t)step, "grad_norm"), gnorm, tol * gnorm);
	near("learning rate", step, 0, probe_number(lines, (size_t)step, "lr"), s->schedule.lr * (double)(step + !x->released) / 5, 1e-9);
	if (s->guards.clip > 0 && gnorm > s->guards.clip)
		scale *= s->guards.clip / gnorm;
	worst *= s->guards.clip > 0 && gnorm > s->guards.clip ? s->guards.clip / gnorm : 1;
	for (int64_t i = 0; i < before->n; i++) {
		double p = (double)before->v[0][i], m = (double)before->v[1][i], v = (double)before->v[2][i];
		double g = scale * (double)h.grad[i], dg = tol * worst;
		struct adam want = hand_adamw(s, step, p, m, v, g, s->adamw.decay_all || decays(&table, i));
		near("params", step, i, (double)after->v[0][i], want.p, 1e-6 * (fabs(want.p) + s->schedule.lr) + s->schedule.lr * dg / s->adamw.eps);
		near("adam_m", step, i, (double)after->v[1][i], want.m, 1e-6 * (fabs(want.m) + fabs(m)) + dg);
		near("adam_v", step, i, (double)after->v[2][i], want.v, 1e-6 * (want.v + v) + 2 * fabs(g) * dg + dg * dg);
	}
	free(h.grad);
	lwm_tensors_release(&table);
}

static double check_run(struct how x)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	struct probe before, after;
	char out[256];
	stage(&s, x.name, data_of(&x), out, sizeof out);
	s.mesh_dim = x.mesh;
	s.guards.clip = x.clip;
	lwm_next_token_of(&s)->weighting = x.weighting;
	s.schedule.warmup_from = x.released ? LWM_FROM_ZERO : LWM_FROM_ONE;
	s.adamw.decay_all = x.released;
	lwm_next_token_of(&s)->text_weight = x.text;
	lwm_next_token_of(&s)->vision_weight = x.vision;
	run(&s, x.ranks);
	json_t *lines = probe_events(out, "step");
	assert_int_equal(json_array_size(lines), STEPS);
	first_weights(&before, &s, x.mixed);
	for (int64_t step = 0; step < STEPS; step++) {
		must(probe_step(&after, out, step + 1, &e), &e);
		assert_int_equal(after.n, before.n);
		check_step(&s, &x, step, &before, &after, lines);
		probe_free(&before);
		before = after;
	}
	probe_free(&before);
	double gnorm = probe_number(lines, 0, "grad_norm");
	json_decref(lines);
	lwm_stage_release(&s);
	return gnorm;
}

static void test_clipped(void **state)
{
	(void)state;
	double norm = check_run((struct how){ .name = "clipped", .mesh = "1,1,1,1", .ranks = 1, .clip = 0.05, .tol = 1e-9 });
	assert_true(norm > 0.1); /* or nothing was clipped */
}

static void test_not_clipped(void **state)
{
	(void)state;
	double norm = check_run((struct how){ .name = "below", .mesh = "1,1,1,1", .ranks = 1, .clip = 1e3, .tol = 1e-9 });
	assert_true(norm < 1e3);
	check_run((struct how){ .name = "off", .mesh = "1,1,1,1", .ranks = 1, .tol = 1e-9 });
}

/* As released: the first update has a rate of 0, and norms decay like everything else. */
static void test_released(void **state)
{
	(void)state;
	check_run((struct how){ .name = "released", .mesh = "1,1,1,1", .ranks = 1, .clip = 0.05, .released = true, .tol = 1e-9 });
}

/* Every weighting of rows with text and vision; any two of them differ. */
static void test_weightings(void **state)
{
	static const struct how kind[] = { { .name = "example" },
					   { .name = "token", .weighting = LWM_PER_TOKEN },
					   { .name = "published", .weighting = LWM_PUBLISHED },
					   { .name = "published-1-3", .weighting = LWM_PUBLISHED, .text = 1, .vision = 3 },
					   { .name = "example-1-3", .text = 1, .vision = 3 },
					   { .name = "token-1-3", .weighting = LWM_PER_TOKEN, .text = 1, .vision = 3 } };
	enum { KINDS = sizeof kind / sizeof *kind };
	double norm[KINDS];
	(void)state;
	for (int i = 0; i < KINDS; i++) {
		struct how x = kind[i];
		x.mesh = "1,1,1,1";
		x.ranks = 1;
		x.mixed = true;
		x.clip = 0.05;
		x.tol = 1e-9;
		norm[i] = check_run(x);
		for (int k = 0; k < i; k++)
			assert_true(fabs(norm[i] - norm[k]) > 1e-3 * norm[k]);
	}
}

static void test_on_meshes(void **state)
{
	static const struct {
		const char *mesh;
		int ranks;
	} m[] = { { "2,1,1,1", 2 }, { "1,2,1,1", 2 }, { "1,1,1,2", 2 }, { "2,1,1,2", 4 }, { "1,2,1,2", 4 }, { "4,1,1,1", 4 } };
	char name[32];
	(void)state;
	for (int i = 0; i < 6; i++) {
		struct how x = { .name = name, .mesh = m[i].mesh, .ranks = m[i].ranks, .clip = 0.05, .tol = 1e-5 };
		snprintf(name, sizeof name, "hand%d", i);
		check_run(x);
		snprintf(name, sizeof name, "rows%d", i);
		x.mixed = true;
		x.weighting = LWM_PUBLISHED;
		check_run(x);
		snprintf(name, sizeof name, "stream%d", i);
		x.mixed = false;
		x.stream = true;
		check_run(x);
	}
}

/* ---- meshes ---- */

static void part_is_the_same(const char *a, const char *b, int step, int part)
{
	char path[2][512], *text[2];
	struct lwm_err e = { 0 };
	size_t n[2];
	for (int i = 0; i < 2; i++) {
		snprintf(path[i], sizeof path[i], "%s/step_%08d/part_%05d.h5", i ? b : a, step, part);
		must(lwm_read_file(path[i], 1 << 24, &text[i], &n[i], &e), &e);
	}
	if (n[0] != n[1] || memcmp(text[0], text[1], n[0]))
		fail_msg("%s and %s differ", path[0], path[1]);
	free(text[0]);
	free(text[1]);
}

/* The same mesh twice: the same bits in every norm, loss and file. Sums in another order would show at times only, so their
 * order is pinned in comm_cases.h; here it is seen that nothing else of a run depends on time. */
static void test_same_mesh_same_bits(void **state)
{
	static const struct {
		const char *mesh;
		int ranks;
	} m[] = { { "1,1,1,1", 1 }, { "3,1,1,1", 3 }, { "1,2,1,2", 4 } };
	(void)state;
	for (int i = 0; i < 3; i++) {
		char out[2][256], name[32];
		json_t *line[2];
		for (int k = 0; k < 2; k++) {
			struct lwm_stage s;
			snprintf(name, sizeof name, "twice%d-%d", i, k);
			stage(&s, name, rows, out[k], sizeof out[k]);
			s.mesh_dim = m[i].mesh;
			lwm_next_token_of(&s)->tokens_per_batch = 12 * FX_SEQ;
			run(&s, m[i].ranks);
			lwm_stage_release(&s);
			line[k] = probe_events(out[k], "step");
			assert_int_equal(json_array_size(line[k]), STEPS);
		}
		for (size_t k = 0; k < STEPS; k++) {
			assert_true(probe_number(line[0], k, "loss") == probe_number(line[1], k, "loss"));
			assert_true(probe_number(line[0], k, "grad_norm") == probe_number(line[1], k, "grad_norm"));
		}
		for (int p = 0; p < m[i].ranks; p++)
			part_is_the_same(out[0], out[1], STEPS, p);
		json_decref(line[0]);
		json_decref(line[1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_clipped),   cmocka_unit_test(test_not_clipped),
					    cmocka_unit_test(test_weightings), cmocka_unit_test(test_released),
					    cmocka_unit_test(test_on_meshes),
					    cmocka_unit_test(test_same_mesh_same_bits) };
	return cmocka_run_group_tests(tests, set_up, folder_gone);
}
