/* docshard.h - document shards: the tokens of many documents end to end, in one HDF5 file and its manifest.
 *
 *	writing           lwm_docs_create(&w, path, &meta, force, e)
 *	                  lwm_docs_append(w, id, source, tokens, n, runs, nruns, e)   document by document
 *	                  lwm_docs_reject, lwm_docs_input                             what was left out, and what was read
 *	                  lwm_docs_commit(w, e)                                       or lwm_docs_discard, lwm_docs_suspend
 *
 *	reading           lwm_docs_open(&d, path, e)
 *	                  lwm_docs_get(d, i, &doc, e)                                 where a document lies, its id, its loss runs
 *	                  lwm_docs_read(d, i, a, b, out, e)                           its tokens
 *	                  lwm_docs_extents, lwm_docs_read_many                        or many documents at once
 *	                  lwm_docs_close(d)
 *
 * Units, further below, are inputs that are in the shard whole or not at all, so that a run that was stopped can be resumed.
 *
 *	tokens          uint16 when vocab_text + vocab_vision <= 65536, else uint32; one long vector
 *	doc_offset      int64 (documents + 1), in tokens
 *	doc_run_offset  int64 (documents + 1), in loss runs
 *	run_start       int64, token index relative to its document
 *	run_loss        uint8 0 or 1
 *	id_bytes, id_offset, source_bytes, source_offset    strings end to end, int64 (documents + 1)
 *
 * Token ids: text 0 .. vocab_text-1, vision codes at vocab_text + code. A shard and X.manifest.json beside it appear
 * together; the same documents in the same order give the same bytes. All calls are local. A handle serves one thread
 * at a time; different handles may be used by different threads.
 */
#ifndef LWM_IO_DOCSHARD_H
#define LWM_IO_DOCSHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/path.h"
#include "common/io/manifest.h"

/* The run covers start .. start of the next run (or the end of the document). */
struct lwm_loss_run {
	int64_t start;
	uint8_t loss; /* 1: these tokens count as targets, 0: they are context only */
};

struct lwm_docs_meta {
	int64_t vocab_text, vocab_vision; /* ids are below their sum; vocab_vision 0: text only */
	const char *tokenizer;            /* hash of the tokenizer file, "" when none was used */
	const char *tool;                 /* "lwm-tokenize 0.1.0" */
	const char *config;               /* what made it: JSON or YAML text, "" for nothing */
	const char *policy;               /* which marks stand around a document: "bos", "bos,eos", "none" */
};

/* ---- writing ---- */

struct lwm_docs_writer;

/* Refuses an existing file without force. The strings of *m are copied. */
int lwm_docs_create(struct lwm_docs_writer **out, const char *path, const struct lwm_docs_meta *m, bool force,
		    struct lwm_err *e);
/* One document of n >= 1 tokens. runs: ascending starts, the first 0; nruns 0 means that every token counts.
 * id: unique within the shard by convention, not checked; source: provenance (a path, a caption), NULL is "".
 * An id outside the vocabulary is -LWM_EDATA and leaves the writer usable: the document is not in the shard. */
int lwm_docs_append(struct lwm_docs_writer *w, const char *id, const char *source, const int32_t *tokens, int64_t n,
		    const struct lwm_loss_run *runs, int64_t nruns, struct lwm_err *e);
/* Documents left out, by reason: counts add up over calls with the same reason. */
int lwm_docs_reject(struct lwm_docs_writer *w, const char *reason, int64_t count, struct lwm_err *e);
/* One input file, for the manifest. bytes < 0 and hash NULL: both are taken from the file itself. malformed: of its records, those
 * that were no data. */
int lwm_docs_input(struct lwm_docs_writer *w, const char *path, int64_t bytes, const char *hash, int64_t malformed,
		   struct lwm_err *e);
/* Closes, reads everything back, compares, renames, writes the manifest; w is gone either way. */
int lwm_docs_commit(struct lwm_docs_writer *w, struct lwm_err *e);
void lwm_docs_discard(struct lwm_docs_writer *w); /* NULL is fine */

/* ---- units: the inputs of a shard one after the other, each whole or not at all ----
 *
 *	lwm_docs_take(w, key, stats, e)          1: an earlier run had finished it; else
 *	lwm_docs_unit_begin(w)
 *	lwm_docs_append, _reject, _input ...
 *	lwm_docs_unit_end(w, key, stats, e)      from here on it counts; or lwm_docs_unit_drop: as if it had never begun
 *
 * A shard that cannot be finished now is suspended: its finished units lie beside it (PATH.aside.0 or .1, a shard of its own kind)
 * and a later run of the same settings takes them from there, in whatever order, instead of making them anew. The finished shard
 * has the bytes it would have had. Commit removes what was put aside. key names a unit with its content: a hash of the input is
 * part of it. stats are the caller's own counts, given back with the unit. Not every document need be in a unit.
 */
enum { LWM_UNIT_STATS = 8 };
void lwm_docs_unit_begin(struct lwm_docs_writer *w);
int lwm_docs_unit_end(struct lwm_docs_writer *w, const char *key, const int64_t stats[LWM_UNIT_STATS], struct lwm_err *e);
int lwm_docs_unit_drop(struct lwm_docs_writer *w, struct lwm_err *e); /* nothing is open: nothing happens */
/* Keys of the units that lie aside for a shard of that description; none is no error. */
int lwm_docs_aside_keys(const char *path, const struct lwm_docs_meta *m, struct lwm_paths *keys, struct lwm_err *e);
/* 1 and the unit is in the shard, 0: it has to be made. What turns out to be damaged has to be made. */
int lwm_docs_take(struct lwm_docs_writer *w, const char *key, int64_t stats[LWM_UNIT_STATS], struct lwm_err *e);
/* Puts aside what is finished; the writer is used further. No unit may be open. */
int lwm_docs_save(struct lwm_docs_writer *w, struct lwm_err *e);
/* Drops the open unit, puts aside what is finished; w is gone either way. *units (may be NULL): how many were kept. */
int lwm_docs_suspend(struct lwm_docs_writer *w, int64_t *units, struct lwm_err *e);

/* ---- reading ---- */

struct lwm_docs;

struct lwm_doc {           /* strings and runs belong to the handle and live until its next lwm_docs_get */
	int64_t n, offset; /* tokens; index of the first one in the shard */
	const char *id, *source;
	const struct lwm_loss_run *runs; /* at least one */
	int64_t nruns;
};

/* Reads metadata only: milliseconds for any size. */
int lwm_docs_open(struct lwm_docs **out, const char *path, struct lwm_err *e);
void lwm_docs_close(struct lwm_docs *d); /* NULL is fine */
const struct lwm_docs_meta *lwm_docs_get_meta(const struct lwm_docs *d); /* this and the next: borrowed */
const struct lwm_manifest *lwm_docs_manifest(const struct lwm_docs *d);
int64_t lwm_docs_count(const struct lwm_docs *d);
int64_t lwm_docs_tokens(const struct lwm_docs *d); /* of all documents */
int lwm_docs_get(struct lwm_docs *d, int64_t i, struct lwm_doc *out, struct lwm_err *e);
/* Token counts of documents first .. first+n-1, for packing: no strings are read. */
int lwm_docs_lengths(struct lwm_docs *d, int64_t first, int64_t n, int64_t *out, struct lwm_err *e);
/* Many documents without their strings. token, run: n + 1 entries, where the tokens and loss runs of documents first .. first+n-1
 * begin in the shard, and end. */
int lwm_docs_extents(struct lwm_docs *d, int64_t first, int64_t n, int64_t *token, int64_t *run, struct lwm_err *e);
/* With these the tokens and runs themselves, end to end; a run's start is within its document. */
int lwm_docs_read_many(struct lwm_docs *d, int64_t n, const int64_t *token, const int64_t *run, int32_t *tokens,
		       struct lwm_loss_run *runs, struct lwm_err *e);
/* Tokens a .. b-1 of document i; every id is checked against the vocabulary, every chunk against its checksum. */
int lwm_docs_read(struct lwm_docs *d, int64_t i, int64_t a, int64_t b, int32_t *out, struct lwm_err *e);

#endif
