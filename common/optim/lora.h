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
 *	lwm_lora_new(&l, &w, &table, &how, e);       w.lora = &l
 *	lwm_weights_reduce calls lwm_lora_gradients, lwm_weights_gather calls lwm_lora_apply
 *	lwm_lora_release(&l)
 *
 * Of ranks that share the model (tensor/range.h) each has its part of W, and of A or B the part that belongs to it. The gradient of
 * the other adapter, which all of them have, is a sum over them.
 *
 * In canonical order (`whole`) parts of sums must not depend on who owns what. Each rank then gathers the whole of D, one matrix
 * after the other, and forms dA and dB of all adapters by itself, by the same products on any number of ranks. W + scale B A is
 * formed in blocks of whole rows, in any case the same ones, of which a rank keeps what it owns.
 */
#ifndef LWM_OPTIM_LORA_H
#define LWM_OPTIM_LORA_H

#include "common/optim/weights.h"

struct lwm_lora_how {
	double scale;
	struct lwm_devcomm *ranks;   /* all that the vectors are cut over; NULL: one. Borrowed, as are the next two */
	struct lwm_devcomm *tp;      /* those that share the model; NULL: one */
	const struct lwm_tensors *model; /* the whole tables, where tp is not NULL */
	bool whole;                  /* gradients by whole matrices; tp is NULL */
};
struct lwm_lora {
	const struct lwm_weights *w; /* borrowed, as is the next one */
	const struct lwm_tensors *t;
	struct lwm_lora_how how;
	float scale;
	int64_t first, n;            /* adapters are elements [first, first + n) of the flat vector */
	float *all, *grad;           /* device, n: adapters of all ranks, sums of their gradients */
	float *rows;                 /* device: rows of B A */
	int64_t nrows;               /* its elements */
	float *matrix, *shared;      /* device: a whole D; gradients that tp ranks sum. NULL: not needed */
};

/* Elements of all adapters: the first and the last sum of an update, over `ranks`, are of so many floats. Pure. */
int64_t lwm_lora_values(const struct lwm_tensors *t);
/* Elements of the largest matrix that has adapters, and of all of them: `whole`, each is a sum over `ranks`. Pure. */
int64_t lwm_lora_matrix(const struct lwm_tensors *t, int64_t *all);
/* Elements of adapters that each of tp ranks has of their own matrices' parts: a sum over tp. Pure. */
int64_t lwm_lora_shared(const struct lwm_tensors *t, int tp);
/* Device bytes that lwm_lora_new takes, of a table with adapters. Pure. */
int64_t lwm_lora_bytes(const struct lwm_tensors *t, int tp, bool whole, const struct lk_dev *dev);
/* Local. t: the table of the flat vector. -LWM_EMEMORY. After a failure there is nothing to release. */
int lwm_lora_new(struct lwm_lora *l, const struct lwm_weights *w, const struct lwm_tensors *t, const struct lwm_lora_how *how,
		 struct lwm_err *e);
void lwm_lora_release(struct lwm_lora *l); /* of zeros is fine */
/* COLLECTIVE over `ranks` and tp, after lwm_lora_apply of the same adapters. From the summed gradient of the own piece
 * (w->slice) those of the own adapters, put into it. */
int lwm_lora_gradients(struct lwm_lora *l, struct lwm_err *e);
/* COLLECTIVE over `ranks`. The own piece of the compute weights, from the masters of all ranks. */
int lwm_lora_apply(struct lwm_lora *l, struct lwm_err *e);

#endif
