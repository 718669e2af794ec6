/* JSON files that are one list of objects, as chat data sets are published: each object is a record, wherever lines end in it or
 * between them. The file is read byte by byte, never whole: a record ends with the brace that closes it. Objects one after the
 * other, without a list around them, are read as well. What stands between objects and is neither white space, comma nor bracket is
 * a malformed record; a quote that is not closed makes one of all that follows. */
#include <inttypes.h>

#include "common/data/ingest/ingest_int.h"

/* The next byte, and lines counted: 1, 0 at the end, negative. */
static int next_byte(struct lwm_reader *r, char *c, struct lwm_err *e)
{
	if (!r->nrest) {
		int k = lwm_lines_bytes(r->l, &r->rest, &r->nrest, e);
		if (k <= 0)
			return k;
	}
	*c = *r->rest++;
	r->nrest--;
	r->line += *c == '\n';
	return 1;
}

static void begin_record(struct lwm_reader *r, struct lwm_record *rec)
{
	rec->line = r->line + 1;
	r->nth = r->any && rec->line == r->last_line ? r->nth + 1 : 0;
	r->last_line = rec->line;
	r->any = true;
	rec->nth = r->nth;
}

/* One more byte of a record, up to the limit. */
static void add_byte(struct lwm_reader *r, struct lwm_record *rec, char c)
{
	size_t limit = lwm_reader_limit(r->cfg);
	if (rec->fault)
		return;
	if (rec->text.len < limit) {
		lwm_str_putc(&rec->text, c);
		return;
	}
	lwm_record_refuse(rec, "line too long");
	lwm_fail(&rec->why, LWM_EDATA, "%s:%" PRId64 ": the record is over the limit of %zu bytes", r->path, rec->line, limit);
	lwm_str_release(&rec->text);
}

/* From the opening brace, which is *c, to the one that closes it. */
static int read_object(struct lwm_reader *r, struct lwm_record *rec, char c, struct lwm_err *e)
{
	int64_t depth = 0;
	bool quoted = false, escaped = false;
	int k = 1;
	begin_record(r, rec);
	do {
		add_byte(r, rec, c);
		if (escaped)
			escaped = false;
		else if (quoted && c == '\\')
			escaped = true;
		else if (c == '"')
			quoted = !quoted;
		else if (!quoted)
			depth += (c == '{') - (c == '}');
	} while (depth > 0 && (k = next_byte(r, &c, e)) > 0);
	LWM_TRY(k);
	if (depth > 0 && !rec->fault) {
		lwm_record_refuse(rec, "bad json");
		lwm_fail(&rec->why, LWM_EDATA, "%s: the file ends in the record that begins at line %" PRId64, r->path, rec->line);
	}
	return lwm_str_ok(&rec->text, e) < 0 ? -LWM_EMEMORY : 1;
}

/* Up to the brace that opens the next record. */
static int skip_rubbish(struct lwm_reader *r, struct lwm_record *rec, struct lwm_err *e)
{
	char c;
	int k;
	begin_record(r, rec);
	while ((k = next_byte(r, &c, e)) > 0)
		if (c == '{') {
			r->rest--;
			r->nrest++;
			break;
		}
	LWM_TRY(k);
	lwm_record_refuse(rec, "bad json");
	lwm_fail(&rec->why, LWM_EDATA, "%s:%" PRId64 ": something else than an object in a list of them", r->path, rec->line);
	return 1;
}

static int next_object(struct lwm_reader *r, struct lwm_record *rec, struct lwm_err *e)
{
	char c;
	int k;
	while ((k = next_byte(r, &c, e)) > 0) {
		if (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ',' || c == '[' || c == ']')
			continue;
		return c == '{' ? read_object(r, rec, c, e) : skip_rubbish(r, rec, e);
	}
	return k;
}

static const char *const suffixes[] = { ".json", NULL };
const struct lwm_record_format lwm_format_json = {
	.suffixes = suffixes,
	.named_only = true,
	.next = next_object,
	.build = lwm_record_build_object,
};
