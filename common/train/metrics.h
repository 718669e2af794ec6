/* metrics.h - what a stage says while it runs: metrics.jsonl, a line on stderr, summary.json at the end. Rank 0 only.
 *
 * Lines: {"event":"step","step":120,"loss":2.41,"loss_hex":"0x1.34...p+1","grad_norm":...,"lr":...,"seconds":...,"seen":...,...}
 *        {"event":"start"|"peak"|"eval"|"save"|"end", ...}
 * "flops" of a step: model FLOPs over all ranks, counted from the segments of the rows it was trained on (lwm_llama_work_flops); not
 * there where they are not known (reconstruction). "peak_tflops": what all ranks together can do at most, and "peak_source":
 * "given" (--peak-tflops) or "measured" (peak.h). "mfu" of the end: flops over seconds of the steps of this run and that peak; only
 * where there is one. "peak_rss" of the end: bytes, of the rank that had most in memory. summary.json holds nothing measured: it is
 * the same byte for byte for the same run.
 * Lines that the disk does not take wait in memory (common/base/json.h): a full disk does not end a run here.
 * loss_hex and grad_norm_hex are the exact values: two runs are the same when these are. When a run goes on from an older
 * checkpoint, lines of later steps are cut off first, so each step stands there once.
 */
#ifndef LWM_TRAIN_METRICS_H
#define LWM_TRAIN_METRICS_H

#include "common/train/objective.h"
#include "common/train/save.h"

struct lwm_metrics;
int lwm_metrics_open(struct lwm_metrics **out, const struct lwm_stage *s, const struct lwm_objective *o, int64_t step,
		     struct lwm_err *e);
struct lwm_step_figures {
	double grad_norm, lr, seconds;
	double flops; /* model FLOPs over all ranks; 0: not known */
	bool skipped;
};
/* Loss and what belongs to it are those of st. */
int lwm_metrics_step(struct lwm_metrics *m, const struct lwm_progress_state *st, const struct lwm_step_figures *f,
		     struct lwm_err *e);
/* The steps of this run took so many seconds. */
double lwm_metrics_seconds(const struct lwm_metrics *m);
/* FLOP a second of all ranks together. source: "given", "measured"; a literal. What is measured is raised to what steps then reach. */
int lwm_metrics_peak(struct lwm_metrics *m, int64_t step, double rate, const char *source, struct lwm_err *e);
int lwm_metrics_eval(struct lwm_metrics *m, const struct lwm_progress_state *st, double loss, const struct lwm_str *more,
		     struct lwm_err *e);
int lwm_metrics_saved(struct lwm_metrics *m, int64_t step, double seconds, struct lwm_err *e);
/* Brings lines to the disk before a checkpoint of their steps stands; that this fails is said, and no failure of the run. */
void lwm_metrics_sync(struct lwm_metrics *m);
bool lwm_metrics_complete(const struct lwm_metrics *m); /* summary.json stands */
/* peak_rss: bytes, of the rank that had most. */
int lwm_metrics_done(struct lwm_metrics *m, const struct lwm_progress_state *st, double seconds, double peak_rss,
		     struct lwm_err *e);
void lwm_metrics_close(struct lwm_metrics *m); /* NULL is fine */

#endif
