/* The time of a step, from what is computed and sent and from rates. A model, not a simulation: products, attention and everything
 * else one after the other at their rates; of what is sent beside them only what takes longer is added.
 *
 *	beside arithmetic (on GPUs)    the ring beside attention, gathered weights and scattered gradients beside everything
 *	waited for                     exchanges of ranks that share the model, of replicas; on hosts all: the same cores copy
 *
 * A group whose ranks lie on one node sends at the node's rate. Collectives over several nodes go round with one hop between two
 * nodes, over the cards of all its ranks of a node; what goes from one to one leaves over the sender's own. */
#include "common/train/plan_int.h"

const char *const lwm_plan_ways[LWM_WAYS] = { "tp", "ring", "shards", "replicas" };

/* Seconds that this way takes alone. */
static double time_alone(const struct lwm_plan_sent *x, const struct lwm_rates *r, bool collective)
{
	int64_t node = r->node_ranks > 0 ? r->node_ranks : x->span;
	double here = (double)x->ranks * (double)node / x->span, rate = r->node; /* ranks of the group on a node */

	here = here < 1 ? 1 : here;
	if (x->span > node) {
		double out = x->ranks > here ? (x->ranks - here) / (x->ranks - 1) : 0;

		rate = collective ? r->net * here : out > 0 ? r->net / out : r->node;
		rate = rate < r->node ? rate : r->node;
	}
	return x->bytes / (rate * 1e9) + x->calls * r->latency * 1e-6;
}

static double beyond(double seconds, double beside)
{
	return seconds > beside ? seconds - beside : 0;
}

static void add_part(struct lwm_plan_time *t, double seconds, double *most, const char *name)
{
	t->step += seconds;
	if (seconds <= *most)
		return;
	*most = seconds;
	t->limit = name;
}

static void time_parts(struct lwm_plan *p, const struct lwm_rates *r, double offload_left)
{
	static const char *const near[LWM_WAYS] = { "exchanges of ranks that share the model, on a node", "the ring, on a node",
						    "weights and gradients of shards, on a node", "gradients of replicas, on a node" };
	static const char *const far[LWM_WAYS] = { "exchanges of ranks that share the model, between nodes", "the ring, between nodes",
						   "weights and gradients of shards, between nodes",
						   "gradients of replicas, between nodes" };
	struct lwm_plan_time *t = &p->time;
	double most = 0;

	add_part(t, t->products, &most, "compute: products");
	add_part(t, t->attention, &most, "compute: attention");
	add_part(t, t->moved, &most, "memory rate");
	add_part(t, offload_left, &most, "the link to host memory");
	for (int w = 0; w < LWM_WAYS; w++) {
		bool out = r->node_ranks > 0 && p->sent[w].span > r->node_ranks;

		add_part(t, p->sent[w].waits, &most, out ? far[w] : near[w]);
	}
}

static void list_sent(struct lwm_plan *p, const struct lwm_objective *o, const struct lwm_cut *cut)
{
	struct lwm_stage_sends w = lwm_stage_sends(o, cut);
	const struct {
		double bytes, calls;
		int group;
	} way[LWM_WAYS] = { [LWM_WAY_TP] = { p->work.tp + w.tp, p->work.tp_calls + w.tp_calls, LWM_TP },
			    [LWM_WAY_RING] = { p->work.ring, p->work.ring_calls, LWM_SP },
			    [LWM_WAY_SHARDS] = { w.shards, w.shard_calls, LWM_SHARD },
			    [LWM_WAY_REPLICAS] = { w.replicas, w.replica_calls, cut->shards > 1 ? LWM_DP : LWM_GRAD } };

	for (int i = 0; i < LWM_WAYS; i++)
		p->sent[i] = (struct lwm_plan_sent){ .bytes = way[i].bytes, .calls = way[i].calls,
						     .ranks = lwm_mesh_ranks(&p->mesh, way[i].group),
						     .span = lwm_mesh_span(&p->mesh, way[i].group) };
}

void lwm_plan_time(struct lwm_plan *p, const struct lwm_objective *o, const struct lwm_cut *cut, bool host)
{
	const struct lwm_rates *r = &o->stage->rates;
	struct lwm_plan_time *t = &p->time;
	double compute, beside, state;

	list_sent(p, o, cut);
	*t = (struct lwm_plan_time){ .limit = "" };
	if (!o->type->work || !lwm_rates_known(r))
		return;
	/* AdamW reads and writes weights and moments, reads the gradient; which is set to zero, and measured for its norm */
	state = (double)cut->count * 4 + (double)cut->trained * (o->stage->ema > 0 ? 60 : 28) + (double)cut->local * 4;
	t->products = p->work.products / (r->products * 1e12);
	t->attention = p->work.attention / (r->attention * 1e12);
	t->moved = (p->work.moved + state) / (r->memory * 1e9);
	t->offloaded = r->host > 0 ? p->work.offloaded / (r->host * 1e9) : 0;
	for (int i = 0; i < LWM_WAYS; i++)
		p->sent[i].seconds = p->sent[i].waits = time_alone(&p->sent[i], r, i != LWM_WAY_RING);
	compute = t->products + t->attention + t->moved;
	beside = host ? 0 : compute;
	if (!host) {
		p->sent[LWM_WAY_RING].waits = beyond(p->sent[LWM_WAY_RING].seconds, t->attention);
		p->sent[LWM_WAY_SHARDS].waits = beyond(p->sent[LWM_WAY_SHARDS].seconds, compute);
	}
	time_parts(p, r, beyond(t->offloaded, beside));
}
