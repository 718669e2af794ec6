/* graph.c - decoded frames to the wanted rate, size and RGB, by FFmpeg's own filters. */
#include "common/media/media_int.h"

#include <inttypes.h>
#include <libavfilter/avfilter.h>
#include <libavfilter/buffersink.h>
#include <libavfilter/buffersrc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lwm_graph {
	AVFilterGraph *g;
	AVFilterContext *src, *sink;
	const struct lwm_decoder *d;
	int width, height, format; /* that src was made for */
	int64_t pushed;
};

int lwm_graph_size(const struct lwm_frames_opts *o, int src_width, int src_height, int *width, int *height,
		   const char *path, struct lwm_err *e)
{
	int m = o->multiple > 1 ? o->multiple : 1;
	*width = o->width ? o->width : src_width / m * m;
	*height = o->height ? o->height : src_height / m * m;
	if (*width <= 0 || *height <= 0)
		return lwm_fail(e, LWM_EDATA, "%s: %d x %d pixels are smaller than one block of %d x %d", path, src_width,
				src_height, m, m);
	return 0;
}

/* Where a picture of sw x sh is scaled to before w x h are cut from its middle: as published, the long side is truncated, and
 * half a pixel goes to the even one. */
struct cover {
	int64_t w, h, x, y;
};

static int64_t half_to_even(int64_t d)
{
	return d / 2 + (d & d / 2 & 1);
}

static struct cover cover_size(int64_t sw, int64_t sh, int64_t w, int64_t h)
{
	struct cover c = { w, h, 0, 0 };
	if (w * sh >= h * sw)
		c.h = w * sh / sw;
	else
		c.w = h * sw / sh;
	c.x = half_to_even(c.w - w);
	c.y = half_to_even(c.h - h);
	return c;
}

/* What is cropped from the long side was there before: of a thin picture that is a lot. */
static int check_scaled(const struct lwm_decoder *d, const struct cover *c, int64_t sw, int64_t sh, struct lwm_err *e)
{
	if ((double)c->w * (double)c->h <= (double)d->limit)
		return 0;
	return lwm_fail(e, LWM_EDATA, "%s: %" PRId64 " x %" PRId64 " pixels, made %" PRId64 " x %" PRId64 ", are more than the limit of %" PRId64 " "
			"(--max-pixels raises it)", d->path, sw, sh, c->w, c->h,
			d->limit);
}

/* The filter string of frames.h. */
static int filter_chain(char *s, size_t n, const struct lwm_decoder *d, const AVFrame *first,
		   const struct lwm_frames_opts *o, bool count_only, struct lwm_err *e)
{
	static const char flags[] = "flags=bicubic+accurate_rnd+full_chroma_int+bitexact";
	static const char *const turn[4] = { "", "transpose=clock,", "hflip,vflip,", "transpose=cclock," };
	bool clock = !d->still, turned = d->rotate % 180 != 0;
	int w, h, at = 0;
	s[0] = 0;
	if (clock && o->start > 0)
		at += snprintf(s + at, n - (size_t)at, "trim=start=%.6f,", o->start);
	if (clock && o->end > 0)
		at += snprintf(s + at, n - (size_t)at, "trim=end=%.6f,", o->end);
	if (clock && (o->start > 0 || o->end > 0))
		at += snprintf(s + at, n - (size_t)at, "setpts=PTS-STARTPTS,");
	if (clock && o->fps > 0)
		at += snprintf(s + at, n - (size_t)at, "fps=%.9g,", o->fps);
	if (count_only) {
		snprintf(s + at, n - (size_t)at, "null");
		return 0;
	}
	int64_t sw = turned ? first->height : first->width, sh = turned ? first->width : first->height;
	LWM_TRY(lwm_graph_size(o, (int)sw, (int)sh, &w, &h, d->path, e));
	at += snprintf(s + at, n - (size_t)at, "%s", turn[d->rotate / 90]);
	if (o->width) {
		struct cover c = cover_size(sw, sh, w, h);
		LWM_TRY(check_scaled(d, &c, sw, sh, e));
		snprintf(s + at, n - (size_t)at, "scale=w=%d:h=%d:%s,crop=%d:%d:%d:%d,setsar=1,format=rgb24", (int)c.w, (int)c.h,
			 flags, w, h, (int)c.x, (int)c.y);
	} else {
		snprintf(s + at, n - (size_t)at, "scale=%s,crop=%d:%d,setsar=1,format=rgb24", flags, w, h);
	}
	return 0;
}

static int build_graph(struct lwm_graph *g, const struct lwm_decoder *d, const AVFrame *f, const char *chain,
		 struct lwm_err *e)
{
	char args[256];
	AVRational tb = d->st->time_base;
	snprintf(args, sizeof args, "video_size=%dx%d:pix_fmt=%d:time_base=%d/%d:pixel_aspect=1/1", f->width, f->height,
		 f->format, tb.num, tb.den);
	AVFilterInOut *in = avfilter_inout_alloc(), *out = avfilter_inout_alloc();
	g->g = avfilter_graph_alloc();
	int av = AVERROR(ENOMEM);
	if (!g->g || !in || !out)
		goto end;
	g->g->nb_threads = 1;
	av = avfilter_graph_create_filter(&g->src, avfilter_get_by_name("buffer"), "in", args, NULL, g->g);
	if (av >= 0)
		av = avfilter_graph_create_filter(&g->sink, avfilter_get_by_name("buffersink"), "out", NULL, NULL, g->g);
	if (av < 0)
		goto end;
	*out = (AVFilterInOut){ .name = av_strdup("in"), .filter_ctx = g->src };
	*in = (AVFilterInOut){ .name = av_strdup("out"), .filter_ctx = g->sink };
	av = AVERROR(ENOMEM);
	if (!out->name || !in->name)
		goto end;
	av = avfilter_graph_parse_ptr(g->g, chain, &in, &out, NULL);
	if (av >= 0)
		av = avfilter_graph_config(g->g, NULL);
end:
	avfilter_inout_free(&in);
	avfilter_inout_free(&out);
	return av < 0 ? lwm_av_fail(e, LWM_EDATA, av, "%s: filters \"%s\" cannot be set up", d->path, chain) : 0;
}

int lwm_graph_open(struct lwm_graph **out, const struct lwm_decoder *d, const AVFrame *first,
		   const struct lwm_frames_opts *o, bool count_only, struct lwm_err *e)
{
	char chain[512];
	*out = NULL;
	LWM_TRY(filter_chain(chain, sizeof chain, d, first, o, count_only, e));
	LWM_TRY(lwm_media_room(d->path, (int64_t)first->width * first->height, d->still, e));
	struct lwm_graph *g = calloc(1, sizeof *g);
	if (!g)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", d->path);
	g->d = d;
	g->width = first->width;
	g->height = first->height;
	g->format = first->format;
	int rc = build_graph(g, d, first, chain, e);
	if (rc < 0) {
		lwm_graph_close(g);
		return rc;
	}
	*out = g;
	return 0;
}

int lwm_graph_push(struct lwm_graph *g, AVFrame *frame, struct lwm_err *e)
{
	if (frame && (frame->width != g->width || frame->height != g->height || frame->format != g->format))
		return lwm_fail(e, LWM_EDATA, "%s: picture size or format changes from %d x %d to %d x %d at frame %" PRId64,
				g->d->path, g->width, g->height, frame->width, frame->height, g->pushed);
	/* The end has a time too: the last frame lasts until then. */
	int av = frame ? av_buffersrc_add_frame(g->src, frame)
		       : av_buffersrc_close(g->src, g->d->next_pts, AV_BUFFERSRC_FLAG_PUSH);
	g->pushed++;
	return av < 0 ? lwm_av_fail(e, LWM_EDATA, av, "%s: filtering failed", g->d->path) : 0;
}

int lwm_graph_pull(struct lwm_graph *g, AVFrame *frame, struct lwm_err *e)
{
	int av = av_buffersink_get_frame(g->sink, frame);
	if (av == AVERROR(EAGAIN))
		return 0;
	if (av == AVERROR_EOF)
		return 2;
	return av < 0 ? lwm_av_fail(e, LWM_EDATA, av, "%s: filtering failed", g->d->path) : 1;
}

double lwm_graph_seconds(const struct lwm_graph *g, const AVFrame *frame)
{
	return frame->pts == AV_NOPTS_VALUE ? 0 : (double)frame->pts * av_q2d(av_buffersink_get_time_base(g->sink));
}

void lwm_graph_close(struct lwm_graph *g)
{
	if (!g)
		return;
	avfilter_graph_free(&g->g);
	free(g);
}
