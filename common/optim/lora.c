/* lora.c - what a rank owns of a matrix, in blocks of whole rows and parts of one: products with the adapters of these rows and
 * columns. */
#include "common/optim/lora.h"

#include <inttypes.h>
#include <string.h>

#include "common/comm/device.h"

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

int64_t lwm_lora_bytes(const struct lwm_tensors *t, const struct lk_dev *dev)
{
	int64_t first, n, rows;

	measure(t, &first, &n, &rows);
	return dev ? 2 * lk_mem_own(dev, n * 4) + lk_mem_own(dev, rows * 4) : 4 * (2 * n + rows);
}

static int take_floats(const struct lwm_lora *l, int64_t n, float **out, struct lwm_err *e)
{
	void *p;

	if (lk_mem_alloc(l->w->dev, (size_t)n * 4, &p))
		return lwm_fail(e, LWM_EMEMORY, "%s: no room for adapters of %" PRId64 " values", lk_dev_name(l->w->dev), n);
	*out = p;
	return 0;
}

int lwm_lora_new(struct lwm_lora *l, const struct lwm_weights *w, const struct lwm_tensors *t, struct lwm_devcomm *ranks,
		 double scale, struct lwm_err *e)
{
	int rc;

	*l = (struct lwm_lora){ .w = w, .t = t, .ranks = ranks, .scale = (float)scale };
	measure(t, &l->first, &l->n, &l->nrows);
	rc = take_floats(l, l->n, &l->all, e);
	if (rc == 0)
		rc = take_floats(l, l->n, &l->grad, e);
	if (rc == 0)
		rc = take_floats(l, l->nrows, &l->rows, e);
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
	memset(l, 0, sizeof *l);
}

static int checked(const struct lwm_lora *l, int rc, struct lwm_err *e)
{
	return lwm_dev_check(l->w->dev, rc, e);
}

/* The sum over the ranks, each of which has a part, unless one of them failed. */
static int sum_over_ranks(struct lwm_lora *l, float *p, int rc, struct lwm_err *e)
{
	LWM_TRY(lwm_agree(l->w->ranks, rc, e));
	return l->ranks ? lwm_devcomm_sum_f32(l->ranks, p, l->n, e) : 0;
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
	return sum_over_ranks(l, l->all, rc, e);
}

/* ---- blocks ---- */

/* rows x cols of a matrix from (row, col) on, which lie dense, or are one row: element `at` of the own piece on. a, b: its
 * adapters. */
struct block {
	int64_t row, rows, col, cols, at;
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

/* The own elements [lo, hi) of a matrix of `cols` columns: parts of the first and the last row, whole rows in between. */
static int walk_matrix(struct lwm_lora *l, struct block k, int64_t lo, int64_t hi, block_fn *fn, struct lwm_err *e)
{
	int64_t cols = k.matrix->shape[1], most = l->nrows / cols;

	while (lo < hi) {
		k.row = lo / cols;
		k.col = lo % cols;
		k.cols = smaller_of(cols - k.col, hi - lo);
		k.rows = k.cols < cols ? 1 : smaller_of(most, (hi - lo) / cols);
		LWM_TRY(fn(l, &k, e));
		lo += k.rows * k.cols;
		k.at += k.rows * k.cols;
	}
	return 0;
}

static int walk_all(struct lwm_lora *l, block_fn *fn, struct lwm_err *e)
{
	int64_t from, n, at;

	for (int64_t i = 0; i + 1 < l->t->n; i++) {
		const struct lwm_tensor *a = &l->t->list[i], *b = a + 1;

		if (!a->adapts || b->adapts != a->adapts)
			continue;
		const struct lwm_tensor *matrix = &l->t->list[a->adapts - 1];
		if (lwm_cut_own(&l->w->cut, matrix, &from, &n, &at))
			LWM_TRY(walk_matrix(l, (struct block){ .at = at, .matrix = matrix, .a = a, .b = b }, from - matrix->offset,
					    from - matrix->offset + n, fn, e));
	}
	return 0;
}

/* dB += scale D A^T, dA += scale B^T D. */
static int add_gradients(struct lwm_lora *l, const struct block *k, struct lwm_err *e)
{
	struct lk_view d = lk_view2(l->w->slice + k->at, LK_F32, k->rows, k->cols);
	struct lk_view a = part_of_a(l, k, l->all), b = part_of_b(l, k, l->all);
	struct lk_view da = part_of_a(l, k, l->grad), db = part_of_b(l, k, l->grad);

	LWM_TRY(checked(l, lk_matmul(l->w->dev, &db, &d, &a, LK_TB | LK_ACC, l->scale), e));
	return checked(l, lk_matmul(l->w->dev, &da, &b, &d, LK_TA | LK_ACC, l->scale), e);
}

int lwm_lora_gradients(struct lwm_lora *l, struct lwm_err *e)
{
	int rc = checked(l, lk_zero(l->w->dev, l->grad, (size_t)l->n * 4), e);

	if (rc == 0)
		rc = walk_all(l, add_gradients, e);
	LWM_TRY(sum_over_ranks(l, l->grad, rc, e));
	return lwm_agree(l->w->ranks, copy_own(l, l->w->slice, l->grad, false, e), e);
}

/* W + scale B A, rounded once. */
static int set_compute(struct lwm_lora *l, const struct block *k, struct lwm_err *e)
{
	const struct lwm_weights *w = l->w;
	int64_t n = k->rows * k->cols;
	char *to = (char *)w->compute + (size_t)lwm_cut_place(&w->cut, k->at) * lk_dtype_size(w->dtype);
	struct lk_view a = part_of_a(l, k, l->all), b = part_of_b(l, k, l->all);
	struct lk_view product = lk_view2(l->rows, LK_F32, k->rows, k->cols), sum = lk_view1(l->rows, LK_F32, n);
	struct lk_view base = lk_view1(w->master + k->at, LK_F32, n), y = lk_view1(to, w->dtype, n);

	LWM_TRY(checked(l, lk_matmul(w->dev, &product, &b, &a, 0, l->scale), e));
	LWM_TRY(checked(l, lk_axpy(w->dev, &sum, 1, &base), e));
	return checked(l, lk_cast(w->dev, &y, &sum), e);
}

int lwm_lora_apply(struct lwm_lora *l, struct lwm_err *e)
{
	LWM_TRY(gather_adapters(l, e));
	return lwm_agree(l->w->ranks, walk_all(l, set_compute, e), e);
}
