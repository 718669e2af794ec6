/* run_series.h - metrics.jsonl of a stage's folder (train/metrics.h) as numbers by step. Local calls. */
#ifndef LWM_EVAL_RUN_SERIES_H
#define LWM_EVAL_RUN_SERIES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

/* One source of data of several: the loss of its labels. */
struct lwm_run_source {
	char *name;
	double *loss; /* [cap] of each step; NaN where it had none */
};
/* A file that shows what the model made. */
struct lwm_run_sample {
	double step;
	char *file, *what; /* below the stage's folder, as the line says: of unknown origin; what is to be seen */
};
struct lwm_run_series {
	double *step, *loss, *seconds, *seen, *flops; /* of each step: loss NaN and flops 0 where there is none */
	int64_t n, cap;
	struct lwm_run_source *source; /* those that some step's "loss_of" names, in that order */
	int64_t nsources;
	struct lwm_run_sample *sample; /* of each step that has one the last that was said, in that order */
	int64_t nsamples;
	char unit[16];   /* "tok"; "" unknown */
	double total;    /* seconds of all steps */
	int64_t steps;   /* that the run is to make, as it said when it began; 0 unknown */
	double peak;     /* FLOP a second of all ranks, as last said; 0 unknown */
	double last;     /* when the last line was written, seconds since 1970; 0 unknown */
	int64_t ended;   /* step of the last line, when that is an end; else -1 */
	int64_t skipped; /* steps of which a guard refused the update */
	int64_t overflows; /* steps whose gradients were too large for fp16 */
	int64_t bad;     /* lines that are no JSON (lenient) */
};
/* What follows the last newline is not read: somebody may be writing it. lenient: a line that cannot be read is counted and passed
 * over; otherwise it is -LWM_EDATA. A missing file is -LWM_ENOINPUT. After a failure it is to be released, too. */
int lwm_run_series_read(struct lwm_run_series *s, const char *dir, bool lenient, struct lwm_err *e);
void lwm_run_series_release(struct lwm_run_series *s);

#endif
