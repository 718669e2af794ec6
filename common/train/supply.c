/* supply.c - weights whole on every rank, or cut over fsdp*sp: which of the two, what it takes, and the body that supplies them. */
#include "common/train/supply.h"

#include "common/comm/device.h"
#include "common/train/saver.h"

bool lwm_stage_shards(const struct lwm_objective *o)
{
	const struct lwm_stage *s = o->stage;
	bool host = lk_dev_is_host(o->dev) && !s->plan_gib;

	if (!o->type->by_group || o->whole || lwm_mesh_ranks(o->mesh, LWM_SHARD) == 1 || s->shard_weights == LWM_SHARD_FALSE)
		return false;
	return s->shard_weights == LWM_SHARD_TRUE || o->mesh->dim[LWM_FSDP] > 1 || !host;
}

static bool sums_canonically(const struct lwm_objective *o)
{
	return o->stage->sum_order == LWM_SUM_CANONICAL;
}

static struct lwm_fsdp_how how_of(const struct lwm_objective *o)
{
	const struct lwm_stage *s = o->stage;

	return (struct lwm_fsdp_how){ .ahead = (int)s->gather_ahead,
				      .chain = sums_canonically(o),
				      .whole = s->scatter == LWM_SCATTER_STEP && o->passes > 1 && !sums_canonically(o) };
}

int lwm_stage_cut(struct lwm_cut *cut, const struct lwm_objective *o, int rank, struct lwm_err *e)
{
	int ranks = lwm_mesh_ranks(o->mesh, LWM_GRAD), shards = lwm_stage_shards(o) ? lwm_mesh_ranks(o->mesh, LWM_SHARD) : 1;

	LWM_TRY(lwm_cut_new(cut, &o->local, shards, ranks / shards, e));
	*cut = lwm_cut_of(cut, rank);
	return 0;
}

static bool adapts(const struct lwm_objective *o)
{
	return o->stage->lora && *o->stage->lora;
}

struct lwm_stage_room lwm_stage_room_of(const struct lwm_objective *o, const struct lwm_cut *c)
{
	struct lwm_fsdp_how how = how_of(o);
	const struct lwm_stage *s = o->stage;
	const struct lk_dev *dev = s->plan_gib ? NULL : o->dev; /* pages of one that is not here nobody knows */
	bool before_last = s->checkpoint_every > 0 && s->checkpoint_every < s->steps;
	struct lwm_weights_room flat = lwm_weights_room_of(c, o->dtype, sums_canonically(o), dev);
	struct lwm_stage_room y = { .own = flat.weights, .gradients = flat.gradients, .moments = flat.moments,
				    .average = s->ema > 0 ? flat.average : 0,
				    .work = lwm_comm_work(c->replicas, lwm_cut_longest(c)) };

	if (c->shards > 1) {
		int64_t slots = lwm_fsdp_bytes(&o->local, c, o->dtype, &how);
		if (dev && lk_dev_is_host(dev))
			slots -= lwm_fsdp_unfilled(&o->local, c, &how);
		y.gathered = lwm_fsdp_gathered(&o->local, c, o->dtype, &how);
		y.gradients += (dev ? lk_mem_own(dev, slots) : slots) - y.gathered;
		y.work += lwm_comm_work(sums_canonically(o) ? c->shards * c->replicas : c->shards, lwm_cut_largest(c));
	}
	if (adapts(o) && c->shards > 1 && c->replicas > 1) /* neither of the groups above */
		y.work += lwm_comm_work(c->shards * c->replicas, lwm_lora_values(&o->local));
	if (adapts(o))
		y.own += lwm_lora_bytes(&o->local, o->mesh->dim[LWM_TP], sums_canonically(o), dev);
	if (adapts(o) && o->dtype == LK_F32)
		y.own += dev ? lk_mem_own(dev, c->count * 4) : c->count * 4;
	y.weights = y.own + y.gathered + y.gradients + y.moments + y.average;
	y.copy = s->save_behind != LWM_BEHIND_FALSE && before_last ? lwm_saver_copy_bytes(c, s->ema > 0) : 0;
	if (!y.copy && c->spread && o->dtype == LK_F32 && !adapts(o)) /* masters lie apart: a save brings them together */
		y.work += c->count * 4;
	return y;
}

/* How often a group is gathered in a step of m microbatches: once in each forward; layers for each backward too, but for those
 * that lie in a slot still, the last `ahead`; nor are the first `ahead` gathered for a later forward. */
static int64_t count_gathers(const struct lwm_cut *c, int64_t g, int64_t ahead, int64_t m)
{
	bool layer = g > 0 && g < c->n - 1;

	if (!layer)
		return m;
	return 2 * m - (g >= c->n - 1 - ahead ? m : 0) - (g <= ahead ? m - 1 : 0);
}

/* Of m microbatches where each is added up by itself, over all ranks: (n - 1) 4 m bytes of each part of a group, and the sums of
 * losses. */
static double chained_bytes(const struct lwm_objective *o, const struct lwm_cut *c, int64_t m)
{
	int64_t parts = 0, n = (int64_t)c->shards * c->replicas;

	for (int64_t g = 0; g < c->n; g++)
		if (lwm_tensors_want(&o->local, c->group[g].offset, c->group[g].count))
			parts += (c->group[g].slice + c->replicas - 1) / c->replicas;
	return (double)((n - 1) * m * (4 * (c->shards > 1 ? parts : lwm_cut_moving(c)) + LWM_SUMS * (int64_t)sizeof(double)));
}

/* Of a sum of k floats over n ranks. */
static double sum_bytes(int64_t n, int64_t k)
{
	return 2.0 * (double)((n - 1) * 4 * ((k + n - 1) / n));
}

/* The adapters of all ranks, and the sum of their gradients, or of their matrices'. */
static double adapter_bytes(const struct lwm_objective *o, const struct lwm_cut *c, double *calls)
{
	int64_t n = (int64_t)c->shards * c->replicas, k = lwm_lora_values(&o->local);
	double y = sum_bytes(n, k);

	*calls = 1;
	for (int64_t i = 0; sums_canonically(o) && i < o->local.n; i++)
		if (o->local.list[i].adapted) {
			y += sum_bytes(n, o->local.list[i].count);
			++*calls;
		}
	if (sums_canonically(o))
		return y;
	*calls = 2;
	return y + sum_bytes(n, k);
}

/* Of a rank, means over the shards: elements that it owns and that move, those that follow, and exchanges of both. */
struct moving {
	double moves, follows, calls;
};

static struct moving mean_moving(const struct lwm_cut *c)
{
	struct moving y = { 0 };

	for (int r = 0; r < c->shards; r++) {
		struct lwm_cut own = lwm_cut_of(c, r);

		y.moves += (double)lwm_cut_moving(&own);
		y.follows += (double)lwm_cut_following(&own);
		for (int64_t i = 0, n = lwm_cut_stretches(&own); i < n; i++)
			y.calls += 2 * lwm_cut_stretch(&own, i).moves + lwm_cut_stretch(&own, i).follows;
	}
	return (struct moving){ y.moves / c->shards, y.follows / c->shards, y.calls / c->shards };
}

struct lwm_stage_sends lwm_stage_sends(const struct lwm_objective *o, const struct lwm_cut *c)
{
	struct lwm_fsdp_how how = how_of(o);
	double a = (double)lk_dtype_size(o->dtype), all = 0;
	struct lwm_stage_sends y = { 0 };
	int64_t m = o->passes, scatters = how.chain ? 0 : how.whole ? 1 : m;
	struct moving moving = mean_moving(c);

	for (int64_t g = 0; c->shards > 1 && g < c->n; g++) {
		int64_t gathers = count_gathers(c, g, how.ahead, m);

		if (g == 0 && c->n > how.ahead + 2 && lwm_tensors_have(&o->local, LWM_ROLE_EMBED) &&
		    !lwm_tensors_have(&o->local, LWM_ROLE_HEAD))
			gathers += m; /* the embedding, once more at the end of each forward */

		bool wanted = lwm_tensors_want(&o->local, c->group[g].offset, c->group[g].count);

		all += (double)c->group[g].slice * (a * (double)gathers + 4 * (double)(wanted ? scatters : 0));
		y.shard_calls += (double)(gathers + (wanted ? how.chain ? m : scatters : 0));
	}
	y.shards = (c->shards - 1) * all;
	y.replicas = (c->replicas - 1) * (((how.chain && c->shards == 1 ? 0 : 4) + a) * moving.moves + a * moving.follows);
	y.replica_calls = c->replicas > 1 ? moving.calls : 0;
	if (adapts(o)) {
		int64_t tp = o->mesh->dim[LWM_TP], shared = lwm_lora_shared(&o->local, (int)tp);
		double calls;

		*(c->shards > 1 ? &y.shards : &y.replicas) += adapter_bytes(o, c, &calls);
		*(c->shards > 1 ? &y.shard_calls : &y.replica_calls) += c->shards * c->replicas > 1 ? calls : 0;
		y.tp = sum_bytes(tp, shared);
		y.tp_calls = shared > 0;
	}
	if (how.chain) /* over shards and replicas at once */
		*(c->shards > 1 ? &y.shards : &y.replicas) += chained_bytes(o, c, m);
	return y;
}

bool lwm_stage_copy_fits(const struct lwm_objective *o, const struct lwm_stage_room *y, int64_t bytes)
{
	return y->weights + y->work + y->copy + o->memory_bytes + o->host_bytes <= bytes;
}

/* The ranks that exchange: one more group of the mesh where weights are cut, and the replicas of a shard. */
static int attach_groups(const struct lwm_stage_supply *s, const struct lwm_objective *o, struct lwm_mesh *m, struct lwm_err *e)
{
	if (s->cut.shards == 1)
		return 0;
	LWM_TRY(lwm_mesh_attach_group(m, LWM_SHARD, o->dev, e));
	return s->cut.replicas > 1 ? lwm_mesh_attach_group(m, LWM_DP, o->dev, e) : 0;
}

static int open_adapters(struct lwm_stage_supply *s, const struct lwm_objective *o, const struct lwm_mesh *m, struct lwm_err *e)
{
	struct lwm_adapters how = lwm_stage_adapters(o->stage);
	struct lwm_lora_how by = { .scale = lwm_adapters_scale(&how), .model = &o->tensors, .whole = sums_canonically(o),
				   .ranks = s->cut.shards * s->cut.replicas > 1 ? m->dev[LWM_GRAD] : NULL,
				   .tp = m->dim[LWM_TP] > 1 ? m->dev[LWM_TP] : NULL };

	LWM_TRY(lwm_weights_part_master(&s->w, e));
	LWM_TRY(lwm_lora_new(&s->lora, &s->w, &o->local, &by, e));
	s->w.lora = &s->lora;
	return 0;
}

static int make_supply(struct lwm_stage_supply *s, const struct lwm_objective *o, const struct lwm_mesh *m, struct lwm_err *e)
{
	struct lwm_devcomm *replicas = m->dev[s->cut.shards == 1 ? LWM_GRAD : LWM_DP];
	struct lwm_fsdp_how how = how_of(o);
	struct lwm_norm_share share = { &o->tensors, &o->local, m->dim[LWM_TP], m->coord[LWM_TP] };

	LWM_TRY(lwm_weights_new(&s->w, o->dev, o->dtype, &s->cut, replicas, m->world, sums_canonically(o), e));
	s->w.share = share;
	if (adapts(o))
		LWM_TRY(open_adapters(s, o, m, e));
	if (o->stage->ema > 0)
		LWM_TRY(lwm_weights_keep_average(&s->w, e));
	if (s->cut.shards == 1) {
		s->flat = lwm_flat_weights_of(s->w.compute, o->dtype, s->w.grad);
		s->supply = &s->flat.base;
		s->supply->table = &o->local;
		if (sums_canonically(o))
			lwm_flat_weights_chain(&s->flat, o->dev, m->dev[LWM_GRAD], s->w.slice, &s->cut);
		return 0;
	}
	LWM_TRY(lwm_fsdp_new(&s->fsdp, o->dev, o->dtype, &o->local, &s->cut, s->w.compute, s->w.grad, m->dev[LWM_SHARD], &how,
			      e));
	if (how.chain)
		lwm_fsdp_chain(s->fsdp, m->dev[LWM_GRAD]);
	s->supply = lwm_fsdp_supply(s->fsdp);
	s->supply->table = &o->local;
	return 0;
}

int lwm_supply_open(struct lwm_stage_supply *s, const struct lwm_objective *o, struct lwm_mesh *m, struct lwm_err *e)
{
	*s = (struct lwm_stage_supply){ .supply = NULL };
	LWM_TRY(lwm_agree(m->world, lwm_stage_cut(&s->cut, o, lwm_mesh_rank(m, LWM_GRAD), e), e));
	LWM_TRY(attach_groups(s, o, m, e));
	return lwm_agree(m->world, make_supply(s, o, m, e), e);
}

void lwm_supply_close(struct lwm_stage_supply *s)
{
	lwm_fsdp_free(s->fsdp);
	lwm_lora_release(&s->lora);
	lwm_weights_release(&s->w);
	lwm_cut_release(&s->cut);
}

int lwm_supply_begin(struct lwm_stage_supply *s, struct lwm_err *e)
{
	s->supply->grads = true;
	LWM_TRY(lwm_weights_zero_grad(&s->w, e));
	return s->fsdp ? lwm_fsdp_begin(s->fsdp, e) : 0;
}

void lwm_supply_changed(struct lwm_stage_supply *s)
{
	s->supply->grads = false;
	if (s->fsdp)
		lwm_fsdp_renew(s->fsdp);
}
