/* embed.c - rows picked from a table by id or from a view by index, and rows added back, without atomics. */
#include <omp.h>
#include <string.h>

#include "kernels/cpu/dense_int.h"

static int embed_fwd(struct lk_dev *dev, const struct lk_view *y, const int32_t *ids, const struct lk_view *table,
		     int32_t first)
{
	int64_t n = y->n[0], d = y->n[1], rows = table->n[0];

#pragma omp parallel for num_threads(lk_threads_for(dev, n * d)) schedule(static)
	for (int64_t t = 0; t < n; t++) {
		int64_t r = (int64_t)ids[t] - first;

		if (r >= 0 && r < rows)
			memcpy(lk_row(y, t), lk_row(table, r), (size_t)d * sizeof(float));
	}
	return 0;
}

/* Every thread walks over all tokens and takes the rows of the table that are its own: no two write to one row, and
 * each row is added to in the order of the tokens. */
static int embed_bwd(struct lk_dev *dev, const struct lk_view *dtable, const int32_t *ids, const struct lk_view *dy,
		     int32_t first)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t n = dy->n[0], d = dy->n[1], rows = dtable->n[0];

#pragma omp parallel num_threads(lk_threads_for(dev, n * d))
	{
		int64_t mine = omp_get_thread_num(), all = omp_get_num_threads();

		for (int64_t t = 0; t < n; t++) {
			int64_t r = (int64_t)ids[t] - first;

			if (r >= 0 && r < rows && r % all == mine)
				hot->axpy(lk_row(dtable, r), 1.0f, lk_row(dy, t), d);
		}
	}
	return 0;
}

static int gather_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx)
{
	int64_t n = y->n[0], d = y->n[1];

#pragma omp parallel for num_threads(lk_threads_for(dev, n * d)) schedule(static)
	for (int64_t i = 0; i < n; i++)
		memcpy(lk_row(y, i), lk_row(x, idx[i]), (size_t)d * sizeof(float));
	return 0;
}

static int scatter_add_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t n = x->n[0], d = x->n[1];

#pragma omp parallel for num_threads(lk_threads_for(dev, n * d)) schedule(static)
	for (int64_t i = 0; i < n; i++)
		hot->axpy(lk_row(y, idx[i]), 1.0f, lk_row(x, i), d);
	return 0;
}

void lk_cpu_fill_embed(struct lk_ops *o)
{
	o->dense.embed_fwd = embed_fwd;
	o->dense.embed_bwd = embed_bwd;
	o->dense.gather_rows = gather_rows;
	o->dense.scatter_add_rows = scatter_add_rows;
}
