/* matmul.c - the matrix product of the cpu device: cut into parts, each one call of a BLAS on one thread.
 *
 * Work is cut by the sizes of the problem, never by the number of threads, so results are the same for any number of them. */
#include <inttypes.h>
#include <string.h>

#include "kernels/cpu/dense_int.h"

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

/* ---- matrix product ---- */

struct gemm {
	lk_sgemm_fn *sgemm;
	int ta, tb;
	int64_t m, n, k;
	float alpha, beta;
	const float *a, *b;
	float *c;
	int64_t lda, ldb, ldc;
};

/* How a product is cut, by its sizes alone: a BLAS adds up in another order where a part ends elsewhere (OpenBLAS' Haswell kernels,
 * and those for small products), so each of its calls must be the same on any number of threads. */
struct cut {
	int rows, cols, deep; /* parts along m, n and k */
};

enum { SIDE = 768, FIRST_SIDE = 512, DEPTH = 1024, NEAR_DEPTH = 512, PARTS = 32, MOST_PARTS = 64 };
static const double PART = 1e7;           /* multiplications that are worth a thread's waking: some 0.1 ms */
static const double LARGE = 1e9;          /* and of parts beyond PARTS: each packs its operands anew */
static const int64_t NEAR = 1 << 18;      /* numbers of a result whose partial sums stay in cache */
static const int64_t MOST_SUMS = 1 << 24; /* numbers in all partial sums */

static struct cut cut_of(int64_t m, int64_t n, int64_t k)
{
	struct cut c = { 1, 1, 1 };
	double work = (double)m * (double)n * (double)k, want = work / PART;

	if (want > PARTS)
		want = work / LARGE < PARTS ? PARTS : work / LARGE < MOST_PARTS ? work / LARGE : MOST_PARTS;
	while (2 * c.rows * c.cols <= want) { // the longer side, as long as parts stay large enough to pay for their packing
		int by_row = m / c.rows >= n / c.cols;

		if ((by_row ? m / c.rows : n / c.cols) < 2 * (c.rows * c.cols == 1 ? FIRST_SIDE : SIDE)) // two halves always pay
			break;
		*(by_row ? &c.rows : &c.cols) *= 2;
	}
	while (2 * c.rows * c.cols * c.deep <= want && k / (2 * c.deep) >= (m * n <= NEAR ? NEAR_DEPTH : DEPTH) &&
	       2 * c.deep * m * n <= MOST_SUMS)
		c.deep *= 2;
	return c;
}

/* Where part i of `parts` of a side begins: multiples of 64, which whole vectors and cache lines are. */
static int64_t part_start(int64_t side, int parts, int i)
{
	int64_t at = (side * i / parts + 32) / 64 * 64;

	return i == parts || at > side ? side : at;
}

/* Part i of the product; sums: (deep, m, n) partial sums, NULL where k is whole. */
static void gemm_part(const struct gemm *g, const struct cut *c, int i, float *sums)
{
	int row = i / c->cols % c->rows, col = i % c->cols, deep = i / c->cols / c->rows;
	int64_t m0 = part_start(g->m, c->rows, row), m1 = part_start(g->m, c->rows, row + 1);
	int64_t n0 = part_start(g->n, c->cols, col), n1 = part_start(g->n, c->cols, col + 1);
	int64_t k0 = part_start(g->k, c->deep, deep), k1 = part_start(g->k, c->deep, deep + 1);
	const float *a = g->a + (g->ta ? k0 * g->lda + m0 : m0 * g->lda + k0);
	const float *b = g->b + (g->tb ? n0 * g->ldb + k0 : k0 * g->ldb + n0);
	float *to = sums ? sums + (deep * g->m + m0) * g->n + n0 : g->c + m0 * g->ldc + n0;

	g->sgemm(ROW_MAJOR, g->ta ? TRANS : NO_TRANS, g->tb ? TRANS : NO_TRANS, (int)(m1 - m0), (int)(n1 - n0), (int)(k1 - k0),
		 g->alpha, a, (int)g->lda, b, (int)g->ldb, sums ? 0.0f : g->beta, to, (int)(sums ? g->n : g->ldc));
}

/* Row of the result from its partial sums, in their order. */
static void add_sums(const struct gemm *g, const struct cut *c, int64_t row, const float *sums, const struct lk_dense_hot *hot)
{
	float *to = g->c + row * g->ldc;

	if (g->beta == 0.0f)
		memcpy(to, sums + row * g->n, (size_t)g->n * sizeof *to);
	else if (g->beta != 1.0f)
		hot->scale(to, g->beta, g->n);
	for (int64_t i = g->beta == 0.0f; i < c->deep; i++)
		hot->axpy(to, 1.0f, sums + (i * g->m + row) * g->n, g->n);
}

int lk_cpu_gemm(struct lk_dev *dev, int ta, int tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
		 int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
	struct gemm g = { lk_cpu_of(dev)->sgemm, ta, tb, m, n, k, alpha, beta, a, b, c, lda, ldb, ldc };
	struct cut cut = cut_of(m, n, k);
	float *sums = cut.deep > 1 ? lk_cpu_scratch(dev, (size_t)(cut.deep * m * n) * sizeof *sums) : NULL;
	int parts;

	if (cut.deep > 1 && !sums)
		return lk_fail(dev, LK_ENOMEM, "matmul: no memory for %" PRId64 " partial sums", cut.deep * m * n);
	parts = cut.rows * cut.cols * cut.deep;
#pragma omp parallel for num_threads(parts > 1 ? dev->threads : 1) schedule(dynamic, 1)
	for (int i = 0; i < parts; i++)
		gemm_part(&g, &cut, i, sums);
	if (!sums)
		return 0;
#pragma omp parallel for num_threads(lk_threads_for(dev, m * n)) schedule(static)
	for (int64_t i = 0; i < m; i++)
		add_sums(&g, &cut, i, sums, lk_dense_hot_of(dev));
	return 0;
}

static int matmul_own(struct lk_dev *dev, int64_t m, int64_t n, int64_t k, struct lk_own *own)
{
	struct cut way = cut_of(m, n, k);
	size_t most;

	lk_cpu_sizing(dev, &most);
	if (way.deep > 1)
		lk_cpu_gemm(dev, 0, 0, m, n, k, 1.0f, NULL, k, NULL, n, 0.0f, NULL, n);
	lk_cpu_sized(dev);
	*own = (struct lk_own){ .scratch = (int64_t)most };
	return 0;
}

/* BLAS wants a leading dimension of at least the row length, also where there is but one row. */
static int64_t leading(const struct lk_view *v)
{
	return v->stride[0] > v->n[1] ? v->stride[0] : v->n[1];
}

/* A few rows: columns in fixed strips, each thread its own. */
static void matmul_thin(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
			int tb, float alpha, float beta)
{
	const struct lk_dense_hot *hot = lk_dense_hot_of(dev);
	int64_t n = c->n[1], k = a->n[1], strip = tb ? 128 : 1024;

#pragma omp parallel for num_threads(lk_threads_for(dev, n * k)) schedule(static)
	for (int64_t n0 = 0; n0 < n; n0 += strip) {
		int64_t n1 = n0 + strip < n ? n0 + strip : n;

		(tb ? hot->thin_tb : hot->thin_nb)(c->data, c->stride[0], a->data, a->stride[0], b->data, b->stride[0],
						   c->n[0], n0, n1, k, alpha, beta);
	}
}

static int matmul(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
		  unsigned flags, float alpha)
{
	int ta = (flags & LK_TA) != 0, tb = (flags & LK_TB) != 0;

	if (c->n[0] <= LK_THIN && !ta && c->n[1] >= 16) {
		matmul_thin(dev, c, a, b, tb, alpha, flags & LK_ACC ? 1.0f : 0.0f);
		return 0;
	}
	return lk_cpu_gemm(dev, ta, tb, c->n[0], c->n[1], a->n[!ta], alpha, a->data, leading(a), b->data, leading(b),
			   flags & LK_ACC ? 1.0f : 0.0f, c->data, leading(c));
}

void lk_cpu_fill_matmul(struct lk_ops *o)
{
	o->dense.matmul = matmul;
	o->dense.matmul_own = matmul_own;
}
