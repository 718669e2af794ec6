/* The tables of settings put together: their order, their options, their defaults. */
#include "common/train/settings.h"

#include <inttypes.h>
#include <string.h>

#include "common/train/stage.h"

void *lwm_settings_of(const struct lwm_stage *s, const struct lwm_setting *table)
{
	const struct lwm_values *v = s->values;
	while (v->table && v->table != table)
		v++;
	return v->at;
}

static bool is_heading(const struct lwm_setting *x)
{
	return x->opt.type == LWM_T_HEAD && x->opt.help;
}

static bool ends_section(const struct lwm_setting *x)
{
	return x->opt.type == LWM_T_END || is_heading(x);
}

/* The heading of that name in a table; NULL: it has none. */
static const struct lwm_setting *find_heading(const struct lwm_setting *x, const char *name)
{
	for (; x->opt.type != LWM_T_END; x++)
		if (is_heading(x) && !strcmp(x->opt.help, name))
			return x;
	return NULL;
}

struct list {
	const struct lwm_stage *stage;
	struct lwm_setting_at *out;
	int n;
};

static void add_setting(struct list *l, const struct lwm_values *v, const struct lwm_setting *x)
{
	char *base = v->at ? v->at : (char *)(uintptr_t)l->stage;
	LWM_BUG_ON(l->n == LWM_SETTINGS_MAX - 1); /* one is for the end of the options */
	l->out[l->n++] = (struct lwm_setting_at){ x, base + x->at };
}

/* What follows a heading in a table of an objective. */
static void add_section(struct list *l, const struct lwm_values *v, const struct lwm_setting *heading)
{
	for (const struct lwm_setting *x = heading + 1; !ends_section(x); x++)
		add_setting(l, v, x);
}

/* Those of each objective in the section of that name. */
static void add_sections(struct list *l, const char *name)
{
	for (const struct lwm_values *v = l->stage->values + 1; v->table; v++) {
		const struct lwm_setting *heading = find_heading(v->table, name);
		if (heading)
			add_section(l, v, heading);
	}
}

/* The common table, with the settings of objectives at LWM_HERE or at the end of a section. */
static void add_common(struct list *l)
{
	const struct lwm_values *common = l->stage->values;
	const char *section = NULL;
	bool done = true; /* objectives have nothing before the first heading */
	for (const struct lwm_setting *x = common->table;; x++) {
		bool here = x->opt.type == LWM_T_HEAD && !x->opt.help;
		if (!done && (here || ends_section(x))) {
			add_sections(l, section);
			done = true;
		}
		if (x->opt.type == LWM_T_END)
			return;
		if (here)
			continue;
		add_setting(l, common, x);
		if (is_heading(x)) {
			section = x->opt.help;
			done = false;
		}
	}
}

int lwm_settings_list(const struct lwm_stage *s, struct lwm_setting_at out[LWM_SETTINGS_MAX])
{
	struct list l = { s, out, 0 };
	add_common(&l);
	for (const struct lwm_values *v = s->values + 1; v->table; v++)
		for (const struct lwm_setting *x = v->table; x->opt.type != LWM_T_END; x++)
			if (is_heading(x) && !find_heading(s->values->table, x->opt.help)) {
				add_setting(&l, v, x);
				add_section(&l, v, x);
			}
	return l.n;
}

/* Two tables cannot have an option of the same name: the second one would never be set. */
static void check_names(const struct lwm_setting_at *list, int n)
{
	for (int i = 0; i < n; i++)
		for (int k = 0; k < i && list[i].set->opt.name; k++)
			LWM_BUG_ON(list[k].set->opt.name && !strcmp(list[k].set->opt.name, list[i].set->opt.name));
}

void lwm_settings_options(const struct lwm_stage *s, struct lwm_opt out[LWM_SETTINGS_MAX])
{
	struct lwm_setting_at list[LWM_SETTINGS_MAX];
	int n = lwm_settings_list(s, list);
	check_names(list, n);
	for (int i = 0; i < n; i++) {
		if (list[i].set->rule & LWM_CLI)
			continue;
		*out = list[i].set->opt;
		out++->dst = list[i].value;
	}
	*out = (struct lwm_opt)LWM_OPT_END;
}

static void reset_value(const struct lwm_setting *x, void *value)
{
	switch (x->opt.type) {
	case LWM_T_FLAG:
		*(bool *)value = x->preset != 0;
		break;
	case LWM_T_INT:
		*(int64_t *)value = (int64_t)x->preset;
		break;
	case LWM_T_DOUBLE:
	case LWM_T_SECONDS:
		*(double *)value = x->preset;
		break;
	case LWM_T_CHOICE:
		*(int *)value = (int)x->preset;
		break;
	case LWM_T_STR:
		*(const char **)value = x->text;
		break;
	case LWM_T_LIST:
		*(struct lwm_paths *)value = (struct lwm_paths){ 0 };
		break;
	default:
		break;
	}
}

void lwm_settings_reset(struct lwm_stage *s)
{
	struct lwm_setting_at list[LWM_SETTINGS_MAX];
	int n = lwm_settings_list(s, list);
	for (int i = 0; i < n; i++)
		reset_value(list[i].set, list[i].value);
}

void lwm_settings_release(struct lwm_stage *s)
{
	struct lwm_setting_at list[LWM_SETTINGS_MAX];
	int n = lwm_settings_list(s, list);
	for (int i = 0; i < n; i++)
		if (list[i].set->opt.type == LWM_T_LIST)
			lwm_paths_release(list[i].value);
}

/* Option names as keys: "seq-length" is "seq_length". */
static void put_key(struct lwm_str *json, const char *name)
{
	lwm_str_puts(json, ",\"");
	for (; *name; name++)
		lwm_str_putc(json, *name == '-' ? '_' : *name);
	lwm_str_puts(json, "\":");
}

void lwm_settings_show(const struct lwm_stage *s, struct lwm_str *json)
{
	struct lwm_setting_at list[LWM_SETTINGS_MAX];
	int n = lwm_settings_list(s, list);
	for (int i = 0; i < n; i++) {
		if (!(list[i].set->rule & LWM_SHOWN))
			continue;
		put_key(json, list[i].set->opt.name);
		if (list[i].set->opt.type == LWM_T_INT)
			lwm_str_printf(json, "%" PRId64, *(const int64_t *)list[i].value);
		else
			lwm_str_printf(json, "%.9g", *(const double *)list[i].value);
	}
}
