/* latents.c - frames become latents, once. */
#include "common/train/latents.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/infer/load.h"
#include "common/io/source.h"

enum { AT_ONCE = 16 /* frames through the VQGAN */ };

static int read_shape(struct lwm_vqgan_cfg *c, const char *dir, bool older_ok, struct lwm_err *e)
{
	const json_t *config;
	struct lwm_source s;
	int rc = lwm_source_open_folder(&s, dir, older_ok, LWM_CKPT_QUICK, &config, e);

	if (rc == 0)
		rc = lwm_vqgan_cfg_from_json(c, config, dir, e);
	lwm_source_close(&s);
	return rc;
}

int lwm_latents_find(struct lwm_denoiser *d, struct lwm_objective *o, const char *vqgan, struct lwm_err *e)
{
	const struct lwm_stage_frames *f = &o->stage->frames;
	struct lwm_vqgan_cfg c = { .levels = 1, .embed_dim = 3 };

	if (vqgan)
		LWM_TRY(lwm_objective_absent(o, read_shape(&c, vqgan, o->stage->older_ok, e), e));
	d->side = f->size;
	d->factor = lwm_vqgan_factor(&c);
	if (f->patch % d->factor)
		return lwm_fail(e, LWM_ECONFIG, "--patch-size %" PRId64 ": a latent of %s is %" PRId64 " pixels wide, a patch has to be a multiple "
				"of that", f->patch, vqgan, d->factor);
	d->net.patch = f->patch / d->factor;
	d->net.shape = (struct lwm_latent_shape){ .times = f->clip, .rows = f->size / d->factor, .columns = f->size / d->factor,
						  .channels = c.embed_dim };
	return 0;
}

static int encode_frames(struct lwm_latents *l, struct lwm_denoiser *d, const struct lwm_clips *c, const struct lwm_objective *o,
			 const char *vqgan, struct lwm_err *e)
{
	int64_t frames = c->cache.n + c->cache.held;
	struct lwm_vq vq;
	int rc;

	LWM_TRY(lwm_vq_open(&vq, vqgan, o->stage->older_ok, AT_ONCE, o->dev, e));
	rc = lwm_vqgan_hash(o->dev, &vq.cfg, &vq.weights.base, d->vqgan, e);
	if (rc == 0)
		rc = lwm_vqgan_latents(vq.net, c->cache.frames, frames, d->side, d->side, NULL, l->z, e);
	lwm_vq_close(&vq);
	return rc;
}

static double two_digits(double x)
{
	char text[32];

	snprintf(text, sizeof text, "%.1e", x);
	return strtod(text, NULL);
}

/* A channel that is the same everywhere keeps deviation 1. */
static void measure(struct lwm_denoiser *d, const float *z, int64_t n)
{
	int64_t c = d->net.shape.channels;

	for (int64_t k = 0; k < c; k++) {
		double sum = 0, square = 0;

		for (int64_t i = 0; i < n; i++)
			sum += (double)z[i * c + k] / (double)n;
		for (int64_t i = 0; i < n; i++)
			square += ((double)z[i * c + k] - sum) * ((double)z[i * c + k] - sum) / (double)n;
		d->deviation[k] = square > 1e-12 ? two_digits(sqrt(square)) : 1;
		d->mean[k] = floor(sum / d->deviation[k] * 8 + 0.5) / 8 * d->deviation[k];
	}
}

int lwm_latents_load(struct lwm_latents *l, struct lwm_denoiser *d, const struct lwm_clips *c, const struct lwm_objective *o,
		     const char *vqgan, struct lwm_err *e)
{
	const struct lwm_latent_shape *s = &d->net.shape;
	int64_t frames = c->cache.n + c->cache.held, places = s->rows * s->columns;

	l->time = places * s->channels;
	l->z = malloc((size_t)(frames * l->time) * sizeof *l->z);
	if (!l->z)
		return lwm_fail_memory(e, "the latents of all frames");
	if (vqgan)
		LWM_TRY(encode_frames(l, d, c, o, vqgan, e));
	for (int64_t i = 0; i < frames * l->time && !vqgan; i++)
		l->z[i] = (float)c->cache.frames[i] / 127.5f - 1;
	measure(d, l->z, c->cache.n * places);
	lwm_denoiser_scale(d, l->z, frames * places);
	return 0;
}

const float *lwm_latents_of(const struct lwm_latents *l, const struct lwm_clips *c, const uint8_t *frames)
{
	return l->z + (frames - c->cache.frames) / c->cache.one * l->time;
}

void lwm_latents_release(struct lwm_latents *l)
{
	free(l->z);
	l->z = NULL;
}
