/* logits.h - what a model thinks of given tokens: the logits after each and the loss of the next, for whoever wants to compare it
 * with another program. Local calls. */
#ifndef LWM_EVAL_LOGITS_H
#define LWM_EVAL_LOGITS_H

#include <stdbool.h>
#include <stdio.h>

#include "common/base/err.h"
#include "common/model/llama.h"

struct lwm_logits {
	int64_t top; /* how many of the largest, largest first, the lower id on ties; -1: all, in the order of ids */
	bool json;   /* JSON lines; else columns, separated by tabs */
};
/* Writes a line for each of the tokens ids[0 .. n), one segment from position 0: position, token, its modality, the next token
 * and its loss (-log softmax in nats, of the head of its modality), the logits of each head that the model has:
 *
 *	position TAB token TAB text|vision TAB next TAB loss { TAB head:id:logit }          "-" where nothing follows
 *	{"position":,"token":,"modality":,"next":,"loss":,"logits":{"text":[x,...],...}}    with top: [[id,x],...]
 *
 * Numbers have nine digits: the fp32 that they are. Memory: the cache of n tokens and a few rows of logits. weights: compute dtype,
 * on dev. -LWM_EIO: cannot write. */
int lwm_logits_write(FILE *out, const struct lwm_logits *how, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
		     const void *weights, const int32_t *ids, int64_t n, struct lwm_err *e);

#endif
