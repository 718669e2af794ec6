/* run.h - which tasks of a pipeline must run and why, and running them on this machine.
 *
 * A task is complete when its outputs exist and verify, and its record in OUT/.lwm-run/LABEL.json names the same command and
 * inputs of the same content; without a record (made by a batch script or by hand), when its outputs are newer than its inputs.
 * What was hashed or verified once and looks the same is taken as it was (seen.h).
 * Running: OUT/logs/LABEL.log takes what a task says, OUT/timing.jsonl a line for each that ran. Local calls; one runner a
 * process.
 */
#ifndef LWM_PIPELINE_RUN_H
#define LWM_PIPELINE_RUN_H

#include <sys/types.h>

#include "common/base/str.h"
#include "common/pipeline/pipeline.h"

struct lwm_run_cfg {
	bool force;        /* selected tasks run even when complete */
	bool verify;       /* files that look as they did when they were verified are hashed all the same */
	int64_t threads;   /* tasks that are looked at at a time; 0: as many as there are processors */
	bool json;         /* the plan as JSON */
	int64_t jobs;      /* tasks at a time */
	int64_t restarts;  /* how often a task that exits 75 is started again */
	double say_every;  /* seconds between the lines about tasks that run; a terminal has its own pace */
	int64_t ranks;     /* over the file's, for stages with ranks; 0: the file's */
	const char *launch; /* command in front of stages with ranks; NULL: srun in a Slurm job, else mpirun */
};

struct lwm_verdict {
	bool complete;
	bool stale;        /* inputs or, for a tool that does not resume, anything of its outputs is left from before */
	char why[600];     /* one phrase: "output missing: x.h5" */
};

/* Local. Starts lwm-inspect (or the stage's own check) on the outputs, unless these were verified and look as they did then. Tasks
 * may be judged by several threads. */
int lwm_run_judge(struct lwm_pipeline *p, const struct lwm_pipe_task *t, const struct lwm_run_cfg *c,
		  struct lwm_verdict *v, struct lwm_err *e);
/* All tasks of a stage, v[0 .. ntask), by several threads. */
int lwm_run_judge_stage(struct lwm_pipeline *p, const struct lwm_pipe_stage *st, const struct lwm_run_cfg *c, struct lwm_verdict *v,
			struct lwm_err *e);
/* Do the outputs exist and verify? They are looked at in any case. *why gets the phrase. 0 yes, 1 no. */
int lwm_run_verify(struct lwm_pipeline *p, const struct lwm_pipe_task *t, char *why, size_t size, struct lwm_err *e);
int lwm_run_record(struct lwm_pipeline *p, const struct lwm_pipe_task *t, bool done, struct lwm_err *e);
/* The whole command: launcher, program with its folder, arguments. */
int lwm_run_command(struct lwm_pipeline *p, const struct lwm_pipe_task *t, const struct lwm_run_cfg *c,
		    const struct lwm_verdict *v, struct lwm_paths *argv, struct lwm_err *e);
/* Text for people, quoted so that a shell would read it back. */
void lwm_run_quote(const char *word, struct lwm_str *out);

/* What would run, and why; complete tasks are counted. */
int lwm_run_plan(struct lwm_pipeline *p, const struct lwm_run_cfg *c, struct lwm_str *out, struct lwm_err *e);
/* Runs what is not complete. A task that fails stops those that need it; the others go on. Returns the first failure's code (of a
 * lost rank -LWM_ERANK), else -LWM_ESAVED after a stop that was asked for, and 0 where a stop file stands: OUT/STOP, or one in the
 * folder of a stage that resumes. */
#define LWM_RUN_STOP "STOP"
int lwm_run_execute(struct lwm_pipeline *p, const struct lwm_run_cfg *c, struct lwm_err *e);
/* Asks the program of each stage, with that stage's ranks, whether it would take its options (--check-options); nothing runs.
 * Fails with the program's code and sentence. Tasks are made anew afterwards. */
int lwm_run_check(struct lwm_pipeline *p, const struct lwm_run_cfg *c, struct lwm_err *e);

/* ---- processes (spawn.c) ---- */

/* Starts argv without a shell, in its own process group, standard input closed. fds may be equal; both stay open here. */
int lwm_spawn(const struct lwm_paths *argv, int out_fd, int err_fd, pid_t *pid, struct lwm_err *e);
/* Runs to the end; *status is the exit code, 128 + signal otherwise. What it writes to `fd` (1 or 2) goes to `text`, the
 * first `size` bytes, 0-terminated; of 1 and 2 the other goes nowhere (1) or to our own standard error (2). */
int lwm_spawn_wait(const struct lwm_paths *argv, int fd, int *status, char *text, size_t size, struct lwm_err *e);

/* ---- as batch jobs (run_slurm.c) ---- */

struct lwm_slurm_cfg {
	const char *job_sh; /* slurm/job.sh: the functions that every script starts with; copied into it */
	const char *site;   /* slurm/site.sh, read when the job starts; NULL: none */
	bool print;         /* scripts to `out` instead of to sbatch */
	const struct lwm_paths *sets;
};
/* One job or array for each stage that is not complete, each behind those it needs. Scripts stay in OUT/.lwm-run/slurm.
 * -LWM_EUSAGE for a working folder, job.sh or site.sh with control characters in its path, for an output folder, mem or partition
 * that a job's header cannot hold, for programs in a folder that PATH cannot name. */
int lwm_run_slurm(struct lwm_pipeline *p, const struct lwm_run_cfg *c, const struct lwm_slurm_cfg *s, struct lwm_str *out,
		  struct lwm_err *e);

#endif
