/* lwm-eval-needle - hides numbers in long text and asks the model for them.
 *
 * Under mpirun or srun: rank 0 holds the lock of the output folder; all ranks open the model and the haystack; teams of ranks
 * share the trials (common/eval/needle_eval.h); then rank 0 writes the report. --report-only is that last part alone. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/stop.h"
#include "common/cli/opt.h"
#include "common/comm/device.h"
#include "common/eval/needle_report.h"
#include "common/infer/load.h"
#include "common/text/tokenizer.h"

static struct {
	const char *model, *tokenizer, *device, *title;
	struct lwm_paths haystack;
	struct lwm_sweep sweep;
	int64_t chunk, team;
	int colors, cache;
	double need, grace;
	bool report_only, older_ok;
} o = { .device = "auto",
	.title = "Needle in a haystack",
	.chunk = 2048,
	.team = 1,
	.grace = 60,
	.sweep = { .length_min = 1000,
		   .length_max = 32000,
		   .nlengths = 3,
		   .ndepths = 3,
		   .rounds = 2,
		   .task = { .needles = 1, .retrieve = 1, .answer_tokens = 32 } } };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('m', "model", &o.model, "DIR", "merged model, or a checkpoint folder", LWM_OPT_REQUIRED),
	LWM_OPT_STR('o', "output", &o.sweep.out, "DIR", "results.jsonl, summary.csv/json, heatmap.svg/png, report.html",
		    LWM_OPT_REQUIRED),
	LWM_OPT_LIST(0, "haystack", &o.haystack, "FILE", "text to hide in: .txt, or .jsonl with key \"text\"; .gz and .zst too", 0),
	LWM_OPT_OLDER(&o.older_ok),
	LWM_OPT_MODEL_TOKENIZER(0, &o.tokenizer),
	LWM_OPT_DEVICE(&o.device),
	LWM_OPT_CHOICE(0, "cache", &o.cache, lwm_cache_kinds, "how keys and values are kept; int8 takes half of bf16's memory", 0),
	LWM_OPT_HEAD("Grid"),
	LWM_OPT_INT(0, "context-lengths-min", &o.sweep.length_min, 16, 1 << 30, "N", "shortest context, prompt and answer", 0),
	LWM_OPT_INT(0, "context-lengths-max", &o.sweep.length_max, 16, 1 << 30, "N", "longest context", 0),
	LWM_OPT_INT(0, "n-context-length-intervals", &o.sweep.nlengths, 1, 1000, "N", "lengths", 0),
	LWM_OPT_FLAG(0, "log-lengths", &o.sweep.log_lengths, "lengths spaced by factors"),
	LWM_OPT_INT(0, "n-document-depth-intervals", &o.sweep.ndepths, 1, 1000, "N", "depths from 0 to 100 %", 0),
	LWM_OPT_INT(0, "n-rounds", &o.sweep.rounds, 1, 100000, "N", "trials in a cell", 0),
	LWM_OPT_HEAD("Task"),
	LWM_OPT_INT(0, "n-needles-total", &o.sweep.task.needles, 1, LWM_NEEDLES_MAX, "N", "needles in a text", 0),
	LWM_OPT_INT(0, "n-needles-retrieve", &o.sweep.task.retrieve, 1, LWM_NEEDLES_MAX, "R", "how many of them are asked for", 0),
	LWM_OPT_INT(0, "answer-tokens", &o.sweep.task.answer_tokens, 1, 4096, "N", "most tokens of an answer", 0),
	LWM_OPT_PREFILL(&o.chunk),
	LWM_OPT_INT(0, "ranks-per-context", &o.team, 1, 1 << 20, "N", "ranks that hold one context together", 0),
	LWM_OPT_HEAD("Report"),
	LWM_OPT_STR(0, "title", &o.title, "TEXT", "of report and heat map", 0),
	LWM_OPT_CHOICE(0, "cmap", &o.colors, lwm_color_names, "colours of the heat map", 0),
	LWM_OPT_DOUBLE(0, "need", &o.need, 0, 1, "X", "exit 1 when a length's accuracy is below X", 0),
	LWM_OPT_FLAG(0, "report-only", &o.report_only, "only make the report anew from results.jsonl"),
	LWM_OPT_SECONDS(0, "grace", &o.grace, "TIME", "stop this long before the Slurm limit", 0),
	LWM_OPT_END,
};

static const struct lwm_tool tool = {
	.name = "lwm-eval-needle",
	.summary = "Needle-in-a-haystack sweep over context length and depth, with report and heat map.",
	.operands = "",
	.opts = opts,
	.ranks = true,
	.stops = true,
	.details = "Every trial is a function of seed, length, depth and round. Run again it does what is missing; under mpirun or srun\n"
		   "the ranks share the trials, or with --ranks-per-context groups of them do. With --n-needles-total above 1\n"
		   "depths are drawn and the score counts each number.",
	.examples = "  lwm-eval-needle -m runs/model -o runs/needle --haystack book.txt --context-lengths-max 32K\n"
		    "  srun lwm-eval-needle -m model -o sweep --haystack pg19.jsonl --n-needles-total 4 --n-needles-retrieve 2",
};

static int run_sweep(struct lwm_comm *c, const struct lwm_args *a, struct lwm_err *e)
{
	struct lk_dev *dev = NULL;
	struct lwm_lm m = { 0 };
	struct lwm_tokenizer *tok = NULL;
	struct lwm_haystack h = { 0 };
	struct lwm_engine *g = NULL;
	struct lwm_comm *team = NULL;
	LWM_TRY(lwm_comm_split(c, lwm_comm_rank(c) / (int)o.team, lwm_comm_rank(c), &team, e));
	int rc = lwm_device_open(&dev, o.device, a->common.threads, e);
	if (rc == 0)
		rc = lwm_lm_open_with_tokenizer(&m, &tok, o.model, o.older_ok, o.tokenizer, dev, e);
	if (rc == 0)
		rc = lwm_haystack_read(&h, &o.haystack, tok, e);
	if (rc == 0 && o.team == 1)
		rc = lwm_engine_new(&g, dev, &m.cfg, m.weights, o.chunk, 1, e);
	rc = lwm_agree(c, rc, e);
	if (rc == 0 && o.team > 1)
		rc = lwm_agree(c, lwm_engine_new_shared(&g, dev, &m.cfg, m.weights, team, o.sweep.length_max, 1, e), e);
	if (rc == 0)
		rc = lwm_agree(c, lwm_engine_set_cache(g, (enum lwm_cache_kind)o.cache, e), e);
	if (rc == 0 && lwm_comm_rank(c) == 0)
		lwm_lm_warn_length(&m, o.sweep.length_max, "--context-lengths-max");
	o.sweep.model_hash = m.hash;
	o.sweep.team = o.team;
	if (rc == 0)
		rc = lwm_sweep_run(&o.sweep, g, &h, tok, c, e);
	lwm_engine_free(g);
	lwm_haystack_release(&h);
	lwm_tokenizer_free(tok);
	lwm_lm_close(&m);
	lk_dev_close(dev);
	lwm_comm_free(team);
	return rc;
}

static int write_report(struct lwm_err *e, double *worst)
{
	char details[512];
	double mean;
	struct lwm_needle_report r = { .sweep = &o.sweep, .title = o.title, .details = details,
				       .colors = (enum lwm_colors)o.colors };
	snprintf(details, sizeof details,
		 "%s; %" PRId64 " of %" PRId64 " needles asked for, %" PRId64
		 " trials a cell, seed %" PRIu64 "; a length counts prompt and answer in the model's own tokens",
		 lwm_path_base(o.model), o.sweep.task.retrieve, o.sweep.task.needles, o.sweep.rounds, o.sweep.task.seed);
	LWM_TRY(lwm_needle_report_write(&r, &mean, worst, e));
	if (isnan(mean))
		return lwm_fail(e, LWM_ENOINPUT, "%s: no results of this grid in it", o.sweep.out);
	printf("{\"accuracy\":%.6f,\"worst_length_accuracy\":%.6f}\n", mean, *worst);
	if (*worst < o.need)
		return lwm_fail(e, LWM_ENO, "the worst length has an accuracy of %.3f, below the %.3f asked for", *worst, o.need);
	return 0;
}

static int check_options(struct lwm_err *e)
{
	if (o.sweep.task.retrieve > o.sweep.task.needles)
		return lwm_fail(e, LWM_EUSAGE, "--n-needles-retrieve %" PRId64 " is more than --n-needles-total %" PRId64,
				o.sweep.task.retrieve, o.sweep.task.needles);
	if (o.sweep.length_min > o.sweep.length_max)
		return lwm_fail(e, LWM_EUSAGE, "--context-lengths-min is above --context-lengths-max");
	if (!o.haystack.n && !o.report_only)
		return lwm_fail(e, LWM_EUSAGE, "--haystack is missing");
	if (o.report_only && !lwm_path_is_dir(o.sweep.out))
		return lwm_fail(e, LWM_ENOINPUT, "%s: no such folder, so no results to report", o.sweep.out);
	return 0;
}

/* Is there what the trials need? A report alone needs none of it. */
static int look_at_inputs(struct lwm_err *e)
{
	if (o.report_only)
		return 0;
	for (int64_t i = 0; i < o.haystack.n; i++)
		LWM_TRY(lwm_path_want(o.haystack.v[i], e));
	return lwm_lm_check_files(o.model, o.older_ok, o.tokenizer, e);
}

/* What is there and what is left; of the model only its record. */
static int print_plan(bool json, struct lwm_err *e)
{
	struct lwm_needle_results done = { 0 };
	int64_t *length = NULL, nl = 0, nd = 0;
	double *depth = NULL;
	char *path = lwm_path_join(o.sweep.out, "results.jsonl");
	int rc = path ? lwm_results_read(&done, path, e) : lwm_fail_memory(e, NULL);
	if (rc == 0)
		rc = lwm_sweep_lengths(&o.sweep, &length, &nl, e);
	if (rc == 0)
		rc = lwm_sweep_depths(&o.sweep, &depth, &nd, e);
	if (rc == 0) {
		printf(json ? "{\"trials\":%" PRId64 ",\"done\":%" PRId64 ",\"lengths\":[" :
			      "trials   %" PRId64 ", %" PRId64 " of them done\nlengths ",
		       nl * (o.sweep.task.needles > 1 ? 1 : nd) * o.sweep.rounds, done.n);
		for (int64_t i = 0; i < nl; i++)
			printf(json ? "%s%" PRId64 : "%s %" PRId64, json && i ? "," : "", length[i]);
		printf(json ? "]}\n" : "\n");
	}
	free(length);
	free(depth);
	free(path);
	lwm_results_release(&done);
	return rc;
}

static int eval_needle(const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_comm *c;
	struct lwm_lock *lock = NULL;
	double worst = NAN;
	o.sweep.task.seed = (uint64_t)a->common.seed;
	if (a->common.plan) {
		LWM_TRY(check_options(e));
		LWM_TRY(look_at_inputs(e));
		return print_plan(a->common.json, e);
	}
	LWM_TRY(lwm_comm_mpi(&c, NULL, NULL, e));
	lwm_log_rank(lwm_comm_rank(c), lwm_comm_size(c));
	lwm_stop_install(o.grace, NULL);
	int rc = check_options(e);
	if (rc == 0 && lwm_comm_size(c) % o.team)
		rc = lwm_fail(e, LWM_EUSAGE, "%d ranks do not form groups of --ranks-per-context %" PRId64,
			      lwm_comm_size(c), o.team);
	if (rc == 0 && lwm_comm_rank(c) == 0 && !o.report_only)
		rc = lwm_mkdirs(o.sweep.out, e);
	if (rc == 0 && lwm_comm_rank(c) == 0 && !o.report_only)
		rc = lwm_lock_take(&lock, o.sweep.out, 100, e);
	rc = lwm_agree(c, rc, e);
	if (rc == 0 && !o.report_only)
		rc = run_sweep(c, a, e);
	if (rc == 0)
		rc = lwm_agree(c, lwm_comm_rank(c) == 0 ? write_report(e, &worst) : 0, e);
	lwm_lock_free(lock);
	lwm_tool_say(rc, e);
	return lwm_comm_end(c, rc, e);
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, eval_needle);
}
