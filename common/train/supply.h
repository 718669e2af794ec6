/* supply.h - how a run's weights are cut over its ranks, and where its objective gets them from.
 *
 *	lwm_stage_cut(&cut, o, rank, e)           who owns what: pure, for a plan too
 *	room = lwm_stage_room_of(o, &cut)         what it takes
 *	lwm_supply_open(&s, o, mesh, e)           in a run: vectors, and what brings them to the objective
 *	o->type->attach(o, s.supply, e)
 *	each step: lwm_supply_begin, o->type->step(o, step, s.supply, ...), lwm_supply_changed after the update
 *	lwm_supply_close(&s)
 *
 * Either every rank has all weights and the whole gradient, in one flat vector, and optimizer state is cut over dp*fsdp*sp; or all
 * of them are cut over fsdp*sp, the state over dp too, and groups are gathered while they are used (--shard-weights).
 */
#ifndef LWM_TRAIN_SUPPLY_H
#define LWM_TRAIN_SUPPLY_H

#include "common/model/weights_fsdp.h"
#include "common/optim/lora.h"
#include "common/optim/weights.h"
#include "common/train/objective.h"

/* Are the weights of this objective cut over fsdp*sp? By settings, mesh and device alone. */
bool lwm_stage_shards(const struct lwm_objective *o);
/* Local. The cut as rank `rank` of LWM_GRAD has it; lwm_cut_release. -LWM_EMEMORY. */
int lwm_stage_cut(struct lwm_cut *cut, const struct lwm_objective *o, int rank, struct lwm_err *e);

struct lwm_stage_room {  /* bytes of one rank */
	int64_t weights; /* and gradients and optimizer state, own and gathered: the sum of the next five */
	int64_t own, gathered, gradients, moments, average; /* own: weights, those in fp32 beside them too, work of adapters */
	int64_t work;    /* host memory of exchanges and of saves that nothing is behind, where the device's memory is the host's */
	int64_t copy;    /* host memory that checkpoints are written from behind the computation; 0: the settings want none */
};
/* Local, pure. o: its table, dtype, mesh and passes are known. */
struct lwm_stage_room lwm_stage_room_of(const struct lwm_objective *o, const struct lwm_cut *cut);
/* Local, pure. Do weights, activations, exchanges and the copy go into so much host memory, where the device has no other? What a
 * plan and a run both ask. */
bool lwm_stage_copy_fits(const struct lwm_objective *o, const struct lwm_stage_room *y, int64_t bytes);

/* What a rank sends of its weights and gradients in a step (README.md, "Who has which weights"), in bytes, and in how many
 * exchanges: to the other shards (LWM_SHARD), to the other replicas (LWM_DP, or LWM_GRAD where weights are whole), of adapters to
 * those that share the model. */
struct lwm_stage_sends {
	double shards, replicas, tp, shard_calls, replica_calls, tp_calls;
};
struct lwm_stage_sends lwm_stage_sends(const struct lwm_objective *o, const struct lwm_cut *cut); /* local, pure; as above */

struct lwm_stage_supply {
	struct lwm_supply *supply;    /* what the objective gets */
	struct lwm_weights w;
	struct lwm_lora lora;         /* zero: no adapters */
	struct lwm_cut cut;           /* of this rank */
	struct lwm_flat_weights flat;
	struct lwm_fsdp *fsdp;       /* NULL: flat */
};
/* COLLECTIVE over the mesh's world; all return the same. After a failure, lwm_supply_close. */
int lwm_supply_open(struct lwm_stage_supply *s, const struct lwm_objective *o, struct lwm_mesh *m, struct lwm_err *e);
void lwm_supply_close(struct lwm_stage_supply *s);
int lwm_supply_begin(struct lwm_stage_supply *s, struct lwm_err *e); /* local. Gradients are 0, and wanted */
void lwm_supply_changed(struct lwm_stage_supply *s);                 /* local. Weights are new; no gradients are wanted */

#endif
