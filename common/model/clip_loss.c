/* clip_loss.c - the loss of clip_loss.h and its gradient. H is symmetric, so that of the third part is H H d; both it and the sum
 * of (H d)^2 (Parseval) come from one transform of d. */
#include "common/model/clip_loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct lwm_clip_loss {
	struct lwm_latent_shape s;
	double structure;
	bool dynamics;
	double *d, *slope, *norm; /* (n) each: p - z; 1/2 n/w of the gradient; of channels */
	double *row_cos, *row_sin, *column_cos, *column_sin; /* (rows), (columns): of 2 pi k / rows */
	double *pass;                                        /* (rows, columns): factor of H by frequency */
	double *re, *im, *half_re, *half_im;                 /* (rows, columns) */
};

/* Numbers of double precision in all. */
static int64_t doubles_of(const struct lwm_latent_shape *s)
{
	return 2 * lwm_latent_count(s) + s->channels + 2 * (s->rows + s->columns) + 5 * s->rows * s->columns;
}

int64_t lwm_clip_loss_bytes(const struct lwm_latent_shape *s)
{
	return doubles_of(s) * (int64_t)sizeof(double);
}

static void make_angles(double *c, double *s, int64_t n)
{
	for (int64_t k = 0; k < n; k++) {
		c[k] = cos(2 * M_PI * (double)k / (double)n);
		s[k] = sin(2 * M_PI * (double)k / (double)n);
	}
}

static double passes(int64_t j, int64_t n, int64_t k, int64_t m)
{
	double y = 2 * (double)((j + n / 2) % n) / (double)n - 1, x = 2 * (double)((k + m / 2) % m) / (double)m - 1;

	return y * y + x * x > 0.5;
}

/* Of a real clip the real part counts: the factor of a frequency is the mean over it and its opposite, which differ where a size is
 * odd. */
static void make_pass(struct lwm_clip_loss *l)
{
	int64_t n = l->s.rows, m = l->s.columns;

	for (int64_t j = 0; j < n; j++)
		for (int64_t k = 0; k < m; k++)
			l->pass[j * m + k] = (passes(j, n, k, m) + passes((n - j) % n, n, (m - k) % m, m)) / 2;
}

int lwm_clip_loss_new(struct lwm_clip_loss **out, const struct lwm_latent_shape *s, double structure, bool dynamics,
		      struct lwm_err *e)
{
	struct lwm_clip_loss *l = calloc(1, sizeof *l);
	int64_t n = lwm_latent_count(s), plane = s->rows * s->columns;

	*out = NULL;
	if (!l || !(l->d = malloc((size_t)doubles_of(s) * sizeof *l->d))) {
		free(l);
		return lwm_fail_memory(e, "the loss of a clip");
	}
	l->s = *s;
	l->structure = structure;
	l->dynamics = dynamics;
	l->slope = l->d + n;
	l->norm = l->slope + n;
	l->row_cos = l->norm + s->channels;
	l->row_sin = l->row_cos + s->rows;
	l->column_cos = l->row_sin + s->rows;
	l->column_sin = l->column_cos + s->columns;
	l->pass = l->column_sin + s->columns;
	l->re = l->pass + plane;
	l->im = l->re + plane;
	l->half_re = l->im + plane;
	l->half_im = l->half_re + plane;
	make_angles(l->row_cos, l->row_sin, s->rows);
	make_angles(l->column_cos, l->column_sin, s->columns);
	make_pass(l);
	*out = l;
	return 0;
}

void lwm_clip_loss_free(struct lwm_clip_loss *l)
{
	if (!l)
		return;
	free(l->d);
	free(l);
}

/* ---- motion ---- */

/* l->slope becomes (1 + A) d. Returns the sum of A d^2. */
static double weigh_motion(struct lwm_clip_loss *l)
{
	int64_t c = l->s.channels, time = l->s.rows * l->s.columns * c, n = lwm_latent_count(&l->s);
	double sum = 0;

	memcpy(l->slope, l->d, (size_t)n * sizeof *l->d);
	if (!l->dynamics)
		return 0;
	memset(l->norm, 0, (size_t)c * sizeof *l->norm);
	for (int64_t i = time; i < n; i++)
		l->norm[i % c] += pow(l->d[i] - l->d[i - time], 4);
	for (int64_t k = 0; k < c; k++)
		l->norm[k] = fmax(sqrt(l->norm[k]), 1e-12);
	for (int64_t i = time; i < n; i++) {
		double a = (l->d[i] - l->d[i - time]) * (l->d[i] - l->d[i - time]) / l->norm[i % c];

		l->slope[i] += a * l->d[i];
		sum += a * l->d[i] * l->d[i];
	}
	return sum;
}

/* ---- edges ---- */

/* One dimension: to[j] = sum over k of from[k] exp(sign 2 pi i j k / n), both at `step` from one to the next. */
static void transform_line(const double *re, const double *im, double *to_re, double *to_im, int64_t n, int64_t step,
			   const double *c, const double *s, double sign)
{
	for (int64_t j = 0; j < n; j++) {
		double x = 0, y = 0;

		for (int64_t k = 0, at = 0; k < n; k++) {
			double a = re[k * step], b = im[k * step], sine = sign * s[at];

			x += a * c[at] - b * sine;
			y += a * sine + b * c[at];
			at += j;
			at -= at >= n ? n : 0;
		}
		to_re[j * step] = x;
		to_im[j * step] = y;
	}
}

/* re, im in place. */
static void transform_plane(struct lwm_clip_loss *l, double sign)
{
	int64_t n = l->s.rows, m = l->s.columns;

	for (int64_t r = 0; r < n; r++)
		transform_line(l->re + r * m, l->im + r * m, l->half_re + r * m, l->half_im + r * m, m, 1, l->column_cos,
			       l->column_sin, sign);
	for (int64_t k = 0; k < m; k++)
		transform_line(l->half_re + k, l->half_im + k, l->re + k, l->im + k, n, m, l->row_cos, l->row_sin, sign);
}

/* The plane of numbers that begins at `first`: returns the sum of (H d)^2, and with `back` adds structure H H d to l->slope. */
static double filter_plane(struct lwm_clip_loss *l, int64_t first, bool back)
{
	int64_t plane = l->s.rows * l->s.columns, c = l->s.channels;
	double sum = 0, scale = 1 / (double)plane;

	for (int64_t i = 0; i < plane; i++) {
		l->re[i] = l->d[first + i * c];
		l->im[i] = 0;
	}
	transform_plane(l, -1);
	for (int64_t i = 0; i < plane; i++) {
		double p = l->pass[i] * l->pass[i];

		sum += p * (l->re[i] * l->re[i] + l->im[i] * l->im[i]) * scale;
		l->re[i] *= p * scale;
		l->im[i] *= p * scale;
	}
	if (!back)
		return sum;
	transform_plane(l, 1);
	for (int64_t i = 0; i < plane; i++)
		l->slope[first + i * c] += l->structure * l->re[i];
	return sum;
}

/* ---- both ---- */

void lwm_clip_loss(struct lwm_clip_loss *l, const float *z, const float *p, int64_t clean, double w, struct lwm_clip_parts *parts,
		   float *gradient)
{
	int64_t n = lwm_latent_count(&l->s), time = n / l->s.times;
	double square = 0, each = w / (double)n;

	for (int64_t i = 0; i < n; i++) {
		l->d[i] = i < clean * time ? 0 : (double)p[i] - (double)z[i];
		square += l->d[i] * l->d[i];
	}
	parts->plain += each * square;
	parts->dynamics += each * weigh_motion(l);
	for (int64_t t = clean; t < l->s.times && l->structure > 0; t++)
		for (int64_t c = 0; c < l->s.channels; c++)
			parts->structure += each * l->structure * filter_plane(l, t * time + c, gradient);
	for (int64_t i = 0; i < n && gradient; i++)
		gradient[i] = (float)(2 * each * l->slope[i]);
}
