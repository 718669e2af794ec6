/* pipeline.h - a pipeline file: stages with their needs, and the finished command lines of their tasks.
 *
 *	lwm_pipeline_load(&p, "pipelines/demo.yaml", bin_dir, sets, e)
 *	lwm_pipeline_select_stages(p, &only, from, until, e)
 *	for each i in p->order: lwm_pipeline_make_tasks(p, i, e), then p->stage[i].task[0..ntask)
 *	lwm_pipeline_free(p)
 *
 * The format is described in pipelines/README.md. Loading checks the whole file: unknown keys, names, needs, circles. The tasks
 * of a stage are made late, because `foreach` looks at files that earlier stages may write. Values, sets and names of files with
 * control characters are refused. Everything that is wrong with the file is -LWM_EUSAGE, with its place. Local calls, one thread.
 */
#ifndef LWM_PIPELINE_PIPELINE_H
#define LWM_PIPELINE_PIPELINE_H

#include "common/base/arena.h"
#include "common/base/path.h"
#include "common/cli/yaml.h"

/* How the outputs of a stage are verified: lwm-inspect for .h5, .safetensors and folders, existence for others; existence;
 * lwm-inspect; a command of the file. */
enum lwm_pipe_check { LWM_PIPE_CHECK_AUTO, LWM_PIPE_CHECK_EXISTS, LWM_PIPE_CHECK_INSPECT, LWM_PIPE_CHECK_COMMAND };

struct lwm_pipe_task {
	int stage;             /* index of its stage */
	int64_t index;         /* among the stage's tasks */
	const char *item;      /* of foreach; NULL */
	const char *label;     /* its name, and that of its log and record: "tokenize-moby_dick-1f2e3d4c" */
	const char *to;        /* file that gets standard output; NULL: the log */
	struct lwm_paths argv; /* without launcher; [0] is the tool's name */
	struct lwm_paths inputs; /* what a change of makes it run again: operands, `inputs`, the item, outputs of needed stages */
	struct lwm_paths outputs, check; /* check: argv of the stage's own check, or empty */
	int64_t given, ngiven; /* inputs of the key `inputs`, from which on, how many: files and folders; operands may be words */
};

struct lwm_pipe_stage {
	const char *name, *tool;
	struct lwm_node *node; /* of the file */
	int *need, nneed;      /* indices of the stages that come first */
	enum lwm_pipe_check check;
	int64_t ranks;         /* 0: a plain process */
	int64_t nodes, gpus, cpus;
	double seconds;        /* time limit for a batch job; 0: the site's default */
	const char *mem, *partition;
	bool resumes;          /* the tool continues from what its outputs hold */
	bool selected;         /* by --only, --from, --until; all of them before that */
	bool expanded;         /* its tasks are made */
	struct lwm_pipe_task *task;
	int64_t ntask;
};

struct lwm_pipeline {
	const char *file, *name, *out, *bin; /* bin: where lwm-* programs are looked for */
	struct lwm_pipe_stage *stage;
	int nstage, *order; /* indices, each stage after those it needs */
	bool pretend;          /* a foreach that finds nothing gets its own text as the one item: to check options */
	struct lwm_yaml *doc;
	struct lwm_node *vars, *defaults;
	struct lwm_arena *arena; /* owns every string and array above */
};

/* sets: NAME=VALUE texts; NAME is a variable, "out", "name", or a dotted path (stages.pack.args.seq-length). */
int lwm_pipeline_load(struct lwm_pipeline **out, const char *path, const char *bin, const struct lwm_paths *sets,
		      struct lwm_err *e);
void lwm_pipeline_free(struct lwm_pipeline *p); /* NULL is fine */
int lwm_pipeline_find_stage(const struct lwm_pipeline *p, const char *name); /* stage index or -1 */
/* Makes the tasks of a stage, and before that those of the stages it needs; once. A foreach that finds nothing is
 * -LWM_ENOINPUT; in a needed stage that is not selected it only means that nothing is known of its outputs. */
int lwm_pipeline_make_tasks(struct lwm_pipeline *p, int stage, struct lwm_err *e);
/* Forgets the tasks again, so that files are looked at anew. */
void lwm_pipeline_clear_tasks(struct lwm_pipeline *p, int stage);
/* Marks what --only, --from and --until leave: only these; this and what follows from it; this and what it needs. */
int lwm_pipeline_select_stages(struct lwm_pipeline *p, const struct lwm_paths *only, const char *from, const char *until,
			struct lwm_err *e);

#endif
