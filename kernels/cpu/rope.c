/* rope.c - rotary embedding with a kept table of cosines and sines.
 *
 * The angles are formed in fp64, which costs more than the rotation; all layers of a pass rotate the same positions,
 * so the last table is kept and recognised by its positions. Long sequences go block by block, so that the table stays
 * small; then each call computes it again, next to attention that has grown far more. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/dense_int.h"

enum { TABLE_FLOATS = 1 << 24 }; /* 64 MiB for cosines, as much for sines */

struct lk_rope_table {
	int64_t n, d, room, pos_room; /* rows and numbers a row in use; floats and positions allocated */
	double theta;
	int32_t *pos;
	float *cs, *sn; /* (n,d): each cosine twice; each sine as -s, s */
};

void lk_rope_free(struct lk_rope_table *t)
{
	if (!t)
		return;
	free(t->pos);
	free(t->cs);
	free(t->sn);
	free(t);
}

static int grow_array(void **p, size_t count, size_t size)
{
	free(*p);
	*p = malloc(count * size);
	return *p ? 0 : LK_ENOMEM;
}

size_t lk_rope_bytes(int64_t n, int64_t d)
{
	int64_t block = TABLE_FLOATS / d > 0 ? TABLE_FLOATS / d : 1;

	n = n < block ? n : block;
	return (size_t)n * (sizeof(int32_t) + 2 * (size_t)d * sizeof(float));
}

/* Room for n positions of d numbers. On failure the table is empty but valid. */
static int make_room(struct lk_rope_table *t, int64_t n, int64_t d)
{
	int rc = 0;

	t->n = 0;
	if (n * d > t->room) {
		t->room = 0;
		rc = grow_array((void **)&t->cs, (size_t)(n * d), sizeof *t->cs);
		rc = rc ? rc : grow_array((void **)&t->sn, (size_t)(n * d), sizeof *t->sn);
		t->room = rc ? 0 : n * d;
	}
	if (!rc && n > t->pos_room) {
		t->pos_room = 0;
		rc = grow_array((void **)&t->pos, (size_t)n, sizeof *t->pos);
		t->pos_room = rc ? 0 : n;
	}
	return rc;
}

static void fill_row(const struct lk_rope_table *t, int64_t row)
{
	float *cs = t->cs + row * t->d, *sn = t->sn + row * t->d;

	for (int64_t i = 0; i < t->d; i += 2) {
		double angle = t->pos[row] * pow(t->theta, -(double)i / (double)t->d);

		cs[i] = cs[i + 1] = (float)cos(angle);
		sn[i + 1] = (float)sin(angle);
		sn[i] = -sn[i + 1];
	}
}

/* The device's table, holding these positions. NULL: out of memory. */
static const struct lk_rope_table *table_for(struct lk_dev *dev, const int32_t *pos, int64_t n, int64_t d, double theta)
{
	struct lk_cpu *cpu = lk_cpu_of(dev);
	struct lk_rope_table *t = cpu->rope;

	if (!t) {
		t = cpu->rope = calloc(1, sizeof *t);
		if (!t)
			return NULL;
	}
	if (t->n >= n && t->d == d && t->theta == theta && memcmp(t->pos, pos, (size_t)n * sizeof *pos) == 0)
		return t;
	if (make_room(t, n, d))
		return NULL;
	memcpy(t->pos, pos, (size_t)n * sizeof *pos);
	t->d = d;
	t->theta = theta;
#pragma omp parallel for num_threads(lk_threads_for(dev, n * d * 16)) schedule(static)
	for (int64_t i = 0; i < n; i++)
		fill_row(t, i);
	t->n = n;
	return t;
}

static int rope(struct lk_dev *dev, const struct lk_view *x, const int32_t *pos, double theta, int inverse)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t n = x->n[0], heads = x->n[1], d = x->n[2], block = TABLE_FLOATS / d > 0 ? TABLE_FLOATS / d : 1;

	for (int64_t first = 0; first < n; first += block) {
		int64_t count = n - first < block ? n - first : block;
		const struct lk_rope_table *t = table_for(dev, pos + first, count, d, theta);

		if (!t)
			return lk_fail(dev, LK_ENOMEM, "rope: no memory for the angles of %" PRId64 " positions", count);
#pragma omp parallel for num_threads(lk_threads_for(dev, count * heads * d)) schedule(static)
		for (int64_t i = 0; i < count; i++)
			for (int64_t h = 0; h < heads; h++)
				hot->rotate(lk_row(x, first + i) + h * x->stride[1], t->cs + i * d, t->sn + i * d, d,
					    inverse ? -1.0f : 1.0f);
	}
	return 0;
}

void lk_cpu_fill_rope(struct lk_ops *o)
{
	o->dense.rope = rope;
}
