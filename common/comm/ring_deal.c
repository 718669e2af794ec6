/* ring_deal.c - dealing the tokens of rows to the ranks of a ring; the scheme is in ring_deal.h. */
#include "common/comm/ring_deal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_GRAIN = 256, GRAINS = 256 /* a rank has as many at least */ };

/* A document, or a run of padding: what is left of it is [lo, hi). */
struct lwm_ring_doc {
	int64_t at, length, lo, hi;
	bool padding;
};

/* ---- work, in halves of pairs, so that means are integers ---- */

/* Twice the mean pairs per token of what is left. */
static int64_t mean_of(const struct lwm_ring_doc *x)
{
	return x->padding ? 0 : x->lo + x->hi + 1;
}

static int64_t left_of(const struct lwm_ring_doc *x)
{
	return x->hi - x->lo;
}

/* ---- documents ---- */

static int add_doc(struct lwm_ring_deal *d, int64_t *n, struct lwm_ring_doc doc, struct lwm_err *e)
{
	if (*n == d->docs_cap) {
		int64_t cap = d->docs_cap ? 2 * d->docs_cap : 64;
		struct lwm_ring_doc *v = realloc(d->docs, (size_t)cap * sizeof *v);

		if (!v)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " documents", cap);
		d->docs = v;
		d->docs_cap = cap;
	}
	d->docs[(*n)++] = doc;
	return 0;
}

static int find_docs(struct lwm_ring_deal *d, int64_t rows, int64_t seq, const int32_t *segments, int64_t *n, struct lwm_err *e)
{
	*n = 0;
	for (int64_t row = 0; row < rows; row++) {
		const int32_t *s = segments + row * seq;

		for (int64_t i = 0, end; i < seq; i = end) {
			for (end = i + 1; end < seq && s[end] == s[i];)
				end++;
			LWM_TRY(add_doc(d, n, (struct lwm_ring_doc){ row * seq + i, end - i, 0, end - i, s[i] < 0 }, e));
		}
	}
	return 0;
}

/* Densest first; padding last; ties by place, so that the order is one. */
static int by_density(const void *a, const void *b)
{
	const struct lwm_ring_doc *x = a, *y = b;

	if (mean_of(x) != mean_of(y))
		return mean_of(x) < mean_of(y) ? 1 : -1;
	return x->at < y->at ? -1 : x->at > y->at;
}

/* ---- runs ---- */

static int add_run(struct lwm_ring_deal *d, int64_t *n, int64_t from, int64_t count, int64_t step, struct lwm_err *e)
{
	if (!count)
		return 0;
	if (*n == d->run_cap) {
		int64_t cap = d->run_cap ? 2 * d->run_cap : 64;
		struct lwm_ring_run *v = realloc(d->run, (size_t)cap * sizeof *v);

		if (!v)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " runs of tokens", cap);
		d->run = v;
		d->run_cap = cap;
	}
	d->run[(*n)++] = (struct lwm_ring_run){ from, count, step };
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct lwm_ring_run *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

/* Sorts a rank's runs, the last ones of n, and joins those that touch. */
static void tidy_rank(struct lwm_ring_deal *d, int64_t first, int64_t *n)
{
	int64_t kept = first;

	qsort(d->run + first, (size_t)(*n - first), sizeof *d->run, by_place);
	for (int64_t i = first + 1; i < *n; i++) {
		struct lwm_ring_run *last = &d->run[kept];

		if (last->step == 1 && d->run[i].step == 1 && last->from + last->count == d->run[i].from)
			last->count += d->run[i].count;
		else
			d->run[++kept] = d->run[i];
	}
	*n = kept + 1;
}

/* ---- balanced ---- */

struct table { /* a deal under way */
	struct lwm_ring_deal *d;
	struct lwm_ring_doc *first, *end; /* all documents */
	struct lwm_ring_doc *up, *down;   /* the next one above the mean, and below it */
	int64_t runs;                     /* entries of d->run */
	int64_t tokens, work;             /* what the rank under way still wants; work is twice its pairs */
	int64_t mean;                     /* twice the pairs per token of all rows */
	int64_t grain;
};

/* Gives the rank `low` tokens from the beginning of what is left, and `high` from its end. */
static int take_ends(struct table *t, struct lwm_ring_doc *x, int64_t low, int64_t high, struct lwm_err *e)
{
	int64_t before = left_of(x) * mean_of(x);

	LWM_TRY(add_run(t->d, &t->runs, x->at + x->lo, low, 1, e));
	LWM_TRY(add_run(t->d, &t->runs, x->at + x->hi - high, high, 1, e));
	x->lo += low;
	x->hi -= high;
	t->tokens -= low + high;
	t->work -= before - left_of(x) * mean_of(x);
	return 0;
}

/* n tokens whose mean is that of what is left. */
static int take_evenly(struct table *t, struct lwm_ring_doc *x, int64_t n, struct lwm_err *e)
{
	return n == left_of(x) || x->padding ? take_ends(t, x, n, 0, e) : take_ends(t, x, n / 2, n - n / 2, e);
}

/* Twice the pairs of c tokens: u from the beginning of what is left of b, the others from the end of what is left of a. */
static int64_t work_of_ends(const struct lwm_ring_doc *a, const struct lwm_ring_doc *b, int64_t c, int64_t u)
{
	int64_t v = c - u;

	return (a->padding ? 0 : v * (2 * a->hi - v + 1)) + (b->padding ? 0 : u * (2 * b->lo + u + 1));
}

/* The u with which that is the rank's work; -1: there is none. a and b may be the same document. */
static int64_t cut_ends(const struct table *t, const struct lwm_ring_doc *a, const struct lwm_ring_doc *b)
{
	int64_t c = t->tokens, lo = a != b && c > left_of(a) ? c - left_of(a) : 0, hi = left_of(b) < c ? left_of(b) : c;

	if ((a == b && left_of(a) < c) || lo > hi || work_of_ends(a, b, c, lo) < t->work || work_of_ends(a, b, c, hi) > t->work)
		return -1;
	while (lo < hi) {
		int64_t u = lo + (hi - lo) / 2;

		if (work_of_ends(a, b, c, u) > t->work)
			lo = u + 1;
		else
			hi = u;
	}
	return lo;
}

/* A rank within one document, as long as there is one: *x, where the search goes on. */
static int take_alone(struct table *t, struct lwm_ring_doc **x, struct lwm_err *e)
{
	for (; *x < t->end; ++*x) {
		int64_t u = cut_ends(t, *x, *x), v = t->tokens - u;

		if (u >= 0 && (!u || u >= t->grain) && (!v || v >= t->grain))
			return take_ends(t, *x, u, v, e);
	}
	return 0;
}

/* The rest of a rank: x tokens of a, the others of b. Once from each where both stay on their side of the mean by that. */
static int take_pair(struct table *t, struct lwm_ring_doc *a, struct lwm_ring_doc *b, int64_t x, struct lwm_err *e)
{
	int64_t c = t->tokens, u = cut_ends(t, a, b);
	bool above = a->lo + a->hi - (c - u) + 1 >= t->mean, below = b->padding || b->lo + u + b->hi + 1 <= t->mean;

	if (u >= t->grain && c - u >= t->grain && above && below) {
		LWM_TRY(take_ends(t, a, 0, c - u, e));
		return take_ends(t, b, u, 0, e);
	}
	LWM_TRY(take_evenly(t, a, x, e));
	return take_evenly(t, b, c - x, e);
}

/* One document more, or what is left of the rank. */
static int take_some(struct table *t, struct lwm_err *e)
{
	int64_t c = t->tokens, span, x;
	struct lwm_ring_doc *a, *b;

	while (t->up >= t->first && !left_of(t->up))
		t->up--;
	while (t->down < t->end && !left_of(t->down))
		t->down++;
	a = t->up >= t->first ? t->up : t->down;
	b = t->down < t->end ? t->down : t->up;
	span = mean_of(a) - mean_of(b);
	if (span <= 0) /* the same, or alike */
		return take_evenly(t, a, left_of(a) < c ? left_of(a) : c, e);
	x = (t->work - c * mean_of(b) + span / 2) / span;
	x = x < t->grain ? 0 : x > c - t->grain ? c : x;
	if (x && left_of(a) <= c && left_of(a) < x + t->grain)
		return take_evenly(t, a, left_of(a), e);
	if (c - x && left_of(b) <= c && left_of(b) < c - x + t->grain)
		return take_evenly(t, b, left_of(b), e);
	if (!x || x == c)
		return take_evenly(t, x ? a : b, c, e);
	return take_pair(t, a, b, x, e);
}

static void sort_docs(struct table *t)
{
	qsort(t->first, (size_t)(t->end - t->first), sizeof *t->first, by_density);
	for (t->down = t->first; t->down < t->end && mean_of(t->down) >= t->mean;)
		t->down++;
	t->up = t->down - 1;
}

static int deal_balanced(struct lwm_ring_deal *d, int64_t rows, int64_t seq, const int32_t *segments, struct lwm_err *e)
{
	struct table t = { .d = d, .grain = d->share / GRAINS };
	struct lwm_ring_doc *alone;
	int64_t docs, work = 0;

	LWM_TRY(find_docs(d, rows, seq, segments, &docs, e));
	for (int64_t i = 0; i < docs; i++)
		work += left_of(&d->docs[i]) * mean_of(&d->docs[i]);
	t.first = alone = d->docs;
	t.end = d->docs + docs;
	t.mean = work / (rows * seq);
	t.grain = t.grain < 1 ? 1 : t.grain > LONGEST_GRAIN ? LONGEST_GRAIN : t.grain;
	sort_docs(&t);
	for (int r = 0; r < d->n; r++) {
		int64_t wanted = (work + (d->n - r) / 2) / (d->n - r);

		d->first[r] = t.runs;
		t.tokens = d->share;
		t.work = wanted;
		if (alone < t.end) {
			LWM_TRY(take_alone(&t, &alone, e));
			if (alone == t.end)
				sort_docs(&t);
		}
		while (t.tokens)
			LWM_TRY(take_some(&t, e));
		work -= wanted - t.work;
		tidy_rank(d, d->first[r], &t.runs);
	}
	d->first[d->n] = t.runs;
	return 0;
}

/* ---- layouts that do not look at the rows ---- */

static int deal_fixed(struct lwm_ring_deal *d, enum lwm_ring_layout layout, int64_t rows, int64_t seq, struct lwm_err *e)
{
	int64_t runs = 0, half = seq / d->n / 2, share = seq / d->n;

	for (int r = 0; r < d->n; r++) {
		d->first[r] = runs;
		for (int64_t row = 0; row < rows; row++) {
			int64_t at = row * seq;

			if (layout == LWM_RING_ZIGZAG && d->n > 1) {
				LWM_TRY(add_run(d, &runs, at + r * half, half, 1, e));
				LWM_TRY(add_run(d, &runs, at + (2 * d->n - 1 - r) * half, half, 1, e));
			} else if (layout == LWM_RING_STRIPED) {
				LWM_TRY(add_run(d, &runs, at + r, share, d->n, e));
			} else {
				LWM_TRY(add_run(d, &runs, at + r * share, share, 1, e));
			}
		}
		tidy_rank(d, d->first[r], &runs);
	}
	d->first[d->n] = runs;
	return 0;
}

static int reserve_ranks(struct lwm_ring_deal *d, int n, struct lwm_err *e)
{
	int64_t *v;

	if (n <= d->first_cap)
		return 0;
	v = realloc(d->first, ((size_t)n + 1) * sizeof *v);
	if (!v)
		return lwm_fail(e, LWM_EMEMORY, "out of memory to deal rows to %d ranks", n);
	d->first = v;
	d->first_cap = n;
	return 0;
}

int lwm_ring_deal_make(struct lwm_ring_deal *d, enum lwm_ring_layout layout, int64_t rows, int64_t seq, const int32_t *segments,
		       int n, struct lwm_err *e)
{
	LWM_TRY(lwm_ring_check(layout, seq, n, e));
	LWM_TRY(reserve_ranks(d, n, e));
	d->n = n;
	d->share = rows * (seq / n);
	if (layout == LWM_RING_BALANCED && n > 1)
		return deal_balanced(d, rows, seq, segments, e);
	return deal_fixed(d, layout, rows, seq, e);
}

void lwm_ring_deal_release(struct lwm_ring_deal *d)
{
	free(d->docs);
	free(d->run);
	free(d->first);
	memset(d, 0, sizeof *d);
}
