/* Settings into a record of a checkpoint, and the settings of a resumed run compared with it. */
#include "common/train/settings_record.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/cli/yaml.h"
#include "common/train/settings.h"

static const char data_key[] = "data", network_key[] = "perceptual-net"; /* hashes, where their options name files */

static unsigned rule_of(const struct lwm_setting *x)
{
	return x->opt.type == LWM_T_HEAD ? LWM_UNRECORDED : x->rule & LWM_RULES;
}

static json_t *text_json(const char *text)
{
	return json_string(text ? text : "");
}

static json_t *value_json(const struct lwm_setting *x, const void *value)
{
	switch (x->opt.type) {
	case LWM_T_INT:
		return json_integer(*(const int64_t *)value);
	case LWM_T_DOUBLE:
		return json_real(*(const double *)value);
	case LWM_T_FLAG:
		return json_boolean(*(const bool *)value);
	case LWM_T_CHOICE:
		return json_string(x->opt.choices[*(const int *)value]);
	default:
		return text_json(*(const char *const *)value);
	}
}

static json_t *preset_json(const struct lwm_setting *x)
{
	switch (x->opt.type) {
	case LWM_T_INT:
		return json_integer((json_int_t)x->preset);
	case LWM_T_DOUBLE:
		return json_real(x->preset);
	case LWM_T_FLAG:
		return json_boolean(x->preset != 0);
	case LWM_T_CHOICE:
		return json_string(x->opt.choices[(int)x->preset]);
	default:
		return text_json(x->text);
	}
}

/* presets: the defaults instead of what the stage has. */
static json_t *settings_json(const struct lwm_stage *s, const char *data, const char *network, bool presets)
{
	struct lwm_setting_at list[LWM_SETTINGS_MAX];
	int n = lwm_settings_list(s, list);
	json_t *o = json_object();
	bool failed = !o || json_object_set_new(o, data_key, json_string(data)) ||
		      json_object_set_new(o, network_key, json_string(network));

	for (int i = 0; i < n && !failed; i++) {
		const struct lwm_setting *x = list[i].set;
		if (rule_of(x) != LWM_UNRECORDED)
			failed = json_object_set_new(o, x->opt.name, presets ? preset_json(x) : value_json(x, list[i].value)) != 0;
	}
	if (!failed)
		return o;
	json_decref(o);
	return NULL;
}

json_t *lwm_settings_record(const struct lwm_stage *s, const char *data, const char *network)
{
	return settings_json(s, data, network, false);
}

static bool is_equal(const json_t *a, const json_t *b)
{
	if (json_is_number(a) && json_is_number(b))
		return json_number_value(a) == json_number_value(b);
	return json_equal(a, b);
}

static bool is_allowed(const struct lwm_stage *s, const char *name)
{
	for (int64_t i = 0; i < s->allow_change.n; i++)
		if (!strcmp(s->allow_change.v[i], name))
			return true;
	return false;
}

static bool sums_canonically(const json_t *settings)
{
	const char *order = json_string_value(json_object_get(settings, "sum-order"));

	return order && !strcmp(order, "canonical");
}

/* Does this setting decide what is computed, with these others? */
static bool decides_result(const struct lwm_setting *x, const json_t *before, const json_t *now)
{
	static const char key[] = "schedule";
	unsigned rule = rule_of(x);

	if (rule == LWM_ROUNDED)
		return sums_canonically(before) || sums_canonically(now);
	if (rule != LWM_CURVED && rule != LWM_LENGTH)
		return rule == LWM_FIXED;
	if (rule == LWM_LENGTH && json_integer_value(json_object_get(now, "decay-steps")))
		return false;
	return strcmp(json_string_value(json_object_get(now, key)), "constant") || !is_equal(json_object_get(now, key),
											  json_object_get(before, key));
}

struct differences {
	struct lwm_str refused, taken, names;
};

static void add_difference(struct differences *d, bool ok, const char *name, const json_t *was, const json_t *is)
{
	struct lwm_str *out = ok ? &d->taken : &d->refused;
	char *a = json_dumps(was, JSON_ENCODE_ANY | JSON_REAL_PRECISION(12)),
	     *b = json_dumps(is, JSON_ENCODE_ANY | JSON_REAL_PRECISION(12));

	if (!strcmp(name, data_key))
		lwm_str_printf(out, "%sother data", out->len ? "; " : "");
	else
		lwm_str_printf(out, "%s%s %s, was %s", out->len ? "; " : "", name, b ? b : "?", a ? a : "?");
	if (!ok)
		lwm_str_printf(&d->names, " --allow-change %s", name);
	free(a);
	free(b);
}

static void compare_setting(struct differences *d, const struct lwm_stage *s, const char *name, const json_t *before,
			    const json_t *now)
{
	const json_t *was = json_object_get(before, name), *is = json_object_get(now, name);

	if (!is_equal(was, is))
		add_difference(d, is_allowed(s, name), name, was, is);
}

int lwm_settings_compare(const struct lwm_stage *s, const json_t *before, const json_t *now, const char *where, struct lwm_err *e)
{
	struct lwm_setting_at list[LWM_SETTINGS_MAX];
	int n = lwm_settings_list(s, list);
	struct differences d = { 0 };
	const char *data = json_string_value(json_object_get(before, data_key));
	json_t *then;
	int rc;

	then = settings_json(s, "", "", true);
	if (!then || json_object_update(then, (json_t *)before)) {
		json_decref(then);
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the settings");
	}
	for (int i = 0; i < n; i++)
		if (decides_result(list[i].set, then, now))
			compare_setting(&d, s, list[i].set->opt.name, then, now);
	if (data && *data)
		compare_setting(&d, s, data_key, before, now);
	compare_setting(&d, s, network_key, then, now);
	json_decref(then);
	rc = lwm_str_ok(&d.refused, e);
	if (rc == 0 && d.taken.len && !d.refused.len)
		lwm_log(LWM_WARN, "%s: going on with other settings, as allowed: %s", where, lwm_str_get(&d.taken));
	if (rc == 0 && d.refused.len)
		rc = lwm_fail(e, LWM_ECONFIG, "%s: this run was begun with other settings: %s (to go on with these:%s)", where,
			      lwm_str_get(&d.refused), lwm_str_get(&d.names));
	lwm_str_release(&d.refused);
	lwm_str_release(&d.taken);
	lwm_str_release(&d.names);
	return rc;
}

int lwm_settings_check(const struct lwm_stage *s, struct lwm_err *e)
{
	struct lwm_setting_at list[LWM_SETTINGS_MAX];
	const char *names[LWM_SETTINGS_MAX + 2], *near;
	int all = lwm_settings_list(s, list), n = 0;

	for (int i = 0; i < all; i++) {
		unsigned rule = rule_of(list[i].set);
		if (rule == LWM_ROUNDED || rule == LWM_FIXED || rule == LWM_CURVED || rule == LWM_LENGTH)
			names[n++] = list[i].set->opt.name;
	}
	names[n++] = data_key;
	names[n++] = network_key;
	for (int64_t i = 0; i < s->allow_change.n; i++) {
		const char *want = s->allow_change.v[i];
		int k = 0;

		while (k < n && strcmp(names[k], want))
			k++;
		near = k < n ? NULL : lwm_nearest(want, names, n);
		if (k == n)
			return lwm_fail(e, LWM_EUSAGE, "--allow-change %s: no setting that a resumed run must keep%s%s%s", want,
					near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
	}
	return 0;
}
