/* Decoded frames of all clips, in memory that is bounded. */
#include "common/train/frame_cache.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/media/frames.h"

/* Room for one frame after the `have` in the cache: one more than the cache may hold, so that the end of a clip can be seen
 * when it is full. */
static int make_room(struct lwm_frame_cache *c, const struct lwm_frame_source *how, int64_t have, struct lwm_err *e)
{
	int64_t most = how->cache_bytes / c->one + 1, cap = c->cap ? c->cap * 2 : 64;
	if (have < c->cap)
		return 0;
	cap = cap < most ? cap : most;
	uint8_t *p = realloc(c->frames, (size_t)(cap * c->one));
	if (!p)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a cache of %" PRId64 " frames", cap);
	c->frames = p;
	c->cap = cap;
	return 0;
}

/* Decodes into the cache itself: there is no second copy of a clip. */
static int add_frames(struct lwm_frame_cache *c, const struct lwm_frame_source *how, struct lwm_frames *f, const char *path,
		      int64_t *count, struct lwm_err *e)
{
	for (;;) {
		int64_t have = c->n + c->held + *count;
		LWM_TRY(make_room(c, how, have, e));
		int rc = lwm_frames_next(f, c->frames + have * c->one, NULL, e);
		if (rc <= 0)
			return rc;
		if (have + 1 > how->cache_bytes / c->one)
			return lwm_fail(e, LWM_EMEMORY, "%s: %" PRId64 " frames of %" PRId64 " bytes do not fit into the cache of %" PRId64
					" bytes: lower fps or frames per clip, or give it more", path, have + 1, c->one,
					how->cache_bytes);
		++*count;
	}
}

static struct lwm_frames_opts opts_of(const struct lwm_frame_source *how)
{
	return (struct lwm_frames_opts){ .fps = how->fps, .width = (int)how->width, .height = (int)how->height,
					 .sample_frames = how->max_frames_per_clip, .max_pixels = how->max_pixels };
}

static int add_clip(struct lwm_frame_cache *c, const struct lwm_frame_source *how, const char *path, bool held_out,
		    struct lwm_err *e)
{
	struct lwm_frames_opts o = opts_of(how);
	struct lwm_frames *f;
	int64_t frames = 0;
	LWM_TRY(lwm_frames_open(&f, path, &o, e));
	int rc = add_frames(c, how, f, path, &frames, e);
	lwm_frames_close(f);
	if (rc < 0)
		return rc;
	c->clip[c->clips++] = (struct lwm_clip){ path, c->n + c->held, frames };
	c->train_clips += !held_out;
	*(held_out ? &c->held : &c->n) += frames;
	return 0;
}

/* Clips for training first, so that the held-out frames follow them. */
int lwm_frame_cache_fill(struct lwm_frame_cache *c, const struct lwm_frame_source *how, struct lwm_err *e)
{
	const struct lwm_paths *in = how->inputs, *out = how->eval_inputs;
	bool apart = out && out->n;
	int64_t every = apart ? 0 : how->holdout;
	c->one = how->width * how->height * 3;
	c->clip = calloc((size_t)(in->n + (apart ? out->n : 0)) + 1, sizeof *c->clip);
	if (!c->clip)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a list of %" PRId64 " clips", in->n);
	for (int held = 0; held < 2; held++)
		for (int64_t i = 0; i < in->n; i++)
			if ((every > 0 && i % every == every - 1) == (held == 1))
				LWM_TRY(add_clip(c, how, in->v[i], held == 1, e));
	for (int64_t i = 0; apart && i < out->n; i++)
		LWM_TRY(add_clip(c, how, out->v[i], true, e));
	if (c->n == 0)
		return lwm_fail(e, LWM_ECONFIG, "no frames are left to train on: %" PRId64 " clips, every %" PRId64 "-th held out",
				in->n, every);
	c->content = lwm_hash_bytes(c->frames, (size_t)(c->n * c->one));
	return 0;
}

void lwm_frame_cache_release(struct lwm_frame_cache *c)
{
	free(c->frames);
	free(c->clip);
	memset(c, 0, sizeof *c);
}

int lwm_frame_count(const struct lwm_paths *media, const struct lwm_frame_source *how, double *frames, struct lwm_err *e)
{
	enum { LOOK_AT = 32 };
	int64_t n = media->n, every = (n + LOOK_AT - 1) / LOOK_AT, seen = 0;
	struct lwm_frames_opts o = opts_of(how);
	*frames = 0;
	for (int64_t i = 0; i < n; i += every, seen++) {
		struct lwm_frames *f;
		LWM_TRY(lwm_frames_open(&f, media->v[i], &o, e));
		int64_t have = lwm_frames_info_of(f).frames;
		lwm_frames_close(f);
		if (have < 0)
			return *frames = -1, 0;
		*frames += (double)have;
	}
	*frames *= seen ? (double)n / (double)seen : 0;
	return 0;
}

int lwm_frame_check_copies(const struct lwm_paths *held, struct lwm_err *e)
{
	char **real = calloc((size_t)held->n + 1, sizeof *real);
	int rc = real ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for paths");
	for (int64_t i = 0; rc == 0 && i < held->n; i++) {
		real[i] = realpath(held->v[i], NULL); /* NULL: it does not exist, which opening it reports */
		for (int64_t k = 0; rc == 0 && real[i] && k < i; k++)
			if (real[k] && strcmp(real[i], real[k]) == 0)
				rc = lwm_fail(e, LWM_ECONFIG, "%s: is held out twice, as %s too: name held-out clips once", held->v[i],
					      held->v[k]);
	}
	for (int64_t i = 0; real && i < held->n; i++)
		free(real[i]);
	free(real);
	return rc;
}
