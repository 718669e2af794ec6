/* masked.h - patches that are hidden, predicted from those that are seen: masked video modelling (He et al. 2022, MAE; Tong et al.
 * 2022, VideoMAE).
 *
 * A clip is `tokens` patches, of which `kept` are seen, the same places in all its frames (tube mask). The trunk goes over those
 * alone, each at its own position of the clip, each seeing all of them. A light decoder, a second trunk, goes over all places: its
 * inputs are the hidden states of those seen, and one learned vector for all others. From its hidden states at the hidden places a
 * linear head (pixels.h) predicts their targets; seen places have no loss.
 *
 *	loss = sum over hidden patches of the mean over its numbers of (predicted - target)^2
 *
 * Or the targets are the codes of a frozen tokenizer that lie in a patch, one softmax over the codebook for each (codes.h): masked
 * image modelling of BEiT (Bao et al. 2022, section 2.3, equation 2), on clips as MAGVIT has it (Yu et al. 2023), but that there
 * codes go in, too, and here pixels, of seen patches alone.
 *
 *	loss = sum over hidden patches of the mean over its codes c of -ln p(c | what is seen)
 *
 *	lwm_masked_new(&m, dev, &cfg, &run, e)
 *	lwm_masked_step(m, &b, w, &stats, e)
 *	lwm_masked_free(m)
 */
#ifndef LWM_MODEL_MASKED_H
#define LWM_MODEL_MASKED_H

#include "common/model/trunk.h"

struct lwm_masked_cfg {
	struct lwm_llama_cfg trunk, decoder; /* decoder.input_dim is trunk.dim */
	int64_t tokens, kept;                /* of a clip; of them seen, 1 to tokens - 1 */
	int64_t codes, each;                 /* size of the codebook, and codes of a patch; 0: targets are numbers */
};
struct lwm_masked_run {
	struct lwm_llama_run how; /* of both; of it tokens, no_causal, device_vectors, ring and tp are set here */
	int64_t clips;            /* most clips at a time */
	int64_t logits;           /* of codes: bytes of them at a time */
};

int lwm_masked_check(const struct lwm_masked_cfg *c, struct lwm_err *e); /* -LWM_ECONFIG */
/* The trunk's table, with masked.token (1, dim) in the group of its norm; then the decoder's groups, decoder. where a model has
 * model., the last one with masked.pixels.weight (numbers of a patch, decoder's dim), or masked.codes.weight (each * codes,
 * decoder's dim). */
int lwm_masked_tensors(struct lwm_tensors *t, const struct lwm_masked_cfg *c, struct lwm_err *e);
/* Pure: device memory that lwm_masked_new takes; beside it pinned host memory, of run.how.offload; host arrays. FLOPs of training
 * on so many clips. */
int64_t lwm_masked_memory(const struct lwm_masked_cfg *c, const struct lwm_masked_run *r, int dtype);
int64_t lwm_masked_host(const struct lwm_masked_cfg *c, const struct lwm_masked_run *r, int dtype);
int64_t lwm_masked_arrays(const struct lwm_masked_cfg *c, const struct lwm_masked_run *r);
double lwm_masked_flops(const struct lwm_masked_cfg *c, double clips);
/* Local. What the device takes for itself in such steps; 0: it does not say. */
int64_t lwm_masked_own(struct lk_dev *dev, const struct lwm_masked_cfg *c, const struct lwm_masked_run *r);

struct lwm_masked;
/* Local; dev is borrowed. -LWM_ECONFIG, -LWM_EMEMORY, -LWM_EDEVICE. */
int lwm_masked_new(struct lwm_masked **out, struct lk_dev *dev, const struct lwm_masked_cfg *c, const struct lwm_masked_run *r,
		   struct lwm_err *e);
void lwm_masked_free(struct lwm_masked *m); /* NULL is fine */

struct lwm_masked_batch { /* host, borrowed for the call */
	int64_t clips;          /* 1 to run.clips */
	const float *patches;   /* (clips, tokens, trunk.input_dim) */
	const float *targets;   /* the same shape; of codes NULL, and then */
	const int32_t *codes;   /* (clips, tokens, each), in [0, cfg.codes) */
	const int32_t *visible; /* (clips, kept): places that are seen, ascending */
	float *predicted;       /* NULL, or (clips, tokens - kept, input_dim): of the hidden ones, in order; of codes NULL */
};
struct lwm_masked_stats { /* local sums, added to */
	double patches, loss; /* hidden patches; the sum of the formula */
	double hits;          /* of codes: of each hidden patch the part whose most likely code is the true one */
};
/* With w->grads the gradient of that sum is added. COLLECTIVE over those that share w. */
int lwm_masked_step(struct lwm_masked *m, const struct lwm_masked_batch *b, struct lwm_supply *w, struct lwm_masked_stats *stats,
		    struct lwm_err *e);

#endif
