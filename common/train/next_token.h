/* next_token.h - the settings of the objective next-token: a language model over packed rows of text and vision tokens. */
#ifndef LWM_TRAIN_NEXT_TOKEN_H
#define LWM_TRAIN_NEXT_TOKEN_H

#include "common/train/stage.h"

enum lwm_offload_when { LWM_OFFLOAD_AUTO, LWM_OFFLOAD_TRUE, LWM_OFFLOAD_FALSE }; /* auto: where the device is too small */

enum lwm_kept { LWM_KEPT_EXACT, LWM_KEPT_BF16 };

struct lwm_objective_type;
struct lwm_next_token {
	/* the model, over the preset (0: the preset's) */
	int64_t dim, ffn, layers, heads, kv_heads;
	int64_t vocab, vision_codes; /* 0: those of the rows */
	bool tie;                    /* head and embedding share one table */
	double theta, init_std;
	double norm_eps;             /* 0: that of start_from, else the preset's */

	/* the data: "PATH" or "PATH=weight", a row shard or a folder of them */
	int64_t seq_length, tokens_per_batch; /* tokens in a row; in a step, all ranks together */
	int64_t micro_rows;                   /* rows at a time on a rank; 0: about 16K tokens */
	int weighting;                        /* enum lwm_weighting of the loader */
	double text_weight, vision_weight;    /* both 0: as loader.h says */

	/* how a step is computed */
	int ring_layout;    /* enum lwm_ring_layout */
	bool no_recompute;  /* activations of a layer are kept */
	int offload;        /* enum lwm_offload_when: what is kept of each layer waits in host memory */
	int kept;           /* enum lwm_kept: as what each layer's input and attention output wait for the backward */
	int64_t head_groups; /* attention of so many groups of heads, one after the other */
	int64_t mlp_chunk;  /* tokens of the MLP at a time; 0: 4096 */
	int64_t loss_mib;   /* most MiB of logits at a time; 0: 128 */

	/* samples: tokens that are given of a document, that follow; 0: always the likeliest one */
	int64_t sample_given, sample_tokens;
	double sample_temperature;
};

extern const struct lwm_objective_type lwm_objective_next_token;
/* Those of a stage; another objective's run has them too, and ignores them. */
struct lwm_next_token *lwm_next_token_of(const struct lwm_stage *s);

#endif
