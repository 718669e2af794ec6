/* euler.h - clips drawn from noise with a denoiser: Euler steps along the probability flow (Karras et al. 2022, algorithm 1 without
 * churn), in rounds that continue each other (Gao et al. 2024, Vista).
 *
 *	lwm_rollout_draw(&how, &shape, denoise, ctx, seed, sample, known, given, out, e)
 *
 * A round draws T times: x = sqrt(1 + sigma_max^2) e with e normal, then for each of the steps
 *
 *	sigma_i = (sigma_max^(1/rho) + i / (steps - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,  sigma_steps = 0
 *	x += (sigma_{i+1} - sigma_i) (x - D(x; sigma_i)) / sigma_i
 *
 * before each of which the first times take the values that are known: `given` ones in the first round, in each other one the last
 * `overlap` of the round before. So n rounds make n (T - overlap) + overlap times.
 *
 * Guidance (Ho and Salimans 2022): D = U + g (C - U), where C is D with the known times clean and U is D with no clean time, known
 * ones as noisy as the others. g is the same for all times in a single round; of several rounds it goes from 1 at the first time of
 * a round up to g in its middle and back to 1 at the last, a triangle. g 1: U is not asked for.
 *
 * Pure but for `denoise`, host memory, local.
 */
#ifndef LWM_MODEL_EULER_H
#define LWM_MODEL_EULER_H

#include "common/base/err.h"
#include "common/model/noise.h"

struct lwm_rollout {
	int64_t steps;                    /* of a round, 1 and more; 50 as published */
	double sigma_max, sigma_min, rho; /* 700, 0.002, 7 */
	double guide;
	int64_t rounds, overlap; /* overlap: 0 to T - 1; 3 */
};
double lwm_rollout_sigma(const struct lwm_rollout *r, int64_t i);            /* i = 0 .. steps */
double lwm_rollout_guide(const struct lwm_rollout *r, int64_t t, int64_t times); /* at time t of a round */
int64_t lwm_rollout_times(const struct lwm_rollout *r, int64_t times);       /* that all rounds make */

/* D(x; sigma) of a clip, of which the first `clean` times are not noisy. Negative ends the draw. */
typedef int lwm_denoise_fn(void *ctx, const float *x, double sigma, int64_t clean, float *denoised, struct lwm_err *e);
/* out: (lwm_rollout_times, rows, columns, channels), its first `given` times, fewer than T, are those of known. Noise is drawn from
 * (seed, round, sample). -LWM_ECONFIG: an overlap or `given` that leaves nothing to draw; -LWM_EMEMORY; what `denoise` returns. */
int lwm_rollout_draw(const struct lwm_rollout *r, const struct lwm_latent_shape *s, lwm_denoise_fn *denoise, void *ctx,
		     uint64_t seed, uint64_t sample, const float *known, int64_t given, float *out, struct lwm_err *e);

#endif
