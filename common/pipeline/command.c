/* command.c - from a task's words to the command that starts it. */
#include "common/pipeline/command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/launch.h"

char *lwm_run_find_program(const struct lwm_pipeline *p, const char *tool)
{
	char *path = strncmp(tool, "lwm-", 4) || strchr(tool, '/') ? NULL : lwm_path_join(p->bin, tool);
	if (path && lwm_path_exists(path))
		return path;
	free(path);
	return strdup(tool);
}

int64_t lwm_run_ranks(const struct lwm_pipe_stage *st, const struct lwm_run_cfg *c)
{
	return st->ranks && c->ranks ? c->ranks : st->ranks;
}

int lwm_run_program_line(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, const struct lwm_run_verdict *v,
			 struct lwm_paths *argv, struct lwm_err *e)
{
	char *tool = lwm_run_find_program(p, t->argv.v[0]);
	int rc = 0;
	if (!tool)
		return lwm_fail_memory(e, NULL);
	LWM_GO(lwm_paths_add(argv, tool, e));
	if (v && v->stale && !p->stage[t->stage].resumes && !strncmp(lwm_path_base(tool), "lwm-", 4))
		LWM_GO(lwm_paths_add(argv, "--force", e));
	for (int64_t i = 1; i < t->argv.n; i++)
		LWM_GO(lwm_paths_add(argv, t->argv.v[i], e));
out:
	free(tool);
	return rc;
}

/* The words of --launch, or of what starts ranks here, then "-n RANKS". */
static int add_launcher(const struct lwm_run_cfg *c, int64_t ranks, struct lwm_paths *argv, struct lwm_err *e)
{
	char n[32], *copy, *save = NULL;
	const char *cmd = c->launch;
	int rc = 0;
	if (!cmd)
		cmd = lwm_launch_job() ? "srun --mpi=pmix --kill-on-bad-exit=1" : "mpirun --oversubscribe";
	copy = strdup(cmd);
	if (!copy)
		return lwm_fail_memory(e, NULL);
	for (char *w = strtok_r(copy, " ", &save); w && rc == 0; w = strtok_r(NULL, " ", &save))
		rc = lwm_paths_add(argv, w, e);
	free(copy);
	LWM_TRY(rc);
	snprintf(n, sizeof n, "%" PRId64, ranks);
	LWM_TRY(lwm_paths_add(argv, "-n", e));
	return lwm_paths_add(argv, n, e);
}

int lwm_run_command_line(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, const struct lwm_run_cfg *c,
			 const struct lwm_run_verdict *v, struct lwm_paths *argv, struct lwm_err *e)
{
	int64_t ranks = lwm_run_ranks(&p->stage[t->stage], c);
	if (ranks)
		LWM_TRY(add_launcher(c, ranks, argv, e));
	return lwm_run_program_line(p, t, v, argv, e);
}
