/* denoiser.c - what denoiser.h says. */
#include "common/model/denoiser.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/model/llama_json.h"

void lwm_denoiser_release(struct lwm_denoiser *d)
{
	free(d->mean);
	free(d->deviation);
	d->mean = d->deviation = NULL;
}

int lwm_denoiser_reserve(struct lwm_denoiser *d, struct lwm_err *e)
{
	int64_t n = d->net.shape.channels;

	d->mean = calloc((size_t)n, sizeof *d->mean);
	d->deviation = calloc((size_t)n, sizeof *d->deviation);
	if (!d->mean || !d->deviation)
		return lwm_fail_memory(e, "the scale of latents");
	for (int64_t i = 0; i < n; i++)
		d->deviation[i] = 1;
	return 0;
}

void lwm_denoiser_scale(const struct lwm_denoiser *d, float *z, int64_t n)
{
	int64_t c = d->net.shape.channels;

	for (int64_t i = 0; i < n * c; i++)
		z[i] = (float)(((double)z[i] - d->mean[i % c]) / d->deviation[i % c]);
}

void lwm_denoiser_unscale(const struct lwm_denoiser *d, float *z, int64_t n)
{
	int64_t c = d->net.shape.channels;

	for (int64_t i = 0; i < n * c; i++)
		z[i] = (float)((double)z[i] * d->deviation[i % c] + d->mean[i % c]);
}

/* ---- config.json ---- */

static json_t *numbers_of(const double *v, int64_t n)
{
	json_t *a = json_array();

	for (int64_t i = 0; a && i < n; i++) {
		if (json_array_append_new(a, json_real(v[i]))) {
			json_decref(a);
			a = NULL;
		}
	}
	return a;
}

int lwm_denoiser_to_json(const struct lwm_denoiser *d, json_t *config, struct lwm_err *e)
{
	json_t *mean = numbers_of(d->mean, d->net.shape.channels), *deviation = numbers_of(d->deviation, d->net.shape.channels);
	json_t *o = json_pack("{s:s s:I s:I s:o s:o}", "vqgan", d->vqgan, "factor", (json_int_t)d->factor, "clean",
			      (json_int_t)d->clean, "mean", mean, "deviation", deviation);

	return json_object_set_new(config, "lwm_latents", o) ? lwm_fail_memory(e, "a model configuration") : 0;
}

static int read_numbers(const json_t *o, const char *key, double *v, int64_t n, const char *name, struct lwm_err *e)
{
	json_t *a;

	LWM_TRY(lwm_json_get(o, key, JSON_ARRAY, &a, name, e));
	if ((int64_t)json_array_size(a) != n)
		return lwm_fail(e, LWM_EDATA, "%s: lwm_latents.%s has %zu numbers, the latents %" PRId64 " channels", name, key,
				json_array_size(a), n);
	for (int64_t i = 0; i < n; i++) {
		const json_t *x = json_array_get(a, (size_t)i);

		if (!json_is_number(x) || (!strcmp(key, "deviation") && json_number_value(x) <= 0))
			return lwm_fail(e, LWM_EDATA, "%s: lwm_latents.%s[%" PRId64 "] is no such number", name, key, i);
		v[i] = json_number_value(x);
	}
	return 0;
}

/* The sizes, from what is written down in pixels. */
static int read_sizes(struct lwm_denoiser *d, const json_t *clips, const char *name, struct lwm_err *e)
{
	struct lwm_latent_shape *s = &d->net.shape;
	int64_t patch, numbers;

	LWM_TRY(lwm_json_int(clips, "frame_size", &d->side, name, e));
	LWM_TRY(lwm_json_int(clips, "clip_frames", &s->times, name, e));
	LWM_TRY(lwm_json_int(clips, "patch_size", &patch, name, e));
	if (d->factor < 1 || d->side < 1 || d->side > 8192 || patch < 1 || s->times < 1 || s->times > 1 << 16 ||
	    d->side % d->factor || patch % d->factor || d->side % patch)
		return lwm_fail(e, LWM_EDATA, "%s: frames of %" PRId64 " pixels, patches of %" PRId64 " and latents of %" PRId64 " do not fit",
				name, d->side, patch, d->factor);
	s->rows = s->columns = d->side / d->factor;
	d->net.patch = patch / d->factor;
	numbers = d->net.trunk.input_dim / 2 - LWM_DENOISE_FEATURES;
	s->channels = numbers / d->net.patch / d->net.patch;
	if (s->channels < 1)
		return lwm_fail(e, LWM_EDATA, "%s: vectors of %" PRId64 " numbers hold no patch of %" PRId64 " x %" PRId64 " latents", name,
				d->net.trunk.input_dim, d->net.patch, d->net.patch);
	return lwm_denoise_check(&d->net, e);
}

int lwm_denoiser_from_json(struct lwm_denoiser *d, const json_t *config, const char *name, struct lwm_err *e)
{
	const json_t *clips = json_object_get(config, "lwm_clips"), *latents = json_object_get(config, "lwm_latents");
	const char *objective = json_string_value(json_object_get(clips, "objective")), *vqgan;

	*d = (struct lwm_denoiser){ .side = 0 };
	if (!objective || strcmp(objective, "diffusion") || !latents)
		return lwm_fail(e, LWM_ECONFIG, "%s: is no denoiser, which --objective diffusion trains%s%s", name,
				objective ? ", but was trained on clips by " : "", objective ? objective : "");
	LWM_TRY(lwm_llama_from_json(&d->net.trunk, config, name, e));
	LWM_TRY(lwm_json_int(latents, "factor", &d->factor, name, e));
	LWM_TRY(lwm_json_int(latents, "clean", &d->clean, name, e));
	LWM_TRY(lwm_json_str(latents, "vqgan", &vqgan, name, e));
	snprintf(d->vqgan, sizeof d->vqgan, "%s", vqgan);
	LWM_TRY(read_sizes(d, clips, name, e));
	if (d->clean < 0 || d->clean >= d->net.shape.times)
		return lwm_fail(e, LWM_EDATA, "%s: %" PRId64 " clean frames of clips of %" PRId64, name, d->clean, d->net.shape.times);
	LWM_TRY(lwm_denoiser_reserve(d, e));
	LWM_TRY(read_numbers(latents, "mean", d->mean, d->net.shape.channels, name, e));
	return read_numbers(latents, "deviation", d->deviation, d->net.shape.channels, name, e);
}
