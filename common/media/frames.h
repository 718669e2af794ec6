/* frames.h - decode anything that FFmpeg reads into 8-bit RGB frames of one size.
 *
 *	struct lwm_frames_opts o = { .fps = 4, .width = 256, .height = 256 };
 *	struct lwm_frames *f;
 *	LWM_TRY(lwm_frames_open(&f, "clip.mp4", &o, e));
 *	struct lwm_frames_info info = lwm_frames_info_of(f);        the size of what comes out
 *	while ((rc = lwm_frames_next(f, rgb, &t, e)) == 1) ...      rgb: info.width * info.height * 3 bytes of the caller
 *	lwm_frames_close(f);
 *
 * lwm_frames_read is all of that in one call, for clips that fit in memory.
 *
 * The pixels are those of the ffmpeg program with the filters (each part only where it is asked for)
 *	trim=start=S:end=E,setpts=PTS-STARTPTS,fps=F,
 *	scale=w=SW:h=SH:flags=bicubic+accurate_rnd+full_chroma_int+bitexact,crop=W:H:X:Y,setsar=1,format=rgb24
 * that is: the short side is resized and the centre cropped, as lwm/vision_chat.py of the release does it: bicubic, the long side
 * truncated to SW or SH, the crop from X = (SW - W) / 2 and Y, halves to the even pixel. The release resizes with Pillow: of a
 * photograph of 640 x 480 made 170 x 128, 83 % of the values are the same, the others differ by 1 to 4 of 255. The
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

/* Zero-initialised: every frame of the file in its own size, damage refused. */
struct lwm_frames_opts {
	double fps;            /* the clip is resampled to so many frames a second; 0: every frame of the file is given */
	double start, end;     /* only this piece of the clip is given, in seconds from its start; end 0: up to its end */
	int64_t max_frames;    /* no more than so many frames are given; 0: no limit */
	int64_t sample_frames; /* of a clip of n > sample_frames frames (after fps), frames trunc(i (n-1) / (sample_frames-1)) are
				* given, which spread evenly over all of it; the clip is then decoded twice. 0: all are given */
	int width, height;     /* frames come out in this size: the short side is resized, the centre cropped. Both 0: the
				* file's own size */
	int multiple;          /* with width = height = 0 the centre is cropped to multiples of this; 0 or 1: no crop */
	int64_t max_pixels;    /* a frame with more pixels, in the file or on its way to width x height, is -LWM_EDATA before memory
				* is taken for it. A pixel takes up to 8 bytes, and decoders hold several frames. 0: 64 Mi */
	bool damaged_ok;       /* a damaged clip gives what can be decoded, and lwm_frames_damage tells; else it is -LWM_EDATA */
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
/* opts are copied; NULL: every frame, own size. */
int lwm_frames_open(struct lwm_frames **out, const char *path, const struct lwm_frames_opts *opts, struct lwm_err *e);
struct lwm_frames_info lwm_frames_info_of(const struct lwm_frames *f);
/* 1: a frame was written to rgb (height rows of width * 3 bytes, dense), *seconds (may be NULL) its time; 0: the end. */
int lwm_frames_next(struct lwm_frames *f, uint8_t *rgb, double *seconds, struct lwm_err *e);
const char *lwm_frames_damage(const struct lwm_frames *f); /* what is damaged, a sentence; "" as long as nothing was */
void lwm_frames_close(struct lwm_frames *f);               /* NULL is fine */

/* All frames at once: *rgb is malloc'ed, *n frames. More than `limit` bytes is -LWM_EMEMORY. opts and info may be NULL. */
int lwm_frames_read(const char *path, const struct lwm_frames_opts *opts, int64_t limit, uint8_t **rgb, int64_t *n,
		    struct lwm_frames_info *info, struct lwm_err *e);

/* NULL-terminated suffixes of what is taken from folders (lwm_paths_expand). */
extern const char *const lwm_media_suffixes[]; /* videos and images */
extern const char *const lwm_image_suffixes[];

#endif
