#include <inttypes.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/utf8.h"
#include "common/data/ingest/ingest_int.h"

enum { MAX_BYTES = 256 << 20, KEPT = 16 << 10 };

static bool is_jsonl(const char *path)
{
	static const char *const ends[] = { ".jsonl", ".jsonl.gz", ".jsonl.zst",
					    ".ndjson", ".ndjson.gz", ".ndjson.zst" };
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
		if (lwm_path_has_suffix(path, ends[i]))
			return true;
	return false;
}

static size_t limit_of(const struct lwm_ingest_cfg *c)
{
	return (size_t)(c->max_bytes > 0 ? c->max_bytes : MAX_BYTES);
}

int lwm_reader_open(struct lwm_reader *r, const struct lwm_ingest_cfg *cfg, const char *path, struct lwm_err *e)
{
	size_t limit = limit_of(cfg), mark = cfg->separator ? strlen(cfg->separator) : 0;
	*r = (struct lwm_reader){ .cfg = cfg, .path = path };
	r->json = cfg->format == LWM_FORMAT_AUTO ? is_jsonl(path) : cfg->format == LWM_FORMAT_JSONL;
	/* a separator is none of the text and may be longer */
	return lwm_lines_open(&r->l, path, !r->json && mark > limit ? mark : limit, e);
}

void lwm_reader_close(struct lwm_reader *r)
{
	lwm_lines_close(r->l);
	r->l = NULL;
}

static void refuse(struct lwm_record *rec, const char *fault)
{
	rec->fault = fault;
	rec->malformed = true;
}

static bool blank(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] != ' ' && s[i] != '\t')
			return false;
	return true;
}

static int next_json(struct lwm_reader *r, struct lwm_record *rec, struct lwm_err *e)
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
			refuse(rec, "line too long");
			lwm_fail(&rec->why, LWM_EDATA, "%s:%" PRId64 ": the line is over the limit of %zu bytes", r->path,
				 r->line, limit_of(r->cfg));
		}
		lwm_str_add(&rec->text, s, n);
		return lwm_str_ok(&rec->text, e) < 0 ? -LWM_EMEMORY : 1;
	}
	return k;
}

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
	size_t limit = limit_of(c), n;
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
			refuse(rec, "line too long");
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

/* Thousands of records wait in a batch: each keeps little memory for the next one that takes its place. */
static void empty(struct lwm_record *rec)
{
	lwm_str_reset(&rec->text);
	lwm_docbuf_reset(&rec->doc);
	if (rec->text.cap > KEPT)
		lwm_str_release(&rec->text);
	if (rec->doc.ids.cap > KEPT / 4 || rec->doc.runs_cap > KEPT / 16)
		lwm_docbuf_release(&rec->doc);
}

int lwm_reader_next(struct lwm_reader *r, struct lwm_record *rec, struct lwm_err *e)
{
	empty(rec);
	lwm_err_clear(&rec->why);
	rec->fault = NULL;
	rec->malformed = false;
	rec->json = r->json;
	return r->json ? next_json(r, rec, e) : next_text(r, rec, e);
}

/* Every malformed byte becomes U+FFFD. */
static int repair(struct lwm_str *text, struct lwm_err *e)
{
	struct lwm_str out = { 0 };
	for (size_t i = 0; i < text->len;) {
		size_t good = lwm_utf8_check(text->s + i, text->len - i);
		lwm_str_add(&out, text->s + i, good);
		i += good;
		if (i < text->len) {
			lwm_str_puts(&out, "\xef\xbf\xbd");
			i++;
		}
	}
	lwm_str_release(text);
	*text = out;
	return lwm_str_ok(text, e);
}

static int build(struct lwm_record *rec, const struct lwm_ingest_cfg *c, const char *path, struct lwm_err *e)
{
	const char *base = lwm_path_base(path);
	int64_t number = (int64_t)((lwm_hash64(base, strlen(base), 0) + (uint64_t)rec->line) & INT64_MAX);
	const char *text = lwm_str_get(&rec->text);
	json_t *o;
	if (!rec->json)
		return lwm_fields_text(c->fields, text, rec->text.len, number, &rec->doc, e);
	int rc = lwm_json_parse_record(&o, text, rec->text.len, "JSON", e);
	if (rc < 0) {
		rec->doc.fault = "bad json";
		return rc;
	}
	rc = lwm_fields_build(c->fields, o, number, &rec->doc, e);
	json_decref(o);
	return rc;
}

static void filter(struct lwm_record *rec, const struct lwm_ingest_cfg *c)
{
	int32_t bos = lwm_tokenizer_bos(c->tokenizer), eos = lwm_tokenizer_eos(c->tokenizer);
	int64_t n = rec->doc.ids.n, content = 0;
	for (int64_t i = 0; i < n && !content; i++)
		content += rec->doc.ids.v[i] != bos && rec->doc.ids.v[i] != eos;
	if (!content)
		rec->fault = "empty";
	else if (n < c->min_tokens)
		rec->fault = "too short";
	else if (c->max_tokens > 0 && n > c->max_tokens)
		rec->fault = "too long";
}

int lwm_record_encode(struct lwm_record *rec, const struct lwm_ingest_cfg *c, const char *path, struct lwm_err *e)
{
	if (rec->fault)
		return 0;
	size_t n = rec->text.len, odd = rec->json ? n : lwm_text_check(lwm_str_get(&rec->text), n);
	if (odd < n) {
		refuse(rec, "not text");
		lwm_fail(&rec->why, LWM_EDATA, "%s: byte 0x%02x in the record at line %" PRId64 ", byte %zu of it: this is no text", path,
			 (unsigned)(unsigned char)rec->text.s[odd], rec->line, odd);
		return 0;
	}
	bool any_bytes = !rec->json && lwm_tokenizer_is_bytes(c->tokenizer);
	size_t bad = any_bytes ? n : lwm_utf8_check(lwm_str_get(&rec->text), n);
	if (bad < n && c->replace_bad_utf8) {
		LWM_TRY(repair(&rec->text, e));
	} else if (bad < n) {
		refuse(rec, "bad utf-8");
		lwm_fail(&rec->why, LWM_EDATA, "%s: malformed UTF-8 in the record at line %" PRId64 ", byte %zu of it",
			 path, rec->line, bad);
		return 0;
	}
	int rc = build(rec, c, path, &rec->why);
	if (rc == -LWM_EDATA && rec->doc.fault) {
		lwm_context(&rec->why, "%s, record at line %" PRId64, path, rec->line);
		refuse(rec, rec->doc.fault);
		return 0;
	}
	if (rc < 0) {
		if (e)
			*e = rec->why;
		return rc;
	}
	filter(rec, c);
	return 0;
}
