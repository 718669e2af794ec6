/* augment.h - a random view of a clip, and clips cut into patches: what objectives over continuous video see. Pure, host memory.
 *
 *	lwm_augment(&how, &rng, frames, n, view)         another look at the same n frames
 *	lwm_patches(&grid, frames, out)                  the vectors of a trunk: (tokens, numbers), by time, row and column
 */
#ifndef LWM_MEDIA_AUGMENT_H
#define LWM_MEDIA_AUGMENT_H

#include <stdint.h>

#include "common/base/rng.h"

/* Of a view, all frames of a clip alike, in this order: a crop of a part of the area uniform on [min_area, 1], of a ratio of sides
 * that is log-uniform on [3/4, 4/3], anywhere in the frame, bilinear to its full size (Szegedy et al. 2015); mirrored with
 * probability `flip`; multiplied by a brightness and pulled to the clip's mean grey by a contrast, both uniform on [1 - jitter, 1 +
 * jitter] (Chen et al. 2020); grey with probability `grey` (ITU-R BT.601). */
struct lwm_augment {
	int64_t side;    /* frames are side x side pixels of 3 bytes */
	double min_area; /* (0, 1] */
	double flip, jitter, grey; /* [0, 1] */
};
/* frames, view: n * side * side * 3 bytes, not the same place. What is drawn is a function of *rng as it comes. */
void lwm_augment(const struct lwm_augment *how, struct lwm_rng *rng, const uint8_t *frames, int64_t n, uint8_t *view);

struct lwm_patch_grid {
	int64_t frames, side;          /* of a clip: frames of side x side pixels */
	int64_t patch_frames, patch;   /* a patch: so many frames of patch x patch pixels; they divide frames and side */
};
static inline int64_t lwm_patch_tokens(const struct lwm_patch_grid *g) /* patches of a clip */
{
	return g->frames / g->patch_frames * (g->side / g->patch) * (g->side / g->patch);
}
static inline int64_t lwm_patch_numbers(const struct lwm_patch_grid *g) /* numbers of a patch: frames, rows, columns, colours */
{
	return g->patch_frames * g->patch * g->patch * 3;
}
/* out (tokens, numbers): bytes as numbers from -1 to 1. */
void lwm_patches(const struct lwm_patch_grid *g, const uint8_t *frames, float *out);
/* Back: numbers beyond -1 to 1 are cut. */
void lwm_patches_join(const struct lwm_patch_grid *g, const float *patches, uint8_t *frames);
/* Patches (tokens, numbers) in place: of each patch and colour mean 0 and deviation 1, (x - mean) / (deviation + 1e-6), that
 * with n - 1 (Tong et al. 2022). Patches of one pixel become 0. */
void lwm_patches_normalise(const struct lwm_patch_grid *g, float *patches);
/* Back: patches (tokens, numbers) in place, from mean 0 and deviation 1 to those that each patch and colour of `as` has. */
void lwm_patches_restore(const struct lwm_patch_grid *g, const float *as, float *patches);
/* Tube mask: `kept` of the places of a frame, drawn by (seed, step, sample), are seen in all frames of the clip. out: their tokens,
 * ascending, frames / patch_frames * kept of them. kept: 1 to (side / patch)^2. */
void lwm_patches_tube(const struct lwm_patch_grid *g, int64_t kept, uint64_t seed, uint64_t step, uint64_t sample, int32_t *out);

/* How alike two frames are, 1: the same: structural similarity (Wang et al. 2004), mean over all windows of 7 x 7 pixels (or the
 * whole frame where it is smaller) and the three colours; pixels of a window weigh alike, variances with n - 1, K1 0.01 and
 * K2 0.03. */
double lwm_ssim(const uint8_t *a, const uint8_t *b, int64_t width, int64_t height);

#endif
