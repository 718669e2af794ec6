/* perceptual.h - how different two images look, as a frozen network sees them: LPIPS (Zhang et al. 2018, "The Unreasonable
 * Effectiveness of Deep Features as a Perceptual Metric").
 *
 * The network is a stack of 3x3 convolutions, each followed by relu, with 2x2 max pooling between blocks (VGG, Simonyan &
 * Zisserman 2015). Pixels on [-1,1] come in as (x - shift) / scale of each colour. Behind the last relu of every block features f
 * are compared:
 *
 *	loss = sum over blocks of mean over places of sum_c w_c (f_c / |f| - g_c / |g|)^2        w >= 0, of each block its own
 *
 * Of VGG16 that is relu1_2, 2_2, 3_3, 4_3 and 5_3. This code knows no files (train/perceptual_file.h reads them). Local calls.
 *
 *	lwm_perceptual_new(&p, dev, &cfg, values, unit, e)
 *	lwm_perceptual_loss(p, &x, &t, &dx, scale, &loss, e)
 *	lwm_perceptual_free(p)
 */
#ifndef LWM_MODEL_PERCEPTUAL_H
#define LWM_MODEL_PERCEPTUAL_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/tensor/tensor.h"
#include "kernels/kernels.h"

enum { LWM_PERCEPTUAL_CONVS = 32 };

struct lwm_perceptual_cfg {
	int convs;
	struct lwm_perceptual_conv {
		int index;         /* N of features.N: torchvision counts convolutions, relus and poolings */
		int32_t cin, cout;
		bool pooled;       /* the one before ended a block */
	} conv[LWM_PERCEPTUAL_CONVS];
};

/* features.N.weight (3,3,cin,cout), features.N.bias of each convolution; linK.model.1.weight (channels) of each block.
 * -LWM_EMEMORY. */
int lwm_perceptual_tensors(struct lwm_tensors *t, const struct lwm_perceptual_cfg *c, struct lwm_err *e);
/* Device bytes that n images take, weights too; pure. And what the device takes for itself (0: it does not say). */
int64_t lwm_perceptual_memory(const struct lwm_perceptual_cfg *c, int64_t n, int64_t height, int64_t width, int dtype);
int64_t lwm_perceptual_own(struct lk_dev *dev, const struct lwm_perceptual_cfg *c, int64_t n, int64_t height, int64_t width);
/* Can images of this size go through its poolings? -LWM_ECONFIG. */
int lwm_perceptual_fits(const struct lwm_perceptual_cfg *c, int64_t height, int64_t width, struct lwm_err *e);

struct lwm_perceptual;
/* values: host, as lwm_perceptual_tensors lays them out; copied. unit: images come on [0,1]. -LWM_EMEMORY, -LWM_EDEVICE. */
int lwm_perceptual_new(struct lwm_perceptual **out, struct lk_dev *dev, const struct lwm_perceptual_cfg *c, const float *values,
		       bool unit, struct lwm_err *e);
void lwm_perceptual_free(struct lwm_perceptual *p); /* NULL is fine */
/* *loss: the mean over the images x (n,H,W,3) of their distance to t. dx (like x; NULL: none) is ADDED scale times its gradient. */
int lwm_perceptual_loss(struct lwm_perceptual *p, const struct lk_view *x, const struct lk_view *t, const struct lk_view *dx,
			float scale, double *loss, struct lwm_err *e);

#endif
