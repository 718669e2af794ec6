/* needle_eval.h - the needle-in-a-haystack sweep: context length x depth x round.
 *
 *	lwm_haystack_read(&h, files, tok)                     the text, cut into sentences and counted in tokens
 *	lwm_sweep_run(&sweep, engine, &h, tok, comm)          every trial that results.jsonl does not hold yet
 *	lwm_needle_report_write(...)                          (needle_report.h) what the results say
 *
 * A sweep makes, asks and scores its trials itself; lwm_trial_* are there for whoever wants a single one.
 *
 * A trial is a pure function of (seed, length, depth, round) and the haystack: which text, which cities, which numbers. So a
 * sweep can be stopped, split over ranks and resumed, and its results are the same.
 *
 * Length counts every token the model sees, prompt and answer: a model trained on rows of L tokens is asked at L. The
 * needle goes to the sentence end nearest before depth percent of the haystack's tokens. One tokenizer does all counting.
 * Score of a number: its digits stand in the answer (the published rule). With R numbers asked for: the mean over them.
 */
#ifndef LWM_EVAL_NEEDLE_EVAL_H
#define LWM_EVAL_NEEDLE_EVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/path.h"
#include "common/base/str.h"
#include "common/comm/comm.h"
#include "common/infer/engine.h"
#include "common/text/tokenizer.h"

enum { LWM_NEEDLES_MAX = 16, LWM_NEEDLE_SCORER = 1 /* version, in every result */ };

/* ---- haystack ---- */

struct lwm_haystack {
	struct lwm_str text; /* all files, end to end */
	int64_t *start;      /* (n+1) bytes: sentence i is text[start[i] .. start[i+1]) */
	int64_t *tokens;     /* (n+1) running token count before sentence i, the blanks before it not counted */
	int64_t n;           /* sentences, at least 2 */
	struct lwm_hash hash; /* of the text: names the haystack in results */
};
/* Local. Reads .txt or .jsonl (key "text") files, or folders of them. A sentence ends after a . ! or ? that a blank follows; the
 * blanks belong to it. -LWM_EDATA: no sentence in it, bytes that are no text, or too much of it. Freed by lwm_haystack_release,
 * after a failure nothing is left to free. */
int lwm_haystack_read(struct lwm_haystack *h, const struct lwm_paths *files, struct lwm_tokenizer *t, struct lwm_err *e);
void lwm_haystack_release(struct lwm_haystack *h);

/* ---- trials ---- */

/* Where in the grid. */
struct lwm_needle_cell {
	int64_t length; /* tokens, prompt and answer */
	int64_t round;  /* from 0 */
	double depth;   /* percent; of a multi-needle trial -1: depths are drawn */
};

/* What all trials of a sweep have in common. */
struct lwm_needle_task {
	int64_t needles, retrieve; /* 1, 1: the single test; R of N otherwise */
	int64_t answer_tokens;     /* kept free after the prompt */
	uint64_t seed;             /* of everything that is drawn */
	const double *depths;      /* grid that multi-needle depths are drawn from, borrowed */
	int64_t ndepths;
};

struct lwm_trial {
	struct lwm_needle_cell cell;
	int64_t n, asked;             /* needles in the text; the first `asked` ones are asked for */
	int64_t city[LWM_NEEDLES_MAX]; /* whose number is hidden: an index into the cities of common/data/needle.h */
	int64_t number[LWM_NEEDLES_MAX];
	double depth[LWM_NEEDLES_MAX]; /* percent where each really stands */
	struct lwm_ids prompt;        /* <s> first */
};
/* Local. -LWM_ECONFIG with the numbers: a length that cannot hold the question, or that the haystack cannot fill. After a
 * failure nothing is left to free. */
int lwm_trial_make(struct lwm_trial *t, const struct lwm_needle_task *task, const struct lwm_needle_cell *cell,
		   const struct lwm_haystack *h, struct lwm_tokenizer *tok, struct lwm_err *e);
void lwm_trial_release(struct lwm_trial *t);
/* Local. Fraction of the asked numbers whose digits stand in answer. */
double lwm_trial_score(const struct lwm_trial *t, const char *answer);

/* ---- sweeps ---- */

struct lwm_sweep {
	int64_t length_min, length_max; /* tokens */
	int64_t nlengths, ndepths, rounds; /* size of the grid: trials are their product, of multi-needle tasks without depths */
	bool log_lengths;            /* lengths spaced by factors, not by differences */
	struct lwm_needle_task task; /* its depths are those of the grid: left empty */
	const char *model_hash;      /* names the model in results */
	const char *out;             /* folder of results.jsonl */
	int64_t team;                /* consecutive ranks that share a context and work on one trial: the engine was made by
				      * lwm_engine_new_shared over them; 0, 1: each rank for itself */
};
/* Local. The grid, malloc'ed: lengths rounded, ascending; depths 0..100. *n of them: those that rounding makes equal are one, so
 * that no trial is asked or counted twice. */
int lwm_sweep_lengths(const struct lwm_sweep *s, int64_t **lengths, int64_t *n, struct lwm_err *e);
int lwm_sweep_depths(const struct lwm_sweep *s, double **depths, int64_t *n, struct lwm_err *e);
/* COLLECTIVE over c. Runs what results.jsonl does not hold yet; rank 0 appends in grid order. -LWM_ECONFIG: the file holds results
 * of another model, seed, haystack or task. -LWM_ESAVED: stopped because it was asked to. */
int lwm_sweep_run(const struct lwm_sweep *s, struct lwm_engine *g, const struct lwm_haystack *h, struct lwm_tokenizer *tok,
		  struct lwm_comm *c, struct lwm_err *e);

/* ---- results ---- */

/* results.jsonl holds a trial a line, in the order in which they were finished, each line with a check of itself
 * (lwm_jsonl_seal in json.h). */
struct lwm_needle_result {
	struct lwm_needle_cell cell;
	double score; /* 0..1 */
	int64_t line; /* where it stands in the file, from 1 */
};
struct lwm_needle_results {
	struct lwm_needle_result *v; /* every cell once, in the order of the file */
	int64_t n, cap;
	int64_t repeated;   /* lines left out: of a cell that stands twice the first line counts */
	bool sealed;        /* lines carry checks; false for a file of earlier versions, which is continued as it is */
	char identity[256]; /* what every line says of model, seed, task, haystack */
};
/* Local. A missing file is empty, a torn last line is not read. A line that is damaged, or that alone carries no check, is
 * -LWM_EDATA naming it: deleted, its trial is run again. Files of which no line carries a check are read as they are. */
int lwm_results_read(struct lwm_needle_results *r, const char *path, struct lwm_err *e);
void lwm_results_release(struct lwm_needle_results *r);

#endif
