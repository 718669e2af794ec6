/* Row-major products as column-major ones: the mapping is evaluated as a BLAS would and compared with the definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/cuda/matmul_plan.c" /* not part of the library: it lies in the shared object */

enum { ROOM = 512 };

static float numbers[2][ROOM];

/* Element (i, j) of op(x), x column-major. */
static float op_at(const float *x, const struct lk_mm_mat *m, int trans, int64_t i, int64_t j)
{
	int64_t row = trans ? j : i, col = trans ? i : j;

	assert_in_range(row, 0, m->rows - 1);
	assert_in_range(col, 0, m->cols - 1);
	return x[row + col * m->ld];
}

/* c = op(first) op(second) [+ c], as the BLAS books say it. */
static void column_major(float *c, const float *first, const float *second, const struct lk_mm *p)
{
	for (int64_t j = 0; j < p->n; j++)
		for (int64_t i = 0; i < p->m; i++) {
			float *out = &c[i + j * p->c.ld], sum = p->add ? *out : 0;

			for (int64_t k = 0; k < p->k; k++)
				sum += op_at(first, &p->first, p->trans_first, i, k) *
				       op_at(second, &p->second, p->trans_second, k, j);
			*out = sum;
		}
}

static void row_major(const struct lk_view *c, const struct lk_view *a, const struct lk_view *b, unsigned flags)
{
	const float *x = a->data, *y = b->data;
	int64_t depth = a->n[!(flags & LK_TA)];

	for (int64_t i = 0; i < c->n[0]; i++)
		for (int64_t j = 0; j < c->n[1]; j++) {
			float *out = (float *)c->data + i * c->stride[0] + j, sum = flags & LK_ACC ? *out : 0;

			for (int64_t k = 0; k < depth; k++)
				sum += (flags & LK_TA ? x[k * a->stride[0] + i] : x[i * a->stride[0] + k]) *
				       (flags & LK_TB ? y[j * b->stride[0] + k] : y[k * b->stride[0] + j]);
			*out = sum;
		}
}

static struct lk_view matrix(float *p, int64_t rows, int64_t cols, int64_t gap)
{
	struct lk_view v = lk_view2(p, LK_F32, rows, cols);

	v.stride[0] += gap;
	return v;
}

static void check_product(int64_t m, int64_t n, int64_t k, int64_t gap, unsigned flags)
{
	float want[ROOM], got[ROOM];
	struct lk_view c = matrix(want, m, n, gap);
	struct lk_view a = flags & LK_TA ? matrix(numbers[0], k, m, gap) : matrix(numbers[0], m, k, gap);
	struct lk_view b = flags & LK_TB ? matrix(numbers[1], n, k, 2 * gap) : matrix(numbers[1], k, n, 2 * gap);
	struct lk_mm p;

	for (int i = 0; i < ROOM; i++)
		want[i] = got[i] = (float)(i % 11);
	lk_mm_make(&p, &c, &a, &b, flags);
	assert_true(p.first.ld >= p.first.rows && p.second.ld >= p.second.rows && p.c.ld >= p.c.rows);
	assert_int_equal(p.m, p.c.rows);
	assert_int_equal(p.n, p.c.cols);
	row_major(&c, &a, &b, flags);
	column_major(got, b.data, a.data, &p);
	assert_memory_equal(got, want, sizeof got); // small whole numbers: exact
}

static void maps_every_product(void **state)
{
	static const int64_t shape[][3] = { { 3, 5, 7 }, { 1, 6, 4 }, { 6, 1, 4 }, { 4, 3, 1 }, { 1, 1, 1 }, { 8, 8, 8 } };

	(void)state;
	for (int i = 0; i < ROOM; i++) {
		numbers[0][i] = (float)(i * 7 % 13 - 6);
		numbers[1][i] = (float)(i * 5 % 9 - 4);
	}
	for (unsigned flags = 0; flags < 8; flags++)
		for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
			for (int64_t gap = 0; gap < 4; gap += 3)
				check_product(shape[s][0], shape[s][1], shape[s][2], gap, flags);
}

static void one_row_needs_no_stride(void **state)
{
	struct lk_view c = matrix(numbers[0], 1, 5, 0), a = matrix(numbers[0] + 8, 1, 3, 0), b = matrix(numbers[1], 3, 5, 0);
	struct lk_mm p;

	(void)state;
	a.stride[0] = c.stride[0] = 0;
	lk_mm_make(&p, &c, &a, &b, 0);
	assert_true(p.c.ld >= 5 && p.second.ld >= 3);
	assert_int_equal(p.first.ld, 5);
}

static void keys_tell_products_apart(void **state)
{
	static _Alignas(256) float at[64];
	struct lk_view c = matrix(at, 3, 5, 0), a = matrix(at, 3, 4, 0), b = matrix(at, 4, 5, 0);
	struct lk_mm p, q;

	(void)state;
	memset(&p, 0xaa, sizeof p);
	memset(&q, 0x55, sizeof q);
	lk_mm_make(&p, &c, &a, &b, 0);
	lk_mm_make(&q, &c, &a, &b, 0);
	assert_memory_equal(&p, &q, sizeof p);
	assert_int_equal(lk_mm_hash(&p), lk_mm_hash(&q));
	lk_mm_make(&q, &c, &a, &b, LK_ACC);
	assert_memory_not_equal(&p, &q, sizeof p);
	assert_int_not_equal(lk_mm_hash(&p), lk_mm_hash(&q));
	a.data = at + 4;
	lk_mm_make(&q, &c, &a, &b, 0);
	assert_int_equal(p.second.align, 256);
	assert_int_equal(q.second.align, 16);
	assert_memory_not_equal(&p, &q, sizeof p);
}

static void few_rows_of_aligned_bf16(void **state)
{
	static _Alignas(16) uint16_t at[4096];
	struct lk_view c = lk_view2(at, LK_BF16, 4, 10), a = lk_view2(at, LK_BF16, 4, 64), b = lk_view2(at, LK_BF16, 10, 64);
	struct lk_view odd = lk_view2(at + 1, LK_BF16, 4, 64), wide = a, single = a, f32 = lk_view2(at, LK_F32, 4, 64);

	(void)state;
	assert_true(lk_mm_few(&c, &a, &b, LK_TB));
	assert_true(lk_mm_few(&c, &a, &b, LK_TB | LK_ACC));
	assert_false(lk_mm_few(&c, &a, &b, 0));
	assert_false(lk_mm_few(&c, &a, &b, LK_TA | LK_TB));
	assert_false(lk_mm_few(&c, &odd, &b, LK_TB));
	assert_false(lk_mm_few(&c, &f32, &b, LK_TB));
	wide.stride[0] = 65;
	assert_false(lk_mm_few(&c, &wide, &b, LK_TB));
	single.n[0] = c.n[0] = 1;
	single.stride[0] = 65;
	assert_true(lk_mm_few(&c, &single, &b, LK_TB));
	c.n[0] = LK_MM_FEW + 1;
	assert_false(lk_mm_few(&c, &a, &b, LK_TB));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(maps_every_product),
		cmocka_unit_test(one_row_needs_no_stride),
		cmocka_unit_test(keys_tell_products_apart),
		cmocka_unit_test(few_rows_of_aligned_bf16),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
