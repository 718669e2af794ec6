/* latent_space.h - frames as latents of a VQGAN, before its codebook, or as pixels: sizes, scale, source; as config.json has it.
 *
 * x = (z - mean) / deviation of each channel is what a net sees (Rombach et al. 2022, appendix G),
 * so that noise, or an error, of a given size means the same for any VQGAN.
 */
#ifndef LWM_MODEL_LATENT_SPACE_H
#define LWM_MODEL_LATENT_SPACE_H

#include <jansson.h>
#include <stdint.h>

#include "common/base/err.h"

struct lwm_latent_space {
	int64_t side;      /* frames are side x side pixels */
	int64_t factor;    /* pixels of a side of a latent, which divides it; 1 of pixels */
	int64_t channels;
	char vqgan[33];    /* lwm_vqgan_hash of the one whose latents they are; "": they are pixels from -1 to 1 */
	double *mean, *deviation; /* (channels) each; owned */
};
static inline int64_t lwm_latent_places(const struct lwm_latent_space *s) /* latents of a frame */
{
	return (s->side / s->factor) * (s->side / s->factor);
}
static inline int64_t lwm_latent_numbers(const struct lwm_latent_space *s) /* numbers of a frame */
{
	return lwm_latent_places(s) * s->channels;
}
void lwm_latent_space_release(struct lwm_latent_space *s); /* zero-initialised is fine */
/* Room for mean and deviation, 0 and 1. -LWM_EMEMORY. */
int lwm_latent_space_reserve(struct lwm_latent_space *s, struct lwm_err *e);

/* Adds "lwm_latents" (vqgan, factor, mean, deviation) to a model's configuration. -LWM_EMEMORY. */
int lwm_latent_space_to_json(const struct lwm_latent_space *s, json_t *config, struct lwm_err *e);
/* Mean and deviation of "lwm_latents", for which there is room. name: of the model, for messages. -LWM_EDATA. */
int lwm_latent_space_scale_from_json(struct lwm_latent_space *s, const json_t *latents, const char *name, struct lwm_err *e);

/* n latents of all channels, in place: as a net sees them, and back. Pure. */
void lwm_latent_scale(const struct lwm_latent_space *s, float *z, int64_t n);
void lwm_latent_unscale(const struct lwm_latent_space *s, float *z, int64_t n);

#endif
