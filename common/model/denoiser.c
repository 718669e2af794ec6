/* denoiser.c - what denoiser.h says. */
#include "common/model/denoiser.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/json.h"
#include "common/model/llama_json.h"

void lwm_denoiser_release(struct lwm_denoiser *d)
{
	lwm_latent_space_release(&d->space);
}

int lwm_denoiser_to_json(const struct lwm_denoiser *d, json_t *config, struct lwm_err *e)
{
	LWM_TRY(lwm_latent_space_to_json(&d->space, config, e));
	return json_object_set_new(json_object_get(config, "lwm_latents"), "clean", json_integer(d->clean)) ?
	       lwm_fail_memory(e, "a model configuration") : 0;
}

/* The sizes, from what is written down in pixels. */
static int read_sizes(struct lwm_denoiser *d, const json_t *clips, const char *name, struct lwm_err *e)
{
	struct lwm_latent_space *l = &d->space;
	struct lwm_latent_shape *s = &d->net.shape;
	int64_t patch, numbers;

	LWM_TRY(lwm_json_int(clips, "frame_size", &l->side, name, e));
	LWM_TRY(lwm_json_int(clips, "clip_frames", &s->times, name, e));
	LWM_TRY(lwm_json_int(clips, "patch_size", &patch, name, e));
	if (l->factor < 1 || l->side < 1 || l->side > 8192 || patch < 1 || s->times < 1 || s->times > 1 << 16 ||
	    l->side % l->factor || patch % l->factor || l->side % patch)
		return lwm_fail(e, LWM_EDATA, "%s: frames of %" PRId64 " pixels, patches of %" PRId64 " and latents of %" PRId64 " do not fit",
				name, l->side, patch, l->factor);
	s->rows = s->columns = l->side / l->factor;
	d->net.patch = patch / l->factor;
	numbers = d->net.trunk.input_dim / 2 - LWM_DENOISE_FEATURES;
	l->channels = s->channels = numbers / d->net.patch / d->net.patch;
	if (s->channels < 1)
		return lwm_fail(e, LWM_EDATA, "%s: vectors of %" PRId64 " numbers hold no patch of %" PRId64 " x %" PRId64 " latents", name,
				d->net.trunk.input_dim, d->net.patch, d->net.patch);
	return lwm_denoise_check(&d->net, e);
}

int lwm_denoiser_from_json(struct lwm_denoiser *d, const json_t *config, const char *name, struct lwm_err *e)
{
	const json_t *clips = json_object_get(config, "lwm_clips"), *latents = json_object_get(config, "lwm_latents");
	const char *objective = json_string_value(json_object_get(clips, "objective")), *vqgan;

	*d = (struct lwm_denoiser){ .clean = 0 };
	if (!objective || strcmp(objective, "diffusion") || !latents)
		return lwm_fail(e, LWM_ECONFIG, "%s: is no denoiser, which --objective diffusion trains%s%s", name,
				objective ? ", but was trained on clips by " : "", objective ? objective : "");
	LWM_TRY(lwm_llama_from_json(&d->net.trunk, config, name, e));
	LWM_TRY(lwm_json_int(latents, "factor", &d->space.factor, name, e));
	LWM_TRY(lwm_json_int(latents, "clean", &d->clean, name, e));
	LWM_TRY(lwm_json_str(latents, "vqgan", &vqgan, name, e));
	snprintf(d->space.vqgan, sizeof d->space.vqgan, "%s", vqgan);
	LWM_TRY(read_sizes(d, clips, name, e));
	if (d->clean < 0 || d->clean >= d->net.shape.times)
		return lwm_fail(e, LWM_EDATA, "%s: %" PRId64 " clean frames of clips of %" PRId64, name, d->clean, d->net.shape.times);
	LWM_TRY(lwm_latent_space_reserve(&d->space, e));
	return lwm_latent_space_scale_from_json(&d->space, latents, name, e);
}
