/* lwm-run - runs a pipeline file: here, or as batch jobs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cli/opt.h"
#include "common/pipeline/run.h"

static struct lwm_paths only;
static const char *from, *until, *launch;
static int64_t jobs = 1, restarts = 100, ranks;
static double say_every = 60;
static bool check, slurm, print, verify;

static const struct lwm_opt opts[] = {
	LWM_OPT_LIST(0, "only", &only, "STAGE", "this stage alone (may be repeated)", 0),
	LWM_OPT_STR(0, "from", &from, "STAGE", "this stage and those that follow from it", 0),
	LWM_OPT_STR(0, "until", &until, "STAGE", "this stage and those it needs", 0),
	LWM_OPT_INT('j', "jobs", &jobs, 1, 1024, "N", "tasks at a time", 0),
	LWM_OPT_INT(0, "ranks", &ranks, 0, 100000, "N", "ranks of stages that have ranks; 0: as the file says", 0),
	LWM_OPT_STR(0, "launch", &launch, "COMMAND", "what starts ranks (default mpirun, in a Slurm job srun)", 0),
	LWM_OPT_INT(0, "restarts", &restarts, 0, 1000000, "N", "how often a task that saved and stopped goes on", 0),
	LWM_OPT_SECONDS(0, "say-every", &say_every, "TIME", "how often to say how far tasks are; 0: never; a terminal shows it always", 0),
	LWM_OPT_FLAG(0, "check", &check, "only check the file and that the programs would take their options; other modes do so first"),
	LWM_OPT_FLAG(0, "verify", &verify, "read and check all finished outputs again, also those that look as they did"),
	LWM_OPT_FLAG(0, "slurm", &slurm, "submit as a chain of batch jobs"),
	LWM_OPT_FLAG(0, "print", &print, "with --slurm: print the scripts instead"),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-run",
	.summary = "Runs a pipeline: every task that is not complete and verified, in the order of its needs.",
	.operands = "PIPELINE.yaml",
	.min_operands = 1,
	.max_operands = 1,
	.opts = opts,
	.own_set = true,
	.stops = true,
	.stops_others = true,
	.details =
		"--set NAME=VALUE sets a variable of the file, its `out`, or any value by its path (stages.pack.args.fill=0.9).\n"
		"--plan prints each command and why it would run, and ends with 66 where an input is neither there nor made by a stage:\n"
		"of what `inputs` names, and of what a program reads that nothing comes before. A task is complete when its outputs\n"
		"exist, verify, and were made by the same command from the same inputs. Outputs are verified when a task ends; files\n"
		"that still have the same size, times and inode count as the same, until --verify. Logs are in OUT/logs, times in\n"
		"OUT/timing.jsonl. LWM_STEPS in the environment is stronger than what the file says of steps, and so for every option.\n"
		"Names with control characters are refused; everything else reaches the programs as it is, in batch scripts too.",
	.examples = "  lwm-run pipelines/demo.yaml\n"
		    "  lwm-run --plan pipelines/quickstart.yaml --set books=DIR --set videos=DIR --set out=runs/mine\n"
		    "  lwm-run --slurm --print pipelines/text.yaml | less\n",
};

/* The folder of this program: the others lie beside it. */
static int own_folder(char **out, struct lwm_err *e)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
	if (n <= 0)
		return lwm_fail_errno(e, LWM_EUNAVAIL, errno, "/proc/self/exe");
	path[n] = 0;
	*out = lwm_path_dir(path);
	return *out ? 0 : lwm_fail_memory(e, NULL);
}

/* slurm/NAME beside the programs: in the source tree or installed. LWM_HOME names another place. */
static char *slurm_file(const char *bin, const char *name)
{
	static const char *const places[] = { "%s/../slurm/%s", "%s/../share/lwm/slurm/%s", "%s/../../../slurm/%s" };
	const char *home = getenv("LWM_HOME");
	char *path = NULL, *real;
	if (home && asprintf(&path, "%s/slurm/%s", home, name) < 0)
		return NULL;
	for (int i = 0; i < 3 && (!path || !lwm_path_exists(path)); i++) {
		free(path);
		if (asprintf(&path, i == 0 ? places[0] : i == 1 ? places[1] : places[2], bin, name) < 0)
			return NULL;
	}
	real = realpath(path, NULL);
	free(path);
	return real;
}

/* One text to standard output: a plan, scripts, the numbers of jobs. */
static void print_text(struct lwm_str *text)
{
	fwrite(lwm_str_get(text), 1, text->len, stdout);
	lwm_str_release(text);
}

static int submit_jobs(struct lwm_pipeline *p, const struct lwm_run_cfg *c, const struct lwm_run_slurm_cfg *s, struct lwm_err *e)
{
	struct lwm_str out = { 0 };
	int rc = lwm_run_on_slurm(p, c, s, &out, e);
	if (rc == 0 && !print && !out.len)
		lwm_str_puts(&out, "nothing to submit: every stage is complete\n");
	print_text(&out);
	return rc;
}

static int print_plan(struct lwm_pipeline *p, const struct lwm_run_cfg *c, struct lwm_err *e)
{
	struct lwm_str out = { 0 };
	int rc = lwm_run_plan(p, c, &out, e);
	print_text(&out);
	return rc;
}

/* Whatever was asked for, the same is checked first: a stage that cannot start says so now, not after those before it have run for
 * days. */
static int run_checked(struct lwm_pipeline *p, const struct lwm_run_cfg *c, const struct lwm_run_slurm_cfg *s, bool plan,
		       struct lwm_err *e)
{
	if (print && !slurm)
		return lwm_fail(e, LWM_EUSAGE, "--print goes with --slurm (for what would run here there is --plan)");
	LWM_TRY(lwm_run_check(p, c, e));
	if (slurm && !s->job_sh)
		return lwm_fail(e, LWM_EUNAVAIL, "slurm/job.sh is not beside the programs; set LWM_HOME to its folder's parent");
	if (slurm)
		LWM_TRY(lwm_run_check_slurm(p, s, e));
	if (check)
		return 0;
	if (slurm && (print || !plan))
		return submit_jobs(p, c, s, e);
	return plan ? print_plan(p, c, e) : lwm_run_here(p, c, e);
}

static int run_pipeline(const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_run_cfg c = { .force = a->common.force, .json = a->common.json, .jobs = jobs, .restarts = restarts,
				 .ranks = ranks, .launch = launch, .say_every = say_every,
				 .verify = verify, .threads = a->common.threads };
	struct lwm_pipeline *p = NULL;
	char *bin, *job = NULL, *site = NULL;
	int rc;
	unsetenv("LWM_RANKS"); /* ours by now; to lwm-merge-ckpt it would be the ranks to cut a checkpoint for */
	LWM_TRY(own_folder(&bin, e));
	LWM_GO(lwm_pipeline_load(&p, a->operand[0], bin, a->set, e));
	LWM_GO(lwm_pipeline_select_stages(p, &only, from, until, e));
	if (slurm) {
		job = slurm_file(bin, "job.sh");
		site = slurm_file(bin, "site.sh");
	}
	struct lwm_run_slurm_cfg s = { .job_sh = job, .site = site, .print = print, .sets = a->set };
	rc = run_checked(p, &c, &s, a->common.plan, e);
out:
	lwm_pipeline_free(p);
	free(job);
	free(site);
	free(bin);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, run_pipeline);
}
