/* latents.c - frames become latents, once. */
#include "common/train/latents.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/source.h"

/* Frames through the VQGAN: of one that makes room before training begins; of one that is there all the time. */
enum { AT_ONCE = 16, AT_ONCE_KEPT = 4 };

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

int lwm_latents_find(struct lwm_latents *l, struct lwm_latent_space *s, struct lwm_objective *o, struct lwm_err *e)
{
	const struct lwm_stage_frames *f = &o->stage->frames;

	l->vqgan = f->vqgan;
	if (l->vqgan)
		LWM_TRY(lwm_objective_absent(o, read_shape(&l->cfg, l->vqgan, o->stage->older_ok, e), e));
	s->side = f->size;
	s->factor = l->cfg.levels ? lwm_vqgan_factor(&l->cfg) : 1;
	s->channels = l->cfg.levels ? l->cfg.embed_dim : 3;
	if (f->patch % s->factor)
		return lwm_fail(e, LWM_ECONFIG, "--patch-size %" PRId64 ": a latent of %s is %" PRId64 " pixels wide, a patch has to be a multiple "
				"of that", f->patch, l->vqgan, s->factor);
	l->time = lwm_latent_numbers(s);
	return 0;
}

/* ---- planning ---- */

/* On the device: its weights, and a codebook in the device's type where that is another one. */
static int64_t weight_bytes(const struct lwm_vqgan_cfg *c, const struct lwm_objective *o)
{
	struct lwm_tensors t;
	int64_t weights;

	if (lwm_vqgan_tensors(&t, c, NULL) < 0)
		return 0;
	weights = t.total * 4;
	lwm_tensors_release(&t);
	if (o->dtype != LK_F32)
		weights += (int64_t)c->num_embeddings * c->embed_dim * (int64_t)lk_dtype_size(o->dtype);
	return weights;
}

void lwm_latents_plan(const struct lwm_latents *l, const struct lwm_latent_space *s, struct lwm_objective *o, int64_t cache,
		      enum lwm_latents_use use)
{
	int64_t one = use == LWM_LATENT_CODES ? lwm_latent_places(s) : l->time, latents = cache / (s->side * s->side * 3) * one * 4;

	o->array_bytes += latents;
	if (!l->cfg.levels)
		return;
	if (use == LWM_LATENTS_AND_BACK) {
		o->memory_bytes += weight_bytes(&l->cfg, o) + lwm_vqgan_memory(&l->cfg, AT_ONCE_KEPT, s->side, s->side, false);
		o->own_bytes += lwm_vqgan_own(o->dev, &l->cfg, AT_ONCE_KEPT, s->side, s->side, false);
	} else {
		struct lk_own own = lwm_vqgan_encode_own(o->dev, &l->cfg, AT_ONCE, s->side, s->side);

		o->loading_bytes = weight_bytes(&l->cfg, o) +
				   (lk_dev_is_host(o->dev) && !o->stage->plan_gib
					    ? lwm_vqgan_encode_fills(&l->cfg, AT_ONCE, s->side, s->side)
					    : lwm_vqgan_memory(&l->cfg, AT_ONCE, s->side, s->side, false));
		o->loading_own = own.kept + own.scratch;
		o->loading_arrays = cache + latents;
		o->own_bytes = own.scratch > o->own_bytes ? own.scratch : o->own_bytes;
	}
}

/* ---- life ---- */

static int encode_frames(struct lwm_latents *l, struct lwm_latent_space *s, const struct lwm_clips *c,
			 const struct lwm_objective *o, enum lwm_latents_use use, struct lwm_err *e)
{
	int64_t frames = c->cache.n + c->cache.held, side = s->side;
	bool keep = use == LWM_LATENTS_AND_BACK;
	struct lwm_vq *vq = &l->vq;

	LWM_TRY(lwm_vq_open(vq, l->vqgan, o->stage->older_ok, keep ? AT_ONCE_KEPT : AT_ONCE, o->dev, e));
	LWM_TRY(lwm_vqgan_hash(o->dev, &vq->cfg, &vq->weights.base, s->vqgan, e));
	if (use == LWM_LATENT_CODES)
		LWM_TRY(lwm_vqgan_encode(vq->net, c->cache.frames, frames, side, side, l->codes, e));
	else
		LWM_TRY(lwm_vqgan_latents(vq->net, c->cache.frames, frames, side, side, NULL, l->z, e));
	if (!keep)
		lwm_vq_close(vq);
	return 0;
}

static double two_digits(double x)
{
	char text[32];

	snprintf(text, sizeof text, "%.1e", x);
	return strtod(text, NULL);
}

/* A channel that is the same everywhere keeps deviation 1. */
static void measure(struct lwm_latent_space *s, const float *z, int64_t n)
{
	int64_t c = s->channels;

	for (int64_t k = 0; k < c; k++) {
		double sum = 0, square = 0;

		for (int64_t i = 0; i < n; i++)
			sum += (double)z[i * c + k] / (double)n;
		for (int64_t i = 0; i < n; i++)
			square += ((double)z[i * c + k] - sum) * ((double)z[i * c + k] - sum) / (double)n;
		s->deviation[k] = square > 1e-12 ? two_digits(sqrt(square)) : 1;
		s->mean[k] = floor(sum / s->deviation[k] * 8 + 0.5) / 8 * s->deviation[k];
	}
}

int lwm_latents_load(struct lwm_latents *l, struct lwm_latent_space *s, const struct lwm_clips *c, const struct lwm_objective *o,
		     enum lwm_latents_use use, struct lwm_err *e)
{
	int64_t frames = c->cache.n + c->cache.held, places = lwm_latent_places(s);

	if (use == LWM_LATENT_CODES) {
		l->codes = malloc((size_t)(frames * places) * sizeof *l->codes);
		return l->codes ? encode_frames(l, s, c, o, use, e) : lwm_fail_memory(e, "the codes of all frames");
	}
	l->z = malloc((size_t)(frames * l->time) * sizeof *l->z);
	if (!l->z)
		return lwm_fail_memory(e, "the latents of all frames");
	if (l->vqgan)
		LWM_TRY(encode_frames(l, s, c, o, use, e));
	for (int64_t i = 0; i < frames * l->time && !l->vqgan; i++)
		l->z[i] = (float)c->cache.frames[i] / 127.5f - 1;
	measure(s, l->z, c->cache.n * places);
	lwm_latent_scale(s, l->z, frames * places);
	return 0;
}

const float *lwm_latents_of(const struct lwm_latents *l, const struct lwm_clips *c, const uint8_t *frames)
{
	return l->z + (frames - c->cache.frames) / c->cache.one * l->time;
}

const int32_t *lwm_latent_codes_of(const struct lwm_latents *l, const struct lwm_clips *c, const uint8_t *frames)
{
	return l->codes + (frames - c->cache.frames) / c->cache.one * (l->time / l->cfg.embed_dim);
}

int lwm_latents_decode(struct lwm_latents *l, const struct lwm_latent_space *s, float *z, int64_t n, bool snap, uint8_t *rgb,
		       struct lwm_err *e)
{
	LWM_BUG_ON(l->vqgan && !l->vq.net);
	lwm_latent_unscale(s, z, n * lwm_latent_places(s));
	for (int64_t i = 0; i < n * l->time && !l->vqgan; i++)
		rgb[i] = (uint8_t)fmin(fmax(floor(((double)z[i] + 1) * 127.5 + 0.5), 0), 255);
	if (!l->vqgan)
		return 0;
	return lwm_vqgan_decode_latents(l->vq.net, z, snap, n, s->side, s->side, rgb, e);
}

void lwm_latents_release(struct lwm_latents *l)
{
	lwm_vq_close(&l->vq);
	free(l->z);
	free(l->codes);
	l->z = NULL;
	l->codes = NULL;
}

/* ---- patches ---- */

int64_t lwm_code_patch_numbers(const struct lwm_latent_space *s, const struct lwm_patch_grid *g)
{
	return g->patch_frames * (g->patch / s->factor) * (g->patch / s->factor);
}

int64_t lwm_latent_patch_numbers(const struct lwm_latent_space *s, const struct lwm_patch_grid *g)
{
	return lwm_code_patch_numbers(s, g) * s->channels;
}

/* Which latent of its clip line `line` (frame and row, one after the other) of the patch of a token begins with. */
static int64_t line_at(const struct lwm_latent_space *s, const struct lwm_patch_grid *g, int64_t token, int64_t line)
{
	int64_t wide = s->side / s->factor, patch = g->patch / s->factor, across = wide / patch;
	int64_t time = token / (across * across) * g->patch_frames + line / patch;
	int64_t row = token / across % across * patch + line % patch;

	return (time * wide + row) * wide + token % across * patch;
}

void lwm_latent_patches(const struct lwm_latent_space *s, const struct lwm_patch_grid *g, const float *z, float *patches)
{
	int64_t c = s->channels, wide = g->patch / s->factor, lines = lwm_code_patch_numbers(s, g) / wide;

	for (int64_t i = 0; i < lwm_patch_tokens(g) * lines; i++)
		memcpy(patches + i * wide * c, z + line_at(s, g, i / lines, i % lines) * c, (size_t)(wide * c) * sizeof *z);
}

void lwm_latent_patches_join(const struct lwm_latent_space *s, const struct lwm_patch_grid *g, const float *patches, float *z)
{
	int64_t c = s->channels, wide = g->patch / s->factor, lines = lwm_code_patch_numbers(s, g) / wide;

	for (int64_t i = 0; i < lwm_patch_tokens(g) * lines; i++)
		memcpy(z + line_at(s, g, i / lines, i % lines) * c, patches + i * wide * c, (size_t)(wide * c) * sizeof *z);
}

void lwm_code_patches(const struct lwm_latent_space *s, const struct lwm_patch_grid *g, const int32_t *codes, int32_t *patches)
{
	int64_t wide = g->patch / s->factor, lines = lwm_code_patch_numbers(s, g) / wide;

	for (int64_t i = 0; i < lwm_patch_tokens(g) * lines; i++)
		memcpy(patches + i * wide, codes + line_at(s, g, i / lines, i % lines), (size_t)wide * sizeof *codes);
}
