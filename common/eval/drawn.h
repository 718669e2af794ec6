/* drawn.h - codes that a model drew become files to look at. Local calls.
 *
 *	lwm_drawn_name(&name, "look/clip.mp4", i, n, e)      look/clip-3.mp4
 *	lwm_drawn_write(&how, name, codes, frames, e)
 */
#ifndef LWM_EVAL_DRAWN_H
#define LWM_EVAL_DRAWN_H

#include <stdbool.h>

#include "common/model/vqgan.h"

struct lwm_drawn {
	struct lwm_vqgan *net; /* borrowed */
	int64_t width, height; /* of a frame, pixels */
	double fps;            /* of a clip */
	int64_t zoom;          /* pixels of pictures are repeated so many times; 1: as they are */
	bool force;            /* a file of that name is replaced */
};
/* The path of result `i` of `n`: path itself where there is one, else with -i before its suffix (it has one). *out is malloc'ed. */
int lwm_drawn_name(char **out, const char *path, int64_t i, int64_t n, struct lwm_err *e);
int lwm_drawn_check(const char *path, int64_t n, struct lwm_err *e); /* -LWM_ECANTCREATE: one of these n is there */
/* codes: (frames, codes of a frame), host. By suffix: .mp4 and .mkv are a clip; .png, .jpg and .ppm a picture, of several frames a
 * strip of them side by side. Errors: those of media/picture.h. */
int lwm_drawn_write(const struct lwm_drawn *how, const char *path, const int32_t *codes, int64_t frames, struct lwm_err *e);

#endif
