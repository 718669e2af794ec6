/* lwm-status - what became of a run: state, progress, checkpoint, restarts, where the time went, what to do next.
 *
 * It reads the files of a folder and nothing else (common/eval/run_status.h; run_list.h for a folder of several stages). */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/stop.h"
#include "common/cli/opt.h"
#include "common/eval/run_list.h"

static struct {
	bool watch, verify;
	double every;
} o = { .every = 5 };

static const struct lwm_opt opts[] = {
	LWM_OPT_FLAG('w', "watch", &o.watch, "look again and again, until all is complete or Ctrl-C"),
	LWM_OPT_SECONDS(0, "every", &o.every, "TIME", "between two looks of --watch", 0),
	LWM_OPT_FLAG(0, "verify", &o.verify, "read every byte of the newest checkpoint; exit code 1 when a newer one is damaged"),
	LWM_OPT_END,
};

static const struct lwm_tool tool = {
	.name = "lwm-status",
	.summary = "Says what became of a run, from its files: state, loss, rate, checkpoint, restarts, time, what to do next.",
	.operands = "RUN...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.stops = true,
	.details = "RUN is the output folder of lwm-train-stage, or a folder with several, such as that of a pipeline. It may be in use.\n"
		   "States: running; silent (no sign of life for long); saved (run it again); stopped (a file STOP); complete; diverged (79);\n"
		   "failed; dead (it ended without a word). Nothing is written, and no scheduler is asked. A checkpoint is verified by its\n"
		   "seal and the sizes of its files; --verify reads all of it.\n"
		   "Exit codes: 0, whatever the state is (--json tells programs); 66: there is no run in the folder.",
	.examples = "  lwm-status runs/stage_32k\n  lwm-status --watch --every 30s runs/stage_1m\n"
		    "  lwm-status --json runs/stage_32k | jq -r .state\n",
};

/* Of one folder; *whole: nothing newer than the checkpoint is damaged; *complete: nothing is left to wait for. */
static int look_at(const char *dir, bool json, double now, struct lwm_str *out, bool *whole, bool *complete, struct lwm_err *e)
{
	struct lwm_run_list l;
	int rc = lwm_run_list_read(&l, dir, now, o.verify, e);
	bool single = rc == 0 && l.n == 1 && !strcmp(l.v[0].dir, dir);
	for (int64_t i = 0; rc == 0 && i < l.n; i++) {
		*whole = *whole && !l.v[i].damaged.n;
		*complete = *complete && l.v[i].state == LWM_RUN_COMPLETE;
	}
	if (rc == 0 && l.open)
		*complete = false;
	if (single)
		(json ? lwm_run_status_json : lwm_run_status_show)(&l.v[0], out);
	else if (rc == 0)
		(json ? lwm_run_list_json : lwm_run_list_show)(&l, out);
	if (rc == 0 && json)
		lwm_str_putc(out, '\n');
	lwm_run_list_release(&l);
	return rc;
}

static double now_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* All folders, printed at once: a screen that is drawn anew does not flicker. */
static int look_once(const struct lwm_args *a, bool clear, bool *whole, bool *complete, struct lwm_err *e)
{
	struct lwm_str out = { 0 };
	int rc = 0;
	*whole = *complete = true;
	for (int i = 0; i < a->noperand && rc == 0; i++) {
		char *dir = a->operand[i];
		for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--)
			dir[n - 1] = 0;
		if (i && !a->common.json)
			lwm_str_putc(&out, '\n');
		rc = look_at(dir, a->common.json, now_seconds(), &out, whole, complete, e);
	}
	if (rc == 0)
		rc = lwm_str_ok(&out, e);
	if (rc == 0)
		printf("%s%s", clear ? "\033[H\033[J" : "", lwm_str_get(&out));
	if (rc == 0 && fflush(stdout))
		rc = lwm_fail(e, LWM_EIO, "standard output: cannot write");
	lwm_str_release(&out);
	return rc;
}

/* Sleeps in short naps, so that Ctrl-C is heard. */
static bool wait_or_stop(double seconds)
{
	const struct timespec nap = { 0, 100 * 1000 * 1000 };
	double end = now_seconds() + seconds;
	while (lwm_stop_wanted() < LWM_STOP_END) {
		if (now_seconds() >= end)
			return true;
		nanosleep(&nap, NULL);
	}
	return false;
}

static int show_status(const struct lwm_args *a, struct lwm_err *e)
{
	bool whole, complete, watch = o.watch && !a->common.plan, screen = watch && !a->common.json && isatty(1);
	if (watch)
		lwm_stop_install(0, NULL);
	do {
		LWM_TRY(look_once(a, screen, &whole, &complete, e));
		if (watch && !complete && !screen && !a->common.json)
			putchar('\n');
	} while (watch && !complete && wait_or_stop(o.every));
	return o.verify && !whole ? lwm_fail(e, LWM_ENO, "a checkpoint newer than the last whole one is damaged") : 0;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, show_status);
}
