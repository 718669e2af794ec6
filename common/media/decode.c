/* decode.c - one media file: demuxed, decoded, and watched for damage that FFmpeg reports as a plain end. */
#include "common/media/media_int.h"

#include <errno.h>
#include <inttypes.h>
#include <libavutil/common.h>
#include <libavutil/display.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/arena.h"
#include "common/base/path.h"

/* Demuxers that read one file and nothing else: no playlists, no file name patterns, no network. */
static const char demuxers[] =
	"mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,h264,hevc,m4v,ivf,"
	"wav,mp3,flac,aac,yuv4mpegpipe,nut,mxf,obu,av1,rm,dv,mjpeg,vc1,image2,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,"
	"ppm_pipe,pgm_pipe,pbm_pipe,pam_pipe,qoi_pipe,jpegxl_pipe,jpegls_pipe,j2k_pipe,gem_pipe,sgi_pipe,"
	"sunrast_pipe,exr_pipe,dpx_pipe,pcx_pipe,psd_pipe,pgmyuv_pipe,xbm_pipe,xpm_pipe,xwd_pipe";

int lwm_media_room(const char *path, int64_t pixels, bool still, struct lwm_err *e)
{
	enum { FIXED = 48 << 20, STILL = 6, FILM = 20 /* frames: a decoder keeps up to 16 for those to come */ };
	return lwm_memory_room(FIXED + (size_t)pixels * 4 * (still ? STILL : FILM), path, e);
}

static int check_file(const char *path, struct lwm_err *e)
{
	struct stat sb;
	if (stat(path, &sb) != 0)
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s", path);
	if (!S_ISREG(sb.st_mode))
		return lwm_fail(e, LWM_ENOINPUT, "%s: is not a regular file", path);
	if (access(path, R_OK) != 0)
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s", path);
	if (sb.st_size == 0)
		return lwm_fail(e, LWM_EDATA, "%s: is empty", path);
	return 0;
}

static int size_refused(const struct lwm_decoder *d, struct lwm_err *e)
{
	char text[160];
	return lwm_media_refused(d->limit, text, sizeof text) ? lwm_fail(e, LWM_EDATA, "%s: %s", d->path, text) : 0;
}

static int open_container(struct lwm_decoder *d, struct lwm_err *e)
{
	AVDictionary *opts = NULL;
	/* "file:" keeps a name with a colon from being read as a protocol. */
	char *url = malloc(strlen(d->path) + 6);
	if (!url)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", d->path);
	snprintf(url, strlen(d->path) + 6, "file:%s", d->path);
	int av = av_dict_set(&opts, "protocol_whitelist", "file", 0);
	if (av >= 0)
		av = av_dict_set(&opts, "format_whitelist", demuxers, 0);
	if (av >= 0)
		av = av_dict_set(&opts, "pattern_type", "none", 0);
	lwm_av_forget();
	d->fmt = avformat_alloc_context();
	if (av >= 0)
		av = d->fmt ? lwm_av_source_open(&d->source, d->fmt) : AVERROR(ENOMEM);
	if (av >= 0) /* not without any of these */
		av = avformat_open_input(&d->fmt, url, NULL, &opts);
	av_dict_free(&opts);
	free(url);
	LWM_TRY(av < 0 ? size_refused(d, e) : 0);
	return av < 0 ? lwm_av_fail(e, LWM_EDATA, av, "%s: cannot be read as video or image", d->path) : 0;
}

enum { BLOCK = 128, BLOCKS = 4 * BLOCK * BLOCK };

static unsigned video_streams(const AVFormatContext *fmt)
{
	unsigned n = 0;
	for (unsigned i = 0; i < fmt->nb_streams; i++)
		n += fmt->streams[i]->codecpar->codec_type == AVMEDIA_TYPE_VIDEO;
	return n;
}

/* Reads ahead until the streams are known. FFmpeg decodes some of each for that: together they have the pixels of one frame.
 * Streams that turn up on the way cannot be given a limit, so where they may nothing is decoded, and the first frame tells. */
static int probe_streams(struct lwm_decoder *d, struct lwm_err *e)
{
	unsigned n = d->fmt->nb_streams, videos = video_streams(d->fmt);
	bool blind = d->fmt->ctx_flags & AVFMTCTX_NOHEADER;
	AVDictionary **opts = calloc(n ? n : 1, sizeof *opts);
	if (!opts || (blind && !(d->fmt->codec_whitelist = av_strdup("none")))) {
		free(opts);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", d->path);
	}
	int av = 0;
	for (unsigned i = 0; i < n && av >= 0; i++)
		av = av_dict_set_int(&opts[i], "max_pixels", d->limit / (videos ? videos : 1) + BLOCKS, 0);
	if (av >= 0)
		av = avformat_find_stream_info(d->fmt, opts);
	for (unsigned i = 0; i < n; i++)
		av_dict_free(&opts[i]);
	free(opts);
	if ((blind || videos > 1) && !lwm_media_refused(d->limit, NULL, 0))
		lwm_av_forget(); /* what could not be decoded with so little */
	return av < 0 ? lwm_av_fail(e, LWM_EDATA, av, "%s: no stream can be made out", d->path) : 0;
}

static int turn_of(AVStream *st)
{
	const uint8_t *m = av_stream_get_side_data(st, AV_PKT_DATA_DISPLAYMATRIX, NULL);
	if (!m)
		return 0;
	double deg = -av_display_rotation_get((const int32_t *)(const void *)m);
	return isfinite(deg) ? (((int)lround(deg / 90) * 90) % 360 + 360) % 360 : 0;
}

/* Codecs count whole blocks. A picture of just the limit has some pixels more for them, not twice as many (beyond a few blocks). */
static int64_t coded_limit(int64_t limit, int64_t width, int64_t height)
{
	int64_t coded = (width + BLOCK - 1) * (height + BLOCK - 1), most = 2 * limit + BLOCKS;
	return coded < limit ? limit : coded < most ? coded : most;
}

/* Before anything is decoded. Where nothing was, the header's size may be that of whole blocks, and the first frame tells. */
static int check_size(const struct lwm_decoder *d, const AVCodecParameters *par, struct lwm_err *e)
{
	int64_t spare = par->format < 0 ? BLOCK - 1 : 0;
	int64_t w = par->width > spare ? par->width - spare : 1, h = par->height > spare ? par->height - spare : 1;
	if (w * h > d->limit)
		return lwm_media_too_large(d->path, par->width, par->height, d->limit, e);
	return par->width <= 0 ? size_refused(d, e) : 0;
}

static int open_codec(struct lwm_decoder *d, struct lwm_err *e)
{
	const AVCodec *codec = NULL;
	int i = av_find_best_stream(d->fmt, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
	if (i == AVERROR_STREAM_NOT_FOUND)
		return lwm_fail(e, LWM_EDATA, "%s: has no video stream (%s, %u streams)", d->path,
				d->fmt->iformat->name, d->fmt->nb_streams);
	if (i < 0)
		return lwm_av_fail(e, LWM_EDATA, i, "%s: no decoder for its video stream", d->path);
	d->st = d->fmt->streams[i];
	const AVCodecParameters *par = d->st->codecpar;
	LWM_TRY(check_size(d, par, e));
	LWM_TRY(lwm_media_room(d->path, (int64_t)par->width * par->height, d->still, e));
	d->dec = avcodec_alloc_context3(codec);
	d->pkt = av_packet_alloc();
	if (!d->dec || !d->pkt)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", d->path);
	int av = avcodec_parameters_to_context(d->dec, par);
	d->dec->thread_count = 1; // the same frames and the same reports on every run
	d->dec->max_pixels = coded_limit(d->limit, par->width, par->height);
	d->dec->pkt_timebase = d->st->time_base;
	if (av >= 0)
		av = avcodec_open2(d->dec, codec, NULL);
	if (av < 0)
		return lwm_av_fail(e, LWM_EDATA, av, "%s: decoder %s does not open", d->path, codec->name);
	d->rotate = turn_of(d->st);
	return 0;
}

/* What came of it, unless the disk failed meanwhile: demuxers take that for the end of the file or for damage. */
static int unless_unread(const struct lwm_decoder *d, int rc, struct lwm_err *e)
{
	if (!d->source.error || (rc < 0 && rc != -LWM_EDATA))
		return rc;
	return lwm_fail_errno(e, LWM_EIO, d->source.error, "%s: reading failed after %" PRId64 " frames", d->path, d->frames);
}

int lwm_decoder_seek(struct lwm_decoder *d, double seconds, struct lwm_err *e)
{
	int64_t base = d->fmt->start_time == AV_NOPTS_VALUE ? 0 : d->fmt->start_time;
	if (d->still || seconds <= 0)
		return 0;
	int av = av_seek_frame(d->fmt, -1, av_sat_add64(base, (int64_t)(seconds * AV_TIME_BASE)), AVSEEK_FLAG_BACKWARD);
	if (av < 0)
		av = av_seek_frame(d->fmt, -1, base, AVSEEK_FLAG_BACKWARD); // decode from the start instead
	if (av < 0)
		return unless_unread(d, lwm_av_fail(e, LWM_EDATA, av, "%s: cannot seek", d->path), e);
	avcodec_flush_buffers(d->dec);
	av_frame_free(&d->first);
	d->packets = d->frames = d->bad_packets = d->bad_frames = d->next_pts = d->last_end = 0;
	d->any_end = 0;
	d->draining = false;
	return 0;
}

/* The JPEG decoder fills what is missing with grey and says nothing: the last scan needs an end mark after it. */
static bool jpeg_is_cut(const AVPacket *p)
{
	int scan = -1, end = -1;
	for (int i = 0; i + 1 < p->size; i++) {
		if (p->data[i] == 0xff && p->data[i + 1] == 0xda)
			scan = i;
		if (p->data[i] == 0xff && p->data[i + 1] == 0xd9)
			end = i;
	}
	return end < scan;
}

static void note_packet(struct lwm_decoder *d)
{
	const AVStream *s = d->fmt->streams[d->pkt->stream_index];
	int64_t t = d->pkt->pts != AV_NOPTS_VALUE ? d->pkt->pts : d->pkt->dts;
	if (t != AV_NOPTS_VALUE) {
		double end = ((double)t + (double)d->pkt->duration) * av_q2d(s->time_base);
		if (d->fmt->start_time != AV_NOPTS_VALUE)
			end -= (double)d->fmt->start_time / AV_TIME_BASE;
		if (end > d->any_end)
			d->any_end = end;
	}
	if (s != d->st)
		return;
	d->packets++;
	if ((d->pkt->flags & AV_PKT_FLAG_CORRUPT) ||
	    (d->still && d->dec->codec_id == AV_CODEC_ID_MJPEG && jpeg_is_cut(d->pkt)))
		d->bad_packets++;
	if (t != AV_NOPTS_VALUE) {
		int64_t start = d->st->start_time == AV_NOPTS_VALUE ? 0 : d->st->start_time;
		int64_t end = av_sat_sub64(av_sat_add64(t, d->pkt->duration), start); // times are any 64-bit numbers
		if (end > d->last_end)
			d->last_end = end;
	}
}

/* Hands the decoder one more packet, or the end. */
static int feed_packet(struct lwm_decoder *d, struct lwm_err *e)
{
	int av = av_read_frame(d->fmt, d->pkt);
	if (av == AVERROR_EOF) {
		d->draining = true;
		av = avcodec_send_packet(d->dec, NULL);
		return av == AVERROR(ENOMEM) ? lwm_fail(e, LWM_EMEMORY, "%s: out of memory", d->path) : 0;
	}
	if (av < 0)
		return lwm_av_fail(e, LWM_EDATA, av, "%s: reading failed after %" PRId64 " frames", d->path, d->frames);
	note_packet(d);
	if (d->pkt->stream_index == d->st->index) {
		av = avcodec_send_packet(d->dec, d->pkt);
		if (av == AVERROR(ENOMEM)) {
			av_packet_unref(d->pkt);
			return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", d->path);
		}
		if (av < 0)
			d->bad_packets++;
	}
	av_packet_unref(d->pkt);
	return 0;
}

static void set_time(struct lwm_decoder *d, AVFrame *f)
{
	AVRational usec = { 1, AV_TIME_BASE };
	int64_t step = f->pkt_duration;
	if (step <= 0 && d->st->avg_frame_rate.num > 0)
		step = av_rescale_q(1, av_inv_q(d->st->avg_frame_rate), d->st->time_base);
	if (f->best_effort_timestamp == AV_NOPTS_VALUE) {
		f->pts = d->next_pts;
	} else {
		f->pts = f->best_effort_timestamp;
		if (d->fmt->start_time != AV_NOPTS_VALUE)
			f->pts = av_sat_sub64(f->pts, av_rescale_q(d->fmt->start_time, usec, d->st->time_base));
	}
	d->next_pts = av_sat_add64(f->pts, step > 0 ? step : 1);
}

static int decode_frame(struct lwm_decoder *d, AVFrame *frame, struct lwm_err *e)
{
	int av;
	while ((av = avcodec_receive_frame(d->dec, frame)) < 0) {
		if (av == AVERROR(ENOMEM)) /* no damage */
			return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for frame %" PRId64, d->path, d->frames);
		/* After an error the decoder continues with the next packet; at the end it may repeat the error for ever. */
		if (av != AVERROR(EAGAIN) && av != AVERROR_EOF)
			d->bad_packets++;
		if (av == AVERROR_EOF || d->draining)
			return 0;
		LWM_TRY(feed_packet(d, e));
	}
	d->frames++;
	if ((int64_t)frame->width * frame->height > d->limit)
		return lwm_media_too_large(d->path, frame->width, frame->height, d->limit, e);
	if (frame->decode_error_flags || (frame->flags & AV_FRAME_FLAG_CORRUPT))
		d->bad_frames++;
	set_time(d, frame);
	return 1;
}

int lwm_decoder_next(struct lwm_decoder *d, AVFrame *frame, struct lwm_err *e)
{
	if (!d->first)
		return unless_unread(d, decode_frame(d, frame, e), e);
	av_frame_move_ref(frame, d->first);
	av_frame_free(&d->first);
	return 1;
}

/* What the header did not tell the first frame does. It is kept for its turn. */
static int meet_first(struct lwm_decoder *d, struct lwm_err *e)
{
	AVCodecParameters *par = d->st->codecpar;
	if (par->width > 0 && par->height > 0 && par->format >= 0)
		return 0;
	d->first = av_frame_alloc();
	if (!d->first)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", d->path);
	int rc = decode_frame(d, d->first, e);
	if (rc == 1) {
		par->width = d->first->width;
		par->height = d->first->height;
		par->format = d->first->format;
		return 0;
	}
	av_frame_free(&d->first);
	if (rc == 0)
		LWM_TRY(size_refused(d, e));
	return rc < 0 ? rc : lwm_fail(e, LWM_EDATA, "%s: no picture in it, and its header tells no size or format%s%s", d->path,
				      lwm_av_reason()[0] ? ": " : "", lwm_av_reason());
}

static bool is_still(const AVFormatContext *fmt)
{
	const char *name = fmt->iformat->name;
	return strcmp(name, "image2") == 0 || lwm_path_has_suffix(name, "_pipe");
}

int lwm_decoder_open(struct lwm_decoder **out, const char *path, int64_t max_pixels, struct lwm_err *e)
{
	int rc;
	*out = NULL;
	LWM_TRY(check_file(path, e));
	struct lwm_decoder *d = calloc(1, sizeof *d);
	if (!d || !(d->path = strdup(path))) {
		free(d);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	}
	d->limit = lwm_media_limit(max_pixels);
	d->source.path = d->path;
	lwm_av_quiet();
	lwm_av_room(d->limit);
	LWM_GO(lwm_media_room(path, 0, true, e));
	LWM_GO(open_container(d, e));
	d->still = is_still(d->fmt);
	LWM_GO(probe_streams(d, e));
	LWM_GO(open_codec(d, e));
	LWM_GO(meet_first(d, e));
	LWM_GO(unless_unread(d, 0, e));
	*out = d;
	return 0;
out:
	rc = unless_unread(d, rc, e);
	lwm_decoder_close(d);
	return rc;
}

double lwm_decoder_fps(const struct lwm_decoder *d)
{
	AVRational r = d->st->avg_frame_rate;
	return !d->still && r.num > 0 && r.den > 0 ? av_q2d(r) : 0;
}

double lwm_decoder_duration(const struct lwm_decoder *d)
{
	if (d->still)
		return 0;
	if (d->st->duration > 0)
		return (double)d->st->duration * av_q2d(d->st->time_base);
	return d->fmt->duration > 0 ? (double)d->fmt->duration / AV_TIME_BASE : 0;
}

/* Seconds that are missing at the end of the stream according to the header. A stream without a length of its own is
 * held to the container's, which any stream may fill. */
static double missing_at_end(const struct lwm_decoder *d)
{
	double have = d->st->duration > 0 ? (double)d->last_end * av_q2d(d->st->time_base) : d->any_end;
	return lwm_decoder_duration(d) - have;
}

void lwm_decoder_verdict(const struct lwm_decoder *d, char *text, size_t n)
{
	double fps = lwm_decoder_fps(d), frame = fps > 0 ? 1 / fps : 0.04;
	double gap = d->still ? 0 : missing_at_end(d);
	char large[170] = "; ";
	double slack = d->st->nb_frames > 0 && d->packets < d->st->nb_frames ? 0.6 * frame : 1.5 * frame;
	if (!lwm_media_refused(d->limit, large + 2, sizeof large - 2))
		large[0] = 0;
	text[0] = 0;
	/* Where only the container tells a length (estimated or rounded there), half a second is nothing. */
	if (d->st->duration <= 0 && slack < 0.5)
		slack = 0.5;
	if (gap > slack)
		snprintf(text, n, "%s: ends %.2f s before the %.2f s its header promises (%" PRId64 " frames came%s%s)", d->path,
			 gap, lwm_decoder_duration(d), d->frames, lwm_av_reason()[0] ? "; " : "",
			 lwm_av_reason());
	else if (d->bad_packets || d->bad_frames)
		snprintf(text, n, "%s: damaged: %" PRId64 " packets not decodable, %" PRId64
			 " frames with errors, %" PRId64 " frames in all%s%s%s", d->path, d->bad_packets, d->bad_frames, d->frames, large,
			 lwm_av_reason()[0] ? "; " : "", lwm_av_reason());
}

void lwm_decoder_close(struct lwm_decoder *d)
{
	if (!d)
		return;
	av_frame_free(&d->first);
	av_packet_free(&d->pkt);
	avcodec_free_context(&d->dec);
	avformat_close_input(&d->fmt);
	lwm_av_source_close(&d->source);
	free(d->path);
	free(d);
}
