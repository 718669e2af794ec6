/* judge.h - inside common/pipeline: is a task complete, and if not, why.
 *
 * A task is complete when its outputs exist and verify, and its record in OUT/.lwm-run/LABEL.json names the same command and
 * inputs of the same content; without a record (made by a batch script or by hand), when its outputs are newer than its inputs.
 * What was hashed or verified once and looks the same is taken as it was (seen.h). The plan, a run here and a chain of batch jobs
 * all ask these functions and no others. Local calls; tasks may be judged by several threads.
 */
#ifndef LWM_PIPELINE_JUDGE_H
#define LWM_PIPELINE_JUDGE_H

#include "common/pipeline/run.h"

struct lwm_run_verdict {
	bool complete;
	bool stale;        /* inputs or, for a tool that does not resume, anything of its outputs is left from before */
	char why[600];     /* one phrase: "output missing: x.h5" */
};

/* Judges all tasks of a stage, v[0 .. ntask), by several threads. Starts lwm-inspect (or the stage's own check) on the
 * outputs, unless these were verified and look as they did then. */
int lwm_run_judge_stage(const struct lwm_pipeline *p, const struct lwm_pipe_stage *st, const struct lwm_run_cfg *c,
			struct lwm_run_verdict *v, struct lwm_err *e);
/* Do the outputs exist and verify? They are looked at in any case. *why gets the phrase. 0 yes, 1 no. */
int lwm_run_verify_outputs(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, char *why, size_t size, struct lwm_err *e);
/* Writes the record: the command, the inputs as they are now, and whether the task has been done. */
int lwm_run_write_record(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, bool done, struct lwm_err *e);

#endif
