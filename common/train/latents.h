/* latents.h - the frames of clips as latents: of a VQGAN that is not trained here (--vqgan), before its codebook, or the pixels
 * themselves; or as its codes.
 *
 *	lwm_latents_find(&l, &space, o, e)           sizes: of a VQGAN its configuration alone is read
 *	lwm_latents_plan(&l, &space, o, ...)         planning: what follows takes
 *	lwm_latents_load(&l, &space, &clips, o, ...) every frame in the cache is encoded, once; mean, deviation, VQGAN to space
 *	lwm_latent_codes_of(&l, &clips, frames)      likewise, of codes
 *	lwm_latents_of(&l, &clips, frames)           of a clip, where lwm_clips_at or lwm_clips_held found it
 *	lwm_latents_decode(&l, &space, z, n, snap, rgb, e)
 *	lwm_latents_release(&l)
 *
 * Mean and deviation of a channel are those of the frames that are trained on, the deviation to two digits and the mean to an
 * eighth of it: so that sums in another order make the same model. Local; every rank encodes all frames.
 */
#ifndef LWM_TRAIN_LATENTS_H
#define LWM_TRAIN_LATENTS_H

#include "common/infer/load.h"
#include "common/model/latent_space.h"
#include "common/train/clips.h"

/* What frames are encoded for: latents; latents that are decoded again, for which the VQGAN stays on the device; codes. */
enum lwm_latents_use { LWM_LATENTS, LWM_LATENTS_AND_BACK, LWM_LATENT_CODES };

struct lwm_latents { /* zero to begin with */
	const char *vqgan;        /* its folder, borrowed; NULL: pixels */
	struct lwm_vqgan_cfg cfg; /* of it; levels 0: planning, and it is not there */
	float *z;                 /* (frames of the cache, rows, columns, channels), as the net sees them */
	int32_t *codes;           /* or (frames of the cache, rows, columns) */
	int64_t time;             /* numbers of a frame */
	struct lwm_vq vq;         /* open where it was to be kept */
};

/* Fills side, factor and channels. Planning, and the folder is not there: as pixels (o->absent). -LWM_ECONFIG: patches that are no
 * whole number of latents. */
int lwm_latents_find(struct lwm_latents *l, struct lwm_latent_space *s, struct lwm_objective *o, struct lwm_err *e);
/* Adds to o what the VQGAN takes: beside the net, or before there are weights. cache: bytes of the frames. */
void lwm_latents_plan(const struct lwm_latents *l, const struct lwm_latent_space *s, struct lwm_objective *o, int64_t cache,
		      enum lwm_latents_use use);
/* Clips are loaded, s has room for mean and deviation, if it is not for codes. The VQGAN is on the device while frames are encoded,
 * and later only where it is to decode them. */
int lwm_latents_load(struct lwm_latents *l, struct lwm_latent_space *s, const struct lwm_clips *c, const struct lwm_objective *o,
		     enum lwm_latents_use use, struct lwm_err *e);
const float *lwm_latents_of(const struct lwm_latents *l, const struct lwm_clips *c, const uint8_t *frames);
const int32_t *lwm_latent_codes_of(const struct lwm_latents *l, const struct lwm_clips *c, const uint8_t *frames);
/* n frames to rgb (n, side, side, 3). z is changed: to the scale of the VQGAN. snap: as in lwm_vqgan_decode_latents. Pixels are
 * rounded and cut. */
int lwm_latents_decode(struct lwm_latents *l, const struct lwm_latent_space *s, float *z, int64_t n, bool snap, uint8_t *rgb,
		       struct lwm_err *e);
void lwm_latents_release(struct lwm_latents *l);

/* Patches of a grid in pixels over latents (or pixels) of its clip, and back: (tokens, numbers), numbers of a patch by frame, row,
 * column and channel. Pure. */
int64_t lwm_latent_patch_numbers(const struct lwm_latent_space *s, const struct lwm_patch_grid *g);
void lwm_latent_patches(const struct lwm_latent_space *s, const struct lwm_patch_grid *g, const float *z, float *patches);
void lwm_latent_patches_join(const struct lwm_latent_space *s, const struct lwm_patch_grid *g, const float *patches, float *z);
/* Likewise of codes, one for each latent. */
int64_t lwm_code_patch_numbers(const struct lwm_latent_space *s, const struct lwm_patch_grid *g);
void lwm_code_patches(const struct lwm_latent_space *s, const struct lwm_patch_grid *g, const int32_t *codes, int32_t *patches);

#endif
