/* Actions as people type them, and as records hold them. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/text/action_int.h"

enum { MOST = 2 * LWM_ACTION_POINTS, LONGEST = 1024 };

static int find_name(const char *const *names, const char *name)
{
	for (int i = 0; names[i]; i++)
		if (!strcmp(names[i], name))
			return i;
	return -1;
}

static int set_numbers(struct lwm_action *a, enum lwm_action_mode mode, const double *v, int n, int code, struct lwm_err *e)
{
	int want = lwm_action_numbers(mode);
	if (n != want)
		return lwm_fail(e, code, "action: %s has %d numbers, not %d", lwm_action_modes[mode], want, n);
	for (int i = 0; i < n; i++) {
		if (lwm_action_bin(mode, i, v[i]) < 0)
			return lwm_action_outside(mode, i, v[i], code, e);
		lwm_action_values(a, mode)[i] = v[i];
	}
	return 0;
}

static int set_cmd(struct lwm_action *a, const char *name, int code, struct lwm_err *e)
{
	char hint[LWM_HINT];
	int cmd = find_name(lwm_action_cmds, name);
	if (cmd < 0)
		return lwm_fail(e, code, "action: '%s' is none of left, right, straight, stop%s", name,
				lwm_hint(hint, name, lwm_action_cmds, LWM_CMDS));
	a->cmd = (enum lwm_action_cmd)cmd;
	return 0;
}

/* ---- what people type ---- */

/* The next part of a text up to one of `ends`, without the spaces around it; NULL: there is none left. */
static char *next_part(char **s, char end)
{
	if (!*s)
		return NULL;
	char *part = *s + strspn(*s, " \t"), *stop = strchr(part, end);
	*s = stop ? stop + 1 : NULL;
	if (stop)
		*stop = 0;
	size_t n = strlen(part);
	while (n && (part[n - 1] == ' ' || part[n - 1] == '\t'))
		part[--n] = 0;
	return part;
}

static int parse_numbers(struct lwm_action *a, enum lwm_action_mode mode, char *text, struct lwm_err *e)
{
	double v[MOST] = { 0 };
	int n = 0, all = lwm_action_numbers(mode);
	for (char *part, *end; (part = next_part(&text, ',')); n++) {
		double x = strtod(part, &end);
		if (!*part || *end || !isfinite(x))
			return lwm_fail(e, LWM_EUSAGE, "action: %s: '%s' is not a number", lwm_action_modes[mode], part);
		if (n < MOST)
			v[n] = x;
	}
	if (n == 1 && (mode == LWM_ACTION_SPEED || mode == LWM_ACTION_STEER)) /* at all times */
		for (; n < all; n++)
			v[n] = v[0];
	return set_numbers(a, mode, v, n, LWM_EUSAGE, e);
}

static int parse_item(struct lwm_action *a, char *item, bool *free_said, struct lwm_err *e)
{
	static const char *const names[] = { "left", "right", "straight", "stop", "free", "cmd", "traj", "speed", "steer", "goal" };
	char hint[LWM_HINT], *value = strchr(item, '=');
	int mode = LWM_ACTION_CMD;
	if (value) {
		char *key = item;
		*value++ = 0;
		mode = find_name(lwm_action_modes, next_part(&key, '='));
	}
	if (!value && !strcmp(item, "free")) {
		*free_said = true;
		return 0;
	}
	if (mode < 0 || (!value && find_name(lwm_action_cmds, item) < 0))
		return lwm_fail(e, LWM_EUSAGE, "action: '%s' is none of left, right, straight, stop, free, cmd=, traj=, speed=, steer=, "
				"goal=%s", item, lwm_hint(hint, item, names, (int64_t)(sizeof names / sizeof *names)));
	if (a->has & LWM_ACTION_BIT(mode))
		return lwm_fail(e, LWM_EUSAGE, "action: %s is given twice", lwm_action_modes[mode]);
	a->has |= LWM_ACTION_BIT(mode);
	if (mode == LWM_ACTION_CMD)
		return set_cmd(a, value ? next_part(&value, 0) : item, LWM_EUSAGE, e);
	return parse_numbers(a, (enum lwm_action_mode)mode, value, e);
}

int lwm_action_parse(struct lwm_action *a, const char *text, struct lwm_err *e)
{
	struct lwm_action got = { 0 };
	char copy[LONGEST], *rest = copy;
	bool free_said = false;
	if (strlen(text) >= sizeof copy)
		return lwm_fail(e, LWM_EUSAGE, "action: '%.40s...' is longer than %d bytes", text, LONGEST - 1);
	memcpy(copy, text, strlen(text) + 1);
	for (char *item; (item = next_part(&rest, ';'));)
		LWM_TRY(parse_item(&got, item, &free_said, e));
	if (free_said && got.has)
		return lwm_fail(e, LWM_EUSAGE, "action: '%s': free is no action, and stands alone", text);
	*a = got;
	return 0;
}

void lwm_action_show(const struct lwm_action *a, struct lwm_str *out)
{
	const char *between = "";
	if (!a->has)
		lwm_str_puts(out, "free");
	for (int m = 0; m < LWM_ACTION_MODES; m++) {
		const double *v = lwm_action_numbers_of(a, (enum lwm_action_mode)m);
		if (!(a->has & LWM_ACTION_BIT(m)))
			continue;
		lwm_str_printf(out, "%s%s=%s", between, lwm_action_modes[m], v ? "" : lwm_action_cmds[a->cmd]);
		for (int i = 0; i < lwm_action_numbers((enum lwm_action_mode)m); i++)
			lwm_str_printf(out, "%s%.9g", i ? "," : "", v[i]);
		between = ";";
	}
}

/* ---- what records hold ---- */

static int read_numbers(struct lwm_action *a, enum lwm_action_mode mode, const json_t *v, struct lwm_err *e)
{
	double x[MOST] = { 0 };
	size_t n = json_array_size(v);
	for (size_t i = 0; i < n && i < MOST; i++) {
		const json_t *one = json_array_get(v, i);
		if (!json_is_number(one))
			return lwm_fail(e, LWM_EDATA, "action: %s: value %zu is not a number", lwm_action_modes[mode], i);
		x[i] = json_number_value(one);
	}
	if (!json_is_array(v) || n > MOST)
		return lwm_fail(e, LWM_EDATA, "action: %s is no list of %d numbers", lwm_action_modes[mode], lwm_action_numbers(mode));
	return set_numbers(a, mode, x, (int)n, LWM_EDATA, e);
}

static int read_members(struct lwm_action *a, const json_t *o, struct lwm_err *e)
{
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)o, key, v) {
		int mode = find_name(lwm_action_modes, key);
		if (mode < 0)
			return lwm_fail(e, LWM_EDATA, "action: '%s' is none of cmd, traj, speed, steer, goal", key);
		a->has |= LWM_ACTION_BIT(mode);
		if (mode != LWM_ACTION_CMD)
			LWM_TRY(read_numbers(a, (enum lwm_action_mode)mode, v, e));
		else if (json_is_string(v))
			LWM_TRY(set_cmd(a, json_string_value(v), LWM_EDATA, e));
		else
			return lwm_fail(e, LWM_EDATA, "action: cmd is not a string");
	}
	return 0;
}

int lwm_action_read(struct lwm_action *a, const json_t *v, struct lwm_err *e)
{
	struct lwm_action got = { 0 };
	if (json_is_string(v)) {
		struct lwm_err mine = { 0 };
		if (lwm_action_parse(&got, json_string_value(v), &mine) < 0)
			return lwm_fail(e, LWM_EDATA, "%s", mine.msg);
	} else if (json_is_object(v)) {
		LWM_TRY(read_members(&got, v, e));
	} else if (!json_is_null(v)) {
		return lwm_fail(e, LWM_EDATA, "action: neither null nor a text nor an object");
	}
	*a = got;
	return 0;
}

void lwm_action_write(const struct lwm_action *a, struct lwm_str *out)
{
	const char *between = "{";
	if (!a->has)
		lwm_str_puts(out, "null");
	for (int m = 0; m < LWM_ACTION_MODES; m++) {
		const double *v = lwm_action_numbers_of(a, (enum lwm_action_mode)m);
		int n = lwm_action_numbers((enum lwm_action_mode)m);
		if (!(a->has & LWM_ACTION_BIT(m)))
			continue;
		lwm_str_printf(out, "%s\"%s\": ", between, lwm_action_modes[m]);
		if (!v)
			lwm_str_printf(out, "\"%s\"", lwm_action_cmds[a->cmd]);
		for (int i = 0; i < n; i++) {
			lwm_str_puts(out, i ? ", " : "[");
			lwm_str_number(out, v[i], 9);
		}
		lwm_str_puts(out, n ? "]" : "");
		between = ", ";
	}
	lwm_str_puts(out, a->has ? "}" : "");
}
