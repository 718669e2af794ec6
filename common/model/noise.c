/* noise.c - what noise.h says. */
#include "common/model/noise.h"

#include <math.h>

#include "common/base/rng.h"

static int64_t draw_clean(const struct lwm_noise *how, struct lwm_rng *r)
{
	int64_t all = 0, at;

	for (int i = 0; i < how->kinds; i++)
		all += how->odds[i];
	at = lwm_rng_below(r, all);
	for (int i = 0; i < how->kinds; i++) {
		if (at < how->odds[i])
			return i;
		at -= how->odds[i];
	}
	return 0;
}

/* The noise of one time is drawn whether it stays clean or not: what follows does not depend on that. */
static void add_noise(const struct lwm_noise *how, const struct lwm_latent_shape *s, struct lwm_rng *r, double sigma, float *x)
{
	struct lwm_rng shift = *r;

	for (int64_t c = 0; c < s->channels; c++)
		lwm_rng_normal(r);
	for (int64_t p = 0; p < s->rows * s->columns; p++) {
		struct lwm_rng o = shift;

		for (int64_t c = 0; c < s->channels; c++) {
			double e = lwm_rng_normal(r);

			x[p * s->channels + c] += (float)(sigma * (e + how->offset * lwm_rng_normal(&o)));
		}
	}
}

void lwm_noise_draw(const struct lwm_noise *how, const struct lwm_latent_shape *s, uint64_t seed, uint64_t step, uint64_t sample,
		    const float *z, float *noisy, double *sigma, int64_t *clean)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_NOISE, step, sample);
	int64_t time = s->rows * s->columns * s->channels;

	*sigma = exp(how->mean + how->deviation * lwm_rng_normal(&r));
	*clean = draw_clean(how, &r);
	for (int64_t i = 0; i < s->times * time; i++)
		noisy[i] = z[i];
	for (int64_t t = 0; t < s->times; t++)
		add_noise(how, s, &r, t < *clean ? 0 : *sigma, noisy + t * time);
}

struct lwm_precondition lwm_precondition(double sigma)
{
	double v = sigma * sigma + 1;

	return (struct lwm_precondition){ .skip = 1 / v, .out = -sigma / sqrt(v), .in = 1 / sqrt(v), .noise = log(sigma) / 4,
					  .weight = v / (sigma * sigma) };
}
