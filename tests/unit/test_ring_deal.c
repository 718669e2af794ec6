/* test_ring_deal.c - dealing packed rows to the ranks of a ring: everyone has as many tokens and as much to do, every token is
 * dealt once, short documents stay whole; and how that compares with MagiAttention's rule, in balance and in rows of keys and
 * values that travel. The tables that it prints are the figures of common/comm/README.md. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/comm/ring_deal.h"

enum { MOST_RANKS = 64, ROWS_EACH = 6 };

/* ---- rows ---- */

static uint64_t random_state;

static double draw_unit(void) /* xorshift64: the same rows everywhere */
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (double)(random_state >> 11) / 9007199254740992.0;
}

struct kind {
	const char *name;
	int64_t seq, shortest, longest; /* seq 0: 8,192 tokens a rank, documents of 256 tokens to a quarter of the row */
	bool even;                      /* lengths even between the two, else their logarithms are */
	double padding;                 /* share of the row */
};
static const struct kind kinds[] = {
	{ "one document", 131072, 131072, 131072, true, 0 },
	{ "books of 10-100K in 128K", 131072, 10000, 100000, true, 0 },
	{ "100-200K in 512K", 524288, 100000, 200000, true, 0 },
	{ "4-64K in 1M", 1048576, 4096, 65536, false, 0 },
	{ "8K a rank, up to a quarter", 0, 0, 0, false, 0 },
	{ "1-2K in 128K", 131072, 1024, 2048, true, 0 },
	{ "100-300 in 128K, a tenth padding", 131072, 100, 300, true, 0.1 },
};
enum { N_KINDS = sizeof kinds / sizeof *kinds, MAGI_KIND = 4 };

struct row {
	int64_t seq, docs;
	int32_t *seg, *pos;
};

static struct row draw_row(const struct kind *k, int n)
{
	struct row r = { .seq = k->seq ? k->seq / n * n : (int64_t)8192 * n };
	int64_t shortest = k->seq ? k->shortest : 256, longest = k->seq ? k->longest : r.seq / 4, at = 0;
	int64_t full = r.seq - (int64_t)(k->padding * (double)r.seq);
	r.seg = malloc((size_t)r.seq * sizeof *r.seg);
	r.pos = malloc((size_t)r.seq * sizeof *r.pos);
	assert_true(r.seg && r.pos);
	for (; at < full; r.docs++) {
		double u = draw_unit(), lo = (double)shortest, hi = (double)longest;
		int64_t length = (int64_t)(k->even ? lo + u * (hi - lo) : lo * pow(hi / lo, u));
		for (int64_t i = 0; i < length && at < full; i++, at++) {
			r.seg[at] = (int32_t)r.docs;
			r.pos[at] = (int32_t)i;
		}
	}
	for (; at < r.seq; at++) {
		r.seg[at] = -1;
		r.pos[at] = 0;
	}
	return r;
}

static void free_row(struct row *r)
{
	free(r->seg);
	free(r->pos);
}

/* ---- what a deal amounts to ---- */

struct score {
	double balance; /* mean / max of visible pairs over ranks */
	double rows;    /* of keys and values that travel, per token of the row: each to every other rank that sees it */
	double pieces;  /* of a rank */
	double shares;  /* ranks that a document is on, the mean over documents */
	int64_t cut;    /* documents on several ranks */
};

/* Counted token by token, from the definition of who sees whom. */
static struct score score_deal(const struct lwm_ring_deal *d, const struct row *r)
{
	struct score s = { .pieces = (double)d->first[d->n] / d->n };
	int64_t *top = malloc((size_t)(r->docs + 1) * sizeof *top), *own = malloc((size_t)(r->docs + 1) * sizeof *own);
	int *on = calloc((size_t)r->docs + 1, sizeof *on);
	double most = 0, sum = 0;
	assert_true(top && own && on);
	for (int rank = 0; rank < d->n; rank++) {
		double pairs = 0;
		for (int64_t i = 0; i < r->docs; i++) {
			top[i] = -1;
			own[i] = 0;
		}
		for (int64_t k = d->first[rank]; k < d->first[rank + 1]; k++)
			for (int64_t i = 0; i < d->run[k].count; i++) {
				int64_t g = d->run[k].from + i * d->run[k].step;
				if (r->seg[g] < 0)
					continue;
				pairs += r->pos[g] + 1;
				own[r->seg[g]]++;
				if (r->pos[g] > top[r->seg[g]])
					top[r->seg[g]] = r->pos[g];
			}
		for (int64_t i = 0; i < r->docs; i++) {
			s.rows += top[i] < 0 ? 0 : (double)(top[i] + 1 - own[i]) / (double)r->seq;
			on[i] += top[i] >= 0;
		}
		sum += pairs;
		most = pairs > most ? pairs : most;
	}
	for (int64_t i = 0; i < r->docs; i++) {
		s.cut += on[i] > 1;
		s.shares += (double)on[i] / (double)r->docs;
	}
	s.balance = sum / d->n / most;
	free(top);
	free(own);
	free(on);
	return s;
}

static void deal_row(struct lwm_ring_deal *d, enum lwm_ring_layout layout, const struct row *r, int n)
{
	struct lwm_err e = { 0 };
	if (lwm_ring_deal_make(d, layout, 1, r->seq, r->seg, n, &e))
		fail_msg("%s", e.msg);
}

/* Each token once, as many on every rank, in rising order, runs that do not touch. */
static void check_partition(const struct lwm_ring_deal *d, int64_t tokens)
{
	char *seen = calloc((size_t)tokens, 1);
	assert_non_null(seen);
	assert_int_equal(d->share * d->n, tokens);
	for (int rank = 0; rank < d->n; rank++) {
		int64_t last = -2, count = 0;
		for (int64_t k = d->first[rank]; k < d->first[rank + 1]; k++) {
			const struct lwm_ring_run *u = &d->run[k];
			assert_true(u->count > 0 && u->from >= 0 && u->from + (u->count - 1) * u->step < tokens);
			assert_true(u->step > 1 ? u->from > last : u->from > last + 1);
			for (int64_t i = 0; i < u->count; i++)
				assert_int_equal(seen[u->from + i * u->step]++, 0);
			count += u->count;
			last = u->from + (u->count - 1) * u->step;
		}
		assert_int_equal(count, d->share);
	}
	free(seen);
}

/* ---- MagiAttention's dispatch ---- */

/* Its rule in v1.1.1: chunks of equal length, the largest areas first, each to the bucket with the smallest area that still has
 * room; buckets end with equally many chunks. */
struct chunk {
	int64_t at;
	double area;
};

static int larger_area(const void *a, const void *b)
{
	const struct chunk *x = a, *y = b;
	if (x->area != y->area)
		return x->area < y->area ? 1 : -1;
	return x->at < y->at ? -1 : 1;
}

static int earlier(const void *a, const void *b)
{
	const struct lwm_ring_run *x = a, *y = b;
	return x->from < y->from ? -1 : 1;
}

static void deal_magi(struct lwm_ring_deal *d, const struct row *r, int n, int64_t length)
{
	int64_t chunks = r->seq / length, each = chunks / n, held[MOST_RANKS] = { 0 };
	struct chunk *c = calloc((size_t)chunks, sizeof *c);
	double area[MOST_RANKS] = { 0 };
	*d = (struct lwm_ring_deal){ .n = n, .share = r->seq / n };
	d->run = calloc((size_t)chunks, sizeof *d->run);
	d->first = calloc((size_t)n + 1, sizeof *d->first);
	assert_true(c && d->run && d->first && chunks == each * n);
	for (int64_t i = 0; i < chunks; i++) {
		c[i].at = i * length;
		for (int64_t k = c[i].at; k < c[i].at + length; k++)
			c[i].area += r->seg[k] < 0 ? 0 : r->pos[k] + 1;
	}
	qsort(c, (size_t)chunks, sizeof *c, larger_area);
	for (int64_t i = 0; i < chunks; i++) {
		int to = -1;
		for (int b = 0; b < n; b++)
			if (held[b] < each && (to < 0 || area[b] < area[to]))
				to = b;
		d->run[to * each + held[to]++] = (struct lwm_ring_run){ c[i].at, length, 1 };
		area[to] += c[i].area;
	}
	for (int b = 0; b <= n; b++)
		d->first[b] = b * each;
	for (int b = 0; b < n; b++)
		qsort(d->run + b * each, (size_t)each, sizeof *d->run, earlier);
	free(c);
}

/* ---- tests ---- */

/* Figures of ROWS_EACH rows: means, but the worst balance. */
struct figures {
	double worst, rows, pieces;
};

static void add_score(struct figures *f, const struct score *s)
{
	f->worst = f->rows == 0 && f->pieces == 0 ? s->balance : fmin(f->worst, s->balance);
	f->rows += s->rows / ROWS_EACH;
	f->pieces += s->pieces / ROWS_EACH;
}

static void check_kind(const struct kind *k, int n)
{
	struct figures own = { 0 }, zigzag = { 0 }, magi = { 0 };
	struct lwm_ring_deal d = { 0 }, other = { 0 }, again = { 0 };
	bool whole_chunks = (n & (n - 1)) == 0;
	random_state = 88172645463325252u;
	for (int i = 0; i < ROWS_EACH; i++) {
		struct row r = draw_row(k, n);
		deal_row(&d, LWM_RING_BALANCED, &r, n);
		check_partition(&d, r.seq);
		struct score s = score_deal(&d, &r);
		add_score(&own, &s);
		if (s.balance < 0.97)
			fail_msg("%s, %d ranks: balance %.4f", k->name, n, s.balance);
		assert_true(s.cut <= 2 * n); /* all others are whole on one rank */
		deal_row(&again, LWM_RING_BALANCED, &r, n); /* the same whether memory is new or used */
		assert_int_equal(again.first[n], d.first[n]);
		assert_memory_equal(again.first, d.first, ((size_t)n + 1) * sizeof *d.first);
		assert_memory_equal(again.run, d.run, (size_t)d.first[n] * sizeof *d.run);
		lwm_ring_deal_release(&again);
		if (whole_chunks) {
			deal_row(&other, LWM_RING_ZIGZAG, &r, n);
			s = score_deal(&other, &r);
			add_score(&zigzag, &s);
			lwm_ring_deal_release(&other);
			deal_magi(&other, &r, n, r.seq / n >= 8192 ? 512 : r.seq / n / 16);
			s = score_deal(&other, &r);
			add_score(&magi, &s);
			lwm_ring_deal_release(&other);
			assert_true(own.rows <= magi.rows);
		}
		free_row(&r);
	}
	lwm_ring_deal_release(&d);
	if (whole_chunks)
		print_message("| %s | %d | %.4f | %.2f | %.1f | %.4f | %.2f | %.3f | %.2f |\n", k->name, n, own.worst, own.rows,
			      own.pieces, magi.worst, magi.rows, zigzag.worst, zigzag.rows);
	if (k == &kinds[MAGI_KIND] && whole_chunks && (own.worst < 0.995 || own.rows * 3 > magi.rows))
		fail_msg("%d ranks: balance %.4f, %.2f rows a token; MagiAttention's rule: %.4f, %.2f", n, own.worst, own.rows, magi.worst,
			 magi.rows);
}

static void work_is_equal_on_all_ranks(void **state)
{
	static const int ranks[] = { 2, 3, 4, 5, 7, 8, 12, 16, 31, 32, 48, 64 };
	(void)state;
	print_message("| rows | ranks | balance | rows sent a token | pieces a rank | Magi: balance | rows sent | zigzag: balance | rows sent |\n");
	for (int i = 0; i < N_KINDS; i++)
		for (size_t n = 0; n < sizeof ranks / sizeof *ranks; n++)
			if (i != MAGI_KIND || ranks[n] >= 8)
				check_kind(&kinds[i], ranks[n]);
}

/* Numbers written down: runs of each rank. */
static void deals_that_are_known(void **state)
{
	static const struct {
		int length[8], n;
		int64_t rank, from[2], count[2];
	} want[] = {
		{ { 128, 128, 128, 128 }, 4, 2, { 256, 0 }, { 128, 0 } },   /* a document a rank */
		{ { 64, 64, 64, 64 }, 2, 0, { 128, 0 }, { 128, 0 } },       /* two each */
		{ { 512 }, 4, 0, { 0, 448 }, { 64, 64 } },                  /* zigzag */
		{ { 512 }, 4, 3, { 192, 0 }, { 128, 0 } },
		{ { -512 }, 4, 1, { 256, 0 }, { 128, 0 } },                 /* nothing but padding */
		{ { 256, -256 }, 2, 0, { 181, 0 }, { 256, 0 } },            /* the last 75 tokens have half the pairs */
	};
	(void)state;
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		int32_t seg[512];
		int64_t at = 0;
		for (int k = 0; want[i].length[k]; k++)
			for (int j = 0; j < abs(want[i].length[k]); j++)
				seg[at++] = want[i].length[k] < 0 ? -1 : k;
		struct row r = { .seq = at, .seg = seg };
		struct lwm_ring_deal d = { 0 };
		deal_row(&d, LWM_RING_BALANCED, &r, want[i].n);
		int64_t k = d.first[want[i].rank], runs = want[i].count[1] ? 2 : 1;
		for (int64_t j = 0; j < d.first[want[i].rank + 1] - k; j++)
			if (j >= runs || d.run[k + j].from != want[i].from[j] || d.run[k + j].count != want[i].count[j])
				fail_msg("row %zu, run %d: %d tokens from %d", i, (int)j, (int)d.run[k + j].count, (int)d.run[k + j].from);
		lwm_ring_deal_release(&d);
	}
}

/* Layouts that do not look at the rows are dealt as lwm_ring_global says, row by row; one document as zigzag. */
static void other_layouts_are_those_of_the_mesh(void **state)
{
	enum { SEQ = 4096, ROWS = 3 };
	int32_t *seg = calloc(SEQ * ROWS, sizeof *seg);
	struct lwm_ring_deal d = { 0 };
	struct lwm_err e = { 0 };
	(void)state;
	assert_non_null(seg);
	for (int layout = LWM_RING_CONTIGUOUS; layout <= LWM_RING_BALANCED; layout++)
		for (int n = 1; n <= MOST_RANKS; n *= 2) {
			int64_t rows = layout == LWM_RING_BALANCED ? 1 : ROWS;
			enum lwm_ring_layout as = layout == LWM_RING_BALANCED ? LWM_RING_ZIGZAG : (enum lwm_ring_layout)layout;
			assert_int_equal(lwm_ring_deal_make(&d, (enum lwm_ring_layout)layout, rows, SEQ, seg, n, &e), 0);
			check_partition(&d, rows * SEQ);
			for (int rank = 0; rank < n; rank++) {
				int64_t at = 0;
				for (int64_t k = d.first[rank]; k < d.first[rank + 1]; k++)
					for (int64_t i = 0; i < d.run[k].count; i++, at++) {
						int64_t row = at / (SEQ / n), local = at % (SEQ / n);
						assert_int_equal(d.run[k].from + i * d.run[k].step,
								 row * SEQ + lwm_ring_global(as, SEQ, n, rank, local));
					}
			}
		}
	assert_int_equal(lwm_ring_deal_make(&d, LWM_RING_BALANCED, 1, 100, seg, 8, &e), -LWM_ECONFIG);
	lwm_ring_deal_release(&d);
	free(seg);
}

/* Rows of a microbatch are dealt together: a row of one document and a row of short ones balance each other. */
static void rows_are_dealt_together(void **state)
{
	enum { SEQ = 32768, ROWS = 2 };
	const size_t bytes = SEQ * ROWS * sizeof(int32_t);
	struct row r = { .seq = SEQ * ROWS, .seg = malloc(bytes), .pos = malloc(bytes) };
	struct lwm_ring_deal d = { 0 };
	struct lwm_err e = { 0 };
	(void)state;
	assert_true(r.seg && r.pos);
	for (int32_t i = 0; i < SEQ; i++) {
		r.seg[i] = 0;
		r.pos[i] = i;
		r.seg[SEQ + i] = 1 + i / 512;
		r.pos[SEQ + i] = i % 512;
	}
	r.docs = 1 + SEQ / 512;
	for (int n = 2; n <= MOST_RANKS; n *= 2) {
		assert_int_equal(lwm_ring_deal_make(&d, LWM_RING_BALANCED, ROWS, SEQ, r.seg, n, &e), 0);
		check_partition(&d, r.seq);
		struct score s = score_deal(&d, &r);
		assert_true(s.balance > 0.99);
		assert_true(s.cut <= 1 + n);
	}
	lwm_ring_deal_release(&d);
	free_row(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(work_is_equal_on_all_ranks),
					    cmocka_unit_test(deals_that_are_known),
					    cmocka_unit_test(other_layouts_are_those_of_the_mesh),
					    cmocka_unit_test(rows_are_dealt_together) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
