/* A model of any format into a folder of ours. */
#include "common/io/convert.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/stop.h"

enum { PIECE = 1 << 15 }; /* values compared at a time */

struct giver {
	struct lwm_source *s;
	const struct lwm_tensor *t;
	struct lwm_progress *p;
	int64_t bytes;
};

static int give(void *ctx, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	struct giver *g = ctx;
	if (lwm_stop_wanted() >= LWM_STOP_END)
		return lwm_fail(e, LWM_ESAVED, "stopped (%s), nothing is kept: run me again", lwm_stop_reason());
	LWM_TRY(lwm_source_read(g->s, g->t, false, offset, n, out, e));
	g->bytes += n * (int64_t)sizeof *out;
	if (g->p)
		lwm_progress_at(g->p, g->bytes);
	return 0;
}

/* A head that lies there although the configuration says that the embedding is one is left out: it must be the embedding. */
static int check_tied(struct lwm_source *s, const struct lwm_tensors *table, struct lwm_err *e)
{
	const struct lwm_tensor *embed = lwm_tensors_find(table, "model.embed_tokens.weight");
	struct lwm_tensor head;
	int rc = 0;
	if (!s->model || !embed || lwm_model_find(s->model, "lm_head.weight") < 0 || lwm_tensors_find(table, "lm_head.weight"))
		return 0;
	head = *embed;
	head.name = "lm_head.weight";
	float *v = malloc(2 * PIECE * sizeof *v);
	if (!v)
		return lwm_fail_memory(e, s->dir);
	for (int64_t at = 0; rc == 0 && at < embed->count; at += PIECE) {
		int64_t n = embed->count - at < PIECE ? embed->count - at : PIECE;
		rc = lwm_model_read_named(s->model, embed, at, n, v, e);
		if (rc == 0)
			rc = lwm_model_read_named(s->model, &head, at, n, v + PIECE, e);
		if (rc == 0 && memcmp(v, v + PIECE, (size_t)n * sizeof *v))
			rc = lwm_fail(e, LWM_ECONFIG, "%s: its configuration says that the head is the embedding (tie_word_embeddings), but "
				      "lm_head.weight is another", s->dir);
	}
	free(v);
	return rc;
}

int lwm_convert(struct lwm_source *s, const struct lwm_tensors *table, const char *dir, const struct lwm_model_spec *spec,
		bool force, struct lwm_progress *p, struct lwm_err *e)
{
	struct lwm_model_writer *w = NULL;
	struct giver g = { .s = s, .p = p };
	int rc;
	LWM_GO(lwm_source_all_placed(s, table, e));
	LWM_GO(check_tied(s, table, e));
	LWM_GO(lwm_model_create(&w, dir, spec, table, force, e));
	for (int64_t i = 0; i < table->n; i++) {
		g.t = &table->list[i];
		LWM_GO(lwm_model_add_from(w, give, &g, e));
	}
	rc = lwm_model_commit(w, e);
	w = NULL;
out:
	lwm_model_discard(w);
	return rc;
}

static int compare_tensor(struct giver *g, struct lwm_model *m, enum lwm_st_dtype dtype, float *want, float *have,
			  struct lwm_err *e)
{
	for (int64_t at = 0; at < g->t->count; at += PIECE) {
		int64_t n = g->t->count - at < PIECE ? g->t->count - at : PIECE;
		LWM_TRY(give(g, at, n, want, e));
		LWM_TRY(lwm_model_read_named(m, g->t, at, n, have, e));
		lwm_st_round(dtype, want, n);
		if (memcmp(want, have, (size_t)n * sizeof *want)) /* bits: NaN equals itself, -0 is not 0 */
			return lwm_fail(e, LWM_ENO, "'%s' differs among its values from %" PRId64 " on", g->t->name, at);
	}
	return 0;
}

int lwm_convert_compare(struct lwm_source *s, const struct lwm_tensors *table, const char *dir, enum lwm_st_dtype dtype,
			struct lwm_progress *p, struct lwm_err *e)
{
	struct lwm_model *m = NULL;
	struct giver g = { .s = s, .p = p };
	float *v = malloc(2 * PIECE * sizeof *v);
	int rc = v ? lwm_model_open(&m, dir, e) : lwm_fail_memory(e, dir);
	if (rc == 0 && lwm_model_count(m) != table->n)
		rc = lwm_fail(e, LWM_ENO, "the folder has %" PRId64 " tensors, the model %" PRId64, lwm_model_count(m), table->n);
	for (int64_t i = 0; rc == 0 && i < table->n; i++) {
		g.t = &table->list[i];
		rc = compare_tensor(&g, m, dtype, v, v + PIECE, e);
	}
	lwm_model_close(m);
	free(v);
	return rc < 0 ? lwm_context(e, "%s", dir) : 0;
}
