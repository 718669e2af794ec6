/* load_denoiser.h - a denoiser for drawing clips: its weights from files, frames to latents and back, and what a sampler asks.
 *
 *	lwm_drawer_open(&d, model, vqgan, older_ok, dev, e)
 *	lwm_drawer_encode(&d, rgb, n, z, e)
 *	lwm_rollout_draw(&how, &d.made.net.shape, lwm_drawer_denoise, &d, ...)      euler.h
 *	lwm_drawer_decode(&d, z, n, snap, rgb, e)
 *	lwm_drawer_close(&d)
 *
 * model: a model folder or a checkpoint, as load.h has them, of --objective diffusion. vqgan: likewise, the one whose latents it
 * was trained on (-LWM_ECONFIG: it is another one, or there should be none); NULL: of a denoiser of pixels (-LWM_EUSAGE: it is
 * not).
 * Local. Frames are side x side pixels of 3 bytes, host; latents (n, rows, columns, channels) as the net sees them, host.
 */
#ifndef LWM_INFER_LOAD_DENOISER_H
#define LWM_INFER_LOAD_DENOISER_H

#include "common/infer/load.h"
#include "common/model/denoiser.h"

struct lwm_drawer {
	struct lwm_denoiser made;
	struct lwm_denoise *net;
	void *flat;                      /* device, in its dtype; freed by close */
	struct lwm_flat_weights weights; /* of it */
	struct lwm_vq vq;                /* of pixels: nothing */
	struct lk_dev *dev;              /* borrowed */
};
/* On failure nothing is left to close, and a second close does nothing. -LWM_ENOINPUT, -LWM_EDATA, -LWM_ECONFIG as in load.h. The
 * struct must not be moved while it is open. */
int lwm_drawer_open(struct lwm_drawer *d, const char *model, const char *vqgan, bool older_ok, struct lk_dev *dev,
		    struct lwm_err *e);
void lwm_drawer_close(struct lwm_drawer *d);
/* For plans: would it open? Weights are not looked at. */
int lwm_drawer_check_files(const char *model, const char *vqgan, bool older_ok, struct lwm_err *e);

int lwm_drawer_encode(struct lwm_drawer *d, const uint8_t *rgb, int64_t n, float *z, struct lwm_err *e);
/* z is changed: to the scale of the VQGAN. snap: as in lwm_vqgan_decode_latents. */
int lwm_drawer_decode(struct lwm_drawer *d, float *z, int64_t n, bool snap, uint8_t *rgb, struct lwm_err *e);
/* D(x; sigma): a lwm_denoise_fn of euler.h, ctx the drawer. */
int lwm_drawer_denoise(void *ctx, const float *x, double sigma, int64_t clean, float *denoised, struct lwm_err *e);

#endif
