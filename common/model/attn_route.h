/* attn_route.h - which rows of keys and values each rank of a ring needs of each other.
 *
 *	lwm_route_make(&r, ranks, rank, n, pos, seg, stride, causal, e)  for each batch; memory is kept from one to the next
 *	lwm_route_seen(&r, q, k)                                         rows of rank k that rank q sees
 *	r.run[r.first[q]] ... and r.run[r.first[ranks + k]] ...          those of this rank that q sees; of k, that this one sees
 *	lwm_route_release(&r)
 *
 * Local, host only, exact: a row belongs to it when one token at least sees it (kernels/attention.h says who does). All ranks make
 * the same of it, so that senders and receivers agree without asking. Time O(ranks^2 P log P), P stretches of one document on a
 * rank; ascending positions make few of them. */
#ifndef LWM_MODEL_ATTN_ROUTE_H
#define LWM_MODEL_ATTN_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

/* Rows from, from + 1, ... of a rank's n. */
struct lwm_route_run {
	int64_t from, count;
};

/* All zeros before the first make. */
struct lwm_route {
	int ranks, rank;
	int64_t *seen;        /* (ranks, ranks), by lwm_route_seen */
	struct lwm_route_run *run; /* in rising order for each rank */
	int64_t *first;       /* (2 ranks + 1); of this rank itself none */
	int64_t run_cap;      /* kept between makes */
};

/* pos + r * stride, seg + r * stride: positions and segments (n) of rank r. */
int lwm_route_make(struct lwm_route *r, int ranks, int rank, int64_t n, const int32_t *pos, const int32_t *seg, int64_t stride,
		   bool causal, struct lwm_err *e);
void lwm_route_release(struct lwm_route *r);

static inline int64_t lwm_route_seen(const struct lwm_route *r, int q, int k)
{
	return r->seen[q * r->ranks + k];
}

#endif
