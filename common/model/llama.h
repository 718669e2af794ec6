/* llama.h - the LLaMA transformer (Touvron et al. 2023) over text and vision tokens: a step, in one call or in pieces.
 *
 * What the model is stands in llama_cfg.h, how it is run and what that takes in llama_mem.h.
 * Shapes: T local tokens, D dim, F ffn, H heads, K kv_heads, E = D/H head size, V rows of a vocabulary. Rows of a batch lie end
 * to end as different segments: there is no batch dimension. Inference is in common/infer.
 *
 * Tensor parallelism (run.tp, of tp ranks): the model's table is the local one, lwm_tensors_local of tp, and the weights are this
 * rank's part of it (range.h): H / tp heads, K / tp key heads or one that several ranks hold, F / tp columns of the MLP, V / tp
 * rows of the tables, and whole norms. All tp ranks are given the same batch of T tokens, tp dividing T; -LWM_EINTERNAL on all
 * when a batch is another one. Between the blocks each has T / tp rows of the residual stream; whole logits exist nowhere.
 */
#ifndef LWM_MODEL_LLAMA_H
#define LWM_MODEL_LLAMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/comm/comm.h"
#include "common/model/llama_cfg.h"
#include "common/model/llama_mem.h"
#include "common/model/weights.h"
#include "kernels/kernels.h"

struct lwm_llama;
/* Local. Allocates one block for all activations on dev (borrowed). */
int lwm_llama_new(struct lwm_llama **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
		  const struct lwm_llama_run *run, struct lwm_err *e);
void lwm_llama_free(struct lwm_llama *m); /* NULL is fine */

/* Host arrays of n local tokens. Under a ring every rank passes its slice; pos tells the order. */
struct lwm_llama_batch {
	int64_t n;
	const int32_t *tokens;
	const int32_t *targets; /* next token of the same segment; -1 none */
	const float *weights;   /* of the target's loss, normalised by the caller over all ranks; 0 = not counted */
	const int32_t *seg;     /* segment, unique over all rows of the step; < 0 padding */
	const int32_t *pos;     /* position in its segment, for rotary angles and causality */
	/* What all ranks of run.ring hold, (ranks, n) in rank order; NULL: they tell each other (attn_ring.h). */
	const int32_t *ring_seg, *ring_pos;
	const int32_t *group;   /* of each target, 0 to LWM_LOSS_GROUPS - 1: sums are kept for each; others, and NULL: of none */
};

enum { LWM_LOSS_GROUPS = 16 };
struct lwm_llama_stats { /* local sums per modality, fp64 */
	double loss[LWM_MODALITIES]; /* sum of weight * nll */
	double nll[LWM_MODALITIES];  /* sum of nll over counted tokens */
	double hits[LWM_MODALITIES]; /* counted tokens whose arg max is the target */
	int64_t tokens[LWM_MODALITIES];
	double group_nll[LWM_LOSS_GROUPS]; /* sum of nll over counted tokens of a group, and how many they are */
	int64_t group_tokens[LWM_LOSS_GROUPS];
};

/* ---- a step ----
 *
 *	lwm_llama_begin(m, b, w, e)      checks the batch, on all ranks
 *	lwm_llama_forward(m)             the residual stream, layer by layer
 *	lwm_llama_loss(m)                sums over counted targets; with gradients: of the heads and of the last stream
 *	lwm_llama_backward(m)            from there to the gradients of all weights
 *	lwm_llama_end(m, &stats, e)      what came of it
 *
 * w: the weights (weights.h); b and w are borrowed from begin to end. All are COLLECTIVE over run.ring and run.tp. A rank on
 * which something fails after begin continues without computing, so that nobody is left waiting, and says so in end, where all
 * ranks return the same: forward, loss and backward return nothing. Each needs the one before it; backward needs run.train and
 * w->grads. Where the loss was left out, out is NULL. Gradients are of sum(weight * nll), this rank's part, added to what lies
 * there: summing over ranks is the caller's business, but for run.tp: of the weights that a tensor-parallel rank holds its
 * gradient is whole for the tokens of its batch, also of those that other ranks hold too (norms, shared key heads), which get
 * the same bits on each of them.
 * Statistics are those of all tokens of the batch, the same on each tensor-parallel rank: to be counted once. */
int lwm_llama_begin(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_supply *w, struct lwm_err *e);
void lwm_llama_forward(struct lwm_llama *m);
void lwm_llama_loss(struct lwm_llama *m);
void lwm_llama_backward(struct lwm_llama *m);
int lwm_llama_end(struct lwm_llama *m, struct lwm_llama_stats *out, struct lwm_err *e);

/* All of it, backward where w->grads. */
int lwm_llama_step(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_supply *w, struct lwm_llama_stats *out,
		   struct lwm_err *e);

/* Forward only, logits (rows, vocabulary of the modality) of the local tokens rows[0..nrows) to host memory: for
 * tests and tools, not for long rows. COLLECTIVE over run.ring and run.tp; the ranks of run.tp name the same rows and all get them
 * whole. */
int lwm_llama_logits(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_supply *w, enum lwm_modality head,
		     const int32_t *rows, int64_t nrows, float *host_out, struct lwm_err *e);

#endif
