/* frames.h - decode anything that FFmpeg reads into 8-bit RGB frames of one size.
 *
 *	struct lwm_frames_opts o = { .fps = 4, .width = 256, .height = 256 };
 *	struct lwm_frames *f;
 *	LWM_TRY(lwm_frames_open(&f, "clip.mp4", &o, e));
 *	struct lwm_frames_info info = lwm_frames_info_of(f);
 *	while ((rc = lwm_frames_next(f, rgb, &t, e)) == 1) ...      rgb: info.width * info.height * 3 bytes of the caller
 *	lwm_frames_close(f);
 *
 * The pixels are those of the ffmpeg program with the filters (each part only where it is asked for)
 *	trim=start=S:end=E,setpts=PTS-STARTPTS,fps=F,
 *	scale=w=SW:h=SH:flags=bicubic+accurate_rnd+full_chroma_int+bitexact,crop=W:H:X:Y,setsar=1,format=rgb24
 * that is: short side resized, centre cropped, as lwm/vision_chat.py of the release does it: bicubic, the long side
 * truncated to SW or SH, the crop from X = (SW - W) / 2 and Y, halves to the even pixel. It resizes with
 * Pillow: on a photograph of 640 x 480 made 170 x 128, 83 % of the values are the same, the others differ by 1 to 4 of 255. The
 * flags make the result the same on every CPU. A still image has no clock and skips trim and fps.
 *
 * A folder is a clip of the images in it, in order of their names; it has no clock either (time = frame number).
 *
 * A damaged clip does not pass for a short one: when the stream ends early, packets cannot be decoded, or frames carry
 * the decoder's corruption marks, lwm_frames_next returns -LWM_EDATA in place of the end, and the sentence says how many
 * frames came of how many; with opts.damaged_ok it returns 0 and lwm_frames_damage tells.
 *
 * Only local files are opened (protocol whitelist), at most opts.max_pixels a frame: what headers claim is held to it before
 * anything is decoded, and a size that changes in the middle too; nothing else that FFmpeg makes by a header's numbers is
 * larger than such frames. Local calls; one thread per struct lwm_frames. Errors: -LWM_ENOINPUT no such file, -LWM_EDATA not
 * readable as media, no video stream, no frames, too many pixels, -LWM_EUSAGE impossible options, -LWM_EMEMORY.
 */
#ifndef LWM_MEDIA_FRAMES_H
#define LWM_MEDIA_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

#define LWM_FRAMES_RESIZE "bicubic, long side truncated" /* of the filters above: what frames of other pixels would have to change */
#define LWM_MEDIA_MAX_PIXELS (64LL << 20) /* default of opts.max_pixels, and limit of what is written */

struct lwm_frames_opts {
	double fps;            /* resample to so many frames a second; 0: every frame of the file */
	double start, end;     /* seconds; end 0: to the end */
	int64_t max_frames;    /* stop after so many; 0: no limit */
	int64_t sample_frames; /* of a clip of n > sample_frames frames (after fps) take trunc(i (n-1) / (sample_frames-1)),
				* spread evenly over the whole clip; 0: take all. Decodes the clip twice. */
	int width, height;     /* of the output: resize the short side, centre crop; 0,0: the file's own size */
	int multiple;          /* with width = height = 0: centre crop down to a multiple of this (16), 0 or 1: no crop */
	int64_t max_pixels;    /* of a frame of the file, and of one on its way to width x height; more is -LWM_EDATA, before
				* memory is taken for it. A frame takes up to 8 bytes a pixel, decoders hold several. 0: 64 Mi */
	bool damaged_ok;
};

struct lwm_frames_info {
	int width, height;         /* of the frames that come out */
	int src_width, src_height; /* of the file */
	double duration;           /* seconds, 0 unknown */
	double fps;                /* of the file (average), 0 unknown */
	int64_t frames;            /* that will come out, as far as the header tells; -1 unknown */
	bool still;                /* one image */
	char codec[32];
};

struct lwm_frames;
/* opts NULL: every frame, own size. */
int lwm_frames_open(struct lwm_frames **out, const char *path, const struct lwm_frames_opts *opts, struct lwm_err *e);
struct lwm_frames_info lwm_frames_info_of(const struct lwm_frames *f);
/* 1: a frame was written to rgb (height rows of width * 3 bytes, dense), *seconds (may be NULL) its time; 0: the end. */
int lwm_frames_next(struct lwm_frames *f, uint8_t *rgb, double *seconds, struct lwm_err *e);
const char *lwm_frames_damage(const struct lwm_frames *f); /* "" as long as nothing was wrong */
void lwm_frames_close(struct lwm_frames *f);               /* NULL is fine */

/* All frames at once: *rgb is malloc'ed, *n frames. More than `limit` bytes is -LWM_EMEMORY. */
int lwm_frames_read(const char *path, const struct lwm_frames_opts *opts, int64_t limit, uint8_t **rgb, int64_t *n,
		    struct lwm_frames_info *info, struct lwm_err *e);

/* NULL-terminated suffixes of what is taken from folders (lwm_paths_expand). */
extern const char *const lwm_media_suffixes[]; /* videos and images */
extern const char *const lwm_image_suffixes[];

#endif
