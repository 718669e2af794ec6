/* Samples as published: nuScenes with actions, folders of frames without. */
#include "common/data/ingest/annos.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *const lwm_anno_layouts[] = { "auto", "nuscenes", "youtube", NULL };
const enum lwm_action_cmd lwm_anno_cmds[4] = { LWM_CMD_RIGHT, LWM_CMD_LEFT, LWM_CMD_STRAIGHT, LWM_CMD_STOP };

enum { WIDTH = 1600, HEIGHT = 900, WHEEL = 780, RARE = 5, WHOLE = 2, DIGITS = 18 };

static int fault(struct lwm_anno *a, const char *what, int rc)
{
	if (rc < 0)
		a->fault = what;
	return rc;
}

static int find(const json_t *o, const char *key, json_t **out, struct lwm_err *e)
{
	*out = json_object_get(o, key);
	return *out ? 0 : lwm_fail(e, LWM_EDATA, "no field '%s'", key);
}

/* Exactly n numbers; *none where the list is empty and may be. */
static int read_numbers(const json_t *o, const char *key, int n, double *v, bool *none, struct lwm_err *e)
{
	json_t *a;
	LWM_TRY(find(o, key, &a, e));
	if (none && (*none = json_is_array(a) && json_array_size(a) == 0))
		return 0;
	if (!json_is_array(a) || (int)json_array_size(a) != n)
		return lwm_fail(e, LWM_EDATA, "'%s' is no list of %d numbers", key, n);
	for (int i = 0; i < n; i++) {
		const json_t *x = json_array_get(a, (size_t)i);
		if (!json_is_number(x))
			return lwm_fail(e, LWM_EDATA, "'%s' is no list of %d numbers", key, n);
		v[i] = json_number_value(x);
	}
	return 0;
}

/* Below the data root, and nowhere else. */
static int add_path(struct lwm_anno *a, const char *path, struct lwm_err *e)
{
	if (!*path || *path == '/' || !strncmp(path, "../", 3) || strstr(path, "/../"))
		return fault(a, "bad path", lwm_fail(e, LWM_EDATA, "'%s' is no path below the data root", path));
	return lwm_paths_add(&a->frames, path, e);
}

/* ---- nuScenes ---- */

static int read_frames(struct lwm_anno *a, const json_t *o, int64_t n, struct lwm_err *e)
{
	json_t *list;
	LWM_TRY(fault(a, "missing key", find(o, "frames", &list, e)));
	if (!json_is_array(list))
		return fault(a, "wrong type", lwm_fail(e, LWM_EDATA, "'frames' is no list"));
	if ((int64_t)json_array_size(list) < n)
		return fault(a, "too few frames", lwm_fail(e, LWM_EDATA, "%zu frames, not the %" PRId64 " of a clip", json_array_size(list), n));
	for (int64_t i = 0; i < n; i++) {
		const char *path = json_string_value(json_array_get(list, (size_t)i));
		if (!path)
			return fault(a, "wrong type", lwm_fail(e, LWM_EDATA, "frame %" PRId64 " is no text", i));
		LWM_TRY(add_path(a, path, e));
	}
	return 0;
}

static int read_cmd(struct lwm_anno *a, const json_t *o, const struct lwm_anno_how *how, int *number, struct lwm_err *e)
{
	json_t *v;
	LWM_TRY(find(o, "cmd", &v, e));
	*number = json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < 4 ? (int)json_integer_value(v) : -1;
	if (*number < 0)
		return lwm_fail(e, LWM_EDATA, "'cmd' is none of 0, 1, 2, 3");
	a->action.cmd = how->cmd[*number];
	a->action.has |= LWM_ACTION_BIT(LWM_ACTION_CMD);
	return 0;
}

static int read_goal(struct lwm_anno *a, const json_t *o, struct lwm_err *e)
{
	double at[2];
	json_t *z;
	LWM_TRY(read_numbers(o, "goal", 2, at, NULL, e));
	LWM_TRY(find(o, "z", &z, e));
	if (!json_is_number(z))
		return lwm_fail(e, LWM_EDATA, "'z' is no number");
	if (!(json_number_value(z) > 0 && at[0] > 0 && at[0] < WIDTH && at[1] > 0 && at[1] < HEIGHT))
		return 0; /* it cannot be seen */
	a->action.goal[0] = at[0] / WIDTH;
	a->action.goal[1] = at[1] / HEIGHT;
	a->action.has |= LWM_ACTION_BIT(LWM_ACTION_GOAL);
	return 0;
}

/* speed, and angle as steer: five numbers, of which the first is of now. */
static int read_times(struct lwm_anno *a, const json_t *o, const char *key, enum lwm_action_mode mode, double scale, double *out,
		      struct lwm_err *e)
{
	double v[LWM_ACTION_POINTS + 1];
	bool none;
	LWM_TRY(read_numbers(o, key, LWM_ACTION_POINTS + 1, v, &none, e));
	for (int i = 0; i < LWM_ACTION_POINTS && !none; i++)
		out[i] = v[i + 1] / scale;
	a->action.has |= none ? 0 : LWM_ACTION_BIT(mode);
	return 0;
}

static int read_action(struct lwm_anno *a, const json_t *o, const struct lwm_anno_how *how, struct lwm_err *e)
{
	double traj[2 * LWM_ACTION_POINTS + 2];
	int cmd;
	LWM_TRY(read_cmd(a, o, how, &cmd, e));
	LWM_TRY(read_numbers(o, "traj", 2 * LWM_ACTION_POINTS + 2, traj, NULL, e));
	memcpy(a->action.traj, traj + 2, sizeof a->action.traj);
	a->action.has |= LWM_ACTION_BIT(LWM_ACTION_TRAJ);
	LWM_TRY(read_times(a, o, "speed", LWM_ACTION_SPEED, 1, a->action.speed, e));
	LWM_TRY(read_times(a, o, "angle", LWM_ACTION_STEER, WHEEL, a->action.steer, e));
	LWM_TRY(read_goal(a, o, e));
	a->times = (cmd == 2 || cmd == 3 ? 1 : RARE) * (a->action.has == (1u << LWM_ACTION_MODES) - 1 ? WHOLE : 1);
	return lwm_action_check(&a->action, e);
}

/* ---- folders of frames ---- */

static int read_folder(struct lwm_anno *a, const json_t *o, int64_t frames, struct lwm_err *e)
{
	json_t *folder, *first;
	LWM_TRY(fault(a, "missing key", find(o, "folder_name", &folder, e)));
	LWM_TRY(fault(a, "missing key", find(o, "first_frame", &first, e)));
	const char *dir = json_string_value(folder), *name = json_string_value(first);
	if (!dir || !name)
		return fault(a, "wrong type", lwm_fail(e, LWM_EDATA, "'%s' is no text", dir ? "first_frame" : "folder_name"));
	size_t digits = strspn(name, "0123456789");
	if (!digits || digits > DIGITS || name[digits] != '.' || strchr(name, '/'))
		return fault(a, "bad path", lwm_fail(e, LWM_EDATA, "first_frame '%s' is no number with a suffix", name));
	int64_t begin = strtoll(name, NULL, 10);
	for (int64_t i = 0; i < frames; i++) {
		struct lwm_str path = { 0 };
		lwm_str_printf(&path, "%s/%0*" PRId64 "%s", dir, (int)digits, begin + i, name + digits);
		int rc = lwm_str_ok(&path, e);
		if (rc == 0)
			rc = add_path(a, lwm_str_get(&path), e);
		lwm_str_release(&path);
		LWM_TRY(rc);
	}
	return 0;
}

/* ---- */

static int read_sample(struct lwm_anno *a, const json_t *o, const struct lwm_anno_how *how, struct lwm_err *e)
{
	if (!json_is_object(o))
		return fault(a, "wrong type", lwm_fail(e, LWM_EDATA, "is no object"));
	a->layout = how->layout != LWM_ANNO_AUTO ? how->layout : json_object_get(o, "frames") ? LWM_ANNO_NUSCENES :
		    json_object_get(o, "folder_name") ? LWM_ANNO_YOUTUBE : LWM_ANNO_AUTO;
	a->times = 1;
	if (a->layout == LWM_ANNO_AUTO)
		return fault(a, "missing key", lwm_fail(e, LWM_EDATA, "has neither 'frames' nor 'folder_name'"));
	if (a->layout == LWM_ANNO_YOUTUBE)
		return read_folder(a, o, how->frames, e);
	LWM_TRY(read_frames(a, o, how->frames, e));
	return fault(a, "bad action", read_action(a, o, how, e));
}

int lwm_anno_read(struct lwm_anno *a, const json_t *sample, const struct lwm_anno_how *how, struct lwm_err *e)
{
	*a = (struct lwm_anno){ 0 };
	int rc = read_sample(a, sample, how, e);
	if (rc < 0)
		lwm_paths_release(&a->frames);
	return rc;
}

void lwm_anno_release(struct lwm_anno *a)
{
	lwm_paths_release(&a->frames);
	*a = (struct lwm_anno){ 0 };
}
