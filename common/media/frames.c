/* frames.c - the clip as its user sees it: a file or a folder of images, sampled and limited. */
#include "common/media/frames.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/base/path.h"
#include "common/media/media_int.h"

const char *const lwm_media_suffixes[] = { ".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts",
					   ".flv", ".wmv", ".ogv", ".gif", ".3gp", ".y4m", ".png", ".jpg", ".jpeg",
					   ".webp", ".ppm", ".bmp", ".tif", ".tiff", NULL };
const char *const lwm_image_suffixes[] = { ".png", ".jpg", ".jpeg", ".webp", ".ppm", ".bmp", ".tif", ".tiff", NULL };

struct lwm_frames {
	char *path;
	struct lwm_frames_opts o;
	struct lwm_frames_info info;
	struct lwm_paths images; /* of a folder */
	struct lwm_decoder *d;
	struct lwm_graph *g;
	AVFrame *in, *out;
	int64_t seen, given; /* frames that came out of the fps filter so far; frames handed out */
	int64_t total;       /* frames after the fps filter, counted for sampling; -1 otherwise */
	bool fed_end, ended;
	char damage[700];
};

/* The number, after the fps filter, of the i-th frame that is handed out. */
static int64_t wanted_number(const struct lwm_frames *f, int64_t i)
{
	int64_t s = f->o.sample_frames;
	if (!s || f->total <= s)
		return i;
	/* trunc(i (total-1) / (s-1)) without the large product */
	int64_t q = s > 1 ? (f->total - 1) / (s - 1) : 0, r = s > 1 ? (f->total - 1) % (s - 1) : 0;
	return s == 1 ? 0 : i * q + i * r / (s - 1);
}

static bool all_given(const struct lwm_frames *f)
{
	return (f->o.max_frames && f->given >= f->o.max_frames) ||
	       (f->total >= 0 && f->o.sample_frames && f->given >= f->o.sample_frames);
}

static int check_opts(const struct lwm_frames_opts *o, const char *path, struct lwm_err *e)
{
	int64_t limit = lwm_media_limit(o->max_pixels);
	if ((o->width == 0) != (o->height == 0) || o->width < 0 || o->height < 0)
		return lwm_fail(e, LWM_EUSAGE, "%s: frame size %d x %d is not possible", path, o->width, o->height);
	if (o->max_pixels < 0 || limit > 1 << 30 || (int64_t)o->width * o->height > limit)
		return lwm_fail(e, LWM_EUSAGE, "%s: frames of %d x %d under a limit of %" PRId64
				" pixels are not possible (--max-pixels)", path, o->width, o->height, limit);
	if (!(o->fps >= 0 && o->fps <= 1000))
		return lwm_fail(e, LWM_EUSAGE, "%s: %g frames a second are not between 0 and 1000", path, o->fps);
	if (!(o->start >= 0 && o->start <= LWM_SECONDS_MOST) || !(o->end >= 0 && o->end <= LWM_SECONDS_MOST) ||
	    (o->end > 0 && o->end <= o->start))
		return lwm_fail(e, LWM_EUSAGE, "%s: from %g s to %g s is not a piece of time", path, o->start, o->end);
	if (o->max_frames < 0 || o->sample_frames < 0 || o->sample_frames > 1 << 30 || o->multiple < 0)
		return lwm_fail(e, LWM_EUSAGE, "%s: impossible number of frames or block size", path);
	return 0;
}

/* One decoded frame into the graph, or its end. The graph is made when the first frame is there. */
static int push_one(struct lwm_frames *f, bool count_only, struct lwm_err *e)
{
	int rc = lwm_decoder_next(f->d, f->in, e);
	if (rc < 0)
		return rc;
	if (rc == 0) {
		f->fed_end = true;
		return f->g ? lwm_graph_push(f->g, NULL, e) : 0;
	}
	if (!f->g) {
		rc = lwm_graph_open(&f->g, f->d, f->in, &f->o, count_only, e);
		if (rc < 0) {
			av_frame_unref(f->in);
			return rc;
		}
	}
	rc = lwm_graph_push(f->g, f->in, e);
	av_frame_unref(f->in);
	return rc;
}

/* 1: f->out holds the next frame as the filters give it; 0: no more. */
static int pull_one(struct lwm_frames *f, bool count_only, struct lwm_err *e)
{
	for (;;) {
		int rc = f->g ? lwm_graph_pull(f->g, f->out, e) : 0;
		if (rc < 0)
			return rc;
		if (rc == 1) {
			f->seen++;
			return 1;
		}
		if (rc == 2 || f->fed_end)
			return 0;
		LWM_TRY(push_one(f, count_only, e));
	}
}

static int reopen_clip(struct lwm_frames *f, const char *path, struct lwm_err *e)
{
	lwm_graph_close(f->g);
	lwm_decoder_close(f->d);
	f->g = NULL;
	f->d = NULL;
	f->fed_end = false;
	f->seen = 0;
	lwm_av_forget();
	LWM_TRY(lwm_decoder_open(&f->d, path, f->o.max_pixels, e));
	return lwm_decoder_seek(f->d, f->o.start, e);
}

static int check_damage(struct lwm_frames *f, struct lwm_err *e)
{
	/* A clip that was cut short on request has no end to compare. */
	if (f->o.end <= 0 || f->d->bad_packets || f->d->bad_frames)
		lwm_decoder_verdict(f->d, f->damage, sizeof f->damage);
	return f->damage[0] && !f->o.damaged_ok ? lwm_fail(e, LWM_EDATA, "%s", f->damage) : 0;
}

/* The end of a whole stream: nothing decoded or damage is an error unless the caller wants what there is. */
static int finish_clip(struct lwm_frames *f, struct lwm_err *e)
{
	f->ended = true;
	if (f->d->frames == 0 || f->given == 0)
		return lwm_fail(e, LWM_EDATA, "%s: no frames: %" PRId64 " packets of video, %" PRId64 " decoded%s%s", f->path,
				f->d->packets, f->d->frames, lwm_av_reason()[0] ? "; " : "",
				lwm_av_reason());
	if (f->total >= 0 && wanted_number(f, f->given) < f->total)
		return lwm_fail(e, LWM_EDATA, "%s: gave %" PRId64 " frames the first time and %" PRId64 " the second", f->path,
				f->total, f->seen);
	return check_damage(f, e);
}

static int count_frames(struct lwm_frames *f, struct lwm_err *e)
{
	int rc;
	while ((rc = pull_one(f, true, e)) == 1)
		av_frame_unref(f->out);
	if (rc < 0)
		return rc;
	f->total = f->seen;
	LWM_TRY(check_damage(f, e));
	return reopen_clip(f, f->path, e);
}

/* A number of frames, -1 where a header's numbers give none. */
static int64_t whole_frames(double frames)
{
	return frames >= 0 && frames < 9e15 ? (int64_t)(frames + 0.5) : -1;
}

static void estimate_frames(struct lwm_frames *f)
{
	struct lwm_frames_info *n = &f->info;
	double t = n->duration;
	if (n->still) {
		n->frames = 1;
	} else if (f->images.n) {
		n->frames = f->images.n;
	} else {
		if (f->o.end > 0 && f->o.end < t)
			t = f->o.end;
		t -= f->o.start;
		if (f->o.fps > 0 && t > 0)
			n->frames = whole_frames(t * f->o.fps);
		else if (f->d->st->nb_frames > 0 && f->o.start <= 0 && f->o.end <= 0)
			n->frames = f->d->st->nb_frames;
		else
			n->frames = n->fps > 0 && t > 0 ? whole_frames(t * n->fps) : -1;
	}
	if (f->total >= 0)
		n->frames = f->total;
	if (f->o.sample_frames && n->frames > f->o.sample_frames)
		n->frames = f->o.sample_frames;
	if (f->o.max_frames && (n->frames < 0 || n->frames > f->o.max_frames))
		n->frames = f->o.max_frames;
}

static int describe_clip(struct lwm_frames *f, struct lwm_err *e)
{
	struct lwm_frames_info *n = &f->info;
	const AVCodecParameters *par = f->d->st->codecpar;
	bool turned = f->d->rotate % 180 != 0;
	n->src_width = turned ? par->height : par->width;
	n->src_height = turned ? par->width : par->height;
	n->still = f->d->still && !f->images.n;
	if (!f->images.n) {
		n->duration = lwm_decoder_duration(f->d);
		n->fps = lwm_decoder_fps(f->d);
	}
	snprintf(n->codec, sizeof n->codec, "%s", f->d->dec->codec->name);
	return lwm_graph_size(&f->o, n->src_width, n->src_height, &n->width, &n->height, f->path, e);
}

int lwm_frames_open(struct lwm_frames **out, const char *path, const struct lwm_frames_opts *opts, struct lwm_err *e)
{
	int rc;
	struct lwm_frames *f = calloc(1, sizeof *f);
	*out = NULL;
	if (!f)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	if (opts)
		f->o = *opts;
	f->total = -1;
	f->path = strdup(path);
	f->in = av_frame_alloc();
	f->out = av_frame_alloc();
	if (!f->path || !f->in || !f->out)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path));
	LWM_GO(check_opts(&f->o, path, e));
	LWM_GO(lwm_path_folder(path, e));
	if (rc > 0) {
		LWM_GO(lwm_paths_expand(&f->images, path, lwm_image_suffixes, e));
		f->total = f->images.n;
	}
	LWM_GO(reopen_clip(f, f->images.n ? f->images.v[0] : path, e));
	if (f->o.sample_frames && !f->images.n && !f->d->still)
		LWM_GO(count_frames(f, e));
	LWM_GO(describe_clip(f, e));
	estimate_frames(f);
	*out = f;
	return 0;
out:
	lwm_frames_close(f);
	return rc;
}

struct lwm_frames_info lwm_frames_info_of(const struct lwm_frames *f)
{
	return f->info;
}

static int copy_out(struct lwm_frames *f, uint8_t *rgb, struct lwm_err *e)
{
	size_t row = (size_t)f->info.width * 3;
	int rc = 0;
	if (f->out->width != f->info.width || f->out->height != f->info.height)
		rc = lwm_fail(e, LWM_EDATA, "%s: a frame is %d x %d and the header said %d x %d", f->d->path, f->out->width,
			      f->out->height, f->info.width, f->info.height);
	for (int y = 0; rc == 0 && y < f->info.height; y++)
		memcpy(rgb + (size_t)y * row, f->out->data[0] + (ptrdiff_t)y * f->out->linesize[0], row);
	av_frame_unref(f->out);
	return rc;
}

static int next_of_folder(struct lwm_frames *f, uint8_t *rgb, double *seconds, struct lwm_err *e)
{
	int64_t i = wanted_number(f, f->given);
	if (i >= f->images.n)
		return 0;
	if (f->given > 0 || i > 0)
		LWM_TRY(reopen_clip(f, f->images.v[i], e));
	int rc = pull_one(f, false, e);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return lwm_fail(e, LWM_EDATA, "%s: no picture in it%s%s", f->d->path, lwm_av_reason()[0] ? ": " : "",
				lwm_av_reason());
	if (seconds)
		*seconds = (double)i;
	LWM_TRY(copy_out(f, rgb, e));
	f->given++;
	LWM_TRY(check_damage(f, e));
	return 1;
}

int lwm_frames_next(struct lwm_frames *f, uint8_t *rgb, double *seconds, struct lwm_err *e)
{
	int rc;
	if (f->ended || all_given(f))
		return 0;
	if (f->images.n)
		return next_of_folder(f, rgb, seconds, e);
	int64_t want = wanted_number(f, f->given);
	while ((rc = pull_one(f, false, e)) == 1 && f->seen - 1 < want)
		av_frame_unref(f->out);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return finish_clip(f, e);
	if (seconds)
		*seconds = lwm_graph_seconds(f->g, f->out);
	LWM_TRY(copy_out(f, rgb, e));
	f->given++;
	return 1;
}

const char *lwm_frames_damage(const struct lwm_frames *f)
{
	return f->damage;
}

void lwm_frames_close(struct lwm_frames *f)
{
	if (!f)
		return;
	lwm_graph_close(f->g);
	lwm_decoder_close(f->d);
	av_frame_free(&f->in);
	av_frame_free(&f->out);
	lwm_paths_release(&f->images);
	free(f->path);
	free(f);
}

/* Room for one more frame of `one` bytes. */
static int grow_room(uint8_t **rgb, int64_t n, int64_t one, int64_t limit, int64_t *cap, const char *path,
		     struct lwm_err *e)
{
	if (n < *cap)
		return 0;
	int64_t bytes, more = *cap ? *cap * 2 : 16;
	if (lwm_mul(n + 1, one, &bytes) || bytes > limit)
		return lwm_fail(e, LWM_EMEMORY, "%s: more than %" PRId64 " bytes of frames", path, limit);
	if (lwm_mul(more, one, &bytes) || bytes > limit) {
		more = limit / one;
		bytes = more * one;
	}
	uint8_t *p = realloc(*rgb, (size_t)bytes);
	if (!p)
		return lwm_fail(e, LWM_EMEMORY, "%s: no memory for %" PRId64 " frames", path, more);
	*rgb = p;
	*cap = more;
	return 0;
}

int lwm_frames_read(const char *path, const struct lwm_frames_opts *opts, int64_t limit, uint8_t **rgb, int64_t *n,
		    struct lwm_frames_info *info, struct lwm_err *e)
{
	struct lwm_frames *f;
	int64_t cap = 0;
	int rc;
	*rgb = NULL;
	*n = 0;
	LWM_TRY(lwm_frames_open(&f, path, opts, e));
	int64_t one = (int64_t)f->info.width * f->info.height * 3;
	for (;;) {
		/* One frame of slack, so that the end can be seen before the limit is. */
		LWM_GO(grow_room(rgb, *n, one, limit + one, &cap, path, e));
		LWM_GO(lwm_frames_next(f, *rgb + *n * one, NULL, e));
		if (rc == 0)
			break;
		++*n;
	}
	if (info)
		*info = f->info;
out:
	if (rc < 0) {
		free(*rgb);
		*rgb = NULL;
		*n = 0;
	}
	lwm_frames_close(f);
	return rc;
}
