/* patchgan.h - a patch discriminator (Isola et al. 2017; as Esser et al. 2021 use it): is each patch of an image real, or made?
 *
 *	conv 4x4 stride 2, 3 -> channels; leaky relu 0.2
 *	layers - 1 times: conv 4x4 stride 2 to twice the channels, at most 8 times the first; group norm; leaky relu
 *	conv 4x4 stride 1 to twice, at most 8 times; group norm; leaky relu
 *	conv 4x4 stride 1 -> 1: a logit for each patch
 *
 * All convolutions have one row and column of zeros on each side, and a bias. Published with batch norm, whose statistics are of
 * whatever lies in memory together; group norm (Wu & He 2018; 4 channels a group, at most 32 groups, epsilon 1e-5) is of each image
 * alone, so that neither ranks nor passes change what is computed.
 *
 * hinge loss = (mean max(0, 1 - D(x)) + mean max(0, 1 + D(made))) / 2, means over patches (Lim & Ye 2017).
 *
 *	lwm_patchgan_judge(g, &images, &n, e)         logits in lwm_patchgan_logits(g)[0..n), host
 *	lwm_patchgan_back(g, slopes, &dx, grads, e)   as often as wanted, of the images judged last
 *
 * Local calls. This code knows no files.
 */
#ifndef LWM_MODEL_PATCHGAN_H
#define LWM_MODEL_PATCHGAN_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/tensor/tensor.h"
#include "kernels/kernels.h"

struct lwm_patchgan_cfg {
	int32_t channels, layers; /* of the first convolution, a multiple of 4; convolutions of stride 2, 1 to 6 */
};

/* -LWM_ECONFIG: no such discriminator, or images of this size have no patch. */
int lwm_patchgan_check(const struct lwm_patchgan_cfg *c, int64_t height, int64_t width, struct lwm_err *e);
/* Appends its tensors to t, one group behind those there: discriminator.convI.weight (4,4,cin,cout), normal with deviation 0.02,
 * .bias, discriminator.normI.weight, .bias. They do not decay. */
int lwm_patchgan_tensors(struct lwm_tensors *t, const struct lwm_patchgan_cfg *c, struct lwm_err *e);
/* Pure: device bytes of n images; and what the device takes for itself (0: it does not say). */
int64_t lwm_patchgan_memory(const struct lwm_patchgan_cfg *c, int64_t n, int64_t height, int64_t width, int dtype);
int64_t lwm_patchgan_own(struct lk_dev *dev, const struct lwm_patchgan_cfg *c, int64_t n, int64_t height, int64_t width);

struct lwm_patchgan;
/* weights: device, fp32, what lwm_patchgan_tensors appends, from its first on; borrowed. -LWM_EMEMORY, -LWM_EDEVICE. */
int lwm_patchgan_new(struct lwm_patchgan **out, struct lk_dev *dev, const struct lwm_patchgan_cfg *c, const float *weights,
		     struct lwm_err *e);
void lwm_patchgan_free(struct lwm_patchgan *g);                      /* NULL is fine */
int lwm_patchgan_refresh(struct lwm_patchgan *g, struct lwm_err *e); /* the weights have changed, where they lie */

/* Images x (n,H,W,3), device, borrowed until the last lwm_patchgan_back of them. *patches: logits of all of them. */
int lwm_patchgan_judge(struct lwm_patchgan *g, const struct lk_view *x, int64_t *patches, struct lwm_err *e);
const float *lwm_patchgan_logits(const struct lwm_patchgan *g); /* (n, rows, columns) of the images judged last, host. Borrowed */
/* slopes: host, the gradient at the logits. dx (like x; NULL: not wanted) is OVERWRITTEN; grads (device, like weights; NULL: not
 * wanted) is added to. */
int lwm_patchgan_back(struct lwm_patchgan *g, const float *slopes, const struct lk_view *dx, float *grads, struct lwm_err *e);

#endif
