/* image_code.c - nearest code, pixels and the reconstruction loss on the CPU.
 *
 * Nearest code: |e|^2 - 2 z e for all codes against a panel of z by the packed product, in fp32. Rounding may swap
 * close codes, so every code within the rounding bound of the smallest is measured again in fp64: the answer is the
 * reference's.
 */
#include "kernels/cpu/image_int.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { CODES = 24, RUN = 1 << 13 }; /* codes a block; elements a thread takes at a time */

struct search {
	const struct lk_image_gemm *gemm;
	const struct lk_image_norm *hot;
	const float *z, *e;
	int64_t n, k, d, ldz, lde, blocks;
	float *norm; /* (k) |e|^2 */
	double bound; /* rounding of a distance = bound * |z| + slack */
	double slack;
	int32_t *idx;
};

/* The reference's formula. */
static double exact(const struct search *s, const float *z, const float *e)
{
	double zz = 0.0, ee = 0.0, ze = 0.0;
	for (int64_t j = 0; j < s->d; j++) {
		zz += (double)z[j] * z[j];
		ee += (double)e[j] * e[j];
		ze += (double)z[j] * e[j];
	}
	return zz + ee - 2.0 * ze;
}

/* dist (k, nr), least (blocks, nr): column i is z. */
static int32_t choose_code(const struct search *s, const float *z, const float *dist, const float *least, int i)
{
	int nr = s->gemm->nr;
	double best = INFINITY, low = INFINITY;
	int32_t at = 0;
	for (int64_t b = 0; b < s->blocks; b++)
		low = least[b * nr + i] < low ? least[b * nr + i] : low;
	double limit = low + 2.0 * (s->bound * sqrt(s->hot->sum_squares(z, s->d)) + s->slack);
	for (int64_t b = 0; b < s->blocks; b++) {
		if (!(least[b * nr + i] <= limit))
			continue;
		for (int64_t k = b * CODES; k < s->k && k < (b + 1) * CODES; k++) {
			if (!(dist[k * nr + i] <= limit))
				continue;
			double d = exact(s, z, s->e + k * s->lde);
			if (d < best) {
				best = d;
				at = (int32_t)k;
			}
		}
	}
	return at;
}

/* Rows [i0, i0 + rows) of z, at most one panel. */
static void search_panel(const struct search *s, int64_t i0, int64_t rows, float *packed, float *dist, float *least)
{
	int nr = s->gemm->nr;
	for (int64_t i = 0; i < nr; i++)
		for (int64_t j = 0; j < s->d; j++)
			packed[j * nr + i] = i < rows ? s->z[(i0 + i) * s->ldz + j] : 0.0f;
	for (int64_t b = 0; b < s->blocks; b++) {
		int64_t k = b * CODES, m = s->k - k < CODES ? s->k - k : CODES;
		s->gemm->gemm(m, nr, s->d, s->e + k * s->lde, s->lde, packed, s->d * nr, dist + k * nr, nr, 0);
		s->hot->distances(m, s->norm + k, dist + k * nr, least + b * nr);
	}
	for (int64_t i = 0; i < rows; i++)
		s->idx[i0 + i] = choose_code(s, s->z + (i0 + i) * s->ldz, dist, least, (int)i);
}

static void measure_codes(struct search *s, int threads)
{
	float most = 0.0f;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(max : most)
	for (int64_t k = 0; k < s->k; k++) {
		s->norm[k] = s->hot->sum_squares(s->e + k * s->lde, s->d);
		most = s->norm[k] > most ? s->norm[k] : most;
	}
	s->bound = 2.0 * (double)(s->d + 2) * FLT_EPSILON * sqrt(most);
	s->slack = (double)(s->d + 2) * FLT_EPSILON * most;
}

static int nearest_code(struct lk_dev *dev, int32_t *idx, const struct lk_view *z, const struct lk_view *codebook)
{
	struct search s = { lk_image_gemm_of(dev), lk_image_norm_of(dev), z->data, codebook->data, z->n[0], codebook->n[0],
			    z->n[1], z->stride[0], codebook->stride[0], 0, NULL, 0, 0, idx };
	int threads = lk_cpu_of(dev)->threads, nr = s.gemm->nr;
	s.blocks = (s.k + CODES - 1) / CODES;
	int64_t room = (s.d + s.k + s.blocks) * nr, norm = lk_round_up(s.k, 16);
	s.norm = lk_cpu_scratch(dev, (size_t)(norm + room * threads) * sizeof *s.norm);
	if (!s.norm)
		return lk_fail(dev, LK_ENOMEM, "no memory for the distances to %" PRId64 " codes", s.k);
	measure_codes(&s, threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
	for (int64_t i = 0; i < s.n; i += nr) {
		float *packed = s.norm + norm + room * lk_thread(), *dist = packed + s.d * nr;
		search_panel(&s, i, s.n - i < nr ? s.n - i : nr, packed, dist, dist + s.k * nr);
	}
	return LK_OK;
}

static int64_t count(const struct lk_view *v)
{
	int64_t n = 1;
	for (int32_t i = 0; i < v->ndim; i++)
		n *= v->n[i];
	return n;
}

static int pixels(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	const struct lk_image_norm *hot = lk_image_norm_of(dev);
	int threads = lk_cpu_of(dev)->threads;
	int64_t n = count(x);
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t i = 0; i < n; i += RUN) {
		int64_t m = n - i < RUN ? n - i : RUN;
		if (y->dtype == LK_U8)
			hot->to_bytes((uint8_t *)y->data + i, (const float *)x->data + i, m);
		else
			hot->from_bytes((float *)y->data + i, (const uint8_t *)x->data + i, m);
	}
	return LK_OK;
}

static int recon_loss(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
		      float w1, float w2, double *host_out)
{
	const struct lk_image_norm *hot = lk_image_norm_of(dev);
	const float *xd = x->data, *td = t->data;
	float *out = dx ? dx->data : NULL;
	int threads = lk_cpu_of(dev)->threads;
	int64_t n = count(x), runs = (n + RUN - 1) / RUN;
	double inv = 1.0 / (double)n, *sums = lk_cpu_scratch(dev, (size_t)runs * 2 * sizeof *sums);
	float c1 = (float)(w1 * inv), c2 = (float)(w2 * 2.0 * inv);
	if (!sums)
		return lk_fail(dev, LK_ENOMEM, "no memory for the sums of a loss");
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t r = 0; r < runs; r++) {
		int64_t i = r * RUN, m = n - i < RUN ? n - i : RUN;
		hot->loss(out ? out + i : NULL, xd + i, td + i, m, c1, c2, sums + 2 * r);
	}
	host_out[0] = host_out[1] = 0.0;
	for (int64_t r = 0; r < runs; r++) {
		host_out[0] += sums[2 * r];
		host_out[1] += sums[2 * r + 1];
	}
	host_out[0] *= inv;
	host_out[1] *= inv;
	return LK_OK;
}

void lk_cpu_fill_code(struct lk_ops *o)
{
	o->image.nearest_code = nearest_code;
	o->image.pixels = pixels;
	o->image.recon_loss = recon_loss;
}
