/* node.c - values of a YAML tree, read by type; keys that nobody asked for. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/num.h"
#include "common/cli/yaml_int.h"

enum { MAX_ASKED = 256 };

int64_t lwm_node_find(const struct lwm_node *m, const char *key, size_t len)
{
	for (int64_t i = 0; i < m->n; i++)
		if (!strncmp(m->child[i]->key, key, len) && !m->child[i]->key[len])
			return i;
	return -1;
}

static void note_asked(struct lwm_node *m, const char *key)
{
	for (int i = 0; i < m->nasked; i++)
		if (!strcmp(m->asked[i], key))
			return;
	if (!m->asked)
		m->asked = lwm_arena_alloc(&m->doc->arena, MAX_ASKED * sizeof *m->asked);
	if (m->asked && m->nasked < MAX_ASKED)
		m->asked[m->nasked++] = key;
}

struct lwm_node *lwm_node_get(struct lwm_node *m, const char *key)
{
	int64_t i;
	if (!m || m->kind != LWM_MAP)
		return NULL;
	note_asked(m, key);
	i = lwm_node_find(m, key, strlen(key));
	if (i < 0)
		return NULL;
	m->child[i]->seen = true;
	return m->child[i];
}

int lwm_node_fail(const struct lwm_node *n, int code, struct lwm_err *e, const char *fmt, ...)
{
	char text[896];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return lwm_fail(e, code, "%s:%d: %s%s%s", n->file, n->line, n->key ? n->key : "", n->key ? ": " : "", text);
}

int lwm_node_kind_is(const struct lwm_node *n, enum lwm_node_kind kind, struct lwm_err *e)
{
	static const char *const names[] = { "a plain value", "a map", "a list" };
	if (n->kind == kind)
		return 0;
	return lwm_node_fail(n, LWM_EUSAGE, e, "expected %s, found %s", names[kind], names[n->kind]);
}

/* The scalar under key: 1 with *out and the place for messages, 0 when absent, negative when it is no scalar. */
static int find_scalar(struct lwm_node *m, const char *key, struct lwm_node **out, char *what, size_t size,
		  struct lwm_err *e)
{
	*out = lwm_node_get(m, key);
	if (!*out)
		return 0;
	LWM_TRY(lwm_node_kind_is(*out, LWM_SCALAR, e));
	snprintf(what, size, "%s:%d: %s", (*out)->file, (*out)->line, key);
	return 1;
}

int lwm_node_bool(struct lwm_node *m, const char *key, bool *out, struct lwm_err *e)
{
	struct lwm_node *n;
	char what[512];
	int rc = find_scalar(m, key, &n, what, sizeof what, e);
	return rc <= 0 ? rc : lwm_parse_bool(n->text, out, what, e);
}

int lwm_node_seconds(struct lwm_node *m, const char *key, double *out, struct lwm_err *e)
{
	struct lwm_node *n;
	char what[512];
	int rc = find_scalar(m, key, &n, what, sizeof what, e);
	return rc <= 0 ? rc : lwm_parse_seconds(n->text, out, what, e);
}

int lwm_node_choice(struct lwm_node *m, const char *key, const char *const *choices, int *out, struct lwm_err *e)
{
	struct lwm_node *n;
	char what[512], list[384] = "";
	size_t len = 0;
	int rc = find_scalar(m, key, &n, what, sizeof what, e);
	if (rc <= 0)
		return rc;
	for (int i = 0; choices[i]; i++) {
		if (!strcmp(choices[i], n->text)) {
			*out = i;
			return 0;
		}
		if (len < sizeof list)
			len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", i ? ", " : "", choices[i]);
	}
	return lwm_fail(e, LWM_EUSAGE, "%s: '%s' is none of %s", what, n->text, list);
}

int lwm_node_need(struct lwm_node *m, const char *key, struct lwm_node **out, struct lwm_err *e)
{
	*out = lwm_node_get(m, key);
	if (*out)
		return 0;
	return lwm_node_fail(m, LWM_EUSAGE, e, "'%s' is missing here", key);
}

static int unknown_key(const struct lwm_node *m, const struct lwm_node *n, struct lwm_err *e)
{
	char hint[LWM_HINT];
	return lwm_fail(e, LWM_EUSAGE, "%s:%d: unknown key '%s'%s", n->file, n->line, n->key,
			lwm_hint(hint, n->key, m->asked, m->nasked));
}

int lwm_node_done(struct lwm_node *m, struct lwm_err *e)
{
	bool whole = m->kind == LWM_MAP && m->nasked == 0;
	for (int64_t i = 0; i < m->n && !whole; i++) {
		struct lwm_node *n = m->child[i];
		if (m->kind == LWM_MAP && !n->seen)
			return unknown_key(m, n, e);
		if (n->kind != LWM_SCALAR)
			LWM_TRY(lwm_node_done(n, e));
	}
	return 0;
}
