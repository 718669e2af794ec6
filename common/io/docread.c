/* Reading document shards: one document, lengths of many, or the tokens and loss runs of many at once. */
#include "common/io/docshard_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"

const char lwm_docs_schema[] = "lwm-docs-2", lwm_docs_kind[] = "docs";
static const char old_schema[] = "lwm-docs-1"; /* sums over larger blocks */
const char *const lwm_docs_schemas[] = { lwm_docs_schema, old_schema, NULL };
const struct lwm_vec lwm_docs_layout[LWM_DOC_VECS] = {
	[LWM_DOC_TOKENS] = { "tokens", LWM_V_TOKENS, 0 },
	[LWM_DOC_OFFSET] = { "doc_offset", LWM_V_I64, 0 },
	[LWM_DOC_RUN] = { "doc_run_offset", LWM_V_I64, 0 },
	[LWM_DOC_RUN_START] = { "run_start", LWM_V_I64, 0 },
	[LWM_DOC_RUN_LOSS] = { "run_loss", LWM_V_U8, 0 },
	[LWM_DOC_ID_BYTES] = { "id_bytes", LWM_V_U8, 0 },
	[LWM_DOC_ID_OFFSET] = { "id_offset", LWM_V_I64, 0 },
	[LWM_DOC_SRC_BYTES] = { "source_bytes", LWM_V_U8, 0 },
	[LWM_DOC_SRC_OFFSET] = { "source_offset", LWM_V_I64, 0 },
};

int lwm_docs_check_meta(const char *path, const struct lwm_docs_meta *m, struct lwm_err *e)
{
	if (m->vocab_text < 1 || m->vocab_vision < 0 || m->vocab_text > INT32_MAX || m->vocab_vision > INT32_MAX ||
	    m->vocab_text + m->vocab_vision > INT32_MAX)
		return lwm_fail(e, LWM_ECONFIG, "%s: a vocabulary of %" PRId64 " + %" PRId64 " ids cannot be stored",
				path, m->vocab_text, m->vocab_vision);
	return 0;
}

int lwm_docs_check_runs(const char *id, const struct lwm_loss_run *runs, int64_t nruns, int64_t n, struct lwm_err *e)
{
	for (int64_t i = 0; i < nruns; i++)
		if (runs[i].start >= n || runs[i].loss > 1 ||
		    (i ? runs[i].start <= runs[i - 1].start : runs[i].start != 0))
			return lwm_fail(e, LWM_EDATA,
					"document %.200s: loss run %" PRId64 " does not fit its %" PRId64 " tokens",
					id, i, n);
	return 0;
}

struct lwm_docs {
	struct lwm_shard_in s;
	struct lwm_docs_meta meta;
	char *path, *id, *source; /* the last document's */
	int64_t *start;           /* [cap_many] of loss runs of many documents */
	uint8_t *loss;
	int64_t cap_many;
	struct lwm_loss_run *runs;
	int64_t docs, tokens, vocab, cap_id, cap_source, cap_runs;
};

static int read_meta(struct lwm_docs *d, struct lwm_err *e)
{
	const json_t *m = d->s.meta;
	LWM_TRY(lwm_json_int(m, "vocab_text", &d->meta.vocab_text, d->path, e));
	LWM_TRY(lwm_json_int(m, "vocab_vision", &d->meta.vocab_vision, d->path, e));
	LWM_TRY(lwm_json_str(m, "tokenizer", &d->meta.tokenizer, d->path, e));
	LWM_TRY(lwm_json_str(m, "tool", &d->meta.tool, d->path, e));
	LWM_TRY(lwm_json_str(m, "config", &d->meta.config, d->path, e));
	LWM_TRY(lwm_json_str(m, "policy", &d->meta.policy, d->path, e));
	LWM_TRY(lwm_json_int(m, "documents", &d->docs, d->path, e));
	LWM_TRY(lwm_docs_check_meta(d->path, &d->meta, e));
	d->vocab = d->meta.vocab_text + d->meta.vocab_vision;
	return 0;
}

static int64_t vector_length(const struct lwm_docs *d, int vec)
{
	return lwm_vfr_vec(d->s.r, vec)->n;
}

/* Lengths that must agree, and the last offsets. */
static int check_shape(struct lwm_docs *d, struct lwm_err *e)
{
	static const int pairs[][2] = {
		{ LWM_DOC_OFFSET, LWM_DOC_TOKENS }, { LWM_DOC_RUN, LWM_DOC_RUN_START },
		{ LWM_DOC_ID_OFFSET, LWM_DOC_ID_BYTES }, { LWM_DOC_SRC_OFFSET, LWM_DOC_SRC_BYTES },
	};
	int64_t last;
	d->tokens = vector_length(d, LWM_DOC_TOKENS);
	/* no document is empty; and so the number of offsets, one more, is in range */
	if (d->docs < 0 || d->docs > d->tokens || vector_length(d, LWM_DOC_RUN_LOSS) != vector_length(d, LWM_DOC_RUN_START) ||
	    lwm_vfr_vec(d->s.r, LWM_DOC_TOKENS)->type != lwm_token_type(d->vocab))
		return lwm_fail(e, LWM_EDATA, "%s: its vectors do not fit each other", d->path);
	for (int i = 0; i < 4; i++) {
		if (vector_length(d, pairs[i][0]) != d->docs + 1)
			return lwm_fail(e, LWM_EDATA,
					"%s: '%s' does not have one entry for each of its %" PRId64 " documents",
					d->path, lwm_docs_layout[pairs[i][0]].name, d->docs);
		LWM_TRY(lwm_vfr_read(d->s.r, pairs[i][0], d->docs, 1, &last, e));
		if (last != vector_length(d, pairs[i][1]))
			return lwm_fail(e, LWM_EDATA, "%s: '%s' does not end where '%s' does", d->path,
					lwm_docs_layout[pairs[i][0]].name, lwm_docs_layout[pairs[i][1]].name);
	}
	return 0;
}

static int open_shard(struct lwm_docs *d, struct lwm_err *e)
{
	struct lwm_err why = { 0 };
	int rc = lwm_shard_open(&d->s, d->path, lwm_docs_kind, lwm_docs_schema, lwm_docs_layout, LWM_DOC_VECS, &why);
	if (rc == -LWM_EDATA && lwm_shard_holds(d->path, old_schema))
		return lwm_shard_open(&d->s, d->path, lwm_docs_kind, old_schema, lwm_docs_layout, LWM_DOC_VECS, e);
	if (rc < 0 && e)
		*e = why;
	return rc;
}

int lwm_docs_open(struct lwm_docs **out, const char *path, struct lwm_err *e)
{
	int rc;
	struct lwm_docs *d = calloc(1, sizeof *d);
	*out = NULL;
	if (!d || !(d->path = strdup(path))) {
		free(d);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	}
	LWM_GO(open_shard(d, e));
	LWM_GO(read_meta(d, e));
	LWM_GO(check_shape(d, e));
	*out = d;
	return 0;
out:
	lwm_docs_close(d);
	return rc;
}

void lwm_docs_close(struct lwm_docs *d)
{
	if (!d)
		return;
	lwm_shard_close(&d->s);
	free(d->path);
	free(d->id);
	free(d->source);
	free(d->runs);
	free(d->start);
	free(d->loss);
	free(d);
}

const struct lwm_docs_meta *lwm_docs_get_meta(const struct lwm_docs *d)
{
	return &d->meta;
}

const json_t *lwm_docs_described(const struct lwm_docs *d)
{
	return d->s.meta;
}

const struct lwm_manifest *lwm_docs_manifest(const struct lwm_docs *d)
{
	return &d->s.manifest;
}

int64_t lwm_docs_count(const struct lwm_docs *d)
{
	return d->docs;
}

int64_t lwm_docs_tokens(const struct lwm_docs *d)
{
	return d->tokens;
}

/* Entries i and i+1 of an offset vector whose values end at `end`. */
static int read_range(struct lwm_docs *d, int vec, int64_t i, int64_t end, int64_t out[2], struct lwm_err *e)
{
	if (i < 0 || i >= d->docs)
		return lwm_fail(e, LWM_EDATA, "%s: document %" PRId64 " of %" PRId64, d->path, i, d->docs);
	LWM_TRY(lwm_vfr_read(d->s.r, vec, i, 2, out, e));
	if (out[0] < 0 || out[1] < out[0] || out[1] > end)
		return lwm_fail(e, LWM_EDATA, "%s: '%s' is not ascending at document %" PRId64, d->path,
				lwm_docs_layout[vec].name, i);
	return 0;
}

static int grow_buffer(void *buf, int64_t *cap, int64_t need, size_t size, struct lwm_err *e)
{
	void **p = buf;
	if (need <= *cap)
		return 0;
	void *q = realloc(*p, (size_t)need * size);
	if (!q)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a document's description");
	*p = q;
	*cap = need;
	return 0;
}

static int get_text(struct lwm_docs *d, int offset, int bytes, int64_t i, char **buf, int64_t *cap, struct lwm_err *e)
{
	int64_t r[2];
	LWM_TRY(read_range(d, offset, i, vector_length(d, bytes), r, e));
	LWM_TRY(grow_buffer(buf, cap, r[1] - r[0] + 1, 1, e));
	LWM_TRY(lwm_vfr_read(d->s.r, bytes, r[0], r[1] - r[0], *buf, e));
	(*buf)[r[1] - r[0]] = 0;
	return 0;
}

static int get_runs(struct lwm_docs *d, int64_t i, struct lwm_doc *out, struct lwm_err *e)
{
	int64_t r[2];
	LWM_TRY(read_range(d, LWM_DOC_RUN, i, vector_length(d, LWM_DOC_RUN_START), r, e));
	LWM_TRY(grow_buffer(&d->runs, &d->cap_runs, r[1] - r[0], sizeof *d->runs, e));
	out->nruns = r[1] - r[0];
	if (out->nruns < 1)
		return lwm_fail(e, LWM_EDATA, "%s: document %" PRId64 " has no loss run", d->path, i);
	for (int64_t k = 0; k < out->nruns; k++) {
		LWM_TRY(lwm_vfr_read(d->s.r, LWM_DOC_RUN_START, r[0] + k, 1, &d->runs[k].start, e));
		LWM_TRY(lwm_vfr_read(d->s.r, LWM_DOC_RUN_LOSS, r[0] + k, 1, &d->runs[k].loss, e));
	}
	out->runs = d->runs;
	return lwm_docs_check_runs(d->id, d->runs, out->nruns, out->n, e);
}

int lwm_docs_get(struct lwm_docs *d, int64_t i, struct lwm_doc *out, struct lwm_err *e)
{
	int64_t r[2];
	LWM_TRY(read_range(d, LWM_DOC_OFFSET, i, d->tokens, r, e));
	out->offset = r[0];
	out->n = r[1] - r[0];
	LWM_TRY(get_text(d, LWM_DOC_ID_OFFSET, LWM_DOC_ID_BYTES, i, &d->id, &d->cap_id, e));
	LWM_TRY(get_text(d, LWM_DOC_SRC_OFFSET, LWM_DOC_SRC_BYTES, i, &d->source, &d->cap_source, e));
	out->id = d->id;
	out->source = d->source;
	return get_runs(d, i, out, e);
}

int lwm_docs_lengths(struct lwm_docs *d, int64_t first, int64_t n, int64_t *out, struct lwm_err *e)
{
	int64_t before;
	if (n < 1)
		return 0;
	if (first < 0 || first > d->docs - n)
		return lwm_fail(e, LWM_EDATA, "%s: documents %" PRId64 " to %" PRId64 " of %" PRId64, d->path, first,
				first + n, d->docs);
	LWM_TRY(lwm_vfr_read(d->s.r, LWM_DOC_OFFSET, first, 1, &before, e));
	LWM_TRY(lwm_vfr_read(d->s.r, LWM_DOC_OFFSET, first + 1, n, out, e));
	for (int64_t i = 0; i < n; i++) {
		int64_t end = out[i];
		if (before < 0 || end <= before || end > d->tokens)
			return lwm_fail(e, LWM_EDATA, "%s: 'doc_offset' is not ascending at document %" PRId64,
					d->path, first + i);
		out[i] = end - before;
		before = end;
	}
	return 0;
}

int lwm_docs_read(struct lwm_docs *d, int64_t i, int64_t a, int64_t b, int32_t *out, struct lwm_err *e)
{
	int64_t r[2];
	LWM_TRY(read_range(d, LWM_DOC_OFFSET, i, d->tokens, r, e));
	if (a < 0 || b < a || b > r[1] - r[0])
		return lwm_fail(e, LWM_EDATA,
				"%s: tokens %" PRId64 " to %" PRId64 " of document %" PRId64 ", which has %" PRId64,
				d->path, a, b, i, r[1] - r[0]);
	return lwm_tokens_read(d->s.r, LWM_DOC_TOKENS, r[0] + a, b - a, d->vocab, out, d->path, e);
}

/* ---- many at once ---- */

static int read_ascending(struct lwm_docs *d, int vec, int64_t first, int64_t n, int64_t end, int64_t *at, struct lwm_err *e)
{
	LWM_TRY(lwm_vfr_read(d->s.r, vec, first, n + 1, at, e));
	for (int64_t i = 0; i < n; i++)
		if (at[i] < 0 || at[i + 1] <= at[i] || at[i + 1] > end)
			return lwm_fail(e, LWM_EDATA, "%s: '%s' is not ascending at document %" PRId64, d->path,
					lwm_docs_layout[vec].name, first + i);
	return 0;
}

int lwm_docs_extents(struct lwm_docs *d, int64_t first, int64_t n, int64_t *token, int64_t *run, struct lwm_err *e)
{
	if (n < 1 || first < 0 || first > d->docs - n)
		return lwm_fail(e, LWM_EDATA, "%s: documents %" PRId64 " to %" PRId64 " of %" PRId64, d->path, first, first + n, d->docs);
	LWM_TRY(read_ascending(d, LWM_DOC_OFFSET, first, n, d->tokens, token, e));
	return read_ascending(d, LWM_DOC_RUN, first, n, vector_length(d, LWM_DOC_RUN_START), run, e);
}

static int reserve_many(struct lwm_docs *d, int64_t n, struct lwm_err *e)
{
	if (n <= d->cap_many)
		return 0;
	free(d->start);
	free(d->loss);
	d->cap_many = 0;
	d->start = malloc((size_t)n * sizeof *d->start);
	d->loss = malloc((size_t)n);
	if (!d->start || !d->loss)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for %" PRId64 " loss runs", d->path, n);
	d->cap_many = n;
	return 0;
}

int lwm_docs_read_many(struct lwm_docs *d, int64_t n, const int64_t *token, const int64_t *run, int32_t *tokens,
		       struct lwm_loss_run *runs, struct lwm_err *e)
{
	int64_t nruns = run[n] - run[0];
	LWM_TRY(reserve_many(d, nruns, e));
	LWM_TRY(lwm_tokens_read(d->s.r, LWM_DOC_TOKENS, token[0], token[n] - token[0], d->vocab, tokens, d->path, e));
	LWM_TRY(lwm_vfr_read(d->s.r, LWM_DOC_RUN_START, run[0], nruns, d->start, e));
	LWM_TRY(lwm_vfr_read(d->s.r, LWM_DOC_RUN_LOSS, run[0], nruns, d->loss, e));
	for (int64_t k = 0; k < nruns; k++)
		runs[k] = (struct lwm_loss_run){ d->start[k], d->loss[k] };
	for (int64_t i = 0; i < n; i++)
		LWM_TRY(lwm_docs_check_runs(d->path, runs + (run[i] - run[0]), run[i + 1] - run[i], token[i + 1] - token[i], e));
	return 0;
}
