/* codes.h - a linear head from hidden states to the codes that lie in a patch, and the cross-entropy of what it predicts.
 *
 *	logits_i = W h_idx(i), `each` groups of K;   loss_i = mean over groups c of -ln softmax(logits_i,c)[target_i,c]
 *
 * for rows that the caller names; the gradient is that of the sum of loss_i. Local. Shapes: n rows, D dim, K codes. Logits of all
 * rows never exist: rows pass in pieces, whose logits are of so many bytes at most, and of one row at least.
 */
#ifndef LWM_MODEL_CODES_H
#define LWM_MODEL_CODES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "kernels/kernels.h"

struct lwm_codes_size {
	int64_t rows, dim;   /* most rows in a call */
	int64_t codes, each; /* K; of a row */
	int64_t bytes;       /* of the logits of a piece */
	bool train;
};
struct lwm_codes {
	struct lk_dev *dev; /* borrowed */
	struct lwm_codes_size size;
	int dtype;
	char *block;
	float *host; /* (rows * each) twice */
};
/* Pure: device memory; host memory beside it. */
int64_t lwm_codes_bytes(const struct lwm_codes_size *s, int dtype);
int64_t lwm_codes_arrays(const struct lwm_codes_size *s);
/* -LWM_EMEMORY, -LWM_EDEVICE: then there is lwm_codes_release to call, too. */
int lwm_codes_init(struct lwm_codes *c, struct lk_dev *dev, const struct lwm_codes_size *s, struct lwm_err *e);
void lwm_codes_release(struct lwm_codes *c); /* zero-initialised is fine */

struct lwm_codes_step {
	struct lk_view h;      /* (T,D) hidden states */
	const int32_t *idx;    /* (n) rows of it, each once; host, as are the next two */
	int64_t n;             /* 1 to rows */
	const int32_t *target; /* (n, each), in [0, K) */
	struct lk_view w;      /* (each * K, D) */
	struct lk_view g;      /* its gradient, fp32, added to; data NULL: none is wanted */
	float scale;           /* gradients are of this times the loss; 0: 1 */
	struct lk_view dh;     /* (T,D): overwritten with the gradient of h; not looked at without g */
};
/* Host: loss (n); hits (n): the part of a row's codes whose logit is the largest of its group. */
int lwm_codes_loss(struct lwm_codes *c, const struct lwm_codes_step *s, double *loss, double *hits, struct lwm_err *e);

#endif
