/* pack.h - document shards into rows of exactly seq_length tokens.
 *
 * masked:  several documents a row, each its own segment: attention stays inside, positions restart, the loss is
 *          weighted as if every document were trained alone in a padded row. Best fit, longest first, inside a window
 *          of documents.
 * concat:  documents end to end, cut every seq_length tokens; a row is one segment, attention crosses documents (as
 *          published). The last row is filled up with padding.
 * padded:  one document a row.
 *
 * Order: sources are mixed by weight (below), documents of a source are permuted by seed when shuffle is on, a window
 * of `window` documents is packed at once. All of it is a function of (seed, inputs, settings); neither threads nor
 * how a job array is cut changes the rows of one part.
 *
 * Weights: the share of tokens a source should have. A source with weight 0 in a list where others have one is not
 * used. All equal 0 (the default): every document of every source once. Otherwise the source that would run dry first
 * at those shares is used once, whole, and the others give their share of it, starting over (with another order) only
 * as far as `epochs` allows; what a source has too much is left out and counted as such.
 *
 * Documents in = documents used + left out + rejected (each by reason). A document is rejected when it is shorter
 * than min_tokens, has no token with loss (unless keep_lossless), or is too long with long = drop.
 *
 * Long documents (over seq_length): split = pieces of seq_length, each its own segment, the rest packed like any
 * other; truncate = the first seq_length tokens; drop = rejected. concat cuts anyway.
 */
#ifndef LWM_DATA_PACK_H
#define LWM_DATA_PACK_H

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
	double weight;
};

struct lwm_pack_cfg {
	const struct lwm_pack_source *source;
	int64_t nsources;
	int64_t seq_length;
	enum lwm_pack_mode mode;
	enum lwm_pack_long longer;
	int64_t min_tokens, window, epochs; /* window: documents; 0 = 65536 */
	uint64_t seed;
	bool shuffle, keep_lossless, force;
	const char *output;     /* folder, or one file when rows_per_shard is 0 */
	int64_t rows_per_shard; /* > 0: output/rows-00000.h5, ... */
	int64_t task, tasks;    /* this part packs every tasks-th document of the mixed order */
	struct lwm_progress *progress; /* may be NULL */
};

struct lwm_pack_stats {
	int64_t docs_in, docs_used, docs_left, rejected_short, rejected_long, rejected_lossless;
	int64_t repeats;    /* uses of a document beyond the first */
	int64_t truncated;  /* documents cut at seq_length, with tokens_cut tokens lost */
	int64_t split, pieces;
	int64_t tokens_in, tokens_out, tokens_cut, tokens_loss, tokens_left, tokens_rejected;
	int64_t rows, shards;
	double fill, seconds; /* fill: tokens_out / (rows * seq_length) */
};

/* Writes the row shards, each whole or not at all. report (may be NULL) gets a new object: settings, stats, per
 * source. */
int lwm_pack_run(const struct lwm_pack_cfg *cfg, struct lwm_pack_stats *stats, json_t **report, struct lwm_err *e);

/* The planning part alone: n pieces of len[i] <= cap tokens into rows. row[i] gets the row of piece i, return value
 * is the number of rows (or negative). Longest first, each into the row with the least room that is enough; among
 * equals the row opened first. Pieces of one length keep their order. O(n log cap). */
int64_t lwm_pack_best_fit(const int64_t *len, int64_t n, int64_t cap, int64_t *row, struct lwm_err *e);

#endif
