/* docshard_int.h - inside common/io: the writer of document shards, for what writes documents and what keeps units of them. */
#ifndef LWM_IO_DOCSHARD_INT_H
#define LWM_IO_DOCSHARD_INT_H

#include "common/io/docshard.h"
#include "common/io/shard.h"

extern const char lwm_docs_schema[], lwm_docs_kind[];
extern const char *const lwm_docs_schemas[]; /* those that are read, ending in NULL */
enum {
	LWM_DOC_TOKENS, LWM_DOC_OFFSET, LWM_DOC_RUN, LWM_DOC_RUN_START, LWM_DOC_RUN_LOSS, LWM_DOC_ID_BYTES, LWM_DOC_ID_OFFSET,
	LWM_DOC_SRC_BYTES, LWM_DOC_SRC_OFFSET, LWM_DOC_VECS
};

/* How much is written: where a unit begins, and what dropping it goes back to. */
struct lwm_docs_mark {
	int64_t spool[LWM_DOC_VECS]; /* bytes */
	int64_t docs, tokens, runs, id_bytes, src_bytes;
};

struct lwm_doc_unit {
	char *key;
	int64_t first, docs; /* documents in the shard that holds it */
	int64_t stats[LWM_UNIT_STATS];
	struct lwm_manifest said; /* its inputs and rejections alone */
};
struct lwm_doc_units {
	struct lwm_doc_unit *v;
	int64_t n, cap;
};

/* Units that an earlier run put aside. */
struct lwm_docs_aside {
	struct lwm_docs *d;
	struct lwm_doc_units units; /* key NULL: taken, or damaged */
	int which;                  /* of the two names */
};

struct lwm_docs_writer {
	struct lwm_shard_out s;
	struct lwm_spool spool[LWM_DOC_VECS];
	int64_t vocab;
	struct lwm_docs_mark at, mark; /* mark: where the open unit begins */
	bool broken;                   /* a document went in by half: the disk is full */
	bool open;                     /* a unit is */
	struct lwm_manifest said;      /* inputs and rejections of the open unit */
	struct lwm_doc_units done;
	struct lwm_docs_aside aside;
	int which;                     /* name of what was put aside last; -1 nothing */
};

/* ---- docread.c: what both directions hold documents to ---- */

extern const struct lwm_vec lwm_docs_layout[LWM_DOC_VECS];
int lwm_docs_check_meta(const char *path, const struct lwm_docs_meta *m, struct lwm_err *e);
/* Ascending from 0, each within the n tokens. */
int lwm_docs_check_runs(const char *id, const struct lwm_loss_run *runs, int64_t nruns, int64_t n, struct lwm_err *e);
const json_t *lwm_docs_described(const struct lwm_docs *d); /* `meta` of an open shard; borrowed */

/* ---- docwrite.c ---- */

/* The 0 that every vector of offsets begins with. */
int lwm_docs_begin_vectors(struct lwm_docs_writer *w, struct lwm_err *e);
/* How much is written now, and back to how much was written then. */
void lwm_docs_set_mark(struct lwm_docs_writer *w, struct lwm_docs_mark *m);
int lwm_docs_go_back(struct lwm_docs_writer *w, const struct lwm_docs_mark *to, struct lwm_err *e);
/* Sizes of the vectors, and what meta says of the documents. */
void lwm_docs_describe(const struct lwm_docs_writer *w, struct lwm_shard_out *s, struct lwm_vec v[LWM_DOC_VECS]);

/* ---- docunit.c ---- */

/* Looks for what an earlier run of the same settings put aside; with force removes it. */
int lwm_docs_aside_open(struct lwm_docs_writer *w, const struct lwm_docs_meta *m, bool force, struct lwm_err *e);
void lwm_docs_aside_close(struct lwm_docs_writer *w);
void lwm_docs_aside_remove(const char *path);
void lwm_doc_units_release(struct lwm_doc_units *u);

#endif
