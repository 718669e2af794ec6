/* weights_fsdp.c - slots of gathered groups, what is gathered ahead, and gradients on their way to those who own them.
 *
 * Exchanges are begun and ended in one order on all ranks, which follows from the order of acquire and grad_ready alone: failures
 * of a rank skip what it computes and none of its exchanges. They wait in a queue; whoever needs one ends those before it too.
 */
#include "common/model/weights_fsdp.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/device.h"

enum { MOST_UNDER_WAY = 6 };

/* All of a group's weights, or gradient. */
struct slot {
	char *p;
	int64_t group;   /* -1: none */
	int held;        /* acquires without their release; of gradients 1 until it is ready */
	bool under_way;  /* is being gathered, or scattered */
	float *arriving; /* of a gradient's slot: this rank's slice of the sum; NULL: it is added to the gradient on its way */
};
struct exchange {
	bool gradient;
	struct slot *slot; /* NULL: of the whole gradient */
	struct lwm_devcomm *by;
	struct lwm_devcomm_op *op;
};

struct lwm_fsdp {
	struct lwm_supply base;
	struct lk_dev *dev;
	struct lwm_devcomm *ranks;
	struct lwm_devcomm *sum; /* those whose gradients are summed, and who agree: `ranks`, or with chained sums all */
	struct lwm_cut cut;
	struct lwm_fsdp_how how;
	size_t size;       /* bytes of a weight */
	const char *own;
	float *grad, *all; /* all: gradients of all groups, padded as slots are, where how.whole */
	struct slot *weights, *grads;
	int nweights, ngrads;
	unsigned *taken;   /* of each group the acquires without release, one bit each: were weights among it? */
	int64_t *order;    /* groups as a step asks for their weights: forward, then backward */
	int norder, nforward, place;
	struct exchange queue[MOST_UNDER_WAY];
	unsigned first, last;
	bool *frozen;      /* of each group: no gradient of it is wanted, nor exchanged */
	bool lost;         /* a rank is: nobody would come to another exchange */
	char *block;
};

/* ---- sizes ---- */

/* Of embeddings without heads the first group is used with the last: they are the head too. */
static bool is_tied(const struct lwm_tensors *t)
{
	return lwm_tensors_have(t, LWM_ROLE_EMBED) && !lwm_tensors_have(t, LWM_ROLE_HEAD);
}

/* One in use and those gathered ahead. Of gradients one that is added to, one that is scattered. */
static int count_slots(const struct lwm_tensors *t, const struct lwm_cut *c, const struct lwm_fsdp_how *how, int *gradients)
{
	int tied = is_tied(t), n = 1 + tied + how->ahead;

	*gradients = how->whole ? 0 : 2 + tied;
	return n < c->n ? n : (int)c->n;
}

/* Bytes of a slot of weights, one of gradients, what arrives of one, and of all gradients. */
struct sizes {
	int64_t weights, gradient, arriving, all;
};

static struct sizes size_slots(const struct lwm_cut *c, int dtype, const struct lwm_fsdp_how *how)
{
	int64_t most = lwm_cut_largest(c), sum = 0;

	for (int64_t g = 0; g < c->n; g++)
		sum += c->group[g].slice * c->shards;
	return (struct sizes){ lwm_round64(most * (int64_t)lk_dtype_size(dtype)), most * 4,
			       how->chain ? 0 : lwm_round64(most / c->shards * 4), how->whole ? sum * 4 : 0 };
}

int64_t lwm_fsdp_gathered(const struct lwm_tensors *t, const struct lwm_cut *c, int dtype, const struct lwm_fsdp_how *how)
{
	int gradients;

	return count_slots(t, c, how, &gradients) * size_slots(c, dtype, how).weights;
}

int64_t lwm_fsdp_bytes(const struct lwm_tensors *t, const struct lwm_cut *c, int dtype, const struct lwm_fsdp_how *how)
{
	struct sizes z = size_slots(c, dtype, how);
	int gradients, weights = count_slots(t, c, how, &gradients);

	return weights * z.weights + gradients * (z.gradient + z.arriving) + z.all;
}

int64_t lwm_fsdp_unfilled(const struct lwm_tensors *t, const struct lwm_cut *c, const struct lwm_fsdp_how *how)
{
	int64_t left = lwm_cut_largest(c) - c->group[0].slice * c->shards;

	return !is_tied(t) || how->whole ? 0 : left * 4 + (how->chain ? 0 : left / c->shards * 4);
}

/* ---- exchanges ---- */

/* The first failure stays, but for a lost rank, which outweighs all. */
static void keep_failure(struct lwm_fsdp *s, int r, const struct lwm_err *why, int *rc, struct lwm_err *e)
{
	if (!r || (*rc && r != -LWM_ERANK))
		return;
	s->lost = s->lost || r == -LWM_ERANK;
	*rc = r;
	if (e)
		*e = *why;
}

static void overwrite(const struct lwm_fsdp *s, void *p, int64_t floats, size_t size)
{
	if (s->how.poison && lk_dev_is_host(s->dev))
		memset(p, 0xff, (size_t)floats * size);
}

/* What arrived is added to the gradient; the slot is free again. */
static void take_in(struct lwm_fsdp *s, struct slot *k, int *rc, struct lwm_err *e)
{
	const struct lwm_cut_group *g = &s->cut.group[k->group];
	struct lk_view y = lk_view1(s->grad + g->at, LK_F32, g->slice), x = lk_view1(k->arriving, LK_F32, g->slice);
	struct lwm_err why = { 0 };

	if (!*rc && k->arriving)
		keep_failure(s, lwm_dev_check(s->dev, lk_axpy(s->dev, &y, 1, &x), &why), &why, rc, e);
	overwrite(s, k->p, g->slice * s->cut.shards, sizeof *s->grad);
	if (k->arriving)
		overwrite(s, k->arriving, g->slice, sizeof *s->grad);
	k->group = -1;
}

static void end_oldest(struct lwm_fsdp *s, int *rc, struct lwm_err *e)
{
	struct exchange x = s->queue[s->first++ % MOST_UNDER_WAY];
	struct lwm_err why = { 0 };

	keep_failure(s, lwm_devcomm_wait(x.by, x.op, &why), &why, rc, e);
	if (x.slot)
		x.slot->under_way = false;
	if (x.slot && x.gradient)
		take_in(s, x.slot, rc, e);
}

static void end_all(struct lwm_fsdp *s, int *rc, struct lwm_err *e)
{
	while (s->first != s->last)
		end_oldest(s, rc, e);
}

/* Its op is the caller's to begin. */
static struct exchange *queue_exchange(struct lwm_fsdp *s, bool gradient, struct slot *k, int *rc, struct lwm_err *e)
{
	struct exchange *x;

	if (s->last - s->first == MOST_UNDER_WAY)
		end_oldest(s, rc, e);
	if (k)
		k->under_way = true;
	x = &s->queue[s->last++ % MOST_UNDER_WAY];
	*x = (struct exchange){ gradient, k, gradient ? s->sum : s->ranks, NULL };
	return x;
}

/* ---- weights ---- */

static struct slot *slot_of(struct slot *list, int n, int64_t group)
{
	for (int i = 0; i < n; i++)
		if (list[i].group == group)
			return &list[i];
	return NULL;
}

/* Is the group among the next `ahead` of the order, from place on? */
static bool comes_soon(const struct lwm_fsdp *s, int64_t group)
{
	for (int i = s->place; i < s->place + s->how.ahead && i < s->norder; i++)
		if (s->order[i] == group)
			return true;
	return false;
}

/* A slot for another group: one that is empty, else one that nobody holds or waits for. NULL: none. */
static struct slot *spare_slot(struct lwm_fsdp *s)
{
	struct slot *spare = slot_of(s->weights, s->nweights, -1);

	for (int i = 0; i < s->nweights && !spare; i++)
		if (!s->weights[i].held && !s->weights[i].under_way && !comes_soon(s, s->weights[i].group))
			spare = &s->weights[i];
	return spare;
}

static void begin_gather(struct lwm_fsdp *s, struct slot *k, int64_t group, int *rc, struct lwm_err *e)
{
	const struct lwm_cut_group *g = &s->cut.group[group];
	struct lwm_err why = { 0 };
	struct exchange *x;
	int r = 0;

	k->group = group;
	x = queue_exchange(s, false, k, rc, e);
	if (!s->lost)
		r = lwm_devcomm_begin_allgather(s->ranks, s->own + (size_t)g->at * s->size, (size_t)g->slice * s->size, k->p,
						&x->op, &why);
	keep_failure(s, r, &why, rc, e);
}

/* Any slot that nobody holds: what was gathered ahead in vain gives way. */
static struct slot *free_slot(struct lwm_fsdp *s, int *rc, struct lwm_err *e)
{
	struct slot *k = spare_slot(s);

	if (k)
		return k;
	end_all(s, rc, e);
	for (int i = 0; i < s->nweights && !k; i++)
		if (!s->weights[i].held)
			k = &s->weights[i];
	LWM_BUG_ON(!k);
	return k;
}

/* Moves to the next place of the order where the group stands. */
static void find_place(struct lwm_fsdp *s, int64_t group)
{
	for (int i = 0; i < s->norder; i++)
		if (s->order[(s->place + i) % s->norder] == group) {
			s->place = (s->place + i) % s->norder + 1;
			return;
		}
}

static void gather_ahead(struct lwm_fsdp *s, int *rc, struct lwm_err *e)
{
	int end = s->base.grads ? s->norder : s->nforward;

	for (int i = s->place; i < s->place + s->how.ahead && i < end; i++) {
		struct slot *k;

		if (slot_of(s->weights, s->nweights, s->order[i]))
			continue;
		k = spare_slot(s);
		if (!k)
			return;
		begin_gather(s, k, s->order[i], rc, e);
	}
}

static const void *hold_weights(struct lwm_fsdp *s, int64_t group, int *rc, struct lwm_err *e)
{
	struct slot *k = slot_of(s->weights, s->nweights, group);

	find_place(s, group);
	if (!k) {
		k = free_slot(s, rc, e);
		begin_gather(s, k, group, rc, e);
	}
	while (k->under_way)
		end_oldest(s, rc, e);
	k->held++;
	gather_ahead(s, rc, e);
	return k->p;
}

/* ---- gradients ---- */

/* Where the gradient is added to: zeros when nothing was in this pass. */
static float *hold_gradient(struct lwm_fsdp *s, int64_t group, int *rc, struct lwm_err *e)
{
	const struct lwm_cut_group *g = &s->cut.group[group];
	struct lwm_err why = { 0 };
	struct slot *k = slot_of(s->grads, s->ngrads, group);

	if (s->how.whole)
		return s->all + g->at * s->cut.shards;
	while (k && k->under_way) { /* of the microbatch before this one */
		end_oldest(s, rc, e);
		k = slot_of(s->grads, s->ngrads, group);
	}
	if (k)
		return (float *)k->p;
	while (!(k = slot_of(s->grads, s->ngrads, -1))) {
		LWM_BUG_ON(s->first == s->last);
		end_oldest(s, rc, e);
	}
	k->group = group;
	if (!*rc)
		keep_failure(s, lwm_dev_check(s->dev, lk_zero(s->dev, k->p, (size_t)(g->slice * s->cut.shards) * sizeof *s->grad),
					      &why), &why, rc, e);
	return (float *)k->p;
}

/* Begins the sum of a group's gradient that lies at `from`. */
static int begin_sum(struct lwm_fsdp *s, const struct lwm_cut_group *g, const float *from, float *arriving,
		     struct lwm_devcomm_op **op, struct lwm_err *e)
{
	float *to = arriving ? arriving : s->grad + g->at;
	int64_t part;

	if (!s->how.chain)
		return lwm_devcomm_begin_reduce_scatter_f32(s->sum, from, to, g->slice * s->cut.shards, op, e);
	lwm_comm_chain_part(s->cut.shards * s->cut.replicas, s->cut.replica * s->cut.shards + s->cut.shard, s->cut.shards,
			    g->slice, &part);
	return lwm_devcomm_begin_chain_f32(s->sum, from, g->slice, s->cut.shards, to + part, op, e);
}

static int scatter_gradient(struct lwm_supply *w, const struct lwm_group *group, int failed, struct lwm_err *e)
{
	struct lwm_fsdp *s = (struct lwm_fsdp *)w;
	const struct lwm_cut_group *g = &s->cut.group[group->index];
	struct slot *k = s->how.whole ? NULL : slot_of(s->grads, s->ngrads, group->index);
	const float *from = k ? (const float *)k->p : s->all + g->at * s->cut.shards;
	struct lwm_err why = { 0 };
	struct exchange *x;
	int rc = failed, r = 0;

	if (s->how.whole && s->base.more)
		return rc;
	LWM_BUG_ON(!s->how.whole && !k);
	if (s->frozen[group->index]) {
		if (k)
			k->group = -1;
		return rc;
	}
	x = queue_exchange(s, true, k, &rc, e);
	if (!s->lost)
		r = begin_sum(s, g, from, k ? k->arriving : NULL, &x->op, &why);
	keep_failure(s, r, &why, &rc, e);
	return rc;
}

/* ---- the interface ---- */

static int acquire_group(struct lwm_supply *w, const struct lwm_group *g, unsigned what, struct lwm_supplied *at, int failed,
			 struct lwm_err *e)
{
	struct lwm_fsdp *s = (struct lwm_fsdp *)w;
	int rc = failed;

	LWM_BUG_ON(g->index < 0 || g->index >= s->cut.n);
	s->taken[g->index] = s->taken[g->index] << 1 | !!(what & LWM_WEIGHTS);
	at->w = what & LWM_WEIGHTS ? hold_weights(s, g->index, &rc, e) : NULL;
	at->g = what & LWM_GRADS ? hold_gradient(s, g->index, &rc, e) : NULL;
	return rc;
}

static void release_group(struct lwm_supply *w, const struct lwm_group *g)
{
	struct lwm_fsdp *s = (struct lwm_fsdp *)w;
	bool weights = s->taken[g->index] & 1;
	struct slot *k = slot_of(s->weights, s->nweights, g->index);

	s->taken[g->index] >>= 1;
	if (!weights)
		return;
	LWM_BUG_ON(!k || !k->held);
	k->held--;
	if (k->held || !s->how.poison)
		return;
	overwrite(s, k->p, s->cut.group[g->index].slice * s->cut.shards, s->size);
	k->group = -1;
}

static int agree_all(struct lwm_supply *w, int rc, struct lwm_err *e)
{
	struct lwm_fsdp *s = (struct lwm_fsdp *)w;
	struct lwm_err why = { 0 };

	end_all(s, &rc, e);
	keep_failure(s, s->lost ? 0 : lwm_devcomm_settle(s->ranks, &why), &why, &rc, e);
	s->place = 0;
	return lwm_agree(lwm_devcomm_comm(s->sum), rc, e);
}

int lwm_fsdp_begin(struct lwm_fsdp *s, struct lwm_err *e)
{
	int64_t n = 0;

	for (int64_t g = 0; s->how.whole && g < s->cut.n; g++)
		n += s->cut.group[g].slice * s->cut.shards;
	return n ? lwm_dev_check(s->dev, lk_zero(s->dev, s->all, (size_t)n * sizeof *s->all), e) : 0;
}

void lwm_fsdp_renew(struct lwm_fsdp *s)
{
	for (int i = 0; i < s->nweights; i++) {
		LWM_BUG_ON(s->weights[i].held || s->weights[i].under_way);
		s->weights[i].group = -1;
	}
}

struct lwm_supply *lwm_fsdp_supply(struct lwm_fsdp *s)
{
	return &s->base;
}

/* ---- life ---- */

/* Rising, the last one with the first where they are used together, and falling. The first is not needed again. */
static void write_order(struct lwm_fsdp *s, bool tied)
{
	int64_t n = s->cut.n;

	for (int64_t g = 0; g < n; g++)
		s->order[s->norder++] = g;
	if (tied)
		s->order[s->norder++] = 0;
	s->nforward = s->norder;
	for (int64_t g = n - 2; g > 0; g--)
		s->order[s->norder++] = g;
}

static void place_slots(struct lwm_fsdp *s, int dtype)
{
	struct sizes z = size_slots(&s->cut, dtype, &s->how);
	char *p = s->block;

	for (int i = 0; i < s->nweights; i++, p += z.weights)
		s->weights[i] = (struct slot){ .p = p, .group = -1 };
	for (int i = 0; i < s->ngrads; i++, p += z.gradient + z.arriving)
		s->grads[i] = (struct slot){ .p = p, .group = -1, .arriving = z.arriving ? (float *)(p + z.gradient) : NULL };
	s->all = z.all ? (float *)p : NULL;
}

int lwm_fsdp_new(struct lwm_fsdp **out, struct lk_dev *dev, int dtype, const struct lwm_tensors *t, const struct lwm_cut *cut,
		  const void *own, float *grad, struct lwm_devcomm *ranks, const struct lwm_fsdp_how *how, struct lwm_err *e)
{
	static const struct lwm_supply_ops ops = { acquire_group, release_group, scatter_gradient, agree_all };
	int64_t bytes = lwm_fsdp_bytes(t, cut, dtype, how);
	struct lwm_fsdp *s = calloc(1, sizeof *s);
	void *block = NULL;
	int rc = 0;

	*out = NULL;
	if (!s)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for shards of a model");
	s->base = (struct lwm_supply){ .ops = &ops, .grads = true, .shared = true };
	s->dev = dev;
	s->ranks = s->sum = ranks;
	s->cut = *cut;
	s->how = *how;
	s->size = lk_dtype_size(dtype);
	s->own = own;
	s->grad = grad;
	s->nweights = count_slots(t, cut, how, &s->ngrads);
	s->weights = calloc((size_t)s->nweights, sizeof *s->weights);
	s->grads = calloc((size_t)s->ngrads + 1, sizeof *s->grads);
	s->taken = calloc((size_t)cut->n, sizeof *s->taken);
	s->order = calloc((size_t)cut->n * 2 + 1, sizeof *s->order);
	s->frozen = calloc((size_t)cut->n, sizeof *s->frozen);
	if (!s->weights || !s->grads || !s->taken || !s->order || !s->frozen)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "out of memory for shards of a model"));
	if (lk_mem_alloc(dev, (size_t)bytes, &block))
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "%s: no room for %" PRId64 " bytes of gathered weights and gradients",
				lk_dev_name(dev), bytes));
	s->block = block;
	for (int64_t g = 0; g < cut->n; g++)
		s->frozen[g] = !lwm_tensors_want(t, cut->group[g].offset, cut->group[g].count);
	place_slots(s, dtype);
	write_order(s, is_tied(t));
	*out = s;
out:
	if (rc < 0)
		lwm_fsdp_free(s);
	return rc;
}

void lwm_fsdp_chain(struct lwm_fsdp *s, struct lwm_devcomm *all)
{
	LWM_BUG_ON(!s->how.chain || s->how.whole);
	s->sum = all;
}

void lwm_fsdp_free(struct lwm_fsdp *s)
{
	if (!s)
		return;
	lk_mem_free(s->dev, s->block);
	free(s->weights);
	free(s->grads);
	free(s->taken);
	free(s->order);
	free(s->frozen);
	free(s);
}
