/* The writing half of the ingester: records into shards, each input whole or not at all. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/stop.h"
#include "common/data/ingest/ingest_int.h"

enum { WARNINGS = 5, SAVE_SECONDS = 600 /* between two times that finished inputs are put aside */ };

void lwm_ingest_say(const struct lwm_ingest_cfg *c, bool warning, const char *fmt, ...)
{
	char text[1200];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (c->say)
		c->say(warning, text);
}

void lwm_ingest_meta(const struct lwm_ingest_cfg *c, struct lwm_docs_meta *m)
{
	*m = (struct lwm_docs_meta){ .vocab_text = lwm_tokenizer_vocab(c->tokenizer), .vocab_vision = c->vision_table,
				     .tokenizer = lwm_tokenizer_hash(c->tokenizer)->hex, .tool = c->tool, .config = c->config,
				     .policy = c->policy };
}

int lwm_ingest_key(const char *path, struct lwm_hash *h, int64_t *bytes, char **key, struct lwm_err *e)
{
	*key = NULL;
	LWM_TRY(lwm_hash_file(path, h, bytes, e));
	if (asprintf(key, "%s %" PRId64 " %s", lwm_path_base(path), *bytes, h->hex) >= 0)
		return 0;
	*key = NULL;
	return lwm_fail(e, LWM_EMEMORY, "out of memory for a name");
}

/* ---- what is there already ---- */

static int same_input(const struct lwm_manifest_input *x, const char *path, bool *same, struct lwm_err *e)
{
	struct stat st;
	struct lwm_hash h;
	*same = !strcmp(x->path, lwm_path_base(path)) && stat(path, &st) == 0 && (int64_t)st.st_size == x->bytes;
	if (!*same)
		return 0;
	LWM_TRY(lwm_hash_file(path, &h, NULL, e));
	*same = !strcmp(h.hex, x->hash);
	return 0;
}

static int compare_shard(const struct lwm_ingest_cfg *c, const struct lwm_paths *in, const char *out, int64_t first, int64_t last,
			 const struct lwm_manifest *m, struct lwm_err *e)
{
	struct lwm_hash h = lwm_hash_bytes(c->config, strlen(c->config));
	bool same = !strcmp(h.hex, m->config_hash) && m->ninput == last - first;
	for (int64_t i = first; i < last && same; i++)
		LWM_TRY(same_input(&m->input[i - first], in->v[i], &same, e));
	if (!same)
		return lwm_fail(e, LWM_ECANTCREATE, "%s: exists, made from other inputs or settings (use --force to replace it)",
				out);
	for (int64_t i = first; i < last && c->max_bad >= 0; i++)
		if (m->input[i - first].malformed > c->max_bad)
			return lwm_fail(e, LWM_EDATA, "%s: was made without %" PRId64 " malformed records of %s, and no more than %"
					PRId64 " are allowed now", out, m->input[i - first].malformed, in->v[i], c->max_bad);
	return 1;
}

int lwm_ingest_done(const struct lwm_ingest_cfg *c, const struct lwm_paths *in, const char *out, int64_t first, int64_t last,
		    bool *replace, struct lwm_err *e)
{
	struct lwm_manifest m;
	*replace = false;
	if (c->force)
		return 0;
	int rc = lwm_manifest_done(out, "docs", &m, replace, e);
	if (rc == 1) {
		rc = compare_shard(c, in, out, first, last, &m, e);
		lwm_manifest_release(&m);
	}
	return rc;
}

/* ---- shards ---- */

void lwm_ingest_out_init(struct lwm_ingest_out *o, const struct lwm_ingest_cfg *c, const struct lwm_paths *in,
			 const struct lwm_paths *out, struct lwm_ingest_stats *st)
{
	*o = (struct lwm_ingest_out){ .c = c, .in = in, .out = out, .st = st, .input = -1, .abandoned = -1 };
}

static bool ends_shard(const struct lwm_ingest_out *o, int64_t input)
{
	return input + 1 == o->in->n || strcmp(o->out->v[input], o->out->v[input + 1]) != 0;
}

static int open_shard(struct lwm_ingest_out *o, const struct lwm_slot *x, struct lwm_err *e)
{
	struct lwm_docs_meta meta;
	if (o->w)
		return 0;
	lwm_ingest_meta(o->c, &meta);
	o->lacking = 0;
	o->saved = lwm_now();
	return lwm_docs_create(&o->w, o->out->v[x->input], &meta, o->c->force || x->replace, e);
}

/* A shard that has all of its inputs is published; one that lacks some keeps the others aside. Between inputs what is finished of a
 * long shard is put aside now and then, so that a kill costs no more than that. */
static int close_input(struct lwm_ingest_out *o, int64_t input, struct lwm_err *e)
{
	struct lwm_docs_writer *w = o->w;
	o->input = -1;
	if (!ends_shard(o, input)) {
		if (lwm_now() - o->saved < SAVE_SECONDS)
			return 0;
		o->saved = lwm_now();
		return lwm_docs_save(w, e);
	}
	o->w = NULL;
	if (o->lacking)
		return lwm_docs_suspend(w, NULL, e);
	LWM_TRY(lwm_docs_commit(w, e));
	o->st->shards++;
	return 0;
}

int lwm_ingest_suspend(struct lwm_ingest_out *o, int64_t *units, struct lwm_err *e)
{
	struct lwm_docs_writer *w = o->w;
	*units = 0;
	o->w = NULL;
	return w ? lwm_docs_suspend(w, units, e) : 0;
}

/* ---- inputs ---- */

static void counts_since(const struct lwm_ingest_out *o, int64_t v[LWM_UNIT_STATS])
{
	const struct lwm_ingest_stats *a = o->st, *b = &o->had;
	v[0] = a->in - b->in;
	v[1] = a->out - b->out;
	v[2] = a->malformed - b->malformed;
	v[3] = a->filtered - b->filtered;
	v[4] = a->tokens - b->tokens;
	v[5] = a->loss_tokens - b->loss_tokens;
	v[6] = a->frames - b->frames;
	v[7] = 0;
}

static void add_counts(struct lwm_ingest_stats *a, const int64_t v[LWM_UNIT_STATS])
{
	a->in += v[0];
	a->out += v[1];
	a->malformed += v[2];
	a->filtered += v[3];
	a->tokens += v[4];
	a->loss_tokens += v[5];
	a->frames += v[6];
}

static void begin_input(struct lwm_ingest_out *o, int64_t input)
{
	if (o->input == input)
		return;
	o->input = input;
	o->bad = 0;
	o->had = *o->st;
	lwm_err_clear(&o->trouble);
	lwm_docs_unit_begin(o->w);
}

/* An input that cannot be used costs itself: it is said, counted, and can be retried alone. */
static int fail_input(struct lwm_ingest_out *o, const struct lwm_err *why, struct lwm_err *e)
{
	struct lwm_ingest_stats now = *o->st;
	if (!o->nfailed++)
		o->failure = *why;
	o->lacking++;
	*o->st = o->had;
	o->st->failed = now.failed + 1;
	o->st->bytes = now.bytes;
	o->st->shards = now.shards;
	o->st->skipped = now.skipped;
	lwm_ingest_say(o->c, true, "not used: %s", why->msg);
	return lwm_docs_unit_drop(o->w, e);
}

static int no_document(struct lwm_ingest_out *o, const char *path, struct lwm_err *why)
{
	return lwm_fail(why, LWM_EDATA, "%s: none of its %" PRId64 " records can be used", path, o->st->in - o->had.in);
}

static int finish_input(struct lwm_ingest_out *o, const char *path, struct lwm_err *e)
{
	int64_t counts[LWM_UNIT_STATS], bytes = 0;
	struct lwm_hash h;
	char *key = NULL;
	bool is_stdin = !strcmp(path, "-");
	int rc = is_stdin ? 0 : lwm_ingest_key(path, &h, &bytes, &key, e);
	if (rc == 0 && !is_stdin)
		rc = lwm_docs_input(o->w, path, bytes, h.hex, o->bad, e);
	counts_since(o, counts);
	if (rc == 0)
		rc = lwm_docs_unit_end(o->w, key ? key : "-", counts, e);
	free(key);
	return rc;
}

static int end_input(struct lwm_ingest_out *o, const struct lwm_slot *x, struct lwm_err *e)
{
	const char *path = o->in->v[x->input];
	struct lwm_err why = o->trouble.code ? o->trouble : x->why;
	if (o->bad > WARNINGS)
		lwm_ingest_say(o->c, true, "%s: %" PRId64 " malformed records in all", path, o->bad);
	if (!why.code && o->bad && o->st->out == o->had.out)
		no_document(o, path, &why);
	LWM_TRY(why.code ? fail_input(o, &why, e) : finish_input(o, path, e));
	return close_input(o, x->input, e);
}

/* The key was among those that lay aside; damaged there, this run lacks the input, and the next one makes it. */
static int take_input(struct lwm_ingest_out *o, struct lwm_slot *x, struct lwm_err *e)
{
	int64_t counts[LWM_UNIT_STATS];
	struct lwm_err why = { 0 };
	o->had = *o->st;
	int rc = lwm_docs_take(o->w, x->key, counts, e);
	LWM_TRY(rc);
	if (rc == 1) {
		add_counts(o->st, counts);
	} else {
		lwm_fail(&why, LWM_EDATA, "%s: what an earlier run made of it is damaged: run me again", o->in->v[x->input]);
		LWM_TRY(fail_input(o, &why, e));
	}
	return close_input(o, x->input, e);
}

/* ---- records ---- */

static int reject(struct lwm_ingest_out *o, const struct lwm_record *r, const char *path, struct lwm_err *e)
{
	LWM_TRY(lwm_docs_reject(o->w, r->fault, 1, e));
	if (!r->malformed) {
		o->st->filtered++;
		return 0;
	}
	o->st->malformed++;
	if (++o->bad <= WARNINGS)
		lwm_ingest_say(o->c, true, "rejected: %s", r->why.msg);
	if (o->c->max_bad >= 0 && o->bad > o->c->max_bad) {
		lwm_fail(&o->trouble, LWM_EDATA, "%s: more than %" PRId64 " malformed records; the last one: %.600s", path,
			 o->c->max_bad, r->why.msg);
		o->abandoned = o->input;
	}
	return 0;
}

static int append(struct lwm_ingest_out *o, const struct lwm_record *r, const char *path, struct lwm_err *e)
{
	const struct lwm_docbuf *d = &r->doc;
	const char *base = lwm_path_base(path);
	char id[512];
	if (o->trouble.code)
		return 0;
	o->st->in++;
	if (r->fault)
		return reject(o, r, path, e);
	if (r->nth)
		snprintf(id, sizeof id, "%.480s:%" PRId64 "+%" PRId64, base, r->line, r->nth);
	else
		snprintf(id, sizeof id, "%.480s:%" PRId64, base, r->line);
	LWM_TRY(lwm_docs_append(o->w, id, base, d->ids.v, d->ids.n, d->run, d->nruns, e));
	o->st->out++;
	o->st->tokens += d->ids.n;
	o->st->frames += d->frames;
	o->st->loss_tokens += lwm_docbuf_loss_tokens(d);
	return 0;
}

int lwm_ingest_put(struct lwm_ingest_out *o, struct lwm_slot *x, struct lwm_err *e)
{
	LWM_TRY(open_shard(o, x, e));
	if (x->kind == LWM_SLOT_TAKEN)
		return take_input(o, x, e);
	begin_input(o, x->input);
	return x->kind == LWM_SLOT_END ? end_input(o, x, e) : append(o, &x->rec, o->in->v[x->input], e);
}
