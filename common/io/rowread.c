/* Row shards: reading them, those of today and of the layout before (lwm-rows-1). */
#include "common/io/rowshard_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/num.h"

static const char old_schema[] = "lwm-rows-1";
const char *const lwm_rows_schemas[] = { lwm_rows_schema, old_schema, NULL };
enum { TOKENS, ROW_SEG, SEG_START, SEG_LEN, SEG_LOSS, SEG_DOC, ROW_RUN, RUN_START, RUN_LOSS, OLD_VECS };
static const struct lwm_vec old_layout[OLD_VECS] = {
	[TOKENS] = { "tokens", LWM_V_TOKENS, 0 },    [ROW_SEG] = { "row_seg", LWM_V_I64, 0 },
	[SEG_START] = { "seg_start", LWM_V_I64, 0 }, [SEG_LEN] = { "seg_len", LWM_V_I64, 0 },
	[SEG_LOSS] = { "seg_loss", LWM_V_I64, 0 },   [SEG_DOC] = { "seg_doc", LWM_V_I64, 0 },
	[ROW_RUN] = { "row_run", LWM_V_I64, 0 },     [RUN_START] = { "run_start", LWM_V_I64, 0 },
	[RUN_LOSS] = { "run_loss", LWM_V_U8, 0 },
};

struct lwm_rows_reader {
	struct lwm_shard_in s;
	struct lwm_rows_meta meta;
	char *path;
	int64_t rows, vocab;
	bool old;     /* lwm-rows-1 */
	int64_t *col; /* [cap] one column of the row's entries */
	uint8_t *loss;
	struct lwm_loss_run *runs;
	int64_t cap;
};

static int read_meta(struct lwm_rows_reader *r, struct lwm_err *e)
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
	LWM_TRY(lwm_rows_check_meta(r->path, &r->meta, e));
	r->vocab = r->meta.vocab_text + r->meta.vocab_vision;
	return 0;
}

static int64_t vector_length(const struct lwm_rows_reader *r, int vec)
{
	return lwm_vfr_vec(r->s.r, vec)->n;
}

static int check_tokens(struct lwm_rows_reader *r, struct lwm_err *e)
{
	int64_t tokens;
	if (r->rows < 0 || lwm_mul(r->rows, r->meta.seq, &tokens) || vector_length(r, LWM_ROW_TOKENS) != tokens ||
	    lwm_vfr_vec(r->s.r, LWM_ROW_TOKENS)->type != lwm_token_type(r->vocab))
		return lwm_fail(e, LWM_EDATA, "%s: does not hold %" PRId64 " rows of %" PRId64 " tokens", r->path,
				r->rows, r->meta.seq);
	return 0;
}

/* What the rows are made of (entries `what`, of which `first` says where those of a row begin) is used to its end. */
static int check_use(struct lwm_rows_reader *r, int first, int what, struct lwm_err *e)
{
	int64_t last;
	if (vector_length(r, first) != r->rows + 1)
		return lwm_fail(e, LWM_EDATA, "%s: its vectors do not fit each other", r->path);
	LWM_TRY(lwm_vfr_read(r->s.r, first, r->rows, 1, &last, e));
	if (last != vector_length(r, what))
		return lwm_fail(e, LWM_EDATA, "%s: its rows do not use all segments and runs", r->path);
	return 0;
}

static int check_shape(struct lwm_rows_reader *r, struct lwm_err *e)
{
	LWM_TRY(check_tokens(r, e));
	if (!r->old) {
		if (vector_length(r, LWM_ROW_SEG_LEN) != vector_length(r, LWM_ROW_SEG_DOC))
			return lwm_fail(e, LWM_EDATA, "%s: its vectors do not fit each other", r->path);
		LWM_TRY(check_use(r, LWM_ROW_SEG, LWM_ROW_SEG_LEN, e));
		return check_use(r, LWM_ROW_FLIP, LWM_ROW_FLIP_AT, e);
	}
	int64_t segs = vector_length(r, SEG_START);
	if (vector_length(r, SEG_LEN) != segs || vector_length(r, SEG_LOSS) != segs || vector_length(r, SEG_DOC) != segs ||
	    vector_length(r, RUN_LOSS) != vector_length(r, RUN_START))
		return lwm_fail(e, LWM_EDATA, "%s: its vectors do not fit each other", r->path);
	LWM_TRY(check_use(r, ROW_SEG, SEG_START, e));
	return check_use(r, ROW_RUN, RUN_START, e);
}

static int open_one(struct lwm_rows_reader *r, const struct lwm_rows_facts *f, const char *schema, const struct lwm_vec *v, int nv,
		    struct lwm_err *e)
{
	if (!f)
		return lwm_shard_open(&r->s, r->path, lwm_rows_kind, schema, v, nv, e);
	r->s.manifest.bytes = f->bytes;
	memcpy(r->s.manifest.content, f->content, sizeof r->s.manifest.content);
	memcpy(r->s.manifest.hash, f->hash, sizeof r->s.manifest.hash);
	r->s.manifest.rows = f->shape;
	return lwm_shard_open_known(&r->s, r->path, schema, v, nv, e);
}

/* As what it is; a file that is neither is told what is wrong with it as one of today. */
static int open_shard(struct lwm_rows_reader *r, const struct lwm_rows_facts *f, struct lwm_err *e)
{
	struct lwm_err why = { 0 };
	int rc = open_one(r, f, lwm_rows_schema, lwm_rows_layout, LWM_ROW_VECS, &why);
	r->old = rc == -LWM_EDATA && lwm_shard_holds(r->path, old_schema);
	if (r->old)
		return open_one(r, f, old_schema, old_layout, OLD_VECS, e);
	if (rc < 0 && e)
		*e = why;
	return rc;
}

static int check_facts(const struct lwm_rows_reader *r, const struct lwm_rows_facts *f, struct lwm_err *e)
{
	const struct lwm_manifest_rows *x = &f->shape;
	if (x->rows == r->rows && x->seq == r->meta.seq && x->vocab_text == r->meta.vocab_text &&
	    x->vocab_vision == r->meta.vocab_vision)
		return 0;
	return lwm_fail(e, LWM_EDATA, "%s: is not what its manifest or the index of its folder says", r->path);
}

int lwm_rows_open(struct lwm_rows_reader **out, const char *path, struct lwm_err *e)
{
	return lwm_rows_open_as(out, path, NULL, e);
}

int lwm_rows_open_as(struct lwm_rows_reader **out, const char *path, const struct lwm_rows_facts *facts, struct lwm_err *e)
{
	int rc;
	struct lwm_rows_reader *r = calloc(1, sizeof *r);
	*out = NULL;
	if (!r || !(r->path = strdup(path))) {
		free(r);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	}
	LWM_GO(open_shard(r, facts, e));
	LWM_GO(read_meta(r, e));
	if (facts)
		LWM_GO(check_facts(r, facts, e));
	LWM_GO(check_shape(r, e));
	*out = r;
	return 0;
out:
	lwm_rows_close(r);
	return rc;
}

void lwm_rows_close(struct lwm_rows_reader *r)
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

const struct lwm_rows_meta *lwm_rows_get_meta(const struct lwm_rows_reader *r)
{
	return &r->meta;
}

const struct lwm_manifest *lwm_rows_manifest(const struct lwm_rows_reader *r)
{
	return &r->s.manifest;
}

int64_t lwm_rows_count(const struct lwm_rows_reader *r)
{
	return r->rows;
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

static int reserve_columns(struct lwm_rows_reader *r, int64_t n, struct lwm_err *e)
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
static int read_range(struct lwm_rows_reader *r, int vec, int64_t i, int64_t total, int64_t *first, int64_t *n, struct lwm_err *e)
{
	int64_t v[2];
	LWM_TRY(lwm_vfr_read(r->s.r, vec, i, 2, v, e));
	if (v[0] < 0 || v[1] < v[0] || v[1] > total || v[1] - v[0] > r->meta.seq)
		return lwm_fail(e, LWM_EDATA, "%s: '%s' makes no sense at row %" PRId64, r->path, lwm_vfr_vec(r->s.r, vec)->name,
				i);
	*first = v[0];
	*n = v[1] - v[0];
	return reserve_columns(r, *n, e);
}

/* n values of a vector of any of our integer types. */
static int read_ints(struct lwm_rows_reader *r, int vec, int64_t first, int64_t n, int64_t *out, struct lwm_err *e)
{
	enum lwm_vtype type = lwm_vfr_vec(r->s.r, vec)->type;
	char *small = (char *)out + n * (8 - lwm_vtype_bytes(type)); /* at the end, and widened from the start */
	LWM_TRY(lwm_vfr_read(r->s.r, vec, first, n, small, e));
	for (int64_t i = 0; i < n && type == LWM_V_U16; i++) {
		uint16_t v;
		memcpy(&v, small + 2 * i, 2);
		out[i] = v;
	}
	for (int64_t i = 0; i < n && type == LWM_V_U32; i++) {
		uint32_t v;
		memcpy(&v, small + 4 * i, 4);
		out[i] = v;
	}
	return 0;
}

/* In 4 bytes the two largest numbers stand for none and for padding. */
static int64_t document_of(const struct lwm_rows_reader *r, int64_t v)
{
	return lwm_vfr_vec(r->s.r, LWM_ROW_SEG_DOC)->type != LWM_V_I64 && v >= LWM_ROW_DOCS32 ? v - (UINT32_MAX + 1LL) : v;
}

static int get_segments(struct lwm_rows_reader *r, int64_t i, struct lwm_row *x, struct lwm_err *e)
{
	int64_t first, n, at = 0;
	LWM_TRY(read_range(r, LWM_ROW_SEG, i, vector_length(r, LWM_ROW_SEG_LEN), &first, &n, e));
	LWM_TRY(reserve_row(x, r->meta.seq, n, e));
	LWM_TRY(read_ints(r, LWM_ROW_SEG_LEN, first, n, r->col, e));
	for (int64_t k = 0; k < n; k++) {
		x->seg[k] = (struct lwm_segment){ .start = at, .len = r->col[k] };
		if (r->col[k] < 1 || r->col[k] > r->meta.seq - at)
			return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 ": entry %" PRId64 " does not fit", r->path, i, k);
		at += r->col[k];
	}
	LWM_TRY(read_ints(r, LWM_ROW_SEG_DOC, first, n, r->col, e));
	x->seq = r->meta.seq;
	x->nseg = 0;
	for (int64_t k = 0; k < n; k++) {
		struct lwm_segment *s = &x->seg[x->nseg];
		*s = x->seg[k];
		s->doc = document_of(r, r->col[k]);
		if (s->doc < LWM_ROW_GAP)
			return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 ": entry %" PRId64 " is of no document", r->path, i, k);
		x->nseg += s->doc != LWM_ROW_GAP;
	}
	return 0;
}

/* The mask, but for first tokens and padding. */
static int get_mask(struct lwm_rows_reader *r, int64_t i, struct lwm_row *x, struct lwm_err *e)
{
	int64_t first, n, at = 0;
	LWM_TRY(read_range(r, LWM_ROW_FLIP, i, vector_length(r, LWM_ROW_FLIP_AT), &first, &n, e));
	LWM_TRY(read_ints(r, LWM_ROW_FLIP_AT, first, n, r->col, e));
	for (int64_t k = 0; k <= n; k++) {
		int64_t end = k < n ? r->col[k] : x->seq;
		if (end < at || end > x->seq || (k && k < n && end == at))
			return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 ": place %" PRId64 " of its mask does not fit", r->path, i, k);
		memset(x->mask + at, (int)(k & 1), (size_t)(end - at));
		at = end;
	}
	return 0;
}

/* Padding, segment numbers, positions, first tokens, and the counts of labels. */
static void number_tokens(struct lwm_row *x)
{
	int64_t at = 0;
	for (int64_t k = 0; k <= x->nseg; k++) {
		struct lwm_segment *s = &x->seg[k];
		int64_t start = k < x->nseg ? s->start : x->seq;
		memset(x->mask + at, 0, (size_t)(start - at));
		for (; at < start; at++) {
			x->segment[at] = -1;
			x->position[at] = 0;
		}
		if (k == x->nseg)
			break;
		x->mask[start] = 0;
		s->n_loss = 0;
		for (; at < start + s->len; at++) {
			x->segment[at] = (int32_t)k;
			x->position[at] = (int32_t)(at - start);
			s->n_loss += x->mask[at];
		}
	}
}

static int get_row(struct lwm_rows_reader *r, int64_t i, struct lwm_row *x, struct lwm_err *e)
{
	LWM_TRY(get_segments(r, i, x, e));
	LWM_TRY(get_mask(r, i, x, e));
	number_tokens(x);
	return 0;
}

/* ---- lwm-rows-1 ---- */

static int old_segments(struct lwm_rows_reader *r, int64_t i, struct lwm_row *x, struct lwm_err *e)
{
	int64_t first, n, *c;
	LWM_TRY(read_range(r, ROW_SEG, i, vector_length(r, SEG_START), &first, &n, e));
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
	return lwm_rows_check_segments(r->path, i, x->seg, n, r->meta.seq, e);
}

static int old_mask(struct lwm_rows_reader *r, int64_t i, struct lwm_row *x, struct lwm_err *e)
{
	int64_t first, n;
	LWM_TRY(read_range(r, ROW_RUN, i, vector_length(r, RUN_START), &first, &n, e));
	LWM_TRY(lwm_vfr_read(r->s.r, RUN_START, first, n, r->col, e));
	LWM_TRY(lwm_vfr_read(r->s.r, RUN_LOSS, first, n, r->loss, e));
	if (n < 1)
		return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 " has no loss run", r->path, i);
	for (int64_t k = 0; k < n; k++)
		r->runs[k] = (struct lwm_loss_run){ r->col[k], r->loss[k] };
	LWM_TRY(lwm_rows_check_runs(r->path, i, r->runs, n, r->meta.seq, e));
	for (int64_t k = 0; k < n; k++) {
		int64_t end = k + 1 < n ? r->runs[k + 1].start : r->meta.seq;
		memset(x->mask + r->runs[k].start, r->runs[k].loss, (size_t)(end - r->runs[k].start));
	}
	return 0;
}

/* Segment numbers and positions, and that the stored counts of labels are those of the mask. */
static int old_number(struct lwm_rows_reader *r, int64_t i, struct lwm_row *x, struct lwm_err *e)
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

static int old_row(struct lwm_rows_reader *r, int64_t i, struct lwm_row *x, struct lwm_err *e)
{
	LWM_TRY(old_segments(r, i, x, e));
	LWM_TRY(old_mask(r, i, x, e));
	return old_number(r, i, x, e);
}

/* ---- any ---- */

int lwm_rows_read(struct lwm_rows_reader *r, int64_t i, struct lwm_row *out, struct lwm_err *e)
{
	if (i < 0 || i >= r->rows)
		return lwm_fail(e, LWM_EDATA, "%s: row %" PRId64 " of %" PRId64, r->path, i, r->rows);
	LWM_TRY(r->old ? old_row(r, i, out, e) : get_row(r, i, out, e));
	return lwm_tokens_read(r->s.r, LWM_ROW_TOKENS, i * r->meta.seq, r->meta.seq, r->vocab, out->tokens, r->path, e);
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
