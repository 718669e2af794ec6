/* Plain text: a record is a whole file, so many lines of it, or what stands between two separators. */
#include <inttypes.h>
#include <string.h>

#include "common/data/ingest/ingest_int.h"

/* One more line of a text, and the newline before it; false when it would be more than the limit. */
static bool add_line(struct lwm_str *text, const char *s, size_t n, bool first, size_t limit)
{
	size_t gap = first ? 0 : 1, room = text->len < limit ? limit - text->len : 0;
	if (gap > room || n > room - gap)
		return false;
	lwm_str_add(text, "\n", gap);
	lwm_str_add(text, s, n);
	return true;
}

/* Lines up to a separator, a number of lines or the end of the file. */
static int next_text(struct lwm_reader *r, struct lwm_record *rec, struct lwm_err *e)
{
	const struct lwm_ingest_cfg *c = r->cfg;
	size_t limit = lwm_reader_limit(c), n;
	const char *s;
	bool long_line;
	int64_t lines = 0;
	int k;
	rec->line = r->line + 1;
	while ((k = lwm_lines_next(r->l, &s, &n, &long_line, e)) > 0) {
		r->line++;
		if (c->separator && !long_line && n == strlen(c->separator) && !memcmp(s, c->separator, n))
			break;
		if (!rec->fault && (long_line || !add_line(&rec->text, s, n, lines == 0, limit))) {
			lwm_record_refuse(rec, "line too long");
			lwm_fail(&rec->why, LWM_EDATA, "%s:%" PRId64 ": the text is over the limit of %zu bytes", r->path,
				 rec->line, limit);
			lwm_str_release(&rec->text);
		}
		if (++lines == c->split_lines)
			break;
	}
	LWM_TRY(k);
	LWM_TRY(lwm_str_ok(&rec->text, e));
	bool is_one = lines > 0 || k > 0 || !r->any; /* a file without a line is one empty document */
	r->any = true;
	return is_one;
}

/* A separator is not part of a text, and may be longer than a text is allowed to be. */
static size_t longest_line(const struct lwm_ingest_cfg *c)
{
	size_t limit = lwm_reader_limit(c), mark = c->separator ? strlen(c->separator) : 0;
	return mark > limit ? mark : limit;
}

static int build_text(struct lwm_record *rec, const struct lwm_ingest_cfg *c, int64_t number, struct lwm_err *e)
{
	return lwm_fields_text(c->fields, lwm_str_get(&rec->text), rec->text.len, number, &rec->doc, e);
}

static const char *const suffixes[] = { ".txt", NULL };
const struct lwm_record_format lwm_format_text = {
	.suffixes = suffixes,
	.is_text = true,
	.longest_line = longest_line,
	.next = next_text,
	.build = build_text,
};
