/* Tile schedules of attention on GPUs: against the definition of who sees whom, pair by pair. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/cuda/attn_plan.c" /* not part of the library: it lies in the shared object */

enum layout { ASCENDING, DOCUMENTS, PADDED, ZIGZAG, SHUFFLED, SCATTERED, PADDING, LAYOUTS };

static uint32_t draw(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

static void shuffle(struct lk_seq *s, uint32_t *rng)
{
	for (int64_t i = s->n - 1; i > 0; i--) {
		int64_t j = draw(rng) % (uint32_t)(i + 1);
		int32_t p = s->pos[i], g = s->seg[i];

		s->pos[i] = s->pos[j];
		s->seg[i] = s->seg[j];
		s->pos[j] = p;
		s->seg[j] = g;
	}
}

/* Tokens [shift, shift + n) of a row in the given order. */
static struct lk_seq sequence(int64_t n, enum layout how, int shift, uint32_t *rng)
{
	struct lk_seq s = { .n = n, .pos = calloc((size_t)n + 1, 4), .seg = calloc((size_t)n + 1, 4) };
	int32_t doc = 0, at = 0, left = 40 + (int32_t)(draw(rng) % 500);

	assert_true(s.pos && s.seg);
	for (int64_t i = 0; i < n; i++, at++) {
		s.pos[i] = (int32_t)i + shift;
		if (how == ZIGZAG)
			s.pos[i] = (int32_t)(i < n / 2 ? i + shift : 5000 - shift + i);
		if (how == DOCUMENTS || how == PADDED) {
			if (!left--) {
				doc++;
				at = 0;
				left = (int32_t)(draw(rng) % 700);
			}
			s.pos[i] = at;
			s.seg[i] = how == PADDED && (draw(rng) % 200 == 0 || i > n - n / 5) ? -1 : doc;
		}
		if (how == SCATTERED) {
			s.pos[i] = (int32_t)(draw(rng) % 300);
			s.seg[i] = (int32_t)(draw(rng) % 5) - 1;
		}
		if (how == PADDING)
			s.seg[i] = -2;
	}
	if (how == SHUFFLED)
		shuffle(&s, rng);
	return s;
}

static void drop(struct lk_seq *s)
{
	free(s->pos);
	free(s->seg);
}

static int sees(const struct lk_seq *q, const struct lk_seq *k, int causal, int64_t t, int64_t s)
{
	return q->seg[t] >= 0 && q->seg[t] == k->seg[s] && (!causal || k->pos[s] <= q->pos[t]);
}

/* Number of pairs of tokens in which the query sees the key, and of pairs there are. */
static void count(const struct lk_seq *q, const struct lk_seq *k, int causal, int64_t q0, int bq, int64_t k0, int bk,
		  int64_t *seen, int64_t *of)
{
	*seen = *of = 0;
	for (int64_t t = q0; t < q0 + bq && t < q->n; t++)
		for (int64_t s = k0; s < k0 + bk && s < k->n; s++) {
			*seen += sees(q, k, causal, t, s);
			++*of;
		}
}

/* What the schedule says of a pair of tiles: -1 absent, else the mask. */
static int listed(const struct lk_sched *s, int64_t own, int64_t other)
{
	for (int32_t r = s->start[own]; r < s->start[own + 1]; r++)
		if (other >= s->runs[r].first && other < s->runs[r].end)
			return s->runs[r].mask;
	return -1;
}

static void check_lists(const struct lk_sched *s, int64_t others)
{
	char *met = calloc((size_t)s->tiles + 1, 1);
	int64_t pairs = 0, before = INT64_MAX;

	assert_non_null(met);
	assert_int_equal(s->start[0], 0);
	assert_int_equal(s->start[s->tiles], s->nruns);
	for (int64_t i = 0; i < s->tiles; i++) {
		int32_t tile = s->order[i];
		int64_t n = 0;

		assert_in_range(tile, 0, s->tiles - 1);
		assert_false(met[tile]++);
		for (int32_t r = s->start[tile]; r < s->start[tile + 1]; r++) {
			const struct lk_sched_run *run = &s->runs[r];

			assert_true(run->first < run->end && run->end <= others && run->pairs == run->end - run->first);
			assert_true(r == s->start[tile] || run[-1].end <= run->first);
			n += run->pairs;
		}
		assert_true(n <= before);
		before = n;
		pairs += n;
	}
	assert_int_equal(pairs, s->pairs);
	free(met);
}

/* exact: no pair is listed in vain, and none is masked that need not be. */
static void check_pair(const struct lk_seq *q, const struct lk_seq *k, int causal, int bq, int bk, int exact)
{
	struct lk_sched s[2];
	int64_t qt = (q->n + bq - 1) / bq, kt = (k->n + bk - 1) / bk;

	for (int by_key = 0; by_key < 2; by_key++) {
		assert_int_equal(lk_sched_make(&s[by_key], q, k, causal, bq, bk, by_key), 0);
		assert_int_equal(s[by_key].tiles, by_key ? kt : qt);
		check_lists(&s[by_key], by_key ? qt : kt);
	}
	assert_int_equal(s[0].pairs, s[1].pairs);
	for (int64_t i = 0; i < qt; i++)
		for (int64_t j = 0; j < kt; j++) {
			int64_t seen, of;
			int mask = listed(&s[0], i, j);

			count(q, k, causal, i * bq, bq, j * bk, bk, &seen, &of);
			assert_int_equal(mask, listed(&s[1], j, i));
			if (mask < 0)
				assert_int_equal(seen, 0);
			if (mask == 0)
				assert_true(seen == of && (j + 1) * bk <= k->n);
			if (exact && mask >= 0)
				assert_true(seen > 0);
			if (exact && seen == of && (j + 1) * bk <= k->n)
				assert_int_equal(mask, 0);
		}
	lk_sched_free(&s[0]);
	lk_sched_free(&s[1]);
}

static void test_every_layout(void **state)
{
	static const int64_t sizes[] = { 1, 63, 64, 65, 200, 1000, 3111 };
	uint32_t rng = 11;

	(void)state;
	for (int how = 0; how < LAYOUTS; how++)
		for (size_t a = 0; a < sizeof sizes / sizeof *sizes; a++)
			for (int causal = 0; causal < 2; causal++) {
				struct lk_seq q = sequence(sizes[a], how, (int)(draw(&rng) % 1000), &rng);
				struct lk_seq k = sequence(sizes[draw(&rng) % 7], how, (int)(draw(&rng) % 1000), &rng);
				// a row of one ascending segment has no pair of tiles that only seems to see
				int exact = how == ASCENDING;

				check_pair(&q, &k, causal, 128, 64, exact);
				check_pair(&q, &k, causal, 64, 128, exact);
				check_pair(&q, &q, causal, 48, 80, exact);
				drop(&q);
				drop(&k);
			}
}

static void test_no_keys_no_queries(void **state)
{
	uint32_t rng = 1;
	struct lk_seq none = sequence(0, ASCENDING, 0, &rng), some = sequence(100, ASCENDING, 0, &rng);

	(void)state;
	check_pair(&none, &some, 1, 64, 64, 1);
	check_pair(&some, &none, 0, 64, 64, 1);
	drop(&none);
	drop(&some);
}

/* Every second tile is of another segment: many short lists, none longer than what is allowed. */
static void test_lists_are_bounded(void **state)
{
	int64_t n = 64 * 2500;
	uint32_t rng = 1;
	struct lk_seq s = sequence(n, ASCENDING, 0, &rng), q = sequence(128, ASCENDING, 0, &rng);
	struct lk_sched d;
	int missing = 0;

	(void)state;
	for (int64_t i = 0; i < n; i++)
		s.seg[i] = (int32_t)(i / 64 % 2);
	assert_int_equal(lk_sched_make(&d, &q, &s, 0, 128, 64, 0), 0);
	assert_int_equal(d.tiles, 1);
	assert_in_range(d.nruns, 2, LIST_MOST);
	for (int64_t j = 0; j < 2500; j += 2)
		missing += listed(&d, 0, j) < 0 || (d.runs[d.nruns - 1].first < j && listed(&d, 0, j) != 1);
	assert_int_equal(missing, 0);
	lk_sched_free(&d);
	drop(&s);
	drop(&q);
}

/* What schedules are for: rows as they occur need few runs. */
static void test_usual_rows_are_short(void **state)
{
	int64_t n = 1 << 18, lists = n / 128;
	uint32_t rng = 5;
	struct lk_seq a = sequence(n, ASCENDING, 0, &rng), d = sequence(n, DOCUMENTS, 0, &rng);
	struct lk_sched s;

	(void)state;
	assert_int_equal(lk_sched_make(&s, &a, &a, 1, 128, 64, 0), 0);
	assert_true(s.nruns <= 2 * lists);
	assert_int_equal(s.pairs, lists * (lists + 1));
	assert_int_equal(s.order[0], lists - 1);
	lk_sched_free(&s);
	assert_int_equal(lk_sched_make(&s, &d, &d, 1, 128, 64, 1), 0);
	assert_true(s.nruns <= 3 * n / 64);
	assert_true(s.pairs < 16 * n / 64);
	lk_sched_free(&s);
	drop(&a);
	drop(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_layout),
		cmocka_unit_test(test_no_keys_no_queries),
		cmocka_unit_test(test_lists_are_bounded),
		cmocka_unit_test(test_usual_rows_are_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
