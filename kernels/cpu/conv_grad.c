/* conv_grad.c - gradients of a convolution's weights and bias.
 *
 * dw (taps cin, cout) = gathered inputs (pixels, taps cin) transposed times dy (pixels, cout). The pixels are cut into
 * parts by their number alone, never by the number of threads; each part sums into its own copy, and the copies are
 * added in order.
 */
#include "kernels/cpu/image_int.h"

#include <string.h>

enum { PARTS = 16, PIXELS = 192, PART_BYTES = 64 << 20, COLS = 128 };

struct grad {
	const struct lk_image_gemm *hot;
	const struct lk_conv_plan *p;
	struct lk_conv_grid g;
	const float *x, *dy;
	float *sum;             /* parts copies of (k, cout) */
	int64_t k, cout, lda;   /* of the gathered rows */
	int64_t total, parts, per; /* pixels, parts, pixels a part */
};

/* Columns [j, j + n) of the product over one part. a: PIXELS gathered rows, b: their dy in panels. */
static void part_product(const struct grad *d, int64_t part, int64_t j, int64_t n, float *a, float *b)
{
	float *sum = d->sum + part * d->k * d->cout + j;
	int64_t end = (part + 1) * d->per < d->total ? (part + 1) * d->per : d->total;
	for (int64_t r = part * d->per; r < end; r += PIXELS) {
		int64_t rows = end - r < PIXELS ? end - r : PIXELS;
		lk_conv_gather(d->p, &d->g, d->x, r, rows, a, d->lda);
		d->hot->pack(n, rows, d->dy + r * d->cout + j, d->cout, b, rows * d->hot->nr);
		d->hot->gemm_t(d->k, n, rows, a, d->lda, b, rows * d->hot->nr, sum, d->cout, r > part * d->per);
	}
}

static void add_parts(float *dw, const float *sum, int64_t n, int64_t parts, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t i = 0; i < n; i += 1024) {
		int64_t end = i + 1024 < n ? i + 1024 : n;
		for (int64_t p = 0; p < parts; p++)
			for (int64_t q = i; q < end; q++)
				dw[q] += sum[p * n + q];
	}
}

static int weight_grad(struct lk_dev *dev, struct grad *d, float *dw)
{
	int threads = lk_cpu_of(dev)->threads;
	int64_t n = d->k * d->cout, room = PIXELS * (d->lda + lk_round_up(COLS, d->hot->nr));
	int64_t cols = (d->cout + COLS - 1) / COLS, most = PART_BYTES / (n * (int64_t)sizeof *dw);
	int64_t want = (d->total + 2 * PIXELS - 1) / (2 * PIXELS);
	d->parts = want < PARTS ? want : PARTS;
	d->parts = d->parts > most ? most > 0 ? most : 1 : d->parts;
	d->per = (d->total + d->parts - 1) / d->parts;
	d->parts = (d->total + d->per - 1) / d->per;
	int64_t sums = lk_round_up(d->parts * n, 16);
	d->sum = lk_cpu_scratch(dev, (size_t)(sums + room * threads) * sizeof *d->sum);
	if (!d->sum)
		return lk_fail(dev, LK_ENOMEM, "no memory for the weight gradient of a convolution");
#pragma omp parallel num_threads(threads)
	{
		float *a = d->sum + sums + room * lk_thread();
#pragma omp for schedule(dynamic)
		for (int64_t i = 0; i < d->parts * cols; i++) {
			int64_t j = i % cols * COLS, w = d->cout - j < COLS ? d->cout - j : COLS;
			part_product(d, i / cols, j, w, a, a + PIXELS * d->lda);
		}
	}
	add_parts(dw, d->sum, n, d->parts, threads);
	return LK_OK;
}

/* Sum over pixels: fp32 over runs of RUN pixels, fp64 over the runs of a part, parts in order. */
enum { RUN = 256 };
static void bias_part(const struct grad *d, double *sum, float *run, int64_t r0, int64_t r1)
{
	memset(sum, 0, (size_t)d->cout * sizeof *sum);
	for (int64_t r = r0; r < r1; r += RUN) {
		memset(run, 0, (size_t)d->cout * sizeof *run);
		for (int64_t q = r; q < r1 && q < r + RUN; q++)
			for (int64_t j = 0; j < d->cout; j++)
				run[j] += d->dy[q * d->cout + j];
		for (int64_t j = 0; j < d->cout; j++)
			sum[j] += run[j];
	}
}

static int bias(struct lk_dev *dev, const struct grad *d, float *db)
{
	int threads = lk_cpu_of(dev)->threads;
	int64_t per = (d->total + PARTS - 1) / PARTS, ld = lk_round_up(d->cout, 16);
	double *sum = lk_cpu_scratch(dev, (size_t)(PARTS * ld) * (sizeof *sum + sizeof(float)));
	if (!sum)
		return lk_fail(dev, LK_ENOMEM, "no memory for the bias gradient of a convolution");
	float *run = (float *)(sum + PARTS * ld);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
	for (int64_t i = 0; i < PARTS; i++)
		bias_part(d, sum + i * ld, run + i * ld, i * per, (i + 1) * per < d->total ? (i + 1) * per : d->total);
	for (int64_t j = 0; j < d->cout; j++) {
		double all = 0.0;
		for (int64_t i = 0; i < PARTS; i++)
			all += sum[i * ld + j];
		db[j] += (float)all;
	}
	return LK_OK;
}

int lk_conv_grad(struct lk_dev *dev, struct lk_conv *c, float *dw, float *db, const struct lk_view *dy,
		 const struct lk_view *x)
{
	const struct lk_conv_plan *p = &lk_conv_cpu_of(c)->fwd;
	struct grad d = { lk_image_gemm_of(dev), p, lk_conv_grid_of(p, dy, x), x->data, dy->data, NULL,
			  (int64_t)p->ny * p->nx * p->cin, p->cout, 0, 0, 0, 0 };
	int rc = LK_OK;
	d.lda = lk_round_up(d.k, 16) + 16;
	d.total = d.g.n * d.g.gh * d.g.gw;
	if (dw && lk_conv_cpu_of(c)->wino_fwd)
		rc = lk_conv_wino_grad(dev, lk_conv_cpu_of(c)->wino_fwd, dw, dy, x);
	else if (dw)
		rc = weight_grad(dev, &d, dw);
	return rc || !db ? rc : bias(dev, &d, db);
}
