/* lwm-synth-judge - does a picture or clip show what was asked for: a shape of a colour, a car that turns? Looks at pixels, not at
 * names. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/outfile.h"
#include "common/cli/opt.h"
#include "common/media/frames.h"
#include "common/synth/synth.h"

enum { MOST_COLOURS = 16, LIMIT = 1 << 28 };
/* Which way the car of a drive went, from the first frame of a clip to the last. Never seen: NO_TURN, nobody asks; TRUTH, the
 * record beside the clip tells what to see. Never asked for: LOST, the car is not in both frames. */
enum turn { NO_TURN, LEFT, RIGHT, STRAIGHT, TRUTH, LOST };
static const char *const turns[] = { "none", "left", "right", "straight", "truth", NULL };
static const enum turn shown[] = { LEFT, RIGHT, STRAIGHT, LOST };

static struct {
	const char *colour, *background, *output, *versus;
	double share, aside;
	int turn;
} o = { .share = 0.02, .aside = 0.08 };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('c', "colour", &o.colour, "NAME", "of the shape", 0),
	LWM_OPT_STR(0, "background", &o.background, "NAME", "of the background; default: any", 0),
	LWM_OPT_DOUBLE(0, "share", &o.share, 0, 1, "X", "part of the pixels that a shape takes at least", 0),
	LWM_OPT_HEAD("Drives"),
	LWM_OPT_CHOICE(0, "turn", &o.turn, turns, "of the car: a clip counts that shows it; truth: that of the record beside it", 0),
	LWM_OPT_DOUBLE(0, "aside", &o.aside, 0, 1, "X", "part of the picture that a turn moves the car by at least", 0),
	LWM_OPT_STR(0, "versus", &o.versus, "DIR", "clips of the same names that show the opposite turn: a pair counts", 0),
	LWM_OPT_HEAD("Both"),
	LWM_OPT_STR('o', "output", &o.output, "FILE", "the verdict as JSON; default: standard output", 0),
	LWM_OPT_END,
};

static const struct lwm_tool tool = {
	.name = "lwm-synth-judge",
	.summary = "Tells how many frames show a shape of a colour of the made-up world, or how many clips a car that turns.",
	.operands = "FILE...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.details = "Every pixel is given to the nearest colour of the palette. The commonest is the background, the commonest of the\n"
		   "others the shape, when it takes --share of the pixels. A car is where it is red: it turned left when that is\n"
		   "further left in the last frame than in the first, by --aside. A FILE may be a folder of clips there. Exit code 0\n"
		   "whatever is seen: the verdict is data.",
	.examples = "  lwm-synth-judge -c red drawn.png\n  lwm-synth-judge -c blue --background white -o verdict.json clip.mp4\n"
		    "  lwm-synth-judge --turn truth held-out/\n  lwm-synth-judge --turn left drawn/left --versus drawn/right",
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

static int print_verdict(const struct lwm_str *s, const struct lwm_common *c, struct lwm_err *e)
{
	LWM_TRY(lwm_str_ok(s, e));
	if (o.output)
		return lwm_write_file(o.output, s->s, s->len, c->force, e);
	fputs(s->s, stdout);
	return 0;
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
	int rc = print_verdict(&s, c, e);
	lwm_str_release(&s);
	return rc;
}

/* ---- drives ---- */

static enum turn turn_between(double from, double to)
{
	return to - from <= -o.aside ? LEFT : to - from >= o.aside ? RIGHT : STRAIGHT;
}

static int see_turn(const char *path, enum turn *seen, struct lwm_err *e)
{
	struct lwm_frames_info info;
	uint8_t *rgb;
	double first, last, y;
	int64_t n;
	LWM_TRY(lwm_frames_read(path, NULL, LIMIT, &rgb, &n, &info, e));
	bool found = lwm_synth_find_car(rgb, info.width, info.height, &first, &y) &&
		     lwm_synth_find_car(rgb + (n - 1) * info.width * info.height * 3, info.width, info.height, &last, &y);
	*seen = found ? turn_between(first, last) : LOST;
	free(rgb);
	return 0;
}

/* What CLIP.json beside CLIP.mp4 says: "truth": {"x": [...]}. */
static int read_truth(const char *path, enum turn *want, struct lwm_err *e)
{
	const char *dot = strrchr(lwm_path_base(path), '.');
	struct lwm_str name = { 0 };
	json_t *record = NULL, *truth, *x;
	int rc = 0;
	lwm_str_add(&name, path, dot ? (size_t)(dot - path) : strlen(path));
	lwm_str_puts(&name, ".json");
	LWM_GO(lwm_str_ok(&name, e));
	LWM_GO(lwm_json_read(&record, name.s, LIMIT, e));
	LWM_GO(lwm_json_get(record, "truth", JSON_OBJECT, &truth, name.s, e));
	LWM_GO(lwm_json_get(truth, "x", JSON_ARRAY, &x, name.s, e));
	if (json_array_size(x) < 1 || !json_is_number(json_array_get(x, 0)))
		LWM_GO(lwm_fail(e, LWM_EDATA, "%s: truth.x is no list of numbers", name.s));
	*want = turn_between(json_number_value(json_array_get(x, 0)), json_number_value(json_array_get(x, json_array_size(x) - 1)));
out:
	json_decref(record);
	lwm_str_release(&name);
	return rc;
}

struct drives {
	int64_t trials, obeyed;
	int64_t seen[LOST + 1], seen_versus[LOST + 1];
};

/* One trial: a clip, and with --versus its twin. */
static int judge_drive(const char *path, struct drives *v, struct lwm_err *e)
{
	enum turn want = (enum turn)o.turn, seen, other;
	if (want == TRUTH)
		LWM_TRY(read_truth(path, &want, e));
	LWM_TRY(see_turn(path, &seen, e));
	bool obeyed = seen == want;
	if (o.versus) {
		char *twin = lwm_path_join(o.versus, lwm_path_base(path));
		int rc = twin ? see_turn(twin, &other, e) : lwm_fail_memory(e, NULL);
		free(twin);
		LWM_TRY(rc);
		v->seen_versus[other]++;
		obeyed = obeyed && other == (want == LEFT ? RIGHT : LEFT);
	}
	v->seen[seen]++;
	v->trials++;
	v->obeyed += obeyed;
	return 0;
}

static void add_seen(struct lwm_str *s, const char *key, const int64_t *seen)
{
	lwm_str_printf(s, ",\"%s\":{", key);
	for (int i = 0; i < (int)(sizeof shown / sizeof *shown); i++)
		lwm_str_printf(s, "%s\"%s\":%" PRId64, i ? "," : "", shown[i] == LOST ? "lost" : turns[shown[i]], seen[shown[i]]);
	lwm_str_putc(s, '}');
}

static int judge_drives(const struct lwm_args *a, struct lwm_err *e)
{
	struct drives v = { 0 };
	struct lwm_paths clips = { 0 };
	struct lwm_str s = { 0 };
	int rc = 0;
	for (int i = 0; i < a->noperand; i++)
		LWM_GO(lwm_paths_expand(&clips, a->operand[i], lwm_media_suffixes, e));
	for (int64_t i = 0; i < clips.n; i++)
		LWM_GO(judge_drive(clips.v[i], &v, e));
	lwm_str_printf(&s, "{\"turn\":\"%s\",\"trials\":%" PRId64 ",\"obeyed\":%" PRId64 ",\"share_obeyed\":%.6g", turns[o.turn], v.trials,
		       v.obeyed, (double)v.obeyed / (double)v.trials);
	add_seen(&s, "seen", v.seen);
	if (o.versus)
		add_seen(&s, "seen_versus", v.seen_versus);
	lwm_str_puts(&s, "}\n");
	rc = print_verdict(&s, &a->common, e);
out:
	lwm_str_release(&s);
	lwm_paths_release(&clips);
	return rc;
}

static int check_options(struct lwm_err *e)
{
	if ((o.colour != NULL) == (o.turn != NO_TURN))
		return lwm_fail(e, LWM_EUSAGE, "either --colour or --turn is needed");
	if (o.versus && o.turn != LEFT && o.turn != RIGHT)
		return lwm_fail(e, LWM_EUSAGE, "--versus is for --turn left or right: a pair of clips turns either way");
	return 0;
}

static int judge_files(const struct lwm_args *a, struct lwm_err *e)
{
	struct verdict v = { 0 };
	LWM_TRY(check_options(e));
	if (o.turn != NO_TURN)
		return judge_drives(a, e);
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
