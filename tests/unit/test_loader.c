/* Loader: the same samples for any number of ranks, every row once an epoch, labels and weights as in padded
 * training. */
#include "tests/unit/data_fixture.h"

#include <math.h>

#include "common/data/loader/loader_int.h"
#include "common/data/pack/pack.h"
#include "common/io/rowshard.h"

enum { SEQ = 64, DOCS = 500 };
static struct lwm_loader_source src[2];

/* Two sources of packed rows from documents 0..DOCS-1 and DOCS..2*DOCS-1. */
static int make_rows(void **state)
{
	int64_t len[DOCS];
	if (scratch_make(state))
		return -1;
	for (int s = 0; s < 2; s++) {
		struct lwm_pack_source from = { .name = "x" };
		struct lwm_pack_stats st;
		char out[32], shard[64];
		for (int i = 0; i < DOCS; i++)
			len[i] = 3 + (i * 7 + s) % 50;
		snprintf(out, sizeof out, "rows-%d", s);
		fix_shard(in_scratch("docs.h5"), len, DOCS, s * DOCS);
		OK(lwm_paths_add(&from.shards, in_scratch("docs.h5"), &err));
		struct lwm_pack_cfg cfg = { .source = &from, .nsources = 1, .seq_length = SEQ, .shuffle = true,
					    .tool = "test", .output = in_scratch(out), .rows_per_shard = 40 };
		OK(lwm_pack_run(&cfg, &st, NULL, &err));
		src[s] = (struct lwm_loader_source){ .name = s ? "b" : "a" };
		for (int64_t k = 0; k < st.shards; k++) {
			snprintf(shard, sizeof shard, "rows-%d/rows-%05" PRId64 ".rows.h5", s, k);
			OK(lwm_paths_add(&src[s].shards, in_scratch(shard), &err));
		}
		lwm_paths_release(&from.shards);
	}
	return 0;
}

static int drop_rows(void **state)
{
	lwm_paths_release(&src[0].shards);
	lwm_paths_release(&src[1].shards);
	return scratch_remove(state);
}

static struct lwm_loader *open_loader(int rank, int ranks, int64_t rows, int64_t micro, bool prefetch)
{
	struct lwm_loader_cfg cfg = { .source = src, .nsources = 2, .seed = 5, .rows_per_step = rows, .rank = rank,
				      .ranks = ranks, .micro_rows = micro, .prefetch = prefetch };
	struct lwm_loader *l;
	OK(lwm_loader_open(&l, &cfg, &err));
	return l;
}

/* A number for what a batch holds. */
static uint64_t digest(const struct lwm_batch *b)
{
	uint64_t h = 0;
	for (int64_t i = 0; i < b->rows * b->seq; i++) {
		uint32_t w;
		memcpy(&w, &b->weights[i], 4);
		h = h * 1099511628211u + (uint32_t)b->tokens[i];
		h = h * 1099511628211u + (uint32_t)b->targets[i];
		h = h * 1099511628211u + (uint32_t)b->positions[i] + w;
	}
	return h;
}

static void test_ranks_and_micro_batches(void **state)
{
	(void)state;
	enum { ROWS = 12, STEPS = 9 };
	static const int split[][2] = { { 1, 12 }, { 1, 4 }, { 2, 3 }, { 3, 4 }, { 4, 1 }, { 12, 1 } };
	uint64_t want[STEPS][ROWS] = { { 0 } };
	struct lwm_batch *b;
	struct lwm_loader *one = open_loader(0, 1, ROWS, 1, false);
	for (int s = 0; s < STEPS; s++)
		for (int i = 0; i < ROWS; i++) {
			OK(lwm_loader_get(one, s, i, &b, &err));
			assert_int_equal(b->first_sample, s * ROWS + i);
			want[s][i] = digest(b);
		}
	lwm_loader_close(one);
	for (size_t k = 0; k < sizeof split / sizeof *split; k++)
		for (int r = 0; r < split[k][0]; r++) {
			struct lwm_loader *l = open_loader(r, split[k][0], ROWS, split[k][1], true);
			for (int s = 0; s < STEPS; s++)
				for (int64_t m = 0; m < lwm_loader_micros(l); m++) {
					OK(lwm_loader_get(l, s, m, &b, &err));
					for (int64_t i = 0; i < b->rows; i++) {
						struct lwm_batch row = *b;
						row.rows = 1;
						row.tokens += i * SEQ;
						row.targets += i * SEQ;
						row.positions += i * SEQ;
						row.weights += i * SEQ;
						assert_int_equal(digest(&row), want[s][b->first_sample + i - s * ROWS]);
					}
				}
			lwm_loader_close(l);
		}
}

/* Dealt in turn: microbatch after microbatch over the ranks, the rows of a step follow each other. */
static void test_dealt_in_turn(void **state)
{
	(void)state;
	enum { ROWS = 12 };
	static const int split[][2] = { { 1, 1 }, { 2, 1 }, { 3, 2 }, { 4, 3 }, { 6, 2 }, { 12, 1 } };
	for (size_t k = 0; k < sizeof split / sizeof *split; k++)
		for (int r = 0; r < split[k][0]; r++) {
			struct lwm_loader_cfg cfg = { .source = src, .nsources = 2, .seed = 5, .rows_per_step = ROWS, .rank = r,
						      .ranks = split[k][0], .micro_rows = split[k][1], .in_turn = true };
			struct lwm_loader *l;
			struct lwm_batch *b;
			OK(lwm_loader_open(&l, &cfg, &err));
			assert_int_equal(lwm_loader_micros(l), ROWS / split[k][0] / split[k][1]);
			for (int64_t m = 0; m < lwm_loader_micros(l); m++) {
				OK(lwm_loader_get(l, 2, m, &b, &err));
				assert_int_equal(b->first_sample, 2 * ROWS + (m * split[k][0] + r) * split[k][1]);
			}
			lwm_loader_close(l);
		}
}

static void test_resume_anywhere(void **state)
{
	(void)state;
	uint64_t want[20];
	struct lwm_batch *b;
	struct lwm_loader *l = open_loader(0, 1, 4, 4, true);
	for (int s = 0; s < 20; s++) {
		OK(lwm_loader_get(l, s, 0, &b, &err));
		want[s] = digest(b);
	}
	static const int order[] = { 7, 7, 3, 19, 0, 1, 2, 12 };
	for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
		OK(lwm_loader_get(l, order[i], 0, &b, &err));
		assert_int_equal(digest(b), want[order[i]]);
	}
	lwm_loader_close(l);
	l = open_loader(0, 1, 4, 4, true);
	OK(lwm_loader_get(l, 11, 0, &b, &err));
	assert_int_equal(digest(b), want[11]);
	lwm_loader_close(l);
}

static void test_every_row_once(void **state)
{
	(void)state;
	struct lwm_loader *l = open_loader(0, 1, 1, 1, false);
	int64_t rows = lwm_loader_info_of(l)->rows, na = l->set.source[0].rows;
	uint8_t *seen = calloc((size_t)rows, 1);
	bool moved = false;
	assert_non_null(seen);
	for (int64_t g = 0; g < 3 * rows; g++) {
		struct lwm_sample x = lwm_loader_sample(l, g);
		assert_int_equal(x.epoch, g / rows);
		seen[x.source * na + x.row]++;
		if (g % rows == rows - 1)
			for (int64_t i = 0; i < rows; i++)
				assert_int_equal(seen[i], x.epoch + 1);
		if (g < rows) {
			struct lwm_sample y = lwm_loader_sample(l, g + rows);
			moved = moved || y.row != x.row || y.source != x.source;
		}
	}
	assert_true(moved);
	free(seen);
	lwm_loader_close(l);
}

static void test_weighted_sources(void **state)
{
	(void)state;
	src[0].weight = 84;
	src[1].weight = 16;
	struct lwm_loader *l = open_loader(0, 1, 1, 1, false);
	int64_t count[2] = { 0 }, last[2] = { -1, -1 };
	for (int64_t g = 0; g < 20000; g++) {
		struct lwm_sample x = lwm_loader_sample(l, g);
		count[x.source]++;
		assert_true(x.row >= 0 && x.row < l->set.source[x.source].rows);
		last[x.source] = x.epoch > last[x.source] ? x.epoch : last[x.source];
		if (g == 9999)
			assert_int_equal(count[0], 8400);
	}
	assert_int_equal(count[0], 16800);
	assert_int_equal(count[1], 3200);
	for (int s = 0; s < 2; s++)
		assert_int_equal(last[s], (count[s] - 1) / l->set.source[s].rows);
	src[0].weight = src[1].weight = 0;
	lwm_loader_close(l);
}

/* Every label and weight from its definition, over the segments of the batch. */
static void test_labels_and_weights(void **state)
{
	(void)state;
	struct lwm_loader *l = open_loader(0, 1, 8, 8, false);
	struct lwm_batch *b;
	for (int s = 0; s < 10; s++) {
		OK(lwm_loader_get(l, s, 0, &b, &err));
		int64_t n = b->rows * b->seq, segments = 0, examples = 0, tokens = 0;
		double sum = 0;
		for (int64_t i = 0; i < n; i++) {
			bool start = b->segments[i] >= 0 && (i % SEQ == 0 || b->segments[i - 1] != b->segments[i]);
			if (b->segments[i] < 0) {
				assert_int_equal(b->tokens[i], 0);
				assert_int_equal(b->targets[i], -1);
				assert_true(b->weights[i] == 0);
				continue;
			}
			tokens++;
			bool next = (i + 1) % SEQ && b->segments[i + 1] == b->segments[i];
			assert_int_equal(b->targets[i], next ? b->tokens[i + 1] : -1);
			assert_int_equal(b->positions[i], start ? 0 : b->positions[i - 1] + 1);
			if (!next)
				assert_true(b->weights[i] == 0);
			if (!start)
				continue;
			assert_int_equal(b->segments[i], segments++);
			int64_t doc = -1, loss = 0, len = 1;
			while ((i + len) % SEQ && b->segments[i + len] == b->segments[i])
				len++;
			for (int64_t d = 0; d < 2 * DOCS && doc < 0; d++) /* documents are never cut here */
				if (fix_token(d, 0) == b->tokens[i] && (len < 2 || fix_token(d, 1) == b->tokens[i + 1]))
					doc = d;
			assert_true(doc >= 0);
			for (int64_t t = 1; t < len; t++)
				loss += fix_loss(doc, t);
			examples += loss > 0;
			for (int64_t t = 0; t + 1 < len; t++) {
				float want = fix_loss(doc, t + 1) ? 1.0f / (float)loss : 0;
				assert_true(b->weights[i + t] == want);
				sum += want;
			}
		}
		assert_int_equal(b->segments_n, segments);
		assert_int_equal(b->tokens_n, tokens);
		assert_true(b->norm == (double)examples);
		assert_true(fabs(sum - b->norm) < 1e-4 * b->norm); /* weights of an example add up to one */
		assert_int_equal(b->loss_vision, 0);
	}
	lwm_loader_close(l);
}

static void write_docs(const char *name, int64_t vision, const int32_t *tok, int64_t n)
{
	struct lwm_docs_meta meta = { .vocab_text = 100, .vocab_vision = vision, .tokenizer = "", .tool = "test",
				      .config = "", .policy = "none" };
	struct lwm_docs_writer *w;
	OK(lwm_docs_create(&w, in_scratch(name), &meta, true, &err));
	OK(lwm_docs_append(w, "d", NULL, tok, n, NULL, 0, &err));
	OK(lwm_docs_commit(w, &err));
}

/* A text shard and one with vision ids share rows; labels are counted by the modality of the target. */
static void test_modalities(void **state)
{
	(void)state;
	static const int32_t text[] = { 1, 5, 6, 7, 2 }, both[] = { 1, 100, 101, 611, 9, 2 };
	struct lwm_pack_source from = { .name = "x" };
	struct lwm_pack_stats st;
	struct lwm_loader *l;
	struct lwm_batch *b;
	write_docs("text.h5", 0, text, 5);
	write_docs("both.h5", 512, both, 6);
	OK(lwm_paths_add(&from.shards, in_scratch("text.h5"), &err));
	OK(lwm_paths_add(&from.shards, in_scratch("both.h5"), &err));
	struct lwm_pack_cfg pack = { .source = &from, .nsources = 1, .seq_length = 12, .tool = "test", .force = true,
				     .output = in_scratch("both.rows.h5") };
	OK(lwm_pack_run(&pack, &st, NULL, &err));
	assert_int_equal(st.rows, 1);
	struct lwm_loader_source one = { .name = "x" };
	OK(lwm_paths_add(&one.shards, in_scratch("both.rows.h5"), &err));
	struct lwm_loader_cfg cfg = { .source = &one, .nsources = 1, .rows_per_step = 1, .ranks = 1, .micro_rows = 1,
				      .weighting = LWM_PER_TOKEN };
	OK(lwm_loader_open(&l, &cfg, &err));
	assert_int_equal(lwm_loader_info_of(l)->vocab_text, 100);
	assert_int_equal(lwm_loader_info_of(l)->vocab, 612);
	OK(lwm_loader_get(l, 0, 0, &b, &err));
	assert_int_equal(b->loss_vision, 3);
	assert_int_equal(b->loss_text, 4 + 2);
	assert_true(b->norm == 9);
	assert_int_equal(b->tokens_n, 11);
	lwm_loader_close(l);
	lwm_paths_release(&one.shards);
	lwm_paths_release(&from.shards);
}

/* Of a row with a token more than is asked for the last one is a target only; a document that has just this one is none. */
static void test_one_token_more(void **state)
{
	(void)state;
	static const int32_t tok[5] = { 7, 8, 9, 20, 21 };
	static const struct lwm_segment seg[2][2] = { { { .start = 0, .len = 3 }, { .start = 3, .len = 2 } },
						      { { .start = 0, .len = 4 }, { .start = 4, .len = 1 } } };
	struct lwm_rows_meta m = { .seq = 5, .vocab_text = 100, .tokenizer = "", .tool = "test", .config = "", .weighting = "" };
	for (int k = 0; k < 2; k++) {
		struct lwm_loader_source one = { .name = "x" };
		struct lwm_rows_writer *w;
		struct lwm_loader *l;
		struct lwm_batch *b;
		OK(lwm_rows_create(&w, in_scratch("more.h5"), &m, true, &err));
		OK(lwm_rows_append(w, tok, seg[k], 2, NULL, 0, &err));
		OK(lwm_rows_commit(w, &err));
		OK(lwm_paths_add(&one.shards, in_scratch("more.h5"), &err));
		struct lwm_loader_cfg cfg = { .source = &one, .nsources = 1, .rows_per_step = 1, .ranks = 1, .micro_rows = 1,
					      .seq_length = 4 };
		OK(lwm_loader_open(&l, &cfg, &err));
		OK(lwm_loader_get(l, 0, 0, &b, &err));
		assert_int_equal(b->seq, 4);
		assert_int_equal(b->tokens_n, 4);
		assert_int_equal(b->segments_n, 2 - k);
		assert_true(b->norm == 2 - k);
		assert_int_equal(b->loss_text, 3);
		assert_int_equal(b->targets[3], k ? -1 : 21);
		assert_true(b->weights[3] == (k ? 0 : 1));
		lwm_loader_close(l);
		lwm_paths_release(&one.shards);
	}
}

static void test_refusals(void **state)
{
	(void)state;
	struct lwm_loader *l;
	struct lwm_loader_cfg cfg = { .source = src, .nsources = 2, .rows_per_step = 6, .ranks = 4, .micro_rows = 1 };
	lwm_err_clear(&err);
	assert_int_equal(lwm_loader_open(&l, &cfg, &err), -LWM_ECONFIG);
	assert_null(l);
	cfg.ranks = 2;
	cfg.micro_rows = 2;
	lwm_err_clear(&err);
	assert_int_equal(lwm_loader_open(&l, &cfg, &err), -LWM_ECONFIG);
	cfg.micro_rows = 3;
	cfg.seq_length = 2 * SEQ;
	lwm_err_clear(&err);
	assert_int_equal(lwm_loader_open(&l, &cfg, &err), -LWM_ECONFIG);
	cfg.seq_length = SEQ - 2;
	lwm_err_clear(&err);
	assert_int_equal(lwm_loader_open(&l, &cfg, &err), -LWM_ECONFIG);
	cfg.seq_length = SEQ;
	OK(lwm_loader_open(&l, &cfg, &err));
	struct lwm_batch *b;
	lwm_err_clear(&err);
	assert_int_equal(lwm_loader_get(l, 0, 1, &b, &err), -LWM_EINTERNAL);
	lwm_loader_close(l);
}

/* Shares that change. The counts of rows are those of a second program (Python, the same rule written anew with fractions). */
static void test_changing_shares(void **state)
{
	(void)state;
	enum { STEPS = 24, ROWS = 7 };
	static const int64_t want[STEPS] = { 5, 5, 4, 5, 4, 4, 4, 4, 3, 3, 2, 2, 2, 2, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0 };
	static const struct lwm_share_point a[] = { { 2, 1 }, { 10, 0.2 }, { 14, 0.2 }, { 18, 0 } };
	struct lwm_loader_source s[2] = { src[0], src[1] };
	struct lwm_loader_cfg cfg = { .source = s, .nsources = 2, .seed = 5, .rows_per_step = ROWS, .ranks = 1,
				      .micro_rows = ROWS };
	struct lwm_loader *l;
	struct lwm_batch *b;
	uint64_t digests[STEPS];
	int64_t before[2] = { 0, 0 };
	char content[33];
	s[0].point = a;
	s[0].npoints = 4;
	s[1].weight = 0.47;
	OK(lwm_loader_open(&l, &cfg, &err));
	for (int t = 0; t < STEPS; t++) {
		int64_t count[2] = { 0, 0 }, sum[2] = { 0, 0 };
		for (int i = 0; i < ROWS; i++) {
			struct lwm_sample x = lwm_loader_sample(l, t * ROWS + i);
			int64_t rows = l->set.source[x.source].rows;
			count[x.source]++;
			for (int64_t k = before[x.source];; k++) { /* which draw of its source it is: one of this step */
				assert_true(k < before[x.source] + ROWS);
				uint64_t stream = (uint64_t)(k / rows) << 16 | (uint64_t)x.source;
				if (x.epoch != k / rows || x.row != lwm_rng_permute(5, LWM_RNG_ORDER, stream, rows, k % rows))
					continue;
				sum[x.source] += k - before[x.source];
				break;
			}
		}
		assert_int_equal(count[0], want[t]);
		for (int k = 0; k < 2; k++) { /* each draw of the step once: 0 + 1 + ... */
			assert_int_equal(sum[k], count[k] * (count[k] - 1) / 2);
			before[k] += count[k];
		}
		OK(lwm_loader_get(l, t, 0, &b, &err));
		assert_int_equal(b->source_rows[0], want[t]);
		assert_int_equal(b->source_rows[1], ROWS - want[t]);
		digests[t] = digest(b);
	}
	lwm_loader_close(l);
	/* asked for in any order, read ahead */
	static const int order[] = { 23, 0, 7, 6, 22, 11, 11, 1 };
	cfg.prefetch = true;
	OK(lwm_loader_open(&l, &cfg, &err));
	for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
		OK(lwm_loader_get(l, order[i], 0, &b, &err));
		assert_true(digest(b) == digests[order[i]]);
		assert_int_equal(b->source_rows[0], want[order[i]]);
	}
	memcpy(content, lwm_loader_info_of(l)->content.hex, sizeof content);
	lwm_loader_close(l);
	s[0].npoints = 3; /* another schedule is other data */
	OK(lwm_loader_open(&l, &cfg, &err));
	assert_string_not_equal(content, lwm_loader_info_of(l)->content.hex);
	lwm_loader_close(l);
}

static void test_impossible_shares(void **state)
{
	(void)state;
	static const struct lwm_share_point none[] = { { 0, 1 }, { 5, 0 } }, back[] = { { 5, 1 }, { 5, 2 } };
	static const struct lwm_share_point less[] = { { 0, -1 } };
	static const struct {
		const struct lwm_share_point *p;
		int64_t n, once;
		double loss;
	} bad[] = { { none, 2, 0, 0 }, { back, 2, 0, 0 }, { less, 1, 0, 0 }, { none, 1, 4, 0 }, { NULL, 0, 0, -1 },
		  { NULL, 0, 0, NAN } };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct lwm_loader_source s[2] = { src[0], src[1] };
		struct lwm_loader_cfg cfg = { .source = s, .nsources = 2, .rows_per_step = 4, .ranks = 1, .micro_rows = 4,
					      .once = bad[i].once };
		struct lwm_loader *l;
		s[0].point = bad[i].p;
		s[0].npoints = bad[i].n;
		s[0].loss = bad[i].loss;
		lwm_err_clear(&err);
		assert_int_equal(lwm_loader_open(&l, &cfg, &err), -LWM_ECONFIG);
		assert_null(l);
	}
	lwm_err_clear(&err);
}

/* A source whose labels weigh v: its weights are v times what they were, and the norm counts its units v times. */
static void test_weighted_labels(void **state)
{
	(void)state;
	for (int by = LWM_PER_EXAMPLE; by <= LWM_PUBLISHED; by++) {
		struct lwm_loader_source s[2] = { src[0], src[1] };
		struct lwm_loader_cfg cfg = { .source = s, .nsources = 2, .seed = 5, .rows_per_step = 1, .ranks = 1,
					      .micro_rows = 1, .weighting = (enum lwm_weighting)by };
		struct lwm_loader *one, *two;
		struct lwm_batch *a, *b;
		int seen[2] = { 0, 0 };
		OK(lwm_loader_open(&one, &cfg, &err));
		s[1].loss = 0.25;
		OK(lwm_loader_open(&two, &cfg, &err));
		assert_string_not_equal(lwm_loader_info_of(one)->content.hex, lwm_loader_info_of(two)->content.hex);
		for (int t = 0; t < 30; t++) {
			int64_t source = lwm_loader_sample(one, t).source;
			float v = source ? 0.25f : 1;
			OK(lwm_loader_get(one, t, 0, &a, &err));
			OK(lwm_loader_get(two, t, 0, &b, &err));
			seen[source]++;
			assert_true(b->norm == a->norm * (double)v);
			for (int64_t i = 0; i < a->seq; i++)
				assert_true(b->weights[i] == a->weights[i] * v && b->targets[i] == a->targets[i]);
		}
		assert_true(seen[0] > 3 && seen[1] > 3);
		lwm_loader_close(one);
		lwm_loader_close(two);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranks_and_micro_batches), cmocka_unit_test(test_resume_anywhere),
		cmocka_unit_test(test_dealt_in_turn),
		cmocka_unit_test(test_every_row_once),          cmocka_unit_test(test_weighted_sources),
		cmocka_unit_test(test_labels_and_weights),      cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_changing_shares),         cmocka_unit_test(test_impossible_shares),
		cmocka_unit_test(test_weighted_labels),
		cmocka_unit_test(test_modalities),              cmocka_unit_test(test_one_token_more),
	};
	return cmocka_run_group_tests(tests, make_rows, drop_rows);
}
