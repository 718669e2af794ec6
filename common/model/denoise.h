/* denoise.h - the layers of a LLaMA as a denoiser of clips: D(x; sigma) of noise.h over a trunk, and its training.
 *
 * Latents of a clip are (times, rows, columns, channels) of deviation 1. A token is a patch of patch x patch places of one time;
 * every token sees all of its clip. Its vector is
 *
 *	the patch times `in` of its sigma (clean: as it is) | the patch of its place at the last clean time, 0 without one
 *	| features of sigma, if it is noisy | features of sigma, if it is clean
 *
 * The second is what Vista has as the latent of the first frame beside every noisy one. There are two kinds of features,
 * so that the trunk's input matrix has an embedding of sigma for noisy tokens and another for clean ones, which is how the net
 * knows them. The features, 16 of c = ln(sigma) / 4: cos(k pi c / 2) and sin((k + 1) pi c / 2) for k = 0 .. 7, a Fourier series
 * over -2 < c < 2. A linear head makes F of the hidden states; of clean times D is x. The loss is that of clip_loss.h.
 *
 *	lwm_denoise_new(&m, dev, &cfg, &run, e)
 *	lwm_denoise_step(m, &b, w, &stats, e)       loss and gradient
 *	lwm_denoise_apply(m, &b, w, out, e)         D alone, what a sampler asks (euler.h)
 *	lwm_denoise_free(m)
 */
#ifndef LWM_MODEL_DENOISE_H
#define LWM_MODEL_DENOISE_H

#include "common/model/clip_loss.h"
#include "common/model/trunk.h"

enum { LWM_DENOISE_FEATURES = 16 };
struct lwm_denoise_cfg {
	struct lwm_llama_cfg trunk; /* input_dim: as lwm_denoise_input_dim says */
	struct lwm_latent_shape shape;
	int64_t patch;              /* divides rows and columns */
};
static inline int64_t lwm_denoise_numbers(const struct lwm_denoise_cfg *c) /* of a patch */
{
	return c->patch * c->patch * c->shape.channels;
}
static inline int64_t lwm_denoise_input_dim(const struct lwm_denoise_cfg *c)
{
	return 2 * lwm_denoise_numbers(c) + 2 * LWM_DENOISE_FEATURES;
}
static inline int64_t lwm_denoise_tokens(const struct lwm_denoise_cfg *c) /* of a clip */
{
	return c->shape.times * (c->shape.rows / c->patch) * (c->shape.columns / c->patch);
}
struct lwm_denoise_run {
	struct lwm_llama_run how; /* of it tokens, no_causal, ring and tp are set here */
	int64_t clips;            /* most clips at a time */
	double structure;         /* of the loss */
	bool dynamics;
};

int lwm_denoise_check(const struct lwm_denoise_cfg *c, struct lwm_err *e); /* -LWM_ECONFIG */
/* The trunk's table, with denoise.latents.weight (numbers of a patch, dim) in the group of its norm. */
int lwm_denoise_tensors(struct lwm_tensors *t, const struct lwm_denoise_cfg *c, struct lwm_err *e);
/* Pure: device memory that lwm_denoise_new takes; beside it pinned host memory, of run.how.offload; host arrays. FLOPs of training
 * on so many clips. */
int64_t lwm_denoise_memory(const struct lwm_denoise_cfg *c, const struct lwm_denoise_run *r, int dtype);
int64_t lwm_denoise_host(const struct lwm_denoise_cfg *c, const struct lwm_denoise_run *r, int dtype);
int64_t lwm_denoise_arrays(const struct lwm_denoise_cfg *c, const struct lwm_denoise_run *r);
double lwm_denoise_flops(const struct lwm_denoise_cfg *c, double clips);
/* Local. What the device takes for itself in such steps; 0: it does not say. */
int64_t lwm_denoise_own(struct lk_dev *dev, const struct lwm_denoise_cfg *c, const struct lwm_denoise_run *r);

struct lwm_denoise;
/* Local; dev is borrowed. -LWM_ECONFIG, -LWM_EMEMORY, -LWM_EDEVICE. */
int lwm_denoise_new(struct lwm_denoise **out, struct lk_dev *dev, const struct lwm_denoise_cfg *c, const struct lwm_denoise_run *r,
		    struct lwm_err *e);
void lwm_denoise_free(struct lwm_denoise *m); /* NULL is fine */

struct lwm_denoise_batch { /* host, borrowed for the call */
	int64_t clips;        /* 1 to run.clips */
	const float *noisy;   /* (clips, times, rows, columns, channels): x */
	const float *target;  /* the same shape: z; not for apply */
	const double *sigma;  /* (clips), above 0 */
	const int64_t *clean; /* (clips): so many first times are not noisy; fewer than times */
	float *denoised;      /* NULL, or of that shape: D */
};
struct lwm_denoise_stats { /* local sums over clips, added to; their loss is the sum of the parts */
	double clips;
	struct lwm_clip_parts parts;
	double nothing; /* the loss of a net whose F is 0, where stats->compare asks for it */
	bool compare;
};
/* With w->grads the gradient of the sum of the losses is added. COLLECTIVE over those that share w. */
int lwm_denoise_step(struct lwm_denoise *m, const struct lwm_denoise_batch *b, struct lwm_supply *w,
		     struct lwm_denoise_stats *stats, struct lwm_err *e);
/* D to b->denoised. No gradients; otherwise likewise. */
int lwm_denoise_apply(struct lwm_denoise *m, const struct lwm_denoise_batch *b, struct lwm_supply *w, struct lwm_err *e);

#endif
