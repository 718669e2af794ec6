/* picture.c - png, jpg and ppm from RGB frames; sheets. */
#include "common/media/picture.h"

#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/media/media_int.h"

static int check_size(int width, int height, struct lwm_err *e)
{
	if (width <= 0 || height <= 0 || (int64_t)width * height > LWM_MEDIA_MAX_PIXELS)
		return lwm_fail(e, LWM_EUSAGE, "a picture of %d x %d pixels cannot be written", width, height);
	return 0;
}

/* rgb with its last column and row doubled up to dst size; malloc'ed. */
static uint8_t *padded_copy(const uint8_t *rgb, int w, int h, int dw, int dh)
{
	uint8_t *p = malloc((size_t)dw * (size_t)dh * 3);
	for (int y = 0; p && y < dh; y++) {
		const uint8_t *src = rgb + (size_t)(y < h ? y : h - 1) * (size_t)w * 3;
		uint8_t *dst = p + (size_t)y * (size_t)dw * 3;
		memcpy(dst, src, (size_t)w * 3);
		for (int x = w; x < dw; x++)
			memcpy(dst + (size_t)x * 3, src + (size_t)(w - 1) * 3, 3);
	}
	return p;
}

static int convert_rgb(AVFrame *f, const uint8_t *src, struct lwm_err *e)
{
	int stride[4] = { f->width * 3, 0, 0, 0 };
	const uint8_t *plane[4] = { src, NULL, NULL, NULL };
	if (f->format == AV_PIX_FMT_RGB24) {
		av_image_copy(f->data, f->linesize, plane, stride, AV_PIX_FMT_RGB24, f->width, f->height);
		return 0;
	}
	struct SwsContext *s = sws_getContext(f->width, f->height, AV_PIX_FMT_RGB24, f->width, f->height,
					      (enum AVPixelFormat)f->format,
					      SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT, NULL, NULL, NULL);
	if (!s)
		return lwm_fail(e, sws_isSupportedOutput((enum AVPixelFormat)f->format) ? LWM_EMEMORY : LWM_EUNAVAIL,
				"swscale cannot convert from RGB");
	sws_scale(s, plane, stride, 0, f->height, f->data, f->linesize);
	sws_freeContext(s);
	return 0;
}

int lwm_frame_from_rgb(AVFrame **out, const uint8_t *rgb, int width, int height, int dst_width, int dst_height,
		       enum AVPixelFormat fmt, struct lwm_err *e)
{
	int rc = 0;
	uint8_t *pad = NULL;
	AVFrame *f = av_frame_alloc();
	*out = NULL;
	if (!f)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a frame");
	f->width = dst_width;
	f->height = dst_height;
	f->format = fmt;
	if (av_frame_get_buffer(f, 0) < 0)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "out of memory for a frame of %d x %d", dst_width, dst_height));
	if (dst_width != width || dst_height != height) {
		pad = padded_copy(rgb, width, height, dst_width, dst_height);
		if (!pad)
			LWM_GO(lwm_fail(e, LWM_EMEMORY, "out of memory for a frame of %d x %d", dst_width, dst_height));
	}
	LWM_GO(convert_rgb(f, pad ? pad : rgb, e));
	*out = f;
	f = NULL;
out:
	av_frame_free(&f);
	free(pad);
	return rc;
}

/* One picture through an FFmpeg encoder; bytes are appended to out. */
static int encode_one(struct lwm_str *out, enum AVCodecID id, enum AVPixelFormat fmt, int qscale, const uint8_t *rgb,
		      int width, int height, struct lwm_err *e)
{
	int rc, av;
	AVFrame *f = NULL;
	AVPacket *pkt = av_packet_alloc();
	const AVCodec *codec = avcodec_find_encoder(id);
	AVCodecContext *c = codec ? avcodec_alloc_context3(codec) : NULL;
	lwm_av_quiet();
	lwm_av_forget();
	lwm_av_room((int64_t)width * height);
	if (!codec)
		LWM_GO(lwm_fail(e, LWM_EUNAVAIL, "this FFmpeg has no %s encoder", avcodec_get_name(id)));
	if (!c || !pkt)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "out of memory for the %s encoder", codec->name));
	c->width = width;
	c->height = height;
	c->pix_fmt = fmt;
	c->time_base = (AVRational){ 1, 1 };
	c->thread_count = 1;
	c->color_range = fmt == AV_PIX_FMT_RGB24 ? AVCOL_RANGE_UNSPECIFIED : AVCOL_RANGE_JPEG;
	c->flags |= AV_CODEC_FLAG_BITEXACT | (qscale ? AV_CODEC_FLAG_QSCALE : 0);
	c->global_quality = qscale * FF_QP2LAMBDA;
	LWM_GO(lwm_frame_from_rgb(&f, rgb, width, height, width, height, fmt, e));
	f->quality = c->global_quality;
	f->pts = 0;
	av = avcodec_open2(c, codec, NULL);
	if (av >= 0)
		av = avcodec_send_frame(c, f);
	if (av >= 0)
		av = avcodec_send_frame(c, NULL);
	if (av >= 0)
		av = avcodec_receive_packet(c, pkt);
	if (av < 0)
		LWM_GO(lwm_av_fail(e, LWM_EUNAVAIL, av, "encoder %s failed", codec->name));
	lwm_str_add(out, pkt->data, (size_t)pkt->size);
	rc = lwm_str_ok(out, e);
out:
	av_frame_free(&f);
	av_packet_free(&pkt);
	avcodec_free_context(&c);
	return rc;
}

int lwm_png_encode(struct lwm_str *out, const uint8_t *rgb, int width, int height, struct lwm_err *e)
{
	LWM_TRY(check_size(width, height, e));
	return encode_one(out, AV_CODEC_ID_PNG, AV_PIX_FMT_RGB24, 0, rgb, width, height, e);
}

/* quality 1..100 -> the encoder's scale 31..2 */
static int jpeg_scale(int quality)
{
	int q = quality <= 0 ? 90 : quality > 100 ? 100 : quality;
	return 2 + (100 - q) * 29 / 99;
}

int lwm_picture_write(const char *path, const uint8_t *rgb, int width, int height, int quality, bool force,
		      struct lwm_err *e)
{
	struct lwm_str s = { 0 };
	int rc;
	LWM_TRY(check_size(width, height, e));
	if (lwm_path_has_suffix(path, ".png")) {
		rc = lwm_png_encode(&s, rgb, width, height, e);
	} else if (lwm_path_has_suffix(path, ".jpg") || lwm_path_has_suffix(path, ".jpeg")) {
		rc = encode_one(&s, AV_CODEC_ID_MJPEG, AV_PIX_FMT_YUVJ444P, jpeg_scale(quality), rgb, width, height, e);
	} else if (lwm_path_has_suffix(path, ".ppm")) {
		lwm_str_printf(&s, "P6\n%d %d\n255\n", width, height);
		lwm_str_add(&s, rgb, (size_t)width * (size_t)height * 3);
		rc = lwm_str_ok(&s, e);
	} else {
		rc = lwm_fail(e, LWM_EUSAGE, "%s: pictures are written as .png, .jpg or .ppm", path);
	}
	if (rc == 0)
		rc = lwm_write_file(path, s.s, s.len, force, e);
	lwm_str_release(&s);
	return rc;
}

int lwm_sheet_init(struct lwm_sheet *s, int columns, int rows, int cell_width, int cell_height, int gap,
		   struct lwm_err *e)
{
	int64_t w = (int64_t)columns * (cell_width + gap) + gap, h = (int64_t)rows * (cell_height + gap) + gap;
	memset(s, 0, sizeof *s);
	if (columns <= 0 || rows <= 0 || cell_width <= 0 || cell_height <= 0 || gap < 0 || w > 1 << 20 || h > 1 << 20 ||
	    w * h > LWM_MEDIA_MAX_PIXELS)
		return lwm_fail(e, LWM_EUSAGE, "a sheet of %d x %d pictures of %d x %d is too large", columns, rows,
				cell_width, cell_height);
	*s = (struct lwm_sheet){ malloc((size_t)(w * h * 3)), (int)w, (int)h, columns, rows, cell_width, cell_height, gap };
	if (!s->rgb)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a sheet of %d x %d pixels", (int)w, (int)h);
	memset(s->rgb, 255, (size_t)(w * h * 3));
	return 0;
}

void lwm_sheet_put(struct lwm_sheet *s, int column, int row, const uint8_t *rgb, int zoom)
{
	int w = s->cell_width / zoom;
	LWM_BUG_ON(column < 0 || row < 0 || column >= s->columns || row >= s->rows || zoom < 1);
	for (int y = 0; y < s->cell_height / zoom * zoom; y++) {
		uint8_t *dst = s->rgb + ((size_t)(s->gap + row * (s->cell_height + s->gap) + y) * (size_t)s->width +
					 (size_t)(s->gap + column * (s->cell_width + s->gap))) * 3;
		for (int x = 0; x < w * zoom; x++)
			memcpy(dst + (size_t)x * 3, rgb + ((size_t)(y / zoom) * (size_t)w + (size_t)(x / zoom)) * 3, 3);
	}
}

void lwm_sheet_release(struct lwm_sheet *s)
{
	free(s->rgb);
	memset(s, 0, sizeof *s);
}
