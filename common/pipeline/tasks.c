/* tasks.c - from a stage to the command lines of its tasks. */
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/show.h"
#include "common/cli/opt_int.h"
#include "common/pipeline/text.h"

enum { MAX_TASKS = 1000000 };

static bool is_pattern(const char *s)
{
	return strpbrk(s, "*?[") != NULL;
}

/* A file that a pattern found. One called "@x" or "-x" must not be taken for a list of files or an option. */
static int add_found(struct lwm_paths *items, const char *path, struct lwm_err *e)
{
	char *full = NULL;
	int rc;
	if (strstr(path, ".tmp.") || lwm_path_has_suffix(path, ".manifest.json"))
		return 0;
	if (*path != '@' && *path != '-')
		return lwm_paths_add(items, path, e);
	full = lwm_path_join(".", path);
	rc = full ? lwm_paths_add(items, full, e) : lwm_fail_memory(e, NULL);
	free(full);
	return rc;
}

/* A value as paths: a pattern becomes the files it fits (sorted), a folder its files, anything else itself. */
static int add_items(const struct lwm_pipeline *p, struct lwm_paths *items, const char *text,
		      const struct lwm_node *at, struct lwm_err *e)
{
	glob_t g;
	int rc = 0, found;
	if (p->pretend && !items->n)
		return lwm_paths_add(items, text, e);
	if (lwm_path_is_dir(text) || text[0] == '@')
		return lwm_paths_expand(items, text, NULL, e);
	if (!is_pattern(text))
		return lwm_paths_add(items, text, e);
	found = glob(text, 0, NULL, &g);
	if (found == GLOB_NOMATCH)
		return lwm_node_fail(at, LWM_ENOINPUT, e, "nothing fits '%s'", text);
	if (found)
		return lwm_node_fail(at, LWM_EIO, e, "cannot list '%s'", text);
	for (size_t i = 0; i < g.gl_pathc && rc == 0; i++)
		rc = add_found(items, g.gl_pathv[i], e);
	globfree(&g);
	return rc;
}

/* Texts of a value or list, variables replaced. */
static int add_texts(const struct lwm_pipe_scope *s, struct lwm_node *n, struct lwm_paths *out, struct lwm_err *e)
{
	const char *t;
	for (int64_t i = 0; n && i < (n->kind == LWM_SEQ ? n->n : 1); i++) {
		struct lwm_node *v = n->kind == LWM_SEQ ? n->child[i] : n;
		LWM_TRY(lwm_pipeline_expand_text(s, v, v->text, &t, e));
		LWM_TRY(lwm_paths_add(out, t, e));
	}
	return 0;
}

static int find_items(struct lwm_pipeline *p, struct lwm_pipe_stage *st, struct lwm_paths *items, struct lwm_err *e)
{
	struct lwm_pipe_scope s = { .p = p, .stage = st->name };
	struct lwm_node *f = lwm_node_get(st->node, "foreach");
	struct lwm_paths list = { 0 };
	int rc = 0;
	if (f->kind == LWM_MAP) {
		const struct lwm_pipe_stage *of = &p->stage[lwm_pipeline_find_stage(p, lwm_node_get(f, "stage")->text)];
		for (int64_t i = 0; i < of->ntask; i++)
			for (int64_t k = 0; k < of->task[i].outputs.n; k++)
				LWM_TRY(lwm_paths_add(items, of->task[i].outputs.v[k], e));
		return 0;
	}
	LWM_GO(add_texts(&s, f, &list, e));
	for (int64_t i = 0; i < list.n; i++)
		LWM_GO(add_items(p, items, list.v[i], f, e));
	/* values were looked at, but these names come from folders and lists */
	for (int64_t i = 0; i < items->n; i++)
		LWM_GO(lwm_show_check(items->v[i], "a file of foreach", e));
out:
	lwm_paths_release(&list);
	return rc;
}

static int add_from_environment(const char *option, const char *value, struct lwm_paths *values, struct lwm_err *e)
{
	char name[128];
	lwm_opt_env_name(option, name, sizeof name);
	LWM_TRY(lwm_show_check(value, name, e));
	return lwm_paths_add(values, value, e);
}

/* One option with its value: true and false are flags, a list repeats it, an empty plain value leaves it out. */
static int add_option(const struct lwm_pipe_scope *s, struct lwm_node *n, struct lwm_paths *argv, struct lwm_err *e)
{
	char name[100];
	struct lwm_paths values = { 0 };
	const char *env = n->kind == LWM_SCALAR ? lwm_pipeline_option_env(n->key) : NULL;
	int rc = 0;
	snprintf(name, sizeof name, "--%s", n->key);
	for (char *c = name; *c; c++)
		if (*c == '_')
			*c = '-';
	if (n->kind == LWM_SCALAR && !n->quoted && !*n->text && !env)
		return 0;
	if (env)
		LWM_GO(add_from_environment(n->key, env, &values, e));
	else
		LWM_GO(add_texts(s, n, &values, e));
	for (int64_t i = 0; i < values.n; i++) {
		bool yes = !strcmp(values.v[i], "true"), no = !strcmp(values.v[i], "false");
		char *no_name = NULL;
		if (!n->quoted && no && asprintf(&no_name, "--no-%s", name + 2) < 0) {
			rc = lwm_fail_memory(e, NULL);
			goto out;
		}
		rc = lwm_paths_add(argv, no_name ? no_name : name, e);
		free(no_name);
		if (rc == 0 && (n->quoted || !(yes || no)))
			rc = lwm_paths_add(argv, values.v[i], e);
		if (rc < 0)
			goto out;
	}
out:
	lwm_paths_release(&values);
	return rc;
}

static bool same_option(const char *a, const char *b)
{
	while (*a && (*a == *b || (*a == '_' && *b == '-') || (*a == '-' && *b == '_')))
		a++, b++;
	return *a == *b;
}

static int add_options(const struct lwm_pipe_scope *s, struct lwm_pipe_stage *st, struct lwm_paths *argv,
		       struct lwm_err *e)
{
	struct lwm_node *args = lwm_node_get(st->node, "args");
	struct lwm_node *common = s->p->defaults ? lwm_node_get(s->p->defaults, st->tool) : NULL;
	for (int64_t i = 0; common && i < common->n; i++) {
		bool over = false;
		for (int64_t k = 0; args && k < args->n; k++)
			over = over || same_option(args->child[k]->key, common->child[i]->key);
		if (!over)
			LWM_TRY(add_option(s, common->child[i], argv, e));
	}
	for (int64_t i = 0; args && i < args->n; i++)
		LWM_TRY(add_option(s, args->child[i], argv, e));
	return 0;
}

/* Operands follow the options; one that starts with '-' must not be taken for an option. */
static int add_operands(const struct lwm_pipe_scope *s, struct lwm_pipe_stage *st, struct lwm_pipe_task *t,
			struct lwm_err *e)
{
	struct lwm_paths list = { 0 };
	int rc = 0;
	LWM_GO(add_texts(s, lwm_node_get(st->node, "operands"), &list, e));
	for (int64_t i = 0; i < list.n; i++) {
		const char *text = list.v[i];
		if (*text == '-' && text[1]) {
			text = lwm_arena_printf(&s->p->arena, "./%s", text);
			if (!text) {
				rc = lwm_fail_memory(e, NULL);
				goto out;
			}
		}
		LWM_GO(lwm_paths_add(&t->argv, text, e));
		LWM_GO(lwm_paths_add(&t->inputs, text, e));
	}
out:
	lwm_paths_release(&list);
	return rc;
}

/* Operands, `inputs`, the item, and what the needed stages wrote: when any of it changes the task runs again. */
static int add_inputs(const struct lwm_pipe_scope *s, struct lwm_pipe_stage *st, struct lwm_pipe_task *t,
		      struct lwm_err *e)
{
	struct lwm_node *f = lwm_node_get(st->node, "foreach");
	int of = f && f->kind == LWM_MAP ? lwm_pipeline_find_stage(s->p, lwm_node_get(f, "stage")->text) : -1;
	t->given = t->inputs.n;
	LWM_TRY(add_texts(s, lwm_node_get(st->node, "inputs"), &t->inputs, e));
	t->ngiven = t->inputs.n - t->given;
	if (s->item)
		LWM_TRY(lwm_paths_add(&t->inputs, s->item, e));
	for (int i = 0; i < st->nneed; i++) {
		const struct lwm_pipe_stage *n = &s->p->stage[st->need[i]];
		for (int64_t k = 0; k < n->ntask && st->need[i] != of; k++)
			for (int64_t j = 0; j < n->task[k].outputs.n; j++)
				LWM_TRY(lwm_paths_add(&t->inputs, n->task[k].outputs.v[j], e));
	}
	return 0;
}

/* "tokenize", or "tokenize-moby_dick-1f2e3d4c" for a task of many: a name that does not depend on its number. */
static int set_label(const struct lwm_pipe_scope *s, struct lwm_pipe_stage *st, struct lwm_pipe_task *t,
		     struct lwm_err *e)
{
	char stem[33];
	size_t n = 0;
	if (!s->item) {
		t->label = st->name;
		return 0;
	}
	for (const char *c = lwm_path_base(s->item); *c && *c != '.' && n < sizeof stem - 1; c++)
		stem[n++] = strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", *c) ? *c : '_';
	stem[n] = 0;
	t->label = lwm_arena_printf(&s->p->arena, "%s-%s-%08x", st->name, stem,
				    (unsigned)(lwm_hash64(s->item, strlen(s->item), 0) & 0xffffffffu));
	return t->label ? 0 : lwm_fail_memory(e, NULL);
}

static int make_task(const struct lwm_pipe_scope *s, struct lwm_pipe_stage *st, struct lwm_pipe_task *t,
		     struct lwm_err *e)
{
	struct lwm_node *check = lwm_node_get(st->node, "check"), *to = lwm_node_get(st->node, "stdout");
	const char *tool;
	t->stage = (int)(st - s->p->stage);
	t->index = s->index;
	t->item = s->item;
	LWM_TRY(set_label(s, st, t, e));
	LWM_TRY(lwm_pipeline_expand_text(s, st->node, st->tool, &tool, e));
	if (!*tool || *tool == '-') /* the launcher would take it for an option */
		return lwm_node_fail(st->node, LWM_EUSAGE, e, "'%s' is not the name of a program", tool);
	LWM_TRY(lwm_paths_add(&t->argv, tool, e));
	LWM_TRY(add_options(s, st, &t->argv, e));
	LWM_TRY(add_operands(s, st, t, e));
	LWM_TRY(add_inputs(s, st, t, e));
	LWM_TRY(add_texts(s, lwm_node_get(st->node, "outputs"), &t->outputs, e));
	if (to) {
		LWM_TRY(lwm_node_kind_is(to, LWM_SCALAR, e));
		LWM_TRY(lwm_pipeline_expand_text(s, to, to->text, &t->to, e));
		LWM_TRY(lwm_paths_add(&t->outputs, t->to, e));
	}
	if (st->check == LWM_PIPE_CHECK_COMMAND)
		LWM_TRY(add_texts(s, check, &t->check, e));
	return 0;
}

static int by_output(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Two tasks that write the same file would undo each other. */
static int outputs_differ(struct lwm_pipeline *p, struct lwm_pipe_stage *st, struct lwm_err *e)
{
	int64_t n = 0;
	char **all;
	for (int64_t i = 0; i < st->ntask; i++)
		n += st->task[i].outputs.n;
	all = lwm_arena_alloc(&p->arena, (size_t)(n + 1) * sizeof(char *));
	if (!all)
		return lwm_fail_memory(e, NULL);
	n = 0;
	for (int64_t i = 0; i < st->ntask; i++)
		for (int64_t k = 0; k < st->task[i].outputs.n; k++)
			all[n++] = st->task[i].outputs.v[k];
	qsort(all, (size_t)n, sizeof *all, by_output);
	for (int64_t i = 1; i < n; i++)
		if (!strcmp(all[i], all[i - 1]))
			return lwm_node_fail(st->node, LWM_EUSAGE, e, "stage '%s' writes %s twice", st->name, all[i]);
	return 0;
}

static int make_tasks(struct lwm_pipeline *p, struct lwm_pipe_stage *st, const struct lwm_paths *items,
		      struct lwm_err *e)
{
	st->task = calloc((size_t)items->n, sizeof *st->task);
	if (!st->task)
		return lwm_fail(e, LWM_EMEMORY, "out of memory at %" PRId64 " tasks", items->n);
	st->ntask = items->n;
	for (int64_t i = 0; i < items->n; i++) {
		struct lwm_pipe_scope s = { .p = p, .stage = st->name, .index = i };
		if (items->v[i]) {
			s.item = lwm_arena_strdup(&p->arena, items->v[i]);
			if (!s.item)
				return lwm_fail_memory(e, NULL);
		}
		LWM_TRY(make_task(&s, st, &st->task[i], e));
	}
	return outputs_differ(p, st, e);
}

int lwm_pipeline_make_tasks(struct lwm_pipeline *p, int stage, struct lwm_err *e)
{
	struct lwm_pipe_stage *st = &p->stage[stage];
	struct lwm_paths items = { 0 };
	char *none[1] = { NULL };
	struct lwm_paths one = { none, 1, 1 };
	bool many = lwm_node_get(st->node, "foreach") != NULL;
	int rc = 0;
	if (st->expanded)
		return 0;
	for (int i = 0; i < st->nneed; i++) {
		struct lwm_err local = { 0 };
		rc = lwm_pipeline_make_tasks(p, st->need[i], &local);
		if (rc < 0 && (rc != -LWM_ENOINPUT || p->stage[st->need[i]].selected))
			return lwm_fail(e, -rc, "%s", local.msg);
	}
	rc = 0;
	if (many) {
		LWM_GO(find_items(p, st, &items, e));
		if (items.n > MAX_TASKS) {
			rc = lwm_node_fail(st->node, LWM_EUSAGE, e, "more than %d tasks", MAX_TASKS);
			goto out;
		}
	}
	LWM_GO(make_tasks(p, st, many ? &items : &one, e));
	st->expanded = true;
out:
	lwm_paths_release(&items);
	if (rc < 0)
		lwm_pipeline_clear_tasks(p, stage);
	return rc < 0 ? lwm_context(e, "stage %s", st->name) : 0;
}
