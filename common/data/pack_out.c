#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/json.h"
#include "common/data/pack_int.h"

static bool arrayed(const struct lwm_pack_cfg *c)
{
	return c->tasks > 1;
}

char *lwm_pack_shard_path(const struct lwm_pack_cfg *c, int64_t shard)
{
	char *p;
	int n;
	if (!c->rows_per_shard)
		return strdup(c->output);
	if (arrayed(c))
		n = asprintf(&p, "%s/rows-%05" PRId64 "-%05" PRId64 ".rows.h5", c->output, c->task, shard);
	else
		n = asprintf(&p, "%s/rows-%05" PRId64 ".rows.h5", c->output, shard);
	return n < 0 ? NULL : p;
}

char *lwm_pack_report_path(const struct lwm_pack_cfg *c)
{
	char *p;
	int n = arrayed(c) ? asprintf(&p, "%s/rows-%05" PRId64 ".report.json", c->output, c->task)
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
	int rc = lwm_json_dump(lost ? NULL : o, JSON_SORT_KEYS | JSON_COMPACT, "the settings", out, e);
	json_decref(o);
	return rc;
}

static int64_t input_count(const struct lwm_pack_cfg *c)
{
	int64_t n = 0;
	for (int64_t i = 0; i < c->nsources; i++)
		n += c->source[i].shards.n;
	return n;
}

/* Do the inputs of an earlier run have the hashes they have now? */
static int same_inputs(const struct lwm_pack_cfg *c, const struct lwm_manifest *m, bool *same, struct lwm_err *e)
{
	int64_t k = 0;
	*same = m->ninput == input_count(c);
	for (int64_t i = 0; i < c->nsources && *same; i++)
		for (int64_t j = 0; j < c->source[i].shards.n && *same; j++, k++) {
			struct lwm_manifest now = { 0 };
			LWM_TRY(lwm_manifest_read(&now, c->source[i].shards.v[j], e));
			*same = !strcmp(now.hash, m->input[k].hash);
			lwm_manifest_release(&now);
		}
	return 0;
}

int lwm_pack_done(const struct lwm_pack_cfg *c, const char *config, struct lwm_err *e)
{
	char *report = lwm_pack_report_path(c), *first = lwm_pack_shard_path(c, 0);
	struct lwm_manifest m = { 0 };
	struct lwm_hash h = lwm_hash_bytes(config, strlen(config));
	bool same = false;
	int rc = report && first ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
	bool there = false;
	if (rc == 0 && !c->force) {
		rc = lwm_manifest_done(first, "rows", e);
		there = rc > 0;
		rc = rc < 0 ? rc : 0;
	}
	bool finished = rc == 0 && (!c->rows_per_shard || lwm_path_exists(report));
	if (there && finished)
		rc = lwm_manifest_read(&m, first, e);
	if (rc == 0 && there && finished && !strcmp(h.hex, m.config_hash))
		rc = same_inputs(c, &m, &same, e);
	if (rc == 0 && there && finished)
		rc = same ? 1 : lwm_fail(e, LWM_ECANTCREATE, "%s: exists, made from other inputs or settings (use "
					 "--force to replace it)", first);
	lwm_manifest_release(&m);
	free(report);
	free(first);
	return rc;
}

static int add_inputs(struct lwm_pack_out *o, struct lwm_err *e)
{
	for (int64_t i = 0; i < o->mix->nshards; i++) {
		const struct lwm_manifest *m = lwm_docs_manifest(o->mix->shard[i].h);
		LWM_TRY(lwm_rows_input(o->w, o->mix->shard[i].path, m->bytes, m->hash, e));
	}
	return 0;
}

static int open_shard(struct lwm_pack_out *o, struct lwm_err *e)
{
	struct lwm_rows_meta meta = { .seq = o->cfg->seq_length, .vocab_text = o->mix->vocab_text,
				      .vocab_vision = o->mix->vocab_vision, .tokenizer = o->mix->tokenizer,
				      .tool = o->cfg->tool, .config = o->config,
				      .weighting = o->cfg->mode == LWM_PACK_CONCAT ? "per_token" : "per_example" };
	o->path = lwm_pack_shard_path(o->cfg, o->st->shards);
	if (!o->path)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
	/* A multi-shard output without its report was never finished: its shards are made again, to the same bytes.
	 * */
	LWM_TRY(lwm_rows_create(&o->w, o->path, &meta, o->cfg->force || o->cfg->rows_per_shard > 0, e));
	return add_inputs(o, e);
}

static int close_shard(struct lwm_pack_out *o, struct lwm_err *e)
{
	struct lwm_rows_writer *w = o->w;
	o->w = NULL;
	LWM_TRY(lwm_rows_commit(w, e));
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
	if (o->w && o->cfg->rows_per_shard && lwm_rows_written(o->w) == o->cfg->rows_per_shard)
		LWM_TRY(close_shard(o, e));
	if (!o->w)
		LWM_TRY(open_shard(o, e));
	o->st->rows++;
	for (int64_t i = 0; i < nseg; i++)
		o->st->tokens_out += seg[i].len;
	return lwm_rows_append(o->w, tokens, seg, nseg, run, nruns, e);
}

/* Shards of an earlier, longer run. */
static int remove_rest(struct lwm_pack_out *o, struct lwm_err *e)
{
	for (int64_t i = o->st->shards; o->cfg->rows_per_shard; i++) {
		char *p = lwm_pack_shard_path(o->cfg, i), *m = p ? lwm_manifest_path(p) : NULL;
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

int lwm_pack_out_finish(struct lwm_pack_out *o, struct lwm_err *e)
{
	const struct lwm_pack_stats *st = o->st;
	if (!o->w && st->shards == 0)
		LWM_TRY(open_shard(o, e)); /* nothing to pack is an empty shard, not a missing one */
	if (o->w) {
		if (st->rejected_short)
			LWM_TRY(lwm_rows_reject(o->w, "too short", st->rejected_short, e));
		if (st->rejected_long)
			LWM_TRY(lwm_rows_reject(o->w, "too long", st->rejected_long, e));
		if (st->rejected_lossless)
			LWM_TRY(lwm_rows_reject(o->w, "without loss", st->rejected_lossless, e));
		LWM_TRY(close_shard(o, e));
	}
	return remove_rest(o, e);
}

void lwm_pack_out_release(struct lwm_pack_out *o)
{
	lwm_rows_discard(o->w);
	json_decref(o->files);
	free(o->path);
	free(o->config);
	*o = (struct lwm_pack_out){ 0 };
}
