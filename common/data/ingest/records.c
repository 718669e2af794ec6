/* Records of text inputs, whatever their format: read one after the other, and encoded, each by itself, on any thread. */
#include <inttypes.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/utf8.h"
#include "common/data/ingest/ingest_int.h"

enum { KEPT = 16 << 10 };

int lwm_reader_open(struct lwm_reader *r, const struct lwm_ingest_cfg *cfg, const char *path, struct lwm_err *e)
{
	const struct lwm_record_format *f = lwm_record_format_of(cfg->format, path);
	*r = (struct lwm_reader){ .cfg = cfg, .path = path, .format = f };
	return lwm_lines_open(&r->l, path, f->longest_line ? f->longest_line(cfg) : lwm_reader_limit(cfg), e);
}

void lwm_reader_close(struct lwm_reader *r)
{
	lwm_lines_close(r->l);
	r->l = NULL;
}

/* Thousands of records wait in a batch: each keeps little memory for the next one that takes its place. */
static void clear_record(struct lwm_record *rec)
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
	clear_record(rec);
	lwm_err_clear(&rec->why);
	rec->fault = NULL;
	rec->malformed = false;
	rec->nth = 0;
	rec->format = r->format;
	return r->format->next(r, rec, e);
}

/* Every malformed byte becomes U+FFFD. */
static int repair_text(struct lwm_str *text, struct lwm_err *e)
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

/* A record's number depends on its file's name and its place there, on nothing else of the run. */
static int64_t number_of(const struct lwm_record *rec, const char *path)
{
	const char *base = lwm_path_base(path);
	return (int64_t)((lwm_hash64(base, strlen(base), 0) + (uint64_t)rec->line + ((uint64_t)rec->nth << 40)) & INT64_MAX);
}

static void filter_record(struct lwm_record *rec, const struct lwm_ingest_cfg *c)
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
	size_t n = rec->text.len, odd = !rec->format->is_text ? n : lwm_text_check(lwm_str_get(&rec->text), n);
	if (odd < n) {
		lwm_record_refuse(rec, "not text");
		lwm_fail(&rec->why, LWM_EDATA, "%s: byte 0x%02x in the record at line %" PRId64 ", byte %zu of it: this is no text", path,
			 (unsigned)(unsigned char)rec->text.s[odd], rec->line, odd);
		return 0;
	}
	bool any_bytes = rec->format->is_text && lwm_tokenizer_is_bytes(c->tokenizer);
	size_t bad = any_bytes ? n : lwm_utf8_check(lwm_str_get(&rec->text), n);
	if (bad < n && c->replace_bad_utf8) {
		LWM_TRY(repair_text(&rec->text, e));
	} else if (bad < n) {
		lwm_record_refuse(rec, "bad utf-8");
		lwm_fail(&rec->why, LWM_EDATA, "%s: malformed UTF-8 in the record at line %" PRId64 ", byte %zu of it",
			 path, rec->line, bad);
		return 0;
	}
	int rc = rec->format->build(rec, c, number_of(rec, path), &rec->why);
	if (rc == -LWM_EDATA && rec->doc.fault) {
		if (rec->nth)
			lwm_context(&rec->why, "%s, record %" PRId64 " that begins at line %" PRId64, path, rec->nth + 1, rec->line);
		else
			lwm_context(&rec->why, "%s, record at line %" PRId64, path, rec->line);
		lwm_record_refuse(rec, rec->doc.fault);
		return 0;
	}
	if (rc < 0) {
		if (e)
			*e = rec->why;
		return rc;
	}
	filter_record(rec, c);
	return 0;
}
