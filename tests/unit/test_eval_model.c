/* Sweeps and question writing with a small random model: what is counted and kept, not what it says. */
#include "tests/unit/eval_fixture.h"
#include "tests/unit/llama_fixture.h"

#include "common/base/json.h"
#include "common/eval/needle_report.h"
#include "common/eval/qa.h"
#include "common/io/docshard_int.h"

static struct lwm_llama_cfg cfg;
static float *weights;

static int set_up(void **state)
{
	int64_t total;
	cfg = tiny_cfg();
	cfg.vocab_text = 259; /* bytes */
	cfg.vision_rows = cfg.vision_codes = 0;
	cfg.max_seq = 1024;
	weights = weights_new(&cfg, &total);
	return fx_set_up(state);
}

static int tear_down(void **state)
{
	free(weights);
	return fx_tear_down(state);
}

/* ---- sweeps ---- */

static struct lwm_sweep a_sweep(const char *out)
{
	return (struct lwm_sweep){ .length_min = 400, .length_max = 500, .nlengths = 2, .ndepths = 3, .rounds = 2,
				   .task = { .needles = 1, .retrieve = 1, .answer_tokens = 6, .seed = 4 },
				   .model_hash = "0123456789abcdef", .out = out };
}

static int sweep_on(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct lk_dev *dev = device("cpu", 1);
	struct lwm_tokenizer *tok = fx_tokenizer(false);
	struct lwm_engine *g = NULL;
	struct lwm_haystack h;
	fx_haystack(&h, ((const char **)arg)[1], tok);
	struct lwm_sweep *s = ((void **)arg)[0];
	struct lwm_comm *team = NULL;
	int rc = s->team ? lwm_comm_split(c, lwm_comm_rank(c) / (int)s->team, lwm_comm_rank(c), &team, e) : 0;
	if (rc == 0)
		rc = team ? lwm_engine_new_shared(&g, dev, &cfg, weights, team, s->length_max, 1, e) :
			    lwm_engine_new(&g, dev, &cfg, weights, 128, 1, e);
	if (rc == 0)
		rc = lwm_sweep_run(s, g, &h, tok, c, e);
	lwm_engine_free(g);
	lwm_comm_free(team);
	lwm_haystack_release(&h);
	lwm_tokenizer_free(tok);
	lk_dev_close(dev);
	return rc;
}

static int sweep(struct lwm_sweep *s, int ranks, struct lwm_err *e)
{
	static char haystack[256];
	void *arg[] = { s, haystack };
	struct lwm_err mkdir_err = { 0 };
	snprintf(haystack, sizeof haystack, "%s", fx_path("prose.txt"));
	assert_int_equal(lwm_mkdirs(s->out, &mkdir_err), 0);
	return lwm_comm_threads(ranks, sweep_on, arg, e);
}

/* A line of results with the time 0, and with the check of what it is then, or none. */
static void timeless(struct lwm_str *all, const char *line, size_t n, bool sealed)
{
	static const char time[] = "\"seconds\":", mark[] = ",\"check\":\"";
	struct lwm_str s = { 0 };
	const char *at = memmem(line, n, time, strlen(time)), *check = memmem(line, n, mark, strlen(mark));
	assert_non_null(at);
	at += strlen(time);
	const char *rest = memchr(at, ',', n - (size_t)(at - line)), *end = check ? check : line + n - 1;
	lwm_str_add(&s, line, (size_t)(at - line));
	lwm_str_putc(&s, '0');
	lwm_str_add(&s, rest, (size_t)(end - rest));
	lwm_str_putc(&s, '}');
	if (sealed)
		OK(lwm_jsonl_seal(&s, err));
	lwm_str_add(all, s.s, s.len);
	lwm_str_putc(all, '\n');
	lwm_str_release(&s);
}

/* results.jsonl with all times 0, with checks or without. */
static char *results_in(const char *out, bool sealed)
{
	char path[300];
	struct lwm_str all = { 0 };
	snprintf(path, sizeof path, "%s/results.jsonl", out);
	char *text = fx_read(path), *end;
	for (char *s = text; (end = strchr(s, '\n')); s = end + 1)
		timeless(&all, s, (size_t)(end - s), sealed);
	free(text);
	return all.s;
}

static char *results_of(const char *out)
{
	return results_in(out, true);
}

static int lines(const char *text)
{
	int n = 0;
	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void write_results(const char *out, const char *text, size_t n)
{
	char path[300];
	snprintf(path, sizeof path, "%s/results.jsonl", out);
	OK(lwm_write_file(path, text, n, true, err));
}

static char *whole_run(const char *name, struct lwm_sweep *s, char *out, size_t size)
{
	snprintf(out, size, "%s", fx_path(name));
	*s = a_sweep(out);
	OK(sweep(s, 1, err));
	return results_of(out);
}

static void test_ranks(void **state)
{
	struct lwm_sweep s;
	char out[256];
	char *one = whole_run("one", &s, out, sizeof out);
	(void)state;
	assert_int_equal(lines(one), 12);
	for (int ranks = 2; ranks <= 5; ranks += 1) { /* 5 does not divide 12 */
		char name[32];
		snprintf(name, sizeof name, "ranks%d", ranks);
		snprintf(out, sizeof out, "%s", fx_path(name));
		OK(sweep(&s, ranks, err));
		char *many = results_of(out);
		assert_string_equal(one, many);
		free(many);
	}
	free(one);
}

/* Ranks that share a context: every trial once, in order. */
static void test_teams(void **state)
{
	(void)state;
	for (int team = 2; team <= 3; team++) {
		struct lwm_needle_results r;
		struct lwm_sweep s;
		char out[256], path[300], name[32];
		snprintf(name, sizeof name, "team%d", team);
		snprintf(out, sizeof out, "%s", fx_path(name));
		s = a_sweep(out);
		s.team = team;
		OK(sweep(&s, 2 * team, err));
		snprintf(path, sizeof path, "%s/results.jsonl", out);
		OK(lwm_results_read(&r, path, err));
		assert_int_equal(r.n, 12);
		for (int64_t i = 0; i < r.n; i++) {
			assert_int_equal(r.v[i].cell.length, i < 6 ? 400 : 500);
			assert_int_equal(r.v[i].cell.round, i % 2);
		}
		lwm_results_release(&r);
	}
}

/* Killed after any number of trials, in the middle of a line too: the same file in the end, and nothing is done twice. */
static void test_continues(void **state)
{
	struct lwm_sweep s;
	char out[256];
	char *whole = whole_run("whole", &s, out, sizeof out);
	size_t n = strlen(whole);
	(void)state;
	for (size_t keep = 0; keep <= n; keep += n / 5 + 13) {
		write_results(out, whole, keep);
		OK(sweep(&s, keep % 2 ? 2 : 1, err));
		char *again = results_of(out);
		assert_string_equal(whole, again);
		free(again);
	}
	/* a hole in the middle is filled at the end */
	char *third = strchr(strchr(whole, '\n') + 1, '\n') + 1, *fourth = strchr(third, '\n') + 1;
	struct lwm_str holed = { 0 };
	lwm_str_add(&holed, whole, (size_t)(third - whole));
	lwm_str_puts(&holed, fourth);
	write_results(out, holed.s, holed.len);
	lwm_str_add(&holed, third, (size_t)(fourth - third));
	OK(sweep(&s, 1, err));
	char *again = results_of(out);
	assert_string_equal(holed.s, again);
	lwm_str_release(&holed);
	free(again);
	free(whole);
}

/* A file from before there were checks is gone on with as it is; one of both kinds is refused. */
static void test_continues_without_checks(void **state)
{
	struct lwm_sweep s;
	char out[256];
	free(whole_run("old", &s, out, sizeof out));
	char *old = results_in(out, false);
	(void)state;
	write_results(out, old, strlen(old) / 2);
	OK(sweep(&s, 2, err));
	char path[300];
	snprintf(path, sizeof path, "%s/results.jsonl", out);
	char *now = fx_read(path), *same = results_in(out, false);
	assert_null(strstr(now, "check"));
	assert_string_equal(same, old);
	struct lwm_str mixed = { 0 };
	char *first = strchr(old, '\n');
	timeless(&mixed, old, (size_t)(first - old), true);
	lwm_str_puts(&mixed, first + 1);
	write_results(out, mixed.s, mixed.len);
	FAILS(sweep(&s, 1, err), LWM_EDATA, "line 2 (delete the line: its trial is run again)");
	lwm_str_release(&mixed);
	free(now);
	free(same);
	free(old);
}

static const char *summary_of(const char *out)
{
	static char path[300];
	snprintf(path, sizeof path, "%s/summary.csv", out);
	return path;
}

/* One trial of 12 stands twice, the second time with another score: it counts once, as it stood first. */
static void test_repeated_lines(void **state)
{
	struct lwm_needle_results r;
	struct lwm_sweep s;
	char out[256], path[300];
	double mean, worst;
	char *whole = whole_run("twice", &s, out, sizeof out);
	struct lwm_str text = { 0 }, line = { 0 };
	struct lwm_needle_report report = { .sweep = &s, .title = "t", .details = "d" };
	(void)state;
	char *end = strchr(whole, '\n'), *score = strstr(whole, "\"score\":0");
	assert_non_null(score);
	lwm_str_add(&line, whole, (size_t)(end - whole));
	line.s[score + 8 - whole] = '1';
	timeless(&text, line.s, line.len, true);
	lwm_str_release(&line);
	snprintf(path, sizeof path, "%s/results.jsonl", out);
	struct lwm_str all = { 0 };
	lwm_str_printf(&all, "%s%s%s", whole, text.s, whole);
	write_results(out, all.s, all.len);
	OK(lwm_results_read(&r, path, err));
	assert_true(r.n == 12 && r.repeated == 13 && r.sealed);
	for (int64_t i = 0; i < r.n; i++)
		assert_true(r.v[i].line == i + 1 && r.v[i].score == 0);
	lwm_results_release(&r);
	OK(lwm_needle_report_write(&report, &mean, &worst, err));
	assert_true(mean == 0);
	char *csv = fx_read(summary_of(out));
	assert_null(strstr(csv, ",3,"));
	free(csv);
	/* and nothing is left to do */
	OK(sweep(&s, 1, err));
	snprintf(path, sizeof path, "%s/results.jsonl", out);
	char *after = fx_read(path);
	assert_string_equal(after, all.s);
	free(after);
	lwm_str_release(&all);
	lwm_str_release(&text);
	free(whole);
}

static void test_other_runs_refused(void **state)
{
	struct lwm_sweep s;
	char out[256];
	char *whole = whole_run("refused", &s, out, sizeof out), *after;
	(void)state;
	s.task.seed++;
	FAILS(sweep(&s, 1, err), LWM_ECONFIG, "another run");
	FAILS(sweep(&s, 2, err), LWM_ECONFIG, "seed 5");
	s = a_sweep(out);
	s.model_hash = "fedcba";
	FAILS(sweep(&s, 1, err), LWM_ECONFIG, "fedcba");
	s = a_sweep(out);
	s.length_max = 1 << 20; /* more than the haystack has: no result at all under that name */
	FAILS(sweep(&s, 2, err), LWM_ECONFIG, "haystack");
	after = results_of(out);
	assert_string_equal(whole, after);
	free(after);
	free(whole);
}

static void test_report(void **state)
{
	static const char *const files[] = { "summary.csv", "heatmap.svg", "heatmap.png", "report.html" };
	struct lwm_sweep s;
	char out[256];
	double mean, worst;
	char *whole = whole_run("report", &s, out, sizeof out);
	struct lwm_needle_report r = { .sweep = &s, .title = "t", .details = "d" };
	(void)state;
	OK(lwm_needle_report_write(&r, &mean, &worst, err));
	assert_true(mean == 0 && worst == 0); /* a random model knows no number of seven digits */
	for (int i = 0; i < 4; i++) {
		char path[300], *text;
		snprintf(path, sizeof path, "%s/%s", out, files[i]);
		text = fx_read(path);
		assert_true(strlen(text) > 4);
		if (i == 0)
			assert_int_equal(lines(text), 1 + 6);
		free(text);
	}
	/* half of them right, one length not run at all */
	struct lwm_str half = { 0 };
	lwm_str_puts(&half, "{\"context_length\":400,\"depth_percent\":0,\"round\":0,\"score\":1,\"run\":\"x\"}\n"
			    "{\"context_length\":400,\"depth_percent\":0,\"round\":1,\"score\":0,\"run\":\"x\"}\n");
	write_results(out, half.s, half.len);
	OK(lwm_needle_report_write(&r, &mean, &worst, err));
	assert_true(mean == 0.5 && worst == 0.5);
	char json[300], *text;
	snprintf(json, sizeof json, "%s/summary.json", out);
	text = fx_read(json);
	assert_string_equal(text, "{\"accuracy\":0.500000,\"worst_length_accuracy\":0.500000,"
				  "\"by_length\":{\"400\":0.500000}}\n");
	free(text);
	/* a cell that was not run is not a cell of 0 */
	char map[300], *before, *after;
	snprintf(map, sizeof map, "%s/heatmap.svg", out);
	before = fx_read(map);
	lwm_str_puts(&half, "{\"context_length\":500,\"depth_percent\":100,\"round\":0,\"score\":0,\"run\":\"x\"}\n");
	write_results(out, half.s, half.len);
	OK(lwm_needle_report_write(&r, &mean, &worst, err));
	assert_true(fabs(mean - 1.0 / 3) < 1e-12 && worst == 0);
	after = fx_read(map);
	assert_string_not_equal(before, after);
	free(before);
	free(after);
	write_results(out, "", 0);
	OK(lwm_needle_report_write(&r, &mean, &worst, err));
	assert_true(isnan(mean) && isnan(worst));
	lwm_str_release(&half);
	free(whole);
}

/* ---- question and answer ---- */

/* Documents of the byte tokenizer, of the given lengths. */
static void documents(const char *path, const int64_t *lengths, int n)
{
	struct lwm_docs_meta m = { .vocab_text = 259, .tokenizer = "", .tool = "test", .config = "", .policy = "bos,eos" };
	struct lwm_docs_writer *w;
	OK(lwm_docs_create(&w, path, &m, true, err));
	for (int i = 0; i < n; i++) {
		int32_t *ids = malloc((size_t)lengths[i] * sizeof *ids);
		char id[16];
		for (int64_t k = 0; k < lengths[i]; k++)
			ids[k] = k == 0 ? 1 : k == lengths[i] - 1 ? 2 : 3 + 'a' + (int32_t)((k + i) % 26);
		snprintf(id, sizeof id, "doc%d", i);
		OK(lwm_docs_append(w, id, "made", ids, lengths[i], NULL, 0, err));
		free(ids);
	}
	OK(lwm_docs_commit(w, err));
}

static struct lwm_qa_stats write_pairs(const char *in, const char *out, uint64_t seed, double temperature)
{
	struct lk_dev *dev = device("cpu", 1);
	struct lwm_tokenizer *tok = fx_tokenizer(false);
	struct lwm_qa_stats st = { 0 };
	struct lwm_docs_meta m = { .vocab_text = 259, .tokenizer = "", .tool = "test", .config = "", .policy = "bos,eos" };
	struct lwm_docs_writer *w;
	struct lwm_docs *d;
	struct lwm_engine *g;
	OK(lwm_engine_new(&g, dev, &cfg, weights, 64, 1, err));
	struct lwm_qa q = { .writer = { .g = g, .tok = tok, .sampler = { temperature, 0, 1, seed }, .most = 6 },
			    .chunk_tokens = 30, .target_tokens = 200, .min_pairs = 1 };
	OK(lwm_docs_open(&d, in, err));
	OK(lwm_docs_create(&w, out, &m, true, err));
	for (int64_t i = 0; i < lwm_docs_count(d); i++)
		OK(lwm_qa_make_documents(&q, d, i, w, &st, err));
	assert_int_equal(w->at.docs, st.docs_out);
	lwm_docs_discard(w);
	lwm_docs_close(d);
	lwm_engine_free(g);
	lwm_tokenizer_free(tok);
	lk_dev_close(dev);
	return st;
}

static void test_pairs_add_up(void **state)
{
	static const int64_t lengths[] = { 100, 31, 32, 33, 302, 2, 1 };
	char in[256];
	(void)state;
	snprintf(in, sizeof in, "%s", fx_path("in.docs.h5"));
	documents(in, lengths, 7);
	for (int hot = 0; hot < 2; hot++) {
		struct lwm_qa_stats a = write_pairs(in, fx_path("out.h5"), 3, hot ? 1.5 : 0),
				    b = write_pairs(in, fx_path("out.h5"), 3, hot ? 1.5 : 0);
		assert_memory_equal(&a, &b, sizeof a);
		assert_int_equal(a.docs_in, 7);
		/* windows of 30 with <s> and </s> left out: the second one of 31 is </s> alone */
		assert_int_equal(a.chunks, 4 + 1 + 2 + 2 + 11);
		assert_int_equal(a.chunks, a.pairs + a.unparsed + a.unfinished);
		assert_true(a.pairs == 0 && a.docs_out == 0 && a.tokens_out == 0);
		assert_true(a.docs_short >= 5);
	}
}

/* The text of tokens [a, b) of document i. */
static void doc_text(struct lwm_docs *d, int64_t i, int64_t a, int64_t b, struct lwm_tokenizer *tok, struct lwm_str *s)
{
	int32_t *ids = malloc((size_t)(b - a) * sizeof *ids);
	OK(lwm_docs_read(d, i, a, b, ids, err));
	lwm_str_reset(s);
	lwm_tokenizer_decode(tok, ids, b - a, s);
	free(ids);
}

/* <s> chunks, then for each of them its pair; the loss stands on " A. </s>" alone. */
static void check_pairs(struct lwm_docs *d, int64_t i, int64_t most, struct lwm_tokenizer *tok, int64_t *pairs)
{
	struct lwm_str s = { 0 };
	struct lwm_doc doc;
	OK(lwm_docs_get(d, i, &doc, err));
	assert_true(doc.n <= most && doc.nruns >= 2 && doc.nruns % 2 == 0);
	assert_non_null(strstr(doc.id, "#qa"));
	for (int64_t k = 0; k < doc.nruns; k++) {
		int64_t end = k + 1 < doc.nruns ? doc.runs[k + 1].start : doc.n;
		assert_int_equal(doc.runs[k].loss, k % 2);
		doc_text(d, i, doc.runs[k].start, end, tok, &s);
		if (k % 2)
			assert_string_equal(s.s, "It is so."); /* decode takes the first blank off */
		else
			assert_true(lwm_path_has_suffix(s.s, "USER: What? ASSISTANT:"));
		*pairs += k % 2;
	}
	lwm_str_release(&s);
}

static void test_pairs_written(void **state)
{
	static const char *const said = "Question: What? Answer: It is so.";
	const char *input = fx_path("prose.txt"), *model = fx_path("parrot.model");
	struct lwm_tokenizer_train_cfg how = { .inputs = &input, .ninputs = 1, .symbols = &said, .nsymbols = 1, .vocab = 400,
					       .threads = 1 };
	struct lk_dev *dev = device("cpu", 1);
	struct lwm_llama_cfg c = tiny_cfg();
	struct lwm_tokenizer *tok;
	struct lwm_ids ids = { 0 };
	struct lwm_engine *g;
	struct lwm_docs_writer *w;
	struct lwm_docs *d;
	struct lwm_qa_stats st = { 0 };
	int64_t pairs = 0, piece;
	char *prose = fx_read(input);
	(void)state;
	OK(lwm_tokenizer_train(&how, model, true, err));
	OK(lwm_tokenizer_open(&tok, model, err));
	OK(lwm_tokenizer_encode_rest(tok, said, strlen(said), &ids, err));
	assert_int_equal(ids.n, 1);
	piece = ids.v[0];
	c.vocab_text = lwm_tokenizer_vocab(tok);
	c.vision_rows = c.vision_codes = 0;
	c.dim = 512;
	assert_true(c.dim >= c.vocab_text);
	float *weight = parrot_new(&c, piece, lwm_tokenizer_eos(tok));
	OK(lwm_engine_new(&g, dev, &c, weight, 64, 1, err));

	struct lwm_docs_meta m = { .vocab_text = c.vocab_text, .tokenizer = "", .tool = "test", .config = "", .policy = "bos,eos" };
	ids.n = 0;
	OK(lwm_tokenizer_encode(tok, prose, 6000, &ids, err));
	OK(lwm_docs_create(&w, fx_path("long.docs.h5"), &m, true, err));
	OK(lwm_docs_append(w, "long", "made", ids.v, ids.n, NULL, 0, err));
	OK(lwm_docs_commit(w, err));

	struct lwm_qa q = { .writer = { .g = g, .tok = tok, .sampler = { 0, 0, 1, 0 }, .most = 6 },
			    .chunk_tokens = 50, .target_tokens = 400, .min_pairs = 2 };
	OK(lwm_docs_open(&d, fx_path("long.docs.h5"), err));
	OK(lwm_docs_create(&w, fx_path("pairs.h5"), &m, true, err));
	OK(lwm_qa_make_documents(&q, d, 0, w, &st, err));
	OK(lwm_docs_commit(w, err));
	lwm_docs_close(d);
	assert_int_equal(st.chunks, (ids.n + 49) / 50);
	assert_true(st.pairs == st.chunks && !st.unparsed && !st.unfinished && st.docs_out > 2);
	OK(lwm_docs_open(&d, fx_path("pairs.h5"), err));
	assert_int_equal(lwm_docs_count(d), st.docs_out);
	assert_int_equal(lwm_docs_tokens(d), st.tokens_out);
	for (int64_t i = 0; i < lwm_docs_count(d); i++)
		check_pairs(d, i, q.target_tokens, tok, &pairs);
	assert_true(st.docs_short ? pairs < st.pairs : pairs == st.pairs);
	lwm_docs_close(d);
	/* fewer pairs than are wanted make no document */
	q.min_pairs = 1000;
	memset(&st, 0, sizeof st);
	OK(lwm_docs_open(&d, fx_path("long.docs.h5"), err));
	OK(lwm_docs_create(&w, fx_path("few.h5"), &m, true, err));
	OK(lwm_qa_make_documents(&q, d, 0, w, &st, err));
	assert_int_equal(w->at.docs, 0);
	assert_true(st.docs_out == 0 && st.docs_short > 2 && st.pairs == st.chunks);
	lwm_docs_discard(w);
	lwm_docs_close(d);
	lwm_engine_free(g);
	lk_dev_close(dev);
	lwm_tokenizer_free(tok);
	lwm_ids_release(&ids);
	free(weight);
	free(prose);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranks),
		cmocka_unit_test(test_teams),
		cmocka_unit_test(test_continues),
		cmocka_unit_test(test_continues_without_checks),
		cmocka_unit_test(test_repeated_lines),
		cmocka_unit_test(test_other_runs_refused),
		cmocka_unit_test(test_report),
		cmocka_unit_test(test_pairs_add_up),
		cmocka_unit_test(test_pairs_written),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
