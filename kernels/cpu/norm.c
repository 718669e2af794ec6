/* norm.c - RMS norm and SwiGLU over the rows of a batch (formulas: ref/norm.c): threads take rows, norm.hot.c does one. */
#include <inttypes.h>
#include <string.h>

#include "kernels/cpu/dense_int.h"

static int rmsnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *rstd, const struct lk_view *x,
		       const struct lk_view *delta, const struct lk_view *w, float eps)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t rows = x->n[0], d = x->n[1];

#pragma omp parallel for num_threads(lk_threads_for(dev, rows * d)) schedule(static)
	for (int64_t t = 0; t < rows; t++)
		hot->rms_fwd(lk_row(y, t), rstd + t, lk_row(x, t), delta ? lk_row(delta, t) : NULL, w->data, d, eps);
	return 0;
}

/* dw is summed over at most 64 fixed groups of rows, then over the groups in order: the same for any threads. */
static int rmsnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dw, const struct lk_view *dy,
		       const struct lk_view *x, const struct lk_view *w, const float *rstd)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t rows = x->n[0], d = x->n[1], group = (rows + 63) / 64, groups;
	float *part;

	group = group < 16 ? 16 : group;
	groups = (rows + group - 1) / group;
	part = lk_cpu_scratch(dev, (size_t)(groups * d) * sizeof *part);
	if (!part)
		return lk_fail(dev, LK_ENOMEM, "rmsnorm_bwd: no memory for %" PRId64 " partial sums", groups * d);
#pragma omp parallel for num_threads(lk_threads_for(dev, rows * d)) schedule(static)
	for (int64_t i = 0; i < groups; i++) {
		int64_t end = (i + 1) * group < rows ? (i + 1) * group : rows;

		memset(part + i * d, 0, (size_t)d * sizeof *part);
		for (int64_t t = i * group; t < end; t++)
			hot->rms_bwd(lk_row(dx, t), part + i * d, lk_row(dy, t), lk_row(x, t), w->data, rstd[t], d);
	}
	for (int64_t i = 0; i < groups; i++)
		hot->axpy(dw, 1.0f, part + i * d, d);
	return 0;
}

static int swiglu_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *g, const struct lk_view *u)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t rows = y->n[0], f = y->n[1];

#pragma omp parallel for num_threads(lk_threads_for(dev, rows * f)) schedule(static)
	for (int64_t t = 0; t < rows; t++)
		hot->swiglu_fwd(lk_row(y, t), lk_row(g, t), lk_row(u, t), f);
	return 0;
}

static int swiglu_bwd(struct lk_dev *dev, const struct lk_view *dg, const struct lk_view *du, const struct lk_view *dy,
		      const struct lk_view *g, const struct lk_view *u)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t rows = g->n[0], f = g->n[1];

#pragma omp parallel for num_threads(lk_threads_for(dev, rows * f)) schedule(static)
	for (int64_t t = 0; t < rows; t++)
		hot->swiglu_bwd(lk_row(dg, t), lk_row(du, t), lk_row(dy, t), lk_row(g, t), lk_row(u, t), f);
	return 0;
}

void lk_cpu_fill_norm(struct lk_ops *o)
{
	o->dense.rmsnorm_fwd = rmsnorm_fwd;
	o->dense.rmsnorm_bwd = rmsnorm_bwd;
	o->dense.swiglu_fwd = swiglu_fwd;
	o->dense.swiglu_bwd = swiglu_bwd;
}
