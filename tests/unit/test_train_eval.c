/* Evaluation while training: the loss over held-out rows is that of the rows worked out one by one, each once, whatever the ranks,
 * the rows at a time and the rows there are. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/data/loader/loader.h"
#include "common/model/llama.h"
#include "tests/unit/train_probe.h"

enum { N = 7, SHORT = 3 }; /* rows of the two shards that are held out */
static char root[128], rows[160], held[2][160];

/* n rows of two documents and padding, different ones for each seed. */
static int held_rows(const char *path, int n, uint64_t seed, struct lwm_err *e)
{
	struct lwm_rows_meta m = { .seq = FX_SEQ, .vocab_text = FX_VOCAB, .tokenizer = "", .tool = "test", .config = "",
				   .weighting = "per_example" };
	struct lwm_rows_writer *w;
	LWM_TRY(lwm_rows_create(&w, path, &m, true, e));
	for (int r = 0; r < n; r++) {
		struct lwm_rng g = lwm_rng_at(seed, LWM_RNG_TEST, 0, (uint64_t)r);
		struct lwm_segment seg[2] = { { .start = 0, .len = 20 + r, .doc = r },
					      { .start = 20 + r, .len = 17, .doc = r + 100 } };
		int32_t tok[FX_SEQ] = { 0 };
		for (int i = 0; i < 37 + r; i++)
			tok[i] = (int32_t)lwm_rng_below(&g, FX_VOCAB);
		int rc = lwm_rows_append(w, tok, seg, 2, NULL, 0, e);
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
	lwm_log_init("test_train_eval", LWM_ERROR);
	snprintf(root, sizeof root, "/tmp/lwm-test-eval-%ld", (long)getpid());
	for (int i = 0; i < 2; i++)
		snprintf(held[i], sizeof held[i], "%s/held/%d.h5", root, i);
	snprintf(rows, sizeof rows, "%s/held", root);
	if (lwm_mkdirs(rows, &e) < 0)
		return -1;
	snprintf(rows, sizeof rows, "%s/rows.h5", root);
	return fx_rows(rows, &e) < 0 || held_rows(held[0], N, 8, &e) < 0 || held_rows(held[1], SHORT, 9, &e) < 0;
}

static int tear_down(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	return lwm_remove_tree(root, &e);
}

static void stage(struct lwm_stage *s, const char *name, int64_t seq_ranks, char *out, size_t size)
{
	struct lwm_err e = { 0 };
	snprintf(out, size, "%s/%s", root, name);
	must(fx_stage(s, rows, out, &e), &e);
	lwm_next_token_of(s)->layers = 1;
	s->steps = 1;
	s->schedule.lr = 0.05; /* far from the even loss of an untrained model */
	lwm_next_token_of(s)->tokens_per_batch = 12 * FX_SEQ;
	s->mesh_dim = seq_ranks > 1 ? "-1,1,1,2" : "-1,1,1,1";
}

/* ---- rows one by one ---- */

struct sums {
	double loss, norm, tokens, targets, seen[FX_VOCAB];
};

static void add_row(struct sums *to, struct lwm_llama *m, const float *w, const struct lwm_batch *b)
{
	struct lwm_llama_batch in = { .n = FX_SEQ, .tokens = b->tokens, .targets = b->targets, .weights = b->weights,
				      .seg = b->segments, .pos = b->positions };
	struct lwm_flat_weights lw = lwm_flat_weights_of(w, LK_F32, NULL);
	struct lwm_llama_stats st;
	struct lwm_err e = { 0 };
	must(lwm_llama_step(m, &in, &lw.base, &st, &e), &e);
	to->loss += st.loss[LWM_TEXT];
	to->norm += b->norm;
	to->tokens += (double)b->tokens_n;
	for (int i = 0; i < FX_SEQ; i++)
		if (b->targets[i] >= 0) {
			to->seen[b->targets[i]]++;
			to->targets++;
		}
}

/* Rows 0 .. n-1 of the order that a loader without ranks deals, which it deals once around. */
static struct sums one_by_one(const char *out, int64_t n, int files)
{
	struct lwm_loader_source src = { .name = "x" };
	struct lwm_llama_run how = { .tokens = FX_SEQ };
	struct lwm_llama_cfg c = { .vocab_text = FX_VOCAB, .dim = 32, .ffn = 48, .layers = 1, .heads = 4, .kv_heads = 2,
				   .max_seq = FX_SEQ, .rope_theta = 10000, .rms_eps = 1e-6, .init_std = 0.02,
				   .tie_embeddings = true };
	struct sums s = { 0 };
	struct lwm_err e = { 0 };
	struct probe after;
	struct lwm_loader *l;
	struct lwm_llama *m;
	struct lk_dev *dev;
	char why[256];
	must(probe_step(&after, out, 1, &e), &e);
	assert_int_equal(lwm_llama_count(&c), after.n);
	assert_int_equal(lk_dev_open(&dev, "cpu", 1, why, sizeof why), 0);
	for (int i = 0; i < files; i++)
		must(lwm_paths_add(&src.shards, held[i], &e), &e);
	struct lwm_loader_cfg lc = { .source = &src, .nsources = 1, .seed = 3, .rows_per_step = 1, .ranks = 1, .micro_rows = 1 };
	must(lwm_loader_open(&l, &lc, &e), &e);
	must(lwm_llama_new(&m, dev, &c, &how, &e), &e);
	for (int64_t i = 0; i < n; i++) {
		struct lwm_batch *b;
		assert_int_equal(lwm_loader_sample(l, i).epoch, 0);
		must(lwm_loader_get(l, i, 0, &b, &e), &e);
		add_row(&s, m, after.v[LWM_CKPT_PARAMS], b);
	}
	lwm_llama_free(m);
	lwm_loader_close(l);
	lwm_paths_release(&src.shards);
	lk_dev_close(dev);
	probe_free(&after);
	return s;
}

static void near(const char *what, double got, double want, double slack)
{
	if (!(fabs(got - want) <= slack * want))
		fail_msg("%s is %.12g, row by row %.12g", what, got, want);
}

static void check(const char *out, int64_t n, int files)
{
	struct sums want = one_by_one(out, n, files);
	double h = 0;
	json_t *list = probe_events(out, "eval");
	assert_int_equal(json_array_size(list), 1);
	for (int i = 0; i < FX_VOCAB; i++)
		h -= want.seen[i] > 0 ? want.seen[i] / want.targets * log(want.seen[i] / want.targets) : 0;
	near("tokens", probe_number(list, 0, "tokens"), want.tokens, 0);
	near("text_tokens", probe_number(list, 0, "text_tokens"), want.targets, 0);
	near("loss", probe_number(list, 0, "loss"), want.loss / want.norm, 1e-6);
	near("text_unigram", probe_number(list, 0, "text_unigram"), h, 1e-5);
	json_decref(list);
}

static void each_row_once(void **state)
{
	static const struct {
		int ranks, seq_ranks, micro, files;
		int64_t asked, counted;
	} t[] = {
		{ 1, 1, 1, 1, N, N },     { 1, 1, 2, 1, N, N },     { 1, 1, 3, 1, 5, 5 }, { 1, 1, 4, 1, 1000, N },
		{ 2, 1, 1, 1, N, N },     { 2, 1, 3, 1, N, N },     { 3, 1, 2, 1, N, N }, { 3, 1, 4, 1, 1000, N },
		{ 3, 1, 2, 1, 1, 1 },     { 2, 2, 3, 1, N, N },     { 2, 1, 3, 2, 1000, N + SHORT },
	};
	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct lwm_stage s;
		struct lwm_err e = { 0 };
		char out[256], name[32];
		snprintf(name, sizeof name, "once%d", (int)i);
		stage(&s, name, t[i].seq_ranks, out, sizeof out);
		lwm_next_token_of(&s)->micro_rows = t[i].micro;
		s.eval_rows = t[i].asked;
		for (int k = 0; k < t[i].files; k++)
			must(lwm_paths_add(&s.eval_data, held[k], &e), &e);
		must(lwm_comm_threads(t[i].ranks, run_on, &s, &e), &e);
		check(out, t[i].counted, t[i].files);
		lwm_stage_release(&s);
	}
}

/* Weights say how often a source is drawn, not that its rows come again: three of four draws are of the short one. */
static void weighted_rows_once(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256], text[2][400];
	(void)state;
	stage(&s, "weighted", 1, out, sizeof out);
	lwm_next_token_of(&s)->micro_rows = 2;
	s.eval_rows = 1000;
	for (int k = 0; k < 2; k++) {
		snprintf(text[k], sizeof text[k], "%s=%d", held[k], k ? 3 : 1);
		must(lwm_paths_add(&s.eval_data, text[k], &e), &e);
	}
	must(lwm_comm_threads(3, run_on, &s, &e), &e);
	check(out, N + SHORT, 2);
	lwm_stage_release(&s);
}

static void none_named_twice(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256], folder[200];
	(void)state;
	stage(&s, "copies", 1, out, sizeof out);
	snprintf(folder, sizeof folder, "%s/held", root);
	must(lwm_paths_add(&s.eval_data, held[0], &e), &e);
	must(lwm_paths_add(&s.eval_data, folder, &e), &e);
	s.eval_rows = 4;
	assert_int_equal(lwm_comm_threads(1, run_on, &s, &e), -LWM_ECONFIG);
	assert_non_null(strstr(e.msg, "0.h5: holds the rows of"));
	lwm_stage_release(&s);
}

/* Held-out data, but no rows of it wanted: no evaluation. */
static void no_rows(void **state)
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256];
	(void)state;
	stage(&s, "none", 1, out, sizeof out);
	s.eval_rows = 0;
	must(lwm_paths_add(&s.eval_data, held[0], &e), &e);
	must(lwm_comm_threads(1, run_on, &s, &e), &e);
	json_t *list = probe_events(out, "eval");
	assert_int_equal(json_array_size(list), 0);
	json_decref(list);
	lwm_stage_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(each_row_once), cmocka_unit_test(weighted_rows_once),
					    cmocka_unit_test(none_named_twice), cmocka_unit_test(no_rows) };
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
