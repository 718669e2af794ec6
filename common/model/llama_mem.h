/* llama_mem.h - how a LLaMA is run, and what memory that takes: before anything is allocated, for plans too. */
#ifndef LWM_MODEL_LLAMA_MEM_H
#define LWM_MODEL_LLAMA_MEM_H

#include "common/model/llama_cfg.h"
#include "kernels/kernels.h"

struct lwm_llama_run {
	int64_t tokens;     /* most local tokens of one step */
	bool train;         /* false: evaluation only, no memory for gradients */
	bool recompute;     /* keep per layer only its input, attention output and log-sum-exp */
	bool offload;       /* and keep those in host memory but for the layers in work; needs recompute */
	/* Training in little memory (lwm_llama_is_lean): needs recompute, and goes with neither offload nor tp nor an attention of
	 * the caller's. Attention is computed for the heads in that many groups, one after the other, which divide heads and
	 * kv_heads; 0, 1 = all at once. keep_bf16: what is kept of a layer is rounded, which shows in gradients alone. */
	int64_t head_groups;
	bool keep_bf16;
	int64_t mlp_chunk;  /* tokens per MLP piece (of all tp ranks, rounded to a multiple of those); 0 = default 4096 */
	int64_t loss_bytes; /* most bytes of logits at a time; 0 = default 128 MiB */
	/* ranks that share the rows, borrowed; NULL = alone. All have the same number of tokens. */
	struct lwm_devcomm *ring;
	/* Ranks that share the model (tensor parallelism), borrowed; NULL = alone. All are given the same tokens, a multiple of
	 * their number; each has a part of every layer and of the tables, and a part of the rows of the residual stream. */
	struct lwm_devcomm *tp;
	bool no_causal;     /* every token of a segment sees all of it */
	bool device_vectors; /* of a trunk: its vectors are in device memory already (trunk.h) */
	/* How tokens look at each other, for this rank's heads, borrowed; NULL = a ring over `ring`, made and freed here. */
	struct lwm_attn *attention;
};

/* Pure. Is training on a device of this dtype cut into groups of heads and pieces of tokens (llama_lean.c)? Not where bf16 is what
 * a device computes in, and heads are one group. */
bool lwm_llama_is_lean(const struct lwm_llama_run *run, int dtype);
/* Pure. -LWM_ECONFIG: settings of a run that do not go together, or not with this model and tp ranks that share it. */
int lwm_llama_check_run(const struct lwm_llama_cfg *cfg, const struct lwm_llama_run *run, int tp, struct lwm_err *e);

struct lwm_llama_bytes {
	int64_t saved;   /* kept from forward to backward, all layers */
	int64_t work;    /* one layer's working set */
	int64_t loss;    /* logits and their rows */
	int64_t ring;    /* travelling blocks */
	int64_t total;
	int64_t host;    /* beside the total: pinned host memory of run->offload */
};
/* Pure. What lwm_llama_new will allocate on a device of this dtype with ring_size ranks that share the rows and tp that share the
 * model (weights, gradients and optimizer state not included). run->ring and run->tp are not looked at. */
struct lwm_llama_bytes lwm_llama_memory(const struct lwm_llama_cfg *cfg, const struct lwm_llama_run *run, int dtype,
					int ring_size, int tp);

/* Local. Bytes that dev takes for itself in such steps of one of tp ranks: angles, packed keys, scratch. 0: it does not say. */
int64_t lwm_llama_own(struct lk_dev *dev, const struct lwm_llama_cfg *cfg, const struct lwm_llama_run *run, int tp);
/* Pure. Host arrays of a step for each of run->tokens, beside the device: positions and targets on their way. */
int64_t lwm_llama_arrays(const struct lwm_llama_run *run, int ring_size);

/* Local, for plans. Bytes that the ranks of a ring send, all together, in a step of all layers of run->tokens tokens on each of
 * ring_size ranks: positions and segments (ring_size, run->tokens) in rank order. tp: ranks that share the model. -LWM_EMEMORY. */
int lwm_llama_ring_sends(const struct lwm_llama_cfg *cfg, const struct lwm_llama_run *run, int dtype, int ring_size, int tp,
			 const int32_t *pos, const int32_t *seg, double *bytes, struct lwm_err *e);

/* Local, for plans, likewise: of lwm_llama_memory's ring bytes those that such a batch writes to (attn_ring.h). */
int lwm_llama_ring_fills(const struct lwm_llama_cfg *cfg, const struct lwm_llama_run *run, int dtype, int ring_size, int tp,
			 const int32_t *pos, const int32_t *seg, int64_t *bytes, struct lwm_err *e);

/* Local. The most tokens of one row for which weights, gradients, optimizer state and activations of one rank fit into `bytes`
 * of device memory (and `host_bytes` of host memory); 0: none. dev: with what it takes for itself; NULL: without. */
int64_t lwm_llama_longest(struct lk_dev *dev, const struct lwm_llama_cfg *cfg, const struct lwm_llama_run *run, int dtype,
			  int64_t bytes, int64_t host_bytes);

#endif
