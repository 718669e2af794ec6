/* conv_wino.c - 3x3 convolutions of stride 1 by Winograd's F(4x4,3x3): a quarter of the multiplications.
 *
 * A tile is 4x4 output pixels and the 6x6 input pixels they see. A block of tiles is transformed into 36 matrices
 * (tiles,cin), each is multiplied with its transformed weights, and the 36 results are transformed back. Many tiles:
 * each thread takes blocks of its own. Few tiles: all threads share one block, so that the weights, nine times smaller
 * before the transform, are read once.
 */
#include "kernels/cpu/image_int.h"

#include <stdlib.h>
#include <string.h>

/* Tiles of a block: a thread's own ones and their products stay near the second-level cache, but heavy weights want to
 * be read less often. */
enum { OWN_TILES = 36, HEAVY_TILES = 96, HEAVY = 384 * 384, SHARED_TILES = 192 };

void lk_conv_wino_free(struct lk_conv_wino *k)
{
	if (k)
		free(k->u);
	free(k);
}

struct lk_conv_wino lk_conv_wino_shape(struct lk_dev *dev, const struct lk_conv_geom *g, int backward)
{
	int nr = lk_image_gemm_of(dev)->nr;
	struct lk_conv_wino k = { 0 };
	k.cin = backward ? g->cout : g->cin;
	k.cout = backward ? g->cin : g->cout;
	k.fy = backward ? g->pad_top - 2 : -g->pad_top;
	k.fx = backward ? g->pad_left - 2 : -g->pad_left;
	k.up = backward ? 1 : g->upsample;
	k.us = lk_round_up(k.cout, nr) * k.cin;
	return k;
}

struct lk_conv_wino *lk_conv_wino_new(struct lk_dev *dev, const struct lk_conv_geom *g, int backward)
{
	struct lk_conv_wino *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	*k = lk_conv_wino_shape(dev, g, backward);
	k->u = aligned_alloc(64, (size_t)(36 * k->us) * sizeof *k->u);
	if (k->u)
		return k;
	free(k);
	return NULL;
}

/* t (3,3,cout,cin): turned by half a circle, channels swapped. */
static void turn_weights(float *t, const float *w, int64_t cin, int64_t cout, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t i = 0; i < 9 * cout; i++) {
		const float *src = w + (8 - i / cout) * cin * cout + i % cout;
		for (int64_t ci = 0; ci < cin; ci++)
			t[i * cin + ci] = src[ci * cout];
	}
}

int lk_conv_wino_pack(struct lk_dev *dev, struct lk_conv_wino *k, const float *w, int backward)
{
	const struct lk_image_wino *hot = lk_image_wino_of(dev);
	int threads = lk_cpu_of(dev)->threads;
	if (backward) {
		float *t = lk_cpu_scratch(dev, (size_t)(9 * k->cin * k->cout) * sizeof *t);
		if (!t)
			return lk_fail(dev, LK_ENOMEM, "no memory for the turned weights of a convolution");
		turn_weights(t, w, k->cout, k->cin, threads);
		w = t;
	}
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t r = 0; r < k->cin; r += 8)
		hot->weights_in(w, k->cin, k->cout, r, r + 8 < k->cin ? r + 8 : k->cin, k->u, k->us);
	return LK_OK;
}

/* The 36 input pixels of tile t, zeros outside. */
static void pixels_of(const struct lk_wino_job *b, int64_t t, const float **px)
{
	const struct lk_conv_wino *k = b->k;
	int64_t img = t / (b->th * b->tw), h = b->in->n[1], w = b->in->n[2];
	int64_t u0 = t / b->tw % b->th * 4 + k->fy, v0 = t % b->tw * 4 + k->fx;
	for (int64_t q = 0; q < 36; q++) {
		int64_t u = u0 + q / 6, v = v0 + q % 6;
		int inside = u >= 0 && v >= 0 && u < h * k->up && v < w * k->up;
		if (inside && k->up == 2) {
			u /= 2;
			v /= 2;
		}
		px[q] = inside ? (const float *)b->in->data + ((img * h + u) * w + v) * k->cin : b->zeros;
	}
}

void lk_wino_tiles_in(const struct lk_wino_job *b, float *v, int64_t first, int64_t t0, int64_t t1)
{
	const float *px[36];
	for (int64_t t = t0; t < t1; t++) {
		pixels_of(b, t, px);
		b->hot->tile_in(px, b->k->cin, v + (t - first) * b->ldv, b->vs);
	}
}

static void tiles_out(const struct lk_wino_job *b, const float *m, int64_t first, int64_t t0, int64_t t1)
{
	int64_t n = b->k->cout, h = b->out->n[1], w = b->out->n[2];
	for (int64_t t = t0; t < t1; t++) {
		int64_t img = t / (b->th * b->tw), i = t / b->tw % b->th * 4, j = t % b->tw * 4;
		int64_t at = ((img * h + i) * w + j) * n;
		b->hot->tile_out(m + (t - first) * b->ldm, b->ms, n, (float *)b->out->data + at, w * n,
				 (int)(h - i < 4 ? h - i : 4), (int)(w - j < 4 ? w - j : 4), b->bias,
				 b->add ? b->add + at : NULL);
	}
}

/* Columns [j, j + cols) of product q over `tiles` rows; j is a whole number of panels. */
static void multiply_tiles(const struct lk_wino_job *b, float *m, const float *v, int64_t tiles, int64_t q, int64_t j, int64_t cols)
{
	b->gemm->gemm(tiles, cols, b->k->cin, v + q * b->vs, b->ldv, b->k->u + q * b->k->us + j * b->k->cin,
		      b->k->cin * b->gemm->nr, m + q * b->ms + j, b->ldm, 0);
}

static void own_block(const struct lk_wino_job *b, float *v, float *m, int64_t first, int64_t n)
{
	lk_wino_tiles_in(b, v, first, first, first + n);
	for (int64_t q = 0; q < 36; q++)
		multiply_tiles(b, m, v, n, q, 0, b->k->cout);
	tiles_out(b, m, first, first, first + n);
}

/* Called by all threads of a team; each loop ends with their meeting. */
static void shared_block(const struct lk_wino_job *b, float *v, float *m, int64_t first, int64_t n)
{
	int64_t cols = lk_round_up((b->k->cout + 3) / 4, b->gemm->nr), parts = (b->k->cout + cols - 1) / cols;
#pragma omp for schedule(dynamic, 2)
	for (int64_t t = first; t < first + n; t++)
		lk_wino_tiles_in(b, v, first, t, t + 1);
#pragma omp for schedule(dynamic)
	for (int64_t i = 0; i < 36 * parts; i++) {
		int64_t j = i % parts * cols;
		multiply_tiles(b, m, v, n, i / parts, j, b->k->cout - j < cols ? b->k->cout - j : cols);
	}
#pragma omp for schedule(dynamic, 2)
	for (int64_t t = first; t < first + n; t++)
		tiles_out(b, m, first, t, t + 1);
}

int64_t lk_wino_apart(int64_t floats)
{
	return (lk_round_up(floats, 16) / 16 | 1) * 16;
}

struct lk_wino_job lk_wino_job_of(struct lk_dev *dev, const struct lk_conv_wino *k, const struct lk_view *out,
				  const struct lk_view *in)
{
	struct lk_wino_job b = { lk_image_gemm_of(dev), lk_image_wino_of(dev), k, in, out, NULL, NULL, NULL,
				 (out->n[1] + 3) / 4, (out->n[2] + 3) / 4, 0, lk_round_up(k->cin, 16) + 16,
				 lk_round_up(k->cout, 16) + 16, 0, 0 };
	b.tiles = out->n[0] * b.th * b.tw;
	return b;
}

int lk_conv_wino_run(struct lk_dev *dev, const struct lk_conv_wino *k, const struct lk_view *out, const struct lk_view *in,
		     const float *bias, const float *add)
{
	struct lk_wino_job b = lk_wino_job_of(dev, k, out, in);
	int threads = lk_cpu_of(dev)->threads;
	int64_t own = k->cin * k->cout > HEAVY ? HEAVY_TILES : OWN_TILES;
	int shared = threads > 1 && b.tiles < 2 * own * (int64_t)threads;
	int64_t most = shared ? SHARED_TILES : own, blocks = (b.tiles + most - 1) / most;
	b.bias = bias;
	b.add = add;
	int64_t per = lk_round_up((b.tiles + blocks - 1) / blocks, b.gemm->mr);
	b.vs = lk_wino_apart(per * b.ldv);
	b.ms = lk_wino_apart(per * b.ldm);
	int64_t room = 36 * (b.vs + b.ms), zeros = lk_round_up(k->cin, 16);
	float *s = lk_cpu_scratch(dev, (size_t)(zeros + room * (shared ? 1 : threads)) * sizeof *s);
	if (!s)
		return lk_fail(dev, LK_ENOMEM, "no memory for the tiles of a convolution");
	memset(s, 0, (size_t)zeros * sizeof *s);
	b.zeros = s;
	s += zeros;
	if (!shared) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
		for (int64_t t = 0; t < b.tiles; t += per) {
			float *v = s + room * lk_thread();
			own_block(&b, v, v + 36 * b.vs, t, b.tiles - t < per ? b.tiles - t : per);
		}
		return LK_OK;
	}
#pragma omp parallel num_threads(threads)
	for (int64_t t = 0; t < b.tiles; t += per)
		shared_block(&b, s, s + 36 * b.vs, t, b.tiles - t < per ? b.tiles - t : per);
	return LK_OK;
}

int lk_conv_wino_fits(const struct lk_conv_geom *g)
{
	return g->kh == 3 && g->kw == 3 && g->stride == 1 && g->cin >= 16 && g->cout >= 3;
}
