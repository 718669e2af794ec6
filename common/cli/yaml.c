/* yaml.c - libyaml's events become a tree, under limits: size, depth, number of values and keys; nothing that refers to another
 * place.
 *
 * No recursion: the maps and lists that are open lie on a stack of MAX_DEPTH.
 */
#include "common/cli/yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/base/path.h"
#include "common/cli/yaml_int.h"

enum { MAX_BYTES = 1 << 20, MAX_DEPTH = 64, MAX_NODES = 100000, MAX_KEYS = 4096 };

struct reader {
	struct lwm_yaml *y;
	yaml_parser_t parser;
	const char *name;
	struct lwm_node *stack[MAX_DEPTH]; /* open maps and lists */
	int depth;
	const char *key; /* of the map on top, read but still without a value */
	struct lwm_node *root;
	struct lwm_err *e;
};

static int fail_at(struct reader *r, const yaml_mark_t *at, const char *what)
{
	return lwm_fail(r->e, LWM_EUSAGE, "%s:%zu:%zu: %s", r->name, at->line + 1, at->column + 1, what);
}

static struct lwm_node *node_new(struct lwm_yaml *y, enum lwm_node_kind kind, const char *file, struct lwm_err *e)
{
	struct lwm_node *n = NULL;
	if (++y->nodes > MAX_NODES) {
		lwm_fail(e, LWM_EUSAGE, "%s: more than %d values", file, MAX_NODES);
		return NULL;
	}
	n = lwm_arena_alloc(&y->arena, sizeof *n);
	if (!n) {
		lwm_fail_memory(e, file);
		return NULL;
	}
	n->kind = kind;
	n->file = file;
	n->text = "";
	n->doc = y;
	return n;
}

static int node_append(struct lwm_node *parent, struct lwm_node *n, struct lwm_err *e)
{
	bool full = parent->n == 0 || (parent->n >= 8 && (parent->n & (parent->n - 1)) == 0);
	if (parent->n == 0 || full) {
		size_t cap = parent->n ? (size_t)parent->n * 2 : 8;
		struct lwm_node **v = lwm_arena_alloc(&parent->doc->arena, cap * sizeof(struct lwm_node *));
		if (!v)
			return lwm_fail_memory(e, parent->file);
		if (parent->n)
			memcpy(v, parent->child, (size_t)parent->n * sizeof(struct lwm_node *));
		parent->child = v;
	}
	parent->child[parent->n++] = n;
	return 0;
}

/* Hangs a finished or just opened node where the reader stands. */
static int place_node(struct reader *r, struct lwm_node *n)
{
	struct lwm_node *top = r->depth ? r->stack[r->depth - 1] : NULL;
	if (!top) {
		r->root = n;
		return 0;
	}
	n->key = r->key;
	r->key = NULL;
	return node_append(top, n, r->e);
}

static int read_key(struct reader *r, const char *text, size_t len, const yaml_mark_t *at)
{
	struct lwm_node *top = r->stack[r->depth - 1];
	char what[160];
	int64_t i;
	if (len == 0)
		return fail_at(r, at, "a key is empty");
	if (top->n >= MAX_KEYS)
		return fail_at(r, at, "too many keys in one map");
	i = lwm_node_find(top, text, len);
	if (i >= 0) {
		snprintf(what, sizeof what, "key '%.80s' was already given in line %d", text, top->child[i]->line);
		return fail_at(r, at, what);
	}
	r->key = lwm_arena_strdup(&r->y->arena, text);
	return r->key ? 0 : lwm_fail_memory(r->e, r->name);
}

static bool is_null(const char *s)
{
	return !strcmp(s, "~") || !strcmp(s, "null") || !strcmp(s, "Null") || !strcmp(s, "NULL");
}

static int on_scalar(struct reader *r, const yaml_event_t *ev)
{
	const char *text = (const char *)ev->data.scalar.value;
	size_t len = ev->data.scalar.length;
	struct lwm_node *n;
	if (ev->data.scalar.anchor || ev->data.scalar.tag)
		return fail_at(r, &ev->start_mark, "anchors and tags are not allowed");
	if (strlen(text) != len)
		return fail_at(r, &ev->start_mark, "a zero byte in a value");
	if (r->depth && r->stack[r->depth - 1]->kind == LWM_MAP && !r->key)
		return read_key(r, text, len, &ev->start_mark);
	n = node_new(r->y, LWM_SCALAR, r->name, r->e);
	if (!n)
		return r->e->code;
	n->line = (int)ev->start_mark.line + 1;
	n->column = (int)ev->start_mark.column + 1;
	n->quoted = ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	if (n->quoted || !is_null(text))
		n->text = lwm_arena_strdup(&r->y->arena, text);
	if (!n->text)
		return lwm_fail_memory(r->e, r->name);
	return place_node(r, n);
}

static int on_open(struct reader *r, const yaml_event_t *ev, enum lwm_node_kind kind, bool marked)
{
	struct lwm_node *n;
	if (marked)
		return fail_at(r, &ev->start_mark, "anchors and tags are not allowed");
	if (r->depth && r->stack[r->depth - 1]->kind == LWM_MAP && !r->key)
		return fail_at(r, &ev->start_mark, "a key must be a plain word");
	if (r->depth == MAX_DEPTH)
		return fail_at(r, &ev->start_mark, "nested more than 64 deep");
	n = node_new(r->y, kind, r->name, r->e);
	if (!n)
		return r->e->code;
	n->line = (int)ev->start_mark.line + 1;
	n->column = (int)ev->start_mark.column + 1;
	LWM_TRY(place_node(r, n));
	r->stack[r->depth++] = n;
	return 0;
}

static int on_document(struct reader *r, const yaml_event_t *ev)
{
	if (r->root)
		return fail_at(r, &ev->start_mark, "a second document (only one is read)");
	if (ev->data.document_start.tag_directives.start != ev->data.document_start.tag_directives.end)
		return fail_at(r, &ev->start_mark, "anchors and tags are not allowed");
	return 0;
}

static int on_event(struct reader *r, const yaml_event_t *ev)
{
	switch (ev->type) {
	case YAML_SCALAR_EVENT:
		return on_scalar(r, ev);
	case YAML_MAPPING_START_EVENT:
		return on_open(r, ev, LWM_MAP, ev->data.mapping_start.anchor || ev->data.mapping_start.tag);
	case YAML_SEQUENCE_START_EVENT:
		return on_open(r, ev, LWM_SEQ, ev->data.sequence_start.anchor || ev->data.sequence_start.tag);
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		r->depth--;
		return 0;
	case YAML_ALIAS_EVENT:
		return fail_at(r, &ev->start_mark, "aliases are not allowed");
	case YAML_DOCUMENT_START_EVENT:
		return on_document(r, ev);
	default:
		return 0;
	}
}

static int syntax_error(struct reader *r)
{
	const yaml_parser_t *p = &r->parser;
	const char *problem = p->problem ? p->problem : "not YAML";
	if (p->error == YAML_MEMORY_ERROR)
		return lwm_fail_memory(r->e, r->name);
	if (p->error == YAML_READER_ERROR)
		return lwm_fail(r->e, LWM_EUSAGE, "%s: %s at byte %zu", r->name, problem, p->problem_offset);
	return lwm_fail(r->e, LWM_EUSAGE, "%s:%zu:%zu: %s%s%s", r->name, p->problem_mark.line + 1,
			p->problem_mark.column + 1, problem, p->context ? " " : "", p->context ? p->context : "");
}

/* Reads one text into y's memory; the empty text is an empty map. */
static int build_tree(struct lwm_yaml *y, const char *name, const char *text, size_t n, struct lwm_node **root,
		 struct lwm_err *e)
{
	struct lwm_err local = { 0 };
	struct reader r = { .y = y, .e = e ? e : &local };
	int rc = 0;
	bool end = false;
	r.name = lwm_arena_strdup(&y->arena, name);
	if (!r.name || !yaml_parser_initialize(&r.parser))
		return lwm_fail_memory(e, name);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
	while (rc == 0 && !end) {
		yaml_event_t ev;
		if (!yaml_parser_parse(&r.parser, &ev)) {
			rc = syntax_error(&r);
			break;
		}
		rc = on_event(&r, &ev);
		end = ev.type == YAML_STREAM_END_EVENT;
		yaml_event_delete(&ev);
	}
	yaml_parser_delete(&r.parser);
	if (rc < 0)
		return rc;
	if (!r.root || (r.root->kind == LWM_SCALAR && !*r.root->text && !r.root->quoted)) {
		r.root = node_new(y, LWM_MAP, r.name, r.e);
		if (!r.root)
			return r.e->code;
		r.root->line = r.root->column = 1;
	}
	*root = r.root;
	return 0;
}

int lwm_yaml_parse(struct lwm_yaml **out, const char *name, const char *text, size_t n, struct lwm_err *e)
{
	struct lwm_yaml *y;
	int rc;
	*out = NULL;
	if (n > MAX_BYTES)
		return lwm_fail(e, LWM_EUSAGE, "%s: larger than the 1 MiB a YAML file may have", name);
	y = calloc(1, sizeof *y);
	if (!y)
		return lwm_fail_memory(e, name);
	rc = build_tree(y, name, text, n, &y->root, e);
	if (rc < 0) {
		lwm_yaml_free(y);
		return rc;
	}
	*out = y;
	return 0;
}

int lwm_yaml_read(struct lwm_yaml **out, const char *path, struct lwm_err *e)
{
	char *text;
	size_t n;
	int rc;
	*out = NULL;
	if (lwm_path_is_dir(path))
		return lwm_fail(e, LWM_ENOINPUT, "%s: is a folder, not a YAML file", path);
	LWM_TRY(lwm_read_file(path, MAX_BYTES, &text, &n, e));
	rc = lwm_yaml_parse(out, strcmp(path, "-") ? path : "stdin", text, n, e);
	free(text);
	return rc;
}

void lwm_yaml_free(struct lwm_yaml *y)
{
	if (!y)
		return;
	lwm_arena_free(&y->arena);
	free(y);
}

struct lwm_node *lwm_yaml_root(struct lwm_yaml *y)
{
	return y->root;
}

/* Element of a list: by number, or by the `name` key of its maps. -1 when there is none. */
static int64_t seq_find(const struct lwm_node *s, const char *name, size_t len)
{
	int64_t i, number = 0;
	for (i = 0; i < (int64_t)len && i < 9 && name[i] >= '0' && name[i] <= '9'; i++)
		number = number * 10 + (name[i] - '0');
	if (i == (int64_t)len)
		return number < s->n ? number : -1;
	for (i = 0; i < s->n; i++) {
		const struct lwm_node *m = s->child[i];
		int64_t k = m->kind == LWM_MAP ? lwm_node_find(m, "name", 4) : -1;
		if (k >= 0 && strlen(m->child[k]->text) == len && !memcmp(m->child[k]->text, name, len))
			return i;
	}
	return -1;
}

static int value_node(struct lwm_yaml *y, const char *text, const char *origin, struct lwm_node **out,
		      struct lwm_err *e)
{
	if (*text == '[' || *text == '{')
		return build_tree(y, origin, text, strlen(text), out, e);
	*out = node_new(y, LWM_SCALAR, origin, e);
	if (!*out)
		return -LWM_EMEMORY;
	(*out)->line = (*out)->column = 1;
	(*out)->text = lwm_arena_strdup(&y->arena, text);
	return (*out)->text ? 0 : lwm_fail_memory(e, origin);
}

/* Puts `fresh` (a value, or NULL for an empty map on the way) under one word of the path. */
static int descend_path(struct lwm_node **at, const char *word, size_t len, struct lwm_node *fresh, const char *assignment,
		   struct lwm_err *e)
{
	struct lwm_node *m = *at, *n = fresh;
	int64_t i = m->kind == LWM_MAP ? lwm_node_find(m, word, len) : m->kind == LWM_SEQ ? seq_find(m, word, len) : -1;
	if (i < 0 && m->kind != LWM_MAP)
		return lwm_fail(e, LWM_EUSAGE, "--set %s: there is no '%.*s' in %s", assignment, (int)len, word,
				m->kind == LWM_SEQ ? "that list" : "a plain value");
	if (!fresh && i >= 0) {
		*at = m->child[i];
		return 0;
	}
	if (!n) {
		n = node_new(m->doc, LWM_MAP, m->file, e);
		if (!n)
			return -LWM_EMEMORY;
		n->line = m->line;
	}
	if (i >= 0) {
		n->key = m->child[i]->key;
		m->child[i] = n;
	} else {
		char *key = lwm_arena_alloc(&m->doc->arena, len + 1);
		if (!key)
			return lwm_fail(e, LWM_EMEMORY, "--set %s: out of memory", assignment);
		memcpy(key, word, len);
		n->key = key;
		LWM_TRY(node_append(m, n, e));
	}
	*at = n;
	return 0;
}

int lwm_yaml_set(struct lwm_yaml *y, const char *assignment, const char *origin, struct lwm_err *e)
{
	const char *eq = strchr(assignment, '='), *p = assignment;
	struct lwm_node *at = y->root, *value;
	char *from = lwm_arena_strdup(&y->arena, origin);
	if (!eq || eq == assignment)
		return lwm_fail(e, LWM_EUSAGE, "--set %s: expected NAME=VALUE", assignment);
	if (!from)
		return lwm_fail(e, LWM_EMEMORY, "--set %s: out of memory", assignment);
	LWM_TRY(value_node(y, eq + 1, from, &value, e));
	for (;;) {
		size_t len = strcspn(p, ".=");
		if (len == 0)
			return lwm_fail(e, LWM_EUSAGE, "--set %s: expected NAME=VALUE", assignment);
		LWM_TRY(descend_path(&at, p, len, p + len == eq ? value : NULL, assignment, e));
		if (p + len == eq)
			return 0;
		p += len + 1;
	}
}
