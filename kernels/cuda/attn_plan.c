/* attn_plan.c - makes tile schedules of attention (attn_plan.h): tiles of queries and keys are summarized by their ranges of
 * positions and segments, and each tile gets the runs of tiles that it meets, those entirely seen apart from those that need the
 * mask. */
#include "kernels/cuda/attn_plan.h"

#include <stdlib.h>

/* What is known of some consecutive tokens. Padding counts in no range. */
struct sum {
	int32_t pos_min, pos_max, seg_min, seg_max; /* min > max: only padding */
	int32_t plain;                              /* no padding, one segment, and not short of tokens where that matters */
};

enum {
	GROUP = 64,     /* tiles of the other side that are looked at together first */
	LIST_MOST = 512 /* runs of one tile; what follows goes into the last one. Only scattered segments get there. */
};

static const struct sum nothing = { INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN, 1 };

struct side {
	int64_t tiles, groups;
	struct sum *tile, *group;
};

/* The schedule under construction: the lists of tiles 0 .. at, the last one still growing. */
struct build {
	struct lk_sched *s;
	int64_t room, list; /* runs that fit; where the list of this tile begins */
};

static int32_t min32(int32_t a, int32_t b)
{
	return a < b ? a : b;
}

static int32_t max32(int32_t a, int32_t b)
{
	return a > b ? a : b;
}

static struct sum sum_tokens(const struct lk_seq *s, int64_t from, int64_t to)
{
	struct sum r = nothing;

	for (int64_t i = from; i < to; i++) {
		if (s->seg[i] < 0) {
			r.plain = 0;
			continue;
		}
		r.pos_min = min32(r.pos_min, s->pos[i]);
		r.pos_max = max32(r.pos_max, s->pos[i]);
		r.seg_min = min32(r.seg_min, s->seg[i]);
		r.seg_max = max32(r.seg_max, s->seg[i]);
	}
	r.plain = r.plain && r.seg_min == r.seg_max;
	return r;
}

static struct sum sum_tiles(const struct sum *t, int64_t n)
{
	struct sum r = nothing;

	for (int64_t i = 0; i < n; i++) {
		r.pos_min = min32(r.pos_min, t[i].pos_min);
		r.pos_max = max32(r.pos_max, t[i].pos_max);
		r.seg_min = min32(r.seg_min, t[i].seg_min);
		r.seg_max = max32(r.seg_max, t[i].seg_max);
		r.plain = r.plain && t[i].plain;
	}
	r.plain = r.plain && r.seg_min == r.seg_max;
	return r;
}

/* whole: a tile that ends early is not plain. */
static int side_make(struct side *d, const struct lk_seq *s, int width, int whole)
{
	d->tiles = (s->n + width - 1) / width;
	d->groups = (d->tiles + GROUP - 1) / GROUP;
	d->tile = malloc((size_t)(d->tiles + d->groups + 1) * sizeof *d->tile);
	if (!d->tile)
		return LK_ENOMEM;
	d->group = d->tile + d->tiles;
	for (int64_t i = 0; i < d->tiles; i++) {
		int64_t end = (i + 1) * width;

		d->tile[i] = sum_tokens(s, i * width, end < s->n ? end : s->n);
		d->tile[i].plain = d->tile[i].plain && (!whole || end <= s->n);
	}
	for (int64_t i = 0; i < d->groups; i++) {
		int64_t n = d->tiles - i * GROUP;

		d->group[i] = sum_tiles(d->tile + i * GROUP, n < GROUP ? n : GROUP);
	}
	return 0;
}

enum sight { NONE, ALL, SOME };

static enum sight tiles_in_sight(const struct sum *q, const struct sum *k, int causal)
{
	if (q->seg_min > k->seg_max || k->seg_min > q->seg_max || (causal && k->pos_min > q->pos_max))
		return NONE;
	if (q->plain && k->plain && q->seg_min == k->seg_min && (!causal || k->pos_max <= q->pos_min))
		return ALL;
	return SOME;
}

/* Appends tiles [first, end) to the list under construction. */
static int append(struct build *b, int64_t first, int64_t end, int mask)
{
	struct lk_sched *s = b->s;
	struct lk_sched_run *last = s->nruns > b->list ? &s->runs[s->nruns - 1] : NULL;

	if (last && (s->nruns - b->list == LIST_MOST || (last->end == first && last->mask == mask))) {
		last->mask |= mask | (last->end != first); // tiles in between that see nothing are masked out one by one
		s->joined |= last->end != first;
		last->end = (int32_t)end;
		last->pairs = last->end - last->first;
		return 0;
	}
	if (s->nruns == b->room) {
		int64_t room = b->room ? 2 * b->room : s->tiles * 3 + 16;
		struct lk_sched_run *more = room > INT32_MAX ? NULL : realloc(s->runs, (size_t)room * sizeof *more);

		if (!more)
			return LK_ENOMEM;
		s->runs = more;
		b->room = room;
	}
	s->runs[s->nruns++] = (struct lk_sched_run){ (int32_t)first, (int32_t)end, mask, (int32_t)(end - first) };
	return 0;
}

static int list_group(struct build *b, const struct sum *own, const struct side *other, int64_t g, int causal,
		      int by_key)
{
	int64_t end = (g + 1) * GROUP < other->tiles ? (g + 1) * GROUP : other->tiles;
	int rc = 0;

	for (int64_t i = g * GROUP; !rc && i < end; i++) {
		const struct sum *t = &other->tile[i];
		enum sight w = by_key ? tiles_in_sight(t, own, causal) : tiles_in_sight(own, t, causal);

		if (w != NONE)
			rc = append(b, i, i + 1, w == SOME);
	}
	return rc;
}

static int list_tile(struct build *b, const struct sum *own, const struct side *other, int causal, int by_key)
{
	int rc = 0;

	b->list = b->s->nruns;
	for (int64_t g = 0; !rc && g < other->groups; g++) {
		const struct sum *t = &other->group[g];
		enum sight w = by_key ? tiles_in_sight(t, own, causal) : tiles_in_sight(own, t, causal);
		int64_t end = (g + 1) * GROUP < other->tiles ? (g + 1) * GROUP : other->tiles;

		if (w == ALL)
			rc = append(b, g * GROUP, end, 0);
		else if (w == SOME)
			rc = list_group(b, own, other, g, causal, by_key);
	}
	return rc;
}

struct weight {
	int64_t pairs;
	int32_t tile;
};

static int compare_weight(const void *x, const void *y)
{
	const struct weight *a = x, *b = y;

	if (a->pairs != b->pairs)
		return a->pairs < b->pairs ? 1 : -1;
	return a->tile < b->tile ? -1 : a->tile > b->tile;
}

/* Costly tiles first, so that no multiprocessor ends up alone with a long one. */
static int put_in_order(struct lk_sched *s)
{
	struct weight *w = malloc((size_t)(s->tiles + 1) * sizeof *w);

	if (!w)
		return LK_ENOMEM;
	s->pairs = 0;
	for (int64_t i = 0; i < s->tiles; i++) {
		w[i] = (struct weight){ 0, (int32_t)i };
		for (int32_t r = s->start[i]; r < s->start[i + 1]; r++)
			w[i].pairs += s->runs[r].pairs;
		s->pairs += w[i].pairs;
	}
	qsort(w, (size_t)s->tiles, sizeof *w, compare_weight);
	for (int64_t i = 0; i < s->tiles; i++)
		s->order[i] = w[i].tile;
	free(w);
	return 0;
}

static int fill_in(struct lk_sched *s, const struct side *own, const struct side *other, int causal, int by_key)
{
	struct build b = { s, 0, 0 };
	int rc = 0;

	s->tiles = own->tiles;
	s->start = malloc((size_t)(2 * s->tiles + 1) * sizeof *s->start);
	if (!s->start)
		return LK_ENOMEM;
	s->order = s->start + s->tiles + 1;
	for (int64_t i = 0; !rc && i < s->tiles; i++) {
		s->start[i] = (int32_t)s->nruns;
		rc = list_tile(&b, &own->tile[i], other, causal, by_key);
	}
	s->start[s->tiles] = (int32_t)s->nruns;
	return rc ? rc : put_in_order(s);
}

int lk_sched_make(struct lk_sched *s, const struct lk_seq *q, const struct lk_seq *k, int causal, int bq, int bk,
		  int by_key)
{
	struct side qs = { 0, 0, NULL, NULL }, ks = { 0, 0, NULL, NULL };
	int rc;

	memset(s, 0, sizeof *s);
	rc = q->n > INT32_MAX || k->n > INT32_MAX ? LK_ENOMEM : side_make(&qs, q, bq, 0);
	if (!rc)
		rc = side_make(&ks, k, bk, 1);
	if (!rc)
		rc = by_key ? fill_in(s, &ks, &qs, causal, 1) : fill_in(s, &qs, &ks, causal, 0);
	free(qs.tile);
	free(ks.tile);
	if (rc)
		lk_sched_free(s);
	return rc;
}

void lk_sched_free(struct lk_sched *s)
{
	free(s->start); // and the order, which follows it
	free(s->runs);
	memset(s, 0, sizeof *s);
}
