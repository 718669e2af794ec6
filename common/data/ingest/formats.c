/* The formats that text inputs may have. To add one: its struct in a file of its own, as format_jsonl.c has it, and its line at the
 * end of the table. Everything else (what tools look for in folders, names of shards, --format, packed files) follows. */
#include <stdio.h>
#include <string.h>

#include "common/data/ingest/ingest_int.h"

/* X(value of --format, constant of its own file), in the order of lwm_text_format. */
#define TABLE(X) \
	X("text", lwm_format_text) \
	X("jsonl", lwm_format_jsonl) \
	X("json", lwm_format_json)

#define DECLARE(name, format) extern const struct lwm_record_format format;
#define NAME(name, format) name,
#define ADDRESS(name, format) &format,

TABLE(DECLARE)
const char *const lwm_text_format_names[] = { "auto", TABLE(NAME) NULL };
static const struct lwm_record_format *const formats[] = { [LWM_FORMAT_AUTO] = NULL, TABLE(ADDRESS) };
enum { FIRST = LWM_FORMAT_AUTO + 1, FORMATS = sizeof formats / sizeof *formats, SUFFIX = 24 };

/* name ends in a suffix of the format (usual: in its first), or in that and the one of a packing. */
static bool is_named(const struct lwm_record_format *f, const char *name, bool usual)
{
	char end[SUFFIX];
	for (const char *const *s = f->suffixes; *s && (!usual || s == f->suffixes); s++) {
		if (lwm_path_has_suffix(name, *s))
			return true;
		for (int i = 0; lwm_lines_suffix(i); i++) {
			snprintf(end, sizeof end, "%s%s", *s, lwm_lines_suffix(i));
			if (lwm_path_has_suffix(name, end))
				return true;
		}
	}
	return false;
}

enum lwm_text_format lwm_ingest_format(const char *path, bool usual)
{
	for (int i = FIRST; i < FORMATS; i++)
		if (is_named(formats[i], path, usual))
			return (enum lwm_text_format)i;
	return LWM_FORMAT_TEXT;
}

const struct lwm_record_format *lwm_record_format_of(enum lwm_text_format format, const char *path)
{
	return formats[format != LWM_FORMAT_AUTO ? format : lwm_ingest_format(path, false)];
}

int lwm_ingest_find(struct lwm_paths *out, const char *path, bool usual, struct lwm_err *e)
{
	struct lwm_paths made = { 0 };
	const char *ends[128] = { 0 };
	enum { MOST = sizeof ends / sizeof *ends - 1 };
	int rc = 0;
	for (int f = FIRST; f < FORMATS; f++)
		for (const char *const *s = formats[f]->suffixes; *s && rc == 0 && (!usual || s == formats[f]->suffixes); s++) {
			char end[SUFFIX];
			if (formats[f]->named_only)
				break;
			rc = lwm_paths_add(&made, *s, e);
			for (int i = 0; lwm_lines_suffix(i) && rc == 0; i++) {
				snprintf(end, sizeof end, "%s%s", *s, lwm_lines_suffix(i));
				rc = lwm_paths_add(&made, end, e);
			}
		}
	LWM_BUG_ON(made.n > MOST);
	for (int64_t i = 0; i < made.n; i++)
		ends[i] = made.v[i];
	if (rc == 0)
		rc = lwm_paths_expand(out, path, ends, e);
	lwm_paths_release(&made);
	return rc;
}

/* ---- names of shards ---- */

static void cut_suffix(char *name, const char *suffix)
{
	if (lwm_path_has_suffix(name, suffix) && strlen(name) > strlen(suffix))
		name[strlen(name) - strlen(suffix)] = 0;
}

void lwm_record_format_cut(char *name)
{
	for (int i = 0; lwm_lines_suffix(i); i++)
		cut_suffix(name, lwm_lines_suffix(i));
	for (int f = FIRST; f < FORMATS; f++)
		for (const char *const *s = formats[f]->suffixes; *s; s++)
			cut_suffix(name, *s);
}
