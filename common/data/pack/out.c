/* Where packed rows go: one shard or many, and whether they are there already. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/json.h"
#include "common/data/pack/pack_int.h"
#include "common/io/rowindex.h"

enum { REPORT_LIMIT = 1 << 28 };

static bool is_arrayed(const struct lwm_pack_cfg *c)
{
	return c->tasks > 1;
}

bool lwm_pack_in_folder(const struct lwm_pack_cfg *c)
{
	return c->rows_per_shard > 0 || is_arrayed(c);
}

int64_t lwm_pack_row_tokens(const struct lwm_pack_cfg *c)
{
	return c->seq_length + (c->mode == LWM_PACK_CONCAT);
}

static char *shard_path(const struct lwm_pack_cfg *c, int64_t shard)
{
	char *p;
	int n;
	if (!lwm_pack_in_folder(c))
		return strdup(c->output);
	if (is_arrayed(c) && !c->rows_per_shard)
		n = asprintf(&p, "%s/rows-%05" PRId64 ".rows.h5", c->output, c->task);
	else if (is_arrayed(c))
		n = asprintf(&p, "%s/rows-%05" PRId64 "-%05" PRId64 ".rows.h5", c->output, c->task, shard);
	else
		n = asprintf(&p, "%s/rows-%05" PRId64 ".rows.h5", c->output, shard);
	return n < 0 ? NULL : p;
}

char *lwm_pack_report_path(const struct lwm_pack_cfg *c)
{
	char *p;
	int n = is_arrayed(c) ? asprintf(&p, "%s/rows-%05" PRId64 ".report.json", c->output, c->task)
			   : asprintf(&p, "%s/rows.report.json", c->output);
	return n < 0 ? NULL : p;
}

int lwm_pack_config_text(const struct lwm_pack_cfg *c, char **out, struct lwm_err *e)
{
	static const char *const modes[] = { "masked", "concat", "padded" };
	static const char *const longs[] = { "split", "drop", "truncate" };
	json_t *sources = json_array();
	bool lost = false;
	for (int64_t i = 0; i < c->nsources; i++)
		lost |= json_array_append_new(sources, json_pack("{s:s,s:f,s:I}", "name", c->source[i].name, "weight",
								 c->source[i].weight, "shards",
								 (json_int_t)c->source[i].shards.n)) < 0;
	json_t *o = json_pack("{s:o,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:b,s:I,s:I,s:I}", "sources", sources,
			      "mode", modes[c->mode], "long", longs[c->longer], "seq_length", (json_int_t)c->seq_length,
			      "min_tokens", (json_int_t)c->min_tokens, "window", (json_int_t)c->window,
			      "epochs", (json_int_t)c->epochs, "max_tokens", (json_int_t)c->max_tokens,
			      "seed", (json_int_t)c->seed, "shuffle", c->shuffle, "drop_lossless", c->drop_lossless,
			      "rows_per_shard", (json_int_t)c->rows_per_shard, "task", (json_int_t)c->task,
			      "tasks", (json_int_t)c->tasks);
	if (c->mode == LWM_PACK_CONCAT) /* only there: the text of other settings is that of earlier versions */
		lost |= json_object_set_new(o, "row_tokens", json_integer(lwm_pack_row_tokens(c))) < 0;
	if (c->hold_out > 0)
		lost |= json_object_set_new(o, "hold_out", json_real(c->hold_out)) < 0 ||
			json_object_set_new(o, "held_out", json_boolean(c->held_out)) < 0;
	if (c->drop_tail)
		lost |= json_object_set_new(o, "drop_tail", json_true()) < 0;
	int rc = lwm_json_dump(lost ? NULL : o, JSON_SORT_KEYS | JSON_COMPACT, "the settings", out, e);
	json_decref(o);
	return rc;
}

int lwm_pack_inputs(struct lwm_pack_out *o, struct lwm_err *e)
{
	for (int64_t i = 0; i < o->cfg->nsources; i++)
		for (int64_t k = 0; k < o->cfg->source[i].shards.n; k++) {
			const char *path = o->cfg->source[i].shards.v[k];
			struct lwm_manifest m;
			LWM_TRY(lwm_manifest_read(&m, path, e));
			int rc = lwm_manifest_add_input(&o->book, path, m.bytes, m.hash, e);
			lwm_manifest_release(&m);
			LWM_TRY(rc);
		}
	return lwm_manifest_hash_inputs(&o->book, &o->list, e);
}

int lwm_pack_inputs_stand(const struct lwm_pack_out *o, struct lwm_err *e)
{
	for (int64_t i = 0; i < o->mix->nshards; i++)
		if (strcmp(lwm_docs_manifest(o->mix->shard[i].h)->hash, o->book.input[i].hash))
			return lwm_fail(e, LWM_EDATA, "%s: was replaced while it was being read", o->mix->shard[i].path);
	return 0;
}

int lwm_pack_share(struct lwm_pack_out *o, struct lwm_err *e)
{
	if (!o->shared && lwm_pack_in_folder(o->cfg))
		LWM_TRY(lwm_manifest_share(&o->book, o->cfg->output, e));
	o->shared = true;
	return 0;
}

/* Had the inputs of an earlier run the hashes they have now? */
static bool same_inputs(const struct lwm_pack_out *o, const struct lwm_manifest *m)
{
	bool same = m->ninput == o->book.ninput;
	if (m->list.count)
		return m->list.count == o->list.count && !strcmp(m->list.hash, o->list.hash);
	for (int64_t i = 0; same && i < m->ninput; i++)
		same = !strcmp(m->input[i].hash, o->book.input[i].hash);
	return same;
}

static int count_rows(const char *path, int64_t *rows, struct lwm_err *e)
{
	struct lwm_rows_reader *r;
	LWM_TRY(lwm_rows_open(&r, path, e));
	*rows = lwm_rows_count(r);
	lwm_rows_close(r);
	return 0;
}

/* A shard from these inputs and settings, every byte of it verified: 1; 0: it is to be made (*replace: where something stands). */
static int shard_done(const struct lwm_pack_out *o, const char *path, bool *replace, int64_t *rows, struct lwm_err *e)
{
	struct lwm_manifest m;
	struct lwm_hash h = lwm_hash_bytes(o->config, strlen(o->config));
	int rc = lwm_manifest_done(path, "rows", &m, replace, e);
	if (rc != 1)
		return rc;
	bool same = !strcmp(h.hex, m.config_hash) && same_inputs(o, &m);
	lwm_manifest_release(&m);
	if (same)
		LWM_TRY(count_rows(path, rows, e));
	return same ? 1 : lwm_fail(e, LWM_ECANTCREATE, "%s: exists, made from other inputs or settings (use --force to replace it)",
				   path);
}

/* The shards that a finished report names. */
static int listed_done(const struct lwm_pack_out *out, const char *report, struct lwm_err *e)
{
	json_t *o = NULL, *files;
	struct lwm_err why = { 0 };
	int64_t rows;
	bool replace;
	int rc = lwm_json_read(&o, report, REPORT_LIMIT, &why);
	if (rc == 0)
		rc = lwm_json_get(o, "shards", JSON_ARRAY, &files, report, &why);
	if (rc == -LWM_EDATA) { /* a damaged report says nothing; the shards are looked at one by one */
		json_decref(o);
		return 0;
	}
	for (size_t i = 0; rc == 0 && i < json_array_size(files); i++) {
		char *path = shard_path(out->cfg, (int64_t)i);
		rc = path ? shard_done(out, path, &replace, &rows, &why) : lwm_fail(&why, LWM_EMEMORY, "out of memory");
		free(path);
		rc = rc == 1 ? 0 : rc == 0 ? 2 : rc; /* 2: one of them is to be made */
	}
	json_decref(o);
	if (rc < 0 && e)
		*e = why;
	return rc < 0 ? rc : rc == 0;
}

int lwm_pack_done(const struct lwm_pack_out *o, struct lwm_err *e)
{
	const struct lwm_pack_cfg *c = o->cfg;
	char *report = lwm_pack_report_path(c), *only = shard_path(c, 0);
	int64_t rows;
	bool replace;
	int rc = report && only ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
	if (rc == 0 && !c->force) {
		if (!c->rows_per_shard)
			rc = shard_done(o, only, &replace, &rows, e);
		else if (lwm_path_exists(report))
			rc = listed_done(o, report, e);
	}
	free(report);
	free(only);
	return rc;
}

/* What a task leaves last. */
static char *part_mark(const struct lwm_pack_cfg *c, int64_t task)
{
	struct lwm_pack_cfg t = *c;
	t.task = task;
	if (c->rows_per_shard)
		return lwm_pack_report_path(&t);
	char *shard = shard_path(&t, 0), *mark = shard ? lwm_manifest_path(shard) : NULL;
	free(shard);
	return mark;
}

/* Tasks that end at the same time both write it, and the same. */
int lwm_pack_index(const struct lwm_pack_cfg *c, struct lwm_err *e)
{
	bool whole = true;
	for (int64_t t = 0; is_arrayed(c) && t < c->tasks && whole; t++) {
		char *mark = part_mark(c, t);
		if (!mark)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
		whole = lwm_path_exists(mark);
		free(mark);
	}
	return whole && lwm_pack_in_folder(c) ? lwm_rowindex_update(c->output, e) : 0;
}

static int add_inputs(struct lwm_pack_out *o, struct lwm_err *e)
{
	if (lwm_pack_in_folder(o->cfg)) {
		LWM_TRY(lwm_pack_share(o, e));
		lwm_rows_inputs(o->w, &o->list);
		return 0;
	}
	for (int64_t i = 0; i < o->book.ninput; i++)
		LWM_TRY(lwm_rows_input(o->w, o->book.input[i].path, o->book.input[i].bytes, o->book.input[i].hash, e));
	return 0;
}

static int create_shard(struct lwm_pack_out *o, bool replace, struct lwm_err *e)
{
	struct lwm_rows_meta meta = { .seq = lwm_pack_row_tokens(o->cfg), .vocab_text = o->mix->vocab_text,
				      .vocab_vision = o->mix->vocab_vision, .tokenizer = o->mix->tokenizer,
				      .tool = o->cfg->tool, .config = o->config,
				      .weighting = o->cfg->mode == LWM_PACK_CONCAT ? "per_token" : "per_example" };
	LWM_TRY(lwm_rows_create(&o->w, o->path, &meta, o->cfg->force || replace, e));
	lwm_rows_documents(o->w, o->mix->docs);
	return add_inputs(o, e);
}

/* Of several shards those that an earlier run finished are not written again: what would go into them is the same. */
static int open_shard(struct lwm_pack_out *o, struct lwm_err *e)
{
	bool replace = false;
	int rc = 0;
	o->path = shard_path(o->cfg, o->st->shards);
	if (!o->path)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
	if (!o->cfg->force)
		rc = shard_done(o, o->path, &replace, &o->there, e);
	LWM_TRY(rc);
	o->in_shard = 0;
	o->open = true;
	if (rc == 0)
		return create_shard(o, replace, e);
	o->st->shards_before++;
	return 0;
}

static int close_shard(struct lwm_pack_out *o, struct lwm_err *e)
{
	struct lwm_rows_writer *w = o->w;
	o->w = NULL;
	o->open = false;
	if (w)
		LWM_TRY(lwm_rows_commit(w, e));
	else if (o->there != o->in_shard)
		return lwm_fail(e, LWM_EDATA, "%s: holds %" PRId64 " rows where %" PRId64 " belong (use --force to replace it)",
				o->path, o->there, o->in_shard);
	o->st->shards++;
	if (json_array_append_new(o->files, json_string(lwm_path_base(o->path))))
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the report");
	free(o->path);
	o->path = NULL;
	return 0;
}

int lwm_pack_out_row(struct lwm_pack_out *o, const int32_t *tokens, const struct lwm_segment *seg, int64_t nseg,
		     const struct lwm_loss_run *run, int64_t nruns, struct lwm_err *e)
{
	if (o->open && o->cfg->rows_per_shard && o->in_shard == o->cfg->rows_per_shard)
		LWM_TRY(close_shard(o, e));
	if (!o->open)
		LWM_TRY(open_shard(o, e));
	o->st->rows++;
	o->in_shard++;
	for (int64_t i = 0; i < nseg; i++)
		o->st->tokens_out += seg[i].len;
	return o->w ? lwm_rows_append(o->w, tokens, seg, nseg, run, nruns, e) : 0;
}

/* Shards of an earlier, longer run. */
static int remove_rest(struct lwm_pack_out *o, struct lwm_err *e)
{
	for (int64_t i = o->st->shards; o->cfg->rows_per_shard; i++) {
		char *p = shard_path(o->cfg, i), *m = p ? lwm_manifest_path(p) : NULL;
		int rc = m ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
		bool there = rc == 0 && lwm_path_exists(p);
		if (there && ((unlink(m) && errno != ENOENT) || unlink(p)))
			rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot remove", p);
		free(p);
		free(m);
		LWM_TRY(rc);
		if (!there)
			break;
	}
	return 0;
}

static int add_rejects(struct lwm_pack_out *o, struct lwm_err *e)
{
	const struct lwm_pack_stats *st = o->st;
	if (st->rejected_short)
		LWM_TRY(lwm_rows_reject(o->w, "too short", st->rejected_short, e));
	if (st->rejected_long)
		LWM_TRY(lwm_rows_reject(o->w, "too long", st->rejected_long, e));
	if (st->rejected_lossless)
		LWM_TRY(lwm_rows_reject(o->w, "without loss", st->rejected_lossless, e));
	return 0;
}

int lwm_pack_out_finish(struct lwm_pack_out *o, struct lwm_err *e)
{
	if (!o->open && o->st->shards == 0)
		LWM_TRY(open_shard(o, e)); /* nothing to pack is an empty shard, not a missing one */
	if (o->w)
		LWM_TRY(add_rejects(o, e));
	if (o->open)
		LWM_TRY(close_shard(o, e));
	return remove_rest(o, e);
}

void lwm_pack_out_release(struct lwm_pack_out *o)
{
	lwm_rows_discard(o->w);
	lwm_manifest_release(&o->book);
	json_decref(o->files);
	free(o->path);
	free(o->config);
	*o = (struct lwm_pack_out){ 0 };
}
