/* A document shard from its first call to its last: made, finished, put aside or dropped. What goes in is docwrite.c's, what lies
 * beside an unfinished one docunit.c's. */
#include "common/io/docshard_int.h"

#include <stdlib.h>

#include "common/base/json.h"
#include "common/io/seal.h"

int lwm_docs_create(struct lwm_docs_writer **out, const char *path, const struct lwm_docs_meta *m, bool force,
		    struct lwm_err *e)
{
	int rc;
	*out = NULL;
	LWM_TRY(lwm_docs_check_meta(path, m, e));
	struct lwm_docs_writer *w = calloc(1, sizeof *w);
	if (!w)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	LWM_GO(lwm_shard_begin(&w->s, path, lwm_docs_kind, lwm_docs_schema, m->tool, m->config, force, e));
	w->vocab = m->vocab_text + m->vocab_vision;
	lwm_put(w->s.meta, "vocab_text", json_integer(m->vocab_text), &w->s.failed);
	lwm_put(w->s.meta, "vocab_vision", json_integer(m->vocab_vision), &w->s.failed);
	lwm_put(w->s.meta, "tokenizer", json_string(m->tokenizer), &w->s.failed);
	lwm_put(w->s.meta, "policy", json_string(m->policy), &w->s.failed);
	LWM_GO(lwm_docs_begin_vectors(w, e));
	LWM_GO(lwm_docs_aside_open(w, m, force, e));
	*out = w;
	return 0;
out:
	lwm_docs_discard(w);
	return rc;
}

int lwm_docs_commit(struct lwm_docs_writer *w, struct lwm_err *e)
{
	struct lwm_vec v[LWM_DOC_VECS];
	lwm_docs_describe(w, &w->s, v);
	int rc = w->broken ? lwm_fail(e, LWM_EIO, "%s: not finished: an earlier write failed", w->s.path)
			   : lwm_shard_commit(&w->s, lwm_docs_schema, v, w->spool, LWM_DOC_VECS, e);
	if (rc == 0)
		lwm_docs_aside_remove(w->s.path);
	lwm_docs_discard(w);
	return rc;
}

void lwm_docs_discard(struct lwm_docs_writer *w)
{
	if (!w)
		return;
	for (int i = 0; i < LWM_DOC_VECS; i++)
		lwm_spool_release(&w->spool[i]);
	lwm_docs_aside_close(w);
	lwm_doc_units_release(&w->done);
	lwm_manifest_release(&w->said);
	lwm_shard_release(&w->s);
	free(w);
}

int lwm_docs_suspend(struct lwm_docs_writer *w, int64_t *units, struct lwm_err *e)
{
	int rc = lwm_docs_unit_drop(w, e);
	if (units)
		*units = w->done.n;
	for (int64_t i = 0; units && i < w->aside.units.n; i++)
		*units += w->aside.units.v[i].key != NULL;
	if (rc == 0)
		rc = lwm_docs_save(w, e);
	lwm_docs_discard(w);
	return rc;
}
