/* objective.h - what a stage trains: something with a flat vector of weights, a loss and its gradient.
 *
 *	type = lwm_objectives[s->objective]
 *	type->check(s, &mesh, e)                       settings alone, no file
 *	lwm_objective_open(&o, type, s, &mesh, dev, e) data, model, sizes
 *	weights are drawn by o->tensors or read (save.h); type->attach(o, weights, e)
 *	each step: type->step(o, step, weights, sums, e); sums over the ranks; type->norm(sums), type->render(o, sums, ...)
 *	lwm_objective_free(o)
 *
 * The loop, plans, records and metrics know only this. Sums are additive over microbatches and ranks; the loop adds them up over
 * the ranks and hands them back for rendering.
 */
#ifndef LWM_TRAIN_OBJECTIVE_H
#define LWM_TRAIN_OBJECTIVE_H

#include <jansson.h>

#include "common/base/str.h"
#include "common/comm/mesh.h"
#include "common/model/weights.h"
#include "common/tensor/tensor.h"
#include "common/train/samples.h"
#include "common/train/settings.h"
#include "common/train/stage.h"
#include "kernels/kernels.h"

enum { LWM_SUMS = 48 };

struct lwm_objective;
/* What one rank computes and sends in a step of documents as planned (stage->plan_document); weights and gradients are not
 * among it. */
struct lwm_step_work {
	double products, attention; /* FLOPs, what is computed again too; of attention as rates.h counts */
	double moved;               /* bytes of memory that everything else reads and writes: an estimate */
	double offloaded;           /* bytes from the device to host memory and back */
	double tp, ring;            /* bytes sent to ranks that share the model; that share the row: their mean */
	double tp_calls, ring_calls; /* in so many exchanges */
};
/* What an objective is, one constant for each: its line in objectives.c names it. */
struct lwm_objective_type {
	const char *kind; /* of its checkpoints: "lwm", "vqgan", "trunk" */
	const char *unit; /* of what it trains on: "tok", "frame" */
	/* Holds out some of --data itself: it evaluates without --eval-data too. */
	bool holds_out;
	/* Its own settings: their table, and the size of the struct that lwm_settings_of(stage, settings) finds. */
	const struct lwm_setting *settings;
	size_t settings_size;
	size_t size; /* of its own struct, which begins with a struct lwm_objective */
	/* Do the settings fit each other and the mesh (its dim is all that may be looked at)? Reads no file. -LWM_EUSAGE,
	 * -LWM_ECONFIG. */
	int (*check)(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e);
	/* Reads data and fills o, of which type, stage, mesh and device are set and the rest is zero. After a failure close is
	 * called, too. COLLECTIVE over the mesh's world, which is NULL while planning. */
	int (*open)(struct lwm_objective *o, struct lwm_err *e);
	/* Goes to its weights group by group alone, so that they may be cut over ranks, and only reads them. If not, every rank has
	 * them whole: what is acquired of group 0 is the beginning of the flat vector, and stays where it is. */
	bool by_group;
	/* Can sum microbatch after microbatch in the order of the step's rows (stage->sum_order): they are dealt to the data ranks
	 * in turn, their gradients go through w one by one; sums are formed likewise and returned by the first data rank alone. */
	bool by_row;
	/* Forms gradients of the loss times w->scale (weights.h): without that it is not trained in fp16. */
	bool scales;
	/* Weights are in place: makes what depends on them. COLLECTIVE over the ranks that share them. w: device, o->dtype;
	 * borrowed, the same in each call. */
	int (*attach)(struct lwm_objective *o, struct lwm_supply *w, struct lwm_err *e);
	/* Gradient of the step's loss times the norm, added to that of w (device fp32); this rank's part. COLLECTIVE over sp and
	 * over the ranks that share w: they go through its groups equally often. */
	int (*step)(struct lwm_objective *o, int64_t step, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e);
	/* After update n (from 0; steps that are skipped make none): writes what the objective keeps among its weights by itself
	 * (tensor.h, `written`), of what its last step found; the same on all ranks. Local. NULL: nothing. */
	int (*updated)(struct lwm_objective *o, int64_t n, struct lwm_supply *w, struct lwm_err *e);
	/* The held-out loss, this rank's part. COLLECTIVE as step is. Called where there are held-out data. */
	int (*eval)(struct lwm_objective *o, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e);
	/* What the model makes of stage->samples examples, of those held out where there are any, after `step` updates. The same on
	 * every rank; changes nothing that training looks at. COLLECTIVE as step is. NULL: it has nothing to show. */
	int (*sample)(struct lwm_objective *o, int64_t step, struct lwm_supply *w, struct lwm_samples *made,
		      struct lwm_err *e);
	/* Summed over ranks: divisor of loss and gradient. */
	double (*norm)(const double sums[LWM_SUMS]);
	/* Appends ,"key":value... to a JSON object; returns the loss. eval: of an evaluation. */
	double (*render)(struct lwm_objective *o, const double sums[LWM_SUMS], bool eval, struct lwm_str *json);
	/* Model FLOPs of a step of these sums, over all ranks, without recomputation, counted from what it was trained on. NULL:
	 * not known, and nothing is said that needs it. Pure. */
	double (*flops)(const struct lwm_objective *o, const double sums[LWM_SUMS]);
	/* For plans, local; NULL: not known, then a plan says nothing of time. -LWM_EMEMORY. */
	int (*work)(struct lwm_objective *o, struct lwm_step_work *w, struct lwm_err *e);
	/* Ways of running it that give the same results in another time or memory, for --suggest: makes way number i in s and
	 * returns its options as text, "" for none; NULL: there is no such way. May be NULL: there is one. */
	const char *(*vary)(const struct lwm_stage *s, int i);
	/* Releases what is its own; the table of weights, the configuration and o itself are released by lwm_objective_free. */
	void (*close)(struct lwm_objective *o);
};
/* All of them, NULL-terminated, and their names for --objective in the same order (objectives.c). */
extern const struct lwm_objective_type *const lwm_objectives[];
extern const char *const lwm_objective_names[];

/* One that is open: an objective's own struct begins with it. */
struct lwm_objective {
	const struct lwm_objective_type *type; /* these four are borrowed and set before type->open */
	const struct lwm_stage *stage;
	const struct lwm_mesh *mesh;
	struct lk_dev *dev;
	int dtype;             /* of the compute weights */
	struct lwm_tensors tensors; /* of the weights, whole */
	struct lwm_tensors local;   /* what each tensor-parallel rank has of them (range.h): its flat vector is local.total long */
	double momentum;       /* of tensors that follow others (tensor.h), after each update; 0: there are none */
	bool whole;            /* with these settings it takes its weights whole, though type->by_group */
	json_t *config;        /* what config.json of the merged model holds */
	const char *tokenizer_hash; /* of the one that the data were made with; "": none */
	char data[33];         /* hash of the training data's content, known at the latest after attach; "" unknown */
	char network[33];      /* hash of the frozen network that its loss looks through (--perceptual-net); "" none */
	int64_t units_per_step; /* for throughput: tokens, or frames */
	int64_t passes;        /* times that a step goes through the weights: microbatches */
	double most_flops;       /* of a step as type->flops counts them, if each row were one document; 0: not known */
	int64_t memory_bytes;    /* activations on this rank, with what follows */
	int64_t ring_bytes;      /* of them, what travels in a ring */
	int64_t ring_fills;      /* planning: of these what rows as planned for write to; on a host the rest lies in no memory */
	int64_t exchange_bytes;  /* planning, of array_bytes: work space of ranks that share the model */
	/* planning: what the device takes for itself in a step, 0: it does not say; host arrays (batches on their way, frames) */
	int64_t own_bytes, array_bytes;
	/* planning: what lies on the device before there are weights, and not any more when they come; what it takes for itself
	 * meanwhile; host arrays at that time, which array_bytes has too */
	int64_t loading_bytes, loading_own, loading_arrays;
	int64_t host_bytes;      /* of them, in pinned host memory beside the device; 0: none */
	/* planning: the longest row of one rank, with all on the device, and with activations in host memory; 0: not known */
	int64_t longest, longest_offload, longest_host_bytes;
	/* planning: lines that the plan shows, each "label          text\n"; ,"key":value of the plan as JSON; what is empty says nothing */
	struct lwm_str plan_lines, plan_json;
	struct lwm_err absent;   /* planning: the first input that does not exist, as a run would end; code 0: none */
};

/* Type, stage, mesh and device are borrowed. COLLECTIVE over the mesh's world. */
int lwm_objective_open(struct lwm_objective **out, const struct lwm_objective_type *type, const struct lwm_stage *s,
		       const struct lwm_mesh *m, struct lk_dev *dev, struct lwm_err *e);
void lwm_objective_free(struct lwm_objective *o); /* NULL is fine */
/* Makes o->local of o->tensors, unless it is there; before that, what the stage chose of them is marked as trained (choose.h): an
 * objective that writes weights itself looks at that. For objectives that need it while they are opened; else lwm_objective_open
 * does it. -LWM_ECONFIG: the mesh's tp cannot cut them, or the choice does not fit
 * them. */
int lwm_objective_localize(struct lwm_objective *o, struct lwm_err *e);
/* rc, or while planning 0 for an input that does not exist (-LWM_ENOINPUT): o->absent keeps the first, and sizes are worked out
 * without it. */
int lwm_objective_absent(struct lwm_objective *o, int rc, struct lwm_err *e);

#endif
