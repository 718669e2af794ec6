/* file.c - reads a pipeline file and checks all of it: stages, needs, keys, names; and which stages were asked for. */
#include "common/pipeline/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/base/show.h"
#include "common/base/str.h"

enum { MAX_STAGES = 1000, MAX_NAME = 40, NAMED = 64 }; /* NAMED: names that a misspelt one is compared with */

/* Goes into file names, job names and scripts. */
static bool good_name(const char *s)
{
	static const char ok[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
	size_t n = strlen(s);
	return n > 0 && n <= MAX_NAME && strspn(s, ok) == n && s[0] != '-' && s[0] != '.';
}

static int check_vars(struct lwm_pipeline *p, struct lwm_err *e)
{
	if (!p->vars)
		return 0;
	LWM_TRY(lwm_node_kind_is(p->vars, LWM_MAP, e));
	for (int64_t i = 0; i < p->vars->n; i++)
		LWM_TRY(lwm_node_kind_is(p->vars->child[i], LWM_SCALAR, e));
	return 0;
}

/* "books=DIR" means the variable when there is one of that name. */
static int apply_set(struct lwm_pipeline *p, const char *text, struct lwm_err *e)
{
	static const char *const top[] = { "name", "out", "vars", "stages", "defaults" };
	struct lwm_node *vars = lwm_node_get(lwm_yaml_root(p->doc), "vars");
	const char *names[256];
	size_t n = strcspn(text, ".=");
	char word[80], hint[LWM_HINT], *full;
	int k = 0;
	snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), text);
	for (int i = 0; i < 5; i++) {
		if (!strcmp(word, top[i]))
			return lwm_yaml_set(p->doc, text, "--set", e);
		names[k++] = top[i];
	}
	for (int64_t i = 0; vars && i < vars->n && k < 256; i++) {
		names[k++] = vars->child[i]->key;
		if (strcmp(vars->child[i]->key, word))
			continue;
		full = lwm_arena_printf(&p->arena, "vars.%s", text);
		return full ? lwm_yaml_set(p->doc, full, "--set", e) : lwm_fail_memory(e, NULL);
	}
	return lwm_fail(e, LWM_EUSAGE, "--set %s: %s has no variable '%s'%s", text, p->file, word, lwm_hint(hint, word, names, k));
}

/* The first names that could have been meant; returns how many. */
static int stage_names(const struct lwm_pipeline *p, const char *names[NAMED])
{
	int n = 0;
	while (n < p->nstage && n < NAMED) {
		names[n] = p->stage[n].name;
		n++;
	}
	return n;
}

static int read_needs(struct lwm_pipeline *p, struct lwm_pipe_stage *s, struct lwm_err *e)
{
	struct lwm_node *n = lwm_node_get(s->node, "needs");
	const char *names[NAMED];
	char hint[LWM_HINT];
	if (!n)
		return 0;
	if (n->kind == LWM_MAP)
		return lwm_node_fail(n, LWM_EUSAGE, e, "expected the name of a stage or a list of names");
	s->nneed = n->kind == LWM_SEQ ? (int)n->n : 1;
	s->need = lwm_arena_alloc(&p->arena, (size_t)(s->nneed + 1) * sizeof(int));
	if (!s->need)
		return lwm_fail_memory(e, NULL);
	for (int i = 0; i < s->nneed; i++) {
		struct lwm_node *w = n->kind == LWM_SEQ ? n->child[i] : n;
		LWM_TRY(lwm_node_kind_is(w, LWM_SCALAR, e));
		s->need[i] = lwm_pipeline_find_stage(p, w->text);
		if (s->need[i] >= 0)
			continue;
		return lwm_node_fail(w, LWM_EUSAGE, e, "needs '%s', and there is no such stage%s", w->text,
				     lwm_hint(hint, w->text, names, stage_names(p, names)));
	}
	return 0;
}

/* A key of `m` with its ${variables} replaced; NULL when absent or empty. */
static int read_text(struct lwm_pipeline *p, struct lwm_node *m, const char *key, const char **out, struct lwm_err *e)
{
	struct lwm_pipe_scope scope = { .p = p };
	struct lwm_node *n = lwm_node_get(m, key);
	*out = NULL;
	if (!n)
		return 0;
	LWM_TRY(lwm_node_kind_is(n, LWM_SCALAR, e));
	LWM_TRY(lwm_pipeline_expand_text(&scope, n, n->text, out, e));
	if (!**out)
		*out = NULL;
	return 0;
}

static int read_number(struct lwm_pipeline *p, struct lwm_node *m, const char *key, int64_t min, int64_t max,
		     int64_t *out, struct lwm_err *e)
{
	const char *text;
	char what[300];
	LWM_TRY(read_text(p, m, key, &text, e));
	if (!text)
		return 0;
	snprintf(what, sizeof what, "%s:%d: %s", m->file, lwm_node_get(m, key)->line, key);
	return lwm_parse_int(text, min, max, out, what, e);
}

static int read_resources(struct lwm_pipeline *p, struct lwm_pipe_stage *s, struct lwm_err *e)
{
	struct lwm_node *r = lwm_node_get(s->node, "resources");
	if (!r)
		return 0;
	LWM_TRY(lwm_node_kind_is(r, LWM_MAP, e));
	LWM_TRY(read_number(p, r, "nodes", 1, 100000, &s->nodes, e));
	LWM_TRY(read_number(p, r, "gpus", 0, 64, &s->gpus, e));
	LWM_TRY(read_number(p, r, "cpus", 1, 4096, &s->cpus, e));
	LWM_TRY(lwm_node_seconds(r, "time", &s->seconds, e));
	LWM_TRY(read_text(p, r, "mem", &s->mem, e));
	return read_text(p, r, "partition", &s->partition, e);
}

static int read_check(struct lwm_pipe_stage *s, struct lwm_err *e)
{
	static const char *const names[] = { "auto", "exists", "inspect", NULL };
	struct lwm_node *c = lwm_node_get(s->node, "check");
	int k = 0;
	if (c && c->kind == LWM_SEQ) {
		s->check = LWM_PIPE_CHECK_COMMAND;
		return c->n ? 0 : lwm_node_fail(c, LWM_EUSAGE, e, "an empty command");
	}
	LWM_TRY(lwm_node_choice(s->node, "check", names, &k, e));
	s->check = (enum lwm_pipe_check)k;
	return 0;
}

static int is_list_or_text(struct lwm_node *m, const char *key, struct lwm_err *e)
{
	struct lwm_node *n = lwm_node_get(m, key);
	if (n && n->kind == LWM_MAP)
		return lwm_node_fail(n, LWM_EUSAGE, e, "expected a value or a list, found a map");
	for (int64_t i = 0; n && n->kind == LWM_SEQ && i < n->n; i++)
		LWM_TRY(lwm_node_kind_is(n->child[i], LWM_SCALAR, e));
	return 0;
}

static int check_options(struct lwm_node *m, struct lwm_err *e)
{
	if (!m)
		return 0;
	LWM_TRY(lwm_node_kind_is(m, LWM_MAP, e));
	for (int64_t i = 0; i < m->n; i++) {
		const char *k = m->child[i]->key;
		if (strspn(k, "abcdefghijklmnopqrstuvwxyz0123456789_-") != strlen(k) || *k == '-')
			return lwm_node_fail(m->child[i], LWM_EUSAGE, e, "not the name of an option");
		if (m->child[i]->kind == LWM_MAP)
			return lwm_node_fail(m->child[i], LWM_EUSAGE, e, "expected a value or a list, found a map");
		for (int64_t j = 0; j < m->child[i]->n; j++)
			LWM_TRY(lwm_node_kind_is(m->child[i]->child[j], LWM_SCALAR, e));
	}
	return 0;
}

static int check_foreach(struct lwm_pipeline *p, struct lwm_pipe_stage *s, struct lwm_err *e)
{
	struct lwm_node *f = lwm_node_get(s->node, "foreach"), *of;
	int k;
	if (!f || f->kind != LWM_MAP)
		return is_list_or_text(s->node, "foreach", e);
	LWM_TRY(lwm_node_need(f, "stage", &of, e));
	k = lwm_pipeline_find_stage(p, of->text);
	for (int i = 0; i < s->nneed; i++)
		if (s->need[i] == k)
			return 0;
	return lwm_node_fail(of, LWM_EUSAGE, e, "foreach over the outputs of '%s', which is not among its needs",
			     of->text);
}

static int read_stage(struct lwm_pipeline *p, struct lwm_pipe_stage *s, struct lwm_err *e)
{
	static const char *const lists[] = { "operands", "inputs", "outputs" };
	struct lwm_node *tool;
	LWM_TRY(lwm_node_need(s->node, "tool", &tool, e));
	LWM_TRY(lwm_node_kind_is(tool, LWM_SCALAR, e));
	s->tool = tool->text;
	if (!*s->tool || *s->tool == '-')
		return lwm_node_fail(tool, LWM_EUSAGE, e, "not the name of a program");
	s->resumes = !strcmp(s->tool, "lwm-train-stage") || !strcmp(s->tool, "lwm-eval-needle");
	LWM_TRY(lwm_node_bool(s->node, "resumes", &s->resumes, e));
	LWM_TRY(read_needs(p, s, e));
	LWM_TRY(read_number(p, s->node, "ranks", 0, 100000, &s->ranks, e));
	LWM_TRY(read_resources(p, s, e));
	LWM_TRY(read_check(s, e));
	LWM_TRY(check_foreach(p, s, e));
	for (int i = 0; i < 3; i++)
		LWM_TRY(is_list_or_text(s->node, lists[i], e));
	lwm_node_get(s->node, "about");
	lwm_node_get(s->node, "stdout");
	return check_options(lwm_node_get(s->node, "args"), e);
}

static int read_stages(struct lwm_pipeline *p, struct lwm_err *e)
{
	struct lwm_node *list, *name;
	LWM_TRY(lwm_node_need(lwm_yaml_root(p->doc), "stages", &list, e));
	LWM_TRY(lwm_node_kind_is(list, LWM_SEQ, e));
	if (list->n < 1 || list->n > MAX_STAGES)
		return lwm_node_fail(list, LWM_EUSAGE, e, "expected 1 to %d stages", MAX_STAGES);
	p->stage = lwm_arena_alloc(&p->arena, (size_t)list->n * sizeof *p->stage);
	p->order = lwm_arena_alloc(&p->arena, (size_t)list->n * sizeof *p->order);
	if (!p->stage || !p->order)
		return lwm_fail_memory(e, NULL);
	for (int64_t i = 0; i < list->n; i++) {
		struct lwm_pipe_stage *s = &p->stage[i];
		s->node = list->child[i];
		LWM_TRY(lwm_node_kind_is(s->node, LWM_MAP, e));
		LWM_TRY(lwm_node_need(s->node, "name", &name, e));
		if (!good_name(name->text))
			return lwm_node_fail(name, LWM_EUSAGE, e, "a stage's name has 1 to %d of A-Za-z0-9_-.",
					     MAX_NAME);
		if (lwm_pipeline_find_stage(p, name->text) >= 0)
			return lwm_node_fail(name, LWM_EUSAGE, e, "a second stage '%s'", name->text);
		s->name = name->text;
		s->selected = true;
		p->nstage++;
	}
	for (int i = 0; i < p->nstage; i++)
		LWM_TRY(read_stage(p, &p->stage[i], e));
	return 0;
}

/* Each stage after those it needs, otherwise in file order. */
static int sort_stages(struct lwm_pipeline *p, struct lwm_err *e)
{
	bool *done = lwm_arena_alloc(&p->arena, (size_t)p->nstage);
	if (!done)
		return lwm_fail_memory(e, NULL);
	for (int n = 0; n < p->nstage;) {
		int before = n, stuck = -1;
		for (int i = 0; i < p->nstage; i++) {
			bool ready = !done[i];
			for (int k = 0; k < p->stage[i].nneed; k++)
				ready = ready && done[p->stage[i].need[k]];
			if (ready) {
				done[i] = true;
				p->order[n++] = i;
			} else if (!done[i]) {
				stuck = i;
			}
		}
		if (n == before)
			return lwm_node_fail(p->stage[stuck].node, LWM_EUSAGE, e, "stage '%s' needs itself in a circle",
					     p->stage[stuck].name);
	}
	return 0;
}

/* These stand in batch scripts, in records and in messages, as the values of the file do (text.c). */
static int check_names(const char *path, const char *bin, const struct lwm_paths *sets, struct lwm_err *e)
{
	LWM_TRY(lwm_show_check(path, "the pipeline file", e));
	LWM_TRY(lwm_show_check(bin, "the folder of the programs", e));
	for (int64_t i = 0; sets && i < sets->n; i++)
		LWM_TRY(lwm_show_check(sets->v[i], "--set", e));
	return 0;
}

static int load_file(struct lwm_pipeline *p, const char *path, const struct lwm_paths *sets, struct lwm_err *e)
{
	struct lwm_pipe_scope scope = { .p = p };
	struct lwm_node *root, *n;
	LWM_TRY(check_names(path, p->bin, sets, e));
	LWM_TRY(lwm_yaml_read(&p->doc, path, e));
	root = lwm_yaml_root(p->doc);
	LWM_TRY(lwm_node_kind_is(root, LWM_MAP, e));
	for (int64_t i = 0; sets && i < sets->n; i++)
		LWM_TRY(apply_set(p, sets->v[i], e));
	p->vars = lwm_node_get(root, "vars");
	p->defaults = lwm_node_get(root, "defaults");
	lwm_node_get(root, "about");
	LWM_TRY(check_vars(p, e));
	LWM_TRY(lwm_node_need(root, "name", &n, e));
	if (!good_name(n->text))
		return lwm_node_fail(n, LWM_EUSAGE, e, "a pipeline's name has 1 to %d of A-Za-z0-9_-.", MAX_NAME);
	p->name = n->text;
	LWM_TRY(lwm_node_need(root, "out", &n, e));
	LWM_TRY(lwm_pipeline_expand_text(&scope, n, n->text, &p->out, e));
	if (!*p->out)
		return lwm_node_fail(n, LWM_EUSAGE, e, "is empty");
	LWM_TRY(read_stages(p, e));
	if (p->defaults)
		LWM_TRY(lwm_node_kind_is(p->defaults, LWM_MAP, e));
	for (int i = 0; i < p->nstage && p->defaults; i++)
		lwm_node_get(p->defaults, p->stage[i].tool);
	for (int64_t i = 0; p->defaults && i < p->defaults->n; i++)
		LWM_TRY(check_options(p->defaults->child[i], e));
	LWM_TRY(lwm_node_done(root, e));
	return sort_stages(p, e);
}

int lwm_pipeline_load(struct lwm_pipeline **out, const char *path, const char *bin, const struct lwm_paths *sets,
		      struct lwm_err *e)
{
	struct lwm_pipeline *p = calloc(1, sizeof *p);
	int rc;
	*out = NULL;
	if (!p)
		return lwm_fail_memory(e, NULL);
	p->file = lwm_arena_strdup(&p->arena, path);
	p->bin = lwm_arena_strdup(&p->arena, bin);
	rc = p->file && p->bin ? load_file(p, path, sets, e) : lwm_fail_memory(e, NULL);
	if (rc < 0) {
		lwm_pipeline_free(p);
		return rc;
	}
	*out = p;
	return 0;
}

void lwm_pipeline_clear_tasks(struct lwm_pipeline *p, int stage)
{
	struct lwm_pipe_stage *st = &p->stage[stage];
	for (int64_t i = 0; i < st->ntask; i++) {
		lwm_paths_release(&st->task[i].argv);
		lwm_paths_release(&st->task[i].inputs);
		lwm_paths_release(&st->task[i].outputs);
		lwm_paths_release(&st->task[i].check);
	}
	free(st->task);
	st->task = NULL;
	st->ntask = 0;
	st->expanded = false;
}

void lwm_pipeline_free(struct lwm_pipeline *p)
{
	if (!p)
		return;
	for (int i = 0; i < p->nstage; i++)
		lwm_pipeline_clear_tasks(p, i);
	lwm_yaml_free(p->doc);
	lwm_arena_free(&p->arena);
	free(p);
}

int lwm_pipeline_find_stage(const struct lwm_pipeline *p, const char *name)
{
	for (int i = 0; i < p->nstage; i++)
		if (!strcmp(p->stage[i].name, name))
			return i;
	return -1;
}

static int find_named(const struct lwm_pipeline *p, const char *option, const char *name, struct lwm_err *e)
{
	const char *names[NAMED];
	char hint[LWM_HINT];
	int i = lwm_pipeline_find_stage(p, name);
	if (i >= 0)
		return i;
	return lwm_fail(e, LWM_EUSAGE, "%s: %s has no stage '%s'%s", option, p->file, name,
			lwm_hint(hint, name, names, stage_names(p, names)));
}

int lwm_pipeline_select_stages(struct lwm_pipeline *p, const struct lwm_paths *only, const char *from, const char *until,
			struct lwm_err *e)
{
	bool *keep = lwm_arena_alloc(&p->arena, (size_t)p->nstage);
	int k;
	if (!keep)
		return lwm_fail_memory(e, NULL);
	if (only->n) {
		for (int i = 0; i < p->nstage; i++)
			p->stage[i].selected = false;
		for (int64_t i = 0; i < only->n; i++) {
			LWM_TRY(k = find_named(p, "--only", only->v[i], e));
			p->stage[k].selected = true;
		}
	}
	if (from) {
		LWM_TRY(k = find_named(p, "--from", from, e));
		keep[k] = true;
		for (int o = 0; o < p->nstage; o++)
			for (int j = 0; j < p->stage[p->order[o]].nneed; j++)
				if (keep[p->stage[p->order[o]].need[j]])
					keep[p->order[o]] = true;
		for (int i = 0; i < p->nstage; i++)
			p->stage[i].selected = p->stage[i].selected && keep[i];
	}
	if (until) {
		LWM_TRY(k = find_named(p, "--until", until, e));
		memset(keep, 0, (size_t)p->nstage);
		keep[k] = true;
		for (int o = p->nstage - 1; o >= 0; o--)
			for (int j = 0; keep[p->order[o]] && j < p->stage[p->order[o]].nneed; j++)
				keep[p->stage[p->order[o]].need[j]] = true;
		for (int i = 0; i < p->nstage; i++)
			p->stage[i].selected = p->stage[i].selected && keep[i];
	}
	return 0;
}
