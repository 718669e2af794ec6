/* jsonl_check.c - JSON lines that carry a check of themselves: written, and read back with every line compared. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/path.h"

#define MARK ",\"check\":\""
enum { MARK_N = sizeof MARK - 1, DIGITS = 16, TAIL = MARK_N + DIGITS + 2 /* the digits' quote, the object's brace */ };
#define LIMIT (1LL << 32)

static void digits_of(const char *text, size_t n, char out[DIGITS + 1])
{
	snprintf(out, DIGITS + 1, "%016" PRIx64, lwm_hash64(text, n, 0));
}

int lwm_jsonl_seal(struct lwm_str *line, struct lwm_err *e)
{
	char digits[DIGITS + 1];
	LWM_TRY(lwm_str_ok(line, e));
	if (line->len < 3 || line->s[0] != '{' || line->s[line->len - 1] != '}')
		return lwm_fail(e, LWM_EINTERNAL, "a line that is no object cannot carry a check");
	digits_of(line->s, line->len, digits);
	line->s[--line->len] = 0;
	lwm_str_printf(line, MARK "%s\"}", digits);
	return lwm_str_ok(line, e);
}

static bool is_marked(const char *s, size_t n)
{
	return n > TAIL && !memcmp(s + n - TAIL, MARK, MARK_N) && !memcmp(s + n - 2, "\"}", 2);
}

/* The brace of the text without the member is put where the member begins for the while, so that nothing is copied. */
static bool check_fits(char *s, size_t n)
{
	char digits[DIGITS + 1], *at = s + n - TAIL, kept = *at;
	*at = '}';
	digits_of(s, (size_t)(at + 1 - s), digits);
	*at = kept;
	return !memcmp(digits, at + MARK_N, DIGITS);
}

struct lines {
	char *text;
	size_t n;
	bool sealed;
	lwm_jsonl_fn *each;
	void *ctx;
};

static char *end_of(const struct lines *l, char *s)
{
	return memchr(s, '\n', l->n - (size_t)(s - l->text));
}

static bool any_marked(const struct lines *l)
{
	char *end;
	for (char *s = l->text; (end = end_of(l, s)); s = end + 1)
		if (is_marked(s, (size_t)(end - s)))
			return true;
	return l->n == 0 || !end_of(l, l->text); /* no line yet */
}

static int read_line(const struct lines *l, char *s, size_t n, int64_t line, struct lwm_err *e)
{
	json_t *o = NULL;
	if (l->sealed && !is_marked(s, n))
		return lwm_fail(e, LWM_EDATA, "it has no check, and other lines of the file have");
	if (l->sealed && !check_fits(s, n))
		return lwm_fail(e, LWM_EDATA, "damaged: it does not fit the check that it carries");
	LWM_TRY(lwm_json_parse(&o, s, n, "JSON", e));
	int rc = !l->sealed && json_object_get(o, "check") ? lwm_fail(e, LWM_EDATA, "damaged: its check is malformed")
							    : l->each(l->ctx, o, line, e);
	json_decref(o);
	return rc;
}

int lwm_jsonl_read(const char *path, const char *remedy, bool *sealed, lwm_jsonl_fn *each, void *ctx, struct lwm_err *e)
{
	struct lines l = { .each = each, .ctx = ctx };
	int64_t line = 0;
	char *end;
	*sealed = true;
	int rc = lwm_path_there(path, e);
	if (rc <= 0)
		return rc;
	LWM_TRY(lwm_read_file(path, LIMIT, &l.text, &l.n, e));
	*sealed = l.sealed = any_marked(&l);
	rc = 0;
	for (char *s = l.text; rc == 0 && (end = end_of(&l, s)); s = end + 1) {
		rc = read_line(&l, s, (size_t)(end - s), ++line, e);
		if (rc == -LWM_EDATA)
			lwm_context(e, "%s, line %" PRId64 " (%s)", path, line, remedy);
		else if (rc < 0)
			lwm_context(e, "%s, line %" PRId64, path, line);
	}
	free(l.text);
	return rc;
}
