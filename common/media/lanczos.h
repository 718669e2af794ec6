/* lanczos.h - frames resized as Pillow's Image.LANCZOS does it, byte for byte, after the crop that Vista's data code takes.
 *
 *	struct lwm_box box = lwm_crop_to_aspect(1600, 900, 576, 320);        the middle of the frame, of the wanted shape
 *	lwm_lanczos(rgb, 1600, 900, box, out, 576, 320, e)
 *
 * The filter is sinc(x) sinc(x / 3) on -3..3, stretched by the factor where a frame becomes smaller, weights of each pixel summing
 * to 1; first along rows, then along columns, each with weights of 22 bits behind the point and a result of 8 bits, rounded and
 * held to 0..255 (as Pillow computes it). common/media/frames.h resizes bicubically, as the released LWM code does.
 *
 * Pure functions, no FFmpeg. Local calls.
 */
#ifndef LWM_MEDIA_LANCZOS_H
#define LWM_MEDIA_LANCZOS_H

#include <stdint.h>

#include "common/base/err.h"

struct lwm_box {
	int x, y, width, height;
};
/* The part of a frame that has the shape of to_width x to_height: of one that is too wide (too high) the middle, its width (height)
 * truncated, its begin rounded down: width int(tw / th * h), from (w - that) / 2 to (w + that) / 2, as in Vista
 * (vwm/data/subsets/common.py). */
struct lwm_box lwm_crop_to_aspect(int width, int height, int to_width, int to_height);
/* rgb: height rows of width * 3 bytes; out: to_height rows of to_width * 3, not the same memory. The box lies in the frame, sizes
 * are at least 1. -LWM_EMEMORY: no room for weights and the rows in between. */
int lwm_lanczos(const uint8_t *rgb, int width, int height, struct lwm_box box, uint8_t *out, int to_width, int to_height,
		struct lwm_err *e);

#endif
