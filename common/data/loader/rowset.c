/* The row shards of all sources. One rank finds them and what they are, and tells the others; each opens what it reads. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/str.h"
#include "common/data/loader/loader_int.h"
#include "common/io/rowindex.h"

/* ---- one rank: the table of all shards ----
 *
 * Of each source the number of its shards (int64), and of each shard its facts, the length of its path (int64), and the path. */

/* The index of the folder whose shards are looked at. */
struct folder {
	char *dir;
	struct lwm_rowindex index;
};

static void leave_folder(struct folder *f)
{
	lwm_rowindex_release(&f->index);
	free(f->dir);
	memset(f, 0, sizeof *f);
}

static int enter_folder(struct folder *f, const char *path, struct lwm_err *e)
{
	struct lwm_err why = { 0 };
	char *dir = lwm_path_dir(path);
	if (dir && f->dir && !strcmp(dir, f->dir)) {
		free(dir);
		return 0;
	}
	leave_folder(f);
	f->dir = dir;
	int rc = dir ? lwm_rowindex_read(&f->index, dir, &why) : lwm_fail(&why, LWM_EMEMORY, "out of memory for a path");
	if (rc == -LWM_EDATA)
		lwm_log(LWM_WARN, "%s; the manifests are read instead", why.msg);
	else if (rc < 0 && e)
		*e = why;
	return rc == -LWM_EDATA || rc > 0 ? 0 : rc;
}

static void put_number(struct lwm_str *table, int64_t n)
{
	lwm_str_add(table, &n, sizeof n);
}

static int put_source(struct lwm_str *table, const struct lwm_loader_source *src, struct folder *f, struct lwm_err *e)
{
	static const char *const suffixes[] = { ".h5", ".hdf5", NULL };
	struct lwm_paths p = { 0 };
	int rc = 0;
	for (int64_t i = 0; rc == 0 && i < src->shards.n; i++)
		rc = lwm_paths_expand(&p, src->shards.v[i], suffixes, e);
	put_number(table, p.n);
	for (int64_t i = 0; rc == 0 && i < p.n; i++) {
		struct lwm_rows_facts facts;
		memset(&facts, 0, sizeof facts);
		rc = enter_folder(f, p.v[i], e);
		if (rc == 0)
			rc = lwm_rowindex_facts(&f->index, p.v[i], &facts, NULL, e);
		lwm_str_add(table, &facts, sizeof facts);
		put_number(table, (int64_t)strlen(p.v[i]));
		lwm_str_puts(table, p.v[i]);
	}
	lwm_paths_release(&p);
	return rc;
}

static int make_table(struct lwm_str *table, const struct lwm_loader_cfg *cfg, struct lwm_err *e)
{
	struct folder f = { 0 };
	int rc = 0;
	for (int64_t i = 0; rc == 0 && i < cfg->nsources; i++)
		rc = put_source(table, &cfg->source[i], &f, e);
	leave_folder(&f);
	return rc < 0 ? rc : lwm_str_ok(table, e);
}

/* The first rank's table, on every rank. */
static int share_table(struct lwm_str *table, const struct lwm_loader_cfg *cfg, struct lwm_err *e)
{
	struct lwm_comm *c = cfg->comm;
	bool first = !c || lwm_comm_rank(c) == 0;
	int rc = first ? make_table(table, cfg, e) : 0;
	if (!c)
		return rc;
	LWM_TRY(lwm_agree(c, rc, e));
	int64_t n = (int64_t)table->len;
	LWM_TRY(lwm_comm_bcast(c, &n, sizeof n, 0, e));
	if (!first) {
		free(table->s);
		*table = (struct lwm_str){ .s = malloc((size_t)n + 1), .len = (size_t)n };
	}
	LWM_TRY(lwm_agree(c, table->s || !n ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " bytes", n), e));
	return lwm_comm_bcast(c, table->s, (size_t)n, 0, e);
}

/* ---- every rank ---- */

/* The next n bytes of the table. */
static const char *take_bytes(const char **at, size_t n)
{
	const char *p = *at;
	*at += n;
	return p;
}

static int64_t take_number(const char **at)
{
	int64_t n;
	memcpy(&n, take_bytes(at, sizeof n), sizeof n);
	return n;
}

/* The first shard sets what the others must agree with. */
static int check_shard(struct lwm_rowset *s, const struct lwm_rowset_shard *x, struct lwm_err *e)
{
	const struct lwm_manifest_rows *m = &x->facts.shape;
	if (!s->seq) {
		s->seq = m->seq;
		s->vocab_text = m->vocab_text;
		snprintf(s->tokenizer.hex, sizeof s->tokenizer.hex, "%s", m->tokenizer);
	}
	if (m->vocab_vision > s->vocab_vision)
		s->vocab_vision = m->vocab_vision;
	if (s->wanted && m->seq != s->wanted && m->seq != s->wanted + 1)
		return lwm_fail(e, LWM_ECONFIG, "%s: rows of %" PRId64 " tokens, the configuration says %" PRId64, x->path, m->seq,
				s->wanted);
	if (!s->wanted && m->seq != s->seq)
		return lwm_fail(e, LWM_ECONFIG, "%s: rows of %" PRId64 " tokens, %s has %" PRId64, x->path, m->seq,
				s->shard[0].path, s->seq);
	if (m->vocab_text != s->vocab_text)
		return lwm_fail(e, LWM_ECONFIG, "%s: a text vocabulary of %" PRId64 ", %s has %" PRId64, x->path,
				m->vocab_text, s->shard[0].path, s->vocab_text);
	if (strcmp(m->tokenizer, s->tokenizer.hex))
		return lwm_fail(e, LWM_ECONFIG, "%s: made with another tokenizer than %s", x->path, s->shard[0].path);
	return 0;
}

static int add_shard(struct lwm_rowset *s, struct lwm_rowset_source *src, const char **at, struct lwm_hasher *h, struct lwm_err *e)
{
	struct lwm_rowset_shard *x = &s->shard[s->nshards++];
	memcpy(&x->facts, take_bytes(at, sizeof x->facts), sizeof x->facts);
	size_t n = (size_t)take_number(at);
	x->path = strndup(take_bytes(at, n), n);
	if (!x->path)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
	LWM_TRY(check_shard(s, x, e));
	x->first = src->rows;
	src->rows += x->facts.shape.rows;
	src->nshards++;
	lwm_hasher_add(h, x->facts.content, strlen(x->facts.content) + 1);
	return 0;
}

static int add_source(struct lwm_rowset *s, const struct lwm_loader_source *from, const char **at, struct lwm_hasher *h,
		      struct lwm_err *e)
{
	char head[64];
	struct lwm_rowset_source *src = &s->source[s->nsources++];
	int64_t n = take_number(at);
	struct lwm_rowset_shard *v = realloc(s->shard, (size_t)(s->nshards + n + 1) * sizeof *v);
	src->shard = s->nshards;
	src->name = strdup(from->name ? from->name : "data");
	if (v)
		s->shard = v;
	if (!src->name || !v)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " shards", n);
	memset(v + s->nshards, 0, (size_t)n * sizeof *v);
	snprintf(head, sizeof head, "%a %" PRId64, from->weight, n);
	lwm_hasher_add(h, head, strlen(head) + 1);
	for (int64_t i = 0; i < from->npoints; i++) { /* and nothing where nothing changes: as earlier versions said it */
		snprintf(head, sizeof head, "%" PRId64 ":%a", from->point[i].step, from->point[i].share);
		lwm_hasher_add(h, head, strlen(head) + 1);
	}
	if (from->loss != 0 && from->loss != 1) {
		snprintf(head, sizeof head, "*%a", from->loss);
		lwm_hasher_add(h, head, strlen(head) + 1);
	}
	for (int64_t i = 0; i < n; i++)
		LWM_TRY(add_shard(s, src, at, h, e));
	if (src->rows == 0)
		return lwm_fail(e, LWM_ECONFIG, "source '%s' has no rows", src->name);
	s->rows += src->rows;
	return 0;
}

static int read_table(struct lwm_rowset *s, const struct lwm_loader_cfg *cfg, const char *at, struct lwm_err *e)
{
	s->source = calloc((size_t)cfg->nsources, sizeof *s->source);
	struct lwm_hasher *h = lwm_hasher_new(); /* what a step sees follows from this, the seed and the step */
	int rc = h && s->source ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for the sources");
	for (int64_t i = 0; rc == 0 && i < cfg->nsources; i++)
		rc = add_source(s, &cfg->source[i], &at, h, e);
	if (h)
		s->content = lwm_hasher_end(h);
	return rc;
}

static int by_content(const void *a, const void *b)
{
	const struct lwm_rowset_shard *x = *(const struct lwm_rowset_shard *const *)a;
	const struct lwm_rowset_shard *y = *(const struct lwm_rowset_shard *const *)b;
	int order = strcmp(x->facts.content, y->facts.content);
	return order ? order : (x > y) - (x < y);
}

/* A shard that is named twice, by way of its folder say, or a copy of one. */
static int check_copies(const struct lwm_rowset *s, struct lwm_err *e)
{
	const struct lwm_rowset_shard **v = malloc((size_t)(s->nshards + 1) * sizeof *v);
	int rc = v ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " shards", s->nshards);
	int64_t n = 0;
	for (int64_t i = 0; v && i < s->nshards; i++)
		if (s->shard[i].facts.shape.rows) /* those without rows are all alike */
			v[n++] = &s->shard[i];
	if (v)
		qsort(v, (size_t)n, sizeof *v, by_content);
	for (int64_t i = 1; i < n && rc == 0; i++)
		if (strcmp(v[i - 1]->facts.content, v[i]->facts.content) == 0)
			rc = lwm_fail(e, LWM_ECONFIG, "%s: holds the rows of %s once more: name held-out rows once", v[i]->path, v[i - 1]->path);
	free(v);
	return rc;
}

int lwm_rowset_open(struct lwm_rowset *s, const struct lwm_loader_cfg *cfg, struct lwm_err *e)
{
	struct lwm_str table = { 0 };
	int64_t n = 0;
	for (int64_t i = 0; i < cfg->nsources; i++)
		n += cfg->source[i].shards.n;
	if (n == 0)
		return lwm_fail(e, LWM_ECONFIG, "no row shards to load");
	s->wanted = cfg->seq_length;
	int rc = share_table(&table, cfg, e);
	if (rc == 0)
		rc = read_table(s, cfg, table.s, e);
	free(table.s);
	LWM_TRY(rc);
	if (cfg->once)
		LWM_TRY(check_copies(s, e));
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
		LWM_TRY(lwm_rows_open_as(&x->h, x->path, &x->facts, e));
	return lwm_rows_read(x->h, row - x->first, out, e);
}
