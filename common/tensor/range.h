/* range.h - which values of a tensor a rank holds, for any mesh, and back.
 *
 * Weights are cut twice. Tensor parallelism cuts each tensor along its own dimension (`split`): rank r of n holds its r-th part,
 * dense and row-major, and the whole of a tensor that is not split. A tensor of fewer `parts` than ranks is cut into those, and
 * neighbouring ranks hold the same one (key heads that queries of several ranks share). What one rank of it then holds, end to
 * end as lwm_tensors_local lays it out, is a flat vector of its own, which the ranks that share it cut once more (cut.h).
 *
 *	struct lwm_tensors local;                                   what each of n tensor-parallel ranks has
 *	lwm_tensors_local(&local, &table, n, e);
 *	if (lwm_cut_own(&cut, &local.list[i], &from, &m, &at))        what a rank owns of each tensor
 *		runs = lwm_part_runs(&table.list[i], r, n, from - local.list[i].offset, m, run);   as elements of the whole tensor
 *
 * With n = 1 the local table is the table. Pure functions: any rank can ask for any other.
 */
#ifndef LWM_TENSOR_RANGE_H
#define LWM_TENSOR_RANGE_H

#include "common/tensor/tensor.h"

/* The elements of t that lie in [first, first + count) of the flat vector: *from (of the vector) and *n; false: none do. */
bool lwm_tensor_overlap(const struct lwm_tensor *t, int64_t first, int64_t count, int64_t *from, int64_t *n);

/* ---- parts of a tensor ---- */

/* `count` runs of `run` elements, the k-th at offset + k * stride of the flattened tensor. */
struct lwm_run {
	int64_t offset, run, count, stride;
};
enum { LWM_RUNS = 3 }; /* most that make up a range of a part: the end of one run, whole ones, the start of one */

/* Can tensor parallelism of n ranks cut it? A split dimension must divide by n, whole heads where it is rotated; one of limited
 * parts must have a multiple of n of them, or n must be a multiple of the parts. */
bool lwm_part_fits(const struct lwm_tensor *t, int n);
/* Elements that rank r of n holds, r being any. */
int64_t lwm_part_size(const struct lwm_tensor *t, int n);
/* Ranks of n that hold the same part: 1, or n of a tensor that is not split, or what `parts` makes of it. They are neighbours. */
int lwm_part_copies(const struct lwm_tensor *t, int n);
/* The elements [from, from + count) of the part of rank r of n as runs of the whole tensor, in order. Returns how many: at most
 * LWM_RUNS, 0 for a count of 0. */
int lwm_part_runs(const struct lwm_tensor *t, int r, int n, int64_t from, int64_t count, struct lwm_run run[LWM_RUNS]);
/* Back: the rank of n that holds element i of the whole tensor, and where in its part; the first of them where several do. */
int lwm_part_of(const struct lwm_tensor *t, int n, int64_t i, int64_t *at);
/* The table of what each of n ranks holds: the same tensors with their own shapes, end to end. -LWM_ECONFIG names one that cannot
 * be cut. */
int lwm_tensors_local(struct lwm_tensors *out, const struct lwm_tensors *p, int n, struct lwm_err *e);

#endif
