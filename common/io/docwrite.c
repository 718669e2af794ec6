/* Writing documents: each goes to the end of the vectors of its shard, as spools on disk until their sizes are known. */
#include "common/io/docshard_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/io/seal.h"

static int add_i64(struct lwm_docs_writer *w, int vec, int64_t v, struct lwm_err *e)
{
	return lwm_spool_add(&w->spool[vec], &v, sizeof v, w->s.path, e);
}

int lwm_docs_begin_vectors(struct lwm_docs_writer *w, struct lwm_err *e)
{
	static const int zero_first[] = { LWM_DOC_OFFSET, LWM_DOC_RUN, LWM_DOC_ID_OFFSET, LWM_DOC_SRC_OFFSET };
	for (int i = 0; i < 4; i++)
		LWM_TRY(add_i64(w, zero_first[i], 0, e));
	return 0;
}

/* Neighbours of equal loss become one run. */
static int add_runs(struct lwm_docs_writer *w, const struct lwm_loss_run *runs, int64_t nruns, struct lwm_err *e)
{
	static const struct lwm_loss_run all = { 0, 1 };
	if (nruns == 0) {
		runs = &all;
		nruns = 1;
	}
	for (int64_t i = 0; i < nruns; i++) {
		if (i && runs[i].loss == runs[i - 1].loss)
			continue;
		LWM_TRY(add_i64(w, LWM_DOC_RUN_START, runs[i].start, e));
		LWM_TRY(lwm_spool_add(&w->spool[LWM_DOC_RUN_LOSS], &runs[i].loss, 1, w->s.path, e));
		w->at.runs++;
	}
	return add_i64(w, LWM_DOC_RUN, w->at.runs, e);
}

static int add_text(struct lwm_docs_writer *w, int bytes, int offset, const char *text, int64_t *end,
		    struct lwm_err *e)
{
	int64_t n = (int64_t)strlen(text);
	LWM_TRY(lwm_spool_add(&w->spool[bytes], text, n, w->s.path, e));
	*end += n;
	return add_i64(w, offset, *end, e);
}

int lwm_docs_append(struct lwm_docs_writer *w, const char *id, const char *source, const int32_t *tokens, int64_t n,
		    const struct lwm_loss_run *runs, int64_t nruns, struct lwm_err *e)
{
	int64_t bad;
	if (n < 1)
		return lwm_fail(e, LWM_EDATA, "document %.200s: has no tokens", id);
	LWM_TRY(lwm_docs_check_runs(id, runs, nruns, n, e));
	w->broken = true;
	LWM_TRY(lwm_tokens_add(&w->spool[LWM_DOC_TOKENS], tokens, n, w->vocab, &bad, w->s.path, e));
	w->broken = false;
	if (bad >= 0)
		return lwm_fail(e, LWM_EDATA,
				"document %.200s: token %" PRId64 " has id %" PRId32 ", the vocabulary has %" PRId64,
				id, bad, tokens[bad], w->vocab);
	w->broken = true;
	w->at.tokens += n;
	w->at.docs++;
	LWM_TRY(add_i64(w, LWM_DOC_OFFSET, w->at.tokens, e));
	LWM_TRY(add_runs(w, runs, nruns, e));
	LWM_TRY(add_text(w, LWM_DOC_ID_BYTES, LWM_DOC_ID_OFFSET, id, &w->at.id_bytes, e));
	LWM_TRY(add_text(w, LWM_DOC_SRC_BYTES, LWM_DOC_SRC_OFFSET, source ? source : "", &w->at.src_bytes, e));
	w->broken = false;
	return 0;
}

/* Where inputs and rejections are written down: with the open unit, which may still be dropped, or at once. */
static struct lwm_manifest *current_book(struct lwm_docs_writer *w)
{
	return w->open ? &w->said : &w->s.manifest;
}

int lwm_docs_reject(struct lwm_docs_writer *w, const char *reason, int64_t count, struct lwm_err *e)
{
	return lwm_manifest_add_reject(current_book(w), reason, count, e);
}

int lwm_docs_input(struct lwm_docs_writer *w, const char *path, int64_t bytes, const char *hash, int64_t malformed,
		   struct lwm_err *e)
{
	struct lwm_manifest *m = current_book(w);
	LWM_TRY(lwm_manifest_add_input(m, path, bytes, hash, e));
	m->input[m->ninput - 1].malformed = malformed;
	return 0;
}

void lwm_docs_describe(const struct lwm_docs_writer *w, struct lwm_shard_out *s, struct lwm_vec v[LWM_DOC_VECS])
{
	memcpy(v, lwm_docs_layout, sizeof lwm_docs_layout);
	v[LWM_DOC_TOKENS].type = lwm_token_type(w->vocab);
	s->manifest.out = w->at.docs;
	s->manifest.in = w->at.docs + s->manifest.rejected;
	s->manifest.tokens = w->at.tokens;
	lwm_put(s->meta, "documents", json_integer(w->at.docs), &s->failed);
	lwm_put(s->meta, "rejected", json_integer(s->manifest.rejected), &s->failed);
}

void lwm_docs_set_mark(struct lwm_docs_writer *w, struct lwm_docs_mark *m)
{
	for (int i = 0; i < LWM_DOC_VECS; i++)
		w->at.spool[i] = lwm_spool_bytes(&w->spool[i]);
	*m = w->at;
}

int lwm_docs_go_back(struct lwm_docs_writer *w, const struct lwm_docs_mark *to, struct lwm_err *e)
{
	for (int i = 0; i < LWM_DOC_VECS; i++)
		LWM_TRY(lwm_spool_cut(&w->spool[i], to->spool[i], w->s.path, e));
	w->at = *to;
	w->broken = false;
	return 0;
}
