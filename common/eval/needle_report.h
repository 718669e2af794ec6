/* needle_report.h - what a sweep found, for people and programs. Beside results.jsonl, each made anew:
 *
 *	summary.csv    accuracy and its 95 % interval of every cell that was run
 *	summary.json   accuracy over all trials, of the worst length, of every length
 *	heatmap.svg, heatmap.png   depth over length
 *	report.html    heat map and table on one page
 *
 * No model is needed: everything follows from results.jsonl. All calls are local.
 */
#ifndef LWM_EVAL_NEEDLE_REPORT_H
#define LWM_EVAL_NEEDLE_REPORT_H

#include "common/eval/needle_eval.h"
#include "common/eval/plot.h"

struct lwm_needle_report {
	const struct lwm_sweep *sweep; /* its grid and its folder; results of other cells are not shown */
	const char *title;             /* of page and heat map */
	const char *details;           /* one line: what makes the numbers what they are */
	enum lwm_colors colors;
};
/* *mean: score over all trials, NaN when there are none; *worst: the smallest mean of a length. */
int lwm_needle_report_write(const struct lwm_needle_report *r, double *mean, double *worst, struct lwm_err *e);

/* 95 % interval of a rate of k in n (Wilson 1927): with p = k/n, z = 1.96 and d = 1 + z^2/n
 *	(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / d
 * cut to [0, 1]; n = 0 gives all of it. */
void lwm_wilson_interval(double k, double n, double *low, double *high);

#endif
