/* dense.c - the matrix product of the cpu device, and the table of hot loops that the dense files use.
 *
 * Shares are whole rows or fixed blocks, never sums cut at a place that depends on the number of threads, so results
 * are the same for any number of them. */
#include <pthread.h>

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

/* Rows [m0,m1) and columns [n0,n1) of the result. */
static void gemm_part(const struct gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1)
{
	const float *a = g->a + (g->ta ? m0 : m0 * g->lda), *b = g->b + (g->tb ? n0 * g->ldb : n0);

	g->sgemm(ROW_MAJOR, g->ta ? TRANS : NO_TRANS, g->tb ? TRANS : NO_TRANS, (int)(m1 - m0), (int)(n1 - n0),
		 (int)g->k, g->alpha, a, (int)g->lda, b, (int)g->ldb, g->beta, g->c + m0 * g->ldc + n0, (int)g->ldc);
}

/* threads = rows * columns of a grid of parts; the grid whose parts have the shortest sides reads least. */
static int grid_rows(const struct gemm *g, int threads)
{
	double best = 0;
	int rows = 1;

	for (int r = 1; r <= threads; r++) {
		double sides = (double)g->m / r + (double)g->n / (threads / r);

		if (threads % r == 0 && (r == 1 || sides < best)) {
			best = sides;
			rows = r;
		}
	}
	return rows;
}

/* Where part i of `parts` of a side begins: multiples of 64, which whole vectors and cache lines are. */
static int64_t part_start(int64_t side, int parts, int i)
{
	int64_t at = (side * i / parts + 32) / 64 * 64;

	return i == parts || at > side ? side : at;
}

static void gemm_threads(const struct gemm *g, int threads)
{
	int rows = grid_rows(g, threads), cols = threads / rows;

#pragma omp parallel for num_threads(threads) schedule(static, 1)
	for (int i = 0; i < threads; i++) {
		int64_t m0 = part_start(g->m, rows, i / cols), m1 = part_start(g->m, rows, i / cols + 1);
		int64_t n0 = part_start(g->n, cols, i % cols), n1 = part_start(g->n, cols, i % cols + 1);

		if (m0 < m1 && n0 < n1)
			gemm_part(g, m0, m1, n0, n1);
	}
}

void lk_cpu_gemm(struct lk_dev *dev, int ta, int tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
		 int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
	struct gemm g = { lk_cpu(dev)->sgemm, ta, tb, m, n, k, alpha, beta, a, b, c, lda, ldb, ldc };

	if (dev->threads == 1 || (double)m * (double)n * (double)k < 1e6) // some 10 us
		gemm_part(&g, 0, m, 0, n);
	else
		gemm_threads(&g, dev->threads);
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
	const struct lk_dense_hot *hot = lk_dense_hot(dev);
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
	lk_cpu_gemm(dev, ta, tb, c->n[0], c->n[1], a->n[!ta], alpha, a->data, leading(a), b->data, leading(b),
		    flags & LK_ACC ? 1.0f : 0.0f, c->data, leading(c));
	return 0;
}

/* ---- the hot loops of each instruction set ---- */

static pthread_mutex_t hot_lock = PTHREAD_MUTEX_INITIALIZER;
static struct lk_dense_hot hot_tables[LK_ISA_COUNT];

/* Only for an instruction set that this processor has: filling the table is code of that set already. */
static void fill_table(enum lk_isa isa)
{
	pthread_mutex_lock(&hot_lock);
	if (!hot_tables[isa].axpy) {
		LK_PICK(lk_vector_hot, isa)(&hot_tables[isa]);
		LK_PICK(lk_norm_hot, isa)(&hot_tables[isa]);
		LK_PICK(lk_loss_hot, isa)(&hot_tables[isa]);
		LK_PICK(lk_gemv_hot, isa)(&hot_tables[isa]);
	}
	pthread_mutex_unlock(&hot_lock);
}

const struct lk_dense_hot *lk_dense_hot(const struct lk_dev *dev)
{
	return &hot_tables[((const struct lk_cpu *)dev->impl)->isa];
}

void lk_cpu_fill_dense(struct lk_dev *dev)
{
	fill_table(lk_cpu(dev)->isa);
	dev->ops.matmul = matmul;
	lk_cpu_fill_vector(&dev->ops);
	lk_cpu_fill_norm(&dev->ops);
	lk_cpu_fill_rope(&dev->ops);
	lk_cpu_fill_embed(&dev->ops);
	lk_cpu_fill_loss(&dev->ops);
}
