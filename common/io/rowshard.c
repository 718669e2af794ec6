#include "common/io/rowshard.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/num.h"
#include "common/io/seal.h"
#include "common/io/shard.h"

static const char SCHEMA[] = "lwm-rows-1", KIND[] = "rows";
enum { TOKENS, ROW_SEG, SEG_START, SEG_LEN, SEG_LOSS, SEG_DOC, ROW_RUN, RUN_START, RUN_LOSS, VECS };
static const struct lwm_vec layout[VECS] = {
	[TOKENS] = { "tokens", LWM_V_TOKENS, 0 },    [ROW_SEG] = { "row_seg", LWM_V_I64, 0 },
	[SEG_START] = { "seg_start", LWM_V_I64, 0 }, [SEG_LEN] = { "seg_len", LWM_V_I64, 0 },
	[SEG_LOSS] = { "seg_loss", LWM_V_I64, 0 },   [SEG_DOC] = { "seg_doc", LWM_V_I64, 0 },
	[ROW_RUN] = { "row_run", LWM_V_I64, 0 },     [RUN_START] = { "run_start", LWM_V_I64, 0 },
	[RUN_LOSS] = { "run_loss", LWM_V_U8, 0 },
};
#define SEQ_MAX (1LL << 30)

/* ---- writing ---- */

struct lwm_rows_writer {
	struct lwm_shard_out s;
	struct lwm_spool spool[VECS];
	int64_t seq, vocab, rows, segs, runs, tokens;
	int32_t *row;  /* [seq] the row with its padding cleared */
	uint8_t *mask; /* [seq] */
	bool broken;
};

static int check_meta(const char *path, const struct lwm_rows_meta *m, struct lwm_err *e)
{
	if (m->seq < 1 || m->seq > SEQ_MAX)
		return lwm_fail(e, LWM_ECONFIG, "%s: rows of %" PRId64 " tokens, possible are 1 to %lld", path,
				m->seq, SEQ_MAX);
	if (m->vocab_text < 1 || m->vocab_vision < 0 || m->vocab_text > INT32_MAX || m->vocab_vision > INT32_MAX ||
	    m->vocab_text + m->vocab_vision > INT32_MAX)
		return lwm_fail(e, LWM_ECONFIG, "%s: a vocabulary of %" PRId64 " + %" PRId64 " ids cannot be stored",
				path, m->vocab_text, m->vocab_vision);
	return 0;
}

static int add_i64(struct lwm_rows_writer *w, int vec, int64_t v, struct lwm_err *e)
{
	return lwm_spool_add(&w->spool[vec], &v, sizeof v, w->s.path, e);
}

int lwm_rows_create(struct lwm_rows_writer **out, const char *path, const struct lwm_rows_meta *m, bool force,
		    struct lwm_err *e)
{
	int rc;
	*out = NULL;
	LWM_TRY(check_meta(path, m, e));
	struct lwm_rows_writer *w = calloc(1, sizeof *w);
	if (!w)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	LWM_GO(lwm_shard_begin(&w->s, path, KIND, SCHEMA, m->tool, m->config, force, e));
	w->seq = m->seq;
	w->vocab = m->vocab_text + m->vocab_vision;
	w->row = malloc((size_t)m->seq * sizeof *w->row);
	w->mask = malloc((size_t)m->seq);
	if (!w->row || !w->mask) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory for a row of %" PRId64 " tokens", path, m->seq);
		goto out;
	}
	lwm_put(w->s.meta, "seq_length", json_integer(m->seq), &w->s.failed);
	lwm_put(w->s.meta, "vocab_text", json_integer(m->vocab_text), &w->s.failed);
	lwm_put(w->s.meta, "vocab_vision", json_integer(m->vocab_vision), &w->s.failed);
	lwm_put(w->s.meta, "tokenizer", json_string(m->tokenizer), &w->s.failed);
	lwm_put(w->s.meta, "weighting", json_string(m->weighting), &w->s.failed);
	LWM_GO(add_i64(w, ROW_SEG, 0, e));
	LWM_GO(add_i64(w, ROW_RUN, 0, e));
	*out = w;
	return 0;
out:
	lwm_rows_discard(w);
	return rc;
}

static int check_segments(const char *path, int64_t row, const struct lwm_segment *seg, int64_t nseg, int64_t seq,
			  struct lwm_err *e)
{
	int64_t end = 0;
	for (int64_t i = 0; i < nseg; i++) {
		if (seg[i].start < end || seg[i].len < 1 || seg[i].len > seq || seg[i].start > seq - seg[i].len)
			return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 ": segment %" PRId64 " does not fit", path,
					row, i);
		end = seg[i].start + seg[i].len;
	}
	return 0;
}

static int check_runs(const char *path, int64_t row, const struct lwm_loss_run *runs, int64_t nruns, int64_t seq,
		      struct lwm_err *e)
{
	for (int64_t i = 0; i < nruns; i++)
		if (runs[i].start >= seq || runs[i].loss > 1 ||
		    (i ? runs[i].start <= runs[i - 1].start : runs[i].start != 0))
			return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 ": loss run %" PRId64 " does not fit", path,
					row, i);
	return 0;
}

static void expand_runs(const struct lwm_loss_run *runs, int64_t nruns, int64_t seq, uint8_t *mask)
{
	for (int64_t i = 0; i < nruns; i++) {
		int64_t end = i + 1 < nruns ? runs[i + 1].start : seq;
		memset(mask + runs[i].start, runs[i].loss, (size_t)(end - runs[i].start));
	}
}

/* Tokens and mask of the row as it is stored: padding is token 0 without loss, no segment starts with a target. */
static void lay_out(struct lwm_rows_writer *w, const int32_t *tokens, const struct lwm_segment *seg, int64_t nseg)
{
	int64_t end = 0;
	for (int64_t i = 0; i <= nseg; i++) {
		int64_t start = i < nseg ? seg[i].start : w->seq;
		memset(w->row + end, 0, (size_t)(start - end) * sizeof *w->row);
		memset(w->mask + end, 0, (size_t)(start - end));
		if (i == nseg)
			break;
		memcpy(w->row + start, tokens + start, (size_t)seg[i].len * sizeof *w->row);
		w->mask[start] = 0;
		end = start + seg[i].len;
	}
}

static int add_mask(struct lwm_rows_writer *w, struct lwm_err *e)
{
	for (int64_t t = 0; t < w->seq;) {
		const uint8_t *end = memchr(w->mask + t, w->mask[t] ? 0 : 1, (size_t)(w->seq - t));
		LWM_TRY(add_i64(w, RUN_START, t, e));
		LWM_TRY(lwm_spool_add(&w->spool[RUN_LOSS], &w->mask[t], 1, w->s.path, e));
		w->runs++;
		t = end ? end - w->mask : w->seq;
	}
	return add_i64(w, ROW_RUN, w->runs, e);
}

/* at -O2 the compiler leaves this loop scalar */
__attribute__((optimize("O3"))) static int64_t ones(const uint8_t *mask, int64_t n)
{
	int64_t sum = 0;
	for (int64_t i = 0; i < n; i++)
		sum += mask[i];
	return sum;
}

static int add_segments(struct lwm_rows_writer *w, const struct lwm_segment *seg, int64_t nseg, struct lwm_err *e)
{
	for (int64_t i = 0; i < nseg; i++) {
		int64_t loss = ones(w->mask + seg[i].start, seg[i].len);
		LWM_TRY(add_i64(w, SEG_START, seg[i].start, e));
		LWM_TRY(add_i64(w, SEG_LEN, seg[i].len, e));
		LWM_TRY(add_i64(w, SEG_LOSS, loss, e));
		LWM_TRY(add_i64(w, SEG_DOC, seg[i].doc, e));
		w->tokens += seg[i].len;
	}
	w->segs += nseg;
	return add_i64(w, ROW_SEG, w->segs, e);
}

int lwm_rows_append(struct lwm_rows_writer *w, const int32_t *tokens, const struct lwm_segment *seg, int64_t nseg,
		    const struct lwm_loss_run *runs, int64_t nruns, struct lwm_err *e)
{
	int64_t bad;
	LWM_TRY(check_segments(w->s.path, w->rows, seg, nseg, w->seq, e));
	LWM_TRY(check_runs(w->s.path, w->rows, runs, nruns, w->seq, e));
	memset(w->mask, 1, (size_t)w->seq);
	expand_runs(runs, nruns, w->seq, w->mask);
	lay_out(w, tokens, seg, nseg);
	w->broken = true;
	LWM_TRY(lwm_tokens_add(&w->spool[TOKENS], w->row, w->seq, w->vocab, &bad, w->s.path, e));
	if (bad >= 0) {
		w->broken = false;
		return lwm_fail(e, LWM_EDATA,
				"%s: row %" PRId64 ": token %" PRId64 " has id %" PRId32
				", the vocabulary has %" PRId64,
				w->s.path, w->rows, bad, w->row[bad], w->vocab);
	}
	LWM_TRY(add_segments(w, seg, nseg, e));
	LWM_TRY(add_mask(w, e));
	w->rows++;
	w->broken = false;
	return 0;
}

int lwm_rows_input(struct lwm_rows_writer *w, const char *path, int64_t bytes, const char *hash, struct lwm_err *e)
{
	return lwm_manifest_add_input(&w->s.manifest, path, bytes, hash, e);
}

int lwm_rows_reject(struct lwm_rows_writer *w, const char *reason, int64_t count, struct lwm_err *e)
{
	return lwm_manifest_add_reject(&w->s.manifest, reason, count, e);
}

int64_t lwm_rows_written(const struct lwm_rows_writer *w)
{
	return w->rows;
}

int lwm_rows_commit(struct lwm_rows_writer *w, struct lwm_err *e)
{
	struct lwm_vec v[VECS];
	memcpy(v, layout, sizeof v);
	v[TOKENS].type = lwm_token_type(w->vocab);
	w->s.manifest.out = w->segs;
	w->s.manifest.in = w->segs + w->s.manifest.rejected;
	w->s.manifest.tokens = w->tokens;
	lwm_put(w->s.meta, "rows", json_integer(w->rows), &w->s.failed);
	lwm_put(w->s.meta, "segments", json_integer(w->segs), &w->s.failed);
	lwm_put(w->s.meta, "rejected", json_integer(w->s.manifest.rejected), &w->s.failed);
	int rc = w->broken ? lwm_fail(e, LWM_EIO, "%s: not finished: an earlier write failed", w->s.path)
			   : lwm_shard_commit(&w->s, SCHEMA, v, w->spool, VECS, e);
	lwm_rows_discard(w);
	return rc;
}

void lwm_rows_discard(struct lwm_rows_writer *w)
{
	if (!w)
		return;
	for (int i = 0; i < VECS; i++)
		lwm_spool_release(&w->spool[i]);
	lwm_shard_release(&w->s);
	free(w->row);
	free(w->mask);
	free(w);
}

/* ---- reading ---- */

struct lwm_rows {
	struct lwm_shard_in s;
	struct lwm_rows_meta meta;
	char *path;
	int64_t rows, vocab;
	int64_t *col; /* one column of segments or runs */
	uint8_t *loss;
	struct lwm_loss_run *runs;
	int64_t cap;
};

static int read_meta(struct lwm_rows *r, struct lwm_err *e)
{
	const json_t *m = r->s.meta;
	LWM_TRY(lwm_json_int(m, "seq_length", &r->meta.seq, r->path, e));
	LWM_TRY(lwm_json_int(m, "vocab_text", &r->meta.vocab_text, r->path, e));
	LWM_TRY(lwm_json_int(m, "vocab_vision", &r->meta.vocab_vision, r->path, e));
	LWM_TRY(lwm_json_str(m, "tokenizer", &r->meta.tokenizer, r->path, e));
	LWM_TRY(lwm_json_str(m, "tool", &r->meta.tool, r->path, e));
	LWM_TRY(lwm_json_str(m, "config", &r->meta.config, r->path, e));
	LWM_TRY(lwm_json_str(m, "weighting", &r->meta.weighting, r->path, e));
	LWM_TRY(lwm_json_int(m, "rows", &r->rows, r->path, e));
	LWM_TRY(check_meta(r->path, &r->meta, e));
	r->vocab = r->meta.vocab_text + r->meta.vocab_vision;
	return 0;
}

static int64_t length(const struct lwm_rows *r, int vec)
{
	return lwm_vfr_vec(r->s.r, vec)->n;
}

static int check_shape(struct lwm_rows *r, struct lwm_err *e)
{
	int64_t tokens, segs = length(r, SEG_START), runs = length(r, RUN_START), last_seg, last_run;
	if (r->rows < 0 || lwm_mul(r->rows, r->meta.seq, &tokens) || length(r, TOKENS) != tokens ||
	    lwm_vfr_vec(r->s.r, TOKENS)->type != lwm_token_type(r->vocab))
		return lwm_fail(e, LWM_EDATA, "%s: does not hold %" PRId64 " rows of %" PRId64 " tokens", r->path,
				r->rows, r->meta.seq);
	if (length(r, ROW_SEG) != r->rows + 1 || length(r, ROW_RUN) != r->rows + 1 || length(r, SEG_LEN) != segs ||
	    length(r, SEG_LOSS) != segs || length(r, SEG_DOC) != segs || length(r, RUN_LOSS) != runs)
		return lwm_fail(e, LWM_EDATA, "%s: its vectors do not fit each other", r->path);
	LWM_TRY(lwm_vfr_read(r->s.r, ROW_SEG, r->rows, 1, &last_seg, e));
	LWM_TRY(lwm_vfr_read(r->s.r, ROW_RUN, r->rows, 1, &last_run, e));
	if (last_seg != segs || last_run != runs)
		return lwm_fail(e, LWM_EDATA, "%s: its rows do not use all segments and runs", r->path);
	return 0;
}

int lwm_rows_open(struct lwm_rows **out, const char *path, struct lwm_err *e)
{
	int rc;
	struct lwm_rows *r = calloc(1, sizeof *r);
	*out = NULL;
	if (!r || !(r->path = strdup(path))) {
		free(r);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	}
	LWM_GO(lwm_shard_open(&r->s, path, KIND, SCHEMA, layout, VECS, e));
	LWM_GO(read_meta(r, e));
	LWM_GO(check_shape(r, e));
	*out = r;
	return 0;
out:
	lwm_rows_close(r);
	return rc;
}

void lwm_rows_close(struct lwm_rows *r)
{
	if (!r)
		return;
	lwm_shard_close(&r->s);
	free(r->path);
	free(r->col);
	free(r->loss);
	free(r->runs);
	free(r);
}

const struct lwm_rows_meta *lwm_rows_meta(const struct lwm_rows *r)
{
	return &r->meta;
}

const struct lwm_manifest *lwm_rows_manifest(const struct lwm_rows *r)
{
	return &r->s.manifest;
}

int64_t lwm_rows_count(const struct lwm_rows *r)
{
	return r->rows;
}

int64_t lwm_rows_seq(const struct lwm_rows *r)
{
	return r->meta.seq;
}

static int reserve_row(struct lwm_row *x, int64_t seq, int64_t nseg, struct lwm_err *e)
{
	if (seq > x->cap) {
		lwm_row_release(x);
		x->tokens = malloc((size_t)seq * 4);
		x->segment = malloc((size_t)seq * 4);
		x->position = malloc((size_t)seq * 4);
		x->mask = malloc((size_t)seq);
		if (!x->tokens || !x->segment || !x->position || !x->mask)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for a row of %" PRId64 " tokens", seq);
		x->cap = seq;
	}
	if (nseg > x->seg_cap) {
		struct lwm_segment *s = realloc(x->seg, (size_t)nseg * sizeof *s);
		if (!s)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " segments", nseg);
		x->seg = s;
		x->seg_cap = nseg;
	}
	return 0;
}

static int reserve(struct lwm_rows *r, int64_t n, struct lwm_err *e)
{
	if (n <= r->cap)
		return 0;
	free(r->col);
	free(r->loss);
	free(r->runs);
	r->cap = 0;
	r->col = malloc((size_t)n * 8);
	r->loss = malloc((size_t)n);
	r->runs = malloc((size_t)n * sizeof *r->runs);
	if (!r->col || !r->loss || !r->runs)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", r->path);
	r->cap = n;
	return 0;
}

/* Entries of row i; a row has at most one per token. */
static int range(struct lwm_rows *r, int vec, int64_t i, int64_t total, int64_t *first, int64_t *n, struct lwm_err *e)
{
	int64_t v[2];
	LWM_TRY(lwm_vfr_read(r->s.r, vec, i, 2, v, e));
	if (v[0] < 0 || v[1] < v[0] || v[1] > total || v[1] - v[0] > r->meta.seq)
		return lwm_fail(e, LWM_EDATA, "%s: '%s' makes no sense at row %" PRId64, r->path, layout[vec].name,
				i);
	*first = v[0];
	*n = v[1] - v[0];
	return reserve(r, *n, e);
}

static int get_segments(struct lwm_rows *r, int64_t i, struct lwm_row *x, struct lwm_err *e)
{
	int64_t first, n, *c;
	LWM_TRY(range(r, ROW_SEG, i, length(r, SEG_START), &first, &n, e));
	LWM_TRY(reserve_row(x, r->meta.seq, n, e));
	c = r->col;
	LWM_TRY(lwm_vfr_read(r->s.r, SEG_START, first, n, c, e));
	for (int64_t k = 0; k < n; k++)
		x->seg[k].start = c[k];
	LWM_TRY(lwm_vfr_read(r->s.r, SEG_LEN, first, n, c, e));
	for (int64_t k = 0; k < n; k++)
		x->seg[k].len = c[k];
	LWM_TRY(lwm_vfr_read(r->s.r, SEG_LOSS, first, n, c, e));
	for (int64_t k = 0; k < n; k++)
		x->seg[k].n_loss = c[k];
	LWM_TRY(lwm_vfr_read(r->s.r, SEG_DOC, first, n, c, e));
	for (int64_t k = 0; k < n; k++)
		x->seg[k].doc = c[k];
	x->nseg = n;
	x->seq = r->meta.seq;
	return check_segments(r->path, i, x->seg, n, r->meta.seq, e);
}

static int get_mask(struct lwm_rows *r, int64_t i, struct lwm_row *x, struct lwm_err *e)
{
	int64_t first, n;
	LWM_TRY(range(r, ROW_RUN, i, length(r, RUN_START), &first, &n, e));
	LWM_TRY(lwm_vfr_read(r->s.r, RUN_START, first, n, r->col, e));
	LWM_TRY(lwm_vfr_read(r->s.r, RUN_LOSS, first, n, r->loss, e));
	if (n < 1)
		return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 " has no loss run", r->path, i);
	for (int64_t k = 0; k < n; k++)
		r->runs[k] = (struct lwm_loss_run){ r->col[k], r->loss[k] };
	LWM_TRY(check_runs(r->path, i, r->runs, n, r->meta.seq, e));
	expand_runs(r->runs, n, r->meta.seq, x->mask);
	return 0;
}

/* Segment numbers and positions, and that the stored counts of labels are those of the mask. */
static int number(struct lwm_rows *r, int64_t i, struct lwm_row *x, struct lwm_err *e)
{
	int64_t at = 0;
	for (int64_t k = 0; k <= x->nseg; k++) {
		int64_t start = k < x->nseg ? x->seg[k].start : x->seq, loss = 0;
		for (; at < start; at++) {
			x->segment[at] = -1;
			x->position[at] = 0;
			if (x->mask[at])
				return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 ": padding with loss", r->path, i);
		}
		for (; k < x->nseg && at < start + x->seg[k].len; at++) {
			x->segment[at] = (int32_t)k;
			x->position[at] = (int32_t)(at - start);
			loss += x->mask[at];
		}
		if (k < x->nseg && (x->seg[k].n_loss != loss || x->mask[start]))
			return lwm_fail(e, LWM_EDATA,
					"%s: row %" PRId64 ": segment %" PRId64 " has %" PRId64
					" tokens with loss, not %" PRId64,
					r->path, i, k, loss, x->seg[k].n_loss);
	}
	return 0;
}

int lwm_rows_read(struct lwm_rows *r, int64_t i, struct lwm_row *out, struct lwm_err *e)
{
	if (i < 0 || i >= r->rows)
		return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 " of %" PRId64, r->path, i, r->rows);
	LWM_TRY(get_segments(r, i, out, e));
	LWM_TRY(get_mask(r, i, out, e));
	LWM_TRY(number(r, i, out, e));
	return lwm_tokens_read(r->s.r, TOKENS, i * r->meta.seq, r->meta.seq, r->vocab, out->tokens, r->path, e);
}

void lwm_row_release(struct lwm_row *x)
{
	free(x->tokens);
	free(x->segment);
	free(x->position);
	free(x->mask);
	free(x->seg);
	memset(x, 0, sizeof *x);
}
