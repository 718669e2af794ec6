/* conv_direct.c - convolution of any geometry: gather a block of pixels' inputs, multiply with the packed weights.
 *
 * A block is some dozens of output pixels: its gathered rows stay in the second-level cache, and the result goes to
 * its place at once. Every output value is summed in the same order whatever the block or thread.
 */
#include "kernels/cpu/image_int.h"

#include <string.h>

enum { ROWS = 96 }; /* output pixels of a block, at most */

struct lk_conv_grid lk_conv_grid_of(const struct lk_conv_plan *p, const struct lk_view *out, const struct lk_view *in)
{
	int64_t gh = (out->n[1] - p->py + p->os - 1) / p->os, gw = (out->n[2] - p->px + p->os - 1) / p->os;
	struct lk_conv_grid g = { in->n[0], gh > 0 ? gh : 0, gw > 0 ? gw : 0, in->n[1], in->n[2] };
	return g;
}

/* One row of taps: nx pixels from virtual column v0 on, of input line `line` (NULL: outside). */
static void gather_line(const struct lk_conv_plan *p, const float *line, int64_t v0, int64_t w, float *a)
{
	size_t c = (size_t)p->cin * sizeof *a;
	if (!line) {
		memset(a, 0, c * (size_t)p->nx);
		return;
	}
	if (p->up == 1 && v0 >= 0 && v0 + p->nx <= w) {
		memcpy(a, line + v0 * p->cin, c * (size_t)p->nx);
		return;
	}
	for (int64_t v = v0; v < v0 + p->nx; v++, a += p->cin) {
		if (v >= 0 && v < w * p->up)
			memcpy(a, line + v / p->up * p->cin, c);
		else
			memset(a, 0, c);
	}
}

void lk_conv_gather(const struct lk_conv_plan *p, const struct lk_conv_grid *g, const float *in, int64_t r0,
		    int64_t rows, float *a, int64_t lda)
{
	for (int64_t r = r0; r < r0 + rows; r++, a += lda) {
		int64_t j = r % g->gw, i = r / g->gw % g->gh, img = r / g->gw / g->gh;
		for (int64_t t = 0; t < p->ny; t++) {
			int64_t u = p->step * i + p->fy + t, inside = u >= 0 && u < g->h * p->up;
			const float *line = inside ? in + (img * g->h + u / p->up) * g->w * p->cin : NULL;
			gather_line(p, line, p->step * j + p->fx, g->w, a + t * p->nx * p->cin);
		}
	}
}

/* A 1x1 kernel over the pixels as they are needs no gathering. */
static int in_place(const struct lk_conv_plan *p, const struct lk_conv_grid *g)
{
	return p->ny == 1 && p->nx == 1 && !p->fy && !p->fx && p->step == 1 && p->up == 1 && g->gh == g->h &&
	       g->gw == g->w;
}

/* What the product is added to. */
static void start_row(float *c, int64_t n, const float *bias, const float *add)
{
	if (bias && add) {
		for (int64_t j = 0; j < n; j++)
			c[j] = bias[j] + add[j];
	} else if (bias || add) {
		memcpy(c, bias ? bias : add, (size_t)n * sizeof *c);
	} else {
		memset(c, 0, (size_t)n * sizeof *c);
	}
}

/* Pixel of the output that grid row r stands for. */
static int64_t pixel_place(const struct lk_conv_plan *p, const struct lk_conv_grid *g, const struct lk_view *out, int64_t r)
{
	int64_t j = r % g->gw, i = r / g->gw % g->gh, img = r / g->gw / g->gh;
	return (img * out->n[1] + p->os * i + p->py) * out->n[2] + p->os * j + p->px;
}

struct direct {
	const struct lk_image_gemm *hot;
	const struct lk_conv_plan *p;
	struct lk_conv_grid g;
	const struct lk_view *out;
	const float *in, *bias, *add;
};

/* a: room for rows gathered rows; c: room for rows results where the output is not dense. */
static void compute_block(const struct direct *d, int64_t r0, int64_t rows, float *a, float *c)
{
	const struct lk_conv_plan *p = d->p;
	int64_t k = (int64_t)p->ny * p->nx * p->cin, n = p->cout, lda = lk_round_up(k, 16) + 16;
	float *out = d->out->data, *to = p->os == 1 ? out + r0 * n : c;
	const float *from = a;
	for (int64_t r = 0; r < rows; r++)
		start_row(to + r * n, n, d->bias, d->add ? d->add + (r0 + r) * n : NULL);
	if (in_place(p, &d->g)) {
		from = d->in + r0 * k;
		lda = k;
	} else {
		lk_conv_gather(p, &d->g, d->in, r0, rows, a, lda);
	}
	d->hot->gemm(rows, n, k, from, lda, p->packed, k * d->hot->nr, to, n, 1);
	for (int64_t r = 0; p->os > 1 && r < rows; r++)
		memcpy(out + pixel_place(p, &d->g, d->out, r0 + r) * n, c + r * n, (size_t)n * sizeof *c);
}

/* Rows a block: enough blocks for every thread to have a few, whole register blocks each. */
static int64_t block_rows(int64_t total, int threads, int mr)
{
	int64_t want = lk_round_up((total + 4 * threads - 1) / (4 * threads), mr), most = ROWS / mr * mr;
	return want < 2 * mr ? 2 * mr : want > most ? most : want;
}

int lk_conv_direct(struct lk_dev *dev, const struct lk_conv_plan *p, const struct lk_view *out,
		   const struct lk_view *in, const float *bias, const float *add)
{
	struct direct d = { lk_image_gemm_of(dev), p, lk_conv_grid_of(p, out, in), out, in->data, bias, add };
	int threads = lk_cpu_of(dev)->threads;
	int64_t total = d.g.n * d.g.gh * d.g.gw, rows = block_rows(total, threads, d.hot->mr);
	int64_t lda = lk_round_up((int64_t)p->ny * p->nx * p->cin, 16) + 16;
	int64_t room = rows * (lda + lk_round_up(p->cout, 16));
	float *scratch = lk_cpu_scratch(dev, (size_t)room * (size_t)threads * sizeof *scratch);
	if (!scratch)
		return lk_fail(dev, LK_ENOMEM, "no memory for the blocks of a convolution");
#pragma omp parallel num_threads(threads)
	{
		float *a = scratch + room * lk_thread();
#pragma omp for schedule(dynamic)
		for (int64_t r = 0; r < total; r += rows)
			compute_block(&d, r, total - r < rows ? total - r : rows, a, a + rows * lda);
	}
	return LK_OK;
}
