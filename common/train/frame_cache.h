/* frame_cache.h - the frames of all clips of an objective, decoded once into bounded memory: those that are trained on, and after
 * them those held out.
 *
 *	lwm_frame_cache_fill(&c, &how, e)
 *	c.frames + i * c.one                 frame i, 8-bit RGB; i < c.n is trained on, the others are held out
 *	lwm_frame_cache_release(&c)
 *
 * All calls are local: every rank has its own cache of all frames. */
#ifndef LWM_TRAIN_FRAME_CACHE_H
#define LWM_TRAIN_FRAME_CACHE_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/path.h"

struct lwm_frame_source {
	const struct lwm_paths *inputs;      /* media files (already expanded); a folder in it is a clip of images */
	const struct lwm_paths *eval_inputs; /* held-out media, may be NULL or empty */
	int64_t holdout;                     /* without eval_inputs: every holdout-th clip is held out; 0: none */
	double fps;                          /* frames a second that are taken; 0: all */
	int64_t width, height;               /* of the frames, pixels */
	int64_t max_frames_per_clip;         /* spread evenly; 0: all */
	int64_t max_pixels;                  /* of a frame of the media; 0: the default of common/media */
	int64_t cache_bytes;                 /* of decoded frames; clips that do not fit are -LWM_EMEMORY */
};

struct lwm_clip {
	const char *path; /* borrowed from the source */
	int64_t first, frames;
};
struct lwm_frame_cache {
	uint8_t *frames;           /* owned, as is clip */
	int64_t n, held, cap, one; /* trained on; held out; room, in frames; bytes of a frame */
	struct lwm_clip *clip;     /* clips, of which the first train_clips are trained on */
	int64_t clips, train_clips;
	struct lwm_hash content;   /* of the frames that are trained on */
};
/* *c is zero. -LWM_ECONFIG: nothing left to train on; -LWM_EMEMORY; -LWM_ENOINPUT, -LWM_EDATA. */
int lwm_frame_cache_fill(struct lwm_frame_cache *c, const struct lwm_frame_source *how, struct lwm_err *e);
void lwm_frame_cache_release(struct lwm_frame_cache *c);

/* Frames that all of `media` (expanded) will give, by the headers of some that are spread over them; -1: they do not tell. */
int lwm_frame_count(const struct lwm_paths *media, const struct lwm_frame_source *how, double *frames, struct lwm_err *e);
/* A clip that is held out twice, by way of its folder say, would count twice in every evaluation: -LWM_ECONFIG. */
int lwm_frame_check_copies(const struct lwm_paths *held, struct lwm_err *e);

#endif
