/* What an evaluation asks and how it counts: trials, scores, results, checks, pictures. No model. */
#include "tests/unit/eval_fixture.h"

#include "common/base/json.h"
#include "common/data/needle.h"
#include "common/eval/needle_report.h"
#include "common/eval/qa.h"
#include "common/eval/run_report.h"

/* ---- trials ---- */

static int count(const char *text, const char *part)
{
	int n = 0;
	for (const char *p = text; (p = strstr(p, part)); p += strlen(part))
		n++;
	return n;
}

static char *prompt_text(const struct lwm_trial *t, struct lwm_tokenizer *tok)
{
	struct lwm_str s = { 0 };
	assert_int_equal(t->prompt.v[0], lwm_tokenizer_bos(tok));
	lwm_tokenizer_decode(tok, t->prompt.v, t->prompt.n, &s);
	return s.s;
}

static void same_trial(const struct lwm_trial *a, const struct lwm_trial *b, bool same)
{
	bool equal = a->prompt.n == b->prompt.n &&
		     !memcmp(a->prompt.v, b->prompt.v, (size_t)a->prompt.n * sizeof *a->prompt.v);
	assert_int_equal(equal, same);
}

/* The needle's place in the decoded prompt: bytes of haystack before it, in percent. */
static void check_place(const struct lwm_trial *t, const char *text, int64_t i, double slack_bytes)
{
	char needle[128];
	size_t head = strlen(lwm_needle_prompt_head());
	struct lwm_str s = { 0 };
	lwm_needle_text(&s, lwm_needle_city(t->city[i]), t->number[i]);
	snprintf(needle, sizeof needle, "%s", s.s);
	lwm_str_release(&s);
	assert_int_equal(count(text, needle), 1);
	assert_int_equal(strncmp(text, lwm_needle_prompt_head(), head), 0);
	if (t->n > 1)
		return;
	lwm_needle_question_single(&s, lwm_needle_city(t->city[i]));
	const char *end = strstr(text, s.s), *at = strstr(text, needle);
	assert_non_null(end);
	double whole = (double)((size_t)(end - text) - head - 1 - strlen(needle)), before = (double)((size_t)(at - text) - head);
	double slack = 100 * slack_bytes / whole;
	if (fabs(100 * before / whole - t->cell.depth) > slack)
		fail_msg("length %ld: needle at %.2f %%, asked for %g %% +- %.2f", (long)t->cell.length, 100 * before / whole,
			 t->cell.depth, slack);
	lwm_str_release(&s);
}

static int64_t longest(const struct lwm_haystack *h)
{
	int64_t most = 0;
	for (int64_t i = 0; i < h->n; i++)
		if (h->tokens[i + 1] - h->tokens[i] > most)
			most = h->tokens[i + 1] - h->tokens[i];
	return most;
}

static void check_trial(const struct lwm_needle_task *task, const struct lwm_needle_cell *c, const struct lwm_haystack *h,
			struct lwm_tokenizer *tok)
{
	struct lwm_trial t, again, other;
	OK(lwm_trial_make(&t, task, c, h, tok, err));
	OK(lwm_trial_make(&again, task, c, h, tok, err));
	same_trial(&t, &again, true);
	assert_memory_equal(t.number, again.number, sizeof t.number);
	lwm_trial_release(&again);

	struct lwm_needle_cell next = *c;
	next.round++;
	OK(lwm_trial_make(&other, task, &next, h, tok, err));
	same_trial(&t, &other, false);
	lwm_trial_release(&other);

	int64_t room = c->length - task->answer_tokens, least = room - longest(h);
	if (t.prompt.n > room || t.prompt.n < least)
		fail_msg("length %ld: a prompt of %ld tokens, expected %ld to %ld", (long)c->length, (long)t.prompt.n,
			 (long)least, (long)room);
	char *text = prompt_text(&t, tok);
	for (int64_t i = 0; i < t.n; i++)
		check_place(&t, text, i, lwm_tokenizer_is_bytes(tok) ? FX_LONGEST : 2 * FX_LONGEST); /* depth counts tokens */
	if (t.n == 1 && c->length >= 1500) /* most of the prompt is haystack */
		assert_true(fabs(t.depth[0] - c->depth) <= 100.0 * (double)longest(h) / (0.5 * (double)t.prompt.n));
	assert_true(lwm_path_has_suffix(text, " ASSISTANT: "));
	free(text);
	lwm_trial_release(&t);
}

static void test_trials(void **state)
{
	static const int64_t lengths[] = { 400, 777, 1500, 4000 };
	static const double depths[] = { 0, 11, 33, 50, 89, 100 };
	(void)state;
	for (int pieces = 0; pieces < 2; pieces++) {
		struct lwm_tokenizer *tok = fx_tokenizer(pieces);
		struct lwm_haystack h;
		struct lwm_needle_task task = { .needles = 1, .retrieve = 1, .answer_tokens = 20, .seed = 5 };
		fx_haystack(&h, fx_path("prose.txt"), tok);
		for (int i = 0; i < 4; i++)
			for (int d = 0; d < 6; d++)
				for (int64_t r = 0; r < 6; r++)
					check_trial(&task, &(struct lwm_needle_cell){ lengths[i], r, depths[d] }, &h, tok);
		lwm_haystack_release(&h);
		lwm_tokenizer_free(tok);
	}
}

static void test_seeds(void **state)
{
	struct lwm_tokenizer *tok = fx_tokenizer(false);
	struct lwm_haystack h;
	struct lwm_needle_task task = { .needles = 1, .retrieve = 1, .answer_tokens = 20, .seed = 5 };
	struct lwm_needle_cell c = { 1000, 0, 50 };
	struct lwm_trial a, b;
	(void)state;
	fx_haystack(&h, fx_path("prose.txt"), tok);
	OK(lwm_trial_make(&a, &task, &c, &h, tok, err));
	task.seed = 6;
	OK(lwm_trial_make(&b, &task, &c, &h, tok, err));
	same_trial(&a, &b, false);
	lwm_trial_release(&a);
	lwm_trial_release(&b);
	lwm_haystack_release(&h);
	lwm_tokenizer_free(tok);
}

/* 4 needles, 2 asked for: different cities, grid depths without repetition, in the text by depth, the question names two. */
static void check_several(const struct lwm_trial *t, const char *text)
{
	const char *at[LWM_NEEDLES_MAX], *question = strstr(text, "What are the special magic numbers");
	assert_non_null(question);
	for (int64_t i = 0; i < t->n; i++) {
		char line[64];
		snprintf(line, sizeof line, "magic %s number is: %ld\n", lwm_needle_city(t->city[i]), (long)t->number[i]);
		assert_int_equal(count(text, line), 1);
		at[i] = strstr(text, line);
		assert_true((strstr(question, lwm_needle_city(t->city[i])) != NULL) == (i < t->asked));
		for (int64_t k = 0; k < i; k++) {
			assert_true(t->city[i] != t->city[k] && t->number[i] != t->number[k]);
			assert_true(fabs(t->depth[i] - t->depth[k]) > 10); /* the grid's step is 20 */
			assert_true((at[i] > at[k]) == (t->depth[i] > t->depth[k]));
		}
	}
}

static void test_several(void **state)
{
	static const double grid[] = { 0, 20, 40, 60, 80, 100 };
	struct lwm_tokenizer *tok = fx_tokenizer(false);
	struct lwm_haystack h;
	struct lwm_needle_task task = { .needles = 4, .retrieve = 2, .answer_tokens = 40, .seed = 9, .depths = grid, .ndepths = 6 };
	(void)state;
	fx_haystack(&h, fx_path("prose.txt"), tok);
	for (int64_t r = 0; r < 40; r++) {
		struct lwm_needle_cell c = { 3000 + r, r, -1 };
		struct lwm_trial t;
		check_trial(&task, &c, &h, tok);
		OK(lwm_trial_make(&t, &task, &c, &h, tok, err));
		assert_int_equal(t.n, 4);
		assert_int_equal(t.asked, 2);
		char *text = prompt_text(&t, tok);
		check_several(&t, text);
		free(text);
		lwm_trial_release(&t);
	}
	lwm_haystack_release(&h);
	lwm_tokenizer_free(tok);
}

/* What cannot be done at the length that is asked for is refused with the numbers, never done at another. */
static void test_lengths_refused(void **state)
{
	struct lwm_tokenizer *tok = fx_tokenizer(false);
	struct lwm_haystack h;
	struct lwm_needle_task task = { .needles = 1, .retrieve = 1, .answer_tokens = 20, .seed = 5 };
	struct lwm_needle_cell c = { 100, 0, 50 };
	struct lwm_trial t;
	struct lwm_err e = { 0 };
	const char *takes;
	int64_t need;
	(void)state;
	fx_haystack(&h, fx_path("prose.txt"), tok);
	assert_int_equal(lwm_trial_make(&t, &task, &c, &h, tok, &e), -LWM_ECONFIG);
	takes = strstr(e.msg, "takes ");
	assert_non_null(takes);
	need = strtoll(takes + 6, NULL, 10);
	assert_true(strstr(e.msg, "100 tokens") && strstr(e.msg, "20"));
	c.length = need; /* the answer wants its room too */
	FAILS(lwm_trial_make(&t, &task, &c, &h, tok, err), LWM_ECONFIG, "too short");
	c.length = need + 20 + 60; /* other lengths draw other cities, with longer names */
	OK(lwm_trial_make(&t, &task, &c, &h, tok, err));
	assert_true(t.prompt.n <= need + 60);
	lwm_trial_release(&t);
	c.length = h.tokens[h.n] + 2000;
	FAILS(lwm_trial_make(&t, &task, &c, &h, tok, err), LWM_ECONFIG, "haystack");
	lwm_haystack_release(&h);
	lwm_tokenizer_free(tok);
}

static void test_scores(void **state)
{
	const struct lwm_trial one = { .n = 1, .asked = 1, .number = { 1234567 } },
			       three = { .n = 4, .asked = 3, .number = { 1111111, 2222222, 3333333, 4444444 } };
	(void)state;
	assert_true(lwm_trial_score(&one, "The special magic Oslo number is: 1234567.") == 1);
	assert_true(lwm_trial_score(&one, "1234566") == 0 && lwm_trial_score(&one, "") == 0);
	assert_true(lwm_trial_score(&one, "12 34567") == 0);
	assert_true(lwm_trial_score(&three, "3333333, 1111111 and 2222222") == 1);
	assert_true(fabs(lwm_trial_score(&three, "Oslo: 2222222, Cairo: 3333333") - 2.0 / 3) < 1e-15);
	assert_true(lwm_trial_score(&three, "4444444") == 0); /* stands in the text, was not asked for */
}

static void wilson(double k, double n, double low, double high)
{
	double a, b;
	lwm_wilson_interval(k, n, &a, &b);
	if (fabs(a - low) > 5e-5 || fabs(b - high) > 5e-5)
		fail_msg("%g of %g: %.5f .. %.5f, expected %.5f .. %.5f", k, n, a, b, low, high);
}

static void test_wilson(void **state)
{
	(void)state;
	wilson(8, 10, 0.49016, 0.94332);
	wilson(0, 10, 0, 0.27753);
	wilson(10, 10, 0.72247, 1);
	wilson(50, 100, 0.40383, 0.59617);
	wilson(0, 0, 0, 1);
}

/* ---- results ---- */

static const char line_a[] = "{\"context_length\":100,\"depth_percent\":50,\"round\":0,\"score\":1,\"run\":\"a\"}\n";
static const char line_b[] = "{\"context_length\":200,\"depth_percent\":33.5,\"round\":1,\"score\":0.5,\"run\":\"a\"}\n";

static const char *results(const char *first, const char *second, size_t cut)
{
	char text[512];
	snprintf(text, sizeof text, "%s%s", first, second);
	text[strlen(text) - cut] = 0;
	return fx_write("results.jsonl", text);
}

static void test_results(void **state)
{
	struct lwm_needle_results r;
	(void)state;
	OK(lwm_results_read(&r, fx_path("absent.jsonl"), err));
	assert_int_equal(r.n, 0);
	OK(lwm_results_read(&r, results(line_a, line_b, 0), err));
	assert_int_equal(r.n, 2);
	assert_string_equal(r.identity, "a");
	assert_true(r.v[1].cell.length == 200 && r.v[1].cell.depth == 33.5 && r.v[1].cell.round == 1 && r.v[1].score == 0.5);
	lwm_results_release(&r);
	for (size_t torn = 1; torn < sizeof line_b; torn += 7) { /* whatever is left of the last line */
		OK(lwm_results_read(&r, results(line_a, line_b, torn), err));
		assert_int_equal(r.n, 1);
		lwm_results_release(&r);
	}
	FAILS(lwm_results_read(&r, results(line_a, "{\"context_length\":100}\n", 0), err), LWM_EDATA, "line 2");
	FAILS(lwm_results_read(&r, results("torn in the middle\n", line_b, 0), err), LWM_EDATA, "results.jsonl");
	FAILS(lwm_results_read(&r, results(line_a, "{\"context_length\":1,\"depth_percent\":5,\"round\":0,\"score\":1,"
						   "\"run\":\"b\"}\n", 0), err),
	      LWM_ECONFIG, "two runs");
}

static struct lwm_str sealed(const char *a, const char *b)
{
	struct lwm_str all = { 0 }, s = { 0 };
	const char *line[] = { a, b };
	for (int i = 0; i < 2; i++) {
		lwm_str_reset(&s);
		lwm_str_add(&s, line[i], strlen(line[i]) - 1);
		OK(lwm_jsonl_seal(&s, err));
		lwm_str_printf(&all, "%s\n", s.s);
	}
	lwm_str_release(&s);
	return all;
}

/* Any bit of a file of results: the file is refused with the line, or it is the newline of the last line, which is torn
 * then. No number is ever read that was not written. */
static void test_damaged_results(void **state)
{
	struct lwm_needle_results r;
	struct lwm_str all = sealed(line_a, line_b);
	size_t first = (size_t)(strchr(all.s, '\n') - all.s);
	(void)state;
	OK(lwm_results_read(&r, fx_write("results.jsonl", all.s), err));
	assert_true(r.n == 2 && r.sealed && !r.repeated);
	lwm_results_release(&r);
	for (size_t i = 0; i < all.len * 8; i++) {
		char path[300], *c = &all.s[i / 8];
		struct lwm_err e = { 0 };
		*c ^= (char)(1 << i % 8);
		snprintf(path, sizeof path, "%s", fx_path("results.jsonl"));
		OK(lwm_write_file(path, all.s, all.len, true, err));
		int rc = lwm_results_read(&r, path, &e);
		*c ^= (char)(1 << i % 8);
		if (i / 8 == all.len - 1) {
			assert_true(rc == 0 && r.n == 1);
			lwm_results_release(&r);
			continue;
		}
		const char *line = i / 8 <= first ? "results.jsonl, line 1 (delete the line: its trial is run again)"
						  : "results.jsonl, line 2 (delete the line: its trial is run again)";
		if (rc != -LWM_EDATA || !strstr(e.msg, line))
			fail_msg("bit %zu of byte %zu: %d '%s'", i % 8, i / 8, rc, e.msg);
	}
	for (size_t n = first + 1; n < all.len; n++) { /* torn anywhere in the last line */
		char kept = all.s[n];
		all.s[n] = 0;
		OK(lwm_results_read(&r, fx_write("results.jsonl", all.s), err));
		all.s[n] = kept;
		assert_int_equal(r.n, 1);
		assert_true(r.sealed);
		lwm_results_release(&r);
	}
	lwm_str_release(&all);
}

/* What cannot be read is something else than what does not exist: a name below a file is absent, one that is a folder is not. */
static void test_unreadable_results(void **state)
{
	struct lwm_needle_results r;
	(void)state;
	OK(lwm_results_read(&r, fx_path("absent/results.jsonl"), err));
	lwm_results_release(&r);
	OK(lwm_mkdirs(fx_path("folder/results.jsonl"), err));
	FAILS(lwm_results_read(&r, fx_path("folder/results.jsonl"), err), LWM_EIO, "results.jsonl");
}

/* ---- pictures ---- */

static void whole_svg(const struct lwm_str *s)
{
	assert_int_equal(strncmp(s->s, "<?xml", 5), 0);
	assert_true(strstr(s->s, "<svg") && lwm_path_has_suffix(s->s, "</svg>\n"));
	assert_null(strstr(s->s, "<image"));
	assert_null(strstr(s->s, "font-family")); /* text is paths */
	for (const char *p = s->s; (p = strstr(p, "href=\"")); p += 6)
		assert_int_equal(p[6], '#');
	for (const char *p = s->s; (p = strstr(p, "://")); p += 3) /* names of name spaces, nothing to fetch */
		assert_int_equal(strncmp(p, "://www.w3.org/", 14), 0);
	assert_null(strstr(s->s, "nan"));
	assert_null(strstr(s->s, "inf"));
}

static void whole_png(const struct lwm_str *s)
{
	static const unsigned char sign[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
	assert_true(s->len > 100);
	assert_memory_equal(s->s, sign, 8);
	assert_memory_equal(s->s + s->len - 8, "IEND", 4);
}

static void draw_heatmap(const struct lwm_heatmap *m)
{
	struct lwm_str svg = { 0 }, png = { 0 }, again = { 0 };
	OK(lwm_plot_draw_heatmap(&svg, m, LWM_PLOT_SVG, err));
	OK(lwm_plot_draw_heatmap(&png, m, LWM_PLOT_PNG, err));
	OK(lwm_plot_draw_heatmap(&again, m, LWM_PLOT_SVG, err));
	whole_svg(&svg);
	whole_png(&png);
	assert_int_equal(svg.len, again.len);
	assert_memory_equal(svg.s, again.s, svg.len);
	lwm_str_release(&svg);
	lwm_str_release(&png);
	lwm_str_release(&again);
}

static void test_heatmaps(void **state)
{
	static const int64_t x[] = { 1000, 32768, 1048576 };
	static const double y[] = { 0, 50, 100 };
	static const double some[] = { 0, 0.25, 0.5, 0.75, 1, NAN, NAN, 1, 0.999 }, none[] = { NAN };
	struct lwm_heatmap m = { .title = "a <title> & more", .subtitle = "", .x_label = "x", .y_label = "y", .x = x, .y = y,
				 .nx = 3, .ny = 3, .value = some };
	(void)state;
	for (int colors = LWM_COLORS_SIGNAL; colors <= LWM_COLORS_CIVIDIS; colors++) {
		m.colors = (enum lwm_colors)colors;
		draw_heatmap(&m);
	}
	m.nx = m.ny = 1;
	draw_heatmap(&m);
	m.value = none;
	draw_heatmap(&m);
}

static void test_charts(void **state)
{
	static const double x[] = { 1, 2, 3, 4 }, y[] = { 5, NAN, INFINITY, 2 }, nothing[] = { NAN, NAN, NAN, NAN };
	struct lwm_curve curve[] = { { "one", x, y, 4 }, { "empty", x, y, 0 }, { "lost", x, nothing, 4 } };
	struct lwm_chart c = { .title = "t", .x_label = "x", .y_label = "y", .curve = curve };
	(void)state;
	for (int64_t n = 0; n <= 3; n++) {
		for (int log_y = 0; log_y < 2; log_y++) {
			struct lwm_str svg = { 0 }, png = { 0 };
			c.ncurves = n;
			c.log_y = log_y;
			OK(lwm_plot_draw_chart(&svg, &c, LWM_PLOT_SVG, err));
			OK(lwm_plot_draw_chart(&png, &c, LWM_PLOT_PNG, err));
			whole_svg(&svg);
			whole_png(&png);
			lwm_str_release(&svg);
			lwm_str_release(&png);
		}
	}
}

/* ---- checks ---- */

static void test_checks(void **state)
{
	static const struct {
		const char *spec;
		bool ok;
	} good[] = { { "A: %s#a.b >= 0.5", true },	     { "A: %s#a.b >= 0.50001", false },
		     { "A: %s#a.b <= 0.5", true },	     { "A: %s#a.b <= 0.4 ", false },
		     { "A: %s#a.b <= 2 * %s#a.c", true },    { "A: %s#a.b * 3 >= %s#a.c * %s#list.1", true },
		     { "A: %s#list.1 >= 6 ", true },	     { "A: %s#a.b * 3 >= %s#a.c * %s#list.1 * 1.01", false },
		    	     { "with <= and a:b in it: %s#list.0 >= -3", true } };
	static const struct {
		const char *spec;
		int code;
		const char *part;
	} bad[] = { { "no sides", LWM_EUSAGE, "no sides" },		{ "A: %s#a.b > 3", LWM_EUSAGE, ">=" },
		    { "A: %s#a.x >= 1", LWM_EDATA, "'x'" },		{ "A: %s#a >= 1", LWM_EDATA, "not a number" },
		    { "A: %s#list.2 >= 1", LWM_EDATA, "'2'" },		{ "A: %s#list.one >= 1", LWM_EDATA, "'one'" },
		    { "A: %s#a.b >= ", LWM_EUSAGE, "A: " },		{ "A: >= 1", LWM_EUSAGE, "A: " },
		    { "A: %s#a.b >= 2 *", LWM_EUSAGE, "A: " },		{ "A: %s#a.b >= two", LWM_EUSAGE, "two" },
		    { "A: %s.absent#a >= 1", LWM_ENOINPUT, ".absent" }, { "A: %s#nan >= 1", LWM_EDATA, "not a number" } };
	const char *f = fx_write("n.json", "{\"a\":{\"b\":0.5,\"c\":0.25},\"list\":[-3,6],\"nan\":null}");
	struct lwm_check c;
	char spec[1024];
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		snprintf(spec, sizeof spec, good[i].spec, f, f, f); /* NOLINT: a table of our own formats */
		OK(lwm_check_read(&c, spec, err));
		if (c.ok != good[i].ok)
			fail_msg("%s: %g, %g: %d", spec, c.value, c.bound, c.ok);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		snprintf(spec, sizeof spec, bad[i].spec, f, f, f);
		FAILS(lwm_check_read(&c, spec, err), bad[i].code, bad[i].part);
	}
}

static void test_run_report(void **state)
{
	struct lwm_run_report r = { .title = "<run>" };
	struct lwm_str page = { 0 }, failures = { 0 };
	char spec[512];
	int64_t failed;
	(void)state;
	OK(lwm_mkdirs(fx_path("stage"), err));
	fx_write("stage/metrics.jsonl", "{\"event\":\"start\",\"step\":0,\"unit\":\"tok\"}\n"
					"{\"event\":\"step\",\"step\":1,\"loss\":3.5,\"seconds\":1,\"seen\":64}\n"
					"{\"event\":\"step\",\"step\":2,\"loss\":null,\"seconds\":1,\"seen\":128}\n");
	snprintf(spec, sizeof spec, "first=%s", fx_path("stage"));
	OK(lwm_paths_add(&r.stages, spec, err));
	snprintf(spec, sizeof spec, "good: %s#v >= 1", fx_write("v.json", "{\"v\":2}"));
	OK(lwm_paths_add(&r.checks, spec, err));
	snprintf(spec, sizeof spec, "missed: %s#v <= 1", fx_path("v.json"));
	OK(lwm_paths_add(&r.checks, spec, err));
	snprintf(spec, sizeof spec, "what it said=%s", fx_write("said.txt", "1 < 2 & 3\n"));
	OK(lwm_paths_add(&r.texts, spec, err));
	r.timing = fx_write("timing.jsonl", "{\"stage\":\"say\",\"seconds\":1.5,\"max_rss_bytes\":1048576}\n");
	OK(lwm_run_report_make(&r, &page, &failures, &failed, err));
	assert_int_equal(failed, 1);
	assert_string_equal(failures.s, "missed: 2, wanted <= 1\n");
	assert_true(strstr(page.s, "&lt;run&gt;") && strstr(page.s, "1 &lt; 2 &amp; 3") && strstr(page.s, "MISSED"));
	assert_true(strstr(page.s, "<img alt=\"Loss of every step, as written to metrics.jsonl.\" src=\"data:image/svg+xml;base64,") &&
		    lwm_path_has_suffix(page.s, "</html>\n"));
	lwm_str_release(&page);
	lwm_str_release(&failures);
	lwm_paths_release(&r.stages);
	OK(lwm_paths_add(&r.stages, "no path", err));
	FAILS(lwm_run_report_make(&r, &page, &failures, &failed, err), LWM_EUSAGE, "no path");
	lwm_str_release(&page);
	lwm_str_release(&failures);
	lwm_paths_release(&r.stages);
	lwm_paths_release(&r.checks);
	lwm_paths_release(&r.texts);
}

/* ---- question and answer ---- */

static void test_qa_parse(void **state)
{
	static const struct {
		const char *text, *question, *answer; /* NULL: not of the form */
	} t[] = { { "Question: Who? Answer: Me.", "Who?", "Me." },
		  { " Question:\n Who?\n\nAnswer:\n Me.\n ", "Who?", "Me." },
		  { "Sure! Question: A Answer: B Answer: C", "A", "B Answer: C" },
		  { "Answer: B Question: A", NULL, NULL },
		  { "Question: Answer: B", NULL, NULL },
		  { "Question: A Answer: ", NULL, NULL },
		  { "Question: A", NULL, NULL },
		  { "", NULL, NULL } };
	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		char *q, *a;
		assert_int_equal(lwm_qa_parse(t[i].text, &q, &a), t[i].question != NULL);
		if (t[i].question) {
			assert_string_equal(q, t[i].question);
			assert_string_equal(a, t[i].answer);
		} else {
			assert_true(!q && !a);
		}
		free(q);
		free(a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_trials),	 cmocka_unit_test(test_seeds),	 cmocka_unit_test(test_several),
		cmocka_unit_test(test_lengths_refused),
		cmocka_unit_test(test_scores),	 cmocka_unit_test(test_wilson),		 cmocka_unit_test(test_results),
		cmocka_unit_test(test_damaged_results),
		cmocka_unit_test(test_unreadable_results),
		cmocka_unit_test(test_heatmaps), cmocka_unit_test(test_charts),		 cmocka_unit_test(test_checks),
		cmocka_unit_test(test_run_report), cmocka_unit_test(test_qa_parse),
	};
	return cmocka_run_group_tests(tests, fx_set_up, fx_tear_down);
}
