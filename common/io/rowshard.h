/* rowshard.h - packed rows: every row has exactly `seq` tokens, cut into segments (documents) and padding.
 *
 *	writing           lwm_rows_create(&w, path, &meta, force, e)
 *	                  lwm_rows_documents(w, docs)                          before the first row, where it is known
 *	                  lwm_rows_append(w, tokens, seg, nseg, runs, nruns, e)   row by row
 *	                  lwm_rows_input or lwm_rows_inputs, lwm_rows_reject   what it was made from
 *	                  lwm_rows_commit(w, e)                                or lwm_rows_discard(w)
 *
 *	reading           lwm_rows_open(&r, path, e)                           rowindex.h: lwm_rows_open_as, of thousands of shards
 *	                  lwm_rows_read(r, i, &row, e)                         row may be used again and again
 *	                  lwm_row_release(&row), lwm_rows_close(r)
 *
 *	tokens          uint16 or uint32 (as docshard.h), rows * seq end to end; padding holds token 0
 *	row_seg         int64 (rows + 1), index of the first entry of each row
 *	seg_len         uint16 when seq < 65536, else uint32: tokens of each entry, one after the other from the row's start
 *	seg_doc         uint32, int64 where that could be too little: document number of each entry given by the packer; -1 none,
 *	                -2: it is padding (unsigned: the largest number and the one before). Padding at a row's end has no entry.
 *	row_flip        int64 (rows + 1), index of the first flip of each row
 *	flip_at         as seg_len: where the mask below changes, in the row; at its start it is 0. First tokens and padding are not
 *	                looked at
 *
 * THE MASK BELONGS TO THE TARGET. mask[t] = 1 says that token t itself is to be predicted. The trainer shifts: the
 * label at position t is token t+1 of the same segment and counts when mask[t+1] = 1; the last token of a segment has
 * no label. So the first token of a segment is never a target: readers clear its mask, and padding's. n_loss is the number of
 * labels of the segment after this, from which the trainer makes weights: per_token 1, per_example 1 / n_loss. A
 * trainer that reads rows of seq - 1 inputs has a label at each of them (lwm-pack --mode concat makes such rows).
 *
 * The same rows in the same order give the same bytes. Local calls; one thread per handle at a time.
 */
#ifndef LWM_IO_ROWSHARD_H
#define LWM_IO_ROWSHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/io/docshard.h"
#include "common/io/manifest.h"

struct lwm_rows_meta {
	int64_t seq; /* tokens of a row */
	int64_t vocab_text, vocab_vision;
	const char *tokenizer; /* hash, "" for none */
	const char *tool, *config;
	const char *weighting; /* what the packer was asked for: "per_example" or "per_token"; advice only */
};

struct lwm_segment {
	int64_t start, len; /* within the row */
	int64_t n_loss;     /* labels; filled by read */
	int64_t doc;        /* document number, -1 none */
};

/* ---- writing ---- */

struct lwm_rows_writer;

/* Refuses a finished shard without force. The strings of *m are copied. */
int lwm_rows_create(struct lwm_rows_writer **out, const char *path, const struct lwm_rows_meta *m, bool force,
		    struct lwm_err *e);
/* Before the first row: all document numbers will be below `docs`. Up to 4294967294 they take 4 bytes each then, else 8. */
void lwm_rows_documents(struct lwm_rows_writer *w, int64_t docs);
/* One row. tokens: seq values (padding is overwritten with 0). seg: ascending, not overlapping, inside the row; gaps
 * and the rest are padding. runs: ascending starts within the row, first 0, may cross segments; nruns 0: every token
 * counts. */
int lwm_rows_append(struct lwm_rows_writer *w, const int32_t *tokens, const struct lwm_segment *seg, int64_t nseg,
		    const struct lwm_loss_run *runs, int64_t nruns, struct lwm_err *e);
/* One input file, for the manifest; as lwm_docs_input. */
int lwm_rows_input(struct lwm_rows_writer *w, const char *path, int64_t bytes, const char *hash, struct lwm_err *e);
/* All inputs at once, as a list that other shards share (lwm_manifest_share). */
void lwm_rows_inputs(struct lwm_rows_writer *w, const struct lwm_manifest_list *list);
/* Documents left out, by reason: counts add up. */
int lwm_rows_reject(struct lwm_rows_writer *w, const char *reason, int64_t count, struct lwm_err *e);
/* Reads everything back, compares, renames, writes the manifest; w is gone either way. */
int lwm_rows_commit(struct lwm_rows_writer *w, struct lwm_err *e);
void lwm_rows_discard(struct lwm_rows_writer *w); /* NULL is fine */

/* ---- reading ---- */

struct lwm_row { /* buffers owned by the row, grown by lwm_rows_read; zero-initialise, release after use */
	int64_t seq, nseg, cap, seg_cap;
	int32_t *tokens;         /* [seq] */
	int32_t *segment;        /* [seq] number of the segment within the row, -1 padding */
	int32_t *position;       /* [seq] counts from 0 in each segment; 0 in padding */
	uint8_t *mask;           /* [seq] 1: token is a target */
	struct lwm_segment *seg; /* [nseg] */
};

struct lwm_rows_reader;

/* What is known of a shard that is not open (rowindex.h). */
struct lwm_rows_facts {
	int64_t bytes; /* of the file */
	struct lwm_manifest_rows shape;
	char content[33], hash[33];
};

/* Reads metadata only. -LWM_EDATA: damaged, unfinished, or not what its manifest says. */
int lwm_rows_open(struct lwm_rows_reader **out, const char *path, struct lwm_err *e);
/* The same without reading the manifest: the file is the one of these facts (size, content id, shape), or -LWM_EDATA.
 * lwm_rows_manifest then knows no more than they do. */
int lwm_rows_open_as(struct lwm_rows_reader **out, const char *path, const struct lwm_rows_facts *facts, struct lwm_err *e);
void lwm_rows_close(struct lwm_rows_reader *r);
const struct lwm_rows_meta *lwm_rows_get_meta(const struct lwm_rows_reader *r); /* this and the next: borrowed */
const struct lwm_manifest *lwm_rows_manifest(const struct lwm_rows_reader *r);
int64_t lwm_rows_count(const struct lwm_rows_reader *r);
/* Row i. What is read of the file is checked: sums, ids below the vocabulary, segments within the row; else -LWM_EDATA. */
int lwm_rows_read(struct lwm_rows_reader *r, int64_t i, struct lwm_row *out, struct lwm_err *e);
void lwm_row_release(struct lwm_row *row);

#endif
