/* denoiser.h - what a trained denoiser is: its net, the latents it was made for, and where frames become them. As config.json.
 *
 * Latents are those of a VQGAN before the codebook, or pixels (factor 1, no VQGAN); x = (z - mean) / deviation of each channel is
 * what the net sees, so that v-scaling (noise.h) fits any of them.
 */
#ifndef LWM_MODEL_DENOISER_H
#define LWM_MODEL_DENOISER_H

#include <jansson.h>

#include "common/model/denoise.h"

struct lwm_denoiser {
	struct lwm_denoise_cfg net;
	int64_t side;      /* frames are side x side pixels */
	int64_t factor;    /* pixels of a side of a latent */
	int64_t clean;     /* most first times that it was trained to take as they are */
	char vqgan[33];    /* lwm_vqgan_hash of the one whose latents they are; "": they are pixels from -1 to 1 */
	double *mean, *deviation; /* (channels) each; owned */
};
void lwm_denoiser_release(struct lwm_denoiser *d); /* zero-initialised is fine */
/* Room for mean and deviation, 0 and 1. -LWM_EMEMORY. */
int lwm_denoiser_reserve(struct lwm_denoiser *d, struct lwm_err *e);

/* Adds "lwm_latents" to the configuration of a trunk over clips, which says the rest. */
int lwm_denoiser_to_json(const struct lwm_denoiser *d, json_t *config, struct lwm_err *e);
/* name: of the model, for messages. Released by the caller, after a failure too. -LWM_ECONFIG: no denoiser; -LWM_EDATA. */
int lwm_denoiser_from_json(struct lwm_denoiser *d, const json_t *config, const char *name, struct lwm_err *e);

/* n latents of all channels, in place: as the net sees them, and back. Pure. */
void lwm_denoiser_scale(const struct lwm_denoiser *d, float *z, int64_t n);
void lwm_denoiser_unscale(const struct lwm_denoiser *d, float *z, int64_t n);

#endif
