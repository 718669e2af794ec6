/* fold.h - a checkpoint with adapters of low rank (tensor/adapter.h), read as the model that it trains: to each matrix W that has
 * them scale B A is added.
 *
 *	lwm_fold_open(&f, ckpt, e)                       scale and pairs, from its record
 *	lwm_fold_read(&f, group, i, offset, n, out, e)   values of tensor i; of one without adapters as lwm_ckpt_read has them
 *	lwm_fold_close(&f)
 *
 * Each value is W + the sum of `rank` products, added up in double precision and rounded once. Local; one thread. */
#ifndef LWM_IO_FOLD_H
#define LWM_IO_FOLD_H

#include "common/io/ckpt.h"

struct lwm_fold {
	struct lwm_ckpt *c; /* borrowed */
	bool any;           /* it has adapters */
	double scale;
	/* of the matrix that was read last */
	int64_t matrix;     /* -1: none */
	enum lwm_ckpt_group group;
	int64_t rank, cols;
	float *a, *b;       /* (rank, cols), (rows, rank) */
};

/* -LWM_EDATA: the record does not say what its adapters are multiplied by. */
int lwm_fold_open(struct lwm_fold *f, struct lwm_ckpt *c, struct lwm_err *e);
void lwm_fold_close(struct lwm_fold *f); /* of zeros is fine */
/* As lwm_ckpt_read. -LWM_EDATA: adapters whose shapes do not fit their matrix; -LWM_EMEMORY: they are kept while their matrix is
 * read. */
int lwm_fold_read(struct lwm_fold *f, enum lwm_ckpt_group g, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e);

#endif
