/* drawn.c - one frame: a picture; several: a clip, or a strip of pictures. */
#include "common/eval/drawn.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/path.h"
#include "common/base/str.h"
#include "common/media/picture.h"

enum { GAP = 2 /* white pixels between the frames of a strip */, MOST = 4096 /* frames of a strip */ };

int lwm_drawn_name(char **out, const char *path, int64_t i, int64_t n, struct lwm_err *e)
{
	const char *dot = strrchr(path, '.');
	struct lwm_str b = { 0 };

	lwm_str_add(&b, path, (size_t)(dot - path));
	if (n > 1)
		lwm_str_printf(&b, "-%" PRId64, i);
	lwm_str_puts(&b, dot);
	*out = b.s;
	return lwm_str_ok(&b, e);
}

int lwm_drawn_check(const char *path, int64_t n, struct lwm_err *e)
{
	int rc = 0;

	for (int64_t i = 0; i < n && rc == 0; i++) {
		char *name;

		LWM_TRY(lwm_drawn_name(&name, path, i, n, e));
		if (lwm_path_exists(name))
			rc = lwm_fail(e, LWM_ECANTCREATE, "%s: exists (use --force to replace it)", name);
		free(name);
	}
	return rc;
}

static int write_pictures(const struct lwm_drawn *how, const char *path, const uint8_t *rgb, int64_t frames, struct lwm_err *e)
{
	int w = (int)(how->width * how->zoom), h = (int)(how->height * how->zoom), rc;
	struct lwm_sheet s;

	if (frames == 1 && how->zoom == 1)
		return lwm_picture_write(path, rgb, w, h, 0, how->force, e);
	if (frames > MOST)
		return lwm_fail(e, LWM_EUSAGE, "%s: %" PRId64 " frames are too many for a strip; .mp4 takes them", path, frames);
	LWM_TRY(lwm_sheet_init(&s, (int)frames, 1, w, h, frames == 1 ? 0 : GAP, e));
	for (int64_t t = 0; t < frames; t++)
		lwm_sheet_put(&s, (int)t, 0, rgb + t * how->width * how->height * 3, (int)how->zoom);
	rc = lwm_picture_write(path, s.rgb, s.width, s.height, 0, how->force, e);
	lwm_sheet_release(&s);
	return rc;
}

int lwm_drawn_write(const struct lwm_drawn *how, const char *path, const int32_t *codes, int64_t frames, struct lwm_err *e)
{
	bool clip = lwm_path_has_suffix(path, ".mp4") || lwm_path_has_suffix(path, ".mkv");
	uint8_t *rgb = malloc((size_t)(frames * how->width * how->height) * 3);
	int rc = 0;

	if (!rgb)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " frames", frames));
	LWM_GO(lwm_vqgan_decode(how->net, codes, frames, how->height, how->width, rgb, e));
	rc = clip ? lwm_video_write(path, rgb, frames, (int)how->width, (int)how->height, how->fps, how->force, e)
		  : write_pictures(how, path, rgb, frames, e);
out:
	free(rgb);
	return rc;
}
