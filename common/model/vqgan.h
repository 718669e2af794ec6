/* vqgan.h - the frame tokenizer (Esser et al. 2021; the shape published with LWM): frames <-> codes, and its training.
 *
 *	encoder: conv 3->h; per level: res blocks, then (not after the last) a stride 2 conv; 2 res blocks; norm, conv -> z
 *	quantizer: 1x1 conv z -> embed_dim; nearest row of the codebook (lowest index on ties)
 *	decoder: 1x1 conv -> z; conv; 2 res blocks; per level from the deepest: res blocks + 1, then nearest x2 and a conv;
 *	         norm, conv -> 3
 *
 * No attention anywhere. Any frame size that is a multiple of `lwm_vqgan_factor` = 2^(levels-1) works.
 * Weights are fp32 in device memory and come from a provider (weights.h). Names are those of diffusers' VQModel safetensors.
 * This code knows no files. Frames are 8-bit RGB on the host, (n,H,W,3) dense; codes are int32 on the host, (n,H/f,W/f).
 * Local calls. Errors: -LWM_ECONFIG impossible configuration or size, -LWM_EMEMORY, -LWM_EUNAVAIL device,
 * -LWM_EDATA tensor missing, wrong shape, or code out of range.
 */
#ifndef LWM_MODEL_VQGAN_H
#define LWM_MODEL_VQGAN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/model/patchgan.h"
#include "common/model/perceptual.h"
#include "common/model/vqgan_cfg.h"
#include "common/model/weights.h"
#include "common/tensor/tensor.h"
#include "kernels/kernels.h"

struct json_t; /* jansson's: who makes or reads config.json includes common/base/json.h */

/* diffusers' VQModel config.json with our additions; *out is decref'ed by the caller. */
int lwm_vqgan_cfg_to_json(const struct lwm_vqgan_cfg *c, struct json_t **out, struct lwm_err *e);
int lwm_vqgan_cfg_from_json(struct lwm_vqgan_cfg *c, const struct json_t *o, const char *name, struct lwm_err *e);

/* ---- weights ----
 *
 * The table of them: convolutions (kh,kw,cin,cout), offsets multiples of 16 floats. Convolutions start uniform with variance
 * 1/fan_in (the second of a residual block a tenth of that deviation), norms 1 and 0, biases 0, the codebook
 * uniform(+-1/K). Groups: one for each convolution, residual block and norm, in their order, and one for the codebook between
 * encoder and decoder. */
int lwm_vqgan_tensors(struct lwm_tensors *p, const struct lwm_vqgan_cfg *c, struct lwm_err *e);

/* ---- the net on a device ---- */

struct lwm_vqgan;
/* w: the weights, fp32 in device memory; borrowed, and all held for the life of the net. frames_per_pass: frames in memory at once,
 * 0 = 1. Calls with more frames are cut into passes; results do not depend on the cut. */
int lwm_vqgan_new(struct lwm_vqgan **out, struct lk_dev *dev, const struct lwm_vqgan_cfg *c, struct lwm_supply *w,
		  int64_t frames_per_pass, struct lwm_err *e);
int lwm_vqgan_refresh(struct lwm_vqgan *m, struct lwm_err *e); /* the weights have changed, where they lie */
void lwm_vqgan_free(struct lwm_vqgan *m);                      /* NULL is fine */
int lwm_vqgan_encode(struct lwm_vqgan *m, const uint8_t *rgb, int64_t n, int64_t height, int64_t width, int32_t *codes,
		     struct lwm_err *e);
/* As encode; z (host, n * codes * embed_dim) gets the vectors before quantization. codes may be NULL. */
int lwm_vqgan_latents(struct lwm_vqgan *m, const uint8_t *rgb, int64_t n, int64_t height, int64_t width,
		      int32_t *codes, float *z, struct lwm_err *e);
/* height, width: of the frames. */
int lwm_vqgan_decode(struct lwm_vqgan *m, const int32_t *codes, int64_t n, int64_t height, int64_t width, uint8_t *rgb,
		     struct lwm_err *e);
/* The same from vectors such as lwm_vqgan_latents gives; snap: each becomes its nearest row of the codebook first, which is what a
 * decoder knows that was not trained as a plain autoencoder. */
int lwm_vqgan_decode_latents(struct lwm_vqgan *m, const float *z, bool snap, int64_t n, int64_t height, int64_t width, uint8_t *rgb,
			     struct lwm_err *e);
/* Device bytes that one pass of n frames needs (activations alone); training: forward and backward. */
int64_t lwm_vqgan_memory(const struct lwm_vqgan_cfg *c, int64_t n, int64_t height, int64_t width, bool training);
/* Of those, without training, what a pass writes to that encodes alone: what it takes of a host's memory. */
int64_t lwm_vqgan_encode_fills(const struct lwm_vqgan_cfg *c, int64_t n, int64_t height, int64_t width);
/* Bytes that dev takes for itself in such passes: packed weights of the convolutions, scratch. 0: it does not say. */
int64_t lwm_vqgan_own(struct lk_dev *dev, const struct lwm_vqgan_cfg *c, int64_t n, int64_t height, int64_t width, bool training);
/* The same of one that encodes alone: what goes when it is freed (kept), what the device keeps (scratch). */
struct lk_own lwm_vqgan_encode_own(struct lk_dev *dev, const struct lwm_vqgan_cfg *c, int64_t n, int64_t height, int64_t width);

/* ---- training ----
 * loss = l1 mean|x-t| + l2 mean(x-t)^2 + perceptual LPIPS(x, t) + codebook mean(e - sg[z])^2 + commit mean(z - sg[e])^2, x before
 * clipping, LPIPS as perceptual.h says it; the quantizer passes gradients straight through (van den Oord et al. 2017). */
struct lwm_comm;
/* A discriminator D that is trained beside the net, on the same frames x and what the net makes of them, xr (Esser et al. 2021):
 *
 *	D:       hinge loss (patchgan.h), its gradient with the same weight of a frame as the net's
 *	the net: loss + a g,  g = -mean D(xr),  a = weight clamp(|dL| / (|dg| + 1e-4), 0, 10^4)
 *
 * |dL|, |dg|: norms of the gradients of loss and g in the weights of the decoder's last convolution, over the whole batch. Both
 * nets are judged by their weights before the step. The net goes forward twice where the frames of a call are more than one
 * pass. */
struct lwm_vqgan_critic {
	struct lwm_patchgan *net; /* of the same device, borrowed; as its weights are */
	float *grads;             /* device, of its weights, added to; may be NULL where the net's gradients are not wanted */
	float weight;
	struct lwm_comm *ranks;   /* that share the batch; NULL: this one alone has it */
};
struct lwm_vqgan_loss {
	float l1, l2, codebook, commit;
	bool continuous; /* the decoder gets the latents themselves: a plain autoencoder, no codebook terms */
	float perceptual;
	struct lwm_perceptual *features; /* of the same device and kind of pixels, borrowed; NULL: no perceptual term */
	const struct lwm_vqgan_critic *critic; /* borrowed; NULL: none */
};
struct lwm_vqgan_stats { /* sums over frames of per-frame means: add them over passes and ranks */
	double frames, loss, l1, l2, vq, perceptual;
	/* with a critic, of `judged` frames: hinge loss, g, mean logit of x and of xr, and a (0 where no gradients are wanted; else
	 * loss has a g in it) */
	double judged, hinge, fooled, real, made, balance;
};
/* Adds weight * d(sum over these n frames of the frame's loss)/d(weights) to the gradients of `grads`, of which no weights are
 * asked; with weight = 1/batch the sum over all passes and ranks is the gradient of the batch's mean. In each pass every group is
 * ready once (not the codebook of a `continuous` one). With a critic and gradients COLLECTIVE over critic->ranks. codes (host, may
 * be NULL) gets what was chosen. Adds to *stats. grads NULL: forward only. */
int lwm_vqgan_train(struct lwm_vqgan *m, const uint8_t *rgb, int64_t n, int64_t height, int64_t width,
		    const struct lwm_vqgan_loss *loss, float weight, struct lwm_supply *grads, int32_t *codes,
		    struct lwm_vqgan_stats *stats, struct lwm_err *e);
/* Device bytes that a step of `frames` frames of a rank keeps for that, without the discriminator's own; pure. */
int64_t lwm_vqgan_critic_memory(const struct lwm_vqgan_cfg *c, int64_t frames, int64_t height, int64_t width, int dtype);
double lwm_psnr(double mse_pm1); /* dB, of a mean squared error on [-1,1]: 10 log10(4/mse) */

/* Hash of the configuration (as the text of its config.json) and of the weights (fp32): names the VQGAN that made
 * the codes. A function of the net alone, the same for every build and wherever it was read from. */
int lwm_vqgan_hash(struct lk_dev *dev, const struct lwm_vqgan_cfg *c, struct lwm_supply *w, char hex[33], struct lwm_err *e);

#endif
