/* contrast_int.h - what the parts of contrast.h share: the passes of trunk and head (contrast.c), the loss between views
 * (contrast_loss.c).
 *
 * z is kept as p * sqrt(out) / |p|, which is an RMS norm of p, so that the norm's kernels serve; products of two of them are
 * multiplied by 1 / (out t). */
#ifndef LWM_MODEL_CONTRAST_INT_H
#define LWM_MODEL_CONTRAST_INT_H

#include "common/comm/device.h"
#include "common/model/contrast.h"

/* V views of a pass, T tokens, D dim, F hidden, E out; n pairs of this rank, N of all; K keys in the queue. */
enum buf {
	B_MEAN,   /* (1,T) of 1 / T */
	B_MEAN32, /* the same in fp32 */
	B_ONE,    /* (E) fp32 ones, and as many zeros for their gradient, which nobody wants */
	B_POOL,   /* (V,D) means, then their gradient */
	B_GU,     /* (V,2F) */
	B_H,      /* (V,F) */
	B_DH,     /* (V,F) */
	B_P,      /* (V,E) fp32 */
	B_DP,     /* (V,E) fp32 */
	B_DP_CAST, /* the same in the device's dtype */
	B_RSTD,   /* (V) */
	B_DPOOL,  /* (V,D) */
	B_Z,      /* (2n,E) fp32 */
	B_DZ,     /* the same; with momentum of the queries alone, (n,E) */
	B_ALL,    /* (N,E) fp32: the other side's */
	B_DALL,   /* (N,E) fp32: this rank's part of its gradient */
	B_MINE,   /* (n,E) fp32: the sum of those, of own rows */
	B_S,      /* (n,N) fp32; with a queue (n,K+1), the own key last */
	B_TARGET, /* (n) int32 */
	B_WEIGHT, /* (n) fp32 */
	B_NLL,    /* (n) fp32, and (n) hits */
	B_QUEUE,  /* (K,E) fp32: the queue, where the device's dtype is another */
	BUFS
};
struct layout {
	int64_t at[BUFS], total;
};

struct lwm_contrast {
	struct lk_dev *dev;
	struct lwm_contrast_cfg c;
	struct lwm_contrast_run run;
	struct lwm_llama *trunk;
	struct layout lay;
	struct lwm_group last;          /* the last norm and the head */
	struct lwm_shifted_weights keys; /* momentum: the copy's among all */
	struct lwm_group queue;
	int64_t gate_up, down;          /* in it */
	int64_t n, all;                 /* pairs of a step: of this rank, of all ranks */
	int ranks, rank;
	int dtype;
	float loss_scale;               /* of the gradients of a step */
	char *block;
	float *vectors, *nll;           /* host: of a pass; of the pairs, with hits */
	int32_t *seg, *pos, *target;
	int rc;                         /* first failure of a step */
	struct lwm_err err;
};

/* Calls a kernel unless something failed before. */
#define K(m, call)                                                                  \
	do {                                                                        \
		if (!(m)->rc)                                                       \
			(m)->rc = lwm_dev_check((m)->dev, (call), &(m)->err);       \
	} while (0)

static inline struct lk_view rows_of(const struct lwm_contrast *m, enum buf b, int dtype, int64_t row, int64_t rows, int64_t cols)
{
	return lk_view2(m->block + m->lay.at[b] + row * cols * (int64_t)lk_dtype_size(dtype), dtype, rows, cols);
}

static inline struct lk_view floats_of(const struct lwm_contrast *m, enum buf b, int64_t row, int64_t rows, int64_t cols)
{
	return rows_of(m, b, LK_F32, row, rows, cols);
}

/* The first failure of a step is kept; that other ranks are gone counts more than any other. */
static inline void keep_failure(struct lwm_contrast *m, int rc, const struct lwm_err *e)
{
	if (!rc || (m->rc && rc != -LWM_ERANK))
		return;
	m->rc = rc;
	m->err = *e;
}

/* contrast_loss.c. From all of B_Z to B_DZ. w: has the queue. COLLECTIVE over run.ranks. */
void lwm_contrast_loss(struct lwm_contrast *m, struct lwm_supply *w, bool grads, struct lwm_contrast_stats *stats);

#endif
