/* JSON lines: each line is a record, blank ones are none. */
#include <inttypes.h>

#include "common/base/json.h"
#include "common/data/ingest/ingest_int.h"

static bool blank(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] != ' ' && s[i] != '\t')
			return false;
	return true;
}

static int next_line(struct lwm_reader *r, struct lwm_record *rec, struct lwm_err *e)
{
	const char *s;
	size_t n;
	bool long_line;
	int k;
	while ((k = lwm_lines_next(r->l, &s, &n, &long_line, e)) > 0) {
		r->line++;
		if (!long_line && blank(s, n))
			continue;
		rec->line = r->line;
		if (long_line) {
			lwm_record_refuse(rec, "line too long");
			lwm_fail(&rec->why, LWM_EDATA, "%s:%" PRId64 ": the line is over the limit of %zu bytes", r->path,
				 r->line, lwm_reader_limit(r->cfg));
		}
		lwm_str_add(&rec->text, s, n);
		return lwm_str_ok(&rec->text, e) < 0 ? -LWM_EMEMORY : 1;
	}
	return k;
}

int lwm_record_build_object(struct lwm_record *rec, const struct lwm_ingest_cfg *c, int64_t number, struct lwm_err *e)
{
	json_t *o;
	int rc = lwm_json_parse_record(&o, lwm_str_get(&rec->text), rec->text.len, "JSON", e);
	if (rc < 0) {
		rec->doc.fault = "bad json";
		return rc;
	}
	rc = lwm_fields_build(c->fields, o, number, &rec->doc, e);
	json_decref(o);
	return rc;
}

static const char *const suffixes[] = { ".jsonl", ".ndjson", NULL };
const struct lwm_record_format lwm_format_jsonl = {
	.suffixes = suffixes,
	.next = next_line,
	.build = lwm_record_build_object,
};
