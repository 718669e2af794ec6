/* conv_plan.c - a convolution as matrix products: phases, taps, rows and splits of the scheme in conv_plan.h. */
#include "kernels/cuda/conv_plan.h"

enum {
	BLOCKS = 264,          /* two on each multiprocessor of a Hopper */
	LEAST_PIXELS = 512,    /* a shorter range does not pay for its partial sum */
	SPLIT_BYTES = 1 << 28, /* of all partial sums */
};

static int64_t round_up(int64_t a, int64_t b)
{
	return (a + b - 1) / b * b;
}

int32_t lk_conv_steps(const struct lk_conv_dim *m)
{
	int32_t common = m->up == 2 && m->stride % 2 == 0 ? 2 : 1; /* greatest common divisor of up and stride */

	return (m->backward ? m->stride : m->up) / common;
}

struct lk_conv_axis lk_conv_axis_of(const struct lk_conv_dim *m, int32_t phase, int64_t dst)
{
	struct lk_conv_axis a = { .step = lk_conv_steps(m), .phase = phase };
	int32_t lo, last, over = m->backward ? m->stride : m->up;

	a.stride = (m->backward ? m->up : m->stride) * a.step / over;
	a.count = dst > phase ? (int32_t)((dst - phase + a.step - 1) / a.step) : 0;
	if (m->backward) {
		lo = m->up * phase + m->pad - (m->k - 1);
		a.first = -lk_floor_div(-lo, over);
		last = lk_floor_div(m->up * phase + m->up - 1 + m->pad, over);
	} else {
		a.first = lk_floor_div(phase * m->stride - m->pad, over);
		last = lk_floor_div(phase * m->stride + m->k - 1 - m->pad, over);
	}
	a.taps = last >= a.first ? last - a.first + 1 : 0;
	return a;
}

struct lk_conv_dim lk_conv_rows(const struct lk_conv_geom *g, int backward)
{
	struct lk_conv_dim m = { g->kh, g->pad_top, g->stride, g->upsample, backward };

	return m;
}

struct lk_conv_dim lk_conv_cols(const struct lk_conv_geom *g, int backward)
{
	struct lk_conv_dim m = { g->kw, g->pad_left, g->stride, g->upsample, backward };

	return m;
}

struct lk_conv_phase lk_conv_phase_of(const struct lk_conv_geom *g, int backward, int32_t i, int64_t h, int64_t w)
{
	struct lk_conv_dim rows = lk_conv_rows(g, backward), cols = lk_conv_cols(g, backward);
	int32_t steps = lk_conv_steps(&rows);
	struct lk_conv_phase p = { .y = lk_conv_axis_of(&rows, i / steps, h), .x = lk_conv_axis_of(&cols, i % steps, w) };
	int64_t c = round_up(backward ? g->cout : g->cin, 8);

	p.k = round_up((int64_t)p.y.taps * p.x.taps * c, LK_CONV_BK);
	return p;
}

int64_t lk_conv_packed(const struct lk_conv_geom *g, int backward)
{
	struct lk_conv_dim rows = lk_conv_rows(g, backward);
	int32_t steps = lk_conv_steps(&rows);
	int64_t sum = 0;

	for (int32_t i = 0; i < steps * steps; i++)
		sum += lk_conv_phase_of(g, backward, i, 1, 1).k * (backward ? g->cin : g->cout);
	return sum;
}

/* Narrow tiles read more shared memory for each product: they have to save columns to be worth it. */
int lk_conv_tile(int64_t n)
{
	int64_t wide = round_up(n, 128) * 8, middle = round_up(n, 64) * 9, narrow = round_up(n, 32) * 12;

	if (wide <= middle && wide <= narrow)
		return 128;
	return middle <= narrow ? 64 : 32;
}

int64_t lk_conv_splits(int64_t tiles, int64_t pixels, int64_t size)
{
	int64_t want = (BLOCKS + tiles - 1) / tiles, most = pixels / LEAST_PIXELS;
	int64_t fit = SPLIT_BYTES / ((int64_t)sizeof(float) * size);

	if (want > most)
		want = most;
	if (want > fit)
		want = fit;
	return want < 1 ? 1 : want;
}
