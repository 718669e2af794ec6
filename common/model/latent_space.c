/* latent_space.c - what latent_space.h says. */
#include "common/model/latent_space.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"

void lwm_latent_space_release(struct lwm_latent_space *s)
{
	free(s->mean);
	free(s->deviation);
	s->mean = s->deviation = NULL;
}

int lwm_latent_space_reserve(struct lwm_latent_space *s, struct lwm_err *e)
{
	int64_t n = s->channels;

	s->mean = calloc((size_t)n, sizeof *s->mean);
	s->deviation = calloc((size_t)n, sizeof *s->deviation);
	if (!s->mean || !s->deviation)
		return lwm_fail_memory(e, "the scale of latents");
	for (int64_t i = 0; i < n; i++)
		s->deviation[i] = 1;
	return 0;
}

void lwm_latent_scale(const struct lwm_latent_space *s, float *z, int64_t n)
{
	int64_t c = s->channels;

	for (int64_t i = 0; i < n * c; i++)
		z[i] = (float)(((double)z[i] - s->mean[i % c]) / s->deviation[i % c]);
}

void lwm_latent_unscale(const struct lwm_latent_space *s, float *z, int64_t n)
{
	int64_t c = s->channels;

	for (int64_t i = 0; i < n * c; i++)
		z[i] = (float)((double)z[i] * s->deviation[i % c] + s->mean[i % c]);
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

int lwm_latent_space_to_json(const struct lwm_latent_space *s, json_t *config, struct lwm_err *e)
{
	json_t *mean = numbers_of(s->mean, s->channels), *deviation = numbers_of(s->deviation, s->channels);
	json_t *o = json_pack("{s:s s:I s:o s:o}", "vqgan", s->vqgan, "factor", (json_int_t)s->factor, "mean", mean,
			      "deviation", deviation);

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

int lwm_latent_space_scale_from_json(struct lwm_latent_space *s, const json_t *latents, const char *name, struct lwm_err *e)
{
	LWM_TRY(read_numbers(latents, "mean", s->mean, s->channels, name, e));
	return read_numbers(latents, "deviation", s->deviation, s->channels, name, e);
}
