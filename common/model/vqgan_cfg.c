/* vqgan_cfg.c - shapes of the frame tokenizer: presets, checks. */
#include <string.h>

#include "common/model/vqgan_cfg.h"

static const struct {
	const char *name;
	struct lwm_vqgan_cfg c;
} presets[] = {
	{ "lwm", { .resolution = 256, .hidden = 128, .levels = 5, .mult = { 1, 2, 2, 4, 6 }, .res_blocks = 2,
		   .z_channels = 64, .embed_dim = 64, .num_embeddings = 8192, .groups = 32 } },
	/* 16 codes a frame: clips that fit short sequences */
	{ "small", { .resolution = 64, .hidden = 16, .levels = 5, .mult = { 1, 2, 2, 4, 4 }, .res_blocks = 1,
		     .z_channels = 16, .embed_dim = 16, .num_embeddings = 512, .groups = 4 } },
	{ "tiny", { .resolution = 32, .hidden = 16, .levels = 4, .mult = { 1, 2, 2, 4 }, .res_blocks = 1,
		    .z_channels = 16, .embed_dim = 16, .num_embeddings = 256, .groups = 4 } },
};
enum { PRESETS = sizeof presets / sizeof *presets };

int lwm_vqgan_preset(struct lwm_vqgan_cfg *c, const char *name, struct lwm_err *e)
{
	for (int i = 0; i < PRESETS; i++) {
		if (strcmp(name, presets[i].name) == 0) {
			*c = presets[i].c;
			return 0;
		}
	}
	return lwm_fail(e, LWM_ECONFIG, "'%s' is no VQGAN preset: lwm, small and tiny are", name);
}

int lwm_vqgan_check(const struct lwm_vqgan_cfg *c, struct lwm_err *e)
{
	if (c->levels < 1 || c->levels > LWM_VQGAN_MAX_LEVELS)
		return lwm_fail(e, LWM_ECONFIG, "a VQGAN of %d levels: 1 to %d are possible", c->levels,
				LWM_VQGAN_MAX_LEVELS);
	if (c->hidden < 1 || c->hidden > 4096 || c->res_blocks < 1 || c->res_blocks > 16)
		return lwm_fail(e, LWM_ECONFIG, "a VQGAN of %d channels and %d blocks a level is not possible", c->hidden,
				c->res_blocks);
	if (c->groups < 1)
		return lwm_fail(e, LWM_ECONFIG, "a VQGAN with %d norm groups is not possible", c->groups);
	for (int i = 0; i < c->levels; i++)
		if (c->mult[i] < 1 || c->mult[i] > 64 || (int64_t)c->mult[i] * c->hidden > 16384 ||
		    c->mult[i] * c->hidden % c->groups)
			return lwm_fail(e, LWM_ECONFIG, "VQGAN level %d: %d x %d channels must divide into %d norm groups",
					i, c->mult[i], c->hidden, c->groups);
	if (c->z_channels < 1 || c->z_channels > 4096 || c->embed_dim < 1 || c->embed_dim > 4096)
		return lwm_fail(e, LWM_ECONFIG, "a VQGAN of %d latent channels and codes of %d is not possible",
				c->z_channels, c->embed_dim);
	if (c->num_embeddings < 1 || c->num_embeddings > 1 << 20)
		return lwm_fail(e, LWM_ECONFIG, "a codebook of %d entries is not possible", c->num_embeddings);
	int32_t f = lwm_vqgan_factor(c);
	if (c->resolution < f || c->resolution > 8192 || c->resolution % f)
		return lwm_fail(e, LWM_ECONFIG, "VQGAN resolution %d must be a multiple of %d (%d levels)", c->resolution,
				f, c->levels);
	return 0;
}
