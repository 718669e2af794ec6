/* Windows of documents into rows. */
#include "common/data/pack/pack.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/rng.h"
#include "common/base/stop.h"
#include "common/data/pack/pack_int.h"

enum { WINDOW_DOCS = 65536, WINDOW_ROWS = 8, MAX_AGE = 2 };
#define WINDOW_TOKENS (32LL << 20)
#define GOOD_FILL 0.995 /* rows below it hand their documents to the next window */

/* One row being put together. */
struct row {
	int32_t *tokens;           /* [seq] */
	struct lwm_segment *seg;
	struct lwm_loss_run *run;
	int64_t n, nseg, nruns, seg_cap, run_cap;
	bool carried; /* its first token was the last one of the row before */
};

struct packer {
	const struct lwm_pack_cfg *c;
	struct lwm_mix mix;
	struct lwm_window w;
	struct lwm_pack_out out;
	struct row row;
	int64_t *len, *place, *first, *item; /* of the window's pieces: length, row; of rows: index into item */
	int64_t cap;
	int64_t windows;
};

static int no_memory(struct lwm_err *e)
{
	return lwm_fail(e, LWM_EMEMORY, "out of memory to pack");
}

static int push_run(struct row *r, int64_t start, uint8_t loss, struct lwm_err *e)
{
	if (r->nruns && r->run[r->nruns - 1].loss == loss)
		return 0;
	if (r->nruns == r->run_cap) {
		int64_t cap = r->run_cap ? 2 * r->run_cap : 1024;
		struct lwm_loss_run *v = realloc(r->run, (size_t)cap * sizeof *v);
		if (!v)
			return no_memory(e);
		r->run = v;
		r->run_cap = cap;
	}
	r->run[r->nruns++] = (struct lwm_loss_run){ .start = start, .loss = loss };
	return 0;
}

/* Copies tokens off .. off+len-1 of a piece after what the row has, with their loss runs. */
static int push_tokens(struct row *r, const struct lwm_window *w, const struct lwm_pack_item *p, int64_t off,
		       int64_t len, struct lwm_err *e)
{
	int64_t a = p->off + off, b = a + len; /* in the document */
	for (int64_t i = 0; i < p->nruns; i++) {
		const struct lwm_loss_run *x = &w->runs[p->run + i];
		if (x->start >= b)
			break;
		if (i + 1 < p->nruns && x[1].start <= a)
			continue;
		LWM_TRY(push_run(r, r->n + (x->start > a ? x->start - a : 0), x->loss, e));
	}
	memcpy(r->tokens + r->n, w->tokens + p->tok + off, (size_t)len * sizeof *r->tokens);
	r->n += len;
	return 0;
}

static int push_segment(struct row *r, int64_t start, int64_t len, int64_t doc, struct lwm_err *e)
{
	if (r->nseg == r->seg_cap) {
		int64_t cap = r->seg_cap ? 2 * r->seg_cap : 256;
		struct lwm_segment *v = realloc(r->seg, (size_t)cap * sizeof *v);
		if (!v)
			return no_memory(e);
		r->seg = v;
		r->seg_cap = cap;
	}
	r->seg[r->nseg++] = (struct lwm_segment){ .start = start, .len = len, .doc = doc };
	return 0;
}

static int flush_row(struct packer *k, struct lwm_err *e)
{
	struct row *r = &k->row;
	if (!r->n)
		return 0;
	LWM_TRY(lwm_pack_out_row(&k->out, r->tokens, r->seg, r->nseg, r->run, r->nruns, e));
	r->n = r->nseg = r->nruns = 0;
	return 0;
}

/* concat: what was the last token of a full row is the first of the next. */
static int flush_stream(struct packer *k, struct lwm_err *e)
{
	struct row *r = &k->row;
	int32_t last = r->tokens[r->n - 1];
	LWM_TRY(push_segment(r, 0, r->n, -1, e));
	LWM_TRY(flush_row(k, e));
	k->out.st->tokens_out -= r->carried; /* once */
	r->carried = true;
	r->tokens[r->n++] = last;
	return push_run(r, 0, 0, e);
}

static int emit_row(struct packer *k, const int64_t *item, int64_t n, struct lwm_err *e)
{
	struct row *r = &k->row;
	for (int64_t i = 0; i < n; i++) {
		const struct lwm_pack_item *p = &k->w.piece[item[i]];
		LWM_TRY(push_segment(r, r->n, p->len, p->doc, e));
		LWM_TRY(push_tokens(r, &k->w, p, 0, p->len, e));
	}
	return flush_row(k, e);
}

static int emit_concat(struct packer *k, bool last, struct lwm_err *e)
{
	struct row *r = &k->row;
	int64_t full = lwm_pack_row_tokens(k->c);
	for (int64_t i = 0; i < k->w.n; i++) {
		const struct lwm_pack_item *p = &k->w.piece[i];
		for (int64_t off = 0, len; off < p->len; off += len) {
			int64_t room = full - r->n;
			len = p->len - off < room ? p->len - off : room;
			LWM_TRY(push_tokens(r, &k->w, p, off, len, e));
			if (r->n == full)
				LWM_TRY(flush_stream(k, e));
		}
	}
	k->w.n = 0;
	if (!last || r->n == r->carried)
		return 0;
	if (!k->c->drop_tail)
		return flush_stream(k, e);
	k->out.st->tokens_cut += r->n - r->carried;
	return 0;
}

static int emit_padded(struct packer *k, struct lwm_err *e)
{
	for (int64_t i = 0; i < k->w.n; i++)
		LWM_TRY(emit_row(k, &i, 1, e));
	k->w.n = 0;
	return 0;
}

static int reserve_pieces(struct packer *k, int64_t n, struct lwm_err *e)
{
	if (n <= k->cap)
		return 0;
	int64_t **all[] = { &k->len, &k->place, &k->first, &k->item };
	for (int i = 0; i < 4; i++) {
		int64_t *v = realloc(*all[i], (size_t)(n + 2) * sizeof *v);
		if (!v)
			return no_memory(e);
		*all[i] = v;
	}
	k->cap = n;
	return 0;
}

/* item[first[r]] .. item[first[r+1]-1] become the pieces of row r. */
static void group_rows(struct packer *k, int64_t rows)
{
	memset(k->first, 0, (size_t)(rows + 1) * sizeof *k->first);
	for (int64_t i = 0; i < k->w.n; i++)
		k->first[k->place[i] + 1]++;
	for (int64_t r = 0; r < rows; r++)
		k->first[r + 1] += k->first[r];
	for (int64_t i = 0; i < k->w.n; i++) /* first[r] moves to the end of row r ... */
		k->item[k->first[k->place[i]]++] = i;
	for (int64_t r = rows; r > 0; r--) /* ... and back */
		k->first[r] = k->first[r - 1];
	k->first[0] = 0;
}

/* Is the row so empty, and are its pieces so fresh, that they are better tried again? */
static bool is_poor(const struct packer *k, int64_t r)
{
	int64_t tokens = 0;
	for (int64_t i = k->first[r]; i < k->first[r + 1]; i++) {
		tokens += k->w.piece[k->item[i]].len;
		if (k->w.piece[k->item[i]].age >= MAX_AGE)
			return false;
	}
	return (double)tokens < GOOD_FILL * (double)k->c->seq_length;
}

static int by_place(const void *a, const void *b)
{
	const struct lwm_pack_item *x = a, *y = b;
	return x->tok < y->tok ? -1 : x->tok > y->tok;
}

/* Keeps the marked pieces (place -1) at the start of the window's memory. A document's pieces share its runs, so a
 * run list may be copied more than once. */
static int keep_pieces(struct packer *k, struct lwm_err *e)
{
	struct lwm_window *w = &k->w, old = *w;
	int64_t n = 0, at = 0, runs = 0;
	for (int64_t i = 0; i < w->n; i++)
		if (k->place[i] < 0) {
			w->piece[n] = w->piece[i];
			runs += w->piece[n].nruns;
			w->piece[n++].age++;
		}
	qsort(w->piece, (size_t)n, sizeof *w->piece, by_place);
	w->runs = malloc((size_t)(runs + 1) * sizeof *w->runs);
	if (!w->runs) {
		w->runs = old.runs;
		return no_memory(e);
	}
	w->runs_cap = runs + 1;
	runs = 0;
	for (int64_t i = 0; i < n; i++) {
		struct lwm_pack_item *p = &w->piece[i];
		memmove(w->tokens + at, w->tokens + p->tok, (size_t)p->len * sizeof *w->tokens);
		memcpy(w->runs + runs, old.runs + p->run, (size_t)p->nruns * sizeof *w->runs);
		p->tok = at;
		p->run = runs;
		at += p->len;
		runs += p->nruns;
	}
	free(old.runs);
	w->n = n;
	w->ntokens = at;
	w->nruns = runs;
	return 0;
}

static int emit_masked(struct packer *k, bool last, struct lwm_err *e)
{
	struct lwm_window *w = &k->w;
	const struct lwm_pack_cfg *c = k->c;
	int64_t rows, room = w->n / 4;
	if (w->n == 0)
		return 0;
	LWM_TRY(reserve_pieces(k, w->n, e));
	for (int64_t i = 0; i < w->n; i++)
		k->len[i] = w->piece[i].len;
	rows = lwm_pack_best_fit(k->len, w->n, c->seq_length, k->place, e);
	if (rows < 0)
		return (int)rows;
	group_rows(k, rows);
	for (int64_t r = rows - 1; r >= 0 && !last; r--) {
		int64_t n = k->first[r + 1] - k->first[r];
		if (!is_poor(k, r) || n > room)
			continue;
		for (int64_t i = k->first[r]; i < k->first[r + 1]; i++)
			k->place[k->item[i]] = -1;
		room -= n;
	}
	uint64_t stream = 1ULL << 62 | (uint64_t)k->windows;
	for (int64_t i = 0; i < rows; i++) {
		int64_t r = c->shuffle ? lwm_rng_permute(c->seed, LWM_RNG_ORDER, stream, rows, i) : i;
		if (k->place[k->item[k->first[r]]] >= 0)
			LWM_TRY(emit_row(k, k->item + k->first[r], k->first[r + 1] - k->first[r], e));
	}
	return keep_pieces(k, e);
}

static int emit_window(struct packer *k, bool last, struct lwm_err *e)
{
	int rc = k->c->mode == LWM_PACK_MASKED ? emit_masked(k, last, e) :
		 k->c->mode == LWM_PACK_CONCAT ? emit_concat(k, last, e) : emit_padded(k, e);
	k->windows++;
	if (k->w.n == 0)
		k->w.ntokens = k->w.nruns = 0;
	return rc;
}

static int pack_windows(struct packer *k, struct lwm_err *e)
{
	const struct lwm_pack_cfg *c = k->c;
	int64_t docs = c->window > 0 ? c->window : WINDOW_DOCS;
	int64_t tokens = c->seq_length > WINDOW_TOKENS / WINDOW_ROWS ? WINDOW_ROWS * c->seq_length : WINDOW_TOKENS;
	int more = 1;
	while (more) {
		int64_t start = k->w.ntokens;
		double began = lwm_now();
		if (lwm_stop_wanted() >= LWM_STOP_END)
			return lwm_fail(e, LWM_ESAVED, "stopped (%s) at row %" PRId64 ": %" PRId64 " shards are complete; run me again",
					lwm_stop_reason(), k->out.st->rows, k->out.st->shards);
		while (k->w.n < docs + docs / 4 && k->w.ntokens - start < tokens) {
			more = lwm_mix_next(&k->mix, &k->w, e);
			LWM_TRY(more);
			if (!more)
				break;
			if (c->progress)
				lwm_progress_at(c->progress, k->mix.st->tokens_out + k->w.ntokens);
		}
		LWM_TRY(emit_window(k, !more, e));
		lwm_stop_cost(lwm_now() - began, 0);
	}
	return lwm_pack_out_finish(&k->out, e);
}

static int check_cfg(const struct lwm_pack_cfg *c, struct lwm_err *e)
{
	int64_t tasks = c->tasks > 0 ? c->tasks : 1;
	if (c->seq_length < 2 || c->task < 0 || c->task >= tasks || c->rows_per_shard < 0)
		return lwm_fail(e, LWM_ECONFIG, "rows of %" PRId64 " tokens, task %" PRId64 " of %" PRId64 ": not "
				"possible", c->seq_length, c->task, tasks);
	if (tasks > 1 && lwm_path_has_suffix(c->output, ".h5"))
		return lwm_fail(e, LWM_ECONFIG, "%s: several tasks write into a folder, this is the name of a file", c->output);
	if (c->drop_tail && c->mode != LWM_PACK_CONCAT)
		return lwm_fail(e, LWM_ECONFIG, "a tail to drop there is only where documents lie end to end (concat)");
	if (!(c->hold_out >= 0 && c->hold_out < 1) || (c->held_out && c->hold_out == 0))
		return lwm_fail(e, LWM_ECONFIG, "%s", c->held_out ? "held-out documents are wanted, and none are held out" :
								     "the share of held-out documents is 0 or more, and less than 1");
	return lwm_pack_in_folder(c) ? lwm_mkdirs(c->output, e) : 0;
}

static void finish_stats(struct packer *k)
{
	struct lwm_pack_stats *st = k->out.st;
	for (int64_t i = 0; i < k->c->nsources; i++)
		st->docs_used += k->mix.source[i].docs_used;
	st->docs_left = st->docs_in - st->docs_used - st->docs_aside;
	st->docs_left -= st->rejected_short + st->rejected_long + st->rejected_lossless;
	st->fill = st->rows ? (double)st->tokens_out / ((double)st->rows * (double)k->c->seq_length + k->row.carried) : 0;
}

static json_t *make_report(struct packer *k)
{
	const struct lwm_pack_stats *st = k->out.st;
	json_t *sources = json_array(), *settings = NULL;
	bool lost = lwm_json_parse(&settings, k->out.config, strlen(k->out.config), "the settings", NULL) < 0;
	for (int64_t i = 0; i < k->c->nsources; i++) {
		const struct lwm_mix_source *s = &k->mix.source[i];
		lost |= json_array_append_new(sources, json_pack("{s:s,s:I,s:I,s:I,s:I}", "name", k->c->source[i].name,
								 "documents_in", (json_int_t)s->docs_in, "documents_used",
								 (json_int_t)s->docs_used, "tokens_usable",
								 (json_int_t)s->usable, "tokens_used",
								 (json_int_t)s->drawn)) < 0;
	}
	if (lost) {
		json_decref(sources);
		json_decref(settings);
		return NULL;
	}
	json_t *o = json_pack("{s:o,s:o,s:O,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f}",
			 "settings", settings, "sources", sources, "shards", k->out.files,
			 "documents_in", (json_int_t)st->docs_in, "documents_used", (json_int_t)st->docs_used,
			 "documents_left", (json_int_t)st->docs_left, "rejected_short", (json_int_t)st->rejected_short,
			 "rejected_long", (json_int_t)st->rejected_long,
			 "rejected_lossless", (json_int_t)st->rejected_lossless, "repeats", (json_int_t)st->repeats,
			 "documents_split", (json_int_t)st->docs_split,
			 "documents_truncated", (json_int_t)st->docs_truncated, "pieces", (json_int_t)st->pieces,
			 "tokens_in", (json_int_t)st->tokens_in, "tokens_out", (json_int_t)st->tokens_out,
			 "tokens_cut", (json_int_t)st->tokens_cut, "rows", (json_int_t)st->rows,
			 "seq_length", (json_int_t)k->c->seq_length, "fill", st->fill);
	if (o && k->c->hold_out > 0 && json_object_set_new(o, "documents_aside", json_integer(st->docs_aside)) < 0) {
		json_decref(o);
		o = NULL;
	}
	return o;
}

static int write_report(struct packer *k, json_t **report, struct lwm_err *e)
{
	json_t *o = make_report(k);
	char *path = lwm_pack_report_path(k->c);
	int rc = o && path ? 0 : no_memory(e);
	if (rc == 0 && k->c->rows_per_shard)
		rc = lwm_json_write(o, path, true, e);
	free(path);
	if (rc == 0 && report)
		*report = o;
	else
		json_decref(o);
	return rc;
}

static void release_packer(struct packer *k)
{
	lwm_pack_out_release(&k->out);
	lwm_mix_release(&k->mix);
	free(k->w.tokens);
	free(k->w.runs);
	free(k->w.piece);
	free(k->row.tokens);
	free(k->row.seg);
	free(k->row.run);
	free(k->len);
	free(k->place);
	free(k->first);
	free(k->item);
}

int lwm_pack_run(const struct lwm_pack_cfg *cfg, struct lwm_pack_stats *stats, json_t **report, struct lwm_err *e)
{
	struct packer k = { .c = cfg };
	int rc;
	memset(stats, 0, sizeof *stats);
	if (report)
		*report = NULL;
	k.out = (struct lwm_pack_out){ .cfg = cfg, .mix = &k.mix, .st = stats };
	LWM_GO(check_cfg(cfg, e));
	LWM_GO(lwm_pack_config_text(cfg, &k.out.config, e));
	k.out.files = json_array();
	k.row.tokens = malloc((size_t)lwm_pack_row_tokens(cfg) * sizeof *k.row.tokens);
	if (!k.out.files || !k.row.tokens) {
		rc = no_memory(e);
		goto out;
	}
	LWM_GO(lwm_pack_inputs(&k.out, e));
	LWM_GO(lwm_pack_done(&k.out, e));
	stats->complete_before = rc > 0;
	if (stats->complete_before) {
		LWM_GO(lwm_pack_share(&k.out, e));
		rc = lwm_pack_index(cfg, e);
		goto out;
	}
	LWM_GO(lwm_mix_open(&k.mix, cfg, stats, e));
	LWM_GO(lwm_pack_inputs_stand(&k.out, e));
	LWM_GO(pack_windows(&k, e));
	finish_stats(&k);
	LWM_GO(write_report(&k, report, e));
	LWM_GO(lwm_pack_index(cfg, e));
out:
	release_packer(&k);
	return rc;
}
