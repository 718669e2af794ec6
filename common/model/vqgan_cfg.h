/* vqgan_cfg.h - what a VQGAN is: sizes and presets. Pure calls. */
#ifndef LWM_MODEL_VQGAN_CFG_H
#define LWM_MODEL_VQGAN_CFG_H

#include <stdint.h>

#include "common/base/err.h"

enum { LWM_VQGAN_MAX_LEVELS = 8 };

struct lwm_vqgan_cfg {
	int32_t resolution;     /* square size it was made for; other multiples of the factor work too */
	int32_t hidden;         /* channels of level 0 at multiplier 1 */
	int32_t levels, mult[LWM_VQGAN_MAX_LEVELS];
	int32_t res_blocks;     /* a level in the encoder; the decoder has one more */
	int32_t z_channels, embed_dim, num_embeddings;
	int32_t groups;         /* of the group norms; divides every level's channels */
	int32_t unit_pixels;    /* 0: the net sees [-1,1] (LWM); 1: it sees [0,1] (aMUSEd) */
};

/* "lwm" (published, 146,244,675 parameters), "small", "tiny". Unknown names are -LWM_ECONFIG listing the known. */
int lwm_vqgan_preset(struct lwm_vqgan_cfg *c, const char *name, struct lwm_err *e);
int lwm_vqgan_check(const struct lwm_vqgan_cfg *c, struct lwm_err *e);
static inline int32_t lwm_vqgan_factor(const struct lwm_vqgan_cfg *c)
{
	return 1 << (c->levels - 1);
}
static inline int64_t lwm_vqgan_codes(const struct lwm_vqgan_cfg *c, int64_t height, int64_t width) /* per frame */
{
	return (height / lwm_vqgan_factor(c)) * (width / lwm_vqgan_factor(c));
}

#endif
