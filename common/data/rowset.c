/* The row shards of all sources: opened when needed, the least recently used ones closed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/data/loader_int.h"

static int open_shard(struct lwm_rowset *s, struct lwm_rowset_shard *x, struct lwm_err *e)
{
	if (s->nopen >= LWM_OPEN_SHARDS) {
		struct lwm_rowset_shard *old = NULL;
		for (int64_t i = 0; i < s->nshards; i++)
			if (s->shard[i].h && (!old || s->shard[i].used < old->used))
				old = &s->shard[i];
		LWM_BUG_ON(!old);
		lwm_rows_close(old->h);
		old->h = NULL;
		s->nopen--;
	}
	LWM_TRY(lwm_rows_open(&x->h, x->path, e));
	s->nopen++;
	return 0;
}

/* The first shard sets what the others must agree with. */
static int check_shard(struct lwm_rowset *s, const struct lwm_rowset_shard *x, struct lwm_err *e)
{
	const struct lwm_rows_meta *m = lwm_rows_meta(x->h);
	const char *tok = m->tokenizer ? m->tokenizer : "";
	if (!s->seq) {
		s->seq = m->seq;
		s->vocab_text = m->vocab_text;
		snprintf(s->tokenizer.hex, sizeof s->tokenizer.hex, "%s", tok);
	}
	if (m->vocab_vision > s->vocab_vision)
		s->vocab_vision = m->vocab_vision;
	if (m->seq != s->seq)
		return lwm_fail(e, LWM_ECONFIG, "%s: rows of %" PRId64 " tokens, %s has %" PRId64, x->path, m->seq,
				s->shard[0].path, s->seq);
	if (m->vocab_text != s->vocab_text)
		return lwm_fail(e, LWM_ECONFIG, "%s: a text vocabulary of %" PRId64 ", %s has %" PRId64, x->path,
				m->vocab_text, s->shard[0].path, s->vocab_text);
	if (strcmp(tok, s->tokenizer.hex))
		return lwm_fail(e, LWM_ECONFIG, "%s: made with another tokenizer than %s", x->path, s->shard[0].path);
	return 0;
}

static int add_shard(struct lwm_rowset *s, struct lwm_rowset_source *src, const char *path, struct lwm_hasher *h,
		     struct lwm_err *e)
{
	struct lwm_rowset_shard *x = &s->shard[s->nshards++];
	x->path = strdup(path);
	if (!x->path)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
	LWM_TRY(open_shard(s, x, e));
	LWM_TRY(check_shard(s, x, e));
	x->first = src->rows;
	x->rows = lwm_rows_count(x->h);
	src->rows += x->rows;
	src->nshards++;
	const char *content = lwm_rows_manifest(x->h)->content;
	lwm_hasher_add(h, content, strlen(content) + 1);
	return 0;
}

static int add_source(struct lwm_rowset *s, const struct lwm_loader_source *from, struct lwm_hasher *h, struct lwm_err *e)
{
	char head[64];
	struct lwm_rowset_source *src = &s->source[s->nsources++];
	src->shard = s->nshards;
	src->name = strdup(from->name ? from->name : "data");
	if (!src->name)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a name");
	snprintf(head, sizeof head, "%a %" PRId64, from->weight, from->shards.n);
	lwm_hasher_add(h, head, strlen(head) + 1);
	for (int64_t i = 0; i < from->shards.n; i++)
		LWM_TRY(add_shard(s, src, from->shards.v[i], h, e));
	if (src->rows == 0)
		return lwm_fail(e, LWM_ECONFIG, "source '%s' has no rows", src->name);
	s->rows += src->rows;
	return 0;
}

int lwm_rowset_open(struct lwm_rowset *s, const struct lwm_loader_cfg *cfg, struct lwm_err *e)
{
	int64_t n = 0;
	for (int64_t i = 0; i < cfg->nsources; i++)
		n += cfg->source[i].shards.n;
	if (n == 0)
		return lwm_fail(e, LWM_ECONFIG, "no row shards to load");
	s->shard = calloc((size_t)n, sizeof *s->shard);
	s->source = calloc((size_t)cfg->nsources, sizeof *s->source);
	if (!s->shard || !s->source)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " shards", n);
	struct lwm_hasher *h = lwm_hasher_new(); /* what a step sees follows from this, the seed and the step */
	int rc = h ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for a hash");
	for (int64_t i = 0; rc == 0 && i < cfg->nsources; i++)
		rc = add_source(s, &cfg->source[i], h, e);
	if (h)
		s->content = lwm_hasher_end(h);
	LWM_TRY(rc);
	if (cfg->seq_length && cfg->seq_length != s->seq)
		return lwm_fail(e, LWM_ECONFIG, "%s: rows of %" PRId64 " tokens, the configuration says %" PRId64,
				s->shard[0].path, s->seq, cfg->seq_length);
	return 0;
}

void lwm_rowset_release(struct lwm_rowset *s)
{
	for (int64_t i = 0; i < s->nshards; i++) {
		lwm_rows_close(s->shard[i].h);
		free(s->shard[i].path);
	}
	for (int64_t i = 0; i < s->nsources; i++)
		free(s->source[i].name);
	free(s->shard);
	free(s->source);
	memset(s, 0, sizeof *s);
}

int lwm_rowset_read(struct lwm_rowset *s, int64_t source, int64_t row, struct lwm_row *out, struct lwm_err *e)
{
	const struct lwm_rowset_source *src = &s->source[source];
	int64_t a = src->shard, b = src->shard + src->nshards;
	while (b - a > 1) { /* the last shard that starts at or before row; empty ones start where the next does */
		int64_t mid = (a + b) / 2;
		if (s->shard[mid].first <= row)
			a = mid;
		else
			b = mid;
	}
	struct lwm_rowset_shard *x = &s->shard[a];
	if (!x->h)
		LWM_TRY(open_shard(s, x, e));
	x->used = ++s->tick;
	return lwm_rows_read(x->h, row - x->first, out, e);
}
