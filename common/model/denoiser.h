/* denoiser.h - what a trained denoiser is: its net, the latents it was made for, and where frames become them. As config.json. */
#ifndef LWM_MODEL_DENOISER_H
#define LWM_MODEL_DENOISER_H

#include "common/model/denoise.h"
#include "common/model/latent_space.h"

struct lwm_denoiser {
	struct lwm_denoise_cfg net;
	int64_t clean;     /* most first times that it was trained to take as they are */
	struct lwm_latent_space space;
};
void lwm_denoiser_release(struct lwm_denoiser *d); /* zero-initialised is fine */

/* Adds "lwm_latents" to the configuration of a trunk over clips, which says the rest. */
int lwm_denoiser_to_json(const struct lwm_denoiser *d, json_t *config, struct lwm_err *e);
/* name: of the model, for messages. Released by the caller, after a failure too. -LWM_ECONFIG: no denoiser; -LWM_EDATA. */
int lwm_denoiser_from_json(struct lwm_denoiser *d, const json_t *config, const char *name, struct lwm_err *e);

#endif
