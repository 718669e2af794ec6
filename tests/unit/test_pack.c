/* Packing: every token of every document once, in its place, with its loss, in rows that hold nothing else. */
#include "tests/unit/data_fixture.h"

#include "common/data/pack/pack.h"
#include "common/io/rowshard.h"

/* ---- the planner alone ---- */

static void check_fit(const int64_t *len, int64_t n, int64_t cap)
{
	int64_t *row = malloc((size_t)(n + 1) * sizeof *row), *sum = calloc((size_t)n + 1, sizeof *sum), low = 0;
	assert_non_null(row);
	assert_non_null(sum);
	lwm_err_clear(&err);
	int64_t rows = lwm_pack_best_fit(len, n, cap, row, &err);
	assert_true(rows >= 0 && rows <= n);
	for (int64_t i = 0; i < n; i++) {
		assert_true(row[i] >= 0 && row[i] < rows);
		sum[row[i]] += len[i];
	}
	for (int64_t r = 0; r < rows; r++) {
		assert_true(sum[r] > 0 && sum[r] <= cap);
		low += 2 * sum[r] <= cap;
	}
	assert_true(low <= 1); /* two rows that are half empty would have been one */
	free(row);
	free(sum);
}

static void test_fit_random(void **state)
{
	(void)state;
	enum { MOST = 400 };
	int64_t len[MOST];
	for (uint64_t c = 0; c < 4000; c++) {
		struct lwm_rng r = lwm_rng_at(1, LWM_RNG_TEST, 0, c);
		int64_t cap = 2 + lwm_rng_below(&r, c % 7 ? 300 : 100000), n = lwm_rng_below(&r, MOST);
		int64_t top = 1 + lwm_rng_below(&r, cap);
		for (int64_t i = 0; i < n; i++)
			len[i] = 1 + lwm_rng_below(&r, top);
		check_fit(len, n, cap);
	}
}

static void test_fit_exact(void **state)
{
	(void)state;
	int64_t len[] = { 5, 3, 5, 7, 2, 8 }, row[6];
	assert_int_equal(lwm_pack_best_fit(len, 6, 10, row, &err), 3);
	assert_int_equal(row[5], row[4]); /* 8 + 2 */
	assert_int_equal(row[3], row[1]); /* 7 + 3 */
	assert_int_equal(row[0], row[2]); /* 5 + 5 */
	lwm_err_clear(&err);
	len[0] = 11;
	assert_int_equal(lwm_pack_best_fit(len, 6, 10, row, &err), -LWM_EINTERNAL);
	lwm_err_clear(&err);
}

static void test_fit_short_documents(void **state)
{
	(void)state;
	enum { N = 60000 };
	int64_t *len = malloc(N * sizeof *len), *row = malloc(N * sizeof *row), total = 0;
	assert_non_null(len);
	assert_non_null(row);
	for (uint64_t i = 0; i < N; i++) {
		struct lwm_rng r = lwm_rng_at(2, LWM_RNG_TEST, 0, i);
		len[i] = 5 + (int64_t)(120 * lwm_rng_double(&r) * lwm_rng_double(&r));
		total += len[i];
	}
	for (int64_t cap = 256; cap <= 4096; cap *= 2) { /* from six documents a row on */
		int64_t rows = lwm_pack_best_fit(len, N, cap, row, &err);
		assert_true((double)total / (double)(rows * cap) >= 0.995);
	}
	free(len);
	free(row);
}

/* ---- whole runs ---- */

struct corpus {
	int64_t docs, len[600];
	int64_t nshards, first[5]; /* of each shard, and the end */
	struct lwm_pack_source source[2];
	int64_t nsources;
};

static void make_corpus(struct corpus *c, uint64_t seed)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_TEST, 1, 0);
	memset(c, 0, sizeof *c);
	c->docs = 1 + lwm_rng_below(&r, seed % 5 ? 60 : 600);
	int64_t top = 1 + lwm_rng_below(&r, seed % 3 ? 60 : 700);
	for (int64_t i = 0; i < c->docs; i++)
		c->len[i] = 1 + lwm_rng_below(&r, top);
	c->nshards = 1 + lwm_rng_below(&r, 4);
	c->nsources = 1 + lwm_rng_below(&r, c->nshards > 1 ? 2 : 1);
	for (int64_t k = 1; k < c->nshards; k++)
		c->first[k] = lwm_rng_below(&r, c->docs - c->first[k - 1] + 1) + c->first[k - 1];
	c->first[c->nshards] = c->docs;
	for (int64_t k = 0; k < c->nshards; k++) {
		char name[32];
		snprintf(name, sizeof name, "in-%" PRId64 ".h5", k);
		fix_shard(in_scratch(name), c->len + c->first[k], c->first[k + 1] - c->first[k], c->first[k]);
		int64_t s = c->nsources == 2 && k >= c->nshards / 2;
		OK(lwm_paths_add(&c->source[s].shards, in_scratch(name), &err));
	}
	c->source[0].name = "a";
	c->source[1].name = "b";
}

static void free_corpus(struct corpus *c)
{
	lwm_paths_release(&c->source[0].shards);
	lwm_paths_release(&c->source[1].shards);
}

static struct lwm_pack_cfg draw_cfg(const struct corpus *c, uint64_t seed)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_TEST, 2, 0);
	struct lwm_pack_cfg cfg = { .source = c->source, .nsources = c->nsources, .seed = seed, .force = true,
				    .tool = "test", .output = in_scratch("rows.h5") };
	cfg.seq_length = 2 + lwm_rng_below(&r, 400);
	cfg.mode = (enum lwm_pack_mode)lwm_rng_below(&r, 3);
	cfg.longer = (enum lwm_pack_long)lwm_rng_below(&r, 3);
	cfg.min_tokens = lwm_rng_below(&r, 2) ? lwm_rng_below(&r, 20) : 0;
	cfg.window = lwm_rng_below(&r, 2) ? 1 + lwm_rng_below(&r, 40) : 0;
	cfg.epochs = 1 + lwm_rng_below(&r, 3);
	cfg.shuffle = lwm_rng_below(&r, 2);
	cfg.drop_lossless = lwm_rng_below(&r, 4) == 0;
	return cfg;
}

/* How often each token was seen, document after document. */
struct seen {
	int64_t at[601];
	uint8_t *times;
};

static void see_row(const struct corpus *c, const struct lwm_pack_cfg *cfg, const struct lwm_row *row, struct seen *s)
{
	int64_t covered = 0;
	for (int64_t i = 0; i < row->nseg; i++) {
		const struct lwm_segment *g = &row->seg[i];
		int64_t doc = g->doc, pos = fix_position(doc, row->tokens[g->start]);
		assert_true(doc >= 0 && doc < c->docs);
		covered += g->len;
		if (cfg->mode == LWM_PACK_PADDED)
			assert_int_equal(row->nseg, 1);
		for (int64_t t = 0; t < g->len; t++) {
			assert_true(pos + t < c->len[doc]);
			assert_int_equal(row->tokens[g->start + t], fix_token(doc, pos + t));
			assert_int_equal(row->segment[g->start + t], i);
			assert_int_equal(row->position[g->start + t], t);
			assert_int_equal(row->mask[g->start + t], t > 0 && fix_loss(doc, pos + t));
			s->times[s->at[doc] + pos + t]++;
		}
	}
	for (int64_t t = 0; t < row->seq; t++)
		covered += row->segment[t] < 0;
	assert_int_equal(covered, row->seq);
}

/* concat: the row is one segment, and begins with the last token of the row before. */
static void see_concat(const struct lwm_pack_cfg *cfg, const struct lwm_row *row, int32_t *last, int64_t *sum, int64_t *tokens)
{
	assert_int_equal(row->seq, cfg->seq_length + 1);
	assert_int_equal(row->nseg, 1);
	assert_int_equal(row->seg[0].start, 0);
	if (*last >= 0) {
		assert_int_equal(row->tokens[0], *last);
		assert_true(row->seg[0].len > 1);
	}
	for (int64_t t = *last >= 0; t < row->seg[0].len; t++) {
		*sum += row->tokens[t];
		++*tokens;
	}
	*last = row->tokens[row->seg[0].len - 1];
}

static bool lossless(int64_t doc, int64_t used)
{
	for (int64_t t = 1; t < used; t++)
		if (fix_loss(doc, t))
			return false;
	return true;
}

/* What must have come of a document: 0 rejected, else the tokens used of it. */
static int64_t expected(const struct corpus *c, const struct lwm_pack_cfg *cfg, int64_t doc, int64_t count[3])
{
	int64_t used = c->len[doc];
	bool longer = used > cfg->seq_length && cfg->mode != LWM_PACK_CONCAT;
	if (used < cfg->min_tokens) {
		count[0]++;
		return 0;
	}
	if (longer && cfg->longer == LWM_LONG_DROP) {
		count[1]++;
		return 0;
	}
	if (longer && cfg->longer == LWM_LONG_TRUNCATE)
		used = cfg->seq_length;
	if (cfg->drop_lossless && lossless(doc, used)) {
		count[2]++;
		return 0;
	}
	return used;
}

static void check_run(const struct corpus *c, const struct lwm_pack_cfg *cfg, const struct lwm_pack_stats *st)
{
	struct seen s = { .at = { 0 } };
	struct lwm_rows_reader *h;
	struct lwm_row row = { 0 };
	int64_t count[3] = { 0 }, total = 0, sum = 0, want_sum = 0, tokens = 0, want_tokens = 0, want_used = 0;
	int32_t last = -1;
	for (int64_t i = 0; i < c->docs; i++)
		s.at[i + 1] = s.at[i] + c->len[i];
	s.times = calloc((size_t)s.at[c->docs] + 1, 1);
	assert_non_null(s.times);
	OK(lwm_rows_open(&h, cfg->output, &err));
	assert_int_equal(lwm_rows_count(h), st->rows);
	for (int64_t i = 0; i < st->rows; i++) {
		OK(lwm_rows_read(h, i, &row, &err));
		if (cfg->mode == LWM_PACK_CONCAT)
			see_concat(cfg, &row, &last, &sum, &tokens);
		else
			see_row(c, cfg, &row, &s);
	}
	for (int64_t doc = 0; doc < c->docs; doc++) {
		int64_t used = expected(c, cfg, doc, count);
		want_used += used > 0;
		want_tokens += used * cfg->epochs;
		for (int64_t t = 0; t < c->len[doc]; t++) {
			if (t < used)
				want_sum += fix_token(doc, t) * cfg->epochs;
			if (cfg->mode != LWM_PACK_CONCAT)
				assert_int_equal(s.times[s.at[doc] + t], t < used ? cfg->epochs : 0);
			total += s.times[s.at[doc] + t];
		}
	}
	if (cfg->mode == LWM_PACK_CONCAT) {
		assert_int_equal(sum, want_sum);
		assert_int_equal(tokens, want_tokens);
		assert_int_equal(st->rows, want_tokens == 1 ? 1 : (want_tokens + cfg->seq_length - 2) / cfg->seq_length);
	} else {
		assert_int_equal(total, want_tokens);
	}
	assert_int_equal(st->tokens_out, want_tokens);
	assert_int_equal(st->docs_in, c->docs);
	assert_int_equal(st->rejected_short, count[0]);
	assert_int_equal(st->rejected_long, count[1]);
	assert_int_equal(st->rejected_lossless, count[2]);
	assert_int_equal(st->docs_used, want_used);
	assert_int_equal(st->docs_left, 0);
	assert_int_equal(st->repeats, want_used * (cfg->epochs - 1));
	lwm_row_release(&row);
	lwm_rows_close(h);
	free(s.times);
}

static void test_random_corpora(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 600; seed++) {
		struct corpus c;
		struct lwm_pack_stats st;
		make_corpus(&c, seed);
		struct lwm_pack_cfg cfg = draw_cfg(&c, seed);
		OK(lwm_pack_run(&cfg, &st, NULL, &err));
		check_run(&c, &cfg, &st);
		free_corpus(&c);
	}
}

/* Twice ten documents of eight tokens in rows of sixteen: nine rows of sixteen targets, and one of 15 that is left out. */
static void test_drop_tail(void **state)
{
	(void)state;
	static const struct {
		int64_t docs, rows, cut;
		bool drop;
	} t[] = { { 20, 10, 0, false }, { 20, 9, 15, true }, { 18, 9, 0, false }, { 18, 8, 15, true },
		  { 2, 1, 0, false }, { 2, 0, 16, true } };
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		int64_t len[20];
		struct lwm_pack_source src = { .name = "a" };
		struct lwm_pack_stats st;
		for (int d = 0; d < 20; d++)
			len[d] = 8;
		fix_shard(in_scratch("tail.h5"), len, t[i].docs, 0);
		OK(lwm_paths_add(&src.shards, in_scratch("tail.h5"), &err));
		struct lwm_pack_cfg cfg = { .source = &src, .nsources = 1, .seq_length = 16, .mode = LWM_PACK_CONCAT, .force = true,
					    .output = in_scratch("tail.rows.h5"), .tool = "test", .drop_tail = t[i].drop };
		OK(lwm_pack_run(&cfg, &st, NULL, &err));
		assert_int_equal(st.rows, t[i].rows);
		assert_int_equal(st.tokens_cut, t[i].cut);
		assert_int_equal(st.tokens_out, 8 * t[i].docs - t[i].cut);
		if (t[i].drop && st.rows)
			assert_true(st.fill == 1);
		cfg.mode = LWM_PACK_MASKED;
		lwm_err_clear(&err);
		assert_int_equal(lwm_pack_run(&cfg, &st, NULL, &err), t[i].drop ? -LWM_ECONFIG : 0);
		lwm_paths_release(&src.shards);
	}
}

static void test_weights(void **state)
{
	(void)state;
	int64_t len[400];
	struct lwm_pack_source src[3] = { { .name = "a", .weight = 3 }, { .name = "b", .weight = 1 },
					  { .name = "off" } };
	struct lwm_pack_stats st;
	json_t *report;
	for (int i = 0; i < 400; i++)
		len[i] = 20 + i % 11;
	fix_shard(in_scratch("a.h5"), len, 300, 0);
	fix_shard(in_scratch("b.h5"), len, 400, 300);
	fix_shard(in_scratch("c.h5"), len, 10, 700);
	OK(lwm_paths_add(&src[0].shards, in_scratch("a.h5"), &err));
	OK(lwm_paths_add(&src[1].shards, in_scratch("b.h5"), &err));
	OK(lwm_paths_add(&src[2].shards, in_scratch("c.h5"), &err));
	struct lwm_pack_cfg cfg = { .source = src, .nsources = 3, .seq_length = 256, .force = true, .shuffle = true,
				    .output = in_scratch("w.h5"), .tool = "test" };
	OK(lwm_pack_run(&cfg, &st, &report, &err));
	/* a is used whole (300 documents of 25 tokens on average), b gives a third of that */
	assert_int_equal(st.docs_in, 710);
	assert_true(st.docs_used >= 300 + 95 && st.docs_used <= 300 + 105);
	assert_int_equal(st.docs_in, st.docs_used + st.docs_left);
	assert_int_equal(st.repeats, 0);
	json_decref(report);
	cfg.epochs = 2;
	cfg.max_tokens = 12000;
	OK(lwm_pack_run(&cfg, &st, NULL, &err));
	assert_true(st.tokens_out >= 12000 && st.tokens_out <= 12000 + 2 * 31);
	for (int i = 0; i < 3; i++)
		lwm_paths_release(&src[i].shards);
}

/* The parts of an array together use every document once. */
static void test_tasks(void **state)
{
	(void)state;
	int64_t len[600], docs = 0, tokens = 0, want = 0;
	struct lwm_pack_source src = { .name = "a" };
	for (int i = 0; i < 600; i++)
		want += len[i] = 3000 + i;
	fix_shard(in_scratch("t.h5"), len, 600, 0);
	OK(lwm_paths_add(&src.shards, in_scratch("t.h5"), &err));
	for (int64_t t = 0; t < 3; t++) {
		struct lwm_pack_stats st;
		struct lwm_pack_cfg cfg = { .source = &src, .nsources = 1, .seq_length = 4096, .force = true,
					    .shuffle = true, .output = in_scratch("parts"), .rows_per_shard = 16,
					    .tool = "test", .task = t, .tasks = 3 };
		OK(lwm_pack_run(&cfg, &st, NULL, &err));
		assert_true(st.docs_in > 0);
		assert_int_equal(st.shards, (st.rows + 15) / 16);
		docs += st.docs_used;
		tokens += st.tokens_out;
		cfg.force = false;
		OK(lwm_pack_run(&cfg, &st, NULL, &err));
		assert_true(st.complete_before);
		cfg.seed = 9;
		lwm_err_clear(&err);
		assert_int_equal(lwm_pack_run(&cfg, &st, NULL, &err), -LWM_ECANTCREATE);
	}
	assert_int_equal(docs, 600);
	assert_int_equal(tokens, want);
	lwm_paths_release(&src.shards);
}

static void test_same_bytes(void **state)
{
	(void)state;
	struct corpus c;
	struct lwm_pack_stats st;
	char *a, *b;
	size_t na, nb;
	make_corpus(&c, 5);
	struct lwm_pack_cfg cfg = { .source = c.source, .nsources = c.nsources, .seq_length = 300, .force = true,
				    .shuffle = true, .window = 50, .seed = 3, .tool = "test" };
	cfg.output = in_scratch("one.h5");
	OK(lwm_pack_run(&cfg, &st, NULL, &err));
	cfg.output = in_scratch("two.h5");
	OK(lwm_pack_run(&cfg, &st, NULL, &err));
	OK(lwm_read_file(in_scratch("one.h5"), 1 << 30, &a, &na, &err));
	OK(lwm_read_file(in_scratch("two.h5"), 1 << 30, &b, &nb, &err));
	assert_int_equal(na, nb);
	assert_memory_equal(a, b, na);
	free(a);
	free(b);
	free_corpus(&c);
}

/* ---- held-out documents ---- */

enum { HELD_DOCS = 64 };

/* Which documents the rows of the output hold. */
static void docs_of(const char *rows, bool held[HELD_DOCS])
{
	struct lwm_rows_reader *r;
	struct lwm_row row = { 0 };
	OK(lwm_rows_open(&r, rows, &err));
	for (int64_t i = 0; i < lwm_rows_count(r); i++) {
		OK(lwm_rows_read(r, i, &row, &err));
		for (int64_t k = 0; k < row.nseg; k++) {
			int64_t doc = 0; /* by its tokens: shards may come in any order */
			while (row.tokens[row.seg[k].start] != fix_token(doc, 0) || row.seg[k].len != 5 + doc % 40)
				doc++;
			assert_true(doc < HELD_DOCS && !held[doc]);
			held[doc] = true;
		}
	}
	lwm_row_release(&row);
	lwm_rows_close(r);
}

/* The same documents, however they are cut into shards, in whatever order and by whatever seed; the others are the other part.
 * Which they are was worked out with the xxhash package of Python. */
static void test_held_out(void **state)
{
	(void)state;
	static const int want[] = { 6, 17, 22, 23, 29, 48, 53, 55, 58, 62 };
	static const int cuts[][4] = { { 0, 64, 64, 64 }, { 0, 13, 14, 64 }, { 0, 40, 64, 64 } };
	int64_t len[HELD_DOCS];
	for (int i = 0; i < HELD_DOCS; i++)
		len[i] = 5 + i % 40;
	for (int k = 0; k < 6; k++) {
		struct lwm_pack_source src = { .name = "x" };
		struct lwm_pack_stats st;
		bool held[HELD_DOCS] = { false }, rest[HELD_DOCS] = { false };
		for (int i = 2; i >= 0; i--) {
			char name[32];
			int a = cuts[k % 3][i], n = cuts[k % 3][i + 1] - a;
			snprintf(name, sizeof name, "held-%d-%d.h5", k, i);
			if (n)
				fix_shard(in_scratch(name), len + a, n, a);
			if (n)
				OK(lwm_paths_add(&src.shards, in_scratch(name), &err));
		}
		struct lwm_pack_cfg cfg = { .source = &src, .nsources = 1, .seq_length = 64, .force = true, .shuffle = true,
					    .seed = (uint64_t)k, .tool = "test", .output = in_scratch("held.h5"), .hold_out = 0.25,
					    .held_out = true };
		OK(lwm_pack_run(&cfg, &st, NULL, &err));
		assert_int_equal(st.docs_used, sizeof want / sizeof *want);
		assert_int_equal(st.docs_in, st.docs_used + st.docs_aside);
		docs_of(cfg.output, held);
		cfg.held_out = false;
		OK(lwm_pack_run(&cfg, &st, NULL, &err));
		assert_int_equal(st.docs_aside, sizeof want / sizeof *want);
		docs_of(cfg.output, rest);
		for (int i = 0, w = 0; i < HELD_DOCS; i++) {
			bool is = w < (int)(sizeof want / sizeof *want) && want[w] == i;
			w += is;
			assert_int_equal(held[i], is);
			assert_int_equal(rest[i], !is);
		}
		if (k < 3) { /* nothing is on that side */
			cfg.held_out = true;
			cfg.hold_out = 1e-9;
			lwm_err_clear(&err);
			assert_int_equal(lwm_pack_run(&cfg, &st, NULL, &err), -LWM_ECONFIG);
			cfg.hold_out = 0;
			assert_int_equal(lwm_pack_run(&cfg, &st, NULL, &err), -LWM_ECONFIG);
		}
		lwm_paths_release(&src.shards);
	}
	lwm_err_clear(&err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fit_random),      cmocka_unit_test(test_fit_exact),
		cmocka_unit_test(test_fit_short_documents), cmocka_unit_test(test_random_corpora),
		cmocka_unit_test(test_drop_tail),       cmocka_unit_test(test_weights),         cmocka_unit_test(test_tasks),
		cmocka_unit_test(test_same_bytes),      cmocka_unit_test(test_held_out),
	};
	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
