/* picture.h - write RGB frames: png, jpg, mp4, and sheets of several pictures side by side.
 *
 *	lwm_picture_write("a.png", rgb, width, height, 0, false, e)
 *
 *	lwm_video_open(&v, "a.mp4", width, height, fps, false, e)
 *	lwm_video_add(v, rgb, e) ...
 *	lwm_video_commit(v, e)                                   or lwm_video_discard(v): nothing appears
 *
 *	lwm_sheet_init(&s, columns, rows, cell_width, cell_height, gap, e)
 *	lwm_sheet_put(&s, column, row, rgb, zoom) ...            then lwm_picture_write(path, s.rgb, s.width, s.height, ...)
 *	lwm_sheet_release(&s)
 *
 * rgb is height rows of width * 3 bytes, dense. Files appear whole or not at all (common/base/outfile.h), hold no dates
 * and are the same bytes on every run. force: a file of that name is replaced. Local calls; a video and a sheet belong to one
 * thread at a time. Errors: -LWM_ECANTCREATE exists without force, -LWM_EUSAGE unknown suffix or
 * size, -LWM_EIO, -LWM_EUNAVAIL no encoder in this FFmpeg, -LWM_EMEMORY.
 */
#ifndef LWM_MEDIA_PICTURE_H
#define LWM_MEDIA_PICTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/str.h"

/* By suffix: .png (lossless), .jpg .jpeg (quality 1..100, 0 = 90), .ppm. */
int lwm_picture_write(const char *path, const uint8_t *rgb, int width, int height, int quality, bool force,
		      struct lwm_err *e);
/* The bytes of a png file, appended; for reports that hold their pictures. */
int lwm_png_encode(struct lwm_str *out, const uint8_t *rgb, int width, int height, struct lwm_err *e);

/* A video file, by suffix .mp4 or .mkv: libx264 (crf 18) where FFmpeg has it, else mpeg4. Odd sizes get their last row
 * or column doubled. */
struct lwm_video;
int lwm_video_open(struct lwm_video **out, const char *path, int width, int height, double fps, bool force,
		   struct lwm_err *e);
int lwm_video_add(struct lwm_video *v, const uint8_t *rgb, struct lwm_err *e); /* one frame more, of the size it was opened with */
int lwm_video_commit(struct lwm_video *v, struct lwm_err *e); /* v is gone either way */
void lwm_video_discard(struct lwm_video *v);                  /* NULL is fine */
/* n frames in one call. */
int lwm_video_write(const char *path, const uint8_t *rgb, int64_t n, int width, int height, double fps, bool force,
		    struct lwm_err *e);

/* A white sheet of columns x rows cells for pictures of one size, with `gap` pixels around them. */
struct lwm_sheet {
	uint8_t *rgb;      /* the whole sheet */
	int width, height; /* of the whole sheet */
	int columns, rows, cell_width, cell_height, gap; /* as given; the last three in pixels */
};
int lwm_sheet_init(struct lwm_sheet *s, int columns, int rows, int cell_width, int cell_height, int gap,
		   struct lwm_err *e);
/* Copies a picture into a cell. zoom >= 1 repeats pixels: the picture is (cell_width / zoom, cell_height / zoom). */
void lwm_sheet_put(struct lwm_sheet *s, int column, int row, const uint8_t *rgb, int zoom);
void lwm_sheet_release(struct lwm_sheet *s);

#endif
