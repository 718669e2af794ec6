/* Numbers of a run that are written down: what a checkpoint holds, the learning rate, the rows a step sees, the weights of
 * losses. Unlike the tests that compare two runs of the same code, these see it when both have changed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "common/comm/mesh.h"
#include "common/base/log.h"
#include "common/data/loader/loader.h"
#include "common/io/ckpt_int.h"
#include "common/train/settings_record.h"
#include "tests/unit/train_folder.h"
#include "tests/unit/train_probe.h"

static int set_up(void **state)
{
	(void)state;
	return folder_of("test_train_values", FX_VOCAB);
}

/* ---- a checkpoint ---- */

static void train(char *out, size_t size)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	snprintf(out, size, "%s/run", root);
	must(fx_stage(&s, rows, out, &e), &e);
	s.mesh_dim = "1,2,1,1";
	s.shard_weights = LWM_SHARD_FALSE;
	lwm_next_token_of(&s)->layers = 1;
	s.steps = 2;
	s.adamw.eps = 1e-3; /* a smaller one makes signs of gradients, and rounding of theirs, into updates */
	must(lwm_comm_threads(2, run_on, &s, &e), &e);
	lwm_stage_release(&s);
}

static const struct {
	const char *name;
	int64_t size;
} tensors[] = {
	{ "model.embed_tokens.weight", 40 * 32 },
	{ "model.layers.0.input_layernorm.weight", 32 },
	{ "model.layers.0.self_attn.q_proj.weight", 32 * 32 },
	{ "model.layers.0.self_attn.k_proj.weight", 16 * 32 },
	{ "model.layers.0.self_attn.v_proj.weight", 16 * 32 },
	{ "model.layers.0.self_attn.o_proj.weight", 32 * 32 },
	{ "model.layers.0.post_attention_layernorm.weight", 32 },
	{ "model.layers.0.mlp.gate_proj.weight", 48 * 32 },
	{ "model.layers.0.mlp.up_proj.weight", 48 * 32 },
	{ "model.layers.0.mlp.down_proj.weight", 32 * 48 },
	{ "model.norm.weight", 32 },
};
enum { TENSORS = sizeof tensors / sizeof *tensors, TOTAL = 9056, HALF = 4528 }; /* 9056 is two slices of a multiple of 16 */

static void check_part(const char *out, int part)
{
	char path[512], names[1024];
	struct lwm_vfr *r;
	struct lwm_err e = { 0 };
	struct lwm_vec want[LWM_PART_VECS];
	int64_t slice[TENSORS][LWM_SLICE_COLS], n = 0, at = 0;
	const int64_t lo = part * HALF, hi = lo + HALF;
	memcpy(want, lwm_part_layout, sizeof want);
	snprintf(path, sizeof path, "%s/step_00000002/part_%05d.h5", out, part);
	must(lwm_vfr_open(&r, path, "lwm-checkpoint-part-1", want, LWM_PART_VECS, &e), &e);
	static const char *const vectors[] = { "params", "adam_m", "adam_v", "slices", "names", "state" };
	for (int i = 0; i <= LWM_PART_STATE; i++)
		assert_string_equal(lwm_vfr_vec(r, i)->name, vectors[i]);
	for (int g = 0; g < LWM_CKPT_TRAINED; g++)
		assert_int_equal(lwm_vfr_vec(r, g)->n, HALF);
	assert_true(lwm_vfr_vec(r, LWM_PART_NAMES)->n < (int64_t)sizeof names);
	must(lwm_vfr_read(r, LWM_PART_NAMES, 0, lwm_vfr_vec(r, LWM_PART_NAMES)->n, names, &e), &e);
	const char *p = names;
	for (int i = 0; i < TENSORS; i++, p += strlen(p) + 1)
		assert_string_equal(p, tensors[i].name);
	assert_int_equal(p - names, lwm_vfr_vec(r, LWM_PART_NAMES)->n);
	/* every tensor's share of [lo, hi), in order: tensor, offset in it, one run of so many values */
	must(lwm_vfr_read(r, LWM_PART_SLICES, 0, lwm_vfr_vec(r, LWM_PART_SLICES)->n, slice, &e), &e);
	for (int i = 0; i < TENSORS; at += tensors[i++].size) {
		int64_t from = at > lo ? at : lo, to = at + tensors[i].size < hi ? at + tensors[i].size : hi;
		if (from >= to)
			continue;
		assert_true(slice[n][0] == i && slice[n][1] == from - at && slice[n][2] == to - from && slice[n][3] == 1);
		n++;
	}
	assert_int_equal(lwm_vfr_vec(r, LWM_PART_SLICES)->n, n * LWM_SLICE_COLS);
	assert_int_equal(at, TOTAL);
	lwm_vfr_close(r);
}

/* Weight i behind two steps. The tolerance is for processors that round sums in another way. */
static void close_to(const char *what, int64_t i, double got, double want, double slack)
{
	if (!(fabs(got - want) <= slack))
		fail_msg("%s[%d] is %.9g, expected %.9g", what, (int)i, got, want);
}

static void a_checkpoint(void **state)
{
	static const struct {
		int64_t i;
		double p, m, v;
	} want[] = {
		{ 5, -0.0106271775, -0.003234579, 2.93145386e-05 },
		{ 438, 0.00959663652, -0.00301327044, 2.50783178e-05 },
		{ 871, 0.0143200206, -0.000638394849, 1.33608398e-06 },
		{ 1304, 1.00089622, -3.20619656e-05, 3.39470763e-09 },
		{ 1737, -0.000729721854, -5.83631481e-06, 1.0070203e-10 },
		{ 2603, -0.0122050699, -2.02310348e-05, 1.13729526e-09 },
		{ 3036, 0.0174768195, -0.000864546979, 2.18302785e-06 },
		{ 3469, 0.0294188187, -0.00116396905, 3.76781213e-06 },
		{ 3902, 0.0180262364, -0.000948094064, 2.55281202e-06 },
		{ 4335, -0.0257063899, 0.000353672513, 1.99560054e-06 },
		{ 4768, 0.00538985524, 6.62879611e-05, 1.27698732e-08 },
		{ 5201, 0.0211353209, 7.87037134e-05, 1.71553971e-08 },
		{ 5634, -0.0170880165, 0.000328139751, 3.08196007e-07 },
		{ 6067, 0.0263162293, 7.24154233e-05, 1.42464511e-08 },
		{ 6500, 0.00682437792, -8.28005705e-06, 3.80193155e-10 },
		{ 6933, -0.0123523306, 0.000102125014, 2.8152586e-08 },
		{ 7366, 0.0160768274, -8.88371505e-05, 3.00245659e-08 },
		{ 7799, -0.0346069448, 6.23638771e-05, 1.60826659e-08 },
		{ 8232, 0.00251472066, -0.000110846915, 3.37168906e-08 },
		{ 8665, -0.00158681918, 1.80932147e-05, 9.04839481e-10 },
	};
	struct probe x;
	struct lwm_err e = { 0 };
	char out[256];
	(void)state;
	train(out, sizeof out);
	check_part(out, 0);
	check_part(out, 1);
	must(probe_step(&x, out, 2, &e), &e);
	assert_int_equal(x.n, TOTAL);
	for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
		int64_t i = want[k].i;
		close_to("params", i, (double)x.v[0][i], want[k].p, 1e-6 * fabs(want[k].p) + 2e-8);
		close_to("adam_m", i, (double)x.v[1][i], want[k].m, 1e-5 * fabs(want[k].m) + 2e-9);
		close_to("adam_v", i, (double)x.v[2][i], want[k].v, 2e-5 * want[k].v + 1e-12);
	}
	assert_int_equal(json_integer_value(json_object_get(x.state, "step")), 2);
	assert_int_equal(json_integer_value(json_object_get(x.state, "seed")), 3);
	assert_true(json_number_value(json_object_get(x.state, "units")) == 2 * 8 * FX_SEQ);
	assert_int_equal(json_array_size(json_object_get(x.state, "recent")), 2);
	probe_free(&x);
}

/* A run that starts from that checkpoint and changes nothing has its weights, though its slices are other ones. */
static void start_from(void **state)
{
	struct lwm_stage s;
	struct probe a, b;
	struct lwm_err e = { 0 };
	char from[300], source[256], out[256];
	(void)state;
	snprintf(source, sizeof source, "%s/run", root);
	snprintf(from, sizeof from, "checkpoint:%s", source);
	for (int ranks = 1; ranks <= 2; ranks++) {
		snprintf(out, sizeof out, "%s/from%d", root, ranks);
		must(fx_stage(&s, rows, out, &e), &e);
		s.start_from = from;
		lwm_next_token_of(&s)->layers = 1;
		s.mesh_dim = ranks == 2 ? "1,2,1,1" : "1,1,1,1";
		s.steps = 1;
		s.schedule.lr = 0;
		must(lwm_comm_threads(ranks, run_on, &s, &e), &e);
		must(probe_step(&a, source, 2, &e), &e);
		must(probe_step(&b, out, 1, &e), &e);
		assert_int_equal(b.n, a.n);
		for (int64_t i = 0; i < a.n; i++)
			if (b.v[0][i] != a.v[0][i])
				fail_msg("%d ranks: weight %d is %g, was %g", ranks, (int)i, (double)b.v[0][i], (double)a.v[0][i]);
		probe_free(&a);
		probe_free(&b);
		lwm_stage_release(&s);
	}
}

/* ---- held-out rows ---- */

/* Five rows are asked for, two are read at a time: five are measured. What a model that knows only how often each token comes
 * would reach is their entropy, worked out from the same rows. */
static void held_out_rows(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	struct lwm_loader_source src = { .name = "x" };
	struct lwm_loader *l;
	double n = 0, h = 0, tokens = 0, count[FX_VOCAB] = { 0 };
	char out[256];
	(void)state;
	snprintf(out, sizeof out, "%s/heldout", root);
	must(fx_stage(&s, rows, out, &e), &e);
	lwm_next_token_of(&s)->layers = 1;
	s.steps = 2;
	s.eval_rows = 5;
	s.eval_every = 1;
	must(lwm_paths_add(&s.eval_data, rows, &e), &e);
	must(lwm_comm_threads(1, run_on, &s, &e), &e);
	must(lwm_paths_add(&src.shards, rows, &e), &e);
	struct lwm_loader_cfg c = { .source = &src, .nsources = 1, .seed = 3, .rows_per_step = 5, .ranks = 1, .micro_rows = 5 };
	struct lwm_batch *b;
	must(lwm_loader_open(&l, &c, &e), &e);
	must(lwm_loader_get(l, 0, 0, &b, &e), &e);
	for (int64_t i = 0; i < b->rows * b->seq; i++) {
		tokens += b->segments[i] >= 0;
		if (b->targets[i] >= 0) {
			count[b->targets[i]]++;
			n++;
		}
	}
	for (int i = 0; i < FX_VOCAB; i++)
		h -= count[i] > 0 ? count[i] / n * log(count[i] / n) : 0;
	json_t *list = probe_events(out, "eval");
	assert_int_equal(json_array_size(list), 2);
	for (size_t i = 0; i < 2; i++) {
		assert_true(probe_number(list, i, "tokens") == tokens);
		assert_true(probe_number(list, i, "text_tokens") == n);
		assert_true(fabs(probe_number(list, i, "text_unigram") - h) < 1e-5 * h);
	}
	json_decref(list);
	lwm_loader_close(l);
	lwm_paths_release(&src.shards);
	lwm_stage_release(&s);
}

/* ---- the learning rate ---- */

static void learning_rates(void **state)
{
	/* 10 steps of warm-up, 100 after it, from 2e-3 down to 1e-4 */
	static const struct {
		int schedule;
		int64_t n;
		double want;
	} t[] = {
		{ LWM_CONSTANT, 0, 2e-4 }, { LWM_CONSTANT, 4, 1e-3 }, { LWM_CONSTANT, 9, 2e-3 }, { LWM_CONSTANT, 10, 2e-3 },
		{ LWM_CONSTANT, 500, 2e-3 },
		{ LWM_COSINE, 0, 2e-4 }, { LWM_COSINE, 9, 2e-3 }, { LWM_COSINE, 10, 2e-3 },
		{ LWM_COSINE, 35, 1.7217514421272202e-3 }, { LWM_COSINE, 60, 1.05e-3 },
		{ LWM_COSINE, 85, 3.782485578727798e-4 }, { LWM_COSINE, 110, 1e-4 }, { LWM_COSINE, 400, 1e-4 },
		{ LWM_LINEAR, 3, 8e-4 }, { LWM_LINEAR, 10, 2e-3 }, { LWM_LINEAR, 11, 1.981e-3 }, { LWM_LINEAR, 60, 1.05e-3 },
		{ LWM_LINEAR, 109, 1.19e-4 }, { LWM_LINEAR, 110, 1e-4 }, { LWM_LINEAR, 400, 1e-4 },
	};
	struct lwm_schedule s = { .lr = 2e-3, .min_lr = 1e-4, .warmup_steps = 10 };
	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		s.shape = t[i].schedule;
		double got = lwm_schedule_rate(&s, 110, t[i].n);
		if (!(fabs(got - t[i].want) < 1e-15))
			fail_msg("%s, step %d: %.17g, expected %.17g", lwm_schedule_names[s.shape], (int)t[i].n, got, t[i].want);
	}
	/* no steps after the warm-up */
	s.shape = LWM_LINEAR;
	assert_true(fabs(lwm_schedule_rate(&s, 10, 9) - 2e-3) < 1e-15 && fabs(lwm_schedule_rate(&s, 10, 10) - 1e-4) < 1e-15);
}

/* Values that a run without options has; the README of the pipelines and older runs rely on them. */
static void defaults(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	(void)state;
	must(lwm_stage_init(&s, &e), &e);
	const struct lwm_next_token *n = lwm_next_token_of(&s);
	const struct lwm_schedule *r = &s.schedule;
	assert_true(r->lr == 3e-4 && r->min_lr == 0 && r->warmup_steps == 20 && r->shape == LWM_CONSTANT);
	assert_true(s.adamw.beta1 == 0.9 && s.adamw.beta2 == 0.95 && s.adamw.eps == 1e-8 && s.adamw.weight_decay == 0.1);
	assert_true(n->theta == 10000 && n->ring_layout == LWM_RING_BALANCED && n->weighting == LWM_PER_EXAMPLE);
	assert_true(s.guards.clip == 1 && s.guards.spike_factor == 0);
	assert_true(s.checkpoint_every == 200 && s.keep == 2 && s.keep_every == 0);
	lwm_stage_release(&s);
}

/* A record of an older version lacks the settings that were added since: they had their defaults. */
static void older_settings(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	(void)state;
	must(lwm_stage_init(&s, &e), &e);
	json_t *before = lwm_settings_record(&s, "", "");
	assert_int_equal(json_object_del(before, "vision-weight") | json_object_del(before, "text-weight"), 0);
	for (int i = 0; i < 2; i++) {
		lwm_next_token_of(&s)->vision_weight = i ? 0.5 : 0;
		json_t *now = lwm_settings_record(&s, "", "");
		assert_int_equal(lwm_settings_compare(&s, before, now, "older", &e), i ? -LWM_ECONFIG : 0);
		json_decref(now);
	}
	assert_non_null(strstr(e.msg, "vision-weight 0.5, was 0.0"));
	json_decref(before);
	lwm_stage_release(&s);
}

/* ---- rows ---- */

static void shard_of(const char *path, int64_t n)
{
	struct lwm_rows_meta m = { .seq = 4, .vocab_text = 100, .tokenizer = "", .tool = "test", .config = "",
				   .weighting = "per_example" };
	struct lwm_rows_writer *w;
	struct lwm_err e = { 0 };
	must(lwm_rows_create(&w, path, &m, true, &e), &e);
	for (int64_t r = 0; r < n; r++) {
		int32_t tok[4] = { (int32_t)r, 1, 2, 3 };
		struct lwm_segment seg = { .start = 0, .len = 4, .doc = r };
		must(lwm_rows_append(w, tok, &seg, 1, NULL, 0, &e), &e);
	}
	must(lwm_rows_commit(w, &e), &e);
}

/* The rows of a step are those that a second program says (tests/golden/order-1/make.py), also through ranks and micro
 * batches: the first token of a row is its number. */
static void order_of_rows(void **state)
{
	static const struct {
		int weighted;
		int64_t g, source, row, epoch;
	} want[] = {
#include "tests/golden/order-1/samples.inc"
	};
	struct lwm_loader_source src[2] = { { .name = "a" }, { .name = "b" } };
	struct lwm_err e = { 0 };
	char path[2][200];
	(void)state;
	for (int i = 0; i < 2; i++) {
		snprintf(path[i], sizeof path[i], "%s/%d.rows.h5", root, i);
		shard_of(path[i], i ? 20 : 48);
		must(lwm_paths_add(&src[i].shards, path[i], &e), &e);
	}
	for (int weighted = 0; weighted < 2; weighted++) {
		struct lwm_loader *l;
		src[0].weight = weighted ? 3 : 0;
		src[1].weight = weighted ? 1 : 0;
		struct lwm_loader_cfg c = { .source = src, .nsources = 2, .seed = 3, .rows_per_step = 4, .rank = 1, .ranks = 2,
					    .micro_rows = 1 };
		must(lwm_loader_open(&l, &c, &e), &e);
		for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
			if (want[i].weighted != weighted)
				continue;
			struct lwm_sample x = lwm_loader_sample(l, want[i].g);
			if (x.source != want[i].source || x.row != want[i].row || x.epoch != want[i].epoch)
				fail_msg("sample %d is row %d of source %d", (int)want[i].g, (int)x.row, (int)x.source);
			if (want[i].g % 4 < 2) /* of rank 0 */
				continue;
			struct lwm_batch *b;
			must(lwm_loader_get(l, want[i].g / 4, want[i].g % 2, &b, &e), &e);
			assert_int_equal(b->tokens[0], want[i].row);
		}
		lwm_loader_close(l);
	}
	for (int i = 0; i < 2; i++)
		lwm_paths_release(&src[i].shards);
}

/* Two rows of four documents, worked out: N = 3 with labels of 4, 1 and 2 tokens by example, M = 7 by token. */
static void weights_of_losses(void **state)
{
	static const struct lwm_segment seg[2][2] = { { { .start = 0, .len = 5, .doc = 0 }, { .start = 5, .len = 3, .doc = 1 } },
						      { { .start = 0, .len = 4, .doc = 2 }, { .start = 4, .len = 1, .doc = 3 } } };
	/* row 0: all of document 0, of document 1 its last token; row 1: the middle of document 2 (its first token is never one) */
	static const struct lwm_loss_run runs[2][3] = { { { 0, 1 }, { 5, 0 }, { 7, 1 } }, { { 0, 1 }, { 3, 0 }, { 4, 1 } } };
	static const float example[2][8] = { { 0.25f, 0.25f, 0.25f, 0.25f, 0, 0, 1, 0 }, { 0.5f, 0.5f, 0, 0, 0, 0, 0, 0 } };
	static const float token[2][8] = { { 1, 1, 1, 1, 0, 0, 1, 0 }, { 1, 1, 0, 0, 0, 0, 0, 0 } };
	static const int32_t target[2][8] = { { 1, 2, 3, 4, -1, 6, 7, -1 }, { 11, 12, 13, -1, -1, -1, -1, -1 } };
	struct lwm_rows_meta m = { .seq = 8, .vocab_text = 100, .tokenizer = "", .tool = "test", .config = "",
				   .weighting = "per_token" };
	struct lwm_loader_source src = { .name = "x" };
	struct lwm_rows_writer *w;
	struct lwm_err e = { 0 };
	char path[200];
	(void)state;
	snprintf(path, sizeof path, "%s/weights.rows.h5", root);
	must(lwm_rows_create(&w, path, &m, true, &e), &e);
	for (int r = 0; r < 2; r++) {
		int32_t tok[8];
		for (int i = 0; i < 8; i++)
			tok[i] = 10 * r + i;
		must(lwm_rows_append(w, tok, seg[r], 2, runs[r], 3, &e), &e);
	}
	must(lwm_rows_commit(w, &e), &e);
	must(lwm_paths_add(&src.shards, path, &e), &e);
	for (int by = LWM_PER_EXAMPLE; by <= LWM_PER_TOKEN; by++) {
		struct lwm_loader_cfg c = { .source = &src, .nsources = 1, .rows_per_step = 2, .ranks = 1, .micro_rows = 2,
					    .weighting = (enum lwm_weighting)by };
		struct lwm_loader *l;
		struct lwm_batch *b;
		must(lwm_loader_open(&l, &c, &e), &e);
		must(lwm_loader_get(l, 0, 0, &b, &e), &e);
		for (int r = 0; r < 2; r++) {
			int from = b->tokens[8 * r] / 10;
			assert_memory_equal(b->weights + 8 * r, by == LWM_PER_TOKEN ? token[from] : example[from], sizeof *token);
			assert_memory_equal(b->targets + 8 * r, target[from], sizeof *target);
		}
		assert_true(b->norm == (by == LWM_PER_TOKEN ? 7 : 3));
		assert_int_equal(b->segments_n, 4);
		assert_int_equal(b->tokens_n, 13);
		assert_int_equal(b->loss_text, 7);
		lwm_loader_close(l);
	}
	lwm_paths_release(&src.shards);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_checkpoint),  cmocka_unit_test(start_from),
					    cmocka_unit_test(held_out_rows), cmocka_unit_test(learning_rates),
					    cmocka_unit_test(defaults),      cmocka_unit_test(order_of_rows),
					    cmocka_unit_test(older_settings),
					    cmocka_unit_test(weights_of_losses) };
	return cmocka_run_group_tests(tests, set_up, folder_gone);
}
