#include <stdlib.h>
#include <string.h>

#include "common/data/pack.h"

/* A set of numbers 0..n-1 that finds the smallest member >= x: 64-way tree of bits. */
enum { LEVELS = 6 };
struct bits {
	uint64_t *level[LEVELS];
	int64_t words[LEVELS];
	int top;
};

static int bits_init(struct bits *b, int64_t n)
{
	b->top = 0;
	for (int i = 0; i < LEVELS; i++) {
		n = (n + 63) / 64;
		b->words[i] = n;
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

/* Smallest member >= x, or -1. */
static int64_t bits_next(const struct bits *b, int64_t x)
{
	for (int i = 0; i <= b->top; i++) {
		int64_t w = x >> 6;
		if (w >= b->words[i])
			return -1;
		uint64_t m = b->level[i][w] & (~0ULL << (x & 63));
		if (m) {
			x = w << 6 | __builtin_ctzll(m);
			while (i-- > 0)
				x = x << 6 | __builtin_ctzll(b->level[i][x]);
			return x;
		}
		x = w + 1;
	}
	return -1;
}

struct fit {
	struct bits rooms;              /* rooms that some open row has */
	int64_t *head, *tail;           /* [cap + 1] first and last row of each room, -1 none */
	int64_t *next;                  /* [rows] row after this one, of the same room */
	int64_t *order, *count;         /* pieces by falling length */
};

static void put_row(struct fit *f, int64_t row, int64_t room)
{
	f->next[row] = -1;
	if (f->head[room] < 0) {
		f->head[room] = row;
		bits_add(&f->rooms, room);
	} else {
		f->next[f->tail[room]] = row;
	}
	f->tail[room] = row;
}

static int64_t take_row(struct fit *f, int64_t room)
{
	int64_t row = f->head[room];
	f->head[room] = f->next[row];
	if (f->head[room] < 0)
		bits_remove(&f->rooms, room);
	return row;
}

/* Stable, longest first. */
static void sort(struct fit *f, const int64_t *len, int64_t n, int64_t cap)
{
	memset(f->count, 0, (size_t)(cap + 2) * sizeof *f->count);
	for (int64_t i = 0; i < n; i++)
		f->count[cap - len[i] + 1]++;
	for (int64_t k = 1; k <= cap; k++)
		f->count[k] += f->count[k - 1];
	for (int64_t i = 0; i < n; i++)
		f->order[f->count[cap - len[i]]++] = i;
}

static int64_t fit(struct fit *f, const int64_t *len, int64_t n, int64_t cap, int64_t *row)
{
	int64_t rows = 0;
	sort(f, len, n, cap);
	for (int64_t k = 0; k < n; k++) {
		int64_t i = f->order[k], room = bits_next(&f->rooms, len[i]);
		if (room < 0) {
			row[i] = rows++;
			room = cap;
		} else {
			row[i] = take_row(f, room);
		}
		if (room > len[i])
			put_row(f, row[i], room - len[i]);
	}
	return rows;
}

int64_t lwm_pack_best_fit(const int64_t *len, int64_t n, int64_t cap, int64_t *row, struct lwm_err *e)
{
	struct fit f = { 0 };
	int64_t rows;
	for (int64_t i = 0; i < n; i++)
		if (len[i] < 1 || len[i] > cap)
			return lwm_fail(e, LWM_EINTERNAL, "a piece of %lld tokens does not go into a row of %lld",
					(long long)len[i], (long long)cap);
	f.head = malloc((size_t)(cap + 1) * sizeof *f.head);
	f.tail = malloc((size_t)(cap + 1) * sizeof *f.tail);
	f.next = malloc((size_t)(n + 1) * sizeof *f.next);
	f.order = malloc((size_t)(n + 1) * sizeof *f.order);
	f.count = malloc((size_t)(cap + 2) * sizeof *f.count);
	if (!f.head || !f.tail || !f.next || !f.order || !f.count || bits_init(&f.rooms, cap + 1) < 0) {
		rows = lwm_fail(e, LWM_EMEMORY, "out of memory to pack %lld pieces", (long long)n);
	} else {
		memset(f.head, 0xff, (size_t)(cap + 1) * sizeof *f.head);
		rows = fit(&f, len, n, cap, row);
	}
	bits_release(&f.rooms);
	free(f.head);
	free(f.tail);
	free(f.next);
	free(f.order);
	free(f.count);
	return rows;
}
