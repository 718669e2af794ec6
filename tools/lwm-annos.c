/* lwm-annos - samples of drives as published become clips with their actions, for lwm-vqgan-encode.
 *
 * A sample is a folder of frames, cropped and resized, and a .json beside it with the action, written last: a clip that has its
 * .json is done. A broken sample is named and counted, and makes nothing. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/outfile.h"
#include "common/base/progress.h"
#include "common/base/stop.h"
#include "common/cli/opt.h"
#include "common/data/ingest/annos.h"
#include "common/media/frames.h"
#include "common/media/lanczos.h"
#include "common/media/picture.h"

enum { MOST_REASONS = 16 };
static const int64_t FILE_LIMIT = (int64_t)4 << 30, FRAME_LIMIT = (int64_t)1 << 30;

static struct {
	const char *out, *root, *commands;
	int64_t frames, width, height, task, tasks, max_bad, max_pixels;
	bool balance;
	int layout;
} a = { .root = ".", .commands = "right,left,straight,stop", .frames = 25, .width = 576, .height = 320, .tasks = 1, .max_bad = 100,
	.max_pixels = LWM_MEDIA_MAX_PIXELS };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('d', "out-dir", &a.out, "DIR", "the clips: DIR/FILE-NNNNNN/00000.png ... and DIR/FILE-NNNNNN.json", LWM_OPT_REQUIRED),
	LWM_OPT_STR(0, "root", &a.root, "DIR", "where the paths of the samples begin", 0),
	LWM_OPT_CHOICE(0, "layout", &a.layout, lwm_anno_layouts, "of the samples; auto: by their keys", 0),
	LWM_OPT_INT(0, "frames", &a.frames, 1, 100000, "N", "of a clip", 0),
	LWM_OPT_INT(0, "width", &a.width, 64, 1 << 14, "N", "of a frame, a multiple of 64: 576 or 1024 as published", 0),
	LWM_OPT_INT(0, "height", &a.height, 64, 1 << 14, "N", "likewise: 320 or 576", 0),
	LWM_OPT_STR(0, "commands", &a.commands, "LIST", "nuscenes: what cmd 0, 1, 2, 3 mean", 0),
	LWM_OPT_FLAG(0, "balance", &a.balance, "nuscenes: as often as published: cmd 0 and 1 five times, complete samples twice that"),
	LWM_OPT_TASKS(&a.task, &a.tasks),
	LWM_OPT_INT(0, "max-bad", &a.max_bad, -1, 1e12, "N", "more broken samples are a failure; -1: any number", 0),
	LWM_OPT_MAX_PIXELS(&a.max_pixels),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-annos",
	.summary = "published samples of drives (nuScenes, OpenDV-YouTube) to clips with actions",
	.operands = "ANNOS.json...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.stops = true,
	.details =
		"nuscenes: frames, traj (10 numbers, the first pair is dropped), speed and angle (5, the\n"
		"first is dropped; angle / 780), cmd, goal (/ 1600, / 900), z, as in Vista's\n"
		"annos/nuScenes.json. youtube: folder_name, first_frame; the frames are consecutive\n"
		"numbers. Frames are cropped to the shape of the wanted size and resized with a Lanczos\n"
		"filter. A sample that is broken (a frame missing or damaged, a key missing, a number out\n"
		"of range) is named, counted and left out; no other takes its place.\n"
		"\n"
		"The .json beside a clip has all modes of its action that are valid. Published training\n"
		"shows one at a time: lwm-vqgan-encode --frame-folders -f '<|world|>' --actions cycle.\n"
		"A clip that is there already is left alone, so a failed or stopped task is run again.\n",
	.examples = "lwm-annos --root nuscenes/ -d clips/ --balance annos/nuScenes.json\n"
		    "lwm-annos --root OpenDV/ -d clips/ --width 1024 --height 576 --task 3 --tasks 100 annos/YouTube.json\n",
};

struct job {
	struct lwm_anno_how how;
	struct { const char *what; int64_t n; } reason[MOST_REASONS];
	int64_t samples, clips, broken, there; /* of this task; there: clips that were done before */
	uint8_t *rgb;                          /* a frame of the wanted size */
};

static void count_reason(struct job *j, const char *what)
{
	int i = 0;
	while (i < MOST_REASONS - 1 && j->reason[i].what && strcmp(j->reason[i].what, what))
		i++;
	j->reason[i].what = what;
	j->reason[i].n++;
}

static int read_commands(struct lwm_anno_how *how, struct lwm_err *e)
{
	struct lwm_str one = { 0 };
	const char *s = a.commands;
	int rc = 0;
	for (int i = 0; i < 4 && rc == 0; i++) {
		struct lwm_action act = { 0 };
		size_t n = strcspn(s, ",");
		lwm_str_reset(&one);
		lwm_str_puts(&one, "cmd=");
		lwm_str_add(&one, s, n);
		rc = lwm_str_ok(&one, e);
		if (rc == 0 && (s[n] == ',') != (i < 3))
			rc = lwm_fail(e, LWM_EUSAGE, "--commands: '%s' are not four, with commas between", a.commands);
		if (rc == 0 && lwm_action_parse(&act, lwm_str_get(&one), e) < 0)
			rc = lwm_context(e, "--commands");
		how->cmd[i] = act.cmd;
		s += n + (s[n] == ',');
	}
	lwm_str_release(&one);
	return rc;
}

/* ---- a clip ---- */

static int write_frame(struct job *j, const char *from, const char *to, struct lwm_err *e)
{
	const struct lwm_frames_opts how = { .max_frames = 1, .max_pixels = a.max_pixels };
	struct lwm_frames_info info;
	int w = (int)a.width, h = (int)a.height;
	uint8_t *rgb = NULL;
	int64_t n = 0;
	LWM_TRY(lwm_frames_read(from, &how, FRAME_LIMIT, &rgb, &n, &info, e));
	int rc = lwm_lanczos(rgb, info.width, info.height, lwm_crop_to_aspect(info.width, info.height, w, h), j->rgb, w, h, e);
	free(rgb);
	return rc < 0 ? rc : lwm_picture_write(to, j->rgb, w, h, 0, true, e);
}

static int write_frames(struct job *j, const struct lwm_anno *s, const char *folder, struct lwm_err *e)
{
	int rc = lwm_mkdirs(folder, e);
	lwm_outfile_batch_begin();
	for (int64_t i = 0; i < s->frames.n && rc == 0; i++) {
		char name[32];
		snprintf(name, sizeof name, "%05" PRId64 ".png", i);
		char *from = lwm_path_join(a.root, s->frames.v[i]), *to = lwm_path_join(folder, name);
		rc = from && to ? write_frame(j, from, to, e) : lwm_fail_memory(e, "a path");
		free(from);
		free(to);
	}
	int end = lwm_outfile_batch_end(folder, rc < 0 ? NULL : e); /* of a failure the first is told */
	return rc < 0 ? rc : end;
}

static int write_action(const struct lwm_anno *s, const char *file, int64_t number, const char *path, struct lwm_err *e)
{
	struct lwm_str o = { 0 };
	lwm_str_puts(&o, "{\"action\": ");
	lwm_action_write(&s->action, &o);
	lwm_str_puts(&o, ",\n \"source\": {\"file\": ");
	lwm_str_json(&o, file, strlen(file));
	lwm_str_printf(&o, ", \"sample\": %" PRId64 ", \"first_frame\": ", number);
	lwm_str_json(&o, s->frames.v[0], strlen(s->frames.v[0]));
	lwm_str_puts(&o, "}}\n");
	int rc = lwm_str_ok(&o, e);
	if (rc == 0)
		rc = lwm_write_file(path, lwm_str_get(&o), o.len, true, e);
	lwm_str_release(&o);
	return rc;
}

/* What an interrupted run left of a clip, or another one made that is replaced; first what says that it is done. */
static int clear_clip(const char *folder, const char *beside, struct lwm_err *e)
{
	if (unlink(beside) < 0 && errno != ENOENT)
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot be removed", beside);
	return lwm_remove_tree(folder, e);
}

/* DIR/FILE-NNNNNN, from the second copy on with -K behind it. */
static int write_copy(struct job *j, const struct lwm_anno *s, const char *file, int64_t number, int64_t copy, bool force,
		      struct lwm_err *e)
{
	struct lwm_str stem = { 0 }, beside = { 0 };
	const char *base = lwm_path_base(file), *dot = strrchr(base, '.');
	lwm_str_printf(&stem, "%s/%.*s-%06" PRId64, a.out, dot ? (int)(dot - base) : (int)strlen(base), base, number);
	if (copy)
		lwm_str_printf(&stem, "-%" PRId64, copy + 1);
	lwm_str_printf(&beside, "%s.json", lwm_str_get(&stem));
	int rc = lwm_str_ok(&stem, e) < 0 ? -LWM_EMEMORY : lwm_str_ok(&beside, e);
	bool done = rc == 0 && !force && lwm_path_exists(lwm_str_get(&beside));
	if (rc == 0 && !done)
		rc = clear_clip(lwm_str_get(&stem), lwm_str_get(&beside), e);
	if (rc == 0 && !done)
		rc = write_frames(j, s, lwm_str_get(&stem), e);
	if (rc == 0 && !done)
		rc = write_action(s, base, number, lwm_str_get(&beside), e);
	if (rc == -LWM_EDATA || rc == -LWM_ENOINPUT) { /* of a broken sample nothing stays */
		struct lwm_err other = { 0 };
		lwm_remove_tree(lwm_str_get(&stem), &other);
	}
	j->there += done;
	j->clips += rc == 0;
	lwm_str_release(&stem);
	lwm_str_release(&beside);
	return rc;
}

/* ---- samples ---- */

static int take_sample(struct job *j, const json_t *o, const char *file, int64_t number, bool force, struct lwm_err *e)
{
	struct lwm_err mine = { 0 };
	struct lwm_anno s;
	int rc = lwm_anno_read(&s, o, &j->how, &mine);
	const char *what = s.fault;
	for (int64_t k = 0; rc == 0 && k < (a.balance ? s.times : 1); k++) {
		rc = write_copy(j, &s, file, number, k, force, &mine);
		what = rc == -LWM_ENOINPUT ? "missing frame" : "bad frame";
	}
	lwm_anno_release(&s);
	j->samples++;
	if (rc != -LWM_EDATA && rc != -LWM_ENOINPUT) {
		if (rc < 0)
			*e = mine;
		return rc;
	}
	lwm_log(LWM_WARN, "broken: %s: sample %" PRId64 ": %s", file, number, mine.msg);
	count_reason(j, what ? what : "bad sample");
	j->broken++;
	if (a.max_bad < 0 || j->broken <= a.max_bad)
		return 0;
	return lwm_fail(e, LWM_EDATA, "%s: %" PRId64 " samples are broken, and no more than %" PRId64 " are allowed (--max-bad); the last one "
			"is %" PRId64, file, j->broken, a.max_bad, number);
}

static int take_file(struct job *j, const char *file, bool force, struct lwm_err *e)
{
	struct lwm_progress p;
	json_t *list, *o;
	size_t i;
	int rc = lwm_json_read(&list, file, FILE_LIMIT, e);
	LWM_TRY(rc);
	if (!json_is_array(list))
		rc = lwm_fail(e, LWM_EDATA, "%s: is no list of samples", file);
	lwm_progress_begin(&p, "made", "samples", (int64_t)json_array_size(list));
	json_array_foreach(list, i, o) {
		if (rc == 0 && lwm_stop_wanted() >= LWM_STOP_END)
			rc = lwm_fail(e, LWM_ESAVED, "%s: stopped (%s) before sample %zu; clips that are done are kept: run me again", file,
				      lwm_stop_reason(), i);
		if (rc < 0)
			break;
		if ((int64_t)i % a.tasks != a.task)
			continue;
		rc = take_sample(j, o, file, (int64_t)i, force, e);
		lwm_progress_at(&p, (int64_t)i + 1);
	}
	lwm_progress_end(&p);
	json_decref(list);
	return rc;
}

/* Names of files name clips: no two may be the same. */
static int list_inputs(const struct lwm_args *args, json_t *out, struct lwm_err *e)
{
	for (int i = 0; i < args->noperand; i++) {
		struct lwm_hash hash;
		const char *name = lwm_path_base(args->operand[i]);
		if (json_object_get(out, name))
			return lwm_fail(e, LWM_EUSAGE, "%s: a second file of this name, and clips are named after their files", name);
		LWM_TRY(lwm_hash_file(args->operand[i], &hash, NULL, e));
		if (json_object_set_new(out, name, json_string(hash.hex)) < 0)
			return lwm_fail_memory(e, "a name");
	}
	return 0;
}

/* What decides the clips stands in DIR/annos.json: a folder is filled from one set of samples with one set of settings. */
static int check_settings(const struct lwm_args *args, struct lwm_err *e)
{
	bool force = args->common.force;
	char *want = NULL, *have = NULL, *path = lwm_path_join(a.out, "annos.json");
	size_t n;
	json_t *inputs = json_object(), *o = json_pack("{s:o,s:I,s:I,s:I,s:s,s:b,s:s,s:s}", "inputs", inputs, "frames", (json_int_t)a.frames, "width", (json_int_t)a.width, "height",
			      (json_int_t)a.height, "commands", a.commands, "balance", a.balance, "layout", lwm_anno_layouts[a.layout],
			      "resize", "crop, lanczos");
	int rc = o ? list_inputs(args, inputs, e) : lwm_fail_memory(e, "the settings");
	if (rc == 0)
		rc = lwm_json_dump(o, JSON_SORT_KEYS | JSON_COMPACT, "the settings", &want, e);
	json_decref(o);
	if (rc == 0 && !path)
		rc = lwm_fail_memory(e, "a path");
	if (rc == 0 && !force && lwm_path_exists(path)) {
		rc = lwm_read_file(path, 1 << 16, &have, &n, e);
		if (rc == 0 && strcmp(have, want))
			rc = lwm_fail(e, LWM_ECANTCREATE, "%s: holds clips of other samples or settings (use --force to replace them)", a.out);
	} else if (rc == 0) {
		rc = lwm_mkdirs(a.out, e);
		if (rc == 0)
			rc = lwm_write_file(path, want, strlen(want), true, e);
	}
	free(want);
	free(have);
	free(path);
	return rc;
}

static int report(const struct job *j, bool json, struct lwm_err *e)
{
	lwm_log(LWM_INFO, "%s: %" PRId64 " samples = %" PRId64 " used + %" PRId64 " broken; %" PRId64 " clips of %" PRId64 " frames, %" PRId64
		" of them there before", a.out, j->samples, j->samples - j->broken, j->broken, j->clips, a.frames, j->there);
	if (!json)
		return 0;
	json_t *why = json_object();
	for (int i = 0; i < MOST_REASONS && j->reason[i].what; i++)
		json_object_set_new(why, j->reason[i].what, json_integer(j->reason[i].n));
	return lwm_tool_json(json_pack("{s:I,s:I,s:I,s:I,s:o}", "samples", (json_int_t)j->samples, "broken", (json_int_t)j->broken, "clips",
				       (json_int_t)j->clips, "there_before", (json_int_t)j->there, "reasons", why), e);
}

static int read_annos(const struct lwm_args *args, struct lwm_err *e)
{
	struct job j = { .how = { .layout = (enum lwm_anno_layout)a.layout, .frames = a.frames } };
	int rc = 0;
	if (a.width % 64 || a.height % 64)
		return lwm_fail(e, LWM_EUSAGE, "frames of %" PRId64 " x %" PRId64 ": both must be multiples of 64", a.width, a.height);
	if (a.task >= a.tasks)
		return lwm_fail(e, LWM_EUSAGE, "--task %" PRId64 ": tasks are numbered from 0 to %" PRId64, a.task, a.tasks - 1);
	LWM_TRY(read_commands(&j.how, e));
	for (int i = 0; i < args->noperand && rc == 0; i++)
		rc = lwm_path_want(args->operand[i], e);
	LWM_TRY(rc);
	if (args->common.plan) {
		for (int i = 0; i < args->noperand; i++)
			printf("%s -> %s\n", args->operand[i], a.out);
		return 0;
	}
	LWM_TRY(check_settings(args, e));
	lwm_stop_install(LWM_STOP_GRACE, NULL);
	j.rgb = malloc((size_t)(a.width * a.height) * 3);
	if (!j.rgb)
		return lwm_fail_memory(e, "a frame");
	for (int i = 0; i < args->noperand && rc == 0; i++)
		rc = take_file(&j, args->operand[i], args->common.force, e);
	if (rc == 0 && j.samples && j.samples == j.broken)
		rc = lwm_fail(e, LWM_EDATA, "none of %" PRId64 " samples can be used", j.samples);
	if (rc == 0)
		rc = report(&j, args->common.json, e);
	free(j.rgb);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, read_annos);
}
