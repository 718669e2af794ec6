/* pack_int.h - inside common/data/pack: reading documents in mixed order, and writing rows.
 *
 *	lwm_pack_config_text(&cfg, &o.config, e), lwm_pack_inputs(&o, e)      what decides the output
 *	lwm_pack_done(&o, e)                                                  1: nothing to do
 *	lwm_mix_open(&m, &cfg, &stats, e), lwm_pack_inputs_stand(&o, e)
 *	while (lwm_mix_next(&m, &window, e) == 1) ...                         until the window is full; then its rows:
 *		lwm_pack_out_row(&o, tokens, seg, nseg, run, nruns, e)
 *	lwm_pack_out_finish(&o, e), lwm_pack_index(&cfg, e)
 *	lwm_pack_out_release(&o), lwm_mix_release(&m)
 *
 * Local calls.
 */
#ifndef LWM_DATA_PACK_PACK_INT_H
#define LWM_DATA_PACK_PACK_INT_H

#include "common/data/pack/pack.h"
#include "common/io/docshard.h"
#include "common/io/rowshard.h"

/* A document, or a piece of one, in the window's memory. */
struct lwm_pack_item {
	int64_t tok;          /* its first token in window.tokens */
	int64_t len;
	int64_t off;          /* of the piece in its document */
	int64_t run, nruns;   /* of its document in window.runs */
	int64_t doc;          /* number over all shards of all sources */
	int age;              /* windows it was handed on from */
};

struct lwm_window {
	int32_t *tokens;
	int64_t ntokens, tokens_cap;
	struct lwm_loss_run *runs;
	int64_t nruns, runs_cap;
	struct lwm_pack_item *piece;
	int64_t n, cap;
};

struct lwm_mix_shard {
	struct lwm_docs *h;
	const char *path; /* the configuration's */
	int64_t base;     /* number of its first document */
};
enum { LWM_MIX_CHUNK = 256 /* documents at most */ };
struct lwm_mix_chunk {
	int64_t shard, first, n;
	uint32_t aside[LWM_MIX_CHUNK / 32]; /* bit i: document first + i is of the other side (hold_out) */
};
static inline bool lwm_mix_is_aside(const struct lwm_mix_chunk *c, int64_t i)
{
	return c->aside[i / 32] >> i % 32 & 1;
}
struct lwm_mix_source {
	struct lwm_mix_chunk *chunk; /* this task's */
	int64_t nchunks, cap, at;    /* at: chunks drawn, over all epochs */
	int64_t usable, drawn, quota; /* tokens */
	int64_t docs_in, docs_used;
};
struct lwm_mix {
	const struct lwm_pack_cfg *cfg;
	struct lwm_pack_stats *st;
	struct lwm_mix_shard *shard;
	struct lwm_mix_source *source;
	int64_t nshards, docs, vocab_text, vocab_vision;
	char tokenizer[33];
	int32_t *look; /* tokens of a chunk that was looked at, to tell its sides apart */
	int64_t look_cap;
};
int lwm_mix_open(struct lwm_mix *m, const struct lwm_pack_cfg *cfg, struct lwm_pack_stats *st, struct lwm_err *e);
void lwm_mix_release(struct lwm_mix *m);
/* held_out.c: which documents of a chunk are of the other side. tokens: memory that is used again, *cap entries. */
int lwm_mix_part(const struct lwm_pack_cfg *cfg, struct lwm_docs *h, struct lwm_mix_chunk *c, int32_t **tokens, int64_t *cap,
		 struct lwm_err *e);
/* Adds the next chunk's documents to the window as pieces: 1, 0 when the quotas are met, negative. */
int lwm_mix_next(struct lwm_mix *m, struct lwm_window *w, struct lwm_err *e);

/* Where rows go. */
struct lwm_pack_out {
	const struct lwm_pack_cfg *cfg;
	const struct lwm_mix *mix;
	struct lwm_pack_stats *st;
	char *config;      /* settings as JSON: provenance of the shards */
	struct lwm_rows_writer *w; /* of the open shard; NULL: an earlier run finished it, and its rows are only counted */
	bool open;
	int64_t in_shard, there; /* rows of the open shard so far; that it holds already */
	char *path;        /* of the open shard */
	struct lwm_manifest book;      /* the inputs of all sources, in order */
	struct lwm_manifest_list list; /* they together */
	bool shared;                   /* the list lies in the folder */
	json_t *files;     /* names of the shards, in order */
};
/* One row: lwm_pack_row_tokens(cfg) tokens, their segments and loss runs. Shards begin and end here, as they fill up. */
int lwm_pack_out_row(struct lwm_pack_out *o, const int32_t *tokens, const struct lwm_segment *seg, int64_t nseg,
		     const struct lwm_loss_run *run, int64_t nruns, struct lwm_err *e);
/* Ends the last shard, an empty one where there were no rows, and removes those of an earlier, longer run. */
int lwm_pack_out_finish(struct lwm_pack_out *o, struct lwm_err *e);
void lwm_pack_out_release(struct lwm_pack_out *o);
/* Tokens that a row holds: seq_length; concat: one more, which is its last target and the first token of the next row. */
int64_t lwm_pack_row_tokens(const struct lwm_pack_cfg *c);
/* Several files in a folder, of shards or of tasks. */
bool lwm_pack_in_folder(const struct lwm_pack_cfg *c);
/* Settings that with the inputs decide every byte, malloc'ed. */
int lwm_pack_config_text(const struct lwm_pack_cfg *cfg, char **out, struct lwm_err *e);
/* What the inputs are, from their manifests: o->book, o->list. */
int lwm_pack_inputs(struct lwm_pack_out *o, struct lwm_err *e);
/* The shards that were opened are the inputs that will be written down. */
int lwm_pack_inputs_stand(const struct lwm_pack_out *o, struct lwm_err *e);
/* The list of inputs in the output folder, where there is one. */
int lwm_pack_share(struct lwm_pack_out *o, struct lwm_err *e);
/* Is the output there, whole? 1 from these inputs and settings, 0 no, negative: from others (and no force). */
int lwm_pack_done(const struct lwm_pack_out *o, struct lwm_err *e);
/* The index of the output folder (common/io/rowindex.h), by the run after which no task's part is missing. */
int lwm_pack_index(const struct lwm_pack_cfg *cfg, struct lwm_err *e);
/* Where the report lies, malloc'ed; NULL: out of memory. */
char *lwm_pack_report_path(const struct lwm_pack_cfg *cfg);

#endif
