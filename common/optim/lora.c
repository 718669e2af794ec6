/* lora.c - what a rank owns of a matrix, in blocks of whole rows and parts of one: products with the adapters of these rows and
 * columns. */
#include "common/optim/lora.h"

#include <inttypes.h>
#include <string.h>

#include "common/comm/device.h"
#include "common/tensor/range.h"

enum { ROWS = 1 << 18 }; /* elements of B A at a time, or one row */

static int64_t smaller_of(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Where adapters begin in the flat vector, how many elements they have, and rows of the widest matrix. */
static void measure(const struct lwm_tensors *t, int64_t *first, int64_t *n, int64_t *rows)
{
	*first = *n = *rows = 0;
	for (int64_t i = 0; i < t->n; i++) {
		const struct lwm_tensor *q = &t->list[i];

		if (!q->adapts)
			continue;
		if (!*n)
			*first = q->offset;
		*n = q->offset + q->count - *first;
		const struct lwm_tensor *matrix = &t->list[q->adapts - 1];
		int64_t most = matrix->shape[1] > ROWS ? matrix->shape[1] : smaller_of(ROWS, matrix->count);
		*rows = most > *rows ? most : *rows;
	}
}

int64_t lwm_lora_values(const struct lwm_tensors *t)
{
	int64_t first, n, rows;

	measure(t, &first, &n, &rows);
	return n;
}

int64_t lwm_lora_matrix(const struct lwm_tensors *t, int64_t *all)
{
	int64_t most = 0;

	*all = 0;
	for (int64_t i = 0; i < t->n; i++)
		if (t->list[i].adapted) {
			most = t->list[i].count > most ? t->list[i].count : most;
			*all += t->list[i].count;
		}
	return most;
}

/* Does every one of tp ranks have all of adapter q, of a matrix that they have parts of? */
static bool is_shared(const struct lwm_tensors *t, const struct lwm_tensor *q)
{
	return q->adapts && q->split == LWM_SPLIT_NONE && t->list[q->adapts - 1].split != LWM_SPLIT_NONE;
}

int64_t lwm_lora_shared(const struct lwm_tensors *t, int tp)
{
	int64_t n = 0;

	for (int64_t i = 0; tp > 1 && i < t->n; i++)
		n += is_shared(t, &t->list[i]) ? t->list[i].count : 0;
	return n;
}

int64_t lwm_lora_bytes(const struct lwm_tensors *t, int tp, bool whole, const struct lk_dev *dev)
{
	int64_t all, n[5] = { 0, 0, 0, whole ? lwm_lora_matrix(t, &all) : 0, lwm_lora_shared(t, tp) }, first, sum = 0;

	measure(t, &first, &n[0], &n[2]);
	n[1] = n[0];
	for (int i = 0; i < 5; i++)
		sum += !n[i] ? 0 : dev ? lk_mem_own(dev, n[i] * 4) : n[i] * 4;
	return sum;
}

static int take_floats(const struct lwm_lora *l, int64_t n, float **out, struct lwm_err *e)
{
	void *p;

	if (lk_mem_alloc(l->w->dev, (size_t)n * 4, &p))
		return lwm_fail(e, LWM_EMEMORY, "%s: no room for adapters of %" PRId64 " values", lk_dev_name(l->w->dev), n);
	*out = p;
	return 0;
}

int lwm_lora_new(struct lwm_lora *l, const struct lwm_weights *w, const struct lwm_tensors *t, const struct lwm_lora_how *how,
		 struct lwm_err *e)
{
	int64_t all, shared = lwm_lora_shared(t, how->tp ? 2 : 1);
	int rc;

	*l = (struct lwm_lora){ .w = w, .t = t, .how = *how, .scale = (float)how->scale };
	measure(t, &l->first, &l->n, &l->nrows);
	rc = take_floats(l, l->n, &l->all, e);
	if (rc == 0)
		rc = take_floats(l, l->n, &l->grad, e);
	if (rc == 0)
		rc = take_floats(l, l->nrows, &l->rows, e);
	if (rc == 0 && how->whole)
		rc = take_floats(l, lwm_lora_matrix(t, &all), &l->matrix, e);
	if (rc == 0 && shared)
		rc = take_floats(l, shared, &l->shared, e);
	if (rc < 0)
		lwm_lora_release(l);
	return rc;
}

void lwm_lora_release(struct lwm_lora *l)
{
	if (!l->w)
		return;
	lk_mem_free(l->w->dev, l->all);
	lk_mem_free(l->w->dev, l->grad);
	lk_mem_free(l->w->dev, l->rows);
	lk_mem_free(l->w->dev, l->matrix);
	lk_mem_free(l->w->dev, l->shared);
	memset(l, 0, sizeof *l);
}

static int checked(const struct lwm_lora *l, int rc, struct lwm_err *e)
{
	return lwm_dev_check(l->w->dev, rc, e);
}

/* The sum over the ranks, each of which has a part, unless one of them failed. */
static int sum_over_ranks(struct lwm_lora *l, float *p, int64_t n, int rc, struct lwm_err *e)
{
	LWM_TRY(lwm_agree(l->w->ranks, rc, e));
	return l->how.ranks ? lwm_devcomm_sum_f32(l->how.ranks, p, n, e) : 0;
}

/* Own adapters between a vector of the own piece and one of all. */
static int copy_own(struct lwm_lora *l, float *piece, float *all, bool out, struct lwm_err *e)
{
	int64_t from, n, at;

	for (int64_t i = 0; i < l->t->n; i++) {
		if (!l->t->list[i].adapts || !lwm_cut_own(&l->w->cut, &l->t->list[i], &from, &n, &at))
			continue;
		float *a = piece + at, *b = all + (from - l->first);
		LWM_TRY(checked(l, lk_copy(l->w->dev, out ? b : a, out ? a : b, (size_t)n * 4), e));
	}
	return 0;
}

static int gather_adapters(struct lwm_lora *l, struct lwm_err *e)
{
	int rc = checked(l, lk_zero(l->w->dev, l->all, (size_t)l->n * 4), e);

	if (rc == 0)
		rc = copy_own(l, l->w->master, l->all, true, e);
	return sum_over_ranks(l, l->all, l->n, rc, e);
}

/* ---- blocks ---- */

/* rows x cols of a matrix from (row, col) on, which lie dense, or are one row. a, b: its adapters. */
struct block {
	int64_t row, rows, col, cols;
	const struct lwm_tensor *matrix, *a, *b;
};
typedef int block_fn(struct lwm_lora *l, const struct block *k, struct lwm_err *e);

/* A (rank, cols) from column col on, B (rows, rank) from row `row` on, of a vector of all adapters. */
static struct lk_view part_of_a(const struct lwm_lora *l, const struct block *k, float *all)
{
	struct lk_view y = lk_view2(all + (k->a->offset - l->first) + k->col, LK_F32, k->a->shape[0], k->cols);

	y.stride[0] = k->a->shape[1];
	return y;
}

static struct lk_view part_of_b(const struct lwm_lora *l, const struct block *k, float *all)
{
	int64_t rank = k->b->shape[1];

	return lk_view2(all + (k->b->offset - l->first) + k->row * rank, LK_F32, k->rows, rank);
}

/* Each matrix that has adapters, with them. */
static int walk_all(struct lwm_lora *l, block_fn *fn, struct lwm_err *e)
{
	for (int64_t i = 0; i + 1 < l->t->n; i++) {
		const struct lwm_tensor *a = &l->t->list[i], *b = a + 1;

		if (a->adapts && b->adapts == a->adapts)
			LWM_TRY(fn(l, &(struct block){ .matrix = &l->t->list[a->adapts - 1], .a = a, .b = b }, e));
	}
	return 0;
}

/* Own elements [*lo, *hi) of a matrix, element *at of the own piece on; false: none. */
static bool own_elements(const struct lwm_lora *l, const struct lwm_tensor *matrix, int64_t *lo, int64_t *hi, int64_t *at)
{
	int64_t from, n;

	if (!lwm_cut_own(&l->w->cut, matrix, &from, &n, at))
		return false;
	*lo = from - matrix->offset;
	*hi = *lo + n;
	return true;
}

/* dB += scale D A^T, dA += scale B^T D, of the block that lies at d. */
static int add_block(struct lwm_lora *l, const struct block *k, float *lies, struct lwm_err *e)
{
	struct lk_view d = lk_view2(lies, LK_F32, k->rows, k->cols);
	struct lk_view a = part_of_a(l, k, l->all), b = part_of_b(l, k, l->all);
	struct lk_view da = part_of_a(l, k, l->grad), db = part_of_b(l, k, l->grad);

	LWM_TRY(checked(l, lk_matmul(l->w->dev, &db, &d, &a, LK_TB | LK_ACC, l->scale), e));
	return checked(l, lk_matmul(l->w->dev, &da, &b, &d, LK_TA | LK_ACC, l->scale), e);
}

/* Of own elements: parts of the first and the last row, whole rows in between. */
static int add_own(struct lwm_lora *l, const struct block *of, struct lwm_err *e)
{
	int64_t cols = of->matrix->shape[1], most = l->nrows / cols, lo, hi, at;
	struct block k = *of;

	if (!own_elements(l, k.matrix, &lo, &hi, &at))
		return 0;
	while (lo < hi) {
		k.row = lo / cols;
		k.col = lo % cols;
		k.cols = smaller_of(cols - k.col, hi - lo);
		k.rows = k.cols < cols ? 1 : smaller_of(most, (hi - lo) / cols);
		LWM_TRY(add_block(l, &k, l->w->slice + at, e));
		lo += k.rows * k.cols;
		at += k.rows * k.cols;
	}
	return 0;
}

/* Gradients of a whole matrix: own elements of it to their places, zeros elsewhere, summed; then all in one product. */
static int add_whole(struct lwm_lora *l, const struct block *of, struct lwm_err *e)
{
	struct block k = *of;
	const struct lwm_tensor *q = k.matrix;
	int64_t lo, hi, at;
	int rc = checked(l, lk_zero(l->w->dev, l->matrix, (size_t)q->count * 4), e);

	if (rc == 0 && own_elements(l, q, &lo, &hi, &at))
		rc = checked(l, lk_copy(l->w->dev, l->matrix + lo, l->w->slice + at, (size_t)(hi - lo) * 4), e);
	LWM_TRY(sum_over_ranks(l, l->matrix, q->count, rc, e));
	k.rows = q->shape[0];
	k.cols = q->shape[1];
	return add_block(l, &k, l->matrix, e);
}

/* Does this rank add its part of what tp ranks sum? Of ranks that hold the same part, whose D is the same, one does. */
static bool speaks(const struct lwm_lora *l, const struct lwm_tensor *q)
{
	int tp = lwm_comm_size(lwm_devcomm_comm(l->how.tp)), rank = lwm_comm_rank(lwm_devcomm_comm(l->how.tp));

	return rank % lwm_part_copies(&l->how.model->list[q->adapts - 1], tp) == 0;
}

/* The gradients of adapters that all tp ranks have. */
static int sum_shared(struct lwm_lora *l, struct lwm_err *e)
{
	struct lk_dev *dev = l->w->dev;
	int64_t n = lwm_lora_shared(l->t, 2), at = 0;
	int rc = checked(l, lk_zero(dev, l->shared, (size_t)n * 4), e);

	for (int out = 0; out < 2; out++, at = 0) {
		for (int64_t i = 0; i < l->t->n; i++) {
			const struct lwm_tensor *q = &l->t->list[i];
			float *grad = l->grad + (q->offset - l->first), *here = l->shared + at;

			if (!is_shared(l->t, q))
				continue;
			if (rc == 0 && (out || speaks(l, q)))
				rc = checked(l, lk_copy(dev, out ? grad : here, out ? here : grad, (size_t)q->count * 4), e);
			at += q->count;
		}
		if (!out) {
			LWM_TRY(lwm_agree(l->w->ranks, rc, e));
			LWM_TRY(lwm_devcomm_sum_f32(l->how.tp, l->shared, n, e));
		}
	}
	return lwm_agree(l->w->ranks, rc, e);
}

int lwm_lora_gradients(struct lwm_lora *l, struct lwm_err *e)
{
	int rc = checked(l, lk_zero(l->w->dev, l->grad, (size_t)l->n * 4), e);

	if (l->how.whole) {
		LWM_TRY(lwm_agree(l->w->ranks, rc, e));
		LWM_TRY(walk_all(l, add_whole, e));
	} else {
		if (rc == 0)
			rc = walk_all(l, add_own, e);
		LWM_TRY(sum_over_ranks(l, l->grad, l->n, rc, e));
	}
	if (l->shared)
		LWM_TRY(sum_shared(l, e));
	return lwm_agree(l->w->ranks, copy_own(l, l->w->slice, l->grad, false, e), e);
}

/* W + scale B A, rounded once, of own elements [lo, hi) of a matrix: by blocks of whole rows that lie where they lie for everyone,
 * for what a product gives may depend on its shape. */
static int set_compute(struct lwm_lora *l, const struct block *of, struct lwm_err *e)
{
	const struct lwm_weights *w = l->w;
	int64_t cols = of->matrix->shape[1], most = l->nrows / cols, lo, hi, own;
	struct block k = *of;

	if (!own_elements(l, k.matrix, &lo, &hi, &own))
		return 0;
	k.cols = cols;
	for (k.row = lo / cols / most * most; k.row * cols < hi; k.row += most) {
		k.rows = smaller_of(most, k.matrix->shape[0] - k.row);
		struct lk_view a = part_of_a(l, &k, l->all), b = part_of_b(l, &k, l->all);
		struct lk_view product = lk_view2(l->rows, LK_F32, k.rows, cols);
		int64_t first = k.row * cols, from = lo > first ? lo : first, n = smaller_of(hi, first + k.rows * cols) - from;
		int64_t at = own + from - lo;
		char *to = (char *)w->compute + (size_t)lwm_cut_place(&w->cut, at) * lk_dtype_size(w->dtype);
		struct lk_view sum = lk_view1(l->rows + (from - first), LK_F32, n), base = lk_view1(w->master + at, LK_F32, n);
		struct lk_view y = lk_view1(to, w->dtype, n);

		LWM_TRY(checked(l, lk_matmul(w->dev, &product, &b, &a, 0, l->scale), e));
		LWM_TRY(checked(l, lk_axpy(w->dev, &sum, 1, &base), e));
		LWM_TRY(checked(l, lk_cast(w->dev, &y, &sum), e));
	}
	return 0;
}

int lwm_lora_apply(struct lwm_lora *l, struct lwm_err *e)
{
	LWM_TRY(gather_adapters(l, e));
	return lwm_agree(l->w->ranks, walk_all(l, set_compute, e), e);
}
