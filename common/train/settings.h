/* settings.h - one table says all of a setting: its option, where its value lies, its default, whether it may change on the way.
 *
 * The settings common to all stages (stage.c) and those of each objective (its own file) are such tables. Options of the program,
 * defaults, --print-config, records in checkpoints and the start line of metrics.jsonl are all made from them:
 *
 *	#define SET(field, rule, preset, ...) LWM_SETTING(struct lwm_next_token, field, rule, preset, __VA_ARGS__)
 *	static const struct lwm_setting settings[] = {
 *		LWM_SECTION("Data"),
 *		SET(seq_length, LWM_FIXED | LWM_SHOWN, 0, LWM_OPT_INT(0, "seq-length", NULL, 2, 1 << 30, "N", "tokens in a row", 0)),
 *		LWM_SETTINGS_END };
 *
 * A setting of an objective appears in --help in the common section of the same name, where that has its LWM_HERE, or at its end; a
 * section that the common table lacks comes after all others. All functions are local.
 */
#ifndef LWM_TRAIN_SETTINGS_H
#define LWM_TRAIN_SETTINGS_H

#include <jansson.h>
#include <stddef.h>

#include "common/base/str.h"
#include "common/cli/opt.h"

/* May a resumed run have another value? Flags may be added to a rule. */
enum lwm_setting_rule {
	LWM_UNRECORDED, /* not in the record: it does not describe the run */
	LWM_FREE,       /* speed, memory, records: never what is computed beyond rounding */
	LWM_ROUNDED,    /* decides rounding: free, unless sums are canonical (--sum-order) before or after; then as the next */
	LWM_FIXED,      /* decides what is computed: no, unless allowed by name */
	LWM_CURVED,     /* decides it when the learning rate is not constant */
	LWM_LENGTH,     /* the same, where no --decay-steps stand for it */
	LWM_MODEL,      /* of the model: the configurations are compared instead (save.c) */
	LWM_RULES = 15,
	LWM_SHOWN = 16, /* the start line of metrics.jsonl has it */
	LWM_CLI = 32    /* every tool has this option: it is recorded, but no option of this table */
};

struct lwm_setting {
	struct lwm_opt opt; /* name, type, range, help; dst is not used */
	size_t at;          /* where the value lies in the struct of the table */
	unsigned rule;      /* enum lwm_setting_rule */
	double preset;      /* default of a number, flag or choice */
	const char *text;   /* default of a text; NULL: unset */
};
#define LWM_SETTING(type, field, how, number, ...) \
	{ .opt = __VA_ARGS__, .at = offsetof(type, field), .rule = how, .preset = number }
#define LWM_SETTING_TEXT(type, field, how, string, ...) \
	{ .opt = __VA_ARGS__, .at = offsetof(type, field), .rule = how, .text = string }
#define LWM_SECTION(name) { .opt = LWM_OPT_HEAD(name) }
#define LWM_HERE { .opt = LWM_OPT_HEAD(NULL) }
#define LWM_SETTINGS_END { .opt = LWM_OPT_END }

struct lwm_stage;
/* A table and the struct that holds its values. A stage has a list of them, the common ones first, up to table NULL. */
struct lwm_values {
	const struct lwm_setting *table;
	void *at; /* NULL: the stage itself */
};
/* The struct of a table: how an objective finds its settings in a stage. NULL: the stage has none of it. */
void *lwm_settings_of(const struct lwm_stage *s, const struct lwm_setting *table);

/* One setting of a stage. */
struct lwm_setting_at {
	const struct lwm_setting *set;
	void *value; /* bool, int64_t, double, const char *, int (index), struct lwm_paths: as the dst of an option */
};
enum { LWM_SETTINGS_MAX = 256 }; /* of all tables together, section headings and the end included */
/* All settings and headings in the order of --help, without LWM_HERE and ends. Returns how many. */
int lwm_settings_list(const struct lwm_stage *s, struct lwm_setting_at out[LWM_SETTINGS_MAX]);

/* The options of all tables, for lwm_tool_main, which stores what is given into the stage. */
void lwm_settings_options(const struct lwm_stage *s, struct lwm_opt out[LWM_SETTINGS_MAX]);
/* Gives every setting its default; lists are empty. */
void lwm_settings_reset(struct lwm_stage *s);
/* Frees the lists. */
void lwm_settings_release(struct lwm_stage *s);
/* Appends ,"key":value for each setting that is LWM_SHOWN. */
void lwm_settings_show(const struct lwm_stage *s, struct lwm_str *json);

#endif
