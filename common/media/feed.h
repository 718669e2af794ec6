/* feed.h - clips decoded ahead of their use by a thread of its own, handed out in batches of frames.
 *
 *	lwm_feed_open(&f, paths, n, &opts, frames_per_batch, e)
 *	while ((rc = lwm_feed_next(f, &b, e)) == 1)            b is valid until the next call
 *		if (b.rc < 0) ... else ...                     b.n frames of clip b.clip; b.last: its last ones
 *	lwm_feed_close(f)
 *
 * The batches of a clip follow each other; clips keep the order of their paths. A batch never holds frames of two clips, and
 * every clip has one batch with `last`, even when it has no frames. A clip that cannot be decoded ends with a batch whose rc is
 * negative and whose err says why; the next clip follows. Only want of memory ends the feed itself.
 *
 * The thread keeps three batches: the user's, one that is ready, and the one that it fills. Local calls, by one thread.
 */
#ifndef LWM_MEDIA_FEED_H
#define LWM_MEDIA_FEED_H

#include "common/media/frames.h"

struct lwm_feed_batch {
	int64_t clip;       /* index of its path */
	int64_t first;      /* number of its first frame in the clip */
	int64_t n;          /* frames; 0 is possible in the last batch of a clip */
	int width, height;  /* of a frame, in pixels */
	const uint8_t *rgb; /* (n, height, width, 3) */
	bool last;          /* no further batch of this clip follows */
	int rc;             /* 0, or the code with which the clip failed */
	struct lwm_err err; /* with rc < 0: why */
	char damage[700];   /* with last: what opts.damaged_ok let pass; "" nothing */
};

struct lwm_feed;
/* paths are borrowed until close; opts are copied. frames_per_batch is held to 1 .. 2^20 - 1, else 1. -LWM_EMEMORY. */
int lwm_feed_open(struct lwm_feed **out, char *const *paths, int64_t n, const struct lwm_frames_opts *opts,
		  int64_t frames_per_batch, struct lwm_err *e);
/* Waits for the next batch. 1: *b is it; 0: all clips are done; -LWM_EMEMORY. */
int lwm_feed_next(struct lwm_feed *f, struct lwm_feed_batch *b, struct lwm_err *e);
void lwm_feed_close(struct lwm_feed *f); /* at any time; NULL is fine */

#endif
