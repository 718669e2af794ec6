/* Pieces into rows, as full as they get (lwm_pack_best_fit). Pieces of a length are a list; lengths that occur are bits in a
 * tree of words, so that "the longest piece of at most x tokens" takes O(log cap). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/data/pack/pack.h"

/* A set of numbers 0..n-1 that finds the largest member <= x: 64-way tree of bits. */
enum { LEVELS = 6, PAIR_TRIES = 256 };
#define GOOD 0.995
struct bits {
	uint64_t *level[LEVELS];
	int top;
};

static int bits_init(struct bits *b, int64_t n)
{
	for (int i = 0; i < LEVELS; i++) {
		n = (n + 63) / 64;
		b->level[i] = calloc((size_t)n, 8);
		b->top = i;
		if (!b->level[i])
			return -1;
		if (n == 1)
			break;
	}
	return 0;
}

static void bits_release(struct bits *b)
{
	for (int i = 0; i < LEVELS; i++)
		free(b->level[i]);
}

static void bits_add(struct bits *b, int64_t x)
{
	for (int i = 0; i <= b->top; i++, x >>= 6)
		b->level[i][x >> 6] |= 1ULL << (x & 63);
}

static void bits_remove(struct bits *b, int64_t x)
{
	for (int i = 0; i <= b->top; i++, x >>= 6) {
		b->level[i][x >> 6] &= ~(1ULL << (x & 63));
		if (b->level[i][x >> 6])
			break;
	}
}

static int highest_bit(uint64_t m)
{
	return 63 - __builtin_clzll(m);
}

/* Largest member <= x, or -1; x may be -1. */
static int64_t bits_last(const struct bits *b, int64_t x)
{
	for (int i = 0; i <= b->top && x >= 0; i++) {
		int64_t w = x >> 6;
		uint64_t m = b->level[i][w] & (~0ULL >> (63 - (x & 63)));
		if (m) {
			x = w << 6 | highest_bit(m);
			while (i-- > 0)
				x = x << 6 | highest_bit(b->level[i][x]);
			return x;
		}
		x = w - 1;
	}
	return -1;
}

/* Pieces that are not placed yet, by length; lists are in order, so the first of all is the head of its list. */
struct fit {
	const int64_t *len;
	struct bits lengths;
	int64_t *head; /* [cap + 1] first piece of each length, -1 none */
	int64_t *next; /* [n] piece after this one, of the same length */
	int64_t *row;  /* [n] -1: not placed */
	int64_t first, left, tokens; /* first piece not placed, how many there are, their tokens */
};

static int64_t take_piece(struct fit *f, int64_t len, int64_t row)
{
	int64_t i = f->head[len];
	f->head[len] = f->next[i];
	if (f->head[len] < 0)
		bits_remove(&f->lengths, len);
	f->row[i] = row;
	f->left--;
	f->tokens -= len;
	while (f->left && f->row[f->first] >= 0)
		f->first++;
	return len;
}

/* Fills the room with the one or two pieces that together leave the least of it. x: the longest that fits. Returns
 * what they took. */
static int64_t take_best(struct fit *f, int64_t room, int64_t x, int64_t row)
{
	int64_t best = x, with = 0, left = room - x, a = x;
	for (int tries = 0; left && tries < PAIR_TRIES && a > 0 && 2 * a >= room - left; tries++) {
		int64_t b = bits_last(&f->lengths, room - a);
		if (b == a && f->next[f->head[a]] < 0) /* there is only one of it */
			b = bits_last(&f->lengths, a - 1);
		if (b > 0 && room - a - b < left) {
			best = a;
			with = b;
			left = room - a - b;
		}
		a = bits_last(&f->lengths, a - 1);
	}
	int64_t taken = take_piece(f, best, row);
	return with ? taken + take_piece(f, with, row) : taken;
}

/* in_order: the longest piece, then the middle of the row in order; else longest first throughout. */
static int64_t fill_rows(struct fit *f, int64_t cap, bool in_order)
{
	int64_t rows = 0;
	for (; f->left; rows++) {
		int64_t room = cap, x;
		if (in_order)
			room -= take_piece(f, bits_last(&f->lengths, cap), rows);
		while (f->left && (x = bits_last(&f->lengths, room)) > 0) {
			int64_t next = in_order ? f->len[f->first] : x;
			bool wide = in_order ? 2 * room * f->left > 5 * f->tokens : room >= 3 * x;
			room -= wide && next <= room ? take_piece(f, next, rows) : take_best(f, room, x, rows);
		}
	}
	return rows;
}

static int64_t fit_pieces(struct fit *f, int64_t n, int64_t cap, bool in_order)
{
	f->left = n;
	f->first = f->tokens = 0;
	memset(f->head, 0xff, (size_t)(cap + 1) * sizeof *f->head);
	for (int64_t i = n - 1; i >= 0; i--) { /* backwards: lists then are in order */
		f->row[i] = -1;
		f->tokens += f->len[i];
		f->next[i] = f->head[f->len[i]];
		if (f->head[f->len[i]] < 0)
			bits_add(&f->lengths, f->len[i]);
		f->head[f->len[i]] = i;
	}
	return fill_rows(f, cap, in_order);
}

int64_t lwm_pack_best_fit(const int64_t *len, int64_t n, int64_t cap, int64_t *row, struct lwm_err *e)
{
	struct fit f = { .len = len };
	int64_t rows = 0, total = 0;
	for (int64_t i = 0; i < n; i++) {
		if (len[i] < 1 || len[i] > cap)
			return lwm_fail(e, LWM_EINTERNAL, "a piece of %" PRId64 " tokens does not go into a row of %" PRId64,
					len[i], cap);
		total += len[i];
	}
	f.head = malloc((size_t)(cap + 1) * sizeof *f.head);
	f.next = malloc((size_t)(n + 1) * sizeof *f.next);
	f.row = malloc((size_t)(n + 1) * sizeof *f.row);
	if (!f.head || !f.next || !f.row || bits_init(&f.lengths, cap + 1) < 0) {
		rows = lwm_fail(e, LWM_EMEMORY, "out of memory to pack %" PRId64 " pieces", n);
		goto out;
	}
	rows = fit_pieces(&f, n, cap, true);
	memcpy(row, f.row, (size_t)n * sizeof *row);
	if ((double)total < GOOD * (double)rows * (double)cap) { /* few pieces a row: the other way may be better */
		int64_t other = fit_pieces(&f, n, cap, false);
		if (other < rows) {
			rows = other;
			memcpy(row, f.row, (size_t)n * sizeof *row);
		}
	}
out:
	bits_release(&f.lengths);
	free(f.head);
	free(f.next);
	free(f.row);
	return rows;
}
