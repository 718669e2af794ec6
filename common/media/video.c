/* video.c - mp4 and mkv files from RGB frames. */
#include "common/media/picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/media/media_int.h"

struct lwm_video {
	struct lwm_outfile *file;
	AVFormatContext *fmt;
	AVCodecContext *enc;
	AVStream *st;
	AVPacket *pkt;
	char *url; /* "file:" + the temporary name: no name is read as a protocol */
	int width, height;
	int64_t frames;
	bool open; /* the file of pb */
};

static int open_encoder(struct lwm_video *v, double fps, struct lwm_err *e)
{
	const AVCodec *codec = avcodec_find_encoder_by_name("libx264");
	AVDictionary *opts = NULL;
	bool x264 = codec != NULL;
	int av = 0;
	if (!codec)
		codec = avcodec_find_encoder(AV_CODEC_ID_MPEG4);
	if (!codec)
		return lwm_fail(e, LWM_EUNAVAIL, "%s: this FFmpeg has neither libx264 nor mpeg4", v->file->path);
	v->enc = avcodec_alloc_context3(codec);
	if (!v->enc)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", v->file->path);
	v->enc->width = v->width + v->width % 2;
	v->enc->height = v->height + v->height % 2;
	v->enc->pix_fmt = AV_PIX_FMT_YUV420P;
	v->enc->framerate = av_d2q(fps, 1001000);
	v->enc->time_base = av_inv_q(v->enc->framerate);
	v->enc->thread_count = 1;
	v->enc->flags |= AV_CODEC_FLAG_BITEXACT;
	if (v->fmt->oformat->flags & AVFMT_GLOBALHEADER)
		v->enc->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
	if (x264) {
		av = av_dict_set(&opts, "crf", "18", 0);
		if (av >= 0)
			av = av_dict_set(&opts, "preset", "medium", 0);
		if (av >= 0) // it reads memory that x264 never wrote: other bytes now and then
			av = av_dict_set(&opts, "mbtree", "0", 0);
	} else {
		v->enc->flags |= AV_CODEC_FLAG_QSCALE;
		v->enc->global_quality = 3 * FF_QP2LAMBDA;
	}
	if (av >= 0)
		av = avcodec_open2(v->enc, codec, &opts);
	av_dict_free(&opts);
	return av < 0 ? lwm_av_fail(e, LWM_EUNAVAIL, av, "%s: encoder %s does not open", v->file->path, codec->name) : 0;
}

static int open_container(struct lwm_video *v, struct lwm_err *e)
{
	AVDictionary *opts = NULL;
	v->st = avformat_new_stream(v->fmt, NULL);
	v->pkt = av_packet_alloc();
	if (!v->st || !v->pkt)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", v->file->path);
	v->st->time_base = v->enc->time_base;
	v->st->avg_frame_rate = v->enc->framerate;
	v->fmt->flags |= AVFMT_FLAG_BITEXACT; // no version strings and dates
	int av = avcodec_parameters_from_context(v->st->codecpar, v->enc);
	if (av >= 0)
		av = avio_open(&v->fmt->pb, v->url, AVIO_FLAG_WRITE);
	if (av < 0)
		return lwm_av_fail(e, LWM_ECANTCREATE, av, "%s: cannot be created", v->file->path);
	v->open = true;
	av = av_dict_set(&opts, "movflags", "+faststart", 0);
	if (av >= 0)
		av = avformat_write_header(v->fmt, &opts);
	av_dict_free(&opts);
	return av < 0 ? lwm_av_fail(e, LWM_EIO, av, "%s: header cannot be written", v->file->path) : 0;
}

int lwm_video_open(struct lwm_video **out, const char *path, int width, int height, double fps, bool force,
		   struct lwm_err *e)
{
	int rc;
	*out = NULL;
	bool mp4 = lwm_path_has_suffix(path, ".mp4");
	if (!mp4 && !lwm_path_has_suffix(path, ".mkv"))
		return lwm_fail(e, LWM_EUSAGE, "%s: videos are written as .mp4 or .mkv", path);
	if (width <= 0 || height <= 0 || (int64_t)width * height > LWM_MEDIA_MAX_PIXELS || !(fps > 0 && fps <= 1000))
		return lwm_fail(e, LWM_EUSAGE, "%s: %d x %d pixels at %g frames a second cannot be written", path, width,
				height, fps);
	struct lwm_video *v = calloc(1, sizeof *v);
	if (!v)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	v->width = width;
	v->height = height;
	lwm_av_quiet();
	lwm_av_forget();
	lwm_av_room((int64_t)width * height);
	LWM_GO(lwm_outfile_open(&v->file, path, force, e));
	if (asprintf(&v->url, "file:%s", v->file->tmp) < 0) {
		v->url = NULL;
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path));
	}
	int av = avformat_alloc_output_context2(&v->fmt, NULL, mp4 ? "mp4" : "matroska", v->url);
	if (av < 0)
		LWM_GO(lwm_av_fail(e, LWM_EUNAVAIL, av, "%s: this FFmpeg writes no %s", path, mp4 ? "mp4" : "mkv"));
	LWM_GO(open_encoder(v, fps, e));
	LWM_GO(open_container(v, e));
	*out = v;
	return 0;
out:
	lwm_video_discard(v);
	return rc;
}

/* Writes what the encoder has ready. */
static int drain_encoder(struct lwm_video *v, struct lwm_err *e)
{
	int av;
	while ((av = avcodec_receive_packet(v->enc, v->pkt)) >= 0) {
		if (v->pkt->duration == 0)
			v->pkt->duration = 1;
		av_packet_rescale_ts(v->pkt, v->enc->time_base, v->st->time_base);
		v->pkt->stream_index = v->st->index;
		av = av_interleaved_write_frame(v->fmt, v->pkt);
		if (av < 0)
			return lwm_av_fail(e, LWM_EIO, av, "%s: writing failed", v->file->path);
	}
	if (av != AVERROR(EAGAIN) && av != AVERROR_EOF)
		return lwm_av_fail(e, LWM_EINTERNAL, av, "%s: encoding failed", v->file->path);
	return 0;
}

int lwm_video_add(struct lwm_video *v, const uint8_t *rgb, struct lwm_err *e)
{
	AVFrame *f;
	LWM_TRY(lwm_frame_from_rgb(&f, rgb, v->width, v->height, v->enc->width, v->enc->height, AV_PIX_FMT_YUV420P, e));
	f->pts = v->frames++;
	int av = avcodec_send_frame(v->enc, f);
	av_frame_free(&f);
	if (av < 0)
		return lwm_av_fail(e, LWM_EINTERNAL, av, "%s: encoding failed", v->file->path);
	return drain_encoder(v, e);
}

int lwm_video_commit(struct lwm_video *v, struct lwm_err *e)
{
	int rc, av;
	if (v->frames == 0)
		LWM_GO(lwm_fail(e, LWM_EUSAGE, "%s: a video needs at least one frame", v->file->path));
	avcodec_send_frame(v->enc, NULL);
	LWM_GO(drain_encoder(v, e));
	av = av_write_trailer(v->fmt);
	if (av >= 0)
		av = v->fmt->pb->error;
	v->open = false;
	int closed = avio_closep(&v->fmt->pb);
	if (av < 0 || closed < 0)
		LWM_GO(lwm_av_fail(e, LWM_EIO, av < 0 ? av : closed, "%s: writing failed", v->file->path));
	struct lwm_outfile *file = v->file;
	v->file = NULL;
	rc = lwm_outfile_commit(file, e);
out:
	lwm_video_discard(v);
	return rc;
}

void lwm_video_discard(struct lwm_video *v)
{
	if (!v)
		return;
	if (v->open)
		avio_closep(&v->fmt->pb);
	av_packet_free(&v->pkt);
	avcodec_free_context(&v->enc);
	avformat_free_context(v->fmt);
	lwm_outfile_discard(v->file);
	free(v->url);
	free(v);
}

int lwm_video_write(const char *path, const uint8_t *rgb, int64_t n, int width, int height, double fps, bool force,
		    struct lwm_err *e)
{
	struct lwm_video *v;
	LWM_TRY(lwm_video_open(&v, path, width, height, fps, force, e));
	for (int64_t i = 0; i < n; i++) {
		int rc = lwm_video_add(v, rgb + i * (int64_t)width * height * 3, e);
		if (rc < 0) {
			lwm_video_discard(v);
			return rc;
		}
	}
	return lwm_video_commit(v, e);
}
