/* Field strings, read: "[a+b],vision,c" is a list of elements, each of one or more keys, with loss or (in brackets) without. */
#include "common/data/ingest/fields_int.h"

#include <string.h>

enum { LAYOUT_MOST = 64 << 10 }; /* the string may come with each record */

/* A copy without the spaces around it. */
static char *trimmed(struct lwm_arena **mem, const char *s, size_t n)
{
	while (n && (*s == ' ' || *s == '\t'))
		s++, n--;
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	return lwm_arena_printf(mem, "%.*s", (int)n, s);
}

static int64_t count(const char *s, char c)
{
	int64_t n = 0;
	for (; *s; s++)
		n += *s == c;
	return n;
}

static int parse_keys(struct lwm_element *el, const char *body, const char *text, struct lwm_arena **mem,
		      struct lwm_err *e)
{
	int64_t n = count(body, '+') + 1;
	el->key = lwm_arena_alloc(mem, (size_t)n * sizeof *el->key);
	if (!el->key)
		return lwm_fields_no_memory(e);
	for (const char *s = body; el->nkeys < n; el->nkeys++) {
		size_t len = strcspn(s, "+");
		char *key = trimmed(mem, s, len);
		if (!key)
			return lwm_fields_no_memory(e);
		if (!*key)
			return lwm_fail(e, LWM_ECONFIG, "fields '%s': an empty name", text);
		if (n > 1 && (!lwm_element_kind_of(key)->joins || !strncmp(key, "<|", 2)))
			return lwm_fail(e, LWM_ECONFIG, "fields '%s': '%s' cannot be joined by +", text, key);
		el->key[el->nkeys] = key;
		s += len + 1;
	}
	return 0;
}

static int parse_element(struct lwm_element *el, const char *s, size_t n, const char *text, struct lwm_arena **mem,
			 struct lwm_err *e)
{
	char *body = trimmed(mem, s, n);
	if (!body)
		return lwm_fields_no_memory(e);
	size_t len = strlen(body);
	el->loss = body[0] != '[';
	if (!el->loss && body[len - 1] == ']') {
		body[len - 1] = 0;
		body++;
	}
	if (strpbrk(body, "[]"))
		return lwm_fail(e, LWM_ECONFIG, "fields '%s': brackets go around one element, between commas", text);
	LWM_TRY(parse_keys(el, body, text, mem, e));
	el->kind = lwm_element_kind_of(el->key[0]);
	return 0;
}

int lwm_layout_parse(struct lwm_layout *l, const char *text, struct lwm_arena **mem, struct lwm_err *e)
{
	if (strlen(text) > LAYOUT_MOST)
		return lwm_fail(e, LWM_ECONFIG, "fields '%.40s...' are longer than %d bytes", text, LAYOUT_MOST);
	int64_t n = count(text, ',') + 1;
	l->n = 0;
	l->v = lwm_arena_alloc(mem, (size_t)n * sizeof *l->v);
	if (!l->v)
		return lwm_fields_no_memory(e);
	for (const char *s = text; l->n < n; l->n++) {
		size_t len = strcspn(s, ",");
		LWM_TRY(parse_element(&l->v[l->n], s, len, text, mem, e));
		s += len + 1;
	}
	return 0;
}
