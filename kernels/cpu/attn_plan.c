/* attn_plan.c - who sees whom: cuts queries and keys into tiles and finds which pairs of tiles need work.
 *
 * Made once per call and shared by all heads. A group of queries ends where a segment ends, unless that would leave it
 * narrower than a vector, and so does a tile of keys: packed documents cost what they cost alone, and tiny ones share
 * lanes.
 */
#include <stdlib.h>

#include "kernels/cpu/attn_int.h"

static struct lk_attn_sum summarize(const struct lk_seq *s, int64_t from, int64_t to)
{
	struct lk_attn_sum r = { INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN, 1 };

	for (int64_t i = from; i < to; i++) {
		int32_t pos = s->pos[i], seg = s->seg[i];

		if (seg < 0) {
			r.plain = 0;
			continue;
		}
		r.pos_min = pos < r.pos_min ? pos : r.pos_min;
		r.pos_max = pos > r.pos_max ? pos : r.pos_max;
		r.seg_min = seg < r.seg_min ? seg : r.seg_min;
		r.seg_max = seg > r.seg_max ? seg : r.seg_max;
	}
	r.plain = r.plain && r.seg_min == r.seg_max;
	return r;
}

enum { FAR = 64 }; /* positions further apart than this are different parts of a row, as a zigzag split leaves them */

/* End of the run that starts at `from`: at most `most` tokens, at least `least` unless the sequence ends. */
static int64_t run_end(const struct lk_seq *s, int64_t from, int most, int least)
{
	int64_t end = from + most < s->n ? from + most : s->n;

	for (int64_t i = from + least; i < end; i++)
		if (s->seg[i] != s->seg[i - 1] || llabs((long long)s->pos[i] - s->pos[i - 1]) > FAR)
			return i;
	return end;
}

static void make_groups(struct lk_attn_plan *p, int vec)
{
	const struct lk_seq *qs = p->a->qs;

	p->ngroups = 0;
	for (int64_t q = 0, end; q < qs->n; q = end) {
		end = run_end(qs, q, p->gw, vec);
		p->groups[p->ngroups++] =
			(struct lk_attn_group){ q, (int32_t)(end - q), summarize(qs, q, end) };
	}
}

static void make_ktiles(struct lk_attn_plan *p)
{
	const struct lk_seq *ks = p->a->ks;
	int64_t at = 0;

	p->nktiles = 0;
	for (int64_t k = 0, end; k < ks->n; k = end) {
		end = run_end(ks, k, p->bk, LK_ATTN_LEAST);
		p->ktiles[p->nktiles++] =
			(struct lk_attn_ktile){ k, at, (int32_t)(end - k), summarize(ks, k, end) };
		at += (end - k + LK_ATTN_STEP - 1) / LK_ATTN_STEP * LK_ATTN_STEP;
	}
}

static struct lk_attn_sum unite_tiles(const struct lk_attn_plan *p, const struct lk_attn_qtile *t)
{
	struct lk_attn_sum r = p->groups[t->g0].sum;

	for (int32_t g = t->g0 + 1; g < t->g1; g++) {
		const struct lk_attn_sum *s = &p->groups[g].sum;

		r.pos_min = s->pos_min < r.pos_min ? s->pos_min : r.pos_min;
		r.pos_max = s->pos_max > r.pos_max ? s->pos_max : r.pos_max;
		r.seg_min = s->seg_min < r.seg_min ? s->seg_min : r.seg_min;
		r.seg_max = s->seg_max > r.seg_max ? s->seg_max : r.seg_max;
	}
	r.plain = 0;
	return r;
}

static void measure_tile(const struct lk_attn_plan *p, struct lk_attn_qtile *t)
{
	struct lk_attn_sum q = unite_tiles(p, t);

	t->lo = t->hi = 0;
	t->pairs = 0;
	for (int64_t k = 0; k < p->nktiles; k++) {
		if (lk_attn_sight_of(&q, &p->ktiles[k].sum, p->a->causal) == LK_SEES_NONE)
			continue;
		if (!t->pairs++)
			t->lo = k;
		t->hi = k + 1;
	}
}

/* Costly first, so that no thread ends up alone with a long tile; ties in order, so that the plan is a function of its
 * input alone. */
static int costlier(const void *x, const void *y)
{
	const struct lk_attn_qtile *a = *(const struct lk_attn_qtile *const *)x;
	const struct lk_attn_qtile *b = *(const struct lk_attn_qtile *const *)y;

	if (a->pairs != b->pairs)
		return a->pairs < b->pairs ? 1 : -1;
	return a < b ? -1 : a > b;
}

static void make_qtiles(struct lk_attn_plan *p)
{
	p->nqtiles = 0;
	for (int64_t g = 0; g < p->ngroups; g += p->tile_groups) {
		struct lk_attn_qtile *t = &p->qtiles[p->nqtiles];
		int64_t end = g + p->tile_groups < p->ngroups ? g + p->tile_groups : p->ngroups;

		t->g0 = (int32_t)g;
		t->g1 = (int32_t)end;
		measure_tile(p, t);
		p->order[p->nqtiles++] = t;
	}
	for (int64_t i = p->nqtiles - 1, later = p->nktiles; i >= 0; i--) {
		struct lk_attn_qtile *t = &p->qtiles[i];

		t->later = later;
		later = t->pairs && t->lo < later ? t->lo : later;
	}
	qsort(p->order, (size_t)p->nqtiles, sizeof *p->order, costlier);
}

static size_t most_groups(const struct lk_attn *a, int vec)
{
	return (size_t)(a->qs->n / vec + 1);
}

size_t lk_attn_plan_bytes(const struct lk_attn *a, int vec)
{
	size_t g = most_groups(a, vec), k = (size_t)(a->ks->n / LK_ATTN_LEAST + 1);

	return g * (sizeof(struct lk_attn_group) + sizeof(struct lk_attn_qtile) + sizeof(void *)) +
	       k * sizeof(struct lk_attn_ktile) + 64;
}

void lk_attn_plan_make(struct lk_attn_plan *p, int vec, void *room)
{
	size_t g = most_groups(p->a, vec);

	p->qtiles = room; // the widest members first: everything stays aligned
	p->groups = (struct lk_attn_group *)(p->qtiles + g);
	p->order = (const struct lk_attn_qtile **)(p->groups + g);
	p->ktiles = (struct lk_attn_ktile *)(p->order + g);
	make_groups(p, vec);
	make_ktiles(p);
	make_qtiles(p);
}
