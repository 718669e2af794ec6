/* Random views of clips, and patches. */
#include "common/media/augment.h"

#include <math.h>

struct crop {
	double x, y, w, h; /* in pixels */
	int mirrored;
};

static double uniform(struct lwm_rng *r, double lo, double hi)
{
	return lo + (hi - lo) * lwm_rng_double(r);
}

/* Where the drawn shape is longer than the frame it is cut to it. */
static struct crop draw_crop(const struct lwm_augment *a, struct lwm_rng *r)
{
	double side = (double)a->side, area = uniform(r, a->min_area, 1) * side * side;
	double ratio = exp(uniform(r, log(3.0 / 4), log(4.0 / 3)));
	struct crop c = { .w = fmin(side, sqrt(area * ratio)), .h = fmin(side, sqrt(area / ratio)) };

	c.x = uniform(r, 0, side - c.w);
	c.y = uniform(r, 0, side - c.h);
	c.mirrored = lwm_rng_double(r) < a->flip;
	return c;
}

/* The value at a place between pixels, whose middles are at halves; beyond the outer ones theirs. */
static double sample_at(const uint8_t *frame, int64_t side, double x, double y, int colour)
{
	double most = (double)(side - 1), fx = fmin(most, fmax(0, x - 0.5)), fy = fmin(most, fmax(0, y - 0.5));
	int64_t x0 = (int64_t)fx, y0 = (int64_t)fy, x1 = x0 + (x0 + 1 < side), y1 = y0 + (y0 + 1 < side);
	double ax = fx - (double)x0, ay = fy - (double)y0;
	double top = (1 - ax) * frame[(y0 * side + x0) * 3 + colour] + ax * frame[(y0 * side + x1) * 3 + colour];
	double low = (1 - ax) * frame[(y1 * side + x0) * 3 + colour] + ax * frame[(y1 * side + x1) * 3 + colour];

	return (1 - ay) * top + ay * low;
}

static uint8_t to_byte(double v)
{
	return (uint8_t)fmin(255, fmax(0, floor(v + 0.5)));
}

static void crop_frame(const struct crop *c, int64_t side, const uint8_t *from, uint8_t *to)
{
	for (int64_t y = 0; y < side; y++)
		for (int64_t x = 0; x < side; x++)
			for (int k = 0; k < 3; k++) {
				double at = (double)(c->mirrored ? side - 1 - x : x) + 0.5, n = (double)side;

				to[(y * side + x) * 3 + k] = to_byte(sample_at(from, side, c->x + at * c->w / n,
									       c->y + ((double)y + 0.5) * c->h / n, k));
			}
}

static double grey_of(const uint8_t *p)
{
	return 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
}

static void change_colours(uint8_t *p, int64_t pixels, double brightness, double contrast, int grey)
{
	double mean = 0;

	for (int64_t i = 0; i < pixels; i++)
		mean += grey_of(p + 3 * i) * brightness / (double)pixels;
	for (int64_t i = 0; i < pixels; i++) {
		double g = grey_of(p + 3 * i);

		for (int k = 0; k < 3; k++)
			p[3 * i + k] = to_byte(mean + contrast * (brightness * (grey ? g : (double)p[3 * i + k]) - mean));
	}
}

void lwm_augment(const struct lwm_augment *a, struct lwm_rng *r, const uint8_t *frames, int64_t n, uint8_t *view)
{
	int64_t one = a->side * a->side * 3;
	struct crop c = draw_crop(a, r);
	double brightness = uniform(r, 1 - a->jitter, 1 + a->jitter), contrast = uniform(r, 1 - a->jitter, 1 + a->jitter);
	int grey = lwm_rng_double(r) < a->grey;

	for (int64_t i = 0; i < n; i++)
		crop_frame(&c, a->side, frames + i * one, view + i * one);
	if (a->jitter > 0 || grey)
		change_colours(view, n * a->side * a->side, brightness, contrast, grey);
}

/* Of row i of patches, in the order of their numbers: the pixel in the frames that it begins with, times 3. */
static int64_t row_place(const struct lwm_patch_grid *g, int64_t i)
{
	int64_t across = g->side / g->patch, rows = g->patch_frames * g->patch, token = i / rows, inside = i % rows;
	int64_t frame = token / (across * across) * g->patch_frames + inside / g->patch;
	int64_t y = token / across % across * g->patch + inside % g->patch, x = token % across * g->patch;

	return ((frame * g->side + y) * g->side + x) * 3;
}

void lwm_patches(const struct lwm_patch_grid *g, const uint8_t *frames, float *out)
{
	int64_t row = g->patch * 3, rows = lwm_patch_tokens(g) * lwm_patch_numbers(g) / row;

	for (int64_t i = 0; i < rows; i++) {
		const uint8_t *p = frames + row_place(g, i);

		for (int64_t k = 0; k < row; k++)
			out[i * row + k] = (float)p[k] / 127.5f - 1;
	}
}

void lwm_patches_join(const struct lwm_patch_grid *g, const float *patches, uint8_t *frames)
{
	int64_t row = g->patch * 3, rows = lwm_patch_tokens(g) * lwm_patch_numbers(g) / row;

	for (int64_t i = 0; i < rows; i++) {
		uint8_t *p = frames + row_place(g, i);

		for (int64_t k = 0; k < row; k++)
			p[k] = to_byte(((double)patches[i * row + k] + 1) * 127.5);
	}
}

/* Of one colour of a patch: its mean, and what it is divided by. */
static double measure_colour(const float *p, int64_t pixels, double *by)
{
	double mean = 0, square = 0;

	for (int64_t k = 0; k < pixels; k++)
		mean += (double)p[3 * k] / (double)pixels;
	for (int64_t k = 0; k < pixels; k++)
		square += ((double)p[3 * k] - mean) * ((double)p[3 * k] - mean);
	*by = sqrt(square / (double)(pixels > 1 ? pixels - 1 : 1)) + 1e-6;
	return mean;
}

void lwm_patches_normalise(const struct lwm_patch_grid *g, float *patches)
{
	int64_t pixels = lwm_patch_numbers(g) / 3, all = lwm_patch_tokens(g) * 3;

	for (int64_t i = 0; i < all; i++) {
		float *p = patches + i / 3 * pixels * 3 + i % 3;
		double by, mean = measure_colour(p, pixels, &by);

		for (int64_t k = 0; k < pixels; k++)
			p[3 * k] = (float)(((double)p[3 * k] - mean) / by);
	}
}

void lwm_patches_restore(const struct lwm_patch_grid *g, const float *as, float *patches)
{
	int64_t pixels = lwm_patch_numbers(g) / 3, all = lwm_patch_tokens(g) * 3;

	for (int64_t i = 0; i < all; i++) {
		int64_t at = i / 3 * pixels * 3 + i % 3;
		double by, mean = measure_colour(as + at, pixels, &by);

		for (int64_t k = 0; k < pixels; k++)
			patches[at + 3 * k] = (float)((double)patches[at + 3 * k] * by + mean);
	}
}

/* Place i is seen when fewer than `kept` places come before it in a permutation that is drawn. */
void lwm_patches_tube(const struct lwm_patch_grid *g, int64_t kept, uint64_t seed, uint64_t step, uint64_t sample, int32_t *out)
{
	int64_t places = (g->side / g->patch) * (g->side / g->patch), times = g->frames / g->patch_frames, n = 0;
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_MASK, step, sample);
	uint64_t order = lwm_rng_u64(&r);

	for (int64_t i = 0; i < places; i++)
		if (lwm_rng_permute(seed, LWM_RNG_MASK, order, places, i) < kept)
			out[n++] = (int32_t)i;
	for (int64_t t = 1; t < times; t++)
		for (int64_t i = 0; i < n; i++)
			out[t * n + i] = (int32_t)(t * places + out[i]);
}

/* One window of one colour. */
static double window_ssim(const uint8_t *a, const uint8_t *b, int64_t width, int64_t w, int64_t h)
{
	const double c1 = 0.01 * 255 * 0.01 * 255, c2 = 0.03 * 255 * 0.03 * 255;
	double n = (double)(w * h), sa = 0, sb = 0, aa = 0, bb = 0, ab = 0, by = n > 1 ? n - 1 : 1;

	for (int64_t y = 0; y < h; y++)
		for (int64_t x = 0; x < w; x++) {
			double p = a[(y * width + x) * 3], q = b[(y * width + x) * 3];

			sa += p;
			sb += q;
			aa += p * p;
			bb += q * q;
			ab += p * q;
		}
	double ma = sa / n, mb = sb / n, va = (aa - sa * ma) / by, vb = (bb - sb * mb) / by, cov = (ab - sa * mb) / by;
	return (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
}

double lwm_ssim(const uint8_t *a, const uint8_t *b, int64_t width, int64_t height)
{
	int64_t w = width < 7 ? width : 7, h = height < 7 ? height : 7;
	double sum = 0;

	for (int64_t y = 0; y + h <= height; y++)
		for (int64_t x = 0; x + w <= width; x++)
			for (int c = 0; c < 3; c++)
				sum += window_ssim(a + (y * width + x) * 3 + c, b + (y * width + x) * 3 + c, width, w, h);
	return sum / (double)((width - w + 1) * (height - h + 1) * 3);
}
