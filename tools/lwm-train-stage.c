/* lwm-train-stage - trains one stage: a language model on packed rows, its layers on clips of patches, or the VQGAN on frames. */
#include <stdio.h>

#include "common/base/log.h"
#include "common/cli/opt.h"
#include "common/train/stage.h"

static struct lwm_stage s;
static struct lwm_opt opts[LWM_SETTINGS_MAX]; /* from the tables of common/train: the common settings, and each objective's */

/* A run and a plan ask the same with the ranks that they have. */
static int check(const struct lwm_args *a, struct lwm_err *e)
{
	return a->checking ? lwm_stage_check(&s, (int)s.plan_ranks, e) : 0;
}

static const struct lwm_tool tool = {
	.name = "lwm-train-stage",
	.summary = "Trains one stage of a language model, of its layers on clips, or of the VQGAN; resumes where it was stopped.",
	.operands = "",
	.opts = opts,
	.ranks = true,
	.stops = true,
	.check = check,
	.details = "--data PATH=SHARE mixes sources: PATH=84 beside PATH=16; PATH=0:90,1000:50 is a share that changes over the steps,\n"
		   "in proportion between two of them; PATH=84*0.5 makes labels of a source weigh half. A resumed run must have the same.\n"
		   "--loss-weighting: mean over examples (segments of rows) of the mean over their labels (per_example); over all labels\n"
		   "(per_token); over rows, those without labels too, as released (published). With --text-weight T --vision-weight V each\n"
		   "costs T times the mean over its text labels plus V times that over its vision labels; per_token: a label weighs T or V.\n"
		   "\n"
		   "Started under mpirun or srun its ranks share the work as --mesh-dim says; with --device cuda or auto each takes the\n"
		   "GPU of its number on the node. SIGUSR1, SIGTERM and the time limit end it after a clean save with exit code 75: run\n"
		   "it again. A file STOP in the output folder ends it with 0, for good. A second run in the same folder is refused (73).\n",
	.examples = "  lwm-train-stage -o runs/32k --model nano --data rows/32k --seq-length 32K --theta 1e6\n"
		    "  mpirun -n 4 lwm-train-stage --config stage.yaml -o runs/1m --mesh-dim 1,1,1,-1",
};

static int plan(const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_str out = { 0 };
	int rc = lwm_stage_plan(&s, (int)s.plan_ranks, a->common.json, &out, e);
	fwrite(lwm_str_get(&out), 1, out.len, stdout);
	lwm_str_release(&out);
	return rc;
}

/* All ranks measure; the first one plans. */
static int calibrate(const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_comm *world;
	int rc;
	LWM_TRY(lwm_comm_mpi(&world, NULL, NULL, e));
	lwm_log_rank(lwm_comm_rank(world), lwm_comm_size(world));
	rc = lwm_stage_calibrate(&s, world, e);
	if (rc == 0 && lwm_comm_rank(world) == 0)
		rc = plan(a, e);
	rc = lwm_agree(world, rc, e);
	lwm_tool_say(rc, e);
	return lwm_comm_end(world, rc, e);
}

static int run(const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_comm *world;
	s.seed = a->common.seed;
	s.threads = a->common.threads;
	if (!a->common.plan && (s.suggest || s.calibrate))
		return lwm_fail(e, LWM_EUSAGE, "--%s belongs to --plan", s.suggest ? "suggest" : "calibrate");
	if (a->common.plan)
		return s.calibrate ? calibrate(a, e) : plan(a, e);
	LWM_TRY(lwm_comm_mpi(&world, NULL, NULL, e));
	lwm_log_rank(lwm_comm_rank(world), lwm_comm_size(world));
	int rc = lwm_stage_run(&s, world, e);
	lwm_tool_say(rc, e);
	return lwm_comm_end(world, rc, e);
}

int main(int argc, char **argv)
{
	struct lwm_err e = { 0 };
	if (lwm_stage_init(&s, &e) < 0) {
		fprintf(stderr, "lwm-train-stage: %s\n", e.msg);
		return LWM_EMEMORY;
	}
	lwm_settings_options(&s, opts);
	return lwm_tool_main(&tool, argc, argv, run);
}
