/* llama.h - the LLaMA transformer (Touvron et al. 2023) over text and vision tokens: configuration, training step.
 *
 * Shapes: T local tokens, D dim, F ffn, H heads, K kv_heads, E = D/H head size, V rows of a vocabulary. Token ids:
 * text 0 .. vocab_text-1, then vision code c at vocab_text + c (see lwm_llama_is_vision). Rows of a batch lie end
 * to end as different segments: there is no batch dimension. Inference is in cache.h, token choice in sample.h.
 */
#ifndef LWM_MODEL_LLAMA_H
#define LWM_MODEL_LLAMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/comm/comm.h"
#include "common/model/weights.h"
#include "common/tensor/tensor.h"
#include "kernels/kernels.h"

struct lwm_llama_cfg {
	char preset[16];     /* name it came from, "" if none */
	int64_t vocab_text;  /* rows of the text table */
	/* rows of the vision table (codes, end of frame, end of vision, padding); 0 = text only */
	int64_t vision_rows;
	int64_t vision_codes; /* image codes; end of frame = vision_codes, end of vision = vision_codes + 1 */
	int64_t dim, ffn, layers, heads, kv_heads;
	int64_t max_seq;
	double rope_theta, rms_eps, init_std;
	bool tie_embeddings; /* lm_head is embed_tokens (and vision_head is the vision table) */
};

/* Names for option tables, NULL-terminated: nano micro 124m debug 200m 1b 3b 7b 13b 30b 65b. */
extern const char *const lwm_llama_presets[];
int lwm_llama_preset(struct lwm_llama_cfg *cfg, const char *name, struct lwm_err *e); /* text only; -LWM_EUSAGE */
/* Adds the vision extension: codes + 2 markers, rows padded to a multiple of 256 (8192 -> 8448). */
void lwm_llama_add_vision(struct lwm_llama_cfg *cfg, int64_t codes);
int lwm_llama_check(const struct lwm_llama_cfg *cfg, struct lwm_err *e); /* -LWM_ECONFIG */
/* The table of the weights. Groups: 0 the embeddings, 1 + l layer l, 1 + layers the last norm and the heads. */
int lwm_llama_tensors(struct lwm_tensors *p, const struct lwm_llama_cfg *cfg, struct lwm_err *e);
int64_t lwm_llama_count(const struct lwm_llama_cfg *cfg);   /* all weights */
/* weights that a text token multiplies with (the head included) */
int64_t lwm_llama_matmul(const struct lwm_llama_cfg *cfg);
/* FLOPs of one training token that sees `seen` earlier tokens on average, forward and backward, without
 * recomputation. */
double lwm_llama_flops(const struct lwm_llama_cfg *cfg, double seen);

static inline int64_t lwm_llama_head_dim(const struct lwm_llama_cfg *c)
{
	return c->dim / c->heads;
}
static inline int64_t lwm_llama_ids(const struct lwm_llama_cfg *c) /* ids are below this */
{
	return c->vocab_text + c->vision_rows;
}
static inline bool lwm_llama_is_vision(const struct lwm_llama_cfg *c, int64_t id)
{
	return id >= c->vocab_text;
}
static inline int64_t lwm_llama_eof(const struct lwm_llama_cfg *c) /* id of "end of frame" */
{
	return c->vocab_text + c->vision_codes;
}
static inline int64_t lwm_llama_eov(const struct lwm_llama_cfg *c) /* id of "end of vision" */
{
	return c->vocab_text + c->vision_codes + 1;
}

/* ---- training ---- */

struct lwm_llama_run {
	int64_t tokens;     /* most local tokens of one step */
	bool train;         /* false: evaluation only, no memory for gradients */
	bool recompute;     /* keep per layer only its input, attention output and log-sum-exp */
	bool offload;       /* and keep those in host memory but for the layers in work; needs recompute */
	int64_t mlp_chunk;  /* tokens per MLP piece; 0 = default 4096 */
	int64_t loss_bytes; /* most bytes of logits at a time; 0 = default 128 MiB */
	/* ranks that share the rows, borrowed; NULL = alone. All have the same number of tokens. */
	struct lwm_devcomm *ring;
	bool no_causal;     /* every token of a segment sees all of it */
	/* How tokens look at each other, borrowed; NULL = a ring over `ring`, made and freed here. */
	struct lwm_attn *attention;
};

struct lwm_llama_bytes {
	int64_t saved;   /* kept from forward to backward, all layers */
	int64_t work;    /* one layer's working set */
	int64_t loss;    /* logits and their rows */
	int64_t ring;    /* travelling blocks */
	int64_t total;
	int64_t host;    /* beside the total: pinned host memory of run->offload */
};
/* Pure. What lwm_llama_new will allocate on a device of this dtype with ring_size ranks (weights, gradients and
 * optimizer state not included). run->ring is not looked at. */
struct lwm_llama_bytes lwm_llama_memory(const struct lwm_llama_cfg *cfg, const struct lwm_llama_run *run, int dtype,
					int ring_size);

/* Local. Bytes that dev takes for itself in such steps: angles, packed keys, scratch. 0: it does not say. */
int64_t lwm_llama_own(struct lk_dev *dev, const struct lwm_llama_cfg *cfg, const struct lwm_llama_run *run);
/* Pure. Host arrays of a step for each of run->tokens, beside the device: positions and targets on their way. */
int64_t lwm_llama_arrays(const struct lwm_llama_run *run, int ring_size);

/* Local. The most tokens of one row for which weights, gradients, optimizer state and activations of one rank fit into `bytes`
 * of device memory (and `host_bytes` of host memory); 0: none. dev: with what it takes for itself; NULL: without. */
int64_t lwm_llama_longest(struct lk_dev *dev, const struct lwm_llama_cfg *cfg, const struct lwm_llama_run *run, int dtype,
			  int64_t bytes, int64_t host_bytes);

struct lwm_llama;
/* Local. Allocates one block for all activations on dev (borrowed). */
int lwm_llama_new(struct lwm_llama **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
		  const struct lwm_llama_run *run, struct lwm_err *e);
void lwm_llama_free(struct lwm_llama *m); /* NULL is fine */

/* Host arrays of n local tokens. Under a ring every rank passes its slice; pos tells the order. */
struct lwm_llama_batch {
	int64_t n;
	const int32_t *tokens;
	const int32_t *targets; /* next token of the same segment; -1 none */
	const float *weights;   /* of the target's loss, normalised by the caller over all ranks; 0 = not counted */
	const int32_t *seg;     /* segment, unique over all rows of the step; < 0 padding */
	const int32_t *pos;     /* position in its segment, for rotary angles and causality */
};

/* What a step has to compute, whatever it computes: sums over all rows, each once. */
struct lwm_llama_work {
	double tokens;                /* that are not padding */
	double pairs;                 /* (query, key) of one segment, the key no later than the query: n (n + 1) / 2 of n tokens */
	double heads[LWM_MODALITIES]; /* targets that count, by the table they are looked for in */
};
/* Pure. Model FLOPs of training on that, forward and backward, two for each multiplication and addition (Chowdhery et al. 2022,
 * PaLM, appendix B): 6 for each weight of the layers' matrices and each token, 6 D V for each target that counts, and for
 * attention 12 D for each layer and pair, where the appendix counts T^2 pairs, masked ones too. Embeddings are looked up, norms
 * and rotation are not counted; nor is what is computed a second time (recomputation), so a rate made of it is MFU, not HFU. */
double lwm_llama_work_flops(const struct lwm_llama_cfg *cfg, const struct lwm_llama_work *work);

struct lwm_llama_stats { /* local sums per modality, fp64 */
	double loss[LWM_MODALITIES]; /* sum of weight * nll */
	double nll[LWM_MODALITIES];  /* sum of nll over counted tokens */
	double hits[LWM_MODALITIES]; /* counted tokens whose arg max is the target */
	int64_t tokens[LWM_MODALITIES];
};

/* ---- a step ----
 *
 *	lwm_llama_begin(m, b, w, e)      checks the batch, on all ranks
 *	lwm_llama_forward(m)             the residual stream, layer by layer
 *	lwm_llama_loss(m)                sums over counted targets; with gradients: of the heads and of the last stream
 *	lwm_llama_backward(m)            from there to the gradients of all weights
 *	lwm_llama_end(m, &stats, e)      what came of it
 *
 * w: the weights (weights.h); b and w are borrowed from begin to end. All are COLLECTIVE over run.ring. A rank on which something
 * fails after begin continues without computing, so that nobody is left waiting, and says so in end, where all ranks return the
 * same: forward, loss and backward return nothing. Each needs the one before it; backward needs run.train and w->grads. Where the
 * loss was left out, out is NULL. Gradients are of sum(weight * nll), this rank's part, added to what lies there: summing over
 * ranks is the caller's business. */
int lwm_llama_begin(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_supply *w, struct lwm_err *e);
void lwm_llama_forward(struct lwm_llama *m);
void lwm_llama_loss(struct lwm_llama *m);
void lwm_llama_backward(struct lwm_llama *m);
int lwm_llama_end(struct lwm_llama *m, struct lwm_llama_stats *out, struct lwm_err *e);

/* All of it, backward where w->grads. */
int lwm_llama_step(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_supply *w, struct lwm_llama_stats *out,
		   struct lwm_err *e);

/* Forward only, logits (rows, vocabulary of the modality) of the local tokens rows[0..nrows) to host memory: for
 * tests and tools, not for long rows. COLLECTIVE over run.ring. */
int lwm_llama_logits(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_supply *w, enum lwm_modality head,
		     const int32_t *rows, int64_t nrows, float *host_out, struct lwm_err *e);

#endif
