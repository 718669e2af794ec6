#include "common/data/ingest.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/arena.h"
#include "common/data/ingest_int.h"

enum { BATCH = 4096, BATCH_BYTES = 8 << 20 /* per thread */, WARNINGS = 5, TEAM = 1 << 16 /* per thread */ };

struct slot {
	struct lwm_record rec;
	int64_t input;
	bool end; /* no record: this input is read to its end */
};

struct batch {
	struct slot *slot; /* BATCH of them */
	int n;
};

/* Inputs are read one after the other; a batch may hold records of several, so that many small files keep all threads
 * busy. While one batch is encoded, one thread writes the batch before it and reads the batch behind it. */
struct work {
	const struct lwm_ingest_cfg *c;
	const struct lwm_paths *in, *out;
	struct lwm_ingest_stats *st;
	struct lwm_reader r; /* open when r.l is set */
	int64_t next;        /* input being read, or to be opened */
	int64_t before;      /* bytes of the inputs before it */
	struct lwm_docs_writer *w;
	int64_t bad; /* malformed records of the input being written */
};

static void say(const struct work *k, bool warning, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void say(const struct work *k, bool warning, const char *fmt, ...)
{
	char text[1200];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (k->c->say)
		k->c->say(warning, text);
}

static int64_t file_bytes(const char *path)
{
	struct stat s;
	return stat(path, &s) == 0 && S_ISREG(s.st_mode) ? (int64_t)s.st_size : 0;
}

/* First input of the next shard. */
static int64_t group_end(const struct work *k, int64_t first)
{
	int64_t b = first + 1;
	while (b < k->in->n && !strcmp(k->out->v[first], k->out->v[b]))
		b++;
	return b;
}

/* Is the shard there, from this configuration and these inputs? 1 yes, 0 not there, negative: another one is there.
 * */
static int done(const struct work *k, int64_t first, int64_t last, struct lwm_err *e)
{
	const char *out = k->out->v[first];
	struct lwm_manifest m = { 0 };
	int there = k->c->force ? 0 : lwm_manifest_done(out, "docs", e);
	if (there <= 0)
		return there;
	LWM_TRY(lwm_manifest_read(&m, out, e));
	struct lwm_hash h = lwm_hash_bytes(k->c->config, strlen(k->c->config));
	bool same = !strcmp(h.hex, m.config_hash) && m.ninput == last - first;
	for (int64_t i = first; i < last && same; i++) {
		const struct lwm_manifest_input *x = &m.input[i - first];
		same = !strcmp(x->path, lwm_path_base(k->in->v[i])) && x->bytes == file_bytes(k->in->v[i]);
	}
	lwm_manifest_release(&m);
	if (same)
		return 1;
	return lwm_fail(e, LWM_ECANTCREATE, "%s: exists, made from other inputs or settings (use --force to "
			"replace it)", out);
}

/* Opens the next input, past shards that are complete. */
static int open_next(struct work *k, struct lwm_err *e)
{
	while (k->next < k->in->n && (k->next == 0 || strcmp(k->out->v[k->next], k->out->v[k->next - 1]))) {
		int64_t end = group_end(k, k->next);
		int rc = done(k, k->next, end, e);
		LWM_TRY(rc);
		if (rc == 0)
			break;
		say(k, false, "%s: complete, nothing to do", k->out->v[k->next]);
		k->st->skipped++;
		for (; k->next < end; k->next++)
			k->before += file_bytes(k->in->v[k->next]);
	}
	return k->next < k->in->n ? lwm_reader_open(&k->r, k->c, k->in->v[k->next], e) : 0;
}

/* Fills the batch; none when all inputs are read. After a failure it holds what came before it. */
static int read_batch(struct work *k, struct batch *b, struct lwm_err *e)
{
	size_t bytes = 0, limit = (size_t)BATCH_BYTES * (size_t)k->c->threads;
	for (b->n = 0; b->n < BATCH && bytes < limit; b->n++) {
		struct slot *x = &b->slot[b->n];
		if (!k->r.l)
			LWM_TRY(open_next(k, e));
		if (k->next == k->in->n)
			break;
		int more = lwm_reader_next(&k->r, &x->rec, e);
		LWM_TRY(more);
		x->input = k->next;
		x->end = more == 0;
		bytes += x->rec.text.len;
		if (x->end) {
			k->st->bytes += lwm_lines_read(k->r.l);
			k->before += lwm_lines_read(k->r.l);
			lwm_reader_close(&k->r);
			k->next++;
		}
	}
	if (k->c->progress)
		lwm_progress_at(k->c->progress, k->before + (k->r.l ? lwm_lines_read(k->r.l) : 0));
	return 0;
}

static int reject(struct work *k, const struct lwm_record *r, const char *path, struct lwm_err *e)
{
	LWM_TRY(lwm_docs_reject(k->w, r->fault, 1, e));
	if (!r->malformed) {
		k->st->filtered++;
		return 0;
	}
	k->st->malformed++;
	if (++k->bad <= WARNINGS)
		say(k, true, "rejected: %s", r->why.msg);
	if (k->c->max_bad >= 0 && k->bad > k->c->max_bad)
		return lwm_fail(e, LWM_EDATA, "%s: more than %" PRId64 " malformed records; the last one: %.600s", path,
				k->c->max_bad, r->why.msg);
	return 0;
}

static int append(struct work *k, const struct lwm_record *r, const char *path, struct lwm_err *e)
{
	const struct lwm_docbuf *d = &r->doc;
	const char *base = lwm_path_base(path);
	char id[512];
	k->st->in++;
	if (r->fault)
		return reject(k, r, path, e);
	snprintf(id, sizeof id, "%.480s:%" PRId64, base, r->line);
	LWM_TRY(lwm_docs_append(k->w, id, base, d->ids.v, d->ids.n, d->run, d->nruns, e));
	k->st->out++;
	k->st->tokens += d->ids.n;
	k->st->frames += d->frames;
	k->st->loss_tokens += lwm_docbuf_loss_tokens(d);
	return 0;
}

static int create(struct work *k, const char *out, struct lwm_err *e)
{
	const struct lwm_ingest_cfg *c = k->c;
	struct lwm_docs_meta meta = { .vocab_text = lwm_tokenizer_vocab(c->tokenizer), .vocab_vision = c->vision_table,
				      .tokenizer = lwm_tokenizer_hash(c->tokenizer)->hex, .tool = c->tool,
				      .config = c->config, .policy = c->policy };
	return lwm_docs_create(&k->w, out, &meta, c->force, e);
}

static int end_input(struct work *k, int64_t input, struct lwm_err *e)
{
	const char *path = k->in->v[input];
	if (k->bad > WARNINGS)
		say(k, true, "%s: %" PRId64 " malformed records in all", path, k->bad);
	k->bad = 0;
	if (strcmp(path, "-"))
		LWM_TRY(lwm_docs_input(k->w, path, -1, NULL, e));
	if (input + 1 < k->in->n && !strcmp(k->out->v[input], k->out->v[input + 1]))
		return 0;
	struct lwm_docs_writer *w = k->w;
	k->w = NULL;
	LWM_TRY(lwm_docs_commit(w, e));
	k->st->shards++;
	return 0;
}

static int write_batch(struct work *k, const struct batch *b, struct lwm_err *e)
{
	for (int i = 0; i < b->n; i++) {
		const struct slot *x = &b->slot[i];
		if (!k->w)
			LWM_TRY(create(k, k->out->v[x->input], e));
		LWM_TRY(x->end ? end_input(k, x->input, e) : append(k, &x->rec, k->in->v[x->input], e));
	}
	return 0;
}

/* Encodes `now` while one thread writes `other` and reads the next batch into it; that thread joins the rest when it is
 * done. What comes first in the inputs is told first: *unread says why the inputs cannot be read on, for when all before
 * that place is written. */
static int turn(struct work *k, struct batch *now, struct batch *other, struct lwm_err *unread, struct lwm_err *e)
{
	int written = 0, encoded = 0;
	struct lwm_err why = { 0 };
	LWM_TRY(lwm_memory_room((size_t)TEAM * (size_t)k->c->threads, "a team of threads", e)); /* libgomp ends the program */
	atomic_int ended = 0; /* says what the barrier of the region says, for the thread sanitizer, which cannot see that one */
#pragma omp parallel num_threads(k->c->threads)
	{
#pragma omp master
		{
			written = write_batch(k, other, e);
			other->n = 0;
			if (written == 0 && !unread->code)
				read_batch(k, other, unread);
		}
#pragma omp for schedule(dynamic, 1)
		for (int i = 0; i < now->n; i++) {
			struct lwm_err mine = { 0 };
			struct slot *x = &now->slot[i];
			int r = x->end ? 0 : lwm_record_encode(&x->rec, k->c, k->in->v[x->input], &mine);
			if (r < 0) {
#pragma omp critical
				{
					encoded = r;
					why = mine;
				}
			}
		}
		atomic_fetch_add(&ended, 1);
	}
	(void)atomic_load(&ended);
	if (written < 0 || encoded == 0)
		return written;
	if (e)
		*e = why;
	return encoded;
}

static void release_batch(struct batch *b)
{
	for (int i = 0; b->slot && i < BATCH; i++) {
		lwm_str_release(&b->slot[i].rec.text);
		lwm_docbuf_release(&b->slot[i].rec.doc);
	}
	free(b->slot);
}

int lwm_ingest_run(const struct lwm_ingest_cfg *cfg, const struct lwm_paths *in, const struct lwm_paths *out,
		   struct lwm_ingest_stats *stats, struct lwm_err *e)
{
	struct work k = { .c = cfg, .in = in, .out = out, .st = stats };
	struct batch b[2] = { { .slot = calloc(BATCH, sizeof *b->slot) }, { .slot = calloc(BATCH, sizeof *b->slot) } };
	struct lwm_err unread = { 0 };
	int rc = 0, now = 0;
	memset(stats, 0, sizeof *stats);
	if (!b[0].slot || !b[1].slot) {
		rc = lwm_fail(e, LWM_EMEMORY, "out of memory for records");
		goto out;
	}
	read_batch(&k, &b[0], &unread);
	for (; b[0].n || b[1].n; now = !now)
		LWM_GO(turn(&k, &b[now], &b[!now], &unread, e));
	rc = unread.code;
	if (rc < 0 && e)
		*e = unread;
out:
	lwm_docs_discard(k.w);
	lwm_reader_close(&k.r);
	release_batch(&b[0]);
	release_batch(&b[1]);
	return rc;
}

static void cut_suffix(char *name, const char *suffix)
{
	if (lwm_path_has_suffix(name, suffix) && strlen(name) > strlen(suffix))
		name[strlen(name) - strlen(suffix)] = 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int unique(const struct lwm_paths *p, struct lwm_err *e)
{
	char **v = malloc((size_t)(p->n + 1) * sizeof *v);
	int rc = 0;
	if (!v)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for names");
	memcpy(v, p->v, (size_t)p->n * sizeof *v);
	qsort(v, (size_t)p->n, sizeof *v, by_name);
	for (int64_t i = 1; i < p->n && rc == 0; i++)
		if (!strcmp(v[i], v[i - 1]))
			rc = lwm_fail(e, LWM_EUSAGE, "%s: two inputs of the same name would be written there", v[i]);
	free(v);
	return rc;
}

int lwm_ingest_names(const struct lwm_paths *in, const char *dir, struct lwm_paths *out, struct lwm_err *e)
{
	static const char *const ends[] = { ".gz", ".zst", ".txt", ".jsonl", ".ndjson" };
	for (int64_t i = 0; i < in->n; i++) {
		char name[512];
		if (snprintf(name, sizeof name, "%s", lwm_path_base(in->v[i])) >= (int)sizeof name - 16 || !*name)
			return lwm_fail(e, LWM_EUSAGE, "%s: no name for its output can be made", in->v[i]);
		for (size_t k = 0; k < sizeof ends / sizeof *ends; k++)
			cut_suffix(name, ends[k]);
		if (!strcmp(name, "-"))
			snprintf(name, sizeof name, "stdin");
		snprintf(name + strlen(name), sizeof name - strlen(name), ".docs.h5");
		char *path = lwm_path_join(dir, name);
		int rc = path ? lwm_paths_add(out, path, e) : lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
		free(path);
		LWM_TRY(rc);
	}
	return unique(out, e);
}
