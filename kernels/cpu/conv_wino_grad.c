/* conv_wino_grad.c - weight gradients of 3x3 convolutions of stride 1 in Winograd's domain.
 *
 * The forward multiplies 36 matrices of transformed inputs V (tiles,cin) with transformed weights U; so the gradient of
 * U is V' dM, where dM is dy (tiles,cout) through the transposed output transform, and dw is dU through the transposed
 * weight transform. The tiles go by in blocks that all threads share: first they transform, then each takes some of the
 * 36 sums. Every sum is made by one thread in the order of the tiles, so the number of threads does not show.
 */
#include "kernels/cpu/image_int.h"

#include <string.h>

enum { TILES = 192, HEAVY_TILES = 96, HEAVY = 384 * 384 };

struct grad {
	struct lk_wino_job b;
	int64_t per;           /* tiles of a block */
	int64_t ys, ldp;       /* transformed dy: distance of the 36, and of their panels */
	int64_t us, ldu;       /* dU: distance of the 36, and of rows */
	float *v, *y, *u;
	const float *zeros_dy;
};

/* The 16 pixels of dy of tile t, zeros outside. */
static void dy_pixels(const struct grad *g, int64_t t, const float **px)
{
	const struct lk_wino_job *b = &g->b;
	int64_t n = b->k->cout, h = b->out->n[1], w = b->out->n[2];
	int64_t img = t / (b->th * b->tw), i = t / b->tw % b->th * 4, j = t % b->tw * 4;
	const float *at = (const float *)b->out->data + ((img * h + i) * w + j) * n;
	for (int64_t q = 0; q < 16; q++)
		px[q] = i + q / 4 < h && j + q % 4 < w ? at + (q / 4 * w + q % 4) * n : g->zeros_dy;
}

static void transform_tile(const struct grad *g, int64_t first, int64_t t)
{
	const float *px[16];
	lk_wino_tiles_in(&g->b, g->v, first, t, t + 1);
	dy_pixels(g, t, px);
	g->b.hot->tile_dy(px, g->b.k->cout, g->y + (t - first) * g->b.gemm->nr, g->ys, g->ldp);
}

/* Columns [j, j + cols) of sum q; j is a whole number of panels. */
static void add_product(const struct grad *g, int64_t first, int64_t tiles, int64_t q, int64_t j, int64_t cols)
{
	const struct lk_wino_job *b = &g->b;
	b->gemm->gemm_t(b->k->cin, cols, tiles, g->v + q * b->vs, b->ldv, g->y + q * g->ys + j / b->gemm->nr * g->ldp,
			g->ldp, g->u + q * g->us + j, g->ldu, first > 0);
}

/* Called by all threads of a team; each loop ends with their meeting. */
static void add_block(const struct grad *g, int64_t first, int64_t n)
{
	int64_t cout = g->b.k->cout, cols = lk_round_up((cout + 3) / 4, g->b.gemm->nr), parts = (cout + cols - 1) / cols;
#pragma omp for schedule(dynamic, 4)
	for (int64_t t = first; t < first + n; t++)
		transform_tile(g, first, t);
#pragma omp for schedule(dynamic)
	for (int64_t i = 0; i < 36 * parts; i++) {
		int64_t j = i % parts * cols;
		add_product(g, first, n, i / parts, j, cout - j < cols ? cout - j : cols);
	}
}

static int prepare_grad(struct lk_dev *dev, struct grad *g)
{
	const struct lk_conv_wino *k = g->b.k;
	int64_t nr = g->b.gemm->nr, zeros = lk_round_up(k->cin > k->cout ? k->cin : k->cout, 16);
	g->per = k->cin * k->cout > HEAVY ? HEAVY_TILES : TILES;
	g->per = g->b.tiles < g->per ? g->b.tiles : g->per;
	g->b.vs = lk_wino_apart(g->per * g->b.ldv);
	g->ldp = lk_wino_apart(g->per * nr);
	g->ys = lk_wino_apart(lk_round_up(k->cout, nr) / nr * g->ldp);
	g->ldu = lk_round_up(k->cout, 16);
	g->us = k->cin * g->ldu;
	float *s = lk_cpu_scratch(dev, (size_t)(zeros + 36 * (g->b.vs + g->ys + g->us)) * sizeof *s);
	if (!s)
		return lk_fail(dev, LK_ENOMEM, "no memory for the weight gradient of a convolution");
	memset(s, 0, (size_t)zeros * sizeof *s);
	g->b.zeros = g->zeros_dy = s;
	g->v = s + zeros;
	g->y = g->v + 36 * g->b.vs;
	g->u = g->y + 36 * g->ys;
	return LK_OK;
}

int lk_conv_wino_grad(struct lk_dev *dev, const struct lk_conv_wino *k, float *dw, const struct lk_view *dy,
		      const struct lk_view *x)
{
	struct grad g = { .b = lk_wino_job_of(dev, k, dy, x) };
	int threads = lk_cpu_of(dev)->threads, rc = prepare_grad(dev, &g);
	if (rc)
		return rc;
#pragma omp parallel num_threads(threads)
	{
		for (int64_t t = 0; t < g.b.tiles; t += g.per)
			add_block(&g, t, g.b.tiles - t < g.per ? g.b.tiles - t : g.per);
#pragma omp for schedule(static)
		for (int64_t r = 0; r < k->cin; r++)
			g.b.hot->weights_out(dw, g.u, g.us, g.ldu, k->cin, k->cout, r, r + 1);
	}
	return LK_OK;
}
