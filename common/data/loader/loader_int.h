/* loader_int.h - inside common/data/loader: where rows come from, and filling a batch.
 *
 *	lwm_rowset_open(&l->set, cfg, e)              rowset.c: the shards of all sources, as one list
 *	lwm_loader_plan_draws(l, cfg, e)              draw.c: which share of a block each source has; shares.c: of each step
 *	lwm_loader_hold_out(l, e)                     draw.c: held-out rows make one step
 *	lwm_loader_fill(l, step, micro, &b, e)        batch.c: lwm_loader_sample and lwm_rowset_read for each row
 *	lwm_rowset_release(&l->set)
 *
 * With a communicator lwm_rowset_open is collective; all else is local.
 */
#ifndef LWM_DATA_LOADER_LOADER_INT_H
#define LWM_DATA_LOADER_LOADER_INT_H

#include <pthread.h>

#include "common/data/loader/loader.h"
#include "common/io/rowshard.h"

enum { LWM_MIX_BLOCK = 10000 };

/* Row shards of all sources in one list. They are opened when a row of theirs is wanted. */
struct lwm_rowset_shard {
	char *path;
	int64_t first;       /* rows of the same source before it */
	struct lwm_rows_facts facts;
	struct lwm_rows_reader *h;  /* NULL: not wanted so far */
};
struct lwm_rowset_source {
	char *name;
	int64_t shard, nshards, rows; /* its shards in the list */
};
struct lwm_rowset {
	struct lwm_rowset_shard *shard;
	struct lwm_rowset_source *source;
	int64_t nshards, nsources, rows, seq, vocab_text, vocab_vision;
	int64_t wanted; /* tokens of a row, or one less; 0: all have seq */
	struct lwm_hash tokenizer, content;
};
/* Errors as of lwm_loader_open. Release it after a failure too. */
int lwm_rowset_open(struct lwm_rowset *s, const struct lwm_loader_cfg *cfg, struct lwm_err *e);
void lwm_rowset_release(struct lwm_rowset *s);
/* Row `row` of a source, 0 <= row < its rows; its shard is opened if it is not. out keeps its memory for the next. */
int lwm_rowset_read(struct lwm_rowset *s, int64_t source, int64_t row, struct lwm_row *out, struct lwm_err *e);

/* One of the two batches: one is the caller's while the other is filled. */
struct lwm_loader_slot {
	struct lwm_batch b;
	int64_t *source_rows; /* [nsources] b's */
	int64_t step, micro;
	enum { LWM_SLOT_EMPTY, LWM_SLOT_WANTED, LWM_SLOT_READY } state;
	int rc;
	struct lwm_err err;
};

/* shares.c: sources whose shares change. One thread at a time. */
struct lwm_shares {
	struct lwm_loader_source *source; /* their weights and points, copied */
	int64_t n, rows;                  /* how many; rows of a step */
	int64_t step;                     /* that the rest is of; -1: none */
	int64_t *before, *count;          /* rows of each source in all steps before it; in it */
	double *owed;
};
/* *out NULL: no share changes. -LWM_ECONFIG: impossible points, a step without a source, or held-out rows. */
int lwm_shares_open(struct lwm_shares **out, const struct lwm_loader_cfg *cfg, struct lwm_err *e);
void lwm_shares_close(struct lwm_shares *m); /* NULL is fine */
void lwm_shares_at(struct lwm_shares *m, int64_t step); /* makes it those of the step */

struct lwm_loader {
	struct lwm_loader_cfg cfg; /* source is NULL */
	struct lwm_loader_info info;
	struct lwm_rowset set;
	double modality[2]; /* w_m of text and vision */
	bool apart;         /* text and vision are told apart */
	struct lwm_loader_held {
		int64_t source, draw;
	} *held; /* [cfg.once] the rows of an evaluation over weighted sources; NULL otherwise */
	double *loss;              /* [nsources] v of each source */
	int64_t *counts, counted;  /* [nsources] rows of each source in step `counted`; -1: none was counted */
	struct lwm_shares *shares; /* NULL: none changes */
	int64_t *slots; /* [nsources] draws of each source in a block of LWM_MIX_BLOCK; NULL: one pool of all rows */
	struct lwm_row row;
	struct lwm_loader_slot slot[2];
	int current; /* the caller's slot */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool running, stop;
};

/* ---- draw.c ---- */

/* How many draws of a block each source has: l->slots. */
int lwm_loader_plan_draws(struct lwm_loader *l, const struct lwm_loader_cfg *cfg, struct lwm_err *e);
/* Rows of each source in a step: counts has room for all. */
void lwm_loader_count_rows(const struct lwm_loader *l, int64_t step, int64_t *counts);
/* Held-out rows: one step of whole microbatches on every rank, with room for all that count. */
int lwm_loader_hold_out(struct lwm_loader *l, struct lwm_err *e);

/* ---- batch.c ---- */

/* Reads the rows of (step, micro) into b, whose arrays are allocated. */
int lwm_loader_fill(struct lwm_loader *l, int64_t step, int64_t micro, struct lwm_batch *b, struct lwm_err *e);

#endif
