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
	int64_t most = 0, i = 0;

	c->trained = c->count;
	while (i < t->n && t->list[i].trainable)
		i++;
	if (i == t->n)
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
	*c = lwm_cut_of(c, 0);
	size_trained(c, t);
	return 0;
}

void lwm_cut_release(struct lwm_cut *c)
{
	free(c->group);
	memset(c, 0, sizeof *c);
}

struct lwm_cut lwm_cut_of(const struct lwm_cut *c, int rank)
{
	struct lwm_cut y = *c;

	y.shard = rank % c->shards;
	y.replica = rank / c->shards;
	y.count = c->local / c->replicas;
	y.first = y.replica * y.count;
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

bool lwm_cut_own(const struct lwm_cut *c, const struct lwm_tensor *t, int64_t *from, int64_t *n, int64_t *at)
{
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
