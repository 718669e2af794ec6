/* cut.h - which stretches of a model's flat vector a rank owns when weights, gradients and state are cut over ranks.
 *
 * Two cuts, one after the other. `shards` ranks share each group of tensors (a layer, the embeddings: what is fetched together):
 * its stretch of the vector is padded and cut into equal slices, one for each of them. What one of them has of all groups lies
 * end to end in a local vector. `replicas` ranks have the same slices; each of them owns the optimizer's state of an equal piece
 * of that local vector:
 *
 *	flat     |  group 0: shard 0 | shard 1 |  group 1: shard 0 | shard 1 | ...
 *	local    |  group 0 | group 1 | ... | padding         `local` elements, of one shard
 *	state    |  replica 0   |  replica 1   |              `count` elements each, from `first` of the local vector on
 *
 * With one shard nothing is cut by group: the local vector is the flat one, padded, and this is ZeRO stage 1. With several it is
 * ZeRO stage 3 (FSDP), and with replicas too the hybrid of both (Rajbhandari et al. 2020; Zhao et al. 2023). A tensor lies in one
 * group, so that a rank owns one stretch of it at most.
 *
 *	struct lwm_cut c;
 *	lwm_cut_new(&c, &table, shards, replicas, e);       on each rank the same
 *	struct lwm_cut mine = lwm_cut_of(&c, rank);          rank = replica * shards + shard
 *	if (lwm_cut_own(&mine, &table.list[i], &from, &n, &at))    flat [from, from + n) of tensor i, element `at` of the state on
 *	lwm_cut_release(&c);
 *
 * Where some tensors are frozen, what only trained ones have (moments, averages) takes no room for the others: in vectors of
 * `trained` elements the own stretches of trainable tensors lie end to end, in the order of the table:
 *
 *	state    | embed | layer 0: q, k, v | norm | layer 1: ...    weights, `count` elements; q and v train
 *	trained  | q | v | q | v | ... padding                       `trained` elements, the same number on each rank
 *
 * Of one piece of the local vector a replica might train all and another nothing. So with frozen tensors the replicas share each
 * stretch of neighbours that train, of matrices that have adapters, and of those that stay as they are, by itself:
 *
 *	local    | embed | layer 0: q k v o | gate up down norm | layer 1: ...
 *	state    r of R: the r-th of R equal slices of each stretch, end to end
 *
 * What follows (tensor.h) is cut as what it follows is, stretch for stretch: the replica that owns a piece owns the copy of it too.
 *
 * A stretch is exchanged as R slices of a multiple of 16 elements, which may go beyond its end, into the next ones: what lies there
 * is theirs. Weights are gathered from the last stretch to the first, so that what is brought of others is the same everywhere.
 *
 * Pure functions but for the list of groups: any rank can ask for any other.
 */
#ifndef LWM_TENSOR_CUT_H
#define LWM_TENSOR_CUT_H

#include "common/tensor/tensor.h"

struct lwm_cut_group {
	int64_t offset, count; /* its stretch of the flat vector */
	int64_t slice;         /* of each shard: shards * slice >= count */
	int64_t at;            /* of this slice in the local vector */
};
struct lwm_cut_stretch {
	int64_t at, count;  /* of the local vector */
	int64_t slice;      /* of each replica: replicas * slice >= count, and lies in the local vector */
	int64_t state;      /* of this slice in the state */
	bool moves;         /* gradients are summed, and weights change: it trains, or has adapters */
	bool follows;       /* weights change alone: what they follow moves */
};
struct lwm_cut {
	int shards, replicas;
	int shard, replica;    /* of this rank */
	int64_t local;         /* elements of the local vector: a multiple of 16 * replicas */
	int64_t first, count;  /* the piece of it whose state this rank owns; spread: 0, and of the shard with most */
	bool frozen;           /* some tensors are */
	bool packed;           /* and take no room among moments and averages */
	int64_t trained;       /* elements of these: of the rank that trains most, a multiple of 16; not packed: count */
	int64_t n;             /* groups */
	struct lwm_cut_group *group;
	bool spread;           /* replicas share stretch by stretch: some tensors are frozen, and there are several */
	int64_t *begin;        /* spread: of each shard the number of its first stretch, and the end of the last one's */
	struct lwm_cut_stretch *stretch;
};

/* That of rank 0. Groups are those of the table, numbered from 0 without gaps; with one shard all of it is one. Slices begin on 64
 * bytes of fp32. -LWM_EMEMORY. */
int lwm_cut_new(struct lwm_cut *c, const struct lwm_tensors *t, int shards, int replicas, struct lwm_err *e);
void lwm_cut_release(struct lwm_cut *c);
/* The same as seen by `rank` of shards * replicas; shares the lists with c, and is not released. */
struct lwm_cut lwm_cut_of(const struct lwm_cut *c, int rank);
/* The local vector of this rank's shard as if no replicas shared it: `at` of lwm_cut_own is then its element. Likewise. */
struct lwm_cut lwm_cut_alone(const struct lwm_cut *c);

/* What this rank owns the state of: flat elements [*from, *from + *n), of tensor t or (where nothing is spread) of group g, which
 * are those from *at on of its `count`. false: nothing of it. Of what it owns of a tensor *at grows with the table. */
bool lwm_cut_own(const struct lwm_cut *c, const struct lwm_tensor *t, int64_t *from, int64_t *n, int64_t *at);
bool lwm_cut_own_group(const struct lwm_cut *c, int64_t g, int64_t *from, int64_t *n, int64_t *at);
/* The stretches that replicas share one by one, of this shard: one, of the whole local vector, where nothing is spread. */
int64_t lwm_cut_stretches(const struct lwm_cut *c);
struct lwm_cut_stretch lwm_cut_stretch(const struct lwm_cut *c, int64_t i);
/* Of a stretch what this replica owns, less than a slice at the end; 0: nothing. */
int64_t lwm_cut_owned(const struct lwm_cut *c, const struct lwm_cut_stretch *s);
/* The element of the local vector that is element `at` of the state. */
int64_t lwm_cut_place(const struct lwm_cut *c, int64_t at);
/* Elements of all own slices that move, of all that follow; of the longest stretch, replicas * slice. */
int64_t lwm_cut_moving(const struct lwm_cut *c);
int64_t lwm_cut_following(const struct lwm_cut *c);
int64_t lwm_cut_longest(const struct lwm_cut *c);
/* Where among the moments the n own elements lie of tensor t, which are those of the state from `at` on; -1: t is frozen. Tensors
 * are asked for in the order of the table, of which the rank owns something; *next: 0 before the first, kept between them. */
int64_t lwm_cut_trained(const struct lwm_cut *c, const struct lwm_tensor *t, int64_t at, int64_t n, int64_t *next);
/* Elements of the largest group, padded: shards * slice. */
int64_t lwm_cut_largest(const struct lwm_cut *c);

#endif
