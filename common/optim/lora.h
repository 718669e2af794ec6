/* lora.h - adapters of low rank: a matrix W that is frozen computes as W + scale B A, where A (rank, in) and B (out, rank) train.
 *
 * Low-rank adaptation (Hu et al. 2021), by its effective weights: what models compute with is the sum, so that every objective,
 * every layout (q, k and v as one matrix) and every way of sharding works as it does, and gradients follow from those of the sum D:
 *
 *	dA = scale B^T D,  dB = scale D A^T
 *
 * exactly those of y = W x + scale B (A x), which is never formed. Adapters are tensors of the table (tensor/adapter.h) and have
 * all that others have, moments, average, a place in checkpoints; master weights (weights.h) are W, compute weights the sum. Each
 * rank works on what it owns of W: its rows' part of dA and dB, which are then summed over all ranks, and its piece of the sum.
 *
 *	lwm_weights_part_master(&w, e)               W and the sum are apart, where activations are fp32 too
 *	lwm_lora_new(&l, &w, &table, ranks, scale, e);   w.lora = &l
 *	lwm_weights_reduce calls lwm_lora_gradients, lwm_weights_gather calls lwm_lora_apply
 *	lwm_lora_release(&l)
 *
 * Without tensor parallelism, and without sums in canonical order: parts of dA and dB are formed by who owns what.
 */
#ifndef LWM_OPTIM_LORA_H
#define LWM_OPTIM_LORA_H

#include "common/optim/weights.h"

struct lwm_lora {
	const struct lwm_weights *w; /* borrowed, as are the next two */
	const struct lwm_tensors *t;
	struct lwm_devcomm *ranks;   /* all that w is cut over; NULL: one */
	float scale;
	int64_t first, n;            /* adapters are elements [first, first + n) of the flat vector */
	float *all, *grad;           /* device, n: adapters of all ranks, sums of their gradients */
	float *rows;                 /* device: rows of B A */
	int64_t nrows;               /* its elements */
};

/* Elements of all adapters: each of the two collective calls is a sum of so many floats. Pure. */
int64_t lwm_lora_values(const struct lwm_tensors *t);
/* Device bytes that lwm_lora_new takes, of a table with adapters. Pure. */
int64_t lwm_lora_bytes(const struct lwm_tensors *t, const struct lk_dev *dev);
/* Local. -LWM_EMEMORY. After a failure there is nothing to release. */
int lwm_lora_new(struct lwm_lora *l, const struct lwm_weights *w, const struct lwm_tensors *t, struct lwm_devcomm *ranks,
		 double scale, struct lwm_err *e);
void lwm_lora_release(struct lwm_lora *l); /* of zeros is fine */
/* COLLECTIVE over `ranks`, after lwm_lora_apply of the same adapters. From the summed gradient of the own piece
 * (w->slice) those of the own adapters, put into it. */
int lwm_lora_gradients(struct lwm_lora *l, struct lwm_err *e);
/* COLLECTIVE over `ranks`. The own piece of the compute weights, from the masters of all ranks. */
int lwm_lora_apply(struct lwm_lora *l, struct lwm_err *e);

#endif
