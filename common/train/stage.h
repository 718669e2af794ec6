/* stage.h - one training stage: its settings, its plan, its run.
 *
 * A stage trains until `steps` and leaves in `out`:
 *	step_NNNNNNNN/   checkpoints (common/io/ckpt.h), the newest verified one is the truth
 *	metrics.jsonl    one object a step and one an event, exact values
 *	summary.json     written last, when all steps are done
 *	STOP             made by a user: the stage saves and ends with 0, and does nothing while the file stands
 *	damaged/         checkpoints that were finished once and are not whole any more
 * Started again it resumes from the newest whole checkpoint, bit for bit as if it had never stopped (same mesh). Where none of
 * several is whole it refuses. Settings that decide what is computed must be those it was begun with (settings.h).
 */
#ifndef LWM_TRAIN_STAGE_H
#define LWM_TRAIN_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/path.h"
#include "common/base/str.h"
#include "common/comm/comm.h"

enum lwm_objective_kind { LWM_NEXT_TOKEN, LWM_RECONSTRUCTION };
extern const char *const lwm_objective_names[];
enum lwm_schedule { LWM_CONSTANT, LWM_COSINE, LWM_LINEAR };
extern const char *const lwm_schedule_names[];
enum lwm_warmup_from { LWM_FROM_ONE, LWM_FROM_ZERO }; /* what the first of W warm-up updates uses: 1/W of the way, or nothing */
extern const char *const lwm_warmup_names[];
enum lwm_offload_when { LWM_OFFLOAD_AUTO, LWM_OFFLOAD_TRUE, LWM_OFFLOAD_FALSE }; /* auto: where the device is too small */
extern const char *const lwm_offload_names[];
extern const char *const lwm_weighting_names[]; /* per_example per_token published: enum lwm_weighting of the loader */

struct lwm_stage {
	const char *out, *device, *start_from, *tokenizer;
	int objective;
	int64_t seed, threads;

	/* model: a preset, single values over it (0 = the preset's) */
	const char *model;
	int64_t dim, ffn, layers, heads, kv_heads, vocab, vision_codes;
	bool tie;
	double theta, init_std, norm_eps; /* 0: the preset's; norm_eps 0: that of start_from, else the preset's */

	/* data: "PATH" or "PATH=weight", a row shard or a folder of them; media files for reconstruction */
	struct lwm_paths data, eval_data;
	int64_t seq_length, tokens_per_batch, micro_rows;
	int weighting;
	double text_weight, vision_weight; /* both 0: as loader.h says */

	int64_t steps;
	int schedule;
	double lr, min_lr, init_lr; /* init_lr: where the warm-up starts */
	int64_t warmup_steps, decay_steps; /* decay_steps: updates until min_lr, the warm-up among them; 0: steps */
	int warmup_from;                   /* enum lwm_warmup_from */
	double weight_decay, beta1, beta2, eps, clip, spike_factor;
	bool decay_all; /* norms and biases decay too */

	const char *mesh_dim;
	int ring_layout;
	bool no_recompute;
	int offload; /* enum lwm_offload_when */
	int64_t mlp_chunk, loss_mib;

	int64_t checkpoint_every, keep, keep_every, log_every, eval_every, eval_rows, stop_after;
	double grace, watchdog;
	bool start_over;               /* begin at step 0 although no checkpoint in `out` is whole; they are set aside */
	bool older_ok;                 /* start_from checkpoint:ROOT may take an older one than the newest, when that is damaged */
	struct lwm_paths allow_change; /* settings that may differ from those the run was begun with (settings.h) */
	bool planning; /* only sizes are wanted: data may be missing */
	double peak_tflops; /* of one rank's device, for MFU; 0: measured (peak.h) */
	double peak_after;  /* once, when the steps of this run took so many seconds: what is shorter is not made longer */
	int64_t plan_gib; /* planning for a GPU (bf16) of so much memory; 0: for the device at hand */

	/* reconstruction */
	int64_t resolution, hidden, z_channels, codes, res_blocks, groups, batch_frames, frames_per_pass, holdout,
		cache_mib, max_pixels, quantize_from, revive_every, revive_until, probe_frames;
	const char *channel_mult; /* "1,2,2,4" */
	double fps, l1, l2, codebook_weight, commit_weight;
};

void lwm_stage_defaults(struct lwm_stage *s);
/* Learning rate of update n (from 0): over warmup linear from init_lr to lr, of which update n has gone (n+1)/warmup, or n/warmup
 * (warmup_from zero); then constant, or cosine or linear down to min_lr at `decay_steps`. From zero with cosine it is optax's
 * warmup_cosine_decay_schedule(init_lr, lr, warmup_steps, decay_steps, min_lr). */
double lwm_stage_lr(const struct lwm_stage *s, int64_t n);

/* Local. Can these settings work on `ranks` ranks at all? The one judge for a run, a plan and a check; looks at no file.
 * -LWM_EUSAGE or -LWM_ECONFIG. */
int lwm_stage_check(const struct lwm_stage *s, int ranks, struct lwm_err *e);
/* COLLECTIVE over world. -LWM_ESAVED after a stop that was asked for; 0 when it is complete, or stopped by the file STOP. */
int lwm_stage_run(const struct lwm_stage *s, struct lwm_comm *world, struct lwm_err *e);
/* Local. What a run on `ranks` ranks would take, as text or JSON in *out; -LWM_ECONFIG when it cannot work. Where data, tokenizer
 * or the model to start from are not there (-LWM_ENOINPUT) *out is filled all the same. */
int lwm_stage_plan(const struct lwm_stage *s, int ranks, bool json, struct lwm_str *out, struct lwm_err *e);

#endif
