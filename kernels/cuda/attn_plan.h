/* attn_plan.h - tile schedules of attention: which tiles of keys a tile of queries meets, and which of those need the mask.
 *
 * Host code in plain C. A tile of queries i holds tokens [i * bq, min((i + 1) * bq, n)) in the order of the sequence, a tile
 * of keys likewise. Of a pair of tiles the schedule says one of three things:
 *   absent       no query of the one sees a key of the other: the tile is never loaded
 *   run, mask 0  every query that exists sees every key, and the tile of keys is whole (by_key 0 and 1 alike): no mask
 *   run, mask 1  anything else: each pair of tokens is tested
 * "Absent" is decided from smallest and largest position and segment of the tiles, so a pair may be listed though nothing in
 * it is seen, never the other way round.
 */
#ifndef LK_CUDA_ATTN_PLAN_H
#define LK_CUDA_ATTN_PLAN_H

#include "kernels/kernels_int.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Tiles [first, end) of the other side, ascending and apart within one list. */
struct lk_sched_run {
	int32_t first, end, mask, pairs; /* pairs: end - first */
};

struct lk_sched {
	int64_t tiles, nruns;
	int64_t pairs;             /* pairs of tiles to be worked on, of all */
	int joined;                /* 1: a list got so long that it also names tiles of which nothing is seen */
	int32_t *start;            /* tiles + 1: runs of tile i are runs[start[i] .. start[i + 1]) */
	int32_t *order;            /* all tiles, those with most pairs first, lower number first on ties */
	struct lk_sched_run *runs;
};

/* by_key 0: lists for tiles of queries; 1: lists for tiles of keys. LK_ENOMEM: nothing is left to free. Time grows with the
 * tiles of one side times the sixty-fourth of the other, and with the length of the lists. */
int lk_sched_make(struct lk_sched *s, const struct lk_seq *q, const struct lk_seq *k, int causal, int bq, int bk,
		  int by_key);
void lk_sched_free(struct lk_sched *s);

#ifdef __cplusplus
}
#endif

#endif
