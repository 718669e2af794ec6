/* ingest_int.h - inside common/data/ingest: records of text files (records.c), the shards they go to (ingest_out.c).
 *
 *	lwm_ingest_done(cfg, in, out, first, last, &replace, e)        is this shard to be made?
 *	lwm_reader_open(&r, cfg, path, e)
 *	lwm_reader_next(&r, &slot.rec, e) ...                          one thread reads records, in order
 *	lwm_record_encode(&slot.rec, cfg, path, e)                     any thread
 *	lwm_ingest_put(&o, &slot, e)                                   one thread writes them, in the same order
 *	lwm_reader_close(&r)                                           and a slot of kind LWM_SLOT_END says how the input ended
 *	lwm_ingest_suspend(&o, &units, e)                              asked to stop: what is finished is put aside
 */
#ifndef LWM_DATA_INGEST_INGEST_INT_H
#define LWM_DATA_INGEST_INGEST_INT_H

#include "common/data/ingest/ingest.h"
#include "common/text/lines.h"

enum { LWM_RECORD_MOST = 256 << 20 }; /* bytes, where nothing else is said */

struct lwm_record_format;

struct lwm_record {
	struct lwm_str text;
	int64_t line;      /* where it starts, from 1 */
	int64_t nth;       /* among those that start on this line, from 0 */
	const struct lwm_record_format *format;
	const char *fault; /* why it is rejected; malformed says which kind of reason */
	bool malformed;
	struct lwm_err why;
	struct lwm_docbuf doc;
};

struct lwm_reader {
	const struct lwm_ingest_cfg *cfg;
	struct lwm_lines *l;
	const char *path;
	const struct lwm_record_format *format;
	bool any; /* for the format: a record was given */
	int64_t line;
	/* of formats whose records are no lines: bytes that were read and not looked at; where the last record began */
	const char *rest;
	size_t nrest;
	int64_t last_line, nth;
};

/* How a text file falls into records, and how one becomes a document (formats.c). */
struct lwm_record_format {
	const char *const *suffixes; /* of files, without that of a packing, the usual one first; a list that ends in NULL */
	bool named_only;             /* a file given by its name; folders are not searched for them */
	bool is_text;                /* every byte of a record is text: looked at as such, any bytes for the byte tokenizer */
	size_t (*longest_line)(const struct lwm_ingest_cfg *c); /* NULL: lwm_reader_limit */
	/* The next record into *rec, which is empty: 1 and text and line are set, 0 at the end, negative. One that is too
	 * long is given refused. */
	int (*next)(struct lwm_reader *r, struct lwm_record *rec, struct lwm_err *e);
	/* Text to rec->doc. number: picks among alternatives. -LWM_EDATA with rec->doc.fault: the record's own fault. Any
	 * thread. */
	int (*build)(struct lwm_record *rec, const struct lwm_ingest_cfg *c, int64_t number, struct lwm_err *e);
};
/* auto: by the name; text when it says nothing. */
const struct lwm_record_format *lwm_record_format_of(enum lwm_text_format format, const char *path);
void lwm_record_format_cut(char *name); /* without what says format and packing */

/* Bytes of a line, or of a record of several. */
static inline size_t lwm_reader_limit(const struct lwm_ingest_cfg *c)
{
	return (size_t)(c->max_bytes > 0 ? c->max_bytes : LWM_RECORD_MOST);
}

static inline void lwm_record_refuse(struct lwm_record *rec, const char *fault)
{
	rec->fault = fault;
	rec->malformed = true;
}

/* A JSON object as text: its document (format_jsonl.c). As `build` above. */
int lwm_record_build_object(struct lwm_record *rec, const struct lwm_ingest_cfg *c, int64_t number, struct lwm_err *e);

/* Opens a text file. */
int lwm_reader_open(struct lwm_reader *r, const struct lwm_ingest_cfg *cfg, const char *path, struct lwm_err *e);
void lwm_reader_close(struct lwm_reader *r);
/* The next record into *rec (its memory is reused): 1, 0 at the end, negative. */
int lwm_reader_next(struct lwm_reader *r, struct lwm_record *rec, struct lwm_err *e);

/* ---- from the reader to the writer (ingest_out.c) ---- */

enum lwm_slot_kind {
	LWM_SLOT_RECORD,
	LWM_SLOT_TAKEN, /* an input that an earlier run had finished and put aside */
	LWM_SLOT_END    /* of an input that was read, to its end or as far as it can be */
};
struct lwm_slot {
	enum lwm_slot_kind kind;
	struct lwm_record rec;
	int64_t input;
	bool replace;       /* what stands where its shard belongs is damaged */
	char *key;          /* of what is taken; the writer frees it */
	struct lwm_err why; /* of an end: why it goes no further; code 0: it was read whole */
};

/* Each input is a unit of its shard (docshard.h): one that turns out to be bad costs itself alone, and a shard that is stopped or
 * lacks an input keeps the others aside for the next run. */
struct lwm_ingest_out {
	const struct lwm_ingest_cfg *c;
	const struct lwm_paths *in, *out;
	struct lwm_ingest_stats *st;
	struct lwm_docs_writer *w; /* NULL between shards */
	int64_t input;     /* the one that is being written; -1 between inputs */
	int64_t bad;       /* malformed records of it */
	int64_t abandoned; /* the one that failed while it was being written: it need not be read on; -1 */
	struct lwm_err trouble;      /* what it failed of */
	struct lwm_ingest_stats had; /* counts before it */
	int64_t lacking;             /* inputs of this shard that failed */
	double saved;                /* when units were put aside last */
	struct lwm_err failure;      /* of the first input that failed, for the end */
	int64_t nfailed;
};
void lwm_ingest_out_init(struct lwm_ingest_out *o, const struct lwm_ingest_cfg *c, const struct lwm_paths *in,
			 const struct lwm_paths *out, struct lwm_ingest_stats *st);
int lwm_ingest_put(struct lwm_ingest_out *o, struct lwm_slot *x, struct lwm_err *e);
/* What is finished of an open shard is put aside. *units: how much. */
int lwm_ingest_suspend(struct lwm_ingest_out *o, int64_t *units, struct lwm_err *e);

/* Is the shard of inputs first .. last-1 there, whole, from this configuration and these inputs? 1 yes, 0 it is to be made
 * (*replace: in the place of a damaged one), negative: another one is there, or it cannot be told. */
int lwm_ingest_done(const struct lwm_ingest_cfg *c, const struct lwm_paths *in, const char *out, int64_t first, int64_t last,
		    bool *replace, struct lwm_err *e);
void lwm_ingest_meta(const struct lwm_ingest_cfg *c, struct lwm_docs_meta *m); /* of every shard of the run */
/* Name, size and content: what makes an input the same one. *key is malloc'ed. */
int lwm_ingest_key(const char *path, struct lwm_hash *h, int64_t *bytes, char **key, struct lwm_err *e);
void lwm_ingest_say(const struct lwm_ingest_cfg *c, bool warning, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Tokenises *rec; what is wrong with the record itself goes into rec->fault. Any thread. */
int lwm_record_encode(struct lwm_record *rec, const struct lwm_ingest_cfg *cfg, const char *path, struct lwm_err *e);

#endif
