/* Real text for needles to hide in: read from files, cut into sentences, counted in tokens. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/utf8.h"
#include "common/data/ingest/ingest.h"
#include "common/eval/needle_eval.h"
#include "common/text/lines.h"

enum { MAX_FILE = 1 << 30 }; /* bytes of all files together, decompressed */

static int add_json(struct lwm_str *text, const char *path, const char *line, size_t n, struct lwm_err *e)
{
	json_t *o;
	const char *s;
	if (n == 0)
		return 0;
	int rc = lwm_json_parse(&o, line, n, path, e);
	if (rc == 0)
		rc = lwm_json_str(o, "text", &s, path, e);
	if (rc == 0) {
		lwm_str_puts(text, s);
		lwm_str_putc(text, '\n');
	}
	json_decref(o);
	return rc;
}

static int add_text(struct lwm_str *text, const char *path, const char *line, size_t n, struct lwm_err *e)
{
	size_t odd = lwm_text_check(line, n);
	if (odd < n)
		return lwm_fail(e, LWM_EDATA, "%s: byte 0x%02x, %zu behind the start of the line: this is no text", path,
				(unsigned)(unsigned char)line[odd], odd);
	lwm_str_add(text, line, n);
	lwm_str_putc(text, '\n');
	return 0;
}

static int add_file(struct lwm_str *text, const char *path, struct lwm_err *e)
{
	struct lwm_lines *l;
	const char *line;
	size_t n;
	bool too_long, is_json = lwm_ingest_format(path, true) == LWM_FORMAT_JSONL;
	int64_t number = 0;
	int rc;
	LWM_TRY(lwm_lines_open(&l, path, MAX_FILE, e));
	while ((rc = lwm_lines_next(l, &line, &n, &too_long, e)) > 0) {
		number++;
		if (too_long || text->len + n > MAX_FILE)
			rc = lwm_fail(e, LWM_EDATA, "%s: more than %d bytes of text", path, MAX_FILE);
		else
			rc = (is_json ? add_json : add_text)(text, path, line, n, e);
		if (rc < 0) {
			rc = lwm_context(e, "line %" PRId64, number);
			break;
		}
	}
	lwm_lines_close(l);
	return rc < 0 ? rc : lwm_str_ok(text, e);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* End of the sentence that begins at `at`: after the blanks that follow its mark. *mark: just after the mark itself. */
static size_t sentence_end(const char *s, size_t n, size_t at, size_t *mark)
{
	while (at < n) {
		char c = s[at++];
		if ((c == '.' || c == '!' || c == '?') && at < n && is_blank(s[at])) {
			*mark = at;
			while (at < n && is_blank(s[at]))
				at++;
			return at;
		}
	}
	*mark = n;
	return n;
}

/* Tokens are counted from mark to mark: a blank makes one piece with the word after it, so counts of sentences that end in
 * their blanks would add up to more than the text has. */
static int cut_sentences(struct lwm_haystack *h, struct lwm_tokenizer *t, struct lwm_err *e)
{
	int64_t cap = 0;
	size_t counted = 0, mark;
	struct lwm_ids ids = { 0 };
	int rc = 0;
	for (size_t at = 0; at < h->text.len;) {
		if (h->n + 2 > cap) {
			cap = cap ? cap * 2 : 1024;
			int64_t *a = realloc(h->start, (size_t)cap * sizeof *a);
			if (a)
				h->start = a;
			int64_t *b = a ? realloc(h->tokens, (size_t)cap * sizeof *b) : NULL;
			if (!b) {
				rc = lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " sentences", cap);
				break;
			}
			h->tokens = b;
			if (h->n == 0)
				h->start[0] = h->tokens[0] = 0;
		}
		size_t end = sentence_end(h->text.s, h->text.len, at, &mark);
		ids.n = 0;
		rc = lwm_tokenizer_encode_rest(t, h->text.s + counted, mark - counted, &ids, e);
		if (rc < 0)
			break;
		counted = mark;
		h->n++;
		h->start[h->n] = (int64_t)end;
		h->tokens[h->n] = h->tokens[h->n - 1] + ids.n;
		at = end;
	}
	lwm_ids_release(&ids);
	return rc;
}

int lwm_haystack_read(struct lwm_haystack *h, const struct lwm_paths *files, struct lwm_tokenizer *t, struct lwm_err *e)
{
	struct lwm_paths found = { 0 };
	int rc = 0;
	memset(h, 0, sizeof *h);
	for (int64_t i = 0; rc == 0 && i < files->n; i++)
		rc = lwm_ingest_find(&found, files->v[i], true, e);
	for (int64_t i = 0; rc == 0 && i < found.n; i++)
		rc = add_file(&h->text, found.v[i], e);
	lwm_paths_release(&found);
	if (rc == 0)
		rc = cut_sentences(h, t, e);
	if (rc == 0 && h->n < 2)
		rc = lwm_fail(e, LWM_EDATA, "the haystack holds no sentences (text that ends in . ! or ?)");
	if (rc == 0)
		h->hash = lwm_hash_bytes(h->text.s, h->text.len);
	if (rc < 0)
		lwm_haystack_release(h);
	return rc;
}

void lwm_haystack_release(struct lwm_haystack *h)
{
	lwm_str_release(&h->text);
	free(h->start);
	free(h->tokens);
	memset(h, 0, sizeof *h);
}
