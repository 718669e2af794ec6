/* ring_deal.h - which rank of a ring holds which tokens of the rows of a microbatch.
 *
 *	lwm_ring_check(layout, seq, n, e)              mesh.h: before there are rows
 *	lwm_ring_deal_make(&d, layout, rows, seq, segments, n, e)
 *	d.run[d.first[r]] ... d.run[d.first[r + 1] - 1]    what rank r holds, in its local order
 *	lwm_ring_deal_release(&d)
 *
 * Everything is local and pure, in integers: every rank of a ring has the whole rows, deals them by itself and finds what the
 * others find. Memory of a deal is kept from one make to the next.
 *
 * LWM_RING_BALANCED looks at the segments. A token at position p of its document sees p + 1 tokens, itself included; padding sees
 * none. Each rank gets the same number of tokens, which is memory, arithmetic outside attention and collectives, and the same
 * number of visible pairs, which is attention. With c tokens and w pairs for each rank:
 *
 *	1. A rank of one document. A document that has c tokens left gives a rank u tokens from the beginning and c - u from the
 *	   end of what is left of it, where some u makes the pairs w; the longest first, as often as it can. What remains has
 *	   the same mean. One document alone is dealt to its end so: as zigzag deals it.
 *	2. Whole documents, and two that are cut. What is left, in order of its mean pairs per token; ranks start in the middle,
 *	   where that mean is w/c, and go outward. A rank that still wants c' tokens and w' pairs looks at the next document A
 *	   above and B below, of means a and b: it lacks x = (w' - c' b) / (a - b) tokens of A and c' - x of B. One that has
 *	   not so many it takes whole; when both have, it takes these and is done: from the end of A and the beginning of B,
 *	   solved anew for that, or evenly from both ends of each where one end would turn A or B to the other side of the
 *	   mean. So b <= w'/c' <= a from the first to the last, and there is always a solution.
 *
 * w is what is left, divided by the ranks that are left: no error is carried along. Whatever documents there are, a rank cuts two
 * at most. Cuts keep away from ends: GRAIN = max(1, min(256, tokens of a rank / 256)) tokens are left out, or taken with what
 * is beside them, rather than cut off; that is all the balance loses. Shorter pieces are ends of what earlier cuts left.
 * Time O(rows seq + D log D + n log seq), D documents. */
#ifndef LWM_COMM_RING_DEAL_H
#define LWM_COMM_RING_DEAL_H

#include "common/comm/mesh.h"

/* Tokens from, from + step, ... of the microbatch, whose rows lie end to end. */
struct lwm_ring_run {
	int64_t from, count, step;
};

struct lwm_ring_doc;
/* All zeros before the first make. */
struct lwm_ring_deal {
	int n;                    /* ranks */
	int64_t share;            /* tokens of each: rows * seq / n */
	struct lwm_ring_run *run; /* ordered by rank, then by `from`; no two of a rank touch */
	int64_t *first;           /* (n + 1) */
	/* kept between makes */
	struct lwm_ring_doc *docs;
	int64_t docs_cap, run_cap;
	int first_cap;
};

/* segments (rows, seq): runs of equal ones are documents, < 0 is padding; looked at for LWM_RING_BALANCED only. rows * seq below
 * 2^31. -LWM_ECONFIG: what lwm_ring_check says. After a failure the deal is to be released. */
int lwm_ring_deal_make(struct lwm_ring_deal *d, enum lwm_ring_layout layout, int64_t rows, int64_t seq, const int32_t *segments,
		       int n, struct lwm_err *e);
void lwm_ring_deal_release(struct lwm_ring_deal *d);

#endif
