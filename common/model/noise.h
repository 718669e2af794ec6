/* noise.h - noise on the latents of a clip, and what a denoiser makes of its level: the diffusion objective of Vista (Gao et al.
 * 2024) in the frame of EDM (Karras et al. 2022).
 *
 *	lwm_noise_draw(&how, &shape, seed, step, sample, z, noisy, &sigma, &clean)    a noisy clip to train on
 *	c = lwm_precondition(sigma)                                                 how the net is fed, and what its output is
 *
 * Latents of a clip are (times, rows, columns, channels), fp32 on the host, of deviation 1 or near it. Pure.
 */
#ifndef LWM_MODEL_NOISE_H
#define LWM_MODEL_NOISE_H

#include <stdint.h>

struct lwm_latent_shape {
	int64_t times, rows, columns, channels;
};
static inline int64_t lwm_latent_count(const struct lwm_latent_shape *s) /* numbers of a clip */
{
	return s->times * s->rows * s->columns * s->channels;
}

enum { LWM_CLEAN_KINDS = 8 };
struct lwm_noise {
	double mean, deviation; /* of ln sigma, which is normal; one for each clip */
	double offset;          /* this times a normal number is added to the noise of a time and channel, in all places alike */
	/* the first 0, 1, 2 ... times of a clip stay clean, with these odds: `kinds` of them, at most the times of a clip */
	int kinds;
	int64_t odds[LWM_CLEAN_KINDS];
};
/* noisy = z + sigma (e + offset o), e normal for each number, o for each time and channel; of the first `clean` times noisy = z.
 * Drawn from (seed, step, sample) in this order: ln sigma, clean, then time by time its o, its e. */
void lwm_noise_draw(const struct lwm_noise *how, const struct lwm_latent_shape *s, uint64_t seed, uint64_t step, uint64_t sample,
		    const float *z, float *noisy, double *sigma, int64_t *clean);

/* D(x; sigma) = skip x + out F(in x; noise): what is denoised, of a net F whose target has deviation 1 at every sigma ("v"):
 *	skip = 1 / (s^2 + 1)   out = -s / sqrt(s^2 + 1)   in = 1 / sqrt(s^2 + 1)   noise = ln(s) / 4
 * and the squared error of D weighs (s^2 + 1) / s^2, which is that of F. */
struct lwm_precondition {
	double skip, out, in, noise, weight;
};
struct lwm_precondition lwm_precondition(double sigma); /* sigma > 0 */

#endif
