/* command.h - inside common/pipeline: the command of a task, and starting programs.
 *
 * A stage with ranks is started by a launcher (mpirun, srun, or what --launch says); everything else, and the program inside a
 * batch script, by its program line. Local calls.
 */
#ifndef LWM_PIPELINE_COMMAND_H
#define LWM_PIPELINE_COMMAND_H

#include <sys/types.h>

#include "common/base/str.h"
#include "common/pipeline/judge.h"

/* The ranks that a stage is started with: --ranks over the file's; 0: it is a plain process. */
int64_t lwm_run_ranks(const struct lwm_pipe_stage *st, const struct lwm_run_cfg *c);
/* Where a program is: of "lwm-..." the one beside lwm-run when there is one, else the name as it is, for PATH. Caller frees; NULL:
 * no memory. */
char *lwm_run_find_program(const struct lwm_pipeline *p, const char *tool);
/* The program with its folder, --force where v says that old outputs of a tool that does not resume are in the way, the arguments.
 * Added to argv. v may be NULL. */
int lwm_run_program_line(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, const struct lwm_run_verdict *v,
			 struct lwm_paths *argv, struct lwm_err *e);
/* The same with the launcher in front, for a stage that has ranks. */
int lwm_run_command_line(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, const struct lwm_run_cfg *c,
			 const struct lwm_run_verdict *v, struct lwm_paths *argv, struct lwm_err *e);

/* Asks the task's program about its options, with the ranks it would have: question is --check-options or --plan. *status is
 * its exit code, text the first line it writes to standard error. Programs that are not ours do not know the question: they
 * are not started, and *status is 0. */
int lwm_run_ask_program(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, const struct lwm_run_cfg *c,
			const char *question, int *status, char *text, size_t size, struct lwm_err *e);

/* ---- processes (spawn.c) ---- */

/* Starts argv without a shell, in its own process group, standard input closed. fds may be equal; both stay open here. */
int lwm_spawn_start(const struct lwm_paths *argv, int out_fd, int err_fd, pid_t *pid, struct lwm_err *e);
/* Runs to the end; *status is the exit code, 128 + signal otherwise. What it writes to `fd` (1 or 2) goes to `text`, the
 * first `size` bytes, 0-terminated; of 1 and 2 the other goes nowhere (1) or to our own standard error (2). */
int lwm_spawn_wait(const struct lwm_paths *argv, int fd, int *status, char *text, size_t size, struct lwm_err *e);

#endif
