/* lwm-synth-judge - does a picture or clip show a shape of the colour asked for? Looks at pixels, not at names. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/outfile.h"
#include "common/cli/opt.h"
#include "common/media/frames.h"
#include "common/synth/synth.h"

enum { MOST_COLOURS = 16, LIMIT = 1 << 28 };

static struct {
	const char *colour, *background, *output;
	double share;
} o = { .share = 0.02 };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('c', "colour", &o.colour, "NAME", "of the shape", LWM_OPT_REQUIRED),
	LWM_OPT_STR(0, "background", &o.background, "NAME", "of the background; default: any", 0),
	LWM_OPT_DOUBLE(0, "share", &o.share, 0, 1, "X", "part of the pixels that a shape takes at least", 0),
	LWM_OPT_STR('o', "output", &o.output, "FILE", "the verdict as JSON; default: standard output", 0),
	LWM_OPT_END,
};

static const struct lwm_tool tool = {
	.name = "lwm-synth-judge",
	.summary = "Tells how many frames of pictures and clips show a shape of a colour of the made-up world.",
	.operands = "FILE...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.details = "Every pixel is given to the nearest colour of the palette. The commonest is the background, the commonest of the\n"
		   "others the shape, when it takes --share of the pixels. Exit code 0 whatever is seen: the verdict is data.",
	.examples = "  lwm-synth-judge -c red drawn.png\n  lwm-synth-judge -c blue --background white -o verdict.json clip.mp4",
};

struct verdict {
	int64_t files, frames, right;
	int64_t seen[MOST_COLOURS]; /* frames whose shape had that colour */
};

static int nearest_colour(const uint8_t *p)
{
	int best = 0;
	long least = -1;
	uint8_t c[3];
	for (int i = 0; lwm_synth_find_colour(i, c); i++) {
		long d = 0;
		for (int k = 0; k < 3; k++)
			d += (long)(p[k] - c[k]) * (p[k] - c[k]);
		if (least < 0 || d < least) {
			least = d;
			best = i;
		}
	}
	return best;
}

static int find_commonest(const int64_t *count, int except)
{
	uint8_t c[3];
	int best = -1;
	for (int i = 0; lwm_synth_find_colour(i, c); i++)
		if (i != except && (best < 0 || count[i] > count[best]))
			best = i;
	return best;
}

static void judge_frame(const uint8_t *rgb, int64_t pixels, struct verdict *v)
{
	int64_t count[MOST_COLOURS] = { 0 };
	uint8_t c[3];
	for (int64_t i = 0; i < pixels; i++)
		count[nearest_colour(rgb + 3 * i)]++;
	int ground = find_commonest(count, -1), shape = find_commonest(count, ground);
	v->frames++;
	if ((double)count[shape] < o.share * (double)pixels)
		return;
	v->seen[shape]++;
	v->right += !strcmp(lwm_synth_find_colour(shape, c), o.colour) &&
		    (!o.background || !strcmp(lwm_synth_find_colour(ground, c), o.background));
}

static int judge_file(const char *path, struct verdict *v, struct lwm_err *e)
{
	struct lwm_frames_info info;
	uint8_t *rgb;
	int64_t n;
	LWM_TRY(lwm_frames_read(path, NULL, LIMIT, &rgb, &n, &info, e));
	int64_t pixels = (int64_t)info.width * info.height;
	for (int64_t i = 0; i < n; i++)
		judge_frame(rgb + i * pixels * 3, pixels, v);
	free(rgb);
	v->files++;
	return 0;
}

static int check_colour(const char *name, struct lwm_err *e)
{
	uint8_t c[3];
	for (int i = 0; name && lwm_synth_find_colour(i, c); i++)
		if (!strcmp(lwm_synth_find_colour(i, c), name))
			return 0;
	return name ? lwm_fail(e, LWM_EUSAGE, "'%s' is no colour of the made-up world", name) : 0;
}

static int write_verdict(const struct verdict *v, const struct lwm_common *c, struct lwm_err *e)
{
	struct lwm_str s = { 0 };
	uint8_t rgb[3];
	lwm_str_printf(&s, "{\"colour\":\"%s\",\"files\":%" PRId64 ",\"frames\":%" PRId64 ",\"right\":%" PRId64 ",\"share_right\":%.6g,\"seen\":{",
		       o.colour, v->files, v->frames, v->right, (double)v->right / (double)(v->frames ? v->frames : 1));
	for (int i = 0, n = 0; lwm_synth_find_colour(i, rgb); i++)
		if (v->seen[i])
			lwm_str_printf(&s, "%s\"%s\":%" PRId64, n++ ? "," : "", lwm_synth_find_colour(i, rgb), v->seen[i]);
	lwm_str_puts(&s, "}}\n");
	int rc = lwm_str_ok(&s, e);
	if (rc == 0 && o.output)
		rc = lwm_write_file(o.output, s.s, s.len, c->force, e);
	else if (rc == 0)
		fputs(s.s, stdout);
	lwm_str_release(&s);
	return rc;
}

static int judge_files(const struct lwm_args *a, struct lwm_err *e)
{
	struct verdict v = { 0 };
	LWM_TRY(check_colour(o.colour, e));
	LWM_TRY(check_colour(o.background, e));
	for (int i = 0; i < a->noperand; i++)
		LWM_TRY(judge_file(a->operand[i], &v, e));
	return write_verdict(&v, &a->common, e);
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, judge_files);
}
