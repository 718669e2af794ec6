/* The weights that a stage starts from. */
#include "common/train/start.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/io/source.h"
#include "common/train/share.h"

int lwm_start_parse(struct lwm_start *out, const char *text, struct lwm_err *e)
{
	enum lwm_source_kind kind;
	const char *path;
	*out = (struct lwm_start){ .source = NULL };
	if (!strcmp(text, "random"))
		return 0;
	out->may_lack_vision = !strncmp(text, "text-", 5);
	out->trunk = !strncmp(text, "trunk-", 6);
	out->source = text + (out->may_lack_vision ? 5 : out->trunk ? 6 : 0);
	return lwm_source_parse(out->source, &kind, &path, e);
}

/* The same on many ranks, a checkpoint with one search for all. Collective. */
static int open_shared(struct lwm_source *s, struct lwm_comm *comm, const char *text, bool older_ok, struct lwm_err *e)
{
	enum lwm_source_kind kind;
	const char *path;
	memset(s, 0, sizeof *s);
	LWM_TRY(lwm_source_parse(text, &kind, &path, e));
	if (kind == LWM_SOURCE_MODEL)
		return lwm_agree(comm, lwm_source_open(s, text, older_ok, LWM_CKPT_FULL, e), e);
	LWM_TRY(lwm_share_open(&s->ckpt, comm, path, older_ok, e));
	s->dir = strdup(lwm_ckpt_path(s->ckpt));
	return s->dir ? lwm_source_settle(s, kind, e) : lwm_fail_memory(e, text); /* the same on all ranks */
}

static int same_tokenizer(const struct lwm_source *s, const char *want, struct lwm_err *e)
{
	const char *have = lwm_source_tokenizer(s);
	if (!want || !*want || !*have || !strcmp(want, have))
		return 0;
	return lwm_fail(e, LWM_ECONFIG, "%s was made with the tokenizer of hash %s; the data with the one of hash %s", s->dir,
			have, want);
}

static const char input_name[] = "model.input_proj.weight";

bool lwm_start_in_trunk(const char *name)
{
	return !strncmp(name, "model.layers.", 13) || !strcmp(name, "model.norm.weight") || !strcmp(name, input_name);
}

/* Of what the source has of a trunk nothing would be left out but an input that this model has not. */
static int trunk_placed(const struct lwm_source *s, const struct lwm_tensors *t, struct lwm_err *e)
{
	int64_t count = s->model ? lwm_model_count(s->model) : lwm_ckpt_count(s->ckpt);

	for (int64_t k = 0; k < count; k++) {
		const char *name = (s->model ? lwm_model_tensor(s->model, k) : lwm_ckpt_tensor(s->ckpt, k))->name;

		if (lwm_start_in_trunk(name) && strcmp(name, input_name) && !lwm_tensors_find(t, name))
			return lwm_fail(e, LWM_ECONFIG, "%s: has a tensor '%s' that this model has no place for", s->dir, name);
	}
	return 0;
}

/* Does what was opened belong to the data and to this model? */
static int belongs(const struct lwm_source *s, const struct lwm_start *from, const char *tokenizer, const struct lwm_tensors *t,
		   struct lwm_err *e)
{
	if (from->trunk)
		return trunk_placed(s, t, e);
	LWM_TRY(same_tokenizer(s, tokenizer, e));
	return lwm_source_all_placed(s, t, e);
}

int lwm_start_look(const struct lwm_start *from, bool older_ok, const char *tokenizer, const struct lwm_tensors *t,
		   struct lwm_err *e)
{
	struct lwm_source s;
	int rc = lwm_source_open(&s, from->source, older_ok, LWM_CKPT_QUICK, e);
	if (rc == 0)
		rc = belongs(&s, from, tokenizer, t, e);
	lwm_source_close(&s);
	return rc;
}

/* Is there something of the source for tensor t? */
static bool is_wanted(const struct lwm_source *s, const struct lwm_start *from, const struct lwm_tensor *t)
{
	int64_t i;

	if (!from->trunk || !lwm_start_in_trunk(t->name))
		return !from->trunk;
	if (strcmp(t->name, input_name))
		return true;
	i = s->model ? lwm_model_find(s->model, t->name) : lwm_ckpt_find(s->ckpt, t->name);
	return i >= 0 && lwm_tensor_same_shape(s->model ? lwm_model_tensor(s->model, i) : lwm_ckpt_tensor(s->ckpt, i), t);
}

/* A tensor of the source. */
struct sought {
	struct lwm_source *s;
	const struct lwm_tensor *t;
	bool may_lack;
};

static int read_sought(void *ctx, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	const struct sought *q = ctx;
	return lwm_source_read(q->s, q->t, q->may_lack, offset, n, out, e);
}

int lwm_start_read(struct lwm_comm *comm, const struct lwm_start *from, bool older_ok, const char *tokenizer,
		   const struct lwm_own *own, float *host_out, struct lwm_err *e)
{
	const struct lwm_tensors *t = own->whole;
	struct lwm_run run[LWM_RUNS];
	struct lwm_source s;
	int64_t at = 0;
	int rc = open_shared(&s, comm, from->source, older_ok, e);
	if (rc == 0)
		rc = belongs(&s, from, tokenizer, t, e);
	for (int64_t i = 0; rc == 0 && i < t->n; i++) {
		const struct lwm_tensor *x = &t->list[i]; /* adapters and discriminators begin as they were drawn */
		struct sought q = { &s, x, x->adapts || lwm_tensor_is_beside(x->name) ||
					   (from->may_lack_vision && x->modality == LWM_VISION) };
		int runs = lwm_own_runs(own, i, run, &at);
		if (x->follows || x->written) /* begins anew: equal to what it follows, or as drawn */
			continue;
		if (!is_wanted(&s, from, &t->list[i])) {
			if (lwm_start_in_trunk(t->list[i].name) && lwm_comm_rank(comm) == 0)
				lwm_log(LWM_INFO, "%s has no %s of this shape: it is drawn", s.dir, t->list[i].name);
			continue;
		}
		rc = lwm_own_read(run, runs, read_sought, &q, host_out + at, e);
	}
	lwm_source_close(&s);
	return rc;
}
