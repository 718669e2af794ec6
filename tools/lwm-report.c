/* lwm-report - one page about a whole run, and the checks that it has to pass (common/eval/run_report.h). */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/outfile.h"
#include "common/cli/opt.h"
#include "common/eval/run_report.h"
#include "common/media/frames.h"

static struct lwm_run_report r = { .title = "Run report", .max_pixels = LWM_MEDIA_MAX_PIXELS };
static const char *output;

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('o', "output", &output, "FILE", "the page (.html)", LWM_OPT_REQUIRED),
	LWM_OPT_STR(0, "title", &r.title, "TEXT", "its title", 0),
	LWM_OPT_LIST(0, "check", &r.checks, "SPEC", "'NAME: FILE#key.key >= X' or '<= X * FILE#key'", 0),
	LWM_OPT_LIST(0, "stage", &r.stages, "NAME=DIR", "output folder of lwm-train-stage", 0),
	LWM_OPT_LIST(0, "picture", &r.pictures, "CAPTION=FILE", ".png, .jpg, .svg, or the frames of an .mp4", 0),
	LWM_OPT_LIST(0, "strip", &r.strips, "SPEC", "'CAPTION: LABEL=FILE; LABEL=FILE': clips one below the other, .mp4", 0),
	LWM_OPT_MAX_PIXELS(&r.max_pixels),
	LWM_OPT_LIST(0, "text", &r.texts, "CAPTION=FILE", "shown as it is", 0),
	LWM_OPT_STR(0, "timing", &r.timing, "FILE", "timing.jsonl of lwm-run", 0),
	LWM_OPT_END,
};

static const struct lwm_tool tool = {
	.name = "lwm-report",
	.summary = "Makes one self-contained HTML page about a run; exit code 1 when a check does not hold.",
	.operands = "",
	.opts = opts,
	.details = "Everything on the page is text or a picture: names, captions and texts are escaped, pictures (which must be what\n"
		   "their suffix says) are images in which a browser runs no script, and the page forbids scripts and references.",
	.examples = "  lwm-report -o report.html --stage 32K=runs/32k --picture 'Needle=runs/needle/heatmap.svg'\n"
		    "  lwm-report -o report.html --check 'PSNR: runs/vqgan/summary.json#eval.psnr >= 24'",
};

/* What the page would be made of, and what of it does not exist yet. */
static void print_list(const char *what, const struct lwm_paths *p)
{
	for (int64_t i = 0; i < p->n; i++) {
		const char *eq = strrchr(p->v[i], '=');
		printf("%-8s %s%s\n", what, p->v[i], eq && !lwm_path_exists(eq + 1) ? " (missing)" : "");
	}
}

static int print_strips(struct lwm_err *e)
{
	for (int64_t i = 0; i < r.strips.n; i++) {
		struct lwm_strip s;
		LWM_TRY(lwm_strip_read(&s, r.strips.v[i], e));
		for (int64_t k = 0; k < s.n; k++)
			printf("%-8s %s: %s=%s%s\n", "strip", s.caption, s.row[k].label, s.row[k].path,
			       lwm_path_exists(s.row[k].path) ? "" : " (missing)");
		lwm_strip_release(&s);
	}
	return 0;
}

static int print_plan(struct lwm_err *e)
{
	printf("page     %s\n", output);
	for (int64_t i = 0; i < r.checks.n; i++)
		printf("check    %s\n", r.checks.v[i]);
	print_list("stage", &r.stages);
	print_list("picture", &r.pictures);
	LWM_TRY(print_strips(e));
	print_list("text", &r.texts);
	if (r.timing)
		printf("timing   %s%s\n", r.timing, lwm_path_exists(r.timing) ? "" : " (missing)");
	return 0;
}

static int make_report(const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_str page = { 0 }, failures = { 0 };
	int64_t failed;
	if (a->common.plan)
		return print_plan(e);
	int rc = lwm_run_report_make(&r, &page, &failures, &failed, e);
	if (rc == 0) /* a report is made anew each time */
		rc = lwm_write_file(output, page.s, page.len, true, e);
	if (rc == 0) {
		printf("%s", lwm_str_get(&failures));
		if (failed)
			rc = lwm_fail(e, LWM_ENO, "%" PRId64 " of %" PRId64 " checks missed; see %s", failed, r.checks.n, output);
	}
	lwm_str_release(&page);
	lwm_str_release(&failures);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, make_report);
}
