/* stage.h - one training stage: its settings, its plan, its run.
 *
 *	struct lwm_stage s;
 *	lwm_stage_init(&s, e)                      every setting has its default
 *	lwm_settings_options(&s, opts)             for lwm_tool_main; or the fields are set one by one
 *	lwm_stage_check(&s, ranks, e)              can these settings work? for --check-options; the next two ask it themselves
 *	lwm_stage_plan(&s, ranks, json, &out, e)   what would a run take?
 *	lwm_stage_run(&s, world, e)                on every rank
 *	lwm_stage_release(&s)
 *
 * A stage trains until `steps` and leaves in `out`:
 *	step_NNNNNNNN/   checkpoints (common/io/ckpt.h), the newest verified one is the truth
 *	metrics.jsonl    one object a step and one an event, exact values
 *	samples/         what the model makes, every sample_every steps and after the last one (samples.h)
 *	summary.json     written last, when all steps are done
 *	STOP             made by a user: the stage saves and ends with 0, and does nothing while the file is there
 *	damaged/         checkpoints that were finished once and are not whole any more
 * Ranks that should hold the same weights and do not end the run (-LWM_ENUMERIC, replicas.h) before they are saved.
 * Started again it resumes from the newest whole checkpoint, bit for bit as if it had never stopped (same mesh; with canonical sums
 * any other that has them). Where none of several is whole it refuses. Settings that decide what is computed must be those it was
 * begun with (settings_record.h).
 *
 * What is trained is an objective (objective.h). Its own settings are in its own struct, which the stage holds and does not know:
 * lwm_next_token_of(&s)->dim is the width of a language model.
 */
#ifndef LWM_TRAIN_STAGE_H
#define LWM_TRAIN_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/path.h"
#include "common/base/str.h"
#include "common/comm/comm.h"
#include "common/optim/guards.h"
#include "common/optim/scale.h"
#include "common/optim/schedule.h"
#include "common/optim/weights.h"
#include "common/tensor/adapter.h"
#include "common/tensor/choose.h"
#include "common/train/rates.h"
#include "common/train/settings.h"

/* auto: where fsdp > 1, and where sp > 1 and ranks compute on GPUs, each with memory of its own. */
enum lwm_shard_when { LWM_SHARD_AUTO, LWM_SHARD_TRUE, LWM_SHARD_FALSE };
/* Gradients of sharded weights: summed over ranks once a step, or after each microbatch, when nothing holds them whole. */
enum lwm_scatter_when { LWM_SCATTER_STEP, LWM_SCATTER_MICROBATCH };
/* Sums over the rows of a step: each rank its own first, then over ranks; or one microbatch after the other, in the order of the
 * step's rows, so that they are the same bits on any number of ranks (README.md). */
enum lwm_sum_order { LWM_SUM_MESH, LWM_SUM_CANONICAL };

/* Checkpoints are written from a copy of weights and moments while training goes on (saver.h). auto: where there is memory. */
enum lwm_behind_when { LWM_BEHIND_AUTO, LWM_BEHIND_TRUE, LWM_BEHIND_FALSE };

/* What objectives over frames take of media: files or folders of them. */
struct lwm_stage_frames {
	double fps;                    /* frames a second that are taken; 0: all */
	int64_t holdout;               /* without eval_data every holdout-th medium is held out; 0: none */
	int64_t cache_mib, max_pixels; /* MiB of decoded frames; pixels of a frame that is read */
	/* of clips of patches: contrastive */
	int64_t size, clip;            /* frames of size x size pixels; frames of a clip */
	int64_t patch, patch_frames;   /* a patch: so many frames of patch x patch pixels */
	int64_t batch, at_once;        /* clips in a step, all ranks together; through the trunk at once on a rank, 0: all */
	const char *vqgan;             /* folder of the one whose latents or codes of frames are trained on; NULL: pixels */
};

struct lwm_stage {
	struct lwm_values *values; /* this struct, then that of each objective, in the order of lwm_objectives */

	const char *out;        /* folder of everything above */
	int objective;          /* index into lwm_objectives */
	const char *device;     /* auto, cpu, ref, cuda, cuda:N */
	int dtype;              /* enum lwm_dtype (comm/device.h), of weights and activations */
	const char *start_from; /* first weights: random, checkpoint:DIR, ema:DIR, model:DIR; text-...: vision ones start fresh */
	bool older_ok;          /* start_from checkpoint:ROOT may take an older one than the newest, when that is damaged */
	const char *tokenizer;  /* file, recorded for the merged model; NULL: none */
	int64_t seed, threads;  /* threads 0: all that the process may use */

	struct lwm_paths data, eval_data; /* of the kind that the objective takes */
	struct lwm_stage_frames frames;
	const char *model;                /* a preset of the objective; its settings say single values over it */

	int64_t steps; /* updates of the whole stage */
	struct lwm_schedule schedule;
	struct lwm_adamw adamw;
	struct lwm_guards guards;
	const char *loss_scale;     /* where they are fp16: "auto" or a number, which scaling.fixed is made from (lwm_stage_scaling) */
	struct lwm_scaling scaling;

	const char *train_only, *freeze, *lr_factors; /* lists of patterns of names (choose.h); NULL: all train, at the same rate */
	const char *lora;                             /* matrices that get adapters (adapter.h); NULL: none */
	int64_t lora_rank;
	double lora_alpha;                            /* 0: the rank */
	double ema;                                   /* decay of an average of the weights; 0: none is kept */

	const char *mesh_dim; /* "dp,fsdp,tp,sp"; one may be -1 */
	int shard_weights;    /* enum lwm_shard_when: weights and gradients are cut over fsdp*sp, too */
	int64_t gather_ahead; /* groups of weights that are gathered before they are used */
	int scatter;          /* enum lwm_scatter_when */
	int sum_order;        /* enum lwm_sum_order */

	int64_t checkpoint_every, keep, keep_every; /* steps; newest checkpoints that stay; every so many steps for good */
	int save_behind;        /* enum lwm_behind_when; of checkpoints before the last one */
	int64_t log_every, eval_every, eval_rows;   /* steps; steps; held-out rows or frames of an evaluation */
	int64_t sample_every, samples; /* steps between files of samples (samples.h), 0: none; how many examples each shows */
	int64_t stop_after;     /* steps of this run, then it saves and stops; 0: never */
	double grace;           /* seconds before Slurm's limit at which it stops */
	int64_t check_replicas; /* steps between comparisons of what several ranks hold (replicas.h); 0: never */
	double watchdog;        /* seconds without a sign of life of a rank that end the job; 0: never */
	bool start_over;        /* begin at step 0 although no checkpoint in `out` is whole; they are set aside */
	struct lwm_paths allow_change; /* settings that may differ from those the run was begun with (settings_record.h) */
	bool tensorboard;       /* curves go to OUT/tensorboard too (events.h) */
	double peak_tflops;     /* of one rank's device, for MFU; 0: measured (peak.h) */
	double peak_after;      /* once, when the steps of this run took so many seconds: what is shorter is not made longer */

	bool planning;          /* only sizes are wanted: data may be missing */
	int64_t plan_ranks;     /* that the program plans and checks for */
	int64_t plan_gib;       /* planning for a GPU (bf16) of so much memory; 0: for the device at hand */
	int64_t plan_document;  /* tokens of a document in the rows that are planned for; 0: a row is one */
	int plan_gpu;           /* one of lwm_gpu_names: its memory and rates, where plan_gib and rates say nothing else */
	struct lwm_rates rates; /* that plans tell the time of a step by */
	bool suggest;           /* a plan names the best meshes too */
	bool calibrate;         /* lwm_stage_calibrate is asked for; the program does so before it plans */
};

/* Local. Every setting has its default; -LWM_EMEMORY. lwm_stage_release frees the lists, too; strings are borrowed. A copy of the
 * struct shares the objectives' settings and is not released. */
int lwm_stage_init(struct lwm_stage *s, struct lwm_err *e);
void lwm_stage_release(struct lwm_stage *s);

/* The settings of which tensors train. Pure; borrowed from the stage. */
static inline struct lwm_choose lwm_stage_choice(const struct lwm_stage *s)
{
	return (struct lwm_choose){ s->train_only, s->freeze, s->lr_factors };
}

static inline struct lwm_adapters lwm_stage_adapters(const struct lwm_stage *s) /* likewise */
{
	return (struct lwm_adapters){ s->lora, s->lora_rank, s->lora_alpha };
}

/* How the loss is scaled where the device computes in fp16. Pure. -LWM_EUSAGE, -LWM_ECONFIG: the settings cannot be. */
int lwm_stage_scaling(const struct lwm_stage *s, struct lwm_scaling *out, struct lwm_err *e);

/* Local. Can these settings work on `ranks` ranks at all? The one judge for a run, a plan and a check; looks at no file.
 * -LWM_EUSAGE or -LWM_ECONFIG. */
int lwm_stage_check(const struct lwm_stage *s, int ranks, struct lwm_err *e);
/* COLLECTIVE over world. -LWM_ESAVED after a stop that was asked for; 0 when it is complete, or stopped by the file STOP. */
int lwm_stage_run(const struct lwm_stage *s, struct lwm_comm *world, struct lwm_err *e);
/* Local. What a run on `ranks` ranks would take, as text or JSON in *out; -LWM_ECONFIG when it cannot work. Where data, tokenizer
 * or the model to start from do not exist (-LWM_ENOINPUT) *out is filled all the same. */
int lwm_stage_plan(const struct lwm_stage *s, int ranks, bool json, struct lwm_str *out, struct lwm_err *e);

/* COLLECTIVE over world, which may be one rank. Measures those rates of s that nobody said; a plan then tells the time of steps on
 * this machine. -LWM_EUNAVAIL, -LWM_EMEMORY. */
int lwm_stage_calibrate(struct lwm_stage *s, struct lwm_comm *world, struct lwm_err *e);

#endif
