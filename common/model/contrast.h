/* contrast.h - two views of each clip drawn together, all others apart: InfoNCE (van den Oord et al. 2018) over a trunk.
 *
 * A view is `tokens` vectors (trunk.h). Every token sees all of its view. Then
 *
 *	p = Wdown (silu(Wgate m) * Wup m),  m = mean of the view's hidden states      the projection head (Chen et al. 2020)
 *	z = p / |p|
 *	loss of pair i = 1/2 [ -log softmax_j(a_i b_j / t)_i - log softmax_j(b_i a_j / t)_i ]
 *
 * for the first views a and the second views b of all N pairs of a step, on whichever rank they are; t the temperature, 0.07 as
 * in MoCo (He et al. 2020). Negatives are the N - 1 other pairs; a view is never compared with its own side (CLIP, Radford et al.
 * 2021; MoCo v3, Chen et al. 2021). The gradient is exact through the gather: of b_j each rank has a part, and these are summed.
 *
 * With a momentum encoder (MoCo: He et al. 2020, Algorithm 1) first views are queries, second ones keys. Keys come from a copy of
 * trunk and head, `momentum.*` in the table, which follows them (lwm_weights_follow), and are constants. With a queue of K keys c
 * of earlier steps, k_i the key of q_i, both of length 1,
 *
 *	loss of pair i = -log ( e^(q_i k_i / t) / (e^(q_i k_i / t) + sum over j of e^(q_i c_j / t)) )
 *
 * and without one the keys of the same step are the negatives (MoCo v3, of which the predictor and the second direction are left
 * out): -log softmax_j(q_i k_j / t)_i. The queue is the tensor momentum.queue (K, out), rows of length 1, random ones at first.
 * After an update the N keys of the step, of all ranks in the order of the clips, replace the oldest ones: rows n N mod K and on, n
 * counts updates. So it is the same on any number of ranks, and where it stands needs no saving. Rows are in the device's dtype.
 * Weights are whole on each rank.
 *
 *	lwm_contrast_new(&c, dev, &cfg, &run, e)
 *	lwm_contrast_step(c, pairs, fill, ctx, w, &stats, e)
 *	lwm_contrast_enqueue(c, n, w, e)                        of the last step, when an update was made of it
 *	lwm_contrast_free(c)
 *
 * More views than go through the trunk at once (run.at_once): all forward once for the loss, then each part again with its
 * backward (GradCache, Gao et al. 2021), so that the negatives are the same, and the loss.
 *
 * A rank sends, of n pairs and E numbers, among R ranks: forward 2 gathers of 4 n E bytes to each of the others; with gradients
 * 2 scattered sums of as many. With momentum it is one gather and no sum. z, logits and their gradients are fp32.
 */
#ifndef LWM_MODEL_CONTRAST_H
#define LWM_MODEL_CONTRAST_H

#include "common/comm/devcomm.h"
#include "common/model/trunk.h"

struct lwm_contrast_cfg {
	struct lwm_llama_cfg trunk;
	int64_t tokens; /* of a view */
	int64_t hidden; /* width inside the projection head */
	int64_t out;    /* numbers of z */
	double temperature;
	bool momentum;  /* keys are of a copy of the weights */
	int64_t queue;  /* K, keys that it holds: a multiple of all pairs of a step, with momentum alone; 0: no queue */
};
struct lwm_contrast_run {
	struct lwm_llama_run how; /* of it tokens, no_causal, ring and tp are set here */
	int64_t pairs;            /* most of this rank in a step */
	int64_t at_once;          /* views through the trunk at once, at most 2 pairs, pairs with momentum; 0: all of these */
	struct lwm_devcomm *ranks; /* that share the pairs, borrowed; NULL: this one alone */
};

int lwm_contrast_check(const struct lwm_contrast_cfg *c, struct lwm_err *e); /* -LWM_ECONFIG */
/* The trunk's table, with contrast.gate_proj, up_proj (hidden, dim) and down_proj (out, hidden) in the group of the last norm. With
 * momentum a copy of all of these follows, in as many groups, and the queue, a group too, which are not trained. */
int lwm_contrast_tensors(struct lwm_tensors *t, const struct lwm_contrast_cfg *c, struct lwm_err *e);
/* Pure. Device memory that lwm_contrast_new takes with `ranks` ranks; beside it pinned host memory, of run.how.offload; and host
 * arrays. */
int64_t lwm_contrast_memory(const struct lwm_contrast_cfg *c, const struct lwm_contrast_run *r, int dtype, int ranks);
int64_t lwm_contrast_host(const struct lwm_contrast_cfg *c, const struct lwm_contrast_run *r, int dtype);
int64_t lwm_contrast_arrays(const struct lwm_contrast_cfg *c, const struct lwm_contrast_run *r);
/* Pure. FLOPs of training on so many pairs of a step, counted as lwm_llama_work_flops does; what goes through the trunk twice
 * counts once. */
double lwm_contrast_flops(const struct lwm_contrast_cfg *c, double pairs);
/* Local. What the device takes for itself in such steps; 0: it does not say. */
int64_t lwm_contrast_own(struct lk_dev *dev, const struct lwm_contrast_cfg *c, const struct lwm_contrast_run *r, int ranks);

struct lwm_contrast;
/* Local; dev is borrowed. -LWM_ECONFIG, -LWM_EMEMORY, -LWM_EDEVICE. */
int lwm_contrast_new(struct lwm_contrast **out, struct lk_dev *dev, const struct lwm_contrast_cfg *c,
		     const struct lwm_contrast_run *r, struct lwm_err *e);
void lwm_contrast_free(struct lwm_contrast *m); /* NULL is fine */

struct lwm_contrast_stats { /* local sums, added to */
	double pairs, loss;
	double hits; /* of the 2 pairs searches for the other view those that find it first, halved; with momentum pairs searches */
};
/* Writes views [first, first + n) of this rank, (n, tokens, input_dim): pair i is view i and view pairs + i. Of a failure -code. */
typedef int lwm_view_fn(void *ctx, int64_t first, int64_t n, float *out, struct lwm_err *e);
/* A step of `pairs` pairs of this rank, 1 to run.pairs, as many on each rank. With w->grads the gradient of the sum of the losses
 * of all pairs, this rank's part, is added. COLLECTIVE over run.ranks and those that share w: a rank that fails goes through all
 * exchanges even so. Returns the first failure of this rank; all ranks have to agree on it before gradients are used. */
int lwm_contrast_step(struct lwm_contrast *m, int64_t pairs, lwm_view_fn *fill, void *ctx, struct lwm_supply *w,
		      struct lwm_contrast_stats *stats, struct lwm_err *e);
/* Of update n, from 0 on: the keys of the last step, of all ranks, go into the queue that w has, if there is one. All ranks that
 * have the weights do it alike. Local; every step has as many pairs. */
int lwm_contrast_enqueue(struct lwm_contrast *m, int64_t n, struct lwm_supply *w, struct lwm_err *e);
/* The embeddings z times sqrt(out) of this rank's last step, (2 pairs, out), to host memory: for tests and tools. Local. */
int lwm_contrast_embeddings(struct lwm_contrast *m, float *host_out, struct lwm_err *e);

#endif
