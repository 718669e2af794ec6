/* loader.h - batches of packed rows.
 *
 *	lwm_loader_open(&l, &cfg, e)
 *	for each step, for micro = 0 .. lwm_loader_micros(l)-1:
 *		lwm_loader_get(l, step, micro, &b, e)      one microbatch; the next is read in the background
 *	lwm_loader_close(l)
 *
 * Which rows a step sees is a pure function of (seed, step): nothing is remembered between steps, so resuming is asking for the
 * next step, and the number of ranks does not change what a step trains on.
 *
 * Global sample g = step * rows_per_step + i, i = 0..rows_per_step-1.
 *   source:  draws come in blocks of 10,000; in every block source s gets its share of the weights exactly (largest
 *            remainder), in an order permuted by (seed, block). So after n draws every source is within a block of
 *            its share. Without weights all rows are one pool. Where a share changes over the steps, each step has its own
 *            numbers of rows (shares.c), so that after any step every source is within a few rows of the sum of its shares.
 *   row:     draw k of source s is row permute(seed, epoch, s; k mod rows) of epoch k / rows: every row of a source
 *            once, then all again in another order. A source that is drawn faster than it is long repeats sooner.
 * Data rank r of n gets samples [r*R/n, (r+1)*R/n) of each step's R = rows_per_step. Or (in_turn) microbatches of M rows are
 * dealt in turn: microbatch i of rank r has the samples from (i*n + r)*M on, so that their order over ranks does not depend on n.
 *
 * Held-out rows (once > 0) are that many rows, or all there are: a source whose rows are through is passed over. What else it
 * takes to fill the batches of all ranks is padding, rows of no segment. So each row counts once, and which rows count depends
 * neither on the number of ranks nor on micro_rows.
 *
 * Local but for lwm_loader_open with a communicator. One thread may call a loader; each rank has its own.
 *
 * Opening reads no shard: names, rows and content ids come from the index of the folder or from the manifests (rowindex.h). A shard
 * is opened when its first row is wanted, must have the content id that was told, and its blocks are checked as they are read.
 */
#ifndef LWM_DATA_LOADER_LOADER_H
#define LWM_DATA_LOADER_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/path.h"
#include "common/comm/comm.h"

/* What a label weighs. w_m: the weight of its modality m, text or vision; M_m, n_im: labels of m, in all and in unit i. With a loss
 * of v for a source each of its units counts v times: terms of unit i have the factor v_i, N is the sum of v_i, M_m that of v over
 * labels.
 * Where modalities are not told apart (no weights), w_m is 1 and every label counts as one of the same kind. */
enum lwm_weighting {
	LWM_PER_EXAMPLE, /* L = 1/N sum_i sum_m w_m/n_im sum_t nll_imt: i the N segments that have labels */
	LWM_PER_TOKEN,   /* L = sum_m w_m sum_t nll_mt / sum_m w_m M_m */
	LWM_PUBLISHED    /* as per example, but i are all N rows, those without a label too: the loss of the released trainer
			  * (LWM lwm/train.py with tux cross_entropy_loss_and_accuracy). Without weights: w_m is 1/2 where there is
			  * vision, in rows or model, else 1; a modality that a row has no label of adds 0 for that row. */
};

/* At this step the share is that; between two points it is linear. */
struct lwm_share_point {
	int64_t step;
	double share; /* 0 or more, on the scale of the others' shares and weights */
};

struct lwm_loader_source {
	const char *name;        /* for messages and counts */
	struct lwm_paths shards; /* row shards: files, folders, @LISTs; their order is part of the sample order */
	double weight;           /* share of the rows, on any scale; 0 for all sources: each as many as it has rows */
	const struct lwm_share_point *point; /* instead of the weight: shares at steps, ascending */
	int64_t npoints;         /* 0: the share never changes */
	double loss;             /* what its labels weigh beside those of other sources (v below); 0: 1 */
};
/* Its share at a step, on the scale it was given. */
double lwm_loader_share(const struct lwm_loader_source *s, int64_t step);

struct lwm_loader_cfg {
	const struct lwm_loader_source *source; /* copied as needed; not kept */
	int64_t nsources;
	uint64_t seed;         /* decides, with the step, which rows a step sees */
	int64_t rows_per_step; /* rows of a step, all ranks and microbatches together; with `once` it is worked out instead */
	int64_t once;          /* 0: rows come again in every epoch; else held-out rows, see above: step 0 holds all of them.
				* The same shard twice, or a copy of it, is -LWM_ECONFIG */
	int rank, ranks;       /* this data rank and how many there are: dp x fsdp */
	int64_t micro_rows;    /* rows of this rank in one microbatch; divides rows_per_step / ranks */
	bool in_turn;          /* how microbatches are dealt, see above */
	enum lwm_weighting weighting;
	double text_weight, vision_weight; /* w_m, 0 or more; both 0: no weights, see above */
	bool vision;           /* the model has a vision head, whatever these rows hold */
	int64_t seq_length;    /* S: rows of S tokens, or of S + 1 (pack.h, concat), the last a target only; 0: what they hold */
	bool prefetch;         /* the next microbatch is read on another thread while the caller works on this one */
	/* NULL: this rank looks at the files itself. Else lwm_loader_open is collective: the first rank does, and tells the others;
	 * all return the same. */
	struct lwm_comm *comm;
};

/* Rows laid end to end: index row*seq + t. Valid until the next lwm_loader_get or close. */
struct lwm_batch {
	int64_t rows, seq;
	int32_t *tokens;    /* (rows, seq) model ids; 0 in padding */
	int32_t *targets;   /* (rows, seq) next token of its segment, -1 where there is none; shifted before the row is cut */
	int32_t *segments;  /* (rows, seq) number of the segment, counted through the batch; -1 in padding */
	int32_t *positions; /* (rows, seq) from 0 in each segment, pieces of a split document too; 0 in padding */
	float *weights;     /* (rows, seq) of the target: its factor in L * norm; 0 where no loss */
	/* Sums over this batch; the trainer adds them over ranks and microbatches. loss = sum w nll / norm. */
	double norm;                      /* N; per token: sum_m w_m M_m */
	int64_t segments_n;               /* segments, padding not counted */
	int64_t loss_text, loss_vision;   /* targets with loss, by modality (vision: id >= V_text) */
	int64_t tokens_n;                 /* tokens that are not padding */
	int64_t first_sample;             /* g of row 0 */
	int32_t *row_source;              /* [rows] the source of each row, -1 of one of padding */
	const int64_t *source_rows;       /* [nsources] rows of each source in the whole step, over all ranks and microbatches */
};

struct lwm_loader;
/* -LWM_ENOINPUT: what a source names does not exist; -LWM_EDATA: an index, a manifest or a shard is damaged; -LWM_ECONFIG: shards,
 * sources and settings do not go together, or there are no rows; -LWM_EMEMORY. */
int lwm_loader_open(struct lwm_loader **out, const struct lwm_loader_cfg *cfg, struct lwm_err *e);
void lwm_loader_close(struct lwm_loader *l); /* NULL is fine */

int64_t lwm_loader_micros(const struct lwm_loader *l); /* microbatches of this rank in a step */
/* *out belongs to the loader. -LWM_EDATA: a shard is damaged, or is not the one that opening was told of. */
int lwm_loader_get(struct lwm_loader *l, int64_t step, int64_t micro, struct lwm_batch **out, struct lwm_err *e);

struct lwm_loader_info {
	int64_t seq_length, nsources, rows; /* rows of all sources */
	int64_t vocab_text;                 /* V_text: ids from here on are vision */
	int64_t vocab;                      /* ids are below this */
	struct lwm_hash tokenizer;
	struct lwm_hash content;            /* of what can be drawn: sources, weights, shares, rows; not of names */
};
const struct lwm_loader_info *lwm_loader_info_of(const struct lwm_loader *l);

/* Where global sample g comes from: source, row in it (over its shards in order) and epoch. */
struct lwm_sample {
	int64_t source, row, epoch;
};
struct lwm_sample lwm_loader_sample(const struct lwm_loader *l, int64_t g);

#endif
