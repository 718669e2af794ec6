/* embed.c - rows picked from a table by id or from a view by index, and rows added back to where they came from: the
 * backward of picking. */
#include "kernels/ref/ref_int.h"

/* row of the table that id names, -1 if another table has it */
static int64_t table_row(int32_t id, int32_t first, int64_t rows)
{
	int64_t r = (int64_t)id - first;

	return r >= 0 && r < rows ? r : -1;
}

static int embed_fwd(struct lk_dev *dev, const struct lk_view *y, const int32_t *ids, const struct lk_view *table,
		     int32_t first)
{
	(void)dev;
	for (int64_t t = 0; t < y->n[0]; t++) {
		int64_t r = table_row(ids[t], first, table->n[0]);

		for (int64_t j = 0; r >= 0 && j < y->n[1]; j++)
			lk_row(y, t)[j] = lk_row(table, r)[j];
	}
	return 0;
}

static int embed_bwd(struct lk_dev *dev, const struct lk_view *dtable, const int32_t *ids, const struct lk_view *dy,
		     int32_t first)
{
	(void)dev;
	for (int64_t t = 0; t < dy->n[0]; t++) {
		int64_t r = table_row(ids[t], first, dtable->n[0]);

		for (int64_t j = 0; r >= 0 && j < dy->n[1]; j++)
			lk_row(dtable, r)[j] += lk_row(dy, t)[j];
	}
	return 0;
}

static int gather_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx)
{
	(void)dev;
	for (int64_t i = 0; i < y->n[0]; i++)
		for (int64_t j = 0; j < y->n[1]; j++)
			lk_row(y, i)[j] = lk_row(x, idx[i])[j];
	return 0;
}

static int scatter_add_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx)
{
	(void)dev;
	for (int64_t i = 0; i < x->n[0]; i++)
		for (int64_t j = 0; j < x->n[1]; j++)
			lk_row(y, idx[i])[j] += lk_row(x, i)[j];
	return 0;
}

void lk_ref_fill_embed(struct lk_ops *o)
{
	o->dense.embed_fwd = embed_fwd;
	o->dense.embed_bwd = embed_bwd;
	o->dense.gather_rows = gather_rows;
	o->dense.scatter_add_rows = scatter_add_rows;
}
