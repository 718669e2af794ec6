/* recon.h - the steps of the objective reconstruction: a VQGAN over frames.
 *
 *	lwm_recon_new(&r, dev, &cfg, params, e)         decodes the media once into a bounded cache of 8-bit frames
 *	every step, on every rank:
 *		lwm_recon_prepare(r, step, e)            1: params was changed (the codebook: see below)
 *		lwm_recon_step(r, step, rank, ranks, grads, &stats, e)
 *		... sum of grads and stats over the ranks, optimizer step on params
 *	lwm_recon_eval(r, max_frames, at_once, &stats, e)
 *
 * Which frames a step sees, and which pieces of them, is a pure function of (seed, step, sample): the batch is the same however
 * many ranks share it. There is no state from step to step besides params, so a resumed run needs nothing of this struct.
 *
 * Until step quantize_from the net learns as a plain autoencoder. prepare makes the codebook then, from the latents of
 * probe_frames random frames: rows are drawn far from each other (k-means++, Arthur & Vassilvitskii 2007) and moved to
 * the middle of what they are nearest to. Every revive_every steps until revive_until, rows that no latent of the probe
 * chooses are drawn anew. At step 0 it scales the last convolution of the encoder to latents of deviation 1. All ranks
 * must call it with the same params; it writes the same values on all.
 */
#ifndef LWM_TRAIN_RECON_H
#define LWM_TRAIN_RECON_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/path.h"
#include "common/model/vqgan.h"

struct lwm_recon_cfg {
	struct lwm_vqgan_cfg model;
	struct lwm_vqgan_loss loss;          /* weights of its terms; what it borrows outlives the run */
	struct lwm_patchgan_cfg judge;       /* a discriminator, with this weight of its verdict, from that step on */
	float adversarial;                   /* 0: there is none */
	int64_t adversarial_from;
	struct lwm_comm *ranks;              /* then: that share a step's batch; NULL: one rank */
	const struct lwm_paths *inputs;      /* media files (already expanded); a folder in it is a clip of images */
	const struct lwm_paths *eval_inputs; /* held-out media, may be NULL or empty */
	int64_t holdout;                     /* without eval_inputs: every holdout-th clip is held out; 0: none */
	double fps;                          /* frames a second that are taken; 0: all */
	int64_t width, height;               /* of the frames, pixels; 0: model.resolution */
	/* They are decoded in this size (0: the same), and a step sees a random piece of each, drawn by the seed; of held-out
	 * frames and of the probe the middle is seen. */
	int64_t from_width, from_height;
	int64_t max_frames_per_clip;         /* spread evenly; 0: all */
	int64_t max_pixels;                  /* of a frame of the media; 0: the default of common/media */
	int64_t cache_bytes;                 /* of decoded frames; clips that do not fit are -LWM_EMEMORY */
	int64_t batch, frames_per_pass;      /* frames a step over all ranks; frames in device memory at once */
	int64_t quantize_from;               /* the step that makes the codebook; before it there are no codes */
	int64_t revive_every, revive_until;  /* unused codes are drawn anew every so many steps, up to that step; 0: never */
	int64_t probe_frames;                /* random frames that the codebook is made from; 0: it stays as drawn */
	uint64_t seed;
};

struct lwm_recon_stats {
	struct lwm_vqgan_stats sum; /* over this rank's frames; add over ranks */
	int64_t codes_used;         /* distinct codes this rank saw in the step or evaluation */
};
struct lwm_recon;
/* All calls are local: every rank has its own cache of all frames.
 *
 * params: device, fp32, as lwm_vqgan_tensors lays it out and with a discriminator lwm_patchgan_tensors goes on, borrowed for the
 * life of r (prepare writes the codebook in it).
 * -LWM_ECONFIG: sizes that do not fit the model, or no frame left to train on. */
int lwm_recon_new(struct lwm_recon **out, struct lk_dev *dev, const struct lwm_recon_cfg *c, float *params,
		  struct lwm_err *e);
void lwm_recon_free(struct lwm_recon *r); /* NULL is fine */
/* Frames in the cache, for training or held out. */
int64_t lwm_recon_frames(const struct lwm_recon *r, bool held_out);
/* The first frame that the last step or evaluation saw, height rows of width * 3 bytes. Borrowed. */
const uint8_t *lwm_recon_seen(const struct lwm_recon *r);
/* Of the training frames as decoded: what the seed and the step choose from. Borrowed. */
const struct lwm_hash *lwm_recon_content(const struct lwm_recon *r);
/* Before the step: the care of the codebook, as above. 1: params was changed. */
int lwm_recon_prepare(struct lwm_recon *r, int64_t step, struct lwm_err *e);
/* COLLECTIVE over cfg.ranks from adversarial_from on. grads (device, like params) += this rank's part of the gradient of the
 * batch's mean loss. Weights may have changed since the last call: it refreshes what it derived from them. */
int lwm_recon_step(struct lwm_recon *r, int64_t step, int rank, int ranks, float *grads, struct lwm_recon_stats *stats,
		   struct lwm_err *e);
/* Over at most max_frames held-out frames (training frames when nothing is held out), spread evenly; at_once of them, at most the
 * batch, go through the net at a time, so that they need no more memory than a rank's share of a step. */
int lwm_recon_eval(struct lwm_recon *r, int64_t max_frames, int64_t at_once, struct lwm_recon_stats *stats, struct lwm_err *e);
/* n of these frames, and what the net makes of them in this step: rgb (2, n, height, width, 3), width and height of cfg. n: at most
 * as many as there are; the rest as above. */
int lwm_recon_show(struct lwm_recon *r, int64_t step, int64_t n, int64_t at_once, uint8_t *rgb, struct lwm_err *e);

#endif
