/* The sweep: every cell and round once. Rank 0 finds out what results.jsonl lacks and tells the others; then, round by round,
 * each team of ranks works on one trial, and rank 0 appends the lines in grid order. So its order is the same for any number of
 * teams, and a sweep that was stopped resumes where the file ends. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/base/progress.h"
#include "common/base/stop.h"
#include "common/data/needle.h"
#include "common/eval/generate.h"
#include "common/eval/needle_eval.h"

int lwm_sweep_lengths(const struct lwm_sweep *s, int64_t **lengths, int64_t *n, struct lwm_err *e)
{
	double a = (double)s->length_min, b = (double)s->length_max;
	*lengths = malloc((size_t)s->nlengths * sizeof **lengths);
	if (!*lengths)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " lengths", s->nlengths);
	*n = 0;
	for (int64_t i = 0; i < s->nlengths; i++) {
		double x = s->nlengths > 1 ? (double)i / (double)(s->nlengths - 1) : 1;
		int64_t length = llround(s->log_lengths ? a * pow(b / a, x) : a + (b - a) * x);
		if (*n == 0 || length != (*lengths)[*n - 1])
			(*lengths)[(*n)++] = length;
	}
	return 0;
}

int lwm_sweep_depths(const struct lwm_sweep *s, double **depths, int64_t *n, struct lwm_err *e)
{
	*depths = malloc((size_t)s->ndepths * sizeof **depths);
	if (!*depths)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " depths", s->ndepths);
	*n = 0;
	for (int64_t i = 0; i < s->ndepths; i++) {
		double depth = s->ndepths > 1 ? (double)llround(100.0 * (double)i / (double)(s->ndepths - 1)) : 50;
		if (*n == 0 || depth != (*depths)[*n - 1])
			(*depths)[(*n)++] = depth;
	}
	return 0;
}

/* ---- results file ---- */

/* What makes the numbers what they are, as one line: results of another are refused. */
static void identify_run(char *buf, size_t size, const struct lwm_sweep *s, const struct lwm_haystack *h,
			 const struct lwm_tokenizer *tok)
{
	snprintf(buf, size,
		 "model %.32s tokenizer %.32s haystack %.32s seed %" PRIu64 " needles %" PRId64 " retrieve %" PRId64
		 " answer %" PRId64 " scorer %d",
		 s->model_hash, lwm_tokenizer_hash(tok)->hex, h->hash.hex, s->task.seed, s->task.needles, s->task.retrieve,
		 s->task.answer_tokens, LWM_NEEDLE_SCORER);
}

static int add_result(struct lwm_needle_results *r, const struct lwm_needle_result *v, struct lwm_err *e)
{
	if (r->n == r->cap) {
		int64_t cap = r->cap ? r->cap * 2 : 256;
		struct lwm_needle_result *p = realloc(r->v, (size_t)cap * sizeof *p);
		if (!p)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " results", cap);
		r->v = p;
		r->cap = cap;
	}
	r->v[r->n++] = *v;
	return 0;
}

static int read_line(void *ctx, const json_t *o, int64_t line, struct lwm_err *e)
{
	struct lwm_needle_results *r = ctx;
	struct lwm_needle_result v = { .line = line };
	static const char name[] = "a result";
	const char *id;
	LWM_TRY(lwm_json_str(o, "run", &id, name, e));
	LWM_TRY(lwm_json_int(o, "context_length", &v.cell.length, name, e));
	LWM_TRY(lwm_json_int(o, "round", &v.cell.round, name, e));
	LWM_TRY(lwm_json_double(o, "depth_percent", &v.cell.depth, name, e));
	LWM_TRY(lwm_json_double(o, "score", &v.score, name, e));
	if (!r->identity[0])
		snprintf(r->identity, sizeof r->identity, "%s", id);
	else if (strcmp(r->identity, id))
		return lwm_fail(e, LWM_ECONFIG, "results of two runs in one file: '%s' and '%s'", r->identity, id);
	return add_result(r, &v, e);
}

static int by_cell(const void *a, const void *b)
{
	const struct lwm_needle_result *x = a, *y = b;
	if (x->cell.length != y->cell.length)
		return x->cell.length < y->cell.length ? -1 : 1;
	if (x->cell.depth != y->cell.depth)
		return x->cell.depth < y->cell.depth ? -1 : 1;
	if (x->cell.round != y->cell.round)
		return x->cell.round < y->cell.round ? -1 : 1;
	return x->line < y->line ? -1 : x->line > y->line;
}

static int by_line(const void *a, const void *b)
{
	const struct lwm_needle_result *x = a, *y = b;
	return x->line < y->line ? -1 : x->line > y->line;
}

static bool same_cell(const struct lwm_needle_cell *a, const struct lwm_needle_cell *b)
{
	return a->length == b->length && a->round == b->round && a->depth == b->depth;
}

/* A trial counts once, however often its line stands there: two copies of a file put together, say. */
static void drop_repeated(struct lwm_needle_results *r)
{
	int64_t n = 0;
	if (r->n < 2)
		return;
	qsort(r->v, (size_t)r->n, sizeof *r->v, by_cell);
	for (int64_t i = 0; i < r->n; i++)
		if (n == 0 || !same_cell(&r->v[n - 1].cell, &r->v[i].cell))
			r->v[n++] = r->v[i];
	r->repeated = r->n - n;
	r->n = n;
	qsort(r->v, (size_t)r->n, sizeof *r->v, by_line);
}

int lwm_results_read(struct lwm_needle_results *r, const char *path, struct lwm_err *e)
{
	memset(r, 0, sizeof *r);
	int rc = lwm_jsonl_read(path, "delete the line: its trial is run again", &r->sealed, read_line, r, e);
	if (rc < 0)
		lwm_results_release(r);
	else
		drop_repeated(r);
	return rc;
}

void lwm_results_release(struct lwm_needle_results *r)
{
	free(r->v);
	memset(r, 0, sizeof *r);
}

/* Linear, as grids are small beside the trials themselves. */
static bool is_done(const struct lwm_needle_results *r, const struct lwm_needle_cell *c)
{
	for (int64_t i = 0; i < r->n; i++)
		if (same_cell(&r->v[i].cell, c))
			return true;
	return false;
}

/* ---- asking ---- */

static int ask_model(struct lwm_engine *g, const struct lwm_trial *t, int64_t most, struct lwm_tokenizer *tok,
		     struct lwm_str *out, struct lwm_err *e)
{
	const struct lwm_generate greedy = { .g = g, .tok = tok, .sampler = { .temperature = 0, .top_p = 1 }, .most = most };
	struct lwm_ids said = { 0 };
	bool finished;
	int rc = lwm_generate_text(&greedy, t->prompt.v, t->prompt.n, 0, &said, &finished, e);
	lwm_tokenizer_decode(tok, said.v, said.n, out);
	lwm_ids_release(&said);
	return rc < 0 ? rc : lwm_str_ok(out, e);
}

static void describe_trial(struct lwm_str *line, const char *id, const struct lwm_trial *t, const char *said, double score,
			   double seconds)
{
	lwm_str_printf(line, "{\"context_length\":%" PRId64 ",\"depth_percent\":%.17g,\"round\":%" PRId64 ",\"score\":%.9g,\"correct\":%s",
		       t->cell.length, t->cell.depth, t->cell.round, score, score == 1 ? "true" : "false");
	lwm_str_puts(line, ",\"needles\":[");
	for (int64_t i = 0; i < t->n; i++) {
		lwm_str_printf(line, "%s{\"city\":", i ? "," : "");
		lwm_str_json(line, lwm_needle_city(t->city[i]), strlen(lwm_needle_city(t->city[i])));
		lwm_str_printf(line, ",\"number\":%" PRId64 ",\"depth\":%.4g,\"asked\":%s}", t->number[i], t->depth[i],
			       i < t->asked ? "true" : "false");
	}
	lwm_str_puts(line, "],\"response\":");
	lwm_str_json(line, said, strlen(said));
	lwm_str_printf(line, ",\"prompt_tokens\":%" PRId64 ",\"seconds\":%.3f,\"run\":\"%s\"}", t->prompt.n, seconds, id);
}

struct sweep {
	const struct lwm_sweep *s;
	struct lwm_needle_task task; /* with the depths in place */
	struct lwm_engine *g;
	const struct lwm_haystack *h;
	struct lwm_tokenizer *tok;
	struct lwm_comm *c;
	struct lwm_needle_cell *todo;
	int64_t ntodo;
	bool sealed; /* rank 0: lines get a check */
	char id[256];
};

/* Makes a trial, asks the model, scores the answer; appends the line of results.jsonl. */
static int run_trial(struct sweep *w, const struct lwm_needle_cell *cell, struct lwm_str *line, struct lwm_err *e)
{
	struct lwm_trial t;
	struct lwm_str said = { 0 };
	double t0 = lwm_now();
	LWM_TRY(lwm_trial_make(&t, &w->task, cell, w->h, w->tok, e));
	int rc = ask_model(w->g, &t, w->task.answer_tokens, w->tok, &said, e);
	if (rc == 0) {
		describe_trial(line, w->id, &t, lwm_str_get(&said), lwm_trial_score(&t, lwm_str_get(&said)), lwm_now() - t0);
		rc = lwm_str_ok(line, e);
	}
	lwm_str_release(&said);
	lwm_trial_release(&t);
	return rc;
}

static int team_of(const struct sweep *w)
{
	return w->s->team > 1 ? (int)w->s->team : 1;
}

/* One trial on each team, then the lines of their first ranks to rank 0 in order. */
static int run_round(struct sweep *w, int64_t first, struct lwm_jsonl *file, struct lwm_err *e)
{
	int n = lwm_comm_size(w->c), team = team_of(w), rc = 0;
	int64_t mine = first + lwm_comm_rank(w->c) / team, most;
	struct lwm_str line = { 0 }, padded = { 0 };
	char *all = NULL;
	if (mine < w->ntodo)
		rc = run_trial(w, &w->todo[mine], &line, e);
	LWM_GO(lwm_agree(w->c, rc, e));
	most = (int64_t)line.len;
	LWM_GO(lwm_comm_max_i64(w->c, &most, 1, e));
	lwm_str_puts(&padded, lwm_str_get(&line));
	while ((int64_t)padded.len < most && !padded.failed)
		lwm_str_putc(&padded, 0);
	all = malloc((size_t)(most * n));
	rc = all ? lwm_str_ok(&padded, e) : lwm_fail(e, LWM_EMEMORY, "out of memory for %d results", n);
	LWM_GO(lwm_agree(w->c, rc, e));
	LWM_GO(lwm_comm_allgather(w->c, padded.s, (size_t)most, all, e));
	for (int t = 0; rc == 0 && file && t < n / team && first + t < w->ntodo; t++) {
		const char *text = all + t * team * most;
		struct lwm_str out = { 0 };
		lwm_str_add(&out, text, strnlen(text, (size_t)most));
		rc = w->sealed ? lwm_jsonl_seal(&out, e) : 0;
		if (rc == 0)
			rc = lwm_jsonl_add(file, &out, e);
		lwm_str_release(&out);
	}
	rc = lwm_agree(w->c, rc, e);
out:
	free(all);
	lwm_str_release(&padded);
	lwm_str_release(&line);
	return rc;
}

/* Cells that results.jsonl lacks, in grid order. */
static int list_todo(struct sweep *w, const struct lwm_needle_results *done, struct lwm_err *e)
{
	const struct lwm_sweep *s = w->s;
	int64_t *lengths = NULL, nl, nd = s->task.needles > 1 ? 1 : w->task.ndepths;
	LWM_TRY(lwm_sweep_lengths(s, &lengths, &nl, e));
	for (int64_t i = 0; i < nl * nd * s->rounds; i++) {
		struct lwm_needle_cell c = { .length = lengths[i / (nd * s->rounds)],
					     .depth = s->task.needles > 1 ? -1 : w->task.depths[i / s->rounds % nd],
					     .round = i % s->rounds };
		if (!is_done(done, &c))
			w->todo[w->ntodo++] = c;
	}
	free(lengths);
	return 0;
}

/* Rank 0 looks and tells: on a network file system the others may see an older file. */
static int find_todo(struct sweep *w, const char *path, struct lwm_err *e)
{
	const struct lwm_sweep *s = w->s;
	struct lwm_needle_results done = { 0 };
	int64_t cells = s->nlengths * (s->task.needles > 1 ? 1 : s->ndepths) * s->rounds;
	w->todo = malloc((size_t)cells * sizeof *w->todo);
	int rc = w->todo ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " trials", cells);
	if (rc == 0 && lwm_comm_rank(w->c) == 0) {
		rc = lwm_results_read(&done, path, e);
		if (rc == 0 && done.n && strcmp(done.identity, w->id))
			rc = lwm_fail(e, LWM_ECONFIG, "%s: holds results of another run ('%s', this one is '%s')", path,
				      done.identity, w->id);
		if (rc == 0)
			rc = list_todo(w, &done, e);
		w->sealed = done.sealed;
		lwm_log(LWM_INFO, "%" PRId64 " trials to run, %" PRId64 " done before", w->ntodo, done.n);
		if (done.repeated)
			lwm_log(LWM_WARN, "%s: %" PRId64 " lines repeat a trial and do not count", path, done.repeated);
		lwm_results_release(&done);
	}
	LWM_TRY(lwm_agree(w->c, rc, e));
	LWM_TRY(lwm_comm_bcast(w->c, &w->ntodo, sizeof w->ntodo, 0, e));
	return lwm_comm_bcast(w->c, w->todo, (size_t)w->ntodo * sizeof *w->todo, 0, e);
}

static int run_all(struct sweep *w, struct lwm_jsonl *file, struct lwm_err *e)
{
	struct lwm_progress p;
	int64_t n = lwm_comm_size(w->c) / team_of(w);
	lwm_progress_begin(&p, "trial", "trials", w->ntodo);
	for (int64_t i = 0; i < w->ntodo; i += n) {
		int64_t wish = lwm_stop_wanted();
		LWM_TRY(lwm_comm_max_i64(w->c, &wish, 1, e));
		if (wish == LWM_STOP_END) {
			lwm_fail(e, LWM_ESAVED, "stopped after %" PRId64 " of %" PRId64 " trials: run me again", i, w->ntodo);
			return lwm_agree(w->c, -LWM_ESAVED, e);
		}
		LWM_TRY(run_round(w, i, file, e));
		if (lwm_comm_rank(w->c) == 0)
			lwm_progress_at(&p, i + n < w->ntodo ? i + n : w->ntodo);
	}
	lwm_progress_end(&p);
	return 0;
}

int lwm_sweep_run(const struct lwm_sweep *s, struct lwm_engine *g, const struct lwm_haystack *h, struct lwm_tokenizer *tok,
		  struct lwm_comm *c, struct lwm_err *e)
{
	struct sweep w = { .s = s, .task = s->task, .g = g, .h = h, .tok = tok, .c = c };
	struct lwm_jsonl *file = NULL;
	double *depths = NULL;
	char *path = lwm_path_join(s->out, "results.jsonl");
	int rc = path ? lwm_sweep_depths(s, &depths, &w.task.ndepths, e) : lwm_fail_memory(e, NULL);
	LWM_GO(lwm_agree(c, rc, e));
	w.task.depths = depths;
	identify_run(w.id, sizeof w.id, s, h, tok);
	LWM_GO(find_todo(&w, path, e));
	if (lwm_comm_rank(c) == 0)
		rc = lwm_jsonl_open(&file, path, e);
	LWM_GO(lwm_agree(c, rc, e));
	rc = run_all(&w, file, e);
out:
	if (file) { /* closed in any case; its failure matters when nothing else failed */
		struct lwm_err more = { 0 };
		if (lwm_jsonl_close(file, rc < 0 ? &more : e) < 0 && rc == 0)
			rc = e->code;
	}
	free(w.todo);
	free(depths);
	free(path);
	return rc;
}
