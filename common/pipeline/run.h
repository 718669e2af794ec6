/* run.h - running a pipeline: checking it, planning it, running it on this machine or as a chain of batch jobs.
 *
 *	lwm_pipeline_load(&p, ...), lwm_pipeline_select_stages(p, ...)
 *	lwm_run_check(p, &cfg, e)                         always first: a stage that cannot start says so now
 *	lwm_run_plan(p, &cfg, &text, e)                   what would run, and why
 *	lwm_run_here(p, &cfg, e)                          run it
 *	lwm_run_on_slurm(p, &cfg, &slurm, &text, e)       or submit it
 *
 * Which tasks are complete is decided in one place (judge.h). Running: OUT/logs/LABEL.log takes what a task says, OUT/timing.jsonl
 * a line for each that ran. Local calls; one runner a process.
 */
#ifndef LWM_PIPELINE_RUN_H
#define LWM_PIPELINE_RUN_H

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

/* Asks the program of each selected stage, with that stage's ranks, whether it would take its options (--check-options);
 * nothing runs. Fails with the program's code and sentence; -LWM_EUSAGE for a --launch with control characters where a stage
 * has ranks. Tasks are made anew afterwards. */
int lwm_run_check(struct lwm_pipeline *p, const struct lwm_run_cfg *c, struct lwm_err *e);

/* What would run, and why; complete tasks are counted. -LWM_ENOINPUT, after the whole plan, for an input that does not exist
 * and that no stage makes. */
int lwm_run_plan(struct lwm_pipeline *p, const struct lwm_run_cfg *c, struct lwm_str *out, struct lwm_err *e);

/* Runs what is not complete. A task that fails stops those that need it; the others continue. Returns the first failure's code
 * (of a lost rank -LWM_ERANK), else -LWM_ESAVED after a stop that was asked for, and 0 where a stop file stands: OUT/STOP, or
 * one in the folder of a stage that resumes. */
#define LWM_RUN_STOP "STOP"
int lwm_run_here(struct lwm_pipeline *p, const struct lwm_run_cfg *c, struct lwm_err *e);

struct lwm_run_slurm_cfg {
	const char *job_sh; /* slurm/job.sh: the functions that every script starts with; copied into it */
	const char *site;   /* slurm/site.sh, read when the job starts; NULL: none */
	bool print;         /* scripts to `out` instead of to sbatch */
	const struct lwm_paths *sets; /* the --set texts, for jobs that read the file again */
};
/* Can the selected stages be batch jobs? -LWM_EUSAGE for a working folder, job.sh or site.sh with control characters in its
 * path, for an output folder, mem or partition that a job's header cannot hold, for programs in a folder that PATH cannot
 * name, for a file that is standard input. */
int lwm_run_check_slurm(const struct lwm_pipeline *p, const struct lwm_run_slurm_cfg *s, struct lwm_err *e);
/* One job or array for each stage that is not complete, each after those it needs; first the check above, of all of them.
 * Scripts stay in OUT/.lwm-run/slurm. */
int lwm_run_on_slurm(struct lwm_pipeline *p, const struct lwm_run_cfg *c, const struct lwm_run_slurm_cfg *s, struct lwm_str *out,
		     struct lwm_err *e);

#endif
