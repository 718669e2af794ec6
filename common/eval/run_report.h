/* run_report.h - one self-contained page for a whole pipeline run: checks, loss curves, tables, pictures, texts. Local calls. */
#ifndef LWM_EVAL_RUN_REPORT_H
#define LWM_EVAL_RUN_REPORT_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/path.h"
#include "common/base/str.h"

struct lwm_run_report {
	const char *title;
	const char *timing;         /* timing.jsonl of lwm-run, may be NULL */
	struct lwm_paths stages;    /* "NAME=DIR": folders of lwm-train-stage, whose metrics.jsonl gives curve, table and samples */
	struct lwm_paths checks;    /* see lwm_check_read */
	struct lwm_paths pictures;  /* "CAPTION=FILE" .png, .jpg, .svg; .mp4 or .mkv: its first frames side by side */
	struct lwm_paths strips;    /* see lwm_strip_read: clips one below the other */
	int64_t max_pixels;         /* of a frame of a clip; 0: the default of common/media */
	struct lwm_paths texts;     /* "CAPTION=FILE": shown as they are (control characters as pictures), at most 64 KiB each */
};

/* "NAME: FILE#a.b >= 0.9" or "NAME: FILE#a.b <= 0.5 * FILE#c.d": values are numbers in JSON files, found by the keys of objects and
 * the numbers of entries in lists; * multiplies. */
struct lwm_check {
	char name[128], text[512]; /* before and after the colon */
	double value, bound;       /* left and right side */
	bool at_least;             /* >=, else <= */
	bool ok;                   /* it holds */
};
/* -LWM_EUSAGE: not of that form; -LWM_EDATA: no such number in the file. */
int lwm_check_read(struct lwm_check *c, const char *spec, struct lwm_err *e);

/* "CAPTION: LABEL=FILE; LABEL=FILE": the first frames of some clips, a row each with its label. The last ": " ends the caption. */
struct lwm_strip {
	char *text; /* malloc'ed; the others point into it */
	const char *caption;
	struct { const char *label, *path; } row[8];
	int64_t n; /* rows, at least one */
};
/* -LWM_EUSAGE: not of that form, more rows than there is place for, or a file that is neither .mp4 nor .mkv. */
int lwm_strip_read(struct lwm_strip *s, const char *spec, struct lwm_err *e);
void lwm_strip_release(struct lwm_strip *s);

/* Appends the page to *out. *failed: how many checks do not hold; they are also written to *failures, a line each. */
int lwm_run_report_make(const struct lwm_run_report *r, struct lwm_str *out, struct lwm_str *failures, int64_t *failed,
			struct lwm_err *e);

#endif
