/* objective.h - what a stage trains: something with a flat vector of weights, a loss and its gradient.
 *
 * The loop knows only this. Sums are additive over micro batches and ranks; the loop adds them up over the ranks and hands
 * them back for rendering.
 */
#ifndef LWM_TRAIN_OBJECTIVE_H
#define LWM_TRAIN_OBJECTIVE_H

#include <jansson.h>

#include "common/base/str.h"
#include "common/comm/mesh.h"
#include "common/io/ckpt.h"
#include "common/tensor/tensor.h"
#include "common/train/stage.h"
#include "kernels/kernels.h"

enum { LWM_SUMS = 16 };

struct lwm_objective;
struct lwm_objective_ops {
	/* Weights are in place: makes what hangs on them. Local. compute: device, o->dtype, o->tensors.total long. */
	int (*attach)(struct lwm_objective *o, void *compute, struct lwm_err *e);
	/* Gradient of the step's loss times the norm, added to grads (device fp32); this rank's part. COLLECTIVE over sp. */
	int (*step)(struct lwm_objective *o, int64_t step, float *grads, double sums[LWM_SUMS], struct lwm_err *e);
	/* The held-out loss, this rank's part. COLLECTIVE over sp. NULL members: no evaluation. */
	int (*eval)(struct lwm_objective *o, double sums[LWM_SUMS], struct lwm_err *e);
	/* Summed over ranks: divisor of loss and gradient. */
	double (*norm)(const double sums[LWM_SUMS]);
	/* Appends ,"key":value... to a JSON object; returns the loss. eval: of an evaluation. */
	double (*render)(struct lwm_objective *o, const double sums[LWM_SUMS], bool eval, struct lwm_str *json);
	/* Model FLOPs of a step of these sums, over all ranks, without recomputation, counted from what it was trained on. NULL:
	 * not known, and nothing is said that needs it. Pure. */
	double (*flops)(const struct lwm_objective *o, const double sums[LWM_SUMS]);
	void (*free)(struct lwm_objective *o);
};

struct lwm_objective {
	const struct lwm_objective_ops *ops;
	const char *kind;      /* of checkpoints: "lwm", "vqgan" */
	struct lk_dev *dev;    /* borrowed */
	int dtype;             /* of the compute weights */
	struct lwm_tensors tensors; /* of the weights; the flat vector is tensors.total long */
	json_t *config;        /* what config.json of the merged model holds */
	const char *tokenizer_hash;
	char data[33];         /* hash of the training data's content, known at the latest after attach; "" unknown */
	int64_t tokens_per_step; /* for throughput: tokens, or frames */
	const char *unit;        /* "tok", "frame" */
	double most_flops;       /* of a step as ops->flops counts them, if each row were one document; 0: not known */
	int64_t memory_bytes;    /* activations on this rank */
	/* planning: what the device takes for itself in a step, 0: it does not say; host arrays (batches on their way, frames) */
	int64_t own_bytes, array_bytes;
	int64_t host_bytes;      /* of them, in pinned host memory beside the device; 0: none */
	/* planning: the longest row of one rank, with all on the device, and with activations in host memory; 0: not known */
	int64_t longest, longest_offload, longest_host_bytes;
	struct lwm_err absent;   /* planning: the first input that is not there, as a run would end; code 0: none */
	const struct lwm_stage *stage;
	const struct lwm_mesh *mesh;
};

/* Local (reads data). The stage and mesh are borrowed. */
int lwm_objective_tokens(struct lwm_objective **out, const struct lwm_stage *s, const struct lwm_mesh *m,
			 struct lk_dev *dev, struct lwm_err *e);
int lwm_objective_recon(struct lwm_objective **out, const struct lwm_stage *s, const struct lwm_mesh *m,
			struct lk_dev *dev, struct lwm_err *e);
void lwm_objective_free(struct lwm_objective *o); /* NULL is fine */
/* rc, or while planning 0 for an input that is not there (-LWM_ENOINPUT): o->absent keeps the first, and sizes are worked out
 * without it. */
int lwm_objective_absent(struct lwm_objective *o, int rc, struct lwm_err *e);
/* Local. Do the settings fit each other and the mesh (its dim is all that is looked at)? Reads no file. */
int lwm_objective_tokens_check(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e);
int lwm_objective_recon_check(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e);
int lwm_objective_check(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e);
/* The two of them by stage->objective. */
int lwm_objective_new(struct lwm_objective **out, const struct lwm_stage *s, const struct lwm_mesh *m,
		      struct lk_dev *dev, struct lwm_err *e);

#endif
