/* next_token_int.h - the objective next-token inside: next_token.c (settings, data, life) calls next_token_model.c (model, memory),
 * next_token_step.c (steps) and next_token_plan.c (what a step costs), which next_token_model.c calls too, and which calls
 * next_token_step.c; both of these and next_token.c call next_token_sources.c (what is said of sources). next_token.c calls
 * next_token_sample.c (what the model writes while it is trained), too. */
#ifndef LWM_TRAIN_NEXT_TOKEN_INT_H
#define LWM_TRAIN_NEXT_TOKEN_INT_H

#include "common/comm/ring_deal.h"
#include "common/data/loader/loader.h"
#include "common/model/llama.h"
#include "common/text/tokenizer.h"
#include "common/train/next_token.h"
#include "common/train/objective.h"
#include "common/train/sources.h"

/* Of one token in a batch: id, target, segment, position, weight; in a rank's share of it the source, too. */
enum { LWM_NT_TOKEN_BYTES = 20, LWM_NT_SHARE_BYTES = LWM_NT_TOKEN_BYTES + 4 };

/* How a step is cut: rows in all; rows at a time on a rank; tokens of them that are this rank's. */
struct lwm_nt_cut {
	int64_t rows_step, micro_rows, local;
};

struct lwm_nt {
	struct lwm_objective base;
	const struct lwm_next_token *set;
	struct lwm_llama_cfg cfg;
	struct lwm_loader *train, *eval; /* eval NULL: no held-out rows */
	struct lwm_loader_info info;     /* of the training rows */
	struct lwm_llama *net;
	bool offload;                    /* activations wait in host memory */
	struct lwm_nt_cut cut;
	struct lwm_ring_deal deal;         /* of the rows of a microbatch to the ranks of the ring */
	int32_t *tok, *target, *seg, *pos; /* (local) this rank's share of a microbatch */
	float *weight;
	int32_t *source;                   /* (local) of each token */
	int32_t *ring_seg, *ring_pos;      /* (ranks of the ring, local) of all their shares; NULL: this rank alone */
	double (*all_sums)[LWM_SUMS];      /* of a microbatch of each data rank; NULL: sums of this rank alone */
	struct lwm_loader_source *sources; /* of the training rows */
	int64_t nsources;
	struct lwm_loader_source *eval_sources; /* of the held-out rows */
	int64_t neval_sources;
	int64_t *source_rows, at_step;     /* [nsources] rows of each in the step made last */
	struct lwm_ids *shown;   /* [nshown] documents that samples begin with */
	int64_t nshown;
	struct lwm_tokenizer *speaker; /* what samples are written with; NULL: as ids */
	double unigram[LWM_MODALITIES]; /* entropy of the held-out targets, nats: what a model that knows only how often each
					 * token comes would reach; 0 unknown */
};

/* How this rank runs the model: what model, steps and plans all ask. */
static inline struct lwm_llama_run lwm_nt_run(const struct lwm_nt *t)
{
	const struct lwm_next_token *set = t->set;
	return (struct lwm_llama_run){ .tokens = t->cut.local,
				       .train = true,
				       .recompute = !set->no_recompute,
				       .offload = t->offload,
				       .head_groups = set->head_groups,
				       .keep_bf16 = set->kept == LWM_KEPT_BF16,
				       .mlp_chunk = set->mlp_chunk,
				       .loss_bytes = set->loss_mib << 20,
				       .ring = t->base.mesh->dev[LWM_SP],
				       .tp = t->base.mesh->dev[LWM_TP] };
}

/* ---- next_token_model.c ---- */

/* The model as far as the settings say it: without the vocabulary, which the rows may say. */
int lwm_nt_shape(struct lwm_llama_cfg *c, const struct lwm_stage *s, const struct lwm_next_token *set, struct lwm_err *e);
/* The sizes of `c` are those of the model that o's stage starts from, whose norms' epsilon is taken over where `set` says
 * none; of objectives over continuous inputs too. -LWM_ECONFIG. */
int lwm_nt_match_source(const struct lwm_objective *o, const struct lwm_next_token *set, struct lwm_llama_cfg *c,
			struct lwm_err *e);
/* Fills cfg, and of base the configuration and the table of weights; info is known. */
int lwm_nt_configure(struct lwm_nt *t, struct lwm_err *e);
/* What activations take, and whether they go to the host; while planning what else a rank takes. */
int lwm_nt_place(struct lwm_nt *t, struct lwm_err *e);

/* ---- next_token_step.c: of struct lwm_objective_type ---- */

int lwm_nt_attach(struct lwm_objective *o, struct lwm_supply *w, struct lwm_err *e);
int lwm_nt_step(struct lwm_objective *o, int64_t step, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e);
int lwm_nt_eval(struct lwm_objective *o, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e);
double lwm_nt_norm(const double sums[LWM_SUMS]);
double lwm_nt_render(struct lwm_objective *o, const double sums[LWM_SUMS], bool eval, struct lwm_str *json);
double lwm_nt_flops(const struct lwm_objective *o, const double sums[LWM_SUMS]);
/* Who holds what of a microbatch that was dealt: fills ring_seg and ring_pos. */
void lwm_nt_take_all(struct lwm_nt *t, const struct lwm_batch *b);
/* Of a step whose rows are one document each, with all targets in the larger table. */
double lwm_nt_most_flops(const struct lwm_nt *t);

/* ---- next_token_sample.c ---- */

/* Local. Keeps a document of each of the loader's rows, and opens the tokenizer they can be read with. */
int lwm_nt_take_shown(struct lwm_nt *t, struct lwm_loader *rows, struct lwm_err *e);
void lwm_nt_release_shown(struct lwm_nt *t);
/* Of struct lwm_objective_type. COLLECTIVE over the mesh's world. */
int lwm_nt_sample(struct lwm_objective *o, int64_t step, struct lwm_supply *w, struct lwm_samples *made, struct lwm_err *e);

/* ---- next_token_sources.c ---- */

/* Into base.plan_lines and base.plan_json, where there are several. */
int lwm_nt_tell_sources(struct lwm_nt *t, struct lwm_err *e);
/* ,"source_rows":[...],"source_shares":[...] of the step made last, of the first 16 sources. */
void lwm_nt_render_sources(const struct lwm_nt *t, struct lwm_str *json);
/* ,"loss_of":{"NAME":nll a label,...} of those of the first 16 sources that had labels; nothing where there is but one source. sums:
 * of each source its nll and its labels. eval: of the held-out rows. */
void lwm_nt_render_losses(const struct lwm_nt *t, const double *sums, bool eval, struct lwm_str *json);

/* ---- next_token_plan.c: of struct lwm_objective_type ---- */

int lwm_nt_work(struct lwm_objective *o, struct lwm_step_work *w, struct lwm_err *e);
/* Of base.ring_bytes those that a microbatch of documents as planned (stage->plan_document) writes to. */
int lwm_nt_ring_fills(struct lwm_nt *t, int64_t *bytes, struct lwm_err *e);

#endif
