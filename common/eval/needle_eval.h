/* needle_eval.h - the needle-in-a-haystack sweep: context length x depth x round.
 *
 * A trial is a pure function of (seed, length, depth, round) and the haystack: which text, which cities, which numbers. So a
 * sweep can be stopped, split over ranks and gone on with, and its results are the same.
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
	struct lwm_str text;
	int64_t *start;     /* (n+1) bytes: sentence i is text[start[i] .. start[i+1]) */
	int64_t *tokens;    /* (n+1) running token count before sentence i, the blanks before it not counted */
	int64_t n;
	struct lwm_hash hash;
};
/* Reads .txt or .jsonl (key "text") files, or folders of them, end to end. Cut behind . ! ? that a blank follows.
 * -LWM_EDATA: no sentence in it. */
int lwm_haystack_read(struct lwm_haystack *h, const struct lwm_paths *files, struct lwm_tokenizer *t, struct lwm_err *e);
void lwm_haystack_release(struct lwm_haystack *h);

/* ---- trials ---- */

struct lwm_needle_cell {
	int64_t length, round;
	double depth; /* percent; of a multi-needle trial -1: depths are drawn */
};

struct lwm_needle_task {
	int64_t needles, retrieve; /* 1, 1: the single test; R of N otherwise */
	int64_t answer_tokens;     /* kept free behind the prompt */
	uint64_t seed;
	const double *depths; /* grid that multi-needle depths are drawn from */
	int64_t ndepths;
};

struct lwm_trial {
	struct lwm_needle_cell cell;
	int64_t n, asked;                         /* needles in the text; the first `asked` ones are asked for */
	int64_t city[LWM_NEEDLES_MAX], number[LWM_NEEDLES_MAX];
	double depth[LWM_NEEDLES_MAX];            /* percent where each really stands */
	struct lwm_ids prompt;                    /* <s> first */
};
/* A length that cannot hold the question, or that the haystack cannot fill, is -LWM_ECONFIG with the numbers. */
int lwm_trial_make(struct lwm_trial *t, const struct lwm_needle_task *task, const struct lwm_needle_cell *cell,
		   const struct lwm_haystack *h, struct lwm_tokenizer *tok, struct lwm_err *e);
void lwm_trial_release(struct lwm_trial *t);
/* Fraction of the asked numbers whose digits stand in answer. */
double lwm_trial_score(const struct lwm_trial *t, const char *answer);

/* ---- sweeps ---- */

struct lwm_sweep {
	int64_t length_min, length_max, nlengths, ndepths, rounds;
	bool log_lengths; /* lengths spaced by factors, not by differences */
	struct lwm_needle_task task;
	const char *model_hash, *model_name, *out; /* out: folder of results.jsonl */
	int64_t team; /* so many consecutive ranks share a context and work on one trial: the gen was made by
		       * lwm_engine_new_shared over them; 0, 1: each rank for itself */
};
/* The grid, malloc'ed: lengths rounded, ascending; depths 0..100. *n of them: those that rounding makes equal are one, so that no
 * trial is asked or counted twice. */
int lwm_sweep_lengths(const struct lwm_sweep *s, int64_t **lengths, int64_t *n, struct lwm_err *e);
int lwm_sweep_depths(const struct lwm_sweep *s, double **depths, int64_t *n, struct lwm_err *e);
/* COLLECTIVE. Runs what results.jsonl does not hold yet; rank 0 appends in grid order. Results of another model,
 * seed, haystack or task in the file are -LWM_ECONFIG. -LWM_ESAVED after a stop that was asked for. */
int lwm_sweep_run(const struct lwm_sweep *s, struct lwm_engine *g, const struct lwm_haystack *h, struct lwm_tokenizer *tok,
		  struct lwm_comm *c, struct lwm_err *e);

/* ---- results ---- */

/* results.jsonl holds a trial a line, in the order in which they were finished, each line with a check of itself
 * (lwm_jsonl_seal in json.h). */
struct lwm_needle_result {
	struct lwm_needle_cell cell;
	double score;
	int64_t line; /* where it stands in the file, from 1 */
};
struct lwm_needle_results {
	struct lwm_needle_result *v; /* every cell once, in the order of the file */
	int64_t n, cap;
	int64_t repeated;   /* lines left out: of a cell that stands twice the first line counts */
	bool sealed;        /* lines carry checks; false for a file of earlier versions, which is gone on with as it is */
	char identity[256]; /* what every line says of model, seed, task, haystack */
};
/* A missing file is empty, a torn last line is not read. A line that is damaged, or that alone carries no check, is
 * -LWM_EDATA naming it: deleted, its trial is run again. Files of which no line carries a check are read as they are. */
int lwm_results_read(struct lwm_needle_results *r, const char *path, struct lwm_err *e);
void lwm_results_release(struct lwm_needle_results *r);

#endif
