/* needle_report.h - what a sweep found, as summary.csv, summary.json, heatmap.svg, heatmap.png and report.html beside
 * results.jsonl. */
#ifndef LWM_EVAL_NEEDLE_REPORT_H
#define LWM_EVAL_NEEDLE_REPORT_H

#include "common/eval/needle_eval.h"
#include "common/eval/plot.h"

struct lwm_needle_report {
	const struct lwm_sweep *sweep;
	const char *title, *details; /* details: one line, what makes the numbers what they are */
	enum lwm_colors colors;
};
/* Local. Reads results.jsonl in the sweep's folder, so that a report can be made anew without a model. *mean: over
 * all trials, NaN when there are none; *worst: the smallest mean over a length. */
int lwm_needle_report_write(const struct lwm_needle_report *r, double *mean, double *worst, struct lwm_err *e);

/* 95 % interval of a rate of k in n (Wilson 1927). */
void lwm_wilson_interval(double k, double n, double *low, double *high);

#endif
