/* load_denoiser.c - what load_denoiser.h says. */
#include "common/infer/load_denoiser.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/infer/load_int.h"

enum { FRAMES = 16 /* through the VQGAN at once */ };

static int open_source(struct lwm_source *s, struct lwm_denoiser *made, const char *dir, bool older_ok, enum lwm_ckpt_check how,
		       struct lwm_err *e)
{
	const json_t *config;

	LWM_TRY(lwm_source_open_folder(s, dir, older_ok, how, &config, e));
	return lwm_denoiser_from_json(made, config, dir, e);
}

static int fits_vqgan(const struct lwm_denoiser *made, const char *model, const char *vqgan, struct lwm_err *e)
{
	if (made->space.vqgan[0] && !vqgan)
		return lwm_fail(e, LWM_EUSAGE, "%s: draws latents of a VQGAN (of hash %s), which --vqgan has to name", model, made->space.vqgan);
	if (!made->space.vqgan[0] && vqgan)
		return lwm_fail(e, LWM_ECONFIG, "%s: draws pixels, there is nothing for %s to decode", model, vqgan);
	return 0;
}

static int load_net(struct lwm_drawer *d, const char *model, bool older_ok, struct lwm_err *e)
{
	struct lwm_denoise_run run = { .clips = 1 };
	struct lwm_tensors t = { 0 };
	struct lwm_source s;
	int rc = open_source(&s, &d->made, model, older_ok, LWM_CKPT_FULL, e);

	if (rc == 0)
		rc = lwm_denoise_tensors(&t, &d->made.net, e);
	if (rc == 0)
		rc = lwm_load_weights(&d->flat, d->dev, lk_dev_dtype(d->dev), &s, &t, model, e);
	lwm_tensors_release(&t);
	lwm_source_close(&s);
	LWM_TRY(rc);
	d->weights = lwm_flat_weights_of(d->flat, lk_dev_dtype(d->dev), NULL);
	return lwm_denoise_new(&d->net, d->dev, &d->made.net, &run, e);
}

static int load_vqgan(struct lwm_drawer *d, const char *model, const char *vqgan, bool older_ok, struct lwm_err *e)
{
	char hash[33];

	LWM_TRY(lwm_vq_open(&d->vq, vqgan, older_ok, FRAMES, d->dev, e));
	LWM_TRY(lwm_vqgan_hash(d->dev, &d->vq.cfg, &d->vq.weights.base, hash, e));
	if (strcmp(hash, d->made.space.vqgan))
		return lwm_fail(e, LWM_ECONFIG, "%s: draws latents of the VQGAN of hash %s, %s is that of %s", model, d->made.space.vqgan, vqgan, hash);
	if (d->vq.cfg.embed_dim != d->made.space.channels || lwm_vqgan_factor(&d->vq.cfg) != d->made.space.factor)
		return lwm_fail(e, LWM_EDATA, "%s: its latents are not of the size that those of %s have", model, vqgan);
	return 0;
}

int lwm_drawer_open(struct lwm_drawer *d, const char *model, const char *vqgan, bool older_ok, struct lk_dev *dev,
		    struct lwm_err *e)
{
	int rc;

	*d = (struct lwm_drawer){ .dev = dev };
	LWM_GO(load_net(d, model, older_ok, e));
	LWM_GO(fits_vqgan(&d->made, model, vqgan, e));
	if (vqgan)
		LWM_GO(load_vqgan(d, model, vqgan, older_ok, e));
out:
	if (rc < 0)
		lwm_drawer_close(d);
	return rc;
}

void lwm_drawer_close(struct lwm_drawer *d)
{
	lwm_vq_close(&d->vq);
	lwm_denoise_free(d->net);
	if (d->flat)
		lk_mem_free(d->dev, d->flat);
	lwm_denoiser_release(&d->made);
	*d = (struct lwm_drawer){ .flat = NULL };
}

int lwm_drawer_check_files(const char *model, const char *vqgan, bool older_ok, struct lwm_err *e)
{
	struct lwm_denoiser made = { .clean = 0 };
	struct lwm_source s;
	int rc = open_source(&s, &made, model, older_ok, LWM_CKPT_QUICK, e);

	lwm_source_close(&s);
	if (rc == 0)
		rc = fits_vqgan(&made, model, vqgan, e);
	lwm_denoiser_release(&made);
	return rc == 0 && vqgan ? lwm_vqgan_check_files(vqgan, older_ok, e) : rc;
}

int lwm_drawer_encode(struct lwm_drawer *d, const uint8_t *rgb, int64_t n, float *z, struct lwm_err *e)
{
	const struct lwm_latent_shape *s = &d->made.net.shape;
	int64_t places = n * s->rows * s->columns;

	if (d->vq.net)
		LWM_TRY(lwm_vqgan_latents(d->vq.net, rgb, n, d->made.space.side, d->made.space.side, NULL, z, e));
	for (int64_t i = 0; i < places * s->channels && !d->vq.net; i++)
		z[i] = (float)rgb[i] / 127.5f - 1;
	lwm_latent_scale(&d->made.space, z, places);
	return 0;
}

int lwm_drawer_decode(struct lwm_drawer *d, float *z, int64_t n, bool snap, uint8_t *rgb, struct lwm_err *e)
{
	const struct lwm_latent_shape *s = &d->made.net.shape;
	int64_t places = n * s->rows * s->columns;

	lwm_latent_unscale(&d->made.space, z, places);
	if (d->vq.net)
		return lwm_vqgan_decode_latents(d->vq.net, z, snap, n, d->made.space.side, d->made.space.side, rgb, e);
	for (int64_t i = 0; i < places * s->channels; i++)
		rgb[i] = (uint8_t)fmin(fmax(floor(((double)z[i] + 1) * 127.5 + 0.5), 0), 255);
	return 0;
}

int lwm_drawer_denoise(void *ctx, const float *x, double sigma, int64_t clean, float *denoised, struct lwm_err *e)
{
	struct lwm_drawer *d = ctx;
	struct lwm_denoise_batch b = { .clips = 1, .noisy = x, .sigma = &sigma, .clean = &clean, .denoised = denoised };

	return lwm_denoise_apply(d->net, &b, &d->weights.base, e);
}
