/* attn_route.c - which rows of keys and values go where; see attn_route.h.
 *
 * A stretch is a run of tokens of one segment in ascending positions. Of a stretch, rank q sees the tokens up to the greatest
 * position that it has itself of that segment: a prefix. */
#include "common/model/attn_route.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct stretch {
	int32_t seg;
	int64_t from, count;
};

struct top { /* the greatest position of a segment on a rank */
	int32_t seg, pos;
};

struct side { /* of one rank */
	const int32_t *pos;
	struct stretch *stretch;
	struct top *top; /* by rising segment */
	int64_t stretches, tops;
};

static int64_t find_stretches(const int32_t *pos, const int32_t *seg, int64_t n, struct stretch *out)
{
	int64_t found = 0;

	for (int64_t i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && seg[end] == seg[i] && pos[end] >= pos[end - 1];)
			end++;
		if (seg[i] < 0)
			continue;
		if (out)
			out[found] = (struct stretch){ seg[i], i, end - i };
		found++;
	}
	return found;
}

static int by_segment(const void *a, const void *b)
{
	const struct top *x = a, *y = b;

	if (x->seg != y->seg)
		return x->seg < y->seg ? -1 : 1;
	return x->pos < y->pos ? -1 : x->pos > y->pos;
}

static int make_side(struct side *s, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e)
{
	s->pos = pos;
	s->stretches = find_stretches(pos, seg, n, NULL);
	s->stretch = malloc((size_t)(s->stretches + 1) * sizeof *s->stretch);
	s->top = malloc((size_t)(s->stretches + 1) * sizeof *s->top);
	if (!s->stretch || !s->top)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " pieces of documents", s->stretches);
	find_stretches(pos, seg, n, s->stretch);
	for (int64_t i = 0; i < s->stretches; i++) {
		const struct stretch *x = &s->stretch[i];

		s->top[i] = (struct top){ x->seg, pos[x->from + x->count - 1] };
	}
	qsort(s->top, (size_t)s->stretches, sizeof *s->top, by_segment);
	for (int64_t i = 0; i < s->stretches; i++)
		if (i + 1 == s->stretches || s->top[i].seg != s->top[i + 1].seg)
			s->top[s->tops++] = s->top[i];
	return 0;
}

/* How many tokens of a stretch of rank k the rank q sees. */
static int64_t seen_of(const struct side *q, const struct side *k, const struct stretch *x, bool causal)
{
	int64_t lo = 0, hi = q->tops;
	int32_t top;

	while (lo < hi) {
		int64_t mid = lo + (hi - lo) / 2;

		if (q->top[mid].seg < x->seg)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == q->tops || q->top[lo].seg != x->seg)
		return 0;
	top = q->top[lo].pos;
	if (!causal || k->pos[x->from + x->count - 1] <= top)
		return x->count;
	for (lo = 0, hi = x->count; lo < hi;) {
		int64_t mid = lo + (hi - lo) / 2;

		if (k->pos[x->from + mid] <= top)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int64_t count_seen(const struct side *q, const struct side *k, bool causal)
{
	int64_t sum = 0;

	for (int64_t i = 0; i < k->stretches; i++)
		sum += seen_of(q, k, &k->stretch[i], causal);
	return sum;
}

static int add_rows(struct lwm_route *r, int64_t from, int64_t count, int64_t start, int64_t *n, struct lwm_err *e)
{
	if (!count)
		return 0;
	if (*n > start && r->run[*n - 1].from + r->run[*n - 1].count == from) {
		r->run[*n - 1].count += count;
		return 0;
	}
	if (*n == r->run_cap) {
		int64_t cap = r->run_cap ? 2 * r->run_cap : 64;
		struct lwm_route_run *v = realloc(r->run, (size_t)cap * sizeof *v);

		if (!v)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " runs of keys", cap);
		r->run = v;
		r->run_cap = cap;
	}
	r->run[(*n)++] = (struct lwm_route_run){ from, count };
	return 0;
}

/* Entries 0 to ranks - 1 of `first`: this rank's rows for the others; then theirs for this one. */
static int list_runs(struct lwm_route *r, const struct side *side, bool causal, struct lwm_err *e)
{
	int64_t n = 0;

	for (int i = 0; i < 2 * r->ranks; i++) {
		int other = i % r->ranks;
		const struct side *q = &side[i < r->ranks ? other : r->rank], *k = &side[i < r->ranks ? r->rank : other];

		r->first[i] = n;
		for (int64_t j = 0; j < k->stretches && other != r->rank; j++)
			LWM_TRY(add_rows(r, k->stretch[j].from, seen_of(q, k, &k->stretch[j], causal), r->first[i], &n, e));
	}
	r->first[2 * r->ranks] = n;
	return 0;
}

int lwm_route_make(struct lwm_route *r, int ranks, int rank, int64_t n, const int32_t *pos, const int32_t *seg, int64_t stride,
		   bool causal, struct lwm_err *e)
{
	struct side *side = calloc((size_t)ranks, sizeof *side);
	int rc = 0;

	if (!r->seen)
		r->seen = malloc((size_t)ranks * (size_t)ranks * sizeof *r->seen);
	if (!r->first)
		r->first = malloc((2 * (size_t)ranks + 1) * sizeof *r->first);
	if (!side || !r->seen || !r->first)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "out of memory for the routes of %d ranks", ranks));
	r->ranks = ranks;
	r->rank = rank;
	for (int i = 0; i < ranks; i++)
		LWM_GO(make_side(&side[i], n, pos + i * stride, seg + i * stride, e));
	for (int q = 0; q < ranks; q++)
		for (int k = 0; k < ranks; k++)
			r->seen[q * ranks + k] = count_seen(&side[q], &side[k], causal);
	LWM_GO(list_runs(r, side, causal, e));
out:
	for (int i = 0; side && i < ranks; i++) {
		free(side[i].stretch);
		free(side[i].top);
	}
	free(side);
	return rc;
}

void lwm_route_release(struct lwm_route *r)
{
	free(r->seen);
	free(r->run);
	free(r->first);
	memset(r, 0, sizeof *r);
}
