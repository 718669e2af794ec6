/* ask.c - what the programs say about their own options. There is no second judge here: each program checks what it is given. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/show.h"
#include "common/pipeline/command.h"

int lwm_run_ask_program(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, const struct lwm_run_cfg *c,
			const char *question, int *status, char *text, size_t size, struct lwm_err *e)
{
	static const char variable[] = "LWM_PLAN_RANKS";
	int64_t ranks = lwm_run_ranks(&p->stage[t->stage], c);
	struct lwm_paths argv = { 0 };
	char n[32];
	int rc;

	*status = 0;
	rc = lwm_run_program_line(p, t, NULL, &argv, e); /* without a launcher: one process can answer */
	if (rc == 0 && !strncmp(lwm_path_base(argv.v[0]), "lwm-", 4)) {
		snprintf(n, sizeof n, "%" PRId64, ranks ? ranks : (int64_t)1);
		rc = lwm_paths_add(&argv, "--quiet", e);
		if (rc == 0)
			rc = lwm_paths_add(&argv, question, e);
		if (rc == 0 && setenv(variable, n, 1))
			rc = lwm_fail_memory(e, NULL);
		if (rc == 0)
			rc = lwm_spawn_wait(&argv, 2, status, text, size, e);
		unsetenv(variable);
		text[rc == 0 ? strcspn(text, "\n") : 0] = 0;
	}
	lwm_paths_release(&argv);
	return rc;
}

static int ask_options(struct lwm_pipeline *p, const struct lwm_pipe_task *t, const struct lwm_run_cfg *c, struct lwm_err *e)
{
	const struct lwm_pipe_stage *st = &p->stage[t->stage];
	char text[600];
	int status;

	LWM_TRY(lwm_run_ask_program(p, t, c, "--check-options", &status, text, sizeof text, e));
	if (status)
		return lwm_node_fail(st->node, status >= 64 && status < 80 ? status : LWM_EUSAGE, e, "stage %s: %s", st->name, text);
	return 0;
}

int lwm_run_check(struct lwm_pipeline *p, const struct lwm_run_cfg *c, struct lwm_err *e)
{
	int rc = 0;

	p->pretend = true;
	for (int o = 0; o < p->nstage && rc == 0; o++) {
		struct lwm_pipe_stage *st = &p->stage[p->order[o]];
		if (!st->selected)
			continue;
		if (st->ranks && c->launch)
			rc = lwm_show_check(c->launch, "--launch", e);
		if (rc == 0)
			rc = lwm_pipeline_make_tasks(p, p->order[o], e);
		/* the tasks of one stage differ in names of files only */
		if (rc == 0 && st->ntask)
			rc = ask_options(p, &st->task[0], c, e);
	}
	p->pretend = false;
	for (int i = 0; i < p->nstage; i++)
		lwm_pipeline_clear_tasks(p, i);
	return rc;
}
