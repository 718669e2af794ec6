/* run_samples.h - what a model made while it was trained (train/samples.h), for a page about the run. Local calls. */
#ifndef LWM_EVAL_RUN_SAMPLES_H
#define LWM_EVAL_RUN_SAMPLES_H

#include "common/base/str.h"
#include "common/eval/run_series.h"

/* Appends the first, the middle and the last samples of the stage in `dir` that s knows of: pictures in the page, texts escaped, at
 * most 64 KiB of each. A file that is not there any more is said to be missing. Nothing where there are none. name: of the stage.
 * -LWM_EDATA: a file that is not in samples/, or not what its suffix says. */
int lwm_run_samples_add(struct lwm_str *page, const char *name, const char *dir, const struct lwm_run_series *s, struct lwm_err *e);

#endif
