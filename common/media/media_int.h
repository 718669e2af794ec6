/* media_int.h - what the files of this folder share. FFmpeg's types stay inside common/media.
 *
 * A clip goes through them so (frames.c):
 *
 *	lwm_decoder_open(&d, path, max_pixels, e), lwm_decoder_seek(d, start, e)      decode.c, which reads through source.c
 *	lwm_decoder_next(d, frame, e)                                                 the first frame tells size and format
 *	lwm_graph_open(&g, d, frame, opts, false, e)                                  graph.c
 *	lwm_graph_push(g, frame, e), lwm_graph_pull(g, out, e) ...                    until both have ended
 *	lwm_decoder_verdict(d, text, n)                                               was it all there?
 *	lwm_graph_close(g), lwm_decoder_close(d)
 *
 * Calls are local, and each object belongs to one thread at a time.
 */
#ifndef LWM_MEDIA_MEDIA_INT_H
#define LWM_MEDIA_MEDIA_INT_H

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

#include "common/media/frames.h"

/* ---- messages: FFmpeg tells its reasons only through av_log ---- */

void lwm_av_quiet(void);              /* once per process: lines go to a buffer of the thread instead of stderr */
void lwm_av_forget(void);             /* empties this thread's buffer */
const char *lwm_av_reason(void);      /* this thread's lines since then, one line; "" if none */
/* lwm_fail with ": FFmpeg's error text (its log lines)" after the sentence. */
int lwm_av_fail(struct lwm_err *e, int code, int av, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* ---- limits ---- */

int64_t lwm_media_limit(int64_t max_pixels); /* of opts: 0 is the default */
/* No allocation of FFmpeg's own is larger than pictures of so many pixels need: indexes and tables by the count in a header. */
void lwm_av_room(int64_t pixels);
/* -LWM_EDATA: the size, the limit, and how to raise it. */
int lwm_media_too_large(const char *path, int64_t width, int64_t height, int64_t limit, struct lwm_err *e);
/* Was it a picture's size that FFmpeg would not take, as its log lines say? Then `text` (n bytes) says which and why. */
bool lwm_media_refused(int64_t limit, char *text, size_t n);
/* Is there memory for a decoder, filters and frames of so many pixels? FFmpeg continues without what it could not allocate: a
 * filter loses an option, a file its index, and whole clips look damaged. */
int lwm_media_room(const char *path, int64_t pixels, bool still, struct lwm_err *e);

/* ---- how it is read (source.c) ---- */

struct lwm_av_source {
	const char *path; /* the only file that may be opened */
	AVIOContext *pb;
	int error;        /* errno of the last read that failed, 0: none did */
};
/* For fmt as avformat_alloc_context gives it; an AVERROR or 0. Close it after fmt. */
int lwm_av_source_open(struct lwm_av_source *src, AVFormatContext *fmt);
void lwm_av_source_close(struct lwm_av_source *src); /* does nothing to one that is not open */

/* ---- one file, demuxed and decoded ---- */

struct lwm_decoder {
	char *path;
	struct lwm_av_source source;
	AVFormatContext *fmt;
	AVCodecContext *dec;
	AVStream *st;
	AVPacket *pkt;
	AVFrame *first;          /* decoded when the file was opened and not given yet, or NULL */
	int64_t limit;           /* pixels of a frame */
	bool still, draining;
	int rotate;              /* 0, 90, 180, 270: clockwise turn to be applied, from the display matrix */
	int64_t packets, frames; /* of the video stream so far */
	int64_t bad_packets, bad_frames;
	int64_t next_pts;        /* for frames without a time */
	int64_t last_end;        /* end of the last video packet, st->time_base, from its start */
	double any_end;          /* end of the last packet of any stream, seconds */
};
int lwm_decoder_open(struct lwm_decoder **out, const char *path, int64_t max_pixels, struct lwm_err *e);
int lwm_decoder_seek(struct lwm_decoder *d, double seconds, struct lwm_err *e); /* to a key frame at or before */
/* 1: *frame holds a frame (unref it), pts counted from the file's start; 0: end of the stream. */
int lwm_decoder_next(struct lwm_decoder *d, AVFrame *frame, struct lwm_err *e);
/* After the end: a sentence in text (n bytes) about what is damaged or missing; "" if nothing is. */
void lwm_decoder_verdict(const struct lwm_decoder *d, char *text, size_t n);
double lwm_decoder_fps(const struct lwm_decoder *d);      /* 0 unknown */
double lwm_decoder_duration(const struct lwm_decoder *d); /* seconds, 0 unknown */
void lwm_decoder_close(struct lwm_decoder *d);

/* ---- the filter graph ---- */

struct lwm_graph; /* AVFrames in, frames of opts' rate and size out */
/* src_width, src_height: after rotation. Writes the size that comes out. */
int lwm_graph_size(const struct lwm_frames_opts *o, int src_width, int src_height, int *width, int *height,
		   const char *path, struct lwm_err *e);
/* Made from the first decoded frame. count_only leaves scaling out. */
int lwm_graph_open(struct lwm_graph **out, const struct lwm_decoder *d, const AVFrame *first,
		   const struct lwm_frames_opts *o, bool count_only, struct lwm_err *e);
int lwm_graph_push(struct lwm_graph *g, AVFrame *frame, struct lwm_err *e); /* takes the reference; NULL: the end */
int lwm_graph_pull(struct lwm_graph *g, AVFrame *frame, struct lwm_err *e); /* 1 frame, 0 wants more, 2 the end */
double lwm_graph_seconds(const struct lwm_graph *g, const AVFrame *frame);
void lwm_graph_close(struct lwm_graph *g);

/* ---- encoding ---- */

/* rgb -> a new frame of dst_width x dst_height in fmt; a doubled last row or column where dst is larger by one. */
int lwm_frame_from_rgb(AVFrame **out, const uint8_t *rgb, int width, int height, int dst_width, int dst_height,
		       enum AVPixelFormat fmt, struct lwm_err *e);

#endif
