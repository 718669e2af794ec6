/* llama_pass.h - a forward pass for a caller that checks, attends and agrees by itself: generation.
 *
 *	lwm_pass_start(m, &b, w)           a batch and its weights, which nobody checks; nothing has failed
 *	lwm_llama_forward(m)               with the attention that the model was made with
 *	rc = lwm_pass_result(m, e)         what came of it on this rank
 *	lwm_pass_set(m, rc, &why)          where the caller knows better: it is then the outcome of the pass
 *	lwm_logit_pick(m, rows, n)         any of its tokens; and then their logits, on the host or where they are:
 *	lwm_logit_rows | lwm_logit_piece
 *
 * A failure is kept until the next start; what is called after it computes nothing. Local calls, but for what attention is.
 */
#ifndef LWM_MODEL_LLAMA_PASS_H
#define LWM_MODEL_LLAMA_PASS_H

#include "common/model/llama.h"

/* Both borrowed until the last call of the pass. */
void lwm_pass_start(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_supply *w);
/* 0 or the first failure, of which *e is told. */
int lwm_pass_result(const struct lwm_llama *m, struct lwm_err *e);
void lwm_pass_set(struct lwm_llama *m, int rc, const struct lwm_err *why);

/* The tokens of the pass whose logits are wanted, at most run.tokens of them: host memory, read before it returns. */
void lwm_logit_pick(struct lwm_llama *m, const int32_t *rows, int64_t n);
/* Logits (n, vocabulary) fp32 of the first n that were picked, to host memory. */
void lwm_logit_rows(struct lwm_llama *m, enum lwm_modality head, int64_t n, float *host_out);
/* The same on the device, of those from `from` on: valid until the next call. n: at most lwm_logit_room. */
struct lk_view lwm_logit_piece(struct lwm_llama *m, enum lwm_modality head, int64_t from, int64_t n);
int64_t lwm_logit_room(const struct lwm_llama *m);

#endif
