/* metrics.h - what a stage reports while it runs: metrics.jsonl, a line on stderr, summary.json at the end. Rank 0 only; all local.
 *
 *	lwm_metrics_open(&m, s, o, step, ...)     step: of the checkpoint that the run resumes from, or 0
 *	lwm_metrics_step, _eval, _sampled, _saved, _peak    as these happen
 *	lwm_metrics_sync(m)                       before a checkpoint of these steps is written
 *	lwm_metrics_done(m, ...)                  the last line, and summary.json
 *	lwm_metrics_ended(m, ...)                 however it ended
 *	lwm_metrics_close(m)
 *
 * Lines: {"event":"step","step":120,"loss":2.41,"loss_hex":"0x1.34...p+1","grad_norm":...,"lr":...,"seconds":...,"seen":...,...}
 *        {"event":"start"|"peak"|"eval"|"sample"|"save"|"end", ...}
 * loss_hex and grad_norm_hex are the exact values: two runs are the same when these are. "seen" counts the objective's units since
 * step 0. "flops" of a step: model FLOPs over all ranks, counted from the rows it was trained on (lwm_llama_work_flops); absent
 * where the objective does not count them. "peak_tflops": what all ranks together can do at most; "peak_source": "given"
 * (--peak-tflops) or "measured" (peak.h). "mfu" of the end: FLOPs over seconds of the steps of this run and that peak, where there
 * is one. "seconds" of a save: from its begin until it was committed, "blocking" those of them that training waited; where it is
 * written behind the computation the line follows those of later steps. "file" of a sample: below the folder of the stage; "what":
 * what is to be seen there. "peak_rss" of the end: bytes, of the rank that had most in
 * memory. Each line ends in the "time" it was written, seconds since 1970. summary.json holds nothing measured: the same run leaves
 * the same bytes.
 *
 * Lines that the disk does not take wait in memory (common/base/json.h): a full disk does not end a run here. When a run resumes
 * from an older checkpoint, lines of later steps are cut off first, so the file has each step once; what they stood for is counted
 * in history.jsonl (history.h), which begins, saves and ends are written to as well.
 */
#ifndef LWM_TRAIN_METRICS_H
#define LWM_TRAIN_METRICS_H

#include "common/train/history.h"
#include "common/train/objective.h"
#include "common/train/save.h"

struct lwm_metrics;
/* began: when the process did, by lwm_history_now; hosts: of lwm_history_hosts. */
int lwm_metrics_open(struct lwm_metrics **out, const struct lwm_stage *s, const struct lwm_objective *o, int64_t step,
		     double began, const char *hosts, struct lwm_err *e);
struct lwm_step_figures {
	double grad_norm, lr, seconds;
	double flops; /* model FLOPs over all ranks; 0: not known */
	double loss_scale; /* that gradients had; 0: none, they are not fp16 */
	bool skipped; /* by a guard: no update was made */
	bool overflow; /* no update was made either, for gradients were too large for fp16 */
};
/* Loss and what belongs to it are those of st. */
int lwm_metrics_step(struct lwm_metrics *m, const struct lwm_train_state *st, const struct lwm_step_figures *f, struct lwm_err *e);
/* Seconds that the steps of this run took so far. */
double lwm_metrics_seconds(const struct lwm_metrics *m);
/* rate: FLOP a second of all ranks together. source: "given", "measured"; a literal. A measured one is raised to what steps then
 * reach. */
int lwm_metrics_peak(struct lwm_metrics *m, int64_t step, double rate, const char *source, struct lwm_err *e);
/* more: ,"key":value... of the objective. */
int lwm_metrics_eval(struct lwm_metrics *m, const struct lwm_train_state *st, double loss, const struct lwm_str *more,
		     struct lwm_err *e);
/* file, what: of samples.h. */
int lwm_metrics_sampled(struct lwm_metrics *m, int64_t step, const char *file, const struct lwm_str *what, struct lwm_err *e);
/* seconds: from its begin until it was committed; blocking: those of them that training waited. */
int lwm_metrics_saved(struct lwm_metrics *m, int64_t step, double seconds, double blocking, struct lwm_err *e);
/* Brings the lines written so far to the disk, before the checkpoint of their steps is committed; any thread. A failure is
 * logged, and no failure of the run. */
void lwm_metrics_sync(struct lwm_metrics *m);
bool lwm_metrics_complete(const struct lwm_metrics *m); /* summary.json exists */
/* peak_rss: bytes, of the rank that had most. */
int lwm_metrics_done(struct lwm_metrics *m, const struct lwm_train_state *st, double seconds, double peak_rss, struct lwm_err *e);
/* The line of history.jsonl. */
void lwm_metrics_ended(struct lwm_metrics *m, const struct lwm_history_end *end);
void lwm_metrics_close(struct lwm_metrics *m); /* NULL is fine */

#endif
