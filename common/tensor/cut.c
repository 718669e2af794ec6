/* cut.c - a flat vector cut by groups over ranks: sizes and places. */
#include "common/tensor/cut.h"

#include <stdlib.h>
#include <string.h>

#include "common/tensor/range.h"

enum { ALIGN = 16 }; /* floats: slices begin on 64 bytes */

static int64_t round_up(int64_t n, int64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

/* Of one shard all weights are one group; gaps between groups belong to the one before them. */
static int64_t count_groups(const struct lwm_tensors *t, int shards)
{
	return shards == 1 || !t->n ? 1 : t->list[t->n - 1].group + 1;
}

/* What a rank owns the state of and trains. */
static int64_t count_trained(const struct lwm_cut *c, const struct lwm_tensors *t, int rank)
{
	struct lwm_cut own = lwm_cut_of(c, rank);
	int64_t from, n, at, sum = 0;

	for (int64_t i = 0; i < t->n; i++)
		if (t->list[i].trainable && lwm_cut_own(&own, &t->list[i], &from, &n, &at))
			sum += n;
	return sum;
}

/* As much on each rank as on the one that trains most: a plan tells of all. */
static void size_trained(struct lwm_cut *c, const struct lwm_tensors *t)
{
	int64_t most = 0;

	c->trained = c->count;
	if (!c->frozen)
		return;
	for (int r = 0; r < c->shards * c->replicas; r++) {
		int64_t n = count_trained(c, t, r);

		most = n > most ? n : most;
	}
	most = round_up(most ? most : 1, ALIGN);
	c->packed = most < c->count;
	if (c->packed)
		c->trained = most;
}

/* ---- stretches ---- */

/* What stays as it is, what has adapters, what trains; and as many kinds of what follows these. */
enum { STAYS, ADAPTED, TRAINS, FOLLOWS };

static int kind_of(const struct lwm_tensors *t, int64_t i)
{
	const struct lwm_tensor *q = &t->list[i];

	if (q->follows)
		return FOLLOWS + kind_of(t, q->follows - 1);
	return q->trainable ? TRAINS : q->adapted ? ADAPTED : STAYS;
}

/* The part of tensor i that shard s has, as elements of the local vector. */
static bool part_of(const struct lwm_cut *c, const struct lwm_tensor *t, int s, int64_t *at, int64_t *n)
{
	const struct lwm_cut_group *g = &c->group[c->shards == 1 ? 0 : t->group];
	int64_t from, lo = g->offset + s * g->slice;

	if (!lwm_tensor_overlap(t, lo, g->slice, &from, n))
		return false;
	*at = g->at + from - lo;
	return true;
}

/* Neighbours of a kind; n of them, of this shard alone. */
static int64_t list_stretches(const struct lwm_cut *c, const struct lwm_tensors *t, int shard, struct lwm_cut_stretch *list)
{
	int64_t n = 0, at, count;
	int last = -1;

	for (int64_t i = 0; i < t->n; i++) {
		int kind = kind_of(t, i);

		if (!part_of(c, &t->list[i], shard, &at, &count))
			continue;
		if (kind != last)
			list[n++] = (struct lwm_cut_stretch){ .at = at, .moves = kind > STAYS && kind < FOLLOWS,
							      .follows = kind > FOLLOWS };
		list[n - 1].count = at + count - list[n - 1].at;
		last = kind;
	}
	return n;
}

/* Of all shards. What the longest of them needs of the local vector and of the state becomes that of all. */
static int make_stretches(struct lwm_cut *c, const struct lwm_tensors *t, struct lwm_err *e)
{
	struct lwm_cut_stretch *list = calloc((size_t)(t->n * c->shards) + 1, sizeof *list);

	c->stretch = list;
	c->begin = calloc((size_t)c->shards + 1, sizeof *c->begin);
	if (!list || !c->begin)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the cut of a model");
	c->count = 0;
	for (int s = 0; s < c->shards; s++) {
		struct lwm_cut_stretch *mine = list + c->begin[s];
		int64_t n = list_stretches(c, t, s, mine), sum = 0;

		for (int64_t i = 0; i < n; i++) {
			int64_t slice = round_up((mine[i].count + c->replicas - 1) / c->replicas, ALIGN);
			int64_t end = mine[i].at + c->replicas * slice;

			mine[i].slice = slice;
			mine[i].state = sum;
			sum += slice;
			c->local = end > c->local ? end : c->local;
		}
		c->count = sum > c->count ? sum : c->count;
		c->begin[s + 1] = c->begin[s] + n;
	}
	c->local = round_up(c->local, (int64_t)ALIGN * c->replicas);
	c->spread = true;
	return 0;
}

int64_t lwm_cut_stretches(const struct lwm_cut *c)
{
	return c->spread ? c->begin[c->shard + 1] - c->begin[c->shard] : 1;
}

struct lwm_cut_stretch lwm_cut_stretch(const struct lwm_cut *c, int64_t i)
{
	if (c->spread)
		return c->stretch[c->begin[c->shard] + i];
	return (struct lwm_cut_stretch){ .count = c->local, .slice = c->count, .moves = true };
}

int64_t lwm_cut_owned(const struct lwm_cut *c, const struct lwm_cut_stretch *s)
{
	int64_t left = s->count - c->replica * s->slice;

	return left < 0 ? 0 : left < s->slice ? left : s->slice;
}

int64_t lwm_cut_place(const struct lwm_cut *c, int64_t at)
{
	for (int64_t i = 0, n = lwm_cut_stretches(c); i < n; i++) {
		struct lwm_cut_stretch s = lwm_cut_stretch(c, i);

		if (at < s.state + s.slice)
			return s.at + c->replica * s.slice + at - s.state;
	}
	return c->local;
}

int64_t lwm_cut_moving(const struct lwm_cut *c)
{
	int64_t sum = 0;

	for (int64_t i = 0, n = lwm_cut_stretches(c); i < n; i++)
		sum += lwm_cut_stretch(c, i).moves ? lwm_cut_stretch(c, i).slice : 0;
	return sum;
}

int64_t lwm_cut_following(const struct lwm_cut *c)
{
	int64_t sum = 0;

	for (int64_t i = 0, n = lwm_cut_stretches(c); i < n; i++)
		sum += lwm_cut_stretch(c, i).follows ? lwm_cut_stretch(c, i).slice : 0;
	return sum;
}

int64_t lwm_cut_longest(const struct lwm_cut *c)
{
	int64_t most = 0;

	for (int64_t i = 0, n = lwm_cut_stretches(c); i < n; i++) {
		int64_t slice = lwm_cut_stretch(c, i).slice;

		most = slice > most ? slice : most;
	}
	return most * c->replicas;
}

/* ---- life ---- */

static bool all_train(const struct lwm_tensors *t)
{
	int64_t i = 0;

	while (i < t->n && t->list[i].trainable)
		i++;
	return i == t->n;
}

int lwm_cut_new(struct lwm_cut *c, const struct lwm_tensors *t, int shards, int replicas, struct lwm_err *e)
{
	int64_t local = 0;

	*c = (struct lwm_cut){ .shards = shards, .replicas = replicas, .n = count_groups(t, shards) };
	c->group = calloc((size_t)c->n, sizeof *c->group);
	if (!c->group)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the cut of a model");
	for (int64_t g = 0; g < c->n; g++) {
		struct lwm_group all = { 0, 0, t->total }, own = shards == 1 ? all : lwm_tensors_group(t, g);
		int64_t slice = round_up((own.count + shards - 1) / shards, ALIGN);

		c->group[g] = (struct lwm_cut_group){ own.offset, own.count, slice, local };
		local += slice;
	}
	c->local = round_up(local, (int64_t)ALIGN * replicas);
	c->count = c->local / replicas;
	c->frozen = !all_train(t);
	if (replicas > 1 && c->frozen) {
		int rc = make_stretches(c, t, e);

		if (rc < 0) {
			lwm_cut_release(c);
			return rc;
		}
	}
	*c = lwm_cut_of(c, 0);
	size_trained(c, t);
	return 0;
}

void lwm_cut_release(struct lwm_cut *c)
{
	free(c->group);
	free(c->begin);
	free(c->stretch);
	memset(c, 0, sizeof *c);
}

struct lwm_cut lwm_cut_of(const struct lwm_cut *c, int rank)
{
	struct lwm_cut y = *c;

	y.shard = rank % c->shards;
	y.replica = rank / c->shards;
	y.first = c->spread ? 0 : y.replica * y.count;
	return y;
}

struct lwm_cut lwm_cut_alone(const struct lwm_cut *c)
{
	struct lwm_cut y = *c;

	y.replicas = 1;
	y.replica = 0;
	y.first = 0;
	y.count = y.local;
	y.spread = false;
	return y;
}

/* The stretch of group g whose state is this rank's, padding included, and where in the local vector it begins. */
static int64_t own_stretch(const struct lwm_cut *c, int64_t g, int64_t *n, int64_t *packed)
{
	const struct lwm_cut_group *q = &c->group[g];
	int64_t lo = c->first > q->at ? c->first : q->at, hi = q->at + q->slice;

	if (hi > c->first + c->count)
		hi = c->first + c->count;
	*packed = lo;
	*n = hi > lo ? hi - lo : 0;
	return q->offset + c->shard * q->slice + lo - q->at;
}

/* A part of a tensor lies in one stretch. */
static bool own_of_stretch(const struct lwm_cut *c, const struct lwm_tensor *t, int64_t *from, int64_t *n, int64_t *at)
{
	const struct lwm_cut_group *g = &c->group[c->shards == 1 ? 0 : t->group];
	int64_t part, count, i = 0;

	if (!part_of(c, t, c->shard, &part, &count))
		return false;
	while (c->stretch[c->begin[c->shard] + i].at + c->stretch[c->begin[c->shard] + i].count <= part)
		i++;
	struct lwm_cut_stretch s = lwm_cut_stretch(c, i);
	int64_t own = s.at + c->replica * s.slice, lo = own > part ? own : part, hi = own + lwm_cut_owned(c, &s);

	hi = hi < part + count ? hi : part + count;
	*from = g->offset + c->shard * g->slice + lo - g->at;
	*n = hi - lo;
	*at = s.state + lo - own;
	return hi > lo;
}

bool lwm_cut_own(const struct lwm_cut *c, const struct lwm_tensor *t, int64_t *from, int64_t *n, int64_t *at)
{
	if (c->spread)
		return own_of_stretch(c, t, from, n, at);
	int64_t g = c->shards == 1 ? 0 : t->group, packed, len, lo = own_stretch(c, g, &len, &packed);

	if (!lwm_tensor_overlap(t, lo, len, from, n))
		return false;
	*at = packed + (*from - lo) - c->first;
	return true;
}

bool lwm_cut_own_group(const struct lwm_cut *c, int64_t g, int64_t *from, int64_t *n, int64_t *at)
{
	int64_t packed, end = c->group[g].offset + c->group[g].count;

	*from = own_stretch(c, g, n, &packed);
	if (*n > end - *from)
		*n = end - *from;
	*at = packed - c->first;
	return *n > 0;
}

int64_t lwm_cut_trained(const struct lwm_cut *c, const struct lwm_tensor *t, int64_t at, int64_t n, int64_t *next)
{
	int64_t packed = *next;

	if (!t->trainable)
		return -1;
	*next += n;
	return c->packed ? packed : at;
}

int64_t lwm_cut_largest(const struct lwm_cut *c)
{
	int64_t most = 0;

	for (int64_t g = 0; g < c->n; g++)
		if (c->group[g].slice > most)
			most = c->group[g].slice;
	return most * c->shards;
}
