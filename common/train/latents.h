/* latents.h - the frames of clips as latents: of a VQGAN that is not trained here, before its codebook, or the pixels themselves.
 *
 *	lwm_latents_find(&d, o, vqgan, e)                sizes: of a VQGAN its configuration alone is read
 *	lwm_latents_load(&l, &d, &clips, o, vqgan, e)    every frame in the cache is encoded, once; mean, deviation and VQGAN to d
 *	lwm_latents_of(&l, &clips, frames)               of a clip, where lwm_clips_at or lwm_clips_held found it
 *	lwm_latents_release(&l)
 *
 * Mean and deviation of a channel are those of the frames that are trained on, the deviation to two digits and the mean to an
 * eighth of it: so that sums in another order make the same model. Local; every rank encodes all frames.
 */
#ifndef LWM_TRAIN_LATENTS_H
#define LWM_TRAIN_LATENTS_H

#include "common/model/denoiser.h"
#include "common/train/clips.h"

struct lwm_latents {
	float *z;     /* (frames of the cache, rows, columns, channels), as the net sees them */
	int64_t time; /* numbers of a frame */
};

/* Fills d->side, factor, net.patch and net.shape. vqgan: its folder; NULL: pixels. Planning, and the folder is not there: as pixels
 * (o->absent). -LWM_ECONFIG: patches that are no whole number of latents. */
int lwm_latents_find(struct lwm_denoiser *d, struct lwm_objective *o, const char *vqgan, struct lwm_err *e);
/* Clips are loaded, d has room for mean and deviation. The VQGAN is on the device while frames become latents, not later. */
int lwm_latents_load(struct lwm_latents *l, struct lwm_denoiser *d, const struct lwm_clips *c, const struct lwm_objective *o,
		     const char *vqgan, struct lwm_err *e);
const float *lwm_latents_of(const struct lwm_latents *l, const struct lwm_clips *c, const uint8_t *frames);
void lwm_latents_release(struct lwm_latents *l);

#endif
