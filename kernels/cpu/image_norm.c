/* image_norm.c - group norm on the CPU.
 *
 * An image is cut into parts of PIXELS pixels whatever the threads; a part gives fp32 sums for each channel, and the
 * parts of an image are added in fp64 in order. An image that fits the second-level cache is done by one thread from
 * the sums to the result; of a larger one all threads take parts.
 */
#include "kernels/cpu/image_int.h"

#include <math.h>
#include <string.h>

enum { PIXELS = 256, SMALL = 1 << 20, COEFS = 7 };

struct norm {
	const struct lk_image_norm *hot;
	const float *x, *dy, *scale, *bias;
	float *out, *mean, *rstd;
	int64_t n, pixels, c, ld, parts; /* ld: channels padded */
	int groups, silu;
	float eps;
	float *sums;  /* (n, parts, 2, ld) */
	float *coefs; /* (n, COEFS, ld): mean rstd gain scale bias m1 m2 */
	double *tot;  /* (n, 2, ld): gradients of scale and bias of each image */
};

static int64_t part_pixels(const struct norm *g, int64_t part)
{
	return g->pixels - part * PIXELS < PIXELS ? g->pixels - part * PIXELS : PIXELS;
}

static int64_t part_at(const struct norm *g, int64_t img, int64_t part)
{
	return (img * g->pixels + part * PIXELS) * g->c;
}

static struct lk_gn_coef coefs_of(const struct norm *g, int64_t img)
{
	float *f = g->coefs + img * COEFS * g->ld;
	struct lk_gn_coef k = { f, f + g->ld, f + 2 * g->ld, f + 3 * g->ld, f + 4 * g->ld };
	return k;
}

/* Sum of row `which` (0, 1) over the parts of an image, channel j. */
static double total_of(const struct norm *g, int64_t img, int which, int64_t j)
{
	const float *s = g->sums + (img * g->parts * 2 + which) * g->ld + j;
	double t = 0.0;
	for (int64_t p = 0; p < g->parts; p++)
		t += s[p * 2 * g->ld];
	return t;
}

static void fill_coefs(const struct norm *g, int64_t img)
{
	float *f = g->coefs + img * COEFS * g->ld;
	for (int64_t j = 0; j < g->c; j++) {
		int64_t q = img * g->groups + j / (g->c / g->groups);
		f[j] = g->mean[q];
		f[g->ld + j] = g->rstd[q];
		f[2 * g->ld + j] = g->rstd[q] * g->scale[j];
		f[3 * g->ld + j] = g->scale[j];
		f[4 * g->ld + j] = g->bias[j];
	}
}

/* The first pixel is the shift that keeps the squares small: variance = mean of squares around it, corrected. */
static void fwd_part(const struct norm *g, int64_t img, int64_t part)
{
	float *s = g->sums + (img * g->parts + part) * 2 * g->ld;
	g->hot->stats(g->x + part_at(g, img, part), part_pixels(g, part), g->c, g->x + img * g->pixels * g->c, s,
		      s + g->ld);
}

static void fwd_finish(const struct norm *g, int64_t img)
{
	int64_t cg = g->c / g->groups;
	const float *shift = g->x + img * g->pixels * g->c;
	double n = (double)g->pixels;
	for (int64_t q = 0; q < g->groups; q++) {
		double m = 0.0, sq = 0.0;
		for (int64_t j = q * cg; j < (q + 1) * cg; j++)
			m += shift[j] + total_of(g, img, 0, j) / n;
		m /= (double)cg;
		for (int64_t j = q * cg; j < (q + 1) * cg; j++) {
			double s = total_of(g, img, 0, j), d = shift[j] + s / n - m;
			sq += total_of(g, img, 1, j) - s * s / n + n * d * d;
		}
		g->mean[img * g->groups + q] = (float)m;
		g->rstd[img * g->groups + q] = (float)(1.0 / sqrt(fmax(sq, 0.0) / (n * (double)cg) + g->eps));
	}
	fill_coefs(g, img);
}

static void fwd_apply(const struct norm *g, int64_t img, int64_t part)
{
	struct lk_gn_coef k = coefs_of(g, img);
	int64_t at = part_at(g, img, part);
	g->hot->apply(g->out + at, g->x + at, part_pixels(g, part), g->c, &k, g->silu);
}

static void bwd_part(const struct norm *g, int64_t img, int64_t part)
{
	struct lk_gn_coef k = coefs_of(g, img);
	float *s = g->sums + (img * g->parts + part) * 2 * g->ld;
	int64_t at = part_at(g, img, part);
	g->hot->grad_sums(g->out + at, g->dy + at, g->x + at, part_pixels(g, part), g->c, &k, g->silu, s, s + g->ld);
}

static void bwd_finish(const struct norm *g, int64_t img)
{
	int64_t cg = g->c / g->groups;
	double *ds = g->tot + img * 2 * g->ld, *db = ds + g->ld, n = (double)g->pixels * (double)cg;
	float *m1 = g->coefs + (img * COEFS + 5) * g->ld, *m2 = m1 + g->ld;
	for (int64_t q = 0; q < g->groups; q++) {
		double s1 = 0.0, s2 = 0.0, rstd = g->rstd[img * g->groups + q];
		for (int64_t j = q * cg; j < (q + 1) * cg; j++) {
			ds[j] = total_of(g, img, 0, j);
			db[j] = total_of(g, img, 1, j);
			s1 += db[j] * g->scale[j];
			s2 += ds[j] * g->scale[j];
		}
		for (int64_t j = q * cg; j < (q + 1) * cg; j++) {
			m1[j] = (float)(rstd * s1 / n);
			m2[j] = (float)(rstd * s2 / n);
		}
	}
}

static void bwd_apply(const struct norm *g, int64_t img, int64_t part)
{
	struct lk_gn_coef k = coefs_of(g, img);
	const float *m1 = g->coefs + (img * COEFS + 5) * g->ld;
	int64_t at = part_at(g, img, part);
	g->hot->grad_apply(g->out + at, g->x + at, part_pixels(g, part), g->c, &k, m1, m1 + g->ld);
}

typedef void stage(const struct norm *g, int64_t img, int64_t part);
typedef void finish(const struct norm *g, int64_t img);

static void run_stages(const struct norm *g, int threads, stage *sums, finish *middle, stage *apply)
{
	if (g->pixels * g->c * (int64_t)sizeof(float) <= SMALL && g->n >= threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
		for (int64_t img = 0; img < g->n; img++) {
			for (int64_t p = 0; p < g->parts; p++)
				sums(g, img, p);
			middle(g, img);
			for (int64_t p = 0; p < g->parts; p++)
				apply(g, img, p);
		}
		return;
	}
#pragma omp parallel num_threads(threads)
	{
#pragma omp for schedule(dynamic, 4)
		for (int64_t i = 0; i < g->n * g->parts; i++)
			sums(g, i / g->parts, i % g->parts);
#pragma omp for schedule(static)
		for (int64_t img = 0; img < g->n; img++)
			middle(g, img);
#pragma omp for schedule(dynamic, 4)
		for (int64_t i = 0; i < g->n * g->parts; i++)
			apply(g, i / g->parts, i % g->parts);
	}
}

static int prepare_norm(struct lk_dev *dev, struct norm *g)
{
	g->ld = lk_round_up(g->c, 16);
	g->parts = (g->pixels + PIXELS - 1) / PIXELS;
	int64_t tot = g->n * 2 * g->ld, sums = g->n * g->parts * 2 * g->ld, coefs = g->n * COEFS * g->ld;
	g->tot = lk_cpu_scratch(dev, (size_t)tot * sizeof *g->tot + (size_t)(sums + coefs) * sizeof *g->sums);
	if (!g->tot)
		return lk_fail(dev, LK_ENOMEM, "no memory for the sums of a group norm");
	g->sums = (float *)(g->tot + tot);
	g->coefs = g->sums + sums;
	return LK_OK;
}

static int groupnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *mean, float *rstd,
			 const struct lk_view *x, const float *scale, const float *bias, int groups, float eps, int silu)
{
	struct norm g = { lk_image_norm_of(dev), x->data, NULL, scale, bias, y->data, mean, rstd, x->n[0],
			  x->n[1] * x->n[2], x->n[3], 0, 0, groups, silu, eps, NULL, NULL, NULL };
	int rc = prepare_norm(dev, &g);
	if (!rc)
		run_stages(&g, lk_cpu_of(dev)->threads, fwd_part, fwd_finish, fwd_apply);
	return rc;
}

static int groupnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dscale, float *dbias,
			 const struct lk_view *dy, const struct lk_view *x, const float *mean, const float *rstd,
			 const float *scale, const float *bias, int groups, float eps, int silu)
{
	struct norm g = { lk_image_norm_of(dev), x->data, dy->data, scale, bias, dx->data, NULL, NULL, x->n[0],
			  x->n[1] * x->n[2], x->n[3], 0, 0, groups, silu, eps, NULL, NULL, NULL };
	int rc = prepare_norm(dev, &g);
	if (rc)
		return rc;
	g.mean = (float *)mean; /* only read by the backward */
	g.rstd = (float *)rstd;
	for (int64_t img = 0; img < g.n; img++)
		fill_coefs(&g, img);
	run_stages(&g, lk_cpu_of(dev)->threads, bwd_part, bwd_finish, bwd_apply);
	for (int64_t j = 0; j < g.c; j++) {
		double ds = 0.0, db = 0.0;
		for (int64_t img = 0; img < g.n; img++) {
			ds += g.tot[img * 2 * g.ld + j];
			db += g.tot[(img * 2 + 1) * g.ld + j];
		}
		dscale[j] += (float)ds;
		dbias[j] += (float)db;
	}
	return LK_OK;
}

void lk_cpu_fill_groupnorm(struct lk_ops *o)
{
	o->image.groupnorm_fwd = groupnorm_fwd;
	o->image.groupnorm_bwd = groupnorm_bwd;
}
