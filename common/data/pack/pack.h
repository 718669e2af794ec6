/* pack.h - document shards into rows of exactly seq_length tokens (concat: and the one that follows).
 *
 *	struct lwm_pack_cfg cfg = { .source = sources, .nsources = n, .seq_length = 4096, .output = "rows.h5", ... };
 *	lwm_pack_run(&cfg, &stats, &report, e)
 *
 * masked:  several documents a row, each its own segment: attention stays inside, positions restart, the loss is
 *          weighted as if every document were trained alone in a padded row. Best fit inside a window of documents.
 * concat:  documents end to end, cut every seq_length tokens; a row is one segment, attention crosses documents (as
 *          published). A row holds seq_length + 1 tokens: seq_length inputs, each with its target. The last of them begins the
 *          next row. The last row of all is filled up with padding, or left out (drop_tail).
 * padded:  one document a row.
 *
 * Order: documents are read in chunks of neighbours (at most 256 documents or about 256K tokens). With shuffle the
 * chunks of a source and the documents of a chunk are permuted by seed, another way in every epoch, and so are the
 * rows of a window; the loader permutes all rows again. A window is packed at once; rows it leaves under-full give
 * their documents to the next. All of it is a function of (inputs, settings, seed).
 *
 * Mixture: weights are the shares of tokens. N tokens are taken in all, w_s N of source s (w adding up to 1), where N
 * is the most for which no document is used more than `epochs` times, or the limit if that is less. Without weights
 * the shares are what the sources have: then N is everything, `epochs` times. Sources advance side by side. A source
 * with weight 0 beside others with weight is not used.
 *
 * Held-out documents: a share of them, chosen by a hash of their tokens alone. A document is held out when XXH3-64 of its tokens,
 * int32 little-endian, seed 0, taken as a fraction of 2^64, is below the share: so it is on the same side in every run, whatever
 * the seed, the shards, their order, the tasks and the mixture; equal documents are on the same side, and a larger share holds out
 * what a smaller one does and more. One run packs the others, another those; shares and lengths are of the documents on its side.
 * Telling them apart reads all tokens once more.
 *
 * Documents in = used + left out (not drawn) + rejected (short, long, without loss) + of the other side, each document once.
 *
 * Long documents (over seq_length): split = pieces of seq_length, each its own segment, the rest packed like any
 * other; truncate = the first seq_length tokens; drop = rejected. concat cuts anyway.
 *
 * Array tasks: task i of n packs every n-th chunk of each source, as if there were no others.
 */
#ifndef LWM_DATA_PACK_PACK_H
#define LWM_DATA_PACK_PACK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/path.h"
#include "common/base/progress.h"

enum lwm_pack_mode { LWM_PACK_MASKED, LWM_PACK_CONCAT, LWM_PACK_PADDED };
enum lwm_pack_long { LWM_LONG_SPLIT, LWM_LONG_DROP, LWM_LONG_TRUNCATE };

struct lwm_pack_source {
	const char *name;
	struct lwm_paths shards; /* document shards, in order */
	double weight;           /* share of the tokens, on any scale; 0 for all sources: no weights */
};

struct lwm_pack_cfg {
	const struct lwm_pack_source *source;
	int64_t nsources;
	int64_t seq_length;     /* tokens of a row that are inputs */
	enum lwm_pack_mode mode;
	enum lwm_pack_long longer; /* what becomes of documents longer than seq_length */
	int64_t min_tokens;     /* shorter documents are rejected */
	int64_t window;         /* so many documents are packed at once; 0: 65536 (and no more tokens than 32M or 8 rows) */
	int64_t epochs;         /* a document is used so often at most; 0: once */
	int64_t max_tokens;     /* N is no more than this; 0: no limit */
	uint64_t seed;          /* of the order */
	bool shuffle;           /* chunks, their documents and the rows of a window are permuted; else they keep their order */
	bool drop_lossless;     /* documents without a token that has a loss are rejected */
	bool force;             /* the output is written again whatever is there */
	double hold_out;        /* share of the documents that are held out, below 1; 0: none is */
	bool held_out;          /* those are packed; else all others */
	bool drop_tail;         /* concat: a last row that is not full is left out */
	const char *output;     /* one file; with rows_per_shard or tasks a folder: rows-00000.rows.h5, ... */
	int64_t rows_per_shard; /* 0: one file */
	int64_t task, tasks;    /* this array task and how many there are, 0: 1; with more, names are rows-TTTTT.rows.h5, or
				 * rows-TTTTT-00000.rows.h5 */
	const char *tool;       /* for provenance */
	struct lwm_progress *progress; /* may be NULL */
};

struct lwm_pack_stats {
	/* in = the sum of the others */
	int64_t docs_in, docs_used, docs_left, docs_aside, rejected_short, rejected_long, rejected_lossless;
	int64_t repeats;    /* uses of a document beyond its first */
	int64_t docs_split, docs_truncated, pieces;
	int64_t tokens_in, tokens_out, tokens_cut; /* cut: by truncation; with the tail */
	int64_t rows, shards;
	int64_t shards_before; /* of them, those that an earlier run had finished: not written again */
	bool complete_before; /* nothing was done: the output is there, from the same inputs and settings */
	double fill;          /* tokens_out / (rows * seq_length); of concat the last target counts as well */
};

/* Writes the row shards, each whole or not at all. Stopped (-LWM_ESAVED, common/base/stop.h) it leaves those that are finished, and
 * run again it does not write those again. *report (may be NULL) gets a new object: settings, stats, sources;
 * it is the same for the same run. With rows_per_shard it is also written to output/rows[-TTTTT].report.json. Last comes the index
 * of the folder (common/io/rowindex.h). */
int lwm_pack_run(const struct lwm_pack_cfg *cfg, struct lwm_pack_stats *stats, json_t **report, struct lwm_err *e);

/* The planning part alone: n pieces of len[i] <= cap tokens into rows. row[i] gets the row of piece i, the return
 * value is the number of rows (or negative). Row by row: first the longest piece there is, then pieces in order while
 * there is room for more than two and a half of average length, then the one or two that leave the least, until
 * nothing fits. Taking the middle in order leaves pieces of all lengths to the last, so that good endings can be
 * found; when that fills less than 99.5 %, longest first throughout is tried as well and the better of the two kept.
 * O(n log cap). */
int64_t lwm_pack_best_fit(const int64_t *len, int64_t n, int64_t cap, int64_t *row, struct lwm_err *e);

#endif
