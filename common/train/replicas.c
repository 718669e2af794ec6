/* replicas.c - hashes of weights that several ranks hold, compared: first a small sign of each rank, then all. */
#include "common/train/replicas.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "common/comm/device.h"
#include "common/tensor/range.h"

enum { CHUNK = 4 << 20 }; /* bytes hashed at a time: the same on every device */

/* ---- what this rank holds ---- */

/* Sums over groups that differ with the tensor-parallel rank: are they in rank order in each of them? */
static bool sums_alike(const struct lwm_mesh *m)
{
	static const int groups[] = { LWM_GRAD, LWM_SHARD, LWM_DP };

	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
		if (m->dev[groups[i]] && !strcmp(lwm_devcomm_kind(m->dev[groups[i]]), "nccl"))
			return false;
	return true;
}

int lwm_replicas_open(struct lwm_replicas *r, const struct lwm_objective *o, const struct lwm_weights *w, struct lwm_err *e)
{
	size_t n = (size_t)o->local.n;

	*r = (struct lwm_replicas){ .o = o, .w = w, .rank = -1, .held = lwm_cut_alone(&w->cut), .shares = sums_alike(o->mesh) };
	if (lwm_comm_size(w->ranks) == 1)
		return 0;
	r->now = calloc(2 * n + 1, sizeof *r->now);
	if (!lk_dev_is_host(w->dev))
		r->buffer = malloc(CHUNK);
	if (!r->now || (!r->buffer && !lk_dev_is_host(w->dev)))
		return lwm_fail_memory(e, "hashes of weights");
	r->then = r->now + n;
	return 0;
}

void lwm_replicas_close(struct lwm_replicas *r)
{
	free(r->now);
	free(r->buffer);
	*r = (struct lwm_replicas){ .rank = -1 };
}

/* Never 0. */
static int hash_memory(const struct lwm_replicas *r, const char *p, size_t bytes, uint64_t *out, struct lwm_err *e)
{
	uint64_t h = 1;

	for (size_t at = 0, n; at < bytes; at += n) {
		const char *host = r->buffer ? r->buffer : p + at;

		n = bytes - at < CHUNK ? bytes - at : CHUNK;
		if (r->buffer)
			LWM_TRY(lwm_dev_check(r->w->dev, lk_download(r->w->dev, r->buffer, p + at, n), e));
		h = lwm_hash64(host, n, h);
	}
	*out = h ? h : 1;
	return 0;
}

static int hash_weights(const struct lwm_replicas *r, uint64_t *out, struct lwm_err *e)
{
	const struct lwm_tensors *t = &r->o->local;
	size_t size = lk_dtype_size(r->w->dtype);

	LWM_TRY(lwm_dev_check(r->w->dev, lk_sync(r->w->dev), e));
	for (int64_t i = 0; i < t->n; i++) {
		int64_t from, n, at;

		out[i] = 0;
		if (lwm_cut_own(&r->held, &t->list[i], &from, &n, &at))
			LWM_TRY(hash_memory(r, (const char *)r->w->compute + (size_t)at * size, (size_t)n * size, &out[i], e));
	}
	return 0;
}

int lwm_replicas_note(struct lwm_replicas *r, struct lwm_err *e)
{
	if (!r->now || !r->o->type->by_group)
		return 0;
	LWM_TRY(hash_weights(r, r->then, e));
	r->noted = true;
	return 0;
}

/* ---- who holds the same ---- */

/* A rank's place among those that have slices: its tensor-parallel rank, and its shard. */
struct place {
	int tp, shard;
};

static struct place place_of(const struct lwm_replicas *r, int rank)
{
	struct lwm_mesh m = *r->o->mesh;

	lwm_mesh_place(&m, rank);
	return (struct place){ m.coord[LWM_TP], lwm_mesh_rank(&m, LWM_GRAD) % r->held.shards };
}

/* Do both hold the same of tensor i? */
static bool holds_alike(const struct lwm_replicas *r, int64_t i, int a, int b)
{
	int copies = r->shares ? lwm_part_copies(&r->o->tensors.list[i], r->o->mesh->dim[LWM_TP]) : 1;
	struct place p = place_of(r, a), q = place_of(r, b);

	return p.shard == q.shard && p.tp / copies == q.tp / copies;
}

/* Does any rank of this one's tensor parallelism have other values of what they have in common? */
static int compare_shared(const struct lwm_replicas *r, uint64_t *differs, struct lwm_err *e)
{
	struct lwm_comm *c = r->o->mesh->comm[LWM_TP];
	int tp = r->o->mesh->dim[LWM_TP], me = r->o->mesh->coord[LWM_TP];
	int64_t n = r->o->local.n;

	*differs = 0;
	if (tp == 1 || !r->shares)
		return 0;
	uint64_t *all = malloc((size_t)(tp * n) * sizeof *all);
	int rc = lwm_agree(c, all ? 0 : lwm_fail_memory(e, "hashes of weights"), e);
	if (rc == 0)
		rc = lwm_comm_allgather(c, r->now, (size_t)n * sizeof *all, all, e);
	for (int64_t i = 0; rc == 0 && i < n; i++)
		for (int k = 0, copies = lwm_part_copies(&r->o->tensors.list[i], tp); k < tp; k++)
			*differs |= k / copies == me / copies && all[k * n + i] != r->now[i];
	free(all);
	return rc;
}

/* What a rank says of itself in few bytes. */
struct sign {
	uint64_t all;      /* hash of its hashes: the same on all replicas of its slice */
	uint64_t changed;  /* something is not what was noted */
	uint64_t differs;  /* from what its tensor-parallel ranks hold */
};

static bool signs_are_good(const struct lwm_replicas *r, const struct sign *s, int ranks)
{
	for (int k = 0; k < ranks; k++) {
		struct place p = place_of(r, k), q;
		int j = 0;

		if (s[k].changed || s[k].differs)
			return false;
		for (q = place_of(r, j); q.tp != p.tp || q.shard != p.shard; q = place_of(r, j))
			j++;
		if (s[j].all != s[k].all) /* the first that holds what k holds, k at the latest */
			return false;
	}
	return true;
}

/* ---- whose fault it is ---- */

/* The hashes of all ranks, 2 n of each: now, and as noted. */
struct evidence {
	const struct lwm_replicas *r;
	const uint64_t *hash;
	const char *host; /* LWM_REPLICAS_HOST of each */
	int64_t n;
	int ranks;
};

static uint64_t hash_of(const struct evidence *v, int rank, int64_t i)
{
	return v->hash[2 * v->n * rank + i];
}

static bool has_changed(const struct evidence *v, int rank, int64_t i)
{
	return hash_of(v, rank, i) != v->hash[2 * v->n * rank + v->n + i];
}

/* Of the ranks that hold the same of tensor i as `rank`: with its hash, and with others. */
static void count_votes(const struct evidence *v, int rank, int64_t i, int *same, int *other)
{
	*same = *other = 0;
	for (int k = 0; k < v->ranks; k++)
		if (holds_alike(v->r, i, rank, k))
			++*(hash_of(v, k, i) == hash_of(v, rank, i) ? same : other);
}

struct verdict {
	int rank, second;     /* second: another that it may be as well; -1 none */
	int64_t tensor, more; /* the first, and how many others of that rank */
	bool changed;
	int with, against;    /* how many ranks hold what it holds, itself among them, and something else */
};

/* The rank with the fewest beside it; of as many the first, and the first of another opinion. */
static bool judge_tensor(const struct evidence *v, int64_t i, struct verdict *y)
{
	int same, other;

	for (int k = 0; k < v->ranks; k++) {
		count_votes(v, k, i, &same, &other);
		if (other && (y->rank < 0 || same < y->with))
			*y = (struct verdict){ .rank = k, .second = -1, .tensor = i, .with = same, .against = other };
	}
	for (int k = 0; y->rank >= 0 && k < v->ranks && y->second < 0; k++) {
		count_votes(v, k, i, &same, &other);
		if (holds_alike(v->r, i, y->rank, k) && hash_of(v, k, i) != hash_of(v, y->rank, i) && same == y->with)
			y->second = k;
	}
	return y->rank >= 0;
}

static struct verdict judge_ranks(const struct evidence *v)
{
	struct verdict y = { .rank = -1, .second = -1 };
	int same, other;

	for (int k = 0; k < v->ranks && y.rank < 0; k++)
		for (int64_t i = 0; i < v->n && y.rank < 0; i++)
			if (has_changed(v, k, i))
				y = (struct verdict){ .rank = k, .second = -1, .tensor = i, .changed = true };
	for (int64_t i = 0; i < v->n && y.rank < 0; i++)
		judge_tensor(v, i, &y);
	for (int64_t i = y.tensor + 1; y.rank >= 0 && i < v->n; i++) {
		count_votes(v, y.rank, i, &same, &other);
		y.more += y.changed ? has_changed(v, y.rank, i) : other > 0;
	}
	return y;
}

static int say_verdict(struct lwm_replicas *r, const struct evidence *v, const struct verdict *y, int64_t step, struct lwm_err *e)
{
	const char *name = r->o->local.list[y->tensor].name, *host = v->host + (size_t)y->rank * LWM_REPLICAS_HOST;
	char more[64] = "";

	r->rank = y->rank;
	snprintf(r->host, sizeof r->host, "%s", host);
	if (y->more)
		snprintf(more, sizeof more, " and %" PRId64 " more tensor%s", y->more, y->more == 1 ? "" : "s");
	if (y->changed)
		return lwm_fail(e, LWM_ENUMERIC,
				"step %" PRId64 ": '%s'%s changed in the memory of rank %d on %s while nothing wrote there: that node is "
				"faulty; nothing is saved, run again without it", step, name, more, y->rank, host);
	if (y->second >= 0)
		return lwm_fail(e, LWM_ENUMERIC,
				"step %" PRId64 ": '%s'%s of rank %d on %s is not what rank %d on %s holds, and which is right cannot be "
				"told: one of these nodes is faulty; nothing is saved", step, name, more, y->rank, host, y->second,
				v->host + (size_t)y->second * LWM_REPLICAS_HOST);
	return lwm_fail(e, LWM_ENUMERIC,
			"step %" PRId64 ": '%s'%s of rank %d on %s is not what %d other ranks hold: that node is faulty; nothing is saved, "
			"run again without it", step, name, more, y->rank, host, y->against);
}

/* All hashes to all ranks, which judge alike. */
static int name_culprit(struct lwm_replicas *r, int64_t step, struct lwm_err *e)
{
	struct lwm_comm *world = r->w->ranks;
	int ranks = lwm_comm_size(world);
	int64_t n = r->o->local.n;
	char mine[LWM_REPLICAS_HOST] = "", *host = malloc((size_t)ranks * sizeof mine);
	uint64_t *hash = malloc((size_t)(2 * n * ranks) * sizeof *hash);
	int rc = lwm_agree(world, host && hash ? 0 : lwm_fail_memory(e, "hashes of weights"), e);

	if (!r->noted)
		memcpy(r->then, r->now, (size_t)n * sizeof *r->now);
	if (gethostname(mine, sizeof mine - 1))
		snprintf(mine, sizeof mine, "?");
	if (rc == 0)
		rc = lwm_comm_allgather(world, mine, sizeof mine, host, e);
	if (rc == 0)
		rc = lwm_comm_allgather(world, r->now, (size_t)(2 * n) * sizeof *hash, hash, e); /* `then` follows */
	if (rc == 0) {
		struct evidence v = { r, hash, host, n, ranks };
		struct verdict y = judge_ranks(&v);

		LWM_BUG_ON(y.rank < 0);
		rc = say_verdict(r, &v, &y, step, e);
	}
	free(host);
	free(hash);
	return lwm_agree(world, rc, e);
}

/* Signs of all ranks: *good, the same on each. */
static int compare_signs(const struct lwm_replicas *r, bool *good, struct lwm_err *e)
{
	struct lwm_comm *world = r->w->ranks;
	int ranks = lwm_comm_size(world);
	size_t bytes = (size_t)r->o->local.n * sizeof *r->now;
	struct sign mine = { lwm_hash64(r->now, bytes, 0), r->noted && memcmp(r->now, r->then, bytes), 0 };
	struct sign *all = malloc((size_t)ranks * sizeof *all);
	int rc = lwm_agree(world, all ? 0 : lwm_fail_memory(e, "hashes of weights"), e);

	if (rc == 0)
		rc = lwm_agree(world, compare_shared(r, &mine.differs, e), e);
	if (rc == 0)
		rc = lwm_comm_allgather(world, &mine, sizeof mine, all, e);
	if (rc == 0)
		*good = signs_are_good(r, all, ranks);
	free(all);
	return rc;
}

int lwm_replicas_check(struct lwm_replicas *r, int64_t step, struct lwm_err *e)
{
	bool good = true;
	int rc;

	if (!r->now)
		return 0;
	LWM_TRY(lwm_agree(r->w->ranks, hash_weights(r, r->now, e), e));
	rc = compare_signs(r, &good, e);
	if (rc == 0 && !good)
		rc = name_culprit(r, step, e);
	r->noted = false;
	return rc;
}
