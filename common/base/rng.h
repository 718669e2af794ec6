/* rng.h - random numbers as a pure function of (seed, purpose, step, sample): Philox4x32-10 (Salmon et al. 2011)
 * through Random123.
 *
 *	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_SYNTH, step, sample);
 *	int64_t k = lwm_rng_below(&r, n); double x = lwm_rng_double(&r); ...
 *
 * No state survives between calls of lwm_rng_at, so ranks, threads and the order of calls cannot matter. The numbers stand in files
 * and in resumed runs: none of this ever changes.
 */
#ifndef LWM_BASE_RNG_H
#define LWM_BASE_RNG_H

#include <stdint.h>

/* One stream per use. Values are part of file contents and resume: append only. */
enum lwm_purpose {
	LWM_RNG_INIT = 1,      /* weights: step = tensor hash, sample = element */
	LWM_RNG_ORDER = 2,     /* sample order of the loader */
	LWM_RNG_MIX = 3,       /* choice of source */
	LWM_RNG_FIELDS = 4,    /* field alternative of a document */
	LWM_RNG_NEEDLE = 5,    /* cities, numbers, haystack */
	LWM_RNG_SAMPLE = 6,    /* token draws */
	LWM_RNG_SYNTH = 7,     /* synthetic datasets */
	LWM_RNG_AUGMENT = 8,   /* views of a clip */
	LWM_RNG_TEST = 9,
	LWM_RNG_QA = 10,       /* kept for question and answer pairs: nothing draws from it */
	LWM_RNG_CODEBOOK = 11, /* revival of unused codes */
	LWM_RNG_MASK = 12,     /* which places of a clip are seen */
	LWM_RNG_NOISE = 13,    /* sigma, noise and condition frames of a clip that is denoised */
	LWM_RNG_DENOISE = 14,  /* noise that a drawn clip begins with */
	LWM_RNG_DROP = 15      /* actions of a document that are left out */
};

/* A generator is only a counter; copy it freely. */
struct lwm_rng {
	uint32_t key[2], ctr[4], out[4];
	int have; /* of out, not yet given */
};

struct lwm_rng lwm_rng_at(uint64_t seed, enum lwm_purpose purpose, uint64_t step, uint64_t sample);
uint32_t lwm_rng_u32(struct lwm_rng *r);               /* the next 32 bits */
uint64_t lwm_rng_u64(struct lwm_rng *r);
double lwm_rng_double(struct lwm_rng *r);              /* [0,1), 53 bits */
double lwm_rng_normal(struct lwm_rng *r);              /* mean 0, variance 1: Box-Muller, the cosine half */
int64_t lwm_rng_below(struct lwm_rng *r, int64_t n);   /* 0..n-1, unbiased; n >= 1 */
/* A pseudo-random permutation of 0..n-1 evaluated at i: cycle-walking Feistel network. No table, any n < 2^62. */
int64_t lwm_rng_permute(uint64_t seed, enum lwm_purpose purpose, uint64_t step, int64_t n, int64_t i);
/* The whole of it: out[i] for i = 0 .. n-1; of up to 65,536 much faster than one by one. */
void lwm_rng_permutation(uint64_t seed, enum lwm_purpose purpose, uint64_t step, int64_t n, int64_t *out);

#endif
