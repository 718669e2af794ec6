/* Row shards: writing them. Reading is rowread.c's. */
#include "common/io/rowshard_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/num.h"
#include "common/io/seal.h"
#include "common/io/shard.h"

const char lwm_rows_schema[] = "lwm-rows-2", lwm_rows_kind[] = "rows";
const struct lwm_vec lwm_rows_layout[LWM_ROW_VECS] = {
	[LWM_ROW_TOKENS] = { "tokens", LWM_V_TOKENS, 0 }, [LWM_ROW_SEG] = { "row_seg", LWM_V_I64, 0 },
	[LWM_ROW_SEG_LEN] = { "seg_len", LWM_V_UINT, 0 }, [LWM_ROW_SEG_DOC] = { "seg_doc", LWM_V_UINT, 0 },
	[LWM_ROW_FLIP] = { "row_flip", LWM_V_I64, 0 },    [LWM_ROW_FLIP_AT] = { "flip_at", LWM_V_UINT, 0 },
};

/* ---- writing ---- */

struct lwm_rows_writer {
	struct lwm_shard_out s;
	struct lwm_spool spool[LWM_ROW_VECS];
	int64_t seq, vocab, rows, segs, entries, flips, tokens;
	enum lwm_vtype length, number; /* types of lengths and places, of documents */
	int32_t *row; /* [seq] the row with its padding cleared */
	char *col;    /* one column of the row's entries or flips, as it is stored */
	int64_t col_cap;
	bool broken;
};

int lwm_rows_check_meta(const char *path, const struct lwm_rows_meta *m, struct lwm_err *e)
{
	if (m->seq < 1 || m->seq > LWM_ROW_MOST)
		return lwm_fail(e, LWM_ECONFIG, "%s: rows of %" PRId64 " tokens, possible are 1 to %" PRId64, path,
				m->seq, LWM_ROW_MOST);
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
	LWM_TRY(lwm_rows_check_meta(path, m, e));
	struct lwm_rows_writer *w = calloc(1, sizeof *w);
	if (!w)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	LWM_GO(lwm_shard_begin(&w->s, path, lwm_rows_kind, lwm_rows_schema, m->tool, m->config, force, e));
	w->seq = m->seq;
	w->vocab = m->vocab_text + m->vocab_vision;
	w->row = malloc((size_t)m->seq * sizeof *w->row);
	w->length = m->seq <= UINT16_MAX ? LWM_V_U16 : LWM_V_U32;
	w->number = LWM_V_I64;
	if (!w->row) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory for a row of %" PRId64 " tokens", path, m->seq);
		goto out;
	}
	w->s.manifest.rows = (struct lwm_manifest_rows){ .seq = m->seq, .vocab_text = m->vocab_text,
							 .vocab_vision = m->vocab_vision };
	snprintf(w->s.manifest.rows.tokenizer, sizeof w->s.manifest.rows.tokenizer, "%s", m->tokenizer ? m->tokenizer : "");
	lwm_put(w->s.meta, "seq_length", json_integer(m->seq), &w->s.failed);
	lwm_put(w->s.meta, "vocab_text", json_integer(m->vocab_text), &w->s.failed);
	lwm_put(w->s.meta, "vocab_vision", json_integer(m->vocab_vision), &w->s.failed);
	lwm_put(w->s.meta, "tokenizer", json_string(m->tokenizer), &w->s.failed);
	lwm_put(w->s.meta, "weighting", json_string(m->weighting), &w->s.failed);
	LWM_GO(add_i64(w, LWM_ROW_SEG, 0, e));
	LWM_GO(add_i64(w, LWM_ROW_FLIP, 0, e));
	*out = w;
	return 0;
out:
	lwm_rows_discard(w);
	return rc;
}

int lwm_rows_check_segments(const char *path, int64_t row, const struct lwm_segment *seg, int64_t nseg, int64_t seq,
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

int lwm_rows_check_runs(const char *path, int64_t row, const struct lwm_loss_run *runs, int64_t nruns, int64_t seq,
			struct lwm_err *e)
{
	for (int64_t i = 0; i < nruns; i++)
		if (runs[i].start >= seq || runs[i].loss > 1 ||
		    (i ? runs[i].start <= runs[i - 1].start : runs[i].start != 0))
			return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 ": loss run %" PRId64 " does not fit", path,
					row, i);
	return 0;
}

/* The row as it is stored: padding is token 0. */
static void lay_out(struct lwm_rows_writer *w, const int32_t *tokens, const struct lwm_segment *seg, int64_t nseg)
{
	int64_t end = 0;
	for (int64_t i = 0; i <= nseg; i++) {
		int64_t start = i < nseg ? seg[i].start : w->seq;
		if (start > end)
			memset(w->row + end, 0, (size_t)(start - end) * sizeof *w->row);
		if (i == nseg)
			break;
		memcpy(w->row + start, tokens + start, (size_t)seg[i].len * sizeof *w->row);
		end = start + seg[i].len;
	}
}

/* Value i of a column in the type in which it is stored. */
static void set_value(char *col, enum lwm_vtype type, int64_t i, int64_t v)
{
	if (type == LWM_V_U16)
		((uint16_t *)(void *)col)[i] = (uint16_t)v;
	else if (type == LWM_V_U32)
		((uint32_t *)(void *)col)[i] = (uint32_t)v;
	else
		((int64_t *)(void *)col)[i] = v;
}

static int reserve_column(struct lwm_rows_writer *w, int64_t n, struct lwm_err *e)
{
	if (n <= w->col_cap)
		return 0;
	char *p = realloc(w->col, (size_t)n * 8);
	if (!p)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for a row of %" PRId64 " segments", w->s.path, n);
	w->col = p;
	w->col_cap = n;
	return 0;
}

static int add_col(struct lwm_rows_writer *w, int vec, enum lwm_vtype type, int64_t n, struct lwm_err *e)
{
	return lwm_spool_add(&w->spool[vec], w->col, n * lwm_vtype_bytes(type), w->s.path, e);
}

/* Padding before a segment is an entry of its own, so that starts follow from lengths. */
static int add_segments(struct lwm_rows_writer *w, const struct lwm_segment *seg, int64_t nseg, struct lwm_err *e)
{
	int64_t n = 0, end = 0;
	for (int64_t i = 0; i < nseg; end = seg[i].start + seg[i].len, i++) {
		if (seg[i].start > end)
			set_value(w->col, w->length, n++, seg[i].start - end);
		set_value(w->col, w->length, n++, seg[i].len);
		w->tokens += seg[i].len;
	}
	LWM_TRY(add_col(w, LWM_ROW_SEG_LEN, w->length, n, e));
	n = end = 0;
	for (int64_t i = 0; i < nseg; end = seg[i].start + seg[i].len, i++) {
		if (seg[i].start > end)
			set_value(w->col, w->number, n++, LWM_ROW_GAP);
		set_value(w->col, w->number, n++, seg[i].doc);
	}
	LWM_TRY(add_col(w, LWM_ROW_SEG_DOC, w->number, n, e));
	w->segs += nseg;
	w->entries += n;
	return add_i64(w, LWM_ROW_SEG, w->entries, e);
}

/* Where the mask changes. First tokens of segments and padding do not count: a reader clears them anyway. */
static int add_mask(struct lwm_rows_writer *w, const struct lwm_segment *seg, int64_t nseg, const struct lwm_loss_run *runs,
		    int64_t nruns, struct lwm_err *e)
{
	static const struct lwm_loss_run all = { 0, 1 };
	int64_t n = 0, k = 0;
	uint8_t now = 0;
	if (nruns == 0) {
		runs = &all;
		nruns = 1;
	}
	for (int64_t i = 0; i < nseg; i++) {
		int64_t t = seg[i].start + 1, end = seg[i].start + seg[i].len;
		while (t < end) { /* t: the first token of run k that counts in this segment */
			while (k + 1 < nruns && runs[k + 1].start <= t)
				k++;
			if (runs[k].loss != now)
				set_value(w->col, w->length, n++, t);
			now = runs[k].loss;
			t = k + 1 < nruns ? runs[k + 1].start : end;
		}
	}
	LWM_TRY(add_col(w, LWM_ROW_FLIP_AT, w->length, n, e));
	w->flips += n;
	return add_i64(w, LWM_ROW_FLIP, w->flips, e);
}

static int check_docs(const struct lwm_rows_writer *w, const struct lwm_segment *seg, int64_t nseg, struct lwm_err *e)
{
	int64_t most = w->number == LWM_V_U32 ? LWM_ROW_DOCS32 : INT64_MAX;
	for (int64_t i = 0; i < nseg; i++)
		if (seg[i].doc < -1 || seg[i].doc >= most)
			return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 ": segment %" PRId64 " is of document %" PRId64 ", which cannot be stored",
					w->s.path, w->rows, i, seg[i].doc);
	return 0;
}

int lwm_rows_append(struct lwm_rows_writer *w, const int32_t *tokens, const struct lwm_segment *seg, int64_t nseg,
		    const struct lwm_loss_run *runs, int64_t nruns, struct lwm_err *e)
{
	int64_t bad;
	LWM_TRY(lwm_rows_check_segments(w->s.path, w->rows, seg, nseg, w->seq, e));
	LWM_TRY(lwm_rows_check_runs(w->s.path, w->rows, runs, nruns, w->seq, e));
	LWM_TRY(check_docs(w, seg, nseg, e));
	LWM_TRY(reserve_column(w, 2 * nseg + nruns + 1, e));
	lay_out(w, tokens, seg, nseg);
	w->broken = true;
	LWM_TRY(lwm_tokens_add(&w->spool[LWM_ROW_TOKENS], w->row, w->seq, w->vocab, &bad, w->s.path, e));
	if (bad >= 0) {
		w->broken = false;
		return lwm_fail(e, LWM_EDATA,
				"%s: row %" PRId64 ": token %" PRId64 " has id %" PRId32
				", the vocabulary has %" PRId64,
				w->s.path, w->rows, bad, w->row[bad], w->vocab);
	}
	LWM_TRY(add_segments(w, seg, nseg, e));
	LWM_TRY(add_mask(w, seg, nseg, runs, nruns, e));
	w->rows++;
	w->broken = false;
	return 0;
}

int lwm_rows_input(struct lwm_rows_writer *w, const char *path, int64_t bytes, const char *hash, struct lwm_err *e)
{
	return lwm_manifest_add_input(&w->s.manifest, path, bytes, hash, e);
}

void lwm_rows_inputs(struct lwm_rows_writer *w, const struct lwm_manifest_list *list)
{
	w->s.manifest.list = *list;
}

int lwm_rows_reject(struct lwm_rows_writer *w, const char *reason, int64_t count, struct lwm_err *e)
{
	return lwm_manifest_add_reject(&w->s.manifest, reason, count, e);
}

int lwm_rows_commit(struct lwm_rows_writer *w, struct lwm_err *e)
{
	struct lwm_vec v[LWM_ROW_VECS];
	memcpy(v, lwm_rows_layout, sizeof v);
	v[LWM_ROW_TOKENS].type = lwm_token_type(w->vocab);
	v[LWM_ROW_SEG_LEN].type = v[LWM_ROW_FLIP_AT].type = w->length;
	v[LWM_ROW_SEG_DOC].type = w->number;
	w->s.manifest.out = w->segs;
	w->s.manifest.in = w->segs + w->s.manifest.rejected;
	w->s.manifest.tokens = w->tokens;
	w->s.manifest.rows.rows = w->rows;
	lwm_put(w->s.meta, "rows", json_integer(w->rows), &w->s.failed);
	lwm_put(w->s.meta, "segments", json_integer(w->segs), &w->s.failed);
	lwm_put(w->s.meta, "rejected", json_integer(w->s.manifest.rejected), &w->s.failed);
	int rc = w->broken ? lwm_fail(e, LWM_EIO, "%s: not finished: an earlier write failed", w->s.path)
			   : lwm_shard_commit(&w->s, lwm_rows_schema, v, w->spool, LWM_ROW_VECS, e);
	lwm_rows_discard(w);
	return rc;
}

void lwm_rows_documents(struct lwm_rows_writer *w, int64_t docs)
{
	LWM_BUG_ON(w->rows);
	w->number = docs <= LWM_ROW_DOCS32 ? LWM_V_U32 : LWM_V_I64;
}

void lwm_rows_discard(struct lwm_rows_writer *w)
{
	if (!w)
		return;
	for (int i = 0; i < LWM_ROW_VECS; i++)
		lwm_spool_release(&w->spool[i]);
	lwm_shard_release(&w->s);
	free(w->row);
	free(w->col);
	free(w);
}
