/* The reading half of the ingester, and its pipeline: text files in, records encoded by all threads, shards out. */
#include "common/data/ingest/ingest.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/base/stop.h"
#include "common/data/ingest/ingest_int.h"

enum { BATCH = 4096, BATCH_BYTES = 8 << 20 /* per thread */, TEAM = 1 << 16 /* per thread */ };

struct batch {
	struct lwm_slot *slot; /* BATCH of them */
	int n;
};

/* Inputs are read one after the other; a batch may hold records of several, so that many small files keep all threads
 * busy. While one batch is encoded, one thread writes the batch before it and reads the batch after it. */
struct work {
	const struct lwm_ingest_cfg *c;
	const struct lwm_paths *in, *out;
	struct lwm_ingest_stats *st;
	struct lwm_reader r;   /* open when r.l is set */
	int64_t next;          /* input being read, or to be opened */
	int64_t before;        /* bytes of the inputs before it */
	bool replace;          /* its shard is to replace a damaged one */
	struct lwm_paths keys; /* of inputs that lie aside for its shard */
	struct lwm_ingest_out o;
};

static int64_t file_bytes(const char *path)
{
	struct stat s;
	return stat(path, &s) == 0 && S_ISREG(s.st_mode) ? (int64_t)s.st_size : 0;
}

/* ---- reading ---- */

static bool starts_shard(const struct work *k)
{
	return k->next < k->in->n && (k->next == 0 || strcmp(k->out->v[k->next], k->out->v[k->next - 1]));
}

/* First input of the next shard. */
static int64_t group_end(const struct work *k, int64_t first)
{
	int64_t b = first + 1;
	while (b < k->in->n && !strcmp(k->out->v[first], k->out->v[b]))
		b++;
	return b;
}

/* Comes to the next shard that is to be made, past those that are complete. */
static int next_shard(struct work *k, struct lwm_err *e)
{
	struct lwm_docs_meta meta;
	lwm_paths_release(&k->keys);
	while (starts_shard(k)) {
		int64_t end = group_end(k, k->next);
		int rc = lwm_ingest_done(k->c, k->in, k->out->v[k->next], k->next, end, &k->replace, e);
		LWM_TRY(rc);
		if (rc == 0)
			break;
		lwm_ingest_say(k->c, false, "%s: complete, nothing to do", k->out->v[k->next]);
		k->st->skipped++;
		for (; k->next < end; k->next++)
			k->before += file_bytes(k->in->v[k->next]);
	}
	if (k->next == k->in->n || k->c->force)
		return 0;
	lwm_ingest_meta(k->c, &meta);
	return lwm_docs_aside_keys(k->out->v[k->next], &meta, &k->keys, e);
}

static bool lies_aside(const struct work *k, const char *key)
{
	for (int64_t i = 0; i < k->keys.n; i++)
		if (!strcmp(k->keys.v[i], key))
			return true;
	return false;
}

/* Is the next input among those that lie aside? Then x says so. */
static int look_aside(struct work *k, struct lwm_slot *x, struct lwm_err *e)
{
	const char *path = k->in->v[k->next];
	struct lwm_hash h;
	int64_t bytes;
	char *key;
	x->kind = LWM_SLOT_RECORD;
	if (!k->keys.n || !strcmp(path, "-") || !lwm_path_exists(path))
		return 0;
	LWM_TRY(lwm_ingest_key(path, &h, &bytes, &key, e));
	if (!lies_aside(k, key)) {
		free(key);
		return 0;
	}
	x->kind = LWM_SLOT_TAKEN;
	x->key = key;
	x->input = k->next++;
	x->replace = k->replace;
	k->before += bytes;
	return 0;
}

/* What is the input's own fault ends the input; anything else ends the run. */
static bool is_its_own(int rc)
{
	return rc == -LWM_EDATA || rc == -LWM_ENOINPUT || rc == -LWM_EIO;
}

static void end_slot(struct work *k, struct lwm_slot *x)
{
	if (k->r.l) {
		k->st->bytes += lwm_lines_read(k->r.l);
		k->before += lwm_lines_read(k->r.l);
	}
	lwm_reader_close(&k->r);
	x->kind = LWM_SLOT_END;
	k->next++;
}

/* The next record of the open input, or its end. */
static int read_slot(struct work *k, struct lwm_slot *x, struct lwm_err *e)
{
	struct lwm_err *why = &x->why;
	int more = 0;
	x->input = k->next;
	x->replace = k->replace;
	if (!k->r.l)
		more = lwm_reader_open(&k->r, k->c, k->in->v[k->next], why);
	if (more == 0 && k->o.abandoned != k->next) {
		more = lwm_reader_next(&k->r, &x->rec, why);
		if (more == 1)
			return 0;
	}
	if (more < 0 && !is_its_own(more)) {
		if (e)
			*e = *why;
		return more;
	}
	end_slot(k, x);
	return 0;
}

/* Fills the batch; none when all inputs are read. After a failure it holds what came before it. */
static int read_batch(struct work *k, struct batch *b, struct lwm_err *e)
{
	size_t bytes = 0, limit = (size_t)BATCH_BYTES * (size_t)k->c->threads;
	for (b->n = 0; b->n < BATCH && bytes < limit; b->n++) {
		struct lwm_slot *x = &b->slot[b->n];
		lwm_err_clear(&x->why);
		if (!k->r.l && starts_shard(k))
			LWM_TRY(next_shard(k, e));
		if (k->next == k->in->n)
			break;
		x->kind = LWM_SLOT_RECORD;
		if (!k->r.l)
			LWM_TRY(look_aside(k, x, e));
		if (x->kind == LWM_SLOT_TAKEN)
			continue;
		LWM_TRY(read_slot(k, x, e));
		bytes += x->rec.text.len;
	}
	if (k->c->progress)
		lwm_progress_at(k->c->progress, k->before + (k->r.l ? lwm_lines_read(k->r.l) : 0));
	return 0;
}

static int write_batch(struct work *k, struct batch *b, struct lwm_err *e)
{
	for (int i = 0; i < b->n; i++) {
		struct lwm_slot *x = &b->slot[i];
		int rc = lwm_ingest_put(&k->o, x, e);
		free(x->key);
		x->key = NULL;
		LWM_TRY(rc);
	}
	return 0;
}

/* Encodes `now` while one thread writes `other` and reads the next batch into it; that thread joins the rest when it is
 * done. What comes first in the inputs is told first: *unread says why the inputs cannot be read on, for when all before
 * that place is written. */
static int take_turn(struct work *k, struct batch *now, struct batch *other, struct lwm_err *unread, struct lwm_err *e)
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
			struct lwm_slot *x = &now->slot[i];
			int r = x->kind != LWM_SLOT_RECORD ? 0 : lwm_record_encode(&x->rec, k->c, k->in->v[x->input], &mine);
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
		free(b->slot[i].key);
	}
	free(b->slot);
}

/* Asked to stop: what is finished of the open shard is put aside. */
static int put_aside(struct work *k, struct lwm_err *e)
{
	int64_t units;
	LWM_TRY(lwm_ingest_suspend(&k->o, &units, e));
	return lwm_fail(e, LWM_ESAVED, "stopped (%s): %" PRId64 " shards are complete, %" PRId64
			" inputs of the next one are kept: run me again", lwm_stop_reason(), k->st->shards + k->st->skipped, units);
}

static int run_all(struct work *k, struct batch b[2], struct lwm_err *e)
{
	struct lwm_err unread = { 0 };
	int now = 0;
	read_batch(k, &b[0], &unread);
	for (; b[0].n || b[1].n; now = !now) {
		double start = lwm_now();
		if (lwm_stop_wanted() >= LWM_STOP_END)
			return put_aside(k, e);
		LWM_TRY(take_turn(k, &b[now], &b[!now], &unread, e));
		lwm_stop_cost(lwm_now() - start, 0);
	}
	if (unread.code && e)
		*e = unread;
	return unread.code;
}

/* All is done that can be: the run still fails when an input did. */
static int tell_failures(const struct work *k, struct lwm_err *e)
{
	if (!k->o.nfailed)
		return 0;
	return lwm_fail(e, -k->o.failure.code, "%" PRId64 " of %" PRId64 " inputs could not be used, the others are done (run me again to "
			"retry); the first: %.700s", k->o.nfailed, k->in->n, k->o.failure.msg);
}

int lwm_ingest_run(const struct lwm_ingest_cfg *cfg, const struct lwm_paths *in, const struct lwm_paths *out,
		   struct lwm_ingest_stats *stats, struct lwm_err *e)
{
	struct work k = { .c = cfg, .in = in, .out = out, .st = stats };
	struct batch b[2] = { { .slot = calloc(BATCH, sizeof *b->slot) }, { .slot = calloc(BATCH, sizeof *b->slot) } };
	int rc;
	memset(stats, 0, sizeof *stats);
	lwm_ingest_out_init(&k.o, cfg, in, out, stats);
	rc = b[0].slot && b[1].slot ? run_all(&k, b, e) : lwm_fail(e, LWM_EMEMORY, "out of memory for records");
	if (rc == 0)
		rc = tell_failures(&k, e);
	lwm_docs_discard(k.o.w);
	lwm_reader_close(&k.r);
	lwm_paths_release(&k.keys);
	release_batch(&b[0]);
	release_batch(&b[1]);
	return rc;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int check_unique(const struct lwm_paths *p, struct lwm_err *e)
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
	for (int64_t i = 0; i < in->n; i++) {
		char name[512];
		if (snprintf(name, sizeof name, "%s", lwm_path_base(in->v[i])) >= (int)sizeof name - 16 || !*name)
			return lwm_fail(e, LWM_EUSAGE, "%s: no name for its output can be made", in->v[i]);
		lwm_record_format_cut(name);
		if (!strcmp(name, "-"))
			snprintf(name, sizeof name, "stdin");
		snprintf(name + strlen(name), sizeof name - strlen(name), ".docs.h5");
		char *path = lwm_path_join(dir, name);
		int rc = path ? lwm_paths_add(out, path, e) : lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
		free(path);
		LWM_TRY(rc);
	}
	return check_unique(out, e);
}
