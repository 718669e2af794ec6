/* Frames resized with Lanczos windows, in the fixed point of Pillow. */
#include "common/media/lanczos.h"

#include <math.h>
#include <stdlib.h>

enum { BITS = 22 /* of a weight behind the point */, TAPS = 3 /* of the window to each side */ };

/* For each of n results: how many weights, from which value on. */
struct weights {
	int *first, *count, most; /* weights lie `most` apart */
	int32_t *w;
};

static double window(double x)
{
	if (x == 0)
		return 1;
	if (x < -TAPS || x >= TAPS)
		return 0;
	double a = x * M_PI, b = a / TAPS;
	return sin(a) / a * (sin(b) / b);
}

static void release_weights(struct weights *k)
{
	free(k->first);
	free(k->count);
	free(k->w);
}

/* One result: weights of the values from first on, their sum 1. */
static void fill_weights(struct weights *k, double *one, int i, int from, double scale, double wide)
{
	double center = (i + 0.5) * scale, sum = 0;
	int first = (int)(center - TAPS * wide + 0.5), end = (int)(center + TAPS * wide + 0.5);
	first = first < 0 ? 0 : first;
	end = end > from ? from : end;
	for (int x = first; x < end; x++)
		sum += one[x - first] = window((x - center + 0.5) / wide);
	k->first[i] = first;
	k->count[i] = end - first;
	for (int x = 0; x < end - first; x++) {
		double v = one[x] * (sum != 0 ? 1 / sum : 1) * (1 << BITS);
		k->w[(int64_t)i * k->most + x] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
	}
}

static int make_weights(struct weights *k, int from, int to, struct lwm_err *e)
{
	double scale = (double)from / to, wide = scale < 1 ? 1 : scale;
	k->most = (int)ceil(TAPS * wide) * 2 + 1;
	k->first = calloc((size_t)to, sizeof *k->first);
	k->count = calloc((size_t)to, sizeof *k->count);
	k->w = calloc((size_t)to * (size_t)k->most, sizeof *k->w);
	double *one = calloc((size_t)k->most, sizeof *one);
	int rc = k->first && k->count && k->w && one ? 0 : lwm_fail_memory(e, "weights of a frame");
	for (int i = 0; i < to && rc == 0; i++)
		fill_weights(k, one, i, from, scale, wide);
	free(one);
	return rc;
}

static uint8_t narrow(int64_t sum)
{
	int64_t v = sum >> BITS;
	return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* Result i of a line of values that lie `step` bytes apart. */
static uint8_t weigh(const struct weights *k, int i, const uint8_t *line, int64_t step)
{
	const int32_t *w = k->w + (int64_t)i * k->most;
	int64_t sum = 1 << (BITS - 1);
	line += k->first[i] * step;
	for (int x = 0; x < k->count[i]; x++)
		sum += (int64_t)w[x] * line[x * step];
	return narrow(sum);
}

struct lwm_box lwm_crop_to_aspect(int width, int height, int to_width, int to_height)
{
	double have = (double)width / height, want = (double)to_width / to_height;
	struct lwm_box b = { 0, 0, width, height };
	if (have > want) {
		int w = (int)(want * height);
		b.x = (width - w) / 2;
		b.width = (width + w) / 2 - b.x;
	} else if (have < want) {
		int h = (int)((double)to_height / to_width * width);
		b.y = (height - h) / 2;
		b.height = (height + h) / 2 - b.y;
	}
	b.width = b.width < 1 ? 1 : b.width; /* of a frame of a few pixels */
	b.height = b.height < 1 ? 1 : b.height;
	return b;
}

int lwm_lanczos(const uint8_t *rgb, int width, int height, struct lwm_box box, uint8_t *out, int to_width, int to_height,
		struct lwm_err *e)
{
	struct weights across = { 0 }, down = { 0 };
	uint8_t *rows = malloc((size_t)box.height * (size_t)to_width * 3); /* as wide as the result, as high as the box */
	int rc;
	LWM_BUG_ON(box.x < 0 || box.y < 0 || box.x + box.width > width || box.y + box.height > height);
	if (!rows)
		LWM_GO(lwm_fail_memory(e, "rows of a frame"));
	LWM_GO(make_weights(&across, box.width, to_width, e));
	LWM_GO(make_weights(&down, box.height, to_height, e));
	/* a direction in which nothing changes has one weight of 1 a pixel: it is copied */
	for (int y = 0; y < box.height; y++)
		for (int x = 0; x < to_width; x++)
			for (int c = 0; c < 3; c++)
				rows[((int64_t)y * to_width + x) * 3 + c] =
					weigh(&across, x, rgb + ((int64_t)(box.y + y) * width + box.x) * 3 + c, 3);
	for (int y = 0; y < to_height; y++)
		for (int x = 0; x < to_width * 3; x++)
			out[(int64_t)y * to_width * 3 + x] = weigh(&down, y, rows + x, (int64_t)to_width * 3);
out:
	free(rows);
	release_weights(&across);
	release_weights(&down);
	return rc;
}
