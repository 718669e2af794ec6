/* The settings common to all stages, those of the objectives beside them, and whether they fit together. */
#include "common/train/stage.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/comm/device.h"
#include "common/comm/mesh.h"
#include "common/media/frames.h"
#include "common/train/objective.h"
#include "common/train/samples.h"
#include "common/train/settings_record.h"
#include "common/train/start.h"

#define SET(field, rule, preset, ...) LWM_SETTING(struct lwm_stage, field, rule, preset, __VA_ARGS__)
#define TEXT(field, rule, text, ...) LWM_SETTING_TEXT(struct lwm_stage, field, rule, text, __VA_ARGS__)

static const char *const shard_names[] = { "auto", "true", "false", NULL };       /* enum lwm_shard_when */
static const char *const scatter_names[] = { "step", "microbatch", NULL };         /* enum lwm_scatter_when */
static const char *const behind_names[] = { "auto", "true", "false", NULL };      /* enum lwm_behind_when */
static const char *const order_names[] = { "mesh", "canonical", NULL };            /* enum lwm_sum_order */

static const struct lwm_setting common_settings[] = {
	TEXT(out, LWM_UNRECORDED, NULL,
	     LWM_OPT_STR('o', "output", NULL, "DIR", "checkpoints, metrics.jsonl, summary.json; goes on from what is there",
			 LWM_OPT_REQUIRED)),
	SET(objective, LWM_FIXED, 0, LWM_OPT_CHOICE(0, "objective", NULL, lwm_objective_names, "what is trained", 0)),
	SET(seed, LWM_FIXED | LWM_CLI, 0, LWM_OPT_INT(0, "seed", NULL, 0, 9e15, "N", "seed of all random choices", 0)),
	TEXT(device, LWM_FREE, "auto", LWM_OPT_STR(0, "device", NULL, "DEV", "auto, cpu, ref, cuda, cuda:N", 0)),
	SET(dtype, LWM_FIXED, LWM_DTYPE_AUTO,
	    LWM_OPT_CHOICE(0, "dtype", NULL, lwm_dtype_names,
			   "of weights and activations: the device's own, fp32 on CPUs, bf16 on GPUs; fp16: on CPUs, with --loss-scale", 0)),
	TEXT(start_from, LWM_FIXED, "random",
	     LWM_OPT_STR(0, "start-from", NULL, "FROM",
			 "random, checkpoint:DIR, model:DIR, ema:DIR (an average); text-...: vision parts fresh, trunk-...: all but the layers", 0)),
	SET(older_ok, LWM_UNRECORDED, 0, LWM_OPT_OLDER(NULL)),
	TEXT(tokenizer, LWM_FREE, NULL, /* the rows carry its hash */
	     LWM_OPT_STR(0, "tokenizer", NULL, "FILE", "recorded for the merged model; must match the rows", 0)),
	LWM_SECTION("Data"),
	SET(data, LWM_UNRECORDED, 0,
	    LWM_OPT_LIST(0, "data", NULL, "PATH[=SHARE]", "row shards or folders of them, with shares: see below; or media", 0)),
	SET(eval_data, LWM_UNRECORDED, 0, LWM_OPT_LIST(0, "eval-data", NULL, "PATH", "held-out data", 0)),
	LWM_SECTION("Frames of media"),
	SET(frames.holdout, LWM_FIXED, 10, LWM_OPT_INT(0, "holdout", NULL, 0, 1 << 30, "N", "every N-th clip is held out; 0: none", 0)),
	SET(frames.cache_mib, LWM_FREE, 1024,
	    LWM_OPT_INT(0, "cache-mib", NULL, 1, 1 << 24, "N", "memory for decoded frames", 0)),
	SET(frames.max_pixels, LWM_UNRECORDED, LWM_MEDIA_MAX_PIXELS, LWM_OPT_MAX_PIXELS(NULL)),
	SET(frames.fps, LWM_FIXED, 0, LWM_OPT_DOUBLE(0, "fps", NULL, 0, 1000, "X", "frames a second that are taken; 0: all", 0)),
	SET(frames.size, LWM_FIXED, 64,
	    LWM_OPT_INT(0, "frame-size", NULL, 1, 8192, "N", "clips: pixels of a side of a frame, a multiple of --patch-size", 0)),
	SET(frames.clip, LWM_FIXED, 4,
	    LWM_OPT_INT(0, "clip-frames", NULL, 1, 1 << 16, "N", "clips: neighbouring frames of one, a multiple of --patch-frames", 0)),
	SET(frames.patch, LWM_FIXED, 16, LWM_OPT_INT(0, "patch-size", NULL, 1, 1024, "N", "clips: pixels of a side of a patch", 0)),
	SET(frames.patch_frames, LWM_FIXED, 2, LWM_OPT_INT(0, "patch-frames", NULL, 1, 1024, "N", "clips: frames of a patch", 0)),
	SET(frames.batch, LWM_FIXED, 32,
	    LWM_OPT_INT(0, "batch-clips", NULL, 1, 1 << 24, "N", "clips in a step, all ranks together", 0)),
	SET(frames.at_once, LWM_FREE, 0,
	    LWM_OPT_INT(0, "clips-per-pass", NULL, 0, 1 << 24, "N", "clips in memory at once on a rank; 0: all of a step", 0)),
	TEXT(frames.vqgan, LWM_MODEL, NULL,
	     LWM_OPT_STR(0, "vqgan", NULL, "DIR",
			 "clips: whose latents are denoised or forecast, whose codes are filled in: model folder or checkpoint; else pixels are", 0)),
	LWM_SECTION("Model"),
	TEXT(model, LWM_MODEL, "nano",
	     LWM_OPT_STR(0, "model", NULL, "NAME", "preset: nano micro 124m debug 200m 1b 3b 7b ...; VQGAN: tiny small lwm", 0)),
	LWM_SECTION("Schedule"),
	SET(steps, LWM_LENGTH, 1000, LWM_OPT_INT(0, "steps", NULL, 1, 1 << 30, "N", "updates of the whole stage", 0)),
	SET(schedule.shape, LWM_FIXED, LWM_CONSTANT,
	    LWM_OPT_CHOICE(0, "schedule", NULL, lwm_schedule_names, "learning rate behind the warmup", 0)),
	SET(schedule.lr, LWM_FIXED, 3e-4, LWM_OPT_DOUBLE(0, "lr", NULL, 0, 100, "X", "highest learning rate", 0)),
	SET(schedule.min_lr, LWM_CURVED, 0,
	    LWM_OPT_DOUBLE(0, "min-lr", NULL, 0, 100, "X", "learning rate at the end (cosine, linear)", 0)),
	SET(schedule.decay_steps, LWM_CURVED, 0,
	    LWM_OPT_INT(0, "decay-steps", NULL, 0, 1 << 30, "N", "from step 0 to --min-lr; 0: --steps", 0)),
	SET(schedule.warmup_steps, LWM_FIXED, 20, LWM_OPT_INT(0, "warmup-steps", NULL, 0, 1 << 30, "N", "linear warmup", 0)),
	SET(schedule.warmup_from, LWM_FIXED, LWM_FROM_ONE,
	    LWM_OPT_CHOICE(0, "warmup-from", NULL, lwm_warmup_names,
			   "its update n = 0, 1, ... uses (n+1)/N of the way to --lr; or n/N, as the released code does", 0)),
	SET(schedule.init_lr, LWM_FIXED, 0,
	    LWM_OPT_DOUBLE(0, "init-lr", NULL, 0, 100, "X", "learning rate that the warmup starts from", 0)),
	SET(adamw.weight_decay, LWM_FIXED, 0.1,
	    LWM_OPT_DOUBLE(0, "weight-decay", NULL, 0, 100, "X", "of matrices; norms and biases are left alone", 0)),
	SET(adamw.decay_all, LWM_FIXED, 0, LWM_OPT_FLAG(0, "decay-all", NULL, "norms and biases decay too, as in the released code")),
	SET(adamw.beta1, LWM_FIXED, 0.9, LWM_OPT_DOUBLE(0, "beta1", NULL, 0, 0.999999, "X", "AdamW", 0)),
	SET(adamw.beta2, LWM_FIXED, 0.95, LWM_OPT_DOUBLE(0, "beta2", NULL, 0, 0.999999, "X", "AdamW", 0)),
	SET(adamw.eps, LWM_FIXED, 1e-8, LWM_OPT_DOUBLE(0, "eps", NULL, 0, 1, "X", "AdamW", 0)),
	SET(guards.clip, LWM_FIXED, 1, LWM_OPT_DOUBLE(0, "clip", NULL, 0, 1e9, "X", "largest gradient norm; 0: no clipping", 0)),
	SET(guards.spike_factor, LWM_FIXED, 0,
	    LWM_OPT_DOUBLE(0, "spike-factor", NULL, 0, 1e9, "X", "skip updates whose gradient norm exceeds X medians; 0: never", 0)),
	TEXT(loss_scale, LWM_FIXED, "auto",
	     LWM_OPT_STR(0, "loss-scale", NULL, "auto|N", "fp16: gradients are of the loss times N; auto: as large as they allow", 0)),
	SET(scaling.first, LWM_FIXED, 65536,
	    LWM_OPT_DOUBLE(0, "loss-scale-first", NULL, 0, 1e13, "N", "auto begins with this power of two", 0)),
	SET(scaling.interval, LWM_FIXED, 2000,
	    LWM_OPT_INT(0, "loss-scale-interval", NULL, 1, 1 << 30, "N", "and doubles after N updates in a row", 0)),
	SET(scaling.backoff, LWM_FIXED, 0.5,
	    LWM_OPT_DOUBLE(0, "loss-scale-backoff", NULL, 0, 1, "X", "times X after gradients that were too large, in place of an update", 0)),
	LWM_SECTION("Adapting"),
	TEXT(train_only, LWM_FIXED, NULL,
	     LWM_OPT_STR(0, "train-only", NULL, "LIST",
			 "names of tensors, with * and ?, commas between: no other one trains, or has optimizer state", 0)),
	TEXT(freeze, LWM_FIXED, NULL, LWM_OPT_STR(0, "freeze", NULL, "LIST", "and of what would train these do not", 0)),
	TEXT(lr_factors, LWM_FIXED, NULL,
	     LWM_OPT_STR(0, "lr-factors", NULL, "LIST", "PATTERN=X: the learning rate of these tensors times X; the last match counts", 0)),
	TEXT(lora, LWM_FIXED, NULL,
	     LWM_OPT_STR(0, "lora", NULL, "LIST", "these matrices are frozen and get adapters of low rank, NAME.lora_a and NAME.lora_b", 0)),
	SET(lora_rank, LWM_FIXED, 16, LWM_OPT_INT(0, "lora-rank", NULL, 1, 1 << 16, "N", "of the adapters", 0)),
	SET(lora_alpha, LWM_FIXED, 0,
	    LWM_OPT_DOUBLE(0, "lora-alpha", NULL, 0, 1e6, "X", "what they add is multiplied by X / rank; 0: by 1", 0)),
	SET(ema, LWM_FIXED, 0,
	    LWM_OPT_DOUBLE(0, "ema", NULL, 0, 0.9999999, "X",
			   "decay of an average of the weights, in checkpoints beside them: at most (1 + n) / (10 + n) after n updates; 0: none",
			   0)),
	LWM_SECTION("Ranks and memory"),
	TEXT(mesh_dim, LWM_FREE, "-1,1,1,1", LWM_OPT_STR(0, "mesh-dim", NULL, "D,F,T,S", "dp,fsdp,tp,sp; one may be -1", 0)),
	SET(sum_order, LWM_ROUNDED, LWM_SUM_MESH,
	    LWM_OPT_CHOICE(0, "sum-order", NULL, order_names,
			   "of gradients and losses: over the ranks as they are; canonical: by rows, the same bits for any dp x fsdp", 0)),
	SET(shard_weights, LWM_FREE, LWM_SHARD_AUTO,
	    LWM_OPT_CHOICE(0, "shard-weights", NULL, shard_names,
			   "weights and gradients are cut over fsdp x sp and gathered layer by layer; auto: where fsdp > 1, on GPUs where sp > 1",
			   0)),
	SET(gather_ahead, LWM_FREE, 1,
	    LWM_OPT_INT(0, "gather-ahead", NULL, 0, 64, "N", "layers of them that are gathered before they are used", 0)),
	SET(scatter, LWM_FREE, LWM_SCATTER_STEP,
	    LWM_OPT_CHOICE(0, "scatter", NULL, scatter_names,
			   "their gradients: kept whole until the end of the step, or scattered after every microbatch", 0)),
	LWM_HERE,
	SET(plan_ranks, LWM_UNRECORDED, 1,
	    LWM_OPT_INT(0, "plan-ranks", NULL, 1, 1 << 20, "N", "ranks that --plan and --check-options are made for", 0)),
	SET(plan_gib, LWM_UNRECORDED, 0,
	    LWM_OPT_INT(0, "plan-memory", NULL, 0, 1 << 20, "GIB", "of the GPU that --plan is made for; 0: the device at hand", 0)),
	LWM_SECTION("Planning (with --plan)"),
	SET(plan_gpu, LWM_UNRECORDED, 0,
	    LWM_OPT_CHOICE(0, "plan-gpu", NULL, lwm_gpu_names, "GPU whose memory and rates hold where nothing else is said", 0)),
	SET(plan_document, LWM_UNRECORDED, 0,
	    LWM_OPT_INT(0, "plan-document", NULL, 0, 1 << 30, "N",
			"tokens of each document in the rows; 0: a row is one, which takes most", 0)),
	SET(suggest, LWM_UNRECORDED, 0,
	    LWM_OPT_FLAG(0, "suggest", NULL, "the five fastest meshes, with recomputation and offload, that fit")),
	SET(calibrate, LWM_UNRECORDED, 0,
	    LWM_OPT_FLAG(0, "calibrate", NULL, "rates as measured here; under mpirun or srun links too, by all ranks at once")),
	SET(rates.products, LWM_UNRECORDED, 0,
	    LWM_OPT_DOUBLE(0, "plan-tflops", NULL, 0, 1e9, "X", "of a rank's matrix products; 0: not known", 0)),
	SET(rates.attention, LWM_UNRECORDED, 0,
	    LWM_OPT_DOUBLE(0, "plan-attention-tflops", NULL, 0, 1e9, "X", "of its attention; 0: as products", 0)),
	SET(rates.memory, LWM_UNRECORDED, 0, LWM_OPT_DOUBLE(0, "plan-memory-rate", NULL, 0, 1e9, "GB/S", "of its memory", 0)),
	SET(rates.node, LWM_UNRECORDED, 0,
	    LWM_OPT_DOUBLE(0, "plan-node-rate", NULL, 0, 1e9, "GB/S", "that it sends to others of its node", 0)),
	SET(rates.net, LWM_UNRECORDED, 0,
	    LWM_OPT_DOUBLE(0, "plan-net-rate", NULL, 0, 1e9, "GB/S", "that it sends to other nodes; 0: as to its own", 0)),
	SET(rates.host, LWM_UNRECORDED, 0,
	    LWM_OPT_DOUBLE(0, "plan-host-rate", NULL, 0, 1e9, "GB/S", "between a GPU and host memory, one way", 0)),
	SET(rates.disk, LWM_UNRECORDED, 0, LWM_OPT_DOUBLE(0, "plan-disk-rate", NULL, 0, 1e9, "GB/S", "that all ranks write", 0)),
	SET(rates.latency, LWM_UNRECORDED, 0,
	    LWM_OPT_DOUBLE(0, "plan-latency", NULL, 0, 1e9, "US", "microseconds that an exchange takes at least", 0)),
	SET(rates.node_ranks, LWM_UNRECORDED, 0,
	    LWM_OPT_INT(0, "plan-node-ranks", NULL, 0, 1 << 20, "N", "ranks of a node; 0: all", 0)),
	LWM_SECTION("Checkpoints and records"),
	SET(checkpoint_every, LWM_FREE, 200,
	    LWM_OPT_INT(0, "checkpoint-every", NULL, 0, 1 << 30, "N", "steps; 0: only at the end", 0)),
	SET(keep, LWM_FREE, 2, LWM_OPT_INT(0, "keep", NULL, 1, 1 << 20, "N", "newest checkpoints that stay", 0)),
	SET(keep_every, LWM_FREE, 0, LWM_OPT_INT(0, "keep-every", NULL, 0, 1 << 30, "N", "and every N steps for good; 0: none", 0)),
	SET(save_behind, LWM_UNRECORDED, LWM_BEHIND_AUTO,
	    LWM_OPT_CHOICE(0, "save-behind", NULL, behind_names,
			   "written while training goes on, from a copy in host memory (12 bytes a weight over all ranks); but the last one; "
			   "auto: where there is room, true: refuse without", 0)),
	SET(log_every, LWM_FREE, 10, LWM_OPT_INT(0, "log-every", NULL, 1, 1 << 30, "N", "steps a line on stderr", 0)),
	SET(tensorboard, LWM_UNRECORDED, 0,
	    LWM_OPT_FLAG(0, "tensorboard", NULL, "curves in event files of TensorBoard, too: OUTPUT/tensorboard")),
	SET(peak_tflops, LWM_UNRECORDED, 0,
	    LWM_OPT_DOUBLE(0, "peak-tflops", NULL, 0, 1e9, "X",
			   "of one rank's device, for MFU; 0: its matrix product is measured once steps have taken 5 s", 0)),
	SET(eval_every, LWM_FREE, 0, LWM_OPT_INT(0, "eval-every", NULL, 0, 1 << 30, "N", "steps; 0: only at the end", 0)),
	SET(eval_rows, LWM_FREE, 64,
	    LWM_OPT_INT(0, "eval-rows", NULL, 0, 1 << 30, "N",
			"held-out rows (or frames) an evaluation takes, each once; all when there are fewer", 0)),
	SET(sample_every, LWM_FREE, 0,
	    LWM_OPT_INT(0, "sample-every", NULL, 0, 1 << 30, "N",
			"steps between files that show what the model makes, OUTPUT/samples; one more after the last step; 0: none", 0)),
	SET(samples, LWM_FREE, 4, LWM_OPT_INT(0, "samples", NULL, 1, 64, "N", "examples in each of them", 0)),
	SET(allow_change, LWM_UNRECORDED, 0,
	    LWM_OPT_LIST(0, "allow-change", NULL, "NAME", "a resumed run may have another value of this option (data: other rows)", 0)),
	SET(start_over, LWM_UNRECORDED, 0,
	    LWM_OPT_FLAG(0, "start-over", NULL, "begin at step 0 where no checkpoint is whole; what stands is set aside")),
	SET(stop_after, LWM_UNRECORDED, 0,
	    LWM_OPT_INT(0, "stop-after", NULL, 0, 1 << 30, "N", "save and stop (exit 75) after N steps of this run", 0)),
	SET(grace, LWM_UNRECORDED, 120, LWM_OPT_SECONDS(0, "grace", NULL, "TIME", "stop this long before the Slurm limit", 0)),
	SET(check_replicas, LWM_UNRECORDED, 100,
	    LWM_OPT_INT(0, "check-replicas", NULL, 0, 1 << 30, "N",
			"exit 79 when ranks that hold the same weights do not: compared every N steps and before saves; 0: never", 0)),
	SET(watchdog, LWM_UNRECORDED, 1800,
	    LWM_OPT_SECONDS(0, "watchdog", NULL, "TIME", "exit 76 when a rank among several gives no sign of life for so long; 0: never",
			    0)),
	LWM_SETTINGS_END
};

int lwm_stage_init(struct lwm_stage *s, struct lwm_err *e)
{
	int n = 0;
	memset(s, 0, sizeof *s);
	while (lwm_objectives[n])
		n++;
	s->values = calloc((size_t)n + 2, sizeof *s->values);
	if (!s->values)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for settings");
	s->values[0].table = common_settings;
	for (int i = 0; i < n; i++) {
		void *own = calloc(1, lwm_objectives[i]->settings_size);
		if (!own) {
			lwm_stage_release(s);
			return lwm_fail(e, LWM_EMEMORY, "out of memory for settings");
		}
		s->values[i + 1] = (struct lwm_values){ lwm_objectives[i]->settings, own };
	}
	lwm_settings_reset(s);
	s->peak_after = 5;
	return 0;
}

void lwm_stage_release(struct lwm_stage *s)
{
	if (s->values)
		lwm_settings_release(s);
	for (struct lwm_values *v = s->values; v && v->table; v++)
		free(v->at);
	free(s->values);
	s->values = NULL;
}

/* What cannot be had in the order of rows is refused, never summed in another one. */
static int check_order(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	if (s->sum_order != LWM_SUM_CANONICAL)
		return 0;
	if (!lwm_objectives[s->objective]->by_row)
		return lwm_fail(e, LWM_ECONFIG, "--sum-order canonical: this objective cannot sum by rows");
	if (m->dim[LWM_TP] * m->dim[LWM_SP] > 1)
		return lwm_fail(e, LWM_ECONFIG, "--sum-order canonical: with tp or sp > 1 (mesh_dim '%s') ranks share a row, and "
				"its own sums depend on how; dp and fsdp may be any", s->mesh_dim);
	if (s->plan_gib)
		return lwm_fail(e, LWM_ECONFIG, "--sum-order canonical is for CPUs, not for a GPU (--plan-memory)");
	return 0;
}

int lwm_stage_scaling(const struct lwm_stage *s, struct lwm_scaling *out, struct lwm_err *e)
{
	*out = s->scaling;
	out->fixed = 0;
	if (strcmp(s->loss_scale, "auto"))
		LWM_TRY(lwm_parse_double(s->loss_scale, 0, 1e13, &out->fixed, "--loss-scale (auto or a number)", e));
	if (strcmp(s->loss_scale, "auto") && out->fixed == 0)
		return lwm_fail(e, LWM_EUSAGE, "--loss-scale 0: nothing would be left of the loss");
	return lwm_scale_check(out, e);
}

/* What fp16 cannot do, or does not without. */
static int check_dtype(const struct lwm_stage *s, const struct lwm_objective_type *type, struct lwm_err *e)
{
	struct lwm_scaling ignored;
	LWM_TRY(lwm_stage_scaling(s, &ignored, e));
	if (s->dtype != LWM_DTYPE_FP16)
		return strcmp(s->loss_scale, "auto") ? lwm_fail(e, LWM_ECONFIG, "--loss-scale is for --dtype fp16") : 0;
	if (!type->scales)
		return lwm_fail(e, LWM_ECONFIG, "--dtype fp16: this objective cannot scale its loss, without which small gradients are lost");
	if (s->plan_gib)
		return lwm_fail(e, LWM_ECONFIG, "--dtype fp16 is for CPUs, not for a GPU (--plan-memory)");
	return 0;
}

int lwm_stage_check(const struct lwm_stage *s, int ranks, struct lwm_err *e)
{
	const struct lwm_objective_type *type = lwm_objectives[s->objective];
	struct lwm_mesh m = { .dim = { 0 } };
	struct lwm_choose choice = lwm_stage_choice(s);
	struct lwm_adapters adapters = lwm_stage_adapters(s);
	struct lwm_start from;
	if (!s->data.n)
		return lwm_fail(e, LWM_EUSAGE, "--data is missing: row shards (or media for reconstruction)");
	if (!type->holds_out && s->eval_every && !s->eval_data.n)
		return lwm_fail(e, LWM_EUSAGE, "--eval-every needs --eval-data");
	if (s->sample_every && !type->sample)
		return lwm_fail(e, LWM_ECONFIG, "--sample-every: the objective %s has nothing that could be shown",
				lwm_objective_names[s->objective]);
	LWM_TRY(lwm_schedule_check(&s->schedule, e));
	LWM_TRY(lwm_choose_check(&choice, e));
	LWM_TRY(lwm_adapters_check(&adapters, e));
	LWM_TRY(lwm_settings_check(s, e));
	LWM_TRY(lwm_mesh_parse(s->mesh_dim, ranks, m.dim, e));
	LWM_TRY(lwm_mesh_check(m.dim, s->mesh_dim, e));
	if (s->shard_weights == LWM_SHARD_TRUE && !type->by_group)
		return lwm_fail(e, LWM_ECONFIG, "--shard-weights true: this objective takes its weights whole");
	LWM_TRY(check_order(s, &m, e));
	LWM_TRY(check_dtype(s, type, e));
	LWM_TRY(type->check(s, &m, e));
	return lwm_start_parse(&from, s->start_from, e);
}
