/* plan.c - what would run, and why.
 *
 * Stages are gone through in the order of their needs. What needs a stage in which something will run will be looked at again
 * after it, so it counts as something to run. Nothing is started but checks of outputs, and programs that are asked for their own
 * plan.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/show.h"
#include "common/pipeline/command.h"

struct plan {
	struct lwm_pipeline *p;
	const struct lwm_run_cfg *c;
	struct lwm_str *out;
	bool *runs; /* of each stage: something in it will run */
	int64_t complete, to_run; /* tasks */
	int64_t later; /* stages whose tasks are known when others have run */
	struct lwm_err missing; /* the first input that does not exist and that no stage will make */
	const char *sep; /* before the next object of the JSON list */
};

static int put_command(struct lwm_str *out, const struct lwm_paths *argv, bool json, struct lwm_err *e)
{
	struct lwm_str word = { 0 };
	int rc;
	for (int64_t i = 0; i < argv->n; i++) {
		lwm_str_puts(out, i ? json ? ", " : " " : "");
		if (json) {
			lwm_str_json(out, argv->v[i], strlen(argv->v[i]));
			continue;
		}
		lwm_str_reset(&word);
		lwm_str_shell(&word, argv->v[i]);
		lwm_show_add(out, lwm_str_get(&word)); /* bytes that are no UTF-8 can still steer a terminal */
	}
	rc = lwm_str_ok(&word, e);
	lwm_str_release(&word);
	return rc;
}

static int show_task(struct plan *pl, const struct lwm_pipe_task *t, const struct lwm_run_verdict *v, struct lwm_err *e)
{
	struct lwm_paths argv = { 0 };
	struct lwm_str *out = pl->out;
	int rc = lwm_run_command_line(pl->p, t, pl->c, v, &argv, e);
	if (rc == 0 && pl->c->json) {
		lwm_str_printf(out, "%s\n  {\"task\": \"%s\", \"stage\": \"%s\", \"complete\": %s, \"why\": ", pl->sep,
			       t->label, pl->p->stage[t->stage].name, v->complete ? "true" : "false");
		lwm_str_json(out, v->why, strlen(v->why));
		lwm_str_puts(out, ", \"command\": [");
		rc = put_command(out, &argv, true, e);
		lwm_str_puts(out, "]}");
		pl->sep = ",";
	} else if (rc == 0 && !v->complete) {
		lwm_str_printf(out, "%s: ", t->label);
		lwm_show_add(out, v->why); /* a check of the file's may have said anything */
		lwm_str_puts(out, "\n    ");
		rc = put_command(out, &argv, false, e);
		lwm_str_putc(out, '\n');
	}
	lwm_paths_release(&argv);
	return rc;
}

/* ---- inputs that do not exist, and that no stage will make ---- */

static bool same_or_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);
	while (n > 1 && dir[n - 1] == '/')
		n--;
	return !strncmp(path, dir, n) && (!path[n] || path[n] == '/');
}

/* Is it an output of a stage before this one, in a folder that is one, or a folder around one? Of one that is not selected too: a
 * part is planned where the rest has not run yet. */
static bool is_made(const struct plan *pl, int stage, const char *path)
{
	for (int o = 0; o < pl->p->nstage && pl->p->order[o] != stage; o++) {
		const struct lwm_pipe_stage *st = &pl->p->stage[pl->p->order[o]];
		for (int64_t k = 0; k < st->ntask; k++)
			for (int64_t i = 0; i < st->task[k].outputs.n; i++)
				if (same_or_below(path, st->task[k].outputs.v[i]) || same_or_below(st->task[k].outputs.v[i], path))
					return true;
	}
	return false;
}

static void note_missing(struct plan *pl, const struct lwm_pipe_task *t, const char *what)
{
	if (!pl->c->json) {
		lwm_str_puts(pl->out, "    ");
		lwm_show_add(pl->out, what);
		lwm_str_putc(pl->out, '\n');
	}
	lwm_fail(&pl->missing, LWM_ENOINPUT, "stage %s: %s", pl->p->stage[t->stage].name, what);
}

/* Is all there that the stages it needs write? */
static bool is_first(const struct plan *pl, const struct lwm_pipe_stage *st)
{
	for (int i = 0; i < st->nneed; i++) {
		const struct lwm_pipe_stage *n = &pl->p->stage[st->need[i]];
		for (int64_t k = 0; k < n->ntask; k++)
			for (int64_t j = 0; j < n->task[k].outputs.n; j++)
				if (!lwm_path_exists(n->task[k].outputs.v[j]))
					return false;
		if (!n->ntask)
			return false;
	}
	return true;
}

/* What the key `inputs` names; and where nothing before it will run, the program's own plan knows all that it reads. Of many tasks
 * the first is asked: they differ in names. */
static int check_inputs(struct plan *pl, const struct lwm_pipe_task *t, const char *after, struct lwm_err *e)
{
	char text[600];
	int status = 0;
	for (int64_t i = t->given; i < t->given + t->ngiven && !pl->later; i++)
		if (!lwm_path_exists(t->inputs.v[i]) && !is_made(pl, t->stage, t->inputs.v[i])) {
			snprintf(text, sizeof text, "%s: is not there, and no stage makes it", t->inputs.v[i]);
			note_missing(pl, t, text);
			return 0;
		}
	if (after || t->index || !is_first(pl, &pl->p->stage[t->stage]))
		return 0;
	LWM_TRY(lwm_run_ask_program(pl->p, t, pl->c, "--plan", &status, text, sizeof text, e));
	if (status == LWM_ENOINPUT)
		note_missing(pl, t, text);
	return 0;
}

static int plan_task(struct plan *pl, const struct lwm_pipe_task *t, struct lwm_run_verdict *v, const char *after,
		     struct lwm_err *e)
{
	if (v->complete && after) {
		v->complete = false;
		snprintf(v->why, sizeof v->why, "looked at again behind stage %s", after);
		v->stale = !pl->p->stage[t->stage].resumes;
	}
	v->complete ? pl->complete++ : pl->to_run++;
	if (!v->complete)
		pl->runs[t->stage] = true;
	LWM_TRY(show_task(pl, t, v, e));
	return v->complete ? 0 : check_inputs(pl, t, after, e);
}

static int plan_stage(struct plan *pl, int i, struct lwm_err *e)
{
	struct lwm_pipe_stage *st = &pl->p->stage[i];
	const char *after = NULL;
	int rc;
	for (int k = 0; k < st->nneed; k++)
		if (pl->runs[st->need[k]])
			after = pl->p->stage[st->need[k]].name;
	rc = lwm_pipeline_make_tasks(pl->p, i, e);
	if (rc == -LWM_ENOINPUT && after) {
		/* its items are files that do not exist yet */
		lwm_err_clear(e);
		pl->runs[i] = true;
		pl->later++;
		if (!pl->c->json)
			lwm_str_printf(pl->out, "%s: its tasks are known when stage %s has run\n", st->name, after);
		return 0;
	}
	LWM_TRY(rc);
	struct lwm_run_verdict *v = calloc((size_t)st->ntask + 1, sizeof *v);
	rc = v ? lwm_run_judge_stage(pl->p, st, pl->c, v, e) : lwm_fail_memory(e, NULL);
	for (int64_t k = 0; k < st->ntask && rc >= 0; k++)
		rc = plan_task(pl, &st->task[k], &v[k], after, e);
	free(v);
	return rc;
}

int lwm_run_plan(struct lwm_pipeline *p, const struct lwm_run_cfg *c, struct lwm_str *out, struct lwm_err *e)
{
	struct plan pl = { .p = p, .c = c, .out = out, .sep = "" };
	int rc = 0;
	pl.runs = calloc((size_t)p->nstage, sizeof *pl.runs);
	if (!pl.runs)
		return lwm_fail_memory(e, NULL);
	if (c->json)
		lwm_str_puts(out, "[");
	for (int o = 0; o < p->nstage && rc >= 0; o++)
		if (p->stage[p->order[o]].selected)
			rc = plan_stage(&pl, p->order[o], e);
	free(pl.runs);
	if (rc >= 0 && pl.missing.code)
		rc = lwm_fail(e, LWM_ENOINPUT, "%s", pl.missing.msg);
	if (c->json) {
		lwm_str_puts(out, "\n]\n");
		return rc;
	}
	lwm_str_printf(out, "%" PRId64 " to run, %" PRId64 " complete", pl.to_run, pl.complete);
	if (pl.later)
		lwm_str_printf(out, ", %" PRId64 " stages known later", pl.later);
	lwm_str_putc(out, '\n');
	return rc < 0 ? rc : lwm_str_ok(out, e);
}
