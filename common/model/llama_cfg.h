/* llama_cfg.h - what a LLaMA is: sizes, presets, the table of its weights, what a step of it has to compute. Pure calls.
 *
 *	lwm_llama_preset(&cfg, "7b", e)        or the fields one by one
 *	lwm_llama_add_vision(&cfg, 8192)       a table and a head for the codes of frames
 *	lwm_llama_check(&cfg, e)
 *	lwm_llama_tensors(&tensors, &cfg, e)   names, shapes and places of the weights
 *
 * Token ids: text 0 .. vocab_text-1, then vision code c at vocab_text + c (see lwm_llama_is_vision). */
#ifndef LWM_MODEL_LLAMA_CFG_H
#define LWM_MODEL_LLAMA_CFG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/tensor/tensor.h"

struct lwm_llama_cfg {
	char preset[16];     /* name it came from, "" if none */
	int64_t vocab_text;  /* rows of the text table */
	/* rows of the vision table (codes, end of frame, end of vision, padding); 0 = text only */
	int64_t vision_rows;
	int64_t vision_codes; /* image codes; end of frame = vision_codes, end of vision = vision_codes + 1 */
	int64_t dim, ffn, layers, heads, kv_heads;
	/* > 0: a trunk (trunk.h). Inputs are vectors of so many numbers instead of ids; it has no tables, vocab_text and
	 * vision_rows are 0, and nothing is tied. */
	int64_t input_dim;
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
/* -LWM_ECONFIG: tp tensor-parallel ranks cannot cut it. Heads, ffn and the rows of both tables must divide by tp: tables are not
 * padded (the published ones, 32000 and 8448 rows, divide by every power of two up to 256). So must key heads, or tp by them:
 * then tp / kv_heads neighbouring ranks hold the same key head. */
int lwm_llama_check_tp(const struct lwm_llama_cfg *cfg, int tp, struct lwm_err *e);
/* The table of the weights. Groups: 0 the embeddings, or of a trunk model.input_proj.weight (dim, input_dim), 1 + l layer l,
 * 1 + layers the last norm and the heads. */
int lwm_llama_tensors(struct lwm_tensors *p, const struct lwm_llama_cfg *cfg, struct lwm_err *e);
/* Elements of the matrices of layers whose gradients a step does not form, for t, what one of tp ranks has, says that nothing of
 * them trains: q, k and v are one matrix, gate and up are. -LWM_EMEMORY. */
int lwm_llama_unformed(const struct lwm_llama_cfg *cfg, int tp, const struct lwm_tensors *t, int64_t *weights, struct lwm_err *e);
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

#endif
