/* pixels.h - a linear head from hidden states to the numbers of patches, and the mean squared error of what it predicts.
 *
 *	y_i = W h_idx(i),   loss_i = mean over the numbers of (y_i - target_i)^2
 *
 * for rows that the caller names; the gradient is that of the sum of loss_i. Local. Shapes: n rows, D dim, P numbers.
 */
#ifndef LWM_MODEL_PIXELS_H
#define LWM_MODEL_PIXELS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "kernels/kernels.h"

struct lwm_pixels {
	struct lk_dev *dev; /* borrowed */
	int64_t rows, dim, numbers; /* most rows at a time */
	bool train;
	int dtype;
	char *block;
	float *diff; /* host (rows, numbers) */
};
/* Pure: device memory of so many rows; host memory beside it. */
int64_t lwm_pixels_bytes(int64_t rows, int64_t dim, int64_t numbers, int dtype, bool train);
int64_t lwm_pixels_arrays(int64_t rows, int64_t numbers);
/* -LWM_EMEMORY, -LWM_EDEVICE: then there is lwm_pixels_release to call, too. */
int lwm_pixels_init(struct lwm_pixels *p, struct lk_dev *dev, int64_t rows, int64_t dim, int64_t numbers, bool train,
		    struct lwm_err *e);
void lwm_pixels_release(struct lwm_pixels *p);

struct lwm_pixels_step {
	struct lk_view h;    /* (T,D) hidden states */
	const int32_t *idx;  /* (n) rows of it, each once; host, as are the next two */
	int64_t n;           /* 1 to rows */
	const float *target; /* (n,P) */
	struct lk_view w;    /* (P,D) */
	struct lk_view g;    /* its gradient, fp32, added to; data NULL: none is wanted */
	float scale;         /* gradients are of this times the loss; 0: 1 */
	struct lk_view dh;   /* (T,D): overwritten with the gradient of h; not looked at without g */
};
/* loss (n), host: of each row. what: NULL or (n,P), host: what was predicted. */
int lwm_pixels_loss(struct lwm_pixels *p, const struct lwm_pixels_step *s, double *loss, float *what, struct lwm_err *e);

/* Its two halves, for a loss that is the caller's own: what is predicted, y (n,P), host; and, right after that, the gradient of y,
 * likewise, to g and dh. Nothing looks at the target. */
int lwm_pixels_predict(struct lwm_pixels *p, const struct lwm_pixels_step *s, float *y, struct lwm_err *e);
int lwm_pixels_back(struct lwm_pixels *p, const struct lwm_pixels_step *s, const float *dy, struct lwm_err *e);

#endif
